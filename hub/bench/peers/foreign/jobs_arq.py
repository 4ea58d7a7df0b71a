"""arq with jobs that do nothing. Options and answer as in hub/bench/queues.py."""

import asyncio
import json
import logging
import resource
import sys
import time
from typing import Any

import uvloop
from arq import create_pool
from arq.connections import RedisSettings
from arq.worker import Worker

options = json.loads(sys.argv[1])
logging.disable(logging.WARNING)
done = 0


async def nothing(context: dict[str, Any]) -> None:
    global done
    done += 1


async def main() -> None:
    jobs = options["jobs"]
    settings = RedisSettings.from_dsn(options["redis"])
    queue = f"bench-{time.monotonic_ns()}"
    pool = await create_pool(settings, default_queue_name=queue)
    began = time.perf_counter()
    for first in range(0, jobs, 100):
        await asyncio.gather(*(pool.enqueue_job("nothing") for _ in range(min(100, jobs - first))))
    enqueued = time.perf_counter()
    worker = Worker(
        functions=[nothing], queue_name=queue, redis_settings=settings, burst=True, keep_result=0,
        max_jobs=options["batch"], poll_delay=0.01, handle_signals=False,
    )  # fmt: skip
    await worker.async_run()
    ended = time.perf_counter()
    await worker.close()
    await pool.aclose()
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
