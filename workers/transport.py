"""The one client for providers, and what a request meant that got no complete answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final

import aiohttp
import msgspec
from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import BytesPayload

from hub import clock
from hub.channels.protocol import RequestDescription, ResponseFacts, Unknown
from hub.failpoints import failpoint
from hub.settings import Settings

ANSWER_BYTES: Final = 256 * 1024


class NotSent(msgspec.Struct, frozen=True):
    """No connection, so not one byte reached the provider."""

    reason: str


class TooLate(Exception):
    """Whoever wanted this may not begin it any more; not one byte left."""


MayStart = Callable[[], bool]


class _LastLook(BytesPayload):
    """Bytes that ask once more, right before they and the request's head leave together. Getting there takes
    a while (DNS, TLS, other tasks' turns), and a process that stood still meanwhile would simply go on."""

    def __init__(self, value: bytes, may_start: MayStart) -> None:
        super().__init__(value)
        self._may_start = may_start
        self.is_late = False

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        self.is_late = not self._may_start()
        if self.is_late:
            raise TooLate
        await super().write_with_length(writer, content_length)


class _Flags:
    """Where one request is, as the client's tracing tells us."""

    __slots__ = ("has_connection", "is_send")

    def __init__(self, is_send: bool) -> None:
        self.has_connection = False
        self.is_send = is_send


def tracing() -> aiohttp.TraceConfig:
    """Notes the moment from which bytes may have left."""

    async def connected(_: aiohttp.ClientSession, context: Any, __: Any) -> None:
        if (flags := context.trace_request_ctx) is not None:
            flags.has_connection = True

    async def written(_: aiohttp.ClientSession, context: Any, __: Any) -> None:
        if (flags := context.trace_request_ctx) is not None and flags.is_send:
            asyncio.get_running_loop().call_soon(failpoint, "send.after_bytes")

    trace = aiohttp.TraceConfig()
    trace.on_connection_create_end.append(connected)
    trace.on_connection_reuseconn.append(connected)
    trace.on_request_chunk_sent.append(written)
    return trace


def make_session(settings: Settings, connector: aiohttp.BaseConnector | None = None) -> aiohttp.ClientSession:
    """A client without redirects, cookies and proxies from the environment, of at most 100 connections."""
    return aiohttp.ClientSession(
        connector=connector or aiohttp.TCPConnector(limit=100, keepalive_timeout=15),
        timeout=timeout_of(settings, settings.provider_total_s),
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        trace_configs=[tracing()],
    )


def timeout_of(settings: Settings, total_s: float) -> aiohttp.ClientTimeout:
    """``total_s`` in all, of which connecting has its own share."""
    return aiohttp.ClientTimeout(
        total=total_s, connect=settings.provider_connect_s, sock_connect=settings.provider_connect_s
    )


async def perform(
    session: aiohttp.ClientSession,
    request: RequestDescription,
    *,
    is_send: bool = True,
    may_start: MayStart | None = None,
) -> ResponseFacts | NotSent | Unknown:
    """The complete answer, or what the lack of one means. `may_start` is asked right before the first byte
    leaves; raises TooLate when it says no."""
    late = _LastLook(request.body, may_start) if request.body and may_start is not None else None
    answer = await perform_call(
        session,
        request.method,
        request.url,
        request.headers,
        late or request.body or None,
        is_send=is_send,
        limits=None,
    )
    if late is not None and late.is_late:
        raise TooLate
    return answer


async def perform_call(
    session: aiohttp.ClientSession,
    method: str,
    url: str,
    headers: Mapping[str, str],
    body: bytes | BytesPayload | aiohttp.FormData | None,
    *,
    is_send: bool,
    limits: aiohttp.ClientTimeout | None,
) -> ResponseFacts | NotSent | Unknown:
    """`perform` for a body of any kind; ``limits`` None: the session's."""
    flags = _Flags(is_send)
    try:
        async with session.request(
            method,
            url,
            headers=headers,
            data=body,
            allow_redirects=False,
            trace_request_ctx=flags,
            timeout=limits or session.timeout,
        ) as response:
            answer = bytearray()
            while chunk := await response.content.readany():
                answer += chunk
                if len(answer) > ANSWER_BYTES:
                    return Unknown("The answer is too long to be one")
            return ResponseFacts(
                status=response.status, headers=response.headers, body=bytes(answer), received_at=clock.now()
            )
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        what = type(error).__name__
        if flags.has_connection:
            return Unknown(f"No complete answer ({what})")
        return NotSent(f"The provider could not be reached ({what})")
