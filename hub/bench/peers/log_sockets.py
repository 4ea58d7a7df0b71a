"""The event log → websockets without Redis: told by NOTIFY, with the event as payload, or by asking the log
every 5 ms.

The sockets are those of the fan-out's floor, so what differs is how the event gets here.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any
from uuid import UUID

import asyncpg
import uvloop

from hub.bench.peers.sockets import _Socket, frame

POLL_S = 0.005


def write(rooms: dict[str, set[asyncio.Transport]], org: str, texts: list[str]) -> None:
    joined = b"".join(frame(text.encode()) for text in texts)
    for transport in tuple(rooms.get(org, ())):
        transport.write(joined)


async def poll(dsn: str, rooms: dict[str, set[asyncio.Transport]]) -> None:
    conn = await asyncpg.connect(dsn)
    heads: dict[str, int] = {}
    while True:
        for org in tuple(rooms):
            if org not in heads:
                heads[org] = await conn.fetchval("select seq from app.heads($1)", [UUID(org)])
            rows = await conn.fetch(
                "select seq, frame from app.read_events($1, $2, 500)", UUID(org), heads[org]
            )
            if rows:
                heads[org] = rows[-1]["seq"]
                write(rooms, org, [row["frame"] for row in rows])
        await asyncio.sleep(POLL_S)


async def main() -> None:
    options = json.loads(sys.argv[1])
    rooms: dict[str, set[asyncio.Transport]] = {}
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Socket(rooms), "127.0.0.1", options["port"], backlog=1024)
    if options["mode"] == "poll":
        await poll(options["dsn"], rooms)
    else:
        conn = await asyncpg.connect(options["dsn"])

        def told(_: Any, __: int, ___: str, payload: object) -> None:
            org, _, text = str(payload).partition(" ")
            write(rooms, org, [text])

        await conn.add_listener("bench", told)
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
