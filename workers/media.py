"""Files of inbound messages: claim, look up, download, check, keep, settle.

    available ─claim─► running ─lookup─► address ─bytes─► media/tmp ─place + settle─► stored
                          └ what goes wrong: available later | expired | failed

Fetching tells nobody anything, so everything may be repeated: a worker that dies at any point costs one more
download. Bytes get their place in the transaction that writes their row, under a lock that whoever throws
unused bytes away takes as well.
"""

from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import aiohttp
import asyncpg
import msgspec
import structlog
from yarl import URL

from hub import clock, metrics
from hub.channels.media import clean_name, digest_of, readable, sniff
from hub.channels.media_storage import Incoming, Storage, TooLarge
from hub.channels.protocol import (
    AuthBroken,
    ChannelAdapter,
    MediaLocation,
    Permanent,
    ProviderEnv,
    ResponseFacts,
    Throttled,
    Unrenderable,
    Verdict,
)
from hub.channels.registry import adapter_for
from hub.db.pool import Database
from hub.errors import Unavailable
from hub.failpoints import failpoint
from hub.settings import Settings
from sql import q
from workers.accounts import open_account
from workers.claim import Claimer, Lease, Leases
from workers.guard import Inside
from workers.retry import MEDIA_TRIES, backoff_s
from workers.transport import NotSent, perform, timeout_of

log = structlog.get_logger()

AT_ONCE: Final = 4
"""Downloads of one process: each may hold 25 MiB of the line, none holds them in memory."""
HOPS: Final = 3
LINK_EXPIRED: Final = "link_expired"
LINK_TRIES: Final = 3
"""Tries, each with two fresh addresses, until a file whose address never works is taken to be gone."""
WAIT_S: Final = 60.0
"""Before an account without access, an unreachable provider or a full disk is tried again; costs no try."""
SWEEP_KEYS: Final = 1_000
"""Kept files looked at in one round of cleaning."""

_ENCODE = msgspec.json.Encoder(uuid_format="canonical").encode


class _Payload(msgspec.Struct):
    """app.jobs.payload of a file."""

    message_id: UUID
    ref: str | None = None
    url: str | None = None
    sha256: str | None = None


_PAYLOAD = msgspec.json.Decoder(_Payload)


class ClaimedFile(msgspec.Struct, frozen=True):
    """One row of q.claim_media, in column order; `attempts` counts this one."""

    organization_id: UUID
    file_id: UUID
    attempts: int
    payload: str
    channel_account_id: UUID | None
    channel_type: str | None
    settings: str | None
    secrets: str | None
    file_name: str | None
    asked_at: datetime


class Result(msgspec.Struct, omit_defaults=True):
    """What app.settle_media writes for one file."""

    outcome: str
    """stored | expired | failed | retry | throttled | released."""
    code: str | None = None
    reason: str | None = None
    mime: str | None = None
    bytes: int | None = None
    sha256: str | None = None
    storage_key: str | None = None
    file_name: str | None = None
    retry_in_s: float | None = None
    dead: bool = False


class _Wrong(Exception):
    """Why a file is not here now; ``result`` says what that means."""

    def __init__(self, result: Result) -> None:
        super().__init__(result.reason)
        self.result = result


class _Stale(Exception):
    """The address has run out: it must be looked up anew."""


def _retry(code: str, reason: str) -> _Wrong:
    return _Wrong(Result("retry", code=code, reason=reason))


def _failed(code: str, reason: str) -> _Wrong:
    return _Wrong(Result("failed", code=code, reason=reason))


class Fetcher(Claimer):
    """The inbound files' loop of one worker process. ``strangers`` is a client that reaches public addresses
    alone (workers/guard.py), ``session`` the one for the operator's own provider address."""

    kind = "media"

    def __init__(
        self,
        db: Database,
        settings: Settings,
        session: aiohttp.ClientSession,
        strangers: aiohttp.ClientSession,
        worker: str,
    ) -> None:
        super().__init__(settings.work_poll_s)
        self._db, self._settings, self._worker = db, settings, worker
        self._session, self._strangers = session, strangers
        self._storage = Storage(settings.media_dir)
        self.leases = Leases(db, settings.work_lease_s, q.extend_media)
        self._behind: UUID | None = None
        """Where the next claim goes on; None: at the first organization."""

    def room(self) -> int:
        return AT_ONCE - len(self._tasks)

    def has_more(self) -> bool:
        return self._behind is not None

    def abandon(self) -> None:
        """Stop what is in flight; its leases run out."""
        for task in self._tasks:
            task.cancel()

    async def claim(self, room: int) -> int:
        lease = self.leases.new()
        async with self._db.connection("worker") as conn:
            rows = await conn.fetch(
                q.claim_media,
                lease.token,
                self._worker,
                room,
                timedelta(seconds=lease.seconds),
                self._behind,
            )
        self._behind = next((row["organization_id"] for row in rows if row["file_id"] is None), None)
        rows = [row for row in rows if row["file_id"] is not None]
        self.leases.hold(lease, len(rows))
        for row in rows:
            self.start(self._fetch(lease, ClaimedFile(*row)))
        return len(rows)

    async def _fetch(self, lease: Lease, job: ClaimedFile) -> None:
        """One file from claim to settlement."""
        started = time.perf_counter()
        outcome = "error"
        try:
            result = await self._work(lease, job)
            outcome = result.outcome if result is not None else "fenced"
        except (Unavailable, asyncpg.PostgresError) as error:
            log.warning("media.not_settled", error=type(error).__name__, file=str(job.file_id))
        except Exception:
            log.exception("media.failed", file=str(job.file_id))
        finally:
            self.leases.drop(lease)
        metrics.MEDIA_TOTAL.labels("in", outcome).inc()
        metrics.JOB_SECONDS.labels("media").observe(time.perf_counter() - started)
        log.info("media.settled", outcome=outcome, attempt=job.attempts, file=str(job.file_id))

    async def _work(self, lease: Lease, job: ClaimedFile) -> Result | None:
        """The result as it was written; None when the file was no longer ours."""
        try:
            for look in (1, 2):
                async with self._storage.incoming(self._settings.media_max_bytes) as file:
                    try:
                        async with asyncio.timeout(self._settings.provider_media_s):
                            result = await self._transfer(job, file)
                    except _Stale as error:
                        if look == 1:
                            continue
                        raise _retry(LINK_EXPIRED, "The provider's link does not work any more") from error
                    failpoint("media.after_download")
                    return await self._keep(lease, job, file, result)
            raise AssertionError("unreachable")
        except _Wrong as wrong:
            result = wrong.result
        except TimeoutError:
            result = Result("retry", code="timeout", reason="The provider was too slow with this file")
        except OSError as error:  # the client's own are judged where they happen: this is our disk
            log.error("media.disk", error=type(error).__name__, errno=error.errno)
            what = "is full" if error.errno == errno.ENOSPC else "cannot be written"
            result = Result("throttled", code="disk", reason=f"The hub's disk {what}", retry_in_s=WAIT_S)
        return await self._settle(lease, job, self._spent(job, result))

    def _spent(self, job: ClaimedFile, result: Result) -> Result:
        """Another try, or the end of them."""
        adapter = adapter_for(job.channel_type) if job.channel_type else None
        kept = timedelta(seconds=adapter.limits.inbound_keep_s if adapter is not None else 0.0)
        if result.outcome in ("retry", "throttled") and clock.now() - job.asked_at > kept:
            return Result("expired", code=result.code, reason=f"{result.reason}; the provider has dropped it")
        if result.outcome == "retry":
            if result.code == LINK_EXPIRED and job.attempts >= LINK_TRIES:
                return Result("expired", code=result.code, reason=result.reason)
            if job.attempts >= MEDIA_TRIES:
                return Result("failed", code=result.code, reason=result.reason, dead=True)
            result.retry_in_s = backoff_s(job.attempts)
        return result

    async def _transfer(self, job: ClaimedFile, file: Incoming) -> Result:
        """The bytes are in ``file``, whole and checked, when this returns. Raises _Wrong, _Stale,
        TimeoutError, OSError (our disk)."""
        adapter = adapter_for(job.channel_type) if job.channel_type else None
        if adapter is None or job.channel_account_id is None:
            raise _failed("no_channel", "The channel account of this message is gone")
        try:
            account, env = open_account(
                self._settings, job.organization_id, job.channel_account_id, job.settings, job.secrets
            )
        except ValueError as error:
            reason = "The access token cannot be read"
            raise _Wrong(Result("throttled", code="secret", reason=reason, retry_in_s=WAIT_S)) from error
        payload = _PAYLOAD.decode(job.payload)
        try:
            location = await self._locate(adapter, payload, account, env)
            size = int(location.file_size or 0) if str(location.file_size or 0).isdigit() else 0
            if size > self._settings.media_max_bytes:
                raise self._too_large(size)
            await self._download(adapter, location.url, account, file)
        except Unrenderable as error:
            raise _failed(error.code, error.reason) from error
        except TooLarge as error:
            raise self._too_large(None) from error
        if not file.size:
            raise _retry("empty", "The provider sent an empty file")
        await file.finish()
        for said in (payload.sha256, location.sha256):
            wanted = digest_of(said)
            if wanted is not None and wanted != file.sha256:
                raise _retry("checksum", "The bytes that came are not those that the provider announced")
        metrics.MEDIA_BYTES.labels("in").inc(file.size)
        return Result("stored", bytes=file.size, sha256=file.sha256)

    def _too_large(self, size: int | None) -> _Wrong:
        limit = readable(self._settings.media_max_bytes)
        what = f"It has {readable(size)}, and" if size else "It is larger than"
        return _failed("too_large", f"{what} this hub takes {limit}" if size else f"{what} {limit}")

    async def _locate(
        self, adapter: ChannelAdapter, payload: _Payload, account: dict[str, Any], env: ProviderEnv
    ) -> MediaLocation:
        """Where the bytes are, by the provider's word; a webhook's own address only where it names no id."""
        if payload.ref is None:
            if payload.url is None:
                raise _failed("no_reference", "The provider named no file")
            return MediaLocation(payload.url)
        request = adapter.render_media_lookup(payload.ref, account, env)
        answer = await perform(self._session, request, is_send=False)
        if isinstance(answer, NotSent):
            raise _Wrong(Result("throttled", code="unreachable", reason=answer.reason, retry_in_s=WAIT_S / 2))
        found = adapter.read_media_lookup(answer) if isinstance(answer, ResponseFacts) else answer
        if isinstance(found, MediaLocation):
            return found
        raise _Wrong(_result_of(found))

    async def _download(
        self, adapter: ChannelAdapter, address: str, account: dict[str, Any], file: Incoming
    ) -> None:
        """GET with the account's token, over at most HOPS redirects, each of which must lead to the provider
        again."""
        url = _url(address)
        for _ in range(HOPS):
            session = self._session_for(adapter, url)
            request = adapter.render_media_download(str(url), account)
            try:
                async with session.get(
                    url,
                    headers={**request.headers, "Accept-Encoding": "identity"},
                    allow_redirects=False,
                    timeout=timeout_of(self._settings, self._settings.provider_media_s),
                ) as response:
                    if response.status in (301, 302, 303, 307, 308):
                        url = _url(response.headers.get("Location", ""), url)
                        continue
                    _judge_status(response.status, response.headers)
                    await self._stream(response, file)
                    return
            except aiohttp.ClientConnectorError as error:
                if isinstance(error.os_error, Inside):
                    raise _failed("foreign_address", "The file lies inside somebody's network") from error
                raise _retry("unreachable", "The provider's file server could not be reached") from error
            except aiohttp.ClientError as error:
                raise _retry("broken", f"The download broke off ({type(error).__name__})") from error
        raise _retry("redirects", "The provider sends us from one address to the next")

    async def _stream(self, response: aiohttp.ClientResponse, file: Incoming) -> None:
        if (response.content_length or 0) > self._settings.media_max_bytes:
            raise TooLarge
        while True:
            try:
                chunk = await response.content.readany()
            except OSError as error:  # the line's, not the disk's
                raise _retry("broken", f"The download broke off ({type(error).__name__})") from error
            if not chunk:
                return
            await file.write(chunk)

    def _session_for(self, adapter: ChannelAdapter, url: URL) -> aiohttp.ClientSession:
        """The operator's own provider address may be anywhere (the sandbox is on this machine); the
        provider's other hosts must be public; nobody else is asked at all."""
        if url.origin() == URL(self._settings.meta_graph_base).origin():
            return self._session
        host = (url.host or "").lower().rstrip(".")
        if url.scheme == "https" and any(host == h or host.endswith("." + h) for h in adapter.media_hosts):
            return self._strangers
        raise _failed("foreign_address", "The file lies at an address that is not the provider's")

    async def _keep(self, lease: Lease, job: ClaimedFile, file: Incoming, result: Result) -> Result | None:
        """Place the bytes and write their row, together. None when the file was no longer ours."""
        key = Storage.key_of(job.organization_id, file.sha256)
        result.mime = sniff(file.head, job.file_name)
        result.file_name = clean_name(job.file_name)
        async with self._db.connection("worker") as conn, conn.transaction():
            await conn.execute(q.lock_media, job.organization_id, key)
            result.storage_key = await self._storage.keep(file, job.organization_id)
            failpoint("media.before_commit")
            is_ours = await conn.fetchval(
                q.settle_media, lease.token, job.organization_id, job.file_id, _ENCODE(result).decode()
            )
        return result if is_ours else None

    async def _settle(self, lease: Lease, job: ClaimedFile, result: Result) -> Result | None:
        async with self._db.connection("worker") as conn:
            is_ours = await conn.fetchval(
                q.settle_media, lease.token, job.organization_id, job.file_id, _ENCODE(result).decode()
            )
        return result if is_ours else None


def _url(address: str, base: URL | None = None) -> URL:
    """Raises _Wrong for what is no http address, or carries a user."""
    try:
        url = URL(address) if base is None else base.join(URL(address))
        if url.scheme in ("http", "https") and url.host and url.user is None and url.password is None:
            return url
    except ValueError:
        pass
    raise _failed("bad_address", "The file lies at an address that cannot be read")


def _judge_status(status: int, headers: Mapping[str, str]) -> None:
    if status == 200:
        return
    if status in (401, 403, 404, 410):
        raise _Stale
    if status == 429:
        after = headers.get("Retry-After", "")
        wait = float(after) if after.isascii() and after.isdigit() and len(after) < 6 else WAIT_S
        raise _Wrong(
            Result("throttled", code="http_429", reason="The provider asks us to wait", retry_in_s=wait)
        )
    raise _retry(f"http_{status}", f"The provider answered {status} instead of the file")


def _result_of(verdict: Verdict | object) -> Result:
    """What a refused lookup means."""
    match verdict:
        case Throttled():
            return Result("throttled", code=verdict.code, reason=verdict.reason, retry_in_s=verdict.after_s)
        case AuthBroken():
            reason = verdict.reason or "The provider refused our access"
            return Result("throttled", code=verdict.code, reason=reason, retry_in_s=WAIT_S)
        case Permanent():
            return Result("expired", code=verdict.code, reason="The provider no longer has this file")
    code, reason = getattr(verdict, "code", ""), getattr(verdict, "reason", "")
    return Result("retry", code=code or "no_answer", reason=reason or "The provider did not say where it is")


class MediaKeeper:
    """What nobody else does for files: takes over from dead workers, throws away what no message shows,
    measures. Every worker has one."""

    def __init__(self, db: Database, settings: Settings) -> None:
        self._db = db
        self._storage = Storage(settings.media_dir)
        self._place = ""

    async def reap(self) -> None:
        """Files whose lease ended."""
        async with self._db.connection("worker") as conn:
            row = await conn.fetchrow(q.reap_media, 200)
        released, failed = row if row is not None else (0, 0)
        if released or failed:
            log.warning("media.reaped", released=released, failed=failed)

    async def measure(self) -> None:
        """Depth and age of what is to be fetched."""
        async with self._db.connection("worker") as conn:
            rows = await conn.fetch(q.media_depth)
        found = {state: (n, oldest) for state, n, oldest in rows}
        for state in ("available", "running", "dead"):
            n, oldest = found.get(state, (0, 0.0))
            metrics.MEDIA_QUEUE.labels(state).set(n)
            metrics.MEDIA_OLDEST.labels(state).set(oldest or 0.0)

    async def clean(self) -> None:
        """Uploads that no message took within a day; then the next SWEEP_KEYS kept files, of which those go
        that no row names any more."""
        async with self._db.connection("worker") as conn:
            while (gone := await conn.fetchval(q.delete_unused_media, SWEEP_KEYS)) == SWEEP_KEYS:
                log.info("media.unused_deleted", rows=gone)
        await self._storage.sweep()
        keys = await self._storage.keys(self._place, SWEEP_KEYS)
        self._place = keys[-1] if len(keys) == SWEEP_KEYS else ""
        by_org: dict[str, list[str]] = {}
        for key in keys:
            by_org.setdefault(key.partition("/")[0], []).append(key)
        for org, mine in by_org.items():
            async with self._db.connection("worker") as conn:
                unknown = [row[0] for row in await conn.fetch(q.unknown_media, UUID(org), mine)]
            for key in unknown:
                await self._delete(UUID(org), key)

    async def _delete(self, organization_id: UUID, key: str) -> None:
        """Bytes that had no row a moment ago, if they still have none."""
        async with self._db.connection("worker") as conn, conn.transaction():
            await conn.execute(q.lock_media, organization_id, key)
            if await conn.fetch(q.unknown_media, organization_id, [key]):
                await self._storage.delete(key)
                log.info("media.bytes_deleted", organization_id=str(organization_id))
