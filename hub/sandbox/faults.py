"""Misbehaviour on demand: which fault strikes this call, and how often still (docs/sandbox.md section 6)."""

from __future__ import annotations

from random import Random
from typing import Any

import msgspec

BEFORE_ACCEPT = (
    "throttle",
    "error",
    "expired_token",
    "http",
    "ok_without_id",
    "ok_with_error",
    "hang",
    "reset",
)
AFTER_ACCEPT = (
    "accept_then_hang",
    "accept_then_reset",
    "accept_then_half_body",
    "accept_then_500",
    "slow",
    "status_before_response",
)
NOISE = (
    "wrong_signature",
    "truncated_json",
    "unknown_event",
    "unknown_type",
    "unknown_status",
    "huge_body",
)
MAX_FAULTS = 1_000
"""Each call looks at all of them; the spent ones go first."""
NAMES = frozenset(
    BEFORE_ACCEPT
    + AFTER_ACCEPT
    + NOISE
    + ("fail_later", "media_expired", "media_corrupt", "upload_error")
    + ("duplicate", "delay", "reorder_statuses", "drop_status", "batch")
    + ("never_retry", "timestamp_ms", "bsuid_only", "twin")
)


class FaultOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of POST /_ctl/fault. None for account or persona = any."""

    fault: str
    account: str | None = None
    persona: str | None = None
    next: int | None = None
    probability: float | None = None
    params: dict[str, Any] = {}


class Fault(msgspec.Struct, kw_only=True):
    """A fault in force; `next` counts down, None = as often as `probability` says."""

    id: int
    fault: str
    account: str | None
    persona: str | None
    next: int | None
    probability: float | None
    params: dict[str, Any]
    hits: int = 0

    def number(self, name: str, default: float) -> float:
        """A numeric parameter."""
        value = self.params.get(name, default)
        return float(value) if isinstance(value, int | float) else default

    def text(self, name: str, default: str) -> str:
        """A string parameter."""
        value = self.params.get(name, default)
        return value if isinstance(value, str) else default


class Faults:
    """All faults in force, in the order they were asked for."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._serial = 0
        self.active: dict[int, Fault] = {}

    def add(self, order: FaultOrder) -> Fault:
        """Raises ValueError for a fault nobody plays."""
        if order.fault not in NAMES:
            raise ValueError(f"No fault {order.fault!r}; there are {', '.join(sorted(NAMES))}")
        if order.probability is not None and not 0 <= order.probability <= 1:
            raise ValueError("probability is between 0 and 1")
        while len(self.active) >= MAX_FAULTS:
            spent = next((f.id for f in self.active.values() if f.next == 0), next(iter(self.active)))
            del self.active[spent]
        self._serial += 1
        count = order.next if order.next is not None or order.probability is not None else 1
        fault = Fault(
            id=self._serial,
            fault=order.fault,
            account=order.account,
            persona=order.persona,
            next=count,
            probability=order.probability,
            params=order.params,
        )
        self.active[fault.id] = fault
        return fault

    def strike(self, names: str | tuple[str, ...], account: str, persona: str | None) -> Fault | None:
        """The first fault of these names that hits this account and persona now; counts the hit."""
        if not self.active:
            return None
        wanted = (names,) if isinstance(names, str) else names
        for fault in list(self.active.values()):
            if fault.fault not in wanted:
                continue
            if fault.account not in (None, account) or fault.persona not in (None, persona):
                continue
            if fault.next is not None and fault.next <= 0:
                continue
            if fault.probability is not None and self._rng.random() >= fault.probability:
                continue
            fault.hits += 1
            if fault.next is not None:
                fault.next -= 1
            return fault
        return None
