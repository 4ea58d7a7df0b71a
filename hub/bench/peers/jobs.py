"""Our own queues with jobs that do nothing: the jobs table under set-based claims, and the outbox through the
functions that the workers call.

{"dsn", "owner", "mode": "jobs" or "outbox", "jobs", "batch", "connections"} → one JSON line, see
hub/bench/queues.py.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import uvloop

#: In the caller's transaction, all at once.
ENQUEUE = """
insert into app.jobs (organization_id, kind, payload)
select o, 'bench', '{"nothing": "to do"}' from unnest($1::uuid[]) o
"""
#: Delete the last batch ($1, $2, held under $3) and claim the next, up to $4 of $5 an organization, under $6:
#: one statement, one commit. Organization by organization, each by its own end of the index. The deletion
#: comes first: a claim may lock a row that somebody else holds (its snapshot still shows it available), and
#: two that claim before they delete would wait for each other.
FUSED = """
with recursive done as (
  delete from app.jobs j using unnest($1::uuid[], $2::uuid[]) d (organization_id, id)
   where j.organization_id = d.organization_id and j.id = d.id and j.lease_token = $3 and j.state = 'running'
  returning 1
), org as (
  (select j.organization_id as id from app.jobs j
    where j.kind = 'bench' and j.state = 'available' and (select count(*) from done) >= 0 order by 1 limit 1)
  union all
  select n.id from org o cross join lateral (
    select j.organization_id as id from app.jobs j
     where j.kind = 'bench' and j.state = 'available' and j.organization_id > o.id order by 1 limit 1) n
), ready as (
  select r.organization_id, r.id from org o cross join lateral (
    select j.organization_id, j.id from app.jobs j
     where j.kind = 'bench' and j.state = 'available' and j.organization_id = o.id
       and j.due_at <= clock_timestamp()
     order by j.due_at, j.id limit $5 for update skip locked) r
   limit $4
)
update app.jobs j
   set state = 'running', lease_token = $6, lease_until = clock_timestamp() + interval '30 seconds',
       claimed_by = 'bench', attempts = j.attempts + 1
  from ready r where j.organization_id = r.organization_id and j.id = r.id
returning j.organization_id, j.id, j.payload
"""
#: Statistics of a queue are always wrong. Without this the planner takes an index without the claim's order
#: as long as nobody has analyzed the table, and every claim reads and sorts all that is pending.
PINNED = {"plan_cache_mode": "force_generic_plan", "enable_sort": "off", "enable_hashjoin": "off"}
ORGS = "select array_agg(id order by id) from public.organizations"


async def enqueue_jobs(owner: asyncpg.Connection[asyncpg.Record], jobs: int) -> None:
    orgs: list[UUID] = await owner.fetchval(ORGS)
    for first in range(0, jobs, 5000):
        size = min(5000, jobs - first)
        await owner.execute(ENQUEUE, [orgs[n % len(orgs)] for n in range(first, first + size)])


async def drain_jobs(conn: asyncpg.Connection[asyncpg.Record], batch: int, orgs: int) -> int:
    done = 0
    token = uuid4()
    held_orgs: list[UUID] = []
    held_ids: list[UUID] = []
    while True:
        next_token = uuid4()
        rows = await conn.fetch(
            FUSED, held_orgs, held_ids, token, batch, max(1, batch // orgs), next_token
        )  # fmt: skip
        done += len(held_ids)
        token, held_orgs, held_ids = next_token, [r[0] for r in rows], [r[1] for r in rows]
        if not rows:
            return done


async def enqueue_sends(owner: asyncpg.Connection[asyncpg.Record], jobs: int) -> None:
    """Messages to send, each in a conversation of its own, over all organizations."""
    conversations = await owner.fetch(
        "select organization_id, id from public.conversations order by id limit $1", jobs
    )
    for first in range(0, len(conversations), 500):
        part = conversations[first : first + 500]
        await owner.execute(
            "insert into public.messages"
            " (organization_id, conversation_id, direction, content, status, source, conv_seq)"
            " select o, c, 'OUTBOUND', 'Nothing to say', 'PENDING', 'agent', 0"
            " from unnest($1::uuid[], $2::uuid[]) x (o, c)",
            [r[0] for r in part],
            [r[1] for r in part],
        )


async def make_conversations(owner: asyncpg.Connection[asyncpg.Record], jobs: int) -> None:
    missing = jobs - await owner.fetchval("select count(*) from public.conversations")
    if missing > 0:
        await owner.execute(
            """
            with person as (
              insert into public.contacts (organization_id, first_name)
              select o.id, 'Someone' from public.organizations o
               cross join generate_series(1, $1 / (select count(*) from public.organizations) + 1)
              returning organization_id, id
            )
            insert into public.conversations (organization_id, contact_id, channel_account_id)
            select p.organization_id, p.id, (select a.id from public.channel_accounts a
                                              where a.organization_id = p.organization_id limit 1)
              from person p
            """,
            missing,
        )


async def drain_sends(conn: asyncpg.Connection[asyncpg.Record], batch: int) -> int:
    done, lease, margin = 0, timedelta(seconds=30), timedelta(seconds=5)
    while True:
        token = uuid4()
        rows = await conn.fetch(
            "select message_id from app.claim_sends($1, 'bench', $2, $3) where message_id is not null",
            token, batch, lease,
        )  # fmt: skip
        if not rows:
            if await conn.fetchval("select coalesce(sum(rows), 0) from app.outbox_depth()") == 0:
                return done
            continue
        ids = [row[0] for row in rows]
        marked = await conn.fetch("select * from app.mark_sending($1, $2, $3)", token, ids, margin)
        results = [
            {"message_id": str(r[0]), "outcome": "accepted", "provider_message_id": f"wamid.{r[0]}"}
            for r in marked
        ]
        done += len(await conn.fetch("select * from app.settle_sends($1, $2)", token, json.dumps(results)))


async def main() -> None:
    options: dict[str, Any] = json.loads(sys.argv[1])
    jobs, batch = options["jobs"], options["batch"]
    owner = await asyncpg.connect(options["owner"])
    sends = options["mode"] == "outbox"
    # the jobs table has no function that drains it without doing a job's work, so these rows run as its owner
    where = options["dsn"] if sends else options["owner"]
    conns = [await asyncpg.connect(where, server_settings=PINNED) for _ in range(options["connections"])]
    if sends:
        await make_conversations(owner, jobs)
    began = time.perf_counter()
    await (enqueue_sends if sends else enqueue_jobs)(owner, jobs)
    enqueued = time.perf_counter()
    orgs = len(await owner.fetchval(ORGS))
    counts = await asyncio.gather(
        *(drain_sends(c, batch) if sends else drain_jobs(c, batch, orgs) for c in conns)
    )
    ended = time.perf_counter()
    usage = resource.getrusage(resource.RUSAGE_SELF)
    for conn in (owner, *conns):
        await conn.close()
    print(
        json.dumps(
            {
                "jobs": jobs,
                "done": sum(counts),
                "enqueue_s": enqueued - began,
                "drain_s": ended - enqueued,
                "cpu_s": usage.ru_utime + usage.ru_stime,
            }
        )
    )


if __name__ == "__main__":
    uvloop.run(main())
