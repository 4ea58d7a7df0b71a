"""Billing with Stripe: create-checkout, customer-portal, check-subscription, and the webhook that Stripe
tells us by.

What an organization pays for is Stripe's to know; our table is what it last told. An event is a reason to
look, never the news itself: events come late, twice and in any order, so each makes us list the customer's
subscriptions, and of two looks the one that began later is written down (sql/functions/74_billing.sql).
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urlsplit
from uuid import UUID

import aiohttp
import msgspec
import structlog
from aiohttp import web

from hub import clock, metrics
from hub.bodies import decode_json, json_response, read_body
from hub.channels.signing import verify_stripe
from hub.db.tenancy import acting_as
from hub.domain.principal import Principal
from hub.edge import client_address
from hub.errors import (
    AuthenticationFailed,
    BadRequest,
    Conflict,
    NotFound,
    Unavailable,
    UnsupportedMedia,
    invalid,
)
from hub.failpoints import failpoint
from hub.functions.calls import answer, once
from hub.idempotency import Once
from hub.resources import DB, SETTINGS
from hub.settings import Plan, Settings
from sql import q

if TYPE_CHECKING:
    import stripe

log = structlog.get_logger()
T = TypeVar("T")

WEBHOOK_PATH: Final = "/functions/v1/stripe-webhook"
#: A card that was refused is tried again for days; nobody is locked out over it meanwhile.
GRACE_S: Final = 7 * 86400.0
#: Webhooks tell of every change; this is for the one that was lost.
LOOK_AGAIN_S: Final = 600.0
#: Stripe waits some ten seconds for the answer to a webhook.
_WEBHOOK_S: Final = 8.0
_RETRIES: Final = 2
_MAX_EVENT: Final = 1024 * 1024
#: Of a customer; the newest come first.
_MOST_SUBSCRIPTIONS: Final = 100
_MOST_SEATS: Final = 10_000
_LONGEST_URL: Final = 2000
#: Events that change what an organization has. Others are acknowledged and left alone.
_TELLING: Final = frozenset(
    {
        "checkout.session.completed", "checkout.session.async_payment_succeeded",
        "checkout.session.async_payment_failed", "customer.subscription.created",
        "customer.subscription.updated", "customer.subscription.deleted", "customer.subscription.paused",
        "customer.subscription.resumed", "customer.subscription.pending_update_applied",
        "customer.subscription.pending_update_expired", "invoice.paid", "invoice.payment_failed",
        "invoice.payment_action_required", "invoice.finalization_failed", "customer.deleted",
    }
)  # fmt: skip
_encode = msgspec.json.Encoder(uuid_format="canonical").encode


class _Checkout(msgspec.Struct, forbid_unknown_fields=True):
    """A plan's name or its price; with neither, the only plan there is."""

    priceId: str | None = None
    price_id: str | None = None
    plan: str | None = None
    quantity: int | None = None
    successUrl: str | None = None
    success_url: str | None = None
    cancelUrl: str | None = None
    cancel_url: str | None = None


class _Portal(msgspec.Struct, forbid_unknown_fields=True):
    returnUrl: str | None = None
    return_url: str | None = None


class _Object(msgspec.Struct):
    """As much of an event's object as says whose it is; an expanded customer is an object itself."""

    id: str = ""
    customer: Any = None
    client_reference_id: str | None = None
    metadata: dict[str, str] | None = None


class _Data(msgspec.Struct):
    object: _Object


class _Event(msgspec.Struct):
    id: str
    type: str
    data: _Data


_checkout = msgspec.json.Decoder(_Checkout)
_portal = msgspec.json.Decoder(_Portal)
_event = msgspec.json.Decoder(_Event)


class Subscription(msgspec.Struct, frozen=True):
    """One subscription as it is written down. Times are epoch seconds."""

    id: str
    product_id: str | None
    price_id: str | None
    plan: str | None
    status: str
    quantity: int | None
    period_end: int | None
    cancel_at_period_end: bool
    trial_end: int | None
    created: int


class Stripe:
    """The client of one process: the `stripe` package over aiohttp, imported when it is first needed (it is
    large, and most hubs bill nobody)."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client: stripe.StripeClient | None = None
        self._session: aiohttp.ClientSession | None = None
        self._opening = asyncio.Lock()

    @property
    def is_on(self) -> bool:
        return self._settings.stripe_secret_key is not None

    def require(self) -> None:
        """Raises Unavailable for a hub that bills nobody."""
        if not self.is_on:
            raise Unavailable("billing not configured", hint="The operator sets STRIPE_SECRET_KEY")

    async def _open(self) -> stripe.StripeClient:
        self.require()
        async with self._opening:
            if self._client is None:
                package: Any = await asyncio.to_thread(importlib.import_module, "stripe")
                package.enable_telemetry = False
                key = self._settings.stripe_secret_key
                assert key is not None
                timeout = aiohttp.ClientTimeout(
                    total=self._settings.provider_total_s, connect=self._settings.provider_connect_s
                )
                self._session = aiohttp.ClientSession(
                    connector=aiohttp.TCPConnector(limit=20), timeout=timeout
                )
                self._client = package.StripeClient(
                    key.reveal(),
                    base_addresses={"api": self._settings.stripe_api_base},
                    max_network_retries=_RETRIES,
                    http_client=package.AIOHTTPClient(timeout=timeout, session=self._session),
                )
            return self._client

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def call(self, work: Callable[[stripe.StripeClient], Awaitable[T]]) -> T:
        """One call, tried again as the package does, with the same Idempotency-Key. Raises Unavailable when
        Stripe is away or does not know us, ValidationFailed for what it will not have."""
        client = await self._open()
        import stripe as package

        try:
            async with asyncio.timeout(self._settings.provider_total_s):
                return await work(client)
        except TimeoutError as error:
            raise Unavailable("Stripe does not answer", retry_after_s=5) from error
        except (package.AuthenticationError, package.PermissionError) as error:
            log.error("stripe.refuses_us", status=error.http_status, code=error.code)
            raise Unavailable("Stripe refuses this hub's key", hint="The operator must set it") from error
        except package.InvalidRequestError as error:
            log.warning("stripe.refused", status=error.http_status, code=error.code, param=error.param)
            raise invalid(error.param or "body", error.user_message or "Stripe refused this") from error
        except package.StripeError as error:
            log.warning("stripe.failed", error=type(error).__name__, status=error.http_status)
            raise Unavailable("Stripe is away", retry_after_s=5) from error

    async def customer(self, request_id: UUID, organization_id: UUID, name: str, email: str | None) -> str:
        """The customer that this request makes; the same one however often and by whomever it is made."""
        params: dict[str, Any] = {"name": name[:256], "metadata": {"organization_id": str(organization_id)}}
        if email is not None:
            params["email"] = email
        options: Any = {"idempotency_key": f"customer-{request_id}"}
        made = await self.call(lambda c: c.v1.customers.create_async(params, options))  # type: ignore[arg-type]
        return made.id

    async def subscriptions(self, customer: str) -> list[Subscription]:
        """All of a customer's, ended ones too."""
        params: Any = {"customer": customer, "status": "all", "limit": _MOST_SUBSCRIPTIONS}
        found = await self.call(lambda c: c.v1.subscriptions.list_async(params))
        return [self._told(one.to_dict()) for one in found.data]

    def _told(self, found: dict[str, Any]) -> Subscription:
        """The period stands on the items; on the subscription itself before API version 2025-03-31."""
        items = (found.get("items") or {}).get("data") or [{}]
        first = items[0]
        price = first.get("price") or {}
        product = price.get("product")
        return Subscription(
            id=found["id"],
            product_id=product.get("id") if isinstance(product, dict) else product,
            price_id=price.get("id"),
            plan=self._plan_of(price.get("id")) or price.get("lookup_key") or price.get("nickname"),
            status=found["status"],
            quantity=first.get("quantity"),
            period_end=first.get("current_period_end") or found.get("current_period_end"),
            cancel_at_period_end=bool(found.get("cancel_at_period_end")),
            trial_end=found.get("trial_end"),
            created=found["created"],
        )

    def _plan_of(self, price: str | None) -> str | None:
        return next((name for name, plan in self._settings.plans.items() if plan.price == price), None)


STRIPE: web.AppKey[Stripe] = web.AppKey("stripe", Stripe)


async def billing(app: web.Application) -> AsyncIterator[None]:
    """The client of this process; nothing is opened before it is used."""
    app[STRIPE] = Stripe(app[SETTINGS])
    yield
    await app[STRIPE].close()


def routes() -> list[web.RouteDef]:
    return [web.post(WEBHOOK_PATH, receive)]  # before the functions, which take every other path


def _payer(request: web.Request, principal: Principal) -> UUID:
    """The caller's organization. Raises Unavailable for a hub that bills nobody."""
    request.app[STRIPE].require()
    assert principal.organization_id is not None  # FUNCTION_NEEDS
    return principal.organization_id


# Where people come back to.


def _return_url(settings: Settings, field: str, given: str | None, default: str) -> str:
    """A page of ours, or of an origin that the operator allowed: Stripe sends the browser there, and must not
    be made to send it anywhere else. Raises ValidationFailed."""
    if given is None:
        return settings.public_base_url + default
    refusal = invalid(field, "must be a path such as /settings, or an address of this hub")
    if len(given) > _LONGEST_URL or not given.isascii() or not given.isprintable():
        raise refusal
    if "\\" in given or " " in given:
        raise refusal
    if given.startswith("/") and not given.startswith("//"):
        return settings.public_base_url + given
    try:
        parts = urlsplit(given)
        origin = f"{parts.scheme}://{parts.netloc}".lower()
        _ = parts.port
    except ValueError:
        raise refusal from None
    base = urlsplit(settings.public_base_url)
    allowed = {f"{base.scheme}://{base.netloc}".lower(), *(o.lower() for o in settings.allowed_origins)}
    if parts.scheme not in ("http", "https") or origin not in allowed:
        raise refusal
    return given


def _either(first: str | None, second: str | None) -> str | None:
    """Of a name's two spellings the one that was used."""
    return second if first is None else first


def _plan(settings: Settings, body: _Checkout) -> tuple[str, Plan]:
    """The plan that is asked for. Raises ValidationFailed: prices of the account that are no plans of this
    hub (old, internal, another product's) are not for sale here."""
    price = _either(body.priceId, body.price_id)
    plans = settings.plans
    if body.plan is not None:
        if body.plan not in plans:
            raise invalid("plan", f"must be one of {', '.join(plans) or 'none: STRIPE_PRICE_IDS is empty'}")
        if price not in (None, plans[body.plan].price):
            raise invalid("priceId", "is not the price of this plan")
        return body.plan, plans[body.plan]
    if price is not None:
        for name, plan in plans.items():
            if plan.price == price:
                return name, plan
        raise invalid("priceId", "is not for sale here")
    if len(plans) != 1:
        raise invalid("plan", f"must be one of {', '.join(plans) or 'none: STRIPE_PRICE_IDS is empty'}")
    return next(iter(plans.items()))


# The functions.


async def create_checkout(request: web.Request, principal: Principal) -> web.Response:
    """A page of Stripe's on which the organization subscribes to a plan: {"url", "sessionId"}."""
    organization_id = _payer(request, principal)
    raw = await read_body(request)
    body = decode_json(raw, _checkout, request.content_type, empty=_Checkout())
    settings = request.app[SETTINGS]
    name, plan = _plan(settings, body)
    quantity = 1 if body.quantity is None else body.quantity
    if not 1 <= quantity <= _MOST_SEATS:
        raise invalid("quantity", f"must be from 1 to {_MOST_SEATS}")
    back = "/settings?checkout={}"
    success = _return_url(
        settings, "successUrl", _either(body.successUrl, body.success_url),
        back.format("done&session_id={CHECKOUT_SESSION_ID}"),
    )  # fmt: skip
    cancel = _return_url(
        settings, "cancelUrl", _either(body.cancelUrl, body.cancel_url), back.format("cancelled")
    )

    given = Once.of(request, principal, raw)
    async with acting_as(request.app[DB], principal) as conn:
        kept = await given.earlier(conn) if given is not None else None
        current = await conn.fetchrow(q.current_subscription, GRACE_S)
    if kept is not None:
        return answer(kept.body.encode(), kept.status, repeated=True)
    if current is not None and current["subscribed"]:
        raise Conflict(
            "The organization has a subscription already", hint="customer-portal changes or ends it"
        )
    customer = await _customer(request, principal, organization_id)
    params: dict[str, Any] = {
        "mode": "subscription",
        "customer": customer,
        "client_reference_id": str(organization_id),
        "line_items": [{"price": plan.price, "quantity": quantity}],
        "subscription_data": {"metadata": {"organization_id": str(organization_id), "plan": name}},
        "success_url": success,
        "cancel_url": cancel,
        "allow_promotion_codes": True,
    }
    options: Any = {} if given is None else {"idempotency_key": _stripe_key(organization_id, given, customer)}
    made = await request.app[STRIPE].call(
        lambda c: c.v1.checkout.sessions.create_async(params, options)  # type: ignore[arg-type]
    )

    async def work(_: Any) -> dict[str, Any]:
        return {"url": made.url, "sessionId": made.id}

    return await once(request, principal, raw, work)


def _stripe_key(organization_id: UUID, given: Once, customer: str) -> str:
    """Of the same request by the same caller, so that one whose answer was lost gets the same page again."""
    text = f"{organization_id}\n{given.name}\n{given.key}\n{customer}\n".encode("utf-8", "surrogateescape")
    return f"checkout-{hashlib.sha256(text + given.digest).hexdigest()}"


async def _customer(request: web.Request, principal: Principal, organization_id: UUID) -> str:
    """The organization's customer at Stripe, made the first time. Nobody waits in a transaction for it."""
    email = principal.claims.get("email") if principal.claims else None
    async with request.app[DB].connection("api") as conn:
        row = await conn.fetchrow(
            q.billing_request, organization_id, email if isinstance(email, str) else None
        )
    if row is None:
        raise NotFound("No such organization")
    if row["stripe_customer_id"] is not None:
        found: str = row["stripe_customer_id"]
        return found
    made = await request.app[STRIPE].customer(row["id"], organization_id, row["name"], row["email"])
    async with request.app[DB].connection("api") as conn:
        standing: str | None = await conn.fetchval(q.keep_stripe_customer, organization_id, made)
    if standing is None:
        raise Unavailable("The customer is gone at Stripe", retry_after_s=1)  # deleted in between
    return standing


async def customer_portal(request: web.Request, principal: Principal) -> web.Response:
    """A page of Stripe's on which the subscription is changed or ended, cards and invoices are: {"url"}."""
    organization_id = _payer(request, principal)
    wanted = _either(request.query.get("returnUrl"), request.query.get("return_url"))
    if request.method == "POST":
        body = decode_json(await read_body(request), _portal, request.content_type, empty=_Portal())
        wanted = _either(_either(body.returnUrl, body.return_url), wanted)
    back = _return_url(request.app[SETTINGS], "returnUrl", wanted, "/settings")
    async with request.app[DB].connection("api") as conn:
        row = await conn.fetchrow(q.billing_standing, organization_id)
    if row is None:
        raise NotFound("The organization has never paid", hint="create-checkout comes first")
    params: Any = {"customer": row["stripe_customer_id"], "return_url": back}
    made = await request.app[STRIPE].call(lambda c: c.v1.billing_portal.sessions.create_async(params))
    return json_response({"url": made.url})


async def check_subscription(request: web.Request, principal: Principal) -> web.Response:
    """What the organization pays for: from our table, asked of Stripe again when that is ten minutes old."""
    organization_id = _payer(request, principal)
    async with request.app[DB].connection("api") as conn:
        row = await conn.fetchrow(q.billing_standing, organization_id)
    if row is not None and (row["checked_s"] is None or row["checked_s"] > LOOK_AGAIN_S):
        try:
            await _look(request.app, row["stripe_customer_id"])
        except Unavailable as error:
            log.warning("billing.old_news", error=error.message)  # what is known is better than nothing
    async with acting_as(request.app[DB], principal, read_only=True) as conn:
        found = await conn.fetchrow(q.current_subscription, GRACE_S)
    names = (
        "subscribed", "status", "product_id", "price_id", "plan", "quantity", "subscription_end",
        "cancel_at_period_end", "trial_end",
    )  # fmt: skip
    told: dict[str, Any] = {name: None if found is None else found[name] for name in names}
    for name in ("subscribed", "cancel_at_period_end"):
        told[name] = bool(told[name])
    plan = request.app[SETTINGS].plans.get(told["plan"] or "") if told["subscribed"] else None
    return json_response({**told, "entitlements": plan.entitlements if plan is not None else {}})


async def _look(app: web.Application, customer: str, event: _Event | None = None) -> str:
    """List the customer's subscriptions and write them down; the outcome of app.apply_subscriptions."""
    db = app[DB]
    async with db.connection("api") as conn:
        ticket = await conn.fetchval(q.begin_billing_look, customer)
    if ticket is None:
        return "unknown"
    seen = await app[STRIPE].subscriptions(customer)
    failpoint("billing.before_apply")
    async with db.connection("api") as conn:
        outcome: str = await conn.fetchval(
            q.apply_subscriptions,
            customer,
            ticket,
            _encode(seen).decode(),
            event.id if event else None,
            event.type if event else None,
        )
    return outcome


# The webhook.


async def receive(request: web.Request) -> web.Response:
    """An event of Stripe's. 200: written down, known already, or none of our business; 401: not Stripe's, or
    too old; 503: once more, please."""
    app = request.app
    settings = app[SETTINGS]
    if "Content-Encoding" in request.headers:
        raise UnsupportedMedia("A webhook's body must not be compressed")
    raw = await read_body(request, _MAX_EVENT)
    secrets = [secret.reveal() for secret in settings.stripe_webhook_secrets]
    if not secrets or not app[STRIPE].is_on:
        raise Unavailable("billing not configured", hint="The operator sets STRIPE_WEBHOOK_SECRET")
    header = ", ".join(request.headers.getall("Stripe-Signature", ()))
    if not verify_stripe(header, raw, secrets, now_s=clock.now_s()):
        _refused("signature", address=client_address(request, settings))
        raise AuthenticationFailed("The signature is missing, wrong or too old")
    try:
        event = _event.decode(raw)
    except msgspec.DecodeError as error:
        _refused("shape", error=str(error)[:200])
        raise BadRequest("This is no event") from error
    with structlog.contextvars.bound_contextvars(stripe_event=event.id, stripe_type=event.type):
        try:
            async with asyncio.timeout(_WEBHOOK_S):
                outcome = await _take(app, event)
        except TimeoutError as error:
            raise Unavailable("This took too long", retry_after_s=5) from error
        if outcome == "repeated":
            _refused("repeated")
        else:
            log.info("stripe.event", outcome=outcome)
    failpoint("billing.before_200")
    return json_response({"received": True})


def _refused(reason: str, **fields: Any) -> None:
    """A line of the security log: nobody's audit log can have it, for nothing of it proves whose it is."""
    metrics.WEBHOOK_REFUSED.labels("STRIPE", reason).inc()
    log.warning("security.stripe_webhook_refused", reason=reason, **fields)


async def _take(app: web.Application, event: _Event) -> str:
    """Let an event have its effect, once; what became of it."""
    if event.type not in _TELLING:
        return "ignored"
    is_end = event.type == "customer.deleted"
    about = event.data.object
    customer = about.id if is_end else about.customer
    if isinstance(customer, dict):
        customer = customer.get("id")
    if not isinstance(customer, str) or not customer:
        return "nobody"
    async with app[DB].connection("api") as conn:
        if await conn.fetchval(q.stripe_event_applied, event.id):
            return "repeated"
        owner = await conn.fetchval(q.billing_owner, customer, None if is_end else _claimed(about))
        if owner is None:
            return "nobody"
        if is_end:
            ended: str = await conn.fetchval(q.end_billing_customer, customer, event.id, event.type)
            return ended
    return await _look(app, customer, event)


def _claimed(about: _Object) -> UUID | None:
    """The organization that the object says it is for."""
    for text in (about.client_reference_id, (about.metadata or {}).get("organization_id")):
        if text is not None:
            try:
                return UUID(text)
            except ValueError:
                continue
    return None
