-- name: log_epoch
-- Which life of the database this is; cursors of another epoch mean nothing here.
select app.epoch()

-- name: log_state
-- The epoch, and the newest seq of each organization in $1 (uuid[]): one row an organization.
select app.epoch(), h.organization_id, h.seq from app.heads($1) h

-- name: log_page
-- Up to $3 events of organization $1 after seq $2, as (seq, table, frame), in order.
select e.seq, e.table_name, e.frame from app.read_events($1, $2, $3) e

-- name: log_floor
-- The oldest seq of organization $1 that is younger than $2 (interval) and still stands.
select app.resume_floor($1, $2)

-- name: live_standing
-- Whether the callers behind sockets still are who they were: kinds $1 (user or key), sessions $2 (null where there is none),
-- users or keys $3 and organizations $4, in step. One row each, in that order: whether the sign-in stands, whether the member is
-- active, and a text that moves when role, permissions or active organization do.
select s.stands, s.active, s.fingerprint from app.live_standing($1, $2, $3, $4) s order by s.n

-- name: conversations_in_sight
-- Those of the conversations $1 that the caller sees.
select id from public.conversations where organization_id = (select app.org()) and id = any ($1::uuid[])
