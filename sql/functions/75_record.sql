-- insert-message: record what another system sent or received. Nothing here sends anything.

-- One message of the caller's organization, inside the caller's transaction (as authenticated). `item`:
-- {phones: [canonical, variants…], wa_id, e164, external_id, contact_id, name, content, direction, status, message_type,
--  metadata, channel_account_id, occurred_at}.
-- Finds or creates the contact and the conversation; two calls at once make one of each. An inbound message reopens a
-- closed conversation (place_message does). Raises HUB04 for an id that is not the caller's.
create or replace function app.record_message(item jsonb) returns table (id uuid, conversation_id uuid, contact_id uuid)
  language plpgsql security definer set search_path = pg_catalog, pg_temp
  as $$
  #variable_conflict use_column
  declare
    org uuid := app.org();
    account uuid := (item ->> 'channel_account_id')::uuid;
    contact uuid := (item ->> 'contact_id')::uuid;
    conv uuid;
    inbound boolean := item ->> 'direction' = 'INBOUND';
  begin
    if org is null or not app.may_any('{can_send_messages}') then
      raise exception using errcode = '42501', message = 'Recording messages needs can_send_messages';
    end if;
    if account is null then
      select a.id into account from public.channel_accounts a
       where a.organization_id = org and a.type like 'WHATSAPP%' and a.is_active and a.disconnected_at is null order by a.created_at desc, a.id desc limit 1;
    elsif not exists (select from public.channel_accounts a where a.organization_id = org and a.id = account) then
      raise exception using errcode = 'HUB04', message = 'No such channel account';
    end if;
    if contact is null then
      contact := app.contact_of_sender(org, item);
    elsif not exists (select from public.contacts c where c.organization_id = org and c.id = contact) then
      raise exception using errcode = 'HUB04', message = 'No such contact';
    end if;

    conv := app.conversation_on(org, account, contact);
    if conv is null then
      insert into public.conversations as c (organization_id, channel_account_id, contact_id) values (org, account, contact)
      on conflict (organization_id, channel_account_id, contact_id) where status = 'OPEN' do nothing
      returning c.id into conv;
      conv := coalesce(conv, app.conversation_on(org, account, contact));
    end if;
    return query
    insert into public.messages as m (organization_id, conversation_id, contact_id, channel_account_id, direction, content, status, message_type, metadata, occurred_at, source, failure_code)
    values (org, conv, contact, account, item ->> 'direction', item ->> 'content', item ->> 'status', item ->> 'message_type',
            coalesce(item -> 'metadata', '{}'), coalesce((item ->> 'occurred_at')::timestamptz, clock_timestamp()),
            case when inbound then 'customer' else 'api' end, case when item ->> 'status' = 'FAILED' then 'external' end)
    returning m.id, m.conversation_id, m.contact_id;
  end $$;

-- The open conversation of a contact on an account (or on none), else the newest closed one.
create or replace function app.conversation_on(org uuid, account uuid, contact uuid) returns uuid
  language sql volatile set search_path = pg_catalog, pg_temp -- each look must see what was committed while it waited
  as $$
    select c.id from public.conversations c
     where c.organization_id = org and c.contact_id = contact and c.channel_account_id is not distinct from account
     order by c.status = 'OPEN' desc, c.last_message_at desc nulls last limit 1
  $$;

-- The contact behind a phone number or an external id, created if nobody has it. The unique key of its identity decides
-- races, also with webhooks that arrive at this moment.
create or replace function app.contact_of_sender(org uuid, item jsonb) returns uuid
  language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
  as $$
  declare
    wanted text[][] := case
      when item ->> 'wa_id' is not null then array[array['wa_id', item ->> 'wa_id'], array['phone_e164', item ->> 'e164']]
      else array[array['external', item ->> 'external_id']] end;
    forms text[] := coalesce((select array_agg(p) from jsonb_array_elements_text(item -> 'phones') p), '{}');
    label text := item ->> 'name';
    mine uuid := uuidv7();
    found_contact uuid;
    claimed integer := 0;
    i integer;
    n integer;
  begin
    for i in 1 .. array_length(wanted, 1) loop
      select x.contact_id into found_contact from public.contact_identities x
       where x.organization_id = org and x.scheme = wanted[i][1] and x.value = wanted[i][2];
      exit when found_contact is not null;
    end loop;
    if found_contact is null and cardinality(forms) > 0 then     -- known by its phone column alone (an import, a REST insert)
      select c.id into found_contact from public.contacts c
       where c.organization_id = org and c.phones && forms and c.merged_into_id is null order by c.created_at limit 1;
    end if;
    for i in 1 .. array_length(wanted, 1) loop
      insert into public.contact_identities (organization_id, contact_id, scheme, value, display_name)
      values (org, coalesce(found_contact, mine), wanted[i][1], wanted[i][2], label)
      on conflict (organization_id, scheme, value) do nothing;
      get diagnostics n = row_count;
      claimed := claimed + n;
      if n = 0 and found_contact is null then                      -- somebody was faster; what we claimed so far is his
        select x.contact_id into found_contact from public.contact_identities x
         where x.organization_id = org and x.scheme = wanted[i][1] and x.value = wanted[i][2];
        update public.contact_identities x set contact_id = found_contact where x.organization_id = org and x.contact_id = mine;
      end if;
    end loop;
    if found_contact is not null then
      return found_contact;
    end if;
    insert into public.contacts (organization_id, id, first_name, last_name, phones, source)
    values (org, mine, nullif(split_part(label, ' ', 1), ''), nullif(ltrim(substr(label, length(split_part(label, ' ', 1)) + 1)), ''),
            case when item ->> 'e164' is not null then array[item ->> 'e164'] else '{}' end, 'api');
    return mine;
  end $$;

-- Where a send function puts its message: the open conversation on the account that sends, else a new one. Inside the caller's
-- transaction. `item` as for record_message, with conversation_id and account_key (the provider's key of an account) instead of
-- direction, status and content. Raises HUB04 for ids that are not the caller's or do not belong together.
create or replace function app.conversation_for_send(item jsonb, channel text) returns table (conversation_id uuid, contact_id uuid)
  language plpgsql security definer set search_path = pg_catalog, pg_temp
  as $$
  #variable_conflict use_column
  declare
    org uuid := app.org();
    wanted uuid := (item ->> 'conversation_id')::uuid;
    account uuid;
    contact uuid;
    conv uuid;
  begin
    if org is null or not app.may_any('{can_send_messages}') then
      raise exception using errcode = '42501', message = 'Sending needs can_send_messages';
    end if;
    if item ->> 'account_key' is not null then
      select r.channel_account_id into account from app.webhook_routes r
       where r.organization_id = org and r.type = channel and r.account_key = item ->> 'account_key';
      if account is null then
        raise exception using errcode = 'HUB04', message = 'No such channel account';
      end if;
    end if;
    if wanted is not null then
      select c.id, c.contact_id into conv, contact from public.conversations c
       where c.organization_id = org and c.id = wanted and (account is null or c.channel_account_id = account)
         and (app.sees_all() or c.assignee_id = app.current_user_id() or c.team_id = any (app.my_teams()));
      if conv is null or item ->> 'wa_id' is not null and app.contact_of_sender(org, item) <> contact then
        raise exception using errcode = 'HUB04', message = 'No such conversation with this recipient';
      end if;
      return query select conv, contact;
      return;
    end if;
    if account is null then
      select a.id into account from public.channel_accounts a
       where a.organization_id = org and a.type in (channel, case channel when 'WHATSAPP_CLOUD' then 'WHATSAPP_BUSINESS' end)
         and a.is_active and a.disconnected_at is null order by a.created_at desc, a.id desc limit 1;
      if account is null then
        raise exception using errcode = 'HUB04', message = 'No channel account of this type is connected';
      end if;
    end if;
    contact := app.contact_of_sender(org, item);
    select c.id into conv from public.conversations c
     where c.organization_id = org and c.contact_id = contact and c.channel_account_id = account and c.status = 'OPEN';
    if conv is null then
      insert into public.conversations as c (organization_id, channel_account_id, contact_id) values (org, account, contact)
      on conflict (organization_id, channel_account_id, contact_id) where status = 'OPEN' do nothing
      returning c.id into conv;
      conv := coalesce(conv, app.conversation_on(org, account, contact));
    end if;
    return query select conv, contact;
  end $$;

grant execute on function app.record_message(jsonb), app.conversation_for_send(jsonb, text) to authenticated;
