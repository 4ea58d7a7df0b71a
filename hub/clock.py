"""The one clock for what the hub decides by wall time; tests shift it with HUB_CLOCK_OFFSET_S."""

from __future__ import annotations

import time
from datetime import UTC, datetime

_offset_s = 0.0


def set_offset(seconds: float) -> None:
    """Shift every later reading; called once at start from the settings."""
    global _offset_s
    _offset_s = seconds


def now_s() -> float:
    """Unix seconds."""
    return time.time() + _offset_s


def now() -> datetime:
    return datetime.fromtimestamp(now_s(), UTC)
