"""The mailer against a mail server: what arrives, what is tried again, what is given up, and what a dead
worker costs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from hub.auth.mail import enqueue_mail
from hub.db.pool import Database
from hub.settings import Settings, load_settings
from tests.factories import Org, Servers, make_member, until
from tests.fakes.smtp import MailServer, certificate, mail_server
from tests.server import SECRET_KEY
from workers.mail import WAIT_S, Mailer

VALUES = {"link": "https://hub.example/confirm#token_hash=abc", "organization": "Nile", "inviter": "Omar"}


@pytest.fixture
def settings_for(servers: Servers) -> Callable[[str], Settings]:
    def make(smtp_url: str) -> Settings:
        return load_settings(
            {
                "DATABASE_URL": servers.database_url, "REDIS_URL": "redis://x", "HUB_SECRET_KEY": SECRET_KEY,
                "HUB_SMTP_URL": smtp_url, "HUB_MAIL_FROM": "Nile Home <hub@nile.example>",
                "HUB_WORK_POLL_S": "0.05",
            }
        )  # fmt: skip

    return make


@asynccontextmanager
async def running(db: Database, settings: Settings, **options: Any) -> AsyncIterator[Mailer]:
    mailer = Mailer(db, settings, "w", **options)
    task = asyncio.create_task(mailer.run())
    try:
        yield mailer
    finally:
        mailer.stop()
        await task
        await mailer.drained()


async def put(db: Database, settings: Settings, to: str = "mona@example.test", **options: Any) -> UUID:
    async with db.connection("worker") as conn:
        return await enqueue_mail(conn, settings, "invitation", to, VALUES, **options)


async def state(superuser: asyncpg.Connection, mail_id: UUID) -> tuple[str, str | None, int] | None:
    row = await superuser.fetchrow(
        "select state, last_error, attempts from app.mail_outbox where id = $1", mail_id
    )
    return tuple(row) if row is not None else None  # type: ignore[return-value]


async def test_a_mail_arrives_in_two_forms_in_the_language_of_its_organization(
    db: Database, superuser: asyncpg.Connection, org: Org, settings_for: Any
) -> None:
    await superuser.execute("update organizations set locale = 'ar', name = 'النيل' where id = $1", org.id)
    reader = await make_member(superuser, org)
    await superuser.execute(
        'update auth.users set user_metadata = \'{"locale": "en"}\' where id = $1', reader.id
    )
    async with mail_server() as server:
        settings = settings_for(f"smtp://127.0.0.1:{server.port}?tls=off")
        mail_id = await put(db, settings, organization_id=org.id)
        await put(db, settings, reader.email, organization_id=org.id)
        async with running(db, settings):
            await until(lambda: len(server.mails) == 2, what="both mails")
            await until(lambda: _is_empty(superuser), what="the rows to leave")
    by_recipient = {str(mail["To"]): mail for mail in server.mails}
    arabic, english = by_recipient["mona@example.test"], by_recipient[reader.email]
    assert arabic["Message-ID"] == f"<{mail_id}@nile.example>"
    assert str(arabic["From"]) == "Nile Home <hub@nile.example>"
    assert "النيل" not in str(arabic["Subject"]), "the values that were sealed go before the row's"
    assert arabic["Content-Language"] == "ar" and english["Content-Language"] == "en"
    assert english["Auto-Submitted"] == "auto-generated"
    text = english.get_body(("plain",))
    page = english.get_body(("html",))
    assert text is not None and page is not None
    assert VALUES["link"] in text.get_content() and "Omar" in text.get_content()
    assert f'href="{VALUES["link"]}"' in page.get_content()
    html = arabic.get_body(("html",))
    assert html is not None and 'dir="rtl"' in html.get_content()
    assert {tuple(to) for _, to in server.envelopes} == {("mona@example.test",), (reader.email,)}


async def _is_empty(superuser: asyncpg.Connection) -> bool:
    return not await superuser.fetchval("select count(*) from app.mail_outbox")


async def test_starttls_and_sign_in_are_insisted_on(
    db: Database, superuser: asyncpg.Connection, settings_for: Any, tmp_path: Path
) -> None:
    tls, trusting = certificate(tmp_path)
    async with mail_server(tls, "p@ss:word/1") as server:
        settings = settings_for(f"smtp://hub:p%40ss%3Aword%2F1@127.0.0.1:{server.port}")
        async with running(db, settings, tls=trusting):
            await put(db, settings)
            await until(lambda: len(server.mails) == 1, what="the mail")
        assert server.was_encrypted == [True]
    async with mail_server(None, "p@ss:word/1") as plain:
        settings = settings_for(f"smtp://hub:p%40ss%3Aword%2F1@127.0.0.1:{plain.port}")
        async with running(db, settings, tls=trusting):
            mail_id = await put(db, settings)
            await until(lambda: _has_error(superuser, mail_id), what="the refusal")
        assert "AUTH" not in plain.commands and plain.mails == [], "the password never left"


async def _has_error(superuser: asyncpg.Connection, mail_id: UUID) -> bool:
    found = await state(superuser, mail_id)
    return found is not None and found[1] is not None


async def test_a_strange_certificate_is_refused(
    db: Database, superuser: asyncpg.Connection, settings_for: Any, tmp_path: Path
) -> None:
    tls, _ = certificate(tmp_path)
    async with mail_server(tls) as server:
        settings = settings_for(f"smtp://127.0.0.1:{server.port}")
        async with running(db, settings):
            mail_id = await put(db, settings)
            await until(lambda: _has_error(superuser, mail_id), what="the refusal")
        assert server.mails == []


@pytest.mark.parametrize(
    ("command", "reply", "becomes", "attempts"),
    [
        ("RCPT", "550 no such person mona@example.test", "dead", 1),
        ("DATA", "554 spam", "dead", 1),
        ("RCPT", "451 greylisted", "available", 1),
        ("MAIL", "421 too busy", "available", 1),
    ],
)
async def test_what_the_server_says_decides_whether_there_is_another_try(
    db: Database, superuser: asyncpg.Connection, settings_for: Any,
    command: str, reply: str, becomes: str, attempts: int,
) -> None:  # fmt: skip
    async with mail_server() as server:
        server.answer(command, reply)
        settings = settings_for(f"smtp://127.0.0.1:{server.port}?tls=off")
        async with running(db, settings):
            mail_id = await put(db, settings)
            await until(lambda: _has_error(superuser, mail_id), what="the refusal")
            found = await state(superuser, mail_id)
            assert found is not None and found[0] == becomes and found[2] == attempts
            assert "mona" not in str(found[1]), "no address in what is kept"
            if becomes == "available":
                await superuser.execute("update app.mail_outbox set due_at = now()")
                await until(lambda: len(server.mails) == 1, what="the next try")


async def test_a_wrong_password_of_ours_spends_no_try(
    db: Database, superuser: asyncpg.Connection, settings_for: Any
) -> None:
    async with mail_server(None, "right") as server:
        settings = settings_for(f"smtp://hub:wrong@127.0.0.1:{server.port}?tls=off")
        async with running(db, settings):
            mail_id = await put(db, settings)
            await until(lambda: _has_error(superuser, mail_id), what="the refusal")
        found = await state(superuser, mail_id)
        assert found == ("available", "The mail server refuses our sign-in", 0)
        waits = await superuser.fetchval(
            "select extract(epoch from due_at - now())::float from app.mail_outbox"
        )
        assert 0 < waits <= WAIT_S


async def test_a_worker_that_dies_after_the_servers_word_sends_the_same_mail_again(
    db: Database, superuser: asyncpg.Connection, settings_for: Any
) -> None:
    """The answer was lost: the second try has the same Message-ID, so mail programs show one."""
    async with mail_server() as server:
        server.is_silent = True
        settings = settings_for(f"smtp://127.0.0.1:{server.port}?tls=off")
        async with running(db, settings):
            mail_id = await put(db, settings)
            await until(lambda: _has_error(superuser, mail_id), what="the lost answer")
            server.is_silent = False
            await superuser.execute("update app.mail_outbox set due_at = now()")
            await until(lambda: _is_empty(superuser), what="the second try")
    assert [mail["Message-ID"] for mail in server.mails] == [f"<{mail_id}@nile.example>"] * 2


async def test_two_workers_send_each_mail_once(
    db: Database, superuser: asyncpg.Connection, settings_for: Any
) -> None:
    async with mail_server() as server:
        settings = settings_for(f"smtp://127.0.0.1:{server.port}?tls=off")
        wanted = [f"m{n}@example.test" for n in range(20)]
        async with running(db, settings), running(db, settings):
            for to in wanted:
                await put(db, settings, to)
            await until(lambda: _is_empty(superuser), what="all of them")
    assert sorted(to for _, (to,) in server.envelopes) == sorted(wanted)


async def test_requests_for_nobody_are_thrown_away_and_never_sent(
    db: Database, superuser: asyncpg.Connection, org: Org, settings_for: Any
) -> None:
    member = await make_member(superuser, org)
    async with mail_server() as server:
        settings = settings_for(f"smtp://127.0.0.1:{server.port}?tls=off")
        for to in ("nobody@example.test", member.email):
            await put(db, settings, to)
        await superuser.execute("update app.mail_outbox set only_if = 'user'")
        async with running(db, settings) as mailer:
            await until(lambda: len(server.mails) == 1, what="the member's mail")
            await mailer.reap()
            await until(lambda: _is_empty(superuser), what="nobody's to go")
    assert [to for _, to in server.envelopes] == [[member.email]]


def test_the_fake_keeps_what_it_is_told() -> None:
    server = MailServer(None, None)
    server.answer("MAIL", "421 busy")
    assert server._reply("MAIL") == "421 busy"
    assert server._reply("MAIL") == "250 OK"
