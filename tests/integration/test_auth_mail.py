"""Mails about accounts: written down with what they tell of, sealed, sent by workers or read by the
operator."""

from __future__ import annotations

from uuid import UUID, uuid4

import asyncpg
import pytest

from hub.auth.mail import drop_mail, enqueue_mail, open_mail
from hub.auth.secrets import CannotOpen
from hub.db.pool import Database
from hub.db.tenancy import acting_as
from hub.settings import Settings, load_settings
from tests.factories import Member, Org, Servers, make_org
from tests.server import SECRET_KEY

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
