import { describe, expect, test } from "vitest";
import type { Conversation } from "../src/api/models";
import { newsIn } from "../src/app/news";
import type { ServerFrame } from "../src/realtime/frames";
import { parseFrame } from "../src/realtime/frames";
import {
  type Inbox, applyEvents, beginResync, emptyInbox, follow, markRead, openThread, putMessages, takeConversations, takeOlder,
  takeThread, unreadCount,
} from "../src/realtime/reducer";
import { contact, conversation, event, message } from "./rows";

const session = { id: "s", user_id: "me", organization_id: "o", role: "OWNER", permissions: [] };
const welcome = (resumed: boolean, seq: number, epoch = "e1"): ServerFrame => ({
  type: "welcome", resumed, reason: null, epoch, seq, session, presence: [],
});
const at = (seq: number): ServerFrame => ({ type: "event", seq, event: event("contacts", { id: "p1" }) });

describe("the cursor", () => {
  test("a new stream starts at the welcome's position and asks for snapshots", () => {
    expect(follow(null, welcome(false, 41))).toEqual({
      cursor: { epoch: "e1", seq: 41 }, deliver: null, resync: true,
    });
  });

  test("a resumed stream keeps its own position, because the missing events follow", () => {
    const step = follow({ epoch: "e1", seq: 30 }, welcome(true, 41));
    expect(step).toEqual({ cursor: { epoch: "e1", seq: 30 }, deliver: null, resync: false });
    expect(follow(step.cursor, at(31)).deliver).not.toBeNull();
  });

  test("N05 an event at or below the cursor is ignored, jumps are normal, and the cursor never goes back", () => {
    let cursor = follow(null, welcome(false, 10)).cursor;
    const delivered: number[] = [];
    for (const seq of [11, 11, 10, 15, 14, 15, 16]) {
      const step = follow(cursor, at(seq));
      if (step.deliver) delivered.push(seq);
      expect(step.cursor?.seq).toBeGreaterThanOrEqual(cursor?.seq ?? 0);
      cursor = step.cursor;
    }
    expect(delivered).toEqual([11, 15, 16]);
  });

  test("pos moves the cursor without an event", () => {
    const step = follow({ epoch: "e1", seq: 5 }, { type: "pos", seq: 9 });
    expect(step).toEqual({ cursor: { epoch: "e1", seq: 9 }, deliver: null, resync: false });
    expect(follow(step.cursor, at(9)).deliver).toBeNull();
  });

  test("resync may go back, names the new epoch and asks for snapshots", () => {
    const step = follow({ epoch: "e1", seq: 90 }, { type: "resync", reason: "rewind", seq: 7, epoch: "e2" });
    expect(step).toEqual({ cursor: { epoch: "e2", seq: 7 }, deliver: null, resync: true });
  });

  test("an event before any welcome is nothing", () => {
    expect(follow(null, at(1))).toEqual({ cursor: null, deliver: null, resync: false });
  });
});

describe("frames", () => {
  test("a kind of a newer hub is skipped, a broken frame is refused", () => {
    expect(parseFrame('{"type":"confetti"}')).toBeUndefined();
    expect(() => parseFrame('{"type":"pos","seq":"12"}')).toThrow(/frame.seq/);
    expect(() => parseFrame("[]")).toThrow();
  });
});

describe("rows", () => {
  test("an older version never replaces a newer one, in either order", () => {
    const old = conversation({ version: 3, tags: ["old"] });
    const fresh = conversation({ version: 4, tags: ["new"] });
    for (const order of [[old, fresh], [fresh, old]]) {
      const { inbox } = applyEvents(emptyInbox, order.map((row) => event("conversations", row)), "me");
      expect(inbox.conversations.get("c1")?.tags).toEqual(["new"]);
    }
  });

  test("a snapshot read while events arrive does not undo them", () => {
    let inbox = beginResync(takeConversations(emptyInbox, [conversation({ id: "gone-meanwhile" })], false));
    inbox = applyEvents(inbox, [event("conversations", conversation({ id: "c2", version: 9 }))], "me").inbox;
    inbox = takeConversations(inbox, [conversation(), conversation({ id: "c2", version: 8 })], true);
    expect([...inbox.conversations.keys()].sort()).toEqual(["c1", "c2"]);
    expect(inbox.conversations.get("c2")?.version).toBe(9);
  });

  test("a snapshot does not bring back what an event deleted", () => {
    const deletion = event("conversations", { id: "c1" }, { op: "DELETE" });
    const inbox = applyEvents(beginResync(emptyInbox), [deletion], "me").inbox;
    expect(takeConversations(inbox, [conversation()], true).conversations.size).toBe(0);
  });

  test("a cut off row is asked for, and so is the contact of a new conversation", () => {
    const cut = event("conversations", conversation(), {
      payload: { row: null, changed: null, truncated: true },
    });
    expect([...applyEvents(emptyInbox, [cut], "me").wants.conversations]).toEqual(["c1"]);
    const { wants } = applyEvents(emptyInbox, [event("conversations", conversation())], "me");
    expect([...wants.contacts]).toEqual(["p1"]);
  });

  test("contacts of no conversation are not collected", () => {
    const { inbox, wants } = applyEvents(emptyInbox, [event("contacts", contact())], "me");
    expect(inbox.contacts.size).toBe(0);
    expect(wants.tables.has("contacts")).toBe(true);
  });

  test("read marks of colleagues are not mine", () => {
    const row = { user_id: "other", conversation_id: "c1", conv_seq: 4, inbound_count: 4 };
    expect(applyEvents(emptyInbox, [event("conversation_reads", row)], "me").inbox.reads.size).toBe(0);
    const mine = applyEvents(emptyInbox, [event("conversation_reads", { ...row, user_id: "me" })], "me").inbox;
    expect(unreadCount(conversation({ inbound_count: 6 }), mine.reads.get("c1"))).toBe(2);
  });

  test("reading clears the counter at once", () => {
    const inbox = takeConversations(emptyInbox, [conversation({ inbound_count: 5 })], false);
    const read = markRead(inbox, "c1", "me", 9);
    expect(unreadCount(conversation({ inbound_count: 5 }), read.reads.get("c1"))).toBe(0);
  });
});

describe("threads", () => {
  test("a message that arrives while the page is on its way is kept", () => {
    let inbox = openThread(beginResync(emptyInbox), "c1");
    inbox = applyEvents(inbox, [event("messages", message({ conv_seq: 3 }))], "me").inbox;
    inbox = takeThread(inbox, "c1", [message({ conv_seq: 2 }), message({ conv_seq: 1 })], true, true);
    expect(inbox.threads.get("c1")?.messages.map((one) => one.conv_seq)).toEqual([1, 2, 3]);
  });

  test("shuffled events give the same thread as ordered ones", () => {
    const rows = Array.from({ length: 8 }, (_, index) => message({ conv_seq: index + 1 }));
    const statuses = rows.map((row) => ({ ...row, version: 2, content: `${row.content}!` }));
    const events = [...rows, ...statuses].map((row) => event("messages", row));
    const start = takeThread(openThread(emptyInbox, "c1"), "c1", [], true, true);
    const expected = applyEvents(start, events, "me").inbox.threads.get("c1");
    for (let turn = 1; turn < events.length; turn += 1) {
      const turned = [...events.slice(turn), ...events.slice(0, turn)].reverse();
      expect(applyEvents(start, turned, "me").inbox.threads.get("c1")).toEqual(expected);
    }
  });

  test("a change of a message older than the loaded part leaves no hole", () => {
    const thread = { messages: [message({ conv_seq: 50 })], complete: false, loaded: true };
    expect(putMessages(thread, [message({ conv_seq: 2 })])).toBe(thread);
  });

  test("an older page goes before what is loaded", () => {
    let inbox = takeThread(openThread(emptyInbox, "c1"), "c1", [message({ conv_seq: 9 })], false, true);
    inbox = takeOlder(inbox, "c1", [message({ conv_seq: 8 }), message({ conv_seq: 7 })], true);
    const thread = inbox.threads.get("c1");
    expect(thread?.messages.map((one) => one.conv_seq)).toEqual([7, 8, 9]);
    expect(thread?.complete).toBe(true);
  });
});

describe("desktop notices", () => {
  const now = Date.parse("2026-11-24T12:00:00Z");
  const inbox = (...rows: Conversation[]): Inbox => ({ ...emptyInbox, conversations: new Map(rows.map((row) => [row.id, row])) });
  const row = (fields: Partial<Conversation> = {}) =>
    conversation({ inbound_count: 1, last_inbound_at: "2026-11-24T11:59:50Z", ...fields });
  const ids = (before: Inbox, after: Inbox) => newsIn(before, after, "me", now).map((one) => one.id);

  test("are due for what a customer just wrote to me or to nobody", () => {
    const before = inbox(row());
    expect(ids(before, inbox(row({ inbound_count: 2, version: 2 })))).toEqual(["c1"]);
    expect(ids(before, inbox(row({ inbound_count: 2, assignee_id: "me" })))).toEqual(["c1"]);
    expect(ids(inbox(), inbox(row()))).toEqual(["c1"]);
  });

  test("are not due for colleagues' conversations, for old messages, or for what is no message of a customer", () => {
    const before = inbox(row());
    expect(ids(before, inbox(row({ inbound_count: 2, assignee_id: "you" })))).toEqual([]);
    expect(ids(inbox(), inbox(row({ last_inbound_at: "2026-11-24T11:00:00Z" })))).toEqual([]);
    expect(ids(before, inbox(row({ version: 2, tags: ["vip"] })))).toEqual([]);
    expect(ids(before, before)).toEqual([]);
  });
});
