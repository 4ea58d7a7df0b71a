"""What describes the API is made of what serves it: the root, OpenAPI, and the Postman collection,
run whole."""

from __future__ import annotations

import asyncio
import json
import re
from asyncio.subprocess import PIPE, STDOUT
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from hub import bootstrap
from hub.domain.permissions import PERMISSIONS, RULES
from hub.functions.router import FUNCTIONS
from hub.openapi import describe
from hub.postman import text
from hub.resources import AUTH
from hub.rest.catalog import read_schema
from hub.rest.schema import Schema
from tests.clients import SHIFTS
from tests.factories import Member, Org, until
from tests.needs import absent
from tests.server import Hub

ROOT = Path(__file__).parents[2]
COLLECTION = ROOT / "docs" / "api" / "ConnectGain_API.postman_collection.json"
NEWMAN = ROOT / "hub" / "web" / "node_modules" / "newman" / "bin" / "newman.js"
FOLDERS = [
    *(f"Edge Functions - {name}" for name in (
        "Message Sending", "Search & Import", "External APIs", "Organization & Auth",
        "Payment & Subscription",
        "Webhooks")),
    *(f"REST API - {name}" for name in (
        "Contacts", "Companies", "Deals", "Pipelines", "Conversations", "Messages", "Tasks", "Templates",
        "Bot Flows", "Automation Rules", "Campaigns", "Notes", "Channel Accounts", "Projects",
        "Organizations & Users")),
]  # fmt: skip


@pytest.fixture
async def schema(superuser: asyncpg.Connection) -> Schema:
    return await read_schema(superuser)


@pytest.fixture
async def token(hub: Hub, owner: Member) -> str:
    return await hub.token(owner.email)


def references(document: Any) -> set[str]:
    if isinstance(document, dict):
        own = {document["$ref"]} if isinstance(document.get("$ref"), str) else set()
        return own.union(*(references(value) for value in document.values()))
    return set().union(*(references(value) for value in document)) if isinstance(document, list) else set()


def resolves(document: Any, reference: str) -> bool:
    for step in reference.removeprefix("#/").split("/"):
        if step not in document:
            return False
        document = document[step]
    return True


async def test_9_4_the_root_describes_what_the_caller_may_use(hub: Hub, token: str, agent: Member) -> None:
    answer = await hub.get("/rest/v1/", token=token)
    assert answer.headers["Content-Type"] == "application/openapi+json; charset=utf-8"
    document = answer.json
    assert document["swagger"] == "2.0"
    assert all(resolves(document, reference) for reference in references(document))
    assert {f"/{table}" for table in RULES} <= document["paths"].keys()
    assert "/rpc/search_contacts" in document["paths"]
    deals = document["definitions"]["deals"]["properties"]
    assert deals["id"]["description"] == "Note:\nThis is a Primary Key.<pk/>"
    assert "<fk table='contacts' column='id'/>" in deals["contact_id"]["description"]
    assert deals["value"] == {"format": "numeric", "type": "number"}
    conversations = document["definitions"]["conversations"]["properties"]
    assert conversations["status"]["enum"] == ["OPEN", "CLOSED"]
    assert document["paths"]["/audit_log"].keys() == {"get"}
    limited = (await hub.get("/rest/v1/", token=await hub.token(agent.email))).json
    assert (
        "/projects" not in limited["paths"] and "post" not in limited["paths"]["/webhooks"]
        if ("/webhooks" in limited["paths"])
        else True
    )
    assert (await hub.get("/rest/v1/")).status == 401
    refused = await hub.post("/rest/v1/", token=token, json={})
    assert (refused.status, refused.json["code"]) == (405, "PGRST117")
    assert (await hub.get("/rest/v1", token=token)).json == document
    head = await hub.call("HEAD", "/rest/v1/", token=token)
    assert (head.status, head.body) == (200, b"")


async def test_openapi_knows_every_route(hub: Hub, schema: Schema) -> None:
    document = describe(schema, hub.url)
    assert document["openapi"] == "3.1.0"
    assert all(resolves(document, reference) for reference in references(document))
    paths = document["paths"]
    assert {f"/rest/v1/{table}" for table in RULES} <= paths.keys()
    assert {f"/functions/v1/{name}" for name in FUNCTIONS} <= paths.keys()
    pages = ("/", "/metrics", "/ws", "/assets", "/rest/v1", "/{path}")
    for resource in hub.app.router.resources():
        template = resource.canonical
        known = template in paths or template.startswith(pages[2:4]) or template in (*pages, "/rest/v1/")
        below = template.startswith(("/rest/v1/{", "/rest/v1/rpc/{", "/functions/v1/{"))
        assert known or below, template
    read = paths["/rest/v1/contacts"]["get"]
    assert read["description"] == "Needs can_access_crm or can_read_messages."
    assert "post" not in paths["/rest/v1/audit_log"]
    body = paths["/functions/v1/insert-message"]["post"]["requestBody"]["content"]["application/json"][
        "schema"
    ]
    assert {"phone", "content", "direction", "status"} <= body["properties"].keys()
    status = document["components"]["schemas"]["messages"]["properties"]["status"]
    assert "READ" in status["enum"]


async def test_openapi_is_served_to_everybody_as_it_is_written(hub: Hub, schema: Schema) -> None:
    answer = await hub.get("/openapi.json")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json; charset=utf-8")
    assert answer.json == json.loads(json.dumps(describe(schema, "/")))
    again = await hub.get("/openapi.json", headers={"If-None-Match": answer.headers["ETag"]})
    assert (again.status, again.body) == (304, b"")
    plain = await hub.get("/openapi.json", headers={"Accept-Encoding": "identity"})
    assert "Content-Encoding" not in plain.headers and plain.json == answer.json
    assert (await hub.post("/openapi.json")).status == 405


async def test_openapi_tells_of_a_function_that_somebody_adds(
    hub: Hub, superuser: asyncpg.Connection
) -> None:
    before = await hub.get("/openapi.json")
    await superuser.execute(SHIFTS)

    async def known() -> bool:
        found = await hub.get("/openapi.json", headers={"If-None-Match": before.headers["ETag"]})
        return found.status == 200 and "/rest/v1/rpc/shifts" in found.json["paths"]

    await until(known, timeout_s=30, what="the new function")


async def test_DOC_01_and_03_the_collection_is_fresh_and_has_its_folders(schema: Schema) -> None:
    """Regenerate with: hub postman docs/api/ConnectGain_API.postman_collection.json"""
    made = text(schema, "http://127.0.0.1:8080")
    assert COLLECTION.read_text(encoding="utf-8") == made
    assert [folder["name"] for folder in json.loads(made)["item"]] == FOLDERS
    keys = {variable["key"] for variable in json.loads(made)["variable"]}
    assert {"url", "anon_key", "api_key", "organization_id"} <= keys


async def test_DOC_01_newman_runs_the_collection_green(
    hub: Hub, org: Org, token: str, tmp_path: Path
) -> None:
    """Postman's own runner, against a hub that holds nothing but an organization and its owner."""
    if not NEWMAN.is_file():
        absent("newman is not installed: make install")
    made = await hub.post(
        "/functions/v1/generate-api-key", token=token,
        json={"name": "postman", "permissions": dict.fromkeys(PERMISSIONS, True)},
    )  # fmt: skip
    given = {
        "url": hub.url, "anon_key": (await hub.app[AUTH].keyring()).project_keys().anon,
        "api_key": made.json["api_key"], "organization_id": str(org.id),
    }  # fmt: skip
    report = tmp_path / "newman.json"
    process = await asyncio.create_subprocess_exec(
        str(bootstrap.web_module().node()), str(NEWMAN), "run", str(COLLECTION),
        *(word for name, value in given.items() for word in ("--env-var", f"{name}={value}")),
        "--reporters", "cli,json", "--reporter-json-export", str(report), "--color", "off",
        stdout=PIPE, stderr=STDOUT,
    )  # fmt: skip
    try:
        out, _ = await asyncio.wait_for(process.communicate(), 240)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, out.decode()[-8000:]
    run = json.loads(report.read_text(encoding="utf-8"))["run"]
    requests = sum(len(folder["item"]) for folder in json.loads(COLLECTION.read_text())["item"])
    assert run["failures"] == []
    assert run["stats"]["requests"]["total"] == requests > 80
    assert run["stats"]["assertions"]["total"] >= requests, "each request says what it expects"
    left = re.findall(r"\{\{\w+\}\}", json.dumps([e["request"]["url"] for e in run["executions"]]))
    assert left == [], "every variable had a value when it was used"
