"""`hub bench queue`: jobs that do nothing, enqueued in bulk and drained, by our queues and by others.

Each row is a program of its own (hub/bench/peers) that prints {"jobs", "done", "enqueue_s", "drain_s",
"cpu_s"}.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any
from uuid import uuid4

import msgspec

from hub.bench import install
from hub.bench.figures import Goal, Report, Rounds, say
from hub.bench.stage import Stage, foreign_environment, postgres_cpu_s, stage

CASE = "no-op jobs"
SET = "jobs table, claim 500 × 2 connections"
SMALL = "jobs table, claim 50 × 4"
ONE = "jobs table, claim 1 × 8"
OUTBOX = "outbox: claim 20, mark, settle × 2"
PGQUEUER = ("pgqueuer, batch 10", "pgqueuer, batch 200")
PROCRASTINATE = ("procrastinate, concurrency 1", "procrastinate, concurrency 16")
ARQ = ("arq, max_jobs 10", "arq, max_jobs 100")
CELERY = "Celery on Redis, prefork 2"


class Way(msgspec.Struct, frozen=True):
    """One row: how many jobs are worth about a second, and how the program is started."""

    jobs: int
    options: dict[str, Any]
    argv: Callable[[], list[str]]
    database: str = "bench"


def _ours() -> list[str]:
    return [sys.executable, "-P", "-m", "hub.bench.peers.jobs"]


def _peer(name: str, environment: str) -> Callable[[], list[str]]:
    return lambda: install.program(name, environment)


WAYS: dict[str, Way] = {
    SET: Way(50_000, {"mode": "jobs", "batch": 500, "connections": 2}, _ours),
    SMALL: Way(30_000, {"mode": "jobs", "batch": 50, "connections": 4}, _ours),
    ONE: Way(4_000, {"mode": "jobs", "batch": 1, "connections": 8}, _ours),
    OUTBOX: Way(2_000, {"mode": "outbox", "batch": 20, "connections": 2}, _ours),
    PGQUEUER[0]: Way(2_500, {"batch": 10}, _peer("jobs_pgqueuer", "queues"), "pgqueuer"),
    PGQUEUER[1]: Way(8_000, {"batch": 200}, _peer("jobs_pgqueuer", "queues"), "pgqueuer"),
    PROCRASTINATE[0]: Way(400, {"batch": 1}, _peer("jobs_procrastinate", "queues"), "procrastinate"),
    PROCRASTINATE[1]: Way(500, {"batch": 16}, _peer("jobs_procrastinate", "queues"), "procrastinate"),
    ARQ[0]: Way(1_500, {"batch": 10}, _peer("jobs_arq", "arq")),
    ARQ[1]: Way(1_500, {"batch": 100}, _peer("jobs_arq", "arq")),
    CELERY: Way(1_000, {"batch": 2}, _peer("jobs_celery", "queues")),
}
OURS = (SET, SMALL, ONE, OUTBOX)


def measure(s: Stage, way: Way, jobs: int | None = None) -> dict[str, float]:
    """One round of one row. Raises RuntimeError when the program fails."""
    options = {
        **way.options,
        "jobs": jobs or way.jobs,
        "dsn": s.dsn if way.database == "bench" else s.postgres.dsn_for(way.database),
        "owner": s.owner_dsn,
        "redis": s.valkey.url,
        "queue": f"q{uuid4().hex}",
    }
    environment = None if way.argv is _ours else foreign_environment()
    used = postgres_cpu_s(s)
    done = subprocess.run(
        [*way.argv(), json.dumps(options)], capture_output=True, text=True, check=False, env=environment
    )
    if done.returncode:
        raise RuntimeError(f"{way.argv()[-1]} failed: {done.stderr.strip()[-1500:]}")
    postgres = postgres_cpu_s(s) - used
    got = json.loads(done.stdout.splitlines()[-1])
    return {
        "enqueue_s": got["jobs"] / got["enqueue_s"],
        "drain_s": got["done"] / got["drain_s"],
        "end_s": got["done"] / (got["enqueue_s"] + got["drain_s"]),
        "worker_us": got["cpu_s"] / got["jobs"] * 1e6,
        "pg_us": postgres / got["jobs"] * 1e6,
        "lost": got["jobs"] - got["done"],
    }


def run(
    seconds: float = 1.0,
    rounds: int = 3,
    names: Sequence[str] | None = None,
    backlogs: Sequence[int] = (5_000, 100_000),
    peers: bool = True,
) -> Report:
    """All rows round after round. ``seconds``: about how long a row takes, by the number of its jobs."""
    names = names or (tuple(WAYS) if peers else OURS)
    if peers:
        install.python("queues")
        install.python("arq")
    found = Rounds()
    with stage(20) as s:
        for database in {WAYS[name].database for name in names} - {"bench"}:
            s.postgres.ensure_database(database)
        for n in range(rounds):
            say(f"Round {n + 1} of {rounds}")
            for name in names:
                found.add(CASE, name, measure(s, WAYS[name], max(100, int(WAYS[name].jobs * seconds))))
        drains = [measure(s, WAYS[SET], jobs)["drain_s"] for jobs in backlogs]
    columns = [
        ("enqueue_s", "enqueued/s"), ("drain_s", "drained/s"), ("end_s", "end to end/s"),
        ("worker_us", "worker µs"), ("pg_us", "Postgres µs"), ("lost", "lost"),
    ]  # fmt: skip
    report = Report(
        "queue",
        f"hub bench queue --rounds {rounds} --seconds {seconds:g}",
        [
            found.table(
                f"Jobs that do nothing, medians of {rounds} rounds",
                columns,
                [
                    "Microseconds are CPU time a job; the worker's include starting its program. The rows of "
                    "the outbox are whole sends without the provider: a message with its place, status and "
                    "events, at most eight at once an organization."
                ],
            )
        ],
        _goals(found, drains, backlogs),
        [
            "arq's and Celery's queues live in Redis and cannot be part of the transaction that caused the "
            "job, which rules them out for us whatever they cost.",
            "Claims are set-based statements over the product's own tables; deleting the last batch and "
            "claiming the next is one statement and one commit.",
        ],
    )
    report.figures = found.medians()
    if peers:
        report.versions = {
            **install.versions("pgqueuer", "procrastinate", "celery", environment="queues"),
            **install.versions("arq", environment="arq"),
        }
    return report


def _goals(found: Rounds, drains: Sequence[float], backlogs: Sequence[int]) -> list[Goal]:
    best = (CASE, SET)

    def times(text: str, of: tuple[str, str], peers: Sequence[str], bound: float) -> Goal:
        """Against the fastest of a peer's rows."""
        ratios = [r for p in peers if (r := found.ratio("end_s", of, (CASE, p))) is not None]
        return Goal(text, min(ratios) if ratios else None, bound)

    goals = [
        times("Claim 500, end to end, to pgqueuer's best", best, PGQUEUER, 4),
        times("Claim 500, end to end, to arq's best", best, ARQ, 25),
        times("Claim 500, end to end, to Celery", best, (CELERY,), 50),
        times("Claim 500, end to end, to procrastinate's best", best, PROCRASTINATE, 50),
        times("Claims of one, end to end, to arq's best", (CASE, ONE), ARQ, 2),
        Goal("Enqueued/s, 5,000 a statement", found.median(CASE, SET, "enqueue_s"), 40_000, unit=""),
        Goal(
            f"Drained/s with {backlogs[-1]:,} pending to {backlogs[0]:,}", drains[-1] / drains[0], 0.7
        ),
        Goal("Jobs of ours lost", found.total("lost", OURS), 0, True, ""),
    ]  # fmt: skip
    return [goal for goal in goals if goal.measured is not None]
