"""The rig: PostgreSQL, Valkey, the provider's double, hubs and workers as processes that a test may kill,
stop, cut off and start again (tests/fault/README.md).

    async with Rig(template, hubs=2, workers=3) as rig:
        rig.hubs[0].kill()
        await rig.hubs[0].restart()

Everything of one rig lies in one folder and in process groups of its own; leaving the block ends and removes
all of it. Processes are started from this thread, which is therefore the one that must outlive them.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import UUID

import aiohttp
import asyncpg

from hub.auth.tokens import load_keyring
from hub.db.embedded import EmbeddedPostgres, EmbeddedValkey, free_port
from hub.processes import spawn
from tests.factories import until
from tests.fakes.proxy import FaultProxy
from tests.fault import world as w
from tests.fault.world import RigOrg, World

ROOT = Path(__file__).resolve().parents[2]
READY_S = 30.0
#: Scaled for a test suite; the nightly profile leaves the product's own (see Profile).
FAST = {
    "HUB_WORK_LEASE_S": "3",
    "HUB_WORK_POLL_S": "0.2",
    "HUB_SEND_UNKNOWN_WAIT_S": "8",
    "HUB_PROVIDER_TOTAL_S": "3",
    "HUB_PROVIDER_CONNECT_S": "1",
}
GENEROUS = {f"HUB_RATE_{name}": "1000000" for name in ("FUNCTIONS", "REST", "EXTERNAL", "WEB", "ADDRESS")}

#: Nothing else of ours: a developer's variables must not bend a test. The checkout is the one of this file.
_PYTHON = {
    "PATH": os.environ.get("PATH", os.defpath),
    "PYTHONPATH": str(ROOT),
    "PYTHONUNBUFFERED": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
}


class Proc:
    """One of our own processes: start, kill, pause, read its log."""

    def __init__(self, name: str, argv: Sequence[str], env: dict[str, str], log: Path, url: str = "") -> None:
        self.name, self.argv, self.env, self.log, self.url = name, list(argv), env, log, url
        self.process: subprocess.Popen[bytes] | None = None
        self.starts = 0
        self._since = 0
        """Size of the log when this start began."""
        self.wanted = False
        """False once the test itself ended it; `Rig.keep_alive` leaves it alone then."""
        self.is_kept = False

    @property
    def pid(self) -> int | None:
        return self.process.pid if self.process is not None and self.process.poll() is None else None

    def spawn(self, failpoints: str = "", **env: str) -> None:
        """Start and return at once. `failpoints` as HUB_FAILPOINTS; `env` is for this start alone."""
        extra = {**env, **({"HUB_FAILPOINTS": failpoints} if failpoints else {})}
        with self.log.open("ab") as out:
            self.process = spawn(
                [sys.executable, "-P", *self.argv],
                output=out,
                env={**self.env, **extra},
                cwd=ROOT,
                death_signal=signal.SIGKILL,
            )
        self.starts += 1
        self.wanted = True
        self._since = self.log.stat().st_size

    def send_signal(self, number: int) -> None:
        if self.pid is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    def kill(self, number: int = signal.SIGKILL) -> None:
        """kill -9 of its group; returns when it is gone."""
        self.wanted = False
        self.send_signal(number)
        if self.process is not None:
            self.process.wait(30)

    def pause(self) -> None:
        self.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.send_signal(signal.SIGCONT)

    async def stop(self, timeout_s: float = 40.0) -> float:
        """SIGTERM; the seconds it took to end."""
        self.wanted = False
        began = time.monotonic()
        self.send_signal(signal.SIGTERM)
        await until(lambda: self.pid is None, timeout_s, f"the end of {self.name}")
        return time.monotonic() - began

    async def restart(self, failpoints: str = "", **env: str) -> float:
        """Start (again); returns the seconds until it is ready."""
        if self.pid is not None:
            self.kill()
        began = time.monotonic()
        self.spawn(failpoints, **env)
        await self.ready()
        return time.monotonic() - began

    async def ready(self, timeout_s: float = READY_S) -> None:
        """Until a hub answers /readyz with 200, a worker has logged that it works."""

        async def is_ready() -> bool:
            if self.process is not None and self.process.poll() is not None and not self.is_kept:
                raise RuntimeError(f"{self.name} ended ({self.process.returncode}).\n{self.tail()}")
            if self.url:
                return await answers(f"{self.url}/readyz")
            with self.log.open("rb") as log:
                log.seek(self._since)
                return b'"worker.ready"' in log.read()

        await until(is_ready, timeout_s, f"{self.name} to be ready")

    def lines(self) -> Iterator[dict[str, Any]]:
        """Its log so far, all starts together; what is no JSON line comes as {"event": text}."""
        with suppress(FileNotFoundError):
            for line in self.log.read_text(errors="replace").splitlines():
                try:
                    fields = json.loads(line)
                except ValueError:
                    fields = {"event": line}
                yield fields if isinstance(fields, dict) else {"event": line}

    def said(self, event: str) -> int:
        """How often it logged this."""
        return sum(line.get("event") == event for line in self.lines())

    def tail(self, n: int = 15) -> str:
        with suppress(FileNotFoundError):
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-n:])
        return "(no log)"

    def files(self) -> int:
        """Open file descriptors."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def rss_kb(self, *, peak: bool = False) -> int:
        """Resident memory, now or at its highest since the start."""
        text = Path(f"/proc/{self.pid}/status").read_text()
        return int(text.split("VmHWM:" if peak else "VmRSS:")[1].split()[0])


class Server:
    """PostgreSQL or Valkey of the rig, with the same verbs as a Proc. All its processes are hit, not only the
    first: PostgreSQL's children have groups of their own."""

    def __init__(self, name: str, server: EmbeddedPostgres | EmbeddedValkey) -> None:
        self.name, self.server = name, server

    @property
    def pid(self) -> int | None:
        return self.server.pid

    def pids(self) -> list[int]:
        return [] if self.pid is None else [self.pid, *children_of(self.pid)]

    def kill(self) -> None:
        """SIGKILL to all of it at once."""
        pids = self.pids()
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self.server.process is not None:
            self.server.process.wait()

    def quit(self) -> None:
        """End PostgreSQL at once, in its own way: killed, it leaves shared memory behind for good."""
        process = self.server.process
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGQUIT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
        self.kill()

    def pause(self) -> None:
        for pid in self.pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)

    def resume(self) -> None:
        for pid in self.pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    async def restart(self, timeout_s: float = 60.0) -> float:
        """Start (again) on the same port; the seconds until it answers."""
        began = time.monotonic()
        self.server.spawn()

        def is_ready() -> bool:
            if self.server.process is not None and self.server.process.poll() is not None:
                self.server.spawn()
            return self.server.is_ready()

        await until(is_ready, timeout_s, self.name)
        return time.monotonic() - began


class Rig:
    """One product under test. `behind`: which of postgres, valkey, sandbox the product reaches through a
    proxy (`proxies["postgres"]` …); `front` is the load balancer that clients and the provider use. `env`
    changes settings of hubs and workers, `hub_env` of hubs alone."""

    def __init__(
        self,
        template: Path,
        *,
        hubs: int = 2,
        workers: int = 3,
        behind: Collection[str] = (),
        env: dict[str, str] | None = None,
        hub_env: dict[str, str] | None = None,
        postgres: dict[str, str] | None = None,
        sandbox: dict[str, Any] | None = None,
        clock_offset_s: float = 0.0,
        place: Path | None = None,
        together: bool = False,
        seed: int = 1,
    ) -> None:
        """`place`: where its folder is made, beside the template by default. `together`: all processes have
        PostgreSQL's data folder as theirs, as under `hub run`."""
        self.template, self.behind, self.seed = template, frozenset(behind), seed
        self.folder = Path(tempfile.mkdtemp(prefix="hub-rig-", dir=place or template.parent))
        self.together = together
        self.folder.chmod(0o755)
        self.logs = self.folder / "logs"
        self._postgres = EmbeddedPostgres(self.folder, settings=postgres)
        self._valkey = EmbeddedValkey(self.folder)
        self.postgres = Server("postgres", self._postgres)
        self.valkey = Server("valkey", self._valkey)
        self.proxies: dict[str, FaultProxy] = {}
        self.front = FaultProxy()
        self.world = World([])
        self.sandbox_url = ""
        self.sandbox: Proc
        self.hubs: list[Proc] = []
        self.workers: list[Proc] = []
        self.http: aiohttp.ClientSession
        self._counts = (hubs, workers)
        self._env = {**FAST, **GENEROUS, **(env or {})}
        self._hub_env = hub_env or {}
        self._sandbox = sandbox or {}
        self._clock_offset_s = clock_offset_s
        self._tasks: list[asyncio.Task[Any]] = []
        self._ring: Any = None

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _start(self) -> None:
        self.http = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=20), cookie_jar=aiohttp.DummyCookieJar()
        )
        self._unpack()
        self._postgres.prepare()
        self._valkey.prepare()
        self._spawn_sandbox()
        await asyncio.gather(self.postgres.restart(), self.valkey.restart())
        targets = {
            "postgres": self._postgres.port,
            "valkey": self._valkey.port,
            "sandbox": int(self.sandbox_url.rsplit(":", 1)[1]),
        }
        for name in self.behind:
            self.proxies[name] = FaultProxy(("127.0.0.1", targets[name]))
            await self.proxies[name].start()
        for n in range(self._counts[0]):
            self.add_hub(n)
        for n in range(self._counts[1]):
            self.add_worker(n)
        for proc in (*self.hubs, *self.workers):
            proc.spawn()
        await asyncio.gather(
            until(lambda: answers(f"{self.sandbox_url}/healthz"), READY_S, "the sandbox"),
            *(proc.ready() for proc in (*self.hubs, *self.workers)),
        )

    def _unpack(self) -> None:
        # ownership and modes as they are: the server runs as another user when we are root
        subprocess.run(["cp", "-a", "--reflink=auto", f"{self.template}/.", str(self.folder)], check=True)
        self.logs.mkdir(exist_ok=True)
        self.world = World.load(self.folder)

    def add_hub(self, n: int) -> Proc:
        """A hub process, not started yet, behind the front."""
        port = free_port()
        env = {
            **self._environment(),
            **self._hub_env,
            "HUB_PORT": str(port),
            "HUB_DATA_DIR": str(self._private(f"hub{n}")),
        }
        hub = Proc(
            f"hub{n}", ["-m", "hub", "serve"], env, self.logs / f"hub{n}.log", f"http://127.0.0.1:{port}"
        )
        self.hubs.append(hub)
        self.front.targets.append(("127.0.0.1", port))
        return hub

    def add_worker(self, n: int) -> Proc:
        """A worker process, not started yet."""
        env = {**self._environment(), "HUB_DATA_DIR": str(self._private(f"worker{n}"))}
        worker = Proc(f"worker{n}", ["-m", "workers"], env, self.logs / f"worker{n}.log")
        self.workers.append(worker)
        return worker

    def _private(self, name: str) -> Path:
        if self.together and name != "provider":
            return self.folder
        folder = self.folder / name
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder

    def _environment(self) -> dict[str, str]:
        graph = f"http://127.0.0.1:{self._port('sandbox', int(self.sandbox_url.rsplit(':', 1)[1]))}/graph"
        redis = self._valkey.url.replace(
            f":{self._valkey.port}/", f":{self._port('valkey', self._valkey.port)}/"
        )
        return {
            **_PYTHON,
            "DATABASE_URL": self.runtime_url(self._port("postgres", self._postgres.port)),
            "REDIS_URL": redis,
            "HUB_SECRET_KEY": w.SECRET_KEY,
            "PUBLIC_BASE_URL": w.PUBLIC_URL,
            "META_APP_SECRET": w.APP_SECRET,
            "META_VERIFY_TOKEN": w.VERIFY_TOKEN,
            "META_GRAPH_BASE": graph,
            "HUB_LOG": "json",
            "HUB_CLOCK_OFFSET_S": str(self._clock_offset_s),
            **self._env,
        }

    def _port(self, name: str, port: int) -> int:
        return self.proxies[name].port if name in self.proxies else port

    def runtime_url(self, port: int) -> str:
        return f"postgresql://hub_runtime:{w.RUNTIME_PASSWORD}@127.0.0.1:{port}/{w.DATABASE}"

    def _spawn_sandbox(self) -> None:
        """The provider posts its webhooks to the front, which is listening before anybody else."""
        front_port = free_port()
        task = asyncio.get_running_loop().create_task(self.front.start(("127.0.0.1", front_port)))
        self._tasks.append(task)
        self.front.address = ("127.0.0.1", front_port)
        port = free_port()
        config = {
            "port": port,
            "data_dir": str(self._private("provider")),
            "callback_url": f"http://127.0.0.1:{front_port}/functions/v1/whatsapp-cloud-webhook",
            "app_secret": w.APP_SECRET,
            "verify_token": w.VERIFY_TOKEN,
            "seed": self.seed,
            "accounts": [
                {
                    "phone_number_id": org.phone_number_id,
                    "waba_id": f"66{org.n:08d}",
                    "access_token": w.ACCESS_TOKEN,
                }
                for org in self.world.orgs
            ],
            "personas": [
                {
                    "id": customer.wa_id,
                    "name": f"{org.canary} {customer.wa_id}",
                    "phone": customer.wa_id,
                    "user_id": f"EG.{customer.wa_id}",
                    "behaviour": {"delivers_after_s": 0.1, "reads_after_s": 0.3},
                }
                for org in self.world.orgs
                for customer in org.customers
            ],
            "enforce_window": False,
            "enforce_rates": False,
            "retry_cap_s": 2.0,
            **self._sandbox,
        }
        path = self.folder / "sandbox.json"
        path.write_text(json.dumps(config))
        self.sandbox_url = f"http://127.0.0.1:{port}"
        argv = ["-m", "hub.sandbox", "--config", str(path)]
        self.sandbox = Proc("sandbox", argv, _PYTHON, self.logs / "sandbox.log")
        self.sandbox.spawn()

    async def close(self) -> None:
        """End every process and remove the folder."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for proc in (*self.hubs, *self.workers, *([self.sandbox] if hasattr(self, "sandbox") else [])):
            proc.kill()
        for proxy in (self.front, *self.proxies.values()):
            await proxy.stop()
        self.postgres.resume()
        await asyncio.to_thread(self.postgres.quit)
        self.valkey.kill()
        if hasattr(self, "http"):
            await self.http.close()
        keep = os.environ.get("HUB_FAULT_KEEP")
        if keep:
            print(f"kept: {self.folder}")
        else:
            shutil.rmtree(self.folder, ignore_errors=True)

    # ---- what a test does with it ----------------------------------------------------------------------

    @property
    def procs(self) -> list[Proc]:
        return [*self.hubs, *self.workers]

    @property
    def front_url(self) -> str:
        return f"http://127.0.0.1:{self.front.port}"

    def keep_alive(
        self, *procs: Proc, failpoints: str = "", rng: random.Random | None = None
    ) -> asyncio.Task[None]:
        """From now on bring back what dies by itself (a failpoint), as a supervisor would. `rng` gives each
        start a seed for the probabilities of its failpoints. Cancel the task to let it be."""

        for proc in procs:
            proc.is_kept = True

        async def watch() -> None:
            while True:
                for proc in procs:
                    if proc.wanted and proc.pid is None:
                        seed = f",seed={rng.randrange(1 << 30)}" if rng and failpoints else ""
                        proc.spawn(failpoints + seed)
                await asyncio.sleep(0.05)

        task = asyncio.create_task(watch())
        self._tasks.append(task)
        return task

    def watch_health(self, every_s: float = 0.25) -> None:
        """From now on the front sends nobody to a hub whose /readyz does not say 200 within a second, as
        balancers do."""

        async def watch(hub: Proc, target: tuple[str, int]) -> None:
            while True:
                is_well = await answers(f"{hub.url}/readyz", 1.0)
                if is_well and target not in self.front.targets:
                    self.front.targets.append(target)
                elif not is_well and target in self.front.targets:
                    self.front.targets.remove(target)
                await asyncio.sleep(every_s)

        for hub in self.hubs:
            port = int(hub.url.rsplit(":", 1)[1])
            self._tasks.append(asyncio.create_task(watch(hub, ("127.0.0.1", port))))

    async def connect(self) -> asyncpg.Connection:
        """The superuser, past every proxy: for arranging and for judging."""
        return await asyncpg.connect(
            self._postgres.dsn_for(w.DATABASE), server_settings={"timezone": "UTC"}, timeout=10
        )

    async def fetch(self, statement: str, *args: Any) -> list[asyncpg.Record]:
        """One statement of the superuser on a connection of its own."""
        conn = await self.connect()
        try:
            rows: list[asyncpg.Record] = await conn.fetch(statement, *args)
            return rows
        finally:
            await conn.close()

    async def fetchval(self, statement: str, *args: Any) -> Any:
        rows = await self.fetch(statement, *args)
        return rows[0][0] if rows else None

    async def ctl(self, method: str, path: str, body: Any = None) -> Any:
        """The provider's control API, docs/sandbox.md sections 5 and 6."""
        async with self.http.request(method, f"{self.sandbox_url}/_ctl{path}", json=body) as answer:
            assert answer.status < 300, (answer.status, await answer.text())
            return await answer.json()

    async def fault(self, name: str, **more: Any) -> int:
        """Break something at the provider."""
        answer = await self.ctl("POST", "/fault", {"fault": name, **more})
        number: int = answer["id"]
        return number

    def spools(self) -> dict[str, int]:
        """Hub → bytes of webhooks that wait for the database on its disk."""
        sizes = {
            hub.name: sum(p.stat().st_size for p in Path(hub.env["HUB_DATA_DIR"]).glob("spool/*.spool"))
            for hub in self.hubs[: 1 if self.together else None]
        }
        return {name: size for name, size in sizes.items() if size}

    def ledger(self) -> list[dict[str, Any]]:
        """Every send that the provider accepted, in order, from the file that judges."""
        path = self.folder / "provider" / "sandbox" / "ledger.jsonl"
        return [
            record
            for line in (path.read_text().splitlines() if path.exists() else [])
            if (record := json.loads(line)).get("record") == "sent"
        ]

    async def token(self, org: RigOrg) -> str:
        """An access token of a new session of the owner."""
        conn = await self.connect()
        try:
            if self._ring is None:
                settings = w.settings_for(self.runtime_url(self._postgres.port))
                await conn.execute("set role hub_owner")
                self._ring = await load_keyring(conn, settings)
                await conn.execute("reset role")
            session: UUID = await conn.fetchval(
                "insert into auth.sessions (user_id, organization_id) values ($1, $2) returning id",
                org.owner_id,
                org.id,
            )
        finally:
            await conn.close()
        user = {"id": str(org.owner_id), "email": org.email, "app_metadata": {}, "user_metadata": {}}
        token, _ = self._ring.access_token(
            user, session, organization_id=org.id, org_role="OWNER", is_web=False
        )
        return str(token)

    async def metric(self, hub: Proc, name: str) -> float:
        """The sum over all labels of one of a hub's metrics."""
        async with self.http.get(f"{hub.url}/metrics") as answer:
            text = await answer.text()
        return sum(
            float(line.rsplit(" ", 1)[1])
            for line in text.splitlines()
            if line.split("{")[0].split(" ")[0] == name
        )


class Template:
    """A data folder with a filled database, made once a run and copied for each rig."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    async def build(self) -> Path:
        self.folder.mkdir(mode=0o755)
        server = EmbeddedPostgres(self.folder)
        server.start()
        try:
            url = server.ensure_database(w.DATABASE)
            runtime = f"postgresql://hub_runtime:{w.RUNTIME_PASSWORD}@127.0.0.1:{server.port}/{w.DATABASE}"
            (await w.build(url, runtime)).save(self.folder)
        finally:
            server.stop()
        shutil.rmtree(self.folder / "logs", ignore_errors=True)
        return self.folder


async def answers(url: str, within_s: float = 2.0) -> bool:
    """Whether GET gives 200 in time; on a connection of its own, past any pool."""
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=within_s)) as http,
            http.get(url) as answer,
        ):
            return answer.status == 200
    except (aiohttp.ClientError, TimeoutError, OSError):
        return False


def children_of(pid: int) -> list[int]:
    """All descendants that live now."""
    parents: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with suppress(OSError, IndexError):
                parent = int(Path(f"/proc/{entry}/stat").read_text().rsplit(")", 1)[1].split()[1])
                parents.setdefault(parent, []).append(int(entry))
    found, todo = [], [pid]
    while todo:
        for child in parents.get(todo.pop(), ()):
            found.append(child)
            todo.append(child)
    return found
