import { Checkbox } from "@mantine/core";
import { useTranslation } from "react-i18next";
import { permissionLabel } from "../../i18n/labels";
import css from "./Settings.module.css";
import { type Member, PERMISSIONS, type Permissions, holds } from "./people";

interface PermissionBoxesProps {
  legend: string;
  value: Permissions;
  /** Nobody gives what they do not hold; what somebody else has already they may leave or take. */
  giver: Pick<Member, "role" | "permissions">;
  had?: Permissions;
  onChange: (value: Permissions) => void;
}

export function PermissionBoxes({ legend, value, giver, had, onChange }: PermissionBoxesProps) {
  const { t } = useTranslation();
  const { t: words } = useTranslation("people");
  const closed = (name: (typeof PERMISSIONS)[number]) => !holds(giver, name) && !had?.[name];
  return (
    <fieldset className={css.boxes}>
      <legend className={css.label}>{legend}</legend>
      {PERMISSIONS.map((name) => (
        <Checkbox
          key={name}
          label={permissionLabel(t, name)}
          checked={value[name]}
          disabled={closed(name)}
          onChange={(event) => onChange({ ...value, [name]: event.currentTarget.checked })}
        />
      ))}
      {PERMISSIONS.some(closed) && <p className={css.hint}>{words("lackHint")}</p>}
    </fieldset>
  );
}
