"""The proxy that plays a bad network does what it says, over TCP and unix sockets."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.factories import until
from tests.fakes.proxy import Cut, FaultProxy, PubSubShim, resp_end

Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Echo:
    """Answers every line with itself; keeps what it got."""

    def __init__(self) -> None:
        self.got = b""
        self.ended = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1024):
                self.got += data
                writer.write(data)
                await writer.drain()
            self.ended += 1
        except OSError:
            pass
        writer.close()


@asynccontextmanager
async def behind(echo: Echo) -> AsyncIterator[tuple[FaultProxy, Pair]]:
    server = await asyncio.start_server(echo.serve, "127.0.0.1", 0)
    proxy = FaultProxy(server.sockets[0].getsockname()[:2])
    await proxy.start()
    pair = await asyncio.open_connection("127.0.0.1", proxy.port)
    try:
        yield proxy, pair
    finally:
        pair[1].close()
        await proxy.stop()
        server.close()


async def test_bytes_pass_and_silence_only_holds_them_back() -> None:
    async with behind(Echo()) as (proxy, (reader, writer)):
        writer.write(b"one\n")
        assert await reader.readline() == b"one\n"
        proxy.down.silent = True
        writer.write(b"two\n")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.readline(), 0.1)
        proxy.down.silent = False
        assert await reader.readline() == b"two\n"


async def test_a_reset_ends_both_sides() -> None:
    async with behind(Echo()) as (proxy, (reader, writer)):
        writer.write(b"one\n")
        await reader.readline()
        assert proxy.reset() == 1
        with pytest.raises(ConnectionResetError):
            await reader.readline()
        await until(lambda: not proxy.links)


@pytest.mark.parametrize("delivered", [True, False])
async def test_a_cut_at_a_pattern_keeps_the_answer(delivered: bool) -> None:
    echo = Echo()
    async with behind(echo) as (proxy, (reader, writer)):
        proxy.cut = Cut(rb"commit\x00", delivered=delivered)
        writer.write(b"begin\x00")
        assert await reader.readexactly(6) == b"begin\x00"
        writer.write(b"commit\x00")
        with pytest.raises(ConnectionResetError):
            await reader.read(1)
        assert (b"commit" in echo.got) is delivered
        assert proxy.cuts == 1


async def test_a_cut_after_so_many_bytes_delivers_exactly_these() -> None:
    echo = Echo()
    async with behind(echo) as (proxy, (reader, writer)):
        proxy.cut = Cut(None, after_bytes=7)
        writer.write(b"12345")
        await reader.readexactly(5)
        writer.write(b"67890")
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await reader.readexactly(5)
        assert echo.got == b"1234567"


async def test_a_half_close_ends_one_direction() -> None:
    echo = Echo()
    async with behind(echo) as (proxy, (reader, writer)):
        writer.write(b"one\n")
        await reader.readline()
        next(iter(proxy.links)).half_close("up")
        await until(lambda: echo.ended == 1, what="the server to see the end")


async def test_who_refuses_resets_and_who_balances_takes_the_next(tmp_path: Path) -> None:
    echo = Echo()
    server = await asyncio.start_unix_server(echo.serve, tmp_path / "server")
    proxy = FaultProxy(("127.0.0.1", 1), str(tmp_path / "server"))
    await proxy.start(str(tmp_path / "proxy"))
    for _ in range(3):
        reader, writer = await asyncio.open_unix_connection(tmp_path / "proxy")
        writer.write(b"hello\n")
        assert await reader.readline() == b"hello\n"
        writer.close()
    proxy.refusing = True
    reader, writer = await asyncio.open_unix_connection(tmp_path / "proxy")
    assert await reader.read() == b""
    writer.close()
    await proxy.stop()
    server.close()


def test_publications_are_dropped_doubled_and_held_and_nothing_else() -> None:
    message = b"*3\r\n$7\r\nmessage\r\n$3\r\no:1\r\n$4\r\n\r\n\r\n\r\n"
    other = b"*3\r\n$9\r\nsubscribe\r\n$3\r\no:1\r\n:1\r\n+PONG\r\n$-1\r\n"
    stream = message * 200 + other
    assert resp_end(message) == len(message)
    assert resp_end(message[:-1]) is None
    shim = PubSubShim(random.Random(1), drop=0.3, double=0.1, within_s=0.2)
    pieces = [piece for n in range(0, len(stream), 7) for piece in shim.feed(stream[n : n + 7])]
    published = [delay for delay, data in pieces if data == message]
    assert len(published) == 200 - shim.dropped + shim.doubled
    assert shim.dropped
    assert shim.doubled
    assert max(published) <= 0.2
    assert b"".join(data for delay, data in pieces if data != message) == other
