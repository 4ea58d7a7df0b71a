"""Who is calling: one value that every door, limit and policy reads."""

from __future__ import annotations

from typing import Any, Literal
from uuid import UUID

import msgspec

from hub.domain.permissions import PERMISSIONS

Kind = Literal["anon", "user", "key", "worker", "system", "service"]
DbRole = Literal["anon", "authenticated", "service_role"]


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
    expires_at: float | None = None
    claims: dict[str, Any] = {}
    cause_id: UUID | None = None
    depth: int = 0

    @property
    def db_role(self) -> DbRole:
        if self.kind == "service":
            return "service_role"
        return "anon" if self.kind == "anon" else "authenticated"

    def context(self) -> dict[str, Any]:
        """What `hub.ctx` says of the caller (sql/migrations/0001_foundation.sql)."""
        return {
            "org": self.organization_id,
            "user": self.user_id,
            "role": self.role,
            "permissions": sorted(self.permissions),
            "kind": self.kind,
            "cause": self.cause_id,
            "depth": self.depth,
        }


ANON = Principal(kind="anon")


def worker_for(organization_id: UUID, *, cause_id: UUID | None = None, depth: int = 0) -> Principal:
    """A worker acting inside one organization, with every permission there and none elsewhere."""
    return Principal(
        kind="worker",
        organization_id=organization_id,
        role="ADMIN",
        permissions=frozenset(PERMISSIONS),
        cause_id=cause_id,
        depth=depth,
    )
