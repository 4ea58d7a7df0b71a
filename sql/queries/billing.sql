-- Billing: an organization at Stripe.

-- name: billing_request
-- What organization $1 asks Stripe for, made with address $2 (or null) when nothing stands; stripe_customer_id is null until he is there.
select id, stripe_customer_id, name, email from app.billing_request($1, $2);

-- name: keep_stripe_customer
-- Write down that Stripe made customer $2 for organization $1; the customer that stands.
select app.keep_stripe_customer($1, $2);

-- name: billing_standing
-- The Stripe customer of organization $1 and the seconds since he was looked at (null: never); no row when there is none.
select stripe_customer_id, checked_s from app.billing_standing($1);

-- name: billing_owner
-- The organization of customer $1, who becomes that of organization $2 (or null) if he is nobody's and it has none.
select app.billing_owner($1, $2);

-- name: stripe_event_applied
-- Whether event $1 had its effect.
select app.stripe_event_applied($1);

-- name: begin_billing_look
-- The place of a look at customer $1 that begins now; null when he is nobody's.
select app.begin_billing_look($1);

-- name: apply_subscriptions
-- Write down subscriptions $3 of customer $1 as look $2 saw them, because of event $4 of type $5 (null both: none).
select app.apply_subscriptions($1, $2, $3::jsonb, $4, $5);

-- name: end_billing_customer
-- Customer $1 was deleted at Stripe, as event $2 of type $3 tells.
select app.end_billing_customer($1, $2, $3);

-- name: current_subscription
-- The subscription that counts: one that is good, or the newest. Past due is good for $1 seconds. As the caller.
select s.status, s.product_id, s.price_id, s.plan, s.quantity, s.subscription_end, s.cancel_at_period_end, s.trial_end,
       coalesce(s.status in ('active', 'trialing') or (s.status = 'past_due' and s.past_due_since > now() - make_interval(secs => $1)), false) as subscribed
  from public.subscriptions s where s.organization_id = (select app.org())
 order by subscribed desc, s.created_at desc, s.id desc limit 1;
