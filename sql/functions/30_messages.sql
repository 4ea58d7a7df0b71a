-- A message's place in its conversation, and its way into the outbox, whoever writes the row.
-- (app.ingest_many does the same for whole batches and runs as hub_writer, which these triggers pass over.)

create or replace function app.preview(content text, message_type text) returns text
  language sql immutable parallel safe
  as $$ select coalesce(nullif(left(content, 160), ''), '[' || message_type || ']') $$;

-- Before a message is inserted: lock its conversation, take the next number, keep the conversation's summary.
create or replace function app.place_message() returns trigger
  language plpgsql security definer set search_path = pg_catalog, pg_temp
  as $$
  declare
    c public.conversations;
    inbound boolean := new.direction = 'INBOUND';
    me uuid := app.org();
  begin
    if me is not null and new.organization_id is distinct from me then
      new.conv_seq := 0;                                 -- row security refuses the row right after this
      return new;
    end if;
    select * into c from public.conversations where organization_id = new.organization_id and id = new.conversation_id for no key update;
    if not found then
      raise exception using errcode = '23503', message = 'No such conversation', constraint = 'messages_conversation_id_fkey', table = 'messages';
    end if;
    if new.status = 'RECEIVED' and not inbound or new.status = 'PENDING' and inbound then
      raise exception using errcode = '23514', message = 'A message with status ' || new.status || ' cannot be ' || new.direction,
        constraint = 'messages_status_check', table = 'messages';
    end if;
    new.conv_seq := c.msg_seq + 1;
    new.contact_id := coalesce(new.contact_id, c.contact_id);
    new.channel_account_id := coalesce(new.channel_account_id, c.channel_account_id);
    new.created_at := greatest(clock_timestamp(), c.last_message_at + interval '1 microsecond');
    new.occurred_at := coalesce(new.occurred_at, new.created_at);
    if new.status in ('SENT', 'DELIVERED', 'READ') and not inbound then
      new.sent_at := coalesce(new.sent_at, new.created_at);
    end if;
    update public.conversations
       set msg_seq = new.conv_seq,
           inbound_count = inbound_count + inbound::integer,
           last_message_at = new.created_at,
           last_message_preview = app.preview(new.content, new.message_type),
           last_message_direction = new.direction,
           first_inbound_at = case when inbound then coalesce(first_inbound_at, new.created_at) else first_inbound_at end,
           last_inbound_at = case when inbound then new.created_at else last_inbound_at end,
           waiting_since = case when inbound then coalesce(waiting_since, new.created_at) end,
           first_response_at = case when not inbound and new.source = 'agent' and first_inbound_at is not null
                                    then coalesce(first_response_at, new.created_at) else first_response_at end,
           status = case when inbound and status = 'CLOSED' and not exists (
                           select from public.conversations o where o.organization_id = c.organization_id
                              and o.channel_account_id is not distinct from c.channel_account_id and o.contact_id = c.contact_id and o.status = 'OPEN')
                         then 'OPEN' else status end
     where organization_id = c.organization_id and id = c.id;
    return new;
  end $$;

-- A message that becomes PENDING is work: one outbox row, in the same transaction.
create or replace function app.queue_message() returns trigger
  language plpgsql security definer set search_path = pg_catalog, pg_temp
  as $$
  begin
    insert into app.outbox (organization_id, message_id, conversation_id, conv_seq, channel_account_id, due_at, is_bulk)
    values (new.organization_id, new.id, new.conversation_id, new.conv_seq, new.channel_account_id,
            greatest(clock_timestamp(), new.send_at), new.source = 'campaign')
    on conflict (organization_id, message_id) do update
       set state = 'available', due_at = excluded.due_at, queued_at = excluded.queued_at, attempts = 0, lost_leases = 0,
           lease_token = null, lease_until = null, claimed_by = null, sending_at = null, correlator = null, last_error = null
     where app.outbox.state in ('dead', 'unknown');
    return null;
  end $$;

-- Upwards only (channels.md 0.4): PENDING 0 < SENT 1 < DELIVERED 2 < READ 3; FAILED from SENT or below;
-- a receipt revives a message that failed as `ambiguous`, and no other.
create or replace function app.status_rises(from_status text, failure_code text, to_status text) returns boolean
  language sql immutable parallel safe
  as $$
    select case
      when to_status = 'FAILED' then from_status in ('PENDING', 'SENT')
      when from_status = 'FAILED' then failure_code = 'ambiguous' and to_status in ('SENT', 'DELIVERED', 'READ')
      else array_position(array['PENDING', 'SENT', 'DELIVERED', 'READ'], to_status)
         > array_position(array['PENDING', 'SENT', 'DELIVERED', 'READ'], from_status)
    end
  $$;

create or replace function app.status_key(account uuid, provider_message_id text) returns bigint
  language sql immutable parallel safe as $$ select hashtextextended('status:' || account || ':' || provider_message_id, 0) $$;

-- Delivery reports of any organizations, in any order, repeated or early. One item:
-- {organization_id, channel_account_id, provider_message_id, correlator, status, occurred_at, failure_code, failure_reason}.
-- An id nobody knows yet is parked; the commit that stores the id applies it. Returns the organizations touched.
create or replace function app.apply_statuses(items jsonb) returns uuid[]
  language plpgsql security definer set search_path = pg_catalog, pg_temp
  as $$
  declare
    i record;
    m public.messages;
    touched uuid[] := '{}';
  begin
    -- the same lock as the commit that stores an id takes, so that neither misses the other
    perform pg_advisory_xact_lock(k) from (
      select distinct app.status_key(x.channel_account_id, x.provider_message_id) as k
        from jsonb_to_recordset(items) x (channel_account_id uuid, provider_message_id text) order by k) keys;
    for i in
      select x.*, coalesce( -- the correlator is ours; an echo may have come under the same id
               (select p.id from public.messages p where p.organization_id = x.organization_id
                   and p.id = case when x.correlator ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' then x.correlator::uuid end
                   and p.channel_account_id = x.channel_account_id and p.direction = 'OUTBOUND' and p.provider_message_id is null),
               (select p.id from public.messages p where p.organization_id = x.organization_id
                   and p.channel_account_id = x.channel_account_id and p.provider_message_id = x.provider_message_id)) as message_id
        from jsonb_to_recordset(items) x (organization_id uuid, channel_account_id uuid, provider_message_id text, correlator text,
                                          status text, occurred_at timestamptz, failure_code text, failure_reason text)
       order by x.organization_id, 9 nulls last, array_position(array['SENT', 'DELIVERED', 'READ', 'FAILED'], x.status)
    loop
      if i.message_id is null then
        insert into app.pending_statuses (organization_id, channel_account_id, provider_message_id, status, occurred_at, failure_code, failure_reason)
        values (i.organization_id, i.channel_account_id, i.provider_message_id, i.status, i.occurred_at, i.failure_code, i.failure_reason)
        on conflict do nothing;
        continue;
      end if;
      select * into m from public.messages where organization_id = i.organization_id and id = i.message_id for no key update;
      if app.raise_status(m, i.provider_message_id, i.status, i.occurred_at, i.failure_code, i.failure_reason) then
        touched := touched || i.organization_id;
      end if;
    end loop;
    perform app.lock_streams(touched);
    return touched;
  end $$;

-- Receipts that were parked for ids that are stored now otherwise than by a send: echoes of what was written in the provider's
-- own app. Returns the organizations touched.
create or replace function app.apply_parked(org uuid, account uuid, provider_ids text[]) returns uuid[]
  language plpgsql security definer set search_path = pg_catalog, pg_temp
  as $$
  declare
    parked jsonb;
  begin
    perform pg_advisory_xact_lock(k) from (select distinct app.status_key(account, i) as k from unnest(provider_ids) i order by k) keys;
    with taken as (
      delete from app.pending_statuses s where s.organization_id = org and s.channel_account_id = account and s.provider_message_id = any (provider_ids) returning s.*
    )
    select jsonb_agg(to_jsonb(t)) into parked from taken t;
    return case when parked is null then '{}' else app.apply_statuses(parked) end;
  end $$;

-- One receipt on one locked message. True when something changed. The one that tells its id also brings what came under that
-- id before we knew it: parked receipts, and an echo that was taken for a message from the provider's own app, which then
-- leaves a tombstone.
create or replace function app.raise_status(m public.messages, new_provider_id text, new_status text, at timestamptz, code text, reason text)
  returns boolean
  language plpgsql
  as $$
  declare
    rises boolean := m.direction = 'OUTBOUND' and app.status_rises(m.status, m.failure_code, new_status);
    learns boolean := m.direction = 'OUTBOUND' and m.provider_message_id is null and new_provider_id is not null;
    echo public.messages;
    p app.pending_statuses;
  begin
    if not rises and (m.provider_message_id is not null or m.direction <> 'OUTBOUND') then
      return false;
    end if;
    if learns then
      update public.messages e set provider_message_id = null, deleted_at = clock_timestamp()
       where e.organization_id = m.organization_id and e.channel_account_id = m.channel_account_id and e.provider_message_id = new_provider_id
         and e.id <> m.id and e.direction = 'OUTBOUND' and e.source = 'external' returning e.* into echo;
    end if;
    update public.messages
       set provider_message_id = coalesce(provider_message_id, new_provider_id),
           status = case when rises then new_status else status end,
           -- providers count in whole seconds: a receipt never lies before what it follows
           sent_at = case when rises and new_status <> 'FAILED' then coalesce(sent_at, at) else sent_at end,
           delivered_at = case when rises and new_status in ('DELIVERED', 'READ') then coalesce(delivered_at, greatest(at, sent_at)) else delivered_at end,
           read_at = case when rises and new_status = 'READ' then coalesce(read_at, greatest(at, delivered_at, sent_at)) else read_at end,
           failure_code = case when rises then case when new_status = 'FAILED' then coalesce(code, 'unknown') end else failure_code end,
           failure_reason = case when rises then case when new_status = 'FAILED' then reason end else failure_reason end
     where organization_id = m.organization_id and id = m.id;
    -- the provider knows it, so nothing is left to send or to wait for; a running row is settled by its own worker
    delete from app.outbox o where o.organization_id = m.organization_id and o.message_id = m.id and o.state in ('unknown', 'dead', 'available')
       and (rises or o.sending_at is not null);
    if learns then
      if echo.status in ('DELIVERED', 'READ') then
        select * into m from public.messages where organization_id = m.organization_id and id = m.id;
        perform app.raise_status(m, new_provider_id, echo.status, coalesce(echo.read_at, echo.delivered_at, at), null, null);
      end if;
      for p in
        delete from app.pending_statuses s where s.organization_id = m.organization_id and s.channel_account_id = m.channel_account_id
           and s.provider_message_id = new_provider_id returning s.*
      loop
        select * into m from public.messages where organization_id = m.organization_id and id = m.id;
        perform app.raise_status(m, new_provider_id, p.status, p.occurred_at, p.failure_code, p.failure_reason);
      end loop;
    end if;
    return true;
  end $$;

-- A message that is deleted leaves a tombstone: its place, time and people stay, its text and attachments go. One that
-- still waits to be sent is not sent.
create or replace function app.bury_message() returns trigger
  language plpgsql security definer set search_path = pg_catalog, pg_temp
  as $$
  begin
    if tg_op = 'DELETE' then
      update public.messages set deleted_at = clock_timestamp() where organization_id = old.organization_id and id = old.id and deleted_at is null;
      return null;                                       -- the row itself stays
    end if;
    new.content := null;
    new.metadata := '{}';
    delete from app.outbox o where o.organization_id = new.organization_id and o.message_id = new.id and o.state in ('available', 'dead');
    if found and new.status = 'PENDING' then
      new.status := 'FAILED';
      new.failure_code := 'cancelled';
      new.failure_reason := 'Deleted before it was sent.';
    end if;
    update public.conversations c set last_message_preview = app.preview(null, 'deleted')
     where c.organization_id = new.organization_id and c.id = new.conversation_id and c.msg_seq = new.conv_seq;
    return new;
  end $$;

-- What a member or key may say about a message (the role authenticated; definer functions and workers of the hub go past this).
-- New ones: in one's own name, without a provider's id. Known ones: text stays as it was said; the status may be queued again
-- after a failure, or be marked read; a message that was only recorded (source api) may rise as its recorder learns more.
create or replace function app.guard_message() returns trigger
  language plpgsql
  as $$
  declare
    ctx jsonb := app.ctx();
    c text;
  begin
    if ctx ->> 'kind' not in ('user', 'key') then
      return new;
    end if;
    if tg_op = 'INSERT' then
      if new.provider_message_id is not null or new.campaign_id is not null or new.cause is not null then
        raise exception using errcode = '42501', message = 'provider_message_id, campaign_id and cause are kept by the hub and cannot be written';
      end if;
      if new.source not in ('agent', 'api') then
        raise exception using errcode = '42501', message = 'source is agent or api for what callers write';
      end if;
      if new.sender_id is not null and new.sender_id is distinct from (ctx ->> 'user')::uuid then
        raise exception using errcode = '42501', message = 'sender_id can only be yourself';
      end if;
      return new;
    end if;
    for c in select a.key from jsonb_each(to_jsonb(new)) a
              where a.value is distinct from to_jsonb(old) -> a.key and a.key <> all (array['metadata', 'deleted_at', 'status', 'failure_code', 'failure_reason',
                     'read_at', 'delivered_at', 'sent_at', 'send_at', 'updated_at', 'created_at', 'version'])
    loop
      if not (c = 'content' and old.source = 'api' and old.provider_message_id is null
              or c = 'provider_message_id' and new.provider_message_id is null and old.status = 'FAILED' and new.status = 'PENDING') then
        raise exception using errcode = '42501', message = 'messages.' || c || ' is kept by the hub and cannot be written';
      end if;
    end loop;
    if new.status is distinct from old.status and not (
         old.direction = 'OUTBOUND' and old.status = 'FAILED' and new.status = 'PENDING' and old.deleted_at is null
      or old.direction = 'INBOUND' and old.status = 'RECEIVED' and new.status = 'READ'
      or old.direction = 'OUTBOUND' and old.source = 'api' and old.provider_message_id is null and old.status <> 'PENDING' and new.status <> 'PENDING'
         and app.status_rises(old.status, old.failure_code, new.status)) then
      raise exception using errcode = '42501', message = 'A message cannot go from ' || old.status || ' to ' || new.status || ' by hand';
    end if;
    if new.send_at is distinct from old.send_at and old.status <> 'PENDING'
       or new.status = old.status and row(new.failure_code, new.failure_reason, new.sent_at, new.delivered_at) is distinct from row(old.failure_code, old.failure_reason, old.sent_at, old.delivered_at) then
      raise exception using errcode = '42501', message = 'The times and failures of a message follow its status';
    end if;
    return new;
  end $$;
