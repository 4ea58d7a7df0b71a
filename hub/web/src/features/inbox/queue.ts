/** Which conversations a list shows, and in which order. Pure. */
import type { Contact, Conversation } from "../../api/models";
import { contactName } from "../../lib/people";
import { matches } from "../../lib/text";
import { type Queue, inQueue } from "../../realtime/live";

const at = (row: Conversation): string => row.last_message_at ?? row.created_at;

/** Rows of the queue that match the search, newest activity first. */
export function selectQueue(
  conversations: ReadonlyMap<string, Conversation>,
  contacts: ReadonlyMap<string, Contact>,
  queue: Queue,
  me: string,
  search: string,
): Conversation[] {
  const wanted = search.trim();
  const found = [...conversations.values()].filter((row) => {
    if (!inQueue(row, queue, me)) return false;
    if (!wanted) return true;
    const person = contacts.get(row.contact_id);
    const text = [contactName(person, ""), ...(person?.phones ?? []), ...(person?.emails ?? []), ...row.tags];
    return matches(text.join(" "), wanted);
  });
  return found.sort((a, b) => (at(a) === at(b) ? (a.id < b.id ? 1 : -1) : at(a) < at(b) ? 1 : -1));
}

/** While somebody points at the list, rows keep their places: `frozen` is the order they had. Rows that left are left
 * out; rows that came are counted in `fresh` and wait, except older ones, which a scroller loaded, and which stand
 * below all others anyway. */
export function holdOrder(
  rows: readonly Conversation[], frozen: readonly string[] | null,
): { rows: readonly Conversation[]; fresh: number } {
  if (!frozen) return { rows, fresh: 0 };
  const byId = new Map(rows.map((row) => [row.id, row]));
  const held = new Set(frozen);
  const kept = frozen.flatMap((id) => byId.get(id) ?? []);
  const older = rows.slice(rows.findLastIndex((row) => held.has(row.id)) + 1);
  return { rows: [...kept, ...older], fresh: rows.length - kept.length - older.length };
}

export function countQueue(conversations: ReadonlyMap<string, Conversation>, queue: Queue, me: string): number {
  let total = 0;
  for (const row of conversations.values()) if (inQueue(row, queue, me)) total += 1;
  return total;
}
