"""Links and codes by mail: a new password, signing in without one, signing up, another address; and that
nobody learns from them who has an account."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit
from uuid import UUID, uuid4

import asyncpg
import jwt
import pytest

from hub.auth.mail import open_mail
from hub.auth.passwords import Passwords
from hub.db.embedded import EmbeddedValkey
from hub.resources import ACCOUNTS, AUTH, DB, LINKS
from tests.factories import Member, Org, Servers, make_member
from tests.server import PASSWORD, Answer, Hub, running_hub

TOKEN = "/auth/v1/token?grant_type="
NEW = "another horse battery"
NOBODY = "nobody@example.test"


class Mail:
    """A waiting mail, opened."""

    def __init__(self, row: asyncpg.Record, hub: Hub) -> None:
        self.template: str = row["template"]
        self.recipient: str = row["recipient"]
        self.only_if: str | None = row["only_if"]
        self.values = open_mail(hub.settings, row["id"], row["organization_id"], row["payload"])

    @property
    def token(self) -> str:
        link = urlsplit(self.values["link"])
        return (parse_qs(link.query).get("token") or parse_qs(link.fragment)["token_hash"])[0]

    @property
    def code(self) -> str:
        return self.values["code"]


async def mails(hub: Hub, superuser: asyncpg.Connection) -> list[Mail]:
    rows = await superuser.fetch("select * from app.mail_outbox order by created_at, id")
    return [Mail(row, hub) for row in rows]


async def mail_to(hub: Hub, superuser: asyncpg.Connection, to: str, template: str) -> Mail:
    (found,) = [m for m in await mails(hub, superuser) if (m.recipient, m.template) == (to, template)]
    return found


async def recover(hub: Hub, email: str, **options: Any) -> Answer:
    return await hub.post("/auth/v1/recover", json={"email": email}, **options)


async def verify(hub: Hub, **body: str) -> Answer:
    return await hub.post("/auth/v1/verify", json=body)


async def later(superuser: asyncpg.Connection) -> None:
    """Nobody has asked for anything within the last minutes."""
    await superuser.execute("update auth.one_time_tokens set created_at = created_at - interval '2 hours'")


# Recovery.


async def test_AUTH_07_a_recovery_link_signs_in_once_and_ends_with_the_password(
    hub: Hub, owner: Member, superuser: asyncpg.Connection
) -> None:
    assert (await recover(hub, owner.email.upper())).json == {}
    mail = await mail_to(hub, superuser, owner.email, "recovery")
    session = await verify(hub, type="recovery", token_hash=mail.token)
    assert session.status == 200, session
    token = session.json["access_token"]
    assert jwt.decode(token, options={"verify_signature": False})["amr"][0]["method"] == "recovery"
    again = await verify(hub, type="recovery", token_hash=mail.token)
    assert (again.status, again.json["code"]) == (403, "otp_expired")
    await later(superuser)
    await recover(hub, owner.email)
    second = await mail_to(hub, superuser, owner.email, "recovery")
    changed = await hub.call("PUT", "/auth/v1/user", token=token, json={"password": NEW})
    assert changed.status == 200
    ended = await verify(hub, type="recovery", token_hash=second.token)
    assert ended.json["code"] == "otp_expired", "a link of before the change"
    await hub.sign_in(owner.email, NEW)
    notice = await mail_to(hub, superuser, owner.email, "password_changed")
    assert "link" not in notice.values


@pytest.mark.parametrize("kind", ["signup", "magiclink", "invite", "email_change", "email"])
async def test_a_link_of_one_kind_opens_nothing_of_another(
    hub: Hub, owner: Member, superuser: asyncpg.Connection, kind: str
) -> None:
    await recover(hub, owner.email)
    mail = await mail_to(hub, superuser, owner.email, "recovery")
    assert (await verify(hub, type=kind, token_hash=mail.token)).json["code"] == "otp_expired"
    assert (await verify(hub, type=kind, email=owner.email, token=mail.code)).json["code"] == "otp_expired"
    assert (await verify(hub, type="recovery", token_hash=mail.token)).status == 200


async def test_links_run_out_and_are_kept_hashed(
    hub: Hub, owner: Member, superuser: asyncpg.Connection
) -> None:
    await recover(hub, owner.email)
    mail = await mail_to(hub, superuser, owner.email, "recovery")
    dump = str(await superuser.fetch("select t::text from auth.one_time_tokens t")) + str(
        await superuser.fetch("select m::text from app.mail_outbox m")
    )
    assert mail.token not in dump and mail.code not in dump
    assert hashlib.sha256(mail.code.encode()).hexdigest() not in dump, "eight digits need more than a hash"
    await superuser.execute("update auth.one_time_tokens set expires_at = now()")
    assert (await verify(hub, type="recovery", token_hash=mail.token)).json["code"] == "otp_expired"
    assert (await verify(hub, type="recovery", email=owner.email, token=mail.code)).status == 403


@pytest.mark.parametrize(
    "body",
    [
        {}, {"type": "recovery"}, {"type": "nonsense", "token_hash": "x" * 43},
        {"type": "recovery", "email": "a@b.test"},
        {"type": "sms", "token": "123456", "phone": "+201000000000"},
    ],
)  # fmt: skip
async def test_bodies_that_name_no_link(hub: Hub, body: dict[str, str]) -> None:
    answer = await hub.post("/auth/v1/verify", json=body)
    assert (answer.status, answer.json["code"]) == (400, "validation_failed")


@pytest.mark.parametrize(
    "token", ["x", "x" * 43, "ü" * 43, "a" * 4000, "' or 1=1 --' or 1=1 --", "\x00" * 43]
)
async def test_made_up_links(hub: Hub, token: str) -> None:
    answer = await verify(hub, type="recovery", token_hash=token)
    assert (answer.status, answer.json["code"]) == (403, "otp_expired")


async def test_asking_again_waits_a_minute_and_longer_each_time(
    hub: Hub, owner: Member, superuser: asyncpg.Connection
) -> None:
    for email in (owner.email, NOBODY):
        assert (await recover(hub, email)).status == 200
        soon = await recover(hub, email)
        assert (soon.status, soon.json["code"]) == (429, "over_email_send_rate_limit")
        assert 50 <= int(soon.headers["Retry-After"]) <= 60
    await superuser.execute(
        "update auth.one_time_tokens set sends = 8, created_at = now() - interval '20 minutes'"
    )
    for email in (owner.email, NOBODY):
        assert int((await recover(hub, email)).headers["Retry-After"]) > 60
    await superuser.execute("update auth.one_time_tokens set sends = 1000, created_at = now()")
    assert int((await recover(hub, owner.email)).headers["Retry-After"]) <= 3600


async def test_one_network_does_not_write_to_everybody(
    servers: Servers, valkey: EmbeddedValkey, tmp_path: Path
) -> None:
    site = f"2001:db8:{uuid4().hex[:4]}:7"
    async with running_hub(
        servers, valkey.url, tmp_path, HUB_RATE_MAIL="5", HUB_TRUSTED_PROXIES="127.0.0.1"
    ) as hub:
        answers = [
            await recover(hub, f"x{n}@example.test", headers={"X-Forwarded-For": f"{site}::{n:x}"})
            for n in range(7)
        ]
        elsewhere = await recover(hub, "y@example.test", headers={"X-Forwarded-For": f"{site[:-1]}8::1"})
    assert [a.status for a in answers] == [200] * 5 + [429] * 2 and elsewhere.status == 200
    assert answers[-1].json["code"] == "over_email_send_rate_limit"
    assert int(answers[-1].headers["Retry-After"]) >= 1


# Who has an account stays unknown.


class Counting(Passwords):
    """Counts what costs."""

    count = 0

    async def verify(self, stored: str | None, password: str) -> bool:
        self.count += 1
        return await super().verify(stored, password)

    async def hash(self, password: str) -> str:
        self.count += 1
        return await super().hash(password)


@pytest.fixture
async def counting(hub: Hub) -> AsyncIterator[Counting]:
    found = Counting()
    hub.app[ACCOUNTS]._passwords = hub.app[LINKS]._passwords = found
    yield found
    found.close()


async def work_of(
    hub: Hub, superuser: asyncpg.Connection, counting: Counting, path: str, body: dict[str, Any]
) -> tuple[Any, ...]:
    """What one request costs: calls of each SQL function, and argon2 runs; with what was answered."""
    before, argon = await _calls(hub, superuser), counting.count
    answer = await hub.post(path, json=body, headers={"X-Request-Id": "the-same-id"})
    calls = {name: n - before.get(name, 0) for name, n in (await _calls(hub, superuser)).items()}
    return (
        {name: n for name, n in calls.items() if n}, counting.count - argon, answer.status, [*answer.headers],
        answer,
    )  # fmt: skip


async def _calls(hub: Hub, superuser: asyncpg.Connection) -> dict[str, int]:
    """So far. Whoever was asked last is asked next, so this is the connection that did the work."""
    async with hub.app[DB].connection("api") as conn:
        await conn.execute("select pg_stat_force_next_flush()")
    rows = await superuser.fetch("select funcname, sum(calls) as n from pg_stat_user_functions group by 1")
    return {row["funcname"]: int(row["n"]) for row in rows}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/auth/v1/recover", {}), ("/auth/v1/otp", {"create_user": True}), ("/auth/v1/magiclink", {}),
        ("/auth/v1/resend", {"type": "signup"}), (f"{TOKEN}password", {"password": "wrong horse battery"}),
        ("/auth/v1/verify", {"type": "recovery", "token": "12345678"}),
        ("/auth/v1/verify", {"type": "email", "token": "12345678"}),
    ],
)  # fmt: skip
async def test_X08_an_address_without_an_account_costs_and_says_the_same(
    servers: Servers, valkey: EmbeddedValkey, tmp_path: Path, owner: Member, superuser: asyncpg.Connection,
    path: str, body: dict[str, Any],
) -> None:  # fmt: skip
    """Compared is the work: calls of SQL functions, argon2, rows left behind; then status, headers, text."""
    name = urlsplit(servers.database_url).path[1:]
    await superuser.execute(f"alter database {name} set track_functions = 'all'")
    async with running_hub(servers, valkey.url, tmp_path) as hub:
        counting = Counting()
        hub.app[ACCOUNTS]._passwords = hub.app[LINKS]._passwords = counting
        await work_of(hub, superuser, counting, path, {**body, "email": "warm-up@example.test"})
        await superuser.execute("delete from app.mail_outbox; delete from auth.one_time_tokens")
        known = await work_of(hub, superuser, counting, path, {**body, "email": owner.email})
        left = await _left(superuser, owner.email)
        await superuser.execute("delete from app.mail_outbox; delete from auth.one_time_tokens")
        unknown = await work_of(hub, superuser, counting, path, {**body, "email": NOBODY})
        counting.close()
    assert known[:4] == unknown[:4]
    assert known[4].body == unknown[4].body
    assert sum(known[0].values()) > 0, "the calls were counted"
    assert left == await _left(superuser, NOBODY)


async def _left(superuser: asyncpg.Connection, email: str) -> list[tuple[Any, ...]]:
    rows = await superuser.fetch(
        "select kind, data, wrong_codes, sends, length(token_hash), length(code_hash)"
        " from auth.one_time_tokens where email = $1", email
    )  # fmt: skip
    sent = await superuser.fetch(
        "select template, only_if, state, length(payload) - length(recipient) * 4 / 3 from app.mail_outbox"
        " where recipient = $1", email
    )  # fmt: skip
    return [tuple(row) for row in rows] + [tuple(row)[:3] for row in sent]


async def test_X08_look_alike_addresses_reach_nobodys_account(
    hub: Hub, superuser: asyncpg.Connection, org: Org, password_hash: str
) -> None:
    kate = await make_member(superuser, org, "AGENT", password_hash)
    await superuser.execute("update auth.users set email = 'kate@example.test' where id = $1", kate.id)
    for look_alike in ("\u212aate@example.test", "k\u0430te@example.test", "kate@exampl\u0435.test"):
        signed = await hub.post(f"{TOKEN}password", json={"email": look_alike, "password": PASSWORD})
        assert (signed.status, signed.json["code"]) == (400, "invalid_credentials")
        asked = await recover(hub, look_alike)
        assert (asked.status, asked.json["code"]) == (400, "validation_failed")
    assert await mails(hub, superuser) == []
    with pytest.raises(asyncpg.CheckViolationError):
        await superuser.execute("insert into auth.users (email) values ('k\u0430te@example.test')")


# Codes.


async def test_a_code_signs_in_and_the_fifth_wrong_one_ends_it_but_not_the_link(
    hub: Hub, owner: Member, superuser: asyncpg.Connection
) -> None:
    await hub.post("/auth/v1/otp", json={"email": owner.email})
    mail = await mail_to(hub, superuser, owner.email, "magiclink")
    assert len(mail.code) == 8 and mail.code.isdigit()
    good = await verify(hub, type="email", email=owner.email.upper(), token=mail.code)
    assert good.status == 200 and good.json["user"]["email"] == owner.email
    assert (await verify(hub, type="email", email=owner.email, token=mail.code)).status == 403
    await later(superuser)
    await hub.post("/auth/v1/otp", json={"email": owner.email})
    mail = await mail_to(hub, superuser, owner.email, "magiclink")
    wrong = "00000000" if mail.code != "00000000" else "00000001"
    for _ in range(5):
        answer = await verify(hub, type="email", email=owner.email, token=wrong)
        assert (answer.status, answer.json["code"]) == (403, "otp_expired")
    assert (await verify(hub, type="email", email=owner.email, token=mail.code)).status == 403
    assert (await verify(hub, type="magiclink", token_hash=mail.token)).status == 200, "the link stays good"
    noted = await superuser.fetch("select details from audit_log where action = 'sign_in.failed'")
    assert [row["details"] for row in noted] == ['{"reason": "invalid_code"}'] * 7


async def test_X08_guessing_codes_is_delayed_like_guessing_passwords(
    hub: Hub, owner: Member, superuser: asyncpg.Connection
) -> None:
    statuses = [
        (await verify(hub, type="recovery", email=owner.email, token=f"{n:08d}")).status for n in range(12)
    ]
    assert statuses[:10] == [403] * 10 and 429 in statuses[10:]


# Links in a browser.


async def test_a_followed_link_lands_with_the_session_behind_the_hash(
    hub: Hub, owner: Member, superuser: asyncpg.Connection
) -> None:
    await recover(hub, owner.email)
    mail = await mail_to(hub, superuser, owner.email, "recovery")
    link = urlsplit(mail.values["link"])
    assert mail.values["link"].startswith(f"{hub.settings.public_base_url}/auth/v1/verify?")
    landed = await hub.get(f"{link.path}?{link.query}")
    assert (landed.status, landed.body) == (303, b"")
    place = urlsplit(landed.headers["Location"])
    assert f"{place.scheme}://{place.netloc}" == hub.settings.public_base_url
    told = {name: values[0] for name, values in parse_qs(place.fragment).items()}
    assert told.keys() == {
        "access_token", "expires_at", "expires_in", "refresh_token", "token_type", "type"
    }  # fmt: skip
    assert (told["type"], told["token_type"], place.query) == ("recovery", "bearer", "")
    assert (await hub.get("/auth/v1/user", token=told["access_token"])).status == 200
    assert landed.headers["Cache-Control"] == "no-store"
    used = await hub.get(f"{link.path}?{link.query}")
    told = {n: v[0] for n, v in parse_qs(urlsplit(used.headers["Location"]).fragment).items()}
    assert (used.status, told["error_code"], told["error"]) == (303, "otp_expired", "access_denied")


async def test_the_apps_own_link_keeps_its_token_behind_the_hash(
    hub: Hub, owner: Member, superuser: asyncpg.Connection
) -> None:
    await recover(hub, owner.email, headers={"X-Hub-Client": "web"})
    mail = await mail_to(hub, superuser, owner.email, "recovery")
    link = urlsplit(mail.values["link"])
    assert (link.path, link.query) == ("/confirm", "")
    opened = await hub.post(
        "/auth/v1/verify",
        json={"type": parse_qs(link.fragment)["type"][0], "token_hash": mail.token},
        headers={"X-Hub-Client": "web"},
    )
    assert opened.json["refresh_token"] == "" and "HttpOnly" in opened.headers["Set-Cookie"]
    foreign = await hub.post(
        "/auth/v1/verify", json={"type": "recovery", "token_hash": mail.token},
        headers={"X-Hub-Client": "web", "Origin": "https://evil.example"},
    )  # fmt: skip
    assert (foreign.status, foreign.json["code"]) == (403, "bad_origin"), "nobody plants his own session"


REDIRECTS = [
    "https://evil.example/", "//evil.example", "/\\evil.example", "javascript:alert(1)", "https:evil.example",
    "https://listed.example@evil.example/", "https://listed.example.evil.example/",
    "https://evil.example#https://listed.example", "http://listed.example/", "https://listed.example:444/",
    "https://listed.example\\@evil.example/", "data:text/html,x",
    "https://listed.example:443:1/", "https://[::1", "\thttps://evil.example", "https://listed\u3002example/",
    "https://user:x@listed.example/", "",
]  # fmt: skip


async def test_X19_no_link_leads_off_the_listed_pages(
    servers: Servers, valkey: EmbeddedValkey, tmp_path: Path
) -> None:
    async with running_hub(
        servers, valkey.url, tmp_path, HUB_ALLOWED_ORIGINS="https://listed.example"
    ) as hub:
        base = hub.settings.public_base_url
        for wanted in REDIRECTS:
            path = f"/auth/v1/verify?type=recovery&token={'x' * 43}&redirect_to={quote(wanted)}"
            place = (await hub.get(path)).headers["Location"]
            assert place.partition("#")[0] == base, wanted
        for wanted in ("https://listed.example/path?x=1", f"{base}/inbox", "https://LISTED.example/"):
            path = f"/auth/v1/verify?type=recovery&token={'x' * 43}&redirect_to={quote(wanted)}"
            place = (await hub.get(path)).headers["Location"]
            assert place.partition("#")[0] == wanted


def challenge_of(verifier: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")


async def test_15_2_the_pkce_flow(hub: Hub, owner: Member, superuser: asyncpg.Connection) -> None:
    verifier = "v" * 56

    async def flow() -> str:
        await later(superuser)
        asked = await hub.post(
            "/auth/v1/recover",
            json={
                "email": owner.email, "code_challenge": challenge_of(verifier),
                "code_challenge_method": "s256",
            },
        )  # fmt: skip
        assert asked.status == 200, asked
        link = urlsplit((await mail_to(hub, superuser, owner.email, "recovery")).values["link"])
        place = urlsplit((await hub.get(f"{link.path}?{link.query}")).headers["Location"])
        assert place.fragment == "", "no session in the address"
        return parse_qs(place.query)["code"][0]

    async def exchange(code: str, text: str) -> Answer:
        return await hub.post(f"{TOKEN}pkce", json={"auth_code": code, "code_verifier": text})

    code = await flow()
    wrong = await exchange(code, "w" * 56)
    assert (wrong.status, wrong.json["code"]) == (400, "bad_code_verifier")
    spent = await exchange(code, verifier)
    assert (spent.status, spent.json["code"]) == (404, "flow_state_not_found"), "one guess a code"
    code = await flow()
    session = await exchange(code, verifier)
    assert session.status == 200 and session.json["user"]["email"] == owner.email
    assert (await exchange(code, verifier)).json["code"] == "flow_state_not_found"
    code = await flow()
    await superuser.execute("update auth.one_time_tokens set expires_at = now() where kind = 'pkce'")
    assert (await exchange(code, verifier)).json["code"] == "flow_state_not_found"
    assert (await exchange("", "")).json["code"] == "validation_failed"
    short = {"email": owner.email, "code_challenge": "short", "code_challenge_method": "s256"}
    assert (await hub.post("/auth/v1/recover", json=short)).json["code"] == "validation_failed"


# Signing up.


@pytest.fixture
async def open_hub(servers: Servers, valkey: EmbeddedValkey, tmp_path: Path) -> AsyncIterator[Hub]:
    async with running_hub(servers, valkey.url, tmp_path, HUB_SIGNUP="on") as found:
        yield found


async def sign_up(hub: Hub, email: str, password: str = NEW, **more: Any) -> Answer:
    return await hub.post("/auth/v1/signup", json={"email": email, "password": password, **more})


async def test_15_2_a_sign_up_is_confirmed_by_its_link(open_hub: Hub, superuser: asyncpg.Connection) -> None:
    made = await sign_up(open_hub, "New@Example.test", data={"locale": "ar"})
    assert made.status == 200 and "access_token" not in made.json
    assert made.json["email"] == "new@example.test" and made.json["confirmation_sent_at"].endswith("Z")
    early = await open_hub.post(f"{TOKEN}password", json={"email": "new@example.test", "password": NEW})
    assert early.json["code"] == "email_not_confirmed"
    mail = await mail_to(open_hub, superuser, "new@example.test", "signup")
    session = await verify(open_hub, type="signup", token_hash=mail.token)
    assert session.json["user"]["user_metadata"] == {"locale": "ar"}
    assert "organization_id" not in session.json["user"]["app_metadata"]
    token = (await open_hub.sign_in("new@example.test", NEW))["access_token"]
    assert (await open_hub.get("/rest/v1/contacts", token=token)).json == []


async def test_X08_signing_up_with_a_known_address_looks_and_costs_the_same(
    open_hub: Hub, owner: Member, superuser: asyncpg.Connection, counting_open: Counting
) -> None:
    answers = []
    for email in (owner.email, NOBODY):
        before = counting_open.count
        answers.append(await sign_up(open_hub, email, data={"a": 1}))
        assert counting_open.count - before == 1
    known, unknown = answers
    assert known.status == unknown.status == 200
    assert known.json.keys() == unknown.json.keys()
    for answer, email in ((known, owner.email), (unknown, NOBODY)):
        identity = answer.json["identities"][0]
        assert identity["identity_data"]["email_verified"] is False and answer.json["email"] == email
        assert "email_confirmed_at" not in answer.json and "last_sign_in_at" not in answer.json
        assert answer.json["user_metadata"] == {"a": 1}
    ids = {str(row["id"]) for row in await superuser.fetch("select id from auth.users")}
    assert not {known.json["id"], unknown.json["id"]} & ids, "neither id is anybody's"
    assert (await mail_to(open_hub, superuser, owner.email, "already_member")).values.keys() == {
        "link", "address"
    }  # fmt: skip
    assert (await mail_to(open_hub, superuser, NOBODY, "signup")).code
    again = [await sign_up(open_hub, email) for email in (owner.email, NOBODY)]
    assert [a.json["code"] for a in again] == ["over_email_send_rate_limit"] * 2
    await open_hub.sign_in(owner.email)  # the password is what it was


@pytest.fixture
async def counting_open(open_hub: Hub) -> AsyncIterator[Counting]:
    found = Counting()
    open_hub.app[ACCOUNTS]._passwords = open_hub.app[LINKS]._passwords = found
    yield found
    found.close()


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"email": "a@example.test", "password": "short"}, 422, "weak_password"),
        ({"email": "a@example.test", "password": "password1"}, 422, "weak_password"),
        ({"email": "a@example.test", "password": "x1y" * 100}, 422, "weak_password"),
        ({"email": "a@example.test"}, 400, "validation_failed"),
        ({"email": "no address", "password": NEW}, 400, "validation_failed"),
        ({"email": "\u0430@example.test", "password": NEW}, 400, "validation_failed"),
        ({}, 422, "anonymous_provider_disabled"),
        ({"phone": "+2010", "password": NEW}, 422, "phone_provider_disabled"),
        ({"email": "a@example.test", "password": NEW, "data": {"x": "y" * 20_000}}, 400, "validation_failed"),
    ],
)
async def test_refused_sign_ups(
    open_hub: Hub, superuser: asyncpg.Connection, body: dict[str, Any], status: int, code: str
) -> None:
    answer = await open_hub.post("/auth/v1/signup", json=body)
    assert (answer.status, answer.json["code"]) == (status, code)
    if code == "weak_password":
        assert answer.json["weak_password"]["reasons"] in (["length"], ["pwned"])
    assert await superuser.fetchval("select count(*) from auth.users") == 0


async def test_15_2_with_autoconfirm_a_sign_up_signs_in(
    servers: Servers, valkey: EmbeddedValkey, tmp_path: Path, superuser: asyncpg.Connection
) -> None:
    async with running_hub(
        servers, valkey.url, tmp_path, HUB_SIGNUP="on", HUB_SIGNUP_AUTOCONFIRM="on"
    ) as hub:
        made = await sign_up(hub, "new@example.test")
        assert (await hub.get("/auth/v1/user", token=made.json["access_token"])).status == 200
        taken = await sign_up(hub, "new@example.test")
        assert (taken.status, taken.json["code"]) == (422, "user_already_exists")
    assert await superuser.fetchval("select count(*) from app.mail_outbox") == 0


async def test_a_strangers_sign_up_does_not_become_a_way_into_its_owners_account(
    open_hub: Hub, superuser: asyncpg.Connection
) -> None:
    """Somebody signs up with another's address and a password; its owner confirms it by a link of her own:
    the password is gone."""
    await sign_up(open_hub, "victim@example.test", "the stranger's words")
    await open_hub.post("/auth/v1/otp", json={"email": "victim@example.test"})
    mail = await mail_to(open_hub, superuser, "victim@example.test", "magiclink")
    assert (await verify(open_hub, type="magiclink", token_hash=mail.token)).status == 200
    answer = await open_hub.post(
        f"{TOKEN}password", json={"email": "victim@example.test", "password": "the stranger's words"}
    )
    assert answer.json["code"] == "invalid_credentials"


async def test_15_2_a_sign_in_link_makes_an_account_where_sign_up_is_open(
    open_hub: Hub, superuser: asyncpg.Connection
) -> None:
    await open_hub.post("/auth/v1/otp", json={"email": "new@example.test", "data": {"a": 1}})
    mail = await mail_to(open_hub, superuser, "new@example.test", "magiclink")
    assert mail.only_if is None
    session = await verify(open_hub, type="email", email="new@example.test", token=mail.code)
    assert session.json["user"]["user_metadata"] == {"a": 1}
    await open_hub.post("/auth/v1/otp", json={"email": NOBODY, "create_user": False})
    mail = await mail_to(open_hub, superuser, NOBODY, "magiclink")
    assert mail.only_if == "user", "not sent"
    assert (await verify(open_hub, type="magiclink", token_hash=mail.token)).json["code"] == "otp_expired"
    assert await superuser.fetchval("select count(*) from auth.users") == 1


async def test_banned_users_links_open_nothing(
    hub: Hub, owner: Member, superuser: asyncpg.Connection
) -> None:
    await recover(hub, owner.email)
    mail = await mail_to(hub, superuser, owner.email, "recovery")
    await superuser.execute("update auth.users set banned_until = 'infinity'")
    answer = await verify(hub, type="recovery", token_hash=mail.token)
    assert (answer.status, answer.json["code"]) == (403, "user_banned")
    assert await superuser.fetchval("select count(*) from auth.sessions") == 0


# Another address, and confirming a change.


async def put_user(hub: Hub, token: str, **body: Any) -> Answer:
    return await hub.call("PUT", "/auth/v1/user", token=token, json=body)


async def test_15_2_an_address_changes_when_the_new_one_confirms(
    hub: Hub, owner: Member, agent: Member, superuser: asyncpg.Connection
) -> None:
    token = await hub.token(owner.email)
    await recover(hub, owner.email)
    old_link = await mail_to(hub, superuser, owner.email, "recovery")
    asked = await put_user(hub, token, email="Moved@Example.test")
    assert asked.status == 200
    assert (asked.json["email"], asked.json["new_email"]) == (owner.email, "moved@example.test")
    mail = await mail_to(hub, superuser, "moved@example.test", "email_change")
    taken = await put_user(hub, token, email=agent.email)
    assert (taken.status, taken.json["code"]) == (422, "email_exists")
    session = await verify(hub, type="email_change", token_hash=mail.token)
    assert session.json["user"]["email"] == "moved@example.test" and "new_email" not in session.json["user"]
    await hub.sign_in("moved@example.test")
    old = await hub.post(f"{TOKEN}password", json={"email": owner.email, "password": PASSWORD})
    assert old.json["code"] == "invalid_credentials"
    notice = await mail_to(hub, superuser, owner.email, "email_changed")
    assert notice.values == {"address": "moved@example.test"}
    row = await superuser.fetchrow(
        "select m.email, (select count(*) from audit_log where action = 'email.changed')"
        " from memberships m where user_id = $1", owner.id
    )  # fmt: skip
    assert tuple(row) == ("moved@example.test", 1)
    assert (await verify(hub, type="recovery", token_hash=old_link.token)).json["code"] == "otp_expired"


async def test_an_address_that_was_taken_meanwhile_is_not_taken_twice(
    hub: Hub, owner: Member, superuser: asyncpg.Connection
) -> None:
    await put_user(hub, await hub.token(owner.email), email="wanted@example.test")
    mail = await mail_to(hub, superuser, "wanted@example.test", "email_change")
    await superuser.execute("insert into auth.users (email) values ('wanted@example.test')")
    answer = await verify(hub, type="email_change", token_hash=mail.token)
    assert (answer.status, answer.json["code"]) == (422, "email_exists")
    await hub.sign_in(owner.email)


@pytest.mark.parametrize("change", [{"password": NEW}, {"email": "moved@example.test"}])
async def test_15_2_an_old_sign_in_confirms_before_it_changes_what_signs_in(
    hub: Hub, owner: Member, superuser: asyncpg.Connection, change: dict[str, str]
) -> None:
    token = await hub.token(owner.email)
    await superuser.execute("update auth.sessions set proved_at = now() - interval '16 minutes'")
    refused = await put_user(hub, token, **change)
    assert (refused.status, refused.json["code"]) == (400, "reauthentication_needed")
    wrong = await put_user(hub, token, **change, current_password="wrong horse")
    assert (wrong.status, wrong.json["code"]) == (400, "current_password_mismatch")
    assert (await put_user(hub, token, data={"theme": "dark"})).status == 200, "nothing that signs in"
    assert (await put_user(hub, token, **change, current_password=PASSWORD)).status == 200


async def test_15_2_a_code_by_mail_confirms_as_well(
    hub: Hub, owner: Member, superuser: asyncpg.Connection
) -> None:
    token = await hub.token(owner.email)
    await superuser.execute("update auth.sessions set proved_at = now() - interval '1 day'")
    assert (await hub.get("/auth/v1/reauthenticate", token=token)).json == {}
    mail = await mail_to(hub, superuser, owner.email, "reauthentication")
    assert "link" not in mail.values
    wrong = await put_user(hub, token, password=NEW, nonce="00000000x")
    assert (wrong.status, wrong.json["code"]) == (422, "reauthentication_not_valid")
    for kind in ("recovery", "magiclink", "email", "signup"):
        answer = await verify(hub, type=kind, email=owner.email, token=mail.code)
        assert answer.status == 403, "it signs nobody in"
    assert (await put_user(hub, token, password=NEW, nonce=mail.code)).status == 200
    again = await put_user(hub, token, password=PASSWORD + "!", nonce=mail.code)
    assert again.json["code"] == "reauthentication_not_valid"
    await hub.sign_in(owner.email, NEW)
    assert (await hub.get("/auth/v1/reauthenticate")).status == 401


# The service_role.


@pytest.fixture
async def service(hub: Hub) -> str:
    return (await hub.app[AUTH].keyring()).project_keys().service_role


async def test_15_2_users_as_the_service_role_keeps_them(
    hub: Hub, owner: Member, service: str, superuser: asyncpg.Connection
) -> None:
    body = {
        "email": "New@Example.test", "password": NEW, "email_confirm": True, "user_metadata": {"a": 1, "b": 2}
    }  # fmt: skip
    made = (await hub.post("/auth/v1/admin/users", token=service, json=body)).json
    await hub.sign_in("new@example.test", NEW)
    path = f"/auth/v1/admin/users/{made['id']}"
    listed = await hub.get("/auth/v1/admin/users?page=1&per_page=1", token=service)
    assert [u["id"] for u in listed.json["users"]] == [made["id"]] and listed.json["aud"]
    assert listed.headers["X-Total-Count"] == "2" and 'rel="next"' in listed.headers["Link"]
    assert len((await hub.get("/auth/v1/admin/users", token=service)).json["users"]) == 2
    change = {"user_metadata": {"a": None}, "app_metadata": {"plan": "x"}, "ban_duration": "24h"}
    changed = (await hub.call("PUT", path, token=service, json=change)).json
    assert changed["user_metadata"] == {"b": 2} and changed["app_metadata"]["plan"] == "x"
    banned = await hub.post(f"{TOKEN}password", json={"email": "new@example.test", "password": NEW})
    assert banned.json["code"] == "user_banned"
    assert "banned_until" in (await hub.get(path, token=service)).json
    await hub.call("PUT", path, token=service, json={"ban_duration": "none"})
    await hub.sign_in("new@example.test", NEW)
    taken = await hub.call("PUT", path, token=service, json={"email": owner.email})
    assert (taken.status, taken.json["code"]) == (422, "email_exists")
    assert (await hub.delete(path, token=service)).json == {}
    for answer in (await hub.get(path, token=service), await hub.delete(path, token=service)):
        assert (answer.status, answer.json["code"]) == (404, "user_not_found")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "admin/users"), ("POST", "admin/users"), ("GET", f"admin/users/{UUID(int=1)}"),
        ("PUT", f"admin/users/{UUID(int=1)}"), ("DELETE", f"admin/users/{UUID(int=1)}"), ("POST", "invite"),
        ("POST", "admin/generate_link"),
    ],
)  # fmt: skip
async def test_15_2_nobody_else_keeps_users(
    hub: Hub, owner: Member, superuser: asyncpg.Connection, method: str, path: str
) -> None:
    anon = (await hub.app[AUTH].keyring()).project_keys().anon
    for token in (await hub.token(owner.email), anon):
        answer = await hub.call(method, f"/auth/v1/{path}", token=token, json={})
        assert (answer.status, answer.json["code"]) == (403, "not_admin")
    assert (await hub.call(method, f"/auth/v1/{path}", json={})).json["code"] == "no_authorization"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, "validation_failed"), ({"email": "nonsense"}, "validation_failed"),
        ({"email": "a@example.test", "password": "short"}, "weak_password"),
        ({"email": "a@example.test", "ban_duration": "soon"}, "validation_failed"),
        ({"email": "a@example.test", "app_metadata": {"x": "y" * 20_000}}, "validation_failed"),
    ],
)  # fmt: skip
async def test_refused_users(hub: Hub, service: str, body: dict[str, Any], code: str) -> None:
    answer = await hub.post("/auth/v1/admin/users", token=service, json=body)
    assert answer.status in (400, 422) and answer.json["code"] == code


async def test_15_2_an_invited_user_chooses_a_password(
    hub: Hub, owner: Member, service: str, superuser: asyncpg.Connection
) -> None:
    body = {"email": "new@example.test", "data": {"a": 1}}
    made = await hub.post("/auth/v1/invite", token=service, json=body)
    assert made.status == 200 and made.json["invited_at"]
    mail = await mail_to(hub, superuser, "new@example.test", "invite")
    session = await verify(hub, type="invite", token_hash=mail.token)
    token = session.json["access_token"]
    assert (await put_user(hub, token, password=NEW)).status == 200
    await hub.sign_in("new@example.test", NEW)
    for known in ("new@example.test", owner.email):
        again = await hub.post("/auth/v1/invite", token=service, json={"email": known})
        assert (again.status, again.json["code"]) == (422, "email_exists")


@pytest.mark.parametrize("kind", ["signup", "invite", "magiclink", "recovery", "email_change_new"])
async def test_15_2_generated_links_are_not_mailed(
    hub: Hub, owner: Member, service: str, superuser: asyncpg.Connection, kind: str
) -> None:
    email = "new@example.test" if kind in ("signup", "invite") else owner.email
    body = {"type": kind, "email": email, "password": NEW, "new_email": "moved@example.test"}
    made = (await hub.post("/auth/v1/admin/generate_link", token=service, json=body)).json
    assert await superuser.fetchval("select count(*) from app.mail_outbox") == 0
    link = urlsplit(made["action_link"])
    assert parse_qs(link.query)["token"] == [made["hashed_token"]]
    session = await verify(hub, type=made["verification_type"], token_hash=made["hashed_token"])
    expected = "moved@example.test" if kind == "email_change_new" else email
    assert session.json["user"]["email"] == expected
    unknown = {"type": "recovery", "email": NOBODY}
    answer = await hub.post("/auth/v1/admin/generate_link", token=service, json=unknown)
    assert (answer.status, answer.json["code"]) == (404, "user_not_found")


# Sessions.


async def test_one_sees_and_ends_ones_own_sessions(hub: Hub, owner: Member, agent: Member) -> None:
    here, there = await hub.token(owner.email), await hub.token(owner.email)
    foreign = await hub.token(agent.email)
    rows = (await hub.get("/auth/v1/sessions", token=here)).json
    assert len(rows) == 2 and [row["is_current"] for row in rows] == [False, True]
    assert rows[0]["ip"] == "127.0.0.1" and rows[0]["organization"]
    other = (await hub.get("/auth/v1/sessions", token=foreign)).json[0]["id"]
    assert (await hub.delete(f"/auth/v1/sessions/{rows[0]['id']}", token=here)).status == 204
    assert (await hub.get("/auth/v1/user", token=there)).json["code"] == "session_not_found"
    for id_ in (rows[0]["id"], other, "nonsense"):
        assert (await hub.delete(f"/auth/v1/sessions/{id_}", token=here)).status == 404
    assert (await hub.get("/auth/v1/user", token=foreign)).status == 200


async def test_X07_fixation_a_sign_in_takes_over_no_session_that_was_there(
    hub: Hub, owner: Member, agent: Member
) -> None:
    """A cookie or session that somebody planted is replaced, never adopted."""
    web = {"X-Hub-Client": "web"}

    async def sign_in(email: str, **headers: str) -> Answer:
        body = {"email": email, "password": PASSWORD}
        return await hub.post(f"{TOKEN}password", json=body, headers={**web, **headers})

    planted = (await sign_in(agent.email)).headers["Set-Cookie"].partition(";")[0]
    signed = await sign_in(owner.email, Cookie=planted)
    mine = signed.headers["Set-Cookie"].partition(";")[0]
    assert mine != planted and signed.json["user"]["email"] == owner.email
    claims = [
        jwt.decode(text, options={"verify_signature": False})
        for text in (signed.json["access_token"], (await sign_in(owner.email)).json["access_token"])
    ]
    assert claims[0]["session_id"] != claims[1]["session_id"]
    again = await hub.post(f"{TOKEN}refresh_token", headers={**web, "Cookie": planted})
    assert again.json["user"]["email"] == agent.email, "the planted one is still its planter's alone"


async def test_X07_a_reused_refresh_token_is_told_to_the_organization(
    hub: Hub, org: Org, owner: Member, superuser: asyncpg.Connection
) -> None:
    first = (await hub.sign_in(owner.email))["refresh_token"]
    token = first
    for _ in range(2):
        renewed = await hub.post(f"{TOKEN}refresh_token", json={"refresh_token": token})
        token = renewed.json["refresh_token"]
    await superuser.execute(
        "update auth.refresh_tokens set used_at = used_at - interval '1 hour' where used_at is not null"
    )
    stolen = await hub.post(f"{TOKEN}refresh_token", json={"refresh_token": first})
    assert stolen.json["code"] == "refresh_token_already_used"
    row = await superuser.fetchrow("select * from audit_log where action = 'refresh_token.reused'")
    assert (row["organization_id"], row["actor_id"]) == (org.id, owner.id)


@pytest.mark.parametrize("length", [257, 10_000, 100_000])
async def test_oversized_passwords_are_refused_before_any_work(
    hub: Hub, owner: Member, superuser: asyncpg.Connection, counting: Counting, length: int
) -> None:
    answer = await hub.post(f"{TOKEN}password", json={"email": owner.email, "password": "x" * length})
    assert (answer.status, answer.json["code"]) == (400, "invalid_credentials")
    token = await hub.token(owner.email)
    before = counting.count
    weak = await put_user(hub, token, password="x1y" * length)
    assert (weak.status, weak.json["code"]) == (422, "weak_password")
    wrong = await put_user(hub, token, password=NEW, current_password="x" * length)
    assert wrong.json["code"] == "current_password_mismatch"
    assert counting.count == before
