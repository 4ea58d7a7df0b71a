"""OpenAPI 3.1 of the whole HTTP surface, made of the route tables, the schema and the permission table.

hub openapi > openapi.json

A hub serves it at /openapi.json, for the page /docs.
"""

from __future__ import annotations

import gzip
import hashlib
import inspect
import json
import re
from typing import Any, Final

import msgspec
from aiohttp import web

from hub import __version__
from hub.auth import routes as auth_routes
from hub.channels.ingress import webhooks
from hub.domain import rule_actions
from hub.domain.permissions import FUNCTION_NEEDS, FunctionNeed, Need, Verb, rule
from hub.functions import billing
from hub.functions.router import FUNCTIONS
from hub.resources import CATALOG
from hub.rest.schema import Column, Function, Schema, Table

_ERROR: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["error", "message", "code", "details", "hint", "error_code", "request_id"],
    "properties": {
        "error": {"type": "string"}, "message": {"type": "string"}, "code": {"type": "string"},
        "details": {}, "hint": {"type": ["string", "null"]}, "error_code": {"type": "string"},
        "request_id": {"type": "string"},
    },
}  # fmt: skip
#: What a column of a type is in JSON.
_TYPES: Final[dict[str, dict[str, Any]]] = {
    "text": {"type": "string"}, "uuid": {"type": "string", "format": "uuid"},
    "integer": {"type": "integer", "format": "int32"}, "bigint": {"type": "integer", "format": "int64"},
    "boolean": {"type": "boolean"}, "numeric": {"type": "number"}, "double precision": {"type": "number"},
    "date": {"type": "string", "format": "date"},
    "timestamp with time zone": {"type": "string", "format": "date-time"}, "jsonb": {}, "json": {},
    "inet": {"type": "string"},
}  # fmt: skip
_METHODS: Final[dict[Verb, str]] = {"read": "get", "insert": "post", "update": "patch", "delete": "delete"}
_SECURITY: Final[list[dict[str, list[str]]]] = [{"bearer": []}, {"apiKey": []}]
_PREFER: Final[dict[str, Any]] = {
    "name": "Prefer", "in": "header", "schema": {"type": "string"},
    "description": "return=, count=, resolution=, missing=, handling=, timezone=, max-affected=",
}  # fmt: skip


#: Functions that answer with a list, not an object.
_LISTS = frozenset({"audit-log"})


def describe(schema: Schema, base_url: str) -> dict[str, Any]:
    """The document."""
    paths: dict[str, Any] = {}
    for name, table in sorted(schema.tables.items()):
        paths[f"/rest/v1/{name}"] = _table(table)
    for name, overloads in sorted(schema.functions.items()):
        paths[f"/rest/v1/rpc/{name}"] = _call(overloads[0])
    for name, function in FUNCTIONS.items():
        paths[f"/functions/v1/{name}"] = {
            method.lower(): _function(name, function, method)
            for method in function.methods
            if method != "HEAD"
        }
    for path in sorted(webhooks()):
        paths[path] = {
            "get": _webhook("The provider's subscription handshake"),
            "post": _webhook("A provider's delivery, signed"),
        }
    paths[billing.WEBHOOK_PATH] = {"post": _webhook("An event of Stripe's, signed")}
    for path, handlers in sorted(auth_routes.table().items()):
        paths[f"/auth/v1/{path}"] = {
            method.lower(): _auth(path, method, handler)
            for method, handler in handlers.items()
            if method != "HEAD"
        }
    paths |= _process()
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "ConnectGain Hub", "version": __version__, "license": {"name": "Apache-2.0"},
            "description": "Tables (/rest/v1), functions (/functions/v1), sign-in (/auth/v1). "
            "Live sessions speak the protocol of docs/realtime.md at /ws.",
        },
        "servers": [{"url": base_url}],
        "security": _SECURITY,
        "paths": paths,
        "components": {
            "schemas": {
                "Error": _ERROR,
                **{name: row_schema(table) for name, table in sorted(schema.tables.items())},
                **{f"action.{kind}": action for kind, action in rule_actions.schemas().items()},
            },
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer",
                           "description": "An access token of /auth/v1/token, or an organization's key"},
                "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key",
                           "description": "An organization's key (cg_…)"},
            },
            "responses": {
                "Refused": {
                    "description": "Refused; `code` says why (docs/errors.md)",
                    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
                }
            },
        },
    }  # fmt: skip


def column_schema(column: Column) -> dict[str, Any]:
    if column.type.endswith("[]"):
        found: dict[str, Any] = {"type": "array", "items": _TYPES.get(column.type[:-2], {"type": "string"})}
    else:
        found = dict(_TYPES.get(column.type, {"type": "string"}))
    if column.words:
        found["enum"] = list(column.words)
    if not column.is_required and "type" in found:
        found["type"] = [found["type"], "null"]
        if "enum" in found:
            found["enum"] = [*found["enum"], None]
    if column.is_generated:
        found["readOnly"] = True
    return found


def row_schema(table: Table) -> dict[str, Any]:
    """One row, as it is answered."""
    columns = {n: column_schema(c) for n, c in table.columns.items()}
    if table.name == "automation_rules" and "actions" in columns:
        one_of = [{"$ref": f"#/components/schemas/action.{kind}"} for kind in rule_actions.ACTIONS]
        columns["actions"] = {"type": "array", "items": {"oneOf": one_of}, "maxItems": rule_actions.MOST}
    return {"type": "object", "properties": columns}


def _table(table: Table) -> dict[str, Any]:
    row = {"$ref": f"#/components/schemas/{table.name}"}
    rows = {"type": "array", "items": row}
    filters = [
        {"name": n, "in": "query", "schema": {"type": "string"}, "description": f"eq.…, in.(…) … ({c.type})"}
        for n, c in table.columns.items()
        if n not in ("select", "order", "limit", "offset")
    ]
    shape = _parameters(("select", "Columns and embedded tables"))
    page = _parameters(
        ("order", "column.desc.nullslast, …"), ("limit", "At most 10000; 1000 without"), ("offset", "")
    )
    operations: dict[str, Any] = {}
    for verb, method in _METHODS.items():
        need = rule(table.name, verb)
        if (verb != "read" and verb not in table.verbs) or need.nobody:
            continue
        operation: dict[str, Any] = {
            "tags": [table.name],
            "summary": f"{verb.capitalize()} {table.name}",
            "description": needs(need),
            "parameters": [*shape, _PREFER],
            "responses": {"4XX": {"$ref": "#/components/responses/Refused"}},
        }
        if verb != "insert":
            operation["parameters"] += filters
        if verb == "read":
            operation["parameters"] += page
            operation["responses"]["200"] = _json("Rows", rows)
            operation["responses"]["206"] = _json("Some of the rows that were counted", rows)
            operation["responses"]["304"] = {"description": "As the ETag says"}
        elif verb == "insert":
            operation["parameters"] += _parameters(
                ("columns", "Which columns are written"), ("on_conflict", "The key of an upsert")
            )
            operation["requestBody"] = _body({"oneOf": [row, rows]})
            operation["responses"]["201"] = _json("Written; rows with return=representation", rows)
        else:
            if verb == "update":
                operation["requestBody"] = _body(row)
            operation["responses"]["200"] = _json("Rows, with return=representation", rows)
            operation["responses"]["204"] = {"description": "Done"}
        operations[method] = operation
    return operations


def needs(need: Need) -> str:
    """A permission in words."""
    parts = []
    if need.permissions:
        parts.append(" or ".join(need.permissions))
    if need.roles:
        parts.append(f"role {' or '.join(need.roles)}")
    if need.own_column:
        parts.append("rows of the caller's own")
    return f"Needs {', '.join(parts)}." if parts else "For every member."


def function_needs(need: FunctionNeed) -> str:
    """What a function asks, in words."""
    parts: list[str] = list(need.permissions)
    if need.roles:
        parts.append(f"role {' or '.join(need.roles)}")
    if parts:
        return f"Needs {' and '.join(parts)}."
    return {
        "anybody": "For everybody.",
        "person": "For every signed-in user.",
        "caller": "For every signed-in user and every key.",
        "member": "For every member and key of an organization.",
    }[need.who]


def _call(function: Function) -> dict[str, Any]:
    arguments = {a.name: column_schema(Column(a.name, a.type)) for a in function.arguments}
    body = {
        "type": "object",
        "properties": arguments,
        "required": [a.name for a in function.arguments if a.is_required],
    }
    if function.table is not None:
        one: dict[str, Any] = {"$ref": f"#/components/schemas/{function.table}"}
    elif function.columns:
        one = {"type": "object", "properties": {n: column_schema(c) for n, c in function.columns.items()}}
    else:
        one = column_schema(Column("", function.returns))
    result = {"type": "array", "items": one} if function.is_set else one
    responses = {
        "200": _json("What it returns", result),
        "4XX": {"$ref": "#/components/responses/Refused"},
    }
    if function.returns == "void":
        responses = {"204": {"description": "Done"}, "4XX": responses["4XX"]}
    common = {"tags": ["rpc"], "summary": function.description or function.name, "responses": responses}
    found: dict[str, Any] = {"post": {**common, "requestBody": _body(body)}}
    if not function.is_volatile:
        found["get"] = {**common, "parameters": _parameters(*((a.name, a.type) for a in function.arguments))}
    return found


def _function(name: str, function: Any, method: str) -> dict[str, Any]:
    document = {"type": "array", "items": {"type": "object"}} if name in _LISTS else {"type": "object"}
    operation: dict[str, Any] = {
        "tags": ["functions"],
        "summary": summary_of(function.handler) or name,
        "description": function_needs(FUNCTION_NEEDS[name]),
        "parameters": _in_path(name),
        "responses": {
            "200": {"description": "Done", "content": {"application/json": {"schema": document}}},
            "4XX": {"$ref": "#/components/responses/Refused"},
        },
    }
    if method == "POST" and function.body is not None:
        operation["requestBody"] = _body(struct_schema(function.body))
    return operation


def _auth(path: str, method: str, handler: Any) -> dict[str, Any]:
    return {
        "tags": ["auth"],
        "summary": summary_of(handler) or path,
        "security": [],
        "parameters": _in_path(path),
        "responses": {
            "200": {"description": "Done", "content": {"application/json": {"schema": {}}}},
            "4XX": {"$ref": "#/components/responses/Refused"},
        },
    } | ({"requestBody": _body({"type": "object"})} if method in ("POST", "PUT") else {})


def _webhook(summary: str) -> dict[str, Any]:
    return {
        "tags": ["webhooks"], "summary": summary, "security": [],
        "responses": {"200": {"description": "Durable"}, "4XX": {"$ref": "#/components/responses/Refused"}},
    }  # fmt: skip


def _process() -> dict[str, Any]:
    told = {
        "/healthz": "The process is alive", "/readyz": "Whether it serves, and what is away",
        "/config.json": "What the web app knows before anybody signs in",
        "/openapi.json": "This description",
    }  # fmt: skip
    return {
        path: {"get": {"tags": ["process"], "summary": summary, "security": [],
                       "responses": {"200": {"description": "Yes"}, "503": {"description": "Not now"}}}}
        for path, summary in told.items()
    }  # fmt: skip


def struct_schema(kind: type) -> dict[str, Any]:
    """A body's JSON schema, without references to others."""
    (schema,), components = msgspec.json.schema_components([kind])
    found: dict[str, Any] = _inlined(schema, components)
    return found


def _inlined(schema: Any, components: dict[str, Any]) -> Any:
    if isinstance(schema, dict):
        if isinstance(schema.get("$ref"), str):  # a member of that name is none
            return _inlined(components[schema["$ref"].rpartition("/")[2]], components)
        return {k: _inlined(v, components) for k, v in schema.items() if k != "title"}
    return [_inlined(v, components) for v in schema] if isinstance(schema, list) else schema


def summary_of(handler: Any) -> str:
    """The first sentence of a docstring."""
    text = " ".join((inspect.getdoc(handler) or "").split())
    return re.split(r"(?<=[.;:])\s", text)[0].rstrip(".;:")


def _in_path(name: str) -> list[dict[str, Any]]:
    return [
        {"name": n, "in": "path", "required": True, "schema": {"type": "string"}}
        for n in re.findall(r"\{(\w+)\}", name)
    ]


def _parameters(*named: tuple[str, str]) -> list[dict[str, Any]]:
    return [
        {"name": n, "in": "query", "schema": {"type": "string"}, "description": text} for n, text in named
    ]


def _json(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _body(schema: dict[str, Any]) -> dict[str, Any]:
    return {"content": {"application/json": {"schema": schema}}}


class Description:
    """The document as one hub answers it, written once for a schema. It needs no key: what it tells stands in
    docs/, and /config.json gives everybody the key with which /rest/v1/ tells it too."""

    def __init__(self) -> None:
        self._schema: Schema | None = None
        self._tag = ""
        self._packed = b""

    async def handle(self, request: web.Request) -> web.Response:
        schema = (await request.app[CATALOG].compiler()).schema
        if schema is not self._schema:
            # relative to where it was read: a proxy may have another scheme, name and port
            text = json.dumps(describe(schema, "/"), ensure_ascii=False).encode()
            self._packed = gzip.compress(text, 6, mtime=0)
            self._tag = f'"{hashlib.sha256(text).hexdigest()[:32]}"'
            self._schema = schema
        headers = {
            "Cache-Control": "no-cache", "ETag": self._tag, "Vary": "Accept-Encoding",
            "Content-Type": "application/json; charset=utf-8",
        }  # fmt: skip
        if self._tag in request.headers.get("If-None-Match", ""):
            return web.Response(status=304, headers=headers)
        if "gzip" in request.headers.get("Accept-Encoding", ""):
            return web.Response(body=self._packed, headers={**headers, "Content-Encoding": "gzip"})
        return web.Response(body=gzip.decompress(self._packed), headers=headers)


def routes() -> list[web.RouteDef]:
    return [web.get("/openapi.json", Description().handle)]
