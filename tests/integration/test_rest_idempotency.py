"""O-07 under /rest/v1: a repeated POST has one effect and one answer; and who hears of a message at once."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import jwt
import pytest

from hub.auth.secrets import open_secret
from hub.db.pool import Database
from hub.db.tenancy import acting_as
from hub.idempotency import Once
from hub.resources import PUBLISHER
from tests.factories import Member, Org, make_conversation, make_member, make_org
from tests.server import Answer, Hub

REPRESENT = {"Prefer": "return=representation"}


@pytest.fixture
async def token(hub: Hub, owner: Member) -> str:
    return await hub.token(owner.email)


async def post(hub: Hub, token: str, key: str, body: Any, path: str = "contacts", **headers: str) -> Answer:
    return await hub.post(
        f"/rest/v1/{path}", token=token, json=body, headers={"Idempotency-Key": key, **headers}
    )


@pytest.mark.parametrize(
    "prefer", ["return=representation", "return=minimal", "return=headers-only", "return=minimal,count=exact"]
)
async def test_O_07_a_repeat_gets_the_first_answer_whole(
    hub: Hub, token: str, superuser: asyncpg.Connection, prefer: str
) -> None:
    first = await post(hub, token, "k", {"first_name": "Ali"}, Prefer=prefer)
    again = await post(hub, token, "k", {"first_name": "Ali"}, Prefer=prefer)
    assert first.status == 201
    assert (again.status, again.body) == (first.status, first.body)
    assert again.headers["Idempotency-Replayed"] == "true"
    for name in ("Content-Type", "Content-Range", "Location", "Preference-Applied"):
        assert again.headers.get(name) == first.headers.get(name), name
    assert await superuser.fetchval("select count(*) from contacts") == 1


async def test_O_07_another_request_under_the_key_is_refused(
    hub: Hub, token: str, superuser: asyncpg.Connection
) -> None:
    await post(hub, token, "k", {"first_name": "Ali"}, **REPRESENT)
    for path, body, headers in (
        ("contacts", {"first_name": "Zaid"}, REPRESENT),
        ("companies", {"first_name": "Ali"}, REPRESENT),
        ("contacts?select=id", {"first_name": "Ali"}, REPRESENT),
        ("contacts", {"first_name": "Ali"}, {}),
        ("contacts", {"first_name": "Ali"}, {**REPRESENT, "Accept": "application/vnd.pgrst.object+json"}),
    ):
        body = {"name": "Ali"} if path == "companies" else body
        other = await post(hub, token, "k", body, path, **headers)
        assert (other.status, other.json["error_code"]) == (422, "VALIDATION_ERROR"), path
        assert other.json["details"] == "Idempotency-Key: was used with another body"
    assert await superuser.fetchval("select count(*) from contacts") == 1


async def test_O_07_while_the_first_runs_the_others_are_told_to_wait(
    hub: Hub, token: str, superuser: asyncpg.Connection
) -> None:
    await superuser.execute(
        "create function slow() returns trigger language plpgsql as $$"
        " begin perform pg_sleep(0.5); return new;"
        " end $$; create trigger slow before insert on contacts for each row execute function slow()"
    )
    answers = await asyncio.gather(*(post(hub, token, "k", {"first_name": "Ali"}) for _ in range(5)))
    assert sorted(a.status for a in answers) == [201, 409, 409, 409, 409]
    assert all(a.headers["Retry-After"] == "1" for a in answers if a.status == 409)
    assert (await post(hub, token, "k", {"first_name": "Ali"})).status == 201
    assert await superuser.fetchval("select count(*) from contacts") == 1


async def test_O_07_a_refusal_is_not_kept(hub: Hub, token: str, superuser: asyncpg.Connection) -> None:
    single = {"Accept": "application/vnd.pgrst.object+json"}
    two = [{"first_name": "A"}, {"first_name": "B"}]
    assert (await post(hub, token, "k", two, **single)).status == 406
    assert await superuser.fetchval("select count(*) from contacts") == 0
    assert (await post(hub, token, "k", {"company_id": str(uuid4())})).status == 409
    assert (await post(hub, token, "k", two)).status == 201


async def test_O_07_a_key_belongs_to_its_principal(
    hub: Hub, token: str, superuser: asyncpg.Connection, password_hash: str
) -> None:
    stranger = await make_member(superuser, await make_org(superuser), "OWNER", password_hash)
    mine = await post(hub, token, "k", {"first_name": "Ali"}, **REPRESENT)
    theirs = await post(hub, await hub.token(stranger.email), "k", {"first_name": "Ali"}, **REPRESENT)
    assert theirs.json[0]["id"] != mine.json[0]["id"]
    assert "Idempotency-Replayed" not in theirs.headers


async def test_O_07_rows_with_secrets(hub: Hub, org: Org, token: str, superuser: asyncpg.Connection) -> None:
    body = {"name": "N", "type": "TELEGRAM", "settings": {"bot_token": "1:abcdefgh"}}
    first = await post(hub, token, "k", body, "channel_accounts", **REPRESENT)
    again = await post(hub, token, "k", body, "channel_accounts", **REPRESENT)
    assert (first.status, again.json) == (201, first.json)
    kept = await superuser.fetch("select ciphertext, owner_id from app.secrets where name = 'bot_token'")
    assert len(kept) == 1
    opened = open_secret(
        hub.settings, kept[0]["ciphertext"], table="channel_accounts", column="bot_token",
        organization_id=org.id, row_id=kept[0]["owner_id"],
    )  # fmt: skip
    assert opened.reveal() == "1:abcdefgh"
    assert "abcdefgh" not in str(await superuser.fetch("select body from app.idempotency_keys"))


async def test_O_07_the_service_role_has_keys_of_its_own(
    hub: Hub, token: str, org: Org, superuser: asyncpg.Connection
) -> None:
    from hub.resources import AUTH

    service = (await hub.app[AUTH].keyring()).project_keys().service_role
    body = {"organization_id": str(org.id), "first_name": "Ali"}
    first, again = [await post(hub, service, "k", body, **REPRESENT) for _ in range(2)]
    assert (first.status, again.body) == (201, first.body)
    assert again.headers["Idempotency-Replayed"] == "true"
    other = await post(hub, service, "k", body | {"first_name": "Zaid"})
    assert (other.status, other.json["error_code"]) == (422, "VALIDATION_ERROR")
    answers = await asyncio.gather(*(post(hub, service, "race", body) for _ in range(6)))
    assert {a.status for a in answers} <= {201, 409} and 201 in {a.status for a in answers}
    assert (await post(hub, token, "k", body, **REPRESENT)).json != first.json, "a member's key is another"
    assert await superuser.fetchval("select count(*) from contacts") == 3


async def test_O_07_a_credential_without_an_organization_is_told(
    hub: Hub, token: str, owner: Member, superuser: asyncpg.Connection
) -> None:
    from hub.resources import AUTH

    await superuser.execute("update auth.sessions set organization_id = null where user_id = $1", owner.id)
    found = jwt.decode(token, options={"verify_signature": False})
    hub.app[AUTH].forget_session(UUID(found["session_id"]))
    refused = await post(hub, token, "k", {"first_name": "Ali"})
    assert refused.status in (403, 422), refused
    assert await superuser.fetchval("select count(*) from app.idempotency_keys") == 0


@pytest.mark.parametrize("key", ["", "x" * 256])
async def test_O_07_keys_that_are_none(hub: Hub, token: str, key: str) -> None:
    assert (await post(hub, token, key, {"first_name": "Ali"})).status == 422


async def test_a_message_that_is_to_be_sent_wakes_the_workers(
    hub: Hub, org: Org, token: str, superuser: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    woken: list[str] = []
    monkeypatch.setattr(hub.app[PUBLISHER], "wake", woken.append)
    conversation = await make_conversation(superuser, org)
    body = {"conversation_id": str(conversation), "direction": "OUTBOUND", "content": "Hi"}
    sent = await hub.post(
        "/rest/v1/messages", token=token, headers=REPRESENT, json={**body, "status": "PENDING"}
    )
    assert (sent.status, woken) == (201, ["outbox"])
    place = f"/rest/v1/messages?id=eq.{sent.json[0]['id']}"
    await superuser.execute("update messages set status = 'FAILED', failure_code = 'unreachable'")
    assert (await hub.patch(place, token=token, json={"status": "PENDING"})).status == 204
    assert woken == ["outbox", "outbox"]
    await hub.post("/rest/v1/contacts", token=token, json={"first_name": "Ali"})
    assert (await hub.post("/rest/v1/messages", token=token, json={**body, "status": "NO"})).status == 422
    assert woken == ["outbox", "outbox"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/rest/v1/contacts", {"first_name": "Ali"}),
        (
            "/functions/v1/insert-message",
            {"phone": "201001383533", "content": "Hi", "direction": "outgoing", "status": "sent"},
        ),
    ],
)
async def test_O_07_an_answer_that_cannot_be_kept_leaves_no_effect(
    hub: Hub,
    token: str,
    superuser: asyncpg.Connection,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    body: dict[str, Any],
) -> None:
    """One transaction: a hub that dies between the two would have an effect that a repeat does not know."""

    async def fail(*_: Any) -> None:
        raise RuntimeError

    headers = {"Idempotency-Key": "k"}
    with monkeypatch.context() as broken:
        broken.setattr(Once, "keep", fail)
        assert (await hub.post(path, token=token, json=body, headers=headers)).status == 500
    assert await superuser.fetchval("select count(*) from contacts") == 0
    answer = await hub.post(path, token=token, json=body, headers=headers)
    assert answer.status in (200, 201)
    assert "Idempotency-Replayed" not in answer.headers
    assert await superuser.fetchval("select count(*) from contacts") == 1


async def test_O_07_one_person_in_two_organizations_has_two_keys(
    db: Database, superuser: asyncpg.Connection
) -> None:
    first = await make_member(superuser, await make_org(superuser), "OWNER")
    second = await make_org(superuser)
    begin = "select answer from app.begin_idempotent('user:' || $1, 'k', 'h')"
    for organization in (first.organization_id, second.id):
        async with acting_as(db, first.principal(organization_id=organization)) as conn:
            assert await conn.fetchval(begin, str(first.id)) == "new"
            await conn.execute(
                "select app.finish_idempotent('user:' || $1, 'k', 'h', 200, '{}')", str(first.id)
            )
            assert await conn.fetchval(begin, str(first.id)) == "done"
