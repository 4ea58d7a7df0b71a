-- The audit log: who did what to what, before and after, from where. Triggers write it in the deed's own transaction, so it holds
-- for /rest/v1, functions, sockets and workers alike. Nobody may change or remove a row; the owner's keeping time is the exception.

-- A document without its secrets: values of members whose name says so are masked, long ones are counted.
create or replace function app.masked(value jsonb, name text default '') returns jsonb
  language plpgsql immutable parallel safe
  as $$
  begin
    case jsonb_typeof(value)
      when 'object' then return (select coalesce(jsonb_object_agg(e.key, app.masked(e.value, e.key)), '{}') from jsonb_each(value) e);
      when 'array' then
        if octet_length(value::text) > 2000 then
          return to_jsonb(format('(%s items)', jsonb_array_length(value)));
        end if;
        return (select coalesce(jsonb_agg(app.masked(e, name)), '[]') from jsonb_array_elements(value) e);
      when 'string', 'number' then
        if lower(regexp_replace(name, '([a-z0-9])([A-Z])', '\1_\2', 'g'))
             ~ '(^|_)(token|secret|password|passphrase|pin|api_key|private_key|authorization|credentials?)$' then
          return '"********"';
        end if;
        return case when octet_length(value::text) > 2000 then to_jsonb(format('(%s characters)', length(value #>> '{}'))) else value end;
      else return value;
    end case;
  end $$;

-- One row of the log, for triggers and definer functions: the actor and his address are those of the transaction (hub.ctx). What a
-- rule, flow or campaign does carries its name, a worker's own deeds `worker`, the command line's and service_role's `operator`.
create or replace function app.note_deed(org uuid, deed text, on_table text, on_id uuid, what jsonb default '{}') returns void
  language sql
  as $$
    insert into public.audit_log (organization_id, actor_kind, actor_id, action, target_table, target_id, details, ip, request_id)
    select org, coalesce(c.ctx ->> 'actor', case c.ctx ->> 'kind' when 'service' then 'operator' else c.ctx ->> 'kind' end, 'system'),
           coalesce(c.ctx ->> 'actor_id', c.ctx ->> 'key', c.ctx ->> 'user')::uuid, deed, on_table, on_id,
           what || case when c.ctx ->> 'cause' is not null then jsonb_build_object('cause', c.ctx ->> 'cause') else '{}' end,
           case when pg_input_is_valid(c.ctx ->> 'ip', 'inet') then (c.ctx ->> 'ip')::inet end, c.ctx ->> 'request'
      from (select app.ctx() as ctx) c
  $$;

-- What a change of a row is called.
create or replace function app.deed_of(table_name text, op text, before jsonb, after jsonb) returns text
  language sql immutable parallel safe
  as $$
    select case
      when table_name = 'memberships' then
        case op when 'INSERT' then 'member.joined' when 'DELETE' then 'member.removed'
          else case when before ->> 'is_active' <> after ->> 'is_active' then case after ->> 'is_active' when 'true' then 'member.reactivated' else 'member.deactivated' end
                    when before ->> 'role' <> after ->> 'role' then 'member.role_changed'
                    when exists (select from jsonb_each(before) b where (b.key like 'can\_%' or b.key = 'visibility') and after -> b.key <> b.value) then 'member.permissions_changed'
                    else 'member.updated' end end
      when table_name = 'team_members' then case op when 'INSERT' then 'team.member_added' else 'team.member_removed' end
      when table_name = 'invitations' and op = 'INSERT' then 'invitation.sent'
      when table_name = 'invitations' and op = 'UPDATE' and before ->> 'accepted_at' is null and after ->> 'accepted_at' is not null then 'invitation.accepted'
      when table_name in ('invitations', 'api_keys') and op = 'UPDATE' and before ->> 'revoked_at' is null and after ->> 'revoked_at' is not null then
        case table_name when 'invitations' then 'invitation.revoked' else 'api_key.revoked' end
      when table_name = 'invitations' and op = 'UPDATE' and before ->> 'expires_at' <> after ->> 'expires_at' then 'invitation.resent'
      when table_name = 'campaigns' and op = 'UPDATE' and before ->> 'status' <> after ->> 'status' then 'campaign.' || lower(after ->> 'status')
      else coalesce(app.event_noun(table_name), case when table_name = 'business_hours' then table_name when table_name like '%ies' then left(table_name, -3) || 'y' else rtrim(table_name, 's') end)
           || case op when 'INSERT' then '.created' when 'UPDATE' then '.updated' else '.deleted' end
    end
  $$;

-- On the tables that decide who may do what and what the product does by itself. Arguments: columns that are left out (they count
-- or follow). Statements without a caller (migrations, seeds, cascades of an organization that goes) leave no row.
create or replace function app.audit_row() returns trigger
  language plpgsql security definer set search_path = pg_catalog, pg_temp
  as $$
  declare
    quiet text[] := array['organization_id', 'created_at', 'updated_at', 'version', 'revision'] || tg_argv::text[];
    before jsonb := case when tg_op <> 'INSERT' then to_jsonb(old) end;
    after jsonb := case when tg_op <> 'DELETE' then to_jsonb(new) end;
    image jsonb := coalesce(after, before);
    org uuid := coalesce(image ->> 'organization_id', image ->> 'id')::uuid;
    what jsonb;
  begin
    if app.ctx() is null or (tg_op = 'DELETE' and not exists (select from public.organizations o where o.id = org)) then
      return null;
    end if;
    if tg_op = 'UPDATE' then
      select jsonb_build_object('before', jsonb_object_agg(b.key, app.masked(b.value, b.key)), 'after', jsonb_object_agg(b.key, app.masked(after -> b.key, b.key)))
        into what from jsonb_each(before) b where after -> b.key is distinct from b.value and not b.key = any (quiet);
      if what -> 'before' = 'null' then
        return null;
      end if;
    else
      what := jsonb_build_object(case tg_op when 'INSERT' then 'after' else 'before' end, app.masked(jsonb_strip_nulls(image - quiet)));
    end if;
    perform app.note_deed(org, app.deed_of(tg_table_name, tg_op, before, after), tg_table_name,
                          coalesce(case tg_table_name when 'memberships' then image ->> 'user_id' when 'team_members' then image ->> 'user_id' end, image ->> 'id')::uuid, what);
    return null;
  end $$;

-- Rows that somebody deleted, one row of the log a statement: how many and which (the first hundred).
create or replace function app.audit_deleted() returns trigger
  language plpgsql security definer set search_path = pg_catalog, pg_temp
  as $$
  begin
    if app.ctx() is null then
      return null;
    end if;
    perform app.note_deed(g.organization_id, tg_table_name || '.deleted', tg_table_name, case when g.n = 1 then g.ids[1] end,
                          jsonb_build_object('count', g.n, 'ids', to_jsonb(g.ids[1:100])))
       from (select d.organization_id, count(*) as n, array_agg(d.id) as ids from gone d
              where exists (select from public.organizations o where o.id = d.organization_id) group by d.organization_id) g;
    return null;
  end $$;

-- Called by the runtime, many at once: attempts that were refused. [{organization_id, kind, actor_id, what, target_table, target_id, ip, request, reason}]
create or replace function app.note_refusals(items jsonb) returns void
  language sql security definer set search_path = pg_catalog, pg_temp
  as $$
    insert into public.audit_log (organization_id, actor_kind, actor_id, action, target_table, target_id, details, ip, request_id)
    select i.organization_id, i.kind, i.actor_id, 'access.refused', i.target_table, i.target_id,
           jsonb_strip_nulls(jsonb_build_object('what', i.what, 'reason', i.reason)),
           case when pg_input_is_valid(i.ip, 'inet') then i.ip::inet end, i.request
      from jsonb_to_recordset(items) i (organization_id uuid, kind text, actor_id uuid, what text, reason text, target_table text, target_id uuid, ip text, request text)
     where exists (select from public.organizations o where o.id = i.organization_id)
  $$;

-- Called inside a caller's own transaction: he takes a copy of this (the audit log, a list of contacts) out of the product.
create or replace function app.note_export(what text, how jsonb) returns void
  language plpgsql security definer set search_path = pg_catalog, pg_temp
  as $$
  begin
    if app.org() is null then
      raise exception using errcode = '42501', message = 'Only members and keys of an organization export';
    end if;
    perform app.note_deed(app.org(), what || '.exported', what, null, how);
  end $$;
grant execute on function app.note_export(text, jsonb) to authenticated;
