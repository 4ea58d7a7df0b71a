"""An organization on the sandbox's number, its webhook route, and workers that start and stop: for tests of
sending."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from hub.db.embedded import EmbeddedValkey
from hub.db.pool import Database
from hub.sandbox.config import Account
from hub.settings import Secret, Settings
from tests import whatsapp as wa
from tests.factories import Org, insert, keep_secret, make_contact, make_conversation, make_org, until
from tests.fakes.whatsapp import APP_SECRET, Sandbox, running_sandbox
from workers.runtime import run

LAYLA, OMAR, SAMI = "201001383533", "201112223344", "962790000456"


class World:
    """Four organizations, each on a number of the sandbox, their webhook route, and the sandbox; workers
    start and stop in it. Most tests need `org` alone, the first of them."""

    def __init__(
        self, orgs: list[Org], settings: Settings, sandbox: Sandbox, conn: asyncpg.Connection
    ) -> None:
        self.orgs, self.settings, self.sandbox, self.conn = orgs, settings, sandbox, conn
        self.org = orgs[0]
        self.conversations: dict[tuple[UUID, str], UUID] = {}

    async def conversation(self, wa_id: str = LAYLA, org: Org | None = None) -> UUID:
        org = org or self.org
        if (org.id, wa_id) not in self.conversations:
            contact = await make_contact(self.conn, org, wa_id)
            self.conversations[org.id, wa_id] = await make_conversation(self.conn, org, contact)
        return self.conversations[org.id, wa_id]

    async def queue(
        self, content: str = "Hello", to: str = LAYLA, org: Org | None = None, **columns: Any
    ) -> UUID:
        """A PENDING message, as the composer makes one."""
        values = {
            "organization_id": (org or self.org).id,
            "conversation_id": await self.conversation(to, org),
            "content": content,
            "direction": "OUTBOUND",
            "status": "PENDING",
            "source": "agent",
        }
        return await insert(self.conn, "messages", {**values, **columns})

    async def message(self, id: UUID) -> asyncpg.Record:
        row = await self.conn.fetchrow("select * from messages where id = $1", id)
        assert row is not None
        return row

    async def status(self, id: UUID, *wanted: str, timeout_s: float = 15.0) -> asyncpg.Record:
        """The message once its status is one of these."""

        async def reached() -> asyncpg.Record | None:
            row = await self.message(id)
            return row if row["status"] in wanted else None

        row: asyncpg.Record = await until(reached, timeout_s, f"{wanted}")
        return row

    async def outbox(self, id: UUID) -> asyncpg.Record | None:
        return await self.conn.fetchrow("select * from app.outbox where message_id = $1", id)

    async def sends(self, id: UUID | None = None) -> list[dict[str, Any]]:
        """The ledger: what the provider accepted, in order."""
        query = f"?correlator={id}" if id else ""
        answer = await self.sandbox.ctl("GET", f"/ledger{query}")
        found: list[dict[str, Any]] = answer["sends"]
        return found

    @asynccontextmanager
    async def worker(self, **settings: Any) -> AsyncIterator[None]:
        """A worker in this process."""
        stop = asyncio.Event()
        fields = {f: getattr(self.settings, f) for f in self.settings.__struct_fields__}
        task = asyncio.create_task(run(Settings(**{**fields, **settings}), stop))
        try:
            yield
        finally:
            stop.set()
            await task


@pytest.fixture
async def world(
    db: Database, superuser: asyncpg.Connection, database_url: str, valkey: EmbeddedValkey, tmp_path: Path
) -> AsyncIterator[World]:
    settings = wa.settings(
        database_url,
        redis_url=valkey.url,
        meta_app_secret=Secret(APP_SECRET),
        work_poll_s=0.05,
        work_lease_s=3.0,
        send_unknown_wait_s=60.0,
        provider_total_s=1.0,
    )
    accounts = [
        {"phone_number_id": f"10000000000000{n}", "waba_id": f"20000000000000{n}"} for n in range(1, 5)
    ]
    orgs = [await _on_the_sandbox(superuser, settings, account) for account in accounts]
    async with wa.hook(db, settings) as hook:
        callback = str(hook.server.make_url(wa.PATH))
        async with running_sandbox(
            tmp_path / "sandbox",
            callback,
            enforce_rates=False,
            accounts=tuple(Account(**account) for account in accounts),
        ) as sandbox:
            fields = {f: getattr(settings, f) for f in settings.__struct_fields__}
            graph = Settings(**{**fields, "meta_graph_base": f"{sandbox.url}/graph"})
            yield World(orgs, graph, sandbox, superuser)


async def _on_the_sandbox(conn: asyncpg.Connection, settings: Settings, account: dict[str, str]) -> Org:
    """An organization whose WhatsApp number the sandbox plays."""
    org = await make_org(conn)
    shown = json.dumps({**account, "access_token": "••••"})
    await conn.execute("update channel_accounts set settings = $2 where id = $1", org.account_id, shown)
    await keep_secret(conn, settings, org, "access_token", "sandbox-token")
    return Org(org.id, org.account_id, account["phone_number_id"])


def environment(settings: Settings, **more: str) -> dict[str, str]:
    """The environment of a worker process like this one."""
    assert settings.meta_app_secret is not None
    return {
        **{k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "LANG")},
        "DATABASE_URL": settings.database_url,
        "REDIS_URL": settings.redis_url,
        "HUB_SECRET_KEY": settings.secret_keys[0].reveal(),
        "META_GRAPH_BASE": settings.meta_graph_base,
        "META_APP_SECRET": settings.meta_app_secret.reveal(),
        "HUB_WORK_LEASE_S": "2",
        "HUB_WORK_POLL_S": "0.05",
        "HUB_SEND_UNKNOWN_WAIT_S": "30",
        "HUB_LOG": "json",
        **more,
    }


Spawn = Callable[..., Awaitable[asyncio.subprocess.Process]]


@pytest.fixture
async def spawn(world: World, tmp_path: Path) -> AsyncIterator[Spawn]:
    """Worker processes, killed afterwards."""
    started: list[asyncio.subprocess.Process] = []

    async def start(**more: str) -> asyncio.subprocess.Process:
        with (tmp_path / f"worker{len(started)}.log").open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-P", "-m", "workers",
                env=environment(world.settings, **more), stdout=output, stderr=output,
                cwd=Path(__file__).parents[1],
            )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        if process.returncode is None:
            process.kill()
        await process.wait()
