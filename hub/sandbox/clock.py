"""The sandbox's own time: real, shifted or stopped, so that days pass in a test's millisecond."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections.abc import Callable
from datetime import UTC, datetime

import structlog

log = structlog.get_logger()


def iso(epoch_s: float) -> str:
    """ISO 8601, UTC, milliseconds."""
    return datetime.fromtimestamp(epoch_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class VirtualClock:
    """Epoch seconds = real time + offset, or a fixed moment while frozen."""

    def __init__(self) -> None:
        self.offset_s = 0.0
        self.frozen_at: float | None = None

    def now(self) -> float:
        """Epoch seconds of sandbox time."""
        return self.frozen_at if self.frozen_at is not None else time.time() + self.offset_s

    def advance(self, seconds: float) -> None:
        """Moves time, also while it is frozen."""
        self.offset_s += seconds
        if self.frozen_at is not None:
            self.frozen_at += seconds

    def freeze(self, frozen: bool) -> None:
        """Stops time, or lets it run on from where it stands."""
        if frozen:
            self.frozen_at = self.now()
        elif self.frozen_at is not None:
            self.offset_s = self.frozen_at - time.time()
            self.frozen_at = None

    def reset(self) -> None:
        """Back to real time."""
        self.offset_s, self.frozen_at = 0.0, None


class Timers:
    """Callbacks at moments of sandbox time, oldest first. One task runs them all; a callback must not
    block."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        return len(self._heap)

    def at(self, due: float, callback: Callable[[], None]) -> None:
        """Runs `callback` once sandbox time is `due`."""
        heapq.heappush(self._heap, (due, next(self._order), callback))
        if self._heap[0][0] == due:
            self._changed.set()

    def after(self, seconds: float, callback: Callable[[], None]) -> None:
        """Runs `callback` that many seconds from now."""
        self.at(self.clock.now() + seconds, callback)

    def clear(self) -> None:
        """Forgets all of them."""
        self._heap.clear()

    def wake(self) -> None:
        """The clock was moved: look again."""
        self._changed.set()

    async def run(self) -> None:
        """Runs due callbacks until cancelled; one that fails is logged and costs no other."""
        while True:
            self._changed.clear()
            while self._heap and self._heap[0][0] <= self.clock.now():
                _, _, callback = heapq.heappop(self._heap)
                try:
                    callback()
                except Exception:
                    log.exception("sandbox.timer_failed")
            wait = None
            if self._heap and self.clock.frozen_at is None:
                wait = max(0.001, self._heap[0][0] - self.clock.now())
            try:
                async with asyncio.timeout(wait):
                    await self._changed.wait()
            except TimeoutError:
                continue
