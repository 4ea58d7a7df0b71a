"""ORG-01, ORG-02 and TEAM-01: organizations are listed, made, entered, left and set."""

from __future__ import annotations

from typing import Any

import asyncpg
import orjson
import pytest

from tests.factories import Member, Org, make_member, make_org, until
from tests.server import PASSWORD, Hub


async def join(
    conn: asyncpg.Connection, member: Member, org: Org, role: str = "AGENT", *, active: bool = True
) -> None:
    await conn.execute(
        "insert into memberships (organization_id, user_id, role, is_active) values ($1, $2, $3, $4)",
        org.id, member.id, role, active,
    )  # fmt: skip


async def test_ORG_01_the_answer_of_the_document(
    hub: Hub, org: Org, owner: Member, superuser: asyncpg.Connection
) -> None:
    await superuser.execute("update organizations set suit_id = 'SUIT' where id = $1", org.id)
    left, stranger = await make_org(superuser), await make_org(superuser)
    await join(superuser, owner, left, active=False)
    name = await superuser.fetchval("select name from organizations where id = $1", org.id)
    token = await hub.token(owner.email)
    expected = {
        "organizations": [
            {"id": str(org.id), "name": name, "suitId": "SUIT", "hasAppgainCredentials": False}
        ],
        "count": 1,
    }
    for method in ("GET", "POST"):
        answer = await hub.call(method, "/functions/v1/list-organizations", token=token)
        assert answer.body == orjson.dumps(expected), "in the document's order, byte for byte"
    assert str(stranger.id) not in str(answer.json)


async def test_ORG_01_credentials_are_told_of_and_never_shown(
    hub: Hub, org: Org, owner: Member, superuser: asyncpg.Connection
) -> None:
    token = await hub.token(owner.email)
    wanted = {"suit_id": "SUIT", "settings": {"app_api_key": "canary-of-appgain"}}
    answer = await hub.patch(
        f"/rest/v1/organizations?id=eq.{org.id}", token=token, json=wanted,
        headers={"Prefer": "return=representation"},
    )  # fmt: skip
    assert answer.json[0]["settings"] == {"app_api_key": "********"}
    listed = await hub.get("/functions/v1/list-organizations", token=token)
    assert listed.json["organizations"][0]["hasAppgainCredentials"] is True
    assert "canary-of-appgain" not in str(await superuser.fetch("select a::text from audit_log a"))


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"name": "New name", "timezone": "Africa/Cairo", "locale": "ar-EG", "currency": "EGP"}, 204),
        ({"timezone": "Mars/Phobos"}, 422), ({"locale": "../x"}, 422), ({"currency": "pounds"}, 422),
        ({"name": ""}, 422), ({"id": "00000000-0000-4000-8000-000000000000"}, 403),
    ],
)  # fmt: skip
async def test_TEAM_01_settings_are_checked(
    hub: Hub, org: Org, owner: Member, change: dict[str, Any], status: int
) -> None:
    token = await hub.token(owner.email)
    answer = await hub.patch(f"/rest/v1/organizations?id=eq.{org.id}", token=token, json=change)
    assert answer.status == status, answer


async def test_TEAM_01_settings_are_for_those_who_manage_them(hub: Hub, org: Org, agent: Member) -> None:
    token = await hub.token(agent.email)
    answer = await hub.patch(f"/rest/v1/organizations?id=eq.{org.id}", token=token, json={"name": "x"})
    assert (answer.status, answer.json["error_code"]) == (403, "INSUFFICIENT_PERMISSIONS")
    assert "can_manage_settings" in str(answer.json["details"])


async def test_TEAM_01_whoever_makes_an_organization_owns_it_and_is_in_it(
    hub: Hub, org: Org, agent: Member, superuser: asyncpg.Connection
) -> None:
    token = await hub.token(agent.email)
    body = {"name": "Second", "timezone": "Africa/Cairo", "currency": "EGP", "suitId": "S2"}
    made = await hub.post("/functions/v1/create-organization", token=token, json=body)
    assert made.status == 201, made
    new = made.json["organization"]
    assert (new["name"], new["suitId"], new["role"]) == ("Second", "S2", "OWNER")
    seen = (await hub.get("/rest/v1/organizations?select=id,timezone,currency", token=token)).json
    assert seen == [{"id": new["id"], "timezone": "Africa/Cairo", "currency": "EGP"}]
    assert (await hub.get("/rest/v1/profiles?select=role,email", token=token)).json == [
        {"role": "OWNER", "email": agent.email}
    ]
    audit = await superuser.fetch(
        "select action, actor_kind, actor_id, host(ip) as ip from audit_log where organization_id = $1"
        " order by id",
        await superuser.fetchval("select id from organizations where name = 'Second'"),
    )
    assert [tuple(r) for r in audit] == [
        (action, "user", agent.id, "127.0.0.1") for action in ("organization.created", "member.joined")
    ]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "name"), ({"name": "  "}, "name"), ({"name": "a\u202eb"}, "name"), ({"name": "x" * 201}, "name"),
        ({"name": "x", "timezone": "\x00"}, "timezone"), ({"name": "x", "owner": "me"}, "owner"),
        ({"name": "x", "timezone": "Mars"}, "timezone"), ({"name": "x", "currency": "E"}, "currency"),
    ],
)  # fmt: skip
async def test_TEAM_01_bad_bodies_name_the_field(
    hub: Hub, owner: Member, body: dict[str, Any], field: str, superuser: asyncpg.Connection
) -> None:
    token = await hub.token(owner.email)
    answer = await hub.post("/functions/v1/create-organization", token=token, json=body)
    assert (answer.status, answer.json["code"]) == (422, "VALIDATION_ERROR"), answer
    assert answer.json["details"]["field"] == field
    assert await superuser.fetchval("select count(*) from organizations") == 1


async def test_TEAM_01_nobody_owns_organizations_without_end(
    hub: Hub, owner: Member, superuser: asyncpg.Connection
) -> None:
    token = await hub.token(owner.email)
    for _ in range(19):
        await join(superuser, owner, await make_org(superuser))
    await superuser.execute(
        "update memberships set role = 'OWNER', can_access_pm = true, can_manage_team = true,"
        " can_manage_settings = true where user_id = $1",
        owner.id,
    )
    answer = await hub.post("/functions/v1/create-organization", token=token, json={"name": "One more"})
    assert (answer.status, answer.json["code"]) == (409, "CONFLICT")
    key = await hub.post("/functions/v1/generate-api-key", token=token, json={"name": "k"})
    refused = await hub.post("/functions/v1/create-organization", key=key.json["api_key"], json={"name": "x"})
    assert refused.status == 401


async def test_ORG_02_rest_the_next_token_and_open_sockets_follow(
    hub: Hub, org: Org, owner: Member, superuser: asyncpg.Connection
) -> None:
    other = await make_org(superuser)
    await join(superuser, owner, other)
    document = await hub.sign_in(owner.email)
    token = document["access_token"]
    async with hub.client.ws_connect(f"{hub.url}/ws") as ws:
        await ws.send_json({"type": "hello", "token": token, "cursor": None})
        welcome = await ws.receive_json()
        assert welcome["session"]["organization_id"] == str(org.id)
        answer = await hub.post(
            "/functions/v1/switch-organization", token=token, json={"organizationId": str(other.id)}
        )
        assert answer.json["organization"]["id"] == str(other.id)
        assert answer.json["organization"]["role"] == "AGENT"
        assert [o["id"] for o in (await hub.get("/rest/v1/organizations", token=token)).json] == [
            str(other.id)
        ]
        while (await ws.receive(timeout=12)).type.name == "TEXT":
            pass
        assert ws.close_code == 4012, "come back, and start from there"
    async with hub.client.ws_connect(f"{hub.url}/ws") as ws:
        await ws.send_json({"type": "hello", "token": token, "cursor": None})
        assert (await ws.receive_json())["session"]["organization_id"] == str(other.id)
    fresh = await hub.post(
        "/auth/v1/token?grant_type=refresh_token", json={"refresh_token": document["refresh_token"]}
    )
    assert fresh.json["user"]["app_metadata"]["organization_id"] == str(other.id)
    row = await superuser.fetchrow("select * from audit_log where action = 'session.entered'")
    assert (row["organization_id"], row["actor_id"]) == (other.id, owner.id)


async def test_ORG_02_nobody_enters_where_he_is_no_member(
    hub: Hub, org: Org, owner: Member, superuser: asyncpg.Connection
) -> None:
    foreign, left = await make_org(superuser), await make_org(superuser)
    await join(superuser, owner, left, active=False)
    token = await hub.token(owner.email)
    for there in (foreign, left):
        answer = await hub.post(
            "/functions/v1/switch-organization", token=token, json={"organizationId": str(there.id)}
        )
        assert (answer.status, answer.json["code"]) == (404, "RESOURCE_NOT_FOUND")
    assert (await hub.get("/rest/v1/organizations?select=id", token=token)).json == [{"id": str(org.id)}]
    rows = await superuser.fetch("select organization_id, actor_id, details ->> 'what' as what from audit_log"
                                 " where action = 'access.refused'")  # fmt: skip
    assert {tuple(r) for r in rows} == {(org.id, owner.id, "switch-organization")}, "and none over there"


async def test_TEAM_03_one_leaves_and_the_last_owner_does_not(
    hub: Hub, org: Org, owner: Member, agent: Member, superuser: asyncpg.Connection
) -> None:
    owners, agents = await hub.token(owner.email), await hub.token(agent.email)
    refused = await hub.post("/functions/v1/leave-organization", token=owners)
    assert (refused.status, refused.json["message"]) == (403, "The last owner cannot leave or step down")
    assert (await hub.post("/functions/v1/leave-organization", token=agents, json={})).status == 200
    assert (await hub.get("/rest/v1/contacts", token=agents)).status == 401
    second = await make_member(superuser, org, "OWNER")
    assert second.id
    assert (await hub.post("/functions/v1/leave-organization", token=owners)).status == 200
    rows = await superuser.fetch(
        "select action, actor_id, target_id from audit_log where action = 'member.deactivated' order by id"
    )
    assert [tuple(r) for r in rows] == [("member.deactivated", who.id, who.id) for who in (agent, owner)]

    async def signs_in_to_nothing() -> bool:
        answer = await hub.sign_in(agent.email, PASSWORD)
        return answer["user"]["app_metadata"].get("organization_id") is None

    await until(signs_in_to_nothing, what="a sign-in without an organization")
