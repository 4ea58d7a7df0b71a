import { type RefObject, useEffect, useRef } from "react";

/**
 * Keeps the keyboard in a list whose focused row goes away: focus moves to the list's first link.
 * `rows` is what the list shows; a new value means that rows may have come or gone.
 */
export function useHeldFocus(list: RefObject<HTMLElement | null>, rows: unknown): void {
  const held = useRef(false);

  useEffect(() => {
    // Browsers fire no focusin when a focused element is removed, so `held` stays what it was.
    const look = (event: Event) => {
      held.current = event.target instanceof Node && (list.current?.contains(event.target) ?? false);
    };
    document.addEventListener("focusin", look);
    document.addEventListener("pointerdown", look);
    return () => {
      document.removeEventListener("focusin", look);
      document.removeEventListener("pointerdown", look);
    };
  }, [list]);

  useEffect(() => {
    if (held.current && document.activeElement === document.body) {
      list.current?.querySelector("a")?.focus({ preventScroll: true });
    }
  }, [list, rows]);
}
