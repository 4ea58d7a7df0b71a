"""Files that outlive the process: JSON lines, written by one thread, many records to an fsync."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec

from hub.sandbox.config import Account
from hub.sandbox.personas import Persona

MAX_WAITING = 20_000
"""Records that may wait for the disk; the disk being this far behind is an error to report, not to buffer."""


class Born(msgspec.Struct, frozen=True, tag_field="record", tag="born"):
    """First line of a journal. `nonce` makes ids differ from those of any earlier folder."""

    at: float
    nonce: str


class Sent(msgspec.Struct, frozen=True, kw_only=True, tag_field="record", tag="sent"):
    """A line of the ledger: a send that the provider accepted."""

    n: int
    at: float
    account: str
    wamid: str
    persona: str
    to: str
    type: str
    body: dict[str, Any]
    correlator: str | None = None
    fails: int | None = None
    """The error code of the `failed` status that follows; None = the customer gets it."""


class Said(msgspec.Struct, frozen=True, kw_only=True, tag_field="record", tag="said"):
    """A customer's message, reaction, edit or revoke, in the provider's words without from, id, timestamp."""

    n: int
    at: float
    id: str
    account: str
    persona: str
    message: dict[str, Any]
    client_ref: str | None = None


class Moved(msgspec.Struct, frozen=True, kw_only=True, tag_field="record", tag="moved"):
    """A business message reached a status."""

    wamid: str
    status: str
    at: float
    code: int | None = None


class Acked(msgspec.Struct, frozen=True, tag_field="record", tag="acked"):
    """The hub answered 200 to these events."""

    keys: list[str]


class Marked(msgspec.Struct, frozen=True, tag_field="record", tag="marked"):
    """The hub marked a customer's message (and all before it) as read."""

    id: str
    at: float


class PersonaSet(msgspec.Struct, frozen=True, tag_field="record", tag="persona"):
    """A customer was made or changed."""

    persona: Persona


class AccountSet(msgspec.Struct, frozen=True, tag_field="record", tag="account"):
    """An account was made or changed."""

    account: Account


class Template(msgspec.Struct, kw_only=True):
    """A message template of a WABA."""

    id: str
    waba_id: str
    name: str
    language: str
    category: str
    components: list[dict[str, Any]]
    parameter_format: str = "POSITIONAL"
    status: str = "PENDING"
    reason: str | None = None
    decided_at: float | None = None


class TemplateSet(msgspec.Struct, frozen=True, tag_field="record", tag="template"):
    """A template was made or changed; `deleted` removes it."""

    template: Template
    deleted: bool = False


class Media(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of stored bytes."""

    id: str
    mime_type: str
    sha256: str
    file_size: int
    filename: str | None = None


class MediaSet(msgspec.Struct, frozen=True, tag_field="record", tag="media"):
    """Bytes were stored, or deleted."""

    media: Media
    deleted: bool = False


Record = Born | Sent | Said | Moved | Acked | Marked | PersonaSet | AccountSet | TemplateSet | MediaSet

_RECORD: msgspec.json.Decoder[Record] = msgspec.json.Decoder(Record)
_ENCODER = msgspec.json.Encoder()


def read_records(path: Path) -> list[Record]:
    """All whole records; a last line that a crash cut off is removed from the file. Raises ValueError for
    damage elsewhere."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return []
    end = data.rfind(b"\n") + 1
    if end < len(data):
        os.truncate(path, end)
    records = []
    for number, line in enumerate(data[:end].splitlines(), 1):
        try:
            records.append(_RECORD.decode(line))
        except msgspec.DecodeError as error:
            raise ValueError(f"{path.name} line {number} is damaged: {error}") from error
    return records


class Journal:
    """Appends records to one file. `await append(r)` returns once r is on disk; `note(r)` promises nothing
    but order."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"sandbox-{path.stem}")
        self._waiting: list[tuple[bytes, asyncio.Future[None] | None]] = []
        self._writer: asyncio.Task[None] | None = None

    def _add(self, record: Record, done: asyncio.Future[None] | None) -> None:
        if len(self._waiting) >= MAX_WAITING:
            raise OSError(f"{self.path.name}: the disk is {MAX_WAITING} records behind")
        self._waiting.append((_ENCODER.encode(record) + b"\n", done))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write())

    async def append(self, record: Record) -> None:
        """Returns when the record is fsynced; raises OSError when it could not be."""
        done = asyncio.get_running_loop().create_future()
        self._add(record, done)
        await done

    def note(self, record: Record) -> None:
        """Queues the record behind the others."""
        self._add(record, None)

    async def _write(self) -> None:
        """What arrives during one fsync is the next one's group."""
        loop = asyncio.get_running_loop()
        while self._waiting:
            group, self._waiting = self._waiting, []
            error: OSError | None = None
            try:
                await loop.run_in_executor(self._thread, self._sync, b"".join(line for line, _ in group))
            except OSError as raised:
                error = raised
            for _, done in group:
                if done is not None and not done.done():
                    if error is None:
                        done.set_result(None)
                    else:
                        done.set_exception(error)

    def _sync(self, data: bytes) -> None:
        before = os.fstat(self._fd).st_size
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
            os.fsync(self._fd)
        except OSError:
            os.ftruncate(
                self._fd, before
            )  # a full disk must not leave half a line for the next one to follow
            raise

    async def flush(self) -> None:
        """Returns when everything noted so far is on disk."""
        while self._writer is not None and not self._writer.done():
            await asyncio.wait([self._writer])

    async def empty(self) -> None:
        """Cuts the file to nothing."""
        await self.flush()
        os.ftruncate(self._fd, 0)

    async def close(self) -> None:
        """Flushes and lets the file go."""
        await self.flush()
        self._thread.shutdown(wait=True)
        os.close(self._fd)
