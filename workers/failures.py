"""Webhooks that could not be applied, looked at again: after a deploy with a fix they simply go through."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any, Final
from uuid import UUID, uuid4

import msgspec
import structlog

from hub.channels.ingest import Amendment, Delivery, Ingest, IngestItem, StatusItem
from hub.channels.registry import ADAPTERS
from hub.db.pool import Database
from sql import q
from workers.retry import failure_s

log = structlog.get_logger()

EVERY_S: Final = 5.0
BATCH: Final = 5
EACH_S: Final = 10.0
LEASE: Final = timedelta(seconds=60)
"""Nobody extends it, so a batch must end within it even when each of its rows takes all its time."""
_HEADERS = msgspec.json.Decoder(dict[str, str])
_MESSAGE = msgspec.json.Decoder(IngestItem)
_STATUS = msgspec.json.Decoder(StatusItem)
_AMENDMENT = msgspec.json.Decoder(Amendment)


class Failures:
    """Claims due failures one batch at a time; each is applied or due again, ten times in all."""

    def __init__(self, db: Database, ingest: Ingest, worker: str) -> None:
        self._db, self._ingest, self._worker = db, ingest, worker

    async def look_again(self) -> None:
        """Everything that is due now; what goes wrong with one of them is its own affair. Raises Unavailable
        when the database is away."""
        while True:
            token = uuid4()
            async with self._db.connection("worker") as conn:
                rows = await conn.fetch(q.claim_failures, token, self._worker, BATCH, LEASE)
            for id, org, channel, account, headers, body, attempts in rows:
                try:
                    async with asyncio.timeout(EACH_S):
                        given = _HEADERS.decode(headers)
                        applied, why = await self._apply(org, channel, account, given, body)
                except Exception as error:
                    # Unavailable as well: when the database is really away, settling says so
                    log.error("failure.failed", failure=str(id), error=type(error).__name__)
                    applied, why = False, f"{type(error).__name__} while it was looked at"
                retry_in = timedelta(seconds=failure_s(attempts))
                async with self._db.connection("worker") as conn:
                    await conn.execute(q.settle_failure, token, id, applied, why, retry_in)
                log.info("failure.looked_at", failure=str(id), applied=applied, attempt=attempts)
            if len(rows) < BATCH:
                return

    async def _apply(
        self, org: UUID | None, channel: str, account: UUID | None, headers: dict[str, str], body: bytes
    ) -> tuple[bool, str | None]:
        if channel not in ADAPTERS:
            return False, "This version has no adapter for the channel"
        if headers.get("hub-form") == "parts":
            return await self._apply_parts(body)
        # it was checked when it came; here it only matters whose it is
        delivery = Delivery(
            channel=channel,
            body=body,
            headers=headers,
            account=account,
            signed_by=[account] if account else [],
        )
        kept: list[str] = []
        applied = await self._ingest.deliver(delivery, organization_id=org, kept=kept)
        return applied, "; ".join(kept)[:500] or None

    async def _apply_parts(self, body: bytes) -> tuple[bool, str | None]:
        """One line a part: messages, statuses, edits and deletions as we store them; a provider's own
        elements wait for a person."""
        errors: list[str] = []
        for line in body.split(b"\n"):
            part = _part(line)
            if isinstance(part, IngestItem):
                errors += [r.error for r in await self._ingest.messages([part])]
            elif isinstance(part, StatusItem):
                errors += [r.error for r in await self._ingest.statuses([part])]
            elif isinstance(part, Amendment):
                errors += [r.error for r in await self._ingest.amendments([part])]
            else:
                errors.append("a part of a shape that cannot be applied by itself")
        return not errors, "; ".join(errors)[:500] or None


def _part(line: bytes) -> Any:
    for decoder in (_MESSAGE, _STATUS, _AMENDMENT):
        try:
            return decoder.decode(line)
        except msgspec.DecodeError:
            continue
    return None
