/** Lists that are read over REST. Events mark them as old by table: keys are ["rest", table, …]. */
import { QueryClient } from "@tanstack/react-query";
import { ApiError } from "../api/http";

export const queryClient = new QueryClient({
  defaultOptions: {
    queries: {
      staleTime: 60_000,
      refetchOnWindowFocus: false,
      retry: (failures, error) => failures < 3 && (!(error instanceof ApiError) || error.transient),
    },
  },
});

/** Views that stand on a table: events name the table. */
const seenThrough: Readonly<Record<string, string>> = { profiles: "memberships" };

/** Tables that just changed; "*" after a resync, when anything may have. */
export function tablesChanged(tables: ReadonlySet<string>): void {
  void queryClient.invalidateQueries({
    predicate: ({ queryKey: [kind, table] }) =>
      kind === "rest" &&
      typeof table === "string" &&
      (tables.has("*") || tables.has(table) || tables.has(seenThrough[table] ?? table)),
  });
}
