"""Family Q: claimed work (guarantees 7). Rows of the outbox are the work that exists; `claimer.py` settles
them without a provider, so that many go through, and real workers serve where sending matters. S-06, the
event log under all kinds of writers, is here as well."""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID, uuid4

import aiohttp
import asyncpg
import orjson
import pytest
from structlog.testing import capture_logs

from hub import clock
from hub.channels.ingest import Ingest
from hub.channels.protocol import (
    Accepted,
    AuthBroken,
    Permanent,
    Retryable,
    Throttled,
    Unknown,
    WindowClosed,
)
from hub.channels.whatsapp_cloud import WhatsAppCloud
from hub.db.pool import SIZES, Database, Purpose
from hub.db.tenancy import acting_as
from hub.settings import Settings
from tests import whatsapp as wa
from tests.factories import (
    Member,
    Org,
    Servers,
    ingest_item,
    make_contact,
    make_conversation,
    make_member,
    make_org,
    until,
)
from tests.fakes.proxy import proxy_to
from tests.fault.conftest import Figures
from tests.sending import LAYLA, OMAR, World
from workers.failures import Failures
from workers.outbound import ClaimedSend, NotSent, Sender, _Row
from workers.reaper import Reaper
from workers.retry import FAILURE_TRIES, SEND_TRIES, backoff_s, failure_s, outage_s

pytestmark = pytest.mark.fault
Scaled = Callable[[Any, Any], Any]
ROOT = Path(__file__).parents[2]


async def queue_rows(
    conn: asyncpg.Connection, org: Org, conversations: int, each: int, **columns: Any
) -> list[UUID]:
    """`each` messages to send in each of so many conversations, round after round; their ids in order."""
    people = [await make_conversation(conn, org) for _ in range(conversations)]
    names = "".join(f", {name}" for name in columns)
    values = "".join(f", '{value}'" for value in columns.values())
    rows = await conn.fetch(
        "insert into messages (organization_id, conversation_id, direction, status, content, source"
        f"{names}) select $1, c, 'OUTBOUND', 'PENDING', n::text, 'agent'{values}"
        " from generate_series(1, $3::int) n, unnest($2::uuid[]) c order by n returning id",
        org.id,
        people,
        each,
    )
    return [r["id"] for r in rows]


class Claimers:
    """Processes of claimer.py."""

    def __init__(self, database_url: str, rng: random.Random) -> None:
        self.database_url, self.rng = database_url, rng
        self.processes: list[asyncio.subprocess.Process] = []
        self.kills = 0

    async def start(self, **orders: Any) -> asyncio.subprocess.Process:
        name = f"claimer{len(self.processes)}"
        orders = {"database_url": self.database_url, "name": name, **orders}
        given = orjson.dumps(orders, default=str).decode()
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", "tests.fault.claimer", given,
            stdout=asyncio.subprocess.PIPE, cwd=ROOT, env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin"},
        )  # fmt: skip
        self.processes.append(process)
        return process

    async def ready(self) -> None:
        for process in self.alive:
            assert process.stdout is not None
            async with asyncio.timeout(30):
                assert await process.stdout.readline() == b"ready\n"

    @property
    def alive(self) -> list[asyncio.subprocess.Process]:
        return [p for p in self.processes if p.returncode is None]

    async def kill_one(self) -> None:
        """kill -9 of one that lives, and another one in its place."""
        victim = self.rng.choice(self.alive)
        victim.kill()
        await victim.wait()
        self.kills += 1

    async def stop(self) -> None:
        for process in self.alive:
            process.kill()
        await asyncio.gather(*(p.wait() for p in self.processes))


@pytest.fixture
async def claimers(database_url: str, seed: int) -> AsyncIterator[Claimers]:
    found = Claimers(database_url, random.Random(seed))
    yield found
    await found.stop()


@asynccontextmanager
async def reaping(db: Database, config: Settings) -> AsyncIterator[None]:
    """A reaper that looks ten times a second."""

    async def run() -> None:
        reaper = Reaper(db, config)
        while True:
            await reaper.reap()
            await asyncio.sleep(0.1)

    task = asyncio.create_task(run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()


@pytest.fixture
def config(database_url: str) -> Settings:
    return wa.settings(database_url)


async def is_empty(conn: asyncpg.Connection) -> bool:
    return bool(await conn.fetchval("select not exists (select from app.outbox)"))


async def test_Q01_every_row_is_settled_once_and_in_order_while_workers_are_killed(
    db: Database,
    config: Settings,
    superuser: asyncpg.Connection,
    claimers: Claimers,
    seed: int,
    figures: Figures,
    scaled: Scaled,
) -> None:
    """Four workers on no-op rows of a hundred conversations; kill -9 of a random one again and again."""
    orgs = [await make_org(superuser) for _ in range(20)]
    each = scaled(20, 500)
    for org in orgs:
        await queue_rows(superuser, org, 5, each)
    total = 100 * each
    began = time.monotonic()
    async with reaping(db, config):
        for _ in range(4):
            await claimers.start(hold_s=0.01)
        await claimers.ready()
        while claimers.kills < scaled(8, 100) and not await is_empty(superuser):
            await asyncio.sleep(claimers.rng.uniform(0.05, 0.3))
            await claimers.kill_one()
            await claimers.start(hold_s=0.01)
        await until(lambda: is_empty(superuser), 120, "the end of the queue")
    states = Counter(
        {
            (status, code): n
            for status, code, n in await superuser.fetch(
                "select status, failure_code, count(*) from messages group by 1, 2"
            )
        }
    )
    lost = states.pop(("FAILED", "lost_leases"), 0)
    assert states == {("SENT", None): total - lost}
    # only what was with three killed workers
    assert lost <= claimers.kills
    twice = await superuser.fetchval(
        "select count(*) from (select entity_id from app.events where 'message.sent' = any (names)"
        " group by 1 having count(*) > 1) x"
    )
    assert twice == 0
    order: dict[UUID, list[int]] = defaultdict(list)
    for conversation, conv_seq in await superuser.fetch(
        "select conversation_id, (payload #>> '{row,conv_seq}')::int from app.events"
        " where 'message.sent' = any (names) order by seq"
    ):
        order[conversation].append(conv_seq)
    assert all(seqs == sorted(seqs) for seqs in order.values())
    figures.note("rows", total)
    figures.note("kills", claimers.kills)
    figures.note("dead after three lost leases", lost)
    figures.note("rows a second", total / (time.monotonic() - began))


async def test_Q02_a_worker_without_its_heartbeats_loses_its_rows_and_writes_nothing(
    world: World, seed: int, figures: Figures
) -> None:
    """The database goes silent for one of two workers in the middle of its sends, and comes back."""
    parts = urlsplit(world.settings.database_url)
    assert parts.hostname is not None and parts.port is not None
    async with proxy_to(parts.hostname, parts.port) as proxy:
        address = parts.netloc.replace(f":{parts.port}", f":{proxy.port}")
        behind = urlunsplit(parts._replace(netloc=address))
        await world.sandbox.fault("slow", next=6, params={"seconds": 0.5})
        people = [f"2019{n:08d}" for n in range(6)]
        ids = [await world.queue(f"{n}", to=person) for n in range(4) for person in people]
        with capture_logs() as lines:
            async with world.worker(database_url=behind, provider_total_s=5.0):
                await until(lambda: sending(world), what="sends under way")
                proxy.up.silent = proxy.down.silent = True
                began = time.monotonic()
                async with world.worker(provider_total_s=5.0):
                    for id in ids:
                        await world.status(id, "SENT", "DELIVERED", "READ", timeout_s=40)
                    figures.within("all of it done by the other", time.monotonic() - began, 40.0)
                    # what the silent one claimed and could not note as being sent never left it
                    proxy.up.silent = proxy.down.silent = False
                    await until(
                        lambda: any(
                            n["event"] in ("send.fenced", "work.lease_lost", "send.lost") for n in lines
                        ),
                        40,
                        what="the writes of the silent one to be fenced",
                    )
                again = await world.queue("again")
                await world.status(again, "SENT", "DELIVERED", "READ", timeout_s=40)
    accepted = Counter(s["correlator"] for s in await world.sends())
    assert accepted == {str(id): 1 for id in [*ids, again]}
    figures.note("fenced", sum(n["event"] == "send.fenced" for n in lines))


async def sending(world: World) -> bool:
    n: int = await world.conn.fetchval("select count(*) from app.outbox where sending_at is not null")
    return n > 0


#: guarantees 7: min(2 s · 2^n, 10 min); provider sends 5 tries. Kept webhooks 5 s … 1 h, ten tries.
SEND_TABLE = [2, 4, 8, 16]
FAILURE_TABLE = [5, 15, 45, 135, 405, 1215, 3600, 3600, 3600]
OUTAGE_TABLE = [2, 4, 8, 16, 30, 30]


def test_Q03_the_waits_are_those_of_the_table(seed: int) -> None:
    """Each wait a thousand times."""
    random.seed(seed)
    tables: list[tuple[Callable[[int], float], list[int]]] = [
        (backoff_s, [*SEND_TABLE, 32, 64, 128, 256, 512, 600, 600]),
        (failure_s, FAILURE_TABLE),
        (outage_s, OUTAGE_TABLE),
    ]
    for wait, table in tables:
        for attempt, expected in enumerate(table, 1):
            found = [wait(attempt) for _ in range(1000)]
            assert 0.8 * expected <= min(found) < 0.85 * expected, (wait, attempt)
            assert 1.15 * expected < max(found) <= 1.2 * expected, (wait, attempt)
    assert (SEND_TRIES, FAILURE_TRIES) == (5, 10)


def claimed(attempts: int, age: timedelta = timedelta()) -> tuple[ClaimedSend, _Row]:
    send = ClaimedSend(
        uuid4(),
        uuid4(),
        uuid4(),
        1,
        attempts,
        uuid4(),
        "WHATSAPP_CLOUD",
        None,
        None,
        None,
        "",
        None,
        None,
        None,
    )
    return send, _Row(created_at=clock.now() - age)


async def test_Q03_what_each_answer_of_a_provider_leads_to(
    db: Database, config: Settings, seed: int, figures: Figures
) -> None:
    """Every verdict at every attempt: retried with the table's wait, held, failed or unknown."""
    async with aiohttp.ClientSession() as session:
        sender = Sender(db, config, session, "w")
        judge = sender._judge
        adapter = WhatsAppCloud()
        for attempt in range(1, 6):
            send, row = claimed(attempt)
            result = await judge(adapter, send, row, (), Retryable("131000", "later"))
            if attempt == 5:
                assert (result.outcome, result.code) == ("failed", "131000")
            else:
                assert result.outcome == "retry" and result.retry_in_s is not None
                assert 0.8 * SEND_TABLE[attempt - 1] <= result.retry_in_s <= 1.2 * SEND_TABLE[attempt - 1]
            # the provider's own wait counts when it is longer, its own limit of tries when it is lower
            result = await judge(adapter, send, row, (), Retryable("131057", "later", 300.0))
            assert attempt == 5 or result.retry_in_s == 300.0
            result = await judge(adapter, send, row, (), Retryable("2", "later", None, 2))
            assert result.outcome == ("retry" if attempt == 1 else "failed")
            for outcome, expected in (
                (Throttled(7.0, "130429", "slow down"), ("throttled", 7.0, 7.0)),
                (Throttled(7.0, "131056", "slow down", "recipient"), ("throttled", 7.0, None)),
                (Permanent("131026", "no"), ("failed", None, None)),
                (WindowClosed("131047", "no"), ("failed", None, None)),
                (AuthBroken("190", "no"), ("throttled", 60.0, 60.0)),
                (Unknown("?"), ("unknown", None, None)),
                (Accepted("wamid.x", ()), ("accepted", None, None)),
            ):
                result = await judge(adapter, send, row, (), outcome)
                assert (result.outcome, result.retry_in_s, result.hold_s) == expected, outcome
        send, row = claimed(1)
        assert send.channel_account_id is not None
        for n, expected_s in enumerate(OUTAGE_TABLE):
            sender._unreachable[send.channel_account_id] = (n, 0.0)  # so often, and its rest is over
            waits = []
            for _ in range(8):  # what fails together is one failure
                result = await judge(adapter, send, row, (), NotSent("refused"))
                assert result.outcome == "throttled" and result.hold_s == result.retry_in_s
                waits.append(result.retry_in_s)
            assert 0.8 * expected_s <= waits[0] <= 1.2 * expected_s
            assert all(waits[0] - 1 < wait <= waits[0] for wait in waits)
        send, row = claimed(1, timedelta(hours=7))
        assert (await judge(adapter, send, row, (), NotSent("refused"))).outcome == "failed"


async def test_Q03_attempts_are_counted_exactly_and_dead_rows_are_listed(
    db: Database, config: Settings, superuser: asyncpg.Connection, seed: int
) -> None:
    """Rows that always fail, fail k times, are throttled and released; a kept webhook that stays broken."""
    org = await make_org(superuser)
    [id] = await queue_rows(superuser, org, 1, 1)

    async def one(**result: Any) -> asyncpg.Record | None:
        token = uuid4()
        await superuser.execute("update app.outbox set due_at = clock_timestamp() - interval '1 s'")
        async with db.connection("worker") as conn:
            [row] = await conn.fetch("select * from app.claim_sends($1, 'w', 20, '30 s')", token)
            results = orjson.dumps([{"message_id": str(id), **result}]).decode()
            await conn.fetch("select app.settle_sends($1, $2)", token, results)
        box: asyncpg.Record | None = await superuser.fetchrow(
            "select state, attempts, last_error,"
            " extract(epoch from due_at - clock_timestamp())::float8 as wait_s from app.outbox"
        )
        assert box is None or row["attempts"] == box["attempts"] + (result["outcome"] != "retry")
        return box

    for n in range(1, 4):
        box = await one(outcome="retry", reason=f"failure {n}", retry_in_s=2.0**n)
        assert box is not None and (box["state"], box["attempts"], box["last_error"]) == (
            "available",
            n,
            f"failure {n}",
        )
        assert 2.0**n - 1 < box["wait_s"] <= 2.0**n
        for outcome in ("throttled", "released"):
            box = await one(outcome=outcome, retry_in_s=9.0)
            assert box is not None and box["attempts"] == n, "costs no try"
    assert await one(outcome="failed", code="131000", reason="The provider refused it") is None
    row = await superuser.fetchrow("select status, failure_code, failure_reason from messages")
    assert tuple(row) == ("FAILED", "131000", "The provider refused it")
    # what is dead among the kept webhooks is listed for a person
    async with db.connection("ingest") as conn:
        await conn.fetch(
            "select app.keep_failure(null, 'WHATSAPP_CLOUD', null, 'undecodable', 'e', '{}', $1)", b"{"
        )
    failures = Failures(db, Ingest(db, config), "w")
    for n in range(1, FAILURE_TRIES + 1):
        await superuser.execute("update app.webhook_failures set due_at = now() - interval '1 s'")
        before = datetime.now(UTC)
        await failures.look_again()
        state, attempts, due_at = await superuser.fetchrow(
            "select state, attempts, due_at from app.webhook_failures"
        )
        assert (state, attempts) == ("available" if n < FAILURE_TRIES else "dead", n)
        if n < FAILURE_TRIES:
            wait = (due_at - before).total_seconds()
            assert 0.8 * FAILURE_TABLE[n - 1] <= wait <= 1.2 * FAILURE_TABLE[n - 1] + 5
    async with db.connection("ingest") as conn:
        listed = await conn.fetch("select state, attempts from app.list_all_failures(10)")
    assert [tuple(r) for r in listed] == [("dead", 10)]


async def test_Q04_a_row_that_kills_its_worker_is_dead_after_three_and_takes_nobody_along(
    db: Database,
    config: Settings,
    superuser: asyncpg.Connection,
    claimers: Claimers,
    seed: int,
    figures: Figures,
    scaled: Scaled,
) -> None:
    """A message whose claimer dies of it, first in line; its supervisor starts another each time."""
    orgs = [await make_org(superuser) for _ in range(10)]
    rates = []
    poison: UUID | None = None
    for round_ in range(2):
        ids = []
        if round_:
            [poison] = await queue_rows(superuser, orgs[0], 1, 1)
        for org in orgs:
            ids += await queue_rows(superuser, org, 5, scaled(30, 300))
        for _ in range(4):
            await claimers.start(hold_s=0.02, lease_s=1.0, poison=poison)
        died: list[int] = []

        async def supervise(died: list[int] = died, poison: UUID | None = poison) -> None:
            while True:
                for process in [p for p in claimers.processes if p.returncode is not None]:
                    claimers.processes.remove(process)
                    died.append(process.pid)
                    await claimers.start(hold_s=0.02, lease_s=1.0, poison=poison)
                await asyncio.sleep(0.02)

        await claimers.ready()
        began = time.monotonic()
        watch = asyncio.create_task(supervise())
        try:
            async with reaping(db, config):
                await until(
                    lambda ids=ids: superuser.fetchval(  # type: ignore[misc]
                        "select count(*) = $2 from messages where id = any ($1) and status = 'SENT'",
                        ids,
                        len(ids),
                    ),
                    scaled(60, 300),
                    "all the others",
                )
                rates.append(len(ids) / (time.monotonic() - began))
                await until(lambda: is_empty(superuser), 60, "the end of the queue")
        finally:
            watch.cancel()
            await asyncio.wait([watch])
            await claimers.stop()
            claimers.processes.clear()
        assert len(died) == (3 if round_ else 0)
    row = await superuser.fetchrow(
        "select status, failure_code, failure_reason from messages where id = $1", poison
    )
    assert tuple(row) == ("FAILED", "lost_leases", "Three workers died over this message.")
    figures.note("rows a second without and with it", f"{rates[0]:.0f}, {rates[1]:.0f}")
    figures.within("throughput lost", 100 * (1 - rates[1] / rates[0]), 20, "%")


@pytest.mark.parametrize("purpose", list(SIZES))
async def test_Q05_an_idle_transaction_of_ours_is_ended_after_ten_seconds(
    servers: Servers, seed: int, purpose: Purpose
) -> None:
    """The time-outs of every pool, as its connections have them; and one that runs out."""
    pool = Database(servers.database_url, (purpose,))
    await pool.open()
    async with pool.connection(purpose) as conn:
        shown = {
            name: await conn.fetchval(f"show {name}")
            for name in ("idle_in_transaction_session_timeout", "lock_timeout", "transaction_timeout")
        }
        assert shown == {
            "idle_in_transaction_session_timeout": "10s", "lock_timeout": "2s", "transaction_timeout": "30s",
        }  # fmt: skip
    with pytest.raises(Exception, match=r"went away|idle"):
        async with pool.connection(purpose) as conn:
            await conn.execute("set idle_in_transaction_session_timeout = '50ms'; begin")
            await until(lambda: conn.is_closed(), what="the end of the connection")
            await conn.execute("select 1")
    await pool.close()


async def live_delay(conn: asyncpg.Connection, org: Org, member: Member, db: Database, n: int) -> list[float]:
    """Seconds until a cursor sees each of n changes."""
    found = []
    for _ in range(n):
        head = await conn.fetchval("select max(seq) from app.events where organization_id = $1", org.id)
        began = time.monotonic()
        async with acting_as(db, member.principal()) as own:
            await own.execute("insert into contacts (first_name) values ('x')")
        above = "select count(*) from app.events where organization_id = $1 and seq > $2"
        await until(partial(conn.fetchval, above, org.id, head))
        found.append(time.monotonic() - began)
    return sorted(found)


@pytest.mark.parametrize("size", ["scaled", pytest.param("whole", marks=pytest.mark.nightly)])
async def test_Q05_an_old_snapshot_and_a_forgotten_writer_delay_nobody(
    servers: Servers,
    db: Database,
    config: Settings,
    superuser: asyncpg.Connection,
    claimers: Claimers,
    seed: int,
    figures: Figures,
    size: str,
) -> None:
    """A snapshot held here and a writing transaction left open in another database, while rows are worked."""
    whole = size == "whole"
    orgs = [await make_org(superuser) for _ in range(10)]
    member = await make_member(superuser, orgs[0])
    each = 1_000 if whole else 12

    async def work() -> float:
        for org in orgs:
            await queue_rows(superuser, org, 10, each)
        await claimers.start()
        await claimers.ready()
        began = time.monotonic()
        await until(lambda: is_empty(superuser), 900, "the end of the queue")
        rate = 100 * each / (time.monotonic() - began)
        await claimers.stop()
        claimers.processes.clear()
        return rate

    before_s = await live_delay(superuser, orgs[0], member, db, 40)
    clean = await work()
    reader = await asyncpg.connect(servers.migrate_url)
    elsewhere = await asyncpg.connect(servers.migrate_url.rsplit("/", 1)[0] + "/postgres")
    try:
        await reader.execute("begin isolation level repeatable read")
        await reader.fetch("select count(*) from messages")
        await elsewhere.execute("create temp table t (); begin; select pg_current_xact_id()")
        held = await work()
        if whole:
            await asyncio.sleep(600)
        after_s = await live_delay(superuser, orgs[0], member, db, 40)
    finally:
        await reader.close()
        await elsewhere.close()
    figures.note("median delay of an event (ms)", f"{before_s[20] * 1000:.1f}, {after_s[20] * 1000:.1f}")
    figures.within("delay of an event, times", after_s[20] / before_s[20], 1.2, "×")
    figures.within("claim rate lost", 100 * (1 - held / clean), 70, "%")
    figures.note("rows a second", f"{clean:.0f}, {held:.0f}")


async def test_Q06_a_big_queue_of_one_organization_delays_no_other(
    db: Database,
    config: Settings,
    superuser: asyncpg.Connection,
    claimers: Claimers,
    seed: int,
    figures: Figures,
    scaled: Scaled,
) -> None:
    """One organization queues thousands of messages, then ten others ten each."""
    big, *small = [await make_org(superuser) for _ in range(11)]
    rows = scaled(3_000, 50_000)
    await queue_rows(superuser, big, 100, rows // 100)
    for _ in range(2):
        await claimers.start(hold_s=0.02)
    await claimers.ready()
    async with reaping(db, config):
        mine = [id for org in small for id in await queue_rows(superuser, org, 5, 2)]
        began = time.monotonic()
        await until(
            lambda: superuser.fetchval(
                "select count(*) = $2 from messages where id = any ($1) and status = 'SENT'", mine, len(mine)
            ),
            60,
            "the ten",
        )
        figures.within("the ten done", time.monotonic() - began, 5.0)
        left = await superuser.fetchval("select count(*) from app.outbox where organization_id = $1", big.id)
        assert left > 0, "the big queue was not even there any more"
    figures.note("left of the big one", left)


async def test_Q06_an_agents_answer_goes_ahead_of_a_campaign(
    world: World, seed: int, figures: Figures, scaled: Scaled
) -> None:
    """A campaign waits by the hundred on the same number; an agent answers twenty customers meanwhile."""
    bulk = [
        await world.queue(f"bulk {n}", to=f"2018{n:08d}", source="campaign") for n in range(scaled(200, 2000))
    ]
    took = []
    async with world.worker():
        await until(lambda: sent_some(world), what="the campaign to run")
        for n in range(20):
            began = time.monotonic()
            id = await world.queue(f"answer {n}", to=LAYLA if n % 2 else OMAR)
            await world.status(id, "SENT", "DELIVERED", "READ", timeout_s=30)
            took.append(time.monotonic() - began)
        left = await world.conn.fetchval("select count(*) from app.outbox where is_bulk")
        for id in bulk:
            await world.status(id, "SENT", "DELIVERED", "READ", timeout_s=120)
    figures.within("slowest answer", max(took), 1.0)
    figures.note("campaign left when the answers were out", left)


async def sent_some(world: World) -> bool:
    n: int = await world.conn.fetchval("select count(*) from messages where status <> 'PENDING'")
    return n > 3


# ---- the event log under every kind of writer ------------------------------------------------------------


class Writers:
    """What each kind of writer does, on connections of its own, and how many changes it committed."""

    def __init__(self, servers: Servers, orgs: list[Org], members: list[Member], rng: random.Random) -> None:
        self.servers, self.orgs, self.members, self.rng = servers, orgs, members, rng
        self.committed = 0
        self.rolled_back = 0
        self.deadlocks = 0
        self.stop = asyncio.Event()

    def goes_wrong(self) -> bool:
        """5 % of the transactions roll back at their end."""
        return self.rng.random() < 0.05

    async def rest(self, db: Database) -> None:
        """As /rest/v1 writes: one statement in the caller's role."""
        while not self.stop.is_set():
            member = self.rng.choice(self.members)
            try:
                async with acting_as(db, member.principal()) as conn:
                    for _ in range(self.rng.randint(1, 3)):
                        await conn.execute("insert into contacts (first_name) values ('rest')")
                    if self.goes_wrong():
                        raise _Undo
            except _Undo:
                self.rolled_back += 1

    async def ingest(self, db: Database) -> None:
        """Batches over up to eight organizations."""
        n = 0
        while not self.stop.is_set():
            n += 1
            chosen = self.rng.sample(self.orgs, self.rng.randint(1, len(self.orgs)))
            items = [
                ingest_item(org, f"20{self.rng.randrange(30):03d}", content="in")
                for org in chosen
                for _ in range(self.rng.randint(1, 3))
            ]
            async with db.connection("ingest") as conn:
                for attempt in range(5):
                    try:
                        await conn.execute("begin")
                        await conn.fetch("select seq from app.ingest_many($1)", orjson.dumps(items).decode())
                        await conn.execute("rollback" if self.goes_wrong() else "commit")
                        break
                    except (asyncpg.SerializationError, asyncpg.UniqueViolationError):
                        await conn.execute("rollback")
                        assert attempt < 4

    async def work(self, db: Database) -> None:
        """A worker: claims and settles over all organizations."""
        while not self.stop.is_set():
            token = uuid4()
            async with db.connection("worker") as conn:
                rows = await conn.fetch("select * from app.claim_sends($1, 'w', 20, '30 s')", token)
                results = [
                    {
                        "message_id": str(r["message_id"]),
                        "outcome": self.rng.choice(("accepted", "accepted", "failed")),
                        "provider_message_id": f"w.{r['message_id']}",
                    }
                    for r in rows
                ]
                await conn.fetch("select app.settle_sends($1, $2)", token, orjson.dumps(results).decode())
            await asyncio.sleep(0.005)

    async def psql(self, conn: asyncpg.Connection) -> None:
        """A person at a prompt: several statements, savepoints, deletes, a send."""
        while not self.stop.is_set():
            org = self.rng.choice(self.orgs)
            try:
                async with conn.transaction():
                    task = await conn.fetchval(
                        "insert into tasks (organization_id, title) values ($1, 'psql') returning id", org.id
                    )
                    try:
                        async with conn.transaction():
                            await conn.execute(
                                "insert into notes (organization_id, content, contact_id)"
                                " select $1, 'n', id from contacts where organization_id = $1 limit 1",
                                org.id,
                            )
                            await conn.execute("update tasks set title = 'saved' where id = $1", task)
                            if self.rng.random() < 0.2:
                                raise _Undo
                    except _Undo:
                        pass
                    if self.rng.random() < 0.3:
                        await conn.execute(
                            "delete from tasks where organization_id = $1 and id = $2", org.id, task
                        )
                    if self.rng.random() < 0.3:
                        await conn.execute(
                            "insert into messages (organization_id, conversation_id, direction, status,"
                            " source) select $1, id, 'OUTBOUND', 'PENDING', 'agent' from conversations"
                            " where organization_id = $1 order by random() limit 1",
                            org.id,
                        )
                    if self.goes_wrong():
                        raise _Undo
            except _Undo:
                self.rolled_back += 1

    async def over_all(self, conn: asyncpg.Connection) -> None:
        """One statement over all organizations, as a clean-up does; the streams locked last, in one order."""
        while not self.stop.is_set():
            async with conn.transaction():
                await conn.execute(
                    "insert into tasks (organization_id, title)"
                    " select o, 'all' from unnest($1::uuid[]) o order by o",
                    [org.id for org in self.orgs],
                )
                await conn.execute("select app.lock_streams($1)", [org.id for org in self.orgs])
            await asyncio.sleep(0.01)


class _Undo(Exception):
    """Rolls a transaction back on purpose."""


AUDIT = """
create table public.changes_seen (organization_id uuid, table_name text, op text, entity_id uuid);
grant insert on public.changes_seen to public;
create function public.see() returns trigger language plpgsql security definer as $$
declare r jsonb := to_jsonb(coalesce(new, old));
begin
  insert into public.changes_seen values (coalesce(r ->> 'organization_id', r ->> 'id')::uuid, tg_table_name,
    tg_op, coalesce(r ->> 'id', r ->> 'user_id')::uuid);
  return null;
end $$;
do $$ declare t text; begin
  for t in select tgrelid::regclass::text from pg_trigger where tgname = 'emit' loop
    execute format('create trigger see after insert or update or delete on %s for each row'
                   ' execute function public.see()', t);
  end loop;
end $$;
"""


async def test_S06_every_cursor_sees_every_committed_change_once_and_in_order(
    servers: Servers,
    superuser: asyncpg.Connection,
    seed: int,
    figures: Figures,
    scaled: Scaled,
) -> None:
    """Sixteen writers (REST, ingest batches, workers, psql, one over all organizations) with rollbacks,
    savepoints and deletes; three readers each follow every organization with a cursor."""
    rng = random.Random(seed)
    orgs = [await make_org(superuser) for _ in range(8)]
    members = [await make_member(superuser, org) for org in orgs]
    for org in orgs:
        for _ in range(3):
            await make_conversation(superuser, org)
    # counted from here on, by a trigger that knows nothing of the log
    await superuser.execute(AUDIT)
    start = {
        r[0]: r[1]
        for r in await superuser.fetch("select organization_id, max(seq) from app.events group by 1")
    }
    wanted = scaled(10_000, 200_000)
    writers = Writers(servers, orgs, members, rng)
    db = Database(servers.database_url, ("api", "ingest", "worker", "live"))
    await db.open()
    prompts = [await asyncpg.connect(servers.migrate_url) for _ in range(5)]
    seen: list[dict[UUID, list[tuple[int, UUID]]]] = [{o.id: [] for o in orgs} for _ in range(3)]
    done = asyncio.Event()

    async def follow(mine: dict[UUID, list[tuple[int, UUID]]], luck: random.Random) -> None:
        conn = await asyncpg.connect(servers.migrate_url)
        cursors = {o.id: start.get(o.id, 0) for o in orgs}
        while True:
            last = done.is_set()
            for org in orgs:
                while page := await conn.fetch(
                    "select seq, id from app.events where organization_id = $1 and seq > $2"
                    " order by seq limit $3",
                    org.id,
                    cursors[org.id],
                    luck.choice((1, 7, 500)) if not last else 500,
                ):
                    mine[org.id] += [(r["seq"], r["id"]) for r in page]
                    cursors[org.id] = page[-1]["seq"]
            if last:
                break
            await asyncio.sleep(luck.uniform(0, 0.005))
        await conn.close()

    readers = [asyncio.create_task(follow(mine, random.Random(seed + n))) for n, mine in enumerate(seen)]
    tasks = [
        *(asyncio.create_task(writers.rest(db)) for _ in range(5)),
        *(asyncio.create_task(writers.ingest(db)) for _ in range(4)),
        *(asyncio.create_task(writers.work(db)) for _ in range(2)),
        *(asyncio.create_task(writers.psql(conn)) for conn in prompts[:4]),
        asyncio.create_task(writers.over_all(prompts[4])),
    ]
    assert len(tasks) == 16
    began = time.monotonic()

    async def enough() -> bool:
        for task in tasks:
            if task.done():
                task.result()  # a writer ended: by a deadlock, for one
        n: int = await superuser.fetchval("select count(*) from changes_seen")
        return n >= wanted

    try:
        await until(enough, 900, "enough changes")
    finally:
        writers.stop.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [r for r in results if r is not None] == []
    took = time.monotonic() - began
    done.set()
    await asyncio.gather(*readers)
    for conn in prompts:
        await conn.close()
    await db.close()
    changes = {
        tuple(r)[:4]: r[4]
        for r in await superuser.fetch(
            "select organization_id, table_name, op, entity_id, count(*) from changes_seen"
            " group by 1, 2, 3, 4"
        )
    }
    logged: Counter[tuple[Any, ...]] = Counter()
    ids: dict[UUID, list[tuple[int, UUID]]] = defaultdict(list)
    for org_id, seq, id, table, op, entity in await superuser.fetch(
        "select organization_id, seq, id, table_name, op, entity_id from app.events"
        " order by organization_id, seq"
    ):
        if seq > start.get(org_id, 0):
            logged[org_id, table, op, entity] += 1
            ids[org_id].append((seq, id))
    assert logged == changes
    for org in orgs:
        seqs = [seq for seq, _ in ids[org.id]]
        assert seqs == list(range(start.get(org.id, 0) + 1, start.get(org.id, 0) + 1 + len(seqs)))
        for reader in seen:
            assert reader[org.id] == ids[org.id], "a reader saw something else than the log holds"
    assert (
        await superuser.fetchval("select deadlocks from pg_stat_database where datname = current_database()")
        == 0
    )
    figures.note("changes", sum(changes.values()))
    figures.note("rolled back", writers.rolled_back)
    figures.note("events a second", sum(changes.values()) / took)


async def test_G04_a_deadlock_before_commit_is_run_again_and_nobody_notices(
    servers: Servers, db: Database, superuser: asyncpg.Connection, seed: int
) -> None:
    """Two callers update two rows in opposite order, again and again."""
    from hub.db.tenancy import in_turn

    org = await make_org(superuser)
    member = await make_member(superuser, org)
    one, two = [await make_contact(superuser, org) for _ in range(2)]
    both = asyncio.Barrier(2)
    runs = 0

    async def write(first: UUID, second: UUID) -> None:
        met = False

        async def work() -> None:
            nonlocal met, runs
            runs += 1
            async with acting_as(db, member.principal()) as conn:
                change = "update contacts set job_title = coalesce(job_title, '') || 'x' where id = $1"
                await conn.execute(change, first)
                if not met:  # both hold their first row before either asks for its second
                    met = True
                    await both.wait()
                await conn.execute(change, second)

        await in_turn(work)

    for _ in range(5):
        await asyncio.gather(write(one, two), write(two, one))
    titles = await superuser.fetch("select job_title from contacts where organization_id = $1", org.id)
    assert [r["job_title"] for r in titles] == ["x" * 10] * 2
    assert runs == 15, "each round one of the two was run again"


async def test_G04_a_connection_lost_before_commit_is_run_again_and_one_lost_at_it_is_not(
    servers: Servers, superuser: asyncpg.Connection, seed: int
) -> None:
    """The connection is reset before a statement, and at COMMIT without it having arrived."""
    from hub.db.tenancy import in_turn
    from hub.errors import Unavailable
    from tests.fakes.proxy import Cut

    org = await make_org(superuser)
    member = await make_member(superuser, org)
    parts = urlsplit(servers.database_url)
    assert parts.hostname is not None and parts.port is not None
    async with proxy_to(parts.hostname, parts.port) as proxy:
        address = parts.netloc.replace(f":{parts.port}", f":{proxy.port}")
        db = Database(urlunsplit(parts._replace(netloc=address)), ("api",))
        await db.open()
        runs = 0

        async def work() -> None:
            nonlocal runs
            runs += 1
            async with acting_as(db, member.principal()) as conn:
                await conn.execute("insert into contacts (first_name) values ('Once')")

        proxy.cut = Cut(rb"insert into contacts", delivered=False)
        await in_turn(work)
        assert (proxy.cuts, runs) == (1, 2)
        assert await superuser.fetchval("select count(*) from contacts") == 1
        proxy.cut = Cut(rb"commit\x00", delivered=False)
        with pytest.raises(Unavailable):
            await in_turn(work)
        assert (proxy.cuts, runs) == (2, 3)
        assert await superuser.fetchval("select count(*) from contacts") == 1
        await db.close()
