"""What a query string says, as a tree without values.

    select=id,contacts(first_name)&status=eq.OPEN&limit=5
      → Shape(select=(Field id, Embed contacts), where=(Filter status eq, value 0)) and values ("OPEN",)

Values stand beside the tree, in the order in which they were written, and a Filter knows its place among
them. Two requests of one shape have equal trees, so a plan and a statement are made once for both; and what
makes statements never sees a value.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Aggregate = Literal["sum", "avg", "count", "max", "min"]
Join = Literal["inner", "left"]
Operator = Literal[
    "eq", "neq", "gt", "gte", "lt", "lte", "like", "ilike", "match", "imatch", "in", "is", "isdistinct",
    "cs", "cd", "ov", "sl", "sr", "nxr", "nxl", "adj", "fts", "plfts", "phfts", "wfts",
]  # fmt: skip
#: The names of the embedded tables (or their aliases) that lead to a level; () is the table itself.
EmbedPath = tuple[str, ...]


class Path(msgspec.Struct, frozen=True):
    """A column, or a place inside it: steps of (arrow, key), where a number is an array's index."""

    column: str
    steps: tuple[tuple[str, str | int], ...] = ()


class Star(msgspec.Struct, frozen=True):
    """`*`."""


class Field(msgspec.Struct, frozen=True):
    """`alias:path::cast.aggregate()::result_cast`; ``path`` None is `count()`, which counts rows."""

    path: Path | None
    alias: str | None = None
    cast: str | None = None
    aggregate: Aggregate | None = None
    result_cast: str | None = None


class Embed(msgspec.Struct, frozen=True):
    """`alias:name!hint!inner(items)`, or `...name(items)` whose columns are lifted into the level above."""

    name: str
    items: tuple[Item, ...]
    alias: str | None = None
    hint: str | None = None
    join: Join | None = None
    is_spread: bool = False

    @property
    def key(self) -> str:
        """What the answer and the other parameters call it."""
        return self.alias or self.name


Item = Star | Field | Embed


class Filter(msgspec.Struct, frozen=True):
    """``value`` is a place among the query's values; for `is` there is none but a ``word``."""

    path: Path
    op: Operator
    value: int = -1
    negated: bool = False
    quantifier: Literal["any", "all"] | None = None
    language: str | None = None
    word: str | None = None


class Group(msgspec.Struct, frozen=True):
    op: Literal["and", "or"]
    parts: tuple[Filter | Group, ...]
    negated: bool = False


Condition = Filter | Group


class Order(msgspec.Struct, frozen=True):
    """``embed`` names a to-one embed whose column decides."""

    path: Path
    descending: bool = False
    nulls: Literal["first", "last"] | None = None
    embed: str | None = None


class Cut(msgspec.Struct, frozen=True):
    """Limit or offset of an embedded level: a place among the values."""

    at: EmbedPath
    what: Literal["limit", "offset"]
    value: int


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """Everything of a query string but its values and the table's own limit and offset."""

    select: tuple[Item, ...] = (Star(),)
    where: tuple[tuple[EmbedPath, Condition], ...] = ()
    order: tuple[tuple[EmbedPath, tuple[Order, ...]], ...] = ()
    cuts: tuple[Cut, ...] = ()
    columns: tuple[str, ...] | None = None
    on_conflict: tuple[str, ...] | None = None


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """One request's query string. ``limit`` None: the default. ``arguments`` are a called function's."""

    shape: Shape = Shape()
    values: tuple[str, ...] = ()
    limit: int | None = None
    offset: int = 0
    arguments: tuple[tuple[str, str], ...] = ()
