-- Links and codes that go by mail. Whoever asks for one learns nothing: an address with an account and one without leave the same
-- rows behind, by the same statements; whether a mail goes out is found by the worker.

-- Keep a link (its hashes) for `subject` and write its mail down; earlier ones of the kind end. Returns 0, or the seconds to wait: a minute
-- after each of the first three of a day, then twice as long each time, up to an hour. mail_id null: no mail, and no waiting (the
-- caller is the service_role and passes the link on).
create or replace function app.ask_link(mail_id uuid, kind text, subject text, address text, template text, payload text, only_if text, token_hash bytea, code_hash bytea,
                                        data jsonb, life interval) returns double precision
  language plpgsql security definer set search_path = pg_catalog, pg_temp
  as $$
  #variable_conflict use_variable
  declare
    earlier auth.one_time_tokens;
    wait double precision;
  begin
    perform pg_advisory_xact_lock(hashtextextended('link:' || kind || ':' || subject, 0));
    select * into earlier from auth.one_time_tokens t where t.subject = subject and t.kind = kind and t.created_at > now() - interval '24 hours';
    if found and mail_id is not null then
      wait := extract(epoch from earlier.created_at - clock_timestamp()) + least(3600, 60 * 2.0 ^ least(20, greatest(0, earlier.sends - 3)));
      if wait > 0 then
        return wait;
      end if;
    end if;
    delete from auth.one_time_tokens t where t.subject = subject and t.kind = kind;
    insert into auth.one_time_tokens (subject, kind, email, token_hash, code_hash, data, sends, expires_at)
    values (subject, kind, address, token_hash, code_hash, data, coalesce(earlier.sends, 0) + 1, now() + life);
    if mail_id is not null then
      perform app.enqueue_mail(mail_id, null, address, template, payload, only_if, kind || ':' || subject);
    end if;
    return 0;
  end $$;

-- Make a user, or give one who never confirmed a new password. outcome: made · exists (nothing changed). With mails: `confirm` goes to
-- those made, `known` to those who are there. Both hold their sealed texts ready, so that either way costs the same.
create or replace function app.sign_up(address text, password_hash text, metadata jsonb, confirmed boolean, confirm_id uuid, confirm_payload text, known_id uuid, known_payload text,
                                       token_hash bytea, code_hash bytea, data jsonb)
  returns table (outcome text, user_id uuid, wait_s double precision)
  language plpgsql security definer set search_path = pg_catalog, pg_temp
  as $$
  #variable_conflict use_variable
  declare
    u auth.users;
    wait double precision := 0;
    made uuid;
  begin
    perform pg_advisory_xact_lock(hashtextextended('signup:' || address, 0));
    select * into u from auth.users x where x.email = address;
    if not confirmed then
      wait := app.ask_link(case when u.email_confirmed_at is null then confirm_id else known_id end, 'signup', address, address,
                           case when u.email_confirmed_at is null then 'signup' else 'already_member' end,
                           case when u.email_confirmed_at is null then confirm_payload else known_payload end, null,
                           case when u.email_confirmed_at is null then token_hash else sha256(uuid_send(uuidv4())) end,   -- nobody holds what signs a known one in
                           case when u.email_confirmed_at is null then code_hash else sha256(uuid_send(uuidv4())) end, data, interval '1 day');
    end if;
    if wait > 0 or u.email_confirmed_at is not null then
      return query select 'exists', u.id, wait;
      return;
    end if;
    insert into auth.users as x (email, encrypted_password, user_metadata, email_confirmed_at, confirmation_sent_at)
    values (address, password_hash, metadata, case when confirmed then now() end, case when not confirmed then now() end)
    on conflict (email) do update set encrypted_password = excluded.encrypted_password, user_metadata = excluded.user_metadata,
       email_confirmed_at = excluded.email_confirmed_at, confirmation_sent_at = excluded.confirmation_sent_at, updated_at = now()
    returning x.id into made;
    return query select 'made', made, 0::double precision;
  end $$;

-- Invite an address for the service_role: a user without a password. outcome as sign_up's.
create or replace function app.invite_user(address text, metadata jsonb, mail_id uuid, payload text, token_hash bytea, code_hash bytea, data jsonb)
  returns table (outcome text, user_id uuid)
  language plpgsql security definer set search_path = pg_catalog, pg_temp
  as $$
  #variable_conflict use_variable
  declare
    u auth.users;
  begin
    perform pg_advisory_xact_lock(hashtextextended('signup:' || address, 0));
    select * into u from auth.users x where x.email = address;
    if u.email_confirmed_at is not null then
      return query select 'exists', u.id;
      return;
    end if;
    insert into auth.users as x (email, user_metadata, invited_at) values (address, metadata, now())
    on conflict (email) do update set user_metadata = x.user_metadata || excluded.user_metadata, invited_at = now(), encrypted_password = null, updated_at = now()
    returning x.* into u;
    delete from auth.one_time_tokens t where t.subject = address and t.kind = 'invite';
    perform app.ask_link(mail_id, 'invite', address, address, 'invite', payload, 'user', token_hash, code_hash, data, interval '7 days');
    return query select 'made', u.id;
  end $$;

-- Ask for another address. False when it is somebody's.
create or replace function app.ask_email_change(member uuid, address text, mail_id uuid, payload text, token_hash bytea, code_hash bytea, data jsonb)
  returns table (is_free boolean, wait_s double precision)
  language plpgsql security definer set search_path = pg_catalog, pg_temp
  as $$
  #variable_conflict use_variable
  declare
    wait double precision;
  begin
    if exists (select from auth.users u where u.email = address) then
      return query select false, 0::double precision;
      return;
    end if;
    wait := app.ask_link(mail_id, 'email_change', member::text, address, 'email_change', payload, null, token_hash, code_hash, data, interval '1 day');
    if wait = 0 then
      update auth.users u set email_change = address, email_change_sent_at = now(), updated_at = now() where u.id = member;
    end if;
    return query select true, wait;
  end $$;

-- What may be used now of a kind in `kinds`: by the hash of a link's token, or by address and the hashes of a code (one a kind). Five wrong
-- codes end the code; the link stays good, so that guessing locks nobody out. The row is locked; null when there is none.
create or replace function app.find_token(given_hash bytea, address text, kinds text[], codes bytea[]) returns auth.one_time_tokens
  language plpgsql security definer set search_path = pg_catalog, pg_temp
  as $$
  declare
    t auth.one_time_tokens;
    found_one auth.one_time_tokens;
  begin
    if given_hash is not null then
      select * into found_one from auth.one_time_tokens x where x.token_hash = given_hash and x.kind = any (kinds) and x.expires_at > now() for update;
      return found_one;
    end if;
    for t in select * from auth.one_time_tokens x where x.email = address and x.kind = any (kinds) and x.expires_at > now() order by x.created_at desc, x.subject for update loop
      if found_one.kind is null and t.wrong_codes < 5 and t.code_hash = codes[array_position(kinds, t.kind)] then
        found_one := t;
      end if;
    end loop;
    if found_one.kind is null then
      update auth.one_time_tokens x set wrong_codes = x.wrong_codes + 1 where x.email = address and x.kind = any (kinds) and x.wrong_codes < 5;
    end if;
    return found_one;
  end $$;

-- Use a link or a code. outcome: good · bad · banned · taken (the new address is somebody's by now). It proves the address: an unconfirmed
-- account is confirmed, and loses a password that a stranger may have given it before (unless the link is the sign-up's own).
create or replace function app.redeem_token(given_hash bytea, address text, kinds text[], codes bytea[], allow_new boolean)
  returns table (outcome text, user_id uuid, kind text, data jsonb, email text, old_email text)
  language plpgsql security definer set search_path = pg_catalog, pg_temp
  as $$
  #variable_conflict use_variable
  declare
    t auth.one_time_tokens := app.find_token(given_hash, address, kinds, codes);
    u auth.users;
  begin
    if t.kind is null then
      return query select 'bad', null::uuid, null::text, null::jsonb, null::text, null::text;
      return;
    end if;
    delete from auth.one_time_tokens x where x.subject = t.subject and x.kind = t.kind;
    if t.kind = 'email_change' then
      select * into u from auth.users x where x.id = t.subject::uuid and x.email_change = t.email for update;
      if u.id is not null and exists (select from auth.users x where x.email = t.email) then
        return query select 'taken', u.id, t.kind, t.data, t.email, null::text;
        return;
      end if;
      update auth.users x set email = t.email, email_change = null, email_change_sent_at = null, email_confirmed_at = now(), updated_at = now() where x.id = u.id;
      update public.memberships m set email = t.email where m.user_id = u.id;
      delete from auth.one_time_tokens x where x.email = u.email and x.kind <> 'pkce';
      delete from app.mail_outbox m where m.organization_id is null and m.recipient = u.email and m.key is not null and m.state <> 'running';
      insert into public.audit_log (organization_id, actor_kind, actor_id, action, target_table, target_id)
      select m.organization_id, 'user', u.id, 'email.changed', 'users', u.id from public.memberships m where m.user_id = u.id and m.is_active;
    else
      select * into u from auth.users x where x.email = t.email for update;
      if u.id is null and t.kind = 'magiclink' and allow_new and (t.data ->> 'create')::boolean then
        insert into auth.users (email, user_metadata) values (t.email, coalesce(t.data -> 'user_metadata', '{}')) returning * into u;
      end if;
      update auth.users x
         set email_confirmed_at = coalesce(x.email_confirmed_at, now()), updated_at = now(),
             encrypted_password = case when x.email_confirmed_at is null and t.kind <> 'signup' then null else x.encrypted_password end
       where x.id = u.id;
    end if;
    if u.id is null then
      return query select 'bad', null::uuid, null::text, null::jsonb, null::text, null::text;
    elsif u.banned_until > now() then
      return query select 'banned', u.id, t.kind, t.data, t.email, null::text;
    else
      return query select 'good', u.id, t.kind, t.data, t.email, case when t.kind = 'email_change' then u.email end;
    end if;
  end $$;

-- The code that a followed link of the PKCE flow is exchanged for, five minutes long.
create or replace function app.keep_flow(member uuid, code_hash bytea, data jsonb) returns void
  language sql security definer set search_path = pg_catalog, pg_temp
  as $$
    insert into auth.one_time_tokens as t (subject, kind, email, token_hash, code_hash, data, expires_at)
    values (member::text, 'pkce', '', code_hash, ''::bytea, data, now() + interval '5 minutes')
    on conflict (subject, kind) do update set token_hash = excluded.token_hash, data = excluded.data, created_at = now(), expires_at = excluded.expires_at
  $$;

create or replace function app.use_flow(code_hash bytea) returns table (user_id uuid, data jsonb)
  language sql security definer set search_path = pg_catalog, pg_temp
  as $$
    with used as (delete from auth.one_time_tokens t where t.token_hash = use_flow.code_hash and t.kind = 'pkce' returning t.*)
    select u.subject::uuid, u.data from used u where u.expires_at > now()
  $$;

-- Whether this is the code that was sent to the user to confirm a change; it ends with that, or with the fifth wrong one.
create or replace function app.use_nonce(member uuid, code bytea) returns boolean
  language plpgsql security definer set search_path = pg_catalog, pg_temp
  as $$
  declare
    t auth.one_time_tokens;
  begin
    select * into t from auth.one_time_tokens x where x.subject = member::text and x.kind = 'reauthentication' and x.expires_at > now() and x.wrong_codes < 5 for update;
    if t.code_hash = code then
      delete from auth.one_time_tokens x where x.subject = t.subject and x.kind = t.kind;
      return true;
    end if;
    update auth.one_time_tokens x set wrong_codes = x.wrong_codes + 1 where x.subject = t.subject and x.kind = t.kind;
    return false;
  end $$;
