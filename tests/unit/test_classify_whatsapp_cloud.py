"""What a send's answer means: code first, then is_transient, then HTTP status (spec: channels 1.4, 2.9;
guarantees 8)."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from hub.channels.protocol import (
    Accepted,
    AuthBroken,
    Permanent,
    ResponseFacts,
    Retryable,
    Throttled,
    Unknown,
    Verdict,
    WindowClosed,
)
from hub.channels.whatsapp_cloud import classify


def verdict(status: int, body: Any = b"", **headers: str) -> Verdict:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return classify(ResponseFacts(status=status, headers=named, body=raw))


def error(code: int | str | None, **more: Any) -> dict[str, Any]:
    return {"error": {"message": f"(#{code}) Something", "type": "OAuthException", "code": code, **more}}


def test_accepted_with_a_further_identity() -> None:
    answer = {
        "messaging_product": "whatsapp",
        "contacts": [{"input": "2010", "wa_id": "201001383533", "user_id": "EG.3141"}],
        "messages": [{"id": "wamid.O"}],
    }
    assert verdict(200, answer) == Accepted("wamid.O", (("wa_id", "201001383533"), ("wa_bsuid", "EG.3141")))


def test_accepted_by_user_id_alone() -> None:
    answer = {"contacts": [{"input": "EG.3141", "user_id": "EG.3141"}], "messages": [{"id": "wamid.O"}]}
    assert verdict(200, answer) == Accepted("wamid.O", (("wa_bsuid", "EG.3141"),))


THROTTLES = [4, 17, 32, 613, 80007, 130429, 131048, 131056, 131064, 133016]
RETRIES = [1, 2, 131000, 131016, 131053, 131057]
AUTH = [0, 3, 10, 190, 200, 299, 368, 131005, 131031, 131037, 131042, 131044, 131045]
PERMANENT = [
    100,
    131008,
    131009,
    131021,
    131026,
    131030,
    131049,
    131050,
    131051,
    131052,
    131062,
    131063,
    130472,
    130497,
    132000,
    132001,
    132005,
    132007,
    132008,
    132012,
    132015,
    132016,
    132068,
    132069,
    135000,
    137000,
]


@pytest.mark.parametrize("status", [200, 400, 429, 500])
@pytest.mark.parametrize("code", THROTTLES)
def test_throttle_codes(code: int, status: int) -> None:
    assert isinstance(verdict(status, error(code)), Throttled)


@pytest.mark.parametrize("status", [200, 400, 500, 503])
@pytest.mark.parametrize("code", RETRIES)
def test_retry_codes(code: int, status: int) -> None:
    assert isinstance(verdict(status, error(code)), Retryable)


@pytest.mark.parametrize("status", [200, 400, 401, 403, 500])
@pytest.mark.parametrize("code", AUTH)
def test_auth_codes(code: int, status: int) -> None:
    assert isinstance(verdict(status, error(code)), AuthBroken)


@pytest.mark.parametrize("status", [200, 400, 404, 500])
@pytest.mark.parametrize("code", PERMANENT)
def test_permanent_codes(code: int, status: int) -> None:
    found = verdict(status, error(code))
    assert isinstance(found, Permanent)
    assert found.code == str(code)
    assert found.opted_out == (code == 131050)


def test_window_code() -> None:
    assert isinstance(verdict(400, error(131047)), WindowClosed)


def test_codes_may_be_strings() -> None:
    assert isinstance(verdict(400, error("131047")), WindowClosed)


def test_pair_rate_closes_only_the_recipient() -> None:
    pair, number = verdict(400, error(131056)), verdict(400, error(130429))
    assert isinstance(pair, Throttled)
    assert isinstance(number, Throttled)
    assert (pair.scope, number.scope) == ("recipient", "account")


def test_media_and_user_block_get_two_tries() -> None:
    for code in (2, 131053):
        found = verdict(500, error(code))
        assert isinstance(found, Retryable)
        assert found.max_tries == 2


def test_unknown_codes_fall_to_is_transient_then_to_the_status() -> None:
    assert isinstance(verdict(400, error(999999, is_transient=True)), Retryable)
    assert isinstance(verdict(400, error(999999)), Permanent)
    assert isinstance(verdict(401, error(999999)), AuthBroken)
    assert isinstance(verdict(403, error(None)), AuthBroken)
    assert isinstance(verdict(429, error(999999)), Throttled)
    assert isinstance(verdict(500, error(999999)), Retryable)


def test_O01_retry_after_in_seconds() -> None:
    found = verdict(429, error(130429), Retry_After="3")
    assert isinstance(found, Throttled)
    assert found.after_s == 3


def test_O01_retry_after_header_is_found_in_any_case() -> None:
    found = classify(ResponseFacts(status=429, headers={"retry-after": "7"}, body=b""))
    assert isinstance(found, Throttled)
    assert found.after_s == 7


def test_O01_retry_after_as_a_date_counts_from_the_answers_own_clock() -> None:
    found = verdict(
        429,
        error(130429),
        Retry_After="Thu, 01 Jan 2026 00:00:30 GMT",
        Date="Thu, 01 Jan 2026 00:00:00 GMT",
    )
    assert isinstance(found, Throttled)
    assert found.after_s == 30


def test_O01_retry_after_as_a_date_without_a_date_header() -> None:
    found = classify(
        ResponseFacts(
            status=429,
            headers={"Retry-After": "Thu, 01 Jan 2026 00:01:00 GMT"},
            body=b"",
            received_at=datetime(2026, 1, 1, tzinfo=UTC),
        )
    )
    assert isinstance(found, Throttled)
    assert found.after_s == 60


@pytest.mark.parametrize("value", ["", "soon", "-5", "9" * 40, "١"])
def test_O01_retry_after_nonsense_gives_the_codes_own_wait(value: str) -> None:
    with_header, without = verdict(429, error(130429), Retry_After=value), verdict(429, error(130429))
    assert with_header == without


def test_business_use_case_usage_says_when_access_is_regained() -> None:
    usage = json.dumps(
        {"2001": [{"type": "whatsapp", "call_count": 100, "estimated_time_to_regain_access": 12}]}
    )
    found = verdict(400, error(80007), X_Business_Use_Case_Usage=usage)
    assert isinstance(found, Throttled)
    assert found.after_s == 720


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, b""),
        (502, b"<html>Bad gateway</html>"),
        (503, b""),
        (504, b"{"),
        (500, b"{}"),
        (500, b'{"error":{}}'),
        (500, b"[]"),
        (200, b""),
        (200, b"ok"),
        (200, b"{}"),
        (200, b'{"messages":[]}'),
        (200, b'{"messages":[{}]}'),
        (200, b'{"messages":[{"id":7}]}'),
        (200, b"\xff"),
        (200, b"[" * 100_000),
        (302, b""),
        (408, b""),
    ],
)
def test_O02_untyped_answers_may_hide_an_accepted_message(status: int, body: bytes) -> None:
    assert isinstance(verdict(status, body, Retry_After="5"), Unknown)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, Permanent),
        (401, AuthBroken),
        (403, AuthBroken),
        (404, Permanent),
        (413, Permanent),
        (429, Throttled),
    ],
)
def test_O02_untyped_refusals_are_refusals(status: int, kind: type) -> None:
    assert isinstance(verdict(status, b"<html>"), kind)


def test_reasons_carry_the_details() -> None:
    found = verdict(400, error(131009, error_data={"messaging_product": "whatsapp", "details": "Bad phone"}))
    assert isinstance(found, Permanent)
    assert found.reason == "(#131009) Something: Bad phone"
    as_string = verdict(400, error(131009, error_data="Bad phone"))
    assert as_string == found
