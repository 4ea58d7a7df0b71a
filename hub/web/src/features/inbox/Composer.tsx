import { ActionIcon, Button, Modal, Textarea, Tooltip } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { CornerUpLeft, Info, SendHorizontal, TriangleAlert, X, Zap } from "lucide-react";
import { useEffect, useMemo, useRef, useState } from "react";
import { useTranslation } from "react-i18next";
import { profilesQuery, quickRepliesQuery } from "../../api/lists";
import type { ChannelAccount, Contact, Conversation } from "../../api/models";
import { localeOf } from "../../i18n";
import { colleagueName } from "../../lib/people";
import { openPlaceholders } from "../../lib/placeholders";
import { duration } from "../../lib/time";
import { compose, discardUnsent, noteTyping, sendAnyway, useLive } from "../../realtime/live";
import type { Unsent } from "../../realtime/outbox";
import { Avatar } from "../../ui/Avatar";
import css from "./Composer.module.css";
import { clearDraft, draftOf, setDraft, useDraft } from "./drafts";
import { type QuickReply, quickReplies, slashAt, valuesFor } from "./quick";
import { replyWindow } from "./window";

/** WhatsApp's limit for a text, the smallest of the channels' that people meet. */
const MAX_LENGTH = 4096;

export interface ComposerProps {
  conversation: Conversation;
  contact: Contact | undefined;
  channel: ChannelAccount | undefined;
  me: string;
  name: string;
}

export function Composer({ conversation, contact, channel, me, name }: ComposerProps) {
  const { t, i18n } = useTranslation();
  const id = conversation.id;
  const draft = useDraft(id);
  const field = useRef<HTMLTextAreaElement>(null);
  const [caret, setCaret] = useState(0);
  const [quickOff, setQuickOff] = useState(false);
  const [active, setActive] = useState(0);
  const { data: templates } = useQuery(quickRepliesQuery);
  const { data: profiles } = useQuery(profilesQuery);
  const session = useLive((live) => live.session);
  const outbox = useLive((live) => live.outbox);
  const thread = useLive((live) => live.inbox.threads.get(id));
  const conflict = outbox.find((one) => one.conversationId === id && one.state === "conflict");
  const [minute, setMinute] = useState(() => Date.now());
  useEffect(() => {
    const timer = setInterval(() => setMinute(Date.now()), 60_000);
    return () => clearInterval(timer);
  }, []);
  useEffect(() => () => noteTyping(id, false), [id]);

  const agent = colleagueName(profiles?.find((one) => one.id === me), "");
  const values = useMemo(() => valuesFor(contact, agent), [contact, agent]);
  const slash = quickOff ? null : slashAt(draft.text, Math.min(caret, draft.text.length));
  const replies = useMemo(
    () => (slash ? quickReplies(templates ?? [], slash.query, values) : []),
    [slash?.query, slash === null, templates, values],
  );
  const chosen = replies[Math.min(active, replies.length - 1)];
  const open = openPlaceholders(draft.text);
  const tooLong = draft.text.length > MAX_LENGTH;
  const sendable = draft.text.trim() !== "" && open.length === 0 && !tooLong;
  const maySend = session === null || session.role === "OWNER" || session.permissions.includes("can_send_messages");

  const write = (text: string) => {
    const begun = draft.text.trim() === "" && text.trim() !== "";
    const newest = thread?.messages.at(-1)?.conv_seq ?? conversation.msg_seq;
    setDraft(id, { text, ...(begun ? { startedSeq: newest } : {}) });
    setQuickOff(false);
    setActive(0);
    noteTyping(id, text.trim() !== "");
  };

  const insert = (reply: QuickReply) => {
    const start = slash?.start ?? draft.text.length;
    const end = slash ? start + 1 + slash.query.length : start;
    const text = draft.text.slice(0, start) + reply.text + draft.text.slice(end);
    write(text);
    setQuickOff(true);
    // After React has put the text in: the first blank to fill is selected, else the caret stands behind the reply.
    requestAnimationFrame(() => {
      const blank = /\{\{[^}]*\}\}/u.exec(text);
      const [from, to] = blank
        ? [blank.index, blank.index + blank[0].length]
        : [start + reply.text.length, start + reply.text.length];
      field.current?.focus();
      field.current?.setSelectionRange(from, to);
      setCaret(to);
    });
  };

  const openQuick = () => {
    const text = /(^|\s)$/u.test(draft.text) ? `${draft.text}/` : `${draft.text} /`;
    write(text);
    setCaret(text.length);
    field.current?.focus();
  };

  const send = () => {
    const now = draftOf(id);
    if (now.text.trim() === "" || openPlaceholders(now.text).length > 0 || now.text.length > MAX_LENGTH) return;
    compose(id, now.text.trim(), now.replyToId, now.startedSeq);
    clearDraft(id);
  };

  const onKeyDown = (event: React.KeyboardEvent<HTMLTextAreaElement>) => {
    // Enter that ends a word of an input method is not a send.
    if (event.nativeEvent.isComposing) return;
    // On an Arabic layout the key of `/` writes "ظ", which begins words: the key's place needs Alt to mean replies.
    if (event.code === "Slash" && event.altKey) {
      event.preventDefault();
      openQuick();
      return;
    }
    if (slash && replies.length > 0) {
      if (event.key === "ArrowDown" || event.key === "ArrowUp") {
        event.preventDefault();
        const by = event.key === "ArrowDown" ? 1 : -1;
        setActive((Math.min(active, replies.length - 1) + by + replies.length) % replies.length);
        return;
      }
      if ((event.key === "Enter" || event.key === "Tab") && !event.shiftKey && chosen) {
        event.preventDefault();
        insert(chosen);
        return;
      }
    }
    if (event.key === "Escape") {
      event.preventDefault();
      if (slash) setQuickOff(true);
      else event.currentTarget.blur();
      return;
    }
    if (event.key === "Enter" && !event.shiftKey && !event.ctrlKey && !event.altKey && !event.metaKey) {
      event.preventDefault();
      send();
    }
  };

  if (!maySend) {
    return (
      <p className={css.notice}>
        <Info size={15} aria-hidden /> {t("composer.readOnly")}
      </p>
    );
  }

  const state = replyWindow(channel?.type, conversation.last_inbound_at, minute);
  const warning =
    state.state === "closed"
      ? t("composer.windowClosed")
      : state.state === "never"
        ? t("composer.windowNever")
        : state.state === "soon"
          ? t("composer.windowSoon", { time: duration(state.leftMs, localeOf(i18n.language)) })
          : null;
  const original = draft.replyToId ? thread?.messages.find((one) => one.id === draft.replyToId) : undefined;

  return (
    <div className={css.composer}>
      <PeopleLine id={id} me={me} />
      {warning && (
        <p className={css.notice} role="note">
          <TriangleAlert size={15} aria-hidden /> {warning}
        </p>
      )}
      {conversation.status === "CLOSED" && (
        <p className={css.plain}>
          <Info size={15} aria-hidden /> {t("thread.closedNote")}
        </p>
      )}
      {draft.replyToId && (
        <div className={css.reply}>
          <CornerUpLeft size={15} className="mirrored" aria-hidden />
          <span className={css.replyText}>
            <b>{t("composer.replying", { name: original?.direction === "OUTBOUND" ? t("bubble.you") : name })}</b>{" "}
            <bdi>{original?.deleted_at ? t("bubble.deleted") : (original?.content ?? "")}</bdi>
          </span>
          <ActionIcon
            size={26}
            aria-label={t("composer.cancelReply")}
            onClick={() => setDraft(id, { replyToId: null })}
          >
            <X size={14} />
          </ActionIcon>
        </div>
      )}
      {slash && (
        <div className={css.quick}>
          <p className={css.quickTitle} id={`quick-title-${id}`}>
            {t("composer.quick")}
          </p>
          {replies.length === 0 ? (
            <p className={css.quickNone}>{t("composer.noQuick")}</p>
          ) : (
            <ul role="listbox" id={`quick-${id}`} aria-labelledby={`quick-title-${id}`} className={css.quickList}>
              {replies.slice(0, 30).map((one) => (
                <li
                  key={one.id}
                  id={`quick-${one.id}`}
                  role="option"
                  aria-selected={one === chosen}
                  className={css.quickItem}
                  // The field keeps the focus.
                  onMouseDown={(event) => event.preventDefault()}
                  onClick={() => insert(one)}
                >
                  <span className={css.quickName}>
                    /<bdi>{one.name}</bdi>
                  </span>
                  <span className={css.quickText} dir="auto">
                    {one.text}
                  </span>
                </li>
              ))}
            </ul>
          )}
        </div>
      )}
      <div className={css.bar}>
        <Tooltip label={t("composer.quickButton")}>
          <ActionIcon
            aria-label={t("composer.quickButton")}
            size={38}
            onClick={openQuick}
          >
            <Zap size={18} />
          </ActionIcon>
        </Tooltip>
        <Textarea
          ref={field}
          data-composer
          value={draft.text}
          onChange={(event) => {
            write(event.currentTarget.value);
            setCaret(event.currentTarget.selectionStart);
          }}
          onSelect={(event) => setCaret(event.currentTarget.selectionStart)}
          onKeyDown={onKeyDown}
          aria-label={t("composer.label", { name })}
          placeholder={t("composer.placeholder")}
          aria-autocomplete="list"
          aria-controls={slash && replies.length > 0 ? `quick-${id}` : undefined}
          aria-activedescendant={slash && chosen ? `quick-${chosen.id}` : undefined}
          autosize
          minRows={1}
          maxRows={8}
          dir="auto"
          variant="unstyled"
          className={css.field}
          classNames={{ input: css.input }}
        />
        <Tooltip label={t("composer.sendHint")}>
          <ActionIcon
            variant="filled"
            color="pine"
            size={38}
            aria-label={t("composer.send")}
            disabled={!sendable}
            onClick={() => {
              send();
              field.current?.focus();
            }}
          >
            <SendHorizontal size={18} className="mirrored" />
          </ActionIcon>
        </Tooltip>
      </div>
      {open.length > 0 && (
        <p className={css.hint} role="status">
          {t("composer.open", { names: open.map((one) => `{{${one}}}`).join(", ") })}
        </p>
      )}
      {tooLong && (
        <p className={css.hint} role="status">
          {t("composer.tooLong", { count: draft.text.length, max: MAX_LENGTH })}
        </p>
      )}
      <ConflictDialog conflict={conflict} me={me} />
    </div>
  );
}

/** Who else is here, who is writing. Its height is always there, so that nothing jumps. */
function PeopleLine({ id, me }: { id: string; me: string }) {
  const { t } = useTranslation();
  const presence = useLive((live) => live.presence);
  const typing = useLive((live) => live.typing.get(id));
  const { data: profiles } = useQuery(profilesQuery);
  const nameOf = (user: string) => colleagueName(profiles?.find((one) => one.id === user), "…");
  const writing = [...(typing?.keys() ?? [])].filter((user) => user !== me).map(nameOf);
  const here = [...presence].filter(([user, viewing]) => user !== me && viewing === id).map(([user]) => nameOf(user));
  const faces = [...new Set([...writing, ...here])].slice(0, 5);
  const words =
    writing.length > 0
      ? t("composer.typing", { count: writing.length, names: writing.join(", ") })
      : here.length > 0
        ? t("composer.viewing", { count: here.length, names: here.join(", ") })
        : "";
  return (
    <p className={css.people} data-writing={writing.length > 0} aria-live="polite">
      {faces.map((name) => (
        <Avatar key={name} name={name} size="xs" />
      ))}
      <span className={css.peopleText}>{words}</span>
    </p>
  );
}

/** A colleague answered while this message was being written: asked once, with the new messages to read. */
function ConflictDialog({ conflict, me }: { conflict: Unsent | undefined; me: string }) {
  const { t } = useTranslation();
  const thread = useLive((live) => (conflict ? live.inbox.threads.get(conflict.conversationId) : undefined));
  const { data: profiles } = useQuery(profilesQuery);
  const ids = new Set(conflict?.conflictIds ?? []);
  const news = (thread?.messages ?? []).filter((one) => ids.has(one.id));
  const edit = () => {
    if (!conflict) return;
    const { text } = draftOf(conflict.conversationId);
    discardUnsent(conflict.clientRef);
    setDraft(conflict.conversationId, {
      text: [conflict.content, text].filter(Boolean).join("\n"),
      replyToId: conflict.replyToId,
      // What the dialog showed has been seen.
      startedSeq: thread?.messages.at(-1)?.conv_seq ?? conflict.seenSeq,
    });
  };
  return (
    <Modal
      opened={conflict !== undefined}
      onClose={edit}
      title={t("composer.conflict")}
      closeButtonProps={{ "aria-label": t("common.close") }}
    >
      <p className={css.conflictHint}>{t("composer.conflictHint")}</p>
      <ul className={css.conflictList}>
        {news.map((one) => (
          <li key={one.id}>
            <bdi className={css.conflictName}>
              {one.sender_id === me
                ? t("bubble.you")
                : colleagueName(profiles?.find((who) => who.id === one.sender_id), "…")}
            </bdi>
            <span dir="auto">{one.content}</span>
          </li>
        ))}
      </ul>
      <div className={css.conflictButtons}>
        <Button variant="default" onClick={edit} data-autofocus>
          {t("composer.edit")}
        </Button>
        <Button onClick={() => conflict && sendAnyway(conflict.clientRef)}>{t("composer.sendAnyway")}</Button>
      </div>
    </Modal>
  );
}
