// @vitest-environment jsdom
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import type { Cursor, ServerFrame } from "../src/realtime/frames";
import { CommandError, LiveSocket, type Phase } from "../src/realtime/socket";

/** A websocket whose other end is the test. */
class Wire extends EventTarget {
  sent: unknown[] = [];
  closed = false;
  send(text: string): void {
    const frame: unknown = JSON.parse(text);
    this.sent.push(frame);
  }
  close(): void {
    this.closed = true;
  }
  opens(): void {
    this.dispatchEvent(new Event("open"));
  }
  says(frame: unknown): void {
    this.dispatchEvent(new MessageEvent("message", { data: JSON.stringify(frame) }));
  }
  drops(code: number): void {
    this.dispatchEvent(Object.assign(new Event("close"), { code }));
  }
}

const welcome = {
  type: "welcome", resumed: false, reason: "new", epoch: "e1", seq: 5, presence: [],
  session: { id: "s", user_id: "u", organization_id: "o", role: "OWNER", permissions: [] },
};

let wires: Wire[] = [];
let phases: Phase[] = [];
let frames: ServerFrame[] = [];
let cursor: Cursor | null = null;
let dropped = 0;
let token: () => Promise<string>;
let signedOut = false;
let socket: LiveSocket;

beforeEach(() => {
  vi.useFakeTimers();
  vi.spyOn(Math, "random").mockReturnValue(1);
  [wires, phases, frames, cursor, dropped, signedOut] = [[], [], [], null, 0, false];
  token = () => Promise.resolve("token");
  socket = new LiveSocket(
    "ws://hub/ws",
    {
      token: () => token(),
      dropToken: () => {
        dropped += 1;
      },
      signedOut: () => signedOut,
      cursor: () => cursor,
      forgetCursor: () => {
        cursor = null;
      },
      onFrame: (frame) => frames.push(frame),
      onPhase: (phase) => phases.push(phase),
    },
    () => {
      const wire = new Wire();
      wires.push(wire);
      // The test's wire has the few members that the program uses.
      return wire as unknown as WebSocket;
    },
  );
});

afterEach(() => {
  socket.stop();
  vi.restoreAllMocks();
  vi.useRealTimers();
});

const wire = (index = wires.length - 1): Wire => {
  const found = wires[index];
  if (!found) throw new Error("no connection was opened");
  return found;
};

async function goLive(): Promise<void> {
  socket.start();
  await vi.advanceTimersByTimeAsync(0);
  wire().opens();
  wire().says(welcome);
}

describe("the live connection", () => {
  test("says hello with token and cursor, and is live only after the welcome", async () => {
    cursor = { epoch: "e1", seq: 41 };
    socket.start();
    await vi.advanceTimersByTimeAsync(0);
    wire().opens();
    expect(wire().sent).toEqual([
      { type: "hello", token: "token", cursor: { epoch: "e1", seq: 41 }, client: "web/0.1" },
    ]);
    expect(phases.at(-1)?.name).toBe("connecting");
    wire().says(welcome);
    expect(phases.at(-1)?.name).toBe("live");
  });

  test("frames of a superseded socket are ignored", async () => {
    await goLive();
    wire().drops(1006);
    await vi.advanceTimersByTimeAsync(1_000);
    expect(wires).toHaveLength(2);
    const before = frames.length;
    wire(0).says({ type: "pos", seq: 99 });
    expect(frames).toHaveLength(before);
  });

  test("comes back after what bye says, and a bad token is replaced", async () => {
    await goLive();
    wire().says({ type: "bye", retry_in: 3, reason: "going_away" });
    wire().drops(4012);
    await vi.advanceTimersByTimeAsync(2_900);
    expect(wires).toHaveLength(1);
    await vi.advanceTimersByTimeAsync(200);
    expect(wires).toHaveLength(2);
    wire().drops(4401);
    expect(dropped).toBe(1);
    expect(phases.at(-1)?.name).toBe("waiting");
  });

  test("does not come back where it is not allowed", async () => {
    await goLive();
    wire().drops(4403);
    await vi.advanceTimersByTimeAsync(60_000);
    expect(wires).toHaveLength(1);
    expect(phases.at(-1)).toEqual({ name: "refused", code: 4403 });
  });

  test("a cursor that the hub refuses, and a frame that nobody can read, start over from a snapshot", async () => {
    cursor = { epoch: "e1", seq: 41 };
    await goLive();
    wire().drops(4400);
    expect(cursor).toBeNull();
    vi.spyOn(console, "warn").mockImplementation(() => undefined);
    await vi.advanceTimersByTimeAsync(1_000);
    cursor = { epoch: "e1", seq: 50 };
    wire().opens();
    wire().says({ type: "pos", seq: "soon" });
    expect(cursor).toBeNull();
    expect(wire().closed).toBe(true);
  });

  test("waits longer after every failure, at most 15 s", async () => {
    socket.start();
    await vi.advanceTimersByTimeAsync(0);
    const waits: number[] = [];
    for (let turn = 0; turn < 8; turn += 1) {
      wire().drops(1006);
      const phase = phases.at(-1);
      const wait = phase?.name === "waiting" ? phase.retryAt - Date.now() : -1;
      waits.push(wait);
      await vi.advanceTimersByTimeAsync(wait);
    }
    expect(waits).toEqual([1_000, 2_000, 4_000, 8_000, 15_000, 15_000, 15_000, 15_000]);
  });

  test("a silent line is given up, although nobody closed it", async () => {
    await goLive();
    await vi.advanceTimersByTimeAsync(36_000);
    expect(wire(0).closed).toBe(true);
    expect(wires.length).toBeGreaterThan(1);
  });

  test("commands get their own answers; a lost line answers all that wait", async () => {
    await goLive();
    const first = socket.command("close", { conversation_id: "c" });
    const second = socket.command("reopen", { conversation_id: "c" });
    const [, one, two] = wire().sent.map((frame) => Object(frame).id);
    wire().says({ type: "reply", id: two, ok: false, error: { code: "RESOURCE_NOT_FOUND", message: "gone" } });
    wire().says({ type: "reply", id: one, ok: true, result: {} });
    await expect(first).resolves.toEqual({});
    await expect(second).rejects.toMatchObject({ code: "RESOURCE_NOT_FOUND" });
    const lost = socket.command("close", { conversation_id: "c" });
    wire().drops(1006);
    await expect(lost).rejects.toBeInstanceOf(CommandError);
    await expect(lost).rejects.toMatchObject({ code: "DISCONNECTED" });
    await expect(socket.command("close", {})).rejects.toMatchObject({ code: "DISCONNECTED" });
  });

  test("an absent hub is waited for, an ended session is not", async () => {
    token = () => Promise.reject(new Error("away"));
    socket.start();
    await vi.advanceTimersByTimeAsync(0);
    expect(phases.at(-1)?.name).toBe("waiting");
    signedOut = true;
    await vi.advanceTimersByTimeAsync(1_000);
    expect(phases.at(-1)?.name).toBe("stopped");
    expect(wires).toHaveLength(0);
  });
});
