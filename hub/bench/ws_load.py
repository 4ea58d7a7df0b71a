"""A websocket load client that only counts: raw sockets, frames told apart by their first bytes, nothing
decoded.

A process of its own: ``python -m hub.bench.ws_load`` reads a JSON job from its first input line:
{"port", "pace" (handshakes a second), "kind", "sessions": [{"path", "hello"}]}, prints {"ready": sessions}
once every session was welcomed, and then takes commands, a line each: ``count`` prints {"frames", "bytes",
"lost", "cpu_s"}; ``clock`` starts collecting delays (events carry the sender's monotonic nanoseconds behind
"stamp"), ``delays`` prints {"p50_ms", "p99_ms", "n"} and ends that; end of input ends it.

``kind``: "plain" greets with one frame; "hub" wants a hello first; "socketio" speaks Engine.IO 4, enters the
room "hello" and answers pings.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import resource
import struct
import sys
import time
from typing import Any, cast

import uvloop

from hub.bench.figures import quantile

_DIGITS = re.compile(rb"\d+")


class _Session(asyncio.Protocol):
    """One client: handshake, hello, then counting."""

    def __init__(self, load: _Load, path: str, hello: str | None) -> None:
        self.load, self.path, self.hello = load, path, hello
        self.buffer = bytearray()
        self.upgraded = False
        self.welcomed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        key = base64.b64encode(os.urandom(16)).decode()
        self.transport.write(
            f"GET {self.path} HTTP/1.1\r\nHost: 127.0.0.1:{self.load.port}\r\n"
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
            if self.load.kind == "hub" and self.hello is not None:
                self.send(self.hello.encode())
        self.consume()

    def consume(self) -> None:
        at, end, view, event = 0, len(self.buffer), self.buffer, self.load.event
        width = len(event)
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
            start = at + header
            if end - start < size:
                break
            if view[start : start + width] == event:
                self.load.frames += 1
                if self.load.delays is not None:
                    self.load.note_delay(view, start, start + size)
            else:
                self.other(view[at] & 15, bytes(view[start : start + size]))
            at = start + size
        del self.buffer[:at]

    def other(self, opcode: int, body: bytes) -> None:
        """Everything that is no event."""
        if opcode == 8:
            raise RuntimeError(f"A session was closed: {int.from_bytes(body[:2], 'big')} {body[2:]!r}")
        if opcode == 9:
            self.send(body, 10)
        elif self.load.kind == "socketio" and not body.startswith(b'42["welcome"'):
            if body == b"2":
                self.send(b"3")
            elif body.startswith(b"0"):
                self.send(b"40")
            elif body.startswith(b"40"):
                self.send(b"42" + json.dumps(["join", self.hello]).encode())
        elif not self.welcomed:
            self.welcomed = True
            self.load.welcomed()

    def send(self, body: bytes, opcode: int = 1) -> None:
        mask = os.urandom(4)
        masked = bytes(b ^ mask[i % 4] for i, b in enumerate(body))
        size = (
            bytes([128 | len(body)]) if len(body) < 126 else bytes([128 | 126]) + struct.pack(">H", len(body))
        )
        self.transport.write(bytes([128 | opcode]) + size + mask + masked)

    def connection_lost(self, exc: Exception | None) -> None:
        self.load.lost += 1


class _Load:
    def __init__(self, job: dict[str, Any]) -> None:
        self.port, self.kind, self.sessions, self.pace = (
            job["port"],
            job["kind"],
            job["sessions"],
            job["pace"],
        )
        self.event = b'42["event"' if self.kind == "socketio" else b'{"type":"event"'
        self.stamp = job.get("stamp", '"t":').encode()
        self.frames = self.bytes = self.lost = self.ready = 0
        self.delays: list[int] | None = None
        self.all_ready = asyncio.Event()

    def welcomed(self) -> None:
        self.ready += 1
        if self.ready == len(self.sessions):
            self.all_ready.set()

    def note_delay(self, view: bytearray, start: int, end: int) -> None:
        now = time.monotonic_ns()
        at = view.find(self.stamp, start, end)
        if at >= 0 and self.delays is not None:
            found = _DIGITS.match(view, at + len(self.stamp))
            if found is not None:
                self.delays.append(now - int(found[0]))

    async def connect(self) -> None:
        loop = asyncio.get_running_loop()
        began = time.perf_counter()
        for n, session in enumerate(self.sessions):
            await loop.create_connection(
                lambda s=session: _Session(self, s["path"], s["hello"]),  # type: ignore[misc]
                "127.0.0.1",
                self.port,
            )
            await asyncio.sleep(max(0.0, began + n / self.pace - time.perf_counter()))
        await asyncio.wait_for(self.all_ready.wait(), 60)

    def answer(self, command: bytes) -> dict[str, Any]:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        if command == b"clock":
            self.delays = []
        elif command == b"delays":
            delays, self.delays = sorted(self.delays or ()), None
            return {
                "p50_ms": quantile(delays, 0.5) / 1e6,
                "p99_ms": quantile(delays, 0.99) / 1e6,
                "n": len(delays),
            }
        return {
            "frames": self.frames,
            "bytes": self.bytes,
            "lost": self.lost,
            "cpu_s": usage.ru_utime + usage.ru_stime,
        }


async def main() -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=64 * 1024 * 1024)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    load = _Load(json.loads(await reader.readline()))
    await load.connect()
    print(json.dumps({"ready": load.ready}), flush=True)
    while command := (await reader.readline()).strip():
        print(json.dumps(load.answer(command)), flush=True)


if __name__ == "__main__":
    uvloop.run(main())
