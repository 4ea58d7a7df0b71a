"""The sandbox's process: opens the folder, mounts the rooms, serves the phone page."""

from __future__ import annotations

import asyncio
import fcntl
import ipaddress
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import structlog
from aiohttp import web

from hub.sandbox.config import SandboxConfig
from hub.sandbox.control import Control, Handler, refusals
from hub.sandbox.graph import MAX_MEDIA, Graph
from hub.sandbox.provider import Provider
from hub.sandbox.stripe import StripeSandbox

log = structlog.get_logger()

WEB_DIST = Path(__file__).resolve().parent.parent / "web" / "dist"
MAX_BODY = MAX_MEDIA + 1024 * 1024
"""The largest upload and its multipart frame."""
PROVIDER: web.AppKey[Provider] = web.AppKey("provider", Provider)
RUNNING: web.AppKey[list[asyncio.Task[None]]] = web.AppKey("running", list)
"""One element once the application has started: the task of timers and postman."""

_NOT_BUILT = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Phone page</title>
<body style="font:16px system-ui;max-width:40rem;margin:4rem auto;padding:0 1rem">
<h1>The phone page is not built</h1>
<p><code>hub/web/dist/phone.html</code> is missing. <code>make run</code> builds it; by hand: <code>npm run
build</code> in <code>hub/web</code>.</p> <p>The sandbox itself works: see <a
href="/_ctl/phone">/_ctl/phone</a> and docs/sandbox.md.</p></body></html>
"""
_PAGE_HEADERS = {
    "Cache-Control": "no-cache",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'self'; style-src 'self' 'unsafe-inline'; connect-src 'self'; "
    "img-src 'self' data: blob: http: https:; media-src 'self' blob: http: https:; "
    "object-src 'none'; base-uri 'none'",
}


def _is_loopback(host: str | None) -> bool:
    if host is None:
        return False
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _host_of(value: str) -> str | None:
    try:
        return urlsplit(value if "//" in value else f"//{value}").hostname
    except ValueError:
        return None


@web.middleware
async def _loopback_only(request: web.Request, handler: Handler) -> web.StreamResponse:
    """A web page elsewhere must not play the customer through a newcomer's browser (foreign Origin, rebound
    Host)."""
    origin = request.headers.get("Origin")
    if not _is_loopback(_host_of(request.host)) or (
        origin is not None and not _is_loopback(_host_of(origin))
    ):
        return web.json_response({"error": "FORBIDDEN", "message": "Loopback only"}, status=403)
    return await handler(request)


async def _page(request: web.Request) -> web.StreamResponse:
    page = WEB_DIST / "phone.html"
    if not page.is_file():
        return web.Response(text=_NOT_BUILT, content_type="text/html", headers=_PAGE_HEADERS)
    return web.FileResponse(page, headers=_PAGE_HEADERS)


async def _asset(request: web.Request) -> web.StreamResponse:
    """Files with a hash in their name; aiohttp picks a .br or .gz sibling itself."""
    root = WEB_DIST / "assets"
    path = (root / request.match_info["path"]).resolve()
    if not path.is_relative_to(root) or not path.is_file():
        raise web.HTTPNotFound
    return web.FileResponse(path, headers={"Cache-Control": "public, max-age=31536000, immutable"})


async def _health(request: web.Request) -> web.Response:
    return web.json_response({"status": "ok"})


async def _provider_runs(app: web.Application) -> AsyncIterator[None]:
    provider = app[PROVIDER]
    task = asyncio.create_task(provider.run())
    app[RUNNING].append(task)
    yield
    task.cancel()
    await asyncio.wait([task])
    await provider.state.close()


def make_app(config: SandboxConfig) -> web.Application:
    """The whole sandbox as an application; state is rebuilt here, delivery starts with the application."""
    provider = Provider(config)
    graph = Graph(provider)
    guards = [refusals] if config.allow_remote else [_loopback_only, refusals]
    app = web.Application(client_max_size=MAX_BODY, middlewares=guards)
    app[PROVIDER] = provider
    app[RUNNING] = []
    app.cleanup_ctx.append(_provider_runs)
    app.router.add_route("*", "/graph/{tail:.*}", graph.handle)
    stripe = StripeSandbox(config, provider.clock, provider.timers)
    app.cleanup_ctx.append(stripe.runs)
    app.add_routes(stripe.routes())
    app.add_routes(Control(provider, graph, stripe.reset).routes())
    app.add_routes(
        [
            web.get("/", _page),
            web.get("/phone", _page),
            web.get("/assets/{path:.+}", _asset),
            web.get("/healthz", _health),
        ]
    )
    return app


def _lock(folder: Path) -> int:
    """One process per folder: two would write one ledger. The lock goes with the process, also when it is
    killed."""
    folder.mkdir(parents=True, exist_ok=True)
    fd = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise SystemExit(
            f"Another sandbox uses {folder}. Stop it, or give this one its own --data."
        ) from None
    return fd


async def serve(config: SandboxConfig) -> None:
    """Listens until SIGINT or SIGTERM; prints the ready line on stdout."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(signum, stop.set)
    app = make_app(config)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=2)
    await runner.setup()
    try:
        site = web.TCPSite(runner, config.host, config.port)
        await site.start()
        port = runner.addresses[0][1]
        url = f"http://{'127.0.0.1' if config.allow_remote else config.host}:{port}"
        ready = {"event": "sandbox.ready", "url": url, "phone_url": f"{url}/phone", "pid": os.getpid()}
        sys.stdout.write(json.dumps(ready) + "\n")
        sys.stdout.flush()
        stopping = asyncio.create_task(stop.wait())
        [running] = app[RUNNING]
        done, _ = await asyncio.wait([stopping, running], return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if running in done:
            await running  # a sandbox that delivers nothing must not look alive
    finally:
        await runner.cleanup()


def _log_to_stderr() -> None:
    """JSON lines beside the ready line's stdout; tracebacks without local variables, which hold customers'
    words."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def main(settings: Any) -> None:
    """Runs the sandbox until it is told to stop. Takes a SandboxConfig, or settings that
    `SandboxConfig.from_settings` reads."""
    config = settings if isinstance(settings, SandboxConfig) else SandboxConfig.from_settings(settings)
    if not config.allow_remote and not _is_loopback(config.host):
        raise SystemExit(
            f"host {config.host!r} is not loopback; the sandbox has no sign-in. Set allow_remote to insist."
        )
    lock = _lock(config.folder)
    _log_to_stderr()
    try:
        asyncio.run(serve(config))
    except OSError as error:
        raise SystemExit(
            f"The sandbox cannot listen on {config.host}:{config.port}: {error.strerror or error}"
        ) from error
    finally:
        os.close(lock)
