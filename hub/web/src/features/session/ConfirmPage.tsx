import { Alert, Button, PasswordInput } from "@mantine/core";
import { useForm } from "@mantine/form";
import { Link } from "@tanstack/react-router";
import { useRef, useState } from "react";
import { useTranslation } from "react-i18next";
import { ApiError } from "../../api/http";
import { changePassword, followLink } from "../../api/session";
import "../../i18n/account";
import { SessionFrame } from "./SessionFrame";
import css from "./SignInPage.module.css";

/** What a mail's link says behind its `#`; null where a part is missing. */
export function linkIn(hash: string): { type: string; tokenHash: string } | null {
  const given = new URLSearchParams(hash.replace(/^#/, ""));
  const [type, tokenHash] = [given.get("type"), given.get("token_hash")];
  return type && tokenHash ? { type, tokenHash } : null;
}

/** Nothing is used before somebody says so: programs that open links in mails would spend them. */
export function ConfirmPage() {
  const { t } = useTranslation("account");
  const { t: app } = useTranslation();
  const [link] = useState(() => linkIn(location.hash));
  const wantsPassword = link?.type === "recovery" || link?.type === "invite";
  const followed = useRef(false);
  const [over, setOver] = useState(false);
  const [failure, setFailure] = useState<string | null>(null);
  const [busy, setBusy] = useState(false);
  const form = useForm({
    initialValues: { password: "" },
    validate: { password: (value) => (wantsPassword && value.length < 8 ? t("join.short") : null) },
  });

  const goOn = async (password: string): Promise<void> => {
    if (link === null) return;
    if (!followed.current) await followLink(link.type, link.tokenHash);
    followed.current = true; // A second try, with a better password, uses the session that is there.
    if (wantsPassword) await changePassword(password);
    location.replace("/inbox");
  };
  const submit = ({ password }: { password: string }) => {
    setBusy(true);
    setFailure(null);
    goOn(password).catch((error: unknown) => {
      setBusy(false);
      if (!(error instanceof ApiError)) throw error;
      if (!followed.current && error.status === 403) setOver(true);
      else if (error.status === 429) setFailure(app("signIn.tooMany"));
      else if (error.transient) setFailure(app("signIn.away"));
      else setFailure(error.code === "same_password" ? t("confirm.same") : t("join.weak"));
    });
  };

  const title =
    link?.type === "recovery" ? t("confirm.recovery") : link?.type === "invite" ? t("confirm.invite") : t("confirm.other");
  if (link === null || over) {
    return (
      <SessionFrame title={title}>
        <Alert color="red" role="alert" variant="default" classNames={{ root: css.failure }}>
          {over ? t("confirm.over") : t("confirm.incomplete")}
        </Alert>
        <Link to="/forgot" className={css.link}>
          {t("confirm.again")}
        </Link>
      </SessionFrame>
    );
  }
  return (
    <SessionFrame title={title}>
      <form
        className={css.fields}
        noValidate
        onSubmit={form.onSubmit(submit, () => form.getInputNode("password")?.focus())}
      >
        <p className={css.text}>{wantsPassword ? t("confirm.hint") : t("confirm.otherHint")}</p>
        {failure && (
          <Alert color="red" role="alert" variant="default" classNames={{ root: css.failure }}>
            {failure}
          </Alert>
        )}
        {wantsPassword && (
          <PasswordInput
            label={t("confirm.password")}
            autoComplete="new-password"
            size="md"
            visibilityToggleButtonProps={{ "aria-label": app("signIn.show") }}
            {...form.getInputProps("password")}
            key={form.key("password")}
          />
        )}
        <Button type="submit" size="md" loading={busy} fullWidth>
          {wantsPassword ? t("confirm.save") : t("confirm.goOn")}
        </Button>
      </form>
    </SessionFrame>
  );
}
