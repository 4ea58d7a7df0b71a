"""`hub bench rest`: a list of 100 contacts and the insert of one, beside the bare database and what others
build it with."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any

import asyncpg

from hub.bench import install
from hub.bench.fanout import make_tokens
from hub.bench.figures import Goal, Report, Rounds, say
from hub.bench.ingest import load_with
from hub.bench.stage import Runner, Stage, postgres_cpu_s, stage
from hub.rest.catalog import read_schema
from hub.rest.compiler import Compiler
from hub.rest.grammar import parse_query

CONTACTS = 100_000
ORGANIZATIONS = 20
ROWS = 100

BARE = "asyncpg alone, the same statement"
TEXT = "aiohttp, the same JSON passed on"
ORJSON = "aiohttp, rows to orjson"
FASTAPI = "FastAPI, rows to pydantic"
POSTGRAPHILE = "PostGraphile, GraphQL"
HUB = "hub: row security, text passed on"
HUBS = "2 hubs, one port"

#: As long as an inbox asks: filters, alternatives, JSON paths.
LONG_QUERY = (
    "select=id,status,subject,priority,assignee_id,team_id,contact_id,channel_account_id,last_message_at,"
    "last_message_preview,city:custom_fields->address->>city&status=eq.OPEN"
    "&or=(assignee_id.is.null,assignee_id.eq.018f3c1e-0000-7000-8000-000000000001,"
    "and(priority.in.(HIGH,URGENT),waiting_since.lt.2026-01-01T00:00:00Z))"
    "&tags=cs.{vip,returning}&last_message_at=gte.2025-06-01T00:00:00Z&subject=ilike.*refund*"
    "&order=last_message_at.desc.nullslast,id.asc&limit=50&offset=100"
)
NEW_CONTACT = {
    "first_name": "Mona", "last_name": "Hassan", "phones": ["+201000000001"],
    "emails": ["mona@example.com"], "custom_fields": {"city": "Cairo", "size": 12},
}  # fmt: skip


async def fill(s: Stage, contacts: int) -> dict[str, str]:
    """Contacts of the first organization, a few more in each other one; the columns that a caller sees."""
    conn = await asyncpg.connect(s.owner_dsn)
    for n, org in enumerate(s.orgs):
        size = contacts if n == 0 else 200
        await conn.execute(
            "insert into companies (organization_id, name) select $1, 'Company ' || g"
            " from generate_series(1, 200) g",
            org.id,
        )
        for first in range(0, size, 1000):
            await conn.execute(
                """
                with company as (select array_agg(id) as ids from companies where organization_id = $1)
                insert into contacts (organization_id, first_name, last_name, phones, emails, tags,
                                      company_id, custom_fields, city, country, language, source, created_at)
                select $1, 'First' || g, 'Last' || g, array['+2010' || lpad(g::text, 8, '0')],
                       array['customer' || g || '@example.com'], array['returning', 'newsletter'],
                       company.ids[1 + g % 200], jsonb_build_object('size', g % 40, 'note', repeat('x', 40)),
                       'Cairo', 'EG', 'ar', 'import', now() - g * interval '1 second'
                  from company, generate_series($2::int + 1, least($2 + 1000, $3)) g
                """,
                org.id, first, size,
            )  # fmt: skip
    await conn.execute("analyze contacts, companies")
    rows = await conn.fetch(
        "select column_name, data_type from information_schema.columns"
        " where table_schema = 'public' and table_name = 'contacts' and column_name <> 'search'"
        " order by ordinal_position"
    )
    await conn.close()
    return {row[0]: row[1] for row in rows}


def request(path: str, token: str | None, body: Any = None) -> str:
    """A ready GET, or with ``body`` a POST that wants its row back."""
    lines = [f"{'GET' if body is None else 'POST'} {path} HTTP/1.1", "Host: bench"]
    if token is not None:
        lines.append(f"Authorization: Bearer {token}")
    text = ""
    if body is not None:
        text = json.dumps(body)
        lines += [
            "Content-Type: application/json", f"Content-Length: {len(text)}", "Prefer: return=representation",
        ]  # fmt: skip
    return "\r\n".join(lines) + "\r\n\r\n" + text


async def hubs_statement(s: Stage, organization: str) -> tuple[str, list[Any]]:
    """What the hub asks for its list, and with what; the organization as a filter instead of row security."""
    conn = await asyncpg.connect(s.owner_dsn)
    try:
        compiler = Compiler(await read_schema(conn))
    finally:
        await conn.close()
    query = parse_query(f"select=*&organization_id=eq.{organization}&order=created_at.desc")
    _, statement = compiler.read("contacts", query.shape, "json", False)
    return statement.text, statement.bind(query.values, limit=ROWS)


def direct(s: Stage, statement: str, args: list[Any], connections: int, seconds: float) -> dict[str, Any]:
    options = {
        "dsn": s.owner_dsn, "statement": statement, "args": args, "connections": connections,
        "seconds": seconds,
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-P", "-m", "hub.bench.peers.rest_direct", json.dumps(options)],
        capture_output=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def run(
    seconds: float = 2.0,
    rounds: int = 3,
    contacts: int = CONTACTS,
    connections: Sequence[int] = (1, 32),
    peers: bool = True,
) -> Report:
    """Limit, peers and product, round after round, over the same rows."""
    if peers:
        install.python("web")
        install.node_modules()
    found = Rounds()
    with stage(ORGANIZATIONS) as s:
        columns = asyncio.run(fill(s, contacts))
        org = s.orgs[0].id
        token = asyncio.run(make_tokens(s, s.orgs[:1], 1))[0]
        options = {"dsn": s.owner_dsn, "organization": str(org), "columns": columns}
        listing, listing_args = asyncio.run(hubs_statement(s, str(org)))
        insert = (
            "insert into contacts as c"
            " (organization_id, first_name, last_name, phones, emails, custom_fields)"
            f" select '{org}', first_name, last_name, phones, emails, custom_fields"
            " from json_to_record($1::text::json) as x (first_name text, last_name text, phones text[],"
            " emails text[], custom_fields jsonb) returning row_to_json(c)::text"
        )
        passing = {**options, "listing": listing, "listing_args": listing_args, "insert": insert}
        runners: dict[str, Runner] = {
            TEXT: s.peer(TEXT, "rest_text", passing),
            ORJSON: s.peer(ORJSON, "rest_rows", options),
        }
        graphql = graphql_list(columns, str(org))
        if peers:
            runners[POSTGRAPHILE] = s.foreign(
                POSTGRAPHILE, install.node_program("rest_postgraphile"), options
            )
            runners[FASTAPI] = s.foreign(FASTAPI, install.program("rest_fastapi"), options)
        runners[HUB] = s.hub(HUB)
        runners[HUBS] = s.hub(HUBS, 2)
        path = f"/rest/v1/contacts?select=*&order=created_at.desc&limit={ROWS}"
        size = _check_answers(runners, path, token, graphql)
        kinds: dict[str, tuple[str, list[Any], Any]] = {
            f"GET {ROWS} contacts": (listing, listing_args, None),
            "POST one contact": (insert, [json.dumps(NEW_CONTACT)], NEW_CONTACT),
        }
        for n in range(rounds):
            say(f"Round {n + 1} of {rounds}")
            for kind, (statement, args, body) in kinds.items():
                for c in connections:
                    case = f"{kind}, {c} conn{'s' * (c > 1)}"
                    used = postgres_cpu_s(s)
                    got = direct(s, statement, args, c, seconds)
                    found.add(case, BARE, _figures(got, got["cpu_s"], postgres_cpu_s(s) - used))
                    for name, runner in runners.items():
                        if (name == HUBS and c == 1) or (name == POSTGRAPHILE and body is not None):
                            continue
                        ours = name in (HUB, HUBS)
                        where = "/rest/v1/contacts" if ours and body is not None else path
                        ready = request(where if ours else "/contacts", token if ours else None, body)
                        if name == POSTGRAPHILE:
                            ready = request("/graphql", None, graphql)
                        job = {
                            "port": runner.port, "connections": c, "seconds": seconds, "ready": [ready],
                        }  # fmt: skip
                        used, server = postgres_cpu_s(s), runner.cpu_s()
                        got = load_with(job)
                        assert set(got["statuses"]) <= {"200", "201"}, (name, got["statuses"], got["refusal"])
                        found.add(
                            case,
                            name,
                            {
                                **_figures(got, runner.cpu_s() - server, postgres_cpu_s(s) - used),
                                "client": got["cpu_share"],
                            },
                        )
    began = time.process_time()
    for n in range(2000):
        parse_query(f"{LONG_QUERY}{n}")  # one that is not remembered
    parse_us = (time.process_time() - began) / 2000 * 1e6
    most = f"GET {ROWS} contacts, {max(connections)} conn{'s' * (max(connections) > 1)}"
    passed_on = found.ratio("rate", (most, HUB), (most, TEXT)) or 0.0
    headings = [
        ("rate", "requests/s"), ("p50_ms", "p50 ms"), ("p99_ms", "p99 ms"), ("server_us", "server µs"),
        ("pg_us", "Postgres µs"), ("client", "client CPU"),
    ]  # fmt: skip
    return Report(
        "rest",
        f"hub bench rest --rounds {rounds} --seconds {seconds:g}",
        [
            found.table(
                f"{ROWS} of {contacts:,} contacts ({size / 1024:.0f} KB), and inserts that return their row; "
                f"medians of {rounds} rounds of {seconds:g} s",
                headings,
                [
                    f"{ORGANIZATIONS} organizations. Only the hub signs callers in, counts their requests, "
                    "checks permissions and runs under row security; the others read as the tables' owner, "
                    "filtered by organization. Inserts write an event for everybody."
                ],
            )
        ],
        _goals(found, connections, parse_us),
        [
            f"At {max(connections)} connections the hub answers {passed_on:.2f} times as often as a handler "
            "that does nothing but pass the same JSON on.",
            f"Parsing a query string of {len(LONG_QUERY)} characters takes {parse_us:.0f} µs.",
            "Two hubs share the two cores with Postgres and the load client.",
        ],
        figures=found.medians(),
        versions=(
            {**install.versions("fastapi", "pydantic", "uvicorn"), **install.node_versions("postgraphile")}
            if peers
            else {}
        ),
    )


def _figures(got: dict[str, Any], server_s: float, postgres_s: float) -> dict[str, float]:
    each = 1e6 / max(got["requests"], 1)
    return {
        "rate": got["rate"], "p50_ms": got["p50_ms"], "p99_ms": got["p99_ms"],
        "server_us": server_s * each, "pg_us": postgres_s * each,
    }  # fmt: skip


def graphql_list(columns: Mapping[str, str], organization: str) -> dict[str, str]:
    """The same list as a GraphQL query of PostGraphile's naming."""

    def camel(name: str) -> str:
        first, *more = name.split("_")
        return "rowId" if name == "id" else first + "".join(word.title() for word in more)

    fields = " ".join(camel(name) for name in columns)
    return {
        "query": f"{{ allContacts(first: {ROWS}, orderBy: CREATED_AT_DESC, "
        f'condition: {{organizationId: "{organization}"}}) {{ nodes {{ {fields} }} }} }}'
    }


def _check_answers(runners: dict[str, Runner], path: str, token: str, graphql: dict[str, str]) -> int:
    """Everybody gives the same rows; their size in bytes. Raises RuntimeError."""
    ids: dict[str, list[tuple[str, list[str]]]] = {}
    listed: dict[str, list[str]] = {}
    size = 0
    for name, runner in runners.items():
        ours = name in (HUB, HUBS)
        if name == POSTGRAPHILE:
            asked = urllib.request.Request(
                f"http://127.0.0.1:{runner.port}/graphql",
                json.dumps(graphql).encode(),
                {"Content-Type": "application/json"},
            )
            with urllib.request.urlopen(asked, timeout=10) as answer:
                nodes = json.loads(answer.read())["data"]["allContacts"]["nodes"]
            listed[name] = [row["rowId"] for row in nodes]
            continue
        asked = urllib.request.Request(
            f"http://127.0.0.1:{runner.port}{path if ours else '/contacts'}",
            headers={"Authorization": f"Bearer {token}"} if ours else {},
        )
        with urllib.request.urlopen(asked, timeout=10) as answer:
            body = answer.read()
        ids[name] = [(row["id"], sorted(row)) for row in json.loads(body)]
        size = len(body)
    expected = ids[HUB]
    for name, found in ids.items():
        if found != expected or len(found) != ROWS:
            raise RuntimeError(f"{name} answers with other rows or columns than the hub")
    for name, rows in listed.items():
        if rows != [row[0] for row in expected]:
            raise RuntimeError(f"{name} answers with other rows than the hub")
    return size


def _goals(found: Rounds, connections: Sequence[int], parse_us: float) -> list[Goal]:
    c = max(connections)
    get, post = f"GET {ROWS} contacts, {c} conns", f"POST one contact, {c} conns"
    goals = [
        found.goal(f"GET, {c} connections: rate to asyncpg alone", "rate", (get, HUB), (get, BARE), 0.65),
        found.goal(f"GET, {c} connections: rate to FastAPI", "rate", (get, HUB), (get, FASTAPI), 2.5),
        found.goal(f"GET, {c} connections: rate to PostGraphile", "rate", (get, HUB), (get, POSTGRAPHILE), 4),
        found.goal(
            f"GET, {c} connections: p99 to asyncpg alone",
            "p99_ms", (get, HUB), (get, BARE), 1.5, at_most=True,
        ),
        Goal("GET: hub CPU a list, µs", found.median(get, HUB, "server_us"), 600, True, ""),
        found.goal(f"POST, {c} connections: rate to asyncpg alone", "rate", (post, HUB), (post, BARE), 0.6),
        found.goal(f"POST, {c} connections: rate to FastAPI", "rate", (post, HUB), (post, FASTAPI), 1.3),
        found.goal(
            f"POST, {c} connections: p99 to asyncpg alone",
            "p99_ms", (post, HUB), (post, BARE), 1.5, at_most=True,
        ),
        Goal("Parsing the longest query string, µs", parse_us, 60, True, ""),
    ]  # fmt: skip
    return [goal for goal in goals if goal.measured is not None]
