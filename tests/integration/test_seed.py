"""`hub seed`: a lively demo, once; keys on disk, hashes in the database."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import asyncpg
import pytest

from hub.auth.passwords import verify_password
from hub.channels.media import HEAD_BYTES, sniff
from hub.channels.media_storage import Storage
from hub.db.seed import seed
from hub.settings import Secret, Settings
from tests.factories import Servers


@pytest.fixture
def settings(servers: Servers, tmp_path: Path) -> Settings:
    return Settings(
        database_url=servers.database_url,
        migrate_url=servers.migrate_url,
        redis_url="redis://127.0.0.1:1",
        secret_keys=(Secret("k" * 40),),
        data_dir=tmp_path,
        demo=True,
    )


async def test_the_demo_is_made_once_and_its_secrets_stay_outside_the_database(
    settings: Settings, superuser: asyncpg.Connection
) -> None:
    keys = await seed(settings)
    again = await seed(settings)
    assert again == keys
    assert await superuser.fetchval("select count(*) from organizations") == 1
    assert (settings.data_dir / "keys.json").stat().st_mode & 0o777 == 0o600
    stored = await superuser.fetchval(
        "select encrypted_password from auth.users where email = $1", keys.owner["email"]
    )
    assert verify_password(stored, keys.owner["password"] or "")
    dump = "\n".join(
        [
            str(r)
            for t in (
                "public.api_keys",
                "app.api_key_hashes",
                "app.secrets",
                "app.signing_keys",
                "auth.users",
                "app.events",
                "public.channel_accounts",
            )
            for r in await superuser.fetch(f"select * from {t}")
        ]
    )
    for secret in (keys.organization_key, keys.owner["password"], "sandbox-token"):
        assert secret
        assert secret not in dump


async def test_the_demo_has_unread_and_answered_conversations_in_two_languages(
    settings: Settings, superuser: asyncpg.Connection
) -> None:
    await seed(settings)
    rows = await superuser.fetch(
        "select status, last_message_preview, msg_seq, inbound_count, waiting_since from conversations"
    )
    assert {r["status"] for r in rows} == {"OPEN", "CLOSED"}
    assert any(r["waiting_since"] for r in rows)
    assert any("\u0600" <= ch <= "\u06ff" for r in rows for ch in r["last_message_preview"])
    assert await superuser.fetchval(
        "select bool_and(c.msg_seq = (select count(*) from messages m where m.conversation_id = c.id))"
        " from conversations c"
    )


async def test_reset_makes_a_new_demo(settings: Settings, superuser: asyncpg.Connection) -> None:
    first = await seed(settings)
    second = await seed(settings, reset=True)
    assert first.organization_id != second.organization_id
    assert await superuser.fetchval("select count(*) from organizations") == 1


async def test_outside_the_demo_only_the_keys_are_made(
    settings: Settings, superuser: asyncpg.Connection
) -> None:
    import msgspec

    keys = await seed(msgspec.structs.replace(settings, demo=False))
    assert keys.anon_key
    assert keys.organization_key is None
    assert await superuser.fetchval("select count(*) from organizations") == 0


async def test_MSG_03_the_demo_shows_pictures_and_a_document(
    settings: Settings, superuser: asyncpg.Connection
) -> None:
    await seed(settings)
    await seed(settings, reset=True)
    files = await superuser.fetch(
        "select f.*, m.message_type, m.metadata -> 'media' -> 0 as shown from media_files f"
        " join messages m on m.organization_id = f.organization_id and m.id = f.message_id"
    )
    assert sorted(file["message_type"] for file in files) == ["document", "image", "image"]
    storage = Storage(settings.media_dir)
    for file in files:
        data = storage.path_of(file["storage_key"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == file["sha256"]
        assert sniff(data[:HEAD_BYTES]) == file["mime_type"]
        assert json.loads(file["shown"])["file_id"] == str(file["id"])
    templates = await superuser.fetch("select * from templates where category = 'UTILITY'")
    assert {(t["name"], t["language"], t["status"]) for t in templates} == {
        ("hello_world", "en_US", "APPROVED"),
        ("order_update", "en", "APPROVED"),
        ("order_update", "ar", "APPROVED"),
    }
