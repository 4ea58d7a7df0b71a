/** Which conversations a notice is due for. Pure. */
import type { Conversation } from "../api/models";
import type { Inbox } from "../realtime/reducer";

/** What came longer ago was there before, and is only being read now. */
const FRESH_MS = 60_000;

/** Conversations that a customer has just written to, compared with the inbox before. */
export function newsIn(before: Inbox, now: Inbox, me: string, at: number): Conversation[] {
  if (before.conversations === now.conversations) return [];
  const found: Conversation[] = [];
  for (const row of now.conversations.values()) {
    const old = before.conversations.get(row.id);
    if (old === row || row.inbound_count <= (old?.inbound_count ?? 0)) continue;
    if (row.assignee_id !== null && row.assignee_id !== me) continue;
    if (row.last_inbound_at === null || at - Date.parse(row.last_inbound_at) > FRESH_MS) continue;
    found.push(row);
  }
  return found;
}
