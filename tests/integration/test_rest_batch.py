"""BP-05: several operations on tables in one transaction, all of them or none."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from hub.resources import PUBLISHER
from tests.factories import Member, Org, make_conversation, make_member, make_org
from tests.server import Answer, Hub

KEEP = "return=representation"


@pytest.fixture
async def token(hub: Hub, owner: Member) -> str:
    return await hub.token(owner.email)


async def run(hub: Hub, token: str, *operations: dict[str, Any], **headers: str) -> Answer:
    return await hub.post(
        "/functions/v1/batch", token=token, json={"operations": list(operations)}, headers=headers
    )


def contact(name: str = "Mia", **more: Any) -> dict[str, Any]:
    body = {"first_name": name}
    return {"method": "POST", "path": "contacts?select=id,first_name", "body": body, "prefer": KEEP, **more}


async def test_BP_05_later_ones_refer_to_earlier_ones(
    hub: Hub, token: str, superuser: asyncpg.Connection
) -> None:
    answer = await run(
        hub, token,
        contact(id="c"),
        {"id": "d", "method": "POST", "path": "/rest/v1/deals?select=id,title,contact_id", "prefer": KEEP,
         "accept": "object", "body": {"title": "New", "contact_id": {"$ref": "c.0.id"},
                                      "custom_fields": {"said": {"$literal": {"$ref": "c.0.id"}}}}},
        {"method": "PATCH", "path": "deals", "query": {"id": ["eq.", {"$ref": "d.id"}]},
        "body": {"value": 5.25}},
        {"method": "GET", "path": "deals?select=title,value,said:custom_fields->said,contacts(first_name)",
         "query": {"id": ["eq.", {"$ref": "1.id"}]}},
        {"method": "POST", "path": "rpc/add_contact_tag?select=tags",
         "body": {"contact_id": {"$ref": "c.0.id"}, "tag": "new"}},
        {"method": "DELETE", "path": "contacts", "query": {"first_name": "eq.Nobody & Co"}, "prefer": KEEP},
    )  # fmt: skip
    assert answer.status == 200, answer
    assert answer.json["success"] is True
    results = answer.json["results"]
    assert [r["status"] for r in results] == [201, 201, 204, 200, 200, 200]
    assert [r["id"] for r in results] == ["c", "d", None, None, None, None]
    assert results[3]["body"] == [
        {"title": "New", "value": 5.25, "said": {"$ref": "c.0.id"}, "contacts": {"first_name": "Mia"}}
    ]
    assert (results[3]["range"], results[4]["body"], results[5]["body"]) == ("0-0/*", {"tags": ["new"]}, [])
    assert await superuser.fetchval("select count(distinct xmin::text) from deals") == 1


@pytest.mark.parametrize(
    ("bad", "status", "code"),
    [
        ({"method": "POST", "path": "deals", "body": {"title": None}}, 400, "23502"),
        ({"method": "POST", "path": "deals", "body": {"contact_id": str(uuid4()), "title": "x"}}, 409,
        "23503"),
        ({"method": "POST", "path": "deals", "body": {"probability": 200, "title": "x"}}, 422, "23514"),
        ({"method": "GET", "path": "nope"}, 404, "PGRST205"),
        ({"method": "GET", "path": "contacts?nope=1"}, 400, "PGRST100"),
        ({"method": "PATCH", "path": "contacts", "body": {"first_name": "x"}}, 400, "21000"),
        ({"method": "GET", "path": "contacts?id=is.null", "accept": "object"}, 406, "PGRST116"),
        ({"method": "POST", "path": "deals", "body": {"title": {"$ref": "z.0.id"}}}, 422, "PGRST102"),
        ({"method": "POST", "path": "deals", "body": {"title": {"$ref": "0.9.id"}}}, 422, "PGRST102"),
        ({"method": "GET", "path": "contacts", "query": {"id": ["eq.", {"$ref": "0.0"}]}}, 422, "PGRST102"),
    ],
)  # fmt: skip
async def test_BP_05_one_that_fails_takes_back_all(
    hub: Hub, token: str, superuser: asyncpg.Connection, bad: dict[str, Any], status: int, code: str
) -> None:
    answer = await run(hub, token, contact(), {**bad, "id": "bad"}, contact("Leo"))
    assert answer.status == status, answer
    details = answer.json["details"]
    assert (details["operation"], details["id"], details["code"]) == (1, "bad", code)
    assert await superuser.fetchval("select count(*) from contacts") == 0
    assert await superuser.fetchval("select count(*) from app.events where type = 'contact.created'") == 0


async def test_BP_05_an_operation_asks_for_its_own_permission(
    hub: Hub, agent: Member, superuser: asyncpg.Connection
) -> None:
    token = await hub.token(agent.email)
    refused = await run(hub, token, contact(), {"method": "POST", "path": "projects", "body": {"name": "P"}})
    assert (refused.status, refused.json["code"]) == (403, "INSUFFICIENT_PERMISSIONS")
    assert refused.json["details"]["details"] == {"missing": ["can_access_pm"]}
    assert await superuser.fetchval("select count(*) from contacts") == 0


@pytest.mark.parametrize(
    "body",
    [
        {}, {"operations": []}, {"operations": [{"method": "GET", "path": "contacts"}] * 51},
        {"operations": [{"method": "TRACE", "path": "contacts"}]}, {"operations": [{"method": "GET"}]},
        {"operations": [{"method": "GET", "path": "contacts", "id": "a"}] * 2},
        {"operations": [{"method": "GET", "path": "contacts", "id": "7"}]},
        {"operations": [{"method": "GET", "path": "contacts", "nope": 1}]}, [], 3,
    ],
)  # fmt: skip
async def test_what_is_no_batch(hub: Hub, token: str, body: Any) -> None:
    answer = await hub.post("/functions/v1/batch", token=token, json=body)
    assert (answer.status, answer.json["code"]) == (422, "VALIDATION_ERROR"), answer


async def test_the_neighbours_rows_are_as_far_as_ever(
    hub: Hub, superuser: asyncpg.Connection, password_hash: str, token: str
) -> None:
    mine = (await run(hub, token, contact())).json["results"][0]["body"][0]["id"]
    stranger = await make_member(superuser, await make_org(superuser), "OWNER", password_hash)
    other = await hub.token(stranger.email)
    answer = await run(
        hub, other, {"method": "GET", "path": "contacts"},
        {"method": "PATCH", "path": f"contacts?id=eq.{mine}", "body": {"first_name": "X"}, "prefer": KEEP},
    )  # fmt: skip
    assert [r["body"] for r in answer.json["results"]] == [[], []]


async def test_O_07_a_repeated_batch_has_one_effect(
    hub: Hub, token: str, superuser: asyncpg.Connection
) -> None:
    first, again = [await run(hub, token, contact(), **{"Idempotency-Key": "k"}) for _ in range(2)]
    assert (again.body, again.headers["Idempotency-Replayed"]) == (first.body, "true")
    assert await superuser.fetchval("select count(*) from contacts") == 1


async def test_RATE_02_operations_count_as_requests_to_tables(
    hub: Hub, org: Org, superuser: asyncpg.Connection, token: str
) -> None:
    read = {"method": "GET", "path": "contacts?limit=1"}
    before = int((await hub.get("/rest/v1/contacts", token=token)).headers["X-RateLimit-Remaining"])
    answer = await run(hub, token, *[read] * 50)
    assert int(answer.headers["X-RateLimit-Remaining"]) == before - 50


async def test_a_message_of_a_batch_wakes_the_workers(
    hub: Hub, org: Org, token: str, superuser: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    woken: list[str] = []
    monkeypatch.setattr(hub.app[PUBLISHER], "wake", woken.append)
    conversation = str(await make_conversation(superuser, org))
    body = {"conversation_id": conversation, "direction": "OUTBOUND", "content": "Hi", "status": "PENDING"}
    assert (await run(hub, token, {"method": "POST", "path": "messages", "body": body})).status == 200
    assert woken == ["outbox"]
