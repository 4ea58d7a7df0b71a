"""/auth/v1 as GoTrue's clients know it, and the cookie in which the web app keeps its refresh token."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
from aiohttp import web

from hub import __version__
from hub.auth.callers import bearer
from hub.auth.refusals import AuthRefusal
from hub.auth.sessions import Accounts, Caller
from hub.bodies import json_response, read_json
from hub.domain.principal import Principal
from hub.edge import client_address, counted_address, is_our_page, network_of
from hub.errors import AuthenticationFailed, HubError, MethodNotAllowed
from hub.resources import ACCOUNTS, ALLOWANCE, AUTH, RATE, REQUEST_ID, SETTINGS
from hub.settings import Settings

Handler = Callable[[web.Request], Awaitable[web.Response]]
_CLIENT: Final = "X-Hub-Client"
_COOKIE_S: Final = 30 * 86400


class _Password(msgspec.Struct):
    """Strangers' fields are ignored: supabase clients send gotrue_meta_security and the like."""

    email: str | None = None
    phone: str | None = None
    password: str | None = None


class _Refresh(msgspec.Struct):
    refresh_token: str | None = None


class _Change(msgspec.Struct):
    email: str | None = None
    phone: str | None = None
    password: str | None = None
    data: dict[str, Any] | None = None
    app_metadata: dict[str, Any] | None = None


class _Recover(msgspec.Struct):
    email: str | None = None


class _Verify(msgspec.Struct):
    type: str | None = None
    token_hash: str | None = None
    token: str | None = None
    email: str | None = None


_password = msgspec.json.Decoder(_Password)
_refresh = msgspec.json.Decoder(_Refresh)
_change = msgspec.json.Decoder(_Change)
_recover = msgspec.json.Decoder(_Recover)
_verify = msgspec.json.Decoder(_Verify)


def table() -> dict[str, dict[str, Handler]]:
    """What is below /auth/v1, by address and method."""
    return {
        "token": {"POST": token},
        "user": {"GET": get_user, "HEAD": get_user, "PUT": put_user},
        "logout": {"POST": logout},
        "recover": {"POST": recover},
        "verify": {"POST": verify},
        "signup": {"POST": signup},
        "settings": {"GET": settings, "HEAD": settings},
        "health": {"GET": health, "HEAD": health},
        ".well-known/jwks.json": {"GET": jwks, "HEAD": jwks},
    }


def routes() -> list[web.RouteDef]:
    """Each address answers every method: with what it does, or with 405 and what it would have done."""
    return [web.route("*", f"/auth/v1/{name}", _serve(methods)) for name, methods in table().items()]


def _serve(methods: dict[str, Handler]) -> Handler:
    async def serve(request: web.Request) -> web.Response:
        handler = methods.get(request.method)
        if handler is not None:
            return await handler(request)
        if request.method == "OPTIONS":
            return web.Response(status=204, headers={"Allow": ", ".join((*methods, "OPTIONS"))})
        raise MethodNotAllowed("This method is not allowed here", details={"allowed": list(methods)})

    return serve


async def token(request: web.Request) -> web.Response:
    """?grant_type=password | refresh_token."""
    await _count(request)
    accounts = request.app[ACCOUNTS]
    grant = request.query.get("grant_type")
    if grant == "password":
        _same_origin(request)
        body = await read_json(request, _password)
        document = await accounts.sign_in(body.email or "", body.password or "", _caller(request))
        return _session_response(request, document)
    if grant == "refresh_token":
        return await _refresh_session(request, accounts)
    raise AuthRefusal("invalid_credentials", "unsupported_grant_type")


async def _refresh_session(request: web.Request, accounts: Accounts) -> web.Response:
    given = (await read_json(request, _refresh, empty=_Refresh())).refresh_token
    if not given and _is_web(request):
        _same_origin(request)
        given = request.cookies.get(cookie_name(request.app[SETTINGS]))
    if not given:
        raise AuthRefusal("refresh_token_not_found", "Invalid Refresh Token: Refresh Token Not Found")
    return _session_response(request, await accounts.refresh(given))


async def get_user(request: web.Request) -> web.Response:
    await _count(request)
    principal = await _user(request)
    assert principal.user_id is not None
    return json_response(await request.app[ACCOUNTS].user(principal.user_id, principal.session_id))


async def put_user(request: web.Request) -> web.Response:
    await _count(request)
    principal = await _user(request)
    body = await read_json(request, _change)
    if body.app_metadata is not None:
        raise AuthRefusal("not_admin", "User not allowed", 403)
    if body.email is not None or body.phone is not None:
        raise AuthRefusal("validation_failed", "Changing the address is not offered by this version", 422)
    assert principal.user_id is not None and principal.session_id is not None
    return json_response(
        await request.app[ACCOUNTS].change(
            principal.user_id, principal.session_id, password=body.password, data=body.data
        )
    )


async def logout(request: web.Request) -> web.Response:
    """?scope=global|local|others. With the web app's cookie alone it ends that session."""
    scope = request.query.get("scope", "global")
    if scope not in ("global", "local", "others"):
        raise AuthRefusal("validation_failed", "scope must be global, local or others")
    await _count(request)
    response = web.Response(status=204)
    cookie = request.cookies.get(cookie_name(request.app[SETTINGS])) if _is_web(request) else None
    if _is_web(request):
        _same_origin(request)
        if scope != "others":
            _drop_cookie(request, response)
    try:
        principal = await _user(request)
    except HubError:
        if cookie is None:
            raise
        await request.app[ACCOUNTS].sign_out_refresh(cookie)
        return response
    assert principal.session_id is not None and principal.user_id is not None
    await request.app[ACCOUNTS].sign_out(principal.session_id, principal.user_id, scope)
    return response


async def recover(request: web.Request) -> web.Response:
    """No part of this version sends mail, so no link is promised. The refusal is the same for every address,
    and nobody is looked up: it says nothing about who has an account."""
    await _count(request)
    address = ((await read_json(request, _recover)).email or "").strip()
    if "@" not in address[1:-1] or len(address) > 320:
        raise AuthRefusal("validation_failed", "Unable to validate email address: invalid format")
    raise AuthRefusal(
        "email_provider_disabled",
        "This hub sends no mail: ask whoever runs it for a new password (`hub user password`)",
        422,
    )


async def verify(request: web.Request) -> web.Response:
    """A recovery link, however it reached its user."""
    await _count(request)
    body = await read_json(request, _verify)
    given = body.token_hash or body.token
    if body.type != "recovery" or not given:
        raise AuthRefusal("validation_failed", "Only type recovery with its token is offered")
    return _session_response(request, await request.app[ACCOUNTS].recovered(given, _caller(request)))


async def signup(request: web.Request) -> web.Response:
    """People join by invitation."""
    await _count(request)
    raise AuthRefusal("signup_disabled", "Signups not allowed for this instance", 422)


async def settings(request: web.Request) -> web.Response:
    await _count(request)
    return json_response(
        {
            "external": {"email": True, "phone": False, "anonymous_users": False},
            "disable_signup": True,
            "mailer_autoconfirm": True,
            "phone_autoconfirm": False,
            "sms_provider": "",
            "saml_enabled": False,
        }
    )


async def health(request: web.Request) -> web.Response:
    return json_response({"name": "GoTrue", "version": __version__, "description": "ConnectGain Hub sign-in"})


async def jwks(request: web.Request) -> web.Response:
    """The public keys of access tokens; never a symmetric one."""
    ring = await request.app[AUTH].keyring()
    return json_response(ring.jwks, headers={"Cache-Control": "public, max-age=600"})


async def _user(request: web.Request) -> Principal:
    """The signed-in user, with GoTrue's refusals."""
    try:
        given = bearer(request)
    except AuthenticationFailed as error:
        raise AuthRefusal("no_authorization", "This endpoint requires a Bearer token", 401) from error
    if given is None:
        raise AuthRefusal("no_authorization", "This endpoint requires a Bearer token", 401)
    try:
        principal = await request.app[AUTH].principal_of_token(given)
    except AuthenticationFailed as error:
        ended = "session" in error.message
        code = "session_not_found" if ended else "bad_jwt"
        raise AuthRefusal(code, error.message, 403) from error
    if principal.user_id is None:
        raise AuthRefusal("bad_jwt", "invalid claim: missing sub claim", 403)
    return principal


async def _count(request: web.Request) -> None:
    """By address: nobody is known yet. The account's own limits are counted in Postgres."""
    hub = request.app[SETTINGS]
    request[ALLOWANCE], refusal = await request.app[RATE].hit(
        "address", counted_address(request, hub), hub.rate_address
    )
    if refusal is not None:
        raise refusal


def _caller(request: web.Request) -> Caller:
    address = client_address(request, request.app[SETTINGS])
    return Caller(
        address=address,
        network=network_of(address),
        user_agent=request.headers.get("User-Agent", "")[:400].encode(errors="replace").decode(),
        request_id=request[REQUEST_ID],
        is_web=_is_web(request),
    )


def _is_web(request: web.Request) -> bool:
    return request.headers.get(_CLIENT) == "web"


def cookie_name(hub: Settings) -> str:
    """Browsers take a __Host- cookie over https only, from this very host and for all paths."""
    return "__Host-hub-refresh" if hub.secure else "hub-refresh"


def _same_origin(request: web.Request) -> None:
    """Requests that read or set the cookie must come from our own page. Browsers always say where a POST
    comes from; without Origin there is no browser, and so no cookie that somebody else could abuse."""
    origin = request.headers.get("Origin")
    if not _is_web(request) or origin is None:
        return
    if not is_our_page(origin, request.host, request.app[SETTINGS]):
        raise AuthRefusal("bad_origin", "This page may not sign in here", 403)


def _session_response(request: web.Request, document: dict[str, Any]) -> web.Response:
    if not _is_web(request):
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


def _drop_cookie(request: web.Request, response: web.Response) -> None:
    hub = request.app[SETTINGS]
    response.del_cookie(cookie_name(hub), path="/", secure=hub.secure, httponly=True, samesite="Strict")
