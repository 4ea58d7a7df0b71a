"""Visibility: members who see all conversations, those of their teams, or their own (row policies, sockets,
the event log, and what each costs)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import asyncpg
import orjson
import pytest

from hub.db.pool import Database
from hub.db.tenancy import acting_as
from hub.domain.permissions import RULES
from hub.domain.principal import Principal
from tests.attack.people import make_key
from tests.factories import (
    Member,
    Org,
    insert,
    make_contact,
    make_conversation,
    make_member,
    make_message,
    make_org,
    until,
)
from tests.server import Hub


class Desk:
    """A team of two, somebody outside of it, and a conversation of each kind, with a message, a file, a draft
    and a read mark."""

    def __init__(self, org: Org, members: dict[str, Member], conversations: dict[str, UUID]) -> None:
        self.org, self.members, self.conversations = org, members, conversations

    def caller(self, name: str, visibility: Any, teams: tuple[UUID, ...] = ()) -> Principal:
        return self.members[name].principal(visibility=visibility, team_ids=teams)


async def make_desk(conn: asyncpg.Connection, password_hash: str | None = None) -> tuple[Desk, UUID]:
    org = await make_org(conn)
    members = {
        name: await make_member(conn, org, role, password_hash)  # type: ignore[arg-type]
        for name, role in (("owner", "OWNER"), ("mona", "AGENT"), ("omar", "AGENT"))
    }
    team = await insert(conn, "teams", {"organization_id": org.id, "name": "Sales"})
    await conn.execute(
        "insert into team_members (organization_id, team_id, user_id) values ($1, $2, $3)",
        org.id, team, members["mona"].id,
    )  # fmt: skip
    columns: dict[str, dict[str, Any]] = {
        "mona's": {"assignee_id": members["mona"].id}, "omar's": {"assignee_id": members["omar"].id},
        "the team's": {"team_id": team}, "nobody's": {},
        "omar's in the team": {"assignee_id": members["omar"].id, "team_id": team},
    }  # fmt: skip
    conversations = {}
    for name, values in columns.items():
        conversation = conversations[name] = await make_conversation(conn, org, **values)
        message = await make_message(conn, org, conversation, content=name)
        await insert(conn, "media_files", {"organization_id": org.id, "message_id": message})
        for member in members.values():
            own = {"organization_id": org.id, "user_id": member.id, "conversation_id": conversation}
            await insert(conn, "conversation_reads", own)
            await conn.execute(
                "insert into drafts (organization_id, user_id, conversation_id, content)"
                " values ($1, $2, $3, $4)",
                org.id, member.id, conversation, name,
            )  # fmt: skip
    return Desk(org, members, conversations), team


ALL = {"mona's", "omar's", "the team's", "nobody's", "omar's in the team"}
SEES: list[tuple[str, str, bool, set[str]]] = [
    ("mona", "all", True, ALL),
    ("mona", "team", True, {"mona's", "the team's", "omar's in the team"}),
    ("mona", "mine", True, {"mona's"}),
    ("mona", "team", False, {"mona's"}),
    ("omar", "mine", False, {"omar's", "omar's in the team"}),
    ("owner", "mine", False, set()),
]


@pytest.fixture
async def desk(superuser: asyncpg.Connection, password_hash: str) -> tuple[Desk, UUID]:
    return await make_desk(superuser, password_hash)


@pytest.mark.parametrize(("who", "visibility", "in_team", "sees"), SEES)
async def test_row_policies_show_what_is_in_sight(
    db: Database, desk: tuple[Desk, UUID], superuser: asyncpg.Connection, who: str, visibility: str,
    in_team: bool, sees: set[str],
) -> None:  # fmt: skip
    """Every table whose rows belong to a conversation, to read, to change and to remove."""
    found, team = desk
    other, _ = await make_desk(superuser)
    names = {v: k for k, v in found.conversations.items()}
    principal = found.caller(who, visibility, (team,) if in_team else ())
    bound = {t for t, rules in RULES.items() if rules.read.sight is not None}
    assert bound == {"conversations", "messages", "conversation_reads", "drafts", "media_files"}
    async with acting_as(db, principal) as conn:
        for statement in (
            "select id as c from conversations", "select conversation_id as c from messages",
            "select conversation_id as c from conversation_reads",
            "select conversation_id as c from drafts",
            "select m.conversation_id as c from media_files f join messages m on m.id = f.message_id",
            "update conversations set tags = '{seen}' returning id as c",
            "update messages set metadata = '{\"a\": 1}' returning conversation_id as c",
            "update drafts set content = 'x' returning conversation_id as c",
        ):  # fmt: skip
            rows = await conn.fetch(statement)
            assert {names.get(r["c"]) for r in rows} == sees, (statement, "and nobody else's organization")
        for conversation in other.conversations.values():
            assert not await conn.fetch("select from messages where conversation_id = $1", conversation)
        assert {names[r["id"]] for r in await conn.fetch("delete from conversations returning id")} == sees


@pytest.mark.parametrize("visibility", ["team", "mine"])
async def test_what_is_out_of_sight_cannot_be_written_to(
    db: Database, desk: tuple[Desk, UUID], visibility: str
) -> None:
    found, team = desk
    hidden = found.conversations["omar's"]
    async with acting_as(db, found.caller("mona", visibility, (team,))) as conn:
        for statement in (
            "insert into messages (conversation_id, direction, content, status)"
            " values ($1, 'OUTBOUND', 'x', 'SENT')",
            "update conversations set assignee_id = app.current_user_id() where id = $1 returning 1",
            "update messages set conversation_id = $1 returning 1",
            "insert into drafts (user_id, conversation_id, content) values (app.current_user_id(), $1, 'x')"
            " on conflict do nothing returning 1",
            "select * from app.conversation_for_send(jsonb_build_object('conversation_id', $1::uuid),"
            " 'WHATSAPP_CLOUD')",
        ):  # fmt: skip
            await conn.execute("savepoint attempt")
            try:
                assert not await conn.fetch(statement, hidden), statement
            except asyncpg.PostgresError as error:
                assert error.sqlstate in ("42501", "HUB04"), (statement, error)
            await conn.execute("rollback to savepoint attempt")
        assert not await conn.fetchval("select app.assign_conversation($1, null)", hidden)


async def test_who_opens_a_conversation_has_it_in_sight(
    db: Database, desk: tuple[Desk, UUID], superuser: asyncpg.Connection
) -> None:
    found, team = desk
    mona = found.members["mona"]
    contacts = [await make_contact(superuser, found.org) for _ in range(3)]
    insert_ = "insert into conversations (contact_id, team_id) values ($1, $2) returning assignee_id"
    async with acting_as(db, found.caller("mona", "mine")) as conn:
        assert await conn.fetchval(insert_, contacts[0], None) == mona.id
    async with acting_as(db, found.caller("mona", "team", (team,))) as conn:
        assert await conn.fetchval(insert_, contacts[1], team) is None
    async with acting_as(db, found.caller("mona", "all")) as conn:
        assert await conn.fetchval(insert_, contacts[2], None) is None


async def restrict(hub: Hub, conn: asyncpg.Connection, member: Member, visibility: str) -> str:
    await conn.execute("update memberships set visibility = $2 where user_id = $1", member.id, visibility)
    return await hub.token(member.email)


async def test_over_http_the_list_the_pull_and_a_changed_visibility(
    hub: Hub, desk: tuple[Desk, UUID], superuser: asyncpg.Connection
) -> None:
    found, _ = desk
    token = await restrict(hub, superuser, found.members["mona"], "team")
    listed = await hub.get("/rest/v1/messages?select=content&order=content", token=token)
    assert [m["content"] for m in listed.json] == ["mona's", "omar's in the team", "the team's"]
    pulled = (await hub.get("/functions/v1/events?limit=1000", token=token)).json["events"]
    told = {e["event"]["payload"]["row"]["content"] for e in pulled if e["event"]["table"] == "messages"}
    assert told == {"mona's", "omar's in the team", "the team's"}
    key, _ = await make_key(hub, superuser, found.org)
    assert len((await hub.get("/rest/v1/messages", key=key)).json) == 5, "keys see all"
    owners = await hub.token(found.members["owner"].email)
    body = {"user_id": str(found.members["mona"].id), "visibility": "mine"}
    assert (await hub.post("/functions/v1/update-member", token=owners, json=body)).status == 200
    seen = (await hub.get("/rest/v1/messages?select=content", token=token)).json
    assert [m["content"] for m in seen] == ["mona's"], "with the next request on the hub that changed it"
    refused = await hub.post(
        "/functions/v1/update-member", token=owners,
        json={"user_id": str(found.members["owner"].id), "visibility": "mine"},
    )  # fmt: skip
    assert refused.status == 422, "an owner sees all"


class Reader:
    """A socket that keeps what it is told."""

    def __init__(self, ws: Any) -> None:
        self.ws = ws
        self.frames: list[dict[str, Any]] = []
        self.task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for message in self.ws:
            self.frames.append(orjson.loads(message.data))

    def contents(self) -> list[str]:
        rows = [f["event"]["payload"]["row"] for f in self.frames if f["type"] == "event"]
        return [row["content"] for row in rows if "content" in row]


@pytest.fixture
async def readers(hub: Hub) -> AsyncIterator[Any]:
    opened: list[Reader] = []

    async def open_(token: str, cursor: Any = None) -> Reader:
        ws = await hub.client.ws_connect(f"{hub.url}/ws")
        await ws.send_json({"type": "hello", "token": token, "cursor": cursor})
        reader = Reader(ws)
        opened.append(reader)
        await until(lambda: reader.frames, what="the welcome")
        return reader

    yield open_
    for reader in opened:
        await reader.ws.close()
        await reader.task


async def test_sockets_tell_what_is_in_sight_in_order_and_resume(
    hub: Hub, desk: tuple[Desk, UUID], superuser: asyncpg.Connection, readers: Any
) -> None:
    found, _ = desk
    mona = found.members["mona"]
    narrow = await readers(await restrict(hub, superuser, mona, "mine"))
    wide = await readers(await hub.token(found.members["owner"].email))

    async def talk(first: int) -> None:
        for n in range(first, first + 20):
            for name, conversation in found.conversations.items():
                await make_message(superuser, found.org, conversation, content=f"{name} {n}")

    await talk(0)
    await until(lambda: len(wide.contents()) == 100, what="all of it")
    await until(lambda: len(narrow.contents()) == 20, what="hers")
    assert narrow.contents() == [f"mona's {n}" for n in range(20)]
    seqs = [f["seq"] for f in narrow.frames if f["type"] in ("event", "pos")]
    assert seqs == sorted(seqs)
    last = narrow.frames[0]
    await narrow.ws.close()
    await talk(20)
    again = await readers(await hub.token(mona.email), {"epoch": last["epoch"], "seq": seqs[-1]})
    assert again.frames[0]["resumed"] is True
    await until(lambda: len(again.contents()) == 20, what="what she missed")
    assert again.contents() == [f"mona's {n}" for n in range(20, 40)]
    await until(lambda: any(f["type"] == "pos" for f in again.frames), what="where she stands")


async def test_a_conversation_that_is_taken_away_is_told_of_and_then_silent(
    hub: Hub, desk: tuple[Desk, UUID], superuser: asyncpg.Connection, readers: Any
) -> None:
    """She hands it over herself, which the row policies alone would refuse."""
    found, _ = desk
    mona, omar = found.members["mona"], found.members["omar"]
    conversation = found.conversations["mona's"]
    reader = await readers(await restrict(hub, superuser, mona, "mine"))
    await reader.ws.send_json({"type": "command", "id": "1", "name": "assign", "args": {
        "conversation_id": str(conversation), "assignee_id": str(omar.id)}})  # fmt: skip
    await until(lambda: any(f["type"] == "reply" for f in reader.frames), what="the answer")
    reply = next(f for f in reader.frames if f["type"] == "reply")
    assert reply["ok"] is True, reply
    assert await superuser.fetchval("select assignee_id from conversations where id = $1", conversation) == (
        omar.id
    )

    def told() -> bool:
        return any(
            f["type"] == "event" and f["event"]["payload"]["row"].get("assignee_id") == str(omar.id)
            for f in reader.frames
        )

    await until(told, what="that it left her")
    await make_message(superuser, found.org, conversation, content="not for her")
    contact = await make_contact(superuser, found.org, first_name="Marker")
    await until(
        lambda: any(f.get("event", {}).get("entity_id") == str(contact) for f in reader.frames),
        what="something later",
    )
    assert "not for her" not in reader.contents()


async def test_a_changed_visibility_sends_the_socket_back_to_a_snapshot(
    hub: Hub, desk: tuple[Desk, UUID], superuser: asyncpg.Connection, readers: Any
) -> None:
    found, _ = desk
    mona = found.members["mona"]
    reader = await readers(await hub.token(mona.email))
    owners = await hub.token(found.members["owner"].email)
    body = {"user_id": str(mona.id), "visibility": "mine"}
    assert (await hub.post("/functions/v1/update-member", token=owners, json=body)).status == 200
    await asyncio.wait_for(reader.task, 12)
    assert reader.ws.close_code == 4012
    welcome = reader.frames[0]
    again = await readers(await hub.token(mona.email), {"epoch": welcome["epoch"], "seq": welcome["seq"]})
    assert (again.frames[0]["resumed"], again.frames[0]["reason"]) == (False, "permissions")


async def plan(conn: asyncpg.Connection, statement: str) -> str:
    rows = await conn.fetch(f"explain (costs off) {statement}")
    return "\n".join(r[0] for r in rows)


LIST = (
    "select id from public.conversations where organization_id = (select app.org()) and status = 'OPEN'"
    " order by last_message_at desc limit 50"
)


@pytest.mark.parametrize("visibility", ["all", "team", "mine"])
async def test_S01_the_inbox_list_walks_its_index_whatever_one_sees(
    db: Database, desk: tuple[Desk, UUID], superuser: asyncpg.Connection, visibility: str
) -> None:
    """Neither a sort of the whole inbox nor a look at another table a row."""
    found, team = desk
    await superuser.execute(
        "insert into contacts (organization_id, first_name) select $1, 'C' from generate_series(1, 20000)",
        found.org.id,
    )
    await superuser.execute(
        "insert into conversations (organization_id, contact_id, assignee_id, last_message_at)"
        " select c.organization_id, c.id, $2, now() - random() * interval '30 days' from contacts c"
        " where c.organization_id = $1 and c.first_name = 'C'",
        found.org.id, found.members["mona"].id,
    )  # fmt: skip
    await superuser.execute("analyze conversations")
    async with acting_as(db, found.caller("mona", visibility, (team,))) as conn:
        said = await plan(conn, LIST)
        assert "Index Scan using conversations_last_message_at_idx" in said, said
        assert "Sort" not in said and "Seq Scan" not in said, said
        assert len(await conn.fetch(LIST)) == 50
        thread = found.conversations["mona's"]
        said = await plan(
            conn,
            "select id from public.messages where organization_id = (select app.org())"
            f" and conversation_id = '{thread}' order by conv_seq desc limit 50",
        )
        assert "Index Scan" in said and "Seq Scan" not in said, said
