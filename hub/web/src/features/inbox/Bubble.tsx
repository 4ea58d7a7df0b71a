import { ActionIcon, Button, Menu, Tooltip } from "@mantine/core";
import { Ellipsis, FileText, Image as ImageIcon, LayoutTemplate, MapPin, Mic, NotebookPen, Reply, Trash2, Video } from "lucide-react";
import { memo, useState } from "react";
import type { TFunction } from "i18next";
import { useTranslation } from "react-i18next";
import { mediaOf } from "../../api/media";
import type { Message, Note } from "../../api/models";
import { localeOf } from "../../i18n";
import { clockTime, fullTime } from "../../lib/time";
import { discardUnsent, retryUnsent, useLive } from "../../realtime/live";
import type { Unsent } from "../../realtime/outbox";
import { FILE_LOST } from "../../realtime/uploads";
import { RichText } from "../../ui/RichText";
import { type TickState, Ticks } from "../../ui/Ticks";
import { cx } from "../../ui/cx";
import css from "./Bubble.module.css";
import { perform } from "../../app/deeds";
import { kindLabel } from "../../i18n/labels";
import { timeOf } from "./items";
import { BubbleMedia, UnsentMedia } from "./Media";
import { openPicker } from "./picker";

function tick(status: Message["status"]): TickState | null {
  switch (status) {
    case "PENDING":
      return "waiting";
    case "SENT":
      return "sent";
    case "DELIVERED":
      return "delivered";
    case "READ":
      return "read";
    case "FAILED":
      return "failed";
    case "RECEIVED":
      return null;
    default:
      return status satisfies never;
  }
}

function tickLabel(t: TFunction, state: TickState): string {
  const labels: Record<TickState, string> = {
    waiting: t("bubble.pending"),
    sent: t("bubble.sent"),
    delivered: t("bubble.delivered"),
    read: t("bubble.read"),
    failed: t("bubble.failed"),
  };
  return labels[state];
}

function origin(t: TFunction, message: Message): string | null {
  switch (message.source) {
    case "rule":
      return t("bubble.byRule");
    case "flow":
      return t("bubble.byFlow");
    case "campaign":
      return t("bubble.byCampaign");
    case "api":
      return t("bubble.byApi");
    case "external":
      return t("bubble.external");
    case "agent":
    case "customer":
      return null;
    default:
      return message.source satisfies never;
  }
}

/** A note among the messages: for the team alone, and nothing like a bubble. */
export function NoteCard({ note, author, mine }: { note: Note; author: string; mine: boolean }) {
  const { t, i18n } = useTranslation();
  const { t: more } = useTranslation("inbox");
  const lang = localeOf(i18n.language);
  return (
    <article className={css.note} data-testid="thread-note">
      <p className={css.noteHead}>
        <NotebookPen size={13} aria-hidden />
        <span>{more("note.one")}</span>
        <bdi>{mine ? t("bubble.you") : author}</bdi>
        <time dateTime={note.created_at} title={fullTime(note.created_at, lang)}>
          {clockTime(note.created_at, lang)}
        </time>
      </p>
      <p className={css.noteText} dir="auto">
        <RichText text={note.content} />
      </p>
    </article>
  );
}

const kinds: Record<string, typeof FileText> = { image: ImageIcon, sticker: ImageIcon, video: Video, audio: Mic, voice: Mic };
const PLAIN: ReadonlySet<string> = new Set(["text", "button", "interactive", "reaction", "template", "system"]);

function Attachment({ message }: { message: Message }) {
  const { t } = useTranslation();
  if (PLAIN.has(message.message_type) || mediaOf(message).length > 0) return null;
  const Icon = message.message_type === "location" ? MapPin : (kinds[message.message_type] ?? FileText);
  return (
    <p className={css.attachment}>
      <Icon size={16} aria-hidden />
      <bdi>{kindLabel(t, message.message_type)}</bdi>
    </p>
  );
}

interface QuoteProps {
  original: Message | undefined;
  nameOf: (message: Message) => string;
  onOriginal?: (id: string) => void;
}

function Quote({ original, nameOf, onOriginal }: QuoteProps) {
  const { t } = useTranslation();
  if (!original) return <p className={css.quote}>{t("bubble.gone")}</p>;
  return (
    <button type="button" className={css.quote} onClick={() => onOriginal?.(original.id)}>
      <bdi className={css.quoteName}>{nameOf(original)}</bdi>
      <span className={css.quoteText} dir="auto">
        {original.deleted_at ? t("bubble.deleted") : original.content || kindLabel(t, original.message_type)}
      </span>
    </button>
  );
}

export interface MessageBubbleProps {
  message: Message;
  /** Follows another one of the same sender. */
  joined: boolean;
  sender: string;
  mine: boolean;
  original: Message | undefined;
  nameOf: (message: Message) => string;
  onReply: (message: Message) => void;
  onOriginal: (id: string) => void;
  /** Opens the lightbox at a file of the thread. */
  onShow: (fileId: string) => void;
  /** Absent where the person may not. */
  onDelete: ((message: Message) => void) | undefined;
}

export const MessageBubble = memo(function MessageBubble(props: MessageBubbleProps) {
  const { message, joined, sender, mine, original, nameOf, onReply, onOriginal, onShow, onDelete } = props;
  const { t, i18n } = useTranslation();
  const { t: more } = useTranslation("inbox");
  const lang = localeOf(i18n.language);
  const out = message.direction === "OUTBOUND";
  const gone = message.deleted_at !== null;
  // Deleted before it was sent: nothing is on its way, and nothing failed.
  const cancelled = gone && message.failure_code === "cancelled";
  const state = out && !cancelled ? tick(message.status) : null;
  const at = timeOf(message);
  const byline = out && !mine ? [sender, origin(t, message)].filter(Boolean).join(" · ") : "";
  const [busy, setBusy] = useState(false);
  const retry = () => {
    setBusy(true);
    void perform("retry", { message_id: message.id }).finally(() => setBusy(false));
  };
  return (
    <article
      className={cx(css.row, out ? css.out : css.in, joined && css.joined)}
      data-testid="message"
      data-direction={message.direction}
      data-status={message.status}
      data-deleted={gone || undefined}
    >
      <div className={css.bubble}>
        {byline && !joined && (
          <p className={css.byline}>
            <bdi>{byline}</bdi>
          </p>
        )}
        {message.reply_to_id && <Quote original={original} nameOf={nameOf} onOriginal={onOriginal} />}
        {gone ? (
          <p className={css.deleted}>{cancelled ? t("bubble.cancelled") : t("bubble.deleted")}</p>
        ) : (
          <>
            <Attachment message={message} />
            <BubbleMedia message={message} onOpen={onShow} />
            {message.message_type === "template" && (
              <p className={css.template}>
                <LayoutTemplate size={13} aria-hidden /> {more("template.one")}
              </p>
            )}
            {message.content !== "" && (
              <p className={css.text} dir="auto">
                <RichText text={message.content} />
              </p>
            )}
          </>
        )}
        <p className={css.foot}>
          <time dateTime={at} title={fullTime(at, lang)}>
            {clockTime(at, lang)}
          </time>
          {state && <Ticks state={state} label={tickLabel(t, state)} />}
        </p>
      </div>
      {!gone && (
        <Tooltip label={t("bubble.reply")}>
          <ActionIcon
            className={cx(css.action, onDelete && css.direct)}
            size={28}
            aria-label={t("bubble.reply")}
            onClick={() => onReply(message)}
          >
            <Reply size={15} className="mirrored" />
          </ActionIcon>
        </Tooltip>
      )}
      {!gone && onDelete && (
        <Menu position={out ? "bottom-end" : "bottom-start"} width={190}>
          <Menu.Target>
            <ActionIcon className={css.action} size={28} aria-label={t("bubble.more")}>
              <Ellipsis size={15} />
            </ActionIcon>
          </Menu.Target>
          <Menu.Dropdown>
            <Menu.Item leftSection={<Reply size={15} className="mirrored" />} onClick={() => onReply(message)}>
              {t("bubble.replyShort")}
            </Menu.Item>
            <Menu.Item className={css.delete} leftSection={<Trash2 size={15} />} onClick={() => onDelete(message)}>
              {t("bubble.delete")}
            </Menu.Item>
          </Menu.Dropdown>
        </Menu>
      )}
      {message.status === "FAILED" && out && !gone && (
        <div className={css.trouble}>
          <span>
            {message.failure_code === "ambiguous"
              ? t("bubble.ambiguous")
              : t("bubble.failedBecause", {
                  reason: message.failure_reason ?? message.failure_code ?? t("bubble.failed"),
                })}
          </span>
          <span className={css.choices}>
            {message.failure_code === "window_closed" && (
              <Button size="compact-xs" variant="default" onClick={() => openPicker(message.conversation_id)}>
                {more("template.choose")}
              </Button>
            )}
            <Button size="compact-xs" variant="default" loading={busy} onClick={retry}>
              {t("bubble.retry")}
            </Button>
          </span>
        </div>
      )}
    </article>
  );
});

export interface UnsentBubbleProps {
  unsent: Unsent;
  joined: boolean;
  original: Message | undefined;
  nameOf: (message: Message) => string;
}

export function UnsentBubble({ unsent, joined, original, nameOf }: UnsentBubbleProps) {
  const { t, i18n } = useTranslation();
  const { t: more } = useTranslation("inbox");
  const live = useLive((state) => state.phase.name === "live");
  const at = unsent.createdAt;
  const refused = unsent.state === "refused";
  const waits = unsent.state === "queued" && (!live || unsent.attempts > 0);
  return (
    <article className={cx(css.row, css.out, joined && css.joined)} data-testid="unsent" data-state={unsent.state}>
      <div className={cx(css.bubble, css.pending)}>
        {unsent.replyToId && <Quote original={original} nameOf={nameOf} />}
        {unsent.attachment && (
          <UnsentMedia unsent={unsent} file={unsent.attachment} onCancel={() => discardUnsent(unsent.clientRef)} />
        )}
        {unsent.template && (
          <p className={css.template}>
            <LayoutTemplate size={13} aria-hidden /> {more("template.one")}
          </p>
        )}
        {unsent.content !== "" && (
          <p className={css.text} dir="auto">
            <RichText text={unsent.content} />
          </p>
        )}
        <p className={css.foot}>
          <time dateTime={new Date(at).toISOString()}>{clockTime(at, localeOf(i18n.language))}</time>
          <Ticks state={refused ? "failed" : "waiting"} label={refused ? t("bubble.failed") : t("bubble.unsent")} />
        </p>
      </div>
      {(refused || waits) && (
        <div className={cx(css.trouble, !refused && css.waiting)}>
          <span>
            {refused
              ? unsent.errorCode === FILE_LOST
                ? more("upload.lost")
                : t("bubble.refusedBecause", { reason: unsent.errorText || (unsent.errorCode ?? "") })
              : t("bubble.queuedOffline")}
          </span>
          <span className={css.choices}>
            {refused && unsent.errorCode !== FILE_LOST && (
              <Button size="compact-xs" variant="default" onClick={() => retryUnsent(unsent.clientRef)}>
                {t("bubble.retry")}
              </Button>
            )}
            <Button size="compact-xs" variant="subtle" color="gray" onClick={() => discardUnsent(unsent.clientRef)}>
              {t("bubble.discard")}
            </Button>
          </span>
        </div>
      )}
    </article>
  );
}
