-- Billing: who an organization is at Stripe, and its subscriptions as Stripe last told. Reached by the runtime's login alone.

-- What to ask Stripe for: the request that stands, made when there is none, and the customer it has led to (null: none yet). No row: no
-- such organization.
create or replace function app.billing_request(org uuid, mail text)
  returns table (id uuid, stripe_customer_id text, name text, email text)
  language plpgsql security definer set search_path = pg_catalog, pg_temp
  as $$
  #variable_conflict use_column
  begin
    insert into app.billing_requests (organization_id, name, email) select o.id, o.name, mail from public.organizations o where o.id = org
    on conflict (organization_id) do nothing;
    return query select r.id, c.id, r.name, r.email
      from app.billing_requests r left join app.stripe_customers c on c.organization_id = r.organization_id and c.deleted_at is null
     where r.organization_id = org;
  end $$;

-- Write down which customer Stripe made; gives the one that stands, which is the first.
create or replace function app.keep_stripe_customer(org uuid, customer text) returns text
  language plpgsql security definer set search_path = pg_catalog, pg_temp
  as $$
  begin
    insert into app.stripe_customers (id, organization_id) values (customer, org) on conflict do nothing;
    return (select c.id from app.stripe_customers c where c.organization_id = org and c.deleted_at is null);
  end $$;

-- An organization's customer at Stripe and the seconds since his subscriptions were last looked at (null: never). No row: none yet.
create or replace function app.billing_standing(org uuid) returns table (stripe_customer_id text, checked_s double precision)
  language sql stable security definer set search_path = pg_catalog, pg_temp
  as $$
    select c.id, extract(epoch from clock_timestamp() - c.checked_at)::double precision
      from app.stripe_customers c where c.organization_id = org and c.deleted_at is null
  $$;

-- Whose customer an event speaks of. One that we know stays whose he is, whatever the event claims: a payment link lets its visitor
-- choose client_reference_id. A stranger becomes the customer of the organization that is claimed, if it has none. Null: nobody's.
create or replace function app.billing_owner(customer text, claimed uuid) returns uuid
  language plpgsql security definer set search_path = pg_catalog, pg_temp
  as $$
  begin
    insert into app.stripe_customers (id, organization_id) select customer, o.id from public.organizations o where o.id = claimed
    on conflict do nothing;
    return (select c.organization_id from app.stripe_customers c where c.id = customer and c.deleted_at is null);
  end $$;

-- Whether this event had its effect.
create or replace function app.stripe_event_applied(event text) returns boolean
  language sql stable security definer set search_path = pg_catalog, pg_temp
  as $$ select exists (select from app.stripe_events e where e.id = event) $$;

-- A look at a customer's subscriptions begins: its place among the looks. Null: he is nobody's.
create or replace function app.begin_billing_look(customer text) returns bigint
  language sql security definer set search_path = pg_catalog, pg_temp
  as $$
    update app.stripe_customers c set tickets = c.tickets + 1 where c.id = customer and c.deleted_at is null returning c.tickets
  $$;

-- Write down what a look saw, with the event that was its reason (null: none), once an event. A change at Stripe sends an event after it
-- happened, whose look sees it; so of two looks the one that began later wins, in whatever order they come back.
-- outcome: applied · repeated (the event had its effect) · overtaken (a younger look is written down) · unknown (nobody's customer)
create or replace function app.apply_subscriptions(customer text, ticket bigint, seen jsonb, event text, event_type text) returns text
  language plpgsql security definer set search_path = pg_catalog, pg_temp
  as $$
  declare
    c app.stripe_customers;
  begin
    select * into c from app.stripe_customers x where x.id = customer and x.deleted_at is null for update;
    if not found then
      return 'unknown';
    end if;
    if event is not null then
      insert into app.stripe_events (id, organization_id, type) values (event, c.organization_id, event_type) on conflict (id) do nothing;
      if not found then
        return 'repeated';
      end if;
    end if;
    if ticket <= c.applied then
      return 'overtaken';
    end if;
    update app.stripe_customers x set applied = ticket, checked_at = clock_timestamp() where x.id = customer;
    perform set_config('hub.ctx', jsonb_build_object('kind', 'system', 'org', c.organization_id, 'actor', 'stripe', 'request', event)::text, true);
    insert into public.subscriptions as s (organization_id, stripe_customer_id, stripe_subscription_id, product_id, price_id, plan, status, quantity,
                                           subscription_end, cancel_at_period_end, trial_end, past_due_since, created_at)
    select c.organization_id, customer, n.id, n.product_id, n.price_id, n.plan, n.status, n.quantity, to_timestamp(n.period_end), n.cancel_at_period_end,
           to_timestamp(n.trial_end), case when n.status = 'past_due' then now() end, to_timestamp(n.created)
      from jsonb_to_recordset(seen) n (id text, product_id text, price_id text, plan text, status text, quantity integer, period_end bigint,
                                       cancel_at_period_end boolean, trial_end bigint, created bigint)
    on conflict (organization_id, stripe_subscription_id) do update
       set stripe_customer_id = excluded.stripe_customer_id, product_id = excluded.product_id, price_id = excluded.price_id, plan = excluded.plan,
           status = excluded.status, quantity = excluded.quantity, subscription_end = excluded.subscription_end,
           cancel_at_period_end = excluded.cancel_at_period_end, trial_end = excluded.trial_end,
           past_due_since = case when excluded.status = 'past_due' then coalesce(s.past_due_since, now()) end
     where (s.stripe_customer_id, s.product_id, s.price_id, s.plan, s.status, s.quantity, s.subscription_end, s.cancel_at_period_end, s.trial_end)
        is distinct from (excluded.stripe_customer_id, excluded.product_id, excluded.price_id, excluded.plan, excluded.status, excluded.quantity,
                          excluded.subscription_end, excluded.cancel_at_period_end, excluded.trial_end);
    delete from app.stripe_events e where e.ctid = any (array(
      select ctid from app.stripe_events where received_at < now() - interval '60 days' limit 100 for update skip locked));
    return 'applied';
  end $$;

-- A customer was deleted at Stripe, and his subscriptions with him; the next checkout makes another one. Outcomes as above.
create or replace function app.end_billing_customer(customer text, event text, event_type text) returns text
  language plpgsql security definer set search_path = pg_catalog, pg_temp
  as $$
  declare
    c app.stripe_customers;
  begin
    select * into c from app.stripe_customers x where x.id = customer and x.deleted_at is null for update;
    if not found then
      return 'unknown';
    end if;
    insert into app.stripe_events (id, organization_id, type) values (event, c.organization_id, event_type) on conflict (id) do nothing;
    update app.stripe_customers x set deleted_at = now() where x.id = customer;
    delete from app.billing_requests r where r.organization_id = c.organization_id;
    perform set_config('hub.ctx', jsonb_build_object('kind', 'system', 'org', c.organization_id, 'actor', 'stripe', 'request', event)::text, true);
    update public.subscriptions s set status = 'canceled', past_due_since = null
     where s.organization_id = c.organization_id and s.stripe_customer_id = customer and s.status <> 'canceled';
    return 'applied';
  end $$;
