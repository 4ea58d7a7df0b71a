"""/functions/v1/*: the whole table. Provider webhooks are not here (hub/channels/ingress.py): they sign
instead of signing in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
from aiohttp import web

from hub.auth.callers import admit
from hub.domain.principal import Principal
from hub.errors import MethodNotAllowed, NotFound
from hub.functions import batch, events, mail, media, messages, organizations

Handler = Callable[[web.Request, Principal], Awaitable[web.StreamResponse]]


class Function(msgspec.Struct, frozen=True):
    """Readers answer POST as well: supabase-js' `invoke` sends it unless told otherwise. ``body`` and
    ``folder`` (of the API document) are for its description."""

    handler: Handler
    methods: tuple[str, ...]
    folder: str = "External APIs"
    body: type | None = None


_READ: Final = ("GET", "HEAD", "POST")
_WRITE: Final = ("POST",)
_SENDING: Final = "Message Sending"
_ORGANIZATION: Final = "Organization & Auth"
#: Not in the API document, so in none of its Postman folders.
_OURS: Final = ""

FUNCTIONS: Final[dict[str, Function]] = {
    "insert-message": Function(messages.insert_message, _WRITE, body=messages._Insert),
    "whatsapp-cloud-send": Function(messages.whatsapp_cloud_send, _WRITE, _SENDING, messages._Send),
    "upload-media": Function(media.upload_media, _WRITE, _SENDING),
    "media/{id}": Function(media.get_media, ("GET", "HEAD"), _SENDING),
    "generate-api-key": Function(organizations.generate_api_key, _WRITE, body=organizations._Generate),
    "list-organizations": Function(organizations.list_organizations, _READ, _ORGANIZATION),
    "switch-organization": Function(
        organizations.switch_organization, _WRITE, _ORGANIZATION, organizations._Switch
    ),
    "events": Function(events.events, _READ),
    "batch": Function(batch.batch, _WRITE, body=batch.Batch),
    "webhook-failures": Function(events.webhook_failures, _READ),
    "mail-outbox": Function(mail.mail_outbox, _READ, _OURS),
}


def routes() -> list[web.RouteDef]:
    named = [
        web.route("*", f"/functions/v1/{name}", _serve(function)) for name, function in FUNCTIONS.items()
    ]
    return [*named, web.route("*", "/functions/v1/{name:.*}", _unknown)]


def _serve(function: Function) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def serve(request: web.Request) -> web.StreamResponse:
        if request.method not in function.methods:
            if request.method == "OPTIONS":
                return web.Response(status=204, headers={"Allow": ", ".join((*function.methods, "OPTIONS"))})
            raise MethodNotAllowed(
                "This method is not allowed here", details={"allowed": list(function.methods)}
            )
        return await function.handler(request, await admit(request, "functions"))

    return serve


async def _unknown(request: web.Request) -> web.Response:
    raise NotFound("There is no such function")
