"""EXT-01 to EXT-07: the document's insert-message; SEND-07: whatsapp-cloud-send."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from hub.errors import NotFound
from tests.factories import Member, Org, insert, make_contact, make_conversation, make_org, until
from tests.server import Answer, Hub

BODY = {
    "phone": "201001383533",
    "content": "Hello from external system!",
    "direction": "outgoing",
    "status": "sent",
}


@pytest.fixture
async def key(hub: Hub, owner: Member) -> str:
    token = await hub.token(owner.email)
    made = await hub.post("/functions/v1/generate-api-key", token=token, json={"name": "Shop"})
    text: str = made.json["api_key"]
    return text


async def record(hub: Hub, key: str, headers: dict[str, str] | None = None, **changes: Any) -> Answer:
    body = {k: v for k, v in {**BODY, **changes}.items() if v is not None}
    return await hub.post("/functions/v1/insert-message", key=key, json=body, headers=headers or {})


async def test_EXT_01_the_documents_curl_runs(
    hub: Hub, org: Org, key: str, superuser: asyncpg.Connection
) -> None:
    raw = (
        b'{"phone": "201001383533", "content": "Hello from external system!",'
        b' "direction": "outgoing", "status": "sent"}'
    )
    answer = await hub.post(
        "/functions/v1/insert-message", key=key, data=raw, headers={"Content-Type": "application/json"}
    )
    assert answer.status == 200, answer
    assert answer.json.keys() == {"success", "message"}
    assert answer.json["success"] is True
    assert answer.json["message"].keys() == {"id", "conversation_id", "contact_id"}
    row = await superuser.fetchrow("select * from messages")
    assert (row["direction"], row["status"], row["source"], row["message_type"]) == (
        "OUTBOUND",
        "SENT",
        "api",
        "text",
    )
    assert (row["organization_id"], row["channel_account_id"]) == (org.id, org.account_id)
    assert await superuser.fetchval("select count(*) from app.outbox") == 0, (
        "C-13: it records and never sends"
    )
    assert await superuser.fetchval("select phones from contacts") == ["+201001383533"]
    assert await superuser.fetchval("select last_message_at = $1 from conversations", row["created_at"])


@pytest.mark.parametrize("missing", ["phone", "content", "direction", "status"])
async def test_EXT_02_each_needed_field_is_named(hub: Hub, key: str, missing: str) -> None:
    answer = await record(hub, key, **{missing: None})
    assert (answer.status, answer.json["code"]) == (422, "VALIDATION_ERROR")
    assert answer.json["error"] == "Validation error"
    assert answer.json["details"] == {"field": missing, "message": f"{missing} is required"}


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"phone": "call me"}, "phone"), ({"phone": 20100}, "phone"), ({"content": ""}, "content"),
        ({"content": "x" * 65_537}, "content"), ({"direction": "sideways"}, "direction"),
        ({"status": "pending"}, "status"),
        ({"status": "received"}, "status"), ({"message_type": "hologram"}, "message_type"),
        ({"metadata": []}, "metadata"),
        ({"channel_account_id": "x"}, "channel_account_id"), ({"fone": "1"}, "fone"),
        ({"content": "a\u0000b"}, "content"),
    ],
)  # fmt: skip
async def test_EXT_02_bad_values_are_named(hub: Hub, key: str, changes: dict[str, Any], field: str) -> None:
    answer = await record(hub, key, **changes)
    assert (answer.status, answer.json["details"]["field"]) == (422, field), answer


@pytest.mark.parametrize(
    ("direction", "status", "stored"),
    [
        ("INCOMING", "Received", ("INBOUND", "RECEIVED", "customer")),
        ("inbound", "read", ("INBOUND", "READ", "customer")),
        ("outgoing", "DELIVERED", ("OUTBOUND", "DELIVERED", "api")),
        ("Outbound", "failed", ("OUTBOUND", "FAILED", "api")),
    ],
)  # fmt: skip
async def test_C_12_any_case(
    hub: Hub, key: str, superuser: asyncpg.Connection, direction: str, status: str, stored: tuple[str, ...]
) -> None:
    assert (await record(hub, key, direction=direction, status=status)).status == 200
    assert tuple(await superuser.fetchrow("select direction, status, source from messages")) == stored


async def test_EXT_04_metadata_type_and_account(
    hub: Hub, org: Org, key: str, superuser: asyncpg.Connection
) -> None:
    second = await insert(
        superuser, "channel_accounts", {"organization_id": org.id, "name": "Second", "type": "SMS"}
    )
    answer = await record(
        hub, key, channel_account_id=str(second), message_type="Image", metadata={"url": "x"}
    )
    row = await superuser.fetchrow("select * from messages where id = $1", answer.json["message"]["id"])
    assert (row["channel_account_id"], row["message_type"], row["metadata"]) == (
        second,
        "image",
        '{"url": "x"}',
    )
    foreign = await make_org(superuser)
    refused = await record(hub, key, channel_account_id=str(foreign.account_id))
    assert (refused.status, refused.json["code"]) == (404, "RESOURCE_NOT_FOUND")


async def test_EXT_05_spellings_of_one_number_are_one_contact(
    hub: Hub, key: str, superuser: asyncpg.Connection
) -> None:
    spellings = [
        "201001383533",
        "+20 100 138 3533",
        "00201001383533",
        "٢٠١٠٠١٣٨٣٥٣٣",
        "201001383533@s.whatsapp.net",
    ]
    answers = [await record(hub, key, phone=phone) for phone in spellings]
    assert len({a.json["message"]["contact_id"] for a in answers}) == 1
    assert len({a.json["message"]["conversation_id"] for a in answers}) == 1
    assert await superuser.fetchval("select max(conv_seq) from messages") == 5


async def test_EXT_05_twelve_parallel_calls_create_one_of_each(
    hub: Hub, key: str, superuser: asyncpg.Connection
) -> None:
    answers = await asyncio.gather(*(record(hub, key, content=f"n{i}") for i in range(12)))
    assert {a.status for a in answers} == {200}
    assert await superuser.fetchval("select count(*) from contacts") == 1
    assert await superuser.fetchval("select count(*) from conversations") == 1
    assert await superuser.fetchval("select array_agg(conv_seq order by conv_seq) from messages") == [
        *range(1, 13)
    ]


@pytest.mark.parametrize("scheme", ["wa_id", "phone_e164", None])
async def test_EXT_05_a_known_contact_is_found(
    hub: Hub, org: Org, key: str, superuser: asyncpg.Connection, scheme: str | None
) -> None:
    phones = [] if scheme == "phone_e164" else ["+201001383533"]  # those are identities by themselves
    contact = await insert(
        superuser, "contacts", {"organization_id": org.id, "first_name": "Mona", "phones": phones}
    )
    if scheme is not None:
        value = "201001383533" if scheme == "wa_id" else "+201001383533"
        await insert(
            superuser,
            "contact_identities",
            {"organization_id": org.id, "contact_id": contact, "scheme": scheme, "value": value},
        )
    answer = await record(hub, key)
    assert answer.json["message"]["contact_id"] == str(contact)
    schemes = await superuser.fetchval("select array_agg(scheme order by scheme) from contact_identities")
    assert schemes == ["phone_e164", "wa_id"]


async def test_C_07_other_ways_to_say_who(
    hub: Hub, org: Org, key: str, superuser: asyncpg.Connection
) -> None:
    contact = await make_contact(superuser, org)
    by_id = await record(hub, key, phone=None, contact_id=str(contact))
    assert by_id.json["message"]["contact_id"] == str(contact)
    one = await record(hub, key, phone=None, external_id="crm-7", name="Mona Hassan")
    two = await record(hub, key, phone=None, external_id="crm-7")
    assert one.json["message"]["contact_id"] == two.json["message"]["contact_id"] != str(contact)
    made = await superuser.fetchrow(
        "select first_name, last_name from contacts where id = $1", two.json["message"]["contact_id"]
    )
    assert tuple(made) == ("Mona", "Hassan")
    stranger = await make_contact(superuser, await make_org(superuser))
    assert (await record(hub, key, phone=None, contact_id=str(stranger))).status == 404


async def test_EXT_06_inbound_reopens_and_outbound_does_not(
    hub: Hub, org: Org, key: str, superuser: asyncpg.Connection
) -> None:
    contact = await make_contact(superuser, org, "201001383533")
    conversation = await make_conversation(superuser, org, contact, closed=True)
    sent = await record(hub, key)
    assert sent.json["message"]["conversation_id"] == str(conversation)
    assert await superuser.fetchval("select status from conversations") == "CLOSED"
    received = await record(hub, key, direction="incoming", status="received")
    assert received.json["message"]["conversation_id"] == str(conversation)
    assert await superuser.fetchval("select status from conversations") == "OPEN"
    names = await superuser.fetchval(
        "select array_agg(n) from app.events e, unnest(e.names) n"
        " where table_name = 'conversations' and op = 'UPDATE'"
    )
    assert "conversation.status.changed" in names


async def test_an_organization_without_a_channel(
    hub: Hub, org: Org, key: str, superuser: asyncpg.Connection
) -> None:
    await superuser.execute("delete from channel_accounts")
    one, two = await record(hub, key), await record(hub, key)
    assert one.json["message"]["conversation_id"] == two.json["message"]["conversation_id"]
    assert await superuser.fetchval("select count(*) from messages where channel_account_id is null") == 2


async def test_O_07_an_idempotency_key_repeats_the_answer(
    hub: Hub, key: str, superuser: asyncpg.Connection
) -> None:
    headers = {"Idempotency-Key": "order-17"}
    first = await record(hub, key, headers)
    again = await record(hub, key, headers)
    assert (again.status, again.json) == (200, first.json)
    assert again.headers["Idempotency-Replayed"] == "true"
    assert await superuser.fetchval("select count(*) from messages") == 1
    other = await record(hub, key, headers, content="something else")
    assert (other.status, other.json["details"]["field"]) == (422, "Idempotency-Key")
    refused = await record(hub, key, {"Idempotency-Key": "order-18"}, channel_account_id=str(uuid4()))
    assert refused.status == 404
    assert (await record(hub, key, {"Idempotency-Key": "order-18"})).status == 200, "a refusal is not kept"


async def test_O_07_parallel_repeats_have_one_effect(
    hub: Hub, key: str, superuser: asyncpg.Connection
) -> None:
    answers = await asyncio.gather(*(record(hub, key, {"Idempotency-Key": "k"}) for _ in range(6)))
    assert {a.status for a in answers} <= {200, 409}
    assert await superuser.fetchval("select count(*) from messages") == 1
    for answer in answers:
        if answer.status == 409:
            assert answer.headers["Retry-After"] == "1"


async def send(hub: Hub, key: str, headers: dict[str, str] | None = None, **body: Any) -> Answer:
    return await hub.post("/functions/v1/whatsapp-cloud-send", key=key, json=body, headers=headers or {})


async def test_SEND_07_queues_and_answers_with_the_providers_id(
    hub: Hub, org: Org, key: str, superuser: asyncpg.Connection
) -> None:
    sending = asyncio.create_task(
        send(
            hub,
            key,
            to="+20 100 138 3533",
            message="Hello",
            phoneNumberId=org.phone_number_id,
        )
    )
    message = await until(
        lambda: superuser.fetchval("select message_id from app.outbox"), what="the outbox row"
    )
    await superuser.execute(
        "update messages set status = 'SENT', provider_message_id = 'wamid.1', sent_at = now() where id = $1",
        message,
    )
    answer = await sending
    assert answer.json.keys() == {"success", "result", "conversationId", "contactId"}
    assert answer.json["result"] == {"messageId": "wamid.1", "id": str(message)}


async def test_SEND_07_not_yet_sent_is_answered_with_our_id(
    hub: Hub, key: str, superuser: asyncpg.Connection
) -> None:
    answer = await send(hub, key, to="201001383533", message="Hello")
    assert answer.json["result"]["messageId"] == answer.json["result"]["id"]
    again = await send(hub, key, conversationId=answer.json["conversationId"], message="And again")
    assert again.json["conversationId"] == answer.json["conversationId"]
    assert await superuser.fetchval("select array_agg(source) from messages") == ["api", "api"]


async def test_SEND_07_a_refusal_of_the_provider_is_told(
    hub: Hub, key: str, superuser: asyncpg.Connection
) -> None:
    sending = asyncio.create_task(send(hub, key, to="201001383533", message="Hello"))
    message = await until(
        lambda: superuser.fetchval("select message_id from app.outbox"), what="the outbox row"
    )
    await superuser.execute(
        "update messages set status = 'FAILED', failure_code = 'window_closed', failure_reason = 'Too late'"
        " where id = $1",
        message,
    )
    answer = await sending
    assert (answer.status, answer.json["details"]["message"]) == (422, "Too late")


async def test_SEND_06_a_send_with_none_open_opens_a_new_one(
    hub: Hub, org: Org, key: str, superuser: asyncpg.Connection
) -> None:
    contact = await make_contact(superuser, org, "201001383533")
    closed = await make_conversation(superuser, org, contact, closed=True)
    answer = await send(hub, key, to="201001383533", message="Hello")
    assert answer.json["contactId"] == str(contact)
    assert answer.json["conversationId"] != str(closed)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"message": "x"}, 422), ({"to": "201001383533"}, 422), ({"to": "201001383533", "message": " "}, 422),
        ({"to": "201001383533", "message": "م" * 4097}, 422),
        ({"to": "201001383533", "message": "x", "phoneNumberId": "1"}, 404),
        ({"to": "201001383533", "message": "x", "conversationId": str(uuid4())}, 404),
        ({"to": "201001383533", "message": "x", "organizationId": str(uuid4())}, 422),
    ],
)  # fmt: skip
async def test_refused_sends(
    hub: Hub, key: str, superuser: asyncpg.Connection, body: dict[str, Any], status: int
) -> None:
    answer = await send(hub, key, **body)
    assert answer.status == status, answer
    assert await superuser.fetchval("select count(*) from messages") == 0


async def test_SEND_07_a_token_in_the_request_is_refused_and_not_ignored(
    hub: Hub, key: str, superuser: asyncpg.Connection
) -> None:
    answer = await send(hub, key, to="201001383533", message="Hello", accessToken="EAAx0123456789")
    assert (answer.status, answer.json["details"]["field"]) == (422, "accessToken")
    assert "channel account" in answer.json["details"]["message"]
    assert "EAAx" not in str(answer.json)
    assert await superuser.fetchval("select count(*) from messages") == 0
    assert (await send(hub, key, to="201001383533", message="Hello", accessToken="")).status == 200


async def test_I_01_the_same_idempotency_key_sends_once(
    hub: Hub, key: str, superuser: asyncpg.Connection
) -> None:
    headers = {"Idempotency-Key": "once"}
    answers = await asyncio.gather(
        *(send(hub, key, headers, to="201001383533", message="Hello") for _ in range(3))
    )
    given = [a for a in answers if a.status == 200]
    assert len({a.json["result"]["id"] for a in given}) == 1
    assert all(a.status == 409 and a.headers["Retry-After"] == "1" for a in answers if a not in given)
    other = await send(hub, key, headers, to="201001383533", message="Hello again")
    assert (other.status, other.json["details"]["field"]) == (422, "Idempotency-Key")
    assert await superuser.fetchval("select count(*) from app.outbox") == 1


async def test_O_07_a_repeated_send_stays_with_its_message_after_the_conversation_closed(
    hub: Hub, key: str, superuser: asyncpg.Connection
) -> None:
    headers = {"Idempotency-Key": "once"}
    first = await send(hub, key, headers, to="201001383533", message="Hello")
    await superuser.execute("update conversations set status = 'CLOSED'")
    await superuser.execute("update messages set status = 'SENT', provider_message_id = 'wamid.1'")
    again = await send(hub, key, headers, to="201001383533", message="Hello")
    assert (again.status, again.headers["Idempotency-Replayed"]) == (200, "true")
    assert again.json["result"] == {"messageId": "wamid.1", "id": first.json["result"]["id"]}
    assert again.json["conversationId"] == first.json["conversationId"]
    assert await superuser.fetchval("select count(*) from conversations") == 1


async def test_a_send_that_cannot_be_queued_leaves_no_conversation(
    hub: Hub, key: str, superuser: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: Any, **__: Any) -> None:
        raise NotFound("No such thing")

    monkeypatch.setattr("hub.functions.messages.queue_in", refuse)
    assert (await send(hub, key, to="201001383533", message="Hello")).status == 404
    assert await superuser.fetchval("select count(*) from conversations") == 0
