"""A hub, and members and keys that can call it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from hub.auth.passwords import hash_password
from hub.db.embedded import EmbeddedValkey
from tests.factories import Member, Org, Servers, make_member, make_org
from tests.server import PASSWORD, Hub, running_hub


@pytest.fixture(scope="session")
def password_hash() -> str:
    """Of tests.server.PASSWORD; made once, because it is slow on purpose."""
    return hash_password(PASSWORD)


@pytest.fixture
async def hub(servers: Servers, valkey: EmbeddedValkey, tmp_path: Path) -> AsyncIterator[Hub]:
    async with running_hub(servers, valkey.url, tmp_path) as found:
        yield found


@pytest.fixture
async def org(superuser: asyncpg.Connection) -> Org:
    return await make_org(superuser)


@pytest.fixture
async def owner(superuser: asyncpg.Connection, org: Org, password_hash: str) -> Member:
    return await make_member(superuser, org, "OWNER", password_hash)


@pytest.fixture
async def agent(superuser: asyncpg.Connection, org: Org, password_hash: str) -> Member:
    return await make_member(superuser, org, "AGENT", password_hash)
