import { Alert, Button, TextInput } from "@mantine/core";
import { useForm } from "@mantine/form";
import { Link } from "@tanstack/react-router";
import { useState } from "react";
import { useTranslation } from "react-i18next";
import { ApiError } from "../../api/http";
import { recover } from "../../api/session";
import "../../i18n/account";
import { SessionFrame } from "./SessionFrame";
import css from "./SignInPage.module.css";

export function ForgotPage() {
  const { t } = useTranslation("account");
  const { t: app } = useTranslation();
  const [sentTo, setSentTo] = useState<string | null>(null);
  const [failure, setFailure] = useState<string | null>(null);
  const [busy, setBusy] = useState(false);
  const form = useForm({
    initialValues: { email: "" },
    validate: { email: (value) => (/^\S+@\S+$/.test(value.trim()) ? null : app("signIn.emailNeeded")) },
  });
  const submit = ({ email }: { email: string }) => {
    setBusy(true);
    setFailure(null);
    recover(email.trim())
      .then(() => setSentTo(email.trim()))
      .catch((error: unknown) => {
        if (!(error instanceof ApiError)) throw error;
        setFailure(
          error.status === 429 ? app("signIn.tooMany") : error.transient ? app("signIn.away") : app("signIn.emailNeeded"),
        );
      })
      .finally(() => setBusy(false));
  };
  return (
    <SessionFrame title={t("forgot.title")}>
      {sentTo !== null ? (
        <div className={css.fields} role="status">
          <p className={css.text}>{t("forgot.sent", { email: sentTo })}</p>
          <p className={css.text}>{t("forgot.nothing")}</p>
        </div>
      ) : (
        <form
          className={css.fields}
          noValidate
          onSubmit={form.onSubmit(submit, () => form.getInputNode("email")?.focus())}
        >
          <p className={css.text}>{t("forgot.hint")}</p>
          {failure && (
            <Alert color="red" role="alert" variant="default" classNames={{ root: css.failure }}>
              {failure}
            </Alert>
          )}
          <TextInput
            label={app("signIn.email")}
            type="email"
            autoComplete="username"
            dir="ltr"
            size="md"
            {...form.getInputProps("email")}
            key={form.key("email")}
          />
          <Button type="submit" size="md" loading={busy} fullWidth>
            {t("forgot.send")}
          </Button>
        </form>
      )}
      <Link to="/sign-in" className={css.link}>
        {t("forgot.back")}
      </Link>
    </SessionFrame>
  );
}
