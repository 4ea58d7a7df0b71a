"""Family D: death, pauses, disks (guarantees 0, 4, 8, 11, 13)."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest

from tests.factories import until
from tests.fakes.proxy import Cut
from tests.fault.clients import Crowd
from tests.fault.conftest import Figures
from tests.fault.invariants import drained, hold, under_load
from tests.fault.load import Load
from tests.fault.rig import ROOT, Proc, Rig

pytestmark = pytest.mark.fault
RigOf = Callable[..., Rig]
Scaled = Callable[..., Any]


def l1(scaled: Scaled, **more: Any) -> dict[str, Any]:
    """The load of this profile: 30 deliveries a second for the suite, 100 at full size."""
    return {"inbound": scaled(30, 100), "sends": scaled(6, 20), "sessions": scaled(8, 50), **more}


async def written_again(rig: Rig, load: Load, since: float) -> float:
    """Seconds from `since` (monotonic) until a write over REST was answered with success."""
    await until(lambda: load.written_at and load.written_at[-1] > since, 60, "a write over REST")
    return next(at for at in load.written_at if at > since) - since


async def test_D01_hubs_are_killed_one_after_the_other(
    rig_of: RigOf, seed: int, figures: Figures, scaled: Scaled
) -> None:
    """kill -9 of alternate hubs under load. A second later the provider posts again what was not answered."""
    back, caught_up = 0.0, 0.0
    async with rig_of(workers=2) as rig, under_load(rig, seed=seed, **l1(scaled)) as scene:
        assert scene.crowd is not None
        for n in range(scaled(3, 8)):
            await asyncio.sleep(scaled(1.5, 7.0))
            hub = rig.hubs[n % 2]
            hub.kill()
            back = max(back, await hub.restart())
            caught_up = max(caught_up, await scene.crowd.caught_up())
    figures.within("hub back", back, 3.0)
    figures.within("sessions caught up", caught_up, 5.0)
    figures.note("deliveries", len(scene.load.deliveries))
    figures.note("answers", dict(scene.load.webhook_answers))


async def test_D02_workers_are_killed_while_they_send(
    rig_of: RigOf, seed: int, figures: Figures, scaled: Scaled
) -> None:
    """kill -9 of a random worker again and again, while messages go out to a provider that takes 200 ms."""
    kills, pause, rate = scaled(4, 20), scaled(1.5, 3.0), scaled(30, 50)
    rng = random.Random(seed)
    async with rig_of() as rig:
        await rig.fault("slow", probability=1.0, params={"seconds": 0.2})
        async with Load(rig, inbound=0, sends=rate, seed=seed, largest=0.05) as load:
            for _ in range(kills):
                await asyncio.sleep(pause)
                worker = rng.choice(rig.workers)
                worker.kill()
                worker.spawn()
        began = time.monotonic()
        await drained(rig, load)
        figures.within("all terminal after the last kill", time.monotonic() - began, 60.0)
        await hold(rig, load)
        rows = await rig.fetch(
            "select status, coalesce(failure_code, '') as code, count(*) from messages"
            " where direction = 'OUTBOUND' group by 1, 2"
        )
        outcomes = {(status, code): n for status, code, n in rows}
        accepted = {send["correlator"] for send in rig.ledger()}
        unsettled = await rig.fetchval(
            "select count(*) from messages where status = 'FAILED' and id::text = any ($1)", list(accepted)
        )
        assert unsettled == 0, f"{unsettled} sends that the provider took and reported stayed doubtful"
        figures.note("outcomes", {f"{s} {c}".strip(): n for (s, c), n in outcomes.items()})
        figures.note("sends", len(load.asked))


async def test_D03_the_whole_of_postgres_is_killed(
    rig_of: RigOf, seed: int, figures: Figures, scaled: Scaled
) -> None:
    """SIGKILL to the postmaster and all its children at once, under load."""
    serving = 0.0
    async with rig_of(workers=2) as rig, under_load(rig, seed=seed, **l1(scaled)) as scene:
        assert scene.crowd is not None
        for _ in range(scaled(2, 5)):
            await asyncio.sleep(scaled(2.0, 12.0))
            began = time.monotonic()
            rig.postgres.kill()
            await asyncio.sleep(0.2)
            await rig.postgres.restart()
            serving = max(serving, await written_again(rig, scene.load, began))
        closes = sum((c.closes for c in scene.crowd.python), Counter())
    figures.within("serving again", serving, 10.0)
    figures.note("webhooks", dict(scene.load.webhook_answers))
    figures.note("API", dict(scene.load.api_answers))
    assert set(scene.load.webhook_answers) == {200}
    assert set(scene.load.api_answers) <= {200, 201, 409, 503}
    assert not closes, f"sockets were closed: {closes}"


async def test_D04_single_backends_are_killed(
    rig_of: RigOf, seed: int, figures: Figures, scaled: Scaled
) -> None:
    """SIGKILL to one backend, upon which PostgreSQL restarts all of them."""
    usable, rng = 0.0, random.Random(seed)
    async with rig_of(workers=2) as rig, under_load(rig, seed=seed, **l1(scaled)) as scene:
        for _ in range(scaled(3, 10)):
            await asyncio.sleep(scaled(1.5, 6.0))
            backends = await rig.fetch("select pid from pg_stat_activity where usename = 'hub_runtime'")
            began = time.monotonic()
            kill_process(rng.choice([pid for (pid,) in backends]))
            usable = max(usable, await written_again(rig, scene.load, began))
    figures.within("pools usable", usable, 3.0)
    figures.note("API", dict(scene.load.api_answers))
    assert set(scene.load.webhook_answers) == {200}
    assert set(scene.load.api_answers) <= {200, 201, 409, 503}


def kill_process(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


async def test_D05_valkey_dies_and_comes_back_empty(
    rig_of: RigOf, seed: int, figures: Figures, scaled: Scaled
) -> None:
    """SIGKILL to Valkey, a while without it, back with nothing in it."""
    without, push = 0.0, 0.0
    limit = 40
    async with (
        rig_of(workers=2, hub_env={"HUB_RATE_ADDRESS": str(limit)}) as rig,
        under_load(rig, seed=seed, **l1(scaled)) as scene,
    ):
        assert scene.crowd is not None
        for n in range(scaled(1, 3)):
            await asyncio.sleep(scaled(1.5, 5.0))
            rig.valkey.kill()
            began = time.time()
            if n == 0:
                assert await strangers_allowed(rig, limit + 20) == limit, "limits work in the process alone"
            await asyncio.sleep(max(0.0, began + scaled(4.0, 10.0) - time.time()))
            without = max(without, scene.crowd.delay_s(0.99, began, time.time()))
            await rig.valkey.restart()
            back = time.monotonic()
            await until(lambda: no_redis_away(rig), 30, "push by Redis")
            push = max(push, time.monotonic() - back)
    figures.within("p99 of events without Redis", without, 1.5)
    figures.within("push again", push, 3.0)
    assert set(scene.load.webhook_answers) == {200}
    assert set(scene.load.api_answers) <= {200, 201}


async def strangers_allowed(rig: Rig, tries: int) -> int:
    """How many of so many requests that belong to nobody the first hub answers with anything but 429."""
    allowed = 0
    for _ in range(tries):
        async with rig.http.post(f"{rig.hubs[0].url}/auth/v1/token?grant_type=none", json={}) as answer:
            allowed += answer.status != 429
    return allowed


async def no_redis_away(rig: Rig) -> bool:
    away = [await rig.metric(hub, "hub_redis_away") for hub in rig.hubs]
    return not any(away)


async def test_D06_a_writer_dies_between_commit_and_publication(
    rig_of: RigOf, seed: int, figures: Figures, scaled: Scaled
) -> None:
    """One hub dies at every twentieth publication; sessions are on the other."""
    rng = random.Random(seed)
    async with rig_of(workers=2) as rig:
        dying = rig.hubs[0]
        rig.keep_alive(dying, failpoints="publish.before=kill@0.05", rng=rng)
        await dying.restart("publish.before=kill@0.05")
        async with under_load(rig, seed=seed, hub=1, **l1(scaled)) as scene:
            await asyncio.sleep(scaled(8.0, 60.0))
        assert scene.crowd is not None
        assert dying.starts > 2, "the failpoint was never met"
        figures.note("deaths", dying.starts - 2)
        figures.within("longest from commit to screen", scene.crowd.delay_s(1.0), 1.5)


async def test_D07_a_worker_dies_before_it_can_note_the_answer(
    rig_of: RigOf, seed: int, figures: Figures, scaled: Scaled
) -> None:
    """Workers die after the provider's answer, before they settle. Where receipts come, these settle it;
    where none come it ends as ambiguous, or is sent once more if the account's owner chose `resend`."""
    messages = scaled(10, 200)
    failpoints = f"send.after_response=kill@{scaled(0.3, 0.2)}"
    async with rig_of(hubs=1, env={"HUB_SEND_UNKNOWN_WAIT_S": scaled("3", "8")}) as rig:
        ways = {"hold": rig.world.orgs[:7], "silent": rig.world.orgs[7:14], "resend": rig.world.orgs[14:]}
        for way, orgs in ways.items():
            for org in orgs:
                if way == "resend":
                    await rig.fetch(
                        "update channel_accounts set on_ambiguous = 'resend' where id = $1 returning id",
                        org.account_id,
                    )
                if way != "hold":
                    await rig.fault("drop_status", probability=1.0, account=org.phone_number_id)
        rig.keep_alive(*rig.workers, failpoints=failpoints, rng=random.Random(seed))
        await asyncio.gather(*(worker.restart(failpoints) for worker in rig.workers))
        asked: dict[str, str] = {}
        async with Load(rig, inbound=0, sends=0, seed=seed) as load:
            for way, orgs in ways.items():
                for n in range(messages):
                    org = orgs[n % len(orgs)]
                    customer = org.customers[n // len(orgs) % len(org.customers)]
                    asked[str(load.send(org, customer.conversation_id).client_ref)] = way
        began = time.monotonic()
        await drained(rig, load)
        took = time.monotonic() - began
        accepted = Counter(send["correlator"] for send in rig.ledger())
        rows = await rig.fetch(
            "select id::text, client_ref::text, status, failure_code from messages"
            " where client_ref is not null"
        )
        outcomes: dict[str, Counter[str]] = {way: Counter() for way in ways}
        for id, ref, status, code in rows:
            way = asked[ref]
            outcomes[way][f"{status} {code or ''}".strip()] += 1
            assert accepted[id] <= (2 if way == "resend" else 1), (
                f"{id} ({way}) was accepted {accepted[id]} times"
            )
            assert status != "FAILED" or code == "ambiguous"
            assert not (way == "hold" and status == "FAILED" and accepted[id]), (
                f"{id} was reported, and failed"
            )
        assert all(outcomes[way].total() == messages for way in ways), "none was silently forgotten"
        await hold(rig, load, accepts=2)
        figures.note("deaths", sum(worker.starts - 2 for worker in rig.workers))
        for way in ways:
            figures.note(way, dict(outcomes[way]))
        figures.note("accepted twice", sum(n > 1 for n in accepted.values()))
        figures.note("all terminal after", took)


async def test_D09_a_worker_stands_still_longer_than_its_lease(
    rig_of: RigOf, seed: int, figures: Figures, scaled: Scaled
) -> None:
    """SIGSTOP of workers for one and a half leases, at random moments and right after a send was noted as
    beginning."""
    rng = random.Random(seed)
    lease = scaled(2.0, 3.0)
    pauses = scaled(3, 20, 50)
    async with rig_of(hubs=1, env={"HUB_WORK_LEASE_S": str(lease)}) as rig:
        await rig.fault("slow", probability=0.5, params={"seconds": 0.3})
        hanging = rig.workers[0]
        await hanging.restart(f"send.after_sending_commit=hang:{lease * 1.5}@0.05,seed={seed}")
        async with Load(rig, inbound=0, sends=scaled(25, 40), seed=seed) as load:
            for _ in range(pauses):
                worker = rng.choice(rig.workers[1:])
                await asyncio.sleep(rng.uniform(0.2, 1.0))
                worker.pause()
                await asyncio.sleep(lease * 1.5)
                worker.resume()
        await drained(rig, load)
        await hold(rig, load)
        fenced = sum(
            worker.said(event)
            for worker in rig.workers
            for event in ("send.fenced", "send.lost", "work.lease_lost")
        )
        figures.note("fenced writes", fenced)
        figures.note("sends", len(load.asked))
        assert fenced, "no worker woke up without its lease"


async def test_D10_a_hub_stands_still_and_wakes_up(
    rig_of: RigOf, seed: int, figures: Figures, scaled: Scaled
) -> None:
    """SIGSTOP of a hub with half of the sessions on it; the balancer leaves it out; CONT."""
    stopped_s = scaled(6.0, 30.0)
    async with rig_of(workers=2) as rig:
        rig.watch_health()
        async with under_load(rig, seed=seed, **l1(scaled, sessions=scaled(8, 50))) as scene:
            assert scene.crowd is not None
            for client in scene.crowd.python:
                client.silence_s = scaled(3.0, 35.0)
            frozen = rig.hubs[0]
            sockets = await rig.metric(frozen, "hub_ws_sessions")
            frozen.pause()
            began = time.monotonic()
            await asyncio.sleep(stopped_s)
            if scaled(True, False):  # the web app gives a silent line 35 s, which is the full profile's
                frozen.resume()
                await scene.crowd.caught_up()
            else:
                await scene.crowd.caught_up(45)
                figures.within("sessions on the other hub", time.monotonic() - began, 40.0)
                frozen.resume()
        figures.note("sessions on the frozen hub", int(sockets))
        figures.note("webhooks", dict(scene.load.webhook_answers))
        figures.note("API", dict(scene.load.api_answers))


async def test_D11_valkey_stands_still(rig_of: RigOf, seed: int, figures: Figures, scaled: Scaled) -> None:
    """SIGSTOP of Valkey under load, then CONT: what it had swallowed comes late."""
    stopped_s = scaled(5.0, 20.0)
    async with rig_of(workers=2) as rig, under_load(rig, seed=seed, **l1(scaled)) as scene:
        assert scene.crowd is not None
        await asyncio.sleep(1.0)
        scene.load.slowest_ack_s = scene.load.slowest_api_s = 0.0
        rig.valkey.pause()
        began = time.time()
        await asyncio.sleep(stopped_s)
        rig.valkey.resume()
        late = scene.crowd.delay_s(0.99, began + min(12.0, stopped_s - 2.0))
        await asyncio.sleep(1.0)
        figures.within("slowest request", max(scene.load.slowest_ack_s, scene.load.slowest_api_s), 1.0)
        figures.within("p99 of events meanwhile", late, 1.5)
    assert set(scene.load.webhook_answers) == {200}
    assert set(scene.load.api_answers) <= {200, 201}


async def test_D12_postgres_stands_still(rig_of: RigOf, seed: int, figures: Figures, scaled: Scaled) -> None:
    """SIGSTOP of all PostgreSQL processes under load, then CONT."""
    async with rig_of(workers=2) as rig, under_load(rig, seed=seed, **l1(scaled)) as scene:
        await asyncio.sleep(1.0)
        rig.postgres.pause()
        await asyncio.sleep(scaled(8.0, 20.0))
        rig.postgres.resume()
        normal = await written_again(rig, scene.load, time.monotonic())
        figures.within("normal after CONT", normal, 5.0)
        figures.within("slowest webhook", scene.load.slowest_ack_s, 5.0)
        figures.within("slowest API request", scene.load.slowest_api_s, 5.0)
        figures.note("API", dict(scene.load.api_answers))
    assert set(scene.load.webhook_answers) == {200}
    assert set(scene.load.api_answers) <= {200, 201, 409, 503}


async def test_D15_postgres_is_away_and_the_provider_never_repeats(
    rig_of: RigOf, seed: int, figures: Figures, scaled: Scaled
) -> None:
    """PostgreSQL stopped under load, with a provider that posts everything once; the hub that spools is
    killed twice, and finds a torn and a flipped record at the end of its file."""
    away_s = scaled(6.0, 30.0)
    async with rig_of(hubs=1, workers=1) as rig:
        [hub] = rig.hubs
        async with under_load(rig, seed=seed, **l1(scaled), repeats=False, errors={"spool.damaged"}) as scene:
            await asyncio.sleep(1.0)
            rig.postgres.kill()
            for kind in ("torn", "flipped"):
                await asyncio.sleep(away_s / 3)
                hub.kill()
                damage_tail(rig, hub, kind)
                hub.spawn()
                await until(lambda: hub_listens(rig), 10, "the hub to listen again")
            await asyncio.sleep(away_s / 3)
            held = sum(rig.spools().values())
            await rig.postgres.restart()
        load = scene.load
        figures.note("spooled bytes", held)
        figures.note("webhooks", dict(load.webhook_answers))
        answers = {a for a in load.webhook_answers if isinstance(a, int)}
        assert answers == {200}, f"a hub that lives takes everything: {load.webhook_answers}"
        assert held > 0
        late = await rig.fetch(
            "select provider_message_id from (select provider_message_id, occurred_at,"
            " max(occurred_at) over (partition by organization_id, conversation_id order by conv_seq"
            " rows between unbounded preceding and 1 preceding) as before from messages"
            " where direction = 'INBOUND') m where occurred_at < before - interval '1 second'"
        )
        figures.note("out of provider order", len(late))


async def hub_listens(rig: Rig) -> bool:
    try:
        async with rig.http.get(f"{rig.hubs[0].url}/healthz") as answer:
            return answer.status == 200
    except (aiohttp.ClientError, OSError, TimeoutError):
        return False


def damage_tail(rig: Rig, hub: Proc, kind: str) -> None:
    """What a dying disk may leave behind the last acknowledged record: half of one, or one with a bit
    flipped. Both are copies of an earlier record, so neither was ever acknowledged as such."""
    files = sorted(Path(hub.env["HUB_DATA_DIR"]).glob("spool/*.spool"), key=lambda p: p.stat().st_mtime)
    assert files, "nothing was spooled"
    data = files[-1].read_bytes()
    starts = [n for n in range(len(data)) if data[n : n + 4] == b"HSP1"]
    record = bytearray(data[starts[-1] :])
    if kind == "torn":
        record = record[: len(record) // 2]
    else:
        record[len(record) // 2] ^= 0x10
    with files[-1].open("ab") as out:
        out.write(record)


async def test_D16_the_connection_dies_at_the_commit(
    rig_of: RigOf, seed: int, figures: Figures, scaled: Scaled
) -> None:
    """A proxy lets COMMIT (or the statement that is its own transaction) pass or not, and resets the
    connection before the answer."""
    rng = random.Random(seed)
    async with rig_of(workers=2, behind={"postgres"}) as rig:
        created: Counter[int] = Counter()
        async with under_load(rig, seed=seed, **l1(scaled, inbound=40, sends=20)) as scene:
            proxy = rig.proxies["postgres"]
            org, n, cuts = rig.world.orgs[1], 0, 0
            for pattern, times in (
                (rb"commit\x00", scaled(40, 500)),
                (rb"wamid\.rig", scaled(20, 500)),
                (rb'"outcome":', scaled(10, 200)),
            ):
                cuts += times
                proxy.cut = Cut(pattern, delivered=None, left=times, chance=0.3, rng=rng)
                while proxy.cuts < cuts:
                    n += 1
                    async with rig.http.post(
                        f"{rig.front_url}/rest/v1/contacts",
                        json={"first_name": f"Unkeyed {n}"},
                        headers={"Authorization": f"Bearer {org.api_key}"},
                    ) as answer:
                        await answer.read()
                        created[answer.status] += 1
            proxy.cut = None
        rows = await rig.fetchval("select count(*) from contacts where first_name like 'Unkeyed %'")
        asked = Counter(
            str(line["outcome"])
            for hub in rig.hubs
            for line in hub.lines()
            if line["event"] == "commit.asked"
        )
        figures.note("cuts", proxy.cuts)
        figures.note("commits asked about", dict(asked))
        figures.note("POST without a key", dict(created))
        figures.note("API", dict(scene.load.api_answers))
        assert asked["committed"], "no commit was asked about"
        assert set(created) <= {201, 503}
        assert rows == created[201], "each caller got the true outcome"


async def test_D17_everything_is_deployed_anew_under_load(
    rig_of: RigOf, seed: int, figures: Figures, scaled: Scaled
) -> None:
    """Rolling SIGTERM of hubs and workers through the balancer."""
    hub_s, worker_s, crowded = 0.0, 0.0, 0.0
    async with rig_of(workers=scaled(1, 3)) as rig:
        rig.watch_health()
        async with under_load(rig, seed=seed, **l1(scaled, sessions=scaled(24, 50))) as scene:
            assert scene.crowd is not None
            clients = scene.crowd.python
            for _ in range(scaled(1, 5)):
                for hub in rig.hubs:
                    began = time.monotonic()
                    hub_s = max(hub_s, await hub.stop())
                    await hub.restart()
                    await until(lambda: all(c.is_live.is_set() for c in clients), 20, "the sessions' return")
                    back = [at for c in clients for at in c.came_back_at if at >= began]
                    if len(back) >= 5:
                        busiest = max(sum(a <= b < a + 1 for b in back) for a in back)
                        crowded = max(crowded, busiest / len(back))
                for worker in rig.workers:
                    worker_s = max(worker_s, await worker.stop())
                    await worker.restart()
        figures.within("hub gone", hub_s, 15.0)
        figures.within("worker gone", worker_s, 30.0)
        figures.note("busiest second of reconnects", f"{crowded:.0%}")
        figures.note("webhooks", dict(scene.load.webhook_answers))
        figures.note("API", dict(scene.load.api_answers))
        assert set(scene.load.webhook_answers) == {200}
        assert set(scene.load.api_answers) <= {200, 201}


async def test_D18_everything_is_killed_at_once(
    rig_of: RigOf, seed: int, figures: Figures, scaled: Scaled
) -> None:
    """kill -9 of hubs, workers, PostgreSQL and Valkey in one moment, under load."""
    ready = 0.0
    async with rig_of(workers=2) as rig, under_load(rig, seed=seed, **l1(scaled)) as scene:
        for _ in range(scaled(1, 10)):
            await asyncio.sleep(scaled(2.0, 6.0))
            for proc in rig.procs:
                proc.send_signal(9)
            rig.postgres.kill()
            rig.valkey.kill()
            for proc in rig.procs:
                proc.kill()
            began = time.monotonic()
            await asyncio.gather(rig.postgres.restart(), rig.valkey.restart())
            for proc in rig.procs:
                proc.spawn()
            await asyncio.gather(*(proc.ready() for proc in rig.procs))
            ready = max(ready, time.monotonic() - began)
        figures.within("ready", ready, 15.0)
        figures.note("webhooks", {str(a): n for a, n in scene.load.webhook_answers.items()})


async def test_D08_failpoints_one_after_the_other(
    rig_of: RigOf, seed: int, figures: Figures, scaled: Scaled
) -> None:
    """Each failpoint with kill, raise and hang under a small load (in the suite: a few of them, drawn)."""
    rng = random.Random(seed)
    hang_s = scaled(1.0, 5.0)
    all_of_them = [
        (name, action)
        for name in failpoints_of("hub", "workers")
        if not name.startswith("migrate.")
        for action in ("kill", "raise", f"hang:{hang_s}")
    ]
    chosen = scaled(rng.sample(all_of_them, 2), rng.sample(all_of_them, 24), all_of_them * 20)
    met: Counter[str] = Counter()
    async with rig_of(workers=2) as rig, Crowd(rig, 4, seed=seed) as crowd:
        for n, (name, action) in enumerate(chosen):
            chance = rng.choice((0.1, 0.3, 1.0)) if action == "kill" else 0.5
            spec = f"{name}={action}@{chance},seed={rng.randrange(1 << 30)}"
            is_workers = name.split(".")[0] in ("claim", "send", "job")
            victim = rng.choice(rig.workers if is_workers else rig.hubs)
            starts = victim.starts
            victim.kill()
            victim.spawn(spec)  # it may die before it is ready
            load = Load(rig, inbound=12, sends=12, seed=seed + n)
            keeper = rig.keep_alive(victim)
            async with load:
                await asyncio.sleep(0.7)
                if name.startswith("spool."):
                    rig.postgres.kill()
                    await asyncio.sleep(0.5)
                    await rig.postgres.restart()
                if name.startswith("live."):
                    for client in crowd.python:
                        client.cut()
                await asyncio.sleep(0.8)
                keeper.cancel()
                victim.is_kept = False
                await victim.restart()
            if victim.starts - starts > 2:
                met[action.split(":")[0]] += 1
            await drained(rig, load)
            # what met a bug is kept, and goes through at the workers' second look
            await until(lambda: none_is_kept(rig), 60, "kept webhooks to be applied")
            await drained(rig, load)
            try:
                await hold(rig, load, crowd, allow_500=action == "raise")
            except AssertionError as error:
                raise AssertionError(f"after {spec} in {victim.name}: {error}") from error
    figures.note("combinations", len(chosen))
    figures.note("deaths by", dict(met))


async def none_is_kept(rig: Rig) -> bool:
    return not await rig.fetchval("select count(*) from app.webhook_failures")


def failpoints_of(*packages: str) -> list[str]:
    """The names in the source, in order."""
    return sorted(
        {
            name
            for package in packages
            for path in (ROOT / package).rglob("*.py")
            for name in re.findall(r"failpoint[(,]\s*\"([a-z]+\.[a-z_0-9]+)\"\)", path.read_text())
        }
    )


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 512 MiB of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512m,mode=755", "hub-fault", str(place)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"D-13 needs to mount a small disk; run it as root: {done.stderr.strip()}")
    tmp_path.chmod(0o755)
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(place: Path, leave_bytes: int) -> Path:
    """Use up the disk but for so much."""
    file = place / "filling"
    with file.open("ab") as out:
        step = shutil.disk_usage(place).free - leave_bytes
        if step > 0:
            with contextlib.suppress(OSError):  # somebody else was faster
                os.posix_fallocate(out.fileno(), out.tell(), step)
    return file


@pytest.mark.nightly
@pytest.mark.parametrize("by", ["others", "log"])
@pytest.mark.parametrize("guard", ["on", "off"])
async def test_D13_the_disk_fills_up(
    rig_of: RigOf, seed: int, figures: Figures, small_disk: Path, guard: str, by: str
) -> None:
    """PostgreSQL's data on a disk of 512 MiB that is filled by others, or by its own log; room again after
    30 s. Without the guard it PANICs."""
    env = {}
    if guard == "off":
        probe = small_disk / "probe"
        probe.write_text(str(2 << 30))
        env = {"HUB_DISK_PROBE": str(probe)}
    async with rig_of(hubs=1, workers=1, place=small_disk, together=True, env=env) as rig:
        panics = rig.logs / "postgres.log"
        held = small_disk / "filling"
        async with under_load(
            rig, seed=seed, inbound=20, sends=4, sessions=4, errors={"disk.full", "spool.unwritable"}
        ) as scene:
            await asyncio.sleep(2)
            if by == "others":
                fill(small_disk, 150 << 20)
                await asyncio.sleep(3)
                fill(small_disk, 6 << 20)  # logs can be written, a segment of PostgreSQL's log cannot
            else:
                # what the operator deletes in the end
                fill(small_disk, shutil.disk_usage(small_disk).free - (160 << 20))
            if by == "log" or guard == "off":
                await write_log_until(rig, lambda: is_full(rig, panics), 10 if guard == "on" else 100)
            if guard == "off":
                await until(lambda: "PANIC" in panics.read_text(), 60, "the PANIC without a guard")
            await asyncio.sleep(30)
            if guard == "on":
                assert "PANIC" not in panics.read_text()
            held.unlink()
            began = time.monotonic()
            if rig.postgres.pid is None:
                await rig.postgres.restart()
            serving = await written_again(rig, scene.load, began)
        figures.within("serving after room", serving, 60.0)
        figures.note("PANIC", "PANIC" in panics.read_text())
        figures.note("webhooks", {str(a): n for a, n in scene.load.webhook_answers.items()})
        figures.note("API", {str(a): n for a, n in scene.load.api_answers.items()})


async def is_full(rig: Rig, panics: Path) -> bool:
    text = await asyncio.to_thread(panics.read_text)
    return rig.hubs[0].said("disk.full") > 0 or "PANIC" in text


async def write_log_until(rig: Rig, done: Callable[[], Any], per_s: float) -> None:
    """So many megabytes a second of PostgreSQL's log, for a minute at most."""
    deadline = time.monotonic() + 60
    while not await done() and time.monotonic() < deadline:
        with contextlib.suppress(OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            await rig.fetch("select pg_logical_emit_message(false, 'x', repeat('x', 1000000))")
        await asyncio.sleep(1 / per_s)


async def test_D14_the_free_space_falls_and_rises(
    rig_of: RigOf, seed: int, figures: Figures, scaled: Scaled, tmp_path: Path
) -> None:
    """The probe says 2 GiB, 900 MiB, 50 MiB and 2 GiB again, under load."""
    probe = tmp_path / "free"
    probe.write_text(str(2 << 30))
    async with rig_of(workers=1, env={"HUB_DISK_PROBE": str(probe)}) as rig:
        org = rig.world.orgs[2]

        def told(level: str) -> int:
            return sum(proc.said(f"disk.{level}") for proc in rig.procs)

        async with under_load(rig, seed=seed, **l1(scaled), errors={"disk.full"}) as scene:
            assert await upload(rig) == 200
            probe.write_text(str(900 << 20))
            await until(lambda: told("low") == 3, what="everybody to see that it is low")
            assert await upload(rig) == 503
            before = time.monotonic()
            await written_again(rig, scene.load, before)
            probe.write_text(str(50 << 20))
            await until(lambda: told("full") == 3, what="everybody to see that it is full")
            assert await write(rig, org.api_key) == 503
            assert await read(rig, org.api_key) == 200
            assert await scene.load.post(scene.load.say(org).body) == 503
            await asyncio.sleep(1.0)
            sent = len(rig.ledger())
            await asyncio.sleep(1.0)
            assert len(rig.ledger()) == sent, "no worker sends what it could not note"
            probe.write_text(str(2 << 30))
            began = time.monotonic()
            figures.within("writing again", await written_again(rig, scene.load, began), 10.0)
            await until(lambda: told("ok") == 3, what="everybody to see that there is room")
            assert await upload(rig) == 200
        assert [told(level) for level in ("low", "full", "ok")] == [3, 3, 3], "once a process and change"
        figures.note("API", dict(scene.load.api_answers))
        figures.note("webhooks", dict(scene.load.webhook_answers))


async def upload(rig: Rig, size: int = 1000) -> int:
    form = aiohttp.FormData()
    data = io.BytesIO(b"%PDF-1.4 " + b"x" * size)
    form.add_field("file", data, filename="a.pdf", content_type="application/pdf")
    async with rig.http.post(
        f"{rig.hubs[0].url}/functions/v1/upload-media",
        data=form,
        headers={"Authorization": f"Bearer {rig.world.orgs[2].api_key}"},
    ) as answer:
        await answer.read()
        return answer.status


async def write(rig: Rig, key: str) -> int:
    async with rig.http.post(
        f"{rig.front_url}/rest/v1/contacts",
        json={"first_name": "Full"},
        headers={"Authorization": f"Bearer {key}"},
    ) as answer:
        return answer.status


async def read(rig: Rig, key: str) -> int:
    async with rig.http.get(
        f"{rig.front_url}/rest/v1/contacts?limit=1", headers={"Authorization": f"Bearer {key}"}
    ) as answer:
        return answer.status


async def test_D20_a_hub_with_little_memory(
    rig_of: RigOf, seed: int, figures: Figures, scaled: Scaled
) -> None:
    """A hub that may have 384 MiB of data: large uploads at once, readers that read nothing, many
    sessions."""
    uploads, stalled, sessions = scaled(8, 20), scaled(20, 50), scaled(40, 200)
    async with rig_of(workers=1) as rig:
        hub = rig.hubs[0]
        assert hub.pid is not None
        resource.prlimit(hub.pid, resource.RLIMIT_DATA, (384 << 20, 384 << 20))
        rig.keep_alive(hub)
        async with under_load(
            rig, seed=seed, **l1(scaled, sessions=sessions), errors={"request.failed"}
        ) as scene:
            sleepers = [await stalled_reader(rig, hub, n) for n in range(stalled)]
            answers = Counter(await asyncio.gather(*(upload_or_end(rig, 24 << 20) for _ in range(uploads))))
            await asyncio.sleep(scaled(2.0, 20.0))
            for writer in sleepers:
                writer.transport.abort()
            peak = hub.rss_kb(peak=True) / 1024
        figures.note("uploads", {str(a): n for a, n in answers.items()})
        figures.note("deaths", hub.starts - 1)
        figures.within("peak RSS", peak, 384.0, "MiB")
        figures.note("webhooks", {str(a): n for a, n in scene.load.webhook_answers.items()})
        assert {a for a in answers if isinstance(a, int)} <= {200, 413, 503}


async def upload_or_end(rig: Rig, size: int) -> int | str:
    try:
        return await upload(rig, size)
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        return type(error).__name__


async def stalled_reader(rig: Rig, hub: Proc, n: int) -> asyncio.StreamWriter:
    """A session that says hello and never reads again."""
    org = rig.world.orgs[0]
    reader, writer = await asyncio.open_connection("127.0.0.1", int(hub.url.rsplit(":", 1)[1]), limit=1024)
    writer.write(
        b"GET /ws HTTP/1.1\r\nHost: hub\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MTIzNDU2Nzg5MDEyMzQ1Ng==\r\n\r\n"
    )
    await reader.readuntil(b"\r\n\r\n")
    hello = json.dumps(
        {"type": "hello", "token": org.api_key, "cursor": None, "client": f"stalled/{n}"}
    ).encode()
    writer.write(b"\x81" + bytes([0x80 | 126]) + len(hello).to_bytes(2, "big") + b"\0\0\0\0" + hello)
    await writer.drain()
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    return writer
