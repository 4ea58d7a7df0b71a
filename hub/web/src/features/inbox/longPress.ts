/** A finger that stays on a row picks it; while several are picked, a tap picks the next. A mouse has its boxes. */
import { useRef } from "react";

const HOLD_MS = 450;
/** A finger that moves further scrolls. */
const STILL_PX = 10;

export interface LongPress {
  onPointerDown: (event: React.PointerEvent) => void;
  onPointerMove: (event: React.PointerEvent) => void;
  onPointerUp: () => void;
  onPointerCancel: () => void;
  onContextMenu: (event: React.MouseEvent) => void;
  onClickCapture: (event: React.MouseEvent) => void;
}

/** `picking`: a tap picks instead of opening. `onPick` gets the element's `data-pick`. */
export function useLongPress(picking: boolean, onPick: (id: string) => void): LongPress {
  const press = useRef<{ x: number; y: number; timer: ReturnType<typeof setTimeout> } | null>(null);
  const touch = useRef(false);
  const held = useRef(false);
  const over = () => {
    clearTimeout(press.current?.timer);
    press.current = null;
  };
  const idOf = (event: React.SyntheticEvent): string | undefined =>
    event.currentTarget instanceof HTMLElement ? event.currentTarget.dataset["pick"] : undefined;
  return {
    onPointerDown: (event) => {
      over();
      touch.current = event.pointerType === "touch";
      held.current = false;
      const id = idOf(event);
      if (!touch.current || picking || id === undefined) return;
      const timer = setTimeout(() => {
        press.current = null;
        held.current = true;
        navigator.vibrate?.(12);
        onPick(id);
      }, HOLD_MS);
      press.current = { x: event.clientX, y: event.clientY, timer };
    },
    onPointerMove: (event) => {
      const start = press.current;
      if (start && Math.hypot(event.clientX - start.x, event.clientY - start.y) > STILL_PX) over();
    },
    onPointerUp: over,
    onPointerCancel: over,
    onContextMenu: (event) => {
      // The browser's menu of a link would cover what the finger has just done.
      if (touch.current) event.preventDefault();
    },
    onClickCapture: (event) => {
      const id = idOf(event);
      const tap = touch.current && picking && id !== undefined;
      if (!held.current && !tap) return;
      // The box itself does what it does.
      if (event.target instanceof Element && event.target.closest("label")) return;
      event.preventDefault();
      event.stopPropagation();
      if (tap && !held.current) onPick(id);
      held.current = false;
    },
  };
}
