"""/rest/v1: the stages of a request, in the order that decides which error wins.

who → path → profile → method → query string → ranges → body → schema → permission → one statement as the
caller → Postgres's JSON, untouched
"""

from __future__ import annotations

import asyncio
import hashlib
import time
import zlib
from typing import Final

import asyncpg
import msgspec
from aiohttp import web

from hub.auth.callers import admit
from hub.bodies import JSON_BYTES, read_body
from hub.db.tenancy import acting_as, in_turn, reading_as, reading_context
from hub.domain.principal import Principal
from hub.errors import MethodNotAllowed, NotAcceptable, NotFound
from hub.idempotency import REPLAYED, Kept, Once
from hub.metrics import REST_SECONDS
from hub.resources import CATALOG, DB, PUBLISHER, SETTINGS
from hub.rest.body import CSV_BYTES, is_csv
from hub.rest.calling import prepare_call
from hub.rest.compiler import Compiler
from hub.rest.deed import METHODS, Ask, Connection, Deed, Kit, methods_of
from hub.rest.description import swagger
from hub.rest.reading import prepare_read
from hub.rest.refusals import refusal
from hub.rest.reply import Reply
from hub.rest.writing import prepare_delete, prepare_insert, prepare_replace, prepare_update

PREPARE: Final = {
    "GET": prepare_read, "HEAD": prepare_read, "POST": prepare_insert, "PATCH": prepare_update,
    "DELETE": prepare_delete, "PUT": prepare_replace,
}  # fmt: skip
#: Answers from this size are compressed for those who accept it; from the larger one beside the loop.
_GZIP_FROM: Final = 1024
_GZIP_ASIDE_FROM: Final = 32 * 1024
#: Postgres misses what the catalog knew: the schema has changed.
_STALE: Final = frozenset({"42P01", "42703", "0A000"})
_encode = msgspec.json.Encoder().encode


def routes() -> list[web.RouteDef]:
    return [
        web.route("*", "/rest/v1", handle_root),
        web.route("*", "/rest/v1/", handle_root),
        web.route("*", "/rest/v1/rpc/{function}", handle_call),
        web.route("*", "/rest/v1/{table}", handle),
        web.route("*", "/rest/v1/{table}/{more:.*}", _too_deep),
    ]


async def _too_deep(request: web.Request) -> web.Response:
    await admit(request, "rest")
    raise NotFound("There is nothing below a table", rest_code="PGRST125")


async def handle(request: web.Request) -> web.Response:
    """A table or view."""
    name = request.match_info["table"]
    if request.method == "OPTIONS":
        allowed = methods_of((await _compiler(request)).table(name))
        return web.Response(headers={"Allow": ",".join(allowed)})
    principal = await admit(request, "rest")
    compiler = await _compiler(request)
    _check_profile(request)
    prepare = PREPARE.get(request.method)
    if prepare is None:
        raise MethodNotAllowed("Unsupported HTTP method", details={"allowed": list(METHODS)})
    ask = await _ask(request, name)
    context = reading_context(principal) if request.method in ("GET", "HEAD") else None
    deed = prepare(Kit(compiler, principal, request.app[SETTINGS], context), ask)
    return await _answer(request, principal, ask, deed)


async def handle_call(request: web.Request) -> web.Response:
    """A function."""
    name = request.match_info["function"]
    if request.method == "OPTIONS":
        functions = (await _compiler(request)).schema.functions.get(name)
        if not functions:
            raise NotFound(f"There is no function {name[:80]!r}", rest_code="PGRST202")
        reads = not any(f.is_volatile for f in functions)
        return web.Response(headers={"Allow": "OPTIONS,GET,HEAD,POST" if reads else "OPTIONS,POST"})
    principal = await admit(request, "rest")
    compiler = await _compiler(request)
    _check_profile(request)
    ask = await _ask(request, name)
    deed = prepare_call(Kit(compiler, principal, request.app[SETTINGS]), ask)
    return await _answer(request, principal, ask, deed)


async def handle_root(request: web.Request) -> web.Response:
    """What there is, as far as the caller may use it: Swagger 2.0, from which clients' code is made."""
    if request.method == "OPTIONS":
        return web.Response(headers={"Allow": "OPTIONS,GET,HEAD"})
    principal = await admit(request, "rest")
    if request.method not in ("GET", "HEAD"):
        raise MethodNotAllowed("Unsupported HTTP method", details={"allowed": ["GET", "HEAD", "OPTIONS"]})
    _check_profile(request)
    document = swagger((await _compiler(request)).schema, principal, request.host)
    reply = Reply(
        status=200,
        headers={"Content-Type": "application/openapi+json; charset=utf-8", "Vary": "Accept"},
        body=None if request.method == "HEAD" else _encode(document),
    )
    return await _readable(request, reply)


async def _compiler(request: web.Request) -> Compiler:
    return await request.app[CATALOG].compiler()


async def _ask(request: web.Request, name: str) -> Ask:
    body = b""
    if request.method in ("POST", "PATCH", "PUT"):
        body = await read_body(request, CSV_BYTES if is_csv(request.content_type) else JSON_BYTES)
    return Ask(
        method=request.method,
        name=name,
        query=request.rel_url.raw_query_string,
        headers=request.headers,
        body=body,
    )


async def _answer(request: web.Request, principal: Principal, ask: Ask, deed: Deed) -> web.Response:
    started = time.perf_counter()
    try:
        if deed.context is not None:
            async with reading_as(request.app[DB], principal, deed.context) as conn:
                reply = await deed.run(conn)
        elif deed.reads_only:
            async with acting_as(request.app[DB], principal, read_only=True) as conn:
                reply = await deed.run(conn)
        else:
            reply = await _write(request, principal, ask, deed)
    except asyncpg.PostgresError as error:
        if getattr(error, "sqlstate", None) in _STALE:
            request.app[CATALOG].forget()
        raise refusal(error) from error
    finally:
        REST_SECONDS.labels(deed.name, deed.verb).observe(time.perf_counter() - started)
    if deed.wakes:
        request.app[PUBLISHER].wake("outbox")
    if ask.method in ("GET", "HEAD") and reply.status < 300:
        return await _readable(request, reply)
    return web.Response(status=reply.status, headers=reply.headers, body=reply.body)


class _Undone(Exception):
    """`tx=rollback`: everything was done, and nothing is to stay."""

    def __init__(self, reply: Reply) -> None:
        self.reply = reply


async def _write(request: web.Request, principal: Principal, ask: Ask, deed: Deed) -> Reply:
    """Under an Idempotency-Key the answer is kept with the effect."""
    once = None
    if ask.method == "POST":
        what = (ask.query, ",".join(ask.headers.getall("Prefer", ())), ask.headers.get("Accept", ""))
        once = Once.of(request, principal, ask.body, *what)

    async def work() -> Reply:
        async with acting_as(request.app[DB], principal) as conn:
            return await _once(conn, once, deed)

    try:
        return await in_turn(work)
    except _Undone as undone:
        return undone.reply


async def _once(conn: Connection, once: Once | None, deed: Deed) -> Reply:
    kept = await once.earlier(conn) if once is not None else None
    if kept is not None:
        return _replayed(kept)
    reply = await deed.run(conn)
    if deed.rolls_back:
        raise _Undone(reply)
    if once is not None:
        body = reply.body.decode() if reply.body is not None else None
        await once.keep(conn, reply.status, _encode(_KeptAnswer(reply.headers, body)).decode())
    return reply


class _KeptAnswer(msgspec.Struct):
    """An answer under an Idempotency-Key."""

    headers: dict[str, str]
    body: str | None


_kept_answer = msgspec.json.Decoder(_KeptAnswer)


def _replayed(kept: Kept) -> Reply:
    found = _kept_answer.decode(kept.body)
    return Reply(
        status=kept.status,
        headers={**found.headers, **REPLAYED},
        body=found.body.encode() if found.body is not None else None,
    )


def _check_profile(request: web.Request) -> None:
    header = "Accept-Profile" if request.method in ("GET", "HEAD") else "Content-Profile"
    profile = request.headers.get(header, "public")
    if profile != "public":
        raise NotAcceptable(
            "Invalid schema: only public is exposed", hint="Leave the header out", rest_code="PGRST106"
        )


# answers to readers


async def _readable(request: web.Request, reply: Reply) -> web.Response:
    """With its ETag; nothing of it when the reader has it already; compressed when he takes that."""
    headers = reply.headers
    body = reply.body
    headers["Content-Location"] = _location(request)
    if body is None:
        return web.Response(status=reply.status, headers=headers)
    tag = f'W/"{hashlib.sha256(body).hexdigest()[:24]}"'
    headers["ETag"] = tag
    known = request.headers.get("If-None-Match", "")
    if known and (known.strip() == "*" or tag in (part.strip() for part in known[:4000].split(","))):
        headers.pop("Content-Type", None)
        return web.Response(status=304, headers=headers)
    if len(body) >= _GZIP_FROM:
        headers["Vary"] = f"{headers.get('Vary', '')}, Accept-Encoding".lstrip(", ")
        if _takes_gzip(request.headers.get("Accept-Encoding", "")):
            aside = len(body) >= _GZIP_ASIDE_FROM
            body = await asyncio.to_thread(_gzip, body) if aside else _gzip(body)
            headers["Content-Encoding"] = "gzip"
    return web.Response(status=reply.status, headers=headers, body=body)


def _location(request: web.Request) -> str:
    """The address in its canonical order."""
    path = request.rel_url.raw_path.removeprefix("/rest/v1")
    parts = sorted(p for p in request.rel_url.raw_query_string.split("&") if p and p[:7] != "apikey=")
    return f"{path}?{'&'.join(parts)}"[:2000] if parts else path[:2000]


def _takes_gzip(accepted: str) -> bool:
    for part in accepted.lower().split(","):
        name, _, weight = part.partition(";")
        if name.strip() == "gzip":
            return weight.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False


def _gzip(body: bytes) -> bytes:
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    return packer.compress(body) + packer.flush()
