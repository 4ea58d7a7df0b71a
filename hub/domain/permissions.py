"""Who may do what: one table that generates row policies, 403s, the API description and the tests.

A resource is a table the API shows. Each verb needs *any* of the permissions listed, or one of the roles.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

Permission = Literal[
    "can_access_crm",
    "can_access_pm",
    "can_manage_team",
    "can_manage_settings",
    "can_send_messages",
    "can_read_messages",
]
PERMISSIONS: Final[tuple[Permission, ...]] = (
    "can_access_crm",
    "can_access_pm",
    "can_manage_team",
    "can_manage_settings",
    "can_send_messages",
    "can_read_messages",
)
Role = Literal["OWNER", "ADMIN", "AGENT"]
Visibility = Literal["all", "team", "mine"]
Sight = Literal["assigned", "conversation", "message"]

ROLE_DEFAULTS: Final[dict[Role, frozenset[Permission]]] = {
    "OWNER": frozenset(PERMISSIONS),
    "ADMIN": frozenset(PERMISSIONS),
    "AGENT": frozenset({"can_access_crm", "can_send_messages", "can_read_messages"}),
}


class Need(msgspec.Struct, frozen=True):
    """What a verb asks of the caller: any of ``permissions`` and, if ``roles`` are named, one of them.

    ``anyone`` admits every member; ``nobody`` no caller at all (machinery writes such rows).
    ``own_column`` limits rows to those whose column names the caller; ``sight``, for members who do not see
    all conversations (``Visibility``), to those assigned to them, or of a conversation or message they see.
    """

    permissions: tuple[Permission, ...] = ()
    roles: tuple[Role, ...] = ()
    anyone: bool = False
    nobody: bool = False
    own_column: str | None = None
    sight: Sight | None = None

    def admits(self, role: str | None, permissions: frozenset[str]) -> bool:
        if self.nobody:
            return False
        if self.roles and role not in self.roles:
            return False
        return self.anyone or not self.permissions or not permissions.isdisjoint(self.permissions)


class Rules(msgspec.Struct, frozen=True):
    read: Need
    insert: Need
    update: Need
    delete: Need


ANYONE: Final = Need(anyone=True)
NOBODY: Final = Need(nobody=True)


def need(
    *permissions: Permission,
    roles: tuple[Role, ...] = (),
    own: str | None = None,
    sight: Sight | None = None,
) -> Need:
    return Need(permissions=permissions, roles=roles, own_column=own, sight=sight)


def same(read: Need, write: Need) -> Rules:
    return Rules(read=read, insert=write, update=write, delete=write)


_CRM = need("can_access_crm")
_PM = need("can_access_pm")
_SETTINGS = need("can_manage_settings")
_TEAM = need("can_manage_team")
_SEND = need("can_send_messages")
_KEYS = need("can_manage_settings", roles=("OWNER", "ADMIN"))
_ADMINS = Need(roles=("OWNER", "ADMIN"))
_OWN = Need(anyone=True, own_column="user_id")
_MY_READS = need("can_read_messages", own="user_id", sight="conversation")

RULES: Final[dict[str, Rules]] = {
    "organizations": Rules(read=ANYONE, insert=NOBODY, update=_SETTINGS, delete=NOBODY),
    # People join through invitations; guard_membership decides what a member may change of whom.
    "memberships": Rules(read=ANYONE, insert=NOBODY, update=ANYONE, delete=NOBODY),
    "teams": same(ANYONE, _TEAM),
    "team_members": same(ANYONE, _TEAM),
    "invitations": same(_TEAM, _TEAM),
    "api_keys": Rules(read=_KEYS, insert=_KEYS, update=_KEYS, delete=_KEYS),
    "subscriptions": Rules(read=_ADMINS, insert=NOBODY, update=NOBODY, delete=NOBODY),
    # Written by definer functions, in the transaction of the deed.
    "audit_log": Rules(read=_ADMINS, insert=NOBODY, update=NOBODY, delete=NOBODY),
    "contacts": same(need("can_access_crm", "can_read_messages"), _CRM),
    "contact_identities": same(need("can_access_crm", "can_read_messages"), _CRM),
    "companies": same(_CRM, _CRM),
    "channel_accounts": same(
        need("can_manage_settings", "can_read_messages", "can_send_messages"), _SETTINGS
    ),
    "conversations": same(
        need("can_read_messages", sight="assigned"), need("can_send_messages", sight="assigned")
    ),
    "messages": same(
        need("can_read_messages", sight="conversation"), need("can_send_messages", sight="conversation")
    ),
    "conversation_reads": same(_MY_READS, _MY_READS),
    "drafts": same(
        need("can_read_messages", sight="conversation"),
        need("can_send_messages", own="user_id", sight="conversation"),
    ),
    # Uploads and the providers' files come in by functions; what the hub keeps of them nobody rewrites.
    "media_files": Rules(
        read=need("can_read_messages", sight="message"), insert=NOBODY, update=NOBODY, delete=NOBODY
    ),
    "suppressions": same(
        need("can_access_crm", "can_send_messages"), need("can_access_crm", "can_send_messages")
    ),
    "sla_policies": same(ANYONE, _SETTINGS),
    "business_hours": same(ANYONE, _SETTINGS),
    "deals": same(_CRM, _CRM),
    "pipelines": same(_CRM, _CRM),
    "notes": same(_CRM, _CRM),
    "tasks": same(need("can_access_crm", "can_access_pm"), need("can_access_crm", "can_access_pm")),
    "projects": same(_PM, _PM),
    "milestones": same(_PM, _PM),
    "templates": same(need("can_manage_settings", "can_send_messages", "can_read_messages"), _SETTINGS),
    "bot_flows": same(ANYONE, _SETTINGS),
    "flow_versions": Rules(read=ANYONE, insert=_SETTINGS, update=NOBODY, delete=NOBODY),
    "bot_sessions": Rules(read=ANYONE, insert=NOBODY, update=_SETTINGS, delete=NOBODY),
    "bot_session_steps": Rules(read=ANYONE, insert=NOBODY, update=NOBODY, delete=NOBODY),
    "automation_rules": same(ANYONE, _SETTINGS),
    "automation_rule_versions": Rules(read=ANYONE, insert=_SETTINGS, update=NOBODY, delete=NOBODY),
    "automation_runs": Rules(read=ANYONE, insert=NOBODY, update=NOBODY, delete=NOBODY),
    "campaigns": same(need("can_send_messages", "can_read_messages"), _SEND),
    "campaign_recipients": Rules(
        read=need("can_send_messages", "can_read_messages"), insert=NOBODY, update=NOBODY, delete=NOBODY
    ),
    "webhooks": same(_SETTINGS, _SETTINGS),
    "webhook_deliveries": Rules(read=_SETTINGS, insert=NOBODY, update=NOBODY, delete=NOBODY),
    "custom_field_definitions": same(ANYONE, _SETTINGS),
    "saved_views": same(ANYONE, ANYONE),
    "imports": Rules(read=_CRM, insert=_CRM, update=NOBODY, delete=NOBODY),
    "import_rows": Rules(read=_CRM, insert=_CRM, update=NOBODY, delete=NOBODY),
    "dashboard_widgets": same(_OWN, _OWN),
}
#: `profiles` shows memberships; guard_membership decides what a member may change of whom.
RULES["profiles"] = Rules(read=ANYONE, insert=NOBODY, update=ANYONE, delete=NOBODY)


class FunctionNeed(msgspec.Struct, frozen=True):
    """What a function asks of its caller: all of ``permissions``, one of ``roles`` if any are named, and
    to be

    - ``anybody``, with the anon key or nothing (the link that he brings is checked),
    - ``person``: a signed-in user, also of no organization,
    - ``caller``: that, or an organization's key,
    - ``member``: of an organization, or its key.

    ``operator``: the service_role key may call it as well.
    """

    permissions: tuple[Permission, ...] = ()
    roles: tuple[Role, ...] = ()
    who: Literal["anybody", "person", "caller", "member"] = "member"
    operator: bool = False

    def admits(self, role: str | None, permissions: frozenset[str]) -> bool:
        """Of a member or key: whether role and permissions are enough."""
        return permissions.issuperset(self.permissions) and (not self.roles or role in self.roles)


_SENDS: Final = FunctionNeed(("can_send_messages",))
_READS: Final = FunctionNeed(("can_read_messages",))
_TEAMS: Final = FunctionNeed(("can_manage_team",))
_KEYED: Final = FunctionNeed(("can_manage_settings",), ("OWNER", "ADMIN"))
_PAYER: Final = FunctionNeed((), ("OWNER", "ADMIN"))
_PERSON: Final = FunctionNeed(who="person")
_MEMBER: Final = FunctionNeed()
_LINK: Final = FunctionNeed(who="anybody")

#: /functions/v1/*. The router refuses by this table before a function is called; a test compares both.
FUNCTION_NEEDS: Final[dict[str, FunctionNeed]] = {
    "insert-message": _SENDS,
    "whatsapp-cloud-send": _SENDS,
    "upload-media": _SENDS,
    "media/{id}": _READS,
    "generate-api-key": _KEYED,
    "list-api-keys": _KEYED,
    "revoke-api-key": _KEYED,
    "rotate-api-key": _KEYED,
    "list-organizations": FunctionNeed(who="caller"),
    "create-organization": _PERSON,
    "switch-organization": _PERSON,
    "leave-organization": _PERSON,
    "send-invitation-email": _TEAMS,
    "list-invitations": _TEAMS,
    "resend-invitation": _TEAMS,
    "revoke-invitation": _TEAMS,
    "check-invitation": _LINK,
    "accept-invitation": _LINK,
    "list-members": _MEMBER,
    "update-member": _TEAMS,
    "create-checkout": _PAYER,
    "customer-portal": _PAYER,
    "check-subscription": _PAYER,
    "audit-log": FunctionNeed((), ("OWNER", "ADMIN")),
    "events": _MEMBER,  # of tables that it may not read, none
    "batch": _MEMBER,  # each operation asks for its own
    "webhook-failures": FunctionNeed((), ("OWNER", "ADMIN"), operator=True),
    "mail-outbox": FunctionNeed((), ("OWNER",)),
}

Verb = Literal["read", "insert", "update", "delete"]


def rule(table: str, verb: Verb) -> Need:
    """What ``verb`` on ``table`` asks. Raises KeyError for a table the API does not show."""
    rules = RULES[table]
    need_: Need = getattr(rules, verb)
    return need_


def missing(table: str, verb: Verb, role: str | None, permissions: frozenset[str]) -> tuple[str, ...] | None:
    """None when the caller may; else the permissions of which one is missing (empty: the role is)."""
    wanted = rule(table, verb)
    return None if wanted.admits(role, permissions) else wanted.permissions


def can_see(table: str, permissions: frozenset[str], role: str | None) -> bool:
    """Whether a session with these permissions may see events of ``table``."""
    rules = RULES.get(table)
    return rules is not None and rules.read.admits(role, permissions)
