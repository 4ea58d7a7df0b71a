"""The sandbox as Stripe, driven by the `stripe` package as it is: what it answers and what it sends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import stripe
from aiohttp import web

from tests.factories import until
from tests.fakes.stripe import KEY, WEBHOOK_SECRET, stripe_client
from tests.fakes.whatsapp import Sandbox, running_sandbox


class Inbox:
    """A webhook endpoint that reads what arrives with the package's own check. `answers` come first, then
    200."""

    def __init__(self) -> None:
        self.events: list[stripe.Event] = []
        self.answers: list[int] = []
        self.url = ""

    async def post(self, request: web.Request) -> web.Response:
        raw, header = await request.read(), request.headers["Stripe-Signature"]
        event = stripe.Webhook.construct_event(raw, header, WEBHOOK_SECRET)  # type: ignore[no-untyped-call]
        if self.answers:
            return web.Response(status=self.answers.pop(0))
        self.events.append(event)
        return web.Response()

    def types(self) -> list[str]:
        return sorted(event.type for event in self.events)


@pytest.fixture
async def inbox() -> AsyncIterator[Inbox]:
    inbox, app = Inbox(), web.Application()
    app.add_routes([web.post("/hook", inbox.post)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    inbox.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    yield inbox
    await runner.cleanup()


def running(folder: Path, inbox: Inbox) -> Any:
    return running_sandbox(
        folder, inbox.url, stripe_key=KEY, stripe_webhook_secret=WEBHOOK_SECRET, stripe_callback_url=inbox.url
    )


@pytest.fixture
async def sandbox(tmp_path: Path, inbox: Inbox) -> AsyncIterator[Sandbox]:
    async with running(tmp_path, inbox) as found:
        yield found


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as found:
        yield found


async def pay(
    client: stripe.StripeClient, session: aiohttp.ClientSession, **more: Any
) -> stripe.Subscription:
    """Through Checkout, as a person with a browser."""
    made = await client.v1.checkout.sessions.create_async(
        {
            "mode": "subscription", "line_items": [{"price": "price_sandbox_team", "quantity": 2}],
            "success_url": "http://127.0.0.1/done?s={CHECKOUT_SESSION_ID}", **more,
        }  # type: ignore[typeddict-item]
    )  # fmt: skip
    assert made.url is not None
    async with session.post(made.url, data={"action": "pay"}, allow_redirects=False) as answer:
        assert answer.headers["Location"] == f"http://127.0.0.1/done?s={made.id}"
    paid = await client.v1.checkout.sessions.retrieve_async(made.id)
    assert (paid.status, paid.payment_status) == ("complete", "paid")
    assert isinstance(paid.subscription, str)
    return await client.v1.subscriptions.retrieve_async(paid.subscription)


async def test_the_package_drives_a_subscription_from_checkout_to_its_end(
    sandbox: Sandbox, session: aiohttp.ClientSession, inbox: Inbox
) -> None:
    client = stripe_client(sandbox, session)
    customer = await client.v1.customers.create_async({"name": "Ada", "metadata": {"a": "b"}})
    assert (await client.v1.customers.retrieve_async(customer.id)).metadata.to_dict() == {"a": "b"}
    assert {p.id for p in (await client.v1.prices.list_async()).data} >= {"price_sandbox_team"}
    subscription = await pay(
        client, session, customer=customer.id, subscription_data={"metadata": {"organization_id": "o"}}
    )
    [item] = subscription["items"].data
    assert (subscription.status, item.price.id, item.quantity) == ("active", "price_sandbox_team", 2)
    assert subscription.metadata.to_dict() == {"organization_id": "o"}
    portal = await client.v1.billing_portal.sessions.create_async({"customer": customer.id})
    async with session.get(portal.url) as page:
        assert "Team: active" in await page.text()
    changed = await client.v1.subscriptions.update_async(
        subscription.id,
        {"cancel_at_period_end": True, "items": [{"id": item.id, "price": "price_sandbox_pro"}]},
    )
    assert changed.cancel_at_period_end and changed["items"].data[0].price.id == "price_sandbox_pro"
    assert (await client.v1.subscriptions.cancel_async(subscription.id)).status == "canceled"
    listed = client.v1.subscriptions.list_async
    assert (await listed({"customer": customer.id})).data == []
    ended = await listed({"customer": customer.id, "status": "all"})
    assert [s.id for s in ended.data] == [subscription.id]
    assert (await client.v1.customers.delete_async(customer.id)).deleted
    await until(lambda: len(inbox.events) == 7, what="the events")
    assert inbox.types() == [
        "checkout.session.completed", "customer.created", "customer.deleted", "customer.subscription.created",
        "customer.subscription.deleted", "customer.subscription.updated", "invoice.paid",
    ]  # fmt: skip


async def test_the_package_understands_its_refusals(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
    client = stripe_client(sandbox, session)
    with pytest.raises(stripe.AuthenticationError):
        await stripe_client(sandbox, session, "sk_test_another").v1.customers.create_async({})
    with pytest.raises(stripe.InvalidRequestError, match="No such customer") as refused:
        await client.v1.customers.retrieve_async("cus_x")
    assert refused.value.code == "resource_missing"
    with pytest.raises(stripe.InvalidRequestError, match="No such price"):
        await pay(client, session, line_items=[{"price": "price_x"}])
    options: Any = {"idempotency_key": "k"}
    one = await client.v1.customers.create_async({"name": "a"}, options)
    assert (await client.v1.customers.create_async({"name": "a"}, options)).id == one.id
    with pytest.raises(stripe.IdempotencyError):
        await client.v1.customers.create_async({"name": "b"}, options)
    await sandbox.ctl("POST", "/stripe", {"fail": 1, "status": 429})
    with pytest.raises(stripe.RateLimitError):
        await client.v1.customers.list_async()


async def test_webhooks_are_repeated_until_they_are_taken(
    sandbox: Sandbox, session: aiohttp.ClientSession, inbox: Inbox
) -> None:
    inbox.answers = [500, 301, 503]
    await stripe_client(sandbox, session).v1.customers.create_async({})
    await until(lambda: inbox.events, what="the fourth attempt")
    [event] = (await sandbox.ctl("GET", "/stripe"))["events"].values()
    await until(lambda: not inbox.answers)
    assert event["sandbox"]["attempts"] >= 4 and inbox.types() == ["customer.created"]


async def test_held_webhooks_go_in_the_order_that_is_asked_for(
    sandbox: Sandbox, session: aiohttp.ClientSession, inbox: Inbox
) -> None:
    await sandbox.ctl("POST", "/stripe", {"hold": True})
    client = stripe_client(sandbox, session)
    await client.v1.customers.delete_async((await client.v1.customers.create_async({})).id)
    assert (await sandbox.ctl("POST", "/stripe", {}))["held"] == 2 and inbox.events == []
    await sandbox.ctl("POST", "/stripe", {"release": "reverse", "hold": False})
    await until(lambda: len(inbox.events) == 2)


async def test_a_new_process_knows_everything_and_sends_what_waited(
    tmp_path: Path, session: aiohttp.ClientSession, inbox: Inbox
) -> None:
    inbox.answers = [503] * 1000
    async with running(tmp_path, inbox) as first:
        subscription = await pay(stripe_client(first, session), session)
    inbox.answers.clear()
    async with running(tmp_path, inbox) as second:
        client = stripe_client(second, session)
        assert (await client.v1.subscriptions.retrieve_async(subscription.id)).status == "active"
        await until(lambda: len(inbox.events) == 4, what="the events of the first process")
        await second.ctl("POST", "/reset", {})
        with pytest.raises(stripe.InvalidRequestError):
            await client.v1.subscriptions.retrieve_async(subscription.id)
    assert json.loads((tmp_path / "sandbox" / "stripe.json").read_text())["kept"]["subscriptions"] == {}


async def test_many_at_once_with_one_key_are_one(sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
    client, options = stripe_client(sandbox, session), {"idempotency_key": "k"}
    made = await asyncio.gather(
        *(client.v1.customers.create_async({"name": "x"}, options) for _ in range(10))  # type: ignore[arg-type]
    )
    assert len({customer.id for customer in made}) == 1
