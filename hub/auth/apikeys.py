"""Organization keys: ``cg_`` and 43 base62 characters (256 bits), shown once, kept as an HMAC beside a
visible prefix.

So much randomness needs no slow hash (ASVS 6.5.2); the pepper makes a stolen table useless without
HUB_SECRET_KEY.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import Final

_ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_LENGTH: Final = 43
PREFIX_LENGTH: Final = 11


def new_key() -> str:
    """A fresh key; its first PREFIX_LENGTH characters may be shown."""
    return "cg_" + "".join(secrets.choice(_ALPHABET) for _ in range(_LENGTH))


def is_key(text: str) -> bool:
    """Whether it has a key's shape; says nothing about its validity."""
    return len(text) == _LENGTH + 3 and text.startswith("cg_") and text[3:].isalnum() and text.isascii()


def prefix_of(key: str) -> str:
    return key[:PREFIX_LENGTH]


def hash_key(pepper: bytes, key: str) -> bytes:
    """What app.api_key_hashes keeps."""
    return hmac.digest(pepper, key.encode(), hashlib.sha256)
