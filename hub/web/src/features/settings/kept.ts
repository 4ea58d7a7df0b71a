/** Signed webhook deliveries that the hub could not apply: how they are read, and what comes next for each. */
import { queryOptions } from "@tanstack/react-query";
import { sendSigned } from "../../api/session";
import type failureWords from "../../i18n/failures.en.json";
import { type Parsed, list, nullable, num, object, oneOf, str } from "../../lib/parse";

/** How many are asked for; as many rows as this mean that there may be more. */
export const MOST_SHOWN = 100;
/** The hub's number of tries before it gives a delivery up. */
export const MOST_TRIES = 10;

export const webhookFailures = object({
  failures: list(
    object({
      id: str,
      channel: str,
      channel_account_id: nullable(str),
      reason: str,
      error: nullable(str),
      state: oneOf("available", "running", "dead"),
      attempts: num,
      due_at: str,
      last_error: nullable(str),
      created_at: str,
      bytes: num,
    }),
  ),
});
export type WebhookFailure = Parsed<typeof webhookFailures>["failures"][number];

export const failuresQuery = queryOptions({
  queryKey: ["webhook-failures"] as const,
  queryFn: async ({ signal }) => {
    const answer = await sendSigned(`/functions/v1/webhook-failures?limit=${MOST_SHOWN}`, { signal });
    return webhookFailures(answer.body, "webhook-failures").failures;
  },
  // No event tells of them. What was refused is not asked for again.
  refetchInterval: (query) => (query.state.status === "error" ? false : 30_000),
});

/** The hub asks for the role, whatever the permissions. False until the role is known: being refused is an error. */
export function seesFailures(session: { role: string | null } | null): boolean {
  return session?.role === "OWNER" || session?.role === "ADMIN";
}

const reasons: Record<keyof typeof failureWords.reason, true> = {
  undecodable: true, parser_error: true, unknown_kind: true, unknown_target: true, refused: true, not_applied: true,
};
export type KnownReason = keyof typeof reasons;

export function isKnownReason(code: string): code is KnownReason {
  return Object.hasOwn(reasons, code);
}

export type Outlook = { kind: "dead" } | { kind: "running" } | { kind: "soon" } | { kind: "next"; at: string };

/** What the hub will do with it. A try that is due waits only for a worker's next round. */
export function outlookOf(one: Pick<WebhookFailure, "state" | "due_at">, now: number): Outlook {
  switch (one.state) {
    case "dead":
      return { kind: "dead" };
    case "running":
      return { kind: "running" };
    case "available":
      return Date.parse(one.due_at) <= now ? { kind: "soon" } : { kind: "next", at: one.due_at };
    default:
      return one.state satisfies never;
  }
}
