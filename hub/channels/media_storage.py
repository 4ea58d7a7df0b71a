"""Where files of messages lie: a folder that hubs and workers share.

    media/<organization>/<aa>/<sha256>      complete, never changed; <aa>: its first two digits
    media/tmp/<random>                      being written

Bytes are written and fsynced beside their place and renamed into it, so what has a name is whole, also after
a power cut. Equal bytes of an organization lie there once. Names of senders appear nowhere on the disk.
Bytes come and go under `app.lock_media`: see sql/functions/55_media.sql.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import secrets
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import BinaryIO, Final
from uuid import UUID

from hub.channels.media import HEAD_BYTES

_KEY = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}/[0-9a-f]{2}/[0-9a-f]{64}")
_HOP_BYTES: Final = 256 * 1024
"""Bytes that are collected before a thread writes them."""
ABANDONED_S: Final = 3600.0
"""A temporary file this old belongs to nobody: no transfer may take so long."""


class TooLarge(ValueError):
    """More bytes than allowed."""


class Incoming:
    """A file being written. `write` as bytes come, then `finish`, then `Storage.keep`."""

    def __init__(self, path: Path, file: BinaryIO, limit: int) -> None:
        self.path = path
        self.size = 0
        self.head = b""
        self._file, self._limit = file, limit
        self._digest = hashlib.sha256()
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0

    @property
    def sha256(self) -> str:
        """Lower hexadecimal; of everything after `finish`."""
        return self._digest.hexdigest()

    async def write(self, chunk: bytes) -> None:
        """Raises TooLarge with the first byte above the limit, OSError when the disk is full."""
        self.size += len(chunk)
        if self.size > self._limit:
            raise TooLarge
        if len(self.head) < HEAD_BYTES:
            self.head += chunk[: HEAD_BYTES - len(self.head)]
        self._waiting.append(chunk)
        self._waiting_bytes += len(chunk)
        if self._waiting_bytes >= _HOP_BYTES:
            await asyncio.to_thread(self._flush)

    async def finish(self) -> None:
        """Everything is on the disk when this returns."""
        await asyncio.to_thread(self._sync)

    def _flush(self) -> None:
        data = b"".join(self._waiting)
        self._waiting.clear()
        self._waiting_bytes = 0
        self._digest.update(data)
        self._file.write(data)

    def _sync(self) -> None:
        self._flush()
        self._file.flush()
        os.fsync(self._file.fileno())


class Storage:
    """The folder. Another store (S3) would have the same verbs."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._tmp = root / "tmp"

    @asynccontextmanager
    async def incoming(self, limit: int) -> AsyncIterator[Incoming]:
        """A new file of at most ``limit`` bytes; what was not kept when the block ends is gone."""
        path = self._tmp / secrets.token_hex(16)
        file = await asyncio.to_thread(self._create, path)
        try:
            yield Incoming(path, file, limit)
        finally:
            await asyncio.to_thread(self._discard, path, file)

    def _create(self, path: Path) -> BinaryIO:
        path.parent.mkdir(parents=True, exist_ok=True)
        return open(path, "xb", buffering=0)

    def _discard(self, path: Path, file: BinaryIO) -> None:
        file.close()
        path.unlink(missing_ok=True)

    @staticmethod
    def key_of(organization_id: UUID, sha256: str) -> str:
        """What media_files.storage_key holds."""
        return f"{organization_id}/{sha256[:2]}/{sha256}"

    def path_of(self, key: str) -> Path:
        """Where the bytes of a key are, if they are. Raises ValueError for what is no key of ours."""
        if _KEY.fullmatch(key) is None:
            raise ValueError("This is no storage key")
        return self.root / key

    async def keep(self, file: Incoming, organization_id: UUID) -> str:
        """Give a finished file its place; its key. Runs inside the transaction that holds `app.lock_media`
        of the key and writes the row that names it. Harmless when repeated."""
        key = self.key_of(organization_id, file.sha256)
        await asyncio.to_thread(self._place, file.path, self.path_of(key))
        return key

    def _place(self, temporary: Path, place: Path) -> None:
        if place.exists():
            return
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(temporary, place)
        except FileExistsError:
            return
        except OSError:  # a file system without hard links
            copy = temporary.with_suffix(".copy")
            shutil.copyfile(temporary, copy)
            with copy.open("rb+") as file:
                os.fsync(file.fileno())
            copy.replace(place)
        for folder in (place.parent, place.parent.parent, self.root):
            fd = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)

    async def delete(self, key: str) -> None:
        """Under `app.lock_media` only. Nothing happens when it is gone."""
        await asyncio.to_thread(self.path_of(key).unlink, missing_ok=True)

    async def keys(self, after: str, limit: int) -> list[str]:
        """Up to ``limit`` keys above ``after``, in order; [] at the end."""
        return await asyncio.to_thread(self._keys, after, limit)

    def _keys(self, after: str, limit: int) -> list[str]:
        found: list[str] = []
        at_org, _, rest = after.partition("/")
        at_part = rest.partition("/")[0]
        for org in _names(self.root):
            if org < at_org or org == "tmp":
                continue
            for part in _names(self.root / org):
                if org == at_org and part < at_part:
                    continue
                for name in _names(self.root / org / part):
                    key = f"{org}/{part}/{name}"
                    if key > after and _KEY.fullmatch(key):
                        found.append(key)
                        if len(found) == limit:
                            return found
        return found

    async def sweep(self) -> None:
        """Remove temporary files that nobody writes any more."""
        await asyncio.to_thread(self._sweep)

    def _sweep(self) -> None:
        limit = time.time() - ABANDONED_S
        for name in _names(self._tmp):
            path = self._tmp / name
            try:
                if path.stat().st_mtime < limit:
                    path.unlink()
            except FileNotFoundError:
                continue


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []
