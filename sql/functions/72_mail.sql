-- Mails: written down in the transaction that wants them, sent by workers, gone once a server took them. What they say is sealed
-- for its row (hub/auth/mail.py): it holds links that sign people in.

-- Write down a mail whose `payload` is sealed for `mail_id`. A waiting one with the same key is replaced. Inside a member's
-- transaction it is of the member's organization, and an invitation; the machinery may write any.
create or replace function app.enqueue_mail(mail_id uuid, org uuid, recipient text, template text, payload text, only_if text, key text) returns void
  language plpgsql security definer set search_path = pg_catalog, pg_temp
  as $$
  #variable_conflict use_column
  begin
    if current_setting('role') in ('anon', 'authenticated', 'service_role') and not (org is not distinct from app.org() and org is not null and app.may_any('{can_manage_team}')
       and template = 'invitation' and only_if is null) then
      raise exception using errcode = '42501', message = 'Inviting people needs can_manage_team';
    end if;
    insert into app.mail_outbox as m (id, organization_id, recipient, template, payload, only_if, key)
    values (mail_id, org, enqueue_mail.recipient, enqueue_mail.template, enqueue_mail.payload, enqueue_mail.only_if, enqueue_mail.key)
    on conflict (organization_id, key) where m.key is not null do update
       set id = excluded.id, recipient = excluded.recipient, template = excluded.template, payload = excluded.payload, only_if = excluded.only_if,
           state = 'available', due_at = clock_timestamp(), attempts = 0, lost_leases = 0, lease_token = null, lease_until = null, claimed_by = null,
           last_error = null, created_at = now();
  end $$;

-- Take back a waiting mail: what it offers is no more.
create or replace function app.drop_mail(org uuid, key text) returns void
  language plpgsql security definer set search_path = pg_catalog, pg_temp
  as $$
  #variable_conflict use_column
  begin
    if current_setting('role') in ('anon', 'authenticated', 'service_role') and not (org is not distinct from app.org() and org is not null and app.may_any('{can_manage_team}')) then
      raise exception using errcode = '42501', message = 'Inviting people needs can_manage_team';
    end if;
    delete from app.mail_outbox m where m.organization_id is not distinct from org and m.key = drop_mail.key;
  end $$;

-- Whether a mail should go out: one that asks for an account whose address has none (any more) should not.
create or replace function app.is_wanted(recipient text, only_if text) returns boolean
  language sql stable set search_path = pg_catalog, pg_temp
  as $$ select only_if is null or exists (select from auth.users u where u.email = is_wanted.recipient) $$;

-- Claim up to `batch` due mails for `worker` under `token`, leased for `lease`, the oldest first, with the language of whoever gets it
-- and the name of the organization that it is about.
create or replace function app.claim_mail(token uuid, worker text, batch integer, lease interval)
  returns table (id uuid, organization_id uuid, recipient text, template text, payload text, attempts integer, locale text, organization text)
  language sql security definer set search_path = pg_catalog, pg_temp
  as $$
    with due as (
      select m.id from app.mail_outbox m
       where m.state = 'available' and m.due_at <= clock_timestamp() and app.is_wanted(m.recipient, m.only_if)
       order by m.due_at, m.id limit batch for update of m skip locked
    ), claimed as (
      update app.mail_outbox m set state = 'running', lease_token = token, lease_until = clock_timestamp() + lease, claimed_by = worker, attempts = m.attempts + 1
        from due where m.id = due.id
      returning m.*
    )
    select c.id, c.organization_id, c.recipient, c.template, c.payload, c.attempts,
           coalesce((select u.user_metadata ->> 'locale' from auth.users u where u.email = c.recipient), o.locale, 'en'), o.name
      from claimed c left join public.organizations o on o.id = c.organization_id
     order by c.id
  $$;

create or replace function app.extend_mail(token uuid, lease interval) returns integer
  language sql security definer set search_path = pg_catalog, pg_temp
  as $$
    with kept as (update app.mail_outbox m set lease_until = clock_timestamp() + lease
                   where m.lease_token = token and m.state = 'running' and m.lease_until > clock_timestamp() returning 1)
    select count(*)::integer from kept
  $$;

-- What became of a claimed mail: sent (it leaves) · retry (after `wait_s`, the try counts) · throttled (after `wait_s`, it does not) ·
-- dead. Fenced: false when the lease moved on, and nothing is written.
create or replace function app.settle_mail(mail_id uuid, token uuid, outcome text, error text, wait_s double precision) returns boolean
  language plpgsql security definer set search_path = pg_catalog, pg_temp
  as $$
  begin
    if outcome = 'sent' then
      delete from app.mail_outbox m where m.id = mail_id and m.lease_token = token and m.state = 'running';
    else
      update app.mail_outbox m
         set state = case outcome when 'dead' then 'dead' else 'available' end, lease_token = null, lease_until = null, claimed_by = null, last_error = error,
             attempts = m.attempts - case outcome when 'throttled' then 1 else 0 end, due_at = clock_timestamp() + make_interval(secs => wait_s)
       where m.id = mail_id and m.lease_token = token and m.state = 'running';
    end if;
    return found;
  end $$;

-- Mails of dead workers, three times in all; and those that nobody wants any more. Returns (available again, given up, thrown away).
create or replace function app.reap_mail(max_rows integer) returns table (released bigint, dead bigint, unwanted bigint)
  language sql security definer set search_path = pg_catalog, pg_temp
  as $$
    with lost as (
      select m.id from app.mail_outbox m where m.state = 'running' and m.lease_until < clock_timestamp() limit max_rows for update skip locked
    ), back as (
      update app.mail_outbox m
         set state = case when m.lost_leases >= 2 then 'dead' else 'available' end, lost_leases = m.lost_leases + 1, lease_token = null, lease_until = null,
             claimed_by = null, last_error = 'The worker died', due_at = clock_timestamp()
        from lost where m.id = lost.id returning m.state
    ), gone as (
      delete from app.mail_outbox m where m.id = any (array(
        select x.id from app.mail_outbox x where x.only_if is not null and x.state = 'available' and not app.is_wanted(x.recipient, x.only_if)
         limit max_rows for update skip locked)) returning 1
    )
    select (select count(*) from back where state = 'available'), (select count(*) from back where state = 'dead'), (select count(*) from gone)
  $$;

-- What waits of one organization, for its owners: its own mails, and those about the accounts of its members, newest first.
create or replace function app.waiting_mail(org uuid, max_rows integer)
  returns table (id uuid, organization_id uuid, recipient text, template text, payload text, state text, attempts integer, last_error text, created_at timestamptz,
                 locale text, organization text)
  language sql stable security definer set search_path = pg_catalog, pg_temp
  as $$
    select m.id, m.organization_id, m.recipient, m.template, m.payload, m.state, m.attempts, m.last_error, m.created_at,
           coalesce((select u.user_metadata ->> 'locale' from auth.users u where u.email = m.recipient), o.locale, 'en'), o.name
      from app.mail_outbox m left join public.organizations o on o.id = m.organization_id
     where (m.organization_id = org
            or m.organization_id is null and exists (select from public.memberships s join auth.users u on u.id = s.user_id
                                                      where s.organization_id = org and s.is_active and u.email = m.recipient))
       and app.is_wanted(m.recipient, m.only_if)
     order by m.created_at desc, m.id desc limit max_rows
  $$;

grant execute on function app.enqueue_mail(uuid, uuid, text, text, text, text, text), app.drop_mail(uuid, text) to authenticated;
