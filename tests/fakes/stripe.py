"""A hub and the sandbox that plays Stripe, each told of the other, and people who click its pages."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import stripe

from hub import clock
from hub.sandbox.stripe import signature
from tests.factories import Servers, until
from tests.fakes.whatsapp import Sandbox, running_sandbox
from tests.server import Answer, Hub, running_hub

KEY = "sk_test_of_the_tests"
WEBHOOK_SECRET = "whsec_of_the_tests"
PLANS = {
    "team": "price_sandbox_team",
    "pro": {"price": "price_sandbox_pro", "entitlements": {"members": 50, "campaigns": True}},
}
WEBHOOK = "/functions/v1/stripe-webhook"
Json = dict[str, Any]


def paid_by(stripe_url: str) -> dict[str, str]:
    """Settings of a hub that bills there, with one plan."""
    return {
        "STRIPE_API_BASE": stripe_url, "STRIPE_SECRET_KEY": KEY, "STRIPE_WEBHOOK_SECRET": WEBHOOK_SECRET,
        "STRIPE_PRICE_IDS": '{"team": "price_sandbox_team"}',
    }  # fmt: skip


class Circle:
    """A hub, its Stripe, and the browser of whoever pays."""

    def __init__(self, hub: Hub, sandbox: Sandbox) -> None:
        self.hub, self.sandbox = hub, sandbox

    async def order(self, **orders: Any) -> Json:
        """What is to go wrong at Stripe from now on."""
        answer: Json = await self.sandbox.ctl("POST", "/stripe", orders)
        return answer

    async def kept(self, kind: str) -> list[Json]:
        """What Stripe keeps, oldest first."""
        found = await self.sandbox.ctl("GET", "/stripe")
        return list(found[kind].values())

    async def requests(self) -> int:
        """Calls of its API so far."""
        count: int = (await self.sandbox.ctl("GET", "/stripe"))["requests"]
        return count

    async def move(self, subscription: str, action: str) -> None:
        await self.sandbox.ctl("POST", f"/stripe/subscriptions/{subscription}", {"action": action})

    async def all_taken(self) -> None:
        """Every event was answered 2xx."""

        async def none_waits() -> bool:
            return all(e["sandbox"]["state"] == "taken" for e in await self.kept("events"))

        await until(none_waits, what="Stripe's webhooks to be taken")

    async def click(self, url: str, action: str, subscription: str = "") -> tuple[int, str | None, str]:
        """Press a button of a page: status, Location, text."""
        form = {"action": action, "subscription": subscription}
        async with self.hub.client.post(url, data=form, allow_redirects=False) as answer:
            return answer.status, answer.headers.get("Location"), await answer.text()

    async def page(self, url: str) -> tuple[str, list[str]]:
        """A page and what its buttons do."""
        async with self.hub.client.get(url) as answer:
            text = await answer.text()
        return text, re.findall(r'name="action" value="([^"]+)"', text)

    async def checkout(self, token: str, **body: Any) -> Answer:
        return await self.hub.post("/functions/v1/create-checkout", token=token, json={"plan": "pro", **body})

    async def check(self, token: str) -> Json:
        answer = await self.hub.get("/functions/v1/check-subscription", token=token)
        assert answer.status == 200, answer
        found: Json = answer.json
        return found

    async def subscribe(self, token: str, **body: Any) -> Json:
        """Go to Checkout, pay, and wait until the hub knows. The subscription as Stripe has it."""
        made = await self.checkout(token, **body)
        assert made.status == 200, made
        status, _, _ = await self.click(made.json["url"], "pay")
        assert status == 303
        await self.all_taken()
        return (await self.kept("subscriptions"))[-1]

    async def post_event(self, event: Json, **options: Any) -> Answer:
        """An event as Stripe would send it now; `header`: another signature, `secret`: of another's."""
        body = json.dumps(event).encode()
        at = self.now()
        header = options.get("header", signature(options.get("secret", WEBHOOK_SECRET), body, at))
        return await self.hub.post(WEBHOOK, data=body, headers={"Stripe-Signature": header})

    async def subscribe_by_hand(self, organization_id: str) -> None:
        """The operator sells a subscription in Stripe's own pages: no customer of the hub's making."""
        async with aiohttp.ClientSession() as session:
            client = stripe_client(self.sandbox, session)
            made = await client.v1.checkout.sessions.create_async(
                {
                    "mode": "subscription",
                    "line_items": [{"price": "price_sandbox_team", "quantity": 1}],
                    "subscription_data": {"metadata": {"organization_id": organization_id}},
                    "success_url": "http://127.0.0.1/",
                }
            )
            assert made.url is not None
            await self.click(made.url, "pay")

    async def delete_customer(self, key: str) -> None:
        async with aiohttp.ClientSession() as session:
            await stripe_client(self.sandbox, session).v1.customers.delete_async(key)

    @staticmethod
    def now() -> int:
        """As the hub, which is in this process, sees it."""
        return int(clock.now_s())


def shown(event: Json) -> Json:
    """An event that the sandbox keeps, as it is sent."""
    return {k: v for k, v in event.items() if k != "sandbox"}


@asynccontextmanager
async def running_circle(
    servers: Servers, redis_url: str, folder: Path, **environ: str
) -> AsyncIterator[Circle]:
    """The hub and its Stripe."""
    async with running_sandbox(
        folder, "http://127.0.0.1:1/hook", stripe_key=KEY, stripe_webhook_secret=WEBHOOK_SECRET
    ) as sandbox:
        settings = {
            "STRIPE_API_BASE": f"{sandbox.url}/stripe", "STRIPE_SECRET_KEY": KEY,
            "STRIPE_WEBHOOK_SECRET": WEBHOOK_SECRET, "STRIPE_PRICE_IDS": json.dumps(PLANS), **environ,
        }  # fmt: skip
        async with running_hub(servers, redis_url, folder, **settings) as hub:
            circle = Circle(hub, sandbox)
            await circle.order(callback_url=f"{hub.url}{WEBHOOK}")
            yield circle


def stripe_client(sandbox: Sandbox, session: aiohttp.ClientSession, key: str = KEY) -> stripe.StripeClient:
    """The unmodified package, sent to the sandbox."""
    return stripe.StripeClient(
        key,
        base_addresses={"api": f"{sandbox.url}/stripe"},
        max_network_retries=0,
        http_client=stripe.AIOHTTPClient(session=session),
    )
