"""Who is calling over HTTP, and whether one more request is within the caller's rate limit."""

from __future__ import annotations

from typing import Literal

import msgspec
import structlog
from aiohttp import web

from hub.auth.apikeys import is_key
from hub.auth.authenticator import Authenticator
from hub.domain.principal import ANON, Principal
from hub.edge import client_address, counted_address
from hub.errors import AuthenticationFailed, InsufficientPermissions, InvalidApiKey
from hub.resources import ALLOWANCE, AUTH, NOTES, PRINCIPAL, RATE, REQUEST_ID, SETTINGS

Surface = Literal["rest", "functions"]


def bearer(request: web.Request) -> str | None:
    """The token of the Authorization header; None without one. Raises AuthenticationFailed for another
    scheme, or two."""
    header = _once(request, "Authorization")
    if header is None or not header.strip():
        return None
    scheme, _, token = header.strip().partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise AuthenticationFailed("Authorization must be `Bearer <token>`")
    return token.strip()


def _once(request: web.Request, name: str) -> str | None:
    """A credential that comes twice is none: a proxy may have looked at the other. Raises
    AuthenticationFailed."""
    given = request.headers.getall(name, ())
    if len(given) > 1:
        raise AuthenticationFailed(f"{name} was sent {len(given)} times")
    return given[0] if given else None


async def identify(request: web.Request) -> Principal:
    """An organization key in X-API-Key first, then the bearer token, then the bare `apikey` (header or
    query), which takes a project key alone: addresses are written into logs and histories.

    A bad credential is refused even beside a good one. Raises AuthenticationFailed, InvalidApiKey,
    Unavailable.
    """
    auth = request.app[AUTH]
    external = _once(request, "X-API-Key")
    token = bearer(request)
    project = _once(request, "apikey") or request.query.get("apikey")
    if external is not None:
        if not is_key(external.strip()):
            raise InvalidApiKey("This API key is not valid")
        principal = await auth.principal_of_key(external.strip())
        if token is not None:
            await _beside(auth, token, principal, request)
    elif token is not None:
        principal = await auth.principal_of_token(token)
        if project is not None and project != token:
            await _project(auth, project)
    elif project is not None:
        principal = await _project(auth, project)
    else:
        raise AuthenticationFailed(
            "No credentials",
            hint="Send `Authorization: Bearer <token>` or `X-API-Key: cg_…`",
            rest_code="PGRST302",
        )
    if principal.lacks_factor:
        raise InsufficientPermissions(
            "This session needs its second factor first", details={"reason": "insufficient_aal"},
            hint="POST /auth/v1/factors/{id}/challenge, then verify",
        )  # fmt: skip
    principal = msgspec.structs.replace(
        principal, address=client_address(request, request.app[SETTINGS]), request_id=request[REQUEST_ID]
    )
    request[PRINCIPAL] = principal
    if principal.organization_id is not None:
        structlog.contextvars.bind_contextvars(organization_id=str(principal.organization_id))
    return principal


async def _beside(auth: Authenticator, token: str, key: Principal, request: web.Request) -> None:
    """A bearer token beside an organization's key: one of the project's keys, that key itself, or a member's
    of the same organization. Raises AuthenticationFailed or InvalidApiKey, and tells the organization of the
    member who came with another's key."""
    bearer_of = await auth.principal_of_token(token)
    if bearer_of.organization_id not in (None, key.organization_id):
        request.app[NOTES].refused(
            bearer_of,
            "X-API-Key",
            "key of another organization",
            address=client_address(request, request.app[SETTINGS]),
            request_id=request[REQUEST_ID],
        )
        raise InvalidApiKey("This API key belongs to another organization than the bearer token")


async def _project(auth: Authenticator, key: str) -> Principal:
    """Raises AuthenticationFailed for anything but the anon or the service_role key."""
    if key.startswith("cg_"):
        raise InvalidApiKey("An organization's key goes into X-API-Key or Authorization, not into apikey")
    principal = await auth.principal_of_token(key)
    if principal.kind not in ("anon", "service"):
        raise AuthenticationFailed("apikey takes a project key; send `Authorization: Bearer <token>`")
    return principal


async def admit(request: web.Request, surface: Surface) -> Principal:
    """``identify``, then count the request. Raises RateLimited as well."""
    principal = await identify(request)
    settings, rate = request.app[SETTINGS], request.app[RATE]
    if principal.kind == "service":
        return principal
    if principal.is_web:
        name, who, limit = "web", str(principal.user_id), settings.rate_web
    elif principal.kind == "key" and "X-API-Key" in request.headers:
        name, who, limit = "external", str(principal.key_id), settings.rate_external
    elif principal.organization_id is None:
        name, who, limit = "address", counted_address(request, settings), settings.rate_address
    else:
        limit = settings.rate_rest if surface == "rest" else settings.rate_functions
        name, who = surface, str(principal.organization_id)
    request[ALLOWANCE], refusal = await rate.hit(name, who, limit)
    if refusal is not None:
        raise refusal
    return principal


async def admit_anyone(request: web.Request, surface: Surface) -> Principal:
    """``admit``, also for those who bring no credential at all."""
    if any(name in request.headers for name in ("Authorization", "X-API-Key", "apikey")) or (
        "apikey" in request.query
    ):
        return await admit(request, surface)
    settings = request.app[SETTINGS]
    request[ALLOWANCE], refusal = await request.app[RATE].hit(
        "address", counted_address(request, settings), settings.rate_address
    )
    if refusal is not None:
        raise refusal
    return msgspec.structs.replace(
        ANON, address=client_address(request, settings), request_id=request[REQUEST_ID]
    )
