"""The one door to tenant rows: a transaction in the caller's role, with the caller's identity.

    async with acting_as(db, principal) as conn:
        await conn.fetch(q.list_open_conversations, limit)

Role and identity are set in the round trip of BEGIN and end with the transaction.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from time import monotonic

import asyncpg
import msgspec
import structlog

from hub.db.pool import Database, Purpose, quote_literal
from hub.domain.principal import Principal
from hub.errors import Unavailable

_encode = msgspec.json.Encoder(uuid_format="canonical").encode
log = structlog.get_logger()
#: How long a lost COMMIT is asked about before the caller is told that nobody knows.
UNKNOWN_COMMIT_S = 5.0
_STATEMENT_TIMEOUT = {"anon": "3s", "service_role": "30s"}


def entering(principal: Principal, read_only: bool = False) -> str:
    """The statements that begin a transaction as ``principal``, as one simple query."""
    role = principal.db_role
    claims = principal.claims or {"role": role, "sub": principal.user_id}
    settings = [
        ("role", role),
        ("hub.ctx", _encode(principal.context()).decode()),
        ("request.jwt.claims", _encode({**claims, "role": role}).decode()),
    ]
    if role in _STATEMENT_TIMEOUT:
        settings.insert(0, ("statement_timeout", _STATEMENT_TIMEOUT[role]))
    calls = ", ".join(f"set_config({quote_literal(k)}, {quote_literal(v)}, true)" for k, v in settings)
    return f"begin{' read only' if read_only else ''}; select {calls}"


@asynccontextmanager
async def acting_as(
    db: Database, principal: Principal, *, purpose: Purpose = "api", read_only: bool = False
) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """One transaction, one organization. Commits when the block ends, rolls back when it raises; what it
    changed is published after the commit. Raises Unavailable when the database is away."""
    async with db.connection(purpose) as conn:
        await conn.execute(entering(principal, read_only))
        try:
            yield conn
        except BaseException:
            if not conn.is_closed() and conn.is_in_transaction():
                await conn.execute("rollback")
            raise
        await _commit(db, conn, purpose)


async def _commit(db: Database, conn: asyncpg.Connection[asyncpg.Record], purpose: Purpose) -> None:
    """COMMIT, and when its answer is lost, ask what became of it: the caller gets the true outcome (G4).

    A transaction that wrote nothing has no id and needs no asking. Raises Unavailable when it did not commit.
    """
    xid = await conn.fetchval("select pg_current_xact_id_if_assigned()::text")
    try:
        if await conn.execute("commit") != "COMMIT":  # a failed statement was swallowed inside the block
            raise Unavailable("The transaction did not commit", retry_after_s=1)
    except (OSError, TimeoutError, asyncpg.PostgresConnectionError, asyncpg.InterfaceError) as e:
        if xid is None or not await _committed(db, purpose, xid):
            raise Unavailable("The database went away", retry_after_s=2) from e
        log.info("commit.asked", outcome="committed")


async def _committed(db: Database, purpose: Purpose, xid: str) -> bool:
    """Whether transaction ``xid`` committed, asked on other connections for up to UNKNOWN_COMMIT_S.
    False also when nobody could say; a repeat with the same key is safe either way."""
    deadline = monotonic() + UNKNOWN_COMMIT_S
    while True:
        with suppress(Unavailable):
            async with db.connection(purpose) as other:
                status = await other.fetchval("select pg_xact_status($1::text::xid8)", xid)
            if status != "in progress":
                return bool(status == "committed")
        if monotonic() > deadline:
            return False
        await asyncio.sleep(0.1)
