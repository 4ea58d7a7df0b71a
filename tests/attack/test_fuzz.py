"""Bad input, generated: every parser (X-30, in small; tests/attack/atheris takes ten minutes each) and every
route (X-31). Never a 5xx, never an answer of another shape, never another tenant's canary, memory flat."""

from __future__ import annotations

import asyncio
import base64
import json
import math
import struct
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import asyncpg
import msgspec
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from hub import openapi
from hub.app import build_app
from hub.auth.secrets import CannotOpen, open_secret
from hub.auth.tokens import Keyring
from hub.bodies import check_json, decode_json
from hub.channels import signing
from hub.channels.ingest import Delivery
from hub.channels.spool import SpoolFile, frame
from hub.channels.whatsapp_cloud import WhatsAppCloud
from hub.db.pool import Database
from hub.domain.permissions import PERMISSIONS
from hub.domain.phones import LONGEST, SHORTEST, parse_phone
from hub.errors import HubError
from hub.functions.messages import _insert, _send
from hub.rest.catalog import Catalog
from hub.rest.grammar import parse_query
from hub.rest.prefer import parse_prefer
from hub.rest.sealed import MASK, split
from hub.settings import BadSettings, load_settings
from tests import whatsapp
from tests.attack.atheris import targets
from tests.attack.atheris.seeds import webhooks
from tests.attack.description import describe, routes_of
from tests.attack.far import MIB, FarHub, somebody
from tests.attack.sizes import PROFILE, scaled
from tests.attack.test_tenants import QUERY
from tests.attack.twins import CANARY, checksums, plant
from tests.fault.conftest import Figures
from tests.rows import fill
from tests.unit.test_tokens import SETTINGS as TOKEN_SETTINGS
from tests.unit.test_tokens import ring as ring

_EACH = settings(
    max_examples=scaled(300, 20_000), deadline=None, print_blob=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow,
    HealthCheck.data_too_large],
)  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)


#: Bytes that look like JSON: a real document with a few bytes changed, or any.
def bent(document: bytes) -> st.SearchStrategy[bytes]:
    def change(edits: list[tuple[int, bytes, int]]) -> bytes:
        raw = bytearray(document)
        for at, new, gone in edits:
            at %= len(raw) + 1
            raw[at : at + gone] = new
        return bytes(raw)

    edit = st.tuples(st.integers(0, 10**6), st.binary(max_size=6), st.integers(0, 40))
    return st.one_of(
        st.binary(max_size=200),
        st.lists(edit, max_size=6).map(change),
        JSON.map(lambda v: json.dumps(v).encode()),
    )


ADAPTER = WhatsAppCloud()
WEBHOOKS = webhooks()


@given(raw=st.sampled_from(WEBHOOKS).flatmap(bent))
@_EACH
def test_X30_webhook_parser(raw: bytes) -> None:
    """An inbound batch or a decode error, whatever the bytes; the same for the same bytes."""
    try:
        found = ADAPTER.parse(raw)
    except msgspec.DecodeError:
        return
    assert found == ADAPTER.parse(raw)


@given(query=st.one_of(QUERY, st.text(max_size=200)))
@_EACH
def test_X30_rest_grammar(query: str) -> None:
    try:
        parse_query(query)
    except HubError as error:
        assert error.status in (400, 416) and error.rest_code.startswith("PGRST")


@given(headers=st.lists(st.text(max_size=60), max_size=4))
@_EACH
def test_X30_prefer_header(headers: list[str]) -> None:
    assert parse_prefer(headers).returns in ("minimal", "headers-only", "representation")


@given(raw=st.sampled_from([
    b'{"type":"hello","token":"t","cursor":{"epoch":"e","seq":1},"client":"c"}',
    b'{"type":"command","id":"1","name":"send","args":{"conversation_id":'
    b'"01900000-0000-7000-8000-000000000000","content":"x"}}',
]).flatmap(bent))  # fmt: skip
@_EACH
def test_X30_websocket_frames(raw: bytes) -> None:
    targets.frames(raw)


@given(
    records=st.lists(st.binary(max_size=200), max_size=5),
    edits=st.lists(st.tuples(st.integers(0, 10**6), st.binary(max_size=8), st.integers(0, 60)), max_size=4),
)
@_EACH
def test_X30_spool_reader(tmp_path: Path, records: list[bytes], edits: list[tuple[int, bytes, int]]) -> None:
    """However a file was damaged: reading ends, and every record that lies whole in it is found."""
    good = [
        frame(Delivery(channel="WHATSAPP_CLOUD", body=b, headers={}, account=None, received_at=0.0))
        for b in records
    ]
    raw = bytearray(b"".join(good))
    for at, new, gone in edits:
        at %= len(raw) + 1
        raw[at : at + gone] = new
    spool = SpoolFile.create(tmp_path)
    try:
        spool.append(bytes(raw)) if raw else None
        read: list[Delivery] = []
        for _ in range(len(raw) + 2):
            if spool.is_drained:
                break
            found, position = spool.read(100)
            assert position > spool.position
            read += found
            spool.position = position
        assert spool.is_drained
    finally:
        spool.clear()
        spool.is_damaged = False
        spool.finish()
    bodies = [d.body for d in read]
    if not edits:
        assert bodies == records


@given(head=st.binary(min_size=12, max_size=12), tail=st.binary(max_size=50))
@_EACH
def test_X30_spool_lengths_that_lie(tmp_path: Path, head: bytes, tail: bytes) -> None:
    payload = tail
    lying = struct.pack("<4sII", b"HSP1", int.from_bytes(head[:4], "little"), zlib.crc32(payload)) + payload
    spool = SpoolFile.create(tmp_path)
    try:
        spool.append(lying)
        spool.read(10)
    finally:
        spool.clear()
        spool.is_damaged = False
        spool.finish()


@given(text=st.one_of(st.text(max_size=60), st.text("+0123456789٠١٢٣ ()-.@:s.whatsapp.net", max_size=40)))
@_EACH
def test_X30_phones(text: str) -> None:
    found = parse_phone(text)
    if found is not None:
        assert found.e164 == f"+{found.wa_id}" and found.wa_id.isascii() and found.wa_id.isdigit()
        assert SHORTEST - 1 <= len(found.wa_id) <= LONGEST and found.e164 in found.forms
        assert parse_phone(found.e164) == parse_phone(found.wa_id)


def three_parts(parts: list[bytes]) -> str:
    return ".".join(base64.urlsafe_b64encode(p).decode().rstrip("=") for p in parts)


_TOKENS = st.one_of(
    st.text(max_size=200), st.lists(st.binary(max_size=60), min_size=1, max_size=5).map(three_parts)
)


@given(text=_TOKENS)
@_EACH
def test_X30_tokens(ring: Keyring, text: str) -> None:
    with pytest.raises(HubError) as refused:
        ring.verify(text)
    assert refused.value.status == 401
    with pytest.raises(CannotOpen):
        open_secret(TOKEN_SETTINGS, text, table="t", column="c", organization_id=None, row_id=None)
    assert not signing.verify_meta(text, b"body", ["secret"])


@given(environ=st.dictionaries(
    st.sampled_from([
        "DATABASE_URL", "REDIS_URL", "HUB_SECRET_KEY", "HUB_PORT", "HUB_HOST", "HUB_LOG", "PUBLIC_BASE_URL",
        "HUB_RATE_REST",
        "HUB_TRUSTED_PROXIES", "HUB_ALLOWED_ORIGINS", "HUB_WORK_POLL_S", "HUB_CLOCK_OFFSET_S",
        "META_GRAPH_BASE", "HUB_DEMO", "HUB_X",
    ]),
    st.one_of(st.text(max_size=40), st.sampled_from(["1e999", "nan", "inf", "-1", "http://[",
    "http://x:99999", "postgresql://", "k" * 32, "a" * 32 + ","])),
))  # fmt: skip
@_EACH
def test_X30_settings(environ: dict[str, str]) -> None:
    """Settings, or a sentence that names a variable."""
    base = {"DATABASE_URL": "postgresql://db/hub", "REDIS_URL": "redis://c", "HUB_SECRET_KEY": "k" * 32}
    try:
        load_settings({**base, **environ})
    except BadSettings as error:
        assert any(name in str(error) for name in (*environ, "HUB_SECRET_KEY")), error


@given(
    raw=st.sampled_from(
        [b'{"phone": "+201001383533", "content": "x", "direction": "incoming", "status": "received"}']
    ).flatmap(bent)
)
@_EACH
def test_X30_bodies_of_functions(raw: bytes) -> None:
    for decoder in (_insert, _send):
        try:
            decode_json(raw, cast(Any, decoder), "application/json")
        except (HubError, msgspec.DecodeError, UnicodeDecodeError):
            continue


@given(raw=st.binary(max_size=300))
@_EACH
def test_X30_depth_and_range_of_json(raw: bytes) -> None:
    """What passes is read by Python alike or not at all; what Python reads and is not too deep passes."""
    try:
        check_json(raw)
    except HubError as error:
        assert error.status == 400


@given(document=JSON)
@_EACH
def test_X30_secrets_of_settings(document: Any) -> None:
    found = split(document)
    shown = json.dumps(found.shown, default=str)
    for name, value in found.secrets.items():
        assert name and value
        if len(value) > 12:
            assert json.dumps(value)[1:-1] not in shown or json.dumps(value)[1:-1] in json.dumps(
                document
            ).replace(json.dumps(value), "", 1)
    again = split(found.shown)
    assert again.secrets == {} and all(MASK for _ in again.keep)


#


TOTAL = scaled(2_000, 50_000)
IDENTITIES = ("owner", "key", "anon")


@pytest.mark.parametrize("source", ["routes", "published"])
async def test_X31_every_route_answers_everything_in_its_documented_shape(
    far: FarHub, figures: Figures, source: str
) -> None:
    """Requests made by schemathesis, good and bad ones, as an owner, with an organization's key and with the
    anon key: from the routes, tables and bodies that there are, with what troubles parsers in them, and from
    the document of `hub openapi`, whose word on answers is taken."""
    conn = await asyncpg.connect(far.servers.migrate_url)
    b = await fill(conn)
    await plant(conn, b)
    before = await checksums(conn, b)
    db = Database(far.servers.database_url, ("admin",))
    await db.open()
    catalog = Catalog(db)
    schema = (await catalog.compiler()).schema
    document = openapi.describe(schema, far.url) if source == "published" else describe(load_settings({
        "DATABASE_URL": far.servers.database_url, "REDIS_URL": "redis://127.0.0.1:1",
        "HUB_SECRET_KEY": "k" * 32,
    }), schema.tables)  # fmt: skip
    await db.close()
    granted = {"name": "k", "permissions": dict.fromkeys(PERMISSIONS, True)}
    bearer = {"Authorization": f"Bearer {far.token}"}
    key = await far.call("POST", "/functions/v1/generate-api-key", headers=bearer, json=granted)
    identities = {
        "owner": bearer, "key": {"X-API-Key": key.json["api_key"]},
        "anon": {"Authorization": f"Bearer {far.anon}", "apikey": far.anon},
    }  # fmt: skip
    # sign-in's own routes end sessions and change passwords: those of somebody else
    identities["other"] = {"Authorization": f"Bearer {await somebody(far, conn)}"}
    seen = await asyncio.to_thread(_fire, far, document, identities)
    assert await checksums(conn, b) == before
    await conn.close()
    assert seen.requests >= TOTAL * 9 // 10, seen.requests
    # the published document names no method that is always refused
    operations, refused = (200, {405}) if source == "routes" else (170, set())
    assert seen.operations >= operations
    assert seen.statuses.keys() >= {200, 201, 204, 400, 401, 403, 404, 422} | refused
    figures.note("requests", seen.requests)
    figures.note("operations", seen.operations)
    figures.note("answers", " ".join(f"{status}×{n}" for status, n in sorted(seen.statuses.items())))
    figures.note("memory", seen.memory)
    log = far.log.read_text()
    assert '"level":"error"' not in log, [line for line in log.splitlines() if '"level":"error"' in line][:3]
    assert CANARY not in log


class Seen:
    """What was sent and answered."""

    def __init__(self) -> None:
        self.requests = self.operations = 0
        self.statuses: dict[int, int] = {}
        self.memory = ""


CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
#: Each with an identity and a kind of request; the first half warms up caches and the allocator.
ROUNDS = 6


def _fire(far: FarHub, document: dict[str, Any], identities: dict[str, dict[str, str]]) -> Seen:
    schema = schemathesis.openapi.from_dict(document)
    operations = [found.ok() for found in schema.get_all_operations()]
    seen = Seen()
    seen.operations = len(operations)
    session = requests.Session()
    session.trust_env = False
    each = math.ceil(TOTAL / ROUNDS / len(operations))
    sizes = []

    def target(headers: dict[str, str]) -> Callable[[Any], None]:
        def fire(case: Any) -> None:
            answer = case.call(
                base_url=far.url, headers=headers, session=session, timeout=20, allow_redirects=False
            )
            seen.requests += 1
            seen.statuses[answer.status_code] = seen.statuses.get(answer.status_code, 0) + 1
            assert CANARY not in f"{answer.headers} {answer.content!r}"
            kind = answer.headers.get("content-type", [""])[0]
            if not answer.content or (answer.status_code < 400 and not kind.startswith("application/json")):
                assert answer.status_code < 400  # pages, files, metrics, a handshake; OPTIONS and 204
                return
            if answer.status_code == 503 and kind.startswith("text/html"):
                return  # the web app is not built
            case.validate_response(answer, checks=CHECKS)

        return fire

    for turn in range(ROUNDS):
        mode = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)[turn % 2]
        who = IDENTITIES[turn % 3]
        for number, operation in enumerate(operations):
            strategy = operation.as_strategy(generation_mode=mode)
            name = "other" if operation.path.startswith("/auth/") and who == "owner" else who
            test = settings(
                max_examples=each, deadline=None, database=None, phases=[Phase.generate],
                suppress_health_check=list(HealthCheck), derandomize=PROFILE == "ci",
            )(given(strategy)(target(identities[name])))  # fmt: skip
            if PROFILE != "ci":
                test = seed(turn * 1000 + number)(test)
            with suppress(Unsatisfiable):  # nothing of it can be got wrong
                test()
        sizes.append(far.memory())
    seen.memory = " ".join(f"{size / MIB:.0f}" for size in sizes) + " MiB"
    assert sizes[-1] - sizes[ROUNDS // 2 - 1] < 20 * MIB, seen.memory
    return seen


def test_X31_the_description_knows_every_route(far: FarHub) -> None:
    """A route that is added later is fuzzed as well."""
    config = load_settings(
        {"DATABASE_URL": "postgresql://x/y", "REDIS_URL": "redis://x", "HUB_SECRET_KEY": "k" * 32}
    )
    known = routes_of(build_app(config))
    assert {"/rest/v1/{table}", "/ws", "/healthz", whatsapp.PATH, "/auth/v1/token"} <= known
