import { Button, NativeSelect, Skeleton, TextInput } from "@mantine/core";
import { keepPreviousData, useInfiniteQuery, useMutation, useQuery } from "@tanstack/react-query";
import { useNavigate, useSearch } from "@tanstack/react-router";
import { Download, ScrollText } from "lucide-react";
import { useTranslation } from "react-i18next";
import { complain } from "../../app/deeds";
import type { AuditSearch } from "../../app/search";
import { ApiError } from "../../api/http";
import type { AuditEntry } from "../../api/models";
import { localeOf } from "../../i18n";
import { colleagueName } from "../../lib/people";
import { fullTime } from "../../lib/time";
import { EmptyState } from "../../ui/EmptyState";
import css from "./Audit.module.css";
import settings from "./Settings.module.css";
import { SettingsPage } from "./SettingsFrame";
import {
  AUDIT_PAGE, NOUNS, actionLabel, actorLabel, auditFile, auditPage, changesOf, nounLabel, targetName, valueText,
} from "./audit";
import { type Member, membersQuery } from "./people";

export function AuditPage() {
  const { t } = useTranslation();
  const { t: words } = useTranslation("people");
  const search = useSearch({ from: "/shell/settings/audit" });
  const { data: members } = useQuery(membersQuery);
  const log = useInfiniteQuery({
    queryKey: ["audit", search],
    queryFn: ({ pageParam, signal }) => auditPage(search, pageParam, signal),
    initialPageParam: null as string | null,
    getNextPageParam: (last) => (last.length < AUDIT_PAGE ? null : (last.at(-1)?.id ?? null)),
    placeholderData: keepPreviousData,
    // Every look is of now: no event tells of new rows.
    staleTime: 0,
  });
  const entries = log.data?.pages.flat();
  const denied = log.error instanceof ApiError && log.error.status === 403;
  return (
    <SettingsPage title={words("audit.title")} intro={words("audit.intro")}>
      <Filters search={search} members={members ?? []} />
      {log.error && (
        <EmptyState
          icon={<ScrollText size={24} />}
          title={denied ? t("settings.denied") : t("settings.failed", { reason: log.error.message })}
        />
      )}
      {log.isPending && <Skeleton height={180} radius={14} />}
      {entries?.length === 0 && !log.error && (
        <EmptyState icon={<ScrollText size={24} />} title={words("audit.none")} />
      )}
      {entries && entries.length > 0 && (
        <ol className={settings.list}>
          {entries.map((one) => (
            <Entry key={one.id} one={one} members={members ?? []} />
          ))}
        </ol>
      )}
      {log.hasNextPage && (
        <Button
          variant="default"
          className={settings.start}
          loading={log.isFetchingNextPage}
          onClick={() => void log.fetchNextPage()}
        >
          {words("audit.more")}
        </Button>
      )}
    </SettingsPage>
  );
}

function Filters({ search, members }: { search: AuditSearch; members: readonly Member[] }) {
  const { t: words, i18n } = useTranslation("people");
  const navigate = useNavigate();
  const look = (change: AuditSearch) =>
    void navigate({ to: "/settings/audit", search: { ...search, ...change }, replace: true });
  const order = new Intl.Collator(localeOf(i18n.language)).compare;
  const nouns = NOUNS.map((value) => ({ value, label: nounLabel(words, value) })).sort((a, b) => order(a.label, b.label));
  const exporting = useMutation({
    mutationFn: async (format: "csv" | "json") => ({ format, file: await auditFile(search, format) }),
    onSuccess: ({ format, file }) => {
      const link = document.createElement("a");
      link.href = URL.createObjectURL(file);
      link.download = `audit-log.${format}`;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
    },
    onError: (error) => complain(error),
  });
  return (
    <section className={settings.card} aria-label={words("audit.filters")}>
      <div className={css.filters}>
        <NativeSelect
          label={words("audit.what")}
          value={search.what ?? ""}
          data={[{ value: "", label: words("audit.everything") }, ...nouns]}
          onChange={(event) => look({ what: event.currentTarget.value || undefined })}
        />
        <NativeSelect
          label={words("audit.who")}
          value={search.who ?? ""}
          data={[
            { value: "", label: words("audit.anybody") },
            ...members.map((one) => ({ value: one.id, label: colleagueName(one, one.id) })),
          ]}
          onChange={(event) => look({ who: event.currentTarget.value || undefined })}
        />
        <TextInput
          type="date"
          label={words("audit.from")}
          value={search.from ?? ""}
          onChange={(event) => look({ from: event.currentTarget.value || undefined })}
        />
        <TextInput
          type="date"
          label={words("audit.to")}
          value={search.to ?? ""}
          onChange={(event) => look({ to: event.currentTarget.value || undefined })}
        />
      </div>
      <div className={css.buttons}>
        {(["csv", "json"] as const).map((format) => (
          <Button
            key={format}
            variant="default"
            size="compact-md"
            leftSection={<Download size={15} aria-hidden />}
            loading={exporting.isPending && exporting.variables === format}
            onClick={() => exporting.mutate(format)}
          >
            {format === "csv" ? words("audit.csv") : words("audit.json")}
          </Button>
        ))}
        {Object.values(search).some((value) => value !== undefined) && (
          <Button
            variant="default"
            size="compact-md"
            onClick={() => look({ what: undefined, who: undefined, from: undefined, to: undefined })}
          >
            {words("audit.clear")}
          </Button>
        )}
      </div>
    </section>
  );
}

function Entry({ one, members }: { one: AuditEntry; members: readonly Member[] }) {
  const { t: words, i18n } = useTranslation("people");
  const named = (id: string | null) => {
    const found = id === null ? undefined : members.find((each) => each.id === id);
    return found && colleagueName(found, found.id);
  };
  const isMember = one.target_table === "memberships" || one.target_table === "team_members";
  const target = (isMember ? named(one.target_id) : undefined) ?? targetName(one);
  return (
    <li className={css.entry} data-testid="audit-entry">
      <p className={settings.entryName}>
        {actionLabel(words, one.action)}
        {target !== null && (
          <>
            {" · "}
            <bdi>{target}</bdi>
          </>
        )}
      </p>
      <p className={settings.entrySub}>
        <bdi>{named(one.actor_id) ?? actorLabel(words, one.actor_kind)}</bdi>
        {" · "}
        <time dateTime={one.at}>{fullTime(one.at, localeOf(i18n.language))}</time>
        {one.ip !== null && ` · ${words("audit.address", { ip: one.ip })}`}
      </p>
      <details className={css.details}>
        <summary className={settings.summary}>{words("audit.details")}</summary>
        <dl>
          {changesOf(one).map(({ field, before, after }) => (
            <div key={field} className={css.change}>
              <dt>
                <code dir="ltr">{field}</code>
              </dt>
              {before !== undefined && <Value label={words("audit.before")} value={before} />}
              {after !== undefined && <Value label={words("audit.after")} value={after} />}
            </div>
          ))}
          <div className={css.change}>
            <dt>{words("audit.code")}</dt>
            <dd>
              <code dir="ltr">{one.action}</code>
            </dd>
          </div>
          {one.request_id !== null && (
            <div className={css.change}>
              <dt>{words("audit.request")}</dt>
              <dd>
                <code dir="ltr">{one.request_id}</code>
              </dd>
            </div>
          )}
        </dl>
      </details>
    </li>
  );
}

function Value({ label, value }: { label: string; value: unknown }) {
  const { t: words } = useTranslation("people");
  return (
    <dd>
      <span className={css.when}>{label}</span>{" "}
      {value === null || value === "" ? words("audit.empty") : <bdi>{valueText(value)}</bdi>}
    </dd>
  );
}
