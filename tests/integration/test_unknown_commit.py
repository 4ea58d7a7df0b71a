"""D-16: the connection dies at COMMIT; the caller gets the true outcome (guarantees G4)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from hub.db.pool import Database
from hub.db.tenancy import acting_as
from hub.errors import Unavailable
from tests.factories import Member, Servers, make_member, make_org
from tests.fakes.proxy import Cut, FaultProxy, proxy_to

COMMIT = rb"commit\x00"


@pytest.fixture
async def proxied(servers: Servers) -> AsyncIterator[tuple[Database, FaultProxy]]:
    """The product's pools behind a proxy."""
    parts = urlsplit(servers.database_url)
    assert parts.hostname
    assert parts.port
    async with proxy_to(parts.hostname, parts.port) as proxy:
        address = parts.netloc.replace(f":{parts.port}", f":{proxy.port}")
        db = Database(urlunsplit(parts._replace(netloc=address)), ("api",))
        await db.open()
        yield db, proxy
        await db.close()


@pytest.fixture
async def member(superuser: asyncpg.Connection) -> Member:
    return await make_member(superuser, await make_org(superuser))


async def test_D16_a_commit_whose_answer_was_lost_is_a_success(
    proxied: tuple[Database, FaultProxy], superuser: asyncpg.Connection, member: Member
) -> None:
    db, proxy = proxied
    for n in range(10):
        proxy.cut = Cut(COMMIT)
        async with acting_as(db, member.principal()) as conn:
            await conn.execute("insert into contacts (first_name) values ($1)", f"Contact {n}")
    assert proxy.cuts == 10
    assert await superuser.fetchval("select count(*) from contacts") == 10


async def test_D16_a_commit_that_never_arrived_is_refused_and_changed_nothing(
    proxied: tuple[Database, FaultProxy], superuser: asyncpg.Connection, member: Member
) -> None:
    db, proxy = proxied
    for _ in range(3):
        proxy.cut = Cut(COMMIT, delivered=False)
        with pytest.raises(Unavailable):
            async with acting_as(db, member.principal()) as conn:
                await conn.execute("insert into contacts (first_name) values ('Mona')")
    assert proxy.cuts == 3
    assert await superuser.fetchval("select count(*) from contacts") == 0


async def test_D16_a_read_that_lost_its_commit_says_that_the_database_went_away(
    proxied: tuple[Database, FaultProxy], member: Member
) -> None:
    db, proxy = proxied
    proxy.cut = Cut(COMMIT)
    with pytest.raises(Unavailable):
        async with acting_as(db, member.principal()) as conn:
            await conn.fetch("select 1 from contacts")
