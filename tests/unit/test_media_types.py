"""What files are, by their bytes; names; and what a channel takes (MSG-03)."""

from __future__ import annotations

import base64
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.channels import limits
from hub.channels.media import (
    HEAD_BYTES,
    clean_name,
    default_name,
    digest_of,
    disposition,
    kind_of,
    refusal,
    served_type,
    sniff,
)
from tests.media import MP4, OGG, PDF, WEBP, png

ZIP = b"PK\x03\x04" + bytes(22)
SAMPLES: list[tuple[bytes, str | None, str]] = [
    (png(), None, "image/png"),
    (b"\xff\xd8\xff\xe0\x00\x10JFIF", "x.png", "image/jpeg"),
    (b"GIF89a" + bytes(10), None, "image/gif"),
    (WEBP, None, "image/webp"),
    (b"II*\x00" + bytes(9), None, "image/tiff"),
    (b"BM\x76\x00\x00\x00\x00\x00\x00\x00" + bytes(9), None, "image/bmp"),
    (b"BM is how this letter begins", None, "text/plain"),
    (MP4, None, "video/mp4"),
    (MP4, "voice.m4a", "audio/mp4"),
    (b"\x00\x00\x00\x20ftypM4A " + bytes(20), None, "audio/mp4"),
    (b"\x00\x00\x00\x20ftyp3gp4" + bytes(20), None, "video/3gpp"),
    (b"\x00\x00\x00\x14ftypqt  " + bytes(20), None, "video/quicktime"),
    (b"\x00\x00\x00\x18ftypheic" + bytes(20), None, "image/heic"),
    (OGG, None, "audio/ogg"),
    (b"OggS" + bytes(24) + b"\x80theora", None, "video/ogg"),
    (b"ID3\x03" + bytes(9), None, "audio/mpeg"),
    (b"\xff\xfb\x90\x00" + bytes(9), None, "audio/mpeg"),
    (b"\xff\xf1\x50\x80" + bytes(9), None, "audio/aac"),
    (b"#!AMR\n", None, "audio/amr"),
    (b"RIFF\x00\x00\x00\x00WAVEfmt ", None, "audio/wav"),
    (b"\x1a\x45\xdf\xa3" + bytes(20) + b"webm", None, "video/webm"),
    (PDF, "x.png", "application/pdf"),
    (ZIP, "x.zip", "application/zip"),
    (ZIP + b"[Content_Types].xml" + b"word/document.xml", "x.bin",
     "application/vnd.openxmlformats-officedocument.wordprocessingml.document"),
    (b"PK\x03\x04" + bytes(14) + b"\x27\0\0\0" * 2 + b"\x08\0\0\0"
     + b"mimetypeapplication/vnd.oasis.opendocument.text", None, "application/vnd.oasis.opendocument.text"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "old.doc", "application/msword"),
    (b"a,b\n1,2\n", "list.csv", "text/csv"),
    ("مرحبا".encode(), "note.txt", "text/plain"),
    (b"<html>", "x.png", "text/html"),
    (b"\xef\xbb\xbf \n<!DOCTYPE HTML><p>", "x.png", "text/html"),
    (b"<!-- x --><script>", None, "text/html"),
    (b"hello <SCRIPT>alert(1)</SCRIPT>", "x.txt", "text/html"),
    (b"<svg onload=alert(1)>", "x.png", "image/svg+xml"),
    (b"<?xml version='1.0'?><svg/>", "x.png", "image/svg+xml"),
    (b"<?xml version='1.0'?><a/>", None, "application/xml"),
    (b"MZ\x90\x00\x03", "setup.jpg", "application/octet-stream"),
    (b"", None, "application/octet-stream"),
]  # fmt: skip


@pytest.mark.parametrize(("head", "name", "mime"), SAMPLES)
def test_MSG_03_the_type_is_read_from_the_bytes(head: bytes, name: str | None, mime: str) -> None:
    assert sniff(head, name) == mime


@given(st.binary(max_size=200), st.text(max_size=30))
def test_MSG_03_no_bytes_and_no_name_upset_it(head: bytes, name: str) -> None:
    mime = sniff(head, name)
    assert kind_of(mime, len(head)) in ("image", "video", "audio", "document", "sticker")
    assert "/" in served_type(mime)


def test_MSG_03_a_character_cut_at_the_end_of_the_head_is_still_text() -> None:
    text = ("ب" * HEAD_BYTES).encode()
    assert sniff(b"x" + text[: HEAD_BYTES - 1]) == "text/plain"


@pytest.mark.parametrize(
    "mime", ["text/html", "image/svg+xml", "application/xml", "application/xhtml+xml", "text/xml", None, "x"]
)
def test_MSG_03_what_a_browser_would_run_goes_out_as_bytes(mime: str | None) -> None:
    assert served_type(mime) == "application/octet-stream"


def test_MSG_03_kinds() -> None:
    assert kind_of("image/webp", 100_000) == "sticker"
    assert kind_of("image/webp", 600_000) == "image"
    assert kind_of("image/svg+xml", 10) == "document"
    assert kind_of("application/pdf", 10) == "document"
    assert default_name("image", "image/jpeg") == "image.jpg"
    assert default_name("document", "x/y") == "document"


@given(st.text(max_size=400))
def test_MSG_03_clean_names_are_harmless_and_stay_as_they_are(name: str) -> None:
    clean = clean_name(name)
    if clean is not None:
        assert 1 <= len(clean) <= 200
        assert not set(clean) & set("/\\\r\n\t\x00\u202e\u2066")
        assert not clean.startswith((".", " "))
        assert clean_name(clean) == clean
        header = disposition(clean)
        assert header.isascii() and header.isprintable()
        assert header.count('"') == 2


def test_MSG_03_digests_are_read_in_both_spellings() -> None:
    raw = hashlib.sha256(b"x").digest()
    for said in (raw.hex(), raw.hex().upper(), base64.b64encode(raw).decode()):
        assert digest_of(said) == raw.hex()
    for said in (None, "", "b64=", "zz" * 32, base64.b64encode(b"short").decode()):
        assert digest_of(said) is None


def test_MSG_03_limits_are_those_of_the_table() -> None:
    table = limits.WHATSAPP_CLOUD
    assert refusal(table, "image", "image/png", 5 * 1024 * 1024, "x" * 1024) is None
    assert refusal(table, "document", "application/x-anything", 90 * 1024 * 1024, "") is None
    for kind, mime, size, caption, field in (
        ("image", "image/png", 5 * 1024 * 1024 + 1, "", "media_id"),
        ("image", "image/gif", 1, "", "media_id"),
        ("video", "video/quicktime", 1, "", "media_id"),
        ("image", "image/png", 1, "x" * 1025, "content"),
        ("audio", "audio/ogg", 1, "x", "content"),
        ("sticker", "image/webp", 1, "x", "content"),
    ):
        refused = refusal(table, kind, mime, size, caption)
        assert refused is not None and refused[0] == field
