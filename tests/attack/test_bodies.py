"""Requests that are huge, endless, slow, nested, packed or smuggled: refused in words, quickly, and the
hub's memory stays where it was (X-13, X-15, X-16, X-17, X-32, X-33).

Raw bytes against a hub that is a process of its own. Beside each attack somebody else is answered.
"""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import signal
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import quote

import aiohttp
import asyncpg
import pytest

from hub.bodies import check_json
from hub.channels.signing import meta_signature
from hub.domain.phones import parse_phone
from hub.errors import HubError
from hub.rest.grammar import parse_query
from tests import whatsapp
from tests.attack.far import MIB, FarHub, answers_in, status_of
from tests.factories import make_contact, make_conversation, until

#: More than an attack may cost a process, whatever the allocator does.
ROOM = 20 * MIB
JSON_DOORS = (
    "/rest/v1/contacts", "/functions/v1/insert-message", "/functions/v1/whatsapp-cloud-send",
    "/functions/v1/generate-api-key", "/functions/v1/switch-organization",
    "/auth/v1/token?grant_type=password", "/auth/v1/token?grant_type=refresh_token", "/auth/v1/verify",
    "/auth/v1/recover",
)  # fmt: skip
JSON = {"Content-Type": "application/json"}


@asynccontextmanager
async def watched(hub: FarHub, room: int = ROOM) -> AsyncIterator[None]:
    """Memory rises by less than ``room`` meanwhile, and somebody else is always answered within a second."""
    await hub.call("GET", "/healthz")
    hub.forget_peak()
    before = hub.memory()
    stop = asyncio.Event()

    async def heartbeat() -> None:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as client:
            while not stop.is_set():
                async with client.get(f"{hub.url}/healthz") as answer:
                    assert answer.status == 200
                await asyncio.sleep(0.02)

    beating = asyncio.create_task(heartbeat())
    try:
        yield
    finally:
        stop.set()
        await beating
    risen = hub.peak() - before
    assert risen < room, f"{risen / MIB:.1f} MiB more"


# JSON


def hostile_json() -> dict[str, bytes]:
    return {
        "65 levels": b"[" * 65 + b"]" * 65,
        "1,000 levels": b'{"a":' * 1000 + b"1" + b"}" * 1000,
        "10^6 brackets": b"[" * 1_000_000,
        "levels in custom_fields": b'{"custom_fields":' + b"[" * 64 + b"]" * 64 + b"}",
        "NaN": b'{"first_name": NaN}',
        "Infinity": b'{"first_name": -Infinity}',
        "lone surrogate": b'{"first_name": "\\ud800"}',
        "surrogates turned round": b'{"first_name": "\\udc00\\ud800"}',
        "NUL escaped": b'{"first_name": "a\\u0000b"}',
        "NUL raw": b'{"first_name": "a\x00b"}',
        "NUL in a key": b'{"first\\u0000name": 1}',
        "overlong slash": b'{"first_name": "\xc0\xaf"}',
        "overlong NUL": b'{"first_name": "\xc0\x80"}',
        "surrogate in UTF-8": b'{"first_name": "\xed\xa0\x80"}',
        "beyond Unicode": b'{"first_name": "\xf5\x80\x80\x80"}',
        "UTF-16": '{"first_name": "x"}'.encode("utf-16"),
        "byte order mark": b'\xef\xbb\xbf{"first_name": "x"}',
        "exponents that Postgres would write out": b'{"custom_fields": {"a": ['
        + b"1e99999," * 1_000
        + b"1]}}",
        "a tiny number": b'{"custom_fields": {"a": 1e-99999}}',
        "an exponent of 10^5 digits": b'{"custom_fields": {"a": 1e' + b"9" * 100_000 + b"}}",
        "a number of 10^5 digits": b'{"lead_score": ' + b"9" * 100_000 + b"}",
        "leading zero": b'{"first_name": 01}',
        "trailing comma": b'{"first_name": "x",}',
        "two documents": b'{"first_name": "x"}{"first_name": "y"}',
        "comment": b'{"first_name": "x" /* y */}',
        "single quotes": b"{'first_name': 'x'}",
        "unclosed string of escapes": b"[" + b"[]," * 70 + b'"' + b'\\"' * 400_000,
        "unclosed strings": b"[" + b"[]," * 70 + b'\\"' * 400_000,
        "10^5 keys of nothing": b"{" + b",".join(b'"k%d":1' % n for n in range(80_000)) + b"}",
        "a million commas": b"[" + b"," * 1_000_000 + b"]",
        "only white space": b" " * 1_000_000,
    }


@pytest.mark.parametrize("name", hostile_json())
async def test_X15_hostile_json_is_refused_on_every_entry(far: FarHub, name: str) -> None:
    body = hostile_json()[name]
    async with watched(far):
        for path in JSON_DOORS:
            bearer = {} if path.startswith("/auth") else {"Authorization": f"Bearer {far.token}"}
            answer = await asyncio.wait_for(
                far.call("POST", path, data=io.BytesIO(body), headers={**JSON, **bearer}), 5
            )
            # GoTrue's surface: an unknown field is ignored, so JSON that is merely odd is read there
            assert answer.status in (400, 413, 422), (path, answer)
            assert {"error", "message", "code", "request_id"} <= answer.json.keys()


async def test_X15_a_bent_patch_is_refused_like_a_post(far: FarHub) -> None:
    async with watched(far):
        for name, body in hostile_json().items():
            if body.lstrip()[:1] != b"{":
                continue
            answer = await far.call(
                "PATCH", "/rest/v1/contacts?id=is.null", data=io.BytesIO(body),
                headers={**JSON, "Authorization": f"Bearer {far.token}"},
            )  # fmt: skip
            # Postgres reads values only where a row matches, so odd values may find nothing to change
            assert answer.status in (400, 413, 422, 204), (name, answer)


async def test_X15_every_parser_sees_the_same_value_of_a_double_key(far: FarHub) -> None:
    """The permission check, the secrets' filter and Postgres must not read different values."""
    superuser = await asyncpg.connect(far.servers.migrate_url)
    bearer = {**JSON, "Authorization": f"Bearer {far.token}", "Prefer": "return=representation"}
    twice = b'{"first_name": "one", "first_name": "two"}'
    made = await far.call("POST", "/rest/v1/contacts", data=twice, headers=bearer)
    assert (made.status, made.json[0]["first_name"]) == (201, "two")
    patched = await far.call(
        "PATCH", f"/rest/v1/contacts?id=eq.{made.json[0]['id']}", headers=bearer,
        data=b'{"first_name": "three", "first_name": "four"}',
    )  # fmt: skip
    assert patched.json[0]["first_name"] == "four"
    secret = "hidden-behind-a-double-key"
    account = await far.call(
        "POST", "/rest/v1/channel_accounts", headers=bearer,
        data=json.dumps({"name": "x", "type": "TELEGRAM"})[:-1].encode()
        + f', "settings": {{"access_token": "{secret}"}}, "settings": {{"bot_id": "1"}}}}'.encode(),
    )  # fmt: skip
    assert account.status == 201, account
    nested = await far.call(
        "POST", "/rest/v1/channel_accounts", headers=bearer,
        data=b'{"name":"y","type":"TELEGRAM","settings":{"access_token":"a","access_token":"%s"}}'
        % secret.encode(),
    )  # fmt: skip
    assert nested.status == 201, nested
    stored = await superuser.fetch("select settings::text from channel_accounts")
    await superuser.close()
    assert secret not in str(stored) and secret not in (account.body + nested.body).decode()


async def test_X15_a_signed_webhook_of_nonsense_is_answered_and_kept(far: FarHub) -> None:
    """Whoever can sign is the provider: 200 whatever it says, one trace, no harm."""
    async with watched(far):
        for body in hostile_json().values():
            signed = {"X-Hub-Signature-256": meta_signature(whatsapp.APP_SECRET, body)}
            answer = await far.call("POST", whatsapp.PATH, data=io.BytesIO(body), headers=signed)
            assert answer.status == 200, (body[:60], answer)
            unsigned = await far.call("POST", whatsapp.PATH, data=io.BytesIO(body))
            assert unsigned.status == 401, (body[:60], unsigned)


async def test_X15_hostile_frames_close_their_own_socket_alone(far: FarHub) -> None:
    async with watched(far), aiohttp.ClientSession() as client:
        for body in hostile_json().values():
            async with client.ws_connect(f"{far.url}/ws", max_msg_size=0) as ws:
                with pytest.MonkeyPatch.context():
                    await ws.send_bytes(body) if len(body) % 2 else await ws.send_str(
                        body.decode(errors="replace")
                    )
                message = await ws.receive(timeout=10)
                while message.type is aiohttp.WSMsgType.TEXT:
                    message = await ws.receive(timeout=10)
                assert ws.close_code in (1009, 1007, 4400, 4408, 1006), (body[:60], ws.close_code)


# compression


@pytest.mark.parametrize(
    "encoding", ["gzip", "deflate", "br", "zstd", "GZIP", "x-gzip", "gzip, gzip", "identity, br"]
)
async def test_X16_compressed_bodies_are_refused_unopened(far: FarHub, encoding: str) -> None:
    bomb = {"gzip": gzip.compress, "deflate": zlib.compress}.get(encoding, lambda raw: raw)(bytes(300 * MIB))[
        :900_000
    ]
    async with watched(far):
        for path in (*JSON_DOORS, whatsapp.PATH):
            signed = meta_signature(whatsapp.APP_SECRET, bomb)
            answer = await far.call(
                "POST", path, data=io.BytesIO(bomb),
                headers={
                    **JSON, "Content-Encoding": encoding, "Authorization": f"Bearer {far.token}",
                    "X-Hub-Signature-256": signed,
                },
            )  # fmt: skip
            assert answer.status == 415, (path, answer)


async def test_X16_a_websocket_offers_no_compression_and_takes_no_compressed_frame(far: FarHub) -> None:
    key = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
    hello = far.request(
        "GET", "/ws", b"Upgrade: websocket", key, b"Sec-WebSocket-Version: 13",
        b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
    ).replace(b"Connection: close", b"Connection: Upgrade")  # fmt: skip
    deflated = zlib.compress(bytes(128 * MIB))
    assert len(deflated) > 65535, "the long form of a length"
    frame = b"\xc2\xff" + len(deflated).to_bytes(8, "big") + bytes(4) + deflated  # FIN and RSV1
    async with watched(far):
        got = await far.send(hello, frame)
    assert status_of(got) == 101
    assert b"deflate" not in got
    assert b"\x88" in got.partition(b"\r\n\r\n")[2], "closed in words"


# size and patience


async def test_X17_a_body_of_10_GB_is_refused_by_its_length(far: FarHub) -> None:
    async with watched(far):
        doors = (*JSON_DOORS, whatsapp.PATH)
        heads = [
            far.request(
                "POST", path, f"Content-Length: {10 << 30}", "Content-Type: application/json", token=far.token
            )
            for path in doors
        ]
        answers = await asyncio.gather(*(far.send(head, *[bytes(MIB)] * 20, patience_s=10) for head in heads))
    assert [(path, status_of(got)) for path, got in zip(doors, answers, strict=True)] == [
        (path, 413) for path in doors
    ]


async def test_X17_chunks_without_end_are_refused_at_the_limit(far: FarHub) -> None:
    chunk = b"%x\r\n" % MIB + b" " * MIB + b"\r\n"
    async with watched(far):
        doors = ("/rest/v1/contacts", "/functions/v1/insert-message", "/auth/v1/verify", whatsapp.PATH)
        heads = [
            far.request(
                "POST", path, "Transfer-Encoding: chunked", "Content-Type: application/json", token=far.token
            )
            for path in doors
        ]
        answers = await asyncio.gather(*(far.send(head, *[chunk] * 50, patience_s=10) for head in heads))
    assert [status_of(got) for got in answers] == [413] * len(doors)


async def test_X17_what_was_refused_is_let_go(far: FarHub) -> None:
    """Refusals keep nothing of the body they refused, not even until the cycle collector comes by."""
    body = b'{"first_name": "' + b"x" * 900_000
    bearer = {**JSON, "Authorization": f"Bearer {far.token}"}
    async with aiohttp.ClientSession() as client:

        async def round_of(times: int) -> None:
            for _ in range(times):
                for path in (*JSON_DOORS, "/rest/v1/nope", f"/rest/v1/contacts?nope=eq.{'x' * 100_000}"):
                    async with client.post(far.url + path, data=io.BytesIO(body), headers=bearer) as answer:
                        assert 400 <= answer.status < 500, (path, answer)
                async with client.post(far.url + whatsapp.PATH, data=io.BytesIO(body * 3)) as answer:
                    assert answer.status == 401

        await round_of(10)  # buffers, caches and the allocator's own stock
        async with watched(far):
            await round_of(40)


async def test_X17_one_byte_a_second_is_given_up(far: FarHub) -> None:
    """A head, bodies with a length and in chunks, each too slow, and two hundred heads that stop halfway;
    all at once."""
    typed = "Content-Type: application/json"
    chunked = far.request(
        "POST", "/functions/v1/insert-message", typed, "Transfer-Encoding: chunked", token=far.token
    )
    drops: list[tuple[bytes, ...]] = [
        tuple(bytes([b]) for b in far.request("POST", "/rest/v1/contacts", typed, token=far.token)[:40]),
        (
            far.request("POST", "/rest/v1/contacts", typed, "Content-Length: 99", token=far.token),
            *[b" "] * 40,
        ),
        (chunked, *[b"1\r\n \r\n"] * 40),
        (far.request("POST", whatsapp.PATH, "Content-Length: 99"), *[b" "] * 40),
        (far.request("POST", "/auth/v1/verify", "Content-Length: 99"), *[b" "] * 40),
    ]
    half = (b"GET /rest/v1/contacts HTTP/1.1\r\nX-A: ", b"x" * 8000)
    async with watched(far):
        slow, halves = await asyncio.gather(
            asyncio.gather(*(far.send(*pieces, pause_s=1.0, patience_s=10) for pieces in drops)),
            asyncio.gather(*(far.send(*half, patience_s=15) for _ in range(200))),
        )
    assert [status_of(raw) for raw in slow] == [408] * len(drops), [raw[:100] for raw in slow]
    codes = {json.loads(raw.partition(b"\r\n\r\n")[2])["code"] for raw in slow}
    assert codes <= {"REQUEST_TIMEOUT", "PGRST102", "request_timeout"}
    assert {status_of(raw) for raw in halves} == {408}


async def test_X17_a_connection_that_keeps_quiet_after_an_answer_is_not_cut_at_once(far: FarHub) -> None:
    """The head's deadline begins with its first byte, not with the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", far.port)
    for _ in range(2):
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n")
        await writer.drain()
        writer.write(b"\r\n")
        assert b"200 OK" in await asyncio.wait_for(reader.readuntil(b"}"), 5)
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize(
    ("name", "request_line", "headers"),
    [
        ("one header of 100 KB", b"GET /rest/v1/contacts HTTP/1.1", [b"X-A: " + b"x" * 100_000]),
        ("10,000 headers", b"GET /rest/v1/contacts HTTP/1.1", [b"X-%d: 1" % n for n in range(10_000)]),
        ("a line of 1 MiB", b"GET /rest/v1/contacts?" + b"x" * MIB + b" HTTP/1.1", []),
    ],
)  # fmt: skip
async def test_X17_heads_beyond_the_limits_are_431(
    far: FarHub, name: str, request_line: bytes, headers: list[bytes]
) -> None:
    async with watched(far):
        got = await far.send(b"\r\n".join([request_line, b"Host: x", *headers, b"", b""]))
    assert status_of(got) == 431, got[:300]
    assert json.loads(got.partition(b"\r\n\r\n")[2])["code"] == "HEADERS_TOO_LARGE"


@pytest.mark.parametrize(
    "query",
    [
        "&".join(f"a{n}=eq.{n}" for n in range(10_000)), "&".join(["id=not.is.null"] * 10_000),
        "select=" + ",".join(["id"] * 5_000), "select=" + ",".join(["*"] * 5_000),
        "order=" + ",".join(["id"] * 5_000),
        "select=custom_fields" + "->a" * 10_000, "custom_fields" + "->a" * 10_000 + "=eq.1",
        "or=(" + ",".join(["id.is.null"] * 10_000) + ")", "or=" + "(or" * 5_000, "or=" + "(and(" * 5_000,
        "columns=" + ",".join(["id"] * 5_000), "on_conflict=" + ",".join(["id"] * 5_000),
        "id=in.(" + ",".join(["x"] * 100_000) + ")",
    ],
    ids=lambda text: text[:24],
)  # fmt: skip
async def test_X17_a_query_of_thousands_of_parts_is_refused(far: FarHub, query: str) -> None:
    async with watched(far):
        answer = await far.call(
            "GET", f"/rest/v1/contacts?{query}", headers={"Authorization": f"Bearer {far.token}"}
        )
    if query.startswith(("columns", "on_conflict")):
        return  # nothing to a reader
    assert answer.status in (400, 413, 414), answer


async def test_X17_10_000_ids_in_one_filter_are_fine(far: FarHub) -> None:
    ids = ",".join(f"00000000-0000-7000-8000-{n:012d}" for n in range(10_000))
    answer = await far.call(
        "GET", f"/rest/v1/contacts?id=in.({ids})", headers={"Authorization": f"Bearer {far.token}"}
    )
    assert (answer.status, answer.json) == (200, [])


# patterns and long subjects


EVIL = [
    "a" * 100_000, "(" * 20_000, "\\" * 50_001, '"' * 50_001, "-" * 50_001, "a-" * 40_000, ">-" * 40_000,
    "->" * 40_000, ".:" * 40_000, " " * 100_000, "a " * 40_000 + "!", "{" * 50_000, "x," * 50_000,
    "a.eq." * 20_000, "(a.eq.\\" * 10_000, "in.(" + '"a' * 30_000, "in.(" + '"\\' * 30_000,
]  # fmt: skip


async def test_X13_no_parser_of_ours_is_slow_on_any_text(far: FarHub) -> None:
    """Through the hub: the heartbeat beside them is always answered. Patterns of `match` run in Postgres,
    under its statement_timeout."""
    doors = [
        "select={}",
        "order={}",
        "columns={}",
        "first_name={}",
        "{}=eq.1",
        "or=({})",
        "and={}",
        "id=in.({})",
    ]
    bearer = {"Authorization": f"Bearer {far.token}"}
    await far.call("GET", "/rest/v1/contacts?select=nope", headers=bearer)  # the catalog is read once
    async with watched(far), aiohttp.ClientSession(headers=bearer) as client:
        for text in EVIL:
            for door in doors:
                url = f"{far.url}/rest/v1/contacts?{door.format(quote(text))}"
                async with client.get(url) as answer:
                    assert answer.status in (200, 400, 431, 503), (door, text[:10], await answer.text())


@pytest.fixture
def deadline() -> Iterator[None]:
    """Ends a parser that would go on for minutes. None needs a hundredth of this."""

    def end(*_: object) -> None:
        raise TimeoutError("still parsing after 10 s")

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, 10)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("text", EVIL, ids=range(len(EVIL)))
def test_X13_parsers_do_not_backtrack(text: str, deadline: None) -> None:
    for door in ("select=", "order=", "or=(", "first_name=", "id=in.(", "columns="):
        with suppress(HubError):
            parse_query(door + text)
    parse_phone(text)
    for opening in (b"[" + b"[]," * 70, b"[1e100,", b'{"a":"'):
        with suppress(HubError):
            check_json(opening + text.encode() * 5)


async def test_X13_a_pattern_that_backtracks_ends_with_its_statement(far: FarHub) -> None:
    conn = await asyncpg.connect(far.servers.migrate_url)
    await make_contact(conn, far.org, first_name="a" * 5000)
    await conn.close()
    evil = r"(?:(?:a%2B)%2B)%2B(?:(?:a%2B)%2B)%2Bb\1".replace("\\", "%5C")
    async with watched(far):
        answer = await asyncio.wait_for(
            far.call(
                "GET", f"/rest/v1/contacts?first_name=match.{evil}",
                headers={"Authorization": f"Bearer {far.token}"},
            ),
            15,
        )  # fmt: skip
    assert answer.status in (200, 400, 503), answer


# templates and attribute access, as far as anything expands: nothing does yet


TRICKS = [
    "{{contact.__class__.__mro__}}", "{{7*7}}", "${7*7}", "#{7*7}", "<%= 7*7 %>", "{0.__class__}", "%(x)s",
    "%n%n%n",
    "{{#each x}}{{../y}}{{/each}}", "{{{{{{a}}}}}}", "{{constructor.constructor('return 1')()}}", "$(id)",
    "`id`",
]  # fmt: skip


async def test_X32_template_tricks_stay_plain_text(far: FarHub) -> None:
    conn = await asyncpg.connect(far.servers.migrate_url)
    contact = await make_contact(conn, far.org)
    conversation = str(await make_conversation(conn, far.org, contact))
    bearer = {"Authorization": f"Bearer {far.token}", "Prefer": "return=representation"}
    for trick in TRICKS:
        message = {
            "conversation_id": conversation,
            "direction": "OUTBOUND",
            "status": "PENDING",
            "content": trick,
        }
        answer = await far.call("POST", "/rest/v1/messages", json=message, headers=bearer)
        assert (answer.status, answer.json[0]["content"]) == (201, trick)
        named = await far.call("POST", "/rest/v1/contacts", json={"first_name": trick}, headers=bearer)
        assert (named.status, named.json[0]["first_name"]) == (201, trick)
    delivery = whatsapp.messages(far.org, *(whatsapp.text("201001110000", trick) for trick in TRICKS))
    signed = {"X-Hub-Signature-256": meta_signature(whatsapp.APP_SECRET, delivery)}
    assert (await far.call("POST", whatsapp.PATH, data=delivery, headers=signed)).status == 200

    async def are_there() -> bool:
        rows = await conn.fetch("select content from messages where direction = 'INBOUND'")
        return set(TRICKS) <= {r["content"] for r in rows}

    await until(are_there, what="the tricks as the customer wrote them")
    await conn.close()


@pytest.mark.parametrize(
    "name", ["__class__", "first_name.__class__", "xmin", "ctid", "tableoid", "search", "oid"]
)
async def test_X32_filters_and_columns_reach_no_machinery(far: FarHub, name: str) -> None:
    bearer = {"Authorization": f"Bearer {far.token}"}
    for query in (f"{name}=eq.1", f"select={name}", f"order={name}", f"or=({name}.eq.1)"):
        answer = await far.call("GET", f"/rest/v1/contacts?{query}", headers=bearer)
        assert answer.status == 400, (query, answer)
    answer = await far.call("POST", "/rest/v1/contacts", json={name: "1"}, headers=bearer)
    assert answer.status == 400


# smuggling and claims of headers


SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize(
    ("name", "raw"),
    [
        ("length and chunks", b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED),
        ("two lengths", b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n{}    " + SMUGGLED),
        ("one length twice", b"Content-Length: 6, 6\r\n\r\n{}    " + SMUGGLED),
        ("length with a sign", b"Content-Length: +6\r\n\r\n{}    " + SMUGGLED),
        ("hex length", b"Content-Length: 0x6\r\n\r\n{}    " + SMUGGLED),
        ("length with an underscore", b"Content-Length: 1_0\r\n\r\n{}        " + SMUGGLED),
        ("chunked twice", b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n" + SMUGGLED),
        ("chunked not last", b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + SMUGGLED),
        ("chunked by another name", b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + SMUGGLED),
        ("chunked behind a tab", b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n" + SMUGGLED),
        ("name and blank", b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + SMUGGLED),
        ("obsolete folding", b"X-A: 1\r\n Content-Length: 6\r\n\r\n" + SMUGGLED),
        ("bare LF", b"X-A: 1\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED),
        ("bare CR", b"X-A: 1\rContent-Length: 6\r\n\r\n" + SMUGGLED),
        ("NUL in a value", b"X-A: a\x00b\r\n\r\n" + SMUGGLED),
        ("bad chunk size", b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n" + SMUGGLED),
        ("chunk size with a sign", b"Transfer-Encoding: chunked\r\n\r\n-2\r\n{}\r\n0\r\n\r\n" + SMUGGLED),
        ("chunk longer than said", b"Transfer-Encoding: chunked\r\n\r\n1\r\n{}\r\n0\r\n\r\n" + SMUGGLED),
        (
            "chunk extension of 1 MiB",
            b"Transfer-Encoding: chunked\r\n\r\n1;" + b"a" * MIB + b"\r\n \r\n0\r\n\r\n",
        ),
    ],
)  # fmt: skip
async def test_X33_a_request_that_two_servers_would_read_differently_is_one_or_none(
    far: FarHub, name: str, raw: bytes
) -> None:
    head = far.request("POST", "/rest/v1/contacts", "Content-Type: application/json", token=far.token)
    head = head.replace(b"Connection: close\r\n", b"").removesuffix(b"\r\n")
    async with watched(far):
        got = await far.send(head + raw, patience_s=3)
    assert answers_in(got) <= 1, got[-400:]
    assert status_of(got) in (400, 413), got[:300]
    assert b"smuggled" not in far.log.read_bytes()


async def test_X33_pipelined_requests_are_each_answered_in_their_order(far: FarHub) -> None:
    got = await far.send(
        b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
        b"GET /nope.js HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )
    assert answers_in(got) == 2 and got.index(b"200 OK") < got.index(b"404 Not Found")


@pytest.mark.parametrize(
    "headers",
    [
        {"X-HTTP-Method-Override": "DELETE"}, {"X-Method-Override": "DELETE"}, {"X-HTTP-Method": "DELETE"},
        {"X-User-Id": "00000000-0000-0000-0000-000000000001", "X-User-Role": "OWNER",
        "X-Role": "service_role"},
        {"X-Organization-Id": "00000000-0000-0000-0000-000000000001", "X-Hasura-Role": "admin"},
        {"X-Original-URL": "/rest/v1/api_keys", "X-Rewrite-URL": "/rest/v1/api_keys"},
        {"X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "https", "Forwarded": "host=evil.example"},
        {"X-Forwarded-For": "127.0.0.1", "X-Real-IP": "127.0.0.1", "True-Client-IP": "127.0.0.1"},
        {"X-Forwarded-Prefix": "/auth", "X-Original-Method": "POST"},
    ],
    ids=lambda h: next(iter(h)),
)  # fmt: skip
async def test_X33_headers_that_claim_things_change_nothing(far: FarHub, headers: dict[str, str]) -> None:
    """The same answer with them as without, for a caller who may and one who may not."""

    def plain(answer: Any) -> tuple[int, Any]:
        body = answer.json
        return answer.status, {**body, "request_id": ""} if isinstance(body, dict) else body

    for bearer in ({"Authorization": f"Bearer {far.token}"}, {"Authorization": f"Bearer {far.anon}"}, {}):
        for method, path in (
            ("GET", "/rest/v1/companies"), ("POST", "/functions/v1/list-organizations"), ("GET",
            "/auth/v1/settings"),
            ("POST", "/auth/v1/recover"),
        ):  # fmt: skip
            with_, without = [
                await far.call(method, path, headers={**bearer, **more}) for more in (headers, {})
            ]
            assert plain(with_) == plain(without)
            assert b"evil.example" not in with_.body and "evil.example" not in str(with_.headers)
    scrape = await far.call("GET", "/metrics", headers=headers)
    assert scrape.status == (404 if "X-Forwarded-For" in headers else 200)


@pytest.mark.parametrize(
    "pair",
    [
        (b"Authorization: Bearer %s", b"Authorization: Bearer garbage"),
        (b"Authorization: Bearer garbage", b"Authorization: Bearer %s"),
    ],
)
async def test_X33_two_authorizations_are_none(far: FarHub, pair: tuple[bytes, bytes]) -> None:
    """A proxy may look at the one and we at the other."""
    lines = [line % far.token.encode() if b"%s" in line else line for line in pair]
    got = await far.send(far.request("GET", "/rest/v1/contacts", *lines))
    assert status_of(got) in (400, 401), got[:300]


@pytest.mark.parametrize("name", ["Host", "Content-Type", "Origin", "X-API-Key", "Idempotency-Key", "apikey"])
async def test_X33_doubled_headers_are_refused_or_read_once(far: FarHub, name: str) -> None:
    got = await far.send(
        far.request("GET", "/rest/v1/contacts", f"{name}: a.test", f"{name}: b.test", token=far.token)
    )
    assert status_of(got) in (200, 400, 401) and answers_in(got) == 1, got[:300]


@pytest.mark.parametrize(
    "line",
    [
        b"GET http://evil.example/rest/v1/contacts HTTP/1.1", b"GET //rest/v1/contacts HTTP/1.1",
        b"GET /rest/v1/../v1/contacts HTTP/1.1", b"GET /rest/v1/%2e%2e/v1/contacts HTTP/1.1",
        b"GET /rest/v1/contacts%2f HTTP/1.1", b"GET /rest/v1/contacts\xff HTTP/1.1",
        b"GET /rest/v1/%ff HTTP/1.1",
        b"GET /rest/v1/contacts?a\xff=eq.1 HTTP/1.1", b"GET /rest/v1/contacts?select=\xff HTTP/1.1",
        b"GET /rest/v1/contacts?first_name=eq.\xff HTTP/1.1",
        b"GET /rest/v1/contacts?first_name=eq.%ff HTTP/1.1",
        b"GET /rest/v1/contacts?%00=eq.1 HTTP/1.1", b"GET /rest/v1/contacts%00 HTTP/1.1", b"GET * HTTP/1.1",
        b"OPTIONS * HTTP/1.1", b"CONNECT x:1 HTTP/1.1", b"GET /rest/v1/contacts HTTP/9.9",
        b"GET /rest/v1/contacts",
        b"BREW /rest/v1/contacts HTTP/1.1", b"get /rest/v1/contacts HTTP/1.1",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
        b"PRI * HTTP/2.0", b"GET /auth/v1/token?grant_type=\xff HTTP/1.1",
        b"POST /auth/v1/logout?scope=\xff HTTP/1.1",
        b"GET /functions/v1/events?epoch=\xff HTTP/1.1", b"GET /functions/v1/\xff HTTP/1.1",
        b"GET /\xff HTTP/1.1",
    ],
)  # fmt: skip
async def test_X33_odd_request_lines_are_refused_in_our_words(far: FarHub, line: bytes) -> None:
    lines = [line, b"Host: x", b"Connection: close", b"Authorization: Bearer " + far.token.encode(), b"", b""]
    got = await far.send(b"\r\n".join(lines), patience_s=12)
    status = status_of(got)
    assert status in (200, 204, 400, 401, 404, 405, 408, 503), got[:300]
    assert status != 503 or b"not built" in got, got[:300]
    assert b"aiohttp" not in got and b"Python" not in got
    if status >= 400 and b"json" in got:
        assert json.loads(got.partition(b"\r\n\r\n")[2])["request_id"]


HEADERS = (
    "Accept", "Accept-Encoding", "Accept-Profile", "Access-Control-Request-Headers",
    "Access-Control-Request-Method",
    "Authorization", "Content-Profile", "Content-Type", "Cookie", "Idempotency-Key", "If-None-Match",
    "Origin", "Prefer",
    "Range", "User-Agent", "X-API-Key", "X-Client-Info", "X-Hub-Client", "X-Hub-Signature-256",
    "X-Request-Id",
    "X-Supabase-Api-Version", "apikey", "Expect", "Upgrade", "Sec-WebSocket-Key", "Sec-WebSocket-Version",
    "X-Forwarded-For",
)  # fmt: skip
VALUES = [
    b"\xff\xfe", b"\xc3\x28", "ü€😀".encode(), b"http://[bad", b"null", b"\t", b"a,b;c=\"d",
    b"'; drop table x; --",
    b"%s%n{0}${1}", b"Bearer \xff", b"cg_" + b"\xff" * 43, b"cg_" + b"a" * 43, b"e30.e30.e30",
    b"100-continue", b"0-99999999999999999999999999999999", b"application/\xff", b"9" * 5000,
]  # fmt: skip


@pytest.mark.parametrize("name", HEADERS)
async def test_X33_no_value_of_any_header_breaks_an_answer(far: FarHub, name: str) -> None:
    """Every surface answers in words whatever bytes a header holds."""
    for method, path in (
        ("GET", "/rest/v1/contacts"), ("POST", "/rest/v1/contacts"), ("OPTIONS", "/rest/v1/contacts"),
        ("POST", "/auth/v1/token?grant_type=refresh_token"), ("POST", "/auth/v1/token?grant_type=password"),
        ("POST", "/auth/v1/logout"), ("GET", "/auth/v1/settings"), ("POST", "/functions/v1/insert-message"),
        ("POST", whatsapp.PATH), ("GET", "/ws"), ("GET", "/"), ("GET", "/metrics"), ("GET", "/assets/x.js"),
    ):  # fmt: skip
        for value in VALUES:
            body = b'{"email": "a@b.c", "password": "x"}' if method == "POST" else b""
            # signing out would end the session of the tests that follow
            token = None if name == "Authorization" or path.endswith("/logout") else far.token
            got = await far.send(
                far.request(
                    method, path, name.encode() + b": " + value,
                    *([] if name == "Content-Type" else ["Content-Type: application/json"]),
                    *(["X-Hub-Client: web"] if path.startswith("/auth") and name != "X-Hub-Client" else []),
                    body=body, token=token,
                ),
                patience_s=10,
            )  # fmt: skip
            got = got.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
            status = status_of(got)
            assert 200 <= status < 500 or (status == 503 and b"not built" in got), (
                method,
                path,
                value,
                got[:400],
            )
            head = got.partition(b"\r\n\r\n")[0]
            assert b"aiohttp" not in head and b"Python" not in head


async def test_X33_nothing_of_all_this_was_a_bug_of_ours(far: FarHub) -> None:
    """The last of this file: after all these requests the log holds no traceback and no complaint of the
    server's own logger."""
    lines = [json.loads(line) for line in far.log.read_text().splitlines() if line.startswith("{")]
    assert [line for line in lines if line.get("level") == "error" or "exception" in line][:3] == []
