"""One socket of ``/ws``: hello, resume, events out, commands in.

Events are written to the transport as whole websocket frames that were encoded once for everybody; aiohttp
reads, and closes.
(Its own frames and ours never mix inside one another: without compression both are written in one piece.) A
session that does
not keep up is taken off the stream and reads the ring and the log at its own pace, so nothing is buffered
for it beyond its
transport; if it does not read at all, or falls 1,000 events behind, it is closed with 4008 and resumes from
its cursor.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import socket
import time
from collections import deque
from typing import Any
from uuid import UUID, uuid4

import msgspec
import structlog
from aiohttp import WSMsgType, web
from aiohttp.abc import AbstractStreamWriter

from hub import metrics
from hub.domain.permissions import can_see
from hub.domain.principal import Principal
from hub.edge import client_address
from hub.errors import HubError, Unavailable
from hub.events.sight import in_sight
from hub.failpoints import failpoint
from hub.realtime import commands, protocol
from hub.realtime.fanout import (
    DATABASE_AWAY,
    RESUME_MAX,
    WRITE_BYTES,
    Audience,
    Stream,
    audience_of,
    coalesce,
)
from hub.realtime.presence import Presence
from hub.realtime.protocol import (
    Actor,
    BadFrame,
    Command,
    Cursor,
    Failure,
    Hello,
    Pos,
    Reason,
    Refused,
    Resync,
    Welcome,
)
from hub.realtime.registry import POSITION_S, SUSPICION_S, Registry
from hub.resources import REQUEST_ID, SESSIONS

log = structlog.get_logger()

HELLO_S = 5.0
#: What may wait in a session's transport before it counts as behind.
BACKLOG_FRAMES, BACKLOG_BYTES = 256, 512 * 1024
#: A session that is behind and takes nothing for so long is closed.
STALL_S = 10.0
#: How long a client that has everything may take to answer a close frame.
GOODBYE_S = 2.0
#: The kernel's share of that backlog; its default lets a stalled reader take 4 MB.
SEND_BUFFER_BYTES = 128 * 1024
#: Frames a client may send: per second, and at once.
FRAMES_PER_S, FRAMES_BURST = 30.0, 60.0
#: Commands that wait while one runs.
COMMANDS_WAITING = 64

_ENDINGS = (WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR)


class _Stalled(Exception):
    """The client does not read."""


class Session:
    """One socket, from its upgrade to its end."""

    __slots__ = (
        "_behind",
        "_closing",
        "_commands",
        "_marked_bytes",
        "_marked_frames",
        "_marks",
        "_nudge",
        "_runner",
        "_stream",
        "_tokens",
        "_tokens_at",
        "_transport",
        "_writer",
        "_ws",
        "address",
        "audience",
        "credential",
        "fingerprint",
        "heard_at",
        "id",
        "known_conversation",
        "organization_id",
        "pinged_at",
        "principal",
        "registry",
        "request_id",
        "suspect_until",
        "typing_in",
        "user_id",
    )  # fmt: skip

    principal: Principal
    audience: Audience
    organization_id: UUID
    user_id: UUID | None
    credential: tuple[UUID | None, ...]
    """What was shown at sign-in; sockets with the same one stand and fall together."""

    def __init__(
        self,
        registry: Registry,
        ws: web.WebSocketResponse[Any],
        transport: asyncio.Transport,
        writer: AbstractStreamWriter,
    ) -> None:
        now = time.monotonic()
        self.id = uuid4().hex
        self.registry = registry
        self.fingerprint: str | None = None
        #: Of the handshake, for the audit log.
        self.address: str | None = None
        self.request_id: str | None = None
        self.suspect_until = now + SUSPICION_S
        self.heard_at = self.pinged_at = now
        self.known_conversation: UUID | None = None
        self.typing_in: UUID | None = None
        self._ws = ws
        self._transport = transport
        self._writer = writer
        self._stream: Stream | None = None
        self._behind = False
        self._nudge = asyncio.Event()
        self._closing: asyncio.Task[None] | None = None
        self._commands: deque[Command] | None = None
        self._runner: asyncio.Task[None] | None = None
        self._tokens, self._tokens_at = FRAMES_BURST, now
        self._marks: deque[tuple[int, int]] | None = None
        self._marked_bytes = self._marked_frames = 0

    # Life.

    async def run(self) -> None:
        """From hello to the end of the socket."""
        try:
            hello = await self._receive_hello()
            if hello is None or not await self._sign_in(hello.token):
                return
            try:
                self._stream = await self.registry.fanout.join(self.organization_id)
                reason = await self._cannot_resume(self._stream, hello.cursor)
            except DATABASE_AWAY:
                self.registry.dismiss(self, "unavailable")
                return
            self._welcome(self._stream, hello.cursor, reason)
            await self._read()
        finally:
            self._leave()
            if self._closing is not None:
                await asyncio.shield(self._closing)

    async def _receive_hello(self) -> Hello | None:
        try:
            async with asyncio.timeout(HELLO_S):
                data = await self._next_frame()
        except TimeoutError:
            self.close_soon(protocol.NO_HELLO, "no hello")
            return None
        if data is None:
            return None
        try:
            frame = protocol.decode(data)
        except BadFrame as e:
            self.close_soon(protocol.BAD_FRAME, str(e))
            return None
        if isinstance(frame, Hello):
            return frame
        self.close_soon(protocol.BAD_FRAME, "the first frame is hello")
        return None

    async def _sign_in(self, token: str) -> bool:
        try:
            principal = await self.registry.auth.principal_of_token(token)
        except Unavailable:
            self.registry.dismiss(self, "unavailable")
            return False
        except HubError as e:
            self.close_soon(protocol.BAD_TOKEN, e.message)
            return False
        if (
            principal.kind not in ("user", "key")
            or principal.organization_id is None
            or not can_see("messages", principal.permissions, principal.role)
        ):
            self.close_soon(protocol.NOT_ALLOWED, "live sessions need can_read_messages")
            return False
        self.principal = msgspec.structs.replace(principal, address=self.address, request_id=self.request_id)
        self.audience = audience_of(principal)
        self.organization_id = principal.organization_id
        self.user_id = principal.user_id
        p = principal
        self.credential = (p.session_id, p.key_id, p.user_id, p.organization_id)
        if self.registry.closing:
            self.registry.dismiss(self, "going_away")
            return False
        if not self.registry.enter(self):
            self.close_soon(protocol.TOO_MANY, "too many sockets")
            return False
        return True

    async def _cannot_resume(self, stream: Stream, cursor: Cursor | None) -> Reason | None:
        """Why the client has to start from a snapshot; None when what it missed can be sent."""
        if cursor is None:
            return "new"
        if cursor.epoch != self.epoch:
            same_log = cursor.epoch.partition(".")[0] == self.registry.fanout.epoch
            return "permissions" if same_log else "epoch"
        if cursor.seq > stream.pos and not await self.registry.fanout.reach(stream, cursor.seq):
            return "rewind"
        if stream.pos - cursor.seq > RESUME_MAX:
            return "too_far"
        # The event at the floor is still there: who saw everything below it misses nothing.
        if stream.since(cursor.seq) is None and cursor.seq < await stream.floor() - 1:
            return "too_old"
        return None

    def _welcome(self, stream: Stream, cursor: Cursor | None, reason: Reason | None) -> None:
        """Position, greeting and place in the stream, without an await in between."""
        if self.user_id is not None:
            stream.presence.enter(self.user_id, self.id)
        principal = self.principal
        actor = Actor(
            self.id, self.user_id, self.organization_id, principal.role, sorted(principal.permissions)
        )
        welcome = Welcome(reason is None, reason, self.epoch, stream.pos, actor, stream.presence.present())
        stream.flush()
        self._write(protocol.encode(welcome), 1)
        stream.listeners.add(self)
        if self.registry.fanout.away:
            self.whisper(self.registry.fanout.degraded_frame())
        if self.principal.visibility != "all":
            stream.narrow.add(self)
            sent = cursor.seq if reason is None and cursor is not None else stream.pos
            self.registry.spawn(self._follow(stream, sent), "live narrow")
        elif reason is None and cursor is not None:
            self._catch_up_from(cursor.seq)
        else:
            stream.attach(self, self.audience)
        log.info("live.opened", session_id=self.id, organization_id=str(self.organization_id), reason=reason)

    def _leave(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.listeners.discard(self)
            stream.narrow.discard(self)
            self._nudge.set()
            stream.detach(self, self.audience)
            if self.user_id is not None:
                if self.typing_in is not None:
                    stream.presence.typing(self.user_id, self.typing_in, False)
                stream.presence.leave(self.user_id, self.id)
            self.registry.fanout.leave(stream)
            log.info("live.closed", session_id=self.id, code=self._ws.close_code)
        self.registry.leave(self)

    @property
    def epoch(self) -> str:
        """What the client keeps with its seq: it moves with the database, and with what the caller may
        see."""
        p = self.principal
        sight = "" if p.visibility == "all" else f" {p.visibility} {','.join(map(str, p.team_ids))}"
        seen_as = f"{p.organization_id} {p.role} {','.join(sorted(p.permissions))}{sight}".encode()
        return f"{self.registry.fanout.epoch}.{hashlib.blake2s(seen_as, digest_size=6).hexdigest()}"

    @property
    def presence(self) -> Presence:
        assert self._stream is not None
        return self._stream.presence

    # In.

    async def _read(self) -> None:
        while (data := await self._next_frame()) is not None:
            try:
                frame = protocol.decode(data)
            except BadFrame as e:
                self.close_soon(protocol.BAD_FRAME, str(e))
                return
            if not isinstance(frame, Command):
                self.close_soon(protocol.BAD_FRAME, "hello again")
                return
            self._enqueue(frame)

    async def _next_frame(self) -> bytes | None:
        """The next text frame; None when there will be no more. Pings are answered here."""
        while self._closing is None:
            message = await self._ws.receive()
            self.heard_at = time.monotonic()
            if message.type in _ENDINGS or self._closing is not None:
                return None
            if message.type is WSMsgType.PONG:
                continue
            if not self._has_token(self.heard_at):
                self.close_soon(protocol.FLOOD, "too many frames")
                return None
            if message.type is WSMsgType.PING:
                self._write(protocol.pong(message.data), 0)
            elif message.type is WSMsgType.TEXT:
                return bytes(message.data)
            else:
                self.close_soon(protocol.BAD_FRAME, "frames are JSON text")
                return None
        return None

    def _has_token(self, now: float) -> bool:
        earned = (now - self._tokens_at) * FRAMES_PER_S
        self._tokens, self._tokens_at = min(FRAMES_BURST, self._tokens + earned), now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def _enqueue(self, command: Command) -> None:
        """Commands of one session run one after the other, so that two messages keep their order."""
        if self._commands is None:
            self._commands = deque()
        if len(self._commands) >= COMMANDS_WAITING:
            refusal = Failure("RATE_LIMIT_EXCEEDED", "Too many commands wait for an answer")
            self._write(protocol.encode(Refused(command.id, refusal)), 1)
            return
        self._commands.append(command)
        if self._runner is None:
            self._runner = self.registry.spawn(self._run_commands(self._commands), "live commands")

    async def _run_commands(self, waiting: deque[Command]) -> None:
        try:
            while waiting and self._stream is not None:
                reply = protocol.encode(await commands.answer(self, waiting.popleft()))
                self._write(reply, 1)
        finally:
            self._runner = self._commands = None

    # Out.

    def deliver(self, data: bytes, frames: int, first: int) -> None:
        size = self._transport.get_write_buffer_size()
        if size and (
            size + len(data) > BACKLOG_BYTES or self._waiting_frames(size) + frames > BACKLOG_FRAMES
        ):
            self._fall_behind(first - 1)
            return
        self._write(data, frames)

    def whisper(self, data: bytes) -> None:
        if self._transport.get_write_buffer_size() < BACKLOG_BYTES:
            self._write(data, 1)

    def resync(self, reason: Reason) -> None:
        if self._stream is not None:
            self._write(protocol.encode(Resync(reason, self._stream.pos, self.epoch)), 1)

    def _write(self, data: bytes, frames: int) -> None:
        """Bytes of whole frames. Never waits; what the kernel does not take stays in the transport."""
        transport = self._transport
        if self._closing is not None or transport.is_closing():
            return
        size = transport.get_write_buffer_size()
        if size > 2 * BACKLOG_BYTES:  # answers to somebody who does not read them
            self.close_soon(protocol.SLOW_READER, "slow reader")
            return
        transport.write(data)
        self.registry.frames_written += frames
        if size:
            if self._marks is None:
                self._marks = deque()
            self._marks.append((len(data), frames))
            self._marked_bytes += len(data)
            self._marked_frames += frames
        elif self._marks is not None:
            self._marks = None
            self._marked_bytes = self._marked_frames = 0

    def _waiting_frames(self, size: int) -> int:
        """How many frames the last ``size`` bytes are, as far as they were written behind others."""
        marks = self._marks
        while marks and self._marked_bytes - marks[0][0] >= size:
            written, frames = marks.popleft()
            self._marked_bytes -= written
            self._marked_frames -= frames
        return self._marked_frames

    def _fall_behind(self, sent: int) -> None:
        if self._stream is not None and not self._behind:
            self._stream.detach(self, self.audience)
            self._behind = True
            self.registry.spawn(self._catch_up(self._stream, sent), "live catch-up")

    def _catch_up_from(self, sent: int) -> None:
        """Send what came after ``sent`` and go live: at once if the ring has it and it is little, else step
        by step."""
        stream = self._stream
        assert stream is not None
        entries = stream.since(sent)
        if entries is not None:
            writes = coalesce([e for e in entries if e.table in self.audience.tables])
            if sum(len(data) for data, _, _ in writes) <= WRITE_BYTES:
                failpoint("live.mid_resume")
                for data, frames, _ in writes:
                    self._write(data, frames)
                self._go_live(stream)
                return
        self._behind = True
        self.registry.spawn(self._catch_up(stream, sent), "live catch-up")

    async def _catch_up(self, stream: Stream, sent: int) -> None:
        """Follow the ring and the log until nothing is missing, at the speed the client reads."""
        generation = stream.generation
        try:
            while self._stream is stream and self._closing is None:
                if sent >= stream.pos or stream.generation != generation:
                    self._behind = False
                    self._go_live(stream)
                    return
                if stream.pos - sent > 2 * RESUME_MAX:  # it reads, but never fast enough
                    raise _Stalled
                entries = await stream.missed(sent)
                failpoint("live.mid_resume")
                if not entries:  # they are no more: pruned, or rewound and about to be said so
                    self.resync("too_old")
                    sent = stream.pos
                    continue
                for data, frames, _ in coalesce([e for e in entries if e.table in self.audience.tables]):
                    await self._drain()
                    if stream.generation != generation:
                        break
                    self._write(data, frames)
                sent = entries[-1].seq
        except _Stalled:
            self.close_soon(protocol.SLOW_READER, "slow reader")
        except ConnectionError:
            return
        except DATABASE_AWAY:
            self.registry.dismiss(self, "unavailable")
        except Exception:  # whatever it was: a session that gets nothing must not look alive
            log.exception("live.catch_up_failed", session_id=self.id)
            self.registry.dismiss(self, "unavailable")

    def nudge(self) -> None:
        self._nudge.set()

    async def _follow(self, stream: Stream, sent: int) -> None:
        """Instead of being live, for a member who does not see all conversations: read what is new, ask what
        of it he may see, send that, in order and at the speed the client reads."""
        generation, resumed = stream.generation, sent < stream.pos
        try:
            while self._stream is stream and self._closing is None:
                if stream.generation != generation:  # which `resync` has said
                    generation, sent = stream.generation, stream.pos
                if sent >= stream.pos:
                    if resumed:
                        self._write(protocol.encode(Pos(sent)), 1)
                        resumed = False
                    self._nudge.clear()
                    try:
                        async with asyncio.timeout(POSITION_S):
                            await self._nudge.wait()
                    except TimeoutError:
                        self._write(protocol.encode(Pos(sent)), 1)
                    continue
                if stream.pos - sent > 2 * RESUME_MAX:
                    raise _Stalled
                entries = await stream.missed(sent)
                if not entries:
                    self.resync("too_old")
                    sent = stream.pos
                    continue
                of_tables = [e for e in entries if e.table in self.audience.tables]
                told = [(e.table, protocol.payload_of(e.data)) for e in of_tables]
                shown = await in_sight(self.registry.db, self.principal, told, "live")
                seen = [e for e, may in zip(of_tables, shown, strict=True) if may]
                for data, frames, _ in coalesce(seen):
                    await self._drain()
                    if stream.generation != generation:
                        break
                    self._write(data, frames)
                sent = entries[-1].seq
        except _Stalled:
            self.close_soon(protocol.SLOW_READER, "slow reader")
        except ConnectionError:
            return
        except DATABASE_AWAY:
            self.registry.dismiss(self, "unavailable")
        except Exception:
            log.exception("live.follow_failed", session_id=self.id)
            self.registry.dismiss(self, "unavailable")

    def _go_live(self, stream: Stream) -> None:
        stream.attach(self, self.audience)
        self._write(protocol.encode(Pos(stream.pos)), 1)

    async def _drain(self) -> None:
        """Until the transport has room. Raises _Stalled when that takes too long, ConnectionError when it is
        gone."""
        if self._transport.is_closing():
            raise ConnectionError
        try:
            async with asyncio.timeout(STALL_S):
                await self._writer.drain()
        except TimeoutError:
            raise _Stalled from None

    # The end.

    @property
    def is_closing(self) -> bool:
        return self._closing is not None

    def keep_alive(self, now: float, ping_s: float, pong_s: float) -> None:
        """Ask for a sign of life; give up a client that gives none (half-open connections look like this)."""
        if self.heard_at < self.pinged_at:
            if now - self.pinged_at > pong_s and self._closing is None:
                metrics.WS_DROPPED.labels("silent").inc()
                self.abort()
        elif now - max(self.heard_at, self.pinged_at) >= ping_s:
            self.pinged_at = now
            self._write(protocol.PING, 0)

    def close_soon(self, code: int, reason: str) -> None:
        """Close with this code; the first one counts. Nothing is sent after it."""
        if self._closing is None:
            metrics.WS_DROPPED.labels(str(code)).inc()
            self._closing = self.registry.spawn(self._close(code, reason), "live close")

    async def _close(self, code: int, reason: str) -> None:
        log.info("live.closing", session_id=self.id, code=code)
        patience = STALL_S if self._transport.get_write_buffer_size() else GOODBYE_S
        with contextlib.suppress(ConnectionError, TimeoutError):
            # A close frame carries at most 123 bytes of text, whole characters.
            text = reason.encode()[:120].decode(errors="ignore").encode()
            async with asyncio.timeout(patience):
                await self._ws.close(code=code, message=text, drain=False)
        self.abort()

    def abort(self) -> None:
        """Drop the connection, and what a client that does not read has left in it."""
        if not self._transport.is_closing() or self._transport.get_write_buffer_size():
            self._transport.abort()


async def websocket_handler(request: web.Request) -> web.StreamResponse:
    """GET /ws."""
    registry = request.app[SESSIONS]
    registry.admit(request)
    ws: web.WebSocketResponse[Any] = web.WebSocketResponse(
        autoping=False,
        compress=False,
        max_msg_size=protocol.CLIENT_FRAME_BYTES,
        decode_text=False,
        timeout=STALL_S,
    )
    writer = await ws.prepare(request)
    transport = request.transport
    if transport is None:
        return ws
    sock = transport.get_extra_info("socket")
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    session = Session(registry, ws, transport, writer)
    session.address = client_address(request, registry.settings)
    session.request_id = request.get(REQUEST_ID)
    await session.run()
    return ws


def routes() -> list[web.RouteDef]:
    return [web.get("/ws", websocket_handler)]
