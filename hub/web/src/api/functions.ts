/** /functions/v1, as the user. */
import { type Parsed, object, str } from "../lib/parse";
import { sendSigned } from "./session";

const madeKey = object({ api_key: str, key_info: object({ id: str, name: str }) });

/** Makes a key of the organization. The answer is the only place where the key itself ever stands. */
export async function generateApiKey(
  name: string, permissions: Record<string, boolean>,
): Promise<Parsed<typeof madeKey>> {
  const answer = await sendSigned("/functions/v1/generate-api-key", { method: "POST", body: { name, permissions } });
  return madeKey(answer.body, "generate-api-key");
}
