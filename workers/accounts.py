"""A channel account as its adapter needs it: settings with their secrets opened, and where the provider
lives."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import msgspec

from hub.auth.secrets import open_secret
from hub.channels.protocol import ProviderEnv
from hub.settings import Settings

_OBJECT = msgspec.json.Decoder(dict[str, Any])
_STRINGS = msgspec.json.Decoder(dict[str, str])


def open_account(
    settings: Settings, organization_id: UUID, account_id: UUID, given: str | None, secrets: str | None
) -> tuple[dict[str, Any], ProviderEnv]:
    """From the JSON of a claim. Raises ValueError for a secret that does not open: as good as a broken
    token."""
    account: dict[str, Any] = _OBJECT.decode(given or "{}")
    for name, sealed in _STRINGS.decode(secrets or "{}").items():
        account[name] = open_secret(
            settings,
            sealed,
            table="channel_accounts",
            column=name,
            organization_id=organization_id,
            row_id=account_id,
        ).reveal()
    operator = settings.meta_app_secret
    env = ProviderEnv(
        graph_base=settings.meta_graph_base,
        graph_version=settings.meta_graph_version,
        app_secret=account.get("app_secret") or (operator.reveal() if operator else None),
    )
    return account, env
