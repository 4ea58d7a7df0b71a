"""Messages to providers: claim, note as being sent, send, judge the answer, settle (guarantees 8).

    available ─claim─► running ─mark─► (sending_at) ─bytes─► answer ─settle─► gone | available later | unknown
                                          └── committed before the first byte leaves

A send whose outcome we do not know is never repeated by us: it waits for the provider's status with our
correlator, and ends as FAILED `ambiguous` when none comes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final
from uuid import UUID

import aiohttp
import asyncpg
import msgspec
import structlog

from hub import clock, metrics
from hub.channels.protocol import (
    Accepted,
    AuthBroken,
    ChannelAdapter,
    Identity,
    Outbound,
    Permanent,
    ResponseFacts,
    Retryable,
    Throttled,
    Unknown,
    Unrenderable,
    WindowClosed,
)
from hub.channels.registry import adapter_for
from hub.db.pool import Database
from hub.errors import Unavailable
from hub.events.clients import Redis
from hub.failpoints import failpoint
from hub.settings import Settings
from sql import q
from workers.accounts import open_account
from workers.claim import Claimer, Lease, Leases, Together
from workers.pace import Paces
from workers.retry import SEND_TRIES, backoff_s, outage_s
from workers.transport import NotSent, TooLate, perform
from workers.uploads import Handed, Uploads

log = structlog.get_logger()

BATCH: Final = 20
IN_FLIGHT: Final = 80
"""Sends at once in a process; below the client's 100 connections."""
AUTH_HOLD_S: Final = 60.0
"""An account whose token broke is probed by one message a minute until somebody repairs it."""
PACE_WAIT_S: Final = 2.0
"""A send waits this long for its account's bucket; above it the row goes back and somebody else's turn
comes."""
GIVE_UP_S: Final = 6 * 3600.0
"""A provider that cannot be reached at all costs no try, but an answer older than this helps nobody."""

_ENCODE = msgspec.json.Encoder(uuid_format="canonical").encode


class _Row(msgspec.Struct):
    """What we read of the message itself; it comes as JSON."""

    created_at: datetime
    content: str | None = None
    message_type: str = "text"
    metadata: dict[str, Any] = {}


class _Identity(msgspec.Struct):
    scheme: str
    value: str


_ROW = msgspec.json.Decoder(_Row)
_IDENTITIES = msgspec.json.Decoder(list[_Identity])


class ClaimedSend(msgspec.Struct, frozen=True):
    """One row of q.claim_sends, in column order; `attempts` counts this one."""

    organization_id: UUID
    message_id: UUID
    conversation_id: UUID
    conv_seq: int
    attempts: int
    channel_account_id: UUID | None
    channel_type: str | None
    settings: str | None
    secrets: str | None
    on_ambiguous: str | None
    message: str
    identities: str | None
    reply_to: str | None
    last_inbound_at: datetime | None


class Result(msgspec.Struct, omit_defaults=True):
    """What app.settle_sends writes for one send; durations in seconds."""

    message_id: UUID
    outcome: str
    provider_message_id: str | None = None
    code: str | None = None
    reason: str | None = None
    retry_in_s: float | None = None
    hold_s: float | None = None
    wait_s: float | None = None


Outcome = Accepted | Throttled | Retryable | Permanent | WindowClosed | AuthBroken | Unknown | NotSent


class Sender(Claimer):
    """The outbound loop of one worker process."""

    kind = "send"

    def __init__(
        self,
        db: Database,
        settings: Settings,
        session: aiohttp.ClientSession,
        worker: str,
        redis: Redis | None = None,
    ) -> None:
        super().__init__(settings.work_poll_s)
        self._db, self._settings, self._session, self._worker = db, settings, session, worker
        self._paces = Paces(redis, worker)
        self.leases = Leases(db, settings.work_lease_s)
        self._marks: Together[Lease, UUID, bool] = Together(self._mark)
        self._settles: Together[Lease, Result, bool] = Together(self._settle)
        self._conversations: dict[UUID, asyncio.Task[None]] = {}
        self._behind: tuple[UUID, UUID] | None = None
        """Where the next claim goes on; None: at the first account."""
        self._unreachable: dict[UUID, tuple[int, float]] = {}
        """How often in a row an account's provider was not reached, and until when (monotonic) it rests."""
        self._uploads = Uploads(db, settings, session)

    def room(self) -> int:
        return min(BATCH, IN_FLIGHT - len(self._tasks))

    def has_more(self) -> bool:
        return self._behind is not None

    async def claim(self, room: int) -> int:
        """How many were claimed. One claim looks at so many accounts and no more; the next one looks on."""
        lease = self.leases.new()
        behind = self._behind or (None, None)
        async with self._db.connection("worker") as conn:
            rows = await conn.fetch(
                q.claim_sends, lease.token, self._worker, room, timedelta(seconds=lease.seconds), *behind
            )
        self._behind = next(
            ((r["organization_id"], r["channel_account_id"]) for r in rows if r["message_id"] is None), None
        )
        rows = [row for row in rows if row["message_id"] is not None]
        if rows:
            failpoint("claim.after")
        self.leases.hold(lease, len(rows))
        for send in sorted(
            (ClaimedSend(*row) for row in rows), key=lambda s: (s.conversation_id, s.conv_seq)
        ):
            before = self._conversations.get(send.conversation_id)
            task = self.start(self._deliver(lease, send, before))
            self._conversations[send.conversation_id] = task
            task.add_done_callback(partial(self._delivered, send.conversation_id))
        return len(rows)

    def _delivered(self, conversation_id: UUID, task: asyncio.Task[None]) -> None:
        if self._conversations.get(conversation_id) is task:
            del self._conversations[conversation_id]

    async def _deliver(self, lease: Lease, send: ClaimedSend, before: asyncio.Task[None] | None) -> None:
        """One send from claim to settlement. After an earlier message of the same conversation, whatever
        became of that."""
        started = time.perf_counter()
        outcome = "fenced"
        try:
            if before is not None:
                await asyncio.wait([before])
            result = await self._result(lease, send)
            if result is not None:
                outcome = result.outcome
                if not await self._settles.put(lease, result):
                    outcome = "fenced"
                    await self._fenced(send, result)
        except Exception:
            # the row stays claimed; the reaper decides by whether it was being sent
            outcome = "error"
            log.exception("send.failed", message=str(send.message_id))
        finally:
            self.leases.drop(lease)
        metrics.OUTBOUND_TOTAL.labels(send.channel_type or "none", outcome).inc()
        metrics.JOB_SECONDS.labels("send").observe(time.perf_counter() - started)
        log.info("send.settled", outcome=outcome, attempt=send.attempts, message=str(send.message_id))

    async def _result(self, lease: Lease, send: ClaimedSend) -> Result | None:
        """What to settle; None when the row is no longer ours."""
        adapter = adapter_for(send.channel_type) if send.channel_type else None
        if adapter is None or send.channel_account_id is None:
            reason = "This channel cannot send" if send.channel_type else "The channel account is gone"
            return Result(send.message_id, "failed", code="no_channel", reason=reason)
        row = _ROW.decode(send.message)
        to = tuple((i.scheme, i.value) for i in _IDENTITIES.decode(send.identities or "[]"))
        file = _file_of(row)
        handed: Handed | None = None
        try:
            account, env = open_account(
                self._settings, send.organization_id, send.channel_account_id, send.settings, send.secrets
            )
            if file is not None:
                if self._stopping:
                    return Result(send.message_id, "released")
                given = await self._uploads.hand_over(
                    adapter, send.organization_id, send.channel_account_id, file, account, env
                )
                if not isinstance(given, Handed):
                    return await self._judge(adapter, send, row, to, given)
                handed = given
                row.metadata = _with_provider_id(row.metadata, handed.id)
            request = adapter.render(_outbound_of(send, row, to), account, env)
        except Unrenderable as error:
            return Result(send.message_id, "failed", code=error.code, reason=error.reason)
        except (Unavailable, asyncpg.PostgresError):
            return Result(send.message_id, "released")  # nothing is being sent yet
        except ValueError as error:  # a secret that does not open: as good as a broken token
            return await self._auth_broken(
                send, AuthBroken("secret", f"The access token cannot be read: {error}")
            )
        pause = await self._paces.reserve(
            adapter, send.channel_account_id, send.conversation_id, at_most_s=PACE_WAIT_S
        )
        if pause > PACE_WAIT_S:
            return Result(send.message_id, "throttled", code="paced", retry_in_s=pause)
        if pause:
            await asyncio.sleep(pause)
        if self._stopping or not lease.may_start():
            return Result(send.message_id, "released")
        failpoint("send.before_sending_commit")
        try:
            is_ours = await self._marks.put(lease, send.message_id)
        except (Unavailable, asyncpg.PostgresError):
            return None  # committed or not, no byte has left: the reaper gives it back, or calls it unknown
        if not is_ours:
            log.info("send.lost", message=str(send.message_id))
            return None
        failpoint("send.after_sending_commit")
        try:
            answer = await perform(self._session, request, may_start=lease.may_start)
        except TooLate:  # stopped in between (a paused machine): the row may be somebody else's by now
            return Result(send.message_id, "released")
        failpoint("send.after_response")
        outcome: Outcome = adapter.classify(answer) if isinstance(answer, ResponseFacts) else answer
        if file is not None and handed is not None and not handed.is_new:
            code = outcome.code if isinstance(outcome, (Permanent, Retryable)) else ""
            if code in adapter.stale_media_codes and send.attempts < SEND_TRIES:
                await self._note(q.forget_provider_media, send.organization_id, file, send.channel_account_id)
                return Result(send.message_id, "retry", code="media_forgotten", retry_in_s=0.0)
        return await self._judge(adapter, send, row, to, outcome)

    async def _judge(
        self, adapter: ChannelAdapter, send: ClaimedSend, row: _Row, to: Sequence[Identity], outcome: Outcome
    ) -> Result:
        """The table of guarantees 8."""
        id, account = send.message_id, send.channel_account_id
        assert account is not None
        if not isinstance(outcome, NotSent):
            self._unreachable.pop(account, None)
        match outcome:
            case Accepted():
                new = [i for i in outcome.identities if i not in to]
                if new:
                    await self._note(q.add_identities, send.organization_id, *_columns(to), *_columns(new))
                return Result(id, "accepted", provider_message_id=outcome.id)
            case Throttled():
                hold = outcome.after_s if outcome.scope == "account" else None
                return Result(
                    id,
                    "throttled",
                    code=outcome.code,
                    reason=outcome.reason,
                    retry_in_s=outcome.after_s,
                    hold_s=hold,
                )
            case Retryable():
                if send.attempts >= min(SEND_TRIES, outcome.max_tries or SEND_TRIES):
                    return Result(id, "failed", code=outcome.code or "retries_spent", reason=outcome.reason)
                wait = max(backoff_s(send.attempts), outcome.after_s or 0.0)
                return Result(id, "retry", code=outcome.code, reason=outcome.reason, retry_in_s=wait)
            case NotSent():
                if (clock.now() - row.created_at).total_seconds() > GIVE_UP_S:
                    return Result(id, "failed", code="unreachable", reason=outcome.reason)
                wait = self._outage(account)
                return Result(
                    id, "throttled", code="unreachable", reason=outcome.reason, retry_in_s=wait, hold_s=wait
                )
            case Permanent():
                if outcome.opted_out:
                    await self._note(q.note_opt_out, send.organization_id, *_columns(to), outcome.reason)
                return Result(id, "failed", code=outcome.code, reason=outcome.reason)
            case WindowClosed():
                reason = outcome.reason or "The customer's 24-hour window is closed"
                return Result(
                    id, "failed", code="window_closed", reason=f"{reason}. Send a template instead."
                )
            case AuthBroken():
                return await self._auth_broken(send, outcome)
            case Unknown():
                wait = self._settings.send_unknown_wait_s
                return Result(id, "unknown", code="unknown", reason=outcome.reason, wait_s=wait)

    def _outage(self, account: UUID) -> float:
        """Seconds until this account is tried again. What failed together, eight at once say, is one
        failure."""
        failures, until = self._unreachable.get(account, (0, 0.0))
        now = time.monotonic()
        if now >= until:
            wait = outage_s(failures + 1)
            self._unreachable[account] = (failures + 1, now + wait)
            return wait
        return until - now

    async def _auth_broken(self, send: ClaimedSend, broken: AuthBroken) -> Result:
        """Nothing of this account can be sent until a person repairs it: hold it, tell its owner, lose no
        message."""
        account = send.channel_account_id
        assert account is not None
        reason = broken.reason or f"The provider refused our access ({broken.code})"
        await self._note(q.report_account, send.organization_id, account, "error", reason[:500])
        return Result(
            send.message_id,
            "throttled",
            code=broken.code,
            reason=reason,
            retry_in_s=AUTH_HOLD_S,
            hold_s=AUTH_HOLD_S,
        )

    async def _note(self, statement: str, *args: Any) -> None:
        """Something worth knowing beside the result; never in its way."""
        try:
            async with self._db.connection("worker") as conn:
                await conn.execute(statement, *args)
        except (Unavailable, asyncpg.PostgresError) as error:
            log.warning("send.not_noted", error=type(error).__name__)

    async def _mark(self, lease: Lease, ids: list[UUID]) -> list[bool]:
        async with self._db.connection("worker") as conn:
            rows = await conn.fetch(q.mark_sending, lease.token, ids, timedelta(seconds=lease.margin_s))
        ours = {row[0] for row in rows}
        return [id in ours for id in ids]

    async def _settle(self, lease: Lease, results: list[Result]) -> list[bool]:
        """Commit results; False for those whose row moved on. While the database is away this is repeated for
        as long as the rows may still be ours: the provider's answer is known here and nowhere else."""
        failpoint("send.before_result_commit")
        text = _ENCODE(results).decode()
        until = time.monotonic() + 10 * self._settings.work_lease_s
        n = 0
        while True:
            try:
                async with self._db.connection("worker") as conn:
                    rows = await conn.fetch(q.settle_sends, lease.token, text)
                break
            except asyncpg.PostgresError as error:
                state = error.sqlstate or ""
                if not state.startswith(("40", "53", "55", "57")):
                    if len(results) == 1:
                        raise
                    return [(await self._settle(lease, [r]))[0] for r in results]
                last: Exception = error
            except Unavailable as error:
                last = error
            if time.monotonic() > until:
                raise last
            n += 1
            await asyncio.sleep(min(0.1 * 2**n, 2.0))
        failpoint("send.after_result_commit")
        settled = {row[0] for row in rows}
        return [r.message_id in settled for r in results]

    async def _fenced(self, send: ClaimedSend, result: Result) -> None:
        """Our lease ended before our result: the row is left alone. That the provider took it is worth
        telling all the same, in the form in which the provider will tell it, too."""
        log.warning("send.fenced", message=str(send.message_id), outcome=result.outcome)
        if result.outcome == "accepted":
            report = {
                "organization_id": send.organization_id,
                "channel_account_id": send.channel_account_id,
                "provider_message_id": result.provider_message_id,
                "correlator": str(send.message_id),
                "status": "SENT",
                "occurred_at": clock.now(),
            }
            await self._note(q.apply_statuses, _ENCODE([report]).decode())


def _file_of(row: _Row) -> UUID | None:
    """The file of ours that a message shows."""
    media = row.metadata.get("media")
    item = media[0] if isinstance(media, list) and media else media
    id = item.get("file_id") if isinstance(item, dict) else None
    try:
        return UUID(id) if isinstance(id, str) else None
    except ValueError:
        return None


def _with_provider_id(metadata: dict[str, Any], id: str) -> dict[str, Any]:
    """Metadata as adapters read it: the file by the provider's name for it."""
    media = metadata["media"]
    item = media[0] if isinstance(media, list) else media
    return {**metadata, "media": [{**item, "id": id}]}


def _outbound_of(send: ClaimedSend, row: _Row, to: tuple[Identity, ...]) -> Outbound:
    return Outbound.from_message(
        message_id=str(send.message_id),
        to=to,
        message_type=row.message_type,
        content=row.content or "",
        metadata=row.metadata,
        reply_to=send.reply_to,
    )


def _columns(identities: Sequence[Identity]) -> tuple[list[str], list[str]]:
    return [scheme for scheme, _ in identities], [value for _, value in identities]
