"""Around the sandbox: a webhook endpoint that answers as told, a running sandbox, and pywa as the client we
did not write."""

from __future__ import annotations

import asyncio
import json
import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pywa
from aiohttp import web

from hub.channels.protocol import Inbound, StatusUpdate
from hub.channels.whatsapp_cloud import WhatsAppCloud
from hub.sandbox.config import SandboxConfig
from hub.sandbox.server import make_app

APP_SECRET = "app-secret-of-the-tests"
ADAPTER = WhatsAppCloud()
Json = dict[str, Any]


class Receiver:
    """The hub's callback. Keeps every body that came with a good signature; `answers` are statuses to give
    first, then 200."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.signatures: list[str] = []
        self.unsigned: list[bytes] = []
        self.refused: list[bytes] = []
        self.answers: list[int] = []
        self.verify_token = "vt"
        self.port = 0
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    async def start(self) -> None:
        app = web.Application(client_max_size=8 * 1024 * 1024)
        app.add_routes([web.post("/hook", self._post), web.get("/hook", self._get)])
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _get(self, request: web.Request) -> web.Response:
        challenge = ADAPTER.handshake(request.query, [self.verify_token])
        return web.Response(text=challenge) if challenge else web.Response(status=403)

    async def _post(self, request: web.Request) -> web.Response:
        body = await request.read()
        if not ADAPTER.verify(request.headers, body, [APP_SECRET]):
            self.unsigned.append(body)
            return web.Response(status=401)
        if self.answers and (status := self.answers.pop(0)) != 200:
            self.refused.append(body)
            return web.Response(status=status)
        self.bodies.append(body)
        self.signatures.append(request.headers["X-Hub-Signature-256"])
        return web.Response()

    def events(self) -> list[Any]:
        """Everything received so far, as our adapter reads it."""
        return [event for body in self.bodies for event in ADAPTER.parse(body)]

    def inbound(self) -> list[Inbound]:
        return [event for event in self.events() if isinstance(event, Inbound)]

    def statuses(self, wamid: str | None = None) -> list[StatusUpdate]:
        return [
            event
            for event in self.events()
            if isinstance(event, StatusUpdate) and wamid in (None, event.provider_message_id)
        ]


class Sandbox:
    """A sandbox in this process, spoken to over HTTP."""

    def __init__(self, url: str, client: aiohttp.ClientSession, config: SandboxConfig) -> None:
        self.url = url
        self.client = client
        self.config = config

    async def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        async with self.client.request(method, f"{self.url}{path}", json=body) as answer:
            text = await answer.text()
            return answer.status, json.loads(text) if text.startswith(("{", "[")) else text

    async def ctl(self, method: str, path: str, body: Any = None) -> Any:
        status, answer = await self.call(method, f"/_ctl{path}", body)
        assert status < 300, (status, answer)
        return answer

    async def graph(
        self, method: str, path: str, body: Any = None, token: str | None = "sandbox-token"
    ) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        url = f"{self.url}/graph/v25.0{path}"
        async with self.client.request(method, url, json=body, headers=headers) as answer:
            text = await answer.text()
            return answer.status, json.loads(text) if text.startswith("{") else text

    async def send(self, to: str = "201001383533", text: str = "Hello", **more: Any) -> tuple[int, Any]:
        body = {"messaging_product": "whatsapp", "to": to, "type": "text", "text": {"body": text}, **more}
        return await self.graph("POST", "/100000000000001/messages", body)

    async def accepted(self, to: str = "201001383533", text: str = "Hello", **more: Any) -> str:
        """The wamid of a send that was accepted."""
        status, answer = await self.send(to, text, **more)
        assert status == 200, answer
        wamid: str = answer["messages"][0]["id"]
        return wamid

    async def say(self, persona: str = "layla", text: str = "Hi", **more: Any) -> str:
        body = {
            "channel": "WHATSAPP_CLOUD",
            "persona": persona,
            "message": {"type": "text", "text": text},
            **more,
        }
        answer = await self.ctl("POST", "/inbound", body)
        wamid: str = answer["id"]
        return wamid

    async def fault(self, name: str, **more: Any) -> int:
        answer = await self.ctl("POST", "/fault", {"fault": name, **more})
        number: int = answer["id"]
        return number

    async def thread(self, persona: str = "layla") -> list[Json]:
        answer = await self.ctl("GET", f"/phone/{persona}/messages")
        messages: list[Json] = answer["messages"]
        return messages

    async def advance(self, seconds: float) -> None:
        await self.ctl("POST", "/clock", {"advance_s": seconds})

    async def quiet(self) -> bool:
        """Whether every webhook was answered 200."""
        state = await self.ctl("GET", "/state")
        return bool(state["pending"] == 0)


@asynccontextmanager
async def running_sandbox(data_dir: Path, callback_url: str, **config: Any) -> AsyncIterator[Sandbox]:
    """Retries within milliseconds, one event a body unless told otherwise."""
    defaults: Json = {"retry_base_s": 0.02, "retry_cap_s": 0.1, "batch_max": 1, "verify_token": "vt"}
    settings = SandboxConfig(
        port=0,
        data_dir=str(data_dir),
        callback_url=callback_url,
        app_secret=APP_SECRET,
        **{**defaults, **config},
    )
    runner = web.AppRunner(make_app(settings), access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as client:
            yield Sandbox(f"http://127.0.0.1:{runner.addresses[0][1]}", client, settings)
    finally:
        await runner.cleanup()


class _ToSandbox(httpx.BaseTransport):
    """pywa insists on graph.facebook.com; this sends its requests to the sandbox instead."""

    def __init__(self, sandbox_url: str) -> None:
        self._to = httpx.URL(sandbox_url)
        self._inner = httpx.HTTPTransport()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        path = request.url.raw_path.decode()
        ours = path if path.startswith("/graph/") else f"/graph{path}"
        request.url = self._to.copy_with(raw_path=ours.encode())
        request.headers["Host"] = f"{self._to.host}:{self._to.port}"
        return self._inner.handle_request(request)

    def close(self) -> None:
        self._inner.close()


def pywa_client(sandbox_url: str = "http://127.0.0.1:1") -> pywa.WhatsApp:
    """A client of the demo account. Blocking: call it in a thread."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pywa.WhatsApp(
            phone_id="100000000000001",
            token="sandbox-token",
            waba_id="200000000000001",
            server=None,
            app_secret=APP_SECRET,
            filter_updates=False,
            skip_duplicate_updates=False,
            session=httpx.Client(transport=_ToSandbox(sandbox_url)),
        )


_DECORATORS = (
    "on_message",
    "on_callback_button",
    "on_callback_selection",
    "on_flow_completion",
    "on_message_status",
    "on_template_status_update",
    "on_edited_message",
    "on_deleted_message",
    "on_phone_number_change",
    "on_identity_change",
    "on_user_marketing_preferences",
)


def pywa_reads(wa: pywa.WhatsApp) -> list[Any]:
    """A list that fills with what pywa makes of each body given to `wa.webhook_update_handler`."""
    read: list[Any] = []

    def keep(_: pywa.WhatsApp, update: Any) -> None:
        read.append(update)

    for name in _DECORATORS:
        register: Callable[[], Callable[[Any], Any]] | None = getattr(wa, name, None)
        assert register is not None, name
        register()(keep)
    return read


async def in_thread(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """pywa blocks; the sandbox runs on this loop."""
    return await asyncio.to_thread(call, *args, **kwargs)
