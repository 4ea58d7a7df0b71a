"""Frames: what is accepted, what is refused, and that every kind is in the docs."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.realtime import protocol
from hub.realtime.protocol import (
    AnyCommand,
    BadArguments,
    BadFrame,
    Command,
    Hello,
    arguments,
    decode,
    text_frame,
)

DOCS = (Path(__file__).parents[2] / "docs" / "realtime.md").read_text()
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(st.binary(max_size=300))
def test_N11_any_bytes_are_a_frame_or_refused(data: bytes) -> None:
    with suppress(BadFrame):
        assert isinstance(decode(data), Hello | Command)


@given(
    st.sampled_from(["send", "retry", "assign", "close", "read", "tag", "typing", "view", "x"]), json_values
)
def test_N11_any_arguments_are_a_command_or_refused(name: str, args: object) -> None:
    frame = protocol._encode({"type": "command", "id": "1", "name": name, "args": args})
    command = decode(frame)
    assert isinstance(command, Command)
    with suppress(BadArguments):
        assert isinstance(arguments(command), AnyCommand)


def test_arguments_are_typed_and_strangers_refused() -> None:
    close = decode(
        b'{"type":"command","id":"1","name":"close","args": { "conversation_id":"%s"}}'
        % str(UUID(int=7)).encode()
    )
    assert isinstance(close, Command)
    assert arguments(close) == protocol.Close(UUID(int=7))
    for args in (b"{}", b"[]", b"null", b'{"conversation_id":"7"}', b'{"conversation_id":null}',
                 b'{"conversation_id":"00000000-0000-0000-0000-000000000007","more":1}'):  # fmt: skip
        command = decode(b'{"type":"command","id":"1","name":"close","args":' + args + b"}")
        assert isinstance(command, Command)
        with pytest.raises(BadArguments):
            arguments(command)


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536, 70_000])
def test_a_text_frame_has_the_length_the_protocol_asks_for(size: int) -> None:
    frame = text_frame(b"x" * size)
    marker = frame[1]
    length = marker if marker < 126 else int.from_bytes(frame[2:4] if marker == 126 else frame[2:10], "big")
    assert (frame[0], length, frame[-size:] if size else b"") == (0x81, size, b"x" * size)
    assert (marker == 126) == (126 <= size < 65_536)


def test_the_docs_name_every_frame_command_and_close_code() -> None:
    source = Path(protocol.__file__).read_text()
    for word in re.findall(r'tag="(\w+)"', source):
        assert f"`{word}`" in DOCS or f'"type": "{word}"' in DOCS, word
    codes = {
        v
        for k, v in vars(protocol).items()
        if k.isupper() and isinstance(v, int) and v != protocol.CLIENT_FRAME_BYTES
    }
    assert codes == {int(c) for c in re.findall(r"^\| (\d{4}) \|", DOCS, re.M)}
