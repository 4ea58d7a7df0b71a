import { describe, expect, test } from "vitest";
import type { Conversation } from "../src/api/models";
import { threadItems } from "../src/features/inbox/items";
import { bodyOf, quickReplies, slashAt, valuesFor } from "../src/features/inbox/quick";
import { holdOrder, searchQueue, sortQueue } from "../src/features/inbox/queue";
import { replyWindow } from "../src/features/inbox/window";
import { openPlaceholders } from "../src/lib/placeholders";
import { contact, conversation, message, note, template as aTemplate, unsent } from "./rows";

const kinds = (items: ReturnType<typeof threadItems>) => items.map((item) => item.kind);

describe("thread items", () => {
  test("days, the line above what is new, and joined bubbles", () => {
    const rows = [
      message({ conv_seq: 1, created_at: "2026-11-23T12:00:00Z" }),
      message({ conv_seq: 2, created_at: "2026-11-24T12:00:00Z" }),
      message({ conv_seq: 3, created_at: "2026-11-24T12:01:00Z" }),
      message({ conv_seq: 4, created_at: "2026-11-24T12:02:00Z" }),
    ];
    const items = threadItems(rows, [], 2, "me");
    expect(kinds(items)).toEqual(["day", "message", "day", "message", "new", "message", "message"]);
    expect(items.flatMap((item) => (item.kind === "message" ? [item.joined] : []))).toEqual([
      false, false, false, true,
    ]);
  });

  test("the line stands above a customer's message, never above our own", () => {
    const rows = [message({ conv_seq: 1 }), message({ conv_seq: 2, direction: "OUTBOUND" })];
    expect(kinds(threadItems(rows, [], 1, "me"))).not.toContain("new");
  });

  test("a bubble keeps its key from composing to delivery, and is there once", () => {
    const before = threadItems([], [unsent()], null, "me");
    const row = message({ direction: "OUTBOUND", client_ref: "r1" });
    const after = threadItems([row], [unsent()], null, "me");
    expect(before.at(-1)?.key).toBe("r1");
    expect(after.filter((item) => item.key === "r1")).toHaveLength(1);
    expect(after.at(-1)?.kind).toBe("message");
  });

  test("a note stands between the messages of its time, and parts them", () => {
    const rows = [1, 2, 3].map((seq) => message({ conv_seq: seq }));
    const items = threadItems(rows, [unsent()], null, "me", [note({ created_at: "2026-11-24T10:02:30Z" })]);
    expect(kinds(items).slice(0, 5)).toEqual(["day", "message", "message", "note", "message"]);
    const last = items[4];
    expect(last?.kind === "message" && last.joined).toBe(false);
    expect(kinds(threadItems([], [], null, "me", [note()]))).toEqual(["day", "note"]);
  });

  test("keys are unique", () => {
    const rows = Array.from({ length: 40 }, (_, index) => message({ conv_seq: index + 1 }));
    const keys = threadItems(rows, [unsent()], 10, "me").map((item) => item.key);
    expect(new Set(keys).size).toBe(keys.length);
  });
});

describe("the list", () => {
  const rows = ["a", "b", "c"].map((id, index) =>
    conversation({ id, contact_id: id, last_message_at: `2026-11-24T1${index}:00:00Z` }),
  );

  test("newest first, and the search folds Arabic spellings", () => {
    const contacts = new Map([["b", contact({ id: "b", first_name: "أحمد", last_name: "على" })]]);
    const map = new Map(rows.map((row) => [row.id, row]));
    const sorted = sortQueue(map, "all", "me");
    expect(sorted.map((row) => row.id)).toEqual(["c", "b", "a"]);
    expect(searchQueue(sorted, contacts, "احمد علي").map((row) => row.id)).toEqual(["b"]);
    expect(searchQueue(sorted, contacts, " ")).toBe(sorted);
    expect(sortQueue(map, "mine", "me")).toEqual([]);
  });

  test("CONV-09 the next order from the last one is the order from nothing", () => {
    let seed = 7;
    const dice = (sides: number) => (seed = (seed * 1_103_515_245 + 12_345) % 2_147_483_648) % sides;
    const stamp = () => new Date(1_790_000_000_000 + dice(50) * 60_000).toISOString();
    const map = new Map<string, Conversation>();
    let before: readonly Conversation[] = [];
    for (let round = 0; round < 300; round += 1) {
      for (let change = dice(4); change >= 0; change -= 1) {
        const id = `c${dice(60)}`;
        if (dice(6) === 0) map.delete(id);
        else {
          map.set(id, conversation({
            id, status: dice(5) === 0 ? "CLOSED" : "OPEN", last_message_at: dice(9) === 0 ? null : stamp(), version: round,
          }));
        }
      }
      before = sortQueue(map, "all", "me", before);
      expect(before.map((row) => row.id), `seed 7, round ${round}`).toEqual(sortQueue(map, "all", "me").map((row) => row.id));
    }
  });

  test("rows keep their places under the pointer; new ones wait and are counted", () => {
    const newest = [...rows].reverse();
    const held = holdOrder(newest, ["a", "b", "left"]);
    expect(held.rows.map((row) => row.id)).toEqual(["a", "b"]);
    expect(held.fresh).toBe(1);
  });

  test("older rows that a scroller loads stand below the held ones", () => {
    const newest = [...rows].reverse();
    const held = holdOrder(newest, ["c", "b"]);
    expect(held.rows.map((row) => row.id)).toEqual(["c", "b", "a"]);
    expect(held.fresh).toBe(0);
  });
});

describe("quick replies", () => {
  const template = (name: string, text: string) =>
    aTemplate({ id: name, name, category: "QUICK_REPLY", components: [{ type: "HEADER" }, { type: "BODY", text }] });

  test("the slash counts at the start and after a space only", () => {
    expect(slashAt("/ho", 3)).toEqual({ start: 0, query: "ho" });
    expect(slashAt("see /ho there", 7)).toEqual({ start: 4, query: "ho" });
    expect(slashAt("1/2", 3)).toBeNull();
    expect(slashAt("https://x", 9)).toBeNull();
    expect(slashAt("مرحبا /شك", 9)).toEqual({ start: 6, query: "شك" });
  });

  test("known values are filled in, unknown ones stay and block", () => {
    const values = valuesFor(contact({ custom_fields: { plan: "Gold" } }), "Dana");
    const [found] = quickReplies([template("offer", "{{name}}, {{ plan }} by {{agent}}: {{price}}")], "off", values);
    expect(found?.text).toBe("Layla, Gold by Dana: {{price}}");
    expect(openPlaceholders(found?.text ?? "")).toEqual(["price"]);
  });

  test("names and texts are searched, templates without a body are not offered", () => {
    const all = [template("hours", "We open at nine"), template("empty", "")];
    expect(quickReplies(all, "nine", new Map()).map((one) => one.name)).toEqual(["hours"]);
    expect(bodyOf(aTemplate({ components: [] }))).toBe("");
  });
});

describe("the 24-hour window", () => {
  const now = Date.parse("2026-11-24T12:00:00Z");
  test("open, about to close, closed, never opened, not a thing of this channel", () => {
    expect(replyWindow("WHATSAPP_CLOUD", "2026-11-24T11:00:00Z", now)).toEqual({ state: "open" });
    expect(replyWindow("WHATSAPP_CLOUD", "2026-11-23T13:00:00Z", now)).toEqual({ state: "soon", leftMs: 3_600_000 });
    expect(replyWindow("WHATSAPP_CLOUD", "2026-11-23T11:59:00Z", now)).toEqual({ state: "closed" });
    expect(replyWindow("WHATSAPP_BUSINESS", null, now)).toEqual({ state: "never" });
    expect(replyWindow("EMAIL", null, now)).toEqual({ state: "none" });
  });
});
