import { Button, Loader, Modal, Skeleton } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { useVirtualizer } from "@tanstack/react-virtual";
import { ArrowDown, MessageSquareDashed } from "lucide-react";
import { Suspense, lazy, useCallback, useEffect, useLayoutEffect, useMemo, useRef, useState } from "react";
import { useTranslation } from "react-i18next";
import { notesIn, profilesQuery } from "../../api/lists";
import { mediaOf } from "../../api/media";
import type { Message } from "../../api/models";
import { localeOf } from "../../i18n";
import { colleagueName } from "../../lib/people";
import { dayLabel } from "../../lib/time";
import { loadOlder, readUpTo, useLive } from "../../realtime/live";
import { unreadCount } from "../../realtime/reducer";
import { EmptyState } from "../../ui/EmptyState";
import { MessageBubble, NoteCard, UnsentBubble } from "./Bubble";
import { deleteMessage } from "../../app/deeds";
import { useMay } from "../../app/may";
import { setDraft } from "./drafts";
import { kindLabel } from "../../i18n/labels";
import { type Item, threadItems, timeOf } from "./items";
import { lookOf, shotsOf } from "./shots";
import css from "./Thread.module.css";

const Lightbox = lazy(() => import("./Lightbox"));

/** Nearer to the end than this counts as reading the end. */
const END_PX = 48;
/** A thread with more unread than this opens at the first unread one instead of the end. */
const UNREAD_TO_START_AT = 8;

const none: readonly Message[] = [];
const FILE_PX = { image: 222, video: 170, sticker: 160, audio: 56, document: 70 };

/** About how high an item will be, before it is measured. */
function heightOf(item: Item): number {
  if (item.kind === "day" || item.kind === "new") return 44;
  if (item.kind === "unsent") return item.unsent.attachment ? FILE_PX[item.unsent.attachment.kind] + 64 : 64;
  if (item.kind !== "message") return 64;
  const { message } = item;
  const lines = message.content === "" ? 0 : Math.ceil(message.content.length / 70);
  const files = mediaOf(message).reduce((sum, media) => sum + FILE_PX[lookOf(message, media)], 0);
  return 42 + lines * 22 + files;
}

function useAttention(): boolean {
  const now = () => document.visibilityState === "visible" && document.hasFocus();
  const [attentive, setAttentive] = useState(now);
  useEffect(() => {
    const look = () => setAttentive(now());
    addEventListener("focus", look);
    addEventListener("blur", look);
    document.addEventListener("visibilitychange", look);
    return () => {
      removeEventListener("focus", look);
      removeEventListener("blur", look);
      document.removeEventListener("visibilitychange", look);
    };
  }, []);
  return attentive;
}

export function Thread({ id, me, name }: { id: string; me: string; name: string }) {
  const { t, i18n } = useTranslation();
  const lang = localeOf(i18n.language);
  const thread = useLive((live) => live.inbox.threads.get(id));
  const outbox = useLive((live) => live.outbox);
  const { data: profiles } = useQuery(profilesQuery);
  const messages = thread?.messages ?? none;
  const loaded = thread?.loaded ?? false;
  const scroller = useRef<HTMLDivElement>(null);
  const attentive = useAttention();

  // Where the new messages begin is decided once, when the thread is first there, and stays until it is left.
  const [newAfter, setNewAfter] = useState<number | null | undefined>(undefined);
  if (loaded && newAfter === undefined) {
    const { inbox } = useLive.getState();
    const row = inbox.conversations.get(id);
    const read = inbox.reads.get(id);
    setNewAfter(row && unreadCount(row, read) > 0 ? (read?.conv_seq ?? 0) : null);
  }

  // What arrives while nobody looks is new to whoever comes back.
  const newestSeq = messages.at(-1)?.conv_seq ?? 0;
  const attended = useRef(0);
  useEffect(() => {
    if (attentive) attended.current = newestSeq;
  }, [attentive, newestSeq]);
  const missed = !attentive && attended.current > 0 && newestSeq > attended.current;
  if (missed && messages.at(-1)?.direction === "INBOUND" && newAfter !== attended.current && newAfter !== undefined) setNewAfter(attended.current);

  const mine = useMemo(() => outbox.filter((one) => one.conversationId === id), [outbox, id]);
  const crm = useMay("can_access_crm");
  const { data: allNotes } = useQuery({ ...notesIn(id), enabled: crm });
  const complete = thread?.complete ?? false;
  const begins = messages[0] ? timeOf(messages[0]) : undefined;
  // Notes on what is not loaded yet come with it.
  const notes = useMemo(() => {
    const from = complete || begins === undefined ? -Infinity : Date.parse(begins);
    return (allNotes ?? []).filter((one) => Date.parse(one.created_at) >= from).toReversed();
  }, [allNotes, complete, begins]);
  const items = useMemo(
    () => threadItems(messages, mine, newAfter ?? null, me, notes),
    [messages, mine, newAfter, me, notes],
  );
  const byId = useMemo(() => new Map(messages.map((one) => [one.id, one])), [messages]);

  // Guessed once: with every row that is measured, the list asks for all behind it again.
  const heights = useMemo(() => items.map(heightOf), [items]);
  const virtual = useVirtualizer({
    count: items.length,
    getScrollElement: () => scroller.current,
    estimateSize: (index) => heights[index] ?? 64,
    getItemKey: (index) => items[index]?.key ?? index,
    overscan: 8,
    paddingStart: 12,
    paddingEnd: 14,
    anchorTo: "end",
    followOnAppend: true,
    scrollEndThreshold: END_PX,
  });

  const placed = useRef(false);
  useLayoutEffect(() => {
    if (!loaded || placed.current || newAfter === undefined || items.length === 0) return;
    placed.current = true;
    const line = items.findIndex((item) => item.kind === "new");
    if (line >= 0 && items.length - line > UNREAD_TO_START_AT) {
      sticking.current = false;
      virtual.scrollToIndex(line, { align: "start" });
    } else virtual.scrollToEnd();
  }, [loaded, items, newAfter, virtual]);

  // Whoever reads the end stays there, also when something is put in before the last bubble or a bubble grows.
  const sticking = useRef(true);
  // Whoever writes goes on at the end, where the bubble is, even if the thread was opened at its first unread message.
  const said = mine.at(-1)?.clientRef;
  const saidBefore = useRef(said);
  useLayoutEffect(() => {
    if (said !== undefined && said !== saidBefore.current) sticking.current = true;
    saidBefore.current = said;
  }, [said]);
  // … and whoever notes; a note that goes leaves an older one as the last.
  const noted = allNotes === undefined ? null : (allNotes.find((one) => one.author_id === me)?.created_at ?? "");
  const notedBefore = useRef(noted);
  useLayoutEffect(() => {
    if (noted !== null && notedBefore.current !== null && noted > notedBefore.current) sticking.current = true;
    notedBefore.current = noted;
  }, [noted]);
  const height = virtual.getTotalSize();
  // The composer takes room from the thread as it grows: by lines, by attached files.
  const room = virtual.scrollRect?.height ?? 0;
  useLayoutEffect(() => {
    if (placed.current && sticking.current && height > 0) virtual.scrollToEnd();
  }, [height, room, items, virtual]);

  const shown = virtual.getVirtualItems();
  const atEnd = !placed.current || virtual.isAtEnd(END_PX);
  const newest = newestSeq;

  // What arrives while somebody reads further up is counted on the button.
  const seen = useRef(newest);
  if (atEnd) seen.current = newest;
  const below = atEnd
    ? 0
    : messages.filter((one) => one.direction === "INBOUND" && one.conv_seq > seen.current).length;

  useEffect(() => {
    if (loaded && attentive && atEnd && newAfter !== undefined) readUpTo(id);
  }, [loaded, attentive, atEnd, newest, id, newAfter]);

  const first = shown[0]?.index ?? 0;
  useEffect(() => {
    if (loaded && placed.current && !complete && first < 6) void loadOlder(id);
  }, [loaded, complete, first, id, messages.length]);

  const nameOf = useCallback(
    (message: Message): string => {
      if (message.direction === "INBOUND") return name;
      if (message.sender_id === me) return t("bubble.you");
      return colleagueName(profiles?.find((one) => one.id === message.sender_id), "");
    },
    [name, me, profiles, t],
  );

  const replyTo = useCallback(
    (message: Message) => {
      setDraft(id, { replyToId: message.id });
      document.querySelector<HTMLTextAreaElement>("[data-composer]")?.focus();
    },
    [id],
  );
  const showOriginal = useCallback(
    (messageId: string) => {
      const index = items.findIndex((item) => item.kind === "message" && item.message.id === messageId);
      if (index >= 0) virtual.scrollToIndex(index, { align: "center" });
    },
    [items, virtual],
  );

  const [shotId, setShotId] = useState<string | null>(null);
  const opener = useRef<Element | null>(null);
  const showShot = useCallback((fileId: string) => {
    opener.current = document.activeElement;
    setShotId(fileId);
  }, []);
  const closeShot = () => {
    setShotId(null);
    // Its bubble may have been scrolled away by what came meanwhile.
    const back = opener.current instanceof HTMLElement && opener.current.isConnected ? opener.current : scroller.current;
    back?.focus({ preventScroll: true });
  };
  const shots = useMemo(() => (shotId === null ? [] : shotsOf(messages)), [shotId, messages]);

  const mayDelete = useMay("can_send_messages");
  const [deleting, setDeleting] = useState<Message | null>(null);

  return (
    <div className={css.frame}>
      <div
        ref={scroller}
        className={css.scroller}
        role="log"
        aria-live="off"
        aria-label={t("thread.label", { name })}
        // A scrolling region has to be reachable by keyboard.
        // oxlint-disable-next-line jsx-a11y/no-noninteractive-tabindex
        tabIndex={0}
        data-testid="thread"
        onScroll={({ currentTarget: box }) => {
          sticking.current = box.scrollHeight - box.scrollTop - box.clientHeight < END_PX;
        }}
      >
        {!loaded && <ThreadSkeleton />}
        {loaded && items.length === 0 && (
          <EmptyState icon={<MessageSquareDashed size={24} />} title={t("thread.empty")} />
        )}
        {loaded && !complete && items.length > 0 && (
          <p className={css.older}>
            <Loader size={14} color="gray" /> {t("thread.loadingOlder")}
          </p>
        )}
        {loaded && items.length > 0 && (
          <div className={css.items} style={{ blockSize: virtual.getTotalSize() }}>
            {shown.map((place) => {
              const item = items[place.index];
              if (!item) return null;
              return (
                <div
                  key={place.key}
                  ref={virtual.measureElement}
                  data-index={place.index}
                  className={css.slot}
                  style={{ transform: `translateY(${place.start}px)` }}
                >
                  {item.kind === "day" && (
                    <p className={css.day}>
                      <time dateTime={item.at}>{dayLabel(item.at, Date.now(), lang)}</time>
                    </p>
                  )}
                  {item.kind === "new" && (
                    <p className={css.new} data-testid="new-divider">
                      <span>{t("thread.newMessages")}</span>
                    </p>
                  )}
                  {item.kind === "note" && (
                    <NoteCard
                      note={item.note}
                      author={colleagueName(profiles?.find((one) => one.id === item.note.author_id), "")}
                      mine={item.note.author_id === me}
                    />
                  )}
                  {item.kind === "message" && (
                    <MessageBubble
                      message={item.message}
                      joined={item.joined}
                      sender={nameOf(item.message)}
                      mine={item.message.sender_id === me}
                      original={item.message.reply_to_id ? byId.get(item.message.reply_to_id) : undefined}
                      nameOf={nameOf}
                      onReply={replyTo}
                      onOriginal={showOriginal}
                      onShow={showShot}
                      onDelete={mayDelete ? setDeleting : undefined}
                    />
                  )}
                  {item.kind === "unsent" && (
                    <UnsentBubble
                      unsent={item.unsent}
                      joined={item.joined}
                      original={item.unsent.replyToId ? byId.get(item.unsent.replyToId) : undefined}
                      nameOf={nameOf}
                    />
                  )}
                </div>
              );
            })}
          </div>
        )}
      </div>
      {!atEnd && (
        <button
          type="button"
          className={css.jump}
          onClick={() => {
            sticking.current = true;
            virtual.scrollToEnd();
          }}
        >
          <ArrowDown size={15} aria-hidden />
          {below > 0 ? t("thread.jump", { count: below }) : t("thread.jump")}
        </button>
      )}
      <Announcer messages={messages} name={name} loaded={loaded} />
      {shotId !== null && (
        <Suspense fallback={null}>
          <Lightbox
            shots={shots}
            fileId={shotId}
            nameOf={(shot) => nameOf(shot.message)}
            onShow={setShotId}
            onClose={closeShot}
          />
        </Suspense>
      )}
      <DeleteDialog
        // The one in sight, as it is by now: it may have been sent while somebody made up their mind.
        message={deleting ? byId.get(deleting.id) : undefined}
        onClose={() => {
          setDeleting(null);
          // The menu's button may be gone with the text.
          scroller.current?.focus({ preventScroll: true });
        }}
      />
    </div>
  );
}

/** Asks before a message loses its text, and says what that does not do. */
function DeleteDialog({ message, onClose }: { message: Message | undefined; onClose: () => void }) {
  const { t } = useTranslation();
  const [busy, setBusy] = useState(false);
  const hint = (): string => {
    if (message?.direction === "OUTBOUND" && message.status === "PENDING") return t("bubble.deletePending");
    if (message?.direction === "OUTBOUND" && message.status === "FAILED") return t("bubble.deleteFailed");
    return t("bubble.deleteHint");
  };
  const remove = () => {
    if (!message) return;
    setBusy(true);
    void deleteMessage(message.id).then((done) => {
      setBusy(false);
      if (done) onClose();
    });
  };
  return (
    <Modal
      opened={message !== undefined && message.deleted_at === null}
      onClose={onClose}
      title={t("bubble.deleteTitle")}
      size="sm"
      returnFocus={false}
      closeButtonProps={{ "aria-label": t("common.close") }}
    >
      {message && message.content !== "" && (
        <p className={css.deleteText} dir="auto">
          {message.content}
        </p>
      )}
      <p className={css.deleteHint}>{hint()}</p>
      <div className={css.deleteButtons}>
        <Button variant="default" data-autofocus onClick={onClose}>
          {t("bubble.keep")}
        </Button>
        <Button color="red.9" loading={busy} onClick={remove}>
          {t("bubble.deleteNow")}
        </Button>
      </div>
    </Modal>
  );
}

/** Says new customer messages, at most one every two seconds: the latest. */
function Announcer({ messages, name, loaded }: { messages: readonly Message[]; name: string; loaded: boolean }) {
  const { t } = useTranslation();
  const last = messages.at(-1);
  const said = useRef<number | null>(null);
  const [words, setWords] = useState("");
  useEffect(() => {
    if (!loaded || !last) return undefined;
    if (said.current === null || last.direction !== "INBOUND" || last.conv_seq <= said.current) {
      said.current = Math.max(said.current ?? 0, last.conv_seq);
      return undefined;
    }
    const timer = setTimeout(() => {
      said.current = last.conv_seq;
      setWords(t("thread.announce", { name, text: last.content || kindLabel(t, last.message_type) }));
    }, 2_000);
    return () => clearTimeout(timer);
  }, [last, loaded, name, t]);
  return (
    <span className="sr-only" role="status">
      {words}
    </span>
  );
}

function ThreadSkeleton() {
  return (
    <div className={css.skeleton} aria-hidden>
      <Skeleton height={44} width="46%" radius={16} />
      <Skeleton height={64} width="58%" radius={16} className={css.skeletonOut} />
      <Skeleton height={44} width="34%" radius={16} />
      <Skeleton height={44} width="40%" radius={16} className={css.skeletonOut} />
    </div>
  );
}
