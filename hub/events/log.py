"""The event log, read past a cursor without skipping anything (guarantees 2): ``seq`` is gap-free per
organization and
taken at commit, so whoever sees seq N can read everything below it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from hub.db.pool import Database, LoggedEvent, Purpose
from sql import q

#: Events that one catch-up statement reads.
PAGE = 500


class LogState(dict[UUID, int]):
    """The newest seq by organization, with the ``epoch`` they belong to."""

    epoch: str

    def __init__(self, epoch: str, heads: dict[UUID, int]) -> None:
        super().__init__(heads)
        self.epoch = epoch


async def epoch(db: Database, purpose: Purpose = "live") -> str:
    """Changes when the database became another one (restore, promotion)."""
    async with db.connection(purpose) as conn:
        found: str = await conn.fetchval(q.log_epoch)
        return found


async def state(db: Database, organizations: Sequence[UUID], purpose: Purpose = "live") -> LogState:
    """Heads of all these organizations in one statement; at least one must be asked for."""
    async with db.connection(purpose) as conn:
        rows = await conn.fetch(q.log_state, list(organizations))
    return LogState(rows[0]["epoch"], {r["organization_id"]: r["seq"] for r in rows})


async def page(
    db: Database, organization_id: UUID, after: int, limit: int = PAGE, purpose: Purpose = "live"
) -> list[LoggedEvent]:
    """Up to ``limit`` events after the cursor, in order."""
    async with db.connection(purpose) as conn:
        rows = await conn.fetch(q.log_page, organization_id, after, limit)
    return [LoggedEvent(organization_id, r["seq"], r["table_name"], r["frame"]) for r in rows]


async def floor(db: Database, organization_id: UUID, keep_s: float, purpose: Purpose = "live") -> int:
    """The oldest seq that a client may still resume at."""
    async with db.connection(purpose) as conn:
        found: int = await conn.fetchval(q.log_floor, organization_id, timedelta(seconds=keep_s))
        return found
