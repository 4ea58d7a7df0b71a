-- Organizations, invitations, members and keys: what cannot be said by a row policy. Functions "within a role" are called in the
-- caller's own transaction and check him; the others are reached by the runtime's login alone.

-- A new organization, whose maker owns it. The session, if one is named, moves there. Null when he owns `most` already.
create or replace function app.create_organization(maker uuid, session uuid, org_name text, zone text, org_locale text, org_currency text, suit text, most integer,
                                                   ip text, request text)
  returns uuid
  language plpgsql security definer set search_path = pg_catalog, pg_temp
  as $$
  declare
    org uuid;
  begin
    perform from auth.users u where u.id = maker for no key update;          -- one after the other, so that `most` holds
    if (select count(*) from public.memberships m where m.user_id = maker and m.role = 'OWNER') >= most then
      return null;
    end if;
    org := uuidv7();
    perform app.act_as_user(org, maker, ip, request);
    insert into public.organizations (id, name, timezone, locale, currency, suit_id)
    values (org, org_name, coalesce(zone, 'UTC'), coalesce(org_locale, 'en'), coalesce(org_currency, 'USD'), suit);
    insert into public.memberships (organization_id, user_id, role, email, first_name, last_name, can_access_crm, can_access_pm, can_manage_team,
                                    can_manage_settings, can_send_messages, can_read_messages)
    select org, u.id, 'OWNER', u.email, coalesce(u.user_metadata ->> 'first_name', p.first_name), coalesce(u.user_metadata ->> 'last_name', p.last_name), true, true, true, true, true, true
      from auth.users u left join lateral (select m.first_name, m.last_name from public.memberships m where m.user_id = u.id order by m.created_at desc limit 1) p on true
     where u.id = maker;
    update auth.sessions s set organization_id = org where s.id = session and s.user_id = maker and s.revoked_at is null;
    return org;
  end $$;

-- Inside a transaction of the machinery: what follows is this user's deed, for the log. Guards let it pass, as they do the machinery.
create or replace function app.act_as_user(org uuid, person uuid, ip text, request text) returns void
  language sql
  as $$
    select set_config('hub.ctx', jsonb_build_object('kind', 'system', 'org', org, 'actor', 'user', 'actor_id', person, 'ip', ip, 'request', request)::text, true)
  $$;

-- Move a session to another organization of its user. False when he is no member there; his own organization's log has it then.
create or replace function app.switch_organization(session uuid, member uuid, org uuid, ip text, request text) returns boolean
  language plpgsql security definer set search_path = pg_catalog, pg_temp
  as $$
  declare
    earlier uuid;
  begin
    select s.organization_id into earlier from auth.sessions s where s.id = session and s.user_id = member and s.revoked_at is null for no key update;
    if not found then
      return false;
    end if;
    if not exists (select from public.memberships m where m.organization_id = org and m.user_id = member and m.is_active) then
      if earlier is not null then
        perform app.act_as_user(earlier, member, ip, request);
        perform app.note_deed(earlier, 'access.refused', 'organizations', null, '{"what": "switch-organization", "reason": "no member there"}');
      end if;
      return false;
    end if;
    if earlier is distinct from org then
      update auth.sessions s set organization_id = org where s.id = session;
      perform app.act_as_user(org, member, ip, request);
      perform app.note_deed(org, 'session.entered', 'sessions', session, '{}');
    end if;
    return true;
  end $$;
drop function if exists app.switch_organization(uuid, uuid, uuid);

-- Within a role: the hash of the link of an invitation that stands (just inserted, or to be sent again), good for seven days from now.
-- outcome: sent · settled (accepted or revoked) · too_soon (sent less than a minute ago). No row: no such invitation of the caller's.
create or replace function app.keep_invitation_token(invitation uuid, hash bytea)
  returns table (outcome text, id uuid, email text, role text, permissions jsonb, invited_by uuid, expires_at timestamptz, created_at timestamptz)
  language plpgsql security definer set search_path = pg_catalog, pg_temp
  as $$
  #variable_conflict use_column
  declare
    i public.invitations;
    is_new boolean;
  begin
    if not app.may_any('{can_manage_team}') then
      raise exception using errcode = '42501', message = 'Inviting needs can_manage_team';
    end if;
    select * into i from public.invitations x where x.organization_id = app.org() and x.id = invitation for no key update;
    if not found then
      return;
    end if;
    if app.rank_of(app.ctx() ->> 'role') < app.rank_of(i.role) then
      raise exception using errcode = '42501', message = 'You cannot invite to a role above your own';
    end if;
    is_new := not exists (select from app.invitation_tokens t where t.organization_id = i.organization_id and t.invitation_id = i.id);
    if i.accepted_at is not null or i.revoked_at is not null then
      return query select 'settled', i.id, i.email, i.role, i.permissions, i.invited_by, i.expires_at, i.created_at;
      return;
    end if;
    if not is_new and i.updated_at > clock_timestamp() - interval '1 minute' then
      return query select 'too_soon', i.id, i.email, i.role, i.permissions, i.invited_by, i.expires_at, i.created_at;
      return;
    end if;
    insert into app.invitation_tokens as t (organization_id, invitation_id, token_hash) values (i.organization_id, i.id, hash)
    on conflict (organization_id, invitation_id) do update set token_hash = excluded.token_hash;
    if not is_new then
      update public.invitations x set expires_at = now() + interval '7 days' where x.organization_id = i.organization_id and x.id = i.id returning * into i;
    end if;
    return query select 'sent', i.id, i.email, i.role, i.permissions, i.invited_by, i.expires_at, i.created_at;
  end $$;

create or replace function app.rank_of(role text) returns integer
  language sql immutable parallel safe
  as $$ select case role when 'OWNER' then 3 when 'ADMIN' then 2 else 1 end $$;

-- What a link opens. state: open · used · over (seven days have passed, or the organization's inviter may not invite any more); no row
-- for a link that never was, was revoked or was replaced by a later one. has_account: its address signs in here already.
create or replace function app.invitation_by_token(hash bytea)
  returns table (state text, organization_id uuid, id uuid, organization_name text, email text, role text, expires_at timestamptz, has_account boolean)
  language sql stable security definer set search_path = pg_catalog, pg_temp
  as $$
    select case when i.accepted_at is not null then 'used' when i.revoked_at is not null then 'over' when i.expires_at <= now() then 'over' else 'open' end,
           i.organization_id, i.id, o.name, i.email, i.role, i.expires_at, exists (select from auth.users u where u.email = i.email)
      from app.invitation_tokens t
      join public.invitations i on i.organization_id = t.organization_id and i.id = t.invitation_id
      join public.organizations o on o.id = i.organization_id
     where t.token_hash = hash
  $$;

-- An attempt with a link that came to nothing, in the log of the organization that sent it.
create or replace function app.refuse_invitation(hash bytea, reason text, ip text, request text) returns void
  language sql security definer set search_path = pg_catalog, pg_temp
  as $$
    insert into public.audit_log (organization_id, actor_kind, action, target_table, target_id, details, ip, request_id)
    select i.organization_id, 'anon', 'invitation.refused', 'invitations', i.invitation_id, jsonb_build_object('reason', reason),
           case when pg_input_is_valid(refuse_invitation.ip, 'inet') then refuse_invitation.ip::inet end, request
      from app.invitation_tokens i where i.token_hash = hash
  $$;

-- Join. `person` is the user who proved who he is, null for a new one, who gets the password hash. The invitation's row decides which
-- of two calls at once is the first. outcome: joined · used · over · gone · has_account (a new user, and somebody has that address by now)
create or replace function app.accept_invitation(hash bytea, person uuid, password_hash text, first text, last text, ip text, request text)
  returns table (outcome text, organization_id uuid, user_id uuid, role text)
  language plpgsql security definer set search_path = pg_catalog, pg_temp
  as $$
  #variable_conflict use_column
  declare
    t app.invitation_tokens;
    i public.invitations;
    member uuid := person;
    granted text[];
  begin
    select * into t from app.invitation_tokens x where x.token_hash = hash;
    if not found then
      return query select 'gone', null::uuid, null::uuid, null::text;
      return;
    end if;
    select * into i from public.invitations x where x.organization_id = t.organization_id and x.id = t.invitation_id for update;
    if i.accepted_at is not null or i.revoked_at is not null or i.expires_at <= now() then
      return query select case when i.accepted_at is not null then 'used' else 'over' end, i.organization_id, null::uuid, i.role;
      return;
    end if;
    if member is null then
      insert into auth.users (email, encrypted_password, email_confirmed_at, user_metadata)
      values (i.email, password_hash, now(), jsonb_strip_nulls(jsonb_build_object('first_name', first, 'last_name', last)))
      on conflict (email) do nothing returning id into member;
      if member is null then
        return query select 'has_account', i.organization_id, null::uuid, i.role;
        return;
      end if;
    elsif not exists (select from auth.users u where u.id = member and u.email = i.email) then
      return query select 'gone', null::uuid, null::uuid, null::text;
      return;
    end if;
    perform app.act_as_user(i.organization_id, member, ip, request);
    granted := case when i.permissions is null or i.role = 'OWNER' then app.role_defaults(i.role)
                    else array(select p.key from jsonb_each(i.permissions) p where p.value = 'true') end;
    insert into public.memberships as m (organization_id, user_id, role, email, first_name, last_name, can_access_crm, can_access_pm, can_manage_team,
                                         can_manage_settings, can_send_messages, can_read_messages)
    select i.organization_id, member, i.role, i.email, coalesce(first, case when last is null then coalesce(p.first_name, u.user_metadata ->> 'first_name') end),
           coalesce(last, case when first is null then coalesce(p.last_name, u.user_metadata ->> 'last_name') end),          -- as they are called elsewhere
           'can_access_crm' = any (granted), 'can_access_pm' = any (granted), 'can_manage_team' = any (granted),
           'can_manage_settings' = any (granted), 'can_send_messages' = any (granted), 'can_read_messages' = any (granted)
      from auth.users u left join lateral (select n.first_name, n.last_name from public.memberships n where n.user_id = u.id order by n.created_at desc limit 1) p on true
     where u.id = member
    on conflict (organization_id, user_id) do update
       set is_active = true, role = excluded.role, can_access_crm = excluded.can_access_crm, can_access_pm = excluded.can_access_pm,
           can_manage_team = excluded.can_manage_team, can_manage_settings = excluded.can_manage_settings,
           can_send_messages = excluded.can_send_messages, can_read_messages = excluded.can_read_messages
     where not m.is_active;                                       -- who is a member already stays what he is
    update public.invitations x set accepted_at = now() where x.organization_id = i.organization_id and x.id = i.id;
    return query select 'joined', m.organization_id, m.user_id, m.role from public.memberships m where m.organization_id = i.organization_id and m.user_id = member;
  end $$;

-- Within a role: one's own membership ends. The last owner's does not (guard_membership).
create or replace function app.leave_organization() returns void
  language plpgsql security definer set search_path = pg_catalog, pg_temp
  as $$
  declare
    org uuid := app.org();
    member uuid := app.current_user_id();
    caller jsonb := app.ctx();
  begin
    if org is null or member is null then
      raise exception using errcode = '42501', message = 'Only a member can leave';
    end if;
    perform app.act_as_user(org, member, caller ->> 'ip', caller ->> 'request');
    update public.memberships m set is_active = false where m.organization_id = org and m.user_id = member;
    perform set_config('hub.ctx', caller::text, true);
  end $$;

-- Within a role: an earlier key ends when its successor has had time to take its place; never later than it would have.
-- No row: no such key of the caller's, or one that has ended.
create or replace function app.retire_api_key(key_id uuid, overlap interval)
  returns table (name text, permissions jsonb, expires_at timestamptz)
  language plpgsql security definer set search_path = pg_catalog, pg_temp
  as $$
  #variable_conflict use_column
  begin
    if not (app.may_any('{can_manage_settings}') and app.role_in('{OWNER,ADMIN}')) then
      raise exception using errcode = '42501', message = 'Making keys needs can_manage_settings';
    end if;
    return query
    update public.api_keys k set expires_at = least(k.expires_at, now() + overlap)
      from (select o.id, o.expires_at as earlier from public.api_keys o where o.organization_id = app.org() and o.id = key_id for no key update) was
     where k.organization_id = app.org() and k.id = was.id and k.revoked_at is null and (k.expires_at is null or k.expires_at > now())
    returning k.name, k.permissions, k.expires_at;
  end $$;

grant execute on function app.keep_invitation_token(uuid, bytea), app.leave_organization(), app.retire_api_key(uuid, interval) to authenticated;

-- Within a role: give a conversation that the caller sees to a member, or to nobody; also to one for whom it leaves the caller's sight,
-- which a row policy would refuse. False: no such conversation.
create or replace function app.assign_conversation(conversation uuid, assignee uuid) returns boolean
  language plpgsql security definer set search_path = pg_catalog, pg_temp
  as $$
  begin
    if app.org() is null or not app.may_any('{can_send_messages}') then
      raise exception using errcode = '42501', message = 'Assigning needs can_send_messages';
    end if;
    perform from public.conversations c where c.organization_id = app.org() and c.id = conversation
       and (app.sees_all() or c.assignee_id = app.current_user_id() or c.team_id = any (app.my_teams())) for update;
    if not found then
      return false;
    end if;
    update public.conversations c set assignee_id = assignee
     where c.organization_id = app.org() and c.id = conversation and c.assignee_id is distinct from assignee;
    return true;
  end $$;
grant execute on function app.assign_conversation(uuid, uuid) to authenticated;
