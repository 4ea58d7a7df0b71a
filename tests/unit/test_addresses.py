"""Addresses of accounts: what is one, and what only looks like another."""

from __future__ import annotations

import pytest

from hub.auth.addresses import address_of


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("dana@example.com", "dana@example.com"),
        (" Dana.O'Neil+hub@Example.COM ", "dana.o'neil+hub@example.com"),
        ("a@localhost", "a@localhost"),
        ("m@xn--mgba3a4f16a.example", "m@xn--mgba3a4f16a.example"),
    ],
)
def test_addresses(given: str, kept: str) -> None:
    assert address_of(given) == kept


@pytest.mark.parametrize(
    "given",
    [
        "", "dana", "@example.com", "dana@", "dana@example", "a@b@example.com", "a b@example.com",
        "dana@example..com", "dana@-example.com", "dana@example.com.", ".dana@example.com",
        "dana@exam_ple.com",
        "a@example.com\x00", "a\n@example.com", "a@example.com\nBcc: b@example.com", "<a@example.com>",
        "a@example.com,b@example.com", "x" * 65 + "@example.com", "a@" + "b" * 330 + ".com",
        '"a b"@example.com',
    ],
)  # fmt: skip
def test_what_is_none(given: str) -> None:
    assert address_of(given) is None


@pytest.mark.parametrize(
    ("look_alike", "of"),
    [
        ("dan\u0430@example.com", "Cyrillic а"), ("\u212Aate@example.com", "Kelvin sign, lower-cases to k"),
        ("m\u0131ke@example.com", "dotless i"), ("M\u0130KE@example.com", "dotted capital I"),
        ("da\u200bna@example.com", "zero-width space"), ("d\u00e4na@example.com", "umlaut"),
        ("dana@ex\u00e4mple.com", "domain"), ("\uff44ana@example.com", "full width"),
        ("dana@example\u3002com", "ideographic full stop"), ("dana\u00ad@example.com", "soft hyphen"),
        ("da\u0301na@example.com", "combining accent"),
    ],
)  # fmt: skip
def test_X08_look_alikes_are_no_addresses(look_alike: str, of: str) -> None:
    assert address_of(look_alike) is None, of
