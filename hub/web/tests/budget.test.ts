/** What a browser has to fetch, compressed, from the manifest of the last build. */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { describe, expect, test } from "vitest";
import { isRecord, list, object, parseJson, str, withDefault } from "../src/lib/parse";

const dist = join(import.meta.dirname, "../dist");
const chunk = object({
  file: str,
  imports: withDefault(list(str), []),
  css: withDefault(list(str), []),
});

function read(): Map<string, ReturnType<typeof chunk>> {
  const json = parseJson(readFileSync(join(dist, "manifest.json"), "utf8"));
  return new Map(Object.entries(isRecord(json) ? json : {}).map(([name, value]) => [name, chunk(value, name)]));
}

const size = (file: string): number => gzipSync(readFileSync(join(dist, file)), { level: 9 }).length;

/** All files that come with a chunk: its own, its static imports' and their style sheets. */
function files(manifest: ReturnType<typeof read>, name: string, seen = new Set<string>()): Set<string> {
  const one = manifest.get(name);
  if (!one || seen.has(one.file)) return seen;
  seen.add(one.file);
  for (const sheet of one.css) seen.add(sheet);
  for (const other of one.imports) files(manifest, other, seen);
  return seen;
}

function kilobytes(names: Iterable<string>, ending: string): number {
  let total = 0;
  for (const name of names) if (name.endsWith(ending)) total += size(name);
  return total / 1024;
}

describe.skipIf(!existsSync(join(dist, "manifest.json")))("budgets", () => {
  const manifest = existsSync(join(dist, "manifest.json")) ? read() : new Map<string, ReturnType<typeof chunk>>();
  const entry = files(manifest, "index.html");

  test("entry: at most 220 KB of script and 45 KB of style", () => {
    const [script, style] = [kilobytes(entry, ".js"), kilobytes(entry, ".css")];
    console.info(`entry ${script.toFixed(1)} KB script, ${style.toFixed(1)} KB style`);
    expect(script).toBeLessThanOrEqual(220);
    expect(style).toBeLessThanOrEqual(45);
  });

  test("any page: at most 170 KB more", () => {
    const pages = [...manifest.keys()].filter((name) => /Page\.tsx$|Frame\.tsx$/.test(name));
    expect(pages.length).toBeGreaterThan(5);
    for (const page of pages) {
      const more = [...files(manifest, page)].filter((file) => !entry.has(file));
      const total = kilobytes(more, ".js") + kilobytes(more, ".css");
      console.info(`${page} +${total.toFixed(1)} KB`);
      expect(total, page).toBeLessThanOrEqual(170);
    }
  });

  test("the phone page carries no component kit", () => {
    expect(kilobytes(files(manifest, "phone.html"), ".js")).toBeLessThanOrEqual(130);
  });
});
