"""The benchmarks in small, each as a program of its own: counts exactly, and how CPU time compares, loosely
(half of what docs/performance.md wants). Nothing here says how long something takes."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from typing import Any

import msgspec
import pytest

from hub.bench import auth, fanout, ingest, latency, queues, rest
from hub.bench.figures import Report

_RUN = """
import importlib, json, pathlib, sys
import msgspec
from hub.bench import install
install.set_cache(pathlib.Path(sys.argv[3]))
found = importlib.import_module("hub.bench." + sys.argv[1]).run(**json.loads(sys.argv[2]))
sys.stdout.buffer.write(msgspec.json.encode(found))
"""


def run(module: str, **options: Any) -> Report:
    """One benchmark in a process of its own: its servers are to end with it."""
    with tempfile.TemporaryDirectory() as cache:
        done = subprocess.run(
            [sys.executable, "-P", "-c", _RUN, module, msgspec.json.encode(options).decode(), cache],
            capture_output=True,
            check=False,
            timeout=240,
        )
    assert done.returncode == 0, done.stderr.decode()[-4000:]
    return msgspec.json.decode(done.stdout, type=Report)


def zero_goals(report: Report) -> dict[str, float | None]:
    """The goals that count what must not be, by their text."""
    return {goal.text: goal.measured for goal in report.goals if goal.bound == 0}


def whole_cpu(row: dict[str, float]) -> float:
    return row["server_us"] + row["pg_us"]


def test_ingest_stores_each_message_once_and_batches_pay() -> None:
    rows = [ingest.WORK, ingest.STATEMENTS, ingest.FUNCTION, ingest.HUB, ingest.HUBS]
    report = run("ingest", rounds=1, seconds=1, known=4000, peers=False, plan={64: rows, 256: [ingest.NEW]})
    assert zero_goals(report) == {"Lost, stored twice, orphans, gaps, untold": 0}
    at64 = report.figures["64 connections"]
    assert at64[ingest.HUB]["refused"] == at64[ingest.HUBS]["refused"] == 0
    assert report.figures["256 connections"][ingest.NEW]["refused"] == 0
    hub = whole_cpu(at64[ingest.HUB])
    assert whole_cpu(at64[ingest.STATEMENTS]) >= 1.5 * hub
    assert whole_cpu(at64[ingest.FUNCTION]) >= 1.0 * hub
    direct = report.figures["2 connections"][ingest.DIRECT]
    assert at64[ingest.HUB]["pg_us"] <= 2 * 1.5 * direct["pg_us"]


@pytest.mark.parametrize("organizations", [1, 20])
def test_fanout_loses_no_frame_and_writes_are_shared(organizations: int) -> None:
    report = run("fanout", rounds=1, seconds=1, sessions=200, shapes=[organizations], peers=False)
    assert zero_goals(report) == {"Frames lost (or delivered twice, if below 0) by the hub": 0}
    rows = report.figures[fanout.case_of(200, organizations)]
    assert rows[fanout.SEND_STR]["cpu_us"] >= 2.5 * rows[fanout.HUB]["cpu_us"]
    assert rows[fanout.HUB]["cpu_us"] <= 2 * 1.5 * rows[fanout.FLOOR]["cpu_us"]


def test_catching_up_beside_writers_misses_nothing() -> None:
    report = run(
        "latency", rounds=1, seconds=1, rates=[50], events=5000, idle_sessions=50, idle_s=0.5
    )  # fmt: skip
    assert zero_goals(report) == {
        "Events missed or seen twice while catching up": 0,
        "Frames lost by the hub": 0,
    }
    for row in report.figures["50 messages/s"].values():
        assert row["missing"] == 0
    # nobody pays for readers with NOTIFY's lock: Postgres works as hard with them as without
    commits = report.figures["commits"]
    assert commits[latency.HUB]["pg_us"] <= 2 * commits[latency.NOBODY]["pg_us"]


def test_queues_lose_no_job_and_sets_are_cheap() -> None:
    report = run("queues", rounds=1, seconds=0.3, backlogs=[2000, 20_000], peers=False)
    assert zero_goals(report) == {"Jobs of ours lost": 0}
    rows = report.figures[queues.CASE]
    assert rows[queues.ONE]["pg_us"] >= 4 * rows[queues.SET]["pg_us"]


def test_lists_pass_text_on() -> None:
    report = run("rest", rounds=1, seconds=1, contacts=2000, connections=[32], peers=False)
    rows = report.figures[f"GET {rest.ROWS} contacts, 32 conns"]
    assert rows[rest.HUB]["server_us"] <= 1.3 * rows[rest.ORJSON]["server_us"]
    assert rows[rest.HUB]["pg_us"] <= 2 * rows[rest.BARE]["pg_us"]


def test_sign_in_is_argon2_and_a_known_token_asks_nobody() -> None:
    report = run("auth", rounds=1, seconds=1, times=1)
    assert zero_goals(report)[next(iter(zero_goals(report)))] == 0, "the database is not asked"
    rows = report.figures[auth.SIGN_IN]
    hub = rows[auth.HUB]["server_us"] + rows[auth.HUB]["pg_us"]
    assert hub <= 2 * 1.35 * rows[auth.ALONE]["server_us"]
    tokens = report.figures[auth.TOKENS]
    assert tokens[auth.KNOWN]["each_us"] <= 2 * 0.2 * tokens[auth.JWT_ALONE]["each_us"]
    assert set(report.figures[auth.ENDING]) == set(auth._WAYS), "each of them was noticed"
