"""Who is online over several hubs, without Redis: messages are handed over by hand, time is a number."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import orjson

from hub.realtime.presence import EXPIRY_S, HEARTBEAT_S, Presence

MONA, OMAR = UUID(int=1), UUID(int=2)
CHAT, OTHER = UUID(int=11), UUID(int=12)


class Room:
    """One hub's presence: what it published, and what its one session, of user ``me``, was shown."""

    def __init__(self, hub: str, me: UUID | None = None) -> None:
        self.me = me
        self.sent: list[bytes] = []
        self.shown: list[dict[str, Any]] = []
        self.presence = Presence(hub, self.sent.append, self.show)

    def show(self, frame: bytes, except_user: UUID | None) -> None:
        body = orjson.loads(frame[4 if frame[1] == 126 else 2 :])
        if except_user is None or except_user != self.me:
            self.shown.append(body)

    def users(self) -> dict[UUID, UUID | None]:
        return {p.user_id: p.viewing for p in self.presence.present()}


def exchange(now: float, *rooms: Room) -> None:
    """Redis: everybody hears everything, the sender too, until nobody has anything to say."""
    while any(room.sent for room in rooms):
        for room in rooms:
            messages, room.sent[:] = list(room.sent), []
            for message in messages:
                for other in rooms:
                    other.presence.received(message, now)


def test_a_room_that_opens_learns_who_is_there() -> None:
    a, b = Room("a"), Room("b")
    a.presence.enter(MONA, "s1")
    a.presence.view(MONA, "s1", CHAT)
    exchange(0, a)
    b.presence.opened()
    exchange(0, a, b)
    assert b.users() == {MONA: CHAT}


def test_a_user_with_several_sockets_leaves_with_the_last_and_shows_the_latest() -> None:
    a, b = Room("a"), Room("b")
    a.presence.enter(MONA, "s1")
    a.presence.enter(MONA, "s2")
    b.presence.enter(MONA, "s3")
    exchange(0, a, b)
    a.presence.view(MONA, "s1", CHAT)
    a.presence.view(MONA, "s2", OTHER)
    exchange(0, a, b)
    assert a.users() == b.users() == {MONA: OTHER}
    a.presence.view(MONA, "s2", None)
    exchange(0, a, b)
    assert a.users() == b.users() == {MONA: CHAT}
    a.presence.leave(MONA, "s1")
    a.presence.leave(MONA, "s2")
    exchange(0, a, b)
    assert a.users() == b.users() == {MONA: None}
    b.presence.leave(MONA, "s3")
    b.presence.leave(MONA, "s3")
    exchange(0, a, b)
    assert a.users() == b.users() == {}
    assert a.shown[-1] == {"type": "presence", "user_id": str(MONA), "online": False, "viewing": None}


def test_the_users_of_a_dead_hub_vanish_and_those_of_a_living_one_stay() -> None:
    a, b = Room("a"), Room("b")
    a.presence.enter(MONA, "s1")
    b.presence.enter(OMAR, "s2")
    exchange(0, a, b)
    now = 0.0
    while now <= EXPIRY_S + 1:  # hub a says nothing any more
        b.presence.tick(now)
        exchange(now, b)
        now += 1
    assert b.users() == {OMAR: None}
    c = Room("c")
    for second in range(int(EXPIRY_S * 3)):
        b.presence.tick(now + second)
        c.presence.tick(now + second)
        exchange(now + second, b, c)
    assert c.users() == {OMAR: None}
    assert HEARTBEAT_S * 3 <= EXPIRY_S


def test_typing_reaches_the_others_and_not_the_typist() -> None:
    a, b = Room("a", MONA), Room("b", OMAR)
    a.presence.typing(MONA, CHAT, True)
    exchange(0, a, b)
    assert a.shown == []
    assert b.shown == [{"type": "typing", "conversation_id": str(CHAT), "user_id": str(MONA), "typing": True}]


def test_what_is_no_message_changes_nothing() -> None:
    a = Room("a")
    for garbage in (b"", b"{}", b"[]", b'{"t":"state","hub":"x","users":7}', b"\xff"):
        a.presence.received(garbage, 0)
    assert a.users() == {}
