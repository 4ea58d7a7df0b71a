"""What is remembered of sessions and keys, and for how long."""

from __future__ import annotations

import asyncio

import pytest

from hub.auth import authenticator
from hub.auth.authenticator import _Remembered
from hub.errors import Unavailable


class Asked:
    """A question whose answers are counted; ``away`` makes it fail as a lost database does."""

    def __init__(self) -> None:
        self.count = 0
        self.away = False

    async def __call__(self) -> int:
        await asyncio.sleep(0)
        if self.away:
            raise Unavailable("away")
        self.count += 1
        return self.count


async def test_an_answer_is_fresh_for_a_while() -> None:
    remembered: _Remembered[int] = _Remembered()
    ask = Asked()
    assert [await remembered.get("s", ask) for _ in range(3)] == [1, 1, 1]
    remembered.forget("s")
    assert await remembered.get("s", ask) == 2


async def test_X24_an_answer_that_is_no_longer_fresh_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    remembered: _Remembered[int] = _Remembered()
    ask = Asked()
    monkeypatch.setattr(authenticator, "FRESH_S", 0.0)
    assert [await remembered.get("s", ask) for _ in range(3)] == [1, 2, 3]


async def test_callers_that_ask_at_once_share_one_question() -> None:
    remembered: _Remembered[int] = _Remembered()
    ask = Asked()
    assert await asyncio.gather(*(remembered.get("s", ask) for _ in range(20))) == [1] * 20


async def test_an_old_answer_serves_while_the_database_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    remembered: _Remembered[int] = _Remembered()
    ask = Asked()
    await remembered.get("s", ask)
    monkeypatch.setattr(authenticator, "FRESH_S", 0.0)
    ask.away = True
    assert await remembered.get("s", ask) == 1
    with pytest.raises(Unavailable):
        await remembered.get("unknown", ask)
    monkeypatch.setattr(authenticator, "UNKNOWN_S", 0.0)
    with pytest.raises(Unavailable):
        await remembered.get("s", ask)


async def test_what_was_forgotten_meanwhile_is_not_remembered() -> None:
    remembered: _Remembered[int] = _Remembered()
    ask = Asked()
    asking = asyncio.create_task(remembered.get("s", ask))
    await asyncio.sleep(0)
    remembered.forget("s")  # revoked while the old state was being read
    await asking
    assert await remembered.get("s", ask) == 2
