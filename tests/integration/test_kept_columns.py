"""X-04: what the hub keeps cannot be written by callers, column by column; the rest stays writable."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import asyncpg
import pytest

from hub.db.pool import Database
from hub.db.tenancy import acting_as
from hub.domain.permissions import PERMISSIONS
from hub.domain.principal import Principal
from tests.factories import Member, make_member
from tests.rows import Filled, fill


@pytest.fixture
async def filled(superuser: asyncpg.Connection) -> Filled:
    return await fill(superuser)


async def refusal(db: Database, who: Principal, statement: str, *args: Any) -> str | None:
    """The SQLSTATE of the refusal, or None; nothing is kept."""
    async with acting_as(db, who) as conn:
        await conn.execute("savepoint attempt")
        try:
            await conn.execute(statement, *args)
        except asyncpg.PostgresError as e:
            return str(e.sqlstate)
        finally:
            await conn.execute("rollback to savepoint attempt")
    return None


KEPT = {
    "messages": {
        "conv_seq": "99",
        "provider_message_id": "'wamid.forged'",
        "content": "'never said'",
        "direction": "'INBOUND'",
        "source": "'rule'",
        "occurred_at": "now() - interval '1 year'",
        "contact_id": "null",
        "client_ref": "uuidv4()",
        "campaign_id": "uuidv4()",
        "status": "'PENDING'",
        "sent_at": "now()",
        "failure_code": "'x'",
        "cause": "'{}'",
    },
    "conversations": {
        "msg_seq": "0",
        "inbound_count": "-5",
        "last_message_at": "now()",
        "last_message_preview": "'x'",
        "last_inbound_at": "now()",
        "waiting_since": "now()",
        "first_response_at": "now()",
        "cause": "'{}'",
    },
    "contacts": {"merged_into_id": "uuidv4()", "cause": "'{}'"},
    "channel_accounts": {"health": "'error'", "last_inbound_at": "now()", "last_error": "'x'"},
    "campaigns": {"started_at": "now()", "recipient_count": "9", "forecast": "'{}'"},
    "webhooks": {"state": "'paused'", "last_success_at": "now()"},
    "api_keys": {"key_prefix": "'cg_zzzzzzzz'", "last_used_at": "now()"},
    "invitations": {"accepted_at": "now()"},
    "automation_rules": {"trigger_event": "'x'", "current_version_id": "uuidv4()"},
}


async def test_X04_kept_columns_cannot_be_updated_even_by_the_owner(
    db: Database, superuser: asyncpg.Connection, filled: Filled
) -> None:
    await superuser.execute("update messages set source = 'agent', status = 'DELIVERED'")
    await superuser.execute("update conversations set msg_seq = 7, inbound_count = 3")
    accepted = [
        f"{table}.{column}"
        for table, columns in KEPT.items()
        for column, value in columns.items()
        if await refusal(db, filled.owner.principal(), f"update {table} set {column} = {value}") != "42501"
    ]
    assert accepted == []


async def test_X04_a_message_is_written_in_ones_own_name_alone(
    db: Database, superuser: asyncpg.Connection, filled: Filled
) -> None:
    colleague: Member = await make_member(superuser, filled.org)
    conversation: UUID = filled.id("conversations")
    insert = (
        "insert into messages (conversation_id, direction, content, status, {column})"
        " values ($1, 'OUTBOUND', 'x', 'PENDING', {value})"
    )
    for column, value in {
        "sender_id": f"'{colleague.id}'",
        "source": "'campaign'",
        "provider_message_id": "'wamid.future'",
        "cause": "'{}'",
    }.items():
        statement = insert.format(column=column, value=value)
        assert await refusal(db, filled.owner.principal(), statement, conversation) == "42501", column
    own = insert.format(column="sender_id", value=f"'{filled.owner.id}'")
    assert await refusal(db, filled.owner.principal(), own, conversation) is None


@pytest.mark.parametrize(
    ("before", "after", "allowed"),
    [
        ("FAILED", "PENDING", True),
        ("READ", "SENT", False),
        ("READ", "FAILED", False),
        ("SENT", "PENDING", False),
        ("SENT", "DELIVERED", False),
        ("PENDING", "SENT", False),
        ("DELIVERED", "PENDING", False),
    ],
)  # fmt: skip
async def test_MSG_02_the_status_of_a_sent_message_follows_the_provider_alone(
    db: Database, superuser: asyncpg.Connection, filled: Filled, before: str, after: str, allowed: bool
) -> None:
    await superuser.execute("update messages set source = 'agent', status = $1, failure_code = null", before)
    got = await refusal(db, filled.owner.principal(), f"update messages set status = '{after}'")
    assert got == (None if allowed else "42501")


async def test_C13_a_recorded_message_may_rise_and_never_falls(
    db: Database, superuser: asyncpg.Connection, filled: Filled
) -> None:
    who = filled.owner.principal()
    assert await refusal(db, who, "update messages set status = 'DELIVERED'") is None
    await superuser.execute("update messages set status = 'READ'")
    for status in ("SENT", "DELIVERED", "FAILED", "PENDING"):
        assert await refusal(db, who, f"update messages set status = '{status}'") == "42501", status


async def test_what_callers_may_write_stays_writable(db: Database, filled: Filled) -> None:
    who = filled.owner.principal()
    for statement in (
        "update messages set metadata = '{\"seen\": true}'",
        "update messages set deleted_at = now()",
        "update conversations set status = 'CLOSED', tags = '{vip}', priority = 'HIGH', assignee_id = null",
        "update contacts set first_name = 'New', phones = '{+201}'",
        "update channel_accounts set name = 'New', is_active = false",
        "update api_keys set revoked_at = now()",
        "update invitations set revoked_at = now()",
        "insert into conversations (contact_id, status, tags)"
        " select id, 'OPEN', '{urgent}' from contacts limit 1",
        "insert into campaigns (name, type, content, target_type, status, scheduled_at)"
        " values ('C', 'SMS', 'x', 'ALL', 'DRAFT', now())",
    ):
        assert await refusal(db, who, statement) is None, statement


async def test_X04_nobody_gives_a_permission_he_does_not_hold(db: Database, filled: Filled) -> None:
    admin = filled.owner.principal(
        role="ADMIN", permissions=frozenset(PERMISSIONS) - {"can_access_pm", "can_send_messages"}
    )
    grants = "'{\"can_send_messages\": true}'"
    for statement in (
        f"update api_keys set permissions = {grants}",
        f"insert into api_keys (name, key_prefix, permissions) values ('k', 'cg_12345678', {grants})",
        f"insert into invitations (email, permissions) values ('x@example.test', {grants})",
        "insert into invitations (email, role) values ('x@example.test', 'OWNER')",
        "update invitations set role = 'OWNER'",
    ):
        assert await refusal(db, admin, statement) == "42501", statement
    held = (
        "insert into invitations (email, role, permissions)"
        " values ('x@example.test', 'AGENT', '{\"can_access_crm\": true}')"
    )
    assert await refusal(db, admin, held) is None


async def test_X29_the_audit_log_cannot_be_written_by_its_readers(db: Database, filled: Filled) -> None:
    statement = "insert into audit_log (actor_kind, actor_id, action) values ('user', null, 'forged')"
    assert await refusal(db, filled.owner.principal(), statement) == "42501"
    assert await refusal(db, filled.owner.principal(), "update audit_log set action = 'x'") == "42501"
    assert await refusal(db, filled.owner.principal(), "delete from audit_log") == "42501"
