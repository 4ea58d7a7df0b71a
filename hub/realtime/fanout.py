"""Redis → local sessions, in order and without gaps: one subscription a process, and the event log behind it.

Publications may be lost, doubled or overtaken. A stream (one per organization with sessions here) applies an
event only when
its seq is the next one; what is missing is read from the log, and a head check once a second finds what
nobody announced.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import re
import ssl
import time
from collections import deque
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Literal, NamedTuple, Protocol, cast
from uuid import UUID, uuid4

import asyncpg
import hiredis
import structlog
from redis.asyncio.connection import parse_url

from hub import clock, metrics
from hub.db.pool import Database
from hub.domain.permissions import RULES, can_see
from hub.domain.principal import Principal
from hub.errors import Unavailable
from hub.events import log as event_log
from hub.events.publisher import Publisher, unpack
from hub.failpoints import failpoint
from hub.realtime.presence import Presence
from hub.realtime.protocol import Degraded, Pos, Reason, encode, text_frame

log = structlog.get_logger()

#: Events that a stream keeps for those who resume, and their bytes.
RING_EVENTS, RING_BYTES = 512, 1024 * 1024
#: Farther behind than this, a fresh snapshot is cheaper for everybody.
RESUME_MAX = 1000
#: Publishers of consecutive commits overtake each other by less than this; only then is the log asked.
OVERTAKING_S = 0.015
#: Publications kept while an earlier one is missing; beyond it they are read from the log.
PENDING_MAX = 2000
HEAD_CHECK_S, HEAD_CHECK_AWAY_S = 1.0, 0.25
#: One write to a session; larger bursts are cut so that a transport never swallows a whole burst at once.
WRITE_BYTES = 128 * 1024
CONNECT_S, CONFIRM_S, RECONNECT_MAX_S = 1.0, 1.0, 1.0
#: Redis is asked for a sign of life every 5 s and given up 10 s after its last one.
REDIS_PING_S, REDIS_SILENCE_S = 5.0, 10.0

#: What a database that is away may raise from a read.
DATABASE_AWAY = (Unavailable, asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError)
Away = Literal["postgres", "redis"]


class Audience(NamedTuple):
    """The tables whose events a class of callers may see; sessions of one audience get the same bytes."""

    tables: frozenset[str]


_audiences: dict[frozenset[str], Audience] = {}


def audience_of(principal: Principal) -> Audience:
    """The same object for everybody who may see the same tables."""
    tables = frozenset(t for t in RULES if can_see(t, principal.permissions, principal.role))
    return _audiences.setdefault(tables, Audience(tables))


class Entry(NamedTuple):
    """One applied event, as a whole websocket frame."""

    seq: int
    table: str
    data: bytes


class Listener(Protocol):
    """What a stream knows of a session. Neither call may block."""

    user_id: UUID | None

    def deliver(self, data: bytes, frames: int, first: int) -> None:
        """Events, in order, the lowest of them ``first``. A listener that cannot take them detaches
        itself."""

    def resync(self, reason: Reason) -> None:
        """The stream's position was set anew."""

    def nudge(self) -> None:
        """There are new events, of which it decides itself what it may see."""

    def whisper(self, data: bytes) -> None:
        """Something that may be lost."""


class Stream:
    """One organization's events in this process: position, ring, and the sessions that are up to date."""

    def __init__(self, fanout: Fanout, organization_id: UUID) -> None:
        self.organization_id = organization_id
        self.pos = -1
        self.generation = 0
        self.position_shown_at = 0.0
        self.holders = 0
        self.opening: asyncio.Task[None] | None = None
        self.confirmed = asyncio.Event()
        self.listeners: set[Listener] = set()
        self.presence = Presence(fanout.hub_id, self._publish, self._show)
        self._fanout = fanout
        #: Members who do not see all conversations: told that there is something to look at.
        self.narrow: set[Listener] = set()
        self._live: dict[Audience, set[Listener]] = {}
        self._ring: deque[Entry] = deque()
        self._ring_bytes = 0
        self._pending: dict[int, tuple[str, bytes]] = {}
        self._goal = -1
        self._fresh: list[Entry] = []
        self._timer: asyncio.TimerHandle | None = None
        self._filling: asyncio.Task[None] | None = None
        self._reading = asyncio.Lock()
        self._floor: tuple[float, int] | None = None

    # Events in.

    def offer(self, seq: int, table: str, payload: bytes) -> None:
        """One announced event, in whatever order; applied when its turn comes."""
        if seq <= self.pos:
            return
        if seq == self.pos + 1 and self.pos >= 0:
            self._append(seq, table, payload)
            self._drain()
        elif len(self._pending) < PENDING_MAX:
            self._pending[seq] = (table, payload)
            self.want(seq)
        else:
            self.want(seq)

    def want(self, goal: int) -> None:
        """The log is known to reach ``goal``: if we do not get there in a moment, read it."""
        self._goal = max(self._goal, goal)
        if 0 <= self.pos < self._goal and self._timer is None and self._filling is None:
            self._timer = asyncio.get_running_loop().call_later(OVERTAKING_S, self._read_gap)

    async def reach(self, seq: int) -> bool:
        """Read up to ``seq`` now. False when the log could not be read that far."""
        self._goal = max(self._goal, seq)
        while self.pos < seq and self._goal >= seq:
            if self._filling is None:
                self._filling = asyncio.create_task(self._fill(), name="live gap")
            before = self.pos
            await asyncio.shield(self._filling)
            if self.pos == before:
                break
        return self.pos >= seq

    def start_at(self, head: int) -> None:
        """The position is known: what was buffered above it follows."""
        self.pos = head
        self._pending = {s: e for s, e in self._pending.items() if s > head}
        self._drain()
        self.want(max(self._pending, default=head))

    def rewind(self, head: int, reason: Reason) -> None:
        """The log is another one than it was: every session starts over from a snapshot."""
        log.warning("live.resync", reason=reason, organization_id=str(self.organization_id))
        self.flush()
        self.generation += 1
        self._ring.clear()
        self._ring_bytes = 0
        self._pending.clear()
        self._goal = self.pos = head
        self._floor = None
        for listener in tuple(self.listeners):
            listener.resync(reason)

    def _append(self, seq: int, table: str, payload: bytes) -> None:
        entry = Entry(seq, table, text_frame(payload))
        self.pos = seq
        self._ring.append(entry)
        self._ring_bytes += len(entry.data)
        while len(self._ring) > RING_EVENTS or (self._ring_bytes > RING_BYTES and len(self._ring) > 1):
            self._ring_bytes -= len(self._ring.popleft().data)
        self._fresh.append(entry)
        self._fanout.touched(self)
        if table == "memberships":
            self._fanout.on_membership(self.organization_id)

    def _drain(self) -> None:
        while (event := self._pending.pop(self.pos + 1, None)) is not None:
            self._append(self.pos + 1, *event)

    def _read_gap(self) -> None:
        self._timer = None
        if self.pos < self._goal and self._filling is None:
            self._filling = asyncio.create_task(self._fill(), name="live gap")

    async def _fill(self) -> None:
        """Read up to the goal, in pages. One reader a stream at any time."""
        try:
            while self.pos < self._goal:
                generation = self.generation
                page = await event_log.page(self._fanout.db, self.organization_id, self.pos)
                if generation != self.generation:
                    continue
                if not page:  # announced, but not in the log: the head check tells what became of it
                    self._goal = self.pos
                    self._pending.clear()
                    self._fanout.check_soon()
                    return
                for event in page:
                    if event.seq == self.pos + 1:
                        self._append(event.seq, event.table, event.frame.encode())
                self._drain()
                self.flush()
        except DATABASE_AWAY as e:
            log.info("live.gap_unread", error=type(e).__name__)  # the next head check asks again
        finally:
            self._filling = None

    # Events out.

    def flush(self) -> None:
        """What was applied since the last flush, to every live session: joined once for each audience."""
        if not self._fresh:
            return
        fresh, self._fresh = self._fresh, []
        observe_lag(fresh[-1])
        for audience, listeners in list(self._live.items()):
            for data, frames, first in coalesce([e for e in fresh if e.table in audience.tables]):
                for listener in tuple(listeners):
                    listener.deliver(data, frames, first)
        for listener in self.narrow:
            listener.nudge()

    def attach(self, listener: Listener, audience: Audience) -> None:
        """From here on the session is live. Its caller has sent everything up to ``pos``, without an await
        since it looked."""
        self.flush()
        self._live.setdefault(audience, set()).add(listener)

    def detach(self, listener: Listener, audience: Audience) -> None:
        group = self._live.get(audience)
        if group is not None:
            group.discard(listener)
            if not group:
                del self._live[audience]

    def since(self, seq: int) -> list[Entry] | None:
        """The events after ``seq`` from the ring; None when it does not reach back so far."""
        if seq >= self.pos:
            return []
        if not self._ring or self._ring[0].seq > seq + 1:
            return None
        return list(itertools.islice(self._ring, seq + 1 - self._ring[0].seq, None))

    async def missed(self, seq: int) -> list[Entry]:
        """Events after ``seq``, from the ring or else from the log: at most RESUME_MAX, perhaps none if the
        log was rewound.
        Those who come back together read once: the first fills the ring for the others."""
        found = self.since(seq)
        if found is not None:
            return found
        async with self._reading:
            found = self.since(seq)
            if found is not None:
                return found
            below = self._ring[0].seq if self._ring else self.pos + 1
            generation = self.generation
            limit = min(below - 1 - seq, RESUME_MAX)
            page = await event_log.page(self._fanout.db, self.organization_id, seq, limit)
            entries = [Entry(e.seq, e.table, text_frame(e.frame.encode())) for e in page]
            next_seq = self._ring[0].seq if self._ring else self.pos + 1
            if entries and entries[-1].seq + 1 == next_seq and generation == self.generation:
                self._ring.extendleft(reversed(entries))
                self._ring_bytes += sum(len(e.data) for e in entries)
            return entries

    async def floor(self) -> int:
        """The lowest seq that clients may resume at. It only rises, so an answer is good for a minute."""
        now = time.monotonic()
        if self._floor is None or self._floor[0] < now:
            keep_s = self._fanout.resume_keep_s
            value = await event_log.floor(self._fanout.db, self.organization_id, keep_s)
            self._floor = (now + 60, value)
        return self._floor[1]

    def show_position(self, now: float) -> None:
        self.position_shown_at = now
        frame = encode(Pos(self.pos))
        for listener in self._attached():
            listener.whisper(frame)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for task in (self._filling, self.opening):
            if task is not None:
                task.cancel()

    def _attached(self) -> list[Listener]:
        return [listener for group in self._live.values() for listener in group]

    def _publish(self, payload: bytes) -> None:
        self._fanout.publisher.send(f"p:{self.organization_id}", payload)

    def _show(self, frame: bytes, except_user: UUID | None) -> None:
        for listener in tuple(self.listeners):
            if except_user is None or listener.user_id != except_user:
                listener.whisper(frame)


def coalesce(entries: Sequence[Entry]) -> list[tuple[bytes, int, int]]:
    """Entries joined to writes of at most WRITE_BYTES: (bytes, how many, the lowest seq)."""
    if len(entries) == 1:
        return [(entries[0].data, 1, entries[0].seq)]
    writes: list[tuple[bytes, int, int]] = []
    start = size = 0
    for n, entry in enumerate(entries):
        if n > start and size + len(entry.data) > WRITE_BYTES:
            writes.append((b"".join([e.data for e in entries[start:n]]), n - start, entries[start].seq))
            start, size = n, 0
        size += len(entry.data)
    if start < len(entries):
        writes.append((b"".join([e.data for e in entries[start:]]), len(entries) - start, entries[start].seq))
    return writes


_AT = re.compile(rb'"at" ?: ?"([^"]{10,40})"')


def observe_lag(entry: Entry) -> None:
    """Seconds from the change to its offer, once a flush; `at` stands before the payload, so nobody's text
    is taken for it."""
    if (found := _AT.search(entry.data, 0, 1500)) is not None:
        with contextlib.suppress(ValueError):
            at = datetime.fromisoformat(found[1].decode()).timestamp()
            metrics.EVENT_LAG.observe(max(clock.now_s() - at, 0.0))


class _Link(asyncio.Protocol):
    """One connection to Redis in subscriber state, read straight from the socket. (redis-py's own loop costs
    ~120 µs a
    message, and it subscribes again silently after a lost connection, when we must look at the heads.)"""

    def __init__(self, on_reply: Callable[[Any], None], on_read: Callable[[], None]) -> None:
        self._reader = hiredis.Reader()
        self._on_reply, self._on_read = on_reply, on_read
        self._transport: asyncio.Transport | None = None
        self.lost = asyncio.Event()
        self.answered = asyncio.Event()
        self.heard_at = time.monotonic()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # No isinstance: uvloop's transports inherit nothing of asyncio's.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.heard_at = time.monotonic()
        self.answered.set()
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not False:
                self._on_reply(reply)
        except Exception:
            log.exception("live.redis_unreadable")
            self.abort()
        self._on_read()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()

    def command(self, *parts: str) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(hiredis.pack_command(parts))  # type: ignore[arg-type]

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()
        self.lost.set()


class Fanout:
    """All streams of one process. ``resume_keep_s``: how old an event a client may still resume at."""

    def __init__(
        self, db: Database, redis_url: str, publisher: Publisher, resume_keep_s: float = 7 * 86400.0
    ) -> None:
        self.db = db
        self.publisher = publisher
        self.resume_keep_s = resume_keep_s
        self.hub_id = uuid4().hex[:12]
        self.epoch: str | None = None
        self.streams: dict[UUID, Stream] = {}
        self.away: set[Away] = set()
        #: Called with the organization whose memberships changed (the registry looks at its sessions then).
        self.on_membership: Callable[[UUID], None] = lambda _: None
        self._address = parse_url(redis_url)
        self._link: _Link | None = None
        self._touched: dict[Stream, None] = {}
        self._check = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        #: Loops look at it, because a wait may swallow their cancellation (asyncio.wait_for before 3.12).
        self._stopping = False

    async def start(self) -> None:
        self._tasks = [
            asyncio.create_task(self._keep_subscribed(), name="live redis"),
            asyncio.create_task(self._keep_checking(), name="live heads"),
        ]

    async def stop(self) -> None:
        self._stopping = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for stream in list(self.streams.values()):
            stream.close()
        self.streams.clear()
        if self._link is not None:
            self._link.abort()

    # Streams.

    async def join(self, organization_id: UUID) -> Stream:
        """The organization's stream, positioned; held until ``leave``. Raises Unavailable while the log
        cannot be read."""
        stream = self.streams.get(organization_id)
        if stream is None:
            stream = self.streams[organization_id] = Stream(self, organization_id)
        stream.holders += 1
        try:
            while stream.pos < 0:
                if stream.opening is None:
                    stream.opening = asyncio.create_task(self._open(stream), name="live open")
                await asyncio.shield(stream.opening)
        except BaseException as e:
            self.leave(stream)
            if isinstance(e, DATABASE_AWAY) and not isinstance(e, Unavailable):
                raise Unavailable("The event log cannot be read just now", retry_after_s=2) from e
            raise
        return stream

    def leave(self, stream: Stream) -> None:
        stream.holders -= 1
        if stream.holders == 0 and self.streams.get(stream.organization_id) is stream:
            del self.streams[stream.organization_id]
            stream.close()
            if self._link is not None:
                self._link.command("UNSUBSCRIBE", *_channels(stream.organization_id))

    async def _open(self, stream: Stream) -> None:
        """Subscribe, *then* read the head: what is committed in between is in one of the two."""
        try:
            if self._link is not None:
                self._link.command("SUBSCRIBE", *_channels(stream.organization_id))
                with contextlib.suppress(TimeoutError):  # Redis is away, then: the head check carries us
                    async with asyncio.timeout(CONFIRM_S):
                        await stream.confirmed.wait()
            failpoint("live.after_subscribe")
            state = await event_log.state(self.db, [stream.organization_id])
            await self._note_epoch(state.epoch)
            stream.start_at(state[stream.organization_id])
            stream.presence.opened()
        finally:
            stream.opening = None

    # Redis.

    def touched(self, stream: Stream) -> None:
        self._touched[stream] = None

    def _flush(self) -> None:
        """One write a session for everything that one read from Redis brought."""
        touched, self._touched = self._touched, {}
        for stream in touched:
            stream.flush()

    def _on_reply(self, reply: Any) -> None:
        if isinstance(reply, hiredis.ReplyError):
            log.error("live.redis_refused", error=str(reply))
            if self._link is not None:
                self._link.abort()
            return
        if not isinstance(reply, list) or len(reply) != 3:
            return  # +OK of AUTH, the pong of a health check
        kind, channel, body = reply
        if kind == b"message":
            self.receive(channel, body)
        elif kind == b"subscribe":
            stream = self.streams.get(UUID(channel[2:].decode()))
            if stream is None:
                return
            if channel.startswith(b"o:"):
                stream.confirmed.set()
                if stream.pos >= 0:
                    self.check_soon()  # subscribed anew: something may have passed by
            elif stream.pos >= 0:
                stream.presence.opened()

    def receive(self, channel: bytes, body: bytes) -> None:
        """One message from Redis."""
        stream = self.streams.get(UUID(channel[2:].decode()))
        if stream is None:
            return
        if channel.startswith(b"p:"):
            stream.presence.received(body, time.monotonic())
            return
        try:
            publication = unpack(body)
        except (ValueError, UnicodeDecodeError):
            log.warning("live.unreadable_publication")
            self.check_soon()
            return
        if publication.epoch != self.epoch:
            self.check_soon()
        elif publication.frames:
            for seq, (table, frame) in enumerate(publication.frames, publication.first):
                stream.offer(seq, table, frame)
        else:
            stream.want(publication.first + publication.total - 1)

    async def _keep_subscribed(self) -> None:
        pause = 0.0
        while not self._stopping:
            try:
                link = await self._connect()
            except (OSError, TimeoutError, ssl.SSLError) as e:
                self._note("redis", True)
                pause = min(pause * 2 or 0.1, RECONNECT_MAX_S)
                log.info("live.redis_away", error=type(e).__name__)
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))
                continue
            pause = 0.0
            self._link = link
            channels = [c for org in self.streams for c in _channels(org)]
            for at in range(0, len(channels), 1000):
                link.command("SUBSCRIBE", *channels[at : at + 1000])
            self.check_soon()
            self._note("redis", False)
            await self._watch(link)
            self._link = None
            for stream in self.streams.values():
                stream.confirmed.clear()
            log.warning("live.redis_lost")
            self.check_soon()

    async def _watch(self, link: _Link) -> None:
        """Until the connection is lost, or silent for too long."""
        while not (link.lost.is_set() or self._stopping):
            link.command("PING")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REDIS_PING_S):
                    await link.lost.wait()
            if time.monotonic() - link.heard_at > REDIS_SILENCE_S:
                link.abort()

    async def _connect(self) -> _Link:
        loop = asyncio.get_running_loop()
        address = self._address
        link = _Link(self._on_reply, self._flush)
        async with asyncio.timeout(CONNECT_S):
            if "path" in address:
                await loop.create_unix_connection(lambda: link, address["path"])
            else:
                secure = address.get("connection_class") is not None
                await loop.create_connection(
                    lambda: link,
                    address.get("host", "127.0.0.1"),
                    address.get("port", 6379),
                    ssl=ssl.create_default_context() if secure else None,
                )
            if address.get("password"):
                user = [address["username"]] if address.get("username") else []
                link.command("AUTH", *user, address["password"])
            link.command("PING")  # the kernel of a server that hangs still accepts
            try:
                await link.answered.wait()
            except asyncio.CancelledError:
                link.abort()
                raise
        return link

    # The log.

    def check_soon(self) -> None:
        """Look at the heads now rather than at the next second."""
        self._check.set()

    async def _keep_checking(self) -> None:
        while not self._stopping:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(HEAD_CHECK_S if self._link is not None else HEAD_CHECK_AWAY_S):
                    await self._check.wait()
            self._check.clear()
            try:
                await self.check_heads()
                self._note("postgres", False)
            except DATABASE_AWAY as e:
                log.info("live.log_away", error=type(e).__name__)
                self._note("postgres", True)
                await asyncio.sleep(HEAD_CHECK_AWAY_S)
            except Exception:
                log.exception("live.head_check_failed")
                await asyncio.sleep(HEAD_CHECK_S)

    async def reach(self, stream: Stream, seq: int) -> bool:
        """Whether the log reaches ``seq``; if so the stream has been brought there. Raises Unavailable."""
        state = await event_log.state(self.db, [stream.organization_id])
        if state.epoch != self.epoch:
            self.check_soon()
            return False
        if state[stream.organization_id] < seq:
            return False
        return await stream.reach(seq)

    async def check_heads(self) -> None:
        """Where the logs of all organizations with sessions here stand, in one statement."""
        known = {org: stream.pos for org, stream in self.streams.items() if stream.pos >= 0}
        if not known:
            return
        state = await event_log.state(self.db, list(known))
        if await self._note_epoch(state.epoch):
            return
        for org, pos in known.items():
            stream = self.streams.get(org)
            if stream is None:
                continue
            head = state[org]
            if head < pos:
                stream.rewind(head, "rewind")
            elif head > stream.pos:
                stream.want(head)

    async def _note_epoch(self, epoch: str) -> bool:
        """True when the database became another one since we last looked; every stream was then set to its
        new head."""
        before, self.epoch = self.epoch, epoch
        if before is None or before == epoch:
            return False
        streams = {org: s for org, s in self.streams.items() if s.pos >= 0}
        if streams:
            state = await event_log.state(self.db, list(streams))
            for org, stream in streams.items():
                stream.rewind(state[org], "epoch")
        return True

    def _note(self, what: Away, away: bool) -> None:
        """Tell every session when a store goes or comes back."""
        if (what in self.away) == away:
            return
        (self.away.add if away else self.away.discard)(what)
        log.warning("live.degraded", away=sorted(self.away))
        if what == "redis":
            metrics.REDIS_AWAY.set(int(away))
        frame = self.degraded_frame()
        for stream in self.streams.values():
            for listener in tuple(stream.listeners):
                listener.whisper(frame)

    def degraded_frame(self) -> bytes:
        return encode(Degraded(sorted(self.away)))


def _channels(organization_id: UUID) -> tuple[str, str]:
    return f"o:{organization_id}", f"p:{organization_id}"
