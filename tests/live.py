"""Hubs and clients for tests of live sessions: several hub applications in one process, each with its own
pools, subscription and port."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import aiohttp
import asyncpg
import orjson
from aiohttp import web

from hub.auth.authenticator import Authenticator
from hub.auth.tokens import load_keyring
from hub.db.pool import Database
from hub.errors import HubError
from hub.events.publisher import Publisher
from hub.realtime.fanout import Fanout
from hub.realtime.registry import Registry
from hub.realtime.session import routes
from hub.resources import AUTH, DB, FANOUT, PUBLISHER, SESSIONS, SETTINGS
from hub.settings import Settings, load_settings
from tests.factories import Member, Servers, until

WAIT_S = 15.0


def live_settings(servers: Servers, redis_url: str, **environ: str) -> Settings:
    return load_settings(
        {
            "DATABASE_URL": servers.database_url,
            "REDIS_URL": redis_url,
            "HUB_SECRET_KEY": "a key for tests that is long enough",
            **environ,
        }
    )


@web.middleware
async def _refusals(request: web.Request, handler: Any) -> web.StreamResponse:
    try:
        response: web.StreamResponse = await handler(request)
    except HubError as e:
        headers = {"Retry-After": str(int(e.retry_after_s))} if e.retry_after_s else None
        return web.json_response({"code": e.code, "error": e.message}, status=e.status, headers=headers)
    return response


class LiveHub:
    """What a hub process needs to serve /ws, and nothing else."""

    def __init__(self, settings: Settings, fanout: Callable[..., Fanout] = Fanout) -> None:
        self.settings = settings
        self.db = Database(settings.database_url, ("api", "live", "admin"))
        self.publisher = Publisher(self.db, settings.redis_url)
        self.db.publish = self.publisher.publish
        self.auth = Authenticator(self.db, settings)
        self.fanout = fanout(self.db, settings.redis_url, self.publisher, settings.resume_keep_s)
        self.registry = Registry(settings, self.db, self.auth, self.fanout)
        self.app = web.Application(middlewares=[_refusals])
        for key, value in (
            (SETTINGS, settings), (DB, self.db), (AUTH, self.auth), (PUBLISHER, self.publisher),
            (FANOUT, self.fanout), (SESSIONS, self.registry),
        ):  # fmt: skip
            self.app[key] = value  # type: ignore[misc]
        self.app.add_routes(routes())
        self._runner = web.AppRunner(self.app, shutdown_timeout=1, handle_signals=False)
        self.port = 0

    async def start(self) -> None:
        await self.db.open()
        await self.publisher.start()
        await self.fanout.start()
        await self.registry.start()
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = self._runner.addresses[0][1]
        await until(lambda: self.fanout._link is not None, what="the subscription")

    async def stop(self) -> None:
        await self.registry.stop(timeout_s=2)
        await self._runner.cleanup()
        await self.fanout.stop()
        await self.publisher.stop()
        await self.db.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/ws"


@asynccontextmanager
async def live_hub(
    servers: Servers, redis_url: str, fanout: Callable[..., Fanout] = Fanout, **environ: str
) -> AsyncIterator[LiveHub]:
    hub = LiveHub(live_settings(servers, redis_url, **environ), fanout)
    await hub.start()
    try:
        yield hub
    finally:
        await hub.stop()


async def sign_in(conn: asyncpg.Connection, hub: LiveHub, member: Member) -> tuple[str, UUID]:
    """An access token of a new session of this member, and the session."""
    session = await conn.fetchval(
        "insert into auth.sessions (user_id, organization_id) values ($1, $2) returning id",
        member.id,
        member.organization_id,
    )
    async with hub.db.connection("admin") as door:
        ring = await load_keyring(door, hub.settings)
    user = {"id": str(member.id), "email": member.email, "app_metadata": {}, "user_metadata": {}}
    token, _ = ring.access_token(
        user, session, organization_id=member.organization_id, org_role=member.role, is_web=False
    )
    return token, session


class Client:
    """One scripted live session: keeps every event, checks that seq only rises, remembers its cursor as
    docs/realtime.md says."""

    def __init__(self, token: str) -> None:
        self.token = token
        self.cursor: dict[str, Any] | None = None
        self.events: list[dict[str, Any]] = []
        self.others: list[dict[str, Any]] = []
        self.welcomes: list[dict[str, Any]] = []
        self.close_code: int | None = None
        self._http: aiohttp.ClientSession | None = None
        self._ws: aiohttp.ClientWebSocketResponse | None = None
        self._reading: asyncio.Task[None] | None = None
        self._replies: dict[str, asyncio.Future[dict[str, Any]]] = {}

    async def connect(
        self, hub: LiveHub, *, small_buffers: bool = False, read: bool = True, **options: Any
    ) -> dict[str, Any]:
        """Open, say hello and wait for the welcome. Raises ConnectionError with the close code."""
        await self.open(hub, small_buffers=small_buffers, **options)
        await self.send({"type": "hello", "token": self.token, "cursor": self.cursor, "client": "tests"})
        frame = await self.receive()
        if frame["type"] in ("bye",):
            self.others.append(frame)
            frame = await self.receive()
        assert frame["type"] == "welcome", frame
        self.welcomes.append(frame)
        if not frame["resumed"]:
            self.events.clear()  # stands for the snapshot
            self.cursor = {"epoch": frame["epoch"], "seq": frame["seq"]}
        if read:
            self.start_reading()
        return frame

    async def open(self, hub: LiveHub, *, small_buffers: bool = False, **options: Any) -> None:
        def small(info: Any) -> socket.socket:
            sock = socket.socket(info[0], info[1], info[2])
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            return sock

        connector = aiohttp.TCPConnector(socket_factory=small) if small_buffers else None
        self.close_code = None
        self._http = aiohttp.ClientSession(connector=connector)
        try:
            self._ws = await self._http.ws_connect(hub.url, max_msg_size=0, **options)
        except BaseException:
            await self._http.close()
            raise

    async def send(self, frame: dict[str, Any] | bytes | str) -> None:
        assert self._ws is not None
        if isinstance(frame, bytes):
            await self._ws.send_bytes(frame)
        else:
            await self._ws.send_str(frame if isinstance(frame, str) else orjson.dumps(frame).decode())

    async def receive(self) -> dict[str, Any]:
        """The next frame. Raises ConnectionError when the socket was closed; ``close_code`` tells why."""
        assert self._ws is not None
        message = await self._ws.receive(timeout=WAIT_S)
        if message.type is not aiohttp.WSMsgType.TEXT:
            self.close_code = self._ws.close_code
            raise ConnectionError(f"closed with {self.close_code}")
        frame: dict[str, Any] = orjson.loads(message.data)
        return frame

    def start_reading(self) -> None:
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                self._take(await self.receive())

    def _take(self, frame: dict[str, Any]) -> None:
        if frame["type"] == "event":
            assert self.cursor is not None
            assert frame["seq"] > self.cursor["seq"], f"{frame['seq']} after {self.cursor['seq']}"
            self.cursor["seq"] = frame["seq"]
            self.events.append(frame)
        elif frame["type"] == "pos":
            assert self.cursor is not None
            self.cursor["seq"] = max(self.cursor["seq"], frame["seq"])
        elif frame["type"] == "resync":
            self.events.clear()
            self.cursor = {"epoch": frame["epoch"], "seq": frame["seq"]}
            self.others.append(frame)
        elif frame["type"] == "reply":
            waiting = self._replies.pop(frame["id"], None)
            if waiting is not None:
                waiting.set_result(frame)
        else:
            self.others.append(frame)

    async def command(self, name: str, **args: Any) -> dict[str, Any]:
        """Send a command and wait for its reply."""
        key = uuid4().hex
        future = self._replies[key] = asyncio.get_running_loop().create_future()
        plain = {k: str(v) if isinstance(v, UUID) else v for k, v in args.items()}
        await self.send({"type": "command", "id": key, "name": name, "args": plain})
        async with asyncio.timeout(WAIT_S):
            return await future

    async def closed(self) -> int | None:
        """Wait until the hub closed the socket; the code."""
        if self._reading is None:
            self.start_reading()
        assert self._reading is not None
        await asyncio.wait_for(asyncio.shield(self._reading), WAIT_S)
        return self.close_code

    async def leave(self) -> None:
        if self._ws is not None:
            await self._ws.close()
        if self._reading is not None:
            await asyncio.gather(self._reading, return_exceptions=True)
            self._reading = None
        if self._http is not None:
            await self._http.close()

    def cut(self) -> None:
        """Lose the connection without a goodbye."""
        assert self._ws is not None
        connection = self._ws._response.connection
        assert connection is not None and connection.transport is not None
        connection.transport.abort()

    @property
    def seqs(self) -> list[int]:
        return [e["seq"] for e in self.events]

    def ids(self, table: str) -> list[str]:
        return [e["event"]["entity_id"] for e in self.events if e["event"]["table"] == table]
