"""/rest/v1/rpc/<function>: the functions of the schema public, as the caller.

Which of several of one name is decided by the names of the arguments. A function that returns rows takes
select, filters, order, limit and embeds as a table does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from hub.bodies import check_json
from hub.errors import BadRequest, MethodNotAllowed, NotFound
from hub.rest.body import read_rows
from hub.rest.deed import Ask, Connection, Deed, Kit, check_reads, in_timezone, may_roll_back
from hub.rest.grammar import parse_call, parse_query
from hub.rest.media import Media
from hub.rest.plan import Ambiguous, make_plan
from hub.rest.prefer import Prefer
from hub.rest.reading import format_of, window
from hub.rest.refusals import DatabaseRefusal
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
from hub.rest.schema import Function, Table
from hub.rest.statement import (
    BODY,
    LIMIT,
    OFFSET,
    Format,
    Statement,
    Writer,
    body_of,
    names_of,
    quote,
    table_name,
)
from hub.rest.tree import Query

_encode = msgspec.json.Encoder(uuid_format="canonical").encode
_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
#: What a function may say about its answer.
_SAID: Final = (
    "nullif(current_setting('response.status', true), '') as status, "
    "nullif(current_setting('response.headers', true), '') as headers"
)


def prepare_call(kit: Kit, ask: Ask) -> Deed:
    """Raises NotFound PGRST202, Ambiguous PGRST203, BadRequest."""
    if ask.method not in ("GET", "HEAD", "POST"):
        raise MethodNotAllowed(
            "Cannot use this method on a function", details={"allowed": ["GET", "HEAD", "POST", "OPTIONS"]},
            rest_code="PGRST101",
        )  # fmt: skip
    posted = ask.method == "POST"
    query = parse_query(ask.query) if posted else parse_call(ask.query)
    given = dict(query.arguments)
    prefer = ask.prefer()
    offset, limit = window(query, ask.headers.get("Range", "") if ask.method == "GET" else "")
    function, arguments = _choose(kit, ask, given, posted)
    media = ask.media(one_value=not function.is_rows and not function.is_set)
    head_only = ask.method == "HEAD" or (posted and prefer.returns == "minimal" and _wants_head(prefer))
    if prefer.most_affected is not None and not function.is_set:
        raise BadRequest(
            "Function must return SETOF or TABLE when max-affected preference is used with handling=strict",
            rest_code="PGRST128",
        )
    maker = _Maker(kit, function, arguments, query)
    format_ = "none" if head_only else format_of(media)
    statement = maker.rows(format_) if function.is_rows else maker.value(media, format_)
    check_reads(kit.principal, maker.reads)
    bound = statement.bind((*query.values, *maker.values), limit=limit, offset=offset, body=maker.body)
    counted = prefer.count is not None and function.is_rows

    async def run(conn: Connection) -> Reply:
        await in_timezone(conn, prefer)
        row = await conn.fetchrow(statement.text, *bound)
        assert row is not None
        n: int = row["n"]
        if prefer.most_affected is not None and n > prefer.most_affected:
            raise BadRequest(
                "Query result exceeds max-affected preference constraint",
                details=f"The query affects {n} rows",
                rest_code="PGRST124",
            )
        reply = _reply(ask, function, maker.names, media, prefer, row, offset, counted, head_only, kit)
        return _as_said(reply, row["status"], row["headers"])

    return Deed(
        name=f"rpc/{function.name}", verb="call", run=run, reads_only=not (posted and function.is_volatile),
        rolls_back=prefer.rolls_back and may_roll_back(kit),
    )  # fmt: skip


def _wants_head(prefer: Prefer) -> bool:
    """`rpc(…, {head: true})` with arguments is a POST that wants no body."""
    return prefer.count is not None


def _reply(
    ask: Ask, function: Function, names: Sequence[str], media: Media, prefer: Prefer, row: Any, offset: int,
    counted: bool, head_only: bool, kit: Kit,
) -> Reply:  # fmt: skip
    n: int = row["n"]
    if function.returns == "void":
        return Reply(status=204, headers={})
    total: int | None = row["total"] if counted else None
    check_offset(offset, total)
    if function.is_rows or function.is_set:
        check_single(n, media)
    headers = {"Content-Type": media.content_type, "Vary": VARY}
    if function.is_rows:
        headers["Content-Range"] = content_range(offset, n, total)
    applied = prefer.applied("call", may_roll_back=may_roll_back(kit))
    if applied:
        headers["Preference-Applied"] = applied
    if head_only:
        return Reply(status=read_status(n, total), headers=headers)
    body = row["body"]
    if media.kind in ("text", "binary", "xml"):
        made: bytes = (body or "").encode()
    elif function.is_set or media.kind == "csv":
        made = rendered(body.encode(), media, csv_line(list(names)))
    else:
        made = (body if body is not None else "null").encode()
        if function.is_rows:
            made = rendered(made, msgspec.structs.replace(media, kind="object"))
    return Reply(status=read_status(n, total), headers=headers, body=made)


def _as_said(reply: Reply, status: str | None, headers: str | None) -> Reply:
    """What the function set in response.status and response.headers."""
    if status is not None:
        if not (status.isascii() and status.isdigit() and 200 <= int(status) <= 599):
            raise DatabaseRefusal("response.status is no HTTP status", status=500, rest_code="PGRST112")
        reply.status = int(status)
    if headers is not None:
        try:
            for pair in msgspec.json.decode(headers, type=list[dict[str, str]]):
                for name, value in pair.items():
                    if not (name.isascii() and name.replace("-", "").isalnum() and value.isprintable()):
                        raise ValueError(name)
                    reply.headers[name] = value
        except (msgspec.DecodeError, ValueError) as error:
            raise DatabaseRefusal(
                "response.headers must be a JSON array of objects with one text each", status=500,
                rest_code="PGRST111",
            ) from error  # fmt: skip
    return reply


# which function, with what


class _Arguments(msgspec.Struct):
    """``texts``: by name, from an address. ``body``: a JSON object, or the whole body of a function that
    takes it."""

    names: tuple[str, ...] = ()
    texts: dict[str, str] = {}
    body: str | None = None


def _choose(kit: Kit, ask: Ask, given: dict[str, str], posted: bool) -> tuple[Function, _Arguments]:
    functions = kit.compiler.schema.functions.get(ask.name, ())
    if posted:
        whole = [f for f in functions if f.takes_the_body]
        if len(functions) == 1 and whole:
            return whole[0], _Arguments(body=ask.body.decode())
        arguments = _from_body(ask)
    else:
        arguments = _Arguments(tuple(given), given)
    names = frozenset(arguments.names)
    fits = [f for f in functions if _fits(f, names)]
    if len(fits) == 1:
        return fits[0], arguments
    asked = f"public.{ask.name[:80]}({', '.join(sorted(names))[:200]})"
    if fits:
        raise Ambiguous(
            f"Could not choose the best candidate function between: {len(fits)} of the name {ask.name}",
            hint="Give other argument names, or rename the functions",
            rest_code="PGRST203",
        )
    raise NotFound(
        f"Could not find the function {asked} in the schema cache",
        details=f"Searched for the function {asked} "
        + ("with parameters" if names else "without parameters")
        + ", but no matches were found in the schema cache.",
        hint=_nearest(functions) or _known(kit),
        rest_code="PGRST202",
    )


def _fits(function: Function, names: frozenset[str]) -> bool:
    if function.takes_the_body:
        return False
    required = {a.name for a in function.arguments if a.is_required}
    return required <= names <= {a.name for a in function.arguments}


def _nearest(functions: tuple[Function, ...]) -> str | None:
    if not functions:
        return None
    names = ", ".join(a.name for a in functions[0].arguments)
    return f"Perhaps you meant to call the function public.{functions[0].name}({names})"


def _known(kit: Kit) -> str:
    return f"There are: {', '.join(sorted(kit.compiler.schema.functions))}"


def _from_body(ask: Ask) -> _Arguments:
    raw = ask.body.strip()
    if not raw:
        return _Arguments()
    if ask.content_type in ("application/x-www-form-urlencoded", "text/csv"):
        rows = read_rows(raw, ask.content_type)
        text = rows.first if rows.rows else "{}"
        return _Arguments(tuple(rows.rows[0]) if rows.rows else (), body=text)
    check_json(raw)
    try:
        found = _object.decode(raw)
    except msgspec.DecodeError as error:
        raise BadRequest(
            "The arguments must be a JSON object", details=str(error)[:200], rest_code="PGRST102"
        ) from error
    return _Arguments(tuple(found), body=raw.decode())


# its statement


class _Maker:
    """One call's statement."""

    def __init__(self, kit: Kit, function: Function, arguments: _Arguments, query: Query) -> None:
        self.kit, self.function, self.query = kit, function, query
        self.values = tuple(arguments.texts.values())
        self.body = arguments.body
        self.arguments = arguments
        self.reads: frozenset[str] = frozenset()
        self.names: Sequence[str] = (function.name,)

    def _call(self, writer: Writer) -> tuple[str, str]:
        """What must stand before the call in FROM, and the call."""
        function, name = self.function, table_name(self.function.name)
        if function.takes_the_body and self.body is not None:
            return "", f"{name}(({writer.argument(BODY)})::{function.arguments[0].type})"
        types = {a.name: a.type for a in function.arguments}
        if self.body is not None and self.arguments.names:
            typed = ", ".join(f"{quote(n)} {types[n]}" for n in self.arguments.names)
            named = ", ".join(f"{quote(n)} := a.{quote(n)}" for n in self.arguments.names)
            given = f"({writer.argument(BODY)})::json"
            return f"json_to_record({given}) as a({typed}), lateral ", f"{name}({named})"
        first = len(self.query.values)
        named = ", ".join(
            f"{quote(n)} := ({writer.argument(first + i)})::{types[n]}"
            for i, n in enumerate(self.arguments.texts)
        )
        return "", f"{name}({named})"

    def rows(self, format_: Format) -> Statement:
        """Of a function that returns rows; they are read once, so that a volatile one runs once."""
        function = self.function
        shape = self.query.shape
        if function.table is not None:
            table = self.kit.compiler.table(function.table)
        else:
            table = Table(function.name, function.columns)
        plan = make_plan(self.kit.compiler.schema, table, shape)
        self.reads = plan.reads | ({function.table} if function.table is not None else frozenset())
        self.names = names_of(plan.root)
        writer = Writer()
        before, call = self._call(writer)
        alias = writer.alias()
        limit, offset = f"({writer.argument(LIMIT)})::bigint", f"({writer.argument(OFFSET)})::bigint"
        page = writer.select(plan.root, alias, "f", tail=f" limit {limit} offset {offset}")
        bare = msgspec.structs.replace(plan.root, sorts=())
        counted = writer.alias()
        total = f"(select count(*) from f {counted}{writer.where(bare, counted)})"
        return writer.done(
            f"with f as materialized (select r.* from {before}{call} r), "
            f"q as materialized (select count(*) as n, {body_of('p', format_)} as body from ({page}) p) "
            f"select q.n, q.body, {total} as total, {_SAID} from q"
        )

    def value(self, media: Media, format_: Format) -> Statement:
        """Of a function that returns one value, or a set of them."""
        function = self.function
        if self.query.shape.where or self.query.shape.order:
            raise BadRequest(
                f"{function.name} returns no rows that could be filtered or ordered", rest_code="PGRST100"
            )
        writer = Writer()
        before, call = self._call(writer)
        if function.returns == "void":
            inner = f"select 1::bigint as n, ''::text as body from {before}{call} r"
        elif function.is_set:
            limit, offset = f"({writer.argument(LIMIT)})::bigint", f"({writer.argument(OFFSET)})::bigint"
            page = f"select r.v from {before}{call} as r(v) limit {limit} offset {offset}"
            made = "coalesce(json_agg(p.v), '[]')::text"
            if format_ in ("csv", "none"):
                made = body_of("p", format_)
            inner = f"select count(*) as n, {made} as body from ({page}) p"
        else:
            raw = media.kind in ("text", "binary", "xml")
            made = "r.v::text" if raw or format_ == "csv" else "to_json(r.v)::text"
            if format_ == "none":
                made = "''"
            inner = f"select 1::bigint as n, {made} as body from {before}{call} as r(v)"
        return writer.done(
            f"with q as materialized ({inner}) select q.n, q.body, null::bigint as total, {_SAID} from q"
        )
