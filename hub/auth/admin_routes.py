"""/auth/v1/admin and /invite: users as whoever holds the service_role key keeps them."""

from __future__ import annotations

import re
from typing import Any, Final
from uuid import UUID

import asyncpg
import msgspec
from aiohttp import web

from hub.auth.links import Asked, Kind, email_exists, plain
from hub.auth.passwords import weakness
from hub.auth.refusals import AuthRefusal
from hub.auth.requests import count, service
from hub.auth.sessions import user_object, weak_password
from hub.bodies import json_response, read_json
from hub.resources import DB, LINKS, PASSWORDS
from sql import q

_PER_PAGE: Final = 50
_MOST: Final = 1000
_DURATION: Final = re.compile(r"(?:(\d{1,7})h)?(?:(\d{1,7})m)?(?:(\d{1,7})s)?")


class _User(msgspec.Struct):
    """Of a new user or a change; strangers' fields are ignored, as GoTrue does."""

    email: str | None = None
    password: str | None = None
    email_confirm: bool = False
    user_metadata: dict[str, Any] | None = None
    app_metadata: dict[str, Any] | None = None
    ban_duration: str | None = None


class _Invite(msgspec.Struct):
    email: str = ""
    data: dict[str, Any] | None = None


class _Link(msgspec.Struct):
    type: str = ""
    email: str = ""
    password: str | None = None
    new_email: str | None = None
    data: dict[str, Any] | None = None
    redirect_to: str | None = None


class _Delete(msgspec.Struct):
    should_soft_delete: bool = False


_user: Final = msgspec.json.Decoder(_User)
_invite: Final = msgspec.json.Decoder(_Invite)
_link: Final = msgspec.json.Decoder(_Link)
_delete: Final = msgspec.json.Decoder(_Delete)


async def invite(request: web.Request) -> web.Response:
    """Make a user without a password and write to the address; for the service_role."""
    await count(request)
    await service(request)
    body = await read_json(request, _invite)
    asked = Asked(redirect_to=request.query.get("redirect_to"))
    user_id = await request.app[LINKS].invite(body.email, body.data, asked)
    return json_response(await _shown(request, user_id))


async def list_users(request: web.Request) -> web.Response:
    """All users, the newest first: ?page=1&per_page=50; for the service_role."""
    await count(request)
    await service(request)
    page = _number(request, "page", 1, 1_000_000)
    size = _number(request, "per_page", _PER_PAGE, _MOST)
    async with request.app[DB].connection("api") as conn:
        rows = await conn.fetch(q.list_users, size, (page - 1) * size)
    total = rows[0]["total"] if rows else 0
    last = max(1, -(-total // size))
    links = []
    for name, number in (("next", page + 1), ("last", last)):
        if page < last:
            links.append(f'<{request.path}?page={number}&per_page={size}>; rel="{name}"')
    headers = {"X-Total-Count": str(total)}
    if links:
        headers["Link"] = ", ".join(links)
    users = [user_object(msgspec.json.decode(row["document"]), None, None) for row in rows]
    return json_response({"users": users, "aud": "authenticated"}, headers=headers)


async def create_user(request: web.Request) -> web.Response:
    """Make a user; for the service_role."""
    await count(request)
    await service(request)
    body = await read_json(request, _user)
    if body.email is None:
        raise AuthRefusal("validation_failed", "Cannot create a user without either an email or phone")
    user_id = await _put(request, None, body)
    assert user_id is not None
    return json_response(await _shown(request, user_id))


async def get_user(request: web.Request) -> web.Response:
    """One user; for the service_role."""
    await count(request)
    await service(request)
    return json_response(await _shown(request, _id(request)))


async def change_user(request: web.Request) -> web.Response:
    """Change a user; a new password or a ban ends the sessions. For the service_role."""
    await count(request)
    await service(request)
    user_id = _id(request)
    if await _put(request, user_id, await read_json(request, _user)) is None:
        raise _unknown()
    return json_response(await _shown(request, user_id))


async def delete_user(request: web.Request) -> web.Response:
    """Delete a user, with memberships and sessions; for the service_role."""
    await count(request)
    await service(request)
    body = await read_json(request, _delete, empty=_Delete())
    if body.should_soft_delete:
        raise AuthRefusal("validation_failed", "Soft deletion is not offered: ban the user instead")
    async with request.app[DB].connection("api") as conn:
        if not await conn.fetchval(q.drop_user, _id(request)):
            raise _unknown()
    return json_response({})


async def list_factors(request: web.Request) -> web.Response:
    """A user's second factors; for the service_role."""
    await count(request)
    await service(request)
    return json_response((await _shown(request, _id(request))).get("factors", []))


async def delete_factor(request: web.Request) -> web.Response:
    """Take a second factor away from a user who lost it; for the service_role."""
    await count(request)
    await service(request)
    user_id = _id(request)
    try:
        factor = UUID(request.match_info["factor"])
    except ValueError:
        factor = UUID(int=0)
    async with request.app[DB].connection("api") as conn:
        if await conn.fetchval(q.remove_factor, user_id, factor) is None:
            raise AuthRefusal("mfa_factor_not_found", "Factor not found", 404)
    return json_response({"id": factor})


async def generate_link(request: web.Request) -> web.Response:
    """A link that the caller passes on by other ways than mail; for the service_role."""
    await count(request)
    await service(request)
    body = await read_json(request, _link)
    address = plain(body.email)
    asked = Asked(redirect_to=body.redirect_to or request.query.get("redirect_to"))
    kind: Kind
    if body.type in ("signup", "invite", "magiclink", "recovery"):
        kind = body.type  # type: ignore[assignment]
    elif body.type in ("email_change_new", "email_change_current"):
        kind = "email_change"
    else:
        raise AuthRefusal("validation_failed", "Unsupported type of link")
    new_address = plain(body.new_email or "") if kind == "email_change" else None
    async with request.app[DB].connection("api") as conn:
        row = await conn.fetchrow(q.user_by_email, address)
    if row is None and kind in ("signup", "invite", "magiclink"):
        if kind == "signup" and not body.password:
            raise AuthRefusal("validation_failed", "Signup requires a valid password")
        made = _User(email=address, password=body.password, user_metadata=body.data)
        user_id = await _put(request, None, made)
        assert user_id is not None
    elif row is None:
        raise _unknown()
    elif kind in ("signup", "invite") and row["confirmed"]:
        raise email_exists()
    else:
        user_id = row["id"]
    link = await request.app[LINKS].generate(kind, user_id, address, asked, new_address)
    return json_response({**await _shown(request, user_id), **link})


async def _put(request: web.Request, user_id: UUID | None, body: _User) -> UUID | None:
    """The user's id; None when there is none to change. Raises AuthRefusal."""
    hashed = None
    if body.password is not None:
        why = weakness(body.password)
        if why is not None:
            raise weak_password(why)
        hashed = await request.app[PASSWORDS].hash(body.password)
    try:
        async with request.app[DB].connection("api") as conn:
            found: UUID | None = await conn.fetchval(
                q.put_user,
                user_id,
                plain(body.email) if body.email is not None else None,
                hashed,
                body.email_confirm,
                _json(body.user_metadata),
                _json(body.app_metadata),
                _ban_s(body.ban_duration),
            )
    except asyncpg.UniqueViolationError as error:
        raise email_exists() from error
    return found


async def _shown(request: web.Request, user_id: UUID) -> dict[str, Any]:
    async with request.app[DB].connection("api") as conn:
        raw = await conn.fetchval(q.user_document, user_id)
    if raw is None:
        raise _unknown()
    return user_object(msgspec.json.decode(raw), None, None)


def _unknown() -> AuthRefusal:
    return AuthRefusal("user_not_found", "User not found", 404)


def _id(request: web.Request) -> UUID:
    try:
        return UUID(request.match_info["id"])
    except ValueError as error:
        raise AuthRefusal("validation_failed", "user_id must be an UUID", 404) from error


def _number(request: web.Request, name: str, default: int, most: int) -> int:
    text = request.query.get(name) or str(default)
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) >= 1):
        raise AuthRefusal("validation_failed", f"Bad Pagination Parameters: {name}")
    return min(int(text), most)


def _ban_s(text: str | None) -> float | None:
    """GoTrue writes Go's durations ("24h", "1h30m"), and "none" to end a ban."""
    if text is None:
        return None
    if text == "none":
        return 0.0
    match = _DURATION.fullmatch(text)
    if match is None or not any(match.groups()):
        raise AuthRefusal("validation_failed", "ban_duration is written like 24h or 1h30m, or none")
    hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return hours * 3600.0 + minutes * 60 + seconds


def _json(value: dict[str, Any] | None) -> str | None:
    if value is None:
        return None
    encoded = msgspec.json.encode(value)
    if len(encoded) > 16_384:
        raise AuthRefusal("validation_failed", "metadata is larger than 16 KiB")
    return encoded.decode()
