"""Statements: values are parameters, identifiers are quoted, one shape gives one text."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote_plus

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.errors import BadRequest, HubError
from hub.rest import sealed
from hub.rest.compiler import Compiler, WriteShape
from hub.rest.grammar import parse_query
from hub.rest.plan import Ambiguous, choose
from hub.rest.schema import Schema, build
from hub.rest.statement import Statement


def relation(name: str, *keys: list[str], view: bool = False) -> dict[str, Any]:
    return {
        "name": name, "is_view": view, "updatable": 28, "description": None,
        "keys": msgspec.json.encode(list(keys)).decode(),
    }  # fmt: skip


def attributes(table: str, columns: str) -> list[dict[str, Any]]:
    return [
        {"table_name": table, "column_name": name, "type": type_, "is_generated": False, "is_required": False,
         "default_expression": "now()" if type_ == "timestamptz" else None, "allowed": None}
        for name, type_ in (pair.split(":") for pair in columns.split(" "))
    ]  # fmt: skip


def reference(table: str, column: str, target: str, to: str = "id") -> dict[str, Any]:
    return {
        "constraint_name": f"{table}_{column}_fkey", "table_name": table, "target": target,
        "columns": ["organization_id", column], "target_columns": ["organization_id", to],
    }  # fmt: skip


ORG = ["organization_id", "id"]
SCHEMA: Schema = build(
    [
        relation("contacts", ORG, ["organization_id", "email"]), relation("companies", ORG),
        relation("deals", ORG), relation("memberships", ["organization_id", "user_id"]),
        relation("profiles", view=True), relation("messages", ORG), relation("teams", ORG),
        relation("team_members", ["organization_id", "team_id", "user_id"]),
        relation("licences", ORG, ["organization_id", "contact_id"]),
    ],
    [
        *attributes("contacts", "organization_id:uuid id:uuid email:text first_name:text tags:text[] "
                    "custom_fields:jsonb company_id:uuid created_at:timestamptz search:text"),
        *attributes("companies", "organization_id:uuid id:uuid name:text owner_id:uuid"),
        *attributes("deals", "organization_id:uuid id:uuid title:text value:numeric contact_id:uuid "
                    "owner_id:uuid closer_id:uuid"),
        *attributes("memberships", "organization_id:uuid user_id:uuid first_name:text"),
        *attributes("profiles", "organization_id:uuid id:uuid first_name:text"),
        *attributes("messages", "organization_id:uuid id:uuid reply_to_id:uuid content:text"),
        *attributes("teams", "organization_id:uuid id:uuid name:text"),
        *attributes("team_members", "organization_id:uuid team_id:uuid user_id:uuid"),
        *attributes("licences", "organization_id:uuid id:uuid contact_id:uuid"),
    ],
    [
        reference("contacts", "company_id", "companies"), reference("companies", "owner_id", "memberships",
        "user_id"),
        reference("deals", "contact_id", "contacts"), reference("deals", "owner_id", "memberships",
        "user_id"),
        reference("deals", "closer_id", "memberships", "user_id"),
        reference("messages", "reply_to_id", "messages"), reference("team_members", "team_id", "teams"),
        reference("team_members", "user_id", "memberships", "user_id"),
        reference("licences", "contact_id", "contacts"),
    ],
    [],
)  # fmt: skip


def compiled(table: str, query: str, **changes: Any) -> tuple[Statement, list[str | None]]:
    parsed = parse_query(query)
    _, statement = Compiler(SCHEMA).read(
        table, parsed.shape, changes.get("format", "json"), changes.get("counts", False)
    )
    return statement, statement.bind(parsed.values, limit=10, offset=2)


def text_of(query: str, table: str = "contacts") -> str:
    text: str = compiled(table, query)[0].text
    return text


def test_one_shape_gives_one_statement() -> None:
    compiler = Compiler(SCHEMA)
    queries = [parse_query(f"id=in.({v})&first_name=eq.{v}&limit={len(v)}") for v in ("a", "bb")]
    first, second = (compiler.read("contacts", q.shape, "json", False)[1] for q in queries)
    assert first is second
    assert first.bind(queries[0].values) != second.bind(queries[1].values)


def test_a_value_is_cast_to_its_columns_type() -> None:
    assert '."id" = ($3::text)::uuid' in text_of("id=eq.x")
    assert '."id" = any (($3::text)::uuid[])' in text_of("id=in.(x)")
    assert '."tags" @> ($3::text)::text[]' in text_of("tags=cs.{a}")
    assert "->> $3::text) = ($4::text)::text" in text_of("custom_fields->>city=eq.Cairo")
    assert "-> ($3::text)::integer) = ($4::text)::jsonb" in text_of("custom_fields->0=eq.1")
    assert 'to_jsonb(t1."tags") ->> ($3::text)::integer)' in text_of("tags->>0=eq.1")


def test_the_arguments_are_in_the_order_of_their_marks() -> None:
    _, arguments = compiled(
        "contacts", "select=id,custom_fields->>city&first_name=eq.A&or=(email.eq.B,id.in.(C))"
    )
    assert arguments == ["10", "2", "A", "B", '{"C"}', "city"]


@given(st.text(min_size=1, max_size=60).filter(lambda t: "\x00" not in t))
def test_X05_nothing_of_a_request_is_spliced_into_the_statement(text: str) -> None:
    quoted = quote_plus(text)
    for query in (f"first_name=eq.{quoted}", f"custom_fields->>{quoted}=eq.1", f"or=(first_name.eq.{quoted})",
                  f"select=id,x:custom_fields->>{quoted}", f"contacts.limit={quoted}"):  # fmt: skip
        try:
            statement = text_of(query)
        except HubError:
            continue
        assert "--" not in statement
        assert ";" not in statement
        if query.startswith("first_name"):
            assert statement == text_of("first_name=eq.x")


@pytest.mark.parametrize(
    "query",
    ['"a\\"b"=eq.1', "select=xmin", "order=ctid", "or=(tableoid.eq.1)", "select=search", "search=eq.1",
     "select=companies(xmin)", "select=companies(*)&companies.ctid=eq.1",
     "select=companies(*)&order=companies(xmin)"],
)  # fmt: skip
def test_X05_only_columns_of_the_schema_reach_a_statement(query: str) -> None:
    with pytest.raises(BadRequest, match="does not exist") as caught:
        text_of(query)
    assert caught.value.rest_code == "42703"


def test_X05_a_strange_alias_is_quoted() -> None:
    assert ' as "a""b"' in text_of('select="a\\"b":id')
    assert 'cast(t1."id" as "x y")' in text_of("select=id::x y")
    with pytest.raises(BadRequest, match="regclass"):
        text_of("select=first_name::regclass")


@pytest.mark.parametrize(
    ("origin", "name", "hint", "expected"),
    [
        ("deals", "contacts", None, "many-to-one deals_contact_id_fkey"),
        ("deals", "contacts", "contact_id", "many-to-one deals_contact_id_fkey"),
        ("deals", "contacts", "deals_contact_id_fkey", "many-to-one deals_contact_id_fkey"),
        ("deals", "contact_id", None, "many-to-one deals_contact_id_fkey"),
        ("deals", "deals_contact_id_fkey", None, "many-to-one deals_contact_id_fkey"),
        ("deals", "profiles", "owner_id", "many-to-one deals_owner_id_fkey"),
        ("deals", "profiles", "deals_closer_id_fkey", "many-to-one deals_closer_id_fkey"),
        ("contacts", "deals", None, "one-to-many deals_contact_id_fkey"),
        ("contacts", "deals", "contact_id", "one-to-many deals_contact_id_fkey"),
        ("contacts", "companies", None, "many-to-one contacts_company_id_fkey"),
        ("contacts", "licences", None, "one-to-one licences_contact_id_fkey"),
        ("licences", "contacts", None, "one-to-one licences_contact_id_fkey"),
        ("messages", "messages", None, "one-to-many messages_reply_to_id_fkey"),
        ("messages", "reply_to_id", None, "many-to-one messages_reply_to_id_fkey"),
        ("messages", "messages", "reply_to_id", "one-to-many messages_reply_to_id_fkey"),
        ("teams", "profiles", None, "many-to-many team_members"),
        ("profiles", "teams", "team_members", "many-to-many team_members"),
        ("memberships", "teams", None, "many-to-many team_members"),
        ("profiles", "deals", "owner_id", "one-to-many deals_owner_id_fkey"),
    ],
)  # fmt: skip
def test_4_4_which_relationship_is_meant(origin: str, name: str, hint: str | None, expected: str) -> None:
    way = choose(SCHEMA, origin, name, hint)
    assert f"{way.cardinality} {way.constraint}" == expected


def test_PGRST200_and_PGRST201() -> None:
    with pytest.raises(BadRequest) as none:
        choose(SCHEMA, "contacts", "teams", None)
    assert none.value.rest_code == "PGRST200"
    with pytest.raises(Ambiguous) as several:
        choose(SCHEMA, "deals", "profiles", None)
    assert several.value.status == 300
    assert {d["relationship"].partition(" ")[0] for d in several.value.details} == {
        "deals_owner_id_fkey", "deals_closer_id_fkey",
    }  # fmt: skip
    assert "'profiles!deals_owner_id_fkey'" in str(several.value.hint)


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("contacts.first_name=eq.A", "PGRST108"), ("companies.limit=1", "PGRST108"),
        ("companies.order=name", "PGRST108"), ("order=companies(name)", "PGRST108"),
        ("select=deals(*)&order=deals(title)", "PGRST118"),
        ("select=deals(*)&deals=eq.1", "PGRST120"), ("select=...deals(value.sum())", "PGRST127"),
        ("select=nope(*)", "PGRST200"),
    ],
)  # fmt: skip
def test_11_2_what_a_plan_refuses(query: str, code: str) -> None:
    with pytest.raises(BadRequest) as caught:
        text_of(query)
    assert caught.value.rest_code == code


def test_PGRST123_aggregates_can_be_switched_off() -> None:
    with pytest.raises(BadRequest) as caught:
        Compiler(SCHEMA, aggregates=False).read(
            "deals", parse_query("select=value.sum()").shape, "json", False
        )
    assert caught.value.rest_code == "PGRST123"


def test_what_may_be_read_is_known_before_anything_is() -> None:
    plan = Compiler(SCHEMA).plan(
        "deals", parse_query("select=contacts(companies(*)),profiles!owner_id(id)").shape
    )
    assert plan.reads == {"contacts", "companies", "profiles"}


def written(**changes: Any) -> str:
    shape = WriteShape(table="contacts", shape=parse_query("").shape, **changes)
    return str(Compiler(SCHEMA).insert(shape)[1].text)


def test_an_insert_without_an_answer_returns_no_column() -> None:
    """A column in RETURNING asks for the right to read it."""
    assert "returning 1)" in written(names=("first_name",))
    assert 'returning t."id")' in written(names=("first_name",), returning="place")


def test_20_2_the_organization_goes_without_saying_in_a_conflict() -> None:
    merge = written(names=("id", "first_name"), resolution="merge-duplicates")
    assert 'on conflict ("organization_id", "id") do update set "first_name" = excluded."first_name"' in merge
    other = written(names=("first_name",), resolution="ignore-duplicates", on_conflict=("email",))
    assert 'on conflict ("organization_id", "email") do nothing' in other


def test_missing_default_lies_under_what_the_body_says() -> None:
    filled = written(names=("first_name", "created_at"), fill_defaults=True)
    assert "(jsonb_build_object('created_at', now()) || e.value)" in filled
    assert "jsonb_build_object" not in written(names=("first_name",), fill_defaults=True)


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
