-- Second factors. A session of a user with a verified factor belongs to no organization (app.session_state) until it has proved one.

-- Tell the organizations of a user what was done to the account.
create or replace function app.note_account(member uuid, action text, details jsonb, address inet, request text) returns void
  language sql security definer set search_path = pg_catalog, pg_temp
  as $$
    insert into public.audit_log (organization_id, actor_kind, actor_id, action, target_table, target_id, details, ip, request_id)
    select m.organization_id, 'user', member, note_account.action, 'users', member, note_account.details, address, request
      from public.memberships m where m.user_id = member and m.is_active
  $$;

create or replace function app.has_factor(member uuid) returns boolean
  language sql stable security definer set search_path = pg_catalog, pg_temp
  as $$ select exists (select from auth.mfa_factors f where f.user_id = member and f.status = 'verified') $$;

-- outcome: added · name_conflict (a verified one is called so) · too_many. An unverified one of the name is replaced.
create or replace function app.add_factor(member uuid, factor uuid, name text, sealed text) returns text
  language plpgsql security definer set search_path = pg_catalog, pg_temp
  as $$
  begin
    perform from auth.users u where u.id = member for no key update;
    delete from auth.mfa_factors f where f.user_id = member and f.status = 'unverified' and (f.friendly_name is not distinct from name or f.created_at < now() - interval '1 day');
    if exists (select from auth.mfa_factors f where f.user_id = member and f.friendly_name is not distinct from name and name is not null) then
      return 'name_conflict';
    end if;
    if (select count(*) from auth.mfa_factors f where f.user_id = member) >= 10 then
      return 'too_many';
    end if;
    insert into auth.mfa_factors (id, user_id, friendly_name, secret_sealed) values (factor, member, name, sealed);
    return 'added';
  end $$;

-- A challenge of one's own factor, five minutes long; null when there is no such factor.
create or replace function app.challenge_factor(member uuid, factor uuid) returns table (id uuid, expires_at timestamptz)
  language sql security definer set search_path = pg_catalog, pg_temp
  as $$
    with asked as (update auth.mfa_factors f set last_challenged_at = now() where f.id = factor and f.user_id = member returning f.id),
    past as (delete from auth.mfa_challenges c using asked where c.factor_id = asked.id and c.expires_at < now())
    insert into auth.mfa_challenges as c (factor_id, expires_at) select a.id, now() + interval '5 minutes' from asked a returning c.id, c.expires_at
  $$;

-- What a code of this factor is compared with; no row for a factor that is not the user's. `is_open`: the challenge stands.
create or replace function app.factor_secret(member uuid, factor uuid, challenge uuid) returns table (sealed text, last_step bigint, is_open boolean)
  language sql stable security definer set search_path = pg_catalog, pg_temp
  as $$
    select f.secret_sealed, f.last_step, exists (select from auth.mfa_challenges c where c.id = challenge and c.factor_id = f.id and c.expires_at > now())
      from auth.mfa_factors f where f.id = factor and f.user_id = member
  $$;

-- The session has proved a second factor: its refresh tokens are replaced by the given one, so that none from before goes on.
create or replace function app.raise_session(session uuid, member uuid, method text, token_hash bytea) returns boolean
  language plpgsql security definer set search_path = pg_catalog, pg_temp
  as $$
  begin
    update auth.sessions s
       set aal = 'aal2', proved_at = clock_timestamp(),
           amr = jsonb_build_array(jsonb_build_object('method', method, 'timestamp', floor(extract(epoch from now())))) ||
                 coalesce((select jsonb_agg(a.item order by a.n) from jsonb_array_elements(s.amr) with ordinality a (item, n) where a.item ->> 'method' <> raise_session.method), '[]')
     where s.id = session and s.user_id = member and s.revoked_at is null;
    if not found then
      return false;
    end if;
    delete from auth.refresh_tokens r where r.session_id = session;
    insert into auth.refresh_tokens (session_id, token_hash) values (session, raise_session.token_hash);
    return true;
  end $$;

-- A right code for time step `step`. outcome: good · first (the factor is verified now, and the user's sessions without one have ended) · spent (the
-- challenge or the step was used already) · ended.
create or replace function app.prove_factor(member uuid, session uuid, factor uuid, challenge uuid, step bigint, token_hash bytea) returns text
  language plpgsql security definer set search_path = pg_catalog, pg_temp
  as $$
  declare
    was text;
  begin
    delete from auth.mfa_challenges c where c.id = challenge and c.factor_id = factor and c.expires_at > now();
    if not found then
      return 'spent';
    end if;
    select f.status into was from auth.mfa_factors f where f.id = factor and f.user_id = member and f.last_step < step for update;
    if was is null then
      return 'spent';
    end if;
    update auth.mfa_factors f set status = 'verified', last_step = step, updated_at = now() where f.id = factor;
    if not app.raise_session(session, member, 'totp', token_hash) then
      return 'ended';
    end if;
    if was = 'unverified' then
      perform app.end_sessions(s.id, member, 'local') from auth.sessions s where s.user_id = member and s.aal = 'aal1' and s.revoked_at is null;
      perform app.note_account(member, 'factor.added', jsonb_build_object('factor', factor), null, null);
      return 'first';
    end if;
    return 'good';
  end $$;

-- Take a factor away; its status, or null when there is none. With the last verified one go the recovery codes, and sessions count as before.
create or replace function app.remove_factor(member uuid, factor uuid) returns text
  language plpgsql security definer set search_path = pg_catalog, pg_temp
  as $$
  declare
    was text;
  begin
    delete from auth.mfa_factors f where f.id = factor and f.user_id = member returning f.status into was;
    if was = 'verified' then
      if not app.has_factor(member) then
        update auth.sessions s set aal = 'aal1', amr = coalesce((select jsonb_agg(a) from jsonb_array_elements(s.amr) a where a ->> 'method' not in ('totp', 'recovery_code')), '[]')
         where s.user_id = member and s.revoked_at is null;
        delete from auth.recovery_codes c where c.user_id = member;
      end if;
      perform app.note_account(member, 'factor.removed', jsonb_build_object('factor', factor), null, null);
    end if;
    return was;
  end $$;

create or replace function app.keep_recovery_codes(member uuid, hashes bytea[]) returns void
  language sql security definer set search_path = pg_catalog, pg_temp
  as $$
    delete from auth.recovery_codes c where c.user_id = member;
    insert into auth.recovery_codes (user_id, code_hash) select member, h from unnest(hashes) h;
    select app.note_account(member, 'recovery_codes.made', '{}', null, null)
  $$;

create or replace function app.recovery_codes_left(member uuid) returns bigint
  language sql stable security definer set search_path = pg_catalog, pg_temp
  as $$ select count(*) from auth.recovery_codes c where c.user_id = member and c.used_at is null $$;

-- Use a recovery code instead of a factor; once.
create or replace function app.use_recovery_code(member uuid, session uuid, hash bytea, token_hash bytea) returns boolean
  language plpgsql security definer set search_path = pg_catalog, pg_temp
  as $$
  begin
    update auth.recovery_codes c set used_at = now() where c.user_id = member and c.code_hash = hash and c.used_at is null and app.has_factor(member);
    if not found or not app.raise_session(session, member, 'recovery_code', token_hash) then
      return false;
    end if;
    perform app.note_account(member, 'recovery_code.used', '{}', null, null);
    return true;
  end $$;
