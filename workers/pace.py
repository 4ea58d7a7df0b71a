"""How fast an account and a recipient may be written to: buckets that all workers share through Redis
(guarantees 8). While Redis is away each worker has its share of the account's rate."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Hashable
from typing import Final
from uuid import UUID

import structlog
from redis.exceptions import RedisError

from hub.channels.protocol import ChannelAdapter
from hub.events.clients import Redis

log = structlog.get_logger()

KEYS: Final = 10_000
"""Buckets that a process remembers; idle ones are forgotten first."""
REST_S: Final = 1.0
"""After a failure Redis is not asked for so long."""
SEEN_S: Final = 60.0
"""A worker that sent nothing for so long has no share of the rate while Redis is away."""

#: Both buckets of one send, by Redis' clock in seconds: a place is taken in both or in none. Keys: account,
#: recipient, workers of the account. Arguments: interval and slack of the account, longest wait; interval and
#: slack of the recipient; the worker's name and how long it counts. Returns the seconds to wait and how many
#: workers send on the account.
_SCRIPT: Final = """
local t = redis.call('TIME')
local now = t[1] + t[2] / 1000000
local function due(key) return math.max(tonumber(redis.call('GET', key) or '0'), now) end
local function take(key, at, interval)
  local next = at + interval
  redis.call('SET', key, string.format('%.6f', next), 'PX', math.ceil((next - now) * 1000) + 1000)
end
redis.call('ZADD', KEYS[3], now, ARGV[6])
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now - ARGV[7])
redis.call('PEXPIRE', KEYS[3], ARGV[7] * 1000)
local workers = redis.call('ZCARD', KEYS[3])
local pair = due(KEYS[2])
local wait = math.max(0, pair - now - ARGV[5])
if wait > 0 then return {string.format('%.6f', wait), workers} end
local account = due(KEYS[1])
wait = math.max(0, account - now - ARGV[2])
if wait <= tonumber(ARGV[3]) then
  take(KEYS[1], account, tonumber(ARGV[1]))
  take(KEYS[2], pair, tonumber(ARGV[4]))
end
return {string.format('%.6f', wait), workers}
"""


class Pace:
    """A leaky bucket a key: one every `interval_s` in the long run, `burst` at once. Keys that are idle are
    forgotten."""

    def __init__(self, interval_s: float, burst: int) -> None:
        self._interval_s, self._slack_s = interval_s, interval_s * (burst - 1)
        self._next: OrderedDict[Hashable, float] = OrderedDict()

    def reserve(self, key: Hashable, *, at_most_s: float, shares: int = 1) -> float:
        """Take a place and return the seconds until it comes; a longer wait than `at_most_s` takes none.
        `shares`: so many have a bucket of their own of what is one."""
        now = time.monotonic()
        due = max(self._next.get(key, 0.0), now)
        wait = max(0.0, due - now - self._slack_s)
        if wait <= at_most_s:
            self._next[key] = due + self._interval_s * shares
            self._next.move_to_end(key)
            while len(self._next) > KEYS:
                self._next.popitem(last=False)
        return wait


class Paces:
    """The buckets of one worker. `redis` None: it is alone."""

    def __init__(self, redis: Redis | None, worker: str) -> None:
        self._worker = worker
        self._script = redis.register_script(_SCRIPT) if redis is not None else None
        self._resume_at = 0.0
        self._accounts: dict[str, Pace] = {}
        self._pairs: dict[str, Pace] = {}
        self._shares: OrderedDict[UUID, int] = OrderedDict()
        """How many workers sent on an account when Redis was last asked."""

    async def reserve(
        self, adapter: ChannelAdapter, account: UUID, conversation: UUID, *, at_most_s: float
    ) -> float:
        """Seconds until this account and this recipient may be written to; the place is taken unless the
        recipient's turn has not come or the account's is farther away than `at_most_s`."""
        limits = adapter.limits
        interval_s, burst = 1 / limits.rate_per_s, burst_of(limits.rate_per_s)
        now = time.monotonic()
        if self._script is not None and now >= self._resume_at:
            try:
                wait, workers = await self._script(
                    keys=[f"pace:{account}", f"pace:{account}:{conversation}", f"pacers:{account}"],
                    args=[
                        interval_s,
                        interval_s * (burst - 1),
                        at_most_s,
                        limits.pair_interval_s,
                        limits.pair_interval_s * (limits.pair_burst - 1),
                        self._worker,
                        SEEN_S,
                    ],
                )
            except (RedisError, OSError, TimeoutError) as error:
                log.info("pace.local", error=type(error).__name__)
                self._resume_at = now + REST_S
            else:
                self._shares[account] = int(workers)
                self._shares.move_to_end(account)
                while len(self._shares) > KEYS:
                    self._shares.popitem(last=False)
                return float(wait)
        pairs = self._pairs.setdefault(adapter.type, Pace(limits.pair_interval_s, limits.pair_burst))
        accounts = self._accounts.setdefault(adapter.type, Pace(interval_s, burst))
        pair = pairs.reserve((account, conversation), at_most_s=0.0)
        return pair or accounts.reserve(account, at_most_s=at_most_s, shares=self._shares.get(account, 1))


def burst_of(rate_per_s: float) -> int:
    """A tenth of a second's worth at once: providers count by the second."""
    return max(1, int(rate_per_s / 10))
