/** Members, invitations and organizations: how they are read and changed. */
import { queryOptions } from "@tanstack/react-query";
import { sendSigned } from "../../api/session";
import { type Parsed, bool, list, nullable, object, oneOf, str } from "../../lib/parse";

export const ROLES = ["OWNER", "ADMIN", "AGENT"] as const;
export type Role = (typeof ROLES)[number];
export const PERMISSIONS = [
  "can_read_messages", "can_send_messages", "can_access_crm", "can_access_pm", "can_manage_team", "can_manage_settings",
] as const;
export type Permission = (typeof PERMISSIONS)[number];
export type Permissions = Record<Permission, boolean>;
export const VISIBILITIES = ["all", "team", "mine"] as const;
export type Visibility = (typeof VISIBILITIES)[number];

const permissions = object({
  can_read_messages: bool, can_send_messages: bool, can_access_crm: bool, can_access_pm: bool, can_manage_team: bool,
  can_manage_settings: bool,
});

export const member = object({
  id: str,
  email: nullable(str),
  first_name: nullable(str),
  last_name: nullable(str),
  role: oneOf(...ROLES),
  is_active: bool,
  visibility: oneOf(...VISIBILITIES),
  permissions,
});
export type Member = Parsed<typeof member>;

export const invitation = object({
  id: str,
  email: str,
  role: oneOf(...ROLES),
  status: oneOf("pending", "accepted", "revoked", "expired"),
  expires_at: str,
  created_at: str,
});
export type Invitation = Parsed<typeof invitation>;

/** Keys begin like those of tables, so that events of these tables mark them as old. */
export const membersQuery = queryOptions({
  queryKey: ["rest", "profiles", "members"] as const,
  queryFn: async ({ signal }) =>
    object({ members: list(member) })((await sendSigned("/functions/v1/list-members", { signal })).body, "list-members").members,
});

export const invitationsQuery = queryOptions({
  queryKey: ["rest", "invitations", "all"] as const,
  queryFn: async ({ signal }) =>
    object({ invitations: list(invitation) })(
      (await sendSigned("/functions/v1/list-invitations", { signal })).body, "list-invitations",
    ).invitations,
});

const outbox = object({
  mail_server: bool,
  mails: list(object({ recipient: str, template: str, text: nullable(str) })),
});

/** Links of invitations that no mail server can send, by address; for owners of a hub without one. Newest last. */
export const unsentLinksQuery = queryOptions({
  queryKey: ["rest", "invitations", "unsent"] as const,
  queryFn: async ({ signal }) =>
    linksIn(outbox((await sendSigned("/functions/v1/mail-outbox", { signal })).body, "mail-outbox")),
});

/** Null where a mail server sends them. */
export function linksIn(found: Parsed<typeof outbox>): Record<string, string> | null {
  if (found.mail_server) return null;
  const links: Record<string, string> = {};
  for (const mail of found.mails) {
    const link = /https?:\/\/\S+\/invitation#token=[\w-]+/.exec(mail.text ?? "")?.[0];
    if (mail.template === "invitation" && link) links[mail.recipient] ??= link;
  }
  return links;
}

const DEFAULTS: Record<Role, readonly Permission[]> = {
  OWNER: PERMISSIONS, ADMIN: PERMISSIONS, AGENT: ["can_read_messages", "can_send_messages", "can_access_crm"],
};

/** What a role brings, as far as the giver holds it. */
export function permissionsOf(role: Role, giver: Pick<Member, "role" | "permissions">): Permissions {
  const given = (name: Permission) => DEFAULTS[role].includes(name) && holds(giver, name);
  return {
    can_read_messages: given("can_read_messages"), can_send_messages: given("can_send_messages"),
    can_access_crm: given("can_access_crm"), can_access_pm: given("can_access_pm"),
    can_manage_team: given("can_manage_team"), can_manage_settings: given("can_manage_settings"),
  };
}

export function holds(who: Pick<Member, "role" | "permissions">, name: Permission): boolean {
  return who.permissions[name];
}

const rank: Record<Role, number> = { AGENT: 1, ADMIN: 2, OWNER: 3 };

export function rolesBelow(role: Role): Role[] {
  return ROLES.filter((one) => rank[one] <= rank[role]);
}

/** The hub refuses the rest: nobody changes whoever stands above him, and himself only an owner. */
export function mayChange(me: Member | undefined, other: Member): boolean {
  if (!me?.permissions.can_manage_team || rank[me.role] < rank[other.role]) return false;
  return me.id !== other.id || me.role === "OWNER";
}

const changed = object({ member });

export interface MemberChange {
  role?: Role;
  permissions?: Permissions;
  is_active?: boolean;
  visibility?: Visibility;
}

export async function updateMember(id: string, change: MemberChange): Promise<Member> {
  const update = async (body: MemberChange) =>
    changed((await sendSigned("/functions/v1/update-member", { method: "POST", body: { user_id: id, ...body } })).body, "update-member")
      .member;
  const first = await update(change);
  const wanted = change.permissions;
  // A new role brings its own permissions where the given ones were those that stood: then they are given after it.
  if (wanted && PERMISSIONS.some((name) => first.permissions[name] !== wanted[name])) return update({ permissions: wanted });
  return first;
}

export async function invite(email: string, role: Role, granted: Permissions | null): Promise<void> {
  await sendSigned("/functions/v1/send-invitation-email", {
    method: "POST",
    body: { email, role, ...(granted ? { permissions: granted } : {}) },
  });
}

export async function resendInvitation(id: string): Promise<void> {
  await sendSigned("/functions/v1/resend-invitation", { method: "POST", body: { id } });
}

export async function revokeInvitation(id: string): Promise<void> {
  await sendSigned("/functions/v1/revoke-invitation", { method: "POST", body: { id } });
}
