"""procrastinate with jobs that do nothing, deferred in bulk. Options and answer as in hub/bench/queues.py."""

import asyncio
import json
import logging
import resource
import sys
import time

import procrastinate

options = json.loads(sys.argv[1])
logging.disable(logging.WARNING)
app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=options["dsn"]))
done = 0


@app.task(name="nothing")
async def nothing() -> None:
    global done
    done += 1


async def main() -> None:
    jobs = options["jobs"]
    async with app.open_async():
        found = await app.connector.execute_query_one_async("select to_regclass('procrastinate_jobs') as t")
        if found["t"] is None:
            await app.schema_manager.apply_schema_async()
        began = time.perf_counter()
        await nothing.batch_defer_async(*({} for _ in range(jobs)))
        enqueued = time.perf_counter()
        await app.run_worker_async(
            wait=False, concurrency=options["batch"], install_signal_handlers=False, listen_notify=False
        )
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


asyncio.run(main())
