import { initials } from "../lib/text";
import css from "./Avatar.module.css";
import { cx } from "./cx";

/** Hues of Avatar.module.css; the same name always gets the same one. */
const HUES = 8;

function hueOf(name: string): number {
  let sum = 7;
  for (const letter of name) sum = (sum * 31 + (letter.codePointAt(0) ?? 0)) % 9973;
  return sum % HUES;
}

export interface AvatarProps {
  name: string;
  size?: "xs" | "sm" | "md" | "lg";
  /** A green dot: this person is here now. */
  online?: boolean;
  className?: string | undefined;
}

/** Initials on a tint of their own. Decorative: the name stands beside it or in the label of its parent. */
export function Avatar({ name, size = "md", online = false, className }: AvatarProps) {
  return (
    <span
      className={cx(css.avatar, css[size], className)}
      data-hue={hueOf(name)}
      // Drawn by the style sheet: as text it would be part of the label of the button around it.
      data-initials={initials(name) || "?"}
      aria-hidden
    >
      {online && <span className={css.dot} />}
    </span>
  );
}
