"""Templates filled from the composer (CHAN-2)."""

from __future__ import annotations

from typing import Any

import pytest

from hub.domain.templates import Unfillable, fill

ORDER: list[dict[str, Any]] = [
    {"type": "HEADER", "format": "TEXT", "text": "Order {{1}}"},
    {"type": "BODY", "text": "Hello {{2}}, {{1}} is on its way. {{2}}!"},
    {"type": "FOOTER", "text": "Nile Home"},
    {"type": "BUTTONS", "buttons": [
        {"type": "QUICK_REPLY", "text": "Thanks"}, {"type": "URL", "text": "Track", "url": "https://x.example/{{1}}"},
    ]},
]  # fmt: skip


def test_CHAN_2_numbered_variables_go_in_their_order_part_by_part() -> None:
    filled = fill(ORDER, {"header.1": "NH-7", "1": "NH-7", "2": " Layla ", "button.1.1": "7"})
    assert filled.text == "Hello Layla, NH-7 is on its way. Layla!"
    assert filled.components == [
        {"type": "header", "parameters": [{"type": "text", "text": "NH-7"}]},
        {"type": "body", "parameters": [{"type": "text", "text": "NH-7"}, {"type": "text", "text": "Layla"}]},
        {"type": "button", "sub_type": "url", "index": "1", "parameters": [{"type": "text", "text": "7"}]},
    ]


def test_CHAN_2_named_variables_keep_their_names() -> None:
    body = {"type": "BODY", "text": "{{ name }}, مرحبًا {{city}}"}
    filled = fill([body], {"name": "ليلى", "city": "القاهرة"})
    assert filled.text == "ليلى, مرحبًا القاهرة"
    assert filled.components[0]["parameters"] == [
        {"type": "text", "text": "ليلى", "parameter_name": "name"},
        {"type": "text", "text": "القاهرة", "parameter_name": "city"},
    ]


def test_CHAN_2_a_value_is_no_template_itself() -> None:
    filled = fill([{"type": "BODY", "text": "{{1}} {{2}}"}], {"1": "{{2}}", "2": "x"})
    assert filled.text == "{{2}} x"


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({}, "variables.header.1"),
        ({"header.1": "x", "1": "x"}, "variables.2"),
        ({"header.1": "x", "1": "x", "2": "  ", "button.1.1": "x"}, "variables.2"),
        ({"header.1": "x", "1": "a\nb", "2": "x", "button.1.1": "x"}, "variables.1"),
        ({"header.1": "x", "1": "a     b", "2": "x", "button.1.1": "x"}, "variables.1"),
        ({"header.1": "x", "1": "x" * 1025, "2": "x", "button.1.1": "x"}, "variables.1"),
        ({"header.1": "x", "1": "x", "2": "x"}, "variables.button.1.1"),
        ({"header.1": "x", "1": "x", "2": "x", "button.1.1": "x", "3": "x"}, "variables.3"),
    ],
)
def test_CHAN_2_what_is_missing_or_unfit_is_named(given: dict[str, str], field: str) -> None:
    with pytest.raises(Unfillable) as refused:
        fill(ORDER, given)
    assert refused.value.field == field


def test_CHAN_2_odd_components_are_refused_or_passed_over() -> None:
    with pytest.raises(Unfillable):
        fill([{"type": "HEADER", "format": "IMAGE"}, {"type": "BODY", "text": "x"}], {})
    for odd in ([], [{"type": "BODY"}], [{"type": "BODY", "text": 7}], ["x", None]):
        with pytest.raises(Unfillable):
            fill(odd, {})
    assert fill([{"type": "body", "text": "Hi"}, {"type": "BUTTONS", "buttons": None}], {}).components == []
