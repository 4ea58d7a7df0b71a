/** The frames of `/ws` (docs/realtime.md), told apart by `type`. Kinds that this program does not know are skipped. */
import {
  type Parsed, type Parser, bool, isRecord, list, nullable, num, object, oneOf, oneOfOr, parseJson, record, str, tagged, unknown,
  withDefault,
} from "../lib/parse";

const word = <const W extends string>(text: W) => oneOf(text);

const presenceEntry = object({ user_id: str, viewing: nullable(str) });

export const liveEvent = object({
  id: unknown,
  type: str,
  table: str,
  op: oneOf("INSERT", "UPDATE", "DELETE"),
  names: withDefault(list(str), []),
  entity_id: nullable(str),
  contact_id: nullable(str),
  conversation_id: nullable(str),
  actor: nullable(object({ kind: str, user_id: nullable(str) })),
  at: nullable(str),
  payload: object({ row: nullable(record), changed: nullable(record), truncated: withDefault(bool, false) }),
});
export type LiveEvent = Parsed<typeof liveEvent>;

const welcome = object({
  type: word("welcome"),
  resumed: bool,
  reason: nullable(str),
  epoch: str,
  seq: num,
  session: object({
    id: str,
    user_id: nullable(str),
    organization_id: str,
    role: nullable(str),
    permissions: withDefault(list(str), []),
  }),
  presence: withDefault(list(presenceEntry), []),
});
export type Welcome = Parsed<typeof welcome>;

/** What else a refusal says; anything but an object is of no use here. */
const details: Parser<Record<string, unknown> | null> = (value) => (isRecord(value) ? value : null);
const commandFailure = object({ code: str, message: withDefault(str, ""), details });
export type CommandFailure = Parsed<typeof commandFailure>;

const event = object({ type: word("event"), seq: num, event: liveEvent });
const pos = object({ type: word("pos"), seq: num });
const resync = object({ type: word("resync"), reason: nullable(str), seq: num, epoch: nullable(str) });
const degraded = object({ type: word("degraded"), what: list(oneOfOr("other", "postgres", "redis", "other")) });
const presence = object({ type: word("presence"), user_id: str, online: bool, viewing: nullable(str) });
const typing = object({ type: word("typing"), conversation_id: str, user_id: str, typing: bool });
const reply = object({
  type: word("reply"), id: str, ok: bool, result: nullable(unknown), error: nullable(commandFailure),
});
const bye = object({ type: word("bye"), retry_in: num, reason: nullable(str) });

export type ServerFrame =
  | Welcome
  | Parsed<typeof event>
  | Parsed<typeof pos>
  | Parsed<typeof resync>
  | Parsed<typeof degraded>
  | Parsed<typeof presence>
  | Parsed<typeof typing>
  | Parsed<typeof reply>
  | Parsed<typeof bye>;

const serverFrame: Parser<ServerFrame | undefined> = tagged<ServerFrame>("type", {
  welcome, event, pos, resync, degraded, presence, typing, reply, bye,
});

/** The frame in `text`; undefined for a kind of a newer hub. Throws for what is no frame at all. */
export function parseFrame(text: string): ServerFrame | undefined {
  return serverFrame(parseJson(text), "frame");
}

export interface Cursor {
  epoch: string;
  seq: number;
}

export type ClientFrame =
  | { type: "hello"; token: string; cursor: Cursor | null; client: string }
  | { type: "command"; id: string; name: string; args: Record<string, unknown> };

/** Close codes on which the client acts differently from "come back after a while". */
export const CLOSE = {
  goingAway: 4012,
  badFrame: 4400,
  badToken: 4401,
  notAllowed: 4403,
  tooManySockets: 4409,
  flood: 4429,
} as const;
