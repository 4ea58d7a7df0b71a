-- Files of messages. What workers run is functions: their login reads no table.

-- name: claim_media
-- Lease up to $3 due files to worker $2 under token $1 for $4, of organizations after $5. Two workers calling at once never share one.
select organization_id, file_id, attempts, payload, channel_account_id, channel_type, settings, secrets, file_name, asked_at from app.claim_media($1, $2, $3, $4, $5);

-- name: extend_media
-- Extend what is held under the tokens $1 by $2 from now; files still held by token, 0 for a token that lost all.
select t.token, app.extend_media(t.token, $2) as held from unnest($1::uuid[]) t (token);

-- name: lock_media
-- Hold organization $1's bytes under key $2 until the end of the transaction.
select app.lock_media($1, $2);

-- name: settle_media
-- Write the result $4 of file $3 of organization $2, held under token $1; false when the lease moved on.
select app.settle_media($1, $2, $3, $4);

-- name: reap_media
-- Take over at most $1 files of dead workers.
select released, failed from app.reap_media($1);

-- name: media_depth
-- Files to fetch and age in seconds of the oldest, by state.
select state, rows, oldest_s from app.media_depth();

-- name: media_for_send
-- Where the bytes of organization $1's file $2 are, and under which id account $3's provider has them.
select storage_key, mime_type, byte_size, sha256, file_name, provider_id from app.media_for_send($1, $2, $3);

-- name: keep_provider_media
-- Organization $1's account $3: the provider keeps file $2 as $4 for $5.
select app.keep_provider_media($1, $2, $3, $4, $5);

-- name: forget_provider_media
-- Organization $1's account $3: the provider has file $2 no more.
select app.forget_provider_media($1, $2, $3);

-- name: delete_unused_media
-- Throw away at most $1 uploads that no message took within a day.
select app.delete_unused_media($1);

-- name: unknown_media
-- Of the keys $2 of organization $1's bytes, those that no row names.
select app.unknown_media($1, $2) as storage_key;

-- name: keep_upload
-- The caller's upload: bytes under key $1 with sha256 $2, size $3, type $4, name $5; its id.
select app.keep_upload($1, $2, $3, $4, $5);

-- name: take_media
-- The file $1 for a new message of the caller.
select id, state, mime_type, file_name, byte_size, sha256 from app.take_media($1);

-- name: media_file
-- File $1, if the caller may see it.
select f.state, f.mime_type, f.file_name, f.byte_size, f.sha256, f.storage_key, f.error from public.media_files f where f.id = $1;
