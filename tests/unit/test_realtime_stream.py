"""One organization's stream in a hub: what is buffered, kept for those who return, and shown to whom (N-03,
N-05)."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID, uuid4

import pytest

from hub.events.publisher import pack
from hub.realtime import fanout as module
from hub.realtime.fanout import Audience, Fanout, Stream
from tests.factories import until

ORG = uuid4()
EVERYTHING = Audience(frozenset({"contacts"}))
nothing: Any = None


class Listener:
    """Keeps the lowest seq of each write."""

    def __init__(self) -> None:
        self.user_id: UUID | None = None
        self.got: list[int] = []

    def deliver(self, data: bytes, frames: int, first: int) -> None:
        self.got += range(first, first + frames)

    def resync(self, reason: str) -> None:
        raise AssertionError(reason)

    def whisper(self, data: bytes) -> None:
        """May be lost."""


@pytest.fixture
def fanout() -> Fanout:
    found = Fanout(nothing, "redis://127.0.0.1:1", nothing)
    found.epoch = "now"
    return found


@pytest.fixture
def stream(fanout: Fanout) -> Stream:
    found = fanout.streams[ORG] = Stream(fanout, ORG)
    return found


def offer(stream: Stream, *seqs: int) -> None:
    for seq in seqs:
        stream.offer(seq, "contacts", b"{}")


async def test_N05_what_arrives_while_the_head_is_read_follows_it(stream: Stream) -> None:
    offer(stream, 9, 10, 12, 11)
    stream.start_at(10)
    assert stream.pos == 12
    assert [e.seq for e in stream.since(10) or ()] == [11, 12]


async def test_N05_who_attaches_gets_nothing_from_before(stream: Stream) -> None:
    """The welcome has said where the stream stands; what was applied until then and not yet written is in
    that."""
    stream.start_at(0)
    early, late = Listener(), Listener()
    stream.attach(early, EVERYTHING)
    offer(stream, 1, 2)
    stream.attach(late, EVERYTHING)
    offer(stream, 3)
    stream.flush()
    assert early.got == [1, 2, 3]
    assert late.got == [3]


async def test_N05_the_ring_says_what_it_does_not_hold(stream: Stream) -> None:
    stream.start_at(4)
    assert stream.since(4) == []
    offer(stream, 5, 6, 7, 8)
    assert stream.since(2) is None
    assert stream.since(3) is None
    assert [e.seq for e in stream.since(4) or ()] == [5, 6, 7, 8]
    assert [e.seq for e in stream.since(6) or ()] == [7, 8]
    assert stream.since(8) == []


async def test_N04_an_event_is_applied_once_and_in_its_place(stream: Stream) -> None:
    stream.start_at(0)
    listener = Listener()
    stream.attach(listener, EVERYTHING)
    offer(stream, 1, 1, 3, 3, 1, 2, 2, 3)
    stream.flush()
    assert listener.got == [1, 2, 3]
    stream.close()


async def test_D19_a_publication_of_another_epoch_is_not_shown(fanout: Fanout, stream: Stream) -> None:
    """Its numbers belong to another log; the heads are looked at instead."""
    stream.start_at(0)
    channel = f"o:{ORG}".encode()
    fanout.receive(channel, pack("earlier", 1, [("contacts", b"{}")]))
    assert stream.pos == 0
    assert fanout._check.is_set()
    fanout.receive(channel, pack("now", 1, [("contacts", b"{}")]))
    assert stream.pos == 1


class Link:
    """A connection to Redis that answers when the test says so."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []

    def command(self, *parts: str) -> None:
        self.asked.append(parts)

    def abort(self) -> None:
        """Nothing is open."""


def confirmation(kind: str) -> list[Any]:
    return [b"subscribe", f"{kind}:{ORG}".encode(), 1]


async def test_N03_the_head_is_read_after_the_subscription_is_confirmed(
    fanout: Fanout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read before, an event that is committed in between is in neither of the two."""
    link: Any = Link()
    fanout._link = link
    looked: list[bool] = []

    class State(dict[UUID, int]):
        epoch = "now"

    async def state(_: Any, organizations: list[UUID]) -> State:
        looked.append(fanout.streams[ORG].confirmed.is_set())
        return State({ORG: 7})

    monkeypatch.setattr(module.event_log, "state", state)
    monkeypatch.setattr(module, "CONFIRM_S", 60.0)
    monkeypatch.setattr(module.Presence, "opened", lambda _: None)
    joining = asyncio.create_task(fanout.join(ORG))
    await until(lambda: link.asked, what="the subscription")
    for _ in range(20):  # whatever does not wait has happened by then
        await asyncio.sleep(0)
    assert looked == []
    fanout._on_reply(confirmation("o"))
    stream = await joining
    assert (looked, stream.pos) == ([True], 7)


async def test_N03_a_new_subscription_looks_at_the_heads(
    fanout: Fanout, stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Something may have passed by while there was none."""
    monkeypatch.setattr(module.Presence, "opened", lambda _: None)
    fanout._on_reply(confirmation("o"))
    assert not fanout._check.is_set(), "the first one: the head is about to be read anyway"
    stream.start_at(3)
    fanout._on_reply(confirmation("o"))
    assert fanout._check.is_set()
