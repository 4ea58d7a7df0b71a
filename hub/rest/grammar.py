"""The query string of /rest/v1 as a tree; no database.

    select=id,name,custom_fields->>city,contacts!inner(first_name) · status=eq.OPEN
    or=(a.eq.1,b.is.null) · order=a.desc.nullslast · contacts.first_name=ilike.*mo*

PostgREST's grammar, and `contains` beside `cs`. Every failure is a PGRST100 whose message names the
parameter.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

from hub.errors import BadRequest, RangeNotSatisfiable
from hub.rest.selection import parse_select
from hub.rest.tree import Condition, Cut, EmbedPath, Filter, Group, Order, Path, Query, Shape
from hub.rest.words import (
    MOST_PARTS,
    decode,
    read_dotted,
    read_name,
    read_steps,
    refuse,
    skip,
    too_many,
    unescape,
)

MOST_IN: Final = 10_000
DEEPEST_TREE: Final = 16

OPERATORS: Final = frozenset(
    {
        "eq", "neq", "gt", "gte", "lt", "lte", "like", "ilike", "match", "imatch", "in", "is", "isdistinct",
        "cs", "cd", "ov", "sl", "sr", "nxr", "nxl", "adj", "fts", "plfts", "phfts", "wfts",
    }
)  # fmt: skip
_QUANTIFIED: Final = frozenset({"eq", "gt", "gte", "lt", "lte", "like", "ilike", "match", "imatch"})
_FULL_TEXT: Final = frozenset({"fts", "plfts", "phfts", "wfts"})
_IS: Final = frozenset({"null", "not_null", "true", "false", "unknown"})
_RESERVED: Final = frozenset({"order", "limit", "offset", "and", "or"})

_SUFFIX = re.compile(r"\.(\w++)")
_PLAIN = re.compile(r"[A-Za-z_]\w*+", re.ASCII)
_OPERATION = re.compile(r"(not\.)?+([a-z]++)(?:\(([^()]{0,64})\))?+\.", re.ASCII)
_INTEGER = re.compile(r"-?\d{1,18}", re.ASCII)
_LANGUAGE = re.compile(r"\w++", re.ASCII)
_QUOTED = re.compile(r'\s*+"((?:[^"\\]|\\.)*+)"\s*+(?=[,)])', re.DOTALL)
_BARE = re.compile(r"\s*+([^,)]*+)")
_BRACES = re.compile(r"(\{[^{}]*+\})\s*+(?=[,)])")
_VALUE = re.compile(r"[^,)]*+")
_NESTED = re.compile(r"(not\.)?+(and|or)(?=\s*+\()")


def parse_query(text: str) -> Query:
    """The raw query string, percent-encoded. Raises BadRequest and, for a negative limit,
    RangeNotSatisfiable.

    >>> parse_query("select=id&status=eq.OPEN&order=created_at.desc&limit=5").values
    ('OPEN',)
    >>> parse_query("id=nope.1")
    Traceback (most recent call last):
    hub.errors.BadRequest: id: expected an operator like eq. or not.eq., got 'nope.'
    """
    return _parse(text) if len(text) > _REMEMBERED_LENGTH else _remembered(text)


def parse_call(text: str) -> Query:
    """The same of a called function: what is no filter is an argument."""
    return _Parser(calls=True).parse(text)


#: Programs and pages ask the same question over and over.
_REMEMBERED_LENGTH: Final = 1024


def _parse(text: str) -> Query:
    return _Parser().parse(text)


_remembered = lru_cache(maxsize=2048)(_parse)
#: What is selected comes again with other values beside it.
_remembered_select = lru_cache(maxsize=1024)(parse_select)


class _Parser:
    """One query string's parts, as they come."""

    def __init__(self, calls: bool = False) -> None:
        self.calls = calls
        self.values: list[str] = []
        self.where: list[tuple[EmbedPath, Condition]] = []
        self.order: dict[EmbedPath, tuple[Order, ...]] = {}
        self.cuts: dict[tuple[EmbedPath, str], Cut] = {}
        self.arguments: list[tuple[str, str]] = []
        self.fields: dict[str, Any] = {}
        self.numbers: dict[str, int] = {}
        self.conditions = 0

    def parse(self, text: str) -> Query:
        parts = text.split("&")
        if len(parts) > 2 * MOST_PARTS:
            raise too_many("query", 2 * MOST_PARTS)
        for part in parts:
            key, equals, value = part.partition("=")
            if key and equals:
                self._part(decode(key), decode(value))
        limit = self.numbers.get("limit")
        if limit is not None and limit < 0:
            raise RangeNotSatisfiable("limit must be at least 0")
        return Query(
            shape=Shape(
                where=tuple(self.where),
                order=tuple(self.order.items()),
                cuts=tuple(self.cuts.values()),
                **self.fields,
            ),
            values=tuple(self.values),
            limit=limit,
            offset=max(0, self.numbers.get("offset", 0)),
            arguments=tuple(self.arguments),
        )

    def _part(self, name: str, given: str) -> None:
        if name == "select":
            if "select" not in self.fields:
                long = len(given) > _REMEMBERED_LENGTH
                self.fields["select"] = parse_select(given) if long else _remembered_select(given)
        elif name == "columns":
            self.fields.setdefault("columns", _names(given, name))
        elif name == "on_conflict":
            self.fields.setdefault("on_conflict", _names(given, name))
        elif name == "apikey":
            pass
        elif _PLAIN.fullmatch(name) is not None and name not in _RESERVED:
            self._filter((), Path(name), given, name)
        else:
            self._keyed(name, given)

    def _keyed(self, name: str, given: str) -> None:
        """A key with an embed path, a JSON path, quotes, or a reserved word at its end."""
        names, at = read_dotted(name)
        if at == len(name) and '"' not in name:
            last = names[-1]
            if last == "order":
                self.order.setdefault(tuple(names[:-1]), _order(given))
                return
            if last in ("limit", "offset"):
                self._cut(tuple(names[:-1]), last, given)
                return
            if last in ("and", "or"):
                negated = len(names) > 1 and names[-2] == "not"
                place = tuple(names[: -2 if negated else -1])
                tree = _Tree(given, name, self.values)
                self._condition(place, tree.whole(last, negated), tree.conditions)
                return
        steps, end = read_steps(name, at, name)
        if end != len(name):
            raise refuse(name, "a column", given=name[end:])
        self._filter(tuple(names[:-1]), Path(names[-1], steps), given, name)

    def _filter(self, place: EmbedPath, path: Path, given: str, name: str) -> None:
        if self.calls and not place and not path.steps and not _is_operation(given):
            self.arguments.append((path.column, given))
            return
        if path.column == "filter" and not place and not _is_operation(given):
            raise BadRequest(
                "filter: there is no such parameter", hint="Write column=operator.value", rest_code="PGRST100"
            )
        self._condition(place, _operation(path, given, name, self.values), 1)

    def _condition(self, place: EmbedPath, condition: Condition, size: int) -> None:
        self.conditions += size
        if self.conditions > MOST_PARTS:
            raise too_many("query", MOST_PARTS)
        self.where.append((place, condition))

    def _cut(self, place: EmbedPath, what: str, given: str) -> None:
        if _INTEGER.fullmatch(given) is None:
            return
        if not place:
            self.numbers.setdefault(what, int(given))
        elif (place, what) not in self.cuts:
            number = int(given)
            if number < 0 and what == "limit":
                raise RangeNotSatisfiable(f"{'.'.join(place)}.limit must be at least 0")
            self.cuts[place, what] = Cut(place, what, len(self.values))  # type: ignore[arg-type]
            self.values.append(str(max(0, number)))


def _names(text: str, parameter: str) -> tuple[str, ...]:
    names: list[str] = []
    at = 0
    while True:
        if len(names) == MOST_PARTS:
            raise too_many(parameter, MOST_PARTS)
        name, at = read_name(text, at, parameter)
        names.append(name)
        if at == len(text):
            return tuple(names)
        if text[at] != ",":
            raise refuse(parameter, "column names with commas between", given=text[at:])
        at += 1


def _order(text: str) -> tuple[Order, ...]:
    terms: list[Order] = []
    at = 0
    while skip(text, at) < len(text):
        if len(terms) == MOST_PARTS:
            raise too_many("order", MOST_PARTS)
        name, at = read_name(text, at, "order")
        embed = None
        if text[at : at + 1] == "(":
            embed = name
            name, at = read_name(text, at + 1, "order")
        steps, at = read_steps(text, at, "order")
        if embed is not None:
            if text[at : at + 1] != ")":
                raise refuse("order", "a closing parenthesis", given=text[at:])
            at += 1
        descending, nulls = False, None
        allowed: tuple[str, ...] = ("asc", "desc", "nullsfirst", "nullslast")
        while text[at : at + 1] == ".":
            word = _SUFFIX.match(text, at)
            if word is None or word[1] not in allowed:
                raise refuse("order", "asc, desc, nullsfirst or nullslast", given=text[at:])
            if word[1] in ("asc", "desc"):
                descending, allowed = word[1] == "desc", allowed[2:]
            else:
                nulls, allowed = word[1].removeprefix("nulls"), ()
            at = word.end()
        terms.append(Order(Path(name, steps), descending, nulls, embed))  # type: ignore[arg-type]
        at = skip(text, at)
        if at == len(text):
            break
        if text[at] != ",":
            raise refuse("order", "a comma", given=text[at:])
        at += 1
        if skip(text, at) == len(text):
            raise refuse("order", "a column after the comma", given="")
    return tuple(terms)


def _is_operation(text: str) -> bool:
    head = _OPERATION.match(text)
    return head is not None and (head[2] in OPERATORS or head[2] == "contains")


def _operation(path: Path, text: str, parameter: str, values: list[str]) -> Filter:
    """`not.eq.value`, the value as it stands."""
    head = _OPERATION.match(text)
    if head is None:
        raise refuse(parameter, "an operator like eq. or not.eq.", given=text)
    return _filter(path, head, text[head.end() :], parameter, values)


def _filter(path: Path, head: re.Match[str], value: str, parameter: str, values: list[str]) -> Filter:
    op, inside = head[2], head[3]
    if op == "contains":
        op = "cs"
    if op not in OPERATORS:
        raise refuse(parameter, "an operator like eq. or not.eq.", given=head[0])
    quantifier, language, word = None, None, None
    if inside is not None:
        if op in _FULL_TEXT and _LANGUAGE.fullmatch(inside):
            language = inside
        elif op in _QUANTIFIED and inside in ("any", "all"):
            quantifier = inside
        else:
            raise refuse(parameter, "(any) or (all) after a comparison, a language after fts", given=head[0])
    at = len(values)
    if op == "in":
        values.append(_list(value, parameter))
    elif op == "is":
        word, at = value.strip().lower(), -1
        if word not in _IS:
            raise refuse(parameter, "is.null, not_null, true, false or unknown", given=value)
    elif op in ("like", "ilike"):
        values.append(value.replace("*", "%"))
    else:
        values.append(value)
    return Filter(path, op, at, head[1] is not None, quantifier, language, word)  # type: ignore[arg-type]


def array_literal(elements: Sequence[str]) -> str:
    """Texts as Postgres writes an array of them: one parameter, whatever its length."""
    quoted = ('"' + e.replace("\\", "\\\\").replace('"', '\\"') + '"' for e in elements)
    return "{" + ",".join(quoted) + "}"


def _list(text: str, parameter: str) -> str:
    """`(a,"b,c",d)` as an array literal."""
    elements, end = _elements(text, 0, parameter)
    if text[end:].strip():
        raise refuse(parameter, "nothing after the list", given=text[end:])
    return array_literal(elements)


def _elements(text: str, at: int, parameter: str) -> tuple[list[str], int]:
    """An element that begins with a quote but does not end with one is taken as written."""
    at = skip(text, at)
    if text[at : at + 1] != "(":
        raise refuse(parameter, "a list in parentheses", given=text[at:])
    if '"' not in text:
        end = text.find(")", at)
        elements = [e.lstrip() for e in text[at + 1 : end].split(",", MOST_IN)] if end >= 0 else []
    else:
        elements, end = _quoted_elements(text, at + 1)
    if end < 0:
        raise refuse(parameter, "a closing parenthesis", given=text[at:])
    if len(elements) > MOST_IN:
        raise refuse(parameter, f"at most {MOST_IN} elements", given="more")
    return ([] if elements == [""] else elements), end + 1


def _quoted_elements(text: str, at: int) -> tuple[list[str], int]:
    """Where the list ends; -1 when it does not."""
    elements: list[str] = []
    while True:
        quoted = _QUOTED.match(text, at)
        if quoted is not None:
            elements.append(unescape(quoted[1]))
            at = quoted.end()
        else:
            bare = _BARE.match(text, at)
            assert bare is not None
            elements.append(bare[1])
            at = bare.end()
        if at == len(text):
            return elements, -1
        if text[at] == ")" or len(elements) > MOST_IN:
            return elements, at
        at += 1


class _Tree:
    """`(a.eq.1,not.or(b.gt.2,c.is.null))`."""

    def __init__(self, text: str, parameter: str, values: list[str]) -> None:
        self.text, self.at, self.parameter = text, 0, parameter
        self.values, self.conditions = values, 0

    def whole(self, op: str, negated: bool) -> Group:
        group = self._inside(op, negated, 1)
        self._skip()
        if self.at < len(self.text):
            raise refuse(self.parameter, "nothing after the group", given=self.text[self.at :])
        return group

    def _inside(self, op: str, negated: bool, depth: int) -> Group:
        if depth > DEEPEST_TREE:
            raise refuse(self.parameter, f"at most {DEEPEST_TREE} levels", given="more")
        self._expect("(")
        parts: list[Condition] = [self._node(depth)]
        while self._peek() == ",":
            self.at += 1
            parts.append(self._node(depth))
        self._expect(")")
        return Group(op, tuple(parts), negated)  # type: ignore[arg-type]

    def _node(self, depth: int) -> Condition:
        self._skip()
        nested = _NESTED.match(self.text, self.at)
        if nested is not None:
            self.at = nested.end()
            return self._inside(nested[2], nested[1] is not None, depth + 1)
        self.conditions += 1
        if self.conditions > MOST_PARTS:
            raise too_many(self.parameter, MOST_PARTS)
        name, self.at = read_name(self.text, self.at, self.parameter)
        steps, self.at = read_steps(self.text, self.at, self.parameter)
        self._expect(".")
        head = _OPERATION.match(self.text, self.at)
        if head is None:
            raise refuse(self.parameter, "column.operator.value", given=self.text[self.at :])
        self.at = head.end()
        return _filter(Path(name, steps), head, self._value(head[2]), self.parameter, self.values)

    def _value(self, op: str) -> str:
        """Up to the comma or parenthesis that ends this condition, with a value's quotes taken away."""
        text, at = self.text, self.at
        if op == "in":
            _, self.at = _elements(text, at, self.parameter)
            return text[at : self.at]
        for pattern in (_QUOTED, _BRACES):
            found = pattern.match(text, at)
            if found is not None:
                self.at = found.end()
                return unescape(found[1]) if pattern is _QUOTED else found[1]
        plain = _VALUE.match(text, at)
        assert plain is not None
        self.at = plain.end()
        return plain[0]

    def _skip(self) -> None:
        self.at = skip(self.text, self.at)

    def _peek(self) -> str:
        self._skip()
        return self.text[self.at : self.at + 1]

    def _expect(self, token: str) -> None:
        if self._peek() != token:
            raise refuse(self.parameter, repr(token), given=self.text[self.at :])
        self.at += 1
