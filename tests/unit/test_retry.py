"""Waiting times, buckets and grouping of the workers: pure, by the numbers of guarantees 7."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from hub.channels.ingest import BACKLOG, MicroBatcher, Rejected
from hub.errors import Unavailable
from tests.factories import until
from workers.claim import Lease, Together
from workers.pace import Pace
from workers.retry import backoff_s, failure_s, outage_s


@pytest.mark.parametrize(
    ("wait", "attempt", "seconds"),
    [
        (backoff_s, 1, 2), (backoff_s, 2, 4), (backoff_s, 5, 32), (backoff_s, 9, 512), (backoff_s, 10, 600),
        (backoff_s, 5000, 600),
        (outage_s, 1, 2), (outage_s, 4, 16), (outage_s, 5, 30), (outage_s, 5000, 30),
        (failure_s, 1, 5), (failure_s, 3, 45), (failure_s, 7, 3600), (failure_s, 5000, 3600),
    ],
)  # fmt: skip
def test_Q03_waits_grow_to_a_cap_within_20_percent(
    wait: Callable[[int], float], attempt: int, seconds: float
) -> None:
    found = [wait(attempt) for _ in range(200)]
    assert seconds * 0.8 <= min(found) < seconds < max(found) <= seconds * 1.2


def test_a_bucket_lets_a_burst_through_and_then_one_an_interval() -> None:
    pace = Pace(interval_s=10.0, burst=3)
    assert [pace.reserve("a", at_most_s=0.0) for _ in range(3)] == [0.0, 0.0, 0.0]
    assert 9.0 < pace.reserve("a", at_most_s=0.0) <= 10.0
    assert 9.0 < pace.reserve("a", at_most_s=0.0) <= 10.0, "a refused one takes no place"
    assert 9.0 < pace.reserve("a", at_most_s=60.0) <= 10.0
    assert 19.0 < pace.reserve("a", at_most_s=60.0) <= 20.0
    assert pace.reserve("b", at_most_s=0.0) == 0.0


def test_a_lease_close_to_its_end_starts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("workers.claim.time.monotonic", lambda: clock[0])
    lease = Lease(30.0, clock[0])
    assert lease.may_start()
    clock[0] = 124.9
    assert lease.may_start()
    clock[0] = 125.0
    assert not lease.may_start()


async def test_what_arrives_while_a_statement_runs_shares_the_next_one() -> None:
    batches: list[list[int]] = []
    gate = asyncio.Event()

    async def run(key: str, items: list[int]) -> list[int]:
        batches.append(items)
        await gate.wait()
        if 13 in items:
            raise Unavailable("no")
        return [n * 10 for n in items]

    together: Together[str, int, int] = Together(run)
    tasks = [asyncio.create_task(together.put("a", n)) for n in range(3)]
    await until(lambda: batches)
    tasks += [asyncio.create_task(together.put("a", n)) for n in (3, 4)]
    await asyncio.sleep(0)
    gate.set()
    assert await asyncio.gather(*tasks) == [0, 10, 20, 30, 40]
    assert batches == [[0, 1, 2], [3, 4]]
    results = await asyncio.gather(*(together.put("a", n) for n in (12, 13)), return_exceptions=True)
    assert [type(r) for r in results] == [Unavailable, Unavailable]
    assert await together.put("a", 1) == 10


async def test_micro_batches_form_while_one_is_being_written() -> None:
    written: list[list[int]] = []
    gate = asyncio.Event()

    async def write(items: list[int]) -> None:
        written.append(items)
        await gate.wait()

    batcher: MicroBatcher[int] = MicroBatcher(write, size=4, writers=1)
    first = asyncio.create_task(batcher.put([0]))
    await until(lambda: written)
    rest = [asyncio.create_task(batcher.put([n])) for n in range(1, 7)]
    await until(lambda: len(batcher) == 6)
    gate.set()
    assert await asyncio.gather(first, *rest) == [[]] * 7
    assert written == [[0], [1, 2, 3, 4], [5, 6]]


async def test_I06_a_bad_item_stands_alone_and_its_neighbours_pass() -> None:
    stored: list[int] = []

    async def write(items: list[int]) -> None:
        if 13 in items:
            raise ValueError("bad")
        stored.extend(items)

    batcher: MicroBatcher[int] = MicroBatcher(write)
    assert await batcher.put(list(range(64))) == [Rejected(13, "ValueError bad")]
    assert stored == [n for n in range(64) if n != 13]


async def test_an_absent_store_and_a_full_queue_are_said_to_the_caller() -> None:
    gate = asyncio.Event()

    async def write(items: list[int]) -> None:
        await gate.wait()
        raise Unavailable("away")

    batcher: MicroBatcher[int] = MicroBatcher(write, writers=1)
    many = asyncio.create_task(batcher.put(list(range(BACKLOG + 64))))
    await until(lambda: len(batcher) == BACKLOG)
    with pytest.raises(Unavailable, match="Too many"):
        await batcher.put([1])
    gate.set()
    with pytest.raises(Unavailable, match="away"):
        await many
    await batcher.idle()


async def test_a_caller_that_gives_up_disturbs_nobody() -> None:
    gate = asyncio.Event()
    stored: list[int] = []

    async def write(items: list[int]) -> None:
        await gate.wait()
        stored.extend(items)

    batcher: MicroBatcher[int] = MicroBatcher(write, writers=1)
    impatient = asyncio.create_task(batcher.put([1]))
    patient = asyncio.create_task(batcher.put([2]))
    await asyncio.sleep(0)
    impatient.cancel()
    gate.set()
    assert await patient == []
    await batcher.idle()
    assert stored == [1, 2]
