"""MSG-01: a deleted message leaves a tombstone, and one that still waited is not sent."""

from __future__ import annotations

import asyncpg
import pytest

from hub.db.pool import Database
from hub.db.tenancy import acting_as
from tests.factories import make_conversation, make_member, make_message, make_org

WAYS = {
    "DELETE": "delete from messages where id = $1",
    "PATCH": "update messages set deleted_at = now() where id = $1",
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
async def test_MSG_01_a_deleted_message_leaves_its_place(
    db: Database, superuser: asyncpg.Connection, way: str
) -> None:
    org = await make_org(superuser)
    member = await make_member(superuser, org)
    conv = await make_conversation(superuser, org)
    message = await make_message(superuser, org, conv, content="A secret", metadata={"media": [{"ref": "1"}]})
    async with acting_as(db, member.principal()) as conn:
        await conn.execute(way, message)
    row = await superuser.fetchrow("select content, metadata, deleted_at, conv_seq, status from messages")
    assert row["content"] is None
    assert row["metadata"] == "{}"
    assert row["deleted_at"] is not None
    assert (row["conv_seq"], row["status"]) == (1, "RECEIVED")
    assert await superuser.fetchval("select last_message_preview from conversations") == "[deleted]"
    event = await superuser.fetchval("select payload::text from app.events order by seq desc limit 1")
    assert '"deleted_at"' in event


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
async def test_MSG_01_a_waiting_message_that_is_deleted_is_not_sent(
    db: Database, superuser: asyncpg.Connection, way: str
) -> None:
    org = await make_org(superuser)
    member = await make_member(superuser, org)
    conv = await make_conversation(superuser, org)
    message = await make_message(superuser, org, conv, direction="OUTBOUND", status="PENDING", source="agent")
    async with acting_as(db, member.principal()) as conn:
        await conn.execute(way, message)
    assert await superuser.fetchval("select count(*) from app.outbox") == 0
    row = await superuser.fetchrow("select status, failure_code from messages")
    assert tuple(row) == ("FAILED", "cancelled")


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
async def test_MSG_01_who_may_not_send_may_not_delete(
    db: Database, superuser: asyncpg.Connection, way: str
) -> None:
    org, neighbour = await make_org(superuser), await make_org(superuser)
    message = await make_message(superuser, org, await make_conversation(superuser, org), content="Kept")
    reader = await make_member(superuser, org, can_send_messages=False)
    stranger = await make_member(superuser, neighbour, "OWNER")
    for principal in (
        reader.principal(permissions=frozenset({"can_read_messages"})),
        stranger.principal(),
    ):
        async with acting_as(db, principal) as conn:
            await conn.execute(way, message)
    assert await superuser.fetchval("select content from messages") == "Kept"


async def test_erasing_an_organization_or_a_contact_really_deletes(
    db: Database, superuser: asyncpg.Connection
) -> None:
    org = await make_org(superuser)
    member = await make_member(superuser, org)
    conv = await make_conversation(superuser, org)
    await make_message(superuser, org, conv)
    async with acting_as(db, member.principal()) as conn:
        await conn.execute("delete from contacts")
    assert await superuser.fetchval("select count(*) from messages") == 0
