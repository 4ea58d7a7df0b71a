"""A whole hub in this process, on a free port, with a client that speaks to it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import orjson
from aiohttp import web

from hub.app import build_app, make_runner
from hub.db.embedded import EmbeddedValkey
from hub.settings import Settings, load_settings
from tests.factories import Servers

SECRET_KEY = "a-key-for-tests-that-is-long-enough-0123456789"
PASSWORD = "correct horse battery"


class Answer:
    """One answer, read to its end."""

    def __init__(self, status: int, headers: Any, body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)

    def __repr__(self) -> str:
        return f"<{self.status} {self.body[:500]!r}>"


class Hub:
    """``await hub.get(path, token=…)``; a ``json`` body is encoded, ``data`` is sent as it is."""

    def __init__(
        self, app: web.Application, settings: Settings, url: str, client: aiohttp.ClientSession
    ) -> None:
        self.app, self.settings, self.url, self.client = app, settings, url, client

    async def call(
        self, method: str, path: str, *, token: str | None = None, key: str | None = None, **options: Any
    ) -> Answer:
        headers = dict(options.pop("headers", None) or {})
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        if key is not None:
            headers["X-API-Key"] = key
        async with self.client.request(
            method, self.url + path, headers=headers, allow_redirects=False, **options
        ) as answer:
            return Answer(answer.status, answer.headers, await answer.read())

    async def get(self, path: str, **options: Any) -> Answer:
        return await self.call("GET", path, **options)

    async def post(self, path: str, **options: Any) -> Answer:
        return await self.call("POST", path, **options)

    async def patch(self, path: str, **options: Any) -> Answer:
        return await self.call("PATCH", path, **options)

    async def delete(self, path: str, **options: Any) -> Answer:
        return await self.call("DELETE", path, **options)

    async def sign_in(self, email: str, password: str = PASSWORD, **options: Any) -> dict[str, Any]:
        """The session document. Fails the test when sign-in is refused."""
        answer = await self.post(
            "/auth/v1/token?grant_type=password", json={"email": email, "password": password}, **options
        )
        assert answer.status == 200, answer
        document: dict[str, Any] = answer.json
        return document

    async def token(self, email: str) -> str:
        text: str = (await self.sign_in(email))["access_token"]
        return text


@asynccontextmanager
async def running_hub(servers: Servers, redis_url: str, data_dir: Path, **environ: str) -> AsyncIterator[Hub]:
    """A started hub on a free port. ``environ`` adds to or replaces its settings."""
    settings = load_settings(
        {
            "DATABASE_URL": servers.database_url,
            "REDIS_URL": redis_url,
            "HUB_SECRET_KEY": SECRET_KEY,
            "HUB_DATA_DIR": str(data_dir),
            "HUB_UNSAFE_DURABILITY": "on",
            "HUB_RATE_ADDRESS": "100000",
            "HUB_RATE_MAIL": "100000",
            **environ,
        }
    )
    app = build_app(settings)
    runner = make_runner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as client:
            yield Hub(app, settings, f"http://{host}:{port}", client)
    finally:
        await runner.cleanup()


def redis_of(valkey: EmbeddedValkey) -> str:
    return valkey.url
