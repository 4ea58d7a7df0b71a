"""Signing in, staying signed in, signing out: the rules behind /auth/v1, without HTTP."""

from __future__ import annotations

import hashlib
import secrets
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Any, Final
from uuid import UUID, uuid4

import msgspec
import structlog

from hub.auth.addresses import address_of
from hub.auth.authenticator import Authenticator
from hub.auth.mail import enqueue_mail
from hub.auth.passwords import LONGEST, Passwords, weakness
from hub.auth.refusals import AuthRefusal
from hub.auth.secrets import open_secret, seal_secret
from hub.auth.tokens import ACCESS_S, app_metadata
from hub.db.pool import Database
from hub.settings import Settings
from sql import q

log = structlog.get_logger()
#: A refresh token used again within this time gets the same child: two tabs, or an answer that was lost.
REUSE_S: Final = 10.0
#: A sign-in this recent may change the password; later the old one is asked for, or a code by mail.
FRESH_PROOF_S: Final = 900.0
_METADATA_BYTES: Final = 16_384


class Caller(msgspec.Struct, frozen=True):
    """What sign-in limits and audit rows know of the other end."""

    address: str
    network: str
    user_agent: str
    request_id: str
    is_web: bool = False


class Accounts:
    """One per process."""

    def __init__(self, db: Database, settings: Settings, auth: Authenticator, passwords: Passwords) -> None:
        self._db, self._settings, self._auth, self._passwords = db, settings, auth, passwords

    async def sign_in(self, email: str, password: str, caller: Caller) -> dict[str, Any]:
        """A session document. Raises what ``prove`` raises."""
        return await self.open(await self.prove(email, password, caller), caller)

    async def prove(self, email: str, password: str, caller: Caller) -> UUID:
        """The user who has this address and password. Raises AuthRefusal, RateLimited, Unavailable; failures
        count against account and network."""
        if not email.strip() or not password:
            raise AuthRefusal("validation_failed", "email and password are required")
        account = address_of(email)
        if account is None or len(password) > LONGEST:  # nobody has such an address, or such a password
            log.info("sign_in.refused", network=caller.network, reason="impossible")
            raise AuthRefusal("invalid_credentials", "Invalid login credentials")
        async with self._db.connection("api") as conn:
            delay = await conn.fetchval(q.sign_in_delay, account, caller.network)
            user = None if delay > 0 else await conn.fetchrow(q.user_by_email, account)
        _refuse_delayed(delay, caller)
        if not await self._passwords.verify(user["encrypted_password"] if user else None, password):
            await self._refused(account, caller, "invalid_credentials")
            raise AuthRefusal("invalid_credentials", "Invalid login credentials")
        assert user is not None
        if user["banned"]:
            await self._refused(account, caller, "user_banned")
            raise AuthRefusal("user_banned", "This user is banned")
        if not user["confirmed"]:
            await self._refused(account, caller, "email_not_confirmed")
            raise AuthRefusal("email_not_confirmed", "Email not confirmed")
        async with self._db.connection("api") as conn:
            await conn.execute(q.sign_in_succeeded, account, caller.network)
        found: UUID = user["id"]
        return found

    async def _refused(self, account: str, caller: Caller, reason: str) -> None:
        """Count it, and tell the organizations of the user, if there is one, in their audit logs."""
        async with self._db.connection("api") as conn:
            await conn.execute(
                q.sign_in_failed,
                account,
                caller.network,
                reason,
                inet_of(caller.address),
                caller.request_id,
            )
        log.info("sign_in.refused", network=caller.network, reason=reason)

    async def check_delay(self, account: str, caller: Caller) -> None:
        """Raises AuthRefusal while this account has to wait on this network."""
        async with self._db.connection("api") as conn:
            delay = await conn.fetchval(q.sign_in_delay, account, caller.network)
        _refuse_delayed(delay, caller)

    async def open(self, user_id: UUID, caller: Caller, method: str = "password") -> dict[str, Any]:
        """A new session of a user who has proved who he is, by ``method`` as GoTrue's `amr` has it."""
        token = _new_token()
        async with self._db.connection("api") as conn:
            session_id = await conn.fetchval(
                q.open_session,
                user_id,
                caller.is_web,
                caller.user_agent,
                inet_of(caller.address),
                token_hash(token),
                caller.request_id,
                method,
            )
        log.info("session.opened", session_id=str(session_id))
        return await self.document(session_id, user_id, token)

    async def refresh(self, token: str) -> dict[str, Any]:
        """The next pair for a refresh token. Raises AuthRefusal."""
        if not 12 <= len(token) <= 200 or not token.isascii():
            raise AuthRefusal("refresh_token_not_found", "Invalid Refresh Token: Refresh Token Not Found")
        child, given = _new_token(), token_hash(token)
        sealed = self._seal(child, given)
        async with self._db.connection("api") as conn:
            row = await conn.fetchrow(q.rotate_refresh, given, token_hash(child), sealed, REUSE_S)
        outcome, session_id, user_id, earlier = row
        if outcome == "again":
            child = self._open(earlier, given)
        elif outcome == "unknown":
            raise AuthRefusal("refresh_token_not_found", "Invalid Refresh Token: Refresh Token Not Found")
        elif outcome == "reused":
            log.warning("refresh_token.reused", session_id=str(session_id))
            self._auth.forget_session(session_id)
            raise AuthRefusal("refresh_token_already_used", "Invalid Refresh Token: Already Used")
        elif outcome == "ended":
            raise AuthRefusal("session_not_found", "This session has ended")
        return await self.document(session_id, user_id, child)

    async def sign_out(self, session_id: UUID, user_id: UUID, scope: str) -> None:
        async with self._db.connection("api") as conn:
            rows = await conn.fetch(q.end_sessions, session_id, user_id, scope)
        for row in rows:
            self._auth.forget_session(row["id"])

    async def sign_out_refresh(self, token: str) -> None:
        """The session of a cookie, when no access token is at hand. Unknown ones are ignored."""
        async with self._db.connection("api") as conn:
            row = await conn.fetchrow(q.session_of_refresh, token_hash(token))
        if row is not None:
            await self.sign_out(row["session_id"], row["user_id"], "local")

    async def sessions(self, user_id: UUID, current: UUID) -> list[dict[str, Any]]:
        """Where the user is signed in, the newest first."""
        async with self._db.connection("api") as conn:
            rows = await conn.fetch(q.sessions_of, user_id)
        return [{**dict(row), "is_current": row["id"] == current} for row in rows]

    async def end(self, session_id: str, user_id: UUID) -> bool:
        """End one session of the user; False when there is none with this id."""
        try:
            wanted = UUID(session_id)
        except ValueError:
            return False
        async with self._db.connection("api") as conn:
            rows = await conn.fetch(q.end_sessions, wanted, user_id, "local")
        self._auth.forget_session(wanted)
        return bool(rows)

    async def user(self, user_id: UUID, session_id: UUID | None) -> dict[str, Any]:
        """The user object of GoTrue, with the organization that the session is in."""
        async with self._db.connection("api") as conn:
            raw = await conn.fetchval(q.user_document, user_id)
        if raw is None:
            raise AuthRefusal("user_not_found", "User from sub claim in JWT does not exist", 403)
        state = await self._auth.session(session_id) if session_id is not None else None
        return user_object(
            msgspec.json.decode(raw), state.organization_id if state else None, state.role if state else None
        )

    def user_to_be(self, email: str, metadata: dict[str, Any]) -> dict[str, Any]:
        """What a sign-up is answered with before its address is confirmed: the same for an address that has
        an account already, so its id is nobody's."""
        now = datetime.now(UTC).isoformat()
        user = {
            "id": str(uuid4()), "email": email, "email_confirmed_at": None, "last_sign_in_at": None,
            "user_metadata": metadata, "app_metadata": {}, "created_at": now, "updated_at": now,
            "confirmation_sent_at": now,
        }  # fmt: skip
        return user_object(user, None, None)

    async def change(
        self,
        user_id: UUID,
        session_id: UUID,
        *,
        password: str | None,
        data: dict[str, Any] | None,
        current_password: str | None = None,
        confirmed: bool = False,
    ) -> None:
        """A new password (the other sessions end, and a mail tells of it) or metadata. A sign-in of long ago
        needs ``current_password``, or to be ``confirmed`` by a code. Raises AuthRefusal."""
        hashed = None
        if password is not None:
            why = weakness(password)
            if why is not None:
                raise weak_password(why)
        email = ""
        if password is not None:
            proof = await self.prove_again(user_id, session_id, current_password, needed=not confirmed)
            email = proof["email"]
            stored = proof["encrypted_password"]
            if stored is not None and await self._passwords.verify(stored, password):
                raise AuthRefusal(
                    "same_password", "New password should be different from the old password", 422
                )
            hashed = await self._passwords.hash(password)
        encoded = msgspec.json.encode(data).decode() if data is not None else None
        if encoded is not None and len(encoded.encode()) > _METADATA_BYTES:
            raise AuthRefusal("validation_failed", "data is larger than 16 KiB")
        async with self._db.connection("api") as conn, conn.transaction():
            await conn.fetchval(q.update_user, user_id, session_id, hashed, encoded)
            if hashed is not None:
                await enqueue_mail(conn, self._settings, "password_changed", email, {})
        if hashed is not None:
            self._db.wake("mail")

    async def proof(self, user_id: UUID, session_id: UUID) -> Any:
        """app.account_proof's row. Raises AuthRefusal for a session that is no more."""
        async with self._db.connection("api") as conn:
            found = await conn.fetchrow(q.account_proof, user_id, session_id)
        if found is None:
            raise AuthRefusal("session_not_found", "This session has ended", 403)
        return found

    async def prove_again(
        self, user_id: UUID, session_id: UUID, current_password: str | None, *, needed: bool
    ) -> Any:
        """app.account_proof's row. Raises AuthRefusal: a session that lacks its second factor, and a current
        password that is wrong, always; none, where one is ``needed`` and the sign-in is not fresh."""
        proof = await self.proof(user_id, session_id)
        if proof["has_factor"] and proof["aal"] != "aal2":
            raise AuthRefusal("insufficient_aal", "This session needs its second factor first", 401)
        stored = proof["encrypted_password"]
        if current_password is not None:
            if len(current_password) > LONGEST or not await self._passwords.verify(stored, current_password):
                log.info("reauthentication.refused", session_id=str(session_id))
                raise AuthRefusal("current_password_mismatch", "Current password is not right")
        elif needed and stored is not None and proof["proved_s"] > FRESH_PROOF_S:
            raise AuthRefusal(
                "reauthentication_needed", "Confirm with the current password, or with a code by mail"
            )
        return proof

    async def document(self, session_id: UUID, user_id: UUID, refresh_token: str) -> dict[str, Any]:
        """GoTrue's session, with an access token of what stands now."""
        self._auth.forget_session(session_id)
        async with self._db.connection("api") as conn:
            raw = await conn.fetchval(q.user_document, user_id)
        state = await self._auth.session(session_id)
        if raw is None or state is None:
            raise AuthRefusal("session_not_found", "This session has ended")
        user = msgspec.json.decode(raw)
        ring = await self._auth.keyring()
        access_token, expires_at = ring.access_token(
            user,
            session_id,
            organization_id=state.organization_id,
            org_role=state.role,
            is_web=state.is_web,
            aal=state.aal,
            amr=state.amr,
        )
        return {
            "access_token": access_token,
            "token_type": "bearer",
            "expires_in": ACCESS_S,
            "expires_at": expires_at,
            "refresh_token": refresh_token,
            "user": user_object(user, state.organization_id, state.role),
        }

    def _seal(self, child: str, parent_hash: bytes) -> str:
        return seal_secret(
            self._settings,
            child,
            table="refresh_tokens",
            column="child_sealed",
            organization_id=None,
            row_id=parent_hash.hex(),
        )

    def _open(self, sealed: str, parent_hash: bytes) -> str:
        return open_secret(
            self._settings,
            sealed,
            table="refresh_tokens",
            column="child_sealed",
            organization_id=None,
            row_id=parent_hash.hex(),
        ).reveal()


def user_object(user: dict[str, Any], organization_id: UUID | None, org_role: str | None) -> dict[str, Any]:
    """GoTrue's user. Times that are not known are left out, as clients expect."""
    times = {
        "email_confirmed_at": user["email_confirmed_at"],
        "confirmed_at": user["email_confirmed_at"],
        "last_sign_in_at": user["last_sign_in_at"],
        "invited_at": user.get("invited_at"),
        "confirmation_sent_at": user.get("confirmation_sent_at"),
        "email_change_sent_at": user.get("email_change_sent_at"),
        "banned_until": user.get("banned_until"),
    }
    identity = {
        "identity_id": user["id"],
        "id": user["id"],
        "user_id": user["id"],
        "identity_data": {
            "email": user["email"],
            "sub": user["id"],
            "email_verified": user["email_confirmed_at"] is not None,
            "phone_verified": False,
        },
        "provider": "email",
        "last_sign_in_at": _z(user["last_sign_in_at"]) or _z(user["created_at"]),
        "created_at": _z(user["created_at"]),
        "updated_at": _z(user["updated_at"]),
        "email": user["email"],
    }
    return {
        "id": user["id"],
        "aud": "authenticated",
        "role": "authenticated",
        "email": user["email"],
        "phone": "",
        **{name: _z(value) for name, value in times.items() if value is not None},
        **({"new_email": user["new_email"]} if user.get("new_email") else {}),
        "app_metadata": app_metadata(user, organization_id, org_role),
        "user_metadata": user["user_metadata"] or {},
        "identities": [identity],
        **({"factors": [_factor(f) for f in user["factors"]]} if user.get("factors") else {}),
        "created_at": _z(user["created_at"]),
        "updated_at": _z(user["updated_at"]),
        "is_anonymous": False,
    }


def _factor(factor: dict[str, Any]) -> dict[str, Any]:
    shown = {**factor, "created_at": _z(factor["created_at"]), "updated_at": _z(factor["updated_at"])}
    return {name: value for name, value in shown.items() if value is not None}


def _z(stamp: str | None) -> str | None:
    """Postgres writes +00:00 in UTC sessions; GoTrue writes Z."""
    return stamp.replace("+00:00", "Z") if stamp else stamp


def _new_token() -> str:
    return secrets.token_urlsafe(32)


def token_hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _refuse_delayed(delay: float, caller: Caller) -> None:
    if delay > 0:
        log.info("sign_in.delayed", network=caller.network)
        raise AuthRefusal(
            "over_request_rate_limit",
            "Too many attempts; try again later",
            429,
            retry_after_s=max(1.0, delay),
        )


def weak_password(why: str) -> AuthRefusal:
    return AuthRefusal(
        "weak_password",
        "Use 8 to 256 characters that are not a common password",
        422,
        details={"reasons": [why]},
    )


def inet_of(text: str) -> str | None:
    """For a column of type inet; None for what is none (a socket's path, a proxy's "unknown")."""
    try:
        return str(ip_address(text))
    except ValueError:
        return None
