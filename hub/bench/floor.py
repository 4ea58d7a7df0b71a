"""The floor of the ingest benchmark: a bare aiohttp server that reads, checks the HMAC, decodes with msgspec
and answers 200."""

from __future__ import annotations

import hashlib
import hmac
import os

import msgspec
import uvloop
from aiohttp import web

from hub.bench.stage import APP_SECRET

_SECRET = APP_SECRET.encode()
_decode = msgspec.json.Decoder().decode


async def handle(request: web.Request) -> web.Response:
    body = await request.read()
    if body:
        signature = hmac.new(_SECRET, body, hashlib.sha256).hexdigest()
        if not hmac.compare_digest(f"sha256={signature}", request.headers.get("X-Hub-Signature-256", "")):
            return web.Response(status=401)
        _decode(body)
    return web.Response(text="ok")


def main() -> None:
    uvloop.install()
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", handle)
    web.run_app(app, host="127.0.0.1", port=int(os.environ["HUB_PORT"]), access_log=None, print=None)


if __name__ == "__main__":
    main()
