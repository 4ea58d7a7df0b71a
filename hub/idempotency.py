"""The header Idempotency-Key of a POST: its answer is kept for 24 hours, in the transaction of its effect,
and a repeat gets that answer instead of another effect (guarantees 9).

    once = Once.of(request, principal, raw)
    async with acting_as(db, principal) as conn:
        kept = await once.earlier(conn) if once else None
        …the effect…
        if once: await once.keep(conn, status, body)

A refusal rolls back and keeps nothing: after it the same key may be used again.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

import msgspec
from aiohttp import web

from hub.domain.principal import Principal
from hub.errors import Conflict, ValidationFailed, invalid
from sql import q

HEADER: Final = "Idempotency-Key"
#: On an answer that was given before.
REPLAYED: Final = {"Idempotency-Replayed": "true"}
_LONGEST_KEY: Final = 255


class Kept(msgspec.Struct, frozen=True):
    """The answer of the first time; ``body`` is what its handler gave to ``keep``."""

    status: int
    body: str


class Once(msgspec.Struct, frozen=True):
    """One request's key. ``name``: under whom it is kept; ``digest``: what makes it the same request."""

    key: str
    name: str
    digest: bytes

    @classmethod
    def of(cls, request: web.Request, principal: Principal, raw: bytes, *what: str) -> Once | None:
        """None without the header. ``what`` else decides the answer besides address and body.
        Raises ValidationFailed for a key that cannot be used."""
        key = request.headers.get(HEADER)
        if key is None:
            return None
        if not 1 <= len(key) <= _LONGEST_KEY or not key.isprintable():
            raise invalid(HEADER, f"must have 1 to {_LONGEST_KEY} printable characters")
        if principal.organization_id is None and principal.kind != "service":
            raise invalid(HEADER, "is kept for members and keys of an organization; this credential has none")
        digest = hashlib.sha256()
        for part in (request.path, *what):
            digest.update(part.encode("utf-8", "surrogateescape") + b"\n")
        digest.update(raw)
        who = f"{principal.kind}:{principal.key_id or principal.user_id or ''}"
        return cls(key, who, digest.digest())

    async def earlier(self, conn: Any) -> Kept | None:
        """The answer to repeat; None when this is the first time, which then holds the key until the
        transaction ends. Raises Conflict while another request holds it, ValidationFailed when it was used
        for something else."""
        row = await conn.fetchrow(q.begin_idempotent, self.name, self.key, self.digest)
        if row["answer"] == "busy":
            raise Conflict(f"The first request with this {HEADER} is still running", retry_after_s=1)
        if row["answer"] == "other_body":
            raise ValidationFailed(
                "Validation error", details={"field": HEADER, "message": "was used with another body"}
            )
        return Kept(row["status"], row["body"]) if row["answer"] == "done" else None

    async def keep(self, conn: Any, status: int, body: str) -> None:
        """Called once, after the effect."""
        await conn.execute(q.finish_idempotent, self.name, self.key, self.digest, status, body)
