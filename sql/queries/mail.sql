-- Mails: written down by whoever wants one, claimed and settled by workers.

-- name: enqueue_mail
-- Write down mail $1 of organization $2 (or null) to address $3 from template $4, sealed text $5, on condition $6 (or null), in place of
-- the one waiting under key $7 (or null).
select app.enqueue_mail($1, $2, $3, $4, $5, $6, $7);

-- name: drop_mail
-- Take back the mail of organization $1 that waits under key $2.
select app.drop_mail($1, $2);

-- name: claim_mail
-- Lease up to $3 due mails to worker $2 under token $1 for $4.
select id, organization_id, recipient, template, payload, attempts, locale, organization from app.claim_mail($1, $2, $3, $4);

-- name: extend_mail
-- Extend what is held under the tokens $1 by $2 from now; rows still held by token, 0 for a token that lost all.
select t.token, app.extend_mail(t.token, $2) as held from unnest($1::uuid[]) t (token);

-- name: settle_mail
-- What became of mail $1 held under token $2: outcome $3, error $4 (or null), seconds to wait $5.
select app.settle_mail($1, $2, $3, $4, $5);

-- name: reap_mail
-- Take over at most $1 mails of dead workers, and throw away as many that nobody wants.
select released, dead, unwanted from app.reap_mail($1);

-- name: waiting_mail
-- At most $2 mails that wait for organization $1 or its members, newest first.
select id, organization_id, recipient, template, payload, state, attempts, last_error, created_at, locale, organization
  from app.waiting_mail($1, $2);

-- name: all_mail
-- Every mail that waits, or the one with id $1 (null: all), newest first. For the operator (hub_owner) alone.
select m.id, m.organization_id, m.recipient, m.template, m.payload, m.state, m.attempts, m.last_error, m.created_at,
       coalesce((select u.user_metadata ->> 'locale' from auth.users u where u.email = m.recipient), o.locale, 'en') as locale,
       o.name as organization
  from app.mail_outbox m left join public.organizations o on o.id = m.organization_id
 where ($1::uuid is null or m.id = $1) and app.is_wanted(m.recipient, m.only_if)
 order by m.created_at desc, m.id desc;

-- name: retry_mail
-- Send the given-up mail $1 (null: all of them) again; how many. For the operator (hub_owner) alone.
with again as (
  update app.mail_outbox set state = 'available', attempts = 0, lost_leases = 0, due_at = now()
   where state = 'dead' and ($1::uuid is null or id = $1) returning 1)
select count(*) from again;
