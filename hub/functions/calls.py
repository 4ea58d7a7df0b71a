"""What the functions of /functions/v1 share: the repeat-safe transaction of a POST, and who may call."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from typing import Any, Final

import asyncpg
import msgspec
from aiohttp import web

from hub.db.tenancy import acting_as
from hub.domain.permissions import Permission
from hub.domain.principal import Principal
from hub.errors import AuthenticationFailed, Conflict, InsufficientPermissions, ValidationFailed
from hub.resources import DB
from sql import q

_LONGEST_KEY: Final = 255
_encode = msgspec.json.Encoder(uuid_format="canonical").encode
Connection = asyncpg.Connection[asyncpg.Record] if hasattr(asyncpg.Connection, "__class_getitem__") else Any


def require_organization(principal: Principal) -> None:
    """Raises AuthenticationFailed for callers that belong to none (the bare anon key, service_role, a user
    without a membership)."""
    if principal.kind == "anon":
        raise AuthenticationFailed("Sign in, or use an organization's API key")
    if principal.organization_id is None:
        raise InsufficientPermissions("This needs a member or an API key of an organization")


def require_permission(principal: Principal, permission: Permission) -> None:
    """Raises InsufficientPermissions naming what is missing."""
    require_organization(principal)
    if permission not in principal.permissions:
        raise InsufficientPermissions(
            f"This needs {permission}",
            details={"missing": [permission]},
            hint="Ask an administrator of your organization",
        )


def principal_name(principal: Principal) -> str:
    """Under whose name idempotency keys are kept."""
    return f"{principal.kind}:{principal.key_id or principal.user_id}"


async def once(
    request: web.Request,
    principal: Principal,
    raw: bytes,
    work: Callable[[Any], Awaitable[Any]],
    *,
    status: int = 200,
) -> web.Response:
    """Run ``work`` in one transaction as the caller and answer with its document. With an Idempotency-Key the
    answer is kept in the same transaction, and a repeat within 24 hours gets it again without running
    ``work``."""
    key = request.headers.get("Idempotency-Key")
    if key is not None and not 1 <= len(key) <= _LONGEST_KEY:
        raise ValidationFailed(
            "Validation error",
            details={"field": "Idempotency-Key", "message": f"must have 1 to {_LONGEST_KEY} characters"},
        )
    async with acting_as(request.app[DB], principal) as conn:
        if key is None:
            return answer(_encode(await work(conn)), status)
        name = principal_name(principal)
        digest = hashlib.sha256(request.path.encode() + b"\n" + raw).digest()
        row = await conn.fetchrow(q.begin_idempotent, name, key, digest)
        assert row is not None
        if row["answer"] == "busy":
            raise Conflict("The first request with this Idempotency-Key is still running", retry_after_s=1)
        if row["answer"] == "other_body":
            raise ValidationFailed(
                "Validation error",
                details={"field": "Idempotency-Key", "message": "was used with another body"},
            )
        if row["answer"] == "done":
            return answer(row["body"].encode(), row["status"], repeated=True)
        body = _encode(await work(conn))
        await conn.execute(q.finish_idempotent, name, key, digest, status, body.decode())
    return answer(body, status)


def answer(body: bytes, status: int = 200, *, repeated: bool = False) -> web.Response:
    headers = {"Idempotency-Replayed": "true"} if repeated else None
    return web.Response(
        body=body, status=status, content_type="application/json", charset="utf-8", headers=headers
    )
