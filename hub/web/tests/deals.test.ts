import { describe, expect, test } from "vitest";
import { pipeline } from "../src/api/models";
import { defaultPipeline, stagesOf } from "../src/features/contacts/stages";
import { earlierTalks } from "../src/features/contacts/talks";
import { amountOf } from "../src/lib/amount";
import { conversation } from "./rows";

describe("amounts", () => {
  test("are read as people write them, in both kinds of digits", () => {
    expect(amountOf("12500")).toBe(12_500);
    expect(amountOf(" 12,500.50 ")).toBe(12_500.5);
    expect(amountOf("1,250,000")).toBe(1_250_000);
    expect(amountOf("١٢٬٥٠٠٫٥")).toBe(12_500.5);
    expect(amountOf("۹۹")).toBe(99);
    expect(amountOf("0")).toBe(0);
  });

  test("nothing is no amount; what could mean two things is refused", () => {
    expect(amountOf("  ")).toBeNull();
    for (const text of ["12,5", "1.2.3", "-4", "12 EGP", "1e9", "NaN", ".", "9".repeat(30)]) {
      expect(amountOf(text), text).toBeUndefined();
    }
  });
});

describe("stages", () => {
  const row = (stages: unknown, is_default = false) =>
    pipeline({ id: `p${String(is_default)}`, name: "Sales", stages, is_default }, "pipelines");

  test("are words or objects, in their order", () => {
    expect(stagesOf(row(["lead", { id: "won", name: "Won" }, { name: "Paid" }, 4, {}, ""]))).toEqual([
      { id: "lead", name: "lead" }, { id: "won", name: "Won" }, { id: "Paid", name: "Paid" },
    ]);
    expect(stagesOf(undefined)).toEqual([]);
  });

  test("come from the default pipeline, else from the first", () => {
    const [first, chosen] = [row([]), row([], true)];
    expect(defaultPipeline([first, chosen])).toBe(chosen);
    expect(defaultPipeline([first])).toBe(first);
    expect(defaultPipeline([])).toBeUndefined();
  });
});

describe("a customer's other conversations", () => {
  test("newest first, without the open one, and as the live inbox knows them", () => {
    const at = (hour: number) => `2026-11-2${hour}T10:00:00Z`;
    const stored = [
      conversation({ id: "a", last_message_at: at(1), version: 1 }),
      conversation({ id: "b", last_message_at: at(2), version: 5 }),
      conversation({ id: "open", last_message_at: at(4) }),
    ];
    const live = new Map([
      ["a", conversation({ id: "a", last_message_at: at(3), version: 2, status: "CLOSED" })],
      ["b", conversation({ id: "b", last_message_at: at(0), version: 4 })],
      ["other", conversation({ id: "other", contact_id: "p2" })],
      ["fresh", conversation({ id: "fresh", last_message_at: at(0) })],
    ]);
    const found = earlierTalks(stored, live, "p1", "open");
    expect(found.map((one) => [one.id, one.status])).toEqual([["a", "CLOSED"], ["b", "OPEN"], ["fresh", "OPEN"]]);
  });
});
