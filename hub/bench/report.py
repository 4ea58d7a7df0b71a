"""`hub bench all`: every benchmark, and docs/performance.md with what they found."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import tempfile
import textwrap
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import asyncpg

import hub
from hub.bench.figures import Report, goal_table, lines, markdown

HEAD = """\
# Performance

What the hot paths cost, beside a floor, the bare database and what others build the same with, measured
in one run. Written by `hub bench all --write docs/performance.md`; the words are in
`hub/bench/report.py`.

- Measured on {date}, commit {commit}, in {minutes:.0f} minutes.
- Machine: {machine}.
- {load}

## How to read it

Server, peers, databases and load client share the machine, so absolute figures say little about yours,
and on a machine with neighbours they swing by a factor of two. **Findings are ratios between rows of one
run**: every row is measured once a round, the rounds follow one another, a ratio is taken within a
round, and the tables show medians. CPU time (user and system, of the server's whole process tree, from
`/proc`) is steadier than throughput; regressions show there first.

Postgres runs with `fsync` and `synchronous_commit` on, from the same bundled server that `hub run` uses.
Counts are exact: what was acknowledged, stored, delivered or done is counted to the last one. Where the
load client was busy for 80 % of its time or more, its row is a lower bound and the table says so.

Each goal stands beside its figure, missed ones too.

## How to reproduce it

    hub bench all --write docs/performance.md     # everything, about a quarter of an hour
    hub bench ingest --rounds 5 --seconds 4       # one of them, longer
    hub bench fanout --no-peers                   # only what needs no installing

Peers are installed at run time into `<data dir>/bench-peers` (Python packages by uv or pip, JavaScript
ones by npm) and are no dependencies of the product. Each is a short program in `hub/bench/peers`; their
versions stand below each table. Close everything else first: on two cores a compiler in the background
halves every figure. On several cores give Postgres and the load client their own (`taskset`) if you want
absolute figures.

Small versions of all six run with the tests (`tests/integration/test_bench_*.py`): they assert counts
exactly and ratios of CPU time loosely, and never a duration.

### Profiles

`hub bench ingest --profile` loads a hub at 64 connections, samples it with py-spy, and prints where the
time goes in Python and in Postgres: `track_functions` counts time by SQL function, `auto_explain` writes
the plans of one batch in twenty. The stacks and the plans stay in `<data dir>/bench-profile`.
"""

SECTIONS = {
    "ingest": (
        "Ingest: webhook to 200",
        "A signed WhatsApp webhook with one text message, ~500 bytes, is posted over keep-alive "
        "connections; the answer comes after the commit. The floor reads, checks the HMAC and decodes, "
        "and keeps nothing. The peers do the product's work under its schema, its login and its row "
        "security, without its batching: one call of the same SQL function a request, or a transaction "
        "of separate statements. 20,000 customers of 20 organizations have written before, unless the "
        "row says otherwise.",
    ),
    "fanout": (
        "Fan-out: Redis to websockets",
        "1,000 sessions of one organization, then of a hundred; frames of some 400 bytes. Everybody gets "
        "the same frames. The hub's are events of its log, committed before they are published, which it "
        "orders and checks against the log; its sessions are signed in. The floor is Python without any "
        "framework: uvloop, hiredis, frames encoded once and joined.",
    ),
    "latency": (
        "Latency: commit to screen",
        "One customer's message is stored and its two events reach ten sessions. Compared with the "
        "commit's own time, with bare sockets behind Redis, with NOTIFY and with asking the log.",
    ),
    "queue": (
        "Work queues",
        "Jobs that do nothing, enqueued in bulk and drained to the last one, so that what is left is the "
        "cost of the queue.",
    ),
    "rest": (
        "REST",
        "A list of 100 contacts, all columns, newest first, and the insert of one contact that returns "
        "its row.",
    ),
    "auth": (
        "Sign-in",
        "Signing in with a password beside the two threads of argon2 that it waits for; checking an access "
        "token that came before, comes first, or is checked by the library alone each time; and how long "
        "somebody goes on at one hub whose sign-in ended at another.",
    ),
}


def commit() -> str:
    """Short hash of the checkout, "changed" when it has uncommitted changes; the version elsewhere."""
    root = Path(hub.__file__).parents[1]
    found = subprocess.run(
        ["git", "-C", str(root), "describe", "--always", "--dirty=, with uncommitted changes", "--abbrev=10"],
        capture_output=True,
        text=True,
        check=False,
    )
    return found.stdout.strip() if found.returncode == 0 else f"of version {hub.__version__}"


def machine() -> str:
    """Processor, cores, memory, kernel, versions, and what a flush to its disk takes."""
    info = Path("/proc/cpuinfo")
    names = [
        line.partition(":")[2].strip()
        for line in (info.read_text() if info.exists() else "").splitlines()
        if line.startswith("model name")
    ]
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{os.cpu_count()} × {names[0] if names else platform.machine()}, {gib:.0f} GiB, "
        f"{platform.system()} {platform.release()}, Python {platform.python_version()}, asyncpg "
        f"{asyncpg.__version__}; fdatasync of one block {flush_ms():.2g} ms"
    )


def flush_ms(times: int = 50) -> float:
    """Median of writing 8 KiB and flushing it, where temporary files live."""
    with tempfile.TemporaryFile() as file:
        found = []
        for _ in range(times):
            file.seek(0)
            file.write(b"x" * 8192)
            file.flush()
            began = time.perf_counter()
            os.fdatasync(file.fileno())
            found.append(time.perf_counter() - began)
    return statistics.median(found) * 1000


def page(reports: Sequence[Report], load_before: float) -> str:
    """The whole of docs/performance.md."""
    cores = os.cpu_count() or 1
    quiet = load_before < 0.25 * cores
    head = HEAD.format(
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        commit=commit(),
        minutes=sum(r.took_s for r in reports) / 60,
        machine=machine(),
        load=(
            f"Load average when it began: {load_before:.2f}, "
            + ("a quiet machine." if quiet else "**not a quiet machine**: read ratios only, and with care.")
        ),
    )
    parts = [head]
    goals = [goal for report in reports for goal in report.goals]
    met = sum(goal.met is True for goal in goals)
    missed = [goal for goal in goals if goal.met is False]
    parts.append(f"## Summary\n\n{met} of {len(goals)} goals met." + (" Missed:\n" if missed else "\n"))
    if missed:
        parts.append("\n".join(lines(goal_table(missed))) + "\n")
    for report in reports:
        title, words = SECTIONS[report.name]
        parts.append(f"## {title}\n\n{textwrap.fill(words, 110)}\n\n{markdown(report)}")
    return "\n".join(parts)
