"""batch: up to 50 operations of /rest/v1 in one transaction, all of them or none.

    {"operations": [
      {"id": "c", "method": "POST", "path": "contacts?select=id", "body": {"first_name": "Mia"},
       "prefer": "return=representation"},
      {"method": "POST", "path": "deals", "body": {"title": "New", "contact_id": {"$ref": "c.0.id"}}}]}

A later operation refers to an earlier one's answer by `{"$ref": "<id or number>.<path>"}`, in its body or as
a piece of a `query` value. `{"$literal": …}` is taken as it stands.
"""

from __future__ import annotations

from typing import Any, Final, Literal
from urllib.parse import quote, unquote

import asyncpg
import msgspec
from aiohttp import web
from multidict import CIMultiDict

from hub.bodies import JSON_BYTES, decode_json, read_body
from hub.db.tenancy import acting_as, in_turn
from hub.domain.principal import Principal
from hub.errors import HubError, invalid
from hub.functions.calls import answer, require_organization
from hub.idempotency import Once
from hub.resources import ALLOWANCE, CATALOG, DB, PUBLISHER, RATE, SETTINGS
from hub.rest.calling import prepare_call
from hub.rest.deed import Ask, Kit
from hub.rest.handlers import PREPARE
from hub.rest.refusals import refusal
from hub.rest.reply import Reply

MOST: Final = 50
_ACCEPT: Final = {"array": "application/json", "object": "application/vnd.pgrst.object+json"}
_encode = msgspec.json.Encoder(uuid_format="canonical").encode
_anything = msgspec.json.Decoder(Any)


class _Reference(msgspec.Struct, forbid_unknown_fields=True):
    ref: str = msgspec.field(name="$ref")


class _Operation(msgspec.Struct, forbid_unknown_fields=True):
    """``query`` adds parameters to those of ``path``; a value may be made of pieces."""

    method: Literal["GET", "POST", "PATCH", "PUT", "DELETE"]
    path: str
    id: str | None = None
    query: dict[str, str | list[str | _Reference]] = {}
    body: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)
    prefer: str | None = None
    accept: Literal["array", "object"] = "array"


class Batch(msgspec.Struct, forbid_unknown_fields=True):
    """The body."""

    operations: list[_Operation]


_batch = msgspec.json.Decoder(Batch)


class _Result(msgspec.Struct):
    """One operation's answer. ``range`` is its Content-Range."""

    id: str | None
    status: int
    range: str | None
    body: msgspec.Raw


async def batch(request: web.Request, principal: Principal) -> web.Response:
    """Several operations on tables, all of them or none."""
    require_organization(principal)
    raw = await read_body(request, JSON_BYTES)
    operations = decode_json(raw, _batch, request.content_type).operations
    if not 1 <= len(operations) <= MOST:
        raise invalid("operations", f"must be 1 to {MOST}")
    names = [operation.id for operation in operations if operation.id is not None]
    if len(set(names)) < len(names) or any(name.isdigit() or "." in name for name in names):
        raise invalid("operations", "ids must differ, hold no dot and not be numbers")
    await _count(request, principal, len(operations))
    kit = Kit(await request.app[CATALOG].compiler(), principal, request.app[SETTINGS])
    once = Once.of(request, principal, raw)
    at = 0
    wakes = False

    async def work() -> web.Response:
        nonlocal at, wakes
        wakes = False
        async with acting_as(request.app[DB], principal) as conn:
            kept = await once.earlier(conn) if once is not None else None
            if kept is not None:
                return answer(kept.body.encode(), kept.status, repeated=True)
            results: dict[str, _Result] = {}
            for at, operation in enumerate(operations):
                deed = _prepare(kit, operation, results)
                if deed.rolls_back:
                    raise invalid("prefer", "tx=rollback is for single requests")
                reply = await deed.run(conn)
                wakes = wakes or deed.wakes
                results[str(at)] = _result(operation, reply)
                if operation.id is not None:
                    results[operation.id] = results[str(at)]
            at = len(operations)
            body = _encode({"success": True, "results": [results[str(n)] for n in range(at)]})
            if once is not None:
                await once.keep(conn, 200, body.decode())
        return answer(body)

    try:
        done = await in_turn(work)
    except (HubError, asyncpg.PostgresError) as error:
        raise _of_operation(error, at, operations) from error
    if wakes:
        request.app[PUBLISHER].wake("outbox")
    return done


async def _count(request: web.Request, principal: Principal, times: int) -> None:
    """Operations count as requests to tables. Raises RateLimited."""
    if principal.is_web or principal.organization_id is None:
        return
    limit = request.app[SETTINGS].rate_rest
    request[ALLOWANCE], refused = await request.app[RATE].hit(
        "rest", str(principal.organization_id), limit, times=times
    )
    if refused is not None:
        raise refused


def _prepare(kit: Kit, operation: _Operation, results: dict[str, _Result]) -> Any:
    path, _, query = operation.path.partition("?")
    path = unquote(path.removeprefix("/rest/v1/").strip("/"))
    parts = [query] if query else []
    for name, value in operation.query.items():
        pieces = value if isinstance(value, list) else [value]
        text = "".join(p if isinstance(p, str) else _as_text(_resolved(p.ref, results)) for p in pieces)
        parts.append(f"{quote(name, safe='')}={quote(text, safe='')}")
    headers = CIMultiDict({"Content-Type": "application/json", "Accept": _ACCEPT[operation.accept]})
    if operation.prefer is not None:
        headers["Prefer"] = operation.prefer
    ask = Ask(
        method=operation.method,
        name=path.removeprefix("rpc/"),
        query="&".join(parts),
        headers=headers,
        body=_body(operation.body, results),
    )
    return prepare_call(kit, ask) if path.startswith("rpc/") else PREPARE[operation.method](kit, ask)


def _body(raw: msgspec.Raw, results: dict[str, _Result]) -> bytes:
    """The body with its references resolved; without any, it stays as it was written."""
    text = bytes(raw)
    if b'"$ref"' not in text and b'"$literal"' not in text:
        return text
    return _encode(_filled(_anything.decode(text), results))


def _filled(value: Any, results: dict[str, _Result]) -> Any:
    if isinstance(value, list):
        return [_filled(inner, results) for inner in value]
    if isinstance(value, dict):
        if value.keys() == {"$ref"} and isinstance(value["$ref"], str):
            return _resolved(value["$ref"], results)
        if value.keys() == {"$literal"}:
            return value["$literal"]
        return {name: _filled(inner, results) for name, inner in value.items()}
    return value


def _resolved(reference: str, results: dict[str, _Result]) -> Any:
    """`c.0.id`: of operation c's answer, the first row's id. Raises ValidationFailed."""
    name, *path = reference.split(".")
    if name not in results:
        raise invalid("$ref", f"{reference[:80]!r}: no earlier operation is called {name[:80]!r}")
    value: Any = _anything.decode(results[name].body)
    for step in path:
        try:
            value = value[int(step)] if isinstance(value, list) else value[step]
        except (LookupError, TypeError, ValueError):
            raise invalid("$ref", f"{reference[:80]!r}: the answer has no {step[:80]!r}") from None
    return value


def _as_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if value is None or isinstance(value, (dict, list)):
        raise invalid("$ref", "a filter takes a text, a number or a truth value")
    return _encode(value).decode()


def _result(operation: _Operation, reply: Reply) -> _Result:
    body = reply.body if reply.body else b"null"
    return _Result(operation.id, reply.status, reply.headers.get("Content-Range"), msgspec.Raw(body))


def _of_operation(
    error: HubError | asyncpg.PostgresError, at: int, operations: list[_Operation]
) -> Exception:
    """The refusal of one operation is that of the whole, and says which it was."""
    told = refusal(error) if isinstance(error, asyncpg.PostgresError) else error
    if not isinstance(told, HubError) or at >= len(operations):
        return told
    operation = operations[at]
    told.details = {
        "operation": at, "id": operation.id, "code": told.rest_code, "message": told.message,
        "details": told.details,
    }  # fmt: skip
    told.message = f"Operation {at} ({operation.method} {operation.path[:80]}) failed; nothing was done"
    return told
