import { ActionIcon, CopyButton, Tooltip } from "@mantine/core";
import { Check, Copy } from "lucide-react";
import css from "./CopyField.module.css";

export interface CopyFieldProps {
  value: string;
  copy: string;
  copied: string;
  /** Several lines, as in a terminal. */
  block?: boolean;
}

export function CopyField({ value, copy, copied, block = false }: CopyFieldProps) {
  return (
    <div className={css.field} data-block={block} dir="ltr">
      {/* A scrolling region has to be reachable by keyboard. */}
      <pre className={css.value} {...(block ? { tabIndex: 0, role: "group", "aria-label": copy } : {})}>
        {value}
      </pre>
      <CopyButton value={value} timeout={1500}>
        {(state) => (
          <Tooltip label={state.copied ? copied : copy}>
            <ActionIcon onClick={state.copy} aria-label={state.copied ? copied : copy} className={css.button}>
              {state.copied ? <Check size={16} /> : <Copy size={16} />}
            </ActionIcon>
          </Tooltip>
        )}
      </CopyButton>
    </div>
  );
}
