"""One worker process: opens what its loops share, runs them, and ends as politely as there is time for
(guarantees 11).

First SIGTERM or Ctrl-C: claim nothing, hand back what is not being sent yet, finish the rest within 25 s.
Second one: now. Either way no promise rests on it; after kill -9 the reaper does the same a lease later.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from functools import partial
from typing import Final

import asyncpg
import structlog
from prometheus_client import start_http_server
from redis.exceptions import RedisError

from hub import clock, heap, metrics
from hub.channels.ingest import Ingest
from hub.db.migrate import check_schema
from hub.db.pool import Database
from hub.disk import DiskGuard, Level
from hub.errors import Unavailable
from hub.events.clients import make_redis
from hub.events.publisher import Publisher
from hub.settings import Settings
from workers.failures import EVERY_S as FAILURES_EVERY_S
from workers.failures import Failures
from workers.guard import guarded_connector
from workers.mail import Mailer
from workers.media import Fetcher, MediaKeeper
from workers.outbound import Sender
from workers.reaper import CLEAN_EVERY_S, REAP_EVERY_S, Reaper
from workers.transport import make_session

log = structlog.get_logger()

DRAIN_S: Final = 25.0
AWAY_S: Final = 1.0
MEASURE_EVERY_S: Final = 10.0


class WrongSchema(RuntimeError):
    """The database lacks migrations of this version; the message names the next step."""


async def run(settings: Settings, stop: asyncio.Event, *, follow_clock: bool = False) -> None:
    """Work until `stop` is set, then drain. `follow_clock`: keep this process's clock to the database's.
    Raises WrongSchema before anything is claimed."""
    worker = (
        f"{os.uname().nodename}-{os.getpid()}-{secrets.token_hex(4)}"  # random: a name must never come back
    )
    structlog.contextvars.bind_contextvars(worker=worker)
    async with AsyncExitStack() as stack:
        db = Database(settings.database_url, ("worker", "ingest"), "worker")
        await db.open()
        stack.push_async_callback(db.close)
        if not await _wait_for_schema(db, stop):
            return
        publisher = Publisher(db, settings.redis_url, purpose="worker")
        await publisher.start()
        stack.push_async_callback(publisher.stop)
        db.publish, db.wake = publisher.publish, publisher.wake
        session = await stack.enter_async_context(make_session(settings))
        ingest = Ingest(db, settings)
        await ingest.start()
        stack.push_async_callback(ingest.stop)
        guard = DiskGuard(settings.data_dir, settings.disk_probe, partial(_write_or_wait, db))
        await guard.look()
        redis = make_redis(settings.redis_url, connect_s=0.5, command_s=0.5)
        stack.push_async_callback(redis.aclose)
        sender = Sender(db, settings, session, worker, redis)
        strangers = await stack.enter_async_context(make_session(settings, guarded_connector(limit=8)))
        fetcher = Fetcher(db, settings, session, strangers, worker)
        mailer = Mailer(db, settings, worker)
        keeper = MediaKeeper(db, settings)
        reaper = Reaper(db, settings)
        failures = Failures(db, ingest, worker)
        sending = asyncio.create_task(sender.run(), name="sender")
        fetching = asyncio.create_task(fetcher.run(), name="media")
        mailing = asyncio.create_task(mailer.run(), name="mail")

        others = [
            asyncio.create_task(loop, name=name)
            for name, loop in {
                "heartbeat": _restarted("heartbeat", sender.leases.run),
                "disk": _restarted("disk", guard.run),
                "media-heartbeat": _restarted("media-heartbeat", fetcher.leases.run),
                "mail-heartbeat": _restarted("mail-heartbeat", mailer.leases.run),
                "mail-reap": every(min(REAP_EVERY_S, settings.work_lease_s / 2), "mail-reap", mailer.reap),
                "wake-ups": _restarted(
                    "wake-ups",
                    lambda: _listen(
                        settings.redis_url,
                        {"outbox": sender.wake, "jobs": fetcher.wake, "mail": mailer.wake},
                    ),
                ),
                "media-reap": every(min(REAP_EVERY_S, settings.work_lease_s / 2), "media-reap", keeper.reap),
                "media-clean": every(CLEAN_EVERY_S, "media-clean", keeper.clean),
                "media-measure": every(MEASURE_EVERY_S, "media-measure", keeper.measure),
                "reap": every(min(REAP_EVERY_S, settings.work_lease_s / 2), "reap", reaper.reap),
                "clean": every(CLEAN_EVERY_S, "clean", reaper.clean),
                "measure": every(MEASURE_EVERY_S, "measure", reaper.measure),
                "failures": every(FAILURES_EVERY_S, "failures", failures.look_again),
            }.items()
        ]
        if follow_clock:
            others.append(asyncio.create_task(clock.follow(partial(db.clock_s, "worker")), name="clock"))
        stack.callback(_serve_metrics(settings))
        heap.settle()
        log.info("worker.ready")
        await stop.wait()
        log.info("worker.draining")
        sender.stop()
        fetcher.stop()
        mailer.stop()
        try:
            async with asyncio.timeout(DRAIN_S):
                await sending
                await sender.drained()
                await fetching
                await fetcher.drained()
                await mailing
                await mailer.drained()
        except TimeoutError:
            log.warning("worker.not_drained")
            for loop in (sending, fetching, mailing):
                loop.cancel()
            for claimer in (fetcher, mailer):
                claimer.abandon()
                await claimer.drained()
        for task in others:
            task.cancel()
        await asyncio.wait([sending, fetching, mailing, *others])
    log.info("worker.stopped")


def _write_or_wait(db: Database, level: Level) -> None:
    db.is_full = level is Level.FULL


def _serve_metrics(settings: Settings) -> Callable[[], None]:
    """Serve /metrics from a thread of its own, if a port is set; returns what stops it."""
    if not settings.worker_metrics_port:
        return lambda: None
    server, thread = start_http_server(settings.worker_metrics_port, addr=settings.host)

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join(5)

    return stop


async def every(seconds: float, kind: str, action: Callable[[], Awaitable[None]]) -> None:
    """Run `action` now and then again and again. An absent database is no error, a bug is logged, neither
    ends the loop."""
    while True:
        started = time.perf_counter()
        try:
            await action()
        except Unavailable:
            log.info("worker.waits", kind=kind)
        except Exception:
            log.exception("worker.failed", kind=kind)
        metrics.JOB_SECONDS.labels(kind).observe(time.perf_counter() - started)
        await asyncio.sleep(seconds)


async def _restarted(name: str, loop: Callable[[], Awaitable[None]]) -> None:
    """A loop of its own that a bug must not end."""
    while True:
        try:
            await loop()
        except Exception:
            log.exception("worker.failed", kind=name)
        await asyncio.sleep(AWAY_S)


async def _listen(redis_url: str, wakes: Mapping[str, Callable[[], None]]) -> None:
    """Call a queue's `wakes` for every hint that it has something. Hints may be lost, so losing the
    connection only means that the poll does the work; returns then."""
    by_channel = {f"w:{queue}".encode(): wake for queue, wake in wakes.items()}
    client = make_redis(redis_url, connect_s=1.0, command_s=None, health_check_interval=10)
    try:
        async with client, client.pubsub(ignore_subscribe_messages=True) as channel:
            await channel.subscribe(*by_channel)
            for wake in wakes.values():
                wake()
            while True:
                hint = await channel.get_message(timeout=10.0)
                if hint is not None:
                    by_channel[hint["channel"]]()
    except (RedisError, OSError, TimeoutError):
        return


async def _wait_for_schema(db: Database, stop: asyncio.Event) -> bool:
    """True once the database is there and has this version's schema; False when told to stop first. Raises
    WrongSchema."""
    while not stop.is_set():
        try:
            async with db.connection("worker") as conn:
                missing = await check_schema(conn)
            if missing:
                raise WrongSchema(f"The database lacks {', '.join(missing)}; run `hub migrate`.")
            return True
        except Unavailable:
            log.info("worker.waits", kind="database")
        except asyncpg.PostgresError as error:  # starting up, or not migrated at all
            if (error.sqlstate or "").startswith(("3F", "42")):
                raise WrongSchema("The database is empty; run `hub migrate`.") from error
            log.info("worker.waits", kind="database", sqlstate=error.sqlstate)
        try:
            async with asyncio.timeout(AWAY_S):
                await stop.wait()
        except TimeoutError:
            continue
    return False


async def main(settings: Settings) -> None:
    """Run with signals wired: the first one drains, the second one ends the process."""
    stop = asyncio.Event()

    def on_signal() -> None:
        if stop.is_set():
            os._exit(1)
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    await run(settings, stop, follow_clock=True)
