"""The short way of providers' deliveries: past the router, the middleware and the response objects.

A delivery that ends well needs none of them, and together they cost a fifth of the hub's time for it. What
does not end well goes the long way from there, so refusals, their log lines and headers have one source.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from email.utils import formatdate
from typing import Any, Final

from aiohttp import HttpVersion11, hdrs, web

from hub.edge import always, edge, new_request_id
from hub.metrics import HTTP_SECONDS
from hub.resources import LIFE, SETTINGS

Handler = Callable[[Any], Awaitable[web.StreamResponse]]
Take = Callable[[web.Application, web.BaseRequest], Awaitable[None]]
"""Returns once the delivery is durable; what it raises is answered the long way."""

_BODY: Final = b"OK"


class Acknowledged:
    """200 "OK", written in one piece. As much of a response as aiohttp's RequestHandler asks for."""

    __slots__ = ("_text", "_transport", "keep_alive")

    def __init__(self, text: bytes) -> None:
        self._text = text
        self.keep_alive = False

    async def prepare(self, request: web.BaseRequest) -> None:
        self.keep_alive = request.keep_alive
        self._transport = request.transport

    async def write_eof(self) -> None:
        if self._transport is not None:
            self._transport.write(self._text)


class ShortCut:
    """The handler that stands before an application's: POSTs to the paths of `posts` are taken here."""

    def __init__(self, app: web.Application, posts: Mapping[str, Take], long_way: Handler) -> None:
        self._app, self._posts, self._long_way = app, posts, long_way
        self._seconds = {path: HTTP_SECONDS.labels(path, "POST", "200") for path in posts}
        self._head = _head(app)
        self._dated = (0, b"")

    async def __call__(self, request: Any) -> Any:
        take = self._posts.get(request.rel_url.raw_path) if request.method == "POST" else None
        if take is None or self._app[LIFE].stopping or not _is_plain(request):
            return await self._long_way(request)
        began = time.perf_counter()
        try:
            await take(self._app, request)
        except Exception as error:
            return await self._refuse(request, error)
        self._seconds[request.rel_url.raw_path].observe(time.perf_counter() - began)
        return Acknowledged(b"%s%s\r\n\r\n%s" % (self._head_now(), new_request_id().encode(), _BODY))

    async def _refuse(self, request: web.Request, error: Exception) -> web.StreamResponse:
        """As if the route's handler had raised it."""
        found = await self._app.router.resolve(request)
        found.add_app(self._app)
        found.freeze()
        request._match_info = found

        held = [error]  # taken out: a variable here would hold its traceback, and with it the body

        async def raise_again(_: web.Request) -> web.StreamResponse:
            raise held.pop()

        return await edge(request, raise_again)

    def _head_now(self) -> bytes:
        """All but the request id, which comes last."""
        second = int(time.time())
        if self._dated[0] != second:
            date = formatdate(second, usegmt=True).encode()
            self._dated = (second, b"%sDate: %s\r\nX-Request-Id: " % (self._head, date))
        return self._dated[1]


def _is_plain(request: web.Request) -> bool:
    """Nothing is asked for that the short answer would not give."""
    headers = request.headers
    return (
        request.version == HttpVersion11
        and hdrs.EXPECT not in headers
        and "X-Request-Id" not in headers
        and headers.get(hdrs.CONNECTION, "keep-alive").lower() == "keep-alive"
    )


def _head(app: web.Application) -> bytes:
    """Status line and headers as the middleware would set them."""
    response = web.Response(body=_BODY, headers={"Content-Type": "text/plain; charset=utf-8"})
    always(response, "", app[SETTINGS].secure)
    del response.headers["X-Request-Id"]
    lines = [f"{name}: {value}" for name, value in response.headers.items()]
    if hdrs.CONTENT_LENGTH not in response.headers:
        lines.append(f"{hdrs.CONTENT_LENGTH}: {len(_BODY)}")
    return "\r\n".join(["HTTP/1.1 200 OK", *lines, ""]).encode()
