"""Deliveries bent out of shape, and statuses in every order: never a 5xx, nothing lost, nothing falls (I-05,
I-10)."""

from __future__ import annotations

import asyncio
import copy
import json
import random
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from hub.db.pool import Database
from hub.settings import Settings
from tests import whatsapp as wa
from tests.factories import Org, make_conversation, make_message, make_org
from tests.whatsapp import Hook

RANKS = ["PENDING", "SENT", "DELIVERED", "READ"]


@pytest.fixture
async def org(superuser: asyncpg.Connection) -> Org:
    return await make_org(superuser)


@pytest.fixture
def config(database_url: str) -> Settings:
    return wa.settings(database_url)


@pytest.fixture
async def hook(db: Database, config: Settings) -> AsyncIterator[Hook]:
    async with wa.hook(db, config) as running:
        yield running


def bent(rng: random.Random, body: dict[str, Any], depth: int) -> dict[str, Any]:
    """The body with a few values replaced, removed or doubled."""
    odd: list[Any] = [
        None, 0, -1, 1e308, True, "", "x" * 3000, "\x00", "\ud800", "ا" * 50, [], {}, [[]],
        {"a": {"b": 1}}, "9" * 400,
    ]  # fmt: skip
    body = copy.deepcopy(body)
    for _ in range(depth):
        path = rng.choice(wa.places(body))
        node = body
        for step in path[:-1]:
            node = node[step]
        match rng.randrange(4):
            case 0:
                del node[path[-1]]
            case 1 if isinstance(node, list):
                node.append(copy.deepcopy(node[path[-1]]))
            case _:
                node[path[-1]] = rng.choice(odd)
    return body


async def gaps(conn: asyncpg.Connection, org: Org) -> int:
    """Numbers missing in the organization's log."""
    n: int = await conn.fetchval(
        "select coalesce(max(seq) - min(seq) + 1 - count(*), 0) from app.events where organization_id = $1",
        org.id,
    )
    return n


@pytest.mark.parametrize("seed", range(6))
async def test_I10_a_bent_delivery_is_answered_200_and_leaves_a_trace(
    hook: Hook, superuser: asyncpg.Connection, org: Org, seed: int
) -> None:
    rng = random.Random(seed)
    whole = json.loads(
        wa.body(
            wa.change(org, wa.text("201", "one", context={"id": "wamid.q"}), wa.text("202", "two")),
            wa.change(
                org,
                {"from": "203", "id": "wamid.media", "timestamp": "1764000000", "type": "image",
                 "image": {"id": "901", "mime_type": "image/jpeg", "caption": "shop"}},
                statuses=[wa.status("wamid.s", "failed", errors=[{"code": 131026, "title": "x"}])],
            ),
        )
    )  # fmt: skip
    raws = [json.dumps(bent(rng, whole, rng.randint(1, 4))).encode() for _ in range(60)]
    gate = asyncio.Semaphore(8)

    async def post(raw: bytes) -> int:
        async with gate:
            return await hook.post(raw)

    assert set(await asyncio.gather(*(post(raw) for raw in raws))) == {200}
    assert await gaps(superuser, org) == 0
    traces = await superuser.fetchval(
        "select (select count(*) from messages) + (select count(*) from app.webhook_failures)"
    )
    assert traces > 0


async def test_I05_statuses_in_any_order_end_at_the_highest_and_never_fall(
    hook: Hook, superuser: asyncpg.Connection, org: Org
) -> None:
    rng = random.Random(5)
    conversation = await make_conversation(superuser, org)
    expected: dict[str, str] = {}
    raws: list[list[bytes]] = []
    for n in range(40):
        id = f"wamid.o{n}"
        await make_message(
            superuser,
            org,
            conversation,
            direction="OUTBOUND",
            status="SENT",
            source="agent",
            provider_message_id=id,
        )
        names = rng.choices(["sent", "delivered", "read"], k=rng.randint(1, 6))
        expected[id] = max((name.upper() for name in ["sent", *names]), key=RANKS.index)
        raws.append([wa.body(wa.change(org, statuses=[wa.status(id, name)])) for name in names])

    async def deliver(sequence: list[bytes]) -> None:
        for raw in sequence:
            assert await hook.post(raw) == 200

    await asyncio.gather(*(deliver(sequence) for sequence in raws))
    found = {r[0]: r[1] for r in await superuser.fetch("select provider_message_id, status from messages")}
    assert found == expected
    seen: dict[str, int] = {}
    rows = await superuser.fetch(
        "select payload #>> '{row,id}', payload #>> '{row,status}' from app.events"
        " where table_name = 'messages' order by seq"
    )
    for id, status in rows:
        assert RANKS.index(status) >= seen.get(id, 0)
        seen[id] = RANKS.index(status)


async def test_I05_a_failure_after_the_reading_is_ignored_and_one_before_it_is_final(
    hook: Hook, superuser: asyncpg.Connection, org: Org
) -> None:
    conversation = await make_conversation(superuser, org)
    columns = {"direction": "OUTBOUND", "status": "SENT", "source": "agent"}
    for id in ("wamid.a", "wamid.b"):
        await make_message(superuser, org, conversation, provider_message_id=id, **columns)
    failed = {"errors": [{"code": 131026, "title": "Undeliverable"}]}
    for id, name, more in (
        ("wamid.a", "read", {}),
        ("wamid.a", "failed", failed),
        ("wamid.b", "failed", failed),
        ("wamid.b", "read", {}),
    ):
        assert await hook.post(wa.body(wa.change(org, statuses=[wa.status(id, name, **more)]))) == 200
    rows = await superuser.fetch("select status, failure_code from messages order by provider_message_id")
    assert [tuple(r) for r in rows] == [("READ", None), ("FAILED", "131026")]


async def test_one_organizations_log_stays_gap_free_beside_agents_at_work(
    hook: Hook, db: Database, superuser: asyncpg.Connection, org: Org
) -> None:
    """Webhooks, statuses and plain writers on the same conversations at once: no deadlock surfaces, no gap,
    no loss."""
    conversations = [await make_conversation(superuser, org) for _ in range(4)]
    stop = asyncio.Event()

    async def agents() -> int:
        n = 0
        while not stop.is_set():
            await superuser.execute(
                "insert into messages (organization_id, conversation_id, direction, status, content, source)"
                " values ($1, $2, 'OUTBOUND', 'SENT', 'x', 'api')",
                org.id,
                conversations[n % 4],
            )
            n += 1
        return n

    ids = await superuser.fetch("select value from contact_identities")
    senders = [r["value"] for r in ids]
    task = asyncio.create_task(agents())
    posts = [wa.messages(org, wa.text(senders[n % 4], f"{n}")) for n in range(120)]
    assert set(await asyncio.gather(*(hook.post(raw) for raw in posts))) == {200}
    stop.set()
    written = await task
    assert await superuser.fetchval("select count(*) from messages") == 120 + written
    assert await gaps(superuser, org) == 0
    orders = await superuser.fetch(
        "select array_agg(conv_seq order by created_at) as seqs from messages group by conversation_id"
    )
    for row in orders:
        assert row["seqs"] == list(range(1, len(row["seqs"]) + 1))
