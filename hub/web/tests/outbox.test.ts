import { describe, expect, test } from "vitest";
import { AT_ONCE, type Outbox, isTransient, nextDue, reduceOutbox, sendable, unsentCount } from "../src/realtime/outbox";
import { unsent } from "./rows";

const refs = (outbox: Outbox) => outbox.map((one) => `${one.clientRef}:${one.state}`);

describe("unsent messages", () => {
  test("one conversation keeps its order, others do not wait for it", () => {
    const outbox = [
      unsent({ clientRef: "a", state: "sending" }),
      unsent({ clientRef: "b" }),
      unsent({ clientRef: "c", conversationId: "c2" }),
      unsent({ clientRef: "d", conversationId: "c2" }),
    ];
    expect(sendable(outbox, 0).map((one) => one.clientRef)).toEqual(["c"]);
  });

  test("a hundred conversations do not flood the hub", () => {
    const many = Array.from({ length: 100 }, (_, index) =>
      unsent({ clientRef: `r${index}`, conversationId: `c${index}`, state: index < 3 ? "sending" : "queued" }),
    );
    expect(sendable(many, 0)).toHaveLength(AT_ONCE - 3);
  });

  test("a question holds back what follows it, a refusal does not", () => {
    expect(sendable([unsent({ state: "conflict" }), unsent({ clientRef: "b" })], 0)).toEqual([]);
    expect(sendable([unsent({ state: "refused" }), unsent({ clientRef: "b" })], 0)).toHaveLength(1);
  });

  test("O07 a lost connection sends again with the same client_ref", () => {
    let outbox: Outbox = reduceOutbox([], { type: "composed", message: unsent() });
    outbox = reduceOutbox(outbox, { type: "sending", clientRef: "r1" });
    expect(sendable(outbox, 0)).toEqual([]);
    outbox = reduceOutbox(outbox, { type: "connection-lost" });
    expect(sendable(outbox, 0).map((one) => one.clientRef)).toEqual(["r1"]);
    expect(sendable(outbox, 0)[0]?.seenSeq).toBe(3);
  });

  test("asked once: sending anyway drops what was seen", () => {
    let outbox = reduceOutbox([unsent({ state: "sending" })], { type: "conflict", clientRef: "r1", messages: ["m7"] });
    expect(outbox[0]?.conflictIds).toEqual(["m7"]);
    outbox = reduceOutbox(outbox, { type: "send-anyway", clientRef: "r1" });
    expect(outbox[0]).toMatchObject({ state: "queued", seenSeq: null, clientRef: "r1" });
  });

  test("a busy hub is tried again later, and the wait is known", () => {
    const outbox = reduceOutbox([unsent({ state: "sending" })], { type: "deferred", clientRef: "r1", until: 5_000 });
    expect(sendable(outbox, 4_000)).toEqual([]);
    expect(nextDue(outbox, 4_000)).toBe(1_000);
    expect(sendable(outbox, 5_000)).toHaveLength(1);
    expect(outbox[0]?.attempts).toBe(1);
  });

  test("retry keeps the client_ref, discard forgets the message", () => {
    const refused = reduceOutbox([unsent({ state: "sending" })], {
      type: "refused", clientRef: "r1", code: "VALIDATION_ERROR", text: "no",
    });
    expect(refs(reduceOutbox(refused, { type: "retry", clientRef: "r1" }))).toEqual(["r1:queued"]);
    expect(reduceOutbox(refused, { type: "discard", clientRef: "r1" })).toEqual([]);
  });

  test("what has become a row is gone, and nothing changes without one", () => {
    const outbox = [unsent(), unsent({ clientRef: "r2" })];
    expect(refs(reduceOutbox(outbox, { type: "landed", clientRefs: new Set(["r1"]) }))).toEqual(["r2:queued"]);
    expect(reduceOutbox(outbox, { type: "landed", clientRefs: new Set(["x"]) })).toBe(outbox);
  });

  test("the badge counts what a person would call unsent", () => {
    const outbox = [
      unsent({ state: "sending" }), unsent({ state: "accepted" }), unsent({ state: "refused" }),
      unsent({ state: "queued", attempts: 2 }),
    ];
    expect(unsentCount(outbox, true)).toBe(2);
    expect(unsentCount(outbox, false)).toBe(3);
  });

  test("only the hub's own troubles are tried again without asking", () => {
    expect(isTransient("SERVICE_UNAVAILABLE")).toBe(true);
    expect(isTransient("VALIDATION_ERROR")).toBe(false);
    expect(isTransient("INSUFFICIENT_PERMISSIONS")).toBe(false);
  });
});
