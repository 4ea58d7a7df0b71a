"""What signing in costs beside bare argon2, what a token costs that was met before, and how long a caller
goes on who may not."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import aiohttp
import asyncpg
import jwt

from hub.auth.authenticator import FRESH_S, Authenticator
from hub.auth.passwords import hash_password
from hub.bench.figures import Goal, Report, Rounds, say
from hub.bench.ingest import load_with
from hub.bench.stage import Runner, Stage, postgres_cpu_s, stage
from hub.db.pool import Database, Purpose
from hub.domain.permissions import PERMISSIONS
from hub.settings import load_settings

ALONE, HUB = "argon2 alone, 2 threads", "hub"
JWT_ALONE, KNOWN, NEW = "PyJWT, ES256, each time", "hub, a token met before", "hub, a new token"
SIGN_IN, TOKENS, ENDING = "sign-in, 2 connections", "tokens", "until both hubs have noticed"
_PASSWORD = "a password of the benchmark"
_TOKENS = 20_000


class _Counted(Database):
    """Counts how often somebody asks the database."""

    asked = 0

    @asynccontextmanager
    async def connection(self, purpose: Purpose) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
        self.asked += 1
        async with super().connection(purpose) as conn:
            yield conn


def run(seconds: float = 2.0, rounds: int = 3, times: int = 5) -> Report:
    """``times``: how often each way of ending a caller is tried."""
    found = Rounds()
    looked: list[tuple[int, float]] = []
    with stage(1) as s:
        asyncio.run(_people(s))
        hub = s.hub(HUB, HUB_RATE_ADDRESS="1000000")
        for n in range(rounds):
            say(f"Round {n + 1} of {rounds}")
            _sign_ins(s, hub, found, seconds)
            looked.append(asyncio.run(_tokens(s, hub, found)))
        other = s.hub("another hub", HUB_RATE_ADDRESS="1000000")
        for way in _WAYS:
            for _ in range(times):
                found.add(ENDING, way, asyncio.run(_ending(s, hub, other, way)))
    asked = sum(n for n, _ in looked)
    allowed = sum(1 + int(took / FRESH_S) for _, took in looked)
    return Report(
        "auth",
        f"hub bench auth --rounds {rounds} --seconds {seconds:g}",
        [
            found.table(
                f"Signing in; medians of {rounds} rounds of {seconds:g} s. Tokens: {_TOKENS:,} a round. "
                f"Callers who are ended: medians of {times} tries",
                [
                    ("rate", "a second"),
                    ("server_us", "server µs"),
                    ("pg_us", "Postgres µs"),
                    ("each_us", "µs each"),
                    ("rest_s", "REST s"),
                    ("socket_s", "socket s"),
                ],
            )
        ],
        [
            Goal("Sign-in: CPU of hub and Postgres to argon2's", _whole(found), 1.35, at_most=True),
            found.goal(
                "A token met before: time to PyJWT's",
                "each_us",
                (TOKENS, KNOWN),
                (TOKENS, JWT_ALONE),
                0.2,
                at_most=True,
            ),
            Goal(
                f"Database look-ups in {_TOKENS * rounds:,} verifications beyond one in {FRESH_S:g} s",
                float(max(0, asked - allowed)),
                0,
                True,
                "",
            ),
            *(
                Goal(f"{way}: refused on REST and sockets after, s", _longest(found, way), 5.0, True, "")
                for way in _WAYS
            ),
        ],
        ["Of the callers who are ended, the longest of all tries counts, on the hub that did not do it."],
        figures=found.medians(),
    )


def _whole(found: Rounds) -> float | None:
    ratios = [
        (ours["server_us"] + ours["pg_us"]) / alone["server_us"]
        for ours, alone in zip(found.found[SIGN_IN, HUB], found.found[SIGN_IN, ALONE], strict=True)
    ]
    return sorted(ratios)[len(ratios) // 2] if ratios else None


def _longest(found: Rounds, way: str) -> float:
    return max(max(row["rest_s"], row["socket_s"]) for row in found.found[ENDING, way])


async def _people(s: Stage) -> None:
    """One member, whom everything is about."""
    conn = await asyncpg.connect(s.owner_dsn)
    user = await conn.fetchval(
        "insert into auth.users (email, encrypted_password, email_confirmed_at)"
        " values ('member@bench.test', $1, now()) returning id",
        hash_password(_PASSWORD),
    )
    flags = ", ".join(PERMISSIONS)
    await conn.execute(
        f"insert into memberships (organization_id, user_id, role, email, {flags})"
        f" values ($1, $2, 'ADMIN', 'member@bench.test', {', '.join(['true'] * len(PERMISSIONS))})",
        s.orgs[0].id,
        user,
    )
    await conn.close()


def _sign_ins(s: Stage, hub: Runner, found: Rounds, seconds: float) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "hub.bench.peers.argon2_alone", json.dumps({"seconds": seconds})],
        capture_output=True,
        check=True,
    )
    got = json.loads(done.stdout)
    found.add(SIGN_IN, ALONE, {"rate": got["rate"], "server_us": got["cpu_s"] / got["requests"] * 1e6})
    body = json.dumps({"email": "member@bench.test", "password": _PASSWORD})
    ready = (
        "POST /auth/v1/token?grant_type=password HTTP/1.1\r\nHost: bench\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    )
    used, server = postgres_cpu_s(s), hub.cpu_s()
    got = load_with({"port": hub.port, "connections": 2, "seconds": seconds, "ready": [ready]})
    assert set(got["statuses"]) == {"200"}, got
    each = 1e6 / got["requests"]
    found.add(
        SIGN_IN,
        HUB,
        {
            "rate": got["rate"],
            "server_us": (hub.cpu_s() - server) * each,
            "pg_us": (postgres_cpu_s(s) - used) * each,
        },
    )


async def _tokens(s: Stage, hub: Runner, found: Rounds) -> tuple[int, float]:
    """How often the database was asked while the same token came again and again, and for how long."""
    settings = load_settings(s.environment(hub.port))
    db = _Counted(s.dsn, ("api", "admin"))
    await db.open()
    auth = Authenticator(db, settings)
    tokens = [(await _sign_in(hub))["access_token"] for _ in range(20)]
    ring = await auth.keyring()
    (jwk,) = ring.jwks["keys"]
    key = jwt.PyJWK(jwk).key
    began = time.perf_counter()
    for token in tokens * 25:
        jwt.decode(token, key, algorithms=["ES256"], audience="authenticated")
    found.add(TOKENS, JWT_ALONE, {"each_us": (time.perf_counter() - began) / 500 * 1e6})
    began = time.perf_counter()
    for token in tokens:
        await auth.principal_of_token(token)
    found.add(TOKENS, NEW, {"each_us": (time.perf_counter() - began) / len(tokens) * 1e6})
    before, began = db.asked, time.perf_counter()
    for _ in range(_TOKENS):
        await auth.principal_of_token(tokens[0])
    took = time.perf_counter() - began
    found.add(TOKENS, KNOWN, {"each_us": took / _TOKENS * 1e6})
    asked = db.asked - before
    await auth.close()
    await db.close()
    return asked, took


async def _sign_in(hub: Runner) -> dict[str, Any]:
    async with aiohttp.ClientSession() as client, client.post(
        f"http://127.0.0.1:{hub.port}/auth/v1/token?grant_type=password",
        json={"email": "member@bench.test", "password": _PASSWORD},
    ) as answer:  # fmt: skip
        document: dict[str, Any] = await answer.json()
        assert answer.status == 200, document
        return document


async def _sign_out(client: aiohttp.ClientSession, hub: Runner, session: dict[str, Any], _: Any) -> None:
    headers = {"Authorization": f"Bearer {session['access_token']}"}
    async with client.post(
        f"http://127.0.0.1:{hub.port}/auth/v1/logout?scope=local", headers=headers
    ) as answer:
        assert answer.status == 204


async def _disable(_: Any, __: Any, session: dict[str, Any], conn: Any) -> None:
    await conn.execute("update memberships set is_active = false where user_id = $1", _user(session))


async def _lose_permission(_: Any, __: Any, session: dict[str, Any], conn: Any) -> None:
    await conn.execute(
        "update memberships set can_read_messages = false, can_access_crm = false where user_id = $1",
        _user(session),
    )


async def _ban(_: Any, __: Any, session: dict[str, Any], conn: Any) -> None:
    await conn.execute("update auth.users set banned_until = 'infinity' where id = $1", _user(session))


_WAYS: dict[str, Callable[[aiohttp.ClientSession, Runner, dict[str, Any], Any], Awaitable[None]]] = {
    "signed out": _sign_out,
    "member disabled": _disable,
    "permission taken": _lose_permission,
    "user banned": _ban,
}


def _user(session: dict[str, Any]) -> UUID:
    return UUID(session["user"]["id"])


async def _ending(s: Stage, hub: Runner, other: Runner, way: str) -> dict[str, float]:
    """Seconds from the deed to the first refusal at the other hub, over REST and for an open socket."""
    conn = await asyncpg.connect(s.owner_dsn)
    session = await _sign_in(hub)
    headers = {"Authorization": f"Bearer {session['access_token']}"}
    base = f"http://127.0.0.1:{other.port}"
    async with aiohttp.ClientSession() as client, client.ws_connect(f"{base}/ws") as ws:
        await ws.send_json({"type": "hello", "token": session["access_token"], "cursor": None})
        await ws.receive()

        async def allowed() -> bool:
            async with client.get(f"{base}/rest/v1/contacts?limit=1", headers=headers) as answer:
                await answer.read()
                return answer.status == 200

        assert await allowed()
        began = time.perf_counter()
        await _WAYS[way](client, hub, session, conn)

        async def socket() -> float:
            async for _ in ws:
                pass
            return time.perf_counter() - began

        async def rest() -> float:
            while await allowed():  # a quick look, again and again
                pass
            return time.perf_counter() - began

        rest_s, socket_s = await asyncio.wait_for(asyncio.gather(rest(), socket()), 30)
    await conn.execute(
        "update memberships set is_active = true, can_read_messages = true, can_access_crm = true"
        " where user_id = $1",
        _user(session),
    )
    await conn.execute("update auth.users set banned_until = null where id = $1", _user(session))
    await conn.close()
    return {"rest_s": rest_s, "socket_s": socket_s}
