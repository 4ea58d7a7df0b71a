-- Links and codes that go by mail.

-- name: ask_link
-- Keep a link of kind $2 for subject $3 (hashes of its token $8 and code $9, data $10, good for $11) and write mail $1 (or null) to address
-- $4 from template $5, sealed text $6, on condition $7; seconds to wait, 0 when it is done.
select app.ask_link($1, $2, $3, $4, $5, $6, $7, $8, $9, $10::jsonb, $11);

-- name: sign_up
-- Make user $1 with password hash $2 and metadata $3, confirmed or not ($4); mail $5 (sealed $6) to a new one, $7 (sealed $8) to a known
-- one, with a link (hashes $9 and $10, data $11).
select outcome, user_id, wait_s from app.sign_up($1, $2, $3::jsonb, $4, $5, $6, $7, $8, $9, $10, $11::jsonb);

-- name: invite_user
-- Invite address $1 with metadata $2 by mail $3 (sealed $4; null: none) with a link (hashes $5 and $6, data $7).
select outcome, user_id from app.invite_user($1, $2::jsonb, $3, $4, $5, $6, $7::jsonb);

-- name: ask_email_change
-- Ask for address $2 for user $1, by mail $3 (sealed $4) with a link (hashes $5 and $6, data $7).
select is_free, wait_s from app.ask_email_change($1, $2, $3, $4, $5, $6, $7::jsonb);

-- name: redeem_token
-- Use the link whose token hashes to $1, or the code of address $2 whose hash is in $4 beside its kind in $3 ($1 null); may it make a
-- user ($5)?
select outcome, user_id, kind, data::text, email, old_email from app.redeem_token($1, $2, $3, $4, $5);

-- name: keep_flow
-- Keep the code hashing to $2 for user $1 with data $3.
select app.keep_flow($1, $2, $3::jsonb);

-- name: use_flow
-- The user and data of the code hashing to $1; once.
select user_id, data::text from app.use_flow($1);

-- name: use_nonce
-- Whether $2 is the hash of the code sent to user $1; once.
select app.use_nonce($1, $2);

-- name: list_users
-- A page of $1 users after the first $2, the newest first, each with the number of all.
select total, document::text from app.list_users($1, $2);

-- name: put_user
-- Make (user $1 null) or change a user: address $2, password hash $3, confirmed $4, metadata $5, app_metadata $6, ban of $7 seconds; its id.
select app.put_user($1, $2, $3, $4, $5::jsonb, $6::jsonb, $7);

-- name: drop_user
-- Delete user $1; whether there was one.
select app.drop_user($1);

-- name: sessions_of
-- The sessions of user $1 that stand.
select id, organization, is_web, aal, user_agent, host(ip) as ip, created_at, refreshed_at from app.sessions_of($1);
