"""The headers of every answer, exactly (X-22), and what pages of other origins can do (X-23)."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest

from hub.channels.signing import meta_signature
from hub.db.embedded import EmbeddedValkey
from hub.web import build
from tests import whatsapp
from tests.factories import Member, Servers
from tests.needs import absent
from tests.server import PASSWORD, Answer, Hub, running_hub

TOKEN = "/auth/v1/token?grant_type="
#: On every answer whatsoever.
ALWAYS = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Server": "hub"}
ALWAYS_NAMED = {"X-Request-Id", "Date", *ALWAYS}
#: aiohttp's and HTTP's own, which say nothing of us.
FRAMING = {"Content-Length", "Content-Type", "Connection", "Transfer-Encoding"}
CORS = {"Access-Control-Allow-Origin", "Access-Control-Expose-Headers"}
RATE = {"X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"}
PAGE = {"Content-Security-Policy", "Cross-Origin-Opener-Policy"}
VERSION = re.compile(r"aiohttp|python|postgres(?!t)|valkey|redis|uvloop|\b\d+\.\d+\.\d+\b", re.IGNORECASE)

BREAK = """
create function break() returns trigger language plpgsql
  as $$ begin raise exception 'broken' using errcode = 'XX000'; end $$;
create trigger break before insert on contacts for each row when (new.first_name = 'Break')
  execute function break();
"""


def names_of(answer: Answer) -> set[str]:
    return {name.lower() for name in answer.headers} - lower(FRAMING)


def lower(names: set[str]) -> set[str]:
    return {name.lower() for name in names}


def check(answer: Answer, also: set[str], *, cache: str = "no-store", secure: bool = False) -> None:
    """The answer has these headers and no others."""
    wanted = ALWAYS_NAMED | {"Cache-Control"} | also | ({"Strict-Transport-Security"} if secure else set())
    assert names_of(answer) == lower(wanted)
    for name, value in ALWAYS.items():
        assert answer.headers[name] == value
    assert answer.headers["Cache-Control"] == cache
    assert not VERSION.search(" ".join(v for k, v in answer.headers.items() if k != "Date"))
    if CORS & also:
        assert answer.headers["Access-Control-Allow-Origin"] == "*"


@pytest.fixture(params=["http", "https"])
async def either(
    request: pytest.FixtureRequest, servers: Servers, valkey: EmbeddedValkey, tmp_path: Path
) -> AsyncIterator[Hub]:
    """A hub that browsers reach in the clear, and one behind https."""
    base = {"PUBLIC_BASE_URL": "https://hub.example.test"} if request.param == "https" else {}
    async with running_hub(servers, valkey.url, tmp_path, META_APP_SECRET=whatsapp.APP_SECRET, **base) as hub:
        yield hub


async def test_X22_every_class_of_answer_has_its_headers_and_no_more(
    either: Hub, owner: Member, superuser: asyncpg.Connection
) -> None:
    hub, secure = either, either.settings.secure
    await superuser.execute(BREAK)
    token = await hub.token(owner.email)
    api = CORS | RATE

    def say(answer: Answer, status: int, also: set[str], **more: Any) -> None:
        assert answer.status == status, answer
        check(answer, also, secure=secure, **more)

    # the tables
    read = {"Content-Range", "Vary", "Content-Location"}
    say(await hub.get("/rest/v1/contacts", token=token), 200, api | read | {"ETag"})
    say(await hub.call("HEAD", "/rest/v1/contacts", token=token), 200, api | read)
    say(
        await hub.post("/rest/v1/contacts", token=token, json={"first_name": "a"}),
        201,
        api | {"Content-Range"},
    )
    say(await hub.delete("/rest/v1/contacts?id=is.null", token=token), 204, api | {"Content-Range"})
    say(await hub.call("OPTIONS", "/rest/v1/contacts"), 200, CORS | {"Allow"})
    refused = {"Proxy-Status"}
    say(await hub.get("/rest/v1/contacts"), 401, api | refused | {"WWW-Authenticate"})
    say(await hub.get("/rest/v1/nope", token=token), 404, api | refused)
    say(await hub.call("TRACE", "/rest/v1/contacts", token=token), 405, api | refused | {"Allow"})
    say(await hub.get("/rest/v1/contacts?nope=1", token=token), 400, api | refused)
    broken = await hub.post("/rest/v1/contacts", token=token, json={"first_name": "Break"})
    say(broken, 500, api | refused)
    assert set(broken.json) == {"error", "message", "code", "details", "hint", "error_code", "request_id"}
    assert b"broken" not in broken.body
    # functions, sign-in
    say(await hub.get("/functions/v1/list-organizations", token=token), 200, api)
    say(await hub.get("/functions/v1/nope"), 404, api)
    say(await hub.get("/functions/v1/insert-message", token=token), 405, api | {"Allow"})
    say(await hub.get("/auth/v1/settings"), 200, api)
    say(await hub.get("/auth/v1/.well-known/jwks.json"), 200, CORS, cache="public, max-age=600")
    say(await hub.get("/auth/v1/user"), 401, api | {"WWW-Authenticate"})
    web = {"X-Hub-Client": "web"}
    body = {"email": owner.email, "password": PASSWORD}
    say(await hub.post(f"{TOKEN}password", json=body, headers=web), 200, api | {"Set-Cookie"})
    # preflights
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x"}
    allow = {f"Access-Control-{n}" for n in ("Allow-Methods", "Allow-Headers", "Max-Age")}
    for path in ("/rest/v1/contacts", "/auth/v1/token", "/functions/v1/insert-message"):
        say(await hub.call("OPTIONS", path, headers=asked), 204, CORS | allow | {"Vary"})
    # providers
    signed = {"X-Hub-Signature-256": meta_signature(whatsapp.APP_SECRET, b"{}")}
    say(await hub.post(whatsapp.PATH, data=b"{}", headers=signed), 200, set())
    say(await hub.post(whatsapp.PATH, data=b"{}"), 401, {"WWW-Authenticate"})
    # the process
    for path in ("/healthz", "/readyz", "/config.json"):
        say(await hub.get(path), 200, set())
    say(await hub.get("/nope.js"), 404, set())
    say(await hub.post("/inbox"), 405, {"Allow"})
    say(await hub.get("/ws"), 400, set())
    metrics = await hub.get("/metrics")  # for the operator alone: it may name versions
    assert names_of(metrics) == lower(
        ALWAYS_NAMED | {"Cache-Control"} | ({"Strict-Transport-Security"} if secure else set())
    )


async def test_X22_the_page_may_load_our_own_files_and_nothing_else(either: Hub) -> None:
    if not build.built():
        absent("the web app is not built: make install")
    page = await either.get("/inbox", headers={"Accept": "text/html"})
    assert page.status == 200
    check(page, PAGE, cache="no-cache", secure=either.settings.secure)
    policy = page.headers["Content-Security-Policy"]
    nonce = re.search(r"'nonce-([\w-]{16,})'", policy)
    assert nonce is not None
    assert policy.replace(nonce[1], "…") == (
        "default-src 'none'; script-src 'self'; style-src 'self' 'nonce-…'; style-src-attr 'unsafe-inline'; "
        "img-src 'self' blob:; media-src 'self' blob:; connect-src 'self'; font-src 'self'; "
        "frame-ancestors 'none'; base-uri 'none'; form-action 'self'; require-trusted-types-for 'script'"
    )
    assert page.headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert not re.search(rb"<script(?![^>]*\bsrc=)", page.body), "no script inside the page"
    assert not re.search(rb"(?:src|href)=\"(?:https?:)?//", page.body), "nothing of another origin"
    asset = re.search(rb'src="(/assets/[^"]+\.js)"', page.body)
    assert asset is not None
    found = await either.get(asset[1].decode(), headers={"Accept-Encoding": ""})
    check(found, {"Vary"}, cache="public, max-age=31536000, immutable", secure=either.settings.secure)
    assert found.headers["Content-Type"] == "text/javascript; charset=utf-8"


async def test_X22_cookies_are_host_only_and_out_of_reach_of_scripts(either: Hub, owner: Member) -> None:
    web = {"X-Hub-Client": "web"}
    signed_in = await either.post(
        f"{TOKEN}password", json={"email": owner.email, "password": PASSWORD}, headers=web
    )
    cookie = signed_in.headers["Set-Cookie"]
    name, secure = ("__Host-hub-refresh", True) if either.settings.secure else ("hub-refresh", False)
    value, *flags = cookie.split("; ")
    assert value.startswith(f"{name}=")
    assert {f.partition("=")[0] for f in flags} == {"HttpOnly", "Max-Age", "Path", "SameSite",
    "expires"} - {"expires"} | (
        {"Secure"} if secure else set()
    )  # fmt: skip
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(flags) and "Domain" not in cookie
    assert value.partition("=")[2] not in signed_in.body.decode()
    for answer in (
        await either.get("/healthz"),
        await either.get("/auth/v1/settings"),
        await either.get("/"),
    ):
        assert "Set-Cookie" not in answer.headers


#


FOREIGN = [
    "null", "https://evil.example", "http://evil.example", "https://hub.example.test.evil.example",
    "https://evilhub.example.test", "https://evil-hub.example.test", "https://hub.example.test@evil.example",
    "https://evil.example/https://hub.example.test", "https://hub.example.test:444",
    "https://hub.example.test:443.evil",
    "https://sub.hub.example.test", "https://example.test", "https://hub.example.test/", "file://",
    "https://",
    "chrome-extension://abc", "http://[bad", "https://hub.example.test%00.evil.example",
    "https://hub.example.test\\.evil",
    "//hub.example.test", "hub.example.test", "https:hub.example.test", "javascript://hub.example.test", "",
    "https://hub.example.test https://evil.example",
]  # fmt: skip


@pytest.fixture
async def https(servers: Servers, valkey: EmbeddedValkey, tmp_path: Path) -> AsyncIterator[Hub]:
    listed = {
        "PUBLIC_BASE_URL": "https://hub.example.test",
        "HUB_ALLOWED_ORIGINS": "https://desk.example.test",
    }
    async with running_hub(servers, valkey.url, tmp_path, **listed) as hub:
        yield hub


@pytest.mark.parametrize("origin", FOREIGN)
async def test_X23_a_foreign_page_reads_no_session_and_changes_none(
    https: Hub, owner: Member, superuser: asyncpg.Connection, origin: str
) -> None:
    web = {"X-Hub-Client": "web"}
    ours = {**web, "Origin": "https://hub.example.test"}
    body = {"email": owner.email, "password": PASSWORD}
    signed_in = await https.post(f"{TOKEN}password", json=body, headers=ours)
    cookie = {"Cookie": signed_in.headers["Set-Cookie"].partition(";")[0]}
    before = str(await superuser.fetch("select * from auth.refresh_tokens order by id"))
    foreign = {"Origin": origin, **cookie}
    for path, options in (
        (f"{TOKEN}refresh_token", {}), ("/auth/v1/logout", {}), ("/auth/v1/logout?scope=global", {}),
        (f"{TOKEN}password", {"json": body}),
    ):  # fmt: skip
        answer = await https.post(path, headers={**foreign, **web}, **options)
        assert (answer.status, answer.json["code"]) == (403, "bad_origin"), (path, answer)
        assert "Set-Cookie" not in answer.headers
    # what needs no preflight: forms and the like, which cannot carry our header
    for kind in ("application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/plain"):
        for path in (f"{TOKEN}refresh_token", "/auth/v1/logout"):
            simple = await https.post(path, headers={**foreign, "Content-Type": kind}, data=b"a=b")
            assert 400 <= simple.status < 500 and "Set-Cookie" not in simple.headers, (path, kind, simple)
    for path in ("/rest/v1/contacts", "/functions/v1/list-organizations", "/auth/v1/user"):
        answer = await https.get(path, headers=foreign)
        assert answer.status == 401, "a cookie opens no door of the API"
    assert str(await superuser.fetch("select * from auth.refresh_tokens order by id")) == before
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await https.client.ws_connect(f"{https.url}/ws", headers={"Origin": origin, **cookie})
    assert refused.value.status == 403
    assert (await https.post(f"{TOKEN}refresh_token", headers={**ours, **cookie})).status == 200


@pytest.mark.parametrize("origin", ["https://hub.example.test", "https://desk.example.test", None])
async def test_X23_our_own_page_and_listed_ones_may(https: Hub, owner: Member, origin: str | None) -> None:
    headers = {"X-Hub-Client": "web"} | ({"Origin": origin} if origin else {})
    body = {"email": owner.email, "password": PASSWORD}
    assert (await https.post(f"{TOKEN}password", json=body, headers=headers)).status == 200
    async with https.client.ws_connect(f"{https.url}/ws", headers=headers):
        pass


@pytest.mark.parametrize("origin", FOREIGN)
async def test_X23_the_api_is_open_to_all_pages_and_never_with_credentials(https: Hub, origin: str) -> None:
    asked = {
        "Origin": origin,
        "Access-Control-Request-Method": "DELETE",
        "Access-Control-Request-Headers": "authorization",
    }
    for path in ("/rest/v1/contacts", "/auth/v1/token", "/functions/v1/insert-message"):
        for answer in (
            await https.call("OPTIONS", path, headers=asked),
            await https.get(path, headers={"Origin": origin}),
        ):
            assert answer.headers["Access-Control-Allow-Origin"] == "*", "never the origin itself"
            assert "Access-Control-Allow-Credentials" not in answer.headers
    for path in ("/config.json", "/healthz", "/metrics", "/ws", "/", "/assets/x.js"):
        answer = await https.call("OPTIONS", path, headers=asked)
        assert not any(name.startswith("Access-Control") for name in answer.headers), path
        answer = await https.get(path, headers={"Origin": origin})
        assert not any(name.startswith("Access-Control") for name in answer.headers), path
