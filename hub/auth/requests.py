"""What the handlers of /auth/v1 share: who calls, how often, from which page, how a session is answered."""

from __future__ import annotations

from typing import Any, Final

from aiohttp import web

from hub.auth.callers import bearer
from hub.auth.refusals import AuthRefusal
from hub.auth.sessions import Caller
from hub.bodies import json_response
from hub.domain.principal import Principal
from hub.edge import client_address, counted_address, is_our_page, network_of
from hub.errors import AuthenticationFailed
from hub.resources import ALLOWANCE, AUTH, RATE, REQUEST_ID, SETTINGS
from hub.settings import Settings

_CLIENT: Final = "X-Hub-Client"
_COOKIE_S: Final = 30 * 86400


async def signed_in(request: web.Request) -> Principal:
    """The signed-in user, with GoTrue's refusals."""
    principal = await _bearer_of(request)
    if principal.user_id is None or principal.session_id is None:
        raise AuthRefusal("bad_jwt", "invalid claim: missing sub claim", 403)
    return principal


async def service(request: web.Request) -> Principal:
    """The service_role. Raises AuthRefusal not_admin for everybody else who is known."""
    principal = await _bearer_of(request)
    if principal.kind != "service":
        raise AuthRefusal("not_admin", "User not allowed", 403)
    return principal


async def _bearer_of(request: web.Request) -> Principal:
    try:
        given = bearer(request)
    except AuthenticationFailed as error:
        raise AuthRefusal("no_authorization", "This endpoint requires a Bearer token", 401) from error
    if given is None:
        raise AuthRefusal("no_authorization", "This endpoint requires a Bearer token", 401)
    try:
        return await request.app[AUTH].principal_of_token(given)
    except AuthenticationFailed as error:
        ended = "session" in error.message
        code = "session_not_found" if ended else "bad_jwt"
        raise AuthRefusal(code, error.message, 403) from error


async def count(request: web.Request) -> None:
    """By address: nobody is known yet. The account's own limits are counted in Postgres."""
    hub = request.app[SETTINGS]
    request[ALLOWANCE], refusal = await request.app[RATE].hit(
        "address", counted_address(request, hub), hub.rate_address
    )
    if refusal is not None:
        raise refusal


async def count_mail(request: web.Request) -> None:
    """The mails that this network asks for; called once the request is known to ask for one. Raises
    AuthRefusal."""
    hub = request.app[SETTINGS]
    network = network_of(client_address(request, hub))
    _, refusal = await request.app[RATE].hit("mail", network, hub.rate_mail)
    if refusal is not None:
        raise AuthRefusal(
            "over_email_send_rate_limit", "Too many mails; try again later", 429,
            retry_after_s=refusal.retry_after_s,
        )  # fmt: skip


def caller_of(request: web.Request) -> Caller:
    address = client_address(request, request.app[SETTINGS])
    return Caller(
        address=address,
        network=network_of(address),
        user_agent=request.headers.get("User-Agent", "")[:400].encode(errors="replace").decode(),
        request_id=request[REQUEST_ID],
        is_web=is_web(request),
    )


def is_web(request: web.Request) -> bool:
    return request.headers.get(_CLIENT) == "web"


def cookie_name(hub: Settings) -> str:
    """Browsers take a __Host- cookie over https only, from this very host and for all paths."""
    return "__Host-hub-refresh" if hub.secure else "hub-refresh"


def same_origin(request: web.Request) -> None:
    """Requests that read or set the cookie must come from our own page. Browsers always say where a POST
    comes from; without Origin there is no browser, and so no cookie that somebody else could abuse."""
    origin = request.headers.get("Origin")
    if not is_web(request) or origin is None:
        return
    if not is_our_page(origin, request.host, request.app[SETTINGS]):
        raise AuthRefusal("bad_origin", "This page may not sign in here", 403)


def session_response(request: web.Request, document: dict[str, Any]) -> web.Response:
    if not is_web(request):
        return json_response(document)
    response = json_response({**document, "refresh_token": ""})
    hub = request.app[SETTINGS]
    response.set_cookie(
        cookie_name(hub),
        document["refresh_token"],
        max_age=_COOKIE_S,
        path="/",
        secure=hub.secure,
        httponly=True,
        samesite="Strict",
    )
    return response


def drop_cookie(request: web.Request, response: web.Response) -> None:
    hub = request.app[SETTINGS]
    response.del_cookie(cookie_name(hub), path="/", secure=hub.secure, httponly=True, samesite="Strict")
