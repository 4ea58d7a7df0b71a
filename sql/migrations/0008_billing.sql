-- Billing: what Stripe knows of an organization (sql/functions/74_billing.sql).

alter table public.subscriptions
  add column quantity integer,
  add column trial_end timestamptz,
  add column past_due_since timestamptz;

-- What is said of an organization when it becomes a customer; written before Stripe is asked, and `id` is that call's Idempotency-Key: two
-- callers at once, or a second try, ask for the same customer.
create table app.billing_requests (
  organization_id uuid not null, id uuid not null default uuidv4(), name text not null, email text, created_at timestamptz not null default now(),
  constraint billing_requests_pkey primary key (organization_id),
  constraint billing_requests_organization_id_fkey foreign key (organization_id) references public.organizations (id) on delete cascade
);

-- Whose a customer of Stripe's is; an organization has one that stands. tickets: looks at his subscriptions that began; applied: the
-- youngest of them that was written down.
create table app.stripe_customers (
  id text not null, organization_id uuid not null, tickets bigint not null default 0, applied bigint not null default 0, checked_at timestamptz,
  created_at timestamptz not null default now(), deleted_at timestamptz,
  constraint stripe_customers_pkey primary key (id),
  constraint stripe_customers_organization_id_fkey foreign key (organization_id) references public.organizations (id) on delete cascade
);
create unique index stripe_customers_standing_key on app.stripe_customers (organization_id) where deleted_at is null;

-- Stripe's events that had their effect, by id; kept longer than Stripe repeats them.
create table app.stripe_events (
  id text not null, organization_id uuid not null, type text not null, received_at timestamptz not null default now(),
  constraint stripe_events_pkey primary key (id),
  constraint stripe_events_organization_id_fkey foreign key (organization_id) references public.organizations (id) on delete cascade
);
create index stripe_events_received_at_idx on app.stripe_events (received_at);
create index stripe_events_organization_id_idx on app.stripe_events (organization_id);
