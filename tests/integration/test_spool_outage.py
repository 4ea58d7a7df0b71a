"""Webhooks while the database is stopped, killed or slow: answered 200, stored once it is back (D-15,
N-02)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from hub.channels.ingest import Delivery, IngestItem
from hub.channels.spool import Spool
from hub.db.embedded import EmbeddedPostgres
from hub.db.migrate import migrate
from hub.db.pool import Database
from hub.errors import Unavailable
from tests import whatsapp as wa
from tests.factories import Org, keep_secret, make_org, until


@pytest.fixture
async def server(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> AsyncIterator[EmbeddedPostgres]:
    """A PostgreSQL of this test's own, to stop and start."""
    server = EmbeddedPostgres(tmp_path / "data", throwaway=True)
    server.start()
    yield server
    server.stop()


async def counts(server: EmbeddedPostgres) -> list[str]:
    conn = await asyncpg.connect(server.dsn_for("hub"))
    try:
        return [r["content"] for r in await conn.fetch("select content from messages order by conv_seq")]
    finally:
        await conn.close()


@pytest.fixture
async def org(server: EmbeddedPostgres) -> Org:
    conn = await asyncpg.connect(server.dsn)
    await conn.execute("create database hub")
    await conn.close()
    await migrate(server.dsn_for("hub"), runtime_url(server))
    conn = await asyncpg.connect(server.dsn_for("hub"))
    org = await make_org(conn)
    await conn.close()
    return org


def runtime_url(server: EmbeddedPostgres) -> str:
    return f"postgresql://hub_runtime:runtime-for-tests@127.0.0.1:{server.port}/hub"


async def test_D15_webhooks_are_answered_while_postgres_is_away_and_stored_in_order_when_it_is_back(
    server: EmbeddedPostgres, org: Org, tmp_path: Path
) -> None:
    db = Database(runtime_url(server), ("ingest",))
    await db.open()
    config = wa.settings(runtime_url(server))
    folder = tmp_path / "spool"
    async with wa.hook(db, config, folder) as hook:
        assert await hook.post(wa.messages(org, wa.text("201", "0"))) == 200
        assert list(folder.glob("*")) == []
        server.stop()
        raws = [wa.messages(org, wa.text("201", f"{n}")) for n in range(1, 40)]
        for raw in raws[:20]:
            assert await hook.post(raw) == 200
        assert hook.spool is not None
        assert not hook.spool.is_empty
        assert await hook.post(raws[0], secret="wrong") in (
            401,
            200,
        )  # cannot be judged now; it must not be stored
        for raw in raws[20:]:
            assert await hook.post(raw) == 200
        server.start()
        await until(lambda: hook.spool is not None and hook.spool.is_empty, 30)
        assert await counts(server) == [f"{n}" for n in range(40)]
        for raw in raws:
            assert await hook.post(raw) == 200
        assert await hook.post(wa.messages(org, wa.text("201", "last"))) == 200
        assert (await counts(server))[40:] == ["last"]
    assert list(folder.glob("*")) == []
    await db.close()


async def test_D15_a_hub_killed_while_spooling_loses_nothing(
    server: EmbeddedPostgres, org: Org, tmp_path: Path
) -> None:
    """The file of the dead process, its last record torn, is adopted by the next one."""
    db = Database(runtime_url(server), ("ingest",))
    await db.open()
    config = wa.settings(runtime_url(server))
    folder = tmp_path / "spool"
    server.stop()
    async with wa.hook(db, config, folder) as hook:
        for n in range(5):
            assert await hook.post(wa.messages(org, wa.text("201", f"{n}"))) == 200
        [file] = folder.glob("*.spool")
        dead = folder / f"{'0' * 32}.spool"
        dead.write_bytes(file.read_bytes() + b"HSP1\x99\x00\x00\x00")
    server.start()
    async with wa.hook(db, config, folder) as hook:
        await until(lambda: hook.spool is not None and hook.spool.is_empty, 30)
        assert await counts(server) == [f"{n}" for n in range(5)]
    assert list(folder.glob("*")) == []
    await db.close()


async def test_D15_a_signature_that_cannot_be_checked_now_is_checked_at_replay(
    server: EmbeddedPostgres, org: Org, tmp_path: Path
) -> None:
    config = wa.settings(runtime_url(server), meta_app_secret=None)
    conn = await asyncpg.connect(server.dsn_for("hub"))
    await keep_secret(conn, config, org, "app_secret", "own")
    await conn.close()
    server.stop()
    db = Database(runtime_url(server), ("ingest",))
    await db.open()
    async with wa.hook(db, config, tmp_path / "spool") as hook:
        assert await hook.post(wa.messages(org, wa.text("201", "good")), secret="own") == 200
        assert await hook.post(wa.messages(org, wa.text("201", "forged")), secret="other") == 200
        server.start()
        await until(lambda: hook.spool is not None and hook.spool.is_empty, 30)
        assert await counts(server) == ["good"]
    await db.close()


async def test_D04_killed_backends_cost_no_webhook(
    server: EmbeddedPostgres, org: Org, tmp_path: Path
) -> None:
    db = Database(runtime_url(server), ("ingest",))
    await db.open()
    admin = await asyncpg.connect(server.dsn)
    async with wa.hook(db, wa.settings(runtime_url(server)), tmp_path / "spool") as hook:
        sent = 0

        async def load() -> None:
            nonlocal sent
            for n in range(60):
                assert await hook.post(wa.messages(org, wa.text(f"20{n % 7}", f"{n}"))) == 200
                sent += 1

        tasks = [asyncio.create_task(load()) for _ in range(4)]
        while not all(t.done() for t in tasks):
            await admin.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'hub_runtime'"
            )
            await asyncio.sleep(0.05)
        await asyncio.gather(*tasks)
        await until(lambda: hook.spool is not None and hook.spool.is_empty, 30)
        assert len(await counts(server)) == sent == 240
    await admin.close()
    await db.close()


async def test_a_delivery_that_always_runs_out_of_time_does_not_stop_the_replay(
    server: EmbeddedPostgres, org: Org, tmp_path: Path
) -> None:
    db = Database(runtime_url(server), ("ingest",))
    await db.open()
    config = wa.settings(runtime_url(server))
    server.stop()
    async with wa.hook(db, config, tmp_path / "spool") as hook:
        for text in ("one", "slow", "two"):
            assert await hook.post(wa.messages(org, wa.text("201", text))) == 200
        write = hook.ingest._write_messages

        async def trip(items: list[IngestItem]) -> None:
            if any(item.content == "slow" for item in items):
                raise Unavailable("The database cannot store this now") from asyncpg.QueryCanceledError()
            await write(items)

        hook.ingest._messages._write = trip
        server.start()
        await until(lambda: hook.spool is not None and hook.spool.is_empty, 30)
        assert await counts(server) == ["one", "two"]
    assert list((tmp_path / "spool").glob("*")) == [], "nothing is left, and no file counts as damaged"
    conn = await asyncpg.connect(server.dsn_for("hub"))
    kept = await conn.fetchrow("select organization_id, reason, error, body from app.webhook_failures")
    await conn.close()
    assert tuple(kept)[:3] == (org.id, "refused", "57014 it ran out of time")
    assert b"slow" in kept["body"]
    await db.close()


async def test_a_spool_whose_disk_refuses_frees_the_way_at_once(
    server: EmbeddedPostgres, org: Org, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(tmp_path / "spool", nothing)
    await spool.start()

    def refuse(data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(spool, "_append", refuse)
    monkeypatch.setattr("hub.channels.spool.ADOPT_EVERY_S", 3600.0)
    await asyncio.sleep(0)
    with pytest.raises(Unavailable):
        await spool.append(Delivery(channel="WHATSAPP_CLOUD", body=b"{}", headers={}))
    async with asyncio.timeout(5):
        await until(lambda: spool.is_empty, 5)
    await spool.stop()


async def nothing(deliveries: list[Delivery]) -> None:
    """A replay with nothing to do."""
