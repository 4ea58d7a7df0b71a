"""E-mail addresses as accounts know them: ASCII and lower case, or none at all.

A letter that only looks like another (Cyrillic а, the Kelvin sign, which lower-cases to k, the dotless ı)
would be a second account with the same face, or the first one's by surprise: such addresses are refused and
never folded. Domains in other scripts have an ASCII form (xn--…), which is taken.
"""

from __future__ import annotations

import re
from typing import Final

LONGEST: Final = 320
_ADDRESS: Final = re.compile(
    r"[a-z0-9!#$%&'*+/=?^_`{|}~-]+(\.[a-z0-9!#$%&'*+/=?^_`{|}~-]+)*"
    r"@([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)+|localhost)"
)


def address_of(text: str) -> str | None:
    """The address in the form that is stored and compared; None for what is none. Blanks around it are not
    of it."""
    given = text.strip(" \t\r\n")
    if not given.isascii() or len(given) > LONGEST:
        return None
    address = given.lower()
    return address if _ADDRESS.fullmatch(address) and len(address.partition("@")[0]) <= 64 else None
