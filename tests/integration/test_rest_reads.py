"""Reads of a table beyond filters: paging, counts, media types, conditional requests (rest.md 6, 9)."""

from __future__ import annotations

import gzip
from typing import Any

import asyncpg
import pytest
from yarl import URL

from hub.resources import CATALOG
from hub.rest import catalog
from tests.factories import Member, Org, make_contact, until
from tests.server import Hub

EXACT = {"Prefer": "count=exact"}


@pytest.fixture
async def token(hub: Hub, owner: Member) -> str:
    return await hub.token(owner.email)


@pytest.fixture
async def five(superuser: asyncpg.Connection, org: Org) -> list[str]:
    return [
        str(await make_contact(superuser, org, first_name=name, tags=["a b", 'c"d'], job_title=title))
        for name, title in zip("ABCDE", [None, "", "x, y", "back\\slash", "z"], strict=True)
    ]


@pytest.mark.parametrize(
    ("query", "headers", "status", "range_"),
    [
        ("", {}, 200, "0-4/*"), ("limit=2", {}, 200, "0-1/*"), ("limit=2&offset=2", {}, 200, "2-3/*"),
        ("first_name=eq.Z", {}, 200, "*/*"), ("limit=0", {}, 200, "*/*"), ("offset=9", {}, 200, "*/*"),
        ("", EXACT, 200, "0-4/5"), ("limit=2", EXACT, 206, "0-1/5"),
        ("limit=2&offset=4", EXACT, 206, "4-4/5"),
        ("offset=5", EXACT, 206, "*/5"), ("limit=0", EXACT, 206, "*/5"),
        ("first_name=eq.Z", EXACT, 200, "*/0"),
        ("offset=6", EXACT, 416, "*/5"), ("first_name=eq.A", EXACT, 200, "0-0/1"),
        ("", {"Prefer": "count=planned"}, 200, "0-4/5"),
        ("limit=1", {"Prefer": "count=estimated"}, 206, "0-0/5"),
        ("offset=-3&limit=1", {}, 200, "0-0/*"), ("limit=5", EXACT, 200, "0-4/5"),
        ("", {"Range": "1-2"}, 200, "1-2/*"), ("", {"Range": "3-"}, 200, "3-4/*"),
        ("", {"Range": "1-2", **EXACT}, 206, "1-2/5"),
        ("", {"Range-Unit": "items", "Range": "0-0"}, 200, "0-0/*"),
        ("offset=2&limit=2", {"Range": "0-2"}, 200, "2-2/*"), ("limit=4", {"Range": "2-9"}, 200, "2-3/*"),
        ("", {"Range": "bytes=0-1"}, 200, "0-4/*"), ("", {"Range": "x"}, 200, "0-4/*"),
    ],
)  # fmt: skip
async def test_6_3_status_and_content_range(
    hub: Hub, token: str, five: list[str], query: str, headers: dict[str, str], status: int, range_: str
) -> None:
    path = f"/rest/v1/contacts?select=first_name&order=first_name&{query}"
    answer = await hub.get(path, token=token, headers=headers)
    assert (answer.status, answer.headers["Content-Range"]) == (status, range_), answer
    head = await hub.call("HEAD", path, token=token, headers=headers)
    if "Range" not in headers:
        assert (head.status, head.headers["Content-Range"], head.body) == (status, range_, b"")
    if status == 416:
        assert answer.json["details"] == "An offset of 6 was requested, but there are only 5 rows."
        assert head.headers["Proxy-Status"] == "PostgREST; error=PGRST103"


@pytest.mark.parametrize(
    ("query", "headers"), [("limit=-1", {}), ("", {"Range": "9-0"}), ("companies.limit=-1", {})]
)
async def test_6_2_what_is_no_range(hub: Hub, token: str, query: str, headers: dict[str, str]) -> None:
    answer = await hub.get(f"/rest/v1/contacts?{query}", token=token, headers=headers)
    assert (answer.status, answer.json["code"]) == (416, "PGRST103")


async def test_9_1_csv(hub: Hub, token: str, five: list[str]) -> None:
    answer = await hub.get(
        '/rest/v1/contacts?select=first_name,"the, title":job_title,tags,n:custom_fields->n&order=first_name',
        token=token, headers={"Accept": "text/csv"},
    )  # fmt: skip
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert answer.body.decode().split("\n") == [
        'first_name,"the, title",tags,n',
        'A,,"{""a b"",""c\\""d""}",',
        'B,"","{""a b"",""c\\""d""}",',
        'C,"x, y","{""a b"",""c\\""d""}",',
        'D,"back\\slash","{""a b"",""c\\""d""}",',
        'E,z,"{""a b"",""c\\""d""}",',
    ]
    none = await hub.get(
        "/rest/v1/contacts?select=id&id=is.null", token=token, headers={"Accept": "text/csv"}
    )
    assert none.body == b"id"
    made = await hub.post(
        "/rest/v1/companies?select=name", token=token, json={"name": "Acme"},
        headers={"Accept": "text/csv", "Prefer": "return=representation"},
    )  # fmt: skip
    assert (made.status, made.body) == (201, b"name\nAcme")


@pytest.mark.parametrize(
    ("accept", "content_type", "body"),
    [
        ("application/json", "application/json; charset=utf-8", [{"first_name": "A", "job_title": None}]),
        ("text/html,application/xhtml+xml,*/*;q=0.8", "application/json; charset=utf-8",
         [{"first_name": "A", "job_title": None}]),
        ("application/vnd.pgrst.array+json", "application/json; charset=utf-8",
         [{"first_name": "A", "job_title": None}]),
        ("application/vnd.pgrst.array+json;nulls=stripped",
         "application/vnd.pgrst.array+json;nulls=stripped; charset=utf-8", [{"first_name": "A"}]),
        ("application/vnd.pgrst.object+json", "application/vnd.pgrst.object+json; charset=utf-8",
         {"first_name": "A", "job_title": None}),
        ("application/vnd.pgrst.object", "application/vnd.pgrst.object+json; charset=utf-8",
         {"first_name": "A", "job_title": None}),
        ("application/vnd.pgrst.object+json;nulls=stripped",
         "application/vnd.pgrst.object+json;nulls=stripped; charset=utf-8", {"first_name": "A"}),
        ("application/json;q=0.1, application/vnd.pgrst.object+json", "application/vnd.pgrst.object+json; "
         "charset=utf-8", {"first_name": "A", "job_title": None}),
    ],
)  # fmt: skip
async def test_9_1_media_types(
    hub: Hub, token: str, five: list[str], accept: str, content_type: str, body: Any
) -> None:
    answer = await hub.get(
        "/rest/v1/contacts?select=first_name,job_title&first_name=eq.A",
        token=token,
        headers={"Accept": accept},
    )
    assert (answer.headers["Content-Type"], answer.json) == (content_type, body)


@pytest.mark.parametrize(
    "accept", ["application/geo+json", "application/vnd.pgrst.plan+json", "text/plain", "image/png"]
)
async def test_PGRST107_what_cannot_be_made(hub: Hub, token: str, accept: str) -> None:
    answer = await hub.get("/rest/v1/contacts", token=token, headers={"Accept": accept})
    assert (answer.status, answer.json["code"]) == (406, "PGRST107")


async def test_BP_03_what_the_reader_has_is_not_sent_again(
    hub: Hub, token: str, five: list[str], superuser: asyncpg.Connection
) -> None:
    path = "/rest/v1/contacts?select=first_name&order=first_name"
    first = await hub.get(path, token=token)
    tag = first.headers["ETag"]
    again = await hub.get(path, token=token, headers={"If-None-Match": f'"other", {tag}'})
    assert (again.status, again.body, again.headers["ETag"]) == (304, b"", tag)
    assert again.headers["Content-Range"] == "0-4/*"
    await superuser.execute("update contacts set first_name = 'X' where first_name = 'A'")
    changed = await hub.get(path, token=token, headers={"If-None-Match": tag})
    assert (changed.status, changed.headers["ETag"] != tag) == (200, True)


async def test_9_6_large_answers_are_packed_for_those_who_take_it(
    hub: Hub, token: str, org: Org, superuser: asyncpg.Connection
) -> None:
    for n in range(100):
        await make_contact(superuser, org, first_name=f"{n}" * 5)
    url = URL(f"{hub.url}/rest/v1/contacts?order=id", encoded=True)
    bearer = {"Authorization": f"Bearer {token}"}
    plain = await hub.client.get(url, headers={**bearer, "Accept-Encoding": "identity"})
    body = await plain.read()
    assert "Content-Encoding" not in plain.headers and len(body) > 32 * 1024
    assert "Accept-Encoding" in plain.headers["Vary"]
    packed = await hub.client.get(url, headers={**bearer, "Accept-Encoding": "br, gzip"})
    assert packed.headers["Content-Encoding"] == "gzip"
    assert int(packed.headers["Content-Length"]) < len(body) / 4
    assert await packed.read() == body
    never = await hub.client.get(url, headers={**bearer, "Accept-Encoding": "gzip;q=0"})
    assert "Content-Encoding" not in never.headers
    assert gzip.compress(body) != body


async def test_9_5_where_the_content_is(hub: Hub, token: str) -> None:
    answer = await hub.get("/rest/v1/contacts?select=id&limit=1&first_name=eq.A", token=token)
    assert answer.headers["Content-Location"] == "/contacts?first_name=eq.A&limit=1&select=id"
    assert answer.headers["Vary"] == "Accept, Prefer, Range"


async def test_8_times_in_the_callers_zone(hub: Hub, token: str, five: list[str]) -> None:
    path = "/rest/v1/contacts?select=created_at&limit=1"
    answer = await hub.get(path, token=token, headers={"Prefer": "timezone=Africa/Cairo"})
    assert answer.json[0]["created_at"].endswith(("+02:00", "+03:00"))
    assert answer.headers["Preference-Applied"] == "timezone=Africa/Cairo"
    assert (await hub.get(path, token=token)).json[0]["created_at"].endswith("+00:00")
    wrong = await hub.get(path, token=token, headers={"Prefer": "timezone=Middle/Earth"})
    assert (wrong.status, wrong.json["code"]) == (400, "22023")


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("last_name=fts.doe", "A"), ("last_name=plfts(english).doe", "A"),
        ("last_name=not.wfts(simple).doe", "BCDE"),
        ("last_name=phfts.john doe", ""), ("phones->>0=like.*111", "B"), ("tags->>0=eq.vip", "C"),
        ("first_name=like(any).{A*,B*}", "AB"), ("first_name=like(all).{*,A}", "A"),
        ("first_name=not.in.(A,B)", "CDE"), ("first_name=gt(any).{C,D}", "DE"),
        ("opt_in_status=is.true", "D"),
        ("opt_in_status=is.not_null", "D"), ("opt_in_status=not.is.null", "D"),
        ("opt_in_status=is.unknown", "ABCE"),
        ("tags=ov.{vip,x}", "C"), ("custom_fields->n=gt.2", "E"), ("custom_fields=contains.{\"n\":5}", "E"),
        ("custom_fields->a->>b=eq.c", "E"), ("or=(first_name.eq.A,tags.contains.{vip})", "AC"),
        ('first_name=in.("A","B,C")', "A"), ("first_name=imatch.^[ab]$", "AB"),
        ("not.and=(first_name.gt.A)", "A"),
        ('or=(last_name.eq."Doe, John",first_name.eq.E)', "E"), ("first_name=eq.a", ""),
    ],
)  # fmt: skip
async def test_REST_07_to_13_operators(
    hub: Hub, token: str, org: Org, superuser: asyncpg.Connection, query: str, names: str
) -> None:
    rows: list[dict[str, Any]] = [
        {"last_name": "Doe"}, {"phones": ["+20111111111"]}, {"tags": ["vip", "y"]}, {"opt_in_status": True},
        {"custom_fields": {"n": 5, "a": {"b": "c"}}},
    ]  # fmt: skip
    for name, columns in zip("ABCDE", rows, strict=True):
        await make_contact(superuser, org, first_name=name, **columns)
    answer = await hub.get(f"/rest/v1/contacts?select=first_name&order=first_name&{query}", token=token)
    assert answer.status == 200, answer
    assert "".join(r["first_name"] for r in answer.json) == names


async def test_2_4_the_schema_is_read_again_when_it_changes(
    hub: Hub, token: str, five: list[str], superuser: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog, "COMPARED_EVERY_S", 0.0)
    path = "/rest/v1/contacts?select=nickname&limit=1"
    assert (await hub.get(path, token=token)).status == 400
    await superuser.execute("alter table contacts add column nickname text default 'Nick'")

    async def is_known() -> bool:
        return (await hub.get(path, token=token)).status == 200

    await until(is_known, what="the new column")
    assert (await hub.get(path, token=token)).json == [{"nickname": "Nick"}]
    await superuser.execute(
        "create function public.is_new() returns integer language sql stable as $$ select 7 $$"
    )

    async def is_called() -> bool:
        return (await hub.get("/rest/v1/rpc/is_new", token=token)).status == 200

    await until(is_called, what="the new function")


async def test_2_4_what_postgres_misses_is_looked_for_again(
    hub: Hub, token: str, five: list[str], superuser: asyncpg.Connection
) -> None:
    await superuser.execute("alter table contacts add column nickname text default 'Nick'")
    hub.app[CATALOG].forget()
    path = "/rest/v1/contacts?limit=1&select="
    assert (await hub.get(path + "nickname", token=token)).json == [{"nickname": "Nick"}]
    await superuser.execute("alter table contacts drop column nickname")
    missed = await hub.get(path + "*", token=token)
    assert (missed.status, missed.json["code"]) == (400, "42703"), "Postgres says it first"
    assert (await hub.get(path + "*", token=token)).status == 200
