"""What the functions of /functions/v1 share: the repeat-safe transaction of a POST, and who may call."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
from aiohttp import web

from hub.db.tenancy import acting_as, in_turn
from hub.domain.permissions import FunctionNeed, Permission
from hub.domain.principal import Principal
from hub.errors import AuthenticationFailed, InsufficientPermissions, invalid
from hub.idempotency import REPLAYED, Once
from hub.resources import DB

#: Controls, and marks that turn the direction of what follows: neither belongs into a name. Joiners do.
_UNSEEN: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
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


def require(principal: Principal, need: FunctionNeed) -> None:
    """What a function asks of its caller. Raises AuthenticationFailed for those who are not known,
    InsufficientPermissions naming what is missing."""
    if need.operator and principal.kind == "service":
        return
    if need.who == "person" and principal.user_id is None:
        raise AuthenticationFailed("Only a signed-in user can do this")
    if need.who == "caller" and principal.kind not in ("user", "key"):
        raise AuthenticationFailed("Sign in, or use an organization's API key")
    if need.who == "member":
        require_organization(principal)
    for permission in need.permissions:
        require_permission(principal, permission)
    if need.roles and principal.role not in need.roles:
        known = " or ".join(need.roles)
        raise InsufficientPermissions(f"This needs the role {known}", details={"missing": []})


def plain_text(field: str, given: str | None, longest: int) -> str:
    """One line of text, trimmed. Raises ValidationFailed."""
    text = (given or "").strip()
    if not text:
        raise invalid(field, f"{field} is required")
    if len(text) > longest or _UNSEEN.search(text):
        raise invalid(field, f"must have at most {longest} characters, none of them control characters")
    return text


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
