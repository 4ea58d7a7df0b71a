"""What is written down beside the requests, in batches: refused attempts for the audit logs, last uses of
keys.

Neither may cost its request a round trip, and neither can be used to fill a table: the same attempt of the
same caller is noted once in ten minutes, and a process keeps a bounded number for one batch.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from typing import Any, Final
from uuid import UUID

import asyncpg
import msgspec
import structlog

from hub.db.pool import Database
from hub.domain.principal import Principal
from hub.errors import Unavailable
from sql import q

log = structlog.get_logger()
#: How long notes wait for others.
BATCH_S: Final = 1.0
#: A key's use is an event in its organization's log; a refusal, a row of its audit log.
AGAIN_S: Final = 600.0
_WAITING: Final = 2000
_REMEMBERED: Final = 20_000
_AWAY: Final = (Unavailable, asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError)
_encode = msgspec.json.Encoder(uuid_format="canonical").encode


class Notes:
    """One per process."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._refused: list[dict[str, Any]] = []
        self._used: dict[UUID, UUID] = {}
        self._noted: OrderedDict[tuple[Any, ...], float] = OrderedDict()
        self._task: asyncio.Task[None] | None = None

    def used(self, organization_id: UUID, key_id: UUID) -> None:
        """A key was used; noted at most once in ten minutes."""
        if self._is_new(("used", key_id)):
            self._used[key_id] = organization_id
            self._soon()

    def refused(
        self,
        principal: Principal,
        what: str,
        reason: str,
        *,
        target_table: str | None = None,
        target_id: UUID | None = None,
        address: str | None = None,
        request_id: str | None = None,
    ) -> None:
        """An attempt of a member or key was refused; its organization reads of it. Nobody else's is kept."""
        organization = principal.organization_id
        actor = principal.key_id or principal.user_id
        if organization is None or principal.kind not in ("user", "key"):
            return
        if len(self._refused) >= _WAITING or not self._is_new((actor, what, reason, target_id)):
            return
        self._refused.append(
            {
                "organization_id": organization,
                "kind": principal.kind,
                "actor_id": actor,
                "what": what[:200],
                "reason": reason[:200],
                "target_table": target_table,
                "target_id": target_id,
                "ip": address or principal.address,
                "request": request_id or principal.request_id,
            }
        )
        self._soon()

    def _is_new(self, key: tuple[Any, ...]) -> bool:
        now = time.monotonic()
        if now - self._noted.get(key, -AGAIN_S) < AGAIN_S:
            return False
        self._noted[key] = now
        self._noted.move_to_end(key)
        if len(self._noted) > _REMEMBERED:
            self._noted.popitem(last=False)
        return True

    def _soon(self) -> None:
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._write_soon(), name="notes")

    async def _write_soon(self) -> None:
        while self._refused or self._used:
            await asyncio.sleep(BATCH_S)
            await self.write()

    async def write(self) -> None:
        """What waits, now. While the database is away it is left out: what was refused changed nothing."""
        refused, self._refused = self._refused, []
        used, self._used = self._used, {}
        try:
            async with self._db.connection("admin") as conn:
                if refused:
                    await conn.execute(q.note_refusals, _encode(refused).decode())
                if used:
                    await conn.execute(q.keys_used, list(used.values()), list(used))
        except _AWAY as error:
            log.info("notes.lost", refused=len(refused), used=len(used), error=type(error).__name__)

    async def close(self) -> None:
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._refused or self._used:
            await self.write()
