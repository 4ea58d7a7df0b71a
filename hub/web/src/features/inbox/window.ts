/** WhatsApp's 24-hour window: free text reaches a customer only within a day of their last message. Pure. */

const DAY_MS = 24 * 3_600_000;
const SOON_MS = 3 * 3_600_000;

const WINDOWED: ReadonlySet<string> = new Set(["WHATSAPP_CLOUD", "WHATSAPP_BUSINESS"]);

export type Window = { state: "none" | "open" | "closed" | "never" } | { state: "soon"; leftMs: number };

export function replyWindow(channelType: string | undefined, lastInboundAt: string | null, now: number): Window {
  if (!channelType || !WINDOWED.has(channelType)) return { state: "none" };
  if (!lastInboundAt) return { state: "never" };
  const leftMs = Date.parse(lastInboundAt) + DAY_MS - now;
  if (leftMs <= 0) return { state: "closed" };
  return leftMs <= SOON_MS ? { state: "soon", leftMs } : { state: "open" };
}
