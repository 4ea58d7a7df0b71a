"""GET /rest/v1/: what the caller may use, as the Swagger 2.0 document that PostgREST writes.

Code generators read `<pk/>` and `<fk table='…' column='…'/>` in the descriptions of columns.
"""

from __future__ import annotations

from typing import Any, Final

from hub import __version__
from hub.domain.permissions import Verb, missing
from hub.domain.principal import Principal
from hub.rest.schema import Column, Function, Schema, Table

_FORMATS: Final = {"integer": "integer", "bigint": "integer", "numeric": "number", "boolean": "boolean"}
_VERBS: Final[dict[Verb, str]] = {"read": "get", "insert": "post", "update": "patch", "delete": "delete"}
_SHARED: Final = ("select", "order", "limit", "offset", "on_conflict", "columns")


def swagger(schema: Schema, principal: Principal, host: str) -> dict[str, Any]:
    paths: dict[str, Any] = {
        "/": {"get": {"tags": ["Introspection"], "produces": ["application/openapi+json"],
                      "responses": {"200": {"description": "OK"}}}}
    }  # fmt: skip
    definitions: dict[str, Any] = {}
    parameters: dict[str, Any] = {
        name: {"name": name, "in": "query", "required": False, "type": "string"} for name in _SHARED
    }
    parameters["prefer"] = {"name": "Prefer", "in": "header", "required": False, "type": "string"}
    for name, table in sorted(schema.tables.items()):
        operations = {
            method: _operation(table, verb)
            for verb, method in _VERBS.items()
            if (verb == "read" or verb in table.verbs) and may(principal, name, verb)
        }
        if not operations:
            continue
        paths[f"/{name}"] = operations
        definitions[name] = _definition(schema, table)
        for column in table.columns.values():
            parameters[f"rowFilter.{name}.{column.name}"] = {
                "name": column.name, "in": "query", "required": False, "type": "string",
            }  # fmt: skip
        parameters[f"body.{name}"] = {
            "name": name, "in": "body", "required": False, "schema": {"$ref": f"#/definitions/{name}"},
        }  # fmt: skip
    if principal.kind != "anon":
        for name, overloads in sorted(schema.functions.items()):
            paths[f"/rpc/{name}"] = _call(overloads[0])
    return {
        "swagger": "2.0",
        "info": {"title": "ConnectGain Hub", "version": __version__, "description": "docs/rest.md"},
        "host": host, "basePath": "/rest/v1", "schemes": ["http", "https"],
        "consumes": ["application/json", "application/vnd.pgrst.object+json", "text/csv"],
        "produces": ["application/json", "application/vnd.pgrst.object+json", "text/csv"],
        "paths": paths, "definitions": definitions, "parameters": parameters,
    }  # fmt: skip


def may(principal: Principal, table: str, verb: Verb) -> bool:
    """The anon key reads nothing, but is told of nothing that would be hidden from it either."""
    if principal.kind == "service":
        return True
    if principal.kind == "anon":
        return verb == "read"
    return missing(table, verb, principal.role, principal.permissions) is None


def _operation(table: Table, verb: Verb) -> dict[str, Any]:
    shared = {
        "read": ["select", "order", "limit", "offset"], "insert": ["select", "columns", "on_conflict"],
        "update": ["select", "columns"], "delete": ["select"],
    }[verb]  # fmt: skip
    named = [f"#/parameters/{name}" for name in (*shared, "prefer")]
    if verb != "insert":
        named += [f"#/parameters/rowFilter.{table.name}.{column}" for column in table.columns]
    if verb in ("insert", "update"):
        named.append(f"#/parameters/body.{table.name}")
    rows = {"type": "array", "items": {"$ref": f"#/definitions/{table.name}"}}
    status = {"read": "200", "insert": "201", "update": "204", "delete": "204"}[verb]
    return {
        "tags": [table.name],
        "parameters": [{"$ref": name} for name in named],
        "responses": {status: {"description": "OK", **({"schema": rows} if verb == "read" else {})}},
    }


def _definition(schema: Schema, table: Table) -> dict[str, Any]:
    ways = {
        way.column(0): way
        for way in schema.relationships.get(table.name, ())
        if way.cardinality == "many-to-one"
    }
    properties = {}
    for name, column in table.columns.items():
        found = _property(column)
        notes = ["This is a Primary Key.<pk/>"] if name in table.key else []
        if name in ways:
            target, to = ways[name].target, ways[name].column(1)
            note = f"This is a Foreign Key to `{target}.{to}`.<fk table='{target}' column='{to}'/>"
            notes.append(note)
        if notes:
            found["description"] = "Note:\n" + "\n".join(notes)
        properties[name] = found
    required = [name for name, column in table.columns.items() if column.is_required]
    made: dict[str, Any] = {"type": "object", "properties": properties}
    if required:
        made["required"] = required
    if table.description:
        made["description"] = table.description
    return made


def _property(column: Column) -> dict[str, Any]:
    """Integers have the format of their size, everything else the name of its type."""
    sizes = {"integer": "int32", "bigint": "int64"}
    found: dict[str, Any] = {"format": sizes.get(column.type, column.type)}
    if column.type.endswith("[]"):
        found |= {"type": "array", "items": {"type": _FORMATS.get(column.type[:-2], "string")}}
    elif not column.is_json:
        found["type"] = _FORMATS.get(column.type, "string")
    if column.words:
        found["enum"] = list(column.words)
    if column.default is not None:
        found["default"] = column.default
    return found


def _call(function: Function) -> dict[str, Any]:
    arguments = {a.name: _property(Column(a.name, a.type)) for a in function.arguments}
    body = {
        "in": "body", "name": "args", "required": True,
        "schema": {"type": "object", "properties": arguments,
                   "required": [a.name for a in function.arguments if a.is_required]},
    }  # fmt: skip
    common: dict[str, Any] = {
        "tags": [f"(rpc) {function.name}"], "summary": function.description or function.name,
        "responses": {"200": {"description": "OK"}},
    }  # fmt: skip
    found = {"post": {**common, "parameters": [body]}}
    if not function.is_volatile:
        found["get"] = {
            **common,
            "parameters": [
                {"name": a.name, "in": "query", "required": a.is_required, "type": "string"}
                for a in function.arguments
            ],
        }
    return found
