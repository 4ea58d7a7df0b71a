"""Every answer that is not a success has one body, on every surface:

    {"error", "message", "code", "details", "hint", "error_code", "request_id"}

`code` speaks the surface's language: PostgREST's codes and SQLSTATEs under /rest/v1, GoTrue's under /auth/v1,
the API document's elsewhere. `error_code` is always the document's (GoTrue's under /auth/v1). Texts of bugs
and of databases never leave: a 500 has a request id, and the log has the rest.
"""

from __future__ import annotations

from typing import Any, Literal

import asyncpg
import msgspec
import structlog
from aiohttp import web

from hub.errors import (
    BadRequest,
    HubError,
    InsufficientPermissions,
    MethodNotAllowed,
    NotFound,
    PayloadTooLarge,
    Unavailable,
    UnsupportedMedia,
    ValidationFailed,
    from_database,
    place_of,
)

log = structlog.get_logger()
Surface = Literal["rest", "auth", "functions", "web"]

#: The codes the API document lists; `error_code` under /rest/v1 is always one of them.
DOCUMENTED = frozenset(
    {
        "AUTHENTICATION_FAILED", "INVALID_API_KEY", "INSUFFICIENT_PERMISSIONS", "RESOURCE_NOT_FOUND",
        "VALIDATION_ERROR", "RATE_LIMIT_EXCEEDED", "SERVICE_UNAVAILABLE", "INTERNAL_ERROR",
    }
)  # fmt: skip
_BY_STATUS = {
    401: "AUTHENTICATION_FAILED",
    403: "INSUFFICIENT_PERMISSIONS",
    404: "RESOURCE_NOT_FOUND",
    429: "RATE_LIMIT_EXCEEDED",
    500: "INTERNAL_ERROR",
}
#: GoTrue's words for refusals that are raised below /auth/v1 without one of their own.
_GOTRUE_BY_STATUS = {
    400: "validation_failed",
    401: "no_authorization",
    403: "not_admin",
    404: "not_found",
    405: "validation_failed",
    408: "request_timeout",
    413: "validation_failed",
    415: "validation_failed",
    422: "validation_failed",
    429: "over_request_rate_limit",
    503: "request_timeout",
    500: "unexpected_failure",
}
#: Codes of a credential that was read and refused; their words are ours and hold no quotes.
_TOKEN_REFUSED = frozenset({"PGRST301", "PGRST303", "22023"})
_encode = msgspec.json.Encoder(uuid_format="canonical").encode


def surface_of(path: str) -> Surface:
    if path.startswith("/rest/"):
        return "rest"
    if path.startswith("/auth/"):
        return "auth"
    if path.startswith("/functions/"):
        return "functions"
    return "web"


def documented_code(error: HubError) -> str:
    """The API document's code for a refusal: its own, else that of its status."""
    if error.code in DOCUMENTED:
        return error.code
    return _BY_STATUS.get(error.status, "SERVICE_UNAVAILABLE" if error.status > 500 else "VALIDATION_ERROR")


def error_body(error: HubError, surface: Surface, request_id: str) -> dict[str, Any]:
    code, error_code = error.code, error.code
    details: Any = error.details
    if surface == "rest":
        code, error_code = error.rest_code, documented_code(error)
        if error.status != 300:  # whose choices are a list
            details = _as_text(details)  # supabase clients search it for "0 rows"
    elif surface == "auth" and not code.islower():
        code = error_code = _GOTRUE_BY_STATUS.get(error.status, "unexpected_failure")
    body: dict[str, Any] = {
        "error": error.message,
        "message": error.message,
        "code": code,
        "details": details,
        "hint": error.hint,
        "error_code": error_code,
        "request_id": request_id,
    }
    if surface == "auth":
        body["msg"] = error.message
        if code == "weak_password":
            body["weak_password"] = details
    return body


def _as_text(details: Any) -> str | None:
    if details is None or isinstance(details, str):
        return details
    if isinstance(details, dict) and set(details) == {"field", "message"}:
        return f"{details['field']}: {details['message']}" if details["field"] else str(details["message"])
    if isinstance(details, dict) and set(details) == {"missing"}:
        return f"needs {' or '.join(details['missing'])}" if details["missing"] else "needs another role"
    return _encode(details).decode()


def error_response(
    error: HubError, surface: Surface, request_id: str, *, anonymous: bool = False
) -> web.Response:
    """The one answer for a refusal. ``anonymous``: under /rest/v1 the anon role is told to sign in (401), not
    that it may not (403)."""
    status = (
        401
        if surface == "rest" and anonymous and isinstance(error, InsufficientPermissions)
        else error.status
    )
    body = error_body(error, surface, request_id)
    if status != error.status:
        body["error_code"] = "AUTHENTICATION_FAILED"
    headers = dict(error.headers)
    if surface == "rest":
        headers["Proxy-Status"] = f"PostgREST; error={body['code']}"
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
        if surface == "rest" and error.rest_code in _TOKEN_REFUSED:
            headers["WWW-Authenticate"] += f' error="invalid_token", error_description="{error.message}"'
    if isinstance(error, MethodNotAllowed) and isinstance(error.details, dict):
        headers["Allow"] = ", ".join(error.details.get("allowed", ()))
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(max(1, round(error.retry_after_s)))
    try:
        encoded = _encode(body)
    except UnicodeEncodeError:  # a text quotes bytes of the request that were no UTF-8
        message = error.message.encode(errors="replace").decode()
        encoded = _encode(body | {"error": message, "message": message, "details": None})
    return web.Response(
        body=encoded, status=status, content_type="application/json", charset="utf-8", headers=headers
    )


def as_refusal(error: Exception) -> HubError | None:
    """What an exception means to the caller; None for a bug of ours."""
    if isinstance(error, HubError):
        return error
    if isinstance(error, asyncpg.PostgresError):
        return from_database(error)
    if isinstance(error, msgspec.ValidationError):  # before its parent DecodeError
        field, text = place_of(str(error))
        return ValidationFailed("Validation error", details={"field": field, "message": text})
    if isinstance(error, web.RequestPayloadError):
        return BadRequest("The body cannot be read to its end")
    if isinstance(error, UnicodeEncodeError):  # bytes of a header or address that are no UTF-8
        return BadRequest("The request holds bytes that are not UTF-8", rest_code="PGRST100")
    if isinstance(error, (msgspec.DecodeError, RecursionError, UnicodeDecodeError)):
        return BadRequest("The body is not valid JSON", rest_code="PGRST102")
    if isinstance(error, web.HTTPException):
        return _from_aiohttp(error)
    if isinstance(error, (TimeoutError, OSError, asyncpg.InterfaceError)):
        return Unavailable("A service that this needs did not answer", retry_after_s=2)
    return None


def _from_aiohttp(error: web.HTTPException) -> HubError | None:
    if error.status == 404:
        return NotFound("Nothing is here", rest_code="PGRST125")
    if isinstance(error, web.HTTPMethodNotAllowed):
        return MethodNotAllowed(
            "This method is not allowed here", details={"allowed": sorted(error.allowed_methods)}
        )
    if error.status == 413:
        return PayloadTooLarge("The body is too large")
    if error.status == 415:
        return UnsupportedMedia("This content type or encoding is not accepted")
    if error.status == 400:
        return BadRequest("The request cannot be read")
    return None
