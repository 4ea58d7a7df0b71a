"""The webhook's hard stop: as `asyncio.timeout`, with one timer for all."""

from __future__ import annotations

import asyncio

import pytest

from hub.channels.ingress import Patience


async def test_what_takes_too_long_is_stopped_and_the_rest_is_not() -> None:
    patience = Patience(0.05)

    async def quick(n: int) -> int:
        await asyncio.sleep(0)
        return n

    async def slow() -> None:
        await asyncio.Event().wait()

    async def wait() -> str:
        try:
            await patience.run(slow())
        except TimeoutError:
            await asyncio.sleep(0)  # nothing of the cancellation is left
            task = asyncio.current_task()
            assert task is not None
            return f"stopped {task.cancelling()}"
        return "ended"

    async with asyncio.timeout(5):
        first = asyncio.create_task(wait())
        assert [await patience.run(quick(n)) for n in range(3)] == [0, 1, 2]
        later = asyncio.create_task(wait())
        assert await asyncio.gather(first, later) == ["stopped 0"] * 2
        assert await asyncio.create_task(wait()) == "stopped 0"
        assert await patience.run(quick(4)) == 4


async def test_a_cancellation_from_outside_stays_one() -> None:
    patience = Patience(60)
    task = asyncio.create_task(patience.run(asyncio.sleep(60)))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_error_of_the_work_is_passed_on() -> None:
    async def fail() -> None:
        raise KeyError("a")

    with pytest.raises(KeyError):
        await Patience(60).run(fail())


async def test_both_a_stop_and_a_cancellation_end_as_a_cancellation() -> None:
    patience = Patience(0.01)
    task: asyncio.Task[None]

    async def slow() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            task.cancel()  # somebody else, in the same moment
            raise

    task = asyncio.create_task(patience.run(slow()))
    async with asyncio.timeout(5):
        with pytest.raises(asyncio.CancelledError):
            await task
