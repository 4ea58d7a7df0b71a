"""Small real files of every kind, made by code, and a hub with its provider between which they travel."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
import sys
import zlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import aiohttp
import asyncpg
import orjson

from hub.settings import Settings
from tests.factories import Member, Org, Servers, keep_secret, make_contact, make_conversation, until
from tests.fakes.whatsapp import APP_SECRET, Sandbox, running_sandbox
from tests.server import SECRET_KEY, Hub, running_hub
from tests.whatsapp import PATH
from workers.runtime import run

LAYLA = "201001383533"


def png(width: int = 2, height: int = 2, colour: tuple[int, int, int] = (200, 40, 40)) -> bytes:
    """A picture of one colour."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4) + name + data + zlib.crc32(name + data).to_bytes(4)

    rows = (b"\x00" + bytes(colour) * width) * height
    header = width.to_bytes(4) + height.to_bytes(4) + b"\x08\x02\x00\x00\x00"
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    return start + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


WEBP = (
    b"RIFF"
    + (26).to_bytes(4, "little")
    + b"WEBPVP8L"
    + b"\x0d\0\0\0/\0\0\0\x10\x07\x10\x11\x11\x88\x88\xfe\x07\0"
)
OGG = b"OggS\x00\x02" + bytes(20) + b"\x01\x13OpusHead\x01\x01" + bytes(200)
MP4 = b"\x00\x00\x00\x18ftypmp42\x00\x00\x00\x00mp42isom" + b"\x00\x00\x00\x08free" + bytes(100)
PDF = b"%PDF-1.4\n1 0 obj<</Type/Catalog>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF\n"


class World:
    """An organization on the sandbox's number, its hub over HTTP, and the sandbox; workers start and stop in
    it."""

    def __init__(self, hub: Hub, sandbox: Sandbox, org: Org, conn: asyncpg.Connection, token: str) -> None:
        self.hub, self.sandbox, self.org, self.conn, self.token = hub, sandbox, org, conn, token
        fields = {f: getattr(hub.settings, f) for f in hub.settings.__struct_fields__}
        self.settings = Settings(
            **{
                **fields,
                "meta_graph_base": f"{sandbox.url}/graph",
                "work_poll_s": 0.05,
                "work_lease_s": 3.0,
                "provider_media_s": 5.0,
            }
        )

    @asynccontextmanager
    async def worker(self, **settings: Any) -> AsyncIterator[None]:
        """A worker in this process."""
        stop = asyncio.Event()
        fields = {f: getattr(self.settings, f) for f in self.settings.__struct_fields__}
        task = asyncio.create_task(run(Settings(**{**fields, **settings}), stop, follow_clock=False))
        try:
            yield
        finally:
            stop.set()
            await task

    @asynccontextmanager
    async def process(self, **environ: str) -> AsyncIterator[asyncio.subprocess.Process]:
        """A worker process, killed at the end if it still lives."""
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "workers",
            env={
                **os.environ,
                "DATABASE_URL": self.settings.database_url,
                "REDIS_URL": self.settings.redis_url,
                "HUB_SECRET_KEY": SECRET_KEY,
                "HUB_DATA_DIR": str(self.settings.data_dir),
                "META_GRAPH_BASE": self.settings.meta_graph_base,
                "META_APP_SECRET": APP_SECRET,
                "HUB_WORK_POLL_S": "0.05",
                "HUB_WORK_LEASE_S": "1.5",
                **environ,
            },
        )
        try:
            yield child
        finally:
            if child.returncode is None:
                child.kill()
            await child.wait()

    async def conversation(self, wa_id: str = LAYLA) -> UUID:
        """The open conversation with a customer, made if need be."""
        found = await self.conn.fetchval(
            "select c.id from conversations c join contact_identities i on i.contact_id = c.contact_id"
            " where i.value = $1 and c.status = 'OPEN'",
            wa_id,
        )
        if found is not None:
            return UUID(str(found))
        return await make_conversation(
            self.conn, self.org, await make_contact(self.conn, self.org, wa_id), last_inbound_at=None
        )

    async def customer_sends(
        self, kind: str, data: bytes, mime: str, filename: str | None = None, **part: Any
    ) -> UUID:
        """A customer's file on its way to the hub; the message's id once it is stored here."""
        query = {"filename": filename} if filename else {}
        async with self.sandbox.client.post(
            f"{self.sandbox.url}/_ctl/media",
            params=query,
            data=io.BytesIO(data),
            headers={"Content-Type": mime},
        ) as answer:
            media = await answer.json()
        return await self.customer_says({"type": kind, kind: {"id": media["id"], **part}})

    async def customer_says(self, message: dict[str, Any]) -> UUID:
        """The message's id once it is stored here."""
        body = {"channel": "WHATSAPP_CLOUD", "persona": "layla", "message": message}
        said = await self.sandbox.ctl("POST", "/inbound", body)

        async def stored() -> UUID | None:
            return await self.conn.fetchval(
                "select id from messages where provider_message_id = $1", said["id"]
            )

        id: UUID = await until(stored, what="the customer's message")
        return id

    async def shown(self, message_id: UUID) -> dict[str, Any]:
        """The first file of a message as clients see it."""
        text = await self.conn.fetchval(
            "select metadata -> 'media' -> 0 from messages where id = $1", message_id
        )
        found: dict[str, Any] = orjson.loads(text)
        return found

    async def reaches(self, message_id: UUID, *states: str, timeout_s: float = 15.0) -> dict[str, Any]:
        """The first file of a message once its state is one of these."""

        async def reached() -> dict[str, Any] | None:
            shown = await self.shown(message_id)
            return shown if shown["state"] in states else None

        shown: dict[str, Any] = await until(reached, timeout_s, f"a file that is {states}")
        return shown

    async def message_reaches(
        self, message_id: UUID, *statuses: str, timeout_s: float = 15.0
    ) -> asyncpg.Record:
        """A message of ours once its status is one of these."""

        async def reached() -> asyncpg.Record | None:
            row = await self.conn.fetchrow("select * from messages where id = $1", message_id)
            return row if row is not None and row["status"] in statuses else None

        row: asyncpg.Record = await until(reached, timeout_s, f"{statuses}")
        return row

    async def bytes_of(self, file_id: str) -> bytes:
        """Over HTTP, as an agent."""
        answer = await self.hub.get(f"/functions/v1/media/{file_id}", token=self.token)
        assert answer.status == 200, answer
        return answer.body

    async def upload(self, data: bytes, name: str) -> dict[str, Any]:
        """A file, uploaded by an agent; the answer's `media`."""
        form = aiohttp.FormData(quote_fields=False)
        form.add_field("file", io.BytesIO(data), filename=name)
        answer = await self.hub.post("/functions/v1/upload-media", token=self.token, data=form)
        assert answer.status == 200, answer
        media: dict[str, Any] = answer.json["media"]
        return media

    async def sends(self, id: UUID | None = None) -> list[dict[str, Any]]:
        """The ledger: what the provider accepted, in order."""
        answer = await self.sandbox.ctl("GET", f"/ledger{f'?correlator={id}' if id else ''}")
        found: list[dict[str, Any]] = answer["sends"]
        return found

    async def uploads(self) -> list[dict[str, Any]]:
        """Files that the hub gave to the provider, as requests."""
        answer = await self.sandbox.ctl("GET", "/outbox?limit=1000")
        return [r for r in answer["requests"] if r["method"] == "POST" and "/media" in r["path"]]


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@asynccontextmanager
async def media_world(
    servers: Servers, redis_url: str, data_dir: Path, org: Org, agent: Member, conn: asyncpg.Connection
) -> AsyncIterator[World]:
    """A hub, a sandbox that knows each other, and an agent who is signed in."""
    async with AsyncExitStack() as stack:
        hub = await stack.enter_async_context(
            running_hub(servers, redis_url, data_dir / "hub", META_APP_SECRET=APP_SECRET)
        )
        number = {"phone_number_id": "100000000000001", "waba_id": "200000000000001", "access_token": "••••"}
        await conn.execute(
            "update channel_accounts set settings = $2 where id = $1", org.account_id, json.dumps(number)
        )
        await keep_secret(conn, hub.settings, org, "access_token", "sandbox-token")
        sandbox = await stack.enter_async_context(
            running_sandbox(data_dir / "sandbox", hub.url + PATH, enforce_rates=False)
        )
        yield World(hub, sandbox, org, conn, await hub.token(agent.email))


def ref() -> str:
    return str(uuid4())
