"""D-09: a worker that stood still while it connected lets no byte out."""

from __future__ import annotations

import asyncio

import pytest

from hub.channels.protocol import RequestDescription, ResponseFacts
from hub.settings import Settings
from tests import whatsapp as wa
from workers.transport import TooLate, make_session, perform


async def test_D09_the_lease_is_looked_at_right_before_the_bytes_leave() -> None:
    got: list[bytes] = []
    ended = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.read(65536):
            got.append(head)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        writer.close()
        ended.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    settings: Settings = wa.settings()
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/messages"
    request = RequestDescription(method="POST", url=url, headers={}, body=b"{}")
    async with make_session(settings) as session:
        with pytest.raises(TooLate):
            await perform(session, request, may_start=lambda: False)
        await asyncio.wait_for(ended.wait(), 10)
        assert got == [], "no byte left, and the connection was closed"
        assert isinstance(await perform(session, request, may_start=lambda: True), ResponseFacts)
        with pytest.raises(TooLate):  # also on a connection that stood already
            await perform(session, request, may_start=lambda: False)
        assert len(got) == 1
    server.close()
