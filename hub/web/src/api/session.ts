/** Who is signed in. The access token lives in memory only; a reload asks for a new one with the HttpOnly cookie. */
import { create } from "zustand";
import { bool, nullable, num, object, str } from "../lib/parse";
import { load, save } from "../lib/storage";
import { type Answer, ApiError, type Call, send } from "./http";

const user = object({ id: str, email: nullable(str) });
const tokenAnswer = object({ access_token: str, expires_in: num, user });

export type SessionState =
  | { status: "unknown" }
  | { status: "anonymous"; reason: "none" | "expired" | "signed-out" }
  | { status: "signed-in"; userId: string; email: string };

export const useSession = create<SessionState>()(() => ({ status: "unknown" }));

/** Sign-in and refresh name the web app: then the refresh token travels in the cookie only. */
const CLIENT = { "X-Hub-Client": "web" };

/** Whether this browser may hold a cookie to go on with. A newcomer is not asked for one, and the cookie itself cannot
 * be seen from here. */
const HINT = "hub.session";

let token: { text: string; staleAt: number } | null = null;
let refreshing: Promise<string> | null = null;

function accept(answer: Answer): string {
  const parsed = tokenAnswer(answer.body, "token");
  // A minute early, so that a request never starts with a token that expires on its way.
  token = { text: parsed.access_token, staleAt: Date.now() + Math.max(5, parsed.expires_in - 60) * 1000 };
  save(HINT, true);
  const known = useSession.getState();
  if (known.status !== "signed-in" || known.userId !== parsed.user.id) {
    useSession.setState({ status: "signed-in", userId: parsed.user.id, email: parsed.user.email ?? "" }, true);
  }
  return parsed.access_token;
}

function forget(reason: "none" | "expired" | "signed-out"): void {
  token = null;
  save(HINT, false);
  useSession.setState({ status: "anonymous", reason }, true);
}

export async function signIn(email: string, password: string): Promise<void> {
  accept(
    await send("/auth/v1/token?grant_type=password", { method: "POST", headers: CLIENT, body: { email, password } }),
  );
}

/** A link for a new password, to whoever has this address; the hub does not say whether anybody has. */
export async function recover(email: string): Promise<void> {
  await send("/auth/v1/recover", { method: "POST", headers: CLIENT, body: { email } });
}

/** Uses a mail's link: signs in. */
export async function followLink(type: string, tokenHash: string): Promise<void> {
  accept(await send("/auth/v1/verify", { method: "POST", headers: CLIENT, body: { type, token_hash: tokenHash } }));
}

/** The other sessions end with the old password. */
export async function changePassword(password: string, current?: string): Promise<void> {
  await sendSigned("/auth/v1/user", {
    method: "PUT", headers: CLIENT, body: { password, ...(current === undefined ? {} : { current_password: current }) },
  });
}

/** Goes on with the session of an earlier visit, if there was one. Never rejects: an absent hub is no answer. */
export async function resume(): Promise<void> {
  if (!load(HINT, bool, false)) forget("none");
  else await refresh().catch(() => undefined);
}

/** A new access token; concurrent callers share one request, because a refresh token is used once. */
export function refresh(): Promise<string> {
  refreshing ??= send("/auth/v1/token?grant_type=refresh_token", { method: "POST", headers: CLIENT, body: {} })
    .then(accept)
    .catch((error: unknown) => {
      if (error instanceof ApiError && !error.transient) {
        forget(useSession.getState().status === "signed-in" ? "expired" : "none");
      }
      throw error;
    })
    .finally(() => {
      refreshing = null;
    });
  return refreshing;
}

/** A token that is good for a while. Throws ApiError when the session is over or the hub is away. */
export async function accessToken(): Promise<string> {
  return token && token.staleAt > Date.now() ? token.text : refresh();
}

/** Makes the next caller ask for a new token: the hub refused the present one. */
export function dropToken(): void {
  token = null;
}

export async function signOut(): Promise<void> {
  const text = token?.text;
  forget("signed-out");
  try {
    await send("/auth/v1/logout?scope=local", {
      method: "POST",
      headers: text ? { ...CLIENT, Authorization: `Bearer ${text}` } : CLIENT,
    });
  } catch {
    // The hub is away: the cookie ends with its session there, and this page has forgotten the token already.
  }
}

/** `send` as the signed-in user; a token that the hub refuses is renewed once. */
export async function sendSigned(path: string, call: Call = {}): Promise<Answer> {
  const attempt = async (): Promise<Answer> => {
    const bearer = await accessToken();
    return send(path, { ...call, headers: { ...call.headers, Authorization: `Bearer ${bearer}` } });
  };
  try {
    return await attempt();
  } catch (error) {
    if (!(error instanceof ApiError) || error.status !== 401) throw error;
    dropToken();
    return attempt();
  }
}
