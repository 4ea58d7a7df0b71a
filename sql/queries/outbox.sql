-- What workers run to deliver messages. All of it is functions: this login reads no table.

-- name: claim_sends
-- Lease up to $3 due sends to worker $2 under token $1 for $4, of the accounts behind ($5, $6) (null: from the first). Two workers
-- calling at once never share one. A row without a message says behind which account the next claim goes on.
select organization_id, message_id, conversation_id, conv_seq, attempts, channel_account_id, channel_type, settings, secrets,
       on_ambiguous, message, identities, reply_to, last_inbound_at
  from app.claim_sends($1, $2, $3, $4, $5, $6);

-- name: mark_sending
-- Of the messages $2 held under token $1, note as being sent those with at least $3 of their lease left, and return them.
select app.mark_sending($1, $2, $3);

-- name: extend_leases
-- Extend what is held under the tokens $1 by $2 from now; rows still held by token, 0 for a token that lost all.
select t.token, app.extend_leases(t.token, $2) as held from unnest($1::uuid[]) t (token);

-- name: settle_sends
-- Write the results $2 of sends held under token $1; the messages settled. One whose lease moved on is left alone.
select app.settle_sends($1, $2);

-- name: reap_sends
-- Take over what dead workers left, at most $2 rows; a send whose outcome is unknown waits $1 for its correlator.
select released, unknown, failed from app.reap_sends($1, $2);

-- name: outbox_depth
-- Rows and age in seconds of the oldest one, by state.
select state, rows, oldest_s from app.outbox_depth();

-- name: delete_expired
-- Throw away at most $1 rows of each kind that is past its time.
select pending_statuses, idempotency_keys, webhook_failures, account_holds, sign_in_failures, sessions, refresh_tokens, links, mail, audit, events
  from app.delete_expired($1);
