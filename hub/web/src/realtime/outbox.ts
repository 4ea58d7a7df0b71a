/** Messages that were composed and not yet answered by the hub: pure steps over a list.
 *
 * Each keeps the `client_ref` it was born with through every try, so that a try whose answer was lost does no harm:
 * the hub answers the second one with the first one's message. Within a conversation they go out in order.
 */
import { type Parsed, list, nullable, num, object, oneOf, record, str } from "../lib/parse";

export const FILE_KINDS = ["image", "video", "audio", "document", "sticker"] as const;
export type FileKind = (typeof FILE_KINDS)[number];

/** A file picked to be sent. Its bytes are kept elsewhere in this browser, under `key`. */
export const attachment = object({
  key: str,
  kind: oneOf(...FILE_KINDS),
  name: str,
  mime: str,
  bytes: num,
  /** The hub's id for it once it is up; null before. */
  mediaId: nullable(str),
});
export type Attachment = Parsed<typeof attachment>;

export const unsent = object({
  clientRef: str,
  conversationId: str,
  content: str,
  replyToId: nullable(str),
  /** Epoch milliseconds. */
  createdAt: num,
  /** Highest position of the conversation that the writer had seen; null once they chose to send anyway. */
  seenSeq: nullable(num),
  /** accepted: the hub has it, its row has not arrived here yet. conflict: a colleague answered meanwhile.
   * refused: the hub said no, and only a person can change that. */
  state: oneOf("queued", "sending", "accepted", "conflict", "refused"),
  attempts: num,
  /** Epoch milliseconds before which it is not tried again. */
  notBefore: num,
  errorCode: nullable(str),
  errorText: nullable(str),
  conflictIds: list(str),
  /** It goes out after its file is up; `content` is then the caption, which may be empty. */
  attachment: nullable(attachment),
  /** An approved template, whose filled-in text `content` is. */
  template: nullable(object({ id: str, variables: record })),
});
export type Unsent = Parsed<typeof unsent>;
export type Outbox = readonly Unsent[];

export type OutboxAction =
  | { type: "composed"; message: Unsent }
  | { type: "sending"; clientRef: string }
  | { type: "accepted"; clientRef: string }
  | { type: "conflict"; clientRef: string; messages: string[] }
  | { type: "refused"; clientRef: string; code: string; text: string }
  | { type: "deferred"; clientRef: string; until: number }
  | { type: "connection-lost" }
  | { type: "uploaded"; key: string; mediaId: string }
  | { type: "upload-refused"; key: string; code: string; text: string }
  | { type: "send-anyway"; clientRef: string }
  | { type: "retry"; clientRef: string }
  | { type: "discard"; clientRef: string }
  | { type: "landed"; clientRefs: ReadonlySet<string> };

export function reduceOutbox(outbox: Outbox, action: OutboxAction): Outbox {
  const change = (clientRef: string, fields: Partial<Unsent>): Outbox =>
    outbox.map((one) => (one.clientRef === clientRef ? { ...one, ...fields } : one));
  switch (action.type) {
    case "composed":
      return [...outbox, action.message];
    case "sending":
      return change(action.clientRef, { state: "sending" });
    case "accepted":
      return change(action.clientRef, { state: "accepted", errorCode: null, errorText: null });
    case "conflict":
      return change(action.clientRef, { state: "conflict", conflictIds: action.messages });
    case "refused":
      return change(action.clientRef, { state: "refused", errorCode: action.code, errorText: action.text });
    case "deferred": {
      const attempts = (outbox.find((one) => one.clientRef === action.clientRef)?.attempts ?? 0) + 1;
      return change(action.clientRef, { state: "queued", attempts, notBefore: action.until });
    }
    case "connection-lost":
      // Nobody knows whether the hub got it. The same client_ref asks again without sending twice.
      return outbox.map((one) => (one.state === "sending" ? { ...one, state: "queued", notBefore: 0 } : one));
    case "uploaded":
      return changeFile(outbox, action.key, { mediaId: action.mediaId }, {});
    case "upload-refused":
      return changeFile(outbox, action.key, {}, {
        state: "refused", errorCode: action.code, errorText: action.text,
      });
    case "send-anyway": {
      // Whoever was asked has seen the answers, also for what they wrote right behind it.
      const asked = outbox.find((one) => one.clientRef === action.clientRef)?.conversationId;
      return outbox.map((one) => {
        if (one.clientRef === action.clientRef) {
          return { ...one, state: "queued", seenSeq: null, conflictIds: [], notBefore: 0 };
        }
        return one.conversationId === asked && one.state === "queued" ? { ...one, seenSeq: null } : one;
      });
    }
    case "retry": {
      const again = { state: "queued", errorCode: null, errorText: null, attempts: 0, notBefore: 0 } as const;
      const one = outbox.find((other) => other.clientRef === action.clientRef);
      // It goes up once more: the hub may not have it any longer.
      const file = one?.attachment && one.errorCode === FILE_GONE ? { ...one.attachment, mediaId: null } : one?.attachment;
      return change(action.clientRef, { ...again, attachment: file ?? null });
    }
    case "discard":
      return outbox.filter((one) => one.clientRef !== action.clientRef);
    case "landed": {
      const left = outbox.filter((one) => !action.clientRefs.has(one.clientRef));
      return left.length === outbox.length ? outbox : left;
    }
    default:
      return unreachable(action);
  }
}

/** The hub refused the file of a message: it gave up an upload that stayed unsent for a day, or the channel does not
 * take it. */
export const FILE_GONE = "FILE_GONE";

function changeFile(outbox: Outbox, key: string, file: Partial<Attachment>, fields: Partial<Unsent>): Outbox {
  if (!outbox.some((one) => one.attachment?.key === key)) return outbox;
  return outbox.map((one) =>
    one.attachment?.key === key ? { ...one, ...fields, attachment: { ...one.attachment, ...file } } : one,
  );
}

/** Whether its file is not up yet. */
export const awaitsFile = (one: Unsent): boolean => one.attachment !== null && one.attachment.mediaId === null;

function unreachable(value: never): never {
  throw new Error(`unhandled action ${JSON.stringify(value)}`);
}

/** Sends on their way at once. The hub closes on a client with more than 60 frames in one go, and a long time without a
 * connection may have left that many conversations with something to send. */
export const AT_ONCE = 8;

/** What may go out now: the first open message of each conversation, unless one before it is on its way or asks
 * something. A refused one holds nobody up. */
export function sendable(outbox: Outbox, now: number): Unsent[] {
  const held = new Set<string>();
  const ready: Unsent[] = [];
  for (const one of outbox) {
    if (held.has(one.conversationId)) continue;
    if (one.state === "queued") {
      held.add(one.conversationId);
      if (one.notBefore <= now && !awaitsFile(one)) ready.push(one);
    } else if (one.state === "sending" || one.state === "conflict") {
      held.add(one.conversationId);
    }
  }
  const onTheirWay = outbox.filter((one) => one.state === "sending").length;
  return ready.slice(0, Math.max(0, AT_ONCE - onTheirWay));
}

/** Milliseconds until something waiting for its time may go out; null when nothing waits. */
export function nextDue(outbox: Outbox, now: number): number | null {
  const times = outbox.filter((one) => one.state === "queued" && one.notBefore > now).map((one) => one.notBefore - now);
  return times.length ? Math.min(...times) : null;
}

/** How many a person would call unsent. On a live connection, one that is just on its way is none of them. */
export function unsentCount(outbox: Outbox, live: boolean): number {
  return outbox.filter((one) => {
    if (one.state === "accepted") return false;
    return !live || one.attempts > 0 || one.state === "conflict" || one.state === "refused";
  }).length;
}

/** Codes after which the same message may be sent again later without anybody's help. */
const TRANSIENT = new Set(["SERVICE_UNAVAILABLE", "RATE_LIMIT_EXCEEDED", "INTERNAL_ERROR", "TIMEOUT", "DISCONNECTED"]);

export function isTransient(code: string): boolean {
  return TRANSIENT.has(code);
}
