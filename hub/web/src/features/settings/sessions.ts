/** Where the signed-in person is signed in. */
import { queryOptions } from "@tanstack/react-query";
import { sendSigned } from "../../api/session";
import { type Parsed, bool, list, nullable, object, str } from "../../lib/parse";

const session = object({
  id: str,
  organization: nullable(str),
  user_agent: nullable(str),
  ip: nullable(str),
  created_at: str,
  refreshed_at: nullable(str),
  is_current: bool,
});
export type OwnSession = Parsed<typeof session>;

export const sessionsQuery = queryOptions({
  queryKey: ["sessions"] as const,
  queryFn: async ({ signal }) => list(session)((await sendSigned("/auth/v1/sessions", { signal })).body, "sessions"),
  staleTime: 0,
});

export async function endSession(id: string): Promise<void> {
  await sendSigned(`/auth/v1/sessions/${encodeURIComponent(id)}`, { method: "DELETE" });
}

export async function endOtherSessions(): Promise<void> {
  await sendSigned("/auth/v1/logout?scope=others", { method: "POST", headers: { "X-Hub-Client": "web" } });
}

// The order matters: Edge names Chrome, Chrome names Safari, Android names Linux.
const BROWSERS = [["Edg/", "Edge"], ["OPR/", "Opera"], ["Firefox/", "Firefox"], ["Chrome/", "Chrome"], ["Safari/", "Safari"]] as const;
const SYSTEMS = [
  ["Android", "Android"], ["iPhone", "iPhone"], ["iPad", "iPad"], ["Windows", "Windows"], ["Mac OS X", "macOS"], ["Linux", "Linux"],
] as const;

/** "Firefox, Windows"; null for what is no browser that we know. */
export function deviceOf(userAgent: string | null): string | null {
  const text = userAgent ?? "";
  const browser = BROWSERS.find(([mark]) => text.includes(mark))?.[1];
  const system = SYSTEMS.find(([mark]) => text.includes(mark))?.[1];
  return browser ? [browser, system].filter(Boolean).join(", ") : null;
}
