/** A thread as a list of things to draw: days, the line above what is new, messages, and what is not sent yet. Pure. */
import type { Message, Note } from "../../api/models";
import { daysBetween } from "../../lib/time";
import type { Unsent } from "../../realtime/outbox";

export type Item =
  | { kind: "day"; key: string; at: string }
  | { kind: "new"; key: string }
  | { kind: "note"; key: string; note: Note }
  | { kind: "message"; key: string; message: Message; joined: boolean }
  | { kind: "unsent"; key: string; unsent: Unsent; joined: boolean };

/** Messages of one sender within this time stand close together. */
const JOIN_MS = 5 * 60_000;

export const timeOf = (message: Message): string => message.occurred_at ?? message.created_at;

/** Moment and calendar day of what stands in a thread. Worked out once: a long thread is laid out with every message. */
interface Stamp {
  ms: number;
  day: number;
}
const stamps = new WeakMap<object, Stamp>();

function stampOf(owner: object, at: string | number): Stamp {
  const known = stamps.get(owner);
  if (known) return known;
  const made = { ms: new Date(at).getTime(), day: daysBetween(0, at) };
  stamps.set(owner, made);
  return made;
}

function speaker(message: Message): string {
  return message.direction === "INBOUND" ? "customer" : `${message.source}:${message.sender_id ?? ""}`;
}

/** `newAfter` is the position up to which everything was read when the thread was opened; null = no line. A message
 * keeps its key from composing to delivery (its client_ref), so that its bubble never jumps. `notes` stand between the
 * messages by their time, oldest first. */
export function threadItems(
  messages: readonly Message[], outbox: readonly Unsent[], newAfter: number | null, me: string,
  notes: readonly Note[] = [],
): Item[] {
  const items: Item[] = [];
  const landed = new Set<string>();
  let before: (Stamp & { speaker: string }) | null = null;
  let lineDrawn = newAfter === null;
  let noted = 0;
  /** Puts in the notes that were written before this moment. */
  const putNotes = (until: number) => {
    for (let note = notes[noted]; note; note = notes[noted]) {
      const stamp = stampOf(note, note.created_at);
      if (stamp.ms >= until) return;
      noted += 1;
      if (before?.day !== stamp.day) items.push({ kind: "day", key: `day:${note.id}`, at: note.created_at });
      items.push({ kind: "note", key: `note:${note.id}`, note });
      before = { ...stamp, speaker: "note" };
    }
  };
  for (const message of messages) {
    const at = timeOf(message);
    const stamp = stampOf(message, at);
    putNotes(stamp.ms);
    if (message.client_ref) landed.add(message.client_ref);
    const by = speaker(message);
    let joined = false;
    if (before?.day !== stamp.day) items.push({ kind: "day", key: `day:${at.slice(0, 10)}:${message.id}`, at });
    else joined = before.speaker === by && stamp.ms - before.ms < JOIN_MS;
    if (!lineDrawn && newAfter !== null && message.direction === "INBOUND" && message.conv_seq > newAfter) {
      items.push({ kind: "new", key: "new" });
      lineDrawn = true;
      joined = false;
    }
    items.push({ kind: "message", key: message.client_ref ?? message.id, message, joined });
    before = { ...stamp, speaker: by };
  }
  putNotes(Infinity);
  for (const unsent of outbox) {
    if (landed.has(unsent.clientRef)) continue;
    const stamp = stampOf(unsent, unsent.createdAt);
    const at = new Date(unsent.createdAt).toISOString();
    if (before?.day !== stamp.day) items.push({ kind: "day", key: `day:unsent:${unsent.clientRef}`, at });
    const joined = before?.speaker === `agent:${me}` && stamp.ms - before.ms < JOIN_MS;
    items.push({ kind: "unsent", key: unsent.clientRef, unsent, joined });
    before = { ...stamp, speaker: `agent:${me}` };
  }
  return items;
}
