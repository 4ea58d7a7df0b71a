/** The browser's storage, which may be full, switched off or hold an older version's text. */
import { type Parser, parseJson } from "./parse";

export function load<T>(key: string, parser: Parser<T>, fallback: T): T {
  try {
    const text = localStorage.getItem(key);
    return text === null ? fallback : parser(parseJson(text), key);
  } catch {
    return fallback;
  }
}

/** False when the browser refused to keep it. */
export function save(key: string, value: unknown): boolean {
  try {
    localStorage.setItem(key, JSON.stringify(value));
    return true;
  } catch {
    return false;
  }
}
