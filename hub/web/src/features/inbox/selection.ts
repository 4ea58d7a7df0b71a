/** Conversations picked for a deed on all of them. */
import { create } from "zustand";

/** `on`: picking goes on although none is picked yet, as a finger has no other way to begin. */
export const useSelection = create<{ ids: ReadonlySet<string>; on: boolean }>()(() => ({ ids: new Set(), on: false }));

export function pick(id: string, on?: boolean): void {
  const ids = new Set(useSelection.getState().ids);
  if (on ?? !ids.has(id)) ids.add(id);
  else ids.delete(id);
  useSelection.setState({ ids });
}

export const startPicking = (): void => useSelection.setState({ on: true });

export const pickAll = (ids: readonly string[]): void => useSelection.setState({ ids: new Set(ids) });

export function unpickAll(): void {
  const { ids, on } = useSelection.getState();
  if (ids.size || on) useSelection.setState({ ids: new Set(), on: false });
}
