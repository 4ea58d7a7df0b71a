/** One request: the session's token, one refresh on 401, and errors as values of one class. */
import { isRecord, parseJson } from "../lib/parse";

/** An answer of 400 or more, or none at all (status 0). `code` is the hub's error code where it gave one. */
export class ApiError extends Error {
  override readonly name = "ApiError";
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
    readonly requestId: string | null = null,
  ) {
    super(message);
  }
  /** Worth trying again later without changing anything. */
  get transient(): boolean {
    return this.status === 0 || this.status === 429 || this.status >= 500;
  }
}

export interface Call {
  method?: "GET" | "POST" | "PUT" | "PATCH" | "DELETE";
  headers?: Record<string, string>;
  body?: unknown;
  signal?: AbortSignal;
}

export interface Answer {
  body: unknown;
  headers: Headers;
}

/** The error that an answer of 400 or more tells of. */
export function refusal(status: number, statusText: string, text: string): ApiError {
  let body: unknown = null;
  try {
    body = parseJson(text);
  } catch {
    // A proxy's page, or nothing: the status has to say it.
  }
  const field = (name: string): string | null => {
    const value = isRecord(body) ? body[name] : undefined;
    return typeof value === "string" && value !== "" ? value : null;
  };
  // "Validation error" alone helps nobody: what is wrong stands in the details.
  const details = isRecord(body) ? body["details"] : undefined;
  const detail = status === 422 && isRecord(details) && typeof details["message"] === "string" ? details["message"] : null;
  return new ApiError(
    status,
    field("error_code") ?? field("code") ?? `HTTP_${status}`,
    detail ?? field("msg") ?? field("message") ?? field("error_description") ?? field("error") ?? statusText,
    field("request_id"),
  );
}

/** Sends without looking at the session. Throws ApiError. */
export async function send(path: string, call: Call = {}): Promise<Answer> {
  const headers = new Headers({ Accept: "application/json", ...call.headers });
  const init: RequestInit = { method: call.method ?? "GET", headers, credentials: "same-origin" };
  if (call.signal) init.signal = call.signal;
  if (call.body !== undefined) {
    headers.set("Content-Type", "application/json");
    init.body = JSON.stringify(call.body);
  }
  let response: Response;
  try {
    response = await fetch(path, init);
  } catch (error) {
    if (call.signal?.aborted) throw error;
    throw new ApiError(0, "NETWORK", "The hub did not answer.");
  }
  if (!response.ok) throw refusal(response.status, response.statusText, await response.text().catch(() => ""));
  const text = await response.text();
  if (text === "") return { body: null, headers: response.headers };
  try {
    return { body: parseJson(text), headers: response.headers };
  } catch {
    throw new ApiError(502, "BAD_ANSWER", "The answer was not JSON.");
  }
}
