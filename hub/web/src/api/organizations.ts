/** The organizations of the signed-in person. */
import { queryOptions } from "@tanstack/react-query";
import { list, object, str } from "../lib/parse";
import { sendSigned } from "./session";

const one = object({ id: str, name: str });

export const organizationsQuery = queryOptions({
  queryKey: ["rest", "organizations", "mine"] as const,
  queryFn: async ({ signal }) =>
    object({ organizations: list(one) })(
      (await sendSigned("/functions/v1/list-organizations", { signal })).body, "list-organizations",
    ).organizations,
});

/** Moves this session to another organization. What the page knows is the former's: load it anew afterwards. */
export async function enterOrganization(organizationId: string): Promise<void> {
  await sendSigned("/functions/v1/switch-organization", { method: "POST", body: { organizationId } });
}

/** The session moves to the new one. */
export async function createOrganization(name: string, timezone: string, locale: string): Promise<void> {
  await sendSigned("/functions/v1/create-organization", { method: "POST", body: { name, timezone, locale } });
}

/** Ends one's own membership, and the session with it. */
export async function leaveOrganization(): Promise<void> {
  await sendSigned("/functions/v1/leave-organization", { method: "POST", body: {} });
}
