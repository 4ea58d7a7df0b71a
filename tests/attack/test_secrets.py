"""Secrets that were put in come out nowhere: not in the database, its files, Valkey, the spool, logs, metrics
or answers (X-20, X-21); and a bug tells a request id and nothing else (X-28)."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import random
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
import redis
import structlog

from hub import logs
from hub.app import StartRefused
from hub.auth.secrets import CannotOpen, open_secret
from hub.channels.ingest import Delivery
from hub.channels.signing import meta_signature
from hub.channels.spool import frame
from hub.db.embedded import EmbeddedPostgres, EmbeddedValkey
from hub.functions.router import FUNCTIONS
from hub.resources import AUTH
from hub.rest.sealed import MASK
from hub.settings import load_settings
from tests import whatsapp
from tests.attack.far import FarHub, far_hub
from tests.attack.people import token_of
from tests.factories import Member, Org, Servers, make_member, make_org, until
from tests.fakes.stripe import paid_by
from tests.server import PASSWORD, SECRET_KEY, Hub, running_hub

REPRESENT = {"Prefer": "return=representation"}
KINDS = (
    "access_token", "app_secret", "bot_token", "webhook_secret", "smtpPassword", "api_key", "privateKey",
    "authorization",
    "client_secret", "refresh_token", "pin", "passphrase", "credentials",
)  # fmt: skip


def secret(n: int) -> str:
    """Long, and of a word that occurs nowhere else."""
    return f"planted{n:02d}-{random.Random(n).randbytes(12).hex()}-Zq9"


def shapes(text: str) -> dict[str, bytes]:
    """As it may lie somewhere."""
    raw = text.encode()
    found = {"as it is": raw, "hex": raw.hex().encode(), "HEX": raw.hex().upper().encode(),
    "backwards": raw[::-1],
             "UTF-16": text.encode("utf-16-le"), "escaped": json.dumps(text).encode()[1:-1]}  # fmt: skip
    for shift in range(3):  # base64 of a text that has it somewhere
        coded = base64.b64encode(b"x" * shift + raw)
        found[f"base64+{shift}"] = coded[4 * ((shift + 2) // 3) : -4]
    return found


class Planted:
    """Fifty secrets, one for each way in, and where they went."""

    def __init__(self) -> None:
        self.secrets: dict[str, str] = {}

    def new(self, where: str) -> str:
        text = self.secrets[where] = secret(len(self.secrets))
        return text

    def found_in(self, raw: bytes) -> list[str]:
        return [
            f"{where} ({shape})"
            for where, text in self.secrets.items()
            for shape, needle in shapes(text).items()
            if needle in raw
        ]


async def plant(hub: FarHub, planted: Planted) -> list[tuple[str, str, Any]]:
    """Fifty secrets through every path that takes one; what was answered, by path."""
    bearer = {"Authorization": f"Bearer {hub.token}", **REPRESENT}
    answers = []

    async def call(method: str, path: str, **options: Any) -> Any:
        options["headers"] = {**bearer, **options.get("headers", {})}
        answer = await hub.call(method, path, **options)
        answers.append((method, path, answer))
        return answer

    account = "/rest/v1/channel_accounts"
    for kind in KINDS:  # inserted, one by one and nested
        body = {
            "name": kind,
            "type": "TELEGRAM",
            "settings": {kind: planted.new(f"insert {kind}"), "shown": "yes"},
        }
        assert (await call("POST", account, json=body)).status == 201
    rows = [
        {"name": k, "type": "TELEGRAM", "settings": {"deep": {"deeper": {k: planted.new(f"nested {k}")}}}}
        for k in KINDS
    ]
    made = await call("POST", account, json=rows)
    assert made.status == 201
    first = f"{account}?id=eq.{made.json[0]['id']}"
    for kind in KINDS[:8]:  # patched over and over: each earlier value must be gone as well
        assert (
            await call("PATCH", first, json={"settings": {kind: planted.new(f"patch {kind}")}})
        ).status == 200
    for kind in KINDS[:4]:  # through an upsert, and with a key that keeps the answer
        body = {
            "id": str(uuid4()),
            "name": kind,
            "type": "TELEGRAM",
            "settings": {kind: planted.new(f"upsert {kind}")},
        }
        headers = {"Prefer": "resolution=merge-duplicates,return=representation", "Idempotency-Key": kind}
        for _ in range(2):
            assert (await call("POST", account, json=body, headers=headers)).status in (200, 201)
    organization = f"/rest/v1/organizations?id=eq.{hub.org.id}"
    body = {"settings": {"smtp": {"password": planted.new("organization")}}}
    assert (await call("PATCH", organization, json=body)).status == 200
    # those that are refused on their way
    refused = {"name": "x", "type": "NOTHING", "settings": {"token": planted.new("refused insert")}}
    assert (await call("POST", account, json=refused)).status >= 400
    broken = b'{"name": "x", "settings": {"token": "%s"' % planted.new("broken JSON").encode()
    assert (
        await call("POST", account, data=broken, headers={"Content-Type": "application/json"})
    ).status == 400
    send = {"to": "+201001383533", "message": "x", "accessToken": planted.new("whatsapp-cloud-send")}
    assert (await call("POST", "/functions/v1/whatsapp-cloud-send", json=send)).status == 422
    key = await call("POST", "/functions/v1/generate-api-key", json={"name": "k"})
    planted.secrets["generated key"] = key.json["api_key"]
    answers.pop()  # it is shown once, here
    for where, headers in (
        ("bearer", {"Authorization": f"Bearer {planted.new('bearer')}"}), ("X-API-Key",
        {"X-API-Key": f"cg_{planted.new('X-API-Key')}"}),
        ("apikey", {"apikey": planted.new("apikey")}), ("cookie",
        {"Cookie": f"hub-refresh={planted.new('cookie')}", "X-Hub-Client": "web"}),
        ("basic", {"Authorization": f"Basic {planted.new('basic')}"}),
    ):  # fmt: skip
        assert (await hub.call("POST", "/rest/v1/contacts", headers=headers, json={})).status == 401, where
        await hub.call("POST", "/auth/v1/token?grant_type=refresh_token", headers=headers)
    await hub.call("GET", f"/rest/v1/contacts?apikey={planted.new('query apikey')}")
    password = {"email": hub.owner.email, "password": planted.new("wrong password")}
    await hub.call("POST", "/auth/v1/token?grant_type=password", json=password)
    await hub.call(
        "POST",
        "/auth/v1/token?grant_type=refresh_token",
        json={"refresh_token": planted.new("refresh token")},
    )
    await hub.call(
        "POST", "/auth/v1/verify", json={"type": "recovery", "token_hash": planted.new("recovery token")}
    )
    await hub.call(
        "GET",
        f"{whatsapp.PATH}?hub.mode=subscribe&hub.challenge=1&hub.verify_token={planted.new('verify token')}",
    )
    put = {"password": planted.new("new password")}
    assert (await call("PUT", "/auth/v1/user", json=put)).status == 200
    planted.secrets["operator's key"] = SECRET_KEY
    planted.secrets["app secret"] = whatsapp.APP_SECRET
    planted.secrets["operator's verify token"] = whatsapp.VERIFY_TOKEN
    assert len(planted.secrets) >= 50, len(planted.secrets)
    return answers


async def test_X20_X21_what_was_planted_is_found_nowhere(
    servers: Servers, postgres: EmbeddedPostgres, valkey: EmbeddedValkey, tmp_path: Path, server_dir: Path
) -> None:
    """Fifty secrets through every way in; then: a dump of all tables, PostgreSQL's own files and log,
    Valkey's keys and file, the data folder, the hub's log, its metrics and every answer, in ten spellings."""
    planted = Planted()
    async with far_hub(servers, valkey.url, tmp_path) as hub:
        answers = await plant(hub, planted)
        pages = [(await hub.call("GET", path)).body for path in ("/metrics", "/readyz", "/config.json")]
        for table in ("channel_accounts", "organizations", "audit_log", "api_keys"):
            pages.append(
                (
                    await hub.call(
                        "GET", f"/rest/v1/{table}", headers={"Authorization": f"Bearer {hub.token}"}
                    )
                ).body
            )
        pages.append(
            (
                await hub.call(
                    "GET", "/functions/v1/events?limit=1000", headers={"Authorization": f"Bearer {hub.token}"}
                )
            ).body
        )
        assert MASK.encode() in b"".join(pages), "secrets are shown as a mask"
        conn = await asyncpg.connect(servers.migrate_url)
        dump = []
        for table in await conn.fetch(
            "select format('%I.%I', schemaname, tablename) as t from pg_tables"
            " where schemaname in ('app', 'public', 'auth')"
        ):
            dump += [row[0].encode() for row in await conn.fetch(f"select x::text from {table['t']} x")]
        sealed = await conn.fetchval("select count(*) from app.secrets")
        assert sealed >= 20 and len(dump) > 100
        await conn.execute("checkpoint")
        await conn.close()
        hub_log = hub.log.read_bytes()
    places = {
        "tables": b"\n".join(dump), "answers": repr([(m, p, a.headers, a.body) for m, p,
        a in answers]).encode(),
        "pages": b"\n".join(pages), "log of the hub": hub_log, "Valkey": _valkey(valkey),
    }  # fmt: skip
    for folder in (server_dir, tmp_path):
        for path in folder.rglob("*"):
            if path.is_file() and not path.is_symlink():
                places[str(path)] = path.read_bytes()
    assert len(places) > 500, "PostgreSQL's files, its write-ahead log among them"
    found = await asyncio.to_thread(
        lambda: {name: hits for name, raw in places.items() if (hits := planted.found_in(raw))}
    )
    assert found == {}


def _valkey(valkey: EmbeddedValkey) -> bytes:
    """Every key with what it holds."""
    client = redis.Redis.from_url(valkey.url)
    try:
        return b"\n".join(key + b"=" + bytes(client.dump(key) or b"") for key in client.keys("*"))
    finally:
        client.close()


def test_X20_the_search_finds_what_is_there() -> None:
    """The needles of the test above are good."""
    planted = Planted()
    text = planted.new("here")
    raw = text.encode()
    for hay in (raw, raw.hex().encode(), base64.b64encode(raw), base64.b64encode(b"a" + raw),
    base64.b64encode(b"ab" + raw + b"c"),
                json.dumps({"x": text}).encode(), text.encode("utf-16-le")):  # fmt: skip
        assert planted.found_in(b"\x00before " + hay + b" after"), hay
    assert planted.found_in(b"nothing of it") == []


async def test_X20_a_ciphertext_opens_in_its_own_place_alone(
    hub: Hub, org: Org, owner: Member, superuser: asyncpg.Connection
) -> None:
    """Swapped between rows, names, tables and organizations it does not open; so a tenant who could copy one
    would have copied nothing."""
    token = await hub.token(owner.email)
    other = await make_org(superuser)
    there = await make_member(superuser, other, "OWNER")
    rows = {}
    for who, bearer in (("a", token), ("b", token), ("theirs", await token_of(hub, superuser, there))):
        body = {
            "name": who,
            "type": "TELEGRAM",
            "settings": {"bot_token": f"1:{who}", "app_secret": f"secret of {who}"},
        }
        answer = await hub.post("/rest/v1/channel_accounts", token=bearer, json=body, headers=REPRESENT)
        rows[who] = UUID(answer.json[0]["id"])
    kept = {
        (r["owner_id"], r["name"]): r
        for r in await superuser.fetch("select organization_id, owner_id, name, ciphertext from app.secrets")
    }
    assert len(kept) == 6

    def opened(text: str, place: Any, table: str = "channel_accounts") -> str:
        return open_secret(
            hub.settings, text, table=table, column=place["name"], organization_id=place["organization_id"],
            row_id=place["owner_id"],
        ).reveal()  # fmt: skip

    for home in kept.values():
        assert opened(home["ciphertext"], home)
        for place in kept.values():
            if place is not home:
                with pytest.raises(CannotOpen):
                    opened(home["ciphertext"], place)
        with pytest.raises(CannotOpen):
            opened(home["ciphertext"], home, table="organizations")
        version, kid, nonce, sealed = home["ciphertext"].split(":")
        flipped = sealed[:5] + ("A" if sealed[5] != "A" else "B") + sealed[6:]
        other_nonce = next(r["ciphertext"].split(":")[2] for r in kept.values() if r is not home)
        for bent in (
            f"{version}:{kid}:{nonce}:{flipped}", f"{version}:{kid}:{other_nonce}:{sealed}",
            f"v2:{kid}:{nonce}:{sealed}",
            f"{version}:{'0' * 8}:{nonce}:{sealed}", f"{version}:{kid}:{nonce}:",
            f"{version}:{kid}::{sealed}", sealed, "",
            f"{version}:{kid}:{nonce}:{sealed}:x", f"{version}:{kid}:{nonce}:{sealed[:-6]}", "v1:é:é:é",
        ):  # fmt: skip
            with pytest.raises(CannotOpen):
                opened(bent, home)
    nonces = [r["ciphertext"].split(":")[2] for r in kept.values()]
    assert len(set(nonces)) == len(nonces)


async def test_X20_a_wrong_key_is_refused_at_the_start_and_a_new_one_is_taken_while_it_runs(
    servers: Servers,
    valkey: EmbeddedValkey,
    tmp_path: Path,
    superuser: asyncpg.Connection,
    password_hash: str,
) -> None:
    """Old key, then "new,old" on a second hub while the first still serves, then both: everything opens
    everywhere; the new key alone, or another, does not start."""
    org = await make_org(superuser)
    owner = await make_member(superuser, org, "OWNER", password_hash)
    new = "another-key-for-tests-that-is-long-enough-9876543210"
    async with running_hub(servers, valkey.url, tmp_path / "a") as old_hub:
        base = {"PUBLIC_BASE_URL": old_hub.settings.public_base_url}
        session = await old_hub.sign_in(owner.email)
        for wrong in (new, "x" * 40, f"{new},{'x' * 40}"):
            with pytest.raises(StartRefused, match="HUB_SECRET_KEY"):
                async with running_hub(servers, valkey.url, tmp_path / "w", HUB_SECRET_KEY=wrong, **base):
                    pass
        async with running_hub(
            servers, valkey.url, tmp_path / "b", HUB_SECRET_KEY=f"{new},{SECRET_KEY}", **base
        ) as both:
            assert (await both.get("/rest/v1/contacts", token=session["access_token"])).status == 200
            fresh = await both.sign_in(owner.email)
            assert (await old_hub.get("/rest/v1/contacts", token=fresh["access_token"])).status == 200
            renewed = await both.post(
                "/auth/v1/token?grant_type=refresh_token", json={"refresh_token": session["refresh_token"]}
            )
            assert renewed.status == 200
            again = await both.post(
                "/auth/v1/token?grant_type=refresh_token", json={"refresh_token": session["refresh_token"]}
            )
            assert again.json["refresh_token"] == renewed.json["refresh_token"], (
                "sealed by the new key, opened by it"
            )
            body = {"name": "x", "type": "TELEGRAM", "settings": {"bot_token": "1:abc"}}
            made = await both.post(
                "/rest/v1/channel_accounts", token=fresh["access_token"], json=body, headers=REPRESENT
            )
            text = await superuser.fetchval(
                "select ciphertext from app.secrets where owner_id = $1", UUID(made.json[0]["id"])
            )
            place = {
                "table": "channel_accounts",
                "column": "bot_token",
                "organization_id": org.id,
                "row_id": made.json[0]["id"],
            }
            assert open_secret(both.settings, text, **place).reveal() == "1:abc"
            with pytest.raises(CannotOpen):
                open_secret(old_hub.settings, text, **place)


#


PERSONAL = {
    "words": "the-words-of-a-customer", "number": "201001382244", "dialled": "+20 100 138 2244",
    "e-mail": "planted.person@example.test",
}  # fmt: skip


def test_X21_nothing_gets_past_the_last_filter(capsys: pytest.CaptureFixture[str]) -> None:
    """At the most talkative level, through our own logger and the standard library's, as field, text,
    exception, argument and stack."""
    live = "live-secret-of-an-operator-0123456789"
    tokens = [
        "Bearer abc.DEF-123", "cg_" + "a1B2" * 10 + "xyz", "EAAabcdef0123456789",
        "https://api.telegram.org/bot123:AAabc-def/send",
        "whsec_abcdef", "sb_secret_abc", "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln",
        "postgresql://hub:pa55@db/hub", live,
    ]  # fmt: skip
    core = [
        "abc.DEF-123",
        "a1B2a1B2",
        "EAAabcdef",
        "123:AAabc",
        "whsec_abcdef",
        "sb_secret_abc",
        "eyJzdWIi",
        "pa55",
        live,
    ]
    before = (structlog.get_config(), logging.getLogger().handlers[:], logging.getLogger().level)
    logs.configure(json=True, level=logging.DEBUG)
    logging.getLogger().setLevel(logging.DEBUG)
    logs.hide([live])
    try:
        log = structlog.get_logger()
        for token in [*tokens, *PERSONAL.values()]:
            personal = token in PERSONAL.values()
            for name in logs.DROPPED:
                log.info("x", **{name: token})
                log.debug("x", nested={name: token, "deeper": [{name: token}]})
            if token == PERSONAL["words"]:
                continue  # words are known by their field's name alone
            log.error(
                "x", error=token, reason=f"because {token}.", items=[f"({token})"] if not personal else []
            )
            logging.getLogger("asyncio").debug("said %s", token)
            logging.getLogger("aiohttp.server").error("Error handling request: %s", token)
            try:
                raise ValueError(f'value "{token}" at {token}')
            except ValueError as error:
                log.exception("x")
                log.error("x", exc_info=error)
                logging.getLogger("asyncpg").exception("failed with %r", token)
    finally:
        structlog.configure(**before[0])
        logging.getLogger().handlers[:] = before[1]
        logging.getLogger().setLevel(before[2])
    written = capsys.readouterr()
    text = written.out + written.err
    assert text.count("\n") > 200
    assert [t for t in [*core, *PERSONAL.values()] if t in text] == []


async def test_X21_settings_and_principals_do_not_show_their_secrets(hub: Hub) -> None:
    """What a traceback with variables, a debugger's page or a crash dump would print."""
    settings = load_settings({
        "DATABASE_URL": "postgresql://hub:pa55@db/hub", "REDIS_URL": "redis://:pa66@cache",
        "HUB_SECRET_KEY": SECRET_KEY,
        "META_APP_SECRET": "app-secret-of-meta", "META_VERIFY_TOKEN": "verify-token-of-meta",
        "HUB_METRICS_TOKEN": "scrape-me-please",
    })  # fmt: skip
    ring = await hub.app[AUTH].keyring()
    for thing in (settings, ring, hub.app[AUTH], hub.settings):
        shown = f"{thing!r} {thing!s} {thing}"
        for text in (
            SECRET_KEY,
            "app-secret-of-meta",
            "verify-token-of-meta",
            "scrape-me-please",
            ring.pepper.hex(),
        ):
            assert text not in shown, (type(thing), text)


#


@asynccontextmanager
async def without_its_functions(conn: asyncpg.Connection) -> AsyncIterator[None]:
    """The database of another version: whatever a handler calls is gone, and tables refuse with a text that
    nobody may see."""
    await conn.execute(
        "create function break() returns trigger language plpgsql as $$ begin"
        " raise exception 'words-of-the-database' using errcode = 'XX000',"
        " detail = format('Failing row contains (%s).', new); end $$"
    )
    tables = [
        r[0]
        for r in await conn.fetch("select format('%I', tablename) from pg_tables where schemaname = 'public'")
    ]
    for table in tables:
        await conn.execute(
            f"create trigger aaa_break before insert or update on public.{table}"
            " for each row execute function break()"
        )
    await conn.execute("alter schema app rename to app_of_another_version")
    await conn.execute("alter table auth.users rename to users_of_another_version")
    yield


async def test_X28_a_bug_in_any_handler_tells_a_request_id_and_nothing_else(
    servers: Servers, valkey: EmbeddedValkey, tmp_path: Path
) -> None:
    """Every function, every verb of the tables, every route of sign-in: the body has code and request id, no
    word of the exception; the log has the id with the exception exactly once."""
    async with far_hub(servers, valkey.url, tmp_path, **paid_by("http://127.0.0.1:1")) as hub:
        bearer = {"Authorization": f"Bearer {hub.token}", "Idempotency-Key": "k"}
        await hub.call("GET", "/rest/v1/contacts", headers=bearer)
        conn = await asyncpg.connect(servers.migrate_url)
        async with without_its_functions(conn):
            record = {"phone": "+201001383533", "content": "x", "direction": "incoming", "status": "received"}
            bodies = {
                "batch": {"operations": [{"method": "POST", "path": "contacts", "body": {}}]},
                "insert-message": record, "whatsapp-cloud-send": {"to": "+201001383533", "message": "x"},
                "generate-api-key": {"name": "k"}, "switch-organization": {"organizationId": str(uuid4())},
                "create-organization": {"name": "x"}, "leave-organization": {},
                "revoke-api-key": {"id": str(uuid4())}, "rotate-api-key": {"id": str(uuid4())},
                "send-invitation-email": {"email": PERSONAL["e-mail"]},
                "resend-invitation": {"id": str(uuid4())}, "revoke-invitation": {"id": str(uuid4())},
                "check-invitation": {"token": "words"},
                "accept-invitation": {"token": "words", "email": PERSONAL["e-mail"], "password": PASSWORD},
                "update-member": {"user_id": str(uuid4()), "role": "AGENT"},
                "create-checkout": {"plan": "team"},
            }  # fmt: skip
            contact = {
                "first_name": PERSONAL["words"],
                "phones": [PERSONAL["number"]],
                "emails": [PERSONAL["e-mail"]],
            }
            calls: list[tuple[str, str, Any]] = [
                ("POST", "/rest/v1/contacts", contact), ("PATCH", "/rest/v1/contacts?id=not.is.null",
                contact),
                ("POST", "/rest/v1/channel_accounts", {"name": "x", "type": "TELEGRAM",
                "settings": {"bot_token": "1:words"}}),
                ("POST", "/auth/v1/token?grant_type=password", {"email": hub.owner.email,
                "password": PASSWORD}),
                ("POST", "/auth/v1/token?grant_type=refresh_token", {"refresh_token": "x" * 43}),
                ("GET", "/auth/v1/user", None), ("PUT", "/auth/v1/user", {"data": {"a": PERSONAL["words"]}}),
                ("POST", "/auth/v1/logout", None),
            ]  # fmt: skip
            for name, function in FUNCTIONS.items():
                path = f"/functions/v1/{name.replace('{id}', str(uuid4()))}"
                # upload-media keeps the file before it asks the database; media/{id} calls nothing of app's
                if "media" not in name:
                    calls.append((function.methods[0], path, bodies.get(name)))
            seen = {}
            for method, path, body in calls:
                id = f"bug-{len(seen):04d}-{random.randbytes(4).hex()}"
                headers = {**bearer, "X-Request-Id": id} if method == "POST" and "/rest/" not in path else {
                    "Authorization": bearer["Authorization"], "X-Request-Id": id}  # fmt: skip
                if path.endswith(("generate-api-key", "rotate-api-key")) or "auth" in path:
                    headers.pop("Idempotency-Key", None)
                options = {"json": body} if body is not None else {}
                answer = await hub.call(method, path, headers=headers, **options)
                seen[id] = (method, path, answer)
            data = whatsapp.messages(hub.org, whatsapp.text(PERSONAL["number"], PERSONAL["words"]))
            signed = {
                "X-Hub-Signature-256": meta_signature(whatsapp.APP_SECRET, data),
                "X-Request-Id": "bug-webhook-1",
            }
            webhook = await hub.call("POST", whatsapp.PATH, data=data, headers=signed)
            assert webhook.status in (200, 500, 503)
        await conn.close()
        wrong = []
        for id, (method, path, answer) in seen.items():
            text = answer.body.decode()
            if answer.status != 500:
                wrong.append((method, path, answer))
                continue
            found = answer.json
            assert found["request_id"] == answer.headers["X-Request-Id"] == id
            assert (
                found["error_code"] in ("INTERNAL_ERROR", "unexpected_failure")
                and found["details"] is None
                and found["hint"] is None
            )
            assert not re.search(
                r"words|database|app\.|relation|function|schema|asyncpg|Traceback|users",
                text.replace("organ", ""),
                re.I,
            ), text
        assert wrong == [], "each of them broke"

        async def lines() -> list[Any]:
            return [json.loads(line) for line in hub.log.read_text().splitlines() if line.startswith("{")]

        for id, (method, path, _) in seen.items():

            async def is_told(id: str = id) -> bool:
                return any(line.get("request_id") == id and "exception" in line for line in await lines())

            await until(is_told, what=f"the log of {method} {path}")
            told = [line for line in await lines() if line.get("request_id") == id and "exception" in line]
            assert len(told) == 1, (method, path, told)
            assert told[0]["event"] == "request.failed"
        log = hub.log.read_text()
        for name, text in PERSONAL.items():
            assert text not in log, name
        assert PASSWORD not in log and hub.token not in log


def test_X20_the_spool_keeps_no_credential() -> None:
    """It holds deliveries, with the few headers that a signature needs."""
    raw = frame(
        Delivery(
            channel="WHATSAPP_CLOUD",
            body=b"{}",
            headers={"x-hub-signature-256": "sha256=00"},
            account=None,
            received_at=0.0,
        )
    )
    assert b"authorization" not in raw.lower() and b"cookie" not in raw.lower()
