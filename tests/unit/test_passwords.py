"""Passwords: what is accepted, how it is kept, and that a flood is bounded."""

from __future__ import annotations

import asyncio

import pytest

from hub.auth import passwords
from hub.auth.passwords import Passwords, hash_password, verify_password, weakness
from hub.errors import RateLimited


@pytest.mark.parametrize(
    ("password", "reason"),
    [
        ("short", "length"), ("x" * 257, "length"), ("password1", "pwned"), ("PASSWORD1", "pwned"),
        ("aaaaaaaaaa", "pwned"),
        ("correct horse battery", None), ("٨ أحرف عربية", None), ("  spaces count  ", None),
    ],
)  # fmt: skip
def test_weakness(password: str, reason: str | None) -> None:
    assert weakness(password) == reason


def test_hashes_are_argon2id_with_owasps_parameters() -> None:
    hashed = hash_password("correct horse battery")
    assert hashed.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert verify_password(hashed, "correct horse battery")
    assert not verify_password(hashed, "correct horse")
    assert not verify_password("not a hash", "correct horse")


async def test_nobodys_password_is_always_wrong() -> None:
    passwords = Passwords()
    assert not await passwords.verify(None, "nobody has this password")
    passwords.close()


async def test_a_flood_of_sign_ins_is_refused_and_not_queued() -> None:
    passwords = Passwords()
    hashed = hash_password("correct horse battery")
    outcomes = await asyncio.gather(
        *(passwords.verify(hashed, "wrong horse battery") for _ in range(60)), return_exceptions=True
    )
    assert sum(isinstance(o, RateLimited) for o in outcomes) == 8
    assert outcomes.count(False) == 52
    passwords.close()


async def test_X08_a_user_that_is_none_is_verified_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks for an address that nobody has keeps a thread as busy as with a wrong password."""
    verified: list[str] = []
    real = passwords.verify_password

    def verify(stored: str, password: str) -> bool:
        verified.append(stored)
        return real(stored, password)

    monkeypatch.setattr(passwords, "verify_password", verify)
    pool = Passwords()
    assert await pool.verify(hash_password("a right password"), "a wrong one") is False
    assert await pool.verify(None, "a wrong one") is False
    parameters = [stored.rpartition("$")[0].rpartition("$")[0] for stored in verified]
    assert len(parameters) == 2 and parameters[0] == parameters[1]
    pool.close()
