"""Which connections the functions take (guarantees 12)."""

from __future__ import annotations

from contextlib import AsyncExitStack

from hub.db.pool import SIZES
from hub.resources import DB
from tests.factories import Member
from tests.server import Hub


async def test_readers_of_the_log_do_not_take_the_connections_of_the_live_streams(
    hub: Hub, owner: Member
) -> None:
    token = await hub.token(owner.email)
    db = hub.app[DB]
    async with AsyncExitStack() as held:
        for _ in range(SIZES["live"]):
            await held.enter_async_context(db.connection("live"))
        page = await hub.get("/functions/v1/events", token=token)
    assert page.status == 200
