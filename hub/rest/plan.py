"""A parsed query, checked against the schema: every name is a column, a relationship or a refusal.

    Shape + Table → Level (a table with its outputs, conditions, order) → Child levels → …

Names that nobody shows (`xmin`, hidden columns) are refused here, so they never reach a statement.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from hub.errors import BadRequest, HubError
from hub.rest.schema import Column, Relationship, Schema, Table
from hub.rest.tree import (
    Aggregate,
    Condition,
    Embed,
    EmbedPath,
    Field,
    Filter,
    Item,
    Order,
    Path,
    Shape,
    Star,
)
from hub.rest.words import MOST_PARTS


class Ambiguous(HubError):
    """Several relationships or functions fit (PostgREST's 300)."""

    code, status, rest_code = "BAD_REQUEST", 300, "PGRST201"


class Place(msgspec.Struct, frozen=True):
    """A column or JSON path of a level's table. ``type`` is what a value beside it is cast to; ``computed``
    names a function of the row instead of a column."""

    column: str
    steps: tuple[tuple[str, str | int], ...]
    is_json: bool
    type: str
    computed: bool = False


class Output(msgspec.Struct, frozen=True):
    """One member of a level's rows: a place, an aggregate, or what comes from a child.

    ``child``: its JSON (``lifted`` None), or the member ``lifted`` of a spread child's rows."""

    name: str
    place: Place | None = None
    cast: str | None = None
    aggregate: Aggregate | None = None
    result_cast: str | None = None
    child: int | None = None
    lifted: str | None = None


class Comparison(msgspec.Struct, frozen=True):
    place: Place
    filter: Filter


class Exists(msgspec.Struct, frozen=True):
    """`contacts=not.is.null`: the child has rows."""

    child: int
    negated: bool


class Combined(msgspec.Struct, frozen=True):
    op: str
    parts: tuple[Test, ...]
    negated: bool


Test = Comparison | Exists | Combined


class Sort(msgspec.Struct, frozen=True):
    place: Place
    descending: bool
    nulls: str | None
    child: int | None = None


class Child(msgspec.Struct, frozen=True):
    """An embedded level. ``is_shown`` is false for `contacts()`, which only joins and filters."""

    relationship: Relationship
    level: Level
    is_inner: bool
    is_spread: bool
    is_shown: bool


class Level(msgspec.Struct, frozen=True):
    """One table of the answer. ``limit`` and ``offset`` are places among the values."""

    table: Table
    outputs: tuple[Output, ...]
    children: tuple[Child, ...] = ()
    tests: tuple[Test, ...] = ()
    sorts: tuple[Sort, ...] = ()
    limit: int | None = None
    offset: int | None = None

    @property
    def is_grouped(self) -> bool:
        return any(output.aggregate is not None for output in self.outputs)


class Plan(msgspec.Struct, frozen=True):
    """``reads`` are the tables that the answer shows something of, besides the first."""

    root: Level
    reads: frozenset[str]


def make_plan(schema: Schema, table: Table, shape: Shape, *, aggregates: bool = True) -> Plan:
    """Raises BadRequest (42703, PGRST108, 118, 120, 123, 127, 200) and Ambiguous."""
    planner = _Planner(schema, shape, aggregates)
    root = planner.level(table, shape.select, ())
    planner.check_places()
    return Plan(root, frozenset(planner.reads))


class _Planner:
    def __init__(self, schema: Schema, shape: Shape, aggregates: bool) -> None:
        self.schema, self.aggregates = schema, aggregates
        self.where: dict[EmbedPath, list[Condition]] = {}
        for at, condition in shape.where:
            self.where.setdefault(at, []).append(condition)
        self.order = dict(shape.order)
        self.cuts = {(cut.at, cut.what): cut.value for cut in shape.cuts}
        self.wanted = {*self.where, *self.order, *(at for at, _ in self.cuts)}
        self.found: set[EmbedPath] = set()
        self.reads: set[str] = set()

    def check_places(self) -> None:
        """Everything that names an embed must have found it."""
        for at in self.wanted - self.found:
            if at:
                raise BadRequest(
                    f"'{'.'.join(at)[:80]}' is not an embedded resource in this request",
                    hint=f"Verify that '{at[0][:80]}' is included in the 'select' query parameter.",
                    rest_code="PGRST108",
                )

    def level(self, table: Table, items: Sequence[Item], at: EmbedPath) -> Level:
        self.found.add(at)
        outputs: list[Output] = []
        children: list[Child] = []
        names: dict[str, int] = {}
        for item in items:
            if isinstance(item, Star):
                outputs += [Output(name, self._place(table, Path(name))) for name in table.columns]
            elif isinstance(item, Field):
                outputs.append(self._field(table, item))
            else:
                child = self._child(table, item, at)
                number = len(children)
                names.setdefault(item.key, number)
                names.setdefault(item.name, number)
                children.append(child)
                outputs += _child_outputs(item, child, number)
            if len(outputs) > MOST_PARTS:
                raise BadRequest(f"select: at most {MOST_PARTS} columns of one table", rest_code="PGRST100")
        return Level(
            table,
            tuple(outputs),
            tuple(children),
            tuple(self._test(table, c, names, children) for c in self.where.get(at, ())),
            tuple(self._sort(table, o, names, children) for o in self.order.get(at, ())),
            self.cuts.get((at, "limit")),
            self.cuts.get((at, "offset")),
        )

    def _field(self, table: Table, field: Field) -> Output:
        if field.aggregate is not None and not self.aggregates:
            raise BadRequest("Use of aggregate functions is not allowed", rest_code="PGRST123")
        place = self._place(table, field.path) if field.path is not None else None
        name = field.alias or field.aggregate or _name_of(field.path)
        return Output(name, place, field.cast, field.aggregate, field.result_cast)

    def _place(self, table: Table, path: Path) -> Place:
        column = table.columns.get(path.column)
        computed = column is None and path.column in table.computed
        if column is None and computed:
            function = table.computed[path.column]
            if function.table is None and not function.is_set:
                column = Column(path.column, function.returns)
        if column is None:
            raise BadRequest(f"column {table.name}.{path.column[:80]} does not exist", rest_code="42703")
        type_ = column.type
        if path.steps:
            type_ = "text" if path.steps[-1][0] == "->>" else "jsonb"
        return Place(path.column, path.steps, column.is_json, type_, computed)

    def _child(self, table: Table, embed: Embed, at: EmbedPath) -> Child:
        way = choose(self.schema, table.name, embed.name, embed.hint)
        self.reads.add(way.target)
        if way.junction is not None:
            self.reads.add(way.junction.table)
        here = (*at, embed.key)
        if embed.alias is not None and here not in self.wanted and (*at, embed.name) in self.wanted:
            here = (*at, embed.name)  # PostgREST still takes the table's own name
        level = self.level(self.schema.tables[way.target], embed.items, here)
        if embed.is_spread and not way.is_to_one and level.is_grouped:
            raise BadRequest(
                "Aggregates are not implemented inside a spread of many rows", rest_code="PGRST127"
            )
        return Child(way, level, embed.join == "inner", embed.is_spread, bool(level.outputs))

    def _test(self, table: Table, condition: Condition, names: dict[str, int], children: list[Child]) -> Test:
        if not isinstance(condition, Filter):
            parts = tuple(self._test(table, part, names, children) for part in condition.parts)
            return Combined(condition.op, parts, condition.negated)
        path = condition.path
        if path.column in names and not path.steps and path.column not in table.columns:
            if condition.op != "is" or condition.word not in ("null", "not_null"):
                raise BadRequest(
                    f"Bad operator on the '{path.column[:80]}' embedded resource",
                    hint="Only is null or not is null filters are allowed on embedded resources",
                    rest_code="PGRST120",
                )
            absent = (condition.word == "null") is not condition.negated
            return Exists(names[path.column], absent)
        return Comparison(self._place(table, path), condition)

    def _sort(self, table: Table, order: Order, names: dict[str, int], children: list[Child]) -> Sort:
        if order.embed is None:
            return Sort(self._place(table, order.path), order.descending, order.nulls)
        number = names.get(order.embed)
        if number is None:
            raise BadRequest(
                f"'{order.embed[:80]}' is not an embedded resource in this request", rest_code="PGRST108"
            )
        way = children[number].relationship
        if not way.is_to_one:
            raise BadRequest(
                f"A related order on '{order.embed[:80]}' is not possible",
                details=f"'{table.name}' and '{way.target}' do not form a many-to-one or one-to-one "
                "relationship",
                rest_code="PGRST118",
            )
        place = self._place(self.schema.tables[way.target], order.path)
        return Sort(place, order.descending, order.nulls, number)


def _name_of(path: Path | None) -> str:
    """A JSON path is called by the last of its keys that is a word."""
    assert path is not None
    words = [key for _, key in path.steps if isinstance(key, str)]
    return words[-1] if words else path.column


def _child_outputs(embed: Embed, child: Child, number: int) -> Iterable[Output]:
    if not child.is_shown:
        return []
    if not embed.is_spread:
        return [Output(embed.key, child=number)]
    return [
        # an aggregate of a to-one spread is one of the level above: it groups there
        Output(o.name, None, None, o.aggregate, o.result_cast, child=number, lifted=o.name)
        for o in child.level.outputs
    ]


_CARDINALITY: Final = {"many-to-one": 1, "one-to-one": 2, "one-to-many": 3, "many-to-many": 4}


def choose(schema: Schema, origin: str, name: str, hint: str | None) -> Relationship:
    """The relationship that an embed means.

    Where a reference leads there and a junction would as well, a bare name means the reference. Raises
    BadRequest PGRST200 for none, Ambiguous for several.
    """
    ways = schema.relationships.get(origin, ())
    computed = [w for w in ways if w.function == name]
    if computed:
        return computed[0]
    fits = [way for way in ways if _fits(schema, way, name, hint)]
    if len(fits) > 1 and hint is None:
        direct = [way for way in fits if way.junction is None]
        fits = direct if len(direct) == 1 else fits
    if len(fits) == 1:
        return fits[0]
    if fits:
        raise _several(origin, name, fits)
    raise BadRequest(
        f"Could not find a relationship between '{origin}' and '{name[:80]}' in the schema cache",
        details=f"Searched for a foreign key relationship between '{origin}' and '{name[:80]}'"
        + (f" using the hint '{hint[:80]}'" if hint else "")
        + " in the schema 'public', but no matches were found.",
        hint=_nearest(ways, name),
        rest_code="PGRST200",
    )


def _fits(schema: Schema, way: Relationship, name: str, hint: str | None) -> bool:
    if way.function is not None:
        return False
    child_side: Any = 1 if way.cardinality == "one-to-many" else 0
    if hint is not None:
        if name != way.target:
            return False
        if way.junction is not None:
            return hint == way.junction.table
        if way.origin == way.target:
            return hint == way.constraint or (
                way.cardinality == "one-to-many" and hint in (way.column(0), way.column(1))
            )
        return hint in (way.constraint, way.column(0), way.column(1))
    if way.junction is not None:
        return name == way.target
    if way.origin == way.target:
        if way.cardinality == "one-to-many":
            return name == way.target
        return name == way.column(0)
    if name == way.target:
        return True
    return not schema.tables[way.target].is_view and name in (way.constraint, way.column(child_side))


def _several(origin: str, name: str, ways: list[Relationship]) -> Ambiguous:
    details = []
    hints = []
    for way in sorted(ways, key=lambda w: (_CARDINALITY[w.cardinality], w.constraint)):
        if way.junction is not None:
            using = f"{way.junction.table} using {' and '.join(way.junction.constraints)}"
            hints.append(f"{way.target}!{way.junction.table}")
        else:
            ours, theirs = (", ".join(pair[side] for pair in way.pairs) for side in (0, 1))
            using = f"{way.constraint} using {origin}({ours}) and {way.target}({theirs})"
            hints.append(f"{way.target}!{way.constraint}")
        details.append(
            {
                "cardinality": way.cardinality,
                "embedding": f"{origin} with {way.target}",
                "relationship": using,
            }
        )
    quoted = ", ".join(f"'{text}'" for text in dict.fromkeys(hints))
    return Ambiguous(
        f"Could not embed because more than one relationship was found for '{origin}' and '{name}'",
        details=details,
        hint=f"Try changing '{name}' to one of the following: {quoted}. "
        "Find the desired relationship in the 'details' key.",
    )


def _nearest(ways: Iterable[Relationship], name: str) -> str | None:
    """What may have been meant: `contact` for `contacts`."""
    targets = dict.fromkeys(way.target for way in ways)
    for target in targets:
        if target.rstrip("s") == name.rstrip("s") or target.startswith(name[:4]):
            return f"Perhaps you meant '{target}' instead of '{name[:80]}'."
    return f"Tables that can be embedded here: {', '.join(targets)}" if targets else None
