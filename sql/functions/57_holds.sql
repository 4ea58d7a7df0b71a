-- An account whose settings or secrets changed is worth another try at once: a new token, a repaired number.

-- Ends the account's hold and makes what waits for a retry due now; messages scheduled for later stay where they are.
create or replace function app.release_account(org uuid, account uuid) returns void
  language sql security definer set search_path = pg_catalog, pg_temp
  as $$
    delete from app.account_holds h where h.organization_id = org and h.channel_account_id = account;
    update app.outbox o set due_at = clock_timestamp()
     where o.organization_id = org and o.channel_account_id = account and o.state = 'available' and o.due_at > clock_timestamp()
       and not exists (select from public.messages m where m.organization_id = o.organization_id and m.id = o.message_id and m.send_at > clock_timestamp());
  $$;

create or replace function app.account_changed() returns trigger
  language plpgsql security definer set search_path = pg_catalog, pg_temp
  as $$ begin perform app.release_account(new.organization_id, new.id); return null; end $$;

create or replace function app.account_secret_changed() returns trigger
  language plpgsql security definer set search_path = pg_catalog, pg_temp
  as $$ begin perform app.release_account(new.organization_id, new.owner_id); return null; end $$;

create or replace trigger release after update of settings, is_active on public.channel_accounts for each row
  when ((old.settings, old.is_active) is distinct from (new.settings, new.is_active)) execute function app.account_changed();
create or replace trigger release after insert or update on app.secrets for each row
  when (new.owner_table = 'channel_accounts') execute function app.account_secret_changed();
