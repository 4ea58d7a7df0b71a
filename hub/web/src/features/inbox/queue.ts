/** Which conversations a list shows, and in which order. Pure. */
import type { Contact, Conversation } from "../../api/models";
import { searchText } from "../../lib/people";
import { finder, fold } from "../../lib/text";
import { type Queue, inQueue } from "../../realtime/live";

const at = (row: Conversation): string => row.last_message_at ?? row.created_at;

function newerFirst(a: Conversation, b: Conversation): number {
  if (at(a) === at(b)) return a.id < b.id ? 1 : -1;
  return at(a) < at(b) ? 1 : -1;
}

/** Rows of the queue, newest activity first. `before` is the list that the former rows gave: what did not change since
 * keeps its order without being compared, so that one message among ten thousand conversations costs one look at each. */
export function sortQueue(
  conversations: ReadonlyMap<string, Conversation>, queue: Queue, me: string, before: readonly Conversation[] = [],
): Conversation[] {
  const kept = before.filter((row) => conversations.get(row.id) === row && inQueue(row, queue, me));
  const held = new Set(kept);
  const moved: Conversation[] = [];
  for (const row of conversations.values()) if (!held.has(row) && inQueue(row, queue, me)) moved.push(row);
  if (moved.length === 0) return kept;
  moved.sort(newerFirst);
  if (kept.length === 0) return moved;
  const merged: Conversation[] = [];
  let next = 0;
  for (const row of kept) {
    for (let one = moved[next]; one && newerFirst(one, row) < 0; one = moved[next]) {
      merged.push(one);
      next += 1;
    }
    merged.push(row);
  }
  return [...merged, ...moved.slice(next)];
}

/** Those that match the search, in the same order. */
export function searchQueue(
  rows: readonly Conversation[], contacts: ReadonlyMap<string, Contact>, search: string,
): readonly Conversation[] {
  if (search.trim() === "") return rows;
  const found = finder(search);
  return rows.filter((row) => {
    const person = contacts.get(row.contact_id);
    return found(`${person ? searchText(person) : ""} ${fold(row.tags.join(" "))}`);
  });
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
