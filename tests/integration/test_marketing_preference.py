"""A customer who stops marketing in WhatsApp's own menu is opted out, and no message is made of it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest

from hub.db.pool import Database
from tests import whatsapp as wa
from tests.factories import make_org
from tests.whatsapp import Hook


@pytest.fixture
async def hook(db: Database, database_url: str) -> AsyncIterator[Hook]:
    async with wa.hook(db, wa.settings(database_url)) as running:
        yield running


async def test_stop_in_the_menu_opts_out(hook: Hook, superuser: asyncpg.Connection) -> None:
    org = await make_org(superuser)
    assert await hook.post(wa.messages(org, wa.text("201001383533"))) == 200
    change = wa.change(org)
    change["field"] = "user_preferences"
    change["value"]["user_preferences"] = [
        {
            "wa_id": "201001383533",
            "detail": "User requested to stop marketing messages",
            "category": "marketing_messages",
            "value": "stop",
            "timestamp": "1767225600",
        }
    ]
    for _ in range(2):
        assert await hook.post(wa.body(change)) == 200
    assert await superuser.fetchval("select opt_in_status from contacts") is False
    assert await superuser.fetchval("select count(*) from messages") == 1
    assert await superuser.fetchval("select count(*) from app.webhook_failures") == 0
