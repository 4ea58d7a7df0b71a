"""From a parsed request to one statement and its arguments. The only place that quotes identifiers.

Values are always parameters, sent as text and cast to the column's type by Postgres, so that one statement
text serves all values of a shape. The JSON of the answer is built by Postgres too: every statement returns
one row ``(body text, rows bigint, …)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from hub.errors import BadRequest
from hub.rest.catalog import Table
from hub.rest.grammar import MOST_PARTS, Condition, Filter, Group, Item, Order, Path, Query

_SIMPLE: Final = {
    "eq": "=", "neq": "<>", "gt": ">", "gte": ">=", "lt": "<", "lte": "<=", "cs": "@>", "cd": "<@",
    "ov": "&&", "isdistinct": "is distinct from",
}  # fmt: skip
_TEXT: Final = {"like": "like", "ilike": "ilike", "match": "~", "imatch": "~*"}
_IS: Final = {
    "null": "is null",
    "not_null": "is not null",
    "true": "is true",
    "false": "is false",
    "unknown": "is unknown",
}


class Statement(msgspec.Struct, frozen=True):
    text: str
    args: list[Any]


class _Arguments:
    def __init__(self) -> None:
        self.values: list[Any] = []

    def add(self, value: Any) -> str:
        """The placeholder of one more text argument."""
        self.values.append(value)
        return f"${len(self.values)}::text"


def quote(name: str) -> str:
    """An SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def read(table: Table, query: Query, *, limit: int, count: bool, body: bool = True) -> Statement:
    """``(body, rows[, total])``; without ``body`` (HEAD) the JSON is empty."""
    args = _Arguments()
    where = _where(table, query.where, args)
    order = _order(table, query.order, args)
    columns = _columns(table, query.select, args)
    source = f"public.{quote(table.name)} t"
    page = (
        f"select {columns if body else '1'} from {source}{where}{order}"
        f" limit ({args.add(str(limit))})::bigint offset ({args.add(str(query.offset))})::bigint"
    )
    total = f", (select count(*) from {source}{where}) as total" if count else ""
    made = "coalesce(json_agg(p), '[]')::text" if body else "''"
    return Statement(f"select {made} as body, count(*) as rows{total} from ({page}) p", args.values)


def insert(
    table: Table,
    query: Query,
    names: Sequence[str],
    body: str,
    *,
    resolution: str | None,
    returning: Sequence[Item] | None,
) -> Statement:
    """Insert the JSON array ``body`` in its order: ``(body, rows, inserted)``."""
    args = _Arguments()
    given = f"({args.add(body)})::json"
    t = f"public.{quote(table.name)}"
    if names:
        typed = ", ".join(f"{quote(n)} {table.columns[n].type}" for n in names)
        columns = ", ".join(quote(n) for n in names)
        source = f"({columns}) select {columns} from json_to_recordset({given}) as b({typed})"
    elif msgspec.json.decode(body) == [{}]:
        source = "default values"
        args.values.clear()
    else:
        raise BadRequest("Several rows without any column", rest_code="PGRST102")
    conflict = _conflict(table, query, names, resolution)
    outputs = _columns(table, returning, args) if returning is not None else "1"
    text = (
        f"with written as (insert into {t} as t {source}{conflict} "
        f'returning {outputs}, t.xmax = 0 as "?new") '
        f'{_result(table, returning)}, (select count(*) from written where "?new") as inserted'
    )
    return Statement(text, args.values)


def update(
    table: Table, query: Query, names: Sequence[str], body: str, *, returning: Sequence[Item] | None
) -> Statement:
    """Set the columns of the JSON object ``body`` on every row that matches: ``(body, rows)``."""
    args = _Arguments()
    given = f"({args.add(body)})::json"
    typed = ", ".join(f"{quote(n)} {table.columns[n].type}" for n in names)
    sets = ", ".join(f"{quote(n)} = b.{quote(n)}" for n in names)
    where = _where(table, query.where, args)
    outputs = _columns(table, returning, args) if returning is not None else "1"
    text = (
        f"with written as (update public.{quote(table.name)} as t set {sets} "
        f"from json_to_record({given}) as b({typed}){where} returning {outputs}) "
        f"{_result(table, returning)}"
    )
    return Statement(text, args.values)


def delete(table: Table, query: Query, *, returning: Sequence[Item] | None) -> Statement:
    """``(body, rows)``."""
    args = _Arguments()
    where = _where(table, query.where, args)
    outputs = _columns(table, returning, args) if returning is not None else "1"
    text = (
        f"with written as (delete from public.{quote(table.name)} as t{where} returning {outputs}) "
        f"{_result(table, returning)}"
    )
    return Statement(text, args.values)


def _result(table: Table, returning: Sequence[Item] | None) -> str:
    """What a write answers from its CTE, in the order in which the rows were written."""
    rows = "(select count(*) from written) as rows"
    if returning is None:
        return f"select '' as body, {rows}"
    names = ", ".join(quote(n) for item in returning for n in _names_of(table, item))
    made = f"(select coalesce(json_agg(x), '[]')::text from (select {names} from written) x)"
    return f"select {made} as body, {rows}"


def _names_of(table: Table, item: Item) -> list[str]:
    """Under which names an entry of select comes out."""
    if item.path is None:
        return list(table.columns)
    return [item.alias or (item.path.steps[-1][1] if item.path.steps else item.path.column)]


def _conflict(table: Table, query: Query, names: Sequence[str], resolution: str | None) -> str:
    if resolution is None:
        return ""
    target = query.on_conflict or table.key
    for name in target:
        if name not in table.columns:
            raise BadRequest(f"on_conflict: there is no column {name!r}", rest_code="42703")
    if "organization_id" in table.columns and "organization_id" not in target:
        target = ("organization_id", *target)  # every unique key of a tenant table begins with it
    columns = ", ".join(quote(n) for n in target)
    if resolution == "ignore-duplicates":
        return f" on conflict ({columns}) do nothing"
    sets = [n for n in names if n not in target] or [target[-1]]
    return f" on conflict ({columns}) do update set " + ", ".join(
        f"{quote(n)} = excluded.{quote(n)}" for n in sets
    )


def _columns(table: Table, items: Sequence[Item], args: _Arguments) -> str:
    """The select list; asked-for names stay in their order."""
    parts: list[str] = []
    for item in items:
        if item.path is None:
            parts += [f"t.{quote(n)}" for n in table.columns]
            continue
        text = _place(table, item.path, args)
        if item.cast is not None:
            text = f"({text})::{_cast(item.cast)}"
        parts.append(f"{text} as {quote(_names_of(table, item)[0])}")
    if len(parts) > MOST_PARTS:
        raise BadRequest(f"select: at most {MOST_PARTS} columns in one request", rest_code="PGRST100")
    return ", ".join(parts)


#: What a select may be cast to: the words go into the statement, so they come from here.
_CASTS: Final = frozenset(
    {
        "text", "integer", "int", "int4", "int8", "bigint", "smallint", "numeric", "float8", "real",
        "boolean", "bool", "date", "time", "timestamp", "timestamptz", "uuid", "json", "jsonb",
        "double precision",
    }
)  # fmt: skip


def _cast(name: str) -> str:
    if name.lower() not in _CASTS:
        raise BadRequest(f"select: cannot cast to {name!r}", rest_code="PGRST100")
    return name.lower()


def _place(table: Table, path: Path, args: _Arguments) -> str:
    """Column or JSON path; keys are parameters. Raises BadRequest for a column that the API does not show:
    Postgres has more of them (xmin tells how busy the other organizations are)."""
    if path.column not in table.columns:
        raise BadRequest(f"column {table.name}.{path.column[:80]} does not exist", rest_code="42703")
    text = f"t.{quote(path.column)}"
    for arrow, key in path.steps:
        if key.lstrip("-").isdigit():
            text = f"({text} {arrow} ({args.add(key)})::integer)"
        else:
            text = f"({text} {arrow} {args.add(key)})"
    return text


def _where(table: Table, conditions: Sequence[Condition], args: _Arguments) -> str:
    if not conditions:
        return ""
    return " where " + " and ".join(_condition(table, c, args) for c in conditions)


def _condition(table: Table, condition: Condition, args: _Arguments) -> str:
    if isinstance(condition, Group):
        inner = f" {condition.op} ".join(_condition(table, c, args) for c in condition.parts)
        return f"not ({inner})" if condition.negated else f"({inner})"
    text = _comparison(table, condition, args)
    return f"not ({text})" if condition.negated else text


def _comparison(table: Table, f: Filter, args: _Arguments) -> str:
    left = _place(table, f.path, args)
    target = _type(table, f.path)
    if f.op == "is":
        return f"{left} {_IS[str(f.value)]}"
    if f.op == "in":
        return f"{left} = any (({args.add(array_literal(f.value))})::{target}[])"
    value = str(f.value)
    if f.op in _TEXT:
        if f.op in ("like", "ilike"):
            value = value.replace("*", "%")
        if f.quantifier is not None:
            return f"{left} {_TEXT[f.op]} {f.quantifier} (({args.add(value)})::text[])"
        return f"{left} {_TEXT[f.op]} {args.add(value)}"
    if f.quantifier is not None:
        return f"{left} {_SIMPLE[f.op]} {f.quantifier} (({args.add(value)})::{target}[])"
    return f"{left} {_SIMPLE[f.op]} ({args.add(value)})::{target}"


def _type(table: Table, path: Path) -> str:
    """What the right side is cast to."""
    if path.steps:
        return "text" if path.is_text else "jsonb"
    return table.columns[path.column].type


def _order(table: Table, terms: Sequence[Order], args: _Arguments) -> str:
    if not terms:
        return ""
    parts = [
        _place(table, term.path, args)
        + (" desc" if term.descending else "")
        + (f" nulls {term.nulls}" if term.nulls is not None else "")
        for term in terms
    ]
    return " order by " + ", ".join(parts)


def array_literal(values: str | Sequence[str]) -> str:
    """A Postgres array literal of texts, for one parameter whatever the length."""
    quoted = ('"' + v.replace("\\", "\\\\").replace('"', '\\"') + '"' for v in values)
    return "{" + ",".join(quoted) + "}"
