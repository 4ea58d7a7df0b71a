"""The audit log as a file: audit-log, JSON or CSV, as long as it is. (In pages it is a table:
/rest/v1/audit_log.)"""

from __future__ import annotations

import asyncio
import csv
import io
import re
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec
from aiohttp import web

from hub.db.tenancy import acting_as
from hub.domain.principal import Principal
from hub.edge import always
from hub.errors import invalid
from hub.resources import ALLOWANCE, DB, REQUEST_ID, SETTINGS
from sql import q

#: Each page is a transaction of its own: a slow reader holds no connection.
_PAGE: Final = 1000
_READER_S: Final = 30.0
_COLUMNS: Final = (
    "id", "at", "actor_kind", "actor_id", "actor_name", "action", "target_table", "target_id", "details",
    "ip", "request_id",
)  # fmt: skip
_ACTION: Final = re.compile(r"[a-z_]+(?:\.[a-z_]+)?", re.ASCII)
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
_encode = msgspec.json.Encoder(uuid_format="canonical").encode


class _Wanted(msgspec.Struct, frozen=True):
    format: str
    after: datetime | None
    before: datetime | None
    action: str | None
    actor_id: UUID | None


def _wanted(request: web.Request) -> _Wanted:
    """The query. Raises ValidationFailed."""
    given = dict(request.query)
    given.pop("apikey", None)
    unknown = sorted(set(given) - {"format", "after", "before", "action", "actor_id"})
    if unknown:
        raise invalid(unknown[0][:60], "is no parameter of audit-log")
    form = given.get("format", "json")
    if form not in ("json", "csv"):
        raise invalid("format", "must be json or csv")
    times: dict[str, datetime | None] = {}
    for name in ("after", "before"):
        try:
            times[name] = msgspec.convert(given[name], datetime) if name in given else None
        except msgspec.ValidationError as error:
            raise invalid(name, "must be a time such as 2026-01-31T00:00:00Z") from error
        found = times[name]
        if found is not None and found.tzinfo is None:
            raise invalid(name, "must name its time zone, such as 2026-01-31T00:00:00Z")
    action = given.get("action")
    if action is not None and not _ACTION.fullmatch(action):
        raise invalid("action", "must be an action or its beginning, such as api_key or api_key.revoked")
    try:
        actor = UUID(given["actor_id"]) if "actor_id" in given else None
    except ValueError as error:
        raise invalid("actor_id", "must be a uuid") from error
    return _Wanted(form, times["after"], times["before"], action, actor)


async def audit_log(request: web.Request, principal: Principal) -> web.StreamResponse:
    """Download the audit log, newest first: ?format=json|csv&after=&before=&action=&actor_id=. For owners and
    administrators; the download itself is in the log."""
    wanted = _wanted(request)
    async with acting_as(request.app[DB], principal) as conn:
        await conn.execute(q.note_export, "audit_log", _encode(wanted).decode())
        rows = await _page(conn, wanted, None)
    is_csv = wanted.format == "csv"
    response = web.StreamResponse()
    response.content_type, response.charset = ("text/csv" if is_csv else "application/json"), "utf-8"
    response.headers["Content-Disposition"] = f'attachment; filename="audit-log.{wanted.format}"'
    _dress(request, response)
    await response.prepare(request)
    if request.method != "HEAD":
        await _send(response, _csv([_COLUMNS]) if is_csv else b"[")
        is_first = True
        while rows:
            if is_csv:
                text = _csv([[_cell(row[name]) for name in _COLUMNS] for row in rows])
            else:
                text = (b"" if is_first else b",\n") + b",\n".join(_encode(_document(row)) for row in rows)
            await _send(response, text)
            is_first = False
            if len(rows) < _PAGE:
                break
            async with acting_as(request.app[DB], principal, read_only=True) as conn:
                rows = await _page(conn, wanted, rows[-1]["id"])
        if not is_csv:
            await _send(response, b"]\n")
    async with asyncio.timeout(_READER_S):
        await response.write_eof()
    return response


async def _send(response: web.StreamResponse, data: bytes) -> None:
    """A part of the answer. Raises TimeoutError for a reader who takes none for half a minute."""
    async with asyncio.timeout(_READER_S):
        await response.write(data)


def _dress(request: web.Request, response: web.StreamResponse) -> None:
    """A stream is on its way before the edge could add its headers."""
    always(response, request[REQUEST_ID], request.app[SETTINGS].secure)
    response.headers["Access-Control-Allow-Origin"] = "*"
    if ALLOWANCE in request:
        response.headers.update(request[ALLOWANCE].headers())


async def _page(conn: Any, wanted: _Wanted, below: UUID | None) -> list[Any]:
    rows: list[Any] = await conn.fetch(
        q.page_audit, wanted.after, wanted.before, below, _PAGE, wanted.action, wanted.actor_id
    )
    return rows


def _document(row: Any) -> dict[str, Any]:
    return {name: msgspec.Raw(row[name].encode()) if name == "details" else row[name] for name in _COLUMNS}


def _cell(value: Any) -> str:
    """No spreadsheet takes it for a formula."""
    text = "" if value is None else value.isoformat() if isinstance(value, datetime) else str(value)
    return f"'{text}" if text.startswith(_FORMULA) else text


def _csv(rows: list[Any]) -> bytes:
    out = io.StringIO()
    csv.writer(out, lineterminator="\r\n").writerows(rows)
    return out.getvalue().encode()
