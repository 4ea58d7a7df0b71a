"""Rendered statements: values are parameters, identifiers are quoted, one shape gives one text."""

from __future__ import annotations

from urllib.parse import quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.errors import BadRequest
from hub.rest import render, sealed
from hub.rest.catalog import Column, Table
from hub.rest.grammar import parse_query

TABLE = Table(
    "contacts",
    {
        n: Column(n, t, is_generated=False, is_array=t.endswith("[]"))
        for n, t in {
            "organization_id": "uuid", "id": "uuid", "first_name": "text", "tags": "text[]",
            "custom_fields": "jsonb",
            "value": "numeric",
        }.items()
    },
    ("organization_id", "id"),
    is_view=False,
)  # fmt: skip


def read(query: str) -> render.Statement:
    return render.read(TABLE, parse_query(query), limit=10, count=False)


def test_one_shape_gives_one_statement() -> None:
    first, second = read("id=in.(a,b)&first_name=eq.x"), read("id=in.(c)&first_name=eq.y")
    assert first.text == second.text
    assert first.args != second.args


def test_a_value_is_cast_to_its_columns_type() -> None:
    assert 't."id" = ($1::text)::uuid' in read("id=eq.x").text
    assert 't."id" = any (($1::text)::uuid[])' in read("id=in.(x)").text
    assert 't."tags" @> ($1::text)::text[]' in read("tags=cs.{a}").text
    assert "= ($2::text)::text" in read("custom_fields->>city=eq.Cairo").text


def test_like_stars_become_percent() -> None:
    assert read("first_name=ilike.*mo*").args[0] == "%mo%"


@given(st.text(min_size=1, max_size=60).filter(lambda t: "\x00" not in t))
def test_nothing_of_a_request_is_spliced_into_the_statement(text: str) -> None:
    quoted = quote_plus(text)
    for query in (
        f"first_name=eq.{quoted}",
        f"custom_fields->>{quoted}=eq.1",
        f"or=(first_name.eq.{quoted})",
    ):
        try:
            statement = read(query)
        except BadRequest:
            continue
        shape = read("first_name=eq.x") if query.startswith("first") else None
        if shape is not None:
            assert statement.text == shape.text
        assert "--" not in statement.text
        assert ";" not in statement.text


@pytest.mark.parametrize("query", ['"a\\"b"=eq.1', "select=xmin", "order=ctid", "or=(tableoid.eq.1)"])
def test_X05_only_columns_of_the_catalog_reach_a_statement(query: str) -> None:
    with pytest.raises(BadRequest, match="does not exist"):
        read(query)


def test_X05_a_strange_alias_is_quoted() -> None:
    assert ' as "a""b"' in read('select="a\\"b":id').text


def test_an_upsert_key_always_begins_with_the_organization() -> None:
    statement = render.insert(
        TABLE,
        parse_query("on_conflict=id"),
        ["id", "first_name"],
        "[]",
        resolution="merge-duplicates",
        returning=None,
    )
    assert (
        'on conflict ("organization_id", "id") do update set "first_name" = excluded."first_name"'
        in statement.text
    )


def test_secrets_leave_the_settings() -> None:
    found = sealed.split(
        {
            "access_token": "EAA1", "phone_number_id": "55", "smtpPassword": "p", "token_expires_at": "2026",
            "api_key_sid": "s", "app_secret": sealed.MASK, "pin": 123456, "oauth": {"refresh_token": "r"},
            "verify_token": None,
        }
    )  # fmt: skip
    assert found.secrets == {
        "access_token": "EAA1",
        "smtpPassword": "p",
        "pin": "123456",
        "oauth.refresh_token": "r",
    }
    assert found.keep == ["app_secret"]
    assert found.shown == {
        "access_token": sealed.MASK, "phone_number_id": "55",
        "smtpPassword": sealed.MASK, "token_expires_at": "2026",
        "api_key_sid": "s", "app_secret": sealed.MASK, "pin": sealed.MASK,
        "oauth": {"refresh_token": sealed.MASK},
    }  # fmt: skip
