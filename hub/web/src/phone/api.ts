/** The sandbox's phone API (docs/sandbox.md, section 4), parsed. */
import { ApiError, refusal, send } from "../api/http";
import {
  type Parsed, bool, list, nullable, num, object, oneOf, oneOfOr, parseJson, str, tagged, unknown, withDefault,
} from "../lib/parse";

export const phoneMessage = object({
  n: num,
  id: str,
  account: str,
  persona: str,
  from: oneOf("me", "business"),
  type: str,
  content: withDefault(str, ""),
  message: unknown,
  reply_to: nullable(str),
  at: str,
  state: oneOfOr("stored", "stored", "delivered", "read", "sent", "failed"),
  error: nullable(object({ code: num, title: withDefault(str, "") })),
  reactions: withDefault(list(object({ by: str, emoji: str })), []),
  deleted: withDefault(bool, false),
  media_url: nullable(str),
});
export type PhoneMessage = Parsed<typeof phoneMessage>;

const persona = object({
  id: str,
  name: str,
  username: nullable(str),
  phone: nullable(str),
  about: nullable(str),
  stranger: withDefault(bool, false),
  threads: withDefault(
    list(object({ account: str, unread: withDefault(num, 0), last_message: nullable(phoneMessage), last_at: nullable(str) })),
    [],
  ),
});
export type Persona = Parsed<typeof persona>;

const hub = object({ reachable: nullable(bool), detail: nullable(str), pending: withDefault(num, 0) });
export type HubState = Parsed<typeof hub>;

const phone = object({
  accounts: list(object({ account: str, channel: str, name: withDefault(str, ""), display_phone_number: withDefault(str, "") })),
  personas: list(persona),
  hub,
});
export type Phone = Parsed<typeof phone>;

const live = tagged<LiveFrame>("type", {
  hello: object({ type: oneOf("hello"), n: num }),
  message: object({ type: oneOf("message"), message: phoneMessage }),
  update: object({ type: oneOf("update"), message: phoneMessage }),
  state: object({
    type: oneOf("state"), id: str, state: oneOfOr("stored", "stored", "delivered", "read", "sent", "failed"),
  }),
  typing: object({ type: oneOf("typing"), account: str, typing: bool }),
  hub: object({ type: oneOf("hub"), reachable: nullable(bool), detail: nullable(str), pending: withDefault(num, 0) }),
  reset: object({ type: oneOf("reset") }),
});

export type LiveFrame =
  | { type: "hello"; n: number }
  | { type: "message" | "update"; message: PhoneMessage }
  | { type: "state"; id: string; state: PhoneMessage["state"] }
  | { type: "typing"; account: string; typing: boolean }
  | ({ type: "hub" } & HubState)
  | { type: "reset" };

export const parseLive = (text: string): LiveFrame | undefined => live(parseJson(text), "frame");

export async function fetchPhone(): Promise<Phone> {
  return phone((await send("/_ctl/phone")).body, "phone");
}

const page = object({ messages: list(phoneMessage), has_more: withDefault(bool, false) });

export async function fetchMessages(personaId: string, before?: number): Promise<Parsed<typeof page>> {
  const query = new URLSearchParams({ limit: "100", ...(before === undefined ? {} : { before: String(before) }) });
  return page((await send(`/_ctl/phone/${encodeURIComponent(personaId)}/messages?${query}`)).body, "messages");
}

const answer = object({ message: phoneMessage });

/** Something the customer can say: text, or the press of a button that the business sent. */
export type Saying = Record<string, unknown>;

/** The same `ref` again does not say it twice. */
export async function say(personaId: string, account: string, message: Saying, ref: string): Promise<PhoneMessage> {
  const body = { channel: "WHATSAPP_CLOUD", account, persona: personaId, message, client_ref: ref };
  return answer((await send("/_ctl/inbound", { method: "POST", body })).body, "inbound").message;
}

const stored = object({ id: str });

/** Bytes that the customer will send; their id for the message. */
export async function uploadFile(file: File): Promise<string> {
  const query = new URLSearchParams({ filename: file.name });
  const headers = { "Content-Type": file.type || "application/octet-stream", Accept: "application/json" };
  let response: Response;
  try {
    response = await fetch(`/_ctl/media?${query}`, { method: "POST", headers, body: file });
  } catch {
    throw new ApiError(0, "NETWORK", "The sandbox did not answer.");
  }
  const text = await response.text();
  if (!response.ok) throw refusal(response.status, response.statusText, text);
  return stored(parseJson(text), "media").id;
}

/** The customer has seen the business's messages; the hub hears of it. */
export async function markRead(personaId: string, account: string): Promise<void> {
  try {
    await send(`/_ctl/phone/${encodeURIComponent(personaId)}/read`, { method: "POST", body: { account } });
  } catch (error) {
    // Seen is seen: the next look at the thread says it again.
    if (!(error instanceof ApiError)) throw error;
  }
}
