/** What may be attached where, and how several files and a text become messages. Pure; the hub checks it all again. */
import type { Attachment, FileKind } from "../../realtime/outbox";
import limits from "./fileLimits.json";

/** Files picked in one go. */
export const MOST_FILES = 10;
const HUB_BYTES = limits.hub;

type Kind = keyof (typeof limits)["WHATSAPP_CLOUD"];
type Rule = { bytes: number; types: readonly string[] };
type Rules = Readonly<Record<Kind, Rule>>;
const cloud: Rules = limits.WHATSAPP_CLOUD;
/** Channels that we know the limits of; elsewhere only the hub's own one counts. */
const rules: Readonly<Record<string, Rules>> = { WHATSAPP_CLOUD: cloud, WHATSAPP_BUSINESS: cloud };

export function kindOf(mime: string): Kind {
  const [family] = mime.split("/");
  // A drawing can carry a program: it travels as a document.
  if (mime === "image/svg+xml") return "document";
  return family === "image" || family === "video" || family === "audio" ? family : "document";
}

/** What a browser calls a type is not always its registered name. */
const SPELLED: Readonly<Record<string, string>> = {
  "image/jpg": "image/jpeg", "image/pjpeg": "image/jpeg", "audio/mp3": "audio/mpeg", "audio/x-m4a": "audio/mp4", "audio/m4a": "audio/mp4",
  "audio/x-aac": "audio/aac", "application/ogg": "audio/ogg", "audio/opus": "audio/ogg",
};

export const typeOf = (mime: string): string => {
  const plain = mime.split(";")[0]?.trim().toLowerCase() ?? "";
  return SPELLED[plain] ?? plain;
};

export type Problem =
  | { code: "empty" }
  /** Larger than `max` bytes. */
  | { code: "tooBig"; max: number }
  /** The channel does not take this kind of picture, film or sound. */
  | { code: "type"; kind: FileKind; types: readonly string[] };

/** Why a file cannot go out over a channel; null when it can. */
export function problemOf(
  file: Pick<Attachment, "kind" | "mime" | "bytes">, channelType: string | undefined,
): Problem | null {
  if (file.bytes === 0) return { code: "empty" };
  const rule = file.kind === "sticker" ? undefined : rules[channelType ?? ""]?.[file.kind];
  if (rule && rule.types.length > 0 && !rule.types.includes(file.mime)) {
    return { code: "type", kind: file.kind, types: rule.types };
  }
  const max = Math.min(HUB_BYTES, rule?.bytes ?? HUB_BYTES);
  return file.bytes > max ? { code: "tooBig", max } : null;
}

/** A picture that a browser can make smaller, or turn into a JPEG, to fit. */
export function canBeFitted(file: Pick<Attachment, "kind">, problem: Problem | null): boolean {
  return file.kind === "image" && (problem?.code === "tooBig" || problem?.code === "type");
}

/** "JPEG, PNG" */
export const typeNames = (types: readonly string[]): string =>
  types.map((one) => (one.split("/")[1] ?? one).toUpperCase().replace("3GPP", "3GP").replace("MPEG", "MP3")).join(", ");

const takesCaption = (file: Attachment): boolean => file.kind !== "audio" && file.kind !== "sticker";

export interface Piece {
  content: string;
  attachment: Attachment | null;
}

/** One message a file. The words stand beneath the last file that can carry them, where the eye ends; words that fit
 * beneath none come after the files, as a message of their own. */
export function pieces(text: string, files: readonly Attachment[]): Piece[] {
  const words = text.trim();
  if (files.length === 0) return words === "" ? [] : [{ content: words, attachment: null }];
  const carrier = words !== "" && words.length <= limits.caption ? files.findLastIndex(takesCaption) : -1;
  const found: Piece[] = files.map((file, index) => ({ content: index === carrier ? words : "", attachment: file }));
  return words !== "" && carrier < 0 ? [...found, { content: words, attachment: null }] : found;
}
