"""Assigning, closing, reading and tagging conversations (CONV-03 … 05)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from hub.actions import conversations
from hub.actions.conversations import assign, mark_read, set_status, tag
from hub.db.pool import Database
from hub.errors import Conflict, InsufficientPermissions, NotFound, ValidationFailed
from tests.factories import Member, Org, make_contact, make_conversation, make_member, make_message, make_org


@pytest.fixture
async def org(superuser: asyncpg.Connection) -> Org:
    return await make_org(superuser)


@pytest.fixture
async def agent(superuser: asyncpg.Connection, org: Org) -> Member:
    return await make_member(superuser, org)


@pytest.fixture
async def conversation(superuser: asyncpg.Connection, org: Org) -> UUID:
    return await make_conversation(superuser, org)


async def names(conn: asyncpg.Connection) -> list[str]:
    """Documented event names in the log of conversations, in order."""
    rows = await conn.fetch(
        "select names from app.events where table_name = 'conversations' and op = 'UPDATE' order by seq"
    )
    return [name for r in rows for name in r["names"]]


async def test_CONV_03_assigning_to_a_member_and_to_nobody(
    db: Database, superuser: asyncpg.Connection, agent: Member, conversation: UUID, org: Org
) -> None:
    for assignee in (agent.id, agent.id, None):
        await assign(db, agent.principal(), conversation_id=conversation, assignee_id=assignee)
    assert await names(superuser) == ["conversation.assigned"] * 2  # saying it twice changes nothing
    gone = await make_member(superuser, org, is_active=False)
    stranger = await make_member(superuser, await make_org(superuser))
    for assignee in (gone.id, stranger.id, uuid4()):
        with pytest.raises(NotFound):
            await assign(db, agent.principal(), conversation_id=conversation, assignee_id=assignee)


async def test_CONV_04_closing_and_reopening(
    db: Database, superuser: asyncpg.Connection, agent: Member, org: Org
) -> None:
    contact = await make_contact(superuser, org)
    conversation = await make_conversation(superuser, org, contact)
    await set_status(db, agent.principal(), conversation_id=conversation, status="CLOSED")
    await set_status(db, agent.principal(), conversation_id=conversation, status="CLOSED")
    assert await superuser.fetchval(
        "select closed_at is not null from conversations where id = $1", conversation
    )
    newer = await make_conversation(superuser, org, contact)
    with pytest.raises(Conflict):
        await set_status(db, agent.principal(), conversation_id=conversation, status="OPEN")
    await set_status(db, agent.principal(), conversation_id=newer, status="CLOSED")
    await set_status(db, agent.principal(), conversation_id=conversation, status="OPEN")
    assert await names(superuser) == ["conversation.status.changed"] * 3


async def test_CONV_05_tags_are_added_and_removed_without_losing_anothers(
    db: Database, superuser: asyncpg.Connection, agent: Member, conversation: UUID
) -> None:
    async def tags() -> Any:
        return await superuser.fetchval("select tags from conversations where id = $1", conversation)

    me = agent.principal()
    await tag(db, me, conversation_id=conversation, add=["vip", "عاجل"])
    await tag(db, me, conversation_id=conversation, add=["late"], remove=["vip"])
    assert await tags() == ["عاجل", "late"]
    before = await superuser.fetchval("select max(seq) from app.events")
    await tag(db, me, conversation_id=conversation, add=["late"], remove=["nothing"])
    assert await superuser.fetchval("select max(seq) from app.events") == before
    await asyncio.gather(*(tag(db, me, conversation_id=conversation, add=[f"t{n}"]) for n in range(6)))
    assert set(await tags()) == {"عاجل", "late", *(f"t{n}" for n in range(6))}
    for bad in ([""], ["x" * 65], ["a"] * 51, ["\x00"]):
        with pytest.raises(ValidationFailed):
            await tag(db, me, conversation_id=conversation, add=bad)


async def test_reading_counts_for_the_reader_and_marks_what_was_received(
    db: Database,
    superuser: asyncpg.Connection,
    agent: Member,
    org: Org,
    conversation: UUID,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(conversations, "READ_CHUNK", 2)

    async def unread(member: Member) -> int:
        found: int = await superuser.fetchval(
            "select c.inbound_count - coalesce(r.inbound_count, 0) from conversations c"
            " left join conversation_reads r on r.conversation_id = c.id and r.user_id = $2 where c.id = $1",
            conversation,
            member.id,
        )
        return found

    colleague = await make_member(superuser, org)
    for _ in range(5):
        await make_message(superuser, org, conversation)
    await make_message(superuser, org, conversation, direction="OUTBOUND", status="SENT", source="agent")
    await mark_read(db, agent.principal(), conversation_id=conversation, conv_seq=5)
    await make_message(superuser, org, conversation)
    assert (await unread(agent), await unread(colleague)) == (1, 6)
    statuses = await superuser.fetchval("select array_agg(status order by conv_seq) from messages")
    assert statuses == ["READ"] * 5 + ["SENT", "RECEIVED"]
    await mark_read(db, agent.principal(), conversation_id=conversation, conv_seq=2)  # never backwards
    assert await unread(agent) == 1
    await mark_read(db, agent.principal(), conversation_id=conversation, conv_seq=2**40)
    assert await unread(agent) == 0
    position = await superuser.fetchval(
        "select conv_seq from conversation_reads where user_id = $1", agent.id
    )
    assert position == 7


async def test_who_may_only_read_moves_a_position_and_no_message(
    db: Database, superuser: asyncpg.Connection, org: Org, conversation: UUID
) -> None:
    await make_message(superuser, org, conversation)
    reader = await make_member(superuser, org, can_send_messages=False)
    me = reader.principal(permissions=frozenset({"can_read_messages"}))
    await mark_read(db, me, conversation_id=conversation, conv_seq=1)
    assert await superuser.fetchval("select array_agg(status) from messages") == ["RECEIVED"]
    assert await superuser.fetchval("select inbound_count from conversation_reads") == 1
    for deed in verbs(conversation)[:3]:
        with pytest.raises(InsufficientPermissions):
            await deed(db, me)


Verb = Callable[[Database, Any], Awaitable[None]]


def verbs(conversation: UUID) -> list[Verb]:
    return [
        lambda db, who: assign(db, who, conversation_id=conversation, assignee_id=None),
        lambda db, who: set_status(db, who, conversation_id=conversation, status="CLOSED"),
        lambda db, who: tag(db, who, conversation_id=conversation, add=["x"]),
        lambda db, who: mark_read(db, who, conversation_id=conversation, conv_seq=1),
    ]


async def test_X01_a_neighbours_conversation_does_not_exist(
    db: Database, superuser: asyncpg.Connection, conversation: UUID
) -> None:
    neighbour = await make_member(superuser, await make_org(superuser), "OWNER")
    for deed in verbs(conversation):
        with pytest.raises(NotFound):
            await deed(db, neighbour.principal())
    assert await superuser.fetchval("select version from conversations where id = $1", conversation) == 1
