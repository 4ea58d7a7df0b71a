"""Statements that write: insert, upsert, update, delete, replace.

    with w as (insert … returning …)
    select (select count(*) from w) as n, <the answer's JSON, read from w> as body, …

A write is one statement whatever it answers. It gives one row: ``n`` written, ``body``, ``inserted`` (of an
upsert), ``place`` (the key of the first row, for Location) and ``keys`` (organization and id of each row, for
what is kept beside it).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

import msgspec

from hub.errors import BadRequest
from hub.rest.plan import Level
from hub.rest.schema import TENANT, Table
from hub.rest.statement import (
    BODY,
    Format,
    Statement,
    Writer,
    body_of,
    quote,
    table_name,
    uses_whole_rows,
)

#: Times of day that mean a place: (table, column) to the column that names it (C-24).
_LOCAL_TIMES: Final = {("campaigns", "scheduled_at"): "timezone"}
Resolution = Literal["merge-duplicates", "ignore-duplicates"]
Returning = Literal["nothing", "place", "rows"]


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What a write is to give back."""

    level: Level
    returning: Returning = "nothing"
    format: Format = "json"
    keys: bool = False


def insert(
    table: Table,
    names: Sequence[str],
    answer: Answer,
    *,
    resolution: Resolution | None = None,
    on_conflict: tuple[str, ...] | None = None,
    fill_defaults: bool = False,
) -> Statement:
    """The rows of the JSON array that is the body, in its order. Without ``names``, as many defaults."""
    writer = Writer()
    body = _json(writer, table, names, fill_defaults)
    columns = ", ".join(quote(name) for name in names)
    if names:
        values = ", ".join(_value(table, name, names, "null") for name in names)
        source = f"({columns}) select {values} from json_to_recordset({body}) as b({_typed(table, names)})"
    else:
        source = f"select from json_array_elements({body})"
    conflict = _conflict(table, names, resolution, on_conflict)
    write = f"insert into {table_name(table.name)} as t {source}{conflict}"
    return _answered(writer, write, table, answer, is_upsert=resolution is not None)


def update(
    table: Table, names: Sequence[str], tests: Level, answer: Answer, *, fill_defaults: bool = False
) -> Statement:
    """Set ``names`` from the JSON object that is the body, on all rows that pass the tests of a level."""
    writer = Writer()
    body = _json(writer, table, names, fill_defaults, is_one=True)
    sets = ", ".join(f"{quote(name)} = {_value(table, name, names, 't')}" for name in names)
    write = (
        f"update {table_name(table.name)} as t set {sets} "
        f"from json_to_record({body}) as b({_typed(table, names)}){writer.where(tests, 't')}"
    )
    return _answered(writer, write, table, answer)


def delete(table: Table, tests: Level, answer: Answer) -> Statement:
    writer = Writer()
    write = f"delete from {table_name(table.name)} as t{writer.where(tests, 't')}"
    return _answered(writer, write, table, answer)


def nothing(answer: Answer) -> Statement:
    """An update without columns: no row is written."""
    text = body_of("p", answer.format) if answer.returning == "rows" else "min('')"
    return Statement(f"select 0::bigint as n, {text} as body from (select 1 where false) p", ())


def _typed(table: Table, names: Sequence[str]) -> str:
    """The body's members; a local time stays text until it is known where."""
    return ", ".join(
        f"{quote(name)} {'text' if (table.name, name) in _LOCAL_TIMES else table.columns[name].type}"
        for name in names
    )


def _value(table: Table, name: str, names: Sequence[str], row: str) -> str:
    """What is written into a column. ``row``: the one that is there already, `null` when there is none."""
    value = f"b.{quote(name)}"
    place = _LOCAL_TIMES.get((table.name, name))
    if place is None:
        return value
    known = "null" if row == "null" else f"{row}.{quote(place)}"
    return f"app.moment({value}, {f'b.{quote(place)}' if place in names else known})"


def _json(
    writer: Writer, table: Table, names: Sequence[str], fill_defaults: bool, is_one: bool = False
) -> str:
    """The body as json; with the columns' defaults under what it does not say."""
    body = f"({writer.argument(BODY)})::json"
    defaults = [
        f"'{name.replace(chr(39), chr(39) * 2)}', {column.default}"
        for name, column in table.columns.items()
        if name in names and column.default is not None and not column.is_generated
    ]
    if not fill_defaults or not defaults:
        return body
    filled = f"jsonb_build_object({', '.join(defaults)})"
    if is_one:
        return f"(({filled} || ({body})::jsonb)::json)"
    return (
        f"(select coalesce(jsonb_agg(({filled} || e.value) order by e.ordinality), '[]')::json "
        f"from jsonb_array_elements(({body})::jsonb) with ordinality e)"
    )


def _conflict(
    table: Table, names: Sequence[str], resolution: Resolution | None, on_conflict: tuple[str, ...] | None
) -> str:
    """Every unique key of a tenant table begins with the organization: callers leave it out."""
    if resolution is None:
        return ""
    target = table.with_tenant(on_conflict or table.key)
    for name in target:
        if name not in table.columns:
            raise BadRequest(f"on_conflict: there is no column {name[:80]!r}", rest_code="42703")
    columns = ", ".join(quote(name) for name in target)
    if resolution == "ignore-duplicates":
        return f" on conflict ({columns}) do nothing"
    sets = [name for name in names if name not in target] or [target[-1]]
    return f" on conflict ({columns}) do update set " + ", ".join(
        f"{quote(name)} = excluded.{quote(name)}" for name in sets
    )


def _answered(
    writer: Writer, write: str, table: Table, answer: Answer, *, is_upsert: bool = False
) -> Statement:
    returning: list[str] = []
    if answer.returning == "rows":
        returning += [f"t.{quote(name)}" for name in table.columns]
        if uses_whole_rows(answer.level):
            returning.append('t as "?row"')
    else:
        wanted = table.key if answer.returning == "place" else ()
        if answer.keys:
            wanted = (*dict.fromkeys((*wanted, *table.with_tenant(table.key))),)
        returning += [f"t.{quote(name)}" for name in wanted]
    if is_upsert:
        returning.append('t.xmax = 0 as "?new"')
    body = "''"
    if answer.returning == "rows":
        alias = writer.alias()
        writer.whole_rows[alias] = f'{alias}."?row"'
        source, tail = "w", ""
        if answer.level.children and not answer.level.sorts and not answer.level.is_grouped:
            # a join may change the order of the rows, and callers lay the answer beside what they sent
            source = '(select w.*, row_number() over () as "?n" from w)'
            tail = f' order by {alias}."?n"'
        page = writer.select(answer.level, alias, source, tail=tail)
        body = f"(select {body_of('p', answer.format)} from ({page}) p)"
    inserted = '(select count(*) from w where "?new")' if is_upsert else "null::bigint"
    place = "null"
    if answer.returning == "place" and table.key:
        names = ", ".join(f"w.{quote(name)}" for name in table.key)
        place = f"(select json_build_array({names})::text from w limit 1)"
    keys = "null"
    if answer.keys:
        owner = f"w.{quote(TENANT)}" if table.is_tenant else "w.id"
        keys = f"(select coalesce(json_agg(json_build_array({owner}, w.id)), '[]')::text from w)"
    return writer.done(
        f"with w as ({write} returning {', '.join(returning) or '1'}) "
        f"select (select count(*) from w) as n, {body} as body, {inserted} as inserted, {place} as place, "
        f"{keys} as keys"
    )
