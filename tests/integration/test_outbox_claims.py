"""The outbox's claim and reaper: fair between tenants, in order within a conversation, never a second time
(guarantees 5, 7, 8)."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import asyncpg
import orjson
import pytest

from hub.db.pool import Database
from tests.factories import Org, make_conversation, make_message, make_org


async def pending(
    conn: asyncpg.Connection, org: Org, conversation: UUID | None = None, n: int = 1
) -> list[UUID]:
    """``n`` messages that wait to be sent, each in a conversation of its own unless one is given."""
    return [
        await make_message(
            conn,
            org,
            conversation or await make_conversation(conn, org),
            direction="OUTBOUND",
            status="PENDING",
            source="agent",
        )
        for _ in range(n)
    ]


async def claim(db: Database, batch: int = 20, token: UUID | None = None) -> list[asyncpg.Record]:
    async with db.connection("worker") as conn:
        return await conn.fetch("select * from app.claim_sends($1, 'w', $2, '30 s')", token or uuid4(), batch)


async def settle(db: Database, token: UUID, **result: Any) -> None:
    async with db.connection("worker") as conn:
        await conn.fetch("select app.settle_sends($1, $2)", token, orjson.dumps([result]).decode())


async def reap(db: Database) -> tuple[int, int, int]:
    async with db.connection("worker") as conn:
        row = await conn.fetchrow("select * from app.reap_sends('0 s', 100)")
    return tuple(row)


@pytest.fixture
async def org(superuser: asyncpg.Connection) -> Org:
    return await make_org(superuser)


async def test_Q06_a_held_account_with_many_rows_stops_nobody(
    db: Database, superuser: asyncpg.Connection, org: Org
) -> None:
    other = await make_org(superuser)
    conversation = await make_conversation(superuser, org)
    await pending(superuser, org, conversation, 500)
    await superuser.execute(
        "insert into app.account_holds (organization_id, channel_account_id, reason, until)"
        " values ($1, $2, 'auth', now() + interval '1 hour')",
        org.id,
        org.account_id,
    )
    healthy = await pending(superuser, other, n=3)
    assert {r["message_id"] for r in await claim(db)} == set(healthy)


async def test_Q06_a_big_tenant_leaves_room_for_a_small_one(
    db: Database, superuser: asyncpg.Connection, org: Org
) -> None:
    small = await make_org(superuser)
    await pending(superuser, org, n=200)
    mine = await pending(superuser, small, n=2)
    got = [r["message_id"] for r in await claim(db, batch=10)]
    assert set(mine) <= set(got)
    assert len([r for r in await claim(db, batch=50) if r["organization_id"] == org.id]) == 0  # 8 run already


async def test_O08_a_conversation_goes_one_at_a_time_and_in_order(
    db: Database, superuser: asyncpg.Connection, org: Org
) -> None:
    conversation = await make_conversation(superuser, org)
    ids = await pending(superuser, org, conversation, 3)
    for expected in ids:
        token = uuid4()
        assert [r["message_id"] for r in await claim(db, token=token)] == [expected]
        assert await claim(db) == []
        await settle(
            db, token, message_id=str(expected), outcome="accepted", provider_message_id=f"wamid.{expected}"
        )


async def test_O04_after_a_long_outage_the_first_still_goes_first(
    db: Database, superuser: asyncpg.Connection, org: Org
) -> None:
    """Both have waited for longer than two minutes, and the first one's turn came later: it was tried."""
    conversation = await make_conversation(superuser, org)
    first, second = await pending(superuser, org, conversation, 2)
    await superuser.execute(
        "update app.outbox set queued_at = now() - interval '5 minutes',"
        " due_at = now() - interval '5 minutes'"
    )
    await superuser.execute(
        "update app.outbox set last_error = 'refused', attempts = 3, due_at = now() - interval '1 s'"
        " where message_id = $1",
        first,
    )
    assert [r["message_id"] for r in await claim(db)] == [first]
    assert await claim(db) == []
    assert second


async def test_a_later_message_passes_one_that_waits_for_another_try_after_two_minutes(
    db: Database, superuser: asyncpg.Connection, org: Org
) -> None:
    conversation = await make_conversation(superuser, org)
    first, second = await pending(superuser, org, conversation, 2)
    waiting = (
        "update app.outbox set last_error = 'x', due_at = now() + interval '9 minutes' where message_id = $1"
    )
    await superuser.execute(waiting, first)
    assert await claim(db) == []
    await superuser.execute("update app.outbox set queued_at = now() - interval '3 minutes'")
    assert [r["message_id"] for r in await claim(db)] == [second]
    marked = await superuser.fetch("select id from messages where metadata ? 'overtaken'")
    assert [r["id"] for r in marked] == [first]


async def test_Q06_accounts_with_future_rows_alone_are_not_walked(
    db: Database, superuser: asyncpg.Connection, org: Org
) -> None:
    """More accounts than one claim looks at have a message for tomorrow: the one for now is in the first
    claim; what was for later is found when its time comes."""
    others = [await make_org(superuser) for _ in range(140)]
    for other in others:
        await pending(superuser, other)
    await superuser.execute("update app.outbox set due_at = now() + interval '1 day'")
    last = await make_org(superuser)
    [now] = await pending(superuser, last)
    assert [r["message_id"] for r in await claim(db)] == [now]
    assert await superuser.fetchval("select count(*) from app.outbox where is_later") == 140
    await superuser.execute("update app.outbox set due_at = now() where organization_id = $1", others[139].id)
    assert [r["organization_id"] for r in await claim(db)] == [others[139].id]


async def test_Q06_a_claim_looks_at_so_many_accounts_and_the_next_one_looks_on(
    db: Database, superuser: asyncpg.Connection
) -> None:
    """300 held accounts before one that may send: three claims, none of which looks at more than 128."""
    orgs = [await make_org(superuser) for _ in range(301)]
    for other in orgs:
        await pending(superuser, other)
    await superuser.execute(
        "insert into app.account_holds (organization_id, channel_account_id, reason, until)"
        " select organization_id, id, 'throttled', now() + interval '1 hour' from channel_accounts"
        " where organization_id <> $1",
        orgs[300].id,
    )
    behind: tuple[Any, ...] = (None, None)
    claimed = []
    for _ in range(3):
        async with db.connection("worker") as conn:
            rows = await conn.fetch(
                "select * from app.claim_sends($1, 'w', 20, '30 s', $2, $3)", uuid4(), *behind
            )
        claimed += [r["organization_id"] for r in rows if r["message_id"] is not None]
        behind = next(
            ((r["organization_id"], r["channel_account_id"]) for r in rows if r["message_id"] is None), ()
        )
    assert claimed == [orgs[300].id]
    assert behind == ()


async def test_a_retry_whose_receipt_came_meanwhile_leaves_nothing_to_send(
    db: Database, superuser: asyncpg.Connection, org: Org
) -> None:
    [message] = await pending(superuser, org)
    token = uuid4()
    await claim(db, token=token)
    await superuser.execute("update messages set status = 'SENT'")
    await settle(db, token, message_id=str(message), outcome="retry", retry_in_s=0)
    assert await superuser.fetchval("select count(*) from app.outbox") == 0


async def test_a_message_scheduled_for_later_blocks_nobody(
    db: Database, superuser: asyncpg.Connection, org: Org
) -> None:
    conversation = await make_conversation(superuser, org)
    [later] = await pending(superuser, org, conversation)
    await superuser.execute(
        "update app.outbox set due_at = now() + interval '1 day' where message_id = $1", later
    )
    [now] = await pending(superuser, org, conversation)
    assert [r["message_id"] for r in await claim(db)] == [now]


async def test_bulk_sends_take_at_most_half_of_a_batch(db: Database, superuser: asyncpg.Connection) -> None:
    orgs = [await make_org(superuser) for _ in range(4)]
    for o in orgs:
        await pending(superuser, o, n=6)
    await superuser.execute("update app.outbox set is_bulk = true, due_at = due_at - interval '1 hour'")
    urgent = await pending(superuser, orgs[0])
    rows = await claim(db, batch=10)
    assert len(rows) == 6
    assert urgent[0] in {r["message_id"] for r in rows}


async def test_Q06_an_answer_goes_ahead_of_the_campaign_on_its_own_number(
    db: Database, superuser: asyncpg.Connection, org: Org
) -> None:
    bulk = await pending(superuser, org, n=30)
    await superuser.execute("update app.outbox set is_bulk = true, due_at = due_at - interval '1 hour'")
    [answer] = await pending(superuser, org)
    first = [r["message_id"] for r in await claim(db, batch=4)]
    assert answer in first
    assert set(first) - {answer} <= set(bulk)


async def test_CHAN_10_a_switched_off_account_waits_and_a_disconnected_one_fails_visibly(
    db: Database, superuser: asyncpg.Connection, org: Org
) -> None:
    [message] = await pending(superuser, org)
    await superuser.execute("update channel_accounts set is_active = false where id = $1", org.account_id)
    assert await claim(db) == []
    assert await reap(db) == (0, 0, 0)
    await superuser.execute(
        "update channel_accounts set disconnected_at = now() where id = $1", org.account_id
    )
    assert await claim(db) == []
    assert await reap(db) == (0, 0, 1)
    row = await superuser.fetchrow("select status, failure_code from messages where id = $1", message)
    assert tuple(row) == ("FAILED", "channel_disconnected")


async def lost_while_sending(db: Database, superuser: asyncpg.Connection, message: UUID) -> None:
    """A worker that died between mark_sending and its result; the reaper has seen it."""
    token = uuid4()
    assert [r["message_id"] for r in await claim(db, token=token)] == [message]
    async with db.connection("worker") as conn:
        await conn.fetch("select app.mark_sending($1, $2, '1 s')", token, [message])
    await superuser.execute("update app.outbox set lease_until = now() - interval '1 s'")


async def test_O12_hold_never_sends_an_ambiguous_message_again(
    db: Database, superuser: asyncpg.Connection, org: Org
) -> None:
    [message] = await pending(superuser, org)
    await lost_while_sending(db, superuser, message)
    assert await reap(db) == (0, 1, 0)
    assert await claim(db) == []
    assert await reap(db) == (0, 0, 1)
    assert await claim(db) == []
    assert await superuser.fetchval("select failure_code from messages") == "ambiguous"


async def test_O12_resend_sends_an_ambiguous_message_once_more_and_no_third_time(
    db: Database, superuser: asyncpg.Connection, org: Org
) -> None:
    await superuser.execute(
        "update channel_accounts set on_ambiguous = 'resend' where id = $1", org.account_id
    )
    [message] = await pending(superuser, org)
    for expected in [(1, 0, 0), (0, 0, 1)]:
        await lost_while_sending(db, superuser, message)
        assert await reap(db) == (0, 1, 0)
        assert await reap(db) == expected
    assert await claim(db) == []
    assert await superuser.fetchval("select failure_code from messages") == "ambiguous"


@pytest.mark.parametrize("policy", ["hold", "resend"])
async def test_D07_a_message_whose_receipts_came_is_never_claimed_again(
    db: Database, superuser: asyncpg.Connection, org: Org, policy: str
) -> None:
    """The worker died after the provider took it; its receipts arrive while the row still runs."""
    await superuser.execute(
        "update channel_accounts set on_ambiguous = $2 where id = $1", org.account_id, policy
    )
    [message] = await pending(superuser, org)
    await lost_while_sending(db, superuser, message)
    receipt = {
        "organization_id": str(org.id), "channel_account_id": str(org.account_id),
        "provider_message_id": "wamid.taken", "correlator": str(message), "status": "READ",
        "occurred_at": "2026-01-01T00:00:00Z", "failure_code": None, "failure_reason": None,
    }  # fmt: skip
    async with db.connection("ingest") as conn:
        await conn.fetch("select app.apply_statuses($1)", orjson.dumps([receipt]).decode())
    assert await reap(db) == (0, 0, 0)
    assert await claim(db) == []
    assert await superuser.fetchval("select count(*) from app.outbox") == 0
    assert await superuser.fetchval("select status from messages") == "READ"


async def test_D09_a_worker_whose_lease_moved_on_writes_nothing(
    db: Database, superuser: asyncpg.Connection, org: Org
) -> None:
    [message] = await pending(superuser, org)
    old, new = uuid4(), uuid4()
    await claim(db, token=old)
    await superuser.execute("update app.outbox set lease_until = now() - interval '1 s'")
    assert await reap(db) == (1, 0, 0)
    await claim(db, token=new)
    await settle(db, old, message_id=str(message), outcome="failed", code="x")
    assert await superuser.fetchval("select status from messages") == "PENDING"
    async with db.connection("worker") as conn:
        assert await conn.fetch("select app.mark_sending($1, $2, '1 s')", old, [message]) == []
        assert await conn.fetchval("select app.extend_leases($1, '30 s')", old) == 0


async def test_CHAN_10_an_account_switched_off_after_the_claim_sends_nothing(
    db: Database, superuser: asyncpg.Connection, org: Org
) -> None:
    [message] = await pending(superuser, org)
    token = uuid4()
    await claim(db, token=token)
    await superuser.execute("update channel_accounts set is_active = false where id = $1", org.account_id)
    async with db.connection("worker") as conn:
        assert await conn.fetch("select app.mark_sending($1, $2, '1 s')", token, [message]) == []
