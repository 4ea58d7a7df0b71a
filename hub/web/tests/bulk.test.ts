import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { each } from "../src/app/bulk";

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});

describe("one deed on many conversations", () => {
  test("keeps the order and a pace below the hub's limit of 30 frames a second", async () => {
    const items = Array.from({ length: 60 }, (_, index) => index);
    const started: number[] = [];
    const running = each(items, (item) => {
      started.push(item);
      return Promise.resolve();
    });
    await vi.advanceTimersByTimeAsync(1_000);
    expect(started.length).toBeLessThanOrEqual(20);
    await vi.advanceTimersByTimeAsync(4_000);
    expect((await running).done).toEqual(items);
    expect(started).toEqual(items);
  });

  test("a refusal of one leaves the others done", async () => {
    const running = each(["a", "b", "c"], (item) => (item === "b" ? Promise.reject(new Error("no")) : Promise.resolve()));
    await vi.advanceTimersByTimeAsync(1_000);
    const { done, failed } = await running;
    expect(done).toEqual(["a", "c"]);
    expect(failed.map((one) => one.item)).toEqual(["b"]);
  });
});
