"""X-01: for every table × verb × role, organization A never sees or changes B (REST-14).

Generated from the permission table.
"""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from hub.db.pool import Database
from hub.db.tenancy import acting_as
from hub.domain.permissions import PERMISSIONS, ROLE_DEFAULTS, RULES, rule
from hub.domain.principal import ANON, Principal, worker_for
from tests.rows import ROWS, Filled, fill, insert_statement, values_for

TABLES = sorted(ROWS)


def callers(a: Filled) -> dict[str, Principal]:
    """Everyone who may act in organization A, the strongest included, and two who may act nowhere."""
    base = {"organization_id": a.org.id, "user_id": a.owner.id}
    return {
        "anon": ANON,
        "nobody": Principal(kind="user", user_id=uuid4()),
        "bare agent": Principal(kind="user", role="AGENT", **base),
        "agent": Principal(kind="user", role="AGENT", permissions=ROLE_DEFAULTS["AGENT"], **base),
        "admin": Principal(kind="user", role="ADMIN", permissions=ROLE_DEFAULTS["ADMIN"], **base),
        "owner": Principal(kind="user", role="OWNER", permissions=ROLE_DEFAULTS["OWNER"], **base),
        "key": Principal(kind="key", organization_id=a.org.id, permissions=frozenset(PERMISSIONS)),
        "worker": worker_for(a.org.id),
    }


@pytest.fixture
async def two(superuser: asyncpg.Connection) -> tuple[Filled, Filled]:
    return await fill(superuser), await fill(superuser)


async def outcome(conn: asyncpg.Connection, statement: str, *args: Any) -> int | str:
    """Rows touched, or the SQLSTATE of the refusal. Nothing is kept."""
    await conn.execute("savepoint attempt")
    try:
        return len(await conn.fetch(statement, *args))
    except asyncpg.PostgresError as e:
        return str(e.sqlstate)
    finally:
        await conn.execute("rollback to savepoint attempt")


def test_every_table_has_a_row_here() -> None:
    assert set(ROWS) | {"organizations", "memberships", "channel_accounts", "profiles"} == set(RULES)


async def test_X01_no_caller_reads_or_changes_the_neighbours_rows(
    db: Database, two: tuple[Filled, Filled]
) -> None:
    a, b = two
    leaks: list[tuple[str, str, str, int | str]] = []
    for name, principal in callers(a).items():
        async with acting_as(db, principal) as conn:
            for table in [*TABLES, "memberships", "channel_accounts", "profiles", "organizations"]:
                t = f"public.{table}"
                key = "id" if table == "organizations" else "organization_id"
                column = "name" if table == "organizations" else "created_at"
                for verb, statement in (
                    ("read", f"select from {t} where {key} = $1"),
                    ("update", f"update {t} set {column} = {column} where {key} = $1 returning 1"),
                    ("delete", f"delete from {t} where {key} = $1 returning 1"),
                ):
                    got = await outcome(conn, statement, b.org.id)
                    if got not in (0, "42501", "55000"):
                        leaks.append((name, table, verb, got))
            for table in TABLES:
                text, args = insert_statement(table, values_for(table, b))
                got = await outcome(conn, text + " returning 1", *args)
                if got != "42501":
                    leaks.append((name, table, "insert", got))
    assert leaks == []


async def test_X01_a_row_cannot_be_moved_to_the_neighbour(db: Database, two: tuple[Filled, Filled]) -> None:
    a, b = two
    async with acting_as(db, callers(a)["owner"]) as conn:
        for table in TABLES:
            if not rule(table, "update").nobody:
                got = await outcome(
                    conn, f"update public.{table} set organization_id = $1 returning 1", b.org.id
                )
                assert got == "42501", (table, got)


async def test_X34_no_reference_reaches_the_neighbour(db: Database, two: tuple[Filled, Filled]) -> None:
    """A row of A that names a row of B is refused, and the refusal is that of a row that never existed."""
    a, b = two
    async with acting_as(db, callers(a)["owner"]) as conn:
        for table, columns in ROWS.items():
            if rule(table, "insert").nobody:
                continue
            for column, value in columns.items():
                if not callable(value):
                    continue
                refusals = []
                for foreign in (value(b), uuid4()):
                    values = {**values_for(table, a), column: foreign}
                    if "value" in values:
                        values["value"] = "another"
                    text, args = insert_statement(table, values)
                    await conn.execute("savepoint attempt")
                    try:
                        await conn.execute(text, *args)
                        await conn.execute("set constraints all immediate")
                        refusals.append(("accepted", ""))
                    except asyncpg.PostgresError as e:
                        refusals.append((str(e.sqlstate), str(getattr(e, "constraint_name", ""))))
                    await conn.execute("rollback to savepoint attempt")
                assert refusals[0] == refusals[1], (table, column)
                assert refusals[0][0] in ("23503", "42501"), (table, column, refusals)


@pytest.mark.parametrize("verb", ["read", "insert", "update", "delete"])
async def test_X02_policies_say_what_the_permission_table_says(
    db: Database, two: tuple[Filled, Filled], verb: str
) -> None:
    """Inside one organization: a caller may exactly what hub/domain/permissions.py says, for every table and
    permission."""
    a, _ = two
    wrong: list[tuple[str, str, int | str, bool]] = []
    people = callers(a)
    for p in PERMISSIONS:
        people[p] = Principal(
            kind="user",
            role="AGENT",
            organization_id=a.org.id,
            user_id=a.owner.id,
            permissions=frozenset({p}),
        )
    del people["anon"], people["nobody"]
    for name, principal in people.items():
        async with acting_as(db, principal) as conn:
            for table in TABLES:
                need = rule(table, verb)  # type: ignore[arg-type]
                own = need.own_column is None or principal.user_id == a.owner.id
                may = need.admits(principal.role, principal.permissions) and own
                if verb == "update":  # what one cannot see one cannot change
                    may = may and rule(table, "read").admits(principal.role, principal.permissions)
                if verb == "insert":
                    values = values_for(table, a)
                    if "id" in a.rows[table]:
                        values["id"] = uuid4()
                    text, args = insert_statement(table, values)
                    got = await outcome(conn, text, *args)
                    allowed = got != "42501"
                else:
                    statement = {
                        "read": f"select 1 from public.{table}",
                        "update": f"update public.{table} set created_at = created_at returning 1",
                        "delete": f"delete from public.{table} returning 1",
                    }[verb]
                    got = await outcome(conn, statement)
                    allowed = got not in (0, "42501")
                    if (table, verb) == ("messages", "delete"):
                        continue  # leaves a tombstone and no row to count: test_message_tombstones.py
                if allowed != may:
                    wrong.append((name, table, got, may))
    assert wrong == []


async def test_X03_identity_ends_with_the_transaction(db: Database, two: tuple[Filled, Filled]) -> None:
    """The same connection, afterwards: no role, no organization, no rows."""
    a, _ = two
    async with acting_as(db, callers(a)["owner"]) as conn:
        assert await conn.fetchval("select count(*) from contacts") == 1
    async with db.connection("api") as conn:
        assert await conn.fetchval("select current_user") == "hub_runtime"
        assert await conn.fetchval("select app.org()") is None
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await conn.fetch("select * from public.contacts")


async def test_X10_machinery_cannot_be_called_from_inside_a_role(
    db: Database, two: tuple[Filled, Filled]
) -> None:
    """A member's transaction reaches none of the functions that cross tenants."""
    a, b = two
    async with acting_as(db, callers(a)["owner"]) as conn:
        for statement in (
            "select * from app.read_events($1, 0, 10)", "select * from app.heads(array[$1::uuid])",
            "select * from app.webhook_accounts('WHATSAPP_CLOUD', array[$1::text], '{}', '{}')",
            "select * from app.claim_sends($1, 'x', 1, '1 s')",
        ):  # fmt: skip
            argument: Any = str(b.org.id) if "::text" in statement else b.org.id
            assert await outcome(conn, statement, argument) == "42501", statement
        for table in (
            "app.events",
            "app.outbox",
            "app.secrets",
            "app.api_key_hashes",
            "auth.users",
            "auth.sessions",
        ):
            assert await outcome(conn, f"select * from {table}") == "42501", table


async def test_heads_and_events_of_one_organization_show_no_other(
    db: Database, two: tuple[Filled, Filled]
) -> None:
    """Definer functions that take an organization return that one's rows alone."""
    a, b = two
    async with db.connection("live") as conn:
        heads = await conn.fetch("select * from app.heads($1)", [a.org.id])
        frames = await conn.fetch("select frame from app.read_events($1, 0, 1000)", a.org.id)
    assert [h["organization_id"] for h in heads] == [a.org.id]
    assert frames
    assert not any(str(b.org.id) in f["frame"] for f in frames)


async def test_T_PRF_nobody_promotes_himself_and_the_last_owner_stays(
    db: Database, superuser: asyncpg.Connection, two: tuple[Filled, Filled]
) -> None:
    from tests.factories import make_member

    a, _ = two
    agent = await make_member(superuser, a.org, "AGENT")
    admin = await make_member(superuser, a.org, "ADMIN")
    attempts = [
        (agent, "update profiles set role = 'ADMIN' where id = $1 returning 1", agent.id, "42501"),
        (
            agent,
            "update memberships set can_manage_team = true where user_id = $1 returning 1",
            agent.id,
            "42501",
        ),
        (agent, "update profiles set first_name = 'Me' where id = $1 returning 1", agent.id, 1),
        (admin, "update profiles set role = 'ADMIN' where id = $1 returning 1", agent.id, 1),
        (admin, "update profiles set role = 'OWNER' where id = $1 returning 1", agent.id, "42501"),
        (admin, "update profiles set role = 'OWNER' where id = $1 returning 1", admin.id, "42501"),
        (admin, "update profiles set is_active = false where id = $1 returning 1", a.owner.id, "42501"),
        (a.owner, "update profiles set role = 'AGENT' where id = $1 returning 1", a.owner.id, "42501"),
    ]
    for who, statement, target, expected in attempts:
        async with acting_as(db, who.principal()) as conn:
            assert await outcome(conn, statement, target) == expected, (who.role, statement)
