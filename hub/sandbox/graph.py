"""Meta Graph as WhatsApp Cloud's clients see it: paths, checks, answers and error bodies."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
import secrets
import time
from collections import deque
from email.utils import formatdate
from typing import Any

import aiohttp
import msgspec
from aiohttp import web

from hub.channels.limits import WHATSAPP_CLOUD as LIMITS
from hub.sandbox.clock import iso
from hub.sandbox.config import Account
from hub.sandbox.faults import AFTER_ACCEPT, BEFORE_ACCEPT, Fault
from hub.sandbox.journal import Media, Template
from hub.sandbox.personas import Persona
from hub.sandbox.provider import Provider, new_media_id

KEPT_REQUESTS = 1_000
MEDIA_URL_S = 300
MAX_BODY = 1024 * 1024
MAX_MEDIA = max(limit.max_bytes for limit in LIMITS.media.values())
Json = dict[str, Any]

_VERSION = re.compile(r"v\d+\.\d+")
_JSON = msgspec.json.Decoder(dict[str, Any])
_ENCODER = msgspec.json.Encoder()
_MEDIA_TYPES = ("image", "video", "audio", "document", "sticker")
_INTERACTIVE = {
    "button",
    "list",
    "cta_url",
    "location_request_message",
    "flow",
    "request_contact_info",
    "product",
    "product_list",
    "catalog_message",
    "call_permission_request",
}
_NAME = re.compile(r"[a-z0-9_]{1,512}")
_VARIABLE = re.compile(r"\{\{([^{}]+)\}\}")


class GraphError(Exception):
    """Meta's typed error body."""

    def __init__(
        self,
        code: int,
        details: str = "",
        *,
        message: str | None = None,
        status: int = 400,
        subcode: int | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(details)
        self.status = status
        self.headers = headers or {}
        text = message or _MESSAGES.get(code, "Error")
        error: Json = {
            "message": f"(#{code}) {text}",
            "type": "OAuthException",
            "code": code,
            "fbtrace_id": "A" + secrets.token_urlsafe(12),
        }
        if subcode is not None:
            error["error_subcode"] = subcode
        if code in (1, 2, 131000, 131016):
            error["is_transient"] = code in (2, 131016)
        if details:
            error["error_data"] = {"messaging_product": "whatsapp", "details": details}
        self.body: Json = {"error": error}


_MESSAGES = {
    1: "An unknown error occurred",
    2: "Service temporarily unavailable",
    4: "Application request limit reached",
    10: "Application does not have permission for this action",
    100: "Invalid parameter",
    190: "Invalid OAuth access token - Cannot parse access token",
    80007: "WhatsApp Business Account has reached its rate limit",
    130429: "Rate limit hit",
    131000: "Something went wrong",
    131005: "Access denied",
    131008: "Required parameter is missing",
    131009: "Parameter value is not valid",
    131016: "Service unavailable",
    131021: "Recipient cannot be sender",
    131026: "Message undeliverable",
    131030: "Recipient phone number not in allowed list",
    131031: "Business Account locked",
    131042: "Business eligibility payment issue",
    131047: "Re-engagement message",
    131048: "Spam rate limit hit",
    131049: "Meta chose not to deliver",
    131050: "User stopped marketing messages",
    131051: "Message type unknown",
    131053: "Media upload error",
    131056: "(Business Account, Consumer Account) pair rate limit hit",
    131057: "Account in maintenance mode",
    131062: "Business-scoped user id is not supported for this message",
    132000: "Number of parameters does not match the expected number of params",
    132001: "Template name does not exist in the translation",
    132012: "Parameter format does not match format in the created template",
    132015: "Template is paused",
    132016: "Template is disabled",
}
_THROTTLES = {4, 80007, 130429, 131048, 131056}


def _status_of(code: int) -> int:
    """Meta's HTTP status for an error code."""
    if code in (0, 190):
        return 401
    if code in (3, 10, 131005, 131031, 368) or 200 <= code < 300:
        return 403
    if code in _THROTTLES:
        return 429
    if code in (1, 2, 131000):
        return 500
    if code in (131016, 131057):
        return 503
    return 400


def _string(body: Json, path: str, most: int, *, least: int = 1) -> str:
    """A string somewhere in the body; 131008 when missing, 131009 or 100 when it does not fit."""
    value: Any = body
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    if value is None or (value == "" and least):
        raise GraphError(131008, f"Parameter '{path}' is mandatory")
    if not isinstance(value, str):
        raise GraphError(131009, f"Parameter '{path}' must be a string")
    if len(value) > most:
        raise GraphError(100, f"Param {path} must be at most {most} characters long.")
    return value


def _object(body: Json, name: str) -> Json:
    value = body.get(name)
    if value is None:
        raise GraphError(131008, f"Parameter '{name}' is mandatory")
    if not isinstance(value, dict):
        raise GraphError(131009, f"Parameter '{name}' must be an object")
    return value


def _list(body: Json, name: str, most: int) -> list[Any]:
    value = body.get(name)
    if not isinstance(value, list) or not value:
        raise GraphError(131008, f"Parameter '{name}' is mandatory")
    if len(value) > most:
        raise GraphError(131009, f"Parameter '{name}' may have {most} entries, has {len(value)}")
    return value


def _check_interactive(part: Json) -> None:
    kind = part.get("type")
    if not isinstance(kind, str) or kind not in _INTERACTIVE:
        raise GraphError(131009, f"Interactive type {kind!r} is not valid")
    if kind not in ("product", "catalog_message"):
        _string(part, "body.text", LIMITS.caption)
    if "footer" in part:
        _string(part, "footer.text", LIMITS.footer)
    header = part.get("header")
    if isinstance(header, dict) and header.get("type") == "text":
        _string(part, "header.text", LIMITS.header)
    action = _object(part, "action")
    if kind == "button":
        ids = set()
        for button in _list(action, "buttons", LIMITS.buttons):
            if not isinstance(button, dict) or button.get("type") != "reply":
                raise GraphError(131009, "Button type must be reply")
            ids.add(_string(button, "reply.id", LIMITS.button_id))
            _string(button, "reply.title", LIMITS.button_title)
        if len(ids) != len(action["buttons"]):
            raise GraphError(131009, "Duplicate button id")
    elif kind == "list":
        _string(action, "button", LIMITS.list_button)
        rows = 0
        sections = _list(action, "sections", LIMITS.list_sections)
        for section in sections:
            if not isinstance(section, dict):
                raise GraphError(131009, "A section must be an object")
            if len(sections) > 1:
                _string(section, "title", LIMITS.list_section_title)
            for row in _list(section, "rows", LIMITS.list_rows):
                rows += 1
                if not isinstance(row, dict):
                    raise GraphError(131009, "A row must be an object")
                _string(row, "id", LIMITS.list_row_id)
                _string(row, "title", LIMITS.list_row_title)
                if row.get("description"):
                    _string(row, "description", LIMITS.list_row_description)
        if rows > LIMITS.list_rows:
            raise GraphError(131009, f"Total row count exceed max allowed count: {LIMITS.list_rows}")
    elif kind == "cta_url":
        _string(action, "parameters.display_text", LIMITS.button_title)
        _string(action, "parameters.url", 2000)


class Graph:
    """Handlers over one provider; `requests` is what GET /_ctl/outbox shows."""

    def __init__(self, provider: Provider) -> None:
        self.provider = provider
        self.state = provider.state
        self.requests: deque[Json] = deque(maxlen=KEPT_REQUESTS)
        self._media_key = secrets.token_bytes(16)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Any method and path under /graph."""
        parts = [part for part in request.match_info["tail"].split("/") if part]
        if parts and _VERSION.fullmatch(parts[0]):
            parts = parts[1:]
        seen: Json = {
            "at": iso(self.provider.clock.now()),
            "method": request.method,
            "path": request.path_qs,
            "account": parts[0] if parts else None,
            "headers": {
                name: "…" if name.lower() == "authorization" else value
                for name, value in request.headers.items()
            },
            "body": None,
            "status": None,
            "answer": None,
            "fault": None,
        }
        self.requests.append(seen)
        try:
            response = await self._route(request, parts, seen)
        except GraphError as error:
            response = web.json_response(error.body, status=error.status, headers=error.headers)
        seen["status"] = response.status
        if isinstance(response, web.Response) and response.content_type == "application/json":
            seen["answer"] = response.text
        return response

    async def _route(self, request: web.Request, parts: list[str], seen: Json) -> web.StreamResponse:
        method = request.method
        match parts:
            case ["_media", media_id] if method == "GET":
                return await self._download(request, media_id)
            case [number, "messages"] if method == "POST":
                return await self._messages(request, self._number(request, number), seen)
            case [number, "media"] if method == "POST":
                return await self._upload(request, self._number(request, number), seen)
            case [waba, "subscribed_apps"]:
                return await self._subscribed_apps(request, self._waba(request, waba))
            case [waba, "message_templates"]:
                return await self._templates(request, self._waba(request, waba), seen)
            case [waba, "phone_numbers"] if method == "GET":
                accounts = self._waba(request, waba)
                return web.json_response({"data": [self._number_view(a) for a in accounts]})
            case [node]:
                return await self._node(request, node, seen)
        raise GraphError(
            100, message=f"Unsupported {method.lower()} request. Unknown path components", subcode=33
        )

    def _token(self, request: web.Request) -> str:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            token = request.query.get("access_token", "")
        if not any(
            hmac.compare_digest(token.encode(), a.access_token.encode()) for a in self.state.accounts.values()
        ):
            raise GraphError(190, status=401)
        return token

    def _number(self, request: web.Request, number: str) -> Account:
        token = self._token(request)
        account = self.state.accounts.get(number)
        if account is None or account.access_token != token:
            raise self._no_such(request, number)
        return account

    def _waba(self, request: web.Request, waba: str) -> list[Account]:
        token = self._token(request)
        accounts = [a for a in self.state.accounts.values() if a.waba_id == waba and a.access_token == token]
        if not accounts:
            raise self._no_such(request, waba)
        return accounts

    def _no_such(self, request: web.Request, node: str) -> GraphError:
        return GraphError(
            100,
            message=f"Unsupported {request.method.lower()} request. Object with ID '{node[:64]}' "
            "does not exist, cannot be loaded due to missing permissions, or does not support this operation",
            subcode=33,
        )

    async def _json(self, request: web.Request, seen: Json) -> Json:
        try:
            raw = await request.content.read(MAX_BODY + 1)
            while len(raw) <= MAX_BODY and (more := await request.content.read(MAX_BODY + 1 - len(raw))):
                raw += more
            seen["body"] = raw.decode("utf-8", "replace")[:65536]
            if len(raw) > MAX_BODY:
                raise GraphError(100, "The body is too large", status=413)
            return _JSON.decode(raw or b"{}")
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            raise GraphError(100, message="The request body is not a JSON object") from None

    # Messages.

    def _recipient(self, body: Json) -> tuple[str, Persona]:
        """(as given, who it is): `to` with a phone in any spelling, or `recipient` with a business-scoped
        id."""
        given = body.get("to") or body.get("recipient")
        if not given:
            raise GraphError(100, message="The parameter to is required.")
        if not isinstance(given, str):
            raise GraphError(131009, "Parameter 'to' must be a string")
        address = re.sub(r"[\s()+.-]", "", given) if body.get("to") else given
        persona = self.state.find_persona(address)
        if persona is None and body.get("to"):
            persona = self.state.find_persona(given)
        known = persona is not None and address in (persona.phone, persona.user_id)
        if persona is None or not (known or given in (persona.phone, persona.user_id)):
            raise GraphError(131009, "Recipient is not a valid phone number or user id")
        return given, persona

    def _check(self, account: Account, body: Json) -> None:
        """Everything Meta refuses at once (2.7, 2.10)."""
        if body.get("messaging_product") != "whatsapp":
            raise GraphError(100, message="The parameter messaging_product is required.")
        if body.get("recipient_type", "individual") != "individual":
            raise GraphError(131009, "recipient_type must be individual")
        kind = body.setdefault("type", "text")
        correlator = body.get("biz_opaque_callback_data")
        if correlator is not None and (
            not isinstance(correlator, str) or len(correlator) > LIMITS.correlator
        ):
            raise GraphError(
                100, f"biz_opaque_callback_data must be at most {LIMITS.correlator} characters long."
            )
        context = body.get("context")
        if context is not None and not (
            isinstance(context, dict) and isinstance(context.get("message_id"), str)
        ):
            raise GraphError(131009, "context.message_id must be a string")
        if kind == "text":
            _object(body, "text")
            _string(body, "text.body", LIMITS.text)
        elif kind in _MEDIA_TYPES:
            self._check_media(kind, _object(body, kind))
        elif kind == "location":
            part = _object(body, "location")
            for name, most in (("latitude", 90.0), ("longitude", 180.0)):
                try:
                    inside = abs(float(part[name])) <= most
                except (KeyError, TypeError, ValueError):
                    inside = False
                if not inside:
                    raise GraphError(131009, f"Parameter 'location.{name}' is not valid")
        elif kind == "contacts":
            for card in _list(body, "contacts", LIMITS.contact_cards):
                if not isinstance(card, dict):
                    raise GraphError(131009, "A contact must be an object")
                _string(card, "name.formatted_name", 1024)
        elif kind == "reaction":
            part = _object(body, "reaction")
            _string(body, "reaction.message_id", 512)
            if not isinstance(part.get("emoji", ""), str) or len(part.get("emoji", "")) > 32:
                raise GraphError(131009, "Parameter 'reaction.emoji' is not valid")
        elif kind == "interactive":
            _check_interactive(_object(body, "interactive"))
        elif kind == "template":
            self._check_template(account, body)
        else:
            raise GraphError(131051, f"Message type {str(kind)[:40]!r} is not supported")

    def _check_media(self, kind: str, part: Json) -> None:
        if bool(part.get("id")) == bool(part.get("link")):
            raise GraphError(131008, f"Exactly one of '{kind}.id' and '{kind}.link' is needed")
        if part.get("id"):
            media = self.state.media.get(str(part["id"]))
            if media is None:
                raise GraphError(100, f"Media {str(part['id'])[:40]} does not exist")
            allowed = LIMITS.media[kind].mime_types
            if allowed and media.mime_type.partition(";")[0].strip().lower() not in allowed:
                raise GraphError(131053, f"A {kind} cannot be {media.mime_type}")
        if part.get("link") and not str(part["link"]).startswith(("http://", "https://")):
            raise GraphError(131009, f"Parameter '{kind}.link' is not a URL")
        if part.get("caption"):
            if kind in ("audio", "sticker"):
                raise GraphError(131009, f"A {kind} has no caption")
            _string({kind: part}, f"{kind}.caption", LIMITS.caption)

    def _check_template(self, account: Account, body: Json) -> None:
        part = _object(body, "template")
        name = _string(part, "name", 512)
        language = _string(part, "language.code", 20)
        template = self.state.find_template(account.waba_id, name, language)
        if template is None or template.status in ("PENDING", "REJECTED"):
            raise GraphError(132001, f"template name ({name}) does not exist in {language}", status=404)
        if template.status == "PAUSED":
            raise GraphError(132015)
        if template.status == "DISABLED":
            raise GraphError(132016)
        if template.category == "AUTHENTICATION" and not body.get("to"):
            raise GraphError(131062)
        given: dict[str, int] = {}
        components = part.get("components") or []
        if not isinstance(components, list):
            raise GraphError(132012, "components must be a list")
        for component in components:
            if not isinstance(component, dict):
                raise GraphError(132012, "components must be objects")
            parameters = component.get("parameters") or []
            if not isinstance(parameters, list) or not all(isinstance(p, dict) for p in parameters):
                raise GraphError(132012, "parameters must be a list of objects")
            given[str(component.get("type")).upper()] = len(parameters)
        for component in template.components:
            kind = str(component.get("type")).upper()
            if kind in ("BODY", "HEADER") and isinstance(component.get("text"), str):
                expected = len(set(_VARIABLE.findall(component["text"])))
                if given.get(kind, 0) != expected:
                    raise GraphError(
                        132000,
                        f"{kind.lower()}: number of localizable_params ({given.get(kind, 0)}) "
                        f"does not match the expected number of params ({expected})",
                    )

    async def _messages(self, request: web.Request, account: Account, seen: Json) -> web.StreamResponse:
        body = await self._json(request, seen)
        if body.get("status") == "read":
            message_id = _string(body, "message_id", 512)
            if not self.provider.mark_read(
                message_id, account.phone_number_id, typing="typing_indicator" in body
            ):
                raise GraphError(100, "Message ID does not exist")
            return web.json_response({"success": True})
        self._check(account, body)
        given, persona = self._recipient(body)
        if persona.phone == account.display_phone_number:
            raise GraphError(131021)
        number = account.phone_number_id
        fault = self.provider.faults.strike(BEFORE_ACCEPT, number, persona.id)
        if fault is not None:
            seen["fault"] = fault.fault
            return await self._refuse(request, fault)
        limited = 130429 if self.provider.courier.full else self.provider.over_limit(number, persona.id)
        if limited is not None:
            raise GraphError(limited, status=429)
        fault = self.provider.faults.strike(AFTER_ACCEPT, number, persona.id)
        if fault is not None:
            seen["fault"] = fault.fault
        early = fault is not None and fault.fault == "status_before_response"
        sent = await self.provider.accept(account, persona, given, body, early=early)
        contact: Json = {"input": given}
        if persona.phone:
            contact["wa_id"] = persona.phone
        if persona.user_id:
            contact["user_id"] = persona.user_id
        message: Json = {"id": sent.wamid}
        if sent.type == "template":
            message["message_status"] = "accepted"
        answer = {"messaging_product": "whatsapp", "contacts": [contact], "messages": [message]}
        if fault is not None and not early:
            return await self._spoil(request, fault, answer)
        return web.json_response(answer)

    async def _refuse(self, request: web.Request, fault: Fault) -> web.StreamResponse:
        """An answer of a provider that did not accept."""
        match fault.fault:
            case "throttle":
                headers = {}
                after = fault.params.get("retry_after")
                if after == "date":
                    # HTTP dates have whole seconds; two more than "now" is never in the past when it arrives.
                    headers["Retry-After"] = formatdate(_real_now() + 2, usegmt=True)
                elif isinstance(after, int | float):
                    headers["Retry-After"] = str(int(after))
                raise GraphError(int(fault.number("code", 130429)), status=429, headers=headers)
            case "error":
                code = int(fault.number("code", 131000))
                raise GraphError(
                    code, "Made up by the sandbox", status=int(fault.number("status", _status_of(code)))
                )
            case "expired_token":
                raise GraphError(
                    190, status=401, message="Error validating access token: Session has expired", subcode=463
                )
            case "ok_without_id":
                return web.json_response({"messaging_product": "whatsapp", "contacts": [], "messages": []})
            case "ok_with_error":
                return web.json_response(GraphError(int(fault.number("code", 131000))).body)
            case "hang":
                await asyncio.sleep(fault.number("seconds", 60))
                return self._reset(request)
            case "reset":
                return self._reset(request)
        given = fault.params.get("headers")
        headers = {str(k): str(v) for k, v in given.items()} if isinstance(given, dict) else {}
        return web.Response(
            status=int(fault.number("status", 500)), body=fault.text("body", "").encode(), headers=headers
        )

    async def _spoil(self, request: web.Request, fault: Fault, answer: Json) -> web.StreamResponse:
        """The message is accepted; its answer is late or lost."""
        match fault.fault:
            case "accept_then_hang":
                await asyncio.sleep(fault.number("seconds", 60))
                return self._reset(request)
            case "accept_then_reset":
                return self._reset(request)
            case "accept_then_500":
                return web.Response(status=500)
            case "accept_then_half_body":
                body = _ENCODER.encode(answer)
                response = web.StreamResponse(headers={"Content-Type": "application/json"})
                response.content_length = len(body)
                await response.prepare(request)
                await response.write(body[: len(body) // 2])
                return self._reset(request, response)
        await asyncio.sleep(fault.number("seconds", 2))
        return web.json_response(answer)

    def _reset(self, request: web.Request, response: web.StreamResponse | None = None) -> web.StreamResponse:
        """Cuts the connection without a proper end; what is returned is never seen."""
        if request.transport is not None:
            request.transport.abort()
        return response if response is not None else web.Response(status=499)

    # Media.

    async def _upload(self, request: web.Request, account: Account, seen: Json) -> web.Response:
        if not request.content_type.startswith("multipart/"):
            raise GraphError(100, message="The parameter file is required.")
        data: bytes | None = None
        product = mime = filename = None
        async for part in await request.multipart():
            if not isinstance(part, aiohttp.BodyPartReader):
                continue
            if part.name == "file":
                filename = part.filename
                mime = mime or part.headers.get("Content-Type")
                data = bytes(await part.read())
            elif part.name == "type":
                mime = (await part.text()).strip()
            elif part.name == "messaging_product":
                product = (await part.text()).strip()
        if product != "whatsapp" or not data:
            raise GraphError(100, message="The parameters messaging_product and file are required.")
        fault = self.provider.faults.strike("upload_error", account.phone_number_id, None)
        if fault is not None:
            seen["fault"] = fault.fault
            code = int(fault.number("code", 131053))
            raise GraphError(code, "Made up by the sandbox", status=_status_of(code))
        mime = (mime or "application/octet-stream").lower()
        self._check_upload(mime, len(data))
        media = await self.store_media(data, mime, filename)
        return web.json_response({"id": media.id})

    def _check_upload(self, mime: str, size: int) -> None:
        """Meta looks at a file's kind, by its type, when it is uploaded."""
        plain = mime.partition(";")[0].strip()
        for limit in LIMITS.media.values():
            if plain in limit.mime_types:
                if size > limit.max_bytes:
                    raise GraphError(131053, f"File size {size} exceeds {limit.max_bytes} bytes for {plain}")
                return
        if plain.startswith(("image/", "video/", "audio/")):
            raise GraphError(100, f"Param file must be a file of an allowed type, not {plain}")

    async def store_media(self, data: bytes, mime_type: str, filename: str | None) -> Media:
        """Keeps bytes under a new id; 131053 when they are too many."""
        if len(data) > MAX_MEDIA:
            raise GraphError(131053, f"File size exceeds {MAX_MEDIA} bytes")
        media = Media(
            id=new_media_id(),
            mime_type=mime_type,
            sha256=hashlib.sha256(data).hexdigest(),
            file_size=len(data),
            filename=filename,
        )
        await self.state.set_media(media, data)
        return media

    def _media_signature(self, media_id: str, expires: int) -> str:
        return hmac.new(self._media_key, f"{media_id}:{expires}".encode(), "sha256").hexdigest()[:32]

    def _media_view(self, request: web.Request, media: Media) -> Json:
        expires = int(self.provider.clock.now()) + MEDIA_URL_S
        signature = self._media_signature(media.id, expires)
        return {
            "messaging_product": "whatsapp",
            "url": f"{request.scheme}://{request.host}/graph/_media/{media.id}?ext={expires}&hash={signature}",
            "mime_type": media.mime_type,
            "sha256": media.sha256,
            "file_size": str(media.file_size),
            "id": media.id,
        }

    async def _download(self, request: web.Request, media_id: str) -> web.Response:
        self._token(request)
        media = self.state.media.get(media_id)
        try:
            expires = int(request.query.get("ext", ""))
        except ValueError:
            expires = 0
        good = hmac.compare_digest(
            request.query.get("hash", "").encode(), self._media_signature(media_id, expires).encode()
        )
        struck = self.provider.faults.strike("media_expired", "", None)
        if media is None or not good or expires < self.provider.clock.now() or struck is not None:
            return web.Response(status=404)
        data = await asyncio.to_thread((self.state.media_folder / media.id).read_bytes)
        if self.provider.faults.strike("media_corrupt", "", None) is not None:
            data = bytes(255 - byte for byte in data[:16]) + data[16:]
        return web.Response(body=data, headers={"Content-Type": media.mime_type})

    # The business account.

    async def _subscribed_apps(self, request: web.Request, accounts: list[Account]) -> web.Response:
        if request.method == "GET":
            app: Json = {"whatsapp_business_api_data": {"id": "300000000000001", "name": "Sandbox app"}}
            if accounts[0].callback_url:
                app["override_callback_uri"] = accounts[0].callback_url
            return web.json_response({"data": [app]})
        if request.method == "DELETE":
            for account in accounts:
                self.state.set_account(msgspec.structs.replace(account, callback_url=None))
            return web.json_response({"success": True})
        if request.method != "POST":
            raise self._no_such(request, accounts[0].waba_id)
        if request.content_type == "application/json":
            body = await self._json(request, {})
        else:
            body = dict(await request.post())
        uri = body.get("override_callback_uri")
        if uri:
            ok, _, detail = await handshake(str(uri), str(body.get("verify_token", "")))
            if not ok:
                raise GraphError(2200, message=f"Callback verification failed: {detail}")
            for account in accounts:
                self.state.set_account(msgspec.structs.replace(account, callback_url=str(uri)))
        return web.json_response({"success": True})

    def _number_view(self, account: Account) -> Json:
        return {
            "id": account.phone_number_id,
            "display_phone_number": account.display_phone_number,
            "verified_name": account.name,
            "code_verification_status": "VERIFIED",
            "quality_rating": "GREEN",
            "platform_type": "CLOUD_API",
            "throughput": {"level": "STANDARD"},
        }

    @staticmethod
    def _template_view(template: Template) -> Json:
        view: Json = {
            "id": template.id,
            "name": template.name,
            "language": template.language,
            "status": template.status,
            "category": template.category,
            "parameter_format": template.parameter_format,
            "components": template.components,
        }
        if template.status == "REJECTED":
            view["rejected_reason"] = template.reason
        return view

    async def _templates(self, request: web.Request, accounts: list[Account], seen: Json) -> web.Response:
        waba = accounts[0].waba_id
        mine = [t for t in self.state.templates.values() if t.waba_id == waba]
        if request.method == "GET":
            name, status = request.query.get("name"), request.query.get("status")
            found = [
                t
                for t in sorted(mine, key=lambda t: int(t.id))
                if (name is None or t.name == name) and (status is None or t.status == status)
            ]
            try:
                limit = max(1, min(200, int(request.query.get("limit", "25"))))
                after = int(request.query.get("after") or 0)
            except ValueError:
                raise GraphError(100, "limit and after must be numbers") from None
            page = [t for t in found if int(t.id) > after][:limit]
            paging: Json = {}
            if page:
                paging["cursors"] = {"before": page[0].id, "after": page[-1].id}
                if page[-1] is not found[-1]:
                    paging["next"] = (
                        f"{request.scheme}://{request.host}{request.path}?after={page[-1].id}&limit={limit}"
                    )
            summary = {
                "total_count": len(found),
                "message_template_count": len(mine),
                "message_template_limit": 6000,
                "are_translations_complete": False,
            }
            views = [self._template_view(t) for t in page]
            return web.json_response({"data": views, "paging": paging, "summary": summary})
        if request.method == "DELETE":
            name = request.query.get("name", "")
            gone = [t for t in mine if t.name == name and request.query.get("hsm_id", t.id) == t.id]
            if not gone:
                raise GraphError(100, "Message template does not exist", subcode=2593002)
            for template in gone:
                self.state.set_template(template, deleted=True)
            return web.json_response({"success": True})
        if request.method != "POST":
            raise self._no_such(request, waba)
        body = await self._json(request, seen)
        name = _string(body, "name", 512)
        language = _string(body, "language", 20)
        category = _string(body, "category", 30)
        if _NAME.fullmatch(name) is None:
            raise GraphError(
                100, "Template names have lower-case letters, digits and underscores", subcode=2388043
            )
        if category not in ("UTILITY", "MARKETING", "AUTHENTICATION"):
            raise GraphError(100, f"Category {category!r} is not valid")
        components = _list(body, "components", 10)
        if not all(isinstance(c, dict) for c in components):
            raise GraphError(100, "components must be objects")
        if self.state.find_template(waba, name, language) is not None:
            raise GraphError(100, "Content in this language already exists", subcode=2388024)
        numbered = all(
            name.strip().isdigit() for c in components for name in _VARIABLE.findall(str(c.get("text", "")))
        )
        parameter_format = str(body.get("parameter_format") or "POSITIONAL").upper()
        if parameter_format not in ("POSITIONAL", "NAMED") or (
            parameter_format == "POSITIONAL" and not numbered
        ):
            raise GraphError(
                100, "Variables are numbered, or named with parameter_format NAMED", subcode=2388293
            )
        serial = max((int(t.id) for t in self.state.templates.values()), default=int(waba)) + 1
        template = Template(
            id=str(serial),
            waba_id=waba,
            name=name,
            language=language,
            category=category,
            components=components,
            parameter_format=parameter_format,
        )
        self.provider.submit_template(template)
        return web.json_response({"id": template.id, "status": template.status, "category": category})

    async def _node(self, request: web.Request, node: str, seen: Json) -> web.StreamResponse:
        token = self._token(request)
        account = self.state.accounts.get(node)
        if account is not None and account.access_token == token and request.method == "GET":
            return web.json_response(self._number_view(account))
        media = self.state.media.get(node)
        if media is not None:
            if request.method == "GET":
                return web.json_response(self._media_view(request, media))
            if request.method == "DELETE":
                await self.state.set_media(media, None)
                return web.json_response({"success": True})
        template = self.state.templates.get(node)
        owners = {a.waba_id for a in self.state.accounts.values() if a.access_token == token}
        if template is not None and template.waba_id in owners:
            if request.method == "GET":
                return web.json_response(self._template_view(template))
            if request.method == "POST":
                body = await self._json(request, seen)
                if isinstance(body.get("components"), list):
                    template.components = [c for c in body["components"] if isinstance(c, dict)]
                if isinstance(body.get("category"), str):
                    template.category = body["category"]
                template.status = "PENDING"
                self.provider.submit_template(template)
                return web.json_response({"success": True})
        waba = [a for a in self.state.accounts.values() if a.waba_id == node and a.access_token == token]
        if waba and request.method == "GET":
            return web.json_response(
                {"id": node, "name": waba[0].name, "currency": "USD", "timezone_id": "1"}
            )
        raise self._no_such(request, node)


def _real_now() -> float:
    """HTTP dates are about the wire, not about sandbox time."""
    return time.time()


async def handshake(url: str, verify_token: str) -> tuple[bool, int | None, str | None]:
    """Meta's GET before it sends webhooks somewhere: (passed, status, what went wrong)."""
    challenge = str(secrets.randbelow(10**10))
    query = {"hub.mode": "subscribe", "hub.challenge": challenge, "hub.verify_token": verify_token}
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as client,
            client.get(url, params=query, allow_redirects=False) as answer,
        ):
            text = (await answer.content.read(1024)).decode("utf-8", "replace")
            if answer.status == 200 and text == challenge:
                return True, 200, None
            return False, answer.status, "the challenge was not echoed"
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
        return False, None, str(error)[:200] or type(error).__name__
