"""RATE-01 to RATE-04: windows counted over all hubs, open while Redis is away."""

from __future__ import annotations

import asyncio
from pathlib import Path

import asyncpg
import pytest

from hub.db.embedded import EmbeddedValkey
from tests.factories import Member, Org, Servers
from tests.server import Hub, running_hub

HEADERS = {"X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"}


async def test_RATE_04_headers_on_every_answer(hub: Hub, owner: Member) -> None:
    token = await hub.token(owner.email)
    anon = (await hub.get("/config.json")).json["anon_key"]
    for path, options in (
        ("/rest/v1/contacts", {"token": token}), ("/rest/v1/contacts?nope=eq.1", {"token": token}),
        ("/rest/v1/nope", {"token": token}),
        ("/rest/v1/contacts", {"token": anon}), ("/rest/v1/contacts", {}),
        ("/functions/v1/list-organizations", {"token": token}),
        ("/functions/v1/nope", {}), ("/auth/v1/nope", {}), ("/auth/v1/settings", {}),
        ("/auth/v1/user", {"token": token}),
    ):  # fmt: skip
        answer = await hub.get(path, **options)
        assert answer.headers.keys() >= HEADERS, path


async def test_RATE_01_02_03_exactly_n_pass_over_two_hubs(
    servers: Servers, valkey: EmbeddedValkey, tmp_path: Path, superuser: asyncpg.Connection, owner: Member
) -> None:
    limits = {
        "HUB_RATE_REST": "20",
        "HUB_RATE_FUNCTIONS": "10",
        "HUB_RATE_EXTERNAL": "15",
        "HUB_RATE_WEB": "30",
    }
    async with (
        running_hub(servers, valkey.url, tmp_path / "a", **limits) as one,
        running_hub(
            servers, valkey.url, tmp_path / "b", PUBLIC_BASE_URL=one.settings.public_base_url, **limits
        ) as two,
    ):
        token = await one.token(owner.email)
        key = (await one.post("/functions/v1/generate-api-key", token=token, json={"name": "x"})).json[
            "api_key"
        ]
        web = (await one.sign_in(owner.email, headers={"X-Hub-Client": "web"}))["access_token"]
        for path, options, n in (
            ("/rest/v1/contacts?limit=1", {"token": token}, 20),
            ("/functions/v1/list-organizations", {"token": token}, 9),  # one was spent on the key
            ("/functions/v1/list-organizations", {"key": key}, 15),
            ("/rest/v1/contacts?limit=1", {"token": web}, 30),
        ):
            answers = await asyncio.gather(*((one, two)[i % 2].get(path, **options) for i in range(n + 6)))
            assert sorted(a.status for a in answers) == [200] * n + [429] * 6, (path, options)
            refused = next(a for a in answers if a.status == 429)
            assert refused.json["error_code"] == "RATE_LIMIT_EXCEEDED"
            assert 1 <= int(refused.headers["Retry-After"]) <= 60
            assert refused.headers["X-RateLimit-Remaining"] == "0"


async def test_N_03_without_redis_each_process_counts_alone(
    servers: Servers, tmp_path: Path, org: Org, owner: Member
) -> None:
    async with running_hub(servers, "redis://127.0.0.1:1/0", tmp_path, HUB_RATE_REST="5") as hub:
        token = await hub.token(owner.email)
        statuses = [(await hub.get("/rest/v1/contacts", token=token)).status for _ in range(7)]
        assert statuses == [200] * 5 + [429] * 2
        ready = await hub.get("/readyz")
        assert (ready.status, ready.json) == (200, {"status": "degraded", "degraded": ["redis"]})


async def test_strangers_are_limited_by_address(
    servers: Servers, valkey: EmbeddedValkey, tmp_path: Path
) -> None:
    proxied = {"HUB_TRUSTED_PROXIES": "127.0.0.1", "HUB_RATE_ADDRESS": "3"}
    async with running_hub(servers, valkey.url, tmp_path, **proxied) as hub:
        for address in (f"203.0.113.{tmp_path.name.__hash__() % 100}", "2001:db8::77"):
            headers = {"X-Forwarded-For": f"spoofed, {address}"}
            statuses = [
                (await hub.get("/rest/v1/contacts", token="x", headers=headers)).status for _ in range(5)
            ]
            assert statuses == [401] * 3 + [429] * 2


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/config.json"])
async def test_pages_without_a_limit(hub: Hub, path: str) -> None:
    assert not (await hub.get(path)).headers.keys() & HEADERS
