/** Times as people of a language write them. Always with the document's language, never the browser's: mixed
 * directions otherwise give "AM 11:02". */

const formats = new Map<string, Intl.DateTimeFormat>();

function format(lang: string, options: Intl.DateTimeFormatOptions): Intl.DateTimeFormat {
  const key = lang + JSON.stringify(options);
  let found = formats.get(key);
  if (!found) {
    found = new Intl.DateTimeFormat(lang, options);
    formats.set(key, found);
  }
  return found;
}

export function clockTime(at: string | number, lang: string): string {
  return format(lang, { hour: "numeric", minute: "2-digit" }).format(new Date(at));
}

export function fullTime(at: string | number, lang: string): string {
  return format(lang, { dateStyle: "medium", timeStyle: "short" }).format(new Date(at));
}

export function shortDate(at: string | number, lang: string): string {
  return format(lang, { day: "numeric", month: "short", year: "numeric" }).format(new Date(at));
}

/** Local calendar days between two moments; 0 = the same day, 1 = yesterday. */
export function daysBetween(earlier: string | number, later: string | number): number {
  const a = new Date(earlier);
  const b = new Date(later);
  const midnight = (d: Date) => Date.UTC(d.getFullYear(), d.getMonth(), d.getDate());
  return Math.round((midnight(b) - midnight(a)) / 86_400_000);
}

export function sameDay(a: string | number, b: string | number): boolean {
  return daysBetween(a, b) === 0;
}

/** "Today", "Yesterday", a weekday within the last week, else the date. */
export function dayLabel(at: string | number, now: number, lang: string): string {
  const days = daysBetween(at, now);
  if (days === 0 || days === 1) {
    const words = new Intl.RelativeTimeFormat(lang, { numeric: "auto" }).format(-days, "day");
    return words.charAt(0).toLocaleUpperCase(lang) + words.slice(1);
  }
  if (days > 1 && days < 7) return format(lang, { weekday: "long" }).format(new Date(at));
  return shortDate(at, lang);
}

/** The stamp of a list row: the clock today, a weekday this week, else day and month. */
export function rowTime(at: string | number, now: number, lang: string): string {
  const days = daysBetween(at, now);
  if (days <= 0) return clockTime(at, lang);
  if (days < 7) return format(lang, { weekday: "short" }).format(new Date(at));
  return format(lang, { day: "numeric", month: "short" }).format(new Date(at));
}

/** "3 hours" in the language's words, for how long something stays open. */
export function duration(ms: number, lang: string): string {
  const minutes = Math.max(1, Math.round(ms / 60_000));
  const [value, unit] = minutes < 60 ? [minutes, "minute" as const] : [Math.round(minutes / 60), "hour" as const];
  return new Intl.NumberFormat(lang, { style: "unit", unit, unitDisplay: "long" }).format(value);
}
