"""Composition root of one hub process: settings → resources → routes. Reads like a contents page.

starting ──gate passed──▶ ready ──SIGTERM──▶ stopping ──▶ gone
    └ Postgres is away: pages, /healthz and the webhooks' spool work, and the gate is tried again
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Mapping
from functools import partial
from typing import Any, Final

import asyncpg
import structlog
from aiohttp import web

from hub import __version__, clock, heap, logs, metrics
from hub.auth.authenticator import Authenticator
from hub.auth.factors import Factors
from hub.auth.links import Links
from hub.auth.notes import Notes
from hub.auth.passwords import Passwords
from hub.auth.routes import routes as auth_routes
from hub.auth.secrets import SENTINEL, CannotOpen, open_secret, seal_secret
from hub.auth.sessions import Accounts
from hub.bodies import json_response
from hub.channels.ingest import Ingest
from hub.channels.ingress import Webhook, webhooks
from hub.channels.ingress import routes as ingress_routes
from hub.channels.spool import Spool
from hub.db.migrate import check_schema
from hub.disk import DiskGuard, Level
from hub.edge import client_address, edge
from hub.errors import HubError, MethodNotAllowed, NotFound, Unavailable
from hub.events.publisher import Publisher
from hub.functions.billing import billing
from hub.functions.billing import routes as billing_routes
from hub.functions.router import routes as function_routes
from hub.limits import RateLimiter
from hub.openapi import routes as description_routes
from hub.realtime.fanout import Fanout
from hub.realtime.registry import Registry
from hub.realtime.session import routes as realtime_routes
from hub.resources import (
    ACCOUNTS,
    AUTH,
    CATALOG,
    DB,
    DISK,
    FACTORS,
    FANOUT,
    INGEST,
    LIFE,
    LINKS,
    NOTES,
    PASSWORDS,
    PUBLISHER,
    RATE,
    REDIS,
    SESSIONS,
    SETTINGS,
    SPOOL,
    database,
    redis_client,
)
from hub.rest.catalog import Catalog
from hub.rest.handlers import routes as rest_routes
from hub.server import Runner, expect
from hub.settings import Settings
from hub.short_cut import ShortCut
from hub.static import WebApp, config_document
from sql import q

log = structlog.get_logger()

#: Between "not ready" and the end of accepting, so that a proxy has seen it (guarantees 11).
NOTICE_S: Final = 2.0
LINGER_S: Final = 3.0
FINISH_S: Final = 7.0
#: How long a start waits for the gate before it listens without having passed it.
GATE_PATIENCE_S: Final = 5.0
GATE_AGAIN_S: Final = 1.0
_LOCAL: Final = ("127.0.0.1", "::1")
_API: Final = ("/rest/", "/auth/", "/functions/", "/storage/", "/realtime/", "/ws")


class StartRefused(Exception):
    """This process must not serve this database; the message says why and what to do."""


class Life:
    """Where the process is in its life; what /readyz tells."""

    def __init__(self) -> None:
        self.ready = False
        self.stopping = False
        self.gate: asyncio.Task[None] | None = None
        self._looked: tuple[float, list[str]] = (-1e9, [])

    async def away(self, app: web.Application) -> list[str]:
        """Which servers do not answer; asked at most once a second."""
        now = time.monotonic()
        if now - self._looked[0] >= 1.0:
            found = await asyncio.gather(_postgres_away(app), _redis_away(app))
            full = ["disk"] if app[DISK].level is Level.FULL else []
            self._looked = (time.monotonic(), [*(name for name in found if name is not None), *full])
        return self._looked[1]


WEBHOOKS: web.AppKey[Mapping[str, Webhook]] = web.AppKey("webhooks", Mapping)


def build_app(settings: Settings) -> web.Application:
    """The application of one process; nothing connects before it starts."""
    app = web.Application(middlewares=[edge])
    app[SETTINGS] = settings
    app[LIFE] = Life()
    pages = WebApp()
    app.cleanup_ctx.extend([database, redis_client, _who, _events, _inbound, billing, _room, _gate])
    app.on_shutdown.append(_say_goodbye)
    app[WEBHOOKS] = webhooks()
    routes = [
        *ingress_routes(app[WEBHOOKS]),
        *realtime_routes(),
        *rest_routes(),
        *billing_routes(),
        *function_routes(),
        *auth_routes(),
        *description_routes(),
        web.get("/healthz", healthz),
        web.get("/readyz", readyz),
        web.get("/metrics", show_metrics),
        web.get("/config.json", config),
        web.get("/assets/{name}", pages.handle_asset),
        web.route("*", "/{path:.*}", _everything_else(pages)),
    ]
    for route in routes:
        route.kwargs["expect_handler"] = expect
    app.add_routes(routes)
    return app


async def _who(app: web.Application) -> AsyncIterator[None]:
    """Sign-in, limits, the tables' catalog."""
    settings, db = app[SETTINGS], app[DB]
    app[NOTES] = Notes(db)
    app[AUTH] = Authenticator(db, settings)
    app[AUTH].on_use = app[NOTES].used
    app[PASSWORDS] = Passwords()
    app[ACCOUNTS] = Accounts(db, settings, app[AUTH], app[PASSWORDS])
    app[FACTORS] = Factors(db, settings, app[AUTH], app[ACCOUNTS])
    app[LINKS] = Links(db, settings, app[AUTH], app[PASSWORDS], app[ACCOUNTS])
    app[RATE] = RateLimiter(app[REDIS])
    app[CATALOG] = Catalog(db, aggregates=settings.rest_aggregates)
    yield
    await app[CATALOG].close()
    app[PASSWORDS].close()
    await app[AUTH].close()
    await app[NOTES].close()


async def _events(app: web.Application) -> AsyncIterator[None]:
    """Committed events to everybody's sockets."""
    settings, db = app[SETTINGS], app[DB]
    publisher = Publisher(db, settings.redis_url)
    fanout = Fanout(db, settings.redis_url, publisher, settings.resume_keep_s)
    registry = Registry(settings, db, app[AUTH], fanout)
    registry.on_refusal = app[NOTES].refused
    app[PUBLISHER], app[FANOUT], app[SESSIONS] = publisher, fanout, registry
    db.publish, db.wake = publisher.publish, publisher.wake
    await publisher.start()
    await fanout.start()
    await registry.start()
    yield
    await registry.stop()
    await fanout.stop()
    await publisher.stop()


async def _inbound(app: web.Application) -> AsyncIterator[None]:
    """Providers' deliveries, and the spool for when Postgres is away."""
    settings = app[SETTINGS]
    ingest = Ingest(app[DB], settings)
    app[INGEST] = ingest
    await ingest.start()
    spool = Spool(settings.data_dir / "spool", ingest.replay) if settings.webhook_spool else None
    if spool is not None:
        app[SPOOL] = spool
        await spool.start()
    yield
    if spool is not None:
        await spool.stop()
    await ingest.stop()


async def _room(app: web.Application) -> AsyncIterator[None]:
    """Writing stops before the disk does."""
    settings = app[SETTINGS]

    def change(level: Level) -> None:
        app[DB].is_full = level is Level.FULL
        if SPOOL in app:
            app[SPOOL].has_room = level is not Level.FULL

    guard = app[DISK] = DiskGuard(settings.data_dir, settings.disk_probe, change)
    await guard.look()
    looking = asyncio.create_task(guard.run(), name="disk")
    yield
    looking.cancel()
    await asyncio.wait([looking])


async def _gate(app: web.Application) -> AsyncIterator[None]:
    """Pass the gate now, or keep trying in the background while Postgres is away."""
    life = app[LIFE]
    gate = asyncio.create_task(_keep_trying(app), name="gate")
    life.gate = gate
    await asyncio.wait([gate], timeout=GATE_PATIENCE_S)
    if gate.done():
        gate.result()  # raises StartRefused
    else:
        log.warning("start.database_away")
    yield
    gate.cancel()
    await asyncio.wait([gate])


async def _keep_trying(app: web.Application) -> None:
    while True:
        try:
            await pass_gate(app)
        except (Unavailable, asyncpg.PostgresError, OSError, TimeoutError) as error:
            log.info("start.waiting", error=type(error).__name__)
            await asyncio.sleep(GATE_AGAIN_S)
        else:
            app[LIFE].ready = True
            log.info("hub.ready", version=__version__)
            return


async def pass_gate(app: web.Application) -> None:
    """Refuse a database that this version does not know, that would lose acknowledged work, or whose secrets
    our HUB_SECRET_KEY does not open. Raises StartRefused; Unavailable while nothing can be said."""
    settings = app[SETTINGS]
    try:
        async with app[DB].connection("admin") as conn:
            missing = await check_schema(conn)
            if missing:
                raise StartRefused(f"The database lacks {', '.join(missing)}. Run `hub migrate`.")
            await _check_durability(conn, settings)
            await _check_sentinel(conn, settings)
        await app[AUTH].keyring()
    except (
        asyncpg.UndefinedFunctionError,
        asyncpg.UndefinedTableError,
        asyncpg.InvalidSchemaNameError,
    ) as error:
        raise StartRefused("The database is empty or of another version. Run `hub migrate`.") from error
    except (asyncpg.InvalidPasswordError, asyncpg.InvalidAuthorizationSpecificationError) as error:
        raise StartRefused("DATABASE_URL: the server refuses this login. Check user and password.") from error
    except asyncpg.InvalidCatalogNameError as error:
        raise StartRefused(
            "DATABASE_URL names a database that does not exist. Create it and run `hub migrate`."
        ) from error
    except asyncpg.InsufficientPrivilegeError as error:
        raise StartRefused(
            "DATABASE_URL must be the login hub_runtime; run `hub migrate` to set its rights."
        ) from error
    except CannotOpen as error:
        raise StartRefused(
            "HUB_SECRET_KEY does not open what this database keeps encrypted. Put the earlier key back, "
            "or behind the new one after a comma."
        ) from error


async def _check_durability(conn: Any, settings: Settings) -> None:
    values = {row["setting"]: row["value"] for row in await conn.fetch(q.durability)}
    unsafe = [
        name for name in ("fsync", "full_page_writes", "synchronous_commit") if values.get(name) == "off"
    ]
    if not unsafe:
        return
    if not settings.unsafe_durability:
        raise StartRefused(
            f"The database server has {', '.join(f'{n} = off' for n in unsafe)} and would lose acknowledged "
            "messages in a power cut. Switch it on, or set HUB_UNSAFE_DURABILITY=on for tests."
        )
    log.warning("start.unsafe_durability", settings=unsafe)


async def _check_sentinel(conn: Any, settings: Settings) -> None:
    place: dict[str, Any] = {
        "table": "hub_meta",
        "column": "sentinel",
        "organization_id": None,
        "row_id": None,
    }
    standing = await conn.fetchval(q.claim_sentinel, seal_secret(settings, SENTINEL, **place))
    if open_secret(settings, standing, **place).reveal() != SENTINEL:
        raise CannotOpen("The sentinel is another hub's")


async def _postgres_away(app: web.Application) -> str | None:
    try:
        async with asyncio.timeout(1.5), app[DB].connection("admin") as conn:
            await conn.execute("select 1")
    except (HubError, asyncpg.PostgresError, OSError, TimeoutError):
        return "postgres"
    return None


async def _redis_away(app: web.Application) -> str | None:
    try:
        async with asyncio.timeout(1.5):
            await app[REDIS].ping()
    except Exception:
        return "redis"
    return None


async def healthz(request: web.Request) -> web.Response:
    """The process is alive and its loop turns."""
    return json_response({"status": "ok"})


async def readyz(request: web.Request) -> web.Response:
    """503 while starting or stopping; 200 else, naming what is away: sockets and the spool go on."""
    life = request.app[LIFE]
    if life.stopping or not life.ready:
        return json_response({"status": "stopping" if life.stopping else "starting", "degraded": []}, 503)
    away = await life.away(request.app)
    return json_response({"status": "degraded" if away else "ready", "degraded": away})


async def show_metrics(request: web.Request) -> web.Response:
    """For Prometheus: with HUB_METRICS_TOKEN as bearer, or from this machine when no token is set."""
    settings = request.app[SETTINGS]
    if settings.metrics_token is not None:
        given = request.headers.get("Authorization", "").removeprefix("Bearer ").encode()
        allowed = _same(given, settings.metrics_token.reveal().encode())
    else:
        allowed = client_address(request, settings) in _LOCAL and "X-Forwarded-For" not in request.headers
    if not allowed:
        raise NotFound("Nothing is here")
    return web.Response(body=metrics.render(), headers={"Content-Type": metrics.CONTENT_TYPE})


def _same(given: bytes, wanted: bytes) -> bool:
    import hmac

    return hmac.compare_digest(given, wanted)


async def config(request: web.Request) -> web.Response:
    """What the web app knows before anybody signs in."""
    settings = request.app[SETTINGS]
    try:
        anon: str | None = (await request.app[AUTH].keyring()).project_keys().anon
    except (HubError, asyncpg.PostgresError, CannotOpen):
        anon = None
    demo = await asyncio.to_thread(_demo, settings) if settings.demo else None
    return json_response(config_document(settings, __version__, anon, demo))


def _demo(settings: Settings) -> dict[str, str | None] | None:
    """The demo's sign-in, as `hub seed` left it in the data folder."""
    try:
        owner = json.loads((settings.data_dir / "keys.json").read_text(encoding="utf-8")).get("owner") or {}
    except (OSError, ValueError):
        return None
    if not owner.get("email") or not owner.get("password"):
        return None
    phone = (
        f"http://127.0.0.1:{settings.sandbox_port}/phone"
        if settings.sandbox and settings.sandbox_port
        else None
    )
    return {"email": owner["email"], "password": owner["password"], "phone_url": phone}


def _everything_else(pages: WebApp) -> Any:
    async def page_or_nothing(request: web.Request) -> web.StreamResponse:
        if request.path.startswith(_API):
            raise NotFound("Nothing is here", rest_code="PGRST125")
        if request.method not in ("GET", "HEAD"):
            raise MethodNotAllowed("This method is not allowed here", details={"allowed": ["GET", "HEAD"]})
        return await pages.handle_page(request)

    return page_or_nothing


async def _say_goodbye(app: web.Application) -> None:
    """Sockets are told to come back elsewhere; their handlers end."""
    app[LIFE].stopping = True
    app[SESSIONS].say_goodbye()


def make_runner(app: web.Application) -> web.AppRunner:
    posts = {path: hook.take for path, hook in app[WEBHOOKS].items()}
    return Runner(
        app, secure=app[SETTINGS].secure, shutdown_timeout=FINISH_S, before=partial(ShortCut, app, posts)
    )


async def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT. Raises StartRefused and OSError (the port)."""
    app = build_app(settings)
    life = app[LIFE]
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _on_signal, stop)
    runner = make_runner(app)
    following: asyncio.Task[None] | None = None
    try:
        await runner.setup()
        following = asyncio.create_task(clock.follow(lambda: app[DB].clock_s("admin")), name="clock")
        site = web.TCPSite(
            runner, settings.host, settings.port, reuse_port=settings.reuse_port or None, backlog=1024
        )
        await site.start()
        heap.settle()
        log.info("hub.listening", host=settings.host, port=settings.port)
        waiting: list[asyncio.Task[Any]] = [asyncio.create_task(stop.wait())]
        if life.gate is not None and not life.gate.done():
            waiting.append(life.gate)
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if life.gate.done() and not stop.is_set():
                life.gate.result()
        await stop.wait()
        log.info("hub.stopping")
        life.stopping = True
        await asyncio.sleep(NOTICE_S)
        await site.stop()
        app[SESSIONS].say_goodbye()
        await _until_left(runner)
    finally:
        if following is not None:
            following.cancel()
        await runner.cleanup()
    log.info("hub.stopped")


async def _until_left(runner: web.AppRunner) -> None:
    """Callers that keep a connection open for later learn with its next answer that it ends; closing it now
    could meet a request that is on its way."""
    server = runner.server
    until = time.monotonic() + LINGER_S
    # aiohttp tells nobody when the last connection is gone
    while server is not None and server.connections and time.monotonic() < until:  # noqa: ASYNC110
        await asyncio.sleep(0.05)


def _on_signal(stop: asyncio.Event) -> None:
    if stop.is_set():
        os._exit(130)  # the second signal: now
    stop.set()


def serve(settings: Settings) -> None:
    """One hub process, from start to end. Exits with 1 and a sentence when it must not or cannot serve."""
    logs.configure(json=settings.log_json)
    logs.hide(_secrets_of(settings))
    clock.set_offset(settings.clock_offset_s)
    if not settings.secure and settings.host not in (*_LOCAL, "localhost"):
        log.warning(
            "start.plain_http",
            hint="Sign-in cookies travel unencrypted; put https in front and set PUBLIC_BASE_URL",
        )
    if settings.demo and settings.host not in (*_LOCAL, "localhost"):
        log.warning(
            "start.demo_is_open",
            hint="Whoever reaches this address is shown the demo's password; set HUB_DEMO=off, "
            "or HUB_HOST=127.0.0.1",
        )
    with contextlib.suppress(ImportError):
        import uvloop

        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    try:
        asyncio.run(run(settings))
    except StartRefused as error:
        print(f"The hub does not start: {error}", file=sys.stderr, flush=True)
        sys.exit(1)
    except OSError as error:
        print(
            f"The hub cannot listen on {settings.host}, port {settings.port} (HUB_HOST, HUB_PORT): "
            f"{error.strerror or error}",
            file=sys.stderr,
            flush=True,
        )
        sys.exit(1)


def _secrets_of(settings: Settings) -> list[str]:
    found = [key.reveal() for key in settings.secret_keys]
    for secret in (settings.metrics_token, settings.meta_app_secret, settings.meta_verify_token):
        if secret is not None:
            found.append(secret.reveal())
    return found
