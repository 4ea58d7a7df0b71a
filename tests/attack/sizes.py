"""How much of an attack: `make test` takes the small sizes, `make faults` the full ones."""

from __future__ import annotations

import os
from typing import TypeVar

T = TypeVar("T")
PROFILE = os.environ.get("HUB_FAULT_PROFILE", "ci")


def scaled(ci: T, full: T) -> T:
    """The value of this profile."""
    return ci if PROFILE == "ci" else full
