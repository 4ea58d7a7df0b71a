"""Reading what happened: the event log by cursor, and the deliveries that could not be applied."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from hub.bodies import json_response
from hub.domain.permissions import can_see
from hub.domain.principal import Principal
from hub.errors import InsufficientPermissions, invalid
from hub.events.sight import in_sight
from hub.functions.calls import answer, require_organization
from hub.resources import DB
from sql import q

_MOST: Final = 1000


def _number(request: web.Request, name: str, default: int, low: int, high: int) -> int:
    text = request.query.get(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdecimal() or len(text) > 18 or not low <= int(text) <= high:
        raise invalid(name, f"must be a whole number from {low} to {high}")
    return int(text)


async def events(request: web.Request, principal: Principal) -> web.Response:
    """GET ?after=<seq>&limit=&epoch=: the organization's events after a cursor, in order, each exactly once.

    `seq` is the next `after`, also when everything in between was not for this caller's eyes. `resync` is
    true, and nothing is returned, when events after the cursor are gone or the cursor belongs to another
    database: read the rows again, then go on from `seq`.
    """
    require_organization(principal)
    after = _number(request, "after", 0, 0, 2**62)
    limit = _number(request, "limit", 200, 1, _MOST)
    organization = principal.organization_id
    async with request.app[DB].connection("api") as conn:
        state = await conn.fetchrow(q.pull_state, organization)
        assert state is not None
        given = request.query.get("epoch")
        stale = (
            (given is not None and given != state["epoch"])
            or after > state["head"]
            or after < state["floor"] - 1
        )
        rows = [] if stale else await conn.fetch(q.pull_events, organization, after, limit)
    seq = state["head"] if stale else (rows[-1]["seq"] if rows else after)
    rows_seen = [row for row in rows if can_see(row["table_name"], principal.permissions, principal.role)]
    shown = await in_sight(
        request.app[DB], principal, [(row["table_name"], row["frame"]) for row in rows_seen], "api"
    )
    frames = [row["frame"] for row, may in zip(rows_seen, shown, strict=True) if may]
    more = "true" if not stale and seq < state["head"] else "false"
    text = (
        f'{{"epoch":"{state["epoch"]}","seq":{seq},"head":{state["head"]},"more":{more},'
        f'"resync":{"true" if stale else "false"},"events":[{",".join(frames)}]}}'
    )
    return answer(text.encode())


async def webhook_failures(request: web.Request, principal: Principal) -> web.Response:
    """GET ?limit=: signed deliveries of this organization that could not be applied, newest first, without
    their bodies. With the service_role key those of all organizations, and before them those of none."""
    if principal.kind == "service":
        limit = _number(request, "limit", 100, 1, _MOST)
        async with request.app[DB].connection("api") as conn:
            rows = await conn.fetch(q.list_all_failures, limit)
        return json_response({"failures": [dict(row) for row in rows], "count": len(rows)})
    require_organization(principal)
    if principal.role not in ("OWNER", "ADMIN"):
        raise InsufficientPermissions("Only owners and administrators see this", details={"missing": []})
    limit = _number(request, "limit", 100, 1, _MOST)
    async with request.app[DB].connection("api") as conn:
        rows = await conn.fetch(q.list_failures, principal.organization_id, limit)
    return json_response({"failures": [dict(row) for row in rows], "count": len(rows)})
