/** Turning unknown JSON into typed values, or refusing it: nothing past the edge of the program is cast. */

export class ParseError extends Error {
  override readonly name = "ParseError";
}

/** Reads `value`, found at `path` of the document, or throws ParseError naming that path. */
export type Parser<T> = (value: unknown, path: string) => T;
export type Parsed<P> = P extends Parser<infer T> ? T : never;

function refuse(expected: string, value: unknown, path: string): never {
  throw new ParseError(`${path}: expected ${expected}, found ${value === null ? "null" : typeof value}`);
}

export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

export const str: Parser<string> = (value, path) =>
  typeof value === "string" ? value : refuse("text", value, path);

export const num: Parser<number> = (value, path) =>
  typeof value === "number" && Number.isFinite(value) ? value : refuse("a number", value, path);

export const bool: Parser<boolean> = (value, path) =>
  typeof value === "boolean" ? value : refuse("true or false", value, path);

export const unknown: Parser<unknown> = (value) => value;

/** Any JSON object, kept as it is (custom fields, metadata). */
export const record: Parser<Record<string, unknown>> = (value, path) =>
  isRecord(value) ? value : refuse("an object", value, path);

export function nullable<T>(inner: Parser<T>): Parser<T | null> {
  return (value, path) => (value === null || value === undefined ? null : inner(value, path));
}

/** A missing or null value becomes `fallback`. */
export function withDefault<T>(inner: Parser<T>, fallback: T): Parser<T> {
  return (value, path) => (value === null || value === undefined ? fallback : inner(value, path));
}

export function list<T>(inner: Parser<T>): Parser<T[]> {
  return (value, path) =>
    Array.isArray(value)
      ? value.map((item: unknown, index) => inner(item, `${path}[${index}]`))
      : refuse("a list", value, path);
}

/** One of the given words. */
export function oneOf<const W extends readonly string[]>(...words: W): Parser<W[number]> {
  return (value, path) => words.find((word) => word === value) ?? refuse(words.join(" or "), value, path);
}

/** One of the given words; a word that a newer server may have added becomes `fallback`. */
export function oneOfOr<const W extends readonly string[]>(fallback: W[number], ...words: W): Parser<W[number]> {
  return (value) => words.find((word) => word === value) ?? fallback;
}

type Shape = Record<string, Parser<unknown>>;
type Shaped<S extends Shape> = { [K in keyof S]: Parsed<S[K]> };

/** An object with these fields; others are ignored, since servers add fields. */
export function object<S extends Shape>(shape: S): Parser<Shaped<S>> {
  const fields = Object.entries(shape);
  return (value, path) => {
    if (!isRecord(value)) return refuse("an object", value, path);
    const result: Record<string, unknown> = {};
    for (const [name, parser] of fields) result[name] = parser(value[name], `${path}.${name}`);
    // The one place where field by field checking is summed up into a type.
    return result as Shaped<S>;
  };
}

/** A union told apart by the word in `tag`; undefined for a word that this program does not know. */
export function tagged<T>(tag: string, variants: Record<string, Parser<T>>): Parser<T | undefined> {
  return (value, path) => {
    if (!isRecord(value)) return refuse("an object", value, path);
    const word = value[tag];
    const variant = typeof word === "string" && Object.hasOwn(variants, word) ? variants[word] : undefined;
    return variant?.(value, path);
  };
}

export function parseJson(text: string): unknown {
  const value: unknown = JSON.parse(text);
  return value;
}
