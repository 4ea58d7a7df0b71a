"""aiohttp's HTTP server with what it lacks: a deadline for a request's head, and answers to requests that
cannot be read which look like all our others (no version, no traceback in the log for every scanner)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

import structlog
from aiohttp import HttpVersion11, web
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong
from aiohttp.streams import EMPTY_PAYLOAD
from aiohttp.web_protocol import RequestHandler, _ErrInfo

from hub.edge import always, new_request_id
from hub.errors import BadRequest, HeadersTooLarge, HubError, RequestTimeout, internal
from hub.http_errors import error_response

log = structlog.get_logger()
#: From a head's first byte to its last (guarantees 14). Between two requests the keep-alive counts.
HEAD_S: Final = 10.0
KEEPALIVE_S: Final = 75.0
#: 10,000 ids in one `in.(…)` (rest.md 1.8); long tokens and cookies; what browsers and proxies add to them.
LONGEST_LINE: Final = 512 * 1024
LONGEST_FIELD: Final = 64 * 1024
MOST_HEADERS: Final = 128


class _HeadIsLate(HttpProcessingError):
    """Not sent within HEAD_S."""


class _Handler(RequestHandler):
    """One connection."""

    __slots__ = ("_head", "_secure")

    def __init__(self, *args: Any, secure: bool, **options: Any) -> None:
        super().__init__(*args, **options)
        self._secure = secure
        self._head: asyncio.TimerHandle | None = None

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        # Something came and still a request is waited for (the first one also before the task that waits has
        # begun): its head is not whole.
        waits = self._request_count == 0 or (self._waiter is not None and not self._waiter.done())
        if not waits:
            self._stop_the_clock()
        elif self._head is None:
            self._head = self._loop.call_later(HEAD_S, self._give_up)

    def resume_reading(self, resume_parser: bool = True) -> None:
        # asked for with every piece of a body that is read; the original then parses nothing once more
        if self._reading_paused or self._buffer_paused:
            super().resume_reading(resume_parser)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._stop_the_clock()
        super().connection_lost(exc)

    def _stop_the_clock(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None

    def _give_up(self) -> None:
        """Answered as a request that cannot be read, so that a client learns why, and hung up."""
        self._head = None
        if self._waiter is not None and not self._waiter.done():
            late = _HeadIsLate(message="late")
            self._messages.append((_ErrInfo(408, late, "late"), EMPTY_PAYLOAD))
            self._waiter.set_result(None)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """What never reached the middleware, or broke in it."""
        if request.writer.output_size > 0:  # part of an answer is out: nothing can be said any more
            raise ConnectionError("The answer has begun")
        request_id = new_request_id()
        refusal = _refusal(exc)
        if refusal is None:
            log.error("request.broke", request_id=request_id, exc_info=exc)
            refusal = internal()
        else:
            log.info("request.unreadable", request_id=request_id, why=type(exc).__name__)
        response = error_response(refusal, "web", request_id)
        always(response, request_id, self._secure)
        response.force_close()
        return response


def _refusal(exc: BaseException | None) -> HubError | None:
    """None for a bug of ours. The parser's own words quote what was sent, so they are not repeated."""
    if isinstance(exc, _HeadIsLate):
        return RequestTimeout("The request's head did not arrive within 10 seconds")
    if isinstance(exc, LineTooLong) or (
        isinstance(exc, HttpProcessingError) and exc.message.startswith("Too many headers")
    ):
        return HeadersTooLarge("The request line or a header is too long, or there are too many headers")
    if isinstance(exc, HttpProcessingError):
        return BadRequest("This is not a request that can be read")
    return None


Before = Callable[[Any], Any]
"""Makes the handler that stands before the application's."""


class _Server(web.Server):
    """Makes our handlers."""

    def __init__(self, like: web.Server, secure: bool, before: Before) -> None:
        super().__init__(before(like.request_handler), request_factory=like.request_factory, **like._kwargs)
        self._secure = secure

    def __call__(self) -> RequestHandler:
        return _Handler(self, loop=self._loop, secure=self._secure, **self._kwargs)


async def expect(request: web.Request) -> None:
    """For every route. An expectation that nobody knows is passed over (RFC 9110 10.1.1 lets us); aiohttp's
    own answer to it goes round the middleware and repeats what was sent."""
    if request.version >= HttpVersion11 and request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # the answer itself has not begun


class Runner(web.AppRunner):
    """Serves an application with the limits of guarantees 14 and 19; bodies are never inflated."""

    __slots__ = ("_before", "_secure")

    def __init__(
        self, app: web.Application, *, secure: bool, shutdown_timeout: float, before: Before = lambda h: h
    ) -> None:
        super().__init__(
            app,
            access_log=None,
            auto_decompress=False,
            keepalive_timeout=KEEPALIVE_S,
            max_line_size=LONGEST_LINE,
            max_field_size=LONGEST_FIELD,
            max_headers=MOST_HEADERS,
            lingering_time=5.0,
            shutdown_timeout=shutdown_timeout,
        )
        self._secure = secure
        self._before = before

    async def _make_server(self) -> web.Server:
        return _Server(await super()._make_server(), self._secure, self._before)
