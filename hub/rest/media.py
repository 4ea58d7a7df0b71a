"""Which media type an answer takes, from the header Accept."""

from __future__ import annotations

from functools import lru_cache
from typing import Final, Literal

import msgspec

from hub.errors import NotAcceptable

Kind = Literal["array", "object", "csv", "text", "binary", "xml"]
_JSON: Final = "application/json; charset=utf-8"
_OBJECT: Final = "application/vnd.pgrst.object"
_ARRAY: Final = "application/vnd.pgrst.array"
_CSV: Final = "text/csv; charset=utf-8"


class Media(msgspec.Struct, frozen=True):
    """``strips_nulls``: members that are null are left out."""

    kind: Kind
    content_type: str
    strips_nulls: bool = False

    @property
    def is_object(self) -> bool:
        return self.kind == "object"


JSON: Final = Media("array", _JSON)
_VALUES: Final[dict[str, Media]] = {
    "text/plain": Media("text", "text/plain; charset=utf-8"),
    "application/octet-stream": Media("binary", "application/octet-stream"),
    "text/xml": Media("xml", "text/xml; charset=utf-8"),
}


@lru_cache(maxsize=256)
def negotiate(accept: str, *, one_value: bool = False) -> Media:
    """The first of the caller's types, by weight, that can be made. ``one_value``: of a function that returns
    one. Raises NotAcceptable.

    >>> negotiate("text/html,application/xhtml+xml;q=0.9,*/*;q=0.8").kind
    'array'
    """
    entries = [_entry(part) for part in accept[:2000].split(",")] if accept.strip() else []
    for _, name, parameters in sorted(entries, key=lambda e: -e[0]):
        found = _producible(name, parameters, one_value)
        if found is not None:
            return found
    if not entries:
        return JSON
    names = ", ".join(name for _, name, _ in entries)
    raise NotAcceptable(
        f"None of these media types are available: {names[:200]}", details=None, rest_code="PGRST107"
    )


def _entry(part: str) -> tuple[float, str, dict[str, str]]:
    name, *rest = part.split(";")
    parameters = {}
    for pair in rest:
        key, _, value = pair.partition("=")
        parameters[key.strip().lower()] = value.strip().strip('"').lower()
    try:
        weight = min(1.0, max(0.0, float(parameters.get("q", "1"))))
    except ValueError:
        weight = 1.0
    return weight, name.strip().lower(), parameters


def _producible(name: str, parameters: dict[str, str], one_value: bool) -> Media | None:
    strips = parameters.get("nulls") == "stripped"
    bare = name.removesuffix("+json")
    if name in ("*/*", "application/json", "application/*", ""):
        return JSON
    if bare == _OBJECT:
        note = ";nulls=stripped" if strips else ""
        return Media("object", f"{_OBJECT}+json{note}; charset=utf-8", strips)
    if bare == _ARRAY:
        return Media("array", f"{_ARRAY}+json;nulls=stripped; charset=utf-8", True) if strips else JSON
    if name == "text/csv":
        return Media("csv", _CSV)
    return _VALUES.get(name) if one_value else None
