"""Nothing lost, nothing doubled: several hubs, concurrent writers, publications that go astray, Redis that
dies (guarantees 2, 3)."""

from __future__ import annotations

import asyncio
import random
import signal
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from hub.db.embedded import EmbeddedValkey
from hub.db.pool import LoggedEvent
from hub.db.tenancy import acting_as
from hub.events.publisher import PUBLICATIONS_PER_FLUSH, pack, publications, unpack
from hub.realtime import fanout as fanout_module
from hub.realtime.fanout import Fanout
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


class StrayingFanout(Fanout):
    """Loses 30 % of the publications, doubles 10 %, and delays some past others."""

    random = random.Random(7)

    def receive(self, channel: bytes, body: bytes) -> None:
        if not channel.startswith(b"o:"):
            super().receive(channel, body)
            return
        luck = self.random.random()
        if luck < 0.3:
            return
        if luck < 0.4:
            super().receive(channel, body)
        if luck < 0.7:
            asyncio.get_running_loop().call_later(self.random.uniform(0, 0.2), self.late, channel, body)
        else:
            super().receive(channel, body)

    def late(self, channel: bytes, body: bytes) -> None:
        super().receive(channel, body)
        self._flush()


class DeafFanout(Fanout):
    """Never hears a publication: what it shows comes from head checks alone."""

    def receive(self, channel: bytes, body: bytes) -> None:
        if not channel.startswith(b"o:"):
            super().receive(channel, body)


@pytest.fixture
async def org(superuser: asyncpg.Connection) -> Org:
    return await make_org(superuser)


@pytest.fixture
async def agent(superuser: asyncpg.Connection, org: Org) -> Member:
    return await make_member(superuser, org)


async def change(hub: LiveHub, member: Member, n: int = 1, pause: float = 0.0) -> None:
    for _ in range(n):
        async with acting_as(hub.db, member.principal()) as conn:
            await conn.execute("insert into contacts (first_name) values ('Live')")
            if pause:
                await asyncio.sleep(random.uniform(0, pause))


async def head(conn: asyncpg.Connection, org: Org) -> int:
    found: int = await conn.fetchval(
        "select coalesce(max(seq), 0) from app.events where organization_id = $1", org.id
    )
    return found


async def open_clients(conn: asyncpg.Connection, hub: LiveHub, member: Member, n: int) -> list[Client]:
    clients = [Client((await sign_in(conn, hub, member))[0]) for _ in range(n)]
    for client in clients:
        await client.connect(hub)
    return clients


async def open_client(conn: asyncpg.Connection, hub: LiveHub, member: Member) -> Client:
    (client,) = await open_clients(conn, hub, member, 1)
    return client


async def caught_up(client: Client, seq: int, timeout_s: float = 15.0) -> None:
    await until(lambda: client.cursor and client.cursor["seq"] >= seq, timeout_s, what=f"seq {seq}")


async def test_D08_resume_under_concurrent_writers_over_two_hubs(
    servers: Servers, valkey: EmbeddedValkey, superuser: asyncpg.Connection, org: Org, agent: Member
) -> None:
    """N-05 in small: sessions are cut again and again and come back on either hub, while six writers commit
    on both."""
    async with live_hub(servers, valkey.url) as a, live_hub(servers, valkey.url) as b:
        clients = await open_clients(superuser, a, agent, 4)
        start = await head(superuser, org)
        writing = asyncio.gather(*(change(h, agent, 60, pause=0.004) for h in (a, b, a, b, a, b)))
        while not writing.done():
            client = random.choice(clients[1:])
            client.cut()
            await client.leave()
            assert (await client.connect(random.choice((a, b))))["resumed"]
            await asyncio.sleep(random.uniform(0, 0.05))
        await writing
        end = await head(superuser, org)
        assert end == start + 360
        for client in clients:
            await caught_up(client, end)
            assert client.seqs == list(range(start + 1, end + 1))
            await client.leave()


async def test_N04_publications_lost_doubled_and_reordered_change_nothing(
    servers: Servers, valkey: EmbeddedValkey, superuser: asyncpg.Connection, org: Org, agent: Member
) -> None:
    async with (
        live_hub(servers, valkey.url, StrayingFanout) as straying,
        live_hub(servers, valkey.url) as writer,
    ):
        client = await open_client(superuser, straying, agent)
        start = await head(superuser, org)
        await asyncio.gather(*(change(writer, agent, 50, pause=0.01) for _ in range(4)))
        await caught_up(client, start + 200)
        assert client.seqs == list(range(start + 1, start + 201))
        await client.leave()


async def test_D06_what_nobody_published_is_found_by_the_head_check(
    servers: Servers, valkey: EmbeddedValkey, superuser: asyncpg.Connection, org: Org, agent: Member
) -> None:
    """The writer died between commit and publish: here, a writer that never publishes, beside one that
    cannot be heard."""
    async with live_hub(servers, valkey.url) as hub, live_hub(servers, valkey.url, DeafFanout) as deaf:
        clients = [await open_client(superuser, h, agent) for h in (hub, deaf)]
        conversation = await make_conversation(superuser, org)
        message = await make_message(superuser, org, conversation)
        for client in clients:
            await until(lambda c=client: str(message) in c.ids("messages"), what="the silent message")
            await change(hub, agent)
        end = await head(superuser, org)
        for client in clients:
            await caught_up(client, end)
            assert client.seqs == list(range(client.seqs[0], end + 1))
            await client.leave()


async def test_D05_N03_redis_dies_and_returns_empty(
    servers: Servers, tmp_path: Path, superuser: asyncpg.Connection, org: Org, agent: Member
) -> None:
    redis = EmbeddedValkey(tmp_path)
    redis.start()
    try:
        async with live_hub(servers, redis.url) as hub, live_hub(servers, redis.url) as other:
            client = await open_client(superuser, hub, agent)
            start = await head(superuser, org)
            await change(other, agent, 5)
            await caught_up(client, start + 5)
            assert redis.process is not None
            redis.process.kill()
            redis.process.wait()
            await until(lambda: {"type": "degraded", "what": ["redis"]} in client.others, what="the warning")
            await change(other, agent, 5)
            await caught_up(client, start + 10)
            token, _ = await sign_in(superuser, hub, agent)
            newcomer = Client(token)
            await newcomer.connect(hub)  # sessions open without Redis too
            await until(
                lambda: {"type": "degraded", "what": ["redis"]} in newcomer.others, what="its warning"
            )
            redis.start()
            await until(lambda: client.others[-1] == {"type": "degraded", "what": []}, what="the all-clear")
            published = other.publisher.published
            await until(
                lambda: other.publisher._closed_until < asyncio.get_running_loop().time(), what="the breaker"
            )
            await change(other, agent, 5)
            await caught_up(client, start + 15)
            await caught_up(newcomer, start + 15)
            assert other.publisher.published >= published + 5
            assert client.seqs == list(range(start + 1, start + 16))
            await newcomer.leave()
            await client.leave()
    finally:
        redis.stop()


async def test_D11_a_redis_that_hangs_delays_nobody_and_is_noticed(
    servers: Servers,
    tmp_path: Path,
    superuser: asyncpg.Connection,
    org: Org,
    agent: Member,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fanout_module, "REDIS_PING_S", 0.3)
    monkeypatch.setattr(fanout_module, "REDIS_SILENCE_S", 0.9)
    redis = EmbeddedValkey(tmp_path)
    redis.start()
    assert redis.process is not None
    try:
        async with live_hub(servers, redis.url) as hub:
            client = await open_client(superuser, hub, agent)
            start = await head(superuser, org)
            redis.process.send_signal(signal.SIGSTOP)
            try:
                await change(hub, agent, 5)
                await caught_up(client, start + 5)
                await until(lambda: {"type": "degraded", "what": ["redis"]} in client.others, what="notice")
                await change(hub, agent, 5)
                await caught_up(client, start + 10)
                await until(lambda: hub.publisher.dropped > 0, what="the breaker")
                assert client.others[-1] == {"type": "degraded", "what": ["redis"]}  # and not back at once
            finally:
                redis.process.send_signal(signal.SIGCONT)
            await until(lambda: client.others[-1] == {"type": "degraded", "what": []}, what="the all-clear")
            await change(hub, agent, 5)
            await caught_up(client, start + 15)
            assert client.seqs == list(range(start + 1, start + 16))
            await client.leave()
    finally:
        redis.stop()


async def test_D19_another_epoch_resyncs_those_who_are_connected(
    servers: Servers, valkey: EmbeddedValkey, superuser: asyncpg.Connection, org: Org, agent: Member
) -> None:
    async with live_hub(servers, valkey.url) as hub:
        client = await open_client(superuser, hub, agent)
        before = client.welcomes[0]["epoch"]
        await superuser.execute("update app.hub_meta set nonce = gen_random_uuid()")
        frame = await until(
            lambda: next((f for f in client.others if f["type"] == "resync"), None), what="resync"
        )
        assert (
            frame["reason"] == "epoch"
            and frame["epoch"] != before
            and frame["seq"] == await head(superuser, org)
        )
        await change(hub, agent)
        await until(lambda: client.events, what="life after it")
        await client.leave()
        assert (await client.connect(hub))["resumed"]
        await client.leave()


async def test_2_4_a_log_that_went_back_resyncs_too(
    servers: Servers, valkey: EmbeddedValkey, superuser: asyncpg.Connection, org: Org, agent: Member
) -> None:
    async with live_hub(servers, valkey.url) as hub:
        client = await open_client(superuser, hub, agent)
        await change(hub, agent, 3)
        await until(lambda: len(client.events) == 3, what="three events")
        end = await head(superuser, org)
        await superuser.execute(
            "delete from app.events where organization_id = $1 and seq > $2", org.id, end - 2
        )
        frame = await until(
            lambda: next((f for f in client.others if f["type"] == "resync"), None), what="resync"
        )
        assert (frame["reason"], frame["seq"]) == ("rewind", end - 2)
        await change(hub, agent)
        await until(lambda: client.seqs == [end - 1], what="the next event under its old number")
        await client.leave()


async def test_N08_those_who_return_together_read_the_log_once(
    servers: Servers, valkey: EmbeddedValkey, superuser: asyncpg.Connection, org: Org, agent: Member,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    async with live_hub(servers, valkey.url) as first, live_hub(servers, valkey.url) as second:
        clients = await open_clients(superuser, first, agent, 15)
        for client in clients:
            await client.leave()
        await change(first, agent, 100)
        pages = []
        page = fanout_module.event_log.page

        async def counted(*args: Any, **options: Any) -> list[LoggedEvent]:
            pages.append(args[2:])
            return await page(*args, **options)

        monkeypatch.setattr(fanout_module.event_log, "page", counted)
        await asyncio.gather(*(c.connect(second) for c in clients))
        end = await head(superuser, org)
        for client in clients:
            await caught_up(client, end)
            assert len(client.events) == 100
            await client.leave()
        assert len(pages) <= 2


async def test_a_stream_ends_with_its_last_session_and_starts_anew(
    servers: Servers, valkey: EmbeddedValkey, superuser: asyncpg.Connection, org: Org, agent: Member
) -> None:
    async with live_hub(servers, valkey.url) as hub, live_hub(servers, valkey.url) as other:
        for _ in range(5):
            client = await open_client(superuser, hub, agent)
            await change(other, agent)
            await until(lambda c=client: c.events, what="the event")
            await client.leave()
            await until(lambda: not hub.fanout.streams, what="the stream to end")


async def test_presence_typing_and_viewing_over_two_hubs(
    servers: Servers, valkey: EmbeddedValkey, superuser: asyncpg.Connection, org: Org, agent: Member
) -> None:
    conversation = await make_conversation(superuser, org)
    colleague = await make_member(superuser, org)
    async with live_hub(servers, valkey.url) as a, live_hub(servers, valkey.url) as b:
        here = await open_client(superuser, a, agent)
        there = await open_client(superuser, b, colleague)

        async def sees(client: Client, **frame: Any) -> None:
            await until(lambda: frame in client.others, what=str(frame))

        await sees(here, type="presence", user_id=str(colleague.id), online=True, viewing=None)
        assert (await there.command("view", conversation_id=conversation))["ok"]
        await sees(here, type="presence", user_id=str(colleague.id), online=True, viewing=str(conversation))
        assert (await there.command("typing", conversation_id=conversation, typing=True))["ok"]
        typing = {"type": "typing", "conversation_id": str(conversation), "user_id": str(colleague.id)}
        await sees(here, **typing, typing=True)
        assert not any(f["type"] == "typing" for f in there.others)
        newcomer = Client((await sign_in(superuser, a, agent))[0])
        welcome = await newcomer.connect(a)
        assert {"user_id": str(colleague.id), "viewing": str(conversation)} in welcome["presence"]
        there.cut()
        await there.leave()
        await sees(here, **typing, typing=False)
        await sees(here, type="presence", user_id=str(colleague.id), online=False, viewing=None)
        await newcomer.leave()
        await here.leave()


def test_a_publication_is_what_was_packed() -> None:
    org = UUID(int=1)
    frames = [("messages", b'{"a":"\xd8\xb3\n 7 9"}'), ("contacts", b""), ("messages", b"x\n\n")]
    assert unpack(pack("e1", 41, frames)) == ("e1", 41, 3, frames)
    assert unpack(pack("e1", 41, (), 900)) == ("e1", 41, 900, [])
    for broken in (b"", b"e1 1 1", b"e1 1 2\nmessages 1\nx", b"e1 1 1\nmessages 9\nx"):
        with pytest.raises(ValueError):
            unpack(broken)
    events = [LoggedEvent(org, n, "messages", "x" * 8000) for n in (1, 2, 2, 3, 7, 8)]
    assert [unpack(p)[1:3] for _, p in publications("e", events)] == [(1, 3), (7, 2)]
    many = [LoggedEvent(org, n, "messages", "x" * 8000) for n in range(1, 30)]
    packed = [unpack(p) for _, p in publications("e", many)]
    assert sum(p.total for p in packed) == 29 and all(p.frames for p in packed)
    flood = [LoggedEvent(org, n, "messages", "x" * 8000) for n in range(1, 9 * PUBLICATIONS_PER_FLUSH)]
    ((channel, hint),) = publications("e", flood)
    assert channel == f"o:{org}" and unpack(hint) == ("e", 1, len(flood), [])
