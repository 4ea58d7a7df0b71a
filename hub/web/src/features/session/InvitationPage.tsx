import { Alert, Button, PasswordInput, Skeleton, TextInput } from "@mantine/core";
import { useForm } from "@mantine/form";
import { useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { type ReactNode, useState } from "react";
import { useTranslation } from "react-i18next";
import { signOut, useSession } from "../../api/session";
import "../../i18n/account";
import { roleLabel } from "../../i18n/labels";
import { SessionFrame } from "./SessionFrame";
import css from "./SignInPage.module.css";
import { type Refusal, type Standing, joinAs, joinSignedIn, refusalOf, standingQuery, tokenIn } from "./joining";

export function InvitationPage() {
  const { t } = useTranslation("account");
  const [token] = useState(() => tokenIn(location.hash));
  return token === null ? (
    <SessionFrame title={t("join.titleUnknown")}>
      <Failure>{t("join.incomplete")}</Failure>
    </SessionFrame>
  ) : (
    <Opened token={token} />
  );
}

function Failure({ children, signIn = false }: { children: ReactNode; signIn?: boolean }) {
  const { t } = useTranslation("account");
  return (
    <div className={css.fields}>
      <Alert color="red" role="alert" variant="default" classNames={{ root: css.failure }}>
        {children}
      </Alert>
      {signIn && (
        <Button component={Link} to="/sign-in" variant="default" size="md">
          {t("join.toSignIn")}
        </Button>
      )}
    </div>
  );
}

function useWords(): (refusal: Refusal) => string {
  const { t } = useTranslation("account");
  const { t: app } = useTranslation();
  return (refusal) => {
    switch (refusal) {
      case "over":
        return t("join.over");
      case "used":
        return t("join.used");
      case "wrong":
        return t("join.wrong");
      case "otherAddress":
        return t("join.otherAddress");
      case "weak":
        return t("join.weak");
      case "tooMany":
        return app("signIn.tooMany");
      case "away":
        return app("signIn.away");
      default:
        return refusal satisfies never;
    }
  };
}

function Opened({ token }: { token: string }) {
  const { t } = useTranslation("account");
  const standing = useQuery(standingQuery(token));
  const session = useSession();
  const wordsFor = useWords();
  if (standing.error) {
    const refusal = refusalOf(standing.error);
    return (
      <SessionFrame title={t("join.titleUnknown")}>
        <Failure signIn={refusal === "used"}>{wordsFor(refusal)}</Failure>
      </SessionFrame>
    );
  }
  if (!standing.data) {
    return (
      <SessionFrame title={t("join.titleUnknown")}>
        <div className={css.fields} aria-hidden>
          <Skeleton height={64} radius="md" />
          <Skeleton height={42} radius="md" />
        </div>
      </SessionFrame>
    );
  }
  const found = standing.data;
  return (
    <SessionFrame title={t("join.title", { organization: found.organization.name })}>
      {session.status !== "signed-in" ? (
        <Newcomer token={token} found={found} />
      ) : session.email === found.email ? (
        <SignedIn token={token} found={found} />
      ) : (
        <div className={css.fields}>
          <p className={css.text}>{t("join.otherAccount", { email: session.email, invited: found.email })}</p>
          <Button size="md" onClick={() => void signOut()}>
            {t("join.signOut")}
          </Button>
        </div>
      )}
    </SessionFrame>
  );
}

interface JoinProps {
  token: string;
  found: Standing;
}

function Invited({ found }: { found: Standing }) {
  const { t } = useTranslation("account");
  const { t: app } = useTranslation();
  return <p className={css.text}>{t("join.invited", { email: found.email, role: roleLabel(app, found.role) })}</p>;
}

/** One attempt at a time. What this page knows of its session is another organization's, so the app begins anew. */
function useJoin(): { busy: boolean; refusal: Refusal | null; join: (how: () => Promise<void>) => void } {
  const [busy, setBusy] = useState(false);
  const [refusal, setRefusal] = useState<Refusal | null>(null);
  const join = (how: () => Promise<void>) => {
    setBusy(true);
    setRefusal(null);
    how()
      .then(() => location.replace("/inbox"))
      .catch((error: unknown) => {
        setBusy(false);
        setRefusal(refusalOf(error));
      });
  };
  return { busy, refusal, join };
}

function SignedIn({ token, found }: JoinProps) {
  const { t } = useTranslation("account");
  const { busy, refusal, join } = useJoin();
  const wordsFor = useWords();
  return (
    <div className={css.fields}>
      <Invited found={found} />
      {refusal && <Failure>{wordsFor(refusal)}</Failure>}
      <Button size="md" loading={busy} onClick={() => join(() => joinSignedIn(token, found.email))}>
        {t("join.submit")}
      </Button>
    </div>
  );
}

function Newcomer({ token, found }: JoinProps) {
  const { t } = useTranslation("account");
  const { t: app } = useTranslation();
  const isNew = !found.has_account;
  const { busy, refusal, join } = useJoin();
  const wordsFor = useWords();
  const form = useForm({
    initialValues: { first_name: "", last_name: "", password: "" },
    validate: {
      first_name: (value) => (isNew && !value.trim() ? t("join.firstNeeded") : null),
      password: (value) =>
        isNew && value.length < 8 ? t("join.short") : value ? null : app("signIn.passwordNeeded"),
    },
  });
  return (
    <form
      className={css.fields}
      noValidate
      onSubmit={form.onSubmit(
        (values) => join(() => joinAs(token, found.email, values)),
        (errors) => {
          const first = Object.keys(errors)[0];
          if (first) form.getInputNode(first)?.focus();
        },
      )}
    >
      <Invited found={found} />
      <p className={css.text}>{isNew ? t("join.new") : t("join.known")}</p>
      {refusal && <Failure signIn={refusal === "used"}>{wordsFor(refusal)}</Failure>}
      {/* For password managers, which keep a password with the name that stands before it. */}
      <input type="email" autoComplete="username" value={found.email} readOnly hidden />
      {isNew && (
        <>
          <TextInput
            label={t("join.first")}
            autoComplete="given-name"
            dir="auto"
            size="md"
            maxLength={100}
            {...form.getInputProps("first_name")}
            key={form.key("first_name")}
          />
          <TextInput
            label={t("join.last")}
            autoComplete="family-name"
            dir="auto"
            size="md"
            maxLength={100}
            {...form.getInputProps("last_name")}
            key={form.key("last_name")}
          />
        </>
      )}
      <PasswordInput
        label={isNew ? t("join.newPassword") : t("join.password")}
        autoComplete={isNew ? "new-password" : "current-password"}
        size="md"
        visibilityToggleButtonProps={{ "aria-label": app("signIn.show") }}
        {...form.getInputProps("password")}
        key={form.key("password")}
      />
      <Button type="submit" size="md" loading={busy} fullWidth mt={4}>
        {t("join.submit")}
      </Button>
    </form>
  );
}
