-- What is thrown away by age, in batches small enough to disturb nobody (guarantees 20). Machinery only: none of it makes events.

-- One batch of each kind; returns how many rows of each went. Call again while one of them is full.
create or replace function app.delete_expired(batch integer)
  returns table (pending_statuses bigint, idempotency_keys bigint, webhook_failures bigint, account_holds bigint)
  language sql security definer set search_path = pg_catalog, pg_temp
  as $$
    with statuses as (
      delete from app.pending_statuses p where p.ctid = any (array(
        select ctid from app.pending_statuses where created_at < now() - interval '24 hours' limit batch for update skip locked)) returning 1
    ), keys as (
      delete from app.idempotency_keys k where k.ctid = any (array(
        select ctid from app.idempotency_keys where created_at < now() - interval '24 hours' limit batch for update skip locked)) returning 1
    ), failures as (
      delete from app.webhook_failures f where f.ctid = any (array(
        select ctid from app.webhook_failures where created_at < now() - interval '30 days' limit batch for update skip locked)) returning 1
    ), holds as (
      delete from app.account_holds h where h.ctid = any (array(
        select ctid from app.account_holds where until < now() - interval '1 hour' limit batch for update skip locked)) returning 1
    )
    select (select count(*) from statuses), (select count(*) from keys), (select count(*) from failures), (select count(*) from holds)
  $$;
