import { ActionIcon, Button, Menu, Popover, TextInput, Tooltip } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { Archive, ArchiveRestore, CheckCheck, Tag, UserCheck, UserPlus, UserX, X } from "lucide-react";
import { useState } from "react";
import { useTranslation } from "react-i18next";
import { assignAll, closeOrReopenAll, tagAll } from "../../app/deeds";
import { profilesQuery } from "../../api/lists";
import type { Conversation } from "../../api/models";
import { colleagueName } from "../../lib/people";
import { Avatar } from "../../ui/Avatar";
import css from "./SelectionBar.module.css";
import { pickAll, unpickAll } from "./selection";

export interface SelectionBarProps {
  picked: readonly Conversation[];
  /** Ids of all rows that are shown. */
  shown: readonly string[];
  me: string;
  /** The bar goes; whoever came to it by key goes on in the list. */
  onLeave: () => void;
}

/** How many are picked and what can be done with all of them. */
export function SelectionBar({ picked, shown, me, onLeave }: SelectionBarProps) {
  const { t } = useTranslation();
  const { data: profiles } = useQuery(profilesQuery);
  const [busy, setBusy] = useState(false);
  const [tagging, setTagging] = useState(false);
  const [tag, setTag] = useState("");
  const none = picked.length === 0;
  const closed = !none && picked.every((row) => row.status === "CLOSED");
  const others = (profiles ?? []).filter((one) => one.is_active && one.id !== me);

  const leave = () => {
    onLeave();
    unpickAll();
  };
  const run = (deed: Promise<void>) => {
    setBusy(true);
    void deed.finally(() => setBusy(false));
    leave();
  };
  const addTag = () => {
    const word = tag.trim();
    if (!word) return;
    setTagging(false);
    setTag("");
    run(tagAll(picked, word));
  };

  return (
    <div className={css.bar} role="toolbar" aria-label={t("bulk.label")} data-testid="selection-bar">
      <Tooltip label={t("bulk.clear")}>
        <ActionIcon size={30} aria-label={t("bulk.clear")} onClick={leave}>
          <X size={16} />
        </ActionIcon>
      </Tooltip>
      <span className={css.count} role="status">
        {t("bulk.count", { count: picked.length })}
      </span>
      <Tooltip label={t("bulk.all")}>
        <ActionIcon
          size={30}
          aria-label={t("bulk.all")}
          disabled={picked.length === shown.length}
          onClick={() => pickAll(shown)}
        >
          <CheckCheck size={16} />
        </ActionIcon>
      </Tooltip>
      <Menu position="bottom-end" width={230}>
        <Menu.Target>
          <ActionIcon size={30} aria-label={t("bulk.assign")} title={t("bulk.assign")} disabled={busy || none}>
            <UserPlus size={16} />
          </ActionIcon>
        </Menu.Target>
        <Menu.Dropdown>
          <Menu.Item
            leftSection={<UserCheck size={16} />}
            onClick={() => run(assignAll(picked, me, t("team.you")))}
          >
            {t("thread.assignMe")}
          </Menu.Item>
          {others.map((one) => {
            const name = colleagueName(one, one.id);
            return (
              <Menu.Item
                key={one.id}
                leftSection={<Avatar name={name} size="xs" />}
                onClick={() => run(assignAll(picked, one.id, name))}
              >
                <bdi>{name}</bdi>
              </Menu.Item>
            );
          })}
          <Menu.Divider />
          <Menu.Item leftSection={<UserX size={16} />} onClick={() => run(assignAll(picked, null, null))}>
            {t("thread.unassign")}
          </Menu.Item>
        </Menu.Dropdown>
      </Menu>
      <Popover opened={tagging} onChange={setTagging} position="bottom-end" width={240} trapFocus returnFocus>
        <Popover.Target>
          <ActionIcon
            size={30}
            aria-label={t("bulk.tag")}
            title={t("bulk.tag")}
            disabled={busy || none}
            onClick={() => setTagging(!tagging)}
          >
            <Tag size={16} />
          </ActionIcon>
        </Popover.Target>
        <Popover.Dropdown>
          <form
            className={css.tagForm}
            onSubmit={(event) => {
              event.preventDefault();
              addTag();
            }}
          >
            <TextInput
              size="xs"
              dir="auto"
              data-autofocus
              maxLength={60}
              value={tag}
              aria-label={t("bulk.tag")}
              placeholder={t("contact.addTag")}
              onChange={(event) => setTag(event.currentTarget.value)}
            />
            <Button type="submit" size="xs" disabled={tag.trim() === ""}>
              {t("bulk.add")}
            </Button>
          </form>
        </Popover.Dropdown>
      </Popover>
      <Tooltip label={closed ? t("bulk.reopen") : t("bulk.close")}>
        <ActionIcon
          size={30}
          aria-label={closed ? t("bulk.reopen") : t("bulk.close")}
          disabled={busy || none}
          onClick={() => run(closeOrReopenAll(picked, closed))}
        >
          {closed ? <ArchiveRestore size={16} /> : <Archive size={16} />}
        </ActionIcon>
      </Tooltip>
    </div>
  );
}
