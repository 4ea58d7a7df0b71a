"""The schema as this process knows it, read from Postgres, with the statements made for it.

Only tables of hub.domain.permissions are shown, and functions of the schema public. It is read at its first
use, so that a hub starts while Postgres is away, and again after `NOTIFY pgrst` (which a migration sends) or
when Postgres says that something we thought was there is not.
"""

from __future__ import annotations

import asyncio

import structlog

from hub.db.pool import Database
from hub.domain.permissions import RULES
from hub.rest.compiler import Compiler
from hub.rest.schema import Table, build
from sql import q

log = structlog.get_logger()


class Catalog:
    """One per process."""

    def __init__(self, db: Database, *, aggregates: bool = True) -> None:
        self._db = db
        self._aggregates = aggregates
        self._compiler: Compiler | None = None
        self._lock = asyncio.Lock()

    async def compiler(self) -> Compiler:
        """Raises Unavailable while nothing can be read."""
        compiler = self._compiler
        if compiler is not None:
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

    async def _load(self) -> Compiler:
        names = sorted(RULES)
        async with self._db.connection("admin") as conn:
            relations = await conn.fetch(q.list_relations, names)
            attributes = await conn.fetch(q.list_attributes, names)
            references = await conn.fetch(q.list_references, names)
            functions = await conn.fetch(q.list_functions)
        return Compiler(build(relations, attributes, references, functions), aggregates=self._aggregates)


__all__ = ["Catalog", "Table"]
