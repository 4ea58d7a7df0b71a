"""What the parts of one hub process share: keys of the application, and how each resource opens and closes.

Resources open in the order of ``CONTEXTS`` and close in reverse. None of them needs its server to be there:
pools connect as they are used, so a hub starts and answers while Postgres or Redis is away.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from aiohttp import web

from hub.db.pool import Database
from hub.domain.principal import Principal
from hub.events.clients import Redis, make_redis
from hub.settings import Settings

if TYPE_CHECKING:
    from hub.app import Life
    from hub.auth.authenticator import Authenticator
    from hub.auth.factors import Factors
    from hub.auth.links import Links
    from hub.auth.notes import Notes
    from hub.auth.passwords import Passwords
    from hub.auth.sessions import Accounts
    from hub.channels.ingest import Ingest
    from hub.channels.spool import Spool
    from hub.disk import DiskGuard
    from hub.events.publisher import Publisher
    from hub.limits import Allowance, RateLimiter
    from hub.realtime.fanout import Fanout
    from hub.realtime.registry import Registry
    from hub.rest.catalog import Catalog

SETTINGS: web.AppKey[Settings] = web.AppKey("settings")
DB: web.AppKey[Database] = web.AppKey("db")
REDIS: web.AppKey[Redis] = web.AppKey("redis")
AUTH: web.AppKey[Authenticator] = web.AppKey("auth")
NOTES: web.AppKey[Notes] = web.AppKey("notes")
ACCOUNTS: web.AppKey[Accounts] = web.AppKey("accounts")
FACTORS: web.AppKey[Factors] = web.AppKey("factors")
LINKS: web.AppKey[Links] = web.AppKey("links")
PASSWORDS: web.AppKey[Passwords] = web.AppKey("passwords")
CATALOG: web.AppKey[Catalog] = web.AppKey("catalog")
PUBLISHER: web.AppKey[Publisher] = web.AppKey("publisher")
FANOUT: web.AppKey[Fanout] = web.AppKey("fanout")
SESSIONS: web.AppKey[Registry] = web.AppKey("sessions")
INGEST: web.AppKey[Ingest] = web.AppKey("ingest")
SPOOL: web.AppKey[Spool] = web.AppKey("spool")
DISK: web.AppKey[DiskGuard] = web.AppKey("disk")
LIFE: web.AppKey[Life] = web.AppKey("life")
RATE: web.AppKey[RateLimiter] = web.AppKey("rate")

#: Of one request: its id, who is calling, what is left of the caller's rate limit.
REQUEST_ID: web.RequestKey[str] = web.RequestKey("request_id", str)
PRINCIPAL: web.RequestKey[Principal] = web.RequestKey("principal", Principal)
ALLOWANCE: web.RequestKey[Allowance] = web.RequestKey("allowance")

# A command that takes longer is a Redis that is away; every caller then has a way of its own (guarantees 13).
REDIS_COMMAND_S = 0.5
REDIS_CONNECT_S = 1.0


async def database(app: web.Application) -> AsyncIterator[None]:
    db = Database(app[SETTINGS].database_url, ("ingest", "api", "read", "live", "admin"))
    await db.open()
    app[DB] = db
    yield
    await db.close()


async def redis_client(app: web.Application) -> AsyncIterator[None]:
    app[REDIS] = make_redis(app[SETTINGS].redis_url, connect_s=REDIS_CONNECT_S, command_s=REDIS_COMMAND_S)
    yield
    await app[REDIS].aclose()
