/** What the lightbox leafs through: pictures and films of a thread, in order. Pure. */
import { type Media, mediaOf } from "../../api/media";
import type { Message } from "../../api/models";
import { timeOf } from "./items";

export interface Shot {
  fileId: string;
  kind: "image" | "video";
  name: string;
  at: string;
  caption: string;
  message: Message;
}

/** How a file of a message is shown. */
export function lookOf(message: Pick<Message, "message_type">, media: Media): "image" | "sticker" | "video" | "audio" | "document" {
  switch (message.message_type) {
    case "image":
    case "sticker":
    case "video":
    case "audio":
      return message.message_type;
    default: {
      const family = media.mime?.split("/")[0];
      // A picture that was sent as a document is one: it was meant to be saved.
      return message.message_type === "template" && (family === "image" || family === "video") ? family : "document";
    }
  }
}

const ENDINGS: Readonly<Record<string, string>> = {
  "image/jpeg": "jpg", "image/png": "png", "image/webp": "webp", "image/gif": "gif", "video/mp4": "mp4", "video/3gpp": "3gp",
  "audio/mpeg": "mp3", "audio/mp4": "m4a", "audio/aac": "aac", "audio/ogg": "ogg", "audio/amr": "amr", "application/pdf": "pdf",
};

/** What the file is called when it is saved. */
export function nameOfFile(message: Message, media: Media, kind: string): string {
  if (media.filename) return media.filename;
  const ending = ENDINGS[(media.mime ?? "").split(";")[0] ?? ""] ?? "bin";
  return `${kind}-${timeOf(message).slice(0, 19).replace(/[T:]/g, "-")}.${ending}`;
}

export function shotsOf(messages: readonly Message[]): Shot[] {
  const found: Shot[] = [];
  for (const message of messages) {
    if (message.deleted_at !== null) continue;
    for (const media of mediaOf(message)) {
      const kind = lookOf(message, media);
      if (media.state !== "stored" || media.file_id === null || (kind !== "image" && kind !== "video")) continue;
      found.push({
        fileId: media.file_id, kind, name: nameOfFile(message, media, kind), at: timeOf(message),
        caption: message.content, message,
      });
    }
  }
  return found;
}
