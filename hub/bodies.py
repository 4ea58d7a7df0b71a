"""Reading JSON bodies with limits, and writing JSON answers."""

from __future__ import annotations

import re
from typing import Any, Final, TypeVar

import msgspec
from aiohttp import web

from hub.errors import BadRequest, PayloadTooLarge, UnsupportedMedia

T = TypeVar("T")
JSON_BYTES: Final = 1024 * 1024
JSON_DEPTH: Final = 64
# A whole string, or one bracket outside of strings.
_BRACKETS = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[\[{\]}]', re.DOTALL)
_encode = msgspec.json.Encoder(uuid_format="canonical").encode


async def read_body(request: web.Request, limit: int = JSON_BYTES) -> bytes:
    """The whole body. Raises PayloadTooLarge above ``limit``, before the rest is read."""
    too_large = PayloadTooLarge("The body is too large", details={"limit": limit})
    if request.content_length is not None and request.content_length > limit:
        raise too_large
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.content.iter_any():
        size += len(chunk)
        if size > limit:
            raise too_large
        chunks.append(chunk)
    return b"".join(chunks)


async def read_json(request: web.Request, decoder: msgspec.json.Decoder[T], *, empty: T | None = None) -> T:
    """The body as a struct; ``empty`` stands for no body at all.
    Raises BadRequest for what is no JSON, msgspec.ValidationError (a 422) for JSON of another shape."""
    return decode_json(await read_body(request), decoder, request.content_type, empty=empty)


def decode_json(
    raw: bytes, decoder: msgspec.json.Decoder[T], content_type: str, *, empty: T | None = None
) -> T:
    """See read_json."""
    if not raw.strip():
        if empty is not None:
            return empty
        raise BadRequest("A JSON body is required", rest_code="PGRST102")
    # text/plain is what `invoke(name, {body: string})` and some curl calls send; only a form is surely a
    # mistake
    if content_type.startswith("multipart/") or (
        content_type == "application/x-www-form-urlencoded" and raw[:1] not in b"{["
    ):
        raise UnsupportedMedia("Send the body as application/json")
    check_depth(raw)
    return decoder.decode(raw)


def check_depth(raw: bytes, limit: int = JSON_DEPTH) -> None:
    """Refuse JSON nested deeper than ``limit`` without building it. Brackets inside strings do not count."""
    if raw.count(b"[") + raw.count(b"{") <= limit:
        return
    depth = 0
    for token in _BRACKETS.finditer(raw):
        bracket = token[0]
        if bracket in (b"[", b"{"):
            depth += 1
            if depth > limit:
                raise BadRequest(f"JSON nested deeper than {limit} levels", rest_code="PGRST102")
        elif bracket in (b"]", b"}"):
            depth -= 1


def json_response(document: Any, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(
        body=_encode(document),
        status=status,
        content_type="application/json",
        charset="utf-8",
        headers=headers,
    )
