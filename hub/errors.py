"""Refusals: what a caller did wrong or may try again, with the code, the status and the next step.

    HubError
    ├─ BadRequest 400 · ValidationFailed 422 · PayloadTooLarge 413 · UnsupportedMedia 415
    ├─ AuthenticationFailed 401 · InvalidApiKey 401
    ├─ InsufficientPermissions 403 · NotFound 404 · MethodNotAllowed 405
    ├─ NotAcceptable 406 · RangeNotSatisfiable 416 · RequestTimeout 408 · HeadersTooLarge 431
    ├─ Conflict 409 (ReplyConflict: a colleague answered meanwhile)
    ├─ RateLimited 429
    └─ Unavailable 503 (the database or a provider is away; Retry-After)

Everything else is a bug: it rises, is logged once and answered as 500 INTERNAL_ERROR (Internal) with a
request id alone.
docs/errors.md lists the codes; a test keeps the two equal.
"""

from __future__ import annotations

from typing import Any, ClassVar

import asyncpg


class HubError(Exception):
    """A refusal its caller can act on. ``details`` is what the document's `details` carries."""

    code: ClassVar[str] = "INTERNAL_ERROR"
    status: ClassVar[int] = 500
    #: PostgREST's code for the same thing, where it has one (rest.md 11).
    rest_code: ClassVar[str] = "PGRST500"

    def __init__(
        self,
        message: str,
        *,
        details: Any = None,
        hint: str | None = None,
        retry_after_s: float | None = None,
        rest_code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.details = details
        self.hint = hint
        self.retry_after_s = retry_after_s
        self.headers = headers or {}
        if rest_code is not None:
            self.rest_code = rest_code  # type: ignore[misc]


class BadRequest(HubError):
    code, status, rest_code = "BAD_REQUEST", 400, "PGRST100"


class AuthenticationFailed(HubError):
    code, status, rest_code = "AUTHENTICATION_FAILED", 401, "PGRST301"


class InvalidApiKey(AuthenticationFailed):
    code = "INVALID_API_KEY"


class InsufficientPermissions(HubError):
    code, status, rest_code = "INSUFFICIENT_PERMISSIONS", 403, "42501"


class NotFound(HubError):
    code, status, rest_code = "RESOURCE_NOT_FOUND", 404, "PGRST205"


class MethodNotAllowed(HubError):
    code, status, rest_code = "METHOD_NOT_ALLOWED", 405, "PGRST117"


class NotAcceptable(HubError):
    code, status, rest_code = "NOT_ACCEPTABLE", 406, "PGRST107"


class RangeNotSatisfiable(HubError):
    code, status, rest_code = "RANGE_NOT_SATISFIABLE", 416, "PGRST103"


class RequestTimeout(HubError):
    """The request did not arrive in time; not a server that was slow."""

    code, status, rest_code = "REQUEST_TIMEOUT", 408, "PGRST102"


class HeadersTooLarge(HubError):
    code, status, rest_code = "HEADERS_TOO_LARGE", 431, "PGRST102"


class Conflict(HubError):
    code, status, rest_code = "CONFLICT", 409, "23505"


class ReplyConflict(Conflict):
    """Somebody else answered this conversation after what the agent had seen; details: {messages: [ids]}."""

    code = "REPLY_CONFLICT"


class PayloadTooLarge(HubError):
    code, status, rest_code = "PAYLOAD_TOO_LARGE", 413, "PGRST103"


class UnsupportedMedia(HubError):
    code, status, rest_code = "UNSUPPORTED_MEDIA_TYPE", 415, "PGRST107"


class ValidationFailed(HubError):
    """details: {field, message}, or a list of them."""

    code, status, rest_code = "VALIDATION_ERROR", 422, "PGRST102"


class RateLimited(HubError):
    code, status, rest_code = "RATE_LIMIT_EXCEEDED", 429, "RATE_LIMIT_EXCEEDED"


class Unavailable(HubError):
    code, status, rest_code = "SERVICE_UNAVAILABLE", 503, "PGRST001"


class Internal(HubError):
    """A bug of ours, as its caller sees it."""

    code, status, rest_code = "INTERNAL_ERROR", 500, "XX000"


def internal() -> Internal:
    return Internal("Something went wrong here. Give the request id to whoever runs this hub.")


def invalid(field: str, message: str) -> ValidationFailed:
    """The document's 422: {"error": "Validation error", "details": {"field", "message"}}."""
    return ValidationFailed("Validation error", details={"field": field, "message": message})


#: Constraints whose name says more than the database's message would.
_CONSTRAINT_MESSAGES: dict[str, str] = {
    "conversations_open_key": "This contact already has an open conversation on this channel",
    "deals_probability_check": "probability must be from 0 to 100",
    "projects_dates_check": "end_date must not be before start_date",
    "notes_subject_check": "A note needs a contact, deal, company or conversation",
    "pipelines_stages_check": "stages must be a JSON array",
}


def _checked_column(table: str | None, constraint: str | None) -> str | None:
    """The column that a check speaks of, by our rule for names: <table>_<column>_check."""
    if table and constraint and constraint.startswith(f"{table}_") and constraint.endswith("_check"):
        return constraint[len(table) + 1 : -len("_check")]
    return None


def _said_by(error: asyncpg.PostgresError) -> str:
    """The message alone, without DETAIL and HINT."""
    return str(error).split("\n")[0]


def from_database(error: asyncpg.PostgresError) -> HubError | None:
    """The refusal a database error stands for; None when it is a bug of ours. DETAIL never leaves: it may
    quote another organization's values (foreign keys and unique indexes ignore row security)."""
    state: str = getattr(error, "sqlstate", None) or ""
    constraint = getattr(error, "constraint_name", None)
    said = _CONSTRAINT_MESSAGES.get(constraint or "")
    if state == "23505":
        return Conflict(said or "A row with these values exists already", hint=constraint, rest_code=state)
    if state == "23503":
        return Conflict(
            said or "A referenced row does not exist, or is still in use", hint=constraint, rest_code=state
        )
    if state == "23514":
        field = _checked_column(getattr(error, "table_name", None), constraint)
        text = said or (f"This value of {field} is not allowed" if field else "This value is not allowed")
        return ValidationFailed(
            "Validation error", details={"field": field, "message": text}, hint=constraint, rest_code=state
        )
    if state == "23502":
        column = getattr(error, "column_name", None)
        return BadRequest(
            f"{column} must not be null" if column else "A required value is missing",
            hint=column,
            rest_code=state,
        )
    if state == "HUB04":
        return NotFound(_said_by(error))
    if state == "42501":
        if getattr(error, "server_source_function", None) == "exec_stmt_raise":
            # One of our own functions says what cannot be written, or which permission is missing.
            return InsufficientPermissions(_said_by(error), rest_code=state)
        return InsufficientPermissions(
            "You may not do this", hint="Ask an administrator of your organization", rest_code=state
        )
    if state == "HUB05":
        return ValidationFailed(
            "Validation error", details={"field": None, "message": _said_by(error)}, rest_code=state
        )
    if state == "HUB01":
        return BadRequest(
            "Too many rows in one request", hint="Send them in chunks of 1000", rest_code="HUB01"
        )
    if state.startswith("22") and str(error).startswith("invalid input for query argument"):
        return BadRequest(
            "A value is out of its type's range", rest_code=state
        )  # the driver's text shows our statement
    if state.startswith("22"):
        return BadRequest(str(error).split("\n")[0], rest_code=state)
    if state in ("57014", "55P03", "40P01", "40001"):
        return Unavailable("The database was too busy for this", retry_after_s=1, rest_code=state)
    if state.startswith(("08", "53", "57P")):
        return Unavailable("The database is away", retry_after_s=2, rest_code="PGRST001")
    return None


def place_of(text: str) -> tuple[str | None, str]:
    """The member and what is wrong with it, of what msgspec says: "Expected `str`, got `int` - at `$.phone`",
    "Object missing required field `phone`"."""
    message, _, path = text.partition(" - at `$")
    field = path.rstrip("`").lstrip(".")
    missing = "missing required field `"
    if missing in message:
        name = message.split(missing, 1)[1].split("`", 1)[0]
        return f"{field}.{name}" if field else name, f"{name} is required"
    unknown = "unknown field `"
    if unknown in message:
        name = message.split(unknown, 1)[1].split("`", 1)[0]
        return f"{field}.{name}" if field else name, f"{name} is not a parameter of this"
    return field or None, message
