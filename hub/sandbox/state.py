"""What the provider remembers: accounts, customers, their threads, templates, media; rebuilt from the files
on start."""

from __future__ import annotations

import asyncio
import base64
import secrets
from collections import deque
from pathlib import Path
from typing import Any

import msgspec

from hub.sandbox.clock import VirtualClock, iso
from hub.sandbox.config import Account, SandboxConfig
from hub.sandbox.journal import (
    AccountSet,
    Acked,
    Born,
    Journal,
    Marked,
    Media,
    MediaSet,
    Moved,
    PersonaSet,
    Record,
    Said,
    Sent,
    Template,
    TemplateSet,
    read_records,
)
from hub.sandbox.personas import Persona, stranger

THREAD_MESSAGES = 5_000
"""Messages of one customer kept in memory; a person scrolls no further, the files keep all."""
ALL_MESSAGES = 100_000
"""Messages of all customers kept in memory: about 150 MB at 1.5 kB each."""
MAX_PERSONAS = 100_000
LIVE_BACKLOG = 512
"""Frames a phone page may be behind before it is told to start afresh."""
RANK = {"sent": 1, "delivered": 2, "read": 3}
ERRORS = {
    131026: "Message undeliverable",
    131042: "Business eligibility payment issue",
    131047: "Re-engagement message",
    131049: "This message was not delivered to maintain healthy ecosystem engagement.",
    131050: "User has stopped marketing messages",
    131053: "Media upload error",
}


class Message(msgspec.Struct, kw_only=True):
    """A message as the phone page gets it; docs/sandbox.md section 4."""

    n: int
    id: str
    account: str
    persona: str
    sender: str = msgspec.field(name="from")
    type: str
    content: str
    message: dict[str, Any]
    reply_to: str | None = None
    at: str
    state: str
    state_at: str
    attempts: int = 0
    error: dict[str, Any] | None = None
    reactions: list[dict[str, str]] = []
    edited: bool = False
    deleted: bool = False
    media_url: str | None = None


class Listener:
    """A phone page's frames, waiting to be written."""

    def __init__(self) -> None:
        self.frames: asyncio.Queue[bytes] = asyncio.Queue(LIVE_BACKLOG)
        self.overflowed = asyncio.Event()

    def offer(self, frame: bytes) -> None:
        """Never waits; a page that is too far behind is marked to be closed."""
        try:
            self.frames.put_nowait(frame)
        except asyncio.QueueFull:
            self.overflowed.set()


_KINDS = ("image", "video", "audio", "voice", "document", "sticker")
_ENCODER = msgspec.json.Encoder()


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _part(message: dict[str, Any], name: str) -> dict[str, Any]:
    value = message.get(name)
    return value if isinstance(value, dict) else {}


def content_of(message: dict[str, Any]) -> str:
    """What a person reads in a message of either direction; "" when it has no words."""
    kind = _text(message.get("type"))
    part = _part(message, kind)
    if kind == "text":
        return _text(part.get("body"))
    if kind in _KINDS:
        return _text(part.get("caption"))
    if kind == "location":
        return _text(part.get("name")) or f"{part.get('latitude')},{part.get('longitude')}"
    if kind == "contacts":
        cards = message.get("contacts")
        names = [_part(c, "name") for c in cards if isinstance(c, dict)] if isinstance(cards, list) else []
        return ", ".join(_text(n.get("formatted_name")) for n in names)
    if kind == "button":
        return _text(part.get("text"))
    if kind == "interactive":
        for reply in ("button_reply", "list_reply"):
            if reply in part:
                return _text(_part(part, reply).get("title"))
        return _text(_part(part, "body").get("text"))
    if kind == "template":
        return _text(part.get("text"))
    if kind == "reaction":
        return _text(part.get("emoji"))
    return _text(part.get("body")) or _text(part.get("text"))


def template_text(template: Template, body: dict[str, Any]) -> tuple[str, list[dict[str, Any]]]:
    """(text with the send's parameters filled in, quick-reply buttons) of a template message."""
    values: dict[str, dict[str, str]] = {}
    payloads: dict[str, str] = {}
    for component in _items(body.get("components")):
        if not isinstance(component, dict):
            continue
        parameters = [p for p in _items(component.get("parameters")) if isinstance(p, dict)]
        kind = _text(component.get("type")).upper()
        if kind == "BUTTON":
            payload = next((_text(p.get("payload")) for p in parameters if p.get("payload")), "")
            payloads[str(component.get("index", "0"))] = payload
        else:
            values[kind] = {
                _text(p.get("parameter_name")) or str(i): _text(p.get("text"))
                for i, p in enumerate(parameters, 1)
            }
    lines: list[str] = []
    buttons: list[dict[str, Any]] = []
    for component in template.components:
        kind = _text(component.get("type")).upper()
        if kind in ("HEADER", "BODY", "FOOTER"):
            text = _text(component.get("text"))
            for name, value in values.get(kind, {}).items():
                text = text.replace("{{" + name + "}}", value)
            if text:
                lines.append(text)
        elif kind == "BUTTONS":
            for index, button in enumerate(_items(component.get("buttons"))):
                if isinstance(button, dict) and _text(button.get("type")).upper() == "QUICK_REPLY":
                    text = _text(button.get("text"))
                    buttons.append(
                        {"index": index, "text": text, "payload": payloads.get(str(index)) or text}
                    )
    return "\n".join(lines), buttons


def _starting_templates(waba_id: str) -> list[Template]:
    def template(serial: str, name: str, language: str, text: str, *more: dict[str, Any]) -> Template:
        body: dict[str, Any] = {"type": "BODY", "text": text}
        if "{{" in text:
            body["example"] = {"body_text": [["Layla", "1042"]]}
        return Template(
            id=f"{waba_id}{serial}",
            waba_id=waba_id,
            name=name,
            language=language,
            category="UTILITY",
            components=[body, *more],
            status="APPROVED",
            decided_at=0,
        )

    replies = {
        "type": "BUTTONS",
        "buttons": [{"type": "QUICK_REPLY", "text": "Thanks"}, {"type": "QUICK_REPLY", "text": "Call me"}],
    }
    return [
        template(
            "01",
            "hello_world",
            "en_US",
            "Welcome and congratulations!! This message shows that you can send.",
        ),
        template("02", "order_update", "en", "Hello {{1}}, your order {{2}} is on its way.", replies),
        template("03", "order_update", "ar", "مرحبًا {{1}}، طلبك رقم {{2}} في الطريق إليك."),
    ]


class State:
    """The provider's memory. Changes go to the journal first or at the same time; reads come from here."""

    def __init__(self, config: SandboxConfig, clock: VirtualClock) -> None:
        self.config = config
        self.clock = clock
        self.enforce_window = config.enforce_window
        folder = config.folder
        self.media_folder: Path = folder / "media"
        self.media_folder.mkdir(parents=True, exist_ok=True)
        self.ledger_path = folder / "ledger.jsonl"
        self.journal_path = folder / "journal.jsonl"
        sends = read_records(self.ledger_path)
        rest = read_records(self.journal_path)
        self.ledger = Journal(self.ledger_path)
        self.journal = Journal(self.journal_path)
        self.listeners: dict[str, set[Listener]] = {}
        self.unsettled: list[Said | Moved] = []
        """Found on start: happened, and the hub had not answered 200."""
        self.unfinished: list[Sent] = []
        """Found on start: accepted, and receipts are still due."""
        self._clear()
        self._rebuild(sends, rest)

    def _clear(self) -> None:
        self.n = 0
        self.sends = 0
        self.inbound = 0
        self.nonce = ""
        self.born = 0.0
        self.accounts: dict[str, Account] = {}
        self.personas: dict[str, Persona] = {}
        self._by_address: dict[str, str] = {}
        self.messages: dict[str, Message] = {}
        self.threads: dict[str, deque[Message]] = {}
        self._order: deque[str] = deque()
        self.seen: set[str] = set()
        self.sent: dict[str, Sent] = {}
        self.reached: dict[str, set[str]] = {}
        self.last_inbound: dict[tuple[str, str], float] = {}
        self.client_refs: dict[str, str] = {}
        self.templates: dict[str, Template] = {}
        self.media: dict[str, Media] = {}

    def _bear(self) -> None:
        self.nonce, self.born = secrets.token_hex(4), self.clock.now()
        self.journal.note(Born(self.born, self.nonce))

    def _rebuild(self, sends: list[Record], rest: list[Record]) -> None:
        for account in self.config.accounts:
            self._put_account(account)
        for persona in self.config.personas:
            self._put_persona(persona)
        happened: list[Sent | Said] = [r for r in sends if isinstance(r, Sent)]
        moves: list[Moved] = []
        marks: list[Marked] = []
        acked: set[str] = set()
        for record in rest:
            match record:
                case Born():
                    self.born, self.nonce = record.at, record.nonce
                case AccountSet():
                    self._put_account(record.account)
                case PersonaSet():
                    self._put_persona(record.persona)
                case TemplateSet():
                    self._put_template(record.template, deleted=record.deleted)
                case MediaSet():
                    self._put_media(record.media, deleted=record.deleted)
                case Said():
                    happened.append(record)
                case Moved():
                    moves.append(record)
                case Marked():
                    marks.append(record)
                case Acked():
                    acked.update(record.keys)
                case Sent():
                    raise ValueError("journal.jsonl holds a line of the ledger")
        happened.sort(key=lambda r: r.n)
        for move in moves:
            self.reached.setdefault(move.wamid, set()).add(move.status)
        for event in happened:
            self.n = max(self.n, event.n)
            if isinstance(event, Sent):
                self.apply_sent(event)
                if not self.reached.get(event.wamid, set()) & {"read", "failed"}:
                    self.unfinished.append(event)
            else:
                message = self.apply_said(event)
                if f"m:{event.id}" in acked:
                    if message is not None:
                        message.state = "delivered"
                else:
                    self.unsettled.append(event)
        for move in moves:
            self.apply_moved(move)
            if f"s:{move.wamid}:{move.status}" not in acked:
                self.unsettled.append(move)
        for mark in marks:
            self.apply_marked(mark)

    def begin(self) -> None:
        """Writes the first line of a new folder; needs the running loop, which the constructor does not
        have."""
        if not self.nonce:
            self._bear()

    def _put_account(self, account: Account) -> None:
        self.accounts[account.phone_number_id] = account
        for template in _starting_templates(account.waba_id):
            self.templates.setdefault(template.id, template)

    def _put_persona(self, persona: Persona) -> None:
        self.personas[persona.id] = persona
        for address in (persona.phone, persona.user_id):
            if address:
                self._by_address[address] = persona.id

    def _put_template(self, template: Template, *, deleted: bool) -> None:
        if deleted:
            self.templates.pop(template.id, None)
        else:
            self.templates[template.id] = template

    def _put_media(self, media: Media, *, deleted: bool) -> None:
        if deleted:
            self.media.pop(media.id, None)
        else:
            self.media[media.id] = media

    def set_account(self, account: Account) -> None:
        """Adds or replaces."""
        self._put_account(account)
        self.journal.note(AccountSet(account))

    def set_persona(self, persona: Persona) -> None:
        """Adds or replaces."""
        if persona.id not in self.personas and len(self.personas) >= MAX_PERSONAS:
            raise ValueError(f"No more than {MAX_PERSONAS} personas")
        self._put_persona(persona)
        self.journal.note(PersonaSet(persona))

    def set_template(self, template: Template, *, deleted: bool = False) -> None:
        """Adds, replaces or deletes."""
        self._put_template(template, deleted=deleted)
        self.journal.note(TemplateSet(msgspec.structs.replace(template), deleted))

    async def set_media(self, media: Media, data: bytes | None) -> None:
        """Stores bytes, or deletes them when `data` is None."""
        path = self.media_folder / media.id
        if data is None:
            await asyncio.to_thread(path.unlink, missing_ok=True)
        else:
            await asyncio.to_thread(path.write_bytes, data)
        self._put_media(media, deleted=data is None)
        self.journal.note(MediaSet(media, data is None))

    def find_persona(self, address: str) -> Persona | None:
        """By id, phone or user id; an unknown number or user id becomes a stranger. None for anything
        else."""
        known = self.personas.get(address) or self.personas.get(self._by_address.get(address, ""))
        if known is not None:
            return known
        made = stranger(address)
        if made is not None:
            self.set_persona(made)
        return made

    def next_n(self) -> int:
        """The number of the next message, counted over everything."""
        self.n += 1
        return self.n

    def wamid(self, n: int) -> str:
        """WhatsApp's form of id; never the same in two folders, so that a reset cannot look like a repetition
        to the hub."""
        return "wamid." + base64.b64encode(f"HUB\x10{self.nonce}:{n}".encode()).decode()

    def _remember(self, message: Message) -> None:
        thread = self.threads.setdefault(message.persona, deque())
        if len(thread) >= THREAD_MESSAGES:
            self._forget(thread[0].id)
        while len(self._order) >= ALL_MESSAGES:
            self._forget(self._order[0])
        thread.append(message)
        self._order.append(message.id)
        self.messages[message.id] = message

    def _forget(self, message_id: str) -> None:
        if self._order and self._order[0] == message_id:
            self._order.popleft()
        message = self.messages.pop(message_id, None)
        if message is not None:
            self.seen.discard(message_id)
            thread = self.threads[message.persona]
            if thread and thread[0].id == message_id:
                thread.popleft()

    def _media_url(self, message: dict[str, Any]) -> str | None:
        for kind in _KINDS:
            part = _part(message, kind)
            if part.get("id"):
                return f"/_ctl/media/{part['id']}"
            if part.get("link"):
                return str(part["link"])
        return None

    def apply_sent(self, sent: Sent) -> Message | None:
        """An accepted send enters the customer's thread; a reaction changes the message it names."""
        self.sends += 1
        while len(self.sent) >= ALL_MESSAGES:
            oldest = next(iter(self.sent))
            del self.sent[oldest]
            self.reached.pop(oldest, None)
        self.sent[sent.wamid] = sent
        if sent.type == "reaction":
            part = _part(sent.body, "reaction")
            self._react(_text(part.get("message_id")), "business", _text(part.get("emoji")))
            return None
        shown = {"type": sent.type, sent.type: sent.body.get(sent.type)}
        if sent.type == "template":
            shown["template"] = self._shown_template(sent)
        message = Message(
            n=sent.n,
            id=sent.wamid,
            account=sent.account,
            persona=sent.persona,
            sender="business",
            type=sent.type,
            content=content_of(shown),
            message=shown,
            reply_to=_part(sent.body, "context").get("message_id"),
            at=iso(sent.at),
            state="sent",
            state_at=iso(sent.at),
            media_url=self._media_url(shown),
        )
        self._remember(message)
        return message

    def _shown_template(self, sent: Sent) -> dict[str, Any]:
        part = _part(sent.body, "template")
        account = self.accounts.get(sent.account)
        language = _text(_part(part, "language").get("code"))
        template = self.find_template(account.waba_id if account else "", _text(part.get("name")), language)
        text, buttons = template_text(template, part) if template else (_text(part.get("name")), [])
        return {"name": part.get("name"), "text": text, "buttons": buttons}

    def find_template(self, waba_id: str, name: str, language: str) -> Template | None:
        """The template of that name in that language."""
        return next(
            (
                t
                for t in self.templates.values()
                if t.waba_id == waba_id and t.name == name and t.language == language
            ),
            None,
        )

    def apply_said(self, said: Said) -> Message | None:
        """A customer's message enters their thread; reactions, edits and revokes change another message and
        give None."""
        self.inbound += 1
        kind = _text(said.message.get("type"))
        if kind != "system":
            self.last_inbound[said.account, said.persona] = said.at
        if said.client_ref:
            if len(self.client_refs) >= ALL_MESSAGES:
                self.client_refs.pop(next(iter(self.client_refs)))
            self.client_refs[said.client_ref] = said.id
        if kind == "reaction":
            part = _part(said.message, "reaction")
            self._react(_text(part.get("message_id")), "me", _text(part.get("emoji")))
            return None
        if kind == "edit":
            part = _part(said.message, "edit")
            target = self.messages.get(_text(part.get("original_message_id")))
            if target is not None:
                target.message = _part(part, "message")
                target.content, target.edited = content_of(target.message), True
                self.tell(target.persona, "update", message=target)
            return None
        if kind == "revoke":
            part = _part(said.message, "revoke")
            target = self.messages.get(_text(part.get("original_message_id")))
            if target is not None:
                target.message, target.content, target.deleted = {"type": target.type}, "", True
                target.media_url = None
                self.tell(target.persona, "update", message=target)
            return None
        message = Message(
            n=said.n,
            id=said.id,
            account=said.account,
            persona=said.persona,
            sender="me",
            type=kind,
            content=content_of(said.message),
            message=said.message,
            reply_to=_part(said.message, "context").get("id"),
            at=iso(said.at),
            state="stored",
            state_at=iso(said.at),
            media_url=self._media_url(said.message),
        )
        self._remember(message)
        return message

    def _react(self, target_id: str, by: str, emoji: str) -> None:
        target = self.messages.get(target_id)
        if target is None:
            return
        target.reactions = [r for r in target.reactions if r["by"] != by]
        if emoji:
            target.reactions.append({"by": by, "emoji": emoji})
        self.tell(target.persona, "update", message=target)

    def apply_moved(self, moved: Moved) -> Message | None:
        """Raises a business message's state, never lowers it."""
        message = self.messages.get(moved.wamid)
        if message is None or message.sender != "business":
            return None
        if moved.status == "failed":
            if message.state != "sent":
                return None
            message.error = {"code": moved.code, "title": ERRORS.get(moved.code or 0, "Message failed")}
        elif RANK.get(moved.status, 0) <= RANK.get(message.state, 9):
            return None
        message.state, message.state_at = moved.status, iso(moved.at)
        return message

    def apply_marked(self, marked: Marked) -> None:
        """The hub read this customer message and all before it."""
        newest = self.messages.get(marked.id)
        if newest is None:
            return
        for message in self.threads.get(newest.persona, ()):
            if (
                message.sender == "me"
                and message.account == newest.account
                and message.n <= newest.n
                and message.state != "read"
            ):
                message.state, message.state_at = "read", iso(marked.at)
                self.tell_state(message)

    def window_open(self, account: str, persona: str) -> bool:
        """Whether free-form messages are allowed: 24 h from the customer's last message."""
        if not self.enforce_window:
            return True
        last = self.last_inbound.get((account, persona), self.born)
        return self.clock.now() - last < 24 * 3600

    def tell(self, persona: str, kind: str, **fields: Any) -> None:
        """A frame to every phone page of this customer."""
        listeners = self.listeners.get(persona)
        if listeners:
            frame = _ENCODER.encode({"type": kind, **fields})
            for listener in listeners:
                listener.offer(frame)

    def tell_everyone(self, kind: str, **fields: Any) -> None:
        """A frame to every phone page."""
        for persona in list(self.listeners):
            self.tell(persona, kind, **fields)

    def tell_state(self, message: Message) -> None:
        """The state frame of a message."""
        self.tell(
            message.persona,
            "state",
            id=message.id,
            account=message.account,
            state=message.state,
            state_at=message.state_at,
            attempts=message.attempts,
            error=message.error,
        )

    def unread(self, persona: str, account: str) -> int:
        """Business messages this customer has not seen."""
        return sum(
            m.sender == "business"
            and m.account == account
            and m.state in ("sent", "delivered")
            and m.id not in self.seen
            for m in self.threads.get(persona, ())
        )

    async def reset(self) -> None:
        """Forgets messages, ledger, media and templates. Accounts and described personas stay, strangers
        go."""
        accounts = list(self.accounts.values())
        personas = [p for p in self.personas.values() if not p.stranger]
        await self.ledger.empty()
        await self.journal.empty()
        for media_id in self.media:
            await asyncio.to_thread((self.media_folder / media_id).unlink, missing_ok=True)
        self._clear()
        self._bear()
        for account in accounts:
            self.set_account(account)
        for persona in personas:
            self.set_persona(persona)
        await self.journal.flush()

    async def close(self) -> None:
        """Flushes the files."""
        await self.ledger.close()
        await self.journal.close()
