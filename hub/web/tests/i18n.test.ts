import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import accountAr from "../src/i18n/account.ar.json";
import accountEn from "../src/i18n/account.en.json";
import ar from "../src/i18n/ar.json";
import en from "../src/i18n/en.json";
import failuresAr from "../src/i18n/failures.ar.json";
import failuresEn from "../src/i18n/failures.en.json";
import inboxAr from "../src/i18n/inbox.ar.json";
import inboxEn from "../src/i18n/inbox.en.json";
import peopleAr from "../src/i18n/people.ar.json";
import peopleEn from "../src/i18n/people.en.json";
import { isRecord } from "../src/lib/parse";

function flat(words: unknown, path = ""): Map<string, string> {
  const found = new Map<string, string>();
  if (!isRecord(words)) return found;
  for (const [key, value] of Object.entries(words)) {
    const name = path === "" ? key : `${path}.${key}`;
    if (typeof value === "string") found.set(name, value);
    else for (const [inner, text] of flat(value, name)) found.set(inner, text);
  }
  return found;
}

const PLURAL = /_(zero|one|two|few|many|other)$/;
const bundles = [
  { name: "app", english: flat(en), arabic: flat(ar) },
  { name: "account", english: flat(accountEn), arabic: flat(accountAr) },
  { name: "failures", english: flat(failuresEn), arabic: flat(failuresAr) },
  { name: "inbox", english: flat(inboxEn), arabic: flat(inboxAr) },
  { name: "people", english: flat(peopleEn), arabic: flat(peopleAr) },
];
const bases = (words: Map<string, string>) => new Set([...words.keys()].map((key) => key.replace(PLURAL, "")));
const blanks = (text: string) => [...text.matchAll(/\{\{(\w+)\}\}/g)].map((match) => match[1]).sort();

describe.each(bundles)("languages: $name", ({ english, arabic }) => {
  test("both have the same keys", () => {
    expect([...bases(arabic)].sort()).toEqual([...bases(english)].sort());
  });

  test("Arabic has all six plural forms wherever English has a plural", () => {
    const plurals = [...english.keys()].filter((key) => key.endsWith("_other")).map((key) => key.slice(0, -6));
    const missing = plurals.flatMap((key) =>
      ["zero", "one", "two", "few", "many", "other"].filter((form) => !arabic.has(`${key}_${form}`)).map((form) => `${key}_${form}`),
    );
    expect(missing).toEqual([]);
  });

  test("no text is empty, and translations keep the blanks (a counted form may say its number in words)", () => {
    for (const [key, text] of arabic) {
      expect(text.trim(), key).not.toBe("");
      const source = english.get(key) ?? english.get(key.replace(PLURAL, "_other")) ?? "";
      const wanted = blanks(source);
      const given = blanks(text);
      if (/_(zero|one|two)$/.test(key)) expect(wanted, key).toEqual(expect.arrayContaining(given));
      else expect(given, key).toEqual(wanted);
    }
  });
});

function sources(folder: string): string[] {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    return entry.isDirectory() ? sources(path) : [path];
  });
}

const src = join(import.meta.dirname, "../src");

describe("sources", () => {
  test("every key is used somewhere", () => {
    const code = sources(src).filter((path) => /\.tsx?$/.test(path)).map((path) => readFileSync(path, "utf8")).join("\n");
    const computed = ["queue.", "channel.", "scheme.", "role.", "permission.", "reason.", "kind.", "visibility.", "refusal.", "action.", "noun.", "actor."];
    const unused = bundles.flatMap(({ english }) => [...bases(english)]).filter(
      (key) => !code.includes(`"${key}"`) && !computed.some((prefix) => key.startsWith(prefix)),
    );
    expect(unused).toEqual([]);
  });

  test("style sheets know start and end, not left and right", () => {
    const physical = /(^|[;{\s])(margin|padding|border|inset)?-?(left|right)\s*:|text-align:\s*(left|right)|float:/m;
    for (const path of sources(src).filter((one) => one.endsWith(".css"))) {
      expect(physical.test(readFileSync(path, "utf8")), path).toBe(false);
    }
  });

  test("the parts know nothing of the product, and nobody writes HTML from text", () => {
    for (const path of sources(join(src, "ui")).filter((one) => /\.tsx?$/.test(one))) {
      expect(readFileSync(path, "utf8"), path).not.toMatch(/from "\.\.\/(features|api|realtime|app|phone)/);
    }
    for (const path of sources(src).filter((one) => /\.tsx?$/.test(one))) {
      expect(readFileSync(path, "utf8"), path).not.toMatch(/dangerouslySetInnerHTML|\.innerHTML|insertAdjacentHTML|document\.write/);
    }
  });
});
