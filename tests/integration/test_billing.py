"""PAY-01, PAY-02, PAY-03, HOOK-08 and what X-19 says of addresses: the whole circle with Stripe, whom the
sandbox plays. No call is replaced: the hub's `stripe` package talks to it over HTTP, and its webhooks come
back signed."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
import stripe
from structlog.testing import capture_logs

from hub.db.embedded import EmbeddedValkey
from hub.db.pool import Database
from hub.sandbox.stripe import signature
from sql import q
from tests.factories import Member, Org, Servers, make_member, make_org
from tests.fakes.stripe import KEY, WEBHOOK, WEBHOOK_SECRET, Circle, running_circle, shown
from tests.server import Hub

CHECK, PORTAL = "/functions/v1/check-subscription", "/functions/v1/customer-portal"
CHECKOUT = "/functions/v1/create-checkout"
NOTHING = {
    "subscribed": False, "status": None, "product_id": None, "price_id": None, "plan": None, "quantity": None,
    "subscription_end": None, "cancel_at_period_end": False, "trial_end": None, "entitlements": {},
}  # fmt: skip


@pytest.fixture
async def circle(servers: Servers, valkey: EmbeddedValkey, tmp_path: Path) -> AsyncIterator[Circle]:
    async with running_circle(servers, valkey.url, tmp_path) as found:
        yield found


@pytest.fixture
async def token(circle: Circle, owner: Member) -> str:
    return await circle.hub.token(owner.email)


async def rows(conn: asyncpg.Connection, org: Org) -> list[asyncpg.Record]:
    found: list[asyncpg.Record] = await conn.fetch(
        "select * from subscriptions where organization_id = $1 order by created_at", org.id
    )
    return found


async def deeds(conn: asyncpg.Connection, org: Org) -> list[tuple[str, str]]:
    found = await conn.fetch(
        "select actor_kind, action from audit_log where organization_id = $1"
        " and target_table = 'subscriptions' order by id",
        org.id,
    )
    return [tuple(row) for row in found]


# create-checkout.


async def test_PAY_01_an_organization_pays_and_is_subscribed(
    circle: Circle, token: str, org: Org, owner: Member, superuser: asyncpg.Connection
) -> None:
    assert await circle.check(token) == NOTHING
    made = await circle.checkout(token, successUrl="/thanks?s={CHECKOUT_SESSION_ID}", quantity=3)
    assert made.status == 200
    url, session = made.json["url"], made.json["sessionId"]
    assert made.json.keys() == {"url", "sessionId"} and session.startswith("cs_test_")
    text, buttons = await circle.page(url)
    assert "99.00 USD/month × 3: Pro" in text and buttons == ["pay", "decline", "cancel"]
    status, _, text = await circle.click(url, "decline")
    assert status == 200 and "declined" in text
    assert (await circle.check(token))["subscribed"] is False
    status, back, _ = await circle.click(url, "pay")
    assert (status, back) == (303, f"{circle.hub.settings.public_base_url}/thanks?s={session}")
    await circle.all_taken()

    [customer], [subscription] = await circle.kept("customers"), await circle.kept("subscriptions")
    name = await superuser.fetchval("select name from organizations where id = $1", org.id)
    assert (customer["name"], customer["email"]) == (name, owner.email)
    assert customer["metadata"] == {"organization_id": str(org.id)}
    end = subscription["items"]["data"][0]["current_period_end"]
    assert "current_period_end" not in subscription, "it stands on the items"
    found = await circle.check(token)
    assert datetime.fromisoformat(found.pop("subscription_end")) == datetime.fromtimestamp(end, UTC)
    assert found == {
        "subscribed": True, "status": "active", "product_id": "prod_sandbox_pro",
        "price_id": "price_sandbox_pro", "plan": "pro", "quantity": 3, "cancel_at_period_end": False,
        "trial_end": None, "entitlements": {"members": 50, "campaigns": True},
    }  # fmt: skip
    assert await deeds(superuser, org) == [("stripe", "subscription.created")]


async def test_PAY_01_whoever_goes_back_has_bought_nothing(circle: Circle, token: str) -> None:
    made = await circle.checkout(token, cancelUrl="/prices")
    status, back, _ = await circle.click(made.json["url"], "cancel")
    assert (status, back) == (303, f"{circle.hub.settings.public_base_url}/prices")
    assert await circle.check(token) == NOTHING


async def test_PAY_01_many_at_once_are_one_customer(
    circle: Circle, token: str, org: Org, superuser: asyncpg.Connection, password_hash: str
) -> None:
    admin = await make_member(superuser, org, "ADMIN", password_hash)
    other = await circle.hub.token(admin.email)
    made = await asyncio.gather(*(circle.checkout(t) for t in (token, other) * 3))
    assert [answer.status for answer in made] == [200] * 6
    [customer] = await circle.kept("customers")
    assert {s["customer"] for s in await circle.kept("sessions")} == {customer["id"]}


async def test_PAY_01_an_answer_that_was_lost_makes_no_second_customer(circle: Circle, token: str) -> None:
    """The package tries again by itself, with the same key."""
    await circle.order(fail=1, accept=True)
    assert (await circle.checkout(token)).status == 200
    assert len(await circle.kept("customers")) == 1


async def test_PAY_01_after_all_tries_were_lost_the_same_customer_is_asked_for(
    circle: Circle, token: str
) -> None:
    """The hub knows of no customer; he is there, and the request that stands finds him."""
    await circle.order(fail=3, accept=True)
    lost = await circle.checkout(token)
    assert (lost.status, lost.json["code"]) == (503, "SERVICE_UNAVAILABLE")
    assert "Retry-After" in lost.headers
    assert len(await circle.kept("customers")) == 1
    assert (await circle.checkout(token)).status == 200
    assert len(await circle.kept("customers")) == 1


async def test_PAY_01_an_organization_has_one_customer_that_stands(
    db: Database, superuser: asyncpg.Connection
) -> None:
    """Whoever comes second, with another customer of Stripe's, is told of the first."""
    org = await make_org(superuser)
    async with db.connection("api") as conn:
        kept = [await conn.fetchval(q.keep_stripe_customer, org.id, key) for key in ("cus_1", "cus_2")]
    assert kept == ["cus_1", "cus_1"]
    assert await superuser.fetchval("select count(*) from app.stripe_customers") == 1


async def test_PAY_01_a_repeat_with_its_key_is_the_same_page(circle: Circle, token: str) -> None:
    headers = {"Idempotency-Key": "k1"}
    made = [
        await circle.hub.post(CHECKOUT, token=token, json={"plan": "pro"}, headers=headers) for _ in range(2)
    ]
    assert made[0].json == made[1].json and made[1].headers["Idempotency-Replayed"] == "true"
    assert len(await circle.kept("sessions")) == 1
    other = await circle.hub.post(CHECKOUT, token=token, json={"plan": "team"}, headers=headers)
    assert (other.status, other.json["details"]["field"]) == (422, "Idempotency-Key")


async def test_PAY_01_a_second_subscription_is_refused(circle: Circle, token: str) -> None:
    await circle.subscribe(token)
    again = await circle.checkout(token)
    assert (again.status, again.json["code"]) == (409, "CONFLICT") and "customer-portal" in again.json["hint"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "plan"), ({"plan": "gold"}, "plan"), ({"priceId": "price_of_old"}, "priceId"),
        ({"plan": "pro", "price_id": "price_sandbox_team"}, "priceId"),
        ({"plan": "pro", "quantity": 0}, "quantity"), ({"plan": "pro", "quantity": 10**6}, "quantity"),
        ({"plan": "pro", "customer": "cus_of_another"}, "customer"),
    ],
)  # fmt: skip
async def test_PAY_01_bad_bodies_name_the_field(
    circle: Circle, token: str, body: dict[str, Any], field: str
) -> None:
    answer = await circle.hub.post(CHECKOUT, token=token, json=body)
    assert (answer.status, answer.json["code"]) == (422, "VALIDATION_ERROR"), answer
    assert answer.json["details"]["field"] == field
    assert await circle.kept("sessions") == []


async def test_PAY_01_a_price_in_either_spelling(circle: Circle, token: str) -> None:
    for body in ({"priceId": "price_sandbox_team"}, {"price_id": "price_sandbox_team"}, {"plan": "team"}):
        answer = await circle.hub.post(CHECKOUT, token=token, json=body)
        assert answer.status == 200, answer


BAD_ADDRESSES = (
    "//evil.example", "/\\evil.example", "\\\\evil.example", "%2f%2fevil.example", "javascript:alert(1)",
    "https://evil.example/", "http://127.0.0.1:8080@evil.example/", "http://user@127.0.0.1:8080/",
    "http://127.0.0.1:8080.evil.example/", "http://127.0.0.1:80/", "data:text/html,x", "", " /x", "/x\n/y",
    "http:///x", "http://[::1", "/" + "x" * 3000, "http:evil.example", "HTTP://EVIL.example",
)  # fmt: skip


@pytest.mark.parametrize("address", BAD_ADDRESSES)
async def test_X19_nobody_is_sent_elsewhere_after_paying(circle: Circle, token: str, address: str) -> None:
    for field in ("successUrl", "success_url", "cancelUrl", "cancel_url"):
        answer = await circle.checkout(token, **{field: address})
        assert answer.status == 422, (field, answer)
    portal = await circle.hub.post(PORTAL, token=token, json={"returnUrl": address})
    assert portal.status == 422, portal
    assert await circle.kept("sessions") == []


async def test_X19_the_hub_and_what_the_operator_allows_are_good_addresses(
    servers: Servers, valkey: EmbeddedValkey, tmp_path: Path, owner: Member
) -> None:
    async with running_circle(
        servers, valkey.url, tmp_path, HUB_ALLOWED_ORIGINS="https://app.example.com"
    ) as circle:
        token = await circle.hub.token(owner.email)
        for address in ("/x?y=1#z", "https://app.example.com/x", f"{circle.hub.settings.public_base_url}/x"):
            assert (await circle.checkout(token, successUrl=address)).status == 200


# customer-portal, check-subscription.


async def test_PAY_02_without_a_customer_the_portal_says_what_comes_first(circle: Circle, token: str) -> None:
    answer = await circle.hub.get(PORTAL, token=token)
    assert (answer.status, answer.json["code"]) == (404, "RESOURCE_NOT_FOUND")
    assert "create-checkout" in answer.json["hint"]


async def test_PAY_02_the_portal_changes_ends_and_keeps_the_subscription(circle: Circle, token: str) -> None:
    subscription = await circle.subscribe(token)
    answer = await circle.hub.get(f"{PORTAL}?returnUrl=/settings/plan", token=token)
    assert answer.status == 200 and answer.json.keys() == {"url"}
    url, key = answer.json["url"], subscription["id"]
    _, buttons = await circle.page(url)
    assert buttons[0] == "cancel" and "price:price_sandbox_team" in buttons
    wanted = [
        ("cancel", {"cancel_at_period_end": True, "subscribed": True}),
        ("resume", {"cancel_at_period_end": False}),
        ("price:price_sandbox_team", {"plan": "team", "price_id": "price_sandbox_team", "entitlements": {}}),
        ("cancel", {"cancel_at_period_end": True}),
        ("renew", {"status": "canceled", "subscribed": False, "entitlements": {}}),
    ]
    for action, told in wanted:
        status, back, _ = await circle.click(url, action, key)
        assert status == 303 and back is not None
        await circle.all_taken()
        assert told.items() <= (await circle.check(token)).items(), action
    _, back, _ = await circle.click(url, "return")
    assert back == f"{circle.hub.settings.public_base_url}/settings/plan"
    assert (await circle.checkout(token)).status == 200, "and it may subscribe again"


async def test_PAY_03_a_card_that_fails_has_seven_days(
    circle: Circle, token: str, org: Org, superuser: asyncpg.Connection
) -> None:
    subscription = await circle.subscribe(token)
    await circle.move(subscription["id"], "fail")
    await circle.all_taken()
    found = await circle.check(token)
    assert (found["status"], found["subscribed"]) == ("past_due", True)
    [row] = await rows(superuser, org)
    assert row["past_due_since"] is not None
    await superuser.execute("update subscriptions set past_due_since = past_due_since - interval '8 days'")
    assert (await circle.check(token))["subscribed"] is False
    await circle.move(subscription["id"], "renew")
    await circle.all_taken()
    found = await circle.check(token)
    assert (found["status"], found["subscribed"]) == ("active", True)
    assert (await rows(superuser, org))[0]["past_due_since"] is None


async def test_PAY_03_what_no_webhook_told_is_asked_for_after_ten_minutes(
    circle: Circle, token: str, superuser: asyncpg.Connection
) -> None:
    subscription = await circle.subscribe(token)
    await circle.order(hold=True)
    await circle.move(subscription["id"], "end")
    assert (await circle.check(token))["subscribed"] is True
    await superuser.execute("update app.stripe_customers set checked_at = now() - interval '11 minutes'")
    await circle.order(hold=True, fail=100)
    assert (await circle.check(token))["subscribed"] is True, "without Stripe, what is known"
    await circle.order(hold=True)
    assert (await circle.check(token))["subscribed"] is False
    before = await circle.requests()
    await circle.check(token)
    assert await circle.requests() == before, "and not again at once"


async def test_C37_all_but_the_checkout_answer_get_and_post(circle: Circle, token: str) -> None:
    await circle.subscribe(token)
    for path in (CHECK, PORTAL):
        for method in ("GET", "POST"):
            assert (await circle.hub.call(method, path, token=token)).status == 200, (method, path)
    refused = await circle.hub.get(CHECKOUT, token=token)
    assert (refused.status, refused.json["code"]) == (405, "METHOD_NOT_ALLOWED")


async def test_PAY_billing_is_for_owners_and_administrators(
    circle: Circle, token: str, agent: Member, org: Org, superuser: asyncpg.Connection, password_hash: str
) -> None:
    admin = await make_member(superuser, org, "ADMIN", password_hash)
    key = await circle.hub.post("/functions/v1/generate-api-key", token=token, json={"name": "k"})
    as_agent = {"token": await circle.hub.token(agent.email)}
    calls = (("POST", CHECKOUT), ("GET", PORTAL), ("GET", CHECK))
    for who in (as_agent, {"key": key.json["api_key"]}):
        for method, path in calls:
            answer = await circle.hub.call(method, path, **who)
            assert (answer.status, answer.json["code"]) == (403, "INSUFFICIENT_PERMISSIONS"), (path, answer)
    for method, path in calls:
        assert (await circle.hub.call(method, path)).status == 401
    assert (await circle.hub.get(CHECK, token=await circle.hub.token(admin.email))).status == 200


async def test_PAY_the_neighbour_sees_and_pays_nothing_of_it(
    circle: Circle, token: str, superuser: asyncpg.Connection, password_hash: str
) -> None:
    await circle.subscribe(token)
    stranger = await make_member(superuser, await make_org(superuser), "OWNER", password_hash)
    other = await circle.hub.token(stranger.email)
    assert await circle.check(other) == NOTHING
    assert (await circle.hub.get(PORTAL, token=other)).status == 404
    assert (await circle.hub.get("/rest/v1/subscriptions", token=other)).json == []


async def test_PAY_a_hub_without_a_key_bills_nobody(hub: Hub, owner: Member) -> None:
    token = await hub.token(owner.email)
    for method, path in (("POST", CHECKOUT), ("GET", PORTAL), ("GET", CHECK)):
        answer = await hub.call(method, path, token=token, json={} if method == "POST" else None)
        assert (answer.status, answer.json["message"]) == (503, "billing not configured"), answer
    assert (await hub.post(WEBHOOK, data=b"{}")).status == 503


async def test_PAY_the_operators_mistakes_are_told_apart(
    servers: Servers, valkey: EmbeddedValkey, tmp_path: Path, owner: Member
) -> None:
    async with running_circle(servers, valkey.url, tmp_path, STRIPE_SECRET_KEY="sk_test_wrong") as circle:
        token = await circle.hub.token(owner.email)
        with capture_logs() as lines:
            answer = await circle.checkout(token)
        assert (answer.status, answer.json["code"]) == (503, "SERVICE_UNAVAILABLE"), answer
        assert "stripe.refuses_us" in [line["event"] for line in lines]
        assert "sk_test_wrong" not in str(lines) + str(answer)


# the webhook.


async def test_HOOK_08_forgeries_and_old_ones_are_refused_and_logged(
    circle: Circle, token: str, org: Org, superuser: asyncpg.Connection
) -> None:
    subscription = await circle.subscribe(token)
    before = [dict(row) for row in await rows(superuser, org)]
    await circle.order(hold=True)
    await circle.move(subscription["id"], "end")  # a look would see it: no look may come of these
    event = shown((await circle.kept("events"))[-1])
    body = json.dumps(event)
    now = circle.now()

    def signed(at: int, secret: str = WEBHOOK_SECRET, text: str = body) -> str:
        made: str = stripe.WebhookSignature._compute_signature(f"{at}.{text}", secret)
        return made

    headers = [
        None, "", "t=1,v1=", f"t={now},v1={signed(now, 'whsec_another')}", f"t={now},v1={signed(now, '')}",
        f"t={now - 301},v1={signed(now - 301)}", f"t={now + 400},v1={signed(now + 400)}",
        f"t={now},v0={signed(now)}", f"t={now},v1={signed(now - 1)}", f"t={now},t={now},v1={signed(now)}",
        f"v1={signed(now)}", f"t={now},v1={signed(now, text=body + ' ')}", f"t=\u0661,v1={signed(now)}",
    ]  # fmt: skip
    for header in headers:
        sent = {} if header is None else {"Stripe-Signature": header}
        with capture_logs() as lines:
            answer = await circle.hub.post(WEBHOOK, data=body.encode(), headers=sent)
        assert (answer.status, answer.json["code"]) == (401, "AUTHENTICATION_FAILED"), (header, answer)
        [line] = [x for x in lines if x["event"] == "security.stripe_webhook_refused"]
        assert (line["reason"], line["address"], line["log_level"]) == ("signature", "127.0.0.1", "warning")
    assert [dict(row) for row in await rows(superuser, org)] == before
    good = f"t={now},v1={'0' * 64},v1={signed(now)},v0=x"
    answer = await circle.hub.post(WEBHOOK, data=body.encode(), headers={"Stripe-Signature": good})
    assert answer.status == 200, "any of several v1 will do"
    assert [row["status"] for row in await rows(superuser, org)] == ["canceled"]


async def test_HOOK_08_a_secret_is_rolled_without_losing_an_event(
    servers: Servers, valkey: EmbeddedValkey, tmp_path: Path, owner: Member
) -> None:
    both = f"whsec_new, {WEBHOOK_SECRET}"
    async with running_circle(servers, valkey.url, tmp_path, STRIPE_WEBHOOK_SECRET=both) as circle:
        event = {"id": "evt_x", "type": "product.created", "data": {"object": {"id": "prod_1"}}}
        for secret, status in (("whsec_new", 200), (WEBHOOK_SECRET, 200), ("whsec_old", 401)):
            assert (await circle.post_event(event, secret=secret)).status == status


async def test_HOOK_08_an_event_has_its_effect_once(
    circle: Circle, token: str, org: Org, superuser: asyncpg.Connection
) -> None:
    await circle.subscribe(token)
    events = [shown(e) for e in await circle.kept("events") if e["type"].startswith("customer.subscription")]
    looks, done = await circle.requests(), await deeds(superuser, org)
    with capture_logs() as lines:
        answers = await asyncio.gather(*(circle.post_event(events[0]) for _ in range(5)))
    assert [answer.status for answer in answers] == [200] * 5
    assert [x["reason"] for x in lines if x["event"] == "security.stripe_webhook_refused"] == ["repeated"] * 5
    assert await circle.requests() == looks, "nothing is even asked"
    assert await deeds(superuser, org) == done


async def test_HOOK_08_the_same_event_at_once_is_applied_once(
    db: Database, superuser: asyncpg.Connection
) -> None:
    """Both looks had begun before either was written down: the event's id decides."""
    org, customer = await make_org(superuser), f"cus_{uuid4().hex}"
    async with db.connection("api") as conn:
        await conn.fetchval(q.keep_stripe_customer, org.id, customer)
        tickets = [await conn.fetchval(q.begin_billing_look, customer) for _ in range(2)]
        outcomes = [
            await conn.fetchval(q.apply_subscriptions, customer, ticket, _seen(status), "evt_1", "x")
            for ticket, status in zip(tickets, ("active", "canceled"), strict=True)
        ]
    assert outcomes == ["applied", "repeated"]
    assert [row["status"] for row in await rows(superuser, org)] == ["active"]


def _seen(status: str) -> str:
    return json.dumps([
        {"id": "sub_1", "product_id": "p", "price_id": "q", "plan": "pro", "status": status, "quantity": 1,
         "period_end": 1800000000, "cancel_at_period_end": False, "trial_end": None, "created": 1700000000},
    ])  # fmt: skip


async def test_HOOK_08_of_two_looks_the_later_one_wins(db: Database, superuser: asyncpg.Connection) -> None:
    """A look that was slow comes back after a younger one: what it saw is old."""
    org, customer = await make_org(superuser), f"cus_{uuid4().hex}"
    async with db.connection("api") as conn:
        await conn.fetchval(q.keep_stripe_customer, org.id, customer)
        slow = await conn.fetchval(q.begin_billing_look, customer)
        quick = await conn.fetchval(q.begin_billing_look, customer)
        outcomes = [
            await conn.fetchval(q.apply_subscriptions, customer, ticket, _seen(status), event, "x")
            for ticket, status, event in ((quick, "canceled", "evt_2"), (slow, "active", "evt_1"))
        ]
    assert outcomes == ["applied", "overtaken"]
    assert [row["status"] for row in await rows(superuser, org)] == ["canceled"]


async def test_HOOK_08_events_in_any_order_end_where_stripe_is(
    circle: Circle, token: str, org: Org, superuser: asyncpg.Connection
) -> None:
    """The last news comes first: what the events after it carry is old, and not believed."""
    await circle.order(hold=True)
    made = await circle.checkout(token)
    await circle.click(made.json["url"], "pay")
    [subscription] = await circle.kept("subscriptions")
    for action in ("fail", "renew", "price:price_sandbox_team", "cancel", "end"):
        await circle.move(subscription["id"], action)
    events = [shown(e) for e in await circle.kept("events")]
    statuses = set()
    for event in reversed(events):
        assert (await circle.post_event(event)).status == 200
        statuses |= {row["status"] for row in await rows(superuser, org)}
    assert statuses == {"canceled"}, "never alive again"
    [row] = await rows(superuser, org)
    assert (row["plan"], row["cancel_at_period_end"]) == ("team", True)
    assert (await circle.check(token))["subscribed"] is False


async def test_HOOK_08_while_stripe_is_away_an_event_is_not_acknowledged(
    circle: Circle, token: str, org: Org, superuser: asyncpg.Connection
) -> None:
    subscription = await circle.subscribe(token)
    await circle.order(hold=True)
    await circle.move(subscription["id"], "end")
    event = shown((await circle.kept("events"))[-1])
    await circle.order(hold=True, fail=100, status=503)
    answer = await circle.post_event(event)
    assert (answer.status, answer.json["code"]) == (503, "SERVICE_UNAVAILABLE")
    assert [row["status"] for row in await rows(superuser, org)] == ["active"]
    await circle.order(hold=True)
    assert (await circle.post_event(event)).status == 200, "nothing was noted of the first"
    assert [row["status"] for row in await rows(superuser, org)] == ["canceled"]


async def test_HOOK_08_a_customer_belongs_to_whom_he_was_made_for(
    circle: Circle, token: str, org: Org, superuser: asyncpg.Connection
) -> None:
    """client_reference_id can be chosen by whoever opens a payment link."""
    await circle.subscribe(token)
    victim = await make_org(superuser)
    [customer] = await circle.kept("customers")
    about = {"id": "cs_1", "customer": customer["id"], "client_reference_id": str(victim.id)}
    event = {"id": "evt_f", "type": "checkout.session.completed", "data": {"object": about}}
    assert (await circle.post_event(event)).status == 200
    assert await rows(superuser, victim) == []
    assert len(await rows(superuser, org)) == 1


async def test_HOOK_08_what_the_operator_sold_by_hand_finds_its_organization(
    circle: Circle, org: Org, owner: Member, superuser: asyncpg.Connection
) -> None:
    """A subscription made in Stripe's own pages, with the organization in its metadata."""
    neighbour = await make_member(superuser, await make_org(superuser), "OWNER")
    token = await circle.hub.token(owner.email)
    await circle.order(hold=True)
    await circle.subscribe_by_hand(str(org.id))
    for event in await circle.kept("events"):
        assert (await circle.post_event(shown(event))).status == 200
    assert (await circle.check(token))["plan"] == "team"
    assert (await circle.hub.get(PORTAL, token=token)).status == 200
    assert neighbour.id != owner.id


@pytest.mark.parametrize("claimed", [None, "nonsense", "00000000-0000-4000-8000-000000000000"])
async def test_HOOK_08_an_event_of_nobodys_is_acknowledged_and_left(
    circle: Circle, superuser: asyncpg.Connection, claimed: str | None
) -> None:
    metadata = {"organization_id": claimed} if claimed else {}
    about = {"id": "sub_1", "customer": "cus_stranger", "metadata": metadata}
    for kind in ("customer.subscription.updated", "customer.deleted", "price.created"):
        event = {"id": f"evt_{kind}", "type": kind, "data": {"object": about}}
        with capture_logs() as lines:
            assert (await circle.post_event(event)).status == 200
        assert [x["outcome"] for x in lines if x["event"] == "stripe.event"] == [
            "ignored" if kind == "price.created" else "nobody"
        ]
    assert await superuser.fetchval("select count(*) from subscriptions") == 0
    assert await superuser.fetchval("select count(*) from app.stripe_customers") == 0


async def test_HOOK_08_a_customer_deleted_at_stripe_is_made_anew(
    circle: Circle, token: str, org: Org, superuser: asyncpg.Connection
) -> None:
    await circle.subscribe(token)
    [customer] = await circle.kept("customers")
    await circle.delete_customer(customer["id"])
    await circle.all_taken()
    assert (await circle.check(token))["subscribed"] is False
    assert [row["status"] for row in await rows(superuser, org)] == ["canceled"]
    assert (await circle.hub.get(PORTAL, token=token)).status == 404
    await circle.subscribe(token)
    assert len(await circle.kept("customers")) == 2
    assert (await circle.check(token))["subscribed"] is True


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"", 400), (b"[]", 400), (b'{"id": 1}', 400), (b"{" * 10_000, 400), (b"x" * (1024 * 1024 + 1), 413)],
)
async def test_HOOK_08_signed_nonsense_is_refused(circle: Circle, body: bytes, status: int) -> None:
    header = signature(WEBHOOK_SECRET, body, circle.now())
    answer = await circle.hub.post(WEBHOOK, data=io.BytesIO(body), headers={"Stripe-Signature": header})
    assert answer.status == status, answer


async def test_PAY_secrets_are_in_no_answer_log_or_row(
    circle: Circle, token: str, superuser: asyncpg.Connection
) -> None:
    with capture_logs() as lines:
        await circle.subscribe(token)
        told = [await circle.hub.get(path, token=token) for path in (CHECK, PORTAL, "/rest/v1/subscriptions")]
    audit = await superuser.fetch("select a::text from audit_log a")
    everything = str(lines) + str([a.body for a in told]) + str(audit) + repr(circle.hub.settings)
    assert KEY not in everything and WEBHOOK_SECRET not in everything
