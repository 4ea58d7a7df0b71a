"""What every answer has, and what no request may do: sizes, depth, encodings, origins, pages."""

from __future__ import annotations

import asyncio
import gzip
import io
from pathlib import Path

import aiohttp
import pytest
from yarl import URL

from hub.db.embedded import EmbeddedValkey
from hub.resources import CATALOG
from hub.static import NONCE_MARK, WebApp
from tests.factories import Member, Servers
from tests.server import Hub, running_hub


async def test_every_answer_is_dressed(hub: Hub) -> None:
    for path in ("/healthz", "/config.json", "/rest/v1/contacts", "/no/such.js", "/auth/v1/settings"):
        headers = (await hub.get(path)).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["Cache-Control"] == "no-store"
        assert len(headers["X-Request-Id"]) >= 8
        assert "Python" not in headers["Server"]
        assert "Strict-Transport-Security" not in headers


async def test_https_is_remembered_and_cookies_are_host_only(
    servers: Servers, valkey: EmbeddedValkey, tmp_path: Path, owner: Member
) -> None:
    async with running_hub(servers, valkey.url, tmp_path, PUBLIC_BASE_URL="https://hub.example.test") as hub:
        assert "max-age" in (await hub.get("/healthz")).headers["Strict-Transport-Security"]
        answer = await hub.post(
            "/auth/v1/token?grant_type=password",
            json={"email": owner.email, "password": "correct horse battery"},
            headers={"X-Hub-Client": "web", "Origin": "https://hub.example.test"},
        )
        assert answer.headers["Set-Cookie"].startswith("__Host-hub-refresh=")
        assert "Secure" in answer.headers["Set-Cookie"]


async def test_a_request_id_is_taken_over_if_it_is_one(hub: Hub) -> None:
    given = await hub.get("/rest/v1/contacts", headers={"X-Request-Id": "order-12345678"})
    assert given.headers["X-Request-Id"] == given.json["request_id"] == "order-12345678"
    assert (await hub.get("/healthz", headers={"X-Request-Id": "a b\tc" * 5})).headers[
        "X-Request-Id"
    ] != "a b\tc" * 5


@pytest.mark.parametrize(
    "path", ["/rest/v1/contacts", "/auth/v1/token", "/functions/v1/insert-message", "/functions/v1/nope"]
)
async def test_preflights_are_answered_without_credentials(hub: Hub, path: str) -> None:
    answer = await hub.call(
        "OPTIONS",
        path,
        headers={
            "Origin": "https://shop.example",
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization, x-new-header",
        },
    )
    assert answer.status == 204
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert "Access-Control-Allow-Credentials" not in answer.headers
    assert answer.headers["Access-Control-Allow-Headers"] == "authorization, x-new-header"
    assert "PATCH" in answer.headers["Access-Control-Allow-Methods"]


async def test_answers_are_readable_from_other_pages(hub: Hub) -> None:
    for path in ("/rest/v1/contacts", "/auth/v1/settings"):
        headers = (await hub.get(path, headers={"Origin": "https://shop.example"})).headers
        assert headers["Access-Control-Allow-Origin"] == "*"
        exposed = headers["Access-Control-Expose-Headers"]
        assert "Content-Range" in exposed and "Idempotency-Replayed" in exposed
    assert "Access-Control-Allow-Origin" not in (await hub.get("/config.json")).headers


async def test_X_15_big_and_deep_bodies(hub: Hub, owner: Member) -> None:
    token = await hub.token(owner.email)
    big = b'{"first_name": "' + b"x" * (1024 * 1024) + b'"}'
    for path in ("/rest/v1/contacts", "/functions/v1/insert-message", "/functions/v1/generate-api-key"):
        answer = await hub.post(
            path, token=token, data=io.BytesIO(big), headers={"Content-Type": "application/json"}
        )
        assert answer.status == 413, path

    async def endless() -> object:
        for _ in range(3):
            yield b" " * 512 * 1024

    chunked = await hub.post(
        "/rest/v1/contacts", token=token, data=endless(), headers={"Content-Type": "application/json"}
    )
    assert chunked.status == 413
    deep = b'{"custom_fields": ' + b"[" * 70 + b"]" * 70 + b"}"
    for path in ("/rest/v1/contacts", "/functions/v1/insert-message"):
        answer = await hub.post(path, token=token, data=deep, headers={"Content-Type": "application/json"})
        assert answer.status == 400, path
        assert "64 levels" in answer.json["message"]
    brackets = {"first_name": "[" * 500 + '"\\' + "{" * 500}
    assert (await hub.post("/rest/v1/contacts", token=token, json=brackets)).status == 201


async def test_X_16_compressed_bodies_are_refused_unopened(hub: Hub, owner: Member) -> None:
    bomb = gzip.compress(b"0" * 10_000_000)
    answer = await hub.post(
        "/rest/v1/contacts",
        token=await hub.token(owner.email),
        data=bomb,
        headers={"Content-Encoding": "gzip", "Content-Type": "application/json"},
    )
    assert answer.status == 415


@pytest.mark.parametrize("body", [b"", b"{", b"nul", b"[1", b"\xff\xfe", b'{"a":"\xff"}', b"[]", b'"text"'])
async def test_ERR_01_bodies_that_are_no_json_object(hub: Hub, owner: Member, body: bytes) -> None:
    token = await hub.token(owner.email)
    headers = {"Content-Type": "application/json"}
    answer = await hub.post("/functions/v1/generate-api-key", token=token, data=body, headers=headers)
    assert answer.status in (400, 422)
    assert answer.json["code"] in ("BAD_REQUEST", "VALIDATION_ERROR")
    rest = await hub.post("/rest/v1/contacts", token=token, data=body, headers=headers)
    # a list of none, and a number or text alone, are no row (rest.md 7.1)
    assert rest.status == (201 if body in (b"[]", b'"text"') else 400)
    assert (await hub.get("/rest/v1/contacts?select=id", token=token)).json == []
    signing_in = await hub.post("/auth/v1/token?grant_type=password", data=body, headers=headers)
    assert signing_in.status in (400, 422)


async def test_long_lines_and_headers(hub: Hub, owner: Member) -> None:
    token = await hub.token(owner.email)
    answer = await hub.get("/rest/v1/contacts", token=token, headers={"X-Client-Info": "x" * 60_000})
    assert answer.status == 200


async def test_the_app_is_served_at_every_page(hub: Hub) -> None:
    html = {"Accept": "text/html,*/*"}
    pages = [await hub.get(path, headers=html) for path in ("/", "/inbox/123", "/settings/api")]
    if pages[0].status == 503:
        assert b"not built" in pages[0].body
        return
    nonces = set()
    for page in pages:
        assert page.headers["Cache-Control"] == "no-cache"
        policy = page.headers["Content-Security-Policy"]
        nonce = policy.partition("'nonce-")[2].partition("'")[0]
        nonces.add(nonce)
        assert nonce.encode() in page.body
        assert NONCE_MARK.encode() not in page.body
        assert "frame-ancestors 'none'" in policy
        assert page.headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert len(nonces) == 3


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/rest/nope", 404), ("GET", "/auth/v1/nope", 404), ("POST", "/inbox", 405),
        ("GET", "/wp-login.php", 404),
        ("GET", "/assets/nope.js", 404), ("GET", "/assets/..%2f..%2fsettings.py", 404),
        ("GET", "/assets/../app.py", 404),
        ("GET", "/favicon.ico", 404),
    ],
)  # fmt: skip
async def test_ERR_01_unknown_addresses(hub: Hub, method: str, path: str, status: int) -> None:
    async with hub.client.request(method, URL(hub.url + path, encoded=True)) as answer:
        assert answer.status == status
        assert {"error", "message", "code", "request_id"} <= (await answer.json()).keys()


async def test_assets_are_immutable_and_precompressed(tmp_path: Path) -> None:
    (tmp_path / "assets").mkdir()
    (tmp_path / "index.html").write_text(f"<script nonce={NONCE_MARK}>")
    (tmp_path / "assets" / "app-1.js").write_bytes(b"plain")
    (tmp_path / "assets" / "app-1.js.br").write_bytes(b"brotli")
    (tmp_path / "assets" / "app-1.js.gz").write_bytes(b"gzip")
    app = aiohttp.web.Application()
    app.router.add_get("/assets/{name}", WebApp(tmp_path).handle_asset)
    runner = aiohttp.web.AppRunner(app)
    await runner.setup()
    await aiohttp.web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/assets/app-1.js"
    async with aiohttp.ClientSession(auto_decompress=False) as client:
        for accepted, encoding, body in (
            ("gzip, br", "br", b"brotli"),
            ("gzip", "gzip", b"gzip"),
            ("", None, b"plain"),
        ):
            async with client.get(url, headers={"Accept-Encoding": accepted}) as answer:
                assert await answer.read() == body
                assert answer.headers.get("Content-Encoding") == encoding
                assert "immutable" in answer.headers["Cache-Control"]
                assert answer.headers["Content-Type"].startswith("text/javascript")
    await runner.cleanup()


async def test_metrics_are_for_this_machine_or_a_token(
    hub: Hub, servers: Servers, valkey: EmbeddedValkey, tmp_path: Path
) -> None:
    await hub.get("/rest/v1/contacts")
    page = (await hub.get("/metrics")).body.decode()
    for name in (
        "hub_http_request_seconds", "hub_ws_sessions", "hub_ws_frames_total", "hub_ws_dropped_total",
        "hub_ingest_seconds",
        "hub_event_lag_seconds", "hub_outbound_total", "hub_outbound_queue", "hub_pool_wait_seconds",
        "hub_job_seconds",
    ):  # fmt: skip
        assert name in page
    assert 'route="/rest/v1/{table}"' in page
    assert (await hub.get("/metrics", headers={"X-Forwarded-For": "203.0.113.9"})).status == 404
    async with running_hub(servers, valkey.url, tmp_path / "b", HUB_METRICS_TOKEN="scrape-me") as other:
        assert (await other.get("/metrics")).status == 404
        assert (await other.get("/metrics", token="scrape-me")).status == 200


async def test_half_a_request_does_not_hold_up_the_others(hub: Hub) -> None:
    host, _, port = hub.url.removeprefix("http://").partition(":")
    _, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"POST /rest/v1/contacts HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n")
    await writer.drain()
    assert (await hub.get("/healthz")).status == 200
    writer.close()


async def test_X28_a_bug_is_answered_with_its_request_id_alone(
    hub: Hub, owner: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise RuntimeError("the secret words of a bug")

    token = await hub.token(owner.email)
    monkeypatch.setattr(hub.app[CATALOG], "compiler", fail)
    answer = await hub.get("/rest/v1/contacts", token=token)
    assert (answer.status, answer.json["error_code"]) == (500, "INTERNAL_ERROR")
    assert b"secret words" not in answer.body
    assert answer.json["request_id"] == answer.headers["X-Request-Id"]


async def test_X17_a_body_that_says_it_is_too_large_is_not_waited_for(hub: Hub, owner: Member) -> None:
    """Not one byte of it is sent, and it is refused for its size and not for being late."""
    token = await hub.token(owner.email)
    host, _, port = hub.url.removeprefix("http://").partition(":")
    for path, size in (("/rest/v1/contacts", 1 << 20), ("/functions/v1/whatsapp-cloud-webhook", 3 << 20)):
        reader, writer = await asyncio.open_connection(host, int(port))
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
        writer.write(f"{head}Content-Type: application/json\r\nContent-Length: {size + 1}\r\n\r\n".encode())
        assert (await reader.readline()).startswith(b"HTTP/1.1 413 "), path
        writer.close()
