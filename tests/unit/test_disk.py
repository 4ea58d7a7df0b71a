"""The disk guard: three levels, each told once, with room to spare on the way back (D-14)."""

from __future__ import annotations

from pathlib import Path

import pytest

from hub.disk import BALLAST_BYTES, FULL_BYTES, LOW_BYTES, DiskGuard, Level
from hub.errors import Unavailable

MIB = 1 << 20


class Disk:
    """A guard over a folder whose free space the test says."""

    def __init__(self, folder: Path) -> None:
        self.probe = folder / "probe"
        self.told: list[Level] = []
        self.guard = DiskGuard(folder, self.probe, self.told.append)

    async def has(self, mib: int) -> Level:
        self.probe.write_text(str(mib * MIB))
        return await self.guard.look()


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path)


async def test_D14_each_change_is_told_once(disk: Disk) -> None:
    for mib in (2048, 2000, 900, 800, 50, 40, 2048, 2048):
        await disk.has(mib)
    assert disk.told == [Level.LOW, Level.FULL, Level.OK]


async def test_it_comes_back_with_room_to_spare(disk: Disk) -> None:
    assert await disk.has(LOW_BYTES // MIB - 1) is Level.LOW
    assert await disk.has(LOW_BYTES // MIB + 1) is Level.LOW
    assert await disk.has(LOW_BYTES // MIB * 12 // 10) is Level.OK
    assert await disk.has(FULL_BYTES // MIB - 1) is Level.FULL
    # what giving up the ballast brings does not count
    assert await disk.has((FULL_BYTES + BALLAST_BYTES) // MIB) is Level.FULL
    assert await disk.has((FULL_BYTES + 2 * BALLAST_BYTES) // MIB) is Level.LOW


async def test_what_can_wait_is_refused_while_it_is_low(disk: Disk) -> None:
    await disk.has(2048)
    disk.guard.require_room(100 * MIB)
    with pytest.raises(Unavailable):
        disk.guard.require_room(1500 * MIB)
    await disk.has(900)
    with pytest.raises(Unavailable):
        disk.guard.require_room()


async def test_the_ballast_lies_beside_an_embedded_database_alone(disk: Disk, tmp_path: Path) -> None:
    await disk.has(2048)
    assert not disk.guard.ballast.exists()
    (tmp_path / "postgres").mkdir()
    await disk.has(2048)
    assert disk.guard.ballast.stat().st_size == BALLAST_BYTES
    await disk.has(50)
    assert not disk.guard.ballast.exists()
    await disk.has(2048)
    assert disk.guard.ballast.exists()


async def test_a_disk_that_cannot_be_asked_keeps_its_level(disk: Disk) -> None:
    await disk.has(900)
    disk.probe.write_text("?")
    assert await disk.guard.look() is Level.LOW


async def test_the_file_system_is_asked_where_the_folder_will_be(tmp_path: Path) -> None:
    guard = DiskGuard(tmp_path / "not" / "there" / "yet")
    await guard.look()
    assert guard.free_bytes > 0
