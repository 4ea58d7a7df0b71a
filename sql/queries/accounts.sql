-- name: organizations_called
-- Ids of the organizations whose id or exact name is $1, the oldest first. For the operator (hub_owner) alone.
select id from public.organizations where id::text = lower($1) or name = $1 order by created_at;

-- name: add_organization
-- Make the organization called $1; its id.
insert into public.organizations (name) values ($1) returning id;

-- name: add_account
-- Make a confirmed user with address $1 and password hash $2; no row when the address is taken.
insert into auth.users (email, encrypted_password, email_confirmed_at) values ($1, $2, now())
on conflict (email) do nothing returning id;

-- name: account_by_email
-- Id of the user with address $1.
select id from auth.users where email = $1;

-- name: as_operator
-- What follows in this transaction is the operator's deed, for the audit log.
select set_config('hub.ctx', '{"kind": "operator"}', true);

-- name: set_account_password
-- Give user $1 the password hash $2 and end every session of theirs; the audit logs of their organizations have it.
with ended as (
  update auth.sessions set revoked_at = now() where user_id = $1 and revoked_at is null
), noted as (
  insert into public.audit_log (organization_id, actor_kind, action, target_table, target_id)
  select m.organization_id, 'operator', 'password.changed', 'users', m.user_id from public.memberships m where m.user_id = $1 and m.is_active
)
update auth.users set encrypted_password = $2 where id = $1;

-- name: add_member
-- Let user $2 (address $4, names $5 and $6) into organization $1 as $3 with the permissions named in $7;
-- no row when they are a member already.
insert into public.memberships (organization_id, user_id, role, email, first_name, last_name, can_access_crm,
                                can_access_pm, can_manage_team, can_manage_settings, can_send_messages,
                                can_read_messages)
values ($1, $2, $3, $4, $5, $6, 'can_access_crm' = any ($7::text[]), 'can_access_pm' = any ($7),
        'can_manage_team' = any ($7), 'can_manage_settings' = any ($7), 'can_send_messages' = any ($7),
        'can_read_messages' = any ($7))
on conflict do nothing returning user_id;

-- name: rotate_signing_key
-- A further ES256 key $1 (public JWK $2, sealed $3) that signs in $4; those before it verify for $5 from then on. When it begins.
with fresh as (
  insert into app.signing_keys (kid, algorithm, public_jwk, sealed, signs_from) values ($1, 'ES256', $2::jsonb, $3, now() + $4) returning signs_from
), old as (
  update app.signing_keys k set is_current = false, retired_at = now() + $4 + $5
   where k.algorithm = 'ES256' and k.kid <> $1 and (k.retired_at is null or k.retired_at > now() + $4 + $5)
)
select signs_from from fresh;
