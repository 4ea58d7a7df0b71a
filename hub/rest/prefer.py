"""The header Prefer: how the caller wants it done, and Preference-Applied: what was honoured."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal

import msgspec

from hub.errors import BadRequest

Count = Literal["exact", "planned", "estimated"]
#: In the order of Preference-Applied. None: any value.
_FAMILIES: Final[dict[str, tuple[str, ...] | None]] = {
    "resolution": ("merge-duplicates", "ignore-duplicates"),
    "missing": ("default", "null"),
    "return": ("minimal", "headers-only", "representation"),
    "count": ("exact", "planned", "estimated"),
    "tx": ("commit", "rollback"),
    "handling": ("lenient", "strict"),
    "timezone": None,
    "max-affected": None,
}
_RELEVANT: Final[dict[str, frozenset[str]]] = {
    "read": frozenset({"count", "handling", "timezone"}),
    "insert": frozenset({"resolution", "missing", "return", "count", "tx", "handling", "timezone"}),
    "replace": frozenset({"missing", "return", "count", "tx", "handling", "timezone"}),
    "update": frozenset({"missing", "return", "count", "tx", "handling", "timezone", "max-affected"}),
    "delete": frozenset({"return", "count", "tx", "handling", "timezone", "max-affected"}),
    "call": frozenset({"return", "count", "tx", "handling", "timezone", "max-affected"}),
}


class Prefer(msgspec.Struct, frozen=True, kw_only=True):
    """``stated``: families and values as they were written, without those of no meaning."""

    returns: Literal["minimal", "headers-only", "representation"] = "minimal"
    count: Count | None = None
    resolution: Literal["merge-duplicates", "ignore-duplicates"] | None = None
    fills_defaults: bool = False
    rolls_back: bool = False
    timezone: str | None = None
    most_affected: int | None = None
    stated: tuple[tuple[str, str], ...] = ()

    def applied(self, verb: str, *, may_roll_back: bool = False) -> str:
        """Preference-Applied; empty when nothing was asked for."""
        relevant = _RELEVANT[verb]
        return ", ".join(
            f"{family}={value}"
            for family, value in self.stated
            if family in relevant
            and (family != "tx" or may_roll_back)
            and (family != "max-affected" or self.most_affected is not None)
        )


NONE: Final = Prefer()


def parse_prefer(headers: Iterable[str]) -> Prefer:
    """All Prefer headers of a request: the first valid value of each family wins. Raises BadRequest PGRST122
    for what is unknown when the caller wants strict handling.

    >>> parse_prefer(["return=representation,count=exact", "count=planned"]).count
    'exact'
    """
    text = ",".join(headers)
    if not text:
        return NONE
    found: dict[str, str] = {}
    unknown: list[str] = []
    for part in text.split(","):
        family, _, value = part.strip().partition("=")
        value = value.strip().strip('"')
        allowed = _FAMILIES.get(family, ())
        if (allowed is None and _is_sound(family, value)) or (allowed and value in allowed):
            found.setdefault(family, value)
        elif part.strip():
            unknown.append(part.strip())
    if unknown and found.get("handling") == "strict":
        raise BadRequest(
            "Invalid preferences given with handling=strict",
            details=f"Invalid preferences: {', '.join(unknown)[:300]}",
            rest_code="PGRST122",
        )
    strict = found.get("handling") == "strict"
    return Prefer(
        returns=found.get("return", "minimal"),  # type: ignore[arg-type]
        count=found.get("count"),  # type: ignore[arg-type]
        resolution=found.get("resolution"),  # type: ignore[arg-type]
        fills_defaults=found.get("missing") == "default",
        rolls_back=found.get("tx") == "rollback",
        timezone=found.get("timezone"),
        most_affected=int(found["max-affected"]) if strict and "max-affected" in found else None,
        stated=tuple((family, found[family]) for family in _FAMILIES if family in found),
    )


def _is_sound(family: str, value: str) -> bool:
    if family == "max-affected":
        return value.isascii() and value.isdigit() and len(value) < 10
    return 0 < len(value) <= 64 and value.isascii() and value.isprintable()
