import { ActionIcon, Button, Menu, Modal, Textarea, Tooltip } from "@mantine/core";
import { notifications } from "@mantine/notifications";
import { useQuery, useQueryClient } from "@tanstack/react-query";
import {
  CornerUpLeft, Info, LayoutTemplate, NotebookPen, Paperclip, Plus, SendHorizontal, TriangleAlert, X, Zap,
} from "lucide-react";
import { Suspense, lazy, useEffect, useImperativeHandle, useMemo, useRef, useState } from "react";
import { useTranslation } from "react-i18next";
import { profilesQuery, quickRepliesQuery } from "../../api/lists";
import { type ChannelAccount, type Contact, type Conversation, note } from "../../api/models";
import { insert } from "../../api/rest";
import { complain } from "../../app/deeds";
import { useMay } from "../../app/may";
import { localeOf } from "../../i18n";
import "../../i18n/inbox";
import { newId } from "../../lib/ids";
import { colleagueName } from "../../lib/people";
import { openPlaceholders } from "../../lib/placeholders";
import { duration } from "../../lib/time";
import { compose, discardUnsent, noteTyping, sendAnyway, useLive } from "../../realtime/live";
import type { Attachment, Unsent } from "../../realtime/outbox";
import { addFile, holdFile, useUploads } from "../../realtime/uploads";
import { Avatar } from "../../ui/Avatar";
import { cx } from "../../ui/cx";
import { MOST_FILES, kindOf, pieces, problemOf, typeOf } from "./attach";
import css from "./Composer.module.css";
import { clearDraft, draftOf, setDraft, useDraft } from "./drafts";
import { closePicker, openPicker, usePicker } from "./picker";
import { type QuickReply, quickReplies, slashAt, valuesFor } from "./quick";
import { replyWindow } from "./window";

/** WhatsApp's limit for a text, the smallest of the channels' that people meet. */
const MAX_LENGTH = 4096;

const Tray = lazy(() => import("./Tray"));
const TemplatePicker = lazy(() => import("./TemplatePicker"));
const preloadTray = () => void import("./Tray");

/** What the pane around it does with files that were dropped on it. */
export interface ComposerHandle {
  attach: (files: readonly File[]) => void;
}

export interface ComposerProps {
  conversation: Conversation;
  contact: Contact | undefined;
  channel: ChannelAccount | undefined;
  me: string;
  name: string;
  handle: React.Ref<ComposerHandle>;
}

export function Composer({ conversation, contact, channel, me, name, handle }: ComposerProps) {
  const { t, i18n } = useTranslation();
  const { t: more } = useTranslation("inbox");
  const client = useQueryClient();
  const chooser = useRef<HTMLInputElement>(null);
  const picking = usePicker((picker) => picker.conversationId === conversation.id);
  const crm = useMay("can_access_crm");
  const uploads = useUploads((all) => all.byKey);
  const [noting, setNoting] = useState(false);
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
  useEffect(() => closePicker, [id]);

  const agent = colleagueName(profiles?.find((one) => one.id === me), "");
  const values = useMemo(() => valuesFor(contact, agent), [contact, agent]);
  const slash = quickOff || draft.note ? null : slashAt(draft.text, Math.min(caret, draft.text.length));
  const replies = useMemo(
    () => (slash ? quickReplies(templates ?? [], slash.query, values) : []),
    [slash?.query, slash === null, templates, values],
  );
  const chosen = replies[Math.min(active, replies.length - 1)];
  // Without the right to read notes nobody writes one that they would not see again.
  const noteMode = draft.note && crm;
  const open = noteMode ? [] : openPlaceholders(draft.text);
  const tooLong = !noteMode && draft.text.length > MAX_LENGTH;
  const files = noteMode ? [] : draft.files;
  const stuck = files.filter(
    (one) => problemOf(one, channel?.type) !== null || uploads.get(one.key)?.state === "failed",
  ).length;
  const something = draft.text.trim() !== "" || files.length > 0;
  const sendable = something && open.length === 0 && !tooLong && stuck === 0 && !noting;
  const maySend = session === null || session.role === "OWNER" || session.permissions.includes("can_send_messages");

  const write = (text: string) => {
    const begun = draft.text.trim() === "" && text.trim() !== "";
    const newest = thread?.messages.at(-1)?.conv_seq ?? conversation.msg_seq;
    setDraft(id, { text, ...(begun ? { startedSeq: newest } : {}) });
    setQuickOff(false);
    setActive(0);
    if (!noteMode) noteTyping(id, text.trim() !== "");
  };

  const attach = (picked: readonly File[]) => {
    const now = draftOf(id);
    if (picked.length === 0 || (now.note && crm)) return;
    const room = MOST_FILES - now.files.length;
    if (picked.length > room) {
      notifications.show({
        message: more("tray.tooMany", { count: MOST_FILES }), color: "red", autoClose: 8_000,
        closeButtonProps: { "aria-label": t("common.dismiss") },
      });
    }
    const added = picked.slice(0, Math.max(0, room)).map((file): Attachment => {
      const mime = typeOf(file.type);
      const one = { key: newId(), kind: kindOf(mime), name: file.name || "file", mime, bytes: file.size, mediaId: null };
      // What the channel refuses anyway stays here until it fits.
      if (problemOf(one, channel?.type) === null) addFile(one.key, file);
      else holdFile(one.key, file);
      return one;
    });
    const begun = now.startedSeq ?? thread?.messages.at(-1)?.conv_seq ?? conversation.msg_seq;
    setDraft(id, { files: [...now.files, ...added], startedSeq: begun });
    field.current?.focus();
  };
  useImperativeHandle(handle, () => ({ attach }));

  const setNote = (on: boolean) => {
    if (on) noteTyping(id, false);
    setDraft(id, { note: on });
    field.current?.focus();
  };

  const insertReply = (reply: QuickReply) => {
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

  const keepNote = async (content: string) => {
    setNoting(true);
    try {
      await insert("notes", note, {
        contact_id: conversation.contact_id, conversation_id: id, content, author_id: me,
      });
      // Written on meanwhile? Then that stays, as a note.
      const now = draftOf(id);
      if (now.text.trim() === content) setDraft(id, { text: "" });
      void client.invalidateQueries({ queryKey: ["rest", "notes"] });
    } catch (error) {
      complain(error);
    } finally {
      setNoting(false);
    }
  };

  const send = () => {
    const now = draftOf(id);
    if (!sendable) return;
    if (noteMode) {
      void keepNote(now.text.trim());
      return;
    }
    if (openPlaceholders(now.text).length > 0 || now.text.length > MAX_LENGTH) return;
    // Those that are up already need not go up again.
    const ready = now.files.map((one) => {
      const upload = uploads.get(one.key);
      return upload?.state === "done" ? { ...one, mediaId: upload.mediaId } : one;
    });
    pieces(now.text, ready).forEach(({ content, attachment }, index) => {
      compose(id, content, index === 0 ? now.replyToId : null, now.startedSeq, { attachment: attachment ?? undefined });
    });
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
        insertReply(chosen);
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
  const closed = state.state === "closed" || state.state === "never";
  const original = draft.replyToId ? thread?.messages.find((one) => one.id === draft.replyToId) : undefined;

  return (
    <div className={cx(css.composer, noteMode && css.noting)}>
      <div className={css.top}>
        <PeopleLine id={id} me={me} />
        {crm && (
          <div className={css.modes} role="group" aria-label={more("note.modes")}>
            <button type="button" className={css.mode} aria-pressed={!noteMode} onClick={() => setNote(false)}>
              {more("note.reply")}
            </button>
            <button type="button" className={cx(css.mode, css.modeNote)} aria-pressed={noteMode} onClick={() => setNote(true)}>
              <NotebookPen size={13} aria-hidden />
              {more("note.note")}
            </button>
          </div>
        )}
      </div>
      {warning && !noteMode && (
        <div className={css.notice} role="note">
          <TriangleAlert size={15} aria-hidden />
          <span className={css.noticeText}>{warning}</span>
          {closed && (
            <Button size="compact-xs" variant="default" onClick={() => openPicker(id)}>
              {more("template.choose")}
            </Button>
          )}
        </div>
      )}
      {conversation.status === "CLOSED" && !noteMode && (
        <p className={css.plain}>
          <Info size={15} aria-hidden /> {t("thread.closedNote")}
        </p>
      )}
      {draft.replyToId && !noteMode && (
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
                  onClick={() => insertReply(one)}
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
      {files.length > 0 && (
        <Suspense fallback={null}>
          <Tray files={files} channelType={channel?.type} onChange={(left) => setDraft(id, { files: left })} />
        </Suspense>
      )}
      <input
        ref={chooser}
        type="file"
        multiple
        hidden
        data-testid="file-chooser"
        aria-hidden
        tabIndex={-1}
        onChange={(event) => {
          attach([...(event.currentTarget.files ?? [])]);
          // The same file again is a choice, too.
          event.currentTarget.value = "";
        }}
      />
      <div className={css.bar}>
        {!noteMode && (
          <>
            <div className={css.tools}>
              <Tooltip label={more("tray.attach")}>
                <ActionIcon
                  aria-label={more("tray.attach")}
                  size={38}
                  onPointerEnter={preloadTray}
                  onClick={() => chooser.current?.click()}
                >
                  <Paperclip size={18} />
                </ActionIcon>
              </Tooltip>
              <Tooltip label={more("template.choose")}>
                <ActionIcon aria-label={more("template.choose")} size={38} onClick={() => openPicker(id)}>
                  <LayoutTemplate size={18} />
                </ActionIcon>
              </Tooltip>
              <Tooltip label={t("composer.quickButton")}>
                <ActionIcon aria-label={t("composer.quickButton")} size={38} onClick={openQuick}>
                  <Zap size={18} />
                </ActionIcon>
              </Tooltip>
            </div>
            <Menu position="top-start" width={220}>
              <Menu.Target>
                <ActionIcon className={css.plus} aria-label={more("tray.more")} size={38}>
                  <Plus size={20} />
                </ActionIcon>
              </Menu.Target>
              <Menu.Dropdown>
                <Menu.Item leftSection={<Paperclip size={16} />} onClick={() => chooser.current?.click()}>
                  {more("tray.attach")}
                </Menu.Item>
                <Menu.Item leftSection={<LayoutTemplate size={16} />} onClick={() => openPicker(id)}>
                  {more("template.choose")}
                </Menu.Item>
                <Menu.Item leftSection={<Zap size={16} />} onClick={openQuick}>
                  {t("composer.quickButton")}
                </Menu.Item>
              </Menu.Dropdown>
            </Menu>
          </>
        )}
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
          onPaste={(event) => {
            const { clipboardData } = event;
            // Office programs put a picture beside the text they copy: then the text is meant.
            if (clipboardData.files.length === 0 || clipboardData.types.includes("text/plain")) return;
            event.preventDefault();
            attach([...clipboardData.files]);
          }}
          aria-label={noteMode ? more("note.label") : t("composer.label", { name })}
          placeholder={
            noteMode ? more("note.placeholder") : files.length > 0 ? more("tray.caption") : t("composer.placeholder")
          }
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
        <Tooltip label={noteMode ? more("note.keepHint") : t("composer.sendHint")}>
          <ActionIcon
            variant="filled"
            color="pine"
            size={38}
            aria-label={noteMode ? more("note.keep") : t("composer.send")}
            disabled={!sendable}
            loading={noting}
            onClick={() => {
              send();
              field.current?.focus();
            }}
          >
            {noteMode ? <NotebookPen size={18} /> : <SendHorizontal size={18} className="mirrored" />}
          </ActionIcon>
        </Tooltip>
      </div>
      {noteMode && <p className={css.noteHint}>{more("note.hint", { name })}</p>}
      {stuck > 0 && (
        <p className={css.hint} role="status">
          {more("tray.stuck", { count: stuck })}
        </p>
      )}
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
      {picking && (
        <Suspense fallback={null}>
          <TemplatePicker
            conversation={conversation}
            known={values}
            seenSeq={thread?.messages.at(-1)?.conv_seq ?? null}
            onClose={() => {
              closePicker();
              field.current?.focus();
            }}
          />
        </Suspense>
      )}
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
    const { text, files } = draftOf(conflict.conversationId);
    // What was sent right behind it belongs to it: a picture's text, the next picture.
    const back = useLive.getState().outbox.filter(
      (one) =>
        one === conflict ||
        (one.conversationId === conflict.conversationId && one.state === "queued" && one.template === null),
    );
    // The question last: without it the others would go out.
    for (const one of back.toReversed()) discardUnsent(one.clientRef, true);
    setDraft(conflict.conversationId, {
      text: [...back.filter((one) => one.template === null).map((one) => one.content), text].filter(Boolean).join("\n"),
      files: [...back.flatMap((one) => (one.attachment ? [one.attachment] : [])), ...files],
      note: false,
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
