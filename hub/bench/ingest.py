"""`hub bench ingest`: webhook → commit → 200, beside the HTTP work floor (read, HMAC, decode, 200) on bare
aiohttp."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import count
from typing import Any

from hub.bench.stage import APP_SECRET, Stage, cpu_s, stage, tree_cpu_s, wait_ready
from hub.db.embedded import free_port

PATH = "/functions/v1/whatsapp-cloud-webhook"
_prefixes = count(100)


def load(
    port: int, numbers: list[str], connections: int, seconds: float, senders: int, prefix: int
) -> dict[str, Any]:
    job = {
        "port": port, "path": PATH, "secret": APP_SECRET, "numbers": numbers,
        "connections": connections, "seconds": seconds, "senders": senders,
        "count": int(15_000 * seconds), "prefix": prefix,
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-P", "-m", "hub.bench.http_load"],
        input=json.dumps(job).encode(),
        capture_output=True,
        check=True,
    )
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def run(
    connections: tuple[int, ...] = (1, 16, 64, 256),
    seconds: float = 4.0,
    rounds: int = 2,
    organizations: int = 20,
) -> None:
    """Print one table; medians would hide the swing, so each round is a row."""
    with stage(organizations) as s:
        url, hub = s.start_hub()
        port = int(url.rsplit(":", 1)[1])
        floor_port = free_port()
        floor = s.start("-m", "hub.bench.floor", port=floor_port)
        wait_ready(f"http://127.0.0.1:{floor_port}/", floor, s.folder / f"{floor_port}.log")
        numbers = [o.phone_number_id for o in s.orgs]
        load(port, numbers, 16, 2, 500, 99)  # warm caches, plans and the senders
        print(
            f"{'round':>5} {'conns':>5} {'floor/s':>9} {'hub/s':>9} {'ratio':>6}"
            f" {'p50 ms':>8} {'p99 ms':>8} {'hub µs':>7} {'PG µs':>7} {'client':>7}"
        )
        for n in range(1, rounds + 1):
            for c in connections:
                bare = load(floor_port, numbers, c, seconds / 2, 500, 99)
                hub_before, pg_before = cpu_s(hub), _postgres_cpu(s)
                got = load(port, numbers, c, seconds, 500, next(_prefixes))
                hub_cpu, pg_cpu = cpu_s(hub) - hub_before, _postgres_cpu(s) - pg_before
                assert set(got["statuses"]) == {"200"}, got["statuses"]
                each = 1e6 / got["requests"]
                print(
                    f"{n:>5} {c:>5} {bare['rate']:>9,.0f} {got['rate']:>9,.0f}"
                    f" {got['rate'] / bare['rate']:>6.2f} {got['p50_ms']:>8.1f} {got['p99_ms']:>8.1f}"
                    f" {hub_cpu * each:>7.0f} {pg_cpu * each:>7.0f} {got['cpu_share']:>6.0%}",
                    flush=True,
                )


def _postgres_cpu(s: Stage) -> float:
    assert s.postgres.pid is not None
    return tree_cpu_s(s.postgres.pid)
