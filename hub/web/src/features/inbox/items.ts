/** A thread as a list of things to draw: days, the line above what is new, messages, and what is not sent yet. Pure. */
import type { Message } from "../../api/models";
import { sameDay } from "../../lib/time";
import type { Unsent } from "../../realtime/outbox";

export type Item =
  | { kind: "day"; key: string; at: string }
  | { kind: "new"; key: string }
  | { kind: "message"; key: string; message: Message; joined: boolean }
  | { kind: "unsent"; key: string; unsent: Unsent; joined: boolean };

/** Messages of one sender within this time stand close together. */
const JOIN_MS = 5 * 60_000;

export const timeOf = (message: Message): string => message.occurred_at ?? message.created_at;

function speaker(message: Message): string {
  return message.direction === "INBOUND" ? "customer" : `${message.source}:${message.sender_id ?? ""}`;
}

/** `newAfter` is the position up to which everything was read when the thread was opened; null = no line. A message
 * keeps its key from composing to delivery (its client_ref), so that its bubble never jumps. */
export function threadItems(
  messages: readonly Message[], outbox: readonly Unsent[], newAfter: number | null, me: string,
): Item[] {
  const items: Item[] = [];
  const landed = new Set<string>();
  let before: { at: string; speaker: string } | null = null;
  let lineDrawn = newAfter === null;
  for (const message of messages) {
    const at = timeOf(message);
    if (message.client_ref) landed.add(message.client_ref);
    let joined = false;
    if (!before || !sameDay(before.at, at)) items.push({ kind: "day", key: `day:${at.slice(0, 10)}:${message.id}`, at });
    else joined = before.speaker === speaker(message) && Date.parse(at) - Date.parse(before.at) < JOIN_MS;
    if (!lineDrawn && newAfter !== null && message.direction === "INBOUND" && message.conv_seq > newAfter) {
      items.push({ kind: "new", key: "new" });
      lineDrawn = true;
      joined = false;
    }
    items.push({ kind: "message", key: message.client_ref ?? message.id, message, joined });
    before = { at, speaker: speaker(message) };
  }
  for (const unsent of outbox) {
    if (landed.has(unsent.clientRef)) continue;
    const at = new Date(unsent.createdAt).toISOString();
    if (!before || !sameDay(before.at, at)) items.push({ kind: "day", key: `day:unsent:${unsent.clientRef}`, at });
    const joined = before?.speaker === `agent:${me}` && unsent.createdAt - Date.parse(before.at) < JOIN_MS;
    items.push({ kind: "unsent", key: unsent.clientRef, unsent, joined });
    before = { at, speaker: `agent:${me}` };
  }
  return items;
}
