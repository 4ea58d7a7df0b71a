"""Files of messages: what bytes are, which kind of message they make, what a file may be called. Pure.

What somebody says about a file (its name, the type beside it) decides nothing that matters: the type is read
from the bytes, and the name never names anything on our disk.
"""

from __future__ import annotations

import base64
import binascii
import re
import unicodedata
from typing import Final, Literal
from urllib.parse import quote

from hub.channels.limits import ChannelLimits

Kind = Literal["image", "video", "audio", "document", "sticker"]
KINDS: Final[frozenset[str]] = frozenset(("image", "video", "audio", "document", "sticker"))
HEAD_BYTES: Final = 8192
"""How much of a file `sniff` wants to see."""
NAME_CHARS: Final = 200
UNKNOWN: Final = "application/octet-stream"
_STICKER_BYTES: Final = 500 * 1024
"""A WebP above it is a picture: no channel takes a larger sticker."""

_STARTS: Final[tuple[tuple[bytes, str], ...]] = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"II*\x00", "image/tiff"),
    (b"MM\x00*", "image/tiff"),
    (b"#!AMR", "audio/amr"),
    (b"ID3", "audio/mpeg"),
    (b"fLaC", "audio/flac"),
    (b"MThd", "audio/midi"),
    (b"%PDF-", "application/pdf"),
    (b"{\\rtf", "application/rtf"),
    (b"\x1f\x8b", "application/gzip"),
    (b"7z\xbc\xaf\x27\x1c", "application/x-7z-compressed"),
    (b"Rar!\x1a\x07", "application/vnd.rar"),
    (b"\x00\x00\x01\xba", "video/mpeg"),
    (b"\x00\x00\x01\xb3", "video/mpeg"),
)
_OFFICE: Final = "application/vnd.openxmlformats-officedocument."
_ZIPPED: Final[dict[str, tuple[bytes, str]]] = {
    "docx": (b"word/", _OFFICE + "wordprocessingml.document"),
    "xlsx": (b"xl/", _OFFICE + "spreadsheetml.sheet"),
    "pptx": (b"ppt/", _OFFICE + "presentationml.presentation"),
}
_OLE: Final = {
    "doc": "application/msword",
    "xls": "application/vnd.ms-excel",
    "ppt": "application/vnd.ms-powerpoint",
}
_TEXTS: Final = {
    "csv": "text/csv",
    "vcf": "text/vcard",
    "ics": "text/calendar",
    "json": "application/json",
    "md": "text/markdown",
}
#: What makes a browser read a text as a page (WHATWG's list and a few that run something), after white space.
_MARKUP = re.compile(
    rb"<(?:!doctype\s+html|html|head|body|script|style|iframe|img|svg|a|b|br|div|font|form|h[1-6]|input|link"
    rb"|meta|object|embed|p|table|title|video|!--)[\s>/!-]",
    re.IGNORECASE,
)
_CONTROL = re.compile(rb"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f]")
#: The passive types. Anything else goes out as bytes without a meaning: no viewer of ours runs it by mistake.
_PASSIVE = re.compile(
    r"image/(?:jpeg|png|gif|webp|avif|heic|bmp|tiff)|(?:audio|video)/[\w.+-]+"
    r"|text/(?:plain|csv|vcard|calendar|markdown)"
    r"|application/(?:pdf|zip|gzip|rtf|json|msword|vnd\.(?!mozilla)[\w.+-]+|x-7z-compressed)"
)
_ENDINGS: Final = {
    "image/jpeg": "jpg",
    "image/png": "png",
    "image/gif": "gif",
    "image/webp": "webp",
    "video/mp4": "mp4",
    "video/3gpp": "3gp",
    "audio/mpeg": "mp3",
    "audio/ogg": "ogg",
    "audio/mp4": "m4a",
    "audio/aac": "aac",
    "audio/amr": "amr",
    "application/pdf": "pdf",
    "text/plain": "txt",
}


def sniff(head: bytes, name: str | None = None) -> str:
    """The type of a file by its first HEAD_BYTES. The ending of ``name`` chooses only between types whose
    bytes look alike (the members of a zip family, flavours of text)."""
    ending = name.rpartition(".")[2].lower() if name and "." in name else ""
    for start, mime in _STARTS:
        if head.startswith(start):
            return mime
    if head[:4] == b"RIFF":
        riff = {b"WEBP": "image/webp", b"WAVE": "audio/wav", b"AVI ": "video/x-msvideo"}.get(head[8:12])
        if riff is not None:
            return riff
    if head[4:8] == b"ftyp":
        return _boxed(head[8:12], ending)
    if head[:4] == b"OggS":
        return "video/ogg" if b"theora" in head[:512] else "audio/ogg"
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return "video/webm" if b"webm" in head[:64] else "video/x-matroska"
    if head[:2] == b"BM" and head[6:10] == b"\x00\x00\x00\x00":
        return "image/bmp"
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return _zipped(head, ending)
    if head[:8] == b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1":
        return _OLE.get(ending, "application/x-ole-storage")
    if len(head) > 1 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0:
        return "audio/aac"
    if len(head) > 2 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0 and head[1] & 0x06 and head[2] >> 4 != 15:
        return "audio/mpeg"
    return _textual(head, ending)


def _boxed(brand: bytes, ending: str) -> str:
    """ISO base media by its major brand."""
    if brand in (b"heic", b"heix", b"mif1", b"msf1"):
        return "image/heic"
    if brand in (b"avif", b"avis"):
        return "image/avif"
    if brand[:2] == b"3g":
        return "video/3gpp"
    if brand in (b"M4A ", b"M4B ", b"M4P ") or ending == "m4a":
        return "audio/mp4"
    return "video/quicktime" if brand == b"qt  " else "video/mp4"


def _zipped(head: bytes, ending: str) -> str:
    if head[30:38] == b"mimetype":  # OpenDocument and EPUB say it in their first, uncompressed member
        size = int.from_bytes(head[22:26], "little")
        said = head[38 : 38 + min(size, 100)]
        if re.fullmatch(rb"application/[\w.+-]+", said):
            return said.decode()
    for name, (member, mime) in _ZIPPED.items():
        if b"[Content_Types].xml" in head and (member in head or ending == name):
            return mime
    return "application/zip"


def _textual(head: bytes, ending: str) -> str:
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "text/plain"
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not text or _CONTROL.search(head):
        return UNKNOWN
    try:
        head.decode()
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3 or len(head) < HEAD_BYTES:  # not just a character cut in two
            return UNKNOWN
    if _MARKUP.match(text):
        return "image/svg+xml" if text[:4].lower() == b"<svg" else "text/html"
    if text[:5] == b"<?xml":
        lower = text.lower()
        return (
            "image/svg+xml" if b"<svg" in lower else "text/html" if b"<html" in lower else "application/xml"
        )
    if b"<script" in text.lower():
        return "text/html"
    return _TEXTS.get(ending, "text/plain")


def kind_of(mime: str, size: int) -> Kind:
    """As what kind of message a file is sent unless its sender says otherwise."""
    if mime == "image/webp" and size <= _STICKER_BYTES:
        return "sticker"
    if mime in ("image/jpeg", "image/png", "image/gif", "image/webp"):
        return "image"
    main = mime.partition("/")[0]
    if main == "video":
        return "video"
    return "audio" if main == "audio" else "document"


def served_type(mime: str | None) -> str:
    """The Content-Type under which a stored file goes out."""
    return mime if mime is not None and _PASSIVE.fullmatch(mime) else UNKNOWN


def clean_name(name: str | None) -> str | None:
    """A file's name as people see it: no folders, no control or direction-changing characters ("exe" written
    backwards), at most NAME_CHARS with its ending kept. None when nothing is left."""
    if not name:
        return None
    name = unicodedata.normalize("NFC", name.encode("utf-8", "replace").decode()).replace("\\", "/")
    name = "".join(
        c for c in name.rpartition("/")[2] if unicodedata.category(c)[0] != "C" or c in "\u200c\u200d"
    )
    name = " ".join(name.split()).lstrip(". ")
    if len(name) > NAME_CHARS:
        stem, dot, ending = name.rpartition(".")
        name = stem[: NAME_CHARS - len(ending) - 1] + dot + ending if dot and len(ending) <= 16 else name
        name = name[:NAME_CHARS]
    return name or None


def default_name(kind: str, mime: str | None) -> str:
    """For a file that came without a name."""
    ending = _ENDINGS.get(mime or "")
    return f"{kind}.{ending}" if ending else kind


def disposition(name: str) -> str:
    """Content-Disposition of a download: the name for old clients in ASCII, and as it is."""
    plain = re.sub(r"[^A-Za-z0-9 ._()+-]", "_", name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"


def digest_of(said: str | None) -> str | None:
    """A provider's SHA-256, hexadecimal or base64, as lower hexadecimal; None for anything else."""
    if not said:
        return None
    if re.fullmatch(r"[0-9a-fA-F]{64}", said):
        return said.lower()
    try:
        raw = base64.b64decode(said + "=" * (-len(said) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None
    return raw.hex() if len(raw) == 32 else None


def refusal(limits: ChannelLimits, kind: str, mime: str, size: int, caption: str) -> tuple[str, str] | None:
    """Why a channel does not take this file as this kind of message: (field, reason); None when it does."""
    limit = limits.media.get(kind)
    if limit is None:
        return "media_id", f"this channel takes no {kind}"
    if limit.mime_types and mime not in limit.mime_types:
        allowed = ", ".join(sorted(limit.mime_types))
        return "media_id", f"this channel takes {allowed} as {kind}, not {mime}; send it as a document"
    if size > limit.max_bytes:
        return (
            "media_id",
            f"this channel takes a {kind} of at most {readable(limit.max_bytes)}, this has {readable(size)}",
        )
    if caption and kind in ("audio", "sticker"):
        return "content", f"this channel takes no caption with {kind}"
    if len(caption) > limits.caption:
        return "content", f"a caption has at most {limits.caption} characters"
    return None


def readable(size: int) -> str:
    """Bytes for people."""
    return f"{size / 1024 / 1024:.3g} MB" if size >= 1024 * 1024 else f"{max(1, size // 1024)} KB"
