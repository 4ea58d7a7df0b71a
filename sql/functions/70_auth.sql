-- Who is calling: keys, users, sessions, refresh tokens, sign-in limits. Part of the closed list that crosses tenants;
-- reached by the runtime's own login before any role is entered, except where a comment says otherwise.

-- Keys of the deployment, sealed with HUB_SECRET_KEY: the HS256 secret of the project keys, ES256 keys, the pepper of API keys.
drop function if exists app.list_signing_keys();
create or replace function app.list_signing_keys()
  returns table (kid text, algorithm text, public_jwk jsonb, sealed text, is_current boolean, created_at timestamptz, signs_from timestamptz)
  language sql stable security definer set search_path = pg_catalog, pg_temp
  as $$
    select k.kid, k.algorithm, k.public_jwk, k.sealed, k.is_current, k.created_at, k.signs_from from app.signing_keys k
     where k.retired_at is null or k.retired_at > now() order by k.created_at, k.kid
  $$;

-- Two hubs may start at once: the first one's key of each kind stays.
create or replace function app.add_signing_key(new_kid text, new_algorithm text, jwk jsonb, new_sealed text) returns void
  language plpgsql security definer set search_path = pg_catalog, pg_temp
  as $$
  begin
    perform pg_advisory_xact_lock(hashtextextended('signing_keys', 0));
    insert into app.signing_keys (kid, algorithm, public_jwk, sealed)
    select new_kid, new_algorithm, jwk, new_sealed
     where not exists (select from app.signing_keys k where k.algorithm = new_algorithm and k.is_current and k.retired_at is null);
  end $$;

-- Returns the sentinel that stands, which is `fresh` where none stood before.
create or replace function app.claim_sentinel(fresh text) returns text
  language sql security definer set search_path = pg_catalog, pg_temp
  as $$ update app.hub_meta set sentinel = coalesce(sentinel, fresh) returning sentinel $$;

create or replace function app.user_by_email(address text)
  returns table (id uuid, encrypted_password text, banned boolean, confirmed boolean)
  language sql stable security definer set search_path = pg_catalog, pg_temp
  as $$
    select u.id, u.encrypted_password, coalesce(u.banned_until > now(), false), u.email_confirmed_at is not null
      from auth.users u where u.email = lower(address)
  $$;

-- A user as /auth/v1 shows it; nothing that could be guessed from (no password hash).
create or replace function app.user_document(user_id uuid) returns jsonb
  language sql stable security definer set search_path = pg_catalog, pg_temp
  as $$
    select jsonb_build_object('id', u.id, 'email', u.email, 'email_confirmed_at', u.email_confirmed_at, 'last_sign_in_at', u.last_sign_in_at,
             'user_metadata', u.user_metadata, 'app_metadata', u.app_metadata, 'created_at', u.created_at, 'updated_at', u.updated_at,
             'new_email', u.email_change, 'email_change_sent_at', u.email_change_sent_at, 'confirmation_sent_at', u.confirmation_sent_at,
             'invited_at', u.invited_at, 'banned_until', case when u.banned_until > now() then u.banned_until end,
             'factors', (select coalesce(jsonb_agg(jsonb_build_object('id', f.id, 'friendly_name', f.friendly_name, 'factor_type', 'totp', 'status', f.status,
                                                                      'created_at', f.created_at, 'updated_at', f.updated_at) order by f.created_at, f.id), '[]')
                           from auth.mfa_factors f where f.user_id = u.id))
      from auth.users u where u.id = user_id
  $$;

-- What a change of one's own account rests on: the password's hash, the address, and how long ago (seconds) this session's user proved
-- who he is.
drop function if exists app.account_proof(uuid, uuid);
create or replace function app.account_proof(member uuid, session uuid)
  returns table (encrypted_password text, email text, proved_s double precision, aal text, has_factor boolean)
  language sql stable security definer set search_path = pg_catalog, pg_temp
  as $$
    select u.encrypted_password, u.email, extract(epoch from clock_timestamp() - s.proved_at)::double precision, s.aal,
           exists (select from auth.mfa_factors f where f.user_id = u.id and f.status = 'verified')
      from auth.users u join auth.sessions s on s.user_id = u.id and s.id = session where u.id = member
  $$;
drop function if exists app.password_of(uuid);

-- Seconds until this account may try again from this network; 0 when it may now. Ten failures from one network, fifty in
-- all, or a hundred of any accounts from one network begin a delay that doubles up to 15 minutes; an hour of quiet ends it.
-- The fifty do not count where the account has signed in before: strangers elsewhere must not lock its owner out.
create or replace function app.sign_in_delay(account text, network text) returns double precision
  language sql stable security definer set search_path = pg_catalog, pg_temp
  as $$
    with usual as materialized (
      select exists (select from auth.users u join auth.sessions s on s.user_id = u.id
                      where (u.email = sign_in_delay.account
                             or s.aal = 'aal2' and u.id = case when starts_with(account, 'mfa:') and pg_input_is_valid(substr(account, 5), 'uuid') then substr(account, 5)::uuid end)
                        and s.ip <<= case when pg_input_is_valid(network, 'inet') then network::inet end) as known
    ), counted as (
      select 10 as allowed, f.failures, f.last_at from auth.sign_in_failures f
       where f.account = sign_in_delay.account and f.network = sign_in_delay.network and f.last_at > now() - interval '1 hour'
      union all
      select 50, sum(f.failures), max(f.last_at) from auth.sign_in_failures f
       where f.account = sign_in_delay.account and f.last_at > now() - interval '1 hour' and not (select known from usual)
      union all
      select 100, f.failures, f.last_at from auth.sign_in_failures f
       where f.account = '*' and f.network = sign_in_delay.network and f.last_at > now() - interval '1 hour'
    )
    select coalesce(max(greatest(0, extract(epoch from c.last_at - clock_timestamp()) + least(900, 2.0 ^ least(c.failures - c.allowed, 20)))), 0)::double precision
      from counted c where c.failures >= c.allowed
  $$;

-- A refused sign-in: wrong passwords are counted (a banned user's right one is not), and the audit log of every organization
-- the user belongs to hears of it. An address without a user leaves the counters alone behind.
create or replace function app.sign_in_failed(account text, network text, reason text, address inet, request text) returns void
  language sql security definer set search_path = pg_catalog, pg_temp
  as $$
    insert into auth.sign_in_failures as f (account, network)
    select v.account, sign_in_failed.network from (values (sign_in_failed.account), ('*')) v (account) where reason in ('invalid_credentials', 'invalid_code')
    on conflict (account, network) do update
       set failures = case when f.last_at > now() - interval '1 hour' then f.failures + 1 else 1 end, last_at = now();
    insert into public.audit_log (organization_id, actor_kind, actor_id, action, target_table, target_id, details, ip, request_id)
    select m.organization_id, 'user', u.id, 'sign_in.failed', 'users', u.id, jsonb_build_object('reason', reason), address, request
      from auth.users u join public.memberships m on m.user_id = u.id and m.is_active where u.email = lower(account)
  $$;

create or replace function app.sign_in_succeeded(account text, network text) returns void
  language sql security definer set search_path = pg_catalog, pg_temp
  as $$ delete from auth.sign_in_failures f where f.account = sign_in_succeeded.account and f.network = sign_in_succeeded.network $$;

-- The organization a session starts in: that of the user's last session while he is still a member there, else his oldest.
create or replace function app.home_of(member uuid) returns uuid
  language sql stable security definer set search_path = pg_catalog, pg_temp
  as $$
    select coalesce(
      (select s.organization_id from auth.sessions s join public.memberships m on m.organization_id = s.organization_id and m.user_id = member and m.is_active
        where s.user_id = member order by s.id desc limit 1),
      (select m.organization_id from public.memberships m where m.user_id = member and m.is_active order by m.created_at, m.organization_id limit 1))
  $$;

-- A session with its first refresh token. Writes the audit row of the sign-in in the same transaction.
drop function if exists app.open_session(uuid, boolean, text, inet, bytea, text);
create or replace function app.open_session(member uuid, web boolean, agent text, address inet, first_hash bytea, request text, method text)
  returns uuid
  language plpgsql security definer set search_path = pg_catalog, pg_temp
  as $$
  declare
    session uuid;
    org uuid := app.home_of(member);
  begin
    insert into auth.sessions (user_id, organization_id, is_web, user_agent, ip, amr)
    values (member, org, web, left(agent, 400), address, jsonb_build_array(jsonb_build_object('method', method, 'timestamp', floor(extract(epoch from now())))))
    returning id into session;
    insert into auth.refresh_tokens (session_id, token_hash) values (session, first_hash);
    update auth.users set last_sign_in_at = now() where id = member;
    if org is not null then
      insert into public.audit_log (organization_id, actor_kind, actor_id, action, target_table, target_id, details, ip, request_id)
      values (org, 'user', member, 'session.opened', 'sessions', session, jsonb_build_object('method', method), address, request);
    end if;
    return session;
  end $$;

-- What a session may do now; no row when it is unknown. organization_id is null for a user who is a member of nothing (any more), and while
-- the session still lacks a second factor that the user has.
drop function if exists app.session_state(uuid);
create or replace function app.session_state(session uuid)
  returns table (user_id uuid, organization_id uuid, role text, permissions text[], is_web boolean, revoked boolean, aal text, amr jsonb, lacks_factor boolean,
                 visibility text, team_ids uuid[])
  language sql stable security definer set search_path = pg_catalog, pg_temp
  as $$
    select s.user_id, m.organization_id, m.role,
           array_remove(array[case when m.can_access_crm then 'can_access_crm' end, case when m.can_access_pm then 'can_access_pm' end,
             case when m.can_manage_team then 'can_manage_team' end, case when m.can_manage_settings then 'can_manage_settings' end,
             case when m.can_send_messages then 'can_send_messages' end, case when m.can_read_messages then 'can_read_messages' end], null),
           s.is_web, s.revoked_at is not null or coalesce(u.banned_until > now(), false), s.aal, s.amr, w.lacks,
           coalesce(m.visibility, 'all'), coalesce(m.team_ids, '{}')
      from auth.sessions s
      join auth.users u on u.id = s.user_id
      cross join lateral (select s.aal <> 'aal2' and exists (select from auth.mfa_factors f where f.user_id = s.user_id and f.status = 'verified') as lacks) w
      left join public.memberships m on m.organization_id = s.organization_id and m.user_id = s.user_id and m.is_active and not w.lacks
     where s.id = session
  $$;

-- Exchange a refresh token for its child. The session row serializes concurrent calls.
-- outcome: fresh (the given child stands now) · again (`sealed` holds the child handed out before: the answer was lost, or
-- another tab was faster) · unknown · reused (the family is revoked now) · ended
create or replace function app.rotate_refresh(given_hash bytea, child_hash bytea, child_sealed text, window_s double precision)
  returns table (outcome text, session_id uuid, user_id uuid, sealed text)
  language plpgsql security definer set search_path = pg_catalog, pg_temp
  as $$
  #variable_conflict use_column
  declare
    t auth.refresh_tokens;
    child auth.refresh_tokens;
    s auth.sessions;
  begin
    select * into t from auth.refresh_tokens r where r.token_hash = given_hash;
    if not found then
      return query select 'unknown', null::uuid, null::uuid, null::text;
      return;
    end if;
    select * into s from auth.sessions x where x.id = t.session_id for update;
    select * into t from auth.refresh_tokens r where r.id = t.id;      -- as it is now that we hold the session
    if s.revoked_at is not null or t.revoked_at is not null
       or exists (select from auth.users u where u.id = s.user_id and u.banned_until > now()) then
      return query select 'ended', s.id, s.user_id, null::text;
      return;
    end if;
    if t.used_at is null then
      insert into auth.refresh_tokens (session_id, token_hash, parent_id) values (s.id, child_hash, t.id);
      update auth.refresh_tokens r set used_at = clock_timestamp(), child_sealed = convert_to(rotate_refresh.child_sealed, 'UTF8') where r.id = t.id;
      update auth.sessions x set refreshed_at = clock_timestamp() where x.id = s.id;
      return query select 'fresh', s.id, s.user_id, null::text;
      return;
    end if;
    select * into child from auth.refresh_tokens r where r.parent_id = t.id;
    if child.id is not null and t.child_sealed is not null and child.revoked_at is null
       and (child.used_at is null or t.used_at > clock_timestamp() - make_interval(secs => window_s)) then
      return query select 'again', s.id, s.user_id, convert_from(t.child_sealed, 'UTF8');
      return;
    end if;
    perform app.end_sessions(s.id, s.user_id, 'local');
    insert into public.audit_log (organization_id, actor_kind, actor_id, action, target_table, target_id)
    select s.organization_id, 'user', s.user_id, 'refresh_token.reused', 'sessions', s.id where s.organization_id is not null;
    return query select 'reused', s.id, s.user_id, null::text;
  end $$;

-- The session of a refresh token that still stands; for signing out with the cookie alone.
create or replace function app.session_of_refresh(given_hash bytea) returns table (session_id uuid, user_id uuid)
  language sql stable security definer set search_path = pg_catalog, pg_temp
  as $$
    select s.id, s.user_id from auth.refresh_tokens r join auth.sessions s on s.id = r.session_id
     where r.token_hash = given_hash and s.revoked_at is null
  $$;

-- scope: local (this session) · others (all but this) · global (all). Returns the sessions that ended.
create or replace function app.end_sessions(session uuid, member uuid, scope text) returns setof uuid
  language plpgsql security definer set search_path = pg_catalog, pg_temp
  as $$
  begin
    return query
    with ended as (
      update auth.sessions s set revoked_at = clock_timestamp()
       where s.user_id = member and s.revoked_at is null
         and case scope when 'local' then s.id = session when 'others' then s.id <> session else true end
      returning s.id
    ), tokens as (
      update auth.refresh_tokens r set revoked_at = clock_timestamp() from ended where r.session_id = ended.id and r.revoked_at is null
    )
    select ended.id from ended;
  end $$;

-- Change one's own user: a new password ends the other sessions; metadata is merged, a null removes its key.
create or replace function app.update_user(member uuid, session uuid, password_hash text, metadata jsonb) returns jsonb
  language plpgsql security definer set search_path = pg_catalog, pg_temp
  as $$
  begin
    update auth.users u
       set encrypted_password = coalesce(password_hash, u.encrypted_password),
           user_metadata = jsonb_strip_nulls(u.user_metadata || coalesce(metadata, '{}')),
           updated_at = now()
     where u.id = member;
    if password_hash is not null then
      delete from auth.one_time_tokens t using auth.users u where u.id = member and t.email = u.email;   -- links that sign in with the old one's proof
      perform app.end_sessions(session, member, 'others');
      insert into public.audit_log (organization_id, actor_kind, actor_id, action, target_table, target_id)
      select m.organization_id, 'user', member, 'password.changed', 'users', member from public.memberships m where m.user_id = member and m.is_active;
    end if;
    return app.user_document(member);
  end $$;

create or replace function app.has_appgain_credentials(org uuid) returns boolean
  language sql stable security definer set search_path = pg_catalog, pg_temp
  as $$
    select exists (select from public.organizations o where o.id = org and o.suit_id <> '')
       and exists (select from app.secrets s where s.organization_id = org and s.name = 'app_api_key')
  $$;

-- The organizations a user belongs to, his oldest first.
create or replace function app.organizations_of(member uuid)
  returns table (id uuid, name text, suit_id text, has_appgain_credentials boolean, role text)
  language sql stable security definer set search_path = pg_catalog, pg_temp
  as $$
    select o.id, o.name, o.suit_id, app.has_appgain_credentials(o.id), m.role
      from public.memberships m join public.organizations o on o.id = m.organization_id
     where m.user_id = member and m.is_active order by m.created_at, o.id
  $$;

-- The one organization that a key belongs to.
create or replace function app.organization_summary(org uuid) returns table (id uuid, name text, suit_id text, has_appgain_credentials boolean)
  language sql stable security definer set search_path = pg_catalog, pg_temp
  as $$ select o.id, o.name, o.suit_id, app.has_appgain_credentials(o.id) from public.organizations o where o.id = org $$;

-- Keys that begin like this one; the caller compares the hashes in constant time.
create or replace function app.api_keys_by_prefix(prefix text)
  returns table (organization_id uuid, id uuid, key_hash bytea, permissions jsonb, expires_at timestamptz, revoked boolean)
  language sql stable security definer set search_path = pg_catalog, pg_temp
  as $$
    select k.organization_id, k.id, h.key_hash, k.permissions, k.expires_at, k.revoked_at is not null
      from app.api_key_hashes h join public.api_keys k on k.organization_id = h.organization_id and k.id = h.api_key_id
     where h.key_prefix = prefix
  $$;

create or replace function app.api_key_state(key_id uuid)
  returns table (organization_id uuid, id uuid, permissions jsonb, expires_at timestamptz, revoked boolean)
  language sql stable security definer set search_path = pg_catalog, pg_temp
  as $$
    select k.organization_id, k.id, k.permissions, k.expires_at, k.revoked_at is not null
      from app.api_key_hashes h join public.api_keys k on k.organization_id = h.organization_id and k.id = h.api_key_id
     where h.api_key_id = key_id
  $$;

-- Which keys were used, many at once; at most one write in ten minutes a key: each is an event.
drop function if exists app.key_used(uuid, uuid);
create or replace function app.keys_used(orgs uuid[], key_ids uuid[]) returns void
  language sql security definer set search_path = pg_catalog, pg_temp
  as $$
    update public.api_keys k set last_used_at = now()
      from (select u.org, u.id from unnest(orgs, key_ids) u (org, id) order by u.org, u.id) used
     where k.organization_id = used.org and k.id = used.id and (k.last_used_at is null or k.last_used_at < now() - interval '10 minutes')
  $$;

-- Called inside the caller's own transaction (as authenticated): the hash of a key it has just inserted there.
create or replace function app.keep_api_key_hash(key_id uuid, hash bytea) returns void
  language plpgsql security definer set search_path = pg_catalog, pg_temp
  as $$
  begin
    if not (app.may_any('{can_manage_settings}') and app.role_in('{OWNER,ADMIN}')) then
      raise exception using errcode = '42501', message = 'Making keys needs can_manage_settings';
    end if;
    insert into app.api_key_hashes (organization_id, api_key_id, key_prefix, key_hash)
    select k.organization_id, k.id, k.key_prefix, hash from public.api_keys k where k.organization_id = app.org() and k.id = key_id;
  end $$;

-- Called inside the caller's own transaction: the sealed settings of rows it has just written. One item: {organization_id, owner_id,
-- secrets: {name: ciphertext}, keep: [names]}; secrets that are in neither are gone from the settings, and so from here.
create or replace function app.keep_secrets(owner_table text, items jsonb) returns void
  language plpgsql security definer set search_path = pg_catalog, pg_temp
  as $$
  #variable_conflict use_column
  begin
    if exists (select from jsonb_to_recordset(items) i (organization_id uuid) where i.organization_id is distinct from app.org())
       and current_setting('role') <> 'service_role'
       or not app.may_any('{can_manage_settings}') and current_setting('role') <> 'service_role' then
      raise exception using errcode = '42501', message = 'Writing secrets needs can_manage_settings';
    end if;
    delete from app.secrets s using jsonb_to_recordset(items) i (organization_id uuid, owner_id uuid, secrets jsonb, keep text[])
     where s.organization_id = i.organization_id and s.owner_table = keep_secrets.owner_table and s.owner_id = i.owner_id
       and not s.name = any (i.keep) and not i.secrets ? s.name;
    insert into app.secrets as s (organization_id, owner_table, owner_id, name, ciphertext)
    select i.organization_id, keep_secrets.owner_table, i.owner_id, e.key, e.value
      from jsonb_to_recordset(items) i (organization_id uuid, owner_id uuid, secrets jsonb)
     cross join lateral jsonb_each_text(i.secrets) e
    on conflict (organization_id, owner_table, owner_id, name) do update set ciphertext = excluded.ciphertext, updated_at = now();
    perform app.note_deed(i.organization_id, 'secrets.written', keep_secrets.owner_table, i.owner_id,
           jsonb_build_object('names', (select coalesce(jsonb_agg(k), '[]') from jsonb_object_keys(i.secrets) k)))
      from jsonb_to_recordset(items) i (organization_id uuid, owner_id uuid, secrets jsonb) where i.secrets <> '{}';
  end $$;

-- Called inside the caller's own transaction. answer: new (go on, then finish_idempotent) · busy · other_body · done (status and body of the first time).
create or replace function app.begin_idempotent(principal text, key text, hash bytea) returns table (answer text, status integer, body text)
  language plpgsql security definer set search_path = pg_catalog, pg_temp
  as $$
  #variable_conflict use_column
  declare
    seen app.idempotency_keys;
  begin
    if not pg_try_advisory_xact_lock(hashtextextended('idempotency:' || coalesce(app.org()::text, '') || ':' || principal || ':' || key, 0)) then
      return query select 'busy', null::integer, null::text;
      return;
    end if;
    select * into seen from app.idempotency_keys k
     where (k.organization_id = app.org() or (k.organization_id is null and app.org() is null))
       and k.principal = begin_idempotent.principal and k.key = begin_idempotent.key and k.created_at > now() - interval '24 hours';
    return query select case when seen.key is null then 'new' when seen.body_hash <> hash then 'other_body' else 'done' end, seen.status, seen.body;
  end $$;

create or replace function app.finish_idempotent(principal text, key text, hash bytea, status integer, body text) returns void
  language sql security definer set search_path = pg_catalog, pg_temp
  as $$
    insert into app.idempotency_keys as k (organization_id, principal, key, body_hash, status, body)
    values (app.org(), finish_idempotent.principal, finish_idempotent.key, hash, finish_idempotent.status, finish_idempotent.body)
    on conflict (organization_id, principal, key) do update
       set body_hash = excluded.body_hash, status = excluded.status, body = excluded.body, created_at = now()
     where k.created_at <= now() - interval '24 hours'
  $$;

-- Deliveries of one organization that could not be applied, newest first; without their bodies.
create or replace function app.list_failures(org uuid, max_rows integer)
  returns table (id uuid, channel text, channel_account_id uuid, reason text, error text, state text, attempts integer, due_at timestamptz, last_error text, created_at timestamptz, bytes integer)
  language sql stable security definer set search_path = pg_catalog, pg_temp
  as $$
    select f.id, f.channel, f.channel_account_id, f.reason, f.error, f.state, f.attempts, f.due_at, f.last_error, f.created_at, octet_length(f.body)
      from app.webhook_failures f where f.organization_id = org order by f.created_at desc limit max_rows
  $$;

grant execute on function app.keep_api_key_hash(uuid, bytea), app.keep_secrets(text, jsonb), app.begin_idempotent(text, text, bytea),
  app.finish_idempotent(text, text, bytea, integer, text) to authenticated, service_role;
