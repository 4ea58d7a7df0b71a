"""The one middleware: request ids, CORS, refusals as bodies, security and rate headers, metrics, the access
log.

One layer and not six, because every layer is paid on every webhook.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Awaitable, Callable
from ipaddress import ip_address, ip_network
from itertools import count
from typing import Final

import structlog
from aiohttp import HttpVersion10, web
from prometheus_client import Histogram
from yarl._url import build_pre_encoded_url

from hub.domain.principal import Principal
from hub.errors import BadRequest, HubError, InsufficientPermissions, UnsupportedMedia, internal
from hub.http_errors import Surface, as_refusal, error_response, surface_of
from hub.metrics import HTTP_SECONDS
from hub.resources import ALLOWANCE, LIFE, NOTES, PRINCIPAL, RATE, REQUEST_ID, SETTINGS
from hub.settings import Settings

log = structlog.get_logger()
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_GIVEN_ID = re.compile(r"[\w.:-]{8,80}", re.ASCII)
_API: Final = ("/rest/v1", "/auth/v1", "/functions/v1", "/storage/v1", "/realtime/v1")
_METHODS: Final = frozenset(("GET", "HEAD", "POST", "PATCH", "PUT", "DELETE", "OPTIONS"))
_SLOW_S: Final = 1.0
_CORS: Final = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Expose-Headers": "Content-Encoding, Content-Location, Content-Range, Content-Type, Date, "
    "Location, Transfer-Encoding, Range-Unit, Preference-Applied, Proxy-Status, Retry-After, X-Request-Id, "
    "X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Reset, X-Total-Count, Link, "
    "X-Supabase-Api-Version, Idempotency-Replayed",
}
_SECURITY: Final = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
#: yarl remembers the last 128 addresses with all that was read from them. Of ordinary ones that is little; of
#: the longest that are taken (512 KiB) it would be 100 MB.
_LONG_ADDRESS: Final = 8192
_HSTS: Final = "max-age=31536000"
_WEBHOOK: Final = "-webhook"
#: Request ids need to be unique, not secret: a random word a process and a number cost no system call.
_PROCESS: Final = secrets.token_hex(4)
_numbers = count(secrets.randbelow(1 << 24))
#: Routes are templates and methods a closed list, so this stays as small as the metric itself.
_seconds: dict[tuple[str, str, int], Histogram] = {}
_API_VERSION: Final = "X-Supabase-Api-Version"


@web.middleware
async def edge(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Around every request; see the module."""
    started = time.perf_counter()
    request_id = request.headers.get("X-Request-Id", "")
    if not (request_id and _GIVEN_ID.fullmatch(request_id)):
        request_id = new_request_id()
    request[REQUEST_ID] = request_id
    path = request.path
    is_api = path.startswith(_API)
    # never unbound: aiohttp runs each request as a task, and its context ends with it
    structlog.contextvars.bind_contextvars(request_id=request_id)
    if is_api and request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers:
        response: web.StreamResponse = _preflight(request)
    else:
        response = await _answer(request, handler, is_api)
    if not response.prepared:
        _dress(request, response, is_api)
    _account(request, response, time.perf_counter() - started)
    if len(request.raw_path) > _LONG_ADDRESS:
        build_pre_encoded_url.cache_clear()
    return response


def new_request_id() -> str:
    """Unique over all hubs, not secret."""
    return f"{_PROCESS}-{next(_numbers):08x}"


async def _answer(request: web.Request, handler: Handler, is_api: bool) -> web.StreamResponse:
    surface = surface_of(request.path)
    try:
        if request.version < HttpVersion10:
            raise BadRequest("This is not a request that can be read")
        if (
            "Content-Encoding" in request.headers
            and request.headers["Content-Encoding"].lower() != "identity"
        ):
            raise UnsupportedMedia(
                "Compressed bodies are not accepted", hint="Send the body without Content-Encoding"
            )
        return await handler(request)
    except Exception as error:
        return await _refuse(request, error, surface, is_api)


async def _refuse(
    request: web.Request, error: Exception, surface: Surface, is_api: bool
) -> web.StreamResponse:
    """The answer to what a handler raised. Not in the frame that caught it: a refusal that stays there in a
    variable holds that frame, with the request's body, until the cycle collector comes by."""
    refusal = as_refusal(error)
    if refusal is None:
        if isinstance(error, web.HTTPException):
            return error  # a redirect or the like
        log.error("request.failed", route=route_of(request), method=request.method, exc_info=error)
        refusal = internal()
    elif is_api and ALLOWANCE not in request and not _is_webhook(request):
        refusal = await _count_stranger(request) or refusal
    principal = request.get(PRINCIPAL)
    if principal is not None and isinstance(refusal, InsufficientPermissions):
        _note_refusal(request, principal, refusal)
    anonymous = principal is not None and principal.kind == "anon"
    return error_response(refusal, surface, request[REQUEST_ID], anonymous=anonymous)


def _note_refusal(request: web.Request, principal: Principal, refusal: HubError) -> None:
    """What members and keys may not do and tried: their organization's audit log has it."""
    names = request.match_info
    what = names.get("table") or names.get("function") or route_of(request).rpartition("/")[2]
    request.app[NOTES].refused(
        principal,
        f"{request.method} {_printable(what)[:100]}",
        refusal.message,
        target_table=_printable(names.get("table", ""))[:100] or None,
    )


async def _count_stranger(request: web.Request) -> HubError | None:
    """Callers without a valid credential are limited by address, so that nobody can try keys without end."""
    settings = request.app[SETTINGS]
    address = counted_address(request, settings)
    request[ALLOWANCE], refusal = await request.app[RATE].hit("address", address, settings.rate_address)
    return refusal


def _is_webhook(request: web.Request) -> bool:
    """Providers sign instead of signing in, and are not limited. By the route: anybody can write an address
    that ends so."""
    return route_of(request).endswith(_WEBHOOK)


def _preflight(request: web.Request) -> web.Response:
    asked = _printable(request.headers.get("Access-Control-Request-Headers", ""))
    headers = {
        "Access-Control-Allow-Methods": "GET,POST,PATCH,PUT,DELETE,OPTIONS,HEAD",
        "Access-Control-Max-Age": "86400",
        "Vary": "Access-Control-Request-Headers",
    }
    if asked:
        headers["Access-Control-Allow-Headers"] = asked
    return web.Response(status=204, headers=headers)


def _dress(request: web.Request, response: web.StreamResponse, is_api: bool) -> None:
    """Headers that every answer has, and those of the API's."""
    always(response, request[REQUEST_ID], request.app[SETTINGS].secure)
    life = request.app.get(LIFE)
    if life is not None and life.stopping:
        response.force_close()  # the caller's next request goes elsewhere, not into a closing door
    headers = response.headers
    if is_api and not _is_webhook(request):  # no browser reads what a provider is told
        headers.update(_CORS)
        version = request.headers.get(_API_VERSION)
        if version and request.path.startswith("/auth/"):
            headers[_API_VERSION] = _printable(version)[:20]
    allowance = request.get(ALLOWANCE)
    if allowance is not None:
        headers.update(allowance.headers())


def always(response: web.StreamResponse, request_id: str, secure: bool) -> None:
    """What stands on every answer, also on those to requests that could not be read."""
    headers = response.headers
    headers.update(_SECURITY)
    headers["X-Request-Id"] = request_id
    if "Cache-Control" not in headers:
        headers["Cache-Control"] = "no-store"
    if secure:
        headers["Strict-Transport-Security"] = _HSTS
    headers["Server"] = "hub"


def _printable(text: str) -> str:
    """What may be sent back in a header: bytes that are no UTF-8 cannot be written again."""
    return text if text.isascii() and text.isprintable() else ""


def _account(request: web.Request, response: web.StreamResponse, took_s: float) -> None:
    route = route_of(request)
    method = request.method if request.method in _METHODS else "OTHER"
    key = (route, method, response.status)
    seconds = _seconds.get(key)
    if seconds is None:
        seconds = _seconds[key] = HTTP_SECONDS.labels(route, method, str(response.status))
    seconds.observe(took_s)
    if response.status < 400 and (took_s < _SLOW_S or response.status == 101):
        return
    principal = request.get(PRINCIPAL)
    log.info(
        "request",
        method=request.method,
        route=route,
        status=response.status,
        took_ms=round(took_s * 1000, 1),
        organization_id=str(principal.organization_id) if principal and principal.organization_id else None,
    )


def route_of(request: web.Request) -> str:
    """The route's template, never the address asked for: labels and logs must not hold ids."""
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else "(none)"


def client_address(request: web.Request, settings: Settings) -> str:
    """Who is at the other end; X-Forwarded-For counts only when it comes from a listed proxy, and then its
    last entry that is no proxy of ours."""
    remote = request.remote or "unknown"
    if not settings.trusted_proxies:
        return remote
    forwarded = [
        part.strip()
        for part in ",".join(request.headers.getall("X-Forwarded-For", ())).split(",")
        if part.strip()
    ]
    hops = [*forwarded, remote]
    while len(hops) > 1 and _is_trusted(hops[-1], settings.trusted_proxies):
        hops.pop()
    return hops[-1][:64]


def is_our_page(origin: str, host: str, settings: Settings) -> bool:
    """Whether a request's Origin is our own page, by whatever name it was reached, or one that the operator
    listed. What is no http(s) origin is foreign."""
    if origin.rstrip("/") in settings.allowed_origins:
        return True
    scheme, _, place = origin.partition("://")
    public = settings.public_base_url.partition("://")[2].partition("/")[0]
    return scheme in ("http", "https") and bool(place) and place in (host, public)


def counted_address(request: web.Request, settings: Settings) -> str:
    """By which strangers are counted: whoever has one IPv6 address has 2^64 of them."""
    address = client_address(request, settings)
    return network_of(address) if ":" in address else address


def network_of(address: str) -> str:
    """The /24 or /64 of an address: what one household or attacker has many of."""
    try:
        ip = ip_address(address)
    except ValueError:
        return address
    return str(ip_network(f"{ip}/{24 if ip.version == 4 else 64}", strict=False))


def _is_trusted(address: str, proxies: tuple[str, ...]) -> bool:
    try:
        ip = ip_address(address)
    except ValueError:
        return False
    for proxy in proxies:
        try:
            if ip in ip_network(proxy, strict=False):
                return True
        except ValueError:
            continue
    return False
