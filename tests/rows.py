"""One row of every table for one organization, so that generated tests can ask of each: who sees it?"""

from __future__ import annotations

from typing import Any
from uuid import UUID

import asyncpg
import orjson

from tests.factories import Member, Org, make_member, make_org


class Filled:
    """An organization with an owner and one row in every public table. ``rows[table]`` is that row."""

    def __init__(self, org: Org, owner: Member) -> None:
        self.org = org
        self.owner = owner
        self.rows: dict[str, dict[str, Any]] = {}

    def id(self, table: str) -> UUID:
        key: UUID = self.rows[table]["id"]
        return key


#: What each table needs beyond organization_id; a value that is a function is given what was filled before
#: it. In an order in which references exist.
ROWS: dict[str, dict[str, Any]] = {
    "teams": {"name": "Sales"},
    "team_members": {"team_id": lambda f: f.id("teams"), "user_id": lambda f: f.owner.id},
    "invitations": {"email": "new@example.test"},
    "api_keys": {"name": "Key", "key_prefix": "cg_abcdefgh"},
    "subscriptions": {"plan": "pro"},
    "audit_log": {"actor_kind": "user", "action": "test"},
    "companies": {"name": "Acme"},
    "contacts": {"first_name": "Mona"},
    "contact_identities": {
        "contact_id": lambda f: f.id("contacts"), "scheme": "wa_id", "value": "201001383533",
    },
    "business_hours": {"name": "Office"},
    "sla_policies": {"name": "Fast"},
    "conversations": {
        "contact_id": lambda f: f.id("contacts"), "channel_account_id": lambda f: f.org.account_id,
    },
    "messages": {
        "conversation_id": lambda f: f.id("conversations"), "direction": "OUTBOUND", "content": "Hi",
        "status": "SENT",
    },
    "conversation_reads": {
        "user_id": lambda f: f.owner.id, "conversation_id": lambda f: f.id("conversations"),
    },
    "drafts": {
        "user_id": lambda f: f.owner.id, "conversation_id": lambda f: f.id("conversations"), "content": "…",
    },
    "media_files": {"message_id": lambda f: f.id("messages")},
    "suppressions": {"scheme": "wa_id", "value": "1"},
    "pipelines": {"name": "Sales"},
    "deals": {"title": "Deal", "contact_id": lambda f: f.id("contacts")},
    "projects": {"name": "Project"},
    "milestones": {"project_id": lambda f: f.id("projects"), "name": "Milestone"},
    "tasks": {"title": "Task", "contact_id": lambda f: f.id("contacts")},
    "notes": {"contact_id": lambda f: f.id("contacts"), "content": "Note"},
    "templates": {"name": "welcome"},
    "bot_flows": {"name": "Flow"},
    "flow_versions": {"flow_id": lambda f: f.id("bot_flows"), "number": 1, "nodes": [], "edges": []},
    "bot_sessions": {
        "flow_id": lambda f: f.id("bot_flows"), "flow_version_id": lambda f: f.id("flow_versions"),
    },
    "bot_session_steps": {"session_id": lambda f: f.id("bot_sessions"), "step": 1, "node_id": "n1"},
    "automation_rules": {"name": "Rule", "trigger_type": "message.received"},
    "automation_rule_versions": {
        "rule_id": lambda f: f.id("automation_rules"), "number": 1, "trigger_event": "message.received",
        "conditions": [], "actions": [],
    },
    "automation_runs": {
        "rule_id": lambda f: f.id("automation_rules"),
        "rule_version_id": lambda f: f.id("automation_rule_versions"),
        "event_seq": 1, "action_index": 0, "outcome": "done",
    },
    "campaigns": {"name": "Launch", "type": "SMS"},
    "campaign_recipients": {
        "campaign_id": lambda f: f.id("campaigns"), "position": 1, "contact_id": lambda f: f.id("contacts"),
    },
    "webhooks": {"url": "https://example.test/hook"},
    "webhook_deliveries": {
        "webhook_id": lambda f: f.id("webhooks"), "event_seq": 1, "event_name": "contact.created",
    },
    "custom_field_definitions": {"entity": "contact", "key": "size", "label": "Size", "field_type": "text"},
    "saved_views": {"entity": "contact", "name": "Mine"},
    "imports": {"entity": "contact"},
    "import_rows": {"import_id": lambda f: f.id("imports"), "line": 1, "outcome": "imported"},
    "dashboard_widgets": {"user_id": lambda f: f.owner.id, "widget_type": "messages"},
}  # fmt: skip


def values_for(table: str, filled: Filled) -> dict[str, Any]:
    """Column values of one row of ``table`` in the organization of ``filled``."""
    values = {k: v(filled) if callable(v) else v for k, v in ROWS[table].items()}
    return {"organization_id": filled.org.id, **values}


def encoded(value: Any) -> Any:
    return orjson.dumps(value).decode() if isinstance(value, (dict, list)) else value


def insert_statement(table: str, values: dict[str, Any]) -> tuple[str, list[Any]]:
    names, marks = ", ".join(values), ", ".join(f"${i}" for i in range(1, len(values) + 1))
    return f"insert into public.{table} ({names}) values ({marks})", [encoded(v) for v in values.values()]


async def fill(conn: asyncpg.Connection) -> Filled:
    """A new organization with one row in every table (superuser's connection)."""
    org = await make_org(conn)
    filled = Filled(org, await make_member(conn, org, "OWNER"))
    for table in ROWS:
        text, args = insert_statement(table, values_for(table, filled))
        filled.rows[table] = dict(await conn.fetchrow(text + " returning *", *args))
    return filled
