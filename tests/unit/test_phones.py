"""SEND-02 and EXT-05: the forms in which one number is written."""

from __future__ import annotations

import pytest

from hub.domain.phones import parse_phone


@pytest.mark.parametrize(
    "text",
    [
        "201001383533", "+201001383533", "00201001383533", "+20 100 138 3533", "+20 (0)100-138-3533",
        " 20.100.138.3533 ",
        "٢٠١٠٠١٣٨٣٥٣٣", "٠٠٢٠١٠٠١٣٨٣٥٣٣", "+۲۰۱۰۰۱۳۸۳۵۳۳", "201001383533@s.whatsapp.net",
        "201001383533:12@s.whatsapp.net",
        "201001383533@c.us", "\u202a+20 100 138 3533\u202c",
    ],
)  # fmt: skip
def test_one_number_however_it_is_written(text: str) -> None:
    phone = parse_phone(text)
    assert phone is not None
    assert (phone.e164, phone.wa_id) == ("+201001383533", "201001383533")


@pytest.mark.parametrize("text", ["", "12345", "1" * 16, "call me", "+20x1001383533", "+", "00"])
def test_what_is_no_number(text: str) -> None:
    assert parse_phone(text) is None


def test_a_number_of_no_plan_is_taken_as_written() -> None:
    phone = parse_phone("+1234567890")
    assert phone is not None
    assert phone.e164 == "+1234567890"


@pytest.mark.parametrize("text", ["4900600490060", "+49 0 0600 490060", "+4900600"])
def test_the_canonical_form_of_a_canonical_form_is_itself(text: str) -> None:
    """Found by fuzzing: a second 0 behind the first, and so few digits that none may go."""
    phone = parse_phone(text)
    assert phone is not None
    again = parse_phone(phone.e164)
    assert again is not None and again.e164 == phone.e164
