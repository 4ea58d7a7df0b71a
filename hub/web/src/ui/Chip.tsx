import { X } from "lucide-react";
import type { ReactNode } from "react";
import css from "./Chip.module.css";
import { cx } from "./cx";

export interface ChipProps {
  children: ReactNode;
  tone?: "plain" | "good" | "warn" | "bad";
  /** Both, or neither: a chip that can be taken away says so. */
  removeLabel?: string;
  onRemove?: (() => void) | undefined;
}

export function Chip({ children, tone = "plain", removeLabel, onRemove }: ChipProps) {
  return (
    <span className={cx(css.chip, css[tone])}>
      <bdi className={css.text}>{children}</bdi>
      {onRemove && (
        <button type="button" className={css.remove} aria-label={removeLabel} title={removeLabel} onClick={onRemove}>
          <X size={12} aria-hidden />
        </button>
      )}
    </span>
  );
}

/** A number that wants attention. */
export function Counter({ value, label, quiet = false }: { value: number; label: string; quiet?: boolean }) {
  return (
    <span className={cx(css.counter, quiet && css.quiet)}>
      <span aria-hidden>{value > 99 ? "99+" : value}</span>
      <span className="sr-only">{label}</span>
    </span>
  );
}
