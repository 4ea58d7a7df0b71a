-- Companies, contacts and their identities, channel accounts, conversations, messages.

create table public.companies (
  organization_id uuid not null default app.org(),
  id uuid not null default uuidv7(), name text not null, domain text, website text, email text, phone text,
  street_address text, city text, state text, postal_code text, country text,
  industry text, description text, employee_count integer, annual_revenue numeric,
  linkedin_url text, facebook_url text, twitter_handle text, logo_url text, lifecycle_stage text, lead_status text,
  owner_id uuid, tags text[] not null default '{}', custom_fields jsonb not null default '{}',
  created_at timestamptz not null default now(), updated_at timestamptz not null default now(), version integer not null default 1,
  constraint companies_pkey primary key (organization_id, id),
  constraint companies_organization_id_fkey foreign key (organization_id) references public.organizations (id) on delete cascade,
  constraint companies_owner_id_fkey foreign key (organization_id, owner_id) references public.memberships (organization_id, user_id) on delete set null (owner_id),
  constraint companies_name_check check (length(name) between 1 and 500),
  constraint companies_employee_count_check check (employee_count >= 0),
  constraint companies_custom_fields_check check (jsonb_typeof(custom_fields) = 'object')
);
create index companies_created_at_idx on public.companies (organization_id, created_at desc);

create table public.contacts (
  organization_id uuid not null default app.org(),
  id uuid not null default uuidv7(), first_name text, last_name text,
  phones text[] not null default '{}', emails text[] not null default '{}', tags text[] not null default '{}',
  custom_fields jsonb not null default '{}', opt_in_status boolean, company_id uuid, assignee_id uuid,
  avatar_url text, job_title text, lead_status text, lifecycle_stage text,
  street_address text, city text, state text, postal_code text, country text, language text, timezone text,
  linkedin_url text, facebook_url text, twitter_handle text, source text, merged_into_id uuid,
  search text generated always as (app.contact_search(first_name, last_name, phones, emails, tags)) stored,
  cause jsonb,
  created_at timestamptz not null default now(), updated_at timestamptz not null default now(), version integer not null default 1,
  constraint contacts_pkey primary key (organization_id, id),
  constraint contacts_organization_id_fkey foreign key (organization_id) references public.organizations (id) on delete cascade,
  constraint contacts_company_id_fkey foreign key (organization_id, company_id) references public.companies (organization_id, id) on delete set null (company_id),
  constraint contacts_assignee_id_fkey foreign key (organization_id, assignee_id) references public.memberships (organization_id, user_id) on delete set null (assignee_id),
  constraint contacts_custom_fields_check check (jsonb_typeof(custom_fields) = 'object')
);
create index contacts_created_at_idx on public.contacts (organization_id, created_at desc);
create index contacts_company_id_idx on public.contacts (organization_id, company_id) where company_id is not null;

-- A contact exists for the first message of a stranger only if its identity was claimed first, so the
-- reference to the contact is checked at commit (deferred) and the unique key decides races.
create table public.contact_identities (
  organization_id uuid not null default app.org(),
  id uuid not null default uuidv7(), contact_id uuid not null, scheme text not null, value text not null, display_name text,
  created_at timestamptz not null default now(), updated_at timestamptz not null default now(), version integer not null default 1,
  constraint contact_identities_pkey primary key (organization_id, id),
  constraint contact_identities_organization_id_fkey foreign key (organization_id) references public.organizations (id) on delete cascade,
  constraint contact_identities_contact_id_fkey foreign key (organization_id, contact_id) references public.contacts (organization_id, id) on delete cascade deferrable initially deferred,
  constraint contact_identities_value_key unique (organization_id, scheme, value),
  constraint contact_identities_scheme_check check (scheme in ('wa_id', 'wa_bsuid', 'psid', 'igsid', 'tg_user', 'tt_user', 'email', 'phone_e164', 'appgain_user', 'external')),
  constraint contact_identities_value_check check (length(value) between 1 and 320)
);
create index contact_identities_contact_id_idx on public.contact_identities (organization_id, contact_id);

-- `settings` never holds a secret: those are encrypted in app.secrets and shown here as masks.
create table public.channel_accounts (
  organization_id uuid not null default app.org(),
  id uuid not null default uuidv7(), name text not null, type text not null, is_active boolean not null default true,
  settings jsonb not null default '{}', health text not null default 'unknown', last_inbound_at timestamptz, last_error text,
  last_error_at timestamptz, token_expires_at timestamptz, on_ambiguous text not null default 'hold', disconnected_at timestamptz,
  created_at timestamptz not null default now(), updated_at timestamptz not null default now(), version integer not null default 1,
  constraint channel_accounts_pkey primary key (organization_id, id),
  constraint channel_accounts_organization_id_fkey foreign key (organization_id) references public.organizations (id) on delete cascade,
  constraint channel_accounts_type_check check (type in ('WHATSAPP_LITE', 'WHATSAPP_CLOUD', 'WHATSAPP_BUSINESS', 'FB_MESSENGER', 'INSTAGRAM', 'TELEGRAM', 'TIKTOK', 'EMAIL', 'SMS', 'SHRINKIT_PUSH')),
  constraint channel_accounts_health_check check (health in ('unknown', 'ok', 'degraded', 'error')),
  constraint channel_accounts_on_ambiguous_check check (on_ambiguous in ('hold', 'resend')),
  constraint channel_accounts_settings_check check (jsonb_typeof(settings) = 'object'),
  constraint channel_accounts_name_check check (length(name) between 1 and 200)
);

create table public.sla_policies (
  organization_id uuid not null default app.org(),
  id uuid not null default uuidv7(), name text not null, is_default boolean not null default false,
  first_response_s integer, next_response_s integer, resolution_s integer, conditions jsonb not null default '[]', business_hours_id uuid,
  created_at timestamptz not null default now(), updated_at timestamptz not null default now(), version integer not null default 1,
  constraint sla_policies_pkey primary key (organization_id, id),
  constraint sla_policies_organization_id_fkey foreign key (organization_id) references public.organizations (id) on delete cascade,
  constraint sla_policies_targets_check check (first_response_s > 0 and next_response_s > 0 and resolution_s > 0)
);
create unique index sla_policies_default_key on public.sla_policies (organization_id) where is_default;

create table public.business_hours (
  organization_id uuid not null default app.org(),
  id uuid not null default uuidv7(), name text not null, timezone text not null default 'UTC', is_default boolean not null default false,
  periods jsonb not null default '[]', holidays jsonb not null default '[]',
  created_at timestamptz not null default now(), updated_at timestamptz not null default now(), version integer not null default 1,
  constraint business_hours_pkey primary key (organization_id, id),
  constraint business_hours_organization_id_fkey foreign key (organization_id) references public.organizations (id) on delete cascade
);
create unique index business_hours_default_key on public.business_hours (organization_id) where is_default;
alter table public.sla_policies add constraint sla_policies_business_hours_id_fkey
  foreign key (organization_id, business_hours_id) references public.business_hours (organization_id, id) on delete set null (business_hours_id);

create table public.conversations (
  organization_id uuid not null default app.org(),
  id uuid not null default uuidv7(), contact_id uuid not null, channel_account_id uuid, assignee_id uuid, team_id uuid,
  status text not null default 'OPEN', tags text[] not null default '{}', subject text,
  last_message_at timestamptz, last_message_preview text, last_message_direction text,
  msg_seq bigint not null default 0, inbound_count bigint not null default 0,
  first_inbound_at timestamptz, last_inbound_at timestamptz, waiting_since timestamptz, first_response_at timestamptz,
  snoozed_until timestamptz, pending boolean not null default false, priority text, closed_at timestamptz, sla_policy_id uuid,
  custom_fields jsonb not null default '{}', cause jsonb,
  created_at timestamptz not null default now(), updated_at timestamptz not null default now(), version integer not null default 1,
  constraint conversations_pkey primary key (organization_id, id),
  constraint conversations_organization_id_fkey foreign key (organization_id) references public.organizations (id) on delete cascade,
  constraint conversations_contact_id_fkey foreign key (organization_id, contact_id) references public.contacts (organization_id, id) on delete cascade,
  constraint conversations_channel_account_id_fkey foreign key (organization_id, channel_account_id) references public.channel_accounts (organization_id, id) on delete set null (channel_account_id),
  constraint conversations_assignee_id_fkey foreign key (organization_id, assignee_id) references public.memberships (organization_id, user_id) on delete set null (assignee_id),
  constraint conversations_team_id_fkey foreign key (organization_id, team_id) references public.teams (organization_id, id) on delete set null (team_id),
  constraint conversations_sla_policy_id_fkey foreign key (organization_id, sla_policy_id) references public.sla_policies (organization_id, id) on delete set null (sla_policy_id),
  constraint conversations_status_check check (status in ('OPEN', 'CLOSED')),
  constraint conversations_priority_check check (priority in ('LOW', 'MEDIUM', 'HIGH', 'URGENT')),
  constraint conversations_direction_check check (last_message_direction in ('INBOUND', 'OUTBOUND')),
  constraint conversations_custom_fields_check check (jsonb_typeof(custom_fields) = 'object')
) with (fillfactor = 80);
create unique index conversations_open_key on public.conversations (organization_id, channel_account_id, contact_id) nulls not distinct where status = 'OPEN';
create index conversations_last_message_at_idx on public.conversations (organization_id, last_message_at desc);
create index conversations_contact_id_idx on public.conversations (organization_id, contact_id);
create index conversations_assignee_id_idx on public.conversations (organization_id, assignee_id) where status = 'OPEN' and assignee_id is not null;

create table public.messages (
  organization_id uuid not null default app.org(),
  id uuid not null default uuidv7(), conversation_id uuid not null, contact_id uuid, channel_account_id uuid, sender_id uuid,
  direction text not null, content text, status text not null default 'SENT', message_type text not null default 'text',
  metadata jsonb not null default '{}', provider_message_id text, client_ref uuid, conv_seq bigint not null,
  occurred_at timestamptz not null default now(), source text not null default 'api', reply_to_id uuid,
  failure_code text, failure_reason text, send_at timestamptz, sent_at timestamptz, delivered_at timestamptz, read_at timestamptz,
  edited_at timestamptz, deleted_at timestamptz, template_id uuid, campaign_id uuid, cause jsonb,
  created_at timestamptz not null default now(), updated_at timestamptz not null default now(), version integer not null default 1,
  constraint messages_pkey primary key (organization_id, id),
  constraint messages_conversation_id_fkey foreign key (organization_id, conversation_id) references public.conversations (organization_id, id) on delete cascade,
  constraint messages_contact_id_fkey foreign key (organization_id, contact_id) references public.contacts (organization_id, id) on delete set null (contact_id),
  constraint messages_channel_account_id_fkey foreign key (organization_id, channel_account_id) references public.channel_accounts (organization_id, id) on delete set null (channel_account_id),
  constraint messages_sender_id_fkey foreign key (organization_id, sender_id) references public.memberships (organization_id, user_id) on delete set null (sender_id),
  constraint messages_reply_to_id_fkey foreign key (organization_id, reply_to_id) references public.messages (organization_id, id) on delete set null (reply_to_id),
  constraint messages_provider_message_id_key unique (organization_id, channel_account_id, provider_message_id),
  constraint messages_conv_seq_key unique (organization_id, conversation_id, conv_seq),
  constraint messages_direction_check check (direction in ('INBOUND', 'OUTBOUND')),
  constraint messages_status_check check (status in ('PENDING', 'SENT', 'DELIVERED', 'READ', 'FAILED', 'RECEIVED')),
  constraint messages_source_check check (source in ('customer', 'agent', 'api', 'rule', 'flow', 'campaign', 'external')),
  constraint messages_content_check check (length(content) <= 65536),
  constraint messages_metadata_check check (jsonb_typeof(metadata) = 'object'),
  constraint messages_failure_check check (failure_code is null or status in ('FAILED', 'PENDING'))
);
create unique index messages_client_ref_key on public.messages (organization_id, client_ref) where client_ref is not null;
create index messages_created_at_idx on public.messages (organization_id, created_at desc);

-- What each agent has read: unread = conversations.inbound_count - conversation_reads.inbound_count.
create table public.conversation_reads (
  organization_id uuid not null default app.org(), user_id uuid not null, conversation_id uuid not null,
  conv_seq bigint not null default 0, inbound_count bigint not null default 0,
  created_at timestamptz not null default now(), updated_at timestamptz not null default now(),
  constraint conversation_reads_pkey primary key (organization_id, user_id, conversation_id),
  constraint conversation_reads_user_id_fkey foreign key (organization_id, user_id) references public.memberships (organization_id, user_id) on delete cascade,
  constraint conversation_reads_conversation_id_fkey foreign key (organization_id, conversation_id) references public.conversations (organization_id, id) on delete cascade
);
create index conversation_reads_conversation_id_idx on public.conversation_reads (organization_id, conversation_id);

create table public.drafts (
  organization_id uuid not null default app.org(), user_id uuid not null, conversation_id uuid not null, content text not null,
  created_at timestamptz not null default now(), updated_at timestamptz not null default now(), version integer not null default 1,
  constraint drafts_pkey primary key (organization_id, conversation_id, user_id),
  constraint drafts_user_id_fkey foreign key (organization_id, user_id) references public.memberships (organization_id, user_id) on delete cascade,
  constraint drafts_conversation_id_fkey foreign key (organization_id, conversation_id) references public.conversations (organization_id, id) on delete cascade
);

create table public.media_files (
  organization_id uuid not null default app.org(),
  id uuid not null default uuidv7(), message_id uuid, file_name text, mime_type text, byte_size bigint, sha256 text,
  storage_key text, provider_ref text, state text not null default 'pending', error text, expires_at timestamptz,
  created_at timestamptz not null default now(), updated_at timestamptz not null default now(), version integer not null default 1,
  constraint media_files_pkey primary key (organization_id, id),
  constraint media_files_organization_id_fkey foreign key (organization_id) references public.organizations (id) on delete cascade,
  constraint media_files_message_id_fkey foreign key (organization_id, message_id) references public.messages (organization_id, id) on delete cascade,
  constraint media_files_state_check check (state in ('pending', 'stored', 'expired', 'failed'))
);
create index media_files_message_id_idx on public.media_files (organization_id, message_id);

create table public.suppressions (
  organization_id uuid not null default app.org(),
  id uuid not null default uuidv7(), scheme text not null, value text not null, reason text, source text,
  created_at timestamptz not null default now(), updated_at timestamptz not null default now(), version integer not null default 1,
  constraint suppressions_pkey primary key (organization_id, id),
  constraint suppressions_organization_id_fkey foreign key (organization_id) references public.organizations (id) on delete cascade,
  constraint suppressions_value_key unique (organization_id, scheme, value)
);
