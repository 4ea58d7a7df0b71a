"""The Postman collection of the API document's 21 folders, made of the route tables and the schema.

    hub postman docs/api/ConnectGain_API.postman_collection.json

Its requests run one after another against a fresh hub: what one makes, the next ones use through the
collection's variables.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

import msgspec

from hub import __version__
from hub.channels.ingress import webhooks
from hub.functions.billing import WEBHOOK_PATH
from hub.functions.router import FUNCTIONS, Function
from hub.openapi import summary_of
from hub.rest.schema import Schema

_SCHEMA: Final = "https://schema.getpostman.com/json/collection/v2.1.0/collection.json"
_FUNCTIONS: Final = (
    "Message Sending", "Search & Import", "External APIs", "Organization & Auth", "Payment & Subscription",
    "Webhooks",
)  # fmt: skip
_ORG: Final = "{{organization_id}}"
_NOBODY: Final = "00000000-0000-4000-8000-000000000000"


class _Folder(msgspec.Struct, frozen=True):
    """``samples`` are the document's own bodies of a new row, by table; the first table's change is
    ``change``."""

    name: str
    samples: dict[str, dict[str, Any]]
    change: dict[str, Any]
    list: str = ""


_TABLES: Final = (
    _Folder("Contacts", {"contacts": {
        "organization_id": _ORG, "first_name": "John", "last_name": "Doe", "phones": ["+1234567890"],
        "emails": ["john@example.com"], "tags": ["customer", "vip"],
        "custom_fields": {"company": "Acme Inc", "position": "Manager"}, "opt_in_status": True,
    }}, {"first_name": "Jane", "tags": ["customer", "vip", "priority"]}),
    _Folder("Companies", {"companies": {
        "organization_id": _ORG, "name": "Acme Inc", "domain": "acme.com", "email": "contact@acme.com",
        "phone": "+1234567890", "city": "New York", "country": "US", "industry": "Technology",
        "description": "Company description",
    }}, {"city": "Cairo"}),
    _Folder("Deals", {"deals": {
        "organization_id": _ORG, "contact_id": "{{contact_id}}", "title": "New Lead - John Doe",
        "stage": "lead", "value": 5000, "probability": 10, "expected_close_date": "2025-02-15",
        "custom_fields": {"source": "website", "priority": "high"},
    }}, {"stage": "qualified", "probability": 50, "value": 7500},
        "select=*,contacts(*),profiles!deals_owner_id_fkey(*)&"),
    _Folder("Pipelines", {"pipelines": {
        "organization_id": _ORG, "name": "Sales Pipeline",
        "stages": '[{"id":"lead","name":"Lead"},{"id":"qualified","name":"Qualified"}]', "is_default": False,
    }}, {"name": "Pipeline"}),
    _Folder("Conversations", {"conversations": {
        "organization_id": _ORG, "contact_id": "{{contact_id}}", "status": "OPEN",
        "tags": ["urgent", "customer"],
    }}, {"assignee_id": None},
        "select=*,contacts(*),channel_accounts(*),profiles!conversations_assignee_id_fkey(*)&"),
    _Folder("Messages", {"messages": {
        "organization_id": _ORG, "conversation_id": "{{conversation_id}}", "contact_id": "{{contact_id}}",
        "direction": "OUTBOUND", "content": "Hello! This is a test message.", "status": "SENT",
        "message_type": "text", "metadata": {"sender_name": "AIBot"},
    }}, {"metadata": {"sender_name": "Support"}}),
    _Folder("Tasks", {"tasks": {
        "organization_id": _ORG, "contact_id": "{{contact_id}}", "title": "Follow up with customer",
        "description": "Call to discuss pricing", "due_date": "2025-01-30T12:00:00Z", "completed": False,
        "priority": "HIGH",
    }}, {"completed": True}),
    _Folder("Templates", {"templates": {
        "organization_id": _ORG, "name": "Welcome Message",
        "components": [{"type": "BODY", "text": "Hello {{name}}, welcome to our service!"}],
        "status": "APPROVED", "category": "UTILITY",
    }}, {"category": "MARKETING"}),
    _Folder("Bot Flows", {"bot_flows": {
        "organization_id": _ORG, "name": "Customer Support Flow",
        "description": "Automated customer support bot",
        "nodes": [], "edges": [], "status": "DRAFT", "version": 1,
    }}, {"description": "Answers at night"}),
    _Folder("Automation Rules", {"automation_rules": {
        "organization_id": _ORG, "name": "Auto Assign New Messages", "trigger_type": "MESSAGE_CREATED",
        "conditions": [{"field": "direction", "operator": "equals", "value": "INBOUND"}],
        "actions": [{"type": "ASSIGN_CONVERSATION", "assignee_id": "00000000-0000-4000-8000-000000000000"}],
        "is_active": True,
    }}, {"is_active": False}),
    _Folder("Campaigns", {"campaigns": {
        "organization_id": _ORG, "name": "New Product Launch", "type": "SMS",
        "content": "Check out our new product!", "target_type": "ALL", "status": "DRAFT",
        "scheduled_at": "2025-02-01T10:00:00Z",
    }}, {"name": "Launch"}),
    _Folder("Notes", {"notes": {
        "organization_id": _ORG, "contact_id": "{{contact_id}}",
        "content": "Customer called to inquire about pricing",
    }}, {"content": "Called again"}),
    _Folder("Channel Accounts", {"channel_accounts": {
        "organization_id": _ORG, "name": "WhatsApp Business", "type": "WHATSAPP_CLOUD", "is_active": True,
        "settings": {"access_token": "token", "phone_number_id": "phone_id"},
    }}, {"name": "WhatsApp"}),
    _Folder("Projects", {"projects": {
        "organization_id": _ORG, "name": "New Project", "description": "Project description",
        "status": "PLANNING", "start_date": "2025-02-01", "end_date": "2025-03-01",
    }, "milestones": {"project_id": "{{project_id}}", "name": "First milestone"}}, {"status": "IN_PROGRESS"}),
    _Folder("Organizations & Users", {"organizations": {}, "profiles": {}}, {"first_name": "John"}),
)  # fmt: skip

#: Bodies of functions, from the document, and the statuses that a run may see besides 200.
_SAMPLES: Final[dict[str, tuple[dict[str, Any], tuple[int, ...]]]] = {
    "insert-message": ({"phone": "201001383533", "content": "Hello from external system!",
                        "direction": "outgoing", "status": "sent", "message_type": "text", "metadata": {}},
                       (201,)),
    # without a connected account, or without a token in it, nothing can be sent
    "whatsapp-cloud-send": ({"to": "201001383533", "message": "Hello via WhatsApp Cloud!"},
                            (201, 202, 404, 409, 422)),
    "generate-api-key": ({"name": "External System Integration", "expires_in_days": 365,
                          "permissions": {"can_send_messages": True, "can_read_messages": False}},
                         (201, 403)),  # a key makes no keys: sign in
    "list-api-keys": ({}, (403,)),
    "revoke-api-key": ({"id": _NOBODY}, (403,)),
    "rotate-api-key": ({"id": _NOBODY, "overlap_hours": 24}, (403,)),
    "create-organization": ({"name": "Second Organization"}, (201, 401)),
    "switch-organization": ({"organizationId": _ORG}, (401, 403)),
    "leave-organization": ({}, (401,)),
    "send-invitation-email": ({"email": "user@example.com", "role": "AGENT"}, (409,)),
    "resend-invitation": ({"id": _NOBODY}, (404,)),
    "revoke-invitation": ({"id": _NOBODY}, (404,)),
    "check-invitation": ({"token": "invitation_token"}, (404,)),
    "accept-invitation": ({"token": "invitation_token", "email": "user@example.com",
                           "password": "secure_password", "first_name": "John", "last_name": "Doe"}, (404,)),
    "update-member": ({"user_id": _NOBODY, "role": "AGENT"}, (404,)),
    # owners and administrators pay, keys do not
    "create-checkout": ({"plan": "pro"}, (403, 503)),
    "customer-portal": ({}, (403, 404, 503)),
    "check-subscription": ({}, (403, 503)),
    "audit-log": ({}, (403,)),
    "batch": ({"operations": [
        {"id": "c", "method": "POST", "path": "contacts?select=id", "prefer": "return=representation",
         "body": {"first_name": "Mia"}},
        {"method": "POST", "path": "deals",
         "body": {"title": "New", "contact_id": {"$ref": "c.0.id"}}}]}, ()),
    "upload-media": ({}, (400, 413, 415, 422)),  # choose a file
    "media/{id}": ({}, (404,)),
    "webhook-failures": ({}, (403,)),
}  # fmt: skip


def collection(schema: Schema, base_url: str) -> dict[str, Any]:
    """The whole document."""
    folders = [{"name": f"Edge Functions - {name}", "item": _functions(name)} for name in _FUNCTIONS]
    folders += [{"name": f"REST API - {folder.name}", "item": _rows(schema, folder)} for folder in _TABLES]
    variables = {
        "url": base_url, "anon_key": "", "api_key": "", "organization_id": "",
        **{_variable(t): "" for folder in _TABLES for t in folder.samples},
        **{f"other_{_variable(t)}": "" for folder in _TABLES for t in folder.samples},
    }  # fmt: skip
    return {
        "info": {
            "name": "ConnectGain API", "schema": _SCHEMA, "version": __version__,
            "description": "Set the variables url, anon_key, api_key (an organization's cg_ key with all "
            "permissions) and organization_id; `hub keys` prints them.",
        },
        "auth": {"type": "bearer", "bearer": [{"key": "token", "value": "{{api_key}}", "type": "string"}]},
        "item": folders,
        "variable": [{"key": key, "value": value} for key, value in variables.items()],
    }  # fmt: skip


def text(schema: Schema, base_url: str) -> str:
    return json.dumps(collection(schema, base_url), indent=1, ensure_ascii=False) + "\n"


def _functions(folder: str) -> list[dict[str, Any]]:
    if folder == "Webhooks":
        return [
            _item(f"{path.rpartition('/')[2]} (unsigned: refused)", "POST", path, {}, (401, 403, 503), {})
            for path in sorted((*webhooks(), WEBHOOK_PATH))
        ]
    return [_function(name, function) for name, function in FUNCTIONS.items() if function.folder == folder]


def _function(name: str, function: Function) -> dict[str, Any]:
    body, also = _SAMPLES.get(name, ({}, ()))
    path = re.sub(r"\{\w+\}", "00000000-0000-4000-8000-000000000000", name)
    method = function.methods[0]
    item = _item(name, method, f"/functions/v1/{path}", body if method == "POST" else None, (200, *also), {})
    item["request"]["description"] = summary_of(function.handler)
    return item


def _variable(table: str) -> str:
    singular = table[:-3] + "y" if table.endswith("ies") else table.removesuffix("s")
    return f"{singular}_id"


def _rows(schema: Schema, folder: _Folder) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    first = next(iter(folder.samples))
    for table, sample in folder.samples.items():
        title = table.replace("_", " ").title()
        place, variable = f"/rest/v1/{table}", _variable(table)
        many = {"Prefer": "return=representation"}
        order = "order=last_message_at.desc" if table == "conversations" else "order=created_at.desc"
        columns = schema.tables[table].columns
        mine = f"organization_id=eq.{_ORG}&" if "organization_id" in columns else ""
        items.append(
            _item(f"List {title}", "GET", f"{place}?{folder.list}{mine}{order}&limit=100", None, (200,), {})
        )
        if sample:
            for also in ("", "other_"):
                name = f"Create {title} Row" + (" (to delete)" if also else "")
                body = {**sample, "status": "CLOSED"} if also and table == "conversations" else sample
                item = _item(name, "POST", place, body, (201,), many)
                item["event"].append(_script(
                    f'pm.collectionVariables.set("{also}{variable}", pm.response.json()[0].id);'
                ))  # fmt: skip
                items.append(item)
            one = f"{place}?id=eq.{{{{{variable}}}}}"
            items.append(_item(f"Get Single {title} Row", "GET", f"{one}&select=*", None, (200,), {}))
            if table == first:
                items.append(_item(f"Update {title} Row", "PATCH", one, folder.change, (200,), many))
            items.append(
                _item(
                    f"Delete {title} Row",
                    "DELETE",
                    f"{place}?id=eq.{{{{other_{variable}}}}}",
                    None,
                    (204,),
                    {},
                )
            )
        elif table == "profiles":
            nobody = f"{place}?id=eq.00000000-0000-4000-8000-000000000000"
            items.append(_item("Update Profile", "PATCH", nobody, folder.change, (200,), many))
        if table == "contacts":
            items.append(_item(
                "Search Contacts", "GET", f"{place}?or=(first_name.ilike.*john*,last_name.ilike.*doe*)", None,
                (200,), {},
            ))  # fmt: skip
    return items


def _script(*lines: str) -> dict[str, Any]:
    return {"listen": "test", "script": {"type": "text/javascript", "exec": list(lines)}}


def _item(
    name: str, method: str, path: str, body: dict[str, Any] | None, statuses: tuple[int, ...],
    headers: dict[str, str],
) -> dict[str, Any]:  # fmt: skip
    address, _, query = path.partition("?")
    given = {"apikey": "{{anon_key}}", **headers}
    request: dict[str, Any] = {
        "method": method,
        "url": {
            "raw": "{{url}}" + path,
            "host": ["{{url}}"],
            "path": address.strip("/").split("/"),
            "query": [
                {"key": pair.partition("=")[0], "value": pair.partition("=")[2]}
                for pair in query.split("&")
                if pair
            ],
        },
    }
    if body is not None:
        given["Content-Type"] = "application/json"
        raw = json.dumps(body, indent=2, ensure_ascii=False)
        request["body"] = {"mode": "raw", "raw": raw, "options": {"raw": {"language": "json"}}}
    request["header"] = [{"key": key, "value": value} for key, value in given.items()]
    allowed = ", ".join(map(str, statuses))
    check = f'pm.test("{name}", () => pm.expect([{allowed}]).to.include(pm.response.code));'
    return {"name": name, "request": request, "event": [_script(check)]}
