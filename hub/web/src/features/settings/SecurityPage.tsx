import { Alert, Button, PasswordInput } from "@mantine/core";
import { useForm } from "@mantine/form";
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { Monitor } from "lucide-react";
import { useTranslation } from "react-i18next";
import { announce, complain, explain } from "../../app/deeds";
import { ApiError } from "../../api/http";
import { changePassword } from "../../api/session";
import { localeOf } from "../../i18n";
import { fullTime, shortDate } from "../../lib/time";
import { Chip } from "../../ui/Chip";
import { Listing } from "./Listing";
import css from "./Settings.module.css";
import { SettingsPage } from "./SettingsFrame";
import { type OwnSession, deviceOf, endOtherSessions, endSession, sessionsQuery } from "./sessions";

export function SecurityPage() {
  const { t: words } = useTranslation("people");
  return (
    <SettingsPage title={words("security.title")} intro={words("security.intro")}>
      <Password />
      <Sessions />
    </SettingsPage>
  );
}

function Password() {
  const { t } = useTranslation();
  const { t: words } = useTranslation("people");
  const client = useQueryClient();
  const form = useForm({
    initialValues: { current: "", password: "" },
    validate: {
      current: (value) => (value ? null : words("security.currentNeeded")),
      password: (value) => (value.length < 8 ? words("security.short") : null),
    },
  });
  const wordsFor = (error: unknown): string => {
    if (!(error instanceof ApiError)) return explain(error);
    if (error.status === 429) return words("security.tooMany");
    switch (error.code) {
      case "current_password_mismatch":
        return words("security.wrong");
      case "same_password":
        return words("security.same");
      case "weak_password":
        return words("security.weak");
      default:
        return explain(error);
    }
  };
  const changing = useMutation({
    mutationFn: ({ current, password }: { current: string; password: string }) => changePassword(password, current),
    onSuccess: () => {
      form.reset();
      announce(words("security.changed"));
      return client.invalidateQueries({ queryKey: sessionsQuery.queryKey });
    },
  });
  const show = { "aria-label": t("signIn.show") };
  return (
    <section className={css.card} aria-labelledby="password">
      <div>
        <h3 className={css.curlTitle} id="password">
          {words("security.password")}
        </h3>
        <p className={css.hint}>{words("security.hint")}</p>
      </div>
      <form
        className={css.keyForm}
        noValidate
        onSubmit={form.onSubmit(
          (values) => changing.mutate(values),
          (errors) => {
            const first = Object.keys(errors)[0];
            if (first) form.getInputNode(first)?.focus();
          },
        )}
      >
        <PasswordInput
          className={css.wide}
          label={words("security.current")}
          autoComplete="current-password"
          visibilityToggleButtonProps={show}
          {...form.getInputProps("current")}
          key={form.key("current")}
        />
        <PasswordInput
          className={css.wide}
          label={words("security.new")}
          autoComplete="new-password"
          visibilityToggleButtonProps={show}
          {...form.getInputProps("password")}
          key={form.key("password")}
        />
        {changing.error && (
          <Alert color="red" variant="light" role="alert">
            {wordsFor(changing.error)}
          </Alert>
        )}
        <Button type="submit" variant="default" loading={changing.isPending}>
          {words("security.change")}
        </Button>
      </form>
    </section>
  );
}

function Sessions() {
  const { t } = useTranslation();
  const { t: words } = useTranslation("people");
  const client = useQueryClient();
  const sessions = useQuery(sessionsQuery);
  const ending = useMutation({
    mutationFn: (id: string | null) => (id === null ? endOtherSessions() : endSession(id)),
    onSuccess: () => announce(words("security.ended")),
    onError: (error) => complain(error),
    onSettled: () => client.invalidateQueries({ queryKey: sessionsQuery.queryKey }),
  });
  return (
    <>
      <div className={css.row}>
        <h3 className={css.curlTitle}>{words("security.sessions")}</h3>
        {sessions.data?.some((one) => !one.is_current) && (
          <Button
            variant="default"
            size="compact-md"
            loading={ending.isPending && ending.variables === null}
            onClick={() => ending.mutate(null)}
          >
            {words("security.endOthers")}
          </Button>
        )}
      </div>
      <Listing query={sessions} empty={t("app.notFound")}>
        {(one) => <Entry key={one.id} one={one} busy={ending.variables === one.id && ending.isPending} onEnd={ending.mutate} />}
      </Listing>
    </>
  );
}

function Entry({ one, busy, onEnd }: { one: OwnSession; busy: boolean; onEnd: (id: string) => void }) {
  const { t: words, i18n } = useTranslation("people");
  const lang = localeOf(i18n.language);
  const device = deviceOf(one.user_agent) ?? words("security.program");
  return (
    <li className={css.entry} data-testid="session">
      <Monitor size={20} aria-hidden />
      <div>
        <p className={css.entryName}>
          <bdi>{device}</bdi>
        </p>
        <p className={css.entrySub}>
          {one.organization !== null && (
            <>
              <bdi>{one.organization}</bdi>
              {" · "}
            </>
          )}
          {words("security.since", { date: shortDate(one.created_at, lang) })}
          {one.refreshed_at !== null && ` · ${words("security.lastSeen", { date: fullTime(one.refreshed_at, lang) })}`}
          {one.ip !== null && ` · ${words("audit.address", { ip: one.ip })}`}
        </p>
      </div>
      <div className={css.entryEnd}>
        {one.is_current ? (
          <Chip tone="good">{words("security.here")}</Chip>
        ) : (
          <Button
            size="compact-sm"
            variant="default"
            aria-label={words("security.endLabel", { device })}
            loading={busy}
            onClick={() => onEnd(one.id)}
          >
            {words("security.end")}
          </Button>
        )}
      </div>
    </li>
  );
}
