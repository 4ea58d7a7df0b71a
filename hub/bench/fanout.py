"""`hub bench fanout`: Redis → frames at 1,000 sessions, in one organization and in a hundred, beside bare
Python and what others build it with; memory of idle sessions.

Everybody is fed the same frames. For the hub they are events that stand in its log, committed right before
they are published, because it looks there for what it missed; the others get them straight from Redis.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any, Protocol
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import asyncpg
import hiredis
import msgspec

from hub.auth.tokens import load_keyring
from hub.bench import install
from hub.bench.figures import Goal, Report, Rounds, say
from hub.bench.stage import BenchOrg, Runner, Stage, rss_kb, stage, tree
from hub.db.pool import Database, LoggedEvent
from hub.domain.permissions import PERMISSIONS
from hub.events.publisher import Publisher, pack
from hub.settings import load_settings

SESSIONS = 1000
PER_USER = 20
#: What may be on its way in a flat-out run, as frames or at least as events; then the writer waits for the
#: readers.
WINDOW_FRAMES, WINDOW_EVENTS = 50_000, 200
TEXT = (
    "A message of the benchmark, about as long as people write, with the fields that an event carries. " * 3
)

FLOOR = "uvloop alone (floor)"
SEND_STR = "aiohttp, send_str"
FASTAPI = "FastAPI on uvicorn"
WEBSOCKETS = "websockets, broadcast()"
PY_SOCKETIO = "python-socketio, AsyncRedisManager"
CHANNELS = "Channels, pub/sub layer, uvicorn"
NODE_WS = "node, ws and ioredis"
SOCKETIO = "node, socket.io and redis-adapter"
BUN = "Bun, topics and ioredis"
HUB = "hub"
HUBS = "2 hubs, one port"
OURS = (FLOOR, SEND_STR, HUB, HUBS)


async def make_tokens(s: Stage, orgs: Sequence[BenchOrg], sessions: int) -> list[str]:
    """Access tokens of members of ``orgs``, spread evenly; a user for each 20 sockets of an organization."""
    conn = await asyncpg.connect(s.owner_dsn)
    settings = load_settings(s.environment(1))
    ring = await load_keyring(conn, settings)
    tokens = []
    each = sessions // len(orgs)
    for org in orgs:
        for start in range(0, each, PER_USER):
            user: UUID = await conn.fetchval(
                "insert into auth.users (email, email_confirmed_at) values ($1, now()) returning id",
                f"{uuid4().hex}@bench.example",
            )
            columns = ", ".join(PERMISSIONS)
            await conn.execute(
                f"insert into memberships (organization_id, user_id, role, {columns})"
                " values ($1, $2, 'ADMIN', true, true, true, true, true, true)",
                org.id,
                user,
            )
            session = await conn.fetchval(
                "insert into auth.sessions (user_id, organization_id) values ($1, $2) returning id",
                user,
                org.id,
            )
            document = {"id": str(user), "email": "x@bench.example", "user_metadata": {}, "app_metadata": {}}
            token, _ = ring.access_token(
                document, session, organization_id=org.id, org_role="ADMIN", is_web=False
            )
            tokens += [token] * min(PER_USER, each - start)
    await conn.close()
    return tokens


def hellos(tokens: Sequence[str]) -> list[dict[str, str | None]]:
    """Sessions of a hub for the load client."""
    return [
        {
            "path": "/ws",
            "hello": json.dumps({"type": "hello", "token": token, "cursor": None, "client": "bench"}),
        }
        for token in tokens
    ]


class Client:
    """The counting process, in C where it can be compiled. ``pace``: handshakes a second, below the 200 that
    a hub takes."""

    def __init__(
        self,
        port: int,
        kind: str,
        sessions: list[dict[str, str | None]],
        pace: float,
        stamp: str = '"t":',
    ) -> None:
        program = install.compiled("ws_load.c")
        argv = [str(program)] if program else [sys.executable, "-P", "-m", "hub.bench.ws_load"]
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.sessions = len(sessions)
        if program is None:
            self._ask({"port": port, "kind": kind, "sessions": sessions, "pace": pace, "stamp": stamp})
            return
        event = '42["event"' if kind == "socketio" else '{"type":"event"'
        lines = [f"{port} {kind} {pace} {len(sessions)}", event, stamp]
        for session in sessions:
            lines += [session["path"] or "/", session["hello"] or ""]
        self._ask("\n".join(lines).encode())

    def _ask(self, what: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        line = what if isinstance(what, bytes) else msgspec.json.encode(what)
        self.process.stdin.write(line + b"\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError("The load client ended; what it said stands above")
        found: dict[str, Any] = json.loads(answer)
        return found

    def count(self) -> dict[str, Any]:
        return self._ask(b"count")

    def start_clock(self) -> None:
        self._ask(b"clock")

    def delays(self) -> dict[str, Any]:
        return self._ask(b"delays")

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(10)


def rate_of(organizations: int) -> int:
    """Open loop: events a second. With 1,000 sessions 10,000 frames a second to one organization, 5,000 to
    more."""
    return 10 if organizations == 1 else 5 * organizations


UNSTAMPED = '"t":0,'


def stamped(text: str) -> str:
    """The frame with the time at which it goes out."""
    return text.replace(UNSTAMPED, f'"t":{time.monotonic_ns()},', 1)


class Source(Protocol):
    """Whoever writes for one peer: ``frames`` are (place of the organization, JSON text)."""

    async def send(self, frames: Sequence[tuple[int, str]]) -> None: ...

    async def close(self) -> None: ...


class Pipe:
    """One connection to Redis that publishes many messages in one write; a client library would be slower
    than the servers under test."""

    async def open(self, url: str) -> None:
        address = urlsplit(url)
        self.reader, self.writer = await asyncio.open_connection(address.hostname, address.port)
        self.parser = hiredis.Reader()
        self.writer.write(_command(b"AUTH", (address.password or "").encode()))
        await self._answers(1)

    async def publish(self, messages: Sequence[tuple[str, bytes]]) -> None:
        self.writer.write(b"".join([_command(b"PUBLISH", c.encode(), body) for c, body in messages]))
        await self.writer.drain()
        await self._answers(len(messages))

    async def _answers(self, due: int) -> None:
        while due:
            answer = self.parser.gets()
            if answer is False:
                self.parser.feed(await self.reader.read(65536))
            elif isinstance(answer, hiredis.ReplyError):
                raise RuntimeError(str(answer))
            else:
                due -= 1

    def close(self) -> None:
        self.writer.close()


def _command(*parts: bytes) -> bytes:
    return b"*%d\r\n" % len(parts) + b"".join([b"$%d\r\n%b\r\n" % (len(p), p) for p in parts])


class FromRedis:
    """PUBLISH, one message a frame."""

    def __init__(self, url: str, prefix: str, orgs: Sequence[BenchOrg]) -> None:
        self.url, self.prefix, self.orgs = url, prefix, orgs
        self.pipe = Pipe()

    async def open(self) -> None:
        await self.pipe.open(self.url)

    async def send(self, frames: Sequence[tuple[int, str]]) -> None:
        await self.pipe.publish(
            [(f"{self.prefix}{self.orgs[org].id}", stamped(text).encode()) for org, text in frames]
        )

    async def close(self) -> None:
        self.pipe.close()


class FromLog:
    """Into the event log, then published in the product's form. One event a publication, as for everybody
    else, though the product's writers put consecutive events of an organization together.

    The rows in the log are as many and as numbered, but bare, and their commit waits for no disk: writing is
    not what is measured here."""

    _WRITE = """
        insert into app.events (organization_id, seq, type, table_name, op, payload)
        select x.org, x.first + g - 1, 'message.created', 'messages', 'INSERT', '{}'
          from unnest($1::uuid[], $2::bigint[], $3::integer[]) x (org, first, n), generate_series(1, x.n) g
    """

    def __init__(self, s: Stage, orgs: Sequence[BenchOrg]) -> None:
        self.orgs, self.dsn, self.url = orgs, s.owner_dsn, s.valkey.url
        self.pipe = Pipe()
        self.heads: dict[UUID, int] = {}

    async def open(self) -> None:
        self.conn = await asyncpg.connect(self.dsn, server_settings={"synchronous_commit": "off"})
        self.epoch: str = await self.conn.fetchval("select app.epoch()")
        rows = await self.conn.fetch("select organization_id, max(seq) from app.events group by 1")
        self.heads = {row[0]: row[1] for row in rows}
        await self.pipe.open(self.url)

    async def send(self, frames: Sequence[tuple[int, str]]) -> None:
        by_org: dict[UUID, list[str]] = {}
        for org, text in frames:
            by_org.setdefault(self.orgs[org].id, []).append(text)
        firsts = [self.heads.get(org, 0) + 1 for org in by_org]
        counts = [len(texts) for texts in by_org.values()]
        await self.conn.execute(self._WRITE, list(by_org), firsts, counts)
        messages = []
        for (org_id, texts), first in zip(by_org.items(), firsts, strict=True):
            self.heads[org_id] = first + len(texts) - 1
            messages += [
                (f"o:{org_id}", pack(self.epoch, seq, [("messages", stamped(text).encode())]))
                for seq, text in enumerate(texts, first)
            ]
        await self.pipe.publish(messages)

    async def close(self) -> None:
        self.pipe.close()
        await self.conn.close()


class FromWriter:
    """A peer's own writing program: lines "<room> <frame>" on its standard input."""

    def __init__(self, argv: Sequence[str], orgs: Sequence[BenchOrg]) -> None:
        self.orgs = orgs
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE)

    async def send(self, frames: Sequence[tuple[int, str]]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(
            b"".join(f"{self.orgs[o].id} {stamped(text)}\n".encode() for o, text in frames)
        )
        self.process.stdin.flush()

    async def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(10)


class Contestant:
    """A server with its sessions connected, and whoever writes for it."""

    def __init__(self, runner: Runner, client: Client, source: Source, kb_a_session: float) -> None:
        self.runner, self.client, self.source = runner, client, source
        self.kb_a_session = kb_a_session
        #: Events that may be on their way flat out; learnt in the warm-up, or a slow server would need a
        #: minute for what a fast one does in a second.
        self.window = 0


async def contestants(s: Stage, names: Sequence[str], sessions: int, organizations: int) -> list[Contestant]:
    """All of them, ready, each with ``sessions`` sessions spread over ``organizations``. Two hubs get other
    organizations than one hub: they must not hear each other's events."""
    ready: list[tuple[Runner, Source, str, list[dict[str, str | None]], float]] = []
    each = sessions // organizations
    for name in names:
        orgs = s.orgs[organizations:] if name == HUBS else s.orgs[:organizations]
        rooms = [str(org.id) for org in orgs for _ in range(each)]
        prefix = f"bench{len(ready)}:"
        options = {"redis": s.valkey.url, "prefix": prefix}
        kind, pace, source = "plain", 500.0, None
        if name in (HUB, HUBS):
            kind, pace = "hub", 180.0
            runner = s.hub(name, 2 if name == HUBS else 1)
            source = FromLog(s, orgs)
        elif name in (FLOOR, SEND_STR):
            runner = s.peer(name, "sockets", {**options, "mode": "floor" if name == FLOOR else "send_str"})
        elif name in (NODE_WS, SOCKETIO):
            runner = s.foreign(
                name,
                install.node_program("sockets_ws" if name == NODE_WS else "sockets_socketio"),
                options,
            )
        elif name == BUN:
            runner = s.foreign(name, install.bun_program("sockets_bun"), options)
        else:
            program = {
                FASTAPI: "sockets_fastapi", WEBSOCKETS: "sockets_websockets",
                PY_SOCKETIO: "sockets_socketio", CHANNELS: "sockets_channels",
            }[name]  # fmt: skip
            runner = s.foreign(name, install.program(program), options)
        writer: Source
        if source is not None:
            writer = source
        elif name in (PY_SOCKETIO, CHANNELS, SOCKETIO):
            argv = {
                PY_SOCKETIO: lambda: install.program("sockets_socketio"),
                CHANNELS: lambda: install.program("sockets_channels"),
                SOCKETIO: lambda: install.node_program("sockets_socketio"),
            }[name]()
            writer = FromWriter([*argv, "publish", json.dumps(options)], orgs)
        else:
            writer = plain = FromRedis(s.valkey.url, prefix, orgs)
            await plain.open()
        if kind == "hub":
            where = hellos(await make_tokens(s, orgs, sessions))
            if source is not None:
                await source.open()  # new members are events too
        elif name in (PY_SOCKETIO, SOCKETIO):
            kind = "socketio"
            where = [{"path": "/socket.io/?EIO=4&transport=websocket", "hello": room} for room in rooms]
        else:
            where = [{"path": f"/ws?org={room}", "hello": None} for room in rooms]
        ready.append((runner, writer, kind, where, pace))

    async def connect(
        runner: Runner, writer: Source, kind: str, where: list[dict[str, str | None]], pace: float
    ) -> Contestant:
        before = _memory_kb(runner)
        client = await asyncio.to_thread(Client, runner.port, kind, where, pace)
        kb = (_memory_kb(runner) - before) / sessions
        say(f"  {runner.name}: {sessions} sessions, {kb:.1f} KB each")
        return Contestant(runner, client, writer, kb)

    install.compiled("ws_load.c")
    return list(await asyncio.gather(*(connect(*one) for one in ready)))


def _memory_kb(runner: Runner) -> int:
    return sum(rss_kb(process) for pid in runner.pids for process in tree(pid))


class _Frames:
    """Ready-made frames of 400 bytes, the organizations in turn."""

    def __init__(self, orgs: int) -> None:
        self.orgs, self.n = orgs, 0

    def next(self, size: int) -> list[tuple[int, str]]:
        made = []
        for _ in range(size):
            self.n += 1
            head = f'{{"type":"event","seq":{self.n},{UNSTAMPED}"text":"'
            made.append((self.n % self.orgs, head + TEXT[: 384 - len(head)] + '"}'))
        return made


async def warm_up(c: Contestant, frames: _Frames) -> None:
    """Caches, and half a second's worth of events as the window."""
    each = c.client.sessions // frames.orgs
    c.window = max(5, 2000 // each)
    rate = (await flat_out(c, frames, 0.2))["frames_s"]
    c.window = max(5, min(int(rate / 2 / each), max(WINDOW_EVENTS, WINDOW_FRAMES // each)))


async def flat_out(c: Contestant, frames: _Frames, seconds: float) -> dict[str, float]:
    """As fast as the readers take it, for about ``seconds``: never more than a window of events on the way.
    Whoever delivers nothing for two seconds has lost the rest."""
    each = c.client.sessions // frames.orgs
    window = c.window
    start, cpu, began = c.client.count(), c.runner.cpu_s(), time.perf_counter()
    sent = 0
    last_at, last = began, start["frames"]
    while True:
        now = time.perf_counter()
        count = c.client.count()
        got = count["frames"] - start["frames"]
        if count["frames"] != last:
            last, last_at = count["frames"], now
        open_ = now - began < seconds
        if (not open_ and got >= sent * each) or now - last_at > 2.0:
            break
        room = window - (sent - got // each)
        if open_ and room >= window // 4:
            size = min(room, max(1, window // 4))
            await c.source.send(frames.next(size))
            sent += size
        else:
            await asyncio.sleep(0.002)
    took = last_at - began
    return {
        "frames_s": got / took,
        "cpu_us": (c.runner.cpu_s() - cpu) / max(got, 1) * 1e6,
        "missing": sent * each - got,
        "client": (count["cpu_s"] - start["cpu_s"]) / (time.perf_counter() - began),
    }


async def at_rate(c: Contestant, frames: _Frames, rate: float, seconds: float) -> dict[str, float]:
    """``rate`` events a second, whatever the server does; delays from PUBLISH to the client."""
    each = c.client.sessions // frames.orgs
    start, cpu = c.client.count(), c.runner.cpu_s()
    c.client.start_clock()
    began, sent = time.perf_counter(), 0
    while (now := time.perf_counter()) - began < seconds:
        due = int((now - began) * rate) + 1 - sent
        if due > 0:
            await c.source.send(frames.next(due))
            sent += due
        await asyncio.sleep(0.001)
    used = c.runner.cpu_s() - cpu
    end = await settled(c.client, start["frames"] + sent * each)
    delays = c.client.delays()
    return {
        "load_p50_ms": delays["p50_ms"],
        "load_p99_ms": delays["p99_ms"],
        "load_cpu_us": used / (sent * each) * 1e6,
        "load_missing": start["frames"] + sent * each - end["frames"],
    }


async def settled(client: Client, expected: int) -> dict[str, Any]:
    """The counts once ``expected`` frames are in, or once nothing has come for two seconds."""
    last, since = client.count(), time.perf_counter()
    while last["frames"] < expected and time.perf_counter() - since < 2.0:
        await asyncio.sleep(0.01)
        now = client.count()
        if now["frames"] != last["frames"]:
            last, since = now, time.perf_counter()
    return last


def run(
    seconds: float = 1.5,
    rounds: int = 2,
    sessions: int = SESSIONS,
    shapes: Sequence[int] = (1, 100),
    peers: bool = True,
) -> Report:
    """Floor, peers and product, round after round, with all their sessions connected throughout."""
    names = [
        FLOOR, SEND_STR, FASTAPI, WEBSOCKETS, PY_SOCKETIO, CHANNELS, NODE_WS, SOCKETIO, BUN, HUB, HUBS,
    ] if peers else list(OURS)  # fmt: skip
    if peers:
        install.python("web")
        install.node_modules()
    found = Rounds()
    for organizations in shapes:
        with stage(2 * organizations) as s:
            asyncio.run(_shape(s, found, names, sessions, organizations, seconds, rounds))
    columns = [
        ("frames_s", "frames/s"), ("cpu_us", "server µs"), ("missing", "missing"), ("client", "client CPU"),
        ("load_p50_ms", "at rate: p50 ms"), ("load_p99_ms", "p99 ms"), ("load_cpu_us", "server µs"),
        ("load_missing", "missing"), ("kb", "KB/session"),
    ]  # fmt: skip
    rates = ", ".join(
        f"{rate_of(n) * sessions // n:,} frames a second to {n} organization{'s' * (n > 1)}" for n in shapes
    )
    table = found.table(
        f"Redis to {sessions:,} sessions, medians of {rounds} rounds of {seconds:g} s",
        columns,
        [
            "First flat out, then at a fixed rate (" + rates + "; empty: overloaded at that rate). "
            "Microseconds are CPU time a delivered frame; milliseconds count from PUBLISH to the client."
        ],
    )
    report = Report("fanout", f"hub bench fanout --rounds {rounds} --seconds {seconds:g}", [table], [], [])
    report.figures = found.medians()
    report.goals = _goals(found, shapes, sessions)
    report.notes.append(
        "While the hub's row runs, Postgres writes its events into the log on the same cores: with many "
        "organizations that, not the hub, may be the limit. Compare the CPU a frame."
    )
    report.notes.append(
        "Two hubs share the two cores with everything else here: each carries half of the sessions and pays "
        "for every message by itself. Their row shows that a second process works, not what more cores give."
    )
    if peers:
        report.versions = {
            **install.versions(
                "fastapi", "uvicorn", "websockets", "python-socketio", "channels", "channels-redis"
            ),
            **install.node_versions("ws", "ioredis", "socket.io", "@socket.io/redis-adapter", "bun"),
        }
    return report


async def _shape(
    s: Stage,
    found: Rounds,
    names: Sequence[str],
    sessions: int,
    organizations: int,
    seconds: float,
    rounds: int,
) -> None:
    case = case_of(sessions, organizations)
    all_ = await contestants(s, names, sessions, organizations)
    frames = _Frames(organizations)
    rate = rate_of(organizations)
    try:
        for c in all_:
            await warm_up(c, frames)
        for n in range(rounds):
            say(f"Round {n + 1} of {rounds}")
            for c in all_:
                figures = await flat_out(c, frames, seconds)
                if figures["frames_s"] > 1.2 * rate * sessions / organizations:
                    figures |= await at_rate(c, frames, rate, seconds)
                found.add(case, c.runner.name, {**figures, "kb": c.kb_a_session})
    finally:
        for c in all_:
            c.client.close()
            await c.source.close()


def case_of(sessions: int, organizations: int) -> str:
    return f"{sessions:,} × {organizations}"


def _goals(found: Rounds, shapes: Sequence[int], sessions: int) -> list[Goal]:
    goals = []
    for n in shapes:
        case = case_of(sessions, n)
        hub = (case, HUB)

        def rate(peer: str, bound: float, case: str = case, hub: tuple[str, str] = hub) -> Goal:
            return found.goal(f"{case}: frames/s to {peer}", "frames_s", hub, (case, peer), bound)

        if n == 1:
            goals += [rate(SEND_STR, 5), rate(BUN, 0.6)]
        else:
            goals += [
                found.goal(f"{case}: {what} to the floor", name, hub, (case, FLOOR), 1.5, at_most=True)
                for what, name in (
                    ("CPU a frame", "cpu_us"),
                    ("p50", "load_p50_ms"),
                    ("p99", "load_p99_ms"),
                )
            ]
        goals += [
            rate(FASTAPI, 2), rate(WEBSOCKETS, 2), rate(NODE_WS, 1.3), rate(SOCKETIO, 3),
            rate(PY_SOCKETIO, 9), rate(CHANNELS, 25),
        ]  # fmt: skip
        kb = found.median(case, HUB, "kb")
        goals.append(Goal(f"{case}: KB an idle session", kb, 25, True, ""))
        goals.append(found.goal(f"{case}: KB to FastAPI's", "kb", hub, (case, FASTAPI), 0.8, at_most=True))
    missing = found.total("missing", (HUB, HUBS)) + found.total("load_missing", (HUB, HUBS))
    goals.append(Goal("Frames lost (or delivered twice, if below 0) by the hub", abs(missing), 0, True, ""))
    return [g for g in goals if g.measured is not None or g.text.endswith("hub")]


async def write(s: Stage, orgs: list[BenchOrg], messages: int, batch: int = 50) -> int:
    """Store and publish ``messages``, spread over ``orgs``; how many events that made."""
    db = Database(s.dsn, ("ingest", "live"))
    await db.open()
    publisher = Publisher(db, s.valkey.url)
    await publisher.start()
    events = 0
    for start in range(0, messages, batch):
        items: list[dict[str, Any]] = [
            {
                "n": n, "organization_id": str(orgs[(start + n) % len(orgs)].id),
                "channel_account_id": str(orgs[(start + n) % len(orgs)].account_id),
                "dedupe_key": uuid4().hex, "schemes": ["wa_id"], "ids": [f"2099{n:07d}"],
                "name": "Mona Hassan", "direction": "INBOUND",
                "content": "A message of the benchmark, about as long as people write.",
                "message_type": "text", "metadata": {},
                "occurred_at": "2026-01-01T00:00:00Z", "reply_to": None, "source": "customer",
            }
            for n in range(batch)
        ]  # fmt: skip
        async with db.connection("ingest") as conn:
            rows = await conn.fetch("select * from app.ingest_many($1)", msgspec.json.encode(items).decode())
        publisher.publish(
            [LoggedEvent(r["organization_id"], r["seq"], r["table_name"], r["frame"]) for r in rows]
        )
        events += len(rows)
    await asyncio.sleep(0.2)
    await publisher.stop()
    await db.close()
    return events
