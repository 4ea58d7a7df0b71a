"""Every fault switch does what docs/sandbox.md says, and our adapter judges each answer as guarantees 8
asks."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from typing import Any

import aiohttp
import pytest

from hub.channels.protocol import (
    Accepted,
    AuthBroken,
    Inbound,
    Permanent,
    ResponseFacts,
    Retryable,
    Throttled,
    Unknown,
    UnknownEvent,
    Verdict,
)
from hub.sandbox.faults import NAMES
from hub.sandbox.journal import Sent, read_records
from tests.factories import until
from tests.fakes.whatsapp import ADAPTER, Receiver, Sandbox, running_sandbox


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    await receiver.start()
    yield receiver
    await receiver.stop()


@pytest.fixture
async def sandbox(tmp_path: Path, receiver: Receiver) -> AsyncIterator[Sandbox]:
    async with running_sandbox(tmp_path, receiver.url) as sandbox:
        yield sandbox


def accepted(sandbox: Sandbox) -> int:
    """How many sends the ledger's file holds."""
    records = read_records(sandbox.config.folder / "ledger.jsonl")
    return sum(isinstance(record, Sent) for record in records)


async def post(sandbox: Sandbox, timeout_s: float = 10) -> Verdict:
    """A send's answer in our adapter's judgement; raises what aiohttp raises when there is no whole
    answer."""
    async with sandbox.client.post(
        f"{sandbox.url}/graph/v25.0/100000000000001/messages",
        json={"messaging_product": "whatsapp", "to": "201001383533", "type": "text", "text": {"body": "x"}},
        headers={"Authorization": "Bearer sandbox-token"},
        timeout=aiohttp.ClientTimeout(total=timeout_s),
    ) as answer:
        facts = ResponseFacts(status=answer.status, headers=answer.headers, body=await answer.read())
        return ADAPTER.classify(facts)


def test_the_document_lists_every_fault() -> None:
    text = (Path(__file__).parents[2] / "docs" / "sandbox.md").read_text()
    assert {name for name in NAMES if f"`{name}`" not in text} == set()


@pytest.mark.parametrize(
    ("fault", "params", "verdict", "sends"),
    [
        ("throttle", {}, Throttled, 0),
        ("throttle", {"retry_after": 3, "code": 131056}, Throttled, 0),
        ("throttle", {"retry_after": "date"}, Throttled, 0),
        ("error", {"code": 131000}, Retryable, 0),
        ("error", {"code": 131026}, Permanent, 0),
        ("error", {"code": 131016, "status": 503}, Retryable, 0),
        ("expired_token", {}, AuthBroken, 0),
        ("http", {}, Unknown, 0),
        ("http", {"status": 502, "body": "<html>Bad gateway</html>"}, Unknown, 0),
        ("http", {"status": 503, "headers": {"Retry-After": "5"}}, Unknown, 0),
        ("http", {"status": 200, "body": "{garbage"}, Unknown, 0),
        ("ok_without_id", {}, Unknown, 0),
        ("ok_with_error", {}, Retryable, 0),
        ("slow", {"seconds": 0.05}, Accepted, 1),
        ("status_before_response", {}, Accepted, 1),
        ("fail_later", {}, Accepted, 1),
        ("accept_then_500", {}, Unknown, 1),
    ],
)
async def test_O01_O02_answers(
    sandbox: Sandbox, fault: str, params: dict[str, Any], verdict: type, sends: int
) -> None:
    await sandbox.fault(fault, params=params)
    assert isinstance(await post(sandbox), verdict)
    assert accepted(sandbox) == sends
    assert isinstance(await post(sandbox), Accepted)
    [row] = (await sandbox.ctl("GET", "/fault"))["faults"]
    assert (row["hits"], row["next"]) == (1, 0)


async def test_O01_retry_after_is_what_was_ordered(sandbox: Sandbox) -> None:
    await sandbox.fault("throttle", params={"retry_after": 3})
    await sandbox.fault("throttle", params={"retry_after": "date"})
    first, second = await post(sandbox), await post(sandbox)
    assert isinstance(first, Throttled)
    assert isinstance(second, Throttled)
    assert first.after_s == 3
    assert 0 <= second.after_s <= 3


@pytest.mark.parametrize(
    ("fault", "sends"),
    [
        ("reset", 0),
        ("hang", 0),
        ("accept_then_reset", 1),
        ("accept_then_hang", 1),
        ("accept_then_half_body", 1),
    ],
)
async def test_O03_no_answer(sandbox: Sandbox, fault: str, sends: int) -> None:
    await sandbox.fault(fault, params={"seconds": 5})
    with pytest.raises((aiohttp.ClientError, TimeoutError)):
        await post(sandbox, timeout_s=0.3)
    assert accepted(sandbox) == sends


async def test_O03_receipts_of_an_unanswered_send_carry_the_correlator(
    sandbox: Sandbox, receiver: Receiver
) -> None:
    await sandbox.fault("accept_then_reset")
    with pytest.raises(aiohttp.ClientError):
        await sandbox.send(biz_opaque_callback_data="our-id")
    await sandbox.advance(10)
    await until(lambda: len(receiver.statuses()) == 3)
    assert {status.correlator for status in receiver.statuses()} == {"our-id"}


async def test_I04_statuses_before_the_answer(sandbox: Sandbox, receiver: Receiver) -> None:
    await sandbox.fault("status_before_response")
    wamid = await sandbox.accepted()
    assert [status.status for status in receiver.statuses(wamid)] == ["SENT", "DELIVERED"]


async def test_fail_later_names_the_code(sandbox: Sandbox, receiver: Receiver) -> None:
    await sandbox.fault("fail_later", params={"code": 131050})
    wamid = await sandbox.accepted()
    await until(lambda: receiver.statuses(wamid))
    [status] = receiver.statuses(wamid)
    assert (status.failure_code, status.opted_out) == ("131050", True)


async def test_reorder_statuses(sandbox: Sandbox, receiver: Receiver) -> None:
    await sandbox.fault("reorder_statuses")
    wamid = await sandbox.accepted()
    await sandbox.advance(10)
    await until(lambda: len(receiver.statuses(wamid)) == 3)
    assert [status.status for status in receiver.statuses(wamid)] == ["READ", "DELIVERED", "SENT"]


async def test_drop_status_takes_only_the_named(sandbox: Sandbox, receiver: Receiver) -> None:
    await sandbox.fault("drop_status", params={"statuses": ["delivered"]})
    wamid = await sandbox.accepted()
    await sandbox.advance(10)
    await until(lambda: len(receiver.statuses(wamid)) == 2)
    await until(sandbox.quiet)
    assert [status.status for status in receiver.statuses(wamid)] == ["SENT", "READ"]


async def test_I01_duplicate_and_twin(sandbox: Sandbox, receiver: Receiver) -> None:
    await sandbox.fault("duplicate", params={"copies": 5})
    said = await sandbox.say()
    await until(lambda: len(receiver.bodies) == 5)
    assert len(set(receiver.bodies)) == 1
    await until(sandbox.quiet)
    receiver.bodies.clear()
    await sandbox.fault("twin")
    twin = await sandbox.say()
    await until(sandbox.quiet)
    assert [event.provider_message_id for event in receiver.inbound()] == [twin, twin]
    assert said != twin


async def test_delay_lets_others_pass(sandbox: Sandbox, receiver: Receiver) -> None:
    await sandbox.fault("delay", params={"seconds": 60})
    late = await sandbox.say(text="late")
    soon = await sandbox.say(text="soon")
    await until(lambda: len(receiver.inbound()) == 1)
    await sandbox.advance(61)
    await until(sandbox.quiet)
    assert [event.provider_message_id for event in receiver.inbound()] == [soon, late]


async def test_batch_waits_for_k(sandbox: Sandbox, receiver: Receiver) -> None:
    await sandbox.fault("batch", next=7, params={"k": 5, "wait_s": 60})
    said = [await sandbox.say(text=f"{n}") for n in range(7)]
    await until(lambda: receiver.bodies)
    assert len(receiver.inbound()) == 5
    await sandbox.advance(61)
    await until(sandbox.quiet)
    assert [event.provider_message_id for event in receiver.inbound()] == said
    assert len(receiver.bodies) == 2


async def test_never_retry(sandbox: Sandbox, receiver: Receiver) -> None:
    receiver.answers = [500]
    await sandbox.fault("never_retry")
    await sandbox.say(text="lost")
    kept = await sandbox.say(text="kept")
    await until(sandbox.quiet)
    assert [event.provider_message_id for event in receiver.inbound()] == [kept]


async def test_timestamps_in_milliseconds_read_the_same(sandbox: Sandbox, receiver: Receiver) -> None:
    await sandbox.ctl("POST", "/clock", {"frozen": True})
    await sandbox.say()
    await sandbox.fault("timestamp_ms")
    await sandbox.say()
    await until(lambda: len(receiver.inbound()) == 2)
    first, second = receiver.inbound()
    assert first.occurred_at == second.occurred_at


async def test_bsuid_only_hides_the_phone(sandbox: Sandbox, receiver: Receiver) -> None:
    await sandbox.fault("bsuid_only")
    await sandbox.say()
    await until(receiver.inbound)
    assert receiver.inbound()[0].identities == (("wa_bsuid", "EG.20010013835330"),)
    assert b"201001383533" not in receiver.bodies[0]


async def test_I08_noise_comes_beside_the_real_event(sandbox: Sandbox, receiver: Receiver) -> None:
    for name in ("wrong_signature", "unknown_event", "unknown_type", "unknown_status"):
        await sandbox.fault(name)
    said = await sandbox.say()
    await until(sandbox.quiet)
    assert len(receiver.unsigned) == 1
    events = receiver.events()
    kinds = [(type(event).__name__, getattr(event, "message_type", None)) for event in events]
    assert kinds == [
        ("UnknownEvent", None),
        ("Inbound", "unsupported"),
        ("UnknownEvent", None),
        ("Inbound", "text"),
    ]
    assert isinstance(events[-1], Inbound)
    assert events[-1].provider_message_id == said
    assert isinstance(events[0], UnknownEvent)


async def test_I06_truncated_and_huge_bodies(sandbox: Sandbox, receiver: Receiver) -> None:
    await sandbox.fault("truncated_json")
    await sandbox.fault("huge_body")
    said = await sandbox.say()
    await until(sandbox.quiet)
    truncated, huge, real = receiver.bodies
    with pytest.raises(ValueError, match="truncated"):
        ADAPTER.parse(truncated)
    assert len(huge) > 3 * 1024 * 1024
    [event] = ADAPTER.parse(real)
    assert isinstance(event, Inbound)
    assert event.provider_message_id == said


async def test_media_expired(sandbox: Sandbox) -> None:
    async with sandbox.client.post(f"{sandbox.url}/_ctl/media", data=b"x") as answer:
        media = await answer.json()
    await sandbox.fault("media_expired")
    _, found = await sandbox.graph("GET", f"/{media['id']}")
    bearer = {"Authorization": "Bearer sandbox-token"}
    statuses = []
    for _ in range(2):
        async with sandbox.client.get(found["url"], headers=bearer) as answer:
            statuses.append(answer.status)
    assert statuses == [404, 200]


async def test_faults_are_scoped_and_seeded(sandbox: Sandbox) -> None:
    await sandbox.fault("throttle", persona="omar", next=10)
    await sandbox.fault("throttle", account="100000000000009", next=10)
    assert isinstance(await post(sandbox), Accepted)
    assert (await sandbox.send("201112223344"))[0] == 429
    await sandbox.ctl("DELETE", "/fault")
    await sandbox.fault("throttle", probability=0.5)
    codes = [(await sandbox.send())[0] for _ in range(30)]
    assert 0 < codes.count(429) < 30


@pytest.mark.parametrize(
    "body",
    [{}, {"fault": "earthquake"}, {"fault": "throttle", "probability": 2}, {"fault": "throttle", "x": 1}],
)
async def test_bad_faults_are_refused(sandbox: Sandbox, body: dict[str, Any]) -> None:
    status, answer = await sandbox.call("POST", "/_ctl/fault", body)
    assert status == 400
    assert answer["message"]


def damaged(rng: Random, value: Any) -> Any:
    """The same JSON with one part replaced or dropped."""
    copy = json.loads(json.dumps(value))
    parts: list[tuple[Any, Any]] = []

    def walk(inner: Any) -> None:
        keys = inner if isinstance(inner, dict) else range(len(inner)) if isinstance(inner, list) else ()
        for key in keys:
            parts.append((inner, key))
            walk(inner[key])

    walk(copy)
    parent, key = rng.choice(parts)
    odd = [None, 7, -1.5, True, "", "x" * 5000, [], [[]], [None], {}, {"type": {}}, "\0", "é"]
    if rng.random() < 0.8:
        parent[key] = rng.choice(odd)
    else:
        del parent[key]
    return copy


SENDS: list[dict[str, Any]] = [
    {
        "type": "text",
        "text": {"body": "x"},
        "context": {"message_id": "wamid.X"},
        "biz_opaque_callback_data": "a",
    },
    {"type": "image", "image": {"link": "https://cdn.example/a.jpg", "caption": "c"}},
    {"type": "location", "location": {"latitude": 30.0, "longitude": 31.0, "name": "S"}},
    {"type": "contacts", "contacts": [{"name": {"formatted_name": "A"}}]},
    {"type": "reaction", "reaction": {"message_id": "wamid.X", "emoji": "👍"}},
    {
        "type": "interactive",
        "interactive": {
            "type": "button",
            "header": {"type": "text", "text": "h"},
            "body": {"text": "b"},
            "footer": {"text": "f"},
            "action": {"buttons": [{"type": "reply", "reply": {"id": "1", "title": "Y"}}]},
        },
    },
    {
        "type": "interactive",
        "interactive": {
            "type": "list",
            "body": {"text": "b"},
            "action": {"button": "M", "sections": [{"title": "S", "rows": [{"id": "1", "title": "B"}]}]},
        },
    },
    {
        "type": "template",
        "template": {
            "name": "order_update",
            "language": {"code": "en"},
            "components": [
                {
                    "type": "body",
                    "parameters": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
                },
                {
                    "type": "button",
                    "sub_type": "quick_reply",
                    "index": "0",
                    "parameters": [{"type": "payload", "payload": "p"}],
                },
            ],
        },
    },
    {"status": "read", "message_id": "wamid.X"},
]


async def test_damaged_requests_never_break_the_sandbox(sandbox: Sandbox, receiver: Receiver) -> None:
    rng = Random(7)
    await sandbox.ctl("POST", "/config", {"enforce_rates": False})
    for number in range(400):
        base = {"messaging_product": "whatsapp", "to": "201001383533", **SENDS[number % len(SENDS)]}
        body = damaged(rng, base)
        status, answer = await sandbox.graph("POST", "/100000000000001/messages", body)
        assert status < 500, (body, answer)
    components = [{"type": "BODY", "text": "Hi {{1}}.", "example": {"body_text": [["x"]]}}]
    template = {"name": "t", "language": "en", "category": "UTILITY", "components": components}
    for number in range(60):
        body = damaged(rng, {**template, "name": f"t_{number}"})
        status, answer = await sandbox.graph("POST", "/200000000000001/message_templates", body)
        assert status < 500, (body, answer)
    await until(sandbox.quiet)
    assert (await sandbox.call("GET", "/_ctl/phone"))[0] == 200
    assert (await sandbox.call("GET", "/_ctl/phone/layla/messages"))[0] == 200


SAYS: list[dict[str, Any]] = [
    {"type": "text", "text": {"body": "x"}, "context": {"id": "wamid.X"}, "referral": {"source_id": "1"}},
    {"type": "reaction", "reaction": {"message_id": "wamid.X", "emoji": "👍"}},
    {"type": "contacts", "contacts": [{"name": {"formatted_name": "A"}}]},
    {
        "type": "interactive",
        "interactive": {"type": "button_reply", "button_reply": {"id": "1", "title": "Y"}},
    },
    {
        "type": "edit",
        "edit": {"original_message_id": "wamid.X", "message": {"type": "text", "text": {"body": "n"}}},
    },
    {"type": "system", "system": {"type": "user_changed_number", "body": "n", "wa_id": "201009999999"}},
]


async def test_whatever_a_customer_says_our_adapter_can_read(sandbox: Sandbox, receiver: Receiver) -> None:
    rng = Random(8)
    taken = 0
    for number in range(300):
        message = damaged(rng, SAYS[number % len(SAYS)])
        status, answer = await sandbox.call("POST", "/_ctl/inbound", {"persona": "omar", "message": message})
        assert status in (201, 400), (message, answer)
        taken += status == 201
    await until(sandbox.quiet)
    assert len(receiver.events()) == taken
    assert (await sandbox.call("GET", "/_ctl/phone/omar/messages"))[0] == 200
