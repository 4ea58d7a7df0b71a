"""One operation on a table or function: what is asked, made ready, then done inside a transaction."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Final, TypeAlias

import asyncpg
import msgspec
from multidict import CIMultiDict, CIMultiDictProxy

from hub.actions.permission import require
from hub.domain.permissions import Verb
from hub.domain.principal import Principal
from hub.errors import BadRequest, InsufficientPermissions, MethodNotAllowed, NotAcceptable
from hub.rest.compiler import Compiler
from hub.rest.media import Media, negotiate
from hub.rest.prefer import Prefer, parse_prefer
from hub.rest.reply import Reply
from hub.rest.schema import Table
from hub.rest.tree import Shape
from hub.settings import Settings

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
METHODS: Final = ("OPTIONS", "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
_VERBS: Final[dict[str, Verb]] = {
    "POST": "insert", "PUT": "insert", "PATCH": "update", "DELETE": "delete",
}  # fmt: skip


class Ask(msgspec.Struct, kw_only=True):
    """``query`` is the raw query string; ``body`` the bytes that came."""

    method: str
    name: str
    query: str
    headers: CIMultiDictProxy[str] | CIMultiDict[str]
    body: bytes = b""

    def prefer(self) -> Prefer:
        return parse_prefer(self.headers.getall("Prefer", ()))

    def media(self, *, one_value: bool = False) -> Media:
        return negotiate(self.headers.get("Accept", ""), one_value=one_value)

    @property
    def content_type(self) -> str:
        given = self.headers.get("Content-Type", "application/octet-stream")
        return given.partition(";")[0].strip().lower()


class Kit(msgspec.Struct, frozen=True):
    """What making ready takes: the statements, the caller, the keys for secrets. ``context``: a read may do
    without a transaction, and asserts this."""

    compiler: Compiler
    principal: Principal
    settings: Settings
    context: str | None = None


class Deed(msgspec.Struct, kw_only=True):
    """``run`` inside a transaction of the caller's. ``context``: it is one statement that asserts this, and
    needs none. ``wakes`` says that there is something to send now; ``rolls_back`` that nothing may stay."""

    name: str
    verb: str
    run: Callable[[Connection], Awaitable[Reply]]
    reads_only: bool = False
    context: str | None = None
    wakes: bool = False
    rolls_back: bool = False


def methods_of(table: Table) -> tuple[str, ...]:
    """A view has those that it can be written with."""
    return tuple(
        method
        for method in METHODS
        if method not in _VERBS
        or (_VERBS[method] in table.verbs and (method != "PUT" or (table.key and "update" in table.verbs)))
    )


def table_of(kit: Kit, ask: Ask) -> Table:
    """Raises NotFound PGRST205, and for a view that cannot be written so InsufficientPermissions or
    MethodNotAllowed."""
    table = kit.compiler.table(ask.name)
    verb = _VERBS.get(ask.method)
    if verb is not None and verb not in table.verbs:
        check_permission(kit.principal, table.name, verb)
        raise MethodNotAllowed("Unsupported HTTP method", details={"allowed": list(methods_of(table))})
    return table


def media_of(kit: Kit, ask: Ask, table: Table, shape: Shape) -> Media:
    """The answer's. Raises NotAcceptable, and what is wrong with the shape before that."""
    try:
        return ask.media()
    except NotAcceptable:
        kit.compiler.plan(table.name, shape)
        raise


def check_permission(principal: Principal, table: str, verb: Verb) -> None:
    """Tell a caller that a whole resource is closed to him, instead of showing him nothing."""
    if principal.kind == "anon":
        if verb == "read":
            return
        raise InsufficientPermissions("Sign in to write", details={"missing": []})
    if principal.organization_id is None and verb == "read":
        return
    require(principal, table, verb)


def check_reads(principal: Principal, tables: Iterable[str]) -> None:
    for table in tables:
        check_permission(principal, table, "read")


def may_roll_back(kit: Kit) -> bool:
    """`tx=rollback` is for trying out: in a demo, and for operators."""
    return kit.settings.demo or kit.principal.kind == "service"


async def in_timezone(conn: Connection, prefer: Prefer) -> None:
    """Times of this transaction in the caller's zone. Raises BadRequest."""
    if prefer.timezone is None:
        return
    try:
        await conn.execute("select set_config('TimeZone', $1::text, true)", prefer.timezone)
    except (asyncpg.InvalidParameterValueError, asyncpg.InvalidDatetimeFormatError) as error:
        raise BadRequest(f"There is no time zone {prefer.timezone!r}", rest_code="22023") from error
