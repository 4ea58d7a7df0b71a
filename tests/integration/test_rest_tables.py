"""/rest/v1: reading, writing, and being refused, as a signed-in member sees it."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from hub.auth.secrets import open_secret
from hub.rest.sealed import MASK
from tests.factories import Member, Org, make_contact, make_conversation, make_member, make_message, make_org
from tests.server import Hub

REPRESENT = {"Prefer": "return=representation"}
COUNT = {"Prefer": "count=exact"}
SINGLE = {"Accept": "application/vnd.pgrst.object+json"}


@pytest.fixture
async def token(hub: Hub, owner: Member) -> str:
    return await hub.token(owner.email)


@pytest.fixture
async def three(superuser: asyncpg.Connection, org: Org) -> list[str]:
    """Contacts A, B, C with growing custom_fields.n and tags."""
    return [
        str(
            await make_contact(
                superuser,
                org,
                first_name=name,
                last_name="Doe",
                tags=["all", name.lower()],
                custom_fields={"n": n},
            )
        )
        for n, name in enumerate("ABC")
    ]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("first_name=eq.A", "A"), ("first_name=neq.A", "BC"), ("first_name=gt.A", "BC"),
        ("first_name=lte.B", "AB"),
        ("first_name=in.(A,C)", "AC"), ("first_name=not.in.(A,C)", "B"), ("first_name=in.()", ""),
        ("first_name=like.*A*", "A"), ("first_name=ilike.a", "A"), ("tags=cs.{b}", "B"),
        ("tags=contains.{b}", "B"),
        ("tags=ov.{a,c}", "AC"), ("tags=cd.{all,a,b}", "AB"), ("company_id=is.null", "ABC"),
        ("company_id=not.is.null", ""),
        ("or=(first_name.eq.A,first_name.eq.C)", "AC"),
        ("or=(first_name.eq.A,and(first_name.gt.A,tags.cs.{c}))", "AC"),
        ("not.or=(first_name.eq.A,first_name.eq.C)", "B"), ("custom_fields->>n=eq.1", "B"),
        ("custom_fields->n=eq.2", "C"),
        ("custom_fields=cs.{\"n\":0}", "A"), ("first_name=match.^[AB]$", "AB"),
        ("first_name=eq(any).{A,B}", "AB"),
        ("first_name=isdistinct.A", "BC"), ("first_name=gte.A&first_name=lt.C", "AB"), ("limit=2", "AB"),
        ("offset=1", "BC"),
        ("limit=0", ""), ("created_at=lt.2000-01-01", ""),
    ],
)  # fmt: skip
async def test_REST_05_filters(hub: Hub, token: str, three: list[str], query: str, expected: str) -> None:
    answer = await hub.get(f"/rest/v1/contacts?select=first_name&order=first_name&{query}", token=token)
    assert answer.status == 200, answer
    assert "".join(r["first_name"] for r in answer.json) == expected


async def test_order_select_and_ranges(hub: Hub, token: str, three: list[str]) -> None:
    rows = await hub.get(
        "/rest/v1/contacts?select=name:first_name,city:custom_fields->>n,custom_fields->n&order=first_name.desc",
        token=token,
    )
    assert rows.json[0] == {"name": "C", "city": "2", "n": 2}
    counted = await hub.get("/rest/v1/contacts?select=id&limit=2&order=id", token=token, headers=COUNT)
    assert (counted.status, counted.headers["Content-Range"]) == (206, "0-1/3")
    everything = await hub.get("/rest/v1/contacts?select=id", token=token, headers=COUNT)
    assert (everything.status, everything.headers["Content-Range"]) == (200, "0-2/3")
    plain = await hub.get("/rest/v1/contacts?select=id&limit=2", token=token)
    assert (plain.status, plain.headers["Content-Range"]) == (200, "0-1/*")
    none = await hub.get("/rest/v1/contacts?first_name=eq.Z", token=token, headers=COUNT)
    assert (none.json, none.headers["Content-Range"]) == ([], "*/0")
    beyond = await hub.get("/rest/v1/contacts?offset=9", token=token, headers=COUNT)
    assert (beyond.status, beyond.json["code"]) == (416, "PGRST103")
    ranged = await hub.get(
        "/rest/v1/contacts?order=first_name&select=first_name", token=token, headers={"Range": "1-1"}
    )
    assert (ranged.json, ranged.headers["Content-Range"]) == ([{"first_name": "B"}], "1-1/*")
    head = await hub.call("HEAD", "/rest/v1/contacts?select=id", token=token, headers=COUNT)
    assert (head.status, head.body, head.headers["Content-Range"]) == (200, b"", "0-2/3")


async def test_C_33_without_a_limit_a_thousand_rows(
    hub: Hub, org: Org, token: str, superuser: asyncpg.Connection
) -> None:
    await superuser.execute(
        "insert into contacts (organization_id, first_name)"
        " select $1, n::text from generate_series(1, 1100) n",
        org.id,
    )
    assert len((await hub.get("/rest/v1/contacts?select=id", token=token)).json) == 1000
    assert len((await hub.get("/rest/v1/contacts?select=id&limit=5000", token=token)).json) == 1100


async def test_one_object(hub: Hub, token: str, three: list[str]) -> None:
    one = await hub.get(f"/rest/v1/contacts?select=first_name&id=eq.{three[0]}", token=token, headers=SINGLE)
    assert one.json == {"first_name": "A"}
    assert one.headers["Content-Type"] == "application/vnd.pgrst.object+json; charset=utf-8"
    none = await hub.get(f"/rest/v1/contacts?id=eq.{uuid4()}", token=token, headers=SINGLE)
    assert (none.status, none.json["code"]) == (406, "PGRST116")
    assert "0 rows" in none.json["details"]
    refused = await hub.post(
        "/rest/v1/contacts", token=token, headers=SINGLE, json=[{"first_name": "x"}, {"first_name": "y"}]
    )
    assert refused.status == 406
    assert len((await hub.get("/rest/v1/contacts", token=token)).json) == 3, "rolled back"


async def test_T_CON_insert_update_delete(hub: Hub, org: Org, token: str) -> None:
    body = {
        "organization_id": str(org.id), "first_name": "John", "last_name": "Doe", "phones": ["+1234567890"],
        "emails": ["john@example.com"], "tags": ["customer",
        "vip"], "custom_fields": {"company": "Acme Inc"}, "opt_in_status": True,
    }  # fmt: skip
    made = await hub.post("/rest/v1/contacts", token=token, headers=REPRESENT, json=body)
    assert made.status == 201
    (row,) = made.json
    assert body.items() <= row.items()
    assert "search" not in row
    place = f"/rest/v1/contacts?id=eq.{row['id']}"
    changed = await hub.patch(place, token=token, headers=REPRESENT, json={"first_name": "Jane"})
    assert (changed.status, changed.json[0]["first_name"], changed.json[0]["version"]) == (200, "Jane", 2)
    assert changed.headers["Content-Range"] == "0-0/*"
    quiet = await hub.patch(place, token=token, json={"tags": []})
    assert (quiet.status, quiet.body) == (204, b"")
    assert (
        await hub.patch(f"/rest/v1/contacts?id=eq.{uuid4()}", token=token, json={"tags": []})
    ).status == 204
    gone = await hub.delete(place, token=token, headers=REPRESENT)
    assert (gone.status, gone.json[0]["id"]) == (200, row["id"])
    assert (await hub.get(place, token=token)).json == []


async def test_bulk_insert_keeps_the_order(hub: Hub, token: str) -> None:
    rows = [{"first_name": f"n{i}"} for i in range(50)]
    made = await hub.post(
        '/rest/v1/contacts?columns="first_name"&select=first_name', token=token, headers=REPRESENT, json=rows
    )
    assert made.json == rows
    minimal = await hub.post("/rest/v1/contacts", token=token, json=rows[:2])
    assert (minimal.status, minimal.body, minimal.headers["Content-Length"]) == (201, b"", "0")
    assert (await hub.post("/rest/v1/contacts", token=token, json=[])).status == 201
    one = await hub.post(
        "/rest/v1/contacts", token=token, headers={"Prefer": "return=headers-only"}, json={"first_name": "x"}
    )
    assert one.headers["Location"].startswith("/contacts?id=eq.")


async def test_upserts(hub: Hub, token: str) -> None:
    given = str(uuid4())
    merge = {"Prefer": "resolution=merge-duplicates,return=representation"}
    first = await hub.post(
        "/rest/v1/contacts", token=token, headers=merge, json={"id": given, "first_name": "A"}
    )
    assert (first.status, first.json[0]["id"]) == (201, given)
    second = await hub.post(
        "/rest/v1/contacts?on_conflict=id", token=token, headers=merge, json={"id": given, "first_name": "B"}
    )
    assert (second.status, second.json[0]["first_name"]) == (200, "B")
    assert "resolution=merge-duplicates" in second.headers["Preference-Applied"]
    ignore = {"Prefer": "resolution=ignore-duplicates,return=representation"}
    third = await hub.post(
        "/rest/v1/contacts", token=token, headers=ignore, json={"id": given, "first_name": "C"}
    )
    assert (third.status, third.json) == (201, [])
    conflict = await hub.post("/rest/v1/contacts", token=token, json={"id": given, "first_name": "D"})
    assert (conflict.status, conflict.json["code"]) == (409, "23505")
    nothing = await hub.post(
        "/rest/v1/contacts?on_conflict=first_name", token=token, headers=merge, json={"first_name": "C"}
    )
    assert (nothing.status, nothing.json["code"]) == (400, "42P10")


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("GET", "contacts?nope=eq.1", None, 400, "42703"), ("GET", "contacts?id=eq.1", None, 400, "22P02"),
        ("GET", "contacts?select=nope", None, 400, "42703"),
        ("GET", "contacts?first_name=cs.{a}", None, 404, "42883"),
        ("GET", "contacts?company_id=is.true", None, 400, "42804"),
        ("GET", "contacts?first_name=match.(", None, 400, "2201B"),
        ("GET", "nope", None, 404, "PGRST205"), ("GET", "contacts/1", None, 404, "PGRST125"),
        ("GET", "contacts?first_name=x", None, 400, "PGRST100"),
        ("GET", "contacts?select=*,webhooks(*)", None, 400, "PGRST200"),
        ("GET", "contacts?limit=-1", None, 416, "PGRST103"), ("GET", "app.events", None, 404, "PGRST205"),
        ("POST", "contacts", {"nope": 1}, 400, "PGRST204"),
        ("POST", "contacts", {"search": "x"}, 400, "PGRST204"),
        ("POST", "contacts", [{"first_name": "a"}, {"last_name": "b"}], 400, "PGRST102"),
        ("POST", "contacts", "{", 400, "PGRST102"),
        ("POST", "contacts", [1], 400, "PGRST102"),
        ("POST", "contacts", {"company_id": str(uuid4())}, 409, "23503"),
        ("POST", "contacts", {"company_id": "x"}, 400, "22P02"),
        ("POST", "contacts", {"organization_id": str(uuid4())}, 403, "42501"),
        ("POST", "deals", {"title": None}, 400, "23502"),
        ("POST", "deals", {"title": "x", "probability": 200}, 422, "23514"),
        ("POST", "conversations", {"contact_id": str(uuid4())}, 409, "23503"),
        ("POST", "organizations", {"name": "x"}, 403, "42501"),
        ("DELETE", "organizations?id=not.is.null", None, 403, "42501"),
        ("PATCH", "contacts", {"first_name": "x"}, 400, "21000"), ("DELETE", "contacts", None, 400, "21000"),
        ("PATCH", "contacts?id=eq.x", {"first_name": "x"}, 400, "22P02"),
        ("PATCH", "contacts?id=not.is.null", [{}, {}], 400, "PGRST102"),
        ("PUT", "contacts?id=eq.1", {"id": "2"}, 400, "PGRST115"),
    ],
)  # fmt: skip
async def test_refusals(
    hub: Hub, token: str, method: str, path: str, body: Any, status: int, code: str
) -> None:
    options: dict[str, Any] = {} if body is None else {"json": body}
    if isinstance(body, str):
        options = {"data": body, "headers": {"Content-Type": "application/json"}}
    answer = await hub.call(method, f"/rest/v1/{path}", token=token, **options)
    assert (answer.status, answer.json["code"]) == (status, code), answer
    assert answer.json.keys() >= {"error", "message", "details", "hint", "error_code", "request_id"}
    assert answer.headers["Proxy-Status"] == f"PostgREST; error={code}"


async def test_ids_and_organizations_never_change(hub: Hub, token: str, three: list[str]) -> None:
    for change in ({"id": str(uuid4())}, {"organization_id": str(uuid4())}):
        answer = await hub.patch(f"/rest/v1/contacts?id=eq.{three[0]}", token=token, json=change)
        assert (answer.status, answer.json["code"]) == (403, "42501")


async def test_more_than_a_thousand_events_at_once_are_refused(hub: Hub, token: str) -> None:
    answer = await hub.post("/rest/v1/contacts", token=token, json=[{"first_name": "x"}] * 1001)
    assert (answer.status, answer.json["code"]) == (400, "HUB01")
    assert "1000" in answer.json["hint"]
    assert (await hub.get("/rest/v1/contacts", token=token)).json == []
    assert (await hub.post("/rest/v1/contacts", token=token, json=[{"first_name": "x"}] * 1000)).status == 201


async def test_C_17_stages_may_be_a_string_that_spells_an_array(hub: Hub, token: str) -> None:
    made = await hub.post(
        "/rest/v1/pipelines?select=stages",
        token=token,
        headers=REPRESENT,
        json={"name": "S", "stages": '[{"id":"lead"}]'},
    )
    assert made.json == [{"stages": [{"id": "lead"}]}]
    bad = await hub.post("/rest/v1/pipelines", token=token, json={"name": "S", "stages": "lead, won"})
    assert (bad.status, bad.json["error_code"]) == (422, "VALIDATION_ERROR")


async def test_the_neighbour_sees_nothing(
    hub: Hub, three: list[str], superuser: asyncpg.Connection, password_hash: str
) -> None:
    stranger = await make_member(superuser, await make_org(superuser), "OWNER", password_hash)
    token = await hub.token(stranger.email)
    assert (await hub.get("/rest/v1/contacts", token=token, headers=COUNT)).headers["Content-Range"] == "*/0"
    changed = await hub.patch(
        f"/rest/v1/contacts?id=eq.{three[0]}", token=token, headers=REPRESENT, json={"first_name": "X"}
    )
    assert (changed.status, changed.json) == (200, [])
    gone = await hub.delete("/rest/v1/contacts?id=not.is.null", token=token, headers=REPRESENT)
    assert gone.json == []
    assert await superuser.fetchval("select count(*) from contacts where first_name in ('A', 'B', 'C')") == 3
    pointing = await hub.post("/rest/v1/deals", token=token, json={"title": "x", "contact_id": three[0]})
    assert pointing.status == 409, "a reference across tenants does not exist"


async def test_ERR_07_a_closed_resource_is_said(hub: Hub, agent: Member) -> None:
    token = await hub.token(agent.email)
    answer = await hub.get("/rest/v1/api_keys", token=token)
    assert (answer.status, answer.json["error_code"]) == (403, "INSUFFICIENT_PERMISSIONS")
    assert "can_manage_settings" in answer.json["details"]
    assert (await hub.post("/rest/v1/webhooks", token=token, json={"url": "https://x.test"})).status == 403


async def test_C_04_T_PRF_roles_are_guarded(hub: Hub, owner: Member, agent: Member, token: str) -> None:
    mine = await hub.token(agent.email)
    promote = await hub.patch(f"/rest/v1/profiles?id=eq.{agent.id}", token=mine, json={"role": "OWNER"})
    assert promote.status == 403
    named = await hub.patch(
        f"/rest/v1/profiles?id=eq.{agent.id}", token=mine, headers=REPRESENT, json={"first_name": "Ali"}
    )
    assert named.json[0]["first_name"] == "Ali"
    raised = await hub.patch(
        f"/rest/v1/profiles?id=eq.{agent.id}", token=token, headers=REPRESENT, json={"role": "ADMIN"}
    )
    assert raised.json[0]["role"] == "ADMIN"
    last = await hub.patch(f"/rest/v1/profiles?id=eq.{owner.id}", token=token, json={"role": "AGENT"})
    assert last.status == 403


async def test_C_13_a_posted_message_is_recorded_and_a_pending_one_is_queued(
    hub: Hub, org: Org, token: str, superuser: asyncpg.Connection
) -> None:
    conversation = await make_conversation(superuser, org)
    body = {"conversation_id": str(conversation), "direction": "OUTBOUND", "content": "Hi", "status": "SENT"}
    sent = await hub.post("/rest/v1/messages", token=token, headers=REPRESENT, json=body)
    assert (sent.status, sent.json[0]["conv_seq"]) == (201, 1)
    assert await superuser.fetchval("select count(*) from app.outbox") == 0
    await hub.post("/rest/v1/messages", token=token, json={**body, "status": "PENDING"})
    assert await superuser.fetchval("select count(*) from app.outbox") == 1
    wrong = await hub.post("/rest/v1/messages", token=token, json={**body, "status": "SENDING"})
    assert (wrong.status, wrong.json["error_code"]) == (422, "VALIDATION_ERROR")


async def test_a_write_is_an_event_by_its_author(
    hub: Hub, owner: Member, token: str, superuser: asyncpg.Connection
) -> None:
    await hub.post("/rest/v1/contacts", token=token, json={"first_name": "x"})
    row = await superuser.fetchrow(
        "select type, actor_kind, actor_id from app.events order by seq desc limit 1"
    )
    assert tuple(row) == ("contact.created", "user", owner.id)


async def test_C_22_secrets_of_channel_accounts(
    hub: Hub, org: Org, token: str, superuser: asyncpg.Connection
) -> None:
    body = {
        "organization_id": str(org.id), "name": "WhatsApp Business", "type": "WHATSAPP_CLOUD",
        "is_active": True,
        "settings": {"access_token": "EAAsecret1", "phone_number_id": "777"},
    }  # fmt: skip
    made = await hub.post(
        "/rest/v1/channel_accounts?select=id,settings", token=token, headers=REPRESENT, json=body
    )
    assert made.status == 201
    (account,) = made.json
    assert account.keys() == {"id", "settings"}
    assert account["settings"] == {"access_token": MASK, "phone_number_id": "777"}

    async def stored() -> dict[str, str]:
        rows = await superuser.fetch(
            "select name, ciphertext from app.secrets where owner_id = $1", account["id"]
        )
        return {
            r["name"]: open_secret(
                hub.settings,
                r["ciphertext"],
                table="channel_accounts",
                column=r["name"],
                organization_id=org.id,
                row_id=account["id"],
            ).reveal()
            for r in rows
        }

    place = f"/rest/v1/channel_accounts?id=eq.{account['id']}"
    assert await stored() == {"access_token": "EAAsecret1"}
    kept = await hub.patch(place, token=token, json={"settings": {**account["settings"], "waba_id": "1"}})
    assert kept.status == 204
    assert await stored() == {"access_token": "EAAsecret1"}
    new = await hub.patch(
        f"{place}&select=settings",
        token=token,
        headers=REPRESENT,
        json={"settings": {"access_token": "EAAsecret2", "app_secret": "s3"}},
    )
    assert new.json == [{"settings": {"access_token": MASK, "app_secret": MASK}}]
    assert await stored() == {"access_token": "EAAsecret2", "app_secret": "s3"}
    await hub.patch(place, token=token, json={"settings": {"access_token": None, "app_secret": MASK}})
    assert await stored() == {"app_secret": "s3"}
    for table in ("app.events", "public.channel_accounts", "public.audit_log", "app.secrets"):
        dump = str(await superuser.fetch(f"select x::text from {table} x"))
        assert "EAAsecret" not in dump


async def test_a_conversations_list_as_the_web_app_reads_it(
    hub: Hub, org: Org, token: str, superuser: asyncpg.Connection
) -> None:
    conversation = await make_conversation(superuser, org)
    await make_message(superuser, org, conversation, "مرحبا")
    listed = await hub.get(
        "/rest/v1/conversations?select=id,contact_id,last_message_preview,inbound_count&status=eq.OPEN"
        "&order=last_message_at.desc&limit=50",
        token=token,
        headers=COUNT,
    )
    (row,) = listed.json
    assert (row["last_message_preview"], row["inbound_count"]) == ("مرحبا", 1)
    contacts = await hub.get(
        f"/rest/v1/contacts?id=in.({row['contact_id']},{uuid4()})&select=id", token=token
    )
    assert len(contacts.json) == 1


async def test_ten_thousand_ids_in_one_line(hub: Hub, token: str, three: list[str]) -> None:
    ids = ",".join([*three, *(str(uuid4()) for _ in range(9_997))])
    answer = await hub.get(f"/rest/v1/contacts?select=id&id=in.({ids})", token=token)
    assert len(answer.json) == 3


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Accept-Profile": "auth"}, 406), ({"Accept": "application/geo+json"}, 406),
        ({"Accept": "text/html,*/*"}, 200),
        ({"Accept": "application/vnd.pgrst.array+json"}, 200),
    ],
)  # fmt: skip
async def test_profiles_and_media_types(hub: Hub, token: str, headers: dict[str, str], status: int) -> None:
    assert (await hub.get("/rest/v1/contacts", token=token, headers=headers)).status == status


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("conv_seq", 99), ("provider_message_id", "wamid.forged"), ("content", "never said"),
        ("source", "rule"),
        ("status", "PENDING"), ("sent_at", "2026-01-01T00:00:00Z"),
    ],
)  # fmt: skip
async def test_X_04_machine_owned_columns_of_a_message_are_refused_by_name(
    hub: Hub, org: Org, token: str, superuser: asyncpg.Connection, column: str, value: Any
) -> None:
    message = await make_message(superuser, org, await make_conversation(superuser, org), "Hi")
    before = await superuser.fetchval("select m::text from messages m")
    answer = await hub.patch(f"/rest/v1/messages?id=eq.{message}", token=token, json={column: value})
    assert (answer.status, answer.json["code"]) == (403, "42501")
    assert answer.json["error_code"] == "INSUFFICIENT_PERMISSIONS"
    assert answer.json["message"] != "You may not do this"
    if column not in ("status", "sent_at"):
        assert column in answer.json["message"]
    assert await superuser.fetchval("select m::text from messages m") == before


@pytest.mark.parametrize("column", ["msg_seq", "inbound_count", "last_message_preview"])
async def test_X_04_counters_of_a_conversation_are_refused_by_name(
    hub: Hub, org: Org, token: str, superuser: asyncpg.Connection, column: str
) -> None:
    conversation = await make_conversation(superuser, org)
    answer = await hub.patch(f"/rest/v1/conversations?id=eq.{conversation}", token=token, json={column: "7"})
    assert (answer.status, answer.json["code"]) == (403, "42501")
    assert answer.json["message"] == f"conversations.{column} is kept by the hub and cannot be written"


async def test_X_04_nobody_writes_in_a_colleagues_name(
    hub: Hub, org: Org, agent: Member, token: str, superuser: asyncpg.Connection
) -> None:
    conversation = await make_conversation(superuser, org)
    body = {
        "conversation_id": str(conversation),
        "direction": "OUTBOUND",
        "content": "Hi",
        "status": "PENDING",
    }
    forged = await hub.post("/rest/v1/messages", token=token, json={**body, "sender_id": str(agent.id)})
    assert (forged.status, forged.json["message"]) == (403, "sender_id can only be yourself")
    forged = await hub.post("/rest/v1/audit_log", token=token, json={"actor_kind": "user", "action": "x"})
    assert forged.status == 403
    assert await superuser.fetchval("select count(*) from messages") == 0
