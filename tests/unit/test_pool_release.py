"""Giving a connection back is never the fault of whoever is done with it (hub/db/pool.py)."""

from __future__ import annotations

from typing import Any

import asyncpg
import pytest

from hub.db.pool import _release


class _Pool:
    def __init__(self, error: Exception) -> None:
        self.error, self.asked = error, 0

    async def release(self, conn: Any, **options: Any) -> None:
        self.asked += 1
        raise self.error


@pytest.mark.parametrize(
    "error",
    [
        TimeoutError(),
        ConnectionResetError(),
        asyncpg.ConnectionDoesNotExistError("gone"),
        asyncpg.InterfaceError("closed"),
        asyncpg.InternalClientError("PoolConnectionHolder.release() called on a free connection holder"),
    ],
)
async def test_D04_a_release_that_fails_is_no_failed_request(error: Exception) -> None:
    pool: Any = _Pool(error)
    await _release(pool, object())
    assert pool.asked == 1


async def test_a_bug_in_a_release_is_not_hidden() -> None:
    pool: Any = _Pool(KeyError("bug"))
    with pytest.raises(KeyError):
        await _release(pool, object())
