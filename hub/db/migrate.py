"""Bring a database to this version: roles, migrations, functions, policies.

Migrations run once, in order, each in a transaction; functions and policies are applied again whenever
their text changes. Two processes starting at once take turns (advisory lock). The login used here
(HUB_MIGRATE_URL) must be able to create roles; the hub itself never uses it.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from random import uniform
from typing import Final
from urllib.parse import unquote, urlsplit

import asyncpg
import msgspec
import structlog

import sql
from hub.failpoints import failpoint

log = structlog.get_logger()

#: Roles of the server. None may bypass row security or log in, except hub_runtime, which owns nothing.
_ROLES = """
do $$
declare
  r text;
begin
  foreach r in array
    array['hub_owner', 'hub_writer', 'anon', 'authenticated', 'service_role', 'hub_runtime']
  loop
    begin
      if not exists (select from pg_roles where rolname = r) then
        execute format('create role %I nologin noinherit', r);
      end if;
    exception when duplicate_object or unique_violation then null;
    end;
  end loop;
  alter role hub_runtime login noinherit;
  grant hub_writer to hub_owner with inherit true, set true;
  grant anon, authenticated, service_role to hub_runtime with inherit false, set true;
  if not pg_has_role(current_user, 'hub_owner', 'set') then
    execute format('grant hub_owner to %I with inherit true, set true', current_user);
  end if;
end $$;
"""
LOCK_WAIT: Final = "1s"
"""Whoever needs a table that we wait for waits behind us; the pools' lock_timeout is 2 s."""
LOCK_TRIES: Final = 60
"""With the pauses in between some three minutes."""
#: All that triggers and policies change, locked at once: one wait, and no half of it held for long.
_LOCK_ALL = """
do $$
declare
  tables text := (select string_agg(format('%I.%I', n.nspname, c.relname), ', '
                                    order by n.nspname, c.relname) from pg_class c
                    join pg_namespace n on n.oid = c.relnamespace
                   where n.nspname in ('public', 'app', 'auth') and c.relkind in ('r', 'p')
                     and c.oid not in ('app.schema_migrations'::regclass, 'app.applied_files'::regclass));
begin
  if tables is not null then
    execute 'lock table ' || tables || ' in access exclusive mode';
  end if;
end $$;
"""
_LOCK_KEY = 0x4855_4220_4D49_4752  # "HUB MIGR"


class MigrationReport(msgspec.Struct):
    """What was applied now, in order; ``functions`` and ``policies`` say whether those were re-applied."""

    applied: list[str]
    functions: bool
    policies: bool

    @property
    def changed(self) -> bool:
        return bool(self.applied) or self.functions or self.policies


class SchemaError(RuntimeError):
    """The database cannot be used by this version; the message says why and what to do."""


def migration_files() -> list[Path]:
    return sorted((sql.ROOT / "migrations").glob("[0-9]*.sql"))


def _digest(files: Iterable[Path]) -> str:
    h = hashlib.sha256()
    for path in files:
        h.update(path.name.encode())
        h.update(path.read_bytes())
    return h.hexdigest()


async def migrate(
    migrate_url: str, runtime_url: str | None = None, *, dry_run: bool = False
) -> MigrationReport:
    """Apply what is missing. ``runtime_url`` gives hub_runtime its password. Raises SchemaError."""
    conn = await asyncpg.connect(
        migrate_url, timeout=10, server_settings={"timezone": "UTC", "lock_timeout": LOCK_WAIT}
    )
    try:
        version = conn.get_server_version()
        if version.major < 18:
            raise SchemaError(
                f"PostgreSQL 18 or newer is needed; this server is {version.major}.{version.minor}."
            )
        await conn.execute("select pg_advisory_lock($1)", _LOCK_KEY)
        await conn.execute(_ROLES)
        await _set_runtime_password(conn, runtime_url)
        await _prepare_database(conn)
        await conn.execute("set role hub_owner")
        return await _apply(conn, dry_run)
    finally:
        await conn.close()


async def _set_runtime_password(conn: asyncpg.Connection, runtime_url: str | None) -> None:
    if runtime_url is None:
        return
    parts = urlsplit(runtime_url)
    if parts.username == "hub_runtime" and parts.password:
        quoted = await conn.fetchval("select quote_literal($1)", unquote(parts.password))
        await conn.execute(f"alter role hub_runtime password {quoted}")


async def _prepare_database(conn: asyncpg.Connection) -> None:
    database = await conn.fetchval("select quote_ident(current_database())")
    if await conn.fetchval("select to_regclass('app.schema_migrations') is not null"):
        return
    await conn.execute(f"grant create, temporary on database {database} to hub_owner")
    await conn.execute("alter schema public owner to hub_owner")
    await conn.execute(
        """
        create schema if not exists app authorization hub_owner;
        set role hub_owner;
        create table if not exists app.schema_migrations (
          name text not null, applied_at timestamptz not null default now(), sha256 text not null,
          constraint schema_migrations_pkey primary key (name));
        create table if not exists app.applied_files (
          kind text not null, sha256 text not null, applied_at timestamptz not null default now(),
          constraint applied_files_pkey primary key (kind));
        reset role;
        """
    )


async def _apply(conn: asyncpg.Connection, dry_run: bool) -> MigrationReport:
    report = MigrationReport(applied=[], functions=False, policies=False)
    done = {
        r["name"]: r["sha256"] for r in await conn.fetch("select name, sha256 from app.schema_migrations")
    }
    files = migration_files()
    unknown = sorted(set(done) - {f.name for f in files})
    if unknown:
        raise SchemaError(
            f"The database knows migrations that this version does not: {', '.join(unknown)}."
            " Run a newer version."
        )
    for path in files:
        digest = _digest([path])
        if path.name in done:
            if done[path.name] != digest:
                raise SchemaError(
                    f"{path.name} was changed after it was applied. Add a new migration instead."
                )
            continue
        report.applied.append(path.name)
        if dry_run:
            continue

        async def run(path: Path = path, text: str = path.read_text("utf-8"), digest: str = digest) -> None:
            await conn.execute(text)
            failpoint("migrate.mid_backfill")
            await conn.execute(
                "insert into app.schema_migrations (name, sha256) values ($1, $2)", path.name, digest
            )

        await _patiently(conn, path.name, run)
    for kind in ("functions", "policies"):
        kind_files = sorted((sql.ROOT / kind).glob("*.sql"))
        # policies name every table, so new tables or functions mean applying them again
        digest = _digest(kind_files)
        stored = await conn.fetchval("select sha256 from app.applied_files where kind = $1", kind)
        if stored == digest and not report.applied and not report.functions:
            continue
        setattr(report, kind, True)
        if dry_run:
            continue

        texts = [path.read_text(encoding="utf-8") for path in kind_files]

        async def renew(kind: str = kind, texts: list[str] = texts, digest: str = digest) -> None:
            await conn.execute(f"set local statement_timeout = '{LOCK_WAIT}'")
            await conn.execute(_LOCK_ALL)
            await conn.execute("set local statement_timeout = 0")
            for text in texts:
                await conn.execute(text)
            await conn.execute(
                "insert into app.applied_files (kind, sha256) values ($1, $2)"
                " on conflict (kind) do update set sha256 = excluded.sha256, applied_at = now()",
                kind,
                digest,
            )

        await _patiently(conn, kind, renew)
    return report


async def _patiently(conn: asyncpg.Connection, what: str, work: Callable[[], Awaitable[None]]) -> None:
    """`work` in a transaction; from the start again when a lock was not to be had, so that nobody who works
    with the product waits behind us for long. Raises SchemaError when it never was."""
    for n in range(1, LOCK_TRIES + 1):
        try:
            async with conn.transaction():
                await work()
            return
        except (
            asyncpg.LockNotAvailableError,
            asyncpg.DeadlockDetectedError,
            asyncpg.QueryCanceledError,
        ) as e:
            log.info("migrate.waits", what=what, attempt=n, error=type(e).__name__)
            if n == LOCK_TRIES:
                raise SchemaError(
                    f"{what}: another transaction has held a table for minutes. Find it in pg_stat_activity,"
                    " end it, and run this again."
                ) from e
        await asyncio.sleep(uniform(0.3, 1.0) * min(n, 5))


async def check_schema(conn: asyncpg.Connection) -> list[str]:
    """Migrations of this version that the database lacks; empty when it is ready (boot gate, guarantees
    G7)."""
    done = {r["name"] for r in await conn.fetch("select name from app.schema_version()")}
    return [f.name for f in migration_files() if f.name not in done]
