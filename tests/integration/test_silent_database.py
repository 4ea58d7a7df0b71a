"""D-12, N-02: a server that stands still, or a line that swallows everything, costs a caller seconds and the
pool nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from hub.db import pool
from hub.db.pool import Database
from hub.db.tenancy import acting_as
from hub.errors import Unavailable
from tests.factories import Servers, make_member, make_org
from tests.fakes.proxy import FaultProxy, proxy_to


@pytest.fixture
async def silenced(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Database, FaultProxy]]:
    """The product's pools behind a proxy, with little patience."""
    monkeypatch.setitem(pool.BUDGET_S, "api", 0.5)
    monkeypatch.setitem(pool.COMMAND_TIMEOUT_S, "ingest", 0.5)
    parts = urlsplit(servers.database_url)
    assert parts.hostname
    assert parts.port
    async with proxy_to(parts.hostname, parts.port) as proxy:
        address = parts.netloc.replace(f":{parts.port}", f":{proxy.port}")
        db = Database(urlunsplit(parts._replace(netloc=address)), ("api", "ingest"))
        await db.open()
        yield db, proxy
        await db.close()


async def test_D12_a_transaction_that_hears_nothing_is_refused_as_a_whole(
    silenced: tuple[Database, FaultProxy], superuser: asyncpg.Connection
) -> None:
    db, proxy = silenced
    member = await make_member(superuser, await make_org(superuser))
    with pytest.raises(Unavailable):
        async with acting_as(db, member.principal()) as conn:
            await conn.execute("insert into contacts (first_name) values ('Mona')")
            proxy.up.silent = True
            await conn.execute("insert into contacts (first_name) values ('Nour')")
    proxy.up.silent = False
    async with acting_as(db, member.principal()) as conn:
        assert await conn.fetchval("select count(*) from contacts") == 0


@pytest.mark.parametrize("purpose", ["api", "ingest"])
async def test_N02_a_statement_that_hears_nothing_says_that_the_database_is_away(
    silenced: tuple[Database, FaultProxy], purpose: pool.Purpose
) -> None:
    db, proxy = silenced
    async with db.connection(purpose) as conn:
        await conn.execute("select 1")
    proxy.down.silent = True
    for _ in range(3):
        with pytest.raises(Unavailable):
            async with db.connection(purpose) as conn:
                await conn.execute("select 1")
    proxy.down.silent = False
    async with db.connection(purpose) as conn:
        assert await conn.fetchval("select 1") == 1
