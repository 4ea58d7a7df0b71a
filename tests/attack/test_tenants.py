"""One organization against another, over every route (X-01, X-03 to X-05, X-25, X-34).

Inside Postgres, table by table: tests/integration/test_neighbours.py.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import UUID, uuid4

import aiohttp
import asyncpg
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hub.db import pool
from hub.db.embedded import EmbeddedValkey
from hub.db.pool import Database
from hub.db.tenancy import acting_as, reading_as, reading_context
from hub.domain.permissions import PERMISSIONS, RULES
from hub.domain.principal import ANON, Principal
from hub.errors import HubError, Unavailable
from hub.realtime.protocol import AnyCommand
from hub.resources import CATALOG, DB
from hub.rest.compiler import Compiler, WriteShape
from hub.rest.grammar import OPERATORS, parse_query
from hub.rest.statement import Statement
from hub.rest.tree import Embed, Field, Item
from tests.attack.people import token_of, told_apart
from tests.attack.sizes import scaled
from tests.attack.twins import CANARY, callers, checksums, ids, spread, two
from tests.factories import Servers, make_contact, make_conversation, make_member, make_org, until
from tests.rows import ROWS, Filled, values_for
from tests.server import Hub, running_hub

WIDE = {f"HUB_RATE_{n}": "1000000" for n in ("REST", "FUNCTIONS", "EXTERNAL", "WEB")}
REPRESENT = {"Prefer": "return=representation,count=exact"}


@pytest.fixture
async def wide(servers: Servers, valkey: EmbeddedValkey, tmp_path: Path) -> AsyncIterator[Hub]:
    async with running_hub(servers, valkey.url, tmp_path, **WIDE) as hub:
        yield hub


@pytest.fixture
async def twins(superuser: asyncpg.Connection) -> tuple[Filled, Filled]:
    return await two(superuser)


def plain(values: dict[str, Any]) -> dict[str, Any]:
    return {k: str(v) if isinstance(v, UUID) else v for k, v in values.items()}


def requests_with(id: UUID, table: str, a: Filled, b_org: UUID) -> list[tuple[str, str, Any]]:
    """Every way to name one row of ``table``: method, path, body."""
    t = f"/rest/v1/{table}"
    key = "user_id" if table in ("memberships", "drafts", "conversation_reads", "team_members") else "id"
    found: list[tuple[str, str, Any]] = [
        ("GET", f"{t}?{key}=eq.{id}", None), ("GET", f"{t}?{key}=in.({id},{uuid4()})", None),
        ("GET", f"{t}?or=({key}.eq.{id},created_at.is.null)", None), ("GET",
        f"{t}?not.and=({key}.neq.{id})", None),
        ("HEAD", f"{t}?{key}=eq.{id}", None), ("PATCH", f"{t}?{key}=eq.{id}", {"created_at": "2020-01-01"}),
        ("DELETE", f"{t}?{key}=eq.{id}", None),
    ]  # fmt: skip
    if table in ROWS:
        values = plain(values_for(table, a))
        if key == "id":
            found.append(("POST", t, {**values, "id": str(id)}))
            found.append(("POST", f"{t}?on_conflict=id", {**values, "id": str(id)}))
        found.append(("POST", t, {**values, "organization_id": str(b_org)}))
        found.append(("PATCH", f"{t}?{key}=eq.{id}", {"organization_id": str(a.org.id)}))
    return found


async def test_X01_no_route_shows_or_changes_the_neighbours_rows(
    wide: Hub, superuser: asyncpg.Connection, twins: tuple[Filled, Filled], capfd: pytest.CaptureFixture[str]
) -> None:
    """Every table × verb × way of naming a row, every function, sign-in's routes; for owner, admin, agent,
    bare agent, keys, the anon key, a user of nowhere and a stranger: no canary in any body, header or log
    line, and the neighbour's rows as they were."""
    a, b = twins
    before = await checksums(superuser, b)
    theirs = ids(b)
    gate = asyncio.Semaphore(8)
    leaks: list[Any] = []
    asked = 0

    async def ask(who: str, how: dict[str, str], method: str, path: str, body: Any, **headers: str) -> None:
        nonlocal asked
        options = {"json": body} if body is not None else {}
        async with gate:
            answer = await wide.call(method, path, headers={**REPRESENT, **headers}, **how, **options)  # type: ignore[arg-type]
        asked += 1
        if CANARY in spread(answer) or answer.status >= 500:
            leaks.append((who, method, path, body, answer))

    people = await callers(wide, superuser, a)
    work = []
    for who, how in people.items():
        for table in [*ROWS, "memberships", "channel_accounts", "organizations", "profiles"]:
            key = "id" if table == "organizations" else "organization_id"
            t = f"/rest/v1/{table}"
            for query in (
                "",
                f"?{key}=eq.{b.org.id}",
                f"?{key}=neq.{a.org.id}",
                "?select=*&order=created_at",
                "?limit=10000",
            ):
                work.append(ask(who, how, "GET", t + query, None))
            id = theirs.get(table, b.owner.id)
            for method, path, body in requests_with(id, table, a, b.org.id):
                work.append(ask(who, how, method, path, body))
                if method == "POST":
                    work.append(
                        ask(
                            who,
                            how,
                            method,
                            path,
                            body,
                            Prefer="resolution=merge-duplicates,return=representation",
                        )
                    )
        f = "/functions/v1"
        contact, conversation = str(theirs["contacts"]), str(theirs["conversations"])
        record = {"content": "x", "direction": "incoming", "status": "received"}
        for name, body in (
            ("insert-message", {**record, "contact_id": contact}), ("insert-message", {**record,
            "external_id": contact}),
            ("insert-message", {**record, "phone": "+201001383533",
            "channel_account_id": str(b.org.account_id)}),
            ("insert-message", {**record, "phone": "+201001383533", "organization_id": str(b.org.id)}),
            ("whatsapp-cloud-send", {"to": "+201001383533", "message": "x", "conversationId": conversation}),
            ("whatsapp-cloud-send", {"to": "+201001383533", "message": "x",
            "phoneNumberId": b.org.phone_number_id}),
            ("whatsapp-cloud-send", {"to": "+201001383533", "message": "x", "organizationId": str(b.org.id)}),
            ("whatsapp-cloud-send", {"conversationId": conversation, "mediaId": str(theirs["media_files"])}),
            ("whatsapp-cloud-send", {"conversationId": conversation, "templateId": str(theirs["templates"])}),
            ("switch-organization", {"organizationId": str(b.org.id)}), ("list-organizations", {}),
        ):  # fmt: skip
            work.append(ask(who, how, "POST", f"{f}/{name}", body))
        for path in (
            f"{f}/events", f"{f}/events?after=0&limit=1000", f"{f}/webhook-failures",
            f"{f}/media/{theirs['media_files']}",
            f"{f}/list-organizations", "/auth/v1/user", "/auth/v1/settings", "/config.json", "/metrics",
            "/readyz",
        ):  # fmt: skip
            work.append(ask(who, how, "GET", path, None))
        work.append(ask(who, how, "PUT", "/auth/v1/user", {"data": {"organization_id": str(b.org.id)}}))
    random.Random(1).shuffle(work)
    await asyncio.gather(*work)
    assert leaks == []
    assert await checksums(superuser, b) == before
    assert asked >= 4000
    written = capfd.readouterr()
    assert CANARY not in written.out + written.err
    own = await wide.get("/rest/v1/contacts", **people["owner"])  # type: ignore[arg-type]
    assert own.status == 200 and str(a.org.id) in own.body.decode(), "A itself can still read"


async def test_X01_sockets_hear_and_change_nothing_of_the_neighbour(
    wide: Hub, superuser: asyncpg.Connection, twins: tuple[Filled, Filled]
) -> None:
    """Frames while B is busy, resuming at B's position and epoch, and every command with B's ids."""
    a, b = twins
    theirs = ids(b)
    people = await callers(wide, superuser, a)
    before = await checksums(superuser, b)
    head = await superuser.fetchval("select max(seq) from app.events where organization_id = $1", b.org.id)
    answers: dict[str, list[Any]] = {}
    for who in ("owner", "agent", "key"):
        async with wide.client.ws_connect(f"{wide.url}/ws", max_msg_size=0) as ws:
            credential = next(iter(people[who].values()))
            await ws.send_json({"type": "hello", "token": credential, "cursor": {"epoch": "x", "seq": head}})
            welcome = await ws.receive_json()
            assert welcome["type"] == "welcome"
            conversation = str(theirs["conversations"])
            commands = {
                "send": {"conversation_id": conversation, "content": "x", "client_ref": str(uuid4())},
                "retry": {"message_id": str(theirs["messages"])},
                "assign": {"conversation_id": conversation, "assignee_id": str(a.owner.id)},
                "close": {"conversation_id": conversation}, "reopen": {"conversation_id": conversation},
                "read": {"conversation_id": conversation, "conv_seq": 1},
                "tag": {"conversation_id": conversation, "add": ["x"]},
                "typing": {"conversation_id": conversation, "typing": True},
                "view": {"conversation_id": conversation},
            }  # fmt: skip
            known = {c.__struct_config__.tag for c in AnyCommand.__args__}
            assert known <= set(commands), f"a new command is attacked here too: {known - set(commands)}"
            for name, args in commands.items():
                await ws.send_json({"type": "command", "id": name, "name": name, "args": args})
            own = {"conversation_id": str(ids(a)["conversations"]), "assignee_id": str(b.owner.id)}
            await ws.send_json({"type": "command", "id": "theirs", "name": "assign", "args": own})
            mine = await make_contact(superuser, a.org, first_name="Ours")
            waiting = {*commands, "theirs", "event"}
            while waiting:
                frame = await ws.receive(timeout=10)
                assert frame.type is aiohttp.WSMsgType.TEXT, frame
                assert CANARY not in frame.data and str(b.org.id) not in frame.data, frame.data
                found = json.loads(frame.data)
                if found["type"] == "reply":
                    waiting.discard(found["id"])
                    answers.setdefault(found["id"], []).append(found)
                elif found["type"] == "event" and found["event"]["entity_id"] == str(mine):
                    waiting.discard("event")
    for name, found in answers.items():
        if name not in ("typing", "view"):  # ephemeral, and told to nobody (below)
            assert {f["ok"] for f in found} == {False}, (name, found)
    assert await checksums(superuser, b) == before


async def test_X03_another_organizations_id_reads_like_no_id(
    wide: Hub, superuser: asyncpg.Connection, twins: tuple[Filled, Filled]
) -> None:
    """In path, query, body, cursor and Idempotency-Key: the same status and the same words as for an id that
    nobody has."""
    a, b = twins
    theirs, none = ids(b), {t: uuid4() for t in ids(b)}
    people = await callers(wide, superuser, a)
    owner = people["owner"]
    different: list[Any] = []

    def told(answer: Any, id: Any) -> Any:
        text = answer.body.decode().replace(str(id), "<id>")
        headers = {
            k: v for k, v in answer.headers.items() if k in ("Content-Range", "Location", "Content-Type")
        }
        text = re.sub(r'"request_id":"[^"]*"', "", text)
        text = re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+\+00:00", "<time>", text)
        text = re.sub(r'"(conv_seq|version)":\d+', "", text)
        return answer.status, text, str(headers).replace(str(id), "<id>")

    async def same(method: str, path: str, body: Any, table: str, *, how: dict[str, str] = owner) -> None:
        said = []
        for found in (theirs, none):
            id = str(found[table])
            options = {"json": json.loads(json.dumps(body).replace("<id>", id))} if body is not None else {}
            said.append(
                told(
                    await wide.call(method, path.replace("<id>", id), headers=REPRESENT, **how, **options), id
                )
            )  # type: ignore[arg-type]
            if said[-1][0] == 201:  # an id that is free in A may be taken by A: then it is A's own row
                await superuser.execute(
                    f"delete from public.{table} where organization_id = $1 and id = $2", a.org.id, UUID(id)
                )
        if said[0] != said[1]:
            pairs = enumerate(zip(str(said[0]), str(said[1]), strict=False))
            at = next((i for i, (one, other) in pairs if one != other), 0)
            different.append((method, path, [str(text)[max(0, at - 60) : at + 60] for text in said]))

    for table in theirs:
        key = "user_id" if table == "memberships" else "id"
        for method, body in (("GET", None), ("PATCH", {"created_at": "2020-01-01"}), ("DELETE", None)):
            await same(method, f"/rest/v1/{table}?{key}=eq.<id>", body, table)
        if table in ROWS:
            await same("POST", f"/rest/v1/{table}", {**plain(values_for(table, a)), "id": "<id>"}, table)
    for table, columns in ROWS.items():  # references in bodies
        for column, value in columns.items():
            if callable(value):
                target = next((t for t, row in b.rows.items() if row.get("id") == value(b)), "memberships")
                if value(b) == b.org.account_id:
                    target = "channel_accounts"
                await same(
                    "POST", f"/rest/v1/{table}", {**plain(values_for(table, a)), column: "<id>"}, target
                )
    record = {"content": "x", "direction": "incoming", "status": "received"}
    send = {"to": "+201001383533", "message": "x"}
    for path, body, table in (
        ("insert-message", {**record, "contact_id": "<id>"}, "contacts"),
        ("insert-message", {**record, "phone": "+201001383533", "channel_account_id": "<id>"},
        "channel_accounts"),
        ("insert-message", {**record, "phone": "+201001383533", "organization_id": "<id>"}, "organizations"),
        ("whatsapp-cloud-send", {**send, "conversationId": "<id>"}, "conversations"),
        ("whatsapp-cloud-send", {**send, "organizationId": "<id>"}, "organizations"),
        ("whatsapp-cloud-send", {"to": "+201001383533", "mediaId": "<id>"}, "media_files"),
        ("whatsapp-cloud-send", {"to": "+201001383533", "templateId": "<id>"}, "templates"),
        ("switch-organization", {"organizationId": "<id>"}, "organizations"),
    ):  # fmt: skip
        await same("POST", f"/functions/v1/{path}", body, table)
    await same("GET", "/functions/v1/media/<id>", None, "media_files")
    assert different == []

    # the same Idempotency-Key in two organizations is two keys
    key = {"Idempotency-Key": "shared"}
    b_token = (await callers(wide, superuser, b))["owner"]
    first = await wide.post(
        "/rest/v1/companies", headers={**key, **REPRESENT}, json={"name": "B's"}, **b_token
    )  # type: ignore[arg-type]
    second = await wide.post(
        "/rest/v1/companies", headers={**key, **REPRESENT}, json={"name": "A's"}, **owner
    )  # type: ignore[arg-type]
    assert (first.status, second.status) == (201, 201)
    assert "Idempotency-Replayed" not in second.headers and second.json[0]["name"] == "A's"
    # the neighbour's position in the log is no position of ours
    head = await superuser.fetchval("select max(seq) from app.events where organization_id = $1", b.org.id)
    for after in (head, head + 1, 10**9):
        page = (await wide.get(f"/functions/v1/events?after={after}", **owner)).json  # type: ignore[arg-type]
        assert page["resync"] is (after > page["head"]) and CANARY not in str(page)


#


async def test_X04_no_column_of_any_write_gives_a_privilege_or_leaves_the_organization(
    wide: Hub, superuser: asyncpg.Connection, twins: tuple[Filled, Filled]
) -> None:
    """Every column of every table, in POST, PATCH and upsert, by an agent who holds all permissions, and in
    PATCH by an administrator: refused or taken, but roles, permissions, keys, owners and organizations are as
    before."""
    a, b = twins
    agent = await make_member(superuser, a.org, "AGENT", **dict.fromkeys(PERMISSIONS, True))
    admin = await make_member(superuser, a.org, "ADMIN")
    before = await checksums(superuser, b)
    guarded = (
        "select user_id, role, is_active, can_access_crm, can_access_pm, can_manage_team,"
        " can_manage_settings, can_send_messages, can_read_messages"
        " from memberships where organization_id = $1 order by user_id"
    )
    standing = await superuser.fetch(guarded, a.org.id)
    plan = await superuser.fetch("select * from subscriptions where organization_id = $1", a.org.id)
    ours = {t: {r["id"] for r in await superuser.fetch(f"select id from {t}")} for t in ("organizations",)}
    values = {
        "uuid": str(b.owner.id), "text": "OWNER", "boolean": True, "integer": 7, "bigint": 7, "numeric": 7,
        "jsonb": dict.fromkeys(PERMISSIONS, True), "text[]": ["OWNER"], "date": "2020-01-01",
        "timestamp with time zone": "2020-01-01T00:00:00Z",
    }  # fmt: skip
    statuses: dict[int, int] = {}
    for member in (agent, admin):
        who = {"Authorization": f"Bearer {await token_of(wide, superuser, member)}"}
        for name in RULES:
            table = await wide.app[CATALOG].table(name)
            row = plain(values_for(name, a)) if name in ROWS else {}
            target = (
                "user_id" if name == "memberships" else "id" if "id" in table.columns else "organization_id"
            )
            for column in table.columns.values():
                value = str(b.org.id) if column.name == "organization_id" else values.get(column.type, "1")
                for method, path, prefer, body in (
                    ("PATCH", f"{name}?{target}=not.is.null", "return=minimal", {column.name: value}),
                    ("POST", name, "return=minimal", {**row, column.name: value}),
                    ("POST", name, "resolution=merge-duplicates", {**row, column.name: value}),
                ):
                    if method == "POST" and member is admin:
                        continue  # an agent with all permissions has tried
                    headers = {**who, "Prefer": prefer}
                    answer = await wide.call(method, f"/rest/v1/{path}", headers=headers, json=body)
                    statuses[answer.status] = statuses.get(answer.status, 0) + 1
                    assert answer.status < 500 and answer.status != 401, (name, column.name, method, answer)
    assert statuses[403] > 500 and statuses[201] > 100, statuses
    now = {r["user_id"]: r for r in await superuser.fetch(guarded, a.org.id)}
    for row in standing:
        if row["role"] == "OWNER" or row["user_id"] in (agent.id, admin.id):
            assert now[row["user_id"]] == row, "nobody rose, and no owner fell"
    assert set(now) == {r["user_id"] for r in standing}
    assert await superuser.fetch("select * from subscriptions where organization_id = $1", a.org.id) == plan
    assert {r["id"] for r in await superuser.fetch("select id from organizations")} == ours["organizations"]
    assert await checksums(superuser, b) == before
    foreign = await superuser.fetchval(
        "select count(*) from app.api_key_hashes where organization_id = $1", a.org.id
    )
    assert foreign == 0, "rows of api_keys that are written like this open nothing"


#


_CASTS = (
    r"timestamp with time zone|double precision|character varying|text|integer|int|int4|int8|bigint|smallint"
    r"|numeric|float8|real|boolean|bool|date|time|timestamp|timestamptz|uuid|json|jsonb|bytea|inet|interval"
    r"|array"
)
#: What a statement may consist of, once quoted names and the renderer's own constants are taken away.
_TOKEN = re.compile(
    r"\s+|\$\d+|[(),.=<>*&@~?|+-]|->>?|<>|<=|>=|\|\||::|\[\]|\b[01]\b|"
    rf"\b(?:{_CASTS}|select|from|where|and|or|not|order|by|desc|nulls|first|last|limit|offset|as|in|any|all"
    r"|is|null|true|false|unknown|distinct|like|ilike|coalesce|count|json_agg|json_to_recordset|json_to_record"
    r"|public|insert|into|on|conflict|do|update|set|excluded|nothing|returning|with|written|delete|default"
    r"|values|body|n|total|inserted|place|keys|xmax|lateral|left|join|exists|least|then|else|case|when|end"
    r"|group|sum|avg|max|min|cast|to_json|to_jsonb|to_tsvector|to_tsquery|plainto_tsquery|phraseto_tsquery"
    r"|websearch_to_tsquery|convert_to|app\.assert_ctx|regconfig|row_number|over|bigint|j|w|c|[pqtbx]|[tejz]\d+|[01]|1000)\b|1000|&<|&>"
)


def shape_of(text: str, names: set[str]) -> set[str]:
    """What in a statement is neither a known token nor a quoted name; the aliases it gives."""
    quoted = re.findall(r'"((?:[^"]|"")*)"', text)
    rest = re.sub(r'"(?:[^"]|"")*"', " ", text)
    for constant in ("'[]'", "'UTF8'", "''"):
        rest = rest.replace(constant, " ")
    left = _TOKEN.sub("", rest)
    assert left == "", (left, text)
    return {q.replace('""', '"') for q in quoted} - names


@pytest.fixture
async def compiler(wide: Hub) -> Compiler:
    return await wide.app[CATALOG].compiler()


def asked_for(items: tuple[Item, ...]) -> set[str]:
    """Names of the caller's that a statement may quote: aliases, keys of a path, types."""
    found: set[str] = set()
    for item in items:
        if isinstance(item, Embed):
            found |= {item.key} | asked_for(item.items)
        elif isinstance(item, Field):
            found |= {item.alias or "", (item.cast or "").lower(), (item.result_cast or "").lower()}
            found |= {key for _, key in item.path.steps if isinstance(key, str)} if item.path else set()
    return found


_NASTY = st.sampled_from([
    "'", "''", '"', '""', "\\", "\\'", "--", "/*", "*/", ";", "; drop table contacts; --", "$1", "$$",
    "$a$", "::text", "->>", "->",
    "(", ")", ",", "{", "}", ".", ":", "|", "||", "&", "%", "_", "*", "\x00", "\n", "\r", "\t", "\x7f",
    "\u2028", "\ufeff", "\U0001f600",
    "ß", "İ", "\u202e", "e'\\x27'", "u&'\\0027'", "pg_sleep(5)", "current_setting('hub.ctx')", "1 or 1=1",
    "null", "xmin", "app.org()",
    "ten thousand", "select", "union", "id", "first_name", "organization_id",
])  # fmt: skip
NASTY = _NASTY.map(lambda text: "x" * 10_000 if text == "ten thousand" else text)
WORD = st.one_of(
    st.sampled_from(["id", "first_name", "custom_fields", "tags", "lead_score", "created_at"]),
    NASTY,
    st.text(max_size=12),
)
NAME = st.builds(lambda parts: "".join(parts), st.lists(WORD, min_size=1, max_size=3))
STEP = st.builds(lambda arrow, key: arrow + key, st.sampled_from(["->", "->>"]), WORD)
PATH = st.builds(
    lambda name, steps: name + "".join(steps),
    st.one_of(st.sampled_from(["custom_fields", "id"]), NAME),
    st.lists(STEP, max_size=3),
)
VALUE = st.builds(lambda parts: "".join(parts), st.lists(st.one_of(NASTY, st.text(max_size=20)), max_size=4))
OPERATION = st.builds(
    lambda negated, op, quantifier, value: f"{negated}{op}{quantifier}.{value}",
    st.sampled_from(["", "not."]), st.one_of(st.sampled_from(sorted(OPERATORS)), WORD),
    st.sampled_from(["", "", "(any)", "(all)"]), VALUE,
)  # fmt: skip
CONDITION = st.builds(lambda path, op: (path, op), PATH, OPERATION)
TREE = st.recursive(
    st.builds(lambda c: f"{c[0]}.{c[1]}", CONDITION),
    lambda inner: st.builds(lambda op, parts: f"{op}({','.join(parts)})", st.sampled_from(["and", "or",
    "not.and", "not.or"]), st.lists(inner, min_size=1, max_size=3)),
    max_leaves=5,
)  # fmt: skip
ITEM = st.builds(lambda alias, path, cast: alias + path + cast, st.one_of(st.just(""),
NAME.map(lambda n: f"{n}:"), NAME.map(lambda n: f'"{n}":')), PATH,
                 st.sampled_from(["", "", "::text", "::int", "::numeric", "::regclass",
                 "::text; drop table x", "::\"text\""]))  # fmt: skip
ORDER = st.builds(
    lambda path, how: path + how,
    PATH,
    st.sampled_from(["", ".asc", ".desc", ".desc.nullslast", ".nullsfirst", ".x"]),
)
PARAMETER = st.one_of(
    CONDITION, TREE.map(lambda t: ("or", f"({t})")), TREE.map(lambda t: ("not.and", f"({t})")),
    st.lists(ITEM, min_size=1, max_size=3).map(lambda i: ("select", ",".join(i))),
    st.lists(ORDER, min_size=1, max_size=3).map(lambda i: ("order", ",".join(i))),
    st.lists(NAME, min_size=1, max_size=3).map(lambda i: ("columns", ",".join(i))),
    st.lists(NAME, min_size=1, max_size=3).map(lambda i: ("on_conflict", ",".join(i))),
    st.tuples(st.sampled_from(["limit", "offset"]), VALUE),
)  # fmt: skip


class Text(str):
    """Reports show its beginning."""

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(str(self)[:300])


def encoded(pairs: list[tuple[str, str]]) -> Text:
    def escaped(text: str) -> str:
        return quote(text, safe="", errors="surrogatepass")

    return Text("&".join(f"{escaped(k)}={escaped(v)}" for k, v in pairs))


QUERY = st.lists(PARAMETER, min_size=1, max_size=4).map(encoded)


@given(query=QUERY, table=st.sampled_from(["contacts", "messages", "channel_accounts"]))
@settings(
    max_examples=scaled(2_000, 50_000), deadline=None, print_blob=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
def test_X05_whatever_is_asked_becomes_a_prepared_shape(compiler: Compiler, query: str, table: str) -> None:
    """The statement consists of our own words, catalog names and quoted aliases; every text of the caller's
    is an argument."""
    tables = compiler.schema.tables
    names = {*tables, *(column for found in tables.values() for column in found.columns), "?new", "?n"}
    names |= {"count", "sum", "avg", "max", "min"}
    try:
        parsed = parse_query(query)
        shape = WriteShape(table=table, shape=parsed.shape, names=("id",), returning="rows")
        statements: list[Statement] = [
            compiler.read(table, parsed.shape, "json", True)[1],
            compiler.read(table, parsed.shape, "json", False, True)[1],
            compiler.update(shape)[1],
            compiler.delete(shape)[1],
            compiler.insert(msgspec.structs.replace(shape, resolution="merge-duplicates"))[1],
        ]
    except HubError as error:
        assert error.status in (300, 400, 416), error
        return
    for statement in statements:
        aliases = shape_of(statement.text, names)
        assert aliases <= asked_for(parsed.shape.select), (aliases, statement.text)
        own = re.sub(r'"(?:[^"]|"")*"', "", statement.text)  # an alias may look like a mark
        assert sorted(set(re.findall(r"\$(\d+)", own)), key=int) == [
            str(n + 1) for n in range(len(statement.arguments))
        ]


async def test_X05_postgres_never_meets_a_statement_that_it_cannot_read(
    wide: Hub, superuser: asyncpg.Connection, twins: tuple[Filled, Filled]
) -> None:
    """The same grammar over HTTP: no 5xx, no syntax error, no canary; afterwards every connection's settings,
    the tables and the neighbour's rows are as before."""
    a, b = twins
    owner = (await callers(wide, superuser, a))["owner"]
    before = await checksums(superuser, b)
    shapes = await superuser.fetchval("select count(*) from pg_class")
    queries: list[str] = []

    @settings(
        max_examples=scaled(300, 5_000), deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(QUERY)
    def collect(query: str) -> None:
        queries.append(query)

    collect()
    gate = asyncio.Semaphore(8)
    bad: list[Any] = []

    async def ask(query: str) -> None:
        async with gate:
            answer = await wide.client.get(
                aiohttp.client.URL(f"{wide.url}/rest/v1/contacts?{query}", encoded=True),
                headers={"Authorization": f"Bearer {owner['token']}"},
            )
            text = await answer.text()
            if (
                answer.status >= 500
                or "42601" in text
                or ("syntax" in text.lower() and "22P02" not in text)
                or CANARY in text
            ):
                bad.append((query, answer.status, text))

    await asyncio.gather(*(ask(q) for q in queries))
    assert bad == []
    assert await superuser.fetchval("select count(*) from pg_class") == shapes
    assert await checksums(superuser, b) == before
    connections = []
    try:
        for _ in range(pool.SIZES["api"]):
            connections.append(await wide.app[DB]._pools["api"].acquire())
        for conn in connections:
            assert await conn.fetchval("select current_user") == "hub_runtime"
            assert not await conn.fetchval("select current_setting('hub.ctx', true)")
            assert await conn.fetchval("show search_path") == await connections[0].fetchval(
                "show search_path"
            )
            assert await conn.fetchval("show statement_timeout") == pool.STATEMENT_TIMEOUT["api"]
    finally:
        for conn in connections:
            await wide.app[DB]._pools["api"].release(conn)


#


async def test_X25_cancelled_requests_leave_their_connection_to_nobody(
    monkeypatch: pytest.MonkeyPatch, servers: Servers, superuser: asyncpg.Connection
) -> None:
    """Two tenants on a pool of four, half of the work cancelled at random points: nobody reads a row, a
    setting or a half-done write of another."""
    monkeypatch.setitem(pool.SIZES, "api", 4)
    orgs = [await make_org(superuser) for _ in range(2)]
    for n, org in enumerate(orgs):
        for _ in range(20):
            await make_contact(superuser, org, first_name=f"Of {n}")
    people = []
    for org in orgs:
        people.append((await make_member(superuser, org, "OWNER")).principal())
    db = Database(servers.database_url, ("api",))
    await db.open()
    rng = random.Random(25)
    foreign: list[Any] = []
    outcomes = {"done": 0, "cancelled": 0, "away": 0}
    gate = asyncio.Semaphore(32)

    async def work(n: int, writes: bool) -> None:
        async with acting_as(db, people[n]) as conn:
            if writes:
                await conn.execute("insert into contacts (first_name) values ($1)", f"Of {n}")
            rows = await conn.fetch("select organization_id, first_name from contacts")
            whose = await conn.fetchval("select app.org()")
            if whose != orgs[n].id or {r["organization_id"] for r in rows} != {orgs[n].id}:
                foreign.append((n, whose, rows))

    async def one(n: int, writes: bool, patience: float | None) -> None:
        async with gate:
            task = asyncio.create_task(work(n, writes))
            if patience is not None:
                await asyncio.wait([task], timeout=patience)
                task.cancel()
            try:
                await task
                outcomes["done"] += 1
            except asyncio.CancelledError:
                outcomes["cancelled"] += 1
            except HubError:
                outcomes["away"] += 1

    total = scaled(2_000, 20_000)
    await asyncio.gather(
        *(
            one(rng.randrange(2), rng.random() < 0.2, rng.expovariate(200) if i % 2 else None)
            for i in range(total)
        )
    )
    assert foreign == []
    assert outcomes["away"] == 0 and outcomes["cancelled"] > total // 10 and outcomes["done"] >= total // 2, (
        outcomes
    )
    for n, org in enumerate(orgs):
        names = await superuser.fetch(
            "select distinct first_name from contacts where organization_id = $1", org.id
        )
        assert [r["first_name"] for r in names] == [f"Of {n}"]
    async with db.connection("api") as conn:
        assert (
            await conn.fetchval("select current_user") == "hub_runtime"
            and await conn.fetchval("select app.org()") is None
        )
    await db.close()


async def test_X25_clients_that_hang_up_leave_nothing_for_the_next(
    monkeypatch: pytest.MonkeyPatch,
    servers: Servers,
    valkey: EmbeddedValkey,
    tmp_path: Path,
    superuser: asyncpg.Connection,
) -> None:
    """The same through HTTP: answers are read by whoever asked, also when every second client hangs up."""
    monkeypatch.setitem(pool.SIZES, "api", 4)
    monkeypatch.setitem(pool.SIZES, "read", 4)
    async with running_hub(servers, valkey.url, tmp_path, **WIDE) as hub:
        tokens = []
        for n in range(2):
            org = await make_org(superuser)
            await make_contact(superuser, org, first_name=f"Of {n}")
            tokens.append(await token_of(hub, superuser, await make_member(superuser, org, "OWNER")))
        host, _, port = hub.url.removeprefix("http://").partition(":")
        gate, rng, wrong = asyncio.Semaphore(24), random.Random(26), []

        async def one(n: int, patience: float | None) -> None:
            async with gate:
                reader, writer = await asyncio.open_connection(host, int(port))
                writer.write(
                    f"GET /rest/v1/contacts?select=first_name HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                    f"Authorization: Bearer {tokens[n]}\r\n\r\n".encode()
                )
                if patience is None:
                    got = await asyncio.wait_for(reader.read(), 15)
                    if not got.endswith(b'[{"first_name":"Of %d"}]' % n):
                        wrong.append((n, got))
                else:
                    await asyncio.wait([asyncio.create_task(reader.read(1))], timeout=patience)
                writer.transport.abort()

        total = scaled(1_000, 10_000)
        await asyncio.gather(
            *(one(rng.randrange(2), rng.expovariate(200) if i % 2 else None) for i in range(total))
        )
        assert wrong == []


#: A read of one statement, as the compiler writes it.
ASSERTED = "select organization_id, first_name, app.org() as whose from contacts where app.assert_ctx($1)"


async def test_D04_a_reading_connection_that_dies_is_named_as_such_and_replaced(
    servers: Servers, superuser: asyncpg.Connection
) -> None:
    """In the middle of a statement: the reader hears that the database is away, the next one reads."""
    reader = (await make_member(superuser, await make_org(superuser), "OWNER")).principal()
    db = Database(servers.database_url, ("read",))
    await db.open()
    context = reading_context(reader)

    async def end(pid: int) -> None:
        gone = (
            "select pg_terminate_backend(pid) from pg_stat_activity where pid = $1 and query like '%sleep%'"
        )
        await until(lambda: superuser.fetchval(gone, pid), what="the statement to run")

    try:
        with pytest.raises(Unavailable):
            async with reading_as(db, reader, context) as conn:
                pid = await conn.fetchval("select pg_backend_pid()")
                await asyncio.gather(conn.fetch("select pg_sleep(30)"), end(pid))
        async with reading_as(db, reader, context) as conn:
            assert await conn.fetch(ASSERTED, context) == []
    finally:
        await db.close()


async def test_X25_identity_that_stays_with_a_connection_is_always_the_readers(
    monkeypatch: pytest.MonkeyPatch, servers: Servers, superuser: asyncpg.Connection
) -> None:
    """The same for reads outside a transaction, with the anon and service roles between: every row is the
    reader's own, and app.assert_ctx had nothing to say."""
    monkeypatch.setitem(pool.SIZES, "read", 4)
    people: list[Principal] = [ANON, Principal(kind="service", role="service_role")]
    orgs = [await make_org(superuser) for _ in range(2)]
    for n, org in enumerate(orgs):
        for _ in range(20):
            await make_contact(superuser, org, first_name=f"Of {n}")
        people.append((await make_member(superuser, org, "OWNER")).principal())
    expected: list[set[Any]] = [set(), {o.id for o in orgs}, {orgs[0].id}, {orgs[1].id}]
    db = Database(servers.database_url, ("read",))
    await db.open()
    seed = random.randrange(1 << 32)
    rng = random.Random(seed)
    foreign: list[Any] = []
    outcomes = {"done": 0, "cancelled": 0}
    gate = asyncio.Semaphore(32)

    async def work(n: int) -> None:
        context = reading_context(people[n])
        async with reading_as(db, people[n], context) as conn:
            if n % 2 and rng.random() < 0.1:
                with suppress(asyncpg.PostgresError):
                    await conn.fetch("select 1 / 0")
            rows = await conn.fetch(ASSERTED, context)
        if {r["organization_id"] for r in rows} != expected[n]:
            foreign.append((seed, n, rows))

    async def one(n: int, patience: float | None) -> None:
        async with gate:
            task = asyncio.create_task(work(n))
            if patience is not None:
                await asyncio.wait([task], timeout=patience)
                task.cancel()
            try:
                await task
                outcomes["done"] += 1
            except asyncio.CancelledError:
                outcomes["cancelled"] += 1

    total = scaled(2_000, 20_000)
    await asyncio.gather(
        *(one(rng.randrange(4), rng.expovariate(200) if i % 2 else None) for i in range(total))
    )
    assert foreign == []
    assert outcomes["cancelled"] > total // 10 and outcomes["done"] >= total // 2, outcomes
    async with db.connection("read") as conn:
        with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
            await conn.execute("create table public.written (id integer)")
    await db.close()


async def test_X25_a_sabotaged_reset_is_noticed_every_time(
    monkeypatch: pytest.MonkeyPatch, servers: Servers, valkey: EmbeddedValkey, tmp_path: Path,
    superuser: asyncpg.Connection,
) -> None:  # fmt: skip
    """A connection whose memory says B and whose settings say A: every read of B is a 500 without words, and
    shows nothing of A; the next one is B's own."""
    monkeypatch.setitem(pool.SIZES, "read", 1)
    async with running_hub(servers, valkey.url, tmp_path, **WIDE) as hub:
        people = []
        for n in range(2):
            org = await make_org(superuser)
            await make_contact(superuser, org, first_name=f"Of {n}")
            people.append(await make_member(superuser, org, "OWNER"))
        token = await token_of(hub, superuser, people[1])
        theirs = reading_context(people[0].principal())
        for path in ("", "&order=first_name&limit=5", "&offset=1", "&first_name=eq.x"):
            for prefer in ("", "count=exact"):
                read = f"/rest/v1/contacts?select=first_name{path}"
                options: Any = {"token": token, "headers": {"Prefer": prefer}}
                mine = await hub.get(read, **options)
                assert mine.status in (200, 206) and "Of 0" not in mine.body.decode()
                async with hub.app[DB].connection("read") as conn:
                    await conn.execute("select set_config('hub.ctx', $1, false)", theirs)
                wrong = await hub.get(read, **options)
                assert (wrong.status, wrong.json["code"]) == (500, "XX000"), wrong
                assert "Of 0" not in wrong.body.decode() and "somebody" not in wrong.body.decode()
                again = await hub.get(read, **options)
                assert (again.status, again.body) == (mine.status, mine.body)


#


async def test_X34_counts_plans_and_statistics_know_nothing_of_the_neighbour(
    wide: Hub, superuser: asyncpg.Connection, twins: tuple[Filled, Filled]
) -> None:
    a, b = twins
    owner = (await callers(wide, superuser, a))["owner"]
    await superuser.execute(
        "insert into contacts (organization_id, first_name) select $1, 'x' from generate_series(1, 3000)",
        b.org.id,
    )
    await superuser.execute("analyze contacts")
    for count in ("exact", "planned", "estimated"):
        answer = await wide.get("/rest/v1/contacts?select=id", headers={"Prefer": f"count={count}"}, **owner)  # type: ignore[arg-type]
        assert answer.headers["Content-Range"] == "0-0/1", (count, answer.headers["Content-Range"])
    for accept in (
        "application/vnd.pgrst.plan",
        "application/vnd.pgrst.plan+json; options=analyze",
    ):
        assert (await wide.get("/rest/v1/contacts", headers={"Accept": accept}, **owner)).status == 406  # type: ignore[arg-type]
    answer = await wide.get("/rest/v1/contacts", **owner)  # type: ignore[arg-type]
    assert not {"Last-Modified", "Server-Timing", "X-Runtime"} & set(answer.headers)
    await superuser.execute(
        "insert into contacts (organization_id, first_name) values ($1, 'one more')", b.org.id
    )
    again = await wide.get("/rest/v1/contacts", **owner)  # type: ignore[arg-type]
    assert again.headers["ETag"] == answer.headers["ETag"]  # it tells of what was read and nothing else
    shared = await superuser.fetch(
        "select attrelid::regclass::text, attname from pg_attribute a join pg_class c on c.oid = attrelid"
        " left join pg_attrdef d on d.adrelid = attrelid and d.adnum = attnum"
        " where c.relnamespace = 'public'::regnamespace and attnum > 0 and not attisdropped"
        "   and (attidentity <> '' or pg_get_expr(d.adbin, d.adrelid) like '%nextval%')"
    )
    assert [tuple(r) for r in shared] == [], (
        "a number that all organizations take from one row tells their pace"
    )


async def test_X34_numbers_of_an_organization_do_not_jump_for_its_neighbours_work(
    wide: Hub, superuser: asyncpg.Connection, twins: tuple[Filled, Filled]
) -> None:
    """seq, msg_seq and conv_seq go on by one, whatever others do in between."""
    a, b = twins
    owner = (await callers(wide, superuser, a))["owner"]
    conversation = str(await make_conversation(superuser, a.org))
    seen: list[tuple[int, int]] = []
    for n in range(3):
        for _ in range(5 * n):
            await make_contact(superuser, b.org)
        body = {"conversation_id": conversation, "direction": "INBOUND", "status": "RECEIVED", "content": "x"}
        row = (await wide.post("/rest/v1/messages", json=body, headers=REPRESENT, **owner)).json[0]  # type: ignore[arg-type]
        page = (await wide.get("/functions/v1/events?limit=1000", **owner)).json  # type: ignore[arg-type]
        seen.append((row["conv_seq"], page["head"]))
    assert [s[0] for s in seen] == [1, 2, 3]
    assert seen[2][1] - seen[1][1] == seen[1][1] - seen[0][1]


async def test_X34_refusals_quote_nothing_that_the_caller_did_not_send(
    wide: Hub, superuser: asyncpg.Connection, twins: tuple[Filled, Filled]
) -> None:
    """Unique keys, references, checks and casts that fail: no DETAIL, no row, no statement."""
    a, b = twins
    owner = (await callers(wide, superuser, a))["owner"]
    identity = {**plain(values_for("contact_identities", a)), "value": CANARY}
    attempts: list[tuple[str, str, Any]] = [
        ("POST", "contact_identities", identity), ("POST", "contact_identities",
        plain(values_for("contact_identities", a))),
        ("POST", "teams", {"id": str(b.id("teams")), "name": CANARY + "x"}),
        ("POST", "deals", {"title": "x", "contact_id": str(b.id("contacts"))}),
        ("POST", "deals", {"title": "x", "probability": 1000}), ("POST", "contacts", {"first_name": None}),
        ("POST", "contacts", {"lead_score": "x"}), ("POST", "conversations", {"status": "x"}),
        ("PATCH", "contacts?id=not.is.null", {"organization_id": str(b.org.id)}),
        ("DELETE", f"contacts?id=eq.{a.id('contacts')}", None), ("GET", "contacts?id=eq.x", None),
        ("GET", "contacts?first_name=match.(", None), ("GET", "contacts?custom_fields=cs.x", None),
    ]  # fmt: skip
    for method, path, body in attempts:
        options = {"json": body} if body is not None else {}
        answer = await wide.call(method, f"/rest/v1/{path}", **owner, **options)  # type: ignore[arg-type]
        text = answer.body.decode()
        assert answer.status < 500, (path, answer)
        for word in (
            "DETAIL",
            "CONTEXT",
            "Failing row",
            "already exists.",
            "with written as",
            "select ",
            "pg_",
            CANARY + '"',
        ):
            assert word not in text or (word in json.dumps(body or "")), (method, path, text)


async def test_X34_time_does_not_tell_a_neighbours_row_from_no_row(
    wide: Hub, superuser: asyncpg.Connection, twins: tuple[Filled, Filled]
) -> None:
    a, b = twins
    owner = (await callers(wide, superuser, a))["owner"]

    def cost(id: UUID) -> Any:
        async def sample() -> float:
            began = time.perf_counter()
            answer = await wide.get(f"/rest/v1/contacts?id=eq.{id}", **owner)  # type: ignore[arg-type]
            assert answer.json == []
            return time.perf_counter() - began

        return sample

    seen = await told_apart(cost(b.id("contacts")), cost(uuid4()), pairs=200, effect=0.2)
    assert seen is None, seen
