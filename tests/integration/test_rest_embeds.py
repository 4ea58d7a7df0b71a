"""Embedding, spreads and aggregates on the real tables; the API document's own addresses."""

from __future__ import annotations

from typing import Any

import asyncpg
import pytest

from tests.factories import (
    Member,
    Org,
    insert,
    make_contact,
    make_conversation,
    make_member,
    make_message,
    make_org,
)
from tests.server import Hub

COUNT = {"Prefer": "count=exact"}


class World:
    """Mia of Blue Ltd with two deals and a conversation of three messages; Leo with nothing."""

    def __init__(self) -> None:
        self.ids: dict[str, str] = {}


@pytest.fixture
async def token(hub: Hub, owner: Member) -> str:
    return await hub.token(owner.email)


@pytest.fixture
async def world(superuser: asyncpg.Connection, org: Org, owner: Member) -> World:
    made = World()

    async def row(label: str, table: str, **values: Any) -> str:
        made.ids[label] = str(await insert(superuser, table, {"organization_id": org.id, **values}))
        return made.ids[label]

    await superuser.execute("update memberships set first_name = 'Ola' where user_id = $1", owner.id)
    company = await row("company", "companies", name="Blue Ltd")
    made.ids["mia"] = str(
        await make_contact(superuser, org, first_name="Mia", company_id=company, assignee_id=owner.id)
    )
    made.ids["leo"] = str(await make_contact(superuser, org, first_name="Leo"))
    await row("d1", "deals", title="D1", contact_id=made.ids["mia"], value=10.5, owner_id=owner.id)
    await row("d2", "deals", title="D2", contact_id=made.ids["mia"], value=20)
    conversation = await make_conversation(superuser, org, made.ids["mia"], assignee_id=owner.id)
    made.ids["conversation"] = str(conversation)
    first = await make_message(superuser, org, conversation, "one")
    await make_message(superuser, org, conversation, "two", reply_to_id=first)
    await make_message(superuser, org, conversation, "three", reply_to_id=first)
    team = await row("team", "teams", name="Sales")
    await superuser.execute(
        "insert into team_members (organization_id, team_id, user_id) values ($1, $2, $3)",
        org.id, team, owner.id,
    )  # fmt: skip
    return made


MIA = {
    "first_name": "Mia",
    "company": {"name": "Blue Ltd"},
    "deals": [{"title": "D2", "value": 20}, {"title": "D1", "value": 10.5}],
}
LEO: dict[str, Any] = {"first_name": "Leo", "company": None, "deals": []}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (
            "contacts?select=first_name,company:companies(name),deals(title,value)"
            "&order=first_name&deals.order=value.desc",
            [LEO, MIA],
        ),
        (
            "contacts?select=first_name,...companies(company:name),total:deals(value.sum())&order=first_name",
            [
                {"first_name": "Leo", "company": None, "total": [{"sum": None}]},
                {"first_name": "Mia", "company": "Blue Ltd", "total": [{"sum": 30.5}]},
            ],
        ),
        (
            "deals?select=title,profiles!deals_owner_id_fkey(first_name)&order=title",
            [{"title": "D1", "profiles": {"first_name": "Ola"}}, {"title": "D2", "profiles": None}],
        ),
        (
            "deals?select=title,profiles!deals_owner_id_fkey!inner(first_name)&order=title",
            [{"title": "D1", "profiles": {"first_name": "Ola"}}],
        ),
        ("deals?select=title,profiles!owner_id(first_name)&title=eq.D1",
         [{"title": "D1", "profiles": {"first_name": "Ola"}}]),
        ("deals?select=title,profiles(first_name)&title=eq.D1",
         [{"title": "D1", "profiles": {"first_name": "Ola"}}]),
        ("deals?select=title,owner_id(first_name)&title=eq.D1",
         [{"title": "D1", "owner_id": {"first_name": "Ola"}}]),
        ("deals?select=title,who:deals_owner_id_fkey(first_name)&title=eq.D1",
         [{"title": "D1", "who": {"first_name": "Ola"}}]),
        ("contacts?select=first_name,deals!inner(title)&deals.title=eq.D2",
         [{"first_name": "Mia", "deals": [{"title": "D2"}]}]),
        ("contacts?select=first_name,deals(title)&deals.title=eq.D2&order=first_name",
         [{"first_name": "Leo", "deals": []}, {"first_name": "Mia", "deals": [{"title": "D2"}]}]),
        ("contacts?select=first_name,deals!inner()&deals.title=eq.D2", [{"first_name": "Mia"}]),
        ("contacts?select=first_name,companies()&companies=is.null", [{"first_name": "Leo"}]),
        ("contacts?select=first_name,companies()&companies=not.is.null", [{"first_name": "Mia"}]),
        ("contacts?select=first_name,companies(),deals()&or=(companies.not.is.null,deals.is.null)"
         "&order=first_name", [{"first_name": "Leo"}, {"first_name": "Mia"}]),
        ("contacts?select=first_name,x:deals(title)&x.title=eq.D1&first_name=eq.Mia",
         [{"first_name": "Mia", "x": [{"title": "D1"}]}]),
        ("contacts?select=first_name,x:deals(title)&deals.title=eq.D1&first_name=eq.Mia",
         [{"first_name": "Mia", "x": [{"title": "D1"}]}]),
        ("contacts?select=first_name,deals(title)&deals.limit=1&deals.order=title.desc&first_name=eq.Mia",
         [{"first_name": "Mia", "deals": [{"title": "D2"}]}]),
        ("contacts?select=first_name,deals(title)&deals.offset=1&deals.order=title&first_name=eq.Mia",
         [{"first_name": "Mia", "deals": [{"title": "D2"}]}]),
        ("contacts?select=first_name,deals(title)&deals.or=(title.eq.D1,title.eq.X)&first_name=eq.Mia",
         [{"first_name": "Mia", "deals": [{"title": "D1"}]}]),
        ("deals?select=title,contacts(first_name,companies(name))&contacts.companies.name=eq.X&title=eq.D1",
         [{"title": "D1", "contacts": {"first_name": "Mia", "companies": None}}]),
        ("deals?select=title&order=contacts(first_name)", None),
        ("deals?select=title,contacts()&order=contacts(first_name).desc,title.desc",
         [{"title": "D2"}, {"title": "D1"}]),
        ("contacts?select=first_name,companies(name)&order=companies(name).desc.nullslast",
         [{"first_name": "Mia", "companies": {"name": "Blue Ltd"}},
          {"first_name": "Leo", "companies": None}]),
        ("contacts?select=first_name,...deals(titles:title)&order=first_name&deals.order=title.desc",
         [{"first_name": "Leo", "titles": []}, {"first_name": "Mia", "titles": ["D2", "D1"]}]),
        ("deals?select=...contacts(first_name),value.sum(),count()", [
            {"first_name": "Mia", "sum": 30.5, "count": 2}]),
        ("deals?select=...contacts(first_name,id.count())", [{"first_name": "Mia", "count": 2}]),
        ("deals?select=value.max(),value.min(),avg:value.avg()::int,n:count()::text",
         [{"max": 20, "min": 10.5, "avg": 15, "n": "2"}]),
        ("deals?select=contacts(first_name),count()", [{"contacts": {"first_name": "Mia"}, "count": 2}]),
        ("contacts?select=first_name,deals(count())&order=first_name",
         [{"first_name": "Leo", "deals": [{"count": 0}]}, {"first_name": "Mia", "deals": [{"count": 2}]}]),
        ("messages?select=content,messages(content)&content=eq.one&messages.order=content",
         [{"content": "one", "messages": [{"content": "three"}, {"content": "two"}]}]),
        ("messages?select=content,reply_to_id(content)&content=eq.two",
         [{"content": "two", "reply_to_id": {"content": "one"}}]),
        ("teams?select=name,profiles(first_name)", [{"name": "Sales", "profiles": [{"first_name": "Ola"}]}]),
        ("profiles?select=first_name,teams!team_members(name),deals!owner_id(title)",
         [{"first_name": "Ola", "teams": [{"name": "Sales"}], "deals": [{"title": "D1"}]}]),
        ("conversations?select=status,profiles(first_name)",
         [{"status": "OPEN", "profiles": {"first_name": "Ola"}}]),
        ("contacts?select=first_name,organizations(name)&first_name=eq.Mia", None),
        ("contacts?select=first_name,phones->>0&first_name=eq.Leo", None),
        ("deals?select=title::text,value::int&title=eq.D1", [{"title": "D1", "value": 11}]),
    ],
)  # fmt: skip
async def test_REST_03_embedding(hub: Hub, token: str, world: World, path: str, expected: Any) -> None:
    answer = await hub.get(f"/rest/v1/{path}", token=token)
    if expected is None and "order=contacts" in path:
        assert (answer.status, answer.json["code"]) == (400, "PGRST108")
        return
    assert answer.status == 200, answer
    if expected is not None:
        assert answer.json == expected


async def test_T_DEA_and_T_CNV_the_documents_addresses_run(
    hub: Hub, token: str, world: World, org: Org
) -> None:
    deals = await hub.get(
        "/rest/v1/deals?select=*,contacts(*),profiles!deals_owner_id_fkey(*)"
        f"&organization_id=eq.{org.id}&order=created_at.desc",
        token=token,
    )
    assert deals.status == 200
    assert [r["title"] for r in deals.json] == ["D2", "D1"]
    assert deals.json[1]["contacts"]["first_name"] == "Mia"
    assert "search" not in deals.json[1]["contacts"]
    assert deals.json[1]["profiles"]["role"] == "OWNER"
    listed = await hub.get(
        "/rest/v1/conversations?select=*,contacts(*),channel_accounts(*),"
        "profiles!conversations_assignee_id_fkey(*)"
        f"&organization_id=eq.{org.id}&order=last_message_at.desc",
        token=token,
    )
    (row,) = listed.json
    assert row["channel_accounts"]["type"] == "WHATSAPP_CLOUD"
    assert (row["contacts"]["first_name"], row["profiles"]["first_name"]) == ("Mia", "Ola")


async def test_4_5_every_reference_has_a_name_that_can_be_guessed(superuser: asyncpg.Connection) -> None:
    rows = await superuser.fetch(
        "select k.conname, c.relname,"
        " (select array_agg(a.attname::text) from pg_attribute a"
        " where a.attrelid = k.conrelid and a.attnum = any (k.conkey)"
        " and a.attname <> 'organization_id') cols"
        " from pg_constraint k join pg_class c on c.oid = k.conrelid"
        " where k.contype = 'f' and c.relnamespace = 'public'::regnamespace"
    )
    for row in rows:
        column = row["cols"][0] if row["cols"] else "organization_id"
        assert row["conname"] == f"{row['relname']}_{column}_fkey"


@pytest.mark.parametrize(
    ("origin", "target"),
    [
        ("deals", "contacts"), ("conversations", "contacts"), ("conversations", "channel_accounts"),
        ("contacts", "companies"), ("deals", "profiles"), ("conversations", "profiles"),
        ("contacts", "profiles"), ("tasks", "profiles"), ("messages", "profiles"), ("notes", "profiles"),
        ("messages", "conversations"), ("tasks", "deals"), ("tasks", "contacts"), ("notes", "contacts"),
        ("deals", "pipelines"), ("contacts", "deals"), ("contacts", "conversations"),
        ("conversations", "messages"), ("campaigns", "campaign_recipients"), ("projects", "milestones"),
    ],
)  # fmt: skip
async def test_20_1_and_20_3_bare_names_are_not_ambiguous(
    hub: Hub, token: str, origin: str, target: str
) -> None:
    answer = await hub.get(f"/rest/v1/{origin}?select=*,{target}(*)", token=token)
    assert answer.status == 200, answer


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("contacts?select=webhooks(*)", 400, "PGRST200"),
        ("messages?select=*,messages!messages_reply_to_id_fkey(*)", 300, "PGRST201"),
        ("contacts?select=first_name&companies.name=eq.X", 400, "PGRST108"),
        ("contacts?select=companies(name)&deals.limit=1", 400, "PGRST108"),
        ("contacts?select=deals(title)&order=deals(title)", 400, "PGRST118"),
        ("contacts?select=deals(title)&deals=eq.x", 400, "PGRST120"),
        ("contacts?select=...deals(value.sum())", 400, "PGRST127"),
        ("contacts?select=companies(nope)", 400, "42703"),
        ("contacts?select=companies(name)&companies.nope=eq.1", 400, "42703"),
        ("deals?select=title.sum()", 404, "42883"),
        ("contacts?select=first_name::nope", 400, "42704"),
        ("contacts?select=id::int", 400, "42846"),
        ("contacts?select=first_name,count()&order=last_name", 400, "42803"),
    ],
)  # fmt: skip
async def test_11_2_refusals_of_embedding(hub: Hub, token: str, path: str, status: int, code: str) -> None:
    answer = await hub.get(f"/rest/v1/{path}", token=token)
    assert (answer.status, answer.json["code"]) == (status, code), answer
    if code == "PGRST201":
        assert {d["cardinality"] for d in answer.json["details"]} == {"many-to-one", "one-to-many"}
        assert "messages!" in answer.json["hint"]


async def test_counts_respect_inner_joins(hub: Hub, token: str, world: World) -> None:
    answer = await hub.get(
        "/rest/v1/deals?select=title,profiles!deals_owner_id_fkey!inner(first_name)&limit=1",
        token=token, headers=COUNT,
    )  # fmt: skip
    assert (answer.status, answer.headers["Content-Range"]) == (200, "0-0/1")
    grouped = await hub.get("/rest/v1/deals?select=title,count()&limit=1", token=token, headers=COUNT)
    assert grouped.headers["Content-Range"] == "0-0/2"


async def test_4_13_embeds_after_writes(hub: Hub, token: str, world: World) -> None:
    prefer = {"Prefer": "return=representation"}
    made = await hub.post(
        "/rest/v1/deals?select=title,contacts(first_name,companies(name)),tasks(title)", token=token,
        headers=prefer,
        json=[{"title": f"N{n}", "contact_id": world.ids["leo" if n % 2 else "mia"]} for n in range(6)],
    )  # fmt: skip
    assert made.status == 201, made
    assert [r["title"] for r in made.json] == [f"N{n}" for n in range(6)], "in the order of the body"
    assert made.json[0]["contacts"] == {"first_name": "Mia", "companies": {"name": "Blue Ltd"}}
    assert made.json[0]["tasks"] == []
    changed = await hub.patch(
        f"/rest/v1/deals?id=eq.{world.ids['d1']}&select=title,profiles!owner_id(first_name)",
        token=token, headers=prefer, json={"title": "D1b"},
    )  # fmt: skip
    assert changed.json == [{"title": "D1b", "profiles": {"first_name": "Ola"}}]
    gone = await hub.delete(
        "/rest/v1/deals?title=like.N*&select=title,...contacts(who:first_name)&order=title.desc",
        token=token, headers=prefer,
    )  # fmt: skip
    assert [r["title"] for r in gone.json] == [f"N{n}" for n in reversed(range(6))]
    assert {r["who"] for r in gone.json} == {"Mia", "Leo"}


async def test_X01_the_neighbour_is_not_embedded(
    hub: Hub, world: World, superuser: asyncpg.Connection, password_hash: str, token: str
) -> None:
    """Through every relationship there is, from a neighbour whose rows name nothing of ours."""
    stranger = await make_member(superuser, await make_org(superuser), "OWNER", password_hash)
    other = await hub.token(stranger.email)
    for path in (
        "contacts?select=*,deals(*),companies(*),conversations(*)", "teams?select=*,profiles(*)",
        "profiles?select=id,teams!team_members(*),deals!owner_id(*)",
        "organizations?select=id,contacts(id),memberships(user_id)",
    ):  # fmt: skip
        text = (await hub.get(f"/rest/v1/{path}", token=other)).body.decode()
        assert not any(id_ in text for id_ in world.ids.values()), path


async def test_C_33_an_embed_holds_a_thousand_rows_unless_told(
    hub: Hub, token: str, world: World, org: Org, superuser: asyncpg.Connection
) -> None:
    await superuser.execute(
        "insert into tasks (organization_id, title, deal_id)"
        " select $1, n::text, $2 from generate_series(1, 1100) n",
        org.id, world.ids["d1"],
    )  # fmt: skip
    place = f"/rest/v1/deals?id=eq.{world.ids['d1']}&select=tasks(id)"
    assert len((await hub.get(place, token=token)).json[0]["tasks"]) == 1000
    assert len((await hub.get(f"{place}&tasks.limit=1050", token=token)).json[0]["tasks"]) == 1050


async def test_21_eight_levels_work_and_nine_are_refused(hub: Hub, token: str, world: World) -> None:
    def nested(depth: int) -> str:
        names = ["deals", "contacts"]
        text = "id"
        for level in range(depth, 0, -1):
            text = f"{names[(level + 1) % 2]}({text})" if level % 2 else f"contacts({text})"
        return text

    eight = await hub.get(f"/rest/v1/contacts?select=id,{nested(8)}", token=token)
    assert eight.status == 200, eight
    assert (await hub.get(f"/rest/v1/contacts?select=id,{nested(9)}", token=token)).status == 400


async def test_ERR_07_an_embed_of_a_closed_table_is_said(hub: Hub, agent: Member, world: World) -> None:
    token = await hub.token(agent.email)
    refused = await hub.get("/rest/v1/tasks?select=title,projects(name)", token=token)
    assert (refused.status, refused.json["code"]) == (403, "42501")
    assert "can_access_pm" in refused.json["details"]
