"""KEY-01, AUTH-05 and C-05: keys are listed, used, rotated and revoked."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from hub import clock
from hub.auth.apikeys import prefix_of
from hub.domain.permissions import PERMISSIONS
from hub.resources import AUTH, NOTES
from tests.factories import Member, Org, make_contact, make_member, make_org, until
from tests.server import Answer, Hub

LIST = "/functions/v1/list-organizations"


async def generate(hub: Hub, token: str, **body: Any) -> dict[str, Any]:
    answer = await hub.post("/functions/v1/generate-api-key", token=token, json={"name": "Shop", **body})
    assert answer.status == 200, answer
    document: dict[str, Any] = answer.json
    return document


async def rotate(hub: Hub, token: str, id: str, **body: Any) -> Answer:
    return await hub.post("/functions/v1/rotate-api-key", token=token, json={"id": id, **body})


async def test_KEY_01_the_answer_is_the_documents_to_the_letter(hub: Hub, owner: Member) -> None:
    """Names, order, forms; `key_prefix` ends in dots, as the document shows it."""
    token = await hub.token(owner.email)
    sample = {
        "name": "External System Integration",
        "expires_in_days": 365,
        "permissions": {"can_send_messages": True, "can_read_messages": False},
    }
    answer = await hub.post("/functions/v1/generate-api-key", token=token, json=sample)
    time = r'"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z"'
    wanted = (
        r'\{"success":true,"api_key":"cg_[0-9A-Za-z]{43}","key_info":\{"id":"[0-9a-f-]{36}",'
        r'"name":"External System Integration","key_prefix":"cg_[0-9A-Za-z]{8}\.\.\.",'
        rf'"expires_at":{time},"created_at":{time}\}},'
        r'"warning":"Save this API key now\. You will not be able to see it again!"\}'
    )
    assert re.fullmatch(wanted, answer.body.decode()), answer
    left = datetime.fromisoformat(answer.json["key_info"]["expires_at"]) - datetime.now(UTC)
    assert timedelta(days=364) < left < timedelta(days=366)
    for body in ({}, {"expires_in_days": None}):
        assert (await generate(hub, token, **body))["key_info"]["expires_at"] is None, "null: no expiration"


async def test_C_36_keys_are_made_by_people(hub: Hub, owner: Member) -> None:
    token = await hub.token(owner.email)
    key = (await generate(hub, token, permissions=dict.fromkeys(PERMISSIONS, True)))["api_key"]
    anon = (await hub.get("/config.json")).json["anon_key"]
    for options, status in (({"key": key}, 403), ({"token": key}, 403), ({"token": anon}, 401), ({}, 401)):
        answer = await hub.post("/functions/v1/generate-api-key", json={"name": "x"}, **options)
        assert answer.status == status, answer


async def test_KEY_01_keys_are_listed_without_their_text(
    hub: Hub, owner: Member, superuser: asyncpg.Connection, password_hash: str
) -> None:
    token = await hub.token(owner.email)
    made = [await generate(hub, token, expires_in_days=n) for n in (1, 2, None)]
    await superuser.execute("update api_keys set expires_at = now() where id = $1", made[0]["key_info"]["id"])
    await hub.post("/functions/v1/revoke-api-key", token=token, json={"id": made[1]["key_info"]["id"]})
    listed = await hub.get("/functions/v1/list-api-keys", token=token)
    assert [(k["id"], k["status"]) for k in listed.json["api_keys"]] == [
        (m["key_info"]["id"], s)
        for m, s in zip(reversed(made), ("active", "revoked", "expired"), strict=True)
    ]
    assert listed.json["api_keys"][0].keys() == {
        "id", "name", "key_prefix", "permissions", "created_by", "created_at", "expires_at", "last_used_at",
        "revoked_at", "status",
    }  # fmt: skip
    for m in made:
        assert m["api_key"] not in listed.body.decode()
    neighbour = await make_member(superuser, await make_org(superuser), "OWNER", password_hash)
    theirs = await hub.token(neighbour.email)
    assert (await hub.get("/functions/v1/list-api-keys", token=theirs)).json["count"] == 0
    for name in ("revoke", "rotate"):
        answer = await hub.post(
            f"/functions/v1/{name}-api-key", token=theirs, json={"id": made[2]["key_info"]["id"]}
        )
        assert (answer.status, answer.json["code"]) == (404, "RESOURCE_NOT_FOUND")
    assert (await hub.get(LIST, key=made[2]["api_key"])).status == 200


async def test_X09_a_revoked_key_is_over_with_the_next_request_and_for_good(
    hub: Hub, owner: Member, superuser: asyncpg.Connection
) -> None:
    token = await hub.token(owner.email)
    made = await generate(hub, token, permissions=dict.fromkeys(PERMISSIONS, True))
    key, id = made["api_key"], made["key_info"]["id"]
    async with hub.client.ws_connect(f"{hub.url}/ws") as ws:
        await ws.send_json({"type": "hello", "token": key, "cursor": None})
        assert (await ws.receive_json())["type"] == "welcome"
        assert (await hub.get(LIST, key=key)).status == 200
        revoked = await hub.post("/functions/v1/revoke-api-key", token=token, json={"id": id})
        assert revoked.json["key_info"]["revoked_at"] is not None
        paths = (LIST, "/rest/v1/contacts", "/functions/v1/events", "/auth/v1/user")
        for path in paths:
            for options in ({"key": key}, {"token": key}):
                if path != "/auth/v1/user" or "token" in options:
                    assert (await hub.get(path, **options)).status in (401, 403), path
        while (await ws.receive(timeout=12)).type.name == "TEXT":
            pass
        assert ws.close_code == 4401
    again = await hub.post("/functions/v1/revoke-api-key", token=token, json={"id": id})
    assert again.json["key_info"]["revoked_at"] == revoked.json["key_info"]["revoked_at"]
    back = await hub.patch(f"/rest/v1/api_keys?id=eq.{id}", token=token, json={"revoked_at": None})
    assert back.status in (204, 403)
    hub.app[AUTH].forget_key(id)
    assert (await hub.get(LIST, key=key)).status == 401, "its hash is gone"
    assert await superuser.fetchval("select count(*) from app.api_key_hashes") == 0
    deeds = await superuser.fetch("select action from audit_log where target_table = 'api_keys' order by id")
    assert [d["action"] for d in deeds][:2] == ["api_key.created", "api_key.revoked"]


async def test_KEY_01_rotation_leaves_the_earlier_key_its_time(
    hub: Hub, owner: Member, superuser: asyncpg.Connection
) -> None:
    token = await hub.token(owner.email)
    first = await generate(hub, token, permissions={"can_read_messages": True})
    old, id = first["api_key"], first["key_info"]["id"]
    answer = await rotate(hub, token, id, overlap_hours=2, expires_in_days=90)
    assert answer.status == 200, answer
    assert answer.json.keys() == {"success", "api_key", "key_info", "warning", "previous"}
    new = answer.json["api_key"]
    assert answer.json["key_info"]["name"] == "Shop"
    try:
        for offset, statuses in ((0, [200, 200]), (7190, [200, 200]), (7210, [401, 200])):
            clock.set_offset(offset)
            assert [(await hub.get("/rest/v1/contacts", key=k)).status for k in (old, new)] == statuses
    finally:
        clock.set_offset(0)
    now = await rotate(hub, token, answer.json["key_info"]["id"], overlap_hours=0)
    assert [(await hub.get("/rest/v1/contacts", key=k)).status for k in (new, now.json["api_key"])] == [
        401, 200,
    ]  # fmt: skip
    ended = await rotate(hub, token, answer.json["key_info"]["id"])
    assert (ended.status, ended.json["code"]) == (404, "RESOURCE_NOT_FOUND")
    dump = str(await superuser.fetch("select a::text from audit_log a"))
    assert old not in dump and new not in dump


async def test_KEY_01_rotation_never_prolongs_a_key(
    hub: Hub, owner: Member, superuser: asyncpg.Connection
) -> None:
    token = await hub.token(owner.email)
    made = await generate(hub, token, expires_in_days=1)
    answer = await rotate(hub, token, made["key_info"]["id"], overlap_hours=720)
    assert answer.json["previous"]["expires_at"] == made["key_info"]["expires_at"]


async def test_KEY_01_nobody_rotates_a_key_to_more_than_he_holds(
    hub: Hub, org: Org, owner: Member, superuser: asyncpg.Connection, password_hash: str
) -> None:
    made = await generate(hub, await hub.token(owner.email), permissions={"can_access_pm": True})
    admin = await make_member(superuser, org, "ADMIN", password_hash, can_access_pm=False)
    answer = await rotate(hub, await hub.token(admin.email), made["key_info"]["id"])
    assert (answer.status, answer.json["code"]) == (403, "INSUFFICIENT_PERMISSIONS")
    assert (await hub.get(LIST, key=made["api_key"])).status == 200, "and the earlier one goes on"
    assert await superuser.fetchval("select count(*) from api_keys") == 1


@pytest.mark.parametrize(
    ("name", "body", "field"),
    [
        ("rotate", {"overlap_hours": -1}, "overlap_hours"),
        ("rotate", {"overlap_hours": 721}, "overlap_hours"),
        ("rotate", {"expires_in_days": 0}, "expires_in_days"), ("rotate", {"id": "x"}, "id"),
        ("revoke", {"id": "x"}, "id"), ("generate", {"name": "a\u202eb"}, "name"),
        ("generate", {"name": "x" * 201}, "name"), ("generate", {"expires_in_days": 3651}, "expires_in_days"),
    ],
)  # fmt: skip
async def test_KEY_01_bad_bodies_name_the_field(
    hub: Hub, owner: Member, name: str, body: dict[str, Any], field: str
) -> None:
    whole = (
        {"id": "00000000-0000-4000-8000-000000000000", **body}
        if name != "generate"
        else {"name": "x", **body}
    )
    answer = await hub.post(f"/functions/v1/{name}-api-key", token=await hub.token(owner.email), json=whole)
    assert (answer.status, answer.json["code"]) == (422, "VALIDATION_ERROR"), answer
    assert answer.json["details"]["field"] == field


async def test_KEY_01_an_answer_with_a_key_is_never_kept(hub: Hub, owner: Member) -> None:
    token = await hub.token(owner.email)
    made = await generate(hub, token)
    for name, body in (("generate", {"name": "x"}), ("rotate", {"id": made["key_info"]["id"]})):
        answer = await hub.post(f"/functions/v1/{name}-api-key", token=token, json=body,
                                headers={"Idempotency-Key": "k"})  # fmt: skip
        assert (answer.status, answer.json["details"]["field"]) == (422, "Idempotency-Key")


async def test_KEY_01_uses_are_noted_together_and_seldom(
    hub: Hub, owner: Member, superuser: asyncpg.Connection
) -> None:
    """Five keys, fifty requests: one statement, and no second one soon after."""
    token = await hub.token(owner.email)
    keys = [(await generate(hub, token))["api_key"] for _ in range(5)]
    await superuser.execute("create table public.writes (n int); grant insert on public.writes to public;"
                            "create function public.count_writes() returns trigger language plpgsql as $$"
                            " begin insert into public.writes values ((select count(*) from changed));"
                            " return null; end $$;"
                            "create trigger count_writes after update on api_keys referencing new table as"
                            " changed for each statement execute function public.count_writes()")  # fmt: skip
    for _ in range(10):
        for key in keys:
            assert (await hub.get(LIST, key=key)).status == 200
    used = "select count(*) from api_keys where last_used_at is not null"

    async def all_noted() -> bool:
        return bool(await superuser.fetchval(used) == 5)

    await until(all_noted, what="all five to have been used")
    await hub.app[NOTES].write()
    assert await superuser.fetchval("select sum(n) from writes") == 5
    assert await superuser.fetchval("select count(*) from writes") <= 2
    assert await superuser.fetchval(
        "select count(*) from audit_log where action = 'api_key.updated'"
    ) == 0, "a use is no deed"  # fmt: skip


async def test_X09_another_tenants_key(
    hub: Hub, org: Org, owner: Member, superuser: asyncpg.Connection, password_hash: str
) -> None:
    """It opens its own organization and nothing of ours, whatever is named; beside our bearer token it is
    refused, and our audit log says so."""
    contact = await make_contact(superuser, org)
    elsewhere = await make_org(superuser)
    neighbour = await make_member(superuser, elsewhere, "OWNER", password_hash)
    everything = dict.fromkeys(PERMISSIONS, True)
    made = await generate(hub, await hub.token(neighbour.email), permissions=everything)
    key = made["api_key"]
    assert (await hub.get(f"/rest/v1/contacts?id=eq.{contact}", key=key)).json == []
    named = await hub.post(
        "/rest/v1/contacts", key=key, json={"first_name": "x", "organization_id": str(org.id)}
    )
    assert (named.status, named.json["error_code"]) == (403, "INSUFFICIENT_PERMISSIONS")
    changed = await hub.patch(f"/rest/v1/contacts?id=eq.{contact}", key=key, json={"first_name": "x"},
                              headers={"Prefer": "return=representation"})  # fmt: skip
    assert changed.json == []
    token = await hub.token(owner.email)
    for path in ("/rest/v1/contacts", LIST, "/functions/v1/events"):
        both = await hub.get(path, key=key, token=token)
        assert (both.status, both.json["error_code"]) == (401, "INVALID_API_KEY"), both
    noted = (
        "select details ->> 'reason' from audit_log where organization_id = $1 and actor_id = $2 and"
        " action = 'access.refused'"
    )
    said = await until(lambda: superuser.fetchval(noted, org.id, owner.id), what="our audit log")
    assert said == "key of another organization"
    refused = "select count(*) from audit_log where organization_id = $1 and action = 'access.refused'"
    assert await until(lambda: superuser.fetchval(refused, elsewhere.id), what="theirs, for the write")
    ours = await generate(hub, token, permissions=everything)
    assert (await hub.get("/rest/v1/contacts", key=ours["api_key"], token=token)).status == 200
    assert prefix_of(key) != prefix_of(ours["api_key"])
    anon = (await hub.get("/config.json")).json["anon_key"]
    assert (await hub.get("/rest/v1/contacts", key=key, token=anon)).status == 200
    assert (await hub.get("/rest/v1/contacts", key=key, token="garbage")).status == 401
