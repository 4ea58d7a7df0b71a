-- The outbox: claimed in sets, fenced, settled (guarantees 5, 7, 8). Workers reach it through these functions alone;
-- each may touch several organizations, so each ends with the stream locks of those it wrote to.

-- Claim up to `batch` due sends for `worker` under `token`, leased for `lease`. Oldest first; a conversation's later message
-- waits for its earlier one (not longer than 2 minutes); held accounts wait; at most 8 run per organization; bulk sends take
-- at most half of a batch. Returns everything the adapter needs.
create or replace function app.claim_sends(token uuid, worker text, batch integer, lease interval)
  returns table (organization_id uuid, message_id uuid, conversation_id uuid, conv_seq bigint, attempts integer, channel_account_id uuid,
                 channel_type text, settings jsonb, secrets jsonb, on_ambiguous text, message jsonb, identities jsonb, reply_to text,
                 last_inbound_at timestamptz, lease_until timestamptz)
  language sql security definer set search_path = pg_catalog, pg_temp
  as $$
    with due as (
      select o.organization_id, o.message_id, o.is_bulk, o.due_at,
             row_number() over (partition by o.organization_id order by o.due_at, o.message_id) as place,
             row_number() over (partition by o.is_bulk order by o.due_at, o.message_id) as kind_place
        from (select * from app.outbox x where x.state = 'available' and x.due_at <= clock_timestamp() order by x.due_at, x.message_id limit batch * 8) o
       where not exists (select from app.outbox e where e.organization_id = o.organization_id and e.conversation_id = o.conversation_id
                            and e.conv_seq < o.conv_seq and e.state in ('available', 'running') and e.queued_at > clock_timestamp() - interval '2 minutes')
         and not exists (select from app.account_holds h where h.organization_id = o.organization_id and h.channel_account_id = o.channel_account_id and h.until > clock_timestamp())
    ), chosen as (
      select d.organization_id, d.message_id from due d
       where d.place + (select count(*) from app.outbox r where r.organization_id = d.organization_id and r.state = 'running') <= 8
         and (not d.is_bulk or d.kind_place <= greatest(batch / 2, 1))
       order by d.due_at, d.message_id limit batch
    ), locked as (
      select o.organization_id, o.message_id from app.outbox o join chosen c using (organization_id, message_id)
       where o.state = 'available' order by o.due_at, o.message_id for update of o skip locked
    ), claimed as (
      update app.outbox o
         set state = 'running', lease_token = token, lease_until = clock_timestamp() + lease, claimed_by = worker, attempts = o.attempts + 1, sending_at = null
        from locked l where o.organization_id = l.organization_id and o.message_id = l.message_id
      returning o.*
    )
    select c.organization_id, c.message_id, c.conversation_id, c.conv_seq, c.attempts, c.channel_account_id,
           a.type, a.settings,
           (select jsonb_object_agg(s.name, s.ciphertext) from app.secrets s where s.organization_id = c.organization_id and s.owner_table = 'channel_accounts' and s.owner_id = a.id),
           a.on_ambiguous, to_jsonb(m),
           (select jsonb_agg(jsonb_build_object('scheme', i.scheme, 'value', i.value) order by i.created_at) from public.contact_identities i
             where i.organization_id = c.organization_id and i.contact_id = m.contact_id),
           (select r.provider_message_id from public.messages r where r.organization_id = c.organization_id and r.id = m.reply_to_id),
           v.last_inbound_at, c.lease_until
      from claimed c
      join public.messages m on m.organization_id = c.organization_id and m.id = c.message_id
      join public.conversations v on v.organization_id = c.organization_id and v.id = c.conversation_id
      left join public.channel_accounts a on a.organization_id = c.organization_id and a.id = c.channel_account_id
     order by c.due_at, c.message_id
  $$;

-- Committed before the first byte leaves: from here on a lost outcome is `unknown` and never sent again by itself.
-- Returns the messages still held under the token with at least `margin` of the lease left.
create or replace function app.mark_sending(token uuid, message_ids uuid[], margin interval) returns setof uuid
  language sql security definer set search_path = pg_catalog, pg_temp
  as $$
    update app.outbox o set sending_at = clock_timestamp(), correlator = o.message_id::text
     where o.message_id = any (message_ids) and o.lease_token = token and o.state = 'running' and o.lease_until > clock_timestamp() + margin
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
    p record;
    touched uuid[] := '{}';
  begin
    perform pg_advisory_xact_lock(k) from (
      select distinct app.status_key(o.channel_account_id, x.provider_message_id) as k
        from jsonb_to_recordset(results) x (message_id uuid, provider_message_id text)
        join app.outbox o on o.message_id = x.message_id and o.lease_token = token
       where x.provider_message_id is not null order by k) keys;
    for r in
      select o.organization_id, o.message_id, o.channel_account_id, o.attempts, x.outcome, x.provider_message_id, x.code, x.reason, x.retry_in_s, x.hold_s, x.wait_s
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
          for p in
            delete from app.pending_statuses s where s.organization_id = r.organization_id and s.channel_account_id = r.channel_account_id
               and s.provider_message_id = r.provider_message_id returning s.*
          loop
            select * into m from public.messages where organization_id = r.organization_id and id = r.message_id;
            perform app.raise_status(m, r.provider_message_id, p.status, p.occurred_at, p.failure_code, p.failure_reason);
          end loop;
          touched := touched || r.organization_id;
        when 'failed' then
          delete from app.outbox where organization_id = r.organization_id and message_id = r.message_id;
          update public.messages set status = 'FAILED', failure_code = coalesce(r.code, 'unknown'), failure_reason = r.reason
           where organization_id = r.organization_id and id = r.message_id and status = 'PENDING';
          touched := touched || r.organization_id;
        when 'retry', 'throttled', 'released' then
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

-- What dead workers left: not yet sending → available again (three lost leases: failed for good); sending → unknown, waits for its
-- correlator; unknown past its wait → FAILED `ambiguous`, or once more where the account's owner chose `resend` (never for
-- campaigns). Returns (available again, now unknown, now failed).
create or replace function app.reap_sends(wait interval, max_rows integer) returns table (released integer, unknown integer, failed integer)
  language plpgsql security definer set search_path = pg_catalog, pg_temp
  as $$
  declare
    r record;
    touched uuid[] := '{}';
  begin
    released := 0; unknown := 0; failed := 0;
    for r in
      select o.* from app.outbox o
       where (o.state = 'running' and o.lease_until < clock_timestamp()) or (o.state = 'unknown' and o.due_at < clock_timestamp())
       order by o.organization_id, o.conversation_id, o.conv_seq limit max_rows for update skip locked
    loop
      if r.state = 'running' and r.sending_at is null and r.lost_leases < 2 then
        update app.outbox set state = 'available', lease_token = null, lease_until = null, claimed_by = null, lost_leases = lost_leases + 1
         where organization_id = r.organization_id and message_id = r.message_id;
        released := released + 1;
      elsif r.state = 'running' and r.sending_at is not null then
        update app.outbox set state = 'unknown', lease_token = null, lease_until = null, claimed_by = null, due_at = clock_timestamp() + wait,
                              last_error = 'worker lost while sending'
         where organization_id = r.organization_id and message_id = r.message_id;
        unknown := unknown + 1;
      elsif r.state = 'unknown' and not r.is_bulk and r.lost_leases < 1 and exists (
        select from public.channel_accounts a where a.organization_id = r.organization_id and a.id = r.channel_account_id and a.on_ambiguous = 'resend') then
        update app.outbox set state = 'available', sending_at = null, correlator = null, lost_leases = lost_leases + 1, due_at = clock_timestamp()
         where organization_id = r.organization_id and message_id = r.message_id;
        released := released + 1;
      else
        delete from app.outbox where organization_id = r.organization_id and message_id = r.message_id;
        update public.messages
           set status = 'FAILED',
               failure_code = case r.state when 'unknown' then 'ambiguous' else 'lost_leases' end,
               failure_reason = case r.state when 'unknown' then 'The provider did not say whether it took this message. It may have been delivered.'
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
