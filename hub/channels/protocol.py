"""What a channel adapter is: the structs that cross it, and the recipe for a new one.

Adapters are sans-IO. They turn bytes into facts and facts into request descriptions; the hub's ingress, the
workers' one sender and the sandbox do the reading and writing. So one adapter serves the product, its tests
and the simulated provider alike.

Recipe for a new channel
------------------------
1. `hub/channels/<name>.py`: private msgspec structs for the provider's bodies (unknown fields ignored,
   decoders built at import) and a class with the methods of `ChannelAdapter`. Import only this module,
   `signing` and `limits`; never the database, never a client.
2. Its numbers (text length, buttons, media sizes, rate) in `limits.py`, its capabilities in the class.
3. One line in `registry.py`.
4. `tests/payloads/<name>/`: one body per provider event with the expected normal event beside it. The
   conformance tests pick them up.
5. The provider's half in `hub/sandbox/`, driven by a third-party client library in the tests, so that we do
   not check ourselves only.

Promises every adapter keeps: `verify` sees raw bytes and compares in constant time; `parse` is pure, raises
`msgspec.DecodeError` only for what is not JSON at all, and turns shapes it does not know into `UnknownEvent`,
so that one odd element never costs its neighbours; no string it returns holds U+0000; `classify` always
answers, and answers `Unknown` whenever the provider may have accepted the message.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, Protocol

import msgspec

from hub.channels.limits import Capabilities, ChannelLimits

Identity = tuple[str, str]
"""(scheme, value), for example ("wa_id", "201001383533") or ("wa_bsuid", "EG.3141")."""

Kind = Literal[
    "message",
    "echo",
    "reaction",
    "edit",
    "delete",
    "postback",
    "referral",
    "optin",
    "identity_change",
    "template_status",
    "account",
]
Status = Literal["SENT", "DELIVERED", "READ", "FAILED"]


class Inbound(msgspec.Struct, frozen=True, kw_only=True):
    """One normal event from a provider (spec: channels 0.3), already in the words of our tables.

    `optin` says in `metadata.optin.allowed` whether the customer takes marketing.
    `message`, `echo` and `reaction` are made by a person; `edit`, `delete` and `reaction` name the message
    they change in `target_id`. `template_status` and `account` carry the owner (for WhatsApp the WABA id) in
    `account_key` when the provider names no number.
    """

    account_key: str
    """The provider's name for the receiving account: WhatsApp's phone_number_id."""
    kind: Kind
    dedupe_key: str
    """Equal for every delivery of the same event, different for different events of one account."""
    provider_message_id: str | None = None
    occurred_at: datetime | None = None
    """Provider's time, aware, unclamped; None when it gave none or nonsense."""
    identities: tuple[Identity, ...] = ()
    """Whom the customer is known as, strongest first; never empty for message, echo, reaction, edit and
    delete."""
    name: str | None = None
    username: str | None = None
    phone_e164: str | None = None
    """With a leading +; None for customers who hide their number."""
    conversation_key: str = ""
    """Groups a customer's events for ordering; equal to the first identity's value."""
    message_type: str = "text"
    """text image video audio document location contact sticker reaction button_reply list_reply referral
    unsupported."""
    content: str = ""
    """What a person reads: text, caption, button title, place. The new text of an edit, the emoji of a
    reaction ("" removes it)."""
    metadata: dict[str, Any] = msgspec.field(default_factory=dict)
    """JSON, keys only when present: media, location, contacts, button, referral, product, order, forwarded,
    flow, errors …"""
    reply_to: str | None = None
    """Provider id of the quoted message."""
    target_id: str | None = None
    """Provider id of the message that a reaction, edit or delete is about."""


class StatusUpdate(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a message we sent. Arrives in any order, more than once, and possibly before the send's
    own answer."""

    account_key: str
    provider_message_id: str
    dedupe_key: str
    status: Status
    occurred_at: datetime | None = None
    correlator: str | None = None
    """What we gave as `Outbound.correlator`; settles sends whose answer was lost."""
    recipient: tuple[Identity, ...] = ()
    failure_code: str | None = None
    failure_reason: str | None = None
    opted_out: bool = False
    """The failure says that the customer wants no more marketing."""
    metadata: dict[str, Any] = msgspec.field(default_factory=dict)


class UnknownEvent(msgspec.Struct, frozen=True, kw_only=True):
    """Something signed that we cannot apply. `keep` says whether an operator should see it (True) or counting
    it is enough."""

    reason: str
    """Short and without customer data: `unknown field account_review`, `message: Expected str, got int`."""
    account_key: str | None = None
    raw: bytes = b""
    """The smallest JSON element concerned; b"" means the whole body."""
    keep: bool = True


class Media(msgspec.Struct, frozen=True, kw_only=True):
    """Exactly one of id (already uploaded to the provider) and link (public https URL) is set."""

    kind: Literal["image", "video", "audio", "document", "sticker"]
    id: str | None = None
    link: str | None = None
    filename: str | None = None
    voice: bool = False


class Button(msgspec.Struct, frozen=True, kw_only=True):
    """`title` is what the customer sees, `id` comes back when they tap it."""

    id: str
    title: str


class MenuRow(msgspec.Struct, frozen=True, kw_only=True):
    """One choice of a list."""

    id: str
    title: str
    description: str | None = None


class MenuSection(msgspec.Struct, frozen=True, kw_only=True):
    """Rows under one heading; a single section may have no title."""

    rows: tuple[MenuRow, ...]
    title: str | None = None


class Menu(msgspec.Struct, frozen=True, kw_only=True):
    """A list message; `button` opens it."""

    button: str
    sections: tuple[MenuSection, ...]


class LinkButton(msgspec.Struct, frozen=True, kw_only=True):
    """A button that opens a URL."""

    text: str
    url: str


class Location(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Degrees, WGS 84."""

    latitude: float
    longitude: float
    name: str | None = None
    address: str | None = None


class Template(msgspec.Struct, frozen=True, kw_only=True):
    """An approved template; `components` are the provider's own (header, body, button parameters), passed as
    they are.

    `variables` is the short form for a text body: values for {{1}}, {{2}} … in order, or by name; used when
    `components` is empty.
    """

    name: str
    language: str = "en_US"
    components: tuple[dict[str, Any], ...] = ()
    variables: tuple[str, ...] | dict[str, str] = ()


class Reaction(msgspec.Struct, frozen=True, kw_only=True):
    """`message_id` is the provider's id; emoji "" takes the reaction back."""

    message_id: str
    emoji: str = ""


class _Extras(msgspec.Struct, frozen=True, kw_only=True):
    """The part of `messages.metadata` that shapes an outgoing message; other keys are ours and ignored
    here."""

    media: tuple[Media, ...] | Media | None = None
    buttons: tuple[Button, ...] = ()
    list: Menu | None = None
    link: LinkButton | None = None
    location: Location | None = None
    contacts: tuple[dict[str, Any], ...] = ()
    reaction: Reaction | None = None
    template: Template | None = None
    header: str | None = None
    footer: str | None = None
    preview_url: bool = True


class Outbound(msgspec.Struct, frozen=True, kw_only=True):
    """One message to send. `to` lists every identity we know; the adapter picks the one its API can
    address."""

    message_id: str
    to: tuple[Identity, ...]
    message_type: str = "text"
    content: str = ""
    correlator: str = ""
    """Returned by the provider in statuses or echoes; by default our message id."""
    reply_to: str | None = None
    """Provider id of the message to quote."""
    media: Media | None = None
    buttons: tuple[Button, ...] = ()
    menu: Menu | None = None
    link: LinkButton | None = None
    location: Location | None = None
    contacts: tuple[dict[str, Any], ...] = ()
    reaction: Reaction | None = None
    template: Template | None = None
    header: str | None = None
    footer: str | None = None
    preview_url: bool = True

    @classmethod
    def from_message(
        cls,
        *,
        message_id: str,
        to: Sequence[Identity],
        message_type: str,
        content: str,
        metadata: Mapping[str, Any] | None = None,
        reply_to: str | None = None,
        correlator: str | None = None,
    ) -> Outbound:
        """From a row of `messages`: metadata keys media, buttons, list, link, location, contacts, reaction,
        template, header, footer, preview_url. Raises `Unrenderable` when one of them has the wrong shape."""
        try:
            extras = msgspec.convert(dict(metadata or {}), _Extras)
        except msgspec.ValidationError as error:
            raise Unrenderable("invalid_metadata", str(error)) from error
        media = extras.media[0] if isinstance(extras.media, tuple) and extras.media else extras.media
        return cls(
            message_id=message_id,
            to=tuple(to),
            message_type=message_type,
            content=content,
            correlator=correlator or message_id,
            reply_to=reply_to,
            media=media if isinstance(media, Media) else None,
            buttons=extras.buttons,
            menu=extras.list,
            link=extras.link,
            location=extras.location,
            contacts=extras.contacts,
            reaction=extras.reaction,
            template=extras.template,
            header=extras.header,
            footer=extras.footer,
            preview_url=extras.preview_url,
        )


class Unrenderable(ValueError):
    """The message can never be sent like this (too long, no addressable identity, missing part): settle as
    FAILED, do not call."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code
        self.reason = reason


class RequestDescription(msgspec.Struct, frozen=True, kw_only=True):
    """A request somebody else performs; headers hold secrets, so never log it."""

    method: str
    url: str
    headers: dict[str, str]
    body: bytes = b""

    def __repr__(self) -> str:
        """Without headers and body: a description ends up in tracebacks."""
        return f"RequestDescription({self.method} {self.url.partition('?')[0]}, {len(self.body)} bytes)"


class UploadDescription(msgspec.Struct, frozen=True, kw_only=True):
    """A file that somebody else posts as a multipart form: `fields` first, then the bytes under
    `file_field`."""

    url: str
    headers: dict[str, str]
    fields: tuple[tuple[str, str], ...]
    filename: str
    mime_type: str
    file_field: str = "file"

    def __repr__(self) -> str:
        """Without headers: a description ends up in tracebacks."""
        return f"UploadDescription({self.url.partition('?')[0]}, {self.mime_type})"


class MediaLocation(msgspec.Struct, frozen=True):
    """Where a provider says that a file is. `sha256` may be hexadecimal or base64, `file_size` a string."""

    url: str
    mime_type: str | None = None
    sha256: str | None = None
    file_size: int | str | None = None


class ResponseFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A complete answer. What never became one (refused, timed out, reset) is the sender's to judge, not the
    adapter's."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    received_at: datetime | None = None
    """For Retry-After dates when the answer has no Date header; None = now."""

    def header(self, name: str) -> str | None:
        """Value by case-insensitive name, also from a plain dict."""
        value = self.headers.get(name)
        if value is None:
            lower = name.lower()
            value = next((v for k, v in self.headers.items() if k.lower() == lower), None)
        return value


class Uploaded(msgspec.Struct, frozen=True, tag="uploaded"):
    """The provider keeps the file under `id`."""

    id: str


class Accepted(msgspec.Struct, frozen=True, tag="accepted"):
    """The provider has it under `id`; `identities` are further names of the recipient that it told us."""

    id: str
    identities: tuple[Identity, ...] = ()


class Throttled(msgspec.Struct, frozen=True, tag="throttled"):
    """Not sent; wait `after_s`, costs no try. `scope` is whose bucket closes: the account's or only this
    recipient's."""

    after_s: float
    code: str = ""
    reason: str = ""
    scope: Literal["account", "recipient"] = "account"


class Retryable(msgspec.Struct, frozen=True, tag="retryable"):
    """Not sent; try again with backoff, not before `after_s`, at most `max_tries` times in all (None = the
    sender's own limit)."""

    code: str = ""
    reason: str = ""
    after_s: float | None = None
    max_tries: int | None = None


class Permanent(msgspec.Struct, frozen=True, tag="permanent"):
    """Not sent and never will be. `opted_out`: the customer stopped marketing; record it on the contact."""

    code: str
    reason: str
    opted_out: bool = False


class WindowClosed(msgspec.Struct, frozen=True, tag="window_closed"):
    """Not sent: free-form text is not allowed now; a template is."""

    code: str = ""
    reason: str = ""


class AuthBroken(msgspec.Struct, frozen=True, tag="auth_broken"):
    """Not sent, and nothing of this account will be until a person repairs token, permission, payment or
    number."""

    code: str = ""
    reason: str = ""


class Unknown(msgspec.Struct, frozen=True, tag="unknown"):
    """It may have been sent: wait for the correlator, never resend by ourselves."""

    reason: str = ""


Verdict = Accepted | Throttled | Retryable | Permanent | WindowClosed | AuthBroken | Unknown


class ProviderEnv(msgspec.Struct, frozen=True, kw_only=True):
    """Where providers live. Operator's settings only: a tenant who chose these hosts could reach our inner
    network."""

    graph_base: str = "https://graph.facebook.com"
    graph_version: str = "v25.0"
    app_secret: str | None = None
    """When set, calls carry `appsecret_proof`."""


class ChannelAdapter(Protocol):
    """A provider, as pure functions. See the module's docstring for the recipe and the promises."""

    @property
    def type(self) -> str:
        """Our channel type, `WHATSAPP_CLOUD`."""

    @property
    def webhook_path(self) -> str:
        """Name under /functions/v1, `whatsapp-cloud-webhook`."""

    @property
    def capabilities(self) -> Capabilities:
        """What the channel can do, for the composer and the rules."""

    @property
    def limits(self) -> ChannelLimits:
        """Its numbers."""

    def verify(self, headers: Mapping[str, str], body: bytes, secrets: Sequence[str]) -> bool:
        """Whether one of `secrets` signed exactly these bytes. No secrets: False."""

    def handshake(self, query: Mapping[str, str], verify_tokens: Sequence[str]) -> str | None:
        """The body to answer a set-up request with, or None for 403."""

    def parse(self, body: bytes) -> list[Inbound | StatusUpdate | UnknownEvent]:
        """Every event of one delivery, in its order. Raises msgspec.DecodeError for what is not JSON."""

    def render(self, outbound: Outbound, settings: Mapping[str, Any], env: ProviderEnv) -> RequestDescription:
        """The request that sends it. `settings` are the account's, decrypted. Raises Unrenderable."""

    def classify(self, response: ResponseFacts) -> Verdict:
        """What a send's answer means."""

    @property
    def media_hosts(self) -> tuple[str, ...]:
        """Domains (with all below them) from which the provider serves files, besides the host of its API."""

    @property
    def stale_media_codes(self) -> frozenset[str]:
        """Codes of a refused send that may mean that an uploaded file's id has expired."""

    def render_media_lookup(
        self, ref: str, settings: Mapping[str, Any], env: ProviderEnv
    ) -> RequestDescription:
        """Asks where the file `ref` of an inbound message is. Raises Unrenderable."""

    def read_media_lookup(self, response: ResponseFacts) -> MediaLocation | Verdict:
        """Where it is, or why not."""

    def render_media_download(self, url: str, settings: Mapping[str, Any]) -> RequestDescription:
        """The request for the bytes at a looked-up address. Raises Unrenderable."""

    def render_media_upload(
        self, mime_type: str, filename: str, settings: Mapping[str, Any], env: ProviderEnv
    ) -> UploadDescription:
        """Gives the provider a file that a message will show. Raises Unrenderable."""

    def read_media_upload(self, response: ResponseFacts) -> Uploaded | Verdict:
        """Its id there, or why not."""
