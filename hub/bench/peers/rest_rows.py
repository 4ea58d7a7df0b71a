"""The same list on aiohttp as rows → dicts → orjson, and an insert that returns its row."""

from __future__ import annotations

import json
import sys
from typing import Any

import asyncpg
import orjson
import uvloop
from aiohttp import web


def plain(value: Any) -> Any:
    return str(value)


async def codecs(conn: asyncpg.Connection[asyncpg.Record]) -> None:
    await conn.set_type_codec(
        "jsonb", encoder=lambda v: orjson.dumps(v).decode(), decoder=orjson.loads, schema="pg_catalog"
    )


def main() -> None:
    uvloop.install()
    options = json.loads(sys.argv[1])
    names = ", ".join(options["columns"])
    listing = f"select {names} from contacts where organization_id = $1 order by created_at desc limit $2"
    insert = (
        "insert into contacts (organization_id, first_name, last_name, phones, emails, custom_fields)"
        f" values ($1, $2, $3, $4, $5, $6) returning {names}"
    )
    pools: list[asyncpg.Pool[asyncpg.Record]] = []

    async def start(_: web.Application) -> None:
        pools.append(await asyncpg.create_pool(options["dsn"], min_size=16, max_size=16, init=codecs))

    async def get(request: web.Request) -> web.Response:
        rows = await pools[0].fetch(listing, options["organization"], int(request.query.get("limit", 100)))
        body = orjson.dumps([dict(row) for row in rows], default=plain)
        return web.Response(body=body, content_type="application/json")

    async def post(request: web.Request) -> web.Response:
        given = orjson.loads(await request.read())
        row = await pools[0].fetchrow(
            insert, options["organization"], given["first_name"], given["last_name"], given["phones"],
            given["emails"], given["custom_fields"],
        )  # fmt: skip
        assert row is not None
        body = orjson.dumps([dict(row)], default=plain)
        return web.Response(status=201, body=body, content_type="application/json")

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
