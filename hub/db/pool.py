"""Connections: one pool a purpose, so that no kind of work can starve another (guarantees 12, 14)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Literal
from uuid import UUID

import asyncpg
import msgspec

from hub.errors import HubError, Unavailable
from sql import q

Purpose = Literal["ingest", "api", "read", "live", "worker", "admin"]
#: Connections by purpose, and the longest a statement may take there.
SIZES: dict[Purpose, int] = {"ingest": 6, "api": 8, "read": 8, "live": 2, "worker": 8, "admin": 1}
STATEMENT_TIMEOUT: dict[Purpose, str] = {
    "ingest": "4s",
    "api": "5s",
    "read": "5s",
    "live": "5s",
    "worker": "30s",
    "admin": "30s",
}
ACQUIRE_TIMEOUT_S = 2.0
#: A connection that does not answer (half-open, black hole) is given up after this, whatever the server
#: thinks.
COMMAND_TIMEOUT_S: dict[Purpose, float] = {
    "ingest": 4.5,
    "api": 6.0,
    "read": 6.0,
    "live": 6.0,
    "worker": 32.0,
    "admin": 35.0,
}
#: The longest that a caller of the API may be kept, waiting for a connection included: what a server that
#: stands still, or a line that swallows everything, costs it.
BUDGET_S: dict[Purpose, float] = {"api": 4.8, "read": 4.8}


class LoggedEvent(msgspec.Struct, frozen=True):
    """One event as its writer learnt of it; ``frame`` is the JSON text that clients get."""

    organization_id: UUID
    seq: int
    table: str
    frame: str


_FULL = "The disk is full; nothing can be written now"


class SpeakingConnection(asyncpg.Connection):  # type: ignore[misc]
    """One of the pool `read`: it remembers who speaks on it (hub/db/tenancy.py). ``speaker`` is the statement
    that said so, None when nobody can be sure."""

    __slots__ = ("speaker",)

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.speaker: str | None = None

    def itself(self) -> SpeakingConnection:
        """Without the pool's proxy, which knows it no more once it has died."""
        return self


Publish = Callable[[Sequence[LoggedEvent]], None]


def _ignore(_: Sequence[LoggedEvent]) -> None:
    """Nobody publishes in this process; live sessions learn of the events from the log."""


def _nobody_to_wake(_: str) -> None:
    """Workers find their work by polling."""


class Database:
    """The pools of one process. ``publish`` is called with a transaction's events once they are committed,
    ``wake`` with the name of a queue that got work."""

    def __init__(self, url: str, purposes: Sequence[Purpose], application: str = "hub") -> None:
        self._url = url
        self._application = application
        self._pools: dict[Purpose, asyncpg.Pool[asyncpg.Record]] = {}
        self._purposes = tuple(purposes)
        self.publish: Publish = _ignore
        self.wake: Callable[[str], None] = _nobody_to_wake
        self.is_full = False
        """The disk is full (hub/disk.py): reads go on, nothing is written."""

    async def open(self) -> None:
        """Create the pools. They connect as they are used, so this works while the database is away."""
        for purpose in self._purposes:
            self._pools[purpose] = await asyncpg.create_pool(
                self._url,
                min_size=0,
                max_size=SIZES[purpose],
                timeout=ACQUIRE_TIMEOUT_S,
                command_timeout=COMMAND_TIMEOUT_S[purpose],
                max_inactive_connection_lifetime=300,
                reset=_reset,
                connection_class=SpeakingConnection if purpose == "read" else asyncpg.Connection,
                server_settings={
                    **({"default_transaction_read_only": "on"} if purpose == "read" else {}),
                    "application_name": f"{self._application} {purpose}",
                    "timezone": "UTC",
                    "statement_timeout": STATEMENT_TIMEOUT[purpose],
                    "lock_timeout": "2s",
                    "idle_in_transaction_session_timeout": "10s",
                    "transaction_timeout": "30s",
                    "hub.listen": "1",
                },
            )

    async def close(self) -> None:
        for pool in self._pools.values():
            try:
                await asyncio.wait_for(pool.close(), 5)
            except TimeoutError:
                pool.terminate()
        self._pools.clear()

    async def clock_s(self, purpose: Purpose) -> float | None:
        """The server's clock in Unix seconds; None while it cannot be asked."""
        try:
            async with asyncio.timeout(ACQUIRE_TIMEOUT_S), self.connection(purpose) as conn:
                told: float = await conn.fetchval(q.server_clock)
                return told
        except (Unavailable, asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
            return None

    @asynccontextmanager
    async def connection(self, purpose: Purpose) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
        """A connection in the login's own role: machinery functions only, it can read no table.
        Events written on it are published when the block ends without an error. Raises Unavailable."""
        budget = asyncio.timeout(BUDGET_S.get(purpose))
        try:
            async with budget, self._lent(purpose, budget) as conn:
                yield conn
        except TimeoutError as e:
            if budget.expired():
                raise Unavailable("The database does not answer", retry_after_s=2) from e
            raise

    @asynccontextmanager
    async def _lent(
        self, purpose: Purpose, budget: asyncio.Timeout
    ) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
        pool = self._pools[purpose]
        reads_only = self.is_full
        if reads_only and purpose in ("ingest", "worker"):
            raise Unavailable(_FULL, retry_after_s=30)
        try:
            conn = await pool.acquire(timeout=ACQUIRE_TIMEOUT_S)
        except (
            TimeoutError,
            OSError,
            asyncpg.PostgresConnectionError,
            asyncpg.CannotConnectNowError,
            asyncpg.TooManyConnectionsError,
        ) as e:
            if pool.get_size() == pool.get_max_size() and pool.get_idle_size() == 0:
                raise Unavailable("Every connection is in use", retry_after_s=2, rest_code="PGRST003") from e
            raise Unavailable("The database is away", retry_after_s=2, rest_code="PGRST000") from e
        events: list[LoggedEvent] = []

        def note(_: Any, message: Any) -> None:
            if message.sqlstate == "HUBEV":
                org, seq, table = message.detail.split(" ")
                events.append(LoggedEvent(UUID(org), int(seq), table, message.message))

        conn.add_log_listener(note)
        try:
            if reads_only:
                await conn.execute("set default_transaction_read_only = on")
            yield conn
        except asyncpg.DataError:
            raise  # an InterfaceError by inheritance, but a value's fault and not the connection's
        except asyncpg.ReadOnlySQLTransactionError as e:
            if not reads_only:
                raise
            raise Unavailable(_FULL, retry_after_s=30) from e
        except asyncpg.InternalClientError as e:
            conn.terminate()  # the driver lost its place when the server died under it
            raise Unavailable("The database went away", retry_after_s=2) from e
        except TimeoutError as e:
            conn.terminate()  # whoever did not answer this will not answer a request to stop it either
            raise Unavailable("The database does not answer", retry_after_s=2) from e
        except asyncio.CancelledError:
            if budget.expired():
                conn.terminate()
            raise
        except (OSError, asyncpg.PostgresConnectionError, asyncpg.InterfaceError) as e:
            raise Unavailable("The database went away", retry_after_s=2) from e
        finally:
            with suppress(asyncpg.InterfaceError):  # a connection that broke has left the pool already
                conn.remove_log_listener(note)
                if reads_only:
                    conn.terminate()  # its next user may write again
            await _release(pool, conn)
        if events:
            self.publish(events)


async def _reset(conn: asyncpg.Connection[asyncpg.Record]) -> None:
    """What a connection needs before its next user: nothing, since every setting of ours is
    transaction-local. (asyncpg's own reset costs a round trip.) A transaction left open is a bug or a
    cancelled request: end it."""
    if conn.is_in_transaction():
        await conn.execute("rollback")


async def _release(pool: asyncpg.Pool[asyncpg.Record], conn: Any) -> None:
    """Back into the pool. One that cannot be made ready for its next user in time is closed by the driver,
    which is no fault of whoever is done with it; of one that broke in between, the driver says that it is
    free already."""
    releasing = asyncio.ensure_future(pool.release(conn, timeout=2))
    releasing.add_done_callback(_look_at)  # whoever waits for it may be cancelled first
    with suppress(
        TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError
    ):
        await asyncio.shield(releasing)


def _look_at(task: asyncio.Future[None]) -> None:
    if not task.cancelled():
        task.exception()


def quote_literal(text: str) -> str:
    """A string constant for standard_conforming_strings=on, which every server we accept has.
    Raises ValueError on U+0000."""
    if "\x00" in text:
        raise ValueError("U+0000 cannot be part of a statement")
    return "'" + text.replace("'", "''") + "'"


__all__ = ["Database", "HubError", "LoggedEvent", "Publish", "Purpose", "quote_literal"]
