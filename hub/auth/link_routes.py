"""/auth/v1, by mail: sign-up, recovery, sign-in links and codes, confirmations, the PKCE flow's exchange."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urlencode

import msgspec
from aiohttp import web

from hub.auth.links import Asked
from hub.auth.refusals import AuthRefusal
from hub.auth.requests import caller_of, count, count_mail, is_web, same_origin, session_response, signed_in
from hub.bodies import json_response, read_json
from hub.resources import ACCOUNTS, LINKS


class _SignUp(msgspec.Struct):
    """Strangers' fields are ignored: supabase clients send gotrue_meta_security and the like."""

    email: str | None = None
    phone: str | None = None
    password: str | None = None
    data: dict[str, Any] | None = None
    code_challenge: str | None = None
    code_challenge_method: str | None = None


class _Recover(msgspec.Struct):
    email: str | None = None
    code_challenge: str | None = None
    code_challenge_method: str | None = None


class _Otp(msgspec.Struct):
    email: str | None = None
    phone: str | None = None
    create_user: bool = True
    data: dict[str, Any] | None = None
    code_challenge: str | None = None
    code_challenge_method: str | None = None


class _Resend(msgspec.Struct):
    type: str | None = None
    email: str | None = None
    phone: str | None = None
    code_challenge: str | None = None
    code_challenge_method: str | None = None


class _Verify(msgspec.Struct):
    type: str | None = None
    token_hash: str | None = None
    token: str | None = None
    email: str | None = None
    phone: str | None = None


class _Exchange(msgspec.Struct):
    auth_code: str | None = None
    code_verifier: str | None = None


_sign_up: Final = msgspec.json.Decoder(_SignUp)
_recover: Final = msgspec.json.Decoder(_Recover)
_otp: Final = msgspec.json.Decoder(_Otp)
_resend: Final = msgspec.json.Decoder(_Resend)
_verify: Final = msgspec.json.Decoder(_Verify)
_exchange: Final = msgspec.json.Decoder(_Exchange)


async def signup(request: web.Request) -> web.Response:
    """Make an account, where the deployment lets people do so; people join organizations by invitation."""
    await count(request)
    same_origin(request)
    body = await read_json(request, _sign_up)
    if body.email is None and body.phone is None:
        raise AuthRefusal("anonymous_provider_disabled", "Anonymous sign-ins are disabled", 422)
    if body.email is None:
        raise AuthRefusal("phone_provider_disabled", "Phone signups are disabled", 422)
    if not body.password:
        raise AuthRefusal("validation_failed", "Signup requires a valid password")
    await count_mail(request)
    document = await request.app[LINKS].sign_up(
        body.email, body.password, body.data, _asked(request, body), caller_of(request)
    )
    return session_response(request, document) if "access_token" in document else json_response(document)


async def recover(request: web.Request) -> web.Response:
    """A link for a new password, to whoever has this account; the answer does not say whether anybody
    has."""
    await count(request)
    body = await read_json(request, _recover)
    await count_mail(request)
    await request.app[LINKS].ask("recovery", body.email or "", _asked(request, body))
    return json_response({})


async def otp(request: web.Request) -> web.Response:
    """A link and a code that sign in without a password."""
    await count(request)
    body = await read_json(request, _otp)
    if body.email is None and body.phone is not None:
        raise AuthRefusal("phone_provider_disabled", "Unsupported phone provider", 400)
    await count_mail(request)
    await request.app[LINKS].ask_to_sign_in(
        body.email or "", _asked(request, body), body.create_user, body.data
    )
    return json_response({})


async def resend(request: web.Request) -> web.Response:
    """The mail of a sign-up or of a change of address, once more."""
    await count(request)
    body = await read_json(request, _resend)
    if body.email is None and body.phone is not None:
        raise AuthRefusal("phone_provider_disabled", "Unsupported phone provider", 400)
    await count_mail(request)
    await request.app[LINKS].ask_again(body.type or "", body.email or "", _asked(request, body))
    return json_response({})


async def verify(request: web.Request) -> web.Response:
    """Use a link's token, or a mail's code with its address: {type, token_hash} or {type, token, email}."""
    await count(request)
    same_origin(request)
    body = await read_json(request, _verify)
    links, caller = request.app[LINKS], caller_of(request)
    if body.token_hash:
        followed = await links.follow(body.type or "", body.token_hash, caller)
    elif body.token and body.email:
        followed = await links.enter_code(body.type or "", body.email, body.token, caller)
    elif body.token and body.phone is None:
        followed = await links.follow(body.type or "", body.token, caller)
    else:
        raise AuthRefusal("validation_failed", "Send token_hash, or token with email")
    return session_response(request, await links.session_of(followed, caller))


async def follow(request: web.Request) -> web.Response:
    """A link of a mail: 303 to where its asker wanted, with the session behind the #, with a code for the
    PKCE flow, or with what went wrong."""
    await count(request)
    links, caller = request.app[LINKS], caller_of(request)
    landing = links.landing(request.query.get("redirect_to"))
    kind = request.query.get("type", "")
    try:
        followed = await links.follow(kind, request.query.get("token", ""), caller)
        if "challenge" in followed.data:
            mark = "&" if "?" in landing else "?"
            head, hash_mark, rest = landing.partition("#")
            code = urlencode({"code": await links.flow_code(followed)})
            return _see_other(f"{head}{mark}{code}{hash_mark}{rest}")
        document = await links.session_of(followed, caller)
    except AuthRefusal as refusal:
        told = {"error": "access_denied", "error_code": refusal.code, "error_description": refusal.message}
        return _see_other(f"{landing.partition('#')[0]}#{urlencode(told)}")
    told = {
        name: str(document[name])
        for name in ("access_token", "expires_at", "expires_in", "refresh_token", "token_type")
    }
    return _see_other(f"{landing.partition('#')[0]}#{urlencode({**told, 'type': followed.kind})}")


async def exchange(request: web.Request) -> web.Response:
    """?grant_type=pkce: {auth_code, code_verifier}."""
    same_origin(request)
    body = await read_json(request, _exchange)
    if not body.auth_code or not body.code_verifier:
        raise AuthRefusal("validation_failed", "auth_code and code_verifier are required")
    return session_response(
        request,
        await request.app[LINKS].exchange(body.auth_code, body.code_verifier, caller_of(request)),
    )


async def reauthenticate(request: web.Request) -> web.Response:
    """A code to one's own address, to confirm a change with (`nonce`)."""
    await count(request)
    principal = await signed_in(request)
    await count_mail(request)
    assert principal.user_id is not None and principal.session_id is not None
    proof = await request.app[ACCOUNTS].prove_again(
        principal.user_id, principal.session_id, None, needed=False
    )
    await request.app[LINKS].reauthenticate(principal.user_id, proof["email"])
    return json_response({})


def _asked(request: web.Request, body: Any) -> Asked:
    return Asked(
        redirect_to=request.query.get("redirect_to"),
        challenge=body.code_challenge or None,
        challenge_method=body.code_challenge_method,
        is_web=is_web(request),
    )


def _see_other(address: str) -> web.Response:
    return web.Response(status=303, headers={"Location": address})
