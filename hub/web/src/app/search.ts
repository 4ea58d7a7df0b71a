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

/** What is looked for in the audit log: kind of thing, actor, first and last day. */
export interface AuditSearch {
  what?: string | undefined;
  who?: string | undefined;
  from?: string | undefined;
  to?: string | undefined;
}

export function auditSearch(search: Record<string, unknown>): AuditSearch {
  const pick = (name: keyof AuditSearch, shape: RegExp): AuditSearch => {
    const value = search[name];
    return typeof value === "string" && shape.test(value) ? { [name]: value } : {};
  };
  const day = /^\d{4}-\d\d-\d\d$/;
  return { ...pick("what", /^[a-z_]+$/), ...pick("who", /^[0-9a-f-]{36}$/), ...pick("from", day), ...pick("to", day) };
}
