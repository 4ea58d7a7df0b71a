"""TEAM-01, TEAM-03, TEAM-05 and T-PRF: members, their roles and six permissions, and who may change them."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest

from hub.domain.permissions import PERMISSIONS, ROLE_DEFAULTS
from tests.factories import Member, Org, insert, make_member, make_org, until
from tests.server import Answer, Hub


async def change(hub: Hub, token: str, member: Member, **body: Any) -> Answer:
    sent = {"user_id": str(member.id), **body}
    return await hub.post("/functions/v1/update-member", token=token, json=sent)


async def flags(conn: asyncpg.Connection, member: Member) -> set[str]:
    row = await conn.fetchrow("select * from memberships where user_id = $1", member.id)
    return {p for p in PERMISSIONS if row[p]}


async def test_TEAM_05_role_permissions_and_teams_in_one_change(
    hub: Hub, org: Org, owner: Member, agent: Member, superuser: asyncpg.Connection
) -> None:
    token = await hub.token(owner.email)
    team = await insert(superuser, "teams", {"organization_id": org.id, "name": "Sales"})
    answer = await change(
        hub, token, agent, role="ADMIN", permissions={"can_access_pm": False}, team_ids=[str(team)]
    )
    assert answer.status == 200, answer
    member = answer.json["member"]
    assert (member["role"], member["team_ids"]) == ("ADMIN", [str(team)])
    assert member["permissions"] == {p: p != "can_access_pm" for p in PERMISSIONS}
    rows = await superuser.fetch(
        "select action, actor_id, target_id, details from audit_log where action like 'member.%'"
        " or action like 'team.%' order by id"
    )
    assert [(r["action"], r["actor_id"], r["target_id"]) for r in rows] == [
        ("member.role_changed", owner.id, agent.id), ("member.permissions_changed", owner.id, agent.id),
        ("team.member_added", owner.id, agent.id),
    ]  # fmt: skip
    assert '"role": "AGENT"' in rows[0]["details"] and '"can_access_pm": false' in rows[1]["details"]
    assert (await change(hub, token, agent, team_ids=[])).json["member"]["team_ids"] == []


@pytest.mark.parametrize("how", ["function", "profiles"])
async def test_TEAM_05_a_role_alone_brings_its_permissions_along(
    hub: Hub, owner: Member, agent: Member, superuser: asyncpg.Connection, how: str
) -> None:
    token = await hub.token(owner.email)
    for role in ("ADMIN", "OWNER", "AGENT"):
        if how == "function":
            assert (await change(hub, token, agent, role=role)).status == 200
        else:
            sent = await hub.patch(f"/rest/v1/profiles?id=eq.{agent.id}", token=token, json={"role": role})
            assert sent.status == 204, sent
        assert await flags(superuser, agent) == ROLE_DEFAULTS[role], role  # type: ignore[index]


async def test_TEAM_05_permissions_that_are_named_with_a_role_are_all_that_change(
    hub: Hub, owner: Member, agent: Member, superuser: asyncpg.Connection
) -> None:
    """As columns of a table, also when one is named as it is."""
    path, token = f"/rest/v1/memberships?user_id=eq.{agent.id}", await hub.token(owner.email)
    sent = await hub.patch(path, token=token, json={"role": "ADMIN", "can_access_pm": False})
    assert sent.status == 204, sent
    assert await flags(superuser, agent) == ROLE_DEFAULTS["AGENT"]
    assert (await hub.patch(path, token=token, json={"role": "AGENT"})).status == 204
    assert (await hub.patch(path, token=token, json={"role": "ADMIN"})).status == 204
    assert await flags(superuser, agent) == ROLE_DEFAULTS["ADMIN"]


async def test_X10_the_database_knows_the_roles_as_the_permission_table_does(
    superuser: asyncpg.Connection,
) -> None:
    for role, granted in ROLE_DEFAULTS.items():
        assert set(await superuser.fetchval("select app.role_defaults($1)", role)) == granted


async def test_TEAM_05_a_reduced_administrator_hands_on_what_he_holds(
    hub: Hub, org: Org, agent: Member, superuser: asyncpg.Connection, password_hash: str
) -> None:
    admin = await make_member(superuser, org, "ADMIN", password_hash, can_manage_settings=False)
    token = await hub.token(admin.email)
    refused = await change(hub, token, agent, permissions={"can_manage_settings": True})
    assert (refused.status, refused.json["code"]) == (403, "INSUFFICIENT_PERMISSIONS")
    assert "can_manage_settings" in refused.json["message"]
    assert (await change(hub, token, agent, role="ADMIN")).status == 200
    assert await flags(superuser, agent) == set(PERMISSIONS) - {"can_manage_settings"}


#: Who, whom (None: himself), what, and whether it is refused; the same under /rest/v1.
ATTEMPTS: list[tuple[str, dict[str, bool], str | None, dict[str, Any], bool]] = [
    ("AGENT", {}, None, {"role": "ADMIN"}, True),
    ("AGENT", {}, "AGENT", {"role": "ADMIN"}, True),
    ("AGENT", {}, None, {"permissions": {"can_manage_team": True}}, True),
    ("AGENT", {"can_manage_team": True}, None, {"role": "ADMIN"}, True),
    ("AGENT", {"can_manage_team": True}, None, {"permissions": {"can_manage_settings": True}}, True),
    ("AGENT", {"can_manage_team": True}, "ADMIN", {"is_active": False}, True),
    ("AGENT", {"can_manage_team": True}, "AGENT", {"role": "ADMIN"}, True),
    ("AGENT", {"can_manage_team": True}, "AGENT", {"permissions": {"can_access_pm": True}}, True),
    ("AGENT", {"can_manage_team": True}, "AGENT", {"permissions": {"can_access_crm": False}}, False),
    ("ADMIN", {"can_access_pm": False}, None, {"permissions": {"can_access_pm": True}}, True),
    ("ADMIN", {"can_access_pm": False}, None,
     {"role": "AGENT", "permissions": {"can_access_pm": True}}, True),
    ("ADMIN", {}, None, {"role": "OWNER"}, True),
    ("ADMIN", {}, None, {"visibility": "mine"}, True),
    ("ADMIN", {}, "AGENT", {"role": "OWNER"}, True),
    ("ADMIN", {}, "OWNER", {"role": "AGENT"}, True),
    ("ADMIN", {}, "OWNER", {"is_active": False}, True),
    ("ADMIN", {}, "AGENT", {"role": "ADMIN"}, False),
    ("ADMIN", {}, "ADMIN", {"is_active": False}, False),
    ("OWNER", {}, "AGENT", {"role": "OWNER"}, False),
    ("OWNER", {}, None, {"permissions": {"can_access_pm": False}}, True),
]  # fmt: skip


@pytest.mark.parametrize(("role", "held", "whom", "body", "refused"), ATTEMPTS)
async def test_X10_self_promotion_and_what_is_above_ones_own_role(
    hub: Hub, org: Org, owner: Member, superuser: asyncpg.Connection, password_hash: str,
    role: Any, held: dict[str, bool], whom: Any, body: dict[str, Any], refused: bool,
) -> None:  # fmt: skip
    """Through the function and as a table; what was refused is in the audit log."""
    actor = await make_member(superuser, org, role, password_hash, **held)
    target = actor if whom is None else await make_member(superuser, org, whom, password_hash)
    token = await hub.token(actor.email)
    before = await superuser.fetchval("select m::text from memberships m where user_id = $1", target.id)
    flat = {**{k: v for k, v in body.items() if k != "permissions"}, **body.get("permissions", {})}
    answers = [
        await hub.patch(f"/rest/v1/memberships?user_id=eq.{target.id}", token=token, json=flat),
        await change(hub, token, target, **body),
    ]
    if not refused:
        assert [a.status for a in answers] == [204, 200], answers
        return
    wanted = {403} if role != "OWNER" else {403, 422}
    assert {a.status for a in answers} <= wanted, answers
    assert (
        await superuser.fetchval("select m::text from memberships m where user_id = $1", target.id) == before
    )
    if role != "OWNER":
        noted = "select count(*) from audit_log where action = 'access.refused' and actor_id = $1"
        await until(lambda: superuser.fetchval(noted, actor.id), what="the refusal in the audit log")


async def test_X10_roles_of_another_organization(
    hub: Hub, org: Org, owner: Member, superuser: asyncpg.Connection, password_hash: str
) -> None:
    """Neither as an owner here, nor by naming the other organization, nor as an owner of one that he is not
    in at the moment."""
    elsewhere = await make_org(superuser)
    theirs = await make_member(superuser, elsewhere, "AGENT")
    both = {"organization_id": elsewhere.id, "user_id": owner.id, "role": "OWNER"}
    await insert(superuser, "memberships", {**both, **dict.fromkeys(PERMISSIONS, True)})
    token = await hub.token(owner.email)
    await hub.post("/functions/v1/switch-organization", token=token, json={"organizationId": str(org.id)})
    before = await superuser.fetch("select m::text from memberships m where organization_id = $1 order by 1",
                                   elsewhere.id)  # fmt: skip
    answer = await change(hub, token, theirs, role="OWNER")
    assert (answer.status, answer.json["code"]) == (404, "RESOURCE_NOT_FOUND")
    for path in (f"memberships?user_id=eq.{theirs.id}", f"profiles?id=eq.{theirs.id}",
                 f"memberships?organization_id=eq.{elsewhere.id}"):  # fmt: skip
        sent = await hub.patch(f"/rest/v1/{path}", token=token, json={"role": "ADMIN"},
                               headers={"Prefer": "return=representation"})  # fmt: skip
        assert (sent.status, sent.json) == (200, []), path
    moved = {"organization_id": str(elsewhere.id)}
    sent = await hub.patch(f"/rest/v1/memberships?user_id=eq.{owner.id}", token=token, json=moved)
    assert sent.status == 403
    made = {"organization_id": str(elsewhere.id), "user_id": str(owner.id), "role": "OWNER"}
    assert (await hub.post("/rest/v1/memberships", token=token, json=made)).status == 403
    after = await superuser.fetch("select m::text from memberships m where organization_id = $1 order by 1",
                                  elsewhere.id)  # fmt: skip
    assert after == before
    noted = "select details ->> 'what' from audit_log where organization_id = $1 and target_id = $2"
    assert await until(lambda: superuser.fetchval(noted, org.id, theirs.id)) == "update-member"
    assert await superuser.fetchval("select count(*) from audit_log where organization_id = $1 and action ="
                                    " 'access.refused'", elsewhere.id) == 0  # fmt: skip


async def test_X10_teams_of_another_organization(
    hub: Hub, org: Org, owner: Member, agent: Member, superuser: asyncpg.Connection
) -> None:
    elsewhere = await make_org(superuser)
    team = await insert(superuser, "teams", {"organization_id": elsewhere.id, "name": "Theirs"})
    answer = await change(hub, await hub.token(owner.email), agent, team_ids=[str(team)])
    assert answer.status == 409, answer
    assert await superuser.fetchval("select count(*) from team_members") == 0


async def test_T_PRF_others_names_are_for_those_who_manage_the_team(
    hub: Hub, org: Org, owner: Member, agent: Member, superuser: asyncpg.Connection, password_hash: str
) -> None:
    other = await make_member(superuser, org, "AGENT", password_hash)
    agents, owners = await hub.token(agent.email), await hub.token(owner.email)
    mine, his = (f"/rest/v1/profiles?id=eq.{m.id}" for m in (agent, other))
    assert (await hub.patch(mine, token=agents, json={"first_name": "Me"})).status == 204
    for change_ in ({"first_name": "Fool"}, {"avatar_url": "https://x.test/a.png"}, {"availability": "away"}):
        assert (await hub.patch(his, token=agents, json=change_)).status == 403, change_
    assert (await hub.patch(his, token=owners, json={"first_name": "John", "last_name": "Doe"})).status == 204
    for path in (mine, f"/rest/v1/memberships?user_id=eq.{agent.id}"):
        sent = await hub.patch(path, token=agents, json={"email": owner.email})
        assert (sent.status, sent.json["error_code"]) == (403, "INSUFFICIENT_PERMISSIONS"), path
    sent = await hub.patch(
        f"/rest/v1/memberships?user_id=eq.{agent.id}", token=owners, json={"team_ids": [str(org.id)]}
    )
    assert sent.status == 403


async def test_TEAM_01_whoever_is_deactivated_is_out_at_once_and_his_history_stays(
    hub: Hub, org: Org, owner: Member, agent: Member, superuser: asyncpg.Connection
) -> None:
    """On the hub that did it with the very next request; the socket within seconds. The refresh token is
    over as well."""
    session = await hub.sign_in(agent.email)
    token = session["access_token"]
    note = {"content": "He was here", "contact_id": str(
        (await hub.post("/rest/v1/contacts?select=id", token=token, json={"first_name": "C"},
                        headers={"Prefer": "return=representation"})).json[0]["id"])}  # fmt: skip
    assert (await hub.post("/rest/v1/notes", token=token, json=note)).status == 201
    async with hub.client.ws_connect(f"{hub.url}/ws") as ws:
        await ws.send_json({"type": "hello", "token": token, "cursor": None})
        assert (await ws.receive_json())["type"] == "welcome"
        answer = await change(hub, await hub.token(owner.email), agent, is_active=False)
        assert answer.json["member"]["is_active"] is False
        assert (await hub.get("/rest/v1/contacts", token=token)).status == 401
        while (await ws.receive(timeout=12)).type.name == "TEXT":
            pass
        assert ws.close_code == 4403
    again = await hub.post(
        "/auth/v1/token?grant_type=refresh_token", json={"refresh_token": session["refresh_token"]}
    )
    assert again.status == 400
    owners = await hub.token(owner.email)
    assert len((await hub.get("/rest/v1/notes?select=content", token=owners)).json) == 1
    members = (await hub.get("/functions/v1/list-members", token=owners)).json["members"]
    assert [m["is_active"] for m in members] == [True, False], "and is still known by name"


async def test_TEAM_03_two_owners_who_leave_at_once_leave_one_after_the_other(
    hub: Hub, org: Org, owner: Member, superuser: asyncpg.Connection, password_hash: str
) -> None:
    for _ in range(5):
        second = await make_member(superuser, org, "OWNER", password_hash)
        tokens = [await hub.token(who.email) for who in (owner, second)]
        answers = await asyncio.gather(
            *(
                hub.patch(f"/rest/v1/profiles?id=eq.{who.id}", token=token, json={"role": "AGENT"})
                for who, token in zip((owner, second), tokens, strict=True)
            )
        )
        assert sorted(a.status for a in answers) == [204, 403], answers
        await superuser.execute("delete from memberships where user_id = $1", second.id)
        await superuser.execute(
            "update memberships set role = 'OWNER', can_access_pm = true, can_manage_team = true,"
            " can_manage_settings = true where user_id = $1",
            owner.id,
        )


async def test_TEAM_03_the_last_owner_is_not_deleted(
    hub: Hub, org: Org, owner: Member, superuser: asyncpg.Connection
) -> None:
    from hub.resources import AUTH

    service = (await hub.app[AUTH].keyring()).project_keys().service_role
    answer = await hub.delete(f"/rest/v1/memberships?user_id=eq.{owner.id}", token=service)
    assert (answer.status, answer.json["error_code"]) == (403, "INSUFFICIENT_PERMISSIONS"), answer


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"role": "KING"}, "role"), ({"permissions": {"can_fly": True}}, "permissions.can_fly"),
        ({"visibility": "some"}, "visibility"), ({"user_id": "me"}, "user_id"), ({"rolle": "x"}, "rolle"),
        ({"team_ids": ["00000000-0000-4000-8000-000000000000"] * 101}, "team_ids"),
    ],
)  # fmt: skip
async def test_TEAM_05_bad_bodies_name_the_field(
    hub: Hub, owner: Member, agent: Member, body: dict[str, Any], field: str
) -> None:
    answer = await change(hub, await hub.token(owner.email), agent, **body)
    assert (answer.status, answer.json["code"]) == (422, "VALIDATION_ERROR"), answer
    assert answer.json["details"]["field"] == field
