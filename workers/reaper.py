"""What nobody else does: take over from dead workers, throw away what is past its time, measure the
queues."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

import structlog

from hub import metrics
from hub.db.pool import Database
from hub.settings import Settings
from sql import q

log = structlog.get_logger()

REAP_EVERY_S: Final = 5.0
CLEAN_EVERY_S: Final = 300.0
REAP_BATCH: Final = 200
CLEAN_BATCH: Final = 5_000


class Reaper:
    """Every worker has one; they share the rows by skipping locked ones."""

    def __init__(self, db: Database, settings: Settings) -> None:
        self._db = db
        self._wait = timedelta(seconds=settings.send_unknown_wait_s)

    async def reap(self) -> None:
        """Sends whose lease ended, and unknown ones whose wait did."""
        while True:
            async with self._db.connection("worker") as conn:
                row = await conn.fetchrow(q.reap_sends, self._wait, REAP_BATCH)
            released, unknown, failed = row if row is not None else (0, 0, 0)
            if released or unknown or failed:
                log.warning("send.reaped", released=released, unknown=unknown, failed=failed)
            if released + unknown + failed < REAP_BATCH:
                return

    async def measure(self) -> None:
        """Depth and age of the outbox."""
        async with self._db.connection("worker") as conn:
            rows = await conn.fetch(q.outbox_depth)
        found = {state: (n, oldest) for state, n, oldest in rows}
        for state in ("available", "running", "unknown", "dead"):
            n, oldest = found.get(state, (0, 0.0))
            metrics.OUTBOUND_QUEUE.labels(state).set(n)
            metrics.OUTBOUND_OLDEST.labels(state).set(oldest or 0.0)

    async def clean(self) -> None:
        """Parked statuses and idempotency keys after a day, kept webhooks after thirty."""
        while True:
            async with self._db.connection("worker") as conn:
                row = await conn.fetchrow(q.delete_expired, CLEAN_BATCH)
            gone = tuple(row) if row is not None else (0,)
            if any(gone):
                log.info("cleanup.done", rows=sum(gone))
            if max(gone) < CLEAN_BATCH:
                return
