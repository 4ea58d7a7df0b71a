"""`hub serve` as a process: it says why it does not start, and it stops politely (guarantees 11)."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import aiohttp

from hub.db.embedded import EmbeddedValkey, free_port
from tests.factories import Servers, until
from tests.server import SECRET_KEY


def environment(servers: Servers, valkey: EmbeddedValkey, data_dir: Path, port: int) -> dict[str, str]:
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith(("HUB_", "META_"))},
        "DATABASE_URL": servers.database_url,
        "REDIS_URL": valkey.url,
        "HUB_SECRET_KEY": SECRET_KEY,
        "HUB_DATA_DIR": str(data_dir),
        "HUB_PORT": str(port),
        "HUB_UNSAFE_DURABILITY": "on",
    }


async def start(environ: dict[str, str]) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "hub", "serve", env=environ, stderr=asyncio.subprocess.PIPE
    )


async def readiness(port: int) -> int:
    """The status of /readyz; 0 while nobody listens."""
    try:
        async with (
            aiohttp.ClientSession() as client,
            client.get(f"http://127.0.0.1:{port}/readyz") as answer,
        ):
            return answer.status
    except aiohttp.ClientConnectionError:
        return 0


async def test_D_17_a_polite_end(servers: Servers, valkey: EmbeddedValkey, tmp_path: Path) -> None:
    port = free_port()
    process = await start(environment(servers, valkey, tmp_path, port))
    try:

        async def is_ready() -> bool:
            return await readiness(port) == 200

        await until(is_ready, timeout_s=30, what="the hub to be ready")
        process.send_signal(signal.SIGTERM)

        async def is_leaving() -> bool:
            return await readiness(port) == 503

        await until(is_leaving, what="/readyz to say that it stops while it still answers")
        hook = f"http://127.0.0.1:{port}/functions/v1/whatsapp-cloud-webhook"
        async with aiohttp.ClientSession() as http, http.post(hook, data=b"{}") as answer:
            assert answer.headers["Connection"] == "close", "its callers' next requests go elsewhere"
        _, said = await asyncio.wait_for(process.communicate(), 20)
        assert process.returncode == 0, said.decode()
        assert await readiness(port) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_a_second_signal_ends_it_at_once(
    servers: Servers, valkey: EmbeddedValkey, tmp_path: Path
) -> None:
    port = free_port()
    process = await start(environment(servers, valkey, tmp_path, port))

    async def is_ready() -> bool:
        return await readiness(port) == 200

    try:
        await until(is_ready, timeout_s=30, what="the hub to be ready")
        process.send_signal(signal.SIGTERM)

        async def is_leaving() -> bool:
            return await readiness(port) == 503

        await until(is_leaving, what="the first signal to be seen")
        process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(process.communicate(), 10)
        assert process.returncode == 130
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_a_start_that_fails_says_why(servers: Servers, valkey: EmbeddedValkey, tmp_path: Path) -> None:
    good = environment(servers, valkey, tmp_path, free_port())
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    taken = str(server.sockets[0].getsockname()[1])
    for change, word in (
        ({"HUB_PORT": "http"}, "HUB_PORT"),
        ({"HUB_SECRET_KEY": "short"}, "HUB_SECRET_KEY"),
        ({"HUB_UNSAFE_DURABILITY": "off"}, "HUB_UNSAFE_DURABILITY"),
        ({"HUB_PORT": taken}, "HUB_PORT"),
    ):
        process = await start({**good, **change})
        _, said = await asyncio.wait_for(process.communicate(), 30)
        assert process.returncode == 1, said
        assert word in said.decode()
        assert "Traceback" not in said.decode()
    server.close()


async def test_a_demo_that_others_can_reach_is_warned_of(
    servers: Servers, valkey: EmbeddedValkey, tmp_path: Path
) -> None:
    environ = environment(servers, valkey, tmp_path, free_port())
    for change, warned in (({"HUB_HOST": "0.0.0.0"}, True), ({"HUB_HOST": "127.0.0.1"}, False)):
        # It ends by itself: this server is refused.
        process = await start({**environ, "HUB_DEMO": "on", "HUB_UNSAFE_DURABILITY": "off", **change})
        _, said = await asyncio.wait_for(process.communicate(), 30)
        assert ("start.demo_is_open" in said.decode()) is warned
