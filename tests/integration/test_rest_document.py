"""The API document's tables with its own bodies (REST-01, REST-02, T-*), and what it promises of single
columns (C-01 to C-35)."""

from __future__ import annotations

import re
from typing import Any, Final
from uuid import uuid4

import asyncpg
import jsonschema_rs
import pytest

from hub.domain.permissions import RULES, rule
from hub.domain.rule_actions import ACTIONS
from hub.resources import CATALOG
from hub.rest.sealed import MASK
from tests.factories import Member, Org, insert, make_contact, make_conversation
from tests.rows import Filled, fill
from tests.server import Hub

REPRESENT = {"Prefer": "return=representation"}
STAMPS = ("id", "organization_id", "created_at", "updated_at")
#: Row of the requirements, table, the document's body, its fields beside STAMPS, what is changed afterwards.
DOCUMENT: Final[list[tuple[str, str, dict[str, Any], str, dict[str, Any]]]] = [
    ("T-CON", "contacts", {
        "first_name": "John", "last_name": "Doe", "phones": ["+1234567890"], "emails": ["john@example.com"],
        "tags": ["customer", "vip"], "custom_fields": {"company": "Acme Inc", "position": "Manager"},
        "opt_in_status": True,
     }, "first_name last_name phones emails tags custom_fields opt_in_status company_id assignee_id",
     {"first_name": "Jane", "tags": ["customer", "vip", "priority"]}),
    ("T-COM", "companies", {
        "name": "Acme Inc", "domain": "acme.com", "email": "contact@acme.com", "phone": "+1234567890",
        "city": "New York", "country": "US", "industry": "Technology", "description": "Company description",
     }, "name domain email phone city country industry description employee_count annual_revenue",
     {"employee_count": 12, "annual_revenue": 1000.5}),
    ("T-DEA", "deals", {
        "contact_id": "{contact}", "pipeline_id": "{pipeline}", "title": "New Lead - John Doe",
        "stage": "lead", "value": 5000, "probability": 10, "expected_close_date": "2025-02-15",
        "custom_fields": {"source": "website", "priority": "high"},
     }, "contact_id pipeline_id owner_id title stage value probability expected_close_date tags"
     " custom_fields",
     {"stage": "qualified", "probability": 50, "value": 7500}),
    ("T-PIP", "pipelines", {
        "name": "Sales Pipeline", "is_default": False,
        "stages": '[{"id":"lead","name":"Lead"},{"id":"qualified","name":"Qualified"}]',
     }, "name stages is_default", {"name": "Sales"}),
    ("T-CNV", "conversations", {
        "contact_id": "{contact}", "channel_account_id": "{channel}", "status": "OPEN",
        "tags": ["urgent", "customer"],
     }, "contact_id channel_account_id assignee_id status tags last_message_at", {"assignee_id": "{user}"}),
    ("T-MSG", "messages", {
        "conversation_id": "{conversation}", "contact_id": "{other_contact}", "direction": "OUTBOUND",
        "content": "Hello! This is a test message.", "status": "SENT", "message_type": "text",
        "metadata": {"sender_name": "AIBot"},
     }, "conversation_id contact_id sender_id direction content status message_type metadata",
     {"status": "DELIVERED"}),
    ("T-TAS", "tasks", {
        "contact_id": "{contact}", "title": "Follow up with customer",
        "description": "Call to discuss pricing", "due_date": "2025-01-30T12:00:00Z", "completed": False,
        "priority": "HIGH",
     }, "contact_id deal_id assignee_id title description due_date completed priority", {"completed": True}),
    ("T-TPL", "templates", {
        "name": "Welcome Message", "status": "APPROVED", "category": "UTILITY",
        "components": [{"type": "BODY", "text": "Hello {{name}}, welcome to our service!"}],
     }, "name components status category", {"status": "REJECTED"}),
    ("T-BOT", "bot_flows", {
        "name": "Customer Support Flow", "description": "Automated customer support bot", "nodes": [],
        "edges": [], "status": "DRAFT", "version": 1,
     }, "name description nodes edges status version", {"description": "Bot"}),
    ("T-AUT", "automation_rules", {
        "name": "Auto Assign New Messages", "trigger_type": "MESSAGE_CREATED",
        "conditions": [{"field": "direction", "operator": "equals", "value": "INBOUND"}],
        "actions": [{"type": "ASSIGN_CONVERSATION", "assignee_id": "{user}"}], "is_active": True,
     }, "name trigger_type conditions actions is_active", {"is_active": False}),
    ("T-CAM", "campaigns", {
        "name": "New Product Launch", "type": "SMS", "content": "Check out our new product!",
        "target_type": "ALL", "status": "DRAFT", "scheduled_at": "2025-02-01T10:00:00Z",
     }, "name type content target_type target_tags target_contacts status scheduled_at timezone image_url",
     {"target_type": "TAGS", "target_tags": ["vip"]}),
    ("T-NOT", "notes", {
        "contact_id": "{contact}", "content": "Customer called to inquire about pricing",
        "author_id": "{user}",
     }, "contact_id author_id content", {"content": "Called again"}),
    ("T-CHA", "channel_accounts", {
        "name": "WhatsApp Business", "type": "WHATSAPP_CLOUD", "is_active": True,
        "settings": {"access_token": "token", "phone_number_id": "phone_id"},
     }, "name type is_active settings", {"is_active": False}),
    ("T-PRO", "projects", {
        "name": "New Project", "description": "Project description", "status": "PLANNING",
        "start_date": "2025-02-01", "end_date": "2025-03-01",
     }, "name description status start_date end_date", {"status": "IN_PROGRESS"}),
]  # fmt: skip


@pytest.fixture
async def token(hub: Hub, owner: Member) -> str:
    return await hub.token(owner.email)


@pytest.fixture
async def known(superuser: asyncpg.Connection, org: Org, owner: Member) -> dict[str, str]:
    """Ids that the document's bodies refer to."""
    other = await make_contact(superuser, org)
    found = {
        "contact": await make_contact(superuser, org), "user": owner.id, "channel": org.account_id,
        "pipeline": await insert(superuser, "pipelines", {"organization_id": org.id, "name": "P"}),
        "other_contact": other, "conversation": await make_conversation(superuser, org, other),
    }  # fmt: skip
    return {name: str(value) for name, value in found.items()}


def filled(value: Any, known: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {k: filled(v, known) for k, v in value.items()}
    if isinstance(value, list):
        return [filled(v, known) for v in value]
    if isinstance(value, str):
        return re.sub(r"\{(\w+)\}(?!\})", lambda m: known.get(m[1], m[0]), value)
    return value


def as_read(table: str, body: dict[str, Any]) -> dict[str, Any]:
    """What is read of what was written."""
    read = dict(body)
    if table == "pipelines" and "stages" in body:
        read["stages"] = [{"id": "lead", "name": "Lead"}, {"id": "qualified", "name": "Qualified"}]
    if table == "channel_accounts" and "settings" in body:
        read["settings"] = {"access_token": MASK, "phone_number_id": "phone_id"}
    for name in ("due_date", "scheduled_at"):
        if name in read:
            read[name] = read[name].replace("Z", "+00:00")
    return read


@pytest.mark.parametrize(
    ("row", "table", "body", "fields", "change"), DOCUMENT, ids=[row[0] for row in DOCUMENT]
)
async def test_T_the_documents_bodies_run(
    hub: Hub, org: Org, token: str, known: dict[str, str], superuser: asyncpg.Connection, row: str,
    table: str, body: dict[str, Any], fields: str, change: dict[str, Any],
) -> None:  # fmt: skip
    """T-CON, T-COM, T-DEA, T-PIP, T-CNV, T-MSG, T-TAS, T-TPL, T-BOT, T-AUT, T-CAM, T-NOT, T-CHA, T-PRO:
    create, list, get, update, delete, with every field of the document. REST-01, REST-02, ERR-02, C-15: 201
    and 200 with rows for who asks for them, else 201 and 204 with nothing."""
    body = filled({"organization_id": str(org.id), **body}, known)
    path = f"/rest/v1/{table}"
    made = await hub.post(path, token=token, headers=REPRESENT, json=body)
    assert made.status == 201, made
    (row_made,) = made.json
    assert as_read(table, body).items() <= row_made.items(), row
    assert set(fields.split()) | set(STAMPS) <= row_made.keys()
    listed = await hub.get(
        f"{path}?select=*&organization_id=eq.{org.id}&order=created_at.desc&limit=1", token=token
    )
    assert listed.json == [row_made]
    place = f"{path}?id=eq.{row_made['id']}"
    changed = await hub.patch(place, token=token, headers=REPRESENT, json=filled(change, known))
    assert changed.status == 200, changed
    (row_changed,) = changed.json
    assert as_read(table, filled(change, known)).items() <= row_changed.items()
    assert row_changed["updated_at"] > row_made["updated_at"]
    assert row_changed["created_at"] == row_made["created_at"]
    quiet = await hub.patch(place, token=token, json=filled(change, known))
    assert (quiet.status, quiet.body) == (204, b"")
    if table == "conversations":  # there is one open conversation of a contact and channel
        await hub.patch(place, token=token, json={"status": "CLOSED"})
    elif table == "channel_accounts":  # a number has one
        body["settings"]["phone_number_id"] = "another"
    bare = await hub.post(path, token=token, json=body)
    assert (bare.status, bare.body) == (201, b"")
    gone = await hub.delete(place, token=token)
    assert (gone.status, gone.body) == (204, b"")
    left = (await hub.get(place, token=token)).json
    if table != "messages":
        assert left == []
    else:  # a deleted one leaves a tombstone
        assert [(r["content"], r["deleted_at"] is not None) for r in left] == [(None, True)]
        assert await superuser.fetchval("select count(*) from app.outbox") == 0, "recorded, never sent"


async def test_REST_01_every_table_has_its_verbs(hub: Hub, token: str) -> None:
    """No table of the permissions is forgotten; each answers GET, POST, PATCH and DELETE or says who may."""
    tables = (await hub.app[CATALOG].compiler()).schema.tables
    assert set(tables) == set(RULES)
    for name in tables:
        assert (await hub.get(f"/rest/v1/{name}?limit=1", token=token)).status == 200, name
        allowed = await hub.call("OPTIONS", f"/rest/v1/{name}")
        assert {"OPTIONS", "GET", "HEAD", "PATCH"} <= set(allowed.headers["Allow"].split(",")), name
        for method, verb in (("POST", "insert"), ("PATCH", "update"), ("DELETE", "delete")):
            query = "" if method == "POST" else "?created_at=is.null"
            options: dict[str, Any] = {} if method == "DELETE" else {"json": [] if method == "POST" else {}}
            answer = await hub.call(method, f"/rest/v1/{name}{query}", token=token, **options)
            may = not rule(name, verb).nobody  # type: ignore[arg-type]
            assert answer.status == ((201 if method == "POST" else 204) if may else 403), (name, method)


@pytest.mark.parametrize(
    ("row", "table", "columns"),
    [
        ("T-IM1", "webhooks", "url events is_active state"),
        ("T-IM1", "webhook_deliveries", "webhook_id event_name status attempts response_status error"),
        ("T-IM2", "flow_versions", "flow_id number nodes edges published_by"),
        ("T-IM2", "bot_sessions", "flow_id flow_version_id conversation_id state node_id variables error"),
        ("T-IM2", "bot_session_steps", "session_id step node_id input output error took_ms"),
        ("T-IM3", "campaign_recipients",
         "campaign_id contact_id status reason sent_at delivered_at read_at failed_at"),
        ("T-IM4", "memberships", "user_id role can_access_crm can_access_pm can_manage_team"
         " can_manage_settings can_send_messages can_read_messages"),
        ("T-IM4", "invitations", "email role permissions expires_at accepted_at"),
        ("T-IM4", "api_keys", "name key_prefix permissions expires_at last_used_at revoked_at"),
        ("T-IM4", "subscriptions", "plan status subscription_end"),
        ("T-IM5", "dashboard_widgets", "user_id widget_type layout config is_visible"),
        ("T-IM6", "milestones", "project_id name due_date completed_at"),
        ("T-IM6", "tasks", "project_id milestone_id"),
        ("T-ORG", "organizations", "name settings timezone"),
    ],
)  # fmt: skip
async def test_T_IM_tables_beside_the_documents(
    hub: Hub, superuser: asyncpg.Connection, password_hash: str, row: str, table: str, columns: str
) -> None:
    """T-IM1 to T-IM6, T-ORG: readable over REST, and without secrets."""
    filled_: Filled = await fill(superuser)
    await superuser.execute(
        "update auth.users set encrypted_password = $2 where id = $1", filled_.owner.id, password_hash
    )
    token = await hub.token(filled_.owner.email)
    answer = await hub.get(f"/rest/v1/{table}", token=token)
    assert answer.status == 200 and len(answer.json) >= 1, (row, answer)
    assert set(columns.split()) <= answer.json[0].keys()
    assert not [name for name in answer.json[0] if re.search(r"hash|secret$|ciphertext|encrypted", name)]


async def test_T_ORG_settings_are_written_and_masked(hub: Hub, org: Org, token: str) -> None:
    place = f"/rest/v1/organizations?id=eq.{org.id}&select=name,settings"
    secret = {"settings": {"twilio": {"auth_token": "tok", "sid": "S"}, "brand": "x"}, "name": "Blue"}
    answer = await hub.patch(place, token=token, headers=REPRESENT, json=secret)
    shown = {"twilio": {"auth_token": MASK, "sid": "S"}, "brand": "x"}
    assert answer.json == [{"name": "Blue", "settings": shown}]
    assert [r["id"] for r in (await hub.get("/rest/v1/organizations", token=token)).json] == [str(org.id)]
    assert (await hub.post("/rest/v1/organizations", token=token, json={"name": "x"})).status == 403


@pytest.mark.parametrize(
    ("row", "table", "body", "field"),
    [
        ("T-DEA", "deals", {"title": "x", "probability": 101}, "probability"),
        ("T-DEA", "deals", {"title": "x", "probability": -1}, "probability"),
        ("T-TAS", "tasks", {"title": "x", "priority": "SOON"}, "priority"),
        ("T-TPL", "templates", {"name": "x", "status": "LIVE"}, "status"),
        ("T-TPL", "templates", {"name": "x", "category": "SPAM"}, "category"),
        ("T-BOT", "bot_flows", {"name": "x", "status": "LIVE"}, "status"),
        ("T-AUT", "automation_rules", {"name": "x", "trigger_type": "SUNRISE"}, "trigger_type"),
        ("T-CAM", "campaigns", {"name": "x", "type": "PIGEON"}, "type"),
        ("T-CAM", "campaigns", {"name": "x", "type": "SMS", "target_type": "SOME"}, "target_type"),
        ("T-CAM", "campaigns", {"name": "x", "type": "SMS", "status": "LATE"}, "status"),
        ("T-CHA", "channel_accounts", {"name": "x", "type": "FAX"}, "type"),
        ("T-PRO", "projects", {"name": "x", "status": "SOMEDAY"}, "status"),
        ("T-PRO", "projects", {"name": "x", "start_date": "2025-03-02", "end_date": "2025-03-01"}, "dates"),
        ("C-12", "messages", {"conversation_id": "{conversation}", "direction": "outgoing"}, "direction"),
        ("C-12", "messages", {"conversation_id": "{conversation}", "direction": "INBOUND", "status": "x"},
         "status"),
        ("C-35", "conversations", {"contact_id": "{contact}", "status": "SNOOZED"}, "status"),
        ("C-26", "notes", {"content": "about nobody"}, "subject"),
        ("C-17", "pipelines", {"name": "x", "stages": '{"id": 1}'}, "stages"),
    ],
)  # fmt: skip
async def test_ERR_09_words_and_ranges_of_the_document(
    hub: Hub, token: str, known: dict[str, str], row: str, table: str, body: dict[str, Any], field: str
) -> None:
    answer = await hub.post(f"/rest/v1/{table}", token=token, json=filled(body, known))
    assert (answer.status, answer.json["code"]) == (422, "23514"), answer
    assert answer.json["error_code"] == "VALIDATION_ERROR"
    assert field in answer.json["details"], answer.json["details"]


@pytest.mark.parametrize(
    ("written", "means"),
    [
        ("MESSAGE_CREATED", "message.received,message.sent"), ("DEAL_STAGE_CHANGED", "deal.stage.changed"),
        ("TASK_DUE", "task.due"), ("CONTACT_CREATED", "contact.created"),
        ("message.received", "message.received"), ("CONVERSATION_STATUS_CHANGED",
                                                   "conversation.status.changed"),
    ],
)  # fmt: skip
async def test_C_01_both_spellings_of_a_trigger(hub: Hub, token: str, written: str, means: str) -> None:
    path = "/rest/v1/automation_rules?select=trigger_type,trigger_event"
    made = await hub.post(path, token=token, headers=REPRESENT, json={"name": "R", "trigger_type": written})
    assert made.json == [{"trigger_type": written, "trigger_event": means}]
    changed = await hub.patch(
        f"{path}&name=eq.R", token=token, headers=REPRESENT, json={"trigger_type": "deal.created"}
    )
    assert changed.json == [{"trigger_type": "deal.created", "trigger_event": "deal.created"}]
    kept = await hub.patch(f"{path}&name=eq.R", token=token, json={"trigger_event": "deal.updated"})
    assert kept.status == 403


async def test_C_16_contains_and_a_parameter_called_filter(
    hub: Hub, token: str, org: Org, superuser: asyncpg.Connection
) -> None:
    """REST-12: wherever `cs` is legal."""
    await make_contact(superuser, org, first_name="Mia", tags=["vip"], custom_fields={"a": {"b": 1}})
    await make_contact(superuser, org, first_name="Leo")
    for query, names in (
        ("tags=contains.{vip}", "Mia"), ("tags=not.contains.{vip}", "Leo"), ("tags=cs.{vip}", "Mia"),
        ('custom_fields=contains.{"a":{"b":1}}', "Mia"), ("or=(tags.contains.{vip},first_name.eq.x)", "Mia"),
        ("not.and=(tags.contains.{vip})", "Leo"),
    ):  # fmt: skip
        answer = await hub.get(f"/rest/v1/contacts?select=first_name&{query}", token=token)
        assert [r["first_name"] for r in answer.json] == [names], query
    called = await hub.get("/rest/v1/rpc/search_contacts?tags=contains.{vip}&select=first_name", token=token)
    assert called.json == [{"first_name": "Mia"}]
    for text in ("filter=id", "filter=id.eq.1", "filter=eq.1"):
        answer = await hub.get(f"/rest/v1/contacts?{text}", token=token)
        assert answer.status == 400
    assert (await hub.get("/rest/v1/contacts?filter=id", token=token)).json["hint"]


async def test_C_19_the_status_of_a_task_follows(hub: Hub, token: str) -> None:
    """T-TAS, TASK-03: filtered by, and written by nobody."""
    path = "/rest/v1/tasks?select=title,status"
    for title, due, completed in (("a", "2020-01-01", False), ("b", "2020-01-01", True), ("c", None, False)):
        body = {"title": title, "due_date": due, "completed": completed, "status": "TODO"}
        assert (await hub.post("/rest/v1/tasks", token=token, json=body)).status == 201
    listed = await hub.get(f"{path}&order=title", token=token)
    assert [r["status"] for r in listed.json] == ["OVERDUE", "DONE", "TODO"]
    assert [r["title"] for r in (await hub.get(f"{path}&status=eq.DONE", token=token)).json] == ["b"]
    changed = await hub.patch(f"{path}&title=eq.c", token=token, headers=REPRESENT, json={"status": "DONE"})
    assert changed.json == [{"title": "c", "status": "TODO"}], "`completed` stays the switch"


@pytest.mark.parametrize(
    ("zone", "given", "instant"),
    [
        (None, "2025-02-01T10:00:00Z", "2025-02-01T10:00:00+00:00"),
        ("Africa/Cairo", "2025-02-01T10:00:00+05:00", "2025-02-01T05:00:00+00:00"),
        ("Africa/Cairo", "2025-02-01T10:00:00", "2025-02-01T08:00:00+00:00"),
        ("Africa/Cairo", "2025-02-01 10:00", "2025-02-01T08:00:00+00:00"),
        ("America/New_York", "2025-07-01T10:00:00", "2025-07-01T14:00:00+00:00"),
        (None, "2025-07-01T10:00:00", "2025-07-01T08:00:00+00:00"),  # the organization's: Europe/Berlin
        ("Europe/Berlin", "2025-03-30T02:30:00", "2025-03-30T01:00:00+00:00"),  # there is no half past two
    ],
)  # fmt: skip
async def test_C_24_when_a_campaign_is_due(
    hub: Hub, org: Org, token: str, superuser: asyncpg.Connection, zone: str | None, given: str, instant: str
) -> None:
    """With an offset it is a moment; without one a time of day in `timezone`, or in the organization's."""
    await superuser.execute("update organizations set timezone = 'Europe/Berlin' where id = $1", org.id)
    path = "/rest/v1/campaigns?select=scheduled_at"
    body = {"name": "C", "type": "SMS", "scheduled_at": given}
    made = await hub.post(path, token=token, headers=REPRESENT, json={**body, "timezone": zone})
    assert made.json == [{"scheduled_at": instant}], made
    one = {"Accept": "application/vnd.pgrst.object+json", **REPRESENT}
    assert (await hub.post(path, token=token, headers=one, json=body)).status == 201
    moved = await hub.patch(  # the row's own zone counts when the change names none
        f"{path}&timezone={'is.null' if zone is None else f'eq.{zone}'}&limit=1", token=token,
        headers=REPRESENT, json={"scheduled_at": given},
    )  # fmt: skip
    assert {r["scheduled_at"] for r in moved.json} == {instant}
    wrong = await hub.post(path, token=token, json={**body, "scheduled_at": "tomorrow-ish"})
    assert (wrong.status, wrong.json["code"]) == (400, "22007")


async def test_C_25_columns_for_what_is_imported(hub: Hub, token: str) -> None:
    places = {
        "job_title": "CTO", "lead_status": "new", "lifecycle_stage": "lead", "street_address": "1 Main St",
        "city": "Cairo", "state": "C", "postal_code": "11511", "country": "EG",
        "linkedin_url": "https://l.test", "facebook_url": "https://f.test", "twitter_handle": "@x",
    }  # fmt: skip
    for table, more in (("contacts", {"first_name": "x"}), ("companies", {"name": "x", "logo_url": "l"})):
        given = {**places, **more}
        if table == "companies":
            del given["job_title"]
        made = await hub.post(f"/rest/v1/{table}", token=token, headers=REPRESENT, json=given)
        assert made.status == 201 and given.items() <= made.json[0].items()


async def test_C_26_notes_about_anything(hub: Hub, org: Org, token: str, known: dict[str, str]) -> None:
    """T-NOT."""
    deal = await hub.post("/rest/v1/deals", token=token, headers=REPRESENT, json={"title": "D"})
    company = await hub.post("/rest/v1/companies", token=token, headers=REPRESENT, json={"name": "C"})
    for subject in (
        {"deal_id": deal.json[0]["id"]}, {"company_id": company.json[0]["id"]},
        {"conversation_id": known["conversation"]}, {"contact_id": known["contact"]},
    ):  # fmt: skip
        made = await hub.post("/rest/v1/notes", token=token, json={"content": "n", **subject})
        assert made.status == 201, subject


async def test_C_27_whose_word_a_templates_status_is(
    hub: Hub, org: Org, token: str, superuser: asyncpg.Connection
) -> None:
    """T-TPL: ours while it is local, the provider's once it knows the template."""
    path = "/rest/v1/templates?name=eq.T"
    body = {"name": "T", "status": "APPROVED", "category": "AUTHENTICATION"}
    assert (await hub.post("/rest/v1/templates", token=token, json=body)).status == 201
    assert (await hub.patch(path, token=token, json={"status": "PENDING"})).status == 204
    await superuser.execute("update templates set provider_id = '77'")
    for change in ({"status": "APPROVED"}, {"provider_id": None}, {"rejection_reason": "x"}):
        refused = await hub.patch(path, token=token, json=change)
        assert (refused.status, refused.json["code"]) == (403, "42501"), change
    assert (await hub.patch(path, token=token, json={"components": []})).status == 204
    await superuser.execute("update templates set status = 'APPROVED'")  # the synchronization may


async def test_C_28_publishing_freezes_a_version(
    hub: Hub, token: str, owner: Member, superuser: asyncpg.Connection
) -> None:
    """T-BOT: a draft in bot_flows, frozen copies in flow_versions, `version` advanced by nothing else."""
    node = {"id": "n1", "type": "Send Message", "position": {"x": 0, "y": 0}, "data": {"text": "Hi"}}
    flow = "/rest/v1/bot_flows?select=status,version,published_version_id"
    versions = "/rest/v1/flow_versions?select=id,number,nodes,published_by&order=number"

    async def change(**values: Any) -> dict[str, Any]:
        answer = await hub.patch(f"{flow}&name=eq.F", token=token, headers=REPRESENT, json=values)
        assert answer.status == 200, answer
        row: dict[str, Any] = answer.json[0]
        return row

    made = await hub.post(flow, token=token, headers=REPRESENT,
                          json={"name": "F", "nodes": [], "edges": [], "version": 9})  # fmt: skip
    assert made.json == [{"status": "DRAFT", "version": 1, "published_version_id": None}]
    first = await change(status="PUBLISHED")
    (frozen,) = (await hub.get(versions, token=token)).json
    assert (first["version"], first["published_version_id"]) == (1, frozen["id"])
    assert (frozen["number"], frozen["nodes"], frozen["published_by"]) == (1, [], str(owner.id))
    edited = await change(nodes=[node], version=5)
    assert (edited["version"], edited["published_version_id"]) == (1, frozen["id"]), "a draft meanwhile"
    again = await change(status="PUBLISHED")
    assert again["version"] == 2
    assert (await change(status="PUBLISHED")) == again, "the same again is no new one"
    found = (await hub.get(versions, token=token)).json
    assert [(v["number"], v["nodes"]) for v in found] == [(1, []), (2, [node])]
    await change(status="ARCHIVED")
    at_once = await hub.post(flow, token=token, headers=REPRESENT, json={"name": "G", "status": "PUBLISHED"})
    assert at_once.status == 201
    after = await hub.get(f"{flow}&name=eq.G", token=token)
    assert after.json[0]["published_version_id"] is not None and after.json[0]["version"] == 1


async def test_C_31_actions_are_returned_as_they_were_written(hub: Hub, token: str) -> None:
    actions = [
        {"type": "ASSIGN_CONVERSATION", "assignee_id": str(uuid4())},
        {"type": "CREATE_TASK", "params": {"title": "Call"}}, {"type": "ADD_TAG", "config": {"tag": "x"}},
    ]  # fmt: skip
    made = await hub.post(
        "/rest/v1/automation_rules?select=actions", token=token, headers=REPRESENT,
        json={"name": "R", "trigger_type": "message.received", "actions": actions},
    )  # fmt: skip
    assert made.json == [{"actions": actions}]


@pytest.mark.parametrize(
    ("action", "field", "said"),
    [
        ({"type": "PAINT"}, "actions[1].type", "must be one of SEND_MESSAGE"),
        ("ADD_TAG", "actions[1]", "must be an object"),
        ({"type": "ADD_TAG"}, "actions[1].tag", "is required"),
        ({"type": "ADD_TAG", "config": {"tag": 5}}, "actions[1].config.tag", "Expected `str`"),
        ({"type": "ASSIGN_CONTACT", "assignee_id": "nobody"}, "actions[1].assignee_id", "UUID"),
        ({"type": "ASSIGN_DEAL", "params": {}}, "actions[1].params", "owner_id or assignee_id"),
        ({"type": "SEND_MESSAGE"}, "actions[1]", "content or template_id"),
        ({"type": "CREATE_TASK", "title": "x", "due_in_minutes": -1}, "actions[1].due_in_minutes", ">= 0"),
        ({"type": "UPDATE_FIELD", "field": "city"}, "actions[1].value", "is required"),
    ],
)
async def test_C_31_what_no_rule_could_do_is_refused_by_its_place(
    hub: Hub, token: str, action: Any, field: str, said: str
) -> None:
    good = {"type": "CREATE_DEAL", "title": "New"}
    rule = {"name": "R", "trigger_type": "message.received", "actions": [good]}
    made = await hub.post("/rest/v1/automation_rules?select=id", token=token, headers=REPRESENT, json=rule)
    place = f"/rest/v1/automation_rules?id=eq.{made.json[0]['id']}"
    bad = {"actions": [good, action]}
    many = {"actions": [good] * 51}
    for answer in (
        await hub.patch(place, token=token, json=bad),
        await hub.post("/rest/v1/automation_rules", token=token, json={**rule, **bad}),
    ):
        assert (answer.status, answer.json["error_code"]) == (422, "VALIDATION_ERROR")
        assert answer.json["details"].startswith(f"{field}: ")
        assert said in answer.json["details"]
    assert (await hub.patch(place, token=token, json=many)).json["details"].startswith("actions: at most 50")
    kept = await hub.get("/rest/v1/automation_rules?select=actions", token=token)
    assert kept.json == [{"actions": [good]}]


async def test_C_31_a_schema_of_each_action_is_served(hub: Hub) -> None:
    document = (await hub.get("/openapi.json")).json
    items = document["components"]["schemas"]["automation_rules"]["properties"]["actions"]["items"]["oneOf"]
    assert [item["$ref"].rpartition(".")[2] for item in items] == list(ACTIONS)
    for kind, good, bad in (
        ("ADD_TAG", {"tag": "vip"}, {"tag": 1}), ("CREATE_TASK", {"title": "Call"}, {}),
        ("UPDATE_FIELD", {"field": "x", "value": None}, {"field": "x"}),
        ("SEND_MESSAGE", {"content": "Hi"}, {"variables": {}}),
    ):  # fmt: skip
        schema = document["components"]["schemas"][f"action.{kind}"]
        for under in (None, "params", "config"):
            shaped = [{"type": kind, **(given if under is None else {under: given})} for given in (good, bad)]
            assert [jsonschema_rs.is_valid(schema, one) for one in shaped] == [True, False], shaped
        assert not jsonschema_rs.is_valid(schema, {"type": "OTHER", **good})


async def test_C_35_snooze_and_priority_stand_beside_the_status(
    hub: Hub, token: str, known: dict[str, str]
) -> None:
    """So that `status=eq.OPEN` stays true."""
    place = f"/rest/v1/conversations?id=eq.{known['conversation']}&select=status,priority,pending"
    more = {"snoozed_until": "2030-01-01T00:00:00Z", "pending": True, "priority": "URGENT"}
    changed = await hub.patch(place, token=token, headers=REPRESENT, json=more)
    assert changed.json == [{"status": "OPEN", "priority": "URGENT", "pending": True}]
    assert len((await hub.get(f"{place}&status=eq.OPEN", token=token)).json) == 1


async def test_REST_06_order_by_several_keys_and_places(
    hub: Hub, org: Org, token: str, superuser: asyncpg.Connection
) -> None:
    for first, last, n in (("A", None, 1), ("B", "x", 2), ("C", "x", 3), ("D", "y", 0)):
        await make_contact(superuser, org, first_name=first, last_name=last, custom_fields={"n": n})
    for order, names in (
        ("last_name.desc,first_name", "ADBC"), ("last_name.desc.nullslast,first_name.desc", "DCBA"),
        ("last_name.nullsfirst,first_name", "ABCD"), ("last_name,first_name", "BCDA"),
        ("custom_fields->n.desc", "CBAD"), ("custom_fields->>n", "DABC"),
        ("first_name.desc&limit=2&offset=1", "CB"),
    ):  # fmt: skip
        answer = await hub.get(f"/rest/v1/contacts?select=first_name&order={order}", token=token)
        assert "".join(r["first_name"] for r in answer.json) == names, order


@pytest.mark.parametrize(
    ("column", "type_", "operation", "found"),
    [
        ("span", "int4range", "cs.[5,6)", "1"), ("span", "int4range", "cs.[2,4)", "1"),
        ("span", "int4range", "cd.[0,100)", "12"), ("span", "int4range", "ov.[9,25)", "12"),
        ("span", "int4range", "sl.[15,18)", "1"), ("span", "int4range", "sr.[12,15)", "2"),
        ("span", "int4range", "nxr.[5,15)", "1"), ("span", "int4range", "nxl.[15,18)", "2"),
        ("span", "int4range", "adj.[10,20)", "12"), ("span", "int4range", "not.adj.[10,20)", ""),
        ("words", "tsvector", "fts.cat", "1"), ("words", "tsvector", "wfts.dog -cat", "2"),
        ("words", "tsvector", "phfts.cat dog", "1"), ("n", "numeric", "gt.1.5", "2"),
        ("n", "numeric", "in.(1.5,7)", "1"), ("n", "numeric", "eq(any).{1.5,2.5}", "12"),
        ("n", "numeric", "neq.1.5", "2"), ("n", "numeric", "isdistinct.1.5", "23"),
        ("day", "date", "gte.2025-01-02", "2"), ("flag", "boolean", "is.false", "2"),
        ("flag", "boolean", "not.is.true", "23"),
    ],
)  # fmt: skip
async def test_5_1_operators_on_every_kind_of_type(
    hub: Hub, org: Org, token: str, superuser: asyncpg.Connection, column: str, type_: str, operation: str,
    found: str,
) -> None:  # fmt: skip
    """REST-07, REST-10, REST-13, on types that somebody may add: 1, 2, and 3 with nothing in them."""
    await superuser.execute(
        "alter table contacts add span int4range, add words tsvector, add n numeric, add day date,"
        " add flag boolean"
    )
    for name in "123":
        await make_contact(superuser, org, first_name=name)
    await superuser.execute(
        "update contacts set span = '[1,10)', words = to_tsvector('simple', 'cat dog'), n = 1.5,"
        " day = '2025-01-01', flag = true where first_name = '1'"
    )
    await superuser.execute(
        "update contacts set span = '[20,30)', words = to_tsvector('simple', 'dog'), n = 2.5,"
        " day = '2025-01-02', flag = false where first_name = '2'"
    )
    hub.app[CATALOG].forget()
    answer = await hub.get(
        f"/rest/v1/contacts?select=first_name&order=first_name&{column}={operation}", token=token
    )
    assert answer.status == 200, answer
    assert "".join(r["first_name"] for r in answer.json) == found, type_
