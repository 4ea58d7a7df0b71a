"""GET and HEAD of a table."""

from __future__ import annotations

from hub.errors import RangeNotSatisfiable
from hub.rest.deed import (
    Ask,
    Connection,
    Deed,
    Kit,
    check_permission,
    check_reads,
    in_timezone,
    media_of,
    table_of,
)
from hub.rest.grammar import parse_query
from hub.rest.media import Media
from hub.rest.prefer import Prefer
from hub.rest.reply import (
    VARY,
    Reply,
    check_offset,
    check_single,
    content_range,
    csv_line,
    read_status,
    rendered,
)
from hub.rest.statement import DEFAULT_LIMIT, LARGEST_LIMIT, Format, names_of
from hub.rest.tree import Query


def prepare_read(kit: Kit, ask: Ask) -> Deed:
    """Raises what is wrong with the question."""
    query = parse_query(ask.query)
    prefer = ask.prefer()
    offset, limit = window(query, ask.headers.get("Range", "") if ask.method == "GET" else "")
    table = table_of(kit, ask)
    media = media_of(kit, ask, table, query.shape)
    # `planned` and `estimated` are counted too: the planner's numbers are made of everybody's rows, and would
    # tell what the neighbours have
    counted = prefer.count is not None
    context = kit.context if prefer.timezone is None else None  # a zone lasts as long as a transaction
    plan, statement = kit.compiler.read(
        table.name, query.shape, format_of(media, ask.method), counted, context is not None
    )
    check_permission(kit.principal, table.name, "read")
    check_reads(kit.principal, plan.reads)
    arguments = statement.bind(query.values, limit=limit, offset=offset, context=context)

    async def run(conn: Connection) -> Reply:
        await in_timezone(conn, prefer)
        row = await conn.fetchrow(statement.text, *arguments)
        assert row is not None
        rows: int = row["n"]
        total: int | None = row["total"] if counted else None
        check_offset(offset, total)
        check_single(rows, media)
        head = csv_line(names_of(plan.root)) if media.kind == "csv" else ""
        return read_reply(row["body"], rows, offset, total, media, prefer, ask, head)

    return Deed(name=table.name, verb="read", run=run, reads_only=True, context=context)


def read_reply(
    body: bytes, rows: int, offset: int, total: int | None, media: Media, prefer: Prefer, ask: Ask, head: str
) -> Reply:
    headers = {
        "Content-Range": content_range(offset, rows, total),
        "Content-Type": media.content_type,
        "Vary": VARY,
    }
    applied = prefer.applied("read")
    if applied:
        headers["Preference-Applied"] = applied
    made = None if ask.method == "HEAD" else rendered(body, media, head)
    return Reply(status=read_status(rows, total), headers=headers, body=made)


def format_of(media: Media, method: str = "GET") -> Format:
    if method == "HEAD":
        return "none"
    if media.kind == "csv":
        return "csv"
    return "stripped" if media.strips_nulls else "json"


def window(query: Query, range_: str) -> tuple[int, int]:
    """Offset and limit, cut by a Range header of the form `a-b` or `a-`. Raises RangeNotSatisfiable for
    `9-0`.

    >>> window(Query(limit=10, offset=5), "8-99")
    (8, 7)
    """
    limit = DEFAULT_LIMIT if query.limit is None else query.limit
    first, dash, last = range_.partition("-") if len(range_) <= 40 else ("", "", "")
    if not dash or not _is_number(first) or (last and not _is_number(last)):
        return query.offset, min(limit, LARGEST_LIMIT)
    low = max(query.offset, int(first))
    if last:
        if int(last) < int(first):
            raise RangeNotSatisfiable(
                "Requested range not satisfiable",
                details="The lower boundary must be lower than or equal to the upper boundary in the Range "
                "header.",
            )
        span = max(0, int(last) - low + 1)
        limit = span if query.limit is None else min(limit, span)
    if query.limit is not None:
        limit = min(limit, max(0, query.offset + query.limit - low))
    return low, min(limit, LARGEST_LIMIT)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 18
