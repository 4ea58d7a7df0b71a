"""WhatsApp Cloud API: webhooks in, requests out, answers judged. Pure functions over bytes; spec: channels 1,
2."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.parse import quote

import msgspec

from hub.channels import limits as channel_limits
from hub.channels import signing
from hub.channels.protocol import (
    Accepted,
    AuthBroken,
    Identity,
    Inbound,
    MediaLocation,
    Outbound,
    Permanent,
    ProviderEnv,
    RequestDescription,
    ResponseFacts,
    Retryable,
    Status,
    StatusUpdate,
    Throttled,
    Unknown,
    UnknownEvent,
    Unrenderable,
    UploadDescription,
    Uploaded,
    Verdict,
    WindowClosed,
)

Event = Inbound | StatusUpdate | UnknownEvent

# Bodies we receive.


class _In(msgspec.Struct, omit_defaults=True, gc=False):
    """Base of what we receive: unknown fields are ignored, every field may be missing; gc off because bodies
    hold no cycles."""


class _Profile(_In):
    name: str | None = None
    username: str | None = None


class _Contact(_In):
    wa_id: str | None = None
    user_id: str | None = None
    profile: _Profile | None = None


class _Metadata(_In):
    phone_number_id: str = ""


class _Text(_In):
    body: str = ""


class _MediaIn(_In):
    id: str | None = None
    mime_type: str | None = None
    sha256: str | None = None
    caption: str | None = None
    filename: str | None = None
    url: str | None = None
    voice: bool = False
    animated: bool = False


class _LocationIn(_In):
    latitude: float | None = None
    longitude: float | None = None
    name: str | None = None
    address: str | None = None
    url: str | None = None


class _CardName(_In):
    formatted_name: str | None = None
    first_name: str | None = None
    last_name: str | None = None


class _CardPhone(_In):
    phone: str | None = None
    type: str | None = None
    wa_id: str | None = None


class _CardEmail(_In):
    email: str | None = None
    type: str | None = None


class _CardOrg(_In):
    company: str | None = None
    department: str | None = None
    title: str | None = None


class _Card(_In):
    name: _CardName | None = None
    phones: list[_CardPhone] = []
    emails: list[_CardEmail] = []
    org: _CardOrg | None = None
    birthday: str | None = None
    vcard: str | None = None
    origin: str | None = None


class _ReactionIn(_In):
    message_id: str = ""
    emoji: str | None = None


class _ButtonIn(_In):
    text: str = ""
    payload: str | None = None


class _Choice(_In):
    id: str | None = None
    title: str = ""
    description: str | None = None


class _FlowReply(_In):
    name: str | None = None
    body: str | None = None
    response_json: str | None = None


class _InteractiveIn(_In):
    type: str = ""
    button_reply: _Choice | None = None
    list_reply: _Choice | None = None
    nfm_reply: _FlowReply | None = None


class _OrderItem(_In):
    product_retailer_id: str | None = None
    quantity: float | str | None = None
    item_price: float | str | None = None
    currency: str | None = None


class _Order(_In):
    catalog_id: str | None = None
    text: str | None = None
    product_items: list[_OrderItem] = []


class _Welcome(_In):
    text: str | None = None


class _Referral(_In):
    source_url: str | None = None
    source_id: str | None = None
    source_type: str | None = None
    headline: str | None = None
    body: str | None = None
    media_type: str | None = None
    image_url: str | None = None
    video_url: str | None = None
    thumbnail_url: str | None = None
    ctwa_clid: str | None = None
    welcome_message: _Welcome | None = None


class _Product(_In):
    catalog_id: str | None = None
    product_retailer_id: str | None = None


class _Context(_In):
    id: str | None = None
    forwarded: bool = False
    frequently_forwarded: bool = False
    referred_product: _Product | None = None


class _SystemIdentity(_In):
    hash: str | None = None
    acknowledged: bool | None = None
    created_timestamp: str | int | None = None


class _System(_In):
    type: str | None = None
    body: str | None = None
    wa_id: str | None = None
    user_id: str | None = None
    new_wa_id: str | None = None
    identity: _SystemIdentity | str | None = None
    customer: str | None = None


class _ErrorData(_In):
    details: str | None = None


class _Error(_In):
    code: int | str | None = None
    title: str | None = None
    message: str | None = None
    error_data: _ErrorData | str | None = None


class _Edited(_In):
    type: str | None = None
    text: _Text | None = None
    image: _MediaIn | None = None
    video: _MediaIn | None = None
    document: _MediaIn | None = None


class _Edit(_In):
    original_message_id: str = ""
    message: _Edited | None = None


class _Revoke(_In):
    original_message_id: str = ""


class _Message(_In):
    id: str = ""
    sender: str | None = msgspec.field(name="from", default=None)
    to: str | None = None
    from_user_id: str | None = None
    to_user_id: str | None = None
    timestamp: str | int | float | None = None
    type: str = ""
    group_id: str | None = None
    context: _Context | None = None
    referral: _Referral | None = None
    errors: list[_Error] = []
    text: _Text | None = None
    image: _MediaIn | None = None
    video: _MediaIn | None = None
    audio: _MediaIn | None = None
    voice: _MediaIn | None = None
    document: _MediaIn | None = None
    sticker: _MediaIn | None = None
    location: _LocationIn | None = None
    contacts: list[_Card] = []
    reaction: _ReactionIn | None = None
    button: _ButtonIn | None = None
    interactive: _InteractiveIn | None = None
    order: _Order | None = None
    system: _System | None = None
    identity: _SystemIdentity | None = None
    edit: _Edit | None = None
    revoke: _Revoke | None = None


class _Origin(_In):
    type: str | None = None


class _ConversationIn(_In):
    id: str | None = None
    origin: _Origin | None = None
    expiration_timestamp: str | int | None = None


class _Pricing(_In):
    billable: bool | None = None
    pricing_model: str | None = None
    type: str | None = None
    category: str | None = None


class _StatusIn(_In):
    id: str = ""
    status: str = ""
    timestamp: str | int | float | None = None
    recipient_id: str | None = None
    recipient_user_id: str | None = None
    biz_opaque_callback_data: str | None = None
    conversation: _ConversationIn | None = None
    pricing: _Pricing | None = None
    errors: list[_Error] = []


class _Preference(_In):
    wa_id: str | None = None
    user_id: str | None = None
    detail: str | None = None
    category: str | None = None
    value: str = ""
    timestamp: str | int | float | None = None


class _Value(_In):
    metadata: _Metadata | None = None
    contacts: list[_Contact] = []
    messages: list[_Message] = []
    message_echoes: list[_Message] = []
    statuses: list[_StatusIn] = []
    errors: list[_Error] = []
    groups: list[msgspec.Raw] = []
    user_preferences: list[_Preference] = []


class _LooseValue(_In):
    """The same value when one of its elements does not fit: each is decoded on its own, so that the others
    arrive."""

    metadata: msgspec.Raw = msgspec.Raw(b"null")
    contacts: msgspec.Raw = msgspec.Raw(b"[]")
    messages: msgspec.Raw = msgspec.Raw(b"[]")
    message_echoes: msgspec.Raw = msgspec.Raw(b"[]")
    statuses: msgspec.Raw = msgspec.Raw(b"[]")
    errors: msgspec.Raw = msgspec.Raw(b"[]")


class _TemplateStatus(_In):
    event: str = ""
    message_template_id: int | str | None = None
    message_template_name: str | None = None
    message_template_language: str | None = None
    reason: str | None = None


class _Change(_In):
    field: str = ""
    value: msgspec.Raw = msgspec.Raw(b"{}")


class _Entry(_In):
    id: str = ""
    time: int | str | float | None = None
    changes: list[_Change] = []


class _Webhook(_In):
    object: str = ""
    entry: list[_Entry] = []


_WEBHOOK = msgspec.json.Decoder(_Webhook)
_VALUE = msgspec.json.Decoder(_Value)
_LOOSE = msgspec.json.Decoder(_LooseValue)
_TEMPLATE_STATUS = msgspec.json.Decoder(_TemplateStatus)
_RAW_LIST = msgspec.json.Decoder(list[msgspec.Raw])
_CONTACT = msgspec.json.Decoder(_Contact)
_METADATA = msgspec.json.Decoder(_Metadata)
_MESSAGE = msgspec.json.Decoder(_Message)
_STATUS = msgspec.json.Decoder(_StatusIn)
_ERROR = msgspec.json.Decoder(_Error)
_FLOW_ANSWER = msgspec.json.Decoder(dict[str, str | int | float | bool | None])
_ENCODE = msgspec.json.Encoder()

# Postgres refuses U+0000 in text and jsonb, and no store takes half a surrogate pair (Meta cuts long names
# between the two). `\\\\` comes first so that an escaped backslash before `u0000` is left alone.
_UNSTORABLE = re.compile(
    rb"\\\\|\\u0000|\\u[dD][89abAB][0-9a-fA-F]{2}(?:\\u[dD][c-fC-F][0-9a-fA-F]{2})?|\\u[dD][c-fC-F][0-9a-fA-F]{2}"
)


def _storable(body: bytes) -> bytes:
    """The same JSON with U+FFFD in place of U+0000 and of lone surrogates."""

    def replacement(match: re.Match[bytes]) -> bytes:
        token = match.group()
        return token if token == rb"\\" or len(token) == 12 else rb"\ufffd"

    return _UNSTORABLE.sub(replacement, body)


_STATUSES: Final[dict[str, Status]] = {
    "sent": "SENT",
    "delivered": "DELIVERED",
    "read": "READ",
    "played": "READ",
    "failed": "FAILED",
}
_EMPTY: Final[dict[str, Any]] = {}
_BSUID = re.compile(r"[A-Z]{2}\.[A-Za-z0-9.]{1,140}")
_MAX_EPOCH_S = 253_402_300_000  # the last day of year 9999, where datetime ends


def _when(stamp: str | int | float | None) -> datetime | None:
    """Seconds, or milliseconds when at least 1e12 (seen in the wild); None for nonsense."""
    if stamp is None:
        return None
    try:
        seconds = float(stamp)
    except ValueError:
        return None
    if seconds >= 1e12:
        seconds /= 1000
    if not 0 < seconds < _MAX_EPOCH_S:
        return None
    return datetime.fromtimestamp(seconds, UTC)


def _is_phone(value: str) -> bool:
    return value.isascii() and value.isdigit()


def _identities(wa_id: str | None, user_id: str | None) -> tuple[Identity, ...]:
    """Phone first. Some payloads put the business-scoped id where the phone used to be (spec 2.4)."""
    if wa_id and not _is_phone(wa_id):
        if user_id is None and _BSUID.fullmatch(wa_id):
            user_id = wa_id
        elif wa_id != user_id and not _BSUID.fullmatch(wa_id):
            return (("wa_id", wa_id), ("wa_bsuid", user_id)) if user_id else (("wa_id", wa_id),)
        wa_id = None
    if wa_id:
        return (("wa_id", wa_id), ("wa_bsuid", user_id)) if user_id else (("wa_id", wa_id),)
    return (("wa_bsuid", user_id),) if user_id else ()


def _error_text(error: _Error) -> str:
    data = error.error_data
    details = data if isinstance(data, str) else data.details if data else None
    title = error.title or error.message or ""
    return f"{title}: {details}" if title and details and details != title else details or title


def _builtins(struct: msgspec.Struct | Sequence[msgspec.Struct]) -> Any:
    return msgspec.to_builtins(struct)


class _Reader:
    """One change value, read with the contacts that came beside it."""

    __slots__ = ("account", "by_id", "contacts")

    def __init__(self, account: str, contacts: list[_Contact]) -> None:
        self.account = account
        self.contacts = contacts
        self.by_id: dict[str, _Contact] | None = None

    def contact_of(self, wa_id: str | None, user_id: str | None) -> _Contact | None:
        contacts = self.contacts
        if not contacts:
            return None
        if len(contacts) == 1:
            only = contacts[0]
            if (
                (wa_id is None and user_id is None)
                or (wa_id is not None and wa_id in (only.wa_id, only.user_id))
                or (user_id is not None and user_id == only.user_id)
            ):
                return only
            return None
        if self.by_id is None:
            self.by_id = {key: c for c in contacts for key in (c.wa_id, c.user_id) if key}
        return self.by_id.get(user_id or "") or self.by_id.get(wa_id or "")

    def message(self, m: _Message, *, echo: bool = False) -> Event:
        if not m.id:
            return UnknownEvent(reason="message without id", account_key=self.account)
        if m.group_id:
            return UnknownEvent(reason="group message", account_key=self.account, keep=False)
        wa_id, user_id = (m.to, m.to_user_id) if echo else (m.sender, m.from_user_id)
        contact = self.contact_of(wa_id, user_id)
        name = username = None
        if contact is not None:
            wa_id = wa_id or contact.wa_id
            user_id = user_id or contact.user_id
            if contact.profile is not None:
                name, username = contact.profile.name, contact.profile.username
        identities = _identities(wa_id, user_id)
        if not identities:
            return UnknownEvent(reason=f"{m.type or 'message'} without sender", account_key=self.account)
        content, kind, message_type, metadata, target = _content(m)
        if echo and kind != "message":
            # Made by a colleague in the provider's own app: not the customer's reaction, edit or revoke.
            return UnknownEvent(reason=f"echo of {kind}", account_key=self.account, keep=False)
        context = m.context
        reply_to = None
        if context is not None:
            reply_to = context.id
            if context.forwarded or context.frequently_forwarded:
                metadata["forwarded"] = "often" if context.frequently_forwarded else "once"
            if context.referred_product is not None:
                metadata["product"] = _builtins(context.referred_product)
        if m.referral is not None:
            metadata["referral"] = _builtins(m.referral)
        first, value = identities[0]
        return Inbound(
            account_key=self.account,
            kind="echo" if echo else kind,  # type: ignore[arg-type]
            dedupe_key="wa:msg:" + m.id,
            provider_message_id=m.id,
            occurred_at=_when(m.timestamp),
            identities=identities,
            name=name,
            username=username,
            phone_e164="+" + value if first == "wa_id" and _is_phone(value) else None,
            conversation_key=value,
            message_type=message_type,
            content=content,
            metadata=metadata,
            reply_to=reply_to,
            target_id=target,
        )

    def preference(self, p: _Preference) -> Event:
        """The customer stops or resumes marketing from WhatsApp's own menu."""
        contact = self.contact_of(p.wa_id, p.user_id)
        identities = _identities(
            p.wa_id or (contact.wa_id if contact else None),
            p.user_id or (contact.user_id if contact else None),
        )
        if not identities or p.value not in ("stop", "resume", "signup"):
            return UnknownEvent(reason=f"preference {p.value[:40]!r}", account_key=self.account)
        value = identities[0][1]
        return Inbound(
            account_key=self.account,
            kind="optin",
            dedupe_key=f"wa:pref:{value}:{p.category}:{p.value}:{p.timestamp}",
            occurred_at=_when(p.timestamp),
            identities=identities,
            conversation_key=value,
            content=p.detail or "",
            metadata={"optin": {"value": p.value, "category": p.category, "allowed": p.value != "stop"}},
        )

    def status(self, s: _StatusIn) -> Event:
        status = _STATUSES.get(s.status)
        if status is None:
            keep = bool(s.status) and s.status != "deleted"
            return UnknownEvent(
                reason=f"status {s.status[:40]!r}", account_key=self.account, keep=keep and len(s.status) < 40
            )
        if not s.id:
            return UnknownEvent(reason="status without id", account_key=self.account)
        user_id = s.recipient_user_id
        if user_id is None and (contact := self.contact_of(s.recipient_id, None)) is not None:
            user_id = contact.user_id
        code = reason = None
        opted_out = False
        if status == "FAILED":
            error = s.errors[0] if s.errors else _Error()
            code = str(error.code) if error.code is not None else "unknown"
            reason = _error_text(error) or "The provider gave no reason"
            opted_out = code == _OPTED_OUT
        metadata = {}
        if s.pricing is not None:
            metadata["pricing"] = _builtins(s.pricing)
        if s.conversation is not None:
            metadata["conversation"] = _builtins(s.conversation)
        return StatusUpdate(
            account_key=self.account,
            provider_message_id=s.id,
            dedupe_key=f"wa:st:{s.id}:{s.status}",
            status=status,
            occurred_at=_when(s.timestamp),
            correlator=s.biz_opaque_callback_data or None,
            recipient=_identities(s.recipient_id, user_id),
            failure_code=code,
            failure_reason=reason,
            opted_out=opted_out,
            metadata=metadata,
        )


_Content = tuple[str, str, str, dict[str, Any], str | None]
"""(content, kind, message_type, metadata, target_id)"""


def _media(m: _Message, field: str, message_type: str) -> _Content | None:
    media: _MediaIn | None = getattr(m, field)
    if media is None or not (media.id or media.url):
        return None
    item: dict[str, Any] = {"kind": message_type}
    if media.id is not None:
        item["ref"] = media.id
    if media.url is not None:
        item["url"] = media.url
    if media.mime_type is not None:
        item["mime"] = media.mime_type
    if media.filename is not None:
        item["filename"] = media.filename
    if media.sha256 is not None:
        item["sha256"] = media.sha256
    if media.voice or field == "voice":
        item["voice"] = True
    if media.animated:
        item["animated"] = True
    return media.caption or "", "message", message_type, {"media": [item]}, None


def _content(m: _Message) -> _Content:
    """What the message says, in our words (table 2.3). A type we do not know, or one whose part is missing,
    is `unsupported`: the agent then sees that something came."""
    kind = m.type
    found: _Content | None = None
    if kind == "text":
        if m.text is not None:
            return m.text.body, "message", "text", {}, None
    elif kind in ("image", "video", "audio", "document", "sticker"):
        found = _media(m, kind, kind)
    elif kind == "voice":
        found = _media(m, "voice", "audio") or _media(m, "audio", "audio")
    elif kind == "interactive":
        found = _interactive(m.interactive)
    elif kind == "button":
        if m.button is not None:
            button = {"id": m.button.payload, "title": m.button.text, "source": "template"}
            found = m.button.text, "message", "button_reply", {"button": button}, None
    elif kind == "reaction":
        if m.reaction is not None and m.reaction.message_id:
            target = m.reaction.message_id
            emoji = m.reaction.emoji or ""
            found = (
                emoji,
                "reaction",
                "reaction",
                {"reaction": {"message_id": target, "emoji": emoji}},
                target,
            )
    elif kind == "location":
        found = _location(m.location)
    elif kind == "contacts":
        if m.contacts:
            names = ", ".join(c.name.formatted_name for c in m.contacts if c.name and c.name.formatted_name)
            found = names, "message", "contact", {"contacts": _builtins(m.contacts)}, None
    elif kind == "order":
        if m.order is not None:
            found = m.order.text or "", "message", "text", {"order": _builtins(m.order)}, None
    elif kind == "edit":
        found = _edit(m.edit)
    elif kind == "revoke":
        if m.revoke is not None and m.revoke.original_message_id:
            found = "", "delete", "text", {}, m.revoke.original_message_id
    elif kind == "system":
        found = _system(m.system, m.identity)
    elif kind == "request_welcome":
        found = "", "referral", "referral", {"referral": {"source_type": "opened"}}, None
    if found is not None:
        return found
    metadata: dict[str, Any] = {"provider_type": kind[:64]}
    if m.errors:
        metadata["errors"] = [{"code": e.code, "reason": _error_text(e)} for e in m.errors[:5]]
    return "", "message", "unsupported", metadata, None


def _interactive(part: _InteractiveIn | None) -> _Content | None:
    if part is None:
        return None
    choice = part.button_reply or part.list_reply
    if choice is not None:
        listed = part.button_reply is None
        button: dict[str, Any] = {
            "id": choice.id,
            "title": choice.title,
            "source": "list" if listed else "button",
        }
        if choice.description:
            button["description"] = choice.description
        message_type = "list_reply" if listed else "button_reply"
        return choice.title, "message", message_type, {"button": button}, None
    if part.nfm_reply is not None:
        flow = part.nfm_reply
        answer: dict[str, Any] = {"name": flow.name}
        if flow.response_json is not None:
            answer["response_json"] = flow.response_json
            # Nested or broken answers stay readable as the string.
            with contextlib.suppress(msgspec.DecodeError, UnicodeError, RecursionError):
                answer["answers"] = _FLOW_ANSWER.decode(_storable(flow.response_json.encode()))
        title = flow.body or flow.name or ""
        button = {"id": flow.name, "title": title, "source": "flow"}
        return title, "message", "button_reply", {"button": button, "flow": answer}, None
    return None


def _location(place: _LocationIn | None) -> _Content | None:
    if place is None or place.latitude is None or place.longitude is None:
        return None
    label = ", ".join(part for part in (place.name, place.address) if part)
    content = label or f"{place.latitude},{place.longitude}"
    return content, "message", "location", {"location": _builtins(place)}, None


def _edit(edit: _Edit | None) -> _Content | None:
    if edit is None or not edit.original_message_id or edit.message is None:
        return None
    new = edit.message
    if new.text is not None:
        content = new.text.body
    else:
        part = new.image or new.video or new.document
        if part is None:
            return None
        content = part.caption or ""
    return content, "edit", new.type or "text", {}, edit.original_message_id


def _system(system: _System | None, beside: _SystemIdentity | None) -> _Content | None:
    """`identity` is seen inside `system` and beside it."""
    if system is None:
        return None
    change: dict[str, Any] = {"type": system.type}
    new = _identities(system.wa_id or system.new_wa_id, system.user_id)
    if new:
        change["new"] = [list(identity) for identity in new]
    identity = system.identity if isinstance(system.identity, _SystemIdentity) else beside
    if identity is not None:
        change["identity"] = _builtins(identity)
    return system.body or "", "identity_change", "text", {"identity_change": change}, None


def _reason(what: str, error: BaseException) -> str:
    """msgspec names the path and the types, never the value."""
    return f"{what}: {str(error)[:200]}"


def _loosely(raw: bytes) -> list[Event]:
    """A value of which some element does not fit, element by element."""
    try:
        loose = _LOOSE.decode(raw)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        return [UnknownEvent(reason=_reason("value", error), raw=raw)]

    def elements(part: msgspec.Raw) -> list[msgspec.Raw]:
        try:
            return _RAW_LIST.decode(part)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            if bytes(part).strip() != b"null":
                events.append(
                    UnknownEvent(reason=_reason("list", error), account_key=account, raw=bytes(part))
                )
            return []

    account: str | None = None
    events: list[Event] = []
    with contextlib.suppress(msgspec.DecodeError, UnicodeError, RecursionError):
        account = _METADATA.decode(loose.metadata).phone_number_id or None
    if account is None:
        return [UnknownEvent(reason="value without phone_number_id", raw=raw)]
    contacts = []
    for part in elements(loose.contacts):
        try:
            contacts.append(_CONTACT.decode(part))
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            continue  # a name is lost, the message itself still carries its sender
    reader = _Reader(account, contacts)
    for name, parts, decoder, echo in (
        ("message", loose.messages, _MESSAGE, False),
        ("echo", loose.message_echoes, _MESSAGE, True),
        ("status", loose.statuses, _STATUS, False),
        ("error", loose.errors, _ERROR, False),
    ):
        for part in elements(parts):
            try:
                element = decoder.decode(part)
            except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
                events.append(UnknownEvent(reason=_reason(name, error), account_key=account, raw=bytes(part)))
                continue
            if isinstance(element, _Message):
                event = reader.message(element, echo=echo)
            elif isinstance(element, _StatusIn):
                event = reader.status(element)
            else:
                event = _account_error(account, None, element)
            if isinstance(event, UnknownEvent) and event.keep:
                event = msgspec.structs.replace(event, raw=bytes(part))
            events.append(event)
    return events


def _account_error(account: str, when: datetime | None, error: _Error) -> Inbound:
    stamp = int(when.timestamp()) if when else 0
    return Inbound(
        account_key=account,
        kind="account",
        dedupe_key=f"wa:err:{error.code}:{stamp}",
        occurred_at=when,
        content=_error_text(error),
        metadata={"error": {"code": error.code, "reason": _error_text(error)}},
    )


def _read_value(raw: bytes, entry: _Entry) -> list[Event]:
    try:
        value = _VALUE.decode(raw)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return _loosely(raw)
    account = value.metadata.phone_number_id if value.metadata is not None else ""
    if not account:
        return [UnknownEvent(reason="value without phone_number_id", raw=raw)]
    reader = _Reader(account, value.contacts)
    events: list[Event] = [reader.message(m) for m in value.messages]
    events += [reader.message(m, echo=True) for m in value.message_echoes]
    events += [reader.status(s) for s in value.statuses]
    events += [reader.preference(p) for p in value.user_preferences]
    events += [_account_error(account, _when(entry.time), e) for e in value.errors]
    events += [
        UnknownEvent(reason="group event", account_key=account, raw=bytes(g), keep=False)
        for g in value.groups
    ]
    if not events:
        events.append(UnknownEvent(reason="value without events", account_key=account, raw=raw))
    return events


def _read_template_status(raw: bytes, entry: _Entry) -> Event:
    try:
        update = _TEMPLATE_STATUS.decode(raw)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        return UnknownEvent(reason=_reason("template status", error), account_key=entry.id, raw=raw)
    status = {"APPROVED": "APPROVED", "PENDING": "PENDING", "IN_APPEAL": "PENDING"}.get(
        update.event, "REJECTED"
    )
    template = _builtins(update)
    template["status"] = status
    when = _when(entry.time)
    return Inbound(
        account_key=entry.id,
        kind="template_status",
        dedupe_key=f"wa:tpl:{update.message_template_id}:{update.event}:{entry.time or ''}",
        occurred_at=when,
        content=update.reason or "",
        metadata={"template": template},
    )


_ACCOUNT_FIELDS: Final = frozenset(
    {"account_update", "account_alerts", "account_review_update", "phone_number_quality_update"}
)


class _AccountUpdate(_In):
    event: str | None = None
    display_phone_number: str | None = None
    current_limit: str | None = None
    decision: str | None = None
    alert_type: str | None = None
    alert_severity: str | None = None
    alert_status: str | None = None
    alert_description: str | None = None


_ACCOUNT_UPDATE = msgspec.json.Decoder(_AccountUpdate)


def _read_account_update(field: str, raw: bytes, entry: _Entry) -> Event:
    try:
        update = _ACCOUNT_UPDATE.decode(raw)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        return UnknownEvent(reason=_reason(field, error), account_key=entry.id, raw=raw)
    label = update.event or update.decision or update.alert_type or ""
    return Inbound(
        account_key=entry.id,
        kind="account",
        dedupe_key=f"wa:acc:{field}:{label}:{entry.time or ''}",
        occurred_at=_when(entry.time),
        content=label,
        metadata={"account": {"field": field, **_builtins(update)}},
    )


def parse(body: bytes) -> list[Event]:
    """Every event of one delivery, in its order; see `ChannelAdapter.parse`.

    Raises msgspec.DecodeError for what is not JSON, is cut off, or is nested so deep that no honest provider
    sent it.
    """
    if rb"\u0000" in body:
        body = _storable(body)
    try:
        return _read(body)
    except msgspec.DecodeError:
        repaired = _storable(body)
        if repaired == body:
            raise
        return _read(repaired)


def _read(body: bytes) -> list[Event]:
    """_parse with the refusals of parse."""
    try:
        return _parse(body)
    except msgspec.ValidationError as error:
        return [UnknownEvent(reason=_reason("envelope", error))]
    except RecursionError as error:
        raise msgspec.DecodeError("JSON is nested too deep") from error
    except UnicodeError as error:
        raise msgspec.DecodeError("JSON is not UTF-8") from error


def _parse(body: bytes) -> list[Event]:
    webhook = _WEBHOOK.decode(body)
    if webhook.object != "whatsapp_business_account":
        return [UnknownEvent(reason=f"object {webhook.object[:40]!r}")]
    events: list[Event] = []
    for entry in webhook.entry:
        for change in entry.changes:
            field = change.field
            raw = bytes(change.value)
            if field in ("messages", "smb_message_echoes", "user_preferences"):
                events += _read_value(raw, entry)
            elif field == "message_template_status_update":
                events.append(_read_template_status(raw, entry))
            elif field in _ACCOUNT_FIELDS:
                events.append(_read_account_update(field, raw, entry))
            else:
                events.append(
                    UnknownEvent(reason=f"field {field[:40]!r}", account_key=entry.id or None, raw=raw)
                )
    return events


# Requests we send.


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What we read of a channel account's settings (2.12); other keys are not ours."""

    access_token: str
    phone_number_id: str
    waba_id: str | None = None
    graph_version: str | None = None


def _settings(settings: Mapping[str, Any]) -> Settings:
    try:
        return msgspec.convert(dict(settings), Settings)
    except msgspec.ValidationError as error:
        raise Unrenderable("channel_settings", str(error)) from error


def _graph(env: ProviderEnv, account: Settings, path: str) -> str:
    version = account.graph_version or env.graph_version
    base = env.graph_base.rstrip("/")
    url = f"{base}/{version}/{path}" if version else f"{base}/{path}"
    if env.app_secret:
        proof = signing.appsecret_proof(env.app_secret, account.access_token)
        url += f"{'&' if '?' in url else '?'}appsecret_proof={proof}"
    return url


def _headers(account: Settings) -> dict[str, str]:
    return {"Authorization": f"Bearer {account.access_token}", "Content-Type": "application/json"}


def _address(to: Iterable[Identity]) -> dict[str, str]:
    """Phone in `to`; a customer without one by business-scoped id in `recipient` (2.4)."""
    known = dict(reversed(list(to)))
    wa_id = known.get("wa_id") or known.get("phone_e164", "").removeprefix("+")
    if wa_id:
        return {"to": wa_id}
    if bsuid := known.get("wa_bsuid"):
        return {"recipient": bsuid}
    raise Unrenderable("no_identity", "The contact has no WhatsApp number or user id")


_L = channel_limits.WHATSAPP_CLOUD


def _checked(text: str, most: int, what: str, *, least: int = 1) -> str:
    if not least <= len(text) <= most:
        raise Unrenderable("length", f"{what} must have {least} to {most} characters, has {len(text)}")
    return text


def _media_part(outbound: Outbound) -> tuple[str, dict[str, Any]]:
    media = outbound.media
    assert media is not None
    if (media.id is None) == (media.link is None):
        raise Unrenderable("media", "Media needs exactly one of id and link")
    part: dict[str, Any] = {"id": media.id} if media.id is not None else {"link": media.link}
    if media.kind in ("image", "video", "document") and outbound.content:
        part["caption"] = _checked(outbound.content, _L.caption, "The caption")
    if media.kind == "document" and media.filename:
        part["filename"] = media.filename
    if media.kind == "audio" and media.voice:
        part["voice"] = True
    return media.kind, part


def _template_part(outbound: Outbound) -> dict[str, Any]:
    template = outbound.template
    assert template is not None
    part: dict[str, Any] = {"name": template.name, "language": {"code": template.language}}
    components = list(template.components)
    if not components and template.variables:
        if isinstance(template.variables, dict):
            parameters = [
                {"type": "text", "parameter_name": name, "text": value}
                for name, value in template.variables.items()
            ]
        else:
            parameters = [{"type": "text", "text": value} for value in template.variables]
        components = [{"type": "body", "parameters": parameters}]
    if components:
        part["components"] = components
    return part


def _interactive_part(outbound: Outbound) -> dict[str, Any]:
    part: dict[str, Any] = {
        "body": {"text": _checked(outbound.content, _L.caption, "The text above buttons")}
    }
    if outbound.header:
        part["header"] = {"type": "text", "text": _checked(outbound.header, _L.header, "The header")}
    if outbound.footer:
        part["footer"] = {"text": _checked(outbound.footer, _L.footer, "The footer")}
    if outbound.buttons:
        if len(outbound.buttons) > _L.buttons:
            raise Unrenderable("buttons", f"At most {_L.buttons} buttons, not {len(outbound.buttons)}")
        if len({b.id for b in outbound.buttons}) != len(outbound.buttons):
            raise Unrenderable("buttons", "Two buttons have the same id")
        part["type"] = "button"
        part["action"] = {
            "buttons": [
                {
                    "type": "reply",
                    "reply": {
                        "id": _checked(b.id, _L.button_id, "A button's id"),
                        "title": _checked(b.title, _L.button_title, "A button's title"),
                    },
                }
                for b in outbound.buttons
            ]
        }
    elif outbound.link is not None:
        part["type"] = "cta_url"
        text = _checked(outbound.link.text, _L.button_title, "The button's text")
        part["action"] = {"name": "cta_url", "parameters": {"display_text": text, "url": outbound.link.url}}
    elif outbound.menu is not None:
        menu = outbound.menu
        rows = sum(len(section.rows) for section in menu.sections)
        if not 1 <= rows <= _L.list_rows or len(menu.sections) > _L.list_sections:
            raise Unrenderable(
                "list", f"A list has 1 to {_L.list_rows} rows in at most {_L.list_sections} sections"
            )
        sections = []
        for section in menu.sections:
            out: dict[str, Any] = {"rows": []}
            if section.title:
                out["title"] = _checked(section.title, _L.list_section_title, "A section's title")
            elif len(menu.sections) > 1:
                raise Unrenderable("list", "Each of several sections needs a title")
            for row in section.rows:
                item = {
                    "id": _checked(row.id, _L.list_row_id, "A row's id"),
                    "title": _checked(row.title, _L.list_row_title, "A row's title"),
                }
                if row.description:
                    item["description"] = _checked(
                        row.description, _L.list_row_description, "A row's description"
                    )
                out["rows"].append(item)
            sections.append(out)
        part["type"] = "list"
        part["action"] = {
            "button": _checked(menu.button, _L.list_button, "The list's button"),
            "sections": sections,
        }
    return part


def _payload(outbound: Outbound) -> tuple[str, Any]:
    """(WhatsApp type, its part); the most specific part that is present decides, then the text."""
    if outbound.template is not None:
        return "template", _template_part(outbound)
    if outbound.reaction is not None:
        return "reaction", {"message_id": outbound.reaction.message_id, "emoji": outbound.reaction.emoji}
    if outbound.buttons or outbound.menu is not None or outbound.link is not None:
        return "interactive", _interactive_part(outbound)
    if outbound.media is not None:
        return _media_part(outbound)
    if outbound.location is not None:
        return "location", msgspec.to_builtins(outbound.location)
    if outbound.contacts:
        if len(outbound.contacts) > _L.contact_cards:
            raise Unrenderable("contacts", f"At most {_L.contact_cards} contact cards")
        return "contacts", list(outbound.contacts)
    if outbound.message_type not in ("text", ""):
        raise Unrenderable(
            "missing_part", f"A {outbound.message_type} message without its {outbound.message_type}"
        )
    return "text", {
        "body": _checked(outbound.content, _L.text, "The text"),
        "preview_url": outbound.preview_url,
    }


def render(outbound: Outbound, settings: Mapping[str, Any], env: ProviderEnv) -> RequestDescription:
    """POST /{phone_number_id}/messages (2.7). Raises Unrenderable."""
    account = _settings(settings)
    kind, part = _payload(outbound)
    body: dict[str, Any] = {
        "messaging_product": "whatsapp",
        "recipient_type": "individual",
        **_address(outbound.to),
        "type": kind,
        kind: part,
    }
    if outbound.correlator:
        body["biz_opaque_callback_data"] = _checked(outbound.correlator, _L.correlator, "The correlator")
    if outbound.reply_to and kind != "reaction":
        body["context"] = {"message_id": outbound.reply_to}
    return RequestDescription(
        method="POST",
        url=_graph(env, account, f"{quote(account.phone_number_id, safe='')}/messages"),
        headers=_headers(account),
        body=_ENCODE.encode(body),
    )


def render_read_mark(
    provider_message_id: str, settings: Mapping[str, Any], env: ProviderEnv, *, typing: bool = False
) -> RequestDescription:
    """Marks a customer's message, and all before it, as read; `typing` also shows "typing…" for 25 s or until
    we send."""
    account = _settings(settings)
    body: dict[str, Any] = {
        "messaging_product": "whatsapp",
        "status": "read",
        "message_id": provider_message_id,
    }
    if typing:
        body["typing_indicator"] = {"type": "text"}
    return RequestDescription(
        method="POST",
        url=_graph(env, account, f"{quote(account.phone_number_id, safe='')}/messages"),
        headers=_headers(account),
        body=_ENCODE.encode(body),
    )


def render_media_lookup(ref: str, settings: Mapping[str, Any], env: ProviderEnv) -> RequestDescription:
    """GET /{media_id}: answers with a URL that lives five minutes; ids of inbound media work for 7 days
    (2.11)."""
    account = _settings(settings)
    path = f"{quote(ref, safe='')}?phone_number_id={quote(account.phone_number_id, safe='')}"
    return RequestDescription(method="GET", url=_graph(env, account, path), headers=_headers(account))


_MEDIA_LOCATION = msgspec.json.Decoder(MediaLocation)


def read_media_lookup(response: ResponseFacts) -> MediaLocation | Verdict:
    """Where the bytes are, or why not."""
    if response.status == 200:
        try:
            return _MEDIA_LOCATION.decode(response.body)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            pass
    return classify(response)


def render_media_download(url: str, settings: Mapping[str, Any]) -> RequestDescription:
    """GET of a looked-up URL; 401 or 404 means it has expired: look it up again."""
    account = _settings(settings)
    return RequestDescription(
        method="GET", url=url, headers={"Authorization": f"Bearer {account.access_token}"}
    )


def render_media_upload(
    mime_type: str, filename: str, settings: Mapping[str, Any], env: ProviderEnv
) -> UploadDescription:
    """POST /{phone_number_id}/media; the id lasts 30 days (2.11)."""
    account = _settings(settings)
    return UploadDescription(
        url=_graph(env, account, f"{quote(account.phone_number_id, safe='')}/media"),
        headers={"Authorization": f"Bearer {account.access_token}"},
        fields=(("messaging_product", "whatsapp"), ("type", mime_type)),
        filename=filename,
        mime_type=mime_type,
    )


class _UploadAnswer(_In):
    id: str | int | None = None


_UPLOAD_ANSWER = msgspec.json.Decoder(_UploadAnswer)


def read_media_upload(response: ResponseFacts) -> Uploaded | Verdict:
    """The file's id, or why not."""
    if response.status == 200:
        with contextlib.suppress(msgspec.DecodeError, UnicodeError, RecursionError):
            id = _UPLOAD_ANSWER.decode(response.body).id
            if id:
                return Uploaded(str(id))
    return classify(response)


# Answers we judge.


class _SentContact(_In):
    wa_id: str | None = None
    user_id: str | None = None


class _SentMessage(_In):
    id: str = ""


class _GraphError(_In):
    code: int | str | None = None
    error_subcode: int | str | None = None
    message: str | None = None
    is_transient: bool | None = None
    error_user_msg: str | None = None
    error_data: _ErrorData | str | None = None
    fbtrace_id: str | None = None


class _SendAnswer(_In):
    messages: list[_SentMessage] = []
    contacts: list[_SentContact] = []
    error: _GraphError | None = None


_SEND_ANSWER = msgspec.json.Decoder(_SendAnswer)

_OPTED_OUT = "131050"
_HOUR = 3600.0

# code -> (seconds to wait when the answer does not say, whose bucket); table 2.9 row T, 1.4
_THROTTLES: Final[dict[str, tuple[float, str]]] = {
    "4": (60, "account"),
    "17": (60, "account"),
    "32": (60, "account"),
    "613": (60, "account"),
    "80007": (60, "account"),
    "130429": (5, "account"),
    "131056": (6, "recipient"),
    "131048": (4 * _HOUR, "account"),
    "131064": (_HOUR, "account"),
    "133016": (_HOUR, "account"),
}
# code -> (seconds at least, tries at most)
_RETRIES: Final[dict[str, tuple[float | None, int | None]]] = {
    "1": (None, None),
    "2": (None, 2),  # also what Meta answers when the user blocked the business
    "131000": (None, None),
    "131016": (None, None),
    "131053": (None, 2),
    "131057": (300, None),
}
_AUTH: Final = frozenset(
    {"0", "3", "10", "190", "368", "131005", "131031", "131037", "131042", "131044", "131045"}
    | {str(code) for code in range(200, 300)}
)
_PERMANENT: Final = frozenset(
    str(code)
    for code in (
        100,
        131008,
        131009,
        131021,
        131026,
        131030,
        131049,
        131050,
        131051,
        131052,
        131062,
        131063,
        130472,
        130497,
        132000,
        132001,
        132005,
        132007,
        132008,
        132012,
        132015,
        132016,
        132068,
        132069,
        135000,
        137000,
    )
)


def _retry_after(response: ResponseFacts) -> float | None:
    """Seconds; the header holds seconds or an HTTP date, which counts from the answer's own Date so that our
    clock does not matter."""
    value = response.header("Retry-After")
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit() and len(value) < 10:
        return float(value)
    try:
        until = parsedate_to_datetime(value)
    except ValueError:
        return None
    now = response.received_at.timestamp() if response.received_at else time.time()
    if (date := response.header("Date")) is not None:
        with contextlib.suppress(ValueError):
            now = parsedate_to_datetime(date).timestamp()
    if until.tzinfo is None:
        until = until.replace(tzinfo=UTC)
    return max(0.0, until.timestamp() - now)


class _Usage(_In):
    estimated_time_to_regain_access: float | None = None


_USAGE = msgspec.json.Decoder(dict[str, list[_Usage]])


def _regain_access(response: ResponseFacts) -> float | None:
    """Seconds until X-Business-Use-Case-Usage says that calls are allowed again (it speaks of minutes)."""
    value = response.header("X-Business-Use-Case-Usage")
    if value is None:
        return None
    try:
        usages = _USAGE.decode(value)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    minutes = [u.estimated_time_to_regain_access or 0 for items in usages.values() for u in items]
    return max(minutes, default=0) * 60 or None


def classify(response: ResponseFacts) -> Verdict:
    """Error code first, then is_transient, then HTTP status (1.4, 2.9).

    An answer without a readable error that is not plainly a refusal (4xx) may hide an accepted message:
    Unknown.
    """
    try:
        answer = _SEND_ANSWER.decode(response.body)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return _untyped(response)
    error = answer.error
    if error is not None and (error.code is not None or error.message is not None):
        return _by_code(error, response)
    if 200 <= response.status < 300:
        if answer.messages and answer.messages[0].id:
            contact = answer.contacts[0] if answer.contacts else _SentContact()
            return Accepted(answer.messages[0].id, _identities(contact.wa_id, contact.user_id))
        return Unknown(f"{response.status} without a message id")
    return _untyped(response)


def _untyped(response: ResponseFacts) -> Verdict:
    status = response.status
    code, reason = f"http_{status}", f"HTTP {status} without a readable error"
    if status == 429:
        wait = _retry_after(response)
        return Throttled(wait if wait is not None else 60.0, code, reason)
    if status in (401, 403):
        return AuthBroken(code, reason)
    if 400 <= status < 500 and status != 408:
        return Permanent(code, reason)
    return Unknown(reason)


def _by_code(error: _GraphError, response: ResponseFacts) -> Verdict:
    code = str(error.code) if error.code is not None else ""
    data = error.error_data
    details = data if isinstance(data, str) else data.details if data else None
    reason = ": ".join(
        dict.fromkeys(part for part in (error.message, details or error.error_user_msg) if part)
    )
    reason = (reason or f"Error {code}")[:1000]
    wait = _retry_after(response)
    if code == "131047":
        return WindowClosed(code, reason)
    if code in _THROTTLES:
        default, scope = _THROTTLES[code]
        if wait is None:
            wait = _regain_access(response)
        return Throttled(
            wait if wait is not None else default,
            code,
            reason,
            "recipient" if scope == "recipient" else "account",
        )
    if code in _AUTH:
        return AuthBroken(code, reason)
    if code in _PERMANENT:
        return Permanent(code, reason, opted_out=code == _OPTED_OUT)
    if code in _RETRIES:
        least, tries = _RETRIES[code]
        return Retryable(code, reason, wait if wait is not None else least, tries)
    status = response.status
    if status == 429:
        return Throttled(wait if wait is not None else 60.0, code, reason)
    if error.is_transient:
        return Retryable(code, reason, wait)
    if status in (401, 403):
        return AuthBroken(code, reason)
    if status >= 500:
        return Retryable(code, reason, wait)
    return Permanent(code, reason)


# The adapter.


class WhatsAppCloud:
    """The functions above as a `ChannelAdapter`."""

    type = "WHATSAPP_CLOUD"
    webhook_path = "whatsapp-cloud-webhook"
    limits = channel_limits.WHATSAPP_CLOUD
    media_hosts = ("fbsbx.com", "fbcdn.net", "whatsapp.net", "facebook.com")
    stale_media_codes = frozenset({"100", "131009", "131053"})
    capabilities = channel_limits.Capabilities(
        send_types=frozenset(
            [
                "text",
                "image",
                "video",
                "audio",
                "document",
                "sticker",
                "location",
                "contact",
                "reaction",
                "template",
            ]
        ),
        buttons=True,
        lists=True,
        link_button=True,
        templates=True,
        reply_quoting=True,
        reactions=True,
        typing=True,
        mark_read=True,
        delivered_receipt=True,
        read_receipt=True,
        business_may_start=False,
    )

    def verify(self, headers: Mapping[str, str], body: bytes, secrets: Sequence[str]) -> bool:
        """X-Hub-Signature-256; a request that carries it twice is refused."""
        found = [value for name, value in headers.items() if name.lower() == "x-hub-signature-256"]
        return len(found) == 1 and signing.verify_meta(found[0], body, secrets)

    def handshake(self, query: Mapping[str, str], verify_tokens: Sequence[str]) -> str | None:
        """Meta's GET: the challenge comes back as it is (1.1)."""
        challenge = query.get("hub.challenge")
        if query.get("hub.mode") != "subscribe" or not challenge or len(challenge) > 256:
            return None
        return challenge if signing.tokens_match(query.get("hub.verify_token"), verify_tokens) else None

    parse = staticmethod(parse)
    render = staticmethod(render)
    classify = staticmethod(classify)
    render_read_mark = staticmethod(render_read_mark)
    render_media_lookup = staticmethod(render_media_lookup)
    read_media_lookup = staticmethod(read_media_lookup)
    render_media_download = staticmethod(render_media_download)
    render_media_upload = staticmethod(render_media_upload)
    read_media_upload = staticmethod(read_media_upload)
