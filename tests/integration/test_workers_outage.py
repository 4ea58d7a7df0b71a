"""A worker whose database goes away between the provider's yes and our commit (guarantees 8, last row of the
table)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from hub.db.embedded import EmbeddedPostgres
from hub.db.migrate import migrate
from hub.settings import Secret
from tests import whatsapp as wa
from tests.factories import insert, keep_secret, make_contact, make_conversation, make_org, until
from tests.fakes.whatsapp import APP_SECRET, running_sandbox
from workers.runtime import run


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[EmbeddedPostgres]:
    """A PostgreSQL of this test's own, to stop and start."""
    server = EmbeddedPostgres(tmp_path / "data", throwaway=True)
    server.start()
    yield server
    server.stop()


async def test_O_the_providers_answer_is_committed_when_the_database_is_back(
    server: EmbeddedPostgres, tmp_path: Path
) -> None:
    admin = await asyncpg.connect(server.dsn)
    await admin.execute("create database hub")
    await admin.close()
    url = f"postgresql://hub_runtime:runtime-for-tests@127.0.0.1:{server.port}/hub"
    await migrate(server.dsn_for("hub"), url)
    conn = await asyncpg.connect(server.dsn_for("hub"))
    org = await make_org(conn)
    config = wa.settings(url, meta_app_secret=Secret(APP_SECRET), work_poll_s=0.05, work_lease_s=20.0)
    await conn.execute(
        "update channel_accounts set settings = $1", json.dumps({"phone_number_id": "100000000000001"})
    )
    await keep_secret(conn, config, org, "access_token", "sandbox-token")
    conversation = await make_conversation(conn, org, await make_contact(conn, org, "201001383533"))
    # receipts go nowhere: what becomes of the message, the worker alone knows
    async with running_sandbox(tmp_path / "sandbox", "http://127.0.0.1:1/nowhere") as sandbox:
        await sandbox.fault("slow", params={"seconds": 2})
        fields = {f: getattr(config, f) for f in config.__struct_fields__}
        stop = asyncio.Event()
        settings = type(config)(**{**fields, "meta_graph_base": f"{sandbox.url}/graph"})
        worker = asyncio.create_task(run(settings, stop))
        values = {"organization_id": org.id, "conversation_id": conversation, "content": "Hi"}
        id = await insert(
            conn, "messages", {**values, "direction": "OUTBOUND", "status": "PENDING", "source": "agent"}
        )
        await until(lambda: conn.fetchval("select sending_at is not null from app.outbox"))
        await conn.close()
        server.stop()

        async def accepted() -> bool:
            return bool((await sandbox.ctl("GET", "/ledger"))["total"])

        await until(accepted)
        server.start()
        conn = await asyncpg.connect(server.dsn_for("hub"))
        await until(lambda: conn.fetchval("select status = 'SENT' from messages where id = $1", id), 30)
        assert await conn.fetchval("select count(*) from app.outbox") == 0
        assert (await sandbox.ctl("GET", "/ledger"))["total"] == 1
        stop.set()
        await worker
        await conn.close()
