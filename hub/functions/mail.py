"""mail-outbox: what waits to be sent, for the owners of an organization whose hub has no mail server."""

from __future__ import annotations

from typing import Any, Final

import structlog
from aiohttp import web

from hub.auth.mail import open_mail
from hub.auth.secrets import CannotOpen
from hub.bodies import json_response
from hub.domain.mails import write
from hub.domain.principal import Principal
from hub.errors import InsufficientPermissions
from hub.resources import DB, SETTINGS
from sql import q

log = structlog.get_logger()
_ROWS: Final = 100


async def mail_outbox(request: web.Request, principal: Principal) -> web.Response:
    """Mails of the caller's organization that wait; for OWNERs. What a mail says is shown without a mail
    server alone, and never of one that signs somebody in: that is for whoever runs the hub (`hub mail`)."""
    if principal.kind != "user" or principal.role != "OWNER" or principal.organization_id is None:
        raise InsufficientPermissions("The outbox is for owners", details={"missing": []})
    settings = request.app[SETTINGS]
    async with request.app[DB].connection("api") as conn:
        rows = await conn.fetch(q.waiting_mail, principal.organization_id, _ROWS)
    mails: list[dict[str, Any]] = []
    shown = 0
    for row in rows:
        found: dict[str, Any] = {
            "id": row["id"],
            "recipient": row["recipient"],
            "template": row["template"],
            "state": row["state"],
            "attempts": row["attempts"],
            "last_error": row["last_error"],
            "created_at": row["created_at"],
            "subject": None,
            "text": None,
        }
        if settings.smtp is None and row["organization_id"] == principal.organization_id:
            try:
                values = open_mail(settings, row["id"], row["organization_id"], row["payload"])
            except CannotOpen:
                found["last_error"] = "The sealed text cannot be opened: see HUB_SECRET_KEY"
            else:
                values = {"organization": row["organization"] or "", **values}
                mail = write(row["template"], values, row["locale"])
                found |= {"subject": mail.subject, "text": mail.text}
                shown += 1
        mails.append(found)
    if shown:
        log.info("mail.read", mails=shown, user_id=str(principal.user_id))
    return json_response({"mail_server": settings.smtp is not None, "mails": mails})
