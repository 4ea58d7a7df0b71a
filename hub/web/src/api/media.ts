/** Files of messages: what a row says of them, their way up, and their bytes. */
import {
  type Parsed, bool, isRecord, nullable, num, object, oneOfOr, parseJson, str, withDefault,
} from "../lib/parse";
import { ApiError, refusal } from "./http";
import type { Message } from "./models";
import { accessToken, dropToken } from "./session";

const part = object({
  file_id: nullable(str),
  state: oneOfOr("pending", "pending", "stored", "failed", "expired"),
  mime: nullable(str),
  bytes: nullable(num),
  filename: nullable(str),
  voice: withDefault(bool, false),
  reason: nullable(str),
});
export type Media = Parsed<typeof part>;

const seen = new WeakMap<Record<string, unknown>, readonly Media[]>();

/** The files of a message, in order. Those that no file was ever made for are left out. */
export function mediaOf(row: Pick<Message, "metadata">): readonly Media[] {
  const known = seen.get(row.metadata);
  if (known) return known;
  const found: Media[] = [];
  const given = row.metadata["media"];
  for (const one of Array.isArray(given) ? given : []) {
    if (!isRecord(one) || typeof one["file_id"] !== "string") continue;
    try {
      found.push(part(one, "media"));
    } catch {
      // What cannot be read is shown as an attachment of its message's kind, as before there were files.
    }
  }
  seen.set(row.metadata, found);
  return found;
}

const uploaded = object({
  success: bool,
  media: object({ id: str, kind: str, mime_type: nullable(str), byte_size: nullable(num), sha256: nullable(str) }),
});
export type Uploaded = Parsed<typeof uploaded>["media"];

export interface Progress {
  /** Between 0 and 1. */
  (part: number): void;
}

function post(
  file: Blob, name: string, attempt: string, bearer: string, onProgress: Progress, signal: AbortSignal,
): Promise<{ status: number; statusText: string; text: string }> {
  return new Promise((resolve, reject) => {
    // fetch cannot tell how much of a body is up.
    const request = new XMLHttpRequest();
    const away = () => reject(new ApiError(0, "NETWORK", "The hub did not answer."));
    request.open("POST", "/functions/v1/upload-media");
    request.setRequestHeader("Authorization", `Bearer ${bearer}`);
    request.setRequestHeader("Accept", "application/json");
    request.setRequestHeader("Idempotency-Key", attempt);
    request.upload.addEventListener("progress", (event) => {
      if (event.lengthComputable && event.total > 0) onProgress(event.loaded / event.total);
    });
    request.addEventListener("load", () => {
      resolve({ status: request.status, statusText: request.statusText, text: request.responseText });
    });
    request.addEventListener("error", away);
    request.addEventListener("timeout", away);
    request.addEventListener("abort", () => reject(new DOMException("cancelled", "AbortError")));
    signal.addEventListener("abort", () => request.abort(), { once: true });
    const form = new FormData();
    form.append("file", file, name);
    request.send(form);
  });
}

/** Sends a file up. The same `attempt` again gives the same file, also when nobody heard the first answer.
 * Throws ApiError, or the signal's AbortError. */
export async function uploadMedia(
  file: Blob, name: string, attempt: string, onProgress: Progress, signal: AbortSignal,
): Promise<Uploaded> {
  for (let turn = 0; ; turn += 1) {
    const bearer = await accessToken();
    signal.throwIfAborted();
    const answer = await post(file, name, attempt, bearer, onProgress, signal);
    if (answer.status === 401 && turn === 0) {
      dropToken();
      continue;
    }
    if (answer.status >= 400 || answer.status === 0) throw refusal(answer.status, answer.statusText, answer.text);
    try {
      return uploaded(parseJson(answer.text), "upload-media").media;
    } catch {
      throw new ApiError(502, "BAD_ANSWER", "The answer was not an uploaded file.");
    }
  }
}

/** Types that are shown. Anything else is bytes to be saved: an address of this page that a browser took for a document
 * would run its script as us. */
const SHOWN: ReadonlySet<string> = new Set([
  "image/jpeg", "image/png", "image/webp", "image/gif", "image/avif", "image/bmp",
  "video/mp4", "video/3gpp", "video/webm", "video/quicktime",
  "audio/mpeg", "audio/mp4", "audio/aac", "audio/ogg", "audio/amr", "audio/wav", "audio/x-wav", "audio/webm",
]);

export function safeType(type: string | null | undefined): string {
  const plain = (type ?? "").split(";")[0]?.trim().toLowerCase() ?? "";
  return SHOWN.has(plain) ? plain : "application/octet-stream";
}

/** The bytes of a file. Throws ApiError, or the signal's AbortError. */
export async function readMedia(id: string, signal: AbortSignal, onProgress?: Progress): Promise<Blob> {
  for (let attempt = 0; ; attempt += 1) {
    const headers = { Authorization: `Bearer ${await accessToken()}` };
    let response: Response;
    try {
      response = await fetch(`/functions/v1/media/${encodeURIComponent(id)}`, {
        headers, signal, credentials: "same-origin",
      });
    } catch (error) {
      if (signal.aborted) throw error;
      throw new ApiError(0, "NETWORK", "The hub did not answer.");
    }
    if (response.status === 401 && attempt === 0) {
      dropToken();
      continue;
    }
    if (!response.ok) throw refusal(response.status, response.statusText, await response.text().catch(() => ""));
    const total = Number(response.headers.get("Content-Length") ?? 0);
    try {
      return new Blob(await pieces(response, total, onProgress), { type: safeType(response.headers.get("Content-Type")) });
    } catch (error) {
      if (signal.aborted) throw error;
      throw new ApiError(0, "NETWORK", "The file broke off on its way.");
    }
  }
}

async function pieces(response: Response, total: number, onProgress: Progress | undefined): Promise<BlobPart[]> {
  if (!onProgress || !response.body || total === 0) return [await response.arrayBuffer()];
  const found: BlobPart[] = [];
  let got = 0;
  const reader = response.body.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return found;
    found.push(value);
    got += value.byteLength;
    onProgress(Math.min(1, got / total));
  }
}
