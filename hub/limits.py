"""Rate limits: fixed windows that start with their first request, counted over all hubs in one Redis call.

Requests that come while a call is under way share the next one: each still learns its own place in its
window, and a busy hub pays for one call instead of many. While Redis is away each process counts for itself,
with windows of the same size (open, not closed).
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from contextvars import Context
from typing import Any, Final

import structlog
from redis.exceptions import NoScriptError, RedisError

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
_SHA: Final = hashlib.sha1(_SCRIPT.encode(), usedforsecurity=False).hexdigest()
Hit = tuple[int, "asyncio.Future[tuple[int, float] | None]"]
"""How many times, and who waits for the place (requests in the window up to this one, seconds left of it).
None: Redis could not say."""


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
        self._redis = redis
        self._waiting: dict[str, list[Hit]] = {}
        self._asking: asyncio.Task[None] | None = None
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
            place: asyncio.Future[tuple[int, float] | None] = asyncio.get_running_loop().create_future()
            self._waiting.setdefault(key, []).append((times, place))
            if self._asking is None:
                self._asking = asyncio.create_task(self._ask(), name="rate limits", context=Context())
            counted = await place
            if counted is not None:
                return counted
        return self._count_here(key, now, times)

    async def _ask(self) -> None:
        """Until nobody waits. A task of its own, outside any request: no caller's end may take the others'
        along, and no log line of it is about one of them."""
        try:
            while self._waiting:
                hits, self._waiting = self._waiting, {}
                try:
                    await self._settle(hits)
                finally:
                    for _, place in (hit for some in hits.values() for hit in some):
                        if not place.done():
                            place.set_result(None)
        finally:
            self._asking = None

    async def _settle(self, hits: dict[str, list[Hit]]) -> None:
        """One call for all; each hit of a window is told its own place in it."""
        now = time.monotonic()
        if now < self._resume_at:
            return
        try:
            replies = await self._call([(key, sum(times for times, _ in some)) for key, some in hits.items()])
        except (RedisError, OSError, TimeoutError) as error:
            if self._resume_at == 0.0:
                log.warning("rate_limits.local", error=type(error).__name__)
            self._resume_at = time.monotonic() + REST_S
            REDIS_AWAY.set(1)
            return
        if self._resume_at:
            log.info("rate_limits.shared")
            self._resume_at = 0.0
            self._local.clear()
            REDIS_AWAY.set(0)
        for some, (used, left_ms) in zip(hits.values(), replies, strict=True):
            used -= sum(times for times, _ in some)
            for times, place in some:
                used += times
                if not place.done():
                    place.set_result((used, left_ms / 1000))

    async def _call(self, keys: list[tuple[str, int]]) -> list[tuple[int, int]]:
        """The script for each key; Redis learns it when it does not know it. Raises RedisError."""
        replies: list[Any] = await self._send(keys)
        unknown = [n for n, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if unknown:
            await self._redis.script_load(_SCRIPT)
            for n, reply in zip(unknown, await self._send([keys[n] for n in unknown]), strict=True):
                replies[n] = reply
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply
        return [(int(used), int(left_ms)) for used, left_ms in replies]

    async def _send(self, keys: list[tuple[str, int]]) -> list[Any]:
        """Commands of one key each, which may stand on any node."""
        window = str(int(WINDOW_S * 1000))
        if len(keys) == 1:
            ((key, times),) = keys
            try:
                return [await self._redis.evalsha(_SHA, 1, key, window, str(times))]
            except NoScriptError as error:
                return [error]
        async with self._redis.pipeline(transaction=False) as pipe:
            for key, times in keys:
                pipe.evalsha(_SHA, 1, key, window, str(times))
            replies: list[Any] = await pipe.execute(raise_on_error=False)
        return replies

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
