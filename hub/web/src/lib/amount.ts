/** Amounts as people type them. */

const PLAIN = /^\d+(?:\.\d+)?$/;
const GROUPED = /^\d{1,3}(?:,\d{3})+(?:\.\d+)?$/;

/** "12,500.50" and "١٢٬٥٠٠٫٥" → 12500.5; null for nothing; undefined for what is no amount, or could be read in two
 * ways ("12,5"). */
export function amountOf(text: string): number | null | undefined {
  const plain = text
    .replace(/[٠-٩]/g, (digit) => String(digit.charCodeAt(0) - 0x0660))
    .replace(/[۰-۹]/g, (digit) => String(digit.charCodeAt(0) - 0x06f0))
    .replaceAll("٬", ",")
    .replaceAll("٫", ".")
    .replace(/[\s\u00a0\u202f\u200e\u200f]/g, "");
  if (plain === "") return null;
  if (!PLAIN.test(plain) && !GROUPED.test(plain)) return undefined;
  const value = Number(plain.replaceAll(",", ""));
  return value <= Number.MAX_SAFE_INTEGER ? value : undefined;
}
