"""Each command over a socket: its reply, and what the others see of it (contract of docs/realtime.md)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import orjson
import pytest

from hub.db.embedded import EmbeddedValkey
from tests.factories import (
    Member,
    Org,
    Servers,
    make_conversation,
    make_member,
    make_message,
    make_org,
    until,
)
from tests.live import Client, LiveHub, live_hub, sign_in


@pytest.fixture
async def hub(servers: Servers, valkey: EmbeddedValkey) -> AsyncIterator[LiveHub]:
    async with live_hub(servers, valkey.url) as running:
        yield running


@pytest.fixture
async def org(superuser: asyncpg.Connection) -> Org:
    return await make_org(superuser)


@pytest.fixture
async def agent(superuser: asyncpg.Connection, org: Org) -> Member:
    return await make_member(superuser, org)


@pytest.fixture
async def conversation(superuser: asyncpg.Connection, org: Org) -> UUID:
    return await make_conversation(superuser, org)


@pytest.fixture
async def client(superuser: asyncpg.Connection, hub: LiveHub, agent: Member) -> AsyncIterator[Client]:
    client = Client((await sign_in(superuser, hub, agent))[0])
    await client.connect(hub)
    yield client
    await client.leave()


@pytest.fixture
async def colleague(superuser: asyncpg.Connection, hub: LiveHub, org: Org) -> AsyncIterator[Client]:
    member = await make_member(superuser, org)
    client = Client((await sign_in(superuser, hub, member))[0])
    await client.connect(hub)
    yield client
    await client.leave()


async def test_send_is_answered_queued_and_seen_by_the_others(
    client: Client, colleague: Client, conversation: UUID, superuser: asyncpg.Connection
) -> None:
    ref = uuid4()
    reply = await client.command("send", conversation_id=conversation, content="Hello", client_ref=ref)
    assert reply["ok"]
    assert {**reply["result"], "message_id": ""} == {
        "message_id": "",
        "conv_seq": 1,
        "status": "PENDING",
        "duplicate": False,
    }
    again = await client.command("send", conversation_id=conversation, content="Hello", client_ref=ref)
    assert again["result"] == {**reply["result"], "duplicate": True}
    for one in (client, colleague):
        await until(lambda c=one: reply["result"]["message_id"] in c.ids("messages"), what="the message")
    row = next(e for e in colleague.events if e["event"]["table"] == "messages")["event"]["payload"]["row"]
    assert (row["content"], row["client_ref"], row["status"]) == ("Hello", str(ref), "PENDING")
    other = await client.command("send", conversation_id=conversation, content="Other", client_ref=ref)
    assert other["error"]["code"] == "CONFLICT"


async def test_send_wakes_the_workers(client: Client, conversation: UUID, hub: LiveHub) -> None:
    import redis.asyncio

    listener = redis.asyncio.from_url(hub.settings.redis_url)
    async with listener.pubsub() as channel:
        await channel.subscribe("w:outbox")
        await until(lambda: channel.get_message(), what="the confirmation")
        await client.command("send", conversation_id=conversation, content="Hello", client_ref=uuid4())
        await until(lambda: channel.get_message(ignore_subscribe_messages=True), what="the wake-up")
    await listener.aclose()


async def test_send_after_a_colleague_is_a_reply_conflict(
    client: Client, colleague: Client, conversation: UUID
) -> None:
    first = await colleague.command(
        "send", conversation_id=conversation, content="Mine", client_ref=uuid4(), seen_seq=0
    )
    reply = await client.command(
        "send", conversation_id=conversation, content="Too", client_ref=uuid4(), seen_seq=0
    )
    assert reply["error"]["code"] == "REPLY_CONFLICT"
    assert reply["error"]["details"] == {"messages": [first["result"]["message_id"]]}
    assert (await client.command("send", conversation_id=conversation, content="Too", client_ref=uuid4()))[
        "ok"
    ]


async def test_commands_of_one_session_keep_their_order(
    client: Client, conversation: UUID, superuser: asyncpg.Connection
) -> None:
    for n in range(20):
        args = {"conversation_id": str(conversation), "content": str(n), "client_ref": str(uuid4())}
        await client.send({"type": "command", "id": str(n), "name": "send", "args": args})
    await until(lambda: len(client.ids("messages")) == 20, what="all of them")
    contents = await superuser.fetchval("select array_agg(content order by conv_seq) from messages")
    assert contents == [str(n) for n in range(20)]


async def test_retry(client: Client, conversation: UUID, superuser: asyncpg.Connection) -> None:
    sent = await client.command("send", conversation_id=conversation, content="Hello", client_ref=uuid4())
    message_id = sent["result"]["message_id"]
    assert (await client.command("retry", message_id=message_id))["error"]["code"] == "CONFLICT"
    await superuser.execute("delete from app.outbox")
    await superuser.execute("update messages set status = 'FAILED', failure_code = 'x'")
    assert (await client.command("retry", message_id=message_id))["result"] == {
        "message_id": message_id,
        "status": "PENDING",
    }
    assert await superuser.fetchval("select count(*) from app.outbox") == 1


async def test_N10_every_command_once_and_the_events_alone_rebuild_the_row(
    client: Client,
    colleague: Client,
    agent: Member,
    conversation: UUID,
    superuser: asyncpg.Connection,
    org: Org,
) -> None:
    for _ in range(3):
        await make_message(superuser, org, conversation)
    commands: list[tuple[str, dict[str, Any]]] = [
        ("assign", {"assignee_id": agent.id}), ("tag", {"add": ["vip", "late"], "remove": []}),
        ("tag", {"remove": ["late"]}),
        ("read", {"conv_seq": 3}), ("close", {}), ("reopen", {}), ("assign", {"assignee_id": None}),
        ("typing", {"typing": True}), ("typing", {"typing": False}), ("view", {}),
    ]  # fmt: skip
    for name, args in commands:
        reply = await client.command(name, conversation_id=conversation, **args)
        assert (reply["ok"], reply.get("result")) == (True, {}), (name, reply)
    assert (await client.command("view", conversation_id=None))["result"] == {}
    end = await superuser.fetchval("select max(seq) from app.events where organization_id = $1", org.id)
    await until(lambda: colleague.cursor and colleague.cursor["seq"] >= end, what="all events")
    rows: dict[str, dict[str, Any]] = {}
    for event in (e["event"] for e in colleague.events):
        rows[event["entity_id"]] = event["payload"]["row"]
    for table in ("conversations", "messages"):
        stored = await superuser.fetch(f"select id, to_jsonb(t) - 'search' as row from {table} t")
        for r in stored:
            assert rows[str(r["id"])] == orjson.loads(r["row"]), table
    assert rows[str(conversation)]["tags"] == ["vip"]
    assert (
        await superuser.fetchval("select inbound_count from conversation_reads where user_id = $1", agent.id)
        == 3
    )


async def test_a_member_who_may_only_read_is_refused_what_writes(
    hub: LiveHub, superuser: asyncpg.Connection, org: Org, conversation: UUID
) -> None:
    reader = await make_member(superuser, org, can_send_messages=False)
    client = Client((await sign_in(superuser, hub, reader))[0])
    await client.connect(hub)
    await make_message(superuser, org, conversation)
    for name, args in (
        ("send", {"content": "x", "client_ref": uuid4()}), ("close", {}), ("reopen", {}),
        ("tag", {"add": ["x"]}), ("assign", {"assignee_id": None}),
    ):  # fmt: skip
        reply = await client.command(name, conversation_id=conversation, **args)
        assert reply["error"]["code"] == "INSUFFICIENT_PERMISSIONS", name
        assert reply["error"]["details"] == {"missing": ["can_send_messages"]}
    assert (await client.command("read", conversation_id=conversation, conv_seq=1))["ok"]
    await client.leave()
