"""The WhatsApp webhook: who may post, what is stored before the 200, what is kept instead (HOOK-02, HOOK-09,
I-*)."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from hub.channels import ingest as ingest_module
from hub.channels.signing import meta_signature
from hub.db.pool import Database
from hub.settings import Settings
from tests import whatsapp as wa
from tests.factories import Org, keep_secret, make_org, until
from tests.whatsapp import APP_SECRET, VERIFY_TOKEN, Hook


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


async def counts(conn: asyncpg.Connection) -> tuple[int, ...]:
    row = await conn.fetchrow(
        "select (select count(*) from messages), (select count(*) from contacts),"
        " (select count(*) from conversations), (select count(*) from app.webhook_failures)"
    )
    return tuple(row)


async def test_HOOK_02_handshake_answers_the_bare_challenge(
    hook: Hook, superuser: asyncpg.Connection, config: Settings, org: Org
) -> None:
    await keep_secret(superuser, config, org, "verify_token", "account-token")
    for token, expected in ((VERIFY_TOKEN, 200), ("account-token", 200), ("wrong", 403), ("", 403)):
        query = {"hub.mode": "subscribe", "hub.challenge": "1158201444", "hub.verify_token": token}
        async with hook.client.get(hook.server.make_url(wa.PATH), params=query) as answer:
            assert answer.status == expected, token
            if expected == 200:
                assert (await answer.text(), answer.content_type) == ("1158201444", "text/plain")


async def test_HOOK_09_a_message_is_a_row_before_the_200_and_its_replay_changes_nothing(
    hook: Hook, db: Database, superuser: asyncpg.Connection, org: Org
) -> None:
    published: list[Any] = []
    db.publish = published.extend
    raw = wa.messages(org, wa.text("201001383533", "سلام"))
    assert await hook.post(raw) == 200
    row = await superuser.fetchrow(
        "select m.content, m.status, m.direction, c.first_name, v.status as conversation from messages m"
        " join contacts c on c.id = m.contact_id join conversations v on v.id = m.conversation_id"
    )
    assert tuple(row) == ("سلام", "RECEIVED", "INBOUND", "Mona", "OPEN")
    assert [e.table for e in published][:4] == ["contacts", "conversations", "conversations", "messages"]
    events = await superuser.fetchval("select count(*) from app.events where table_name = 'messages'")
    for _ in range(3):
        assert await hook.post(raw) == 200
    assert await superuser.fetchval("select count(*) from app.events where table_name = 'messages'") == events
    assert await counts(superuser) == (1, 1, 1, 0)
    await until(
        lambda: superuser.fetchval("select health = 'ok' from channel_accounts where id = $1", org.account_id)
    )


async def test_HOOK_02_several_entries_accounts_and_kinds_in_one_delivery(
    hook: Hook, superuser: asyncpg.Connection, org: Org
) -> None:
    other = await make_org(superuser)
    known = wa.wamid()
    assert await hook.post(wa.messages(org, wa.text("201", "one", id=known))) == 200
    raw = wa.body(
        wa.change(org, wa.text("202", "two")),
        wa.change(other, wa.text("201", "three")),
        wa.change(
            org,
            {"from": "201", "id": wa.wamid(), "timestamp": "1", "type": "reaction",
             "reaction": {"message_id": known, "emoji": "👍"}},
        ),
    )  # fmt: skip
    assert await hook.post(raw) == 200
    rows = await superuser.fetch(
        "select organization_id, content, message_type, reply_to_id is not null as is_reply from messages"
    )
    assert {tuple(r) for r in rows} == {
        (org.id, "one", "text", False),
        (org.id, "two", "text", False),
        (other.id, "three", "text", False),
        (org.id, "👍", "reaction", True),
    }


async def test_HOOK_02_a_sender_without_a_phone(hook: Hook, superuser: asyncpg.Connection, org: Org) -> None:
    part = wa.change(org, wa.text("", "hello", from_user_id="EG.3141"))
    del part["value"]["messages"][0]["from"]
    part["value"]["contacts"] = [{"profile": {"name": "نور", "username": "nour"}, "user_id": "EG.3141"}]
    assert await hook.post(wa.body(part)) == 200
    assert tuple(await superuser.fetchrow("select scheme, value from contact_identities")) == (
        "wa_bsuid",
        "EG.3141",
    )
    assert tuple(await superuser.fetchrow("select phones, first_name from contacts")) == ([], "نور")


async def test_I08_only_the_exact_bytes_signed_with_the_right_secret_pass(
    hook: Hook, superuser: asyncpg.Connection, org: Org
) -> None:
    raw = wa.messages(org, wa.text("201"))
    good = meta_signature(APP_SECRET, raw)
    for name, signature in {
        "none": None,
        "short": good[:-1],
        "long": good + "0",
        "upper": good.upper(),
        "sha1": "sha1=" + good[7:47],
        "other": meta_signature("other", raw),
        "non-ascii": "sha256=" + "é" * 64,
        "changed": meta_signature(APP_SECRET, raw + b" "),
        "re-serialised": meta_signature(
            APP_SECRET, json.dumps(json.loads(raw), ensure_ascii=False).encode() + b"\n"
        ),
    }.items():
        headers = {} if signature is None else {"X-Hub-Signature-256": signature}
        assert await hook.post(raw, secret=None, **headers) == 401, name
    two = [("X-Hub-Signature-256", good), ("X-Hub-Signature-256", good)]
    async with hook.client.post(hook.server.make_url(wa.PATH), data=raw, headers=two) as answer:
        assert answer.status == 401
    assert await counts(superuser) == (0, 0, 0, 0)
    assert await hook.post(raw) == 200


async def test_I08_an_accounts_own_secret_speaks_for_that_account_alone(
    hook: Hook, superuser: asyncpg.Connection, config: Settings, org: Org
) -> None:
    neighbour = await make_org(superuser)
    await keep_secret(superuser, config, org, "app_secret", "org-app-secret")
    mine, theirs = wa.change(org, wa.text("201", "mine")), wa.change(neighbour, wa.text("201", "theirs"))
    assert await hook.post(wa.body(mine), secret="org-app-secret") == 200
    assert await hook.post(wa.body(theirs), secret="org-app-secret") == 401
    assert (
        await hook.post(wa.body(mine, theirs), secret="org-app-secret") == 200
    )  # the neighbour's part is not ours to sign
    query = f"?channel_account_id={org.account_id}"
    assert await hook.post(wa.body(theirs), secret="org-app-secret", query=query) == 200
    assert await superuser.fetchval("select array_agg(content) from messages") == ["mine"]
    assert await hook.post(wa.body(theirs)) == 200
    assert (
        await superuser.fetchval("select count(*) from messages where organization_id = $1", neighbour.id)
        == 1
    )


async def test_a_number_claimed_by_a_second_organization_stays_with_the_first(
    hook: Hook, superuser: asyncpg.Connection, org: Org
) -> None:
    thief = await make_org(superuser)
    await superuser.execute(
        "update channel_accounts set settings = $2 where id = $1",
        thief.account_id,
        json.dumps({"phone_number_id": org.phone_number_id}),
    )
    assert await hook.post(wa.messages(org, wa.text("201"))) == 200
    assert await superuser.fetchval("select organization_id from messages") == org.id


async def test_a_signed_delivery_for_an_unknown_account_is_answered_and_dropped(
    hook: Hook, superuser: asyncpg.Connection, org: Org
) -> None:
    stranger = Org(uuid4(), uuid4(), "999999")
    assert (
        await hook.post(wa.body(wa.change(stranger, wa.text("201")), wa.change(org, wa.text("202")))) == 200
    )
    assert await counts(superuser) == (1, 1, 1, 0)
    await superuser.execute("update channel_accounts set is_active = false")
    other = await make_org(superuser)
    await superuser.execute("update channel_accounts set is_active = false where id = $1", other.account_id)
    assert await hook.post(wa.messages(other, wa.text("203"))) == 200
    assert await counts(superuser) == (1, 1, 1, 0)


async def test_I06_undecodable_bodies_with_a_good_signature_are_kept_once(
    hook: Hook, superuser: asyncpg.Connection, org: Org
) -> None:
    for raw in (b"{", b"\xff\xfe", b"[" * 100_000, b""):
        assert await hook.post(raw) == 200
        assert await hook.post(raw) == 200
    rows = await superuser.fetch("select reason, organization_id from app.webhook_failures")
    assert [r["organization_id"] for r in rows] == [None] * 4
    assert {r["reason"] for r in rows} <= {"undecodable", "unknown_kind"}
    assert await hook.post(b"{}", query=f"?channel_account_id={org.account_id}") == 200
    kept = "select organization_id from app.webhook_failures where body = '{}'::bytea"
    assert await superuser.fetchval(kept) == org.id


async def test_limits_of_a_delivery(hook: Hook, superuser: asyncpg.Connection, org: Org) -> None:
    size = 3 * 1024 * 1024
    assert await hook.post(b" " * (size + 1)) == 413
    raw = wa.messages(org, wa.text("201"))
    assert await hook.post(raw.ljust(size)) == 200
    assert await hook.post(raw, **{"Content-Encoding": "gzip"}) == 415

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(4):
            yield b" " * 1024 * 1024

    url = hook.server.make_url(wa.PATH)
    async with hook.client.post(url, data=pieces()) as answer:
        assert answer.status == 413
    assert await counts(superuser) == (1, 1, 1, 0)


async def test_I06_one_poisoned_message_of_64_is_kept_and_63_are_stored(
    hook: Hook, superuser: asyncpg.Connection, org: Org
) -> None:
    parts = [wa.text(f"20{n}", f"m{n}") for n in range(64)]
    parts[17]["text"]["body"] = "x" * 70_000
    parts[23]["text"]["body"] = "a\x00b"
    raw = wa.messages(org, *parts)
    assert await hook.post(raw) == 200
    assert (await counts(superuser))[0] == 63
    assert await superuser.fetchval("select content from messages where content like 'a%'") == "a\ufffdb"
    row = await superuser.fetchrow(
        "select organization_id, channel_account_id, reason, error, body from app.webhook_failures"
    )
    assert tuple(row)[:3] == (org.id, org.account_id, "refused")
    assert row["error"].startswith("23514 ")
    assert row["body"] == raw


async def test_a_kept_delivery_shows_no_organization_anothers_messages(
    hook: Hook, superuser: asyncpg.Connection, org: Org
) -> None:
    other = await make_org(superuser)
    raw = wa.body(wa.change(org, wa.text("201", "x" * 70_000)), wa.change(other, wa.text("201", "private")))
    assert await hook.post(raw) == 200
    row = await superuser.fetchrow("select organization_id, body from app.webhook_failures")
    assert row["organization_id"] == org.id
    assert b"private" not in row["body"]


async def test_I06_ten_thousand_statuses_and_unknown_kinds(
    hook: Hook, superuser: asyncpg.Connection, org: Org
) -> None:
    statuses = [wa.status(f"wamid.unknown{n}", "sent") for n in range(10_000)]
    part = wa.change(org, statuses=statuses)
    part["value"]["statuses"][5]["status"] = "teleported"
    assert await hook.post(wa.body(part)) == 200
    assert await superuser.fetchval("select count(*) from app.pending_statuses") == 9_999
    assert await superuser.fetchval("select array_agg(reason) from app.webhook_failures") == ["unknown_kind"]


async def test_I03_ten_parallel_webhooks_of_one_new_sender(
    hook: Hook, superuser: asyncpg.Connection, org: Org
) -> None:
    for sender in ("201", "202", "203"):
        raws = [wa.messages(org, wa.text(sender, f"{n}")) for n in range(10)]
        assert await asyncio.gather(*(hook.post(raw) for raw in raws)) == [200] * 10
    assert await counts(superuser) == (30, 3, 3, 0)
    assert await superuser.fetchval("select count(*) from contact_identities") == 3
    assert await superuser.fetch("select msg_seq from conversations") == [(10,)] * 3


async def test_I01_each_message_delivered_up_to_five_times_in_shuffled_batches(
    db: Database, config: Settings, superuser: asyncpg.Connection, org: Org
) -> None:
    rng = random.Random(20261124)
    parts = [wa.text(f"20{rng.randrange(40)}", f"m{n}") for n in range(300)]
    raws = []
    for _ in range(3):
        again = [p for p in parts for _ in range(rng.randint(0, 2))] + parts
        rng.shuffle(again)
        while again:
            size = rng.randint(1, 7)
            raws.append(wa.messages(org, *again[:size]))
            again = again[size:]
    async with wa.hook(db, config) as one, wa.hook(db, config) as two:
        gate = asyncio.Semaphore(32)

        async def post(raw: bytes) -> int:
            async with gate:
                return await rng.choice((one, two)).post(raw)

        assert set(await asyncio.gather(*(post(raw) for raw in raws))) == {200}
    assert await superuser.fetchval("select count(*) from messages") == 300
    seqs = [
        r[0]
        for r in await superuser.fetch(
            "select seq from app.events where organization_id = $1 order by seq", org.id
        )
    ]
    assert seqs == list(range(seqs[0], seqs[0] + len(seqs)))
    assert await superuser.fetchval(
        "select bool_and(c.msg_seq = n) from conversations c join lateral"
        " (select count(*) as n from messages m where m.conversation_id = c.id) x on true"
    )


async def test_edits_and_deletions_change_the_message_and_its_preview(
    hook: Hook, superuser: asyncpg.Connection, org: Org
) -> None:
    id = wa.wamid()
    edit = {"from": "201", "id": wa.wamid(), "timestamp": "1764000010", "type": "edit",
            "edit": {"original_message_id": id,
                     "message": {"type": "text", "text": {"body": "new"}}}}  # fmt: skip
    revoke = {
        "from": "201",
        "id": wa.wamid(),
        "timestamp": "1764000020",
        "type": "revoke",
        "revoke": {"original_message_id": id},
    }
    assert await hook.post(wa.messages(org, wa.text("201", "old", id=id), edit)) == 200
    row = (
        "select m.content, m.edited_at is not null, m.deleted_at is not null, c.last_message_preview"
        " from messages m join conversations c on c.id = m.conversation_id"
    )
    assert tuple(await superuser.fetchrow(row)) == ("new", True, False, "new")
    older = {**edit, "timestamp": "1764000005"}
    older["edit"] = {"original_message_id": id, "message": {"type": "text", "text": {"body": "older"}}}
    assert await hook.post(wa.messages(org, older)) == 200
    assert (await superuser.fetchval("select content from messages")) == "new"
    assert await hook.post(wa.messages(org, revoke)) == 200
    assert tuple(await superuser.fetchrow(row)) == (None, True, True, "[deleted]")
    assert await hook.post(wa.messages(org, edit)) == 200
    assert (await superuser.fetchval("select content from messages")) is None


async def test_an_edit_before_its_message_is_kept_for_later(
    hook: Hook, superuser: asyncpg.Connection, org: Org
) -> None:
    revoke = {
        "from": "201",
        "id": wa.wamid(),
        "timestamp": "1",
        "type": "revoke",
        "revoke": {"original_message_id": "wamid.later"},
    }
    assert await hook.post(wa.messages(org, revoke)) == 200
    assert await superuser.fetchval("select reason from app.webhook_failures") == "unknown_target"


async def test_other_news_of_a_provider(hook: Hook, superuser: asyncpg.Connection, org: Org) -> None:
    """A changed number joins the contact, a template gets its verdict (by the owner's id), an opt-out is
    noted."""
    await superuser.execute(
        "insert into templates (organization_id, name, language, status, category)"
        " values ($1, 'order', 'en', 'PENDING', 'UTILITY')",
        org.id,
    )
    waba = await superuser.fetchval(
        "select settings ->> 'waba_id' from channel_accounts where id = $1", org.account_id
    )
    moved = {"from": "201", "id": wa.wamid(), "timestamp": "1", "type": "system",
             "system": {"type": "user_changed_number", "body": "changed", "wa_id": "299"}}  # fmt: skip
    stop = wa.status(wa.wamid(), "failed", errors=[{"code": 131050, "title": "User opted out"}])
    stop["recipient_id"] = "201"
    verdict = {"field": "message_template_status_update", "value": {
        "event": "APPROVED", "message_template_id": 77,
        "message_template_name": "order", "message_template_language": "en"}}  # fmt: skip
    assert await hook.post(wa.body(wa.change(org, wa.text("201")), waba=waba)) == 200
    assert await hook.post(wa.body(wa.change(org, moved, statuses=[stop]), verdict, waba=waba)) == 200
    assert tuple(await superuser.fetchrow("select phones, opt_in_status from contacts")) == (
        ["+201", "+299"],
        False,
    )
    assert tuple(await superuser.fetchrow("select status, provider_id from templates")) == ("APPROVED", "77")
    assert await superuser.fetchval("select value from suppressions") == "201"


async def test_webhooks_without_a_spool_are_refused_while_the_database_is_away(
    config: Settings, org: Org
) -> None:
    away = Database("postgresql://hub_runtime:x@127.0.0.1:1/none", ("ingest",))
    await away.open()
    async with wa.hook(away, config) as hook:
        assert await hook.post(wa.messages(org, wa.text("201"))) == 503
        assert hook.headers["Retry-After"] == "2"
        assert (
            await hook.post(wa.messages(org, wa.text("201")), secret="wrong") == 503
        )  # it may be an account's own secret
    await away.close()


async def test_an_event_that_meets_a_bug_is_kept_and_its_neighbours_are_stored(
    hook: Hook, superuser: asyncpg.Connection, org: Org, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = ingest_module._place

    def trip(parts: Any, event: Any, account: Any) -> None:
        if event.content == "two":
            raise KeyError("status")
        place(parts, event, account)

    monkeypatch.setattr(ingest_module, "_place", trip)
    raw = wa.messages(org, *(wa.text("201", word) for word in ("one", "two", "three")))
    assert await hook.post(raw) == 200
    rows = await superuser.fetch("select content from messages order by conv_seq")
    assert [r["content"] for r in rows] == ["one", "three"]
    kept = await superuser.fetchrow("select organization_id, reason, error from app.webhook_failures")
    assert tuple(kept) == (org.id, "parser_error", "KeyError")


async def test_news_that_the_database_refuses_is_kept_for_the_accounts_organization(
    hook: Hook, superuser: asyncpg.Connection, org: Org
) -> None:
    await superuser.execute(
        "alter table suppressions add constraint nobody_stops check (value is null) not valid"
    )
    assert await hook.post(wa.messages(org, wa.text("201"))) == 200
    raw = wa.body(
        wa.change(
            org, statuses=[wa.status(wa.wamid(), "failed", errors=[{"code": 131050, "title": "stopped"}])]
        )
    )
    assert await hook.post(raw) == 200
    kept = await superuser.fetchrow(
        "select organization_id, channel_account_id, reason, error from app.webhook_failures"
    )
    assert tuple(kept)[:3] == (org.id, org.account_id, "not_applied")
    assert "201" not in kept["error"].removeprefix("23514"), "a constraint's DETAIL quotes the customer"


async def test_a_delivery_of_an_organization_that_went_meanwhile_is_answered_200(
    hook: Hook, db: Database, superuser: asyncpg.Connection, org: Org
) -> None:
    assert await hook.post(wa.messages(org, wa.text("201"))) == 200
    await superuser.execute("delete from organizations where id = $1", org.id)
    assert await hook.post(wa.messages(org, wa.text("201"))) == 200
    assert await counts(superuser) == (0, 0, 0, 0)


async def test_strangers_who_crowd_the_look_ups_wait_a_second_and_fill_no_spool(
    db: Database, config: Settings, superuser: asyncpg.Connection, org: Org, tmp_path: Path
) -> None:
    await keep_secret(superuser, config, org, "app_secret", "own")
    async with wa.hook(db, config, tmp_path / "spool") as hook:
        for _ in range(4):  # as many as may look at once
            await hook.ingest._lookups.acquire()
        raw = wa.messages(org, wa.text("201", "mine"))
        assert await hook.post(raw, secret="own") == 503
        assert hook.headers["Retry-After"] == "2"
        assert await hook.post(wa.messages(org, wa.text("202"))) == 200, "the operator's need no look"
        assert hook.spool is not None and hook.spool.is_empty
        hook.ingest._lookups.release()
        assert await hook.post(raw, secret="own") == 200
    assert (await counts(superuser))[0] == 2
