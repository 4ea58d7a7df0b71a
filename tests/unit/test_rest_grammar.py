"""The query string of /rest/v1: what is understood, and what is refused with which parameter's name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.errors import BadRequest, RangeNotSatisfiable
from hub.rest.grammar import Filter, Group, Order, Path, parse_prefer, parse_query


def one(text: str) -> object:
    (condition,) = parse_query(text).where
    return condition


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("status=eq.OPEN", Filter(Path("status"), "eq", "OPEN")),
        ("name=eq.a.b,c", Filter(Path("name"), "eq", "a.b,c")),
        ('name=eq."x"', Filter(Path("name"), "eq", '"x"')),
        ("name=not.like.*x*", Filter(Path("name"), "like", "*x*", negated=True)),
        ("tags=contains.{a,b}", Filter(Path("tags"), "cs", "{a,b}")),
        ("closed_at=is.NULL", Filter(Path("closed_at"), "is", "null")),
        ("closed_at=not.is.null", Filter(Path("closed_at"), "is", "null", negated=True)),
        ("id=in.(1,2)", Filter(Path("id"), "in", ("1", "2"))),
        ('id=in.(a,"b,c","d\\"e")', Filter(Path("id"), "in", ("a", "b,c", 'd"e'))),
        ('id=in.("a"b,c)', Filter(Path("id"), "in", ('"a"b', "c"))),
        ("id=in.(a,,b)", Filter(Path("id"), "in", ("a", "", "b"))),
        ("id=in.()", Filter(Path("id"), "in", ())),
        ('id=in.("")', Filter(Path("id"), "in", ())),
        ("id=like(any).{A*,B*}", Filter(Path("id"), "like", "{A*,B*}", quantifier="any")),
        ("custom_fields->>city=eq.Cairo", Filter(Path("custom_fields", (("->>", "city"),)), "eq", "Cairo")),
        ("a->b->0->>c=eq.1", Filter(Path("a", (("->", "b"), ("->", "0"), ("->>", "c"))), "eq", "1")),
        ('"a.b"=eq.1', Filter(Path("a.b"), "eq", "1")),
        ("first_name=eq.%D9%85%D9%86%D9%89+x", Filter(Path("first_name"), "eq", "منى x")),
    ],
)
def test_filters(text: str, expected: Filter) -> None:
    assert one(text) == expected


def test_trees() -> None:
    assert one('or=(a.eq."Doe, J",not.and(b.in.(1,2),c.not.is.null), d.cs.{x,y})') == Group(
        "or",
        (
            Filter(Path("a"), "eq", "Doe, J"),
            Group("and", (Filter(Path("b"), "in", ("1", "2")), Filter(Path("c"), "is", "null", True)), True),
            Filter(Path("d"), "cs", "{x,y}"),
        ),
    )
    assert one("not.and=(a.eq.1)") == Group("and", (Filter(Path("a"), "eq", "1"),), True)


def test_order_limit_offset() -> None:
    query = parse_query("order=a.desc.nullslast,b,c.nullsfirst&limit=5&offset=-3")
    assert query.order == (Order(Path("a"), True, "last"), Order(Path("b")), Order(Path("c"), False, "first"))
    assert (query.limit, query.offset) == (5, 0)
    assert parse_query("limit=x").limit is None


def test_select() -> None:
    items = parse_query("select=id, name:first_name ,custom_fields->>city,value::text,*").select
    assert [(i.path.column if i.path else "*", i.alias, i.cast) for i in items] == [
        ("id", None, None),
        ("first_name", "name", None),
        ("custom_fields", None, None),
        ("value", None, "text"),
        ("*", None, None),
    ]
    assert parse_query('columns="a","b"').columns == ("a", "b")


def test_apikey_in_the_query_is_no_filter() -> None:
    assert parse_query("apikey=abc&a=eq.1").where == (Filter(Path("a"), "eq", "1"),)


@pytest.mark.parametrize(
    ("text", "code", "names"),
    [
        ("status=OPEN", "PGRST100", "status"),
        ("status=equals.OPEN", "PGRST100", "status"),
        ("a=is.maybe", "PGRST100", "a"),
        ("a=in.1,2", "PGRST100", "a"),
        ("or=()", "PGRST100", "or"),
        ("or=(a.eq.1", "PGRST100", "or"),
        ("or=(a.eq.1)x", "PGRST100", "or"),
        ("order=a.up", "PGRST100", "order"),
        ("select=a,,b", "PGRST100", "select"),
        ("select=*,contacts(*)", "PGRST200", "Embedding"),
        ("select=a.sum()", "PGRST123", "Aggregate"),
        ("a=eq.%ff", "PGRST100", "UTF-8"),
        ("a=eq.%00", "PGRST100", "U+0000"),
        ("a=eq(any.x", "PGRST100", "a"),
        ("filter=x", "PGRST100", "filter"),
        ("or=" + "and(" * 30, "PGRST100", "or"),
    ],
)
def test_what_cannot_be_parsed(text: str, code: str, names: str) -> None:
    with pytest.raises(BadRequest, match=names.replace("+", r"\+")) as caught:
        parse_query(text)
    assert caught.value.rest_code == code


@given(st.text(max_size=200))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    try:
        parse_query(text)
    except (BadRequest, RangeNotSatisfiable) as error:
        assert error.rest_code.startswith("PGRST")


@given(st.text(alphabet='aor.not()=,&"{}:->*! in', max_size=120))
def test_any_mixture_of_the_grammars_letters_is_parsed_or_refused(text: str) -> None:
    try:
        parse_query(text)
    except (BadRequest, RangeNotSatisfiable) as error:
        assert error.rest_code.startswith("PGRST")


def test_a_negative_limit_is_no_range() -> None:
    with pytest.raises(RangeNotSatisfiable):
        parse_query("limit=-1")


def test_prefer() -> None:
    prefer = parse_prefer(["return=representation, count=exact", "count=planned,return=nonsense,foo"])
    assert (prefer.returns, prefer.count, prefer.applied) == (
        "representation",
        "exact",
        ("return=representation", "count=exact"),
    )
