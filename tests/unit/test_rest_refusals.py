"""Which status a database's refusal has, and what of it is told (rest.md 11.3)."""

from __future__ import annotations

import asyncpg
import pytest

from hub.errors import HubError
from hub.http_errors import error_body, error_response
from hub.rest.refusals import refusal, status_of


@pytest.mark.parametrize(
    ("state", "message", "status"),
    [
        ("08006", "", 503), ("09000", "", 500), ("0L000", "", 403), ("0P000", "", 403),
        ("21000", "UPDATE requires a WHERE clause", 400), ("21000", "cannot affect row a second time", 500),
        ("22023", 'role "x" does not exist', 401), ("22023", "invalid value for parameter", 400),
        ("23503", "", 409), ("23505", "", 409), ("25006", "", 405), ("25P02", "", 500), ("28000", "", 403),
        ("2D000", "", 500), ("38000", "", 500), ("39000", "", 500), ("3B001", "", 500), ("40001", "", 500),
        ("42883", "operator does not exist", 404), ("42883", "function xmlagg(integer) does not exist", 406),
        ("42P01", "", 404), ("42P17", "", 500), ("42501", "", 403), ("42501", "anon", 401),
        ("53400", "", 500), ("53300", "", 503),
        ("54001", "", 500), ("55P03", "", 500), ("57P01", "", 503), ("57014", "", 500), ("58030", "", 500),
        ("F0000", "", 500), ("HV000", "", 500), ("XX000", "", 500), ("P0001", "", 400), ("P0002", "", 500),
        ("PT402", "", 402), ("PT999", "", 599), ("22P02", "", 400), ("23502", "", 400), ("23514", "", 400),
        ("42703", "", 400), ("42804", "", 400), ("42P10", "", 400), ("428C9", "", 400), ("0A000", "", 400),
    ],
)  # fmt: skip
def test_11_3_sqlstate_to_status(state: str, message: str, status: int) -> None:
    if message == "anon":  # the one row that asks who it was
        told = refusal(raised(state))
        assert isinstance(told, HubError)
        assert error_response(told, "rest", "r1", anonymous=True).status == status
        return
    assert status_of(state, message) == status


def raised(state: str, message: str = "words", **more: str) -> asyncpg.PostgresError:
    error = asyncpg.PostgresError(message)
    error.sqlstate = state
    for name, value in more.items():
        setattr(error, name, value)
    return error


@pytest.mark.parametrize(
    ("state", "status", "error_code"),
    [
        ("22P02", 400, "VALIDATION_ERROR"), ("23505", 409, "VALIDATION_ERROR"),
        ("23514", 422, "VALIDATION_ERROR"),
        ("42501", 403, "INSUFFICIENT_PERMISSIONS"), ("42883", 404, "RESOURCE_NOT_FOUND"),
        ("25006", 405, "VALIDATION_ERROR"), ("57014", 500, "INTERNAL_ERROR"),
        ("40001", 500, "INTERNAL_ERROR"),
        ("53300", 503, "SERVICE_UNAVAILABLE"), ("57P01", 503, "SERVICE_UNAVAILABLE"),
        ("P0001", 400, "VALIDATION_ERROR"), ("HUB04", 404, "RESOURCE_NOT_FOUND"),
    ],
)  # fmt: skip
def test_11_4_the_documents_code_beside_the_sqlstate(state: str, status: int, error_code: str) -> None:
    told = refusal(raised(state))
    assert isinstance(told, HubError)
    body = error_body(told, "rest", "r1")
    assert (told.status, body["error_code"]) == (status, error_code)
    assert isinstance(body["code"], str) and isinstance(body["message"], str)


@pytest.mark.parametrize("state", ["XX000", "42601", "3F000", "26000", "42P02", "58030", "P0002", "F0000"])
def test_ERR_03_a_bug_of_ours_is_told_in_no_words(state: str) -> None:
    error = raised(state, "the insides")
    assert refusal(error) is error, "it rises, is logged and answered with a request id"


def test_X34_detail_never_leaves() -> None:
    for state in ("23505", "23503", "23514", "22P02", "P0001", "21000", "57014"):
        told = refusal(raised(state, detail="Key (email)=(neighbour@example.test) already exists."))
        assert isinstance(told, HubError)
        assert "neighbour" not in str(error_body(told, "rest", "r1"))


def test_10_5_what_a_function_raises_in_json() -> None:
    said = '{"code": "77", "message": "Own words", "hint": "h"}'
    told = refusal(raised("PGRST", said, detail='{"status": 418, "headers": {"X-Pot": "tea"}}'))
    assert isinstance(told, HubError)
    assert (told.status, told.rest_code, told.message, told.headers) == (
        418,
        "77",
        "Own words",
        {"X-Pot": "tea"},
    )
    broken = refusal(raised("PGRST", "no json"))
    assert isinstance(broken, HubError)
    assert (broken.status, broken.rest_code) == (500, "PGRST121")
