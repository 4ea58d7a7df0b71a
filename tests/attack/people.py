"""Members, sessions and keys without the slow sign-in."""

from __future__ import annotations

import asyncio
import random
import statistics
from collections.abc import Awaitable, Callable, Iterable
from uuid import UUID

import asyncpg
import orjson

from hub.auth.apikeys import hash_key, new_key, prefix_of
from hub.domain.permissions import PERMISSIONS
from hub.resources import AUTH
from tests.factories import Member, Org
from tests.server import Hub


async def token_of(hub: Hub, conn: asyncpg.Connection, member: Member, *, is_web: bool = False) -> str:
    """An access token of a new session of this member."""
    session = await conn.fetchval(
        "insert into auth.sessions (user_id, organization_id, is_web) values ($1, $2, $3) returning id",
        member.id, member.organization_id, is_web,
    )  # fmt: skip
    ring = await hub.app[AUTH].keyring()
    user = {"id": str(member.id), "email": member.email, "app_metadata": {}, "user_metadata": {}}
    token, _ = ring.access_token(
        user, session, organization_id=member.organization_id, org_role=member.role, is_web=is_web
    )
    return token


async def make_key(
    hub: Hub, conn: asyncpg.Connection, org: Org, permissions: Iterable[str] = PERMISSIONS
) -> tuple[str, UUID]:
    """The text of a new key of the organization, and its id."""
    key = new_key()
    ring = await hub.app[AUTH].keyring()
    granted = orjson.dumps({p: p in set(permissions) for p in PERMISSIONS}).decode()
    row: UUID = await conn.fetchval(
        "insert into api_keys (organization_id, name, key_prefix, permissions) values ($1, 'k', $2, $3)"
        " returning id",
        org.id, prefix_of(key), granted,
    )  # fmt: skip
    await conn.execute(
        "insert into app.api_key_hashes (organization_id, api_key_id, key_prefix, key_hash)"
        " values ($1, $2, $3, $4)",
        org.id, row, prefix_of(key), hash_key(ring.pepper, key),
    )  # fmt: skip
    return key, row


async def told_apart(
    one: Callable[[], Awaitable[float]], other: Callable[[], Awaitable[float]], pairs: int, effect: float
) -> str | None:
    """Whether time tells ``one`` from ``other``: what was seen, or None.

    Samples are taken in turn, each pair in random order, so that a machine that slows down slows both. They
    differ when the medians are more than ``effect`` (a fraction of the smaller) apart *and* a permutation
    test of the medians' distance gives p < 0.01. Noise alone does not do both; when it looks so, a second
    round has to say the same.
    """
    seen = None
    for seed in (1, 2):
        rng = random.Random(seed)
        a, b = [], []
        for _ in range(pairs):
            turns = [(one, a), (other, b)]
            rng.shuffle(turns)
            for sample, kept in turns:
                kept.append(await sample())
        apart = abs(statistics.median(a) - statistics.median(b))
        smaller = min(statistics.median(a), statistics.median(b))
        p = await asyncio.to_thread(_p_value, a, b, apart, rng)
        if apart <= effect * smaller or p >= 0.01:
            return None
        seen = f"medians {statistics.median(a):.6f} and {statistics.median(b):.6f} s, p = {p:.4f}"
    return seen


def _p_value(a: list[float], b: list[float], apart: float, rng: random.Random, rounds: int = 1000) -> float:
    """How often a random split of all samples has medians at least so far apart."""
    together, n, hits = [*a, *b], len(a), 0
    for _ in range(rounds):
        rng.shuffle(together)
        hits += abs(statistics.median(together[:n]) - statistics.median(together[n:])) >= apart
    return hits / rounds
