"""Verbs on conversations: assign, close and reopen, read, tag. One transaction each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal
from uuid import UUID

import asyncpg

from hub.actions.permission import require
from hub.db.pool import Database
from hub.db.tenancy import acting_as
from hub.domain.permissions import missing
from hub.domain.principal import Principal
from hub.errors import InsufficientPermissions, NotFound, from_database, invalid
from sql import q

#: Received messages that one transaction marks as read: each makes an event, and 1,000 events a transaction
#: is the limit.
READ_CHUNK = 500
TAG_MAX, TAGS_MAX = 64, 50


async def assign(
    db: Database, principal: Principal, *, conversation_id: UUID, assignee_id: UUID | None
) -> None:
    """Give the conversation to a member, or to nobody. Raises NotFound for a conversation or an active
    member that is not there."""
    require(principal, "conversations", "update")
    try:
        async with acting_as(db, principal) as conn:
            await _lock(conn, conversation_id)
            if assignee_id is not None and not await conn.fetchval(q.member_is_active, assignee_id):
                raise NotFound("No such active member", details={"assignee_id": str(assignee_id)})
            await conn.execute(q.assign_conversation, conversation_id, assignee_id)
    except asyncpg.PostgresError as e:
        raise from_database(e) or e from e


async def set_status(
    db: Database, principal: Principal, *, conversation_id: UUID, status: Literal["OPEN", "CLOSED"]
) -> None:
    """Close or reopen. Reopening raises Conflict when the contact has another open conversation on the same
    account."""
    require(principal, "conversations", "update")
    try:
        async with acting_as(db, principal) as conn:
            await _lock(conn, conversation_id)
            await conn.execute(q.set_conversation_status, conversation_id, status)
    except asyncpg.PostgresError as e:
        raise from_database(e) or e from e


async def tag(
    db: Database,
    principal: Principal,
    *,
    conversation_id: UUID,
    add: Sequence[str] = (),
    remove: Sequence[str] = (),
) -> None:
    """Add and remove tags in one step."""
    require(principal, "conversations", "update")
    for field, tags in (("add", add), ("remove", remove)):
        if len(tags) > TAGS_MAX or any(not t.strip() or len(t) > TAG_MAX or "\x00" in t for t in tags):
            raise invalid(field, f"must be at most {TAGS_MAX} tags of 1 to {TAG_MAX} characters")
    try:
        async with acting_as(db, principal) as conn:
            await _lock(conn, conversation_id)
            await conn.execute(q.tag_conversation, conversation_id, list(add), list(remove))
    except asyncpg.PostgresError as e:
        raise from_database(e) or e from e


async def mark_read(db: Database, principal: Principal, *, conversation_id: UUID, conv_seq: int) -> None:
    """The caller has read the conversation up to ``conv_seq``. Received messages up to there become READ if
    the caller may write messages, 500 a transaction; the position moves with them, so that a crash in between
    leaves the rest unread and the next reading marks it. Raises NotFound."""
    if principal.user_id is None:
        raise InsufficientPermissions("Only a person can read a conversation")
    require(principal, "conversation_reads", "insert")
    marks = missing("messages", "update", principal.role, principal.permissions) is None
    try:
        while True:
            async with acting_as(db, principal) as conn:
                if await _read_some(conn, principal.user_id, conversation_id, conv_seq, marks):
                    return
    except asyncpg.PostgresError as e:
        raise from_database(e) or e from e


async def _read_some(conn: Any, user_id: UUID, conversation_id: UUID, conv_seq: int, marks: bool) -> bool:
    """One transaction's part of a reading; True when it is done."""
    position = await conn.fetchrow(q.read_position, conversation_id, conv_seq, user_id)
    if position is None:
        raise NotFound("No such conversation", details={"conversation_id": str(conversation_id)})
    marked: list[Any] = []
    if marks:
        marked = await conn.fetch(
            q.mark_inbound_read, conversation_id, position["before"], position["conv_seq"], READ_CHUNK
        )
    done = len(marked) < READ_CHUNK
    if not done:
        reached = max(r["conv_seq"] for r in marked)
        position = await conn.fetchrow(q.read_position, conversation_id, reached, user_id)
    await conn.execute(
        q.save_read_position, user_id, conversation_id, position["conv_seq"], position["inbound_count"]
    )
    return done


async def exists(db: Database, principal: Principal, conversation_id: UUID) -> bool:
    """Whether the caller may see the conversation."""
    async with acting_as(db, principal, read_only=True) as conn:
        found: bool = await conn.fetchval(q.conversation_exists, conversation_id)
        return found


async def _lock(conn: Any, conversation_id: UUID) -> Any:
    row = await conn.fetchrow(q.lock_conversation, conversation_id)
    if row is None:
        raise NotFound("No such conversation", details={"conversation_id": str(conversation_id)})
    return row
