"""Deliveries kept in a local file while the database is away, and stored in their order when it is back
(guarantees 4.6).

    <data>/spool/<uuid>.spool     one a process, locked (flock) while its process lives; an unlocked one is an
                                  orphan, which any live hub adopts
    record                        magic · length · crc32 · a Delivery as msgpack

An answer of 200 waits for fsync; those that arrive within 5 ms share one. While anything is left to replay,
new deliveries queue behind it: a database that was just lost is not asked again by every request, and one
customer's messages keep their order. Replaying a record twice changes nothing, so positions are not stored.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import struct
import zlib
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final
from uuid import uuid4

import msgspec
import structlog

from hub import clock, metrics
from hub.channels.ingest import BATCH, Delivery
from hub.errors import Unavailable
from hub.failpoints import failpoint

log = structlog.get_logger()

MAX_BYTES: Final = 256 * 1024 * 1024
MAX_AGE_S: Final = 3600.0
"""A database that is away for an hour is an operator's matter: from then on providers are told, by 503."""
MAX_WAITING: Final = 32 * 1024 * 1024
"""Bytes that may wait for the disk."""
GROUP_S: Final = 0.005
PROBE_S: Final = 0.5
ADOPT_EVERY_S: Final = 5.0
_READ_BYTES: Final = 4 * 1024 * 1024
_MAGIC: Final = b"HSP1"
_HEAD: Final = struct.Struct("<4sII")

_PACK = msgspec.msgpack.Encoder().encode
_UNPACK = msgspec.msgpack.Decoder(Delivery).decode

Replay = Callable[[list[Delivery]], Awaitable[object]]


def frame(delivery: Delivery) -> bytes:
    """One record as it lies in the file."""
    payload = _PACK(delivery)
    return _HEAD.pack(_MAGIC, len(payload), zlib.crc32(payload)) + payload


class SpoolFile:
    """One file of records, held by a lock on its descriptor. Calls that touch the disk are for threads."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor
        self.size = os.fstat(descriptor).st_size
        self.position = 0
        self.is_damaged = False

    @classmethod
    def create(cls, folder: Path) -> SpoolFile:
        """A new file, locked before anyone can see it under its name. Raises OSError."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = folder / f"{uuid4().hex}.spool"
        hidden = path.with_suffix(".new")
        descriptor = os.open(hidden, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        hidden.rename(path)
        folder_descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(folder_descriptor)  # else a crash may keep the bytes and lose the name
        finally:
            os.close(folder_descriptor)
        return cls(path, descriptor)

    @classmethod
    def adopt(cls, path: Path) -> SpoolFile | None:
        """The file of a dead process; None when it is gone or somebody holds it."""
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(descriptor).st_nlink == 0:  # finished by another hub while we opened it
                raise BlockingIOError
        except OSError:
            os.close(descriptor)
            return None
        return cls(path, descriptor)

    @property
    def is_drained(self) -> bool:
        return self.position >= self.size

    def append(self, data: bytes) -> None:
        """Write and fsync. Raises OSError, and then nothing of it is in the file: later records stay
        readable."""
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(self._descriptor, view) :]
            failpoint("spool.before_fsync")
            os.fsync(self._descriptor)
        except OSError:
            os.ftruncate(self._descriptor, self.size)
            raise
        self.size += len(data)

    def read(self, limit: int) -> tuple[list[Delivery], int]:
        """Up to `limit` records or 4 MiB from the position, and the position behind them. A torn tail ends
        the file; damage in the middle is stepped over to the next good record, and the file is then kept for
        the operator."""
        deliveries: list[Delivery] = []
        position = self.position
        while len(deliveries) < limit and position < min(self.size, self.position + _READ_BYTES):
            head = os.pread(self._descriptor, _HEAD.size, position)
            payload = b""
            if len(head) == _HEAD.size:
                magic, length, crc = _HEAD.unpack(head)
                if magic == _MAGIC and position + _HEAD.size + length <= self.size:
                    payload = os.pread(self._descriptor, length, position + _HEAD.size)
                    if zlib.crc32(payload) == crc:
                        position += _HEAD.size + length
                        try:
                            deliveries.append(_UNPACK(payload))
                        except (msgspec.MsgspecError, ValueError, RecursionError):  # ValueError: no UTF-8
                            self._damaged(position, "a record of another version")
                        continue
            following = self._next_record(position + 1)
            if following is None and len(payload) == 0:
                log.warning(
                    "spool.torn_tail", bytes=self.size - position
                )  # never acknowledged: its fsync did not return
                position = self.size
            else:
                self._damaged(position, "a bad checksum")
                position = self.size if following is None else following
        return deliveries, position

    def _damaged(self, position: int, what: str) -> None:
        self.is_damaged = True
        log.error("spool.damaged", file=self.path.name, position=position, what=what)

    def _next_record(self, start: int) -> int | None:
        """Where the next readable record begins at or after `start`."""
        data = os.pread(self._descriptor, self.size - start, start) if start < self.size else b""
        found = data.find(_MAGIC)
        while found >= 0:
            if found + _HEAD.size <= len(data):
                _, length, crc = _HEAD.unpack_from(data, found)
                payload = data[found + _HEAD.size : found + _HEAD.size + length]
                if len(payload) == length and zlib.crc32(payload) == crc:
                    return start + found
            found = data.find(_MAGIC, found + 1)
        return None

    def clear(self) -> None:
        """Everything in it is stored: begin anew."""
        os.ftruncate(self._descriptor, 0)
        self.size = self.position = 0

    def finish(self) -> None:
        """Close it; gone when drained, under another name when damaged, else left for the next hub."""
        if self.is_damaged and self.is_drained:
            self.path.rename(self.path.with_suffix(".damaged"))
        elif self.is_drained:
            self.path.unlink(missing_ok=True)
        os.close(self._descriptor)


class Spool:
    """The spool of one hub process. ``replay`` stores deliveries; it raises Unavailable while the database is
    away."""

    def __init__(
        self, folder: Path, replay: Replay, *, max_bytes: int = MAX_BYTES, max_age_s: float = MAX_AGE_S
    ) -> None:
        self._folder = folder
        self._replay = replay
        self._max_bytes, self._max_age_s = max_bytes, max_age_s
        self._own: SpoolFile | None = None
        self._adopted: list[SpoolFile] = []
        self._waiting: list[tuple[bytes, asyncio.Future[None]]] = []
        self._waiting_bytes = 0
        self._oldest = 0.0
        self._writer: asyncio.Task[None] | None = None
        self._loop: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._drained = asyncio.Event()
        self._drained.set()
        self._closing = False
        self.has_room = True
        """False while the disk is full (hub/disk.py)."""

    async def start(self) -> None:
        """Adopt what dead processes left, and watch for more."""
        await asyncio.to_thread(self._adopt)
        if self.size:
            self._drained.clear()
        self._loop = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """What is not replayed stays on disk for the next start."""
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.wait([self._loop])
        if self._writer is not None:
            await asyncio.wait([self._writer])
        for file in (*self._adopted, *([self._own] if self._own else [])):
            await asyncio.to_thread(file.finish)
        self._adopted, self._own = [], None

    @property
    def is_empty(self) -> bool:
        """Whether deliveries may go straight to the database."""
        return self._drained.is_set()

    @property
    def size(self) -> int:
        """Bytes not yet replayed, in the files this process holds."""
        files = [*self._adopted, *([self._own] if self._own else [])]
        return sum(f.size - f.position for f in files)

    async def turn(self) -> bool:
        """Wait for the end of a replay that is nearly done. True when the way to the database is free."""
        if self._closing and not self._drained.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._drained.wait()
        return self._drained.is_set()

    async def append(self, delivery: Delivery) -> None:
        """Return when it is on disk. Raises Unavailable when the spool is full, too old or cannot be
        written."""
        data = frame(delivery)
        if not self.has_room:
            metrics.SPOOLED.labels("disk").inc()
            raise Unavailable("The disk is full", retry_after_s=30)
        if (
            self._waiting_bytes + len(data) > MAX_WAITING
            or self.size + self._waiting_bytes + len(data) > self._max_bytes
        ):
            metrics.SPOOLED.labels("full").inc()
            raise Unavailable("The spool is full", retry_after_s=30)
        if self._oldest and clock.now_s() - self._oldest > self._max_age_s:
            metrics.SPOOLED.labels("too_old").inc()
            raise Unavailable("The database has been away for too long", retry_after_s=60)
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((data, written))
        self._waiting_bytes += len(data)
        self._oldest = self._oldest or clock.now_s()
        self._drained.clear()
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write())
        try:
            await written
        finally:
            self._wake.set()  # also when the disk refused: somebody must see that the way is free
        metrics.SPOOLED.labels("kept").inc()

    async def _write(self) -> None:
        while self._waiting:
            await asyncio.sleep(GROUP_S)
            group, self._waiting = self._waiting, []
            self._waiting_bytes -= sum(len(data) for data, _ in group)
            try:
                await asyncio.to_thread(self._append, b"".join(data for data, _ in group))
            except OSError as error:
                log.error("spool.unwritable", error=type(error).__name__, errno=error.errno)
                self._forget_own()
                for _, written in group:
                    if not written.done():
                        written.set_exception(Unavailable("The spool cannot be written", retry_after_s=30))
                continue
            failpoint("spool.after_fsync")
            for _, written in group:
                if not written.done():
                    written.set_result(None)

    def _append(self, data: bytes) -> None:
        if self._own is None:
            self._own = SpoolFile.create(self._folder)
        self._own.append(data)

    def _forget_own(self) -> None:
        """After a failed fsync the kernel may have dropped what it could not write: never trust that
        descriptor again."""
        if self._own is not None:
            self._adopted.append(self._own)
            self._own = None

    def _adopt(self) -> None:
        held = {f.path for f in self._adopted} | ({self._own.path} if self._own else set())
        for path in self._paths():
            if path not in held and (file := SpoolFile.adopt(path)) is not None:
                log.info("spool.adopted", file=path.name, bytes=file.size)
                self._adopted.append(file)
                if not file.is_drained:
                    self._oldest = min(self._oldest or path.stat().st_mtime, path.stat().st_mtime)

    def _paths(self) -> Iterator[Path]:
        try:
            yield from sorted(self._folder.glob("*.spool"), key=lambda p: p.stat().st_mtime)
        except FileNotFoundError:
            return

    async def _run(self) -> None:
        """Replay while there is something; look for orphans now and then."""
        while True:
            try:
                if await self._drain():
                    with suppress(TimeoutError):
                        async with asyncio.timeout(ADOPT_EVERY_S):
                            await self._wake.wait()
                    self._wake.clear()
                    if self.is_empty:
                        await asyncio.to_thread(self._adopt)
                else:
                    await asyncio.sleep(PROBE_S)
            except Exception:
                log.exception("spool.failed")
                await asyncio.sleep(PROBE_S)

    async def _drain(self) -> bool:
        """Replay everything that is held, the oldest file first. False when the database is still away."""
        while True:
            file = next((f for f in self._adopted if not f.is_drained), None)
            if file is None:
                while self._adopted:
                    await asyncio.to_thread(self._adopted.pop().finish)
                file = self._own
            if file is None or file.is_drained:
                if self._waiting or (self._writer is not None and not self._writer.done()):
                    await asyncio.sleep(GROUP_S)
                    continue
                # no await between this look and the next appended record: the way is free
                if self._own is not None and self._own.is_damaged:
                    self._own.finish()
                    self._own = None
                elif self._own is not None and self._own.size:
                    self._own.clear()
                if not self._drained.is_set():
                    log.info("spool.drained")
                self._oldest = 0.0
                self._closing = False
                self._drained.set()
                return True
            self._drained.clear()
            deliveries, position = await asyncio.to_thread(file.read, BATCH)
            if deliveries:
                failpoint("spool.mid_replay")
                try:
                    await self._replay(deliveries)
                except Unavailable:
                    self._closing = False
                    return False
                except Exception:
                    try:
                        await self._replay_singly(file, deliveries)
                    except Unavailable:
                        return False
                metrics.SPOOLED.labels("replayed").inc(len(deliveries))
            file.position = position
            # near its end, requests wait for the replay instead of lengthening it for ever
            self._closing = file is self._own and file.size - file.position < 64 * 1024

    async def _replay_singly(self, file: SpoolFile, deliveries: list[Delivery]) -> None:
        """A bug met one of them: the others pass, and the file is kept for the operator. Raises
        Unavailable."""
        for delivery in deliveries:
            try:
                await self._replay([delivery])
            except Unavailable:
                raise
            except Exception:
                log.exception("spool.not_replayed", file=file.path.name)
                file.is_damaged = True
