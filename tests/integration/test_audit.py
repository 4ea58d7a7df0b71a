"""Guarantees 18 and X-29: the audit log has each deed in the deed's transaction, and nobody changes it."""

from __future__ import annotations

import csv
import io
from typing import Any
from uuid import uuid4

import asyncpg
import orjson
import pytest

from hub.db.pool import Database
from hub.db.tenancy import acting_as
from hub.domain.principal import worker_for
from tests.factories import Member, Org, make_contact, make_member, make_org, until
from tests.rows import ROWS, fill, insert_statement, values_for
from tests.server import Hub


async def newest(conn: asyncpg.Connection) -> asyncpg.Record:
    row = await conn.fetchrow("select *, host(ip) as address from audit_log order by id desc limit 1")
    assert row is not None
    return row


AUDITED = {
    "teams": "team", "team_members": "team", "invitations": "invitation", "api_keys": "api_key",
    "channel_accounts": "channel_account", "webhooks": "webhook", "templates": "template",
    "bot_flows": "bot_flow", "automation_rules": "automation_rule", "campaigns": "campaign",
    "pipelines": "pipeline", "custom_field_definitions": "custom_field_definition",
    "sla_policies": "sla_policy", "business_hours": "business_hours", "suppressions": "suppression",
}  # fmt: skip


@pytest.mark.parametrize("table", AUDITED)
async def test_X29_each_change_of_what_governs_is_in_its_own_transaction(
    db: Database, superuser: asyncpg.Connection, table: str
) -> None:
    """A row made and removed by the owner, and one whose transaction did not commit."""
    filled = await fill(superuser)
    who = filled.owner.principal(address="192.0.2.7", request_id="req-1")
    values = values_for(table, filled) if table in ROWS else {
        "organization_id": filled.org.id, "name": "A", "type": "SMS",
    }  # fmt: skip
    if "id" in filled.rows.get(table, {"id": 1}):
        values["id"] = uuid4()
    unique = {"name": f"other {table}", "email": "other@example.test", "key": "other", "value": "other"}
    values |= {k: v for k, v in unique.items() if k in values}
    text, args = insert_statement(table, values)
    if table == "team_members":
        await superuser.execute("delete from team_members")
    with pytest.raises(ZeroDivisionError):
        async with acting_as(db, who) as conn:
            await conn.execute(text, *args)
            raise ZeroDivisionError
    assert await superuser.fetchval("select count(*) from audit_log where action <> 'test'") == 0
    async with acting_as(db, who) as conn:
        await conn.execute(text, *args)
    row = await newest(superuser)
    assert row["action"].startswith(f"{AUDITED[table]}."), row["action"]
    assert (row["organization_id"], row["actor_kind"], row["actor_id"]) == (
        filled.org.id, "user", filled.owner.id,
    )  # fmt: skip
    assert (row["address"], row["request_id"]) == ("192.0.2.7", "req-1")
    assert "after" in orjson.loads(row["details"])
    key = "user_id" if table == "team_members" else "id"
    async with acting_as(db, who) as conn:
        await conn.execute(f"delete from {table} where {key} = $1", values[key])
    gone = await newest(superuser)
    assert gone["action"] in (f"{AUDITED[table]}.deleted", "team.member_removed")
    assert "before" in orjson.loads(gone["details"])


async def test_X29_before_and_after_without_secrets(
    hub: Hub, org: Org, owner: Member, superuser: asyncpg.Connection
) -> None:
    token = await hub.token(owner.email)
    for secret in ("canary-one", "canary-two"):
        sent = await hub.patch(
            f"/rest/v1/channel_accounts?id=eq.{org.account_id}", token=token,
            json={"name": f"Account {secret[-3:]}",
                  "settings": {"access_token": secret, "phone_number_id": "1099"}},
        )  # fmt: skip
        assert sent.status == 204, sent
    rows = await superuser.fetch(
        "select action, details from audit_log where target_table = 'channel_accounts' order by id"
    )
    assert {r["action"] for r in rows} == {"channel_account.updated", "secrets.written"}
    last = orjson.loads([r for r in rows if r["action"] == "channel_account.updated"][-1]["details"])
    assert (last["before"]["name"], last["after"]["name"]) == ("Account one", "Account two")
    dump = str(await superuser.fetch("select a::text from audit_log a"))
    assert "canary" not in dump


@pytest.mark.parametrize(
    ("value", "masked"),
    [
        ({"password": "x", "deep": {"apiKey": 7, "name": "n"}},
         {"password": "********", "deep": {"apiKey": "********", "name": "n"}}),
        ({"token_expires_at": "2026", "tokens": ["a"]}, {"token_expires_at": "2026", "tokens": ["a"]}),
        ([{"smtp_password": "x"}], [{"smtp_password": "********"}]),
        ({"note": "y" * 3000}, {"note": "(3000 characters)"}),
        ({"n": list(range(2000))}, {"n": "(2000 items)"}),
        ({"private_key": None, "secret": True}, {"private_key": None, "secret": True}),
    ],
)  # fmt: skip
async def test_X20_what_is_masked(superuser: asyncpg.Connection, value: Any, masked: Any) -> None:
    got = await superuser.fetchval("select app.masked($1)", orjson.dumps(value).decode())
    assert orjson.loads(got) == masked


async def test_who_did_it_a_key_a_rule_the_operator(
    hub: Hub, db: Database, org: Org, owner: Member, superuser: asyncpg.Connection
) -> None:
    from hub.resources import AUTH
    from tests.attack.people import make_key

    key, key_id = await make_key(hub, superuser, org)
    sent = await hub.post("/rest/v1/webhooks", key=key, json={"url": "https://x.test/h"})
    assert sent.status == 201, sent
    assert [(r := await newest(superuser))["actor_kind"], r["actor_id"]] == ["key", key_id]
    rule, cause = uuid4(), uuid4()
    worker = worker_for(org.id, cause_id=cause, actor="rule", actor_id=rule)
    async with acting_as(db, worker, purpose="worker") as conn:
        await conn.execute("insert into teams (name) values ('By a rule')")
    made = await newest(superuser)
    assert (made["actor_kind"], made["actor_id"]) == ("rule", rule)
    assert orjson.loads(made["details"])["cause"] == str(cause)
    service = (await hub.app[AUTH].keyring()).project_keys().service_role
    team = {"organization_id": str(org.id), "name": "By the operator"}
    assert (await hub.post("/rest/v1/teams", token=service, json=team)).status == 201
    assert (await newest(superuser))["actor_kind"] == "operator"


async def test_who_did_it_the_command_line(servers: Any, org: Org, superuser: asyncpg.Connection) -> None:
    from hub.auth.accounts import change_password, create_account

    name = await superuser.fetchval("select name from organizations where id = $1", org.id)
    made = await create_account(servers.migrate_url, "new@example.test", "correct horse 1", name, "AGENT")
    await change_password(servers.migrate_url, "new@example.test", "correct horse 2")
    rows = await superuser.fetch("select action, actor_kind, target_id from audit_log order by id")
    assert [tuple(r) for r in rows] == [
        ("member.joined", "operator", made.user_id), ("password.changed", "operator", made.user_id),
    ]  # fmt: skip


async def test_deleted_rows_are_one_entry_a_statement(
    hub: Hub, org: Org, owner: Member, superuser: asyncpg.Connection
) -> None:
    ids = {str(await make_contact(superuser, org)) for _ in range(3)}
    neighbour = await make_org(superuser)
    await make_contact(superuser, neighbour)
    token = await hub.token(owner.email)
    assert (await hub.delete("/rest/v1/contacts?first_name=like.*", token=token)).status == 204
    row = await newest(superuser)
    assert (row["action"], row["actor_id"]) == ("contacts.deleted", owner.id)
    details = orjson.loads(row["details"])
    assert (details["count"], set(details["ids"])) == (3, ids)


async def test_refusals_are_noted_once_and_by_those_who_are_known(
    hub: Hub, org: Org, agent: Member, superuser: asyncpg.Connection
) -> None:
    token = await hub.token(agent.email)
    anon = (await hub.get("/config.json")).json["anon_key"]
    for _ in range(5):
        assert (
            await hub.post("/rest/v1/webhooks", token=token, json={"url": "https://x.test"})
        ).status == 403
        assert (await hub.get("/functions/v1/list-api-keys", token=token)).status == 403
        assert (await hub.post("/rest/v1/webhooks", token=anon, json={"url": "https://x.test"})).status == 401

    async def noted() -> list[str]:
        rows = await superuser.fetch("select details ->> 'what' as w from audit_log where action ="
                                     " 'access.refused' and actor_id = $1 and organization_id = $2"
                                     " order by 1", agent.id, org.id)  # fmt: skip
        return [r["w"] for r in rows] if len(rows) >= 2 else []

    assert await until(noted, what="both refusals") == ["GET list-api-keys", "POST webhooks"]
    assert await superuser.fetchval("select count(*) from audit_log where action = 'access.refused'") == 2
    row = await superuser.fetchrow("select host(ip) as ip, target_table from audit_log where details ->>"
                                   " 'what' = 'POST webhooks'")  # fmt: skip
    assert tuple(row) == ("127.0.0.1", "webhooks")


@pytest.mark.parametrize("role", ["anon", "authenticated", "service_role", "hub_runtime", "hub_writer"])
@pytest.mark.parametrize(
    "deed",
    [
        "update public.audit_log set action = 'x'", "delete from public.audit_log",
        "truncate public.audit_log", "alter table public.audit_log disable row level security",
        "insert into public.audit_log (organization_id, actor_kind, action) values ($org, 'user', 'forged')",
        "drop trigger if exists audit on public.memberships",
    ],
)  # fmt: skip
async def test_X29_no_role_of_the_runtime_writes_changes_or_empties_it(
    superuser: asyncpg.Connection, role: str, deed: str
) -> None:
    filled = await fill(superuser)
    context = orjson.dumps(filled.owner.principal().context(), default=str).decode()
    async with superuser.transaction():
        await superuser.execute("select set_config('hub.ctx', $1, true)", context)
        await superuser.execute(f"set local role {role}")
        await superuser.execute("savepoint attempt")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await superuser.execute(deed.replace("$org", f"'{filled.org.id}'"))
        await superuser.execute("rollback to savepoint attempt")
    assert await superuser.fetchval("select count(*) from audit_log where action = 'test'") == 1


async def test_X29_the_operators_key_reads_it_and_no_more(
    hub: Hub, org: Org, superuser: asyncpg.Connection
) -> None:
    from hub.resources import AUTH

    filled = await fill(superuser)
    service = (await hub.app[AUTH].keyring()).project_keys().service_role
    assert len((await hub.get("/rest/v1/audit_log?action=eq.test", token=service)).json) == 1
    for method, body in (("PATCH", {"action": "x"}), ("DELETE", None)):
        answer = await hub.call(
            method, f"/rest/v1/audit_log?id=eq.{filled.id('audit_log')}", token=service, json=body
        )
        assert answer.status in (403, 405), answer
    row = {"organization_id": str(org.id), "actor_kind": "user", "action": "forged"}
    assert (await hub.post("/rest/v1/audit_log", token=service, json=row)).status in (403, 405)


async def some_log(conn: asyncpg.Connection, org: Org, n: int) -> None:
    await conn.execute(
        "insert into audit_log (organization_id, actor_kind, action, details, at)"
        " select $1, 'user', case when g % 2 = 0 then 'api_key.created' else 'member.updated' end,"
        " jsonb_build_object('n', g), '2026-01-01'::timestamptz + g * interval '1 minute'"
        " from generate_series(1, $2) g",
        org.id, n,
    )  # fmt: skip


async def test_the_whole_log_is_exported_in_pages_newest_first(
    hub: Hub, org: Org, owner: Member, superuser: asyncpg.Connection
) -> None:
    await some_log(superuser, org, 2500)
    await some_log(superuser, await make_org(superuser), 3)
    token = await hub.token(owner.email)
    answer = await hub.get("/functions/v1/audit-log?before=2026-02-01T00:00:00Z", token=token)
    assert answer.headers["Content-Disposition"] == 'attachment; filename="audit-log.json"'
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert [row["details"]["n"] for row in answer.json] == list(range(2500, 0, -1))
    table = await hub.get(
        "/functions/v1/audit-log?format=csv&action=api_key&after=2026-01-01T01:00:00Z"
        "&before=2026-01-02T00:00:00Z", token=token,
    )  # fmt: skip
    rows = list(csv.DictReader(io.StringIO(table.body.decode())))
    assert [orjson.loads(r["details"])["n"] for r in rows] == list(range(1438, 59, -2))
    exported = await superuser.fetch("select actor_id, details ->> 'format' as f from audit_log"
                                     " where action = 'audit_log.exported' order by id")  # fmt: skip
    assert [tuple(r) for r in exported] == [(owner.id, "json"), (owner.id, "csv")]
    mine = await hub.get(f"/functions/v1/audit-log?actor_id={owner.id}&action=session.opened", token=token)
    assert [(r["action"], r["actor_name"].split()[-1]) for r in mine.json] == [("session.opened", "Test")]
    nothing = await hub.get("/functions/v1/audit-log?action=no_such", token=token)
    assert nothing.json == []


async def test_X26_a_cell_is_no_formula(
    hub: Hub, org: Org, owner: Member, superuser: asyncpg.Connection
) -> None:
    await superuser.execute("insert into audit_log (organization_id, actor_kind, action, request_id)"
                            " values ($1, 'user', 'x', '=1+1')", org.id)  # fmt: skip
    answer = await hub.get("/functions/v1/audit-log?format=csv&action=x", token=await hub.token(owner.email))
    (row,) = csv.DictReader(io.StringIO(answer.body.decode()))
    assert row["request_id"] == "'=1+1"


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("format=xml", "format"), ("after=yesterday", "after"), ("before=2026-01-01T00:00:00", "before"),
        ("action=%25", "action"), ("actor_id=me", "actor_id"), ("limit=1", "limit"),
    ],
)  # fmt: skip
async def test_bad_queries_name_the_field(hub: Hub, owner: Member, query: str, field: str) -> None:
    answer = await hub.get(f"/functions/v1/audit-log?{query}", token=await hub.token(owner.email))
    assert (answer.status, answer.json["details"]["field"]) == (422, field), answer


async def test_the_log_is_for_owners_and_administrators(
    hub: Hub, org: Org, agent: Member, superuser: asyncpg.Connection, password_hash: str
) -> None:
    from tests.attack.people import make_key

    admin = await make_member(superuser, org, "ADMIN", password_hash)
    key, _ = await make_key(hub, superuser, org)
    agents, admins = await hub.token(agent.email), await hub.token(admin.email)
    for path in ("/functions/v1/audit-log", "/rest/v1/audit_log"):
        assert (await hub.get(path, token=agents)).status == 403
        assert (await hub.get(path, key=key)).status == 403
        assert (await hub.get(path, token=admins)).status == 200
