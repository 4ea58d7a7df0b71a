"""A TCP proxy that cuts a connection at a chosen message, before or after the server saw it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Proxy:
    """Passes everything until ``pattern`` goes by from the client; then that connection is cut, once.

    ``delivered``: whether the server gets the message (and answers into the void) before the cut."""

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port
        self.pattern: bytes | None = None
        self.delivered = True
        self.cuts = 0
        self.listening = 0
        self._writers: set[asyncio.StreamWriter] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there = await asyncio.open_connection(self.host, self.port)
        self._writers |= {writer, there}
        back = asyncio.create_task(self._pass(there_reader, writer))
        try:
            while data := await reader.read(65536):
                if self.pattern is not None and self.pattern in data:
                    self.pattern = None
                    self.cuts += 1
                    back.cancel()
                    if self.delivered:
                        there.write(data)
                        await there_reader.read(1)  # it has answered: what it was told is done
                    return
                there.write(data)
        except OSError:
            pass
        finally:
            back.cancel()
            for end in (writer, there):
                end.transport.abort()
                self._writers.discard(end)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()

    def close(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()


@asynccontextmanager
async def proxy_to(host: str, port: int) -> AsyncIterator[Proxy]:
    """A proxy on a free port of 127.0.0.1, ``listening``."""
    proxy = Proxy(host, port)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.listening = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        proxy.close()
        await asyncio.sleep(0)
