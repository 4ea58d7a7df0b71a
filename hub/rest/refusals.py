"""What Postgres refuses, as PostgREST would say it: the SQLSTATE is the code, and decides the status.

DETAIL never leaves: it may quote another organization's values, since foreign keys and unique indexes ignore
row security.
"""

from __future__ import annotations

from typing import Any, Final

import asyncpg
import msgspec

from hub.errors import HubError, from_database

#: By the longest beginning that fits; everything else is the caller's mistake, 400.
_STATUS: Final[dict[str, int]] = {
    "08": 503, "09": 500, "0L": 403, "0P": 403, "21": 500, "23503": 409, "23505": 409, "25006": 405,
    "25": 500, "28": 403, "2D": 500, "38": 500, "39": 500, "3B": 500, "40": 500, "42883": 404, "42P01": 404,
    "42P17": 500, "42501": 403, "53400": 500, "53": 503, "54": 500, "55": 500, "57P01": 503, "57": 500,
    "58": 500, "F0": 500, "HV": 500, "XX": 500, "P0001": 400, "P0": 500,
}  # fmt: skip
#: Server faults whose text is about the request and may be told.
_TOLD: Final[dict[str, str | None]] = {
    "21000": None,
    "25006": None,
    "55000": None,
    "57014": "The statement took too long",
    "55P03": "Another transaction holds these rows",
    "40001": "Another transaction changed these rows at the same time",
    "40P01": "Two transactions waited for each other",
    "54001": "The request is too complex",
}
#: What a caller's own words can bring about. Anything else that is neither a server's fault nor listed above
#: says that a statement of ours is wrong, and its text is about our insides.
_CALLERS: Final = (
    "0A000", "22", "23", "28", "42501", "42701", "42702", "42703", "42704", "42725",
    "42803", "42804", "42809", "42846", "42883", "428C9", "42P01", "42P10", "42P18", "42P20", "42P21",
    "42P22", "44000", "P0001", "PT", "25006",
)  # fmt: skip
_CODES: Final = {
    400: "BAD_REQUEST", 401: "AUTHENTICATION_FAILED", 403: "INSUFFICIENT_PERMISSIONS",
    404: "RESOURCE_NOT_FOUND", 405: "METHOD_NOT_ALLOWED", 409: "CONFLICT", 500: "INTERNAL_ERROR",
}  # fmt: skip
#: What our own words say better than the status table's: a field's name, the next step.
_SPOKEN: Final = ("22", "23", "42501", "HUB")


class DatabaseRefusal(HubError):
    """With the status that Postgres' words mean."""

    def __init__(self, message: str, *, status: int, rest_code: str, **more: Any) -> None:
        super().__init__(message, rest_code=rest_code, **more)
        self.status = status  # type: ignore[misc]
        self.code = _CODES.get(status, "SERVICE_UNAVAILABLE" if status > 500 else "BAD_REQUEST")  # type: ignore[misc]


def status_of(state: str, message: str = "") -> int:
    """The table of PostgREST.

    >>> status_of("22P02"), status_of("23505"), status_of("57014"), status_of("PT402")
    (400, 409, 500, 402)
    """
    if state.startswith("PT") and state[2:].isdigit():
        return min(599, max(200, int(state[2:])))
    if state == "22023" and message.startswith("role ") and "does not exist" in message:
        return 401
    if state == "21000" and "requires a WHERE clause" in message:
        return 400
    if state == "42883" and "xmlagg" in message:
        return 406
    for length in (5, 2):
        if state[:length] in _STATUS:
            return _STATUS[state[:length]]
    return 400


def refusal(error: asyncpg.PostgresError) -> Exception:
    """What the caller is told; the error itself when it is a bug of ours."""
    state: str = getattr(error, "sqlstate", None) or "XX000"
    message = str(error).split("\n")[0]
    if state == "PGRST":
        return _raised(error, message)
    status = status_of(state, message)
    if state.startswith(_SPOKEN) and status != 401:
        spoken = from_database(error)
        if spoken is not None:
            return spoken
    if state not in _TOLD and (status >= 500 or not state.startswith(_CALLERS)):
        return from_database(error) or error
    retry = 2 if status == 503 else None
    hint = getattr(error, "hint", None) if state.startswith(("P0001", "PT")) else None
    return DatabaseRefusal(
        _TOLD.get(state) or message, status=status, rest_code=state, hint=hint, retry_after_s=retry
    )


class _Message(msgspec.Struct):
    """`raise sqlstate 'PGRST'` with this as its MESSAGE."""

    message: str
    code: str = "PGRST"
    details: str | None = None
    hint: str | None = None


class _Detail(msgspec.Struct):
    """… and this as its DETAIL."""

    status: int
    headers: dict[str, str] = {}


def _raised(error: asyncpg.PostgresError, message: str) -> HubError:
    try:
        said = msgspec.json.decode(message, type=_Message)
        told = msgspec.json.decode(getattr(error, "detail", None) or "", type=_Detail)
    except msgspec.DecodeError:
        return DatabaseRefusal(
            "Could not parse JSON in the \"RAISE SQLSTATE 'PGRST'\" error", status=500, rest_code="PGRST121"
        )
    return DatabaseRefusal(
        said.message, status=min(599, max(200, told.status)), rest_code=said.code, details=said.details,
        hint=said.hint, headers=told.headers,
    )  # fmt: skip
