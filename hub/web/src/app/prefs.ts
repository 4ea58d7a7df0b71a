/** What a person chose for this browser. */
import { create } from "zustand";
import { bool, object, oneOf, withDefault } from "../lib/parse";
import { load, save } from "../lib/storage";

const prefs = object({
  singleKeys: withDefault(bool, true),
  density: withDefault(oneOf("cosy", "compact"), "cosy"),
  panel: withDefault(bool, true),
  notices: withDefault(bool, false),
});
type Prefs = ReturnType<typeof prefs>;

const KEY = "hub.prefs";

export const usePrefs = create<Prefs>()(() => load(KEY, prefs, { singleKeys: true, density: "cosy", panel: true, notices: false }));

export function setPrefs(change: Partial<Prefs>): void {
  usePrefs.setState(change);
  save(KEY, usePrefs.getState());
}
