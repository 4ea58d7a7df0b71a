"""Load L1: signed webhook deliveries with a provider's repeats, and agents' sends (spec: 20 organizations of
which one gets half; rules, outgoing webhooks and campaigns join when they exist)."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Callable
from itertools import count
from types import TracebackType
from typing import Any, Self
from uuid import UUID

import aiohttp
import msgspec

from hub.channels.signing import meta_signature
from tests.fault.rig import Rig
from tests.fault.world import APP_SECRET, RigOrg

PATH = "/functions/v1/whatsapp-cloud-webhook"
RETRY_S = 1.0


class Delivery(msgspec.Struct):
    """One POST of the provider, with the ids of the messages in it."""

    org: int
    ids: list[str]
    body: bytes
    attempts: int = 0
    acked: bool = False
    given_up: bool = False
    ack_s: float = 0.0
    """From the first attempt to the 2xx."""


class Send(msgspec.Struct):
    """One message that an agent's program asked to send."""

    org: int
    conversation_id: UUID
    client_ref: UUID
    text: str
    attempts: int = 0
    message_id: str | None = None
    refused: int | None = None


class Load:
    """Runs while its block does; leaving it stops making more, and waits until what was made is answered.

        async with Load(rig, inbound=30, sends=10, seed=seed) as load:
            …faults…
        await drained(rig, load)

    `inbound` and `sends` are per second. `repeats`: the provider posts again after a second what was not
    answered 2xx; without, everything is posted once. `where` gives the hub for each attempt; the front by
    default. `largest`: the first organization's share; `strangers`: that of numbers never seen before.
    """

    def __init__(
        self,
        rig: Rig,
        *,
        inbound: float = 30.0,
        sends: float = 6.0,
        seed: int = 1,
        repeats: bool = True,
        where: Callable[[], str] | None = None,
        strangers: float = 0.1,
        largest: float = 0.5,
    ) -> None:
        self.rig, self.inbound, self.sends, self.seed = rig, inbound, sends, seed
        self.repeats, self.strangers, self.largest = repeats, strangers, largest
        self.where = where or (lambda: rig.front_url)
        self.rng = random.Random(seed)
        self._numbers = count(1)
        self.deliveries: list[Delivery] = []
        self.asked: list[Send] = []
        self.webhook_answers: Counter[int | str] = Counter()
        self.api_answers: Counter[int | str] = Counter()
        self.slowest_ack_s = self.slowest_api_s = 0.0
        """The longest single attempt that ended in an answer, or in our own patience."""
        self.written_at: list[float] = []
        """When sends were answered with success (monotonic)."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._makers: list[asyncio.Task[None]] = []
        self._http: aiohttp.ClientSession

    async def __aenter__(self) -> Self:
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=20),
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        self._makers = [
            asyncio.create_task(self._every(self.inbound, self.say)),
            asyncio.create_task(self._every(self.sends, self.send)),
        ]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for maker in self._makers:
            maker.cancel()
        await asyncio.gather(*self._makers, return_exceptions=True)
        try:
            if error is None:
                async with asyncio.timeout(90):
                    while self._tasks:
                        await asyncio.wait(tuple(self._tasks))
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await self._http.close()

    async def _every(self, per_s: float, make: Callable[[], Any]) -> None:
        """Open loop: a slow answer does not slow the next one down."""
        due = time.monotonic()
        while per_s > 0:
            due += self.rng.expovariate(per_s)
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            make()

    def _org(self) -> RigOrg:
        orgs = self.rig.world.orgs
        return orgs[0] if self.rng.random() < self.largest else self.rng.choice(orgs[1:])

    # ---- inbound ----------------------------------------------------------------------------------------

    def say(self, org: RigOrg | None = None, sender: str | None = None) -> Delivery:
        """A customer writes; one delivery in five carries two or three messages."""
        org = org or self._org()
        together = self.rng.choice((1, 1, 1, 1, 2, 3)) if sender is None else 1
        messages = []
        for _ in range(together):
            n = next(self._numbers)
            wa_id = sender or (
                f"29{org.n:02d}{self.seed % 1000:03d}{self.rng.randrange(200):04d}"
                if self.rng.random() < self.strangers
                else self.rng.choice(org.customers).wa_id
            )
            messages.append(
                {
                    "from": wa_id,
                    "id": f"wamid.rig{self.seed}.{n}.{self.rng.getrandbits(32):08x}",
                    "timestamp": str(int(time.time())),
                    "type": "text",
                    "text": {"body": f"{org.canary} in {self.seed}-{n}"},
                }
            )
        delivery = Delivery(org.n, [str(m["id"]) for m in messages], body_of(org, messages))
        self.deliveries.append(delivery)
        self._spawn(self._deliver(delivery))
        return delivery

    async def _deliver(self, delivery: Delivery) -> None:
        began = time.monotonic()
        while True:
            delivery.attempts += 1
            status = await self.post(delivery.body)
            if isinstance(status, int) and 200 <= status < 300:
                delivery.acked, delivery.ack_s = True, time.monotonic() - began
                return
            if not self.repeats:
                delivery.given_up = True
                return
            await asyncio.sleep(RETRY_S * self.rng.uniform(0.9, 1.1))

    async def post(self, body: bytes, secret: str = APP_SECRET) -> int | str:
        """One attempt: the status, or the name of what happened instead."""
        headers = {
            "Content-Type": "application/json",
            "X-Hub-Signature-256": meta_signature(secret, body),
        }
        began = time.monotonic()
        answer: int | str
        try:
            async with self._http.post(f"{self.where()}{PATH}", data=body, headers=headers) as response:
                await response.read()
                answer = response.status
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            answer = type(error).__name__
        self.slowest_ack_s = max(self.slowest_ack_s, time.monotonic() - began)
        self.webhook_answers[answer] += 1
        return answer

    # ---- agents -----------------------------------------------------------------------------------------

    def send(self, org: RigOrg | None = None, conversation_id: UUID | None = None) -> Send:
        """An agent answers; asked again with the same key until the hub has answered."""
        org = org or self._org()
        send = Send(
            org.n,
            conversation_id or self.rng.choice(org.customers).conversation_id,
            UUID(int=self.rng.getrandbits(128), version=4),
            f"{org.canary} out {self.seed}-{len(self.asked)}",
        )
        self.asked.append(send)
        self._spawn(self._ask(org, send))
        return send

    async def _ask(self, org: RigOrg, send: Send) -> None:
        body = {
            "conversation_id": str(send.conversation_id),
            "direction": "OUTBOUND",
            "content": send.text,
            "status": "PENDING",
            "client_ref": str(send.client_ref),
        }
        headers = {
            "Authorization": f"Bearer {org.api_key}",
            "Prefer": "return=representation",
            "Idempotency-Key": str(send.client_ref),
        }
        while True:
            send.attempts += 1
            began = time.monotonic()
            answer: int | str
            try:
                async with self._http.post(
                    f"{self.where()}/rest/v1/messages", json=body, headers=headers
                ) as response:
                    raw = await response.read()
                    answer = response.status
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                answer = type(error).__name__
            self.api_answers[answer] += 1
            self.slowest_api_s = max(self.slowest_api_s, time.monotonic() - began)
            if answer in (200, 201):
                send.message_id = json.loads(raw)[0]["id"]
                self.written_at.append(time.monotonic())
                return
            if isinstance(answer, int) and answer < 500 and answer not in (409, 429):
                send.refused = answer
                return
            await asyncio.sleep(0.4 * self.rng.uniform(0.8, 1.2))

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @property
    def posted(self) -> set[str]:
        """Ids of every message that was ever put on the wire."""
        return {id for d in self.deliveries for id in d.ids}

    @property
    def acked(self) -> set[str]:
        """Ids of the messages in deliveries that were answered 2xx."""
        return {id for d in self.deliveries if d.acked for id in d.ids}


def body_of(org: RigOrg, messages: list[dict[str, Any]]) -> bytes:
    """A delivery as Meta serialises it: ASCII with escapes."""
    value = {
        "messaging_product": "whatsapp",
        "metadata": {"display_phone_number": "15550001111", "phone_number_id": org.phone_number_id},
        "contacts": [
            {"profile": {"name": f"{org.canary} {m['from']}"}, "wa_id": m["from"]} for m in messages
        ],
        "messages": messages,
    }
    entry = {"id": f"66{org.n:08d}", "changes": [{"field": "messages", "value": value}]}
    return json.dumps({"object": "whatsapp_business_account", "entry": [entry]}).encode()
