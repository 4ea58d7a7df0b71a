"""The schema as this process knows it, read from Postgres, with the statements made for it.

Only tables of hub.domain.permissions are shown, and functions of the schema public. It is read at its first
use, so that a hub starts while Postgres is away. While it is in use, it is compared every five seconds,
beside the requests, and read again when it has changed; at once when Postgres says that something is not
there.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

import asyncpg
import structlog

from hub.db.pool import Database
from hub.domain.permissions import RULES
from hub.errors import Unavailable
from hub.rest.compiler import Compiler
from hub.rest.schema import Schema, Table, build
from sql import q

log = structlog.get_logger()
COMPARED_EVERY_S: Final = 5.0


class Catalog:
    """One per process."""

    def __init__(self, db: Database, *, aggregates: bool = True) -> None:
        self._db = db
        self._aggregates = aggregates
        self._compiler: Compiler | None = None
        self._lock = asyncio.Lock()
        self._signature: int | None = None
        self._compared = 0.0
        self._comparing: asyncio.Task[None] | None = None

    async def compiler(self) -> Compiler:
        """Raises Unavailable while nothing can be read."""
        compiler = self._compiler
        if compiler is not None:
            now = time.monotonic()
            if now - self._compared > COMPARED_EVERY_S:
                self._compared = now
                self._comparing = asyncio.create_task(self._compare(), name="catalog")
            return compiler
        async with self._lock:
            if self._compiler is None:
                self._compiler = await self._load()
            return self._compiler

    async def table(self, name: str) -> Table:
        """Raises NotFound for a table that the API does not show, Unavailable while nothing can be read."""
        return (await self.compiler()).table(name)

    def forget(self) -> None:
        """The next request reads the schema anew."""
        if self._compiler is not None:
            log.info("catalog.forgotten")
        self._compiler = None

    async def close(self) -> None:
        """Whatever is being compared is left."""
        if self._comparing is not None:
            self._comparing.cancel()
            await asyncio.wait([self._comparing])

    async def _compare(self) -> None:
        try:
            async with self._db.connection("admin") as conn:
                signature = await conn.fetchval(q.schema_signature)
        except (Unavailable, asyncpg.PostgresError):
            return  # what is known stays
        if signature != self._signature:
            self.forget()

    async def _load(self) -> Compiler:
        try:
            async with self._db.connection("admin") as conn:
                self._signature = await conn.fetchval(q.schema_signature)
                self._compared = time.monotonic()
                schema = await read_schema(conn)
        except Unavailable as error:
            raise Unavailable(
                "The schema cannot be read yet", retry_after_s=error.retry_after_s, rest_code="PGRST002"
            ) from error
        return Compiler(schema, aggregates=self._aggregates)


async def read_schema(conn: asyncpg.Connection[asyncpg.Record]) -> Schema:
    """What the API shows of this database."""
    names = sorted(RULES)
    return build(
        await conn.fetch(q.list_relations, names),
        await conn.fetch(q.list_attributes, names),
        await conn.fetch(q.list_references, names),
        await conn.fetch(q.list_functions),
    )


__all__ = ["Catalog", "Table"]
