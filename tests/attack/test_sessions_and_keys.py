"""Tokens, sessions, passwords, keys and permissions under attack (X-06 to X-10, X-24, I-08)."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import random
import secrets
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import aiohttp
import asyncpg
import jwt
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from hub import clock
from hub.auth.apikeys import prefix_of
from hub.auth.tokens import LEEWAY_S
from hub.channels import signing
from hub.db.embedded import EmbeddedValkey
from hub.domain.permissions import FUNCTION_NEEDS, PERMISSIONS, ROLE_DEFAULTS, RULES, missing
from hub.functions.router import FUNCTIONS
from hub.resources import AUTH, PASSWORDS
from tests import whatsapp
from tests.attack.people import make_key, token_of, told_apart
from tests.factories import Member, Org, Servers, insert, make_contact, make_member, make_org, until
from tests.fakes.stripe import KEY as STRIPE_KEY
from tests.fakes.stripe import paid_by
from tests.fakes.whatsapp import running_sandbox
from tests.server import PASSWORD, Answer, Hub, running_hub

TOKEN = "/auth/v1/token?grant_type="
WIDE = {"HUB_RATE_REST": "1000000", "HUB_RATE_FUNCTIONS": "1000000", "HUB_RATE_EXTERNAL": "1000000"}


def part(value: Any) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


#


@asynccontextmanager
async def canary() -> AsyncIterator[tuple[str, list[str]]]:
    """A server that nobody should ever ask, and what it was asked."""
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.json_response({"keys": []})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", asked
    finally:
        await runner.cleanup()


def forgeries(good: str, ring: Any, url: str, refresh: str) -> dict[str, str]:
    """Every way of X-06 to bend a good access token, by name."""
    head, body, signature = good.split(".")
    header = json.loads(base64.urlsafe_b64decode(head + "=="))
    claims = jwt.decode(good, options={"verify_signature": False})
    kid, private = ring.signer
    hs_kid, hs_secret = ring._project[0], ring._project[1]
    public = private.public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    point = public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    stranger = ec.generate_private_key(ec.SECP256R1())
    jwk = jwt.algorithms.ECAlgorithm.to_jwk(stranger.public_key(), as_dict=True)
    now = int(clock.now_s())

    def signed(
        changes: dict[str, Any] | None = None, *, key: Any = private, alg: str = "ES256", **more: Any
    ) -> str:
        made = {k: v for k, v in {**claims, **(changes or {})}.items() if v is not ...}
        return jwt.encode(made, key, alg, headers={"kid": kid, **more})

    def unsigned(alg: str, sign: str = "", **more: Any) -> str:
        return f"{part({'typ': 'JWT', 'alg': alg, **more})}.{body}.{sign}"

    def hmac_with(secret: bytes, **more: Any) -> str:
        text = f"{part({'typ': 'JWT', 'alg': 'HS256', **more})}.{body}"
        return f"{text}.{part(hmac.digest(secret, text.encode(), hashlib.sha256))}"

    def raw_signed(raw_head: bytes, raw_body: bytes) -> str:
        text = f"{part(raw_head)}.{part(raw_body)}"
        return f"{text}.{part(jwt.get_algorithm_by_name('ES256').sign(text.encode(), private))}"

    whole = {
        "none": unsigned("none"), "None": unsigned("None"), "NoNe": unsigned("NoNe"),
        "NONE": unsigned("NONE"),
        "none with our kid": unsigned("none", kid=kid), "none with a signature": unsigned("none", signature),
        "empty alg": unsigned(""), "no signature": f"{head}.{body}.",
        "empty signature, no dot": f"{head}.{body}",
        "zero signature": f"{head}.{body}.{part(bytes(64))}",
        "short signature": f"{head}.{body}.{signature[:-4]}",
        "another's signature": signed(key=stranger), "another's without kid": jwt.encode(claims, stranger,
        "ES256"),
        "HS256 with the public PEM": hmac_with(pem, kid=kid), "HS256 with the point": hmac_with(point,
        kid=kid),
        "HS256 with the JWK": hmac_with(json.dumps(ring.jwks["keys"][0]).encode(), kid=kid),
        "HS256 with nothing": hmac_with(b"", kid=kid), "HS256 with nothing, project's kid": hmac_with(b"",
        kid=hs_kid),
        "the project's secret": hmac_with(hs_secret, kid=hs_kid),
        "the project's secret, no kid": hmac_with(hs_secret),
        "the project's secret as our kid": hmac_with(hs_secret, kid=kid),
        "unknown kid": signed(kid="unknown"), "kid is a path": signed(kid="../../../../dev/null"),
        "kid is SQL": signed(kid="x' union select 'a'--"), "kid is a number": 
        raw_signed(json.dumps({**header, "kid": 1}).encode(), json.dumps(claims).encode()),
        "kid is a list": raw_signed(json.dumps({**header, "kid": [kid]}).encode(),
        json.dumps(claims).encode()),
        "kid is null": raw_signed(json.dumps({**header, "kid": None}).encode(), json.dumps(claims).encode()),
        "jku": signed(key=stranger, kid="x", jku=f"{url}/jku"),
        "jku, our kid": signed(key=stranger, jku=f"{url}/jku"),
        "x5u": signed(key=stranger, x5u=f"{url}/x5u"), "jwk": signed(key=stranger, jwk=jwk),
        "x5c": signed(key=stranger, x5c=[base64.b64encode(b"x").decode()]),
        "RS256": jwt.encode(claims, rsa.generate_private_key(65537, 2048), "RS256", headers={"kid": kid}),
        "ES384": jwt.encode(claims, ec.generate_private_key(ec.SECP384R1()), "ES384", headers={"kid": kid}),
        "crit": signed(crit=["exp"]), "crit of a stranger": signed(crit=["http://example.test/x"],
        **{"http://example.test/x": True}),
        "b64 false": signed(b64=False, crit=["b64"]),
        "expired": signed({"exp": now - LEEWAY_S - 1}), "expired long ago": signed({"exp": 1}),
        "exp is text": signed({"exp": "2099-01-01"}), "no exp": signed({"exp": ...}),
        "exp is huge text": signed({"exp": "9" * 400}),
        "nbf in the future": signed({"nbf": now + LEEWAY_S + 60}), "nbf is text": signed({"nbf": "now"}),
        "wrong aud": signed({"aud": "anon"}), "aud is a list": signed({"aud": ["authenticated", "x"]}),
        "recovery's aud": signed({"aud": "recovery"}),
        "wrong iss": signed({"iss": "https://elsewhere/auth/v1"}),
        "iss with a slash": signed({"iss": claims["iss"] + "/"}),
        "no session": signed({"session_id": ...}), "session of nobody": signed({"session_id": str(uuid4())}),
        "session is SQL": signed({"session_id": "' or 1=1 --"}),
        "session is a list": signed({"session_id": []}),
        "another user of this session": signed({"sub": str(uuid4())}), "no sub": signed({"sub": ...}),
        "role postgres": signed({"role": "postgres"}),
        "role service_role, our key": signed({"role": "service_role"}),
        "role service_role without session": signed({"role": "service_role", "session_id": ...}),
        "role hub_owner": signed({"role": "hub_owner"}),
        "role is a list": signed({"role": ["authenticated"]}),
        "a link's token": secrets.token_urlsafe(32), "refresh as access": refresh,
        "twice the exp, the later first": raw_signed(
            head_bytes := json.dumps(header).encode(),
            json.dumps(claims)[:-1].encode() + b', "exp": 1}',
        ),
        "twice the role": raw_signed(head_bytes,
        b'{"role": "service_role", ' + json.dumps(claims).encode()[1:-1] + b', "role": "postgres"}'),
        "body is no JSON": raw_signed(head_bytes, b"{"), "body is a list": raw_signed(head_bytes, b"[]"),
        "NaN": raw_signed(head_bytes, json.dumps({**claims, "exp": float("nan")}).encode()),
        "huge": signed({"pad": "x" * 20_000}), "3 empty parts": "..", "5 parts": f"{good}.{head}.{body}",
        "4 parts": f"{good}.",
        "padded": f"{head}==.{body}.{signature}", "padded signature": f"{good}==",
        "blank inside": f"{head}. {body}.{signature}",
        "newline inside": f"{head}.{body[:10]}%0a{body[10:]}.{signature}",
        "strange characters": f"{head}.{body}.{signature[:10]}!{signature[10:]}",
        "spare bits": good[:-1] + chr(ord(good[-1]) + 1), "standard alphabet": good.replace("-",
        "+").replace("_", "/") + "+",
        "lower case": good.lower(), "JWE": ".".join([part({"alg": "dir", "enc": "A256GCM"}), "", part(b"i"),
        part(b"c"), part(b"t")]),
        "garbage": "garbage", "a key's shape": "cg_" + "a" * 43, "nothing": "null", "undefined": "undefined",
    }  # fmt: skip
    assert len(set(whole.values())) == len(whole)
    return whole


async def test_X06_every_forged_token_is_refused_everywhere_and_no_key_is_fetched(
    hub: Hub, owner: Member, superuser: asyncpg.Connection
) -> None:
    session = await hub.sign_in(owner.email)
    good = session["access_token"]
    ring = await hub.app[AUTH].keyring()
    assert (await hub.get("/rest/v1/contacts", token=good)).status == 200
    async with canary() as (url, asked):
        for name, token in forgeries(good, ring, url, session["refresh_token"]).items():
            rest = await hub.get("/rest/v1/contacts", token=token)
            assert rest.status == 401, (name, rest)
            assert (rest.status, rest.json["error_code"]) in (
                (401, "AUTHENTICATION_FAILED"),
                (401, "INVALID_API_KEY"),
            ), name
            assert rest.json["code"] in ("PGRST301", "PGRST303", "22023"), name
            told = f'Bearer error="invalid_token", error_description="{rest.json["message"]}"'
            assert rest.headers["WWW-Authenticate"] == told
            functions = await hub.get("/functions/v1/list-organizations", token=token)
            assert (
                functions.status,
                functions.json["code"] in ("AUTHENTICATION_FAILED", "INVALID_API_KEY"),
            ) == (401, True), name
            auth = await hub.get("/auth/v1/user", token=token)
            assert auth.status == 403 and auth.json["code"] in ("bad_jwt", "session_not_found"), name
            for headers in ({"apikey": token}, {"apikey": token, "Authorization": f"Bearer {good}"}):
                assert (await hub.get("/rest/v1/contacts", headers=headers)).status == 401, name
            async with hub.client.ws_connect(f"{hub.url}/ws") as ws:
                await ws.send_json({"type": "hello", "token": token, "cursor": None})
                await ws.receive(timeout=10)
                assert ws.close_code in (4401, 4400), name
    assert asked == []
    assert (await hub.get("/rest/v1/contacts", token=good)).status == 200
    assert all(ring.verify(text) for text in hub.app[AUTH]._verified), "nothing unsigned is remembered"


async def test_X06_a_project_key_opens_no_more_than_it_says(hub: Hub, owner: Member) -> None:
    keys = (await hub.app[AUTH].keyring()).project_keys()
    for token in (keys.anon, keys.service_role):
        assert (await hub.get("/auth/v1/user", token=token)).json["code"] == "bad_jwt"
        async with hub.client.ws_connect(f"{hub.url}/ws") as ws:
            await ws.send_json({"type": "hello", "token": token, "cursor": None})
            await ws.receive(timeout=10)
            assert ws.close_code == 4403
    member = await hub.token(owner.email)
    assert (await hub.get("/rest/v1/contacts", headers={"apikey": member})).status == 401, (
        "apikey is for projects"
    )


#


async def refresh(hub: Hub, token: str, **options: Any) -> Answer:
    return await hub.post(f"{TOKEN}refresh_token", json={"refresh_token": token}, **options)


async def test_X07_fifty_at_once_get_one_child_and_one_active_chain(
    servers: Servers, valkey: EmbeddedValkey, tmp_path: Path, owner: Member, superuser: asyncpg.Connection
) -> None:
    """Over two hubs; then the parent again, from another client."""
    async with (
        running_hub(servers, valkey.url, tmp_path / "a") as one,
        running_hub(servers, valkey.url, tmp_path / "b", PUBLIC_BASE_URL=one.settings.public_base_url) as two,
    ):
        first = (await one.sign_in(owner.email))["refresh_token"]
        answers = await asyncio.gather(*(refresh((one, two)[i % 2], first) for i in range(50)))
        assert {a.status for a in answers} == {200}
        (child,) = {a.json["refresh_token"] for a in answers}
        active = "select count(*) from auth.refresh_tokens where used_at is null and revoked_at is null"
        assert await superuser.fetchval(active) == 1
        other = await refresh(two, first, headers={"User-Agent": "another browser"})
        assert other.json["refresh_token"] == child, "the parent's retry gets the same child"
        assert await superuser.fetchval(active) == 1


async def test_X07_theft_ends_the_family_everywhere(
    servers: Servers, valkey: EmbeddedValkey, tmp_path: Path, owner: Member, superuser: asyncpg.Connection
) -> None:
    """An old token comes back: thief and victim are both out, on the other hub and after a restart too."""
    async with running_hub(servers, valkey.url, tmp_path / "a") as one:
        base = one.settings.public_base_url
        first = await one.sign_in(owner.email)
        second = (await refresh(one, first["refresh_token"])).json
        third = (await refresh(one, second["refresh_token"])).json
        bystander = await one.sign_in(owner.email)
        await superuser.execute(
            "update auth.refresh_tokens set used_at = used_at - interval '1 hour' where used_at is not null"
        )
        async with running_hub(servers, valkey.url, tmp_path / "b", PUBLIC_BASE_URL=base) as two:
            assert (await two.get("/rest/v1/contacts", token=third["access_token"])).status == 200
            stolen = await refresh(one, first["refresh_token"])
            assert (stolen.status, stolen.json["code"]) == (400, "refresh_token_already_used")
            for token in (second["refresh_token"], third["refresh_token"]):
                assert (await refresh(two, token)).json["code"] == "session_not_found"
            assert (await one.get("/rest/v1/contacts", token=third["access_token"])).status == 401, (
                "at once here"
            )

            async def is_out() -> bool:
                return (await two.get("/rest/v1/contacts", token=third["access_token"])).status == 401

            await until(is_out, timeout_s=6, what="the other hub to refuse")
            assert (await two.get("/rest/v1/contacts", token=bystander["access_token"])).status == 200
    async with running_hub(servers, valkey.url, tmp_path / "c", PUBLIC_BASE_URL=base) as again:
        for token in (first, second, third):
            assert (await refresh(again, token["refresh_token"])).status == 400
        assert (await refresh(again, bystander["refresh_token"])).status == 200
        await again.post("/auth/v1/logout?scope=local", token=bystander["access_token"])
        assert (await refresh(again, bystander["refresh_token"])).json["code"] == "session_not_found"


#


@asynccontextmanager
async def behind_a_proxy(servers: Servers, redis_url: str, folder: Path, **more: str) -> AsyncIterator[Hub]:
    """Addresses are what X-Forwarded-For says, so that one machine can be a hundred."""
    async with running_hub(servers, redis_url, folder, HUB_TRUSTED_PROXIES="127.0.0.1", **more) as hub:
        yield hub


def frm(address: str) -> dict[str, str]:
    return {"X-Forwarded-For": address}


async def test_X08_a_thousand_guesses_from_a_hundred_networks_stay_few_and_lock_nobody_out(
    servers: Servers, valkey: EmbeddedValkey, tmp_path: Path, owner: Member, superuser: asyncpg.Connection
) -> None:
    async with behind_a_proxy(servers, valkey.url, tmp_path) as hub:
        home = frm("198.51.100.7")
        await hub.sign_in(owner.email, headers=home)
        gate = asyncio.Semaphore(20)
        argon = 0

        async def guess(n: int) -> int:
            nonlocal argon
            async with gate:
                body = {"email": owner.email, "password": f"guess number {n}"}
                answer = await hub.post(f"{TOKEN}password", json=body, headers=frm(f"203.0.{n % 100}.9"))
                argon = max(argon, len(hub.app[PASSWORDS]._pool._threads))
                return answer.status

        statuses = await asyncio.gather(*(guess(n) for n in range(1000)))
        tried = statuses.count(400)
        assert set(statuses) == {400, 429}
        assert tried <= 50 + 20, "fifty of an account, and those that were under way"
        assert argon <= 2
        assert (await hub.post(f"{TOKEN}password", json={"email": owner.email, "password": PASSWORD},
                               headers=frm("203.0.1.9"))).status == 429, "elsewhere it waits"  # fmt: skip
        session = await hub.sign_in(owner.email, headers=home)
        assert session["access_token"], "the owner signs in where he did before"
        there = await superuser.fetchval("select app.sign_in_delay($1, '198.51.100.0/24')", owner.email)
        assert there == 0


async def test_X08_a_thousand_accounts_from_one_address_are_stopped(
    servers: Servers, valkey: EmbeddedValkey, tmp_path: Path
) -> None:
    async with behind_a_proxy(servers, valkey.url, tmp_path, HUB_RATE_ADDRESS="1000000") as hub:
        gate = asyncio.Semaphore(10)

        async def guess(n: int, address: str) -> int:
            async with gate:
                body = {"email": f"user{n}@example.test", "password": PASSWORD}
                return (await hub.post(f"{TOKEN}password", json=body, headers=frm(address))).status

        statuses = await asyncio.gather(*(guess(n, f"203.0.113.{n % 250}") for n in range(400)))
        assert set(statuses) == {400, 429} and statuses.count(400) <= 100 + 10
        six = await asyncio.gather(*(guess(n, f"2001:db8::{n:x}") for n in range(200)))
        assert set(six) == {400, 429} and six.count(400) <= 100 + 10, "a /64 is one network"
        assert await guess(1, "198.51.100.1") == 400, "somebody else is not hindered"


async def test_X08_strangers_are_counted_by_network_over_IPv6(
    servers: Servers, valkey: EmbeddedValkey, tmp_path: Path
) -> None:
    async with behind_a_proxy(servers, valkey.url, tmp_path, HUB_RATE_ADDRESS="5") as hub:
        site = f"2001:db8:{random.SystemRandom().randrange(1 << 16):x}:1"
        statuses = [
            (await hub.get("/rest/v1/contacts", token="x", headers=frm(f"{site}::{n:x}"))).status
            for n in range(1, 9)
        ]
        assert statuses == [401] * 5 + [429] * 3


async def test_X08_nobody_learns_who_has_an_account(
    servers: Servers,
    valkey: EmbeddedValkey,
    tmp_path: Path,
    superuser: asyncpg.Connection,
    password_hash: str,
) -> None:
    """Text, status, headers and time are those of an address without an account. Known are: members, a user
    without password, one who was never confirmed, one who is banned."""
    async with behind_a_proxy(servers, valkey.url, tmp_path) as hub:
        org = await make_org(superuser)
        members = [await make_member(superuser, org, "AGENT", password_hash) for _ in range(12)]
        odd = [await make_member(superuser, org, "AGENT", h) for h in (None, password_hash, password_hash)]
        await superuser.execute("update auth.users set email_confirmed_at = null where id = $1", odd[1].id)
        await superuser.execute("update auth.users set banned_until = 'infinity' where id = $1", odd[2].id)
        networks = iter(f"10.{a}.{b}.1" for a in range(1, 250) for b in range(250))

        async def attempt(email: str) -> tuple[Answer, float]:
            body = {"email": email, "password": "wrong horse battery"}
            headers = {**frm(next(networks)), "X-Request-Id": "the-same-id"}
            began = time.perf_counter()
            answer = await hub.post(f"{TOKEN}password", json=body, headers=headers)
            return answer, time.perf_counter() - began

        unknown, _ = await attempt("nobody@example.test")
        for member in (*members[:2], *odd):
            known, _ = await attempt(member.email)
            assert (known.status, known.body) == (unknown.status, unknown.body)
            assert [*known.headers] == [*unknown.headers]
        turn = iter(range(10**6))

        async def of_a_member() -> float:
            return (await attempt(members[next(turn) % len(members)].email))[1]

        async def of_nobody() -> float:
            return (await attempt(f"nobody{next(turn)}@example.test"))[1]

        await of_nobody()
        seen = await told_apart(of_a_member, of_nobody, pairs=120, effect=0.05)
        assert seen is None, seen


#


async def test_X09_keys_that_are_not_quite_right_open_nothing(
    hub: Hub, org: Org, owner: Member, superuser: asyncpg.Connection
) -> None:
    neighbour = await make_org(superuser)
    await make_contact(superuser, neighbour, first_name="Canary")
    key, _ = await make_key(hub, superuser, org)
    theirs, _ = await make_key(hub, superuser, neighbour)
    await superuser.execute(
        "update api_keys set key_prefix = $1 where organization_id = $2", prefix_of(key), neighbour.id
    )  # two keys may begin alike
    path = "/functions/v1/list-organizations"
    assert (await hub.get(path, key=key)).status == 200
    assert (await hub.get(path, key=f" {key}\t")).status == 200, "blanks around a value are not of it"
    wrong = [
        prefix_of(key), prefix_of(key) + "a" * 35, key[:-1], key + "a",
        key[:-1] + ("a" if key[-1] != "a" else "b"),
        key.swapcase(), key.upper(), key.lower(), "CG_" + key[3:], key[:11] + theirs[11:],
        theirs[:11] + key[11:],
        f"{key[:20]} {key[20:]}", key.replace("cg_", "cg-"), f'"{key}"', f"{key},{key}", "cg_" + "0" * 43,
        hashlib.sha256(key.encode()).hexdigest(), "cg_%", "cg_' or '1'='1", key + "\u200b",
    ]  # fmt: skip
    for text in wrong:
        assert text != key
        for options in ({"key": text}, {"token": text}):
            try:
                answer = await hub.get(path, **options)  # type: ignore[arg-type]
            except ValueError:
                continue  # the client itself refuses to send it
            assert answer.status == 401, (text, answer)
            assert answer.json["code"] in ("INVALID_API_KEY", "AUTHENTICATION_FAILED")
    for query in (
        f"?apikey={key}",
        f"?api_key={key}",
        f"?x-api-key={key}",
        f"?access_token={key}",
        f"?key={key}",
    ):
        assert (await hub.get(path + query)).status == 401, "not in the address"
        assert (await hub.get(f"/rest/v1/contacts{query}")).status == 401
    assert (await hub.get(path, headers={"apikey": key})).status == 401
    assert (await hub.get(path, headers={"Cookie": f"apikey={key}"})).status == 401
    assert (await hub.get("/rest/v1/contacts", key=key)).json == [], "and nothing of the neighbour's"
    assert len((await hub.get("/rest/v1/contacts", key=theirs)).json) == 1


async def test_X09_a_key_ends_when_it_says_and_when_it_is_revoked(
    hub: Hub, org: Org, superuser: asyncpg.Connection
) -> None:
    path = "/functions/v1/list-organizations"
    key, row = await make_key(hub, superuser, org)
    brief, brief_row = await make_key(hub, superuser, org)
    await superuser.execute(
        "update api_keys set expires_at = now() + interval '1 hour' where id = $1", brief_row
    )
    assert [(await hub.get(path, key=k)).status for k in (key, brief)] == [200, 200]
    try:
        clock.set_offset(3599)
        assert (await hub.get(path, key=brief)).status == 200
        clock.set_offset(3602)
        assert (await hub.get(path, key=brief)).json["code"] == "INVALID_API_KEY", "over by a second"
    finally:
        clock.set_offset(0)
    await superuser.execute("update api_keys set revoked_at = now() where id = $1", row)

    async def is_refused() -> bool:
        return (await hub.get(path, key=key)).status == 401

    await until(is_refused, timeout_s=6, what="the revoked key to be refused")


@pytest.mark.parametrize(
    "path", ["/rest/v1/x-webhook", "/rest/v1/contacts/x-webhook", "/functions/v1/x-webhook"]
)
async def test_X09_an_address_that_ends_like_a_providers_is_no_way_round_the_limits(
    servers: Servers, valkey: EmbeddedValkey, tmp_path: Path, path: str
) -> None:
    """Providers are not counted; guesses are, wherever they are made."""
    async with behind_a_proxy(servers, valkey.url, tmp_path, HUB_RATE_ADDRESS="5") as hub:
        home = frm(f"2001:db8:{random.SystemRandom().randrange(1 << 16):x}:2::1")
        statuses = [(await hub.get(path, key="cg_" + "a" * 43, headers=home)).status for _ in range(8)]
        assert 429 not in statuses[:5] and statuses[5:] == [429] * 3
        providers = [(await hub.post(whatsapp.PATH, data=b"{}", headers=home)).status for _ in range(8)]
        assert set(providers) == {401}


async def test_X09_time_does_not_tell_a_known_prefix_from_an_unknown_one(
    hub: Hub, org: Org, superuser: asyncpg.Connection
) -> None:
    auth = hub.app[AUTH]
    known = [(await make_key(hub, superuser, org))[0] for _ in range(20)]
    alphabet = "abcdefghijklmnopqrstuvwxyz"
    rng = random.Random(9)

    async def cost(key: str) -> float:
        began = time.perf_counter()
        with pytest.raises(Exception, match="not valid"):
            await auth.principal_of_key(key)
        return time.perf_counter() - began

    async def guess_behind_a_prefix() -> float:
        return await cost(rng.choice(known)[:11] + "".join(rng.choices(alphabet, k=35)))

    async def guess_blindly() -> float:
        return await cost("cg_" + "".join(rng.choices(alphabet, k=43)))

    seen = await told_apart(guess_behind_a_prefix, guess_blindly, pairs=300, effect=0.2)
    assert seen is None, seen


async def test_I08_time_does_not_tell_how_much_of_a_signature_is_right() -> None:
    body = secrets.token_bytes(200)
    right = signing.meta_signature("app_secret_1", body)
    early = right[:7] + ("0" if right[7] != "0" else "1") + right[8:]
    late = right[:-1] + ("0" if right[-1] != "0" else "1")

    def cost(header: str) -> Any:
        async def sample() -> float:
            began = time.perf_counter()
            for _ in range(50):
                assert not signing.verify_meta(header, body, ["app_secret_1"])
            return time.perf_counter() - began

        return sample

    seen = await told_apart(cost(early), cost(late), pairs=400, effect=0.05)
    assert seen is None, seen


#


SETS: tuple[tuple[str, ...], ...] = ((), *((p,) for p in PERMISSIONS), tuple(PERMISSIONS))
CALLS = {
    "read": ("GET", "?limit=0", None),
    "insert": ("POST", "", []),
    "update": ("PATCH", "?created_at=is.null", {}),
    "delete": ("DELETE", "?created_at=is.null", None),
}


async def test_X10_role_times_permissions_times_route_is_the_permission_table(
    servers: Servers, valkey: EmbeddedValkey, tmp_path: Path, superuser: asyncpg.Connection, org: Org
) -> None:
    """Every table and verb, every function, and the socket, for each role with no permission, each single one
    and all; for keys as well. (Row policies against the same table: test_neighbours.py, X-02.)"""
    assert set(FUNCTION_NEEDS) == set(FUNCTIONS), "a new function says there what it needs"
    wrong: list[Any] = []
    async with (
        running_sandbox(tmp_path, "http://127.0.0.1:1/hook", stripe_key=STRIPE_KEY) as sandbox,
        running_hub(servers, valkey.url, tmp_path, **WIDE, **paid_by(f"{sandbox.url}/stripe")) as hub,
    ):
        gate = asyncio.Semaphore(8)

        async def look(
            who: dict[str, str], role: str | None, held: tuple[str, ...], table: str, verb: Any
        ) -> None:
            method, query, body = CALLS[verb]
            options = {"json": body} if body is not None else {}
            async with gate:
                answer = await hub.call(method, f"/rest/v1/{table}{query}", **who, **options)  # type: ignore[arg-type]
            allowed = missing(table, verb, role, frozenset(held)) is None
            if (answer.status != 403) != allowed or answer.status >= 500 or answer.status == 401:
                wrong.append((role, held, table, verb, answer))

        for role in (*ROLE_DEFAULTS, None):
            for held in SETS if role != "OWNER" else SETS[-1:]:  # an owner has them all, always
                if role is None:
                    who = {"key": (await make_key(hub, superuser, org, held))[0]}
                else:
                    flags = {p: p in held for p in PERMISSIONS}
                    member = await make_member(superuser, org, role, **flags)
                    who = {"token": await token_of(hub, superuser, member)}
                await asyncio.gather(*(look(who, role, held, t, v) for t in RULES for v in CALLS))
                for name, need in FUNCTION_NEEDS.items():
                    method = FUNCTIONS[name].methods[0]
                    path = name.replace("{id}", str(uuid4()))
                    options = {"json": {}} if method == "POST" and name != "leave-organization" else {}
                    if name == "leave-organization":
                        options = {"json": {"not": "yet"}}  # what is allowed would end the caller
                    answer = await hub.call(method, f"/functions/v1/{path}", **who, **options)  # type: ignore[arg-type]
                    allowed = need.admits(role, frozenset(held))
                    unknown = role is None and need.who == "person"  # a key is no person
                    if (
                        (answer.status == 401) != unknown
                        or (answer.status != 403) != allowed
                        or answer.status >= 500
                    ):
                        wrong.append((role, held, name, answer))
                async with hub.client.ws_connect(f"{hub.url}/ws") as ws:
                    await ws.send_json({"type": "hello", "token": next(iter(who.values())), "cursor": None})
                    message = await ws.receive(timeout=10)
                    opened = message.type is aiohttp.WSMsgType.TEXT and '"welcome"' in message.data
                    if opened != ("can_read_messages" in held) or not (opened or ws.close_code == 4403):
                        wrong.append((role, held, "socket", opened, ws.close_code))
    assert wrong == []


#


class Caller:
    """A token or key and its open socket, read from the start as browsers do."""

    def __init__(
        self, credential: str, ws: aiohttp.ClientWebSocketResponse, member: Member | None = None
    ) -> None:
        self.credential, self.ws, self.member = credential, ws, member
        self.frames: list[str] = []
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for message in self.ws:
            self.frames.append(message.data)

    async def closing_code(self) -> int | None:
        await asyncio.wait_for(asyncio.shield(self._reading), 12)
        return self.ws.close_code

    async def leave(self) -> None:
        await self.ws.close()
        await self._reading


async def enter(hub: Hub, credential: str, member: Member | None = None) -> Caller:
    assert (await hub.get("/rest/v1/contacts", token=credential)).status == 200
    ws = await hub.client.ws_connect(f"{hub.url}/ws")
    await ws.send_json({"type": "hello", "token": credential, "cursor": None})
    assert (await ws.receive_json())["type"] == "welcome"
    return Caller(credential, ws, member)


@pytest.mark.parametrize("redis", ["there", "away"])
async def test_X24_what_ends_a_caller_bites_in_five_seconds_everywhere(
    servers: Servers, valkey: EmbeddedValkey, tmp_path: Path, org: Org, superuser: asyncpg.Connection,
    password_hash: str, redis: str,
) -> None:  # fmt: skip
    """Deeds happen on one hub or in the database; the caller is on another: REST, a function and a socket.
    All deeds at once, so that five seconds are waited for once."""
    url = valkey.url if redis == "there" else "redis://127.0.0.1:1/0"
    async with (
        running_hub(servers, url, tmp_path / "a", **WIDE) as one,
        running_hub(
            servers, url, tmp_path / "b", PUBLIC_BASE_URL=one.settings.public_base_url, **WIDE
        ) as two,
    ):
        owner = await make_member(superuser, org, "OWNER", password_hash)

        async def caller() -> Caller:
            member = await make_member(superuser, org, "ADMIN", password_hash)
            return await enter(two, await one.token(member.email), member)

        async def deed(answer: Awaitable[Answer]) -> None:
            got = await answer
            assert got.status in (200, 204), got

        owners = await one.token(owner.email)
        out, disabled, banned, lowered, gone, changed, moved, deleted, standing = [
            await caller() for _ in range(9)
        ]
        key, key_id = await make_key(one, superuser, org)
        program = await enter(two, key)
        lasting = asyncio.create_task(_long_request(two, out.credential))

        def of(caller: Caller) -> UUID:
            assert caller.member is not None
            return caller.member.id

        await deed(one.post("/auth/v1/logout?scope=local", token=out.credential))
        off = {"is_active": False}
        await deed(one.patch(f"/rest/v1/profiles?id=eq.{of(disabled)}", token=owners, json=off))
        await superuser.execute("update auth.users set banned_until = 'infinity' where id = $1", of(banned))
        less = {"can_read_messages": False, "can_access_crm": False, "role": "AGENT"}
        await deed(one.patch(f"/rest/v1/memberships?user_id=eq.{of(lowered)}", token=owners, json=less))
        await superuser.execute("delete from memberships where user_id = $1", of(gone))
        elsewhere = await one.token(changed.member.email if changed.member else "")
        await deed(
            one.call("PUT", "/auth/v1/user", token=elsewhere, json={"password": "another horse battery"})
        )
        other = await make_org(superuser)
        joined = {
            "organization_id": other.id,
            "user_id": of(moved),
            "role": "AGENT",
            "can_read_messages": True,
        }
        await insert(superuser, "memberships", joined)
        there = {"organizationId": str(other.id)}
        await deed(one.post("/functions/v1/switch-organization", token=moved.credential, json=there))
        await superuser.execute("delete from auth.users where id = $1", of(deleted))
        past = {"revoked_at": "2026-01-01T00:00:00Z"}
        await deed(one.patch(f"/rest/v1/api_keys?id=eq.{key_id}", token=owners, json=past))

        async def bites() -> bool:
            for c, wanted in (
                (out, 401), (banned, 401), (changed, 401), (deleted, 401), (program, 401), (lowered, 403),
            ):  # fmt: skip
                for path in ("/rest/v1/contacts", "/functions/v1/events"):
                    found = (await two.get(path, token=c.credential)).status
                    if found != (200 if c is lowered and "events" in path else wanted):
                        return False
            for c in (disabled, gone, moved):  # signed in still, but no members here
                if (await two.get("/rest/v1/conversations", token=c.credential)).status == 200:
                    seen = await two.get("/rest/v1/profiles", token=c.credential)
                    if str(of(standing)) in seen.body.decode():
                        return False
            return True

        # Each process asks again after 5 s; the sixth is for the requests themselves.
        await until(bites, timeout_s=6, what="every deed to bite over HTTP")
        codes = [
            (out, {4401}), (banned, {4401}), (changed, {4401}), (deleted, {4401}), (program, {4401}),
            (lowered, {4012, 4403}), (disabled, {4401, 4403}), (gone, {4401, 4403}), (moved, {4012, 4401,
            4403}),
        ]  # fmt: skip
        assert [
            (n, c.ws.close_code) for n, (c, _) in enumerate(codes) if await c.closing_code() not in _
        ] == []
        await make_contact(superuser, org, first_name="Canary")
        assert await lasting in (201, 401, 503), "what had begun ends in words"
        await until(
            lambda: any("Canary" in f for f in standing.frames), what="the one who stays to hear of it"
        )
        assert (await two.get("/rest/v1/contacts?first_name=eq.Canary", token=standing.credential)).json != []
        for c in (disabled, gone, moved):
            answer = await two.get("/rest/v1/contacts?first_name=eq.Canary", token=c.credential)
            assert answer.status == 403 or b"Canary" not in answer.body, answer
        assert not any("Canary" in f for c, _ in codes for f in c.frames)
        await standing.leave()
        for c, wanted in ((lowered, 4403), (out, 4401), (program, 4401)):
            ws = await two.client.ws_connect(f"{two.url}/ws")
            await ws.send_json({"type": "hello", "token": c.credential, "cursor": None})
            await ws.receive()
            assert ws.close_code == wanted, "and nobody comes back"


async def _long_request(hub: Hub, token: str) -> int:
    """A request that is under way while its caller's session ends."""

    async def slowly() -> AsyncIterator[bytes]:
        yield b'{"first_name": '
        await asyncio.sleep(1)
        yield b'"slow"}'

    body, headers = slowly(), {"Content-Type": "application/json"}
    return (await hub.post("/rest/v1/contacts", token=token, data=body, headers=headers)).status
