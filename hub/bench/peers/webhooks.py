"""WhatsApp webhooks on bare aiohttp, as one would write them: no work at all, one function call a request, or
a transaction of separate statements.

Same signature check, same decoding, same schema and login as the product's; no batching, no spool, nothing
published.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import asyncpg
import msgspec
import uvloop
from aiohttp import web

from hub.db.tenancy import entering
from hub.domain.principal import Principal

_decode = msgspec.json.Decoder().decode
#: Enough that nobody waits for a connection while a core is free.
CONNECTIONS = 16


class Found:
    """One message of a webhook, and whose it is."""

    def __init__(self, value: dict[str, Any], organization: UUID, account: UUID) -> None:
        message = value["messages"][0]
        self.organization, self.account = organization, account
        self.id: str = message["id"]
        self.sender: str = message["from"]
        self.name: str = value["contacts"][0]["profile"]["name"]
        self.text: str = message["text"]["body"]
        self.at = datetime.fromtimestamp(int(message["timestamp"]), UTC)


Store = Callable[["asyncpg.Connection[asyncpg.Record]", Found], Awaitable[None]]


async def call_function(conn: asyncpg.Connection[asyncpg.Record], found: Found) -> None:
    item = {
        "n": 0, "organization_id": str(found.organization), "channel_account_id": str(found.account),
        "dedupe_key": found.id, "schemes": ["wa_id"], "ids": [found.sender], "name": found.name,
        "direction": "INBOUND", "content": found.text, "message_type": "text", "metadata": {},
        "occurred_at": found.at.isoformat(), "reply_to": None, "source": "customer",
    }  # fmt: skip
    await conn.fetch("select * from app.ingest_many($1)", json.dumps([item]))


async def run_statements(conn: asyncpg.Connection[asyncpg.Record], found: Found) -> None:
    """Look for the contact, else make it; the same for the conversation; insert the message."""
    principal = Principal(kind="service", organization_id=found.organization)
    await conn.execute(entering(principal))
    try:
        await _statements(conn, found)
    except BaseException:
        await conn.execute("rollback")
        raise
    await conn.execute("commit")


async def _statements(conn: asyncpg.Connection[asyncpg.Record], found: Found) -> None:
    org = found.organization
    known = await conn.fetchval(
        "select id from messages where organization_id = $1 and channel_account_id = $2"
        " and provider_message_id = $3",
        org, found.account, found.id,
    )  # fmt: skip
    if known is not None:
        return
    contact = await conn.fetchval(
        "select contact_id from contact_identities"
        " where organization_id = $1 and scheme = 'wa_id' and value = $2",
        org, found.sender,
    )  # fmt: skip
    if contact is None:
        contact = await conn.fetchval(
            "insert into contacts (organization_id, first_name, phones, source)"
            " values ($1, $2, array['+' || $3::text], 'inbound') returning id",
            org, found.name, found.sender,
        )  # fmt: skip
        await conn.execute(
            "insert into contact_identities (organization_id, contact_id, scheme, value, display_name)"
            " values ($1, $2, 'wa_id', $3, $4) on conflict (organization_id, scheme, value) do nothing",
            org, contact, found.sender, found.name,
        )  # fmt: skip
    conversation = await conn.fetchval(
        "select id from conversations where organization_id = $1 and channel_account_id = $2"
        " and contact_id = $3 and status = 'OPEN'",
        org, found.account, contact,
    )  # fmt: skip
    if conversation is None:
        conversation = await conn.fetchval(
            "insert into conversations (organization_id, channel_account_id, contact_id)"
            " values ($1, $2, $3) returning id",
            org, found.account, contact,
        )  # fmt: skip
    await conn.execute(
        "insert into messages (organization_id, conversation_id, contact_id, channel_account_id, direction,"
        " content, status, message_type, provider_message_id, conv_seq, occurred_at, source)"
        " values ($1, $2, $3, $4, 'INBOUND', $5, 'RECEIVED', 'text', $6, 0, $7, 'customer')"
        " on conflict (organization_id, channel_account_id, provider_message_id) do nothing",
        org, conversation, contact, found.account, found.text, found.id, found.at,
    )  # fmt: skip


def main() -> None:
    uvloop.install()
    options = json.loads(sys.argv[1])
    secret = options["secret"].encode()
    store: Store | None = {"no-op": None, "function": call_function, "statements": run_statements}[
        options["mode"]
    ]
    accounts = {number: (UUID(org), UUID(account)) for number, org, account in options["accounts"]}
    pools: list[asyncpg.Pool[asyncpg.Record]] = []

    async def no_op(_: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def handle(request: web.Request) -> web.Response:
        body = await request.read()
        signature = hmac.new(secret, body, hashlib.sha256).hexdigest()
        if not hmac.compare_digest(f"sha256={signature}", request.headers.get("X-Hub-Signature-256", "")):
            return web.Response(status=401)
        assert store is not None
        for entry in _decode(body)["entry"]:
            for change in entry["changes"]:
                value = change["value"]
                found = Found(value, *accounts[value["metadata"]["phone_number_id"]])
                async with pools[0].acquire() as conn:
                    await store(conn, found)
        return web.Response(text="ok")

    async def open_pool(app: web.Application) -> None:
        if store is not None:
            pools.append(
                await asyncpg.create_pool(options["dsn"], min_size=CONNECTIONS, max_size=CONNECTIONS)
            )

    app = web.Application()
    app.on_startup.append(open_pool)
    app.router.add_get("/", no_op)
    app.router.add_post("/{tail:.*}", handle if store else no_op)
    web.run_app(app, host="127.0.0.1", port=options["port"], access_log=None, print=None)


if __name__ == "__main__":
    main()
