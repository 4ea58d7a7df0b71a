"""AUTH-07: signing in, refreshing, signing out, the cookie of the web app, and the limits that fail
closed."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any
from uuid import UUID

import asyncpg
import jwt
import pytest

from hub import clock
from hub.db.pool import Database
from hub.resources import AUTH
from tests.factories import Member, Org, make_member, make_org, until
from tests.server import PASSWORD, Answer, Hub

TOKEN = "/auth/v1/token?grant_type="


async def refresh(hub: Hub, token: str, **options: Any) -> Answer:
    return await hub.post(f"{TOKEN}refresh_token", json={"refresh_token": token}, **options)


async def test_AUTH_07_password_gives_a_gotrue_session(hub: Hub, org: Org, owner: Member) -> None:
    session = await hub.sign_in(owner.email.upper())
    assert session["token_type"] == "bearer"
    assert session["expires_in"] == 3600
    assert {"access_token", "refresh_token", "expires_at", "user"} <= session.keys()
    user = session["user"]
    assert user["email"] == owner.email
    assert user["app_metadata"] == {
        "provider": "email",
        "providers": ["email"],
        "organization_id": str(org.id),
        "org_role": "OWNER",
    }
    assert user["identities"][0]["user_id"] == user["id"] == str(owner.id)
    assert user["created_at"].endswith("Z")
    again = await hub.get("/auth/v1/user", token=session["access_token"])
    assert again.json["id"] == str(owner.id)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"email": "user@example.test", "password": "wrong horse"}, "invalid_credentials"),
        ({"email": "nobody@example.test", "password": PASSWORD}, "invalid_credentials"),
        ({"email": "user@example.test"}, "validation_failed"),
        ({}, "validation_failed"),
        ({"email": "a\u0000@b", "password": "x"}, "invalid_credentials"),
    ],
)
async def test_refused_sign_ins(hub: Hub, body: dict[str, str], code: str) -> None:
    answer = await hub.post(f"{TOKEN}password", json=body)
    assert answer.status == 400
    assert answer.json["error_code"] == answer.json["code"] == code
    assert answer.json["msg"] == answer.json["message"]


async def test_banned_and_unconfirmed_users_stay_outside(
    hub: Hub, owner: Member, superuser: asyncpg.Connection
) -> None:
    await superuser.execute(
        "update auth.users set banned_until = now() + interval '1 day' where id = $1", owner.id
    )
    banned = await hub.post(f"{TOKEN}password", json={"email": owner.email, "password": PASSWORD})
    assert banned.json["code"] == "user_banned"
    await superuser.execute(
        "update auth.users set banned_until = null, email_confirmed_at = null where id = $1", owner.id
    )
    unconfirmed = await hub.post(f"{TOKEN}password", json={"email": owner.email, "password": PASSWORD})
    assert unconfirmed.json["code"] == "email_not_confirmed"


async def test_other_grants_are_refused(hub: Hub) -> None:
    answer = await hub.post(f"{TOKEN}id_token", json={})
    assert (answer.status, answer.json["code"]) == (400, "invalid_credentials")


async def test_failures_delay_and_success_clears(
    hub: Hub, owner: Member, superuser: asyncpg.Connection
) -> None:
    for _ in range(10):
        await hub.post(f"{TOKEN}password", json={"email": owner.email, "password": "wrong horse"})
    delayed = await hub.post(f"{TOKEN}password", json={"email": owner.email, "password": PASSWORD})
    assert (delayed.status, delayed.json["code"]) == (429, "over_request_rate_limit")
    assert int(delayed.headers["Retry-After"]) >= 1
    await superuser.execute("update auth.sign_in_failures set last_at = now() - interval '10 minutes'")
    await hub.sign_in(owner.email)
    left = await superuser.fetchval(
        "select count(*) from auth.sign_in_failures where account = $1", owner.email
    )
    assert left == 0


async def test_delays_grow_but_never_lock(superuser: asyncpg.Connection) -> None:
    for failures, most in ((10, 1), (14, 16), (40, 900), (10_000, 900)):
        await superuser.execute("truncate auth.sign_in_failures")
        await superuser.execute(
            "insert into auth.sign_in_failures values ('a@b.c', '10.0.0.0/24', $1, now())", failures
        )
        delay = await superuser.fetchval("select app.sign_in_delay('a@b.c', '10.0.0.0/24')")
        assert 0 < delay <= most
    assert await superuser.fetchval("select app.sign_in_delay('other@b.c', '10.0.0.0/24')") == 0


async def test_a_refresh_token_is_used_once(hub: Hub, owner: Member) -> None:
    first = await hub.sign_in(owner.email)
    second = (await refresh(hub, first["refresh_token"])).json
    assert second["refresh_token"] != first["refresh_token"]
    assert second["user"]["id"] == str(owner.id)
    third = (await refresh(hub, second["refresh_token"])).json
    assert third["access_token"]


async def test_a_lost_answer_gets_the_same_child_again(
    hub: Hub, owner: Member, superuser: asyncpg.Connection
) -> None:
    session = await hub.sign_in(owner.email)
    child = (await refresh(hub, session["refresh_token"])).json["refresh_token"]
    # long after the window: still the parent of the active one
    await superuser.execute(
        "update auth.refresh_tokens set used_at = used_at - interval '1 hour' where used_at is not null"
    )
    assert (await refresh(hub, session["refresh_token"])).json["refresh_token"] == child


async def test_parallel_refreshes_get_one_child(hub: Hub, owner: Member) -> None:
    session = await hub.sign_in(owner.email)
    answers = await asyncio.gather(*(refresh(hub, session["refresh_token"]) for _ in range(8)))
    assert {a.status for a in answers} == {200}
    assert len({a.json["refresh_token"] for a in answers}) == 1


async def test_an_old_refresh_token_ends_the_family(
    hub: Hub, owner: Member, superuser: asyncpg.Connection
) -> None:
    first = await hub.sign_in(owner.email)
    second = (await refresh(hub, first["refresh_token"])).json
    third = (await refresh(hub, second["refresh_token"])).json
    await superuser.execute(
        "update auth.refresh_tokens set used_at = used_at - interval '1 hour' where used_at is not null"
    )
    stolen = await refresh(hub, first["refresh_token"])
    assert (stolen.status, stolen.json["code"]) == (400, "refresh_token_already_used")
    assert (await refresh(hub, third["refresh_token"])).json["code"] == "session_not_found"
    assert (await hub.get("/auth/v1/user", token=third["access_token"])).status == 403


async def test_unknown_refresh_tokens(hub: Hub) -> None:
    for token in ("", "short", "x" * 43, "ü" * 43):
        answer = await refresh(hub, token)
        assert (answer.status, answer.json["code"]) == (400, "refresh_token_not_found")


async def test_refresh_tokens_are_kept_hashed(hub: Hub, owner: Member, superuser: asyncpg.Connection) -> None:
    session = await hub.sign_in(owner.email)
    child = (await refresh(hub, session["refresh_token"])).json["refresh_token"]
    dump = str(await superuser.fetch("select r.*::text from auth.refresh_tokens r"))
    assert session["refresh_token"] not in dump
    assert child not in dump


async def test_signing_out_bites_at_once_here(hub: Hub, owner: Member) -> None:
    session = await hub.sign_in(owner.email)
    token = session["access_token"]
    assert (await hub.get("/rest/v1/contacts", token=token)).status == 200
    assert (await hub.post("/auth/v1/logout?scope=local", token=token)).status == 204
    assert (await hub.get("/rest/v1/contacts", token=token)).status == 401
    assert (await hub.get("/auth/v1/user", token=token)).json["code"] == "session_not_found"
    assert (await refresh(hub, session["refresh_token"])).json["code"] == "session_not_found"


async def test_scopes_of_signing_out(hub: Hub, owner: Member) -> None:
    one, two, three = [(await hub.sign_in(owner.email))["access_token"] for _ in range(3)]
    await hub.post("/auth/v1/logout?scope=others", token=one)
    assert [(await hub.get("/auth/v1/user", token=t)).status for t in (one, two, three)] == [200, 403, 403]
    four = (await hub.sign_in(owner.email))["access_token"]
    await hub.post("/auth/v1/logout", token=four)
    assert [(await hub.get("/auth/v1/user", token=t)).status for t in (one, four)] == [403, 403]
    assert (await hub.post("/auth/v1/logout?scope=nonsense", token=one)).status == 400


async def test_the_web_app_gets_its_refresh_token_in_a_cookie_only(hub: Hub, owner: Member) -> None:
    web = {"X-Hub-Client": "web"}
    answer = await hub.post(
        f"{TOKEN}password", json={"email": owner.email, "password": PASSWORD}, headers=web
    )
    assert answer.json["refresh_token"] == ""
    cookie = answer.headers["Set-Cookie"]
    assert cookie.startswith("hub-refresh=")
    for part in ("HttpOnly", "SameSite=Strict", "Path=/"):
        assert part in cookie
    value = cookie.partition(";")[0]
    renewed = await hub.post(f"{TOKEN}refresh_token", headers={**web, "Cookie": value})
    assert renewed.status == 200
    assert renewed.json["refresh_token"] == ""
    assert renewed.headers["Set-Cookie"].partition(";")[0] != value
    # without the header the cookie is not looked at
    assert (await hub.post(f"{TOKEN}refresh_token", headers={"Cookie": value})).status == 400
    newer = renewed.headers["Set-Cookie"].partition(";")[0]
    out = await hub.post("/auth/v1/logout?scope=local", headers={**web, "Cookie": newer})
    assert out.status == 204
    assert 'hub-refresh=""' in out.headers["Set-Cookie"]
    assert (await hub.post(f"{TOKEN}refresh_token", headers={**web, "Cookie": newer})).status == 400


async def test_a_foreign_page_cannot_use_the_cookie(hub: Hub, owner: Member) -> None:
    web = {"X-Hub-Client": "web"}
    body = {"email": owner.email, "password": PASSWORD}
    foreign = await hub.post(f"{TOKEN}password", json=body, headers={**web, "Origin": "https://evil.example"})
    assert (foreign.status, foreign.json["code"]) == (403, "bad_origin")
    own = await hub.post(f"{TOKEN}password", json=body, headers={**web, "Origin": hub.url})
    assert own.status == 200
    value = own.headers["Set-Cookie"].partition(";")[0]
    stolen = await hub.post(
        f"{TOKEN}refresh_token", headers={**web, "Cookie": value, "Origin": "https://evil.example"}
    )
    assert stolen.status == 403


async def test_changing_the_password_ends_the_other_sessions(hub: Hub, owner: Member) -> None:
    here, there = await hub.token(owner.email), await hub.token(owner.email)
    change = {"password": "another horse battery", "data": {"theme": "dark"}}
    answer = await hub.call("PUT", "/auth/v1/user", token=here, json=change)
    assert answer.json["user_metadata"] == {"theme": "dark"}
    assert (await hub.get("/auth/v1/user", token=here)).status == 200
    await until(lambda: _refused(hub, there), what="the other session to end")
    assert (
        await hub.post(f"{TOKEN}password", json={"email": owner.email, "password": PASSWORD})
    ).status == 400
    await hub.sign_in(owner.email, "another horse battery")


async def _refused(hub: Hub, token: str) -> bool:
    return (await hub.get("/auth/v1/user", token=token)).status == 403


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"password": "short"}, 422, "weak_password"),
        ({"password": "password1"}, 422, "weak_password"),
        ({"password": PASSWORD}, 422, "same_password"),
        ({"app_metadata": {"role": "OWNER"}}, 403, "not_admin"),
    ],
)
async def test_refused_changes(
    hub: Hub, owner: Member, change: dict[str, Any], status: int, code: str
) -> None:
    answer = await hub.call("PUT", "/auth/v1/user", token=await hub.token(owner.email), json=change)
    assert (answer.status, answer.json["code"]) == (status, code)


async def test_user_needs_a_users_token(hub: Hub) -> None:
    anon = (await hub.get("/config.json")).json["anon_key"]
    assert (await hub.get("/auth/v1/user")).json["code"] == "no_authorization"
    for token in ("garbage", anon):
        answer = await hub.get("/auth/v1/user", token=token)
        assert (answer.status, answer.json["code"]) == (403, "bad_jwt")


async def test_failed_sign_ins_are_in_the_audit_log_of_the_users_organizations(
    hub: Hub, org: Org, owner: Member, superuser: asyncpg.Connection
) -> None:
    other, left = await make_org(superuser), await make_org(superuser)
    for organization, active in ((other, True), (left, False)):
        await superuser.execute(
            "insert into memberships (organization_id, user_id, role, is_active)"
            " values ($1, $2, 'AGENT', $3)",
            organization.id,
            owner.id,
            active,
        )
    body = {"email": owner.email.upper(), "password": "wrong horse"}
    await hub.post(f"{TOKEN}password", json=body, headers={"X-Request-Id": "request-17"})
    await hub.post(f"{TOKEN}password", json={"email": "nobody@example.test", "password": "wrong horse"})
    rows = await superuser.fetch("select * from audit_log where action = 'sign_in.failed'")
    assert {r["organization_id"] for r in rows} == {org.id, other.id}
    for row in rows:
        assert (row["actor_kind"], row["actor_id"], row["target_id"]) == ("user", owner.id, owner.id)
        assert (str(row["ip"]), row["request_id"]) == ("127.0.0.1", "request-17")
        assert row["details"] == '{"reason": "invalid_credentials"}'
    assert "wrong horse" not in str(rows)
    token = await hub.token(owner.email)
    seen = await hub.get("/rest/v1/audit_log?action=eq.sign_in.failed", token=token)
    assert len(seen.json) == 1, "an owner reads it, of the own organization"


async def test_a_banned_users_right_password_is_noted_and_not_counted(
    hub: Hub, owner: Member, superuser: asyncpg.Connection
) -> None:
    await superuser.execute("update auth.users set banned_until = now() + interval '1 day'")
    await hub.post(f"{TOKEN}password", json={"email": owner.email, "password": PASSWORD})
    assert await superuser.fetchval("select details ->> 'reason' from audit_log") == "user_banned"
    assert await superuser.fetchval("select count(*) from auth.sign_in_failures") == 0


@pytest.mark.parametrize(
    ("method", "name", "allowed"),
    [
        ("GET", "token", ["POST"]), ("DELETE", "user", ["GET", "HEAD", "PUT"]), ("GET", "logout", ["POST"]),
        ("POST", "settings", ["GET", "HEAD"]), ("PUT", "recover", ["POST"]),
        ("PATCH", "verify", ["POST", "GET"]),
        ("POST", ".well-known/jwks.json", ["GET", "HEAD"]),
    ],
)  # fmt: skip
async def test_wrong_methods_are_told_the_right_ones(
    hub: Hub, method: str, name: str, allowed: list[str]
) -> None:
    answer = await hub.call(method, f"/auth/v1/{name}")
    assert (answer.status, answer.json["details"]) == (405, {"allowed": allowed})
    assert answer.headers["Allow"] == ", ".join(allowed)
    asked = await hub.call("OPTIONS", f"/auth/v1/{name}")
    assert asked.status == 204
    assert asked.headers["Allow"] == ", ".join([*allowed, "OPTIONS"])


async def test_public_pages_of_sign_in(hub: Hub) -> None:
    settings = await hub.get("/auth/v1/settings")
    assert settings.json["external"]["email"] is True
    assert (await hub.get("/auth/v1/health")).json["name"] == "GoTrue"
    jwks = await hub.get("/auth/v1/.well-known/jwks.json")
    assert jwks.headers["Cache-Control"] == "public, max-age=600"
    assert [k["kty"] for k in jwks.json["keys"]] == ["EC"]
    assert settings.json["disable_signup"] is True and settings.json["mailer_autoconfirm"] is False
    assert (await hub.post("/auth/v1/signup", json={})).json["code"] == "anonymous_provider_disabled"
    refused = await hub.post("/auth/v1/signup", json={"email": "a@example.test", "password": PASSWORD})
    assert (refused.status, refused.json["code"]) == (422, "signup_disabled")


async def test_expired_tokens_are_refused(hub: Hub, owner: Member) -> None:
    token = await hub.token(owner.email)
    assert (await hub.get("/rest/v1/contacts", token=token)).status == 200  # it is remembered now
    try:
        clock.set_offset(3700)
        answer = await hub.get("/rest/v1/contacts", token=token)
        assert (answer.status, answer.json["code"]) == (401, "PGRST303")
    finally:
        clock.set_offset(0)


async def test_a_disabled_member_and_a_changed_permission_bite_within_five_seconds(
    hub: Hub, agent: Member, superuser: asyncpg.Connection
) -> None:
    token = await hub.token(agent.email)
    assert (await hub.get("/rest/v1/contacts", token=token)).status == 200
    await superuser.execute(
        "update memberships set can_access_crm = false, can_read_messages = false where user_id = $1",
        agent.id,
    )

    async def closed() -> bool:
        return (await hub.get("/rest/v1/contacts", token=token)).status == 403

    await until(closed, what="the permission to be gone")
    await superuser.execute("update memberships set is_active = false where user_id = $1", agent.id)

    async def outside() -> bool:
        return (await hub.get("/rest/v1/organizations", token=token)).status == 401

    await until(outside, what="the member to be signed out")


async def test_ORG_02_switching_moves_the_session(
    hub: Hub, owner: Member, superuser: asyncpg.Connection
) -> None:
    other = await make_org(superuser, "Second")
    await superuser.execute(
        "insert into memberships (organization_id, user_id, role) values ($1, $2, 'AGENT')",
        other.id,
        owner.id,
    )
    stranger = await make_member(superuser, await make_org(superuser))
    session = await hub.sign_in(owner.email)
    token = session["access_token"]
    listed = (await hub.get("/functions/v1/list-organizations", token=token)).json
    assert listed["count"] == 2
    assert {"id", "name", "suitId", "hasAppgainCredentials"} == listed["organizations"][0].keys()
    moved = await hub.post(
        "/functions/v1/switch-organization", token=token, json={"organizationId": str(other.id)}
    )
    assert moved.json["organization"]["id"] == str(other.id)
    (seen,) = (await hub.get("/rest/v1/organizations?select=id", token=token)).json
    assert seen["id"] == str(other.id)
    renewed = (await refresh(hub, session["refresh_token"])).json
    assert renewed["user"]["app_metadata"]["organization_id"] == str(other.id)
    assert renewed["user"]["app_metadata"]["org_role"] == "AGENT"
    # the next sign-in begins where the last one was
    assert (await hub.sign_in(owner.email))["user"]["app_metadata"]["organization_id"] == str(other.id)
    foreign = await hub.post(
        "/functions/v1/switch-organization",
        token=token,
        json={"organizationId": str(stranger.organization_id)},
    )
    assert foreign.status == 404


async def test_X06_a_token_for_another_users_session_is_refused(
    hub: Hub, owner: Member, agent: Member
) -> None:
    """Ours, and its session stands; but it is somebody else's."""
    session = await hub.sign_in(owner.email)
    claims = jwt.decode(session["access_token"], options={"verify_signature": False})
    ring = await hub.app[AUTH].keyring()
    user = {"id": str(agent.id), "email": agent.email}
    token, _ = ring.access_token(
        user,
        UUID(claims["session_id"]),
        organization_id=agent.organization_id,
        org_role="AGENT",
        is_web=False,
    )
    assert (await hub.get("/rest/v1/contacts", token=token)).status == 401
    assert (await hub.get("/rest/v1/contacts", token=session["access_token"])).status == 200


async def test_X07_two_refreshes_of_one_token_wait_for_each_other(
    hub: Hub, owner: Member, superuser: asyncpg.Connection, db: Database
) -> None:
    """The first one has not committed when the second comes: it gets the first one's child."""
    session = await hub.sign_in(owner.email)
    given = hashlib.sha256(session["refresh_token"].encode()).digest()
    rotate = "select outcome, sealed from app.rotate_refresh($1, $2, $3, 10)"

    async def second() -> asyncpg.Record | None:
        async with db.connection("api") as conn:
            return await conn.fetchrow(rotate, given, b"second", "sealed second")

    async with db.connection("api") as conn, conn.transaction():
        first = await conn.fetchrow(rotate, given, b"first", "sealed first")
        other = asyncio.create_task(second())

        async def met() -> bool:
            waits = "select exists (select from pg_stat_activity where pg_blocking_pids(pid) <> '{}')"
            return other.done() or bool(await superuser.fetchval(waits))

        await until(met, what="the second")
    assert first is not None and first["outcome"] == "fresh"
    late = await other
    assert late is not None and tuple(late) == ("again", "sealed first")
