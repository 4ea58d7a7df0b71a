import { Button, Modal, NativeSelect, TextInput } from "@mantine/core";
import { useForm } from "@mantine/form";
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { KeyRound } from "lucide-react";
import { useEffect, useRef, useState } from "react";
import { useTranslation } from "react-i18next";
import { announce, complain } from "../../app/deeds";
import { ApiError } from "../../api/http";
import { useSession } from "../../api/session";
import { localeOf } from "../../i18n";
import { permissionLabel } from "../../i18n/labels";
import { shortDate } from "../../lib/time";
import { Chip } from "../../ui/Chip";
import { CopyField } from "../../ui/CopyField";
import { PermissionBoxes } from "./PermissionBoxes";
import css from "./Settings.module.css";
import { type ApiKey, apiKeysQuery, generateApiKey, revokeApiKey, rotateApiKey } from "./apiKeys";
import { type Member, type Permissions, holds, membersQuery } from "./people";

interface KeysProps {
  /** A key that was just made: the only time that it can be seen. */
  made: string | null;
  onMade: (key: string) => void;
}

export function Keys({ made, onMade }: KeysProps) {
  const { t } = useTranslation();
  const { t: words } = useTranslation("people");
  const keys = useQuery(apiKeysQuery);
  const { data: members } = useQuery(membersQuery);
  const session = useSession();
  const me = members?.find((one) => session.status === "signed-in" && one.id === session.userId);
  const shown = useRef<HTMLDivElement>(null);
  useEffect(() => {
    if (made !== null) shown.current?.scrollIntoView({ block: "center" });
  }, [made]);
  // Who may not see the keys may not make any either.
  if (keys.error instanceof ApiError && keys.error.status === 403) return null;
  const active = keys.data?.filter((one) => one.status === "active");
  const ended = keys.data?.filter((one) => one.status !== "active") ?? [];
  return (
    <section className={css.card} aria-labelledby="keys" data-testid="keys">
      <div>
        <h3 className={css.curlTitle} id="keys">
          {t("api.keys")}
        </h3>
        <p className={css.hint}>{t("api.keysHint")}</p>
      </div>
      <div role="status" ref={shown}>
        {made !== null && (
          <>
            <CopyField value={made} copy={t("common.copy")} copied={t("common.copied")} />
            <p className={css.warning}>{t("api.made")}</p>
          </>
        )}
      </div>
      {active?.length === 0 && <p className={css.hint}>{t("api.noKeys")}</p>}
      {active && active.length > 0 && (
        <ul className={css.plainList}>
          {active.map((one) => (
            <KeyLine key={one.id} one={one} onMade={onMade} />
          ))}
        </ul>
      )}
      {ended.length > 0 && (
        <details>
          <summary className={css.summary}>{words("keys.ended")}</summary>
          <ul className={css.plainList}>
            {ended.map((one) => (
              <EndedLine key={one.id} one={one} />
            ))}
          </ul>
        </details>
      )}
      {me && <KeyForm me={me} onMade={onMade} />}
    </section>
  );
}

/** "" = until it is revoked. */
function useLives(): { value: string; label: string }[] {
  const { t: words } = useTranslation("people");
  return [
    { value: "", label: words("keys.never") },
    { value: "30", label: words("keys.month") },
    { value: "90", label: words("keys.quarter") },
    { value: "365", label: words("keys.year") },
  ];
}

const daysOf = (life: string): number | null => (life === "" ? null : Number(life));

function KeyForm({ me, onMade }: { me: Member; onMade: (key: string) => void }) {
  const { t } = useTranslation();
  const { t: words } = useTranslation("people");
  const client = useQueryClient();
  const lives = useLives();
  const sends = holds(me, "can_send_messages");
  const usual: Permissions = {
    can_send_messages: sends, can_read_messages: false, can_access_crm: false, can_access_pm: false, can_manage_team: false,
    can_manage_settings: false,
  };
  const [granted, setGranted] = useState(usual);
  const [life, setLife] = useState("");
  const form = useForm({
    initialValues: { name: "" },
    validate: { name: (value) => (value.trim() ? null : t("api.keyNameNeeded")) },
  });
  const making = useMutation({
    mutationFn: (name: string) => generateApiKey(name, granted, daysOf(life)),
    onSuccess: (key) => {
      onMade(key);
      form.reset();
      setGranted(usual);
      setLife("");
      void client.invalidateQueries({ queryKey: ["rest", "api_keys"] });
    },
    onError: (error) => complain(error),
  });
  return (
    <form
      className={css.keyForm}
      onSubmit={form.onSubmit(
        ({ name }) => making.mutate(name.trim()),
        () => form.getInputNode("name")?.focus(),
      )}
    >
      <TextInput
        label={t("api.newKey")}
        placeholder={t("api.keyName")}
        dir="auto"
        maxLength={200}
        {...form.getInputProps("name")}
        key={form.key("name")}
      />
      <PermissionBoxes legend={words("may")} value={granted} giver={me} onChange={setGranted} />
      <NativeSelect
        label={words("keys.ends")}
        value={life}
        data={lives}
        onChange={(event) => setLife(event.currentTarget.value)}
      />
      <Button type="submit" variant="default" loading={making.isPending}>
        {t("api.make")}
      </Button>
    </form>
  );
}

function Facts({ one }: { one: ApiKey }) {
  const { t, i18n } = useTranslation();
  const { t: words } = useTranslation("people");
  const lang = localeOf(i18n.language);
  const granted = Object.entries(one.permissions).filter(([, value]) => value === true);
  return (
    <div>
      <p className={css.entryName}>
        <bdi>{one.name}</bdi>
      </p>
      <p className={css.entrySub}>
        <code dir="ltr">{one.key_prefix}</code>{" "}
        {one.last_used_at ? t("api.lastUsed", { date: shortDate(one.last_used_at, lang) }) : t("api.neverUsed")}
        {one.status === "active" && one.expires_at && ` · ${t("api.expires", { date: shortDate(one.expires_at, lang) })}`}
      </p>
      <div className={css.chips}>
        {one.status === "expired" && <Chip tone="warn">{words("keys.expired")}</Chip>}
        {one.status === "revoked" && <Chip tone="bad">{words("keys.wasRevoked")}</Chip>}
        {granted.length === 0 && <Chip>{words("keys.nothing")}</Chip>}
        {granted.map(([name]) => (
          <Chip key={name}>{permissionLabel(t, name)}</Chip>
        ))}
      </div>
    </div>
  );
}

function EndedLine({ one }: { one: ApiKey }) {
  return (
    <li className={css.keyLine} data-testid="ended-key">
      <KeyRound size={16} aria-hidden />
      <Facts one={one} />
    </li>
  );
}

function KeyLine({ one, onMade }: { one: ApiKey; onMade: (key: string) => void }) {
  const { t } = useTranslation();
  const { t: words } = useTranslation("people");
  const client = useQueryClient();
  const [asking, setAsking] = useState<"revoke" | "rotate" | null>(null);
  const { name } = one;
  const revoking = useMutation({
    mutationFn: () => revokeApiKey(one.id),
    onSuccess: () => announce(words("keys.revoked", { name })),
    onError: (error) => complain(error),
    onSettled: () => {
      setAsking(null);
      return client.invalidateQueries({ queryKey: ["rest", "api_keys"] });
    },
  });
  return (
    <li className={css.keyLine} data-testid="key">
      <KeyRound size={16} aria-hidden />
      <Facts one={one} />
      <div className={css.entryEnd}>
        <Button
          size="compact-sm"
          variant="default"
          aria-label={words("keys.rotateLabel", { name })}
          onClick={() => setAsking("rotate")}
        >
          {words("keys.rotate")}
        </Button>
        <Button
          size="compact-sm"
          variant="default"
          aria-label={t("api.revokeLabel", { name })}
          onClick={() => setAsking("revoke")}
        >
          {t("api.revoke")}
        </Button>
      </div>
      {asking === "rotate" && <RotateDialog one={one} onMade={onMade} onClose={() => setAsking(null)} />}
      <Modal
        opened={asking === "revoke"}
        onClose={() => setAsking(null)}
        title={t("api.revokeLabel", { name })}
        closeButtonProps={{ "aria-label": t("common.close") }}
      >
        <p className={css.value}>{t("api.revokeSure", { name })}</p>
        <div className={css.entryEnd}>
          <Button variant="default" data-autofocus onClick={() => setAsking(null)}>
            {t("api.keep")}
          </Button>
          <Button color="red.9" loading={revoking.isPending} onClick={() => revoking.mutate()}>
            {t("api.revoke")}
          </Button>
        </div>
      </Modal>
    </li>
  );
}

function RotateDialog({ one, onMade, onClose }: { one: ApiKey; onMade: (key: string) => void; onClose: () => void }) {
  const { t } = useTranslation();
  const { t: words } = useTranslation("people");
  const client = useQueryClient();
  const lives = useLives();
  const [life, setLife] = useState("");
  const [overlap, setOverlap] = useState("24");
  const { name } = one;
  const rotating = useMutation({
    mutationFn: () => rotateApiKey(one.id, Number(overlap), daysOf(life)),
    onSuccess: (key) => {
      onMade(key);
      announce(words("keys.rotated", { name }));
      onClose();
    },
    onError: (error) => complain(error),
    onSettled: () => client.invalidateQueries({ queryKey: ["rest", "api_keys"] }),
  });
  return (
    <Modal
      opened
      onClose={onClose}
      title={words("keys.rotateLabel", { name })}
      closeButtonProps={{ "aria-label": t("common.close") }}
    >
      <form
        className={css.dialog}
        onSubmit={(event) => {
          event.preventDefault();
          rotating.mutate();
        }}
      >
        <p className={css.value}>{words("keys.rotateHint")}</p>
        <NativeSelect
          label={words("keys.overlap")}
          value={overlap}
          data={[
            { value: "0", label: words("keys.now") },
            { value: "1", label: words("keys.hour") },
            { value: "24", label: words("keys.day") },
            { value: "168", label: words("keys.week") },
          ]}
          onChange={(event) => setOverlap(event.currentTarget.value)}
        />
        <NativeSelect
          label={words("keys.ends")}
          value={life}
          data={lives}
          onChange={(event) => setLife(event.currentTarget.value)}
        />
        <div className={css.entryEnd}>
          <Button variant="default" onClick={onClose}>
            {t("common.cancel")}
          </Button>
          <Button type="submit" loading={rotating.isPending}>
            {words("keys.rotate")}
          </Button>
        </div>
      </form>
    </Modal>
  );
}
