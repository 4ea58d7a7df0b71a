"""Deliveries into rows: route, batch, commit, publish; what cannot be applied is kept (guarantees 4).

    delivery ─ parse ─ route ─┬ messages ─┬ micro-batches without a timer:
                              ├ statuses ─┘ what arrives while one commits is the next
                              └ edits, deletions, other news: statements of their own

Rows that the database refuses and shapes we do not know are kept in webhook_failures; the delivery then
counts as handled.

Everything here may be run again: provider ids decide, so a commit whose answer was lost is simply repeated.
Used by the webhook route, the spool's replay and the workers' second look at failures; no HTTP in here.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
import re
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, Final, Generic, TypeVar
from uuid import UUID

import asyncpg
import msgspec
import structlog

from hub import clock, metrics
from hub.auth.secrets import open_secret
from hub.channels.protocol import ChannelAdapter, Identity, Inbound, StatusUpdate, UnknownEvent
from hub.channels.registry import ADAPTERS
from hub.db.pool import Database, LoggedEvent
from hub.errors import Unavailable, from_database
from hub.failpoints import failpoint
from hub.settings import Settings
from sql import q

log = structlog.get_logger()

BATCH: Final = 64
"""Items a statement: beyond 200 the latency grows and nothing is gained; 64 keeps a bad item's re-run
cheap."""
WRITERS: Final = 2
"""Batches at once in a process; a third one only waits for the same rows."""
BACKLOG: Final = 4_096
"""Items that may wait. Above it the caller spools or answers 503, so that latency stays bounded."""
ROUTE_TTL_S: Final = 5.0
ROUTES: Final = 10_000
"""Remembered provider keys, unknown ones included, so that strangers cannot fill memory or the database's
time."""
HEARD_EVERY_S: Final = 30.0
TRIES: Final = 4
REPLAY_ROUNDS: Final = 3
"""Rounds in which one spooled delivery may run out of time before it is set aside for the others' sake."""

_ENCODE = msgspec.json.Encoder(uuid_format="canonical").encode
_STRINGS = msgspec.json.Decoder(dict[str, str])
#: SQLSTATE classes that say "this value", so that trying again without a change is useless.
_REFUSED = ("22", "23", "54", "P0", "HUB")
_RACES = ("40001", "40P01", "23505", "23503")
"""Lost against another batch: a unique key or a row that went between look and write. The second look
decides."""
_OUT_OF_TIME = ("57014", "55P03")


class IngestItem(msgspec.Struct, kw_only=True):
    """One message as app.ingest_many takes it; the fields are those of the SQL type app.ingest_item."""

    organization_id: UUID
    channel_account_id: UUID
    dedupe_key: str
    schemes: Sequence[str]
    ids: Sequence[str]
    n: int = 0
    name: str | None = None
    direction: str = "INBOUND"
    content: str = ""
    message_type: str = "text"
    metadata: dict[str, Any] = msgspec.field(default_factory=dict)
    occurred_at: datetime | None = None
    reply_to: str | None = None
    source: str = "customer"


class StatusItem(msgspec.Struct, kw_only=True):
    """One delivery report as app.apply_statuses takes it."""

    organization_id: UUID
    channel_account_id: UUID
    provider_message_id: str
    status: str
    occurred_at: datetime
    correlator: str | None = None
    failure_code: str | None = None
    failure_reason: str | None = None


class Amendment(msgspec.Struct, kw_only=True):
    """An edit or a deletion as app.amend_messages takes it."""

    organization_id: UUID
    channel_account_id: UUID
    target_id: str
    kind: str
    occurred_at: datetime
    n: int = 0
    content: str = ""


class Account(msgspec.Struct, frozen=True):
    """A channel account that a provider's key may mean. `app_secret` is its own, None when it uses the
    operator's."""

    organization_id: UUID
    id: UUID
    key: str
    owner: str | None
    app_secret: str | None


class Delivery(msgspec.Struct, kw_only=True):
    """One POST of a provider, as received; the spool keeps exactly this.

    `signed_by`: None = not checked yet (the database was away); otherwise the accounts whose own secret
    signed it, where an empty list stands for the operator's secret, which speaks for every account.
    """

    channel: str
    body: bytes
    headers: dict[str, str]
    account: UUID | None = None
    signed_by: list[UUID] | None = None
    received_at: float = 0.0


class Crowded(Unavailable):
    """Too many bodies that the operator's secret did not sign wait for a look at whose they are. The database
    may be well, so the spool, which would hold up everybody, is not for them."""


class Rejected(msgspec.Struct, frozen=True):
    """An item that the database will not take, and why."""

    item: object
    error: str


Item = TypeVar("Item")


class _Ticket:
    """What one caller waits for: all of its items, in whatever batches they land."""

    __slots__ = ("done", "left", "rejected")

    def __init__(self, left: int) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.left = left
        self.rejected: list[Rejected] = []

    def settle(self, rejected: Rejected | None = None) -> None:
        if rejected is not None:
            self.rejected.append(rejected)
        self.left -= 1
        if self.left == 0 and not self.done.done():
            self.done.set_result(None)

    def fail(self, error: BaseException) -> None:
        if not self.done.done():
            self.done.set_exception(error)


class MicroBatcher(Generic[Item]):
    """Groups what arrives while a batch is being written into the next one; no timer, so a lone item never
    waits.

    When ``write`` fails on a batch, the batch is halved until the bad item stands alone, so its neighbours
    pass. Raises Unavailable to its callers when the database is away or too much waits.
    """

    def __init__(
        self, write: Callable[[list[Item]], Awaitable[None]], *, size: int = BATCH, writers: int = WRITERS
    ) -> None:
        self._write = write
        self._size, self._writers = size, writers
        self._waiting: deque[tuple[Item, _Ticket]] = deque()
        self._running = 0
        """Writers that will look at the queue once more. Not the number of tasks: those end a turn later."""
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._waiting)

    async def put(self, items: Sequence[Item]) -> list[Rejected]:
        """Return when all are committed, with those that the database refused."""
        if not items:
            return []
        if len(self._waiting) >= BACKLOG:
            raise Unavailable("Too many messages wait to be stored", retry_after_s=1)
        ticket = _Ticket(len(items))
        self._waiting.extend((item, ticket) for item in items)
        self._hire()
        await ticket.done
        return ticket.rejected

    async def idle(self) -> None:
        """Return when nothing is being written."""
        while self._tasks:
            await asyncio.wait(tuple(self._tasks))

    def _hire(self) -> None:
        if self._running < self._writers:
            self._running += 1
            task = asyncio.create_task(self._work())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _work(self) -> None:
        waiting = self._waiting
        try:
            while waiting:
                await self._commit([waiting.popleft() for _ in range(min(self._size, len(waiting)))])
        finally:
            # no await between the last look and this: whoever puts now finds a place free
            self._running -= 1

    async def _commit(self, batch: list[tuple[Item, _Ticket]]) -> None:
        try:
            await self._write([item for item, _ in batch])
        except Unavailable as error:
            for _, ticket in batch:
                ticket.fail(error)
        except asyncio.CancelledError:
            for _, ticket in batch:
                ticket.fail(Unavailable("This process is ending", retry_after_s=2))
            raise
        except Exception as error:  # the database's refusal of an item, or a bug of ours that one item meets
            if len(batch) > 1:
                middle = len(batch) // 2
                await self._commit(batch[:middle])
                await self._commit(batch[middle:])
                return
            if not isinstance(error, asyncpg.PostgresError):
                log.exception("ingest.failed")
            item, ticket = batch[0]
            ticket.settle(Rejected(item, _refusal(error)))
        else:
            for _, ticket in batch:
                ticket.settle()


async def run_again(attempt: Callable[[], Awaitable[Any]]) -> Any:
    """The result of a statement that may be repeated. Races and lost connections are tried again;
    raises asyncpg.PostgresError for what its values caused and Unavailable for the rest."""
    for n in range(1, TRIES + 1):
        try:
            return await attempt()
        except Unavailable:  # a killed backend leaves dead connections in the pool: the next one may be good
            if n >= 2:
                raise
        except asyncpg.PostgresError as error:
            state = error.sqlstate or ""
            if (
                n < TRIES
                and (state in _RACES or isinstance(from_database(error), Unavailable))
                and state not in _OUT_OF_TIME
            ):
                await asyncio.sleep(random.uniform(0.2, 1.0) * 0.02 * 2**n)
                continue
            if state.startswith(_REFUSED):
                raise
            log.warning("ingest.unavailable", sqlstate=state)
            raise Unavailable("The database cannot store this now", retry_after_s=2) from error
    raise AssertionError("unreachable")


class Accounts:
    """Provider keys → our accounts, for at most 5 s; unknown keys are remembered as well."""

    def __init__(self, db: Database, settings: Settings) -> None:
        self._db, self._settings = db, settings
        self._known: OrderedDict[tuple[str, str], tuple[float, list[Account]]] = OrderedDict()
        self._loading: dict[tuple[str, str], asyncio.Task[list[Account]]] = {}
        self._tokens: dict[str, tuple[float, list[str]]] = {}

    def remembered(self, channel: str, key: str, *, stale: bool = False) -> list[Account] | None:
        """What is known without asking; with `stale` also what was known before, for while the database is
        away."""
        found = self._known.get((channel, key))
        return found[1] if found is not None and (stale or found[0] > time.monotonic()) else None

    async def of(self, channel: str, key: str) -> list[Account]:
        """Accounts of this provider key (phone number id, owner's id, or one of our account ids), oldest
        first. Raises Unavailable."""
        if (known := self.remembered(channel, key)) is not None:
            return known
        place = (channel, key)
        task = self._loading.get(place)
        if task is None:
            task = self._loading[place] = asyncio.create_task(self._load(place))
            task.add_done_callback(lambda done: self._loaded(place, done))
        return await asyncio.shield(task)

    def _loaded(self, place: tuple[str, str], task: asyncio.Task[list[Account]]) -> None:
        self._loading.pop(place, None)
        if not task.cancelled():
            task.exception()  # who asked may have gone away meanwhile: then nobody else looks at it

    async def _load(self, place: tuple[str, str]) -> list[Account]:
        channel, key = place
        ids = []
        with contextlib.suppress(ValueError):
            ids.append(UUID(key))

        async def look() -> list[asyncpg.Record]:
            async with self._db.connection("ingest") as conn:
                rows: list[asyncpg.Record] = await conn.fetch(q.webhook_accounts, channel, [key], [], ids)
                if not rows and not ids:
                    rows = await conn.fetch(q.webhook_accounts, channel, [], [key], [])
                return rows

        accounts = [self._account(*row) for row in await run_again(look)]
        self._known[place] = (time.monotonic() + ROUTE_TTL_S, accounts)
        self._known.move_to_end(place)
        while len(self._known) > ROUTES:
            self._known.popitem(last=False)
        return accounts

    def _account(self, org: UUID, account: UUID, key: str, owner: str | None, secrets: str | None) -> Account:
        sealed = _STRINGS.decode(secrets) if secrets else {}
        app_secret = None
        if "app_secret" in sealed:
            app_secret = self.open(org, account, "app_secret", sealed["app_secret"])
        return Account(org, account, key, owner, app_secret)

    def open(self, org: UUID, account: UUID, name: str, ciphertext: str) -> str | None:
        """A sealed setting of an account; None (and a log line) when it does not open."""
        try:
            return open_secret(
                self._settings,
                ciphertext,
                table="channel_accounts",
                column=name,
                organization_id=org,
                row_id=account,
            ).reveal()
        except ValueError:
            log.error("secret.unreadable", organization=str(org), account=str(account), name=name)
            return None

    async def verify_tokens(self, channel: str) -> list[str]:
        """Tokens that accounts of this channel want to see in a subscription handshake."""
        known = self._tokens.get(channel)
        if known is None or known[0] <= time.monotonic():

            async def look() -> list[asyncpg.Record]:
                async with self._db.connection("ingest") as conn:
                    rows: list[asyncpg.Record] = await conn.fetch(q.verify_tokens, channel)
                    return rows

            tokens = [
                self.open(org, account, "verify_token", sealed)
                for org, account, sealed in await run_again(look)
            ]
            known = self._tokens[channel] = (time.monotonic() + ROUTE_TTL_S, [t for t in tokens if t])
        return known[1]


#: How each channel's bodies name the receiving account, for finding a candidate's secret before the signature
#: is known to be good. Nothing is decoded; a wrong guess only means that the signature does not match.
_KEY_HINTS: Final[dict[str, re.Pattern[bytes]]] = {
    "WHATSAPP_CLOUD": re.compile(rb'"phone_number_id"\s{0,8}:\s{0,8}"(\d{1,40})"'),
}
_MAX_HINTS = 4
#: Unsigned bodies may not keep the database busy: this many look-ups for them at once.
_MAX_LOOKUPS = 4
_LOOKUP_WAIT_S = 1.0


class _Sorted(msgspec.Struct, kw_only=True):
    """Deliveries taken apart: what goes to which statement, with the delivery each part came from."""

    messages: list[IngestItem] = []
    statuses: list[StatusItem] = []
    amendments: list[Amendment] = []
    later: list[tuple[Account, str, tuple[Any, ...]]] = []
    """(account, statement, its arguments)"""
    kept: list[tuple[Account | None, str, str, bytes]] = []
    """(account, reason, error, raw element or b"" for the whole body)"""
    organizations: set[UUID | None] = msgspec.field(default_factory=set)
    """Whose events the body holds; None for those of an account that is not ours."""
    heard: set[UUID] = msgspec.field(default_factory=set)


class Ingest:
    """The way in. One a process; ``start`` before the first delivery, ``stop`` waits for what is being
    written."""

    def __init__(self, db: Database, settings: Settings) -> None:
        self._db, self._settings = db, settings
        self.accounts = Accounts(db, settings)
        self._messages: MicroBatcher[IngestItem] = MicroBatcher(self._write_messages)
        self._statuses: MicroBatcher[StatusItem] = MicroBatcher(self._write_statuses)
        self._heard: dict[UUID, float] = {}
        self._heard_now: set[UUID] = set()
        self._heard_task: asyncio.Task[None] | None = None
        self._lookups = asyncio.Semaphore(_MAX_LOOKUPS)
        self._stubborn: dict[bytes, int] = {}
        self._seconds = {channel: metrics.INGEST_SECONDS.labels(channel) for channel in ADAPTERS}

    async def start(self) -> None:
        """Nothing runs while nothing arrives."""

    async def stop(self) -> None:
        """Return when everything accepted so far is written or refused."""
        await self._messages.idle()
        await self._statuses.idle()
        if self._heard_task is not None:
            await asyncio.wait([self._heard_task])

    async def messages(self, items: Sequence[IngestItem]) -> list[Rejected]:
        """Store messages; returns when they are committed, with those that cannot be stored. Raises
        Unavailable."""
        return await self._messages.put(items)

    async def statuses(self, items: Sequence[StatusItem]) -> list[Rejected]:
        """Apply delivery reports; returns when they are committed. Raises Unavailable."""
        return await self._statuses.put(items)

    async def amendments(self, items: Sequence[Amendment]) -> list[Rejected]:
        """Apply edits and deletions; returns those whose message is not stored, too. Raises Unavailable."""
        return await self._amend(list(items))

    async def signers(
        self, adapter: ChannelAdapter, delivery: Delivery, *, is_away: bool = False
    ) -> list[UUID] | None:
        """Whose secret signed this: [] the operator's, else the accounts whose own it is; None = nobody's.

        `is_away`: ask the database nothing, what is remembered must do. Raises Unavailable when an account
        that it may belong to cannot be looked up; Crowded when too many others wait for that."""
        operator = self._settings.meta_app_secret
        if operator and adapter.verify(delivery.headers, delivery.body, [operator.reveal()]):
            return []
        keys = [str(delivery.account)] if delivery.account else []
        if (hint := _KEY_HINTS.get(adapter.type)) is not None:
            found = islice(hint.finditer(delivery.body), 64)
            keys += list(dict.fromkeys(m.group(1).decode() for m in found))[:_MAX_HINTS]
        signed = []
        for key in keys:
            known = self.accounts.remembered(adapter.type, key, stale=is_away)
            if known is None:
                if is_away:
                    raise Unavailable("The database is away", retry_after_s=2)
                known = await self._look_up(adapter.type, key)
            for account in known:
                if account.app_secret and adapter.verify(
                    delivery.headers, delivery.body, [account.app_secret]
                ):
                    signed.append(account.id)
        return signed or None

    async def _look_up(self, channel: str, key: str) -> list[Account]:
        try:
            async with asyncio.timeout(_LOOKUP_WAIT_S):
                await self._lookups.acquire()
        except TimeoutError as error:
            raise Crowded("Too many deliveries of unknown senders", retry_after_s=2) from error
        try:
            return await self.accounts.of(channel, key)
        finally:
            self._lookups.release()

    async def replay(self, deliveries: Sequence[Delivery]) -> None:
        """Apply what was spooled, in order. One whose signature could not be checked when it came is checked
        now, and dropped when nobody signed it. Raises Unavailable."""
        good = []
        for delivery in deliveries:
            if delivery.signed_by is None:
                delivery.signed_by = await self.signers(ADAPTERS[delivery.channel], delivery)
            if delivery.signed_by is None:
                metrics.WEBHOOK_REFUSED.labels(delivery.channel, "signature").inc()
            else:
                good.append(delivery)
        if not good:
            return
        try:
            await self.deliver(*good)
        except Unavailable as error:
            if not _ran_out_of_time(error):
                raise
            # the database answers, only not to one of these: find it, so that it stops nobody else
            for delivery in good:
                await self._replay_stubborn(delivery)

    async def _replay_stubborn(self, delivery: Delivery) -> None:
        """Apply one delivery; when it alone has run out of time in three rounds, keep it for the workers to
        try and for an operator to see. Raises Unavailable until then."""
        digest = hashlib.sha256(delivery.body).digest()
        try:
            await self.deliver(delivery)
        except Unavailable as error:
            if not _ran_out_of_time(error):
                raise
            rounds = self._stubborn[digest] = self._stubborn.get(digest, 0) + 1
            if rounds < REPLAY_ROUNDS:
                raise
            log.error("spool.not_replayed", channel=delivery.channel, rounds=rounds)
            parts = await self._sort(delivery, None)
            why = f"{error.__cause__.sqlstate} it ran out of time"  # type: ignore[union-attr]
            late = [Rejected(i, why) for i in (*parts.messages, *parts.statuses, *parts.amendments)]
            parts.kept += [(account, "not_applied", why, b"") for account, _, _ in parts.later]
            await self._keep(delivery, parts, late)
        self._stubborn.pop(digest, None)

    async def deliver(
        self, *deliveries: Delivery, organization_id: UUID | None = None, kept: list[str] | None = None
    ) -> bool:
        """Apply checked deliveries, in order. Returns when all is committed: True when all of it was applied,
        False when some of it had to be kept as a failure. Raises Unavailable when nothing may be
        acknowledged; running it again is harmless.

        `organization_id` limits it to one organization's accounts. With `kept` (a second look at something
        kept before) nothing is kept again: the reasons are added to the list."""
        started = time.perf_counter()
        if len(deliveries) == 1:
            parts = await self._sort(deliveries[0], organization_id)
            sorted_ = [(deliveries[0], parts)]
            messages, statuses = parts.messages, parts.statuses
        else:
            sorted_ = [(d, await self._sort(d, organization_id)) for d in deliveries]
            messages = [m for _, s in sorted_ for m in s.messages]
            statuses = [i for _, s in sorted_ for i in s.statuses]
        rejected: list[Rejected] = []
        if 0 < len(messages) <= BATCH:
            rejected += await self._messages.put(messages)
        else:
            for first in range(0, len(messages), BATCH):  # one after the other: a replay keeps its order
                rejected += await self._messages.put(messages[first : first + BATCH])
        if statuses:
            rejected += await self._statuses.put(statuses)
        applied = True
        for delivery, parts in sorted_:
            if parts.amendments:
                rejected += await self._amend(parts.amendments)
            if parts.later:
                await self._run_later(parts)
            if parts.heard:
                self._hear(parts.heard)
            if parts.kept or rejected:
                own = {id(item) for item in (*parts.messages, *parts.statuses, *parts.amendments)}
                mine = [r for r in rejected if id(r.item) in own]
                if parts.kept or mine:
                    applied = False
                if kept is None:
                    await self._keep(delivery, parts, mine)
                else:
                    kept += [error for _, _, error, _ in parts.kept] + [r.error for r in mine]
        self._seconds[deliveries[0].channel].observe(time.perf_counter() - started)
        return applied

    async def _sort(self, delivery: Delivery, organization_id: UUID | None) -> _Sorted:
        adapter = ADAPTERS[delivery.channel]
        parts = _Sorted()
        try:
            events = adapter.parse(delivery.body)
        except msgspec.DecodeError as error:
            parts.kept.append((await self._only_account(delivery), "undecodable", str(error)[:500], b""))
            return parts
        except Exception as error:  # a bug in a parser must not turn into hours of redeliveries
            log.exception("ingest.parser_failed", channel=delivery.channel)
            parts.kept.append((await self._only_account(delivery), "parser_error", type(error).__name__, b""))
            return parts
        chosen: dict[str | None, Account | None] = {}
        for event in events:
            key = event.account_key
            if key not in chosen:
                if key is None:
                    chosen[key] = await self._only_account(delivery)
                else:
                    known = self.accounts.remembered(delivery.channel, key)
                    if known is None:
                        known = await self.accounts.of(delivery.channel, key)
                    chosen[key] = _choose(known, delivery)
                account = chosen[key]
                parts.organizations.add(account.organization_id if account else None)
            account = chosen[key]
            if account is None and key is not None:
                log.info("webhook.account_unknown", channel=delivery.channel)
                metrics.WEBHOOK_REFUSED.labels(delivery.channel, "unknown_account").inc()
            elif organization_id is None or (
                account is not None and account.organization_id == organization_id
            ):
                try:
                    _place(parts, event, account)
                except Exception as error:  # like a bug in the parser; the other events go their way
                    log.error("ingest.event_failed", channel=delivery.channel, error=type(error).__name__)
                    raw = event.raw if isinstance(event, UnknownEvent) else _legible(event)
                    parts.kept.append((account, "parser_error", type(error).__name__, raw))
        return parts

    async def _only_account(self, delivery: Delivery) -> Account | None:
        """The account of a delivery that names none itself: the one in its URL, or the one whose secret
        signed it."""
        for key in [delivery.account, *(delivery.signed_by or [])[:1]]:
            if key is not None:
                account = _choose(await self.accounts.of(delivery.channel, str(key)), delivery)
                if account is not None:
                    return account
        return None

    async def _write_messages(self, items: list[IngestItem]) -> None:
        failpoint("ingest.before_sql")
        for n, item in enumerate(
            items
        ):  # providers' times have whole seconds: arrival decides between equal ones
            item.n = n
        text = _ENCODE(items).decode()

        async def write() -> list[asyncpg.Record]:
            async with self._db.connection("ingest") as conn:
                rows: list[asyncpg.Record] = await conn.fetch(q.ingest_many, text)
                return rows

        rows = await run_again(write)
        failpoint("ingest.after_commit")
        if rows:
            self._db.publish([LoggedEvent(*row) for row in rows])
            if any("media" in item.metadata for item in items):
                self._db.wake("jobs")
        echoes: dict[tuple[UUID, UUID], list[str]] = {}
        for item in items:
            if item.direction == "OUTBOUND":
                place = (item.organization_id, item.channel_account_id)
                echoes.setdefault(place, []).append(item.dedupe_key)
        for place, ids in echoes.items():  # their receipts may have come first
            await self._execute(q.apply_parked, *place, ids)

    async def _write_statuses(self, items: list[StatusItem]) -> None:
        failpoint("status.before")
        await self._execute(q.apply_statuses, _ENCODE(items).decode())

    async def _execute(self, statement: str, *args: Any) -> Any:
        async def run() -> Any:
            async with self._db.connection("ingest") as conn:
                return await conn.fetch(statement, *args)

        return await run_again(run)

    async def _amend(self, items: list[Amendment]) -> list[Rejected]:
        for n, item in enumerate(items):
            item.n = n
        try:
            missing = await self._execute(q.amend_messages, _ENCODE(items).decode())
        except Unavailable:
            raise
        except Exception as error:
            if len(items) == 1:
                return [Rejected(items[0], _refusal(error))]
            return [r for item in items for r in await self._amend([item])]
        return [Rejected(items[row[0]], "unknown_target") for row in missing]

    async def _run_later(self, parts: _Sorted) -> None:
        for account, statement, args in parts.later:
            try:
                await self._execute(statement, *args)
            except Unavailable:
                raise
            except Exception as error:
                parts.kept.append((account, "not_applied", _refusal(error), _legible(args)))

    async def _keep(self, delivery: Delivery, parts: _Sorted, rejected: Iterable[Rejected]) -> None:
        """Keep what could not be applied, by organization: the whole body, so that it can be read again after
        a fix, unless it also speaks of another organization; then only the parts concerned."""
        groups: dict[tuple[UUID | None, UUID | None, str], list[tuple[str, Any]]] = {}
        for account, reason, error, raw in parts.kept:
            place = (account.organization_id, account.id) if account else (None, None)
            groups.setdefault((*place, reason), []).append((error, raw))
        for r in rejected:
            reason = "unknown_target" if r.error == "unknown_target" else "refused"
            item = r.item
            assert isinstance(item, IngestItem | StatusItem | Amendment)
            groups.setdefault((item.organization_id, item.channel_account_id, reason), []).append(
                (r.error, item)
            )
        alone = len(parts.organizations) <= 1
        for (org, account_id, reason), found in groups.items():
            body, form = delivery.body, "body"
            if not alone:
                elements = [part if isinstance(part, bytes) else _legible(part) for _, part in found]
                body, form = b"\n".join(elements), "parts"
            headers = _ENCODE({**_kept_headers(delivery.headers), "hub-form": form}).decode()
            error = found[0][0].replace("\x00", "\ufffd").encode("utf-8", "replace").decode()
            try:
                await self._execute(
                    q.keep_failure, org, delivery.channel, account_id, reason, error, headers, body
                )
            except asyncpg.ForeignKeyViolationError:  # the organization went, and its data with it
                log.info("webhook.organization_gone", channel=delivery.channel, reason=reason)
                continue
            metrics.WEBHOOK_KEPT.labels(delivery.channel, reason).inc(len(found))
            log.warning(
                "webhook.kept",
                channel=delivery.channel,
                reason=reason,
                items=len(found),
                owned=org is not None,
            )

    def _hear(self, accounts: set[UUID]) -> None:
        """Note that these accounts are alive; at most every 30 s each, and never in the way of a delivery."""
        now = time.monotonic()
        fresh = [a for a in accounts if self._heard.get(a, -HEARD_EVERY_S) <= now - HEARD_EVERY_S]
        if not fresh:
            return
        if len(self._heard) > ROUTES:
            self._heard.clear()
        for account in fresh:
            self._heard[account] = now
        self._heard_now.update(fresh)
        if self._heard_task is None or self._heard_task.done():
            self._heard_task = asyncio.create_task(self._note_heard())

    async def _note_heard(self) -> None:
        while self._heard_now:
            accounts, self._heard_now = sorted(self._heard_now), set()
            try:
                await self._execute(q.heard_from, accounts)
            except (Unavailable, asyncpg.PostgresError) as error:  # the next delivery says so again
                log.info("account.not_noted", error=type(error).__name__)
                for account in accounts:
                    self._heard.pop(account, None)


def _refusal(error: Exception) -> str:
    """What an operator reads; without the DETAIL that quotes the row."""
    message = error.args[0] if error.args and isinstance(error, asyncpg.PostgresError) else error
    return f"{getattr(error, 'sqlstate', None) or type(error).__name__} {str(message)[:500]}"


def _ran_out_of_time(error: Unavailable) -> bool:
    """Whether the database was there and gave up a statement (its time, or a lock's)."""
    cause = error.__cause__
    return isinstance(cause, asyncpg.PostgresError) and cause.sqlstate in _OUT_OF_TIME


def _legible(part: object) -> bytes:
    """A part by itself; one that cannot be written as JSON as far as it can."""
    try:
        return _ENCODE(part)
    except (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError):
        return _ENCODE({"unreadable": type(part).__name__})


def _kept_headers(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value.encode("ascii", "replace").decode()[:500] for name, value in headers.items()}


def _choose(accounts: Sequence[Account], delivery: Delivery) -> Account | None:
    """The account an event is for. Only one whose secret signed it, or, signed with the operator's secret,
    the one named in the URL, else the first that claimed the provider's key: a later claim must not divert
    its messages."""
    signed_by = delivery.signed_by
    if signed_by:
        accounts = [a for a in accounts if a.id in signed_by]
    if len(accounts) > 1:
        log.warning("webhook.account_claimed_twice", accounts=len(accounts))
        named = [a for a in accounts if a.id == delivery.account]
        accounts = named or [a for a in accounts if a.app_secret is None] or accounts
    return accounts[0] if accounts else None


def _split(identities: Sequence[Identity]) -> tuple[list[str], list[str]]:
    return [scheme for scheme, _ in identities], [value for _, value in identities]


def _place(parts: _Sorted, event: Inbound | StatusUpdate | UnknownEvent, account: Account | None) -> None:
    """Put one event where it will be applied."""
    if isinstance(event, UnknownEvent):
        if event.keep:
            parts.kept.append((account, "unknown_kind", event.reason, event.raw))
        return
    if account is None:
        return
    org, account_id = account.organization_id, account.id
    if isinstance(event, StatusUpdate):
        parts.statuses.append(
            StatusItem(
                organization_id=org,
                channel_account_id=account_id,
                provider_message_id=event.provider_message_id,
                status=event.status,
                occurred_at=_plausible(event.occurred_at),
                correlator=event.correlator,
                failure_code=event.failure_code,
                failure_reason=event.failure_reason,
            )
        )
        parts.heard.add(account_id)
        if event.opted_out and event.recipient:
            _later(parts, account, q.note_opt_out, org, *_split(event.recipient), event.failure_reason)
        return
    match event.kind:
        case "message" | "echo" | "reaction" | "postback" | "referral":
            schemes, ids = _split(event.identities)
            echo = event.kind == "echo"
            parts.messages.append(
                IngestItem(
                    organization_id=org,
                    channel_account_id=account_id,
                    dedupe_key=event.provider_message_id or event.dedupe_key,
                    schemes=schemes,
                    ids=ids,
                    name=event.name or event.username,
                    direction="OUTBOUND" if echo else "INBOUND",
                    content=event.content,
                    message_type=event.message_type,
                    metadata=event.metadata,
                    occurred_at=_plausible(event.occurred_at),
                    reply_to=event.reply_to or event.target_id,
                    source="external" if echo else "customer",
                )
            )
            parts.heard.add(account_id)
        case "edit" | "delete":
            parts.amendments.append(
                Amendment(
                    organization_id=org,
                    channel_account_id=account_id,
                    target_id=event.target_id or "",
                    kind=event.kind,
                    content=event.content,
                    occurred_at=_plausible(event.occurred_at),
                )
            )
        case "optin":
            # Said in the provider's own menu: no words of the customer's, so no message. Taking it back is
            # for a person to record: a "resume" is weaker than the consent that the law asks for.
            if event.metadata.get("optin", {}).get("allowed") is False and event.identities:
                _later(parts, account, q.note_opt_out, org, *_split(event.identities), event.content or None)
        case "identity_change":
            new = [(s, v) for s, v in event.metadata.get("identity_change", {}).get("new", ())]
            if new and event.identities:
                _later(parts, account, q.add_identities, org, *_split(event.identities), *_split(new))
        case "template_status":
            template = event.metadata["template"]
            provider_id = template.get("message_template_id")
            _later(
                parts,
                account,
                q.judge_template,
                org,
                str(provider_id) if provider_id is not None else None,
                template.get("message_template_name"),
                template.get("message_template_language"),
                template["status"],
                event.content or None,
            )
        case "account":
            _later(
                parts,
                account,
                q.report_account,
                org,
                account_id,
                "degraded",
                (event.content or "The provider sent a notice")[:500],
            )


def _later(parts: _Sorted, account: Account, statement: str, *args: Any) -> None:
    parts.later.append((account, statement, args))


def _plausible(at: datetime | None) -> datetime:
    """A time of ours where the provider gave none; the database clamps the rest."""
    now = clock.now()
    return now if at is None else max(at, now - timedelta(days=400))
