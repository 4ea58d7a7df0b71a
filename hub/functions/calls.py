"""What the functions of /functions/v1 share: the repeat-safe transaction of a POST, and who may call."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from aiohttp import web

from hub.db.tenancy import acting_as, in_turn
from hub.domain.permissions import Permission
from hub.domain.principal import Principal
from hub.errors import AuthenticationFailed, InsufficientPermissions
from hub.idempotency import REPLAYED, Once
from hub.resources import DB

_encode = msgspec.json.Encoder(uuid_format="canonical").encode


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
    given = Once.of(request, principal, raw)

    async def run() -> web.Response:
        async with acting_as(request.app[DB], principal) as conn:
            kept = await given.earlier(conn) if given is not None else None
            if kept is not None:
                return answer(kept.body.encode(), kept.status, repeated=True)
            body = _encode(await work(conn))
            if given is not None:
                await given.keep(conn, status, body.decode())
        return answer(body, status)

    return await in_turn(run)


def answer(body: bytes, status: int = 200, *, repeated: bool = False) -> web.Response:
    return web.Response(
        body=body,
        status=status,
        content_type="application/json",
        charset="utf-8",
        headers=REPLAYED if repeated else None,
    )
