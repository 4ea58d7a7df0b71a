/** Comparing names the way people look for them. */

/** Folds case, accents and the Arabic spellings that people type for one another (أإآٱ→ا, ى→ي, ة→ه), and drops
 * tatweel and harakat, so that "احمد" finds "أحمد" and "jose" finds "José". Arabic digits become Latin ones. */
export function fold(text: string): string {
  return text
    .normalize("NFKD")
    .replace(/[\u0300-\u036f\u064b-\u065f\u0670\u0640]/g, "")
    .replace(/[أإآٱ]/g, "ا")
    .replace(/ى/g, "ي")
    .replace(/ة/g, "ه")
    .replace(/[٠-٩]/g, (digit) => String(digit.charCodeAt(0) - 0x0660))
    .toLocaleLowerCase("en");
}

export function matches(haystack: string, needle: string): boolean {
  return finder(needle)(fold(haystack));
}

/** For many: tells whether a text, folded before, holds every word of `needle`. */
export function finder(needle: string): (folded: string) => boolean {
  const words = fold(needle).split(/\s+/).filter(Boolean);
  return (folded) => words.every((word) => folded.includes(word));
}

/** Up to two letters for an avatar. Grapheme by grapheme, so that Arabic and emoji are not cut in half. */
export function initials(name: string): string {
  const words = name.trim().split(/\s+/).filter(Boolean);
  const picked = words.length > 1 ? [words[0], words[words.length - 1]] : [words[0]];
  return picked
    .map((word) => (word ? (Array.from(word.replace(/^[^\p{L}\p{N}]+/u, ""))[0] ?? "") : ""))
    // Arabic letters would join up to a word that nobody wrote.
    .join("\u200c")
    .toLocaleUpperCase();
}

export type Segment = { kind: "text"; text: string } | { kind: "link"; text: string; href: string };

const LINK = /\b(https?:\/\/[^\s<>"]+|[\w.+-]+@[\w-]+(?:\.[\w-]+)+)/giu;

/** Splits a message into plain text and the links in it. Only http(s) and mailto come out as links. */
export function segments(text: string): Segment[] {
  const result: Segment[] = [];
  let end = 0;
  for (const match of text.matchAll(LINK)) {
    const trimmed = match[0].replace(/[.,;:!?)\]}'»،؛؟]+$/u, "");
    if (match.index > end) result.push({ kind: "text", text: text.slice(end, match.index) });
    const href = /^https?:/i.test(trimmed) ? trimmed : `mailto:${trimmed}`;
    result.push({ kind: "link", text: trimmed, href });
    end = match.index + trimmed.length;
  }
  if (end < text.length) result.push({ kind: "text", text: text.slice(end) });
  return result;
}
