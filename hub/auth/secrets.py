"""Secrets at rest: AES-256-GCM, ``v1:<key id>:<nonce>:<ciphertext>``, bound to the place where they are
stored.

The associated data names table, column, organization and row, so that a ciphertext copied to another row or
tenant does not open there. HUB_SECRET_KEY is a comma list: the first key writes, all of them read.
"""

from __future__ import annotations

import base64
import hashlib
import os
from functools import lru_cache
from typing import Final
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from hub.settings import Secret, Settings

_VERSION: Final = "v1"
#: What app.hub_meta.sentinel holds, sealed: a wrong HUB_SECRET_KEY is found at start and not at the first
#: send.
SENTINEL: Final = "connectgain-hub"


class CannotOpen(ValueError):
    """No key of HUB_SECRET_KEY opens this, or it was copied from elsewhere. Never says what was inside."""


@lru_cache(maxsize=32)
def _cipher(key: str) -> tuple[str, AESGCM]:
    """The key's short name (says nothing about the key) and its cipher."""
    derived = HKDF(algorithm=SHA256(), length=32, salt=None, info=b"connectgain-hub secrets v1").derive(
        key.encode()
    )
    return hashlib.sha256(b"key id" + derived).hexdigest()[:8], AESGCM(derived)


def _place(table: str, column: str, organization_id: UUID | str | None, row_id: UUID | str | None) -> bytes:
    return "|".join((table, column, str(organization_id or ""), str(row_id or ""))).encode()


def seal_secret(
    settings: Settings,
    value: str,
    *,
    table: str,
    column: str,
    organization_id: UUID | str | None,
    row_id: UUID | str | None,
) -> str:
    """Encrypt ``value`` for exactly one place."""
    kid, cipher = _cipher(settings.secret_keys[0].reveal())
    nonce = os.urandom(12)
    sealed = cipher.encrypt(nonce, value.encode(), _place(table, column, organization_id, row_id))
    return f"{_VERSION}:{kid}:{_b64(nonce)}:{_b64(sealed)}"


def open_secret(
    settings: Settings,
    ciphertext: str,
    *,
    table: str,
    column: str,
    organization_id: UUID | str | None,
    row_id: UUID | str | None,
) -> Secret:
    """The value sealed for this place. Raises CannotOpen."""
    try:
        version, kid, nonce, sealed = ciphertext.split(":")
        raw_nonce, raw = _unb64(nonce), _unb64(sealed)
    except ValueError as error:
        raise CannotOpen("This is not a sealed value") from error
    for key in settings.secret_keys:
        name, cipher = _cipher(key.reveal())
        if version == _VERSION and name == kid:
            try:
                return Secret(
                    cipher.decrypt(raw_nonce, raw, _place(table, column, organization_id, row_id)).decode()
                )
            except (InvalidTag, ValueError) as error:  # ValueError: a nonce of no length that there is
                raise CannotOpen("The sealed value was changed or moved") from error
    raise CannotOpen("HUB_SECRET_KEY does not hold the key that sealed this")


def is_current(settings: Settings, ciphertext: str) -> bool:
    """Whether the first key of HUB_SECRET_KEY sealed it; if not, it waits to be sealed again."""
    return ciphertext.startswith(f"{_VERSION}:{_cipher(settings.secret_keys[0].reveal())[0]}:")


def _b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
