"""What a rule may do: the actions of automation_rules.actions, checked when they are saved.

An action's parameters stand beside its type, or under `params` or `config`; they are kept as they were
written. Members that no action knows are kept, too.

    {"type": "ADD_TAG", "tag": "vip"}     {"type": "ADD_TAG", "params": {"tag": "vip"}}
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Final, Literal
from uuid import UUID

import msgspec
from msgspec import Meta

MOST: Final = 50
_NESTED: Final = ("params", "config")
Text = Annotated[str, Meta(min_length=1, max_length=4096)]
Name = Annotated[str, Meta(min_length=1, max_length=200)]


class Action(msgspec.Struct):
    """Parameters of one kind of action. One of `needs_one` must be given, where there are any."""

    needs_one: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        if self.needs_one and all(getattr(self, name) is None for name in self.needs_one):
            raise ValueError(f"needs {' or '.join(self.needs_one)}")


class SendMessage(Action):
    needs_one = ("content", "template_id")
    content: Text | None = None
    template_id: UUID | None = None
    variables: dict[str, Any] | None = None


class Assign(Action):
    assignee_id: UUID


class AssignDeal(Action):
    needs_one = ("owner_id", "assignee_id")
    owner_id: UUID | None = None
    assignee_id: UUID | None = None


class CreateTask(Action):
    title: Name
    description: Text | None = None
    due_in_minutes: Annotated[int, Meta(ge=0, le=5_256_000)] | None = None
    priority: Literal["LOW", "MEDIUM", "HIGH"] | None = None
    assignee_id: UUID | None = None


class CreateDeal(Action):
    title: Name
    value: Annotated[float, Meta(ge=0)] | None = None
    currency: Annotated[str, Meta(pattern="^[A-Z]{3}$")] | None = None
    pipeline_id: UUID | None = None
    stage: Name | None = None
    owner_id: UUID | None = None


class Tag(Action):
    tag: Name
    target: Literal["contact", "deal", "conversation"] | None = None


class UpdateField(Action):
    field: Name
    value: Any
    target: Literal["contact", "deal", "conversation", "company"] | None = None


ACTIONS: Final[dict[str, type[Action]]] = {
    "SEND_MESSAGE": SendMessage,
    "ASSIGN_CONVERSATION": Assign,
    "ASSIGN_CONTACT": Assign,
    "ASSIGN_DEAL": AssignDeal,
    "CREATE_TASK": CreateTask,
    "CREATE_DEAL": CreateDeal,
    "ADD_TAG": Tag,
    "REMOVE_TAG": Tag,
    "UPDATE_FIELD": UpdateField,
}


def problem_of(actions: Any) -> tuple[str, str] | None:
    """What keeps a rule from doing these: its place, as `actions[1].params`, and what msgspec says, which may
    lead further in; None for nothing. What is no list at all is left to the column's own check."""
    if not isinstance(actions, list):
        return None
    if len(actions) > MOST:
        return "actions", f"at most {MOST} actions in one rule"
    found = (_problem_of_one(f"actions[{n}]", action) for n, action in enumerate(actions))
    return next((problem for problem in found if problem is not None), None)


def _problem_of_one(place: str, action: Any) -> tuple[str, str] | None:
    if not isinstance(action, dict):
        return place, 'must be an object with a "type"'
    kind = ACTIONS.get(action["type"]) if isinstance(action.get("type"), str) else None
    if kind is None:
        return f"{place}.type", f"must be one of {', '.join(ACTIONS)}"
    nested = next((name for name in _NESTED if isinstance(action.get(name), dict)), None)
    try:
        msgspec.convert(action if nested is None else {**action, **action[nested]}, kind)
    except msgspec.ValidationError as error:
        return place if nested is None else f"{place}.{nested}", str(error)
    return None


def schemas() -> dict[str, Any]:
    """A JSON Schema for each action, by its type: parameters beside the type, or nested."""
    found: dict[str, Any] = {}
    for kind, struct in ACTIONS.items():
        (_,), components = msgspec.json.schema_components([struct])
        plain = components[struct.__name__]
        flat: dict[str, Any] = {"required": plain.get("required", []), "properties": plain["properties"]}
        if struct.needs_one:
            flat["anyOf"] = [{"required": [name]} for name in struct.needs_one]
        nested = {"type": "object", **flat}
        found[kind] = {
            "type": "object",
            "required": ["type"],
            "properties": {"type": {"const": kind}},
            "anyOf": [flat, *({"required": [name], "properties": {name: nested}} for name in _NESTED)],
        }
    return found
