"""The schema as a whole: fresh files, row security everywhere, references that cannot leave a tenant,
migrations that apply."""

from __future__ import annotations

import re

import asyncpg
import pytest

import sql
from hub.db import dump, policies
from hub.db.embedded import EmbeddedPostgres
from hub.db.migrate import SchemaError, check_schema, migrate, migration_files
from hub.db.pool import Database
from hub.domain.permissions import RULES
from tests.factories import Servers, make_conversation, make_member, make_message, make_org

#: Tables without an organization: sign-in is about people, the rest is about this installation.
GLOBAL_TABLES = {
    "auth.users", "auth.sessions", "auth.refresh_tokens", "auth.sign_in_failures", "auth.one_time_tokens",
    "auth.mfa_factors", "auth.mfa_challenges", "auth.recovery_codes",
    "app.hub_meta", "app.signing_keys", "app.schema_migrations", "app.applied_files", "public.organizations",
}  # fmt: skip


async def test_schema_sql_is_fresh(servers: Servers) -> None:
    assert dump.dump(servers.migrate_url) == dump.FILE.read_text(encoding="utf-8"), (
        "run: python -m hub.db.dump"
    )


def test_policies_are_fresh() -> None:
    assert policies.render() == policies.FILE.read_text(encoding="utf-8"), "run: python -m hub.db.policies"


async def test_every_public_table_has_rules(superuser: asyncpg.Connection) -> None:
    rows = await superuser.fetch(
        "select relname from pg_class where relnamespace = 'public'::regnamespace and relkind in ('r', 'v')"
    )
    assert {r["relname"] for r in rows} == set(RULES)


async def test_X02_row_security_is_enabled_and_forced_on_every_table(superuser: asyncpg.Connection) -> None:
    rows = await superuser.fetch(
        "select n.nspname || '.' || c.relname as name"
        " from pg_class c join pg_namespace n on n.oid = c.relnamespace"
        " where n.nspname in ('public', 'app', 'auth') and c.relkind = 'r'"
        " and not (c.relrowsecurity and c.relforcerowsecurity)"
    )
    assert [r["name"] for r in rows] == []


async def test_X02_no_role_bypasses_row_security_and_the_runtime_owns_nothing(
    superuser: asyncpg.Connection,
) -> None:
    ours = ["hub_owner", "hub_writer", "hub_runtime", "anon", "authenticated", "service_role"]
    rows = await superuser.fetch(
        "select rolname, rolsuper, rolbypassrls, rolinherit, rolcanlogin"
        " from pg_roles where rolname = any ($1)",
        ours,
    )
    assert len(rows) == len(ours)
    for r in rows:
        assert not r["rolsuper"] and not r["rolbypassrls"] and not r["rolinherit"], r
        assert r["rolcanlogin"] == (r["rolname"] == "hub_runtime")
    owned = await superuser.fetch(
        "select c.relname from pg_class c join pg_roles r on r.oid = c.relowner where r.rolname = any ($1)"
        " union all"
        " select p.proname from pg_proc p join pg_roles r on r.oid = p.proowner where r.rolname = any ($1)",
        ["hub_runtime", "anon", "authenticated", "service_role"],
    )
    assert owned == []


async def test_X02_definer_functions_pin_their_search_path(superuser: asyncpg.Connection) -> None:
    rows = await superuser.fetch(
        "select p.oid::regprocedure::text as f from pg_proc p where p.prosecdef"
        " and p.pronamespace in ('app'::regnamespace, 'auth'::regnamespace, 'public'::regnamespace)"
        " and not exists (select from unnest(p.proconfig) c where c like 'search_path=%')"
    )
    assert [r["f"] for r in rows] == []


async def test_X34_references_and_unique_keys_start_with_the_organization(
    superuser: asyncpg.Connection,
) -> None:
    """Foreign keys and unique indexes ignore row security: each must carry the organization itself."""
    rows = await superuser.fetch(
        """
        select n.nspname || '.' || t.relname as tbl, c.conname, c.contype::text as kind,
               (select array_agg(a.attname::text order by k.place)
                  from unnest(c.conkey) with ordinality k (num, place)
                  join pg_attribute a on a.attrelid = c.conrelid and a.attnum = k.num) as columns,
               case when c.confrelid <> 0 then c.confrelid::regclass::text end as target
          from pg_constraint c
          join pg_class t on t.oid = c.conrelid
          join pg_namespace n on n.oid = t.relnamespace
         where n.nspname in ('public', 'app', 'auth') and c.contype in ('f', 'u', 'p')
        """
    )
    loose = [
        (r["tbl"], r["conname"])
        for r in rows
        if r["tbl"] not in GLOBAL_TABLES and r["columns"][0] != "organization_id"
        and (r["kind"] != "p" or r["columns"] != ["id"])
        and r["target"] not in ("auth.users", "organizations")
    ]  # fmt: skip
    assert loose == []
    indexes = await superuser.fetch(
        "select tablename, indexname, indexdef from pg_indexes"
        " where schemaname in ('public', 'app') and indexdef like 'CREATE UNIQUE%'"
    )
    for r in indexes:
        first = re.search(r"\((\w+)", r["indexdef"])
        assert first is not None
        if f"app.{r['tablename']}" in GLOBAL_TABLES or r["tablename"] == "organizations" or first[1] == "id":
            continue
        assert first[1] == "organization_id", r["indexdef"]


async def test_constraints_carry_their_conventional_names(superuser: asyncpg.Connection) -> None:
    """/rest embeds by these names and errors translate them, so none is left to chance."""
    rows = await superuser.fetch(
        "select t.relname, c.conname, c.contype::text as kind"
        " from pg_constraint c join pg_class t on t.oid = c.conrelid"
        " join pg_namespace n on n.oid = t.relnamespace"
        " where n.nspname = 'public' and c.contype in ('p', 'f', 'u', 'c')"
    )
    suffix = {"p": "_pkey", "f": "_fkey", "u": "_key", "c": "_check"}
    wrong = [
        r["conname"]
        for r in rows
        if not (r["conname"].startswith(r["relname"] + "_") and r["conname"].endswith(suffix[r["kind"]]))
    ]
    assert wrong == []
    names = {r["conname"] for r in rows}
    assert {"deals_owner_id_fkey", "conversations_assignee_id_fkey"} <= names  # REST-04


async def test_states_are_text_with_checks_not_enum_types(superuser: asyncpg.Connection) -> None:
    assert (
        await superuser.fetchval(
            "select count(*) from pg_type where typtype = 'e'"
            " and typnamespace in ('public'::regnamespace, 'app'::regnamespace)"
        )
        == 0
    )


async def test_migrations_apply_to_a_filled_database_and_change_nothing(
    servers: Servers, superuser: asyncpg.Connection
) -> None:
    org = await make_org(superuser)
    await make_member(superuser, org, "OWNER")
    await make_message(superuser, org, await make_conversation(superuser, org))
    before = await superuser.fetchval("select count(*) from app.events")
    assert not (await migrate(servers.migrate_url)).changed
    await superuser.execute("update app.applied_files set sha256 = 'older'")
    again = await migrate(servers.migrate_url)
    assert again.functions and again.policies and not again.applied
    assert await superuser.fetchval("select count(*) from app.events") == before


async def test_two_processes_migrating_at_once_take_turns(postgres: EmbeddedPostgres) -> None:
    import asyncio

    admin = await asyncpg.connect(postgres.dsn)
    await admin.execute("create database migrate_twice")
    try:
        reports = await asyncio.gather(*(migrate(postgres.dsn_for("migrate_twice")) for _ in range(2)))
        assert sorted(len(r.applied) for r in reports) == [0, len(migration_files())]
    finally:
        await admin.execute("drop database migrate_twice with (force)")
        await admin.close()


async def test_a_database_of_a_newer_version_is_refused(
    servers: Servers, superuser: asyncpg.Connection
) -> None:
    await superuser.execute("insert into app.schema_migrations (name, sha256) values ('9999_future.sql', '')")
    with pytest.raises(SchemaError, match=r"9999_future\.sql"):
        await migrate(servers.migrate_url)


async def test_an_edited_migration_is_refused(servers: Servers, superuser: asyncpg.Connection) -> None:
    await superuser.execute("update app.schema_migrations set sha256 = 'other' where name like '0001%'")
    with pytest.raises(SchemaError, match="changed after it was applied"):
        await migrate(servers.migrate_url)


async def test_boot_gate_names_missing_migrations(db: Database, superuser: asyncpg.Connection) -> None:
    await superuser.execute("delete from app.schema_migrations where name like '0005%'")
    async with db.connection("api") as conn:
        assert await check_schema(conn) == ["0005_machinery.sql"]


@pytest.mark.parametrize("query", sql.QUERIES.values(), ids=sql.QUERIES)
async def test_query_prepares(superuser: asyncpg.Connection, query: sql.Query) -> None:
    statement = await superuser.prepare(query.text)
    mentioned = {int(n) for n in re.findall(r"\$(\d+)", query.doc)}
    assert mentioned >= set(range(1, len(statement.get_parameters()) + 1)), (
        f"{query.origin}: say what each placeholder is"
    )
