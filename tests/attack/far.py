"""A hub as a process of its own, and a client that says byte by byte what it sends."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import asyncpg

from hub.auth.passwords import hash_password
from hub.db.embedded import free_port
from tests import whatsapp
from tests.factories import Member, Org, Servers, make_member, make_org, until
from tests.server import PASSWORD, SECRET_KEY, Answer

MIB = 1024 * 1024


class FarHub:
    """A running process with one organization, its owner, the owner's token and a key of the organization."""

    def __init__(self, pid: int, port: int, log: Path, servers: Servers) -> None:
        self.pid, self.port, self.log, self.servers = pid, port, log, servers
        self.org: Org
        self.owner: Member
        self.token = ""
        self.service = ""
        self.anon = ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def memory(self) -> int:
        """Resident bytes now."""
        return self._status("VmRSS")

    def forget_peak(self) -> None:
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def peak(self) -> int:
        """Most resident bytes since ``forget_peak``."""
        return self._status("VmHWM")

    def _status(self, name: str) -> int:
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) * 1024

    async def call(self, method: str, path: str, **options: object) -> Answer:
        async with (
            aiohttp.ClientSession() as client,
            client.request(method, self.url + path, **options) as answer,  # type: ignore[arg-type]
        ):
            return Answer(answer.status, answer.headers, await answer.read())

    async def send(self, *pieces: bytes, pause_s: float = 0.0, patience_s: float = 20.0) -> bytes:
        """Write the pieces on a fresh connection; everything that comes back until it is closed, or until it
        is quiet after a whole answer. b"" when the hub only hangs up."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        got = bytearray()

        async def read() -> None:
            with suppress(ConnectionError):
                while chunk := await reader.read(65536):
                    got.extend(chunk)

        reading = asyncio.create_task(read())
        try:
            with suppress(ConnectionError):
                for piece in pieces:
                    if reading.done():
                        break
                    writer.write(piece)
                    await writer.drain()
                    if pause_s:
                        await asyncio.wait([reading], timeout=pause_s)
            await asyncio.wait([reading], timeout=patience_s)
            return bytes(got)
        finally:
            reading.cancel()
            await asyncio.wait([reading])
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    def request(
        self, method: str, path: str, *headers: str | bytes, body: bytes = b"", token: str | None = None
    ) -> bytes:
        """One whole request that asks the hub to hang up after its answer."""
        lines = [f"{method} {path} HTTP/1.1".encode(), b"Host: hub.test", b"Connection: close"]
        if token is not None:
            lines.append(f"Authorization: Bearer {token}".encode())
        lines += [h.encode("latin-1") if isinstance(h, str) else h for h in headers]
        if body:
            lines.append(f"Content-Length: {len(body)}".encode())
        return b"\r\n".join([*lines, b"", body])


def status_of(raw: bytes) -> int:
    """The status of the first answer; 0 when there is none."""
    return int(raw[9:12]) if raw.startswith(b"HTTP/") else 0


def answers_in(raw: bytes) -> int:
    """How many answers came, by their first lines."""
    return len(re.findall(rb"HTTP/[019.]+ \d{3} ", raw))


@asynccontextmanager
async def far_hub(servers: Servers, redis_url: str, folder: Path, **environ: str) -> AsyncIterator[FarHub]:
    """Start it, wait until it is ready, end it. ``environ`` adds to its settings."""
    port = free_port()
    log = folder / "hub.log"
    with log.open("ab") as out:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "hub", "serve", stdout=out, stderr=out,
            env={
                **{n: v for n, v in os.environ.items() if not n.startswith(("HUB_", "META_"))},
                "DATABASE_URL": servers.database_url, "REDIS_URL": redis_url, "HUB_SECRET_KEY": SECRET_KEY,
                "HUB_DATA_DIR": str(folder / "data"), "HUB_PORT": str(port), "HUB_LOG": "json",
                "HUB_UNSAFE_DURABILITY": "on", "HUB_RATE_ADDRESS": "1000000", "HUB_RATE_REST": "1000000",
                "HUB_RATE_FUNCTIONS": "1000000", "HUB_RATE_EXTERNAL": "1000000",
                "META_APP_SECRET": whatsapp.APP_SECRET, "META_VERIFY_TOKEN": whatsapp.VERIFY_TOKEN,
                **environ,
            },
        )  # fmt: skip
    hub = FarHub(process.pid, port, log, servers)
    try:

        async def is_ready() -> bool:
            assert process.returncode is None, log.read_text()
            try:
                return (await hub.call("GET", "/readyz")).status == 200
            except aiohttp.ClientConnectionError:
                return False

        await until(is_ready, timeout_s=30, what="the hub to be ready")
        await _people(hub)
        yield hub
        process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(process.wait(), 30)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def somebody(hub: FarHub, conn: asyncpg.Connection) -> str:
    """The token of one more owner, of an organization of his own."""
    hashed = await asyncio.to_thread(hash_password, PASSWORD)
    member = await make_member(conn, await make_org(conn), "OWNER", hashed)
    body = {"email": member.email, "password": PASSWORD}
    token: str = (await hub.call("POST", "/auth/v1/token?grant_type=password", json=body)).json[
        "access_token"
    ]
    return token


async def _people(hub: FarHub) -> None:
    conn = await asyncpg.connect(hub.servers.migrate_url)
    try:
        hub.org = await make_org(conn)
        hub.owner = await make_member(
            conn, hub.org, "OWNER", await asyncio.to_thread(hash_password, PASSWORD)
        )
    finally:
        await conn.close()
    body = {"email": hub.owner.email, "password": PASSWORD}
    answer = await hub.call("POST", "/auth/v1/token?grant_type=password", json=body)
    assert answer.status == 200, answer
    hub.token = answer.json["access_token"]
    hub.anon = (await hub.call("GET", "/config.json")).json["anon_key"]
