"""Accounts as the operator makes them, with the owner's login (HUB_MIGRATE_URL); the app has invitations."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from hub.auth.addresses import address_of
from hub.auth.mail import enqueue_mail
from hub.auth.passwords import hash_password, weakness
from hub.auth.tokens import ACCESS_S, JWKS_S, LEEWAY_S, new_signing_key
from hub.domain.permissions import ROLE_DEFAULTS, Role
from hub.settings import Settings
from sql import q

_WEAK = {
    "length": "The password needs 8 to 256 characters.",
    "pwned": "The password is one of the first that others would try; choose another.",
}


class AccountError(Exception):
    """The account cannot be made so; the message says why and what to do."""


class NewAccount(msgspec.Struct, frozen=True):
    """What came of it. `made_user` and `made_organization` False: they were there already."""

    user_id: UUID
    organization_id: UUID
    made_user: bool
    made_organization: bool


async def create_account(
    owner_url: str,
    email: str,
    password: str | None,
    organization: str,
    role: Role,
    first_name: str | None = None,
    last_name: str | None = None,
) -> NewAccount:
    """Make user, organization (named by id or exact name) and membership, as far as they are missing.

    A user who is there keeps the password; `password` None is for them alone. Raises AccountError.
    """
    address = plain_address(email)
    hashed = None if password is None else strong_hash(password)
    async with _operator(owner_url) as conn:
        user_id = await conn.fetchval(q.account_by_email, address)
        made_user = user_id is None
        if user_id is None:
            if hashed is None:
                raise AccountError(f"{address} has no account yet, so a password is needed.")
            user_id = await conn.fetchval(q.add_account, address, hashed)
        found = await conn.fetch(q.organizations_called, organization)
        if len(found) > 1:
            ids = ", ".join(str(row["id"]) for row in found)
            raise AccountError(
                f"Several organizations are called {organization!r}; name one by its id: {ids}"
            )
        organization_id = found[0]["id"] if found else await conn.fetchval(q.add_organization, organization)
        permissions = sorted(ROLE_DEFAULTS[role])
        added = await conn.fetchval(
            q.add_member, organization_id, user_id, role, address, first_name, last_name, permissions
        )
        if added is None:
            raise AccountError(f"{address} is a member of {organization!r} already.")
        return NewAccount(user_id, organization_id, made_user, not found)


async def change_password(owner_url: str, email: str, password: str) -> None:
    """Give the user a new password; every session of theirs ends. Raises AccountError."""
    address, hashed = plain_address(email), strong_hash(password)
    async with _operator(owner_url) as conn:
        user_id = await conn.fetchval(q.account_by_email, address)
        if user_id is None:
            raise AccountError(f"Nobody has the address {address}.")
        await conn.execute(q.set_account_password, user_id, hashed)


async def remove_factors(owner_url: str, email: str) -> int:
    """Take every second factor and recovery code away from the user, and end the sessions; how many factors.
    Raises AccountError."""
    address = plain_address(email)
    async with _operator(owner_url) as conn:
        user_id = await conn.fetchval(q.account_by_email, address)
        if user_id is None:
            raise AccountError(f"Nobody has the address {address}.")
        return int(await conn.fetchval(q.remove_factors_of, user_id))


async def rotate_signing_key(owner_url: str, settings: Settings, *, now: bool) -> tuple[str, datetime]:
    """A further key for access tokens: its name, and when it begins to sign. ``now``: at once, and what the
    keys before it signed is refused; else after it was public for JWKS_S, and their last tokens run out."""
    kid, jwk, sealed = new_signing_key(settings)
    waits = timedelta(0) if now else timedelta(seconds=JWKS_S)
    lasts = timedelta(0) if now else timedelta(seconds=ACCESS_S + 2 * LEEWAY_S)
    async with _operator(owner_url) as conn:
        begins: datetime = await conn.fetchval(q.rotate_signing_key, kid, jwk, sealed, waits, lasts)
    return kid, begins


async def has_account(owner_url: str, email: str) -> bool:
    """Whether the address has a password already. Raises AccountError for what is no address."""
    async with _operator(owner_url) as conn:
        return await conn.fetchval(q.account_by_email, plain_address(email)) is not None


async def waiting_mails(owner_url: str, mail_id: UUID | None) -> list[Any]:
    """Rows of q.all_mail: all that wait, or one."""
    async with _operator(owner_url) as conn:
        return list(await conn.fetch(q.all_mail, mail_id))


async def retry_mails(owner_url: str, mail_id: UUID | None) -> int:
    """How many will be tried again."""
    async with _operator(owner_url) as conn:
        return int(await conn.fetchval(q.retry_mail, mail_id))


async def write_test_mail(owner_url: str, settings: Settings, email: str) -> UUID:
    """The mail's id. Raises AccountError for what is no address."""
    address = plain_address(email)
    async with _operator(owner_url) as conn:
        return await enqueue_mail(conn, settings, "test", address, {})


@asynccontextmanager
async def _operator(owner_url: str) -> AsyncIterator[Any]:
    """One transaction as the owner of the schema."""
    conn = await asyncpg.connect(owner_url, timeout=10)
    try:
        async with conn.transaction():
            await conn.execute("set local role hub_owner")
            await conn.execute(q.as_operator)
            yield conn
    finally:
        await conn.close()


def plain_address(email: str) -> str:
    """As it is stored; AccountError when it is none."""
    address = address_of(email)
    if address is None:
        raise AccountError(f"{email!r} is no e-mail address.")
    return address


def strong_hash(password: str) -> str:
    why = weakness(password)
    if why is not None:
        raise AccountError(_WEAK[why])
    return hash_password(password)
