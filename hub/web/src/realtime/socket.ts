/** One live connection that keeps coming back. Knows frames and close codes, nothing of the inbox. */
import { reconnectDelay } from "../lib/backoff";
import { newId } from "../lib/ids";
import {
  CLOSE, type ClientFrame, type CommandFailure, type Cursor, type ServerFrame, parseFrame,
} from "./frames";

export type Phase =
  | { name: "stopped" }
  | { name: "connecting" }
  | { name: "live" }
  | { name: "waiting"; retryAt: number }
  | { name: "offline" }
  | { name: "refused"; code: number };

export class CommandError extends Error {
  override readonly name = "CommandError";
  constructor(readonly failure: CommandFailure) {
    super(failure.message || failure.code);
  }
  get code(): string {
    return this.failure.code;
  }
}

export interface SocketHooks {
  /** A fresh access token. Rejects when the hub is away; `signedOut` tells the two apart. */
  token(): Promise<string>;
  dropToken(): void;
  signedOut(): boolean;
  cursor(): Cursor | null;
  forgetCursor(): void;
  /** Frames of the current socket only, in order, except replies to commands. */
  onFrame(frame: ServerFrame): void;
  onPhase(phase: Phase): void;
}

/** The hub shows its position at least every 15 s: two of them missing means that the line is dead. */
const SILENCE_MS = 35_000;
const HELLO_MS = 10_000;
const COMMAND_MS = 15_000;

interface Waiting {
  resolve(result: unknown): void;
  reject(error: CommandError): void;
  timer: ReturnType<typeof setTimeout>;
}

const disconnected = () =>
  new CommandError({ code: "DISCONNECTED", message: "The connection was lost.", details: null });

export class LiveSocket {
  private socket: WebSocket | null = null;
  private phase: Phase = { name: "stopped" };
  private attempt = 0;
  private retry: ReturnType<typeof setTimeout> | undefined;
  private watchdog: ReturnType<typeof setTimeout> | undefined;
  private byeDelay: number | null = null;
  private readonly waiting = new Map<string, Waiting>();
  private readonly online = () => this.connectNow();
  private readonly offline = () => this.drop({ name: "offline" });
  private readonly shown = () => {
    if (document.visibilityState === "visible" && this.phase.name === "waiting") this.connectNow();
  };

  constructor(
    private readonly url: string,
    private readonly hooks: SocketHooks,
    private readonly open: (url: string) => WebSocket = (address) => new WebSocket(address),
  ) {}

  start(): void {
    if (this.phase.name !== "stopped") return;
    addEventListener("online", this.online);
    addEventListener("offline", this.offline);
    document.addEventListener("visibilitychange", this.shown);
    void this.connect();
  }

  stop(): void {
    removeEventListener("online", this.online);
    removeEventListener("offline", this.offline);
    document.removeEventListener("visibilitychange", this.shown);
    this.drop({ name: "stopped" });
  }

  /** Skips the rest of the wait. */
  connectNow(): void {
    if (this.phase.name === "waiting" || this.phase.name === "offline") {
      this.attempt = 0;
      void this.connect();
    }
  }

  /** Resolves with the command's result; rejects with CommandError (DISCONNECTED, TIMEOUT or the hub's own code). */
  command(name: string, args: Record<string, unknown>): Promise<unknown> {
    const socket = this.socket;
    if (this.phase.name !== "live" || !socket) return Promise.reject(disconnected());
    const id = newId();
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.waiting.delete(id);
        reject(new CommandError({ code: "TIMEOUT", message: "The hub did not answer in time.", details: null }));
      }, COMMAND_MS);
      this.waiting.set(id, { resolve, reject, timer });
      this.write(socket, { type: "command", id, name, args });
    });
  }

  private write(socket: WebSocket, frame: ClientFrame): void {
    socket.send(JSON.stringify(frame));
  }

  private setPhase(phase: Phase): void {
    this.phase = phase;
    this.hooks.onPhase(phase);
  }

  private async connect(): Promise<void> {
    clearTimeout(this.retry);
    if (!navigator.onLine) {
      this.setPhase({ name: "offline" });
      return;
    }
    this.setPhase({ name: "connecting" });
    const mine = this.phase;
    let token: string;
    try {
      token = await this.hooks.token();
    } catch {
      if (this.phase !== mine) return;
      if (this.hooks.signedOut()) this.drop({ name: "stopped" });
      else this.later();
      return;
    }
    if (this.phase !== mine) return;
    const socket = this.open(this.url);
    this.socket = socket;
    this.byeDelay = null;
    this.watch(socket, HELLO_MS);
    socket.addEventListener("open", () => {
      if (this.socket !== socket) return;
      this.write(socket, { type: "hello", token, cursor: this.hooks.cursor(), client: "web/0.1" });
    });
    socket.addEventListener("message", (event: MessageEvent<unknown>) => {
      if (this.socket === socket && typeof event.data === "string") this.receive(socket, event.data);
    });
    socket.addEventListener("close", (event) => {
      if (this.socket === socket) this.closed(event.code);
    });
  }

  private receive(socket: WebSocket, text: string): void {
    this.watch(socket, SILENCE_MS);
    let frame: ServerFrame | undefined;
    try {
      frame = parseFrame(text);
    } catch (error) {
      // What cannot be read cannot be skipped either: it may have been an event. Start over from a snapshot.
      console.warn("unreadable frame", error);
      this.hooks.forgetCursor();
      socket.close(4400, "unreadable");
      this.closed(CLOSE.badFrame);
      return;
    }
    if (!frame) return;
    if (frame.type === "reply") {
      this.answer(frame);
      return;
    }
    if (frame.type === "bye") this.byeDelay = frame.retry_in * 1000;
    this.hooks.onFrame(frame);
    if (frame.type === "welcome") {
      this.attempt = 0;
      this.setPhase({ name: "live" });
    }
  }

  private answer(frame: Extract<ServerFrame, { type: "reply" }>): void {
    const waiting = this.waiting.get(frame.id);
    if (!waiting) return;
    this.waiting.delete(frame.id);
    clearTimeout(waiting.timer);
    if (frame.ok) waiting.resolve(frame.result);
    else waiting.reject(new CommandError(frame.error ?? { code: "INTERNAL_ERROR", message: "", details: null }));
  }

  private watch(socket: WebSocket, ms: number): void {
    clearTimeout(this.watchdog);
    this.watchdog = setTimeout(() => {
      if (this.socket !== socket) return;
      socket.close();
      // A dead line may take minutes to report its close: go on without it.
      this.closed(1006);
    }, ms);
  }

  private closed(code: number): void {
    this.release();
    switch (code) {
      case CLOSE.notAllowed:
        this.setPhase({ name: "refused", code });
        return;
      case CLOSE.badToken:
        this.hooks.dropToken();
        break;
      case CLOSE.badFrame:
        this.hooks.forgetCursor();
        break;
      case CLOSE.tooManySockets:
      case CLOSE.flood:
        this.attempt = Math.max(this.attempt, 4);
        break;
      default:
        break;
    }
    if (!navigator.onLine) this.setPhase({ name: "offline" });
    else this.later();
  }

  private later(): void {
    const wait = this.byeDelay ?? reconnectDelay(this.attempt);
    this.byeDelay = null;
    this.attempt += 1;
    this.setPhase({ name: "waiting", retryAt: Date.now() + wait });
    this.retry = setTimeout(() => void this.connect(), wait);
  }

  /** Forgets the socket and fails the commands that wait on it. */
  private release(): void {
    clearTimeout(this.watchdog);
    clearTimeout(this.retry);
    this.socket = null;
    const waiting = [...this.waiting.values()];
    this.waiting.clear();
    for (const one of waiting) {
      clearTimeout(one.timer);
      one.reject(disconnected());
    }
  }

  private drop(phase: Phase): void {
    const socket = this.socket;
    this.release();
    socket?.close();
    this.setPhase(phase);
  }
}
