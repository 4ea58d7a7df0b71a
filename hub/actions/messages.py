"""Verbs on messages: queue one for sending, send a failed one again. One transaction each."""

from __future__ import annotations

from typing import Any, Literal
from uuid import UUID

import asyncpg
import msgspec

from hub.db.pool import Database
from hub.db.tenancy import acting_as
from hub.domain.permissions import missing
from hub.domain.principal import Principal
from hub.errors import (
    BadRequest,
    Conflict,
    InsufficientPermissions,
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
Source = Literal["agent", "api", "rule", "flow", "campaign"]

_json = msgspec.json.Encoder().encode


class QueuedMessage(msgspec.Struct, frozen=True):
    """A message on its way; ``duplicate`` when the same client_ref had queued it before."""

    message_id: UUID
    conv_seq: int
    status: str
    duplicate: bool


def require(principal: Principal, table: str, verb: Literal["read", "insert", "update", "delete"]) -> None:
    """Raises InsufficientPermissions naming what is missing; row security would only show nothing."""
    if principal.kind == "service":
        return
    lacking = missing(table, verb, principal.role, principal.permissions)
    if lacking is not None:
        raise InsufficientPermissions(
            f"You may not {verb} {table}",
            details={"missing": list(lacking)},
            hint="Ask an administrator of your organization",
        )


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
    template_id: UUID | None = None,
) -> QueuedMessage:
    """Queue a message; a worker sends it. A closed conversation opens again.

    The same ``client_ref`` gives the same message however often it is repeated; another body under it is a
    Conflict.
    ``seen_seq``: the highest conv_seq its author had seen; ReplyConflict when somebody else answered after
    it.
    Raises NotFound, ValidationFailed, BadRequest (nothing to send through), InsufficientPermissions.
    """
    arguments = _checked(
        principal,
        conversation_id,
        content,
        client_ref,
        message_type,
        metadata,
        reply_to_id,
        source,
        send_at,
        template_id,
    )
    for attempt in (1, 2):
        try:
            async with acting_as(db, principal) as conn:
                return await _queue(conn, arguments, seen_seq)
        except asyncpg.UniqueViolationError as e:
            # Two requests with one client_ref raced in different conversations, or past the first look: look
            # again.
            if e.constraint_name != "messages_client_ref_key" or attempt == 2:
                raise from_database(e) or e from e
        except asyncpg.PostgresError as e:
            raise from_database(e) or e from e
    raise AssertionError("unreachable")


async def queue_in(
    conn: Any, principal: Principal, *, conversation_id: UUID, content: str, source: Source
) -> QueuedMessage:
    """``queue_message`` for a text, as a part of the caller's own transaction (entered as ``principal``)."""
    arguments = _checked(principal, conversation_id, content, None, "text", None, None, source, None, None)
    return await _queue(conn, arguments, None)


def _checked(
    principal: Principal,
    conversation_id: UUID,
    content: str | None,
    client_ref: UUID | None,
    message_type: str,
    metadata: dict[str, Any] | None,
    reply_to_id: UUID | None,
    source: Source,
    send_at: Any,
    template_id: UUID | None,
) -> tuple[Any, ...]:
    """The arguments of insert_outbound. Raises InsufficientPermissions, ValidationFailed."""
    require(principal, "messages", "insert")
    if message_type not in MESSAGE_TYPES:
        raise invalid("message_type", f"must be one of {', '.join(sorted(MESSAGE_TYPES))}")
    if content is None or not content.strip():
        if message_type == "text":
            raise invalid("content", "must not be empty")
    elif len(content) > CONTENT_MAX:
        raise invalid("content", f"must have at most {CONTENT_MAX} characters")
    elif "\x00" in content:
        raise invalid("content", "must not contain U+0000")
    return (
        conversation_id,
        content,
        client_ref,
        message_type,
        _json(metadata or {}).decode(),
        reply_to_id,
        source,
        principal.user_id,
        send_at,
        template_id,
    )


async def _queue(conn: Any, arguments: tuple[Any, ...], seen_seq: int | None) -> QueuedMessage:
    conversation_id, content, client_ref, message_type, _, reply_to_id, source, sender_id, _, _ = arguments
    # The lock comes first: whoever queues here next sees what we queued, so both guards below hold under
    # races.
    conversation = await conn.fetchrow(q.lock_conversation, conversation_id)
    if conversation is None:
        raise NotFound("No such conversation", details={"conversation_id": str(conversation_id)})
    if client_ref is not None:
        before = await conn.fetchrow(q.message_by_client_ref, client_ref)
        if before is not None:
            if tuple(before)[1:2] + tuple(before)[4:] != (
                conversation_id,
                content,
                message_type,
                reply_to_id,
            ):
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
        answers = await conn.fetch(q.answers_after, conversation_id, seen_seq, sender_id)
        if answers:
            raise ReplyConflict(
                "Somebody else has answered meanwhile",
                details={"messages": [str(r["id"]) for r in answers]},
                hint="Send again without seen_seq to answer all the same",
            )
    if reply_to_id is not None and not await conn.fetchval(q.message_exists, reply_to_id, conversation_id):
        raise NotFound(
            "No such message to reply to in this conversation", details={"reply_to_id": str(reply_to_id)}
        )
    if conversation["status"] == "CLOSED" and source != "campaign":
        await conn.execute(q.reopen_for_sending, conversation_id)
    row = await conn.fetchrow(q.insert_outbound, *arguments)
    return QueuedMessage(row["id"], row["conv_seq"], row["status"], False)


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
