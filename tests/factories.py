"""Rows for tests. Each function says the state it reaches:
``await make_conversation(conn, org, closed=True)``.

All take the superuser's connection: arranging is not what a test is about.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import orjson

from hub.auth.secrets import seal_secret
from hub.domain.permissions import PERMISSIONS, ROLE_DEFAULTS, Role
from hub.domain.principal import Principal
from hub.settings import Settings

_numbers = count(1)


@dataclass(frozen=True)
class Servers:
    """Addresses of one test's database: the product's login, and the superuser's."""

    database_url: str
    migrate_url: str


@dataclass(frozen=True)
class Org:
    id: UUID
    account_id: UUID
    phone_number_id: str


@dataclass(frozen=True)
class Member:
    id: UUID
    organization_id: UUID
    email: str
    role: Role

    def principal(self, **overrides: Any) -> Principal:
        fields: dict[str, Any] = {
            "kind": "user",
            "organization_id": self.organization_id,
            "user_id": self.id,
            "role": self.role,
            "permissions": ROLE_DEFAULTS[self.role],
        }
        return Principal(**{**fields, **overrides})


async def make_org(conn: asyncpg.Connection, name: str | None = None) -> Org:
    """An organization with one WhatsApp Cloud account that webhooks are routed to."""
    n = next(_numbers)
    org = await conn.fetchval("insert into organizations (name) values ($1) returning id", name or f"Org {n}")
    phone_number_id = f"1099{n:05d}{uuid4().int % 10**6:06d}"
    account = await conn.fetchval(
        "insert into channel_accounts (organization_id, name, type, settings)"
        " values ($1, $2, 'WHATSAPP_CLOUD', $3) returning id",
        org,
        "WhatsApp",
        orjson.dumps({"phone_number_id": phone_number_id, "waba_id": f"2{n:08d}"}).decode(),
    )
    return Org(org, account, phone_number_id)


async def make_member(
    conn: asyncpg.Connection, org: Org, role: Role = "AGENT", password_hash: str | None = None, **columns: Any
) -> Member:
    """A user who is a member with the role's default permissions."""
    n = next(_numbers)
    email = f"user{n}@example.test"
    user = await conn.fetchval(
        "insert into auth.users (email, encrypted_password, email_confirmed_at)"
        " values ($1, $2, now()) returning id",
        email,
        password_hash,
    )
    values: dict[str, Any] = {
        "organization_id": org.id,
        "user_id": user,
        "role": role,
        "first_name": f"User{n}",
        "last_name": "Test",
        "email": email,
        **{p: p in ROLE_DEFAULTS[role] for p in PERMISSIONS},
        **columns,
    }
    await insert(conn, "memberships", values)
    return Member(user, org.id, email, role)


async def make_contact(conn: asyncpg.Connection, org: Org, wa_id: str | None = None, **columns: Any) -> UUID:
    """A contact with a WhatsApp identity."""
    n = next(_numbers)
    wa_id = wa_id or f"2010{n:08d}"
    contact = await insert(
        conn,
        "contacts",
        {
            "organization_id": org.id,
            "first_name": f"Contact{n}",
            "last_name": "Test",
            "phones": [f"+{wa_id}"],
            **columns,
        },
    )
    await insert(
        conn,
        "contact_identities",
        {"organization_id": org.id, "contact_id": contact, "scheme": "wa_id", "value": wa_id},
    )
    return contact


async def make_conversation(
    conn: asyncpg.Connection, org: Org, contact_id: UUID | None = None, closed: bool = False, **columns: Any
) -> UUID:
    """A conversation on the organization's WhatsApp account, open unless told."""
    contact_id = contact_id or await make_contact(conn, org)
    return await insert(
        conn,
        "conversations",
        {
            "organization_id": org.id,
            "contact_id": contact_id,
            "channel_account_id": org.account_id,
            "status": "CLOSED" if closed else "OPEN",
            **columns,
        },
    )


async def make_message(
    conn: asyncpg.Connection, org: Org, conversation_id: UUID, content: str = "Hello", **columns: Any
) -> UUID:
    """An inbound message, unless told."""
    values = {"organization_id": org.id, "conversation_id": conversation_id, "content": content}
    return await insert(
        conn,
        "messages",
        {**values, "direction": "INBOUND", "status": "RECEIVED", "source": "customer", **columns},
    )


async def insert(conn: asyncpg.Connection, table: str, values: dict[str, Any]) -> UUID:
    """Insert one row and return its id (or its user's)."""
    key = "user_id" if table in ("memberships", "conversation_reads") else "id"
    names = ", ".join(values)
    marks = ", ".join(f"${i}" for i in range(1, len(values) + 1))
    args = [orjson.dumps(v).decode() if isinstance(v, dict) else v for v in values.values()]
    row: UUID = await conn.fetchval(f"insert into {table} ({names}) values ({marks}) returning {key}", *args)
    return row


def ingest_item(
    org: Org, wa_id: str, key: str | None = None, content: str = "Hi", **fields: Any
) -> dict[str, Any]:
    """One item as app.ingest_many takes it."""
    return {
        "n": 0,
        "organization_id": str(org.id),
        "channel_account_id": str(org.account_id),
        "dedupe_key": key or f"wamid.{uuid4().hex}",
        "schemes": ["wa_id"],
        "ids": [wa_id],
        "name": "Mona Hassan",
        "direction": "INBOUND",
        "content": content,
        "message_type": "text",
        "metadata": {},
        "occurred_at": datetime.now(UTC).isoformat(),
        "reply_to": None,
        "source": "customer",
        **fields,
    }


async def until(
    predicate: Callable[[], Any] | Callable[[], Awaitable[Any]],
    timeout_s: float = 10.0,
    what: str = "the fact",
) -> Any:
    """Wait for a fact and return it. Raises TimeoutError naming it; nothing is asserted about how long it
    takes."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = predicate()
        if inspect.isawaitable(value):
            value = await value
        if value:
            return value
        if time.monotonic() > deadline:
            raise TimeoutError(f"Waited {timeout_s:g} s for {what}")
        await asyncio.sleep(0.02)


async def keep_secret(conn: asyncpg.Connection, settings: Settings, org: Org, name: str, value: str) -> None:
    """Give the organization's account a sealed setting of its own."""
    sealed = seal_secret(
        settings, value, table="channel_accounts", column=name, organization_id=org.id, row_id=org.account_id
    )
    await conn.execute(
        "insert into app.secrets (organization_id, owner_table, owner_id, name, ciphertext)"
        " values ($1, 'channel_accounts', $2, $3, $4)",
        org.id,
        org.account_id,
        name,
        sealed,
    )
