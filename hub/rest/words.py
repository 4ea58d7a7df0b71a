"""Names, JSON paths and refusals: what every part of a query string is made of.

All patterns are possessive and all counts bounded, so that a request line of 512 KiB cannot make it slow.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote_plus

from hub.errors import BadRequest

DEEPEST_EMBED: Final = 8
#: Entries of select, order, columns, and conditions of one request: what a statement may hold of each, long
#: before Postgres' own limits (1,664 columns, its stack) or its planner would make one request expensive.
MOST_PARTS: Final = 500
#: Arrows of one JSON path.
_LONGEST_PATH: Final = 32
_LONGEST_NAME: Final = 128

# A name: quoted, or words with dashes between; a dash before > begins an arrow.
_NAME = re.compile(r'\s*+(?:"((?:[^"\\]|\\.)++)"\s*+|([\w$ ]++(?:-(?!>)[\w$ ]++)*+))')
_STEP = re.compile(
    r"(->>?+)(?:(-?\d{1,9}+)(?=$|[-.:,)=])|([^-:.,>()\"]++(?:-(?!>)[^-:.,>()\"]++)*+)"
    r'|"((?:[^"\\]|\\.)*+)")'
)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_SPACES = re.compile(r"\s*+")


def refuse(parameter: str, expected: str, *, given: str) -> BadRequest:
    return BadRequest(
        f"{parameter[:80]}: expected {expected}, got {given[:80]!r}",
        details=f"expected {expected}",
        rest_code="PGRST100",
    )


def too_many(parameter: str, most: int) -> BadRequest:
    return BadRequest(f"{parameter}: at most {most} entries in one request", rest_code="PGRST100")


def decode(text: str) -> str:
    if text.isascii() and "%" not in text and "\x00" not in text:
        return text.replace("+", " ")
    try:
        decoded = unquote_plus(text, errors="strict")
        if not decoded.isascii():
            decoded.encode()  # raw bytes of an address that were no UTF-8 cannot be
    except UnicodeError:
        raise refuse("query", "UTF-8", given=ascii(text)) from None
    if "\x00" in decoded:
        raise refuse("query", "text without U+0000", given=text)
    return decoded


def unescape(text: str) -> str:
    return _ESCAPED.sub(r"\1", text) if "\\" in text else text


def read_name(text: str, at: int, parameter: str) -> tuple[str, int]:
    """A name from position ``at``, without spaces around it; the position after it."""
    match = _NAME.match(text, at)
    if match is None:
        raise refuse(parameter, "a name", given=text[at:])
    name = unescape(match[1]) if match[1] is not None else match[2].strip()
    if not name or len(name) > _LONGEST_NAME:
        raise refuse(parameter, f"a name of 1 to {_LONGEST_NAME} characters", given=text[at:])
    return name, match.end()


def read_dotted(text: str) -> tuple[list[str], int]:
    """Names with dots between, as they stand before a filter's `=`."""
    names: list[str] = []
    at = 0
    while True:
        name, at = read_name(text, at, text)
        names.append(name)
        if text[at : at + 1] != ".":
            return names, at
        if len(names) > DEEPEST_EMBED + 2:
            raise too_many(text[:80], DEEPEST_EMBED)
        at += 1


def read_steps(text: str, at: int, parameter: str) -> tuple[tuple[tuple[str, str | int], ...], int]:
    """The arrows of a JSON path."""
    if text[at : at + 2] != "->":
        return (), at
    steps: list[tuple[str, str | int]] = []
    while step := _STEP.match(text, at):
        if len(steps) == _LONGEST_PATH:
            raise too_many(parameter, _LONGEST_PATH)
        arrow, index, plain, quoted = step.groups()
        steps.append((arrow, int(index) if index else plain or unescape(quoted or "")))
        at = step.end()
    if text[at : at + 2] == "->":
        raise refuse(parameter, "a key after the arrow", given=text[at:])
    return tuple(steps), at


def skip(text: str, at: int) -> int:
    """Past spaces."""
    if "!" <= text[at : at + 1] <= "~":
        return at
    found = _SPACES.match(text, at)
    assert found is not None
    return found.end()
