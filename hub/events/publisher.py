"""From commits to Redis: what this process just wrote, published for the hubs that hold its readers.

A hint, never a promise: whatever is dropped here (Redis away, queue full, process killed) is found in the
log by the head
check that every hub runs once a second. So ``publish`` may be called from any request and never waits.

A publication on ``o:{organization}`` is one header line and length-prefixed frames, so that a hub splits it
without parsing JSON:

    <epoch> <first seq> <how many>\\n
    <table> <bytes>\\n<frame>          once for each event; none at all when there were too many to carry
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple
from uuid import UUID

import structlog
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from hub.db.pool import Database, LoggedEvent, Purpose
from hub.errors import Unavailable
from hub.events import log as event_log
from hub.events.clients import make_redis
from hub.failpoints import failpoint

log = structlog.get_logger()

#: Largest publication. Redis copies it once for each subscriber, and a hub reads it in one piece.
PUBLICATION_BYTES = 64 * 1024
#: Publications for one organization in one flush; a writer of more than that (an import) lets the hubs read
#: the log instead.
PUBLICATIONS_PER_FLUSH = 8
#: Events that wait for Redis; above it they are left to the log.
QUEUE_MAX = 20_000
CONNECT_TIMEOUT_S = 1.0
COMMAND_TIMEOUT_S = 0.5
#: How long an epoch is taken for granted: after a restore the hubs ignore publications under the old one.
EPOCH_S = 30.0
#: After a failure nothing is tried, and nothing kept, for this long: late publications are worth nothing.
BREAKER_S = 1.0


class Publication(NamedTuple):
    """One decoded publication; ``frames`` is empty when it only says that events up to first + total - 1
    exist."""

    epoch: str
    first: int
    total: int
    frames: list[tuple[str, bytes]]


def pack(epoch: str, first: int, events: Sequence[tuple[str, bytes]], count: int | None = None) -> bytes:
    """A publication of consecutive (table, frame); with ``count`` and no events, the bare hint."""
    parts = [b"%s %d %d\n" % (epoch.encode(), first, len(events) if count is None else count)]
    for table, frame in events:
        parts.append(b"%s %d\n" % (table.encode(), len(frame)))
        parts.append(frame)
    return b"".join(parts)


def unpack(payload: bytes) -> Publication:
    """Raises ValueError for what ``pack`` did not write."""
    line_end = payload.index(b"\n")
    epoch, first, total = payload[:line_end].split(b" ")
    frames: list[tuple[str, bytes]] = []
    at = line_end + 1
    while at < len(payload):
        line_end = payload.index(b"\n", at)
        table, size = payload[at:line_end].split(b" ")
        at = line_end + 1 + int(size)
        if at > len(payload):
            raise ValueError("The publication is cut off")
        frames.append((table.decode(), payload[line_end + 1 : at]))
    if frames and len(frames) != int(total):
        raise ValueError("The publication says another count than it carries")
    return Publication(epoch.decode(), int(first), int(total), frames)


def publications(epoch: str, events: Sequence[LoggedEvent]) -> Iterator[tuple[str, bytes]]:
    """(channel, payload) for a flush: by organization, consecutive events together, at most 64 KiB each."""
    by_org: dict[UUID, dict[int, LoggedEvent]] = {}
    for event in events:
        by_org.setdefault(event.organization_id, {})[event.seq] = event
    for organization_id, found in by_org.items():
        channel = f"o:{organization_id}"
        runs: list[tuple[int, list[tuple[str, bytes]]]] = []
        size, due = 0, -1
        for seq in sorted(found):
            record = (found[seq].table, found[seq].frame.encode())
            if seq != due or size + len(record[1]) > PUBLICATION_BYTES:
                runs.append((seq, []))
                size = 0
            runs[-1][1].append(record)
            size += len(record[1]) + len(record[0]) + 16
            due = seq + 1
        if len(runs) <= PUBLICATIONS_PER_FLUSH:
            for first, records in runs:
                yield channel, pack(epoch, first, records)
        else:
            lowest = runs[0][0]
            yield channel, pack(epoch, lowest, (), max(found) - lowest + 1)


class Publisher:
    """One queue and one connection a process. ``publish``, ``send`` and ``wake`` return at once and may lose
    what they are given."""

    def __init__(self, db: Database, redis_url: str, purpose: Purpose = "live") -> None:
        self._db = db
        self._purpose = purpose
        self._redis = make_redis(
            redis_url, connect_s=CONNECT_TIMEOUT_S, command_s=COMMAND_TIMEOUT_S, connections=2
        )
        self._events: deque[LoggedEvent] = deque()
        self._messages: deque[tuple[str, bytes]] = deque()
        self._wakes: set[str] = set()
        self._something = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._epoch: str | None = None
        self._epoch_until = 0.0
        self._closed_until = 0.0
        self._stopping = False
        self.published = 0
        self.dropped = 0

    async def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="publisher")

    async def stop(self) -> None:
        """Publish what waits, if Redis takes it at once, and end."""
        if self._task is not None:
            # The client may swallow a cancellation that meets it in the middle of a command (seen once in
            # some 30 stops), so the loop must also see that it is over.
            self._stopping = True
            self._something.set()
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
            try:
                async with asyncio.timeout(COMMAND_TIMEOUT_S):
                    await self._flush()
            except (RedisError, OSError, TimeoutError, Unavailable):
                log.info("publisher.left_to_the_log", events=len(self._events))
        await self._redis.aclose()

    def publish(self, events: Sequence[LoggedEvent]) -> None:
        """Events of a transaction that has committed."""
        failpoint("publish.before")
        if self._refuses(len(events)):
            return
        self._events.extend(events)
        self._something.set()

    def send(self, channel: str, payload: bytes) -> None:
        """An ephemeral message (presence, typing)."""
        if self._refuses(1):
            return
        self._messages.append((channel, payload))
        self._something.set()

    def wake(self, queue: str) -> None:
        """Tell the workers of ``queue`` to look at it now."""
        if time.monotonic() >= self._closed_until:
            self._wakes.add(queue)
            self._something.set()

    def _refuses(self, n: int) -> bool:
        if time.monotonic() < self._closed_until or len(self._events) + len(self._messages) + n > QUEUE_MAX:
            self.dropped += n
            return True
        return False

    async def _run(self) -> None:
        while not self._stopping:
            await self._something.wait()
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT_S + 2 * COMMAND_TIMEOUT_S):
                    await self._flush()
            except (RedisError, OSError, TimeoutError, Unavailable) as e:
                self._closed_until = time.monotonic() + BREAKER_S
                self.dropped += len(self._events) + len(self._messages)
                self._events.clear()
                self._messages.clear()
                self._wakes.clear()
                log.warning("publisher.paused", error=type(e).__name__, dropped=self.dropped)
            except Exception:
                self._closed_until = time.monotonic() + BREAKER_S
                log.exception("publisher.failed")

    async def _flush(self) -> None:
        """Everything that waits, in one round trip; what arrives meanwhile is the next one's."""
        self._something.clear()
        events, messages, wakes = list(self._events), list(self._messages), sorted(self._wakes)
        self._events.clear()
        self._messages.clear()
        self._wakes.clear()
        if not (events or messages or wakes):
            return
        if events and (self._epoch is None or time.monotonic() > self._epoch_until):
            self._epoch = await event_log.epoch(self._db, self._purpose)
            self._epoch_until = time.monotonic() + EPOCH_S
        batch = list(publications(self._epoch or "", events))
        batch += [(f"w:{queue}", b"") for queue in wakes]
        batch += messages
        try:
            await self._send(batch)
        except RedisConnectionError:  # the connection was lost while idle: Redis itself may be well
            await self._redis.connection_pool.disconnect()
            await self._send(batch)
        self.published += len(events)

    async def _send(self, batch: Sequence[tuple[str, bytes]]) -> None:
        async with self._redis.pipeline(transaction=False) as pipe:
            for channel, payload in batch:
                pipe.publish(channel, payload)
            await pipe.execute()
