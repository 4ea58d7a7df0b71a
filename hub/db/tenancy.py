"""The one door to tenant rows: a transaction in the caller's role, with the caller's identity.

    async with acting_as(db, principal) as conn:
        await conn.fetch(q.list_open_conversations, limit)

Role and identity are set in the round trip of BEGIN and end with the transaction. Reads of one statement have
a door beside it (`reading_as`), where identity stays with the connection and every statement asserts it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from random import uniform
from time import monotonic
from typing import Final, TypeVar, cast

import asyncpg
import msgspec
import structlog

from hub.db.pool import STATEMENT_TIMEOUT, Database, Purpose, SpeakingConnection, quote_literal
from hub.domain.principal import Principal
from hub.errors import Unavailable

_encode = msgspec.json.Encoder(uuid_format="canonical").encode
log = structlog.get_logger()
T = TypeVar("T")
TRIES: Final = 3
#: A connection that hung is no reason to make the caller wait for the next one.
AGAIN_WITHIN_S: Final = 1.5
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


def reading_context(principal: Principal) -> str:
    """`hub.ctx` of a read: the caller's, without what differs from request to request."""
    found = principal.context()
    found.pop("ip", None)
    found.pop("request", None)
    return _encode(found).decode()


def speaking(principal: Principal, context: str) -> str:
    """The statement after which a connection speaks for ``principal`` until the next such statement."""
    role = principal.db_role
    claims = principal.claims or {"role": role, "sub": principal.user_id}
    settings = (
        ("statement_timeout", _STATEMENT_TIMEOUT.get(role, STATEMENT_TIMEOUT["read"])),
        ("role", role),
        ("hub.ctx", context),
        ("request.jwt.claims", _encode({**claims, "role": role}).decode()),
    )
    calls = ", ".join(f"set_config({quote_literal(k)}, {quote_literal(v)}, false)" for k, v in settings)
    return f"select {calls}"


@asynccontextmanager
async def reading_as(
    db: Database, principal: Principal, context: str
) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """A read-only connection for single statements that carry `app.assert_ctx` with ``context``, which
    raises unless the connection speaks for the caller (guarantees 15). Who spoke last stays, so a caller who
    comes again pays one round trip instead of three. After an error, a time-out or a cancelled request it
    speaks for nobody we could be sure of, and the next caller says who he is. Raises Unavailable."""
    speaker = speaking(principal, context)
    async with db.connection("read") as lent:
        conn = cast(SpeakingConnection, lent).itself()
        if conn.speaker != speaker:
            conn.speaker = None
            await lent.execute(speaker)
            conn.speaker = speaker
        try:
            yield lent
        except BaseException:
            conn.speaker = None
            raise


@asynccontextmanager
async def acting_as(
    db: Database, principal: Principal, *, purpose: Purpose = "api", read_only: bool = False
) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """One transaction, one organization. Commits when the block ends, rolls back when it raises; what it
    changed is published after the commit. Raises Unavailable when the database is away."""
    is_open = asked = False
    try:
        async with db.connection(purpose) as conn:
            is_open = True
            await conn.execute(entering(principal, read_only))
            try:
                yield conn
            except (asyncio.CancelledError, TimeoutError):
                raise  # no more waiting here: the pool ends the transaction, or the connection
            except BaseException:
                if not conn.is_closed() and conn.is_in_transaction():
                    await conn.execute("rollback")
                raise
            asked = True
            await _commit(db, conn, purpose, read_only)
    except Unavailable as error:
        if is_open and not asked and not isinstance(error, Interrupted):
            raise Interrupted(error.message, retry_after_s=error.retry_after_s) from error
        raise


class Interrupted(Unavailable):
    """The connection was lost before COMMIT left: the transaction did nothing."""


async def in_turn(work: Callable[[], Awaitable[T]]) -> T:
    """The result of `work`, which is one transaction. It is tried three times when the database gave it up
    for another's sake (deadlock, serialization, a plan that a migration made stale) or its connection was
    lost before COMMIT left. Everything else, a lost COMMIT above all, is the caller's (G4)."""
    started = monotonic()
    for n in range(1, TRIES):
        try:
            return await work()
        except (Interrupted, asyncpg.PostgresError, Unavailable) as error:
            if not _may_run_again(error) or monotonic() - started > AGAIN_WITHIN_S:
                raise
            log.info("transaction.again", error=type(error).__name__, attempt=n)
        await asyncio.sleep(uniform(0.2, 1.0) * 0.02 * 2**n)
    return await work()


def _may_run_again(error: Exception) -> bool:
    if isinstance(error, Interrupted):
        return True
    if isinstance(error, asyncpg.InvalidCachedStatementError):
        return True
    state = error.rest_code if isinstance(error, Unavailable) else getattr(error, "sqlstate", None)
    return state in ("40001", "40P01")


async def _commit(
    db: Database, conn: asyncpg.Connection[asyncpg.Record], purpose: Purpose, read_only: bool
) -> None:
    """COMMIT, and when its answer is lost, ask what became of it: the caller gets the true outcome (G4).

    A transaction that wrote nothing has no id and needs no asking; one that only read is not even asked for
    its id, which saves a list its fourth round trip. Raises Unavailable when it did not commit.
    """
    xid = None if read_only else await conn.fetchval("select pg_current_xact_id_if_assigned()::text")
    try:
        if await conn.execute("commit") != "COMMIT":  # a failed statement was swallowed inside the block
            raise Unavailable("The transaction did not commit", retry_after_s=1)
    except (OSError, TimeoutError, asyncpg.PostgresConnectionError, asyncpg.InterfaceError) as e:
        done = xid is not None and await _committed(db, purpose, xid)
        if xid is not None:
            log.info("commit.asked", outcome="committed" if done else "not committed")
        if not done:
            raise Unavailable("The database went away", retry_after_s=2) from e


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
