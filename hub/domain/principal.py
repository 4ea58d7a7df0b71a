"""Who is calling: one value that every door, limit and policy reads."""

from __future__ import annotations

from typing import Any, Literal
from uuid import UUID

import msgspec

from hub.domain.permissions import PERMISSIONS, Visibility

Kind = Literal["anon", "user", "key", "worker", "system", "service"]
DbRole = Literal["anon", "authenticated", "service_role"]
Actor = Literal["rule", "flow", "campaign"]


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """The caller of one request, socket command or piece of work, in at most one organization."""

    kind: Kind
    organization_id: UUID | None = None
    user_id: UUID | None = None
    role: str | None = None
    permissions: frozenset[str] = frozenset()
    session_id: UUID | None = None
    key_id: UUID | None = None
    is_web: bool = False
    lacks_factor: bool = False
    """The session has not proved the second factor that its user has: it opens sign-in alone."""
    expires_at: float | None = None
    claims: dict[str, Any] = {}
    cause_id: UUID | None = None
    depth: int = 0
    #: Where the request came from, for the audit log.
    address: str | None = None
    request_id: str | None = None
    #: In whose name a worker acts: the rule, flow or campaign.
    actor: Actor | None = None
    actor_id: UUID | None = None
    #: Which conversations a member sees; his teams, unless he sees all.
    visibility: Visibility = "all"
    team_ids: tuple[UUID, ...] = ()

    @property
    def db_role(self) -> DbRole:
        if self.kind == "service":
            return "service_role"
        return "anon" if self.kind == "anon" else "authenticated"

    def context(self) -> dict[str, Any]:
        """What `hub.ctx` says of the caller (sql/migrations/0001_foundation.sql)."""
        found: dict[str, Any] = {
            "org": self.organization_id,
            "user": self.user_id,
            "role": self.role,
            "permissions": sorted(self.permissions),
            "kind": self.kind,
            "cause": self.cause_id,
            "depth": self.depth,
        }
        for name, value in (
            ("key", self.key_id), ("ip", self.address), ("request", self.request_id),
            ("actor", self.actor), ("actor_id", self.actor_id),
        ):  # fmt: skip
            if value is not None:
                found[name] = value
        if self.visibility != "all":
            found["sees"] = self.visibility
            found["teams"] = self.team_ids if self.visibility == "team" else ()
        return found


ANON = Principal(kind="anon")


def worker_for(
    organization_id: UUID,
    *,
    cause_id: UUID | None = None,
    depth: int = 0,
    actor: Actor | None = None,
    actor_id: UUID | None = None,
) -> Principal:
    """A worker acting inside one organization, with every permission there and none elsewhere. The audit log
    names the ``actor`` whose work it does."""
    return Principal(
        kind="worker",
        organization_id=organization_id,
        role="ADMIN",
        permissions=frozenset(PERMISSIONS),
        cause_id=cause_id,
        depth=depth,
        actor=actor,
        actor_id=actor_id,
    )
