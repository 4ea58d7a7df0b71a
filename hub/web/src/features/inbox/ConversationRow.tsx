import { Link } from "@tanstack/react-router";
import { Reply } from "lucide-react";
import { memo } from "react";
import { useTranslation } from "react-i18next";
import type { ChannelAccount, Contact, Conversation, ConversationRead } from "../../api/models";
import { localeOf } from "../../i18n";
import { contactName } from "../../lib/people";
import { fullTime, rowTime } from "../../lib/time";
import { unreadCount } from "../../realtime/reducer";
import { Avatar } from "../../ui/Avatar";
import { Counter } from "../../ui/Chip";
import { cx } from "../../ui/cx";
import { ChannelIcon } from "../../app/ChannelIcon";
import { Viewers } from "./ConversationList";
import { useDraft } from "./drafts";
import { channelLabel, previewOf } from "../../i18n/labels";
import css from "./ConversationRow.module.css";

export interface ConversationRowProps {
  row: Conversation;
  contact: Contact | undefined;
  read: ConversationRead | undefined;
  channel: ChannelAccount | undefined;
  assignee: string | null;
  viewers: readonly string[];
  /** A colleague is writing here. */
  typing: boolean;
  selected: boolean;
  /** Picked together with others. */
  picked: boolean;
  compact: boolean;
  now: number;
}

export const ConversationRow = memo(function ConversationRow(props: ConversationRowProps) {
  const { row, contact, read, channel, assignee, viewers, typing, selected, picked, compact, now } = props;
  const { t, i18n } = useTranslation();
  const lang = localeOf(i18n.language);
  const name = contactName(contact, t("contact.unknown"));
  const unread = unreadCount(row, read);
  const at = row.last_message_at ?? row.created_at;
  const preview = row.last_message_preview ?? "";
  const draft = useDraft(row.id).text.trim();
  return (
    <Link
      to="/inbox/$conversationId"
      from="/inbox"
      params={{ conversationId: row.id }}
      search={(old) => old}
      className={cx(css.row, selected && css.selected, picked && css.picked, unread > 0 && css.unread, compact && css.compact)}
      aria-current={selected ? "true" : undefined}
      data-testid="conversation-row"
      data-conversation={row.id}
    >
      <span className={css.face}>
        <Avatar name={name} size={compact ? "sm" : "md"} />
        <span className={css.channel}>
          <ChannelIcon type={channel?.type} size={11} />
        </span>
      </span>
      <span className={css.body}>
        <span className={css.line}>
          <span className={css.name} dir="auto">
            {name}
          </span>
          <Viewers names={viewers} label={t("list.viewing", { names: viewers.join(", ") })} />
          <time className={css.time} dateTime={at} title={fullTime(at, lang)}>
            {rowTime(at, now, lang)}
          </time>
        </span>
        <span className={css.line}>
          <span className={css.preview}>
            {typing ? (
              <em className={css.typing}>{t("list.typing")}</em>
            ) : draft !== "" && !selected ? (
              <>
                <em className={css.draft}>{t("list.draft")}</em>
                <span className={css.previewText} dir="auto">
                  {draft}
                </span>
              </>
            ) : preview === "" ? (
              t("list.noText")
            ) : (
              <>
                {row.last_message_direction === "OUTBOUND" && <Reply size={13} className="mirrored" aria-hidden />}
                <span className={css.previewText} dir="auto">
                  {previewOf(t, preview)}
                </span>
              </>
            )}
          </span>
          {assignee && (
            <span title={t("list.assignedTo", { name: assignee })} className={css.assignee}>
              <Avatar name={assignee} size="xs" />
            </span>
          )}
          {unread > 0 && <Counter value={unread} label={t("list.unread", { count: unread })} />}
        </span>
        <span className="sr-only">{t("list.channel", { name: channel?.name ?? channelLabel(t, channel?.type) })}</span>
      </span>
    </Link>
  );
});
