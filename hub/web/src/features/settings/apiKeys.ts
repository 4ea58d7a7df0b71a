/** Keys of the organization: read, made, rotated and revoked. */
import { queryOptions } from "@tanstack/react-query";
import { sendSigned } from "../../api/session";
import { type Parsed, list, nullable, object, oneOf, record, str, withDefault } from "../../lib/parse";

const apiKey = object({
  id: str,
  name: str,
  key_prefix: str,
  permissions: withDefault(record, {}),
  created_at: str,
  expires_at: nullable(str),
  last_used_at: nullable(str),
  revoked_at: nullable(str),
  status: oneOf("active", "expired", "revoked"),
});
export type ApiKey = Parsed<typeof apiKey>;

export const apiKeysQuery = queryOptions({
  queryKey: ["rest", "api_keys", "all"] as const,
  queryFn: async ({ signal }) =>
    object({ api_keys: list(apiKey) })((await sendSigned("/functions/v1/list-api-keys", { signal })).body, "list-api-keys").api_keys,
});

const made = object({ api_key: str });

async function make(name: string, body: Record<string, unknown>): Promise<string> {
  // The answer is the only place where the key itself ever stands.
  return made((await sendSigned(`/functions/v1/${name}`, { method: "POST", body })).body, name).api_key;
}

const life = (days: number | null) => (days === null ? {} : { expires_in_days: days });

export function generateApiKey(name: string, permissions: Record<string, boolean>, days: number | null): Promise<string> {
  return make("generate-api-key", { name, permissions, ...life(days) });
}

export function rotateApiKey(id: string, overlapHours: number, days: number | null): Promise<string> {
  return make("rotate-api-key", { id, overlap_hours: overlapHours, ...life(days) });
}

export async function revokeApiKey(id: string): Promise<void> {
  await sendSigned("/functions/v1/revoke-api-key", { method: "POST", body: { id } });
}
