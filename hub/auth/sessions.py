"""Signing in, staying signed in, signing out: the rules behind /auth/v1, without HTTP."""

from __future__ import annotations

import hashlib
import secrets
from ipaddress import ip_address
from typing import Any, Final
from uuid import UUID

import msgspec
import structlog

from hub.auth.authenticator import Authenticator
from hub.auth.passwords import Passwords, weakness
from hub.auth.refusals import AuthRefusal
from hub.auth.secrets import open_secret, seal_secret
from hub.auth.tokens import ACCESS_S, app_metadata, password_mark
from hub.db.pool import Database
from hub.errors import AuthenticationFailed
from hub.settings import Settings
from sql import q

log = structlog.get_logger()
#: A refresh token used again within this time gets the same child: two tabs, or an answer that was lost.
REUSE_S: Final = 10.0
_LONGEST_ADDRESS: Final = 320


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
        account = email.strip().lower()
        if not account or not password:
            raise AuthRefusal("validation_failed", "email and password are required")
        if len(account) > _LONGEST_ADDRESS or "\x00" in account or len(password) > 1024:
            raise AuthRefusal("invalid_credentials", "Invalid login credentials")
        async with self._db.connection("api") as conn:
            delay = await conn.fetchval(q.sign_in_delay, account, caller.network)
            user = None if delay > 0 else await conn.fetchrow(q.user_by_email, account)
        if delay > 0:
            log.info("sign_in.delayed", network=caller.network)
            raise AuthRefusal(
                "over_request_rate_limit",
                "Too many attempts; try again later",
                429,
                retry_after_s=max(1.0, delay),
            )
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
                _address(caller.address),
                caller.request_id,
            )
        log.info("sign_in.refused", network=caller.network, reason=reason)

    async def open(self, user_id: UUID, caller: Caller, method: str = "password") -> dict[str, Any]:
        """A new session of a user who has proved who he is."""
        token = _new_token()
        async with self._db.connection("api") as conn:
            session_id = await conn.fetchval(
                q.open_session,
                user_id,
                caller.is_web,
                caller.user_agent,
                _address(caller.address),
                _hash(token),
                caller.request_id,
            )
        log.info("session.opened", session_id=str(session_id))
        return await self._document(session_id, user_id, token, method)

    async def refresh(self, token: str) -> dict[str, Any]:
        """The next pair for a refresh token. Raises AuthRefusal."""
        if not 12 <= len(token) <= 200 or not token.isascii():
            raise AuthRefusal("refresh_token_not_found", "Invalid Refresh Token: Refresh Token Not Found")
        child, given = _new_token(), _hash(token)
        sealed = self._seal(child, given)
        async with self._db.connection("api") as conn:
            row = await conn.fetchrow(q.rotate_refresh, given, _hash(child), sealed, REUSE_S)
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
        return await self._document(session_id, user_id, child, "token_refresh")

    async def sign_out(self, session_id: UUID, user_id: UUID, scope: str) -> None:
        async with self._db.connection("api") as conn:
            rows = await conn.fetch(q.end_sessions, session_id, user_id, scope)
        for row in rows:
            self._auth.forget_session(row["id"])

    async def sign_out_refresh(self, token: str) -> None:
        """The session of a cookie, when no access token is at hand. Unknown ones are ignored."""
        async with self._db.connection("api") as conn:
            row = await conn.fetchrow(q.session_of_refresh, _hash(token))
        if row is not None:
            await self.sign_out(row["session_id"], row["user_id"], "local")

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

    async def change(
        self, user_id: UUID, session_id: UUID, *, password: str | None, data: dict[str, Any] | None
    ) -> dict[str, Any]:
        """A new password (the other sessions end) or metadata. Raises AuthRefusal."""
        hashed = None
        if password is not None:
            reason = weakness(password)
            if reason is not None:
                raise AuthRefusal(
                    "weak_password",
                    "Use 8 to 256 characters that are not a common password",
                    422,
                    details={"reasons": [reason]},
                )
            async with self._db.connection("api") as conn:
                stored = await conn.fetchval(q.password_of, user_id)
            if stored is not None and await self._passwords.verify(stored, password):
                raise AuthRefusal(
                    "same_password", "New password should be different from the old password", 422
                )
            hashed = await self._passwords.hash(password)
        encoded = msgspec.json.encode(data).decode() if data is not None else None
        if encoded is not None and len(encoded) > 16_384:
            raise AuthRefusal("validation_failed", "data is larger than 16 KiB")
        async with self._db.connection("api") as conn:
            await conn.fetchval(q.update_user, user_id, session_id, hashed, encoded)
        return await self.user(user_id, session_id)

    async def recovered(self, token: str, caller: Caller) -> dict[str, Any]:
        """A session for the holder of a recovery link; changing the password ends the link."""
        ring = await self._auth.keyring()
        try:
            claims = ring.verify_recovery(token)
        except AuthenticationFailed as error:
            raise AuthRefusal("otp_expired", "This link is invalid or has expired", 403) from error
        user_id = UUID(claims["sub"])
        async with self._db.connection("api") as conn:
            stored = await conn.fetchval(q.password_of, user_id)
        if claims["pw"] != password_mark(stored):
            raise AuthRefusal("otp_expired", "This link is invalid or has expired", 403)
        return await self.open(user_id, caller, "recovery")

    async def _document(
        self, session_id: UUID, user_id: UUID, refresh_token: str, method: str
    ) -> dict[str, Any]:
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
            method=method,
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
        "app_metadata": app_metadata(user, organization_id, org_role),
        "user_metadata": user["user_metadata"] or {},
        "identities": [identity],
        "created_at": _z(user["created_at"]),
        "updated_at": _z(user["updated_at"]),
        "is_anonymous": False,
    }


def _z(stamp: str | None) -> str | None:
    """Postgres writes +00:00 in UTC sessions; GoTrue writes Z."""
    return stamp.replace("+00:00", "Z") if stamp else stamp


def _new_token() -> str:
    return secrets.token_urlsafe(32)


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _address(text: str) -> str | None:
    """For a column of type inet; None for what is none (a socket's path, a proxy's "unknown")."""
    try:
        return str(ip_address(text))
    except ValueError:
        return None
