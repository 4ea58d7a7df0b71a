"""How full the disk under the data folder is, and what stops because of it (guarantees 13).

    ok ──< 1 GiB or < 5 %──▶ low: uploads, imports and campaigns pause
    low ──< 192 MiB──▶ full: nothing is written any more, here or in the database
    and back by itself, each with some room to spare so that nothing flickers

A PostgreSQL that cannot write its log does not refuse, it PANICs and stays down; so we stop before it does.
Where it lies on the same disk, a ballast file of 64 MiB is given up at that moment: room for what it had
begun, and for the operator. One guard a process; each tells its log once about every change.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from enum import IntEnum
from pathlib import Path
from typing import Final

import structlog

from hub import metrics
from hub.errors import Unavailable

log = structlog.get_logger()

LOW_BYTES: Final = 1 << 30
LOW_SHARE: Final = 0.05
FULL_BYTES: Final = 192 << 20
"""Twelve segments of PostgreSQL's log: what it may still write by itself (checkpoints, vacuum) and what comes
between two looks."""
BALLAST_BYTES: Final = 64 << 20
SPARE_BYTES: Final = 2 * BALLAST_BYTES
"""So much more than FULL_BYTES makes it writable again, since giving up the ballast alone must not."""
EVERY_S: Final = 1.0


class Level(IntEnum):
    OK = 0
    LOW = 1
    FULL = 2


class DiskGuard:
    """Looks once a second. `on_change` hears every new level, from the loop's thread."""

    def __init__(
        self, folder: Path, probe: Path | None = None, on_change: Callable[[Level], None] | None = None
    ) -> None:
        """`probe`: a file that says how many bytes are free, for tests; else the file system says."""
        self._folder, self._probe, self._on_change = folder, probe, on_change
        self.level = Level.OK
        self.free_bytes = 0
        self.ballast = folder / "ballast"

    def require_room(self, more_bytes: int = 0) -> None:
        """For what can wait: raises Unavailable while the disk is low, or would be with so much more."""
        if self.level >= Level.LOW or self.free_bytes - more_bytes < LOW_BYTES:
            raise Unavailable("The disk is nearly full; this waits until there is room", retry_after_s=300)

    async def look(self) -> Level:
        """Measure, act on what changed, return the level. A disk that cannot be asked keeps the last one."""
        try:
            level, free = await asyncio.to_thread(self._look)
        except (OSError, ValueError) as error:
            log.warning("disk.unknown", error=type(error).__name__)
            return self.level
        self.free_bytes = free
        metrics.DISK_FREE.set(free)
        metrics.DISK_LEVEL.set(level)
        if level != self.level:
            before, self.level = self.level, level
            write = log.error if level is Level.FULL else log.warning if level > before else log.info
            write(f"disk.{level.name.lower()}", free_mib=free >> 20, before=before.name.lower())
            if self._on_change is not None:
                self._on_change(level)
            await asyncio.to_thread(self._keep_ballast)
        return self.level

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(EVERY_S)

    def _look(self) -> tuple[Level, int]:
        """The level and the free bytes; while nothing changes, the ballast is seen to on the same way."""
        free, total = self._measure()
        level = self._judge(free, total)
        if level is self.level:
            self._keep_ballast()
        return level, free

    def _measure(self) -> tuple[int, int]:
        found = os.statvfs(next(place for place in (self._folder, *self._folder.parents) if place.exists()))
        total = found.f_blocks * found.f_frsize
        if self._probe is not None:
            return int(self._probe.read_text()), total
        return found.f_bavail * found.f_frsize, total

    def _judge(self, free: int, total: int) -> Level:
        """On the way back a tenth more is asked for; from full so much that the ballast fits in again."""
        low = LOW_BYTES if self._probe is not None else max(LOW_BYTES, int(total * LOW_SHARE))
        if free < FULL_BYTES or (self.level is Level.FULL and free < FULL_BYTES + SPARE_BYTES):
            return Level.FULL
        if free < low or (self.level is not Level.OK and free < low * 1.1):
            return Level.LOW
        return Level.OK

    def _keep_ballast(self) -> None:
        """Only where the embedded PostgreSQL has its data."""
        if self.level is Level.FULL:
            with suppress(OSError):
                self.ballast.unlink(missing_ok=True)
        elif (self._folder / "postgres").is_dir() and not self.ballast.exists():
            with suppress(OSError):
                fd = os.open(self.ballast, os.O_WRONLY | os.O_CREAT, 0o600)
                try:
                    os.posix_fallocate(fd, 0, BALLAST_BYTES)
                finally:
                    os.close(fd)
