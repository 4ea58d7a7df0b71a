import { Check, CheckCheck, CircleAlert, Clock3 } from "lucide-react";
import css from "./Ticks.module.css";

export type TickState = "waiting" | "sent" | "delivered" | "read" | "failed";

/** How far a message has come. Ticks are a sign, not an arrow: they look alike in both directions. */
export function Ticks({ state, label }: { state: TickState; label: string }) {
  const icons = { waiting: Clock3, sent: Check, delivered: CheckCheck, read: CheckCheck, failed: CircleAlert };
  const Icon = icons[state];
  return (
    <span className={css.ticks} data-state={state} title={label} role="img" aria-label={label}>
      <Icon size={state === "waiting" ? 13 : 15} strokeWidth={2.4} aria-hidden />
    </span>
  );
}
