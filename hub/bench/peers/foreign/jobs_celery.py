"""Celery on Redis with jobs that do nothing: this program enqueues and waits; the worker that it starts
(prefork) is this file again. Options and answer as in hub/bench/queues.py."""

import json
import logging
import resource
import subprocess
import sys
import time

import redis
from celery import Celery, platforms

logging.disable(logging.WARNING)
options = json.loads(sys.argv[-1])
app = Celery("jobs_celery", broker=options["redis"])
app.conf.update(
    task_ignore_result=True, broker_connection_retry_on_startup=True, worker_send_task_events=False,
    worker_hijack_root_logger=False, task_default_queue=options["queue"],
)  # fmt: skip


@app.task(name="nothing")
def nothing() -> None:
    return None


def waiting(client: "redis.Redis") -> int:
    """Not begun yet, or not acknowledged yet."""
    return client.llen(options["queue"]) + client.hlen("unacked")


def main() -> None:
    client = redis.from_url(options["redis"])
    jobs = options["jobs"]
    began = time.perf_counter()
    with app.producer_pool.acquire(block=True) as producer:
        for _ in range(jobs):
            nothing.apply_async(producer=producer)
    enqueued = time.perf_counter()
    worker = subprocess.Popen(
        [sys.executable, "-P", __file__, "worker", sys.argv[-1]], stdout=subprocess.DEVNULL
    )
    # starting up is not draining
    while client.llen(options["queue"]) == jobs and worker.poll() is None:
        time.sleep(0.005)
    first = time.perf_counter()
    while (left := waiting(client)) and worker.poll() is None and time.perf_counter() - first < 60:
        time.sleep(0.01)
    ended = time.perf_counter()
    worker.terminate()
    worker.wait(20)
    client.delete(options["queue"])
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    print(
        json.dumps(
            {
                "jobs": jobs, "done": jobs - left, "enqueue_s": enqueued - began, "drain_s": ended - first,
                "cpu_s": sum(u.ru_utime + u.ru_stime for u in usage),
            }
        )
    )  # fmt: skip


if __name__ == "__main__":
    if sys.argv[1] == "worker":
        platforms.C_FORCE_ROOT = True
        app.worker_main(
            [
                "worker", "--loglevel=ERROR", f"--concurrency={options['batch']}", "--without-gossip",
                "--without-mingle", "--without-heartbeat", "--prefetch-multiplier=16",
            ]
        )  # fmt: skip
    else:
        main()
