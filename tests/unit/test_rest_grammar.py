"""The query string of /rest/v1: what is understood, and what is refused with which parameter's name."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.errors import BadRequest, HubError, RangeNotSatisfiable
from hub.rest.grammar import parse_call, parse_query
from hub.rest.prefer import parse_prefer
from hub.rest.tree import (
    Condition,
    Embed,
    Field,
    Filter,
    Group,
    Item,
    Order,
    Path,
    Query,
    Shape,
    Star,
)


def one(text: str) -> tuple[Condition, tuple[str, ...]]:
    query = parse_query(text)
    ((at, condition),) = query.shape.where
    assert at == ()
    return condition, query.values


@pytest.mark.parametrize(
    ("text", "expected", "values"),
    [
        ("status=eq.OPEN", Filter(Path("status"), "eq", 0), "OPEN"),
        ("name=eq.a.b,c", Filter(Path("name"), "eq", 0), "a.b,c"),
        ('name=eq."x"', Filter(Path("name"), "eq", 0), '"x"'),
        ("name=not.like.*x*", Filter(Path("name"), "like", 0, negated=True), "%x%"),
        ("tags=contains.{a,b}", Filter(Path("tags"), "cs", 0), "{a,b}"),
        ("tags=not.contains.{a}", Filter(Path("tags"), "cs", 0, negated=True), "{a}"),
        ("closed_at=is.NULL", Filter(Path("closed_at"), "is", word="null"), None),
        ("closed_at=is.not_null", Filter(Path("closed_at"), "is", word="not_null"), None),
        ("closed_at=not.is.null", Filter(Path("closed_at"), "is", negated=True, word="null"), None),
        ("id=in.(1,2)", Filter(Path("id"), "in", 0), '{"1","2"}'),
        ('id=in.(a,"b,c","d\\"e")', Filter(Path("id"), "in", 0), '{"a","b,c","d\\"e"}'),
        ('id=in.("a"b,c)', Filter(Path("id"), "in", 0), '{"\\"a\\"b","c"}'),
        ("id=in.(a,,b)", Filter(Path("id"), "in", 0), '{"a","","b"}'),
        ("id=in.( a, b )", Filter(Path("id"), "in", 0), '{"a","b "}'),
        ("id=in.()", Filter(Path("id"), "in", 0), "{}"),
        ('id=in.("")', Filter(Path("id"), "in", 0), "{}"),
        ("id=like(any).{A*,B*}", Filter(Path("id"), "like", 0, quantifier="any"), "{A%,B%}"),
        ("id=eq(all).{a}", Filter(Path("id"), "eq", 0, quantifier="all"), "{a}"),
        ("body=not.fts(english).x", Filter(Path("body"), "fts", 0, True, language="english"), "x"),
        ("body=wfts.a b", Filter(Path("body"), "wfts", 0), "a b"),
        ("span=sl.[1,2)", Filter(Path("span"), "sl", 0), "[1,2)"),
        ("x=isdistinct.null", Filter(Path("x"), "isdistinct", 0), "null"),
        (
            "custom_fields->>city=eq.Cairo",
            Filter(Path("custom_fields", (("->>", "city"),)), "eq", 0),
            "Cairo",
        ),
        (
            "a->b->0->>c=eq.1",
            Filter(Path("a", (("->", "b"), ("->", 0), ("->>", "c"))), "eq", 0),
            "1",
        ),
        ("a->-1=eq.1", Filter(Path("a", (("->", -1),)), "eq", 0), "1"),
        ('"a.b"=eq.1', Filter(Path("a.b"), "eq", 0), "1"),
        ("first_name=eq.%D9%85%D9%86%D9%89+x", Filter(Path("first_name"), "eq", 0), "منى x"),
        ("limited=eq.1", Filter(Path("limited"), "eq", 0), "1"),
    ],
)
def test_filters(text: str, expected: Filter, values: str | None) -> None:
    assert one(text) == (expected, () if values is None else (values,))


def test_trees() -> None:
    group, values = one('or=(a.eq."Doe, J",not.and(b.in.(1,"2)"),c.not.is.null), d.cs.{x,y},e.eq.z )')
    assert group == Group(
        "or",
        (
            Filter(Path("a"), "eq", 0),
            Group(
                "and",
                (Filter(Path("b"), "in", 1), Filter(Path("c"), "is", negated=True, word="null")),
                negated=True,
            ),
            Filter(Path("d"), "cs", 2),
            Filter(Path("e"), "eq", 3),
        ),
    )
    assert values == ("Doe, J", '{"1","2)"}', "{x,y}", "z ")
    assert one("not.and=(a.eq.1)")[0] == Group("and", (Filter(Path("a"), "eq", 0),), negated=True)


def test_levels() -> None:
    query = parse_query(
        "messages.order=created_at.desc&messages.limit=5&messages.offset=-2&contacts.first_name=eq.A"
        "&messages.or=(a.eq.1)&a.b.not.and=(c.is.null)&a.b.c->>d=gt.2"
    )
    assert query.shape.order == ((("messages",), (Order(Path("created_at"), descending=True),)),)
    assert [(cut.at, cut.what, query.values[cut.value]) for cut in query.shape.cuts] == [
        (("messages",), "limit", "5"), (("messages",), "offset", "0"),
    ]  # fmt: skip
    assert [at for at, _ in query.shape.where] == [("contacts",), ("messages",), ("a", "b"), ("a", "b")]


def test_order_limit_offset() -> None:
    query = parse_query(
        "order=a.desc.nullslast,b, c.nullsfirst,contacts(last_name).desc,d->>e&limit=5&offset=-3"
    )
    assert query.shape.order[0][1] == (
        Order(Path("a"), True, "last"),
        Order(Path("b")),
        Order(Path("c"), False, "first"),
        Order(Path("last_name"), True, None, "contacts"),
        Order(Path("d", (("->>", "e"),))),
    )
    assert (query.limit, query.offset) == (5, 0)
    assert parse_query("limit=x").limit is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", (Star(),)),
        ("id, name:first_name ", (Field(Path("id")), Field(Path("first_name"), "name"))),
        ("custom_fields->>city", (Field(Path("custom_fields", (("->>", "city"),))),)),
        ("value::text,*", (Field(Path("value"), None, "text"), Star())),
        ("count()", (Field(None, None, None, "count"),)),
        ("n:count()::text", (Field(None, "n", None, "count", "text"),)),
        ("v:value::int.sum()::text", (Field(Path("value"), "v", "int", "sum", "text"),)),
        ("contacts(*)", (Embed("contacts", (Star(),)),)),
        ("contacts()", (Embed("contacts", ()),)),
        ("c:contacts!fk!inner(id)", (Embed("contacts", (Field(Path("id")),), "c", "fk", "inner"),)),
        ("contacts!left!fk(id)", (Embed("contacts", (Field(Path("id")),), None, "fk", "left"),)),
        (
            "...profiles!owner_id(first_name)",
            (Embed("profiles", (Field(Path("first_name")),), None, "owner_id", None, True),),
        ),
        ("a(b(c))", (Embed("a", (Embed("b", (Field(Path("c")),)),)),)),
        ("id)", (Field(Path("id")),)),
        ('"a,b"', (Field(Path("a,b")),)),
        ("first name", (Field(Path("first name")),)),
        ("a-b->c", (Field(Path("a-b", (("->", "c"),))),)),
    ],
)
def test_select(text: str, expected: tuple[Item, ...]) -> None:
    assert parse_query(f"select={quote(text)}").shape.select == expected


def test_the_first_select_wins_and_quoted_columns_are_names() -> None:
    assert parse_query("select=a&select=b").shape.select == (Field(Path("a")),)
    assert parse_query('columns="a","b"&on_conflict=c').shape.columns == ("a", "b")


def test_values_are_no_part_of_the_shape() -> None:
    first = parse_query("select=id&name=eq.a&id=in.(1,2)&limit=3&or=(a.eq.1)&x.limit=1")
    second = parse_query("select=id&name=eq.b&id=in.(3)&limit=9&offset=2&or=(a.eq.2)&x.limit=2")
    assert first.shape == second.shape
    assert hash(first.shape) == hash(second.shape)
    assert first.values != second.values


def test_apikey_in_the_query_is_no_filter() -> None:
    assert one("apikey=abc&a=eq.1")[0] == Filter(Path("a"), "eq", 0)


def test_what_a_called_function_takes() -> None:
    query = parse_call("search_term=Mona&tag=a b&first_name=eq.x&select=id&limit=3")
    assert query.arguments == (("search_term", "Mona"), ("tag", "a b"))
    assert query.shape.where == (((), Filter(Path("first_name"), "eq", 0)),)


@pytest.mark.parametrize(
    ("text", "code", "names"),
    [
        ("status=OPEN", "PGRST100", "status"),
        ("status=equals.OPEN", "PGRST100", "status"),
        ("status=neq(any).{a}", "PGRST100", "status"),
        ("a=is.maybe", "PGRST100", "a"),
        ("a=in.1,2", "PGRST100", "a"),
        ("a=in.(1,2", "PGRST100", "a"),
        ("a=in.(1)2", "PGRST100", "a"),
        ("or=()", "PGRST100", "or"),
        ("or=(a.eq.1", "PGRST100", "or"),
        ("or=(a.eq.1)x", "PGRST100", "or"),
        ("or=(a)", "PGRST100", "or"),
        ("order=a.up", "PGRST100", "order"),
        ("order=a.nullslast.desc", "PGRST100", "order"),
        ("order=contacts(a", "PGRST100", "order"),
        ("order=a,", "PGRST100", "order"),
        ("select=a,,b", "PGRST100", "select"),
        ("select=a,", "PGRST100", "select"),
        ("select=contacts(", "PGRST100", "select"),
        ("select=contacts(*", "PGRST100", "select"),
        ("select=contacts!a!b(*)", "PGRST100", "select"),
        ("select=contacts!inner!left(*)", "PGRST100", "select"),
        ("select=contacts!inner", "PGRST100", "select"),
        ("select=count(a)", "PGRST100", "select"),
        ("select=a.median()", "PGRST100", "select"),
        ("select=a::", "PGRST100", "select"),
        ("select=a::int;", "PGRST100", "select"),
        ("select=a->", "PGRST100", "select"),
        ("select=...a", "PGRST100", "select"),
        ("columns=a,", "PGRST100", "columns"),
        ("a=eq.%ff", "PGRST100", "UTF-8"),
        ("a=eq.%00", "PGRST100", r"U\+0000"),
        ("a=eq(any.x", "PGRST100", "a"),
        ("filter=x", "PGRST100", "filter"),
        ("or=" + "and(" * 30, "PGRST100", "or"),
        ("or=(" + "and(" * 16 + "a.eq.1" + ")" * 17, "PGRST100", "16 levels"),
        ("select=" + "a(" * 9 + "b" + ")" * 9, "PGRST100", "8 levels"),
        ("select=" + ",".join("a(b)" for _ in range(41)), "PGRST100", "40 embedded"),
        ("id=in.(" + ",".join("1" for _ in range(10_001)) + ")", "PGRST100", "10000 elements"),
    ],
)
def test_what_cannot_be_parsed(text: str, code: str, names: str) -> None:
    with pytest.raises(BadRequest, match=names) as caught:
        parse_query(text)
    assert caught.value.rest_code == code


def test_what_just_fits() -> None:
    parse_query("select=" + "a(" * 8 + "b" + ")" * 8)
    parse_query("or=(" + "and(" * 15 + "a.eq.1" + ")" * 16)
    parse_query("id=in.(" + ",".join("1" for _ in range(10_000)) + ")")
    parse_query("select=" + ",".join("a(b)" for _ in range(40)))


@given(st.text(max_size=200))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    for parse in (parse_query, parse_call):
        try:
            parse(text)
        except (BadRequest, RangeNotSatisfiable) as error:
            assert error.rest_code.startswith("PGRST")


@given(
    st.text(alphabet='aor.not()=,&"{}:->*! in', max_size=120),
    st.sampled_from(["", "select=", "or=", "a=in."]),
)
def test_any_mixture_of_the_grammars_letters_is_parsed_or_refused(text: str, start: str) -> None:
    try:
        parse_query(start + text)
    except (BadRequest, RangeNotSatisfiable) as error:
        assert error.rest_code.startswith("PGRST")


def test_a_negative_limit_is_no_range() -> None:
    for text in ("limit=-1", "messages.limit=-1"):
        with pytest.raises(RangeNotSatisfiable):
            parse_query(text)


# What is parsed can be written again, and says the same.


def _quoted(name: str) -> str:
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _spell_path(path: Path) -> str:
    return _quoted(path.column) + "".join(
        arrow + (str(key) if isinstance(key, int) else _quoted(key)) for arrow, key in path.steps
    )


def _spell_item(item: Item) -> str:
    if isinstance(item, Star):
        return "*"
    if isinstance(item, Embed):
        modifiers = "".join(f"!{_quoted(m) if m == item.hint else m}" for m in (item.hint, item.join) if m)
        alias = f"{_quoted(item.alias)}:" if item.alias else ""
        inner = ",".join(map(_spell_item, item.items))
        return f"{'...' if item.is_spread else ''}{alias}{_quoted(item.name)}{modifiers}({inner})"
    alias = f"{_quoted(item.alias)}:" if item.alias else ""
    if item.path is None:
        text = "count()"
    else:
        text = _spell_path(item.path) + (f"::{item.cast}" if item.cast else "")
        text += f".{item.aggregate}()" if item.aggregate else ""
    return alias + text + (f"::{item.result_cast}" if item.result_cast else "")


def _spell_operation(f: Filter, values: tuple[str, ...], inside: bool) -> str:
    head = f.op + (f"({f.quantifier or f.language})" if f.quantifier or f.language else "")
    text = ("not." if f.negated else "") + head + "."
    if f.word is not None:
        return text + f.word
    value = values[f.value]
    if f.op == "in":
        return text + f"({value[1:-1]})"
    return text + (_quoted(value) if inside else value)


def _spell_condition(c: Condition, values: tuple[str, ...]) -> str:
    if isinstance(c, Filter):
        return f"{_spell_path(c.path)}.{_spell_operation(c, values, inside=True)}"
    inner = ",".join(_spell_condition(part, values) for part in c.parts)
    return f"{'not.' if c.negated else ''}{c.op}({inner})"


def spell(query: Query) -> str:
    """A query string that says what ``query`` says."""
    shape, parts = query.shape, []

    def add(key: str, value: str) -> None:
        parts.append(f"{quote(key, safe='')}={quote(value, safe='')}")

    add("select", ",".join(map(_spell_item, shape.select)))
    values = list(query.values)
    pieces: list[tuple[int, str, str]] = []
    for at, condition in shape.where:
        place = "".join(_quoted(name) + "." for name in at)
        if isinstance(condition, Filter):
            text = _spell_operation(condition, query.values, inside=False)
            pieces.append((condition.value, place + _spell_path(condition.path), text))
        else:
            prefix = "".join(name + "." for name in at) + ("not." if condition.negated else "")
            whole = _spell_condition(condition, query.values)
            pieces.append((_first(condition), prefix + condition.op, whole[whole.index("(") :]))
    for cut in shape.cuts:
        pieces.append((cut.value, ".".join((*cut.at, cut.what)), values[cut.value]))
    for _, key, value in sorted(pieces, key=lambda p: p[0]) if _ordered(pieces) else pieces:
        add(key, value)
    for at, terms in shape.order:
        words = []
        for term in terms:
            path = _spell_path(term.path)
            text = f"{_quoted(term.embed)}({path})" if term.embed else path
            text += ".desc" if term.descending else ""
            words.append(text + (f".nulls{term.nulls}" if term.nulls else ""))
        add(".".join((*at, "order")), ",".join(words))
    if query.limit is not None:
        add("limit", str(query.limit))
    add("offset", str(query.offset))
    return "&".join(parts)


def _first(condition: Condition) -> int:
    if isinstance(condition, Filter):
        return condition.value
    return max(_first(part) for part in condition.parts)


def _ordered(pieces: list[tuple[int, str, str]]) -> bool:
    """Conditions keep their own order; cuts are put among them where their values stand."""
    return all(p[0] >= 0 for p in pieces)


WORDS = st.text(alphabet='abc_.,:()"\\ م-', min_size=1, max_size=6).filter(lambda t: t.strip() == t)
PLAIN = st.sampled_from(["a", "b", "contacts", "first_name"])
PATHS = st.builds(
    Path, WORDS,
    st.lists(st.tuples(st.sampled_from(["->", "->>"]), st.one_of(WORDS, st.integers(-9, 9))), max_size=2)
    .map(tuple),
)  # fmt: skip
CASTS = st.one_of(st.none(), st.sampled_from(["text", "int"]))
FIELDS = st.one_of(
    st.builds(Field, PATHS, st.one_of(st.none(), WORDS), CASTS),
    st.builds(
        Field, PATHS, st.one_of(st.none(), WORDS), CASTS, st.sampled_from(["sum", "max", "count"]), CASTS
    ),
    st.builds(
        lambda alias, cast: Field(None, alias, None, "count", cast), st.one_of(st.none(), WORDS), CASTS
    ),
)
ITEMS: Any = st.recursive(
    st.one_of(st.just(Star()), FIELDS),
    lambda inner: st.builds(
        Embed, WORDS.filter(lambda t: t != "count"), st.lists(inner, max_size=3).map(tuple),
        st.one_of(st.none(), WORDS),
        st.one_of(st.none(), WORDS.filter(lambda t: t not in ("inner", "left"))),
        st.sampled_from([None, "inner", "left"]),
    ),
    max_leaves=6,
)  # fmt: skip


@given(st.lists(ITEMS, min_size=1, max_size=4).map(tuple))
def test_what_was_parsed_is_parsed_again_to_the_same(items: tuple[Item, ...]) -> None:
    first = Query(shape=Shape(select=items))
    assert parse_query(spell(first)) == first


@given(st.text(alphabet="ab->'\".,()=&in{}*: ", max_size=80))
def test_whatever_is_understood_can_be_said_again(text: str) -> None:
    try:
        query = parse_query(text)
    except HubError:
        return
    if query.shape.columns is None and query.shape.on_conflict is None:
        assert parse_query(spell(query)) == query


PIECES = st.sampled_from(
    [
        "a=eq.1", "a=not.in.(1,\"2,3\")", "or=(a.eq.1,not.and(b.is.null,c.cs.{x,y}))", "contacts.or=(a.eq.1)",
        "contacts.limit=3", "contacts.offset=2", "a->b->>0=like(any).{a*}",
        "order=a.desc,contacts(b).nullslast",
        "select=*,c:contacts!x!inner(a,b:c->>d::text,n.sum()),...d(e)", "not.and=(a.wfts(english).x)",
        "contacts.order=b", "limit=3", "offset=4", "contacts.a.b=is.not_null",
    ]
)  # fmt: skip


@given(st.lists(PIECES, max_size=6, unique=True))
def test_whole_queries_can_be_said_again(pieces: list[str]) -> None:
    query = parse_query("&".join(pieces))
    assert parse_query(spell(query)).shape.select == query.shape.select
    again = parse_query(spell(query))
    assert set(again.shape.order) == set(query.shape.order)
    assert (again.limit, again.offset) == (query.limit, query.offset)
    assert sorted(again.values) == sorted(query.values)


# Prefer


def test_prefer() -> None:
    prefer = parse_prefer(["return=representation, count=exact", "count=planned,return=nonsense,foo"])
    assert (prefer.returns, prefer.count) == ("representation", "exact")
    assert prefer.applied("insert") == "return=representation, count=exact"
    assert prefer.applied("read") == "count=exact"


def test_Prefer_8_order_and_relevance() -> None:
    every = parse_prefer(
        ["max-affected=3,timezone=UTC,handling=strict,tx=rollback,count=exact,return=minimal,missing=default,"
         "resolution=merge-duplicates"]
    )  # fmt: skip
    assert every.applied("insert", may_roll_back=True) == (
        "resolution=merge-duplicates, missing=default, return=minimal, count=exact, tx=rollback, "
        "handling=strict, timezone=UTC"
    )
    assert (
        every.applied("delete")
        == "return=minimal, count=exact, handling=strict, timezone=UTC, max-affected=3"
    )
    assert every.most_affected == 3
    assert parse_prefer(["max-affected=3"]).most_affected is None, "only with handling=strict"


def test_PGRST122_strict_handling_refuses_what_is_unknown() -> None:
    with pytest.raises(BadRequest, match="Invalid preferences") as caught:
        parse_prefer(["handling=strict, foo=bar, return=whatever"])
    assert caught.value.rest_code == "PGRST122"
    assert "foo=bar" in str(caught.value.details) and "return=whatever" in str(caught.value.details)
    parse_prefer(["handling=lenient, foo=bar"])
