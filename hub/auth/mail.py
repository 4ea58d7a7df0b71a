"""Writing a mail down for the workers to send, in the transaction of what it tells of.

    async with acting_as(db, principal) as conn:
        …
        await enqueue_mail(conn, settings, "invitation", email, {"link": …, "organization": …, "inviter": …},
                           organization_id=principal.organization_id, key=f"invitation:{invitation_id}")

What it says is sealed for its row: it holds links and codes that sign people in. Without a mail server the
row waits, for the operator to read (`hub mail`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol
from uuid import UUID, uuid4

import msgspec

from hub.auth.secrets import open_secret, seal_secret
from hub.domain.mails import Template
from hub.settings import Settings
from sql import q


class _Connection(Protocol):
    async def execute(self, query: str, *args: Any) -> str: ...


_values = msgspec.json.Decoder(dict[str, str])


def seal_mail(
    settings: Settings, mail_id: UUID, organization_id: UUID | None, values: Mapping[str, str]
) -> str:
    """What app.mail_outbox.payload holds."""
    return seal_secret(
        settings,
        msgspec.json.encode(dict(values)).decode(),
        table="mail_outbox",
        column="payload",
        organization_id=organization_id,
        row_id=mail_id,
    )


def open_mail(
    settings: Settings, mail_id: UUID, organization_id: UUID | None, payload: str
) -> dict[str, str]:
    """The values of a mail. Raises CannotOpen."""
    opened = open_secret(
        settings,
        payload,
        table="mail_outbox",
        column="payload",
        organization_id=organization_id,
        row_id=mail_id,
    )
    return _values.decode(opened.reveal())


async def enqueue_mail(
    conn: _Connection,
    settings: Settings,
    template: Template,
    recipient: str,
    values: Mapping[str, str],
    *,
    organization_id: UUID | None = None,
    key: str | None = None,
) -> UUID:
    """Sent when the transaction on ``conn`` commits, within a second or so; `address` is filled in.

    ``key``: a mail that still waits under it is replaced. Inside a member's transaction only invitations of
    his organization are taken, from those who may invite (InsufficientPrivilegeError otherwise); outside of
    one, any mail.
    """
    mail_id = uuid4()
    sealed = seal_mail(settings, mail_id, organization_id, {"address": recipient, **values})
    await conn.execute(q.enqueue_mail, mail_id, organization_id, recipient, template, sealed, None, key)
    return mail_id


async def drop_mail(conn: _Connection, organization_id: UUID | None, key: str) -> None:
    """Take back a mail that still waits, inside the transaction on ``conn``: a revoked invitation's."""
    await conn.execute(q.drop_mail, organization_id, key)
