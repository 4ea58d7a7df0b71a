"""What there is to ask for: tables, columns, keys, how tables refer to each other, and functions.

Values without I/O; hub/rest/catalog.py reads them from Postgres. The organization goes without saying: every
key of a tenant table begins with organization_id, and clients neither name it in a key nor see it there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal

import msgspec

from hub.domain.permissions import Verb, rule

TENANT: Final = "organization_id"
#: Columns that are machinery.
HIDDEN: Final = frozenset({("contacts", "search")})
#: Views that show one table's rows: their columns by those of the table. They inherit its references.
VIEWS: Final[dict[str, tuple[str, dict[str, str]]]] = {"profiles": ("memberships", {"user_id": "id"})}
_WORDS = re.compile(r"'((?:[^']|'')*)'::text")

Cardinality = Literal["many-to-one", "one-to-many", "one-to-one", "many-to-many"]


class Column(msgspec.Struct, frozen=True):
    """``type`` is SQL for a cast, such as ``timestamp with time zone`` or ``text[]``. ``words`` are the only
    values of a state column."""

    name: str
    type: str
    is_generated: bool = False
    is_required: bool = False
    default: str | None = None
    words: tuple[str, ...] = ()

    @property
    def is_json(self) -> bool:
        return self.type in ("json", "jsonb")


class Table(msgspec.Struct, frozen=True):
    """``keys`` are column sets that are unique as a whole, without the organization, the primary key first.
    ``verbs`` are what may be done through it."""

    name: str
    columns: dict[str, Column]
    keys: tuple[tuple[str, ...], ...] = ()
    is_view: bool = False
    verbs: frozenset[Verb] = frozenset({"insert", "update", "delete"})
    description: str | None = None
    computed: dict[str, Function] = {}

    @property
    def key(self) -> tuple[str, ...]:
        """The primary key as clients know it."""
        return self.keys[0] if self.keys else ()

    @property
    def is_tenant(self) -> bool:
        return TENANT in self.columns

    def with_tenant(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """A key as Postgres knows it."""
        return (TENANT, *names) if self.is_tenant and TENANT not in names else names


class Argument(msgspec.Struct, frozen=True):
    name: str
    type: str
    is_required: bool


class Function(msgspec.Struct, frozen=True):
    """``table``: whose rows it returns; ``columns``: of a `returns table (…)`. With neither, one ``returns``
    a value. ``of_table``: the row type of its only argument, which makes it a column of that table."""

    name: str
    arguments: tuple[Argument, ...]
    returns: str
    is_set: bool = False
    is_volatile: bool = True
    table: str | None = None
    columns: dict[str, Column] = {}
    of_table: str | None = None
    returns_one: bool = False
    description: str | None = None

    @property
    def is_rows(self) -> bool:
        return self.table is not None or bool(self.columns)

    @property
    def takes_the_body(self) -> bool:
        """A single nameless argument is given the whole body."""
        return len(self.arguments) == 1 and not self.arguments[0].name


class Junction(msgspec.Struct, frozen=True):
    """The table between two that are many-to-many: its columns by those of the origin and of the target."""

    table: str
    to_origin: tuple[tuple[str, str], ...]
    to_target: tuple[tuple[str, str], ...]
    constraints: tuple[str, str]


class Relationship(msgspec.Struct, frozen=True):
    """How rows of ``origin`` find theirs of ``target``; ``pairs`` are (origin's column, target's column).
    ``function`` instead: it is given the origin's row."""

    origin: str
    target: str
    cardinality: Cardinality
    constraint: str
    pairs: tuple[tuple[str, str], ...] = ()
    junction: Junction | None = None
    function: str | None = None

    @property
    def is_to_one(self) -> bool:
        return self.cardinality in ("many-to-one", "one-to-one")

    def column(self, side: Literal[0, 1]) -> str | None:
        """The one column on the origin's (0) or target's (1) side, the organization aside."""
        names = [pair[side] for pair in self.pairs]
        if len(names) > 1:
            names = [pair[side] for pair in self.pairs if TENANT not in pair]
        return names[0] if len(names) == 1 else None


class Schema(msgspec.Struct, frozen=True):
    tables: dict[str, Table]
    relationships: dict[str, tuple[Relationship, ...]]
    functions: dict[str, tuple[Function, ...]]


Row = Mapping[str, Any]


def build(
    relations: Iterable[Row], attributes: Iterable[Row], references: Iterable[Row], functions: Iterable[Row]
) -> Schema:
    """From the rows of list_relations, list_attributes, list_references and list_functions."""
    columns: dict[str, dict[str, Column]] = {}
    for row in attributes:
        table, name = row["table_name"], row["column_name"]
        if (table, name) not in HIDDEN:
            columns.setdefault(table, {})[name] = Column(
                name, row["type"], row["is_generated"], row["is_required"], row["default_expression"],
                _words(row["allowed"]),
            )  # fmt: skip
    callable_, computed = _functions(functions)
    tables = {}
    for row in relations:
        name = row["name"]
        keys = tuple(
            tuple(c for c in key if c != TENANT) or tuple(key) for key in msgspec.json.decode(row["keys"])
        )
        if name in VIEWS:
            keys = (("id",),)
        bits: dict[Verb, int] = {"insert": 8, "update": 4, "delete": 16}
        verbs = frozenset(v for v, bit in bits.items() if row["updatable"] & bit)
        if row["is_view"]:  # what nobody may do through it is no part of it
            verbs = frozenset(v for v in verbs if not rule(name, v).nobody)
        tables[name] = Table(
            name, columns[name], keys, row["is_view"], verbs, row["description"], computed.get(name, {})
        )
    return Schema(tables, relationships(tables, list(references)), callable_)


def _words(allowed: str | None) -> tuple[str, ...]:
    """`CHECK ((status = ANY (ARRAY['OPEN'::text, …])))` as its words."""
    if allowed is None or " = ANY (ARRAY[" not in allowed or " AND " in allowed or " OR " in allowed:
        return ()
    return tuple(word.replace("''", "'") for word in _WORDS.findall(allowed))


def _functions(
    rows: Iterable[Row],
) -> tuple[dict[str, tuple[Function, ...]], dict[str, dict[str, Function]]]:
    """Those that are called, by name; those that are columns, by table and name."""
    callable_: dict[str, tuple[Function, ...]] = {}
    computed: dict[str, dict[str, Function]] = {}
    for row in rows:
        if not row["for_members"]:
            continue
        names, types, modes = row["argument_names"], row["argument_types"], row["argument_modes"]
        modes = modes or ["i"] * len(types)
        names = [*names, *[""] * (len(types) - len(names))]
        every = list(zip(names, types, modes, strict=True))
        inputs = [(n, t) for n, t, m in every if m in ("i", "b", "v")]
        without_default = len(inputs) - row["defaults"]
        function = Function(
            row["name"],
            tuple(Argument(n, t, i < without_default) for i, (n, t) in enumerate(inputs)),
            row["returns"],
            row["is_set"],
            row["volatility"] == "v",
            row["returns_table"],
            {n: Column(n, t) for n, t, m in every if m in ("o", "b", "t")},
            row["of_table"],
            row["returns_one"] or not row["is_set"],
            row["description"],
        )
        if function.of_table is not None:
            computed.setdefault(function.of_table, {})[function.name] = function
        else:
            callable_[function.name] = (*callable_.get(function.name, ()), function)
    return callable_, computed


def relationships(tables: Mapping[str, Table], references: list[Row]) -> dict[str, tuple[Relationship, ...]]:
    """Every way from a table to another, by origin: along references, against them, and through junctions.

    A junction is a table whose primary key contains the columns of two references. That the organization is
    in every key makes none.
    """
    found: dict[str, list[Relationship]] = {name: [] for name in tables}
    known = [
        _Reference(constraint, table, target, pairs)
        for row in references
        for table, target, constraint, pairs in _with_views(row)
        if table in tables and target in tables
    ]
    for reference in known:
        child = tables[reference.table]
        own = frozenset(c for c, _ in reference.pairs)
        unique = any(frozenset(child.with_tenant(key)) <= own for key in child.keys)
        found[reference.table].append(
            Relationship(
                reference.table, reference.target, "one-to-one" if unique else "many-to-one",
                reference.constraint, reference.pairs,
            )
        )  # fmt: skip
        found[reference.target].append(
            Relationship(
                reference.target, reference.table, "one-to-one" if unique else "one-to-many",
                reference.constraint, tuple((b, a) for a, b in reference.pairs),
            )
        )  # fmt: skip
    for name, table in tables.items():
        if table.is_view:
            continue
        inside = [r for r in known if r.table == name and r.is_within(table)]
        for one in inside:
            for other in inside:
                if one is other or one.constraint == other.constraint:
                    continue
                junction = Junction(
                    name,
                    tuple((b, a) for a, b in one.pairs),
                    other.pairs,
                    (one.constraint, other.constraint),
                )
                found[one.target].append(
                    Relationship(
                        one.target, other.target, "many-to-many", name, junction=junction,
                    )
                )  # fmt: skip
    for name, table in tables.items():
        for function in table.computed.values():
            if function.table in tables:
                assert function.table is not None
                found[name].append(
                    Relationship(
                        name, function.table, "one-to-one" if function.returns_one else "one-to-many",
                        function.name, function=function.name,
                    )
                )  # fmt: skip
    return {name: tuple(ways) for name, ways in found.items()}


class _Reference(msgspec.Struct, frozen=True):
    constraint: str
    table: str
    target: str
    pairs: tuple[tuple[str, str], ...]

    def is_within(self, table: Table) -> bool:
        """Whether its columns, of which one is not the organization, belong to the table's primary key."""
        names = {a for a, _ in self.pairs}
        return names != {TENANT} and names <= set(table.with_tenant(table.key))


def _with_views(row: Row) -> Iterable[tuple[str, str, str, tuple[tuple[str, str], ...]]]:
    """A reference, and the same one between the views that show its tables."""
    pairs = tuple(zip(row["columns"], row["target_columns"], strict=True))
    for table, ours in _shown_as(row["table_name"]):
        for target, theirs in _shown_as(row["target"]):
            renamed = tuple((ours.get(a, a), theirs.get(b, b)) for a, b in pairs)
            yield table, target, row["constraint_name"], renamed


def _shown_as(table: str) -> list[tuple[str, dict[str, str]]]:
    """The table and its views, each with its names of the columns."""
    return [(table, {}), *((view, names) for view, (of, names) in VIEWS.items() if of == table)]
