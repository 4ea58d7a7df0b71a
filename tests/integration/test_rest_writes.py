"""Writes: what comes back, every Prefer, upserts and PUT, bodies of every kind (rest.md 7, 8)."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from hub.resources import AUTH
from tests.factories import Member, Org, insert, make_contact
from tests.server import Hub

REPRESENT = {"Prefer": "return=representation"}
SINGLE = {"Accept": "application/vnd.pgrst.object+json"}
MERGE = "resolution=merge-duplicates"


@pytest.fixture
async def token(hub: Hub, owner: Member) -> str:
    return await hub.token(owner.email)


@pytest.fixture
async def service(hub: Hub) -> str:
    return (await hub.app[AUTH].keyring()).project_keys().service_role


@pytest.fixture
async def pair(superuser: asyncpg.Connection, org: Org) -> list[str]:
    return [str(await make_contact(superuser, org, first_name=name)) for name in "AB"]


@pytest.mark.parametrize(
    ("method", "query", "body", "prefer", "status", "range_", "answer"),
    [
        ("POST", "", {"first_name": "N"}, "", 201, "*/*", None),
        ("POST", "", {"first_name": "N"}, "return=minimal", 201, "*/*", None),
        ("POST", "", {"first_name": "N"}, "return=headers-only", 201, "*/*", None),
        ("POST", "", {"first_name": "N"}, "return=representation", 201, "*/*", ["N"]),
        ("POST", "", [{"first_name": "N"}, {"first_name": "O"}], "return=representation,count=exact", 201,
        "*/2",
         ["N", "O"]),
        ("POST", "", [], "return=representation", 201, "*/*", []),
        ("POST", "", {"id": "A", "first_name": "N"}, f"{MERGE}", 200, "*/*", None),
        ("POST", "", {"id": "A", "first_name": "N"}, f"{MERGE},return=headers-only", 200, "*/*", None),
        ("POST", "", {"id": "A", "first_name": "N"}, f"{MERGE},return=representation", 200, "*/*", ["N"]),
        ("POST", "", {"id": "new", "first_name": "N"}, f"{MERGE},return=representation", 201, "*/*", ["N"]),
        ("PUT", "id=eq.new", {"id": "new", "first_name": "N"}, "", 204, "*/*", None),
        ("PUT", "id=eq.A", {"id": "A", "first_name": "N"}, "", 204, "*/*", None),
        ("PUT", "id=eq.new", {"id": "new", "first_name": "N"}, "return=headers-only", 204, "*/*", None),
        ("PUT", "id=eq.new", {"id": "new", "first_name": "N"}, "return=representation", 201, "*/*", ["N"]),
        ("PUT", "id=eq.A", {"id": "A", "first_name": "N"}, "return=representation", 200, "*/*", ["N"]),
        ("PATCH", "id=eq.A", {"first_name": "N"}, "", 204, "0-0/*", None),
        ("PATCH", "id=eq.A", {"first_name": "N"}, "return=headers-only", 204, "0-0/*", None),
        ("PATCH", "id=not.is.null", {"first_name": "N"}, "return=representation,count=exact", 200, "0-1/2",
         ["N", "N"]),
        ("PATCH", "id=eq.new", {"first_name": "N"}, "return=representation", 200, "*/*", []),
        ("PATCH", "id=eq.A", {}, "", 204, "*/*", None),
        ("PATCH", "id=eq.A", {}, "return=representation", 200, "*/*", []),
        ("DELETE", "id=eq.A", None, "", 204, "*/*", None),
        ("DELETE", "id=eq.A", None, "return=headers-only", 204, "*/*", None),
        ("DELETE", "id=eq.A", None, "return=representation", 200, "*/*", ["A"]),
        ("DELETE", "id=not.is.null&order=first_name", None, "return=representation,count=exact", 200, "*/2",
        ["A", "B"]),
        ("DELETE", "id=eq.new", None, "return=representation", 200, "*/*", []),
    ],
)  # fmt: skip
async def test_7_10_what_a_write_answers(
    hub: Hub, token: str, pair: list[str], method: str, query: str, body: Any, prefer: str, status: int,
    range_: str, answer: list[str] | None,
) -> None:  # fmt: skip
    ids = {"A": pair[0], "new": str(uuid4())}
    for name, id_ in ids.items():
        query = query.replace(f"eq.{name}", f"eq.{id_}")
        if isinstance(body, dict) and body.get("id") == name:
            body = body | {"id": id_}
    options = {} if body is None else {"json": body}
    headers = {"Prefer": prefer} if prefer else {}
    got = await hub.call(
        method, f"/rest/v1/contacts?select=first_name&{query}", token=token, headers=headers, **options
    )
    assert (got.status, got.headers["Content-Range"]) == (status, range_), got
    if answer is None:
        assert got.body == b"" and "Content-Type" not in got.headers
        if status != 204:
            assert got.headers["Content-Length"] == "0"
    else:
        assert [row["first_name"] for row in got.json] == answer
    assert got.headers.get("Preference-Applied", "") == ", ".join(p for p in prefer.split(",") if p)
    if "headers-only" in prefer and method == "POST":
        place = got.headers["Location"]
        assert UUID(place.removeprefix("/contacts?id=eq."))


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("contacts?first_name=eq.A", {"id": "A"}, 405, "PGRST105"),
        ("contacts?id=gt.A", {"id": "A"}, 405, "PGRST105"),
        ("contacts?id=not.eq.A", {"id": "A"}, 405, "PGRST105"),
        ("contacts", {"id": "A"}, 405, "PGRST105"),
        ("contacts?id=eq.A&first_name=eq.A", {"id": "A"}, 405, "PGRST105"),
        ("contacts?id=eq.A&limit=1", {"id": "A"}, 400, "PGRST114"),
        ("contacts?id=eq.A&offset=1", {"id": "A"}, 400, "PGRST114"),
        ("contacts?id=eq.A&order=id", {"id": "A"}, 400, "PGRST114"),
        ("contacts?id=eq.A", {"id": "B"}, 400, "PGRST115"),
        ("contacts?id=eq.A", {"first_name": "x"}, 400, "PGRST115"),
        ("profiles?id=eq.A", {"id": "A"}, 403, "42501"),
    ],
)  # fmt: skip
async def test_7_9_what_PUT_refuses(
    hub: Hub, token: str, pair: list[str], path: str, body: Any, status: int, code: str
) -> None:
    def real(text: str) -> str:
        return pair["AB".index(text)] if text in ("A", "B") else text

    path = path.replace("id=eq.A", f"id=eq.{pair[0]}", 1)
    answer = await hub.call(
        "PUT", f"/rest/v1/{path}", token=token, json={k: real(v) if k == "id" else v for k, v in body.items()}
    )
    assert (answer.status, answer.json["code"]) == (status, code), answer


async def test_7_9_of_several_rows_the_one_of_the_address_is_put(
    hub: Hub, token: str, pair: list[str]
) -> None:
    rows = [{"id": pair[1], "first_name": "other"}, {"id": pair[0].upper(), "first_name": "this"}]
    put = await hub.call(
        "PUT", f"/rest/v1/contacts?id=eq.{pair[0]}", token=token, json=rows, headers=REPRESENT
    )
    assert [r["first_name"] for r in put.json] == ["this"]
    names = await hub.get("/rest/v1/contacts?select=first_name&order=first_name", token=token)
    assert [r["first_name"] for r in names.json] == ["B", "this"]


async def test_7_5_upserts_on_other_keys(hub: Hub, token: str, pair: list[str], org: Org) -> None:
    rows = [{"contact_id": pair[0], "scheme": "tg_user", "value": "1"}]
    path = "/rest/v1/contact_identities?on_conflict=scheme,value&select=contact_id"
    headers = {"Prefer": f"{MERGE},return=representation"}
    first = await hub.post(path, token=token, json=rows, headers=headers)
    moved = await hub.post(path, token=token, json=[{**rows[0], "contact_id": pair[1]}], headers=headers)
    assert (first.status, moved.status) == (201, 200)
    assert moved.json == [{"contact_id": pair[1]}]
    named = await hub.post(
        path.replace("scheme", "organization_id,scheme"), token=token, headers=headers,
        json=[{**rows[0], "organization_id": str(org.id)}],
    )  # fmt: skip
    assert (named.status, named.json) == (200, [{"contact_id": pair[0]}])
    skipped = await hub.post(
        path, token=token, json=[*rows, {**rows[0], "value": "2"}],
        headers={"Prefer": "resolution=ignore-duplicates,return=representation,count=exact"},
    )  # fmt: skip
    assert (skipped.status, len(skipped.json), skipped.headers["Content-Range"]) == (201, 1, "*/1")


async def test_7_5_the_same_key_twice_in_one_upsert(hub: Hub, token: str) -> None:
    row = {"id": str(uuid4()), "first_name": "x"}
    answer = await hub.post("/rest/v1/contacts", token=token, json=[row, row], headers={"Prefer": MERGE})
    assert (answer.status, answer.json["code"]) == (500, "21000")


async def test_8_missing_default(hub: Hub, token: str) -> None:
    path = '/rest/v1/deals?columns="title","tags","value"&select=title,tags,value'
    rows = [{"title": "D", "nonsense": 1}, {"title": "E", "tags": ["t"]}]
    filled = await hub.post(
        path, token=token, json=rows, headers={"Prefer": "missing=default,return=representation"}
    )
    assert filled.json == [
        {"title": "D", "tags": [], "value": None},
        {"title": "E", "tags": ["t"], "value": None},
    ]
    assert filled.headers["Preference-Applied"] == "missing=default, return=representation"
    empty = await hub.post(path, token=token, json=rows[:1], headers=REPRESENT)
    assert (empty.status, empty.json["code"]) == (400, "23502"), "null is null"
    changed = await hub.patch(
        '/rest/v1/deals?title=eq.E&columns="tags"&select=tags', token=token, json={},
        headers={"Prefer": "missing=default,return=representation"},
    )  # fmt: skip
    assert changed.json == [{"tags": []}]


async def test_8_tx_rollback_is_for_trying_out(
    hub: Hub, org: Org, token: str, service: str, superuser: asyncpg.Connection
) -> None:
    headers = {"Prefer": "tx=rollback,return=representation"}
    body = {"first_name": "x", "organization_id": str(org.id)}
    tried = await hub.post("/rest/v1/contacts", token=service, json=body, headers=headers)
    assert (tried.status, tried.json[0]["first_name"]) == (201, "x")
    assert tried.headers["Preference-Applied"] == "return=representation, tx=rollback"
    assert await superuser.fetchval("select count(*) from contacts") == 0
    assert await superuser.fetchval("select count(*) from app.events where type like 'contact%'") == 0
    kept = await hub.post("/rest/v1/contacts", token=token, json=body, headers=headers)
    assert kept.headers["Preference-Applied"] == "return=representation", "not for everybody"
    assert await superuser.fetchval("select count(*) from contacts") == 1


@pytest.mark.parametrize("method", ["PATCH", "DELETE"])
async def test_PGRST124_too_many_rows_and_nothing_is_done(
    hub: Hub, token: str, pair: list[str], superuser: asyncpg.Connection, method: str
) -> None:
    async def call(most: int, handling: str = "handling=strict") -> Any:
        return await hub.call(
            method, "/rest/v1/contacts?id=not.is.null", token=token, json={"first_name": "X"},
            headers={"Prefer": f"{handling},max-affected={most}"},
        )  # fmt: skip

    refused = await call(1)
    assert (refused.status, refused.json["code"]) == (400, "PGRST124")
    names = "select string_agg(first_name, '' order by first_name) from contacts"
    assert await superuser.fetchval(names) == "AB"
    assert (await call(2)).status == 204
    assert (await call(0, "handling=lenient")).status == 204


async def test_PGRST122_unknown_preferences_when_strict(hub: Hub, token: str) -> None:
    headers = {"Prefer": "handling=strict, speed=fast"}
    answer = await hub.get("/rest/v1/contacts", token=token, headers=headers)
    assert (answer.status, answer.json["code"]) == (400, "PGRST122")
    assert "speed=fast" in answer.json["details"]


@pytest.mark.parametrize("returns", ["minimal", "representation"])
async def test_7_13_one_object_or_nothing_at_all(
    hub: Hub, token: str, superuser: asyncpg.Connection, pair: list[str], returns: str
) -> None:
    headers = {**SINGLE, "Prefer": f"return={returns}"}
    for method, path, body in (
        ("POST", "contacts", [{"first_name": "x"}, {"first_name": "y"}]),
        ("PATCH", "contacts?id=not.is.null", {"first_name": "x"}),
        ("DELETE", "contacts?id=not.is.null", None),
        ("PATCH", f"contacts?id=eq.{uuid4()}", {"first_name": "x"}), ("POST", "contacts", []),
    ):  # fmt: skip
        options = {} if body is None else {"json": body}
        answer = await hub.call(method, f"/rest/v1/{path}", token=token, headers=headers, **options)
        assert (answer.status, answer.json["code"]) == (406, "PGRST116"), (method, path)
    assert await superuser.fetchval("select string_agg(first_name, '' order by id) from contacts") == "AB"
    one = await hub.post(
        "/rest/v1/contacts?select=first_name", token=token, headers=headers, json={"first_name": "x"}
    )
    assert one.status == 201
    if returns == "representation":
        assert one.json == {"first_name": "x"}
        assert one.headers["Content-Type"] == "application/vnd.pgrst.object+json; charset=utf-8"


async def test_7_1_csv_and_forms(hub: Hub, token: str) -> None:
    csv = 'first_name,last_name,tags,opt_in_status\nMia,"Doe, ""M""","{a,b}",true\nLeo,NULL,{},NULL\n'
    made = await hub.post(
        "/rest/v1/contacts?select=first_name,last_name,tags,opt_in_status", token=token, data=csv,
        headers={**REPRESENT, "Content-Type": "text/csv"},
    )  # fmt: skip
    assert made.json == [
        {"first_name": "Mia", "last_name": 'Doe, "M"', "tags": ["a", "b"], "opt_in_status": True},
        {"first_name": "Leo", "last_name": None, "tags": [], "opt_in_status": None},
    ]
    form = await hub.post(
        "/rest/v1/contacts?select=first_name,phones", token=token, data={"first_name": "F", "phones": "{}"},
        headers=REPRESENT,
    )  # fmt: skip
    assert form.json == [{"first_name": "F", "phones": []}]
    for data, type_ in (
        ("a,b\n1", "text/csv"), ('a\n"x', "text/csv"), ("{}", "application/xml"), ("", "application/json"),
        ("{", "application/json"), ("3 4", "application/json"), ("[1]", "application/json"),
    ):  # fmt: skip
        bad = await hub.post("/rest/v1/contacts", token=token, data=data, headers={"Content-Type": type_})
        assert (bad.status, bad.json["code"]) == (400, "PGRST102"), (data, type_)


@pytest.mark.parametrize("body", ["3", '"first_name"', "null", "true", "[]"])
async def test_7_1_a_value_alone_is_no_row(
    hub: Hub, token: str, pair: list[str], superuser: asyncpg.Connection, body: str
) -> None:
    """And changes nothing, whatever `columns` says."""
    options = {"data": body, "headers": {**REPRESENT, "Content-Type": "application/json"}}
    made = await hub.post("/rest/v1/contacts", token=token, **options)
    assert (made.status, made.json) == (201, [])
    for query in ("", "&columns=first_name"):
        changed = await hub.patch(f"/rest/v1/contacts?id=not.is.null{query}", token=token, **options)
        assert (changed.status, changed.json) == (200, [])
    names = "select string_agg(first_name, '' order by first_name) from contacts"
    assert await superuser.fetchval(names) == "AB"


async def test_7_2_what_is_written(hub: Hub, token: str) -> None:
    defaults = await hub.post(
        "/rest/v1/contacts?select=tags,first_name", token=token, json={}, headers=REPRESENT
    )
    assert defaults.json == [{"tags": [], "first_name": None}]
    two = await hub.post("/rest/v1/contacts?select=tags", token=token, json=[{}, {}], headers=REPRESENT)
    assert two.json == [{"tags": []}] * 2
    only = await hub.post(
        "/rest/v1/contacts?columns=first_name,last_name&select=first_name,last_name,job_title", token=token,
        json=[{"first_name": "A", "job_title": "ignored"}, {"last_name": "B"}], headers=REPRESENT,
    )  # fmt: skip
    assert only.json == [
        {"first_name": "A", "last_name": None, "job_title": None},
        {"first_name": None, "last_name": "B", "job_title": None},
    ]
    unknown = await hub.post("/rest/v1/contacts?columns=nope", token=token, json=[{"nope": 1}])
    assert (unknown.status, unknown.json["code"]) == (400, "PGRST204")


async def test_7_14_updated_at_is_ours(hub: Hub, token: str, pair: list[str]) -> None:
    place = f"/rest/v1/contacts?id=eq.{pair[0]}&select=updated_at,created_at,version"
    before = (await hub.get(place, token=token)).json[0]
    answer = await hub.patch(
        place, token=token, json={"updated_at": "2001-01-01", "created_at": "2001-01-01"}, headers=REPRESENT
    )
    assert answer.status == 200, answer
    assert answer.json[0]["created_at"] == before["created_at"]
    assert answer.json[0]["updated_at"] > before["updated_at"]


async def test_T_PIP_one_default_pipeline(hub: Hub, token: str) -> None:
    first = {"name": "One", "is_default": True, "stages": []}
    assert (await hub.post("/rest/v1/pipelines", token=token, json=first)).status == 201
    second = await hub.post("/rest/v1/pipelines", token=token, json={**first, "name": "Two"})
    assert (second.status, second.json["code"]) == (409, "23505")


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("+20 100 138 3533", "+201001383533"), ("0020 (0)100-1383533", "+201001383533"),
        ("٠٠٢٠١٠٠١٣٨٣٥٣٣", "+201001383533"), ("201001383533", "+201001383533"),
        ("01001383533", "01001383533"),
        ("+1234567890", "+1234567890"), ("call me", None), ("+", None), ("", None),
    ],
)  # fmt: skip
async def test_phones_are_kept_in_one_form_and_mirrored(
    hub: Hub, token: str, superuser: asyncpg.Connection, given: str, kept: str | None
) -> None:
    answer = await hub.post(
        "/rest/v1/contacts?select=id,phones", token=token, headers=REPRESENT, json={"phones": [given]}
    )
    if kept is None:
        assert (answer.status, answer.json["code"]) == (422, "23514")
        assert answer.json["error_code"] == "VALIDATION_ERROR"
        assert answer.json["details"] == "phones: Invalid phone number"
        return
    assert answer.json[0]["phones"] == [kept]
    mirrored = await superuser.fetch(
        "select value from contact_identities where scheme = 'phone_e164' and contact_id = $1",
        UUID(answer.json[0]["id"]),
    )
    assert [r["value"] for r in mirrored] == ([kept] if kept.startswith("+") else [])


@pytest.mark.parametrize(
    ("table", "body", "field"),
    [
        ("contacts", {"emails": ["john@"]}, "emails"),
        ("contacts", {"emails": ["a@b.c", "x y@z.com"]}, "emails"),
        ("companies", {"name": "A", "email": "nope"}, "email"),
        ("companies", {"name": "A", "phone": "x"}, "phone"),
        ("invitations", {"email": "nobody"}, "email"),
    ],
)  # fmt: skip
async def test_ERR_09_emails_that_are_none(hub: Hub, token: str, table: str, body: Any, field: str) -> None:
    for method, path in (("POST", table), ("PATCH", f"{table}?id=eq.{uuid4()}")):
        answer = await hub.call(method, f"/rest/v1/{path}", token=token, json=body)
        assert (answer.status, answer.json["error_code"]) == (422, "VALIDATION_ERROR"), answer
        what = "phone number" if field == "phone" else "email format"
        assert answer.json["details"] == f"{field}: Invalid {what}"


async def test_emails_and_csv_are_put_in_order_too(hub: Hub, token: str) -> None:
    made = await hub.post(
        "/rest/v1/companies?select=name,email,phone", token=token,
        data="name,email,phone\nA, a@b.example ,+20 1001383533",
        headers={**REPRESENT, "Content-Type": "text/csv"},
    )  # fmt: skip
    assert made.json == [{"name": "A", "email": "a@b.example", "phone": "+201001383533"}]
    null = await hub.post("/rest/v1/companies", token=token, json={"name": "B", "email": None, "phone": None})
    assert null.status == 201


async def test_7_4_words_of_a_state_are_named(hub: Hub, token: str) -> None:
    answer = await hub.post("/rest/v1/projects", token=token, json={"name": "P", "status": "SOON"})
    assert (answer.status, answer.json["code"], answer.json["error_code"]) == (
        422,
        "23514",
        "VALIDATION_ERROR",
    )
    assert answer.json["details"] == "status: This value of status is not allowed"


async def test_21_rows_of_one_request(hub: Hub, token: str, superuser: asyncpg.Connection) -> None:
    rows = [{"scheme": "email", "value": f"{n}@a.example"} for n in range(5001)]
    refused = await hub.post("/rest/v1/suppressions", token=token, json=rows)
    assert (refused.status, refused.json["code"]) == (400, "HUB01")
    assert "1000" in refused.json["hint"]
    assert (await hub.post("/rest/v1/suppressions", token=token, json=rows[:5000])).status == 201
    assert await superuser.fetchval("select count(*) from suppressions") == 5000


async def test_a_composite_key_without_the_organization(
    hub: Hub, token: str, org: Org, owner: Member, superuser: asyncpg.Connection
) -> None:
    team = await insert(superuser, "teams", {"organization_id": org.id, "name": "T"})
    body = {"team_id": str(team), "user_id": str(owner.id)}
    made = await hub.post(
        "/rest/v1/team_members", token=token, json=body, headers={"Prefer": "return=headers-only"}
    )
    assert made.headers["Location"] == f"/team_members?team_id=eq.{team}&user_id=eq.{owner.id}"
    again = await hub.post("/rest/v1/team_members", token=token, json=body, headers={"Prefer": MERGE})
    assert again.status == 200, again


async def test_C_22_secrets_in_bulk_upsert_and_put(
    hub: Hub, token: str, org: Org, superuser: asyncpg.Connection
) -> None:
    ids = [str(uuid4()) for _ in range(2)]
    rows = [{"id": i, "name": f"N{n}", "type": "TELEGRAM", "settings": {"bot_token": f"{n}:tok"}}
            for n, i in enumerate(ids)]  # fmt: skip
    path = "/rest/v1/channel_accounts?select=name,settings->>bot_token,organizations(id)"
    made = await hub.post(path, token=token, json=rows, headers=REPRESENT)
    assert made.json == [
        {"name": f"N{n}", "bot_token": "********", "organizations": {"id": str(org.id)}} for n in range(2)
    ]

    async def sealed() -> dict[str, str]:
        found = await superuser.fetch("select owner_id::text, ciphertext from app.secrets")
        return {r["owner_id"]: r["ciphertext"] for r in found}

    before = await sealed()
    assert before.keys() == set(ids)
    skipped = await hub.post(
        path, token=token, json=[rows[0] | {"settings": {"bot_token": "9:tok"}}],
        headers={"Prefer": "resolution=ignore-duplicates,return=representation"},
    )  # fmt: skip
    assert skipped.json == []
    assert await sealed() == before, "a skipped row keeps its own"
    merged = await hub.post(
        path, token=token, json=[rows[0] | {"settings": {"bot_token": "9:tok"}}], headers={"Prefer": MERGE}
    )
    assert merged.status == 200
    after = await sealed()
    assert after[ids[0]] != before[ids[0]] and after[ids[1]] == before[ids[1]]
    put = await hub.call(
        "PUT", f"/rest/v1/channel_accounts?id=eq.{ids[1]}", token=token,
        json=rows[1] | {"settings": {"bot_token": "********", "x": 1}},
    )  # fmt: skip
    assert put.status == 204
    assert (await sealed())[ids[1]] == before[ids[1]], "the mask keeps it"
