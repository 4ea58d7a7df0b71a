"""Every statement Python runs, by name: ``from sql import q`` and ``await conn.fetch(q.claim_work, …)``.

A file ``queries/<noun>.sql`` holds named statements; each starts with ``-- name: <name>`` and a comment that
says what it does and what its placeholders are. Names are unique over all files.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent


class Query(NamedTuple):
    """One named statement: its text, its comment, and ``file:line`` for error messages."""

    name: str
    text: str
    doc: str
    origin: str


def load(folder: Path) -> dict[str, Query]:
    """All queries below ``folder``. Raises ValueError for a name used twice or a file without a name."""
    queries: dict[str, Query] = {}
    for path in sorted(folder.glob("*.sql")):
        text = path.read_text(encoding="utf-8")
        for match in re.finditer(r"^-- name: (\w+)\n(.*?)(?=^-- name: |\Z)", text, re.M | re.S):
            name, body = match.group(1), match.group(2)
            comment = re.match(r"(?:--[^\n]*\n)*", body)
            doc = comment.group(0) if comment else ""
            line = text.count("\n", 0, match.start()) + 1
            if name in queries:
                raise ValueError(
                    f"{path.name}:{line}: the query name {name} is taken by {queries[name].origin}"
                )
            statement = body[len(doc) :].strip().rstrip(";")
            queries[name] = Query(name, statement, doc.replace("-- ", "").strip(), f"{path.name}:{line}")
    return queries


QUERIES = load(ROOT / "queries")


class _Statements:
    """``q.name`` gives the plain text: asyncpg refuses subclasses of str."""

    def __getattr__(self, name: str) -> str:
        try:
            return QUERIES[name].text
        except KeyError:
            raise AttributeError(f"No query named {name} in sql/queries") from None


q = _Statements()
