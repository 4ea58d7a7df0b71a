/** `{{variable}}` in saved replies. */

const PLACEHOLDER = /\{\{\s*([\p{L}\p{N}_.]+)\s*\}\}/gu;

/** Fills every placeholder that has a non-empty value; the others stay as they are, so that they are seen. */
export function fillPlaceholders(text: string, values: ReadonlyMap<string, string>): string {
  return text.replace(PLACEHOLDER, (whole, name: string) => values.get(name.toLowerCase()) || whole);
}

/** Names of the placeholders that are still open. */
export function openPlaceholders(text: string): string[] {
  return [...new Set(Array.from(text.matchAll(PLACEHOLDER), (match) => match[1] ?? ""))];
}
