-- Second factors.

-- name: add_factor
-- A factor $2 named $3 (or null) for user $1, secret sealed as $4; what came of it.
select app.add_factor($1, $2, $3, $4);

-- name: challenge_factor
-- A challenge of factor $2 of user $1.
select id, expires_at from app.challenge_factor($1, $2);

-- name: factor_secret
-- What a code of factor $2 of user $1 under challenge $3 is compared with.
select sealed, last_step, is_open from app.factor_secret($1, $2, $3);

-- name: prove_factor
-- User $1 has proved in session $2 factor $3 under challenge $4 with the code of step $5; the session's new refresh token hashes to $6.
select app.prove_factor($1, $2, $3, $4, $5, $6);

-- name: remove_factor
-- Take factor $2 away from user $1; what it was.
select app.remove_factor($1, $2);

-- name: keep_recovery_codes
-- Recovery codes of user $1, hashed as $2, instead of all before.
select app.keep_recovery_codes($1, $2);

-- name: recovery_codes_left
-- How many of user $1 were not used.
select app.recovery_codes_left($1);

-- name: use_recovery_code
-- Use the code of user $1 hashing to $3 in session $2, whose new refresh token hashes to $4.
select app.use_recovery_code($1, $2, $3, $4);

-- name: note_account
-- Tell the organizations of user $1 of action $2 (details $3, address $4 or null, request $5).
select app.note_account($1, $2, $3::jsonb, $4::text::inet, $5);

-- name: remove_factors_of
-- Take all factors and recovery codes away from user $1; how many factors. For the operator (hub_owner) alone.
with codes as (delete from auth.recovery_codes where user_id = $1),
gone as (delete from auth.mfa_factors where user_id = $1 returning 1),
over as (update auth.sessions set revoked_at = now() where user_id = $1 and revoked_at is null)
select count(*) from gone;
