"""Hello, cursor, limits and goodbyes of one socket (guarantees 3, 12; vocabulary 8)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import aiohttp
import asyncpg
import pytest

from hub.auth.apikeys import hash_key, new_key, prefix_of
from hub.auth.tokens import load_keyring
from hub.db.embedded import EmbeddedValkey
from hub.db.tenancy import acting_as
from hub.metrics import WS_DROPPED
from hub.realtime import registry as registry_module
from hub.realtime import session as session_module
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
async def client(superuser: asyncpg.Connection, hub: LiveHub, agent: Member) -> AsyncIterator[Client]:
    token, _ = await sign_in(superuser, hub, agent)
    client = Client(token)
    yield client
    await client.leave()


async def change_much(hub: LiveHub, member: Member, n: int) -> None:
    """n events of almost 8 KiB each, in one transaction."""
    async with acting_as(hub.db, member.principal()) as conn:
        for _ in range(n):
            await conn.execute(
                "insert into contacts (first_name, custom_fields) values ('Live', $1::jsonb)",
                '{"a": "' + "x" * 7000 + '"}',
            )


async def change(hub: LiveHub, member: Member, n: int = 1) -> None:
    """n committed events, each in a transaction of its own, as the product writes them."""
    for _ in range(n):
        async with acting_as(hub.db, member.principal()) as conn:
            await conn.execute("insert into contacts (first_name) values ('Live')")


async def test_welcome_says_who_where_and_who_else(
    hub: LiveHub, client: Client, agent: Member, org: Org, superuser: asyncpg.Connection
) -> None:
    frame = await client.connect(hub)
    head = await superuser.fetchval("select max(seq) from app.events where organization_id = $1", org.id)
    assert (frame["resumed"], frame["reason"], frame["seq"]) == (False, "new", head)
    assert frame["session"]["user_id"] == str(agent.id) and frame["session"]["role"] == "AGENT"
    assert frame["session"]["organization_id"] == str(org.id)
    assert frame["session"]["permissions"] == ["can_access_crm", "can_read_messages", "can_send_messages"]
    assert frame["presence"] == [{"user_id": str(agent.id), "viewing": None}]


async def test_an_event_arrives_once_in_the_documents_shape(
    hub: LiveHub, client: Client, agent: Member
) -> None:
    await client.connect(hub)
    await change(hub, agent)
    await until(lambda: client.events, what="the event")
    frame = client.events[0]
    assert set(frame) == {"type", "seq", "event"}
    event = frame["event"]
    assert (event["type"], event["table"], event["op"]) == ("contact.created", "contacts", "INSERT")
    assert event["actor"] == {"kind": "user", "user_id": str(agent.id)}
    assert event["payload"]["row"]["first_name"] == "Live"


async def test_a_client_that_comes_back_gets_what_it_missed_and_no_snapshot(
    hub: LiveHub, client: Client, agent: Member
) -> None:
    await client.connect(hub)
    await change(hub, agent, 2)
    await until(lambda: len(client.events) == 2, what="two events")
    await client.leave()
    await change(hub, agent, 3)
    frame = await client.connect(hub)
    assert (frame["resumed"], frame["reason"]) == (True, None)
    await until(lambda: len(client.events) == 5, what="the missed three")
    assert client.seqs == list(range(client.seqs[0], client.seqs[0] + 5))


async def test_N09_cursors_that_no_resume_can_serve(
    hub: LiveHub, client: Client, agent: Member, superuser: asyncpg.Connection, org: Org
) -> None:
    welcome = await client.connect(hub)
    await client.leave()
    epoch, seq = welcome["epoch"], welcome["seq"]
    await change(hub, agent, 2)
    await until(lambda: org.id not in hub.fanout.streams, what="the stream to end")
    for cursor, reason in (
        (None, "new"),
        ({"epoch": epoch, "seq": seq + 5_000}, "rewind"),
        ({"epoch": epoch, "seq": 2**63 - 1}, "rewind"),
        ({"epoch": "another", "seq": seq}, "epoch"),
        ({"epoch": epoch.partition(".")[0] + ".other", "seq": seq}, "permissions"),
    ):
        client.cursor = cursor
        frame = await client.connect(hub)
        assert (frame["resumed"], frame["reason"], frame["seq"]) == (False, reason, seq + 2), cursor
        await client.leave()
    await superuser.execute("update app.events set at = at - interval '8 days' where seq <= $1", seq + 1)
    client.cursor = {"epoch": epoch, "seq": seq - 1}
    assert (await client.connect(hub))["reason"] == "too_old"
    await client.leave()
    client.cursor = {"epoch": epoch, "seq": seq + 1}
    assert (await client.connect(hub))["resumed"]


async def test_N09_a_cursor_too_far_back_starts_over(
    hub: LiveHub,
    client: Client,
    agent: Member,
    superuser: asyncpg.Connection,
    org: Org,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(session_module, "RESUME_MAX", 3)
    await client.connect(hub)
    await client.leave()
    await change(hub, agent, 4)
    assert (await client.connect(hub))["reason"] == "too_far"


@pytest.mark.parametrize(
    "frame",
    [
        '{"type":"hello","token":"x","cursor":{"epoch":"e","seq":-1}}',
        '{"type":"hello","token":"x","cursor":{"epoch":"e","seq":9223372036854775808}}',
        '{"type":"hello","token":"x","cursor":{"epoch":"e","seq":"41"}}',
        '{"type":"hello","token":"x","cursor":{"seq":41}}',
        '{"type":"hello"}',
        '{"type":"command","id":"1","name":"view","args":{}}',
        "[]",
        "not json",
        "[" * 60_000,
        b"\x00\x01",
    ],
    ids=range(10),
)
async def test_N09_N11_bad_frames_close_with_4400(hub: LiveHub, frame: Any) -> None:
    stranger = Client("")
    await stranger.open(hub)
    await stranger.send(frame)
    assert await stranger.closed() == 4400
    await stranger.leave()


async def test_bad_expired_and_revoked_tokens_close_with_4401(
    hub: LiveHub,
    client: Client,
    agent: Member,
    superuser: asyncpg.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    revoked, session = await sign_in(superuser, hub, agent)
    await superuser.execute("update auth.sessions set revoked_at = now() where id = $1", session)
    head, _, tail = client.token.rpartition(".")
    for token in ("", "nonsense", "a.b.c", f"{head}.{'A' * len(tail)}", revoked, "cg_" + "x" * 43):
        stranger = Client(token)
        with pytest.raises(ConnectionError):
            await stranger.connect(hub)
        assert stranger.close_code == 4401, token
        await stranger.leave()
    monkeypatch.setattr("hub.clock._offset_s", 7200.0)
    stranger = Client(client.token)
    with pytest.raises(ConnectionError):
        await stranger.connect(hub)
    assert stranger.close_code == 4401
    await stranger.leave()


async def test_who_may_not_read_messages_gets_4403(
    hub: LiveHub, superuser: asyncpg.Connection, org: Org
) -> None:
    clerk = await make_member(superuser, org, can_read_messages=False)
    token, _ = await sign_in(superuser, hub, clerk)
    client = Client(token)
    with pytest.raises(ConnectionError):
        await client.connect(hub)
    assert client.close_code == 4403
    await client.leave()


async def test_X19_a_foreign_origin_is_refused_and_our_own_is_not(hub: LiveHub, client: Client) -> None:
    for origin in (
        "https://evil.example",
        "null",
        f"http://127.0.0.1:{hub.port}.evil.example",
        "http://127.0.0.1",
    ):
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await client.open(hub, headers={"Origin": origin})
        assert refused.value.status == 403
    for origin in (f"http://127.0.0.1:{hub.port}", hub.settings.public_base_url):
        await client.connect(hub, headers={"Origin": origin})
        await client.leave()


async def test_N11_a_frame_above_64_KiB_closes_with_1009(hub: LiveHub, client: Client) -> None:
    await client.connect(hub)
    await client.send('{"type":"command","id":"1","name":"x","args":{"a":"' + "x" * 65_536 + '"}}')
    assert await client.closed() == 1009


async def test_a_flood_closes_with_4429(hub: LiveHub, client: Client) -> None:
    await client.connect(hub)
    for n in range(120):
        await client.send({"type": "command", "id": str(n), "name": "nothing", "args": {}})
    assert await client.closed() == 4429


async def test_N12_who_never_says_hello_is_closed_with_4408(
    hub: LiveHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_module, "HELLO_S", 0.2)
    stranger = Client("")
    await stranger.open(hub)
    assert await stranger.closed() == 4408
    await stranger.leave()


async def test_N12_handshakes_above_the_rate_get_503_with_retry_after(
    hub: LiveHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry_module, "HANDSHAKES_PER_S", 0)
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await Client("").open(hub)
    assert refused.value.status == 503 and refused.value.headers["Retry-After"]  # type: ignore[index]


async def test_sockets_of_one_user_and_of_one_organization_are_bounded(
    hub: LiveHub, client: Client, superuser: asyncpg.Connection, org: Org, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry_module, "USER_SOCKETS", 1)
    await client.connect(hub)
    second = Client(client.token)
    with pytest.raises(ConnectionError):
        await second.connect(hub)
    assert second.close_code == 4409
    await second.leave()
    monkeypatch.setattr(registry_module, "ORGANIZATION_SOCKETS", 1)
    token, _ = await sign_in(superuser, hub, await make_member(superuser, org))
    other = Client(token)
    with pytest.raises(ConnectionError):
        await other.connect(hub)
    assert other.close_code == 4409
    await other.leave()
    await client.leave()
    await until(lambda: not hub.registry.sessions, what="the session to end")
    await client.connect(hub)


async def test_N06_a_client_that_answers_no_ping_is_given_up(
    hub: LiveHub, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry_module, "PING_S", 0.1)
    monkeypatch.setattr(registry_module, "PONG_S", 0.5)
    await client.connect(hub, autoping=False, read=False)
    await until(lambda: not hub.registry.sessions, what="the half-open session to end")
    assert not hub.fanout.streams
    other = Client(client.token)
    await other.connect(hub)  # aiohttp answers pings for this one
    session = next(iter(hub.registry.sessions))
    pinged = session.pinged_at
    await until(lambda: session.pinged_at > pinged and session.heard_at > session.pinged_at, what="a pong")
    await other.leave()


async def test_X24_a_revoked_session_and_a_disabled_member_are_closed(
    hub: LiveHub, client: Client, agent: Member, superuser: asyncpg.Connection, org: Org
) -> None:
    token, session = await sign_in(superuser, hub, agent)
    signed_out = Client(token)
    await signed_out.connect(hub)
    await client.connect(hub)
    await superuser.execute("update auth.sessions set revoked_at = now() where id = $1", session)
    assert await signed_out.closed() == 4401
    await signed_out.leave()
    await superuser.execute("update memberships set is_active = false where user_id = $1", agent.id)
    assert await client.closed() == 4403


async def test_X24_a_changed_permission_sends_the_client_back_to_a_snapshot(
    hub: LiveHub, client: Client, agent: Member, superuser: asyncpg.Connection
) -> None:
    before = await client.connect(hub)
    await until(lambda: next(iter(hub.registry.sessions)).fingerprint, what="the first look")
    await superuser.execute("update memberships set can_access_crm = false where user_id = $1", agent.id)
    assert await client.closed() == 4012
    bye = next(f for f in client.others if f["type"] == "bye")
    assert bye["reason"] == "permissions"
    await client.leave()

    async def comes_back() -> bool:
        frame = await client.connect(hub)
        await client.leave()
        return "can_access_crm" not in frame["session"]["permissions"]

    await until(comes_back, timeout_s=15, what="the new permissions")
    told = next(w for w in client.welcomes if "can_access_crm" not in w["session"]["permissions"])
    assert (told["resumed"], told["reason"]) == (False, "permissions") and told["epoch"] != before["epoch"]


async def test_X24_events_are_filtered_by_permission(
    hub: LiveHub, client: Client, agent: Member, superuser: asyncpg.Connection, org: Org
) -> None:
    """A member without CRM sees messages but no deals, live and on resume; positions move on all the same."""
    narrow = await make_member(superuser, org, can_access_crm=False)
    token, _ = await sign_in(superuser, hub, narrow)
    limited = Client(token)
    await limited.connect(hub)
    await client.connect(hub)
    conversation = await make_conversation(superuser, org)

    async def write() -> None:
        async with acting_as(hub.db, agent.principal()) as conn:
            await conn.execute("insert into companies (name) values ('Hidden')")
        await make_message(superuser, org, conversation)

    await write()
    await until(lambda: limited.ids("messages"), what="the message")
    await until(lambda: client.ids("companies"), what="the company")
    await limited.leave()
    await write()
    frame = await limited.connect(hub)
    assert frame["resumed"]
    await until(lambda: len(limited.ids("messages")) == 2, what="the second message")
    assert not limited.ids("companies")
    await until(lambda: limited.cursor and limited.cursor["seq"] >= frame["seq"], what="the position")
    await limited.leave()


async def test_X01_the_neighbour_sees_nothing(
    hub: LiveHub, client: Client, agent: Member, superuser: asyncpg.Connection
) -> None:
    other_org = await make_org(superuser)
    neighbour = await make_member(superuser, other_org, "OWNER")
    token, _ = await sign_in(superuser, hub, neighbour)
    next_door = Client(token)
    await client.connect(hub)
    await next_door.connect(hub)
    await change(hub, agent, 3)
    conversation = await make_conversation(superuser, other_org)
    for name, args in (("typing", {"typing": True}), ("view", {})):
        reply = await client.command(name, conversation_id=conversation, **args)
        assert (reply["ok"], reply["error"]["code"]) == (False, "RESOURCE_NOT_FOUND")
    await change(hub, neighbour)
    await until(lambda: next_door.ids("contacts"), what="its own event")
    await until(lambda: len(client.events) == 3, what="our events")
    assert {e["event"]["payload"]["row"]["organization_id"] for e in next_door.events} == {str(other_org.id)}
    assert not next_door.others
    await next_door.leave()


async def test_D17_a_stopping_hub_says_bye_and_closes_with_4012(
    servers: Servers, valkey: EmbeddedValkey, superuser: asyncpg.Connection, agent: Member
) -> None:
    async with live_hub(servers, valkey.url) as stopping:
        token, _ = await sign_in(superuser, stopping, agent)
        client = Client(token)
        await client.connect(stopping)
        stopping.registry.say_goodbye()
        assert await client.closed() == 4012
        bye = client.others[-1]
        assert (bye["type"], bye["reason"]) == ("bye", "going_away") and 0 <= bye["retry_in"] <= 5
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await Client(token).open(stopping)
        await client.leave()


async def test_N07_a_reader_that_stalls_is_closed_with_4008_and_resumes_complete(
    hub: LiveHub,
    client: Client,
    agent: Member,
    superuser: asyncpg.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(session_module, "STALL_S", 1.0)
    token, _ = await sign_in(superuser, hub, agent)
    stalled = Client(token)
    await stalled.connect(hub, small_buffers=True, read=False)
    await client.connect(hub)
    session = next(s for s in hub.registry.sessions if s.id == stalled.welcomes[0]["session"]["id"])
    dropped = WS_DROPPED.labels("4008")._value.get()
    written = 0
    while not session._behind and session in hub.registry.sessions:
        await change_much(hub, agent, 20)
        written += 20
        await until(lambda n=written: len(client.events) == n, what="the reader beside it")
        assert session._transport.get_write_buffer_size() <= 2 * session_module.BACKLOG_BYTES
    await until(lambda: session.is_closing, what="the stalled reader to be given up")
    assert WS_DROPPED.labels("4008")._value.get() == dropped + 1
    assert await stalled.closed() in (4008, 1006, None)  # the frame may not fit through what it left unread
    await stalled.leave()
    frame = await stalled.connect(hub)
    assert frame["resumed"]
    await until(lambda: len(stalled.events) == written, what="everything")
    assert stalled.seqs == client.seqs
    await stalled.leave()


async def test_a_reader_that_is_late_but_reads_loses_nothing_and_is_not_closed(
    hub: LiveHub, client: Client, agent: Member
) -> None:
    await client.connect(hub, small_buffers=True, read=False)
    session = next(iter(hub.registry.sessions))
    written = 0
    while not session._behind:
        assert session in hub.registry.sessions
        await change_much(hub, agent, 10)
        written += 10
    client.start_reading()
    await until(lambda: len(client.events) == written, what="everything")
    assert client.seqs == list(range(client.seqs[0], client.seqs[0] + written))
    await until(lambda: not session._behind, what="being live again")
    await change(hub, agent)
    await until(lambda: len(client.events) == written + 1, what="the next one")


async def test_a_command_with_bad_arguments_is_refused_and_the_session_goes_on(
    hub: LiveHub, client: Client
) -> None:
    await client.connect(hub)
    for name, args in (
        ("nothing", {}),
        ("send", {}),
        ("view", {"conversation_id": 7}),
        ("close", {"conversation_id": "x"}),
    ):
        reply = await client.command(name, **args)
        assert (reply["ok"], reply["error"]["code"]) == (False, "VALIDATION_ERROR"), name
    reply = await client.command("close", conversation_id=uuid4())
    assert reply["error"]["code"] == "RESOURCE_NOT_FOUND"


async def test_D03_D12_sockets_stay_while_postgres_is_away_and_say_so(
    hub: LiveHub, client: Client, agent: Member, superuser: asyncpg.Connection, org: Org
) -> None:
    conversation = await make_conversation(superuser, org)
    elsewhere = await make_member(superuser, await make_org(superuser))
    newcomer = Client((await sign_in(superuser, hub, elsewhere))[0])
    await client.connect(hub)
    name = await superuser.fetchval("select current_database()")
    await superuser.execute(f"alter database {name} connection limit 0")
    await superuser.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity"
        " where datname = $1 and pid <> pg_backend_pid()",
        name,
    )
    await until(lambda: {"type": "degraded", "what": ["postgres"]} in client.others, what="the warning")
    reply = await client.command("close", conversation_id=conversation)
    assert reply["error"]["code"] == "SERVICE_UNAVAILABLE"
    with pytest.raises(ConnectionError):
        await newcomer.connect(
            hub
        )  # nobody of its organization is here, so where its log stands is not known
    assert newcomer.close_code == 4012 and newcomer.others[0]["reason"] == "unavailable"
    await newcomer.leave()
    await superuser.execute(f"alter database {name} connection limit -1")
    message = await make_message(superuser, org, conversation)
    await until(lambda: {"type": "degraded", "what": []} in client.others, what="the all-clear")
    await until(lambda: str(message) in client.ids("messages"), what="what was written meanwhile")
    assert (await client.command("close", conversation_id=conversation))["ok"]


async def test_C06_an_organization_key_follows_and_sends_without_being_anybody(
    hub: LiveHub, superuser: asyncpg.Connection, org: Org
) -> None:
    async with hub.db.connection("admin") as door:
        ring = await load_keyring(door, hub.settings)
    key = new_key()
    key_id = await superuser.fetchval(
        "insert into api_keys (organization_id, name, key_prefix, permissions)"
        " values ($1, 'CI', $2, $3::jsonb) returning id",
        org.id,
        prefix_of(key),
        '{"can_read_messages": true, "can_send_messages": true}',
    )
    await superuser.execute(
        "insert into app.api_key_hashes (organization_id, api_key_id, key_prefix, key_hash)"
        " values ($1, $2, $3, $4)",
        org.id,
        key_id,
        prefix_of(key),
        hash_key(ring.pepper, key),
    )
    program = Client(key)
    welcome = await program.connect(hub)
    assert welcome["session"]["user_id"] is None and welcome["presence"] == []
    conversation = await make_conversation(superuser, org)
    reply = await program.command("send", conversation_id=conversation, content="Hi", client_ref=uuid4())
    await until(lambda: reply["result"]["message_id"] in program.ids("messages"), what="its own message")
    refused = await program.command("typing", conversation_id=conversation, typing=True)
    assert refused["error"]["code"] == "INSUFFICIENT_PERMISSIONS"
    await superuser.execute("update api_keys set revoked_at = now()")
    assert await program.closed() == 4401
    await program.leave()
