/** Which conversations a customer had besides the open one. Pure. */
import type { Conversation } from "../../api/models";

const at = (row: Conversation): string => row.last_message_at ?? row.created_at;

/** What was read once, with what the live inbox knows better; newest first. */
export function earlierTalks(
  stored: readonly Conversation[] | undefined,
  live: ReadonlyMap<string, Conversation>,
  contactId: string,
  except: string,
): Conversation[] {
  const rows = new Map((stored ?? []).map((row) => [row.id, row]));
  for (const row of live.values()) {
    if (row.contact_id !== contactId) continue;
    const known = rows.get(row.id);
    if (!known || row.version >= known.version) rows.set(row.id, row);
  }
  rows.delete(except);
  return [...rows.values()].sort((a, b) => (at(a) < at(b) ? 1 : at(a) > at(b) ? -1 : 0));
}
