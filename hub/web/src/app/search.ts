/** What the inbox's address says besides the conversation. */
import { QUEUES, type Queue } from "../realtime/live";

export interface InboxSearch {
  queue?: Queue | undefined;
  q?: string | undefined;
}

export function inboxSearch(search: Record<string, unknown>): InboxSearch {
  const wanted = search["queue"];
  const queue = QUEUES.find((one) => one === wanted);
  const q = search["q"];
  return {
    ...(queue ? { queue } : {}),
    ...(typeof q === "string" && q !== "" ? { q } : {}),
  };
}
