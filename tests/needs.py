"""What a test needs and this machine may lack. Under CI=true nothing is skipped: it fails, and says why."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def absent(what: str) -> NoReturn:
    """Skip, loudly; fail where CI=true. ``what`` says what is missing and how to get it."""
    if os.environ.get("CI", "").lower() in ("1", "true"):
        pytest.fail(f"Not run: {what}", pytrace=False)
    pytest.skip(f"\033[1mNOT RUN: {what}\033[0m")


def unreachable(what: str) -> NoReturn:
    """Skip, loudly, under CI too: for services of others that many networks do not let through."""
    pytest.skip(f"\033[1mNOT RUN: {what}\033[0m")
