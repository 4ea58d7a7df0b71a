-- name: create_organization
-- An organization of user $1, entered by session $2 (or null): name $3, time zone $4, locale $5, currency $6 and suit id $7 (or null
-- each); null when he owns $8. From address $9, asked for by request $10.
select app.create_organization($1, $2, $3, $4, $5, $6, $7, $8, $9, $10);

-- name: switch_organization
-- Move session $1 of user $2 to organization $3; false when he is no member there. From address $4, request $5.
select app.switch_organization($1, $2, $3, $4, $5);

-- name: leave_organization
-- End the caller's membership. As the caller.
select app.leave_organization();

-- name: insert_invitation
-- Invite address $1 as $2 with permissions $3 (or null: the role's). As the caller, in the name of user $4 (or null, a key).
insert into public.invitations (email, role, permissions, invited_by) values ($1, $2, $3::jsonb, $4) returning id;

-- name: keep_invitation_token
-- Give invitation $1 a link that hashes to $2. As the caller.
select outcome, id, email, role, permissions::text, invited_by, expires_at, created_at from app.keep_invitation_token($1, $2);

-- name: end_stale_invitation
-- Revoke what stands for address $1 and is over, so that it can be invited again. As the caller.
update public.invitations set revoked_at = now()
 where organization_id = (select app.org()) and email = $1 and accepted_at is null and revoked_at is null and expires_at <= now();

-- name: count_invitations
-- How many invitations the caller's organization made in the last day.
select count(*) from public.invitations where organization_id = (select app.org()) and created_at > now() - interval '1 day';

-- name: active_member_called
-- Whether address $1 is a member of the caller's organization.
select exists (select from public.memberships where organization_id = (select app.org()) and email = $1 and is_active);

-- name: inviting_as
-- How a mail calls the caller's organization, and user $1 of it (null: nobody).
select o.name, (select nullif(trim(concat_ws(' ', m.first_name, m.last_name)), '') from public.memberships m
                 where m.organization_id = o.id and m.user_id = $1) as inviter
  from public.organizations o where o.id = (select app.org());

-- name: revoke_invitation
-- Take back invitation $1, if it stands. As the caller.
update public.invitations set revoked_at = now()
 where organization_id = (select app.org()) and id = $1 and accepted_at is null and revoked_at is null
returning id, email, role, expires_at, created_at, revoked_at;

-- name: invitation_state
-- How invitation $1 of the caller's stands.
select accepted_at, revoked_at from public.invitations where organization_id = (select app.org()) and id = $1;

-- name: list_invitations
-- The newest $1 invitations of the caller's organization.
select i.id, i.email, i.role, i.permissions::text, i.invited_by, i.expires_at, i.accepted_at, i.revoked_at, i.created_at,
       case when i.accepted_at is not null then 'accepted' when i.revoked_at is not null then 'revoked'
            when i.expires_at <= now() then 'expired' else 'pending' end as status
  from public.invitations i where i.organization_id = (select app.org()) order by i.created_at desc, i.id desc limit $1;

-- name: invitation_by_token
-- What the link hashing to $1 opens; no row for none.
select state, organization_id, id, organization_name, email, role, expires_at, has_account from app.invitation_by_token($1);

-- name: refuse_invitation
-- Note that the link hashing to $1 was refused for reason $2; from address $3, request $4.
select app.refuse_invitation($1, $2, $3, $4);

-- name: accept_invitation
-- Join by the link hashing to $1: as user $2, or as a new one (null) with password hash $3; names $4 and $5 (or null). From address
-- $6, request $7.
select outcome, organization_id, user_id, role from app.accept_invitation($1, $2, $3, $4, $5, $6, $7);

-- name: member_for_update
-- Member $1 of the caller's organization, held until the transaction ends.
select user_id, role, is_active from public.memberships where organization_id = (select app.org()) and user_id = $1 for no key update;

-- name: update_member
-- Change member $1: role $2, active $3, visibility $4 (null each: as it is). As the caller.
update public.memberships m
   set role = coalesce($2::text, role), is_active = coalesce($3::boolean, is_active), visibility = coalesce($4::text, visibility)
 where organization_id = (select app.org()) and user_id = $1
returning user_id;

-- name: permit_member
-- Give and take permissions of member $1, by name: $2. As the caller.
update public.memberships m
   set can_access_crm = coalesce(($2::jsonb ->> 'can_access_crm')::boolean, can_access_crm),
       can_access_pm = coalesce(($2::jsonb ->> 'can_access_pm')::boolean, can_access_pm),
       can_manage_team = coalesce(($2::jsonb ->> 'can_manage_team')::boolean, can_manage_team),
       can_manage_settings = coalesce(($2::jsonb ->> 'can_manage_settings')::boolean, can_manage_settings),
       can_send_messages = coalesce(($2::jsonb ->> 'can_send_messages')::boolean, can_send_messages),
       can_read_messages = coalesce(($2::jsonb ->> 'can_read_messages')::boolean, can_read_messages)
 where organization_id = (select app.org()) and user_id = $1;

-- name: leave_teams
-- Take member $1 out of all teams but $2. As the caller.
delete from public.team_members where organization_id = (select app.org()) and user_id = $1 and not team_id = any ($2::uuid[]);

-- name: join_teams
-- Put member $1 into the teams $2. As the caller.
insert into public.team_members (team_id, user_id) select t, $1 from unnest($2::uuid[]) t on conflict do nothing;

-- name: list_members
-- The members of the caller's organization, or $1 alone, as list-members shows them.
select m.user_id as id, m.email, m.first_name, m.last_name, m.avatar_url, m.role, m.is_active, m.visibility, m.team_ids,
       m.can_access_crm, m.can_access_pm, m.can_manage_team, m.can_manage_settings, m.can_send_messages, m.can_read_messages, m.created_at
  from public.memberships m where m.organization_id = (select app.org()) and ($1::uuid is null or m.user_id = $1)
 order by m.is_active desc, m.created_at, m.user_id;

-- name: list_api_keys
-- The keys of the caller's organization, newest first. As the caller.
select k.id, k.name, k.key_prefix, k.permissions::text, k.created_by, k.created_at, k.expires_at, k.last_used_at, k.revoked_at,
       case when k.revoked_at is not null then 'revoked' when k.expires_at <= now() then 'expired' else 'active' end as status
  from public.api_keys k where k.organization_id = (select app.org()) order by k.created_at desc, k.id desc;

-- name: revoke_api_key
-- End key $1 now, once. As the caller.
update public.api_keys set revoked_at = coalesce(revoked_at, now()) where organization_id = (select app.org()) and id = $1
returning id, name, key_prefix, revoked_at;

-- name: retire_api_key
-- Let key $1 end in $2 seconds, for its successor; gives what that one inherits. As the caller.
select name, permissions::text, expires_at from app.retire_api_key($1, make_interval(secs => $2));

-- name: page_audit
-- Up to $4 rows of the caller's audit log, newest first: between $1 and $2 (null each), below id $3 (null: from the top), by action
-- pattern $5 (null: all) and actor $6 (null: all). As the caller.
select a.id, a.at, a.actor_kind, a.actor_id,
       (select coalesce(nullif(trim(concat_ws(' ', m.first_name, m.last_name)), ''), m.email) from public.memberships m
         where m.organization_id = a.organization_id and m.user_id = a.actor_id) as actor_name,
       a.action, a.target_table, a.target_id, a.details::text, host(a.ip) as ip, a.request_id
  from public.audit_log a
 where a.organization_id = (select app.org()) and ($1::timestamptz is null or a.at >= $1) and ($2::timestamptz is null or a.at < $2)
   and ($3::uuid is null or a.id < $3) and ($5::text is null or a.action = $5 or a.action like $5 || '.%') and ($6::uuid is null or a.actor_id = $6)
 order by a.id desc limit $4;

-- name: note_export
-- Write into the caller's audit log that he takes out $1, how: $2. As the caller.
select app.note_export($1, $2::jsonb);
