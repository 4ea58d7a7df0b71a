import { describe, expect, test, vi } from "vitest";
import { BlobCache } from "../src/api/blobs";
import { ApiError } from "../src/api/http";
import { mediaOf, safeType } from "../src/api/media";
import { canBeFitted, kindOf, pieces, problemOf, typeNames, typeOf } from "../src/features/inbox/attach";
import { lookOf, nameOfFile, shotsOf } from "../src/features/inbox/shots";
import { fill, firstValues, search, textOf, usable, variablesOf } from "../src/features/inbox/templates";
import { fileSize, playTime } from "../src/lib/bytes";
import { FILE_GONE, type Outbox, awaitsFile, reduceOutbox, sendable, unsent as parseUnsent } from "../src/realtime/outbox";
import { attachment, message, template, unsent } from "./rows";

const stored = (fields: Record<string, unknown> = {}) => ({ file_id: "m1", state: "stored", mime: "image/png", bytes: 9, ...fields });

describe("files of a message", () => {
  test("are read once, and only those that a file was made for", () => {
    const row = message({ metadata: { media: [stored(), { ref: "901", kind: "image" }, "nonsense"] } });
    expect(mediaOf(row)).toHaveLength(1);
    expect(mediaOf(row)[0]).toMatchObject({ file_id: "m1", state: "stored", voice: false, reason: null });
    expect(mediaOf(row)).toBe(mediaOf(row));
    expect(mediaOf(message())).toEqual([]);
  });

  test("a state of a newer hub counts as not there yet", () => {
    expect(mediaOf(message({ metadata: { media: [stored({ state: "scanning" })] } }))[0]?.state).toBe("pending");
  });

  test("only what is shown keeps its type: a page of ours never becomes a document", () => {
    expect(safeType("image/png")).toBe("image/png");
    expect(safeType("audio/ogg; codecs=opus")).toBe("audio/ogg");
    for (const type of ["text/html", "image/svg+xml", "application/xhtml+xml", "", null]) {
      expect(safeType(type)).toBe("application/octet-stream");
    }
  });

  test("the lightbox leafs through pictures and films that are there, not through documents or tombstones", () => {
    const rows = [
      message({ conv_seq: 1, message_type: "image", metadata: { media: [stored({ file_id: "a" })] } }),
      message({ conv_seq: 2, message_type: "document", metadata: { media: [stored({ file_id: "b" })] } }),
      message({ conv_seq: 3, message_type: "video", metadata: { media: [stored({ file_id: "c", mime: "video/mp4" })] } }),
      message({ conv_seq: 4, message_type: "image", metadata: { media: [stored({ file_id: "d", state: "pending" })] } }),
      message({ conv_seq: 5, message_type: "image", deleted_at: "2026-11-24T11:00:00Z", metadata: { media: [stored()] } }),
    ];
    expect(shotsOf(rows).map((one) => one.fileId)).toEqual(["a", "c"]);
    expect(lookOf(message({ message_type: "document" }), { ...mediaOf(rows[0] ?? message())[0]! })).toBe("document");
  });

  test("a nameless file is saved under its kind, time and ending", () => {
    const row = message({ message_type: "image", metadata: { media: [stored()] } });
    const [media] = mediaOf(row);
    expect(media && nameOfFile(row, media, "image")).toBe("image-2026-11-24-10-01-00.png");
  });

  test("sizes and lengths", () => {
    expect(fileSize(512, "en")).toBe("512 bytes");
    expect(fileSize(40_000, "en")).toBe("39 kB");
    expect(fileSize(3_250_000, "en")).toBe("3.1 MB");
    expect(fileSize(26_214_400, "en")).toBe("25 MB");
    expect(fileSize(16 * 1_048_576, "ar-EG-u-nu-latn")).toContain("16");
    expect(playTime(7.9)).toBe("0:07");
    expect(playTime(750)).toBe("12:30");
    expect(playTime(Infinity)).toBe("0:00");
  });
});

describe("what may be attached", () => {
  const whatsapp = (file: Parameters<typeof attachment>[0]) => problemOf(attachment(file), "WHATSAPP_CLOUD");

  test("kinds follow the type; a drawing that can carry a program is a document", () => {
    expect([kindOf("image/png"), kindOf("video/mp4"), kindOf("audio/ogg"), kindOf("application/pdf"), kindOf("")]).toEqual([
      "image", "video", "audio", "document", "document",
    ]);
    expect(kindOf("image/svg+xml")).toBe("document");
    expect(typeOf("audio/x-m4a")).toBe("audio/mp4");
    expect(typeOf("Audio/OGG; codecs=opus")).toBe("audio/ogg");
  });

  test("each limit names itself", () => {
    expect(whatsapp({})).toBeNull();
    expect(whatsapp({ bytes: 0 })).toEqual({ code: "empty" });
    expect(whatsapp({ bytes: 5_242_881 })).toEqual({ code: "tooBig", max: 5_242_880 });
    expect(whatsapp({ mime: "image/heic" })).toMatchObject({ code: "type", types: ["image/jpeg", "image/png"] });
    expect(whatsapp({ kind: "document", mime: "application/pdf", bytes: 26_214_400 })).toBeNull();
    expect(whatsapp({ kind: "document", mime: "application/pdf", bytes: 26_214_401 })).toEqual({ code: "tooBig", max: 26_214_400 });
    expect(typeNames(["image/jpeg", "video/3gpp", "audio/mpeg"])).toBe("JPEG, 3GP, MP3");
  });

  test("elsewhere only the hub's own limit counts", () => {
    expect(problemOf(attachment({ mime: "image/webp" }), "TELEGRAM")).toBeNull();
    expect(problemOf(attachment({ bytes: 30_000_000 }), undefined)).toEqual({ code: "tooBig", max: 26_214_400 });
  });

  test("pictures can be made to fit, nothing else", () => {
    expect(canBeFitted(attachment(), { code: "tooBig", max: 1 })).toBe(true);
    expect(canBeFitted(attachment(), { code: "empty" })).toBe(false);
    expect(canBeFitted(attachment({ kind: "video" }), { code: "tooBig", max: 1 })).toBe(false);
  });

  test("the words stand beneath the last file that can carry them", () => {
    const picture = attachment({ key: "a" });
    const sound = attachment({ key: "b", kind: "audio" });
    const says = (text: string, files: Parameters<typeof pieces>[1]) => pieces(text, files).map((one) => one.content);
    expect(says(" hello ", [])).toEqual(["hello"]);
    expect(says("", [picture])).toEqual([""]);
    expect(says("look", [picture, attachment({ key: "c" }), sound])).toEqual(["", "look", ""]);
    expect(says("listen", [sound])).toEqual(["", "listen"]);
    expect(says("x".repeat(1_025), [picture])).toEqual(["", "x".repeat(1_025)]);
    expect(says("  ", [])).toEqual([]);
  });
});

describe("unsent files", () => {
  const first = unsent({ clientRef: "a", content: "", attachment: attachment() });

  test("go out after they are up, in their place", () => {
    let outbox: Outbox = [first, unsent({ clientRef: "b" }), unsent({ clientRef: "c", conversationId: "c2" })];
    expect(sendable(outbox, 0).map((one) => one.clientRef)).toEqual(["c"]);
    outbox = reduceOutbox(outbox, { type: "uploaded", key: "f1", mediaId: "m1" });
    expect(outbox[0]?.attachment?.mediaId).toBe("m1");
    expect(sendable(outbox, 0).map((one) => one.clientRef)).toEqual(["a", "c"]);
  });

  test("a refused upload holds nobody up, and its retry keeps client_ref and place", () => {
    let outbox = reduceOutbox([first, unsent({ clientRef: "b" })], {
      type: "upload-refused", key: "f1", code: "PAYLOAD_TOO_LARGE", text: "at most 25 MiB",
    });
    expect(outbox[0]).toMatchObject({ state: "refused", errorText: "at most 25 MiB" });
    expect(sendable(outbox, 0).map((one) => one.clientRef)).toEqual(["b"]);
    outbox = reduceOutbox(outbox, { type: "retry", clientRef: "a" });
    expect(outbox[0]).toMatchObject({ state: "queued", clientRef: "a", errorCode: null });
  });

  test("a retry goes up again only when the hub does not have the file any more", () => {
    const up = { ...first, attachment: attachment({ mediaId: "m1" }) };
    const refuse = (code: string) =>
      reduceOutbox(reduceOutbox([up], { type: "refused", clientRef: "a", code, text: "" }), { type: "retry", clientRef: "a" });
    expect(refuse("VALIDATION_ERROR").some(awaitsFile)).toBe(false);
    expect(refuse(FILE_GONE).some(awaitsFile)).toBe(true);
  });

  test("sending anyway is asked once for what was sent together", () => {
    const outbox = [unsent({ clientRef: "a", state: "conflict" }), unsent({ clientRef: "b" }), unsent({ clientRef: "c", conversationId: "c2" })];
    const after = reduceOutbox(outbox, { type: "send-anyway", clientRef: "a" });
    expect(after.map((one) => one.seenSeq)).toEqual([null, null, 3]);
  });

  test("what an older version kept is still read", () => {
    const { attachment: _file, template: _template, ...old } = unsent();
    expect(parseUnsent(old, "kept")).toMatchObject({ attachment: null, template: null });
  });
});

describe("bytes in this browser", () => {
  const cache = (limits: Partial<ConstructorParameters<typeof BlobCache>[1]> = {}) => {
    const asked: string[] = [];
    const waiting = new Map<string, { give: (size: number) => Promise<void>; fail: (error: unknown) => Promise<void>; signal: AbortSignal }>();
    const dropped: string[] = [];
    let made = 0;
    const one = new BlobCache(
      (id, signal) => {
        asked.push(id);
        return new Promise<Blob>((resolve, reject) => {
          const settled = async (step: () => void) => {
            step();
            await Promise.resolve();
            await Promise.resolve();
            await Promise.resolve();
          };
          waiting.set(id, {
            signal,
            give: (size) => settled(() => resolve(new Blob([new Uint8Array(size)]))),
            fail: (error) => settled(() => reject(error)),
          });
        });
      },
      { entries: 2, bytes: 100, atOnce: 2, ...limits },
      { make: () => `blob:${(made += 1)}`, drop: (url) => dropped.push(url) },
    );
    return { one, asked, waiting, dropped };
  };

  test("are read once for all who want them, and kept when nobody does", async () => {
    const { one, asked, waiting, dropped } = cache();
    const heard = vi.fn();
    one.listen("a", heard);
    const [first, second] = [one.want("a"), one.want("a")];
    await waiting.get("a")?.give(10);
    expect(asked).toEqual(["a"]);
    expect(one.look("a")).toMatchObject({ state: "ready", url: "blob:1" });
    expect(heard).toHaveBeenCalledTimes(2);
    first();
    second();
    one.want("a");
    expect(asked).toEqual(["a"]);
    expect(dropped).toEqual([]);
  });

  test("what left the screen before it came is not read on", async () => {
    const { one, waiting } = cache();
    const leave = one.want("a");
    leave();
    expect(waiting.get("a")?.signal.aborted).toBe(true);
    expect(one.look("a").state).toBe("none");
    await waiting.get("a")?.give(10);
    expect(one.look("a").state).toBe("none");
  });

  test("the least recently used are revoked first, those in sight never", async () => {
    const { one, waiting, dropped } = cache();
    for (const id of ["a", "b", "c", "d"]) {
      const leave = one.want(id);
      await waiting.get(id)?.give(10);
      if (id !== "a") leave();
    }
    expect(dropped).toEqual(["blob:2"]);
    expect(one.look("a").state).toBe("ready");
    expect(one.look("b").state).toBe("none");
    const leave = one.want("big");
    await waiting.get("big")?.give(95);
    leave();
    expect(dropped).toEqual(["blob:2", "blob:3", "blob:4"]);
  });

  test("no more than a few at once, the last wanted first, each once", async () => {
    const { one, asked, waiting } = cache({ atOnce: 1 });
    one.want("a");
    const leave = one.want("b");
    one.want("c");
    leave();
    one.want("b");
    await waiting.get("a")?.give(1);
    expect(asked).toEqual(["a", "b"]);
    await waiting.get("b")?.give(1);
    await waiting.get("c")?.give(1);
    expect(asked).toEqual(["a", "b", "c"]);
  });

  test("a failure is told and can be asked again", async () => {
    const { one, asked, waiting } = cache();
    one.want("a");
    await waiting.get("a")?.fail(new ApiError(503, "SERVICE_UNAVAILABLE", "away"));
    expect(one.look("a")).toMatchObject({ state: "failed" });
    one.again("a");
    expect(asked).toEqual(["a", "a"]);
    await waiting.get("a")?.give(1);
    expect(one.look("a").state).toBe("ready");
  });

  test("what was sent from here is not read, and all is revoked at the end", () => {
    const { one, asked, dropped } = cache();
    one.seed("a", new Blob(["x"]));
    one.want("a");
    expect(asked).toEqual([]);
    one.clear();
    expect(dropped).toEqual(["blob:1"]);
    expect(one.look("a").state).toBe("none");
  });
});

describe("templates", () => {
  const order = template({
    components: [
      { type: "HEADER", format: "TEXT", text: "About {{order}}" },
      {
        type: "BODY", text: "Hello {{ name }}, {{order}} comes {{when}}.",
        example: { body_text_named_params: [{ param_name: "when", example: "on Monday" }] },
      },
      { type: "FOOTER", text: "Nile Home" },
      { type: "BUTTONS", buttons: [{ type: "QUICK_REPLY", text: "Thanks" }, { type: "URL", url: "x" }] },
    ],
  });

  test("variables are asked once, in the order they are read, with their examples", () => {
    expect(variablesOf(order).map((one) => one.name)).toEqual(["order", "name", "when"]);
    expect(variablesOf(order).at(-1)?.example).toBe("on Monday");
    const numbered = template({
      components: [{ type: "BODY", text: "{{1}} and {{2}}", example: { body_text: [["Layla", "Tuesday"]] } }],
    });
    expect(variablesOf(numbered).map((one) => one.example)).toEqual(["Layla", "Tuesday"]);
  });

  test("filled in live; what is missing stays to be seen", () => {
    expect(fill("Hello {{ name }}, {{2}}", { name: "ليلى", "2": " " })).toBe("Hello ليلى, {{2}}");
    expect(textOf(order)).toMatchObject({ header: "About {{order}}", footer: "Nile Home", buttons: ["Thanks"] });
    expect(firstValues(variablesOf(order), new Map([["name", "Layla"]]))).toEqual({ order: "", name: "Layla", when: "" });
  });

  test("only approved ones of this account, and no quick replies", () => {
    const all = [
      order,
      template({ id: "draft", status: "PENDING" }),
      template({ id: "quick", category: "QUICK_REPLY" }),
      template({ id: "other", channel_account_id: "w2" }),
      template({ id: "mine", channel_account_id: "w1" }),
      template({ id: "bare", components: [{ type: "HEADER", format: "IMAGE" }] }),
    ];
    expect(usable(all, "w1").map((one) => one.id)).toEqual(["t1", "mine"]);
  });

  test("found by name, also as it reads, and by text", () => {
    expect(search([order], "order upd")).toHaveLength(1);
    expect(search([order], "order_update")).toHaveLength(1);
    expect(search([order], "hello")).toHaveLength(1);
    expect(search([order], "invoice")).toHaveLength(0);
  });
});
