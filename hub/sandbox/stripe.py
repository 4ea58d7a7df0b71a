"""The sandbox as Stripe: customers, prices, Checkout and the customer portal as pages to click,
subscriptions, and signed webhooks that are repeated until the hub takes them (docs/sandbox.md).

It answers the `stripe` package, which drives it in the tests: form-encoded bodies in, Stripe's objects out.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import html
import json
import os
import re
import secrets
import time
from collections.abc import AsyncIterator
from typing import Any, Final
from urllib.parse import parse_qsl

import aiohttp
import msgspec
import structlog
from aiohttp import web

from hub.sandbox.clock import Timers, VirtualClock
from hub.sandbox.config import SandboxConfig

log = structlog.get_logger()

Json = dict[str, Any]
MONTH_S: Final = 30 * 86400
PORTAL_S: Final = 3600
CHECKOUT_S: Final = 86400
KEY_KEPT_S: Final = 86400
TRIES: Final = 20
_TIMEOUT: Final = aiohttp.ClientTimeout(total=20, connect=5)
_KINDS: Final = (
    "customers", "products", "prices", "sessions", "portals", "subscriptions", "events"
)  # fmt: skip
_PRICES: Final = (("team", "Team", 2900), ("pro", "Pro", 9900))
_KEY: Final = re.compile(r"[^\[\]]+")
_API_VERSION: Final = "2026-10-28.endive"
_HEADERS: Final = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'",
}
_STYLE: Final = (
    "body{font:16px system-ui;max-width:34rem;margin:3rem auto;padding:0 1rem}button{font:inherit;"
    "padding:.6rem 1rem;margin:.25rem .5rem .25rem 0}form{display:inline}.bad{color:#b00020}"
)


class Refused(Exception):
    """An error as Stripe words it."""

    def __init__(
        self, status: int, message: str, *, kind: str = "invalid_request_error", **fields: Any
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"type": kind, "message": message, **fields}}


class _Orders(msgspec.Struct, forbid_unknown_fields=True):
    """What `POST /_ctl/stripe` takes. `fail`: so many API calls are answered `status`; `accept`: they have
    their effect all the same. `hold`: webhooks wait; `release`: they go, in this order."""

    fail: int = 0
    status: int = 500
    accept: bool = False
    hold: bool | None = None
    release: str | None = None
    callback_url: str | None = None


def unflatten(pairs: list[tuple[str, str]]) -> Json:
    """`items[0][price]=p` as {"items": {"0": {"price": "p"}}}; lists are read by `listed`."""
    found: Json = {}
    for key, value in pairs:
        place, steps = found, _KEY.findall(key)
        if not steps:
            raise Refused(400, f"Invalid parameter: {key}")
        for step in steps[:-1]:
            place = place.setdefault(step, {})
            if not isinstance(place, dict):
                raise Refused(400, f"Invalid parameter: {key}")
        place[steps[-1]] = value
    return found


def listed(value: Any) -> list[Any]:
    """The elements of what `unflatten` made of a list."""
    return [value[k] for k in sorted(value, key=int)] if isinstance(value, dict) else []


def signature(secret: str, body: bytes, at: int) -> str:
    """Value of Stripe-Signature."""
    digest = hmac.digest(secret.encode(), f"{at}.".encode() + body, "sha256").hex()
    return f"t={at},v1={digest}"


class StripeSandbox:
    """State, API, pages and postman. Every change is on disk before it is answered."""

    def __init__(self, config: SandboxConfig, clock: VirtualClock, timers: Timers) -> None:
        self.config, self.clock, self.timers = config, clock, timers
        self.callback_url = config.stripe_callback
        self.kept: dict[str, dict[str, Json]] = {kind: {} for kind in _KINDS}
        self.answers: dict[str, Json] = {}
        self.requests = 0
        self._file = config.folder / "stripe.json"
        self._orders = _Orders()
        self._is_held = False
        self._held: list[Json] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._session: aiohttp.ClientSession | None = None
        if self._file.exists():
            saved = json.loads(self._file.read_bytes())
            self.kept, self.answers = saved["kept"], saved["answers"]
        for name, title, amount in _PRICES:
            product = {"id": f"prod_sandbox_{name}", "object": "product", "name": title, "active": True,
                       "metadata": {}, "livemode": False, "created": 0}  # fmt: skip
            self.kept["products"].setdefault(product["id"], product)  # type: ignore[arg-type]
            price = self._price(f"price_sandbox_{name}", f"prod_sandbox_{name}", amount, "usd", "month")
            self.kept["prices"].setdefault(price["id"], price)

    def routes(self) -> list[web.RouteDef]:
        return [
            web.route("*", "/stripe/v1/{tail:.*}", self.api),
            web.get("/stripe/checkout/{id}", self.checkout_page),
            web.post("/stripe/checkout/{id}", self.checkout_click),
            web.get("/stripe/portal/{id}", self.portal_page),
            web.post("/stripe/portal/{id}", self.portal_click),
            web.get("/_ctl/stripe", self.look),
            web.post("/_ctl/stripe", self.order),
            web.post("/_ctl/stripe/subscriptions/{id}", self.move),
        ]

    async def runs(self, app: web.Application) -> AsyncIterator[None]:
        """Deliveries that an earlier process left go out; those of this one end with it."""
        async with aiohttp.ClientSession(timeout=_TIMEOUT) as self._session:
            for event in self.kept["events"].values():
                if event["sandbox"]["state"] == "waiting":
                    self._send_soon(event, 0.0)
            yield
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def reset(self) -> None:
        """Nobody ever paid; products and prices stay."""
        for kind in _KINDS:
            if kind not in ("products", "prices"):
                self.kept[kind].clear()
        self.answers.clear()
        self._held.clear()
        self._orders, self._is_held = _Orders(), False
        self._save()

    def _save(self) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        draft = self._file.with_suffix(".new")
        with draft.open("wb") as out:
            out.write(json.dumps({"kept": self.kept, "answers": self.answers}).encode())
            out.flush()
            os.fsync(out.fileno())
        draft.replace(self._file)

    # The API.

    async def api(self, request: web.Request) -> web.Response:
        """Any call of /stripe/v1: key, Idempotency-Key, what was ordered to go wrong, then the call."""
        self.requests += 1
        raw = (await request.read()).decode()
        path, key = request.match_info["tail"], request.headers.get("Idempotency-Key")
        fails, failure = self._orders.fail > 0, {"error": {"type": "api_error", "message": "Ordered"}}
        if fails:
            self._orders.fail -= 1
            if not self._orders.accept:
                return self._answered(failure, self._orders.status)
        try:
            self._check_key(request)
            params = unflatten(parse_qsl(raw or request.query_string, keep_blank_values=True))
            if request.method == "POST" and key is not None:
                status, body = self._once(key, path, raw, request, params)
            else:
                status, body = 200, self._call(request.method, path, params, _base(request))
        except Refused as refused:
            status, body = refused.status, refused.body
        if fails:
            return self._answered(failure, self._orders.status)
        return self._answered(body, status)

    @staticmethod
    def _answered(body: Json, status: int) -> web.Response:
        headers = {"Request-Id": f"req_{secrets.token_hex(7)}", "Stripe-Version": _API_VERSION}
        return web.json_response(body, status=status, headers=headers)

    def _check_key(self, request: web.Request) -> None:
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "basic":
            try:
                given = base64.b64decode(given, validate=True).decode().partition(":")[0]
            except ValueError:
                given = ""
        if not hmac.compare_digest(given.encode(), self.config.stripe_key.encode()):
            raise Refused(401, "Invalid API Key provided")

    def _once(self, key: str, path: str, raw: str, request: web.Request, params: Json) -> tuple[int, Json]:
        """The first answer to this key, refusals included; other parameters with it are a mistake."""
        earlier = self.answers.get(key)
        if earlier is not None and self.clock.now() - earlier["at"] < KEY_KEPT_S:
            if (earlier["path"], earlier["raw"]) != (path, raw):
                raise Refused(
                    400, "Keys for idempotent requests can only be used with the same parameters they were "
                    "first used with.", kind="idempotency_error",
                )  # fmt: skip
            return earlier["status"], earlier["body"]
        try:
            status, body = 200, self._call("POST", path, params, _base(request))
        except Refused as refused:
            status, body = refused.status, refused.body
        self.answers[key] = {"at": self.clock.now(), "path": path, "raw": raw, "status": status, "body": body}
        self._save()
        return status, body

    def _call(self, method: str, path: str, params: Json, base: str) -> Json:
        match method, *path.split("/"):
            case "POST", "customers":
                return self._new_customer(params)
            case "POST", "customers", key:
                customer = self._get("customers", key)
                customer.update({k: v for k, v in params.items() if k in ("name", "email", "metadata")})
                self._save()
                return customer
            case "DELETE", "customers", key:
                return self._delete_customer(key)
            case "POST", "prices":
                self._get("products", params.get("product", ""))
                interval = params.get("recurring", {}).get("interval", "month")
                price = self._price(
                    _id("price"), params["product"], int(params.get("unit_amount", 0)),
                    params.get("currency", "usd"), interval,
                )  # fmt: skip
                return self._put("prices", price)
            case "POST", "products":
                product = {
                    "id": _id("prod"), "object": "product", "name": params.get("name", ""), "active": True,
                    "metadata": {}, "livemode": False, "created": self._now(),
                }  # fmt: skip
                return self._put("products", product)
            case "POST", "checkout", "sessions":
                return self._new_session(params, base)
            case "POST", "checkout", "sessions", key, "expire":
                return self._expire(self._get("sessions", key))
            case "POST", "billing_portal", "sessions":
                return self._new_portal(params, base)
            case "POST", "subscriptions", key:
                return self._change(self._get("subscriptions", key), params)
            case "DELETE", "subscriptions", key:
                return self._end(self._get("subscriptions", key))
            case "GET", "checkout", "sessions", key:
                return self._get("sessions", key)
            case "GET", ("customers" | "products" | "prices" | "subscriptions" | "events") as kind, key:
                return _shown(self._get(kind, key))
            case "GET", ("customers" | "products" | "prices" | "subscriptions" | "events") as kind:
                return self._list(kind, params)
            case _:
                raise Refused(404, f"Unrecognized request URL ({method}: /v1/{path})")

    def _get(self, kind: str, key: str) -> Json:
        found = self.kept[kind].get(key)
        if found is None:
            raise Refused(404, f"No such {kind[:-1]}: '{key}'", code="resource_missing", param="id")
        return found

    def _put(self, kind: str, made: Json) -> Json:
        self.kept[kind][made["id"]] = made
        self._save()
        return made

    def _list(self, kind: str, params: Json) -> Json:
        limit = max(1, min(100, int(params.get("limit", 10))))
        found = list(reversed(self.kept[kind].values()))
        if kind == "subscriptions":
            status = params.get("status")
            if "customer" in params:
                self._get("customers", params["customer"])
                found = [s for s in found if s["customer"] == params["customer"]]
            if status != "all":
                found = [s for s in found if (s["status"] == status if status else s["status"] != "canceled")]
        return {
            "object": "list", "url": f"/v1/{kind}", "has_more": len(found) > limit,
            "data": [_shown(one) for one in found[:limit]],
        }  # fmt: skip

    def _now(self) -> int:
        return int(self.clock.now())

    @staticmethod
    def _price(key: str, product: str, amount: int, currency: str, interval: str) -> Json:
        return {
            "id": key, "object": "price", "product": product, "unit_amount": amount, "currency": currency,
            "recurring": {"interval": interval, "interval_count": 1}, "type": "recurring", "active": True,
            "lookup_key": None, "nickname": None, "metadata": {}, "livemode": False, "created": 0,
        }  # fmt: skip

    def _new_customer(self, params: Json) -> Json:
        made = {
            "id": _id("cus"), "object": "customer", "name": params.get("name"), "email": params.get("email"),
            "metadata": params.get("metadata", {}), "livemode": False, "created": self._now(),
        }  # fmt: skip
        self._tell("customer.created", self._put("customers", made))
        return made

    def _delete_customer(self, key: str) -> Json:
        customer = self._get("customers", key)
        for subscription in self.kept["subscriptions"].values():
            if subscription["customer"] == key and subscription["status"] != "canceled":
                self._end(subscription)
        customer["deleted"] = True
        self._save()
        self._tell("customer.deleted", customer)
        return {"id": key, "object": "customer", "deleted": True}

    def _new_session(self, params: Json, base: str) -> Json:
        if params.get("mode") != "subscription":
            raise Refused(400, "The sandbox sells subscriptions alone", param="mode")
        lines = listed(params.get("line_items"))
        if not lines or "success_url" not in params:
            raise Refused(400, "Missing required param: line_items or success_url.", param="line_items")
        for line in lines:
            if line.get("price") not in self.kept["prices"]:
                raise Refused(
                    400, f"No such price: '{line.get('price')}'", code="resource_missing",
                    param="line_items[0][price]",
                )  # fmt: skip
        customer = params.get("customer")
        if customer is not None and self.kept["customers"].get(customer, {"deleted": True}).get("deleted"):
            raise Refused(400, f"No such customer: '{customer}'", code="resource_missing", param="customer")
        key = _id("cs_test")
        made = {
            "id": key, "object": "checkout.session", "mode": "subscription", "status": "open",
            "payment_status": "unpaid", "customer": customer, "subscription": None,
            "customer_email": params.get("customer_email"),
            "client_reference_id": params.get("client_reference_id"), "metadata": params.get("metadata", {}),
            "success_url": params["success_url"], "cancel_url": params.get("cancel_url"),
            "url": f"{base}/stripe/checkout/{key}", "livemode": False, "created": self._now(),
            "expires_at": self._now() + CHECKOUT_S,
            "sandbox": {"lines": lines, "about": params.get("subscription_data", {})},
        }  # fmt: skip
        return _shown(self._put("sessions", made))

    def _expire(self, session: Json) -> Json:
        if session["status"] != "open":
            raise Refused(400, "Only open Checkout Sessions can be expired.")
        session.update(status="expired", url=None)
        self._save()
        self._tell("checkout.session.expired", session)
        return _shown(session)

    def _new_portal(self, params: Json, base: str) -> Json:
        customer = self._get("customers", params.get("customer", ""))
        if customer.get("deleted"):
            raise Refused(
                400, f"No such customer: '{customer['id']}'", code="resource_missing", param="customer"
            )
        key = _id("bps")
        made = {
            "id": key, "object": "billing_portal.session", "customer": customer["id"],
            "return_url": params.get("return_url"), "url": f"{base}/stripe/portal/{key}", "livemode": False,
            "created": self._now(), "configuration": "bpc_sandbox",
        }  # fmt: skip
        return self._put("portals", made)

    # Subscriptions.

    def pay(self, session: Json) -> Json:
        """The visitor paid: a subscription, and the events of it."""
        if session["status"] != "open" or session["expires_at"] <= self._now():
            raise Refused(400, "This Checkout Session is no longer open.")
        now = self._now()
        if session["customer"] is None:
            session["customer"] = self._new_customer({"email": session["customer_email"]})["id"]
        about = session["sandbox"]["about"]
        key, days = _id("sub"), int(about.get("trial_period_days", 0))
        end = now + days * 86400 if days else now + MONTH_S
        items = [
            {"id": _id("si"), "object": "subscription_item", "subscription": key,
             "price": self.kept["prices"][line["price"]], "quantity": int(line.get("quantity", 1)),
             "current_period_start": now, "current_period_end": end, "metadata": {}, "created": now}
            for line in session["sandbox"]["lines"]
        ]  # fmt: skip
        made = {
            "id": key, "object": "subscription", "customer": session["customer"],
            "status": "trialing" if days else "active", "cancel_at_period_end": False, "cancel_at": None,
            "canceled_at": None, "trial_end": end if days else None, "metadata": about.get("metadata", {}),
            "currency": "usd", "livemode": False, "created": now,
            "items": {"object": "list", "data": items, "has_more": False,
                      "url": f"/v1/subscription_items?subscription={key}"},
        }  # fmt: skip
        self.kept["subscriptions"][key] = made
        session.update(
            status="complete", subscription=key, payment_status="no_payment_required" if days else "paid"
        )
        self._save()
        self._tell("customer.subscription.created", made)
        self._tell("checkout.session.completed", session)
        self._tell("invoice.paid", self._invoice(made, "paid"))
        return made

    def _invoice(self, subscription: Json, status: str) -> Json:
        return {
            "id": _id("in"), "object": "invoice", "customer": subscription["customer"], "status": status,
            "parent": {"type": "subscription_details",
                       "subscription_details": {"subscription": subscription["id"]}},
            "metadata": {}, "livemode": False, "created": self._now(),
        }  # fmt: skip

    def _change(self, subscription: Json, params: Json) -> Json:
        if subscription["status"] == "canceled":
            raise Refused(400, "A canceled subscription can only update its cancellation details.")
        if "cancel_at_period_end" in params:
            subscription["cancel_at_period_end"] = params["cancel_at_period_end"] == "true"
        for wanted in listed(params.get("items")):
            item = next(
                (i for i in subscription["items"]["data"] if i["id"] == wanted.get("id")),
                subscription["items"]["data"][0],
            )
            if "price" in wanted:
                item["price"] = self._get("prices", wanted["price"])
            if "quantity" in wanted:
                item["quantity"] = int(wanted["quantity"])
        if "metadata" in params:
            subscription["metadata"] = {**subscription["metadata"], **params["metadata"]}
        self._save()
        self._tell("customer.subscription.updated", subscription)
        return subscription

    def _end(self, subscription: Json) -> Json:
        subscription.update(status="canceled", canceled_at=self._now(), ended_at=self._now())
        self._save()
        self._tell("customer.subscription.deleted", subscription)
        return subscription

    def _renew(self, subscription: Json, *, is_paid: bool) -> Json:
        """The period is over: the next one begins, paid or not, or the subscription ends as it was told."""
        if subscription["cancel_at_period_end"]:
            return self._end(subscription)
        for item in subscription["items"]["data"]:
            item["current_period_start"] = item["current_period_end"]
            item["current_period_end"] += MONTH_S
        subscription["status"] = "active" if is_paid else "past_due"
        self._save()
        invoice = self._invoice(subscription, "paid" if is_paid else "open")
        self._tell("invoice.paid" if is_paid else "invoice.payment_failed", invoice)
        self._tell("customer.subscription.updated", subscription)
        return subscription

    # The pages.

    async def checkout_page(self, request: web.Request) -> web.Response:
        """Checkout, with a card that is taken or refused."""
        return self._checkout_page(request.match_info["id"], "")

    def _checkout_page(self, key: str, said: str) -> web.Response:
        session = self.kept["sessions"].get(key)
        if session is None or session["status"] != "open" or session["expires_at"] <= self._now():
            return _page("Checkout", "<p>This page is over.</p>", status=410)
        lines = "".join(
            f"<li>{_money(self.kept['prices'][line['price']])} × "
            f"{html.escape(str(line.get('quantity', 1)))}: "
            f"{html.escape(self._product_of(line['price']))}</li>"
            for line in session["sandbox"]["lines"]
        )
        return _page(
            "Checkout (sandbox)",
            f"{f'<p class=bad role=alert>{html.escape(said)}</p>' if said else ''}<ul>{lines}</ul>"
            f"{_button('pay', 'Pay')}{_button('decline', 'Pay with a card that is refused')}"
            f"{_button('cancel', 'Back')}",
        )

    def _product_of(self, price: str) -> str:
        product = self.kept["prices"][price]["product"]
        return str(self.kept["products"].get(product, {}).get("name", product))

    async def checkout_click(self, request: web.Request) -> web.StreamResponse:
        key, action = request.match_info["id"], str((await request.post()).get("action"))
        session = self.kept["sessions"].get(key)
        if session is None or session["status"] != "open" or session["expires_at"] <= self._now():
            return self._checkout_page(key, "")
        if action == "decline":
            return self._checkout_page(key, "The card was declined.")
        if action == "pay":
            self.pay(session)
            return _to(session["success_url"].replace("{CHECKOUT_SESSION_ID}", key))
        return _to(session["cancel_url"] or session["success_url"])

    async def portal_page(self, request: web.Request) -> web.Response:
        """The customer portal: what is running, and what can be done about it."""
        portal = self._open_portal(request)
        if portal is None:
            return _page("Customer portal", "<p>This page is over.</p>", status=410)
        parts = []
        for subscription in self.kept["subscriptions"].values():
            if subscription["customer"] != portal["customer"]:
                continue
            key, price = subscription["id"], subscription["items"]["data"][0]["price"]
            ends = " (ends with its period)" if subscription["cancel_at_period_end"] else ""
            parts.append(
                f"<h2>{html.escape(self._product_of(price['id']))}: {subscription['status']}{ends}</h2>"
            )
            if subscription["status"] == "canceled":
                continue
            parts.append(
                _button("resume", "Keep it", key)
                if subscription["cancel_at_period_end"]
                else _button("cancel", "Cancel at the end of the period", key)
            )
            parts += [
                _button(f"price:{p}", f"Change to {self._product_of(p)}", key)
                for p in self.kept["prices"]
                if p != price["id"]
            ]
            parts += [_button("renew", "A month later", key), _button("fail", "A month later, unpaid", key)]
        parts.append(f"<hr>{_button('return', 'Back')}")
        return _page("Customer portal (sandbox)", "".join(parts))

    def _open_portal(self, request: web.Request) -> Json | None:
        portal = self.kept["portals"].get(request.match_info["id"])
        return portal if portal is not None and portal["created"] + PORTAL_S > self._now() else None

    async def portal_click(self, request: web.Request) -> web.StreamResponse:
        portal, posted = self._open_portal(request), await request.post()
        if portal is None:
            return _page("Customer portal", "<p>This page is over.</p>", status=410)
        action = str(posted.get("action"))
        if action == "return" and portal["return_url"]:
            return _to(portal["return_url"])
        subscription = self.kept["subscriptions"].get(str(posted.get("subscription")))
        if subscription is None or subscription["customer"] != portal["customer"]:
            return _page("Customer portal", "<p>No such subscription.</p>", status=404)
        try:
            self._act(subscription, action)
        except Refused as refused:
            return _page("Customer portal", f"<p>{html.escape(str(refused))}</p>", status=refused.status)
        return _to(request.path)

    def _act(self, subscription: Json, action: str) -> Json:
        """What pages and the control API do to a subscription. Raises Refused."""
        if subscription["status"] == "canceled":
            raise Refused(400, "This subscription is over.")
        if action in ("cancel", "resume"):
            return self._change(
                subscription, {"cancel_at_period_end": "true" if action == "cancel" else "false"}
            )
        if action.startswith("price:"):
            return self._change(subscription, {"items": {"0": {"price": action.removeprefix("price:")}}})
        if action in ("renew", "fail"):
            return self._renew(subscription, is_paid=action == "renew")
        if action == "end":
            return self._end(subscription)
        raise Refused(400, f"Unknown action: {action}")

    # Control.

    async def look(self, request: web.Request) -> web.Response:
        """Everything that is kept, and how each event's delivery went."""
        return web.json_response({**self.kept, "requests": self.requests})

    async def order(self, request: web.Request) -> web.Response:
        """Failures to come, webhooks held and let go."""
        try:
            orders = msgspec.json.decode(await request.read(), type=_Orders)
        except msgspec.DecodeError as error:
            return web.json_response({"error": "BAD_BODY", "message": str(error)}, status=400)
        self._orders = orders
        if orders.callback_url is not None:
            self.callback_url = orders.callback_url
        if orders.hold is not None:
            self._is_held = orders.hold
        if orders.release is not None:
            held, self._held = self._held, []
            for n, event in enumerate(reversed(held) if orders.release == "reverse" else held):
                self._send_soon(event, n * 0.001)
        return web.json_response({"held": len(self._held)})

    async def move(self, request: web.Request) -> web.Response:
        """{"action": "renew" | "fail" | "cancel" | "resume" | "end" | "price:<id>"} on a subscription."""
        try:
            wanted = msgspec.json.decode(await request.read(), type=dict[str, str])
            subscription = self._get("subscriptions", request.match_info["id"])
            return web.json_response(self._act(subscription, wanted.get("action", "")))
        except Refused as refused:
            return web.json_response(refused.body, status=refused.status)
        except msgspec.DecodeError as error:
            return web.json_response({"error": "BAD_BODY", "message": str(error)}, status=400)

    # Webhooks.

    def _tell(self, kind: str, about: Json) -> None:
        event = {
            "id": _id("evt"), "object": "event", "api_version": _API_VERSION, "created": self._now(),
            "type": kind, "livemode": False, "pending_webhooks": 1,
            "request": {"id": None, "idempotency_key": None},
            "data": {"object": json.loads(json.dumps(_shown(about)))},
            "sandbox": {"state": "waiting", "attempts": 0, "status": None},
        }  # fmt: skip
        self._put("events", event)
        if self._is_held:
            self._held.append(event)
        else:
            self._send_soon(event, 0.0)

    def _send_soon(self, event: Json, wait_s: float) -> None:
        def start() -> None:
            task = asyncio.create_task(self._send(event))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        self.timers.after(wait_s, start)

    async def _send(self, event: Json) -> None:
        """One attempt. Each event goes its own way, so they overtake each other as Stripe's do."""
        assert self._session is not None
        body = json.dumps(_shown(event), indent=2).encode()
        headers = {
            "Content-Type": "application/json; charset=utf-8", "User-Agent": "Stripe/1.0 (sandbox)",
            "Stripe-Signature": signature(self.config.stripe_webhook_secret, body, int(time.time())),
        }  # fmt: skip
        fate = event["sandbox"]
        fate["attempts"] += 1
        try:
            async with self._session.post(
                self.callback_url, data=body, headers=headers, allow_redirects=False
            ) as answer:
                fate["status"] = answer.status
        except (aiohttp.ClientError, TimeoutError) as error:
            fate["status"] = None
            log.info("sandbox.stripe_unreachable", error=type(error).__name__)
        if fate["status"] is not None and 200 <= fate["status"] < 300:
            fate["state"] = "taken"
        elif fate["attempts"] >= TRIES:
            fate["state"] = "given up"
        else:
            wait = min(self.config.retry_cap_s, self.config.retry_base_s * 2.0 ** (fate["attempts"] - 1))
            self._send_soon(event, wait)
        self._save()


def _id(kind: str) -> str:
    return f"{kind}_{secrets.token_hex(12)}"


def _base(request: web.Request) -> str:
    return f"http://{request.host}"


def _shown(found: Json) -> Json:
    """Without what is the sandbox's own."""
    return {k: v for k, v in found.items() if k != "sandbox"} if "sandbox" in found else found


def _money(price: Json) -> str:
    per = price["recurring"]["interval"]
    return f"{price['unit_amount'] / 100:.2f} {html.escape(price['currency'].upper())}/{html.escape(per)}"


def _button(action: str, text: str, subscription: str = "") -> str:
    return (
        f'<form method="post"><input type="hidden" name="subscription" value="{html.escape(subscription)}">'
        f'<button name="action" value="{html.escape(action)}">{html.escape(text)}</button></form>'
    )


def _page(title: str, inside: str, status: int = 200) -> web.Response:
    text = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
        f"<body><h1>{title}</h1>{inside}</body></html>"
    )
    return web.Response(text=text, content_type="text/html", headers=_HEADERS, status=status)


def _to(address: str) -> web.Response:
    return web.Response(status=303, headers={**_HEADERS, "Location": address})
