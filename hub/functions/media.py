"""upload-media takes a file that a message will show; media/<id> gives a message's file back."""

from __future__ import annotations

import asyncio
from typing import Any, Final
from uuid import UUID

import aiohttp
import structlog
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from hub.channels.media import (
    clean_name,
    default_name,
    disposition,
    kind_of,
    served_type,
    sniff,
)
from hub.channels.media_storage import Incoming, Storage, TooLarge
from hub.db.tenancy import acting_as
from hub.domain.principal import Principal
from hub.errors import (
    BadRequest,
    Conflict,
    NotFound,
    PayloadTooLarge,
    RequestTimeout,
    UnsupportedMedia,
    invalid,
)
from hub.functions.calls import once, require_permission
from hub.resources import DB, DISK, SETTINGS
from sql import q

log = structlog.get_logger()

UPLOAD_S: Final = 300.0
"""25 MiB over a telephone line; a client that is slower holds a connection, it does not send."""
FRAME_BYTES: Final = 64 * 1024
"""What multipart adds to the file itself, at most."""
_KEEP: Final = "private, max-age=86400, immutable"
_SANDBOX: Final = "sandbox; default-src 'none'"


async def upload_media(request: web.Request, principal: Principal) -> web.Response:
    """Keep the part `file` of a multipart body. A repeat with the same Idempotency-Key and the same bytes
    answers with the same file."""
    require_permission(principal, "can_send_messages")
    settings = request.app[SETTINGS]
    if request.content_type != "multipart/form-data":
        raise UnsupportedMedia("Send the file as multipart/form-data, in a part named `file`")
    limit = settings.media_max_bytes
    too_large = PayloadTooLarge(f"A file may have at most {limit} bytes", details={"limit": limit})
    if request.content_length is not None and request.content_length > limit + FRAME_BYTES:
        raise too_large
    storage = Storage(settings.media_dir)
    request.app[DISK].require_room(limit)
    async with storage.incoming(limit) as file:
        try:
            async with asyncio.timeout(UPLOAD_S):
                name = await _receive(request, file)
        except TooLarge as error:
            raise too_large from error
        except TimeoutError as error:
            raise RequestTimeout(f"The file did not arrive within {UPLOAD_S:g} seconds") from error
        if not file.size:
            raise invalid("file", "must not be empty")
        mime = sniff(file.head, name)
        kind = kind_of(mime, file.size)
        organization_id = principal.organization_id
        assert organization_id is not None

        async def work(conn: Any) -> Any:
            await conn.execute(q.lock_media, organization_id, storage.key_of(organization_id, file.sha256))
            key = await storage.keep(file, organization_id)
            id = await conn.fetchval(q.keep_upload, key, file.sha256, file.size, mime, name)
            return {
                "success": True,
                "media": {
                    "id": id,
                    "kind": kind,
                    "mime_type": mime,
                    "file_name": name or default_name(kind, mime),
                    "byte_size": file.size,
                    "sha256": file.sha256,
                },
            }

        return await once(request, principal, f"{file.sha256}\n{name}".encode(), work)


async def _receive(request: web.Request, file: Incoming) -> str | None:
    """Write the part `file`; its clean name. Other parts may come before it and mean nothing.
    Raises TooLarge, BadRequest, ValidationFailed."""
    other = 0
    try:
        async for part in await request.multipart():
            if not isinstance(part, aiohttp.BodyPartReader):
                raise BadRequest("A part must not have parts of its own")
            if part.name != "file":
                while chunk := await part.read_chunk(FRAME_BYTES):
                    other += len(chunk)
                    if other > FRAME_BYTES:
                        raise TooLarge
                continue
            if part.headers.get("Content-Encoding") or part.headers.get("Content-Transfer-Encoding"):
                raise UnsupportedMedia("Send the file as it is, without an encoding")
            while chunk := await part.read_chunk(64 * 1024):
                await file.write(chunk)
            await file.finish()
            return clean_name(_unescape(part.filename or ""))
    except (ValueError, RuntimeError, HttpProcessingError, web.RequestPayloadError) as error:
        if isinstance(error, TooLarge):
            raise
        raise BadRequest("The multipart body cannot be read") from error
    raise invalid("file", "a part named file is required")


def _unescape(name: str) -> str:
    """Browsers write a form's file name as it is, save these three (WHATWG); nothing else is an escape."""
    return name.replace("%22", '"').replace("%0D", "\r").replace("%0A", "\n")


async def get_media(request: web.Request, principal: Principal) -> web.StreamResponse:
    """A file's bytes for whoever may read messages, as a download that runs nothing. Ranges, HEAD and
    If-None-Match work."""
    require_permission(principal, "can_read_messages")
    settings = request.app[SETTINGS]
    try:
        id = UUID(request.match_info["id"])
    except ValueError:
        raise NotFound("No such file") from None
    async with acting_as(request.app[DB], principal, read_only=True) as conn:
        row = await conn.fetchrow(q.media_file, id)
    if row is None:
        raise NotFound("No such file")
    if row["state"] == "pending":
        raise Conflict(
            "This file is still being fetched from the provider",
            details={"state": "pending"},
            retry_after_s=2,
        )
    if row["state"] != "stored":
        raise NotFound(
            "This file could not be fetched", details={"state": row["state"], "reason": row["error"]}
        )
    storage = Storage(settings.media_dir)
    path = storage.path_of(row["storage_key"])
    if not await asyncio.to_thread(path.is_file):
        log.error("media.bytes_missing", file=str(id))
        raise NotFound("The bytes of this file are not on this hub's disk", details={"state": "missing"})
    headers = {
        "Content-Type": served_type(row["mime_type"]),
        "Content-Disposition": disposition(
            row["file_name"] or default_name(kind_of(row["mime_type"], row["byte_size"]), row["mime_type"])
        ),
        "Content-Security-Policy": _SANDBOX,
        "Cross-Origin-Resource-Policy": "same-origin",
        "Cache-Control": _KEEP,
        "Vary": "Authorization",
    }
    return _File(path, row["sha256"], headers)


class _File(web.FileResponse):
    """A file whose tag is its digest, whatever the disk's clock says."""

    def __init__(self, path: Any, sha256: str, headers: dict[str, str]) -> None:
        super().__init__(path, headers=headers, chunk_size=256 * 1024)
        self._sha256 = sha256

    @property
    def etag(self) -> Any:
        """Always the digest's: FileResponse sets one of time and size as it opens the file."""
        return super().etag

    @etag.setter
    def etag(self, value: Any) -> None:
        self.headers["ETag"] = f'"{self._sha256}"'

    async def prepare(self, request: web.BaseRequest) -> Any:
        """As FileResponse, with If-None-Match decided by the digest."""
        wanted = request.if_none_match
        if wanted is not None and any(tag.value in ("*", self._sha256) for tag in wanted):
            self.set_status(304)
            self.etag = None
            self._length_check = False
            return await web.StreamResponse.prepare(self, request)
        return await super().prepare(request)
