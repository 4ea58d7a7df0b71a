"""A worker that sends nothing: claims, waits a moment, settles as accepted. A process of its own, so that it
can be killed; its orders come as JSON in the first argument. What it did is in the event log."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from hub.db.pool import Database
from hub.errors import Unavailable
from sql import q
from workers.claim import Leases


class Orders(msgspec.Struct):
    database_url: str
    name: str
    lease_s: float = 2.0
    hold_s: float = 0.0
    """Seconds that each batch takes."""
    batch: int = 20
    poison: UUID | None = None
    """The message that kills whoever claims it."""


async def main(orders: Orders) -> None:
    db = Database(orders.database_url, ("worker",), "worker")
    await db.open()
    leases = Leases(db, orders.lease_s)
    beat = asyncio.create_task(leases.run())
    behind: tuple[Any, Any] = (None, None)
    parent = os.getppid()
    print("ready", flush=True)
    while not beat.done() and os.getppid() == parent:  # never outlives its test
        try:
            lease = leases.new()
            async with db.connection("worker") as conn:
                found = await conn.fetch(
                    q.claim_sends,
                    lease.token,
                    orders.name,
                    orders.batch,
                    timedelta(seconds=lease.seconds),
                    *behind,
                )
            stops = [r for r in found if r["message_id"] is None]
            behind = (stops[0]["organization_id"], stops[0]["channel_account_id"]) if stops else (None, None)
            ids = [r["message_id"] for r in found if r["message_id"] is not None]
            leases.hold(lease, len(ids))
            if orders.poison in ids:
                os.kill(os.getpid(), signal.SIGKILL)
            if not ids:
                await asyncio.sleep(0 if stops else 0.02)
                continue
            await asyncio.sleep(orders.hold_s)
            results = [
                {"message_id": str(id), "outcome": "accepted", "provider_message_id": f"noop.{id}"}
                for id in ids
            ]
            async with db.connection("worker") as conn:
                await conn.fetch(q.settle_sends, lease.token, json.dumps(results))
            for _ in ids:
                leases.drop(lease)
        except (Unavailable, asyncpg.PostgresError, OSError, TimeoutError):
            await asyncio.sleep(0.1)


if __name__ == "__main__":
    asyncio.run(main(msgspec.json.decode(sys.argv[1], type=Orders)))
