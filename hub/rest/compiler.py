"""Statements by shape: made once, remembered while the schema stays."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

import msgspec

from hub.errors import NotFound
from hub.rest import statement, write
from hub.rest.plan import Plan, make_plan
from hub.rest.schema import Schema, Table
from hub.rest.statement import Format, Statement
from hub.rest.tree import Shape
from hub.rest.write import Answer, Resolution, Returning

#: Shapes that are remembered. A statement takes some kilobytes.
_REMEMBERED: Final = 2048


class WriteShape(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that decides a write's text."""

    table: str
    shape: Shape
    names: tuple[str, ...] = ()
    returning: Returning = "nothing"
    format: Format = "json"
    keys: bool = False
    resolution: Resolution | None = None
    on_conflict: tuple[str, ...] | None = None
    fill_defaults: bool = False


class Compiler:
    """One for a schema; see the module."""

    def __init__(self, schema: Schema, *, aggregates: bool = True) -> None:
        self.schema = schema
        self._aggregates = aggregates
        remember: Any = lru_cache(maxsize=_REMEMBERED)
        self.plan = remember(self._plan)
        self.read = remember(self._read)
        self.insert = remember(self._insert)
        self.update = remember(self._update)
        self.delete = remember(self._delete)

    def table(self, name: str) -> Table:
        """Raises NotFound for a table that the API does not show."""
        try:
            return self.schema.tables[name]
        except KeyError:
            raise NotFound(
                f"Could not find the table 'public.{name[:80]}' in the schema cache",
                hint="GET /rest/v1/ lists the tables",
                rest_code="PGRST205",
            ) from None

    def _plan(self, table: str, shape: Shape) -> Plan:
        return make_plan(self.schema, self.table(table), shape, aggregates=self._aggregates)

    def _read(
        self, table: str, shape: Shape, format_: Format, counts: bool, asserts: bool = False
    ) -> tuple[Plan, Statement]:
        plan: Plan = self.plan(table, shape)
        return plan, statement.read(plan.root, format_, counts=counts, asserts=asserts)

    def _insert(self, w: WriteShape) -> tuple[Plan, Statement]:
        plan, answer = self._answer(w)
        return plan, write.insert(
            self.table(w.table), w.names, answer, resolution=w.resolution, on_conflict=w.on_conflict,
            fill_defaults=w.fill_defaults,
        )  # fmt: skip

    def _update(self, w: WriteShape) -> tuple[Plan, Statement]:
        plan, answer = self._answer(w)
        if not w.names:
            return plan, write.nothing(answer)
        table = self.table(w.table)
        return plan, write.update(table, w.names, plan.root, answer, fill_defaults=w.fill_defaults)

    def _delete(self, w: WriteShape) -> tuple[Plan, Statement]:
        plan, answer = self._answer(w)
        return plan, write.delete(self.table(w.table), plan.root, answer)

    def _answer(self, w: WriteShape) -> tuple[Plan, Answer]:
        """The filters choose what is written; of what was written, all is answered."""
        plan: Plan = self.plan(w.table, w.shape)
        level = msgspec.structs.replace(plan.root, tests=())
        return plan, Answer(level=level, returning=w.returning, format=w.format, keys=w.keys)
