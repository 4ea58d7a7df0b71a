"""Organizations and their keys: generate-api-key, list-organizations, switch-organization."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final
from uuid import UUID

import msgspec
from aiohttp import web

from hub import clock
from hub.auth.apikeys import hash_key, new_key, prefix_of
from hub.bodies import JSON_BYTES, decode_json, json_response, read_body, read_json
from hub.domain.permissions import PERMISSIONS
from hub.domain.principal import Principal
from hub.errors import AuthenticationFailed, InsufficientPermissions, NotFound, invalid
from hub.functions.calls import once, require_permission
from hub.resources import AUTH, DB
from sql import q

_LONGEST_LIFE_DAYS: Final = 3650
#: Those of the API document's sample.
_DEFAULT_PERMISSIONS: Final = {"can_send_messages": True, "can_read_messages": False}
_encode = msgspec.json.Encoder(uuid_format="canonical").encode


class _Generate(msgspec.Struct, forbid_unknown_fields=True):
    name: str | None = None
    expires_in_days: int | None = None
    permissions: dict[str, bool] | None = None


class _Switch(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    organizationId: UUID | None = None
    organization_id: UUID | None = None


_generate = msgspec.json.Decoder(_Generate)
_switch = msgspec.json.Decoder(_Switch)


async def generate_api_key(request: web.Request, principal: Principal) -> web.Response:
    """A new key; its text is in this answer and nowhere else. A member cannot give a key what he may not do
    himself."""
    require_permission(principal, "can_manage_settings")
    if principal.role not in ("OWNER", "ADMIN"):
        raise InsufficientPermissions("Only owners and administrators make keys", details={"missing": []})
    raw = await read_body(request, JSON_BYTES)
    body = decode_json(raw, _generate, request.content_type)
    name = (body.name or "").strip()
    if not name:
        raise invalid("name", "name is required")
    if len(name) > 200 or "\x00" in name:
        raise invalid("name", "must have at most 200 characters")
    days = body.expires_in_days
    if days is not None and not 1 <= days <= _LONGEST_LIFE_DAYS:
        raise invalid("expires_in_days", f"must be from 1 to {_LONGEST_LIFE_DAYS}")
    granted = body.permissions if body.permissions is not None else dict(_DEFAULT_PERMISSIONS)
    for permission, value in granted.items():
        if permission not in PERMISSIONS:
            raise invalid(f"permissions.{permission}", f"must be one of {', '.join(PERMISSIONS)}")
        if value and permission not in principal.permissions:
            raise InsufficientPermissions(
                "A key cannot have a permission that you lack", details={"missing": [permission]}
            )
    expires_at = clock.now() + timedelta(days=days) if days is not None else None
    ring = await request.app[AUTH].keyring()
    key = new_key()

    async def work(conn: Any) -> Any:
        row = await conn.fetchrow(
            q.insert_api_key, name, prefix_of(key), _encode(granted).decode(), principal.user_id, expires_at
        )
        await conn.execute(q.keep_api_key_hash, row["id"], hash_key(ring.pepper, key))
        return {
            "success": True,
            "api_key": key,
            "key_info": {
                "id": row["id"],
                "name": row["name"],
                "key_prefix": f"{row['key_prefix']}...",
                "expires_at": row["expires_at"],
                "created_at": row["created_at"],
            },
            "warning": "Save this API key now. You will not be able to see it again!",
        }

    if "Idempotency-Key" in request.headers:
        # An answer that is kept would keep the key as well.
        raise invalid("Idempotency-Key", "is not accepted here: the key is shown once")
    return await once(request, principal, raw, work)


async def list_organizations(request: web.Request, principal: Principal) -> web.Response:
    """The caller's memberships; a key's own organization."""
    if principal.user_id is not None:
        async with request.app[DB].connection("api") as conn:
            rows = await conn.fetch(q.organizations_of, principal.user_id)
    elif principal.organization_id is not None:
        async with request.app[DB].connection("api") as conn:
            rows = await conn.fetch(q.organization_summary, principal.organization_id)
    else:
        raise AuthenticationFailed("Sign in, or use an organization's API key")
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


async def switch_organization(request: web.Request, principal: Principal) -> web.Response:
    """Move this session to another organization of its user: REST and sockets follow within five seconds, the
    next access token carries it."""
    if principal.session_id is None or principal.user_id is None:
        raise AuthenticationFailed("Only a signed-in user can switch")
    body = await read_json(request, _switch)
    wanted = body.organizationId or body.organization_id
    if wanted is None:
        raise invalid("organizationId", "organizationId is required")
    async with request.app[DB].connection("api") as conn:
        moved = await conn.fetchval(q.switch_organization, principal.session_id, principal.user_id, wanted)
        rows = await conn.fetch(q.organizations_of, principal.user_id) if moved else []
    if not moved:
        raise NotFound("No such organization")
    request.app[AUTH].forget_session(principal.session_id)
    found = next(row for row in rows if row["id"] == wanted)
    return json_response(
        {
            "success": True,
            "organization": {
                "id": found["id"],
                "name": found["name"],
                "suitId": found["suit_id"],
                "role": found["role"],
            },
        }
    )
