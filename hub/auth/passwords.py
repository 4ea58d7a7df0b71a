"""Passwords: argon2id in threads, two at a time with a bounded queue, so that a flood of sign-ins cannot take
the CPU.

19 MiB, t=2, p=1 (OWASP's first choice): 29 ms on the reference machine.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Final, TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from hub.errors import RateLimited

_HASHER: Final = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
_THREADS: Final = 2
_QUEUE: Final = 50
SHORTEST, LONGEST = 8, 256
T = TypeVar("T")

#: The head of the published lists of leaked passwords, eight characters and longer; the rest is what length
#: is for.
_COMMON: Final = frozenset(
    """
    password password1 password12 password123 password1234 password! passw0rd p@ssw0rd p@ssword pa55word
    12345678 123456789 1234567890 0123456789 987654321 9876543210 11111111 00000000 88888888 99999999
    12341234 11223344 87654321 123123123 123454321 147258369 159753456 741852963 789456123 1q2w3e4r
    1q2w3e4r5t 1qaz2wsx q1w2e3r4 qwerty123 qwertyui qwertyuiop qwerty12 qwerty1234 asdfghjk asdfghjkl
    zxcvbnm1 asdf1234 abcd1234 abc12345 abcdefgh abcdefg1 aa123456 a1234567 iloveyou iloveyou1 ilovegod
    sunshine sunshine1 princess princess1 football football1 baseball superman superman1 batman123
    starwars trustno1 whatever welcome1 welcome123 letmein1 letmein123 changeme changeme1 administrator
    admin123 admin1234 adminadmin root1234 rootroot test1234 testtest guest123 computer internet
    michelle jennifer jordan23 liverpool chelsea1 arsenal1 maverick dragon123 master123 monkey123
    shadow123 charlie1 qazwsxedc zaq12wsx google123 facebook instagram samsung1 iphone123 pokemon1
    hello123 hello1234 mohammed mohamed1 muhammad ahmed123 alahly123 zamalek1 connectgain connectgain1
    """.split()  # noqa: SIM905 - a list of words reads better as words
)


def weakness(password: str) -> str | None:
    """Why this password is refused ("length" or "pwned"), or None when it will do. Nothing is asked about its
    characters."""
    if not SHORTEST <= len(password) <= LONGEST:
        return "length"
    if password.lower() in _COMMON or len(set(password)) < 3:
        return "pwned"
    return None


def hash_password(password: str) -> str:
    """Takes about 30 ms; on the event loop use ``Passwords.hash``."""
    return _HASHER.hash(password)


def verify_password(stored: str, password: str) -> bool:
    """Takes about 30 ms, whatever the answer."""
    try:
        return _HASHER.verify(stored, password)
    except (VerificationError, InvalidHashError):
        return False


@lru_cache(maxsize=1)
def _dummy() -> str:
    return _HASHER.hash("nobody has this password")


def _verify_or_pretend(stored: str | None, password: str) -> bool:
    """One piece of work for either, so that a full queue treats both alike."""
    return verify_password(stored if stored is not None else _dummy(), password) and stored is not None


class Passwords:
    """The bounded threads of one process."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="argon2")
        self._pool.submit(_dummy)  # else the first stranger would wait for it, and learn something
        self._waiting = 0

    async def verify(self, stored: str | None, password: str) -> bool:
        """``stored`` None (no such user, or one without a password) takes as long as a wrong password. Raises
        RateLimited."""
        return await self._run(_verify_or_pretend, stored, password)

    async def hash(self, password: str) -> str:
        """Raises RateLimited when too many are waiting."""
        return await self._run(hash_password, password)

    async def _run(self, work: Callable[..., T], *args: str | None) -> T:
        if self._waiting >= _QUEUE + _THREADS:
            raise RateLimited("Too many sign-ins at once", retry_after_s=2)
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work, *args)
        finally:
            self._waiting -= 1

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
