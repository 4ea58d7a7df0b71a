"""Rate limits: fixed windows that start with their first request, counted over all hubs in one Redis call.

While Redis is away each process counts for itself, with windows of the same size (open, not closed).
"""

from __future__ import annotations

import time
from typing import Final

import structlog
from redis.exceptions import RedisError

from hub import clock
from hub.errors import RateLimited
from hub.events.clients import Redis
from hub.metrics import RATE_LIMITED, REDIS_AWAY

log = structlog.get_logger()
WINDOW_S: Final = 60.0
#: After a failed call Redis is left alone for so long, so that its time-out is not paid by every request.
REST_S: Final = 1.0
_MAX_LOCAL: Final = 20_000

# Counts requests and says how long the window still lasts. A key that lost its expiry (it cannot, but a
# restored snapshot could) gets a new one instead of limiting for ever.
_SCRIPT = """
local n = redis.call('INCRBY', KEYS[1], ARGV[2])
local left = redis.call('PTTL', KEYS[1])
if n == tonumber(ARGV[2]) or left < 0 then
  redis.call('PEXPIRE', KEYS[1], ARGV[1])
  left = tonumber(ARGV[1])
end
return {n, left}
"""


class Allowance:
    """What a caller has left in the present window; the X-RateLimit headers."""

    __slots__ = ("limit", "remaining", "reset_at")

    def __init__(self, limit: int, used: int, left_s: float) -> None:
        self.limit = limit
        self.remaining = max(0, limit - used)
        self.reset_at = clock.now_s() + left_s

    def headers(self) -> dict[str, str]:
        return {
            "X-RateLimit-Limit": str(self.limit),
            "X-RateLimit-Remaining": str(self.remaining),
            "X-RateLimit-Reset": str(int(self.reset_at) + 1),
        }


class RateLimiter:
    """``await hit("functions", org, 100)`` counts one request against one window."""

    def __init__(self, redis: Redis) -> None:
        self._script = redis.register_script(_SCRIPT)
        self._resume_at = 0.0
        self._local: dict[str, tuple[float, int]] = {}

    async def hit(
        self, name: str, who: object, limit: int, *, times: int = 1
    ) -> tuple[Allowance, RateLimited | None]:
        """The allowance after this request, or so many, and the refusal if it is one too many."""
        key = f"rate:{name}:{who}"
        used, left_s = await self._count(key, times)
        allowance = Allowance(limit, used, left_s)
        if used <= limit:
            return allowance, None
        RATE_LIMITED.labels(name).inc()
        return allowance, RateLimited(
            f"More than {limit} requests in a minute",
            details={"limit": limit, "per_s": WINDOW_S},
            retry_after_s=max(1.0, left_s),
        )

    async def _count(self, key: str, times: int) -> tuple[int, float]:
        now = time.monotonic()
        if now >= self._resume_at:
            try:
                used, left_ms = await self._script(keys=[key], args=[int(WINDOW_S * 1000), times])
            except (RedisError, OSError, TimeoutError) as error:
                if self._resume_at == 0.0:
                    log.warning("rate_limits.local", error=type(error).__name__)
                self._resume_at = now + REST_S
                REDIS_AWAY.set(1)
            else:
                if self._resume_at:
                    log.info("rate_limits.shared")
                    self._resume_at = 0.0
                    self._local.clear()
                    REDIS_AWAY.set(0)
                return int(used), int(left_ms) / 1000
        return self._count_here(key, now, times)

    def _count_here(self, key: str, now: float, times: int) -> tuple[int, float]:
        start, used = self._local.get(key, (now, 0))
        if now - start >= WINDOW_S:
            start, used = now, 0
        if len(self._local) >= _MAX_LOCAL and key not in self._local:
            self._local = {k: v for k, v in self._local.items() if now - v[0] < WINDOW_S}
            if len(self._local) >= _MAX_LOCAL:  # an attack with made-up addresses must not cost memory
                self._local.clear()
        self._local[key] = (start, used + times)
        return used + times, WINDOW_S - (now - start)
