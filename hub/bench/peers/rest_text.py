"""The least that aiohttp can do: Postgres builds the JSON with the hub's own statement, and its bytes are
passed on. Nobody is signed in, counted or checked; it reads as the tables' owner.

{"dsn", "listing", "listing_args", "insert", "port"}
"""

from __future__ import annotations

import json
import sys

import asyncpg
import uvloop
from aiohttp import web


def main() -> None:
    uvloop.install()
    options = json.loads(sys.argv[1])
    listing, arguments, insert = options["listing"], options["listing_args"], options["insert"]
    pools: list[asyncpg.Pool[asyncpg.Record]] = []

    async def start(_: web.Application) -> None:
        pools.append(await asyncpg.create_pool(options["dsn"], min_size=16, max_size=16))

    async def get(_: web.Request) -> web.Response:
        row = await pools[0].fetchrow(listing, *arguments)
        assert row is not None
        return web.Response(body=row["body"], content_type="application/json")

    async def post(request: web.Request) -> web.Response:
        text = await pools[0].fetchval(insert, (await request.read()).decode())
        return web.Response(status=201, text=f"[{text}]", content_type="application/json")

    async def ready(_: web.Request) -> web.Response:
        return web.Response(text="ok")

    app = web.Application()
    app.on_startup.append(start)
    app.router.add_get("/", ready)
    app.router.add_get("/contacts", get)
    app.router.add_post("/contacts", post)
    web.run_app(app, host="127.0.0.1", port=options["port"], access_log=None, print=None)


if __name__ == "__main__":
    main()
