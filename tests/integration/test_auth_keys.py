"""AUTH-01 to AUTH-05 and KEY-01: project keys, organization keys, and what each opens."""

from __future__ import annotations

import base64

import asyncpg
import pytest

from tests.factories import Member, Org, make_contact, make_org, until
from tests.server import Hub


async def make_key(hub: Hub, token: str, **body: object) -> str:
    answer = await hub.post("/functions/v1/generate-api-key", token=token, json={"name": "Shop", **body})
    assert answer.status == 200, answer
    key: str = answer.json["api_key"]
    return key


async def test_KEY_01_the_answer_of_the_document(hub: Hub, owner: Member) -> None:
    token = await hub.token(owner.email)
    answer = await hub.post(
        "/functions/v1/generate-api-key",
        token=token,
        json={
            "name": "External System Integration",
            "expires_in_days": 365,
            "permissions": {"can_send_messages": True, "can_read_messages": False},
        },
    )
    assert answer.json.keys() == {"success", "api_key", "key_info", "warning"}
    assert answer.json["key_info"].keys() == {"id", "name", "key_prefix", "expires_at", "created_at"}
    assert answer.json["api_key"].startswith(answer.json["key_info"]["key_prefix"].removesuffix("..."))


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "name"), ({"name": " "}, "name"), ({"name": "x", "expires_in_days": 0}, "expires_in_days"),
        ({"name": "x", "permissions": {"can_fly": True}}, "permissions.can_fly"),
        ({"name": "x", "nmae": "y"}, "nmae"),
        ({"name": "x", "expires_in_days": "soon"}, "expires_in_days"),
    ],
)  # fmt: skip
async def test_KEY_01_bad_bodies_name_the_field(
    hub: Hub, owner: Member, body: dict[str, object], field: str
) -> None:
    answer = await hub.post("/functions/v1/generate-api-key", token=await hub.token(owner.email), json=body)
    assert (answer.status, answer.json["code"]) == (422, "VALIDATION_ERROR")
    assert answer.json["details"]["field"] == field


async def test_KEY_01_agents_make_no_keys(hub: Hub, agent: Member, superuser: asyncpg.Connection) -> None:
    token = await hub.token(agent.email)
    refused = await hub.post("/functions/v1/generate-api-key", token=token, json={"name": "x"})
    assert (refused.status, refused.json["code"]) == (403, "INSUFFICIENT_PERMISSIONS")
    assert refused.json["details"] == {"missing": ["can_manage_settings"]}


async def test_AUTH_05_a_key_is_shown_once_and_kept_hashed(
    hub: Hub, owner: Member, superuser: asyncpg.Connection
) -> None:
    key = await make_key(hub, await hub.token(owner.email))
    tables = await superuser.fetch(
        "select schemaname || '.' || tablename as t from pg_tables"
        " where schemaname in ('app', 'public', 'auth')"
    )
    for row in tables:
        dump = str(await superuser.fetch(f"select x::text from {row['t']} x"))
        for spelling in (key, key[11:], key.encode().hex(), base64.b64encode(key.encode()).decode()):
            assert spelling not in dump


async def test_C_05_permissions_of_a_key(
    hub: Hub, org: Org, owner: Member, superuser: asyncpg.Connection
) -> None:
    token = await hub.token(owner.email)
    await make_contact(superuser, org)
    sender = await make_key(hub, token)
    reader = await make_key(hub, token, permissions={"can_read_messages": True})
    for path in ("contacts", "conversations", "messages"):
        assert (await hub.get(f"/rest/v1/{path}", key=reader)).status == 200
        assert (await hub.get(f"/rest/v1/{path}", token=reader)).status == 200, "AUTH-01: also as bearer"
        refused = await hub.get(f"/rest/v1/{path}", key=sender)
        assert (refused.status, refused.json["error_code"]) == (403, "INSUFFICIENT_PERMISSIONS")
    assert len((await hub.get("/rest/v1/contacts", key=reader)).json) == 1
    assert (await hub.post("/rest/v1/contacts", key=reader, json={"first_name": "x"})).status == 403
    body = {"phone": "201001383533", "content": "x", "direction": "outgoing", "status": "sent"}
    assert (await hub.post("/functions/v1/insert-message", key=reader, json=body)).status == 403
    assert (await hub.post("/functions/v1/insert-message", key=sender, json=body)).status == 200


async def test_a_key_cannot_be_given_more_than_its_maker_has(
    hub: Hub, owner: Member, superuser: asyncpg.Connection
) -> None:
    await superuser.execute(
        "update memberships set role = 'ADMIN', can_access_pm = false where user_id = $1", owner.id
    )
    token = await hub.token(owner.email)
    refused = await hub.post(
        "/functions/v1/generate-api-key",
        token=token,
        json={"name": "x", "permissions": {"can_access_pm": True}},
    )
    assert refused.json["details"] == {"missing": ["can_access_pm"]}


@pytest.mark.parametrize("bad", ["cg_", "cg_" + "a" * 43, "nonsense", "cg_" + "é" * 43])
async def test_ERR_06_unknown_keys(hub: Hub, bad: str) -> None:
    answer = await hub.get("/functions/v1/list-organizations", key=bad)
    assert (answer.status, answer.json["code"]) == (401, "INVALID_API_KEY")


async def test_X09_a_key_is_compared_whole(hub: Hub, owner: Member) -> None:
    """What begins like a key of ours is found by its prefix; every other character counts as well."""
    key = await make_key(hub, await hub.token(owner.email))
    for at in (11, 25, len(key) - 1):
        other = key[:at] + ("a" if key[at] != "a" else "b") + key[at + 1 :]
        assert (await hub.get("/functions/v1/list-organizations", key=other)).status == 401
    assert (await hub.get("/functions/v1/list-organizations", key=key)).status == 200


async def test_ERR_06_revoked_and_expired_keys(
    hub: Hub, owner: Member, superuser: asyncpg.Connection
) -> None:
    token = await hub.token(owner.email)
    key, other = await make_key(hub, token), await make_key(hub, token, expires_in_days=1)
    assert (await hub.get("/functions/v1/list-organizations", key=key)).json["count"] == 1
    await superuser.execute("update api_keys set revoked_at = now() where key_prefix = $1", key[:11])
    await superuser.execute(
        "update api_keys set expires_at = now() - interval '1 s' where key_prefix = $1", other[:11]
    )

    async def refused() -> bool:
        return (await hub.get("/functions/v1/list-organizations", key=key)).status == 401

    await until(refused, what="the revoked key to be refused")
    assert (await hub.get("/functions/v1/list-organizations", key=other)).json["code"] == "INVALID_API_KEY"


async def test_AUTH_02_the_anon_key_reads_nothing_and_writes_nothing(
    hub: Hub, org: Org, superuser: asyncpg.Connection
) -> None:
    await make_contact(superuser, org)
    anon = (await hub.get("/config.json")).json["anon_key"]
    for options in ({"headers": {"apikey": anon}}, {"headers": {"apikey": anon}, "token": anon}):
        answer = await hub.get("/rest/v1/contacts", **options)
        assert (answer.status, answer.json) == (200, [])
    assert (await hub.get(f"/rest/v1/contacts?apikey={anon}")).json == []
    refused = await hub.post("/rest/v1/contacts", token=anon, json={"first_name": "x"})
    assert (refused.status, refused.json["code"], refused.json["error_code"]) == (
        401,
        "42501",
        "AUTHENTICATION_FAILED",
    )
    assert (await hub.get("/functions/v1/events", token=anon)).status == 401


async def test_AUTH_02_supabase_headers_work(hub: Hub, owner: Member) -> None:
    anon = (await hub.get("/config.json")).json["anon_key"]
    headers = {"apikey": anon, "X-Client-Info": "supabase-js/2", "Accept-Profile": "public"}
    token = await hub.token(owner.email)
    assert (await hub.get("/rest/v1/contacts", token=token, headers=headers)).status == 200
    bad = await hub.get("/rest/v1/contacts", token=token, headers={**headers, "apikey": "nonsense"})
    assert bad.status == 401
    assert (await hub.get("/rest/v1/contacts", token="garbage", headers=headers)).json["code"] == "PGRST301"


async def test_1_3_opaque_project_keys_stand_for_the_same(
    hub: Hub, org: Org, owner: Member, superuser: asyncpg.Connection
) -> None:
    """AUTH-02, AUTH-03: `sb_publishable_…` is the anon key and `sb_secret_…` the service_role key, as apikey
    and as bearer; beside a user's token they leave the user who he is. No other text of that shape opens
    anything."""
    from hub.resources import AUTH

    await make_contact(superuser, org)
    keys = (await hub.app[AUTH].keyring()).project_keys()
    assert keys.publishable.startswith("sb_publishable_") and keys.secret.startswith("sb_secret_")
    token = await hub.token(owner.email)
    for key, seen in ((keys.publishable, 0), (keys.secret, 1)):
        header = {"headers": {"apikey": key}}
        for options in (header, {**header, "token": key}, {"token": key}):
            answer = await hub.get("/rest/v1/contacts", **options)
            assert (answer.status, len(answer.json)) == (200, seen), options
        mine = await hub.get("/rest/v1/contacts", token=token, headers={"apikey": key})
        assert len(mine.json) == 1
        assert len((await hub.get(f"/rest/v1/contacts?apikey={key}")).json) == seen
    refused = await hub.post("/rest/v1/contacts", token=keys.publishable, json={"first_name": "x"})
    assert (refused.status, refused.json["code"]) == (401, "42501")
    for wrong in (keys.secret[:-1], keys.secret + "x", keys.secret.upper(), "sb_secret_", "sb_",
                  keys.publishable.replace("publishable", "secret")):  # fmt: skip
        for options in ({"headers": {"apikey": wrong}}, {"token": wrong}):
            answer = await hub.get("/rest/v1/contacts", **options)
            assert (answer.status, answer.json["code"]) == (401, "PGRST301"), (wrong, answer)


async def test_the_service_role_sees_all_organizations(
    hub: Hub, org: Org, superuser: asyncpg.Connection
) -> None:
    from hub.resources import AUTH

    await make_contact(superuser, org)
    await make_contact(superuser, await make_org(superuser))
    service = (await hub.app[AUTH].keyring()).project_keys().service_role
    assert len((await hub.get("/rest/v1/contacts", token=service)).json) == 2


async def test_no_credentials(hub: Hub) -> None:
    for path in ("/rest/v1/contacts", "/functions/v1/list-organizations"):
        answer = await hub.get(path)
        assert (answer.status, answer.json["error_code"]) == (401, "AUTHENTICATION_FAILED")
        assert answer.headers["WWW-Authenticate"] == "Bearer"
