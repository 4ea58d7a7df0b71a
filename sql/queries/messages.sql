-- name: message_by_client_ref
-- The message that was queued under client_ref $1, if any; `upload` is the file that its sender named.
select m.id, m.conversation_id, m.conv_seq, m.status, m.content, m.message_type, m.reply_to_id, m.template_id,
       coalesce(m.metadata #>> '{media,0,copy_of}', m.metadata #>> '{media,0,file_id}') as upload from public.messages m where m.client_ref = $1

-- name: answers_after
-- Ids of what others than user $3 answered in conversation $1 after conv_seq $2, oldest first: agents, and phones that share the account.
select m.id from public.messages m
 where m.conversation_id = $1 and m.conv_seq > $2 and m.direction = 'OUTBOUND' and m.source in ('agent', 'external')
   and m.deleted_at is null and m.sender_id is distinct from $3
 order by m.conv_seq limit 20

-- name: insert_outbound
-- Queue a message: conversation $1, content $2, client_ref $3, message_type $4, metadata $5 (jsonb), reply_to_id $6, source $7,
-- sender_id $8, send_at $9, template_id $10. Its number and its outbox row come from the triggers.
insert into public.messages (conversation_id, content, client_ref, message_type, metadata, reply_to_id, source, sender_id, send_at, template_id, direction, status)
values ($1, $2, $3, $4, $5::jsonb, $6, $7, $8, $9, $10, 'OUTBOUND', 'PENDING')
returning id, conv_seq, status

-- name: message_exists
-- Whether the caller may see message $1 of conversation $2.
select exists (select from public.messages m where m.id = $1 and m.conversation_id = $2)

-- name: lock_message
-- Message $1, locked, as far as a retry needs it.
select m.id, m.direction, m.status, m.deleted_at from public.messages m where m.id = $1 for update

-- name: queue_again
-- The failed message $1 becomes PENDING; a trigger puts it back into the outbox. The provider will know it by a new id.
update public.messages m
   set status = 'PENDING', failure_code = null, failure_reason = null, provider_message_id = null,
       sent_at = null, delivered_at = null, read_at = null
 where m.id = $1 and m.status = 'FAILED'
returning m.conv_seq, m.status

-- name: mark_inbound_read
-- Up to $4 received messages of conversation $1 with conv_seq in ($2, $3] become READ, oldest first. Returns their numbers.
with unread as (
  select m.id from public.messages m
   where m.conversation_id = $1 and m.conv_seq > $2 and m.conv_seq <= $3 and m.direction = 'INBOUND' and m.status = 'RECEIVED'
   order by m.conv_seq limit $4 for update skip locked
)
update public.messages m set status = 'READ', read_at = clock_timestamp()
  from unread u where m.id = u.id
returning m.conv_seq

-- name: channel_of_account
-- The type of channel account $1.
select a.type from public.channel_accounts a where a.id = $1

-- name: template_to_send
-- Template $1 of the caller's organization, as far as sending needs it.
select t.name, t.language, t.status, t.category, t.components, t.channel_account_id from public.templates t where t.id = $1
