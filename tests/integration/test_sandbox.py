"""The sandbox through its wire format: sends, receipts, webhooks with retry, ledger, phone API, restarts."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from hub.channels.protocol import Inbound
from hub.sandbox.config import SandboxConfig
from hub.sandbox.journal import Sent, read_records
from tests.factories import until
from tests.fakes.whatsapp import ADAPTER, APP_SECRET, Receiver, Sandbox, running_sandbox

LAYLA, NOUR = "201001383533", "EG.31415926535"


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


def ledger_of(sandbox: Sandbox) -> list[Sent]:
    """Straight from the file, past the process's memory."""
    path = sandbox.config.folder / "ledger.jsonl"
    return [record for record in read_records(path) if isinstance(record, Sent)]


async def test_a_send_is_in_the_ledger_before_it_is_answered(sandbox: Sandbox) -> None:
    wamid = await sandbox.accepted(text="Hello", biz_opaque_callback_data="our-id")
    [sent] = ledger_of(sandbox)
    assert (sent.wamid, sent.correlator, sent.persona) == (wamid, "our-id", "layla")
    answer = await sandbox.ctl("GET", "/ledger?correlator=our-id")
    assert [row["wamid"] for row in answer["sends"]] == [wamid]
    assert (await sandbox.ctl("GET", "/ledger?correlator=other"))["sends"] == []


async def test_many_sends_at_once_are_each_in_the_ledger_once(sandbox: Sandbox) -> None:
    await sandbox.ctl("POST", "/config", {"enforce_rates": False})
    wamids = await asyncio.gather(*(sandbox.accepted(text=f"{n}") for n in range(100)))
    assert sorted(wamids) == sorted(sent.wamid for sent in ledger_of(sandbox))
    assert len(set(wamids)) == 100


async def test_receipts_follow_as_the_customer_behaves(sandbox: Sandbox, receiver: Receiver) -> None:
    wamid = await sandbox.accepted(biz_opaque_callback_data="our-id")
    await sandbox.advance(1)
    await until(lambda: len(receiver.statuses(wamid)) == 2)
    await sandbox.advance(5)
    await until(lambda: len(receiver.statuses(wamid)) == 3)
    statuses = receiver.statuses(wamid)
    assert [status.status for status in statuses] == ["SENT", "DELIVERED", "READ"]
    assert {status.correlator for status in statuses} == {"our-id"}
    assert statuses[0].recipient[0] == ("wa_id", LAYLA)
    assert all(b'"contacts":[' in body for body in receiver.bodies)


async def test_receipts_off_means_no_read_even_when_the_phone_is_opened(
    sandbox: Sandbox, receiver: Receiver
) -> None:
    wamid = await sandbox.accepted("447700900123")
    await sandbox.advance(3600)
    await until(lambda: len(receiver.statuses(wamid)) == 2)
    assert (await sandbox.ctl("POST", "/phone/james/read", {}))["read"] == []
    await until(sandbox.quiet)
    assert [status.status for status in receiver.statuses(wamid)] == ["SENT", "DELIVERED"]


async def test_a_phone_that_is_off_fails_after_acceptance(sandbox: Sandbox, receiver: Receiver) -> None:
    wamid = await sandbox.accepted("962790000456")
    await until(lambda: receiver.statuses(wamid))
    [status] = receiver.statuses(wamid)
    assert (status.status, status.failure_code) == ("FAILED", "131026")


async def test_a_customer_who_answers(sandbox: Sandbox, receiver: Receiver) -> None:
    await sandbox.accepted("971501234567")
    await sandbox.advance(3)
    await until(lambda: [event for event in receiver.inbound() if event.name == "مريم عادل"])


async def test_sends_to_a_customer_without_a_phone(sandbox: Sandbox, receiver: Receiver) -> None:
    body = {"messaging_product": "whatsapp", "recipient": NOUR, "type": "text", "text": {"body": "Hi"}}
    status, answer = await sandbox.graph("POST", "/100000000000001/messages", body)
    assert status == 200
    assert answer["contacts"] == [{"input": NOUR, "user_id": NOUR}]
    await sandbox.say("nour", "مرحبًا")
    await until(receiver.inbound)
    [event] = receiver.inbound()
    assert event.identities == (("wa_bsuid", NOUR),)
    assert (event.username, event.phone_e164, event.content) == ("nour.designs", None, "مرحبًا")


async def test_webhooks_are_ascii_and_signed_over_their_bytes(sandbox: Sandbox, receiver: Receiver) -> None:
    await sandbox.say("layla", "مرحبًا 👋 a/b")
    await until(receiver.inbound)
    [body] = receiver.bodies
    assert body.isascii()
    assert rb"a\/b" in body
    assert not receiver.unsigned
    assert ADAPTER.verify({"X-Hub-Signature-256": receiver.signatures[0]}, body, [APP_SECRET])


CUSTOMER_SAYS: list[tuple[dict[str, Any], str, str]] = [
    ({"type": "text", "text": "Hi"}, "message", "text"),
    ({"type": "location", "location": {"latitude": 30.04, "longitude": 31.23}}, "message", "location"),
    ({"type": "contacts", "contacts": [{"name": {"formatted_name": "A"}}]}, "message", "contact"),
    (
        {
            "type": "interactive",
            "interactive": {"type": "button_reply", "button_reply": {"id": "b", "title": "Y"}},
        },
        "message",
        "button_reply",
    ),
    (
        {
            "type": "interactive",
            "interactive": {"type": "list_reply", "list_reply": {"id": "r", "title": "B"}},
        },
        "message",
        "list_reply",
    ),
    ({"type": "button", "button": {"text": "Yes", "payload": "p"}}, "message", "button_reply"),
    ({"type": "order", "order": {"catalog_id": "c", "product_items": []}}, "message", "text"),
    ({"type": "request_welcome"}, "referral", "referral"),
    ({"type": "unsupported"}, "message", "unsupported"),
    (
        {"type": "system", "system": {"type": "user_changed_number", "body": "New", "wa_id": "201009999999"}},
        "identity_change",
        "text",
    ),
]


@pytest.mark.parametrize(("message", "kind", "message_type"), CUSTOMER_SAYS)
async def test_everything_a_customer_can_say(
    sandbox: Sandbox, receiver: Receiver, message: dict[str, Any], kind: str, message_type: str
) -> None:
    await sandbox.ctl("POST", "/inbound", {"persona": "layla", "message": message})
    await until(receiver.inbound)
    [event] = receiver.inbound()
    assert (event.kind, event.message_type) == (kind, message_type)
    assert event.identities[0] == ("wa_id", LAYLA)


async def test_reactions_edits_and_revokes_change_the_message_they_name(
    sandbox: Sandbox, receiver: Receiver
) -> None:
    theirs = await sandbox.accepted()
    ours = await sandbox.say(text="Helo")
    other = await sandbox.say(text="Oops")
    for message in (
        {"type": "reaction", "reaction": {"message_id": theirs, "emoji": "👍"}},
        {
            "type": "edit",
            "edit": {"original_message_id": ours, "message": {"type": "text", "text": {"body": "Hello"}}},
        },
        {"type": "revoke", "revoke": {"original_message_id": other}},
    ):
        answer = await sandbox.ctl("POST", "/inbound", {"persona": "layla", "message": message})
        assert answer["message"] is None
    thread = {message["id"]: message for message in await sandbox.thread()}
    assert set(thread) == {theirs, ours, other}
    assert thread[theirs]["reactions"] == [{"by": "me", "emoji": "👍"}]
    assert (thread[ours]["content"], thread[ours]["edited"]) == ("Hello", True)
    assert (thread[other]["content"], thread[other]["deleted"]) == ("", True)
    await until(lambda: len(receiver.inbound()) == 5)
    by_kind = {event.kind: event.target_id for event in receiver.inbound()}
    assert by_kind["reaction"] == theirs
    assert by_kind["edit"] == ours
    assert by_kind["delete"] == other


async def test_same_client_ref_gives_the_same_answer(sandbox: Sandbox, receiver: Receiver) -> None:
    body = {"persona": "layla", "message": {"type": "text", "text": "Hi"}, "client_ref": "r1"}
    first = await sandbox.ctl("POST", "/inbound", body)
    status, second = await sandbox.call("POST", "/_ctl/inbound", body)
    assert (status, second["id"], second["duplicate"]) == (200, first["id"], True)
    await until(sandbox.quiet)
    assert len(receiver.inbound()) == 1


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"persona": "layla"},
        {"persona": "layla", "message": {}},
        {"persona": "layla", "message": {"type": "text"}},
        {"persona": "layla", "message": {"type": "text", "text": {"body": 7}}},
        {"persona": "layla", "message": {"type": "hologram"}},
        {"persona": "layla", "message": {"type": "image", "image": {}}},
        {"persona": "layla", "message": {"type": "text", "text": "x", "timestamp": "soon"}},
        {"persona": "layla", "message": {"type": "text", "text": "x"}, "channel": "PIGEON"},
        {"persona": {"id": "x", "name": "X"}, "message": {"type": "text", "text": "x"}},
        {"persona": "layla", "message": {"type": "text", "text": "x"}, "misspelt": 1},
    ],
)
async def test_bad_inbound_is_refused_with_a_reason(sandbox: Sandbox, body: dict[str, Any]) -> None:
    status, answer = await sandbox.call("POST", "/_ctl/inbound", body)
    assert status == 400
    assert answer["message"]


async def test_unknown_names_are_404(sandbox: Sandbox) -> None:
    text = {"type": "text", "text": "x"}
    for method, path, body in (
        ("POST", "/inbound", {"persona": "nobody", "message": text}),
        ("POST", "/inbound", {"persona": "layla", "account": "7", "message": text}),
        ("GET", "/phone/nobody/messages", None),
        ("GET", "/media/7", None),
        ("DELETE", "/fault/7", None),
    ):
        status, _ = await sandbox.call(method, f"/_ctl{path}", body)
        assert status == 404, path


async def test_strangers_are_made_on_first_contact(sandbox: Sandbox, receiver: Receiver) -> None:
    await sandbox.say("201555550000", "Hi")
    await sandbox.accepted("201555550001")
    phone = await sandbox.ctl("GET", "/phone")
    strangers = [persona["id"] for persona in phone["personas"] if persona["stranger"]]
    assert strangers == ["201555550000", "201555550001"]
    await until(receiver.inbound)
    assert receiver.inbound()[0].identities[0] == ("wa_id", "201555550000")


async def test_refused_webhooks_are_repeated_in_order(sandbox: Sandbox, receiver: Receiver) -> None:
    receiver.answers = [500, 503, 500]
    said = [await sandbox.say(text=f"{n}") for n in range(5)]
    await until(sandbox.quiet)
    assert [event.provider_message_id for event in receiver.inbound()] == said
    assert len(receiver.refused) == 3
    deliveries = await sandbox.ctl("GET", "/deliveries")
    assert (deliveries["ok"], deliveries["failed"]) == (5, 3)


async def test_while_the_hub_is_away_messages_wait_and_then_come_in_order(
    sandbox: Sandbox, receiver: Receiver
) -> None:
    await receiver.stop()
    said = [await sandbox.say(text=f"{n}") for n in range(20)]
    await until(lambda: _unreachable(sandbox))
    thread = await sandbox.thread()
    assert {message["state"] for message in thread} == {"stored"}
    await until(lambda: _attempted(sandbox, 8))
    await receiver.start()
    await until(sandbox.quiet)
    assert [event.provider_message_id for event in receiver.inbound()] == said
    assert {message["state"] for message in await sandbox.thread()} == {"delivered"}


async def _unreachable(sandbox: Sandbox) -> bool:
    hub = (await sandbox.ctl("GET", "/phone"))["hub"]
    return hub["reachable"] is False and hub["detail"] == "connection refused"


async def _attempted(sandbox: Sandbox, times: int) -> bool:
    return bool((await sandbox.ctl("GET", "/deliveries"))["failed"] >= times)


async def test_an_event_the_hub_keeps_refusing_does_not_hold_up_the_others(
    tmp_path: Path, receiver: Receiver
) -> None:
    receiver.answers = [400] * 5
    async with running_sandbox(tmp_path, receiver.url, retry_base_s=0.01, retry_cap_s=0.01) as sandbox:
        poison = await sandbox.say(text="poison")
        await until(lambda: len(receiver.refused) == 5)
        others = [await sandbox.say(text=f"{n}") for n in range(3)]
        await until(sandbox.quiet)
    arrived = [event.provider_message_id for event in receiver.inbound()]
    assert sorted(str(i) for i in arrived) == sorted([poison, *others])
    assert [i for i in arrived if i != poison] == others


async def test_backlog_shares_bodies(tmp_path: Path, receiver: Receiver) -> None:
    await receiver.stop()
    async with running_sandbox(tmp_path, receiver.url, batch_max=10) as sandbox:
        said = [await sandbox.say(text=f"{n}") for n in range(25)]
        await until(lambda: _unreachable(sandbox))
        await receiver.start()
        await until(sandbox.quiet)
    assert [event.provider_message_id for event in receiver.inbound()] == said
    assert len(receiver.bodies) < 10


async def test_state_survives_a_restart_and_unanswered_webhooks_come_again(
    tmp_path: Path, receiver: Receiver
) -> None:
    await receiver.stop()
    async with running_sandbox(tmp_path, receiver.url) as sandbox:
        said = await sandbox.say(text="before")
        sent = await sandbox.accepted("201112223344", "to Omar")
        await until(lambda: _unreachable(sandbox))
        before = [await sandbox.thread("layla"), await sandbox.thread("omar")]
    await receiver.start()
    async with running_sandbox(tmp_path, receiver.url) as sandbox:
        await sandbox.advance(2)
        await until(lambda: len(receiver.statuses(sent)) == 2 and receiver.inbound())
        await until(sandbox.quiet)
        after = [await sandbox.thread("layla"), await sandbox.thread("omar")]
        assert [[m["id"] for m in thread] for thread in after] == [[m["id"] for m in t] for t in before]
        assert after[0][0]["state"] == "delivered"
        assert after[1][0]["state"] == "delivered"
        later = await sandbox.say(text="after")
        assert (await sandbox.thread("layla"))[-1]["n"] > before[1][0]["n"]
    assert receiver.inbound()[0].provider_message_id == said
    assert later != said
    async with running_sandbox(tmp_path, receiver.url) as sandbox:
        await until(sandbox.quiet)
    assert len(receiver.statuses(sent)) == 2


async def test_a_torn_last_line_is_cut_off(tmp_path: Path, receiver: Receiver) -> None:
    async with running_sandbox(tmp_path, receiver.url) as sandbox:
        wamid = await sandbox.accepted()
        ledger = sandbox.config.folder / "ledger.jsonl"
    with ledger.open("ab") as file:
        file.write(b'{"record":"sent","n":2,"at":1')
    async with running_sandbox(tmp_path, receiver.url) as sandbox:
        assert [message["id"] for message in await sandbox.thread()] == [wamid]
        second = await sandbox.accepted()
        assert [sent.wamid for sent in ledger_of(sandbox)] == [wamid, second]


async def _spawn(tmp_path: Path, receiver: Receiver) -> tuple[asyncio.subprocess.Process, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "hub.sandbox",
        *("--port", "0", "--data", str(tmp_path), "--callback", receiver.url, "--app-secret", APP_SECRET),
        stdout=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdout is not None
    ready = json.loads(await process.stdout.readline())
    assert ready["event"] == "sandbox.ready"
    assert ready["pid"] == process.pid
    return process, ready["url"]


async def test_what_was_answered_survives_kill_9(tmp_path: Path, receiver: Receiver) -> None:
    process, url = await _spawn(tmp_path, receiver)
    answered: list[str] = []
    said: list[str] = []

    async def customer_and_business(sandbox: Sandbox) -> None:
        while True:
            answered.append(await sandbox.accepted("201112223344"))
            said.append(await sandbox.say("layla", "Hi"))

    async with aiohttp.ClientSession() as client:
        sandbox = Sandbox(url, client, SandboxConfig(data_dir=str(tmp_path)))
        await sandbox.ctl("POST", "/config", {"enforce_rates": False})
        work = asyncio.create_task(customer_and_business(sandbox))
        await until(lambda: len(said) >= 30)
        os.kill(process.pid, signal.SIGKILL)
        await process.wait()
        with pytest.raises((aiohttp.ClientError, ConnectionError)):
            await work
    known = {sent.wamid for sent in ledger_of(sandbox)}
    assert set(answered) <= known
    process, url = await _spawn(tmp_path, receiver)
    async with aiohttp.ClientSession() as client:
        sandbox = Sandbox(url, client, SandboxConfig(data_dir=str(tmp_path)))
        thread = await sandbox.ctl("GET", "/phone/layla/messages?limit=500")
        assert set(said) <= {message["id"] for message in thread["messages"]}
        await until(sandbox.quiet)
    process.terminate()
    assert await process.wait() == 0
    assert set(said) <= {event.provider_message_id for event in receiver.inbound()}


async def test_two_sandboxes_never_share_a_folder(tmp_path: Path, receiver: Receiver) -> None:
    process, _ = await _spawn(tmp_path, receiver)
    second = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "hub.sandbox", "--port", "0", "--data", str(tmp_path)),
        stderr=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    _, errors = await second.communicate()
    assert second.returncode == 1
    assert b"Another sandbox" in errors
    process.terminate()
    assert await process.wait() == 0


async def test_the_24_hour_window(sandbox: Sandbox, receiver: Receiver) -> None:
    await sandbox.say()
    await sandbox.advance(24 * 3600 + 60)
    wamid = await sandbox.accepted()
    await until(lambda: receiver.statuses(wamid))
    [status] = receiver.statuses(wamid)
    assert (status.status, status.failure_code) == ("FAILED", "131047")
    template = {"name": "order_update", "language": {"code": "ar"}, "components": [_body("ليلى", "17")]}
    sent = await sandbox.accepted(type="template", template=template)
    await until(lambda: [s for s in receiver.statuses(sent) if s.status == "SENT"])
    await sandbox.say()
    reopened = await sandbox.accepted()
    await until(lambda: [s for s in receiver.statuses(reopened) if s.status == "SENT"])


def _body(*values: str) -> dict[str, Any]:
    return {"type": "body", "parameters": [{"type": "text", "text": value} for value in values]}


async def test_rates_of_number_and_pair(sandbox: Sandbox) -> None:
    await sandbox.ctl("POST", "/clock", {"frozen": True})
    for _ in range(45):
        await sandbox.accepted()
    status, answer = await sandbox.send()
    assert (status, answer["error"]["code"]) == (429, 131056)
    codes = [(await sandbox.send(f"2015555500{n:02}"))[0] for n in range(40)]
    assert codes.count(429) == 6
    await sandbox.advance(6)
    await sandbox.accepted()


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"messaging_product": None}, 100),
        ({"to": None}, 100),
        ({"to": "layla"}, 131009),
        ({"to": 7}, 131009),
        ({"text": None}, 131008),
        ({"text": {"body": ""}}, 131008),
        ({"text": {"body": "x" * 4097}}, 100),
        ({"type": "hologram"}, 131051),
        ({"type": "image", "image": {}}, 131008),
        ({"type": "image", "image": {"id": "7"}}, 100),
        ({"type": "location", "location": {"latitude": 91, "longitude": 0}}, 131009),
        ({"type": "interactive", "interactive": {"type": "button"}}, 131008),
        ({"type": "template", "template": {"name": "none", "language": {"code": "en"}}}, 132001),
        ({"type": "template", "template": {"name": "order_update", "language": {"code": "en"}}}, 132000),
        ({"biz_opaque_callback_data": "x" * 513}, 100),
        ({"to": "15550001111"}, 131021),
    ],
)
async def test_bad_sends_get_the_providers_errors(
    sandbox: Sandbox, change: dict[str, Any], code: int
) -> None:
    body = {"messaging_product": "whatsapp", "to": LAYLA, "type": "text", "text": {"body": "x"}, **change}
    status, answer = await sandbox.graph("POST", "/100000000000001/messages", body)
    assert 400 <= status < 500
    assert answer["error"]["code"] == code
    assert ledger_of(sandbox) == []


async def test_tokens_and_ids_are_checked(sandbox: Sandbox) -> None:
    for token in (None, "", "wrong"):
        status, answer = await sandbox.graph("POST", "/100000000000001/messages", {}, token=token)
        assert (status, answer["error"]["code"]) == (401, 190)
    status, answer = await sandbox.graph("POST", "/7/messages", {})
    assert (status, answer["error"]["code"], answer["error"]["error_subcode"]) == (400, 100, 33)


async def test_any_version_and_none(sandbox: Sandbox) -> None:
    for prefix in ("/graph", "/graph/v19.0", "/graph/v26.0"):
        headers = {"Authorization": "Bearer sandbox-token"}
        async with sandbox.client.get(f"{sandbox.url}{prefix}/100000000000001", headers=headers) as answer:
            assert (await answer.json())["display_phone_number"] == "15550001111"


async def test_read_marks_and_typing_reach_the_phone(sandbox: Sandbox, receiver: Receiver) -> None:
    first, second = await sandbox.say(text="1"), await sandbox.say(text="2")
    await until(sandbox.quiet)
    async with sandbox.client.ws_connect(f"{sandbox.url}/_ctl/phone/layla/live") as socket:
        assert (await socket.receive_json())["type"] == "hello"
        body = {
            "messaging_product": "whatsapp",
            "status": "read",
            "message_id": second,
            "typing_indicator": {"type": "text"},
        }
        assert await sandbox.graph("POST", "/100000000000001/messages", body) == (200, {"success": True})
        frames = [await socket.receive_json() for _ in range(3)]
        assert [(f["type"], f.get("id"), f.get("state")) for f in frames[:2]] == [
            ("state", first, "read"),
            ("state", second, "read"),
        ]
        assert (frames[2]["type"], frames[2]["typing"]) == ("typing", True)
        await sandbox.accepted()
        frames = [await socket.receive_json() for _ in range(2)]
        assert (frames[0]["type"], frames[0]["typing"]) == ("typing", False)
        assert frames[1]["message"]["from"] == "business"
    assert {message["state"] for message in (await sandbox.thread())[:2]} == {"read"}


async def test_the_live_socket_tells_the_life_of_a_message(sandbox: Sandbox, receiver: Receiver) -> None:
    async with sandbox.client.ws_connect(f"{sandbox.url}/_ctl/phone/omar/live") as socket:
        hello = await socket.receive_json()
        assert (hello["type"], hello["persona"]) == ("hello", "omar")
        said = await sandbox.say("omar", "Hi")
        frames: list[dict[str, Any]] = []
        while not any(f["type"] == "state" for f in frames):
            frames.append(await socket.receive_json())
        assert frames[0]["message"]["state"] == "stored"
        assert (frames[-1]["id"], frames[-1]["state"]) == (said, "delivered")
        sent = await sandbox.accepted("201112223344")
        frames = []
        while not any(f.get("state") == "delivered" for f in frames):
            frames.append(await socket.receive_json())
        assert (await sandbox.ctl("POST", "/phone/omar/read", {}))["read"] == [sent]
        while not any(f.get("state") == "read" for f in frames):
            frames.append(await socket.receive_json())
    await until(lambda: [s.status for s in receiver.statuses(sent)] == ["SENT", "DELIVERED", "READ"])


async def test_unread_counts_and_paging(sandbox: Sandbox) -> None:
    for n in range(5):
        await sandbox.accepted("201112223344", f"{n}")
    phone = await sandbox.ctl("GET", "/phone")
    [thread] = next(p for p in phone["personas"] if p["id"] == "omar")["threads"]
    assert (thread["unread"], thread["last_message"]["content"]) == (5, "4")
    page = await sandbox.ctl("GET", "/phone/omar/messages?limit=2")
    assert [m["content"] for m in page["messages"]] == ["3", "4"]
    assert page["has_more"]
    before = page["messages"][0]["n"]
    page = await sandbox.ctl("GET", f"/phone/omar/messages?before={before}")
    assert [m["content"] for m in page["messages"]] == ["0", "1", "2"]
    assert not page["has_more"]


async def test_media_goes_both_ways_and_its_url_expires(sandbox: Sandbox, receiver: Receiver) -> None:
    data = b"\x89PNG-not-really"
    headers = {"Content-Type": "image/png"}
    async with sandbox.client.post(f"{sandbox.url}/_ctl/media", data=data, headers=headers) as answer:
        assert answer.status == 201
        media = await answer.json()
    message = {"type": "image", "image": {"id": media["id"], "caption": "shop"}}
    await sandbox.ctl("POST", "/inbound", {"persona": "layla", "message": message})
    await until(receiver.inbound)
    [event] = receiver.inbound()
    assert event.metadata["media"][0]["mime"] == "image/png"
    assert event.metadata["media"][0]["ref"] == media["id"]
    bearer = {"Authorization": "Bearer sandbox-token"}
    _, looked_up = await sandbox.graph("GET", f"/{media['id']}")
    async with sandbox.client.get(looked_up["url"], headers=bearer) as answer:
        assert (answer.status, await answer.read()) == (200, data)
    async with sandbox.client.get(looked_up["url"]) as answer:
        assert answer.status == 401
    await sandbox.advance(301)
    async with sandbox.client.get(looked_up["url"], headers=bearer) as answer:
        assert answer.status == 404
    async with sandbox.client.get(f"{sandbox.url}/_ctl/media/{media['id']}") as answer:
        assert await answer.read() == data
        assert "sandbox" in answer.headers["Content-Security-Policy"]


async def test_templates_are_reviewed(sandbox: Sandbox, receiver: Receiver) -> None:
    def template(name: str, text: str) -> dict[str, Any]:
        return {
            "name": name,
            "language": "en_US",
            "category": "UTILITY",
            "components": [{"type": "BODY", "text": text}],
        }

    path = "/200000000000001/message_templates"
    status, good = await sandbox.graph("POST", path, template("good_one", "Hello {{1}}, welcome."))
    assert (status, good["status"]) == (200, "PENDING")
    _, bad = await sandbox.graph("POST", path, template("bad_one", "{{1}} is your code"))
    status, _ = await sandbox.graph("POST", path, template("good_one", "again"))
    assert status == 400
    await sandbox.advance(11)
    await until(lambda: len(receiver.inbound()) == 2)
    told = {str(e.metadata["template"]["message_template_id"]): e for e in receiver.inbound()}
    assert told[good["id"]].metadata["template"]["status"] == "APPROVED"
    assert told[bad["id"]].metadata["template"]["status"] == "REJECTED"
    assert {event.account_key for event in told.values()} == {"200000000000001"}
    _, listed = await sandbox.graph("GET", f"{path}?name=good_one")
    assert [row["status"] for row in listed["data"]] == ["APPROVED"]
    parameters = {"name": "good_one", "language": {"code": "en_US"}, "components": [_body("Layla")]}
    await sandbox.accepted(type="template", template=parameters)
    assert (await sandbox.thread())[-1]["content"] == "Hello Layla, welcome."
    assert (await sandbox.graph("DELETE", f"{path}?name=good_one"))[1] == {"success": True}
    assert (await sandbox.graph("GET", f"{path}?name=good_one"))[1]["data"] == []


async def test_subscribing_checks_the_callback(sandbox: Sandbox, receiver: Receiver) -> None:
    assert (await sandbox.ctl("POST", "/subscribe", {}))["ok"]
    path = "/200000000000001/subscribed_apps"
    override = {"override_callback_uri": receiver.url, "verify_token": "wrong"}
    assert (await sandbox.graph("POST", path, override))[0] == 400
    override["verify_token"] = "vt"
    assert (await sandbox.graph("POST", path, override))[1] == {"success": True}
    _, listed = await sandbox.graph("GET", path)
    assert listed["data"][0]["override_callback_uri"] == receiver.url
    assert (await sandbox.graph("DELETE", path))[1] == {"success": True}


async def test_further_accounts_have_their_own_secret_and_survive(tmp_path: Path, receiver: Receiver) -> None:
    account = {
        "phone_number_id": "100000000000002",
        "waba_id": "200000000000002",
        "access_token": "second-token",
        "app_secret": "another secret",
    }
    async with running_sandbox(tmp_path, receiver.url) as sandbox:
        await sandbox.ctl("POST", "/accounts", account)
    async with running_sandbox(tmp_path, receiver.url) as sandbox:
        await sandbox.say(account="100000000000002")
        await until(lambda: receiver.unsigned)
        [event, *_] = ADAPTER.parse(receiver.unsigned[0])
        assert isinstance(event, Inbound)
        assert event.account_key == "100000000000002"
        status, _ = await sandbox.graph("GET", "/100000000000002", token="second-token")
        assert status == 200
        status, _ = await sandbox.graph("GET", "/100000000000002", token="sandbox-token")
        assert status == 400


async def test_reset_forgets_and_ids_never_repeat(sandbox: Sandbox, receiver: Receiver) -> None:
    first = await sandbox.say()
    await sandbox.accepted()
    await sandbox.fault("throttle", next=5)
    await sandbox.ctl("POST", "/reset")
    assert await sandbox.thread() == []
    assert ledger_of(sandbox) == []
    assert (await sandbox.ctl("GET", "/state"))["faults"] == 0
    assert await sandbox.say() != first


async def test_personas_can_be_changed(sandbox: Sandbox, receiver: Receiver) -> None:
    patch = {"behaviour": {"reads_after_s": None}, "name": "Layla H."}
    changed = await sandbox.ctl("PATCH", "/phone/layla", patch)
    assert (changed["name"], changed["behaviour"]["delivers_after_s"]) == ("Layla H.", 0.4)
    wamid = await sandbox.accepted()
    await sandbox.advance(3600)
    await until(lambda: len(receiver.statuses(wamid)) == 2)
    status, _ = await sandbox.call("PATCH", "/_ctl/phone/layla", {"behaviour": {"flies": True}})
    assert status == 400


async def test_other_sites_and_rebound_names_are_refused(sandbox: Sandbox) -> None:
    for headers in ({"Origin": "https://evil.example"}, {"Host": "evil.example"}, {"Origin": "null"}):
        async with sandbox.client.get(f"{sandbox.url}/_ctl/phone", headers=headers) as answer:
            assert answer.status == 403
    async with sandbox.client.get(f"{sandbox.url}/_ctl/phone", headers={"Origin": sandbox.url}) as answer:
        assert answer.status == 200


async def test_the_phone_page_or_a_word_why_not(sandbox: Sandbox) -> None:
    for path in ("/", "/phone"):
        async with sandbox.client.get(f"{sandbox.url}{path}") as answer:
            assert answer.status == 200
            assert answer.content_type == "text/html"
            assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
    async with sandbox.client.get(f"{sandbox.url}/assets/%2e%2e/%2e%2e/package.json") as answer:
        assert answer.status == 404


async def test_the_outbox_shows_requests_without_tokens(sandbox: Sandbox) -> None:
    await sandbox.accepted(text="seen")
    [request] = (await sandbox.ctl("GET", "/outbox?channel=WHATSAPP_CLOUD"))["requests"]
    assert request["status"] == 200
    assert msgspec.json.decode(request["body"])["text"] == {"body": "seen"}
    assert "sandbox-token" not in json.dumps(request)
