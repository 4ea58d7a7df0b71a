/** /rest/v1: rows of a table, parsed. Filters are written as the API's own query parameters. */
import { type Parser, list } from "../lib/parse";
import { type TableName, columns } from "./models";
import { sendSigned } from "./session";

export type Filters = Record<string, string>;

function path(table: TableName, filters: Filters, select = true): string {
  const query = new URLSearchParams(filters);
  if (select && !query.has("select")) query.set("select", columns[table]);
  return `/rest/v1/${table}?${query.toString()}`;
}

export async function rows<T>(
  table: TableName, parser: Parser<T>, filters: Filters, signal?: AbortSignal,
): Promise<T[]> {
  const answer = await sendSigned(path(table, filters), signal ? { signal } : {});
  return list(parser)(answer.body, table);
}

/** Rows whose id is among `ids`, asked for in pieces that fit a request line. */
export async function rowsById<T>(table: TableName, parser: Parser<T>, ids: readonly string[]): Promise<T[]> {
  const pieces: Promise<T[]>[] = [];
  for (let start = 0; start < ids.length; start += 100) {
    pieces.push(rows(table, parser, { id: `in.(${ids.slice(start, start + 100).join(",")})` }));
  }
  return (await Promise.all(pieces)).flat();
}

/** How many rows match, from Content-Range ("0-0/57"); null where the hub did not say. */
export async function count(table: TableName, filters: Filters): Promise<number | null> {
  const answer = await sendSigned(path(table, { ...filters, select: "id", limit: "1" }), {
    headers: { Prefer: "count=exact" },
  });
  const total = /\/(\d+)$/.exec(answer.headers.get("Content-Range") ?? "")?.[1];
  return total === undefined ? null : Number(total);
}

export async function insert<T>(table: TableName, parser: Parser<T>, row: Record<string, unknown>): Promise<T> {
  const answer = await sendSigned(path(table, {}), {
    method: "POST",
    body: row,
    headers: { Prefer: "return=representation" },
  });
  const [first] = list(parser)(answer.body, table);
  if (first === undefined) throw new Error(`${table}: the new row did not come back`);
  return first;
}

export async function patch(table: TableName, filters: Filters, change: Record<string, unknown>): Promise<void> {
  await sendSigned(path(table, filters, false), {
    method: "PATCH",
    body: change,
    headers: { Prefer: "return=minimal" },
  });
}
