"""`hub doctor` against real servers: silent about what is well, plain about what is not."""

from __future__ import annotations

import asyncio
from pathlib import Path

import asyncpg
import pytest

from hub.db.embedded import EmbeddedValkey, free_port
from hub.doctor import Finding, examine
from tests.factories import Servers


async def report(tmp_path: Path, environ: dict[str, str], *, fix: bool = False) -> dict[str, Finding]:
    """The findings by name. In a thread: the command has an event loop of its own."""
    found = await asyncio.to_thread(lambda: list(examine(tmp_path, environ, fix=fix)))
    assert all(finding.todo for finding in found if finding.level != "ok")
    return {finding.name: finding for finding in found}


@pytest.fixture
def environ(servers: Servers, valkey: EmbeddedValkey) -> dict[str, str]:
    return {
        "DATABASE_URL": servers.database_url,
        "HUB_MIGRATE_URL": servers.migrate_url,
        "REDIS_URL": valkey.url,
        "HUB_SECRET_KEY": "k" * 44,
        "PUBLIC_BASE_URL": f"http://127.0.0.1:{free_port()}",
    }


async def test_nothing_fails_on_a_good_installation(tmp_path: Path, environ: dict[str, str]) -> None:
    found = await report(tmp_path, environ)
    assert {name: f.said for name, f in found.items() if f.level == "fail"} == {}
    for name in (
        "postgres",
        "clock",
        "migrations",
        "roles",
        "row security",
        "search indexes",
        "redis pub/sub",
    ):
        assert found[name].level == "ok", found[name]
    assert found["address"].level == "warn"  # nobody listens there


async def test_missing_migrations_fail(
    tmp_path: Path, environ: dict[str, str], superuser: asyncpg.Connection
) -> None:
    await superuser.execute("delete from app.schema_migrations where name like '0005%'")
    found = await report(tmp_path, environ)
    assert found["migrations"].level == "fail"
    assert "0005_machinery.sql" in found["migrations"].said and found["migrations"].todo == "hub migrate"


async def test_a_table_without_forced_row_security_fails(
    tmp_path: Path, environ: dict[str, str], superuser: asyncpg.Connection
) -> None:
    await superuser.execute("alter table public.contacts no force row level security")
    found = await report(tmp_path, environ)
    assert found["row security"].level == "fail" and "contacts" in found["row security"].said


async def test_a_login_that_bypasses_row_security_fails(
    tmp_path: Path, environ: dict[str, str], servers: Servers
) -> None:
    found = await report(tmp_path, {**environ, "DATABASE_URL": servers.migrate_url})
    assert found["roles"].level == "fail" and "postgres" in found["roles"].said


async def test_fix_marks_what_searches_need(
    tmp_path: Path, environ: dict[str, str], superuser: asyncpg.Connection
) -> None:
    await superuser.execute("alter function pg_catalog.texticlike(text, text) not leakproof")
    found = await report(tmp_path, environ)
    assert found["search indexes"].level == "warn" and "texticlike(text,text)" in found["search indexes"].todo
    assert (await report(tmp_path, environ, fix=True))["search indexes"].level == "ok"


async def test_servers_that_are_away_fail_by_the_name_of_their_setting(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    away = f"127.0.0.1:{free_port()}"
    found = await report(
        tmp_path, {**environ, "DATABASE_URL": f"postgresql://x@{away}/x", "REDIS_URL": f"redis://{away}"}
    )
    assert found["postgres"].level == found["redis"].level == "fail"
    assert "DATABASE_URL" in found["postgres"].todo and "REDIS_URL" in found["redis"].todo


def test_a_data_folder_that_others_can_read_is_warned_of(tmp_path: Path) -> None:
    def level() -> str:
        return next(f.level for f in examine(tmp_path, {}, fix=False) if f.name == "data folder")

    tmp_path.chmod(0o755)
    assert level() == "warn"
    tmp_path.chmod(0o700)
    assert level() == "ok"


async def test_kept_webhooks_are_told(
    tmp_path: Path, environ: dict[str, str], superuser: asyncpg.Connection
) -> None:
    assert (await report(tmp_path, environ))["kept webhooks"].level == "ok"
    await superuser.execute(
        "select app.keep_failure(null, 'WHATSAPP_CLOUD', null, 'undecodable', 'bad', '{}', '')"
    )
    found = await report(tmp_path, environ)
    assert found["kept webhooks"].level == "warn"
    assert found["kept webhooks"].said.startswith("1 not applied (1 of no organization, 0 given up)")
