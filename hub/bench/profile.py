"""`hub bench ingest --profile`: where the time of the webhook path goes, in the hub (py-spy) and in Postgres
(track_functions and auto_explain)."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import time
from collections import Counter
from pathlib import Path

import asyncpg

from hub.bench import install
from hub.bench.figures import Report, Table, brief, percent
from hub.bench.ingest import CROWD, KNOWN, direct, load
from hub.bench.stage import Stage, stage

CONNECTIONS = 64
PLANS = {
    "track_functions": "all",
    "session_preload_libraries": "auto_explain",
    "auto_explain.log_min_duration": "0",
    "auto_explain.log_nested_statements": "on",
    "auto_explain.log_analyze": "on",
    "auto_explain.log_buffers": "on",
    "auto_explain.log_timing": "off",
    # sampled by the outermost statement: every twentieth batch is enough, and cheap
    "auto_explain.sample_rate": "0.05",
}


def run(folder: Path, seconds: float = 8.0) -> Report:
    """Load a hub at 64 connections and watch. The raw profile and Postgres' log stay in ``folder``.

    Raises install.NotInstalled without py-spy.
    """
    spy = install.python("profile").with_name("py-spy")
    folder.mkdir(parents=True, exist_ok=True)
    raw, plans = folder / "ingest-hub.txt", folder / "ingest-postgres.log"
    began = time.monotonic()
    with stage(20, PLANS) as s:
        asyncio.run(direct(s, KNOWN, "crowd"))
        hub = s.hub("hub")
        numbers = [o.phone_number_id for o in s.orgs]
        load(hub.port, numbers, CONNECTIONS, 1, KNOWN, 90, CROWD)
        asyncio.run(_execute(s, "select pg_stat_reset()"))
        # the plans of the load alone
        s.postgres.log.open("r+b").truncate()
        watching = subprocess.Popen(
            [
                str(spy), "record", "--pid", str(hub.pids[0]), "--duration", str(int(seconds)),
                "--rate", "400", "--gil", "--format", "raw", "--output", str(raw),
            ],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        got = load(hub.port, numbers, CONNECTIONS, seconds, KNOWN, 91, CROWD)
        _, said = watching.communicate(timeout=60)
        if watching.returncode:
            raise install.NotInstalled(f"py-spy cannot watch here: {said.strip()[-400:]}")
        functions = asyncio.run(_functions(s))
        shutil.copy(s.postgres.log, plans)
    messages = max(got["requests"], 1)
    return Report(
        "ingest, profiled",
        "hub bench ingest --profile",
        [_python(raw), _postgres(functions, messages), _plans(plans)],
        [],
        [
            f"{got['rate']:,.0f} webhooks/s at {CONNECTIONS} connections while being watched.",
            f"Stacks for a flame graph: {raw}; every plan of one batch in twenty: {plans}.",
        ],
        versions=install.versions("py-spy", environment="profile"),
        took_s=time.monotonic() - began,
    )


async def _execute(s: Stage, statement: str) -> None:
    conn = await asyncpg.connect(s.owner_dsn)
    await conn.execute(statement)
    await conn.close()


async def _functions(s: Stage) -> list[asyncpg.Record]:
    conn = await asyncpg.connect(s.owner_dsn)
    await conn.execute("select pg_stat_force_next_flush()")
    await asyncio.sleep(1.5)  # backends hand their counts over once a second
    rows: list[asyncpg.Record] = await conn.fetch(
        "select schemaname || '.' || funcname as name, calls, total_time, self_time"
        " from pg_stat_user_functions order by self_time desc limit 15"
    )
    await conn.close()
    return rows


def _python(raw: Path) -> Table:
    """The functions on top of the stack, and below it, by share of the samples."""
    own: Counter[str] = Counter()
    below: Counter[str] = Counter()
    total = 0
    for line in raw.read_text(encoding="utf-8").splitlines():
        stack, _, count = line.rpartition(" ")
        frames = [re.sub(r":\d+\)$", ")", frame) for frame in stack.split(";")]
        total += int(count)
        own[frames[-1]] += int(count)
        for frame in set(frames):
            below[frame] += int(count)
    rows = [
        [name, percent(count / total), percent(below[name] / total)] for name, count in own.most_common(20)
    ]
    return Table(
        "Hub: functions by samples that hold the interpreter", ["function", "itself", "with callees"], rows
    )


def _postgres(functions: list[asyncpg.Record], messages: int) -> Table:
    rows = [
        [
            row["name"], f"{row['calls']:,}", brief(row["self_time"] / messages * 1000),
            brief(row["total_time"] / messages * 1000),
        ]
        for row in functions
    ]  # fmt: skip
    return Table(
        "Postgres: functions by wall time (track_functions)",
        ["function", "calls", "itself, µs a message", "with callees"],
        rows,
        ["Functions that were inlined into their caller's statement are not listed."],
    )


def _plans(log: Path) -> Table:
    """Statements by the time that auto_explain saw, with the first words of each."""
    spent: Counter[str] = Counter()
    calls: Counter[str] = Counter()
    shown = re.compile(r"duration: ([\d.]+) ms {2}plan:\s+Query Text: (.{0,300})", re.S)
    for found in shown.finditer(log.read_text(encoding="utf-8", errors="replace")):
        text = " ".join(found[2].split())[:90]
        spent[text] += round(float(found[1]) * 1000)
        calls[text] += 1
    rows = [
        [text.replace("|", "/"), f"{calls[text]:,}", brief(us / 1000 / calls[text])]
        for text, us in spent.most_common(12)
    ]
    return Table(
        "Postgres: statements by wall time (auto_explain, one batch in twenty)",
        ["statement", "calls", "ms a call"],
        rows,
    )
