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

/** What kind of message a file becomes, as WhatsApp's own app decides it. */
export function kindOfFile(type: string): "image" | "video" | "audio" | "document" {
  if (type === "image/jpeg" || type === "image/png") return "image";
  if (type === "video/mp4" || type === "video/3gpp") return "video";
  return type.startsWith("audio/") ? "audio" : "document";
}

/** The message around an uploaded file. */
export function fileMessage(id: string, file: { type: string; name: string }, caption: string): Record<string, unknown> {
  const kind = kindOfFile(file.type);
  const words = caption === "" || kind === "audio" ? {} : { caption };
  const named = kind === "document" ? { filename: file.name } : {};
  return { type: kind, [kind]: { id, ...words, ...named } };
}

/** The address of a message's file, where a page of the sandbox may show it. */
export function fileOf(message: PhoneMessage): { url: string; name: string; kind: string } | null {
  const url = message.media_url;
  // A business may name any address; only files and pages of the web are opened.
  if (url === null || !/^(https?:|\/)/.test(url)) return null;
  const part = field(message.message, message.type);
  return { url, name: text(field(part, "filename")) || message.type, kind: message.type };
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
