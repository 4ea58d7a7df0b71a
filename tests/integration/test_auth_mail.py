"""Mails about accounts: written down with what they tell of, sealed, sent by workers or read by the
operator."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from uuid import UUID, uuid4

import asyncpg
import pytest
from click.testing import CliRunner, Result

from hub.auth.mail import drop_mail, enqueue_mail, open_mail
from hub.auth.secrets import CannotOpen
from hub.cli import cli
from hub.db.embedded import EmbeddedValkey
from hub.db.pool import Database
from hub.db.tenancy import acting_as
from hub.resources import AUTH
from hub.settings import Settings, load_settings
from tests.factories import Member, Org, Servers, make_org
from tests.server import SECRET_KEY, Hub, running_hub

LINK = "https://hub.example/confirm#token_hash=a-secret-link"


@pytest.fixture
def settings(servers: Servers) -> Settings:
    return load_settings(
        {"DATABASE_URL": servers.database_url, "REDIS_URL": "redis://x", "HUB_SECRET_KEY": SECRET_KEY}
    )


async def test_a_mail_is_written_down_with_its_transaction_and_sealed_for_its_row(
    db: Database, settings: Settings, superuser: asyncpg.Connection, org: Org, owner: Member
) -> None:
    values = {"link": LINK, "organization": "Nile Home", "inviter": "Omar"}

    async def invite(key: str) -> UUID:
        return await enqueue_mail(
            conn, settings, "invitation", "mona@example.test", values, organization_id=org.id, key=key
        )

    with pytest.raises(RuntimeError):
        async with acting_as(db, owner.principal()) as conn:
            await invite("invitation:1")
            raise RuntimeError("the invitation failed")
    assert await superuser.fetchval("select count(*) from app.mail_outbox") == 0
    async with acting_as(db, owner.principal()) as conn:
        first = await invite("invitation:1")
        second = await invite("invitation:1")
        third = await invite("invitation:2")
    rows = await superuser.fetch("select * from app.mail_outbox order by key")
    assert [(r["id"], r["recipient"]) for r in rows] == [
        (second, "mona@example.test"),
        (third, "mona@example.test"),
    ], "the resent one took the first one's place"
    assert first != second
    assert "a-secret-link" not in str(rows)
    opened = open_mail(settings, second, org.id, rows[0]["payload"])
    assert opened == {**values, "address": "mona@example.test"}
    for mail_id, organization in ((third, org.id), (second, None)):
        with pytest.raises(CannotOpen):
            open_mail(settings, mail_id, organization, rows[0]["payload"])
    async with acting_as(db, owner.principal()) as conn:
        await drop_mail(conn, org.id, "invitation:1")
    assert await superuser.fetchval("select array_agg(id) from app.mail_outbox") == [third]


async def test_a_member_writes_invitations_of_his_organization_alone(
    db: Database, settings: Settings, superuser: asyncpg.Connection, org: Org, owner: Member, agent: Member
) -> None:
    neighbour = await make_org(superuser)
    attempts = [
        (agent, "invitation", org.id),
        (owner, "recovery", org.id),
        (owner, "invitation", neighbour.id),
        (owner, "invitation", None),
    ]
    for who, template, organization in attempts:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with acting_as(db, who.principal()) as conn:
                await enqueue_mail(
                    conn, settings, template, "x@example.test", {},  # type: ignore[arg-type]
                    organization_id=organization,
                )  # fmt: skip
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with acting_as(db, owner.principal()) as conn:
            await drop_mail(conn, neighbour.id, "key")
    assert await superuser.fetchval("select count(*) from app.mail_outbox") == 0


async def test_a_claim_is_fenced_and_what_is_sent_leaves(
    db: Database, settings: Settings, superuser: asyncpg.Connection
) -> None:
    async with db.connection("worker") as conn:
        mail_id = await enqueue_mail(conn, settings, "test", "x@example.test", {})
        token, other = uuid4(), uuid4()
        claim = "select id from app.claim_mail($1, 'w', 10, '30 s')"
        settle = "select app.settle_mail($1, $2, $3, null, 0)"
        assert [r["id"] for r in await conn.fetch(claim, token)] == [mail_id]
        assert await conn.fetch(claim, other) == []
        assert await conn.fetchval(settle, mail_id, other, "sent") is False
        assert await conn.fetchval(settle, mail_id, token, "retry") is True
        assert [r["id"] for r in await conn.fetch(claim, other)] == [mail_id]
        await superuser.execute("update app.mail_outbox set lease_until = now() - interval '1 s'")
        assert tuple(await conn.fetchrow("select * from app.reap_mail(10)")) == (1, 0, 0)
        assert await conn.fetchval(settle, mail_id, other, "sent") is False
        assert [r["id"] for r in await conn.fetch(claim, token)] == [mail_id]
        assert await conn.fetchval(settle, mail_id, token, "sent") is True
    assert await superuser.fetchval("select count(*) from app.mail_outbox") == 0


async def test_owners_read_what_waits_without_a_mail_server_but_no_link_that_signs_in(
    hub: Hub, db: Database, superuser: asyncpg.Connection, org: Org, owner: Member, agent: Member
) -> None:
    neighbour = await make_org(superuser)
    values = {"link": LINK, "organization": "Nile Home", "inviter": "Omar"}
    async with db.connection("worker") as conn:
        for organization_id, template, to in (
            (org.id, "invitation", "mona@example.test"),
            (None, "recovery", agent.email),
            (None, "recovery", "nobody@example.test"),
            (neighbour.id, "invitation", "canary@example.test"),
        ):
            await enqueue_mail(
                conn, hub.settings, template, to, values,  # type: ignore[arg-type]
                organization_id=organization_id,
            )  # fmt: skip
    await superuser.execute("update app.mail_outbox set only_if = 'user' where template = 'recovery'")
    answer = (await hub.get("/functions/v1/mail-outbox", token=await hub.token(owner.email))).json
    assert answer["mail_server"] is False
    shown = {m["recipient"]: m for m in answer["mails"]}
    assert shown.keys() == {"mona@example.test", agent.email}
    assert LINK in shown["mona@example.test"]["text"]
    assert shown["mona@example.test"]["subject"] == "Join Nile Home"
    assert shown[agent.email]["text"] is None, "a link that signs somebody else in"
    refused = await hub.get("/functions/v1/mail-outbox", token=await hub.token(agent.email))
    assert (refused.status, refused.json["code"]) == (403, "INSUFFICIENT_PERMISSIONS")
    service = (await hub.app[AUTH].keyring()).project_keys().service_role
    assert (await hub.get("/functions/v1/mail-outbox", token=service)).status == 403


async def test_with_a_mail_server_owners_see_who_is_written_to_and_not_what(
    servers: Servers, valkey: EmbeddedValkey, tmp_path: Path, db: Database, org: Org, owner: Member
) -> None:
    async with running_hub(servers, valkey.url, tmp_path, HUB_SMTP_URL="smtp://127.0.0.1:1?tls=off") as hub:
        async with db.connection("worker") as conn:
            await enqueue_mail(
                conn, hub.settings, "invitation", "mona@example.test", {"link": LINK}, organization_id=org.id
            )
        answer = await hub.get("/functions/v1/mail-outbox", token=await hub.token(owner.email))
    assert answer.json["mail_server"] is True
    assert [m["recipient"] for m in answer.json["mails"]] == ["mona@example.test"]
    assert b"a-secret-link" not in answer.body


async def test_the_operator_reads_retries_and_tests_on_the_command_line(
    servers: Servers, superuser: asyncpg.Connection, db: Database, settings: Settings, tmp_path: Path
) -> None:
    async with db.connection("worker") as conn:
        mail_id = await enqueue_mail(conn, settings, "recovery", "mona@example.test", {"link": LINK})
    environ = {
        "DATABASE_URL": servers.database_url, "HUB_MIGRATE_URL": servers.migrate_url,
        "REDIS_URL": "redis://x", "HUB_SECRET_KEY": SECRET_KEY, "HUB_DATA_DIR": str(tmp_path),
    }  # fmt: skip

    async def run(*words: str, **more: str) -> Result:
        return await asyncio.to_thread(CliRunner(env={**environ, **more}).invoke, cli, ["mail", *words])

    listed = await run("list", "--json")
    (row,) = json.loads(listed.output)
    assert (row["id"], row["recipient"], row["state"]) == (str(mail_id), "mona@example.test", "available")
    assert "a-secret-link" not in listed.output
    shown = await run("show", str(mail_id))
    assert shown.exit_code == 0 and LINK in shown.output and "To: mona@example.test" in shown.output
    assert (await run("show", str(uuid4()))).exit_code == 1
    other = await run("show", str(mail_id), HUB_SECRET_KEY="another-key-that-is-long-enough-0123456789")
    assert other.exit_code == 1 and "HUB_SECRET_KEY" in other.output
    await superuser.execute("update app.mail_outbox set state = 'dead', attempts = 12")
    assert "1 will be tried again" in (await run("retry")).output
    assert await superuser.fetchval("select state from app.mail_outbox") == "available"
    tested = await run("test", "Dana@Example.test")
    assert tested.exit_code == 0 and "hub mail show" in tested.output
    assert (await run("test", "nonsense")).exit_code == 1
    assert "dana@example.test" in (await run("list")).output
