"""The hub's clock follows the database's, whatever the host's does (G5)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from structlog.testing import capture_logs

from hub import clock, metrics
from tests.factories import until


@pytest.fixture(autouse=True)
def own_clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(clock, "LOOK_EVERY_S", 0.01)
    yield
    clock.set_offset(0)
    clock.forget()


class Host:
    """A host's clock that can be set, and a steady one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.wall, self.steady = 1_000_000.0, 500.0
        monkeypatch.setattr(clock, "_host_s", lambda: self.wall)
        monkeypatch.setattr(clock, "_steady_s", lambda: self.steady)
        self.asked = 0
        self.is_away = False
        self.ahead = 0.0

    async def ask(self) -> float | None:
        """The database: `ahead` of the right time, which is the steady one plus a constant."""
        self.asked += 1
        return None if self.is_away else 999_500.0 + self.steady + self.ahead

    def pass_by(self, seconds: float) -> None:
        self.wall += seconds
        self.steady += seconds


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(monkeypatch)


@asynccontextmanager
async def following(host: Host) -> AsyncIterator[None]:
    task = asyncio.create_task(clock.follow(host.ask))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


def test_without_a_measurement_the_hosts_clock_counts() -> None:
    clock.set_offset(3600)
    assert abs(clock.now_s() - time.time() - 3600) < 5


@pytest.mark.parametrize("wrong_s", [-600.0, 600.0])
async def test_S03_a_host_clock_that_is_wrong_is_corrected_and_alarmed_once(
    host: Host, wrong_s: float
) -> None:
    host.wall += wrong_s
    with capture_logs() as lines:
        async with following(host):
            await until(lambda: host.asked, what="the first measurement")
            assert clock.now_s() == pytest.approx(1_000_000.0)
            assert metrics.CLOCK_OFFSET._value.get() == pytest.approx(-wrong_s)
            host.pass_by(31)
            await until(lambda: host.asked == 2, what="the second one")
            assert clock.now_s() == pytest.approx(1_000_031.0)
    assert [(n["event"], n["log_level"]) for n in lines] == [("clock.off", "error")]


async def test_S03_a_host_clock_that_jumps_changes_nothing_and_is_measured_at_once(host: Host) -> None:
    async with following(host):
        await until(lambda: host.asked, what="the first measurement")
        for jump in (300.0, -600.0, 300.0):
            asked = host.asked
            host.wall += jump
            assert clock.now_s() == pytest.approx(1_000_000.0)
            await until(lambda n=asked: host.asked > n, what="another measurement")  # type: ignore[misc]
        assert clock.now_s() == pytest.approx(1_000_000.0)


async def test_S03_a_host_clock_that_stands_still_does_not_stop_time(host: Host) -> None:
    async with following(host):
        await until(lambda: host.asked, what="the first measurement")
        host.steady += 10
        assert clock.now_s() == pytest.approx(1_000_010.0)


async def test_a_machine_that_slept_asks_again(host: Host) -> None:
    """Where the steady clock stands still in a sleep: the wall goes on, and so does the database's."""
    async with following(host):
        await until(lambda: host.asked, what="the first measurement")
        host.wall += 3600
        host.ahead = 3600
        await until(lambda: clock.now_s() == pytest.approx(1_003_600.0), what="the database's time")


async def test_a_database_that_is_away_leaves_the_last_correction(host: Host) -> None:
    host.wall += 100
    async with following(host):
        await until(lambda: host.asked, what="the first measurement")
        host.is_away = True
        host.pass_by(40)
        asked = host.asked
        await until(lambda: host.asked > asked + 2, what="more questions")
        assert clock.now_s() == pytest.approx(1_000_040.0)


async def test_an_answer_that_took_long_teaches_nothing(host: Host) -> None:
    async def late() -> float | None:
        host.pass_by(1.5)
        return 5.0

    assert await clock.measure(late) is None
    assert clock.now_s() == pytest.approx(host.wall)


async def test_a_small_difference_raises_no_alarm(host: Host) -> None:
    host.wall += 1.9
    with capture_logs() as lines:
        async with following(host):
            await until(lambda: host.asked, what="the measurement")
            assert clock.now_s() == pytest.approx(1_000_000.0)
    assert lines == []
