"""Redis → websockets with the library `websockets` and its broadcast()."""

import json
import sys
from http import HTTPStatus
from typing import Any

import redis.asyncio as redis
import uvloop
from websockets.asyncio.server import ServerConnection, broadcast, serve

options = json.loads(sys.argv[1])
rooms: dict[str, set[ServerConnection]] = {}


def ready(connection: ServerConnection, request: Any) -> Any:
    return connection.respond(HTTPStatus.OK, "ok") if request.path == "/" else None


async def join(socket: ServerConnection) -> None:
    room = rooms.setdefault(socket.request.path.rpartition("org=")[2], set())
    room.add(socket)
    await socket.send('{"type":"welcome"}')
    try:
        async for _ in socket:
            pass
    finally:
        room.discard(socket)


async def main() -> None:
    async with (
        serve(
            join, "127.0.0.1", options["port"], process_request=ready, compression=None, ping_interval=None
        ),
        redis.from_url(options["redis"]) as client,
    ):
        subscription = client.pubsub()
        await subscription.psubscribe(options["prefix"] + "*")
        async for message in subscription.listen():
            if message["type"] == "pmessage":
                org = message["channel"].decode().removeprefix(options["prefix"])
                broadcast(rooms.get(org, ()), message["data"].decode())


uvloop.run(main())
