"""I1 to I12 of the fault tests: what holds after every fault, once the queues have drained.

await drained(rig, load)
await hold(rig, load, crowd)        # raises AssertionError with everything that does not
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg

from tests.factories import until
from tests.fault.clients import Crowd
from tests.fault.load import Load
from tests.fault.rig import Rig
from tests.fault.world import SECRETS

DRAIN_S = 120.0
#: What a process logs as an error although a test brought it about.
_EXPECTED_ERRORS: frozenset[str] = frozenset()
#: Codes of a FAILED message that leave open whether the provider took it.
DOUBTFUL = ("ambiguous",)
_WORK_TABLES = ("outbox", "webhook_queue", "rule_queue", "timers", "jobs", "webhook_failures", "mail_outbox")
_POOLS = {"hub": 6 + 8 + 8 + 2 + 1, "worker": 8 + 6}


class Scene:
    """What goes on while a test breaks things."""

    def __init__(self, rig: Rig, load: Load, crowd: Crowd | None) -> None:
        self.rig, self.load, self.crowd = rig, load, crowd


@asynccontextmanager
async def under_load(
    rig: Rig,
    *,
    inbound: float = 30.0,
    sends: float = 6.0,
    sessions: int = 8,
    seed: int = 1,
    hub: int | None = None,
    drain_s: float = DRAIN_S,
    accepts: int = 1,
    errors: Collection[str] = (),
    dead: int = 0,
    **load: Any,
) -> AsyncIterator[Scene]:
    """Load and live sessions for as long as the block lasts; then the queues drain, and the invariants hold
    (`hold` has `accepts`, `errors`, `dead`). `hub`: all sessions on this one. `load`: more options of Load.
    """
    async with AsyncExitStack() as stack:
        crowd = (
            await stack.enter_async_context(Crowd(rig, sessions, seed=seed, hub=hub)) if sessions else None
        )
        running = Load(rig, inbound=inbound, sends=sends, seed=seed, **load)
        async with running:
            yield Scene(rig, running, crowd)
        await drained(rig, running, drain_s)
        await hold(rig, running, crowd, accepts=accepts, errors=errors, dead=dead)


async def drained(rig: Rig, load: Load | None = None, timeout_s: float = DRAIN_S) -> None:
    """Until nothing is on its way: webhooks answered, receipts sent, outbox and spools empty."""
    waiting: list[str] = []

    async def is_drained() -> bool:
        waiting.clear()
        # in the order of the way: what left one place is in the next
        try:
            rows = await rig.fetch(
                "select 'outbox ' || state as what, count(*) from app.outbox group by state"
                " union all select 'messages PENDING', count(*) from messages where status = 'PENDING'"
                " having count(*) > 0"
            )
        except (OSError, asyncpg.PostgresError, TimeoutError) as error:
            waiting.append(f"postgres: {type(error).__name__}")
        else:
            waiting.extend(f"{what}: {n}" for what, n in rows)
        provider = await rig.ctl("GET", "/state")
        if provider["pending"] or provider["timers"]:
            waiting.append(f"provider: {provider['pending']} webhooks, {provider['timers']} receipts")
        if spools := rig.spools():
            waiting.append(f"spools: {spools}")
        return not waiting

    try:
        await until(is_drained, timeout_s)
    except TimeoutError as error:
        raise AssertionError(f"Not drained after {timeout_s:g} s: {waiting}") from error


async def hold(
    rig: Rig,
    load: Load | None = None,
    crowd: Crowd | None = None,
    *,
    accepts: int = 1,
    errors: Collection[str] = (),
    dead: int = 0,
    allow_500: bool = False,
) -> None:
    """Raise AssertionError naming every invariant that is broken.

    `accepts`: sends of one message that the provider may have accepted (2 where an account says `resend`).
    `errors`: events that processes may have logged as errors. `dead`: work rows that may be dead.
    `allow_500`: a failpoint raised in a handler."""
    if crowd is not None:
        await crowd.caught_up(idle=True)
    conn = await rig.connect()
    try:
        wrong = [
            *(await deliveries_are_rows(conn, load) if load is not None else []),
            *await the_log_is_complete(conn),
            *(await crowd.compare() if crowd is not None else []),
            *await the_ledger_agrees(conn, rig, accepts),
            *await sends_are_in_order(conn, rig),
            *await consumers_are_at_the_head(conn),
            *await no_work_is_stuck(conn, dead),
            *texts_stay_at_home(await conn.fetch(_TEXTS)),
        ]
    finally:
        await conn.close()
    wrong += secrets_stay_hidden(rig)
    wrong += await nothing_leaks(rig)
    wrong += no_internal_errors(rig, load, errors, allow_500)
    assert not wrong, "\n".join(["Invariants that do not hold:", *wrong[:40]])


async def deliveries_are_rows(conn: asyncpg.Connection, load: Load) -> list[str]:
    """I1: each delivery answered 2xx has exactly one row a message, each row was delivered; each send that
    was answered is one row."""
    rows = Counter(
        r[0]
        for r in await conn.fetch(
            "select provider_message_id from messages where direction = 'INBOUND'"
            " and provider_message_id like $1",
            f"wamid.rig{load.seed}.%",
        )
    )
    acked, posted = load.acked, load.posted
    wrong = []
    if lost := acked - rows.keys():
        wrong.append(f"I1: {len(lost)} of {len(acked)} acknowledged messages have no row: {sorted(lost)[:3]}")
    if doubled := [id for id, n in rows.items() if n > 1]:
        wrong.append(f"I1: {len(doubled)} messages have several rows: {doubled[:3]}")
    if invented := rows.keys() - posted:
        wrong.append(f"I1: {len(invented)} rows of messages nobody delivered: {sorted(invented)[:3]}")
    refs = Counter(
        str(r[0]) for r in await conn.fetch("select client_ref from messages where client_ref is not null")
    )
    answered = [s for s in load.asked if s.message_id is not None]
    if lost_sends := [s for s in answered if refs[str(s.client_ref)] != 1]:
        wrong.append(f"I1: {len(lost_sends)} of {len(answered)} answered sends are not one row")
    if refused := [s.refused for s in load.asked if s.refused is not None]:
        wrong.append(f"I1: sends were refused: {Counter(refused)}")
    failures = await conn.fetch("select reason, error, count(*) from app.webhook_failures group by 1, 2")
    wrong += [f"I1: {n} deliveries were kept as failures: {why} {error}" for why, error, n in failures]
    return wrong


async def the_log_is_complete(conn: asyncpg.Connection) -> list[str]:
    """I2: per organization no gap, and one event a change, counted by a trigger of the tests' own."""
    wrong = [
        f"I2: organization {org} has {n} events from {low} to {high}"
        for org, n, low, high in await conn.fetch(
            "select organization_id, count(*), min(seq), max(seq) from app.events group by 1"
            " having count(*) <> max(seq) - min(seq) + 1"
        )
    ]
    wrong += [
        f"I2: {changes} changes but {events} events of {table} {entity} ({op})"
        for table, entity, op, changes, events in await conn.fetch(
            """
            with changes as (
              select organization_id, table_name, op, entity_id, count(*) as n from audit.changes
               group by 1, 2, 3, 4
            ), logged as (
              select organization_id, table_name, op, entity_id, count(*) as n from app.events
               group by 1, 2, 3, 4
            )
            select coalesce(c.table_name, e.table_name), coalesce(c.entity_id, e.entity_id),
                   coalesce(c.op, e.op), coalesce(c.n, 0), coalesce(e.n, 0)
              from changes c full join logged e using (organization_id, table_name, op, entity_id)
             where c.n is distinct from e.n limit 5
            """
        )
    ]
    return wrong


async def the_ledger_agrees(conn: asyncpg.Connection, rig: Rig, accepts: int = 1) -> list[str]:
    """I4: at most `accepts` accepted sends a message; SENT exactly where the provider accepted, except those
    that are listed as doubtful."""
    accepted = Counter(send["correlator"] for send in rig.ledger())
    rows = await conn.fetch(
        "select id::text, status, failure_code from messages where direction = 'OUTBOUND'"
        " and source <> 'external'"
    )
    wrong = []
    if doubled := [id for id, n in accepted.items() if n > accepts]:
        wrong.append(f"I4: {len(doubled)} messages were accepted more than {accepts} times: {doubled[:3]}")
    known = {id for id, _, _ in rows}
    if strangers := accepted.keys() - known:
        wrong.append(
            f"I4: {len(strangers)} accepted sends are of no message: {sorted(map(str, strangers))[:3]}"
        )
    for id, status, code in rows:
        is_sent = status in ("SENT", "DELIVERED", "READ")
        if is_sent and not accepted[id]:
            wrong.append(f"I4: {id} is {status}, but the provider never accepted it")
        elif status == "FAILED" and accepted[id] and code not in DOUBTFUL and not _failed_later(rig, id):
            wrong.append(f"I4: {id} is FAILED {code}, but the provider accepted it")
        elif status == "PENDING":
            wrong.append(f"I4: {id} is still PENDING")
    return wrong[:10]


def _failed_later(rig: Rig, id: str) -> bool:
    """Accepted, and then reported as undeliverable."""
    return any(send["correlator"] == id and send["fails"] is not None for send in rig.ledger())


async def sends_are_in_order(conn: asyncpg.Connection, rig: Rig) -> list[str]:
    """I5: the ledger has a conversation's messages in the order of conv_seq. A message that was sent again
    by a person, or whose earlier one waited two minutes, may be later."""
    place = {
        id: (conversation, seq)
        for id, conversation, seq in await conn.fetch(
            "select id::text, conversation_id, conv_seq from messages m where direction = 'OUTBOUND'"
            " and status <> 'FAILED' and not coalesce(metadata, '{}') ? 'overtaken'"
        )
    }
    last: dict[Any, int] = defaultdict(int)
    wrong = []
    seen = set()
    for send in rig.ledger():
        id = send["correlator"]
        if id not in place or id in seen:
            continue
        seen.add(id)
        conversation, seq = place[id]
        if seq < last[conversation]:
            wrong.append(f"I5: {id} ({seq}) was sent after {last[conversation]} of the same conversation")
        last[conversation] = max(last[conversation], seq)
    return wrong[:10]


async def consumers_are_at_the_head(conn: asyncpg.Connection) -> list[str]:
    """I6: whoever reads the log has read all of it."""
    return [
        f"I6: {name} of {org} is at {seq}, the log at {head}"
        for name, org, seq, head in await conn.fetch(
            "select c.name, c.organization_id, c.seq, h.head from app.consumers c join"
            " (select organization_id, max(seq) as head from app.events group by 1) h"
            " using (organization_id) where c.seq < h.head"
        )
    ]


async def no_work_is_stuck(conn: asyncpg.Connection, dead: int = 0) -> list[str]:
    """I7: nothing runs without an owner, nothing died unexpectedly."""
    wrong = []
    n_dead = 0
    for table in _WORK_TABLES:
        for state, n in await conn.fetch(
            f"select state, count(*) from app.{table} where state in ('running', 'dead', 'unknown')"
            " group by state"
        ):
            if state == "dead":
                n_dead += n
            else:
                wrong.append(f"I7: {n} rows of {table} are {state}")
    if n_dead > dead:
        wrong.append(f"I7: {n_dead} dead rows")
    return wrong


_TEXTS = (
    "select m.organization_id, o.name, m.content from messages m join organizations o"
    " on o.id = m.organization_id where m.content like 'canary%'"
)


def texts_stay_at_home(rows: Collection[Any]) -> list[str]:
    """I9, in the database: each text stands in the organization that it names."""
    return [
        f"I9: {text!r} stands in {name}" for _, name, text in rows if f"Organization {int(text[6:8])}" != name
    ][:5]


def secrets_stay_hidden(rig: Rig) -> list[str]:
    """I10, in what the processes wrote: no planted secret, no customer's words, no number."""
    planted = [*(s.encode() for s in SECRETS), *(org.api_key.encode() for org in rig.world.orgs)]
    numbers = [c.wa_id.encode() for org in rig.world.orgs for c in org.customers]
    wrong = []
    for log in sorted(rig.logs.glob("*.log")):
        if log.name in ("postgres.log", "sandbox.log"):
            continue
        text = log.read_bytes()
        wrong += [f"I10: {log.name} shows a planted secret ({s[:6]!r}…)" for s in planted if s in text]
        if b"canary" in text:
            at = text.index(b"canary")
            wrong.append(f"I10: {log.name} shows a customer's words: {text[max(0, at - 200) : at + 60]!r}")
        wrong += [f"I10: {log.name} shows a number: {n!r}" for n in numbers if n in text][:1]
    return wrong


async def nothing_leaks(rig: Rig) -> list[str]:
    """I11: connections within the pools; file handles what the process started with, its pools and the
    sockets of those who are connected now."""
    wrong = []
    rows = await rig.fetch(
        "select split_part(application_name, ' ', 1) as program, count(*) from pg_stat_activity"
        " where usename = 'hub_runtime' group by 1"
    )
    for program, n in rows:
        procs = len(rig.hubs) if program == "hub" else len(rig.workers)
        if n > _POOLS.get(program, 0) * max(procs, 1):
            wrong.append(f"I11: {n} connections of {program} in {procs} processes")
    for proc in rig.procs:
        if proc.pid is None:
            continue

        def is_back(proc: Any = proc) -> bool:
            return len(handles(proc.pid)) <= _FILES

        try:
            await until(is_back, 15)
        except TimeoutError:
            kinds = Counter(h.split(":")[0] for h in handles(proc.pid))
            wrong.append(f"I11: {proc.name} has {sum(kinds.values())} files open beside sockets: {kinds}")
    return wrong


#: Files a process holds beside sockets: log, epoll, timers, spool, random; a leak grows beyond it quickly.
_FILES = 40


def handles(pid: int | None) -> list[str]:
    """What its file descriptors are, sockets left out (they are counted where they end)."""
    found = []
    folder = Path(f"/proc/{pid}/fd")
    try:
        for entry in folder.iterdir():
            try:
                target = str(entry.readlink())
            except OSError:
                continue
            if not target.startswith("socket:"):
                found.append(target)
    except OSError:
        return []
    return found


def no_internal_errors(
    rig: Rig, load: Load | None, expected: Collection[str] = (), allow_500: bool = False
) -> list[str]:
    """I12: nobody was answered 500, and no process logged a bug (but those that a failpoint raised)."""
    wrong = []
    if load is not None:
        for what, answers in (("webhooks", load.webhook_answers), ("the API", load.api_answers)):
            if answers[500] and not allow_500:
                wrong.append(f"I12: {answers[500]} answers of {what} were 500")
            odd = {a: n for a, n in answers.items() if isinstance(a, int) and a > 500 and a != 503}
            if odd:
                wrong.append(f"I12: {what} answered {odd}")
    allowed = _EXPECTED_ERRORS | set(expected)
    for proc in rig.procs:
        bugs = Counter(
            line["event"]
            for line in proc.lines()
            if str(line.get("level", "")).lower() in ("error", "critical")
            and line["event"] not in allowed
            and "FailpointError" not in str(line.get("exception", ""))
        )
        wrong += [f"I12: {proc.name} logged {event} {n} times" for event, n in bugs.items()]
        if deaths := sum(line["event"].startswith("Traceback") for line in proc.lines()):
            wrong.append(f"I12: {proc.name} died of {deaths} tracebacks:\n{proc.tail(8)}")
    return wrong
