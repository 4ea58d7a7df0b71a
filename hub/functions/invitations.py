"""Invitations: send-invitation-email, list-invitations, resend-invitation, revoke-invitation for those who
manage the team; check-invitation and accept-invitation for whoever has the link.

The link's token goes by mail to the invited address and nowhere else: whoever comes with it has that
mailbox. It works once, for seven days, and for that address alone.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from typing import Any, Final
from uuid import UUID

import asyncpg
import msgspec
from aiohttp import web

from hub.auth.mail import drop_mail, enqueue_mail
from hub.auth.passwords import weakness
from hub.auth.refusals import AuthRefusal
from hub.auth.sessions import Caller
from hub.bodies import decode_json, json_response, read_body, read_json
from hub.db.tenancy import acting_as
from hub.domain.permissions import PERMISSIONS, ROLE_DEFAULTS, Role
from hub.domain.principal import Principal
from hub.edge import client_address, network_of
from hub.errors import (
    AuthenticationFailed,
    Conflict,
    InsufficientPermissions,
    NotFound,
    RateLimited,
    invalid,
)
from hub.functions.calls import once, plain_text
from hub.resources import ACCOUNTS, AUTH, DB, PASSWORDS, REQUEST_ID, SETTINGS
from sql import q

_LISTED: Final = 500
#: Nobody floods other people's mailboxes from here.
_MOST_A_DAY: Final = 200
#: ASCII alone, as letters that look alike or fold into each other would make one person's address another's
#: (U+212A, the sign of the kelvin, is a k in lower case). Domains in other scripts have an ASCII form.
_ADDRESS: Final = re.compile(
    r"[a-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?", re.ASCII
)
_encode = msgspec.json.Encoder(uuid_format="canonical").encode


class _Send(msgspec.Struct, forbid_unknown_fields=True):
    email: str | None = None
    role: Role = "AGENT"
    permissions: dict[str, bool] | None = None


class _Which(msgspec.Struct, forbid_unknown_fields=True):
    id: UUID


class _Token(msgspec.Struct, forbid_unknown_fields=True):
    token: str


class _Accept(msgspec.Struct, forbid_unknown_fields=True):
    token: str | None = None
    email: str | None = None
    password: str | None = None
    first_name: str | None = None
    last_name: str | None = None


_send = msgspec.json.Decoder(_Send)
_which = msgspec.json.Decoder(_Which)
_token = msgspec.json.Decoder(_Token)
_accept = msgspec.json.Decoder(_Accept)


def _address(given: str | None) -> str:
    """As it is stored. Raises ValidationFailed in the document's words."""
    text = (given or "").strip()
    address = text.lower() if text.isascii() else ""
    if len(address) > 320 or not _ADDRESS.fullmatch(address) or ".." in address:
        raise invalid("email", "Invalid email format" if text else "email is required")
    return address


def _granted(principal: Principal, role: Role, given: dict[str, bool] | None) -> dict[str, bool] | None:
    """Permissions to begin with; None for an owner, who has them all. Raises InsufficientPermissions for what
    the inviter lacks himself."""
    if role == "OWNER":
        if given is not None and not all(given.get(p, True) for p in PERMISSIONS):
            raise invalid("permissions", "an owner has all permissions")
        return None
    if given is None:
        return {p: p in ROLE_DEFAULTS[role] and p in principal.permissions for p in PERMISSIONS}
    for name, value in given.items():
        if name not in PERMISSIONS:
            raise invalid(f"permissions.{name}", f"must be one of {', '.join(PERMISSIONS)}")
        if value and name not in principal.permissions:
            raise InsufficientPermissions(
                "You cannot give a permission that you lack", details={"missing": [name]}
            )
    return {p: given.get(p, p in ROLE_DEFAULTS[role] and p in principal.permissions) for p in PERMISSIONS}


async def send_invitation_email(request: web.Request, principal: Principal) -> web.Response:
    """Invite an address: a mail with a link that works once, for seven days. The link is in the mail alone,
    so that nobody joins, or makes an account, in the name of an address that is not his."""
    raw = await read_body(request)
    body = decode_json(raw, _send, request.content_type)
    address = _address(body.email)
    granted = _granted(principal, body.role, body.permissions)

    async def work(conn: Any) -> Any:
        if await conn.fetchval(q.active_member_called, address):
            raise Conflict("This address is a member already")
        if await conn.fetchval(q.count_invitations) >= _MOST_A_DAY:
            raise RateLimited(f"At most {_MOST_A_DAY} invitations a day", retry_after_s=3600)
        await conn.execute(q.end_stale_invitation, address)
        try:
            made = await conn.fetchval(
                q.insert_invitation,
                address,
                body.role,
                None if granted is None else _encode(granted).decode(),
                principal.user_id,
            )
        except asyncpg.UniqueViolationError as error:
            raise Conflict(
                "This address has an invitation that stands", hint="Send it again with resend-invitation"
            ) from error
        return await _post(request, conn, principal, made)

    return await once(request, principal, raw, work)


async def resend_invitation(request: web.Request, principal: Principal) -> web.Response:
    """Mail an invitation again, with a new link that is good for seven days; the earlier link ends."""
    raw = await read_body(request)
    body = decode_json(raw, _which, request.content_type)

    async def work(conn: Any) -> Any:
        return await _post(request, conn, principal, body.id)

    return await once(request, principal, raw, work)


async def _post(request: web.Request, conn: Any, principal: Principal, invitation: UUID) -> dict[str, Any]:
    """A link for the invitation, and the mail that has it, in the caller's transaction."""
    settings = request.app[SETTINGS]
    token = secrets.token_urlsafe(32)
    row = await conn.fetchrow(q.keep_invitation_token, invitation, _digest(token))
    if row is None:
        raise NotFound("No such invitation")
    if row["outcome"] == "settled":
        raise Conflict("This invitation was accepted or revoked")
    if row["outcome"] == "too_soon":
        raise RateLimited("This invitation was sent less than a minute ago", retry_after_s=60)
    named = await conn.fetchrow(q.inviting_as, principal.user_id)
    await enqueue_mail(
        conn,
        settings,
        "invitation",
        row["email"],
        {
            # behind #, which no browser sends and no proxy logs
            "link": f"{settings.public_base_url}/invitation#token={token}",
            "organization": named["name"],
            "inviter": named["inviter"] or named["name"],
            "role": row["role"],
        },
        organization_id=principal.organization_id,
        key=_key(invitation),
    )
    return {"success": True, "invitation": _shown(row, "pending")}


def _key(invitation: UUID) -> str:
    return f"invitation:{invitation}"


def _shown(row: Any, status: str) -> dict[str, Any]:
    return {
        "id": row["id"],
        "email": row["email"],
        "role": row["role"],
        "permissions": None if row["permissions"] is None else msgspec.Raw(row["permissions"].encode()),
        "invited_by": row["invited_by"],
        "status": status,
        "expires_at": row["expires_at"],
        "created_at": row["created_at"],
    }


async def revoke_invitation(request: web.Request, principal: Principal) -> web.Response:
    """Take an invitation back: its link opens nothing any more, and a mail that still waits is not sent."""
    raw = await read_body(request)
    body = decode_json(raw, _which, request.content_type)

    async def work(conn: Any) -> Any:
        row = await conn.fetchrow(q.revoke_invitation, body.id)
        if row is None:
            state = await conn.fetchrow(q.invitation_state, body.id)
            if state is None:
                raise NotFound("No such invitation")
            raise Conflict("This invitation was accepted or revoked")
        assert principal.organization_id is not None
        await drop_mail(conn, principal.organization_id, _key(body.id))
        return {"success": True, "invitation": {**row, "status": "revoked"}}

    return await once(request, principal, raw, work)


async def list_invitations(request: web.Request, principal: Principal) -> web.Response:
    """The newest 500 invitations, with what became of each: pending, accepted, revoked or expired."""
    async with acting_as(request.app[DB], principal, read_only=True) as conn:
        rows = await conn.fetch(q.list_invitations, _LISTED)
    found = [
        {
            **_shown(row, row["status"]),
            "accepted_at": row["accepted_at"],
            "revoked_at": row["revoked_at"],
        }
        for row in rows
    ]
    return json_response({"invitations": found, "count": len(found)})


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


async def check_invitation(request: web.Request, principal: Principal) -> web.Response:
    """What a link opens: organization, address, role, and whether that address signs in here already. For the
    page that asks for a password."""
    body = await read_json(request, _token)
    found = await _standing(request, body.token)
    return json_response(
        {
            "organization": {"name": found["organization_name"]},
            "email": found["email"],
            "role": found["role"],
            "expires_at": found["expires_at"],
            "has_account": found["has_account"],
        }
    )


async def _standing(request: web.Request, token: str) -> Any:
    """The open invitation of a link. Raises NotFound for one that never was, was revoked, replaced or ran
    out, Conflict for one that was used."""
    async with request.app[DB].connection("api") as conn:
        found = await conn.fetchrow(q.invitation_by_token, _digest(token)) if len(token) <= 200 else None
    if found is None:
        raise NotFound("This invitation does not stand", hint="Ask for a new one")
    if found["state"] != "open":
        await _refused(request, token, found["state"])
        _raise_closed(found["state"])
    return found


def _raise_closed(state: str) -> None:
    if state == "used":
        raise Conflict("This invitation was used already", hint="Sign in")
    raise NotFound("This invitation does not stand", hint="Ask for a new one")


async def _refused(request: web.Request, token: str, reason: str) -> None:
    address = client_address(request, request.app[SETTINGS])
    async with request.app[DB].connection("api") as conn:
        await conn.execute(q.refuse_invitation, _digest(token), reason, address, request[REQUEST_ID])


async def accept_invitation(request: web.Request, principal: Principal) -> web.Response:
    """Join by a link. A new person chooses a password; one who has an account here proves it, with its
    password or by being signed in. The address must be the invited one. Sign in afterwards."""
    body = await read_json(request, _accept)
    if not body.token:
        raise invalid("token", "token is required")
    given = _address(body.email)
    names = [
        None if text is None or not text.strip() else plain_text(field, text, 100)
        for field, text in (("first_name", body.first_name), ("last_name", body.last_name))
    ]
    found = await _standing(request, body.token)
    if given != found["email"]:
        await _refused(request, body.token, "another address")
        raise InsufficientPermissions("This invitation is for another address", details={"missing": []})
    person, hashed = await _person(request, principal, body, found)
    address = client_address(request, request.app[SETTINGS])
    async with request.app[DB].connection("api") as conn:
        row = await conn.fetchrow(
            q.accept_invitation, _digest(body.token), person, hashed, *names, address, request[REQUEST_ID]
        )
    if row["outcome"] == "has_account":
        raise Conflict("This address has an account by now", hint="Accept with its password")
    if row["outcome"] != "joined":
        await _refused(request, body.token, row["outcome"])
        _raise_closed(row["outcome"])
    request.app[AUTH].forget_member(row["organization_id"], row["user_id"])
    return json_response(
        {
            "success": True,
            "user": {"id": row["user_id"], "email": found["email"]},
            "organization": {
                "id": row["organization_id"],
                "name": found["organization_name"],
                "role": row["role"],
            },
        }
    )


async def _person(
    request: web.Request, principal: Principal, body: _Accept, found: Any
) -> tuple[UUID | None, str | None]:
    """Who joins: a user who has proved who he is, or None and the password hash of a new one."""
    if principal.user_id is not None:
        state = await request.app[ACCOUNTS].user(principal.user_id, None)
        if state["email"] != found["email"]:
            assert body.token is not None
            await _refused(request, body.token, "signed in with another address")
            raise InsufficientPermissions(
                "You are signed in with another address than the invited one", details={"missing": []}
            )
        return principal.user_id, None
    if not body.password:
        raise invalid("password", "password is required")
    if found["has_account"]:
        address = client_address(request, request.app[SETTINGS])
        caller = Caller(
            address=address, network=network_of(address), user_agent="", request_id=request[REQUEST_ID]
        )
        try:
            return await request.app[ACCOUNTS].prove(found["email"], body.password, caller), None
        except AuthRefusal as error:
            if error.status == 429:
                raise RateLimited(error.message, retry_after_s=error.retry_after_s) from error
            raise AuthenticationFailed(
                "This address has an account here; its password is another",
                hint="Sign in, or ask for a new password, and open the link again",
            ) from error
    if weakness(body.password) is not None:
        raise invalid("password", "Use 8 to 256 characters that are not a common password")
    return None, await request.app[PASSWORDS].hash(body.password)
