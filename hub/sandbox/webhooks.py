"""The provider's postman: signed bodies to the hub's callback until it answers 200."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import time
from collections import deque
from collections.abc import Callable, Iterable
from random import Random
from typing import Any

import aiohttp
import msgspec
import structlog

from hub.channels.signing import meta_signature
from hub.sandbox.clock import Timers, iso
from hub.sandbox.config import Account, SandboxConfig
from hub.sandbox.faults import NOISE, Faults
from hub.sandbox.journal import Acked
from hub.sandbox.state import State

log = structlog.get_logger()

MAX_PENDING = 20_000
"""Events that may wait for the hub; an hour of a busy test. Beyond it the provider refuses new ones instead
of growing."""
KEPT_ATTEMPTS = 2_000
SLOW_S = 5.0
"""A hub that needs longer is one that Meta would disable."""
TIMEOUT = aiohttp.ClientTimeout(total=20, connect=5)
ORDERED_TRIES = 5
"""Refusals by a hub that does answer, after which an event no longer holds up its customer's others."""
AWAY = frozenset({None, 502, 503, 504})
"""Statuses (None = no answer) that speak of the hub, not of the event: order is kept however long they
last."""
GIVE_UP_S = 7 * 24 * 3600
Json = dict[str, Any]


class Event(msgspec.Struct, kw_only=True, gc=False):
    """One element of a webhook. `where` is the key of `value` it belongs under, or "template" for a whole
    value."""

    key: str
    kind: str
    account: str
    persona: str
    where: str
    element: Json
    contact: Json | None
    born: float
    attempts: int = 0
    copies: int = 1
    twin: bool = False
    never_retry: bool = False
    noise: list[str] = []
    noise_bytes: int = 0


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One POST, as GET /_ctl/deliveries shows it."""

    at: str
    account: str
    attempt: int
    events: list[Json]
    status: int | None
    latency_ms: float
    error: str | None
    fault: str | None


class _Lane:
    """Events that wait for each other: one customer of one account."""

    __slots__ = ("account", "busy", "events", "failures", "key", "queued", "together")

    def __init__(self, key: object, account: str, together: int = 0) -> None:
        self.key = key
        self.account = account
        self.events: deque[Event] = deque()
        self.busy = False
        self.queued = False
        self.failures = 0
        self.together = together


def encode_as_meta(body: Json) -> bytes:
    """Meta's spelling: non-ASCII as \\uXXXX and `/` as `\\/`; the signature is over exactly these bytes."""
    return json.dumps(body, ensure_ascii=True, separators=(",", ":")).replace("/", "\\/").encode()


class Courier:
    """Queues events, posts them, repeats. `on_ack` is called with each event the hub took, `on_failure` with
    each it did not."""

    def __init__(
        self,
        config: SandboxConfig,
        state: State,
        timers: Timers,
        faults: Faults,
        rng: Random,
        *,
        on_ack: Callable[[Event], None],
        on_failure: Callable[[Event], None],
        on_reachable: Callable[[], None],
    ) -> None:
        self.config = config
        self.state = state
        self.timers = timers
        self.faults = faults
        self._rng = rng
        self._on_ack = on_ack
        self._on_failure = on_failure
        self._on_reachable = on_reachable
        self.callback_url = config.callback_url
        self.batch_max = config.batch_max
        self.reachable: bool | None = None
        self.detail: str | None = None
        self.pending = 0
        self.attempts: deque[Attempt] = deque(maxlen=KEPT_ATTEMPTS)
        self.ok = self.failed = self.slow = 0
        self._lanes: dict[object, _Lane] = {}
        self._ready: deque[_Lane] = deque()
        self._work = asyncio.Semaphore(0)
        self._solo = itertools.count()
        self._held: dict[tuple[str, int], _Lane] = {}
        self._waiters: dict[str, asyncio.Event] = {}
        self._client: aiohttp.ClientSession | None = None
        self._generation = 0

    @property
    def full(self) -> bool:
        """Whether new events must be refused."""
        return self.pending >= MAX_PENDING

    async def run(self) -> None:
        """Delivers until cancelled."""
        # No environment proxies, no cookies: the callback is on this machine.
        async with aiohttp.ClientSession(
            timeout=TIMEOUT, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False
        ) as client:
            self._client = client
            async with asyncio.TaskGroup() as group:
                for _ in range(self.config.concurrency):
                    group.create_task(self._deliver())

    def add(self, event: Event) -> None:
        """Queues one event behind the earlier ones of its customer, unless a fault says otherwise."""
        self.pending += 1
        self._apply_faults(event)
        delay = self.faults.strike("delay", event.account, event.persona)
        if delay is not None:
            generation = self._generation
            self.timers.after(
                delay.number("seconds", 5),
                lambda: self._enqueue(event) if generation == self._generation else None,
            )
            return
        batch = self.faults.strike("batch", event.account, event.persona)
        if batch is not None:
            self._hold(event, batch.id, max(1, int(batch.number("k", 5))), batch.number("wait_s", 2))
            return
        self._enqueue(event)

    def _apply_faults(self, event: Event) -> None:
        def struck(name: str) -> bool:
            return self.faults.strike(name, event.account, event.persona) is not None

        if not self.faults.active:
            return
        duplicate = self.faults.strike("duplicate", event.account, event.persona)
        if duplicate is not None:
            event.copies = max(1, min(20, int(duplicate.number("copies", 2))))
        event.never_retry = struck("never_retry")
        event.twin = event.kind == "message" and struck("twin")
        if struck("timestamp_ms") and "timestamp" in event.element:
            event.element = {**event.element, "timestamp": event.element["timestamp"] + "000"}
        if event.kind == "message" and event.element.get("from_user_id") and struck("bsuid_only"):
            event.element = {k: v for k, v in event.element.items() if k != "from"}
            if event.contact is not None:
                event.contact = {k: v for k, v in event.contact.items() if k != "wa_id"}
        for name in NOISE:
            fault = self.faults.strike(name, event.account, event.persona)
            if fault is not None:
                event.noise = [*event.noise, name]
                event.noise_bytes = int(fault.number("bytes", 3_200_000))

    def _hold(self, event: Event, fault_id: int, k: int, wait_s: float) -> None:
        """Collects k events for one body; posts fewer when they do not come in time."""
        key = (event.account, fault_id)
        lane = self._held.get(key)
        if lane is None:
            lane = self._held[key] = _Lane(("batch", next(self._solo)), event.account, together=k)
            held = lane

            def release() -> None:
                if self._held.get(key) is held:
                    self._release(key)

            self.timers.after(wait_s, release)
        lane.events.append(event)
        if len(lane.events) >= k:
            self._release(key)

    def _release(self, key: tuple[str, int]) -> None:
        lane = self._held.pop(key)
        self._lanes[lane.key] = lane
        self._make_ready(lane)

    def _enqueue(self, event: Event) -> None:
        key = (event.account, event.persona)
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = _Lane(key, event.account)
        lane.events.append(event)
        if not lane.failures:
            self._make_ready(lane)

    def _make_ready(self, lane: _Lane) -> None:
        if lane.events and not lane.busy and not lane.queued:
            lane.queued = True
            self._ready.append(lane)
            self._work.release()

    def _take(self) -> list[_Lane]:
        """The next lane, and more lanes of its account while many wait: one body for all."""
        lane = self._ready.popleft()
        lane.queued, lane.busy = False, True
        taken, size = [lane], len(lane.events)
        while (
            size < self.batch_max
            and not lane.together
            and len(self._ready) > 2 * self.config.concurrency
            and self._ready[0].account == lane.account
            and not self._ready[0].together
        ):
            other = self._ready.popleft()
            other.queued, other.busy = False, True
            taken.append(other)
            size += len(other.events)
        return taken

    async def _deliver(self) -> None:
        while True:
            await self._work.acquire()
            if not self._ready:
                continue  # another worker took this lane along
            lanes = self._take()
            groups: list[tuple[_Lane, list[Event]]] = []
            room = max(1, self.batch_max)
            for lane in lanes:
                most = lane.together or room
                chosen = [lane.events.popleft() for _ in range(min(len(lane.events), max(1, most)))]
                room = max(0, room - len(chosen))
                groups.append((lane, chosen))
            generation = self._generation
            events = [event for _, chosen in groups for event in chosen]
            try:
                status = await self._post(lanes[0].account, events)
            except Exception:
                log.exception("sandbox.delivery_failed")
                status = None
            if generation != self._generation:
                continue
            for lane, chosen in groups:
                lane.busy = False
                if status == 200:
                    self._acknowledge(lane, chosen)
                else:
                    self._repeat(lane, chosen, away=status in AWAY)

    def _acknowledge(self, lane: _Lane, events: list[Event]) -> None:
        lane.failures = 0
        self.pending -= len(events)
        self.state.journal.note(Acked([event.key for event in events]))
        for event in events:
            self._on_ack(event)
            waiter = self._waiters.pop(event.key, None)
            if waiter is not None:
                waiter.set()
        self._next(lane)

    def _next(self, lane: _Lane) -> None:
        if lane.events:
            self._make_ready(lane)
        elif not lane.failures:
            self._lanes.pop(lane.key, None)

    def _repeat(self, lane: _Lane, events: list[Event], *, away: bool) -> None:
        """Back to the head of the lane with a growing pause; refused ORDERED_TRIES times: on lanes of their
        own."""
        now = self.timers.clock.now()
        kept = [e for e in events if not e.never_retry and now - e.born < GIVE_UP_S]
        self.pending -= len(events) - len(kept)
        for event in kept:
            self._on_failure(event)
        alone = isinstance(lane.key, int)
        lane.failures += 1
        if lane.failures >= ORDERED_TRIES and not alone and not away:
            for event in kept:
                number = next(self._solo)
                solo = self._lanes[number] = _Lane(number, lane.account)
                solo.events.append(event)
                solo.failures = lane.failures
                self._pause(solo)
            lane.failures = 0
            self._next(lane)
            return
        lane.events.extendleft(reversed(kept))
        if lane.events:
            self._pause(lane)
        else:
            lane.failures = 0
            self._next(lane)

    def _pause(self, lane: _Lane) -> None:
        base = self.config.retry_base_s * 2 ** min(lane.failures - 1, 20)
        wait = min(base, self.config.retry_cap_s) * self._rng.uniform(0.8, 1.2)
        self.timers.after(wait, lambda: self._make_ready(lane))

    async def wait_for(self, keys: Iterable[str], seconds: float) -> None:
        """Returns when the hub took these events, or after that many seconds of real time."""
        waiters = [self._waiters.setdefault(key, asyncio.Event()) for key in keys]
        try:
            async with asyncio.timeout(seconds):
                for waiter in waiters:
                    await waiter.wait()
        except TimeoutError:
            return
        finally:
            for key in keys:
                self._waiters.pop(key, None)

    def clear(self) -> None:
        """Drops everything that waits; what is under way may still arrive."""
        self._generation += 1
        self._lanes.clear()
        self._ready.clear()
        self._held.clear()
        self.pending = 0
        self.attempts.clear()
        self.ok = self.failed = self.slow = 0

    def _value(self, account: Account, events: list[Event]) -> Json:
        where = events[0].where
        value: Json = {
            "messaging_product": "whatsapp",
            "metadata": {
                "display_phone_number": account.display_phone_number,
                "phone_number_id": account.phone_number_id,
            },
        }
        contacts: list[Json] = []
        for event in events:
            if event.contact is not None and event.contact not in contacts:
                contacts.append(event.contact)
        if contacts:
            value["contacts"] = contacts
        value[where] = [event.element for event in events for _ in range(2 if event.twin else 1)]
        return value

    def _body(self, account: Account, events: list[Event]) -> Json:
        """One body: neighbours of a kind share a value, or have a change or an entry each; all three are seen
        in the wild."""
        runs: list[list[Event]] = []
        spread = len(events) > 1 and self._rng.random() < 0.5
        for event in events:
            joins = runs and runs[-1][0].where == event.where and event.where != "template" and not spread
            if joins:
                runs[-1].append(event)
            else:
                runs.append([event])
        changes: list[Json] = []
        for run in runs:
            if run[0].where == "template":
                changes.append({"field": "message_template_status_update", "value": run[0].element})
            else:
                changes.append({"value": self._value(account, run), "field": "messages"})
        if len(changes) > 1 and self._rng.random() < 0.3:
            entries: list[Json] = [{"id": account.waba_id, "changes": [change]} for change in changes]
        else:
            entries = [{"id": account.waba_id, "changes": changes}]
        for entry, run in zip(entries, runs, strict=False):
            if run[0].where == "template":
                entry["time"] = int(run[0].born)
        return {"object": "whatsapp_business_account", "entry": entries}

    async def _post(self, account_key: str, events: list[Event]) -> int | None:
        """The hub's status, None = no answer. Events of an account that is gone count as delivered."""
        account = self.state.accounts.get(account_key)
        if account is None or not events:
            return 200
        body = encode_as_meta(self._body(account, events))
        first = min(event.attempts for event in events) == 0
        names = [{"kind": e.kind, "id": e.key.split(":", 1)[1] if ":" in e.key else e.key} for e in events]
        attempt = max(event.attempts for event in events) + 1
        if first:
            for event in events:
                for noise in event.noise:
                    await self._noise(account, event, noise, attempt)
        copies = max(event.copies for event in events) if first else 1
        for event in events:
            event.attempts += 1
        fault = "duplicate" if copies > 1 else "twin" if any(e.twin for e in events) else None
        answers = await asyncio.gather(
            *(self._send(account, body, names, attempt, fault) for _ in range(copies))
        )
        status, error = next((answer for answer in answers if answer[0] == 200), answers[0])
        self._reached(status, error)
        return status

    def _reached(self, status: int | None, error: str | None) -> None:
        """Tells about a change; when the hub is back, nobody waits for the rest of their pause."""
        reachable = status not in AWAY
        detail = None if status == 200 else error or f"HTTP {status}"
        if reachable != self.reachable or detail != self.detail:
            back = reachable and self.reachable is False
            self.reachable, self.detail = reachable, detail
            self._on_reachable()
            if back:
                for lane in list(self._lanes.values()):
                    self._make_ready(lane)

    async def _send(
        self,
        account: Account,
        body: bytes,
        names: list[Json],
        attempt: int,
        fault: str | None,
        signature: str | None = None,
    ) -> tuple[int | None, str | None]:
        assert self._client is not None
        secret = account.app_secret or self.config.app_secret
        url = account.callback_url or self.callback_url
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "facebookexternalua",
            "X-Hub-Signature-256": signature or meta_signature(secret, body),
        }
        status: int | None = None
        error: str | None = None
        at = iso(self.timers.clock.now())
        began = time.perf_counter()
        # aiohttp warns when more than a megabyte of plain bytes would be copied at once.
        data = body if len(body) < 512 * 1024 else io.BytesIO(body)
        try:
            async with self._client.post(url, data=data, headers=headers, allow_redirects=False) as answer:
                status = answer.status
                await answer.read()
        except TimeoutError:
            error = "no answer in time"
        except (aiohttp.ClientError, OSError, ValueError) as raised:
            error = (
                "connection refused"
                if isinstance(raised, aiohttp.ClientConnectorError)
                else str(raised)[:200]
            )
            error = error or type(raised).__name__
        latency = time.perf_counter() - began
        if fault is None or fault not in NOISE:
            if status == 200:
                self.ok += 1
            else:
                self.failed += 1
            if latency > SLOW_S:
                self.slow += 1
        self.attempts.append(
            Attempt(
                at=at,
                account=account.phone_number_id,
                attempt=attempt,
                events=names,
                status=status,
                latency_ms=round(latency * 1000, 2),
                error=error,
                fault=fault,
            )
        )
        return status, error

    async def _noise(self, account: Account, event: Event, name: str, attempt: int) -> None:
        """A body the real event does not depend on: the same with the wrong signature, cut off, or of an
        unknown kind."""
        body = encode_as_meta(self._body(account, [event]))
        signature = None
        odd: Json | None = None
        if name == "wrong_signature":
            signature = meta_signature("not the secret", body)
        elif name == "truncated_json":
            body = body[: len(body) // 2]
        elif name == "unknown_event":
            odd = {"field": "constellation_update", "value": {"event": "ALIGNED", "stars": [1, 2, 3]}}
        else:
            stamp = str(int(self.timers.clock.now()))
            value = self._value(account, [event])
            value.pop(event.where, None)
            if name == "unknown_type":
                message = {
                    "from": (event.contact or {}).get("wa_id"),
                    "from_user_id": (event.contact or {}).get("user_id"),
                    "id": f"wamid.odd{self._rng.getrandbits(64):x}",
                    "timestamp": stamp,
                    "type": "hologram",
                    "hologram": {"depth": 3},
                }
                value["messages"] = [{k: v for k, v in message.items() if v is not None}]
            elif name == "unknown_status":
                value["statuses"] = [
                    {
                        "id": f"wamid.odd{self._rng.getrandbits(64):x}",
                        "status": "pondered",
                        "timestamp": stamp,
                        "recipient_id": (event.contact or {}).get("wa_id", ""),
                    }
                ]
            else:
                value["padding"] = "x" * event.noise_bytes
            odd = {"field": "messages", "value": value}
        if odd is not None:
            entry = {"id": account.waba_id, "changes": [odd]}
            body = encode_as_meta({"object": "whatsapp_business_account", "entry": [entry]})
        await self._send(account, body, [{"kind": "noise", "id": name}], attempt, name, signature)

    def summary(self, limit: int) -> Json:
        """GET /_ctl/deliveries."""
        real = sorted(a.latency_ms for a in self.attempts if a.status == 200)

        def percentile(share: float) -> float | None:
            return real[min(len(real) - 1, int(len(real) * share))] if real else None

        newest = list(self.attempts)[-limit:]
        return {
            "pending": self.pending,
            "attempts": self.ok + self.failed,
            "ok": self.ok,
            "failed": self.failed,
            "slow": self.slow,
            "p50_ms": percentile(0.5),
            "p99_ms": percentile(0.99),
            "deliveries": [msgspec.to_builtins(a) for a in newest],
        }
