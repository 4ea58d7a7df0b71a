"""Two organizations that are alike, one of which carries a canary in every text that may hold one."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import asyncpg

from hub.domain.permissions import PERMISSIONS, ROLE_DEFAULTS
from tests.attack.people import make_key, token_of
from tests.factories import Member, make_member
from tests.rows import ROWS, Filled, fill
from tests.server import Hub

CANARY = "canary-7f3a9c"
TABLES = [*ROWS, "memberships", "channel_accounts", "organizations"]


async def plant(conn: asyncpg.Connection, b: Filled) -> int:
    """Put the canary into every column of ``b`` that takes it, then change a row of each table, so that the
    event log holds it too. How many columns took it."""
    rows = await conn.fetch(
        "select c.table_name, c.column_name, format_type(a.atttypid, null) as type"
        "  from information_schema.columns c join pg_attribute a on a.attname = c.column_name"
        "   and a.attrelid = format('public.%I', c.table_name)::regclass"
        " where c.table_schema = 'public' and c.table_name = any ($1) and c.is_generated = 'NEVER'"
        "   and format_type(a.atttypid, null) in ('text', 'jsonb', 'text[]')",
        TABLES,
    )
    planted = 0
    for table, column, kind in rows:
        value = {
            "text": f"'{CANARY}'",
            "jsonb": f'\'{{"{CANARY}": "{CANARY}"}}\'',
            "text[]": f"array['{CANARY}']",
        }[kind]
        key = "id" if table == "organizations" else "organization_id"
        await conn.execute("set session_replication_role = replica")  # no trigger says what may be written
        try:
            await conn.execute(f'update public.{table} set "{column}" = {value} where {key} = $1', b.org.id)
            planted += 1
        except asyncpg.PostgresError:
            pass  # a state, a type: it takes only words of its list
        finally:
            await conn.execute("set session_replication_role = default")
    for table in ("contacts", "deals", "conversations", "messages"):
        await conn.execute(
            f"update public.{table} set updated_at = now() where organization_id = $1", b.org.id
        )
    b.rows = {
        t: dict(await conn.fetchrow(f"select * from public.{t} where organization_id = $1", b.org.id))
        for t in ROWS
    }
    return planted


async def checksums(conn: asyncpg.Connection, b: Filled) -> dict[str, str]:
    """Of all rows of the organization, by table."""
    found = {}
    for table in TABLES:
        key = "id" if table == "organizations" else "organization_id"
        found[table] = await conn.fetchval(
            "select md5(coalesce(string_agg(t::text, '|' order by t::text), ''))"
            f" from public.{table} t where {key} = $1",
            b.org.id,
        )
    return found


def ids(b: Filled) -> dict[str, UUID]:
    """An id of every kind of row."""
    found = {table: row["id"] for table, row in b.rows.items() if "id" in row}
    return {
        **found,
        "channel_accounts": b.org.account_id,
        "organizations": b.org.id,
        "memberships": b.owner.id,
    }


async def callers(hub: Hub, conn: asyncpg.Connection, a: Filled) -> dict[str, dict[str, str]]:
    """Everybody who may knock: of organization ``a`` the strongest and the weakest, and those of none.
    Values are options of ``Hub.call``."""
    strong = Member(a.owner.id, a.org.id, a.owner.email, "OWNER")
    admin = await make_member(conn, a.org, "ADMIN")
    agent = await make_member(conn, a.org, "AGENT")
    bare = await make_member(conn, a.org, "AGENT", **dict.fromkeys(PERMISSIONS, False))
    nobody = await make_member(conn, a.org, "AGENT")
    found = {
        name: {"token": await token_of(hub, conn, member)}
        for name, member in (
            ("owner", strong), ("admin", admin), ("agent", agent), ("bare", bare), ("nobody", nobody),
        )
    }  # fmt: skip
    await conn.execute("delete from memberships where user_id = $1", nobody.id)
    found["key"] = {"key": (await make_key(hub, conn, a.org))[0]}
    found["small key"] = {"key": (await make_key(hub, conn, a.org, ROLE_DEFAULTS["AGENT"]))[0]}
    found["anon"] = {"token": (await hub.get("/config.json")).json["anon_key"]}
    found["stranger"] = {}
    return found


async def two(conn: asyncpg.Connection) -> tuple[Filled, Filled]:
    """``a`` plain, ``b`` with the canary."""
    a, b = await fill(conn), await fill(conn)
    planted = await plant(conn, b)
    assert planted >= 100, planted
    return a, b


def spread(value: Any) -> str:
    """Everything of an answer that a canary could be in."""
    return f"{value.status} {dict(value.headers)} {value.body.decode(errors='replace')}"
