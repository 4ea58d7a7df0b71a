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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from hub.db.embedded import EmbeddedPostgres, EmbeddedValkey, free_port
from hub.db.migrate import migrate
from hub.processes import spawn

APP_SECRET = "bench-app-secret"
_PASSWORD = "runtime-for-bench"
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class BenchOrg(msgspec.Struct, frozen=True):
    id: UUID
    account_id: UUID
    phone_number_id: str


class Runner(msgspec.Struct, frozen=True):
    """A server under load: the product or a peer."""

    name: str
    port: int
    pids: tuple[int, ...]

    def cpu_s(self) -> float:
        return sum(tree_cpu_s(pid) for pid in self.pids)


class Stage:
    """Servers, organizations and the environment of hub processes."""

    def __init__(self, folder: Path, postgres: EmbeddedPostgres, valkey: EmbeddedValkey) -> None:
        self.folder, self.postgres, self.valkey = folder, postgres, valkey
        self.children: list[subprocess.Popen[bytes]] = []
        self.orgs: list[BenchOrg] = []

    @property
    def dsn(self) -> str:
        """The login that the product runs with."""
        return f"postgresql://hub_runtime:{_PASSWORD}@127.0.0.1:{self.postgres.port}/bench"

    @property
    def owner_dsn(self) -> str:
        """The superuser's: for arranging and for counting."""
        return self.postgres.dsn_for("bench")

    def environment(self, port: int) -> dict[str, str]:
        return {
            **os.environ,
            "DATABASE_URL": self.dsn,
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
        await migrate(self.owner_dsn, self.dsn)
        conn = await asyncpg.connect(self.owner_dsn)
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

    def start(self, *argv: str, port: int, **environment: str) -> subprocess.Popen[bytes]:
        """Start one of our processes; its output goes to a log in the folder."""
        return self.run([sys.executable, "-P", *argv], port, {**self.environment(port), **environment})

    def run(
        self, argv: Sequence[str], port: int, environment: Mapping[str, str], cwd: Path | None = None
    ) -> subprocess.Popen[bytes]:
        """Start any program in a process group of its own; it is ended with the stage, or with us."""
        with (self.folder / f"{port}.log").open("ab") as log:
            child = spawn(argv, output=log, env=environment, cwd=cwd)
        self.children.append(child)
        return child

    def hub(self, name: str, processes: int = 1, **environment: str) -> Runner:
        """A ready hub; of several processes each listens on the same port (SO_REUSEPORT)."""
        port = free_port()
        pids = []
        for n in range(processes):
            own = {"HUB_REUSE_PORT": "1" if processes > 1 else "0"}
            own["HUB_DATA_DIR"] = str(self.folder / f"hub-{port}-{n}")
            child = self.start("-m", "hub", "serve", port=port, **own, **environment)
            pids.append(child.pid)
            self._until_ready(port, "/readyz", child)
        # with a shared port an answer may come from the other one: each must say that it listens
        log = self.folder / f"{port}.log"
        deadline = time.monotonic() + 30
        while log.read_text(errors="replace").count("hub.listening") < processes:
            if time.monotonic() > deadline:
                raise RuntimeError(f"Not every hub listens:\n{log.read_text(errors='replace')[-3000:]}")
            time.sleep(0.05)
        return Runner(name, port, tuple(pids))

    def peer(self, name: str, module: str, options: Mapping[str, Any], path: str | None = "/") -> Runner:
        """A ready peer that needs no packages but ours: ``hub.bench.peers.<module>``."""
        port = free_port()
        text = json.dumps({**options, "port": port})
        child = self.start("-m", f"hub.bench.peers.{module}", text, port=port)
        if path is not None:
            self._until_ready(port, path, child)
        return Runner(name, port, (child.pid,))

    def foreign(
        self, name: str, argv: Sequence[str], options: Mapping[str, Any], cwd: Path | None = None
    ) -> Runner:
        """A ready peer of another environment: its program, and the options as the last argument."""
        port = free_port()
        text = json.dumps({**options, "port": port})
        child = self.run([*argv, text], port, foreign_environment(), cwd)
        self._until_ready(port, "/", child)
        return Runner(name, port, (child.pid,))

    def _until_ready(self, port: int, path: str, child: subprocess.Popen[bytes]) -> None:
        wait_ready(f"http://127.0.0.1:{port}{path}", child, self.folder / f"{port}.log")

    def end(self, runner: Runner) -> None:
        """End one runner before the stage ends."""
        mine = [child for child in self.children if child.pid in runner.pids]
        self.children = [child for child in self.children if child.pid not in runner.pids]
        _end(mine)

    def stop(self) -> None:
        _end(self.children)
        self.children = []


def foreign_environment() -> dict[str, str]:
    """Ours, without what would make another Python find our packages."""
    return {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}


def _end(children: Sequence[subprocess.Popen[bytes]]) -> None:
    for child in children:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGTERM)
    for child in children:
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
def stage(organizations: int, settings: Mapping[str, str] | None = None) -> Iterator[Stage]:
    """A prepared stage; everything is stopped and removed afterwards. ``settings``: more of
    postgresql.conf."""
    with tempfile.TemporaryDirectory(prefix="hub-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        postgres, valkey = EmbeddedPostgres(folder, settings=settings), EmbeddedValkey(folder)
        set_up = Stage(folder, postgres, valkey)
        # being told to end is no reason to leave servers behind
        before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
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
            signal.signal(signal.SIGTERM, before)


def cpu_s(pid: int) -> float:
    """User and system seconds of one process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def tree(pid: int) -> list[int]:
    """The process and all that descends from it, the living."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except OSError:
                continue

    def is_below(process: int) -> bool:
        while process and process != pid:
            process = parents.get(process, 0)
        return process == pid

    return [process for process in parents if is_below(process)]


def tree_cpu_s(pid: int) -> float:
    """Seconds of a process and all that descends from it, the living and those that were waited for."""
    total = 0.0
    for process in tree(pid):
        try:
            fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        total += sum(int(f) for f in fields[11:15]) / _TICKS_PER_S
    return total


def scheduled_s(pids: Iterable[int]) -> float:
    """The same for single processes, to the nanosecond instead of in ticks of 10 ms (Linux)."""
    nanoseconds = 0
    for pid in pids:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            nanoseconds += int((thread / "schedstat").read_text().split()[0])
    return nanoseconds / 1e9


def postgres_cpu_s(s: Stage) -> float:
    """Of the server and all its backends so far."""
    assert s.postgres.pid is not None
    return tree_cpu_s(s.postgres.pid)


def rss_kb(pid: int) -> int:
    """Resident memory in KiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0
