"""The bundled servers: what they promise, and that nothing stands in the way of the next start."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import asyncpg
import pytest
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from hub.db import embedded
from hub.db.embedded import EmbeddedPostgres, EmbeddedServerError, EmbeddedValkey

HOLDER = """
import json, sys, time
from pathlib import Path
from hub.db.embedded import EmbeddedPostgres, EmbeddedValkey
postgres, valkey = EmbeddedPostgres(Path(sys.argv[1]), throwaway=True), EmbeddedValkey(Path(sys.argv[1]))
postgres.start(), valkey.start()
print(json.dumps([postgres.pid, valkey.pid]), flush=True)
time.sleep(600)
"""


def until(fact: Callable[[], bool], timeout_s: float = 20) -> None:
    """Wait for a fact; a failure after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not fact():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A private place, as root's home is one, with a space and Arabic letters in its name."""
    private = tmp_path_factory.mktemp("private")
    private.chmod(0o700)
    return private / "بيانات data"


@pytest.fixture(scope="module")
def postgres(folder: Path) -> EmbeddedPostgres:
    server = EmbeddedPostgres(folder, throwaway=True)
    server.start()
    server.stop()
    return server


async def test_the_cluster_is_made_for_us(postgres: EmbeddedPostgres) -> None:
    with postgres:
        conn = await asyncpg.connect(postgres.dsn)
        try:
            assert conn.get_server_version().major == 18
            row = await conn.fetchrow(
                "select datcollate, datlocale, datlocprovider = 'b' as builtin, "
                "pg_encoding_to_char(encoding) as encoding from pg_database where datname = 'template1'"
            )
            assert row is not None
            assert (row["datlocale"], row["builtin"], row["encoding"]) == ("C.UTF-8", True, "UTF8")
            wanted = {
                "data_checksums": "on",
                "password_encryption": "scram-sha-256",
                "listen_addresses": "127.0.0.1",
                "unix_socket_directories": "",
                "jit": "off",
                "deadlock_timeout": "200ms",
                "file_copy_method": "clone",
                "max_connections": "200",
                "shared_buffers": "256MB",
            }
            assert {name: await conn.fetchval(f"show {name}") for name in wanted} == wanted
        finally:
            await conn.close()


async def test_a_new_database_has_leakproof_searches(postgres: EmbeddedPostgres) -> None:
    with postgres:
        dsn = postgres.ensure_database("fresh")
        assert postgres.ensure_database("fresh") == dsn
        conn = await asyncpg.connect(dsn)
        try:
            for signature in embedded.LEAKPROOF:
                marked = await conn.fetchval(
                    "select proleakproof from pg_proc where oid = $1::text::regprocedure", signature
                )
                assert marked, signature
        finally:
            await conn.close()


async def test_nobody_gets_in_without_the_password(postgres: EmbeddedPostgres) -> None:
    with postgres:
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(postgres.dsn.replace(postgres._password, "guess"))
        password = postgres.data_dir / "postgres_password"
        assert stat.S_IMODE(password.stat().st_mode) == 0o600
        assert stat.S_IMODE(postgres.cluster.stat().st_mode) == 0o700


def test_no_parent_changes_its_mode(folder: Path, postgres: EmbeddedPostgres) -> None:
    assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o700
    if os.geteuid() == 0:
        assert postgres.cluster.stat().st_uid not in (0, 65534)
        assert folder.stat().st_uid == 0


def test_a_killed_postmaster_is_started_again_on_its_port(postgres: EmbeddedPostgres) -> None:
    with postgres:
        postgres.psql("postgres", "create table kept (n int)")
        port, pid = postgres.port, postgres.pid
        postgres.kill()
        assert not postgres.is_ready()
        postgres.start()
        assert postgres.port == port and postgres.pid != pid
        assert postgres.psql("postgres", "select count(*) from kept") == "0"


def test_a_pid_file_with_a_strangers_number_is_no_obstacle(postgres: EmbeddedPostgres) -> None:
    """After a crash of the machine, the old postmaster's number may be anybody's."""
    with postgres:
        postgres.kill()
        pid_file = postgres.cluster / "postmaster.pid"
        lines = pid_file.read_text().splitlines()
        pid_file.write_text("\n".join([str(os.getpid()), *lines[1:]]) + "\n")
        postgres.start()
        assert alive(os.getpid())


@pytest.mark.skipif(sys.platform != "linux", reason="a parent-death signal is Linux's")
def test_servers_end_with_a_killed_owner_and_start_again(tmp_path: Path) -> None:
    owner = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path / "d")], stdout=subprocess.PIPE)
    with owner:
        assert owner.stdout is not None
        pids = json.loads(owner.stdout.readline())
        owner.kill()
    until(lambda: not any(alive(pid) for pid in pids))
    with EmbeddedPostgres(tmp_path / "d", throwaway=True) as again:
        assert again.psql("postgres", "select 1") == "1"


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_an_orphaned_postmaster_is_replaced(postgres: EmbeddedPostgres) -> None:
    """Where nothing ends it with its owner, the next owner of the folder does."""
    with postgres:
        orphan, postgres.process = postgres.process, None
        assert orphan is not None
        postgres.start()
        assert orphan.wait(20) == 0
        assert postgres.psql("postgres", "select 1") == "1"


def test_a_lost_password_is_said_and_not_guessed(postgres: EmbeddedPostgres) -> None:
    password = postgres.data_dir / "postgres_password"
    kept = password.with_name("kept")
    password.rename(kept)
    try:
        with pytest.raises(EmbeddedServerError, match="postgres_password is missing"):
            EmbeddedPostgres(postgres.data_dir, throwaway=True).start()
    finally:
        kept.rename(password)


async def test_valkey_asks_for_its_password_and_keeps_nothing(tmp_path: Path) -> None:
    with EmbeddedValkey(tmp_path / "d") as valkey:
        client = redis.asyncio.Redis.from_url(valkey.url)
        stranger = redis.asyncio.Redis(port=valkey.port, retry=Retry(NoBackoff(), 0))
        try:
            await client.set("a", "b")
            assert set((await client.config_get("save")).values()) <= {"", b""}
            with pytest.raises(redis.exceptions.AuthenticationError):
                await stranger.ping()
            port = valkey.port
            await client.connection_pool.disconnect()
            valkey.kill()
            valkey.start()
            assert valkey.port == port
            assert await client.get("a") is None
        finally:
            await client.aclose()
            await stranger.aclose()


def test_signals_reach_only_whom_they_are_for(tmp_path: Path) -> None:
    """Ctrl-C goes to the terminal's group; servers are in groups of their own and stop when told."""
    with EmbeddedValkey(tmp_path / "d") as valkey:
        assert valkey.pid is not None
        assert os.getpgid(valkey.pid) == valkey.pid != os.getpgid(0)
        os.kill(valkey.pid, signal.SIGTERM)
        until(lambda: valkey.pid is None)
