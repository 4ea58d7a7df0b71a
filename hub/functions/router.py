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
from hub.functions import events, media, messages, organizations
from hub.functions.batch import batch

Handler = Callable[[web.Request, Principal], Awaitable[web.StreamResponse]]


class Function(msgspec.Struct, frozen=True):
    """Readers answer POST as well: supabase-js' `invoke` sends it unless told otherwise."""

    handler: Handler
    methods: tuple[str, ...]


_READ: Final = ("GET", "HEAD", "POST")
_WRITE: Final = ("POST",)

FUNCTIONS: Final[dict[str, Function]] = {
    "insert-message": Function(messages.insert_message, _WRITE),
    "whatsapp-cloud-send": Function(messages.whatsapp_cloud_send, _WRITE),
    "upload-media": Function(media.upload_media, _WRITE),
    "media/{id}": Function(media.get_media, ("GET", "HEAD")),
    "generate-api-key": Function(organizations.generate_api_key, _WRITE),
    "list-organizations": Function(organizations.list_organizations, _READ),
    "switch-organization": Function(organizations.switch_organization, _WRITE),
    "events": Function(events.events, _READ),
    "batch": Function(batch, _WRITE),
    "webhook-failures": Function(events.webhook_failures, _READ),
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
