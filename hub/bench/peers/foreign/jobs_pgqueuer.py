"""pgqueuer with jobs that do nothing, enqueued in bulk. Options and answer as in hub/bench/queues.py."""

import json
import logging
import resource
import sys
import time

import asyncpg
import uvloop
from pgqueuer import AsyncpgPoolDriver, PgQueuer, Queries
from pgqueuer.types import QueueExecutionMode


async def main() -> None:
    options = json.loads(sys.argv[1])
    logging.disable(logging.WARNING)
    jobs, done = options["jobs"], 0
    async with asyncpg.create_pool(options["dsn"], min_size=4, max_size=8) as pool:
        driver = AsyncpgPoolDriver(pool)
        queries = Queries(driver)
        if await pool.fetchval("select to_regclass('pgqueuer')") is None:
            await queries.install()
        queue = PgQueuer(driver)

        @queue.entrypoint("nothing")
        async def nothing(job: object) -> None:
            nonlocal done
            done += 1

        began = time.perf_counter()
        for first in range(0, jobs, 1000):
            size = min(1000, jobs - first)
            await queries.enqueue(["nothing"] * size, [b"{}"] * size, [0] * size)
        enqueued = time.perf_counter()
        await queue.qm.run(batch_size=options["batch"], mode=QueueExecutionMode.drain)
        ended = time.perf_counter()
    usage = resource.getrusage(resource.RUSAGE_SELF)
    print(
        json.dumps(
            {
                "jobs": jobs, "done": done, "enqueue_s": enqueued - began, "drain_s": ended - enqueued,
                "cpu_s": usage.ru_utime + usage.ru_stime,
            }
        )
    )  # fmt: skip


uvloop.run(main())
