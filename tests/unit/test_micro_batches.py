"""The micro-batcher on its own: nothing waits without somebody who writes it."""

from __future__ import annotations

import asyncio

import pytest

from hub.channels.ingest import MicroBatcher
from hub.errors import Unavailable


async def test_what_is_put_while_both_writers_end_is_written() -> None:
    gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    written: list[list[str]] = []

    async def write(items: list[str]) -> None:
        if not gate.done():
            await asyncio.shield(gate)
        written.append(items)

    batcher: MicroBatcher[str] = MicroBatcher(write, size=1, writers=2)
    first = [asyncio.create_task(batcher.put([name])) for name in ("a", "b")]
    for _ in range(3):
        await asyncio.sleep(0)

    async def late() -> None:
        await asyncio.shield(gate)
        await batcher.put(["c"])

    # its place in the queue of the gate is behind the writers': it puts in the very turn in which they end
    later = asyncio.create_task(late())
    await asyncio.sleep(0)
    gate.set_result(None)
    async with asyncio.timeout(5):
        await asyncio.gather(*first, later)
    assert sorted(written) == [["a"], ["b"], ["c"]]


@pytest.mark.parametrize("turns", range(8))
async def test_a_put_in_any_turn_after_the_writers_end_is_written(turns: int) -> None:
    gate = asyncio.Event()
    written: list[str] = []

    async def write(items: list[str]) -> None:
        await gate.wait()
        written.extend(items)

    batcher: MicroBatcher[str] = MicroBatcher(write, size=1, writers=2)
    first = [asyncio.create_task(batcher.put([name])) for name in ("a", "b")]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    gate.set()
    for _ in range(turns):
        await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await batcher.put(["c"])
        await asyncio.gather(*first)
        await batcher.idle()
    assert sorted(written) == ["a", "b", "c"]


async def test_a_writer_that_is_cancelled_leaves_nobody_waiting() -> None:
    async def write(items: list[str]) -> None:
        raise asyncio.CancelledError

    batcher: MicroBatcher[str] = MicroBatcher(write, size=1, writers=1)
    async with asyncio.timeout(5):
        for name in ("a", "b"):
            with pytest.raises(Unavailable):
                await batcher.put([name])
