"""Mails: claim, open, write out, hand to the mail server, settle.

    available ─claim─► running ─250─► gone
                          └ 4xx, no connection: available later | 5xx, tries spent: dead

A mail keeps its Message-ID over all tries: a worker that dies between the server's word and ours sends it
once more, and mail programs show one. Without a mail server nothing is claimed; what waits is the operator's
to read (`hub mail`).
"""

from __future__ import annotations

import ssl
import time
from datetime import timedelta
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, parseaddr
from typing import Final
from uuid import UUID

import aiosmtplib
import asyncpg
import msgspec
import structlog

from hub import clock, metrics
from hub.auth.mail import open_mail
from hub.auth.secrets import CannotOpen
from hub.db.pool import Database
from hub.domain.mails import Mail, Template, language_of, write
from hub.errors import Unavailable
from hub.failpoints import failpoint
from hub.settings import Settings, SmtpServer
from sql import q
from workers.claim import Claimer, Lease, Leases
from workers.retry import MAIL_TRIES, backoff_s

log = structlog.get_logger()

AT_ONCE: Final = 4
TIMEOUT_S: Final = 20.0
WAIT_S: Final = 60.0
"""Before a server that refuses our sign-in, or a key that does not open, is tried again; costs no try."""
REAP_ROWS: Final = 500


class ClaimedMail(msgspec.Struct, frozen=True):
    """One row of q.claim_mail, in column order; `attempts` counts this one."""

    id: UUID
    organization_id: UUID | None
    recipient: str
    template: Template
    payload: str
    attempts: int
    locale: str
    organization: str | None


class Result(msgspec.Struct, frozen=True):
    """sent | retry | throttled | dead."""

    outcome: str
    error: str | None = None
    wait_s: float = 0.0


def message_of(settings: Settings, mail_id: UUID, recipient: str, mail: Mail, locale: str) -> EmailMessage:
    """What goes over the line: text and HTML, without a word on who is written to but in To."""
    name, sender = parseaddr(settings.mail_from)
    user, _, domain = sender.rpartition("@")
    message = EmailMessage(policy=SMTP)
    message["From"] = Address(name, user, domain)
    user, _, place = recipient.rpartition("@")
    message["To"] = Address("", user, place)
    message["Subject"] = mail.subject
    message["Date"] = format_datetime(clock.now())
    message["Message-ID"] = f"<{mail_id}@{domain}>"
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(mail.text)
    message.add_alternative(mail.html, subtype="html")
    message["Content-Language"] = language_of(locale)  # now: set_content drops what is there of its kind
    return message


class Mailer(Claimer):
    """The mails' loop of one worker process."""

    kind = "mail"

    def __init__(
        self, db: Database, settings: Settings, worker: str, tls: ssl.SSLContext | None = None
    ) -> None:
        super().__init__(settings.work_poll_s)
        self._db, self._settings, self._worker, self._tls = db, settings, worker, tls
        self.leases = Leases(db, settings.work_lease_s, q.extend_mail)

    def room(self) -> int:
        return AT_ONCE - len(self._tasks) if self._settings.smtp is not None else 0

    def abandon(self) -> None:
        """Stop what is in flight; its leases run out."""
        for task in self._tasks:
            task.cancel()

    async def claim(self, room: int) -> int:
        lease = self.leases.new()
        async with self._db.connection("worker") as conn:
            rows = await conn.fetch(
                q.claim_mail, lease.token, self._worker, room, timedelta(seconds=lease.seconds)
            )
        self.leases.hold(lease, len(rows))
        for row in rows:
            self.start(self._send(lease, ClaimedMail(*row)))
        return len(rows)

    async def reap(self) -> None:
        """What dead workers left, and requests for accounts that are not there."""
        async with self._db.connection("worker") as conn:
            row = await conn.fetchrow(q.reap_mail, REAP_ROWS)
        if row is not None and (row["released"] or row["dead"]):
            log.warning("mail.reaped", released=row["released"], dead=row["dead"])

    async def _send(self, lease: Lease, mail: ClaimedMail) -> None:
        """One mail from claim to settlement."""
        started = time.perf_counter()
        outcome = "error"
        try:
            result = await self._try(lease, mail)
            failpoint("mail.after_send")
            async with self._db.connection("worker") as conn:
                settled = await conn.fetchval(
                    q.settle_mail, mail.id, lease.token, result.outcome, result.error, result.wait_s
                )
            outcome = result.outcome if settled else "fenced"
        except (Unavailable, asyncpg.PostgresError) as error:
            log.warning("mail.not_settled", error=type(error).__name__, mail=str(mail.id))
        except Exception:
            log.exception("mail.failed", mail=str(mail.id))
        finally:
            self.leases.drop(lease)
        metrics.JOB_SECONDS.labels("mail").observe(time.perf_counter() - started)
        level = log.error if outcome == "dead" else log.info
        level(
            "mail.settled", outcome=outcome, template=mail.template, attempt=mail.attempts, mail=str(mail.id)
        )

    async def _try(self, lease: Lease, mail: ClaimedMail) -> Result:
        server = self._settings.smtp
        assert server is not None
        try:
            values = open_mail(self._settings, mail.id, mail.organization_id, mail.payload)
        except CannotOpen:
            return Result("throttled", "The sealed text cannot be opened: see HUB_SECRET_KEY", WAIT_S)
        values = {"organization": mail.organization or "", **values}
        message = message_of(
            self._settings, mail.id, mail.recipient, write(mail.template, values, mail.locale), mail.locale
        )
        if not lease.may_start():
            return Result("throttled", "The lease ran out")
        try:
            await self._hand_over(server, message)
        except aiosmtplib.SMTPAuthenticationError:
            return Result("throttled", "The mail server refuses our sign-in", WAIT_S)
        except aiosmtplib.SMTPRecipientsRefused as error:
            first = error.recipients[0]
            return _judge(mail, first.code, "refused the address")
        except aiosmtplib.SMTPResponseException as error:
            return _judge(mail, error.code, "refused the mail")
        except (aiosmtplib.SMTPException, OSError, TimeoutError) as error:
            return _later(mail, f"The mail server could not be used ({type(error).__name__})")
        return Result("sent")

    async def _hand_over(self, server: SmtpServer, message: EmailMessage) -> None:
        async with aiosmtplib.SMTP(
            hostname=server.host,
            port=server.port,
            username=server.username,
            password=server.password.reveal() if server.password is not None else None,
            use_tls=server.tls == "implicit",
            start_tls=server.tls == "starttls",
            tls_context=self._tls,
            timeout=TIMEOUT_S,
        ) as client:
            await client.send_message(message)


def _judge(mail: ClaimedMail, code: int, what: str) -> Result:
    """5xx is the server's last word; everything else may pass. Its text is not kept: it quotes addresses."""
    reason = f"The mail server {what} ({code})"
    return Result("dead", reason) if 500 <= code < 600 else _later(mail, reason)


def _later(mail: ClaimedMail, reason: str) -> Result:
    if mail.attempts >= MAIL_TRIES:
        return Result("dead", reason)
    return Result("retry", reason, backoff_s(mail.attempts))
