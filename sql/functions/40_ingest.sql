-- Inbound messages of any organizations as one batch: identity, contact, conversation, message and events
-- in one transaction. Owned by hub_writer: the row triggers pass over it (see 90_triggers.sql), it does their work set-based.

do $$ begin
  if to_regtype('app.ingest_item') is null then
    create type app.ingest_item as (
      n integer,                    -- place in the delivery, the last tie-break
      organization_id uuid, channel_account_id uuid,
      dedupe_key text,              -- becomes messages.provider_message_id; unique for ever per account
      schemes text[], ids text[],   -- who wrote: identities, the best first
      name text, direction text, content text, message_type text, metadata jsonb,
      occurred_at timestamptz, reply_to text, source text);
  end if;
end $$;

do $$ begin
  if to_regtype('app.change') is null then
    create type app.change as (
      step integer, organization_id uuid, table_name text, op text, entity_id uuid, contact_id uuid, conversation_id uuid,
      names text[],                 -- as app.event_names would say
      image json, changed json,     -- the row, and what it was before
      conv_seq bigint);
  end if;
end $$;

-- What a message that comes in changed of its conversation: app.changed_columns without looking at every column.
create or replace function app.grown_from(was public.conversations, now public.conversations) returns json
  language sql stable parallel safe
  as $$
    select ('{' || concat_ws(',',
      '"msg_seq":' || was.msg_seq,
      case when was.inbound_count <> now.inbound_count then '"inbound_count":' || was.inbound_count end,
      case when was.status <> now.status then '"status":"' || was.status || '"' end,
      case when was.closed_at is distinct from now.closed_at then '"closed_at":' || coalesce(to_json(was.closed_at)::text, 'null') end,
      case when was.last_message_at is distinct from now.last_message_at then '"last_message_at":' || coalesce(to_json(was.last_message_at)::text, 'null') end,
      case when was.last_message_preview is distinct from now.last_message_preview then '"last_message_preview":' || coalesce(to_json(was.last_message_preview)::text, 'null') end,
      case when was.last_message_direction is distinct from now.last_message_direction then '"last_message_direction":' || coalesce(to_json(was.last_message_direction)::text, 'null') end,
      case when was.first_inbound_at is distinct from now.first_inbound_at then '"first_inbound_at":' || coalesce(to_json(was.first_inbound_at)::text, 'null') end,
      case when was.last_inbound_at is distinct from now.last_inbound_at then '"last_inbound_at":' || coalesce(to_json(was.last_inbound_at)::text, 'null') end,
      case when was.waiting_since is distinct from now.waiting_since then '"waiting_since":' || coalesce(to_json(was.waiting_since)::text, 'null') end) || '}')::json
  $$;

-- A contact as events show it.
create or replace function app.image_of(c public.contacts) returns json
  language sql stable parallel safe
  as $$ select (to_jsonb(c) - 'search')::text::json $$;

-- Returns the events written, ready to publish: (organization, seq, table, frame) in order.
-- A delivery seen before changes nothing and returns nothing. Raises when one item cannot be stored;
-- the caller then runs the items one by one.
create or replace function app.ingest_many(items jsonb)
  returns table (organization_id uuid, seq bigint, table_name text, frame text)
  language plpgsql security definer
  set search_path = pg_catalog, pg_temp
  set plan_cache_mode = force_generic_plan set enable_hashjoin = off set enable_mergejoin = off set enable_seqscan = off
  as $$
  #variable_conflict use_column
  declare
    batch app.ingest_item[];
    contact uuid[];                  -- by place in batch
    conv uuid[];
    unseen app.ingest_item[];
    new_contacts public.contacts[] := '{}';
    new_conversations public.conversations[] := '{}';
    stored public.messages[];
    t timestamptz := clock_timestamp();
    first uuid := uuidv7();
    late record;
  begin
    if jsonb_array_length(items) = 1 then
      return query select * from app.ingest_one(items -> 0);
      return;
    end if;
    -- one order for everybody, so that batches lock rows in the same sequence
    select array_agg(x.item order by (x.item).organization_id, (x.item).channel_account_id, (x.item).schemes[1], (x.item).ids[1], (x.item).occurred_at, (x.item).n)
      into batch
      from (select distinct on (i.organization_id, i.channel_account_id, i.dedupe_key) i as item
              from jsonb_populate_recordset(null::app.ingest_item, items) i
             order by i.organization_id, i.channel_account_id, i.dedupe_key, i.n) x;
    batch := app.unseen_items(batch);
    if batch is null then
      return;
    end if;

    -- who wrote: the identity is claimed before its contact exists, its unique key decides races
    contact := app.contacts_of_items(batch);
    if array_position(contact, null) is not null then
      with stranger as (
        select distinct on (b.organization_id, b.schemes[1], b.ids[1]) b.organization_id, b.schemes[1] as scheme, b.ids[1] as value, b.name
          from unnest(batch) with ordinality b
         where contact[b.ordinality] is null
         order by b.organization_id, b.schemes[1], b.ids[1], b.ordinality
      ), claimed as (
        insert into public.contact_identities (organization_id, contact_id, scheme, value, display_name)
        select s.organization_id, uuidv7(), s.scheme, s.value, s.name from stranger s order by s.organization_id, s.scheme, s.value
        on conflict (organization_id, scheme, value) do nothing
        returning organization_id, contact_id, scheme, value, display_name
      ), made as (
        insert into public.contacts as c (organization_id, id, first_name, last_name, phones, emails, source)
        select m.organization_id, m.contact_id, n.first_name, n.last_name, n.phones, n.emails, 'inbound'
          from claimed m, app.named_by(m.scheme, m.value, m.display_name) n
        returning c
      )
      select coalesce(array_agg(c), '{}') into new_contacts from made;
      contact := app.contacts_of_items(batch);
    end if;

    -- further identities of the same sender (a phone number beside a business-scoped id, WhatsApp beside a phone number)
    for late in
      select distinct b.organization_id, contact[b.ordinality] as contact_id, i.scheme, i.value, b.name
        from unnest(batch) with ordinality b
       cross join lateral unnest(b.schemes, b.ids) i (scheme, value)
       where not exists (select from public.contact_identities x where x.organization_id = b.organization_id and x.scheme = i.scheme and x.value = i.value)
       order by 1, 3, 4
    loop
      perform app.add_identity(late.organization_id, late.contact_id, late.scheme, late.value, late.name);
    end loop;

    -- the conversation: the open one, else the newest closed one (it reopens below), else a new one
    conv := app.conversations_of_items(batch, contact);
    perform from public.conversations c
     where (c.organization_id, c.id) in (select b.organization_id, conv[b.ordinality] from unnest(batch) with ordinality b)
     order by c.organization_id, c.id for no key update;
    -- whoever held those rows may have stored the same deliveries
    unseen := app.unseen_items(batch);
    if unseen is distinct from batch then
      if unseen is null and cardinality(new_contacts) > 0 then
        raise exception using errcode = '40001', message = 'Another writer stored this delivery; run it again';
      elsif unseen is null then
        return;
      end if;
      batch := unseen;
      contact := app.contacts_of_items(batch);
      conv := app.conversations_of_items(batch, contact);
    end if;
    if array_position(conv, null) is not null then
      with made as (
        insert into public.conversations as c (organization_id, channel_account_id, contact_id)
        select distinct b.organization_id, b.channel_account_id, contact[b.ordinality]
          from unnest(batch) with ordinality b where conv[b.ordinality] is null
         order by 1, 2, 3
        on conflict (organization_id, channel_account_id, contact_id) where status = 'OPEN' do nothing
        returning c
      )
      select coalesce(array_agg(c), '{}') into new_conversations from made;
      conv := app.conversations_of_items(batch, contact);
      perform from public.conversations c
       where (c.organization_id, c.id) in (select b.organization_id, conv[b.ordinality] from unnest(batch) with ordinality b)
       order by c.organization_id, c.id for no key update;
    end if;

    -- the messages, numbered on from where each conversation stands
    with made as (
      insert into public.messages as m (organization_id, id, conversation_id, contact_id, channel_account_id, direction, content, status, message_type,
                                        metadata, provider_message_id, conv_seq, occurred_at, source, reply_to_id, sent_at, created_at)
      select p.organization_id, app.counted_id(first, p.place), p.conversation_id, p.contact_id, p.channel_account_id, p.direction, p.content,
             case p.direction when 'INBOUND' then 'RECEIVED' else 'SENT' end, p.message_type, coalesce(p.metadata, '{}'), p.dedupe_key,
             c.msg_seq + p.rn, greatest(t - interval '24 hours', least(t + interval '5 seconds', p.occurred_at)), coalesce(p.source, 'customer'),
             case when p.reply_to is not null then coalesce(
               (select r.id from public.messages r where r.organization_id = p.organization_id and r.channel_account_id = p.channel_account_id and r.provider_message_id = p.reply_to),
               (select app.counted_id(first, o.ordinality) from unnest(batch) with ordinality o -- it arrives in this batch as well
                 where o.organization_id = p.organization_id and o.channel_account_id = p.channel_account_id and o.dedupe_key = p.reply_to)) end,
             case when p.direction = 'OUTBOUND' then t end,
             greatest(t, c.last_message_at) + p.rn * interval '1 microsecond'
        from (select b.*, b.ordinality as place, conv[b.ordinality] as conversation_id, contact[b.ordinality] as contact_id, row_number() over (partition by b.organization_id, conv[b.ordinality] order by b.ordinality) as rn
                from unnest(batch) with ordinality b) p
        join public.conversations c on c.organization_id = p.organization_id and c.id = p.conversation_id
       order by p.organization_id, p.conversation_id, p.rn
      returning m
    )
    select array_agg(made.m order by (made.m).organization_id, (made.m).conversation_id, (made.m).conv_seq) into stored from made;

    -- summaries, reopening, and the events: stream locks last, then one insert
    return query
    with grown as (
      update public.conversations c
         set msg_seq = c.msg_seq + s.n, inbound_count = c.inbound_count + s.inbound,
             last_message_at = s.last_at, last_message_preview = s.last_preview, last_message_direction = s.last_direction,
             first_inbound_at = coalesce(c.first_inbound_at, s.first_inbound_at), last_inbound_at = coalesce(s.last_inbound_at, c.last_inbound_at),
             waiting_since = case when s.last_direction = 'INBOUND' then coalesce(c.waiting_since, s.first_inbound_at) end,
             status = 'OPEN', closed_at = null, updated_at = t, version = c.version + 1
        from (select m.organization_id, m.conversation_id, count(*) as n, count(*) filter (where m.direction = 'INBOUND') as inbound,
                     max(m.created_at) as last_at, (array_agg(m.direction order by m.conv_seq desc))[1] as last_direction,
                     (array_agg(app.preview(m.content, m.message_type) order by m.conv_seq desc))[1] as last_preview,
                     min(m.created_at) filter (where m.direction = 'INBOUND') as first_inbound_at,
                     max(m.created_at) filter (where m.direction = 'INBOUND') as last_inbound_at
                from unnest(stored) m group by 1, 2) s
       where c.organization_id = s.organization_id and c.id = s.conversation_id
      returning old as was, new as now
    ), change as (
      select 1 as step, c.organization_id, 'contacts' as table_name, 'INSERT' as op, c.id as entity_id, c.id as contact_id, null::uuid as conversation_id,
             array['contact.created'] as names, app.image_of(c) as image, null::json as changed, 0::bigint as conv_seq from unnest(new_contacts) c
      union all
      select 2, c.organization_id, 'conversations', 'INSERT', c.id, c.contact_id, c.id, array['conversation.created'], row_to_json(c), null, 0 from unnest(new_conversations) c
      union all
      select 3, (g.now).organization_id, 'conversations', 'UPDATE', (g.now).id, (g.now).contact_id, (g.now).id,
             case when (g.was).status <> (g.now).status then array['conversation.status.changed'] else '{}' end, row_to_json(g.now), app.grown_from(g.was, g.now), 0 from grown g
      union all
      select 4, m.organization_id, 'messages', 'INSERT', m.id, m.contact_id, m.conversation_id,
             case m.direction when 'INBOUND' then array['message.received'] else '{}' end, row_to_json(m), null, m.conv_seq from unnest(stored) m
    )
    select w.* from app.write_events((select array_agg(d::app.change
                                                 order by d.organization_id, d.step, d.conversation_id, d.conv_seq) from change d)) w;
  end $$;

-- Append changes to the log of their organizations: locks in key order, then seq = tail + place. The last thing a writer does.
create or replace function app.write_events(changes app.change[])
  returns table (organization_id uuid, seq bigint, table_name text, frame text)
  language plpgsql
  set search_path = pg_catalog, pg_temp
  as $$
  #variable_conflict use_column
  declare
    first uuid := uuidv7();
  begin
    perform app.lock_streams((select array_agg(distinct c.organization_id) from unnest(changes) c));
    perform set_config('hub.tail', '', true);
    return query
    with tail as materialized (
      select o.organization_id, coalesce((select max(e.seq) from app.events e where e.organization_id = o.organization_id), 0) as seq
        from (select distinct c.organization_id from unnest(changes) c) o
    ), written as (
      insert into app.events as e (organization_id, seq, id, type, table_name, op, names, entity_id, contact_id, conversation_id, actor_kind, payload)
      select c.organization_id, t.seq + row_number() over (partition by c.organization_id order by c.ordinality), app.counted_id(first, c.ordinality),
             app.event_noun(c.table_name) || case c.op when 'INSERT' then '.created' else '.updated' end, c.table_name, c.op,
             c.names, c.entity_id, c.contact_id, c.conversation_id, 'customer', app.event_payload(c.image, c.changed)
        from unnest(changes) with ordinality c
        join tail t on t.organization_id = c.organization_id
       order by c.ordinality
      returning e
    )
    select (w.e).organization_id, (w.e).seq, (w.e).table_name, app.event_frame(w.e) from written w order by 1, 2;
  end $$;

-- The same for a single item, statement by statement: the set-based text costs twice as much for a batch of one.
create or replace function app.ingest_one(item jsonb)
  returns table (organization_id uuid, seq bigint, table_name text, frame text)
  language plpgsql
  set search_path = pg_catalog, pg_temp
  as $$
  #variable_conflict use_column
  declare
    i app.ingest_item := jsonb_populate_record(null::app.ingest_item, item);
    t timestamptz := clock_timestamp();
    inbound boolean := i.direction = 'INBOUND';
    contact uuid := (app.contacts_of_items(array[i]))[1];
    conv uuid;
    stranger public.contacts;
    made public.conversations;
    was public.conversations;
    now public.conversations;
    m public.messages;
    changes app.change[] := '{}';
  begin
    if app.unseen_items(array[i]) is null then
      return;
    end if;
    if contact is null then
      insert into public.contact_identities (organization_id, contact_id, scheme, value, display_name)
      values (i.organization_id, uuidv7(), i.schemes[1], i.ids[1], i.name)
      on conflict (organization_id, scheme, value) do nothing returning contact_id into contact;
      if contact is not null then
        insert into public.contacts (organization_id, id, first_name, last_name, phones, emails, source)
        select i.organization_id, contact, n.first_name, n.last_name, n.phones, n.emails, 'inbound' from app.named_by(i.schemes[1], i.ids[1], i.name) n
        returning * into stranger;
        changes := changes || row(1, i.organization_id, 'contacts', 'INSERT', contact, contact, null, array['contact.created'], app.image_of(stranger), null, 0)::app.change;
      else
        contact := (app.contacts_of_items(array[i]))[1];
      end if;
    end if;
    perform app.add_identity(i.organization_id, contact, x.scheme, x.value, i.name) from unnest(i.schemes, i.ids) x (scheme, value)
      where not exists (select from public.contact_identities k where k.organization_id = i.organization_id and k.scheme = x.scheme and k.value = x.value);
    conv := app.conversation_of(i.organization_id, i.channel_account_id, contact);
    if conv is null then
      insert into public.conversations (organization_id, channel_account_id, contact_id) values (i.organization_id, i.channel_account_id, contact)
      on conflict (organization_id, channel_account_id, contact_id) where status = 'OPEN' do nothing returning * into made;
      conv := coalesce(made.id, app.conversation_of(i.organization_id, i.channel_account_id, contact));
      if made.id is not null then
        changes := changes || row(2, i.organization_id, 'conversations', 'INSERT', conv, contact, conv, array['conversation.created'], row_to_json(made), null, 0)::app.change;
      end if;
    end if;
    select * into was from public.conversations c where c.organization_id = i.organization_id and c.id = conv for no key update;
    if app.unseen_items(array[i]) is null then           -- whoever held the row stored this delivery
      if stranger.id is not null or made.id is not null then
        raise exception using errcode = '40001', message = 'Another writer stored this delivery; run it again';
      end if;
      return;
    end if;
    insert into public.messages (organization_id, conversation_id, contact_id, channel_account_id, direction, content, status, message_type, metadata,
                                 provider_message_id, conv_seq, occurred_at, source, reply_to_id, sent_at, created_at)
    values (i.organization_id, conv, contact, i.channel_account_id, i.direction, i.content, case when inbound then 'RECEIVED' else 'SENT' end, i.message_type,
            coalesce(i.metadata, '{}'), i.dedupe_key, was.msg_seq + 1, greatest(t - interval '24 hours', least(t + interval '5 seconds', i.occurred_at)),
            coalesce(i.source, 'customer'),
            case when i.reply_to is not null then (select r.id from public.messages r where r.organization_id = i.organization_id
               and r.channel_account_id = i.channel_account_id and r.provider_message_id = i.reply_to) end,
            case when not inbound then t end, greatest(t, was.last_message_at) + interval '1 microsecond')
    returning * into m;
    update public.conversations c
       set msg_seq = m.conv_seq, inbound_count = c.inbound_count + inbound::integer, last_message_at = m.created_at,
           last_message_preview = app.preview(m.content, m.message_type), last_message_direction = m.direction,
           first_inbound_at = case when inbound then coalesce(c.first_inbound_at, m.created_at) else c.first_inbound_at end,
           last_inbound_at = case when inbound then m.created_at else c.last_inbound_at end,
           waiting_since = case when inbound then coalesce(c.waiting_since, m.created_at) end,
           status = 'OPEN', closed_at = null, updated_at = t, version = c.version + 1
     where c.organization_id = i.organization_id and c.id = conv
    returning * into now;
    changes := changes || row(3, i.organization_id, 'conversations', 'UPDATE', conv, contact, conv, case when was.status <> now.status then array['conversation.status.changed'] else '{}' end,
                              row_to_json(now), app.grown_from(was, now), 0)::app.change
                       || row(4, i.organization_id, 'messages', 'INSERT', m.id, contact, conv, case when inbound then array['message.received'] else '{}' end, row_to_json(m), null, m.conv_seq)::app.change;
    return query select * from app.write_events(changes);
  end $$;

-- What a stranger's first message says of him: his name in two parts, his phone or e-mail.
create or replace function app.named_by(scheme text, value text, name text)
  returns table (first_name text, last_name text, phones text[], emails text[])
  language sql immutable
  as $$
    select nullif(split_part(name, ' ', 1), ''), nullif(ltrim(substr(name, length(split_part(name, ' ', 1)) + 1)), ''),
           case when scheme in ('wa_id', 'phone_e164') then array['+' || ltrim(value, '+')] else '{}' end,
           case when scheme = 'email' then array[value] else '{}' end
  $$;

-- Those of a batch whose message is not stored yet; NULL when none is left. Keeps the order.
create or replace function app.unseen_items(batch app.ingest_item[]) returns app.ingest_item[]
  language sql volatile
  set search_path = pg_catalog, pg_temp
  as $$
    select array_agg(batch[b.ordinality] order by b.ordinality) from unnest(batch) with ordinality b
     where not exists (select from public.messages m where m.organization_id = b.organization_id
                          and m.channel_account_id = b.channel_account_id and m.provider_message_id = b.dedupe_key)
  $$;

-- The contact of each item by its identities, the best known first; NULL where nobody is known.
create or replace function app.contacts_of_items(batch app.ingest_item[]) returns uuid[]
  language sql volatile
  set search_path = pg_catalog, pg_temp
  as $$
    select array_agg((select known.contact_id from (
               -- scalar look-ups: one index probe each, whatever the statistics say
               select i.place, coalesce(
                        (select x.contact_id from public.contact_identities x
                          where x.organization_id = b.organization_id and x.scheme = i.scheme and x.value = i.value),
                        (select x.contact_id from public.contact_identities x -- known by the phone number, has never written
                          where x.organization_id = b.organization_id and x.scheme = 'phone_e164'
                            and x.value = case when i.scheme = 'wa_id' then '+' || i.value end)) as contact_id
                 from unnest(b.schemes, b.ids) with ordinality i (scheme, value, place)) known
              where known.contact_id is not null order by known.place limit 1) order by b.ordinality)
      from unnest(batch) with ordinality b
  $$;

-- The open conversation of a contact on an account, else the newest closed one.
create or replace function app.conversation_of(org uuid, account uuid, contact uuid) returns uuid
  language sql volatile -- each look must see what was committed while it waited for a lock
  set search_path = pg_catalog, pg_temp
  as $$
    select c.id from public.conversations c
     where c.organization_id = org and c.contact_id = contact and c.channel_account_id = account
     -- expressions, so that the planner sorts this contact's few rows and does not walk the organization by last_message_at
     order by c.status = 'OPEN' desc, coalesce(c.last_message_at, '-infinity') desc limit 1
  $$;

-- The conversation of each item; NULL where there is none yet. The text of conversation_of once more: a call each costs more than the look-up.
create or replace function app.conversations_of_items(batch app.ingest_item[], contact uuid[]) returns uuid[]
  language sql volatile
  set search_path = pg_catalog, pg_temp
  as $$
    select array_agg((select c.id from public.conversations c
                       where c.organization_id = b.organization_id and c.contact_id = contact[b.ordinality] and c.channel_account_id = b.channel_account_id
                       order by c.status = 'OPEN' desc, coalesce(c.last_message_at, '-infinity') desc limit 1) order by b.ordinality)
      from unnest(batch) with ordinality b
  $$;

-- A further identity of a known contact, mirrored into its phones or e-mails. Rare, so the ordinary triggers do the rest.
create or replace function app.add_identity(org uuid, contact uuid, new_scheme text, new_value text, shown_as text) returns void
  language plpgsql security definer set search_path = pg_catalog, pg_temp
  as $$
  declare
    phone text := case when new_scheme in ('wa_id', 'phone_e164') then '+' || ltrim(new_value, '+') end;
    mail text := case when new_scheme = 'email' then new_value end;
  begin
    insert into public.contact_identities (organization_id, contact_id, scheme, value, display_name)
    values (org, contact, new_scheme, new_value, shown_as) on conflict (organization_id, scheme, value) do nothing;
    if found then
      update public.contacts c
         set phones = case when phone is null then c.phones else c.phones || phone end,
             emails = case when mail is null then c.emails else c.emails || mail end
       where c.organization_id = org and c.id = contact -- however the contact spells them
         and (not exists (select from unnest(c.phones) p where ltrim(regexp_replace(app.fold(p), '[^0-9]', '', 'g'), '0') = ltrim(phone, '+')) and phone is not null
              or mail is not null and not mail = any (c.emails));
    end if;
  end $$;
