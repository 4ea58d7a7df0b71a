-- What /rest/v1/rpc offers: a function of the schema public is one that callers may call. They run as the caller, so row
-- security decides what they see and change.

-- Ids of contacts in the caller's organization that a term fits, newest first: every word of it must stand in a name, phone,
-- e-mail or tag; a number fits its other spellings. As the owner, because under row security LIKE reaches no index.
create or replace function app.find_contacts(term text, tag text, most integer) returns setof uuid
  language sql stable security definer set search_path = pg_catalog, pg_temp
  as $$
    select c.id
      from public.contacts c
     where c.organization_id = app.org()
       and (app.may_any('{can_access_crm,can_read_messages}'))
       and ($2 is null or c.tags @> array[$2])
       and (nullif(trim($1), '') is null or (
             select bool_and(c.search like '%' || replace(replace(replace(w, '\', '\\'), '%', '\%'), '_', '\_') || '%')
               from regexp_split_to_table(app.fold(trim($1)), '\s+') w)
            or (length(regexp_replace($1, '[^0-9]', '', 'g')) >= 7 and regexp_replace($1, '[0-9+() .-]', '', 'g') = ''
                and c.search like '%' || ltrim(regexp_replace($1, '[^0-9]', '', 'g'), '0') || '%'))
     order by c.created_at desc, c.id desc
     limit $3
  $$;

create or replace function public.current_organization_id() returns uuid
  language sql stable
  as $$ select app.org() $$;
comment on function public.current_organization_id() is 'The organization that the caller acts in.';

create or replace function public.search_contacts(search_term text default null, tag text default null) returns setof public.contacts
  language sql stable
  as $$
    select c.* from app.find_contacts(search_term, tag, 2000) f join public.contacts c on c.organization_id = app.org() and c.id = f
     order by c.created_at desc, c.id desc
  $$;
comment on function public.search_contacts(text, text) is 'Contacts by name, phone, e-mail or tag, newest first.';

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

grant execute on function app.find_contacts(text, text, integer) to authenticated, service_role;
revoke all on function public.current_organization_id(), public.search_contacts(text, text), public.inbox_counts(),
  public.add_contact_tag(uuid, text), public.mark_conversation_read(uuid) from public, anon;
grant execute on function public.current_organization_id(), public.search_contacts(text, text), public.inbox_counts(),
  public.add_contact_tag(uuid, text), public.mark_conversation_read(uuid) to authenticated, service_role;
