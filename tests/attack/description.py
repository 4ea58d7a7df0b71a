"""An OpenAPI description of every route that the application has, made from its route table, the catalog of
tables and the structs of its bodies; for generating requests, not for readers."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from hub.app import build_app
from hub.auth import routes as auth_routes
from hub.domain.permissions import RULES
from hub.functions.router import FUNCTIONS
from hub.rest.catalog import Table
from hub.settings import Settings
from tests import whatsapp

#: Bodies of the functions and of sign-in, from what serves them.
BODIES: dict[str, Any] = {
    **{f"/functions/v1/{name}": f.body for name, f in FUNCTIONS.items() if f.body is not None},
    **{f"/auth/v1/{name}": body for name, body in auth_routes.BODIES.items()},
}
#: Routes that take a POST without one. A route with a POST that is in neither list fails `describe`.
NO_BODY = {
    *(f"/functions/v1/{name}" for name, f in FUNCTIONS.items() if f.body is None),
    "/auth/v1/logout", "/auth/v1/recovery-codes", "/rest/v1", "/rest/v1/",
}  # fmt: skip
#: Routes that answer a POST with 405.
GET_ALONE = {
    f"/auth/v1/{name}"
    for name, methods in auth_routes.table().items()
    if not {"POST", "PUT"} & methods.keys()
}
#: What a column of this type is sent as.
TYPES: dict[str, dict[str, Any]] = {
    "text": {"type": "string"}, "uuid": {"type": "string", "format": "uuid"}, "integer": {"type": "integer"},
    "bigint": {"type": "integer"}, "boolean": {"type": "boolean"}, "numeric": {"type": "number"},
    "date": {"type": "string", "format": "date"}, "timestamp with time zone": {"type": "string",
    "format": "date-time"},
    "jsonb": {}, "text[]": {"type": "array", "items": {"type": "string"}},
}  # fmt: skip
_ERROR = {
    "type": "object",
    "required": ["error", "message", "code", "details", "hint", "error_code", "request_id"],
    "properties": {
        "error": {"type": "string"}, "message": {"type": "string"}, "code": {"type": "string"},
        "hint": {"type": ["string", "null"]}, "error_code": {"type": "string"},
        "request_id": {"type": "string", "minLength": 8}, "details": {}, "msg": {"type": "string"},
        "weak_password": {"type": "object"},
    },
    "additionalProperties": False,
}  # fmt: skip
#: Refusals that any route may answer; 5xx are none of them.
REFUSALS = (400, 401, 403, 404, 405, 406, 408, 409, 413, 415, 416, 422, 429, 431)


def describe(settings: Settings, tables: dict[str, Table]) -> dict[str, Any]:
    """The description; raises AssertionError for a route that nothing is known of."""
    app = build_app(settings)
    paths: dict[str, dict[str, Any]] = {}
    for resource in app.router.resources():
        template = resource.canonical
        methods = {route.method for route in resource}
        if template == "/rest/v1/{table}":
            for name in sorted(RULES):
                paths[f"/rest/v1/{name}"] = _table(tables[name])
            template = "/rest/v1/{table}"
        paths[template] = _route(template, methods)
    return {
        "openapi": "3.1.0",
        "info": {"title": "every route", "version": "1"},
        "paths": paths,
        "components": {"schemas": {"Error": _ERROR}},
    }


def _route(template: str, methods: set[str]) -> dict[str, Any]:
    """Any method that the route takes; those that answer all take a good and a bad one."""
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in _names(template)
    ]
    parameters += [
        {"name": name, "in": "query", "schema": schema}
        for name, schema in (
            ("grant_type", {"enum": ["password", "refresh_token", "pkce", "x"]}),
            ("scope", {"type": "string"}),
            ("after", {"type": "string"}), ("limit", {"type": "string"}), ("epoch", {"type": "string"}),
            ("apikey", {"type": "string"}), ("channel_account_id", {"type": "string"}), ("hub.mode",
            {"enum": ["subscribe", "x"]}),
            ("hub.verify_token", {"enum": [whatsapp.VERIFY_TOKEN, "x"]}), ("hub.challenge",
            {"type": "string"}),
        )
    ]  # fmt: skip
    taken = {"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"} if "*" in methods else methods
    found: dict[str, Any] = {}
    for method in sorted(taken - {"HEAD"}):
        operation: dict[str, Any] = {"parameters": parameters, "responses": _responses(_is_api(template))}
        if method in ("POST", "PUT", "PATCH"):
            operation["requestBody"] = _body(template, method)
        found[method.lower()] = operation
    return found


def _names(template: str) -> list[str]:
    return [part.split(":")[0].rstrip("}") for part in template.split("{")[1:]]


def _is_api(template: str) -> bool:
    return template.startswith(("/rest", "/auth", "/functions"))


def _body(template: str, method: str) -> dict[str, Any]:
    if template == "/functions/v1/upload-media":
        parts = {
            "type": "object",
            "properties": {"file": {"type": "string", "format": "binary"}, "x": {"type": "string"}},
        }
        return {"content": {"multipart/form-data": {"schema": parts}}}
    kind = BODIES.get(template)
    if kind is None:
        known = template in NO_BODY or not _is_api(template) or "{" in template or method != "POST"
        assert known or "webhook" in template or template in GET_ALONE, template
        return {"content": {"application/json": {"schema": {}}}}
    (schema,), components = msgspec.json.schema_components([kind])
    return {"content": {"application/json": {"schema": _inlined(schema, components)}}}


def _inlined(schema: Any, components: dict[str, Any]) -> Any:
    """Without references: each body stands by itself."""
    if isinstance(schema, dict):
        if isinstance(schema.get("$ref"), str):  # batch has a field of that name
            return _inlined(components[schema["$ref"].rpartition("/")[2]], components)
        return {k: _inlined(v, components) for k, v in schema.items()}
    return [_inlined(v, components) for v in schema] if isinstance(schema, list) else schema


def _table(table: Table) -> dict[str, Any]:
    columns = {name: TYPES.get(c.type, {}) for name, c in table.columns.items() if not c.is_generated}
    query = [
        {"name": name, "in": "query", "schema": schema}
        for name, schema in (
            ("select", {"anyOf": [{"enum": ["*", ",".join(list(columns)[:3])]}, {"type": "string"}]}),
            ("order", {"anyOf": [{"enum": [f"{c}.desc" for c in list(columns)[:3]]}, {"type": "string"}]}),
            ("limit", {"anyOf": [{"type": "integer"}, {"type": "string"}]}),
            ("offset", {"anyOf": [{"type": "integer", "minimum": 0, "maximum": 10}, {"type": "string"}]}),
            ("or", {"anyOf": [{"enum": ["(created_at.is.null,created_at.not.is.null)"]},
            {"type": "string"}]}),
            ("columns", {"type": "string"}), ("on_conflict", {"type": "string"}),
            *((name, _filter(schema)) for name, schema in columns.items() if name not in ("select", "order",
            "columns")),
        )
    ]  # fmt: skip
    headers = [
        {"name": "Prefer", "in": "header", "schema": {"enum": [
            "return=representation", "return=minimal", "return=headers-only", "count=exact", "count=planned",
            "resolution=merge-duplicates", "resolution=ignore-duplicates",
            "resolution=merge-duplicates,return=representation",
        ]}},
        {"name": "Accept", "in": "header", "schema": {"enum": ["application/json", "*/*",
        "application/vnd.pgrst.object+json", "text/csv"]}},
        {"name": "Range", "in": "header", "schema": {"type": "string",
        "pattern": "^[0-9]{1,20}-[0-9]{0,20}$"}},
        {"name": "Idempotency-Key", "in": "header", "schema": {"type": "string",
        "pattern": "^[ -~]{1,300}$"}},
    ]  # fmt: skip
    row = {"type": "object", "properties": columns, "additionalProperties": False}
    body = {
        "content": {
            "application/json": {"schema": {"anyOf": [row, {"type": "array", "items": row, "maxItems": 3}]}}
        }
    }
    parameters, responses = [*query, *headers], _responses(True)
    plain = {"parameters": parameters, "responses": responses}
    found = {"get": plain, "post": {**plain, "requestBody": body}, "patch": {**plain, "requestBody": body}}
    found["delete"] = plain
    if table.name == "contacts":  # one refusal of theirs is like another
        found |= {"put": {**plain, "requestBody": body}, "options": {"responses": responses}}
    return found


def _filter(schema: dict[str, Any]) -> dict[str, Any]:
    """A filter of the grammar, or any text."""
    words = ["is.null", "not.is.null", "eq.1", "neq.x", "gt.0", "in.(1,2)", "like.*a*", "match.^a", "cs.{a}"]
    return {"anyOf": [{"enum": words}, {"type": "string"}]}


def _responses(is_api: bool) -> dict[str, Any]:
    """What may be answered. Successes are checked by their status, refusals by their body."""
    refusal = {
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
        "description": "refused",
    }
    found = {str(status): refusal for status in REFUSALS}
    for status in (200, 201, 204, 206):
        found[str(status)] = {"description": "done"}
    if not is_api:
        found["503"] = {"description": "the web app is not built"}
    return found


def routes_of(app: web.Application) -> set[str]:
    return {resource.canonical for resource in app.router.resources()}
