"""Kept webhooks looked at again, and what the cleaning throws away."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest

from hub.channels.ingest import Ingest
from hub.db.pool import Database
from hub.settings import Settings
from tests import whatsapp as wa
from tests.factories import Org, make_org
from tests.whatsapp import Hook
from workers.failures import Failures
from workers.reaper import Reaper


@pytest.fixture
async def org(superuser: asyncpg.Connection) -> Org:
    return await make_org(superuser)


@pytest.fixture
def config(database_url: str) -> Settings:
    return wa.settings(database_url)


@pytest.fixture
async def hook(db: Database, config: Settings) -> AsyncIterator[Hook]:
    async with wa.hook(db, config) as running:
        yield running


async def test_I06_what_a_constraint_refused_is_stored_after_the_fix(
    hook: Hook, db: Database, config: Settings, superuser: asyncpg.Connection, org: Org
) -> None:
    raw = wa.messages(org, wa.text("201", "fine"), wa.text("202", "x" * 70_000))
    assert await hook.post(raw) == 200
    failures = Failures(db, Ingest(db, config), "w")
    await superuser.execute("update app.webhook_failures set due_at = now()")
    await failures.look_again()
    row = await superuser.fetchrow(
        "select state, attempts, last_error, due_at > now() as later from app.webhook_failures"
    )
    assert tuple(row)[:2] == ("available", 1)
    assert row["last_error"].startswith("23514")
    assert row["later"]
    await superuser.execute("alter table messages drop constraint messages_content_check")
    await superuser.execute("update app.webhook_failures set due_at = now()")
    await failures.look_again()
    assert await superuser.fetchval("select count(*) from app.webhook_failures") == 0
    assert await superuser.fetchval("select count(*) from messages") == 2


async def test_parts_of_a_shared_delivery_are_stored_after_the_fix(
    hook: Hook, db: Database, config: Settings, superuser: asyncpg.Connection, org: Org
) -> None:
    other = await make_org(superuser)
    raw = wa.body(wa.change(org, wa.text("201", "x" * 70_000)), wa.change(other, wa.text("201", "fine")))
    assert await hook.post(raw) == 200
    await superuser.execute("alter table messages drop constraint messages_content_check")
    await superuser.execute("update app.webhook_failures set due_at = now()")
    await Failures(db, Ingest(db, config), "w").look_again()
    assert await superuser.fetchval("select count(*) from app.webhook_failures") == 0
    assert await superuser.fetchval("select count(*) from messages where organization_id = $1", org.id) == 1


async def test_a_deletion_that_came_before_its_message_is_applied_later(
    hook: Hook, db: Database, config: Settings, superuser: asyncpg.Connection, org: Org
) -> None:
    id = wa.wamid()
    revoke = {
        "from": "201",
        "id": wa.wamid(),
        "timestamp": "1",
        "type": "revoke",
        "revoke": {"original_message_id": id},
    }
    assert await hook.post(wa.messages(org, revoke)) == 200
    assert await hook.post(wa.messages(org, wa.text("201", "regretted", id=id))) == 200
    await superuser.execute("update app.webhook_failures set due_at = now()")
    await Failures(db, Ingest(db, config), "w").look_again()
    assert await superuser.fetchval("select content is null and deleted_at is not null from messages")
    assert await superuser.fetchval("select count(*) from app.webhook_failures") == 0


async def test_what_stays_broken_is_dead_after_ten_looks(
    hook: Hook, db: Database, config: Settings, superuser: asyncpg.Connection, org: Org
) -> None:
    assert await hook.post(b"{") == 200
    failures = Failures(db, Ingest(db, config), "w")
    for _ in range(12):
        await superuser.execute("update app.webhook_failures set due_at = now()")
        await failures.look_again()
    assert tuple(await superuser.fetchrow("select state, attempts from app.webhook_failures")) == ("dead", 10)


async def test_I04_parked_statuses_and_old_keys_go_after_a_day(
    hook: Hook, db: Database, config: Settings, superuser: asyncpg.Connection, org: Org
) -> None:
    statuses = [wa.status("wamid.never1", "sent"), wa.status("wamid.never2", "read")]
    assert await hook.post(wa.body(wa.change(org, statuses=statuses))) == 200
    await superuser.execute(
        "update app.pending_statuses set created_at = now() - interval '25 hours'"
        " where provider_message_id = 'wamid.never1'"
    )
    await superuser.execute(
        "insert into app.idempotency_keys (organization_id, principal, key, body_hash, created_at)"
        " values ($1, 'p', 'old', '', now() - interval '25 hours'), ($1, 'p', 'new', '', now())",
        org.id,
    )
    reaper = Reaper(db, config)
    await reaper.clean()
    await reaper.measure()
    assert await superuser.fetchval("select array_agg(provider_message_id) from app.pending_statuses") == [
        "wamid.never2"
    ]
    assert await superuser.fetchval("select array_agg(key) from app.idempotency_keys") == ["new"]


async def test_I04_a_status_for_another_organizations_message_changes_nothing(
    hook: Hook, superuser: asyncpg.Connection, org: Org
) -> None:
    other = await make_org(superuser)
    id = wa.wamid()
    assert await hook.post(wa.messages(other, wa.text("201", "theirs", id=id))) == 200
    assert await hook.post(wa.body(wa.change(org, statuses=[wa.status(id, "read")]))) == 200
    assert await superuser.fetchval("select status from messages") == "RECEIVED"
