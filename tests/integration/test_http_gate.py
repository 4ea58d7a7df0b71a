"""The start: what refuses it, and how a hub lives without its servers."""

from __future__ import annotations

from pathlib import Path

import asyncpg
import pytest

from hub.app import StartRefused
from hub.db.embedded import EmbeddedPostgres, EmbeddedValkey
from hub.resources import DB
from tests.conftest import runtime_url
from tests.factories import Member, Servers, until
from tests.server import running_hub


async def test_a_healthy_start(servers: Servers, valkey: EmbeddedValkey, tmp_path: Path) -> None:
    async with running_hub(servers, valkey.url, tmp_path) as hub:
        assert (await hub.get("/healthz")).json == {"status": "ok"}
        assert (await hub.get("/readyz")).json == {"status": "ready", "degraded": []}
        config = (await hub.get("/config.json")).json
        assert config.keys() == {"name", "version", "anon_key", "demo"}
        assert config["demo"] is None


async def test_the_demo_sign_in_is_shown_in_demo_mode_only(
    servers: Servers, valkey: EmbeddedValkey, tmp_path: Path
) -> None:
    (tmp_path / "keys.json").write_text('{"owner": {"email": "demo@example.test", "password": "demo"}}')
    demo = {"HUB_DEMO": "on", "HUB_SANDBOX": "on", "HUB_SANDBOX_PORT": "8099"}
    async with running_hub(servers, valkey.url, tmp_path, **demo) as hub:
        assert (await hub.get("/config.json")).json["demo"] == {
            "email": "demo@example.test",
            "password": "demo",
            "phone_url": "http://127.0.0.1:8099/phone",
        }
    async with running_hub(servers, valkey.url, tmp_path) as hub:
        assert (await hub.get("/config.json")).json["demo"] is None


async def refused(servers: Servers, redis_url: str, data_dir: Path, **environ: str) -> str:
    with pytest.raises(StartRefused) as caught:
        async with running_hub(servers, redis_url, data_dir, **environ):
            pass
    return str(caught.value)


async def test_an_empty_database_is_refused(
    postgres: EmbeddedPostgres, valkey: EmbeddedValkey, tmp_path: Path, superuser: asyncpg.Connection
) -> None:
    await superuser.execute("create database nothing_in_it")
    try:
        empty = Servers(runtime_url(postgres, "nothing_in_it"), postgres.dsn_for("nothing_in_it"))
        assert "hub migrate" in await refused(empty, valkey.url, tmp_path)
    finally:
        await superuser.execute("drop database nothing_in_it with (force)")


async def test_a_database_behind_this_version_is_refused(
    servers: Servers, valkey: EmbeddedValkey, tmp_path: Path, superuser: asyncpg.Connection
) -> None:
    await superuser.execute("delete from app.schema_migrations where name like '0005%'")
    assert "0005_machinery.sql" in await refused(servers, valkey.url, tmp_path)


async def test_a_server_that_would_lose_work_is_refused(
    servers: Servers, valkey: EmbeddedValkey, tmp_path: Path
) -> None:
    said = await refused(servers, valkey.url, tmp_path, HUB_UNSAFE_DURABILITY="off")
    assert "fsync = off" in said
    assert "HUB_UNSAFE_DURABILITY" in said


async def test_another_secret_key_is_refused(
    servers: Servers, valkey: EmbeddedValkey, tmp_path: Path
) -> None:
    async with running_hub(servers, valkey.url, tmp_path) as hub:
        anon = (await hub.get("/config.json")).json["anon_key"]
        first = hub.settings.secret_keys[0].reveal()
    assert "HUB_SECRET_KEY" in await refused(servers, valkey.url, tmp_path, HUB_SECRET_KEY="z" * 40)
    async with running_hub(servers, valkey.url, tmp_path, HUB_SECRET_KEY=f"{'z' * 40},{first}") as hub:
        assert (await hub.get("/config.json")).json["anon_key"] == anon


async def test_a_wrong_login_and_a_missing_database_are_refused(
    servers: Servers, postgres: EmbeddedPostgres, valkey: EmbeddedValkey, tmp_path: Path
) -> None:
    wrong = Servers(servers.database_url.replace("runtime-for-tests", "wrong"), servers.migrate_url)
    assert "DATABASE_URL" in await refused(wrong, valkey.url, tmp_path)
    missing = Servers(runtime_url(postgres, "not_there"), servers.migrate_url)
    assert "does not exist" in await refused(missing, valkey.url, tmp_path)


async def test_D_04_a_hub_starts_and_answers_while_postgres_is_away(
    valkey: EmbeddedValkey, tmp_path: Path
) -> None:
    nowhere = Servers("postgresql://hub_runtime:x@127.0.0.1:1/hub", "")
    async with running_hub(nowhere, valkey.url, tmp_path) as hub:
        assert (await hub.get("/healthz")).status == 200
        ready = await hub.get("/readyz")
        assert (ready.status, ready.json["status"]) == (503, "starting")
        for path, options in (
            ("/rest/v1/contacts", {"token": "eyJ.x.y"}),
            ("/functions/v1/list-organizations", {"key": "cg_" + "a" * 43}),
            ("/auth/v1/user", {"token": "eyJ.x.y"}),
        ):  # fmt: skip
            answer = await hub.get(path, **options)
            assert answer.status == 503, path
            assert "Retry-After" in answer.headers
        assert (await hub.get("/config.json")).json["anon_key"] is None


async def test_D_03_postgres_goes_and_comes_back(
    servers: Servers, valkey: EmbeddedValkey, tmp_path: Path, superuser: asyncpg.Connection, owner: Member
) -> None:
    """Its connections are cut and no new one is let in, as while a server restarts."""
    async with running_hub(servers, valkey.url, tmp_path) as hub:
        token = await hub.token(owner.email)
        name = await superuser.fetchval("select current_database()")
        await superuser.execute(f"alter database {name} connection limit 0")
        await superuser.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where datname = $1 and usename = 'hub_runtime'",
            name,
        )

        async def away() -> bool:
            return (await hub.get("/readyz")).json["degraded"] == ["postgres"]

        await until(away, what="the hub to notice")
        answer = await hub.get("/rest/v1/contacts", token=token)
        assert (answer.status, answer.json["error_code"]) == (503, "SERVICE_UNAVAILABLE")
        assert "Retry-After" in answer.headers
        await superuser.execute(f"alter database {name} connection limit -1")

        async def back() -> bool:
            return (await hub.get("/rest/v1/contacts", token=token)).status == 200

        await until(back, what="the hub to be back")
        assert hub.app[DB] is not None
