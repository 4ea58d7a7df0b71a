"""Family D: death, pauses, disks (guarantees 0, 4, 8, 11, 13)."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.factories import until
from tests.fakes.proxy import Cut
from tests.fault.conftest import Figures
from tests.fault.invariants import drained, hold, under_load
from tests.fault.load import Load
from tests.fault.rig import Proc, Rig

pytestmark = pytest.mark.fault
RigOf = Callable[..., Rig]
Scaled = Callable[[Any, Any], Any]


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
        async with Load(rig, inbound=0, sends=rate, seed=seed) as load:
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
        for n in range(scaled(2, 3)):
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


@pytest.mark.parametrize("choice", ["hold", "silent", "resend"])
async def test_D07_a_worker_dies_before_it_can_note_the_answer(
    rig_of: RigOf, seed: int, figures: Figures, scaled: Scaled, choice: str
) -> None:
    """Workers die after the provider's answer, before they settle: its receipts settle it. `silent`: without
    receipts it ends as ambiguous; `resend`: once more, as the account's owner chose."""
    messages = scaled(24, 200)
    failpoints = f"send.after_response=kill@{scaled(0.3, 0.2)}"
    async with rig_of(hubs=1) as rig:
        if choice == "resend":
            await rig.fetch("update channel_accounts set on_ambiguous = 'resend' returning id")
        if choice != "hold":
            await rig.fault("drop_status", probability=1.0)
        rig.keep_alive(*rig.workers, failpoints=failpoints, rng=random.Random(seed))
        await asyncio.gather(*(worker.restart(failpoints) for worker in rig.workers))
        load = Load(rig, inbound=0, sends=0, seed=seed)
        async with load:
            for n in range(messages):
                org = rig.world.orgs[n % len(rig.world.orgs)]
                load.send(org, org.customers[n // len(rig.world.orgs) % len(org.customers)].conversation_id)
        began = time.monotonic()
        await drained(rig, load)
        took = time.monotonic() - began
        await hold(rig, load, accepts=2 if choice == "resend" else 1)
        accepted = Counter(send["correlator"] for send in rig.ledger())
        rows = await rig.fetch(
            "select id::text, status, failure_code from messages where client_ref is not null"
        )
        outcomes = Counter(f"{status} {code or ''}".strip() for _, status, code in rows)
        assert sum(outcomes.values()) == messages, "none was silently forgotten"
        if choice == "hold":
            assert all(accepted[id] == 1 and status != "FAILED" for id, status, _ in rows)
        else:
            assert all(code == "ambiguous" for _, status, code in rows if status == "FAILED")
        figures.note("deaths", sum(worker.starts - 2 for worker in rig.workers))
        figures.note("outcomes", dict(outcomes))
        figures.note("accepted twice", sum(n > 1 for n in accepted.values()))
        figures.note("all terminal after", took)


async def test_D09_a_worker_stands_still_longer_than_its_lease(
    rig_of: RigOf, seed: int, figures: Figures, scaled: Scaled
) -> None:
    """SIGSTOP of workers for one and a half leases, at random moments and right after a send was noted as
    beginning."""
    rng = random.Random(seed)
    lease = 3.0
    pauses = scaled(3, 50)
    async with rig_of(hubs=1) as rig:
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
    """SIGSTOP of a hub with half of the sessions on it; the balancer leaves it out after a second; CONT."""
    stopped_s = scaled(6.0, 30.0)
    async with rig_of(workers=2) as rig:
        async with under_load(rig, seed=seed, **l1(scaled, sessions=scaled(8, 50))) as scene:
            assert scene.crowd is not None
            for client in scene.crowd.python:
                client.silence_s = scaled(3.0, 35.0)
            frozen = rig.hubs[0]
            sockets = await rig.metric(frozen, "hub_ws_sessions")
            frozen.pause()
            began = time.monotonic()
            await asyncio.sleep(1.0)
            target = rig.front.targets.pop(0)
            await asyncio.sleep(stopped_s - 1.0)
            if scaled(True, False):  # the web app gives a silent line 35 s, which is the full profile's
                frozen.resume()
                await scene.crowd.caught_up()
            else:
                await scene.crowd.caught_up(45)
                figures.within("sessions on the other hub", time.monotonic() - began, 40.0)
                frozen.resume()
            rig.front.targets.insert(0, target)
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
    cuts = scaled(60, 500)
    rng = random.Random(seed)
    async with rig_of(workers=2, behind={"postgres"}) as rig:
        created: Counter[int] = Counter()
        async with under_load(rig, seed=seed, **l1(scaled, inbound=40, sends=20)) as scene:
            proxy = rig.proxies["postgres"]
            proxy.cut = Cut(
                rb'commit\x00|wamid\.rig|"outcome":', delivered=None, left=cuts, chance=0.2, rng=rng
            )
            org, n = rig.world.orgs[1], 0
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
        asked = sum(hub.said("commit.asked") for hub in rig.hubs)
        figures.note("cuts", proxy.cuts)
        figures.note("commits asked for and found", asked)
        figures.note("POST without a key", dict(created))
        figures.note("API", dict(scene.load.api_answers))
        assert asked, "no commit was asked about"
        assert set(created) <= {201, 503}
        assert rows == created[201], "each caller got the true outcome"


async def test_D17_everything_is_deployed_anew_under_load(
    rig_of: RigOf, seed: int, figures: Figures, scaled: Scaled
) -> None:
    """Rolling SIGTERM of hubs and workers through the balancer."""
    hub_s, worker_s, crowded = 0.0, 0.0, 0.0
    async with rig_of(workers=scaled(2, 3)) as rig:
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
        for _ in range(scaled(2, 10)):
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
