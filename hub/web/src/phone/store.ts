/** What one customer sees: the messages as a fold over frames. Pure. */
import type { LiveFrame, PhoneMessage } from "./api";

export interface Chat {
  messages: readonly PhoneMessage[];
  typing: boolean;
}

export const emptyChat: Chat = { messages: [], typing: false };

/** The newer of two wins; order by number. */
export function put(chat: Chat, rows: readonly PhoneMessage[]): Chat {
  const byId = new Map(chat.messages.map((one) => [one.id, one]));
  for (const row of rows) byId.set(row.id, row);
  return { ...chat, messages: [...byId.values()].sort((a, b) => a.n - b.n) };
}

export function foldFrame(chat: Chat, frame: LiveFrame): Chat {
  switch (frame.type) {
    case "message": {
      const next = put(chat, [frame.message]);
      return frame.message.from === "business" ? { ...next, typing: false } : next;
    }
    case "update":
      return put(chat, [frame.message]);
    case "state":
      return {
        ...chat,
        messages: chat.messages.map((one) => (one.id === frame.id ? { ...one, state: frame.state } : one)),
      };
    case "typing":
      return { ...chat, typing: frame.typing };
    case "reset":
      return emptyChat;
    case "hello":
    case "hub":
      return chat;
    default:
      return frame satisfies never;
  }
}

export interface Choice {
  key: string;
  label: string;
  /** The message that pressing it sends, without its context. */
  says: Record<string, unknown>;
}

function field(value: unknown, name: string): unknown {
  return typeof value === "object" && value !== null ? Object.entries(value).find(([key]) => key === name)?.[1] : undefined;
}

const text = (value: unknown): string => (typeof value === "string" ? value : "");
const items = (value: unknown): unknown[] => (Array.isArray(value) ? value : []);

/** Buttons, list rows and template quick replies of a business message. */
export function choicesOf(message: PhoneMessage): Choice[] {
  if (message.from !== "business") return [];
  const action = field(field(message.message, "interactive"), "action");
  const buttons = items(field(action, "buttons")).flatMap((one): Choice[] => {
    const reply = field(one, "reply");
    const [id, title] = [text(field(reply, "id")), text(field(reply, "title"))];
    if (title === "") return [];
    const says = { type: "interactive", interactive: { type: "button_reply", button_reply: { id, title } } };
    return [{ key: `b:${id}`, label: title, says }];
  });
  const rows = items(field(action, "sections")).flatMap((section) =>
    items(field(section, "rows")).flatMap((row): Choice[] => {
      const [id, title] = [text(field(row, "id")), text(field(row, "title"))];
      if (title === "") return [];
      const says = { type: "interactive", interactive: { type: "list_reply", list_reply: { id, title } } };
      return [{ key: `r:${id}`, label: title, says }];
    }),
  );
  const quick = items(field(field(message.message, "template"), "buttons")).flatMap((one): Choice[] => {
    const [label, payload] = [text(field(one, "text")), text(field(one, "payload"))];
    if (label === "") return [];
    return [{ key: `q:${payload}:${label}`, label, says: { type: "button", button: { text: label, payload } } }];
  });
  return [...buttons, ...rows, ...quick];
}
