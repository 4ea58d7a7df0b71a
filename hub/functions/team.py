"""Members: list-members and update-member. The same columns can be written under /rest/v1/memberships and
profiles; here a change of role, permissions, visibility and teams is one."""

from __future__ import annotations

from typing import Any, Final, Literal
from uuid import UUID

import msgspec
from aiohttp import web

from hub.bodies import decode_json, json_response, read_body
from hub.db.tenancy import acting_as
from hub.domain.permissions import PERMISSIONS, Role
from hub.domain.principal import Principal
from hub.errors import NotFound, invalid
from hub.functions.calls import once
from hub.resources import AUTH, DB, NOTES
from sql import q

_MOST_TEAMS: Final = 100
_encode = msgspec.json.Encoder(uuid_format="canonical").encode


class _Change(msgspec.Struct, forbid_unknown_fields=True):
    """What is left out stays as it is. A role brings its own permissions; those that are named come after."""

    user_id: UUID
    role: Role | None = None
    permissions: dict[str, bool] | None = None
    is_active: bool | None = None
    visibility: Literal["all", "team", "mine"] | None = None
    team_ids: list[UUID] | None = None


_change = msgspec.json.Decoder(_Change)


async def list_members(request: web.Request, principal: Principal) -> web.Response:
    """Everybody in the organization, those who left last: role, six permissions, visibility, teams."""
    async with acting_as(request.app[DB], principal, read_only=True) as conn:
        rows = await conn.fetch(q.list_members, None)
    return json_response({"members": [_shown(row) for row in rows], "count": len(rows)})


def _shown(row: Any) -> dict[str, Any]:
    found = {name: value for name, value in row.items() if name not in PERMISSIONS}
    return {**found, "permissions": {name: row[name] for name in PERMISSIONS}}


async def update_member(request: web.Request, principal: Principal) -> web.Response:
    """Change a member: role, permissions, visibility, teams, active or not. Whoever is deactivated is signed
    out at once; nobody raises himself, or anyone above himself; the last owner stays."""
    raw = await read_body(request)
    body = decode_json(raw, _change, request.content_type)
    for name in body.permissions or {}:
        if name not in PERMISSIONS:
            raise invalid(f"permissions.{name}", f"must be one of {', '.join(PERMISSIONS)}")
    if body.team_ids is not None and len(body.team_ids) > _MOST_TEAMS:
        raise invalid("team_ids", f"must name at most {_MOST_TEAMS} teams")

    async def work(conn: Any) -> Any:
        if await conn.fetchrow(q.member_for_update, body.user_id) is None:
            request.app[NOTES].refused(
                principal,
                "update-member",
                "no such member",
                target_table="memberships",
                target_id=body.user_id,
            )
            raise NotFound("No such member")
        if (body.role, body.is_active, body.visibility) != (None, None, None):
            await conn.fetchval(q.update_member, body.user_id, body.role, body.is_active, body.visibility)
        if body.permissions:
            await conn.execute(q.permit_member, body.user_id, _encode(body.permissions).decode())
        if body.team_ids is not None:
            await conn.execute(q.leave_teams, body.user_id, body.team_ids)
            await conn.execute(q.join_teams, body.user_id, body.team_ids)
        row = await conn.fetchrow(q.list_members, body.user_id)
        return {"success": True, "member": _shown(row)}

    answer = await once(request, principal, raw, work)
    assert principal.organization_id is not None
    request.app[AUTH].forget_member(principal.organization_id, body.user_id)
    return answer
