-- name: lock_conversation
-- Conversation $1, locked: who writes to it next waits for us. RLS hides other organizations' rows.
select c.id, c.status, c.msg_seq, c.channel_account_id, c.contact_id from public.conversations c where c.id = $1 for update

-- name: conversation_exists
-- Whether the caller may see conversation $1.
select exists (select from public.conversations c where c.id = $1)

-- name: reopen_for_sending
-- Open the closed conversation $1, unless its contact has another open one on the same account: then it stays as it is.
update public.conversations c
   set status = 'OPEN'
 where c.id = $1 and c.status = 'CLOSED'
   and not exists (select from public.conversations o
                    where o.organization_id = c.organization_id and o.contact_id = c.contact_id and o.status = 'OPEN'
                      and o.channel_account_id is not distinct from c.channel_account_id)

-- name: assign_conversation
-- Give conversation $1 to member $2, or to nobody (null). Changes nothing, and makes no event, when it is so already.
select app.assign_conversation($1, $2)

-- name: member_is_active
-- Whether user $1 is an active member of the caller's organization.
select exists (select from public.memberships m where m.user_id = $1 and m.is_active)

-- name: set_conversation_status
-- Conversation $1 becomes $2 (OPEN or CLOSED). Changes nothing when it is so already.
update public.conversations c set status = $2 where c.id = $1 and c.status <> $2

-- name: tag_conversation
-- Add tags $2 to conversation $1 and take $3 away; the order of those that stay is kept. Changes nothing when it is so already.
update public.conversations c
   set tags = coalesce((select array_agg(k.tag order by k.place)
                          from (select u.tag, min(u.place) as place from unnest(c.tags || $2::text[]) with ordinality u (tag, place)
                                 where u.tag <> all ($3::text[]) group by u.tag) k), '{}')
 where c.id = $1 and not (c.tags @> $2::text[] and not c.tags && $3::text[])

-- name: read_position
-- Conversation $1 as far as a reader at conv_seq $2 is concerned: how far that reaches, how many inbound messages it covers,
-- and where user $3 stood before. No row when there is no such conversation.
select least($2::bigint, c.msg_seq) as conv_seq,
       c.inbound_count - (select count(*) from public.messages m
                           where m.organization_id = c.organization_id and m.conversation_id = c.id and m.conv_seq > $2 and m.direction = 'INBOUND') as inbound_count,
       coalesce((select r.conv_seq from public.conversation_reads r
                  where r.organization_id = c.organization_id and r.user_id = $3 and r.conversation_id = c.id), 0) as before
  from public.conversations c where c.id = $1

-- name: save_read_position
-- User $1 has read conversation $2 up to conv_seq $3, which covers $4 inbound messages. Never moves backwards.
insert into public.conversation_reads as r (user_id, conversation_id, conv_seq, inbound_count) values ($1, $2, $3, $4)
on conflict (organization_id, user_id, conversation_id) do update
   set conv_seq = excluded.conv_seq, inbound_count = excluded.inbound_count
 where r.conv_seq < excluded.conv_seq
