"""Secrets inside `settings`: taken out of what is written, encrypted beside the row, shown as a mask.

Writing the mask back keeps the secret; writing settings without it, or with null, removes it.
"""

from __future__ import annotations

import re
from typing import Any, Final
from uuid import UUID

import msgspec

from hub.auth.secrets import seal_secret
from hub.settings import Settings

MASK: Final = "********"
#: The columns that may hold secrets.
COLUMNS: Final[dict[str, str]] = {"channel_accounts": "settings", "organizations": "settings"}
_SECRET = re.compile(
    r"(?:^|_)(?:token|secret|password|passphrase|pin|api_key|private_key|authorization|credentials?)$"
)
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


class Split(msgspec.Struct, frozen=True):
    """``shown`` is what the column may hold; ``secrets`` are new values, ``keep`` names of those that
    stay."""

    shown: Any
    secrets: dict[str, str]
    keep: list[str]


def is_secret(name: str) -> bool:
    """Whether a setting of this name is a secret: access_token, smtpPassword; not token_expires_at or
    api_key_sid."""
    return _SECRET.search(_HUMP.sub("_", name).lower()) is not None


def split(settings: Any) -> Split:
    """Take the secrets out of one settings document, also out of nested objects (named `outer.inner`)."""
    secrets: dict[str, str] = {}
    keep: list[str] = []

    def walk(value: Any, prefix: str) -> Any:
        if not isinstance(value, dict):
            return value
        shown = {}
        for name, inner in value.items():
            full = f"{prefix}{name}"
            if not is_secret(name) or isinstance(inner, (dict, list, bool)):
                shown[name] = walk(inner, f"{full}.")
            elif inner == MASK:
                keep.append(full)
                shown[name] = MASK
            elif inner is not None and inner != "":
                secrets[full] = str(inner)
                shown[name] = MASK
        return shown

    return Split(walk(settings, ""), secrets, keep)


def sealed_item(
    settings: Settings, table: str, organization_id: UUID | str, owner_id: UUID | str, found: Split
) -> dict[str, Any]:
    """One item of app.keep_secrets."""
    return {
        "organization_id": str(organization_id),
        "owner_id": str(owner_id),
        "secrets": {
            name: seal_secret(
                settings, value, table=table, column=name, organization_id=organization_id, row_id=owner_id
            )
            for name, value in found.secrets.items()
        },
        "keep": found.keep,
    }
