"""Two-factor sign-in: TOTP of an authenticator app (RFC 6238: SHA-1, six digits, 30 s, as the apps expect),
and recovery codes.

A session of somebody who has a verified factor belongs to no organization until it has proved one: nothing
of the product opens before. A code works once, its neighbours in time are taken, wrong ones are delayed like
passwords. Secrets are sealed, recovery codes kept as HMACs.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import io
import os
import secrets
from typing import Any, Final
from urllib.parse import quote
from uuid import UUID, uuid4

import segno
import structlog
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.twofactor.totp import TOTP

from hub import clock
from hub.auth.authenticator import Authenticator
from hub.auth.mail import enqueue_mail
from hub.auth.refusals import AuthRefusal
from hub.auth.secrets import open_secret, seal_secret
from hub.auth.sessions import Accounts, Caller, inet_of, token_hash
from hub.db.pool import Database
from hub.domain.mails import Template
from hub.settings import Settings
from sql import q

log = structlog.get_logger()
STEP_S: Final = 30
_AROUND: Final = (0, -1, 1)
"""Steps whose codes are taken: phones are not on time, and people type slowly."""
_DIGITS: Final = 6
_SECRET_BYTES: Final = 20
RECOVERY_CODES: Final = 10
#: No letters that are read as digits. 10 of 30: 49 bits, which no delay lets anybody guess.
_ALPHABET: Final = "23456789abcdefghjkmnpqrstuvwxyz"
_ISSUER: Final = "ConnectGain Hub"


class Factors:
    """One per process."""

    def __init__(self, db: Database, settings: Settings, auth: Authenticator, accounts: Accounts) -> None:
        self._db, self._settings, self._auth, self._accounts = db, settings, auth, accounts

    async def enroll(
        self, user_id: UUID, session_id: UUID, name: str | None, issuer: str | None
    ) -> dict[str, Any]:
        """A new factor, unverified: GoTrue's answer, with the secret, shown this once. Raises AuthRefusal."""
        proof = await self._accounts.proof(user_id, session_id)
        if proof["has_factor"] and proof["aal"] != "aal2":
            raise AuthRefusal("insufficient_aal", "AAL2 required to enroll a new factor", 403)
        if len(name or "") > 100 or len(issuer or "") > 100:
            raise AuthRefusal("validation_failed", "friendly_name and issuer have at most 100 characters")
        factor_id, raw = uuid4(), os.urandom(_SECRET_BYTES)
        secret = base64.b32encode(raw).decode()
        sealed = seal_secret(
            self._settings, secret, table="mfa_factors", column="secret", organization_id=None,
            row_id=factor_id,
        )  # fmt: skip
        async with self._db.connection("api") as conn:
            outcome = await conn.fetchval(q.add_factor, user_id, factor_id, name, sealed)
        if outcome == "name_conflict":
            raise AuthRefusal(
                "mfa_factor_name_conflict", "A factor with this friendly name exists already", 422
            )
        if outcome == "too_many":
            raise AuthRefusal("too_many_enrolled_mfa_factors", "Ten factors are enough", 422)
        uri = key_uri(secret, proof["email"], issuer or _ISSUER)
        return {
            "id": factor_id,
            "type": "totp",
            "friendly_name": name,
            "totp": {"qr_code": await asyncio.to_thread(_qr_code, uri), "secret": secret, "uri": uri},
        }

    async def challenge(self, user_id: UUID, factor: str) -> dict[str, Any]:
        """Five minutes for one code."""
        async with self._db.connection("api") as conn:
            row = await conn.fetchrow(q.challenge_factor, user_id, _factor_id(factor))
        if row is None:
            raise _unknown()
        return {"id": row["id"], "type": "totp", "expires_at": int(row["expires_at"].timestamp())}

    async def verify(
        self, user_id: UUID, session_id: UUID, factor: str, challenge: str, code: str, caller: Caller
    ) -> dict[str, Any]:
        """The session as it is with its second factor, under a new refresh token. Raises AuthRefusal."""
        factor_id, challenge_id = _factor_id(factor), _factor_id(challenge)
        account = f"mfa:{user_id}"
        await self._accounts.check_delay(account, caller)
        async with self._db.connection("api") as conn:
            row = await conn.fetchrow(q.factor_secret, user_id, factor_id, challenge_id)
        if row is None:
            raise _unknown()
        if not row["is_open"]:
            raise AuthRefusal("mfa_challenge_expired", "MFA challenge has expired, ask for another", 422)
        secret = open_secret(
            self._settings, row["sealed"], table="mfa_factors", column="secret", organization_id=None,
            row_id=factor_id,
        ).reveal()  # fmt: skip
        step = step_of(secret, code, clock.now_s())
        if step is None or step <= row["last_step"]:
            await self._refused(user_id, caller, "factor.refused")
            raise AuthRefusal("mfa_verification_failed", "Invalid TOTP code entered", 422)
        token = secrets.token_urlsafe(32)
        async with self._db.connection("api") as conn, conn.transaction():
            outcome = await conn.fetchval(
                q.prove_factor, user_id, session_id, factor_id, challenge_id, step, token_hash(token)
            )
            if outcome == "first":
                await self._tell(conn, user_id, session_id, "factor_added")
            if outcome in ("first", "good"):
                await conn.execute(q.sign_in_succeeded, account, caller.network)
        if outcome == "spent":
            raise AuthRefusal("mfa_verification_failed", "Invalid TOTP code entered", 422)
        if outcome == "ended":
            raise AuthRefusal("session_not_found", "This session has ended", 403)
        if outcome == "first":
            self._auth.forget_user(user_id)
        return await self._accounts.document(session_id, user_id, token)

    async def unenroll(self, user_id: UUID, session_id: UUID, factor: str) -> dict[str, Any]:
        """Take a factor away; a verified one needs a session that proved one."""
        factor_id = _factor_id(factor)
        proof = await self._accounts.proof(user_id, session_id)
        async with self._db.connection("api") as conn, conn.transaction():
            was = await conn.fetchval(q.remove_factor, user_id, factor_id)
            if was is None:
                raise _unknown()
            if was == "verified" and proof["aal"] != "aal2":
                raise AuthRefusal("insufficient_aal", "AAL2 required to unenroll verified factor", 422)
            if was == "verified":
                await self._tell(conn, user_id, session_id, "factor_removed")
        self._auth.forget_user(user_id)
        self._db.wake("mail")
        return {"id": factor_id}

    # Recovery codes.

    async def make_codes(self, user_id: UUID, session_id: UUID) -> list[str]:
        """Fresh ones, shown this once; earlier ones end."""
        proof = await self._accounts.proof(user_id, session_id)
        if not proof["has_factor"] or proof["aal"] != "aal2":
            raise AuthRefusal("insufficient_aal", "Recovery codes need a session with a second factor", 422)
        codes = [_new_code() for _ in range(RECOVERY_CODES)]
        hashes = [await self._code_hash(user_id, code) for code in codes]
        async with self._db.connection("api") as conn:
            await conn.execute(q.keep_recovery_codes, user_id, hashes)
        return codes

    async def codes_left(self, user_id: UUID) -> int:
        async with self._db.connection("api") as conn:
            return int(await conn.fetchval(q.recovery_codes_left, user_id))

    async def use_code(self, user_id: UUID, session_id: UUID, code: str, caller: Caller) -> dict[str, Any]:
        """A recovery code instead of a factor. Raises AuthRefusal."""
        account = f"mfa:{user_id}"
        await self._accounts.check_delay(account, caller)
        token = secrets.token_urlsafe(32)
        async with self._db.connection("api") as conn, conn.transaction():
            good = await conn.fetchval(
                q.use_recovery_code, user_id, session_id, await self._code_hash(user_id, code),
                token_hash(token),
            )  # fmt: skip
            if good:
                await self._tell(conn, user_id, session_id, "recovery_code_used")
                await conn.execute(q.sign_in_succeeded, account, caller.network)
        if not good:
            await self._refused(user_id, caller, "recovery_code.refused")
            raise AuthRefusal("mfa_verification_failed", "Invalid recovery code entered", 422)
        return await self._accounts.document(session_id, user_id, token)

    async def _code_hash(self, user_id: UUID, code: str) -> bytes:
        ring = await self._auth.keyring()
        plain = code.strip().lower().replace("-", "").replace(" ", "")
        return hmac.digest(ring.pepper, f"{user_id}|{plain}".encode(errors="replace"), hashlib.sha256)

    async def _tell(self, conn: Any, user_id: UUID, session_id: UUID, template: Template) -> None:
        """A mail to the user, in the transaction of what it tells of."""
        row = await conn.fetchrow(q.account_proof, user_id, session_id)
        if row is not None:
            await enqueue_mail(conn, self._settings, template, row["email"], {})
            self._db.wake("mail")

    async def _refused(self, user_id: UUID, caller: Caller, action: str) -> None:
        """Count it, and tell the user's organizations."""
        async with self._db.connection("api") as conn, conn.transaction():
            address = inet_of(caller.address)
            await conn.execute(
                q.sign_in_failed, f"mfa:{user_id}", caller.network, "invalid_code", address, caller.request_id
            )
            await conn.execute(q.note_account, user_id, action, "{}", address, caller.request_id)
        log.info(action, network=caller.network)


def key_uri(secret: str, account: str, issuer: str) -> str:
    """What an authenticator app reads from the QR code."""
    label = f"{quote(issuer)}:{quote(account)}"
    return (
        f"otpauth://totp/{label}?algorithm=SHA1&digits={_DIGITS}&issuer={quote(issuer)}"
        f"&period={STEP_S}&secret={secret}"
    )


def step_of(secret: str, code: str, now_s: float) -> int | None:
    """The time step whose code this is, near now; None for a wrong one. Every candidate is compared whole."""
    given = code.strip()
    if len(given) != _DIGITS or not given.isascii() or not given.isdigit():
        return None
    totp = TOTP(base64.b32decode(secret), _DIGITS, SHA1(), STEP_S)  # the apps know no other hash
    found = None
    for away in _AROUND:
        step = int(now_s) // STEP_S + away
        if step >= 0 and hmac.compare_digest(totp.generate(step * STEP_S), given.encode()):
            found = step if found is None else found
    return found


def _qr_code(uri: str) -> str:
    """As SVG, which GoTrue's clients put into an image themselves."""
    out = io.BytesIO()
    segno.make(uri, error="m").save(out, kind="svg", xmldecl=False, scale=4)
    return out.getvalue().decode().strip()


def _new_code() -> str:
    text = "".join(secrets.choice(_ALPHABET) for _ in range(10))
    return f"{text[:5]}-{text[5:]}"


def _factor_id(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError as error:
        raise _unknown() from error


def _unknown() -> AuthRefusal:
    return AuthRefusal("mfa_factor_not_found", "Factor not found", 404)
