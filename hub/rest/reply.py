"""What goes back: status, headers and body, before anything of HTTP's machinery."""

from __future__ import annotations

from typing import Final

import msgspec

from hub.errors import NotAcceptable, RangeNotSatisfiable
from hub.rest.media import Media

#: Answers differ by these.
VARY: Final = "Accept, Prefer, Range"


class Reply(msgspec.Struct, kw_only=True):
    """``body`` None: none at all, and no Content-Type."""

    status: int
    headers: dict[str, str]
    body: bytes | None = None


def content_range(offset: int, rows: int, total: int | None) -> str:
    """Of a read: `0-24/*`, `*/57`."""
    place = f"{offset}-{offset + rows - 1}" if rows else "*"
    return f"{place}/{total if total is not None else '*'}"


def read_status(rows: int, total: int | None) -> int:
    """206 when the caller asked how many there are and does not get them all."""
    return 206 if total is not None and rows < total else 200


def check_offset(offset: int, total: int | None) -> None:
    if total is not None and offset > total:
        raise RangeNotSatisfiable(
            "Requested range not satisfiable",
            details=f"An offset of {offset} was requested, but there are only {total} rows.",
            headers={"Content-Range": f"*/{total}"},
            rest_code="PGRST103",
        )


def check_single(rows: int, media: Media) -> None:
    """Raises NotAcceptable PGRST116 unless the caller who wants one object gets one."""
    if media.is_object and rows != 1:
        raise NotAcceptable(
            "Cannot coerce the result to a single JSON object",
            details=f"The result contains {rows} rows",
            rest_code="PGRST116",
        )


def rendered(body: bytes, media: Media, header: str = "") -> bytes:
    """The answer from what Postgres made; ``header`` is the first line of a CSV."""
    if media.is_object:
        return body.strip()[1:-1].strip()
    if media.kind == "csv":
        return header.encode() + b"\n" + body if body else header.encode()
    return body


def csv_line(names: list[str]) -> str:
    return ",".join(
        '"' + name.replace('"', '""') + '"' if any(c in name for c in ',"\n\r') else name for name in names
    )
