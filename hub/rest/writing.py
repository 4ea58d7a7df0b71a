"""POST, PATCH, DELETE and PUT of a table."""

from __future__ import annotations

from typing import Any, Final
from uuid import uuid4

import msgspec

from hub.errors import BadRequest, MethodNotAllowed
from hub.rest import sealed, values
from hub.rest.body import Row, Rows, names_written, read_rows
from hub.rest.compiler import WriteShape
from hub.rest.deed import (
    Ask,
    Connection,
    Deed,
    Kit,
    check_permission,
    check_reads,
    in_timezone,
    may_roll_back,
    media_of,
    table_of,
)
from hub.rest.grammar import parse_query
from hub.rest.media import Media
from hub.rest.plan import Plan
from hub.rest.prefer import Prefer
from hub.rest.reading import format_of
from hub.rest.reply import Reply, check_single, csv_line, rendered
from hub.rest.schema import Table
from hub.rest.statement import Statement, names_of
from hub.rest.tree import Filter, Query, Shape
from hub.rest.write import Resolution, Returning
from sql import q

_anything = msgspec.json.Decoder(Any)
_encode = msgspec.json.Encoder(uuid_format="canonical").encode
_RETURNING: Final[dict[str, Returning]] = {
    "minimal": "nothing", "headers-only": "place", "representation": "rows",
}  # fmt: skip


def prepare_insert(kit: Kit, ask: Ask) -> Deed:
    """New rows, or with a `resolution` also changed ones."""
    query, prefer = parse_query(ask.query), ask.prefer()
    body = read_rows(ask.body, ask.content_type)
    table = table_of(kit, ask)
    names = names_written(table, body.rows, query.shape.columns)
    media = media_of(kit, ask, table, query.shape)
    plan, statement, secrets = _insertion(
        kit, table, query, prefer, body, names, media, prefer.resolution, query.shape.on_conflict
    )
    text = body.text

    async def run(conn: Connection) -> Reply:
        if not body.rows:
            row: Any = _NOTHING_WRITTEN
        else:
            row = await _write(conn, kit, prefer, statement, statement.bind(query.values, body=text))
            await _keep(conn, kit, table, row["keys"], secrets)
        check_single(row["n"], media)
        merged = prefer.resolution == "merge-duplicates" and not row["inserted"] and row["n"]
        headers = {"Content-Range": f"*/{row['n']}" if prefer.count else "*/*"}
        if row["place"] is not None and row["n"] == 1:
            headers["Location"] = _location(table, row["place"])
        return _reply(kit, 200 if merged else 201, row, headers, prefer, media, plan, "insert")

    return _deed(kit, table, "insert", run, prefer, names)


def prepare_update(kit: Kit, ask: Ask) -> Deed:
    query, prefer = parse_query(ask.query), ask.prefer()
    body = read_rows(ask.body, ask.content_type)
    if len(body.rows) > 1:
        raise BadRequest("The body must be one JSON object", rest_code="PGRST102")
    table = table_of(kit, ask)
    names = names_written(table, body.rows, query.shape.columns) if body.rows else []
    body = body if body.rows else Rows([{}])  # nothing to change
    media = media_of(kit, ask, table, query.shape)
    check_permission(kit.principal, table.name, "update")
    _check_filtered(query.shape, "UPDATE")
    if values.has_rules(table.name, names):
        values.clean(table.name, body)
    found = _split_secrets(table, body, body.rows[0]) if sealed.COLUMNS.get(table.name) in names else None
    shape = WriteShape(
        table=table.name,
        shape=query.shape,
        names=tuple(names),
        returning=_RETURNING[prefer.returns],
        format=format_of(media),
        keys=found is not None,
        fill_defaults=prefer.fills_defaults,
    )
    plan, statement = _statement(kit, kit.compiler.update, shape)
    text = body.first

    async def run(conn: Connection) -> Reply:
        row = await _write(conn, kit, prefer, statement, statement.bind(query.values, body=text))
        if found is not None:
            await _keep(conn, kit, table, row["keys"], found)
        n = row["n"]
        check_single(n, media)
        counted = str(n) if prefer.count else "*"
        headers = {"Content-Range": f"0-{n - 1}/{counted}" if n else f"*/{counted}"}
        status = 200 if prefer.returns == "representation" else 204
        return _reply(kit, status, row, headers, prefer, media, plan, "update")

    return _deed(kit, table, "update", run, prefer, names)


def prepare_delete(kit: Kit, ask: Ask) -> Deed:
    query, prefer = parse_query(ask.query), ask.prefer()
    table = table_of(kit, ask)
    media = media_of(kit, ask, table, query.shape)
    check_permission(kit.principal, table.name, "delete")
    _check_filtered(query.shape, "DELETE")
    shape = WriteShape(
        table=table.name,
        shape=query.shape,
        returning=_RETURNING[prefer.returns],
        format=format_of(media),
    )
    plan, statement = _statement(kit, kit.compiler.delete, shape)

    async def run(conn: Connection) -> Reply:
        row = await _write(conn, kit, prefer, statement, statement.bind(query.values))
        check_single(row["n"], media)
        headers = {"Content-Range": f"*/{row['n']}" if prefer.count else "*/*"}
        status = 200 if prefer.returns == "representation" else 204
        return _reply(kit, status, row, headers, prefer, media, plan, "delete")

    return _deed(kit, table, "delete", run, prefer, [])


def prepare_replace(kit: Kit, ask: Ask) -> Deed:
    """PUT: the one row that the address names, made or changed."""
    query, prefer = parse_query(ask.query), ask.prefer()
    if query.limit is not None or "offset=" in ask.query or query.shape.cuts or query.shape.order:
        raise BadRequest(
            "limit, offset and order querystring parameters are not allowed for PUT", rest_code="PGRST114"
        )
    body = read_rows(ask.body, ask.content_type)
    table = table_of(kit, ask)
    identity = _identity(table, query)
    names = names_written(table, body.rows, query.shape.columns)
    rows = [row for row in body.rows if all(_is_value(row.get(c), v) for c, v in identity.items())]
    if not rows:
        raise BadRequest("Payload values do not match URL in primary key column(s)", rest_code="PGRST115")
    body = Rows(rows[:1])
    media = media_of(kit, ask, table, query.shape)
    plan, statement, secrets = _insertion(
        kit, table, query, prefer, body, names, media, "merge-duplicates", None
    )
    text = body.text

    async def run(conn: Connection) -> Reply:
        row = await _write(conn, kit, prefer, statement, statement.bind(query.values, body=text))
        await _keep(conn, kit, table, row["keys"], secrets)
        check_single(row["n"], media)
        status = 204
        if prefer.returns == "representation":
            status = 201 if row["inserted"] else 200
        headers = {"Content-Range": f"*/{row['n']}" if prefer.count else "*/*"}
        return _reply(kit, status, row, headers, prefer, media, plan, "replace")

    return _deed(kit, table, "replace", run, prefer, names)


_NOTHING_WRITTEN: Final[dict[str, Any]] = {
    "n": 0, "body": "[]", "inserted": None, "place": None, "keys": None,
}  # fmt: skip


def _insertion(
    kit: Kit, table: Table, query: Query, prefer: Prefer, body: Rows, names: list[str], media: Media,
    resolution: Resolution | None, on_conflict: tuple[str, ...] | None,
) -> tuple[Plan, Statement, dict[str, sealed.Split]]:  # fmt: skip
    """The statement that writes `body`, which is checked and cleaned, and the secrets taken out of it."""
    check_permission(kit.principal, table.name, "insert")
    if resolution == "merge-duplicates":
        check_permission(kit.principal, table.name, "update")
    if values.has_rules(table.name, names):
        values.clean(table.name, body)
    secrets = _secrets_of_new(table, body, names)
    shape = WriteShape(
        table=table.name,
        shape=_without_filters(query.shape),
        names=tuple(names),
        returning=_RETURNING[prefer.returns],
        format=format_of(media),
        keys=bool(secrets),
        resolution=resolution,
        on_conflict=on_conflict if resolution else None,
        fill_defaults=prefer.fills_defaults,
    )
    plan, statement = _statement(kit, kit.compiler.insert, shape)
    return plan, statement, secrets


def _statement(kit: Kit, compile_: Any, shape: WriteShape) -> tuple[Plan, Statement]:
    plan, statement = compile_(shape)
    if shape.returning == "rows":
        check_reads(kit.principal, plan.reads)
    return plan, statement


async def _write(
    conn: Connection, kit: Kit, prefer: Prefer, statement: Statement, arguments: list[str | None]
) -> Any:
    await in_timezone(conn, prefer)
    row = await conn.fetchrow(statement.text, *arguments)
    assert row is not None
    if prefer.most_affected is not None and row["n"] > prefer.most_affected:
        raise BadRequest(
            "Query result exceeds max-affected preference constraint",
            details=f"The query affects {row['n']} rows",
            rest_code="PGRST124",
        )
    return row


def _deed(kit: Kit, table: Table, verb: str, run: Any, prefer: Prefer, names: list[str]) -> Deed:
    """A message that was inserted or set to PENDING is to be sent now, not at the workers' next look."""
    sends = table.name == "messages" and (
        verb in ("insert", "replace") or (verb == "update" and "status" in names)
    )
    rolls_back = prefer.rolls_back and may_roll_back(kit)
    return Deed(name=table.name, verb=verb, run=run, wakes=sends and not rolls_back, rolls_back=rolls_back)


def _reply(
    kit: Kit, status: int, row: Any, headers: dict[str, str], prefer: Prefer, media: Media, plan: Plan,
    verb: str,
) -> Reply:  # fmt: skip
    applied = prefer.applied(verb, may_roll_back=may_roll_back(kit))
    if applied:
        headers["Preference-Applied"] = applied
    if prefer.returns != "representation":
        return Reply(status=status, headers=headers)
    headers["Content-Type"] = media.content_type
    head = csv_line(names_of(plan.root)) if media.kind == "csv" else ""
    return Reply(status=status, headers=headers, body=rendered(row["body"].encode(), media, head))


def _location(table: Table, place: str) -> str:
    found = msgspec.json.decode(place)
    return f"/{table.name}?" + "&".join(f"{k}=eq.{v}" for k, v in zip(table.key, found, strict=True))


def _without_filters(shape: Shape) -> Shape:
    """Conditions on the table itself mean nothing to an insert."""
    return msgspec.structs.replace(
        shape, where=tuple(w for w in shape.where if w[0]), columns=None, on_conflict=None
    )


def _check_filtered(shape: Shape, what: str) -> None:
    if not any(not at for at, _ in shape.where):
        raise BadRequest(
            f"{what} requires a WHERE clause",
            hint="Filter the rows; id=not.is.null means all",
            rest_code="21000",
        )


# one row by its address


def _identity(table: Table, query: Query) -> dict[str, str]:
    """The key that a PUT's filters spell. Raises MethodNotAllowed PGRST105."""
    found: dict[str, str] = {}
    sound = bool(table.key)
    for at, condition in query.shape.where:
        sound = (
            sound
            and not at
            and isinstance(condition, Filter)
            and condition.op == "eq"
            and not (condition.negated or condition.quantifier or condition.path.steps)
            and condition.path.column not in found
        )
        if sound and isinstance(condition, Filter):
            found[condition.path.column] = query.values[condition.value]
    if not sound or set(table.with_tenant(table.key)) != set(table.with_tenant(tuple(found))):
        raise MethodNotAllowed(
            "Filters must include all and only primary key columns with 'eq' operators",
            headers={"Allow": "OPTIONS, GET, HEAD, POST, PUT, PATCH, DELETE"},
            rest_code="PGRST105",
        )
    return found


def _is_value(given: msgspec.Raw | None, wanted: str) -> bool:
    if given is None:
        return False
    value = _anything.decode(given)
    return (value if isinstance(value, str) else bytes(given).decode()).lower() == wanted.lower()


# secrets


def _split_secrets(table: Table, body: Rows, row: Row) -> sealed.Split:
    """Take the secrets of one row out of what will be stored."""
    column = sealed.COLUMNS[table.name]
    found = sealed.split(_anything.decode(row[column]))
    row[column] = msgspec.Raw(_encode(found.shown))
    body.change()
    return found


def _secrets_of_new(table: Table, body: Rows, names: list[str]) -> dict[str, sealed.Split]:
    """By id. The ids are chosen here, because they are part of what a secret is bound to."""
    found: dict[str, sealed.Split] = {}
    if sealed.COLUMNS.get(table.name) not in names:
        return found
    for row in body.rows:
        if "id" not in row:
            row["id"] = msgspec.Raw(_encode(str(uuid4())))
        identity = str(_anything.decode(row["id"])).lower()
        if sealed.COLUMNS[table.name] in row:
            found[identity] = _split_secrets(table, body, row)
    if "id" not in names:
        names.append("id")
    body.change()
    return found


async def _keep(
    conn: Connection, kit: Kit, table: Table, keys: str | None,
    found: dict[str, sealed.Split] | sealed.Split,
) -> None:  # fmt: skip
    """Of the rows that were written; a skipped one keeps what it has."""
    if not keys:
        return
    items = []
    for organization_id, id_ in msgspec.json.decode(keys):
        split = found.get(id_) if isinstance(found, dict) else found
        if split is not None:
            items.append(sealed.sealed_item(kit.settings, table.name, organization_id, id_, split))
    if items:
        await conn.execute(q.keep_secrets, table.name, _encode(items).decode())
