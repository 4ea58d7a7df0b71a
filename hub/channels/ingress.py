"""Webhook routes: verify the raw bytes, store, acknowledge. 200 means stored: committed, or fsynced in the
spool.

Nothing about the content makes an answer other than 200: providers repeat what they see refused for days. The
work of a delivery is in ingest.py; this is the edge with its limits.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Final
from uuid import UUID

import structlog
from aiohttp import web

from hub import clock, metrics
from hub.channels.ingest import Delivery, Ingest
from hub.channels.protocol import ChannelAdapter
from hub.channels.registry import ADAPTERS
from hub.channels.spool import Spool
from hub.errors import (
    AuthenticationFailed,
    BadRequest,
    InsufficientPermissions,
    PayloadTooLarge,
    Unavailable,
    UnsupportedMedia,
)
from hub.failpoints import failpoint
from hub.resources import INGEST, SETTINGS, SPOOL

log = structlog.get_logger()

MAX_BODY: Final = 3 * 1024 * 1024
BODY_TIMEOUT_S: Final = 10.0
HARD_STOP_S: Final = 4.5
"""Meta gives up at 5 s and less patient providers count on it; whatever is not committed by then goes to the
spool."""
MAX_UNCHECKED: Final = 32 * 1024 * 1024
"""Spooled bytes above which nothing with an unproven signature is taken: a stranger must not fill the
disk."""
AWAY_S: Final = 1.0
"""Without a spool: how long a database that was just away is not asked again."""
#: What a signature check or an operator needs; the rest of a provider's headers is of no use to us.
KEPT_HEADERS: Final = frozenset({"x-hub-signature-256", "content-type", "user-agent"})


def routes(app: web.Application | None = None) -> list[web.RouteDef]:
    """A GET (subscription handshake) and a POST for every channel that has an adapter."""
    found = []
    for adapter in ADAPTERS.values():
        hook = Webhook(adapter)
        path = f"/functions/v1/{adapter.webhook_path}"
        found += [web.get(path, hook.handshake, allow_head=False), web.post(path, hook.receive)]
    return found


class Webhook:
    """One channel's webhook."""

    def __init__(self, adapter: ChannelAdapter) -> None:
        self._adapter = adapter
        self._away_until = 0.0

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
        ingest: Ingest = request.app[INGEST]
        spool: Spool | None = request.app.get(SPOOL)
        delivery = Delivery(
            channel=self._adapter.type,
            body=await _read(request),
            headers=_kept(request.headers),
            account=_account(request),
            received_at=clock.now_s(),
        )
        is_away = (spool is not None and not spool.is_empty) or time.monotonic() < self._away_until
        try:
            delivery.signed_by = await ingest.signers(self._adapter, delivery, is_away=is_away)
        except Unavailable:
            if spool is None or spool.size > MAX_UNCHECKED:
                raise
        else:
            if delivery.signed_by is None:
                metrics.WEBHOOK_REFUSED.labels(self._adapter.type, "signature").inc()
                raise AuthenticationFailed("The signature is missing or wrong")
        await self._store(ingest, spool, delivery)
        failpoint("ingest.before_200")
        return web.Response(text="OK")

    async def _store(self, ingest: Ingest, spool: Spool | None, delivery: Delivery) -> None:
        """Commit it, or spool it when that cannot be done now. Raises Unavailable when neither can."""
        if delivery.signed_by is not None:
            if spool is None:
                if time.monotonic() < self._away_until:
                    raise Unavailable("The database is away", retry_after_s=2)
                try:
                    async with asyncio.timeout(HARD_STOP_S):
                        await ingest.deliver(delivery)
                except (Unavailable, TimeoutError) as error:
                    self._away_until = time.monotonic() + AWAY_S
                    raise Unavailable("The delivery cannot be stored now", retry_after_s=2) from error
                return
            if spool.is_empty or await spool.turn():
                try:
                    async with asyncio.timeout(HARD_STOP_S):
                        await ingest.deliver(delivery)
                    return
                except (Unavailable, TimeoutError) as error:
                    log.info("webhook.spooled", why=type(error).__name__)
        assert spool is not None
        await spool.append(delivery)


async def _read(request: web.Request) -> bytes:
    """The raw body. Compressed ones are refused: a signature covers bytes, and a small body may inflate to a
    huge one."""
    if "Content-Encoding" in request.headers:
        raise UnsupportedMedia("A webhook's body must not be compressed")
    if (request.content_length or 0) > MAX_BODY:
        raise PayloadTooLarge("A webhook's body may have 3 MiB")
    if request.content.is_eof():  # all of it is here already: no clock needed
        whole = request.content.read_nowait()
        if len(whole) > MAX_BODY:
            raise PayloadTooLarge("A webhook's body may have 3 MiB")
        return whole
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            while chunk := await request.content.readany():
                size += len(chunk)
                if size > MAX_BODY:
                    raise PayloadTooLarge("A webhook's body may have 3 MiB")
                chunks.append(chunk)
    except TimeoutError as error:
        raise BadRequest("The body did not arrive within 10 seconds") from error
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _kept(headers: Mapping[str, str]) -> dict[str, str]:
    """By lower-case name; a name that comes twice gets both values, which no signature matches."""
    kept: dict[str, str] = {}
    for name, value in headers.items():
        lower = name.lower()
        if lower in KEPT_HEADERS:
            kept[lower] = f"{kept[lower]}, {value}" if lower in kept else value
    return kept


def _account(request: web.Request) -> UUID | None:
    """`?channel_account_id=` of the URLs that we register; one that is no id counts as absent."""
    text = request.query.get("channel_account_id") if request.query_string else None
    if text is None:
        return None
    try:
        return UUID(text)
    except ValueError:
        return None
