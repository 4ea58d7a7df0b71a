"""`hub run`: the whole product from one command, on servers of its own.

The supervisor owns the data folder (an exclusive lock), starts PostgreSQL and Valkey, migrates, seeds,
and keeps hub, worker and sandbox alive until Ctrl-C. It does nothing else: it opens no database
connection and answers no request, so there is little in it that could fail. All in one thread, because
children end with the thread that started them (hub/processes.py); each child's output has a small thread
of its own.

    starting ──▶ running ──▶ stopping      a child that ends while running comes back after 0.2 s … 10 s
"""

from __future__ import annotations

import fcntl
import http.client
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import IO, Any, Protocol

import msgspec

from hub.db.embedded import (
    EmbeddedPostgres,
    EmbeddedServerError,
    EmbeddedValkey,
    free_port,
    rotate,
    secret_file,
    tail,
)
from hub.processes import signal_group, spawn, wait_gone

READY_TIMEOUT_S = 90.0
# Hub: gone ≤ 15 s after SIGTERM; worker ≤ 30 s (guarantees 11). Above that something hangs, and we force it.
STOP_TIMEOUT_S = 32.0
BACKOFF_FIRST_S, BACKOFF_MAX_S = 0.2, 10.0
STEADY_S = 30.0  # alive for so long: the next death starts with a short pause again
TICK_S = 0.1
LOG_ROTATE_BYTES = 50 * 1024 * 1024
DATABASE = "hub"
SANDBOX_PLANS = (
    '{"team": {"price": "price_sandbox_team", "entitlements": {"members": 10}},'
    ' "pro": {"price": "price_sandbox_pro", "entitlements": {"members": 50}}}'
)


class RunError(Exception):
    """The start cannot go on; the message names the setting and the next step."""


class RunOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What `hub run` was told by its options or their variables (hub/cli.py)."""

    host: str
    port: int
    data_dir: Path
    database_url: str | None = None  # servers of the user's own, instead of ours
    migrate_url: str | None = None
    redis_url: str | None = None
    public_url: str | None = None
    sandbox: bool = True
    sandbox_port: int = 0
    demo: bool = True

    @property
    def url(self) -> str:
        """Where a browser on this machine finds the hub."""
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.host, self.host)
        return self.public_url or f"http://{host}:{self.port}"


class _Server(Protocol):
    """What both embedded servers offer to the supervisor."""

    @property
    def pid(self) -> int | None: ...
    def spawn(self) -> None: ...
    def is_ready(self) -> bool: ...


class Child:
    """One of our own processes: its command, its log, its pump."""

    def __init__(
        self, name: str, argv: list[str], env: dict[str, str], log: Path, say: Callable[[str], None]
    ) -> None:
        self.name, self.argv, self.env, self.log, self._say = name, argv, env, log, say
        self.process: subprocess.Popen[bytes] | None = None
        self._pump: threading.Thread | None = None

    @property
    def pid(self) -> int | None:
        return self.process.pid if self.process and self.process.poll() is None else None

    def spawn(self) -> None:
        self.process = spawn([sys.executable, "-P", *self.argv], output=subprocess.PIPE, env=self.env)
        self._pump = threading.Thread(target=self._copy, args=(self.process.stdout,), daemon=True)
        self._pump.start()

    def is_ready(self) -> bool:
        return self.pid is not None

    def finish_log(self) -> None:
        """Wait until the last words of a child that ended are in its log."""
        if self._pump is not None:
            self._pump.join(2)

    def _copy(self, pipe: IO[bytes]) -> None:
        """Everything into the log; warnings and worse, and what is no log line at all, to the console too."""
        log: IO[bytes] | None = None
        with pipe:
            for line in pipe:
                # A full disk may cost lines, never the reading: a child whose pipe is full stands still.
                with suppress(OSError):
                    if log is None or log.tell() > LOG_ROTATE_BYTES:
                        if log is not None:
                            log.close()
                        rotate(self.log)
                        log = self.log.open("ab", buffering=0)
                    log.write(line)
                if text := console_line(line):
                    self._say(f"{self.name}: {text}")
        if log is not None:
            log.close()


def console_line(line: bytes) -> str | None:
    """What of a child's log line people at the console should see; None for the everyday."""
    text = line.decode(errors="replace").rstrip()
    if not text:
        return None
    try:
        fields = json.loads(text)
    except ValueError:
        return text
    if not isinstance(fields, dict):
        return text
    if str(fields.pop("level", "info")).lower() not in ("warning", "error", "critical"):
        return None
    event = fields.pop("event", "")
    rest = " ".join(
        f"{name}={value}" for name, value in fields.items() if name not in ("timestamp", "exception")
    )
    return f"{event} {rest}".rstrip()


class _Watch(msgspec.Struct):
    """The supervisor's memory of one child or server."""

    name: str
    what: Any  # Child or _Server
    pause_s: float = BACKOFF_FIRST_S
    since: float = 0.0  # monotonic time of the last spawn
    due: float | None = None  # monotonic time of the next spawn, while it is down
    restarts: int = 0


class Supervisor:
    """Starts, watches, restarts and stops; `run` is its life."""

    def __init__(self, options: RunOptions) -> None:
        self.options = options
        self.data = options.data_dir.absolute()
        self.logs = self.data / "logs"
        self.postgres = None if options.database_url else EmbeddedPostgres(self.data)
        self.valkey = None if options.redis_url else EmbeddedValkey(self.data)
        self.sandbox_port = options.sandbox_port
        self.env: dict[str, str] = {}
        self.watches: list[_Watch] = []
        self.started_at = datetime.now(UTC)
        self.stopping = 0  # signals so far
        self._starting = True
        self._said = threading.Lock()

    def run(self) -> int:
        """0 after Ctrl-C or SIGTERM, 1 when the start failed (said on stderr)."""
        began = time.monotonic()
        if not is_locked(self.data):  # else the lock's message is the better one
            check_port(self.options)
        self.data.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.logs.mkdir(exist_ok=True)
        with data_lock(self.data):
            previous = {
                number: signal.signal(number, self._on_signal)
                for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
            }
            try:
                self._start()
                self._starting = False
                self.say(self.ready_block(time.monotonic() - began), plain=True)
                while not self.stopping:
                    self._tick()
                    time.sleep(TICK_S)
                return 0
            except _Stopped:
                return 130
            finally:
                self._starting = False
                self._stop()
                for number, handler in previous.items():
                    signal.signal(number, handler)

    def say(self, text: str, *, plain: bool = False) -> None:
        # A console that went away (a closed pipe, a full disk behind it) is no reason to stop.
        with self._said, suppress(OSError):
            print(text if plain else f"{datetime.now(UTC).astimezone():%H:%M:%S} {text}", flush=True)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.stopping += 1
        if self._starting:
            self._starting = False
            raise _Stopped
        if self.stopping > 1:
            for watch in self.watches:
                if watch.what.process is not None:
                    with suppress(ProcessLookupError):
                        os.killpg(watch.what.process.pid, signal.SIGKILL)

    def _start(self) -> None:
        for name, server in (("postgres", self.postgres), ("valkey", self.valkey)):
            if server is not None:
                self.watches.append(_Watch(name=name, what=server, since=time.monotonic()))
                server.start()
        self.sandbox_port = self.sandbox_port or free_port()
        self.env = self.environment()
        self.write_runtime()
        self._step("migrate")
        self._step("seed")
        for name, argv in self.commands().items():
            child = Child(name, argv, self.env, self.logs / f"{name}.log", self.say)
            child.spawn()
            self.watches.append(_Watch(name=name, what=child, since=time.monotonic()))
        self.write_runtime()
        self._await_ready()
        self.write_runtime()

    def commands(self) -> dict[str, list[str]]:
        """Our processes, by the name of their log."""
        commands = {"hub": ["-m", "hub", "serve"], "worker": ["-m", "workers"]}
        if self.options.sandbox:
            commands["sandbox"] = ["-m", "hub", "sandbox"]
        return commands

    def environment(self) -> dict[str, str]:
        """What the children see: the user's variables, and ours where the user left them open."""
        options, data = self.options, self.data
        env = {
            **os.environ,
            "HUB_HOST": options.host,
            "HUB_PORT": str(options.port),
            "HUB_DATA_DIR": str(data),
            "HUB_LOG": "json",
            "HUB_DEMO": str(int(options.demo)),
            "HUB_SANDBOX": str(int(options.sandbox)),
            "PYTHONUNBUFFERED": "1",
        }
        if self.postgres is not None:
            runtime = secret_file(data / "runtime_password")
            env["DATABASE_URL"] = (
                f"postgresql://hub_runtime:{runtime}@127.0.0.1:{self.postgres.port}/{DATABASE}"
            )
            env["HUB_MIGRATE_URL"] = self.postgres.ensure_database(DATABASE)
        else:
            env["DATABASE_URL"] = options.database_url or ""
            env["HUB_MIGRATE_URL"] = options.migrate_url or options.database_url or ""
        env["REDIS_URL"] = self.valkey.url if self.valkey is not None else options.redis_url or ""
        defaults = {
            "PUBLIC_BASE_URL": options.url,
            "HUB_SECRET_KEY": secret_file(data / "secret_key", secrets.token_urlsafe(32)),
            "META_APP_SECRET": secret_file(data / "meta_app_secret", secrets.token_hex(16)),
            "META_VERIFY_TOKEN": secret_file(data / "meta_verify_token", secrets.token_hex(16)),
        }
        if options.sandbox:
            local = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(options.host, options.host)
            env["HUB_SANDBOX_PORT"] = str(self.sandbox_port)
            defaults["META_GRAPH_BASE"] = f"http://127.0.0.1:{self.sandbox_port}/graph"
            defaults["HUB_SANDBOX_CALLBACK"] = (
                f"http://{local}:{options.port}/functions/v1/whatsapp-cloud-webhook"
            )
            if not env.get("STRIPE_SECRET_KEY") and not env.get("STRIPE_API_BASE"):  # a real key stays away
                defaults["STRIPE_API_BASE"] = f"http://127.0.0.1:{self.sandbox_port}/stripe"
                defaults["STRIPE_SECRET_KEY"] = secret_file(
                    data / "stripe_secret_key", f"sk_test_{secrets.token_hex(16)}"
                )
                defaults["STRIPE_WEBHOOK_SECRET"] = secret_file(
                    data / "stripe_webhook_secret", f"whsec_{secrets.token_hex(16)}"
                )
                defaults["STRIPE_PRICE_IDS"] = SANDBOX_PLANS
        return {**env, **{name: value for name, value in defaults.items() if not env.get(name)}}

    def _step(self, verb: str) -> None:
        """Run `hub migrate` or `hub seed` to its end."""
        log = self.logs / f"{verb}.log"
        with log.open("wb") as out:
            process = spawn([sys.executable, "-P", "-m", "hub", verb], output=out, env=self.env)
            try:
                code = process.wait()
            except BaseException:
                signal_group(process, signal.SIGTERM)
                wait_gone(process, 5)
                raise
        if code:
            raise RunError(f"`hub {verb}` failed with exit code {code}. The end of {log}:\n{tail(log, 20)}")

    def _await_ready(self) -> None:
        """Until hub and sandbox say that they are ready; children that die meanwhile come back as usual."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.options.host, self.options.host)
        waiting = {"hub": (host, self.options.port, "/readyz")}
        if self.options.sandbox:
            waiting["sandbox"] = ("127.0.0.1", self.sandbox_port, "/healthz")
        deadline = time.monotonic() + READY_TIMEOUT_S
        while waiting:
            waiting = {name: door for name, door in waiting.items() if not answers(*door)}
            self._tick(quiet=True)
            for watch in self.watches:
                late = watch.name in waiting and time.monotonic() > deadline
                if late or (watch.restarts >= 3 and isinstance(watch.what, Child)):
                    watch.what.finish_log()
                    end = tail(watch.what.log, 20)
                    raise RunError(f"{watch.name} does not start. The end of {watch.what.log}:\n{end}")
            time.sleep(0.03)

    def _tick(self, quiet: bool = False) -> None:
        """Look at each child once; bring back what has ended."""
        changed = False
        for watch in self.watches:
            now = time.monotonic()
            if watch.what.pid is not None:
                if now - watch.since > STEADY_S:
                    watch.pause_s = BACKOFF_FIRST_S
                continue
            if watch.due is None:
                watch.due = now + watch.pause_s
                if not quiet:
                    code = watch.what.process.returncode if watch.what.process else None
                    self.say(f"{watch.name} ended ({_how(code)}); starting it again in {watch.pause_s:.1f} s")
                watch.pause_s = min(watch.pause_s * 2, BACKOFF_MAX_S)
            elif now >= watch.due:
                watch.due, watch.since = None, now
                watch.restarts += 1
                watch.what.spawn()
                changed = True
        if changed:
            self.write_runtime()

    def _stop(self) -> None:
        """Our processes first, politely; the servers when nobody uses them any more."""
        children = [watch.what for watch in self.watches if isinstance(watch.what, Child)]
        if children and self.stopping:
            self.say("Stopping (Ctrl-C again: at once)")
        for child in children:
            if child.process is not None:
                signal_group(child.process, signal.SIGTERM)
        deadline = time.monotonic() + STOP_TIMEOUT_S
        for child in children:
            process = child.process
            if process is not None and not wait_gone(process, max(0.1, deadline - time.monotonic())):
                self.say(f"{child.name} does not stop; killing it")
                signal_group(process, signal.SIGKILL)
                wait_gone(process, 5)
            child.finish_log()
        for server in (self.valkey, self.postgres):
            if server is not None:
                server.stop()
        with suppress(FileNotFoundError):
            runtime = json.loads((self.data / "runtime.json").read_text())
            _write_private(self.data / "runtime.json", {**runtime, "pid": None, "processes": {}})
        if children:
            self.say("Stopped.")

    def write_runtime(self) -> None:
        """runtime.json: where this instance is to be found, for `hub keys`, `hub status` and friends."""
        names = ("DATABASE_URL", "HUB_MIGRATE_URL", "REDIS_URL", "HUB_SECRET_KEY", "META_GRAPH_BASE",
                 "META_APP_SECRET", "META_VERIFY_TOKEN", "PUBLIC_BASE_URL", "HUB_DEMO", "HUB_SANDBOX",
                 "HUB_SANDBOX_PORT", "HUB_SANDBOX_CALLBACK", "HUB_HOST", "HUB_PORT", "STRIPE_API_BASE",
                 "STRIPE_SECRET_KEY", "STRIPE_WEBHOOK_SECRET", "STRIPE_PRICE_IDS")  # fmt: skip
        document = {
            "pid": os.getpid(),
            "started_at": self.started_at.isoformat(timespec="seconds"),
            "url": self.options.url,
            "phone_url": self.phone_url,
            "ports": {
                "hub": self.options.port,
                "postgres": self.postgres.port if self.postgres else None,
                "valkey": self.valkey.port if self.valkey else None,
                "sandbox": self.sandbox_port if self.options.sandbox else None,
            },
            "processes": {watch.name: watch.what.pid for watch in self.watches},
            "restarts": {watch.name: watch.restarts for watch in self.watches},
            "environment": {name: self.env[name] for name in names if name in self.env},
        }
        _write_private(self.data / "runtime.json", document)

    @property
    def phone_url(self) -> str | None:
        return f"http://127.0.0.1:{self.sandbox_port}/phone" if self.options.sandbox else None

    def ready_block(self, took_s: float) -> str:
        """At most twelve lines: what a newcomer needs next."""
        owner = read_json(self.data / "keys.json").get("owner") or {}
        hub = Path(sys.executable).parent / "hub"
        command = _short(hub) if hub.exists() else "python -m hub"
        lines = [
            ("ConnectGain Hub", f"{self.options.url}   (ready after {took_s:.1f} s)"),
            (
                "Sign in",
                f"{owner.get('email')} / {owner.get('password')}"
                if owner.get("password")
                else f"as whom you make: {command} user create --email … --org …",
            ),
            ("The customer", f"{self.phone_url}   (play one on this phone)" if self.phone_url else ""),
            ("Keys", f"{command} keys"),
            ("Data", f"{_short(self.data)}   (delete it to start anew)"),
            ("Logs", f"{_short(self.logs)}"),
            ("Stop", "Ctrl-C"),
        ]
        return "\n" + "\n".join(f"  {name:<16} {text}" for name, text in lines if text) + "\n"


class _Stopped(Exception):
    """A signal during the start."""


@contextmanager
def data_lock(data: Path) -> Iterator[None]:
    """The exclusive right to this data folder; RunError names the instance that has it."""
    with (data / "lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            other = read_json(data / "runtime.json")
            where = f" (process {other['pid']}, {other['url']})" if other.get("pid") else ""
            raise RunError(
                f"Another hub{where} is using the data folder {data}. Stop it, or give this one a folder "
                "and a port of its own: HUB_DATA_DIR=./data2 HUB_PORT=8081 make run"
            ) from None
        yield


def is_locked(data: Path) -> bool:
    """Does an instance run on this data folder now?"""
    try:
        with (data / "lock").open("r") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def check_port(options: RunOptions) -> None:
    """Refuse a taken port before anything is started."""
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((options.host, options.port))
        except PermissionError:
            raise RunError(f"Port {options.port} needs root; choose one above 1023 with HUB_PORT.") from None
        except OSError as error:
            raise RunError(
                f"Cannot listen on {options.host}, port {options.port}: {error.strerror}. "
                f"Choose another with HUB_PORT: HUB_PORT={options.port + 1} make run "
                "(and HUB_DATA_DIR for a second instance)."
            ) from None


def answers(host: str, port: int, path: str) -> bool:
    """GET gives 200."""
    link = http.client.HTTPConnection(host, port, timeout=2)
    try:
        link.request("GET", path)
        return link.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        link.close()


@contextmanager
def embedded_databases(data: Path) -> Iterator[dict[str, str]]:
    """The servers of an instance that is down, for as long as a command needs them; yields the variables."""
    supervisor = Supervisor(RunOptions(host="127.0.0.1", port=8080, data_dir=data))
    assert supervisor.postgres is not None and supervisor.valkey is not None
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    with data_lock(data), supervisor.valkey, supervisor.postgres:
        yield supervisor.environment()


def read_json(path: Path) -> dict[str, Any]:
    """An object kept in the data folder; {} when it is not there (yet)."""
    try:
        found = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _write_private(path: Path, document: dict[str, Any]) -> None:
    partial = path.with_name(path.name + ".new")
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out:
        json.dump(document, out, indent=2)
    partial.replace(path)


def _short(path: Path) -> str:
    """Relative to where the user stands, when that is shorter."""
    with suppress(ValueError):
        return str(path.relative_to(Path.cwd()))
    return str(path)


def _how(code: int | None) -> str:
    if code is None:
        return "not started"
    if code < 0:
        with suppress(ValueError):
            return signal.Signals(-code).name
    return f"exit code {code}"


def main(options: RunOptions) -> int:
    try:
        return Supervisor(options).run()
    except (RunError, EmbeddedServerError) as error:
        print(f"\n{error}", file=sys.stderr, flush=True)
        return 1
