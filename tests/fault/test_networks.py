"""Family N: networks and sockets (guarantees 3, 12, 13, 14)."""

from __future__ import annotations

import ast
import asyncio
import base64
import json
import os
import random
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from statistics import median
from typing import Any
from uuid import uuid4

import aiohttp
import asyncpg
import msgspec
import orjson
import pytest

from hub.db.embedded import EmbeddedValkey
from hub.db.tenancy import acting_as
from hub.events import log as event_log
from hub.realtime import session as session_module
from tests.factories import Member, Org, Servers, make_member, make_org, until
from tests.fakes.proxy import Cut, PubSubShim, proxy_to
from tests.fault.clients import Crowd, LiveClient
from tests.fault.conftest import Figures
from tests.fault.invariants import under_load
from tests.fault.rig import Rig, answers
from tests.fault.world import RigOrg
from tests.live import Client, LiveHub, live_hub, sign_in
from tests.rows import fill
from tests.server import Hub, running_hub

pytestmark = pytest.mark.fault
RigOf = Callable[..., Rig]
Scaled = Callable[[Any, Any], Any]
ROOT = Path(__file__).parents[2]


class Asking:
    """Keeps asking every hub for something while a fault lasts; remembers the slowest answer of each kind."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.slowest: dict[str, float] = {}
        self.statuses: Counter[int | str] = Counter()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Asking:
        org = self.rig.world.orgs[1]
        headers = {"Authorization": f"Bearer {org.api_key}"}
        note = {"first_name": f"{org.canary} asked"}
        asked: list[tuple[str, str, dict[str, Any]]] = [
            ("GET", "/rest/v1/contacts?limit=5", {}),
            ("POST", "/rest/v1/contacts", {"json": note}),
            ("GET", "/functions/v1/events?after=0&limit=1", {}),
            ("GET", "/readyz", {}),
        ]
        for hub in self.rig.hubs:
            for method, path, options in asked:
                self._tasks.append(
                    asyncio.create_task(self._ask(method, hub.url + path, {"headers": headers, **options}))
                )
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _ask(self, method: str, url: str, options: dict[str, Any]) -> None:
        what = f"{method} {url.split('/', 3)[3].split('?')[0]}"
        while True:
            began = time.monotonic()
            try:
                async with self.rig.http.request(method, url, **options) as answer:
                    await answer.read()
                    self.statuses[answer.status] += 1
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                self.statuses[type(error).__name__] += 1
            self.slowest[what] = max(self.slowest.get(what, 0.0), time.monotonic() - began)
            await asyncio.sleep(0.1)


async def healthy(rig: Rig, timeout_s: float = 60.0) -> float:
    """Seconds until every hub says that nothing is away."""
    began = time.monotonic()

    async def is_healthy(url: str) -> bool:
        try:
            async with rig.http.get(f"{url}/readyz") as answer:
                return bool((await answer.json()) == {"status": "ready", "degraded": []})
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False

    for hub in rig.hubs:
        await until(lambda hub=hub: is_healthy(hub.url), timeout_s, "a healthy hub")  # type: ignore[misc]
    return time.monotonic() - began


async def test_N01_connections_to_postgres_and_valkey_are_reset_at_random(
    rig_of: RigOf, seed: int, figures: Figures, scaled: Scaled
) -> None:
    """RST to a random share of the connections of Postgres and Valkey every 200 ms under load."""
    rng = random.Random(seed)
    resets = 0
    async with (
        rig_of(workers=2, behind={"postgres", "valkey"}) as rig,
        under_load(
            rig, inbound=scaled(20, 100), sends=scaled(4, 20), sessions=scaled(6, 30), seed=seed
        ) as scene,
    ):
        for _ in range(scaled(20, 150)):
            await asyncio.sleep(0.2)
            resets += rig.proxies["postgres"].reset(0.25, rng) + rig.proxies["valkey"].reset(0.25, rng)
        figures.within("pools full again", await healthy(rig), 2.0)
    assert resets > 0
    figures.note("resets", resets)
    figures.note("webhooks", dict(scene.load.webhook_answers))
    figures.note("API", dict(scene.load.api_answers))


async def test_N02_postgres_falls_silent(rig_of: RigOf, seed: int, figures: Figures, scaled: Scaled) -> None:
    """Established connections to Postgres carry nothing for a while, and nobody is told; then it goes on."""
    async with (
        rig_of(workers=1, behind={"postgres"}) as rig,
        under_load(
            rig,
            inbound=scaled(15, 100),
            sends=scaled(3, 20),
            sessions=scaled(4, 30),
            seed=seed,
            repeats=False,
        ) as scene,
        Asking(rig) as asking,
    ):
        await asyncio.sleep(1)
        proxy = rig.proxies["postgres"]
        proxy.up.silent = proxy.down.silent = True
        await asyncio.sleep(scaled(7.0, 15.0))
        proxy.up.silent = proxy.down.silent = False
        figures.within("recovered", await healthy(rig), 5.0)
    for what, seconds in sorted(asking.slowest.items()):
        figures.within(what, seconds, 5.0)
    figures.within("webhook", scene.load.slowest_ack_s, 5.0)
    assert asking.statuses[500] == 0
    assert asking.statuses["TimeoutError"] == 0
    # every delivery was taken at its only attempt: the spool did not need the database
    assert {a for a in scene.load.webhook_answers if a != 200} == set(), scene.load.webhook_answers
    figures.note("answers", dict(asking.statuses))


async def test_N03_valkey_falls_silent(rig_of: RigOf, seed: int, figures: Figures, scaled: Scaled) -> None:
    """Established connections to Valkey carry nothing for a while; then it goes on."""
    async with (
        rig_of(workers=1, behind={"valkey"}) as rig,
        under_load(
            rig, inbound=scaled(15, 100), sends=scaled(3, 20), sessions=scaled(6, 30), seed=seed
        ) as scene,
        Asking(rig) as asking,
    ):
        assert scene.crowd is not None
        await asyncio.sleep(1)
        proxy = rig.proxies["valkey"]
        asking.slowest.clear()
        began = time.time()
        proxy.up.silent = proxy.down.silent = True
        await asyncio.sleep(scaled(6.0, 60.0))
        proxy.up.silent = proxy.down.silent = False
        ended = time.time()
        figures.within("back", await healthy(rig), 3.0)
        # a hub that has not noticed yet has its head check once a second
        figures.within("p99 delay meanwhile", scene.crowd.delay_s(0.99, began, ended), 1.5)
    figures.within("slowest request", max(v for k, v in asking.slowest.items() if "readyz" not in k), 0.9)
    assert asking.statuses[500] == 0


class LastOne(PubSubShim):
    """Passes everything until told to swallow every publication."""

    swallowing = False

    def __init__(self) -> None:
        super().__init__(random.Random(0))

    def feed(self, data: bytes) -> Any:
        self._drop = 1.0 if LastOne.swallowing else 0.0
        return super().feed(data)


async def test_N04_publications_are_lost_doubled_and_out_of_order(
    rig_of: RigOf, seed: int, figures: Figures, scaled: Scaled
) -> None:
    """Of Valkey's publications 30 % are dropped, 10 % doubled, all reordered within 200 ms, under load; then
    exactly the last publication of a burst is dropped, again and again."""
    rng = random.Random(seed)
    async with rig_of(workers=1, behind={"valkey"}) as rig:
        proxy = rig.proxies["valkey"]
        shims: list[PubSubShim] = []

        def shim() -> PubSubShim:
            shims.append(PubSubShim(rng, drop=0.3, double=0.1, within_s=0.2))
            return shims[-1]

        proxy.down.shim = shim
        proxy.reset()
        began = time.time()
        async with under_load(
            rig, inbound=scaled(25, 100), sends=scaled(4, 20), sessions=scaled(8, 50), seed=seed
        ) as scene:
            assert scene.crowd is not None
            await asyncio.sleep(scaled(5.0, 60.0))
            figures.within("p99 delay", scene.crowd.delay_s(0.99, began), 1.5)
        assert sum(s.dropped for s in shims) > 0
        assert sum(s.doubled for s in shims) > 0
        figures.note("dropped, doubled", f"{sum(s.dropped for s in shims)}, {sum(s.doubled for s in shims)}")
        proxy.down.shim = LastOne
        proxy.reset()
        await healthy(rig)
        worst = 0.0
        async with Crowd(rig, 2, seed=seed, hub=0) as crowd:
            client = crowd.python[0]
            await asyncio.sleep(1.5)
            for n in range(scaled(3, 20)):
                LastOne.swallowing = True
                seen = client.seq
                at = time.monotonic()
                org = client.org
                async with rig.http.post(
                    f"{rig.hubs[1].url}/rest/v1/contacts",
                    json={"first_name": f"{org.canary} last {n}"},
                    headers={"Authorization": f"Bearer {org.api_key}"},
                ) as answer:
                    assert answer.status == 201
                await until(lambda seen=seen: client.seq > seen, 10, "the lost one")  # type: ignore[misc]
                worst = max(worst, time.monotonic() - at)
                LastOne.swallowing = False
        figures.within("a lost last publication shown", worst, 1.5)


async def test_N05_sessions_are_cut_at_every_moment_and_come_back_on_either_hub(
    rig_of: RigOf, seed: int, figures: Figures, scaled: Scaled
) -> None:
    """Sessions (half of them the web app's own client) cut while they greet, while they resume, in a frame
    and at random, under load; one hub is slow in its hello."""
    rng = random.Random(seed)
    slow_hello = "live.after_subscribe=hang:0.15@0.3,live.mid_resume=hang:0.05@0.3"
    async with rig_of(workers=1) as rig:
        await rig.hubs[1].restart(failpoints=slow_hello)
        proxy = rig.front
        cuts = 0
        async with under_load(
            rig, inbound=scaled(25, 100), sends=scaled(4, 20), sessions=scaled(12, 50), seed=seed
        ) as scene:
            assert scene.crowd is not None
            patterns = (rb'"type":"welcome"', rb'"resumed":true', rb'"type":"event"', rb'"op":"UPDATE"')
            for n in range(scaled(16, 200)):
                await asyncio.sleep(rng.uniform(0.05, 0.3))
                luck = rng.random()
                if luck < 0.4:  # in or after a frame of that kind
                    proxy.cut = Cut(
                        patterns[n % 4], delivered=rng.random() < 0.5, direction="down", left=2, rng=rng
                    )
                elif luck < 0.7:
                    proxy.reset(0.3, rng)
                else:
                    rng.choice(scene.crowd.python).cut()
            proxy.cut = None
            cuts = proxy.cuts
            figures.within("caught up", await scene.crowd.caught_up(), 10.0)
        came_back = sum((c.welcomes for c in scene.crowd.python), Counter())
        figures.note("cut in a frame", cuts)
        figures.note("welcomes", dict(came_back))
        # nobody was more than 1,000 behind, so nobody needed a snapshot but at the beginning
        assert set(came_back) <= {"new", "resumed"}, came_back
        assert came_back["new"] == len(scene.crowd.python)


@pytest.mark.nightly
async def test_N06_a_client_that_vanishes_is_noticed(rig_of: RigOf, seed: int, figures: Figures) -> None:
    """Clients behind a link that carries nothing any more, and never says so."""
    async with rig_of(hubs=1, workers=0) as rig:
        org = rig.world.orgs[0]
        host, port = rig.hubs[0].url.removeprefix("http://").split(":")
        async with proxy_to(host, int(port)) as proxy:
            clients = [
                LiveClient(rig, org, await rig.token(org), f"http://127.0.0.1:{proxy.port}", random.Random(n))
                for n in range(20)
            ]
            for client in clients:
                client.start()
            await until(lambda: all(c.is_live.is_set() for c in clients), 30, "the clients")
            assert await rig.metric(rig.hubs[0], "hub_ws_sessions") == 20
            proxy.up.silent = proxy.down.silent = True
            began = time.monotonic()

            async def gone() -> bool:
                return await rig.metric(rig.hubs[0], "hub_ws_sessions") == 0

            await until(gone, 60, "the hub to notice")
            figures.within("noticed", time.monotonic() - began, 36.0)
            for client in clients:
                await client.stop()
            proxy.reset()


async def test_N07_readers_that_stall_cost_the_others_nothing(
    servers: Servers,
    valkey: EmbeddedValkey,
    superuser: asyncpg.Connection,
    seed: int,
    figures: Figures,
    scaled: Scaled,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A fifth of the sessions stops reading while big events come in; they are closed and resume complete."""
    monkeypatch.setattr(session_module, "STALL_S", scaled(1.0, 10.0))
    org = await make_org(superuser)
    agent = await make_member(superuser, org)
    n, bad = scaled((15, 3), (100, 20))
    async with live_hub(servers, valkey.url) as hub:
        token, _ = await sign_in(superuser, hub, agent)
        readers = [Client(token) for _ in range(n - bad)]
        monkeypatch.setattr("hub.realtime.registry.USER_SOCKETS", 200)
        for reader in readers:
            await reader.connect(hub)
        calm = await paced(hub, agent, readers, 40)
        stalled = [Client(token) for _ in range(bad)]
        for client in stalled:
            await client.connect(hub, small_buffers=True, read=False)
        sessions = [
            s for s in hub.registry.sessions if s.id in {c.welcomes[0]["session"]["id"] for c in stalled}
        ]
        began = time.monotonic()
        stormy: list[float] = []
        while not all(s.is_closing or s not in hub.registry.sessions for s in sessions):
            assert time.monotonic() - began < 60
            stormy += await paced(hub, agent, readers, 5)
            await asyncio.sleep(0.2)  # some 200 events a second
            assert all(
                s._transport.get_write_buffer_size() <= 2 * session_module.BACKLOG_BYTES
                for s in sessions
                if s in hub.registry.sessions
            )
        figures.within("closed", time.monotonic() - began, 15.0)
        figures.within(
            "the others' p95, times", sorted(stormy)[int(len(stormy) * 0.95)] / sorted(calm)[38], 2.0, "×"
        )
        end = readers[0].cursor
        for client in stalled:
            await client.leave()
            assert (await client.connect(hub))["resumed"]
            await until(lambda c=client: c.cursor["seq"] >= end["seq"], 30, "everything")  # type: ignore[misc, index]
            assert client.seqs == list(range(client.seqs[0], client.seqs[-1] + 1))
            assert client.seqs[-len(client.seqs) :] == readers[0].seqs[-len(client.seqs) :]
        for client in (*readers, *stalled):
            await client.leave()


async def paced(hub: LiveHub, agent: Member, readers: list[Client], n: int) -> list[float]:
    """n transactions of ten events of some 7 KiB; seconds until every reader had each."""
    took = []
    for _ in range(n):
        began = time.monotonic()
        async with acting_as(hub.db, agent.principal()) as conn:
            await conn.execute(
                "insert into contacts (first_name, custom_fields)"
                " select 'x', $1::jsonb from generate_series(1, 10)",
                json.dumps({"a": "x" * 6000}),
            )
        [head] = (await event_log.state(hub.db, [agent.organization_id])).values()
        await until(
            lambda head=head: all(c.cursor is not None and c.cursor["seq"] >= head for c in readers),  # type: ignore[misc]
            what="the event everywhere",
        )
        took.append(time.monotonic() - began)
    return took


def rss_kb() -> int:
    return int(Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0])


async def test_N08_everybody_comes_back_at_once(
    rig_of: RigOf, seed: int, figures: Figures, scaled: Scaled
) -> None:
    """kill -9 of the hub that has all the sessions, under load; they return to the other one together."""
    n = scaled(300, 1000)
    async with rig_of(hubs=2, workers=1) as rig, AsyncExitStack() as stack:
        rng = random.Random(seed)
        tokens = {org.n: await tokens_of(rig, org, 1 + n // 20 // 18) for org in rig.world.orgs}
        limit_s = scaled(60.0, 120.0)
        many = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        stack.push_async_callback(many.close)
        clients = []
        for k in range(n):
            org = rig.world.orgs[k % 20]
            token = tokens[org.n][k // 20 % len(tokens[org.n])]
            client = LiveClient(rig, org, token, rig.hubs[0].url, random.Random(rng.random()))
            client._http = many
            client.rest = rig.hubs[1].url
            client.pause_s = (0.5, 5.0)
            clients.append(client)
        for first in range(0, n, 50):
            for client in clients[first : first + 50]:
                client.start()
            await asyncio.sleep(0.4)
        await until(
            lambda: all(c.is_live.is_set() and not c.reading for c in clients), limit_s, "all of them"
        )
        before_kb = rig.hubs[1].rss_kb()
        async with under_load(rig, inbound=scaled(10, 100), sends=2, sessions=0, seed=seed) as scene:
            await asyncio.sleep(1)
            for client in clients:
                client.url = rig.hubs[1].url
            killed_at = time.monotonic()
            rig.hubs[0].kill()
            await until(
                lambda: all(c.came_back_at and c.came_back_at[-1] > killed_at for c in clients),
                limit_s,
                "all of them back",
            )
            back = sorted(c.came_back_at[-1] - killed_at for c in clients)
            storm_kb = rig.hubs[1].rss_kb()
            await rig.hubs[0].restart()
        figures.within("all back", back[-1], 15.0)
        figures.within("median", median(back), 5.0)
        figures.within("memory of the other hub", (storm_kb - before_kb) / 1024, 150, "MiB")
        figures.within("slowest webhook", scene.load.slowest_ack_s, 1.0)
        heads = dict(await rig.fetch("select organization_id, max(seq) from app.events group by 1"))
        await until(lambda: all(c.seq >= heads[c.org.id] for c in clients), 60, "everybody at the head")
        wrong = [f"{c.org.n}: {c.wrong[:2]}" for c in clients if c.wrong]
        welcomes = sum((c.welcomes for c in clients), Counter())
        for client in clients:
            await client.stop()
        assert wrong == []
        assert welcomes["resumed"] >= n, welcomes
        assert set(welcomes) == {"new", "resumed"}, welcomes


async def tokens_of(rig: Rig, org: RigOrg, members: int) -> list[str]:
    """Access tokens of so many members: one may have twenty sockets."""
    conn = await rig.connect()
    try:
        found = [
            await make_member(conn, Org(org.id, org.account_id, org.phone_number_id), "OWNER")
            for _ in range(members)
        ]
    finally:
        await conn.close()
    return [
        await rig.token(msgspec.structs.replace(org, owner_id=m.id, email=f"{uuid4().hex}@rig.test"))
        for m in found
    ]


# ---- N-10: snapshot + events = snapshot ------------------------------------------------------------------


class Model:
    """What a client knows: a snapshot of every table, and the events applied to it by docs/realtime.md."""

    def __init__(self, hub: Hub, token: str, tables: list[str]) -> None:
        self.hub, self.token, self.tables = hub, token, tables
        self.rows: dict[str, dict[str, Any]] = {}

    async def snapshot(self) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        for table in self.tables:
            answer = await self.hub.get(f"/rest/v1/{table}?limit=1000", token=self.token)
            assert answer.status == 200, (table, answer)
            found[table] = {row.get("id") or row["user_id"]: row for row in answer.json}
        return found

    def apply(self, frames: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """The snapshot with these events applied to it."""
        rows = {table: dict(known) for table, known in self.rows.items()}
        for frame in frames:
            event = frame["event"]
            if event["table"] not in rows:
                continue
            known = rows[event["table"]]
            if event["op"] == "DELETE":
                known.pop(event["entity_id"], None)
            else:
                row = event["payload"]["row"]
                count = "revision" if event["table"] == "bot_flows" else "version"
                before = known.get(event["entity_id"])
                if before is None or row[count] >= before[count]:
                    known[event["entity_id"]] = row
        return rows


def same(table: str, held: dict[str, Any], truth: dict[str, Any]) -> list[str]:
    """Differences, by the columns that REST shows; times are compared as moments."""
    wrong = (
        [f"{table}: {sorted(truth.keys() - held.keys())[:2]} missing"] if truth.keys() - held.keys() else []
    )
    if extra := held.keys() - truth.keys():
        wrong.append(f"{table}: {sorted(extra)[:2]} too many")
    for id in held.keys() & truth.keys():
        for name, value in truth[id].items():
            if name in held[id] and held[id][name] != value:
                wrong.append(f"{table}.{name} of {id}: {held[id][name]!r}, not {value!r}")
    return wrong


#: What a change of one column is for each table; the others cannot be written over REST.
CHANGES: dict[str, dict[str, Any]] = {
    "automation_rules": {"name": "changed"},
    "bot_flows": {"name": "changed"},
    "campaigns": {"name": "changed"},
    "channel_accounts": {"name": "changed"},
    "companies": {"name": "changed"},
    "contacts": {"first_name": "changed"},
    "conversations": {"subject": "changed"},
    "deals": {"title": "changed"},
    "memberships": {"first_name": "changed"},
    "messages": {"deleted_at": "2026-01-01T00:00:00Z"},
    "milestones": {"name": "changed"},
    "notes": {"content": "changed"},
    "pipelines": {"name": "changed"},
    "projects": {"name": "changed"},
    "tasks": {"title": "changed"},
    "teams": {"name": "changed"},
    "templates": {"name": "changed"},
    "webhooks": {"url": "https://example.test/changed"},
    "invitations": {"role": "AGENT"},
    "api_keys": {"name": "changed"},
}


async def test_N10_a_snapshot_and_the_events_after_it_are_the_next_snapshot(
    servers: Servers,
    valkey: EmbeddedValkey,
    superuser: asyncpg.Connection,
    tmp_path: Path,
    seed: int,
    figures: Figures,
) -> None:
    """Every table that makes events is changed, added to and deleted from over REST, and every function that
    writes is called, while others write; after each deed the old snapshot and the events are the new one."""
    from hub.auth.passwords import hash_password
    from tests.server import PASSWORD

    filled = await fill(superuser)
    owner = await make_member(superuser, filled.org, "OWNER", hash_password(PASSWORD))
    event_tables = [
        r[0]
        for r in await superuser.fetch("select tgrelid::regclass::text from pg_trigger where tgname = 'emit'")
    ]
    tables = sorted(t for t in event_tables if t != "organizations")
    stop = asyncio.Event()

    async def others() -> None:
        conn = await asyncpg.connect(servers.migrate_url)
        while not stop.is_set():
            await conn.execute(
                "update contacts set job_title = md5(random()::text) where organization_id = $1",
                filled.org.id,
            )
            await asyncio.sleep(0.01)
        await conn.close()

    async with running_hub(servers, valkey.url, tmp_path, HUB_RATE_REST="100000") as hub:
        token = await hub.token(owner.email)
        client = Client(token)
        await client.connect(_At(f"{hub.url}/ws"))  # type: ignore[arg-type]
        model = Model(hub, token, tables)
        noise = asyncio.create_task(others())
        await until(lambda: client.events, what="somebody else's work")
        deeds = 0
        wrong: list[str] = []

        async def verify(
            what: str, method: str, path: str, *, ok: tuple[int, ...] = (200, 201, 204), **options: Any
        ) -> Any:
            nonlocal deeds
            # the snapshot is read while others write: some of its rows are older than others
            client.events.clear()
            model.rows = await model.snapshot()
            answer = await hub.call(method, path, token=token, **options)
            if answer.status not in ok:
                wrong.append(f"{what}: {answer}")
                return answer
            deeds += 1
            stop.set()
            await noise_ends()
            head = await superuser.fetchval(
                "select max(seq) from app.events where organization_id = $1", filled.org.id
            )
            await until(lambda: client.cursor is not None and client.cursor["seq"] >= head, what="the head")
            held, truth = model.apply(client.events), await model.snapshot()
            for table in tables:
                wrong.extend(f"{what}: {w}" for w in same(table, held[table], truth[table]))
            await noise_begins()
            return answer

        async def noise_ends() -> None:
            await noise

        async def noise_begins() -> None:
            nonlocal noise
            stop.clear()
            noise = asyncio.create_task(others())

        for table in tables:
            name = "user_id" if table == "memberships" else "id"
            first = await superuser.fetchval(
                f"select {name} from {table} where organization_id = $1 limit 1", filled.org.id
            )
            key = f"{name}=eq.{first}"
            if table in CHANGES:
                await verify(f"PATCH {table}", "PATCH", f"/rest/v1/{table}?{key}", json=CHANGES[table])
        conversation = filled.rows["conversations"]["id"]
        contact = filled.rows["contacts"]["id"]
        posts: dict[str, dict[str, Any]] = {
            "companies": {"name": "New"},
            "contacts": {"first_name": "New"},
            "notes": {"content": "New", "contact_id": str(contact)},
            "tasks": {"title": "New"},
            "teams": {"name": "New"},
            "projects": {"name": "New"},
            "messages": {
                "conversation_id": str(conversation),
                "direction": "OUTBOUND",
                "status": "PENDING",
                "content": "New",
            },
            "pipelines": {"name": "New", "stages": ["a", "b"]},
        }
        made: dict[str, str] = {}
        for table, body in posts.items():
            answer = await verify(
                f"POST {table}",
                "POST",
                f"/rest/v1/{table}",
                json=body,
                headers={"Prefer": "return=representation"},
            )
            if answer.status == 201:
                made[table] = answer.json[0]["id"]
        await verify(
            "upsert contacts",
            "POST",
            "/rest/v1/contacts",
            json={"id": made.get("contacts", str(uuid4())), "first_name": "Again"},
            headers={"Prefer": "resolution=merge-duplicates"},
        )
        await verify(
            "several at once",
            "PATCH",
            "/rest/v1/contacts?first_name=not.is.null",
            json={"lead_status": "many"},
        )
        for table in ("notes", "tasks", "teams", "projects", "messages", "companies", "contacts"):
            if table in made:
                await verify(f"DELETE {table}", "DELETE", f"/rest/v1/{table}?id=eq.{made[table]}")
        await verify(
            "insert-message",
            "POST",
            "/functions/v1/insert-message",
            json={
                "phone": "201001383533",
                "content": "Recorded",
                "direction": "incoming",
                "status": "received",
            },
        )
        await verify("generate-api-key", "POST", "/functions/v1/generate-api-key", json={"name": "New"})
        stop.set()
        await noise
        await client.leave()
    assert wrong == [], "\n".join(wrong[:20])
    figures.note("deeds", deeds)


class _At:
    """Where a scripted client connects to."""

    def __init__(self, url: str) -> None:
        self.url = url


# ---- N-11: what a socket may be sent ---------------------------------------------------------------------


def frame(
    payload: bytes,
    *,
    opcode: int = 1,
    final: bool = True,
    rsv: int = 0,
    masked: bool = True,
    length: int | None = None,
    rng: random.Random,
) -> bytes:
    """One websocket frame, right or wrong."""
    size = len(payload) if length is None else length
    head = bytes([(0x80 if final else 0) | (rsv << 4) | opcode])
    mask = 0x80 if masked else 0
    if size < 126:
        head += bytes([mask | size])
    elif size < 65536:
        head += bytes([mask | 126]) + size.to_bytes(2, "big")
    else:
        head += bytes([mask | 127]) + size.to_bytes(8, "big")
    if not masked:
        return head + payload
    key = rng.randbytes(4)
    return head + key + bytes(b ^ key[n % 4] for n, b in enumerate(payload))


def nonsense(rng: random.Random) -> bytes:
    """A piece of JSON, or of something like it."""
    deep = rng.choice((3, 70, 2000))
    choices: list[Callable[[], bytes]] = [
        lambda: b'{"type":"command","id":"1","name":"%b","args":{}}' % rng.choice((b"view", b"send", b"x")),
        lambda: (
            b'{"type":"command","id":"1","name":"typing","args":{"conversation_id":"%x"}}'
            % rng.getrandbits(64)
        ),
        lambda: b"[" * deep + b"]" * deep,
        lambda: b'{"type":"hello","token":"x","cursor":{"epoch":"e","seq":%d}}' % 10 ** rng.randint(1, 40),
        lambda: b'{"a":"\\ud800"}',
        lambda: b'{"a":"\x00"}',
        lambda: b'{"type":"command","id":"1","name":"view","args":{"conversation_id":"\\u0000"}}',
        lambda: rng.randbytes(rng.randint(0, 300)),
        lambda: b"{}",
        lambda: b"null",
        lambda: b"-1e999",
        lambda: b'{"type":"command","id":"%b","name":"n","args":{}}' % (b"x" * rng.choice((1, 1000, 60_000))),
    ]
    return rng.choice(choices)()


def wild(rng: random.Random) -> bytes:
    """One thing that a client, or no client at all, may send."""
    luck = rng.random()
    if luck < 0.55:
        return frame(nonsense(rng), rng=rng)
    odd: list[Callable[[], bytes]] = [
        lambda: frame(nonsense(rng), opcode=2, rng=rng),
        lambda: frame(b'{"type":', final=False, rng=rng) + frame(b'"x"}', opcode=0, rng=rng),
        lambda: frame(b"a", final=False, rng=rng) + frame(b"b", final=False, rng=rng),
        lambda: frame(b"lost", opcode=0, rng=rng),
        lambda: frame(nonsense(rng)[:200], masked=False, rng=rng),
        lambda: frame(b"{}", rsv=rng.randint(1, 7), rng=rng),
        lambda: b"".join(frame(rng.randbytes(125), opcode=9, rng=rng) for _ in range(rng.choice((3, 90)))),
        lambda: frame(rng.randbytes(126), opcode=9, rng=rng),
        lambda: frame(b"x" * (65 * 1024 + 1), rng=rng),
        lambda: frame(b"", opcode=rng.randint(3, 7), rng=rng),
        lambda: frame(b"", opcode=10, rng=rng),
        lambda: frame(b"x", length=2**63 - 1, rng=rng),
        lambda: frame((3000).to_bytes(2, "big"), opcode=8, rng=rng),
        lambda: frame(b"\x03", opcode=8, rng=rng),
        lambda: rng.randbytes(rng.randint(1, 60)),
    ]
    return rng.choice(odd)()


async def upgraded(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    key = base64.b64encode(os.urandom(16)).decode()
    writer.write(
        f"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    head = await reader.readuntil(b"\r\n\r\n")
    assert b" 101 " in head, head
    return reader, writer


async def ending(reader: asyncio.StreamReader, said: list[float] | None = None) -> int | None:
    """Read until the end; the close code that was sent, if one was, and in `said` when (monotonic)."""
    code = None
    with suppress(OSError, asyncio.IncompleteReadError):
        while True:
            first, second = await reader.readexactly(2)
            size = second & 0x7F
            if size == 126:
                size = int.from_bytes(await reader.readexactly(2), "big")
            elif size == 127:
                size = int.from_bytes(await reader.readexactly(8), "big")
            payload = await reader.readexactly(size)
            if first & 0x0F == 8:
                if said is not None:
                    said.append(time.monotonic())
                code = int.from_bytes(payload[:2], "big") if len(payload) >= 2 else 1005
    return code


#: docs/realtime.md, and the protocol's own for frames that are none.
CODES = {None, 1000, 1001, 1002, 1003, 1005, 1007, 1009, 3000, 4400, 4401, 4429}


async def test_N11_whatever_a_socket_is_sent_it_ends_with_a_documented_code(
    servers: Servers,
    valkey: EmbeddedValkey,
    superuser: asyncpg.Connection,
    seed: int,
    figures: Figures,
    scaled: Scaled,
) -> None:
    """Random JSON, nesting, huge numbers, NUL, lone surrogates, binary, fragments, unmasked frames, reserved
    bits, floods of pings, frames above the limit; before and after hello, beside a session that goes on."""
    rng = random.Random(seed)
    org = await make_org(superuser)
    agent = await make_member(superuser, org)
    codes: Counter[int | None] = Counter()
    sent = 0
    async with live_hub(servers, valkey.url) as hub:
        token, _ = await sign_in(superuser, hub, agent)
        beside = Client(token)
        await beside.connect(hub)
        hello = orjson.dumps({"type": "hello", "token": token, "cursor": None, "client": "n11"})

        async def attack() -> None:
            nonlocal sent
            reader, writer = await upgraded(hub.port)
            over = asyncio.create_task(ending(reader))
            try:
                if rng.random() < 0.7:
                    writer.write(frame(hello, rng=rng))
                for _ in range(rng.randint(1, 30)):
                    writer.write(wild(rng))
                    sent += 1
                    if over.done() or writer.is_closing():
                        break
                    if rng.random() < 0.3:
                        await asyncio.sleep(0)
                with suppress(OSError):
                    await writer.drain()
                    writer.write(frame((1000).to_bytes(2, "big"), opcode=8, rng=rng))
                async with asyncio.timeout(20):
                    codes[await over] += 1
            except OSError:
                codes[None] += 1
            finally:
                over.cancel()
                writer.transport.abort()

        total = scaled(2_000, 20_000)
        before_kb = None
        while sent < total:
            await asyncio.gather(*(attack() for _ in range(8)))
            if before_kb is None and sent > total / 10:
                before_kb = rss_kb()
        await until(lambda: len(hub.registry.sessions) == 1, 20, "the attackers to be gone")
        figures.within("memory", (rss_kb() - (before_kb or 0)) / 1024, 20, "MiB")
        head = await change(superuser, org)
        await until(lambda: beside.cursor is not None and beside.cursor["seq"] >= head, what="the bystander")
        assert beside.close_code is None
        await beside.leave()
    assert set(codes) <= CODES, codes
    assert codes[4400] > 0
    figures.note("frames", sent)
    figures.note("codes", {str(k): n for k, n in codes.items()})


async def change(conn: asyncpg.Connection, org: Org) -> int:
    await conn.execute("insert into contacts (organization_id, first_name) values ($1, 'x')", org.id)
    head: int = await conn.fetchval("select max(seq) from app.events where organization_id = $1", org.id)
    return head


# ---- N-12 ------------------------------------------------------------------------------------------------


async def test_N12_slow_silent_and_too_many_handshakes(
    rig_of: RigOf, seed: int, figures: Figures, scaled: Scaled
) -> None:
    """Handshakes at a byte a second, sockets without a hello, hundreds of handshakes a second, under load."""
    n = scaled(100, 500)
    async with (
        rig_of(hubs=1, workers=1) as rig,
        under_load(rig, inbound=scaled(15, 100), sends=2, sessions=scaled(4, 20), seed=seed) as scene,
    ):
        assert scene.crowd is not None
        port = int(rig.hubs[0].url.rsplit(":", 1)[1])
        await asyncio.sleep(2)
        calm_until = time.time()

        async def slow() -> float:
            """A head at one byte a second: how long it was put up with."""
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            began = time.monotonic()
            ended = asyncio.create_task(reader.read())
            head = b"GET /ws HTTP/1.1\r\nHost: x\r\nX-Slow: " + b"a" * 60
            try:
                for byte in head:
                    writer.write(bytes([byte]))
                    done, _ = await asyncio.wait([ended], timeout=1.0)
                    if done:
                        break
            except OSError:
                pass
            finally:
                ended.cancel()
                writer.transport.abort()
            return time.monotonic() - began

        async def silent() -> tuple[float, float, int | None]:
            """A socket without a hello: seconds until it was told, until it was gone, and the code."""
            reader, writer = await upgraded(port)
            began = time.monotonic()
            said: list[float] = []
            code = await ending(reader, said)
            writer.transport.abort()
            return said[0] - began, time.monotonic() - began, code

        slows = [asyncio.create_task(slow()) for _ in range(n)]
        quiet = []
        for _ in range(n):
            quiet.append(asyncio.create_task(silent()))
            await asyncio.sleep(0.01)  # 100 a second, below the limit
        silences = await asyncio.gather(*quiet)
        patience = await asyncio.gather(*slows)
        figures.within("a slow head is closed after", max(patience), 11.5)
        figures.within("a silent socket is told after", max(told for told, _, _ in silences), 6.0)
        figures.within("and gone after", max(gone for _, gone, _ in silences), 8.0)
        assert {code for _, _, code in silences} == {4408}
        refused: Counter[int] = Counter()

        async def knock() -> None:
            try:
                async with rig.http.get(
                    f"{rig.hubs[0].url}/ws",
                    headers={
                        "Upgrade": "websocket",
                        "Connection": "Upgrade",
                        "Sec-WebSocket-Version": "13",
                        "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
                    },
                ) as answer:
                    refused[answer.status] += 1
                    if answer.status == 503:
                        assert answer.headers["Retry-After"]
            except (aiohttp.ClientError, TimeoutError, OSError):
                refused[0] += 1

        began = time.monotonic()
        for _ in range(scaled(8, 20)):
            await asyncio.gather(*(knock() for _ in range(100)))
        rate = sum(refused.values()) / (time.monotonic() - began)
        assert refused[101] + refused[503] + refused[0] == sum(refused.values()), refused
        assert refused[503] > 0 or rate < 200, (rate, refused)
        storm_p99 = scene.crowd.delay_s(0.99, calm_until)
        calm_p99 = scene.crowd.delay_s(0.99, 0, calm_until)
        figures.note("handshakes", f"{rate:.0f} a second: {dict(refused)}")
        figures.note("p99 of events before and meanwhile (s)", f"{calm_p99:.3f}, {storm_p99:.3f}")
        await until(lambda: answers(f"{rig.hubs[0].url}/readyz"), 10, "the hub")


# ---- N-02: the lint --------------------------------------------------------------------------------------

#: Tools a person runs and looks at, the provider's double, benchmarks: nobody waits for them.
NOT_SERVING = (
    "hub/sandbox",
    "hub/bench",
    "hub/web",
    "hub/cli.py",
    "hub/doctor.py",
    "hub/run.py",
    "hub/bootstrap.py",
    "hub/db/migrate.py",
    "hub/db/seed.py",
    "hub/db/demo.py",
    "hub/db/dump.py",
    "hub/db/embedded.py",
    "hub/auth/accounts.py",
)
#: Calls that wait for a socket. What is not here must be a coroutine of ours, or wait inside the process.
DATABASE = {"execute", "executemany", "fetch", "fetchval", "fetchrow", "acquire", "release"}
SOCKET = {
    "open_connection",
    "open_unix_connection",
    "create_connection",
    "create_unix_connection",
    "drain",
    "read",
    "readany",
    "readline",
    "readexactly",
    "readuntil",
    "read_chunk",
    "receive",
    "receive_str",
    "multipart",
    "iter_any",
    "iter_chunked",
    "request",
    "ws_connect",
    "get_message",
    "subscribe",
    "publish",
    "ping",
    "evalsha",
    "script_load",
    "send_message",
    "info",
    "wait_closed",
    "write_eof",
    "json",
    "text",
    "read_nowait",
    "create_pool",
    "connect",
}
INSIDE = {
    "sleep",
    "wait",
    "gather",
    "shield",
    "wait_for",
    "to_thread",
    "run_in_executor",
    "acquire",
    "put",
    "get",
    "setup",
    "cleanup",
    "start",
    "stop",
    "aclose",
    "disconnect",
    "enter_async_context",
    "done",
    "written",
    "sending",
    "fetching",
    "work",
    "handler",
    "_replay",
    "_long_way",
    "attempt",
    "action",
    "loop",
    "write",
    "ask",
    "_run",
    "_write",
    "_script",
    "run",
    "resolve",
    "prepare",
    "_make_server",
    "close",
    "take",
    "_apply",
    "extend",
    "task",
}
#: (file, function, call): why it needs no deadline of its own.
EXEMPT = {
    ("hub/realtime/session.py", "_next_frame", "receive"): "pings every 25 s end it (keep_alive, N-06)",
    ("hub/functions/media.py", "_receive", "multipart"): "its caller gives the whole upload UPLOAD_S",
    ("hub/functions/media.py", "_receive", "read_chunk"): "its caller gives the whole upload UPLOAD_S",
    ("workers/transport.py", "perform_call", "readany"): "the session's total time-out",
    ("workers/media.py", "_stream", "readany"): "the total time-out of its request",
    ("workers/runtime.py", "_listen", "subscribe"): "health checks every 10 s; the poll works without it",
    ("hub/db/pool.py", "connection", "acquire"): "ACQUIRE_TIMEOUT_S",
    ("hub/db/pool.py", "_release", "release"): "two seconds",
    ("hub/db/pool.py", "open", "create_pool"): "connects nowhere: min_size=0",
    ("hub/app.py", "_redis_away", "ping"): "1.5 s",
    ("hub/limits.py", "_call", "script_load"): "the client's socket_timeout",
    ("hub/limits.py", "_send", "evalsha"): "the client's socket_timeout",
    ("workers/mail.py", "_hand_over", "send_message"): "the connection's TIMEOUT_S, for each answer",
}


class Awaits(ast.NodeVisitor):
    """Every await of one file, with the function it stands in and whether a deadline surrounds it."""

    def __init__(self) -> None:
        self.found: list[tuple[str, ast.expr, bool, int]] = []
        self._function = "(module)"
        self._deadlines = 0

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        before = self._function, self._deadlines
        self._function, self._deadlines = node.name, 0
        self.generic_visit(node)
        self._function, self._deadlines = before

    def visit_Lambda(self, node: ast.Lambda) -> None:
        return

    def visit_AsyncWith(self, node: ast.AsyncWith) -> None:
        timed = any(
            isinstance(item.context_expr, ast.Call)
            and _name(item.context_expr.func) in ("timeout", "timeout_at")
            for item in node.items
        )
        self._deadlines += timed
        for item in node.items:
            if isinstance(item.context_expr, ast.Call):
                self.found.append((self._function, item.context_expr, self._deadlines > 0, node.lineno))
        self.generic_visit(node)
        self._deadlines -= timed

    def visit_AsyncFor(self, node: ast.AsyncFor) -> None:
        self.found.append((self._function, node.iter, self._deadlines > 0, node.lineno))
        self.generic_visit(node)

    def visit_Await(self, node: ast.Await) -> None:
        self.found.append((self._function, node.value, self._deadlines > 0, node.lineno))
        self.generic_visit(node)


def _name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else "?"


def serving() -> list[Path]:
    return [
        p
        for folder in ("hub", "workers")
        for p in sorted((ROOT / folder).rglob("*.py"))
        if not str(p.relative_to(ROOT)).startswith(NOT_SERVING)
    ]


def coroutines() -> set[str]:
    """Names of all coroutines of ours."""
    return {
        node.name
        for folder in ("hub", "workers")
        for path in (ROOT / folder).rglob("*.py")
        if "node_modules" not in path.parts
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.AsyncFunctionDef)
    }


def bare_awaits(sources: dict[str, str]) -> list[str]:
    """Awaits on I/O without a deadline, and awaits of which this test cannot say what they are."""
    trees = {name: ast.parse(text) for name, text in sources.items()}
    ours = coroutines()
    wrong = []
    for name, tree in trees.items():
        visitor = Awaits()
        visitor.visit(tree)
        for function, expression, timed, line in visitor.found:
            place = f"{name}:{line}"
            if not isinstance(expression, ast.Call):
                continue  # a future or task of this process
            call = _name(expression.func)
            keywords = {k.arg for k in expression.keywords}
            if timed or "timeout" in keywords or (name, function, call) in EXEMPT or call in DATABASE:
                continue
            if call in SOCKET and not _is_own(expression.func):
                wrong.append(f"{place} awaits {call} without a deadline")
            elif call not in ours | INSIDE | SOCKET | _MANAGERS:
                wrong.append(f"{place} awaits {call}, which this test does not know")
    return wrong


def _is_own(node: ast.expr) -> bool:
    """A method of the object itself, or a plain function: what it awaits is a line of its own in the list."""
    return not isinstance(node, ast.Attribute) or (
        isinstance(node.value, ast.Name) and node.value.id == "self"
    )


_MANAGERS = {
    "AsyncExitStack",
    "connection",
    "pubsub",
    "pipeline",
    "transaction",
    "acting_as",
    "timeout",
    "post",
}


def unlimited_clients(sources: dict[str, str]) -> list[str]:
    """Clients made without the time-outs that their calls rely on."""
    needs = {
        "create_pool": {"timeout", "command_timeout"},
        "ClientSession": {"timeout"},
        "from_url": {"socket_timeout", "socket_connect_timeout"},
        "make_redis": {"connect_s", "command_s"},
    }
    wrong = []
    for name, text in sources.items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and (need := needs.get(_name(node.func))) is not None:
                given = {k.arg for k in node.keywords}
                if None not in given and not need <= given:
                    wrong.append(f"{name}:{node.lineno} makes a client without {sorted(need - given)}")
    return wrong


def test_N02_every_await_on_io_has_a_deadline(figures: Figures) -> None:
    """Every await in what serves (ast): on a socket it has a deadline, or its client was made with one."""
    sources = {str(p.relative_to(ROOT)): p.read_text(encoding="utf-8") for p in serving()}
    assert bare_awaits(sources) + unlimited_clients(sources) == []
    unused = {
        place
        for place in EXEMPT
        if place[0] not in sources
        or f"def {place[1]}" not in sources[place[0]]
        or f".{place[2]}(" not in sources[place[0]]
    }
    assert unused == set(), "exempt, but not there any more"
    figures.note("files", len(sources))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("async def f(r):\n    await r.readline()\n", "without a deadline"),
        ("async def f(ws):\n    async for m in ws.iter_any():\n        pass\n", "without a deadline"),
        ("async def f(x):\n    await x.fetch_a_whale()\n", "does not know"),
        ("import aiohttp\ns = aiohttp.ClientSession()\n", "without ['timeout']"),
        (
            "async def f(r):\n    async with asyncio.timeout(1):\n        await r.readline()\n",
            None,
        ),
        ("async def f(r):\n    await r.receive(timeout=3)\n", None),
    ],
)
def test_N02_the_lint_finds_what_it_is_for(text: str, said: str | None) -> None:
    found = bare_awaits({"x.py": text}) + unlimited_clients({"x.py": text})
    assert [f for f in found if said is None or said in f] == found
    assert bool(found) == (said is not None)
