"""/rest/v1/rpc: the functions of the schema public, as the caller (rest.md 10)."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from tests.factories import Member, Org, make_contact, make_conversation, make_member, make_message, make_org
from tests.server import Hub

COUNT = {"Prefer": "count=exact"}
SINGLE = {"Accept": "application/vnd.pgrst.object+json"}
#: Functions of many kinds, as somebody may add them.
KINDS = """
create function public.add_them(a integer, b integer default 1) returns integer language sql immutable
  as $$ select a + b $$;
create function public.join_them(parts text[], glue text default ',') returns text language sql immutable
  as $$ select array_to_string(parts, glue) $$;
create function public.some_numbers(n integer) returns setof integer language sql stable
  as $$ select generate_series(1, n) $$;
create function public.as_it_is() returns json language sql stable as $$ select '{"a": [1, 2]}'::json $$;
create function public.in_person(name text) returns table (greeting text, length integer) language sql stable
  as $$ select 'Hello ' || name, length(name) $$;
create function public.whole_body(jsonb) returns jsonb language sql immutable as $$ select $1 $$;
create function public.refuses() returns void language plpgsql stable
  as $$ begin raise exception 'no such luck' using hint = 'try again'; end $$;
create function public.wants_money() returns void language plpgsql stable
  as $$ begin raise sqlstate 'PT402' using message = 'Payment needed'; end $$;
create function public.says_it_all() returns void language plpgsql stable
  as $$ begin raise sqlstate 'PGRST' using message = '{"code": "123", "message": "Own words",'
    || ' "details": "d"}',
    detail = '{"status": 418, "headers": {"X-Pot": "tea"}}'; end $$;
create function public.answers_itself() returns text language plpgsql volatile
  as $$ begin perform set_config('response.status', '202', true);
    perform set_config('response.headers', '[{"X-Job": "7"}]', true); return 'queued'; end $$;
create function public.all_contacts() returns setof public.contacts language sql volatile
  as $$ delete from public.contacts c where c.organization_id = app.org() returning c.* $$;
create function public.full_name(c public.contacts) returns text language sql stable
  as $$ select c.first_name || ' ' || c.last_name $$;
create function public.companions(c public.contacts) returns setof public.contacts language sql stable
  as $$ select o.* from public.contacts o where o.organization_id = c.organization_id and o.id <> c.id $$;
create function public.not_for_members() returns integer language sql as $$ select 1 $$;
revoke execute on function public.not_for_members() from public;
"""


@pytest.fixture
async def token(hub: Hub, owner: Member) -> str:
    return await hub.token(owner.email)


@pytest.fixture
async def kinds(superuser: asyncpg.Connection) -> None:
    await superuser.execute(KINDS)


async def test_10_7_the_organization(hub: Hub, org: Org, token: str) -> None:
    for call in (hub.post, hub.get):
        answer = await call("/rest/v1/rpc/current_organization_id", token=token)
        assert (answer.status, answer.json) == (200, str(org.id))


async def test_10_7_search_contacts(
    hub: Hub, org: Org, token: str, superuser: asyncpg.Connection, password_hash: str
) -> None:
    await make_contact(superuser, org, "201001383533", first_name="Mia", last_name="Doe", tags=["vip"])
    await make_contact(superuser, org, first_name="Leo", last_name="100%")
    call = "/rest/v1/rpc/search_contacts"
    for term, found in (
        ("mia", ["Mia"]), ("doe mia", ["Mia"]), ("01001383533", ["Mia"]), ("+201001383533", ["Mia"]),
        ("100%", ["Leo"]), ("zzz", []), ("", ["Leo", "Mia"]),
    ):  # fmt: skip
        answer = await hub.post(f"{call}?select=first_name", token=token, json={"search_term": term})
        assert [r["first_name"] for r in answer.json] == found, term
    tagged = await hub.post(call, token=token, json={"tag": "vip"})
    assert [r["first_name"] for r in tagged.json] == ["Mia"]
    assert "search" not in tagged.json[0]
    counted = await hub.get(f"{call}?search_term=Mia&select=first_name", token=token, headers=COUNT)
    assert (counted.json, counted.headers["Content-Range"]) == ([{"first_name": "Mia"}], "0-0/1")
    filtered = await hub.get(f"{call}?first_name=eq.Leo&select=first_name,conversations(id)", token=token)
    assert filtered.json == [{"first_name": "Leo", "conversations": []}]
    ordered = await hub.post(f"{call}?order=first_name.desc&limit=1&select=first_name", token=token, json={})
    assert ordered.json == [{"first_name": "Mia"}]
    stranger = await make_member(superuser, await make_org(superuser), "OWNER", password_hash)
    assert (await hub.post(call, token=await hub.token(stranger.email), json={})).json == []


async def test_C_18_a_deal_is_closed_by_its_stage(
    hub: Hub, org: Org, token: str, superuser: asyncpg.Connection
) -> None:
    """closed_won and closed_lost by name, others by what their pipeline says of them; whoever has no deal is
    not found."""
    pipeline = await superuser.fetchval(
        "insert into pipelines (organization_id, name, stages) values ($1, 'Ours', $2) returning id",
        org.id, '[{"id": "signed", "outcome": "won"}, {"id": "gone", "outcome": "lost"}, {"id": "talks"}]',
    )  # fmt: skip
    for name, stages in (
        ("Open", ["lead"]), ("Won", ["closed_won"]), ("Lost", ["closed_lost"]), ("Both", ["talks", "signed"]),
        ("Gone", ["gone"]), ("None", []),
    ):  # fmt: skip
        contact = await make_contact(superuser, org, first_name=name)
        for stage in stages:
            await superuser.execute(
                "insert into deals (organization_id, contact_id, title, stage, pipeline_id)"
                " values ($1, $2, 'D', $3, $4)",
                org.id, contact, stage, pipeline if stage in {"talks", "signed", "gone"} else None,
            )  # fmt: skip
    call = "/rest/v1/rpc/search_contacts?select=first_name"
    for status, found in (
        ("open", ["Both", "Open"]), ("closed", ["Gone", "Both", "Lost", "Won"]), ("won", ["Both", "Won"]),
        ("LOST", ["Gone", "Lost"]), (None, ["None", "Gone", "Both", "Lost", "Won", "Open"]),
    ):  # fmt: skip
        answer = await hub.post(call, token=token, json={"deal_status": status})
        assert [r["first_name"] for r in answer.json] == found, status
    refused = await hub.post(call, token=token, json={"deal_status": "done"})
    assert (refused.status, refused.json["code"]) == (400, "22023")
    assert "open, closed, won or lost" in refused.json["message"]


async def test_10_7_inbox_counts(hub: Hub, org: Org, token: str, superuser: asyncpg.Connection) -> None:
    for closed in (False, False, True):
        await make_conversation(superuser, org, closed=closed)
    answer = await hub.post("/rest/v1/rpc/inbox_counts", token=token)
    assert answer.json == [{"status": "CLOSED", "total": 1}, {"status": "OPEN", "total": 2}]
    text = await hub.get("/rest/v1/rpc/inbox_counts", token=token, headers={"Accept": "text/csv"})
    assert text.body.decode().splitlines() == ["status,total", "CLOSED,1", "OPEN,2"]


async def test_10_7_add_contact_tag(hub: Hub, org: Org, token: str, superuser: asyncpg.Connection) -> None:
    contact = await make_contact(superuser, org, first_name="Leo", tags=["vip"])
    call = "/rest/v1/rpc/add_contact_tag?select=first_name,tags"
    for _ in range(2):
        answer = await hub.post(call, token=token, json={"contact_id": str(contact), "tag": "x"})
        assert (answer.status, answer.json) == (200, {"first_name": "Leo", "tags": ["vip", "x"]})
        assert answer.headers["Content-Range"] == "0-0/*"
    missing = await hub.post(call, token=token, json={"contact_id": str(uuid4()), "tag": "x"})
    assert missing.status == 404
    event = await superuser.fetchval("select type from app.events order by seq desc limit 1")
    assert event == "contact.updated", "and it is an event like any other"


async def test_10_7_mark_conversation_read(
    hub: Hub, org: Org, token: str, superuser: asyncpg.Connection
) -> None:
    conversation = await make_conversation(superuser, org)
    await make_message(superuser, org, conversation)
    call = "/rest/v1/rpc/mark_conversation_read"
    answer = await hub.post(call, token=token, json={"conversation_id": str(conversation)})
    assert (answer.status, answer.body) == (204, b"")
    assert await superuser.fetchval("select status from messages") == "READ"
    got = await hub.get(f"{call}?conversation_id={conversation}", token=token)
    assert (got.status, got.json["code"]) == (405, "25006"), "a GET changes nothing"


async def test_the_neighbours_contact_cannot_be_tagged(
    hub: Hub, org: Org, superuser: asyncpg.Connection, password_hash: str
) -> None:
    contact = await make_contact(superuser, org, tags=[])
    stranger = await make_member(superuser, await make_org(superuser), "OWNER", password_hash)
    other = await hub.token(stranger.email)
    for name, body in (
        ("add_contact_tag", {"contact_id": str(contact), "tag": "mine"}),
        ("mark_conversation_read", {"conversation_id": str(await make_conversation(superuser, org))}),
    ):
        assert (await hub.post(f"/rest/v1/rpc/{name}", token=other, json=body)).status == 404
    assert await superuser.fetchval("select tags from contacts where id = $1", contact) == []


@pytest.mark.parametrize(
    ("method", "path", "options", "status", "expected"),
    [
        ("POST", "add_them", {"json": {"a": 2, "b": 3}}, 200, 5),
        ("POST", "add_them", {"json": {"a": 2}}, 200, 3),
        ("GET", "add_them?a=2&b=3", {}, 200, 5),
        ("GET", "join_them?parts={a,b}&glue=-", {}, 200, "a-b"),
        ("POST", "join_them", {"json": {"parts": ["a", "b"]}}, 200, "a,b"),
        ("POST", "join_them", {"data": "parts=%7Bx,y%7D&glue=%2B",
                               "headers": {"Content-Type": "application/x-www-form-urlencoded"}}, 200, "x+y"),
        ("GET", "some_numbers?n=3", {}, 200, [1, 2, 3]),
        ("GET", "some_numbers?n=3&limit=2", {}, 200, [1, 2]),
        ("GET", "as_it_is", {}, 200, {"a": [1, 2]}),
        ("GET", "in_person?name=Mia", {}, 200, [{"greeting": "Hello Mia", "length": 3}]),
        ("GET", "in_person?name=Mia&select=length", {"headers": SINGLE}, 200, {"length": 3}),
        ("GET", "in_person?name=Mia&length=gt.5", {}, 200, []),
        ("POST", "whole_body", {"json": {"x": [1]}}, 200, {"x": [1]}),
        ("POST", "answers_itself", {}, 202, "queued"),
    ],
)  # fmt: skip
async def test_10_1_to_10_6_what_comes_back(
    hub: Hub, token: str, kinds: None, method: str, path: str, options: Any, status: int, expected: Any
) -> None:
    answer = await hub.call(method, f"/rest/v1/rpc/{path}", token=token, **options)
    assert (answer.status, answer.json) == (status, expected), answer
    if path == "answers_itself":
        assert answer.headers["X-Job"] == "7"


@pytest.mark.parametrize(
    ("method", "path", "options", "status", "code"),
    [
        ("POST", "nope", {}, 404, "PGRST202"), ("POST", "add_them", {}, 404, "PGRST202"),
        ("POST", "add_them", {"json": {"a": 1, "c": 2}}, 404, "PGRST202"),
        ("POST", "not_for_members", {}, 404, "PGRST202"),
        ("PATCH", "add_them", {"json": {}}, 405, "PGRST101"),
        ("POST", "add_them", {"json": {"a": "x"}}, 400, "22P02"),
        ("POST", "add_them", {"json": [1]}, 400, "PGRST102"),
        ("POST", "add_them", {"data": "{"}, 400, "PGRST102"),
        ("POST", "refuses", {}, 400, "P0001"), ("POST", "wants_money", {}, 402, "PT402"),
        ("POST", "says_it_all", {}, 418, "123"), ("GET", "all_contacts", {}, 405, "25006"),
        ("GET", "in_person?name=Mia&select=nope", {}, 400, "42703"),
        ("POST", "add_them?a=eq.1", {"json": {"a": 1}}, 400, "PGRST100"),
        ("POST", "add_them", {"json": {"a": 1}, "headers": {"Prefer": "handling=strict,max-affected=1"}}, 400,
         "PGRST128"),
        ("POST", "search_contacts", {"json": {}, "headers": SINGLE}, 406, "PGRST116"),
    ],
)  # fmt: skip
async def test_10_what_is_refused(
    hub: Hub, token: str, kinds: None, method: str, path: str, options: Any, status: int, code: str
) -> None:
    answer = await hub.call(method, f"/rest/v1/rpc/{path}", token=token, **options)
    assert (answer.status, answer.json["code"]) == (status, code), answer
    if path == "refuses":
        assert (answer.json["message"], answer.json["hint"]) == ("no such luck", "try again")
    if path == "says_it_all":
        assert (answer.json["message"], answer.headers["X-Pot"]) == ("Own words", "tea")


async def test_max_affected_takes_everything_back(
    hub: Hub, org: Org, token: str, kinds: None, superuser: asyncpg.Connection
) -> None:
    for _ in range(3):
        await make_contact(superuser, org)
    strict = {"Prefer": "handling=strict,max-affected=2"}
    refused = await hub.post("/rest/v1/rpc/all_contacts", token=token, headers=strict)
    assert (refused.status, refused.json["code"]) == (400, "PGRST124")
    assert await superuser.fetchval("select count(*) from contacts") == 3
    done = await hub.post("/rest/v1/rpc/all_contacts?select=id", token=token)
    assert (done.status, len(done.json)) == (200, 3), "and it ran once"


async def test_9_1_a_value_as_text(hub: Hub, token: str, kinds: None) -> None:
    for accept, body in (
        ("text/plain", b"5"),
        ("application/octet-stream", b"5"),
        ("text/csv", b"add_them\n5"),
    ):
        answer = await hub.get("/rest/v1/rpc/add_them?a=2&b=3", token=token, headers={"Accept": accept})
        assert (answer.status, answer.body) == (200, body), accept
        assert answer.headers["Content-Type"].startswith(accept)
    table = await hub.get("/rest/v1/contacts", token=token, headers={"Accept": "text/plain"})
    assert table.status == 406


async def test_20_8_a_function_of_the_row_is_a_column_when_it_is_named(
    hub: Hub, org: Org, token: str, kinds: None, superuser: asyncpg.Connection
) -> None:
    await make_contact(superuser, org, first_name="Mia", last_name="Doe")
    await make_contact(superuser, org, first_name="Leo", last_name="Roe")
    rows = await hub.get("/rest/v1/contacts?select=full_name&full_name=like.M*&order=full_name", token=token)
    assert rows.json == [{"full_name": "Mia Doe"}]
    assert "full_name" not in (await hub.get("/rest/v1/contacts", token=token)).json[0]
    embedded = await hub.get(
        "/rest/v1/contacts?select=first_name,companions(first_name)&first_name=eq.Mia", token=token
    )
    assert embedded.json == [{"first_name": "Mia", "companions": [{"first_name": "Leo"}]}]
    changed = await hub.patch(
        "/rest/v1/contacts?first_name=eq.Leo&select=full_name", token=token, json={"last_name": "Poe"},
        headers={"Prefer": "return=representation"},
    )  # fmt: skip
    assert changed.json == [{"full_name": "Leo Poe"}]
    assert (await hub.get("/rest/v1/rpc/full_name", token=token)).status == 404


async def test_options_and_head(hub: Hub, org: Org, token: str, superuser: asyncpg.Connection) -> None:
    await make_contact(superuser, org)
    stable = await hub.call("OPTIONS", "/rest/v1/rpc/search_contacts")
    assert stable.headers["Allow"] == "OPTIONS,GET,HEAD,POST"
    volatile = await hub.call("OPTIONS", "/rest/v1/rpc/add_contact_tag")
    assert volatile.headers["Allow"] == "OPTIONS,POST"
    head = await hub.call("HEAD", "/rest/v1/rpc/search_contacts", token=token, headers=COUNT)
    assert (head.status, head.body, head.headers["Content-Range"]) == (200, b"", "0-0/1")
    posted = await hub.post(
        "/rest/v1/rpc/search_contacts", token=token, json={"search_term": ""},
        headers={"Prefer": "count=exact,return=minimal"},
    )  # fmt: skip
    assert (posted.status, posted.body, posted.headers["Content-Range"]) == (200, b"", "0-0/1")


async def test_the_anon_key_calls_nothing(hub: Hub) -> None:
    from hub.resources import AUTH

    anon = (await hub.app[AUTH].keyring()).project_keys().anon
    answer = await hub.post("/rest/v1/rpc/search_contacts", token=anon, json={})
    assert (answer.status, answer.json["code"]) == (401, "42501")


async def test_O_07_a_repeated_call_has_one_effect(
    hub: Hub, token: str, kinds: None, org: Org, superuser: asyncpg.Connection
) -> None:
    await make_contact(superuser, org)
    key = {"Idempotency-Key": "k"}
    first = await hub.post("/rest/v1/rpc/all_contacts?select=id", token=token, headers=key)
    await make_contact(superuser, org)
    again = await hub.post("/rest/v1/rpc/all_contacts?select=id", token=token, headers=key)
    assert again.json == first.json
    assert await superuser.fetchval("select count(*) from contacts") == 1
