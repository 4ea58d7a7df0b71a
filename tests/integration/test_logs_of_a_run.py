"""What hub and workers log while people talk, sign in wrongly and databases and providers quote what they
were given, holds nothing that was said, nobody's number or address, and no credential (guarantees 18)."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
from aiohttp import web

from hub.channels.signing import meta_signature
from hub.db.embedded import EmbeddedValkey, free_port
from tests import whatsapp
from tests.factories import Member, Org, Servers, make_contact, make_conversation, until
from tests.server import PASSWORD, SECRET_KEY

PLANTED = {
    "text": "planted-words-of-a-customer",
    "number": "201001382244",
    "dialled": "+20 100 138 2244",
    "email": "planted.person@example.test",
    "wrong password": "planted-wrong-password",
    "password": PASSWORD,
    "provider's token": "EAAplantedtokenofanaccount0123456789",
    "app secret": whatsapp.APP_SECRET,
    "key of the hub": SECRET_KEY,
}
_BREAK = """
create function break() returns trigger language plpgsql as $$
begin
  raise exception 'invalid input syntax for type thing: "%"', to_jsonb(new) ->> 'content'
    using errcode = 'XX000', detail = format('Failing row contains (%s).', new);
end $$;
create trigger break before insert on contacts for each row when (new.first_name = 'Break')
  execute function break();
create trigger break before update of status on messages for each row when (new.content like '%break%')
  execute function break();
"""


@asynccontextmanager
async def process(environ: dict[str, str], log: Path, *command: str) -> AsyncIterator[None]:
    with log.open("wb") as out:
        running = await asyncio.create_subprocess_exec(
            sys.executable, "-m", *command, env=environ, stdout=out, stderr=out
        )
    try:
        yield
        running.send_signal(signal.SIGTERM)
        await asyncio.wait_for(running.wait(), 40)
    finally:
        if running.returncode is None:
            running.kill()
            await running.wait()


@asynccontextmanager
async def quoting_provider() -> AsyncIterator[str]:
    """Refuses every send and says in its refusal what it was sent."""

    async def refuse(request: web.Request) -> web.Response:
        said = await request.text()
        error = {"message": f"(#100) Bad: {said}", "code": 100, "error_data": {"details": said}}
        return web.json_response({"error": error}, status=400)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", refuse)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/graph"
    finally:
        await runner.cleanup()


async def test_nothing_personal_and_nothing_secret_is_logged_in_a_run(
    servers: Servers, valkey: EmbeddedValkey, tmp_path: Path, superuser: asyncpg.Connection, org: Org,
    owner: Member,
) -> None:  # fmt: skip
    await superuser.execute(_BREAK)
    contact = await make_contact(superuser, org, PLANTED["number"], emails=[PLANTED["email"]])
    conversation = str(await make_conversation(superuser, org, contact))
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    statuses: list[int] = []
    async with quoting_provider() as graph:
        environ = {
            **{n: v for n, v in os.environ.items() if not n.startswith(("HUB_", "META_"))},
            "DATABASE_URL": servers.database_url, "REDIS_URL": valkey.url, "HUB_SECRET_KEY": SECRET_KEY,
            "HUB_DATA_DIR": str(tmp_path), "HUB_PORT": str(port), "HUB_UNSAFE_DURABILITY": "on",
            "META_APP_SECRET": whatsapp.APP_SECRET, "META_GRAPH_BASE": graph, "HUB_LOG": "json",
        }  # fmt: skip
        async with (
            aiohttp.ClientSession() as client,
            process(environ, tmp_path / "hub.log", "hub", "serve"),
            process(environ, tmp_path / "workers.log", "workers"),
        ):

            async def is_ready() -> bool:
                try:
                    async with client.get(f"{url}/readyz") as answer:
                        return answer.status == 200
                except aiohttp.ClientConnectionError:
                    return False

            async def call(method: str, path: str, body: Any, **headers: str) -> Any:
                raw = body if isinstance(body, bytes) else json.dumps(body).encode()
                headers = {"Content-Type": "application/json", **headers}
                async with client.request(method, url + path, data=raw, headers=headers) as answer:
                    statuses.append(answer.status)
                    raw = await answer.read()
                    return json.loads(raw) if raw[:1] in (b"{", b"[") else None

            await until(is_ready, timeout_s=30, what="the hub to be ready")
            grant = "/auth/v1/token?grant_type=password"
            await call("POST", grant, {"email": PLANTED["email"], "password": PLANTED["wrong password"]})
            await call("POST", grant, {"email": owner.email, "password": PLANTED["wrong password"]})
            session = await call("POST", grant, {"email": owner.email, "password": PASSWORD})
            bearer = {"Authorization": f"Bearer {session['access_token']}"}
            settings = {"phone_number_id": org.phone_number_id, "access_token": PLANTED["provider's token"]}
            account = f"/rest/v1/channel_accounts?id=eq.{org.account_id}"
            await call("PATCH", account, {"settings": settings}, **bearer)
            person = {"phones": [PLANTED["dialled"]], "emails": [PLANTED["email"]]}
            await call("POST", "/rest/v1/contacts", {"first_name": "Break", **person}, **bearer)
            twice = {"contact_id": str(contact), "scheme": "wa_id", "value": PLANTED["number"]}
            await call("POST", "/rest/v1/contact_identities", twice, **bearer)
            await call("GET", f"/rest/v1/contacts?id=eq.{PLANTED['number']}", b"", **bearer)
            record = {"direction": "incoming", "status": "what?", "content": PLANTED["text"]}
            await call("POST", "/functions/v1/insert-message", {"phone": "x", **record}, **bearer)
            send = {"to": PLANTED["dialled"], "accessToken": PLANTED["provider's token"]}
            await call("POST", "/functions/v1/whatsapp-cloud-send", {"message": "x", **send}, **bearer)
            delivery = whatsapp.messages(org, whatsapp.text(PLANTED["number"], PLANTED["text"]))
            signed = {"X-Hub-Signature-256": meta_signature(whatsapp.APP_SECRET, delivery)}
            await call("POST", whatsapp.PATH, delivery, **signed)
            await call("POST", whatsapp.PATH, delivery, **{"X-Hub-Signature-256": "sha256=00"})
            message = {"conversation_id": conversation, "direction": "OUTBOUND", "status": "PENDING"}
            for content in (PLANTED["text"], f"break {PLANTED['text']}"):
                await call("POST", "/rest/v1/messages", {**message, "content": content}, **bearer)

            async def has_failed() -> bool:
                log = (tmp_path / "workers.log").read_text()
                return "exception" in log and bool(
                    await superuser.fetchval("select count(*) from messages where status = 'FAILED'")
                )

            await until(has_failed, timeout_s=30, what="the worker to meet both refusals")

    assert 500 in statuses and 409 in statuses and 201 in statuses, statuses
    logs = (tmp_path / "hub.log").read_text() + (tmp_path / "workers.log").read_text()
    lines = [json.loads(line) for line in logs.splitlines() if line.startswith("{")]
    events = {line["event"] for line in lines}
    assert {"request.failed", "sign_in.refused", "request"} <= events
    failed = [line["exception"] for line in lines if "exception" in line]
    assert any("InternalServerError" in text for text in failed), "the error itself is still told"
    assert [name for name, value in PLANTED.items() if value in logs] == []
    assert session["access_token"] not in logs and session["refresh_token"] not in logs
