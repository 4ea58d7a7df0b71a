"""The limit of a REST list or insert: Postgres builds the JSON, asyncpg hands over its text, nobody else is
there.

{"dsn", "statement", "args", "connections", "seconds"} → one JSON line like the HTTP load client's.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time

import asyncpg
import uvloop

from hub.bench.figures import quantile

#: More would only wait for the cores.
POOL = 16


async def main() -> None:
    options = json.loads(sys.argv[1])
    connections = min(options["connections"], POOL)
    pool = await asyncpg.create_pool(options["dsn"], min_size=connections, max_size=connections)
    statement, args = options["statement"], options["args"]
    await asyncio.gather(*(pool.fetchval(statement, *args) for _ in range(2 * connections)))
    times: list[float] = []
    used = resource.getrusage(resource.RUSAGE_SELF)
    began = time.perf_counter()
    until = began + options["seconds"]

    async def work() -> None:
        while (at := time.perf_counter()) < until:
            text = await pool.fetchval(statement, *args)
            assert text
            times.append(time.perf_counter() - at)

    await asyncio.gather(*(work() for _ in range(options["connections"])))
    took = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_SELF)
    await pool.close()
    times.sort()
    print(
        json.dumps(
            {
                "requests": len(times),
                "rate": len(times) / took,
                "p50_ms": quantile(times, 0.5) * 1000,
                "p99_ms": quantile(times, 0.99) * 1000,
                "cpu_s": after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime,
            }
        )
    )


if __name__ == "__main__":
    uvloop.run(main())
