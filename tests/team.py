"""What tests of the team share: the link of an invitation's mail."""

from __future__ import annotations

import asyncpg

from hub.auth.mail import open_mail
from tests.server import Hub


async def newest_link(hub: Hub, conn: asyncpg.Connection, email: str) -> str:
    """The token in the newest mail that waits for ``email``."""
    row = await conn.fetchrow(
        "select id, organization_id, payload from app.mail_outbox where recipient = $1 and template ="
        " 'invitation' order by created_at desc, id desc limit 1",
        email,
    )
    values = open_mail(hub.settings, row["id"], row["organization_id"], row["payload"])
    base, _, token = values["link"].partition("#token=")
    assert base == f"{hub.settings.public_base_url}/invitation"
    return token
