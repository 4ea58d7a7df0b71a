-- What /rest/v1/rpc offers: a function of the schema public is one that callers may call. They run as the caller, so row
-- security decides what they see and change.

-- Ids of contacts in the caller's organization that a term fits, newest first: every word of it must stand in a name, phone,
-- e-mail or tag; a number fits its other spellings. As the owner, because under row security LIKE reaches no index.
-- How a deal ended by its stage: by what the pipeline says of the stage, else by the stage's name; null while it is open.
create or replace function app.deal_outcome(stage text, stages jsonb) returns text
  language sql immutable parallel safe
  as $$
    select coalesce((select s.item ->> 'outcome' from jsonb_array_elements(case when jsonb_typeof(stages) = 'array' then stages else '[]' end) s (item)
                      where s.item ->> 'id' = stage and s.item ->> 'outcome' in ('won', 'lost') limit 1),
                    case stage when 'closed_won' then 'won' when 'closed_lost' then 'lost' end)
  $$;

create or replace function app.find_contacts(term text, tag text, deal_status text, most integer) returns setof uuid
  language sql stable security definer set search_path = pg_catalog, pg_temp
  as $$
    select c.id
      from public.contacts c
     where c.organization_id = app.org()
       and (app.may_any('{can_access_crm,can_read_messages}'))
       and ($2 is null or c.tags @> array[$2])
       and ($3 is null or exists (
             select from public.deals d left join public.pipelines p on p.organization_id = d.organization_id and p.id = d.pipeline_id
              where d.organization_id = c.organization_id and d.contact_id = c.id
                and case $3 when 'open' then app.deal_outcome(d.stage, p.stages) is null
                            when 'closed' then app.deal_outcome(d.stage, p.stages) is not null
                            else app.deal_outcome(d.stage, p.stages) = $3 end))
       and (nullif(trim($1), '') is null or (
             select bool_and(c.search like '%' || replace(replace(replace(w, '\', '\\'), '%', '\%'), '_', '\_') || '%')
               from regexp_split_to_table(app.fold(trim($1)), '\s+') w)
            or (length(regexp_replace($1, '[^0-9]', '', 'g')) >= 7 and regexp_replace($1, '[0-9+() .-]', '', 'g') = ''
                and c.search like '%' || ltrim(regexp_replace($1, '[^0-9]', '', 'g'), '0') || '%'))
     order by c.created_at desc, c.id desc
     limit $4
  $$;

create or replace function public.current_organization_id() returns uuid
  language sql stable
  as $$ select app.org() $$;
comment on function public.current_organization_id() is 'The organization that the caller acts in.';

-- deal_status: open, closed, won or lost, of any of the contact's deals; whoever has none is not found by it.
create or replace function app.deal_status(word text) returns text
  language plpgsql immutable parallel safe
  as $$
  begin
    if word not in ('open', 'closed', 'won', 'lost') then
      raise exception using errcode = '22023', message = 'deal_status must be open, closed, won or lost';
    end if;
    return word;
  end $$;

create or replace function public.search_contacts(search_term text default null, tag text default null, deal_status text default null)
  returns setof public.contacts
  language sql stable
  as $$
    select c.* from app.find_contacts(search_term, tag, app.deal_status(lower(deal_status)), 2000) f join public.contacts c on c.organization_id = app.org() and c.id = f
     order by c.created_at desc, c.id desc
  $$;
comment on function public.search_contacts(text, text, text) is 'Contacts by name, phone, e-mail, tag or how their deals stand, newest first.';

create or replace function public.inbox_counts() returns table (status text, total bigint)
  language sql stable
  as $$
    select c.status, count(*) from public.conversations c where c.organization_id = app.org() group by c.status order by c.status
  $$;
comment on function public.inbox_counts() is 'How many conversations are open and closed.';

create or replace function public.add_contact_tag(contact_id uuid, tag text) returns public.contacts
  language plpgsql
  as $$
  declare
    changed public.contacts;
  begin
    update public.contacts c set tags = c.tags || add_contact_tag.tag
     where c.organization_id = app.org() and c.id = add_contact_tag.contact_id and not c.tags @> array[add_contact_tag.tag];
    select c.* into changed from public.contacts c where c.organization_id = app.org() and c.id = add_contact_tag.contact_id;
    if not found then
      raise exception using errcode = 'HUB04', message = 'No such contact';
    end if;
    if not changed.tags @> array[add_contact_tag.tag] then
      raise exception using errcode = '42501', message = 'You may not change this contact';
    end if;
    return changed;
  end $$;
comment on function public.add_contact_tag(uuid, text) is 'The contact with the tag, which it gets once.';

create or replace function public.mark_conversation_read(conversation_id uuid) returns void
  language plpgsql
  as $$
  declare
    c public.conversations;
  begin
    select * into c from public.conversations v where v.organization_id = app.org() and v.id = mark_conversation_read.conversation_id;
    if not found then
      raise exception using errcode = 'HUB04', message = 'No such conversation';
    end if;
    -- a transaction holds a thousand events; whoever has more unread calls again
    update public.messages m set status = 'READ'
     where m.organization_id = app.org() and m.conversation_id = c.id and m.id in (
       select u.id from public.messages u
        where u.organization_id = app.org() and u.conversation_id = c.id and u.direction = 'INBOUND' and u.status = 'RECEIVED'
        order by u.conv_seq desc limit 1000);
  end $$;
comment on function public.mark_conversation_read(uuid) is 'All that the customer wrote in it is read.';

grant execute on function app.deal_status(text), app.find_contacts(text, text, text, integer) to authenticated, service_role;
revoke all on function public.current_organization_id(), public.search_contacts(text, text, text), public.inbox_counts(),
  public.add_contact_tag(uuid, text), public.mark_conversation_read(uuid) from public, anon;
grant execute on function public.current_organization_id(), public.search_contacts(text, text, text), public.inbox_counts(),
  public.add_contact_tag(uuid, text), public.mark_conversation_read(uuid) to authenticated, service_role;
