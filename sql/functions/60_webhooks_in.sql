-- Whose webhook is this, and what to do with what cannot be applied. Part of the closed list that crosses tenants.

-- Every sealed verify token of a channel type, for the subscription handshake.
create or replace function app.verify_tokens(channel text)
  returns table (organization_id uuid, channel_account_id uuid, ciphertext text)
  language sql stable security definer set search_path = pg_catalog, pg_temp
  as $$
    select s.organization_id, s.owner_id, s.ciphertext from app.secrets s
      join app.webhook_routes r on r.organization_id = s.organization_id and r.channel_account_id = s.owner_id and r.type = channel
     where s.owner_table = 'channel_accounts' and s.name = 'verify_token'
  $$;

-- Keep a signed delivery that could not be applied; the same one again only counts.
create or replace function app.keep_failure(org uuid, channel text, account uuid, why text, error text, headers jsonb, body bytea) returns uuid
  language sql security definer set search_path = pg_catalog, pg_temp
  as $$
    insert into app.webhook_failures (organization_id, channel, channel_account_id, reason, error, headers, body, sha256)
    values (org, channel, account, why, error, headers, body, sha256(body))
    on conflict (organization_id, channel, sha256, reason) do update set attempts = app.webhook_failures.attempts
    returning id
  $$;

-- Due failures, leased under a token: 5 s … 1 h, ten tries, then dead (shown until someone acts). One whose worker died ten times is
-- dead as well: it may be what they die of.
create or replace function app.claim_failures(token uuid, worker text, batch integer, lease interval)
  returns table (id uuid, organization_id uuid, channel text, channel_account_id uuid, headers jsonb, body bytea, attempts integer)
  language sql security definer set search_path = pg_catalog, pg_temp
  as $$
    with spent as (
      update app.webhook_failures f set state = 'dead', lease_token = null, lease_until = null, claimed_by = null,
             last_error = coalesce(f.last_error, 'every worker that looked at it was lost')
       where f.state = 'running' and f.lease_until < clock_timestamp() and f.attempts >= 10
    ), ready as (
      select f.id from app.webhook_failures f
       where f.attempts < 10
         and ((f.state = 'available' and f.due_at <= clock_timestamp()) or (f.state = 'running' and f.lease_until < clock_timestamp()))
       order by f.due_at, f.id limit batch for update skip locked
    )
    update app.webhook_failures f set state = 'running', lease_token = token, lease_until = clock_timestamp() + lease, claimed_by = worker, attempts = f.attempts + 1
      from ready where f.id = ready.id
    returning f.id, f.organization_id, f.channel, f.channel_account_id, f.headers, f.body, f.attempts
  $$;

-- What an operator sees of everybody's: those that belong to no organization first, for nobody else can see them.
create or replace function app.list_all_failures(max_rows integer)
  returns table (id uuid, organization_id uuid, channel text, channel_account_id uuid, reason text, error text, state text, attempts integer, due_at timestamptz, last_error text, created_at timestamptz, bytes integer)
  language sql stable security definer set search_path = pg_catalog, pg_temp
  as $$
    select f.id, f.organization_id, f.channel, f.channel_account_id, f.reason, f.error, f.state, f.attempts, f.due_at, f.last_error, f.created_at, octet_length(f.body)
      from app.webhook_failures f order by f.organization_id is not null, f.created_at desc limit max_rows
  $$;

-- How many are kept, how many of them by nobody, and since when: for `hub doctor`.
create or replace function app.count_failures() returns table (kept bigint, unowned bigint, dead bigint, oldest timestamptz)
  language sql stable security definer set search_path = pg_catalog, pg_temp
  as $$
    select count(*), count(*) filter (where f.organization_id is null), count(*) filter (where f.state = 'dead'), min(f.created_at)
      from app.webhook_failures f
  $$;

create or replace function app.settle_failure(token uuid, failure uuid, applied boolean, why text, retry_in interval) returns void
  language plpgsql security definer set search_path = pg_catalog, pg_temp
  as $$
  begin
    if applied then
      delete from app.webhook_failures f where f.id = failure and f.lease_token = token;
    else
      update app.webhook_failures f
         set state = case when f.attempts >= 10 then 'dead' else 'available' end, lease_token = null, lease_until = null, claimed_by = null,
             last_error = why, due_at = clock_timestamp() + retry_in
       where f.id = failure and f.lease_token = token;
    end if;
  end $$;

-- Accounts heard from; at most one write a minute each, so that ingest never queues on an account's row. One whose token was
-- refused may still be heard from: that says nothing about sending.
create or replace function app.heard_from(accounts uuid[]) returns void
  language sql security definer set search_path = pg_catalog, pg_temp
  as $$
    update public.channel_accounts a set last_inbound_at = now(), health = case a.health when 'error' then 'error' else 'ok' end
      from app.webhook_routes r
     where r.channel_account_id = any (accounts) and a.organization_id = r.organization_id and a.id = r.channel_account_id
       and (a.last_inbound_at is null or a.last_inbound_at < now() - interval '1 minute' or a.health = 'unknown')
  $$;
