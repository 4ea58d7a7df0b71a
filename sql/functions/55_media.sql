-- Files of messages. In: what a provider announces is noted as pending and fetched by a worker. Out: what a member uploaded is
-- given to the provider before the message that shows it is sent. Both end as a row of media_files and as an element of
-- messages.metadata.media, so that the ordinary events tell open inboxes.
--
--     {kind, file_id, state: pending | stored | failed | expired, mime, bytes, sha256, filename, voice, code, reason}

-- A stored message that came with media: each gets its id here, before the row is written and its event made. `ref` and `url` are
-- the provider's business: they go to the job.
create or replace function app.announce_media() returns trigger
  language plpgsql security definer set search_path = pg_catalog, pg_temp
  as $$
  begin
    if jsonb_typeof(new.metadata -> 'media') = 'array' then
      new.metadata := jsonb_set(new.metadata, '{media}', coalesce(
        (select jsonb_agg(case when i.item ? 'ref' or i.item ? 'url'
                               then i.item || jsonb_build_object('file_id', uuidv7(), 'state', 'pending') else i.item end order by i.n)
           from jsonb_array_elements(new.metadata -> 'media') with ordinality i (item, n)), '[]'));
    end if;
    return new;
  end $$;

-- … and, once the message is there, its file and the work of fetching it, in the same transaction.
create or replace function app.enqueue_media() returns trigger
  language plpgsql security definer set search_path = pg_catalog, pg_temp
  as $$
  begin
    if jsonb_typeof(new.metadata -> 'media') = 'array' then
      with announced as (
        select (i.item ->> 'file_id')::uuid as id, i.item from jsonb_array_elements(new.metadata -> 'media') i (item)
         where i.item ->> 'state' = 'pending'
      ), noted as (
        insert into public.media_files (organization_id, id, message_id, file_name, mime_type, provider_ref)
        select new.organization_id, a.id, new.id, a.item ->> 'filename', a.item ->> 'mime', a.item ->> 'ref' from announced a
      )
      insert into app.jobs (organization_id, kind, key, payload)
      select new.organization_id, 'media', a.id::text, jsonb_strip_nulls(jsonb_build_object(
               'message_id', new.id, 'ref', a.item -> 'ref', 'url', a.item -> 'url', 'sha256', a.item -> 'sha256')) from announced a;
    end if;
    return null;
  end $$;

-- WHEN is evaluated without a call, so that messages without media pay next to nothing; hub_writer is app.ingest_many (90_triggers.sql).
create or replace trigger announce_media before insert on public.messages for each row
  when (new.metadata ? 'media' and new.provider_message_id is not null and current_user = 'hub_writer') execute function app.announce_media();
create or replace trigger enqueue_media after insert on public.messages for each row
  when (new.metadata ? 'media' and new.provider_message_id is not null and current_user = 'hub_writer') execute function app.enqueue_media();

-- A deleted message leaves no files. The bytes go later, when no row names them (unknown_media).
create or replace function app.bury_media() returns trigger
  language plpgsql security definer set search_path = pg_catalog, pg_temp
  as $$
  begin
    delete from public.media_files f where f.organization_id = new.organization_id and f.message_id = new.id;
    return null;
  end $$;
create or replace trigger bury_media after update of deleted_at on public.messages for each row
  when (new.deleted_at is not null and old.deleted_at is null) execute function app.bury_media();

-- What is gone, with its message or its customer, is not fetched any more.
create or replace function app.drop_media_job() returns trigger
  language plpgsql security definer set search_path = pg_catalog, pg_temp
  as $$
  begin
    delete from app.jobs j where j.organization_id = old.organization_id and j.kind = 'media' and j.key = old.id::text;
    return null;
  end $$;
create or replace trigger drop_job after delete on public.media_files for each row execute function app.drop_media_job();

-- Claim up to `batch` due files for `worker` under `token`, leased for `lease`: each organization gets its first before any gets its
-- second, the oldest first, at most 8 run per organization. Returns everything that fetching needs.
-- One claim looks at 64 organizations after `behind` (null: from the first); when there may be more, a last row without a file names
-- the one from which the next claim goes on.
drop function if exists app.claim_media(uuid, text, integer, interval);
create or replace function app.claim_media(token uuid, worker text, batch integer, lease interval, behind uuid)
  returns table (organization_id uuid, file_id uuid, attempts integer, payload jsonb, channel_account_id uuid, channel_type text, settings jsonb, secrets jsonb,
                 file_name text, asked_at timestamptz)
  language sql security definer set search_path = pg_catalog, pg_temp
  set enable_seqscan = off set enable_bitmapscan = off -- whatever the statistics of a queue say, its index has the order
  as $$
    with recursive org as (   -- one index probe an organization
      (select j.organization_id as id, 1 as n from app.jobs j
        where j.kind = 'media' and j.state = 'available' and j.organization_id > coalesce(behind, '00000000-0000-0000-0000-000000000000') order by 1 limit 1)
      union all
      select x.id, o.n + 1 from org o cross join lateral (
        select j.organization_id as id from app.jobs j where j.kind = 'media' and j.state = 'available' and j.organization_id > o.id order by 1 limit 1) x
       where o.n < 64
    ), busy as materialized (
      select j.organization_id, count(*) as n from app.jobs j where j.state = 'running' and j.kind = 'media' group by 1
    ), due as (
      select d.organization_id, d.id, d.due_at, row_number() over (partition by d.organization_id order by d.due_at, d.id) + coalesce(y.n, 0) as place
        from org o left join busy y on y.organization_id = o.id cross join lateral (
          select j.organization_id, j.id, j.due_at from app.jobs j
           where j.kind = 'media' and j.state = 'available' and j.organization_id = o.id and j.due_at <= clock_timestamp()
           order by j.due_at, j.id limit 8) d
    ), locked as (
      select j.organization_id, j.id from app.jobs j
        join (select d.organization_id, d.id from due d where d.place <= 8 order by d.place, d.due_at, d.id limit batch) c using (organization_id, id)
       where j.state = 'available' order by j.organization_id, j.id for update of j skip locked
    ), claimed as (
      update app.jobs j set state = 'running', lease_token = token, lease_until = clock_timestamp() + lease, claimed_by = worker, attempts = j.attempts + 1
        from locked l where j.organization_id = l.organization_id and j.id = l.id
      returning j.*
    )
    select c.organization_id, f.id, c.attempts, c.payload, a.id, a.type, a.settings,
           (select jsonb_object_agg(s.name, s.ciphertext) from app.secrets s where s.organization_id = c.organization_id and s.owner_table = 'channel_accounts' and s.owner_id = a.id),
           f.file_name, f.created_at
      from claimed c
      join public.media_files f on f.organization_id = c.organization_id and f.id = c.key::uuid
      left join public.messages m on m.organization_id = c.organization_id and m.id = f.message_id
      left join public.channel_accounts a on a.organization_id = c.organization_id and a.id = m.channel_account_id
    union all
    select o.id, null, null, null, null, null, null, null, null, null from org o where o.n = 64
  $$;

-- One heartbeat for the files that a worker process holds under `token`. Returns how many it still holds.
create or replace function app.extend_media(token uuid, lease interval) returns integer
  language sql security definer set search_path = pg_catalog, pg_temp
  as $$
    with kept as (update app.jobs j set lease_until = clock_timestamp() + lease
                   where j.lease_token = token and j.state = 'running' and j.lease_until > clock_timestamp() returning 1)
    select count(*)::integer from kept
  $$;

-- Bytes under a storage key may appear and go only under this lock: whoever stores them holds it from before they stand in their
-- place until the row that names them is committed, whoever throws them away while no row does.
create or replace function app.lock_media(org uuid, storage_key text) returns void
  language sql volatile set search_path = pg_catalog, pg_temp
  as $$ select pg_advisory_xact_lock(hashtextextended('media:' || org || ':' || storage_key, 0)) $$;

-- The message shows what became of its file. Deferred triggers make the event.
create or replace function app.show_media(f public.media_files, code text) returns void
  language plpgsql security definer set search_path = pg_catalog, pg_temp
  as $$
  declare
    m public.messages;
    item jsonb;
    place integer;
  begin
    select * into m from public.messages where organization_id = f.organization_id and id = f.message_id for no key update;
    if not found or m.deleted_at is not null or jsonb_typeof(m.metadata -> 'media') is distinct from 'array' then
      return;
    end if;
    select i.n - 1, i.item into place, item from jsonb_array_elements(m.metadata -> 'media') with ordinality i (item, n)
     where i.item ->> 'file_id' = f.id::text;
    if place is not null then
      update public.messages
         set metadata = jsonb_set(metadata, array['media', place::text], jsonb_strip_nulls((item - '{ref,url,code,reason}'::text[]) || jsonb_build_object(
               'state', f.state, 'mime', f.mime_type, 'bytes', f.byte_size, 'sha256', f.sha256, 'filename', f.file_name, 'code', code, 'reason', f.error)))
       where organization_id = m.organization_id and id = m.id;
    end if;
  end $$;

-- Settle one claimed file: {outcome: stored | expired | failed | retry | throttled | released, mime, bytes, sha256, storage_key, file_name,
-- code, reason, retry_in_s, dead}. Fenced: false when the lease moved on (or the message is gone), and nothing is written.
-- `dead`: the tries are spent; the job stays for whoever looks after the hub.
create or replace function app.settle_media(token uuid, org uuid, file uuid, result jsonb) returns boolean
  language plpgsql security definer set search_path = pg_catalog, pg_temp
  as $$
  declare
    f public.media_files;
    j app.jobs;
  begin
    -- message, file, job: the order of bury_media
    perform from public.messages m where m.organization_id = org and m.id = (select x.message_id from public.media_files x where x.organization_id = org and x.id = file)
        for no key update;
    select * into j from app.jobs where organization_id = org and kind = 'media' and key = file::text and lease_token = token and state = 'running' for update;
    if not found then
      return false;
    end if;
    if result ->> 'outcome' in ('retry', 'throttled', 'released') then
      update app.jobs
         set state = 'available', lease_token = null, lease_until = null, claimed_by = null, last_error = coalesce(result ->> 'reason', last_error),
             attempts = case result ->> 'outcome' when 'retry' then attempts else attempts - 1 end,
             due_at = clock_timestamp() + make_interval(secs => coalesce((result ->> 'retry_in_s')::double precision, 0))
       where organization_id = org and id = j.id;
      return true;
    end if;
    if (result ->> 'dead')::boolean then
      update app.jobs set state = 'dead', lease_token = null, lease_until = null, claimed_by = null, last_error = result ->> 'reason', due_at = clock_timestamp()
       where organization_id = org and id = j.id;
    else
      delete from app.jobs where organization_id = org and id = j.id;
    end if;
    update public.media_files
       set state = result ->> 'outcome', error = result ->> 'reason', mime_type = coalesce(result ->> 'mime', mime_type), file_name = coalesce(result ->> 'file_name', file_name),
           byte_size = (result ->> 'bytes')::bigint, sha256 = result ->> 'sha256', storage_key = result ->> 'storage_key'
     where organization_id = org and id = file
    returning * into f;
    if found then
      perform app.show_media(f, result ->> 'code');
    end if;
    return true;
  end $$;

-- Files whose worker died: once more, three times in all. Returns (available again, given up).
create or replace function app.reap_media(max_rows integer) returns table (released integer, failed integer)
  language plpgsql security definer set search_path = pg_catalog, pg_temp
  as $$
  declare
    j app.jobs;
    f public.media_files;
  begin
    released := 0; failed := 0;
    for j in
      select * from app.jobs where kind = 'media' and state = 'running' and lease_until < clock_timestamp() order by organization_id, id limit max_rows
    loop
      perform from public.messages m
        where m.organization_id = j.organization_id and m.id = (select x.message_id from public.media_files x where x.organization_id = j.organization_id and x.id = j.key::uuid)
          for no key update skip locked;
      if not found then
        continue;                                        -- somebody works on it, or it is gone: the next round tells
      end if;
      perform from app.jobs x where x.organization_id = j.organization_id and x.id = j.id and x.lease_token = j.lease_token and x.lease_until < clock_timestamp() for update;
      if not found then
        continue;
      end if;
      update app.jobs
         set state = case when j.lost_leases < 2 then 'available' else 'dead' end, lease_token = null, lease_until = null, claimed_by = null,
             lost_leases = lost_leases + 1, last_error = 'worker lost while fetching', due_at = clock_timestamp()
       where organization_id = j.organization_id and id = j.id;
      if j.lost_leases < 2 then
        released := released + 1;
      else
        update public.media_files set state = 'failed', error = 'Three workers died over this file.'
         where organization_id = j.organization_id and id = j.key::uuid returning * into f;
        if found then
          perform app.show_media(f, 'lost_leases');
        end if;
        failed := failed + 1;
      end if;
    end loop;
    return next;
  end $$;

-- Keep a member's upload, inside his transaction and under app.lock_media. Returns its id.
create or replace function app.keep_upload(new_key text, new_sha256 text, new_bytes bigint, new_mime text, new_name text) returns uuid
  language plpgsql security definer set search_path = pg_catalog, pg_temp
  as $$
  declare
    made uuid;
  begin
    if app.org() is null or not app.may_any('{can_send_messages}') then
      raise exception using errcode = '42501', message = 'Uploading needs can_send_messages';
    end if;
    insert into public.media_files (organization_id, file_name, mime_type, byte_size, sha256, storage_key, state)
    values (app.org(), new_name, new_mime, new_bytes, new_sha256, new_key, 'stored') returning id into made;
    return made;
  end $$;

-- The file that a new message of the caller shows: `file` itself, or, when another message shows that already, a row of its own with
-- the same bytes, so that deleting one message leaves the other whole. No row when the caller's organization has no such file.
create or replace function app.take_media(file uuid) returns setof public.media_files
  language plpgsql security definer set search_path = pg_catalog, pg_temp
  as $$
  declare
    f public.media_files;
  begin
    if app.org() is null or not app.may_any('{can_send_messages}') then
      raise exception using errcode = '42501', message = 'Sending files needs can_send_messages';
    end if;
    select * into f from public.media_files where organization_id = app.org() and id = file for no key update;
    if not found then
      return;
    end if;
    if f.message_id is not null and f.state = 'stored' then
      insert into public.media_files (organization_id, file_name, mime_type, byte_size, sha256, storage_key, state)
      values (f.organization_id, f.file_name, f.mime_type, f.byte_size, f.sha256, f.storage_key, f.state) returning * into f;
    end if;
    return next f;
  end $$;

-- A message that shows an upload owns it from then on, whoever wrote the message.
create or replace function app.own_media() returns trigger
  language plpgsql security definer set search_path = pg_catalog, pg_temp
  as $$
  begin
    update public.media_files f set message_id = new.id
      from jsonb_array_elements(case jsonb_typeof(new.metadata -> 'media') when 'array' then new.metadata -> 'media' else '[]' end) i (item)
     where f.organization_id = new.organization_id and f.message_id is null
       and f.id = case when i.item ->> 'file_id' ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' then (i.item ->> 'file_id')::uuid end;
    return null;
  end $$;
create or replace trigger own_media after insert on public.messages for each row
  when (new.metadata ? 'media' and current_user <> 'hub_writer') execute function app.own_media();

-- What a send of `file` through `account` needs: where the bytes are, and the provider's id if it has them already.
create or replace function app.media_for_send(org uuid, file uuid, account uuid)
  returns table (storage_key text, mime_type text, byte_size bigint, sha256 text, file_name text, provider_id text)
  language sql stable security definer set search_path = pg_catalog, pg_temp
  as $$
    select f.storage_key, f.mime_type, f.byte_size, f.sha256, f.file_name,
           (select u.provider_id from app.media_uploads u
             where u.organization_id = org and u.file_id = file and u.channel_account_id = account and u.expires_at > clock_timestamp())
      from public.media_files f where f.organization_id = org and f.id = file and f.state = 'stored'
  $$;

-- The provider of `account` keeps `file` under an id for so long.
create or replace function app.keep_provider_media(org uuid, file uuid, account uuid, id text, lasts interval) returns void
  language sql security definer set search_path = pg_catalog, pg_temp
  as $$
    insert into app.media_uploads (organization_id, file_id, channel_account_id, provider_id, expires_at) values (org, file, account, id, clock_timestamp() + lasts)
    on conflict (organization_id, file_id, channel_account_id) do update set provider_id = excluded.provider_id, expires_at = excluded.expires_at
  $$;

-- It says that it does not know that id (any more).
create or replace function app.forget_provider_media(org uuid, file uuid, account uuid) returns void
  language sql security definer set search_path = pg_catalog, pg_temp
  as $$ delete from app.media_uploads where organization_id = org and file_id = file and channel_account_id = account $$;

-- Throw away up to `batch` uploads that no message took within a day, and jobs that were given up 30 days ago. Returns how many.
create or replace function app.delete_unused_media(batch integer) returns bigint
  language sql security definer set search_path = pg_catalog, pg_temp
  as $$
    with unused as (
      delete from public.media_files f where f.ctid = any (array(
        select ctid from public.media_files where message_id is null and created_at < now() - interval '24 hours' limit batch for update skip locked)) returning 1
    ), dead as (
      delete from app.jobs j where j.ctid = any (array(
        select ctid from app.jobs where kind = 'media' and state = 'dead' and due_at < now() - interval '30 days' limit batch for update skip locked)) returning 1
    )
    select (select count(*) from unused) + (select count(*) from dead)
  $$;

-- Of these keys of an organization's bytes, those that no row names.
create or replace function app.unknown_media(org uuid, keys text[]) returns setof text
  language sql volatile security definer set search_path = pg_catalog, pg_temp
  as $$
    select k from unnest(keys) k where not exists (select from public.media_files f where f.organization_id = org and f.storage_key = k)
  $$;

-- Depth and age of the files to fetch, for the metrics page.
create or replace function app.media_depth() returns table (state text, rows bigint, oldest_s double precision)
  language sql stable security definer set search_path = pg_catalog, pg_temp
  as $$
    select j.state, count(*), extract(epoch from clock_timestamp() - min(j.due_at))::double precision from app.jobs j where j.kind = 'media' group by j.state
  $$;

grant execute on function app.keep_upload(text, text, bigint, text, text), app.take_media(uuid), app.lock_media(uuid, text) to authenticated;
