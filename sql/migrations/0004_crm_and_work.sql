-- Deals, tasks, projects, notes, templates, flows, rules, campaigns, webhooks and the rest of what the API shows.

create table public.pipelines (
  organization_id uuid not null default app.org(),
  id uuid not null default uuidv7(), name text not null, stages jsonb not null default '[]', is_default boolean not null default false,
  created_at timestamptz not null default now(), updated_at timestamptz not null default now(), version integer not null default 1,
  constraint pipelines_pkey primary key (organization_id, id),
  constraint pipelines_organization_id_fkey foreign key (organization_id) references public.organizations (id) on delete cascade,
  constraint pipelines_stages_check check (jsonb_typeof(stages) = 'array'),
  constraint pipelines_name_check check (length(name) between 1 and 200)
);
create unique index pipelines_default_key on public.pipelines (organization_id) where is_default;

create table public.deals (
  organization_id uuid not null default app.org(),
  id uuid not null default uuidv7(), contact_id uuid, company_id uuid, conversation_id uuid, pipeline_id uuid, owner_id uuid,
  title text not null, stage text not null default 'lead', value numeric, currency text, probability integer, expected_close_date date,
  lost_reason text, closed_at timestamptz, tags text[] not null default '{}', custom_fields jsonb not null default '{}', cause jsonb,
  created_at timestamptz not null default now(), updated_at timestamptz not null default now(), version integer not null default 1,
  constraint deals_pkey primary key (organization_id, id),
  constraint deals_organization_id_fkey foreign key (organization_id) references public.organizations (id) on delete cascade,
  constraint deals_contact_id_fkey foreign key (organization_id, contact_id) references public.contacts (organization_id, id) on delete set null (contact_id),
  constraint deals_company_id_fkey foreign key (organization_id, company_id) references public.companies (organization_id, id) on delete set null (company_id),
  constraint deals_conversation_id_fkey foreign key (organization_id, conversation_id) references public.conversations (organization_id, id) on delete set null (conversation_id),
  constraint deals_pipeline_id_fkey foreign key (organization_id, pipeline_id) references public.pipelines (organization_id, id) on delete set null (pipeline_id),
  constraint deals_owner_id_fkey foreign key (organization_id, owner_id) references public.memberships (organization_id, user_id) on delete set null (owner_id),
  constraint deals_probability_check check (probability between 0 and 100),
  constraint deals_currency_check check (currency ~ '^[A-Z]{3}$'),
  constraint deals_custom_fields_check check (jsonb_typeof(custom_fields) = 'object')
);
create index deals_created_at_idx on public.deals (organization_id, created_at desc);
create index deals_contact_id_idx on public.deals (organization_id, contact_id);
create index deals_pipeline_id_stage_idx on public.deals (organization_id, pipeline_id, stage);

create table public.projects (
  organization_id uuid not null default app.org(),
  id uuid not null default uuidv7(), name text not null, description text, status text not null default 'PLANNING',
  start_date date, end_date date, owner_id uuid, company_id uuid,
  created_at timestamptz not null default now(), updated_at timestamptz not null default now(), version integer not null default 1,
  constraint projects_pkey primary key (organization_id, id),
  constraint projects_organization_id_fkey foreign key (organization_id) references public.organizations (id) on delete cascade,
  constraint projects_owner_id_fkey foreign key (organization_id, owner_id) references public.memberships (organization_id, user_id) on delete set null (owner_id),
  constraint projects_company_id_fkey foreign key (organization_id, company_id) references public.companies (organization_id, id) on delete set null (company_id),
  constraint projects_status_check check (status in ('PLANNING', 'IN_PROGRESS', 'COMPLETED', 'DELAYED', 'CANCELLED')),
  constraint projects_dates_check check (end_date >= start_date)
);

create table public.milestones (
  organization_id uuid not null default app.org(),
  id uuid not null default uuidv7(), project_id uuid not null, name text not null, due_date date, completed_at timestamptz, position integer not null default 0,
  created_at timestamptz not null default now(), updated_at timestamptz not null default now(), version integer not null default 1,
  constraint milestones_pkey primary key (organization_id, id),
  constraint milestones_project_id_fkey foreign key (organization_id, project_id) references public.projects (organization_id, id) on delete cascade
);
create index milestones_project_id_idx on public.milestones (organization_id, project_id);

-- `status` follows completed and due_date; a trigger writes it on every change and the due timer when the moment passes.
create table public.tasks (
  organization_id uuid not null default app.org(),
  id uuid not null default uuidv7(), contact_id uuid, deal_id uuid, conversation_id uuid, project_id uuid, milestone_id uuid, assignee_id uuid,
  title text not null, description text, due_date timestamptz, completed boolean not null default false, completed_at timestamptz,
  priority text not null default 'MEDIUM', status text not null default 'TODO', reminded_at timestamptz, cause jsonb,
  created_at timestamptz not null default now(), updated_at timestamptz not null default now(), version integer not null default 1,
  constraint tasks_pkey primary key (organization_id, id),
  constraint tasks_organization_id_fkey foreign key (organization_id) references public.organizations (id) on delete cascade,
  constraint tasks_contact_id_fkey foreign key (organization_id, contact_id) references public.contacts (organization_id, id) on delete set null (contact_id),
  constraint tasks_deal_id_fkey foreign key (organization_id, deal_id) references public.deals (organization_id, id) on delete set null (deal_id),
  constraint tasks_conversation_id_fkey foreign key (organization_id, conversation_id) references public.conversations (organization_id, id) on delete set null (conversation_id),
  constraint tasks_project_id_fkey foreign key (organization_id, project_id) references public.projects (organization_id, id) on delete set null (project_id),
  constraint tasks_milestone_id_fkey foreign key (organization_id, milestone_id) references public.milestones (organization_id, id) on delete set null (milestone_id),
  constraint tasks_assignee_id_fkey foreign key (organization_id, assignee_id) references public.memberships (organization_id, user_id) on delete set null (assignee_id),
  constraint tasks_priority_check check (priority in ('LOW', 'MEDIUM', 'HIGH')),
  constraint tasks_status_check check (status in ('TODO', 'DONE', 'OVERDUE')),
  constraint tasks_title_check check (length(title) between 1 and 500)
);
create index tasks_due_date_idx on public.tasks (organization_id, due_date) where not completed;
create index tasks_contact_id_idx on public.tasks (organization_id, contact_id);
create index tasks_assignee_id_idx on public.tasks (organization_id, assignee_id) where not completed;

create table public.notes (
  organization_id uuid not null default app.org(),
  id uuid not null default uuidv7(), contact_id uuid, deal_id uuid, company_id uuid, conversation_id uuid, author_id uuid,
  content text not null, mentions uuid[] not null default '{}',
  created_at timestamptz not null default now(), updated_at timestamptz not null default now(), version integer not null default 1,
  constraint notes_pkey primary key (organization_id, id),
  constraint notes_organization_id_fkey foreign key (organization_id) references public.organizations (id) on delete cascade,
  constraint notes_contact_id_fkey foreign key (organization_id, contact_id) references public.contacts (organization_id, id) on delete cascade,
  constraint notes_deal_id_fkey foreign key (organization_id, deal_id) references public.deals (organization_id, id) on delete cascade,
  constraint notes_company_id_fkey foreign key (organization_id, company_id) references public.companies (organization_id, id) on delete cascade,
  constraint notes_conversation_id_fkey foreign key (organization_id, conversation_id) references public.conversations (organization_id, id) on delete cascade,
  constraint notes_author_id_fkey foreign key (organization_id, author_id) references public.memberships (organization_id, user_id) on delete set null (author_id),
  constraint notes_subject_check check (num_nonnulls(contact_id, deal_id, company_id, conversation_id) > 0),
  constraint notes_content_check check (length(content) between 1 and 65536)
);
create index notes_contact_id_idx on public.notes (organization_id, contact_id, created_at desc);
create index notes_conversation_id_idx on public.notes (organization_id, conversation_id) where conversation_id is not null;

create table public.templates (
  organization_id uuid not null default app.org(),
  id uuid not null default uuidv7(), name text not null, components jsonb not null default '[]', status text not null default 'DRAFT',
  category text not null default 'GENERAL', language text not null default 'en', channel_account_id uuid, provider_id text, rejection_reason text, shortcut text,
  created_at timestamptz not null default now(), updated_at timestamptz not null default now(), version integer not null default 1,
  constraint templates_pkey primary key (organization_id, id),
  constraint templates_organization_id_fkey foreign key (organization_id) references public.organizations (id) on delete cascade,
  constraint templates_channel_account_id_fkey foreign key (organization_id, channel_account_id) references public.channel_accounts (organization_id, id) on delete set null (channel_account_id),
  constraint templates_status_check check (status in ('DRAFT', 'PENDING', 'APPROVED', 'REJECTED')),
  constraint templates_category_check check (category in ('GENERAL', 'QUICK_REPLY', 'UTILITY', 'MARKETING', 'AUTHENTICATION')),
  constraint templates_components_check check (jsonb_typeof(components) = 'array'),
  constraint templates_name_check check (length(name) between 1 and 512)
);
alter table public.messages add constraint messages_template_id_fkey
  foreign key (organization_id, template_id) references public.templates (organization_id, id) on delete set null (template_id);

create table public.bot_flows (
  organization_id uuid not null default app.org(),
  id uuid not null default uuidv7(), name text not null, description text, nodes jsonb not null default '[]', edges jsonb not null default '[]',
  status text not null default 'DRAFT', published_version_id uuid,
  version integer not null default 1, revision integer not null default 1, -- version: of the flow, advanced by publishing; revision: of this row
  created_at timestamptz not null default now(), updated_at timestamptz not null default now(),
  constraint bot_flows_pkey primary key (organization_id, id),
  constraint bot_flows_organization_id_fkey foreign key (organization_id) references public.organizations (id) on delete cascade,
  constraint bot_flows_status_check check (status in ('DRAFT', 'PUBLISHED', 'ARCHIVED')),
  constraint bot_flows_graph_check check (jsonb_typeof(nodes) = 'array' and jsonb_typeof(edges) = 'array')
);

create table public.flow_versions (
  organization_id uuid not null default app.org(),
  id uuid not null default uuidv7(), flow_id uuid not null, number integer not null, nodes jsonb not null, edges jsonb not null, published_by uuid,
  created_at timestamptz not null default now(),
  constraint flow_versions_pkey primary key (organization_id, id),
  constraint flow_versions_flow_id_fkey foreign key (organization_id, flow_id) references public.bot_flows (organization_id, id) on delete cascade,
  constraint flow_versions_published_by_fkey foreign key (organization_id, published_by) references public.memberships (organization_id, user_id) on delete set null (published_by),
  constraint flow_versions_number_key unique (organization_id, flow_id, number)
);
alter table public.bot_flows add constraint bot_flows_published_version_id_fkey
  foreign key (organization_id, published_version_id) references public.flow_versions (organization_id, id) on delete set null (published_version_id);

create table public.bot_sessions (
  organization_id uuid not null default app.org(),
  id uuid not null default uuidv7(), flow_id uuid not null, flow_version_id uuid not null, conversation_id uuid, contact_id uuid,
  state text not null default 'active', node_id text, variables jsonb not null default '{}', step integer not null default 0,
  error text, cause jsonb, started_at timestamptz not null default now(), ended_at timestamptz,
  created_at timestamptz not null default now(), updated_at timestamptz not null default now(), version integer not null default 1,
  constraint bot_sessions_pkey primary key (organization_id, id),
  constraint bot_sessions_flow_id_fkey foreign key (organization_id, flow_id) references public.bot_flows (organization_id, id) on delete cascade,
  constraint bot_sessions_flow_version_id_fkey foreign key (organization_id, flow_version_id) references public.flow_versions (organization_id, id) on delete cascade,
  constraint bot_sessions_conversation_id_fkey foreign key (organization_id, conversation_id) references public.conversations (organization_id, id) on delete cascade,
  constraint bot_sessions_contact_id_fkey foreign key (organization_id, contact_id) references public.contacts (organization_id, id) on delete cascade,
  constraint bot_sessions_state_check check (state in ('active', 'waiting', 'paused', 'completed', 'failed')),
  constraint bot_sessions_ended_check check ((ended_at is null) = (state not in ('completed', 'failed')))
);
create unique index bot_sessions_live_key on public.bot_sessions (organization_id, conversation_id) where state in ('active', 'waiting');
create index bot_sessions_flow_id_idx on public.bot_sessions (organization_id, flow_id, created_at desc);

create table public.bot_session_steps (
  organization_id uuid not null default app.org(), session_id uuid not null, step integer not null, node_id text not null,
  input jsonb, output jsonb, error text, event_seq bigint, started_at timestamptz not null default now(), took_ms integer,
  created_at timestamptz not null default now(),
  constraint bot_session_steps_pkey primary key (organization_id, session_id, step),
  constraint bot_session_steps_session_id_fkey foreign key (organization_id, session_id) references public.bot_sessions (organization_id, id) on delete cascade
);

create table public.automation_rules (
  organization_id uuid not null default app.org(),
  id uuid not null default uuidv7(), name text not null, trigger_type text not null, trigger_event text,
  conditions jsonb not null default '[]', actions jsonb not null default '[]', is_active boolean not null default true,
  position integer not null default 0, current_version_id uuid, paused_reason text, owner_id uuid,
  created_at timestamptz not null default now(), updated_at timestamptz not null default now(), version integer not null default 1,
  constraint automation_rules_pkey primary key (organization_id, id),
  constraint automation_rules_organization_id_fkey foreign key (organization_id) references public.organizations (id) on delete cascade,
  constraint automation_rules_owner_id_fkey foreign key (organization_id, owner_id) references public.memberships (organization_id, user_id) on delete set null (owner_id),
  constraint automation_rules_json_check check (jsonb_typeof(conditions) in ('array', 'object') and jsonb_typeof(actions) = 'array')
);

create table public.automation_rule_versions (
  organization_id uuid not null default app.org(),
  id uuid not null default uuidv7(), rule_id uuid not null, number integer not null, trigger_event text not null, conditions jsonb not null, actions jsonb not null,
  created_by uuid, created_at timestamptz not null default now(),
  constraint automation_rule_versions_pkey primary key (organization_id, id),
  constraint automation_rule_versions_rule_id_fkey foreign key (organization_id, rule_id) references public.automation_rules (organization_id, id) on delete cascade,
  constraint automation_rule_versions_number_key unique (organization_id, rule_id, number)
);

-- The effect key of a rule: one row for (rule version, event, action), so an action cannot happen twice.
create table public.automation_runs (
  organization_id uuid not null default app.org(),
  id uuid not null default uuidv7(), rule_id uuid not null, rule_version_id uuid not null, event_seq bigint not null, action_index integer not null,
  outcome text not null, depth integer not null default 0, details jsonb not null default '{}', took_ms integer, created_at timestamptz not null default now(),
  constraint automation_runs_pkey primary key (organization_id, id),
  constraint automation_runs_rule_id_fkey foreign key (organization_id, rule_id) references public.automation_rules (organization_id, id) on delete cascade,
  constraint automation_runs_rule_version_id_fkey foreign key (organization_id, rule_version_id) references public.automation_rule_versions (organization_id, id) on delete cascade,
  constraint automation_runs_effect_key unique (organization_id, rule_version_id, event_seq, action_index)
);
create index automation_runs_rule_id_idx on public.automation_runs (organization_id, rule_id, created_at desc);

create table public.campaigns (
  organization_id uuid not null default app.org(),
  id uuid not null default uuidv7(), name text not null, type text not null, content text, target_type text not null default 'ALL',
  target_tags text[] not null default '{}', target_contacts uuid[] not null default '{}', status text not null default 'DRAFT',
  scheduled_at timestamptz, timezone text, image_url text, channel_account_id uuid, template_id uuid, template_parameters jsonb not null default '{}',
  pace_per_min integer, quiet_hours jsonb, started_at timestamptz, finished_at timestamptz, recipient_count integer, created_by uuid, forecast jsonb,
  created_at timestamptz not null default now(), updated_at timestamptz not null default now(), version integer not null default 1,
  constraint campaigns_pkey primary key (organization_id, id),
  constraint campaigns_organization_id_fkey foreign key (organization_id) references public.organizations (id) on delete cascade,
  constraint campaigns_channel_account_id_fkey foreign key (organization_id, channel_account_id) references public.channel_accounts (organization_id, id) on delete set null (channel_account_id),
  constraint campaigns_template_id_fkey foreign key (organization_id, template_id) references public.templates (organization_id, id) on delete set null (template_id),
  constraint campaigns_created_by_fkey foreign key (organization_id, created_by) references public.memberships (organization_id, user_id) on delete set null (created_by),
  constraint campaigns_type_check check (type in ('SMS', 'WHATSAPP_LITE', 'WHATSAPP_BUSINESS', 'WHATSAPP_CLOUD', 'EMAIL', 'PUSH', 'SHRINKIT_PUSH')),
  constraint campaigns_target_type_check check (target_type in ('ALL', 'TAGS', 'INDIVIDUAL')),
  constraint campaigns_status_check check (status in ('DRAFT', 'SCHEDULED', 'SENDING', 'PAUSED', 'COMPLETED', 'CANCELLED')),
  constraint campaigns_pace_check check (pace_per_min > 0)
);
alter table public.messages add constraint messages_campaign_id_fkey
  foreign key (organization_id, campaign_id) references public.campaigns (organization_id, id) on delete set null (campaign_id);

create table public.campaign_recipients (
  organization_id uuid not null default app.org(), campaign_id uuid not null, position integer not null, contact_id uuid not null, identity_id uuid,
  status text not null default 'queued', reason text, message_id uuid, queued_at timestamptz not null default now(),
  sent_at timestamptz, delivered_at timestamptz, read_at timestamptz, failed_at timestamptz,
  created_at timestamptz not null default now(), updated_at timestamptz not null default now(),
  constraint campaign_recipients_pkey primary key (organization_id, campaign_id, position),
  constraint campaign_recipients_identity_key unique (organization_id, campaign_id, identity_id),
  constraint campaign_recipients_campaign_id_fkey foreign key (organization_id, campaign_id) references public.campaigns (organization_id, id) on delete cascade,
  constraint campaign_recipients_contact_id_fkey foreign key (organization_id, contact_id) references public.contacts (organization_id, id) on delete cascade,
  constraint campaign_recipients_identity_id_fkey foreign key (organization_id, identity_id) references public.contact_identities (organization_id, id) on delete set null (identity_id),
  constraint campaign_recipients_status_check check (status in ('queued', 'sent', 'delivered', 'read', 'failed', 'skipped', 'unknown'))
);
create index campaign_recipients_message_id_idx on public.campaign_recipients (organization_id, message_id) where message_id is not null;
create index campaign_recipients_contact_id_idx on public.campaign_recipients (organization_id, contact_id);

-- The signing secrets live in app.secrets.
create table public.webhooks (
  organization_id uuid not null default app.org(),
  id uuid not null default uuidv7(), name text, url text not null, events text[] not null default '{}', is_active boolean not null default true,
  description text, state text not null default 'ok', paused_reason text, last_success_at timestamptz, last_failure_at timestamptz, secret_rotated_at timestamptz,
  created_at timestamptz not null default now(), updated_at timestamptz not null default now(), version integer not null default 1,
  constraint webhooks_pkey primary key (organization_id, id),
  constraint webhooks_organization_id_fkey foreign key (organization_id) references public.organizations (id) on delete cascade,
  constraint webhooks_url_check check (url ~ '^https?://' and length(url) <= 2048),
  constraint webhooks_state_check check (state in ('ok', 'failing', 'paused', 'disabled'))
);

create table public.webhook_deliveries (
  organization_id uuid not null default app.org(),
  id uuid not null default uuidv7(), webhook_id uuid not null, event_seq bigint not null, event_name text not null, status text not null default 'pending',
  attempts integer not null default 0, response_status integer, response_excerpt text, latency_ms integer, error text, next_attempt_at timestamptz, delivered_at timestamptz,
  created_at timestamptz not null default now(), updated_at timestamptz not null default now(),
  constraint webhook_deliveries_pkey primary key (organization_id, id),
  constraint webhook_deliveries_webhook_id_fkey foreign key (organization_id, webhook_id) references public.webhooks (organization_id, id) on delete cascade,
  constraint webhook_deliveries_event_key unique (organization_id, webhook_id, event_seq),
  constraint webhook_deliveries_status_check check (status in ('pending', 'delivered', 'retrying', 'failed', 'parked'))
);
create index webhook_deliveries_created_at_idx on public.webhook_deliveries (organization_id, created_at desc);

create table public.custom_field_definitions (
  organization_id uuid not null default app.org(),
  id uuid not null default uuidv7(), entity text not null, key text not null, label text not null, field_type text not null, options jsonb not null default '[]',
  is_required boolean not null default false, position integer not null default 0,
  created_at timestamptz not null default now(), updated_at timestamptz not null default now(), version integer not null default 1,
  constraint custom_field_definitions_pkey primary key (organization_id, id),
  constraint custom_field_definitions_organization_id_fkey foreign key (organization_id) references public.organizations (id) on delete cascade,
  constraint custom_field_definitions_key_key unique (organization_id, entity, key),
  constraint custom_field_definitions_entity_check check (entity in ('contact', 'company', 'deal', 'conversation')),
  constraint custom_field_definitions_type_check check (field_type in ('text', 'number', 'date', 'boolean', 'select', 'multi_select', 'url', 'email', 'phone'))
);

create table public.saved_views (
  organization_id uuid not null default app.org(),
  id uuid not null default uuidv7(), user_id uuid, entity text not null, name text not null, definition jsonb not null default '{}', is_shared boolean not null default false,
  created_at timestamptz not null default now(), updated_at timestamptz not null default now(), version integer not null default 1,
  constraint saved_views_pkey primary key (organization_id, id),
  constraint saved_views_organization_id_fkey foreign key (organization_id) references public.organizations (id) on delete cascade,
  constraint saved_views_user_id_fkey foreign key (organization_id, user_id) references public.memberships (organization_id, user_id) on delete cascade
);

create table public.imports (
  organization_id uuid not null default app.org(),
  id uuid not null default uuidv7(), entity text not null, source text not null default 'csv', state text not null default 'running', file_name text,
  mapping jsonb not null default '{}', total integer not null default 0, imported integer not null default 0, updated integer not null default 0,
  skipped integer not null default 0, failed integer not null default 0, created_by uuid, finished_at timestamptz, undone_at timestamptz,
  created_at timestamptz not null default now(), updated_at timestamptz not null default now(), version integer not null default 1,
  constraint imports_pkey primary key (organization_id, id),
  constraint imports_organization_id_fkey foreign key (organization_id) references public.organizations (id) on delete cascade,
  constraint imports_created_by_fkey foreign key (organization_id, created_by) references public.memberships (organization_id, user_id) on delete set null (created_by),
  constraint imports_state_check check (state in ('running', 'completed', 'failed', 'undone'))
);

create table public.import_rows (
  organization_id uuid not null default app.org(), import_id uuid not null, line integer not null, outcome text not null, target_id uuid, before jsonb, error jsonb,
  created_at timestamptz not null default now(),
  constraint import_rows_pkey primary key (organization_id, import_id, line),
  constraint import_rows_import_id_fkey foreign key (organization_id, import_id) references public.imports (organization_id, id) on delete cascade,
  constraint import_rows_outcome_check check (outcome in ('imported', 'updated', 'skipped', 'failed'))
);

create table public.dashboard_widgets (
  organization_id uuid not null default app.org(),
  id uuid not null default uuidv7(), user_id uuid not null, widget_type text not null, layout jsonb not null default '{}', config jsonb not null default '{}',
  is_visible boolean not null default true,
  created_at timestamptz not null default now(), updated_at timestamptz not null default now(), version integer not null default 1,
  constraint dashboard_widgets_pkey primary key (organization_id, id),
  constraint dashboard_widgets_user_id_fkey foreign key (organization_id, user_id) references public.memberships (organization_id, user_id) on delete cascade
);
create index dashboard_widgets_user_id_idx on public.dashboard_widgets (organization_id, user_id);

-- The members of the caller's organization, under the name that Supabase users know. Written through app.write_profile.
create view public.profiles with (security_invoker = true) as
  select user_id as id, organization_id, role, first_name, last_name, email, avatar_url, is_active, availability, created_at, updated_at, version
    from public.memberships
   where organization_id = (select app.org());
