"""WhatsApp Cloud webhook bodies as Meta sends them, and an app of the webhook route alone to post them to."""

from __future__ import annotations

import io
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestServer

from hub.channels import ingress
from hub.channels.ingest import Ingest
from hub.channels.signing import meta_signature
from hub.channels.spool import Spool
from hub.db.pool import Database
from hub.errors import HubError
from hub.resources import INGEST, SETTINGS, SPOOL
from hub.settings import Secret, Settings
from tests.factories import Org

APP_SECRET = "operator-app-secret"
VERIFY_TOKEN = "operator-verify-token"
PATH = "/functions/v1/whatsapp-cloud-webhook"


def settings(database_url: str = "postgresql://nowhere", **fields: Any) -> Settings:
    return Settings(
        database_url=database_url,
        secret_keys=(Secret("k" * 32),),
        **{
            "redis_url": "redis://127.0.0.1:1",
            "meta_app_secret": Secret(APP_SECRET),
            "meta_verify_token": Secret(VERIFY_TOKEN),
            **fields,
        },
    )


def wamid() -> str:
    return f"wamid.{uuid4().hex}"


def text(
    sender: str, body: str = "Hi", id: str | None = None, at: float | None = None, **fields: Any
) -> dict[str, Any]:
    """One element of `messages`."""
    return {
        "from": sender,
        "id": id or wamid(),
        "timestamp": str(int(at or time.time())),
        "type": "text",
        "text": {"body": body},
        **fields,
    }


def status(id: str, name: str, at: float | None = None, **fields: Any) -> dict[str, Any]:
    """One element of `statuses`: sent, delivered, read or failed."""
    stamp = str(int(at or time.time()))
    return {"id": id, "status": name, "timestamp": stamp, "recipient_id": "201001383533", **fields}


def change(
    org: Org, *messages: dict[str, Any], statuses: list[dict[str, Any]] | None = None
) -> dict[str, Any]:
    value: dict[str, Any] = {
        "messaging_product": "whatsapp",
        "metadata": {"display_phone_number": "15550001111", "phone_number_id": org.phone_number_id},
        "contacts": [
            {"profile": {"name": "Mona Hassan"}, "wa_id": m["from"]} for m in messages if "from" in m
        ],
    }
    if messages:
        value["messages"] = list(messages)
    if statuses:
        value["statuses"] = statuses
    return {"field": "messages", "value": value}


def places(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value below a JSON node."""
    found = [path] if path else []
    if isinstance(node, dict):
        found += [p for k, v in node.items() for p in places(v, (*path, k))]
    elif isinstance(node, list):
        found += [p for n, v in enumerate(node) for p in places(v, (*path, n))]
    return found


def body(*changes: dict[str, Any], waba: str = "200") -> bytes:
    """A delivery, serialised as Meta does: ASCII with escapes."""
    entries = [{"id": waba, "changes": [c]} for c in changes]
    return json.dumps({"object": "whatsapp_business_account", "entry": entries}).encode()


def messages(org: Org, *parts: dict[str, Any]) -> bytes:
    return body(change(org, *parts))


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@web.middleware
async def _refusals(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except HubError as error:
        headers = {"Retry-After": str(int(error.retry_after_s))} if error.retry_after_s else {}
        return web.json_response({"code": error.code}, status=error.status, headers=headers)


class Hook:
    """A running webhook route; `post` signs with the operator's secret unless told."""

    def __init__(
        self, server: TestServer, client: aiohttp.ClientSession, ingest: Ingest, spool: Spool | None
    ) -> None:
        self.server, self.client, self.ingest, self.spool = server, client, ingest, spool

    async def post(
        self, raw: bytes, *, secret: str | None = APP_SECRET, query: str = "", **headers: str
    ) -> int:
        signature = {} if secret is None else {"X-Hub-Signature-256": meta_signature(secret, raw)}
        url = self.server.make_url(PATH + query)
        async with self.client.post(url, data=io.BytesIO(raw), headers={**signature, **headers}) as response:
            self.headers = response.headers
            return response.status


@asynccontextmanager
async def hook(db: Database, config: Settings, spool_dir: Path | None = None) -> AsyncIterator[Hook]:
    """The webhook route on a free port, with a spool when a folder is given."""
    app = web.Application(middlewares=[_refusals])
    app[SETTINGS] = config
    app[INGEST] = Ingest(db, config)
    await app[INGEST].start()
    spool = None
    if spool_dir is not None:
        spool = app[SPOOL] = Spool(spool_dir, app[INGEST].replay)
        await spool.start()
    app.add_routes(ingress.routes(ingress.webhooks()))
    server = TestServer(app)
    await server.start_server(auto_decompress=False)
    async with server, aiohttp.ClientSession() as client:
        yield Hook(server, client, app[INGEST], spool)
        if spool is not None:
            await spool.stop()
        await app[INGEST].stop()
