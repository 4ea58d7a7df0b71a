"""What a client may ask for over its socket: each command is one verb of hub/actions, in the caller's
name."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, assert_never
from uuid import UUID

import structlog

from hub.actions import conversations, messages
from hub.db.tenancy import in_turn
from hub.errors import HubError, InsufficientPermissions, NotFound, Unavailable
from hub.realtime.protocol import (
    AnyCommand,
    Assign,
    BadArguments,
    Close,
    Command,
    Done,
    Failure,
    Read,
    Refused,
    Reopen,
    Retry,
    Send,
    Tag,
    Typing,
    View,
    arguments,
)

if TYPE_CHECKING:
    from hub.realtime.session import Session

log = structlog.get_logger()


async def answer(session: Session, command: Command) -> Done | Refused:
    """Carry a command out and say how it went; a refusal never ends the session."""
    try:
        typed = arguments(command)
    except BadArguments as e:
        return Refused(command.id, Failure("VALIDATION_ERROR", str(e)))
    try:
        if "postgres" in session.registry.fanout.away:
            raise Unavailable("The database is away", retry_after_s=2)
        return Done(command.id, await in_turn(partial(_run, session, typed)))
    except HubError as e:
        if isinstance(e, InsufficientPermissions):
            session.registry.on_refusal(session.principal, f"live {command.name}"[:100], e.message)
        return Refused(command.id, Failure(e.code, e.message, e.details))
    except Exception:
        log.exception("live.command_failed", command=command.name, session_id=session.id)
        return Refused(command.id, Failure("INTERNAL_ERROR", "Something went wrong on our side"))


async def _run(session: Session, command: AnyCommand) -> Any:
    db, principal = session.registry.db, session.principal
    match command:
        case Send():
            queued = await messages.queue_message(
                db,
                principal,
                conversation_id=command.conversation_id,
                content=command.content,
                client_ref=command.client_ref,
                message_type=command.message_type,
                reply_to_id=command.reply_to_id,
                source="agent" if principal.kind == "user" else "api",
                seen_seq=command.seen_seq,
                media_id=command.media_id,
                template_id=command.template_id,
                variables=command.variables,
            )
            session.registry.fanout.publisher.wake("outbox")
            return queued
        case Retry():
            again = await messages.retry_message(db, principal, message_id=command.message_id)
            session.registry.fanout.publisher.wake("outbox")
            return {"message_id": again.message_id, "status": again.status}
        case Assign():
            await conversations.assign(
                db, principal, conversation_id=command.conversation_id, assignee_id=command.assignee_id
            )
        case Close():
            await conversations.set_status(
                db, principal, conversation_id=command.conversation_id, status="CLOSED"
            )
        case Reopen():
            await conversations.set_status(
                db, principal, conversation_id=command.conversation_id, status="OPEN"
            )
        case Read():
            await conversations.mark_read(
                db, principal, conversation_id=command.conversation_id, conv_seq=command.conv_seq
            )
        case Tag():
            await conversations.tag(
                db,
                principal,
                conversation_id=command.conversation_id,
                add=command.add,
                remove=command.remove,
            )
        case Typing():
            user = await _watching(session, command.conversation_id)
            session.typing_in = command.conversation_id if command.typing else None
            session.presence.typing(user, command.conversation_id, command.typing)
        case View():
            user = await _watching(session, command.conversation_id)
            session.presence.view(user, session.id, command.conversation_id)
        case _:
            assert_never(command)
    return {}


async def _watching(session: Session, conversation_id: UUID | None) -> UUID:
    """The user, once it is sure that the conversation is one of this organization: nobody else's id is
    passed on."""
    if session.user_id is None:
        raise InsufficientPermissions("Only a person types or looks at a conversation")
    if conversation_id is not None and session.known_conversation != conversation_id:
        if not await conversations.exists(session.registry.db, session.principal, conversation_id):
            raise NotFound("No such conversation", details={"conversation_id": str(conversation_id)})
        session.known_conversation = conversation_id
    return session.user_id
