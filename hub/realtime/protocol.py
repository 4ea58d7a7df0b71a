"""Every frame and every close code of ``/ws``: JSON text, told apart by ``type``. docs/realtime.md says it
for callers."""

from __future__ import annotations

import struct
from typing import Annotated, Any, Final, Literal
from uuid import UUID

import msgspec

#: Largest frame a client may send. A message's text has at most 65,536 characters of its own; longer goes
#: through HTTP.
CLIENT_FRAME_BYTES: Final = 64 * 1024

# Close codes. 1009, 4401 … say what the client did; 4008 and 4012 ask it to come back with its cursor.
TOO_BIG: Final = 1009  # a frame above 64 KiB (sent by the websocket layer)
SLOW_READER: Final = 4008  # did not read; resume
GOING_AWAY: Final = 4012  # this hub stops, or cannot serve now; resume, after `bye.retry_in`
BAD_FRAME: Final = 4400  # not a frame, or a cursor that no hub ever gave
BAD_TOKEN: Final = 4401  # bad, expired or revoked; sign in again
NOT_ALLOWED: Final = 4403  # member disabled, or may not read messages
NO_HELLO: Final = 4408  # nothing said within 5 s
TOO_MANY: Final = 4409  # sockets of this user, or of this organization
FLOOD: Final = 4429  # more than 30 frames a second


class Cursor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How far a client has come: the epoch of its last `welcome`, and the largest seq it was shown."""

    epoch: Annotated[str, msgspec.Meta(max_length=200)]
    seq: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class Hello(msgspec.Struct, frozen=True, tag="hello", tag_field="type"):
    """The first frame: who calls, and where it left off (null: a new client)."""

    token: Annotated[str, msgspec.Meta(max_length=16384)]
    cursor: Cursor | None = None
    client: Annotated[str, msgspec.Meta(max_length=200)] | None = None


class Send(msgspec.Struct, frozen=True, tag="send", tag_field="name", forbid_unknown_fields=True):
    """Queue a message. Repeat it unchanged, with its client_ref, until it is answered. With a media_id (an
    upload) content is its caption; with a template_id content is left out and variables fill it."""

    conversation_id: UUID
    client_ref: UUID
    content: str = ""
    message_type: str = "text"
    reply_to_id: UUID | None = None
    seen_seq: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] | None = None
    media_id: UUID | None = None
    template_id: UUID | None = None
    variables: dict[str, str] = {}


class Retry(msgspec.Struct, frozen=True, tag="retry", tag_field="name", forbid_unknown_fields=True):
    """Queue a failed message again."""

    message_id: UUID


class Assign(msgspec.Struct, frozen=True, tag="assign", tag_field="name", forbid_unknown_fields=True):
    """Give a conversation to a member, or to nobody (null)."""

    conversation_id: UUID
    assignee_id: UUID | None


class Close(msgspec.Struct, frozen=True, tag="close", tag_field="name", forbid_unknown_fields=True):
    """Close a conversation."""

    conversation_id: UUID


class Reopen(msgspec.Struct, frozen=True, tag="reopen", tag_field="name", forbid_unknown_fields=True):
    """Open a closed conversation again."""

    conversation_id: UUID


class Read(msgspec.Struct, frozen=True, tag="read", tag_field="name", forbid_unknown_fields=True):
    """The caller has read a conversation up to this conv_seq."""

    conversation_id: UUID
    conv_seq: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class Tag(msgspec.Struct, frozen=True, tag="tag", tag_field="name", forbid_unknown_fields=True):
    """Add and remove tags of a conversation."""

    conversation_id: UUID
    add: list[str] = []
    remove: list[str] = []


class Typing(msgspec.Struct, frozen=True, tag="typing", tag_field="name", forbid_unknown_fields=True):
    """The caller started or stopped typing; say it again every 4 s while it goes on."""

    conversation_id: UUID
    typing: bool


class View(msgspec.Struct, frozen=True, tag="view", tag_field="name", forbid_unknown_fields=True):
    """The conversation that the caller has open, or none (null)."""

    conversation_id: UUID | None


AnyCommand = Send | Retry | Assign | Close | Reopen | Read | Tag | Typing | View


class Command(msgspec.Struct, frozen=True, tag="command", tag_field="type"):
    """Something to do; answered by one `reply` with the same id."""

    id: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    name: str
    args: msgspec.Raw = msgspec.Raw(b"{}")


class Actor(msgspec.Struct, frozen=True):
    """Whose session this is, as `welcome` tells it."""

    id: str
    user_id: UUID | None
    organization_id: UUID
    role: str | None
    permissions: list[str]


class Present(msgspec.Struct, frozen=True):
    """A user who is online, and the conversation he has open."""

    user_id: UUID
    viewing: UUID | None


Reason = Literal["new", "epoch", "too_old", "too_far", "rewind", "permissions"]


class Welcome(msgspec.Struct, frozen=True, tag="welcome", tag_field="type"):
    """The answer to `hello`. resumed: what was missed follows. Else read snapshots now and apply events
    above seq."""

    resumed: bool
    reason: Reason | None
    epoch: str
    seq: int
    session: Actor
    presence: list[Present]


class Pos(msgspec.Struct, frozen=True, tag="pos", tag_field="type"):
    """Every event up to seq that this session may see has been sent. At least every 15 s."""

    seq: int


class Resync(msgspec.Struct, frozen=True, tag="resync", tag_field="type"):
    """The log is not what it was: read snapshots again and go on from seq, under this epoch."""

    reason: Reason
    seq: int
    epoch: str


class Degraded(msgspec.Struct, frozen=True, tag="degraded", tag_field="type"):
    """What this hub cannot reach just now; empty when all is well again."""

    what: list[Literal["postgres", "redis"]]


class PresenceFrame(msgspec.Struct, frozen=True, tag="presence", tag_field="type"):
    """A user came, went, or opened another conversation."""

    user_id: UUID
    online: bool
    viewing: UUID | None


class TypingFrame(msgspec.Struct, frozen=True, tag="typing", tag_field="type"):
    """A user types, or stopped. Forget it 6 s after the last one."""

    conversation_id: UUID
    user_id: UUID
    typing: bool


class Failure(msgspec.Struct, frozen=True):
    """Why a command was refused; codes as over HTTP (docs/errors.md)."""

    code: str
    message: str
    details: Any = None


class Done(msgspec.Struct, frozen=True, tag="reply", tag_field="type"):
    """A command that was carried out."""

    id: str
    result: Any
    ok: Literal[True] = True


class Refused(msgspec.Struct, frozen=True, tag="reply", tag_field="type"):
    """A command that was not."""

    id: str
    error: Failure
    ok: Literal[False] = False


class Bye(msgspec.Struct, frozen=True, tag="bye", tag_field="type"):
    """The hub will close this socket with 4012; come back after retry_in seconds."""

    retry_in: float
    reason: Literal["going_away", "unavailable", "permissions"]


_encode = msgspec.json.Encoder().encode
_client = msgspec.json.Decoder(Hello | Command)
_command = msgspec.json.Decoder(AnyCommand)


class BadFrame(Exception):
    """Not a frame of this protocol; closes the socket with 4400."""


class BadArguments(Exception):
    """A frame, but a command that does not exist or arguments that do not fit; refuses the command alone."""


def decode(data: bytes) -> Hello | Command:
    """Raises BadFrame."""
    try:
        frame: Hello | Command = _client.decode(data)
        return frame
    except (msgspec.DecodeError, UnicodeError, RecursionError) as e:
        raise BadFrame(str(e)) from e


def arguments(command: Command) -> AnyCommand:
    """The typed arguments of a command. Raises BadArguments with a message that names the field."""
    raw = bytes(command.args).strip() or b"{}"
    if not raw.startswith(b"{"):
        raise BadArguments("args must be an object")
    name = _encode(command.name)
    inner = raw[1:].lstrip()
    tagged = b'{"name":' + name + (b"}" if inner.startswith(b"}") else b"," + inner)
    try:
        decoded: AnyCommand = _command.decode(tagged)
        return decoded
    except (msgspec.DecodeError, UnicodeError, RecursionError) as e:
        raise BadArguments(str(e)) from e


def text_frame(payload: bytes) -> bytes:
    """One whole unmasked websocket text frame: written once, offered to many."""
    size = len(payload)
    if size < 126:
        return b"\x81" + bytes((size,)) + payload
    if size < 65536:
        return struct.pack("!BBH", 0x81, 126, size) + payload
    return struct.pack("!BBQ", 0x81, 127, size) + payload


def payload_of(frame: bytes) -> bytes:
    """What text_frame was given."""
    return frame[{126: 4, 127: 10}.get(frame[1], 2) :]


def encode(
    frame: Welcome | Pos | Resync | Degraded | PresenceFrame | TypingFrame | Done | Refused | Bye,
) -> bytes:
    """The websocket frame of a server frame."""
    return text_frame(_encode(frame))


#: The whole frame of a websocket ping.
PING: Final = b"\x89\x00"


def pong(data: bytes) -> bytes:
    """The answer to a ping; at most 125 bytes by the protocol."""
    return b"\x8a" + bytes((len(data),)) + data
