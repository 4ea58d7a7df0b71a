-- What every API table does on update, and what a few tables work out for themselves.

create or replace function app.touch() returns trigger
  language plpgsql
  as $$
  begin
    new.updated_at := clock_timestamp();
    new.created_at := old.created_at;
    new.version := old.version + 1;
    return new;
  end $$;

-- bot_flows.version is the flow's own number (advanced by publishing); its row counts in `revision`.
create or replace function app.touch_flow() returns trigger
  language plpgsql
  as $$
  begin
    new.updated_at := clock_timestamp();
    new.created_at := old.created_at;
    new.revision := old.revision + 1;
    return new;
  end $$;

create or replace function app.touch_time() returns trigger
  language plpgsql
  as $$ begin new.updated_at := clock_timestamp(); return new; end $$;

-- Ids and organizations never change: a row cannot be moved into another tenant.
create or replace function app.keep_key() returns trigger
  language plpgsql
  as $$
  begin
    if to_jsonb(new) ->> 'organization_id' is distinct from to_jsonb(old) ->> 'organization_id'
       or to_jsonb(new) ->> 'id' is distinct from to_jsonb(old) ->> 'id' then
      raise exception using errcode = '42501', message = 'id and organization_id cannot be changed';
    end if;
    return new;
  end $$;

create or replace function app.task_status() returns trigger
  language plpgsql
  as $$
  begin
    new.status := case when new.completed then 'DONE' when new.due_date < now() then 'OVERDUE' else 'TODO' end;
    new.completed_at := case when new.completed then coalesce(new.completed_at, now()) end;
    return new;
  end $$;

create or replace function app.conversation_closed_at() returns trigger
  language plpgsql
  as $$
  begin
    if new.status = 'CLOSED' and (tg_op = 'INSERT' or old.status <> 'CLOSED') then
      new.closed_at := coalesce(new.closed_at, now());
      new.waiting_since := null;
    elsif new.status = 'OPEN' then
      new.closed_at := null;
    end if;
    return new;
  end $$;

-- Who does not see all conversations sees those he opens: they are his, unless they are one of his teams'.
create or replace function app.keep_in_sight() returns trigger
  language plpgsql
  as $$
  begin
    if not app.sees_all() and new.assignee_id is null and not coalesce(new.team_id = any (app.my_teams()), false) then
      new.assignee_id := app.current_user_id();
    end if;
    return new;
  end $$;

-- Stages sent as a JSON string are stored as the array they spell.
create or replace function app.pipeline_stages() returns trigger
  language plpgsql
  as $$
  begin
    if jsonb_typeof(new.stages) = 'string' then
      new.stages := (new.stages #>> '{}')::jsonb;
    end if;
    return new;
  exception when invalid_text_representation then
    raise exception using errcode = '23514', message = 'stages must be a JSON array', constraint = 'pipelines_stages_check', table = 'pipelines';
  end $$;

-- What a role may do to begin with (hub/domain/permissions.py; a test compares them).
create or replace function app.role_defaults(role text) returns text[]
  language sql immutable parallel safe
  as $$
    select case role
      when 'AGENT' then '{can_access_crm,can_send_messages,can_read_messages}'::text[]
      else '{can_access_crm,can_access_pm,can_manage_team,can_manage_settings,can_send_messages,can_read_messages}' end
  $$;

-- Fires when a statement names permissions, changed or not, and before guard_membership: then a role brings none along.
create or replace function app.name_flags() returns trigger
  language plpgsql
  as $$ begin perform set_config('hub.flags', new.user_id::text, true); return new; end $$;

-- Roles and permissions: nobody raises anyone above himself or gives what he does not hold, nobody promotes himself, the last owner
-- stays. A role that changes alone brings its own permissions along.
create or replace function app.guard_membership() returns trigger
  language plpgsql security definer set search_path = pg_catalog, pg_temp
  as $$
  declare
    ctx jsonb := app.ctx();
    is_caller boolean := coalesce(ctx ->> 'kind' in ('user', 'key'), false);
    rank constant jsonb := '{"AGENT": 1, "ADMIN": 2, "OWNER": 3}';
    mine integer := coalesce((rank ->> (ctx ->> 'role'))::integer, 1);
    flags constant text[] := '{can_access_crm,can_access_pm,can_manage_team,can_manage_settings,can_send_messages,can_read_messages}';
    had jsonb;
    named boolean;
    gets jsonb := to_jsonb(new);
    given text;
    refuse constant text := '42501';
  begin
    if tg_op = 'UPDATE' then
      had := to_jsonb(old);
      named := current_setting('hub.flags', true) = new.user_id::text;
      perform set_config('hub.flags', '', true);
      if new.role <> old.role and named is not true then
        select gets || jsonb_object_agg(f, f = any (app.role_defaults(new.role)) and (not is_caller or had -> f = 'true' or app.may_any(array[f]))) into gets from unnest(flags) f;
        new := jsonb_populate_record(new, gets);
      end if;
      if new.role = 'OWNER' and old.role <> 'OWNER' then
        new.visibility := 'all';
      end if;
      if ctx is not null and old.role = 'OWNER' and old.is_active and (new.role <> 'OWNER' or not new.is_active) then
        perform from public.organizations o where o.id = old.organization_id for no key update;   -- two owners leave one after the other
        if not exists (select from public.memberships m where m.organization_id = old.organization_id and m.role = 'OWNER' and m.is_active and m.user_id <> old.user_id) then
          raise exception using errcode = refuse, message = 'The last owner cannot leave or step down';
        end if;
      end if;
    end if;
    if not is_caller then
      return new;
    end if;
    if tg_op = 'UPDATE' and row(new.role, new.is_active, new.visibility) = row(old.role, old.is_active, old.visibility)
       and not exists (select from unnest(flags) f where gets -> f <> had -> f) then
      if new.user_id is distinct from (ctx ->> 'user')::uuid and not app.may_any('{can_manage_team}')
         and row(new.first_name, new.last_name, new.avatar_url, new.availability, new.preferences)
             is distinct from row(old.first_name, old.last_name, old.avatar_url, old.availability, old.preferences) then
        raise exception using errcode = refuse, message = 'Changing another member needs can_manage_team';
      end if;
      return new;
    end if;
    if not app.may_any('{can_manage_team}') then
      raise exception using errcode = refuse, message = 'Changing roles or permissions needs can_manage_team';
    end if;
    if tg_op = 'UPDATE' and new.user_id = (ctx ->> 'user')::uuid and ctx ->> 'role' <> 'OWNER'
       and ((rank ->> new.role)::integer >= (rank ->> old.role)::integer or new.visibility <> old.visibility) then
      raise exception using errcode = refuse, message = 'You cannot change your own permissions';
    end if;
    if mine < (rank ->> new.role)::integer or (tg_op = 'UPDATE' and mine < (rank ->> old.role)::integer) then
      raise exception using errcode = refuse, message = 'You cannot give or change a role above your own';
    end if;
    select f into given from unnest(flags) f where gets -> f = 'true' and coalesce(had -> f, 'false') = 'false' and not app.may_any(array[f]) limit 1;
    if given is not null then
      raise exception using errcode = refuse, message = 'You cannot give a permission that you do not hold: ' || given;
    end if;
    return new;
  end $$;

-- Whoever is deactivated or goes is signed out of this organization at once, and what he may have prepared ends with him: the
-- invitations that he sent. His other organizations stay; there he signs in again.
create or replace function app.end_membership() returns trigger
  language plpgsql security definer set search_path = pg_catalog, pg_temp
  as $$
  begin
    if not exists (select from public.organizations o where o.id = old.organization_id) then
      return null;
    end if;
    with ended as (
      update auth.sessions s set revoked_at = clock_timestamp()
       where s.user_id = old.user_id and s.organization_id = old.organization_id and s.revoked_at is null returning s.id)
    update auth.refresh_tokens r set revoked_at = clock_timestamp() from ended where r.session_id = ended.id and r.revoked_at is null;
    if tg_op = 'UPDATE' then
      update public.invitations i set revoked_at = now()
       where i.organization_id = old.organization_id and i.invited_by = old.user_id and i.accepted_at is null and i.revoked_at is null;
    end if;
    return null;
  end $$;

-- Only an organization that goes takes its last owner along.
create or replace function app.keep_last_owner() returns trigger
  language plpgsql security definer set search_path = pg_catalog, pg_temp
  as $$
  begin
    if app.ctx() is null then
      return old;                                        -- the operator, who knows
    end if;
    perform from public.organizations o where o.id = old.organization_id for no key update;
    if found and not exists (select from public.memberships m where m.organization_id = old.organization_id and m.role = 'OWNER' and m.is_active and m.user_id <> old.user_id) then
      raise exception using errcode = '42501', message = 'The last owner cannot leave or step down';
    end if;
    return old;
  end $$;

-- memberships.team_ids mirrors team_members: policies and sockets read it in one look.
create or replace function app.mirror_teams() returns trigger
  language plpgsql security definer set search_path = pg_catalog, pg_temp
  as $$
  declare
    org uuid := case tg_op when 'DELETE' then old.organization_id else new.organization_id end;
    member uuid := case tg_op when 'DELETE' then old.user_id else new.user_id end;
  begin
    perform from public.memberships m where m.organization_id = org and m.user_id = member for no key update;   -- the next look sees what others have done
    update public.memberships m set team_ids = t.ids
      from (select coalesce(array_agg(x.team_id order by x.team_id), '{}') as ids from public.team_members x where x.organization_id = org and x.user_id = member) t
     where m.organization_id = org and m.user_id = member and m.team_ids is distinct from t.ids;
    return null;
  end $$;

-- What is revoked opens nothing any more: keys and links lose their hash, so that no change of the row brings them back. A link that
-- was used keeps it, so that its second use is told from a guess.
create or replace function app.forget_secret() returns trigger
  language plpgsql security definer set search_path = pg_catalog, pg_temp
  as $$
  begin
    if tg_table_name = 'api_keys' then
      delete from app.api_key_hashes h where h.organization_id = new.organization_id and h.api_key_id = new.id;
    else
      delete from app.invitation_tokens t where t.organization_id = new.organization_id and t.invitation_id = new.id;
    end if;
    return null;
  end $$;

-- Names that the database itself knows, for what a CHECK cannot look up.
create or replace function app.check_organization() returns trigger
  language plpgsql
  as $$
  begin
    if tg_op = 'INSERT' or new.timezone <> old.timezone then
      perform now() at time zone new.timezone;
    end if;
    return new;
  exception when invalid_parameter_value then
    raise exception using errcode = '23514', message = 'There is no such time zone', constraint = 'organizations_timezone_check', table = 'organizations';
  end $$;

-- PATCH /rest/v1/profiles writes the membership it shows.
create or replace function app.write_profile() returns trigger
  language plpgsql
  as $$
  begin
    if row(new.id, new.organization_id, new.email) is distinct from row(old.id, old.organization_id, old.email) then
      raise exception using errcode = '42501', message = 'id, organization_id and email of a profile cannot be changed';
    end if;
    update public.memberships m
       set role = new.role, first_name = new.first_name, last_name = new.last_name, avatar_url = new.avatar_url,
           is_active = new.is_active, availability = new.availability
     where m.organization_id = old.organization_id and m.user_id = old.id
     returning m.role, m.updated_at, m.version into new.role, new.updated_at, new.version;
    if not found then
      return null;
    end if;
    return new;
  end $$;

-- The provider's key of an account, so that a webhook finds its organization.
create or replace function app.route_account() returns trigger
  language plpgsql security definer set search_path = pg_catalog, pg_temp
  as $$
  declare
    account_key text := new.settings ->> case new.type
      when 'WHATSAPP_CLOUD' then 'phone_number_id' when 'WHATSAPP_BUSINESS' then 'phone_number_id' when 'FB_MESSENGER' then 'page_id'
      when 'INSTAGRAM' then 'ig_account_id' when 'TELEGRAM' then 'bot_id' when 'TIKTOK' then 'business_id'
      when 'WHATSAPP_LITE' then 'suit_id' when 'SHRINKIT_PUSH' then 'suit_id' when 'SMS' then 'account_sid' when 'EMAIL' then 'address' end;
  begin
    delete from app.webhook_routes r where r.organization_id = new.organization_id and r.channel_account_id = new.id;
    if account_key <> '' and new.disconnected_at is null then
      insert into app.webhook_routes (organization_id, channel_account_id, type, account_key)
      values (new.organization_id, new.id, case new.type when 'WHATSAPP_BUSINESS' then 'WHATSAPP_CLOUD' else new.type end, account_key);
    end if;
    return null;
  end $$;

-- Phones and e-mails of a contact are identities too, so that whoever writes from them is this person. A number that another
-- contact holds stays his: duplicates are found and merged by people.
create or replace function app.mirror_identities() returns trigger
  language plpgsql security definer set search_path = pg_catalog, pg_temp
  as $$
  declare
    given text[];
  begin
    select coalesce(array_agg(distinct i.scheme || ':' || i.value), '{}') into given from (
      select 'phone_e164' as scheme, '+' || ltrim(regexp_replace(app.fold(p), '[^0-9]', '', 'g'), '0') as value from unnest(new.phones) p
       where ltrim(p) like '+%' or ltrim(p) like '00%'
      union all
      select 'email', lower(trim(e)) from unnest(new.emails) e where e like '%_@_%') i
     where length(i.value) between 3 and 320;
    delete from public.contact_identities i
     where i.organization_id = new.organization_id and i.contact_id = new.id and i.scheme in ('phone_e164', 'email') and not i.scheme || ':' || i.value = any (given);
    insert into public.contact_identities (organization_id, contact_id, scheme, value)
    select new.organization_id, new.id, split_part(g, ':', 1), substr(g, strpos(g, ':') + 1) from unnest(given) g order by 3, 4
    on conflict (organization_id, scheme, value) do nothing;
    return null;
  end $$;

-- Columns that the hub keeps and a caller may not write: on insert they must be left alone, on update unchanged. Arguments: the
-- columns. Stands on tables for callers in the role authenticated; definer functions and service_role may.
create or replace function app.refuse_kept_columns() returns trigger
  language plpgsql
  as $$
  declare
    after jsonb := to_jsonb(new);
    before jsonb := case when tg_op = 'UPDATE' then to_jsonb(old) end;
    c text;
  begin
    foreach c in array tg_argv loop
      if (before is not null and after -> c is distinct from before -> c)
         or (before is null and after -> c not in ('null', '0', 'false', '{}', '[]', '"unknown"', '"ok"')) then
        raise exception using errcode = '42501', message = tg_table_name || '.' || c || ' is kept by the hub and cannot be written';
      end if;
    end loop;
    return new;
  end $$;

-- A member may give no permission that he does not hold himself: not to a key, not to an invitation.
create or replace function app.guard_grants() returns trigger
  language plpgsql
  as $$
  declare
    p text;
    rank jsonb := '{"AGENT": 1, "ADMIN": 2, "OWNER": 3}';
  begin
    for p in select g.key from jsonb_each(coalesce(new.permissions, '{}')) g where g.value = 'true' loop
      if not app.may_any(array[p]) then
        raise exception using errcode = '42501', message = 'You cannot give a permission that you do not hold: ' || p;
      end if;
    end loop;
    if tg_table_name = 'invitations' and coalesce((rank ->> (app.ctx() ->> 'role'))::integer, 1) < (rank ->> (to_jsonb(new) ->> 'role'))::integer then
      raise exception using errcode = '42501', message = 'You cannot invite to a role above your own';
    end if;
    return new;
  end $$;
