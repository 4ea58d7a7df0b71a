"""A mail server: takes mails over SMTP, with STARTTLS and PLAIN sign-in, and refuses what it is told to."""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID


class MailServer:
    """``mails`` is what it took. ``answers`` are the next replies to MAIL, RCPT or the end of DATA instead
    of 250, by command; ``silent`` drops the line after DATA without an answer."""

    def __init__(self, tls: ssl.SSLContext | None, password: str | None) -> None:
        self.tls, self.password = tls, password
        self.mails: list[EmailMessage] = []
        self.envelopes: list[tuple[str, list[str]]] = []
        self.answers: dict[str, deque[str]] = {}
        self.is_silent = False
        self.commands: list[str] = []
        self.was_encrypted: list[bool] = []
        self.port = 0

    def answer(self, command: str, *replies: str) -> None:
        self.answers.setdefault(command, deque()).extend(replies)

    def _reply(self, command: str, good: str = "250 OK") -> str:
        waiting = self.answers.get(command)
        return waiting.popleft() if waiting else good

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            await self._talk(reader, writer)
        writer.close()
        with suppress(Exception):
            await writer.wait_closed()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sender, recipients = "", list[str]()
        signed_in = self.password is None

        async def say(text: str) -> None:
            writer.write(text.encode() + b"\r\n")
            await writer.drain()

        await say("220 fake ESMTP")
        while line := (await reader.readline()).decode().strip():
            command, _, rest = line.partition(" ")
            command = command.upper()
            self.commands.append(command)
            is_encrypted = writer.get_extra_info("ssl_object") is not None
            if command in ("EHLO", "HELO"):
                offers = ["fake"]
                if self.tls is not None and not is_encrypted:
                    offers.append("STARTTLS")
                if self.password is not None and (is_encrypted or self.tls is None):
                    offers.append("AUTH PLAIN")
                for n, offer in enumerate(offers):
                    await say(f"250{'-' if n < len(offers) - 1 else ' '}{offer}")
            elif command == "STARTTLS" and self.tls is not None:
                await say("220 go on")
                await writer.start_tls(self.tls)
            elif command == "AUTH":
                given = base64.b64decode(rest.split()[1]).decode().split("\0")
                signed_in = given[-1] == self.password
                await say("235 welcome" if signed_in else "535 no")
            elif command == "MAIL":
                sender, recipients = rest, []
                await say(self._reply("MAIL") if signed_in else "530 sign in first")
            elif command == "RCPT":
                recipients.append(rest.partition(":")[2].strip("<> "))
                await say(self._reply("RCPT"))
            elif command == "DATA":
                await say("354 go on")
                raw = bytearray()
                while (part := await reader.readline()) != b".\r\n":
                    raw += part.removeprefix(b".") if part.startswith(b"..") else part
                reply = self._reply("DATA")
                if reply.startswith("250"):
                    mail: Any = message_from_bytes(bytes(raw), policy=policy.default)
                    self.mails.append(mail)
                    self.envelopes.append((sender, recipients))
                    self.was_encrypted.append(is_encrypted)
                if self.is_silent:
                    return
                await say(reply)
            elif command == "QUIT":
                await say("221 bye")
                return
            else:
                await say("250 OK")


@asynccontextmanager
async def mail_server(
    tls: ssl.SSLContext | None = None, password: str | None = None
) -> AsyncIterator[MailServer]:
    """A mail server on a free port of 127.0.0.1."""
    fake = MailServer(tls, password)
    server = await asyncio.start_server(fake.serve, "127.0.0.1", 0)
    fake.port = server.sockets[0].getsockname()[1]
    try:
        yield fake
    finally:
        server.close()
        await server.wait_closed()


def certificate(folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's context with a certificate for 127.0.0.1, and a client's that trusts it alone."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fake mail server")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), False)
        .sign(key, hashes.SHA256())
    )
    pem = folder / "mail.pem"
    pem.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + made.public_bytes(Encoding.PEM)
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pem)
    return server, ssl.create_default_context(cafile=str(pem))
