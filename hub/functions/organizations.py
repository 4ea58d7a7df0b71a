"""Organizations: list-organizations, create-organization, switch-organization, leave-organization. Their
settings are a table's: /rest/v1/organizations."""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

import msgspec
from aiohttp import web

from hub.bodies import json_response, read_body, read_json
from hub.domain.principal import Principal
from hub.errors import Conflict, NotFound, invalid
from hub.functions.calls import once, plain_text
from hub.resources import AUTH, DB
from sql import q

#: Organizations one user may own. Whoever needs more asks the operator.
_MOST_OWNED: Final = 20


class _Create(msgspec.Struct, forbid_unknown_fields=True):
    name: str | None = None
    timezone: str | None = None
    locale: str | None = None
    currency: str | None = None
    suitId: str | None = None


class _Switch(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    organizationId: UUID | None = None
    organization_id: UUID | None = None


_create = msgspec.json.Decoder(_Create)
_switch = msgspec.json.Decoder(_Switch)


async def list_organizations(request: web.Request, principal: Principal) -> web.Response:
    """The caller's memberships; a key's own organization."""
    if principal.user_id is not None:
        async with request.app[DB].connection("api") as conn:
            rows = await conn.fetch(q.organizations_of, principal.user_id)
    else:
        async with request.app[DB].connection("api") as conn:
            rows = await conn.fetch(q.organization_summary, principal.organization_id)
    found = [
        {
            "id": row["id"],
            "name": row["name"],
            "suitId": row["suit_id"],
            "hasAppgainCredentials": row["has_appgain_credentials"],
        }
        for row in rows
    ]
    return json_response({"organizations": found, "count": len(found)})


async def create_organization(request: web.Request, principal: Principal) -> web.Response:
    """A new organization, which the caller owns and whose session moves there."""
    assert principal.user_id is not None
    body = await read_json(request, _create)
    name = plain_text("name", body.name, 200)
    suit = None if body.suitId is None else plain_text("suitId", body.suitId, 200)
    for field, value in (("timezone", body.timezone), ("locale", body.locale), ("currency", body.currency)):
        if value is not None and (len(value) > 60 or not value.isascii() or not value.isprintable()):
            raise invalid(field, "is none that is known")
    async with request.app[DB].connection("api") as conn:
        made = await conn.fetchval(
            q.create_organization,
            principal.user_id,
            principal.session_id,
            name,
            body.timezone,
            body.locale,
            body.currency,
            suit,
            _MOST_OWNED,
            principal.address,
            principal.request_id,
        )
        if made is None:
            raise Conflict(f"You own {_MOST_OWNED} organizations already")
    if principal.session_id is not None:
        request.app[AUTH].forget_session(principal.session_id)
    return await _entered(request, principal.user_id, made, status=201)


async def switch_organization(request: web.Request, principal: Principal) -> web.Response:
    """Move this session to another organization of its user: REST and sockets follow within five seconds, the
    next access token carries it."""
    assert principal.session_id is not None and principal.user_id is not None
    body = await read_json(request, _switch)
    wanted = body.organizationId or body.organization_id
    if wanted is None:
        raise invalid("organizationId", "organizationId is required")
    async with request.app[DB].connection("api") as conn:
        moved = await conn.fetchval(
            q.switch_organization,
            principal.session_id,
            principal.user_id,
            wanted,
            principal.address,
            principal.request_id,
        )
    if not moved:
        raise NotFound("No such organization")
    request.app[AUTH].forget_session(principal.session_id)
    return await _entered(request, principal.user_id, wanted)


async def _entered(
    request: web.Request, user_id: UUID, organization_id: UUID, status: int = 200
) -> web.Response:
    async with request.app[DB].connection("api") as conn:
        rows = await conn.fetch(q.organizations_of, user_id)
    found = next((row for row in rows if row["id"] == organization_id), None)
    if found is None:
        raise NotFound("No such organization")  # taken away in between
    return json_response(
        {
            "success": True,
            "organization": {
                "id": found["id"],
                "name": found["name"],
                "suitId": found["suit_id"],
                "role": found["role"],
            },
        },
        status,
    )


async def leave_organization(request: web.Request, principal: Principal) -> web.Response:
    """End one's own membership; its sessions and sockets end with it. The last owner stays."""
    raw = await read_body(request)
    if raw.strip() not in (b"", b"{}"):
        raise invalid("body", "takes nothing: one leaves the organization that the session is in")
    if principal.user_id is None or principal.organization_id is None:
        raise NotFound("You are in no organization")

    async def work(conn: Any) -> Any:
        await conn.execute(q.leave_organization)
        return {"success": True}

    answer = await once(request, principal, raw, work)
    request.app[AUTH].forget_member(principal.organization_id, principal.user_id)
    return answer
