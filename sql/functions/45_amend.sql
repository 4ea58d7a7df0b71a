-- What a provider says later about something it said before: edits, deletions, changed numbers, opt-outs, template verdicts.
-- Batches of any organizations; rows are locked in key order and the stream locks come last, as everywhere.

-- One item: {n, organization_id, channel_account_id, target_id, kind: edit|delete, content, occurred_at}.
-- A deletion empties the message; an edit older than the newest one, or of a deleted message, changes nothing.
-- Returns the n of the items whose message is not stored (yet).
create or replace function app.amend_messages(items jsonb) returns setof integer
  language plpgsql security definer set search_path = pg_catalog, pg_temp
  as $$
  declare
    i record;
    touched uuid[] := '{}';
  begin
    perform from public.conversations c
     where (c.organization_id, c.id) in (
       select m.organization_id, m.conversation_id
         from jsonb_to_recordset(items) x (organization_id uuid, channel_account_id uuid, target_id text)
         join public.messages m on m.organization_id = x.organization_id and m.channel_account_id = x.channel_account_id
                               and m.provider_message_id = x.target_id)
     order by c.organization_id, c.id for update;
    for i in
      select x.*, m.id as message_id, m.conversation_id, m.conv_seq, m.message_type, m.deleted_at, m.edited_at
        from jsonb_to_recordset(items) x (n integer, organization_id uuid, channel_account_id uuid, target_id text, kind text,
                                          content text, occurred_at timestamptz)
        left join public.messages m on m.organization_id = x.organization_id and m.channel_account_id = x.channel_account_id
                                   and m.provider_message_id = x.target_id
       order by x.organization_id, m.id, x.occurred_at, x.n
    loop
      if i.message_id is null then
        return next i.n;
        continue;
      end if;
      update public.messages m
         set content = case i.kind when 'edit' then i.content end,
             metadata = case i.kind when 'edit' then m.metadata else '{}' end,
             edited_at = case i.kind when 'edit' then i.occurred_at else m.edited_at end,
             deleted_at = case i.kind when 'delete' then i.occurred_at end
       where m.organization_id = i.organization_id and m.id = i.message_id and m.deleted_at is null
         and (i.kind = 'delete' or m.edited_at is null or m.edited_at < i.occurred_at);
      if found then
        touched := touched || i.organization_id;
        update public.conversations c
           set last_message_preview = app.preview(case i.kind when 'edit' then i.content end, case i.kind when 'edit' then i.message_type else 'deleted' end)
         where c.organization_id = i.organization_id and c.id = i.conversation_id and c.msg_seq = i.conv_seq;
      end if;
    end loop;
    perform app.lock_streams(touched);
  end $$;

-- The contact that one of these identities belongs to, the best known first; NULL for a stranger.
create or replace function app.contact_by_identities(org uuid, schemes text[], ids text[]) returns uuid
  language sql stable security definer set search_path = pg_catalog, pg_temp
  as $$
    select x.contact_id from unnest(schemes, ids) with ordinality i (scheme, value, place)
      join public.contact_identities x on x.organization_id = org and x.scheme = i.scheme and x.value = i.value
     order by i.place limit 1
  $$;

-- A customer known by the first identities is now reachable by the second ones too (changed number).
create or replace function app.add_identities(org uuid, schemes text[], ids text[], new_schemes text[], new_ids text[]) returns void
  language plpgsql security definer set search_path = pg_catalog, pg_temp
  as $$
  declare
    contact uuid := app.contact_by_identities(org, schemes, ids);
    i record;
  begin
    if contact is not null then
      for i in select n.scheme, n.value from unnest(new_schemes, new_ids) n (scheme, value) order by 1, 2 loop
        perform app.add_identity(org, contact, i.scheme, i.value, null);
      end loop;
    end if;
  end $$;

-- The provider says that this customer wants no more marketing: their address is suppressed, their contact says so.
create or replace function app.note_opt_out(org uuid, schemes text[], ids text[], why text) returns void
  language plpgsql security definer set search_path = pg_catalog, pg_temp
  as $$
  begin
    insert into public.suppressions (organization_id, scheme, value, reason, source)
    select org, i.scheme, i.value, why, 'provider' from unnest(schemes, ids) i (scheme, value) order by 2, 3
    on conflict (organization_id, scheme, value) do nothing;
    update public.contacts c set opt_in_status = false
     where c.organization_id = org and c.id = app.contact_by_identities(org, schemes, ids) and c.opt_in_status is distinct from false;
  end $$;

-- The provider's verdict on a template, found by its id there, else by name and language.
create or replace function app.judge_template(org uuid, provider_template_id text, template_name text, template_language text, verdict text, why text)
  returns boolean
  language plpgsql security definer set search_path = pg_catalog, pg_temp
  as $$
  begin
    update public.templates t
       set status = verdict, provider_id = coalesce(t.provider_id, provider_template_id), rejection_reason = case verdict when 'REJECTED' then why end
     where t.organization_id = org
       and (t.provider_id = provider_template_id or (t.provider_id is null and t.name = template_name and t.language = template_language))
       and (t.status, t.rejection_reason) is distinct from (verdict, case verdict when 'REJECTED' then why end);
    return found;
  end $$;
