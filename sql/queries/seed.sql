-- What `hub seed` writes, as hub_owner or hub_writer. Every statement names its columns; ids come back where others refer to them.

-- name: seed_organization
-- A new organization named $1 in time zone $2 with currency $3.
insert into public.organizations (name, timezone, currency) values ($1, $2, $3) returning id;

-- name: seed_user
-- The user with e-mail $1; a new one gets the password hash $2, a known one too if it is not null.
insert into auth.users (email, encrypted_password, email_confirmed_at) values ($1, $2, now())
on conflict (email) do update set encrypted_password = coalesce(excluded.encrypted_password, auth.users.encrypted_password)
returning id;

-- name: seed_membership
-- User $2 joins organization $1 as role $3 with names $4, $5, e-mail $6 and permissions crm $7, pm $8, team $9, settings $10, send $11, read $12.
insert into public.memberships (organization_id, user_id, role, first_name, last_name, email,
  can_access_crm, can_access_pm, can_manage_team, can_manage_settings, can_send_messages, can_read_messages)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
on conflict (organization_id, user_id) do nothing;

-- name: seed_api_key
-- A key named $2 with prefix $3 and permissions $4 for organization $1, and its hash $5.
with made as (
  insert into public.api_keys (organization_id, name, key_prefix, permissions) values ($1, $2, $3, $4) returning organization_id, id, key_prefix
)
insert into app.api_key_hashes (organization_id, api_key_id, key_prefix, key_hash)
select organization_id, id, key_prefix, $5 from made;

-- name: seed_channel_account
-- A WhatsApp Cloud account named $2 with settings $3 for organization $1.
insert into public.channel_accounts (organization_id, name, type, settings, health) values ($1, $2, 'WHATSAPP_CLOUD', $3, 'ok') returning id;

-- name: seed_secret
-- The sealed value $4 of setting $3 of channel account $2 in organization $1.
insert into app.secrets (organization_id, owner_table, owner_id, name, ciphertext) values ($1, 'channel_accounts', $2, $3, $4)
on conflict (organization_id, owner_table, owner_id, name) do update set ciphertext = excluded.ciphertext, updated_at = now();

-- name: seed_company
-- Company $2 of organization $1: domain $3, industry $4, city $5, country $6, employees $7.
insert into public.companies (organization_id, name, domain, industry, city, country, employee_count) values ($1, $2, $3, $4, $5, $6, $7) returning id;

-- name: seed_contact
-- A contact of organization $1: names $2 $3, phones $4, emails $5, tags $6, custom fields $7, opt-in $8, company $9, assignee $10, job title $11, city $12, country $13, language $14, created at $15.
insert into public.contacts (organization_id, first_name, last_name, phones, emails, tags, custom_fields, opt_in_status, company_id, assignee_id,
  job_title, city, country, language, source, created_at)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, 'inbound', $15) returning id;

-- name: seed_identity
-- Identity $3 = $4 of contact $2 in organization $1, shown as $5.
insert into public.contact_identities (organization_id, contact_id, scheme, value, display_name) values ($1, $2, $3, $4, $5);

-- name: seed_conversation
-- A conversation of organization $1 with contact $2 on account $3, assigned to $4, status $5, tags $6, priority $7, created at $8, closed at $9.
insert into public.conversations (organization_id, contact_id, channel_account_id, assignee_id, status, tags, priority, created_at, closed_at)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9) returning id;

-- name: seed_message
-- Message number $4 of conversation $2 (contact $3) in organization $1 on account $5: direction $6, content $7, status $8, sender $9, source $10, at $11,
-- type $12, metadata $13.
insert into public.messages (organization_id, conversation_id, contact_id, conv_seq, channel_account_id, direction, content, status, sender_id, source,
  message_type, metadata, occurred_at, created_at, sent_at, delivered_at, read_at)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $12, $13, $11, $11, case when $6 = 'OUTBOUND' then $11::timestamptz end,
  case when $8 in ('DELIVERED', 'READ') and $6 = 'OUTBOUND' then $11::timestamptz end, case when $8 = 'READ' and $6 = 'OUTBOUND' then $11::timestamptz end)
returning id;

-- name: seed_conversation_summary
-- What the list shows of conversation $2 in organization $1, worked out from its messages.
update public.conversations c
   set msg_seq = s.n, inbound_count = s.inbound, last_message_at = s.last_at, last_message_preview = s.preview, last_message_direction = s.direction,
       first_inbound_at = s.first_inbound_at, last_inbound_at = s.last_inbound_at,
       waiting_since = case when s.direction = 'INBOUND' and c.status = 'OPEN' then s.last_inbound_at end
  from (select max(m.conv_seq) as n, count(*) filter (where m.direction = 'INBOUND') as inbound, max(m.created_at) as last_at,
               (array_agg(app.preview(m.content, m.message_type) order by m.conv_seq desc))[1] as preview,
               (array_agg(m.direction order by m.conv_seq desc))[1] as direction,
               min(m.created_at) filter (where m.direction = 'INBOUND') as first_inbound_at,
               max(m.created_at) filter (where m.direction = 'INBOUND') as last_inbound_at
          from public.messages m where m.organization_id = $1 and m.conversation_id = $2) s
 where c.organization_id = $1 and c.id = $2;

-- name: seed_read
-- Member $2 of organization $1 has read the whole of conversation $3 but its last $4 inbound messages.
insert into public.conversation_reads (organization_id, user_id, conversation_id, conv_seq, inbound_count)
select c.organization_id, $2, c.id, c.msg_seq - $4, greatest(c.inbound_count - $4, 0) from public.conversations c
 where c.organization_id = $1 and c.id = $3;

-- name: seed_pipeline
-- The default pipeline of organization $1, named $2, with stages $3.
insert into public.pipelines (organization_id, name, stages, is_default) values ($1, $2, $3, true) returning id;

-- name: seed_deal
-- Deal $2 of organization $1 for contact $3 in pipeline $4: stage $5, value $6, probability $7, owner $8, expected in $9 days, currency $10.
insert into public.deals (organization_id, title, contact_id, pipeline_id, stage, value, probability, owner_id, expected_close_date, currency)
values ($1, $2, $3, $4, $5, $6, $7, $8, current_date + $9::integer, $10);

-- name: seed_task
-- Task $2 of organization $1 about contact $3 for member $4, priority $5, due in $6 hours.
insert into public.tasks (organization_id, title, contact_id, assignee_id, priority, due_date) values ($1, $2, $3, $4, $5, now() + make_interval(hours => $6));

-- name: seed_note
-- Note $4 by member $3 about contact $2 in organization $1.
insert into public.notes (organization_id, contact_id, author_id, content) values ($1, $2, $3, $4);

-- name: seed_quick_reply
-- Quick reply $2 of organization $1 with components $3 in language $4.
insert into public.templates (organization_id, name, components, status, category, language) values ($1, $2, $3, 'APPROVED', 'QUICK_REPLY', $4);

-- name: seed_template
-- Template $2 of organization $1 for account $3, approved by the provider under id $4, in language $5, with components $6.
insert into public.templates (organization_id, name, channel_account_id, provider_id, language, components, status, category)
values ($1, $2, $3, $4, $5, $6, 'APPROVED', 'UTILITY');

-- name: seed_media
-- File $2 of organization $1, shown by message $3: name $4, type $5, size $6, sha256 $7, bytes under key $8.
insert into public.media_files (organization_id, id, message_id, file_name, mime_type, byte_size, sha256, storage_key, state)
values ($1, $2, $3, $4, $5, $6, $7, $8, 'stored');
