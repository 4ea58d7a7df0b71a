"""What other people's clients do that a server has to know: the 25 quirks of rest.md 19, one test each.

Where the client makes the quirk, the client drives: supabase-js in tests/clients/quirks.mjs, `supabase` for
Python here. Each test says first that the quirk is really on the wire, then that the hub copes.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import httpx
import pytest
from aiohttp import WSServerHandshakeError
from postgrest.exceptions import APIError
from postgrest.types import CountMethod, ReturnMethod
from supabase_auth.errors import AuthApiError, AuthUnknownError

from hub.db.embedded import EmbeddedValkey
from hub.domain.permissions import RULES
from hub.functions.router import FUNCTIONS
from hub.resources import AUTH, CATALOG
from tests.clients import drive, supabase_py
from tests.factories import Member, Servers
from tests.fakes.proxy import proxy_to
from tests.server import PASSWORD, Hub, running_hub

Said = dict[str, dict[str, Any]]
Js = Callable[[str], Awaitable[Said]]
JSON = {"Content-Type": "application/json"}
NOBODY = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
async def anon(hub: Hub) -> str:
    return (await hub.app[AUTH].keyring()).project_keys().anon


@pytest.fixture
def js(hub: Hub, anon: str, owner: Member) -> Js:
    """supabase-js, signed in as the owner, at one quirk."""

    async def run(quirk: str) -> Said:
        return await drive("quirks.mjs", quirk, hub.url, anon, owner.email, PASSWORD)

    return run


@pytest.fixture
async def token(hub: Hub, owner: Member) -> str:
    return await hub.token(owner.email)


def sent(line: dict[str, Any]) -> dict[str, Any]:
    """The one request that a call made."""
    (request,) = line["sent"]
    found: dict[str, Any] = request
    return found


def query(request: httpx.Request) -> str:
    """As the server reads it."""
    return "&".join(f"{key}={value}" for key, value in request.url.params.multi_items())


def preferences(text: str) -> set[str]:
    return {word.strip() for word in text.split(",")}


def first_names(line: dict[str, Any]) -> list[str]:
    assert line["error"] is None, line
    return [row["first_name"] for row in line["data"]]


async def test_19_01_arrays_come_with_their_columns_in_quotes(js: Js, hub: Hub, owner: Member) -> None:
    said = await js("01")
    assert 'columns="first_name","last_name"' in sent(said["insert"])["query"]
    assert said["insert"]["data"] == [
        {"first_name": "Mia", "last_name": "Doe"}, {"first_name": "Leo", "last_name": None},
    ]  # fmt: skip
    assert 'columns="id","job_title"' in sent(said["upsert"])["query"]
    assert {row["job_title"] for row in said["upsert"]["data"]} == {"CEO"}
    async with supabase_py(hub, owner.email) as (db, wire):
        made = await db.table("companies").insert([{"name": "Blue"}, {"name": "Red", "city": "X"}]).execute()
        assert re.search(r'columns="(name","city|city","name)"', query(wire.last))
        assert [(row["name"], row["city"]) for row in made.data] == [("Blue", None), ("Red", "X")]


async def test_19_02_a_select_after_a_write_adds_to_prefer(js: Js, hub: Hub, token: str) -> None:
    said = await js("02")
    prefer = preferences(sent(said["upsert"])["headers"]["prefer"])
    assert {"resolution=merge-duplicates", "return=representation"} <= prefer
    assert (said["upsert"]["data"], said["upsert"]["status"]) == ([{"first_name": "Mia2"}], 200)
    assert (said["counted"]["data"], said["counted"]["count"]) == ([{"first_name": "Mia2"}], 1)
    # the same as two lines, as some proxies and fetch polyfills send it
    lines = [("Prefer", "resolution=merge-duplicates"), ("Prefer", "return=representation")]
    async with hub.client.post(
        f"{hub.url}/rest/v1/contacts", data=f'{{"id": "{NOBODY}", "first_name": "Ann"}}',
        headers=[*lines, ("Authorization", f"Bearer {token}"), *JSON.items()],
    ) as answer:  # fmt: skip
        assert (answer.status, (await answer.json())[0]["first_name"]) == (201, "Ann")
        assert preferences(answer.headers["Preference-Applied"]) == {value for _, value in lines}


async def test_19_03_every_call_names_the_profile_public(js: Js, hub: Hub, owner: Member) -> None:
    said = await js("03")
    for name, header in {
        "read": "accept-profile", "head": "accept-profile", "write": "content-profile",
        "call": "content-profile",
    }.items():  # fmt: skip
        assert sent(said[name])["headers"][header] == "public"
        assert said[name]["status"] in (200, 201), said[name]
    assert sent(said["other"])["headers"]["accept-profile"] == "auth"
    assert sent(said["other write"])["headers"]["content-profile"] == "auth"
    for name in ("other", "other write"):
        assert (said[name]["status"], said[name]["error"]["code"]) == (406, "PGRST106")
    async with supabase_py(hub, owner.email) as (db, wire):
        await db.table("contacts").select("id").execute()
        assert wire.last.headers["Accept-Profile"] == "public"
        await db.table("contacts").insert({"first_name": "Mia"}).execute()
        assert wire.last.headers["Content-Profile"] == "public"


async def test_19_04_python_wants_rows_back_unless_told(hub: Hub, owner: Member) -> None:
    async with supabase_py(hub, owner.email) as (db, wire):
        contacts = db.table("contacts")
        made = await contacts.insert({"first_name": "Mia"}).execute()
        assert "return=representation" in preferences(wire.last.headers["Prefer"])
        mia = made.data[0]["id"]
        minimal = ReturnMethod.minimal
        quiet = [
            (contacts.insert({"first_name": "Leo"}, returning=minimal), 201),
            (contacts.upsert({"id": mia, "first_name": "Mia2"}, returning=minimal), 200),
            (contacts.update({"job_title": "CEO"}, returning=minimal).eq("id", mia), 204),
            (contacts.delete(returning=minimal).eq("id", mia), 204),
        ]
        for call, status in quiet:
            assert (await call.execute()).data == []
            assert "return=minimal" in preferences(wire.last.headers["Prefer"])
            answer = wire.answers[-1]
            assert (answer.status_code, answer.content) == (status, b"")
            assert "Content-Type" not in answer.headers
        for gone in (contacts.update({"job_title": "x"}), contacts.delete()):
            assert (await gone.eq("id", mia).execute()).data == []
            assert (wire.answers[-1].status_code, wire.answers[-1].content) == (200, b"[]")


async def test_19_05_readers_are_tried_again_after_503_and_never_by_our_throttle(
    servers: Servers, valkey: EmbeddedValkey, tmp_path: Path, owner: Member
) -> None:
    async with running_hub(servers, valkey.url, tmp_path, HUB_RATE_REST="1") as hub:
        anon = (await hub.app[AUTH].keyring()).project_keys().anon
        said = await drive("quirks.mjs", "05", hub.url, anon, owner.email, PASSWORD)
        assert said["read 0"]["status"] == 200
        over = said["read 1"]
        assert (over["status"], over["error"]["code"]) == (429, "RATE_LIMIT_EXCEEDED")
        assert len(over["sent"]) == 1, "429 is no reason to come back at once"
        # what a user does wrong is no outage: auth-js goes on trying a refresh for 30 s after any 5xx
        assert said["password"]["error"]["code"] == "invalid_credentials"
        assert len(said["password"]["sent"]) == 1
        assert said["refresh"]["error"]["code"] == "refresh_token_not_found"
        assert len(said["refresh"]["sent"]) == 1
    parts = urlsplit(servers.database_url)
    assert parts.hostname is not None and parts.port is not None
    async with proxy_to(parts.hostname, parts.port) as proxy:
        address = parts.netloc.replace(f":{parts.port}", f":{proxy.port}")
        behind = Servers(urlunsplit(parts._replace(netloc=address)), servers.migrate_url)
        async with (
            running_hub(behind, valkey.url, tmp_path) as hub,
            supabase_py(hub, owner.email) as (db, wire),
        ):

            async def back(response: httpx.Response) -> None:
                proxy.down.silent = False

            assert (await db.table("contacts").select("id").execute()).data == []
            db.postgrest.session.event_hooks["response"].append(back)
            proxy.down.silent = True
            # a retry may find the outage's last broken connection, too; the client has three
            assert (await db.table("contacts").select("id").execute()).data == []
            statuses = [a.status_code for a in wire.answers[2:]]
            assert set(statuses[:-1]) == {503} and statuses[-1] == 200
            assert wire.answers[2].headers["Retry-After"].isdigit()
            assert wire.last.headers["X-Retry-Count"] == str(len(statuses) - 1)


async def test_19_06_head_has_a_content_range_and_a_number_when_asked(js: Js, hub: Hub, token: str) -> None:
    said = await js("06")
    assert sent(said["counted"])["method"] == "HEAD"
    assert (said["counted"]["count"], said["counted"]["status"], said["counted"]["data"]) == (2, 200, None)
    assert (said["not counted"]["count"], said["not counted"]["status"]) == (None, 200)
    plain = await hub.call("HEAD", "/rest/v1/contacts", token=token)
    assert (plain.headers["Content-Range"], plain.body) == ("0-1/*", b"")
    assert "Content-Range" in plain.headers["Access-Control-Expose-Headers"], "or a browser sees none"


async def test_19_07_maybe_single_reads_an_array_and_single_an_object(js: Js) -> None:
    said = await js("07")
    assert sent(said["single"])["headers"]["accept"] == "application/vnd.pgrst.object+json"
    assert said["single"]["data"] == {"first_name": "Mia"}
    assert "pgrst.object" not in sent(said["maybeSingle"])["headers"].get("accept", "")
    assert said["maybeSingle"]["data"] == {"first_name": "Mia"}
    assert (said["maybeSingle none"]["data"], said["maybeSingle none"]["error"]) == (None, None)
    assert said["maybeSingle many"]["error"]["code"] == "PGRST116", "found by the client itself"


async def test_19_08_or_of_an_embedded_table(js: Js, hub: Hub, owner: Member) -> None:
    said = await js("08")
    assert "deals.or=(title.eq.A,title.eq.B)" in sent(said["or"])["query"]
    (row,) = said["or"]["data"]
    assert sorted(deal["title"] for deal in row["deals"]) == ["A", "B"]
    async with supabase_py(hub, owner.email) as (db, wire):
        one = db.table("contacts").select("first_name,deals(title)")
        found = await one.or_("title.eq.A,title.eq.C", reference_table="deals").execute()
        assert "deals.or=(title.eq.A,title.eq.C)" in query(wire.last)
        assert sorted(deal["title"] for deal in found.data[0]["deals"]) == ["A", "C"]
        none = db.table("deals").select("title")
        left = await none.not_.or_("title.eq.A,title.eq.C").execute()
        assert "not.or=(title.eq.A,title.eq.C)" in query(wire.last)
        assert left.data == [{"title": "B"}]
        inside = db.table("contacts").select("deals(title)")
        rest = await inside.not_.or_("title.eq.A,title.eq.C", reference_table="deals").execute()
        assert "deals.not.or=(title.eq.A,title.eq.C)" in query(wire.last)
        assert rest.data == [{"deals": [{"title": "B"}]}]


async def test_19_09_not_comes_before_the_operator(js: Js) -> None:
    said = await js("09")
    assert "first_name=not.in.(Mia,Leo)" in sent(said["not in"])["query"]
    assert first_names(said["not in"]) == ["Zoe"]
    assert "last_name=not.is.null" in sent(said["not is"])["query"]
    assert first_names(said["not is"]) == ["Mia"]


async def test_19_10_arrays_objects_and_words_in_operators(js: Js) -> None:
    said = await js("10")
    expected = {
        "contains": ("tags=cs.{a,b}", ["Mia"]),
        "contains object": ('custom_fields=cs.{"k":"v"}', ["Mia"]),
        "overlaps": ("tags=ov.{b,x}", ["Leo", "Mia"]),
        "textSearch": ("last_name=wfts(english).doe", ["Mia"]),
        "likeAnyOf": ("first_name=like(any).{M%,x%}", ["Mia"]),
    }
    for name, (written, found) in expected.items():
        assert written in sent(said[name])["query"]
        assert first_names(said[name]) == found


async def test_19_11_range_and_order_as_parameters(js: Js) -> None:
    said = await js("11")
    assert {"offset=0", "limit=2"} <= set(sent(said["range"])["query"].split("&"))
    assert first_names(said["range"]) == ["Ann", "Leo"]
    assert "order=last_name.desc.nullslast,first_name.asc" in sent(said["order"])["query"]
    assert first_names(said["order"]) == ["Ann", "Mia", "Leo"]
    assert "deals.order=title.desc" in sent(said["order embedded"])["query"]
    assert said["order embedded"]["data"] == [{"deals": [{"title": "B"}, {"title": "A"}]}]


async def test_19_12_csv_is_made_and_a_plan_is_refused_in_json(js: Js) -> None:
    said = await js("12")
    assert sent(said["csv"])["headers"]["accept"] == "text/csv"
    assert said["csv"]["data"] == "first_name,tags\nMia,{a}"
    assert sent(said["explain"])["headers"]["accept"].startswith("application/vnd.pgrst.plan+json")
    assert (said["explain"]["status"], said["explain"]["error"]["code"]) == (406, "PGRST107")


async def test_19_13_calls_with_objects_head_and_arrays(js: Js, superuser: asyncpg.Connection) -> None:
    await superuser.execute(
        "create function public.having_ids(ids uuid[]) returns bigint language sql stable"
        " as $$ select count(*) from contacts where id = any (ids) $$;"
        " grant execute on function public.having_ids(uuid[]) to authenticated"
    )
    said = await js("13")
    assert sent(said["head"])["method"] == "HEAD"
    assert (said["head"]["count"], said["head"]["data"]) == (2, None)
    odd = sent(said["head object"])
    assert (odd["method"], preferences(odd["headers"]["prefer"])) == (
        "POST", {"count=exact", "return=minimal"},
    )  # fmt: skip
    assert said["head object"]["error"] is None and said["head object"]["count"] == 0
    got = sent(said["get array"])
    assert got["method"] == "GET" and re.search(r"ids=\{[0-9a-f-]{36},[0-9a-f-]{36}\}", got["query"])
    assert said["get array"]["data"] == 2


async def test_19_14_max_affected_is_strict_and_undone(js: Js) -> None:
    said = await js("14")
    assert {"handling=strict", "max-affected=1"} <= preferences(sent(said["too many"])["headers"]["prefer"])
    assert (said["too many"]["status"], said["too many"]["error"]["code"]) == (400, "PGRST124")
    assert said["unchanged"]["data"] == [{"job_title": None}, {"job_title": None}]
    assert said["enough"]["data"] == [{"job_title": "x"}, {"job_title": "x"}]


async def test_19_15_the_code_decides_what_error_a_user_sees(js: Js) -> None:
    said = await js("15")
    assert said["fine"]["error"] is None
    for name in ("nonsense", "anon"):
        assert (said[name]["error"]["name"], said[name]["error"]["code"]) == ("AuthApiError", "bad_jwt"), name
    assert said["gone"]["error"]["name"] == "AuthSessionMissingError"


async def test_19_16_every_refusal_of_sign_in_is_a_json_object(hub: Hub, owner: Member) -> None:
    async with supabase_py(hub, owner.email) as (db, wire):
        auth = db.auth
        mistakes: list[tuple[Callable[[], Awaitable[Any]], str]] = [
            (lambda: auth.sign_in_with_password({"email": owner.email, "password": "no"}),
             "invalid_credentials"),
            (lambda: auth.sign_up({"email": "new@example.test", "password": "long enough 1"}),
             "signup_disabled"),
            (lambda: auth.refresh_session("nonsense1234"), "refresh_token_not_found"),
            (lambda: auth.get_user("nonsense"), "bad_jwt"),
            (lambda: auth.exchange_code_for_session(
                {"auth_code": "x", "code_verifier": "y", "redirect_to": ""}), ""),
        ]  # fmt: skip
        for call, code in mistakes:
            with pytest.raises(AuthApiError) as caught:
                await call()
            assert not isinstance(caught.value, AuthUnknownError)
            assert caught.value.code == code or not code, caught.value.code
            assert isinstance(wire.answers[-1].json(), dict)
    raw: list[tuple[str, str, dict[str, Any]]] = [
        ("GET", "/auth/v1/nope", {}), ("DELETE", "/auth/v1/token", {}), ("GET", "/auth/v1/user", {}),
        ("POST", "/auth/v1/token?grant_type=password", {"data": b"{", "headers": JSON}),
        ("POST", "/auth/v1/token?grant_type=password", {"data": b"[]", "headers": JSON}),
        ("POST", "/auth/v1/token?grant_type=password", {"data": BytesIO(b"x" * 2_000_000), "headers": JSON}),
        ("POST", "/auth/v1/token?grant_type=password", {"data": b"a=1"}),
        ("POST", "/auth/v1/token?grant_type=pkce", {"data": b"{}", "headers": JSON}),
        ("POST", "/auth/v1/logout?scope=everything", {}),
    ]  # fmt: skip
    for method, path, options in raw:
        answer = await hub.call(method, path, **options)
        assert 400 <= answer.status < 500, (method, path, answer)
        assert answer.headers["Content-Type"].startswith("application/json"), (method, path)
        body = answer.json
        assert isinstance(body, dict) and isinstance(body["code"], str) and isinstance(body["msg"], str), body


async def test_19_17_python_is_told_that_there_is_no_such_socket(hub: Hub, anon: str, owner: Member) -> None:
    """Supabase's Realtime protocol is not spoken by this version: a subscription fails at once, in words, and
    harms nothing else. (Live changes: /ws, tests/integration/test_realtime_*.py.)"""
    with pytest.raises(WSServerHandshakeError) as refused:
        await hub.client.ws_connect(f"{hub.url}/realtime/v1/websocket?apikey={anon}&vsn=1.0.0")
    assert refused.value.status == 404
    answer = await hub.get(f"/realtime/v1/websocket?apikey={anon}&vsn=1.0.0")
    assert isinstance(answer.json["error"], str) and answer.json["error_code"] == "RESOURCE_NOT_FOUND"
    async with supabase_py(hub, owner.email) as (db, _):
        db.realtime.max_retries = 1
        channel = db.channel("room").on_postgres_changes("INSERT", lambda _: None, table="messages")
        with pytest.raises(Exception, match="404"):
            await channel.subscribe()
        assert (await db.table("messages").select("id").execute()).data == []
        await db.realtime.close()


async def test_19_18_broadcasts_of_javascript_end_in_words(js: Js) -> None:
    """Node 24 has a WebSocket of its own. Before it has joined, supabase-js broadcasts over HTTP: our 404
    becomes its own answer, at once, and no outage that it would wait for."""
    said = await js("18")
    assert sent(said["send"])["path"].endswith("/api/broadcast")
    assert said["send"]["data"] == "error"
    assert "/realtime/v1/api/broadcast" in sent(said["httpSend"])["path"]
    assert "404" in said["httpSend"]["thrown"]


async def test_19_19_presence_of_javascript_stays_empty_and_harms_nothing(js: Js) -> None:
    said = await js("19")
    assert said["subscribe"]["data"]["status"] in ("CHANNEL_ERROR", "TIMED_OUT")
    assert said["state"]["data"] == {} and "sync" not in said
    assert (said["still reads"]["data"], said["still reads"]["error"]) == ([], None)


async def test_19_20_functions_answer_exactly_json(js: Js, hub: Hub, token: str, owner: Member) -> None:
    said = await js("20")
    assert isinstance(said["listed"]["data"], dict) and said["posted"]["data"]["success"] is True
    refused = said["refused"]["data"]
    assert (refused["name"], refused["status"]) == ("FunctionsHttpError", 422)
    assert refused["body"]["code"] == "VALIDATION_ERROR" and isinstance(refused["body"]["error"], str)
    for name in FUNCTIONS:
        path = f"/functions/v1/{re.sub(r'{.*}', NOBODY, name)}"
        for options in ({"token": token}, {}):
            answer = await hub.post(path, json={}, **options)
            assert answer.headers["Content-Type"].split(";")[0] == "application/json", (name, answer)
            assert isinstance(answer.json, dict), name
    async with supabase_py(hub, owner.email) as (db, _):
        listed = await db.functions.invoke("list-organizations", {"responseType": "json"})
        assert listed == said["listed"]["data"]


async def test_19_21_headers_that_nobody_has_heard_of(js: Js, hub: Hub, token: str, anon: str) -> None:
    said = await js("21")
    assert (said["read"]["error"], said["call"]["error"]) == (None, None)
    assert said["read"]["data"] == []
    new = {f"X-Supabase-New-{n}": "v" for n in range(40)}
    for path in ("/rest/v1/contacts", "/functions/v1/list-organizations", "/auth/v1/user"):
        plain = await hub.get(path, token=token)
        answer = await hub.get(path, token=token, headers={"apikey": anon, **new})
        assert (answer.status, answer.json) == (200, plain.json)
        asked = ", ".join(new).lower()
        allowed = await hub.call(
            "OPTIONS", path, headers={
                "Origin": "https://shop.example", "Access-Control-Request-Method": "GET",
                "Access-Control-Request-Headers": asked,
            },
        )  # fmt: skip
        assert allowed.status in (200, 204)
        assert allowed.headers["Access-Control-Allow-Headers"].lower() == asked


async def test_19_22_plain_http_stays_one_point_one(hub: Hub, owner: Member, token: str) -> None:
    async with supabase_py(hub, owner.email) as (db, wire):  # its httpx offers HTTP/2
        await db.table("contacts").select("id").execute()
        assert {answer.http_version for answer in wire.answers} == {"HTTP/1.1"}
    upgrade = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMAAABk"}
    answer = await hub.get("/rest/v1/contacts?select=id", token=token, headers=upgrade)
    assert (answer.status, answer.json) == (200, [])
    address = urlsplit(hub.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    told = await asyncio.wait_for(reader.readline(), 20)
    writer.close()
    assert re.match(rb"HTTP/1\.[01] 4\d\d ", told), "a client that speaks nothing else is told so"


async def test_19_23_none_is_the_word_null(hub: Hub, owner: Member) -> None:
    async with supabase_py(hub, owner.email) as (db, wire):
        contacts = db.table("contacts")
        await contacts.insert([{"first_name": "null"}, {"first_name": None}]).execute()
        found = await contacts.select("first_name").eq("first_name", None).execute()
        assert "first_name=eq.null" in query(wire.last)
        assert found.data == [{"first_name": "null"}]
        with pytest.raises(APIError) as refused:
            await contacts.select("id").eq("company_id", None).execute()
        assert (refused.value.code, wire.answers[-1].status_code) == ("22P02", 400)
        meant = await contacts.select("first_name").is_("first_name", None).execute()
        assert meant.data == [{"first_name": None}]


async def test_19_24_ids_are_uuids_because_javascript_loses_digits(js: Js, hub: Hub, token: str) -> None:
    said = await js("24")
    assert said["number"]["data"]["custom_fields"]["n"] == 9007199254740992, "JavaScript lost the last digit"
    assert said["text"]["data"]["n"] == "9007199254740993", "the hub kept it"
    raw = await hub.get("/rest/v1/contacts?select=custom_fields", token=token)
    assert b"9007199254740993" in raw.body
    schema = (await hub.app[CATALOG].compiler()).schema
    for name in RULES:
        for key in schema.tables[name].key:
            assert schema.tables[name].columns[key].type not in ("bigint", "numeric"), (name, key)
            if key == "id":
                assert schema.tables[name].columns[key].type == "uuid", name


async def test_19_25_the_number_of_rows_stands_in_details(js: Js, hub: Hub, owner: Member) -> None:
    said = await js("25")
    for name, rows in (("none", 0), ("two", 2)):
        error = said[name]["error"]
        assert (said[name]["status"], error["code"]) == (406, "PGRST116")
        assert re.findall(r"\d+", error["details"]) == [str(rows)], "older clients read the digit there"
    async with supabase_py(hub, owner.email) as (db, _):
        with pytest.raises(APIError) as two:
            await db.table("contacts").select("id", count=CountMethod.exact).single().execute()
        assert two.value.code == "PGRST116" and re.findall(r"\d+", str(two.value.details)) == ["2"]
