"""The one clock for what the hub decides by wall time: the database's, as far as it is known (guarantees G5).

Leases, windows and `created_at` go by the database's clock, so signatures and tokens do too, whatever the
host's own clock says. Its offset is measured every 30 s; in between, time goes on by the monotonic clock, so
a host clock that jumps is harmless as well. HUB_CLOCK_OFFSET_S plays a host clock that is wrong.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Final

import structlog

from hub import metrics

log = structlog.get_logger()

MEASURE_EVERY_S: Final = 30.0
ALARM_S: Final = 2.0
"""A host clock that is off by more is worth an operator's look: logs, cookies and other programs go by it."""
LOOK_EVERY_S: Final = 1.0
JUMP_S: Final = 0.5
"""The host's clock against the monotonic one since the last measurement: one of them jumped (a set clock, a
machine that slept)."""
VAGUE_S: Final = 1.0
"""An answer that took longer says too little about when it was given."""

Ask = Callable[[], Awaitable[float | None]]

_offset_s = 0.0
_base_s: float | None = None
"""The database's Unix time less our monotonic one."""


def set_offset(seconds: float) -> None:
    """Shift the host's clock for every later reading; called once at start from the settings."""
    global _offset_s
    _offset_s = seconds


def now_s() -> float:
    """Unix seconds."""
    return _host_s() if _base_s is None else _base_s + _steady_s()


def now() -> datetime:
    return datetime.fromtimestamp(now_s(), UTC)


async def follow(ask: Ask) -> None:
    """Keep to the clock that `ask` reads (Unix seconds; None while it cannot be read), until cancelled."""
    last: float | None = None
    drift = 0.0
    is_off = False
    while True:
        steady = _steady_s()
        jumped = last is not None and abs(_host_s() - steady - drift) > JUMP_S
        if last is None or jumped or steady - last >= MEASURE_EVERY_S:
            offset = await measure(ask)
            if offset is not None:
                last, drift = _steady_s(), _host_s() - _steady_s()
                metrics.CLOCK_OFFSET.set(offset)
                if is_off != (abs(offset) > ALARM_S):
                    is_off = not is_off
                    note = log.error if is_off else log.info
                    note("clock.off" if is_off else "clock.right", offset_s=round(offset, 3))
        await asyncio.sleep(LOOK_EVERY_S)


async def measure(ask: Ask) -> float | None:
    """Ask once and go by the answer; returns by how much it is ahead of the host's clock, None when nothing
    was learnt."""
    global _base_s
    before = _steady_s()
    told = await ask()
    after = _steady_s()
    if told is None or after - before > VAGUE_S:
        return None
    _base_s = told - (before + after) / 2
    return now_s() - _host_s()


def forget() -> None:
    """Go by the host's clock again."""
    global _base_s
    _base_s = None


def _host_s() -> float:
    return time.time() + _offset_s


if hasattr(time, "CLOCK_BOOTTIME"):

    def _steady_s() -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)  # goes on while the machine sleeps

else:

    def _steady_s() -> float:
        return time.monotonic()
