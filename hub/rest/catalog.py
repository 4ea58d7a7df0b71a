"""Which tables /rest/v1 shows and what their columns are, read from Postgres once a process.

Only tables of hub.domain.permissions are shown. The columns cannot change while a process runs: the start
refuses a database of another version.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from hub.db.pool import Database
from hub.domain.permissions import RULES
from hub.errors import NotFound
from sql import q

#: Columns that are machinery.
_HIDDEN = {("contacts", "search")}


class Column(msgspec.Struct, frozen=True):
    """``type`` is SQL for a cast, such as ``timestamp with time zone`` or ``text[]``."""

    name: str
    type: str
    is_generated: bool
    is_array: bool


class Table(msgspec.Struct, frozen=True):
    """``key`` is the primary key; a view has its `id`."""

    name: str
    columns: dict[str, Column]
    key: tuple[str, ...]
    is_view: bool

    @property
    def public_key(self) -> tuple[str, ...]:
        """The key as clients know it: the organization goes without saying."""
        return tuple(c for c in self.key if c != "organization_id") or self.key


class Catalog:
    """One per process; loads itself at its first use, so that a hub starts while Postgres is away."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._tables: dict[str, Table] | None = None
        self._lock = asyncio.Lock()

    async def table(self, name: str) -> Table:
        """Raises NotFound for a table that the API does not show, Unavailable while nothing can be read."""
        if self._tables is None:
            async with self._lock:
                if self._tables is None:
                    self._tables = await self._load()
        try:
            return self._tables[name]
        except KeyError:
            raise NotFound(
                f"There is no table {name[:80]!r} here",
                hint="The tables are listed in docs/",
                rest_code="PGRST205",
            ) from None

    async def _load(self) -> dict[str, Table]:
        async with self._db.connection("admin") as conn:
            rows = await conn.fetch(q.list_columns, sorted(RULES))
        return build(rows)


def build(rows: list[Any]) -> dict[str, Table]:
    """Tables by name from the rows of list_columns."""
    columns: dict[str, dict[str, Column]] = {}
    keys: dict[str, tuple[str, ...]] = {}
    views: dict[str, bool] = {}
    for row in rows:
        table, name = row["table_name"], row["column_name"]
        if (table, name) in _HIDDEN:
            continue
        columns.setdefault(table, {})[name] = Column(name, row["type"], row["is_generated"], row["is_array"])
        keys[table] = tuple(row["key"]) or ("id",)
        views[table] = row["is_view"]
    return {name: Table(name, found, keys[name], views[name]) for name, found in columns.items()}
