/** Rows and events as the hub sends them, with only what a test cares about spelled out. */
import type { Contact, Conversation, Message, Note, Template } from "../src/api/models";
import type { LiveEvent } from "../src/realtime/frames";
import type { Attachment, Unsent } from "../src/realtime/outbox";

export function conversation(fields: Partial<Conversation> = {}): Conversation {
  return {
    id: "c1", contact_id: "p1", channel_account_id: "w1", assignee_id: null, status: "OPEN", tags: [],
    last_message_at: "2026-11-24T10:00:00Z", msg_seq: 0, inbound_count: 0, last_message_preview: null,
    last_message_direction: null, last_inbound_at: null, closed_at: null, version: 1,
    created_at: "2026-11-01T10:00:00Z", ...fields,
  };
}

export function message(fields: Partial<Message> = {}): Message {
  const seq = fields.conv_seq ?? 1;
  return {
    id: `m${seq}`, conversation_id: "c1", sender_id: null, direction: "INBOUND", content: `text ${seq}`,
    status: "RECEIVED", message_type: "text", metadata: {}, client_ref: null, conv_seq: seq, occurred_at: null,
    source: "customer", reply_to_id: null, failure_code: null, failure_reason: null, deleted_at: null, version: 1,
    created_at: `2026-11-24T10:${String(seq % 60).padStart(2, "0")}:00Z`, ...fields,
  };
}

export function contact(fields: Partial<Contact> = {}): Contact {
  return {
    id: "p1", first_name: "Layla", last_name: "Hassan", phones: [], emails: [], tags: [], custom_fields: {},
    opt_in_status: null, job_title: null, lead_status: null, lifecycle_stage: null, city: null, country: null,
    version: 1, created_at: "2026-11-01T10:00:00Z", ...fields,
  };
}

export function event(table: string, row: Record<string, unknown>, fields: Partial<LiveEvent> = {}): LiveEvent {
  const id = typeof row["id"] === "string" ? row["id"] : null;
  const owner = row["conversation_id"];
  return {
    id: 1, type: `${table}.updated`, table, op: "UPDATE", names: [], entity_id: id, contact_id: null,
    conversation_id: typeof owner === "string" ? owner : null, actor: null, at: null,
    payload: { row, changed: null, truncated: false }, ...fields,
  };
}

export function unsent(fields: Partial<Unsent> = {}): Unsent {
  return {
    clientRef: "r1", conversationId: "c1", content: "hello", replyToId: null, createdAt: 1_000, seenSeq: 3,
    state: "queued", attempts: 0, notBefore: 0, errorCode: null, errorText: null, conflictIds: [],
    attachment: null, template: null, ...fields,
  };
}

export function attachment(fields: Partial<Attachment> = {}): Attachment {
  return { key: "f1", kind: "image", name: "sofa.jpg", mime: "image/jpeg", bytes: 40_000, mediaId: null, ...fields };
}

export function template(fields: Partial<Template> = {}): Template {
  return {
    id: "t1", name: "order_update", category: "UTILITY", status: "APPROVED", language: "en", channel_account_id: null,
    components: [{ type: "BODY", text: "Hello {{1}}" }], ...fields,
  };
}

export function note(fields: Partial<Note> = {}): Note {
  return { id: "n1", author_id: "u1", content: "for us", created_at: "2026-11-24T10:01:30Z", ...fields };
}
