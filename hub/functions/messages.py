"""insert-message (records) and whatsapp-cloud-send (sends)."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final
from uuid import UUID

import msgspec
from aiohttp import web

from hub.actions.messages import MESSAGE_TYPES, Wanted, queue_in
from hub.bodies import JSON_BYTES, decode_json, read_body
from hub.db.tenancy import acting_as, in_turn
from hub.domain.phones import Phone, parse_phone
from hub.domain.principal import Principal
from hub.errors import NotFound, ValidationFailed, invalid
from hub.functions.calls import answer, once, require_permission
from hub.idempotency import Once
from hub.resources import DB, PUBLISHER
from sql import q

_CONTENT_MAX: Final = 65_536
_SEND_MAX: Final = 4096
#: How long a send function waits for the provider's word before it answers "queued".
SENT_WAIT_S: Final = 2.5
_encode = msgspec.json.Encoder(uuid_format="canonical").encode

_DIRECTIONS: Final = {
    "incoming": "INBOUND",
    "inbound": "INBOUND",
    "outgoing": "OUTBOUND",
    "outbound": "OUTBOUND",
}
#: PENDING is missing on purpose: it would send, and this function only records.
_STATUSES: Final = ("sent", "received", "delivered", "read", "failed")


class _Insert(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The document's body; external_id and contact_id are alternatives to phone."""

    phone: str | None = None
    external_id: str | None = None
    contact_id: UUID | None = None
    name: str | None = None
    content: str | None = None
    direction: str | None = None
    status: str | None = None
    message_type: str = "text"
    metadata: dict[str, Any] | None = None
    channel_account_id: UUID | None = None
    occurred_at: str | None = None
    organization_id: UUID | None = None


class _Send(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """``accessToken`` is known to be refused by name: the channel account's own token sends. ``message`` is
    the caption of a ``mediaId`` and may be missing then, as beside a ``templateId``."""

    to: str | None = None
    message: str | None = None
    mediaId: UUID | None = None
    templateId: UUID | None = None
    variables: dict[str, str] = {}
    conversationId: UUID | None = None
    phoneNumberId: str | None = None
    accessToken: str | None = None
    organizationId: UUID | None = None
    contactName: str | None = None


class _Placed(msgspec.Struct, frozen=True):
    """What an Idempotency-Key of a send stands for."""

    message_id: UUID
    conversation_id: UUID
    contact_id: UUID


_insert = msgspec.json.Decoder(_Insert)
_placed = msgspec.json.Decoder(_Placed)
_send = msgspec.json.Decoder(_Send)


async def insert_message(request: web.Request, principal: Principal) -> web.Response:
    """Record a message of another system; finds or creates contact and conversation. Never sends."""
    require_permission(principal, "can_send_messages")
    raw = await read_body(request, JSON_BYTES)
    body = decode_json(raw, _insert, request.content_type)
    _own_organization(principal, body.organization_id, "organization_id")
    item = _recorded(body)

    async def work(conn: Any) -> Any:
        row = await conn.fetchrow(q.record_message, _encode(item).decode())
        return {
            "success": True,
            "message": {
                "id": row["id"],
                "conversation_id": row["conversation_id"],
                "contact_id": row["contact_id"],
            },
        }

    return await once(request, principal, raw, work)


def _recorded(body: _Insert) -> dict[str, Any]:
    """The item for app.record_message. Raises ValidationFailed naming the first field that is wrong."""
    item: dict[str, Any] = {}
    if body.contact_id is not None:
        item["contact_id"] = body.contact_id
    elif body.external_id is not None:
        if not 1 <= len(body.external_id) <= 320:
            raise invalid("external_id", "must have 1 to 320 characters")
        item["external_id"] = body.external_id
    else:
        item |= _phone_members(_phone(body.phone, "phone"))
    if body.content is None:
        raise invalid("content", "content is required")
    if not 1 <= len(body.content) <= _CONTENT_MAX:
        raise invalid("content", f"must have 1 to {_CONTENT_MAX} characters")
    if body.direction is None:
        raise invalid("direction", "direction is required")
    direction = _DIRECTIONS.get(body.direction.strip().lower())
    if direction is None:
        raise invalid("direction", "must be incoming or outgoing")
    if body.status is None:
        raise invalid("status", "status is required")
    status = body.status.strip().lower()
    if status not in _STATUSES:
        raise invalid("status", f"must be one of {', '.join(_STATUSES)}")
    if status == "received" and direction == "OUTBOUND":
        raise invalid("status", "an outgoing message cannot be received")
    if body.message_type.strip().lower() not in MESSAGE_TYPES:
        raise invalid("message_type", f"must be one of {', '.join(sorted(MESSAGE_TYPES))}")
    for field, text in (
        ("content", body.content),
        ("name", body.name or ""),
        ("external_id", body.external_id or ""),
    ):
        if "\x00" in text:
            raise invalid(field, "must not contain U+0000")
    return item | {
        "name": body.name,
        "content": body.content,
        "direction": direction,
        "status": status.upper(),
        "message_type": body.message_type.strip().lower(),
        "metadata": body.metadata or {},
        "channel_account_id": body.channel_account_id,
        "occurred_at": body.occurred_at,
    }


async def whatsapp_cloud_send(request: web.Request, principal: Principal) -> web.Response:
    """Queue a WhatsApp message and wait a moment for the provider's id.

    `result.messageId` is the provider's id once it is known, else ours; `result.id` is always ours. A repeat
    with the same Idempotency-Key answers for the same message, as it stands then.
    """
    require_permission(principal, "can_send_messages")
    raw = await read_body(request, JSON_BYTES)
    body = decode_json(raw, _send, request.content_type)
    _own_organization(principal, body.organizationId, "organizationId")
    if body.accessToken:
        # A worker sends, later and perhaps more than once: a token that must not be kept cannot get there.
        raise invalid(
            "accessToken",
            "is not taken from a request: connect the number as a channel account, whose own token sends,"
            " and leave this out",
        )
    is_text = body.mediaId is None and body.templateId is None
    if body.message is None and is_text:
        raise invalid("message", "message is required")
    text = body.message or ""
    if (is_text and not text.strip()) or len(text) > _SEND_MAX:
        raise invalid("message", f"must have 1 to {_SEND_MAX} characters")
    item: dict[str, Any] = {
        "conversation_id": body.conversationId,
        "account_key": body.phoneNumberId,
        "name": body.contactName,
    }
    if body.to is not None or body.conversationId is None:
        item |= _phone_members(_phone(body.to, "to"))
    # Sending needs can_send_messages and nothing else; the rows it touches are those of this message.
    sender = msgspec.structs.replace(principal, permissions=principal.permissions | {"can_read_messages"})
    given = Once.of(request, principal, raw)

    async def queue() -> tuple[_Placed, bool]:
        async with acting_as(request.app[DB], sender) as conn:
            kept = await given.earlier(conn) if given is not None else None
            if kept is not None:
                return _placed.decode(kept.body), True
            place = await conn.fetchrow(q.conversation_for_send, _encode(item).decode(), "WHATSAPP_CLOUD")
            assert place is not None
            wanted = Wanted(
                conversation_id=place["conversation_id"],
                content=text,
                source="api" if principal.kind == "key" else "agent",
                sender_id=principal.user_id,
                media_id=body.mediaId,
                template_id=body.templateId,
                variables=body.variables,
            )
            queued = await queue_in(conn, sender, wanted)
            placed = _Placed(queued.message_id, place["conversation_id"], place["contact_id"])
            if given is not None:
                await given.keep(conn, 200, _encode(placed).decode())
        return placed, False

    placed, repeated = await in_turn(queue)
    if not repeated:
        request.app[PUBLISHER].wake("outbox")
    outcome = await _outcome(request, sender, placed.message_id)
    if outcome["status"] == "FAILED":
        raise ValidationFailed(
            "The provider refused the message",
            details={
                "field": "to",
                "message": outcome["failure_reason"] or outcome["failure_code"],
                "failure_code": outcome["failure_code"],
                "messageId": placed.message_id,
            },
        )
    document = {
        "success": True,
        "result": {
            "messageId": outcome["provider_message_id"] or placed.message_id,
            "id": placed.message_id,
        },
        "conversationId": placed.conversation_id,
        "contactId": placed.contact_id,
    }
    return answer(_encode(document), repeated=repeated)


async def _outcome(request: web.Request, principal: Principal, message_id: UUID) -> Any:
    """The message as it stands after at most SENT_WAIT_S."""
    until = time.monotonic() + SENT_WAIT_S
    pause = 0.03
    while True:
        async with acting_as(request.app[DB], principal, read_only=True) as conn:
            row = await conn.fetchrow(q.message_outcome, message_id)
        if row is None:
            raise NotFound("This message has been deleted")
        if row["status"] != "PENDING" or time.monotonic() + pause > until:
            return row
        await asyncio.sleep(pause)
        pause = min(pause * 1.6, 0.25)


def _phone(text: str | None, field: str) -> Phone:
    if text is None:
        raise invalid(field, f"{field} is required")
    phone = parse_phone(text[:100])
    if phone is None:
        raise invalid(field, "must be a phone number in international format")
    return phone


def _phone_members(phone: Phone) -> dict[str, Any]:
    return {"e164": phone.e164, "wa_id": phone.wa_id, "phones": phone.forms}


def _own_organization(principal: Principal, given: UUID | None, field: str) -> None:
    if given is not None and given != principal.organization_id:
        raise invalid(field, "is not the organization of this credential")
