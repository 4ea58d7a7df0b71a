"""/rest/v1/<table>: the stages of a request, in the order that decides which error wins.

who → table → profile → query string → body → permission → one statement as the caller → Postgres's JSON,
untouched
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any, Final
from uuid import uuid4

import asyncpg
import msgspec
from aiohttp import web

from hub.auth.callers import admit
from hub.bodies import JSON_BYTES, check_json, read_body
from hub.db.tenancy import acting_as, in_turn
from hub.domain.permissions import Verb, missing
from hub.domain.principal import Principal
from hub.errors import (
    BadRequest,
    HubError,
    InsufficientPermissions,
    MethodNotAllowed,
    NotAcceptable,
    NotFound,
    RangeNotSatisfiable,
    from_database,
)
from hub.idempotency import REPLAYED, Kept, Once
from hub.metrics import REST_SECONDS
from hub.resources import CATALOG, DB, PUBLISHER, SETTINGS
from hub.rest import render, sealed
from hub.rest.catalog import Table
from hub.rest.grammar import (
    DEFAULT_LIMIT,
    LARGEST_LIMIT,
    Item,
    Path,
    Prefer,
    Query,
    parse_prefer,
    parse_query,
)
from sql import q

_OBJECT: Final = "application/vnd.pgrst.object"
_ARRAY_TYPE: Final = "application/json; charset=utf-8"
_OBJECT_TYPE: Final = "application/vnd.pgrst.object+json; charset=utf-8"
_METHODS: Final = "OPTIONS,GET,HEAD,POST,PATCH,DELETE"
_EVERYTHING: Final = (Item(None),)
#: Inserts inside the caller's transaction and gives (body, rows, inserted).
Write = Callable[["asyncpg.Connection[asyncpg.Record]"], Awaitable[tuple[str, int, int]]]
_rows = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])
_row = msgspec.json.Decoder(dict[str, msgspec.Raw])
_anything = msgspec.json.Decoder(Any)
_encode = msgspec.json.Encoder(uuid_format="canonical").encode


def routes() -> list[web.RouteDef]:
    return [
        web.route("*", "/rest/v1/{table}", handle),
        web.route("*", "/rest/v1/{table}/{more:.*}", _too_deep),
    ]


async def _too_deep(request: web.Request) -> web.Response:
    await admit(request, "rest")
    raise NotFound("There is nothing below a table", rest_code="PGRST125")


async def handle(request: web.Request) -> web.Response:
    """See the module."""
    if request.method == "OPTIONS":
        await request.app[CATALOG].table(request.match_info["table"])
        return web.Response(headers={"Allow": _METHODS})
    principal = await admit(request, "rest")
    table = await request.app[CATALOG].table(request.match_info["table"])
    _check_profile(request)
    verbs: dict[str, Verb] = {
        "GET": "read",
        "HEAD": "read",
        "POST": "insert",
        "PATCH": "update",
        "DELETE": "delete",
    }
    verb = verbs.get(request.method)
    if verb is None:
        raise MethodNotAllowed("Unsupported HTTP method", details={"allowed": _METHODS.split(",")})
    query = parse_query(request.rel_url.raw_query_string)
    prefer = parse_prefer(request.headers.getall("Prefer", ()))
    single = _wants_object(request)
    started = time.perf_counter()
    try:
        if verb == "read":
            return await _read(request, principal, table, query, prefer, single)
        if verb == "insert":
            return await _insert(request, principal, table, query, prefer, single)
        if verb == "update":
            return await _update(request, principal, table, query, prefer, single)
        return await _delete(request, principal, table, query, prefer, single)
    except asyncpg.PostgresError as error:
        raise _refusal(error) from error
    finally:
        REST_SECONDS.labels(table.name, verb).observe(time.perf_counter() - started)


async def _read(
    request: web.Request, principal: Principal, table: Table, query: Query, prefer: Prefer, single: bool
) -> web.Response:
    _check_permission(principal, table, "read")
    asked = min(query.limit if query.limit is not None else DEFAULT_LIMIT, LARGEST_LIMIT)
    offset, limit = _range(request, query, asked)
    counted = prefer.count is not None
    statement = render.read(
        table,
        msgspec.structs.replace(query, offset=offset),
        limit=limit,
        count=counted,
        body=request.method != "HEAD",
    )
    async with acting_as(request.app[DB], principal, read_only=True) as conn:
        row = await conn.fetchrow(statement.text, *statement.args)
    assert row is not None
    rows, total = row["rows"], row["total"] if counted else None
    if total is not None and offset > total:
        raise _OutOfRange(total)
    status = 206 if total is not None and rows < total else 200
    headers = {"Content-Range": _content_range(offset, rows, total), "Vary": "Accept, Prefer, Range"}
    _note_applied(headers, prefer, "count")
    return _answer(row["body"], rows, single, status, headers)


async def _insert(
    request: web.Request, principal: Principal, table: Table, query: Query, prefer: Prefer, single: bool
) -> web.Response:
    _check_permission(principal, table, "insert")
    if prefer.resolution == "merge-duplicates":
        _check_permission(principal, table, "update")
    raw, rows = await _body_rows(request)
    names = _names(table, rows, query)
    returning = _returning(table, query, prefer)
    if not rows:
        headers = {"Content-Range": "*/*"}
        return _write_answer(201, "[]" if returning else None, 0, single, headers, prefer)
    settings = sealed.COLUMNS.get(table.name)
    if settings is not None and settings in names:
        write = _sealed_write(request, table, query, prefer, rows, names)
    else:
        write = _plain_write(
            render.insert(table, query, names, raw, resolution=prefer.resolution, returning=returning)
        )
    what = (request.rel_url.raw_query_string, *prefer.applied, "object" if single else "array")
    given = Once.of(request, principal, raw.encode(), *what)

    async def work() -> web.Response:
        async with acting_as(request.app[DB], principal) as conn:
            kept = await given.earlier(conn) if given is not None else None
            if kept is not None:
                return _replayed(kept)
            body, written, inserted = await write(conn)
            _check_single(written, single)
            answer = _inserted(table, prefer, single, body, written, inserted, returning is not None)
            if given is not None:
                await given.keep(conn, answer.status, _to_keep(answer))
        return answer

    answer = await in_turn(work)
    _wake_workers(request, table, names)
    return answer


def _plain_write(statement: render.Statement) -> Write:
    async def write(conn: asyncpg.Connection[asyncpg.Record]) -> tuple[str, int, int]:
        row = await conn.fetchrow(statement.text, *statement.args)
        assert row is not None
        return row["body"], row["rows"], row["inserted"]

    return write


class _KeptAnswer(msgspec.Struct):
    """An answer under an Idempotency-Key."""

    headers: dict[str, str]
    body: str | None


_kept_answer = msgspec.json.Decoder(_KeptAnswer)


def _to_keep(answer: web.Response) -> str:
    body = answer.body.decode() if isinstance(answer.body, bytes) else None
    return _encode(_KeptAnswer(dict(answer.headers), body)).decode()


def _replayed(kept: Kept) -> web.Response:
    found = _kept_answer.decode(kept.body)
    return web.Response(
        body=found.body.encode() if found.body is not None else None,
        status=kept.status,
        headers={**found.headers, **REPLAYED},
    )


def _wake_workers(request: web.Request, table: Table, names: list[str]) -> None:
    """A message that was inserted or set to PENDING is to be sent now, not at the workers' next look."""
    if table.name == "messages" and (request.method == "POST" or "status" in names):
        request.app[PUBLISHER].wake("outbox")


def _inserted(
    table: Table, prefer: Prefer, single: bool, body: str, rows: int, inserted: int, represented: bool
) -> web.Response:
    merged = prefer.resolution == "merge-duplicates" and inserted == 0
    headers = {"Content-Range": f"*/{rows}" if prefer.count else "*/*"}
    if prefer.returns == "headers-only":
        found = msgspec.json.decode(body)
        if len(found) == 1:
            place = "&".join(f"{k}=eq.{v}" for k, v in found[0].items())
            headers["Location"] = f"/{table.name}?{place}"
        represented = False
    return _write_answer(200 if merged else 201, body if represented else None, rows, single, headers, prefer)


async def _update(
    request: web.Request, principal: Principal, table: Table, query: Query, prefer: Prefer, single: bool
) -> web.Response:
    _check_permission(principal, table, "update")
    raw, rows = await _body_rows(request)
    if len(rows) != 1:
        raise BadRequest("The body must be one JSON object", rest_code="PGRST102")
    if not query.where:
        raise _unfiltered("UPDATE")
    names = _names(table, rows, query)
    returning = _returning(table, query, prefer)
    if not names:
        headers = {"Content-Range": "*/*"}
        return _write_answer(
            200 if returning else 204, "[]" if returning else None, 0, single, headers, prefer
        )
    found = None
    if table.name in sealed.COLUMNS and sealed.COLUMNS[table.name] in names:
        found = sealed.split(_anything.decode(rows[0][sealed.COLUMNS[table.name]]))
        rows[0][sealed.COLUMNS[table.name]] = msgspec.Raw(_encode(found.shown))
    body = raw if found is None and raw.startswith("{") else _encode(rows[0]).decode()
    statement = render.update(
        table, query, names, body, returning=returning if found is None else _EVERYTHING
    )

    async def work() -> tuple[str, int]:
        async with acting_as(request.app[DB], principal) as conn:
            row = await conn.fetchrow(statement.text, *statement.args)
            assert row is not None
            text = row["body"]
            if found is not None:
                written = msgspec.json.decode(text)
                await _keep(request, conn, table, [(r, found) for r in written])
                text = _project(table, written, returning)
            _check_single(row["rows"], single)
        return text, row["rows"]

    text, n = await in_turn(work)
    _wake_workers(request, table, names)
    counted = str(n) if prefer.count else "*"
    headers = {"Content-Range": f"0-{n - 1}/{counted}" if n else f"*/{counted}"}
    represented = returning is not None
    return _write_answer(
        200 if represented else 204, text if represented else None, n, single, headers, prefer
    )


async def _delete(
    request: web.Request, principal: Principal, table: Table, query: Query, prefer: Prefer, single: bool
) -> web.Response:
    _check_permission(principal, table, "delete")
    if not query.where:
        raise _unfiltered("DELETE")
    returning = _returning(table, query, prefer)
    statement = render.delete(table, query, returning=returning)

    async def work() -> asyncpg.Record:
        async with acting_as(request.app[DB], principal) as conn:
            row = await conn.fetchrow(statement.text, *statement.args)
            assert row is not None
            _check_single(row["rows"], single)
        return row

    row = await in_turn(work)
    headers = {"Content-Range": f"*/{row['rows']}" if prefer.count else "*/*"}
    represented = returning is not None
    return _write_answer(
        200 if represented else 204,
        row["body"] if represented else None,
        row["rows"],
        single,
        headers,
        prefer,
    )


def _sealed_write(
    request: web.Request,
    table: Table,
    query: Query,
    prefer: Prefer,
    rows: list[dict[str, msgspec.Raw]],
    names: list[str],
) -> Write:
    """Of rows with secrets: the id is chosen here, because it is part of what a secret is bound to."""
    column = sealed.COLUMNS[table.name]
    found: dict[str, sealed.Split] = {}
    for row in rows:
        if "id" not in row:
            row["id"] = msgspec.Raw(_encode(str(uuid4())))
        identity = str(_anything.decode(row["id"])).lower()
        if column in row:
            found[identity] = sealed.split(_anything.decode(row[column]))
            row[column] = msgspec.Raw(_encode(found[identity].shown))
    if "id" not in names:
        names = [*names, "id"]
    statement = render.insert(
        table, query, names, _encode(rows).decode(), resolution=prefer.resolution, returning=_EVERYTHING
    )

    async def write(conn: asyncpg.Connection[asyncpg.Record]) -> tuple[str, int, int]:
        row = await conn.fetchrow(statement.text, *statement.args)
        assert row is not None
        written = msgspec.json.decode(row["body"])
        await _keep(request, conn, table, [(r, found[r["id"]]) for r in written if r["id"] in found])
        return _project(table, written, _returning(table, query, prefer)), row["rows"], row["inserted"]

    return write


async def _keep(
    request: web.Request,
    conn: asyncpg.Connection[asyncpg.Record],
    table: Table,
    written: list[tuple[dict[str, Any], sealed.Split]],
) -> None:
    items = [
        sealed.sealed_item(
            request.app[SETTINGS], table.name, r.get("organization_id", r["id"]), r["id"], found
        )
        for r, found in written
    ]
    if items:
        await conn.execute(q.keep_secrets, table.name, _encode(items).decode())


def _project(table: Table, written: list[dict[str, Any]], returning: tuple[Item, ...] | None) -> str:
    """The asked-for columns of rows that had to be read whole; paths and casts are answered with the
    column."""
    if returning is None:
        return ""
    wanted: dict[str, str] = {}
    for item in returning:
        if item.path is None:
            wanted |= {n: n for n in table.columns}
        else:
            wanted[item.alias or item.path.column] = item.path.column
    return _encode([{name: row.get(column) for name, column in wanted.items()} for row in written]).decode()


async def _body_rows(request: web.Request) -> tuple[str, list[dict[str, msgspec.Raw]]]:
    """The body as a JSON array's text, and its objects with members left undecoded. PATCH gets the object's
    own text."""
    if request.content_type not in ("application/json", "application/octet-stream", "text/plain") and (
        not request.content_type.endswith("+json")
    ):
        raise BadRequest(f"Content-Type {request.content_type[:80]} is not accepted", rest_code="PGRST102")
    raw = (await read_body(request, JSON_BYTES)).strip()
    check_json(raw)
    try:
        if raw.startswith(b"["):
            return raw.decode(), _rows.decode(raw)
        if raw.startswith(b"{"):
            text = raw.decode()
            return text if request.method == "PATCH" else f"[{text}]", [_row.decode(raw)]
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRequest(
            "The body is not a JSON object or an array of objects", rest_code="PGRST102"
        ) from error
    raise BadRequest("The body must be a JSON object or an array of objects", rest_code="PGRST102")


def _names(table: Table, rows: list[dict[str, msgspec.Raw]], query: Query) -> list[str]:
    """The columns that are written. Raises BadRequest PGRST204 for an unknown one, PGRST102 for rows of
    different keys."""
    if query.columns is not None:
        names = list(dict.fromkeys(query.columns))
    else:
        names = list(rows[0]) if rows else []
        if any(row.keys() != rows[0].keys() for row in rows[1:]):
            raise BadRequest("All object keys must match", rest_code="PGRST102")
    for name in names:
        if name not in table.columns:
            raise BadRequest(
                f"Could not find the '{name[:80]}' column of '{table.name}' in the schema cache",
                rest_code="PGRST204",
            )
    return names


def _returning(table: Table, query: Query, prefer: Prefer) -> tuple[Item, ...] | None:
    if prefer.returns == "representation":
        return query.select
    if prefer.returns == "headers-only":
        return tuple(Item(Path(name)) for name in table.public_key)
    return None


def _check_permission(principal: Principal, table: Table, verb: Verb) -> None:
    """Tell a caller that a whole resource is closed to him, instead of showing him nothing."""
    if principal.kind == "service":
        return
    if principal.kind == "anon":
        if verb == "read":
            return
        raise InsufficientPermissions("Sign in to write", details={"missing": []})
    if principal.organization_id is None and verb == "read":
        return
    lacking = missing(table.name, verb, principal.role, principal.permissions)
    if lacking is not None:
        raise InsufficientPermissions(
            f"You may not {verb} {table.name}",
            details={"missing": list(lacking)},
            hint="Ask an administrator of your organization",
        )


def _check_profile(request: web.Request) -> None:
    header = "Accept-Profile" if request.method in ("GET", "HEAD") else "Content-Profile"
    profile = request.headers.get(header, "public")
    if profile != "public":
        raise NotAcceptable("Only the schema public is exposed", rest_code="PGRST106")


def _wants_object(request: web.Request) -> bool:
    accept = request.headers.get("Accept", "*/*")
    if _OBJECT in accept:
        return True
    kinds = {part.partition(";")[0].strip().lower() for part in accept.split(",")}
    if kinds & {
        "*/*",
        "application/*",
        "application/json",
        "application/vnd.pgrst.array+json",
        "application/vnd.pgrst.array",
        "",
    }:
        return False
    raise NotAcceptable("None of these media types is available", details=", ".join(sorted(kinds))[:200])


def _range(request: web.Request, query: Query, limit: int) -> tuple[int, int]:
    """Offset and limit, cut by a Range header of the form `a-b` or `a-`. Raises RangeNotSatisfiable for
    `9-0`."""
    header = request.headers.get("Range", "")
    first, dash, last = header.partition("-")
    if not dash or not first.isdecimal() or (last and not last.isdecimal()) or len(header) > 40:
        return query.offset, limit
    low = max(query.offset, int(first))
    if last:
        if int(last) < int(first):
            raise RangeNotSatisfiable("The lower boundary must be at most the upper boundary")
        limit = min(limit, max(0, int(last) - low + 1))
    return low, min(limit, max(0, query.offset + limit - low)) if query.limit is not None else limit


def _content_range(offset: int, rows: int, total: int | None) -> str:
    place = f"{offset}-{offset + rows - 1}" if rows else "*"
    return f"{place}/{total if total is not None else '*'}"


def _check_single(rows: int, single: bool) -> None:
    if single and rows != 1:
        raise NotAcceptable(
            "Cannot coerce the result to a single JSON object",
            details=f"The result contains {rows} rows",
            rest_code="PGRST116",
        )


def _answer(body: str, rows: int, single: bool, status: int, headers: dict[str, str]) -> web.Response:
    _check_single(rows, single)
    if single and body:
        body = _only_element(body)
    return web.Response(
        body=body.encode(),
        status=status,
        headers={**headers, "Content-Type": _OBJECT_TYPE if single else _ARRAY_TYPE},
    )


def _write_answer(
    status: int, body: str | None, rows: int, single: bool, headers: dict[str, str], prefer: Prefer
) -> web.Response:
    _note_applied(headers, prefer, "resolution", "return", "count")
    if body is None:
        return web.Response(status=status, headers=headers)
    return _answer(body, rows, single, status, headers)


def _only_element(array: str) -> str:
    """The one object inside a JSON array's text."""
    return array.strip()[1:-1].strip()


def _note_applied(headers: dict[str, str], prefer: Prefer, *families: str) -> None:
    applied = [a for a in prefer.applied if a.partition("=")[0] in families]
    if applied:
        headers["Preference-Applied"] = ", ".join(applied)


def _unfiltered(what: str) -> BadRequest:
    return BadRequest(
        f"{what} requires a WHERE clause", hint="Filter the rows; id=not.is.null means all", rest_code="21000"
    )


class _OutOfRange(RangeNotSatisfiable):
    def __init__(self, total: int) -> None:
        super().__init__(
            "Requested range not satisfiable", details=f"There are {total} rows", rest_code="PGRST103"
        )


#: Mistakes of the caller that Postgres finds, with PostgREST's status.
_CALLERS_MISTAKES: Final = {
    "42703": BadRequest,  # no such column
    "42702": BadRequest,  # ambiguous column
    "42701": BadRequest,  # the same column twice
    "42804": BadRequest,  # wrong type
    "42846": BadRequest,  # cannot cast
    "42P10": BadRequest,  # no unique key for on_conflict
    "42P18": BadRequest,
    "428C9": BadRequest,  # generated column
    "42883": NotFound,  # no such operator for these types
    "42725": BadRequest,
    "55000": MethodNotAllowed,  # a view that cannot be written like this
    "21000": BadRequest,  # the same key twice in one upsert
    "0A000": BadRequest,
    "P0001": BadRequest,
}


def _refusal(error: asyncpg.PostgresError) -> HubError | asyncpg.PostgresError:
    """The database's answer in PostgREST's words; DETAIL and HINT stay inside."""
    state = getattr(error, "sqlstate", "") or ""
    refusal = from_database(error)
    if refusal is None and state in _CALLERS_MISTAKES:
        refusal = _CALLERS_MISTAKES[state](str(error).split("\n")[0], rest_code=state)
    return refusal or error
