import { describe, expect, test } from "vitest";
import { type PhoneMessage, parseLive } from "../src/phone/api";
import { choicesOf, emptyChat, foldFrame, put } from "../src/phone/store";

function said(fields: Partial<PhoneMessage> = {}): PhoneMessage {
  const n = fields.n ?? 1;
  return {
    n, id: `w${n}`, account: "1", persona: "layla", from: "business", type: "text", content: `text ${n}`, message: {},
    reply_to: null, at: "2026-11-24T10:00:00Z", state: "sent", error: null, reactions: [], deleted: false,
    media_url: null, ...fields,
  };
}

describe("the customer's phone", () => {
  test("messages stand by number, once, whatever order and however often they come", () => {
    const frames = [said({ n: 3 }), said({ n: 1 }), said({ n: 2 }), said({ n: 3 })];
    const chat = frames.reduce((old, message) => foldFrame(old, { type: "message", message }), emptyChat);
    expect(chat.messages.map((one) => one.n)).toEqual([1, 2, 3]);
  });

  test("a state moves the message that it names, a message ends the typing, a reset forgets", () => {
    let chat = put(emptyChat, [said({ from: "me", state: "stored" })]);
    chat = foldFrame(chat, { type: "state", id: "w1", state: "read" });
    expect(chat.messages[0]?.state).toBe("read");
    chat = foldFrame(chat, { type: "typing", account: "1", typing: true });
    expect(foldFrame(chat, { type: "message", message: said({ n: 2 }) }).typing).toBe(false);
    expect(foldFrame(chat, { type: "reset" })).toBe(emptyChat);
  });

  test("buttons, list rows and quick replies of the business can be pressed; the customer's own cannot", () => {
    const buttons = { interactive: { action: { buttons: [{ reply: { id: "y", title: "Yes" } }, { reply: {} }] } } };
    const rows = { interactive: { action: { sections: [{ rows: [{ id: "r1", title: "Sofa" }] }] } } };
    const quick = { template: { buttons: [{ index: 0, text: "Stop", payload: "STOP" }] } };
    expect(choicesOf(said({ message: buttons })).map((one) => one.says)).toEqual([
      { type: "interactive", interactive: { type: "button_reply", button_reply: { id: "y", title: "Yes" } } },
    ]);
    expect(choicesOf(said({ message: rows })).map((one) => one.label)).toEqual(["Sofa"]);
    expect(choicesOf(said({ message: quick }))[0]?.says).toEqual({
      type: "button", button: { text: "Stop", payload: "STOP" },
    });
    expect(choicesOf(said({ from: "me", message: buttons }))).toEqual([]);
    expect(choicesOf(said({ message: null }))).toEqual([]);
  });

  test("frames of a newer sandbox are skipped", () => {
    expect(parseLive('{"type":"call"}')).toBeUndefined();
    expect(parseLive('{"type":"hello","persona":"layla","n":12}')).toEqual({ type: "hello", n: 12 });
  });
});
