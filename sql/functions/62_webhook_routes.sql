-- Whose delivery is this: part of the closed list that crosses tenants.

-- Accounts of a channel by the provider's keys for them (phone_number_id), by their owners' keys (waba_id) or by their own ids, with
-- their sealed secrets, the oldest first: when two organizations claim one number, the first one has it.
create or replace function app.webhook_accounts(channel text, keys text[], owners text[], accounts uuid[])
  returns table (organization_id uuid, channel_account_id uuid, account_key text, owner_key text, secrets jsonb)
  language sql stable security definer set search_path = pg_catalog, pg_temp
  as $$
    with found as (
      select r.organization_id, r.channel_account_id from app.webhook_routes r where r.type = channel and r.account_key = any (keys)
      union
      select r.organization_id, r.channel_account_id from app.webhook_routes r where r.type = channel and r.channel_account_id = any (accounts)
      union
      select r.organization_id, r.channel_account_id
        from app.webhook_routes r
        join public.channel_accounts a on a.organization_id = r.organization_id and a.id = r.channel_account_id
       where cardinality(owners) > 0 and r.type = channel and a.settings ->> 'waba_id' = any (owners)
    )
    select r.organization_id, r.channel_account_id, r.account_key, a.settings ->> 'waba_id',
           (select jsonb_object_agg(s.name, s.ciphertext) from app.secrets s
             where s.organization_id = r.organization_id and s.owner_table = 'channel_accounts' and s.owner_id = r.channel_account_id)
      from found f
      join app.webhook_routes r on r.organization_id = f.organization_id and r.channel_account_id = f.channel_account_id
      join public.channel_accounts a on a.organization_id = f.organization_id and a.id = f.channel_account_id
     where a.is_active
     order by a.created_at, a.id
  $$;
