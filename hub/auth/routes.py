"""/auth/v1 as GoTrue's clients know it, and the cookie in which the web app keeps its refresh token."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
from aiohttp import web

from hub import __version__
from hub.auth import admin_routes, factor_routes, link_routes
from hub.auth.links import Asked
from hub.auth.refusals import AuthRefusal
from hub.auth.requests import (
    caller_of,
    cookie_name,
    count,
    count_mail,
    drop_cookie,
    is_web,
    same_origin,
    session_response,
    signed_in,
)
from hub.auth.sessions import Accounts
from hub.auth.tokens import JWKS_S
from hub.bodies import json_response, read_json
from hub.errors import HubError, MethodNotAllowed
from hub.resources import ACCOUNTS, AUTH, LINKS, SETTINGS

Handler = Callable[[web.Request], Awaitable[web.Response]]


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
    current_password: str | None = None
    nonce: str | None = None
    data: dict[str, Any] | None = None
    app_metadata: dict[str, Any] | None = None
    code_challenge: str | None = None
    code_challenge_method: str | None = None


_password: Final = msgspec.json.Decoder(_Password)
_refresh: Final = msgspec.json.Decoder(_Refresh)
_change: Final = msgspec.json.Decoder(_Change)


def table() -> dict[str, dict[str, Handler]]:
    """What is below /auth/v1, by address and method."""
    return {
        "token": {"POST": token},
        "user": {"GET": get_user, "HEAD": get_user, "PUT": put_user},
        "reauthenticate": {"GET": link_routes.reauthenticate},
        "logout": {"POST": logout},
        "recover": {"POST": link_routes.recover},
        "otp": {"POST": link_routes.otp},
        "magiclink": {"POST": link_routes.otp},
        "resend": {"POST": link_routes.resend},
        "verify": {"POST": link_routes.verify, "GET": link_routes.follow},
        "signup": {"POST": link_routes.signup},
        "settings": {"GET": settings, "HEAD": settings},
        "health": {"GET": health, "HEAD": health},
        ".well-known/jwks.json": {"GET": jwks, "HEAD": jwks},
        "authorize": {"GET": authorize},
        "sessions": {"GET": sessions},
        "sessions/{id}": {"DELETE": end_session},
        "factors": {"POST": factor_routes.enroll},
        "factors/{id}": {"DELETE": factor_routes.unenroll},
        "factors/{id}/challenge": {"POST": factor_routes.challenge},
        "factors/{id}/verify": {"POST": factor_routes.verify},
        "recovery-codes": {"GET": factor_routes.codes_left, "POST": factor_routes.make_codes},
        "recovery-codes/verify": {"POST": factor_routes.use_code},
        "invite": {"POST": admin_routes.invite},
        "admin/generate_link": {"POST": admin_routes.generate_link},
        "admin/users": {"GET": admin_routes.list_users, "POST": admin_routes.create_user},
        "admin/users/{id}": {
            "GET": admin_routes.get_user,
            "PUT": admin_routes.change_user,
            "DELETE": admin_routes.delete_user,
        },
        "admin/users/{id}/factors": {"GET": admin_routes.list_factors},
        "admin/users/{id}/factors/{factor}": {"DELETE": admin_routes.delete_factor},
    }


#: What is sent to them, for their description; strangers' fields are ignored.
BODIES: Final[dict[str, type]] = {
    "token": _Password,
    "user": _Change,
    "recover": link_routes._Recover,
    "otp": link_routes._Otp,
    "magiclink": link_routes._Otp,
    "resend": link_routes._Resend,
    "verify": link_routes._Verify,
    "signup": link_routes._SignUp,
    "factors": factor_routes._Enroll,
    "factors/{id}/verify": factor_routes._Code,
    "recovery-codes/verify": factor_routes._Code,
    "invite": admin_routes._Invite,
    "admin/generate_link": admin_routes._Link,
    "admin/users": admin_routes._User,
    "admin/users/{id}": admin_routes._User,
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
    """?grant_type=password | refresh_token | pkce."""
    await count(request)
    accounts = request.app[ACCOUNTS]
    grant = request.query.get("grant_type")
    if grant == "password":
        same_origin(request)
        body = await read_json(request, _password)
        document = await accounts.sign_in(body.email or "", body.password or "", caller_of(request))
        return session_response(request, document)
    if grant == "refresh_token":
        return await _refresh_session(request, accounts)
    if grant == "pkce":
        return await link_routes.exchange(request)
    raise AuthRefusal("invalid_credentials", "unsupported_grant_type")


async def _refresh_session(request: web.Request, accounts: Accounts) -> web.Response:
    given = (await read_json(request, _refresh, empty=_Refresh())).refresh_token
    if not given and is_web(request):
        same_origin(request)
        given = request.cookies.get(cookie_name(request.app[SETTINGS]))
    if not given:
        raise AuthRefusal("refresh_token_not_found", "Invalid Refresh Token: Refresh Token Not Found")
    return session_response(request, await accounts.refresh(given))


async def get_user(request: web.Request) -> web.Response:
    await count(request)
    principal = await signed_in(request)
    assert principal.user_id is not None
    return json_response(await request.app[ACCOUNTS].user(principal.user_id, principal.session_id))


async def put_user(request: web.Request) -> web.Response:
    """Change the own password, address or metadata. Where the sign-in is older than a quarter of an hour, a
    password or an address needs `current_password`, or the `nonce` that GET reauthenticate sends."""
    await count(request)
    principal = await signed_in(request)
    body = await read_json(request, _change)
    if body.app_metadata is not None:
        raise AuthRefusal("not_admin", "User not allowed", 403)
    if body.phone:
        raise AuthRefusal("phone_provider_disabled", "Unsupported phone provider", 422)
    user_id, session_id = principal.user_id, principal.session_id
    assert user_id is not None and session_id is not None
    accounts, links = request.app[ACCOUNTS], request.app[LINKS]
    confirmed = False
    if body.nonce is not None:
        proof = await accounts.prove_again(user_id, session_id, None, needed=False)
        if not await links.confirm_nonce(user_id, proof["email"], body.nonce):
            raise AuthRefusal("reauthentication_not_valid", "Nonce has expired or is invalid", 422)
        confirmed = True
    if body.email is not None:
        await count_mail(request)
        proof = await accounts.prove_again(user_id, session_id, body.current_password, needed=not confirmed)
        if body.email.strip().lower() != proof["email"]:
            asked = Asked(
                redirect_to=request.query.get("redirect_to"),
                challenge=body.code_challenge,
                challenge_method=body.code_challenge_method,
                is_web=is_web(request),
            )
            await links.ask_email_change(user_id, body.email, asked)
    if body.password is not None or body.data is not None:
        await accounts.change(
            user_id,
            session_id,
            password=body.password,
            data=body.data,
            current_password=body.current_password,
            confirmed=confirmed,
        )
    return json_response(await accounts.user(user_id, session_id))


async def logout(request: web.Request) -> web.Response:
    """?scope=global|local|others. With the web app's cookie alone it ends that session."""
    scope = request.query.get("scope", "global")
    if scope not in ("global", "local", "others"):
        raise AuthRefusal("validation_failed", "scope must be global, local or others")
    await count(request)
    response = web.Response(status=204)
    cookie = request.cookies.get(cookie_name(request.app[SETTINGS])) if is_web(request) else None
    if is_web(request):
        same_origin(request)
        if scope != "others":
            drop_cookie(request, response)
    try:
        principal = await signed_in(request)
    except HubError:
        if cookie is None:
            raise
        await request.app[ACCOUNTS].sign_out_refresh(cookie)
        return response
    assert principal.session_id is not None and principal.user_id is not None
    await request.app[ACCOUNTS].sign_out(principal.session_id, principal.user_id, scope)
    return response


async def sessions(request: web.Request) -> web.Response:
    """Where one is signed in: the own sessions that stand, the newest first."""
    await count(request)
    principal = await signed_in(request)
    assert principal.session_id is not None and principal.user_id is not None
    return json_response(await request.app[ACCOUNTS].sessions(principal.user_id, principal.session_id))


async def end_session(request: web.Request) -> web.Response:
    """End one of the own sessions."""
    await count(request)
    principal = await signed_in(request)
    assert principal.user_id is not None
    if not await request.app[ACCOUNTS].end(request.match_info["id"], principal.user_id):
        raise AuthRefusal("session_not_found", "No such session", 404)
    return web.Response(status=204)


async def authorize(request: web.Request) -> web.Response:
    """Signing in with somebody else's account is not offered."""
    await count(request)
    raise AuthRefusal("validation_failed", "Unsupported provider: provider is not enabled")


async def settings(request: web.Request) -> web.Response:
    """What this deployment offers, before anybody signs in."""
    await count(request)
    hub = request.app[SETTINGS]
    return json_response(
        {
            "external": {"email": True, "phone": False, "anonymous_users": False},
            "disable_signup": not hub.signup,
            "mailer_autoconfirm": hub.signup_autoconfirm,
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
    return json_response(ring.jwks, headers={"Cache-Control": f"public, max-age={JWKS_S}"})
