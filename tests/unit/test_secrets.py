"""Secrets at rest open in their own place and nowhere else."""

from __future__ import annotations

import pytest

from hub.auth.secrets import CannotOpen, is_current, open_secret, seal_secret
from hub.settings import Settings, load_settings

PLACE = {"table": "channel_accounts", "column": "access_token", "organization_id": "o1", "row_id": "r1"}


def settings(*keys: str) -> Settings:
    return load_settings(
        {"DATABASE_URL": "postgresql://db/hub", "REDIS_URL": "redis://c", "HUB_SECRET_KEY": ",".join(keys)}
    )


OLD, NEW = "o" * 32, "n" * 32


def test_sealed_and_opened() -> None:
    sealed = seal_secret(settings(OLD), "EAAtoken-é", **PLACE)  # type: ignore[arg-type]
    assert sealed.startswith("v1:")
    assert "EAAtoken" not in sealed
    assert open_secret(settings(OLD), sealed, **PLACE).reveal() == "EAAtoken-é"  # type: ignore[arg-type]
    assert sealed != seal_secret(settings(OLD), "EAAtoken-é", **PLACE)  # type: ignore[arg-type]


@pytest.mark.parametrize("member", PLACE)
def test_a_copied_ciphertext_does_not_open_elsewhere(member: str) -> None:
    sealed = seal_secret(settings(OLD), "x", **PLACE)  # type: ignore[arg-type]
    with pytest.raises(CannotOpen):
        open_secret(settings(OLD), sealed, **{**PLACE, member: "other"})  # type: ignore[arg-type]


def test_the_first_key_writes_and_all_read() -> None:
    sealed = seal_secret(settings(OLD), "x", **PLACE)  # type: ignore[arg-type]
    both = settings(NEW, OLD)
    assert open_secret(both, sealed, **PLACE).reveal() == "x"  # type: ignore[arg-type]
    assert not is_current(both, sealed)
    assert is_current(both, seal_secret(both, "x", **PLACE))  # type: ignore[arg-type]
    with pytest.raises(CannotOpen, match="HUB_SECRET_KEY"):
        open_secret(settings(NEW), sealed, **PLACE)  # type: ignore[arg-type]


@pytest.mark.parametrize("broken", ["", "plain", "v1:a:b", "v1:00000000:AAAA:AAAA", "v2:x:y:z"])
def test_what_was_never_sealed_does_not_open(broken: str) -> None:
    with pytest.raises(CannotOpen):
        open_secret(settings(OLD), broken, **PLACE)  # type: ignore[arg-type]


def test_a_changed_ciphertext_does_not_open() -> None:
    sealed = seal_secret(settings(OLD), "x" * 40, **PLACE)  # type: ignore[arg-type]
    flipped = sealed[:-5] + ("A" if sealed[-5] != "A" else "B") + sealed[-4:]
    with pytest.raises(CannotOpen):
        open_secret(settings(OLD), flipped, **PLACE)  # type: ignore[arg-type]
