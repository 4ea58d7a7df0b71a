const KB = 1_024;
const MB = KB * KB;

/** Sizes of files as people of a language write them, in the steps that limits are named in: "840 kB", "3.1 MB". */
export function fileSize(bytes: number, lang: string): string {
  const format = (value: number, unit: "byte" | "kilobyte" | "megabyte", digits = 0) =>
    new Intl.NumberFormat(lang, {
      style: "unit", unit, unitDisplay: unit === "byte" ? "long" : "short", maximumFractionDigits: digits,
    }).format(value);
  if (bytes < KB) return format(bytes, "byte");
  if (bytes < 999.5 * KB) return format(bytes / KB, "kilobyte");
  return format(bytes / MB, "megabyte", bytes < 100 * MB ? 1 : 0);
}

/** "0:07", "12:30". */
export function playTime(seconds: number): string {
  const whole = Number.isFinite(seconds) ? Math.max(0, Math.floor(seconds)) : 0;
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}
