"""The sessions of one process: who may open one, and the one loop that looks after them all."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Hashable
from typing import TYPE_CHECKING, Any
from uuid import UUID

import structlog
from aiohttp import web

from hub import metrics
from hub.db.pool import Database
from hub.domain.principal import Principal
from hub.edge import is_our_page
from hub.errors import HubError, InsufficientPermissions, Unavailable
from hub.realtime import protocol
from hub.realtime.fanout import DATABASE_AWAY, Fanout
from hub.realtime.protocol import Bye
from hub.settings import Settings
from sql import q

if TYPE_CHECKING:
    from hub.auth.authenticator import Authenticator
    from hub.realtime.session import Session

log = structlog.get_logger()

#: A browser opens one socket a tab; more than this is a program gone wrong.
USER_SOCKETS = 20
ORGANIZATION_SOCKETS = 2000
#: A handshake costs ~2 ms; above this rate the sockets that are already here would feel it.
HANDSHAKES_PER_S = 200
PING_S, PONG_S = 25.0, 10.0
#: `pos` at least every 15 s, with room for a late tick.
POSITION_S = 12
#: Each session's standing is asked every 4 s: revocation bites within 5.
STANDING_S = 4
#: The authenticator may answer from what it knew up to 5 s ago; so long a change is asked about again.
SUSPICION_S = 6.0
#: After `bye`, clients come back over this time, so that the next hub is not met by all at once.
RETURN_SPREAD_S = 5.0


class Registry:
    """Counts, limits, pings, positions, revocations and goodbyes of all local sessions."""

    def __init__(self, settings: Settings, db: Database, auth: Authenticator, fanout: Fanout) -> None:
        self.settings = settings
        self.db = db
        self.auth = auth
        self.fanout = fanout
        self.sessions: set[Session] = set()
        #: By whose turn it is to be asked, then by credential: a browser's tabs have one.
        self._turns: tuple[dict[Hashable, set[Session]], ...] = tuple({} for _ in range(STANDING_S))
        self._newcomers: set[Session] = set()
        #: Told of commands that a member or key may not give; see hub/auth/notes.py.
        self.on_refusal: Callable[[Principal, str, str], None] = _unnoted
        self.closing = False
        self._stopping = False
        #: Since the last tick; a metric's lock for each write would cost as much as the write.
        self.frames_written = 0
        self._by_user: Counter[UUID] = Counter()
        self._by_org: Counter[UUID] = Counter()
        self._suspect_orgs: set[UUID] = set()
        self._tokens, self._tokens_at = float(HANDSHAKES_PER_S), time.monotonic()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._loop: asyncio.Task[None] | None = None
        self._slot = 0
        fanout.on_membership = self._suspect_orgs.add

    async def start(self) -> None:
        self._loop = asyncio.create_task(self._look_after(), name="live sessions")

    async def stop(self, timeout_s: float = 5.0) -> None:
        """Say goodbye to every session and wait until they are gone."""
        self.say_goodbye()
        self._stopping = True
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.gather(self._loop, return_exceptions=True)
        if self._tasks:
            await asyncio.wait(tuple(self._tasks), timeout=timeout_s)
        for session in tuple(self.sessions):
            session.abort()
        for task in tuple(self._tasks):
            task.cancel()

    def say_goodbye(self) -> None:
        """Refuse new sessions; tell those here to come back elsewhere."""
        self.closing = True
        for session in tuple(self.sessions):
            self.dismiss(session, "going_away")

    def dismiss(self, session: Session, reason: Any, spread_s: float = RETURN_SPREAD_S) -> None:
        """Close with 4012, after a `bye` that says when to return."""
        session.whisper(protocol.encode(Bye(round(random.uniform(0, spread_s), 2), reason)))
        session.close_soon(protocol.GOING_AWAY, reason)

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """A task that belongs to a session and is waited for on shutdown."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("live.task_failed", task=task.get_name(), exc_info=error)

    # Admission.

    def admit(self, request: web.Request) -> None:
        """Before the upgrade. Raises InsufficientPermissions for a foreign Origin, Unavailable when too many
        knock."""
        origin = request.headers.get("Origin")
        if origin is not None and not is_our_page(origin, request.host, self.settings):
            metrics.WS_DROPPED.labels("origin").inc()
            raise InsufficientPermissions(
                "This origin may not open a live connection", hint="Add it to HUB_ALLOWED_ORIGINS"
            )
        now = time.monotonic()
        earned = (now - self._tokens_at) * HANDSHAKES_PER_S
        self._tokens, self._tokens_at = min(HANDSHAKES_PER_S, self._tokens + earned), now
        if self.closing or self._tokens < 1:
            metrics.WS_DROPPED.labels("handshakes").inc()
            raise Unavailable("Too many live connections are being opened", retry_after_s=1)
        self._tokens -= 1

    def enter(self, session: Session) -> bool:
        """Count a session that said who it is. False: too many of this user, or of this organization."""
        user, org = session.user_id, session.organization_id
        if (user and self._by_user[user] >= USER_SOCKETS) or self._by_org[org] >= ORGANIZATION_SOCKETS:
            return False
        if user:
            self._by_user[user] += 1
        self._by_org[org] += 1
        self.sessions.add(session)
        self._turn(session).setdefault(session.credential, set()).add(session)
        self._newcomers.add(session)
        metrics.WS_SESSIONS.set(len(self.sessions))
        return True

    def _turn(self, session: Session) -> dict[Hashable, set[Session]]:
        return self._turns[hash(session.credential) % STANDING_S]

    def leave(self, session: Session) -> None:
        if session not in self.sessions:
            return
        self.sessions.discard(session)
        self._newcomers.discard(session)
        turn = self._turn(session)
        turn[session.credential].discard(session)
        if not turn[session.credential]:
            del turn[session.credential]
        for counter, key in ((self._by_user, session.user_id), (self._by_org, session.organization_id)):
            if key:
                counter[key] -= 1
                if not counter[key]:
                    del counter[key]
        metrics.WS_SESSIONS.set(len(self.sessions))

    # Looking after.

    async def _look_after(self) -> None:
        """Once a second, for everybody: a timer a session would cost more than the sessions do."""
        while not self._stopping:
            await asyncio.sleep(1)
            try:
                self._slot += 1
                self._tick(time.monotonic())
                await self.check_standing()
            except DATABASE_AWAY as e:
                # Sockets stay while the database is away: without it there is nothing to show and nothing to
                # do.
                log.info("live.standing_unknown", error=type(e).__name__)
            except Exception:
                log.exception("live.tick_failed")

    def _tick(self, now: float) -> None:
        metrics.WS_FRAMES.inc(self.frames_written)
        self.frames_written = 0
        for session in tuple(self.sessions):
            session.keep_alive(now, PING_S, PONG_S)
        for stream in list(self.fanout.streams.values()):
            stream.presence.tick(now)
            if stream.pos >= 0 and now - stream.position_shown_at >= POSITION_S:
                stream.show_position(now)

    async def check_standing(self, everybody: bool = False) -> None:
        """Whether callers still are who they were: a quarter of the sessions a second, suspects at once."""
        now = time.monotonic()
        asked = self._due(everybody, now)
        if not asked:
            return
        callers = [sessions[0].principal for sessions in asked]
        async with self.db.connection("live") as conn:
            rows = await conn.fetch(
                q.live_standing,
                [p.kind for p in callers],
                [p.session_id for p in callers],
                [p.key_id if p.kind == "key" else p.user_id for p in callers],
                [p.organization_id for p in callers],
            )
        for sessions, row in zip(asked, rows, strict=True):
            stands, active, fingerprint = row
            for session in sessions:
                if not (
                    stands and active and fingerprint == session.fingerprint and session.suspect_until <= now
                ):
                    await self._judge(session, stands, active, fingerprint, now)

    def _due(self, everybody: bool, now: float) -> list[tuple[Session, ...]]:
        """Those to ask about now, by credential: each is asked about once."""
        suspect_orgs = frozenset(self._suspect_orgs)
        self._suspect_orgs.clear()
        self._newcomers = {s for s in self._newcomers if s.suspect_until > now}
        turns = self._turns if everybody else (self._turns[self._slot % STANDING_S],)
        due = {credential: sessions for turn in turns for credential, sessions in turn.items()}
        suspects = [s for s in self.sessions if s.organization_id in suspect_orgs] if suspect_orgs else []
        for session in (*suspects, *self._newcomers):
            due[session.credential] = self._turn(session)[session.credential]
        open_ones = (tuple(s for s in sessions if not s.is_closing) for sessions in due.values())
        return [sessions for sessions in open_ones if sessions]

    async def _judge(
        self, session: Session, stands: bool, active: bool, fingerprint: str, now: float
    ) -> None:
        principal = session.principal
        if not stands:
            session.close_soon(protocol.BAD_TOKEN, "revoked")
        elif not active:
            session.close_soon(protocol.NOT_ALLOWED, "disabled")
        elif session.fingerprint not in (None, fingerprint):
            # What it may see or do is different now: it comes back, and starts from a snapshot.
            self.dismiss(session, "permissions", spread_s=0.5)
        elif session.suspect_until > now:
            # The sign-in may have rested on what the authenticator knew some seconds ago.
            try:
                current = await self.auth.recheck(principal)
            except HubError:
                return
            if current is None:
                session.close_soon(protocol.BAD_TOKEN, "revoked")
            elif may_do(current) != may_do(principal):
                self.dismiss(session, "permissions", spread_s=0.5)
        session.fingerprint = fingerprint


def _unnoted(principal: Principal, what: str, reason: str) -> None:
    """Nobody keeps notes here."""


def may_do(principal: Any) -> tuple[Any, ...]:
    """What a session's epoch and audience rest on."""
    return (
        principal.organization_id, principal.role, principal.permissions, principal.visibility,
        principal.team_ids,
    )  # fmt: skip
