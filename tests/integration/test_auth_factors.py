"""Two-factor sign-in on GoTrue's wire: what a session is without its second factor, what codes open, and
what they do not."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import asyncpg
import jwt
import pytest
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.twofactor.totp import TOTP

from hub import clock
from hub.auth.accounts import remove_factors
from hub.resources import AUTH
from tests.factories import Member, Org, Servers
from tests.server import Answer, Hub

TOKEN = "/auth/v1/token?grant_type="


@pytest.fixture(autouse=True)
def standing_clock() -> Iterator[None]:
    """Tests move it on for the next code; it never goes back."""
    yield
    clock.set_offset(0)


def code_of(secret: str, away: int = 0) -> str:
    totp = TOTP(base64.b32decode(secret), 6, SHA1(), 30)
    return totp.generate(int(clock.now_s()) + 30 * away).decode()


class Phone:
    """An authenticator app with one factor. Each code is of a later step than the last one."""

    def __init__(self, hub: Hub, factor: dict[str, Any]) -> None:
        self.hub, self.id, self.secret = hub, factor["id"], factor["totp"]["secret"]
        self.path = f"/auth/v1/factors/{self.id}"
        self.offset = 0.0

    async def challenge(self, token: str) -> Answer:
        return await self.hub.post(f"{self.path}/challenge", token=token)

    async def verify(self, token: str, code: str | None = None, **options: Any) -> Answer:
        challenge = (await self.challenge(token)).json["id"]
        if code is None:
            self.offset += 30
            clock.set_offset(self.offset)
            code = code_of(self.secret)
        body = {"challenge_id": challenge, "code": code}
        return await self.hub.post(f"{self.path}/verify", token=token, json=body, **options)


async def enroll(hub: Hub, token: str, name: str = "phone") -> Phone:
    answer = await hub.post(
        "/auth/v1/factors", token=token, json={"factor_type": "totp", "friendly_name": name}
    )
    assert answer.status == 200, answer
    return Phone(hub, answer.json)


async def with_factor(hub: Hub, member: Member) -> tuple[Phone, dict[str, Any]]:
    """The phone of a member who has just switched it on, and the session that did."""
    token = await hub.token(member.email)
    phone = await enroll(hub, token)
    verified = await phone.verify(token)
    assert verified.status == 200, verified
    return phone, verified.json


def claims_of(token: str) -> dict[str, Any]:
    return jwt.decode(token, options={"verify_signature": False})


async def test_15_2_a_factor_is_enrolled_challenged_and_verified(
    hub: Hub, owner: Member, superuser: asyncpg.Connection
) -> None:
    session = await hub.sign_in(owner.email)
    token = session["access_token"]
    made = await hub.post(
        "/auth/v1/factors", token=token, json={"factor_type": "totp", "friendly_name": "phone"}
    )
    assert made.json.keys() == {"id", "type", "friendly_name", "totp"} and made.json["type"] == "totp"
    assert made.json["totp"].keys() == {"qr_code", "secret", "uri"}
    assert made.json["totp"]["qr_code"].startswith("<svg")
    dump = str(await superuser.fetch("select f::text from auth.mfa_factors f"))
    assert made.json["totp"]["secret"] not in dump
    user = (await hub.get("/auth/v1/user", token=token)).json
    assert [(f["id"], f["status"], f["factor_type"]) for f in user["factors"]] == [
        (made.json["id"], "unverified", "totp")
    ]
    assert (await hub.get("/rest/v1/contacts", token=token)).status == 200, "not on yet"
    phone = Phone(hub, made.json)
    challenge = (await phone.challenge(token)).json
    assert challenge.keys() == {"id", "type", "expires_at"} and isinstance(challenge["expires_at"], int)
    verified = await phone.verify(token)
    assert verified.status == 200
    claims = claims_of(verified.json["access_token"])
    assert claims["aal"] == "aal2" and [a["method"] for a in claims["amr"]] == ["totp", "password"]
    assert claims["session_id"] == claims_of(token)["session_id"]
    renewed = await hub.post(f"{TOKEN}refresh_token", json={"refresh_token": verified.json["refresh_token"]})
    assert claims_of(renewed.json["access_token"])["aal"] == "aal2", "it stays so"
    assert renewed.json["user"]["factors"][0]["status"] == "verified"
    before = await hub.post(f"{TOKEN}refresh_token", json={"refresh_token": session["refresh_token"]})
    assert before.json["code"] == "refresh_token_not_found", "no refresh token from before goes on"
    assert await superuser.fetchval("select count(*) from audit_log where action = 'factor.added'") == 1
    assert await superuser.fetchval("select template from app.mail_outbox") == "factor_added"


async def test_a_session_without_its_second_factor_opens_nothing(
    hub: Hub, org: Org, owner: Member, superuser: asyncpg.Connection
) -> None:
    phone, _ = await with_factor(hub, owner)
    session = await hub.sign_in(owner.email)
    token = session["access_token"]
    claims = claims_of(token)
    assert claims["aal"] == "aal1" and "organization_id" not in claims["app_metadata"]
    for path in ("/rest/v1/contacts", "/functions/v1/list-organizations", "/functions/v1/events"):
        answer = await hub.get(path, token=token)
        assert answer.status == 403 and answer.json["error_code"] == "INSUFFICIENT_PERMISSIONS", path
        assert "second factor" in answer.json["message"]
    moved = await hub.post(
        "/functions/v1/switch-organization", token=token, json={"organizationId": str(org.id)}
    )
    assert moved.status == 403
    async with hub.client.ws_connect(f"{hub.url}/ws") as ws:
        await ws.send_json({"type": "hello", "token": token, "cursor": None})
        await ws.receive(timeout=10)
        assert ws.close_code == 4403
    for change in ({"password": "another horse battery"}, {"email": "moved@example.test"}):
        answer = await hub.call("PUT", "/auth/v1/user", token=token, json=change)
        assert (answer.status, answer.json["code"]) == (401, "insufficient_aal")
    for method, path, body in (
        ("POST", "factors", {"factor_type": "totp", "friendly_name": "mine"}),
        ("DELETE", f"factors/{phone.id}", None), ("POST", "recovery-codes", None),
    ):  # fmt: skip
        answer = await hub.call(method, f"/auth/v1/{path}", token=token, json=body)
        assert answer.json["code"] == "insufficient_aal", path
    assert (await hub.get("/auth/v1/user", token=token)).json["factors"][0]["id"] == phone.id
    verified = await phone.verify(token)
    good = verified.json["access_token"]
    assert (await hub.get("/rest/v1/contacts", token=good)).status == 200
    assert claims_of(good)["app_metadata"]["organization_id"] == str(org.id)


async def test_switching_it_on_ends_the_other_sessions_and_their_sockets(hub: Hub, owner: Member) -> None:
    other = await hub.token(owner.email)
    async with hub.client.ws_connect(f"{hub.url}/ws") as ws:
        await ws.send_json({"type": "hello", "token": other, "cursor": None})
        assert "welcome" in (await ws.receive(timeout=10)).data
        _, session = await with_factor(hub, owner)

        async with asyncio.timeout(10):
            async for _ in ws:
                pass
        assert ws.close_code == 4401
    assert (await hub.get("/auth/v1/user", token=other)).json["code"] == "session_not_found"
    assert (await hub.get("/rest/v1/contacts", token=session["access_token"])).status == 200


async def test_a_code_works_once(hub: Hub, owner: Member, superuser: asyncpg.Connection) -> None:
    phone, _ = await with_factor(hub, owner)
    token = await hub.token(owner.email)
    phone.offset += 60
    clock.set_offset(phone.offset)
    code = code_of(phone.secret)
    assert (await phone.verify(token, code)).status == 200
    again = await hub.token(owner.email)
    replayed = await phone.verify(again, code)
    assert (replayed.status, replayed.json["code"]) == (422, "mfa_verification_failed")
    earlier = await phone.verify(again, code_of(phone.secret, -1))
    assert earlier.json["code"] == "mfa_verification_failed", "nor one from before it"
    noted = await superuser.fetch("select ip from audit_log where action = 'factor.refused'")
    assert [str(row["ip"]) for row in noted] == ["127.0.0.1"] * 2


async def test_challenges_are_ones_own_and_run_out(
    hub: Hub, owner: Member, agent: Member, superuser: asyncpg.Connection
) -> None:
    phone, session = await with_factor(hub, owner)
    theirs, their_session = await with_factor(hub, agent)
    token, foreign = session["access_token"], their_session["access_token"]
    for answer in (await phone.challenge(foreign), await theirs.challenge(token)):
        assert (answer.status, answer.json["code"]) == (404, "mfa_factor_not_found")
    challenge = (await theirs.challenge(foreign)).json["id"]
    mixed = await hub.post(
        f"{phone.path}/verify", token=token,
        json={"challenge_id": challenge, "code": code_of(phone.secret, 1)},
    )  # fmt: skip
    assert (mixed.status, mixed.json["code"]) == (422, "mfa_challenge_expired")
    mine = (await phone.challenge(token)).json["id"]
    await superuser.execute("update auth.mfa_challenges set expires_at = now()")
    late = await hub.post(
        f"{phone.path}/verify", token=token, json={"challenge_id": mine, "code": code_of(phone.secret, 1)}
    )
    assert (late.status, late.json["code"]) == (422, "mfa_challenge_expired")
    for path in (f"/auth/v1/factors/{uuid4()}/challenge", "/auth/v1/factors/nonsense/challenge"):
        assert (await hub.post(path, token=token)).json["code"] == "mfa_factor_not_found"
    assert (await hub.delete(phone.path, token=foreign)).status == 404


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({}, 400, "validation_failed"), ({"factor_type": "webauthn"}, 400, "validation_failed"),
        ({"factor_type": "phone"}, 422, "mfa_phone_enroll_not_enabled"),
        ({"factor_type": "totp", "friendly_name": "x" * 101}, 400, "validation_failed"),
    ],
)  # fmt: skip
async def test_refused_factors(hub: Hub, owner: Member, body: dict[str, str], status: int, code: str) -> None:
    answer = await hub.post("/auth/v1/factors", token=await hub.token(owner.email), json=body)
    assert (answer.status, answer.json["code"]) == (status, code)


async def test_names_and_numbers_of_factors(hub: Hub, owner: Member, superuser: asyncpg.Connection) -> None:
    _, session = await with_factor(hub, owner)
    token = session["access_token"]
    body = {"factor_type": "totp", "friendly_name": "phone"}
    taken = await hub.post("/auth/v1/factors", token=token, json=body)
    assert (taken.status, taken.json["code"]) == (422, "mfa_factor_name_conflict")
    first = await enroll(hub, token, "tablet")
    second = await enroll(hub, token, "tablet")
    assert first.id != second.id, "one that was never verified is replaced"
    for n in range(8):
        await enroll(hub, token, f"tablet {n}")
    many = await hub.post("/auth/v1/factors", token=token, json={**body, "friendly_name": "one more"})
    assert (many.status, many.json["code"]) == (422, "too_many_enrolled_mfa_factors")


async def test_X08_guessing_a_code_is_delayed_and_the_owner_comes_in_from_home(
    hub: Hub, owner: Member, superuser: asyncpg.Connection
) -> None:
    """Whoever guesses knows the password; the owner's usual network is not delayed by it."""
    phone, _ = await with_factor(hub, owner)
    token = await hub.token(owner.email)
    statuses = [(await phone.verify(token, "000000")).status for _ in range(12)]
    assert statuses[:10] == [422] * 10 and 429 in statuses[10:]
    await superuser.execute("delete from auth.sign_in_failures")
    await superuser.execute(
        "insert into auth.sign_in_failures (account, network, failures)"
        " select $1, '203.0.' || n || '.0/24', 9 from generate_series(1, 50) n",
        f"mfa:{owner.id}",
    )
    delay = "select app.sign_in_delay($1, $2)"
    assert await superuser.fetchval(delay, f"mfa:{owner.id}", "198.51.100.0/24") > 0
    assert await superuser.fetchval(delay, f"mfa:{owner.id}", "127.0.0.0/24") == 0
    assert (await phone.verify(await hub.token(owner.email))).status == 200


async def test_recovery_codes_are_shown_once_kept_hashed_and_used_once(
    hub: Hub, owner: Member, superuser: asyncpg.Connection
) -> None:
    _, session = await with_factor(hub, owner)
    token = session["access_token"]
    codes = (await hub.post("/auth/v1/recovery-codes", token=token)).json["codes"]
    assert len(set(codes)) == 10
    dump = str(await superuser.fetch("select c::text from auth.recovery_codes c"))
    assert not any(code in dump or code.replace("-", "") in dump for code in codes)
    assert (await hub.get("/auth/v1/recovery-codes", token=token)).json == {"left": 10}

    async def use(code: str) -> Answer:
        return await hub.post(
            "/auth/v1/recovery-codes/verify", token=await hub.token(owner.email), json={"code": code}
        )

    used = await use(codes[0].upper().replace("-", " "))
    assert used.status == 200
    claims = claims_of(used.json["access_token"])
    assert claims["aal"] == "aal2" and claims["amr"][0]["method"] == "recovery_code"
    assert (await hub.get("/rest/v1/contacts", token=used.json["access_token"])).status == 200
    for wrong in (codes[0], "aaaaa-aaaaa", "", "x" * 500):
        answer = await use(wrong)
        assert (answer.status, answer.json["code"]) == (422, "mfa_verification_failed")
    assert (await hub.get("/auth/v1/recovery-codes", token=token)).json == {"left": 9}
    actions = await superuser.fetch("select action from audit_log where action like 'recovery_code%'")
    assert sorted(row["action"] for row in actions) == [
        *["recovery_code.refused"] * 4, "recovery_code.used", "recovery_codes.made"
    ]  # fmt: skip
    assert "recovery_code_used" in str(await superuser.fetch("select template from app.mail_outbox"))
    fresh = (await hub.post("/auth/v1/recovery-codes", token=token)).json["codes"]
    assert (await use(codes[1])).status == 422, "earlier ones ended"
    assert (await use(fresh[0])).status == 200


async def test_a_recovery_code_of_another_opens_nothing(hub: Hub, owner: Member, agent: Member) -> None:
    _, session = await with_factor(hub, owner)
    await with_factor(hub, agent)
    codes = (await hub.post("/auth/v1/recovery-codes", token=session["access_token"])).json["codes"]
    answer = await hub.post(
        "/auth/v1/recovery-codes/verify", token=await hub.token(agent.email), json={"code": codes[0]}
    )
    assert answer.status == 422


async def test_15_2_taking_the_last_factor_away_switches_it_off(
    hub: Hub, owner: Member, superuser: asyncpg.Connection
) -> None:
    phone, session = await with_factor(hub, owner)
    token = session["access_token"]
    await hub.post("/auth/v1/recovery-codes", token=token)
    removed = await hub.delete(phone.path, token=token)
    assert (removed.status, removed.json) == (200, {"id": phone.id})
    assert (await hub.get("/rest/v1/contacts", token=token)).status == 200
    renewed = await hub.post(f"{TOKEN}refresh_token", json={"refresh_token": session["refresh_token"]})
    claims = claims_of(renewed.json["access_token"])
    assert claims["aal"] == "aal1" and [a["method"] for a in claims["amr"]] == ["password"]
    again = await hub.sign_in(owner.email)
    assert (await hub.get("/rest/v1/contacts", token=again["access_token"])).status == 200
    left = "select (select count(*) from auth.recovery_codes) + (select count(*) from auth.mfa_factors)"
    assert await superuser.fetchval(left) == 0
    assert await superuser.fetchval("select count(*) from audit_log where action = 'factor.removed'") == 1


async def test_a_recovery_link_is_no_way_round_the_second_factor(
    hub: Hub, owner: Member, superuser: asyncpg.Connection
) -> None:
    await with_factor(hub, owner)
    service = (await hub.app[AUTH].keyring()).project_keys().service_role
    link = await hub.post(
        "/auth/v1/admin/generate_link", token=service, json={"type": "recovery", "email": owner.email}
    )
    opened = await hub.post(
        "/auth/v1/verify", json={"type": "recovery", "token_hash": link.json["hashed_token"]}
    )
    token = opened.json["access_token"]
    changed = await hub.call("PUT", "/auth/v1/user", token=token, json={"password": "another horse"})
    assert changed.json["code"] == "insufficient_aal"
    assert (await hub.get("/rest/v1/contacts", token=token)).status == 403


async def test_the_operator_and_the_service_role_let_somebody_in_who_lost_it(
    hub: Hub, servers: Servers, owner: Member, agent: Member, superuser: asyncpg.Connection
) -> None:
    phone, session = await with_factor(hub, owner)
    await with_factor(hub, agent)
    service = (await hub.app[AUTH].keyring()).project_keys().service_role
    path = f"/auth/v1/admin/users/{owner.id}/factors"
    assert [f["id"] for f in (await hub.get(path, token=service)).json] == [phone.id]
    assert (await hub.get(path, token=session["access_token"])).json["code"] == "not_admin"
    assert (await hub.delete(f"{path}/{uuid4()}", token=service)).status == 404
    assert (await hub.delete(f"{path}/{phone.id}", token=service)).json == {"id": phone.id}
    assert await remove_factors(servers.migrate_url, agent.email.upper()) == 1
    for member in (owner, agent):
        token = await hub.token(member.email)
        assert (await hub.get("/rest/v1/contacts", token=token)).status == 200
        session = await hub.sign_in(member.email)
        assert "factors" not in session["user"]
