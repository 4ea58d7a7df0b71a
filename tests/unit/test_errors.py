"""One body for every refusal, and docs/errors.md lists what can be refused."""

from __future__ import annotations

import re
from pathlib import Path

import asyncpg
import msgspec
import pytest

from hub import errors
from hub.auth.refusals import AuthRefusal
from hub.errors import HubError, InsufficientPermissions, RateLimited, from_database, invalid
from hub.http_errors import as_refusal, documented_code, error_body, error_response

DOCS = Path(__file__).parents[2] / "docs" / "errors.md"
MEMBERS = {"error", "message", "code", "details", "hint", "error_code", "request_id"}


def refusals() -> dict[str, type[HubError]]:
    found = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, HubError)]
    return {c.code: c for c in found}


def test_errors_and_their_page_agree() -> None:
    listed = dict(re.findall(r"^\| `([A-Z_]+)` \| (\d+) \|", DOCS.read_text(encoding="utf-8"), re.M))
    assert listed == {code: str(c.status) for code, c in refusals().items()}


@pytest.mark.parametrize("surface", ["rest", "auth", "functions", "web"])
@pytest.mark.parametrize("code", refusals())
def test_ERR_01_every_refusal_has_the_same_body(surface: str, code: str) -> None:
    error = refusals()[code]("No", details={"a": 1}, hint="Try")
    body = error_body(error, surface, "r1")  # type: ignore[arg-type]
    assert body.keys() >= MEMBERS
    assert body["error"] == body["message"] == "No"
    assert isinstance(body["code"], str)
    if surface == "rest":
        assert body["details"] is None or isinstance(body["details"], str)
        assert documented_code(error) == body["error_code"]
    if surface == "auth":
        assert body["code"].islower()
        assert body["msg"] == "No"


def test_ERR_09_validation_body_of_the_document() -> None:
    body = error_body(invalid("email", "Invalid email format"), "functions", "r1")
    assert {k: body[k] for k in ("error", "details", "code")} == {
        "error": "Validation error",
        "details": {"field": "email", "message": "Invalid email format"},
        "code": "VALIDATION_ERROR",
    }


def test_gotrue_codes_are_kept() -> None:
    body = error_body(AuthRefusal("invalid_credentials", "Invalid login credentials"), "auth", "r1")
    assert body["code"] == body["error_code"] == "invalid_credentials"


def test_headers_of_a_refusal() -> None:
    assert error_response(RateLimited("No", retry_after_s=0.2), "rest", "r1").headers["Retry-After"] == "1"
    anonymous = error_response(InsufficientPermissions("No"), "rest", "r1", anonymous=True)
    assert (anonymous.status, anonymous.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert anonymous.headers["Proxy-Status"] == "PostgREST; error=42501"


class _Body(msgspec.Struct, forbid_unknown_fields=True):
    phone: str


@pytest.mark.parametrize(
    ("raw", "status", "field"),
    [
        (b"{", 400, None),
        (b"{}", 422, "phone"),
        (b'{"phone":1}', 422, "phone"),
        (b'{"phone":"1","fone":2}', 422, "fone"),
    ],
)
def test_bodies_that_do_not_decode(raw: bytes, status: int, field: str | None) -> None:
    with pytest.raises(msgspec.DecodeError) as caught:
        msgspec.json.decode(raw, type=_Body)
    refusal = as_refusal(caught.value)
    assert refusal is not None
    assert refusal.status == status
    assert (refusal.details or {}).get("field") == field


def database_error(state: str, text: str = "said", **fields: str) -> asyncpg.PostgresError:
    error: asyncpg.PostgresError = asyncpg.PostgresError.new({"C": state, "M": text, "S": "ERROR", **fields})
    return error


@pytest.mark.parametrize(
    ("state", "status"),
    [
        ("23505", 409), ("23503", 409), ("23514", 422), ("23502", 400), ("22P02", 400), ("42501", 403),
        ("HUB01", 400),
        ("HUB04", 404), ("HUB05", 422), ("57014", 503), ("40001", 503), ("53300", 503), ("08006", 503),
        ("57P01", 503),
    ],
)  # fmt: skip
def test_database_errors_as_refusals(state: str, status: int) -> None:
    refusal = from_database(database_error(state))
    assert refusal is not None
    assert refusal.status == status


def test_what_our_own_functions_refuse_is_said_and_what_postgres_refuses_is_not() -> None:
    ours = from_database(database_error("42501", "messages.conv_seq is kept by the hub", R="exec_stmt_raise"))
    assert ours is not None and ours.message == "messages.conv_seq is kept by the hub"
    postgres = from_database(
        database_error("42501", "permission denied for table secrets", R="aclcheck_error")
    )
    assert postgres is not None and "secrets" not in postgres.message
    invalid = from_database(database_error("HUB05", "Not like this", D="Key (x)=(someone)"))
    assert invalid is not None and invalid.details == {"field": None, "message": "Not like this"}


def test_a_database_error_of_ours_is_a_bug() -> None:
    assert from_database(database_error("42601")) is None


def test_detail_of_the_database_stays_inside() -> None:
    error = database_error(
        "23505", "duplicate key", D="Key (email)=(somebody@else) already exists.", n="x_key"
    )
    refusal = from_database(error)
    assert refusal is not None
    assert "somebody" not in str(error_body(refusal, "rest", "r1"))


def test_a_check_names_its_column() -> None:
    refusal = from_database(database_error("23514", t="deals", n="deals_probability_check"))
    assert refusal is not None
    assert refusal.details["field"] == "probability"
