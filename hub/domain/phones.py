"""Phone numbers in the forms people and providers write them, as one canonical form."""

from __future__ import annotations

import re
from typing import Final

import msgspec

# Arabic-Indic and Persian digits; phones are typed on the keyboard that is at hand.
_DIGITS: Final = str.maketrans("٠١٢٣٤٥٦٧٨٩۰۱۲۳۴۵۶۷۸۹", "01234567890123456789")
_JID = re.compile(r"(?::\d+)?@(?:s\.whatsapp\.net|c\.us|lid|g\.us)$", re.IGNORECASE)
# Spaces, dashes, dots, brackets, slashes, and the invisible marks that copying from a chat brings along.
_NOISE = re.compile(r"[\s\u00a0\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff().\-/‐-―]+")
SHORTEST, LONGEST = 7, 15


class Phone(msgspec.Struct, frozen=True):
    """``e164`` is +201001383533, ``wa_id`` the same without the plus; ``forms`` are spellings that rows may
    hold."""

    e164: str
    wa_id: str
    forms: tuple[str, ...]


def parse_phone(text: str) -> Phone | None:
    """The number meant by ``text`` in international form, with or without `+`, `00` or a WhatsApp jid's
    suffix. None when it cannot be one. A number that no numbering plan knows is taken as written: providers
    do too.

    >>> parse_phone("٠٠٢٠ ١٠٠-١٣٨٣٥٣٣").e164
    '+201001383533'
    >>> parse_phone("201001383533@s.whatsapp.net").wa_id
    '201001383533'
    >>> parse_phone("call me") is None
    True
    """
    plain = _NOISE.sub("", _JID.sub("", text.strip()).translate(_DIGITS))
    if plain.startswith("+"):
        plain = plain[1:]
    elif plain.startswith("00"):
        plain = plain[2:]
    if not plain.isascii() or not plain.isdigit() or not SHORTEST <= len(plain) <= LONGEST:
        return None
    digits = _national_prefix_removed(plain)
    forms = dict.fromkeys((f"+{digits}", digits, f"00{digits}", f"+{plain}", plain))
    return Phone(f"+{digits}", digits, tuple(forms))


def _national_prefix_removed(digits: str) -> str:
    """`+20 (0)100…` is written often; the numbering plan knows that the 0 does not belong there."""
    import phonenumbers  # heavy: only where numbers are read

    while True:
        try:
            number = phonenumbers.parse(f"+{digits}", None)
        except phonenumbers.NumberParseException:
            return digits
        if not phonenumbers.is_possible_number(number):
            return digits
        removed = str(phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164))[1:]
        if removed == digits or len(removed) < SHORTEST:
            return digits
        digits = removed  # a second 0 may stand behind the first: one number has one canonical form
