"""Kept webhooks looked at again, and what the cleaning throws away."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from hub import clock
from hub.channels.ingest import Delivery, Ingest
from hub.db.pool import Database
from hub.errors import Unavailable
from hub.settings import Settings
from tests import whatsapp as wa
from tests.factories import Org, make_contact, make_member, make_org
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


async def test_one_poisoned_delivery_does_not_stop_the_others(
    hook: Hook, db: Database, config: Settings, superuser: asyncpg.Connection, org: Org
) -> None:
    bad = wa.messages(org, wa.text("201", "bad" * 30_000))
    good = wa.messages(org, wa.text("202", "good" * 20_000))
    assert {await hook.post(raw) for raw in (bad, good)} == {200}
    await superuser.execute("alter table messages drop constraint messages_content_check")
    ingest = Ingest(db, config)
    deliver = ingest.deliver

    async def trip(*deliveries: Delivery, **options: Any) -> bool:
        if b"badbad" in deliveries[0].body:
            raise Unavailable("It runs out of time") if n % 2 else RuntimeError("a bug")
        return await deliver(*deliveries, **options)

    ingest.deliver = trip  # type: ignore[method-assign]
    for n in range(12):
        await superuser.execute("update app.webhook_failures set due_at = now() - interval '1 hour'")
        await Failures(db, ingest, "w").look_again()
        if n == 0:
            assert await superuser.fetchval("select left(content, 4) from messages") == "good"
    row = await superuser.fetchrow("select state, attempts, last_error from app.webhook_failures")
    assert tuple(row) == ("dead", 10, "Unavailable while it was looked at")


async def test_a_delivery_whose_workers_die_ten_times_is_not_claimed_again(
    hook: Hook, db: Database, config: Settings, superuser: asyncpg.Connection, org: Org
) -> None:
    assert await hook.post(b"{") == 200
    await superuser.execute(
        "update app.webhook_failures set state = 'running', attempts = 10, lease_token = gen_random_uuid(),"
        " lease_until = now() - interval '1 second', claimed_by = 'gone'"
    )
    await Failures(db, Ingest(db, config), "w").look_again()
    assert tuple(await superuser.fetchrow("select state, attempts from app.webhook_failures")) == ("dead", 10)


async def test_S09_what_is_past_its_time_goes_and_the_rest_stays(
    db: Database, config: Settings, superuser: asyncpg.Connection, org: Org
) -> None:
    quiet = await make_org(superuser)
    member = await make_member(superuser, org)
    await superuser.execute(
        "insert into auth.sign_in_failures (account, network, last_at)"
        " values ('old', '-', now() - interval '25 hours'), ('new', '-', now())"
    )
    await superuser.execute(
        "insert into app.mail_outbox (recipient, template, payload, created_at)"
        " values ('old', 't', '', now() - interval '31 days'), ('new', 't', '', now())"
    )
    sessions = await superuser.fetch(
        "insert into auth.sessions (user_id, revoked_at)"
        " select $1, d from unnest($2::timestamptz[]) d returning id",
        member.id,
        [clock.now() - timedelta(days=31), clock.now() - timedelta(days=1), None],
    )
    ended, open_ = sessions[0]["id"], sessions[2]["id"]
    # four of one session, each the child of the one before; the last one never used
    parent = None
    for n in range(4):
        parent = await superuser.fetchval(
            "insert into auth.refresh_tokens (session_id, token_hash, parent_id, used_at)"
            " values ($1, $2, $3, case when $4 then now() - interval '40 days' end) returning id",
            open_,
            bytes([n]),
            parent,
            n < 3,
        )
    await superuser.execute(
        "insert into auth.refresh_tokens (session_id, token_hash) values ($1, '\\x99')", ended
    )
    await superuser.execute(
        "insert into audit_log (organization_id, actor_kind, action, at)"
        " values ($1, 'user', 'old', now() - interval '401 days'),"
        " ($1, 'user', 'new', now() - interval '399 days')",
        org.id,
    )
    for at in (org, quiet):
        await make_contact(superuser, at)
    await superuser.execute(
        "update app.events set at = now() - interval '401 days' where organization_id = $1 or seq = 1",
        quiet.id,
    )
    heads = await superuser.fetch(
        "select organization_id, max(seq) as seq from app.events group by 1 order by 1"
    )
    reaper = Reaper(db, config)
    await reaper.clean()
    assert await superuser.fetchval("select array_agg(account) from auth.sign_in_failures") == ["new"]
    assert await superuser.fetchval("select array_agg(recipient) from app.mail_outbox") == ["new"]
    assert await superuser.fetchval("select array_agg(action) from audit_log") == ["new"]
    assert {r["id"] for r in await superuser.fetch("select id from auth.sessions")} >= {
        sessions[1]["id"],
        open_,
    }
    assert await superuser.fetchval("select count(*) from auth.sessions where id = $1", ended) == 0
    left = await superuser.fetchval(
        "select array_agg(token_hash order by token_hash) from auth.refresh_tokens"
    )
    assert left == [b"\x02", b"\x03"], "the newest and its parent, which may still be asked for"
    assert heads == await superuser.fetch(
        "select organization_id, max(seq) as seq from app.events group by 1 order by 1"
    )
    assert (
        await superuser.fetchval("select count(*) from app.events where organization_id = $1", quiet.id) == 1
    )
    assert await superuser.fetchval("select min(seq) from app.events where organization_id = $1", org.id) == 2


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
