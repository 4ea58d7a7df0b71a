/** What the hub tells everyone before sign-in. */
import { type Parsed, nullable, object, str, withDefault } from "../lib/parse";
import { send } from "./http";

const config = object({
  name: withDefault(str, "ConnectGain Hub"),
  version: withDefault(str, ""),
  anon_key: nullable(str),
  demo: nullable(object({ email: str, password: str, phone_url: nullable(str) })),
});
export type Config = Parsed<typeof config>;

export async function fetchConfig(): Promise<Config> {
  return config((await send("/config.json")).body, "config");
}
