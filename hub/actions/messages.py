"""Verbs on messages: queue one for sending, send a failed one again. One transaction each."""

from __future__ import annotations

from typing import Any, Literal
from uuid import UUID

import asyncpg
import msgspec

from hub.actions.permission import require
from hub.channels.limits import BY_CHANNEL
from hub.channels.media import default_name, kind_of, refusal
from hub.db.pool import Database
from hub.db.tenancy import acting_as
from hub.domain.principal import Principal
from hub.domain.templates import PROVIDER_CATEGORIES, Unfillable, fill
from hub.errors import (
    BadRequest,
    Conflict,
    NotFound,
    ReplyConflict,
    from_database,
    invalid,
)
from sql import q

#: messages_content_check.
CONTENT_MAX = 65536
MESSAGE_TYPES = frozenset(
    (
        "text",
        "image",
        "video",
        "audio",
        "document",
        "sticker",
        "location",
        "contacts",
        "interactive",
        "template",
        "reaction",
    )
)
TEMPLATE_CHANNELS = frozenset(("WHATSAPP_CLOUD", "WHATSAPP_BUSINESS"))
Source = Literal["agent", "api", "rule", "flow", "campaign"]

_json = msgspec.json.Encoder().encode


class QueuedMessage(msgspec.Struct, frozen=True):
    """A message on its way; ``duplicate`` when the same client_ref had queued it before."""

    message_id: UUID
    conv_seq: int
    status: str
    duplicate: bool


class Wanted(msgspec.Struct, kw_only=True):
    """A message as its author gave it, checked. ``media_id``: an upload that it shows, with ``content`` as
    its caption; ``template_id`` and ``variables``: an approved template to fill, whose text becomes the
    content."""

    conversation_id: UUID
    content: str | None = None
    client_ref: UUID | None = None
    message_type: str = "text"
    metadata: dict[str, Any] = {}
    reply_to_id: UUID | None = None
    source: Source = "agent"
    sender_id: UUID | None = None
    send_at: Any = None
    media_id: UUID | None = None
    template_id: UUID | None = None
    variables: dict[str, str] = {}


async def queue_message(
    db: Database,
    principal: Principal,
    *,
    conversation_id: UUID,
    content: str | None,
    client_ref: UUID | None = None,
    message_type: str = "text",
    metadata: dict[str, Any] | None = None,
    reply_to_id: UUID | None = None,
    source: Source = "agent",
    seen_seq: int | None = None,
    send_at: Any = None,
    media_id: UUID | None = None,
    template_id: UUID | None = None,
    variables: dict[str, str] | None = None,
) -> QueuedMessage:
    """Queue a message; a worker sends it. A closed conversation opens again.

    The same ``client_ref`` gives the same message however often it is repeated; another body under it is a
    Conflict.
    ``seen_seq``: the highest conv_seq its author had seen; ReplyConflict when somebody else answered after
    it.
    ``message_type`` of a message with a file is the file's kind, unless it says ``document``.
    Raises NotFound, ValidationFailed, BadRequest (nothing to send through), InsufficientPermissions.
    """
    wanted = _checked(
        principal,
        Wanted(
            conversation_id=conversation_id,
            content=content,
            client_ref=client_ref,
            message_type=message_type,
            metadata=metadata or {},
            reply_to_id=reply_to_id,
            source=source,
            sender_id=principal.user_id,
            send_at=send_at,
            media_id=media_id,
            template_id=template_id,
            variables=variables or {},
        ),
    )
    for attempt in (1, 2):
        try:
            async with acting_as(db, principal) as conn:
                return await _queue(conn, wanted, seen_seq)
        except asyncpg.UniqueViolationError as e:
            # Two requests with one client_ref raced in different conversations, or past the first look: look
            # again.
            if e.constraint_name != "messages_client_ref_key" or attempt == 2:
                raise from_database(e) or e from e
        except asyncpg.PostgresError as e:
            raise from_database(e) or e from e
    raise AssertionError("unreachable")


async def queue_in(conn: Any, principal: Principal, wanted: Wanted) -> QueuedMessage:
    """``queue_message`` as a part of the caller's own transaction (entered as ``principal``)."""
    return await _queue(conn, _checked(principal, wanted), None)


def _checked(principal: Principal, wanted: Wanted) -> Wanted:
    """Raises InsufficientPermissions, ValidationFailed."""
    require(principal, "messages", "insert")
    content = wanted.content
    if wanted.message_type not in MESSAGE_TYPES:
        raise invalid("message_type", f"must be one of {', '.join(sorted(MESSAGE_TYPES))}")
    if wanted.template_id is not None:
        if wanted.media_id is not None:
            raise invalid("media_id", "cannot be sent with a template")
        if wanted.message_type not in ("text", "template"):
            raise invalid("message_type", "must be template, or left out, with template_id")
    elif wanted.variables:
        raise invalid("variables", "belong to a template_id")
    elif wanted.media_id is None and wanted.message_type == "text" and not (content or "").strip():
        raise invalid("content", "must not be empty")
    if content is not None and len(content) > CONTENT_MAX:
        raise invalid("content", f"must have at most {CONTENT_MAX} characters")
    if content is not None and "\x00" in content:
        raise invalid("content", "must not contain U+0000")
    return wanted


async def _queue(conn: Any, wanted: Wanted, seen_seq: int | None) -> QueuedMessage:
    conversation_id = wanted.conversation_id
    # The lock comes first: whoever queues here next sees what we queued, so both guards below hold under
    # races.
    conversation = await conn.fetchrow(q.lock_conversation, conversation_id)
    if conversation is None:
        raise NotFound("No such conversation", details={"conversation_id": str(conversation_id)})
    if wanted.client_ref is not None:
        before = await conn.fetchrow(q.message_by_client_ref, wanted.client_ref)
        if before is not None:
            if not _is_repeated(before, wanted):
                raise Conflict(
                    "This client_ref was used for another message", details={"message_id": str(before["id"])}
                )
            return QueuedMessage(before["id"], before["conv_seq"], before["status"], True)
    if conversation["channel_account_id"] is None:
        raise BadRequest(
            "This conversation has no channel account to send through",
            hint="Connect a channel in the settings",
        )
    if seen_seq is not None:
        answers = await conn.fetch(q.answers_after, conversation_id, seen_seq, wanted.sender_id)
        if answers:
            raise ReplyConflict(
                "Somebody else has answered meanwhile",
                details={"messages": [str(r["id"]) for r in answers]},
                hint="Send again without seen_seq to answer all the same",
            )
    if wanted.reply_to_id is not None and not await conn.fetchval(
        q.message_exists, wanted.reply_to_id, conversation_id
    ):
        raise NotFound(
            "No such message to reply to in this conversation",
            details={"reply_to_id": str(wanted.reply_to_id)},
        )
    content, message_type, metadata = wanted.content, wanted.message_type, wanted.metadata
    if wanted.media_id is not None:
        content, message_type, metadata = await _with_file(conn, wanted, conversation["channel_account_id"])
    elif wanted.template_id is not None:
        content, message_type, metadata = await _filled(conn, wanted, conversation["channel_account_id"])
    if conversation["status"] == "CLOSED" and wanted.source != "campaign":
        await conn.execute(q.reopen_for_sending, conversation_id)
    row = await conn.fetchrow(
        q.insert_outbound,
        conversation_id,
        content,
        wanted.client_ref,
        message_type,
        _json(metadata).decode(),
        wanted.reply_to_id,
        wanted.source,
        wanted.sender_id,
        wanted.send_at,
        wanted.template_id,
    )
    return QueuedMessage(row["id"], row["conv_seq"], row["status"], False)


def _is_repeated(before: Any, wanted: Wanted) -> bool:
    """Whether the message queued under this client_ref is the one asked for now."""
    said = (before["conversation_id"], before["reply_to_id"], before["template_id"])
    if said != (wanted.conversation_id, wanted.reply_to_id, wanted.template_id):
        return False
    if wanted.template_id is not None:
        return True
    if wanted.media_id is not None:
        same_caption = (before["content"] or "") == (wanted.content or "")
        return before["upload"] == str(wanted.media_id) and same_caption
    return (before["content"], before["message_type"]) == (wanted.content, wanted.message_type)


async def _channel_of(conn: Any, account: UUID) -> str:
    channel: str | None = await conn.fetchval(q.channel_of_account, account)
    if channel is None:
        raise BadRequest("The channel account of this conversation is gone")
    return channel


async def _with_file(conn: Any, wanted: Wanted, account: UUID) -> tuple[str, str, dict[str, Any]]:
    """(content, message type, metadata) of a message that shows an upload. Raises ValidationFailed naming the
    channel's limit."""
    file = await conn.fetchrow(q.take_media, wanted.media_id)
    if file is None:
        raise invalid("media_id", "is no file of this organization; upload it again")
    if file["state"] != "stored":
        raise invalid("media_id", "is not here: it is still being fetched, or could not be")
    mime, size, caption = file["mime_type"], file["byte_size"], wanted.content or ""
    kind = kind_of(mime, size)
    if wanted.message_type == "document":
        kind = "document"
    elif wanted.message_type not in ("text", kind):
        raise invalid("message_type", f"this file is sent as {kind}, or as document")
    channel = await _channel_of(conn, account)
    limits = BY_CHANNEL.get(channel)
    refused = (
        refusal(limits, kind, mime, size, caption)
        if limits is not None
        else ("media_id", f"{channel} takes no files from this version")
    )
    if refused is not None:
        raise invalid(*refused)
    shown = {
        "kind": kind,
        "file_id": str(file["id"]),
        "state": "stored",
        "mime": mime,
        "bytes": size,
        "sha256": file["sha256"],
        "filename": file["file_name"] or default_name(kind, mime),
    }
    if file["id"] != wanted.media_id:
        shown["copy_of"] = str(wanted.media_id)
    return caption, kind, {**wanted.metadata, "media": [shown]}


async def _filled(conn: Any, wanted: Wanted, account: UUID) -> tuple[str, str, dict[str, Any]]:
    """(content, message type, metadata) of a filled template. Raises ValidationFailed naming what is
    missing."""
    template = await conn.fetchrow(q.template_to_send, wanted.template_id)
    if template is None:
        raise invalid("template_id", "is no template of this organization")
    if template["category"] not in PROVIDER_CATEGORIES:
        raise invalid("template_id", "is a text of the hub, not a template of the provider")
    if template["status"] != "APPROVED":
        raise invalid("template_id", f"is {template['status']}; only APPROVED templates can be sent")
    if template["channel_account_id"] not in (None, account):
        raise invalid("template_id", "belongs to another channel account")
    channel = await _channel_of(conn, account)
    if channel not in TEMPLATE_CHANNELS:
        raise invalid("template_id", f"{channel} has no templates")
    try:
        filled = fill(msgspec.json.decode(template["components"]), wanted.variables)
    except Unfillable as error:
        raise invalid(error.field, error.reason) from error
    named = {"name": template["name"], "language": template["language"], "components": filled.components}
    return filled.text, "template", {**wanted.metadata, "template": named}


async def retry_message(db: Database, principal: Principal, *, message_id: UUID) -> QueuedMessage:
    """Queue a FAILED message again, in its old place. Raises NotFound; Conflict when it has not failed."""
    require(principal, "messages", "update")
    try:
        async with acting_as(db, principal) as conn:
            message = await conn.fetchrow(q.lock_message, message_id)
            if message is None or message["direction"] != "OUTBOUND" or message["deleted_at"] is not None:
                raise NotFound("No such message", details={"message_id": str(message_id)})
            if message["status"] != "FAILED":
                raise Conflict(
                    "Only a failed message can be sent again",
                    details={"message_id": str(message_id), "status": message["status"]},
                )
            row = await conn.fetchrow(q.queue_again, message_id)
            return QueuedMessage(message_id, row["conv_seq"], row["status"], False)
    except asyncpg.PostgresError as e:
        raise from_database(e) or e from e
