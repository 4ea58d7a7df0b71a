import { Button, Checkbox, Modal, TextInput } from "@mantine/core";
import { useForm } from "@mantine/form";
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { KeyRound } from "lucide-react";
import { useState } from "react";
import { useTranslation } from "react-i18next";
import { complain } from "../../app/deeds";
import { generateApiKey } from "../../api/functions";
import { ApiError } from "../../api/http";
import { apiKeysQuery } from "../../api/lists";
import type { ApiKey } from "../../api/models";
import { patch } from "../../api/rest";
import { localeOf } from "../../i18n";
import { permissionLabel } from "../../i18n/labels";
import { shortDate } from "../../lib/time";
import { Chip } from "../../ui/Chip";
import { CopyField } from "../../ui/CopyField";
import css from "./Settings.module.css";

interface KeysProps {
  /** A key that was just made: the only time that it can be seen. */
  made: string | null;
  onMade: (key: string) => void;
}

export function Keys({ made, onMade }: KeysProps) {
  const { t } = useTranslation();
  const client = useQueryClient();
  const keys = useQuery(apiKeysQuery);
  const form = useForm({
    initialValues: { name: "", can_send_messages: true, can_read_messages: false },
    validate: { name: (value) => (value.trim() ? null : t("api.keyNameNeeded")) },
  });
  const making = useMutation({
    mutationFn: ({ name, ...permissions }: { name: string } & Record<string, string | boolean>) =>
      generateApiKey(name.trim(), {
        can_send_messages: permissions["can_send_messages"] === true,
        can_read_messages: permissions["can_read_messages"] === true,
      }),
    onSuccess: (answer) => {
      onMade(answer.api_key);
      form.reset();
      void client.invalidateQueries({ queryKey: apiKeysQuery.queryKey });
    },
    onError: (error) => complain(error),
  });
  // Who may not see the keys may not make any either.
  if (keys.error instanceof ApiError && keys.error.status === 403) return null;
  return (
    <section className={css.card}>
      <div>
        <h3 className={css.curlTitle}>{t("api.keys")}</h3>
        <p className={css.hint}>{t("api.keysHint")}</p>
      </div>
      {made !== null && (
        <div role="status">
          <CopyField value={made} copy={t("common.copy")} copied={t("common.copied")} />
          <p className={css.warning}>{t("api.made")}</p>
        </div>
      )}
      {keys.data?.length === 0 && <p className={css.hint}>{t("api.noKeys")}</p>}
      {keys.data && keys.data.length > 0 && (
        <ul className={css.plainList}>
          {keys.data.map((one) => (
            <KeyLine key={one.id} one={one} />
          ))}
        </ul>
      )}
      <form className={css.keyForm} onSubmit={form.onSubmit((values) => making.mutate(values))}>
        <TextInput label={t("api.newKey")} placeholder={t("api.keyName")} dir="auto" maxLength={200} {...form.getInputProps("name")} />
        <Checkbox
          label={permissionLabel(t, "can_send_messages")}
          {...form.getInputProps("can_send_messages", { type: "checkbox" })}
        />
        <Checkbox
          label={permissionLabel(t, "can_read_messages")}
          {...form.getInputProps("can_read_messages", { type: "checkbox" })}
        />
        <Button type="submit" variant="default" loading={making.isPending}>
          {t("api.make")}
        </Button>
      </form>
    </section>
  );
}

function KeyLine({ one }: { one: ApiKey }) {
  const { t, i18n } = useTranslation();
  const lang = localeOf(i18n.language);
  const client = useQueryClient();
  const [asking, setAsking] = useState(false);
  const revoking = useMutation({
    mutationFn: () => patch("api_keys", { id: `eq.${one.id}` }, { revoked_at: new Date().toISOString() }),
    onSuccess: () => {
      setAsking(false);
      void client.invalidateQueries({ queryKey: apiKeysQuery.queryKey });
    },
    onError: (error) => complain(error),
  });
  const granted = Object.entries(one.permissions).filter(([, value]) => value === true);
  return (
    <li className={css.keyLine}>
      <KeyRound size={16} aria-hidden />
      <div>
        <p className={css.entryName}>
          <bdi>{one.name}</bdi>
        </p>
        <p className={css.entrySub}>
          <code dir="ltr">{one.key_prefix}…</code>{" "}
          {one.last_used_at ? t("api.lastUsed", { date: shortDate(one.last_used_at, lang) }) : t("api.neverUsed")}
          {one.expires_at && ` · ${t("api.expires", { date: shortDate(one.expires_at, lang) })}`}
        </p>
        <div className={css.chips}>
          {granted.map(([name]) => (
            <Chip key={name}>{permissionLabel(t, name)}</Chip>
          ))}
        </div>
      </div>
      <Button
        size="compact-sm"
        variant="default"
        aria-label={t("api.revokeLabel", { name: one.name })}
        onClick={() => setAsking(true)}
      >
        {t("api.revoke")}
      </Button>
      <Modal
        opened={asking}
        onClose={() => setAsking(false)}
        title={t("api.revokeLabel", { name: one.name })}
        closeButtonProps={{ "aria-label": t("common.close") }}
      >
        <p className={css.value}>{t("api.revokeSure", { name: one.name })}</p>
        <div className={css.entryEnd}>
          <Button variant="default" data-autofocus onClick={() => setAsking(false)}>
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
