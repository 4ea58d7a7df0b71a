/** The inbox as a fold over frames: pure functions from (state, frame) to the next state and what has to be fetched.
 *
 * Two rules of the live contract live here. On one stream only larger positions count, and the cursor moves before
 * the event is handed on. A row replaces another only when its version is not older, because a snapshot read after
 * `welcome` may already contain an event that still arrives.
 */
import {
  type Contact, type Conversation, type ConversationRead, type Message, contact, conversation, conversationRead, message,
} from "../api/models";
import { ParseError, type Parser } from "../lib/parse";
import type { Cursor, LiveEvent, ServerFrame } from "./frames";

// ---- the stream ------------------------------------------------------------------------------------------------

export interface Step {
  cursor: Cursor | null;
  /** The event to apply, when the frame carried a new one. */
  deliver: LiveEvent | null;
  /** True when everything shown has to be read again: the stream could not be continued. */
  resync: boolean;
}

/** Moves the cursor by one frame of the current socket. */
export function follow(cursor: Cursor | null, frame: ServerFrame): Step {
  const stay: Step = { cursor, deliver: null, resync: false };
  switch (frame.type) {
    case "welcome":
      // Resumed: the missing events follow, each with its own position, so the cursor stays where it was.
      if (frame.resumed && cursor) return stay;
      return { cursor: { epoch: frame.epoch, seq: frame.seq }, deliver: null, resync: true };
    case "event":
      if (!cursor || frame.seq <= cursor.seq) return stay;
      return { cursor: { ...cursor, seq: frame.seq }, deliver: frame.event, resync: false };
    case "pos":
      if (!cursor || frame.seq <= cursor.seq) return stay;
      return { cursor: { ...cursor, seq: frame.seq }, deliver: null, resync: false };
    case "resync": {
      // The log is not what it was: its new epoch, where it has one, belongs to the new position.
      const epoch = frame.epoch ?? cursor?.epoch;
      return { cursor: epoch === undefined ? null : { epoch, seq: frame.seq }, deliver: null, resync: true };
    }
    case "degraded":
    case "presence":
    case "typing":
    case "reply":
    case "bye":
      return stay;
    default:
      return unreachable(frame);
  }
}

function unreachable(value: never): never {
  throw new Error(`unhandled frame ${JSON.stringify(value)}`);
}

// ---- the rows --------------------------------------------------------------------------------------------------

export interface Thread {
  /** Ascending by position in the conversation, without holes. */
  messages: readonly Message[];
  /** The first message of the conversation is among them. */
  complete: boolean;
  /** A page was read. Before that only events fill the thread, so that none is missed while the page is on its way. */
  loaded: boolean;
}

export interface Inbox {
  conversations: ReadonlyMap<string, Conversation>;
  contacts: ReadonlyMap<string, Contact>;
  reads: ReadonlyMap<string, ConversationRead>;
  /** Only conversations that were opened. */
  threads: ReadonlyMap<string, Thread>;
  /** Rows that events brought or took since the last resync: a snapshot read meanwhile may not know them yet. */
  touched: ReadonlySet<string>;
  gone: ReadonlySet<string>;
}

export const emptyInbox: Inbox = {
  conversations: new Map(),
  contacts: new Map(),
  reads: new Map(),
  threads: new Map(),
  touched: new Set(),
  gone: new Set(),
};

/** Ids to read because an event named them without bringing their row, and tables whose lists are out of date. */
export interface Wants {
  conversations: Set<string>;
  contacts: Set<string>;
  messages: Set<string>;
  tables: Set<string>;
}

export const noWants = (): Wants => ({
  conversations: new Set(),
  contacts: new Set(),
  messages: new Set(),
  tables: new Set(),
});

/** A second socket, or the start of a new stream: from here on events are remembered against the coming snapshot. */
export function beginResync(inbox: Inbox): Inbox {
  return { ...inbox, touched: new Set(), gone: new Set() };
}

/** Applies events in order. Maps are copied once for all of them: a resume may bring a thousand. */
export function applyEvents(inbox: Inbox, events: readonly LiveEvent[], me: string): { inbox: Inbox; wants: Wants } {
  const next = {
    conversations: new Map(inbox.conversations),
    contacts: new Map(inbox.contacts),
    reads: new Map(inbox.reads),
    threads: new Map(inbox.threads),
    touched: new Set(inbox.touched),
    gone: new Set(inbox.gone),
  };
  const wants = noWants();
  for (const event of events) applyOne(next, event, me, wants);
  for (const row of next.conversations.values()) {
    if (!next.contacts.has(row.contact_id)) wants.contacts.add(row.contact_id);
  }
  return { inbox: next, wants };
}

interface Draft {
  conversations: Map<string, Conversation>;
  contacts: Map<string, Contact>;
  reads: Map<string, ConversationRead>;
  threads: Map<string, Thread>;
  touched: Set<string>;
  gone: Set<string>;
}

function applyOne(draft: Draft, event: LiveEvent, me: string, wants: Wants): void {
  const id = event.entity_id;
  switch (event.table) {
    case "conversations":
      applyRow(draft, event, draft.conversations, conversation, wants.conversations);
      break;
    case "contacts":
      // Contacts of no conversation are not kept here; lists of contacts are read again.
      if (id && draft.contacts.has(id)) applyRow(draft, event, draft.contacts, contact, wants.contacts);
      break;
    case "messages":
      applyMessage(draft, event, wants);
      break;
    case "conversation_reads": {
      const row = parsed(conversationRead, event);
      if (row && row.user_id === me && event.op !== "DELETE") mergeRead(draft.reads, row);
      break;
    }
    default:
      break;
  }
  wants.tables.add(event.table);
}

function parsed<T>(parser: Parser<T>, event: LiveEvent): T | null {
  if (event.payload.row === null || event.payload.truncated) return null;
  try {
    return parser(event.payload.row, event.table);
  } catch (error) {
    if (error instanceof ParseError) return null;
    throw error;
  }
}

function applyRow<T extends { id: string; version: number }>(
  draft: Draft, event: LiveEvent, rows: Map<string, T>, parser: Parser<T>, wanted: Set<string>,
): void {
  const id = event.entity_id;
  if (event.op === "DELETE") {
    if (!id) return;
    rows.delete(id);
    draft.gone.add(id);
    draft.touched.delete(id);
    return;
  }
  const row = parsed(parser, event);
  if (row) {
    draft.touched.add(row.id);
    draft.gone.delete(row.id);
    keepNewest(rows, row);
  } else if (id) {
    wanted.add(id);
  }
}

function keepNewest<T extends { id: string; version: number }>(rows: Map<string, T>, row: T): void {
  const known = rows.get(row.id);
  if (!known || row.version >= known.version) rows.set(row.id, row);
}

function mergeRead(reads: Map<string, ConversationRead>, row: ConversationRead): void {
  const known = reads.get(row.conversation_id);
  if (!known || row.conv_seq >= known.conv_seq) reads.set(row.conversation_id, row);
}

function applyMessage(draft: Draft, event: LiveEvent, wants: Wants): void {
  const conversationId = event.conversation_id;
  const thread = conversationId ? draft.threads.get(conversationId) : undefined;
  if (event.op === "DELETE") {
    if (!event.entity_id) return;
    draft.gone.add(event.entity_id);
    if (thread && conversationId) {
      const messages = thread.messages.filter((one) => one.id !== event.entity_id);
      draft.threads.set(conversationId, { ...thread, messages });
    }
    return;
  }
  const row = parsed(message, event);
  if (row) draft.touched.add(row.id);
  if (!thread || !conversationId) return;
  if (row) draft.threads.set(conversationId, putMessages(thread, [row]));
  else if (event.entity_id) wants.messages.add(event.entity_id);
}

/** Puts rows into a thread: in their place, newest version wins, and nothing older than the loaded part is let in
 * (it would stand before a hole). */
export function putMessages(thread: Thread, rows: readonly Message[]): Thread {
  const byId = new Map(thread.messages.map((one) => [one.id, one]));
  const first = thread.messages[0];
  let changed = false;
  for (const row of rows) {
    const known = byId.get(row.id);
    if (known && known.version > row.version) continue;
    if (!known && first && !thread.complete && compareMessages(row, first) < 0) continue;
    byId.set(row.id, row);
    changed = true;
  }
  if (!changed) return thread;
  return { ...thread, messages: [...byId.values()].sort(compareMessages) };
}

export function compareMessages(a: Message, b: Message): number {
  if (a.conv_seq !== b.conv_seq) return a.conv_seq - b.conv_seq;
  if (a.created_at !== b.created_at) return a.created_at < b.created_at ? -1 : 1;
  return a.id < b.id ? -1 : 1;
}

// ---- snapshots -------------------------------------------------------------------------------------------------

/** Takes a page of conversations read after `welcome`. With `replace`, rows that it does not hold and that no event
 * brought since are dropped: they went away while nobody was listening. */
export function takeConversations(inbox: Inbox, rows: readonly Conversation[], replace: boolean): Inbox {
  const kept = new Map(
    replace ? [...inbox.conversations].filter(([id]) => inbox.touched.has(id)) : inbox.conversations,
  );
  for (const row of rows) if (!inbox.gone.has(row.id)) keepNewest(kept, row);
  return { ...inbox, conversations: kept };
}

export function takeContacts(inbox: Inbox, rows: readonly Contact[]): Inbox {
  const contacts = new Map(inbox.contacts);
  for (const row of rows) if (!inbox.gone.has(row.id)) keepNewest(contacts, row);
  return { ...inbox, contacts };
}

export function takeReads(inbox: Inbox, rows: readonly ConversationRead[]): Inbox {
  const reads = new Map(inbox.reads);
  for (const row of rows) mergeRead(reads, row);
  return { ...inbox, reads };
}

/** Begins to keep a conversation's messages; to be called before its newest page is asked for. */
export function openThread(inbox: Inbox, conversationId: string): Inbox {
  if (inbox.threads.has(conversationId)) return inbox;
  return withThread(inbox, conversationId, { messages: [], complete: false, loaded: false });
}

/** The newest page of a thread. With `replace`, what was loaded before is dropped except what events brought. */
export function takeThread(
  inbox: Inbox, conversationId: string, rows: readonly Message[], complete: boolean, replace: boolean,
): Inbox {
  const known = inbox.threads.get(conversationId);
  const fresh = rows.filter((row) => !inbox.gone.has(row.id));
  const base: Thread = { messages: fresh.toSorted(compareMessages), complete, loaded: true };
  const old = (known?.messages ?? []).filter((one) => !replace || inbox.touched.has(one.id));
  return withThread(inbox, conversationId, putMessages(base, old));
}

/** An older page, put before what is loaded. */
export function takeOlder(inbox: Inbox, conversationId: string, rows: readonly Message[], complete: boolean): Inbox {
  const known = inbox.threads.get(conversationId);
  if (!known) return inbox;
  const fresh = rows.filter((row) => !inbox.gone.has(row.id));
  const opened: Thread = { ...known, complete: true };
  return withThread(inbox, conversationId, { ...putMessages(opened, fresh), complete });
}

/** Single rows that were read because an event did not bring them. */
export function takeMessages(inbox: Inbox, rows: readonly Message[]): Inbox {
  let next = inbox;
  for (const row of rows) {
    const thread = next.threads.get(row.conversation_id);
    if (thread && !next.gone.has(row.id)) next = withThread(next, row.conversation_id, putMessages(thread, [row]));
  }
  return next;
}

/** Threads that are not open any more are read again when somebody comes back to them. */
export function dropThreads(inbox: Inbox, keep: ReadonlySet<string>): Inbox {
  return { ...inbox, threads: new Map([...inbox.threads].filter(([id]) => keep.has(id))) };
}

function withThread(inbox: Inbox, id: string, thread: Thread): Inbox {
  return { ...inbox, threads: new Map(inbox.threads).set(id, thread) };
}

/** Inbound messages that this user has not read. */
export function unreadCount(row: Conversation, read: ConversationRead | undefined): number {
  return Math.max(0, row.inbound_count - (read?.inbound_count ?? 0));
}

/** Marks as read at once; the hub's own row follows and agrees. */
export function markRead(inbox: Inbox, conversationId: string, me: string, seq: number): Inbox {
  const row = inbox.conversations.get(conversationId);
  if (!row) return inbox;
  const reads = new Map(inbox.reads);
  mergeRead(reads, { user_id: me, conversation_id: conversationId, conv_seq: seq, inbound_count: row.inbound_count });
  return { ...inbox, reads };
}
