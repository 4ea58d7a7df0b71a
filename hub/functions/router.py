"""/functions/v1/*: the whole table. Providers' webhooks are not here (hub/channels/ingress.py, and
Stripe's in billing.py): they sign instead of signing in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
from aiohttp import web

from hub.auth.callers import admit, admit_anyone
from hub.domain.permissions import FUNCTION_NEEDS
from hub.domain.principal import Principal
from hub.errors import MethodNotAllowed, NotFound
from hub.functions import (
    api_keys,
    audit,
    batch,
    billing,
    events,
    invitations,
    mail,
    media,
    messages,
    organizations,
    team,
)  # fmt: skip
from hub.functions.calls import require

Handler = Callable[[web.Request, Principal], Awaitable[web.StreamResponse]]


class Function(msgspec.Struct, frozen=True):
    """Readers answer POST as well: supabase-js' `invoke` sends it unless told otherwise. ``body`` and
    ``folder`` (of the API document) are for its description. Who may call it: FUNCTION_NEEDS."""

    handler: Handler
    methods: tuple[str, ...]
    folder: str = "External APIs"
    body: type | None = None


_READ: Final = ("GET", "HEAD", "POST")
_WRITE: Final = ("POST",)
_SENDING: Final = "Message Sending"
_ORGANIZATION: Final = "Organization & Auth"
_PAYMENT: Final = "Payment & Subscription"
#: Not in the API document, so in none of its Postman folders.
_OURS: Final = ""

FUNCTIONS: Final[dict[str, Function]] = {
    "insert-message": Function(messages.insert_message, _WRITE, body=messages._Insert),
    "whatsapp-cloud-send": Function(messages.whatsapp_cloud_send, _WRITE, _SENDING, messages._Send),
    "upload-media": Function(media.upload_media, _WRITE, _SENDING),
    "media/{id}": Function(media.get_media, ("GET", "HEAD"), _SENDING),
    "generate-api-key": Function(api_keys.generate_api_key, _WRITE, body=api_keys._Generate),
    "list-api-keys": Function(api_keys.list_api_keys, _READ),
    "revoke-api-key": Function(api_keys.revoke_api_key, _WRITE, body=api_keys._Which),
    "rotate-api-key": Function(api_keys.rotate_api_key, _WRITE, body=api_keys._Rotate),
    "list-organizations": Function(organizations.list_organizations, _READ, _ORGANIZATION),
    "create-organization": Function(
        organizations.create_organization, _WRITE, _ORGANIZATION, organizations._Create
    ),
    "switch-organization": Function(
        organizations.switch_organization, _WRITE, _ORGANIZATION, organizations._Switch
    ),
    "leave-organization": Function(organizations.leave_organization, _WRITE, _ORGANIZATION),
    "send-invitation-email": Function(
        invitations.send_invitation_email, _WRITE, _ORGANIZATION, invitations._Send
    ),
    "list-invitations": Function(invitations.list_invitations, _READ, _ORGANIZATION),
    "resend-invitation": Function(invitations.resend_invitation, _WRITE, _ORGANIZATION, invitations._Which),
    "revoke-invitation": Function(invitations.revoke_invitation, _WRITE, _ORGANIZATION, invitations._Which),
    "check-invitation": Function(invitations.check_invitation, _WRITE, _ORGANIZATION, invitations._Token),
    "accept-invitation": Function(invitations.accept_invitation, _WRITE, _ORGANIZATION, invitations._Accept),
    "list-members": Function(team.list_members, _READ, _ORGANIZATION),
    "update-member": Function(team.update_member, _WRITE, _ORGANIZATION, team._Change),
    "create-checkout": Function(billing.create_checkout, _WRITE, _PAYMENT, billing._Checkout),
    "customer-portal": Function(billing.customer_portal, _READ, _PAYMENT, billing._Portal),
    "check-subscription": Function(billing.check_subscription, _READ, _PAYMENT),
    "audit-log": Function(audit.audit_log, ("GET", "HEAD"), _ORGANIZATION),
    "events": Function(events.events, _READ),
    "batch": Function(batch.batch, _WRITE, body=batch.Batch),
    "webhook-failures": Function(events.webhook_failures, _READ),
    "mail-outbox": Function(mail.mail_outbox, _READ, _OURS),
}


def routes() -> list[web.RouteDef]:
    named = [
        web.route("*", f"/functions/v1/{name}", _serve(name, function))
        for name, function in FUNCTIONS.items()
    ]
    return [*named, web.route("*", "/functions/v1/{name:.*}", _unknown)]


def _serve(name: str, function: Function) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    need = FUNCTION_NEEDS[name]

    async def serve(request: web.Request) -> web.StreamResponse:
        if request.method not in function.methods:
            if request.method == "OPTIONS":
                return web.Response(status=204, headers={"Allow": ", ".join((*function.methods, "OPTIONS"))})
            raise MethodNotAllowed(
                "This method is not allowed here", details={"allowed": list(function.methods)}
            )
        if need.who == "anybody":
            return await function.handler(request, await admit_anyone(request, "functions"))
        who = await admit(request, "functions")
        require(who, need)
        return await function.handler(request, who)

    return serve


async def _unknown(request: web.Request) -> web.Response:
    raise NotFound("There is no such function")
