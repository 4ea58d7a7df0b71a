"""The event log by cursor, the failures list, and what every function shares."""

from __future__ import annotations

import asyncpg
import pytest

from hub.resources import AUTH
from tests.factories import Member, Org, make_contact, make_conversation, make_member, make_message, make_org
from tests.server import Hub


async def test_events_are_read_by_cursor(
    hub: Hub, org: Org, owner: Member, superuser: asyncpg.Connection
) -> None:
    await make_message(superuser, org, await make_conversation(superuser, org), "Hi")
    token = await hub.token(owner.email)
    seen, after, pages = [], 0, 0
    while True:
        page = (await hub.get(f"/functions/v1/events?after={after}&limit=2", token=token)).json
        seen += [e["seq"] for e in page["events"]]
        after, pages = page["seq"], pages + 1
        if not page["more"]:
            break
    assert seen == [*range(1, after + 1)]
    assert pages > 1
    assert page["head"] == after
    event = (await hub.get(f"/functions/v1/events?after={after - 1}", token=token)).json["events"][0]
    assert event.keys() == {"type", "seq", "event"}
    assert {"id", "type", "table", "op", "names", "entity_id", "actor", "at", "payload"} <= event[
        "event"
    ].keys()


async def test_a_cursor_that_means_nothing_is_told(hub: Hub, owner: Member) -> None:
    token = await hub.token(owner.email)
    page = (await hub.get("/functions/v1/events", token=token)).json
    for query in (f"after={page['head'] + 5}", f"after=0&epoch={'0' * 16}"):
        stale = (await hub.get(f"/functions/v1/events?{query}", token=token)).json
        assert (stale["resync"], stale["events"], stale["seq"]) == (True, [], page["head"])
    for query in ("after=-1", "after=x", "limit=0", "limit=5000"):
        assert (await hub.get(f"/functions/v1/events?{query}", token=token)).status == 422


async def test_nobody_sees_events_of_what_he_may_not_read(
    hub: Hub, org: Org, agent: Member, superuser: asyncpg.Connection, password_hash: str
) -> None:
    await make_contact(superuser, await make_org(superuser), first_name="Stranger")
    await make_contact(superuser, org)
    await superuser.execute(
        "insert into webhooks (organization_id, url) values ($1, 'https://x.test')", org.id
    )
    token = await hub.token(agent.email)
    page = (await hub.get("/functions/v1/events", token=token)).json
    tables = {e["event"]["table"] for e in page["events"]}
    assert "contacts" in tables
    assert "webhooks" not in tables
    assert "Stranger" not in str(page)
    assert page["seq"] == page["head"], "the cursor passes over what was left out"


async def test_failures_are_for_administrators(
    hub: Hub, org: Org, owner: Member, agent: Member, superuser: asyncpg.Connection
) -> None:
    other = await make_org(superuser)
    for owner_of in (org.id, other.id):
        await superuser.execute(
            "select app.keep_failure($1, 'WHATSAPP_CLOUD', null, 'undecodable', 'bad', '{}', $2)",
            owner_of,
            b"{secret body",
        )
    listed = await hub.get("/functions/v1/webhook-failures", token=await hub.token(owner.email))
    assert listed.json["count"] == 1
    assert listed.json["failures"][0]["reason"] == "undecodable"
    assert b"secret body" not in listed.body
    assert (await hub.get("/functions/v1/webhook-failures", token=await hub.token(agent.email))).status == 403


async def test_an_operator_sees_deliveries_of_no_organization_first(
    hub: Hub, org: Org, owner: Member, superuser: asyncpg.Connection
) -> None:
    for owner_of, body in ((None, b"{nobody"), (org.id, b"{somebody")):
        await superuser.execute(
            "select app.keep_failure($1, 'WHATSAPP_CLOUD', null, 'undecodable', 'bad', '{}', $2)",
            owner_of,
            body,
        )
    service = (await hub.app[AUTH].keyring()).project_keys().service_role
    listed = await hub.get("/functions/v1/webhook-failures", token=service)
    assert [f["organization_id"] for f in listed.json["failures"]] == [None, str(org.id)]
    assert b"nobody" not in listed.body
    theirs = await hub.get("/functions/v1/webhook-failures", token=await hub.token(owner.email))
    assert theirs.json["count"] == 1
    assert "organization_id" not in theirs.json["failures"][0]


async def test_C_37_readers_answer_post_as_well(hub: Hub, owner: Member) -> None:
    token = await hub.token(owner.email)
    for method in ("GET", "POST"):
        answer = await hub.call(method, "/functions/v1/list-organizations?forceFunctionRegion=x", token=token)
        assert answer.json["count"] == 1


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "insert-message", 405, "METHOD_NOT_ALLOWED"),
        ("PATCH", "list-organizations", 405, "METHOD_NOT_ALLOWED"),
        ("POST", "no-such-function", 404, "RESOURCE_NOT_FOUND"),
        ("POST", "insert-message/deeper", 404, "RESOURCE_NOT_FOUND"),
    ],
)  # fmt: skip
async def test_wrong_methods_and_names(
    hub: Hub, owner: Member, method: str, path: str, status: int, code: str
) -> None:
    answer = await hub.call(method, f"/functions/v1/{path}", token=await hub.token(owner.email))
    assert (answer.status, answer.json["code"]) == (status, code)


async def test_a_user_without_an_organization(hub: Hub, owner: Member, superuser: asyncpg.Connection) -> None:
    await superuser.execute("update memberships set is_active = false where user_id = $1", owner.id)
    await superuser.execute("delete from auth.sessions")
    token = await hub.token(owner.email)
    assert (await hub.get("/functions/v1/list-organizations", token=token)).json == {
        "organizations": [],
        "count": 0,
    }
    assert (await hub.get("/functions/v1/events", token=token)).status == 403
    assert (await hub.get("/rest/v1/contacts", token=token)).json == []
    assert (await hub.post("/rest/v1/contacts", token=token, json={"first_name": "x"})).status == 403


async def test_switching_is_for_users(
    hub: Hub, org: Org, owner: Member, superuser: asyncpg.Connection
) -> None:
    token = await hub.token(owner.email)
    key = (await hub.post("/functions/v1/generate-api-key", token=token, json={"name": "x"})).json["api_key"]
    answer = await hub.post(
        "/functions/v1/switch-organization", key=key, json={"organizationId": str(org.id)}
    )
    assert answer.status == 401
    assert (await hub.post("/functions/v1/switch-organization", token=token, json={})).json["details"][
        "field"
    ] == "organizationId"


async def test_a_neighbours_session_is_not_moved(
    hub: Hub, owner: Member, superuser: asyncpg.Connection, password_hash: str
) -> None:
    stranger = await make_member(superuser, await make_org(superuser), "OWNER", password_hash)
    moved = await superuser.fetchval(
        "select app.switch_organization((select id from auth.sessions limit 1), $1, $2, null, null)",
        stranger.id,
        owner.organization_id,
    )
    assert moved is False
