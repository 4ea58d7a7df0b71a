"""Reading JSON bodies with limits, and writing JSON answers."""

from __future__ import annotations

import asyncio
import re
from typing import Any, Final, TypeVar

import msgspec
from aiohttp import web

from hub.errors import BadRequest, PayloadTooLarge, RequestTimeout, UnsupportedMedia

T = TypeVar("T")
JSON_BYTES: Final = 1024 * 1024
JSON_DEPTH: Final = 64
#: A body that takes longer is a client that holds a connection, not one that sends.
BODY_S: Final = 10.0
# A whole string (also one that never ends), or one bracket outside of strings. Possessive: a body of a
# million quotes is passed once, not once a quote.
_BRACKETS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)|[\[{\]}]', re.DOTALL)
# A number with an exponent of three digits or more; the same outside of strings.
_POWER = re.compile(rb"[0-9][eE][+-]?0*[1-9][0-9]{2}")
_POWERS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)|[0-9][eE]([+-]?[0-9]++)', re.DOTALL)
#: A double's: what every parser of JSON reads alike. Postgres would write 1e99999 out in full.
_LARGEST_POWER: Final = 308
_encode = msgspec.json.Encoder(uuid_format="canonical").encode


async def read_body(request: web.BaseRequest, limit: int = JSON_BYTES) -> bytes:
    """The whole body. Raises PayloadTooLarge above ``limit``, before the rest is read, and RequestTimeout for
    one that does not arrive."""
    if request.content_length is not None and request.content_length > limit:
        raise _too_large(limit)
    if request.content.is_eof():  # all of it is here already: no clock needed
        whole = request.content.read_nowait()
        if len(whole) > limit:
            raise _too_large(limit)
        return whole
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_S):
            async for chunk in request.content.iter_any():
                size += len(chunk)
                if size > limit:
                    raise _too_large(limit)
                chunks.append(chunk)
    except TimeoutError as error:
        raise RequestTimeout(f"The body did not arrive within {BODY_S:g} seconds") from error
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _too_large(limit: int) -> PayloadTooLarge:
    return PayloadTooLarge("The body is too large", details={"limit": limit})


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
    check_json(raw)
    return decoder.decode(raw)


def check_json(raw: bytes) -> None:
    """Refuse, without building it, JSON that is small here and large or different elsewhere: nested deeper
    than JSON_DEPTH, or with numbers beyond a double's. What stands inside strings does not count."""
    if raw.count(b"[") + raw.count(b"{") > JSON_DEPTH:
        _check_depth(raw, JSON_DEPTH)
    if _POWER.search(raw) is not None:
        for found in _POWERS.finditer(raw):
            if found[1] is not None and (len(found[1]) > 300 or abs(int(found[1])) > _LARGEST_POWER):
                raise BadRequest("A number is out of range", rest_code="PGRST102")


def _check_depth(raw: bytes, limit: int) -> None:
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
