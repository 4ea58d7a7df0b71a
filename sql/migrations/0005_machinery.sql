-- What the hub runs on: the event log, work lists, secrets, and other tables that the API never shows.
-- No table is both claimed from and kept: work rows leave in the transaction that settles them.

-- One row a change, numbered without gaps per organization in commit order (sql/functions/events.sql).
create table app.events (
  organization_id uuid not null, seq bigint not null, id uuid not null default uuidv7(),
  type text not null, table_name text not null, op text not null, names text[] not null default '{}',
  entity_id uuid, contact_id uuid, conversation_id uuid,
  actor_kind text not null default 'system', actor_id uuid, cause_id uuid, depth integer not null default 0,
  payload json not null, at timestamptz not null default clock_timestamp(),
  constraint events_pkey primary key (organization_id, seq), -- no reference to organizations: the rows told of have one, and forget_events cleans up
  constraint events_op_check check (op in ('INSERT', 'UPDATE', 'DELETE'))
);
create index events_entity_id_idx on app.events (organization_id, entity_id, seq desc);
alter table app.events alter column organization_id set (n_distinct = -0.02);

create table app.consumers (
  organization_id uuid not null, name text not null, seq bigint not null default 0, updated_at timestamptz not null default now(),
  constraint consumers_pkey primary key (organization_id, name),
  constraint consumers_organization_id_fkey foreign key (organization_id) references public.organizations (id) on delete cascade
);

create table app.hub_meta (
  singleton boolean not null default true, nonce uuid not null default uuidv4(), created_at timestamptz not null default now(), sentinel text,
  constraint hub_meta_pkey primary key (singleton), constraint hub_meta_singleton_check check (singleton)
);
insert into app.hub_meta default values;

-- Encrypted at rest (AES-256-GCM, hub/auth/secrets.py); associated data binds a ciphertext to its place.
create table app.secrets (
  organization_id uuid not null, owner_table text not null, owner_id uuid not null, name text not null, ciphertext text not null,
  updated_at timestamptz not null default now(),
  constraint secrets_pkey primary key (organization_id, owner_table, owner_id, name),
  constraint secrets_organization_id_fkey foreign key (organization_id) references public.organizations (id) on delete cascade
);
create table app.api_key_hashes (
  organization_id uuid not null, api_key_id uuid not null, key_prefix text not null, key_hash bytea not null,
  constraint api_key_hashes_pkey primary key (organization_id, api_key_id),
  constraint api_key_hashes_api_key_id_fkey foreign key (organization_id, api_key_id) references public.api_keys (organization_id, id) on delete cascade
);
create index api_key_hashes_key_prefix_idx on app.api_key_hashes (key_prefix);
create table app.invitation_tokens (
  organization_id uuid not null, invitation_id uuid not null, token_hash bytea not null,
  constraint invitation_tokens_pkey primary key (organization_id, invitation_id),
  constraint invitation_tokens_invitation_id_fkey foreign key (organization_id, invitation_id) references public.invitations (organization_id, id) on delete cascade
);
create index invitation_tokens_token_hash_idx on app.invitation_tokens (token_hash);
-- The HS secret of the project keys, the ES256 keys, the pepper of API keys; encrypted.
create table app.signing_keys (
  kid text not null, algorithm text not null, public_jwk jsonb, sealed text not null, is_current boolean not null default true,
  created_at timestamptz not null default now(), retired_at timestamptz,
  constraint signing_keys_pkey primary key (kid)
);

-- Which provider key belongs to which account (the seed's webhook paths carry no account id).
create table app.webhook_routes (
  organization_id uuid not null, channel_account_id uuid not null, type text not null, account_key text not null,
  constraint webhook_routes_pkey primary key (organization_id, channel_account_id),
  constraint webhook_routes_channel_account_id_fkey foreign key (organization_id, channel_account_id) references public.channel_accounts (organization_id, id) on delete cascade
);
create index webhook_routes_account_key_idx on app.webhook_routes (type, account_key);

-- Signed deliveries that could not be applied: kept raw, answered 200, retried, shown to an admin.
create table app.webhook_failures (
  id uuid not null default uuidv7(), organization_id uuid, channel text not null, channel_account_id uuid, reason text not null, error text,
  headers jsonb not null default '{}', body bytea not null, sha256 bytea not null,
  state text not null default 'available', due_at timestamptz not null default now() + interval '5 seconds', attempts integer not null default 0,
  lease_token uuid, lease_until timestamptz, claimed_by text, last_error text, created_at timestamptz not null default now(),
  constraint webhook_failures_pkey primary key (id),
  constraint webhook_failures_organization_id_fkey foreign key (organization_id) references public.organizations (id) on delete cascade,
  constraint webhook_failures_state_check check (state in ('available', 'running', 'dead')),
  constraint webhook_failures_sha256_key unique nulls not distinct (organization_id, channel, sha256, reason)
);
create index webhook_failures_claim_idx on app.webhook_failures (due_at, id) where state = 'available';

-- Statuses that arrived before the id they speak of; applied by the commit that stores the id, dropped after 24 h.
create table app.pending_statuses (
  organization_id uuid not null, channel_account_id uuid not null, provider_message_id text not null, status text not null,
  occurred_at timestamptz not null, failure_code text, failure_reason text, created_at timestamptz not null default now(),
  constraint pending_statuses_pkey primary key (organization_id, channel_account_id, provider_message_id, status),
  constraint pending_statuses_channel_account_id_fkey foreign key (organization_id, channel_account_id) references public.channel_accounts (organization_id, id) on delete cascade
);
create index pending_statuses_created_at_idx on app.pending_statuses (created_at);

-- organization_id is null for keys of the service_role, which acts in all.
create table app.idempotency_keys (
  organization_id uuid, principal text not null, key text not null, body_hash bytea not null, status integer, body text,
  created_at timestamptz not null default now(),
  constraint idempotency_keys_key unique nulls not distinct (organization_id, principal, key),
  constraint idempotency_keys_organization_id_fkey foreign key (organization_id) references public.organizations (id) on delete cascade
);
create index idempotency_keys_created_at_idx on app.idempotency_keys (created_at);

-- One row a message to send. `sending_at` is committed before the first byte leaves (guarantees 8).
create table app.outbox (
  organization_id uuid not null, message_id uuid not null, conversation_id uuid not null, conv_seq bigint not null, channel_account_id uuid,
  state text not null default 'available', due_at timestamptz not null default clock_timestamp(), queued_at timestamptz not null default clock_timestamp(),
  attempts integer not null default 0, lost_leases integer not null default 0, resends integer not null default 0,
  lease_token uuid, lease_until timestamptz, claimed_by text,
  sending_at timestamptz, correlator text, last_error text, is_bulk boolean not null default false,
  is_later boolean not null default false, -- due in the future: the claim does not walk past it; kept by the trigger `later`
  constraint outbox_pkey primary key (organization_id, message_id),
  constraint outbox_message_id_fkey foreign key (organization_id, message_id) references public.messages (organization_id, id) on delete cascade,
  constraint outbox_state_check check (state in ('available', 'running', 'dead', 'unknown')),
  constraint outbox_lease_check check ((state = 'running') = (lease_token is not null))
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 200);
-- By account, because a claim goes round the accounts: one that is held or has a thousand rows stops nobody else.
create index outbox_claim_idx on app.outbox (organization_id, (coalesce(channel_account_id, '00000000-0000-0000-0000-000000000000')), is_bulk, due_at, message_id)
  where state = 'available' and not is_later;
create index outbox_later_idx on app.outbox (due_at) where state = 'available' and is_later;
create index outbox_conversation_idx on app.outbox (organization_id, conversation_id, conv_seq);
-- What runs is little; a heartbeat moves lease_until, so that is in no index.
create index outbox_lease_idx on app.outbox (lease_token) where state = 'running';
create index outbox_unknown_idx on app.outbox (due_at) where state = 'unknown';

-- An account whose provider said "slow down" or whose token broke: nobody sends on it until then.
create table app.account_holds (
  organization_id uuid not null, channel_account_id uuid not null, reason text not null, until timestamptz not null, created_at timestamptz not null default now(),
  constraint account_holds_pkey primary key (organization_id, channel_account_id),
  constraint account_holds_channel_account_id_fkey foreign key (organization_id, channel_account_id) references public.channel_accounts (organization_id, id) on delete cascade
);

create table app.webhook_queue (
  organization_id uuid not null, delivery_id uuid not null, webhook_id uuid not null,
  state text not null default 'available', due_at timestamptz not null default clock_timestamp(), attempts integer not null default 0, lost_leases integer not null default 0,
  lease_token uuid, lease_until timestamptz, claimed_by text, last_error text,
  constraint webhook_queue_pkey primary key (organization_id, delivery_id),
  constraint webhook_queue_delivery_id_fkey foreign key (organization_id, delivery_id) references public.webhook_deliveries (organization_id, id) on delete cascade,
  constraint webhook_queue_state_check check (state in ('available', 'running', 'dead'))
) with (fillfactor = 70);
create index webhook_queue_claim_idx on app.webhook_queue (due_at) where state = 'available';

create table app.rule_queue (
  organization_id uuid not null, id uuid not null default uuidv7(), rule_version_id uuid not null, event_seq bigint not null, action_index integer not null,
  state text not null default 'available', due_at timestamptz not null default clock_timestamp(), attempts integer not null default 0, lost_leases integer not null default 0,
  lease_token uuid, lease_until timestamptz, claimed_by text, last_error text,
  constraint rule_queue_pkey primary key (organization_id, id),
  constraint rule_queue_effect_key unique (organization_id, rule_version_id, event_seq, action_index),
  constraint rule_queue_rule_version_id_fkey foreign key (organization_id, rule_version_id) references public.automation_rule_versions (organization_id, id) on delete cascade,
  constraint rule_queue_state_check check (state in ('available', 'running', 'dead'))
) with (fillfactor = 70);
create index rule_queue_claim_idx on app.rule_queue (due_at) where state = 'available';

-- Bot waits, schedules, reminders: something that becomes due. `key` makes setting one again a move, not a second one.
create table app.timers (
  organization_id uuid not null, id uuid not null default uuidv7(), kind text not null, key text not null, payload jsonb not null default '{}',
  state text not null default 'available', due_at timestamptz not null, attempts integer not null default 0, lost_leases integer not null default 0,
  lease_token uuid, lease_until timestamptz, claimed_by text, last_error text,
  constraint timers_pkey primary key (organization_id, id),
  constraint timers_key_key unique (organization_id, kind, key),
  constraint timers_organization_id_fkey foreign key (organization_id) references public.organizations (id) on delete cascade,
  constraint timers_state_check check (state in ('available', 'running', 'dead'))
) with (fillfactor = 70);
create index timers_claim_idx on app.timers (due_at) where state = 'available';

create table app.jobs (
  organization_id uuid not null, id uuid not null default uuidv7(), kind text not null, key text, payload jsonb not null default '{}',
  state text not null default 'available', due_at timestamptz not null default clock_timestamp(), attempts integer not null default 0, lost_leases integer not null default 0,
  lease_token uuid, lease_until timestamptz, claimed_by text, last_error text,
  constraint jobs_pkey primary key (organization_id, id),
  constraint jobs_key_key unique (organization_id, kind, key),
  constraint jobs_organization_id_fkey foreign key (organization_id) references public.organizations (id) on delete cascade,
  constraint jobs_state_check check (state in ('available', 'running', 'dead'))
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 200);
-- By organization, because a claim goes round them: one with a thousand jobs stops nobody else.
create index jobs_claim_idx on app.jobs (kind, organization_id, due_at, id) where state = 'available';
create index jobs_lease_idx on app.jobs (lease_until) where state = 'running';

create table app.campaign_leases (
  organization_id uuid not null, campaign_id uuid not null, first_position integer not null, last_position integer not null,
  state text not null default 'available', due_at timestamptz not null default clock_timestamp(), attempts integer not null default 0,
  lease_token uuid, lease_until timestamptz, claimed_by text, last_error text,
  constraint campaign_leases_pkey primary key (organization_id, campaign_id, first_position),
  constraint campaign_leases_campaign_id_fkey foreign key (organization_id, campaign_id) references public.campaigns (organization_id, id) on delete cascade,
  constraint campaign_leases_state_check check (state in ('available', 'running', 'dead')),
  constraint campaign_leases_range_check check (last_position >= first_position)
);

create table app.mail_outbox (
  organization_id uuid, id uuid not null default uuidv7(), recipient text not null, template text not null, payload text not null,
  state text not null default 'available', due_at timestamptz not null default clock_timestamp(), attempts integer not null default 0, lost_leases integer not null default 0,
  lease_token uuid, lease_until timestamptz, claimed_by text, last_error text, created_at timestamptz not null default now(),
  constraint mail_outbox_pkey primary key (id),
  constraint mail_outbox_organization_id_fkey foreign key (organization_id) references public.organizations (id) on delete cascade,
  constraint mail_outbox_state_check check (state in ('available', 'running', 'dead'))
);
create index mail_outbox_claim_idx on app.mail_outbox (due_at) where state = 'available';
