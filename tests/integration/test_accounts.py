"""`hub user`: accounts that the operator makes."""

from __future__ import annotations

import asyncpg
import pytest

from hub.auth.accounts import AccountError, change_password, create_account
from hub.auth.passwords import verify_password
from hub.domain.permissions import PERMISSIONS, ROLE_DEFAULTS
from tests.factories import Servers


async def test_an_owner_and_the_organization_are_made_at_once(
    servers: Servers, superuser: asyncpg.Connection
) -> None:
    name = "نايل هوم"
    made = await create_account(
        servers.migrate_url, "Dana@Example.com", "correct horse", name, "OWNER", "Dana"
    )
    assert made.made_user and made.made_organization
    row = await superuser.fetchrow(
        "select u.email, u.encrypted_password, u.email_confirmed_at, m.*, o.name "
        "from auth.users u join public.memberships m on m.user_id = u.id "
        "join public.organizations o on o.id = m.organization_id"
    )
    assert row is not None
    assert (row["email"], row["role"], row["first_name"], row["name"]) == (
        "dana@example.com", "OWNER", "Dana", name
    )  # fmt: skip
    assert verify_password(row["encrypted_password"], "correct horse") and row["email_confirmed_at"]
    assert {name for name in PERMISSIONS if row[name]} == ROLE_DEFAULTS["OWNER"]


async def test_a_second_organization_keeps_the_password(
    servers: Servers, superuser: asyncpg.Connection
) -> None:
    first = await create_account(servers.migrate_url, "a@example.com", "correct horse", "One", "AGENT")
    second = await create_account(servers.migrate_url, "a@example.com", None, "Two", "ADMIN")
    third = await create_account(
        servers.migrate_url, "b@example.com", "battery staple", str(first.organization_id), "AGENT"
    )
    assert second.user_id == first.user_id and not second.made_user
    assert third.organization_id == first.organization_id and not third.made_organization
    stored = await superuser.fetchval(
        "select encrypted_password from auth.users where id = $1", first.user_id
    )
    assert verify_password(stored, "correct horse")


@pytest.mark.parametrize(
    ("email", "password", "said"),
    [
        ("nobody", "correct horse", "no e-mail address"),
        ("c@example.com", "short", "8 to 256"),
        ("c@example.com", "password123", "choose another"),
        ("c@example.com", None, "a password is needed"),
    ],
)
async def test_a_refused_account_leaves_nothing(
    servers: Servers, superuser: asyncpg.Connection, email: str, password: str | None, said: str
) -> None:
    with pytest.raises(AccountError, match=said):
        await create_account(servers.migrate_url, email, password, "Nowhere", "OWNER")
    assert await superuser.fetchval("select count(*) from auth.users") == 0
    assert await superuser.fetchval("select count(*) from public.organizations") == 0


async def test_a_member_is_not_made_twice(servers: Servers) -> None:
    await create_account(servers.migrate_url, "d@example.com", "correct horse", "One", "AGENT")
    with pytest.raises(AccountError, match="a member of 'One' already"):
        await create_account(servers.migrate_url, "d@example.com", None, "One", "OWNER")


async def test_a_new_password_ends_the_sessions(servers: Servers, superuser: asyncpg.Connection) -> None:
    made = await create_account(servers.migrate_url, "e@example.com", "correct horse", "One", "AGENT")
    await superuser.execute("insert into auth.sessions (user_id) values ($1)", made.user_id)
    await change_password(servers.migrate_url, "E@example.com", "battery staple")
    stored = await superuser.fetchval("select encrypted_password from auth.users where id = $1", made.user_id)
    assert verify_password(stored, "battery staple")
    assert await superuser.fetchval("select count(*) from auth.sessions where revoked_at is null") == 0
    with pytest.raises(AccountError, match="Nobody has the address"):
        await change_password(servers.migrate_url, "nobody@example.com", "battery staple")
