"""`hub bench ingest`: webhook → commit → 200, beside the HTTP work floor (read, HMAC, decode, 200), beside
the same work done one function call or one statement at a time, and beside the bare database."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

import asyncpg

from hub.bench import install
from hub.bench.figures import Goal, Report, Rounds, brief, quantile, say
from hub.bench.http_load import sender_number
from hub.bench.stage import APP_SECRET, Runner, Stage, postgres_cpu_s, stage, wait_ready
from hub.db.embedded import free_port

PATH = "/functions/v1/whatsapp-cloud-webhook"
#: Customers who have written before: enough that no table is small.
KNOWN = 20_000
CROWD = 10
BATCH = 200

WORK = "aiohttp: HTTP work, no database"
NO_OP = "aiohttp: no work at all"
STATEMENTS = "aiohttp, separate statements"
FUNCTION = "aiohttp, one function call a request"
FASTAPI = "FastAPI: HTTP work, no database"
FASTAPI_FUNCTION = "FastAPI, one function call a request"
HUB = "hub"
HUBS = "2 hubs, one port"
NEW = "hub, every sender new"
DIRECT = "Postgres alone, ingest_many of 200"

#: Nobody keeps what these are told.
FLOORS = (WORK, NO_OP, FASTAPI)
#: Who runs at which number of connections.
PLAN: dict[int, tuple[str, ...]] = {
    1: (WORK, FUNCTION, HUB),
    64: (WORK, STATEMENTS, FUNCTION, FASTAPI_FUNCTION, HUB, HUBS),
    256: (NO_OP, WORK, FASTAPI, HUB, HUBS, NEW),
}

_prefixes = count(100)


def load(
    port: int,
    numbers: list[str],
    connections: int,
    seconds: float,
    senders: int,
    prefix: int,
    crowd: int | None = None,
    repeat: int = 1,
    again: bool = False,
) -> dict[str, Any]:
    """One run of the load client against whoever listens on ``port``."""
    job = {
        "port": port, "path": PATH, "secret": APP_SECRET, "numbers": numbers,
        "connections": connections, "seconds": seconds, "senders": senders,
        "count": int(15_000 * seconds), "prefix": prefix,
        "crowd": prefix if crowd is None else crowd, "repeat": repeat, "again": again,
    }  # fmt: skip
    return load_with(job)


def load_with(job: dict[str, Any]) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "hub.bench.http_load"],
        input=json.dumps(job).encode(),
        capture_output=True,
        check=True,
    )
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def items_of(s: Stage, first: int, size: int, prefix: str, senders: int = KNOWN) -> str:
    """A batch for ingest_many: messages ``first`` … of the known crowd."""
    return json.dumps(
        [
            {
                "n": n, "organization_id": str(org.id), "channel_account_id": str(org.account_id),
                "dedupe_key": f"wamid.{prefix}.{n}", "schemes": ["wa_id"],
                "ids": [sender_number(CROWD, n % senders)], "name": "Mona Hassan", "direction": "INBOUND",
                "content": f"Message number {n} of the benchmark, about as long as people write.",
                "message_type": "text", "metadata": {}, "occurred_at": "2026-01-01T00:00:00Z",
                "reply_to": None, "source": "customer",
            }
            for n in range(first, first + size)
            for org in (s.orgs[n % senders % len(s.orgs)],)
        ]
    )  # fmt: skip


async def direct(s: Stage, messages: int, prefix: str) -> list[dict[str, float]]:
    """``messages`` through ingest_many in batches of 200 on two connections, nothing else; one set of figures
    for each quarter."""
    conns = [await asyncpg.connect(s.dsn) for _ in range(2)]
    quarters, first = [], 0
    for _ in range(4):
        batches = [
            items_of(s, first + n * BATCH, BATCH, prefix) for n in range(max(2, messages // 4 // BATCH))
        ]
        first += len(batches) * BATCH
        todo = iter(batches)
        times: list[float] = []

        async def work(
            conn: asyncpg.Connection[asyncpg.Record], todo: Any = todo, times: list[float] = times
        ) -> None:
            for batch in todo:
                began = time.perf_counter()
                await conn.fetch("select * from app.ingest_many($1)", batch)
                times.append(time.perf_counter() - began)

        used, began = postgres_cpu_s(s), time.perf_counter()
        await asyncio.gather(*(work(conn) for conn in conns))
        took, size = time.perf_counter() - began, len(batches) * BATCH
        times.sort()
        quarters.append(
            {
                "rate": size / took,
                "p50_ms": quantile(times, 0.5) * 1000,
                "p99_ms": quantile(times, 0.99) * 1000,
                "pg_us": (postgres_cpu_s(s) - used) / size * 1e6,
            }
        )
    for conn in conns:
        await conn.close()
    return quarters


async def stored(s: Stage, prefix: int) -> int:
    conn = await asyncpg.connect(s.owner_dsn)
    found: int = await conn.fetchval(
        "select count(*) from messages where provider_message_id like $1", f"wamid.{prefix}.%"
    )
    await conn.close()
    return found


async def faults(s: Stage) -> dict[str, int]:
    """What must not be there: contacts nobody can reach, conversations without a message, numbers missing in
    an organization's event log, messages whose creation the log does not tell once."""
    conn = await asyncpg.connect(s.owner_dsn)
    row = await conn.fetchrow(
        """
        select (select count(*) from contacts c where not exists (
                  select from contact_identities i
                   where i.organization_id = c.organization_id and i.contact_id = c.id)) as orphans,
               (select count(*) from conversations c where not exists (
                  select from messages m
                   where m.organization_id = c.organization_id and m.conversation_id = c.id)) as empty,
               (select coalesce(sum(top - n), 0)::bigint from (
                  select max(seq) as top, count(*) as n from app.events group by organization_id) e) as gaps,
               (select abs((select count(*) from messages)
                     - (select count(*) from app.events
                         where table_name = 'messages' and op = 'INSERT'))) as untold
        """
    )
    await conn.close()
    assert row is not None
    return dict(row)


def run(
    seconds: float = 2.0,
    rounds: int = 3,
    organizations: int = 20,
    plan: Mapping[int, Sequence[str]] | None = None,
    known: int = KNOWN,
    peers: bool = True,
) -> Report:
    """Floor, peers and product, round after round. ``peers``: also those that must be installed first."""
    plan = {int(c): tuple(rows) for c, rows in (plan or PLAN).items()}
    if not peers:
        plan = {c: tuple(r for r in rows if not r.startswith("FastAPI")) for c, rows in plan.items()}
    wanted = {row for rows in plan.values() for row in rows}
    if peers:
        install.python("web")
    found = Rounds()
    notes: list[str] = []
    counted = {"lost": 0, "duplicates": 0}
    with stage(organizations) as s:
        # the database is new, empty and unanalyzed: this is when plans go wrong
        quarters = asyncio.run(direct(s, known, "crowd"))
        growth = quarters[-1]["pg_us"] / quarters[0]["pg_us"]
        runners = _runners(s, wanted)
        numbers = [o.phone_number_id for o in s.orgs]
        for runner in runners.values():  # connections, caches
            load(runner.port, numbers, 16, 0.5, known, next(_prefixes), CROWD)
        clean = asyncio.run(faults(s))
        for n in range(rounds):
            say(f"Round {n + 1} of {rounds}")
            asyncio.run(_measure_direct(s, found, n))
            for connections, rows in plan.items():
                for row in rows:
                    runner = runners[HUB if row == NEW else row]
                    before = asyncio.run(faults(s)) if row == STATEMENTS else {}
                    prefix = next(_prefixes)
                    server, postgres = runner.cpu_s(), postgres_cpu_s(s)
                    got = load(
                        runner.port, numbers, connections, seconds, 0 if row == NEW else known, prefix,
                        prefix if row == NEW else CROWD, again=row in FLOORS,
                    )  # fmt: skip
                    each = 1e6 / max(got["requests"], 1)
                    figures = {
                        "rate": got["rate"],
                        "p50_ms": got["p50_ms"],
                        "p99_ms": got["p99_ms"],
                        "server_us": (runner.cpu_s() - server) * each,
                        "client": got["cpu_share"],
                    }
                    if row not in FLOORS:
                        figures["pg_us"] = (postgres_cpu_s(s) - postgres) * each
                    good = got["statuses"].get("200", 0)
                    figures["refused"] = got["requests"] - good
                    if row in (HUB, HUBS, NEW):
                        assert good == got["requests"], (got["statuses"], got["refusal"])
                        counted["lost"] += max(0, good - asyncio.run(stored(s, prefix)))
                    if row == STATEMENTS:
                        after = asyncio.run(faults(s))
                        figures["orphans"] = after["orphans"] - before["orphans"]
                    found.add(f"{connections} connections", row, figures)
        ended = {name: value - clean[name] for name, value in asyncio.run(faults(s)).items()}
        if HUB in wanted:
            ended = asyncio.run(_replay(s, runners[HUB], numbers, seconds, counted, ended, found))
    notes.append(
        f"Counts over all rounds of the hub: {counted['lost']} acknowledged and not stored, "
        f"{counted['duplicates']} stored twice while 64 connections sent every message twice at once, "
        f"{ended['orphans']} contacts without an identity, {ended['empty']} conversations without a message, "
        f"{ended['gaps']} numbers missing in event logs, {ended['untold']} messages the log does not tell."
    )
    notes.append(
        f"A new and never analyzed database: the last quarter of {known:,} messages of new customers took "
        f"{brief(growth)}× the Postgres CPU of the first."
    )
    notes.append(
        "Two hubs share the two cores with Postgres and the load client here, so their row says that nothing "
        "breaks, not how far more cores would carry."
    )
    together = _together(found)
    if together is not None:
        notes.append(together)
    columns = [
        ("rate", "requests/s"), ("p50_ms", "p50 ms"), ("p99_ms", "p99 ms"), ("server_us", "server µs"),
        ("pg_us", "Postgres µs"), ("refused", "refused"), ("client", "client CPU"),
    ]  # fmt: skip
    report = Report(
        "ingest",
        f"hub bench ingest --rounds {rounds} --seconds {seconds:g}",
        [
            found.table(
                f"Webhook to 200, medians of {rounds} rounds of {seconds:g} s",
                columns,
                ["Microseconds are CPU time a request; in the row of Postgres alone, a message."],
            )
        ],
        [],
        notes,
        figures=found.medians(),
        versions=install.versions("fastapi", "uvicorn") if peers else {},
    )
    report.goals = _goals(found, {**ended, **counted}, growth)
    return report


def _together(found: Rounds) -> str | None:
    """The hub and its Postgres against both floors added, and what these cores could carry at those floors;
    None when a row is missing."""
    at256 = "256 connections"
    rows = [(at256, HUB, "server_us"), (at256, HUB, "pg_us"), (at256, WORK, "server_us")]
    rows += [("2 connections", DIRECT, "pg_us"), (at256, HUB, "client"), (at256, HUB, "rate")]
    figures = [found.median(*row) for row in rows]
    floor_rate = found.median(at256, WORK, "rate")
    if None in figures or not floor_rate:
        return None
    hub, postgres, work, direct, client, rate = (figure or 0.0 for figure in figures)
    cores = os.cpu_count() or 1
    most = cores * 1e6 / (work + direct + client / rate * 1e6)
    return (
        f"256 connections: hub and Postgres together take {brief((hub + postgres) / (work + direct))}× the "
        f"CPU of the HTTP work floor and ingest_many of 200 added. The floor has a core to itself, the hub "
        f"shares {cores} with Postgres and the client: at the floors' own cost they would carry {most:,.0f} "
        f"messages/s, {brief(most / floor_rate)} of the floor's rate; no more than that can be had here."
    )


def _runners(s: Stage, wanted: set[str]) -> dict[str, Runner]:
    runners: dict[str, Runner] = {}
    options = {
        "secret": APP_SECRET,
        "dsn": s.dsn,
        "accounts": [[o.phone_number_id, str(o.id), str(o.account_id)] for o in s.orgs],
    }
    for name, mode in ((NO_OP, "no-op"), (FUNCTION, "function"), (STATEMENTS, "statements")):
        if name in wanted:
            runners[name] = s.peer(name, "webhooks", {**options, "mode": mode})
    if WORK in wanted:
        port = free_port()
        child = s.start("-m", "hub.bench.floor", port=port)
        wait_ready(f"http://127.0.0.1:{port}/", child, s.folder / f"{port}.log")
        runners[WORK] = Runner(WORK, port, (child.pid,))
    for name, mode in ((FASTAPI, "work"), (FASTAPI_FUNCTION, "function")):
        if name in wanted:
            runners[name] = s.foreign(name, install.program("webhooks_fastapi"), {**options, "mode": mode})
    if wanted & {HUB, NEW}:
        runners[HUB] = s.hub(HUB)
    if HUBS in wanted:
        runners[HUBS] = s.hub(HUBS, 2)
    return runners


async def _measure_direct(s: Stage, found: Rounds, round_: int) -> None:
    parts = await direct(s, 8 * BATCH, f"direct{round_}")
    names = ("rate", "p50_ms", "p99_ms", "pg_us")
    found.add("2 connections", DIRECT, {k: sum(p[k] for p in parts) / len(parts) for k in names})


async def _replay(
    s: Stage,
    hub: Runner,
    numbers: list[str],
    seconds: float,
    counted: dict[str, int],
    ended: dict[str, int],
    found: Rounds,
) -> dict[str, int]:
    """Every message twice in a row on 64 connections, half of the senders new: one row each, and nothing left
    over."""
    before = await faults(s)
    for crowd, senders in ((CROWD, KNOWN), (None, 0)):
        prefix = next(_prefixes)
        got = await asyncio.to_thread(load, hub.port, numbers, 64, seconds / 2, senders, prefix, crowd, 2)
        assert set(got["statuses"]) == {"200"}, (got["statuses"], got["refusal"])
        rows = await stored(s, prefix)
        # an odd number of requests leaves the last message with one delivery only
        sent = (got["requests"] + 1) // 2
        counted["duplicates"] += max(0, rows - sent)
        counted["lost"] += max(0, sent - rows)
    after = await faults(s)
    return {name: ended[name] + after[name] - before[name] for name in after}


def _goals(found: Rounds, counts: dict[str, int], growth: float) -> list[Goal]:
    at1, at64, at256 = "1 connections", "64 connections", "256 connections"
    hub, busy, direct = (at64, HUB), (at256, HUB), ("2 connections", DIRECT)
    floor = (at256, WORK)
    return [
        found.goal("64 connections: rate to separate statements", "rate", hub, (at64, STATEMENTS), 3),
        found.goal("64 connections: rate to one function call a request", "rate", hub, (at64, FUNCTION), 2),
        found.goal("256 connections: rate to the HTTP work floor, known senders", "rate", busy, floor, 0.45),
        found.goal("256 connections: the same, every sender new", "rate", (at256, NEW), floor, 0.35),
        found.goal("256 connections: hub CPU to that floor's", "server_us", busy, floor, 1.5, at_most=True),
        found.goal(
            "256 connections: Postgres CPU a message to ingest_many of 200",
            "pg_us", busy, direct, 1.5, at_most=True,
        ),
        found.goal(
            "1 connection: p50 to one function call a request",
            "p50_ms", (at1, HUB), (at1, FUNCTION), 1.2, at_most=True,
        ),
        found.goal(
            "64 connections: p99 to one function call a request",
            "p99_ms", hub, (at64, FUNCTION), 0.5, at_most=True,
        ),
        Goal("New database: Postgres CPU a message, last quarter to first", growth, 1.5, True),
        Goal("Lost, stored twice, orphans, gaps, untold", float(sum(counts.values())), 0, True, ""),
    ]  # fmt: skip
