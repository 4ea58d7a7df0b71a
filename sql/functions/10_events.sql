-- The event log: one row a change, numbered without gaps per organization in commit order.
-- Triggers write it (app.emit, deferred, so it runs as the last thing before the commit record); set-based
-- writers owned by hub_writer write their own events and the triggers pass over their rows.

-- Ids for the rows of one statement: uuidv7() once, then its last 16 bits count. They sort in that order, and the
-- server draws random bits once (which costs some builds three system calls an id).
create or replace function app.counted_id(first uuid, n bigint) returns uuid
  language sql immutable parallel safe
  as $$ select (left(first::text, 32) || lpad(to_hex(n & 65535), 4, '0'))::uuid $$;

-- Tables whose changes are events, with the noun their event types start with.
create or replace function app.event_noun(table_name text) returns text
  language sql immutable parallel safe
  as $$
    select case table_name
      when 'contacts' then 'contact' when 'companies' then 'company' when 'deals' then 'deal' when 'pipelines' then 'pipeline'
      when 'conversations' then 'conversation' when 'messages' then 'message' when 'tasks' then 'task' when 'templates' then 'template'
      when 'bot_flows' then 'bot_flow' when 'automation_rules' then 'automation_rule' when 'campaigns' then 'campaign'
      when 'notes' then 'note' when 'channel_accounts' then 'channel_account' when 'projects' then 'project' when 'milestones' then 'milestone'
      when 'organizations' then 'organization' when 'memberships' then 'membership' when 'teams' then 'team'
      when 'invitations' then 'invitation' when 'api_keys' then 'api_key' when 'webhooks' then 'webhook'
    end
  $$;

-- Every documented event name that one change stands for (before is null for inserts).
create or replace function app.event_names(table_name text, op text, before jsonb, after jsonb) returns text[]
  language sql immutable parallel safe
  as $$
    select case
      when op = 'DELETE' then '{}'
      when table_name = 'messages' and op = 'INSERT' then
        case when after ->> 'direction' = 'INBOUND' then array['message.received']
             when after ->> 'status' = 'FAILED' then array['message.failed']
             when after ->> 'status' in ('SENT', 'DELIVERED', 'READ') and after ->> 'source' <> 'external' then array['message.sent']
             else '{}' end
      when table_name = 'messages' then
        case when after ->> 'direction' = 'INBOUND' or after ->> 'status' = before ->> 'status' then '{}'
             else array_remove(array[
               case when before ->> 'status' in ('PENDING', 'FAILED') and after ->> 'status' in ('SENT', 'DELIVERED', 'READ')
                     and after ->> 'source' <> 'external' then 'message.sent' end,
               case after ->> 'status' when 'DELIVERED' then 'message.delivered' when 'READ' then 'message.read' when 'FAILED' then 'message.failed' end
             ], null) end
      when op = 'INSERT' and table_name in ('contacts', 'deals', 'conversations', 'tasks') then
        array_remove(array[app.event_noun(table_name) || '.created',
          case when after ->> 'assignee_id' is not null or (table_name = 'deals' and after ->> 'owner_id' is not null)
               then app.event_noun(table_name) || '.assigned' end], null)
      when table_name = 'contacts' then
        array_remove(array['contact.updated',
          case when (after ->> 'assignee_id') is distinct from (before ->> 'assignee_id') then 'contact.assigned' end], null)
      when table_name = 'deals' then
        array_remove(array['deal.updated',
          case when (after ->> 'stage') is distinct from (before ->> 'stage') then 'deal.stage.changed' end,
          case when (after ->> 'owner_id') is distinct from (before ->> 'owner_id') then 'deal.assigned' end], null)
      when table_name = 'conversations' then
        array_remove(array[
          case when (after ->> 'assignee_id') is distinct from (before ->> 'assignee_id') then 'conversation.assigned' end,
          case when (after ->> 'status') is distinct from (before ->> 'status') then 'conversation.status.changed' end], null)
      when table_name = 'tasks' then
        array_remove(array['task.updated',
          case when (after ->> 'assignee_id') is distinct from (before ->> 'assignee_id') then 'task.assigned' end,
          case when (after ->> 'completed')::boolean and not (before ->> 'completed')::boolean then 'task.completed' end,
          case when after ->> 'status' = 'OVERDUE' and before ->> 'status' = 'TODO' then 'task.due' end], null)
      else '{}'
    end
  $$;

-- What changed: the old value of every column that differs. Columns that only keep count are left out.
create or replace function app.changed_columns(before jsonb, after jsonb) returns jsonb
  language sql immutable parallel safe
  as $$
    select coalesce(jsonb_object_agg(o.key, o.value), '{}')
      from jsonb_each(before) o
     where after -> o.key is distinct from o.value and o.key not in ('updated_at', 'version', 'revision')
  $$;

-- {"row", "changed", "truncated"}; above 8 KiB only what identifies the row. Text, not jsonb: it is written once, sent as it is and seldom looked into.
create or replace function app.event_payload(image json, changed json) returns json
  language sql stable parallel safe
  as $$
    select case
      when octet_length(image::text) < 8192 - 512 then json_build_object('row', image, 'changed', changed, 'truncated', false)
      else json_build_object('row', json_strip_nulls(json_build_object('id', image -> 'id', 'user_id', image -> 'user_id',
               'conversation_id', image -> 'conversation_id', 'contact_id', image -> 'contact_id', 'conv_seq', image -> 'conv_seq', 'version', image -> 'version')),
             'changed', null, 'truncated', true)
    end
  $$;

-- The frame that clients get, built once here so that the publisher, the catch-up read and the pull API agree byte for byte.
create or replace function app.event_frame(e app.events) returns text
  language sql stable parallel safe
  as $$
    select concat('{"type":"event","seq":', e.seq, ',"event":{"id":"', e.id, '","type":"', e.type, '","table":"', e.table_name, '","op":"', e.op,
      '","names":', array_to_json(e.names), ',"entity_id":', coalesce('"' || e.entity_id || '"', 'null'),
      ',"contact_id":', coalesce('"' || e.contact_id || '"', 'null'), ',"conversation_id":', coalesce('"' || e.conversation_id || '"', 'null'),
      ',"actor":{"kind":"', e.actor_kind, '","user_id":', coalesce('"' || e.actor_id || '"', 'null'), '},"cause_id":', coalesce('"' || e.cause_id || '"', 'null'),
      ',"depth":', e.depth, ',"at":', to_json(e.at), ',"payload":', e.payload, '}}')
  $$;

create or replace function app.stream_key(org uuid) returns bigint
  language sql immutable parallel safe as $$ select hashtextextended('stream:' || org, 0) $$;

-- The last statement of a transaction that writes events of several organizations: the same locks
-- that app.emit takes, in one order for everybody.
create or replace function app.lock_streams(orgs uuid[]) returns void
  language plpgsql
  as $$
  begin
    perform pg_advisory_xact_lock(k) from (select distinct app.stream_key(o) as k from unnest(orgs) o order by k) keys;
  end $$;

-- Deferred constraint trigger on every event-bearing table.
create or replace function app.emit() returns trigger
  language plpgsql security definer set search_path = pg_catalog, pg_temp
  as $$
  declare
    before jsonb := case when tg_op <> 'INSERT' then to_jsonb(old) - 'search' end;
    after jsonb := case when tg_op <> 'DELETE' then to_jsonb(new) - 'search' else to_jsonb(old) - 'search' end;
    org uuid := coalesce(after ->> 'organization_id', after ->> 'id')::uuid;
    ctx jsonb := app.ctx();
    tail text := current_setting('hub.tail', true);
    s bigint;
    e app.events;
  begin
    if tail <> '' and split_part(tail, ':', 1) = org::text then
      s := split_part(tail, ':', 2)::bigint + 1;       -- this transaction already holds the stream
    else
      if tg_op <> 'INSERT' and not exists (select from public.organizations o where o.id = org) then
        return null;                                   -- the organization itself is gone, and its log with it
      end if;
      perform pg_advisory_xact_lock(app.stream_key(org));
      s := coalesce((select max(seq) from app.events where organization_id = org), 0) + 1;
    end if;
    perform set_config('hub.tail', org || ':' || s, true);
    insert into app.events (organization_id, seq, type, table_name, op, names, entity_id, contact_id, conversation_id,
                            actor_kind, actor_id, cause_id, depth, payload)
    values (org, s,
            app.event_noun(tg_table_name) || case tg_op when 'INSERT' then '.created' when 'UPDATE' then '.updated' else '.deleted' end,
            tg_table_name, tg_op, app.event_names(tg_table_name, tg_op, before, after),
            coalesce(after ->> 'id', after ->> 'user_id')::uuid,
            case tg_table_name when 'contacts' then after ->> 'id' else after ->> 'contact_id' end::uuid,
            case tg_table_name when 'conversations' then after ->> 'id' else after ->> 'conversation_id' end::uuid,
            coalesce(ctx ->> 'kind', 'system'), (ctx ->> 'user')::uuid, (ctx ->> 'cause')::uuid, coalesce((ctx ->> 'depth')::integer, 0),
            app.event_payload(after::text::json, case when tg_op = 'UPDATE' then app.changed_columns(before, after)::text::json end))
    returning * into e;
    if current_setting('hub.listen', true) = '1' then  -- the writer publishes after its commit; this tells it what, for free
      raise notice using errcode = 'HUBEV', message = app.event_frame(e), detail = org || ' ' || s || ' ' || tg_table_name;
    end if;
    return null;
  end $$;

-- The log of an organization goes with it. A foreign key would say the same for two look-ups a message; every row that is
-- told of in the log refers to the organization, so its events cannot come after this without waiting for it.
create or replace function app.forget_events() returns trigger
  language plpgsql security definer set search_path = pg_catalog, pg_temp
  as $$
  begin
    perform pg_advisory_xact_lock(app.stream_key(old.id));
    delete from app.events e where e.organization_id = old.id;
    return null;
  end $$;

-- At most this many event-bearing rows a transaction (guarantees G3); a statement trigger would not see several statements,
-- so the count lives in the transaction. The refusal is a HUB01: the API turns it into a 400 with a hint.
create or replace function app.limit_event_rows() returns trigger
  language plpgsql security definer set search_path = pg_catalog, pg_temp
  as $$
  declare
    n integer := coalesce(nullif(current_setting('hub.rows', true), '')::integer, 0) + (select count(*) from changed);
  begin
    if n > 1000 and coalesce(app.ctx() ->> 'kind', 'system') in ('user', 'key', 'anon') then
      raise exception using errcode = 'HUB01', message = 'Too many rows in one request',
        detail = 'A transaction may change at most 1000 rows of tables that make events.', hint = 'Send them in chunks of 1000.';
    end if;
    perform set_config('hub.rows', n::text, true);
    return null;
  end $$;

-- Where the log of each organization stands; numbers only.
create or replace function app.heads(orgs uuid[]) returns table (organization_id uuid, seq bigint)
  language sql stable security definer set search_path = pg_catalog, pg_temp
  as $$
    select o, coalesce((select max(e.seq) from app.events e where e.organization_id = o), 0) from unnest(orgs) o
  $$;

-- Up to `max_rows` events of one organization after a cursor, as frames, in order.
create or replace function app.read_events(org uuid, after bigint, max_rows integer)
  returns table (seq bigint, table_name text, frame text)
  language sql stable security definer set search_path = pg_catalog, pg_temp
  as $$
    select e.seq, e.table_name, app.event_frame(e) from app.events e
     where e.organization_id = org and e.seq > after order by e.seq limit max_rows
  $$;

-- The oldest seq a client may resume from: events that still stand and are younger than `keep`.
create or replace function app.resume_floor(org uuid, keep interval) returns bigint
  language sql stable security definer set search_path = pg_catalog, pg_temp
  as $$ select coalesce((select min(e.seq) from app.events e where e.organization_id = org and e.at > now() - keep),
                        (select max(e.seq) from app.events e where e.organization_id = org), 0) $$;

-- Changes when this database became another one (restore, promotion): cursors of another epoch mean nothing here.
create or replace function app.epoch() returns text
  language sql stable security definer set search_path = pg_catalog, pg_temp
  as $$
    select left(encode(sha256(convert_to(concat_ws(':', (select system_identifier from pg_control_system()),
             (select timeline_id from pg_control_checkpoint()), (select nonce from app.hub_meta)), 'UTF8')), 'hex'), 16)
  $$;
