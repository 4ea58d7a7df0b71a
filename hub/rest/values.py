"""What a few columns make of what they are given: phones in one form, e-mails that could be some, actions
that a rule can do.

    contacts.phones   "+20 (0)100 138-3533" → "+201001383533"; "call me" is refused
    contacts.emails   " john@example.com "  → "john@example.com"; "john@" is refused

The database mirrors both to the contact's identities (app.mirror_identities).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

import msgspec

from hub.domain import rule_actions
from hub.domain.phones import parse_phone
from hub.errors import ValidationFailed, place_of
from hub.rest.body import Row, Rows

_EMAIL = re.compile(r"[^@\s,;<>\"]{1,64}@(?:[^@\s.,;<>\"]{1,63}\.)+[^@\s.,;<>\"]{2,63}")
_anything = msgspec.json.Decoder(Any)
_encode = msgspec.json.Encoder(uuid_format="canonical").encode
Clean = Callable[[str], str | None]
"""The value to keep; None for one that cannot be."""


@lru_cache(maxsize=4096)
def clean_phone(text: str) -> str | None:
    """International numbers as E.164. A national one, whose country nobody says, stays in its own digits.

    >>> clean_phone("0020 100 1383533"), clean_phone("0100 138-3533"), clean_phone("call me")
    ('+201001383533', '01001383533', None)
    """
    phone = parse_phone(text)
    if phone is None:
        return None
    international = text.strip().translate(_DIGITS).startswith(("+", "00"))
    return phone.e164 if international or _is_valid(phone.e164) else phone.wa_id


_DIGITS: Final = str.maketrans("٠١٢٣٤٥٦٧٨٩۰۱۲۳۴۵۶۷۸۹", "01234567890123456789")


def _is_valid(e164: str) -> bool:
    """Whether a numbering plan knows it."""
    import phonenumbers  # heavy: only where numbers are read

    try:
        return phonenumbers.is_valid_number(phonenumbers.parse(e164, None))
    except phonenumbers.NumberParseException:
        return False


def clean_email(text: str) -> str | None:
    """
    >>> clean_email(" John@example.com "), clean_email("john@")
    ('John@example.com', None)
    """
    stripped = text.strip()
    return stripped if len(stripped) <= 254 and _EMAIL.fullmatch(stripped) else None


#: What a refusal says, by kind of value.
_RULES: Final[dict[tuple[str, str], tuple[Clean, str]]] = {
    ("contacts", "phones"): (clean_phone, "Invalid phone number"),
    ("contacts", "emails"): (clean_email, "Invalid email format"),
    ("companies", "phone"): (clean_phone, "Invalid phone number"),
    ("companies", "email"): (clean_email, "Invalid email format"),
    ("invitations", "email"): (clean_email, "Invalid email format"),
}
#: Documents that are checked and kept as they are: what is wrong with one, and where.
_CHECKS: Final[dict[tuple[str, str], Callable[[Any], tuple[str, str] | None]]] = {
    ("automation_rules", "actions"): rule_actions.problem_of
}
_TABLES: Final = frozenset(table for table, _ in (*_RULES, *_CHECKS))


def has_rules(table: str, names: list[str]) -> bool:
    return table in _TABLES and any((table, name) in _RULES or (table, name) in _CHECKS for name in names)


def clean(table: str, rows: Rows) -> None:
    """Put the values of such columns in order. Raises ValidationFailed naming the field."""
    for name in [column for of, column in _CHECKS if of == table]:
        for row in rows.rows:
            if name in row and (problem := _CHECKS[table, name](_anything.decode(row[name]))):
                inside, message = place_of(problem[1])
                raise _refusal(f"{problem[0]}.{inside}" if inside else problem[0], message)
    for name in [column for of, column in _RULES if of == table]:
        rule, message = _RULES[table, name]
        for row in rows.rows:
            if name in row and _clean_one(row, name, rule, message):
                rows.change()


def _refusal(field: str, message: str) -> ValidationFailed:
    return ValidationFailed(
        "Validation error", details={"field": field, "message": message}, rest_code="23514"
    )


def _clean_one(row: Row, name: str, rule: Clean, message: str) -> bool:
    """Whether it was changed. What is neither text nor a list of texts is Postgres' to refuse."""
    given = _anything.decode(row[name])
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        return False
    if isinstance(given, str) and given.lstrip().startswith("{"):
        return False  # an array as Postgres writes it
    kept: list[str] = []
    for text in texts:
        if not text.strip() and isinstance(given, str):
            return False
        found = rule(text)
        if found is None:
            raise _refusal(name, message)
        kept.append(found)
    if kept == texts:
        return False
    row[name] = msgspec.Raw(_encode(kept if isinstance(given, list) else kept[0]))
    return True
