"""app.ingest_many: one row a message, whatever is repeated, shuffled or raced (guarantees 4, 5)."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import orjson
import pytest

from hub.db.pool import Database
from tests.factories import Org, ingest_item, make_conversation, make_org


async def ingest(db: Database, *items: dict[str, Any]) -> list[dict[str, Any]]:
    """Run one batch; the events it wrote, decoded, with their organization and seq."""
    numbered = [{**item, "n": n} for n, item in enumerate(items)]
    async with db.connection("ingest") as conn:
        rows = await conn.fetch("select * from app.ingest_many($1)", orjson.dumps(numbered).decode())
    return [{"organization_id": r["organization_id"], **orjson.loads(r["frame"])} for r in rows]


@pytest.fixture
async def org(superuser: asyncpg.Connection) -> Org:
    return await make_org(superuser)


async def test_HOOK_09_a_strangers_message_makes_contact_conversation_message_and_events(
    db: Database, superuser: asyncpg.Connection, org: Org
) -> None:
    events = await ingest(db, ingest_item(org, "201001383533", content="سلام"))
    assert [e["event"]["type"] for e in events] == [
        "contact.created", "conversation.created", "conversation.updated", "message.created",
    ]  # fmt: skip
    assert events[-1]["event"]["names"] == ["message.received"]
    assert events[-1]["event"]["payload"]["row"]["content"] == "سلام"
    row = await superuser.fetchrow(
        "select m.status, m.conv_seq, c.status as conversation, c.inbound_count, c.last_message_preview,"
        " p.first_name, p.last_name, p.phones"
        " from messages m join conversations c on c.id = m.conversation_id"
        " join contacts p on p.id = m.contact_id"
    )
    assert dict(row) == {
        "status": "RECEIVED", "conv_seq": 1, "conversation": "OPEN",
        "inbound_count": 1, "last_message_preview": "سلام",
        "first_name": "Mona", "last_name": "Hassan", "phones": ["+201001383533"],
    }  # fmt: skip


async def test_HOOK_09_a_replayed_delivery_changes_nothing(
    db: Database, superuser: asyncpg.Connection, org: Org
) -> None:
    item = ingest_item(org, "201", "wamid.1")
    await ingest(db, item)
    before = await superuser.fetchval("select count(*) from app.events")
    assert await ingest(db, item, item) == []
    assert await superuser.fetchval("select count(*) from app.events") == before
    assert await superuser.fetchval("select msg_seq from conversations") == 1


async def test_I03_ten_parallel_batches_of_one_new_sender_make_one_of_each(
    db: Database, superuser: asyncpg.Connection, org: Org
) -> None:
    async def deliver(n: int) -> None:
        for _ in range(5):  # the caller's promise: run again what lost a race
            try:
                await ingest(db, ingest_item(org, "201", f"wamid.{n}"))
                return
            except (asyncpg.SerializationError, asyncpg.DeadlockDetectedError, asyncpg.UniqueViolationError):
                continue

    await asyncio.gather(*(deliver(n % 10) for n in range(20)))
    counts = await superuser.fetchrow(
        "select (select count(*) from contacts) as contacts,"
        " (select count(*) from contact_identities) as identities,"
        " (select count(*) from conversations) as conversations,"
        " (select count(*) from messages) as messages,"
        " (select array_agg(conv_seq order by conv_seq) from messages) as seqs"
    )
    assert tuple(counts) == (1, 1, 1, 10, list(range(1, 11)))


async def test_EXT_06_an_inbound_message_reopens_the_newest_closed_conversation(
    db: Database, superuser: asyncpg.Connection, org: Org
) -> None:
    await ingest(db, ingest_item(org, "201"))
    await superuser.execute("update conversations set status = 'CLOSED'")
    events = await ingest(db, ingest_item(org, "201"))
    assert await superuser.fetchval("select array_agg(status) from conversations") == ["OPEN"]
    assert events[0]["event"]["names"] == ["conversation.status.changed"]
    assert events[0]["event"]["payload"]["changed"]["status"] == "CLOSED"


async def test_a_phone_found_later_joins_the_contact_of_the_business_scoped_id(
    db: Database, superuser: asyncpg.Connection, org: Org
) -> None:
    await ingest(db, ingest_item(org, "", schemes=["wa_bsuid"], ids=["EG.3141"]))
    await ingest(db, ingest_item(org, "", schemes=["wa_id", "wa_bsuid"], ids=["201001383533", "EG.3141"]))
    assert await superuser.fetch("select phones from contacts") == [(["+201001383533"],)]
    schemes = await superuser.fetchval("select array_agg(scheme order by scheme) from contact_identities")
    assert schemes == ["phone_e164", "wa_bsuid", "wa_id"]
    assert await superuser.fetchval("select count(*) from conversations") == 1


async def test_I02_messages_of_one_batch_keep_the_providers_order(
    db: Database, superuser: asyncpg.Connection, org: Org
) -> None:
    times = ["2026-01-01T00:00:03Z", "2026-01-01T00:00:01Z", "2026-01-01T00:00:02Z"]
    await ingest(
        db, *(ingest_item(org, "201", f"k{n}", content=f"{n}", occurred_at=t) for n, t in enumerate(times))
    )
    rows = await superuser.fetch("select content, conv_seq, created_at from messages order by created_at")
    assert [(r["content"], r["conv_seq"]) for r in rows] == [("1", 1), ("2", 2), ("0", 3)]


async def test_one_batch_over_several_organizations_numbers_each_log_without_gaps(
    db: Database, superuser: asyncpg.Connection
) -> None:
    orgs = [await make_org(superuser) for _ in range(3)]
    start = {
        o.id: await superuser.fetchval(
            "select coalesce(max(seq), 0) from app.events where organization_id = $1", o.id
        )
        for o in orgs
    }

    async def write(k: int) -> None:
        for n in range(5):
            await ingest(db, *(ingest_item(o, f"20{k}{n}") for o in orgs))

    await asyncio.gather(*(write(k) for k in range(4)))
    for o in orgs:
        seqs = [
            r["seq"]
            for r in await superuser.fetch(
                "select seq from app.events where organization_id = $1 order by seq", o.id
            )
        ]
        assert seqs == list(range(1, len(seqs) + 1))
        assert len(seqs) - start[o.id] == 4 * 5 * 4


@pytest.mark.parametrize("others", [0, 2])
async def test_2_1b_a_batch_writes_the_same_events_as_the_trigger_would(
    db: Database, superuser: asyncpg.Connection, org: Org, others: int
) -> None:
    """Three doors: a message alone, one in a batch, and one inserted plainly into a twin conversation."""
    company = [ingest_item(org, f"20{n}", content="Other") for n in range(others)]
    events = await ingest(db, *company, ingest_item(org, "299", content="Same"))
    [batch] = [e["event"] for e in events if e["event"]["payload"]["row"].get("content") == "Same"]
    twin = await make_conversation(superuser, org)
    await superuser.execute(
        "insert into messages"
        " (organization_id, conversation_id, direction, status, content, source, provider_message_id)"
        " values ($1, $2, 'INBOUND', 'RECEIVED', 'Same', 'customer', 'x')",
        org.id, twin,
    )  # fmt: skip
    frame = await superuser.fetchval(
        "select app.event_frame(e) from app.events e where table_name = 'messages' order by seq desc limit 1"
    )
    single = orjson.loads(frame)["event"]
    assert batch.keys() == single.keys()
    assert batch["payload"]["row"].keys() == single["payload"]["row"].keys()
    for field in ("type", "table", "op", "names", "depth", "cause_id"):
        assert batch[field] == single[field], field
    varying = {
        "id",
        "contact_id",
        "conversation_id",
        "created_at",
        "updated_at",
        "occurred_at",
        "provider_message_id",
    }
    assert {k: v for k, v in batch["payload"]["row"].items() if k not in varying} == {
        k: v for k, v in single["payload"]["row"].items() if k not in varying
    }
    updates = [r["row"] for r in await superuser.fetch(
        "select payload -> 'changed' as row from app.events"
        " where table_name = 'conversations' and op = 'UPDATE' order by seq")]  # fmt: skip
    assert orjson.loads(updates[0]).keys() == orjson.loads(updates[-1]).keys()


async def test_CONV_02_a_reply_finds_its_message_in_the_same_batch(
    db: Database, superuser: asyncpg.Connection, org: Org
) -> None:
    asked = ingest_item(org, "201", "wamid.question", content="Where?")
    await ingest(db, {**ingest_item(org, "201", "wamid.answer"), "reply_to": "wamid.question"}, asked)
    row = await superuser.fetchrow(
        "select a.reply_to_id, q.id from messages a, messages q"
        " where a.provider_message_id = 'wamid.answer' and q.provider_message_id = 'wamid.question'"
    )
    assert row["reply_to_id"] == row["id"]


async def test_the_log_of_an_organization_goes_with_it(
    db: Database, superuser: asyncpg.Connection, org: Org
) -> None:
    kept = await make_org(superuser)
    await ingest(db, ingest_item(org, "201"), ingest_item(kept, "201"))
    await superuser.execute("delete from organizations where id = $1", org.id)
    left = await superuser.fetch("select distinct organization_id as id from app.events")
    assert [r["id"] for r in left] == [kept.id]
    assert await superuser.fetchval("select count(*) from messages where organization_id = $1", org.id) == 0


async def test_I11_the_same_ids_in_two_organizations_stay_apart(
    db: Database, superuser: asyncpg.Connection
) -> None:
    a, b = await make_org(superuser), await make_org(superuser)
    await ingest(db, ingest_item(a, "201", "wamid.same"), ingest_item(b, "201", "wamid.same"))
    rows = await superuser.fetch(
        "select m.organization_id, c.organization_id, p.organization_id"
        " from messages m join conversations c on c.id = m.conversation_id"
        " join contacts p on p.id = m.contact_id"
    )
    assert {tuple(r) for r in rows} == {(a.id,) * 3, (b.id,) * 3}


@pytest.mark.parametrize("others", [0, 1])
async def test_a_contact_of_the_crm_who_writes_for_the_first_time_is_recognised_by_his_phone(
    db: Database, superuser: asyncpg.Connection, org: Org, others: int
) -> None:
    contact = await superuser.fetchval(
        "insert into contacts (organization_id, first_name, phones) values ($1, 'Mona', $2) returning id",
        org.id,
        ["+20 100 138 3533"],
    )
    company = [ingest_item(org, f"20{n}") for n in range(others)]
    await ingest(db, *company, ingest_item(org, "201001383533"))
    found = await superuser.fetch(
        "select scheme, value from contact_identities where contact_id = $1 order by 1", contact
    )
    assert [tuple(r) for r in found] == [("phone_e164", "+201001383533"), ("wa_id", "201001383533")]
    phones = await superuser.fetchval("select phones from contacts where id = $1", contact)
    assert phones == ["+20 100 138 3533"]
    assert await superuser.fetchval("select count(*) from conversations where contact_id = $1", contact) == 1


async def test_phones_and_emails_of_a_contact_are_its_identities_and_follow_them(
    superuser: asyncpg.Connection, org: Org
) -> None:
    contact = await superuser.fetchval(
        "insert into contacts (organization_id, phones, emails) values ($1, $2, $3) returning id",
        org.id,
        ["00201001383533", "010 not international"],
        ["Mona@Example.test"],
    )

    values = "select value from contact_identities where contact_id = $1 order by 1"

    async def identities() -> list[str]:
        return [r["value"] for r in await superuser.fetch(values, contact)]

    assert await identities() == ["+201001383533", "mona@example.test"]
    change = "update contacts set phones = $2, emails = '{}' where id = $1"
    await superuser.execute(change, contact, ["+4470"])
    assert await identities() == ["+4470"]
    other = await superuser.fetchval(
        "insert into contacts (organization_id, phones) values ($1, $2) returning id", org.id, ["+4470"]
    )
    assert await identities() == ["+4470"]
    assert await superuser.fetch(values, other) == []
