"""The spool's file: what was acknowledged comes back, in order, whatever the crash did to its tail (D-15)."""

from __future__ import annotations

import asyncio
import os
import struct
import zlib
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from hub.channels.ingest import Delivery
from hub.channels.ingress import Webhook
from hub.channels.registry import ADAPTERS
from hub.channels.spool import Spool, SpoolFile, frame
from hub.errors import Unavailable
from tests.factories import until


def delivery(n: int, size: int = 10) -> Delivery:
    return Delivery(
        channel="WHATSAPP_CLOUD",
        body=b"%d " % n + b"x" * size,
        headers={"a": "b"},
        account=uuid4(),
        signed_by=[],
    )


def numbers(deliveries: list[Delivery]) -> list[int]:
    return [int(d.body.split()[0]) for d in deliveries]


def suffixes(folder: Path) -> list[str]:
    return [p.suffix for p in folder.iterdir()]


class Store:
    """Where replays go; away until told otherwise."""

    def __init__(self, away: bool = False) -> None:
        self.away = away
        self.got: list[Delivery] = []
        self.poison: set[int] = set()

    async def replay(self, deliveries: list[Delivery]) -> None:
        if self.away:
            raise Unavailable("away")
        if self.poison & set(numbers(deliveries)):
            raise RuntimeError("a bug")
        self.got += deliveries


def spool_file(folder: Path, *deliveries: Delivery) -> SpoolFile:
    file = SpoolFile.create(folder)
    for d in deliveries:
        file.append(frame(d))
    return file


def test_records_come_back_as_they_were(tmp_path: Path) -> None:
    given = [delivery(n) for n in range(5)]
    file = spool_file(tmp_path, *given)
    found, file.position = file.read(3)
    rest, file.position = file.read(10)
    assert found + rest == given
    assert file.is_drained
    file.finish()
    assert suffixes(tmp_path) == []


@pytest.mark.parametrize("cut", [1, 5, 11, 12, 13, 40])
def test_D15_a_torn_tail_costs_only_the_torn_record(tmp_path: Path, cut: int) -> None:
    file = spool_file(tmp_path, *(delivery(n) for n in range(3)))
    size = file.size
    os.close(file._descriptor)
    os.truncate(file.path, size - cut)
    again = SpoolFile.adopt(file.path)
    assert again is not None
    found, again.position = again.read(10)
    assert numbers(found) == [0, 1]
    assert again.is_drained
    again.finish()
    assert suffixes(tmp_path) == []


@pytest.mark.parametrize("record", [0, 1, 2])
def test_D15_a_flipped_bit_costs_one_record_and_keeps_the_file(tmp_path: Path, record: int) -> None:
    given = [delivery(n) for n in range(3)]
    file = spool_file(tmp_path, *given)
    at = sum(len(frame(d)) for d in given[:record]) + 30
    os.close(file._descriptor)
    raw = bytearray(file.path.read_bytes())
    raw[at] ^= 4
    file.path.write_bytes(raw)
    again = SpoolFile.adopt(file.path)
    assert again is not None
    found, again.position = again.read(10)
    assert numbers(found) == [n for n in range(3) if n != record]
    again.finish()
    assert suffixes(tmp_path) == [".damaged"]


def test_a_file_in_use_is_not_adopted(tmp_path: Path) -> None:
    file = spool_file(tmp_path, delivery(1))
    assert SpoolFile.adopt(file.path) is None
    file.finish()
    adopted = SpoolFile.adopt(file.path)
    assert adopted is not None
    adopted.finish()


async def test_what_is_spooled_is_replayed_in_order_when_the_store_is_back(tmp_path: Path) -> None:
    store = Store(away=True)
    spool = Spool(tmp_path, store.replay)
    await spool.start()
    assert spool.is_empty
    for n in range(150):
        await asyncio.gather(spool.append(delivery(2 * n)), spool.append(delivery(2 * n + 1)))
    assert not spool.is_empty
    assert store.got == []
    store.away = False
    await until(lambda: spool.is_empty)
    assert numbers(store.got) == list(range(300))
    assert spool.size == 0
    await spool.stop()
    assert suffixes(tmp_path) == []


async def test_D15_another_process_adopts_what_a_dead_one_left(tmp_path: Path) -> None:
    os.close(spool_file(tmp_path, delivery(1), delivery(2))._descriptor)
    store = Store()
    spool = Spool(tmp_path, store.replay)
    await spool.start()
    await until(lambda: spool.is_empty)
    assert numbers(store.got) == [1, 2]
    await spool.stop()
    assert suffixes(tmp_path) == []


async def test_D15_stopping_while_the_store_is_away_leaves_the_file(tmp_path: Path) -> None:
    store = Store(away=True)
    first = Spool(tmp_path, store.replay)
    await first.start()
    await first.append(delivery(1))
    await first.stop()
    store.away = False
    second = Spool(tmp_path, store.replay)
    await second.start()
    await until(lambda: store.got)
    assert numbers(store.got) == [1]
    await second.stop()


async def test_a_full_or_old_spool_refuses(tmp_path: Path) -> None:
    store = Store(away=True)
    spool = Spool(tmp_path, store.replay, max_bytes=2_000)
    await spool.start()
    await spool.append(delivery(1, 1_000))
    with pytest.raises(Unavailable):
        await spool.append(delivery(2, 1_000))
    await spool.append(delivery(3))
    await spool.stop()

    old = Spool(tmp_path / "old", store.replay, max_age_s=-1.0)
    await old.start()
    await old.append(delivery(1))
    with pytest.raises(Unavailable):
        await old.append(delivery(2))
    await old.stop()


async def test_a_spool_that_cannot_be_written_refuses_and_recovers(tmp_path: Path) -> None:
    store = Store(away=True)
    folder = tmp_path / "spool"
    folder.write_text("in the way")
    spool = Spool(folder, store.replay)
    with pytest.raises(Unavailable):
        await spool.append(delivery(1))
    folder.unlink()
    await spool.append(delivery(2))
    store.away = False
    await spool.start()
    await until(lambda: numbers(store.got) == [2])
    await spool.stop()


async def test_one_record_that_meets_a_bug_costs_the_others_nothing(tmp_path: Path) -> None:
    store = Store(away=True)
    store.poison = {2}
    spool = Spool(tmp_path, store.replay)
    await spool.start()
    for n in range(4):
        await spool.append(delivery(n))
    store.away = False
    await until(lambda: spool.is_empty)
    assert numbers(store.got) == [0, 1, 3]
    await spool.stop()
    assert suffixes(tmp_path) == [".damaged"]


def inode(path: Path) -> int:
    return path.stat().st_ino


def sizes(folder: Path) -> dict[int, int]:
    """By inode."""
    return {inode(path): path.stat().st_size for path in folder.iterdir()}


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> dict[int, int]:
    """By inode: how large a file was when it was last fsynced."""
    found: dict[int, int] = {}
    real = os.fsync

    def fsync(descriptor: int) -> None:
        real(descriptor)
        about = os.fstat(descriptor)
        found[about.st_ino] = about.st_size

    monkeypatch.setattr(os, "fsync", fsync)
    return found


async def test_D15_a_record_is_on_the_disk_before_append_returns(
    tmp_path: Path, synced: dict[int, int]
) -> None:
    """Its bytes, and the name of its file."""
    spool = Spool(tmp_path, Store(away=True).replay)
    await spool.start()
    for n in range(2):
        await spool.append(delivery(n))
        (file,) = sizes(tmp_path)
        assert sizes(tmp_path)[file] == synced.get(file) == spool.size
    assert inode(tmp_path) in synced
    await spool.stop()


def test_D15_a_record_that_the_disk_refused_is_not_in_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = spool_file(tmp_path, delivery(0))
    real = os.write

    def half(descriptor: int, data: memoryview) -> int:
        real(descriptor, data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as full, pytest.raises(OSError, match="No space"):
        full.setattr(os, "write", half)
        file.append(frame(delivery(1)))
    assert os.fstat(file._descriptor).st_size == file.size
    file.append(frame(delivery(2)))
    found, file.position = file.read(10)
    assert numbers(found) == [0, 2]
    assert not file.is_damaged
    file.finish()


async def test_D15_what_comes_while_something_is_spooled_queues_behind_it(tmp_path: Path) -> None:
    """The database may be back already: one customer's messages keep their order all the same."""
    store = Store(away=True)
    spool = Spool(tmp_path, store.replay)
    await spool.start()
    await spool.append(delivery(1))

    class WayIn:
        async def deliver(self, given: Delivery) -> None:
            store.got.append(given)

    hook = Webhook(ADAPTERS["WHATSAPP_CLOUD"])
    way_in: Any = WayIn()
    await hook._store(way_in, spool, delivery(2))
    store.away = False
    await until(lambda: spool.is_empty, what="the replay")
    await hook._store(way_in, spool, delivery(3))
    assert numbers(store.got) == [1, 2, 3]
    await spool.stop()


def test_a_whole_record_that_is_no_text_is_damage_and_stops_nothing(tmp_path: Path) -> None:
    """Found by fuzzing: its checksum is right, but a name in it is no UTF-8. The next record is read."""
    payload = frame(delivery(1))[12:].replace(b"WHATSAPP_CLOUD", b"\xff" * 14)
    file = spool_file(tmp_path)
    file.append(struct.pack("<4sII", b"HSP1", len(payload), zlib.crc32(payload)) + payload)
    file.append(frame(delivery(2)))
    read, position = file.read(10)
    assert numbers(read) == [2] and position == file.size
    assert file.is_damaged
    os.close(file._descriptor)
