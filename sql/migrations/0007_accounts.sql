-- Accounts: the mails about them.

-- `key`: one waiting mail for one purpose; a later one takes its place. `only_if` user: sent when the address has an account by
-- then; strangers' requests leave the same row behind whether it has one or not.
alter table app.mail_outbox
  add column key text,
  add column only_if text,
  add constraint mail_outbox_only_if_check check (only_if = 'user'),
  add constraint mail_outbox_lease_check check ((state = 'running') = (lease_token is not null));
create unique index mail_outbox_key_key on app.mail_outbox (organization_id, key) nulls not distinct where key is not null;
create index mail_outbox_lease_idx on app.mail_outbox (lease_until) where state = 'running';

-- An address that is asked for and not yet confirmed; when what was sent.
alter table auth.users
  add column email_change text, add column email_change_sent_at timestamptz, add column confirmation_sent_at timestamptz, add column invited_at timestamptz,
  add constraint users_email_ascii_check check (email !~ '[^[:ascii:]]');
-- How the session's user proved who he is ([{method, timestamp}], the latest first), and when last.
alter table auth.sessions
  add column amr jsonb not null default '[]', add column proved_at timestamptz not null default now(),
  add constraint sessions_aal_check check (aal in ('aal1', 'aal2'));

-- Links and codes that go by mail, and the codes of the PKCE flow: one of a kind for one subject (an address, or a user's id), used once.
-- Addresses without an account get the same rows; `sends` slows down whoever asks again and again.
create table auth.one_time_tokens (
  subject text not null, kind text not null, email text not null, token_hash bytea not null, code_hash bytea not null, data jsonb not null default '{}',
  wrong_codes integer not null default 0, sends integer not null default 1, created_at timestamptz not null default now(), expires_at timestamptz not null,
  constraint one_time_tokens_pkey primary key (subject, kind),
  constraint one_time_tokens_kind_check check (kind in ('signup', 'recovery', 'magiclink', 'invite', 'email_change', 'reauthentication', 'pkce'))
);
create unique index one_time_tokens_token_hash_key on auth.one_time_tokens (token_hash);
create index one_time_tokens_email_idx on auth.one_time_tokens (email, kind);
create index one_time_tokens_created_at_idx on auth.one_time_tokens (created_at);

-- Second factors (TOTP): secrets sealed, the last step used so that no code works twice; and the codes for whoever lost the phone.
create table auth.mfa_factors (
  id uuid not null default uuidv7(), user_id uuid not null, friendly_name text, status text not null default 'unverified', secret_sealed text not null,
  last_step bigint not null default 0, last_challenged_at timestamptz, created_at timestamptz not null default now(), updated_at timestamptz not null default now(),
  constraint mfa_factors_pkey primary key (id),
  constraint mfa_factors_user_id_fkey foreign key (user_id) references auth.users (id) on delete cascade,
  constraint mfa_factors_status_check check (status in ('unverified', 'verified')),
  constraint mfa_factors_friendly_name_check check (length(friendly_name) <= 100)
);
create index mfa_factors_user_id_idx on auth.mfa_factors (user_id);
create table auth.mfa_challenges (
  id uuid not null default uuidv7(), factor_id uuid not null, created_at timestamptz not null default now(), expires_at timestamptz not null,
  constraint mfa_challenges_pkey primary key (id),
  constraint mfa_challenges_factor_id_fkey foreign key (factor_id) references auth.mfa_factors (id) on delete cascade
);
create index mfa_challenges_factor_id_idx on auth.mfa_challenges (factor_id);
create table auth.recovery_codes (
  user_id uuid not null, code_hash bytea not null, created_at timestamptz not null default now(), used_at timestamptz,
  constraint recovery_codes_pkey primary key (user_id, code_hash),
  constraint recovery_codes_user_id_fkey foreign key (user_id) references auth.users (id) on delete cascade
);

-- A signing key is published before it signs, so that whoever keeps the public keys for ten minutes knows it by then; an old one verifies
-- until its last token has run out (retired_at).
alter table app.signing_keys add column signs_from timestamptz not null default now();
