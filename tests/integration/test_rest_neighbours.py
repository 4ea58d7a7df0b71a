"""X-01 and X-34 through every door of /rest/v1 there is, made of the schema: paths of embedding,
filters on the
neighbour's ids, every verb, functions and batches."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest

from hub.db.tenancy import acting_as
from hub.domain.permissions import PERMISSIONS, RULES
from hub.resources import CATALOG, DB
from hub.rest.grammar import parse_query
from hub.rest.schema import Relationship
from tests.factories import Member, Org, make_member
from tests.rows import Filled, fill
from tests.server import PASSWORD, Hub, running_hub

WIDE = {f"HUB_RATE_{n}": "1000000" for n in ("REST", "FUNCTIONS", "EXTERNAL", "WEB")}


@pytest.fixture
async def wide(servers: Any, valkey: Any, tmp_path: Any) -> Any:
    async with running_hub(servers, valkey.url, tmp_path, **WIDE) as hub:
        yield hub


@pytest.fixture
async def twins(superuser: asyncpg.Connection) -> tuple[Filled, Filled]:
    return await fill(superuser), await fill(superuser)


@pytest.fixture
async def callers(
    wide: Hub, superuser: asyncpg.Connection, twins: tuple[Filled, Filled], password_hash: str
) -> dict[str, dict[str, str]]:
    """Credentials of organization A, by kind."""
    org = twins[0].org
    owner: Member = await make_member(superuser, org, "OWNER", password_hash)
    agent: Member = await make_member(superuser, org, "AGENT", password_hash)
    token = (await wide.sign_in(owner.email, PASSWORD))["access_token"]
    granted = {"name": "k", "permissions": dict.fromkeys(PERMISSIONS, True)}
    made = await wide.post("/functions/v1/generate-api-key", token=token, json=granted)
    return {
        "owner": {"token": token},
        "agent": {"token": await wide.token(agent.email)},
        "key": {"key": made.json["api_key"]},
    }


def ids_of(filled: Filled) -> set[str]:
    """Everything that would tell of the neighbour: ids of all rows and of the organization."""
    found = {str(filled.org.id), str(filled.org.account_id), str(filled.owner.id)}
    return found | {str(row["id"]) for row in filled.rows.values() if "id" in row}


def written(way: Relationship) -> str:
    """An embed that means this way and no other."""
    if way.function is not None:
        return f"x:{way.function}(*)"
    if way.junction is not None:
        return f"x:{way.target}!{way.junction.table}(*)"
    if way.origin == way.target:
        return f"x:{way.column(0)}(*)" if way.is_to_one else f"x:{way.target}!{way.column(1)}(*)"
    return f"x:{way.target}!{way.constraint}(*)"


async def test_X01_no_way_of_embedding_leads_to_the_neighbour(
    wide: Hub, twins: tuple[Filled, Filled], callers: dict[str, dict[str, str]]
) -> None:
    a, b = twins
    schema = (await wide.app[CATALOG].compiler()).schema
    ways = [way for found in schema.relationships.values() for way in found]
    foreign = ids_of(b)
    gate, leaks, seen = asyncio.Semaphore(8), [], 0

    async def look(name: str, way: Relationship, filter_: str) -> None:
        nonlocal seen
        async with gate:
            path = f"/rest/v1/{way.origin}?select=*,{written(way)}{filter_}"
            answer = await wide.get(path, **callers[name])  # type: ignore[arg-type]
        assert answer.status in (200, 403), (path, answer)
        seen += answer.status == 200
        text = answer.body.decode()
        leaks.extend((name, path, id_) for id_ in foreign if id_ in text)

    await asyncio.gather(
        *(
            look(name, way, filter_)
            for name in callers
            for way in ways
            for filter_ in ("", f"&x.organization_id=eq.{b.org.id}" if way.target != "organizations" else "")
        )
    )
    assert leaks == []
    assert seen > 400
    assert {str(a.org.id)} <= ids_of(a)


async def test_X01_the_neighbours_ids_name_nothing(
    wide: Hub, twins: tuple[Filled, Filled], callers: dict[str, dict[str, str]],
    superuser: asyncpg.Connection,
) -> None:  # fmt: skip
    """Read, counted, changed, deleted, put over, upserted over: as if they were nobody's."""
    _, b = twins
    schema = (await wide.app[CATALOG].compiler()).schema
    before = {t: await superuser.fetchval(f"select md5(string_agg(x::text, '' order by x::text)) from {t} x"
                                          " where organization_id = $1", b.org.id)
              for t in RULES if t not in ("organizations", "profiles")}  # fmt: skip
    wrong: list[Any] = []
    represent = {"Prefer": "return=representation"}
    for name, who in callers.items():
        for table in RULES:
            row = b.rows.get(table)
            if row is None or "id" not in row or table not in schema.tables:
                continue
            place = f"/rest/v1/{table}?id=eq.{row['id']}"
            options: dict[str, Any] = dict(who)
            read = await wide.get(place, headers={"Prefer": "count=exact"}, **options)
            if read.status == 200 and (read.json != [] or read.headers["Content-Range"] != "*/0"):
                wrong.append((name, place, read))
            for method, json in (("PATCH", {"created_at": "2020-01-01"}), ("DELETE", None)):
                extra = {} if json is None else {"json": json}
                answer = await wide.call(method, place, headers=represent, **options, **extra)
                if answer.status not in (200, 403) or (answer.status == 200 and answer.json != []):
                    wrong.append((name, method, place, answer))
            body = {"id": str(row["id"]), "organization_id": str(b.org.id)}
            for method, path, prefer in (
                ("PUT", place, ""), ("POST", f"/rest/v1/{table}", "resolution=merge-duplicates"),
            ):  # fmt: skip
                answer = await wide.call(method, path, headers={"Prefer": prefer}, json=body, **options)
                if answer.status not in (400, 403, 409, 422):
                    wrong.append((name, method, path, answer))
    assert wrong == []
    after = {t: await superuser.fetchval(f"select md5(string_agg(x::text, '' order by x::text)) from {t} x"
                                         " where organization_id = $1", b.org.id)
             for t in before}  # fmt: skip
    assert after == before


async def test_X01_functions_and_batches_know_one_organization(
    wide: Hub, twins: tuple[Filled, Filled], callers: dict[str, dict[str, str]]
) -> None:
    _, b = twins
    foreign = ids_of(b)
    contact, conversation = str(b.id("contacts")), str(b.id("conversations"))
    for who in callers.values():
        options: dict[str, Any] = dict(who)
        for call in (
            wide.post("/rest/v1/rpc/search_contacts?select=*,conversations(*)", json={}, **options),
            wide.post("/rest/v1/rpc/inbox_counts", **options),
            wide.post("/rest/v1/rpc/current_organization_id", **options),
            wide.post("/rest/v1/rpc/add_contact_tag", json={"contact_id": contact, "tag": "x"}, **options),
            wide.post("/rest/v1/rpc/mark_conversation_read", json={"conversation_id": conversation},
            **options),
            wide.post("/functions/v1/batch", json={"operations": [
                {"method": "GET", "path": f"contacts?id=eq.{contact}"},
                {"method": "DELETE", "path": f"contacts?id=eq.{contact}", "prefer": "return=representation"},
            ]}, **options),
        ):  # fmt: skip
            text = (await call).body.decode()
            assert not [id_ for id_ in foreign if id_ in text]


@pytest.mark.parametrize(
    ("table", "query", "index"),
    [
        ("conversations",
        "select=*,contacts(*),channel_accounts(*),profiles!conversations_assignee_id_fkey(*)"
         "&order=last_message_at.desc", "conversations_last_message_at_idx"),
        ("contacts", "select=id,first_name,companies(name)&order=created_at.desc", "contacts_created_at_idx"),
        ("deals", "select=*,contacts(*)&order=created_at.desc", "deals_created_at_idx"),
        ("contacts", "id=eq.01a21049-e829-7b8a-8a46-a4d7181245c7", "contacts_pkey"),
    ],
)  # fmt: skip
async def test_T_CNV_the_documents_lists_go_by_an_index(
    wide: Hub, superuser: asyncpg.Connection, org: Org, owner: Member, table: str, query: str, index: str
) -> None:
    await superuser.execute(f"""
        set session_replication_role = replica;
        insert into contacts (organization_id, first_name, created_at)
          select '{org.id}', n::text, now() - random() * interval '1 day' from generate_series(1, 20000) n;
        insert into conversations (organization_id, contact_id, status, last_message_at)
          select organization_id, id, 'CLOSED', created_at from contacts;
        insert into deals (organization_id, title, contact_id, created_at)
          select organization_id, 'D', id, now() - random() * interval '1 day' from contacts;
        set session_replication_role = default;
    """)
    await superuser.execute("analyze")
    parsed = parse_query(query)
    statement = (await wide.app[CATALOG].compiler()).read(table, parsed.shape, "json", False)[1]
    arguments = statement.bind(parsed.values, limit=50)
    async with acting_as(wide.app[DB], owner.principal(), read_only=True) as conn:
        rows = await conn.fetch(f"explain {statement.text}", *arguments)
    plan = "\n".join(row[0] for row in rows)
    assert index in plan, plan
    assert f"Seq Scan on {table}" not in plan, plan
