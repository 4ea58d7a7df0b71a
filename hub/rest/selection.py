"""`select` as a tree: columns, casts, JSON paths, aggregates, embedded tables and spreads."""

from __future__ import annotations

import re
from typing import Final

from hub.errors import BadRequest
from hub.rest.tree import Aggregate, Embed, Field, Item, Join, Path, Star
from hub.rest.words import DEEPEST_EMBED, MOST_PARTS, read_name, read_steps, refuse, skip, too_many

MOST_EMBEDS: Final = 40
_AGGREGATES: Final = frozenset({"sum", "avg", "count", "max", "min"})
_CAST = re.compile(r"::([\w$ ]++)", re.ASCII)
_CALL = re.compile(r"\.(\w++)\(\s*+\)")


def parse_select(text: str) -> tuple[Item, ...]:
    """The value of `select`.

    >>> [type(item).__name__ for item in parse_select("id, contacts(*), ...profiles!owner_id(first_name)")]
    ['Field', 'Embed', 'Embed']
    """
    reader = _Select(text)
    items, at = reader.level(0, 0)
    if text[at : at + 1] == ")" and not text[at + 1 :].strip():
        at = len(text)  # one too many: PostgREST lets it pass
    if at < len(text):
        raise refuse("select", "a comma", given=text[at:])
    return items


class _Select:
    """Reads select; counts what it holds."""

    def __init__(self, text: str) -> None:
        self.text, self.entries, self.embeds = text, 0, 0

    def level(self, at: int, depth: int) -> tuple[tuple[Item, ...], int]:
        """The items up to the end or the parenthesis that closes them, and where that is."""
        text = self.text
        at = skip(text, at)
        if at == len(text):
            return (Star(),) if depth == 0 else (), at
        if text[at] == ")" and depth:
            return (), at
        items: list[Item] = []
        while True:
            self.entries += 1
            if self.entries > MOST_PARTS:
                raise too_many("select", MOST_PARTS)
            item, at = self._item(skip(text, at), depth)
            items.append(item)
            at = skip(text, at)
            if text[at : at + 1] != ",":
                return tuple(items), at
            at += 1

    def _item(self, at: int, depth: int) -> tuple[Item, int]:
        text = self.text
        if text.startswith("*", at):
            return Star(), at + 1
        if text.startswith("...", at):
            name, at = read_name(text, at + 3, "select")
            return self._embed(name, None, at, depth, is_spread=True)
        name, at = read_name(text, at, "select")
        alias = None
        if text.startswith(":", at) and not text.startswith("::", at):
            alias = name
            name, at = read_name(text, at + 1, "select")
        following = text[at : at + 1]
        if following == "(" and name == "count":
            return self._count(alias, at)
        if following in ("(", "!"):
            return self._embed(name, alias, at, depth)
        steps, at = read_steps(text, at, "select")
        cast, at = self._cast(at)
        aggregate, at = self._aggregate(at)
        result_cast, at = self._cast(at) if aggregate is not None else (None, at)
        return Field(Path(name, steps), alias, cast, aggregate, result_cast), at

    def _count(self, alias: str | None, at: int) -> tuple[Item, int]:
        at = skip(self.text, at + 1)
        if self.text[at : at + 1] != ")":
            raise refuse("select", "count(): no table can be called so", given=self.text[at:])
        result_cast, at = self._cast(at + 1)
        return Field(None, alias, None, "count", result_cast), at

    def _cast(self, at: int) -> tuple[str | None, int]:
        if not self.text.startswith("::", at):
            return None, at
        match = _CAST.match(self.text, at)
        if match is None or not match[1].strip() or len(match[1]) > 64:
            raise refuse("select", "a type after ::", given=self.text[at:])
        return match[1].strip(), match.end()

    def _aggregate(self, at: int) -> tuple[Aggregate | None, int]:
        if not self.text.startswith(".", at):
            return None, at
        match = _CALL.match(self.text, at)
        if match is None or match[1] not in _AGGREGATES:
            raise refuse("select", "sum(), avg(), count(), max() or min()", given=self.text[at:])
        return match[1], match.end()  # type: ignore[return-value]

    def _embed(
        self, name: str, alias: str | None, at: int, depth: int, *, is_spread: bool = False
    ) -> tuple[Embed, int]:
        text = self.text
        hint: str | None = None
        join: Join | None = None
        while text.startswith("!", at):
            word, at = read_name(text, at + 1, "select")
            if word in ("inner", "left"):
                twice, join = join is not None, word  # type: ignore[assignment]
            else:
                twice, hint = hint is not None, word
            if twice:
                raise refuse("select", "one hint and one of inner and left", given=word)
        if not text.startswith("(", at):
            raise refuse("select", "columns in parentheses after an embedded table", given=text[at:])
        self.embeds += 1
        if depth >= DEEPEST_EMBED:
            raise BadRequest(f"select: at most {DEEPEST_EMBED} levels of embedding", rest_code="PGRST100")
        if self.embeds > MOST_EMBEDS:
            raise BadRequest(f"select: at most {MOST_EMBEDS} embedded tables", rest_code="PGRST100")
        items, at = self.level(at + 1, depth + 1)
        if not text.startswith(")", at):
            raise refuse("select", "a closing parenthesis", given=text[at:])
        return Embed(name, items, alias, hint, join, is_spread), at + 1
