"""Servers and databases for every test: real PostgreSQL and Valkey, one of each a test process, thrown away
afterwards."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest

from hub.db.embedded import EmbeddedPostgres, EmbeddedValkey
from hub.db.migrate import migrate
from hub.db.pool import Database
from tests.e2e.browser import NOT_RUN, find_browser
from tests.factories import Servers
from tests.sending import spawn as spawn  # fixtures of the tests that send
from tests.sending import world as world

RUNTIME_PASSWORD = "runtime-for-tests"
TEMPLATE = "hub_template"


def pytest_report_header() -> str:
    """Which browser the browser tests use; or, in bold, that they do not run and how to make them."""
    browser = find_browser()
    return f"browser: {browser.name}" if browser else NOT_RUN


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With several processes (`--dist loadgroup`) a file's tests stay in one, since they share their servers;
    fault tests stay in one altogether, since each wants the machine."""
    for item in items:
        together = "fault" if item.get_closest_marker("fault") else item.nodeid.split("::")[0]
        item.add_marker(pytest.mark.xdist_group(together))


@pytest.fixture(scope="session")
def server_dir() -> Iterator[Path]:
    """Outside the checkout, so that a read-only one can be tested too; in memory where there is enough.

    A clone of the template is some 400 files: 12 ms in memory, 40 to 500 ms on ext4.
    """
    memory = Path("/dev/shm")
    roomy = os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 4 << 30
    path = Path(tempfile.mkdtemp(prefix="hub-tests-", dir=memory if roomy else None))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres(server_dir: Path) -> Iterator[EmbeddedPostgres]:
    """A PostgreSQL without fsync; its `dsn` is the superuser's."""
    server = EmbeddedPostgres(server_dir, throwaway=True)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def valkey(server_dir: Path) -> Iterator[EmbeddedValkey]:
    server = EmbeddedValkey(server_dir)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
async def template(postgres: EmbeddedPostgres) -> str:
    """A migrated database that the others are cloned from."""
    conn = await asyncpg.connect(postgres.dsn)
    await conn.execute(f"create database {TEMPLATE}")
    await conn.close()
    url = postgres.dsn_for(TEMPLATE)
    await migrate(url, runtime_url(postgres, TEMPLATE))
    return TEMPLATE


def runtime_url(postgres: EmbeddedPostgres, database: str) -> str:
    """DATABASE_URL of the login that the product runs with."""
    return f"postgresql://hub_runtime:{RUNTIME_PASSWORD}@127.0.0.1:{postgres.port}/{database}"


@pytest.fixture
async def servers(postgres: EmbeddedPostgres, template: str) -> AsyncIterator[Servers]:
    """A fresh database for one test (a clone, about 30 ms), with the addresses to reach it."""
    name = f"t_{uuid4().hex}"
    admin = await asyncpg.connect(postgres.dsn)
    await admin.execute(f"create database {name} template {template} strategy file_copy")
    try:
        yield Servers(database_url=runtime_url(postgres, name), migrate_url=postgres.dsn_for(name))
    finally:
        await admin.execute(f"drop database {name} with (force)")
        await admin.close()


@pytest.fixture
def database_url(servers: Servers) -> str:
    return servers.database_url


@pytest.fixture
async def superuser(servers: Servers) -> AsyncIterator[asyncpg.Connection]:
    """Sees everything: for arranging and for judging, never for acting."""
    conn = await asyncpg.connect(servers.migrate_url, server_settings={"timezone": "UTC"})
    yield conn
    await conn.close()


@pytest.fixture
async def db(servers: Servers) -> AsyncIterator[Database]:
    """The product's own pools, as hub_runtime."""
    database = Database(servers.database_url, ("ingest", "api", "live", "worker", "admin"))
    await database.open()
    yield database
    await database.close()
