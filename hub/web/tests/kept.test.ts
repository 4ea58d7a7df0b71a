import { describe, expect, test } from "vitest";
import { isKnownReason, outlookOf, seesFailures, webhookFailures } from "../src/features/settings/kept";
import { ParseError } from "../src/lib/parse";

const answer = {
  failures: [
    {
      id: "0198f0c2-0000-7000-8000-000000000001", channel: "WHATSAPP_CLOUD", channel_account_id: null,
      reason: "undecodable", error: "JSON is malformed", state: "available", attempts: 0,
      due_at: "2026-11-24T10:00:05+00:00", last_error: null, created_at: "2026-11-24T10:00:00+00:00", bytes: 12,
    },
  ],
  count: 1,
};

describe("kept deliveries", () => {
  test("are read as the hub lists them; another shape is refused", () => {
    expect(webhookFailures(answer, "answer").failures).toEqual(answer.failures);
    expect(() => webhookFailures({ failures: [{ ...answer.failures[0], state: "gone" }] }, "answer")).toThrow(ParseError);
    expect(() => webhookFailures([], "answer")).toThrow(ParseError);
  });

  test("are for owners and administrators, and for nobody before the role is known", () => {
    expect(["OWNER", "ADMIN", "AGENT", null].map((role) => seesFailures({ role }))).toEqual([true, true, false, false]);
    expect(seesFailures(null)).toBe(false);
  });

  test("say what comes next", () => {
    const due_at = "2026-11-24T10:00:05Z";
    const due = Date.parse(due_at);
    expect(outlookOf({ state: "available", due_at }, due - 1)).toEqual({ kind: "next", at: due_at });
    expect(outlookOf({ state: "available", due_at }, due)).toEqual({ kind: "soon" });
    expect(outlookOf({ state: "running", due_at }, due - 1)).toEqual({ kind: "running" });
    expect(outlookOf({ state: "dead", due_at }, due - 1)).toEqual({ kind: "dead" });
  });

  test("have words for the hub's reasons only", () => {
    expect(isKnownReason("undecodable")).toBe(true);
    for (const code of ["toString", "newer_reason", ""]) expect(isKnownReason(code)).toBe(false);
  });
});
