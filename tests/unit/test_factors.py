"""Codes of authenticator apps against the published vectors, and what the apps are told."""

from __future__ import annotations

import base64
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from hub.auth.factors import _ALPHABET, _new_code, _qr_code, key_uri, step_of

#: RFC 6238, appendix B: the SHA-1 secret, and the last six of its eight digits.
SECRET = base64.b32encode(b"12345678901234567890").decode()
VECTORS = [
    (59, "287082"), (1111111109, "081804"), (1111111111, "050471"), (1234567890, "005924"),
    (2000000000, "279037"), (20000000000, "353130"),
]  # fmt: skip


@pytest.mark.parametrize(("at", "code"), VECTORS)
def test_rfc_6238(at: int, code: str) -> None:
    assert step_of(SECRET, code, at) == at // 30
    assert step_of(SECRET, f" {code} ", at + 30) == at // 30, "the one before"
    assert step_of(SECRET, code, at - 30) == at // 30, "the one after"
    for away in (-90, 90):
        assert step_of(SECRET, code, at + away) is None


@pytest.mark.parametrize(
    "code", ["", "28708", "2870822", "28708a", "٢٨٧٠٨٢", "287 082", "-87082", "\x00" * 6]
)
def test_what_is_no_code(code: str) -> None:
    assert step_of(SECRET, code, 59) is None


def test_what_the_app_reads() -> None:
    uri = key_uri(SECRET, "dana+x@example.test", "Nile & Home")
    parts = urlsplit(uri)
    assert (parts.scheme, parts.netloc) == ("otpauth", "totp")
    assert unquote(parts.path) == "/Nile & Home:dana+x@example.test"
    assert {name: value[0] for name, value in parse_qs(parts.query).items()} == {
        "algorithm": "SHA1", "digits": "6", "issuer": "Nile & Home", "period": "30", "secret": SECRET
    }  # fmt: skip
    code = _qr_code(uri)
    assert code.startswith("<svg") and code.endswith("</svg>") and "script" not in code


def test_recovery_codes_are_long_and_read_well() -> None:
    made = {_new_code() for _ in range(200)}
    assert len(made) == 200
    assert all(len(code) == 11 and code[5] == "-" for code in made)
    assert set("".join(made)) - {"-"} <= set(_ALPHABET) and not set("01oil") & set(_ALPHABET)
