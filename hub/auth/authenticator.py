"""From a credential to a principal: access tokens, project keys, organization keys.

What a session or key may do is read from the database and remembered for three seconds, so a revoked session,
a disabled member or a changed permission bites within five seconds everywhere. While the database is away the
last answer counts for a minute more; after that the state is unknown and the caller is refused.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Any, Final, Generic, TypeVar
from uuid import UUID

import asyncpg
import msgspec
import structlog

from hub import clock
from hub.auth.apikeys import hash_key, is_key, prefix_of
from hub.auth.tokens import WEB_CLAIM, Keyring, is_opaque, load_keyring, renewed_keyring
from hub.db.pool import Database
from hub.domain.permissions import PERMISSIONS, Visibility
from hub.domain.principal import ANON, Principal
from hub.errors import AuthenticationFailed, InvalidApiKey, Unavailable
from hub.settings import Settings
from sql import q

log = structlog.get_logger()
#: With what follows a look (a tick of the sockets, half a second of spread) it stays below five seconds.
FRESH_S: Final = 3.0
UNKNOWN_S: Final = 60.0
_REMEMBERED: Final = 20_000
_DUMMY: Final = bytes(32)
T = TypeVar("T")


class _Remembered(Generic[T]):
    """The last answers to one kind of question: fresh for FRESH_S, usable for UNKNOWN_S while the database is
    away. Callers that ask the same at once share one look-up."""

    def __init__(self) -> None:
        self._answers: OrderedDict[Any, tuple[float, T]] = OrderedDict()
        self._asking: dict[Any, asyncio.Task[T]] = {}

    async def get(self, key: Any, ask: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Raises Unavailable when the database is away and nothing younger than UNKNOWN_S is known."""
        now = time.monotonic()
        known = self._answers.get(key)
        if known is not None and now - known[0] < FRESH_S:
            return known[1]
        task = self._asking.get(key)
        if task is None:
            task = asyncio.get_running_loop().create_task(ask())
            self._asking[key] = task
            task.add_done_callback(partial(self._keep, key, now))
        try:
            return await asyncio.shield(task)
        except Unavailable:
            if known is not None and time.monotonic() - known[0] < FRESH_S + UNKNOWN_S:
                return known[1]
            raise

    def _keep(self, key: Any, asked: float, task: asyncio.Task[T]) -> None:
        """``asked``, not now: the answer may have been read right after the question."""
        if self._asking.get(key) is task:
            del self._asking[key]
            if not task.cancelled() and task.exception() is None:
                self._answers[key] = (asked, task.result())
                self._answers.move_to_end(key)
                if len(self._answers) > _REMEMBERED:
                    self._answers.popitem(last=False)
        elif not task.cancelled():
            task.exception()  # forgotten meanwhile; its waiters have seen the error

    def forget(self, key: Any) -> None:
        """The next question is asked anew, also if one is under way."""
        self._answers.pop(key, None)
        self._asking.pop(key, None)

    def forget_if(self, is_stale: Callable[[T], bool]) -> None:
        for key in [key for key, (_, answer) in self._answers.items() if is_stale(answer)]:
            self.forget(key)


class SessionState(msgspec.Struct, frozen=True):
    """app.session_state's row."""

    user_id: UUID
    organization_id: UUID | None
    role: str | None
    permissions: frozenset[str]
    is_web: bool
    revoked: bool
    aal: str
    amr: list[dict[str, Any]]
    lacks_factor: bool
    visibility: Visibility
    team_ids: tuple[UUID, ...]


class _KeyState(msgspec.Struct, frozen=True):
    organization_id: UUID
    key_id: UUID
    permissions: frozenset[str]
    expires_at: float | None


class Authenticator:
    """One per process; see the module."""

    def __init__(self, db: Database, settings: Settings) -> None:
        self._db = db
        self._settings = settings
        self._sessions: _Remembered[SessionState | None] = _Remembered()
        self._keys: _Remembered[_KeyState | None] = _Remembered()
        self._verified: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._ring: Keyring | None = None
        self._ring_read = 0.0
        self._renewing: asyncio.Task[None] | None = None
        #: Told of each use of a key; see hub/auth/notes.py.
        self.on_use: Callable[[UUID, UUID], None] = _unnoted

    async def keyring(self) -> Keyring:
        """The deployment's keys. Asked for once, then looked at again aside from the requests, every FRESH_S
        while there are any. Raises Unavailable while the database is away and they were never read."""
        if self._ring is None:
            async with self._db.connection("admin") as conn:
                self._ring = await load_keyring(conn, self._settings)
            self._ring_read = time.monotonic()
        elif time.monotonic() - self._ring_read >= FRESH_S and self._renewing is None:
            self._renewing = asyncio.create_task(self._renew(), name="keyring")
        return self._ring

    async def _renew(self) -> None:
        try:
            await self._read_keyring()
        except (Unavailable, asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
            self._ring_read = time.monotonic()  # the keys that are known go on
            log.info("keyring.not_read", error=type(error).__name__)
        finally:
            self._renewing = None

    async def _read_keyring(self) -> None:
        """Tokens of a key that has gone are no longer remembered as good."""
        assert self._ring is not None
        async with self._db.connection("admin") as conn:
            ring = await renewed_keyring(conn, self._settings, self._ring)
        self._ring_read = time.monotonic()
        if ring is not self._ring:
            log.info("keyring.changed", keys=len(ring.jwks["keys"]))
            self._ring = ring
            self._verified.clear()

    async def close(self) -> None:
        """Wait for what is under way."""
        if self._renewing is not None:
            await asyncio.gather(self._renewing, return_exceptions=True)

    async def principal_of_token(self, token: str) -> Principal:
        """Who this bearer token, project key or organization key stands for.
        Raises AuthenticationFailed, InvalidApiKey, Unavailable."""
        if token.startswith("cg_"):
            return await self.principal_of_key(token)
        if is_opaque(token):
            known = (await self.keyring()).opaque_role(token)
            if known is None:
                raise AuthenticationFailed("The key is not ours", rest_code="PGRST301")
            claims: dict[str, Any] = {"role": known}
        else:
            claims = await self._claims(token)
        role = claims["role"]
        if role == "anon":
            return ANON
        if role == "service_role":
            return Principal(
                kind="service", role="service_role", permissions=frozenset(PERMISSIONS), claims=claims
            )
        session_id = _uuid(claims["session_id"])
        state = await self.session(session_id)
        if state is None or state.revoked or str(state.user_id) != claims["sub"]:
            raise AuthenticationFailed("This session has ended", rest_code="PGRST301")
        return Principal(
            kind="user",
            organization_id=state.organization_id,
            user_id=state.user_id,
            role=state.role,
            permissions=state.permissions,
            session_id=session_id,
            is_web=claims.get(WEB_CLAIM) == "web",
            lacks_factor=state.lacks_factor,
            expires_at=float(claims["exp"]),
            claims=claims,
            visibility=state.visibility,
            team_ids=state.team_ids,
        )

    async def principal_of_key(self, key: str) -> Principal:
        """The organization principal of a ``cg_`` key. Raises InvalidApiKey."""
        if not is_key(key):
            raise InvalidApiKey("This API key is not valid")
        digest = hashlib.sha256(key.encode()).digest()
        state = await self._keys.get(digest, lambda: self._ask_key(key))
        if state is None:
            raise InvalidApiKey("This API key is not valid")
        if state.expires_at is not None and state.expires_at <= clock.now_s():
            raise InvalidApiKey("This API key has expired")
        self.on_use(state.organization_id, state.key_id)
        return Principal(
            kind="key",
            organization_id=state.organization_id,
            permissions=state.permissions,
            key_id=state.key_id,
            expires_at=state.expires_at,
        )

    async def recheck(self, principal: Principal) -> Principal | None:
        """The same caller as it is now; None when it is over (revoked, disabled, expired, no member any
        more). Raises Unavailable when that has been unknown for a minute."""
        if principal.expires_at is not None and principal.expires_at <= clock.now_s():
            return None
        if principal.session_id is not None:
            state = await self.session(principal.session_id)
            if state is None or state.revoked:
                return None
            if state.organization_id is None and principal.organization_id is not None:
                return None
            return msgspec.structs.replace(
                principal,
                organization_id=state.organization_id,
                role=state.role,
                permissions=state.permissions,
                visibility=state.visibility,
                team_ids=state.team_ids,
            )
        if principal.key_id is not None:
            return await self._recheck_key(principal)
        return principal

    async def _recheck_key(self, principal: Principal) -> Principal | None:
        """By id: a key's text is not kept."""
        state = await self._keys.get(principal.key_id, lambda: self._ask_key_id(principal.key_id))
        if state is None or (state.expires_at is not None and state.expires_at <= clock.now_s()):
            return None
        return msgspec.structs.replace(principal, permissions=state.permissions, expires_at=state.expires_at)

    async def _ask_key_id(self, key_id: UUID | None) -> _KeyState | None:
        async with self._db.connection("api") as conn:
            row = await conn.fetchrow(q.api_key_state, key_id)
        return _key_state(row) if row is not None and not row["revoked"] else None

    async def session(self, session_id: UUID) -> SessionState | None:
        return await self._sessions.get(session_id, lambda: self._ask_session(session_id))

    def forget_session(self, session_id: UUID) -> None:
        """It changed just now in this process; the others learn of it within FRESH_S."""
        self._sessions.forget(session_id)

    def forget_key(self, key_id: UUID) -> None:
        """It ended just now in this process; the others learn of it within FRESH_S."""
        self._keys.forget(key_id)
        self._keys.forget_if(lambda state: state is not None and state.key_id == key_id)

    def forget_user(self, user_id: UUID) -> None:
        """All of the user's sessions are asked about anew."""
        self._sessions.forget_if(lambda s: s is not None and s.user_id == user_id)

    def forget_member(self, organization_id: UUID, user_id: UUID) -> None:
        """His sessions in the organization are asked about anew."""
        self._sessions.forget_if(
            lambda s: s is not None and s.user_id == user_id and s.organization_id == organization_id
        )

    async def _ask_session(self, session_id: UUID) -> SessionState | None:
        async with self._db.connection("api") as conn:
            row = await conn.fetchrow(q.session_state, session_id)
        if row is None:
            return None
        user_id, organization_id, role, permissions, is_web, revoked, aal, amr, lacks, visibility, teams = row
        return SessionState(
            user_id, organization_id, role, frozenset(permissions), is_web, revoked, aal,
            msgspec.json.decode(amr), lacks, visibility, tuple(teams),
        )  # fmt: skip

    async def _ask_key(self, key: str) -> _KeyState | None:
        ring = await self.keyring()
        async with self._db.connection("api") as conn:
            rows = await conn.fetch(q.api_keys_by_prefix, prefix_of(key))
        wanted = hash_key(ring.pepper, key)
        found = None
        for row in rows or [{"key_hash": _DUMMY, "revoked": True}]:
            if hmac.compare_digest(bytes(row["key_hash"]), wanted) and not row["revoked"]:
                found = row
        if found is None:
            return None
        return _key_state(found)

    async def _claims(self, token: str) -> dict[str, Any]:
        """Checking an ES256 signature costs 0.1 ms; the same token comes with every request for an hour."""
        ring = await self.keyring()
        known = self._verified.get(token)
        if known is not None:
            if known["exp"] > clock.now_s():
                return known
            del self._verified[token]
        try:
            claims = ring.verify(token)
        except AuthenticationFailed as error:
            if time.monotonic() - self._ring_read < FRESH_S:
                _note_refused(error)
                raise
            await self._read_keyring()  # another hub may have made or replaced a key
            try:
                claims = self._ring.verify(token) if self._ring else ring.verify(token)
            except AuthenticationFailed as again:
                _note_refused(again)
                raise
        self._verified[token] = claims
        if len(self._verified) > _REMEMBERED:
            self._verified.popitem(last=False)
        return claims


def _note_refused(error: AuthenticationFailed) -> None:
    """Tokens run out every hour, which says nothing; one that was bent does."""
    level = log.info if "expired" in error.message else log.warning
    level("token.refused", reason=error.message)


def _unnoted(organization_id: UUID, key_id: UUID) -> None:
    """Nobody keeps notes here."""


def _key_state(row: Mapping[str, Any]) -> _KeyState:
    granted = msgspec.json.decode(row["permissions"])
    return _KeyState(
        organization_id=row["organization_id"],
        key_id=row["id"],
        permissions=frozenset(p for p in PERMISSIONS if granted.get(p) is True),
        expires_at=row["expires_at"].timestamp() if row["expires_at"] else None,
    )


def _uuid(text: Any) -> UUID:
    try:
        return UUID(str(text))
    except ValueError as error:
        raise AuthenticationFailed("The token's session_id cannot be read") from error
