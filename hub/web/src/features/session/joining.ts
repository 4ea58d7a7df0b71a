/** Invitations as whoever has the link sees them. */
import { queryOptions } from "@tanstack/react-query";
import { ApiError, send } from "../../api/http";
import { enterOrganization } from "../../api/organizations";
import { sendSigned, signIn } from "../../api/session";
import { type Parsed, bool, object, str } from "../../lib/parse";

const standing = object({ organization: object({ name: str }), email: str, role: str, expires_at: str, has_account: bool });
export type Standing = Parsed<typeof standing>;
const joined = object({ organization: object({ id: str }) });

export const standingQuery = (token: string) =>
  queryOptions({
    queryKey: ["invitation", token] as const,
    queryFn: async ({ signal }) =>
      standing((await send("/functions/v1/check-invitation", { method: "POST", body: { token }, signal })).body, "check-invitation"),
  });

/** The secret of a link, behind its `#`. */
export function tokenIn(hash: string): string | null {
  return new URLSearchParams(hash.replace(/^#/, "")).get("token") || null;
}

export interface Newcomer {
  password: string;
  first_name: string;
  last_name: string;
}

/** Joins with a password and signs in with it. */
export async function joinAs(token: string, email: string, who: Newcomer): Promise<void> {
  const answer = await send("/functions/v1/accept-invitation", { method: "POST", body: { token, email, ...who } });
  await signIn(email, who.password);
  await enterOrganization(joined(answer.body, "accept-invitation").organization.id);
}

/** Joins as the signed-in person. */
export async function joinSignedIn(token: string, email: string): Promise<void> {
  const answer = await sendSigned("/functions/v1/accept-invitation", { method: "POST", body: { token, email } });
  await enterOrganization(joined(answer.body, "accept-invitation").organization.id);
}

export type Refusal = "over" | "used" | "wrong" | "otherAddress" | "weak" | "tooMany" | "away";

/** Why an invitation could not be opened or accepted. Bugs are no refusals and go on. */
export function refusalOf(error: unknown): Refusal {
  if (!(error instanceof ApiError)) throw error;
  switch (error.status) {
    case 401:
      return "wrong";
    case 403:
      return "otherAddress";
    case 404:
      return "over";
    case 409:
      return "used";
    case 422:
      return "weak";
    case 429:
      return "tooMany";
    default:
      return "away";
  }
}
