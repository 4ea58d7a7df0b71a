"""Who may do what: the table in docs/permissions.md is the one the code generates policies and refusals
from."""

from __future__ import annotations

from pathlib import Path

import pytest

from hub.domain.permissions import FUNCTION_NEEDS, PERMISSIONS, ROLE_DEFAULTS, RULES, Need, can_see, missing

DOCS = Path(__file__).parents[2] / "docs" / "permissions.md"


def words(need: Need) -> str:
    if need.nobody:
        return "nobody"
    parts = [" or ".join(need.permissions)] if need.permissions else []
    if need.roles:
        parts.append(" or ".join(need.roles))
    if need.own_column:
        parts.append("own rows")
    return ", ".join(parts) or "every member"


def table() -> str:
    lines = ["| table | read | insert | update | delete |", "|---|---|---|---|---|"]
    for name, rules in sorted(RULES.items()):
        verbs = (rules.read, rules.insert, rules.update, rules.delete)
        lines.append(f"| `{name}` | " + " | ".join(words(need) for need in verbs) + " |")
    return "\n".join(lines)


def test_the_page_is_the_table() -> None:
    assert table() in DOCS.read_text(encoding="utf-8"), f"docs/permissions.md should hold:\n{table()}"


_WHO = {
    "anybody": "whoever has the link", "person": "a signed-in user", "caller": "a signed-in user, or a key",
    "member": "any member or key",
}  # fmt: skip


def function_table() -> str:
    lines = ["| function | needs |", "|---|---|"]
    for name, need in FUNCTION_NEEDS.items():
        roles = [" or ".join(need.roles)] if need.roles else []
        said = ", ".join([*need.permissions, *roles]) or _WHO[need.who]
        lines.append(f"| `{name}` | {said}{'; the service_role key' if need.operator else ''} |")
    return "\n".join(lines)


def test_the_functions_of_the_page_are_the_table() -> None:
    assert function_table() in DOCS.read_text(encoding="utf-8"), f"should hold:\n{function_table()}"


def test_roles_of_the_page() -> None:
    text = DOCS.read_text(encoding="utf-8")
    for role, granted in ROLE_DEFAULTS.items():
        line = next(row for row in text.splitlines() if row.startswith(f"| {role} |"))
        assert {p for p in PERMISSIONS if p in line} == set(granted)


@pytest.mark.parametrize(
    ("table_name", "verb", "role", "permissions", "lacking"),
    [
        ("contacts", "insert", "AGENT", {"can_access_crm"}, None),
        ("contacts", "insert", None, {"can_send_messages"}, ("can_access_crm",)),
        ("api_keys", "read", "AGENT", {"can_manage_settings"}, ("can_manage_settings",)),
        ("organizations", "insert", "OWNER", set(PERMISSIONS), ()),
        ("teams", "read", "AGENT", set(), None),
    ],
)
def test_missing(
    table_name: str, verb: str, role: str | None, permissions: set[str], lacking: tuple[str, ...] | None
) -> None:
    assert missing(table_name, verb, role, frozenset(permissions)) == lacking  # type: ignore[arg-type]


def test_can_see() -> None:
    assert can_see("messages", frozenset({"can_read_messages"}), None)
    assert not can_see("messages", frozenset({"can_send_messages"}), "AGENT")
    assert not can_see("no_such_table", frozenset(PERMISSIONS), "OWNER")
