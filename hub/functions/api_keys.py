"""Organization keys: generate-api-key, list-api-keys, revoke-api-key, rotate-api-key."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import msgspec
from aiohttp import web

from hub import clock
from hub.auth.apikeys import hash_key, new_key, prefix_of
from hub.bodies import JSON_BYTES, decode_json, json_response, read_body
from hub.db.tenancy import acting_as
from hub.domain.permissions import PERMISSIONS
from hub.domain.principal import Principal
from hub.errors import InsufficientPermissions, NotFound, invalid
from hub.functions.calls import once, plain_text
from hub.resources import AUTH, DB
from sql import q

_LONGEST_LIFE_DAYS: Final = 3650
#: How long an earlier key may go on beside its successor.
_LONGEST_OVERLAP_H: Final = 30 * 24
#: Those of the API document's sample.
_DEFAULT_PERMISSIONS: Final = {"can_send_messages": True, "can_read_messages": False}
_WARNING: Final = "Save this API key now. You will not be able to see it again!"
_encode = msgspec.json.Encoder(uuid_format="canonical").encode


class _Generate(msgspec.Struct, forbid_unknown_fields=True):
    name: str | None = None
    expires_in_days: int | None = None
    permissions: dict[str, bool] | None = None


class _Which(msgspec.Struct, forbid_unknown_fields=True):
    id: UUID


class _Rotate(msgspec.Struct, forbid_unknown_fields=True):
    id: UUID
    expires_in_days: int | None = None
    overlap_hours: int = 24


_generate = msgspec.json.Decoder(_Generate)
_which = msgspec.json.Decoder(_Which)
_rotate = msgspec.json.Decoder(_Rotate)


def _end_of(days: int | None) -> datetime | None:
    if days is not None and not 1 <= days <= _LONGEST_LIFE_DAYS:
        raise invalid("expires_in_days", f"must be from 1 to {_LONGEST_LIFE_DAYS}")
    return clock.now() + timedelta(days=days) if days is not None else None


def _once_only(request: web.Request) -> None:
    if "Idempotency-Key" in request.headers:
        # An answer that is kept would keep the key as well.
        raise invalid("Idempotency-Key", "is not accepted here: the key is shown once")


async def _make(
    conn: Any, principal: Principal, pepper: bytes, name: str, granted: str, expires_at: datetime | None
) -> dict[str, Any]:
    """A new key's row, and its text, which is in this document and nowhere else."""
    key = new_key()
    row = await conn.fetchrow(q.insert_api_key, name, prefix_of(key), granted, principal.user_id, expires_at)
    await conn.execute(q.keep_api_key_hash, row["id"], hash_key(pepper, key))
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
        "warning": _WARNING,
    }


async def generate_api_key(request: web.Request, principal: Principal) -> web.Response:
    """A new key; its text is in this answer and nowhere else. A member cannot give a key what he may not do
    himself."""
    raw = await read_body(request, JSON_BYTES)
    body = decode_json(raw, _generate, request.content_type)
    name = plain_text("name", body.name, 200)
    expires_at = _end_of(body.expires_in_days)
    granted = body.permissions if body.permissions is not None else dict(_DEFAULT_PERMISSIONS)
    for permission, value in granted.items():
        if permission not in PERMISSIONS:
            raise invalid(f"permissions.{permission}", f"must be one of {', '.join(PERMISSIONS)}")
        if value and permission not in principal.permissions:
            raise InsufficientPermissions(
                "A key cannot have a permission that you lack", details={"missing": [permission]}
            )
    _once_only(request)
    ring = await request.app[AUTH].keyring()

    async def work(conn: Any) -> Any:
        return await _make(conn, principal, ring.pepper, name, _encode(granted).decode(), expires_at)

    return await once(request, principal, raw, work)


async def rotate_api_key(request: web.Request, principal: Principal) -> web.Response:
    """A successor with the same name and permissions; the earlier key goes on for `overlap_hours` (24; 0:
    not at all), so that what uses it can be changed without a gap."""
    raw = await read_body(request, JSON_BYTES)
    body = decode_json(raw, _rotate, request.content_type)
    expires_at = _end_of(body.expires_in_days)
    if not 0 <= body.overlap_hours <= _LONGEST_OVERLAP_H:
        raise invalid("overlap_hours", f"must be from 0 to {_LONGEST_OVERLAP_H}")
    _once_only(request)
    ring = await request.app[AUTH].keyring()

    async def work(conn: Any) -> Any:
        earlier = await conn.fetchrow(q.retire_api_key, body.id, body.overlap_hours * 3600.0)
        if earlier is None:
            raise NotFound("No such API key, or it has ended")
        made = await _make(conn, principal, ring.pepper, earlier["name"], earlier["permissions"], expires_at)
        return {**made, "previous": {"id": body.id, "expires_at": earlier["expires_at"]}}

    answer = await once(request, principal, raw, work)
    request.app[AUTH].forget_key(body.id)
    return answer


async def revoke_api_key(request: web.Request, principal: Principal) -> web.Response:
    """End a key now: on this hub at once, on the others and on open sockets within five seconds. A revoked
    key never comes back."""
    raw = await read_body(request, JSON_BYTES)
    body = decode_json(raw, _which, request.content_type)

    async def work(conn: Any) -> Any:
        row = await conn.fetchrow(q.revoke_api_key, body.id)
        if row is None:
            raise NotFound("No such API key")
        return {"success": True, "key_info": {**row, "key_prefix": f"{row['key_prefix']}..."}}

    answer = await once(request, principal, raw, work)
    request.app[AUTH].forget_key(body.id)
    return answer


async def list_api_keys(request: web.Request, principal: Principal) -> web.Response:
    """The organization's keys, newest first: prefixes, permissions, ends and last uses (to ten minutes),
    never their text."""
    async with acting_as(request.app[DB], principal, read_only=True) as conn:
        rows = await conn.fetch(q.list_api_keys)
    found = [
        {
            **row,
            "key_prefix": f"{row['key_prefix']}...",
            "permissions": msgspec.Raw(row["permissions"].encode()),
        }
        for row in rows
    ]
    return json_response({"api_keys": found, "count": len(found)})
