/** Sizes of files as people of a language write them: "840 kB", "3.1 MB". */
export function fileSize(bytes: number, lang: string): string {
  const [value, unit] =
    bytes < 1_000 ? [bytes, "byte" as const] : bytes < 999_500 ? [bytes / 1_000, "kilobyte" as const] : [bytes / 1_000_000, "megabyte" as const];
  return new Intl.NumberFormat(lang, {
    style: "unit", unit, unitDisplay: "short", maximumFractionDigits: unit === "megabyte" && value < 100 ? 1 : 0,
  }).format(value);
}

/** "0:07", "12:30". */
export function playTime(seconds: number): string {
  const whole = Number.isFinite(seconds) ? Math.max(0, Math.floor(seconds)) : 0;
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}
