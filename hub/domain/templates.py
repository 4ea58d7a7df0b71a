"""Message templates: which variables one has, and what comes of filling them. Pure.

A template's components are the provider's form, as `templates.components` holds them:

    [{"type": "HEADER", "format": "TEXT", "text": "Order {{1}}"}, {"type": "BODY", "text": "Hello {{1}}"},
     {"type": "FOOTER", "text": …}, {"type": "BUTTONS", "buttons": [{"type": "URL", "url": "https://…/{{1}}"}]}]

Variables are numbered or named, and each part counts for itself. Callers give the body's by that name alone
("1", "name"), the others with their part before it: "header.1", "button.0.1".
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

VARIABLE: Final = re.compile(r"\{\{\s*([A-Za-z0-9_]{1,64})\s*\}\}")
VALUE_CHARS: Final = 1024
#: Providers refuse parameters with these (Meta: no line breaks, no tabs, at most four spaces in a row).
_UNFIT: Final = re.compile(r"[\n\r\t\x00]| {5,}")
#: Kinds that the provider has approved; the others are the hub's own texts.
PROVIDER_CATEGORIES: Final = frozenset(("UTILITY", "MARKETING", "AUTHENTICATION"))


class Unfillable(ValueError):
    """The template cannot be filled like this; ``field`` is what its caller gave wrongly or not at all."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field} {reason}")
        self.field = field
        self.reason = reason


class Filled(msgspec.Struct, frozen=True):
    """``text`` is the body as the customer reads it; ``components`` are a send's parameters."""

    text: str
    components: list[dict[str, Any]]


def fill(components: Sequence[Any], variables: Mapping[str, str]) -> Filled:
    """Raises Unfillable naming the first variable that is missing, unfit or not the template's, or the part
    that needs more than text."""
    text = ""
    made: list[dict[str, Any]] = []
    used: set[str] = set()
    for component in components:
        if not isinstance(component, dict):
            continue
        kind = str(component.get("type", "")).upper()
        if kind == "HEADER" and str(component.get("format") or "TEXT").upper() != "TEXT":
            raise Unfillable("template_id", "has a picture or file as its header, which cannot be filled yet")
        if kind == "HEADER":
            parameters = _parameters(_text(component), "header.", variables, used)
            if parameters:
                made.append({"type": "header", "parameters": parameters})
        elif kind == "BODY":
            body = _text(component)
            parameters = _parameters(body, "", variables, used)
            text = VARIABLE.sub(lambda found: variables[found[1]].strip(), body)
            if parameters:
                made.append({"type": "body", "parameters": parameters})
        elif kind == "BUTTONS":
            made += _buttons(component, variables, used)
    unknown = sorted(set(variables) - used)
    if unknown:
        raise Unfillable(f"variables.{unknown[0]}", "is no variable of this template")
    if not text.strip():
        raise Unfillable("template_id", "has no text")
    return Filled(text, made)


def _text(component: Mapping[str, Any]) -> str:
    value = component.get("text")
    return value if isinstance(value, str) else ""


def _parameters(text: str, prefix: str, variables: Mapping[str, str], used: set[str]) -> list[dict[str, Any]]:
    """In the order in which the provider counts them: by number, named ones as they stand."""
    names = list(dict.fromkeys(VARIABLE.findall(text)))
    numbered = all(name.isdigit() for name in names)
    if numbered:
        names.sort(key=int)
    parameters = []
    for name in names:
        key = prefix + name
        value = variables.get(key, "").strip()
        if not value:
            raise Unfillable(f"variables.{key}", "is needed by this template")
        if len(value) > VALUE_CHARS:
            raise Unfillable(f"variables.{key}", f"must have at most {VALUE_CHARS} characters")
        if _UNFIT.search(value):
            raise Unfillable(f"variables.{key}", "must not have line breaks, tabs or five spaces in a row")
        used.add(key)
        parameter: dict[str, Any] = {"type": "text", "text": value}
        if not numbered:
            parameter["parameter_name"] = name
        parameters.append(parameter)
    return parameters


def _buttons(
    component: Mapping[str, Any], variables: Mapping[str, str], used: set[str]
) -> list[dict[str, Any]]:
    """Only an address that ends with a variable has something to fill."""
    made = []
    buttons = component.get("buttons")
    for index, button in enumerate(buttons if isinstance(buttons, list) else []):
        url = button.get("url") if isinstance(button, dict) else None
        if isinstance(url, str):
            parameters = _parameters(url, f"button.{index}.", variables, used)
            if parameters:
                made.append(
                    {"type": "button", "sub_type": "url", "index": str(index), "parameters": parameters}
                )
    return made
