"""Claiming work and holding it: the loop of a kind of work, leases that are extended while work goes on, and
statements shared by what settles together.

Each claim has a token of its own. Every later write names it, so a process that was stopped for a minute and
wakes up writes nothing: its rows belong to somebody else by then, even if that is itself.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Hashable
from contextlib import suppress
from datetime import timedelta
from typing import Any, Final, Generic, TypeVar
from uuid import UUID, uuid4

import asyncpg
import structlog

from hub.db.pool import Database
from hub.errors import Unavailable
from hub.failpoints import failpoint
from sql import q

log = structlog.get_logger()

MARGIN_S: Final = 5.0
"""A lease closer to its end than this starts nothing."""


class Lease:
    """One claim's hold on its rows. `deadline` is on our monotonic clock and never later than the database's
    idea of it: it counts from before the statement that gave or extended it."""

    __slots__ = ("deadline", "members", "seconds", "token")

    def __init__(self, seconds: float, claimed_at: float) -> None:
        self.token: UUID = uuid4()
        self.seconds = seconds
        self.deadline = claimed_at + seconds
        self.members = 0

    @property
    def margin_s(self) -> float:
        return min(MARGIN_S, self.seconds / 6)

    def may_start(self) -> bool:
        """Whether enough of it is left to begin something that cannot be taken back."""
        return time.monotonic() < self.deadline - self.margin_s


class Leases:
    """All of one kind that this process holds, extended by one statement (``extend``) every third of a lease
    (10 s)."""

    def __init__(self, db: Database, lease_s: float, extend: str = q.extend_leases) -> None:
        self._db = db
        self._lease_s = lease_s
        self._extend = extend
        self._held: dict[UUID, Lease] = {}

    def new(self) -> Lease:
        """To be made before the claiming statement is sent."""
        return Lease(self._lease_s, time.monotonic())

    def hold(self, lease: Lease, members: int) -> None:
        lease.members += members
        if lease.members:
            self._held[lease.token] = lease

    def drop(self, lease: Lease) -> None:
        """One row of it is settled."""
        lease.members -= 1
        if lease.members <= 0:
            self._held.pop(lease.token, None)

    async def run(self) -> None:
        """Beat until cancelled. A beat that fails extends nothing, so the deadline passes and nothing more is
        begun."""
        while True:
            await asyncio.sleep(self._lease_s / 3)
            if self._held:
                failpoint("job.heartbeat")
                try:
                    await self._beat()
                except (Unavailable, TimeoutError, asyncpg.PostgresError) as error:
                    log.warning("work.heartbeat_failed", error=type(error).__name__, leases=len(self._held))

    async def _beat(self) -> None:
        started = time.monotonic()
        async with asyncio.timeout(self._lease_s / 3), self._db.connection("worker") as conn:
            rows = await conn.fetch(self._extend, list(self._held), timedelta(seconds=self._lease_s))
        for token, held in rows:
            lease = self._held.get(token)
            if lease is None:
                continue
            if held:
                lease.deadline = started + self._lease_s
            else:
                log.warning("work.lease_lost", members=lease.members)
                lease.deadline = 0.0
                del self._held[token]


class Claimer:
    """The loop of one kind of work: claim as much as there is room for, start it, and look again when
    something ends, when somebody says that there is more, or after a poll. A kind says in `room` how much it
    takes now, in `claim` how it is claimed, and in `has_more` whether a claim stopped short of the last one
    to look at."""

    kind: str

    def __init__(self, poll_s: float) -> None:
        self._poll_s = poll_s
        self._tasks: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._stopping = False

    def room(self) -> int:
        """How many may be claimed now."""
        raise NotImplementedError

    async def claim(self, room: int) -> int:
        """Claim and `start` up to `room`; how many there were."""
        raise NotImplementedError

    def has_more(self) -> bool:
        """The last claim did not look at everything."""
        return False

    def wake(self) -> None:
        """There may be something to do."""
        self._wake.set()

    def stop(self) -> None:
        """Claim nothing more; what has not begun goes back."""
        self._stopping = True
        self._wake.set()

    async def drained(self) -> None:
        """Return when nothing is in flight."""
        while self._tasks:
            await asyncio.wait(tuple(self._tasks))

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run one claimed piece of work; its end makes room."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._wake.set()

    async def run(self) -> None:
        """Claim and start until stopped."""
        while not self._stopping:
            self._wake.clear()
            room = self.room()
            claimed, failed = 0, False
            if room > 0:
                try:
                    claimed = await self.claim(room)
                except (Unavailable, asyncpg.PostgresError) as error:
                    failed = True
                    log.warning("work.claim_failed", kind=self.kind, error=type(error).__name__)
                except Exception:
                    failed = True
                    log.exception("work.claim_failed", kind=self.kind)
            if claimed == room > 0 or (room > 0 and self.has_more() and not failed):
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(self._poll_s):
                    await self._wake.wait()


Key = TypeVar("Key", bound=Hashable)
Item = TypeVar("Item")
Result = TypeVar("Result")


class Together(Generic[Key, Item, Result]):
    """Puts what arrives for one key while its statement runs into the next one. ``run`` gets the items of a
    key and returns their results in order; what it raises, all of them raise."""

    def __init__(self, run: Callable[[Key, list[Item]], Awaitable[list[Result]]]) -> None:
        self._run = run
        self._waiting: dict[Key, list[tuple[Item, asyncio.Future[Result]]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def put(self, key: Key, item: Item) -> Result:
        """The result of this item."""
        done: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        waiting = self._waiting.get(key)
        if waiting is None:
            waiting = self._waiting[key] = []
            task = asyncio.create_task(self._work(key, waiting))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        waiting.append((item, done))
        return await done

    async def _work(self, key: Key, waiting: list[tuple[Item, asyncio.Future[Result]]]) -> None:
        try:
            while waiting:
                batch = waiting[:]
                waiting.clear()
                try:
                    results = await self._run(key, [item for item, _ in batch])
                except Exception as error:
                    for _, done in batch:
                        if not done.done():
                            done.set_exception(error)
                else:
                    for (_, done), result in zip(batch, results, strict=True):
                        if not done.done():
                            done.set_result(result)
        finally:
            del self._waiting[key]
