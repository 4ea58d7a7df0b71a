"""A proxy that plays a bad network between two programs: slow, silent, cut, doubled, out of order.

    async with proxy_to("127.0.0.1", 5432) as proxy:    # or a unix socket's path
        proxy.up.delay_s = 0.2                          # client → server
        proxy.down.silent = True                        # nothing arrives until it is False again
        proxy.cut = Cut(rb"commit\\0", delivered=True)  # RST after these bytes went by
        proxy.reset()                                   # RST every connection now

Everything is per direction and may be changed while connections are open.
"""

from __future__ import annotations

import asyncio
import random
import re
import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Literal

Address = tuple[str, int] | str
"""Host and port, or the path of a unix socket."""
Direction = Literal["up", "down"]
CHUNK = 65536


@dataclass
class Flow:
    """What happens to the bytes of one direction, on every connection of the proxy."""

    delay_s: float = 0.0
    rate: float | None = None
    """Bytes a second on each connection; None = as fast as they come."""
    silent: bool = False
    """Nothing passes and nothing is closed, as if packets were lost. What came meanwhile passes afterwards,
    as TCP would repeat it."""
    shim: Callable[[], Shim] | None = None
    """Takes the stream of each *new* connection apart."""
    passed: int = 0
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)
        if name == "silent" and hasattr(self, "_changed"):
            self._changed.set()

    async def open(self) -> None:
        """Return when bytes may pass."""
        while self.silent:
            self._changed.clear()
            await self._changed.wait()


@dataclass
class Cut:
    """Reset a connection where `pattern` goes by, or after `after_bytes` of one direction. `delivered`: the
    other side gets the bytes with the pattern, and has answered them, before the connection goes; otherwise
    they never arrive. None: tossed each time."""

    pattern: bytes | None
    delivered: bool | None = True
    direction: Direction = "up"
    left: int = 1
    """So many cuts; then everything passes."""
    after_bytes: int | None = None
    """Of each connection; what was beyond does not arrive."""
    chance: float = 1.0
    rng: random.Random = field(default_factory=random.Random)
    _regex: re.Pattern[bytes] | None = field(init=False)

    def __post_init__(self) -> None:
        self._regex = None if self.pattern is None else re.compile(self.pattern, re.DOTALL)

    def strikes(self, direction: Direction, data: bytes, passed: int) -> bool:
        """`passed`: bytes that went this way on this connection before."""
        if self.left <= 0 or direction != self.direction:
            return False
        is_there = self._regex is not None and self._regex.search(data) is not None
        if not is_there and (self.after_bytes is None or passed + len(data) < self.after_bytes):
            return False
        if self.rng.random() >= self.chance:
            return False
        self.left -= 1
        return True


class Shim:
    """Takes one direction of one connection apart; the base class changes nothing."""

    def feed(self, data: bytes) -> Iterable[tuple[float, bytes]]:
        """Pieces with the seconds each is held back. Pieces with equal delays keep their order."""
        return [(0.0, data)]


class PubSubShim(Shim):
    """Publications of Redis dropped, doubled and out of order; every other answer passes untouched."""

    def __init__(
        self, rng: random.Random, *, drop: float = 0.0, double: float = 0.0, within_s: float = 0.0
    ) -> None:
        self._rng, self._drop, self._double, self._within_s = rng, drop, double, within_s
        self._buffer = b""
        self.dropped = self.doubled = 0

    def feed(self, data: bytes) -> Iterable[tuple[float, bytes]]:
        self._buffer += data
        pieces: list[tuple[float, bytes]] = []
        while (end := resp_end(self._buffer)) is not None:
            value, self._buffer = self._buffer[:end], self._buffer[end:]
            if not re.match(rb"[*>]3\r\n\$7\r\nmessage\r\n", value):
                pieces.append((0.0, value))
                continue
            if self._rng.random() < self._drop:
                self.dropped += 1
                continue
            copies = 2 if self._rng.random() < self._double else 1
            self.doubled += copies - 1
            pieces += [(self._rng.uniform(0, self._within_s), value) for _ in range(copies)]
        return pieces


def resp_end(data: bytes, start: int = 0) -> int | None:
    """Where the RESP value that begins at `start` ends; None when it is not complete yet."""
    line = data.find(b"\r\n", start)
    if line < 0:
        return None
    kind, rest, end = data[start : start + 1], data[start + 1 : line], line + 2
    if kind in (b"$", b"=", b"!"):
        size = int(rest)
        if size < 0:
            return end
        return end + size + 2 if len(data) >= end + size + 2 else None
    if kind in (b"*", b">", b"~", b"%"):
        for _ in range(int(rest) * (2 if kind == b"%" else 1)):
            inner = resp_end(data, end)
            if inner is None:
                return None
            end = inner
    return end


class Link:
    """One connection through the proxy."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.client, self.server = client, server
        self.muted: Direction | None = None
        """Nothing passes this way any more; `answered` tells that something wanted to."""
        self.answered = asyncio.Event()

    def reset(self) -> None:
        """RST on both sides: what was under way is lost."""
        for end in (self.client, self.server):
            sock = end.get_extra_info("socket")
            if sock is not None and sock.family != socket.AF_UNIX:
                with suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            end.transport.abort()

    def half_close(self, direction: Direction) -> None:
        """FIN in one direction only: its reader sees the end, and may go on writing."""
        end = self.server if direction == "up" else self.client
        with suppress(OSError, RuntimeError):
            end.write_eof()


class FaultProxy:
    """Listens on one address and connects each client to a target; with several targets to the next one that
    answers, so it is the load balancer in front of hubs, too."""

    def __init__(self, *targets: Address) -> None:
        self.targets = list(targets)
        self.up, self.down = Flow(), Flow()
        self.cut: Cut | None = None
        self.refusing = False
        """New connections are reset."""
        self.cuts = self.accepted = 0
        self.links: set[Link] = set()
        self.address: Address = ("127.0.0.1", 0)
        self._turn = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    async def start(self, listen: Address = ("127.0.0.1", 0)) -> None:
        if isinstance(listen, str):
            self._server = await asyncio.start_unix_server(self._serve, listen)
            self.address = listen
        else:
            self._server = await asyncio.start_server(self._serve, *listen)
            self.address = self._server.sockets[0].getsockname()[:2]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.reset()

    @property
    def port(self) -> int:
        assert not isinstance(self.address, str)
        return self.address[1]

    def reset(self, share: float = 1.0, rng: random.Random | None = None) -> int:
        """RST open connections, all or a random share of them; how many."""
        chosen = [link for link in self.links if share >= 1 or (rng or random).random() < share]
        for link in chosen:
            link.reset()
        return len(chosen)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.accepted += 1
        try:
            if self.refusing or (found := await self._connect()) is None:
                Link(writer, writer).reset()
                return
            there_reader, there = found
            link = Link(writer, there)
            self.links.add(link)
            ways = [
                asyncio.create_task(self._pass("up", reader, there, link)),
                asyncio.create_task(self._pass("down", there_reader, writer, link)),
            ]
            try:
                await asyncio.gather(*ways)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
                self.links.discard(link)
                for end in (writer, there):
                    end.transport.abort()
        except (OSError, asyncio.CancelledError):
            writer.transport.abort()
        finally:
            self._tasks.discard(task)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        self._turn += 1
        for n in range(len(self.targets)):
            target = self.targets[(self._turn + n) % len(self.targets)]
            with suppress(OSError):
                if isinstance(target, str):
                    return await asyncio.open_unix_connection(target)
                return await asyncio.open_connection(*target)
        return None

    async def _pass(
        self,
        direction: Direction,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        link: Link,
    ) -> None:
        flow = self.up if direction == "up" else self.down
        shim = flow.shim() if flow.shim is not None else None
        later: set[asyncio.Task[None]] = set()
        passed = 0
        try:
            while data := await reader.read(CHUNK):
                await flow.open()
                if link.muted == direction:
                    link.answered.set()
                    continue
                if self.cut is not None and self.cut.strikes(direction, data, passed):
                    await self._strike(self.cut, data, passed, writer, link)
                    return
                passed += len(data)
                if flow.delay_s:
                    await asyncio.sleep(flow.delay_s)
                if flow.rate:
                    await asyncio.sleep(len(data) / flow.rate)
                flow.passed += len(data)
                for delay_s, piece in shim.feed(data) if shim else [(0.0, data)]:
                    if delay_s:
                        task = asyncio.create_task(_later(delay_s, writer, piece))
                        later.add(task)
                        task.add_done_callback(later.discard)
                    else:
                        writer.write(piece)
                await writer.drain()
            with suppress(OSError, RuntimeError):
                writer.write_eof()
        except OSError:
            link.reset()
        finally:
            for task in later:
                task.cancel()

    async def _strike(
        self, cut: Cut, data: bytes, passed: int, writer: asyncio.StreamWriter, link: Link
    ) -> None:
        """Deliver or not, let nothing of the answer through, reset."""
        if cut.after_bytes is not None:
            self.cuts += 1
            writer.write(data[: max(0, cut.after_bytes - passed)])
            with suppress(OSError):
                await writer.drain()
            link.reset()
            return
        delivered = cut.rng.random() < 0.5 if cut.delivered is None else cut.delivered
        self.cuts += 1
        if delivered:
            link.muted = "down" if cut.direction == "up" else "up"
            writer.write(data)
            with suppress(TimeoutError):
                async with asyncio.timeout(10):
                    await link.answered.wait()
        link.reset()


async def _later(delay_s: float, writer: asyncio.StreamWriter, piece: bytes) -> None:
    await asyncio.sleep(delay_s)
    with suppress(OSError, RuntimeError):
        writer.write(piece)


@asynccontextmanager
async def proxy_to(*target: Any) -> AsyncIterator[FaultProxy]:
    """A proxy on a free port of 127.0.0.1 to `host, port`, or to a unix socket's path."""
    proxy = FaultProxy(target[0] if len(target) == 1 else (target[0], target[1]))
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.stop()
