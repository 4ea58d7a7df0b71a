"""The worked transcripts of rest.md 24, one after another over the same rows."""

from __future__ import annotations

import re
from typing import Any
from uuid import uuid4

import asyncpg
import jwt
import pytest

from tests.factories import Member, Org, insert, make_contact, make_org
from tests.server import Hub

OBJECT = "application/vnd.pgrst.object+json"
REPRESENT = "return=representation"
MIA = {"first_name": "Mia", "company": {"name": "Blue Ltd"},
       "deals": [{"title": "D2", "value": 20}, {"title": "D1", "value": 10.5}]}  # fmt: skip
OWNED = [{"title": "D1", "profiles": {"first_name": "Ola"}}, {"title": "D2", "profiles": None}]
#: method, path, body, Prefer, Accept → status, Content-Range, what the body is (a code for refusals).
TRANSCRIPT: list[tuple[str, str, Any, str, str, int, str | None, Any]] = [
    ("GET", "contacts?select=first_name,company:companies(name),deals(title,value)&id=in.({c1},{c2})"
     "&order=first_name&deals.order=value.desc", None, "", "", 200, "0-1/*",
     [{"first_name": "Leo", "company": None, "deals": []}, MIA]),
    ("GET", "contacts?select=first_name,...companies(company:name),total:deals(value.sum())&order=first_name",
     None, "", "", 200, "0-1/*",
     [{"first_name": "Leo", "company": None, "total": [{"sum": None}]},
      {"first_name": "Mia", "company": "Blue Ltd", "total": [{"sum": 30.5}]}]),
    ("GET", "deals?select=title,profiles!deals_owner_id_fkey(first_name)&order=title", None, "", "",
     200, "0-1/*", OWNED),
    ("GET", "deals?select=title,profiles!deals_owner_id_fkey!inner(first_name)&order=title", None,
     "count=exact", "", 200, "0-0/1", OWNED[:1]),
    ("GET", "contacts?select=first_name&order=first_name&limit=1", None, "count=exact", "", 206, "0-0/2",
     [{"first_name": "Leo"}]),
    ("GET", "contacts?offset=5", None, "count=exact", "", 416, "*/2",
     ("PGRST103", "An offset of 5 was requested, but there are only 2 rows.")),
    ("GET", "contacts", None, "", OBJECT, 406, None, ("PGRST116", "The result contains 2 rows")),
    ("GET", "contacts?select=nope", None, "", "", 400, None, ("42703", None)),
    ("GET", "nope", None, "", "", 404, None, ("PGRST205", None)),
    ("GET", "contacts?id=eq.x", None, "", "", 400, None, ("22P02", None)),
    ("GET", "contacts?select=deals(", None, "", "", 400, None, ("PGRST100", None)),
    ("POST", "contacts", {"organization_id": "{other}", "first_name": "x"}, "", "", 403, None,
     ("42501", None)),
    ("POST", "notes", {"contact_id": "{nobody}", "content": "x"}, "", "", 409, None, ("23503", None)),
    ("POST", "companies", {"id": "{company}", "name": "x"}, "", "", 409, None, ("23505", None)),
    ("PATCH", "contacts?id=eq.{c2}&select=first_name,tags", {"tags": ["vip"]}, REPRESENT, "", 200, "0-0/*",
     [{"first_name": "Leo", "tags": ["vip"]}]),
    ("POST", "rpc/add_contact_tag?select=first_name,tags", {"contact_id": "{c2}", "tag": "x"}, "", "", 200,
     "0-0/*", {"first_name": "Leo", "tags": ["vip", "x"]}),
    ("GET", "rpc/search_contacts?search_term=Mia&select=first_name", None, "count=exact", "", 200, "0-0/1",
     [{"first_name": "Mia"}]),
    ("DELETE", "contacts?id=in.({c1},{c2})&select=first_name&order=first_name", None,
     f"{REPRESENT},count=exact", "", 200, "*/2", [{"first_name": "Leo"}, {"first_name": "Mia"}]),
    ("DELETE", "companies?id=in.({company})", None, "", "", 204, "*/*", None),
    ("POST", "deals", {"title": "D3"}, "return=minimal", "", 201, "*/*", None),
]  # fmt: skip


@pytest.fixture
async def token(hub: Hub, owner: Member) -> str:
    return await hub.token(owner.email)


@pytest.fixture
async def names(superuser: asyncpg.Connection, org: Org, owner: Member) -> dict[str, str]:
    """Mia of Blue Ltd with two deals, one of them Ola's; Leo with nothing."""
    await superuser.execute("update memberships set first_name = 'Ola' where user_id = $1", owner.id)
    company = await insert(superuser, "companies", {"organization_id": org.id, "name": "Blue Ltd"})
    mia = await make_contact(superuser, org, first_name="Mia", company_id=company, tags=["new", "eu"])
    leo = await make_contact(superuser, org, first_name="Leo")
    for title, value, whose in (("D1", 10.5, owner.id), ("D2", 20, None)):
        values = {"title": title, "value": value, "contact_id": mia, "owner_id": whose}
        await insert(superuser, "deals", {"organization_id": org.id, **values})
    other = (await make_org(superuser)).id
    found = {"c1": mia, "c2": leo, "company": company, "other": other, "nobody": uuid4()}
    return {name: str(value) for name, value in found.items()}


def filled(value: Any, names: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {k: filled(v, names) for k, v in value.items()}
    if isinstance(value, str):
        return re.sub(r"\{(\w+)\}", lambda m: names[m[1]], value)
    return value


async def test_24_the_worked_transcripts(hub: Hub, token: str, names: dict[str, str]) -> None:
    for method, path, body, prefer, accept, status, range_, expected in TRANSCRIPT:
        headers = {k: v for k, v in (("Prefer", prefer), ("Accept", accept)) if v}
        options = {} if body is None else {"json": filled(body, names)}
        path = filled(path, names)
        answer = await hub.call(method, f"/rest/v1/{path}", token=token, headers=headers, **options)
        assert (answer.status, answer.headers.get("Content-Range")) == (status, range_), (path, answer)
        if isinstance(expected, tuple):
            code, details = expected
            assert answer.json["code"] == code, (path, answer)
            assert details is None or answer.json["details"] == details
        elif expected is None:
            assert answer.body == b"", path
        else:
            assert answer.json == expected, path
            applied = ", ".join(prefer.split(",")) if prefer else None
            assert answer.headers.get("Preference-Applied") == applied, path


async def test_24_two_rows_with_quoted_columns(hub: Hub, org: Org, token: str) -> None:
    rows = [{"organization_id": str(org.id), "first_name": n, "tags": [n.lower()]} for n in ("Zoe", "Amy")]
    made = await hub.post(
        '/rest/v1/contacts?columns="organization_id","first_name","tags"&select=id,first_name', token=token,
        json=rows, headers={"Prefer": REPRESENT},
    )  # fmt: skip
    assert (made.status, made.headers["Content-Range"]) == (201, "*/*")
    assert made.headers["Preference-Applied"] == REPRESENT
    assert [row["first_name"] for row in made.json] == ["Zoe", "Amy"], "in body order"
    assert all(row.keys() == {"id", "first_name"} for row in made.json)


async def test_24_csv(hub: Hub, token: str, names: dict[str, str]) -> None:
    answer = await hub.get(
        f"/rest/v1/contacts?select=first_name,tags,created_at&id=eq.{names['c1']}", token=token,
        headers={"Accept": "text/csv"},
    )  # fmt: skip
    assert answer.status == 200 and answer.headers["Content-Type"].startswith("text/csv")
    head, row = answer.body.decode().split("\n")
    assert head == "first_name,tags,created_at"
    assert re.fullmatch(r'Mia,"\{new,eu\}","\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d{1,6})?\+00"', row), row


async def test_24_claims_of_a_users_token(hub: Hub, org: Org, owner: Member, token: str) -> None:
    claims = jwt.decode(token, options={"verify_signature": False})
    assert claims["iss"] == f"{hub.settings.public_base_url}/auth/v1"
    assert (claims["sub"], claims["aud"], claims["role"]) == (str(owner.id), "authenticated", "authenticated")
    assert claims["exp"] - claims["iat"] == 3600
    assert claims["app_metadata"] == {
        "provider": "email", "providers": ["email"], "organization_id": str(org.id), "org_role": "OWNER",
    }  # fmt: skip
    [way] = claims["amr"]
    assert way["method"] == "password" and 0 <= claims["iat"] - way["timestamp"] <= 60
    rest = {"email": owner.email, "phone": "", "user_metadata": {}, "aal": "aal1", "is_anonymous": False}
    assert rest.items() <= claims.items() and claims["session_id"]


async def test_12_2_shapes_of_values(hub: Hub, org: Org, token: str, superuser: asyncpg.Connection) -> None:
    await insert(superuser, "deals", {
        "organization_id": org.id, "title": "D", "value": 5000, "tags": ["a", 'b"c'], "probability": 10,
        "custom_fields": '{"z": 1, "a": {"b": null}}',
    })  # fmt: skip
    await superuser.execute(
        "update deals set expected_close_date = '2025-02-15',"
        " closed_at = '2025-02-15 10:00:00.120+02', value = 12345678901234567890.5"
    )
    columns = "title,value,probability,tags,custom_fields,expected_close_date,closed_at,owner_id"
    answer = await hub.get(f"/rest/v1/deals?select={columns}", token=token)
    assert answer.json == [{
        "title": "D", "value": 12345678901234567890.5, "probability": 10, "tags": ["a", 'b"c'],
        "custom_fields": {"a": {"b": None}, "z": 1}, "expected_close_date": "2025-02-15",
        "closed_at": "2025-02-15T08:00:00.12+00:00", "owner_id": None,
    }]  # fmt: skip
    assert b'"value":12345678901234567890.5' in answer.body, "a number, with all of its digits"
