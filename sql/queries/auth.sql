-- name: list_signing_keys
-- The deployment's sealed keys, oldest first.
select kid, algorithm, public_jwk, sealed, is_current, created_at, signs_from from app.list_signing_keys();

-- name: add_signing_key
-- Keep key $1 of algorithm $2 (public JWK $3 or null, sealed $4) unless one of that algorithm stands already.
select app.add_signing_key($1, $2, $3::jsonb, $4);

-- name: claim_sentinel
-- The sentinel that stands; $1 if none did.
select app.claim_sentinel($1);

-- name: server_clock
-- The server's clock in Unix seconds.
select extract(epoch from clock_timestamp())::double precision;

-- name: durability
-- The server's settings that decide whether acknowledged work survives a power cut.
select setting, value from app.durability();

-- name: user_by_email
-- The user who signs in with address $1.
select id, encrypted_password, banned, confirmed from app.user_by_email($1);

-- name: user_document
-- User $1 as JSON, as /auth/v1 shows it.
select app.user_document($1)::text;

-- name: account_proof
-- What a change of user $1 in session $2 rests on.
select encrypted_password, email, proved_s, aal, has_factor from app.account_proof($1, $2);

-- name: sign_in_delay
-- Seconds that account $1 has to wait on network $2.
select app.sign_in_delay($1, $2);

-- name: sign_in_failed
-- Count a refused sign-in of account $1 from network $2 for reason $3, and note it (address $4 or null, request $5) where it belongs.
select app.sign_in_failed($1, $2, $3, $4::text::inet, $5);

-- name: sign_in_succeeded
-- Forget the failures of account $1 from network $2.
select app.sign_in_succeeded($1, $2);

-- name: open_session
-- A session of user $1 (web app: $2, user agent $3, address $4) whose first refresh token hashes to $5, asked for by request $6, proved by $7.
select app.open_session($1, $2, $3, $4::text::inet, $5, $6, $7);

-- name: session_state
-- What session $1 may do now; no row when it is unknown.
select user_id, organization_id, role, permissions, is_web, revoked, aal, amr::text, lacks_factor, visibility, team_ids
  from app.session_state($1);

-- name: rotate_refresh
-- Exchange the refresh token hashing to $1 for a child (hash $2, sealed text $3); within $4 seconds the same child again.
select outcome, session_id, user_id, sealed from app.rotate_refresh($1, $2, $3, $4);

-- name: session_of_refresh
-- The standing session of the refresh token hashing to $1.
select session_id, user_id from app.session_of_refresh($1);

-- name: end_sessions
-- End session $1 of user $2 (scope $3: local), all but it (others) or all (global); gives those that ended.
select id from app.end_sessions($1, $2, $3) id;

-- name: update_user
-- User $1, seen from session $2: new password hash $3 (or null), metadata $4 merged (or null). Gives the user as JSON.
select app.update_user($1, $2, $3, $4::jsonb)::text;

-- name: organizations_of
-- The organizations of user $1, oldest membership first.
select id, name, suit_id, has_appgain_credentials, role from app.organizations_of($1);

-- name: api_keys_by_prefix
-- Keys that begin with $1, with their hashes.
select organization_id, id, key_hash, permissions::text, expires_at, revoked from app.api_keys_by_prefix($1);

-- name: api_key_state
-- What key $1 may do now.
select organization_id, id, permissions::text, expires_at, revoked from app.api_key_state($1);

-- name: keys_used
-- Note that the keys $2 of the organizations $1, one each, were used; at most once in ten minutes a key.
select app.keys_used($1, $2);

-- name: note_refusals
-- Write the refused attempts $1 (app.note_refusals says their members) into the audit logs.
select app.note_refusals($1::jsonb);

-- name: insert_api_key
-- A key named $1 with visible prefix $2, permissions $3, made by user $4 (or null), ending at $5 (or null). As the caller.
insert into public.api_keys (name, key_prefix, permissions, created_by, expires_at)
values ($1, $2, $3::jsonb, $4, $5)
returning id, name, key_prefix, expires_at, created_at;

-- name: keep_api_key_hash
-- Keep hash $2 of key $1, inserted in this transaction. As the caller.
select app.keep_api_key_hash($1, $2);
