"""Who is online, what they look at, who types: ephemeral, best effort, one room per organization in each hub.

Hubs tell each other over ``p:{organization}``: every change at once, everything they know of their own users
every 15 s, and on
demand when a hub opens the room. What a hub has not repeated for 45 s is forgotten, so a dead hub's users
vanish by themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from uuid import UUID

import msgspec
import structlog

from hub.realtime.protocol import PresenceFrame, Present, TypingFrame, encode

log = structlog.get_logger()

HEARTBEAT_S = 15.0
EXPIRY_S = 45.0


class _Message(msgspec.Struct, frozen=True, tag_field="t", omit_defaults=True):
    hub: str


class _State(_Message, frozen=True, tag="state"):
    """All users of one hub, with what they view."""

    users: dict[UUID, UUID | None]


class _Change(_Message, frozen=True, tag="change"):
    user: UUID
    online: bool
    viewing: UUID | None = None


class _Types(_Message, frozen=True, tag="types"):
    user: UUID
    conversation: UUID
    typing: bool


class _Who(_Message, frozen=True, tag="who"):
    """A hub that has just opened the room asks the others."""


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_State | _Change | _Types | _Who).decode


class _Remote:
    """What another hub said of its users, and until when that is believed."""

    __slots__ = ("expires", "users")

    def __init__(self) -> None:
        self.expires = 0.0
        self.users: dict[UUID, UUID | None] = {}


class Presence:
    """``send`` publishes to the other hubs; ``show(frame, except_user)`` reaches the sessions of this one."""

    __slots__ = ("_beat_at", "_hub", "_local", "_remote", "_send", "_show", "_shown")

    def __init__(
        self, hub: str, send: Callable[[bytes], None], show: Callable[[bytes, UUID | None], None]
    ) -> None:
        self._hub = hub
        self._send = send
        self._show = show
        self._local: dict[UUID, dict[str, UUID | None]] = {}
        self._remote: dict[str, _Remote] = {}
        self._shown: dict[UUID, UUID | None] = {}
        self._beat_at = 0.0

    def opened(self) -> None:
        """The room's channel is subscribed: ask who is there."""
        self._send(_encode(_Who(self._hub)))

    def enter(self, user: UUID, session: str) -> None:
        with self._changing(user):
            self._local.setdefault(user, {})[session] = None

    def leave(self, user: UUID, session: str) -> None:
        sessions = self._local.get(user)
        if sessions is None or session not in sessions:
            return
        with self._changing(user):
            del sessions[session]
            if not sessions:
                del self._local[user]

    def view(self, user: UUID, session: str, conversation: UUID | None) -> None:
        sessions = self._local.get(user)
        if sessions is None or session not in sessions:
            return
        with self._changing(user):
            del sessions[session]  # put last: what was opened most recently is what the user looks at
            sessions[session] = conversation

    def typing(self, user: UUID, conversation: UUID, typing: bool) -> None:
        self._show(encode(TypingFrame(conversation, user, typing)), user)
        self._send(_encode(_Types(self._hub, user, conversation, typing)))

    def present(self) -> list[Present]:
        """Everybody who is online, as new sessions are told."""
        return [Present(user, viewing) for user, viewing in self._shown.items()]

    def received(self, payload: bytes, now: float) -> None:
        """A message on the room's channel; our own come back too and say nothing new."""
        try:
            message = _decode(payload)
        except msgspec.DecodeError:
            log.warning("presence.unreadable")
            return
        if message.hub == self._hub:
            return
        match message:
            case _State():
                remote = self._remote.setdefault(message.hub, _Remote())
                touched = remote.users.keys() | message.users.keys()
                remote.users, remote.expires = message.users, now + EXPIRY_S
                for user in touched:
                    self._refresh(user)
            case _Change():
                remote = self._remote.setdefault(message.hub, _Remote())
                remote.expires = now + EXPIRY_S
                if message.online:
                    remote.users[message.user] = message.viewing
                else:
                    remote.users.pop(message.user, None)
                self._refresh(message.user)
            case _Types():
                self._show(
                    encode(TypingFrame(message.conversation, message.user, message.typing)), message.user
                )
            case _Who():
                self._tell()

    def tick(self, now: float) -> None:
        """Once a second: forget hubs that fell silent, repeat our own users."""
        for hub in [hub for hub, remote in self._remote.items() if remote.expires < now]:
            for user in self._remote.pop(hub).users:
                self._refresh(user)
        if now >= self._beat_at:
            self._beat_at = now + HEARTBEAT_S
            if self._local:
                self._tell()

    def _tell(self) -> None:
        users = {user: _latest(sessions) for user, sessions in self._local.items()}
        self._send(_encode(_State(self._hub, users)))

    @contextmanager
    def _changing(self, user: UUID) -> Iterator[None]:
        """Tell the other hubs what became of a local user, if anything did, and show it here."""
        before = self._own(user)
        yield
        online, viewing = after = self._own(user)
        if after != before:
            self._send(_encode(_Change(self._hub, user, online, viewing)))
            self._refresh(user)

    def _own(self, user: UUID) -> tuple[bool, UUID | None]:
        sessions = self._local.get(user)
        return sessions is not None, _latest(sessions) if sessions else None

    def _refresh(self, user: UUID) -> None:
        """Work out what is true of a user over all hubs, and show it if it is news."""
        views = [_latest(sessions)] if (sessions := self._local.get(user)) else []
        views += [remote.users[user] for remote in self._remote.values() if user in remote.users]
        if not views:
            if user in self._shown:
                del self._shown[user]
                self._show(encode(PresenceFrame(user, False, None)), None)
            return
        viewing = next((v for v in views if v is not None), None)
        if user not in self._shown or self._shown[user] != viewing:
            self._shown[user] = viewing
            self._show(encode(PresenceFrame(user, True, viewing)), None)


def _latest(sessions: dict[str, UUID | None]) -> UUID | None:
    """What the most recently used of a user's sessions shows; those that show nothing do not hide it."""
    return next((v for v in reversed(sessions.values()) if v is not None), None)
