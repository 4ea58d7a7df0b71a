"""Redis → websockets on bare Python, two ways.

"send_str": aiohttp as its documentation shows it, one awaited send a session and frame.
"floor": no framework at all: uvloop protocols, the RESP reader of hiredis, each frame encoded once, and one
write a session for everything that one read from Redis brought.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import struct
import sys
from typing import Any, cast
from urllib.parse import urlsplit

import hiredis
import redis.asyncio as redis
import uvloop
from aiohttp import web

WELCOME = '{"type":"welcome"}'
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


# aiohttp


def send_str(options: dict[str, Any]) -> None:
    rooms: dict[str, set[web.WebSocketResponse[Any]]] = {}

    async def ready(_: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def join(request: web.Request) -> web.WebSocketResponse[Any]:
        socket: web.WebSocketResponse[Any] = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        room = rooms.setdefault(request.query["org"], set())
        room.add(socket)
        await socket.send_str(WELCOME)
        try:
            async for _ in socket:
                pass
        finally:
            room.discard(socket)
        return socket

    async def relay() -> None:
        async with redis.from_url(options["redis"]) as client:
            subscription = client.pubsub()
            await subscription.psubscribe(options["prefix"] + "*")
            async for message in subscription.listen():
                if message["type"] == "pmessage":
                    org = message["channel"].decode().removeprefix(options["prefix"])
                    text = message["data"].decode()
                    for socket in tuple(rooms.get(org, ())):
                        await socket.send_str(text)

    async def start(app: web.Application) -> Any:
        task = asyncio.create_task(relay())
        yield
        task.cancel()

    app = web.Application()
    app.cleanup_ctx.append(start)
    app.router.add_get("/", ready)
    app.router.add_get("/ws", join)
    web.run_app(app, host="127.0.0.1", port=options["port"], access_log=None, print=None)


# No framework


def frame(text: bytes) -> bytes:
    """An unmasked text frame below 64 KiB."""
    size = len(text)
    head = bytes([0x81, size]) if size < 126 else b"\x81\x7e" + struct.pack(">H", size)
    return head + text


class _Socket(asyncio.Protocol):
    def __init__(self, rooms: dict[str, set[asyncio.Transport]]) -> None:
        self.rooms = rooms
        self.room: set[asyncio.Transport] | None = None
        self.buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self.room is not None:
            return
        self.buffer += data
        if b"\r\n\r\n" not in self.buffer:
            return
        lines = self.buffer.split(b"\r\n")
        headers = dict(line.lower().split(b": ", 1) for line in lines[1:] if b": " in line)
        if b"sec-websocket-key" not in headers:
            self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
            self.transport.close()
            return
        key = next(line[19:] for line in lines if line.lower().startswith(b"sec-websocket-key: "))
        accept = base64.b64encode(hashlib.sha1(key + _GUID).digest())
        self.transport.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n" + frame(WELCOME.encode())
        )
        org = lines[0].split(b" ")[1].rpartition(b"org=")[2].decode()
        self.room = self.rooms.setdefault(org, set())
        self.room.add(self.transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.room is not None:
            self.room.discard(self.transport)


class _Subscriber(asyncio.Protocol):
    def __init__(self, prefix: bytes, rooms: dict[str, set[asyncio.Transport]]) -> None:
        self.prefix, self.rooms = prefix, rooms
        self.reader = hiredis.Reader()

    def data_received(self, data: bytes) -> None:
        self.reader.feed(data)
        due: dict[bytes, list[bytes]] = {}
        while (reply := self.reader.gets()) is not False:
            if isinstance(reply, list) and reply[0] == b"pmessage":
                due.setdefault(reply[2], []).append(frame(reply[3]))
        for channel, frames in due.items():
            joined = b"".join(frames)
            for transport in tuple(self.rooms.get(channel.removeprefix(self.prefix).decode(), ())):
                transport.write(joined)


async def floor(options: dict[str, Any]) -> None:
    rooms: dict[str, set[asyncio.Transport]] = {}
    loop = asyncio.get_running_loop()
    address = urlsplit(options["redis"])
    link, _ = await loop.create_connection(
        lambda: _Subscriber(options["prefix"].encode(), rooms), address.hostname, address.port
    )
    link.write(hiredis.pack_command(("AUTH", address.password or "")))  # type: ignore[arg-type]
    link.write(hiredis.pack_command(("PSUBSCRIBE", options["prefix"] + "*")))  # type: ignore[arg-type]
    server = await loop.create_server(lambda: _Socket(rooms), "127.0.0.1", options["port"], backlog=1024)
    await server.serve_forever()


def main() -> None:
    options = json.loads(sys.argv[1])
    if options["mode"] == "send_str":
        uvloop.install()
        send_str(options)
    else:
        uvloop.run(floor(options))


if __name__ == "__main__":
    main()
