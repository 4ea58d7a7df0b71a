"""`hub bench latency`: commit → websocket frame, beside other ways to get it there; what listeners cost the
writers; catching up under load; and an idle hub."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any
from uuid import uuid4

import aiohttp
import asyncpg
import redis.asyncio as redis

from hub.bench.fanout import Client, hellos, make_tokens, settled
from hub.bench.figures import Goal, Report, Rounds, brief, quantile, say
from hub.bench.stage import BenchOrg, Runner, Stage, postgres_cpu_s, scheduled_s, stage
from hub.db.pool import Database, LoggedEvent
from hub.db.tenancy import entering
from hub.domain.principal import Principal
from hub.events import log as event_log
from hub.events.publisher import Publisher

SESSIONS = 10
IDLE_SESSIONS = 1000
STAMP = "sent at "
WRITERS = 16

BARE = "commit, then PUBLISH to bare sockets"
NOTIFY = "NOTIFY with the event as payload"
POLL = "log asked every 5 ms"
HUB = "hub: publish after commit"
NOBODY = "nobody listens"

_senders = itertools.count()
#: Stores one message and makes its events known; the time is that of the commit.
Write = Callable[[str], Coroutine[Any, Any, None]]


def item(org: BenchOrg, text: str, sender: int, n: int = 0) -> dict[str, Any]:
    return {
        "n": n, "organization_id": str(org.id), "channel_account_id": str(org.account_id),
        "dedupe_key": uuid4().hex, "schemes": ["wa_id"], "ids": [f"2055{sender:07d}"], "name": "Mona Hassan",
        "direction": "INBOUND", "content": text, "message_type": "text", "metadata": {},
        "occurred_at": "2026-01-01T00:00:00Z", "reply_to": None, "source": "customer",
    }  # fmt: skip


class Writers:
    """The ways to write, each on connections of its own; ``commits`` collects how long commits took."""

    def __init__(self, s: Stage) -> None:
        self.s = s
        self.commits: list[float] = []

    async def open(self) -> None:
        self.db = Database(self.s.dsn, ("ingest", "live"))
        await self.db.open()
        self.publisher = Publisher(self.db, self.s.valkey.url)
        await self.publisher.start()
        self.pool = await asyncpg.create_pool(self.s.dsn, min_size=WRITERS, max_size=WRITERS)
        self.redis = redis.from_url(self.s.valkey.url)

    async def close(self) -> None:
        await self.publisher.stop()
        await self.db.close()
        await self.pool.close()
        await self.redis.aclose()

    async def silently(self, body: str) -> list[LoggedEvent]:
        began = time.perf_counter()
        async with self.pool.acquire() as conn:
            rows = await conn.fetch("select * from app.ingest_many($1)", body)
        self.commits.append(time.perf_counter() - began)
        return [LoggedEvent(*row) for row in rows]

    async def publishing(self, body: str) -> None:
        """As the hub does it: Publisher, one queue, one pipeline a flush."""
        self.publisher.publish(await self.silently(body))

    async def plainly(self, body: str) -> None:
        events = await self.silently(body)
        async with self.redis.pipeline(transaction=False) as pipe:
            for event in events:
                pipe.publish(f"bare:{event.organization_id}", event.frame)
            await pipe.execute()

    async def notifying(self, body: str) -> None:
        began = time.perf_counter()
        async with self.pool.acquire() as conn:
            await conn.fetch(
                "select pg_notify('bench', organization_id || ' ' || frame) from app.ingest_many($1)", body
            )
        self.commits.append(time.perf_counter() - began)

    async def only(self, body: str) -> None:
        await self.silently(body)


async def at_rate(
    s: Stage, writers: Writers, write: Write, runner: Runner, client: Client, rate: float, seconds: float
) -> dict[str, float]:
    """``rate`` messages a second of one organization; delays count from before the write."""
    org = s.orgs[0]
    writers.commits.clear()
    start, server, postgres = client.count(), runner.cpu_s(), postgres_cpu_s(s)
    client.start_clock()
    tasks: list[asyncio.Task[None]] = []
    began = time.perf_counter()
    for n in range(int(rate * seconds)):
        await asyncio.sleep(max(0.0, began + n / rate - time.perf_counter()))
        text = f"{STAMP}{time.monotonic_ns()} {'and a few words more ' * 3}"
        tasks.append(asyncio.create_task(write(json.dumps([item(org, text, n % 50)]))))
    await asyncio.gather(*tasks)
    expected = start["frames"] + 2 * len(tasks) * SESSIONS  # a message and its conversation
    got = (await settled(client, expected))["frames"]
    delays, events = client.delays(), 2 * len(tasks)
    commits = sorted(writers.commits)
    commit_p50, commit_p99 = quantile(commits, 0.5) * 1000, quantile(commits, 0.99) * 1000
    return {
        "commit_p50": commit_p50,
        "commit_p99": commit_p99,
        "frame_p50": delays["p50_ms"],
        "frame_p99": delays["p99_ms"],
        "over_p50": delays["p50_ms"] - commit_p50,
        "over_p99": delays["p99_ms"] - commit_p99,
        "server_us": (runner.cpu_s() - server) / events * 1e6,
        "pg_us": (postgres_cpu_s(s) - postgres) / events * 1e6,
        "missing": expected - got,
    }


async def commits_per_s(s: Stage, writers: Writers, write: Write, seconds: float) -> dict[str, float]:
    """16 writers, each in its own organization, one message a transaction, one after the other."""
    done = 0
    until = time.perf_counter() + seconds

    async def work(org: BenchOrg) -> None:
        nonlocal done
        while time.perf_counter() < until:
            await write(json.dumps([item(org, "a message", done % 50)]))
            done += 1

    writers.commits.clear()
    used, began = postgres_cpu_s(s), time.perf_counter()
    await asyncio.gather(*(work(org) for org in s.orgs[:WRITERS]))
    took = time.perf_counter() - began
    return {"commits_s": done / took, "pg_us": (postgres_cpu_s(s) - used) / done * 1e6}


async def idle_share(s: Stage, hub: Runner, sessions: int, seconds: float) -> float:
    """Of one core, while ``sessions`` sit there."""
    tokens = await make_tokens(s, s.orgs, sessions)
    client = await asyncio.to_thread(Client, hub.port, "hub", hellos(tokens), 180.0)
    await asyncio.sleep(1.0)
    used, began = scheduled_s(hub.pids), time.perf_counter()
    await asyncio.sleep(seconds)
    share = (scheduled_s(hub.pids) - used) / (time.perf_counter() - began)
    client.close()
    return share


class Tail:
    """What one reader of an organization's events saw."""

    def __init__(self, head: int) -> None:
        self.first = self.seen = head
        self.missed = self.repeated = self.resyncs = self.skipped = self.connects = 0

    def take(self, seq: int) -> None:
        if seq == self.seen + 1:
            self.seen = seq
        elif seq > self.seen:
            self.missed += seq - self.seen - 1
            self.seen = seq
        else:
            self.repeated += 1

    @property
    def read(self) -> int:
        return self.seen - self.first - self.skipped


async def catch_up(s: Stage, writers: Writers, hub: Runner, events: int) -> tuple[Tail, Tail, int]:
    """16 writers in one organization, with pauses inside their transactions, while one reader pages through
    the log and another, on a socket, goes and comes back with its cursor. Both must see every number once.
    Gives the two and the head of the log."""
    org = s.orgs[0]
    tokens = await make_tokens(s, [org], 1)
    start = (await event_log.state(writers.db, [org.id]))[org.id]
    paging, socket = Tail(start), Tail(start)
    over, written = asyncio.Event(), asyncio.Event()

    async def batches(n: int) -> None:
        while not over.is_set():
            await writers.publishing(
                json.dumps([item(org, "a message", random.randrange(200), i) for i in range(25)])
            )
            await asyncio.sleep(0)

    async def singles(n: int) -> None:
        principal = Principal(kind="service", organization_id=org.id)
        while not over.is_set():
            async with writers.db.connection("ingest") as conn:  # publishes what its triggers report
                await conn.execute(entering(principal))
                await conn.execute(
                    "insert into contacts (organization_id, first_name) values ($1, 'Passing')", org.id
                )
                await asyncio.sleep(random.uniform(0, 0.004))
                await conn.execute("commit")

    async def page() -> None:
        while True:
            last = written.is_set()
            found = await event_log.page(writers.db, org.id, paging.seen)
            for event in found:
                paging.take(event.seq)
            if not found:
                if last:
                    return
                await asyncio.sleep(0.002)

    async def come_and_go() -> None:
        cursor: dict[str, Any] | None = None
        url = f"http://127.0.0.1:{hub.port}/ws"
        async with aiohttp.ClientSession() as session:
            while True:
                last = written.is_set()
                async with session.ws_connect(url, max_msg_size=0) as ws:
                    socket.connects += 1
                    await ws.send_json({"type": "hello", "token": tokens[0], "cursor": cursor})
                    leave_at = time.perf_counter() + random.uniform(0.1, 0.6)
                    while not (last and socket.seen >= head[0]):
                        if not last and time.perf_counter() > leave_at:
                            break
                        try:
                            message = await ws.receive(timeout=0.1)
                        except TimeoutError:
                            continue
                        if message.type is not aiohttp.WSMsgType.TEXT:
                            break
                        frame = json.loads(message.data)
                        if frame["type"] == "event":
                            socket.take(frame["seq"])
                        elif frame["type"] in ("welcome", "resync"):
                            if cursor is None:
                                socket.first = socket.seen = frame["seq"]
                            elif frame["type"] == "resync" or not frame["resumed"]:
                                socket.resyncs += 1
                                socket.skipped += frame["seq"] - socket.seen
                                socket.seen = frame["seq"]
                            cursor = {"epoch": frame["epoch"], "seq": socket.seen}
                    else:
                        return
                    assert cursor is not None
                    cursor["seq"] = socket.seen

    head = [0]
    work = [asyncio.create_task(batches(n)) for n in range(2)]
    work += [asyncio.create_task(singles(n)) for n in range(WRITERS - 2)]
    reading = asyncio.create_task(page())
    sitting = asyncio.create_task(come_and_go())
    while paging.seen - start < events:
        for task in (*work, reading, sitting):
            if task.done():
                task.result()
        await asyncio.sleep(0.05)
    over.set()
    await asyncio.gather(*work)
    head[0] = (await event_log.state(writers.db, [org.id]))[org.id]
    written.set()
    await asyncio.wait_for(asyncio.gather(reading, sitting), 30)
    paging.missed += head[0] - paging.seen
    socket.missed += max(0, head[0] - socket.seen)
    return paging, socket, head[0]


def run(
    seconds: float = 2.0,
    rounds: int = 3,
    rates: Sequence[int] = (50, 500),
    events: int = 100_000,
    idle_sessions: int = IDLE_SESSIONS,
    idle_s: float = 10.0,
) -> Report:
    """All ways round after round; then catching up; then a hub with nothing to do. Nothing is installed."""
    found, listening = Rounds(), Rounds()
    with stage(max(20, WRITERS)) as s:
        extra = asyncio.run(_run(s, found, listening, seconds, rounds, rates, events, idle_sessions, idle_s))
    paging, socket, idle = extra
    columns = [
        ("commit_p50", "commit p50"), ("commit_p99", "p99"), ("frame_p50", "frame p50"),
        ("frame_p99", "p99"), ("over_p50", "over p50"), ("over_p99", "over p99"),
        ("server_us", "server µs"), ("pg_us", "Postgres µs"), ("missing", "missing"),
    ]  # fmt: skip
    report = Report(
        "latency",
        f"hub bench latency --rounds {rounds} --seconds {seconds:g}",
        [
            found.table(
                f"Commit to {SESSIONS} sessions, ms, medians of {rounds} rounds of {seconds:g} s",
                columns,
                [
                    "Commit and frame both count from before the write; over: the frame's time less the "
                    "commit's. Microseconds are CPU time an event, two events a message."
                ],
            ),
            listening.table(
                f"What listeners cost: {WRITERS} writers, an organization each, one message a commit",
                [("commits_s", "commits/s"), ("pg_us", "Postgres µs")],
            ),
        ],
        [],
        [
            f"Catching up while {WRITERS} writers committed into one organization: a reader of the log "
            f"saw {paging.read:,} events, missed {paging.missed}, saw {paging.repeated} twice; a socket that "
            f"left and came back with its cursor {socket.connects} times saw {socket.read:,}, missed "
            f"{socket.missed}, saw {socket.repeated} twice and was told {socket.resyncs} times to start from "
            f"a snapshot.",
            f"A hub with {idle_sessions:,} idle sessions used {idle:.2%} of a core over {brief(idle_s)} s.",
        ],
    )
    fast = f"{max(rates)} messages/s"
    report.figures = {**found.medians(), **listening.medians()}
    report.goals = [
        Goal(
            f"{fast}: frame p50 over the commit's, ms", found.median(fast, HUB, "over_p50"), 1.0, True, ""
        ),
        Goal(
            f"{fast}: frame p99 over the commit's, ms", found.median(fast, HUB, "over_p99"), 5.0, True, ""
        ),
        listening.goal(
            "Commits/s with live sessions to without", "commits_s", ("commits", HUB), ("commits", NOBODY), 0.9
        ),
        Goal("Events missed or seen twice while catching up",
             float(paging.missed + paging.repeated + socket.missed + socket.repeated), 0, True, ""),
        Goal(f"Core with {idle_sessions:,} idle sessions, %", idle * 100, 0.2, True, ""),
        Goal("Frames lost by the hub", found.total("missing", (HUB,)), 0, True, ""),
    ]  # fmt: skip
    return report


async def _run(
    s: Stage,
    found: Rounds,
    listening: Rounds,
    seconds: float,
    rounds: int,
    rates: Sequence[int],
    events: int,
    idle_sessions: int,
    idle_s: float,
) -> tuple[Tail, Tail, float]:
    writers = Writers(s)
    await writers.open()
    org = s.orgs[0]
    hub = s.hub(HUB)
    bare = s.peer(BARE, "sockets", {"redis": s.valkey.url, "prefix": "bare:", "mode": "floor"})
    notified = s.peer(NOTIFY, "log_sockets", {"dsn": s.dsn, "mode": "notify"})
    polling = s.peer(POLL, "log_sockets", {"dsn": s.dsn, "mode": "poll"})
    ways: dict[str, tuple[Runner, Write]] = {
        BARE: (bare, writers.plainly),
        NOTIFY: (notified, writers.notifying),
        POLL: (polling, writers.only),
        HUB: (hub, writers.publishing),
    }
    tokens = await make_tokens(s, s.orgs[:1], SESSIONS)
    clients: dict[str, Client] = {}
    for n in range(50):  # senders become known; every connection has made its plans
        for warm in (writers.only, writers.notifying):
            await asyncio.gather(*(warm(json.dumps([item(o, "hello", n)])) for o in s.orgs[:WRITERS]))
    plain: list[dict[str, str | None]] = [{"path": f"/ws?org={org.id}", "hello": None}] * SESSIONS

    async def connect(name: str) -> Client:
        kind, where = ("hub", hellos(tokens)) if name == HUB else ("plain", plain)
        return await asyncio.to_thread(Client, ways[name][0].port, kind, where, 100.0, STAMP)

    try:
        for n in range(rounds):
            say(f"Round {n + 1} of {rounds}")
            for rate in rates:
                for name, (runner, write) in ways.items():
                    # only this one has sessions: those that read the log hear of everybody's messages
                    clients[name] = await connect(name)
                    figures = await at_rate(s, writers, write, runner, clients[name], rate, seconds)
                    clients.pop(name).close()
                    found.add(f"{rate} messages/s", name, figures)
            for name, write in (
                (NOBODY, writers.only),
                (NOTIFY, writers.notifying),
                (HUB, writers.publishing),
            ):
                if name != NOBODY:
                    clients[name] = await connect(name)
                listening.add("commits", name, await commits_per_s(s, writers, write, seconds))
                if name != NOBODY:
                    clients.pop(name).close()
        s.end(bare)
        s.end(notified)
        s.end(polling)
        paging, socket, _ = await catch_up(s, writers, hub, events)
        idle = await idle_share(s, hub, idle_sessions, idle_s)
    finally:
        for client in clients.values():
            client.close()
        await writers.close()
    return paging, socket, idle
