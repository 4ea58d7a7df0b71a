"""What each parser promises for any bytes: an answer, or a refusal of its own kind; else it crashed."""

from __future__ import annotations

import os
import struct
import tempfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from hub.auth.secrets import CannotOpen, open_secret
from hub.auth.tokens import Keyring
from hub.bodies import check_json, decode_json
from hub.channels import signing
from hub.channels.spool import SpoolFile
from hub.channels.whatsapp_cloud import WhatsAppCloud
from hub.domain.phones import parse_phone
from hub.errors import AuthenticationFailed, BadRequest, HubError
from hub.functions.messages import _insert, _send
from hub.realtime import protocol
from hub.rest.compiler import Compiler, WriteShape
from hub.rest.grammar import parse_query
from hub.rest.prefer import parse_prefer
from hub.rest.schema import Column, Schema, Table
from hub.rest.sealed import split
from hub.settings import BadSettings, load_settings
from tests.unit.test_tokens import HS, PEM, row
from tests.unit.test_tokens import SETTINGS as TOKEN_SETTINGS

Target = Callable[[bytes], None]
_ADAPTER = WhatsAppCloud()
_SETTINGS = {"DATABASE_URL": "postgresql://db/hub", "REDIS_URL": "redis://c", "HUB_SECRET_KEY": "k" * 32}
_LOADED = load_settings(_SETTINGS)
_TABLE = Table(
    "contacts",
    {
        n: Column(n, t)
        for n, t in {
            "organization_id": "uuid", "id": "uuid", "first_name": "text", "tags": "text[]",
            "custom_fields": "jsonb",
        }.items()
    },
    (("id",),),
)  # fmt: skip
_COMPILER = Compiler(Schema({"contacts": _TABLE}, {}, {}))


def webhook(data: bytes) -> None:
    with suppress(msgspec.DecodeError):
        _ADAPTER.parse(data)


def grammar(data: bytes) -> None:
    """Query string, and the statements that are made of it."""
    text = data.decode("utf-8", "surrogateescape")
    try:
        query = parse_query(text)
        shape = WriteShape(table="contacts", shape=query.shape, names=("id",), returning="rows")
        for _, made in (
            _COMPILER.read("contacts", query.shape, "json", True), _COMPILER.delete(shape),
            _COMPILER.update(shape),
            _COMPILER.insert(msgspec.structs.replace(shape, resolution="merge-duplicates")),
        ):  # fmt: skip
            made.text.encode()
    except HubError as error:
        assert error.status in (400, 416), error
    parse_prefer([text])


def frames(data: bytes) -> None:
    try:
        found = protocol.decode(data)
    except protocol.BadFrame:
        return
    if isinstance(found, protocol.Command):
        try:
            protocol.arguments(found)
        except protocol.BadArguments:
            return


_KEPT = tempfile.TemporaryDirectory(  # goes with the process
    prefix="hub-fuzz-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None
)
_FOLDER = Path(_KEPT.name)


def spool(data: bytes) -> None:
    """A file of these bytes, and one whose record has a good checksum over them."""
    sealed = struct.pack("<4sII", b"HSP1", len(data), zlib.crc32(data)) + data
    for raw in (data, sealed, sealed + data):
        path = _FOLDER / "x.spool"
        path.write_bytes(raw)
        file = SpoolFile.adopt(path)
        assert file is not None
        try:
            for _ in range(len(raw) + 2):
                if file.is_drained:
                    break
                _, position = file.read(100)
                assert position > file.position, "reading goes on"
                file.position = position
            assert file.is_drained
        finally:
            file.clear()
            file.is_damaged = False
            file.finish()


def phones(data: bytes) -> None:
    found = parse_phone(data.decode("utf-8", "replace"))
    if found is not None:
        again = parse_phone(found.e164)
        assert again is not None and again.e164 == found.e164, "one canonical form"


_RING = Keyring(
    [row(TOKEN_SETTINGS, "hs", "HS256", HS), row(TOKEN_SETTINGS, "es", "ES256", PEM)], TOKEN_SETTINGS
)


def tokens(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    try:
        _RING.verify(text)
        raise AssertionError("a forged token was taken")
    except AuthenticationFailed:
        pass
    try:
        open_secret(_LOADED, text, table="t", column="c", organization_id=None, row_id=None)
        raise AssertionError("a forged secret opened")
    except CannotOpen:
        pass
    assert not signing.verify_meta(text, b"body", ["secret"])
    assert not signing.verify_stripe(text, b"body", ["secret"], now_s=1.0)
    assert not signing.verify_tiktok(text, b"body", ["secret"], now_s=1.0)


def bodies(data: bytes) -> None:
    try:
        check_json(data)
    except BadRequest:
        return
    decoders: tuple[Any, ...] = (_insert, _send)
    for decoder in decoders:
        with suppress(HubError, msgspec.DecodeError, UnicodeDecodeError):  # each is answered 400 or 422
            decode_json(data, decoder, "application/json")
    with suppress(msgspec.DecodeError, UnicodeDecodeError):
        split(msgspec.json.decode(data))


def configuration(data: bytes) -> None:
    environ = dict(_SETTINGS)
    for line in data.decode("utf-8", "replace").split("\n"):
        name, equals, value = line.partition("=")
        if equals:
            environ[name] = value
    try:
        load_settings(environ)
    except BadSettings:
        return


TARGETS: dict[str, Target] = {
    t.__name__: t for t in (webhook, grammar, frames, spool, phones, tokens, bodies, configuration)
}
