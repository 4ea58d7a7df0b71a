-- The outbox: claimed in sets, fenced, settled (guarantees 5, 7, 8). Workers reach it through these functions alone;
-- each may touch several organizations, so each ends with the stream locks of those it wrote to.

drop function if exists app.waits_for_earlier(app.outbox);

-- A row that is due later stands aside, so that claims walk past accounts with something to send alone: ten thousand
-- scheduled messages cost the next one nothing.
create or replace function app.stand_aside() returns trigger
  language plpgsql
  set search_path = pg_catalog, pg_temp
  as $$ begin new.is_later := new.due_at > clock_timestamp(); return new; end $$;
create or replace trigger later before insert or update of due_at on app.outbox for each row
  when (new.is_later is distinct from (new.due_at > clock_timestamp())) execute function app.stand_aside();

-- Claim up to `batch` due sends for `worker` under `token`, leased for `lease`. The claim goes round the accounts that have
-- work, skipping those that are held, switched off or disconnected; each organization gets its first send before any gets its
-- second, at most 8 run per organization, bulk sends come after the others and take at most half of a batch; within an account the oldest come first and
-- a conversation's later message waits for its earlier one (one that is passed after two minutes is marked `overtaken`). What
-- was with two workers that died is claimed alone, so that a message that kills its worker takes no other with it. Returns
-- everything the adapter needs.
-- One claim looks at 128 accounts, those behind (`after_org`, `after_account`): where it stops short of the last one, a row
-- without a message says at which account the next claim goes on.
drop function if exists app.claim_sends(uuid, text, integer, interval);
create or replace function app.claim_sends(token uuid, worker text, batch integer, lease interval, after_org uuid default null, after_account uuid default null)
  returns table (organization_id uuid, message_id uuid, conversation_id uuid, conv_seq bigint, attempts integer, channel_account_id uuid,
                 channel_type text, settings jsonb, secrets jsonb, on_ambiguous text, message jsonb, identities jsonb, reply_to text,
                 last_inbound_at timestamptz, lease_until timestamptz)
  language sql security definer set search_path = pg_catalog, pg_temp
  as $$
    update app.outbox o set is_later = false from (
      select x.organization_id, x.message_id from app.outbox x
       where x.state = 'available' and x.is_later and x.due_at <= clock_timestamp() order by x.due_at limit 500 for update skip locked) due
     where o.organization_id = due.organization_id and o.message_id = due.message_id;

    with recursive account as (   -- one index probe an account
      (select o.organization_id, coalesce(o.channel_account_id, '00000000-0000-0000-0000-000000000000') as id, 1 as n from app.outbox o
        where o.state = 'available' and not o.is_later
          and (o.organization_id, coalesce(o.channel_account_id, '00000000-0000-0000-0000-000000000000'))
              > (coalesce(after_org, '00000000-0000-0000-0000-000000000000'), coalesce(after_account, '00000000-0000-0000-0000-000000000000'))
        order by 1, 2 limit 1)
      union all
      select n.*, a.n + 1 from account a cross join lateral (
        select o.organization_id, coalesce(o.channel_account_id, '00000000-0000-0000-0000-000000000000') from app.outbox o
         where o.state = 'available' and not o.is_later
           and (o.organization_id, coalesce(o.channel_account_id, '00000000-0000-0000-0000-000000000000')) > (a.organization_id, a.id)
         order by 1, 2 limit 1) n
       where a.n < 128
    ), busy as materialized (
      select x.organization_id, count(*) as n from app.outbox x where x.state = 'running' group by 1
    ), due as (
      select r.organization_id, r.message_id, r.is_bulk, r.due_at, r.lost_leases >= 2 as is_suspect,
             row_number() over (partition by r.organization_id order by r.is_bulk, r.due_at, r.message_id) + coalesce(b.n, 0) as place
        from account a
        left join busy b on b.organization_id = a.organization_id
        cross join (values (false), (true)) kind (is_bulk)   -- what people write goes ahead of campaigns, however many of those wait
        cross join lateral (
          select o.* from (
            -- of a conversation only the earliest can go; with thousands waiting the others need no look
            select h.* from (select distinct on (w.conversation_id) w.* from (
                               select x.* from app.outbox x
                                where x.state = 'available' and not x.is_later and x.organization_id = a.organization_id and x.due_at <= clock_timestamp()
                                  and coalesce(x.channel_account_id, '00000000-0000-0000-0000-000000000000') = a.id and x.is_bulk = kind.is_bulk
                                order by x.due_at, x.message_id limit 400) w
                              order by w.conversation_id, w.conv_seq) h
             order by h.due_at, h.message_id offset 0) o
           -- It waits for an earlier one of its conversation while that one runs, while that is due itself (then it goes first), and,
           -- when that waits for another try, for two minutes (guarantees 5). A message that is to be sent later blocks nobody.
           where not exists (select from app.outbox e
                   where e.organization_id = o.organization_id and e.conversation_id = o.conversation_id and e.conv_seq < o.conv_seq
                     and e.channel_account_id is not distinct from o.channel_account_id
                     and (e.state = 'running' or e.state = 'available' and (
                           e.due_at <= clock_timestamp() or e.last_error is not null and e.queued_at > clock_timestamp() - interval '2 minutes')))
             and exists (select from public.messages m where m.organization_id = o.organization_id and m.id = o.message_id and m.status = 'PENDING')
           limit 8) r
       where coalesce(b.n, 0) < 8
         and not exists (select from app.account_holds h where h.organization_id = a.organization_id and h.channel_account_id = a.id and h.until > clock_timestamp())
         and not exists (select from public.channel_accounts c where c.organization_id = a.organization_id and c.id = a.id
                            and (not c.is_active or c.disconnected_at is not null))
    ), ranked as (
      select d.*, row_number() over (partition by d.is_bulk order by d.place, d.due_at, d.message_id) as kind_place,
             first_value(d.is_suspect) over (order by d.place, d.due_at, d.message_id) as alone
        from due d where d.place <= 8
    ), chosen as (
      select d.organization_id, d.message_id, d.alone from ranked d
       where case when d.alone then d.is_suspect else not d.is_suspect and (not d.is_bulk or d.kind_place <= greatest(batch / 2, 1)) end
       order by d.place, d.due_at, d.message_id limit batch
    ), locked as (
      select o.organization_id, o.message_id from app.outbox o join chosen c using (organization_id, message_id)
       where o.state = 'available' order by o.due_at, o.message_id
       limit (select case when bool_or(c.alone) then 1 else batch end from chosen c) for update of o skip locked
    ), claimed as (
      update app.outbox o
         set state = 'running', lease_token = token, lease_until = clock_timestamp() + lease, claimed_by = worker, attempts = o.attempts + 1, sending_at = null
        from locked l where o.organization_id = l.organization_id and o.message_id = l.message_id
      returning o.*
    ), overtaken as (   -- what waits for another try while a later message of its conversation goes: its place says so
      update public.messages m set metadata = m.metadata || '{"overtaken": true}'
        from claimed c join app.outbox e on e.organization_id = c.organization_id and e.conversation_id = c.conversation_id and e.conv_seq < c.conv_seq
       where e.state = 'available' and e.last_error is not null and e.channel_account_id is not distinct from c.channel_account_id
         and m.organization_id = e.organization_id and m.id = e.message_id and not m.metadata ? 'overtaken'
      returning m.organization_id
    ), streams as materialized (
      select app.lock_streams(array_agg(o.organization_id)) from overtaken o having count(*) > 0
    )
    select c.organization_id, c.message_id, c.conversation_id, c.conv_seq, c.attempts, c.channel_account_id,
           a.type, a.settings,
           (select jsonb_object_agg(s.name, s.ciphertext) from app.secrets s where s.organization_id = c.organization_id and s.owner_table = 'channel_accounts' and s.owner_id = a.id),
           a.on_ambiguous, to_jsonb(m),
           (select jsonb_agg(jsonb_build_object('scheme', i.scheme, 'value', i.value) order by i.created_at) from public.contact_identities i
             where i.organization_id = c.organization_id and i.contact_id = m.contact_id),
           (select r.provider_message_id from public.messages r where r.organization_id = c.organization_id and r.id = m.reply_to_id),
           v.last_inbound_at, c.lease_until
      from (select k.organization_id, k.message_id, k.conversation_id, k.conv_seq, k.attempts, k.channel_account_id, k.lease_until, k.due_at from claimed k
             union all
            select s.organization_id, null, null, null, null, s.id, null, null from account s where s.n = 128) c
      left join streams on true
      left join public.messages m on m.organization_id = c.organization_id and m.id = c.message_id
      left join public.conversations v on v.organization_id = c.organization_id and v.id = c.conversation_id
      left join public.channel_accounts a on a.organization_id = c.organization_id and a.id = c.channel_account_id and c.message_id is not null
     order by c.due_at, c.message_id
  $$;

-- Committed before the first byte leaves: from here on a lost outcome is `unknown` and never sent again by itself.
-- Returns the messages still held under the token with at least `margin` of the lease left.
create or replace function app.mark_sending(token uuid, message_ids uuid[], margin interval) returns setof uuid
  language sql security definer set search_path = pg_catalog, pg_temp
  as $$
    update app.outbox o set sending_at = clock_timestamp(), correlator = o.message_id::text
     where o.message_id = any (message_ids) and o.lease_token = token and o.state = 'running' and o.lease_until > clock_timestamp() + margin
       -- deleted, settled or switched off since the claim: the lease runs out and the reaper decides
       and exists (select from public.messages m where m.organization_id = o.organization_id and m.id = o.message_id and m.status = 'PENDING' and m.deleted_at is null)
       and not exists (select from public.channel_accounts c where c.organization_id = o.organization_id and c.id = o.channel_account_id
                          and (not c.is_active or c.disconnected_at is not null))
    returning o.message_id
  $$;

-- One heartbeat for everything a worker process holds. Returns how many rows it still holds.
create or replace function app.extend_leases(token uuid, lease interval) returns integer
  language sql security definer set search_path = pg_catalog, pg_temp
  as $$
    with kept as (update app.outbox o set lease_until = clock_timestamp() + lease
                   where o.lease_token = token and o.state = 'running' and o.lease_until > clock_timestamp() returning 1)
    select count(*)::integer from kept
  $$;

-- Settle claimed sends. One result: {message_id, outcome, provider_message_id, code, reason, retry_in_s, hold_s, wait_s}.
-- outcome: accepted | retry | throttled | failed | unknown | released. Fenced: a row whose lease moved on is left alone.
-- Returns the messages that were settled.
create or replace function app.settle_sends(token uuid, results jsonb) returns setof uuid
  language plpgsql security definer set search_path = pg_catalog, pg_temp
  as $$
  declare
    r record;
    m public.messages;
    touched uuid[] := '{}';
  begin
    perform pg_advisory_xact_lock(k) from (
      select distinct app.status_key(o.channel_account_id, x.provider_message_id) as k
        from jsonb_to_recordset(results) x (message_id uuid, provider_message_id text)
        join app.outbox o on o.message_id = x.message_id and o.lease_token = token and o.state = 'running'
       where x.provider_message_id is not null order by k) keys;
    for r in
      select o.organization_id, o.message_id, o.channel_account_id, o.attempts, o.sending_at, x.outcome, x.provider_message_id, x.code, x.reason, x.retry_in_s, x.hold_s, x.wait_s
        from jsonb_to_recordset(results) x (message_id uuid, outcome text, provider_message_id text, code text, reason text,
                                            retry_in_s double precision, hold_s double precision, wait_s double precision)
        join app.outbox o on o.message_id = x.message_id and o.lease_token = token and o.state = 'running'
       order by o.organization_id, o.conversation_id, o.conv_seq
         for update of o
    loop
      if r.hold_s > 0 and r.channel_account_id is not null then
        insert into app.account_holds (organization_id, channel_account_id, reason, until)
        values (r.organization_id, r.channel_account_id, coalesce(r.code, r.outcome), clock_timestamp() + make_interval(secs => r.hold_s))
        on conflict (organization_id, channel_account_id) do update set until = greatest(app.account_holds.until, excluded.until), reason = excluded.reason;
      end if;
      case r.outcome
        when 'accepted' then
          delete from app.outbox where organization_id = r.organization_id and message_id = r.message_id;
          select * into m from public.messages where organization_id = r.organization_id and id = r.message_id for no key update;
          perform app.raise_status(m, r.provider_message_id, 'SENT', clock_timestamp(), null, null);
          -- an account that was refused works again; what was under way when it was refused says nothing
          update public.channel_accounts a set health = 'ok'
           where a.organization_id = r.organization_id and a.id = r.channel_account_id and a.health = 'error' and a.last_error_at < r.sending_at;
          touched := touched || r.organization_id;
        when 'failed' then
          delete from app.outbox where organization_id = r.organization_id and message_id = r.message_id;
          update public.messages set status = 'FAILED', failure_code = coalesce(r.code, 'unknown'), failure_reason = r.reason
           where organization_id = r.organization_id and id = r.message_id and status = 'PENDING';
          touched := touched || r.organization_id;
        when 'retry', 'throttled', 'released' then
          -- the provider's receipt came meanwhile: there is nothing left to send
          delete from app.outbox o using public.messages g
           where o.organization_id = r.organization_id and o.message_id = r.message_id and g.organization_id = o.organization_id and g.id = o.message_id and g.status <> 'PENDING';
          update app.outbox
             set state = 'available', lease_token = null, lease_until = null, claimed_by = null, sending_at = null, last_error = coalesce(r.reason, r.code),
                 attempts = case r.outcome when 'retry' then attempts else attempts - 1 end,
                 due_at = clock_timestamp() + make_interval(secs => coalesce(r.retry_in_s, 0))
           where organization_id = r.organization_id and message_id = r.message_id;
        when 'unknown' then
          update app.outbox
             set state = 'unknown', lease_token = null, lease_until = null, claimed_by = null, last_error = coalesce(r.reason, r.code),
                 due_at = clock_timestamp() + make_interval(secs => coalesce(r.wait_s, 0))
           where organization_id = r.organization_id and message_id = r.message_id;
      end case;
      return next r.message_id;
    end loop;
    perform app.lock_streams(touched);
  end $$;

-- What dead workers left, and what no worker may take: a row whose message is no longer PENDING goes (its receipts came);
-- not yet sending → available again (three lost leases: failed for good); sending → unknown, waits for its correlator; unknown past
-- its wait → FAILED `ambiguous`, or once more where the account's owner chose `resend` (never for campaigns); waiting on a
-- disconnected account → FAILED `channel_disconnected`. Returns (available again, now unknown, now failed).
create or replace function app.reap_sends(wait interval, max_rows integer) returns table (released integer, unknown integer, failed integer)
  language plpgsql security definer set search_path = pg_catalog, pg_temp
  as $$
  declare
    r record;
    code text;
    touched uuid[] := '{}';
  begin
    released := 0; unknown := 0; failed := 0;
    for r in
      select o.*, m.status as message_status, a.on_ambiguous, a.disconnected_at
        from app.outbox o
        join public.messages m on m.organization_id = o.organization_id and m.id = o.message_id
        left join public.channel_accounts a on a.organization_id = o.organization_id and a.id = o.channel_account_id
       where (o.organization_id, o.message_id) in (   -- each by its index, for most rows only wait for their turn
               select x.organization_id, x.message_id from app.outbox x where x.state = 'running' and x.lease_until < clock_timestamp()
               union all
               select x.organization_id, x.message_id from app.outbox x where x.state = 'unknown' and x.due_at < clock_timestamp()
               union all
               (select x.organization_id, x.message_id from public.channel_accounts c
                  join app.outbox x on x.organization_id = c.organization_id and coalesce(x.channel_account_id, '00000000-0000-0000-0000-000000000000') = c.id
                 where c.disconnected_at is not null and x.state = 'available' and not x.is_later limit max_rows)
               union all
               (select x.organization_id, x.message_id from app.outbox x
                  join public.messages g on g.organization_id = x.organization_id and g.id = x.message_id
                 where x.state = 'available' and not x.is_later and g.status <> 'PENDING' limit max_rows))
         -- and still so once the row is ours
         and (o.state = 'running' and o.lease_until < clock_timestamp() or o.state = 'unknown' and o.due_at < clock_timestamp()
              or o.state = 'available' and (a.disconnected_at is not null or m.status <> 'PENDING'))
       order by o.organization_id, o.conversation_id, o.conv_seq limit max_rows for update of o skip locked
    loop
      if r.message_status <> 'PENDING' then
        delete from app.outbox where organization_id = r.organization_id and message_id = r.message_id;
      elsif r.state = 'running' and r.sending_at is null and r.lost_leases < 2 then
        update app.outbox set state = 'available', lease_token = null, lease_until = null, claimed_by = null, lost_leases = lost_leases + 1
         where organization_id = r.organization_id and message_id = r.message_id;
        released := released + 1;
      elsif r.state = 'running' and r.sending_at is not null then
        update app.outbox set state = 'unknown', lease_token = null, lease_until = null, claimed_by = null, due_at = clock_timestamp() + wait,
                              last_error = 'worker lost while sending'
         where organization_id = r.organization_id and message_id = r.message_id;
        unknown := unknown + 1;
      elsif r.state = 'unknown' and r.on_ambiguous = 'resend' and not r.is_bulk and r.resends < 1 then
        update app.outbox set state = 'available', sending_at = null, correlator = null, resends = resends + 1, due_at = clock_timestamp()
         where organization_id = r.organization_id and message_id = r.message_id;
        released := released + 1;
      else
        code := case r.state when 'unknown' then 'ambiguous' when 'available' then 'channel_disconnected' else 'lost_leases' end;
        delete from app.outbox where organization_id = r.organization_id and message_id = r.message_id;
        update public.messages
           set status = 'FAILED', failure_code = code,
               failure_reason = case code when 'ambiguous' then 'The provider did not say whether it took this message. It may have been delivered.'
                                          when 'channel_disconnected' then 'The channel was disconnected before this was sent.'
                                          else 'Three workers died over this message.' end
         where organization_id = r.organization_id and id = r.message_id and status = 'PENDING';
        touched := touched || r.organization_id;
        failed := failed + 1;
      end if;
    end loop;
    perform app.lock_streams(touched);
    return next;
  end $$;

-- Depth and age of the outbox for the metrics page.
create or replace function app.outbox_depth() returns table (state text, rows bigint, oldest_s double precision)
  language sql stable security definer set search_path = pg_catalog, pg_temp
  as $$
    select o.state, count(*), extract(epoch from clock_timestamp() - min(o.queued_at))::double precision from app.outbox o group by o.state
  $$;

-- An account that could not sign in to its provider: shown red, its owner told (event), until its settings change.
create or replace function app.report_account(org uuid, account uuid, new_health text, error text) returns void
  language sql security definer set search_path = pg_catalog, pg_temp
  as $$
    update public.channel_accounts
       set health = new_health, last_error = coalesce(error, last_error), last_error_at = case when error is not null then now() else last_error_at end
     where organization_id = org and id = account and (health, last_error) is distinct from (new_health, coalesce(error, last_error))
  $$;
