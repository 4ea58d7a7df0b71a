"""Programs around other people's clients, and how a test runs them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from supabase import AsyncClient, AsyncClientOptions, acreate_client

from hub import bootstrap
from hub.resources import AUTH
from tests.needs import absent
from tests.server import PASSWORD, Hub

HERE = Path(__file__).parent
SUPABASE_JS = HERE.parents[1] / "hub" / "web" / "node_modules" / "@supabase" / "supabase-js"
COLLECTION = HERE.parents[1] / "docs" / "api" / "ConnectGain_API.postman_collection.json"
#: Tables of the document whose rows callers make.
DOCUMENTED = {
    "contacts", "companies", "deals", "pipelines", "conversations", "messages", "tasks", "templates",
    "bot_flows", "automation_rules", "campaigns", "notes", "channel_accounts", "projects", "milestones",
}  # fmt: skip
#: The product's tables have no ranges; an operator's own function may, and is called like the product's.
SHIFTS = """
create function public.shifts() returns table (name text, hours int4range) language sql stable
as $$ values ('early', int4range(6, 14)), ('late', int4range(14, 22)), ('night', int4range(22, 30)) $$;
grant execute on function public.shifts() to authenticated;
"""


@dataclass
class Wire:
    """What a client sent and was answered, oldest first."""

    requests: list[httpx.Request] = field(default_factory=list)
    answers: list[httpx.Response] = field(default_factory=list)

    async def sends(self, request: httpx.Request) -> None:
        self.requests.append(request)

    async def hears(self, response: httpx.Response) -> None:
        self.answers.append(response)

    @property
    def last(self) -> httpx.Request:
        return self.requests[-1]


@asynccontextmanager
async def supabase_py(hub: Hub, email: str | None) -> AsyncIterator[tuple[AsyncClient, Wire]]:
    """`supabase` with base URL and anon key, which is all it knows; signed in as ``email``."""
    wire = Wire()
    anon = (await hub.app[AUTH].keyring()).project_keys().anon
    async with httpx.AsyncClient(
        http2=True, event_hooks={"request": [wire.sends], "response": [wire.hears]}
    ) as http:
        options = AsyncClientOptions(auto_refresh_token=False, persist_session=False, httpx_client=http)
        client = await acreate_client(hub.url, anon, options)
        if email is not None:
            session = await client.auth.sign_in_with_password({"email": email, "password": PASSWORD})
            assert session.user is not None and session.user.email == email
        yield client, wire


async def drive(script: str, *arguments: str) -> dict[str, dict[str, Any]]:
    """Run a driver of this folder under Node to its end; its lines, by name. Skips without supabase-js."""
    if not SUPABASE_JS.is_dir():
        absent("@supabase/supabase-js is not installed: make install")
    process = await asyncio.create_subprocess_exec(
        str(bootstrap.web_module().node()), str(HERE / script), *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        out, err = await asyncio.wait_for(process.communicate(), 180)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, err.decode()
    return {line["name"]: line for line in map(json.loads, out.decode().splitlines())}
