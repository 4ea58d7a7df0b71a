"""The event log: gap-free, in commit order, complete (guarantees 2)."""

from __future__ import annotations

import asyncio
import random
from typing import Any
from uuid import UUID

import asyncpg
import orjson
import pytest

from hub.db.pool import Database, LoggedEvent
from hub.db.tenancy import acting_as
from tests.factories import Org, Servers, make_contact, make_conversation, make_member, make_message, make_org
from tests.rows import fill


@pytest.fixture
async def org(superuser: asyncpg.Connection) -> Org:
    return await make_org(superuser)


async def log_of(conn: asyncpg.Connection, org: Org) -> list[asyncpg.Record]:
    return await conn.fetch("select * from app.events where organization_id = $1 order by seq", org.id)


async def names_of(conn: asyncpg.Connection, org: Org, after: int) -> list[tuple[str, list[str]]]:
    return [(e["type"], e["names"]) for e in await log_of(conn, org) if e["seq"] > after]


async def head(conn: asyncpg.Connection, org: Org) -> int:
    value: int = await conn.fetchval(
        "select coalesce(max(seq), 0) from app.events where organization_id = $1", org.id
    )
    return value


async def test_S06_a_cursor_misses_nothing_while_older_transactions_are_open(
    servers: Servers, superuser: asyncpg.Connection, org: Org
) -> None:
    """Two open transactions: the one that began first commits last, and its event still comes after the
    cursor."""
    first, second = [await asyncpg.connect(servers.migrate_url) for _ in range(2)]
    try:
        await first.execute("begin")
        await first.execute("insert into tasks (organization_id, title) values ($1, 'older')", org.id)
        await second.execute("insert into tasks (organization_id, title) values ($1, 'newer')", org.id)
        cursor = await head(superuser, org)
        await first.execute("commit")
        late = await superuser.fetch(
            "select payload -> 'row' ->> 'title' as title from app.events"
            " where organization_id = $1 and seq > $2",
            org.id,
            cursor,
        )
        assert [r["title"] for r in late] == ["older"]
    finally:
        await first.close()
        await second.close()


async def test_S06_many_writers_leave_no_gap_and_lose_nothing_to_a_tailing_reader(
    servers: Servers, superuser: asyncpg.Connection, org: Org
) -> None:
    seen: list[int] = []
    done = asyncio.Event()

    async def write(k: int) -> None:
        rng = random.Random(k)
        conn = await asyncpg.connect(servers.migrate_url)
        for n in range(25):
            async with conn.transaction():
                await conn.execute(
                    "insert into tasks (organization_id, title) values ($1, $2)", org.id, f"{k}.{n}"
                )
                if rng.random() < 0.3:
                    await conn.execute(
                        "update tasks set priority = 'HIGH' where organization_id = $1 and title = $2",
                        org.id,
                        f"{k}.{n}",
                    )
        await conn.close()

    async def tail() -> None:
        cursor = 0
        while True:
            finished = done.is_set()
            rows = await superuser.fetch(
                "select seq from app.events where organization_id = $1 and seq > $2 order by seq",
                org.id,
                cursor,
            )
            seen.extend(r["seq"] for r in rows)
            cursor = seen[-1] if seen else 0
            if finished:
                return
            await asyncio.sleep(0)

    reader = asyncio.create_task(tail())
    await asyncio.gather(*(write(k) for k in range(6)))
    done.set()
    await reader
    assert seen == list(range(1, await head(superuser, org) + 1))


async def test_a_rollback_leaves_no_gap(superuser: asyncpg.Connection, org: Org) -> None:
    before = await head(superuser, org)
    with pytest.raises(RuntimeError):
        async with superuser.transaction():
            await superuser.execute("insert into tasks (organization_id, title) values ($1, 'gone')", org.id)
            await superuser.execute("set constraints all immediate")
            raise RuntimeError
    await superuser.execute("insert into tasks (organization_id, title) values ($1, 'kept')", org.id)
    assert await head(superuser, org) == before + 1


async def test_Q05_transactions_over_several_organizations_do_not_deadlock(
    servers: Servers, superuser: asyncpg.Connection
) -> None:
    """Single writers beside settles over many organizations, which take the streams in one order, last."""
    orgs = [await make_org(superuser) for _ in range(4)]

    async def many(k: int) -> None:
        conn = await asyncpg.connect(servers.migrate_url)
        for _ in range(15):
            shuffled = random.Random(k).sample(orgs, len(orgs))
            async with conn.transaction():
                for o in shuffled:
                    await conn.execute("insert into tasks (organization_id, title) values ($1, 't')", o.id)
                await conn.execute("select app.lock_streams($1)", [o.id for o in orgs])
        await conn.close()

    await asyncio.gather(*(many(k) for k in range(4)))
    for o in orgs:
        seqs = [e["seq"] for e in await log_of(superuser, o)]
        assert seqs == list(range(1, len(seqs) + 1))


async def test_every_event_table_writes_one_event_a_change(superuser: asyncpg.Connection) -> None:
    filled = await fill(superuser)
    logged = {e["table_name"] for e in await log_of(superuser, filled.org)}
    expected = {
        r["relname"]
        for r in await superuser.fetch(
            "select c.relname from pg_trigger t join pg_class c on c.oid = t.tgrelid"
            " where t.tgname = 'emit' and c.relname <> 'organizations'"
        )
    }
    assert logged - {"organizations"} == expected
    for table in sorted(expected - {"memberships", "channel_accounts"}):
        before = await head(superuser, filled.org)
        await superuser.execute(
            f"update {table} set created_at = created_at where organization_id = $1", filled.org.id
        )
        events = [
            e for e in await log_of(superuser, filled.org) if e["seq"] > before and e["table_name"] == table
        ]
        assert [e["op"] for e in events] == ["UPDATE"], table
        assert events[0]["type"].endswith(".updated")
        assert events[0]["entity_id"] == filled.rows[table]["id"]


async def test_secrets_never_reach_the_log(superuser: asyncpg.Connection) -> None:
    filled = await fill(superuser)
    for e in await log_of(superuser, filled.org):
        row = orjson.loads(e["payload"])["row"]
        assert not {"key_hash", "token_hash", "encrypted_password", "secret", "search"} & row.keys()


async def test_document_names_of_message_changes(superuser: asyncpg.Connection, org: Org) -> None:
    conv = await make_conversation(superuser, org)
    at = await head(superuser, org)
    message = await make_message(
        superuser, org, conv, direction="OUTBOUND", status="PENDING", source="agent", sender_id=None
    )
    steps = ["SENT", "DELIVERED", "READ"]
    for status in steps:
        await superuser.execute("update messages set status = $2 where id = $1", message, status)
    await make_message(superuser, org, conv)
    names = [n for t, n in await names_of(superuser, org, at) if t.startswith("message.")]
    assert names == [[], ["message.sent"], ["message.delivered"], ["message.read"], ["message.received"]]


async def test_document_names_of_conversations_contacts_deals_and_tasks(
    superuser: asyncpg.Connection, org: Org
) -> None:
    member = await make_member(superuser, org)
    contact = await make_contact(superuser, org)
    conv = await make_conversation(superuser, org, contact)
    deal = await superuser.fetchval(
        "insert into deals (organization_id, title, stage) values ($1, 'D', 'lead') returning id", org.id
    )
    task = await superuser.fetchval(
        "insert into tasks (organization_id, title) values ($1, 'T') returning id", org.id
    )
    changes: list[tuple[str, list[Any], list[str]]] = [
        ("update conversations set assignee_id = $2 where id = $1", [conv, member.id],
         ["conversation.assigned"]),
        ("update conversations set status = 'CLOSED' where id = $1", [conv],
         ["conversation.status.changed"]),
        ("update contacts set assignee_id = $2 where id = $1", [contact, member.id],
         ["contact.updated", "contact.assigned"]),
        ("update deals set stage = 'qualified' where id = $1", [deal],
         ["deal.updated", "deal.stage.changed"]),
        ("update deals set owner_id = $2 where id = $1", [deal, member.id],
         ["deal.updated", "deal.assigned"]),
        ("update tasks set completed = true where id = $1", [task],
         ["task.updated", "task.completed"]),
        ("update tasks set assignee_id = $2 where id = $1", [task, member.id],
         ["task.updated", "task.assigned"]),
    ]  # fmt: skip
    for statement, args, expected in changes:
        at = await head(superuser, org)
        await superuser.execute(statement, *args)
        assert [n for _, n in await names_of(superuser, org, at)] == [expected], statement


async def test_events_name_who_did_it_and_what_changed(
    db: Database, superuser: asyncpg.Connection, org: Org
) -> None:
    member = await make_member(superuser, org)
    conv = await make_conversation(superuser, org)
    async with acting_as(db, member.principal()) as conn:
        await conn.execute("update conversations set assignee_id = $2 where id = $1", conv, member.id)
    e = (await log_of(superuser, org))[-1]
    assert (e["actor_kind"], e["actor_id"]) == ("user", member.id)
    assert orjson.loads(e["payload"])["changed"] == {"assignee_id": None}


async def test_a_writer_learns_its_events_from_the_commit_and_publishes_them(
    db: Database, superuser: asyncpg.Connection, org: Org
) -> None:
    published: list[LoggedEvent] = []
    db.publish = published.extend
    member = await make_member(superuser, org)
    at = await head(superuser, org)
    async with acting_as(db, member.principal()) as conn:
        await conn.execute("insert into contacts (first_name) values ('Mona')")
        assert published == []
    assert [(p.organization_id, p.seq, p.table) for p in published] == [(org.id, at + 1, "contacts")]
    async with db.connection("live") as conn:
        frames = await conn.fetch("select frame from app.read_events($1, $2, 10)", org.id, at)
    assert [f["frame"] for f in frames] == [p.frame for p in published]


async def test_a_refused_transaction_publishes_nothing(
    db: Database, superuser: asyncpg.Connection, org: Org
) -> None:
    published: list[LoggedEvent] = []
    db.publish = published.extend
    member = await make_member(superuser, org)
    with pytest.raises(RuntimeError):
        async with acting_as(db, member.principal()) as conn:
            await conn.execute("insert into contacts (first_name) values ('Mona')")
            raise RuntimeError
    assert published == []


async def test_G3_more_than_a_thousand_rows_in_a_request_are_refused(
    db: Database, superuser: asyncpg.Connection, org: Org
) -> None:
    member = await make_member(superuser, org)

    async def insert(*counts: int) -> None:
        async with acting_as(db, member.principal()) as conn:
            for n in counts:
                await conn.execute(
                    "insert into contacts (first_name) select 'X' from generate_series(1, $1)", n
                )

    await insert(1000)
    for counts in [(1001,), (600, 401)]:
        with pytest.raises(asyncpg.PostgresError) as refused:
            await insert(*counts)
        assert refused.value.sqlstate == "HUB01"
    await insert(600, 400)
    assert await superuser.fetchval("select count(*) from contacts") == 2000


async def test_a_long_text_leaves_ids_and_says_that_it_is_truncated(
    superuser: asyncpg.Connection, org: Org
) -> None:
    conv = await make_conversation(superuser, org)
    message: UUID = await make_message(superuser, org, conv, content="م" * 4096)
    payload = orjson.loads((await log_of(superuser, org))[-1]["payload"])
    assert payload["truncated"] is True
    assert payload["row"]["id"] == str(message)
    assert "content" not in payload["row"]


async def test_epoch_is_stable_and_changes_with_the_nonce(superuser: asyncpg.Connection) -> None:
    first = await superuser.fetchval("select app.epoch()")
    assert first == await superuser.fetchval("select app.epoch()")
    await superuser.execute("update app.hub_meta set nonce = uuidv4()")
    assert first != await superuser.fetchval("select app.epoch()")


async def test_statuses_only_rise(superuser: asyncpg.Connection) -> None:
    """I-05 in SQL: the lattice of channels.md 0.4, every pair."""
    order = {"PENDING": 0, "SENT": 1, "DELIVERED": 2, "READ": 3}
    for a in [*order, "FAILED"]:
        for b in ["SENT", "DELIVERED", "READ", "FAILED"]:
            for code in (None, "ambiguous", "131026"):
                got = await superuser.fetchval("select app.status_rises($1, $2, $3)", a, code, b)
                if b == "FAILED":
                    expected = a in ("PENDING", "SENT")
                elif a == "FAILED":
                    expected = code == "ambiguous"
                else:
                    expected = order[b] > order[a]
                assert bool(got) == expected, (a, code, b)
