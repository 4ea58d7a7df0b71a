"""Every number a provider imposes, one table per channel; adapters and the composer read them here, never
inline.

Figures: spec channels 2.10 and 15 (read 2026-11). Lengths are Unicode code points unless the name says
otherwise.
"""

from __future__ import annotations

import msgspec


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What may be sent and what comes back, as the composer needs it."""

    send_types: frozenset[str]
    buttons: bool
    lists: bool
    link_button: bool
    templates: bool
    reply_quoting: bool
    reactions: bool
    typing: bool
    mark_read: bool
    delivered_receipt: bool
    read_receipt: bool
    business_may_start: bool
    """False when only a template or an answer may open a conversation."""


class MediaLimit(msgspec.Struct, frozen=True):
    """Largest size in bytes and the MIME types that are accepted."""

    max_bytes: int
    mime_types: frozenset[str]


class ChannelLimits(msgspec.Struct, frozen=True, kw_only=True):
    """0 means that the channel does not have the thing."""

    text: int
    caption: int
    header: int
    footer: int
    buttons: int
    button_title: int
    button_id: int
    list_button: int
    list_sections: int
    list_rows: int
    list_section_title: int
    list_row_title: int
    list_row_description: int
    list_row_id: int
    correlator: int
    contact_cards: int
    window_s: int
    """Seconds after the customer's last message in which free text is allowed; 0 = no window."""
    rate_per_s: float
    """Sends per second and account that we allow ourselves."""
    pair_interval_s: float
    """Seconds per message to one recipient in the long run; pair_burst may be borrowed."""
    pair_burst: int
    media: dict[str, MediaLimit]
    upload_keep_s: float
    """How long the id of an uploaded file may be used."""
    inbound_keep_s: float
    """How long the provider keeps a customer's file for us."""


_MB = 1024 * 1024

WHATSAPP_CLOUD = ChannelLimits(
    text=4096,
    caption=1024,
    header=60,
    footer=60,
    buttons=3,
    button_title=20,
    button_id=256,
    list_button=20,
    list_sections=10,
    list_rows=10,
    list_section_title=24,
    list_row_title=24,
    list_row_description=72,
    list_row_id=200,
    correlator=512,
    contact_cards=257,
    window_s=24 * 3600,
    rate_per_s=60.0,  # of Meta's 80: in and out count together
    pair_interval_s=6.0,
    pair_burst=45,
    media={
        "image": MediaLimit(5 * _MB, frozenset({"image/jpeg", "image/png"})),
        "video": MediaLimit(16 * _MB, frozenset({"video/mp4", "video/3gpp"})),
        "audio": MediaLimit(
            16 * _MB, frozenset({"audio/aac", "audio/amr", "audio/mpeg", "audio/mp4", "audio/ogg"})
        ),
        "document": MediaLimit(100 * _MB, frozenset()),
        "sticker": MediaLimit(500 * 1024, frozenset({"image/webp"})),
    },
    upload_keep_s=29 * 86400.0,  # of Meta's 30 days
    inbound_keep_s=7 * 86400.0,
)
"""An empty MIME set means any type."""

BY_CHANNEL: dict[str, ChannelLimits] = {
    "WHATSAPP_CLOUD": WHATSAPP_CLOUD,
    "WHATSAPP_BUSINESS": WHATSAPP_CLOUD,
}
"""By channel type as accounts are written."""
