-- name: begin_idempotent
-- Whether principal $1 may go on under key $2 with a body hashing to $3: new, busy, other_body, or done with the first answer.
select answer, status, body from app.begin_idempotent($1, $2, $3);

-- name: finish_idempotent
-- Keep the answer (status $4, body $5) of principal $1's request under key $2 with body hash $3.
select app.finish_idempotent($1, $2, $3, $4, $5);

-- name: record_message
-- Record the message $1 (app.record_message says its members); gives its place.
select id, conversation_id, contact_id from app.record_message($1::jsonb);

-- name: conversation_for_send
-- The conversation in which $1 is sent through channel $2.
select conversation_id, contact_id from app.conversation_for_send($1::jsonb, $2);

-- name: message_outcome
-- How far message $1 has come.
select status, provider_message_id, failure_code, failure_reason from public.messages where id = $1;

-- name: list_failures
-- The newest $2 deliveries of organization $1 that could not be applied.
select id, channel, channel_account_id, reason, error, state, attempts, due_at, last_error, created_at, bytes from app.list_failures($1, $2);

-- name: organization_summary
-- Organization $1 as list-organizations shows it.
select id, name, suit_id, has_appgain_credentials from app.organization_summary($1);

-- name: pull_state
-- Where the log of organization $1 stands: epoch, head, and the oldest seq that is kept (events stay 400 days).
select app.epoch() as epoch, (select h.seq from app.heads(array[$1::uuid]) h) as head, app.resume_floor($1, interval '400 days') as floor;

-- name: pull_events
-- Up to $3 events of organization $1 after $2, as frames, in order.
select seq, table_name, frame from app.read_events($1, $2, $3);
