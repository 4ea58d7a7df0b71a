-- Users as the service_role keeps them (/auth/v1/admin), and the sessions that a user sees of his own.

create or replace function app.list_users(page_size integer, skip bigint) returns table (total bigint, document jsonb)
  language sql stable security definer set search_path = pg_catalog, pg_temp
  as $$
    select (select count(*) from auth.users), app.user_document(u.id)
      from (select x.id, x.created_at from auth.users x order by x.created_at desc, x.id desc limit page_size offset skip) u
     order by u.created_at desc, u.id desc
  $$;

-- Make a user (member null) or change one. What is null stays; `ban` is seconds, 0 ends one. A new password or a ban ends the sessions. Null
-- when there is no such user; raises unique_violation for an address that is somebody's.
create or replace function app.put_user(member uuid, address text, password_hash text, confirmed boolean, metadata jsonb, app_metadata jsonb, ban double precision) returns uuid
  language plpgsql security definer set search_path = pg_catalog, pg_temp
  as $$
  #variable_conflict use_variable
  declare
    found_id uuid;
  begin
    if member is null then
      insert into auth.users as u (email, encrypted_password, email_confirmed_at, user_metadata, app_metadata, banned_until)
      values (address, password_hash, case when confirmed then now() end, coalesce(metadata, '{}'), coalesce(app_metadata, '{}'), case when ban > 0 then now() + make_interval(secs => ban) end)
      returning u.id into found_id;
      return found_id;
    end if;
    update auth.users u
       set email = coalesce(address, u.email), encrypted_password = coalesce(password_hash, u.encrypted_password),
           email_confirmed_at = case when confirmed then coalesce(u.email_confirmed_at, now()) else u.email_confirmed_at end,
           user_metadata = jsonb_strip_nulls(u.user_metadata || coalesce(metadata, '{}')), app_metadata = jsonb_strip_nulls(u.app_metadata || coalesce(app_metadata, '{}')),
           banned_until = case when ban is null then u.banned_until when ban > 0 then now() + make_interval(secs => ban) end, updated_at = now()
     where u.id = member returning u.id into found_id;
    if address is not null then
      update public.memberships m set email = address where m.user_id = member and m.email is distinct from address;
    end if;
    if password_hash is not null or ban > 0 then
      perform app.end_sessions(null, member, 'global');
      insert into public.audit_log (organization_id, actor_kind, action, target_table, target_id)
      select m.organization_id, 'service', case when ban > 0 then 'user.banned' else 'password.changed' end, 'users', member
        from public.memberships m where m.user_id = member and m.is_active;
    end if;
    return found_id;
  end $$;

create or replace function app.drop_user(member uuid) returns boolean
  language sql security definer set search_path = pg_catalog, pg_temp
  as $$ with gone as (delete from auth.users u where u.id = member returning 1) select exists (select from gone) $$;

create or replace function app.sessions_of(member uuid)
  returns table (id uuid, organization text, is_web boolean, aal text, user_agent text, ip inet, created_at timestamptz, refreshed_at timestamptz)
  language sql stable security definer set search_path = pg_catalog, pg_temp
  as $$
    select s.id, o.name, s.is_web, s.aal, s.user_agent, s.ip, s.created_at, s.refreshed_at
      from auth.sessions s left join public.organizations o on o.id = s.organization_id
     where s.user_id = member and s.revoked_at is null order by s.created_at desc, s.id desc limit 200
  $$;
