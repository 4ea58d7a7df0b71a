"""The control API under /_ctl: play the customer, move the clock, break things, look at what happened
(docs/sandbox.md)."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote

import msgspec
from aiohttp import web

from hub.sandbox.clock import iso
from hub.sandbox.config import Account
from hub.sandbox.faults import FaultOrder
from hub.sandbox.graph import MAX_MEDIA, Graph, GraphError, handshake
from hub.sandbox.journal import Sent
from hub.sandbox.personas import Behaviour, Persona, is_phone, is_user_id
from hub.sandbox.provider import Full, Provider
from hub.sandbox.state import LIVE_BACKLOG, Listener, Message

SLOW_READER = 4008
MAX_JSON = 4 * 1024 * 1024
MAX_ADVANCE_S = 400 * 24 * 3600
Json = dict[str, Any]
T = TypeVar("T")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_ENCODER = msgspec.json.Encoder()
_PARTS = {
    "text": "text",
    "image": "image",
    "video": "video",
    "audio": "audio",
    "voice": "voice",
    "document": "document",
    "sticker": "sticker",
    "location": "location",
    "reaction": "reaction",
    "button": "button",
    "interactive": "interactive",
    "order": "order",
    "system": "system",
    "edit": "edit",
    "revoke": "revoke",
}
_BARE = {"request_welcome", "unsupported", "contacts"}


class _Body(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Our own bodies: a typing error is refused instead of ignored."""


class _Inbound(_Body):
    persona: str | Persona
    message: Json
    channel: str = "WHATSAPP_CLOUD"
    account: str | None = None
    client_ref: str | None = None


class _Read(_Body):
    account: str | None = None
    up_to: str | None = None


class _Clock(_Body):
    advance_s: float = 0.0
    frozen: bool | None = None


class _Switches(_Body):
    enforce_window: bool | None = None
    enforce_rates: bool | None = None
    batch_max: int | None = None
    callback_url: str | None = None


class _Subscribe(_Body):
    account: str | None = None


class _PersonaPatch(_Body):
    name: str | None = None
    username: str | msgspec.UnsetType | None = msgspec.UNSET
    behaviour: Json | None = None


def answer(value: Any, status: int = 200) -> web.Response:
    """JSON by msgspec, which knows our structs."""
    return web.Response(status=status, body=_ENCODER.encode(value), content_type="application/json")


class Refusal(Exception):
    """The caller is wrong, or we are too busy; raised from any depth of a handler."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


@web.middleware
async def refusals(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refusals as JSON."""
    try:
        return await handler(request)
    except Refusal as refusal:
        return answer({"error": refusal.code, "message": str(refusal)}, refusal.status)


async def body_of(request: web.Request, kind: type[T]) -> T:
    """The request's JSON as a struct; 400 names the field that does not fit."""
    if request.content_length is not None and request.content_length > MAX_JSON:
        raise Refusal(400, "TOO_LARGE", f"At most {MAX_JSON} bytes")
    raw = await request.read()
    try:
        return msgspec.json.decode(raw or b"{}", type=kind)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise Refusal(400, "BAD_BODY", str(error)) from None


def _limit(request: web.Request, default: int, most: int) -> int:
    try:
        return max(1, min(most, int(request.query.get("limit", default))))
    except ValueError:
        raise Refusal(400, "BAD_QUERY", "limit must be a number") from None


def _number(request: web.Request, name: str) -> int | None:
    value = request.query.get(name)
    if value is None or value == "":
        return None
    try:
        return int(value)
    except ValueError:
        raise Refusal(400, "BAD_QUERY", f"{name} must be a number") from None


def checked_message(message: Json) -> Json:
    """WhatsApp's shape of a customer's message, short forms spelled out; raises ValueError."""
    kind = message.get("type")
    if kind == "text" and isinstance(message.get("text"), str):
        message = {**message, "text": {"body": message["text"]}}
    if not isinstance(kind, str) or kind not in (*_PARTS, *_BARE):
        raise ValueError(f"message.type must be one of {', '.join(sorted((*_PARTS, *_BARE)))}")
    if kind in _PARTS and not isinstance(message.get(kind), dict):
        raise ValueError(f"message.{kind} must be an object")
    part = message.get(kind, {})
    required = {
        "text": ("body",),
        "reaction": ("message_id",),
        "edit": ("original_message_id", "message"),
        "revoke": ("original_message_id",),
        "location": ("latitude", "longitude"),
        "interactive": ("type",),
        "button": ("text",),
        "image": ("id",),
        "video": ("id",),
        "audio": ("id",),
        "voice": ("id",),
        "document": ("id",),
        "sticker": ("id",),
    }
    for name in required.get(kind, ()):
        if part.get(name) in (None, ""):
            raise ValueError(f"message.{kind}.{name} is needed")
    if kind == "text" and not isinstance(part["body"], str):
        raise ValueError("message.text.body must be a string")
    if kind == "contacts" and not (isinstance(message.get("contacts"), list) and message["contacts"]):
        raise ValueError("message.contacts must be a list")
    if kind == "unsupported" and "errors" not in message:
        error = {
            "code": 131051,
            "title": "Message type unknown",
            "message": "Message type unknown",
            "error_data": {"details": "Message type is currently not supported."},
        }
        message = {**message, "errors": [error]}
    return message


class Control:
    """Handlers over one provider."""

    def __init__(self, provider: Provider, graph: Graph, also_reset: Callable[[], None]) -> None:
        self.provider = provider
        self._also_reset = also_reset
        self.state = provider.state
        self.graph = graph

    def routes(self) -> list[web.RouteDef]:
        """Everything under /_ctl."""
        return [
            web.get("/_ctl/phone", self.phone),
            web.patch("/_ctl/phone/{persona}", self.patch_persona),
            web.get("/_ctl/phone/{persona}/messages", self.thread),
            web.get("/_ctl/phone/{persona}/live", self.live),
            web.post("/_ctl/phone/{persona}/read", self.read),
            web.post("/_ctl/inbound", self.inbound),
            web.post("/_ctl/media", self.upload),
            web.get("/_ctl/media/{id}", self.media),
            web.post("/_ctl/accounts", self.add_account),
            web.get("/_ctl/ledger", self.ledger),
            web.get("/_ctl/outbox", self.outbox),
            web.get("/_ctl/deliveries", self.deliveries),
            web.get("/_ctl/state", self.summary),
            web.get("/_ctl/clock", self.clock),
            web.post("/_ctl/clock", self.move_clock),
            web.post("/_ctl/config", self.switch),
            web.post("/_ctl/subscribe", self.subscribe),
            web.get("/_ctl/fault", self.list_faults),
            web.post("/_ctl/fault", self.add_fault),
            web.delete("/_ctl/fault", self.clear_faults),
            web.delete("/_ctl/fault/{id}", self.remove_fault),
            web.post("/_ctl/reset", self.reset),
        ]

    def _account(self, wanted: str | None) -> Account:
        if wanted is None:
            return next(iter(self.state.accounts.values()))
        account = self.state.accounts.get(wanted)
        if account is None:
            raise Refusal(404, "NO_SUCH_ACCOUNT", f"No account {wanted!r}; POST /_ctl/accounts makes one")
        return account

    def _persona(self, request: web.Request) -> Persona:
        persona = self.state.personas.get(unquote(request.match_info["persona"]))
        if persona is None:
            raise Refusal(404, "NO_SUCH_PERSONA", "GET /_ctl/phone lists them")
        return persona

    # The phone.

    async def phone(self, request: web.Request) -> web.Response:
        """Accounts and customers; the newest strangers only, since a load test makes thousands."""
        personas = [p for p in self.state.personas.values() if not p.stranger]
        strangers = [p for p in self.state.personas.values() if p.stranger][-200:]
        listed = []
        for persona in (*personas, *strangers):
            threads = []
            for account in self.state.accounts:
                last = next(
                    (m for m in reversed(self.state.threads.get(persona.id, ())) if m.account == account),
                    None,
                )
                if last is not None:
                    unread = self.state.unread(persona.id, account)
                    threads.append(
                        {"account": account, "unread": unread, "last_message": last, "last_at": last.at}
                    )
            listed.append({**msgspec.to_builtins(persona), "threads": threads})
        accounts = [
            {
                "account": a.phone_number_id,
                "channel": "WHATSAPP_CLOUD",
                "name": a.name,
                "display_phone_number": a.display_phone_number,
            }
            for a in self.state.accounts.values()
        ]
        return answer(
            {
                "now": iso(self.provider.clock.now()),
                "accounts": accounts,
                "personas": listed,
                "hub": self.provider.hub_view(),
            }
        )

    async def patch_persona(self, request: web.Request) -> web.Response:
        """Name, username and single fields of the behaviour."""
        persona = self._persona(request)
        patch = await body_of(request, _PersonaPatch)
        changes: Json = {}
        if patch.name is not None:
            changes["name"] = patch.name
        if patch.username is not msgspec.UNSET:
            changes["username"] = patch.username
        if patch.behaviour is not None:
            merged = {**msgspec.to_builtins(persona.behaviour), **patch.behaviour}
            try:
                changes["behaviour"] = msgspec.convert(merged, Behaviour)
            except msgspec.ValidationError as error:
                raise Refusal(400, "BAD_BODY", f"behaviour: {error}") from None
        changed = msgspec.structs.replace(persona, **changes)
        self.state.set_persona(changed)
        return answer(changed)

    async def thread(self, request: web.Request) -> web.Response:
        """A page of a customer's messages, oldest first."""
        persona = self._persona(request)
        account, before = request.query.get("account"), _number(request, "before")
        limit = _limit(request, 100, 500)
        page: list[Message] = []
        more = False
        for message in reversed(self.state.threads.get(persona.id, ())):
            if (account and message.account != account) or (before is not None and message.n >= before):
                continue
            if len(page) == limit:
                more = True
                break
            page.append(message)
        page.reverse()
        return answer({"messages": page, "has_more": more})

    async def live(self, request: web.Request) -> web.WebSocketResponse:
        """Frames of one customer until the page goes away or falls too far behind."""
        persona = self._persona(request)
        socket = web.WebSocketResponse(heartbeat=20, max_msg_size=4096)
        await socket.prepare(request)
        listener = Listener()
        self.state.listeners.setdefault(persona.id, set()).add(listener)
        listener.offer(_ENCODER.encode({"type": "hello", "persona": persona.id, "n": self.state.n}))
        writer = asyncio.create_task(self._write(socket, listener))
        closer = asyncio.create_task(self._close_when_behind(socket, listener))
        try:
            async for _ in socket:
                pass
        finally:
            remaining = self.state.listeners.get(persona.id, set())
            remaining.discard(listener)
            if not remaining:
                self.state.listeners.pop(persona.id, None)
            for task in (writer, closer):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        return socket

    async def _write(self, socket: web.WebSocketResponse, listener: Listener) -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                await socket.send_str((await listener.frames.get()).decode())

    async def _close_when_behind(self, socket: web.WebSocketResponse, listener: Listener) -> None:
        await listener.overflowed.wait()
        await socket.close(code=SLOW_READER, message=f"{LIVE_BACKLOG} frames behind".encode())

    async def read(self, request: web.Request) -> web.Response:
        """The customer looks at the thread."""
        persona = self._persona(request)
        body = await body_of(request, _Read)
        account = self._account(body.account)
        return answer({"read": self.provider.read(persona, account.phone_number_id, body.up_to)})

    def _speaker(self, given: str | Persona) -> Persona:
        if isinstance(given, Persona):
            phone_fits = given.phone is None or is_phone(given.phone)
            user_fits = given.user_id is None or is_user_id(given.user_id)
            if not (given.phone or given.user_id) or not phone_fits or not user_fits:
                raise Refusal(
                    400, "BAD_PERSONA", "phone (digits) or user_id (CC.letters and digits) is needed"
                )
            if self.state.personas.get(given.id) != given:
                self.state.set_persona(given)
            return given
        persona = self.state.find_persona(given.removeprefix("+"))
        if persona is None:
            raise Refusal(404, "NO_SUCH_PERSONA", f"{given!r} is no persona, phone number or user id")
        return persona

    async def inbound(self, request: web.Request) -> web.Response:
        """A customer says something."""
        body = await body_of(request, _Inbound)
        if body.channel not in ("WHATSAPP_CLOUD", "WHATSAPP_BUSINESS"):
            raise Refusal(400, "NO_SUCH_CHANNEL", "This sandbox plays WHATSAPP_CLOUD")
        account = self._account(body.account)
        if body.client_ref and (known := self.state.client_refs.get(body.client_ref)) is not None:
            shown = self.state.messages.get(known)
            return answer({"id": known, "duplicate": True, "message": shown})
        try:
            message = checked_message(body.message)
            at = self._moment(message)
        except ValueError as error:
            raise Refusal(400, "BAD_MESSAGE", str(error)) from None
        message.pop("timestamp", None)
        persona = self._speaker(body.persona)
        try:
            said, shown = await self.provider.say(
                account.phone_number_id, persona, message, body.client_ref, at
            )
        except Full:
            raise Refusal(503, "BUSY", "Too many webhooks wait for the hub") from None
        return answer({"id": said, "duplicate": False, "message": shown}, 201)

    @staticmethod
    def _moment(message: Json) -> float | None:
        given = message.get("timestamp")
        if given is None:
            return None
        try:
            moment = float(given)
        except (TypeError, ValueError):
            raise ValueError("message.timestamp is epoch seconds") from None
        if not (math.isfinite(moment) and 0 < moment < 4e9):
            raise ValueError("message.timestamp is epoch seconds")
        return moment

    async def upload(self, request: web.Request) -> web.Response:
        """Bytes that a customer will send."""
        if request.content_length is not None and request.content_length > MAX_MEDIA:
            raise Refusal(400, "TOO_LARGE", f"At most {MAX_MEDIA} bytes")
        try:
            data = await request.read()
            if not data:
                raise Refusal(400, "EMPTY", "The body is the file")
            mime_type = request.headers.get("Content-Type", "application/octet-stream")
            media = await self.graph.store_media(data, mime_type, request.query.get("filename"))
        except GraphError as error:
            raise Refusal(400, "TOO_LARGE", str(error)) from None
        return answer(media, 201)

    async def media(self, request: web.Request) -> web.StreamResponse:
        """Stored bytes, for the phone page; never as a document that could run script here."""
        media = self.state.media.get(request.match_info["id"])
        path: Path = self.state.media_folder / (media.id if media else "")
        if media is None or not await asyncio.to_thread(path.is_file):
            raise Refusal(404, "NO_SUCH_MEDIA", "Unknown or deleted")
        headers = {
            "Content-Type": media.mime_type,
            "X-Content-Type-Options": "nosniff",
            "Content-Security-Policy": "sandbox; default-src 'none'",
        }
        return web.FileResponse(path, headers=headers)

    async def add_account(self, request: web.Request) -> web.Response:
        """A further business number."""
        account = await body_of(request, Account)
        if not account.phone_number_id.isdigit() or not account.waba_id.isdigit():
            raise Refusal(400, "BAD_BODY", "phone_number_id and waba_id are digits")
        self.state.set_account(account)
        await self.state.journal.flush()
        return answer(account, 201)

    # What happened.

    async def ledger(self, request: web.Request) -> web.Response:
        """Accepted sends, read from the file: the judge does not trust the process's memory."""
        wanted = {n: request.query.get(n) for n in ("account", "correlator", "persona")}
        after, limit = _number(request, "after") or 0, _limit(request, 1000, 100_000)
        path = self.state.ledger_path

        def scan() -> tuple[list[Json], int]:
            decode = msgspec.json.Decoder(Sent).decode
            found: list[Json] = []
            total = 0
            with path.open("rb") as lines:
                for line in lines:
                    if not line.endswith(b"\n"):
                        break
                    sent = decode(line)
                    if sent.n <= after or any(v and getattr(sent, n) != v for n, v in wanted.items()):
                        continue
                    total += 1
                    if len(found) < limit:
                        found.append({**msgspec.structs.asdict(sent), "at": iso(sent.at)})
            return found, total

        sends, total = await asyncio.to_thread(scan)
        return answer({"sends": sends, "total": total})

    async def outbox(self, request: web.Request) -> web.Response:
        """API requests as they came."""
        channel, account = request.query.get("channel"), request.query.get("account")
        if channel not in (None, "", "WHATSAPP_CLOUD"):
            return answer({"requests": []})
        chosen = [r for r in self.graph.requests if not account or r["account"] == account]
        return answer({"requests": chosen[-_limit(request, 100, 1000) :]})

    async def deliveries(self, request: web.Request) -> web.Response:
        """Webhook attempts."""
        return answer(self.provider.courier.summary(_limit(request, 100, 2000)))

    async def summary(self, request: web.Request) -> web.Response:
        """Whether everything has come to rest."""
        return answer(
            {
                "pending": self.provider.courier.pending,
                "timers": len(self.provider.timers),
                "sends": self.state.sends,
                "inbound": self.state.inbound,
                "now": iso(self.provider.clock.now()),
                "faults": len([f for f in self.provider.faults.active.values() if f.next != 0]),
            }
        )

    # The switches.

    def _clock_view(self) -> Json:
        clock = self.provider.clock
        return {
            "now": iso(clock.now()),
            "offset_s": round(clock.offset_s, 3),
            "frozen": clock.frozen_at is not None,
        }

    async def clock(self, request: web.Request) -> web.Response:
        """Sandbox time."""
        return answer(self._clock_view())

    async def move_clock(self, request: web.Request) -> web.Response:
        """Moves or stops it."""
        body = await body_of(request, _Clock)
        if not abs(body.advance_s) <= MAX_ADVANCE_S:
            raise Refusal(400, "BAD_BODY", f"advance_s is at most {MAX_ADVANCE_S}")
        if body.frozen is not None:
            self.provider.clock.freeze(body.frozen)
        self.provider.clock.advance(body.advance_s)
        self.provider.timers.wake()
        return answer(self._clock_view())

    async def switch(self, request: web.Request) -> web.Response:
        """Rules of the running process."""
        body = await body_of(request, _Switches)
        provider = self.provider
        if body.enforce_window is not None:
            self.state.enforce_window = body.enforce_window
        if body.enforce_rates is not None:
            provider.enforce_rates = body.enforce_rates
        if body.batch_max is not None:
            provider.courier.batch_max = max(1, min(1000, body.batch_max))
        if body.callback_url is not None:
            provider.courier.callback_url = body.callback_url
        return answer(
            {
                "enforce_window": self.state.enforce_window,
                "enforce_rates": provider.enforce_rates,
                "batch_max": provider.courier.batch_max,
                "callback_url": provider.courier.callback_url,
            }
        )

    async def subscribe(self, request: web.Request) -> web.Response:
        """Meta's handshake against the callback."""
        body = await body_of(request, _Subscribe)
        url = self._account(body.account).callback_url or self.provider.courier.callback_url
        ok, status, detail = await handshake(url, self.provider.config.verify_token)
        return answer({"ok": ok, "status": status, "detail": detail})

    async def list_faults(self, request: web.Request) -> web.Response:
        """Faults with their hits, spent ones too."""
        return answer({"faults": list(self.provider.faults.active.values())})

    async def add_fault(self, request: web.Request) -> web.Response:
        """One more fault."""
        order = await body_of(request, FaultOrder)
        try:
            fault = self.provider.faults.add(order)
        except ValueError as error:
            raise Refusal(400, "BAD_FAULT", str(error)) from None
        return answer(fault, 201)

    async def clear_faults(self, request: web.Request) -> web.Response:
        """No faults."""
        self.provider.faults.active.clear()
        return answer({"faults": []})

    async def remove_fault(self, request: web.Request) -> web.Response:
        """One fault less."""
        number = request.match_info["id"]
        fault = self.provider.faults.active.pop(int(number), None) if number.isdigit() else None
        if fault is None:
            raise Refusal(404, "NO_SUCH_FAULT", "GET /_ctl/fault lists them")
        return answer(fault)

    async def reset(self, request: web.Request) -> web.Response:
        """Start afresh."""
        await self.provider.reset()
        self._also_reset()
        self.graph.requests.clear()
        return answer({"ok": True})
