-- What hub and workers run to store what providers deliver. All of it is functions: this login reads no table.

-- name: ingest_many
-- Store the messages $1 (array of app.ingest_item) in one transaction; the events it wrote, in order. Running it again changes nothing.
select organization_id, seq, table_name, frame from app.ingest_many($1);

-- name: apply_statuses
-- Raise message statuses by the reports $1; what the change events say comes as notices. Running it again changes nothing.
select app.apply_statuses($1);

-- name: apply_parked
-- Apply the reports that came for provider ids $3 of organization $1's account $2 before they were stored.
select app.apply_parked($1, $2, $3);

-- name: amend_messages
-- Apply edits and deletions $1; the n of those whose message is not stored.
select app.amend_messages($1);

-- name: add_identities
-- In organization $1, whoever is known by schemes $2 with values $3 is also known by schemes $4 with values $5.
select app.add_identities($1, $2, $3, $4, $5);

-- name: note_opt_out
-- In organization $1, whoever is known by schemes $2 with values $3 wants no more marketing; $4 says why.
select app.note_opt_out($1, $2, $3, $4);

-- name: judge_template
-- In organization $1, the template with provider id $2, else name $3 and language $4, is now $5, because $6.
select app.judge_template($1, $2, $3, $4, $5, $6);

-- name: webhook_accounts
-- Accounts of channel $1 by provider keys $2, owners' keys $3 or own ids $4, the oldest first.
select organization_id, channel_account_id, account_key, owner_key, secrets from app.webhook_accounts($1, $2, $3, $4);

-- name: verify_tokens
-- Sealed verify tokens of all accounts of channel $1.
select organization_id, channel_account_id, ciphertext from app.verify_tokens($1);

-- name: keep_failure
-- Keep a signed delivery of organization $1 (or null) on channel $2, account $3, for reason $4 with error $5, headers $6 and body $7.
select app.keep_failure($1, $2, $3, $4, $5, $6, $7);

-- name: heard_from
-- Note that the accounts $1 were heard from.
select app.heard_from($1);

-- name: report_account
-- Organization $1's account $2 is now $3 (ok, degraded, error), because $4.
select app.report_account($1, $2, $3, $4);

-- name: claim_failures
-- Lease up to $3 due failures to worker $2 under token $1 for $4.
select id, organization_id, channel, channel_account_id, headers, body, attempts from app.claim_failures($1, $2, $3, $4);

-- name: settle_failure
-- Failure $2, held under token $1: applied ($3) and gone, or, because $4, due again after $5.
select app.settle_failure($1, $2, $3, $4, $5);

-- name: list_all_failures
-- The newest $1 kept deliveries of the deployment, those of no organization first.
select id, organization_id, channel, channel_account_id, reason, error, state, attempts, due_at, last_error, created_at, bytes from app.list_all_failures($1);

-- name: count_failures
-- Kept deliveries of the deployment: all, those of no organization, those given up, and since when.
select kept, unowned, dead, oldest from app.count_failures();
