"""From PENDING to the customer's phone: the worker against the sandbox (guarantees 7, 8; O-*, D-02, D-07,
D-09)."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import aiohttp
import asyncpg
import pytest

from hub.auth.secrets import seal_secret
from hub.db.embedded import free_port
from tests.factories import until
from tests.sending import LAYLA, OMAR, SAMI, Spawn, World


async def test_O_a_message_is_sent_delivered_and_read(world: World) -> None:
    async with world.worker():
        id = await world.queue("مرحبا")
        row = await world.status(id, "SENT", "DELIVERED")
        assert row["provider_message_id"].startswith("wamid.")
        await world.status(id, "DELIVERED")
        await world.sandbox.advance(10)
        row = await world.status(id, "READ")
        assert row["sent_at"] <= row["delivered_at"] <= row["read_at"]
    [sent] = await world.sends()
    assert (sent["correlator"], sent["wamid"]) == (str(id), row["provider_message_id"])
    assert await world.outbox(id) is None
    names = await world.conn.fetch(
        "select names from app.events where entity_id = $1 and names <> '{}' order by seq", id
    )
    assert [n for r in names for n in r["names"]] == ["message.sent", "message.delivered", "message.read"]


async def test_O08_a_conversations_messages_arrive_in_order(world: World) -> None:
    ids = [await world.queue(f"{n}", to=to) for n in range(8) for to in (LAYLA, OMAR)]
    async with world.worker(), world.worker():
        for id in ids:
            await world.status(id, "SENT", "DELIVERED", "READ")
    sends = await world.sends()
    assert len(sends) == len(ids)
    for persona in ("layla", "omar"):
        texts = [s["body"]["text"]["body"] for s in sends if s["persona"] == persona]
        assert texts == [f"{n}" for n in range(8)]


async def test_O01_a_throttle_is_waited_for_and_costs_no_try(world: World) -> None:
    await world.sandbox.fault("throttle", next=2, params={"retry_after": 1})
    async with world.worker():
        id = await world.queue()
        row = await until(lambda: held(world), what="the hold")
        assert row["until"] > row["created_at"]
        await world.status(id, "SENT", "DELIVERED", "READ")
    assert len(await world.sends(id)) == 1
    requests = (await world.sandbox.ctl("GET", "/outbox"))["requests"]
    assert [r["status"] for r in requests] == [429, 429, 200]


async def held(world: World) -> asyncpg.Record | None:
    return await world.conn.fetchrow(
        "select * from app.account_holds where channel_account_id = $1", world.org.account_id
    )


async def test_O02_a_typed_500_is_tried_again(world: World) -> None:
    await world.sandbox.fault("error", params={"code": 131000, "status": 500})
    async with world.worker():
        id = await world.queue()
        box = await until(lambda: retried(world, id), what="the retry")
        assert box["attempts"] == 1
        await world.conn.execute("update app.outbox set due_at = now()")
        await world.status(id, "SENT", "DELIVERED", "READ")
    assert len(await world.sends(id)) == 1


async def retried(world: World, id: UUID) -> asyncpg.Record | None:
    box = await world.outbox(id)
    return box if box and box["state"] == "available" and box["last_error"] else None


async def test_O02_five_refusals_of_a_retryable_kind_are_final(world: World) -> None:
    await world.sandbox.fault("error", next=5, params={"code": 131000, "status": 500})
    async with world.worker():
        id = await world.queue()

        async def over() -> bool:
            await world.conn.execute("update app.outbox set due_at = now() where state = 'available'")
            return bool((await world.message(id))["status"] == "FAILED")

        await until(over)
    row = await world.message(id)
    assert row["failure_code"] == "131000"
    assert row["failure_reason"]
    assert len((await world.sandbox.ctl("GET", "/outbox"))["requests"]) == 5


@pytest.mark.parametrize(
    ("code", "failure"), [(131051, "131051"), (131047, "window_closed"), (100, "100"), (131026, "131026")]
)
async def test_O02_a_refusal_for_good_fails_with_its_reason(world: World, code: int, failure: str) -> None:
    await world.sandbox.fault("error", params={"code": code, "status": 400})
    async with world.worker():
        row = await world.status(await world.queue(), "FAILED")
        assert row["failure_code"] == failure
        assert row["failure_reason"]
    assert await world.sends() == []


async def test_O_a_failure_after_the_acceptance_arrives_as_a_status(world: World) -> None:
    async with world.worker():
        row = await world.status(await world.queue(to=SAMI), "FAILED")
    assert row["failure_code"] == "131026"


@pytest.mark.parametrize(
    "fault", ["accept_then_hang", "accept_then_reset", "accept_then_half_body", "accept_then_500"]
)
async def test_O03_an_accepted_send_whose_answer_was_lost_ends_sent_by_its_correlator(
    world: World, fault: str
) -> None:
    await world.sandbox.fault(fault, params={"seconds": 30} if fault.endswith("hang") else {})
    async with world.worker():
        id = await world.queue()
        await world.status(id, "SENT", "DELIVERED", "READ")
        await until(lambda: gone(world, id), what="the outbox row to go")
    assert len(await world.sends(id)) == 1


async def gone(world: World, id: UUID) -> bool:
    return await world.outbox(id) is None


@pytest.mark.parametrize(
    ("fault", "params"),
    [("hang", {"seconds": 30}), ("reset", {}), ("http", {"status": 502, "body": "<html>"})],
)
async def test_O03_a_send_that_was_not_accepted_ends_ambiguous_and_is_not_repeated(
    world: World, fault: str, params: dict[str, Any]
) -> None:
    await world.sandbox.fault(fault, params=params)
    async with world.worker(send_unknown_wait_s=0.5):
        row = await world.status(await world.queue(), "FAILED")
    assert row["failure_code"] == "ambiguous"
    assert await world.sends() == []
    assert len((await world.sandbox.ctl("GET", "/outbox"))["requests"]) == 1


async def test_O12_a_late_status_revives_an_ambiguous_message(world: World) -> None:
    await world.sandbox.fault("accept_then_reset")
    await world.sandbox.fault("delay", next=50, params={"seconds": 3600})
    async with world.worker(send_unknown_wait_s=0.2):
        id = await world.queue()
        row = await world.status(id, "FAILED")
        assert row["failure_code"] == "ambiguous"
        await world.sandbox.ctl("DELETE", "/fault")
        await world.sandbox.advance(4000)
        row = await world.status(id, "SENT", "DELIVERED", "READ")
        assert row["failure_code"] is None
    assert len(await world.sends(id)) == 1


async def test_I04_statuses_before_the_answer_are_applied_with_it(world: World) -> None:
    await world.sandbox.fault("status_before_response")
    async with world.worker():
        id = await world.queue()
        await world.status(id, "DELIVERED", "READ")
    assert await world.conn.fetchval("select count(*) from app.pending_statuses") == 0


async def test_O04_an_unreachable_provider_costs_no_try_and_no_message(world: World) -> None:
    id = await world.queue()
    async with world.worker(meta_graph_base="http://127.0.0.1:1/graph"):
        box = await until(lambda: retried(world, id), what="the retry")
        assert (box["attempts"], box["sending_at"]) == (0, None)
        assert "could not be reached" in box["last_error"]
    await world.conn.execute("update app.outbox set due_at = now()")
    await world.conn.execute("delete from app.account_holds")
    async with world.worker():
        await world.status(id, "SENT", "DELIVERED", "READ")
    assert len(await world.sends(id)) == 1


async def test_O05_a_broken_token_stops_the_account_and_tells_its_owner_once(world: World) -> None:
    await world.sandbox.fault("expired_token", next=3)
    ids = [await world.queue("one"), await world.queue("two", to=OMAR)]
    async with world.worker():
        await until(lambda: held(world), what="the hold")
        await until(
            lambda: world.conn.fetchval(
                "select health = 'error' from channel_accounts where id = $1", world.org.account_id
            )
        )
        for id in ids:  # both were tried; a later verdict would hold the account again
            await until(lambda id=id: retried(world, id), what="the retry")  # type: ignore[misc]
        assert (
            await world.conn.fetchval(
                "select count(*) from app.events where table_name = 'channel_accounts'"
                " and payload #>> '{row,health}' = 'error'"
            )
            == 1
        )
        await world.sandbox.ctl("DELETE", "/fault")
        await world.conn.execute("delete from app.account_holds")
        await world.conn.execute("update app.outbox set due_at = now()")
        for id in ids:
            await world.status(id, "SENT", "DELIVERED", "READ")
        await until(
            lambda: world.conn.fetchval(
                "select health = 'ok' from channel_accounts where id = $1", world.org.account_id
            )
        )


async def test_O05_a_new_token_is_tried_at_once_and_drains_the_queue(world: World) -> None:
    place = {
        "table": "channel_accounts",
        "column": "access_token",
        "organization_id": world.org.id,
        "row_id": world.org.account_id,
    }
    change = f"update app.secrets set ciphertext = $1 where owner_id = '{world.org.account_id}'"
    await world.conn.execute(change, seal_secret(world.settings, "expired", **place))
    ids = [await world.queue("one"), await world.queue("two"), await world.queue("three", to=OMAR)]
    async with world.worker():
        await until(lambda: held(world), what="the hold")
        for id in (ids[0], ids[2]):
            await until(lambda id=id: retried(world, id), what="the retry")  # type: ignore[misc]
        await world.conn.execute(change, seal_secret(world.settings, "sandbox-token", **place))
        for id in ids:
            await world.status(id, "SENT", "DELIVERED", "READ")


async def test_what_can_never_be_sent_fails_without_a_call(world: World) -> None:
    async with world.worker():
        too_long = await world.status(await world.queue("x" * 5000), "FAILED")
        odd = await world.status(await world.queue("x", to=OMAR, metadata={"buttons": "no"}), "FAILED")
    assert too_long["failure_code"]
    assert odd["failure_code"] == "invalid_metadata"
    assert (await world.sandbox.ctl("GET", "/outbox"))["requests"] == []


async def test_several_workers_send_each_message_once(world: World) -> None:
    ids = [await world.queue(f"{n}", to=f"20199{n % 12:07d}") for n in range(60)]
    async with world.worker(), world.worker(), world.worker():
        for id in ids:
            await world.status(id, "SENT", "DELIVERED", "READ")
    sends = await world.sends()
    assert sorted(s["correlator"] for s in sends) == sorted(map(str, ids))


@pytest.mark.parametrize(
    ("failpoint", "accepted"),
    [
        ("claim.after", 1),
        ("send.before_sending_commit", 1),
        ("send.after_sending_commit", 0),
        ("send.after_response", 1),
        ("send.before_result_commit", 1),
        ("send.after_result_commit", 1),
    ],
)
async def test_D07_a_worker_killed_anywhere_sends_nothing_twice(
    world: World, spawn: Spawn, failpoint: str, accepted: int
) -> None:
    first = await spawn(HUB_FAILPOINTS=f"{failpoint}=kill", HUB_SEND_UNKNOWN_WAIT_S="2")
    id = await world.queue()
    assert await first.wait() == -signal.SIGKILL
    await spawn(HUB_SEND_UNKNOWN_WAIT_S="2")
    if accepted:
        await world.status(id, "SENT", "DELIVERED", "READ", timeout_s=30)
    else:  # nothing left us, but only the provider could know that
        row = await world.status(id, "FAILED", timeout_s=30)
        assert row["failure_code"] == "ambiguous"
    assert len(await world.sends(id)) == accepted


async def test_D09_a_worker_that_slept_past_its_lease_writes_nothing(world: World, spawn: Spawn) -> None:
    sleeper = await spawn(HUB_FAILPOINTS="claim.after=hang:2.5#1")
    id = await world.queue()
    await until(lambda: state_is(world, id, "running"))
    sleeper.send_signal(signal.SIGSTOP)
    await spawn()
    await world.status(id, "SENT", "DELIVERED", "READ", timeout_s=30)
    sleeper.send_signal(signal.SIGCONT)
    other = await world.queue("next")
    await world.status(other, "SENT", "DELIVERED", "READ", timeout_s=30)
    assert len(await world.sends(id)) == 1
    assert len(await world.sends(other)) == 1


async def state_is(world: World, id: UUID, state: str) -> bool:
    box = await world.outbox(id)
    return box is not None and box["state"] == state


async def test_D17_a_stopping_worker_finishes_what_it_sends_and_hands_back_the_rest(
    world: World, spawn: Spawn
) -> None:
    await world.sandbox.fault("slow", next=1, params={"seconds": 1})
    worker = await spawn()
    first = await world.queue("first")
    second = await world.queue("second")
    await until(lambda: sending(world, first))
    worker.send_signal(signal.SIGTERM)
    assert await worker.wait() == 0
    assert (await world.message(first))["status"] in ("SENT", "DELIVERED", "READ")
    box = await world.outbox(second)
    assert box is not None
    assert (box["state"], box["attempts"]) == ("available", 0)


async def sending(world: World, id: UUID) -> bool:
    box = await world.outbox(id)
    return box is not None and box["sending_at"] is not None


async def test_a_worker_with_bad_settings_or_an_empty_database_says_so(
    world: World, spawn: Spawn, tmp_path: Path, postgres: Any
) -> None:
    admin = await asyncpg.connect(postgres.dsn)
    name = f"empty_{uuid4().hex}"
    await admin.execute(f"create database {name}")
    try:
        url = world.settings.database_url.rsplit("/", 1)[0] + f"/{name}"
        worker = await spawn(DATABASE_URL=url)
        assert await worker.wait() == 1
        assert "hub migrate" in (tmp_path / "worker0.log").read_text()
        worker = await spawn(HUB_SECRET_KEY="short")
        assert await worker.wait() == 2
        assert "HUB_SECRET_KEY" in (tmp_path / "worker1.log").read_text()
    finally:
        await admin.execute(f"drop database {name} with (force)")
        await admin.close()


async def test_a_workers_metrics_are_served_where_its_setting_says(world: World) -> None:
    port = free_port()
    async with world.worker(worker_metrics_port=port):
        id = await world.queue("Hello")
        await world.status(id, "SENT", "DELIVERED", "READ")
        async with aiohttp.ClientSession() as client:
            answer = await client.get(f"http://127.0.0.1:{port}/metrics")
            text = await answer.text()
    assert "hub_outbound_total" in text
    assert "hub_outbound_queue" in text
