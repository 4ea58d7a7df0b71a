"""Whether a caller may do something to a resource at all; which rows is row security's business."""

from __future__ import annotations

from hub.domain.permissions import Verb, missing
from hub.domain.principal import Principal
from hub.errors import InsufficientPermissions


def require(principal: Principal, table: str, verb: Verb) -> None:
    """Raises InsufficientPermissions naming what is missing; row security would only show nothing."""
    if principal.kind == "service":
        return
    lacking = missing(table, verb, principal.role, principal.permissions)
    if lacking is not None:
        raise InsufficientPermissions(
            f"You may not {verb} {table}",
            details={"missing": list(lacking)},
            hint="Ask an administrator of your organization",
        )
