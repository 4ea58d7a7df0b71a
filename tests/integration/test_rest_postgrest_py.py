"""postgrest for Python, which we did not write, through every method of its query builders (rest.md 19)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from postgrest import AsyncPostgrestClient
from postgrest.exceptions import APIError
from postgrest.types import CountMethod, ReturnMethod

from hub.resources import AUTH
from tests.factories import Member, Org
from tests.server import Hub

EXACT = CountMethod.exact


@pytest.fixture
async def db(hub: Hub, owner: Member) -> AsyncIterator[AsyncPostgrestClient]:
    anon = (await hub.app[AUTH].keyring()).project_keys().anon
    token = await hub.token(owner.email)
    async with AsyncPostgrestClient(
        f"{hub.url}/rest/v1", headers={"apikey": anon, "Authorization": f"Bearer {token}"}
    ) as client:
        yield client


@pytest.fixture
async def people(db: AsyncPostgrestClient, org: Org) -> dict[str, str]:
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


def names(db: AsyncPostgrestClient) -> Any:
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
    ("limit", lambda q: q.limit(2), "LeoMia"),
    ("offset", lambda q: q.offset(1), "MiaZoe"), ("range", lambda q: q.range(1, 1), "Mia"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "change", "found"), FILTERS, ids=[f[0] for f in FILTERS])
async def test_19_filters(
    db: AsyncPostgrestClient, people: dict[str, str], name: str, change: Callable[[Any], Any], found: str
) -> None:
    answer = await change(names(db)).execute()
    assert "".join(row["first_name"] for row in answer.data) == found


async def refused(call: Callable[[], Awaitable[Any]]) -> str:
    with pytest.raises(APIError) as caught:
        await call()
    return str(caught.value.code)


async def test_19_answers(db: AsyncPostgrestClient, people: dict[str, str]) -> None:
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
    ordered = await contacts.select("first_name").order("last_name", desc=True, nullsfirst=True).execute()
    assert [row["first_name"] for row in ordered.data] == ["Zoe", "Leo", "Mia"]


async def test_19_writes(db: AsyncPostgrestClient, people: dict[str, str]) -> None:
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


async def test_19_embeds_and_functions(db: AsyncPostgrestClient, people: dict[str, str], org: Org) -> None:
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
