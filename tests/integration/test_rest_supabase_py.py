"""`supabase` for Python, which we did not write: sign-in, every method of its query builders, functions."""

from __future__ import annotations

import asyncio
import inspect
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from postgrest import AsyncPostgrestClient
from postgrest import AsyncRequestBuilder as Builder
from postgrest._async import request_builder
from postgrest.exceptions import APIError
from postgrest.types import CountMethod, ReturnMethod
from supabase import AsyncClient, ClientOptions, create_client
from supabase_auth.errors import AuthApiError
from supabase_functions.errors import FunctionsHttpError

from hub.resources import AUTH
from tests.clients import COLLECTION, DOCUMENTED, SHIFTS, supabase_py
from tests.factories import Member, Org
from tests.server import PASSWORD, Hub

EXACT = CountMethod.exact


@pytest.fixture
async def db(hub: Hub, owner: Member, superuser: asyncpg.Connection) -> AsyncIterator[AsyncClient]:
    """Base URL and key are all it knows; the owner has signed in with it."""
    await superuser.execute(SHIFTS)
    async with supabase_py(hub, owner.email) as (client, _):
        yield client


@pytest.fixture
async def people(db: AsyncClient, org: Org) -> dict[str, str]:
    made = await db.from_("contacts").insert(
        [
            {"organization_id": str(org.id), "first_name": "Mia", "last_name": "Doe, M", "tags": ["vip",
            "a b"],
             "custom_fields": {"n": 1}},
            {"organization_id": str(org.id), "first_name": "Leo", "last_name": "Roe", "tags": ["new"],
             "custom_fields": {"n": 2}},
            {"organization_id": str(org.id), "first_name": "Zoe", "last_name": None, "tags": [],
             "custom_fields": {}},
        ]
    ).execute()  # fmt: skip
    assert [row["first_name"] for row in made.data] == ["Mia", "Leo", "Zoe"], "representation by default"
    return {row["first_name"]: row["id"] for row in made.data}


def names(db: AsyncClient) -> Any:
    return db.from_("contacts").select("first_name").order("first_name")


FILTERS: list[tuple[str, Callable[[Any], Any], str]] = [
    ("eq", lambda q: q.eq("first_name", "Mia"), "Mia"),
    ("neq", lambda q: q.neq("first_name", "Mia"), "LeoZoe"),
    ("gt", lambda q: q.gt("first_name", "Leo"), "MiaZoe"),
    ("gte", lambda q: q.gte("first_name", "Mia"), "MiaZoe"),
    ("lt", lambda q: q.lt("first_name", "Mia"), "Leo"),
    ("lte", lambda q: q.lte("first_name", "Mia"), "LeoMia"),
    ("like", lambda q: q.like("first_name", "%ia"), "Mia"),
    ("ilike", lambda q: q.ilike("first_name", "*IA"), "Mia"),
    ("like_any_of", lambda q: q.like_any_of("first_name", "M*,L*"), "LeoMia"),
    ("like_all_of", lambda q: q.like_all_of("first_name", "M*,*a"), "Mia"),
    ("ilike_any_of", lambda q: q.ilike_any_of("first_name", "m*,l*"), "LeoMia"),
    ("ilike_all_of", lambda q: q.ilike_all_of("first_name", "m*,*A"), "Mia"),
    ("is_", lambda q: q.is_("last_name", "null"), "Zoe"),
    ("is_ none", lambda q: q.is_("last_name", None), "Zoe"),
    ("in_", lambda q: q.in_("last_name", ["Doe, M", "Roe"]), "LeoMia"),
    ("contains", lambda q: q.contains("tags", ["a b"]), "Mia"),
    ("contains json", lambda q: q.contains("custom_fields", {"n": 2}), "Leo"),
    ("cs", lambda q: q.cs("tags", ["new"]), "Leo"), ("cd", lambda q: q.cd("tags", ["new", "x"]), "LeoZoe"),
    ("contained_by", lambda q: q.contained_by("tags", ["new", "x"]), "LeoZoe"),
    ("overlaps", lambda q: q.overlaps("tags", ["new", "vip"]), "LeoMia"),
    ("ov", lambda q: q.ov("tags", ["vip"]), "Mia"),
    ("fts", lambda q: q.fts("last_name", "doe"), "Mia"),
    ("plfts", lambda q: q.plfts("last_name", "roe"), "Leo"),
    ("phfts", lambda q: q.phfts("last_name", "doe m"), "Mia"),
    ("wfts", lambda q: q.wfts("last_name", "doe"), "Mia"),
    ("match", lambda q: q.match({"first_name": "Mia", "last_name": "Doe, M"}), "Mia"),
    ("or_", lambda q: q.or_("first_name.eq.Mia,first_name.eq.Leo"), "LeoMia"),
    ("not_", lambda q: q.not_.in_("first_name", ["Mia"]), "LeoZoe"),
    ("not_ is", lambda q: q.not_.is_("last_name", "null"), "LeoMia"),
    ("filter", lambda q: q.filter("custom_fields->n", "gt", 1), "Leo"),
    ("text_search", lambda q: q.text_search("last_name", "doe", {"type": "web_search", "config": "english"}),
     "Mia"),
    ("retry", lambda q: q.eq("first_name", "Mia").retry(False), "Mia"),
    ("limit", lambda q: q.limit(2), "LeoMia"),
    ("offset", lambda q: q.offset(1), "MiaZoe"), ("range", lambda q: q.range(1, 1), "Mia"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "change", "found"), FILTERS, ids=[f[0] for f in FILTERS])
async def test_19_filters(
    db: AsyncClient, people: dict[str, str], name: str, change: Callable[[Any], Any], found: str
) -> None:
    answer = await change(names(db)).execute()
    assert "".join(row["first_name"] for row in answer.data) == found


RANGES: list[tuple[str, Callable[[Any], Any], str]] = [
    ("range_gt", lambda q: q.range_gt("hours", (5, 14)), "late night"),
    ("range_gte", lambda q: q.range_gte("hours", (13, 22)), "late night"),
    ("range_lt", lambda q: q.range_lt("hours", (13, 22)), "early"),
    ("range_lte", lambda q: q.range_lte("hours", (13, 22)), "early late"),
    ("range_adjacent", lambda q: q.range_adjacent("hours", (13, 22)), "early night"),
    ("sl", lambda q: q.sl("hours", (13, 22)), "early"),
    ("sr", lambda q: q.sr("hours", (13, 22)), "night"),
    ("nxl", lambda q: q.nxl("hours", (13, 22)), "late night"),
    ("nxr", lambda q: q.nxr("hours", (13, 22)), "early late"),
    ("adj", lambda q: q.adj("hours", (13, 22)), "early night"),
    ("overlaps", lambda q: q.overlaps("hours", "[13,15)"), "early late"),
    ("contains", lambda q: q.contains("hours", "[23,24)"), "night"),
    ("contained_by", lambda q: q.contained_by("hours", "[0,22)"), "early late"),
]


@pytest.mark.parametrize(("name", "narrow", "found"), RANGES, ids=[r[0] for r in RANGES])
async def test_19_ranges(db: AsyncClient, name: str, narrow: Callable[[Any], Any], found: str) -> None:
    """(5,14) holds what [6,14) does."""
    answer = await narrow(db.rpc("shifts", {}).select("name")).order("name").execute()
    assert " ".join(row["name"] for row in answer.data) == found


async def refused(call: Callable[[], Awaitable[Any]]) -> str:
    with pytest.raises(APIError) as caught:
        await call()
    return str(caught.value.code)


async def test_19_answers(db: AsyncClient, people: dict[str, str]) -> None:
    contacts = db.from_("contacts")
    mia = contacts.select("first_name").eq("id", people["Mia"])
    assert (await mia.single().execute()).data == {"first_name": "Mia"}
    missing = contacts.select("first_name").eq("first_name", "Nobody")
    assert (await missing.maybe_single().execute()) is None
    assert await refused(contacts.select("first_name").single().execute) == "PGRST116"
    assert (
        await contacts.select("first_name").eq("id", people["Mia"]).csv().execute()
    ).data == "first_name\nMia"
    assert (await contacts.select("*", count=EXACT, head=True).execute()).count == 3
    counted = await contacts.select("id", count=EXACT).limit(1).execute()
    assert (counted.count, len(counted.data)) == (3, 1)
    assert await refused(contacts.select("nope").execute) == "42703"
    assert await refused(db.from_("nope").select("*").execute) == "PGRST205"
    # quirk 23: None is the text "null"
    assert await refused(contacts.select("*").eq("company_id", None).execute) == "22P02"
    assert await refused(contacts.select("*").explain().execute) == "PGRST107"
    about = await contacts.select("first_name,avatar_url").eq("id", people["Mia"]).strip_nulls().execute()
    assert about.data == [{"first_name": "Mia"}]
    for way in (CountMethod.planned, CountMethod.estimated):
        assert (await contacts.select("id", count=way).execute()).count is not None
    ordered = await contacts.select("first_name").order("last_name", desc=True, nullsfirst=True).execute()
    assert [row["first_name"] for row in ordered.data] == ["Zoe", "Leo", "Mia"]


async def test_19_writes(db: AsyncClient, people: dict[str, str]) -> None:
    contacts = db.from_("contacts")
    quiet = await contacts.insert({"first_name": "Q"}, returning=ReturnMethod.minimal).execute()
    assert quiet.data == []
    many = await contacts.insert([{"first_name": "A"}, {"last_name": "B"}], count=EXACT).execute()
    assert ([row["first_name"] for row in many.data], many.count) == (["A", None], 2)
    default = await db.from_("deals").insert(
        [{"title": "T"}, {"title": "U", "tags": ["x"]}], default_to_null=False
    ).execute()  # fmt: skip
    assert [row["tags"] for row in default.data] == [[], ["x"]]
    merged = await contacts.upsert({"id": people["Mia"], "first_name": "Mia2"}, on_conflict="id").execute()
    assert merged.data[0]["first_name"] == "Mia2"
    ignored = await contacts.upsert(
        [{"id": people["Mia"], "first_name": "No"}], ignore_duplicates=True
    ).execute()
    assert ignored.data == []
    changed = await contacts.update({"job_title": "CEO"}, count=EXACT).eq("id", people["Leo"]).execute()
    assert (changed.data[0]["job_title"], changed.count) == ("CEO", 1)
    assert await refused(contacts.update({"job_title": "x"}).execute) == "21000"
    gone = await contacts.delete(count=EXACT).in_("id", [people["Zoe"]]).execute()
    assert ([row["first_name"] for row in gone.data], gone.count) == (["Zoe"], 1)
    few = contacts.delete().eq("id", people["Leo"]).max_affected(0)
    assert await refused(few.execute) == "PGRST124"


async def test_19_embeds_and_functions(db: AsyncClient, people: dict[str, str], org: Org) -> None:
    await (
        db.from_("deals")
        .insert([{"title": f"D{n}", "contact_id": people["Mia"], "value": n} for n in range(3)])
        .execute()
    )
    embedded = (
        await db.from_("contacts")
        .select("first_name,deals(title)")
        .eq("id", people["Mia"])
        .order("title", desc=True, foreign_table="deals")
        .limit(1, foreign_table="deals")
        .execute()
    )
    assert embedded.data == [{"first_name": "Mia", "deals": [{"title": "D2"}]}]
    either = (
        await db.from_("contacts")
        .select("first_name,deals!inner(title)")
        .or_("title.eq.D1,title.eq.D2", reference_table="deals")
        .execute()
    )
    assert [len(row["deals"]) for row in either.data] == [2]
    assert (await db.rpc("current_organization_id", {}).execute()).data == str(org.id)
    found = await db.rpc("search_contacts", {"search_term": "mia"}, count=EXACT, get=True).execute()
    assert (found.count, found.data[0]["first_name"]) == (1, "Mia")
    head = await db.rpc("search_contacts", {"search_term": ""}, count=EXACT, head=True).execute()
    assert head.count == 3
    tagged = (
        await db.rpc("add_contact_tag", {"contact_id": people["Zoe"], "tag": "x"}).select("tags").execute()
    )
    assert tagged.data == {"tags": ["x"]}
    assert await refused(db.rpc("nope", {}).execute) == "PGRST202"


async def test_19_one_client_for_everything(db: AsyncClient, org: Org, owner: Member, hub: Hub) -> None:
    """Sign-in, functions and tables by their other names; a refusal keeps the hub's words."""
    assert (await db.table("contacts").select("id").execute()).data == []
    assert (await db.schema("public").from_("contacts").select("id").execute()).data == []
    with pytest.raises(APIError) as other:
        await db.schema("auth").from_("users").select("*").execute()
    assert other.value.code == "PGRST106"
    made = await db.functions.invoke(
        "insert-message",
        {
            "body": {"phone": "201001383533", "content": "Hi", "direction": "incoming", "status": "received"},
            "responseType": "json",
        },
    )
    assert isinstance(made, dict) and made["success"] is True
    found = (await db.table("messages").select("content,direction").execute()).data
    assert found == [{"content": "Hi", "direction": "INBOUND"}]
    listed = await db.functions.invoke("list-organizations", {"responseType": "json"})
    assert str(org.id) in str(listed)
    with pytest.raises(FunctionsHttpError) as wrong:
        await db.functions.invoke("insert-message", {"body": {"content": "no phone"}})
    assert (wrong.value.status, wrong.value.message) == (422, "Validation error")
    with pytest.raises(FunctionsHttpError) as unknown:
        await db.functions.invoke("no-such-function")
    assert unknown.value.status == 404
    user = await db.auth.get_user()
    assert user is not None and user.user.id == str(owner.id)
    first = await db.auth.get_session()
    again = await db.auth.refresh_session()
    assert first is not None and again.session is not None
    assert again.session.refresh_token != first.refresh_token
    changed = await db.auth.update_user({"data": {"theme": "dark"}})
    assert changed.user.user_metadata["theme"] == "dark"
    await db.auth.sign_out()
    assert (await db.table("contacts").select("id").execute()).data == [], "anon sees nothing"
    with pytest.raises(AuthApiError) as denied:
        await db.auth.sign_in_with_password({"email": owner.email, "password": "wrong"})
    assert (denied.value.code, denied.value.status) == ("invalid_credentials", 400)


async def test_REST_01_the_documents_rows(db: AsyncClient, org: Org) -> None:
    """Every table of the document with its own bodies: made, found, changed and removed."""
    known = {"organization_id": str(org.id)}

    def body(item: dict[str, Any]) -> Any:
        raw = item["request"]["body"]["raw"]
        return json.loads(re.sub(r"\{\{(\w+)\}\}", lambda m: known.get(m[1], m[0]), raw))

    made: list[tuple[str, str]] = []
    for folder in json.loads(COLLECTION.read_text(encoding="utf-8"))["item"]:
        items = [(item["request"]["url"]["path"][-1], item) for item in folder["item"]]
        for table, item in items:
            if not item["name"].startswith("Create ") or item["name"].endswith("(to delete)"):
                continue
            (row,) = (await db.table(table).insert(body(item)).execute()).data
            keep = re.search(
                r'collectionVariables\.set\("(\w+)"', json.dumps(item["event"]).replace("\\", "")
            )
            assert keep is not None
            known[keep[1]] = row["id"]
            one = db.table(table).select("*", count=EXACT).eq("id", row["id"])
            found = await one.eq("organization_id", str(org.id)).order("created_at", desc=True).execute()
            assert (found.data, found.count) == ([row], 1)
            for other, change in items:
                if other == table and change["request"]["method"] == "PATCH":
                    changed = await db.table(table).update(body(change)).eq("id", row["id"]).execute()
                    assert [new["id"] for new in changed.data] == [row["id"]] and changed.data != [row]
            made.append((table, row["id"]))
    assert {table for table, _ in made} == DOCUMENTED
    for table, key in reversed(made):
        gone = (await db.table(table).delete(count=EXACT).eq("id", key).execute()).count
        left = (await db.table(table).select("*").eq("id", key).execute()).data
        if table == "messages":  # stays as a tombstone (MSG-01)
            assert (gone, left[0]["content"], left[0]["deleted_at"] is not None) == (0, None, True)
        else:
            assert (gone, left) == (1, []), table


async def test_19_the_client_that_waits_works_too(hub: Hub, owner: Member) -> None:
    """`create_client`, as most scripts use it; not from the loop's thread, which serves it."""
    anon = (await hub.app[AUTH].keyring()).project_keys().anon

    def script() -> list[Any]:
        with httpx.Client(http2=True) as http:
            options = ClientOptions(auto_refresh_token=False, persist_session=False, httpx_client=http)
            client = create_client(hub.url, anon, options)
            client.auth.sign_in_with_password({"email": owner.email, "password": PASSWORD})
            client.table("companies").insert({"name": "Blue Ltd"}).execute()
            return list(client.table("companies").select("name").execute().data)

    assert await asyncio.to_thread(script) == [{"name": "Blue Ltd"}]


async def test_19_postgrest_alone_takes_an_organization_key(hub: Hub, owner: Member) -> None:
    made = await hub.post(
        "/functions/v1/generate-api-key", token=await hub.token(owner.email),
        json={"name": "script", "permissions": {"can_access_crm": True}},
    )  # fmt: skip
    headers = {"Authorization": f"Bearer {made.json['api_key']}"}
    async with AsyncPostgrestClient(f"{hub.url}/rest/v1", headers=headers) as client:
        assert (await client.table("contacts").select("id", count=EXACT).execute()).count == 0


def test_19_no_method_of_the_builders_is_left_out() -> None:
    """The installed version says which there are, so a new one is noticed."""
    kinds = [Builder, *(
        kind for name, kind in vars(request_builder).items() if name.endswith("RequestBuilder")
    )]  # fmt: skip
    methods = {name for kind in kinds for name in dir(kind) if not name.startswith("_")}
    assert {"upsert", "like_any_of", "range_adjacent", "maybe_single"} <= methods and len(methods) > 50
    assert inspect.isclass(kinds[-1])
    called = set(re.findall(r"\.(\w+)\b", Path(__file__).read_text(encoding="utf-8")))
    assert methods - called == set()
