"""The short way of deliveries says what the long way says (hub/short_cut.py)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from hub.channels.signing import meta_signature
from hub.db.embedded import EmbeddedValkey
from tests import whatsapp as wa
from tests.factories import Org, Servers, make_org
from tests.server import Answer, Hub, running_hub


@pytest.fixture
async def hub(servers: Servers, valkey: EmbeddedValkey, tmp_path: Path) -> AsyncIterator[Hub]:
    async with running_hub(servers, valkey.url, tmp_path, META_APP_SECRET=wa.APP_SECRET) as running:
        yield running


@pytest.fixture
async def org(superuser: asyncpg.Connection) -> Org:
    return await make_org(superuser)


async def post(hub: Hub, body: bytes, secret: str = wa.APP_SECRET, **headers: str) -> Answer:
    signature = meta_signature(secret, body)
    return await hub.post(wa.PATH, data=body, headers={"X-Hub-Signature-256": signature, **headers})


def shown(answer: Answer) -> dict[str, str]:
    """Headers that do not differ from one answer to the next."""
    return {k: v for k, v in answer.headers.items() if k.lower() not in ("date", "x-request-id")}


async def test_both_ways_answer_alike(hub: Hub, superuser: asyncpg.Connection, org: Org) -> None:
    body = wa.body(wa.change(org, wa.text("201")))
    short, long = await post(hub, body), await post(hub, body, **{"X-Request-Id": "asked-for-by-name"})
    assert (short.status, short.body) == (long.status, long.body) == (200, b"OK")
    assert shown(short) == shown(long)
    assert short.headers["X-Request-Id"] and short.headers["Date"]
    assert long.headers["X-Request-Id"] == "asked-for-by-name"
    assert await superuser.fetchval("select count(*) from messages") == 1


async def test_both_ways_refuse_alike(hub: Hub, org: Org) -> None:
    body = wa.body(wa.change(org, wa.text("201")))
    short = await post(hub, body, "wrong")
    long = await post(hub, body, "wrong", **{"X-Request-Id": "asked-for-by-name"})
    assert short.status == long.status == 401
    assert shown(short) == shown(long)
    assert {**short.json, "request_id": ""} == {**long.json, "request_id": ""}
    assert short.json["request_id"] == short.headers["X-Request-Id"]


async def test_both_ways_are_counted(hub: Hub, org: Org) -> None:
    def posts(text: bytes) -> float:
        start = f'hub_http_request_seconds_count{{code="200",method="POST",route="{wa.PATH}"}} '
        found = [line for line in text.decode().splitlines() if line.startswith(start)]
        return float(found[0].removeprefix(start)) if found else 0.0

    before = posts((await hub.get("/metrics")).body)
    await post(hub, wa.body(wa.change(org, wa.text("201"))))
    await post(hub, wa.body(wa.change(org, wa.text("201"))), **{"X-Request-Id": "asked-for-by-name"})
    assert posts((await hub.get("/metrics")).body) == before + 2


async def test_deliveries_on_one_connection_in_pieces_and_in_one_piece(
    hub: Hub, superuser: asyncpg.Connection, org: Org
) -> None:
    host, port = hub.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))

    def request(sender: str, size: int, version: str = "1.1") -> bytes:
        body = wa.body(wa.change(org, wa.text(sender, "x" * size)))
        return (
            f"POST {wa.PATH}?from=test HTTP/{version}\r\nHost: hub\r\nContent-Length: {len(body)}\r\n"
            f"X-Hub-Signature-256: {meta_signature(wa.APP_SECRET, body)}\r\n\r\n"
        ).encode() + body

    async def status() -> bytes:
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"Content-Length: 2\r\n" in head
        assert await reader.readexactly(2) == b"OK"
        return head.split(b"\r\n")[0]

    try:
        writer.write(request("201", 10) + request("202", 10))  # pipelined
        assert [await status(), await status()] == [b"HTTP/1.1 200 OK"] * 2
        large = request("203", 60_000)
        for at in range(0, len(large), 7_000):
            writer.write(large[at : at + 7_000])
            await writer.drain()
            await asyncio.sleep(0.001)
        assert await status() == b"HTTP/1.1 200 OK"
        writer.write(request("204", 10, "1.0"))  # the long way, and its end
        assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.0 200")
        await reader.read()
    finally:
        writer.close()
    assert await superuser.fetchval("select count(distinct contact_id) from messages") == 4
