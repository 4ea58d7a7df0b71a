"""A stage to measure on: throw-away PostgreSQL and Valkey with durability on, organizations, and hub
processes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import asyncpg
import msgspec

from hub.db.embedded import EmbeddedPostgres, EmbeddedValkey, free_port
from hub.db.migrate import migrate

APP_SECRET = "bench-app-secret"
_PASSWORD = "runtime-for-bench"
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class BenchOrg(msgspec.Struct, frozen=True):
    id: UUID
    account_id: UUID
    phone_number_id: str


class Stage:
    """Servers, organizations and the environment of hub processes."""

    def __init__(self, folder: Path, postgres: EmbeddedPostgres, valkey: EmbeddedValkey) -> None:
        self.folder, self.postgres, self.valkey = folder, postgres, valkey
        self.children: list[subprocess.Popen[bytes]] = []
        self.orgs: list[BenchOrg] = []

    def environment(self, port: int) -> dict[str, str]:
        return {
            **os.environ,
            "DATABASE_URL": f"postgresql://hub_runtime:{_PASSWORD}@127.0.0.1:{self.postgres.port}/bench",
            "REDIS_URL": self.valkey.url,
            "HUB_SECRET_KEY": "bench-" + "k" * 40,
            "HUB_PORT": str(port),
            "PUBLIC_BASE_URL": "http://127.0.0.1:8080",  # the issuer of tokens, the same for every process
            "HUB_DATA_DIR": str(self.folder / "hub"),
            "META_APP_SECRET": APP_SECRET,
            "HUB_RATE_FUNCTIONS": "1000000",
            "HUB_RATE_REST": "1000000",
            "HUB_LOG": "json",
        }

    async def prepare(self, organizations: int) -> None:
        """Migrate and make organizations with one WhatsApp account each."""
        await migrate(
            self.postgres.dsn_for("bench"),
            f"postgresql://hub_runtime:{_PASSWORD}@127.0.0.1:{self.postgres.port}/bench",
        )
        conn = await asyncpg.connect(self.postgres.dsn_for("bench"))
        for n in range(organizations):
            org = await conn.fetchval(
                "insert into organizations (name) values ($1) returning id", f"Bench {n}"
            )
            number = f"77000{n:06d}"
            account = await conn.fetchval(
                "insert into channel_accounts (organization_id, name, type, settings)"
                " values ($1, 'WhatsApp', 'WHATSAPP_CLOUD', $2) returning id",
                org,
                json.dumps({"phone_number_id": number}),
            )
            self.orgs.append(BenchOrg(org, account, number))
        await conn.close()

    def start(self, *argv: str, port: int) -> subprocess.Popen[bytes]:
        """Start one of our processes; its output goes to a log in the folder."""
        with (self.folder / f"{port}.log").open("ab") as log:
            child = subprocess.Popen(
                [sys.executable, "-P", *argv],
                env=self.environment(port),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.children.append(child)
        return child

    def start_hub(self) -> tuple[str, int]:
        """A ready hub: its address and pid. Raises RuntimeError with the end of its log."""
        port = free_port()
        child = self.start("-m", "hub", "serve", port=port)
        url = f"http://127.0.0.1:{port}"
        wait_ready(url + "/readyz", child, self.folder / f"{port}.log")
        return url, child.pid

    def stop(self) -> None:
        for child in self.children:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGTERM)
        for child in self.children:
            try:
                child.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()


def wait_ready(url: str, child: subprocess.Popen[bytes], log: Path, timeout_s: float = 30.0) -> None:
    """Until ``url`` answers 200. Raises RuntimeError with the end of the child's log."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline and child.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError(f"Not ready. The end of its log:\n{log.read_text(errors='replace')[-3000:]}")


@contextmanager
def stage(organizations: int) -> Iterator[Stage]:
    """A prepared stage; everything is stopped and removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="hub-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        postgres, valkey = EmbeddedPostgres(folder), EmbeddedValkey(folder)
        set_up = Stage(folder, postgres, valkey)
        try:
            postgres.start()
            valkey.start()
            postgres.ensure_database("bench")
            asyncio.run(set_up.prepare(organizations))
            yield set_up
        finally:
            set_up.stop()
            valkey.stop()
            postgres.stop()


def cpu_s(pid: int) -> float:
    """User and system seconds of one process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def tree_cpu_s(pid: int) -> float:
    """The same for a process and its living children, and those it has waited for."""
    total = cpu_s(pid)
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    total += (int(fields[13]) + int(fields[14])) / _TICKS_PER_S
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
                if parent == pid:
                    total += cpu_s(int(entry.name))
            except (OSError, IndexError):
                continue
    return total


def rss_kb(pid: int) -> int:
    """Resident memory in KiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0
