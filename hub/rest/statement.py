"""From a plan to the text of one statement. The only place that quotes identifiers.

Values are parameters, sent as text and cast to the column's type by Postgres, so that one text serves all
requests of a shape. The JSON of the answer is built by Postgres too: every statement returns one row with
``n`` (rows) and ``body`` (text).

    select count(*) as n, coalesce(json_agg(p), '[]')::text as body from (
      select t0."id" as "id", to_json(e2) as "contacts"
        from public."deals" t0
        left join lateral (select t1."first_name" as "first_name" from public."contacts" t1
                            where t1."id" = t0."contact_id") e2 on true
       where t0."stage" = ($1::text)::text limit ($2::text)::bigint offset ($3::text)::bigint) p
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

import msgspec

from hub.errors import BadRequest
from hub.rest.plan import Child, Combined, Comparison, Exists, Level, Output, Place, Sort, Test
from hub.rest.schema import Relationship

#: Rows of an answer, or of one embed, without a limit; and with the largest.
DEFAULT_LIMIT: Final = 1000
LARGEST_LIMIT: Final = 10_000

#: Places of what is not among the query's own values, counted from the end.
LIMIT, OFFSET, BODY, CONTEXT = -1, -2, -3, -4
Source = int | str
"""An argument: a place among the values, or a text of the shape itself (a JSON key)."""

_SIMPLE: Final = {
    "eq": "=", "neq": "<>", "gt": ">", "gte": ">=", "lt": "<", "lte": "<=", "cs": "@>", "cd": "<@",
    "ov": "&&", "sl": "<<", "sr": ">>", "nxr": "&<", "nxl": "&>", "adj": "-|-",
    "isdistinct": "is distinct from",
}  # fmt: skip
_TEXT: Final = {"like": "like", "ilike": "ilike", "match": "~", "imatch": "~*"}
_FULL_TEXT: Final = {
    "fts": "to_tsquery", "plfts": "plainto_tsquery", "phfts": "phraseto_tsquery",
    "wfts": "websearch_to_tsquery",
}  # fmt: skip
_IS: Final = {
    "null": "is null", "not_null": "is not null", "true": "is true", "false": "is false",
    "unknown": "is unknown",
}  # fmt: skip
#: Types whose SQL name is more than one word, or not the name in pg_type. Any other word is quoted as a name
#: of a type, and Postgres says 42704 if there is none.
_TYPES: Final = {
    "int": "integer", "integer": "integer", "bigint": "bigint", "smallint": "smallint", "real": "real",
    "double precision": "double precision", "boolean": "boolean", "decimal": "numeric", "character": "text",
    "char": "text", "character varying": "text", "float": "double precision",
    "timestamp without time zone": "timestamp", "timestamp with time zone": "timestamptz",
    "time without time zone": "time", "time with time zone": "timetz",
}  # fmt: skip

Format = Literal["json", "stripped", "csv", "none"]


class Statement(msgspec.Struct, frozen=True):
    text: str
    arguments: tuple[Source, ...]

    def bind(
        self, values: Sequence[str], *, limit: int = 0, offset: int = 0, body: str | None = None,
        context: str | None = None,
    ) -> list[str | None]:  # fmt: skip
        """The arguments of one request."""
        every = (*values, context, body, str(offset), str(limit))
        return [a if isinstance(a, str) else every[a] for a in self.arguments]


def quote(name: str) -> str:
    """An SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def table_name(name: str) -> str:
    return f"public.{quote(name)}"


class Writer:
    """One statement as it grows: aliases and arguments."""

    def __init__(self) -> None:
        self.arguments: list[Source] = []
        self.whole_rows: dict[str, str] = {}
        self._aliases = 0

    def alias(self, letter: str = "t") -> str:
        self._aliases += 1
        return f"{letter}{self._aliases}"

    def argument(self, source: Source) -> str:
        """The placeholder of one more text argument."""
        self.arguments.append(source)
        return f"${len(self.arguments)}::text"

    def done(self, text: str) -> Statement:
        return Statement(text, tuple(self.arguments))

    # rows

    def select(
        self, level: Level, alias: str, source: str, *, tail: str = "", ties: Sequence[str] = (),
        only_count: bool = False,
    ) -> str:  # fmt: skip
        """`select … from …` of one level whose table stands in the text ``source`` as ``alias``. ``ties`` are
        conditions that tie it to the level above.

        A page is cut before anything is joined to it: the planner takes one organization's rows for a
        handful, and would sort a whole inbox with all that is embedded in it."""
        laterals: list[str] = []
        where, order = self.where(level, alias, ties), self._order(level, alias)
        if tail.startswith(" limit") and not level.is_grouped and any(c.is_shown for c in level.children):
            row = f", {alias} as {quote('?row')}" if uses_whole_rows(level) else ""
            source = f"(select {alias}.*{row} from {source} {alias}{where}{order}{tail})"
            if row:
                self.whole_rows[alias] = f"{alias}.{quote('?row')}"
            where, order, tail = "", self._order(level, alias), ""
        outputs, group = ["1"], ""
        if level.is_grouped or not only_count:
            rows = {n: self._lateral(c, alias, level, laterals) for n, c in enumerate(level.children)}
            outputs = [
                f"{self._output(o, alias, rows, level)} as {quote(o.name)}" for o in level.outputs
            ] or ["1"]
            if level.is_grouped:
                keys = [str(n) for n, o in enumerate(level.outputs, 1) if o.aggregate is None]
                group = f" group by {', '.join(keys)}" if keys else ""
        return (
            f"select {', '.join(outputs)} from {source} {alias}{''.join(laterals)}{where}{group}{order}{tail}"
        )

    def raw(self, level: Level, alias: str, source: str, ties: Sequence[str]) -> str:
        """A spread to-one's columns, to be aggregated by the level above."""
        laterals: list[str] = []
        rows = {n: self._lateral(c, alias, level, laterals) for n, c in enumerate(level.children)}
        outputs = [
            f"{self._output(o, alias, rows, level, raw=True)} as {quote(o.name)}" for o in level.outputs
        ]
        where = self.where(level, alias, ties)
        return f"select {', '.join(outputs)} from {source} {alias}{''.join(laterals)}{where}"

    def _lateral(self, child: Child, parent: str, above: Level, laterals: list[str]) -> str | None:
        """Add one embedded level to the joins of its parent; the alias of its row."""
        if not child.is_shown:
            return None
        level, way = child.level, child.relationship
        alias, row = self.alias(), self.alias("e")
        source, ties = self._tied(way, parent, alias)
        if way.is_to_one:
            # `limit 1` keeps this a look-up for each row of the page: as a join it may be hashed, and one
            # organization's rows are more than the planner believes
            make = self.raw if child.is_spread else self.select
            inner = make(level, alias, source, ties=ties) + " limit 1"
        else:
            many = self.select(level, alias, source, ties=ties, tail=self._cut(level))
            each = self.alias("z")
            if child.is_spread:
                lists = ", ".join(
                    f"coalesce(json_agg({each}.{quote(o.name)}), '[]') as {quote(o.name)}"
                    for o in level.outputs
                )
                inner = f"select {lists} from ({many}) {each}"
            else:
                inner = f"select coalesce(json_agg({each}), '[]') as j from ({many}) {each}"
        laterals.append(f" left join lateral ({inner}) {row} on true")
        return row

    def _tied(self, way: Relationship, parent: str, alias: str) -> tuple[str, list[str]]:
        """Where the rows of an embedded level come from, and what ties them to their parent."""
        if way.function is not None:
            return f"{table_name(way.function)}({self.row_of(parent)})", []
        target = table_name(way.target)
        if way.junction is None:
            return target, [f"{alias}.{quote(b)} = {parent}.{quote(a)}" for a, b in way.pairs]
        between = self.alias("j")
        junction = table_name(way.junction.table)
        ours = [f"{between}.{quote(b)} = {parent}.{quote(a)}" for a, b in way.junction.to_origin]
        theirs = [f"{between}.{quote(a)} = {alias}.{quote(b)}" for a, b in way.junction.to_target]
        return target, [f"exists (select 1 from {junction} {between} where {' and '.join(ours + theirs)})"]

    def _output(
        self, output: Output, alias: str, rows: dict[int, str | None], level: Level, raw: bool = False
    ) -> str:
        if output.child is not None:
            child, row = level.children[output.child], rows[output.child]
            if output.lifted is not None:
                text = f"{row}.{quote(output.lifted)}"
            else:
                text = f"to_json({row})" if child.relationship.is_to_one else f"{row}.j"
            if level.is_grouped and not raw and output.aggregate is None and _is_json(level, output):
                text += "::jsonb"  # json has no equality to group by
        elif output.place is not None:
            text = self.place(output.place, alias)
            if output.cast is not None:
                text = f"cast({text} as {type_name(output.cast)})"
        else:
            text = "1"
        if output.aggregate is None or raw:
            return text
        counts_rows = output.place is None and output.lifted is None
        text = "count(*)" if counts_rows else f"{output.aggregate}({text})"
        if output.result_cast is not None:
            text = f"cast({text} as {type_name(output.result_cast)})"
        return text

    def place(self, place: Place, alias: str) -> str:
        """A column or JSON path; keys are arguments."""
        text = f"{alias}.{quote(place.column)}"
        if place.computed:
            text = f"{table_name(place.column)}({self.row_of(alias)})"
        if place.steps and not place.is_json:
            text = f"to_jsonb({text})"
        for arrow, key in place.steps:
            if isinstance(key, int):
                text = f"({text} {arrow} ({self.argument(str(key))})::integer)"
            else:
                text = f"({text} {arrow} {self.argument(key)})"
        return text

    def row_of(self, alias: str) -> str:
        """The whole row, for functions of it: what was just written has it in a column of its own."""
        return self.whole_rows.get(alias, alias)

    def _cut(self, level: Level) -> str:
        tail = f" limit {DEFAULT_LIMIT}"
        if level.limit is not None:
            tail = f" limit least(({self.argument(level.limit)})::bigint, {LARGEST_LIMIT})"
        if level.offset is not None:
            tail += f" offset ({self.argument(level.offset)})::bigint"
        return tail

    # conditions

    def where(self, level: Level, alias: str, ties: Sequence[str] = ()) -> str:
        """With what `!inner` asks of the embedded levels."""
        tests = [*ties, *(self.test(test, level, alias) for test in level.tests)]
        tests += [self._exists(child, alias) for child in level.children if child.is_inner]
        return f" where {' and '.join(tests)}" if tests else ""

    def _exists(self, child: Child, parent: str) -> str:
        alias = self.alias()
        source, ties = self._tied(child.relationship, parent, alias)
        return f"exists (select 1 from {source} {alias}{self.where(child.level, alias, ties)})"

    def test(self, test: Test, level: Level, alias: str) -> str:
        if isinstance(test, Combined):
            inner = f" {test.op} ".join(self.test(part, level, alias) for part in test.parts)
            return f"not ({inner})" if test.negated else f"({inner})"
        if isinstance(test, Exists):
            text = self._exists(level.children[test.child], alias)
            return f"not {text}" if test.negated else text
        text = self._comparison(test, alias)
        return f"not ({text})" if test.filter.negated else text

    def _comparison(self, test: Comparison, alias: str) -> str:
        filter_, place = test.filter, test.place
        left = self.place(place, alias)
        op = filter_.op
        if op == "is":
            assert filter_.word is not None
            return f"{left} {_IS[filter_.word]}"
        right = self.argument(filter_.value)
        if op == "in":
            return f"{left} = any (({right})::{place.type}[])"
        if op in _FULL_TEXT:
            return self._full_text(test, left, right)
        operator, cast = (_TEXT[op], "text") if op in _TEXT else (_SIMPLE[op], place.type)
        if filter_.quantifier is not None:
            return f"{left} {operator} {filter_.quantifier} (({right})::{cast}[])"
        return f"{left} {operator} ({right})::{cast}"

    def _full_text(self, test: Comparison, left: str, right: str) -> str:
        language = ""
        if test.filter.language is not None:
            language = f"({self.argument(test.filter.language)})::regconfig, "
        if test.place.type != "tsvector":
            left = f"to_tsvector({language}{left})"
        return f"{left} @@ {_FULL_TEXT[test.filter.op]}({language}{right})"

    def _order(self, level: Level, alias: str) -> str:
        if not level.sorts:
            return ""
        return f" order by {', '.join(self._sort(sort, level, alias) for sort in level.sorts)}"

    def _sort(self, sort: Sort, level: Level, alias: str) -> str:
        if sort.child is None:
            text = self.place(sort.place, alias)
        else:
            child, other = level.children[sort.child], self.alias()
            source, ties = self._tied(child.relationship, alias, other)
            column = self.place(sort.place, other)
            text = f"(select {column} from {source} {other}{self.where(child.level, other, ties)})"
        if sort.descending:
            text += " desc"
        return f"{text} nulls {sort.nulls}" if sort.nulls is not None else text


def uses_whole_rows(level: Level) -> bool:
    """Whether something of the level is a function of its row."""

    def computed(test: Test) -> bool:
        return isinstance(test, Comparison) and test.place.computed

    return (
        any(o.place is not None and o.place.computed for o in level.outputs)
        or any(s.place.computed for s in level.sorts if s.child is None)
        or any(computed(test) for test in level.tests)
        or any(child.relationship.function is not None for child in level.children)
    )


def _is_json(level: Level, output: Output) -> bool:
    """Whether an output is JSON that Postgres built."""
    if output.child is None:
        return False
    child = level.children[output.child]
    if output.lifted is None or not child.relationship.is_to_one:
        return True
    return any(o.name == output.lifted and _is_json(child.level, o) for o in child.level.outputs)


def type_name(name: str) -> str:
    """A cast's target."""
    lower = " ".join(name.lower().split())
    if lower.startswith("reg"):  # names of tables and functions are nobody's business
        raise BadRequest(f'type "{lower}" does not exist', rest_code="42704")
    return _TYPES.get(lower) or quote(lower)


def body_of(alias: str, format_: Format) -> str:
    """The answer's text from the rows of the subquery ``alias``."""
    if format_ == "none":
        return "''"
    if format_ == "csv":
        # a record's text has backslashes doubled, a CSV line has not
        return (
            f"coalesce(string_agg(replace(substring({alias}::text, 2, length({alias}::text) - 2), "
            f"'\\\\', '\\'), E'\\n'), '')"
        )
    each = f"json_strip_nulls(to_json({alias}))" if format_ == "stripped" else alias
    return f"coalesce(json_agg({each}), '[]')::text"


def read(
    root: Level, format_: Format, *, counts: bool, asserts: bool = False, source: str | None = None
) -> Statement:
    """``n``, ``body`` and, when it ``counts``, ``total``: rows without limit and offset, which costs a scan
    only when the page does not tell. ``asserts``: it raises unless the connection speaks for the caller."""
    writer = Writer()
    alias = writer.alias()
    source = source if source is not None else table_name(root.table.name)
    limit = f"({writer.argument(LIMIT)})::bigint"
    offset = f"({writer.argument(OFFSET)})::bigint"
    page = writer.select(
        root, alias, source, tail=f" limit {limit} offset {offset}", only_count=format_ == "none"
    )
    # as bytes: the driver would make a string of a text, and the answer bytes of that
    body = f"convert_to({body_of('p', format_)}, 'UTF8')"
    inner = f"select count(*) as n, {body} as body from ({page}) p"
    if asserts:  # names no column, so Postgres asks it once, before it touches a row
        inner += f" where app.assert_ctx({writer.argument(CONTEXT)})"
    if not counts:
        return writer.done(inner)
    total = f"(select count(*) from {_counted(writer, root, source)})"
    return writer.done(
        f"select q.n, q.body, case when q.n < {limit} and (q.n > 0 or {offset} = 0) then {offset} + q.n "
        f"else {total} end as total from ({inner}) q"
    )


def _counted(writer: Writer, root: Level, source: str) -> str:
    alias = writer.alias()
    bare = msgspec.structs.replace(root, sorts=())
    if root.is_grouped:
        return f"({writer.select(bare, alias, source)}) c"
    return f"{source} {alias}{writer.where(bare, alias)}"


def names_of(level: Level) -> list[str]:
    """The members of a level's rows, in order: the head line of a CSV."""
    return [output.name for output in level.outputs]
