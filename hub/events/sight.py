"""Which events a member may be shown who does not see all conversations.

The row policies decide: the conversations that a batch of events speaks of are looked for as the member, in
one statement. An event that took a conversation away from him is shown too, so that he learns of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import msgspec

from hub.db.pool import Database, Purpose
from hub.db.tenancy import acting_as
from hub.domain.principal import Principal
from sql import q

#: Tables whose rows belong to a conversation.
_BOUND = frozenset(("conversations", "messages"))


class _Earlier(msgspec.Struct):
    assignee_id: UUID | None = None
    team_id: UUID | None = None


class _Payload(msgspec.Struct):
    changed: _Earlier | None = None


class _Event(msgspec.Struct):
    conversation_id: UUID | None = None
    payload: _Payload | None = None


class _Frame(msgspec.Struct):
    event: _Event


_frame = msgspec.json.Decoder(_Frame)


async def in_sight(
    db: Database, principal: Principal, events: Sequence[tuple[str, bytes | str]], purpose: Purpose
) -> list[bool]:
    """For each event (its table, its frame) whether it may be shown. Asks nothing for whoever sees all."""
    if principal.visibility == "all":
        return [True] * len(events)
    spoken_of = [_frame.decode(frame).event if table in _BOUND else None for table, frame in events]
    ids = {event.conversation_id for event in spoken_of if event is not None and event.conversation_id}
    seen: set[UUID] = set()
    if ids:
        async with acting_as(db, principal, purpose=purpose, read_only=True) as conn:
            seen = {row["id"] for row in await conn.fetch(q.conversations_in_sight, list(ids))}
    return [
        event is None or event.conversation_id in seen or _took_away(principal, event) for event in spoken_of
    ]


def _took_away(principal: Principal, event: _Event) -> bool:
    earlier = event.payload.changed if event.payload is not None else None
    if earlier is None:
        return False
    return (earlier.assignee_id is not None and earlier.assignee_id == principal.user_id) or (
        earlier.team_id is not None and earlier.team_id in principal.team_ids
    )
