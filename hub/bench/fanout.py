"""`hub bench fanout`: committed events → frames at 1,000 sessions, in one organization and in a hundred;
memory of idle sessions."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import msgspec

from hub.auth.tokens import load_keyring
from hub.bench.stage import BenchOrg, Stage, cpu_s, rss_kb, stage
from hub.db.pool import Database, LoggedEvent
from hub.domain.permissions import PERMISSIONS
from hub.events.publisher import Publisher
from hub.settings import load_settings

SESSIONS = 1000
PER_USER = 20


async def make_tokens(s: Stage, orgs: list[BenchOrg], sessions: int) -> list[str]:
    """Access tokens of members of ``orgs``, spread evenly; a user for each 20 sockets of an organization."""
    conn = await asyncpg.connect(s.postgres.dsn_for("bench"))
    settings = load_settings(s.environment(1))
    ring = await load_keyring(conn, settings)
    tokens = []
    each = sessions // len(orgs)
    for org in orgs:
        for start in range(0, each, PER_USER):
            user: UUID = await conn.fetchval(
                "insert into auth.users (email, email_confirmed_at) values ($1, now()) returning id",
                f"{uuid4().hex}@bench.example",
            )
            columns = ", ".join(PERMISSIONS)
            await conn.execute(
                f"insert into memberships (organization_id, user_id, role, {columns})"
                " values ($1, $2, 'ADMIN', true, true, true, true, true, true)",
                org.id,
                user,
            )
            session = await conn.fetchval(
                "insert into auth.sessions (user_id, organization_id) values ($1, $2) returning id",
                user,
                org.id,
            )
            document = {"id": str(user), "email": "x@bench.example", "user_metadata": {}, "app_metadata": {}}
            token, _ = ring.access_token(
                document, session, organization_id=org.id, org_role="ADMIN", is_web=False
            )
            tokens += [token] * min(PER_USER, each - start)
    await conn.close()
    return tokens


class Client:
    """The counting process."""

    def __init__(self, port: int, tokens: list[str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "hub.bench.ws_load"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._ask({"port": port, "tokens": tokens})

    def _ask(self, what: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        line = what if isinstance(what, bytes) else msgspec.json.encode(what)
        self.process.stdin.write(line + b"\n")
        self.process.stdin.flush()
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer

    def count(self) -> dict[str, Any]:
        return self._ask(b"count")

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(10)


async def write(s: Stage, orgs: list[BenchOrg], messages: int, batch: int = 50) -> int:
    """Store and publish ``messages``, spread over ``orgs``; how many events that made."""
    db = Database(f"{s.environment(1)['DATABASE_URL']}", ("ingest", "live"))
    await db.open()
    publisher = Publisher(db, s.valkey.url)
    await publisher.start()
    events = 0
    for start in range(0, messages, batch):
        items: list[dict[str, Any]] = [
            {
                "n": n, "organization_id": str(orgs[(start + n) % len(orgs)].id),
                "channel_account_id": str(orgs[(start + n) % len(orgs)].account_id),
                "dedupe_key": uuid4().hex, "schemes": ["wa_id"], "ids": [f"2099{n:07d}"],
                "name": "Mona Hassan", "direction": "INBOUND",
                "content": "A message of the benchmark, about as long as people write.",
                "message_type": "text", "metadata": {},
                "occurred_at": "2026-01-01T00:00:00Z", "reply_to": None, "source": "customer",
            }
            for n in range(batch)
        ]  # fmt: skip
        async with db.connection("ingest") as conn:
            rows = await conn.fetch("select * from app.ingest_many($1)", msgspec.json.encode(items).decode())
        publisher.publish(
            [LoggedEvent(r["organization_id"], r["seq"], r["table_name"], r["frame"]) for r in rows]
        )
        events += len(rows)
    await asyncio.sleep(0.2)
    await publisher.stop()
    await db.close()
    return events


def run(rounds: int = 2, messages: int = 1000) -> None:
    """Print frames a second, server CPU a frame, lost frames, and memory a session."""
    print(
        f"{'round':>5} {'orgs':>5} {'events':>7} {'frames/s':>10} {'CPU µs/frame':>12}"
        f" {'missing':>8} {'KB/session':>10} {'client CPU':>10}"
    )
    for organizations in (1, 100):
        with stage(organizations) as s:
            tokens = asyncio.run(make_tokens(s, s.orgs, SESSIONS))
            url, hub = s.start_hub()
            before = rss_kb(hub)
            client = Client(int(url.rsplit(":", 1)[1]), tokens)
            each_kb = (rss_kb(hub) - before) / SESSIONS
            asyncio.run(write(s, s.orgs, 100))  # the senders become known
            _settle(client)
            for n in range(1, rounds + 1):
                start, cpu, began = client.count(), cpu_s(hub), time.perf_counter()
                events = asyncio.run(write(s, s.orgs, messages))
                expected = events * SESSIONS // organizations
                end = _settle(client, start["frames"] + expected)
                took = end["at"] - began
                frames = end["frames"] - start["frames"]
                print(
                    f"{n:>5} {organizations:>5} {events:>7} {frames / took:>10,.0f}"
                    f" {(cpu_s(hub) - cpu) / max(frames, 1) * 1e6:>12.2f}"
                    f" {expected - frames:>8} {each_kb:>10.1f}"
                    f" {(end['cpu_s'] - start['cpu_s']) / took:>10.0%}",
                    flush=True,
                )
            client.close()


def _settle(client: Client, expected: int | None = None, timeout_s: float = 20.0) -> dict[str, Any]:
    """The counts once ``expected`` frames are in, or once nothing has come for a second."""
    last, since, deadline = client.count(), time.perf_counter(), time.perf_counter() + timeout_s
    while time.perf_counter() < deadline:
        time.sleep(0.02)
        now = client.count()
        if now["frames"] != last["frames"]:
            last, since = now, time.perf_counter()
        if (expected is not None and last["frames"] >= expected) or time.perf_counter() - since > 1.5:
            break
    return {**last, "at": since}
