"""Files on their way out: a provider gets the bytes before the message that shows them is sent.

An upload tells the customer nothing, so unlike a send it may be repeated: what went wrong is tried again, and
a worker that dies over it costs a second copy at the provider.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any, BinaryIO, Final
from uuid import UUID

import aiohttp
import msgspec

from hub import metrics
from hub.channels.media import default_name, kind_of
from hub.channels.media_storage import Storage
from hub.channels.protocol import (
    ChannelAdapter,
    Permanent,
    ProviderEnv,
    ResponseFacts,
    Retryable,
    Unknown,
    UploadDescription,
    Uploaded,
    Verdict,
)
from hub.db.pool import Database
from hub.settings import Settings
from sql import q
from workers.transport import NotSent, perform_call, timeout_of

AT_ONCE: Final = 4
"""Uploads of one process; each holds a file open and a connection busy."""


class Handed(msgspec.Struct, frozen=True):
    """The provider has the file under `id`; not `is_new`: from earlier, and perhaps it has forgotten."""

    id: str
    is_new: bool


class _File(msgspec.Struct, frozen=True):
    """One row of q.media_for_send, in column order."""

    storage_key: str
    mime_type: str
    byte_size: int
    sha256: str
    file_name: str | None
    provider_id: str | None


class Uploads:
    """Gives files to providers and remembers their ids."""

    def __init__(self, db: Database, settings: Settings, session: aiohttp.ClientSession) -> None:
        self._db, self._settings, self._session = db, settings, session
        self._storage = Storage(settings.media_dir)
        self._free = asyncio.Semaphore(AT_ONCE)

    async def hand_over(
        self,
        adapter: ChannelAdapter,
        organization_id: UUID,
        account_id: UUID,
        file_id: UUID,
        account: dict[str, Any],
        env: ProviderEnv,
    ) -> Handed | Verdict | NotSent:
        """The provider's id of a file, uploaded now if need be; else why not. Raises Unrenderable,
        Unavailable."""
        async with self._db.connection("worker") as conn:
            row = await conn.fetchrow(q.media_for_send, organization_id, file_id, account_id)
        if row is None:
            return Permanent("media_missing", "The file of this message is gone")
        file = _File(*row)
        if file.provider_id is not None:
            return Handed(file.provider_id, False)
        name = file.file_name or default_name(kind_of(file.mime_type, file.byte_size), file.mime_type)
        upload = adapter.render_media_upload(file.mime_type, name, account, env)
        async with self._free:
            answer = await self._post(upload, self._storage.path_of(file.storage_key))
        if not isinstance(answer, ResponseFacts):
            metrics.MEDIA_TOTAL.labels("out", "not_sent" if isinstance(answer, NotSent) else "retry").inc()
            return answer
        verdict = adapter.read_media_upload(answer)
        metrics.MEDIA_TOTAL.labels("out", type(verdict).__name__.lower()).inc()
        if isinstance(verdict, Unknown):
            return Retryable("upload", verdict.reason)
        if not isinstance(verdict, Uploaded):
            return verdict
        metrics.MEDIA_BYTES.labels("out").inc(file.byte_size)
        lasts = timedelta(seconds=adapter.limits.upload_keep_s)
        async with self._db.connection("worker") as conn:
            await conn.execute(q.keep_provider_media, organization_id, file_id, account_id, verdict.id, lasts)
        return Handed(verdict.id, True)

    async def _post(self, upload: UploadDescription, path: Path) -> ResponseFacts | Verdict | NotSent:
        try:
            file = await asyncio.to_thread(_open, path)
        except FileNotFoundError:
            return Permanent("media_missing", "The bytes of this file are not on this worker's disk")
        try:
            form = aiohttp.FormData(quote_fields=False)
            for name, value in upload.fields:
                form.add_field(name, value)
            form.add_field(upload.file_field, file, filename=upload.filename, content_type=upload.mime_type)
            answer = await perform_call(
                self._session,
                "POST",
                upload.url,
                upload.headers,
                form,
                is_send=False,
                limits=timeout_of(self._settings, self._settings.provider_media_s),
            )
        finally:
            await asyncio.to_thread(file.close)
        return Retryable("upload", answer.reason) if isinstance(answer, Unknown) else answer


def _open(path: Path) -> BinaryIO:
    return path.open("rb")
