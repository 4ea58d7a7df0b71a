"""Rate limits pushed from several sides at once (S-07): twice as much as the document allows over two hubs, a
Redis that dies in the middle and forgets, a clock that jumps, callers that hang up."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from hub import clock
from hub.db.embedded import EmbeddedValkey
from hub.events.clients import make_redis
from hub.limits import RateLimiter
from hub.resources import RATE
from tests.attack.people import make_key, token_of
from tests.factories import Member, Org, Servers, until
from tests.server import Answer, Hub, running_hub

TOKEN = "/auth/v1/token?grant_type=password"


@pytest.fixture
def own_valkey(tmp_path: Path) -> Iterator[EmbeddedValkey]:
    """One that may be killed."""
    server = EmbeddedValkey(tmp_path / "valkey")
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def two(servers: Servers, own_valkey: EmbeddedValkey, tmp_path: Path) -> AsyncIterator[tuple[Hub, Hub]]:
    """Two hubs with the document's limits."""
    async with (
        running_hub(servers, own_valkey.url, tmp_path / "a") as one,
        running_hub(
            servers, own_valkey.url, tmp_path / "b", PUBLIC_BASE_URL=one.settings.public_base_url
        ) as other,
    ):
        yield one, other


async def at_once(hubs: tuple[Hub, ...], n: int, path: str, **options: Any) -> list[Answer]:
    """``n`` requests, fifty at a time, to the hubs in turn."""
    gate = asyncio.Semaphore(50)

    async def one(i: int) -> Answer:
        async with gate:
            return await hubs[i % len(hubs)].get(path, **options)

    return await asyncio.gather(*(one(i) for i in range(n)))


def check_headers(answers: list[Answer], limit: int) -> None:
    """Every answer says what was left: each place of the window is given to one."""
    passed = [a for a in answers if a.status == 200]
    assert {a.headers["X-RateLimit-Limit"] for a in answers} == {str(limit)}
    left = sorted(int(a.headers["X-RateLimit-Remaining"]) for a in passed)
    assert left == list(range(limit - len(passed), limit))
    now = clock.now_s()
    for answer in answers:
        assert now - 1 <= int(answer.headers["X-RateLimit-Reset"]) <= now + 62
        if answer.status != 200:
            assert answer.status == 429 and answer.headers["X-RateLimit-Remaining"] == "0"
            assert 1 <= int(answer.headers["Retry-After"]) <= 60
            assert answer.json["error_code"] == "RATE_LIMIT_EXCEEDED"


@pytest.mark.parametrize(
    ("row", "limit", "path", "with_key"),
    [
        ("RATE-01", 100, "/functions/v1/list-organizations", False),
        ("RATE-02", 1000, "/rest/v1/contacts?limit=0", False),
        ("RATE-03", 500, "/rest/v1/contacts?limit=0", True),
    ],
)
async def test_S07_twice_the_documents_limit_at_once_over_two_hubs(
    two: tuple[Hub, Hub], superuser: asyncpg.Connection, org: Org, owner: Member, row: str, limit: int,
    path: str, with_key: bool,
) -> None:  # fmt: skip
    """RATE-01, RATE-02, RATE-03, ERR-10: exactly as many as the document says pass."""
    who: dict[str, str] = {"token": await token_of(two[0], superuser, owner)}
    if with_key:
        key, _ = await make_key(two[0], superuser, org, ("can_access_crm", "can_read_messages"))
        who = {"key": key}
    answers = await at_once(two, 2 * limit, path, **who)
    assert sum(a.status == 200 for a in answers) == limit
    check_headers(answers, limit)


async def test_S07_a_redis_that_dies_in_the_middle(
    servers: Servers, own_valkey: EmbeddedValkey, tmp_path: Path, superuser: asyncpg.Connection,
    owner: Member,
) -> None:  # fmt: skip
    """Before: exactly N over both. Without it: at most N in each hub. Back and empty: exactly N again."""
    limit, path = 40, "/rest/v1/contacts?limit=0"
    few = {"HUB_RATE_REST": str(limit)}
    async with (
        running_hub(servers, own_valkey.url, tmp_path / "a", **few) as one,
        running_hub(
            servers, own_valkey.url, tmp_path / "b", PUBLIC_BASE_URL=one.settings.public_base_url, **few
        ) as other,
    ):
        token = await token_of(one, superuser, owner)
        began = await at_once((one, other), limit // 2, path, token=token)
        assert [a.status for a in began] == [200] * (limit // 2)
        asking = asyncio.gather(*(at_once((hub,), 2 * limit, path, token=token) for hub in (one, other)))
        await asyncio.sleep(0)
        own_valkey.kill()
        for answers in await asking:  # whatever was counted there before it died, and N more at most here
            passed = sum(a.status == 200 for a in answers)
            assert limit <= passed <= limit + limit // 2, passed
            assert {a.status for a in answers} == {200, 429}
        for hub in (one, other):
            assert {a.status for a in await at_once((hub,), 5, path, token=token)} == {429}
        own_valkey.spawn()
        await until(own_valkey.is_ready, what="Redis to be back")

        async def is_shared() -> bool:
            limiters = [hub.app[RATE] for hub in (one, other)]
            for limiter in limiters:
                await limiter.hit("probe", "x", 1_000_000)
            return all(limiter._resume_at == 0.0 for limiter in limiters)

        await until(is_shared, timeout_s=20, what="both hubs to count in Redis")
        rest = await at_once((one, other), 2 * limit + 6, path, token=token)
        assert sum(a.status == 200 for a in rest) == limit


@pytest.mark.parametrize("jump_s", [7200.0, -7200.0])
async def test_S07_a_clock_that_jumps_opens_no_window_and_keeps_none_shut(
    servers: Servers, own_valkey: EmbeddedValkey, tmp_path: Path, superuser: asyncpg.Connection,
    org: Org, jump_s: float,
) -> None:  # fmt: skip
    async with running_hub(servers, own_valkey.url, tmp_path / "a", HUB_RATE_EXTERNAL="5") as hub:
        key, _ = await make_key(hub, superuser, org, ("can_access_crm",))
        path = "/rest/v1/contacts?limit=0"
        assert [(await hub.get(path, key=key)).status for _ in range(6)] == [200] * 5 + [429]
        try:
            clock.set_offset(jump_s)
            answers = [await hub.get(path, key=key) for _ in range(3)]
        finally:
            clock.set_offset(0)
        assert [a.status for a in answers] == [429] * 3
        for answer in answers:
            assert 1 <= int(answer.headers["Retry-After"]) <= 60, "of the window, not of the clock"


async def test_S07_sign_in_is_limited_without_redis(servers: Servers, tmp_path: Path, owner: Member) -> None:
    async with running_hub(servers, "redis://127.0.0.1:1/0", tmp_path) as hub:
        wrong = {"email": owner.email, "password": "wrong horse"}
        statuses = [(await hub.post(TOKEN, json=wrong)).status for _ in range(14)]
        assert set(statuses[:10]) == {400}
        assert 429 in statuses[10:]


async def test_S07_hits_that_share_a_call_have_each_their_own_place(own_valkey: EmbeddedValkey) -> None:
    """Also when Redis has forgotten the script, and when callers hang up while their call is under way."""
    redis = make_redis(own_valkey.url, connect_s=1.0, command_s=1.0)
    limiter = RateLimiter(redis)
    seed = random.randrange(1 << 32)
    rng = random.Random(seed)
    asked: dict[str, int] = {}
    try:
        for _ in range(10):
            await redis.script_flush()
            tasks = []
            for _ in range(60):
                who, times = rng.choice("abc"), rng.choice((1, 1, 3))
                asked[who] = asked.get(who, 0) + times
                tasks.append(asyncio.create_task(limiter.hit("x", who, 10_000, times=times)))
            await asyncio.sleep(0)
            gone = rng.sample(tasks, 20)
            for task in gone:
                task.cancel()
            await asyncio.wait(tasks)
            places = [t.result()[0] for t in tasks if not t.cancelled()]
            assert len(places) >= 40
            assert limiter._local == {}, "Redis said it to all that stayed"
        for who, total in asked.items():
            allowance, refused = await limiter.hit("x", who, total)
            assert refused is not None and allowance.remaining == 0, (seed, who, "all were counted once")
            more, refused = await limiter.hit("x", who, total + 2)
            assert refused is None and more.remaining == 0, (seed, who, "and no more than once")
    finally:
        await redis.aclose()


async def test_S07_places_of_one_window_are_given_once(own_valkey: EmbeddedValkey) -> None:
    redis = make_redis(own_valkey.url, connect_s=1.0, command_s=1.0)
    limiters = [RateLimiter(redis), RateLimiter(redis)]
    try:
        given = await asyncio.gather(*(limiters[n % 2].hit("x", "org", 200) for n in range(300)))
        passed = [allowance.remaining for allowance, refused in given if refused is None]
        assert sorted(passed) == list(range(200))
        assert sum(refused is not None for _, refused in given) == 100
    finally:
        await redis.aclose()
