import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { ApiError } from "../src/api/http";
import { Wanted, untilAnswered } from "../src/realtime/wanted";

const away = () => new ApiError(503, "SERVICE_UNAVAILABLE", "away");
const busy = () => new ApiError(429, "RATE_LIMIT_EXCEEDED", "busy");
const denied = () => new ApiError(403, "INSUFFICIENT_PERMISSIONS", "no");

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});

type Kind = "messages" | "contacts";

/** A hub that answers with these in turn, then always with success. */
function rig(...failures: (Error | null)[]) {
  const asked: [Kind, string[]][] = [];
  const taken: string[] = [];
  const refused: unknown[] = [];
  const delays: number[] = [];
  const wanted = new Wanted<Kind>({
    read: async (kind, ids) => {
      asked.push([kind, [...ids]]);
      await Promise.resolve();
      const failure = failures.shift();
      if (failure) throw failure;
      return () => taken.push(...ids);
    },
    refused: (error) => refused.push(error),
    delay: (attempt) => {
      delays.push(attempt);
      return 1_000 * 2 ** attempt;
    },
  });
  return { wanted, asked, taken, refused, delays };
}

const settle = () => vi.advanceTimersByTimeAsync(0);

describe("rows that an event did not bring", () => {
  test("a read that met a 503 or a 429 is tried again, later each time, until it is answered", async () => {
    const { wanted, asked, taken, delays } = rig(away(), busy(), new ApiError(0, "NETWORK", ""));
    wanted.want("messages", ["m1", "m2"]);
    await settle();
    expect(taken).toEqual([]);
    expect(wanted.open("messages")).toEqual(["m1", "m2"]);
    await vi.advanceTimersByTimeAsync(999);
    expect(asked).toHaveLength(1);
    await vi.advanceTimersByTimeAsync(1 + 2_000 + 4_000);
    expect(asked).toHaveLength(4);
    expect(delays).toEqual([0, 1, 2]);
    expect(taken).toEqual(["m1", "m2"]);
    expect(wanted.open("messages")).toEqual([]);
    await vi.advanceTimersByTimeAsync(60_000);
    expect(asked).toHaveLength(4);
  });

  test("what is wanted during the wait joins the one next try", async () => {
    const { wanted, asked, taken } = rig(away());
    wanted.want("messages", ["m1"]);
    await settle();
    wanted.want("messages", ["m2"]);
    wanted.want("contacts", ["p1"]);
    await settle();
    expect(asked).toHaveLength(1);
    await vi.advanceTimersByTimeAsync(1_000);
    expect(asked.slice(1)).toEqual([["messages", ["m1", "m2"]], ["contacts", ["p1"]]]);
    expect(taken.toSorted()).toEqual(["m1", "m2", "p1"]);
  });

  test("an id that changes while it is asked for is asked for once more", async () => {
    const { wanted, asked } = rig();
    wanted.want("messages", ["m1"]);
    wanted.want("messages", ["m1"]);
    wanted.want("messages", ["m1", "m2"]);
    expect(asked).toEqual([["messages", ["m1"]]]);
    await settle();
    expect(asked).toEqual([["messages", ["m1"]], ["messages", ["m1", "m2"]]]);
  });

  test("a refusal is an answer: nobody asks again", async () => {
    const { wanted, asked, refused } = rig(denied());
    wanted.want("contacts", ["p1"]);
    await vi.advanceTimersByTimeAsync(60_000);
    expect(asked).toHaveLength(1);
    expect(refused).toHaveLength(1);
    expect(wanted.open("contacts")).toEqual([]);
  });

  test("after a change of organization nothing of the former is asked or put in", async () => {
    const { wanted, asked, taken } = rig(null, away());
    wanted.want("messages", ["m1"]);
    wanted.forget();
    await settle();
    expect(taken).toEqual([]);
    wanted.want("messages", ["m2"]);
    await settle();
    wanted.forget();
    await vi.advanceTimersByTimeAsync(60_000);
    expect(asked).toHaveLength(2);
    wanted.want("messages", ["m3"]);
    await settle();
    expect(taken).toEqual(["m3"]);
  });
});

describe("a read somebody waits for", () => {
  test("goes on until it is answered", async () => {
    const failures = [away(), busy()];
    let done = 0;
    const reading = untilAnswered(async () => {
      await Promise.resolve();
      const failure = failures.shift();
      if (failure) throw failure;
      done += 1;
    }, () => false, () => 10);
    await vi.advanceTimersByTimeAsync(20);
    await reading;
    expect(done).toBe(1);
  });

  test("ends with a refusal, or when nobody wants it any more", async () => {
    await expect(untilAnswered(() => Promise.reject(denied()), () => false)).rejects.toThrow("no");
    let wanted = true;
    let tries = 0;
    const reading = untilAnswered(() => {
      tries += 1;
      return Promise.reject(away());
    }, () => !wanted, () => 10);
    await settle();
    wanted = false;
    await vi.advanceTimersByTimeAsync(50);
    await reading;
    expect(tries).toBe(1);
  });
});
