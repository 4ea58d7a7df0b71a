import { describe, expect, test } from "vitest";
import { curls, quoted } from "../src/features/settings/curl";
import { reconnectDelay } from "../src/lib/backoff";
import { newId } from "../src/lib/ids";
import { list, nullable, num, object, oneOfOr, str } from "../src/lib/parse";
import { fold, initials, segments } from "../src/lib/text";
import { dayLabel, daysBetween, duration } from "../src/lib/time";

test("parsers name the place of what does not fit", () => {
  const row = object({ id: str, tags: list(str), n: nullable(num) });
  expect(row({ id: "a", tags: ["x"], more: 1 }, "row")).toEqual({ id: "a", tags: ["x"], n: null });
  expect(() => row({ id: "a", tags: ["x", 3] }, "row")).toThrow("row.tags[1]");
  expect(() => row(null, "row")).toThrow("row: expected an object, found null");
  expect(oneOfOr("other", "a", "other")("brand-new", "x")).toBe("other");
});

test("reconnect waits with full jitter between 0.5 and 15 s", () => {
  for (let attempt = 0; attempt < 40; attempt += 1) {
    expect(reconnectDelay(attempt, () => 0)).toBe(500);
    expect(reconnectDelay(attempt, () => 1)).toBeLessThanOrEqual(15_000);
  }
  expect(reconnectDelay(0, () => 1)).toBe(1_000);
  expect(reconnectDelay(30, () => 1)).toBe(15_000);
});

test("ids are uuids, also where the browser does not make them", () => {
  const { randomUUID } = crypto;
  const uuid = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;
  expect(newId()).toMatch(uuid);
  Reflect.set(crypto, "randomUUID", undefined);
  expect(newId()).toMatch(uuid);
  Reflect.set(crypto, "randomUUID", randomUUID);
});

describe("text", () => {
  test("folding makes alike what people type alike", () => {
    expect(fold("أحمد إبراهيم")).toBe(fold("احمد ابراهيم"));
    expect(fold("مُحَمَّـــد")).toBe(fold("محمد"));
    expect(fold("مدرسة")).toBe(fold("مدرسه"));
    expect(fold("ليلى")).toBe(fold("ليلي"));
    expect(fold("José")).toBe("jose");
    expect(fold("٢٠١٠")).toBe("2010");
  });

  test("initials take whole letters", () => {
    expect(initials("Omar Farouk")).toBe("O\u200cF");
    expect(initials("نور")).toBe("ن");
    expect(initials("👩‍🚀 Ada")).toContain("A");
    expect(initials("  ")).toBe("");
    expect(initials("+2010")).toBe("2");
  });

  test("only http(s) and mail become links, and the stop after them does not", () => {
    const found = segments("see https://a.example/x?y=1. or mail me@b.example, not javascript:alert(1) أو http://ع.example/صفحة؟");
    const links = found.flatMap((part) => (part.kind === "link" ? [part.href] : []));
    expect(links).toEqual(["https://a.example/x?y=1", "mailto:me@b.example", "http://ع.example/صفحة"]);
    expect(found.map((part) => part.text).join("")).toContain("not javascript:alert(1)");
  });
});

describe("time", () => {
  test("days are the calendar's, not spans of 24 hours", () => {
    expect(daysBetween(new Date(2026, 10, 23, 23, 59).getTime(), new Date(2026, 10, 24, 0, 1).getTime())).toBe(1);
  });
  test("words of the language", () => {
    const now = new Date(2026, 10, 24, 12).getTime();
    expect(dayLabel(now, now, "en")).toBe("Today");
    expect(dayLabel(now - 86_400_000, now, "ar-EG-u-nu-latn")).toBe("أمس");
    expect(duration(2 * 3_600_000, "en")).toBe("2 hours");
  });
});

test("curl lines survive a quote in what they carry", () => {
  expect(quoted("it's")).toBe(`'it'\\''s'`);
  expect(curls("http://h", "k", "o'neil@x.example").signIn).toContain("o'\\''neil");
});
