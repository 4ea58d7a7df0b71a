"""Queueing and retrying messages (SEND-*, O-07)."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import asyncpg
import pytest

from hub.actions.messages import CONTENT_MAX, QueuedMessage, queue_message, retry_message
from hub.db.pool import Database
from hub.errors import (
    BadRequest,
    Conflict,
    HubError,
    InsufficientPermissions,
    NotFound,
    ReplyConflict,
    ValidationFailed,
)
from tests.factories import Member, Org, make_conversation, make_member, make_message, make_org


@pytest.fixture
async def org(superuser: asyncpg.Connection) -> Org:
    return await make_org(superuser)


@pytest.fixture
async def agent(superuser: asyncpg.Connection, org: Org) -> Member:
    return await make_member(superuser, org)


async def test_a_message_is_pending_numbered_and_in_the_outbox(
    db: Database, superuser: asyncpg.Connection, org: Org, agent: Member
) -> None:
    conversation = await make_conversation(superuser, org)
    await make_message(superuser, org, conversation)
    queued = await queue_message(
        db, agent.principal(), conversation_id=conversation, content="أهلا", metadata={"a": 1}
    )
    assert (queued.conv_seq, queued.status, queued.duplicate) == (2, "PENDING", False)
    row = await superuser.fetchrow(
        "select m.content, m.direction, m.source, m.sender_id, m.metadata, o.state, o.conversation_id"
        " from messages m join app.outbox o on o.message_id = m.id where m.id = $1", queued.message_id,
    )  # fmt: skip
    assert tuple(row) == ("أهلا", "OUTBOUND", "agent", agent.id, '{"a": 1}', "available", conversation)


async def test_O07_the_same_client_ref_is_the_same_message_even_in_a_race(
    db: Database, superuser: asyncpg.Connection, org: Org, agent: Member
) -> None:
    conversation, ref = await make_conversation(superuser, org), uuid4()

    async def send() -> QueuedMessage:
        return await queue_message(
            db, agent.principal(), conversation_id=conversation, content="Once", client_ref=ref
        )

    answers = await asyncio.gather(*(send() for _ in range(6)))
    assert len({a.message_id for a in answers}) == 1 and sum(not a.duplicate for a in answers) == 1
    assert await superuser.fetchval("select array_agg(conv_seq) from messages") == [1]
    assert await superuser.fetchval("select msg_seq from conversations where id = $1", conversation) == 1
    await superuser.execute("update messages set status = 'SENT'")
    again = await send()
    assert (again.message_id, again.status, again.duplicate) == (answers[0].message_id, "SENT", True)


async def test_O07_another_body_under_a_client_ref_is_a_conflict(
    db: Database, superuser: asyncpg.Connection, org: Org, agent: Member
) -> None:
    here, there, ref = (
        await make_conversation(superuser, org),
        await make_conversation(superuser, org),
        uuid4(),
    )
    sent = await queue_message(db, agent.principal(), conversation_id=here, content="Once", client_ref=ref)
    for conversation, content in ((here, "Twice"), (there, "Once")):
        with pytest.raises(Conflict) as refused:
            await queue_message(
                db, agent.principal(), conversation_id=conversation, content=content, client_ref=ref
            )
        assert refused.value.details == {"message_id": str(sent.message_id)}
    assert await superuser.fetchval("select msg_seq from conversations where id = $1", there) == 0

    async def race(conversation: object, ref: object) -> object:
        try:
            return await queue_message(
                db, agent.principal(), conversation_id=conversation, content="x", client_ref=ref
            )  # type: ignore[arg-type]
        except Conflict as e:
            return e

    for _ in range(5):
        ref = uuid4()
        results = await asyncio.gather(race(here, ref), race(there, ref))
        assert sorted(type(r).__name__ for r in results) == ["Conflict", "QueuedMessage"]


async def test_a_colleagues_answer_is_a_reply_conflict_until_it_was_seen(
    db: Database, superuser: asyncpg.Connection, org: Org, agent: Member
) -> None:
    conversation = await make_conversation(superuser, org)
    await make_message(superuser, org, conversation)
    colleague = await make_member(superuser, org)
    theirs = await queue_message(
        db, colleague.principal(), conversation_id=conversation, content="Mine", seen_seq=1
    )
    with pytest.raises(ReplyConflict) as refused:
        await queue_message(
            db, agent.principal(), conversation_id=conversation, content="No, mine", seen_seq=1
        )
    assert refused.value.details == {"messages": [str(theirs.message_id)]}
    await queue_message(db, agent.principal(), conversation_id=conversation, content="Seen", seen_seq=2)
    await queue_message(
        db, agent.principal(), conversation_id=conversation, content="Again", seen_seq=2
    )  # one's own is no conflict
    with pytest.raises(ReplyConflict):
        await queue_message(
            db, colleague.principal(), conversation_id=conversation, content="Late", seen_seq=2
        )
    await queue_message(db, colleague.principal(), conversation_id=conversation, content="All the same")


async def test_two_agents_who_answer_at_once_do_not_both_get_through(
    db: Database, superuser: asyncpg.Connection, org: Org, agent: Member
) -> None:
    colleague = await make_member(superuser, org)
    for _ in range(5):
        conversation = await make_conversation(superuser, org)
        await make_message(superuser, org, conversation)

        async def answer(member: Member, conversation: object = conversation) -> object:
            try:
                return await queue_message(
                    db, member.principal(), conversation_id=conversation, content="x", seen_seq=1
                )  # type: ignore[arg-type]
            except ReplyConflict as e:
                return e

        results = await asyncio.gather(answer(agent), answer(colleague))
        assert sorted(type(r).__name__ for r in results) == ["QueuedMessage", "ReplyConflict"]


async def test_sending_opens_a_closed_conversation_unless_another_is_open(
    db: Database, superuser: asyncpg.Connection, org: Org, agent: Member
) -> None:
    closed = await make_conversation(superuser, org, closed=True)
    await queue_message(db, agent.principal(), conversation_id=closed, content="x")
    assert await superuser.fetchval("select status from conversations where id = $1", closed) == "OPEN"
    contact = await superuser.fetchval("select contact_id from conversations where id = $1", closed)
    older = await make_conversation(superuser, org, contact, closed=True)
    await queue_message(db, agent.principal(), conversation_id=older, content="x")
    assert await superuser.fetchval("select status from conversations where id = $1", older) == "CLOSED"


async def test_what_cannot_be_queued_is_refused_and_leaves_nothing(
    db: Database, superuser: asyncpg.Connection, org: Org, agent: Member
) -> None:
    conversation = await make_conversation(superuser, org)
    elsewhere = await make_conversation(superuser, org)
    stray = await make_message(superuser, org, elsewhere)
    mute = await make_conversation(superuser, org, channel_account_id=None)
    neighbours = await make_conversation(superuser, await make_org(superuser))
    reader = await make_member(superuser, org, can_send_messages=False)
    reading = reader.principal(permissions=frozenset({"can_read_messages"}))
    me = agent.principal()
    cases: list[tuple[type[HubError], dict[str, object]]] = [
        (ValidationFailed, {"content": "  "}),
        (ValidationFailed, {"content": None}),
        (ValidationFailed, {"content": "x" * (CONTENT_MAX + 1)}),
        (ValidationFailed, {"content": "a\x00b"}),
        (ValidationFailed, {"message_type": "telegram"}),
        (NotFound, {"conversation_id": uuid4()}),
        (NotFound, {"conversation_id": neighbours}),
        (NotFound, {"reply_to_id": stray}),
        (NotFound, {"reply_to_id": uuid4()}),
        (BadRequest, {"conversation_id": mute}),
        (InsufficientPermissions, {"principal": reading}),
    ]
    for error, fields in cases:
        arguments = {"principal": me, "conversation_id": conversation, "content": "x", **fields}
        with pytest.raises(error):
            await queue_message(db, **arguments)  # type: ignore[arg-type]
    assert await superuser.fetchval("select count(*) from messages where direction = 'OUTBOUND'") == 0
    assert await superuser.fetchval("select count(*) from app.outbox") == 0


async def test_retry_queues_a_failed_message_in_its_old_place_and_no_other(
    db: Database, superuser: asyncpg.Connection, org: Org, agent: Member
) -> None:
    conversation = await make_conversation(superuser, org)
    queued = await queue_message(db, agent.principal(), conversation_id=conversation, content="x")
    with pytest.raises(Conflict):
        await retry_message(db, agent.principal(), message_id=queued.message_id)
    await superuser.execute("delete from app.outbox")
    await superuser.execute(
        "update messages set status = 'FAILED', failure_code = 'window', failure_reason = 'closed',"
        " provider_message_id = 'p'"
    )
    again = await retry_message(db, agent.principal(), message_id=queued.message_id)
    assert (again.message_id, again.conv_seq, again.status) == (queued.message_id, 1, "PENDING")
    row = await superuser.fetchrow("select failure_code, failure_reason, provider_message_id from messages")
    assert tuple(row) == (None, None, None)
    assert await superuser.fetchval("select state from app.outbox") == "available"
    inbound = await make_message(superuser, org, conversation)
    theirs = await make_message(
        superuser, (other := await make_org(superuser)), await make_conversation(superuser, other)
    )
    for message in (inbound, theirs, uuid4()):
        with pytest.raises(NotFound):
            await retry_message(db, agent.principal(), message_id=message)
