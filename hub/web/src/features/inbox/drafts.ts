/** Drafts by conversation, kept over reloads. */
import { create } from "zustand";
import { type Parsed, type Parser, bool, isRecord, list, nullable, num, object, str, withDefault } from "../../lib/parse";
import { load, save } from "../../lib/storage";
import { attachment } from "../../realtime/outbox";

const draft = object({
  text: str,
  replyToId: nullable(str),
  /** Newest position of the conversation when the writing began: what came later, the writer may not have seen. */
  startedSeq: nullable(num),
  /** What is attached; the bytes are in the file store. */
  files: withDefault(list(attachment), []),
  /** It is a note for the team. Kept with the text: nothing meant for colleagues may become a message by a reload. */
  note: withDefault(bool, false),
});
export type Draft = Parsed<typeof draft>;

const drafts: Parser<Record<string, Draft>> = (value, path) => {
  if (!isRecord(value)) return {};
  return Object.fromEntries(Object.entries(value).map(([id, one]) => [id, draft(one, `${path}.${id}`)]));
};

const keyOf = (user: string): string => `hub.drafts.${user}`;
const nothing: Draft = { text: "", replyToId: null, startedSeq: null, files: [], note: false };

interface Drafts {
  user: string;
  byId: Record<string, Draft>;
}

const useDrafts = create<Drafts>()(() => ({ user: "", byId: {} }));

/** To be called when the user is known. */
export function loadDrafts(user: string): void {
  if (useDrafts.getState().user !== user) useDrafts.setState({ user, byId: load(keyOf(user), drafts, {}) });
}

export function useDraft(conversationId: string): Draft {
  return useDrafts((state) => state.byId[conversationId] ?? nothing);
}

export function draftOf(conversationId: string): Draft {
  return useDrafts.getState().byId[conversationId] ?? nothing;
}

export function setDraft(conversationId: string, change: Partial<Draft>): void {
  const { user, byId } = useDrafts.getState();
  const { [conversationId]: known, ...others } = byId;
  const next = { ...(known ?? nothing), ...change };
  const bare = next.text === "" && next.replyToId === null && next.files.length === 0 && !next.note;
  const kept = bare ? others : { ...others, [conversationId]: next };
  useDrafts.setState({ byId: kept });
  save(keyOf(user), kept);
}

export const clearDraft = (conversationId: string): void => setDraft(conversationId, nothing);
