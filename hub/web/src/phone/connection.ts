/** One customer's live line; comes back by itself, and says when the messages have to be read again. */
import { reconnectDelay } from "../lib/backoff";
import { type LiveFrame, parseLive } from "./api";

export interface Line {
  close(): void;
}

export function openLine(
  personaId: string, onFrame: (frame: LiveFrame) => void, onState: (connected: boolean) => void,
): Line {
  let socket: WebSocket | null = null;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let attempt = 0;
  let over = false;

  const connect = (): void => {
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const mine = new WebSocket(`${scheme}://${location.host}/_ctl/phone/${encodeURIComponent(personaId)}/live`);
    socket = mine;
    mine.addEventListener("message", (event: MessageEvent<unknown>) => {
      if (socket !== mine || typeof event.data !== "string") return;
      const frame = parseLive(event.data);
      if (!frame) return;
      if (frame.type === "hello") {
        attempt = 0;
        onState(true);
      }
      onFrame(frame);
    });
    mine.addEventListener("close", () => {
      if (over || socket !== mine) return;
      onState(false);
      timer = setTimeout(connect, reconnectDelay(attempt));
      attempt += 1;
    });
  };
  connect();
  return {
    close() {
      over = true;
      clearTimeout(timer);
      socket?.close();
    },
  };
}
