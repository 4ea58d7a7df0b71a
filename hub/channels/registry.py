"""Channel type → adapter. The only list of them."""

from __future__ import annotations

from hub.channels.protocol import ChannelAdapter
from hub.channels.whatsapp_cloud import WhatsAppCloud

ADAPTERS: dict[str, ChannelAdapter] = {a.type: a for a in (WhatsAppCloud(),)}
_ALIASES = {"WHATSAPP_BUSINESS": "WHATSAPP_CLOUD"}
"""An older name in the API document; kept as written in the row, the same provider."""


def adapter_for(channel_type: str) -> ChannelAdapter | None:
    """None for a type without an adapter yet."""
    return ADAPTERS.get(_ALIASES.get(channel_type, channel_type))


def adapter_for_webhook(path: str) -> ChannelAdapter | None:
    """By the last part of the path under /functions/v1."""
    return next((a for a in ADAPTERS.values() if a.webhook_path == path), None)
