"""A websocket load client that only counts: raw sockets, frames told apart by their headers, nothing decoded
but the first.

A process of its own: ``python -m hub.bench.ws_load`` reads a JSON job from its first input line and then
commands: ``count`` prints {"frames", "bytes", "cpu_s"}; ``quit`` ends it. It prints {"ready": sessions} once
every session was welcomed.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import resource
import struct
import sys
from typing import Any, cast

import uvloop


class _Session(asyncio.Protocol):
    """One client: handshake, hello, then counting."""

    def __init__(self, load: _Load, token: str) -> None:
        self.load, self.token = load, token
        self.buffer = bytearray()
        self.upgraded = False
        self.welcomed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        key = base64.b64encode(os.urandom(16)).decode()
        self.transport.write(
            f"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:{self.load.port}\r\n"
            f"Upgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )

    def data_received(self, data: bytes) -> None:
        self.load.bytes += len(data)
        self.buffer += data
        if not self.upgraded:
            head, found, rest = bytes(self.buffer).partition(b"\r\n\r\n")
            if not found:
                return
            if b" 101 " not in head[:20]:
                raise RuntimeError(head.decode())
            self.upgraded = True
            self.buffer = bytearray(rest)
            self.send({"type": "hello", "token": self.token, "cursor": None, "client": "bench"})
        self.consume()

    def consume(self) -> None:
        at, end, view = 0, len(self.buffer), self.buffer
        while end - at >= 2:
            size, header = view[at + 1] & 127, 2
            if size == 126:
                if end - at < 4:
                    break
                size, header = int.from_bytes(view[at + 2 : at + 4], "big"), 4
            elif size == 127:
                if end - at < 10:
                    break
                size, header = int.from_bytes(view[at + 2 : at + 10], "big"), 10
            if end - at < header + size:
                break
            if view[at] & 15 == 8:
                raise RuntimeError(
                    f"The hub closed a session: {int.from_bytes(view[at + 2 : at + 4], 'big')}"
                )
            if view[at] & 15 == 9:
                self.transport.write(b"\x8a\x80" + os.urandom(4))
            elif not self.welcomed:
                self.welcomed = True
                self.load.welcomed()
            elif view[at + header : at + header + 15] == b'{"type":"event"':
                self.load.frames += 1
            at += header + size
        del self.buffer[:at]

    def send(self, document: dict[str, Any]) -> None:
        body, mask = json.dumps(document).encode(), os.urandom(4)
        masked = bytes(b ^ mask[i % 4] for i, b in enumerate(body))
        self.transport.write(b"\x81" + bytes([128 | 126]) + struct.pack(">H", len(body)) + mask + masked)

    def connection_lost(self, exc: Exception | None) -> None:
        self.load.lost += 1


class _Load:
    def __init__(self, port: int, tokens: list[str]) -> None:
        self.port, self.tokens = port, tokens
        self.frames = self.bytes = self.lost = self.ready = 0
        self.all_ready = asyncio.Event()

    def welcomed(self) -> None:
        self.ready += 1
        if self.ready == len(self.tokens):
            self.all_ready.set()

    async def connect(self) -> None:
        loop = asyncio.get_running_loop()
        for n, token in enumerate(self.tokens):
            await loop.create_connection(lambda t=token: _Session(self, t), "127.0.0.1", self.port)  # type: ignore[misc]
            if n % 20 == 19:  # below the hub's 200 handshakes a second
                await asyncio.sleep(0.12)
        await asyncio.wait_for(self.all_ready.wait(), 60)


async def main() -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=64 * 1024 * 1024)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    job = json.loads(await reader.readline())
    load = _Load(job["port"], job["tokens"])
    await load.connect()
    print(json.dumps({"ready": load.ready}), flush=True)
    while (command := (await reader.readline()).strip()) not in (b"", b"quit"):
        if command == b"count":
            usage = resource.getrusage(resource.RUSAGE_SELF)
            print(
                json.dumps(
                    {
                        "frames": load.frames,
                        "bytes": load.bytes,
                        "lost": load.lost,
                        "cpu_s": usage.ru_utime + usage.ru_stime,
                    }
                ),
                flush=True,
            )


if __name__ == "__main__":
    uvloop.run(main())
