"""Bodies of writes: JSON, CSV or a form as rows, whose members stay undecoded until Postgres reads them."""

from __future__ import annotations

import csv
import io
from typing import Final
from urllib.parse import parse_qsl

import msgspec

from hub.bodies import check_json
from hub.errors import BadRequest
from hub.rest.schema import Table

CSV_BYTES: Final = 10 * 1024 * 1024
#: Rows of one request on tables whose rows are no events; those are held to 1,000 by the database.
MOST_ROWS: Final = 5000

Row = dict[str, msgspec.Raw]
_rows = msgspec.json.Decoder(list[Row])
_row = msgspec.json.Decoder(Row)
_anything = msgspec.json.Decoder()
_encode = msgspec.json.Encoder(uuid_format="canonical").encode
_NULL: Final = msgspec.Raw(b"null")


class Rows:
    """What is to be written. ``text`` is the JSON array of it; ``change`` must be told when ``rows`` were
    touched."""

    def __init__(self, rows: list[Row], raw: bytes | None = None) -> None:
        self.rows = rows
        self._raw = raw

    def change(self) -> None:
        self._raw = None

    @property
    def text(self) -> str:
        if self._raw is None:
            self._raw = _encode(self.rows)
        return self._raw.decode()

    @property
    def first(self) -> str:
        """The one object of an update."""
        return _encode(self.rows[0]).decode()


def is_csv(content_type: str) -> bool:
    return content_type == "text/csv"


def read_rows(raw: bytes, content_type: str) -> Rows:
    """Raises BadRequest PGRST102."""
    if is_csv(content_type):
        return _csv_rows(raw)
    if content_type == "application/x-www-form-urlencoded":
        pairs = parse_qsl(raw.decode(), keep_blank_values=True, max_num_fields=500)
        return Rows([{name: msgspec.Raw(_encode(value)) for name, value in pairs}])
    if content_type not in ("application/json", "application/octet-stream", "text/plain") and (
        not content_type.endswith("+json")
    ):
        raise BadRequest(f"Content-Type {content_type[:80]} is not accepted", rest_code="PGRST102")
    raw = raw.strip()
    check_json(raw)
    try:
        if raw.startswith(b"["):
            rows = Rows(_rows.decode(raw), raw)
        elif raw.startswith(b"{"):
            rows = Rows([_row.decode(raw)], b"[" + raw + b"]")
        else:
            _anything.decode(raw)
            rows = Rows([])  # a number or text alone: PostgREST takes it for no rows
        raw.decode()
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRequest(
            "The body is not a JSON object or an array of objects", rest_code="PGRST102"
        ) from error
    if len(rows.rows) > MOST_ROWS:
        raise BadRequest(
            "Too many rows in one request", hint="Send them in chunks of 1000", rest_code="HUB01"
        )
    return rows


def _csv_rows(raw: bytes) -> Rows:
    try:
        lines = list(csv.reader(io.StringIO(raw.decode("utf-8-sig"), newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadRequest(f"The body is not CSV: {error}"[:200], rest_code="PGRST102") from error
    lines = [line for line in lines if line]
    if not lines:
        return Rows([])
    names, *rest = lines
    if len(rest) > MOST_ROWS:
        raise BadRequest(
            "Too many rows in one request", hint="Send them in chunks of 1000", rest_code="HUB01"
        )
    if any(len(line) != len(names) for line in rest):
        raise BadRequest("All lines must have the same number of fields", rest_code="PGRST102")
    return Rows(
        [
            {n: _NULL if v == "NULL" else msgspec.Raw(_encode(v)) for n, v in zip(names, line, strict=True)}
            for line in rest
        ]
    )


def names_written(table: Table, rows: list[Row], columns: tuple[str, ...] | None) -> list[str]:
    """The columns that are written. Raises BadRequest PGRST204 for an unknown one, PGRST102 for rows of
    different keys."""
    if columns is not None:
        names = list(dict.fromkeys(columns))
    else:
        names = list(rows[0]) if rows else []
        keys = rows[0].keys() if rows else ()
        if any(row.keys() != keys for row in rows[1:]):
            raise BadRequest("All object keys must match", rest_code="PGRST102")
    for name in names:
        if name not in table.columns:
            raise BadRequest(
                f"Could not find the '{name[:80]}' column of '{table.name}' in the schema cache",
                rest_code="PGRST204",
            )
    return names
