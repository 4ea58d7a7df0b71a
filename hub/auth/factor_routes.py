"""/auth/v1/factors as GoTrue's clients know it, and recovery codes, which are ours."""

from __future__ import annotations

from typing import Final

import msgspec
from aiohttp import web

from hub.auth.refusals import AuthRefusal
from hub.auth.requests import caller_of, count, same_origin, session_response, signed_in
from hub.bodies import json_response, read_json
from hub.resources import FACTORS


class _Enroll(msgspec.Struct):
    friendly_name: str | None = None
    factor_type: str = ""
    issuer: str | None = None


class _Code(msgspec.Struct):
    code: str = ""
    challenge_id: str = ""


_enroll: Final = msgspec.json.Decoder(_Enroll)
_code: Final = msgspec.json.Decoder(_Code)


async def enroll(request: web.Request) -> web.Response:
    """A new second factor: {factor_type: "totp", friendly_name}; its secret is shown this once."""
    await count(request)
    principal = await signed_in(request)
    body = await read_json(request, _enroll)
    if body.factor_type == "phone":
        raise AuthRefusal("mfa_phone_enroll_not_enabled", "MFA enroll is disabled for Phone", 422)
    if body.factor_type != "totp":
        raise AuthRefusal("validation_failed", "factor_type needs to be totp")
    assert principal.user_id is not None and principal.session_id is not None
    return json_response(
        await request.app[FACTORS].enroll(
            principal.user_id, principal.session_id, body.friendly_name, body.issuer
        )
    )


async def challenge(request: web.Request) -> web.Response:
    """Five minutes for one code of this factor."""
    await count(request)
    principal = await signed_in(request)
    assert principal.user_id is not None
    return json_response(await request.app[FACTORS].challenge(principal.user_id, request.match_info["id"]))


async def verify(request: web.Request) -> web.Response:
    """{challenge_id, code}: the session, with its second factor."""
    await count(request)
    same_origin(request)
    principal = await signed_in(request)
    body = await read_json(request, _code)
    assert principal.user_id is not None and principal.session_id is not None
    document = await request.app[FACTORS].verify(
        principal.user_id, principal.session_id, request.match_info["id"], body.challenge_id, body.code,
        caller_of(request),
    )  # fmt: skip
    return session_response(request, document)


async def unenroll(request: web.Request) -> web.Response:
    """Take a factor away; a verified one in a session with a second factor."""
    await count(request)
    principal = await signed_in(request)
    assert principal.user_id is not None and principal.session_id is not None
    return json_response(
        await request.app[FACTORS].unenroll(principal.user_id, principal.session_id, request.match_info["id"])
    )


async def codes_left(request: web.Request) -> web.Response:
    """How many recovery codes are left: {left}."""
    await count(request)
    principal = await signed_in(request)
    assert principal.user_id is not None
    return json_response({"left": await request.app[FACTORS].codes_left(principal.user_id)})


async def make_codes(request: web.Request) -> web.Response:
    """Ten recovery codes, shown this once; earlier ones end."""
    await count(request)
    principal = await signed_in(request)
    assert principal.user_id is not None and principal.session_id is not None
    codes = await request.app[FACTORS].make_codes(principal.user_id, principal.session_id)
    return json_response({"codes": codes})


async def use_code(request: web.Request) -> web.Response:
    """{code}: the session, with a recovery code instead of a second factor."""
    await count(request)
    same_origin(request)
    principal = await signed_in(request)
    body = await read_json(request, _code)
    assert principal.user_id is not None and principal.session_id is not None
    document = await request.app[FACTORS].use_code(
        principal.user_id, principal.session_id, body.code, caller_of(request)
    )
    return session_response(request, document)
