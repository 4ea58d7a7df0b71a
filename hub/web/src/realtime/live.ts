/** The running inbox: the socket, the state it feeds, snapshots after a resync, and the unsent messages.
 *
 * Everything that decides something is in reducer.ts and outbox.ts; this file only connects them with the network.
 */
import { create } from "zustand";
import { ApiError } from "../api/http";
import {
  type Contact, type Conversation, type ConversationRead, contact, conversation, conversationRead, message,
} from "../api/models";
import { type Filters, count, rows, rowsById } from "../api/rest";
import { accessToken, dropToken, useSession } from "../api/session";
import { newId } from "../lib/ids";
import { reconnectDelay } from "../lib/backoff";
import { isRecord, parseJson } from "../lib/parse";
import type { Cursor, LiveEvent, ServerFrame, Welcome } from "./frames";
import {
  type Attachment, FILE_GONE, type Outbox, type OutboxAction, type Unsent, awaitsFile, isTransient, nextDue, reduceOutbox, sendable,
  unsent,
} from "./outbox";
import {
  type Inbox, type Wants, applyEvents, beginResync, dropThreads, emptyInbox, follow, markRead, openThread,
  takeContacts, takeConversations, takeMessages, takeOlder, takeReads, takeThread, unreadCount,
} from "./reducer";
import { CommandError, LiveSocket, type Phase } from "./socket";
import { Wanted, untilAnswered } from "./wanted";

export const QUEUES = ["mine", "unassigned", "all", "closed"] as const;
export type Queue = (typeof QUEUES)[number];

export interface Live {
  phase: Phase;
  /** Parts of the hub that are away, as the hub says. */
  degraded: readonly string[];
  session: Welcome["session"] | null;
  /** Colleagues with an open app → the conversation they look at. */
  presence: ReadonlyMap<string, string | null>;
  /** Conversation → colleague → epoch milliseconds until which "is writing" holds. */
  typing: ReadonlyMap<string, ReadonlyMap<string, number>>;
  inbox: Inbox;
  outbox: Outbox;
  /** No snapshot was read since sign-in. */
  loading: boolean;
  /** Why the last snapshot failed; null while all is well. */
  failure: string | null;
  /** Every conversation of the queue is in `inbox`. */
  complete: Readonly<Record<Queue, boolean>>;
  /** The server's count, for queues that are not complete. */
  counts: Readonly<Record<Queue, number | null>>;
  /** Conversations that were asked for by address and do not exist for this user. */
  missing: ReadonlySet<string>;
}

const noQueues = <T>(value: T): Record<Queue, T> => ({ mine: value, unassigned: value, all: value, closed: value });

const initial: Live = {
  phase: { name: "stopped" },
  degraded: [],
  session: null,
  presence: new Map(),
  typing: new Map(),
  inbox: emptyInbox,
  outbox: [],
  loading: true,
  failure: null,
  complete: noQueues(false),
  counts: noQueues(null),
  missing: new Set(),
};

export const useLive = create<Live>()(() => initial);

const PAGE = 200;
/** Whoever scrolls on wants more of it. */
const MOST_ROWS = 1_000;
const THREAD_PAGE = 50;
const MOST_MESSAGES = 500;
const TYPING_MS = 6_000;

let me = "";
let socket: LiveSocket | null = null;
let cursor: Cursor | null = null;
let open: string | null = null;
let tablesChanged: (tables: ReadonlySet<string>) => void = () => undefined;

/** Where the pages of a queue end. Not its oldest known row: events and addresses bring older ones in, with a hole above. */
interface Tail {
  at: string | null;
  id: string;
}
let tails = noQueues<Tail | null>(null);

const tailOf = (page: readonly Conversation[]): Tail | null => {
  const last = page.at(-1);
  return last ? { at: last.last_message_at, id: last.id } : null;
};

const inboxNow = (): Inbox => useLive.getState().inbox;
const setInbox = (inbox: Inbox): void => useLive.setState({ inbox });

// ---- start and stop --------------------------------------------------------------------------------------------

/** Connects as `userId`. `onTables` hears which tables changed, so that other lists can be read again. */
export function startLive(userId: string, onTables: (tables: ReadonlySet<string>) => void): void {
  // The page beneath may have asked for its conversation before the frame around it starts the stream.
  const wanted = open;
  stopLive();
  open = wanted;
  me = userId;
  tablesChanged = onTables;
  useLive.setState({ ...initial, outbox: loadOutbox(userId) }, true);
  if (useLive.getState().outbox.some((one) => one.attachment)) void files().then((one) => one.resumeUploads(userId));
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  socket = new LiveSocket(`${scheme}://${location.host}/ws`, {
    token: accessToken,
    dropToken,
    signedOut: () => useSession.getState().status === "anonymous",
    cursor: () => cursor,
    forgetCursor: () => {
      cursor = null;
    },
    onFrame: receive,
    onPhase: (phase) => {
      useLive.setState(phase.name === "live" ? { phase } : { phase, presence: new Map(), typing: new Map() });
      if (phase.name === "live") {
        if (open) void ephemeral("view", { conversation_id: open });
        flush();
      }
    },
  });
  socket.start();
}

export function stopLive(): void {
  socket?.stop();
  socket = null;
  cursor = null;
  open = null;
  pending = [];
  wanted.forget();
  loadingMore.clear();
  tails = noQueues<Tail | null>(null);
  useLive.setState(initial, true);
}

export function reconnectNow(): void {
  socket?.connectNow();
}

// ---- frames ----------------------------------------------------------------------------------------------------

let pending: LiveEvent[] = [];
let scheduled = false;

function receive(frame: ServerFrame): void {
  const step = follow(cursor, frame);
  cursor = step.cursor;
  if (step.deliver) {
    pending.push(step.deliver);
    if (!scheduled) {
      scheduled = true;
      // One render for a burst. A hidden page gets no animation frames, so a timer does it there.
      if (document.visibilityState === "visible") requestAnimationFrame(drain);
      else setTimeout(drain, 50);
    }
  }
  switch (frame.type) {
    case "welcome": {
      const before = useLive.getState().session;
      if (before && before.organization_id !== frame.session.organization_id) {
        // Another organization: nothing of the former may stay in sight while its own is read.
        pending = [];
        wanted.forget();
        useLive.setState({ inbox: emptyInbox, loading: true, complete: noQueues(false), counts: noQueues(null) });
      }
      useLive.setState({
        session: frame.session,
        // A hub that is short of something says so right after its welcome.
        degraded: [],
        presence: new Map(frame.presence.map((one) => [one.user_id, one.viewing])),
      });
      break;
    }
    case "degraded":
      useLive.setState({ degraded: frame.what });
      break;
    case "presence": {
      const presence = new Map(useLive.getState().presence);
      if (frame.online) presence.set(frame.user_id, frame.viewing);
      else presence.delete(frame.user_id);
      useLive.setState({ presence });
      break;
    }
    case "typing":
      setTyping(frame.conversation_id, frame.user_id, frame.typing);
      break;
    default:
      break;
  }
  if (step.resync) {
    drain();
    setInbox(beginResync(inboxNow()));
    void readSnapshots();
  }
}

function drain(): void {
  scheduled = false;
  const events = pending;
  pending = [];
  if (!events.length) return;
  const { inbox, wants } = applyEvents(inboxNow(), events, me);
  useLive.setState({ inbox });
  for (const event of events) {
    // Their message is there: they are not writing it any more.
    if (event.table === "messages" && event.conversation_id && event.actor?.user_id) {
      setTyping(event.conversation_id, event.actor.user_id, false);
    }
  }
  land();
  fetchWanted(wants);
  if (wants.tables.has("conversations")) recountSoon();
  tablesChanged(wants.tables);
}

type WantedKind = "conversations" | "contacts" | "messages";

const wanted = new Wanted<WantedKind>({
  read: async (kind, ids) => {
    switch (kind) {
      case "conversations": {
        const found = await rowsById("conversations", conversation, ids);
        return () => setInbox(takeConversations(inboxNow(), found, false));
      }
      case "contacts": {
        const found = await rowsById("contacts", contact, ids);
        return () => setInbox(takeContacts(inboxNow(), found));
      }
      case "messages": {
        const found = await rowsById("messages", message, ids);
        return () => {
          setInbox(takeMessages(inboxNow(), found));
          land();
        };
      }
      default:
        return kind satisfies never;
    }
  },
  refused: report,
});

function fetchWanted(wants: Wants): void {
  wanted.want("conversations", wants.conversations);
  wanted.want("contacts", wants.contacts);
  wanted.want("messages", wants.messages);
}

function report(error: unknown): void {
  // What a person has to know stands in `failure` and the badge.
  console.warn("background read failed", error);
}

function setTyping(conversationId: string, userId: string, on: boolean): void {
  const typing = useLive.getState().typing;
  const known = typing.get(conversationId);
  if (!on && !known?.has(userId)) return;
  const users = new Map(known);
  if (on) {
    const until = Date.now() + TYPING_MS;
    users.set(userId, until);
    setTimeout(() => {
      if (useLive.getState().typing.get(conversationId)?.get(userId) === until) {
        setTyping(conversationId, userId, false);
      }
    }, TYPING_MS + 50);
  } else {
    users.delete(userId);
  }
  useLive.setState({ typing: new Map(typing).set(conversationId, users) });
}

// ---- snapshots -------------------------------------------------------------------------------------------------

function queueFilters(queue: Queue): Filters {
  switch (queue) {
    case "mine":
      return { status: "eq.OPEN", assignee_id: `eq.${me}` };
    case "unassigned":
      return { status: "eq.OPEN", assignee_id: "is.null" };
    case "all":
      return { status: "eq.OPEN" };
    case "closed":
      return { status: "eq.CLOSED" };
    default:
      return queue satisfies never;
  }
}

let snapshotTry = 0;
let snapshotRun = 0;

/** Reads everything shown again. A later call makes an earlier one's answers worthless. */
async function readSnapshots(): Promise<void> {
  snapshotRun += 1;
  const run = snapshotRun;
  const stale = (): boolean => socket === null || run !== snapshotRun;
  try {
    const pages = await Promise.all(
      QUEUES.map((queue) =>
        rows("conversations", conversation, {
          ...queueFilters(queue), order: NEWEST, limit: String(PAGE),
        }),
      ),
    );
    if (stale()) return;
    const all = [...new Map(pages.flat().map((row) => [row.id, row])).values()];
    setInbox(takeConversations(inboxNow(), all, true));
    const complete = noQueues(false);
    QUEUES.forEach((queue, index) => {
      complete[queue] = (pages[index]?.length ?? PAGE) < PAGE;
      tails[queue] = tailOf(pages[index] ?? []);
    });
    setInbox(dropThreads(inboxNow(), new Set(open ? [open] : [])));
    await Promise.all([
      readBeside(all).then((beside) => setInbox(takeBeside(inboxNow(), beside))),
      ...(open ? [readConversation(open), readThread(open)] : []),
    ]);
    if (stale()) return;
    useLive.setState({ complete, loading: false, failure: null });
    // The list was there before all of this was read: somebody may have opened a conversation meanwhile.
    if (open) readOpened(open);
    tablesChanged(new Set(["*"]));
    recountSoon(0);
    snapshotTry = 0;
  } catch (error) {
    if (stale()) return;
    useLive.setState({ failure: error instanceof Error ? error.message : String(error) });
    if (error instanceof ApiError && !error.transient) return;
    snapshotTry += 1;
    setTimeout(() => {
      if (!stale()) void readSnapshots();
    }, reconnectDelay(snapshotTry));
  }
}

interface Beside {
  contacts: Contact[];
  reads: ConversationRead[];
}

const takeBeside = (inbox: Inbox, { contacts, reads }: Beside): Inbox =>
  takeReads(takeContacts(inbox, contacts), reads);

/** Contacts and read marks that belong to these conversations. */
async function readBeside(of: readonly Conversation[]): Promise<Beside> {
  const known = inboxNow().contacts;
  const people = new Set(of.map((row) => row.contact_id).filter((id) => !known.has(id)));
  const marks = async (): Promise<ConversationRead[]> => {
    const pieces: Promise<ConversationRead[]>[] = [];
    for (let start = 0; start < of.length; start += 100) {
      const ids = of.slice(start, start + 100).map((row) => row.id);
      pieces.push(
        rows("conversation_reads", conversationRead, {
          user_id: `eq.${me}`, conversation_id: `in.(${ids.join(",")})`,
        }),
      );
    }
    return (await Promise.all(pieces)).flat();
  };
  const [contacts, reads] = await Promise.all([rowsById("contacts", contact, [...people]), marks()]);
  return { contacts, reads };
}

const NEWEST = "last_message_at.desc.nullslast,id.desc";

/** What stands below the tail. */
function below(tail: Tail): Filters {
  if (tail.at === null) return { last_message_at: "is.null", id: `lt.${tail.id}` };
  return { or: `(last_message_at.lt.${tail.at},and(last_message_at.eq.${tail.at},id.lt.${tail.id}),last_message_at.is.null)` };
}

/** Queue or conversation → the read that is on its way. */
const loadingMore = new Map<string, symbol>();

/** The next page of a queue, twice as large as what is there. Its rows come together with their contacts' names. */
export async function loadMore(queue: Queue): Promise<void> {
  const { complete, loading } = useLive.getState();
  if (loading || complete[queue] || loadingMore.has(queue)) return;
  const run = snapshotRun;
  const stale = (): boolean => socket === null || run !== snapshotRun;
  const mine = Symbol(queue);
  loadingMore.set(queue, mine);
  try {
    await untilAnswered(() => readMore(queue, stale), stale);
  } catch (error) {
    report(error);
  } finally {
    if (loadingMore.get(queue) === mine) loadingMore.delete(queue);
  }
}

async function readMore(queue: Queue, stale: () => boolean): Promise<void> {
  for (;;) {
    const tail = tails[queue];
    if (!tail) return;
    const here = countIn(inboxNow(), queue);
    const limit = Math.min(MOST_ROWS, Math.max(PAGE, here));
    const page = await rows("conversations", conversation, {
      ...queueFilters(queue), order: NEWEST, limit: String(limit), ...below(tail),
    });
    const beside = await readBeside(page);
    if (stale()) return;
    tails[queue] = tailOf(page) ?? tail;
    const inbox = takeBeside(takeConversations(inboxNow(), page, false), beside);
    const done = { ...useLive.getState().complete, [queue]: page.length < limit };
    // A page of rows that events had brought already makes no list grow, and then nobody would ask for the next.
    const enough = done[queue] || countIn(inbox, queue) > here;
    // The list asks again as soon as it has grown: by then this one has to be over.
    if (enough) loadingMore.delete(queue);
    useLive.setState({ inbox, complete: done });
    if (enough) return;
  }
}

function countIn(inbox: Inbox, queue: Queue): number {
  let total = 0;
  for (const row of inbox.conversations.values()) if (inQueue(row, queue, me)) total += 1;
  return total;
}

export function inQueue(row: { status: string; assignee_id: string | null }, queue: Queue, user: string): boolean {
  switch (queue) {
    case "mine":
      return row.status === "OPEN" && row.assignee_id === user;
    case "unassigned":
      return row.status === "OPEN" && row.assignee_id === null;
    case "all":
      return row.status === "OPEN";
    case "closed":
      return row.status === "CLOSED";
    default:
      return queue satisfies never;
  }
}

let recount: ReturnType<typeof setTimeout> | undefined;

/** Counts queues that are larger than what is loaded; the others are counted from what is loaded. */
function recountSoon(after = 1_000): void {
  if (recount !== undefined) return;
  recount = setTimeout(() => {
    recount = undefined;
    const { complete } = useLive.getState();
    const open_ = QUEUES.filter((queue) => !complete[queue]);
    Promise.all(open_.map(async (queue) => [queue, await count("conversations", queueFilters(queue))] as const))
      .then((pairs) => {
        const counts = { ...useLive.getState().counts };
        for (const [queue, total] of pairs) counts[queue] = total;
        useLive.setState({ counts });
      })
      .catch(report);
  }, after);
}

// ---- one conversation ------------------------------------------------------------------------------------------

/** Shows a conversation: reads what is not here yet and tells colleagues. null when none is shown any more. */
export function openConversation(id: string | null): void {
  open = id;
  void ephemeral("view", { conversation_id: id });
  if (!id) return;
  setInbox(openThread(inboxNow(), id));
  if (useLive.getState().loading) {
    // The coming snapshot reads the open thread; the conversation itself may be older than its pages.
    void readConversation(id);
    return;
  }
  void readConversation(id);
  readOpened(id);
}

function readOpened(id: string): void {
  if (!inboxNow().threads.get(id)?.loaded) untilAnswered(() => readThread(id), left(id)).catch(report);
}

/** Whether the conversation is not the one in sight any more: reading it may wait until somebody opens it again. */
const left = (id: string) => (): boolean => socket === null || open !== id;

async function readConversation(id: string): Promise<void> {
  if (inboxNow().conversations.has(id)) return;
  try {
    await untilAnswered(async () => {
      const found = await rowsById("conversations", conversation, [id]);
      setInbox(takeConversations(inboxNow(), found, false));
      if (found.length) {
        const beside = await readBeside(found);
        setInbox(takeBeside(inboxNow(), beside));
      } else useLive.setState({ missing: new Set(useLive.getState().missing).add(id) });
    }, left(id));
  } catch (error) {
    // A malformed id is refused as such: no conversation has it.
    if (error instanceof ApiError && error.status >= 400 && error.status < 500) {
      useLive.setState({ missing: new Set(useLive.getState().missing).add(id) });
    } else report(error);
  }
}

async function readThread(id: string): Promise<void> {
  setInbox(openThread(inboxNow(), id));
  const page = await rows("messages", message, {
    conversation_id: `eq.${id}`, order: "conv_seq.desc", limit: String(THREAD_PAGE),
  });
  setInbox(takeThread(inboxNow(), id, page, page.length < THREAD_PAGE, true));
  land();
}

export async function loadOlder(id: string): Promise<void> {
  const thread = inboxNow().threads.get(id);
  const first = thread?.messages[0];
  if (!thread?.loaded || thread.complete || !first || loadingMore.has(id)) return;
  const mine = Symbol(id);
  loadingMore.set(id, mine);
  try {
    const limit = Math.min(MOST_MESSAGES, Math.max(THREAD_PAGE, thread.messages.length));
    const page = await rows("messages", message, {
      conversation_id: `eq.${id}`, order: "conv_seq.desc", limit: String(limit), conv_seq: `lt.${first.conv_seq}`,
    });
    loadingMore.delete(id);
    setInbox(takeOlder(inboxNow(), id, page, page.length < limit));
  } catch (error) {
    report(error);
  } finally {
    if (loadingMore.get(id) === mine) loadingMore.delete(id);
  }
}

/** Everything up to the newest loaded message was seen. */
export function readUpTo(id: string): void {
  const inbox = inboxNow();
  const row = inbox.conversations.get(id);
  const last = inbox.threads.get(id)?.messages.at(-1);
  const known = inbox.reads.get(id);
  if (!row || !last || useLive.getState().phase.name !== "live") return;
  if (unreadCount(row, known) === 0 && known && known.conv_seq >= last.conv_seq) return;
  setInbox(markRead(inbox, id, me, last.conv_seq));
  void ephemeral("read", { conversation_id: id, conv_seq: last.conv_seq });
}

/** A deed of the user. Rejects with CommandError; the change itself arrives as an event. */
export function act(name: "assign" | "close" | "reopen" | "tag" | "retry", args: Record<string, unknown>): Promise<unknown> {
  return socket
    ? socket.command(name, args)
    : Promise.reject(new CommandError({ code: "DISCONNECTED", message: "", details: null }));
}

/** Something that is only worth saying now: when it gets lost, nothing is wrong. */
async function ephemeral(name: "view" | "typing" | "read", args: Record<string, unknown>): Promise<void> {
  try {
    await socket?.command(name, args);
  } catch (error) {
    if (!(error instanceof CommandError)) throw error;
  }
}

let typingSent: { conversationId: string; at: number } | null = null;
let typingStop: ReturnType<typeof setTimeout> | undefined;

/** Call on every change of the composer's text. */
export function noteTyping(conversationId: string, writing: boolean): void {
  clearTimeout(typingStop);
  if (!writing) {
    if (typingSent) void ephemeral("typing", { conversation_id: typingSent.conversationId, typing: false });
    typingSent = null;
    return;
  }
  if (typingSent?.conversationId !== conversationId || Date.now() - typingSent.at > 3_000) {
    typingSent = { conversationId, at: Date.now() };
    void ephemeral("typing", { conversation_id: conversationId, typing: true });
  }
  typingStop = setTimeout(() => noteTyping(conversationId, false), 4_000);
}

// ---- unsent messages -------------------------------------------------------------------------------------------

const keyOf = (user: string, clientRef: string): string => `hub.unsent.${user}.${clientRef}`;

/** One storage key a message: two tabs then never overwrite each other's. */
function loadOutbox(user: string): Outbox {
  const found: Unsent[] = [];
  try {
    for (let index = 0; index < localStorage.length; index += 1) {
      const key = localStorage.key(index);
      if (!key?.startsWith(`hub.unsent.${user}.`)) continue;
      try {
        found.push(unsent(parseJson(localStorage.getItem(key) ?? "null"), key));
      } catch {
        localStorage.removeItem(key);
      }
    }
  } catch {
    return [];
  }
  return reduceOutbox(found.sort((a, b) => a.createdAt - b.createdAt), { type: "connection-lost" });
}

/** Few messages carry a file: what uploads them is fetched with the first one. */
const files = () => import("./uploads");

function setOutbox(action: OutboxAction): void {
  const before = useLive.getState().outbox;
  const after = reduceOutbox(before, action);
  if (after === before) return;
  useLive.setState({ outbox: after });
  try {
    const left = new Set(after.map((one) => one.clientRef));
    for (const one of before) if (!left.has(one.clientRef)) localStorage.removeItem(keyOf(me, one.clientRef));
    for (const one of after) {
      if (!before.includes(one)) localStorage.setItem(keyOf(me, one.clientRef), JSON.stringify(one));
    }
  } catch {
    // Without storage the message lives as long as the page, and the badge says that it is unsent.
  }
}

/** What a message may carry besides its text. */
export interface Cargo {
  attachment?: Attachment | undefined;
  template?: NonNullable<Unsent["template"]> | undefined;
}

/** Puts a message into the thread and sends it as soon as that is possible. */
export function compose(
  conversationId: string, content: string, replyToId: string | null, seenSeq: number | null, cargo: Cargo = {},
): void {
  setOutbox({
    type: "composed",
    message: {
      clientRef: newId(), conversationId, content, replyToId, createdAt: Date.now(), seenSeq,
      state: "queued", attempts: 0, notBefore: 0, errorCode: null, errorText: null, conflictIds: [],
      attachment: cargo.attachment ?? null, template: cargo.template ?? null,
    },
  });
  noteTyping(conversationId, false);
  flush();
}

/** A file is up, or was refused and only a person can change that. */
export function uploadSettled(key: string, outcome: { mediaId: string } | { code: string; text: string }): void {
  if ("mediaId" in outcome) setOutbox({ type: "uploaded", key, mediaId: outcome.mediaId });
  else setOutbox({ type: "upload-refused", key, code: outcome.code, text: outcome.text });
  flush();
}

export function retryUnsent(clientRef: string): void {
  setOutbox({ type: "retry", clientRef });
  const again = useLive.getState().outbox.find((one) => one.clientRef === clientRef);
  if (again?.attachment && awaitsFile(again)) {
    const { key } = again.attachment;
    void files().then((one) => one.uploadAgain(key));
  }
  flush();
}

export function sendAnyway(clientRef: string): void {
  setOutbox({ type: "send-anyway", clientRef });
  flush();
}

/** Its file stays with `keepFile`, for whoever goes on with it. */
export function discardUnsent(clientRef: string, keepFile = false): void {
  const key = useLive.getState().outbox.find((one) => one.clientRef === clientRef)?.attachment?.key;
  setOutbox({ type: "discard", clientRef });
  if (key !== undefined && !keepFile) void files().then((one) => one.dropFile(key));
  flush();
}

let due: ReturnType<typeof setTimeout> | undefined;

function flush(): void {
  clearTimeout(due);
  if (useLive.getState().phase.name !== "live") return;
  const now = Date.now();
  for (const one of sendable(useLive.getState().outbox, now)) void trySend(one);
  const wait = nextDue(useLive.getState().outbox, now);
  if (wait !== null) due = setTimeout(flush, wait + 10);
}

async function trySend(one: Unsent): Promise<void> {
  setOutbox({ type: "sending", clientRef: one.clientRef });
  try {
    const result = await socket?.command("send", {
      conversation_id: one.conversationId,
      client_ref: one.clientRef,
      ...(one.template
        ? { template_id: one.template.id, variables: one.template.variables }
        : { content: one.content, ...(one.attachment ? { media_id: one.attachment.mediaId } : {}) }),
      ...(one.replyToId === null ? {} : { reply_to_id: one.replyToId }),
      ...(one.seenSeq === null ? {} : { seen_seq: one.seenSeq }),
    });
    setOutbox({ type: "accepted", clientRef: one.clientRef });
    void settle(one, isRecord(result) && typeof result["message_id"] === "string" ? result["message_id"] : null);
  } catch (error) {
    if (!(error instanceof CommandError)) throw error;
    const { code, message: text, details } = error.failure;
    if (code === "REPLY_CONFLICT") {
      const ids = Array.isArray(details?.["messages"]) ? details["messages"] : [];
      const messages = ids.filter((id): id is string => typeof id === "string");
      setOutbox({ type: "conflict", clientRef: one.clientRef, messages });
    } else if (code === "DISCONNECTED") {
      setOutbox({ type: "connection-lost" });
    } else if (isTransient(code)) {
      setOutbox({ type: "deferred", clientRef: one.clientRef, until: Date.now() + reconnectDelay(one.attempts) });
    } else {
      const about = details?.["field"] === "media_id" ? FILE_GONE : code;
      setOutbox({ type: "refused", clientRef: one.clientRef, code: about, text });
    }
  }
  flush();
}

/** The row of an accepted message usually came before the answer. If not, it is read; an unopened thread needs none. */
async function settle(one: Unsent, messageId: string | null): Promise<void> {
  const here = (): boolean =>
    inboxNow().threads.get(one.conversationId)?.messages.some((row) => row.client_ref === one.clientRef) ?? true;
  if (!here() && messageId) {
    await new Promise((resolve) => setTimeout(resolve, 2_000));
    const known = (): boolean => socket === null || here();
    await untilAnswered(async () => {
      const found = await rowsById("messages", message, [messageId]);
      setInbox(takeMessages(inboxNow(), found));
    }, known).catch(report);
  }
  landed(new Set([one.clientRef]));
}

/** What has become a row needs its file no longer. */
function landed(clientRefs: ReadonlySet<string>): void {
  const keys = useLive.getState().outbox.flatMap((one) =>
    one.attachment && clientRefs.has(one.clientRef) ? [one.attachment.key] : [],
  );
  setOutbox({ type: "landed", clientRefs });
  if (keys.length) void files().then((one) => keys.forEach((key) => one.dropFile(key)));
}

/** Takes out of the outbox what has become a row of a thread. */
function land(): void {
  const { outbox, inbox } = useLive.getState();
  if (!outbox.length) return;
  const refs = new Set<string>();
  for (const thread of inbox.threads.values()) {
    for (const row of thread.messages) if (row.client_ref) refs.add(row.client_ref);
  }
  landed(refs);
}
