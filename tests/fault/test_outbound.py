"""Family O: sends, and the provider's misbehaviour (guarantees 7, 8, 9). The worker and the provider's double
run in this process; its ledger is the judge. Workers that are killed are in test_deaths.py."""

from __future__ import annotations

import asyncio
import json
import random
import ssl
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from structlog.testing import capture_logs

from hub.actions.messages import retry_message
from hub.channels.whatsapp_cloud import WhatsAppCloud
from hub.db.embedded import EmbeddedValkey
from hub.db.pool import Database
from hub.errors import Conflict
from hub.events.clients import make_redis
from tests.factories import Member, Org, Servers, make_member, until
from tests.fakes.proxy import FaultProxy, proxy_to
from tests.fault.conftest import Figures
from tests.sending import LAYLA, OMAR, World
from tests.server import Hub, running_hub
from workers.pace import Paces, burst_of

pytestmark = pytest.mark.fault
Scaled = Callable[[Any, Any], Any]
DONE = ("SENT", "DELIVERED", "READ")


def person(n: int) -> str:
    return f"2017{n:08d}"


async def terminal(world: World, ids: list[UUID], timeout_s: float = 60.0) -> dict[UUID, asyncpg.Record]:
    """The messages once none of them is PENDING and nothing waits for a receipt."""

    async def over() -> bool:
        return not await world.conn.fetchval(
            "select exists (select from messages where id = any ($1) and status = 'PENDING')"
            " or exists (select from app.outbox where message_id = any ($1))",
            ids,
        )

    await until(over, timeout_s, "every send to be settled")
    rows = await world.conn.fetch("select * from messages where id = any ($1)", ids)
    return {r["id"]: r for r in rows}


async def requests(world: World, org: Org) -> list[dict[str, Any]]:
    """What one number asked of the provider, in order: id, status, when."""
    found = (await world.sandbox.ctl("GET", f"/outbox?account={org.phone_number_id}&limit=1000"))["requests"]
    return [
        {
            "id": json.loads(r["body"])["biz_opaque_callback_data"],
            "status": r["status"],
            "at": datetime.fromisoformat(r["at"]).timestamp(),
        }
        for r in found
        if r["body"] and "/messages" in r["path"]
    ]


#: What waits for another try is due now.
HURRY = """
update app.outbox set due_at = clock_timestamp() where state = 'available';
delete from app.account_holds;
"""


# ---- O-01 ------------------------------------------------------------------------------------------------


async def answers_of(world: World, org: Org, n: int) -> list[float]:
    """Seconds from being queued to being accepted, of n messages one after the other."""
    took = []
    for k in range(n):
        began = time.monotonic()
        await world.status(await world.queue(f"calm {k}", to=person(900 + k), org=org), *DONE)
        took.append(time.monotonic() - began)
    return sorted(took)


async def test_O01_a_storm_of_throttles_on_one_number_leaves_the_other_alone(
    world: World, seed: int, figures: Figures, scaled: Scaled
) -> None:
    """429 with Retry-After in seconds and as a date, typed 130429 and 131056, again and again on one of two
    numbers."""
    rng = random.Random(seed)
    stormy, calm = world.orgs[:2]
    kinds: list[dict[str, Any]] = [
        {"retry_after": 1, "code": 130429},
        {"retry_after": "date", "code": 130429},
        {"retry_after": 1, "code": 131056},
    ]
    n = scaled(20, 60)
    async with world.worker():
        quiet = await answers_of(world, calm, n)
        for _ in range(scaled(6, 20)):
            more = {"account": stormy.phone_number_id, "params": rng.choice(kinds)}
            await world.sandbox.fault("throttle", next=rng.randint(1, 2), **more)
        ids = [await world.queue(f"{k}", to=person(k % 8), org=stormy) for k in range(24)]
        loud = await answers_of(world, calm, n)
        rows = await terminal(world, ids, 120)
    assert {r["status"] for r in rows.values()} <= set(DONE)
    accepted = Counter(s["correlator"] for s in await world.sends())
    assert all(accepted[str(id)] == 1 for id in ids)
    by_message: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for request in await requests(world, stormy):
        by_message[request["id"]].append(request)
    early = [
        (before, after)
        for tries in by_message.values()
        for before, after in pairwise(tries)
        if before["status"] == 429 and after["at"] - before["at"] < 0.99
    ]
    assert early == [], "asked again before the provider allowed it"
    assert sum(r["status"] == 429 for tries in by_message.values() for r in tries) > 0
    figures.note("throttled", sum(r["status"] == 429 for tries in by_message.values() for r in tries))
    p99 = int(n * 0.99)
    figures.within("the other number's p99, times", loud[p99] / quiet[p99], 1.2, "×")


@pytest.mark.parametrize(("code", "default_s"), [(130429, 5.0), (131056, 6.0)])
async def test_O01_without_a_word_the_codes_own_wait_counts_and_no_try(
    world: World, seed: int, code: int, default_s: float
) -> None:
    """A throttle without Retry-After."""
    await world.sandbox.fault("throttle", params={"code": code})
    async with world.worker():
        id = await world.queue()

        async def waits() -> asyncpg.Record | None:
            return await world.conn.fetchrow(
                "select attempts, extract(epoch from due_at - clock_timestamp())::float8 as wait_s"
                " from app.outbox where state = 'available' and last_error is not null"
            )

        box = await until(waits, what="the wait")
        assert box["attempts"] == 0
        assert default_s - 2 < box["wait_s"] <= default_s
        held = await world.conn.fetchval("select count(*) from app.account_holds")
        assert held == (code == 130429), "131056 is about one recipient"
        await world.conn.execute(HURRY)
        await world.status(id, *DONE)


# ---- O-02, O-03 ------------------------------------------------------------------------------------------

ANSWERS: list[tuple[str, str, dict[str, Any], str]] = [
    # what the provider does, and what must become of the message
    ("500 typed", "error", {"code": 131000, "status": 500}, "sent"),
    ("500 empty", "http", {"status": 500}, "ambiguous"),
    ("502 HTML", "http", {"status": 502, "body": "<html>Bad gateway</html>"}, "ambiguous"),
    ("503 with Retry-After", "http", {"status": 503, "headers": {"Retry-After": "1"}}, "ambiguous"),
    ("504", "http", {"status": 504, "body": "upstream"}, "ambiguous"),
    ("garbage", "http", {"status": 200, "body": '{"messages": [{"id"'}, "ambiguous"),
    ("200 without an id", "ok_without_id", {}, "ambiguous"),
    ("200 with an error", "ok_with_error", {"code": 131000}, "sent"),
    ("429 without a body", "http", {"status": 429, "headers": {"Retry-After": "1"}}, "sent"),
    ("400 without a body", "http", {"status": 400}, "http_400"),
    ("refused for good", "error", {"code": 131026, "status": 400}, "131026"),
    ("outside the window", "error", {"code": 131047, "status": 400}, "window_closed"),
    ("accepted, then 500", "accept_then_500", {}, "sent"),
]


async def test_O02_each_kind_of_answer_is_judged_and_nothing_is_sent_twice(
    world: World, servers: Servers, seed: int, figures: Figures, scaled: Scaled
) -> None:
    """Typed, empty, HTML, half and contradictory answers, each several times, in random order."""
    rng = random.Random(seed)
    cases = [case for case in ANSWERS for _ in range(scaled(4, 40))]
    rng.shuffle(cases)
    ids: dict[UUID, tuple[str, str]] = {}
    for n, (what, fault, params, expected) in enumerate(cases):
        org = world.orgs[n % 4]
        await world.sandbox.fault(fault, persona=person(n), params=params)
        ids[await world.queue(f"{n}", to=person(n), org=org)] = (what, expected)
    stop = asyncio.Event()

    async def hurrying() -> None:
        conn = await asyncpg.connect(servers.migrate_url)
        while not stop.is_set():
            await conn.execute(HURRY)
            await asyncio.sleep(0.3)
        await conn.close()

    task = asyncio.create_task(hurrying())
    async with world.worker(send_unknown_wait_s=2.0):
        rows = await terminal(world, list(ids), 120)
    stop.set()
    await task
    accepted = Counter(s["correlator"] for s in await world.sends())
    assert max(accepted.values()) == 1
    wrong = []
    for id, (what, expected) in ids.items():
        row = rows[id]
        found = "sent" if row["status"] in DONE else row["failure_code"]
        if found != expected or (found == "sent") != (accepted[str(id)] == 1):
            wrong.append((what, expected, found, accepted[str(id)]))
    assert wrong == []
    figures.note("sends", len(ids))


async def test_O03_no_answer_is_no_reason_to_send_again(
    world: World, seed: int, figures: Figures, scaled: Scaled
) -> None:
    """Accepted and then silent, accepted and reset, silent without accepting, answered after our time-out:
    one kind on each of four numbers, receipts in any order."""
    kinds = ["accept_then_hang", "accept_then_reset", "hang", "slow"]
    random.Random(seed).shuffle(kinds)
    n = scaled(24, 300)
    ids: dict[UUID, str] = {}
    for org, kind in zip(world.orgs, kinds, strict=True):
        await world.sandbox.fault(
            kind, account=org.phone_number_id, next=n, params={"seconds": 1.6 if kind == "slow" else 30}
        )
        for k in range(n):
            ids[await world.queue(f"{k}", to=person(k), org=org)] = kind
    await world.sandbox.fault("reorder_statuses", next=10_000)
    with capture_logs() as lines:
        async with world.worker(send_unknown_wait_s=4.0):
            rows = await terminal(world, list(ids), 240)
    accepted = Counter(s["correlator"] for s in await world.sends())
    assert max(accepted.values()) == 1
    for id, kind in ids.items():
        found = "sent" if rows[id]["status"] in DONE else rows[id]["failure_code"]
        assert found == ("ambiguous" if kind == "hang" else "sent"), (kind, found)
        assert accepted[str(id)] == (kind != "hang"), kind
    figures.note("sends", len(ids))
    figures.note("ambiguous", sum(r["failure_code"] == "ambiguous" for r in rows.values()))
    assert not [n for n in lines if n["log_level"] in ("error", "critical")]


# ---- O-04 ------------------------------------------------------------------------------------------------


@asynccontextmanager
async def expired_tls(folder: Path) -> AsyncIterator[str]:
    """An https server whose certificate ended yesterday."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=30))
        .not_valid_after(now - timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "tls.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "tls.pem")
    heard: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read(10))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with server:
        yield f"https://localhost:{server.sockets[0].getsockname()[1]}/graph"
    assert heard == [], "something was said to a stranger"


@asynccontextmanager
async def never_shakes_hands(_: Path) -> AsyncIterator[str]:
    """Takes connections and does not answer a TLS handshake: half-open, as far as anybody can tell."""
    release = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await release.wait()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/graph"
        release.set()


@asynccontextmanager
async def refuses(_: Path) -> AsyncIterator[str]:
    yield "http://127.0.0.1:1/graph"


@asynccontextmanager
async def unknown_name(_: Path) -> AsyncIterator[str]:
    yield "http://no-such-host.invalid/graph"


@pytest.mark.parametrize("away", [refuses, unknown_name, expired_tls, never_shakes_hands])
async def test_O04_a_provider_that_cannot_be_reached_costs_no_try_and_no_message(
    world: World, seed: int, tmp_path: Path, away: Callable[[Path], Any]
) -> None:
    """Refused, no such name, an expired certificate, a handshake that never ends; then it is back."""
    ids = [await world.queue(f"{n}", to=to) for n in range(3) for to in (LAYLA, OMAR)]
    async with (
        away(tmp_path) as base,
        world.worker(meta_graph_base=base, provider_connect_s=0.5, provider_total_s=3.0),
    ):

        async def tried() -> bool:
            return bool(
                await world.conn.fetchval(
                    "select count(*) >= 2 and bool_and(attempts = 0 and sending_at is null)"
                    " from app.outbox where last_error like '%could not be reached%'"
                )
            )

        await until(tried, 30, what="the tries")
    assert await world.conn.fetchval("select count(*) from app.outbox where attempts > 0") == 0
    await world.conn.execute(HURRY)
    async with world.worker():
        rows = await terminal(world, ids)
    assert {r["status"] for r in rows.values()} <= set(DONE)
    for persona in ("layla", "omar"):
        texts = [s["body"]["text"]["body"] for s in await world.sends() if s["persona"] == persona]
        assert texts == ["0", "1", "2"]


async def test_O04_after_an_outage_each_conversation_goes_on_where_it_stood(
    world: World, seed: int, figures: Figures, scaled: Scaled
) -> None:
    """The provider is gone while messages come in, and sends under way are cut off; then it is back."""
    rng = random.Random(seed)
    host, port = world.sandbox.url.removeprefix("http://").split(":")
    outage_s = scaled(4.0, 120.0)
    people = [person(n) for n in range(10)]
    ids: list[UUID] = []
    async with proxy_to(host, int(port)) as proxy:
        base = f"http://127.0.0.1:{proxy.port}/graph"
        async with world.worker(meta_graph_base=base, send_unknown_wait_s=2.0):
            for n in range(20):
                ids.append(await world.queue(f"{n}", to=rng.choice(people)))
            await until(lambda: some_sent(world), what="the first of them")
            await proxy.stop()
            gone_at = time.monotonic()
            while time.monotonic() - gone_at < outage_s:
                ids.append(await world.queue(f"{len(ids)}", to=rng.choice(people)))
                await asyncio.sleep(outage_s / 40)
            waiting = await world.conn.fetchval("select count(*) from app.outbox")
            await proxy.start(proxy.address)
            back_at = time.monotonic()
            rows = await terminal(world, ids, 120)
    sent = [s for s in await world.sends() if s["correlator"] in {str(id) for id in ids}]
    assert max(Counter(s["correlator"] for s in sent).values()) == 1
    order: dict[str, list[int]] = defaultdict(list)
    for send in sent:
        order[send["to"]].append(int(send["body"]["text"]["body"]))
    assert all(texts == sorted(texts) for texts in order.values()), order
    lost = [r for r in rows.values() if r["status"] == "FAILED"]
    assert {r["failure_code"] for r in lost} <= {"ambiguous"}
    # what was under way in the moment of the cut may be anybody's guess, nothing else
    assert len(lost) <= 8
    assert len(sent) + len(lost) >= len(ids)
    figures.note("waiting when it was back", waiting)
    figures.within("drained", time.monotonic() - back_at, 45.0)
    figures.note("ambiguous", len(lost))


async def some_sent(world: World) -> bool:
    n: int = await world.conn.fetchval("select count(*) from messages where status <> 'PENDING'")
    return n >= 5


# ---- O-05 ------------------------------------------------------------------------------------------------


async def test_O05_a_token_that_breaks_in_mid_stream_stops_its_number_after_one_try(
    world: World, seed: int, figures: Figures, scaled: Scaled
) -> None:
    """401 with code 190 from some moment on: other numbers go on, the owner is told, a new token drains."""
    broken, healthy = world.orgs[:2]
    ids = [await world.queue(f"{n}", to=person(n), org=broken) for n in range(scaled(30, 200))]
    async with world.worker():
        await until(lambda: some_sent(world), what="the stream")
        await world.sandbox.fault("expired_token", account=broken.phone_number_id, next=10_000)

        async def is_stopped() -> bool:
            return bool(
                await world.conn.fetchval(
                    "select health = 'error' and exists (select from app.account_holds h"
                    " where h.channel_account_id = a.id) from channel_accounts a where id = $1",
                    broken.account_id,
                )
            )

        await until(is_stopped, what="the account to stop")
        await until(lambda: nothing_runs(world), what="what was under way")
        refused = sum(r["status"] == 401 for r in await requests(world, broken))
        other = [await world.queue(f"{n}", to=person(n), org=healthy) for n in range(10)]
        assert {r["status"] for r in (await terminal(world, other)).values()} <= set(DONE)
        assert sum(r["status"] == 401 for r in await requests(world, broken)) == refused, "no more tries"
        assert refused <= 8, "those under way when the first answer came"
        told = await world.conn.fetchval(
            "select count(*) from app.events where table_name = 'channel_accounts' and organization_id = $1"
            " and payload #>> '{row,health}' = 'error' and payload #>> '{changed,health}' <> 'error'",
            broken.id,
        )
        assert told == 1
        assert await world.conn.fetchval("select count(*) from messages where status = 'FAILED'") == 0
        await world.sandbox.ctl("DELETE", "/fault")
        # the owner puts a token in: tried at once, whatever waits
        await world.conn.execute(
            "update app.secrets set updated_at = now() where owner_id = $1", broken.account_id
        )
        rows = await terminal(world, ids, 60)
        assert await world.conn.fetchval(
            "select health from channel_accounts where id = $1", broken.account_id
        ) == ("ok")
    assert {r["status"] for r in rows.values()} <= set(DONE)
    assert max(Counter(s["correlator"] for s in await world.sends()).values()) == 1
    figures.note("refused", refused)


async def nothing_runs(world: World) -> bool:
    n: int = await world.conn.fetchval("select count(*) from app.outbox where state = 'running'")
    return n == 0


async def test_O06_workers_share_the_buckets_of_a_number(
    valkey: EmbeddedValkey, seed: int, figures: Figures, scaled: Scaled
) -> None:
    """Three workers take places on one number as fast as they are given, for a while; then without Redis."""
    rng = random.Random(seed)
    adapter = WhatsAppCloud()
    account, people = uuid4(), [uuid4() for _ in range(4000)]
    seconds = scaled(3.0, 60.0)
    redis = make_redis(valkey.url, connect_s=1.0, command_s=0.5)
    workers = [Paces(redis, f"w{n}") for n in range(3)]

    async def work(pace: Paces, until_s: float) -> list[float]:
        """When each place that it took comes (monotonic)."""
        taken = []
        while (now := time.monotonic()) < until_s:
            wait = await pace.reserve(adapter, account, rng.choice(people), at_most_s=0.1)
            if wait <= 0.1:
                taken.append(now + wait)
            await asyncio.sleep(min(wait, 0.05))
        return taken

    async def measured() -> float:
        began = time.monotonic()
        places = await asyncio.gather(*(work(pace, began + seconds) for pace in workers))
        taken = sorted(at for mine in places for at in mine if at < began + seconds)
        return len(taken) / seconds / adapter.limits.rate_per_s

    shared = await measured()
    await redis.aclose()
    for pace in workers:  # Redis is away from now on: each knows that three share the number
        pace._resume_at = float("inf")
    alone = await measured()
    figures.note("rate with Redis (%)", f"{100 * shared:.1f}")
    figures.note("rate without (%)", f"{100 * alone:.1f}")
    burst = burst_of(adapter.limits.rate_per_s) / adapter.limits.rate_per_s / seconds
    assert shared <= 1.01 + burst
    assert alone <= 1.10 + 3 * burst
    assert shared > 0


async def test_O06_a_recipient_is_never_written_to_faster_than_the_provider_allows(
    valkey: EmbeddedValkey, seed: int, figures: Figures
) -> None:
    """Two workers, a few recipients, as fast as they may: of each pair the burst, then one an interval."""
    adapter = WhatsAppCloud()
    account, people = uuid4(), [uuid4() for _ in range(3)]
    redis = make_redis(valkey.url, connect_s=1.0, command_s=0.5)
    workers = [Paces(redis, f"w{n}") for n in range(2)]
    taken: Counter[UUID] = Counter()
    refused: list[float] = []

    async def work(pace: Paces) -> None:
        for _ in range(80):
            for person in people:
                wait = await pace.reserve(adapter, account, person, at_most_s=60.0)
                if wait > 60.0 or (wait > 0 and taken[person] >= adapter.limits.pair_burst):
                    refused.append(wait)
                else:
                    taken[person] += 1

    await asyncio.gather(*map(work, workers))
    await redis.aclose()
    assert set(taken.values()) == {adapter.limits.pair_burst}
    assert 0 < max(refused) <= adapter.limits.pair_interval_s + 0.1
    figures.note("taken", dict(Counter(taken.values())))


# ---- O-07 ------------------------------------------------------------------------------------------------


@pytest.fixture
async def hubs(servers: Servers, valkey: EmbeddedValkey, tmp_path: Path) -> AsyncIterator[tuple[Hub, Hub]]:
    async with (
        running_hub(servers, valkey.url, tmp_path / "a") as one,
        running_hub(servers, valkey.url, tmp_path / "b") as two,
    ):
        yield one, two


async def test_O07_a_post_whose_answer_was_cut_and_repeated_five_times_at_once_is_one_send(
    hubs: tuple[Hub, Hub],
    superuser: asyncpg.Connection,
    world: World,
    seed: int,
    figures: Figures,
    scaled: Scaled,
) -> None:
    """The answer is cut off; five more posts at once to both hubs; the key with another body; two tabs."""
    from hub.auth.passwords import hash_password
    from tests.server import PASSWORD

    member = await make_member(superuser, world.org, "OWNER", hash_password(PASSWORD))
    token = await hubs[0].token(member.email)
    conversation = await world.conversation()
    rounds = scaled(8, 60)
    refs = [str(uuid4()) for _ in range(rounds)]
    answers: Counter[int] = Counter()
    async with proxied(hubs[0]) as (proxy, url), world.worker():
        for n, ref in enumerate(refs):
            body = {
                "conversation_id": str(conversation), "direction": "OUTBOUND", "status": "PENDING",
                "content": f"{n}", "client_ref": ref,
            }  # fmt: skip
            headers = {"Idempotency-Key": ref, "Prefer": "return=representation"}
            proxy.down.silent = True
            first = asyncio.create_task(
                hubs[0].client.post(
                    f"{url}/rest/v1/messages",
                    json=body,
                    headers={**headers, "Authorization": f"Bearer {token}"},
                )
            )
            await until(
                lambda ref=ref: superuser.fetchval(  # type: ignore[misc]
                    "select exists (select from messages where client_ref = $1)", UUID(ref)
                ),
                what="the first one's effect",
            )
            proxy.reset()
            proxy.down.silent = False
            assert isinstance((await asyncio.gather(first, return_exceptions=True))[0], Exception)

            async def again(hub: Hub, body: Any = body, headers: Any = headers) -> Any:
                for _ in range(50):
                    answer = await hub.post("/rest/v1/messages", token=token, json=body, headers=headers)
                    answers[answer.status] += 1
                    if answer.status != 409:
                        return answer
                    assert answer.headers["Retry-After"] == "1"
                    await asyncio.sleep(0.02)
                raise AssertionError("still running?")

            same = await asyncio.gather(*(again(hubs[k % 2]) for k in range(5)))
            assert {a.status for a in same} == {201}
            assert len({a.body for a in same}) == 1
            other = await hubs[1].post(
                "/rest/v1/messages", token=token, json={**body, "content": "other"}, headers=headers
            )
            assert other.status == 422
            # another tab, without the key: the row's own client_ref holds
            tab = await hubs[1].post("/rest/v1/messages", token=token, json=body)
            assert tab.status == 409, tab
        ids = [r["id"] for r in await superuser.fetch("select id from messages")]
        assert len(ids) == rounds
        await terminal(world, ids)
    accepted = Counter(s["correlator"] for s in await world.sends())
    assert accepted == {str(id): 1 for id in ids}
    figures.note("answers", dict(answers))


@asynccontextmanager
async def proxied(hub: Hub) -> AsyncIterator[tuple[FaultProxy, str]]:
    host, port = hub.url.removeprefix("http://").split(":")
    async with proxy_to(host, int(port)) as proxy:
        yield proxy, f"http://127.0.0.1:{proxy.port}"


# ---- O-08 ------------------------------------------------------------------------------------------------


async def test_O08_the_provider_gets_each_conversation_in_order(
    world: World, seed: int, figures: Figures, scaled: Scaled
) -> None:
    """Conversations with many messages each, typed errors and slow answers at random, three workers."""
    rng = random.Random(seed)
    conversations, each = scaled((24, 6), (100, 20))
    for _ in range(conversations):
        kind, params = rng.choice(
            [
                ("error", {"code": 131000, "status": 500}),
                ("slow", {"seconds": 0.3}),
                ("throttle", {"retry_after": 1}),
            ]
        )
        await world.sandbox.fault(kind, persona=person(rng.randrange(conversations)), params=params)
    ids = [
        await world.queue(f"{n}", to=person(c), org=world.orgs[c % 4])
        for n in range(each)
        for c in range(conversations)
    ]
    async with world.worker(), world.worker(), world.worker():
        rows = await terminal(world, ids, 300)
    assert {r["status"] for r in rows.values()} <= set(DONE)
    overtaken = {str(id) for id, r in rows.items() if json.loads(r["metadata"]).get("overtaken")}
    place = {str(id): (r["conversation_id"], r["conv_seq"]) for id, r in rows.items()}
    order: dict[UUID, list[int]] = defaultdict(list)
    sends = await world.sends()
    assert Counter(s["correlator"] for s in sends) == dict.fromkeys(place, 1)
    for send in sends:
        if send["correlator"] not in overtaken:
            conversation, conv_seq = place[send["correlator"]]
            order[conversation].append(conv_seq)
    assert all(seqs == sorted(seqs) for seqs in order.values())
    figures.note("sends", len(ids))
    figures.note("overtaken", len(overtaken))


# ---- O-12 ------------------------------------------------------------------------------------------------


@pytest.fixture
async def agents(superuser: asyncpg.Connection, world: World) -> list[Member]:
    return [await make_member(superuser, world.org) for _ in range(2)]


@pytest.mark.parametrize("why", ["refused", "ambiguous"])
async def test_O12_resent_by_two_agents_at_once_it_is_sent_once_more(
    world: World, db: Database, agents: list[Member], seed: int, why: str
) -> None:
    """A refused message and an ambiguous one that the provider does have: Resend pressed by two at once."""
    if why == "refused":
        await world.sandbox.fault("error", params={"code": 131026, "status": 400})
    else:
        await world.sandbox.fault("accept_then_reset")
        await world.sandbox.fault("drop_status", next=100)
    async with world.worker(send_unknown_wait_s=0.3):
        id = await world.queue()
        row = await world.status(id, "FAILED")
        assert row["failure_code"] == ("131026" if why == "refused" else "ambiguous")
        await until(lambda: world.conn.fetchval("select not exists (select from app.outbox)"))
        await world.sandbox.ctl("DELETE", "/fault")
        before = len(await world.sends(id))
        assert before == (why == "ambiguous")
        results = await asyncio.gather(
            *(retry_message(db, agent.principal(), message_id=id) for agent in agents), return_exceptions=True
        )
        assert [type(r) for r in results].count(Conflict) == 1, results
        await world.status(id, *DONE)
    sends = await world.sends(id)
    assert len(sends) == before + 1, "the provider was called, once"
    row = await world.message(id)
    assert row["provider_message_id"] == sends[-1]["wamid"]
    assert row["failure_code"] is None


async def test_O12_a_late_receipt_of_the_first_attempt_keeps_what_the_second_reached(
    world: World, db: Database, agents: list[Member], seed: int
) -> None:
    """Ambiguous, sent again by a person and read; then the receipts of the first attempt come after all."""
    await world.sandbox.fault("accept_then_reset")
    delay = await world.sandbox.fault("delay", next=3, params={"seconds": 3600})
    async with world.worker(send_unknown_wait_s=0.3):
        id = await world.queue()
        assert (await world.status(id, "FAILED"))["failure_code"] == "ambiguous"
        await until(lambda: world.conn.fetchval("select not exists (select from app.outbox)"))
        await world.sandbox.ctl("DELETE", f"/fault/{delay}")
        await retry_message(db, agents[0].principal(), message_id=id)
        await world.status(id, "DELIVERED", "READ")
        await world.sandbox.advance(10)
        row = await world.status(id, "READ")
        await world.sandbox.advance(4000)
        await until(world.sandbox.quiet, what="the late receipts")
        assert (await world.message(id))["status"] == "READ"
        assert (await world.message(id))["provider_message_id"] == row["provider_message_id"]
    assert len(await world.sends(id)) == 2
