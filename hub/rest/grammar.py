"""The query string and the Prefer header of /rest/v1 as a tree; no database.

    select=id,name,custom_fields->>city · status=eq.OPEN · or=(a.eq.1,b.is.null) · order=a.desc.nullslast

A part of PostgREST's grammar: plain columns with JSON paths, renaming and casts; no embedding yet. Every
parse failure is a PGRST100 whose message names the parameter.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, Literal
from urllib.parse import unquote_plus

import msgspec

from hub.errors import BadRequest, RangeNotSatisfiable

DEFAULT_LIMIT: Final = 1000
LARGEST_LIMIT: Final = 10_000
_MOST_IN: Final = 10_000
_DEEPEST: Final = 16
#: Entries of select, order, columns, and conditions of one request: what a statement may hold of each, long
#: before Postgres' own limits (1,664 columns, its stack) or its planner would make one request expensive.
MOST_PARTS: Final = 500
#: Arrows of one JSON path.
_LONGEST_PATH: Final = 32

Operator = Literal[
    "eq", "neq", "gt", "gte", "lt", "lte", "like", "ilike", "match", "imatch", "in", "is", "isdistinct",
    "cs", "cd", "ov"
]  # fmt: skip
OPERATORS: Final[frozenset[str]] = frozenset(Operator.__args__)  # type: ignore[attr-defined]
_IS: Final = frozenset({"null", "not_null", "true", "false", "unknown"})
# Bounded everywhere, so that a request line of 512 KiB cannot make it slow.
_NAME = re.compile(
    r'\s{0,8}(?:"((?:[^"\\]|\\.){1,128})"|([\w$ ]{1,128}?(?:-(?!>)[\w$ ]{1,128}?){0,16}))'
    r"\s{0,8}(?=$|[.:,()!]|->)"
)
_STEP = re.compile(r"(->>?)(-?\d+(?=$|[-.:,)])|[^-:.,>()]+(?:-(?!>)[^-:.,>()]+)*)")
_CAST = re.compile(r"[\w$ ]+", re.ASCII)


class Path(msgspec.Struct, frozen=True):
    """A column, or a place inside a jsonb column: steps of (arrow, key)."""

    column: str
    steps: tuple[tuple[str, str], ...] = ()

    @property
    def is_text(self) -> bool:
        return bool(self.steps) and self.steps[-1][0] == "->>"


class Item(msgspec.Struct, frozen=True):
    """One entry of select; ``path`` None is `*`."""

    path: Path | None
    alias: str | None = None
    cast: str | None = None


class Filter(msgspec.Struct, frozen=True):
    path: Path
    op: Operator
    value: str | tuple[str, ...]
    negated: bool = False
    quantifier: Literal["any", "all"] | None = None


class Group(msgspec.Struct, frozen=True):
    op: Literal["and", "or"]
    parts: tuple[Filter | Group, ...]
    negated: bool = False


Condition = Filter | Group


class Order(msgspec.Struct, frozen=True):
    path: Path
    descending: bool = False
    nulls: Literal["first", "last"] | None = None


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """One request's query string. ``limit`` None: the default."""

    select: tuple[Item, ...] = (Item(None),)
    where: tuple[Condition, ...] = ()
    order: tuple[Order, ...] = ()
    limit: int | None = None
    offset: int = 0
    columns: tuple[str, ...] | None = None
    on_conflict: tuple[str, ...] | None = None


class Prefer(msgspec.Struct, frozen=True, kw_only=True):
    """What the caller asked for and we honour."""

    returns: Literal["minimal", "headers-only", "representation"] = "minimal"
    count: Literal["exact", "planned", "estimated"] | None = None
    resolution: Literal["merge-duplicates", "ignore-duplicates"] | None = None
    applied: tuple[str, ...] = ()


def parse_query(text: str) -> Query:
    """The raw query string, percent-encoded. Raises BadRequest.

    >>> parse_query("select=id&status=eq.OPEN&order=created_at.desc&limit=5").limit
    5
    >>> parse_query("id=nope.1")
    Traceback (most recent call last):
    hub.errors.BadRequest: id: expected an operator like eq. or not.eq., got 'nope'
    """
    where: list[Condition] = []
    fields: dict[str, object] = {}
    parts = text.split("&")
    if len(parts) > 2 * MOST_PARTS:
        raise _too_many("query", 2 * MOST_PARTS)
    for part in parts:
        key, equals, value = part.partition("=")
        if not key or not equals:
            continue
        name, given = _decode(key), _decode(value)
        if name == "apikey":
            continue
        if name == "select":
            fields.setdefault("select", _select(given))
        elif name == "columns":
            fields.setdefault("columns", _names(given, name))
        elif name == "on_conflict":
            fields.setdefault("on_conflict", _names(given, name))
        elif name == "order":
            fields.setdefault("order", _order(given))
        elif name in ("limit", "offset"):
            if re.fullmatch(r"-?\d{1,18}", given):
                fields.setdefault(name, int(given))
        elif name in ("and", "or", "not.and", "not.or"):
            where.append(_Tree(given, name).group(name))
        elif name == "filter" and "." not in given.partition("=")[0]:
            raise BadRequest(
                "filter: there is no such parameter", hint="Write column=operator.value", rest_code="PGRST100"
            )
        else:
            where.append(_filter(name, given))
    if _count(where) > MOST_PARTS:
        raise _too_many("query", MOST_PARTS)
    fields["offset"] = max(0, int(fields.get("offset", 0)))  # type: ignore[call-overload]
    limit = fields.get("limit")
    if isinstance(limit, int) and limit < 0:
        raise RangeNotSatisfiable("limit must be at least 0")
    return Query(where=tuple(where), **fields)  # type: ignore[arg-type]


def parse_prefer(headers: Sequence[str]) -> Prefer:
    """All Prefer headers of a request; the first valid value of each family wins, others are ignored.

    >>> parse_prefer(["return=representation,count=exact"]).count
    'exact'
    """
    found: dict[str, str] = {}
    known = {
        "return": ("minimal", "headers-only", "representation"),
        "count": ("exact", "planned", "estimated"),
        "resolution": ("merge-duplicates", "ignore-duplicates"),
    }
    for part in ",".join(headers).split(","):
        family, _, value = part.strip().partition("=")
        if value in known.get(family, ()):
            found.setdefault(family, value)
    applied = tuple(f"{f}={found[f]}" for f in ("resolution", "return", "count") if f in found)
    return Prefer(
        returns=found.get("return", "minimal"),  # type: ignore[arg-type]
        count=found.get("count"),  # type: ignore[arg-type]
        resolution=found.get("resolution"),  # type: ignore[arg-type]
        applied=applied,
    )


def _refuse(parameter: str, expected: str, *, given: str) -> BadRequest:
    return BadRequest(f"{parameter}: expected {expected}, got {given[:80]!r}", rest_code="PGRST100")


def _too_many(parameter: str, most: int) -> BadRequest:
    return BadRequest(f"{parameter}: at most {most} entries in one request", rest_code="PGRST100")


def _count(conditions: Sequence[Condition]) -> int:
    """Comparisons, also inside groups."""
    return sum(_count(c.parts) if isinstance(c, Group) else 1 for c in conditions)


def _decode(text: str) -> str:
    try:
        decoded = unquote_plus(text, errors="strict")
    except UnicodeDecodeError:
        raise _refuse("query", "UTF-8", given=text) from None
    if "\x00" in decoded:
        raise _refuse("query", "text without U+0000", given=text)
    if not decoded.isascii() and not _is_utf8(decoded):
        raise _refuse("query", "UTF-8", given=text)
    return decoded


def _is_utf8(text: str) -> bool:
    """False for what raw bytes of an address became that were none."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _path(text: str, at: int, parameter: str) -> tuple[Path, int]:
    """A name with JSON steps from position ``at``; the position after it."""
    match = _NAME.match(text, at)
    if match is None:
        raise _refuse(parameter, "a column", given=text[at:])
    column = _unescape(match[1]) if match[1] is not None else match[2].strip()
    at = match.end()
    steps: list[tuple[str, str]] = []
    while step := _STEP.match(text, at):
        if len(steps) == _LONGEST_PATH:
            raise _too_many(parameter, _LONGEST_PATH)
        steps.append((step[1], step[2]))
        at = step.end()
    return Path(column, tuple(steps)), at


def _select(text: str) -> tuple[Item, ...]:
    if not text.strip():
        return (Item(None),)
    items: list[Item] = []
    at = 0
    while True:
        if len(items) == MOST_PARTS:
            raise _too_many("select", MOST_PARTS)
        while text[at : at + 1] == " ":
            at += 1
        if text[at : at + 1] == "*":
            items.append(Item(None))
            at += 1
        elif text[at : at + 3] == "...":
            raise _no_embedding()
        else:
            path, at = _path(text, at, "select")
            alias = None
            if text[at : at + 1] == ":" and text[at : at + 2] != "::":
                alias = path.column
                path, at = _path(text, at + 1, "select")
            if text[at : at + 1] in ("(", "!"):
                raise _no_embedding()
            cast = None
            if text[at : at + 2] == "::":
                match = _CAST.match(text, at + 2)
                if match is None:
                    raise _refuse("select", "a type after ::", given=text[at:])
                cast, at = match[0].strip(), match.end()
            if text[at : at + 1] == ".":
                raise BadRequest("Aggregate functions are not offered by this version", rest_code="PGRST123")
            items.append(Item(path, alias, cast))
        rest = text[at:].lstrip()
        if not rest:
            return tuple(items)
        if rest[0] != ",":
            if rest[0] in "(!":
                raise _no_embedding()
            raise _refuse("select", "a comma", given=rest)
        at = len(text) - len(rest) + 1


def _no_embedding() -> BadRequest:
    return BadRequest(
        "Embedding other tables is not offered by this version",
        hint="Read the other table with id=in.(…)",
        rest_code="PGRST200",
    )


def _names(text: str, parameter: str) -> tuple[str, ...]:
    names: list[str] = []
    at = 0
    while True:
        if len(names) == MOST_PARTS:
            raise _too_many(parameter, MOST_PARTS)
        path, at = _path(text, at, parameter)
        names.append(path.column)
        rest = text[at:].lstrip()
        if not rest:
            return tuple(names)
        if rest[0] != "," or path.steps:
            raise _refuse(parameter, "column names with commas between", given=rest)
        at = len(text) - len(rest) + 1


def _order(text: str) -> tuple[Order, ...]:
    terms: list[Order] = []
    at = 0
    while text.strip():
        if len(terms) == MOST_PARTS:
            raise _too_many("order", MOST_PARTS)
        path, at = _path(text, at, "order")
        descending, nulls = False, None
        while text[at : at + 1] == ".":
            word = re.compile(r"\.(\w+)").match(text, at)
            if word is None or word[1] not in ("asc", "desc", "nullsfirst", "nullslast"):
                raise _refuse("order", "asc, desc, nullsfirst or nullslast", given=text[at:])
            if word[1] in ("asc", "desc"):
                descending = word[1] == "desc"
            else:
                nulls = word[1].removeprefix("nulls")
            at = word.end()
        terms.append(Order(path, descending, nulls))  # type: ignore[arg-type]
        rest = text[at:].lstrip()
        if not rest:
            break
        if rest[0] != ",":
            raise _refuse("order", "a comma", given=rest)
        at = len(text) - len(rest) + 1
    return tuple(terms)


def _filter(name: str, value: str) -> Filter:
    path, end = _path(name, 0, name)
    if end != len(name):
        if name[end : end + 1] == ".":
            raise _no_embedding()
        raise _refuse(name, "a column", given=name[end:])
    return _operation(path, value, name)


def _operation(path: Path, text: str, parameter: str) -> Filter:
    negated = text.startswith("not.")
    if negated:
        text = text[4:]
    word, dot, value = text.partition(".")
    quantifier = None
    if "(" in word and word.endswith(")"):
        word, _, inside = word[:-1].partition("(")
        if inside not in ("any", "all") or word not in _QUANTIFIED:
            raise _refuse(parameter, "(any) or (all) after a comparison", given=text)
        quantifier = inside
    if word == "contains":
        word = "cs"
    if not dot or word not in OPERATORS:
        raise _refuse(parameter, "an operator like eq. or not.eq.", given=word)
    parsed: str | tuple[str, ...] = value
    if word == "in":
        parsed = _list(value, parameter)
    elif word == "is":
        parsed = value.lower()
        if parsed not in _IS:
            raise _refuse(parameter, "is.null, not_null, true, false or unknown", given=value)
    return Filter(path, word, parsed, negated, quantifier)  # type: ignore[arg-type]


_QUANTIFIED: Final = frozenset({"eq", "gt", "gte", "lt", "lte", "like", "ilike", "match", "imatch"})


def _list(text: str, parameter: str) -> tuple[str, ...]:
    """`(a,"b,c",d)`; an element that only begins with a quote is taken as written."""
    text = text.strip()
    if not text.startswith("(") or not text.endswith(")"):
        raise _refuse(parameter, "a list in parentheses", given=text)
    inside = text[1:-1]
    if not inside.strip():
        return ()
    elements: list[str] = []
    at = 0
    while True:
        quoted = _QUOTED.match(inside, at)
        if quoted is not None:
            elements.append(_unescape(quoted[1]))
            at = quoted.end()
        else:
            comma = inside.find(",", at)
            stop = len(inside) if comma < 0 else comma
            elements.append(inside[at:stop])
            at = stop
        if len(elements) > _MOST_IN:
            raise _refuse(parameter, f"at most {_MOST_IN} elements", given="more")
        if at >= len(inside):
            break
        at += 1
    return () if elements == [""] else tuple(elements)


_QUOTED = re.compile(r'\s*"((?:[^"\\]|\\.)*)"\s*(?=,|$)')


def _unescape(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL)


class _Tree:
    """`(a.eq.1,not.or(b.gt.2,c.is.null))`."""

    def __init__(self, text: str, parameter: str) -> None:
        self.text, self.at, self.parameter = text.strip(), 0, parameter

    def group(self, name: str) -> Group:
        group = self._inside(name, 1)
        if self.text[self.at :].strip():
            raise _refuse(self.parameter, "nothing after the group", given=self.text[self.at :])
        return group

    def _inside(self, name: str, depth: int) -> Group:
        if depth > _DEEPEST:
            raise _refuse(self.parameter, f"at most {_DEEPEST} levels", given="more")
        self._expect("(")
        parts: list[Condition] = [self._node(depth)]
        while self._peek() == ",":
            self.at += 1
            parts.append(self._node(depth))
        self._expect(")")
        return Group("or" if name.endswith("or") else "and", tuple(parts), name.startswith("not."))

    def _node(self, depth: int) -> Condition:
        self._skip()
        nested = re.compile(r"((?:not\.)?(?:and|or))(?=\s*\()").match(self.text, self.at)
        if nested is not None:
            self.at = nested.end()
            return self._inside(nested[1], depth + 1)
        path, self.at = _path(self.text, self.at, self.parameter)
        self._expect(".")
        return _operation(path, self._operation_text(), self.parameter)

    def _operation_text(self) -> str:
        """Up to the comma or parenthesis that ends this condition, with quotes of values taken away."""
        head = re.compile(r"(?:not\.)?\w+(?:\((?:any|all)\))?\.").match(self.text, self.at)
        if head is None:
            raise _refuse(self.parameter, "column.operator.value", given=self.text[self.at :])
        self.at = head.end()
        rest = self.text[self.at :]
        if head[0].removeprefix("not.") == "in.":
            end = _end_of_list(rest)
            if end is None:
                raise _refuse(self.parameter, "a list in parentheses", given=rest)
            self.at += end
            return head[0] + rest[:end]
        quoted = re.compile(r'"((?:[^"\\]|\\.)*)"(?=\s*[,)])').match(rest)
        if quoted is not None:
            self.at += quoted.end()
            return head[0] + _unescape(quoted[1])
        braces = re.compile(r"\{[^{}]*\}(?=\s*[,)])").match(rest)
        if braces is not None:
            self.at += braces.end()
            return head[0] + braces[0]
        plain = re.compile(r"[^,)]*").match(rest)
        assert plain is not None
        self.at += plain.end()
        return head[0] + plain[0]

    def _skip(self) -> None:
        while self.text[self.at : self.at + 1].isspace():
            self.at += 1

    def _peek(self) -> str:
        self._skip()
        return self.text[self.at : self.at + 1]

    def _expect(self, token: str) -> None:
        if self._peek() != token:
            raise _refuse(self.parameter, repr(token), given=self.text[self.at :])
        self.at += 1


def _end_of_list(text: str) -> int | None:
    """Where the parenthesis closes that ``text`` opens with; quotes protect."""
    if not text.startswith("("):
        return None
    at = 1
    while at < len(text):
        quoted = _QUOTED_IN_LIST.match(text, at) if text[at - 1] in "(," else None
        if quoted is not None:
            at = quoted.end()
            continue
        if text[at] == ")":
            return at + 1
        at += 1
    return None


_QUOTED_IN_LIST = re.compile(r'\s*"(?:[^"\\]|\\.)*"(?=\s*[,)])')
