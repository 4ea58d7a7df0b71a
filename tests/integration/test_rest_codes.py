"""Every code that /rest/v1 refuses with, brought about over HTTP (rest.md 11.2), which of two refusals wins
(2.3), and what stands beside a code (11.1, 11.4)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import jwt
import msgspec
import pytest

from hub import clock
from hub.db import pool
from hub.db.embedded import EmbeddedValkey
from hub.domain.permissions import PERMISSIONS
from hub.resources import AUTH, CATALOG, DB
from hub.rest import refusals
from tests.attack.people import make_key
from tests.factories import Member, Org, Servers, make_contact, until
from tests.server import Answer, Hub, running_hub

SINGLE = {"Accept": "application/vnd.pgrst.object+json"}
#: Functions that somebody may add, each with a mistake of its own.
RAISING = """
create function public.bad_status() returns text language plpgsql volatile
  as $$ begin perform set_config('response.status', 'nine', true); return ''; end $$;
create function public.bad_headers() returns text language plpgsql volatile
  as $$ begin perform set_config('response.headers', '{"a": 1}', true); return ''; end $$;
create function public.bad_raise() returns text language plpgsql volatile
  as $$ begin raise sqlstate 'PGRST' using message = 'no json'; end $$;
create function public.either_way(a integer, b integer default 1) returns integer language sql
  as $$ select a $$;
create function public.either_way(a integer, c text default '') returns integer language sql
  as $$ select a $$;
"""


class Scene(msgspec.Struct):
    """What a case may use."""

    hub: Hub
    token: str
    owner: Member
    superuser: asyncpg.Connection
    servers: Servers
    valkey: EmbeddedValkey
    folder: Path
    monkeypatch: pytest.MonkeyPatch

    async def call(self, method: str, path: str, **options: Any) -> Answer:
        return await self.hub.call(method, f"/rest/v1/{path}", token=self.token, **options)


@pytest.fixture
async def scene(
    hub: Hub, owner: Member, org: Org, superuser: asyncpg.Connection, servers: Servers,
    valkey: EmbeddedValkey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> Scene:  # fmt: skip
    for _ in range(2):
        await make_contact(superuser, org)
    await superuser.execute(RAISING)
    token = await hub.token(owner.email)
    return Scene(hub, token, owner, superuser, servers, valkey, tmp_path, monkeypatch)


Case = Callable[[Scene], Awaitable[Answer]]


def asked(method: str, path: str, **options: Any) -> Case:
    async def case(s: Scene) -> Answer:
        return await s.call(method, path, **options)

    return case


async def no_database(s: Scene) -> Answer:
    """A server that takes no new connections; those that were open are ended."""
    await s.call("GET", "contacts")
    name = await s.superuser.fetchval("select current_database()")
    await s.superuser.execute(f"alter database {name} connection limit 0")
    try:
        await s.superuser.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database()"
            " and pid <> pg_backend_pid()"
        )

        async def is_noticed() -> Answer | None:
            answer = await s.call("GET", "contacts")
            assert answer.status == 503, answer
            return None if answer.json["code"] == "PGRST001" else answer  # one that was just being lost

        found: Answer = await until(is_noticed, what="the lost connections to be noticed")
        return found
    finally:
        await s.superuser.execute(f"alter database {name} connection limit -1")


async def no_schema(s: Scene) -> Answer:
    """It must be read again, and nobody answers."""
    s.monkeypatch.setattr(pool, "ACQUIRE_TIMEOUT_S", 0.2)
    s.hub.app[CATALOG].forget()
    async with s.hub.app[DB].connection("admin"):
        return await s.call("GET", "contacts")


async def no_connection(s: Scene) -> Answer:
    """All that there may be are in use."""
    await s.call("GET", "contacts")
    s.monkeypatch.setattr(pool, "ACQUIRE_TIMEOUT_S", 0.2)
    async with AsyncExitStack() as held:
        for _ in range(pool.SIZES["read"]):
            await held.enter_async_context(s.hub.app[DB].connection("read"))
        return await s.call("GET", "contacts")


async def no_aggregates(s: Scene) -> Answer:
    off = {"HUB_REST_AGGREGATES": "off", "PUBLIC_BASE_URL": s.hub.settings.public_base_url}
    async with running_hub(s.servers, s.valkey.url, s.folder / "off", **off) as hub:
        return await hub.get("/rest/v1/contacts?select=count()", token=s.token)


async def too_late(s: Scene) -> Answer:
    await s.call("GET", "contacts")
    try:
        clock.set_offset(3700)
        return await s.call("GET", "contacts")
    finally:
        clock.set_offset(0)


async def nobody(s: Scene) -> Answer:
    return await s.hub.get("/rest/v1/contacts")


async def garbage(s: Scene) -> Answer:
    return await s.hub.get("/rest/v1/contacts", token="garbage")


PUT = "contacts?id=eq.018f3c1e-0000-7000-8000-000000000001"
#: The table, row by row. None: the state cannot be brought about here; the reason stands beside it.
ROWS: list[tuple[str, int, Case | None]] = [
    ("PGRST000", 503, no_database),
    ("PGRST001", 503, None),  # a connection lost half-way: tests/fault N-01, D-04
    ("PGRST002", 503, no_schema),
    ("PGRST003", 503, no_connection),  # 504 there; guarantees 12 says 503, which clients try again
    ("PGRST100", 400, asked("GET", "contacts?select=deals(")),
    ("PGRST101", 405, asked("PATCH", "rpc/inbox_counts", json={})),
    ("PGRST102", 400, asked("POST", "contacts", data="{", headers={"Content-Type": "application/json"})),
    ("PGRST103", 416, asked("GET", "contacts?offset=9", headers={"Prefer": "count=exact"})),
    ("PGRST105", 405, asked("PUT", "contacts?first_name=eq.A", json={"first_name": "A"})),
    ("PGRST106", 406, asked("GET", "contacts", headers={"Accept-Profile": "auth"})),
    ("PGRST107", 406, asked("GET", "contacts", headers={"Accept": "image/png"})),
    ("PGRST108", 400, asked("GET", "contacts?companies.name=eq.x")),
    ("PGRST111", 500, asked("POST", "rpc/bad_headers")),
    ("PGRST112", 500, asked("POST", "rpc/bad_status")),
    ("PGRST114", 400, asked("PUT", f"{PUT}&limit=1", json={"id": PUT[-36:]})),
    ("PGRST115", 400, asked("PUT", PUT, json={"id": str(uuid4())})),
    ("PGRST116", 406, asked("GET", "contacts", headers=SINGLE)),
    ("PGRST117", 405, asked("TRACE", "contacts")),
    ("PGRST118", 400, asked("GET", "contacts?select=deals(title)&order=deals(title)")),
    ("PGRST120", 400, asked("GET", "contacts?select=deals(title)&deals=eq.x")),
    ("PGRST121", 500, asked("POST", "rpc/bad_raise")),
    ("PGRST122", 400, asked("GET", "contacts", headers={"Prefer": "handling=strict, speed=fast"})),
    ("PGRST123", 400, no_aggregates),
    ("PGRST124", 400, asked("DELETE", "contacts?id=not.is.null",
                            headers={"Prefer": "handling=strict, max-affected=1"})),
    ("PGRST125", 404, asked("GET", "contacts/1")),
    ("PGRST126", 404, None),  # the root document has no switch
    ("PGRST127", 400, asked("GET", "contacts?select=...deals(value.sum())")),
    ("PGRST128", 400, asked("POST", "rpc/current_organization_id",
                            headers={"Prefer": "handling=strict, max-affected=1"})),
    ("PGRST200", 400, asked("GET", "contacts?select=webhooks(*)")),
    ("PGRST201", 300, asked("GET", "messages?select=messages!messages_reply_to_id_fkey(*)")),
    ("PGRST202", 404, asked("POST", "rpc/nope")),
    ("PGRST203", 300, asked("POST", "rpc/either_way", json={"a": 1})),
    ("PGRST204", 400, asked("POST", "contacts", json={"nope": 1})),
    ("PGRST205", 404, asked("GET", "nope")),
    ("PGRST300", 500, None),  # the hub makes its secret before it serves
    ("PGRST301", 401, garbage),
    ("PGRST302", 401, nobody),
    ("PGRST303", 401, too_late),
]  # fmt: skip
DOCUMENTED = {
    300: "VALIDATION_ERROR", 400: "VALIDATION_ERROR", 401: "AUTHENTICATION_FAILED",
    404: "RESOURCE_NOT_FOUND", 405: "VALIDATION_ERROR", 406: "VALIDATION_ERROR", 416: "VALIDATION_ERROR",
    500: "INTERNAL_ERROR", 503: "SERVICE_UNAVAILABLE",
}  # fmt: skip


@pytest.mark.parametrize(("code", "status", "case"), ROWS, ids=[row[0] for row in ROWS])
async def test_11_2_codes_and_their_statuses(scene: Scene, code: str, status: int, case: Case | None) -> None:
    """C-14, ERR-01: each has the one body, with the document's code, and texts where clients want texts."""
    if case is None:
        sources = Path(refusals.__file__).parents[1]
        said = [p for p in sources.rglob("*.py") if "node_modules" not in p.parts and code in p.read_text()]
        assert bool(said) == (code == "PGRST001"), "a code that the hub can say is brought about here"
        return
    answer = await case(scene)
    assert (answer.status, answer.json["code"]) == (status, code), answer
    body = answer.json
    assert body.keys() == {"error", "message", "code", "details", "hint", "error_code", "request_id"}
    assert body["error"] == body["message"] != ""
    assert all(body[name] is None or isinstance(body[name], str) for name in ("code", "message", "hint"))
    assert isinstance(body["details"], list if code == "PGRST201" else str | None)
    assert body["error_code"] == DOCUMENTED[status]
    assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
    assert answer.headers["Proxy-Status"] == f"PostgREST; error={code}"
    assert ("Retry-After" in answer.headers) == (status == 503), "ERR-11"
    bearer = answer.headers.get("WWW-Authenticate", "")
    assert bearer.startswith("Bearer") == (status == 401)
    assert ('error="invalid_token"' in bearer) == (code in ("PGRST301", "PGRST303"))
    assert ("Allow" in answer.headers) == (status == 405)


@pytest.mark.parametrize(
    ("method", "path", "options", "code"),
    [
        # each names two mistakes; the earlier stage's is told
        ("GET", "contacts/1?select=(", {"token": "garbage"}, "PGRST301"),
        ("GET", "contacts/1?select=(", {"headers": {"Accept-Profile": "x"}}, "PGRST125"),
        ("TRACE", "contacts", {"headers": {"Accept-Profile": "x", "Content-Profile": "x"}}, "PGRST106"),
        ("TRACE", "nope?select=(", {}, "PGRST117"),
        ("GET", "nope?select=(", {}, "PGRST100"),
        ("GET", "nope?limit=-1", {}, "PGRST103"),
        ("GET", "nope", {"headers": {"Range": "9-0"}}, "PGRST103"),
        ("POST", "nope?select=(", {"data": "{"}, "PGRST100"),
        ("POST", "nope", {"data": "{"}, "PGRST102"),
        ("POST", "contacts?select=webhooks(*)", {"json": {"nope": 1}}, "PGRST204"),
        ("GET", "nope", {"headers": {"Accept": "image/png"}}, "PGRST205"),
        ("GET", "contacts?select=webhooks(*)", {"headers": {"Accept": "image/png"}}, "PGRST200"),
        ("GET", "contacts?id=eq.x", {"headers": {"Accept": "image/png"}}, "PGRST107"),
        ("POST", "contacts", {"json": {"company_id": "x"}, "headers": {"Accept": "image/png"}}, "PGRST107"),
        ("GET", "contacts?nope=nope.1", {}, "PGRST100"),
    ],
)  # fmt: skip
async def test_2_3_the_earlier_stage_speaks(
    scene: Scene, method: str, path: str, options: dict[str, Any], code: str
) -> None:
    given = {"token": scene.token, **options}
    if "data" in given:
        given["headers"] = {"Content-Type": "application/json"}
    answer = await scene.hub.call(method, f"/rest/v1/{path}", **given)
    assert answer.json["code"] == code, answer


@pytest.mark.parametrize(
    ("role", "status", "code"),
    [
        ("postgres", 401, "22023"), ("authenticated", 401, "PGRST301"), ("anon", 200, None),
        (None, 200, None), ("service_role", 200, None),
    ],
)  # fmt: skip
async def test_1_5_the_role_of_a_token_of_the_projects_secret(
    scene: Scene, role: str | None, status: int, code: str | None
) -> None:
    """One without a role is anon; the secret signs for no other role than its own two."""
    kid, secret, born = (await scene.hub.app[AUTH].keyring())._project or ("", b"", 0)
    claims = {"exp": born + 3600 * 24, "iat": born, **({} if role is None else {"role": role})}
    token = jwt.encode(claims, secret, algorithm="HS256", headers={"kid": kid})
    answer = await scene.hub.get("/rest/v1/contacts", token=token)
    assert answer.status == status, answer
    if code is not None:
        assert answer.json["code"] == code
    else:
        assert len(answer.json) == (2 if role == "service_role" else 0)


async def test_2_1_segments_are_decoded(scene: Scene) -> None:
    for name in ("nope%20nope", "%D8%A3%D8%AD", "%22contacts%22"):
        answer = await scene.call("GET", name)
        assert (answer.status, answer.json["code"]) == (404, "PGRST205"), answer
    assert (await scene.call("GET", "%63ontacts")).status == 200


async def test_11_5_an_error_of_HEAD_is_in_its_headers(scene: Scene) -> None:
    answer = await scene.call("HEAD", "nope")
    assert (answer.status, answer.body) == (404, b"")
    assert answer.headers["Proxy-Status"] == "PostgREST; error=PGRST205"


#: What each permission opens: method, path, body.
OPENS: dict[str, list[tuple[str, str, Any]]] = {
    "can_access_crm": [("GET", "companies", None), ("GET", "deals", None), ("GET", "pipelines", None),
                       ("GET", "notes", None), ("POST", "contacts", [])],
    "can_access_pm": [("GET", "projects", None), ("GET", "milestones", None), ("POST", "projects", [])],
    "can_manage_team": [("GET", "invitations", None), ("POST", "teams", [])],
    "can_manage_settings": [("GET", "webhooks", None), ("POST", "channel_accounts", []),
                            ("PATCH", "organizations?id=is.null", {}), ("POST", "automation_rules", [])],
    "can_send_messages": [("POST", "messages", []), ("POST", "conversations", []), ("POST", "campaigns", [])],
    "can_read_messages": [("GET", "conversations", None), ("GET", "messages", None)],
}  # fmt: skip


@pytest.mark.parametrize("permission", OPENS)
async def test_PERM_1_to_6_each_permission_opens_its_tables_and_says_when_it_is_missing(
    scene: Scene, org: Org, permission: str
) -> None:
    """PERM-1 to PERM-6, ERR-07, AUTH-04: for a key that holds it alone, and for one that holds all others."""
    alone, _ = await make_key(scene.hub, scene.superuser, org, (permission,))
    others, _ = await make_key(scene.hub, scene.superuser, org, set(PERMISSIONS) - {permission})
    for method, path, body in OPENS[permission]:
        options = {} if body is None else {"json": body}
        opened = await scene.hub.call(method, f"/rest/v1/{path}", key=alone, **options)
        assert opened.status in (200, 201, 204), (path, opened)
        closed = await scene.hub.call(method, f"/rest/v1/{path}", key=others, **options)
        assert (closed.status, closed.json["error_code"]) == (403, "INSUFFICIENT_PERMISSIONS"), path
        assert permission in closed.json["details"], (path, closed.json["details"])


BREAK = """
create function public.break() returns trigger language plpgsql
  as $$ begin raise exception 'broken inside' using errcode = 'XX000'; end $$;
create trigger break before insert on contacts for each row when (new.first_name = 'Break')
  execute function public.break();
"""


@pytest.mark.parametrize(
    ("row", "status", "error_code", "rest", "function"),
    [
        ("ERR-03", 400, "VALIDATION_ERROR", ("POST", "contacts", "{"), ("POST", "generate-api-key", "{")),
        ("ERR-05", 401, "AUTHENTICATION_FAILED", ("GET", "contacts", "garbage"),
         ("GET", "list-organizations", "garbage")),
        ("ERR-06", 401, "INVALID_API_KEY", ("GET", "contacts", "cg_garbage"),
         ("GET", "list-organizations", "cg_garbage")),
        ("ERR-07", 403, "INSUFFICIENT_PERMISSIONS", ("POST", "organizations", {"name": "x"}), None),
        ("ERR-08", 404, "RESOURCE_NOT_FOUND", ("GET", "nope", None), ("GET", "nope", None)),
        ("ERR-03", 409, "VALIDATION_ERROR", ("POST", "contacts", {"id": "{contact}"}),
         ("POST", "batch", {"operations": [
             {"method": "POST", "path": "contacts", "body": {"id": "{contact}"}}]})),
        ("ERR-09", 422, "VALIDATION_ERROR", ("POST", "contacts", {"emails": ["x"]}),
         ("POST", "generate-api-key", {"name": ""})),
        ("ERR-03", 500, "INTERNAL_ERROR", ("POST", "contacts", {"first_name": "Break"}),
         ("POST", "batch", {"operations": [
             {"method": "POST", "path": "contacts", "body": {"first_name": "Break"}}]})),
        ("ERR-11", 503, "SERVICE_UNAVAILABLE", ("POST", "contacts", {"first_name": "x"}),
         ("GET", "events", None)),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)  # fmt: skip
async def test_ERR_03_the_documents_statuses_on_both_surfaces(
    scene: Scene, row: str, status: int, error_code: str, rest: Any, function: Any
) -> None:
    """ERR-03, ERR-05 to ERR-11, C-14: one body; of a 500 nothing but its request id, of a 503 when to come
    again."""
    await scene.superuser.execute(BREAK)
    contact = str(await scene.superuser.fetchval("select id from contacts limit 1"))
    if status == 503:
        await scene.call("GET", "contacts")
        scene.monkeypatch.setattr(pool, "ACQUIRE_TIMEOUT_S", 0.2)
    async with AsyncExitStack() as held:
        for purpose in ("api", "read", "live") if status == 503 else ():
            for _ in range(pool.SIZES[purpose]):
                await held.enter_async_context(scene.hub.app[DB].connection(purpose))
        for surface, asked_ in (("rest", rest), ("functions", function)):
            if asked_ is None:
                continue
            method, path, given = asked_
            options: dict[str, Any] = {"token": scene.token}
            if isinstance(given, str) and status == 400:
                options |= {"data": given, "headers": {"Content-Type": "application/json"}}
            elif isinstance(given, str):
                options = {"key" if given.startswith("cg_") else "token": given}
            elif given is not None:
                text = msgspec.json.encode(given).decode().replace("{contact}", contact)
                options |= {"data": text, "headers": {"Content-Type": "application/json"}}
            answer = await scene.hub.call(method, f"/{surface}/v1/{path}", **options)
            assert answer.status == status, (row, surface, answer)
            body = answer.json
            assert {"error", "message", "code", "details", "hint", "error_code", "request_id"} <= body.keys()
            assert body["error"] == body["message"] and body["request_id"] == answer.headers["X-Request-Id"]
            assert body["error_code"] in (error_code, "BAD_REQUEST", "CONFLICT"), (surface, body)
            if surface == "rest":
                assert body["error_code"] == error_code
            assert ("Retry-After" in answer.headers) == (status == 503)
            if status == 500:
                assert "broken" not in answer.body.decode() and body["details"] is None
