-- Organizations, their members and teams, and what signs people in.

create table public.organizations (
  id          uuid not null default uuidv7(),
  name        text not null,
  suit_id     text,
  settings    jsonb not null default '{}',
  timezone    text not null default 'UTC',
  locale      text not null default 'en',
  currency    text not null default 'USD',
  created_at  timestamptz not null default now(),
  updated_at  timestamptz not null default now(),
  version     integer not null default 1,
  constraint organizations_pkey primary key (id),
  constraint organizations_name_check check (length(name) between 1 and 200),
  constraint organizations_settings_check check (jsonb_typeof(settings) = 'object'),
  constraint organizations_locale_check check (locale ~ '^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$'),
  constraint organizations_suit_id_check check (length(suit_id) between 1 and 200),
  constraint organizations_currency_check check (currency ~ '^[A-Z]{3}$')
);
create index organizations_suit_id_idx on public.organizations (suit_id) where suit_id is not null;

create table auth.users (
  id                  uuid not null default uuidv7(),
  email               text not null,
  encrypted_password  text,
  email_confirmed_at  timestamptz,
  last_sign_in_at     timestamptz,
  banned_until        timestamptz,
  user_metadata       jsonb not null default '{}',
  app_metadata        jsonb not null default '{}',
  created_at          timestamptz not null default now(),
  updated_at          timestamptz not null default now(),
  constraint users_pkey primary key (id),
  constraint users_email_check check (email = lower(email) and length(email) between 3 and 320)
);
create unique index users_email_key on auth.users (email);

create table public.memberships (
  organization_id      uuid not null default app.org(),
  user_id              uuid not null,
  role                 text not null default 'AGENT',
  first_name           text,
  last_name            text,
  email                text,
  avatar_url           text,
  is_active            boolean not null default true,
  can_access_crm       boolean not null default true,
  can_access_pm        boolean not null default false,
  can_manage_team      boolean not null default false,
  can_manage_settings  boolean not null default false,
  can_send_messages    boolean not null default true,
  can_read_messages    boolean not null default true,
  visibility           text not null default 'all',
  team_ids             uuid[] not null default '{}',
  availability         text not null default 'online',
  preferences          jsonb not null default '{}',
  created_at           timestamptz not null default now(),
  updated_at           timestamptz not null default now(),
  version              integer not null default 1,
  constraint memberships_pkey primary key (organization_id, user_id),
  constraint memberships_organization_id_fkey foreign key (organization_id) references public.organizations (id) on delete cascade,
  constraint memberships_user_id_fkey foreign key (user_id) references auth.users (id) on delete cascade,
  constraint memberships_role_check check (role in ('OWNER', 'ADMIN', 'AGENT')),
  constraint memberships_visibility_check check (visibility in ('all', 'team', 'mine')),
  constraint memberships_availability_check check (availability in ('online', 'away', 'offline')),
  constraint memberships_owner_check check (role <> 'OWNER' or (can_access_crm and can_access_pm and can_manage_team
    and can_manage_settings and can_send_messages and can_read_messages and visibility = 'all'))
);
create index memberships_user_id_idx on public.memberships (user_id);

create table public.teams (
  organization_id uuid not null default app.org(),
  id uuid not null default uuidv7(), name text not null, description text,
  created_at timestamptz not null default now(), updated_at timestamptz not null default now(), version integer not null default 1,
  constraint teams_pkey primary key (organization_id, id),
  constraint teams_organization_id_fkey foreign key (organization_id) references public.organizations (id) on delete cascade,
  constraint teams_name_key unique (organization_id, name),
  constraint teams_name_check check (length(name) between 1 and 100)
);

create table public.team_members (
  organization_id uuid not null default app.org(), team_id uuid not null, user_id uuid not null,
  created_at timestamptz not null default now(),
  constraint team_members_pkey primary key (organization_id, team_id, user_id),
  constraint team_members_team_id_fkey foreign key (organization_id, team_id) references public.teams (organization_id, id) on delete cascade,
  constraint team_members_user_id_fkey foreign key (organization_id, user_id) references public.memberships (organization_id, user_id) on delete cascade
);

-- The token's hash lives in app.invitation_tokens: nothing secret stands in a table that people can read.
create table public.invitations (
  organization_id uuid not null default app.org(),
  id uuid not null default uuidv7(), email text not null, role text not null default 'AGENT',
  permissions jsonb, invited_by uuid, expires_at timestamptz not null default now() + interval '7 days',
  accepted_at timestamptz, revoked_at timestamptz,
  created_at timestamptz not null default now(), updated_at timestamptz not null default now(), version integer not null default 1,
  constraint invitations_pkey primary key (organization_id, id),
  constraint invitations_organization_id_fkey foreign key (organization_id) references public.organizations (id) on delete cascade,
  constraint invitations_invited_by_fkey foreign key (organization_id, invited_by) references public.memberships (organization_id, user_id) on delete set null (invited_by),
  constraint invitations_role_check check (role in ('OWNER', 'ADMIN', 'AGENT')),
  constraint invitations_email_check check (email = lower(email) and email like '%_@_%'),
  constraint invitations_outcome_check check (accepted_at is null or revoked_at is null)
);
create unique index invitations_pending_key on public.invitations (organization_id, email) where accepted_at is null and revoked_at is null;

-- The key's hash lives in app.api_key_hashes.
create table public.api_keys (
  organization_id uuid not null default app.org(),
  id uuid not null default uuidv7(), name text not null, key_prefix text not null,
  permissions jsonb not null default '{"can_send_messages": true, "can_read_messages": false}',
  created_by uuid, expires_at timestamptz, last_used_at timestamptz, revoked_at timestamptz,
  created_at timestamptz not null default now(), updated_at timestamptz not null default now(), version integer not null default 1,
  constraint api_keys_pkey primary key (organization_id, id),
  constraint api_keys_organization_id_fkey foreign key (organization_id) references public.organizations (id) on delete cascade,
  constraint api_keys_created_by_fkey foreign key (organization_id, created_by) references public.memberships (organization_id, user_id) on delete set null (created_by),
  constraint api_keys_key_prefix_check check (key_prefix ~ '^cg_[0-9A-Za-z]{8}$'),
  constraint api_keys_name_check check (length(name) between 1 and 200),
  constraint api_keys_permissions_check check (jsonb_typeof(permissions) = 'object')
);

create table public.subscriptions (
  organization_id uuid not null default app.org(),
  id uuid not null default uuidv7(), stripe_customer_id text, stripe_subscription_id text, product_id text, price_id text,
  plan text, status text, subscription_end timestamptz, cancel_at_period_end boolean not null default false,
  created_at timestamptz not null default now(), updated_at timestamptz not null default now(), version integer not null default 1,
  constraint subscriptions_pkey primary key (organization_id, id),
  constraint subscriptions_organization_id_fkey foreign key (organization_id) references public.organizations (id) on delete cascade,
  constraint subscriptions_stripe_subscription_id_key unique (organization_id, stripe_subscription_id)
);

create table public.audit_log (
  organization_id uuid not null default app.org(),
  id uuid not null default uuidv7(), at timestamptz not null default clock_timestamp(),
  actor_kind text not null, actor_id uuid, action text not null, target_table text, target_id uuid,
  details jsonb not null default '{}', ip inet, request_id text,
  created_at timestamptz not null default now(),
  constraint audit_log_pkey primary key (organization_id, id),
  constraint audit_log_organization_id_fkey foreign key (organization_id) references public.organizations (id) on delete cascade
);
create index audit_log_at_idx on public.audit_log (organization_id, at desc);

-- Sign-in (GoTrue's nouns).
create table auth.sessions (
  id uuid not null default uuidv7(), user_id uuid not null, organization_id uuid, is_web boolean not null default false,
  aal text not null default 'aal1', user_agent text, ip inet,
  created_at timestamptz not null default now(), refreshed_at timestamptz, revoked_at timestamptz,
  constraint sessions_pkey primary key (id),
  constraint sessions_user_id_fkey foreign key (user_id) references auth.users (id) on delete cascade,
  constraint sessions_organization_id_fkey foreign key (organization_id) references public.organizations (id) on delete set null
);
create index sessions_user_id_idx on auth.sessions (user_id);

create table auth.refresh_tokens (
  id uuid not null default uuidv7(), session_id uuid not null, token_hash bytea not null, parent_id uuid, child_sealed bytea,
  created_at timestamptz not null default now(), used_at timestamptz, revoked_at timestamptz,
  constraint refresh_tokens_pkey primary key (id),
  constraint refresh_tokens_session_id_fkey foreign key (session_id) references auth.sessions (id) on delete cascade,
  constraint refresh_tokens_parent_id_fkey foreign key (parent_id) references auth.refresh_tokens (id) on delete set null
);
create unique index refresh_tokens_token_hash_key on auth.refresh_tokens (token_hash);
create index refresh_tokens_session_id_idx on auth.refresh_tokens (session_id);
create index refresh_tokens_parent_id_idx on auth.refresh_tokens (parent_id);

-- Failed sign-ins by (account, network): growing delay, never a lasting lock. Counted here and not in Redis, so it fails closed.
create table auth.sign_in_failures (
  account text not null, network text not null, failures integer not null default 1, last_at timestamptz not null default now(),
  constraint sign_in_failures_pkey primary key (account, network)
);
