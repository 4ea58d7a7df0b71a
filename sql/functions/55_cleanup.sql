-- What is thrown away by age, in batches small enough to disturb nobody (guarantees 20). Machinery only: none of it makes events.

-- One batch of each kind; returns how many rows of each went. Call again while one of them is full.
--   sign_in_failures   a day: delays look back an hour, "once every …" less than that
--   sessions           30 days after they ended, with their refresh tokens
--   refresh_tokens     30 days after use, when the next one was used as well: the parent of the newest may still be asked for
--   links              a day after they were asked for, when they have run out: until then they slow down who asks again
--   mail               30 days: nobody wants it later
--   audit              400 days
--   events             400 days, the oldest first, so that each log stays without gaps; never an organization's newest, which says
--                      where its log goes on
drop function if exists app.delete_expired(integer);
create function app.delete_expired(batch integer)
  returns table (pending_statuses bigint, idempotency_keys bigint, webhook_failures bigint, account_holds bigint,
                 sign_in_failures bigint, sessions bigint, refresh_tokens bigint, links bigint, mail bigint, audit bigint, events bigint)
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
    ), attempts as (
      delete from auth.sign_in_failures f where f.ctid = any (array(
        select ctid from auth.sign_in_failures where last_at < now() - interval '1 day' limit batch for update skip locked)) returning 1
    ), ended as (
      delete from auth.sessions s where s.id = any (array(
        select id from auth.sessions where revoked_at < now() - interval '30 days' limit batch for update skip locked)) returning 1
    ), tokens as (
      delete from auth.refresh_tokens r where r.id = any (array(
        select t.id from auth.refresh_tokens t join auth.sessions s on s.id = t.session_id and s.revoked_at is null
         where t.used_at < now() - interval '30 days'
           and exists (select from auth.refresh_tokens c where c.parent_id = t.id and c.used_at is not null)
         limit batch for update of t skip locked)) returning 1
    ), links as (
      delete from auth.one_time_tokens t where t.ctid = any (array(
        select ctid from auth.one_time_tokens where created_at < now() - interval '24 hours' and expires_at < now() limit batch for update skip locked)) returning 1
    ), mails as (
      delete from app.mail_outbox m where m.id = any (array(
        select id from app.mail_outbox where state <> 'running' and created_at < now() - interval '30 days' limit batch for update skip locked)) returning 1
    ), audits as (   -- an index probe an organization; whoever else deletes here is refused
      delete from public.audit_log g using (
        select x.organization_id, x.id from public.organizations o
         cross join lateral (select a.organization_id, a.id from public.audit_log a where a.organization_id = o.id and a.at < now() - interval '400 days' limit batch) x
         limit batch) gone
       where g.organization_id = gone.organization_id and g.id = gone.id returning 1
    ), logs as (   -- whose oldest event is past its time: one look at the key each
      select o.id, (select max(e.seq) from app.events e where e.organization_id = o.id) as head
        from public.organizations o
        cross join lateral (select e.at from app.events e where e.organization_id = o.id order by e.seq limit 1) f
       where f.at < now() - interval '400 days'
    ), past as (
      delete from app.events e using (
        select l.id, x.seq from logs l
         cross join lateral (select y.seq, y.at from app.events y where y.organization_id = l.id and y.seq < l.head order by y.seq limit batch) x
         where x.at < now() - interval '400 days' limit batch) gone
       where e.organization_id = gone.id and e.seq = gone.seq returning 1
    )
    select (select count(*) from statuses), (select count(*) from keys), (select count(*) from failures), (select count(*) from holds),
           (select count(*) from attempts), (select count(*) from ended), (select count(*) from tokens), (select count(*) from links), (select count(*) from mails),
           (select count(*) from audits), (select count(*) from past)
  $$;
