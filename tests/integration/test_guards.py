"""What decides between two transactions that run at once: indexes, locks, fences. Each test holds one of them
open at its last point while the other one comes, so that nothing depends on luck (guarantees 2, 4, 7, 9)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import aiohttp
import asyncpg
import orjson
import pytest
from aiohttp import web

from hub.actions.messages import queue_message
from hub.channels.ingest import Ingest, IngestItem
from hub.channels.protocol import RequestDescription, ResponseFacts
from hub.db.embedded import EmbeddedValkey
from hub.db.pool import Database, LoggedEvent, Purpose
from hub.db.tenancy import acting_as
from hub.errors import Conflict, Unavailable
from tests import whatsapp as wa
from tests.factories import (
    Org,
    Servers,
    ingest_item,
    insert,
    make_contact,
    make_conversation,
    make_member,
    make_message,
    make_org,
    until,
)
from tests.live import Client, live_hub, sign_in
from workers.outbound import Result, Sender
from workers.transport import make_session, perform


@pytest.fixture
async def org(superuser: asyncpg.Connection) -> Org:
    return await make_org(superuser)


class Rival:
    """A transaction of the product's login that has done its work and not committed."""

    def __init__(self, conn: asyncpg.Connection, superuser: asyncpg.Connection) -> None:
        self.conn, self._superuser = conn, superuser

    async def commit_once_met(self, other: asyncio.Task[Any]) -> None:
        """Commit when the other one waits for a lock, or is done without having waited."""

        await until(lambda: waits_or_is_done(self._superuser, other), what="the other transaction")
        await self.conn.execute("commit")


async def waits_or_is_done(superuser: asyncpg.Connection, other: asyncio.Task[Any]) -> bool:
    return other.done() or bool(
        await superuser.fetchval(
            "select exists (select from pg_stat_activity where datname = current_database()"
            " and pg_blocking_pids(pid) <> '{}')"
        )
    )


@pytest.fixture
async def rival(servers: Servers, superuser: asyncpg.Connection) -> AsyncIterator[Rival]:
    conn = await asyncpg.connect(servers.database_url, server_settings={"lock_timeout": "2s"})
    await conn.execute("begin")
    yield Rival(conn, superuser)
    await conn.close()


async def ingest(conn: asyncpg.Connection, *items: dict[str, Any]) -> list[dict[str, Any]]:
    """The events that one batch wrote."""
    numbered = [{**item, "n": n} for n, item in enumerate(items)]
    rows = await conn.fetch("select frame from app.ingest_many($1)", orjson.dumps(numbered).decode())
    return [orjson.loads(r["frame"])["event"] for r in rows]


async def beside(db: Database, *items: dict[str, Any]) -> list[dict[str, Any]]:
    async with db.connection("ingest") as conn:
        return await ingest(conn, *items)


def item(org: Org, sender: str, key: str, content: str = "Hi") -> IngestItem:
    return IngestItem(
        organization_id=org.id, channel_account_id=org.account_id, dedupe_key=key, schemes=["wa_id"],
        ids=[sender], content=content, occurred_at=datetime.now(UTC),
    )  # fmt: skip


@asynccontextmanager
async def ingesting(db: Database) -> AsyncIterator[Ingest]:
    found = Ingest(db, wa.settings())
    await found.start()
    yield found
    await found.stop()


# The way in.


async def test_I01_one_id_from_two_senders_at_once_is_stored_once(
    db: Database, superuser: asyncpg.Connection, org: Org, rival: Rival
) -> None:
    """Another sender means another conversation, whose lock the first one does not hold."""
    await ingest(rival.conn, ingest_item(org, "201", "wamid.same"))
    async with ingesting(db) as way_in:
        other = asyncio.create_task(way_in.messages([item(org, "202", "wamid.same")]))
        await rival.commit_once_met(other)
        assert await other == []
    assert await superuser.fetchval("select count(*) from messages") == 1
    assert await superuser.fetchval("select count(*) from contacts") == 1


@pytest.mark.parametrize("more", [0, 1], ids=["alone", "in a batch"])
async def test_I01_what_another_writer_stored_meanwhile_is_no_error(
    db: Database, superuser: asyncpg.Connection, org: Org, rival: Rival, more: int
) -> None:
    await make_conversation(superuser, org, await make_contact(superuser, org, "201"))
    await ingest(rival.conn, ingest_item(org, "201", "wamid.same"))
    new = [ingest_item(org, "201", f"wamid.new.{n}") for n in range(more)]
    other = asyncio.create_task(beside(db, ingest_item(org, "201", "wamid.same"), *new))
    await rival.commit_once_met(other)
    assert len([e for e in await other if e["table"] == "messages"]) == more
    assert await superuser.fetchval("select count(*) from messages") == 1 + more


async def test_I01_the_same_message_twice_in_one_delivery_is_one(
    db: Database, superuser: asyncpg.Connection, org: Org
) -> None:
    same = ingest_item(org, "201", "wamid.same")
    events = await beside(db, same, ingest_item(org, "201", "wamid.other"), same)
    assert len([e for e in events if e["table"] == "messages"]) == 2
    assert await superuser.fetchval("select count(*) from messages") == 2


@pytest.mark.parametrize("more", [0, 1], ids=["alone", "in a batch"])
async def test_I03_two_first_messages_of_a_stranger_at_once_are_one_contact(
    db: Database, superuser: asyncpg.Connection, org: Org, rival: Rival, more: int
) -> None:
    await ingest(rival.conn, ingest_item(org, "201", "wamid.1"))
    items = [ingest_item(org, "201", f"wamid.2.{n}") for n in range(1 + more)]
    other = asyncio.create_task(beside(db, *items))
    await rival.commit_once_met(other)
    await other
    assert await superuser.fetchval("select count(*) from contacts") == 1
    assert await superuser.fetchval("select count(*) from messages") == 2 + more


@pytest.mark.parametrize("more", [0, 1], ids=["alone", "in a batch"])
async def test_I03_two_first_messages_of_a_contact_at_once_share_a_conversation(
    db: Database, superuser: asyncpg.Connection, org: Org, rival: Rival, more: int
) -> None:
    await make_contact(superuser, org, "201")
    await ingest(rival.conn, ingest_item(org, "201", "wamid.1"))
    items = [ingest_item(org, "201", f"wamid.2.{n}") for n in range(1 + more)]
    other = asyncio.create_task(beside(db, *items))
    await rival.commit_once_met(other)
    await other
    rows = await superuser.fetch("select msg_seq from conversations")
    assert [r["msg_seq"] for r in rows] == [2 + more]


async def test_O07_one_client_ref_in_two_conversations_at_once_is_one_message(
    db: Database, superuser: asyncpg.Connection, org: Org
) -> None:
    agent = (await make_member(superuser, org)).principal()
    here, there = [await make_conversation(superuser, org) for _ in range(2)]
    ref = uuid4()
    async with acting_as(db, agent) as conn:
        await conn.execute(
            "insert into messages (conversation_id, content, client_ref, direction, status, source)"
            " values ($1, 'here', $2, 'OUTBOUND', 'PENDING', 'agent')",
            here, ref,
        )  # fmt: skip
        other = asyncio.create_task(
            queue_message(db, agent, conversation_id=there, content="there", client_ref=ref)
        )
        await until(lambda: waits_or_is_done(superuser, other), what="the other transaction")
    with pytest.raises(Conflict):
        await other
    assert await superuser.fetchval("select count(*) from messages") == 1


@pytest.mark.parametrize("first", ["the status", "the id"])
async def test_I04_a_status_and_the_commit_of_its_id_at_once_miss_nothing(
    db: Database, superuser: asyncpg.Connection, org: Org, rival: Rival, first: str
) -> None:
    """A receipt without our correlator, beside the commit that stores the id it speaks of."""
    message = await pending(superuser, org)
    token = uuid4()
    await claim(db, token=token)
    settle = "select app.settle_sends($1, $2)"
    accepted = orjson.dumps(
        [{"message_id": str(message), "outcome": "accepted", "provider_message_id": "wamid.1"}]
    ).decode()
    apply = "select app.apply_statuses($1)"
    receipt = orjson.dumps([receipt_of(org, "wamid.1", "DELIVERED")]).decode()
    both: list[tuple[str, tuple[Any, ...]]] = [(apply, (receipt,)), (settle, (token, accepted))]
    if first == "the id":
        both.reverse()
    await rival.conn.fetch(both[0][0], *both[0][1])

    async def second() -> None:
        async with db.connection("worker") as conn:
            await conn.fetch(both[1][0], *both[1][1])

    other = asyncio.create_task(second())
    await rival.commit_once_met(other)
    await other
    assert await superuser.fetchval("select status from messages") == "DELIVERED"
    assert await superuser.fetchval("select count(*) from app.pending_statuses") == 0


async def test_I11_a_receipt_reaches_the_message_of_its_own_account(
    db: Database, superuser: asyncpg.Connection, org: Org
) -> None:
    """The same provider id on two accounts of one organization."""
    conversation = await make_conversation(superuser, org)
    await make_message(
        superuser, org, conversation, direction="OUTBOUND", status="SENT", source="agent",
        provider_message_id="wamid.same",
    )  # fmt: skip
    second = await insert(
        superuser,
        "channel_accounts",
        {"organization_id": org.id, "name": "Second", "type": "WHATSAPP_CLOUD"},
    )
    receipt = receipt_of(org, "wamid.same", "READ") | {"channel_account_id": str(second)}
    async with db.connection("ingest") as conn:
        await conn.fetch("select app.apply_statuses($1)", orjson.dumps([receipt]).decode())
    assert await superuser.fetchval("select status from messages") == "SENT"


def receipt_of(org: Org, id: str, status: str) -> dict[str, Any]:
    return {
        "organization_id": str(org.id), "channel_account_id": str(org.account_id),
        "provider_message_id": id, "correlator": None, "status": status,
        "occurred_at": "2026-01-01T00:00:00Z", "failure_code": None, "failure_reason": None,
    }  # fmt: skip


# The log.


async def test_S06_a_writer_that_is_not_done_holds_up_nobodys_events(
    superuser: asyncpg.Connection, servers: Servers, org: Org
) -> None:
    """Streams are locked at the commit: a long transaction delays no other."""
    slow, quick = [
        await asyncpg.connect(servers.migrate_url, server_settings={"lock_timeout": "2s"}) for _ in range(2)
    ]
    try:
        await slow.execute("begin")
        await slow.execute("insert into tasks (organization_id, title) values ($1, 'slow')", org.id)
        await quick.execute("insert into tasks (organization_id, title) values ($1, 'quick')", org.id)
        await slow.execute("commit")
    finally:
        await slow.close()
        await quick.close()
    titles = await superuser.fetch(
        "select payload -> 'row' ->> 'title' as title from app.events"
        " where organization_id = $1 and table_name = 'tasks' order by seq",
        org.id,
    )
    assert [r["title"] for r in titles] == ["quick", "slow"]


@pytest.fixture
async def committing(servers: Servers, superuser: asyncpg.Connection, org: Org) -> AsyncIterator[Rival]:
    """A transaction that has written its event, as a commit does, and is not visible yet."""
    conn = await asyncpg.connect(servers.migrate_url)
    await conn.execute("begin")
    await conn.execute("insert into tasks (organization_id, title) values ($1, 'committing')", org.id)
    await conn.execute("set constraints all immediate")
    yield Rival(conn, superuser)
    await conn.close()


@pytest.mark.parametrize("writer", ["a member", "a batch"])
async def test_S06_a_writer_waits_for_one_that_commits(
    db: Database, superuser: asyncpg.Connection, org: Org, committing: Rival, writer: str
) -> None:
    """Whoever read the tail now would take the same number."""
    owner = (await make_member(superuser, await make_org(superuser), "OWNER")).principal(
        organization_id=org.id
    )

    async def write() -> None:
        async with acting_as(db, owner) as conn:
            await conn.execute("insert into contacts (first_name) values ('Mona')")

    other = asyncio.create_task(write() if writer == "a member" else _batch(db, org))
    await committing.commit_once_met(other)
    await other
    rows = await superuser.fetch("select seq from app.events where organization_id = $1 order by seq", org.id)
    assert [r["seq"] for r in rows] == list(range(1, len(rows) + 1))


async def _batch(db: Database, org: Org) -> None:
    await beside(db, ingest_item(org, "201", "wamid.1"))


async def test_I02_two_messages_of_a_conversation_at_once_get_two_numbers(
    db: Database, superuser: asyncpg.Connection, servers: Servers, org: Org
) -> None:
    owner = (await make_member(superuser, org, "OWNER")).principal()
    conversation = await make_conversation(superuser, org)
    conn = await asyncpg.connect(servers.migrate_url)

    async def write() -> None:
        async with acting_as(db, owner) as mine:
            await mine.execute(
                "insert into messages (conversation_id, content, direction, status, source)"
                " values ($1, 'second', 'OUTBOUND', 'PENDING', 'agent')",
                conversation,
            )

    try:
        await conn.execute("begin")
        await make_message(conn, org, conversation, "first")
        other = asyncio.create_task(write())
        await Rival(conn, superuser).commit_once_met(other)
        await other
    finally:
        await conn.close()
    rows = await superuser.fetch("select content, conv_seq from messages order by created_at")
    assert [tuple(r) for r in rows] == [("first", 1), ("second", 2)]


async def test_D06_a_commit_that_fails_at_its_end_publishes_nothing(
    db: Database, superuser: asyncpg.Connection, org: Org
) -> None:
    """The event is written by the commit itself, before a deferred check refuses the whole."""
    published: list[LoggedEvent] = []
    db.publish = published.extend
    owner = (await make_member(superuser, org, "OWNER")).principal()
    with pytest.raises(asyncpg.ForeignKeyViolationError):
        async with acting_as(db, owner) as conn:
            await conn.execute("insert into contacts (first_name) values ('Mona')")
            await conn.execute(
                "insert into contact_identities (contact_id, scheme, value) values ($1, 'wa_id', '9')",
                uuid4(),
            )
    assert published == []
    assert await superuser.fetchval("select count(*) from contacts") == 0


async def test_D06_what_a_webhook_wrote_is_published_whole_and_once(
    db: Database, superuser: asyncpg.Connection, org: Org
) -> None:
    published: list[LoggedEvent] = []
    db.publish = published.extend
    start = await superuser.fetchval("select count(*) from app.events")
    async with ingesting(db) as way_in:
        await way_in.messages([item(org, "201", "wamid.1")])
        await way_in.messages([item(org, "202", "wamid.2"), item(org, "203", "wamid.3")])
    frames = await superuser.fetch(
        "select app.event_frame(e) as frame from app.events e where organization_id = $1 and seq > $2"
        " order by seq",
        org.id, start,
    )  # fmt: skip
    assert len(frames) == 3 * 4
    assert [p.frame for p in published] == [r["frame"] for r in frames]


async def test_S06_every_door_to_a_message_leaves_its_event(
    db: Database, superuser: asyncpg.Connection, org: Org
) -> None:
    """A member's insert, a claim that is settled, receipts, an edit, insert-message: whoever writes, in
    whatever role."""
    agent = (await make_member(superuser, org)).principal()

    async def events_of(work: Callable[[asyncpg.Connection], Any], *, within: bool = False) -> int:
        before = await superuser.fetchval("select count(*) from app.events where table_name = 'messages'")
        async with acting_as(db, agent) if within else db.connection("worker") as conn:
            await work(conn)
        found: int = await superuser.fetchval("select count(*) from app.events where table_name = 'messages'")
        return found - before

    conversation = await make_conversation(superuser, org)
    token = uuid4()

    def run(statement: str, *args: Any) -> Callable[[asyncpg.Connection], Any]:
        encoded = [orjson.dumps(a).decode() if isinstance(a, (dict, list)) else a for a in args]
        return lambda conn: conn.fetch(statement, *encoded)

    assert await events_of(
        run(
            "insert into messages (conversation_id, content, direction, status, source)"
            " values ($1, 'Hi', 'OUTBOUND', 'PENDING', 'agent')",
            conversation,
        ),
        within=True,
    ) == 1  # fmt: skip
    [message] = await claim(db, token=token)
    accepted = {"message_id": str(message), "outcome": "accepted", "provider_message_id": "wamid.1"}
    assert await events_of(run("select app.settle_sends($1, $2)", token, [accepted])) == 1
    assert await events_of(run("select app.apply_statuses($1)", [receipt_of(org, "wamid.1", "READ")])) == 1
    edit = {
        "n": 0, "organization_id": str(org.id), "channel_account_id": str(org.account_id),
        "target_id": "wamid.1", "kind": "edit", "content": "Hello", "occurred_at": "2026-01-01T00:00:00Z",
    }  # fmt: skip
    assert await events_of(run("select app.amend_messages($1)", [edit])) == 1
    recorded = {
        "external_id": "x", "direction": "INBOUND", "status": "RECEIVED", "message_type": "text",
        "content": "Hi", "phones": [],
    }  # fmt: skip
    assert await events_of(run("select * from app.record_message($1)", recorded), within=True) == 1


# The way out.


async def pending(superuser: asyncpg.Connection, org: Org, conversation: UUID | None = None) -> UUID:
    return await make_message(
        superuser,
        org,
        conversation or await make_conversation(superuser, org),
        direction="OUTBOUND",
        status="PENDING",
        source="agent",
    )


async def claim(db: Database, batch: int = 20, token: UUID | None = None) -> list[UUID]:
    async with db.connection("worker") as conn:
        rows = await conn.fetch("select * from app.claim_sends($1, 'w', $2, '30 s')", token or uuid4(), batch)
    return [r["message_id"] for r in rows if r["message_id"] is not None]


async def test_Q01_two_claims_at_once_share_nothing(
    db: Database, superuser: asyncpg.Connection, org: Org, rival: Rival
) -> None:
    ids = [await pending(superuser, org) for _ in range(3)]
    mine = await rival.conn.fetch("select * from app.claim_sends($1, 'a', 20, '30 s')", uuid4())
    other = asyncio.create_task(claim(db))
    await rival.commit_once_met(other)
    assert {r["message_id"] for r in mine} == set(ids)
    assert await other == []


async def test_D09_a_lease_about_to_end_begins_nothing(
    db: Database, superuser: asyncpg.Connection, org: Org
) -> None:
    message = await pending(superuser, org)
    token = uuid4()
    assert await claim(db, token=token) == [message]
    await superuser.execute("update app.outbox set lease_until = clock_timestamp() + interval '3 s'")
    async with db.connection("worker") as conn:
        assert await conn.fetch("select app.mark_sending($1, $2, '5 s')", token, [message]) == []
        assert len(await conn.fetch("select app.mark_sending($1, $2, '0 s')", token, [message])) == 1


async def test_Q06_eight_sends_of_an_organization_run_and_no_more(
    db: Database, superuser: asyncpg.Connection, org: Org
) -> None:
    for _ in range(12):
        await pending(superuser, org)
    assert len(await claim(db, batch=5)) == 5
    assert len(await claim(db)) == 3
    assert await claim(db) == []


async def test_Q06_a_small_batch_goes_round_the_organizations(
    db: Database, superuser: asyncpg.Connection, org: Org
) -> None:
    for _ in range(5):
        await pending(superuser, org)
    late = await pending(superuser, await make_org(superuser))
    assert late in await claim(db, batch=2)


async def test_D07_a_row_whose_message_is_settled_is_not_claimed(
    db: Database, superuser: asyncpg.Connection, org: Org
) -> None:
    message = await pending(superuser, org)
    await superuser.execute("update messages set status = 'SENT' where id = $1", message)
    assert await superuser.fetchval("select state from app.outbox") == "available"
    assert await claim(db) == []


@pytest.mark.parametrize(("outcome", "attempts"), [("retry", 1), ("throttled", 0), ("released", 0)])
async def test_O01_only_a_failure_costs_a_try_and_all_wait_as_told(
    db: Database, superuser: asyncpg.Connection, org: Org, outcome: str, attempts: int
) -> None:
    message = await pending(superuser, org)
    token = uuid4()
    assert await claim(db, token=token) == [message]
    result = {"message_id": str(message), "outcome": outcome, "retry_in_s": 3600}
    async with db.connection("worker") as conn:
        await conn.fetch("select app.settle_sends($1, $2)", token, orjson.dumps([result]).decode())
    row = await superuser.fetchrow("select state, attempts from app.outbox")
    assert tuple(row) == ("available", attempts)
    assert await claim(db) == []
    await superuser.execute("update app.outbox set due_at = due_at - interval '1 hour'")
    assert await claim(db) == [message]


async def test_Q04_a_message_that_three_workers_died_over_is_given_up(
    db: Database, superuser: asyncpg.Connection, org: Org
) -> None:
    """After the second it is claimed alone, so that it takes no other message with it."""
    poison = await pending(superuser, org)
    others = [await pending(superuser, org) for _ in range(2)]
    await superuser.execute(
        "update app.outbox set lost_leases = 2, due_at = due_at - interval '1 minute' where message_id = $1",
        poison,
    )
    assert await claim(db) == [poison]
    await superuser.execute("update app.outbox set lease_until = now() where message_id = $1", poison)
    async with db.connection("worker") as conn:
        row = await conn.fetchrow("select * from app.reap_sends('0 s', 100)")
    assert tuple(row) == (0, 0, 1)
    failed = await superuser.fetchrow("select status, failure_code from messages where id = $1", poison)
    assert tuple(failed) == ("FAILED", "lost_leases")
    assert set(await claim(db)) == set(others)


async def test_D07_the_providers_answer_is_written_again_until_the_database_takes_it(
    db: Database, superuser: asyncpg.Connection, org: Org
) -> None:
    """It is known here and nowhere else, should no receipt come."""
    tries = 0

    class Away:
        @asynccontextmanager
        async def connection(self, purpose: Purpose) -> AsyncIterator[asyncpg.Connection]:
            nonlocal tries
            tries += 1
            if tries < 3:
                raise Unavailable("away")
            async with db.connection(purpose) as conn:
                yield conn

    away: Any = Away()
    session: Any = None
    sender = Sender(away, wa.settings(), session, "w")
    lease = sender.leases.new()
    message = await pending(superuser, org)
    assert await claim(db, token=lease.token) == [message]
    accepted = Result(message, "accepted", provider_message_id="wamid.1")
    assert await sender._settle(lease, [accepted]) == [True]
    assert await superuser.fetchval("select status from messages") == "SENT"


async def test_a_providers_redirect_is_not_followed() -> None:
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.Response(status=307, headers={"Location": "/elsewhere"})

    app = web.Application()
    app.router.add_route("*", "/{path}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        async with make_session(wa.settings()) as session:
            assert isinstance(session, aiohttp.ClientSession)
            url = f"http://127.0.0.1:{runner.addresses[0][1]}/messages"
            found = await perform(
                session,
                RequestDescription(
                    method="POST", url=url, headers={"Authorization": "Bearer token"}, body=b"{}"
                ),
            )
    finally:
        await runner.cleanup()
    assert isinstance(found, ResponseFacts) and found.status == 307
    assert asked == ["/messages"]


async def test_D09_a_file_whose_lease_moved_on_is_not_settled(
    db: Database, superuser: asyncpg.Connection, org: Org
) -> None:
    file = await insert(superuser, "media_files", {"organization_id": org.id})
    old, new = uuid4(), uuid4()
    await superuser.execute(
        "insert into app.jobs (organization_id, kind, key, payload, state, lease_token, lease_until)"
        " values ($1, 'media', $2, '{}', 'running', $3, now() + interval '30 s')",
        org.id, str(file), new,
    )  # fmt: skip
    async with db.connection("worker") as conn:
        for token, expected in ((old, False), (new, True)):
            settled = await conn.fetchval(
                "select app.settle_media($1, $2, $3, $4)", token, org.id, file, '{"outcome": "expired"}'
            )
            assert settled is expected
            state = await superuser.fetchval("select state from media_files where id = $1", file)
            assert state == ("expired" if expected else "pending")


# Live sessions.


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ("update auth.sessions set revoked_at = now() where user_id = $1", 4401),
        ("update memberships set is_active = false where user_id = $1", 4403),
        ("update memberships set can_access_crm = false where user_id = $1", 4012),
    ],
    ids=["revoked", "disabled", "another permission"],
)
async def test_X24_a_session_that_has_long_been_trusted_is_looked_at_all_the_same(
    servers: Servers, valkey: EmbeddedValkey, superuser: asyncpg.Connection, org: Org, change: str, code: int
) -> None:
    """In its first seconds a session is doubted anyway; this one is past them."""
    member = await make_member(superuser, org)
    async with live_hub(servers, valkey.url) as hub:
        token, _ = await sign_in(superuser, hub, member)
        client = Client(token)
        await client.connect(hub)
        (session,) = hub.registry.sessions
        await until(lambda: session.fingerprint, what="the first look")
        session.suspect_until = 0.0
        await superuser.execute(change, member.id)
        assert await client.closed() == code
        await client.leave()
