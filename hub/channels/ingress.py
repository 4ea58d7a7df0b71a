"""Webhook routes: verify the raw bytes, store, acknowledge. 200 means stored: committed, or fsynced in the
spool.

Nothing about the content makes an answer other than 200: providers repeat what they see refused for days. The
work of a delivery is in ingest.py; this is the edge with its limits.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Mapping
from typing import Any, Final, TypeVar
from uuid import UUID

import structlog
from aiohttp import web

from hub import clock, metrics
from hub.bodies import read_body
from hub.channels.ingest import Crowded, Delivery, Ingest
from hub.channels.protocol import ChannelAdapter
from hub.channels.registry import ADAPTERS
from hub.channels.spool import Spool
from hub.errors import (
    AuthenticationFailed,
    InsufficientPermissions,
    Unavailable,
    UnsupportedMedia,
)
from hub.failpoints import failpoint
from hub.resources import INGEST, SETTINGS, SPOOL

log = structlog.get_logger()
T = TypeVar("T")

MAX_BODY: Final = 3 * 1024 * 1024
HARD_STOP_S: Final = 4.5
"""Meta gives up at 5 s and less patient providers count on it; whatever is not committed by then goes to the
spool."""
MAX_UNCHECKED: Final = 32 * 1024 * 1024
"""Spooled bytes above which nothing with an unproven signature is taken: a stranger must not fill the
disk."""
AWAY_S: Final = 1.0
"""Without a spool: how long a database that was just away is not asked again."""
_PLAIN: Final = {"Content-Type": "text/plain; charset=utf-8"}
#: What a signature check or an operator needs; the rest of a provider's headers is of no use to us.
KEPT_HEADERS: Final = ("x-hub-signature-256", "content-type", "user-agent")


def webhooks() -> dict[str, Webhook]:
    """By path: one for every channel that has an adapter."""
    return {f"/functions/v1/{a.webhook_path}": Webhook(a) for a in ADAPTERS.values()}


def routes(hooks: Mapping[str, Webhook]) -> list[web.RouteDef]:
    """A GET (subscription handshake) and a POST each."""
    found = []
    for path, hook in hooks.items():
        found += [web.get(path, hook.handshake, allow_head=False), web.post(path, hook.receive)]
    return found


class Patience:
    """A time-out for many short waits of one length: one timer for all of them, where ``asyncio.timeout``
    sets and cancels one each. It is noticed up to a twentieth of its length late."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._deadlines: dict[asyncio.Task[Any], float] = {}
        """By when each began, so the first is the next to end."""
        self._stopped: set[asyncio.Task[Any]] = set()
        self._timer: asyncio.TimerHandle | None = None

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`; raises TimeoutError when it takes longer. One at a time in a task."""
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None and task not in self._deadlines
        cancelling = task.cancelling()
        self._deadlines[task] = loop.time() + self._seconds
        if self._timer is None:
            self._timer = loop.call_later(self._seconds, self._look)
        try:
            return await work
        except asyncio.CancelledError:
            if task in self._stopped:
                self._stopped.discard(task)
                if task.uncancel() <= cancelling:  # else somebody else wants it to end, too
                    raise TimeoutError from None
            raise
        finally:
            del self._deadlines[task]
            if task in self._stopped:
                self._stopped.discard(task)
                task.uncancel()

    def _look(self) -> None:
        now = asyncio.get_running_loop().time()
        self._timer = None
        for task, deadline in self._deadlines.items():
            if deadline > now:
                # not before a twentieth is over: under load the next one is always due in a moment
                wait = max(deadline - now, self._seconds / 20)
                self._timer = asyncio.get_running_loop().call_later(wait, self._look)
                break
            if task not in self._stopped:
                self._stopped.add(task)
                task.cancel()


class Webhook:
    """One channel's webhook."""

    def __init__(self, adapter: ChannelAdapter) -> None:
        self._adapter = adapter
        self._away_until = 0.0
        self._patience = Patience(HARD_STOP_S)

    async def handshake(self, request: web.Request) -> web.Response:
        """The provider asks whether this address is ours: it knows the operator's verify token or an
        account's."""
        operator = request.app[SETTINGS].meta_verify_token
        tokens = [operator.reveal()] if operator else []
        answer = self._adapter.handshake(request.query, tokens)
        if answer is None:
            tokens = await request.app[INGEST].accounts.verify_tokens(self._adapter.type)
            answer = self._adapter.handshake(request.query, tokens)
        if answer is None:
            raise InsufficientPermissions("The verify token does not match")
        return web.Response(text=answer, content_type="text/plain")

    async def receive(self, request: web.Request) -> web.Response:
        """200 once the delivery is durable. 401: nobody of ours signed it, and nothing of it is kept."""
        await self.take(request.app, request)
        return web.Response(body=b"OK", headers=_PLAIN)

    async def take(self, app: web.Application, request: web.BaseRequest) -> None:
        """Return once the delivery is durable. Raises the refusal otherwise."""
        ingest: Ingest = app[INGEST]
        spool: Spool | None = app.get(SPOOL)
        delivery = Delivery(
            channel=self._adapter.type,
            body=await _read(request),
            headers=_kept(request),
            account=_account(request),
            received_at=clock.now_s(),
        )
        is_away = (spool is not None and not spool.is_empty) or time.monotonic() < self._away_until
        try:
            delivery.signed_by = await ingest.signers(self._adapter, delivery, is_away=is_away)
        except Crowded:
            metrics.WEBHOOK_REFUSED.labels(self._adapter.type, "crowded").inc()
            raise
        except Unavailable:
            if spool is None or spool.size > MAX_UNCHECKED:
                raise
        else:
            if delivery.signed_by is None:
                metrics.WEBHOOK_REFUSED.labels(self._adapter.type, "signature").inc()
                raise AuthenticationFailed("The signature is missing or wrong")
        await self._store(ingest, spool, delivery)
        failpoint("ingest.before_200")

    async def _store(self, ingest: Ingest, spool: Spool | None, delivery: Delivery) -> None:
        """Commit it, or spool it when that cannot be done now. Raises Unavailable when neither can."""
        if delivery.signed_by is not None:
            if spool is None:
                if time.monotonic() < self._away_until:
                    raise Unavailable("The database is away", retry_after_s=2)
                try:
                    await self._patience.run(ingest.deliver(delivery))
                except (Unavailable, TimeoutError) as error:
                    self._away_until = time.monotonic() + AWAY_S
                    raise Unavailable("The delivery cannot be stored now", retry_after_s=2) from error
                return
            if spool.is_empty or await spool.turn():
                try:
                    await self._patience.run(ingest.deliver(delivery))
                    return
                except (Unavailable, TimeoutError) as error:
                    log.info("webhook.spooled", why=type(error).__name__)
        assert spool is not None
        await spool.append(delivery)


async def _read(request: web.BaseRequest) -> bytes:
    """The raw body. Compressed ones are refused: a signature covers bytes, and a small body may inflate to a
    huge one."""
    if "Content-Encoding" in request.headers:
        raise UnsupportedMedia("A webhook's body must not be compressed")
    return await read_body(request, MAX_BODY)


def _kept(request: web.BaseRequest) -> dict[str, str]:
    """By lower-case name; a name that comes twice gets both values, which no signature matches."""
    kept: dict[str, str] = {}
    for name in KEPT_HEADERS:
        values = request.headers.getall(name, ())
        if values:
            kept[name] = values[0] if len(values) == 1 else ", ".join(values)
    return kept


def _account(request: web.BaseRequest) -> UUID | None:
    """`?channel_account_id=` of the URLs that we register; one that is no id counts as absent."""
    text = request.query.get("channel_account_id") if request.rel_url.raw_query_string else None
    if text is None:
        return None
    try:
        return UUID(text)
    except ValueError:
        return None
