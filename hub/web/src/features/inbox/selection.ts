/** Conversations picked for a deed on all of them. */
import { create } from "zustand";

export const useSelection = create<{ ids: ReadonlySet<string> }>()(() => ({ ids: new Set() }));

export function pick(id: string, on?: boolean): void {
  const ids = new Set(useSelection.getState().ids);
  if (on ?? !ids.has(id)) ids.add(id);
  else ids.delete(id);
  useSelection.setState({ ids });
}

export const pickAll = (ids: readonly string[]): void => useSelection.setState({ ids: new Set(ids) });

export function unpickAll(): void {
  if (useSelection.getState().ids.size) useSelection.setState({ ids: new Set() });
}
