import { Alert, Button, Modal, NativeSelect } from "@mantine/core";
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { useTranslation } from "react-i18next";
import { announce } from "../../app/deeds";
import { roleLabel } from "../../i18n/labels";
import { colleagueName } from "../../lib/people";
import { PermissionBoxes } from "./PermissionBoxes";
import css from "./Settings.module.css";
import {
  type Member, type MemberChange, PERMISSIONS, ROLES, VISIBILITIES, permissionsOf, rolesBelow, updateMember,
} from "./people";
import { spokenRefusal } from "./refusals";

interface MemberDialogProps {
  one: Member;
  me: Member;
  onClose: () => void;
}

/** A member's role, permissions and view; and, asked once more, deactivation. */
export function MemberDialog({ one, me, onClose }: MemberDialogProps) {
  const { t } = useTranslation();
  const { t: words } = useTranslation("people");
  const client = useQueryClient();
  const name = colleagueName(one, one.id);
  const [role, setRole] = useState(one.role);
  const [granted, setGranted] = useState(one.permissions);
  const [visibility, setVisibility] = useState(one.visibility);
  const [ending, setEnding] = useState(false);
  const changing = useMutation({
    mutationFn: (change: MemberChange) => updateMember(one.id, change),
    onSuccess: (_, change) => {
      announce(change.is_active === false ? words("deactivated", { name }) : words("saved", { name }));
      onClose();
    },
    onSettled: () => client.invalidateQueries({ queryKey: ["rest", "profiles"] }),
  });
  // Owners see everything.
  const seen = role === "OWNER" ? "all" : visibility;
  const change: MemberChange = {
    ...(role === one.role ? {} : { role }),
    ...(seen === one.visibility ? {} : { visibility: seen }),
    ...(role !== "OWNER" && (role !== one.role || PERMISSIONS.some((each) => granted[each] !== one.permissions[each]))
      ? { permissions: granted }
      : {}),
  };
  const failure = changing.error && (
    <Alert color="red" variant="light" role="alert">
      {spokenRefusal(changing.error)}
    </Alert>
  );
  return (
    <Modal
      opened
      onClose={onClose}
      title={ending ? words("deactivateLabel", { name }) : words("changeLabel", { name })}
      closeButtonProps={{ "aria-label": t("common.close") }}
    >
      {ending ? (
        <div className={css.dialog}>
          <p className={css.value}>{words("deactivateSure")}</p>
          {failure}
          <div className={css.entryEnd}>
            <Button
              variant="default"
              autoFocus
              onClick={() => {
                changing.reset();
                setEnding(false);
              }}
            >
              {words("stay")}
            </Button>
            <Button color="red.9" loading={changing.isPending} onClick={() => changing.mutate({ is_active: false })}>
              {words("deactivate")}
            </Button>
          </div>
        </div>
      ) : (
        <form
          className={css.dialog}
          onSubmit={(event) => {
            event.preventDefault();
            changing.mutate(change);
          }}
        >
          <NativeSelect
            label={words("role")}
            value={role}
            data={rolesBelow(me.role).map((value) => ({ value, label: roleLabel(t, value) }))}
            onChange={(event) => {
              const next = ROLES.find((each) => each === event.currentTarget.value) ?? role;
              setRole(next);
              setGranted(next === one.role ? one.permissions : permissionsOf(next, me));
            }}
          />
          {role === "OWNER" ? (
            <p className={css.hint}>{words("ownerMay")}</p>
          ) : (
            <PermissionBoxes legend={words("may")} value={granted} giver={me} had={one.permissions} onChange={setGranted} />
          )}
          {role !== "OWNER" && (
            <NativeSelect
              label={words("sees")}
              value={visibility}
              data={VISIBILITIES.map((value) => ({ value, label: words(`visibility.${value}`) }))}
              onChange={(event) =>
                setVisibility(VISIBILITIES.find((each) => each === event.currentTarget.value) ?? visibility)
              }
            />
          )}
          {failure}
          <div className={css.row}>
            <Button
              variant="default"
              onClick={() => {
                changing.reset();
                setEnding(true);
              }}
            >
              {words("deactivate")}
            </Button>
            <Button type="submit" loading={changing.isPending} disabled={Object.keys(change).length === 0}>
              {words("save")}
            </Button>
          </div>
        </form>
      )}
    </Modal>
  );
}
