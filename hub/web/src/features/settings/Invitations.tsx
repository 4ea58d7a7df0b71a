import { Alert, Button, Modal, NativeSelect, Switch, TextInput } from "@mantine/core";
import { useForm } from "@mantine/form";
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { Mail } from "lucide-react";
import { useState } from "react";
import { useTranslation } from "react-i18next";
import { announce } from "../../app/deeds";
import { localeOf } from "../../i18n";
import { roleLabel } from "../../i18n/labels";
import { shortDate } from "../../lib/time";
import { Chip } from "../../ui/Chip";
import { CopyField } from "../../ui/CopyField";
import { PermissionBoxes } from "./PermissionBoxes";
import css from "./Settings.module.css";
import {
  type Invitation, type Member, type Permissions, ROLES, type Role, invitationsQuery, invite, permissionsOf, resendInvitation,
  revokeInvitation, rolesBelow, unsentLinksQuery,
} from "./people";
import { spokenRefusal } from "./refusals";

function Refusal({ error }: { error: Error | null }) {
  return (
    error && (
      <Alert color="red" variant="light" role="alert">
        {spokenRefusal(error)}
      </Alert>
    )
  );
}

export function Invitations({ me }: { me: Member }) {
  const { t: words } = useTranslation("people");
  const invitations = useQuery(invitationsQuery);
  const unsent = useQuery({ ...unsentLinksQuery, enabled: me.role === "OWNER" });
  const open = invitations.data?.filter((one) => one.status === "pending" || one.status === "expired");
  return (
    <>
      <InviteForm me={me} />
      <section className={css.card} aria-labelledby="invitations">
        <h3 className={css.curlTitle} id="invitations">
          {words("invitations")}
        </h3>
        {open?.length === 0 && <p className={css.hint}>{words("noInvitations")}</p>}
        {invitations.error && <Refusal error={invitations.error} />}
        {open && open.length > 0 && (
          <ul className={css.plainList}>
            {open.map((one) => (
              <Line key={one.id} one={one} link={one.status === "pending" ? unsent.data?.[one.email] : undefined} />
            ))}
          </ul>
        )}
      </section>
    </>
  );
}

function InviteForm({ me }: { me: Member }) {
  const { t } = useTranslation();
  const { t: words } = useTranslation("people");
  const client = useQueryClient();
  const [role, setRole] = useState<Role>("AGENT");
  const [granted, setGranted] = useState<Permissions | null>(null);
  const form = useForm({
    initialValues: { email: "" },
    validate: { email: (value) => (/^[\x21-\x7e]+@[\x21-\x7e]+$/.test(value.trim()) ? null : words("emailWrong")) },
  });
  const sending = useMutation({
    mutationFn: (email: string) => invite(email, role, role === "OWNER" ? null : granted),
    onSuccess: (_, email) => {
      announce(words("sent", { email }));
      form.reset();
      setRole("AGENT");
      setGranted(null);
    },
    onSettled: () => client.invalidateQueries({ queryKey: ["rest", "invitations"] }),
  });
  return (
    <section className={css.card} aria-labelledby="invite">
      <div>
        <h3 className={css.curlTitle} id="invite">
          {words("invite")}
        </h3>
        <p className={css.hint}>{words("inviteHint")}</p>
      </div>
      <form
        className={css.dialog}
        noValidate
        onSubmit={form.onSubmit(
          ({ email }) => sending.mutate(email.trim()),
          () => form.getInputNode("email")?.focus(),
        )}
      >
        <div className={css.nameForm}>
          <TextInput
            label={words("email")}
            type="email"
            dir="ltr"
            autoComplete="off"
            maxLength={320}
            {...form.getInputProps("email")}
            key={form.key("email")}
          />
          <NativeSelect
            label={words("role")}
            value={role}
            data={rolesBelow(me.role).map((value) => ({ value, label: roleLabel(t, value) }))}
            onChange={(event) => {
              const next = ROLES.find((each) => each === event.currentTarget.value) ?? role;
              setRole(next);
              setGranted((earlier) => earlier && permissionsOf(next, me));
            }}
          />
        </div>
        {role === "OWNER" ? (
          <p className={css.hint}>{words("ownerMay")}</p>
        ) : (
          <Switch
            label={words("permissions")}
            description={words("permissionsHint")}
            checked={granted !== null}
            onChange={(event) => setGranted(event.currentTarget.checked ? permissionsOf(role, me) : null)}
          />
        )}
        {role !== "OWNER" && granted && (
          <PermissionBoxes legend={words("may")} value={granted} giver={me} onChange={setGranted} />
        )}
        <Refusal error={sending.error} />
        <Button type="submit" className={css.start} loading={sending.isPending}>
          {words("send")}
        </Button>
      </form>
    </section>
  );
}

function Line({ one, link }: { one: Invitation; link: string | undefined }) {
  const { t, i18n } = useTranslation();
  const { t: words } = useTranslation("people");
  const client = useQueryClient();
  const [asking, setAsking] = useState(false);
  const again = () => client.invalidateQueries({ queryKey: ["rest", "invitations"] });
  const { email } = one;
  const resending = useMutation({
    mutationFn: () => resendInvitation(one.id),
    onSuccess: () => announce(words("resent", { email })),
    onSettled: again,
  });
  const revoking = useMutation({
    mutationFn: () => revokeInvitation(one.id),
    onSuccess: () => announce(words("revoked", { email })),
    onSettled: () => {
      setAsking(false);
      return again();
    },
  });
  return (
    <li className={css.keyLine} data-testid="invitation">
      <Mail size={16} aria-hidden />
      <div>
        <p className={css.entryName}>
          <bdi dir="ltr">{email}</bdi>
        </p>
        <p className={css.entrySub}>
          {roleLabel(t, one.role)}
          {one.status === "pending" &&
            ` · ${words("until", { date: shortDate(one.expires_at, localeOf(i18n.language)) })}`}
        </p>
        <div className={css.chips}>
          <Chip tone={one.status === "pending" ? "good" : "warn"}>
            {one.status === "pending" ? words("pending") : words("expired")}
          </Chip>
        </div>
      </div>
      <div className={css.entryEnd}>
        <Button
          size="compact-sm"
          variant="default"
          aria-label={words("resendLabel", { email })}
          loading={resending.isPending}
          onClick={() => resending.mutate()}
        >
          {words("resend")}
        </Button>
        <Button
          size="compact-sm"
          variant="default"
          aria-label={words("revokeLabel", { email })}
          onClick={() => setAsking(true)}
        >
          {words("revoke")}
        </Button>
      </div>
      {(link || resending.error || revoking.error) && (
        <div className={css.keyRest}>
          <Refusal error={resending.error ?? revoking.error} />
          {link && (
            <>
              <p className={css.hint}>{words("noServer")}</p>
              <CopyField value={link} copy={t("common.copy")} copied={t("common.copied")} />
            </>
          )}
        </div>
      )}
      <Modal
        opened={asking}
        onClose={() => setAsking(false)}
        title={words("revokeLabel", { email })}
        closeButtonProps={{ "aria-label": t("common.close") }}
      >
        <div className={css.dialog}>
          <p className={css.value}>{words("revokeSure")}</p>
          <div className={css.entryEnd}>
            <Button variant="default" data-autofocus onClick={() => setAsking(false)}>
              {words("keep")}
            </Button>
            <Button color="red.9" loading={revoking.isPending} onClick={() => revoking.mutate()}>
              {words("revoke")}
            </Button>
          </div>
        </div>
      </Modal>
    </li>
  );
}
