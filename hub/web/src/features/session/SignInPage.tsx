import { Alert, Button, PasswordInput, Skeleton, TextInput } from "@mantine/core";
import { useForm } from "@mantine/form";
import { useQuery } from "@tanstack/react-query";
import { Link, useNavigate, useSearch } from "@tanstack/react-router";
import { useState } from "react";
import { useTranslation } from "react-i18next";
import { ApiError } from "../../api/http";
import { configQuery } from "../../api/lists";
import { signIn, useSession } from "../../api/session";
import { SessionFrame } from "./SessionFrame";
import css from "./SignInPage.module.css";

export function SignInPage() {
  const { t } = useTranslation();
  const config = useQuery(configQuery);
  return (
    <SessionFrame title={t("signIn.title")}>
      {config.isPending ? <FormSkeleton /> : <SignInForm demo={config.data?.demo ?? null} />}
    </SessionFrame>
  );
}

/** Stands until it is known what to fill in: text that appears under somebody's fingers would mix with theirs. */
function FormSkeleton() {
  return (
    <div className={css.fields} aria-hidden>
      <Skeleton height={64} radius="md" />
      <Skeleton height={64} radius="md" />
      <Skeleton height={42} radius="md" />
    </div>
  );
}

function SignInForm({ demo }: { demo: { email: string; password: string } | null }) {
  const { t } = useTranslation();
  const navigate = useNavigate();
  const { next } = useSearch({ from: "/sign-in" });
  const session = useSession();
  const [failure, setFailure] = useState<string | null>(null);
  const [busy, setBusy] = useState(false);
  const form = useForm({
    initialValues: { email: demo?.email ?? "", password: demo?.password ?? "" },
    validate: {
      email: (value) => (value.trim() ? null : t("signIn.emailNeeded")),
      password: (value) => (value ? null : t("signIn.passwordNeeded")),
    },
  });

  const submit = form.onSubmit(
    ({ email, password }) => {
      setBusy(true);
      setFailure(null);
      signIn(email.trim(), password)
        .then(() => navigate({ href: next ?? "/inbox" }))
        .catch((error: unknown) => {
          if (!(error instanceof ApiError)) throw error;
          setFailure(
            error.status === 429 ? t("signIn.tooMany") : error.transient ? t("signIn.away") : t("signIn.wrong"),
          );
        })
        .finally(() => setBusy(false));
    },
    (errors) => {
      const first = Object.keys(errors)[0];
      if (first) form.getInputNode(first)?.focus();
    },
  );

  return (
    <form className={css.fields} onSubmit={submit} noValidate>
      {session.status === "anonymous" && session.reason === "expired" && (
        <Alert color="yellow" variant="default">
          {t("signIn.expired")}
        </Alert>
      )}
      {failure && (
        <Alert color="red" role="alert" variant="default" classNames={{ root: css.failure }}>
          {failure}
        </Alert>
      )}
      <TextInput
        label={t("signIn.email")}
        type="email"
        autoComplete="username"
        dir="ltr"
        size="md"
        {...form.getInputProps("email")}
        key={form.key("email")}
      />
      <PasswordInput
        label={t("signIn.password")}
        autoComplete="current-password"
        size="md"
        visibilityToggleButtonProps={{ "aria-label": t("signIn.show") }}
        {...form.getInputProps("password")}
        key={form.key("password")}
      />
      <Button type="submit" size="md" loading={busy} fullWidth mt={4}>
        {t("signIn.submit")}
      </Button>
      <Link to="/forgot" className={css.link}>
        {t("signIn.forgot")}
      </Link>
      {demo && <p className={css.hint}>{t("signIn.demo")}</p>}
    </form>
  );
}
