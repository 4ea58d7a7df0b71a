"""MSG-03: files from a customer's phone to the agents and back, against the sandbox."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from hub.channels.signing import meta_signature
from hub.db.embedded import EmbeddedValkey
from hub.db.pool import Database
from tests import whatsapp as wa
from tests.factories import Member, Org, Servers, make_conversation, until
from tests.fakes.whatsapp import APP_SECRET
from tests.media import MP4, OGG, PDF, WEBP, World, digest, media_world, png, ref
from workers.media import MediaKeeper


@pytest.fixture
async def world(
    servers: Servers, valkey: EmbeddedValkey, tmp_path: Path, org: Org, agent: Member,
    superuser: asyncpg.Connection,
) -> AsyncIterator[World]:  # fmt: skip
    async with media_world(servers, valkey.url, tmp_path, org, agent, superuser) as world:
        yield world


INBOUND: list[tuple[str, bytes, str, str | None, dict[str, Any], dict[str, Any]]] = [
    ("image", png(40, 30), "image/png", None, {"caption": "shop"}, {"mime": "image/png"}),
    ("audio", OGG, "audio/ogg; codecs=opus", None, {"voice": True}, {"mime": "audio/ogg", "voice": True}),
    ("document", PDF, "application/pdf", "فاتورة رقم ٢٠.pdf", {},
     {"mime": "application/pdf", "filename": "فاتورة رقم ٢٠.pdf"}),
    ("sticker", WEBP, "image/webp", None, {}, {"mime": "image/webp"}),
    ("video", MP4, "video/mp4", None, {}, {"mime": "video/mp4"}),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "data", "said", "filename", "part", "wanted"), INBOUND)
async def test_MSG_03_a_customers_file_reaches_the_agent(
    world: World, kind: str, data: bytes, said: str, filename: str | None, part: dict[str, Any],
    wanted: dict[str, Any],
) -> None:  # fmt: skip
    id = await world.customer_sends(kind, data, said, filename, **part)
    pending = await world.shown(id)
    assert (pending["state"], pending["kind"]) == ("pending", kind)
    waiting = await world.hub.get(f"/functions/v1/media/{pending['file_id']}", token=world.token)
    assert waiting.status == 409
    before = await world.conn.fetchval("select max(seq) from app.events")
    async with world.worker():
        shown = await world.reaches(id, "stored")
    assert shown["file_id"] == pending["file_id"]
    assert shown["bytes"] == len(data)
    assert shown["sha256"] == digest(data)
    assert {key: shown.get(key) for key in wanted} == wanted
    assert not {"ref", "url", "reason", "code"} & set(shown)
    assert await world.bytes_of(shown["file_id"]) == data
    events = await world.conn.fetch(
        "select type, payload from app.events where seq > $1 and entity_id = $2 order by seq", before, id
    )
    assert [row["type"] for row in events] == ["message.updated"]
    row = json.loads(events[0]["payload"])["row"]
    assert row["metadata"]["media"][0] == shown
    assert await world.conn.fetchval("select count(*) from app.jobs") == 0


async def test_MSG_03_a_delivery_repeated_is_one_file(world: World) -> None:
    await world.sandbox.fault("duplicate", params={"copies": 3})
    await world.sandbox.fault("twin")
    id = await world.customer_sends("image", png(), "image/png")
    async with world.worker(), world.worker():
        await world.reaches(id, "stored")
        await until(world.sandbox.quiet)
    assert await world.conn.fetchval("select count(*) from media_files") == 1


async def test_MSG_03_a_link_that_expired_is_looked_up_anew(world: World) -> None:
    await world.sandbox.fault("media_expired", next=1)
    id = await world.customer_sends("image", png(), "image/png")
    async with world.worker():
        await world.reaches(id, "stored")
    requests = (await world.sandbox.ctl("GET", "/outbox?limit=100"))["requests"]
    assert [r["status"] for r in requests if "_media" in r["path"]] == [404, 200]


async def test_MSG_03_a_file_that_the_provider_dropped_has_expired(world: World) -> None:
    id = await world.customer_sends("image", png(), "image/png")
    [media] = await world.conn.fetchrow("select provider_ref from media_files")
    status, _ = await world.sandbox.graph("DELETE", f"/{media}")
    assert status == 200
    async with world.worker():
        shown = await world.reaches(id, "expired")
    assert shown["reason"] == "The provider no longer has this file"
    gone = await world.hub.get(f"/functions/v1/media/{shown['file_id']}", token=world.token)
    assert (gone.status, gone.json["details"]["state"]) == (404, "expired")


async def test_MSG_03_a_link_that_never_works_ends(world: World) -> None:
    await world.sandbox.fault("media_expired", next=100)
    id = await world.customer_sends("image", png(), "image/png")
    async with world.worker():
        for attempt in (1, 2):
            await until(lambda n=attempt: tried(world, n), what=f"try {attempt}")
            await world.conn.execute("update app.jobs set due_at = now()")
        shown = await world.reaches(id, "expired")
    assert (shown["code"], shown["reason"]) == (
        "link_expired",
        "The provider's link does not work any more",
    )


async def tried(world: World, attempts: int) -> bool:
    row = await world.conn.fetchrow("select state, attempts from app.jobs")
    return row is not None and (row["state"], row["attempts"]) == ("available", attempts)


async def test_MSG_03_other_bytes_than_announced_are_not_kept(world: World) -> None:
    await world.sandbox.fault("media_corrupt", next=1)
    id = await world.customer_sends("image", png(), "image/png")
    async with world.worker():
        await until(lambda: tried(world, 1), what="the refused download")
        assert (await world.shown(id))["state"] == "pending"
        assert "announced" in await world.conn.fetchval("select last_error from app.jobs")
        await world.conn.execute("update app.jobs set due_at = now()")
        shown = await world.reaches(id, "stored")
    assert await world.bytes_of(shown["file_id"]) == png()


async def test_MSG_03_bytes_that_stay_wrong_end_as_a_failure_that_an_operator_finds(world: World) -> None:
    await world.sandbox.fault("media_corrupt", next=100)
    id = await world.customer_sends("image", png(), "image/png")
    await world.conn.execute("update app.jobs set attempts = 7")
    async with world.worker():
        shown = await world.reaches(id, "failed")
    assert shown["code"] == "checksum"
    job = await world.conn.fetchrow("select state, last_error from app.jobs")
    assert job is not None
    assert (job["state"], "announced" in job["last_error"]) == ("dead", True)
    assert kept(world) == []


def kept(world: World) -> list[Path]:
    """Every file under the hub's media folder."""
    return [p for p in (world.settings.data_dir / "media").rglob("*") if p.is_file()]


async def test_MSG_03_a_file_above_the_limit_is_not_fetched(world: World) -> None:
    data = png(3, 3) + bytes(200_000)
    id = await world.customer_sends("image", data, "image/png")
    async with world.worker(media_max_bytes=100_000):
        shown = await world.reaches(id, "failed")
    assert shown["code"] == "too_large"
    assert "KB" in shown["reason"]
    assert kept(world) == []


async def test_MSG_03_a_page_disguised_as_a_picture_is_stored_as_what_it_is(world: World) -> None:
    data = b"<!doctype html><script>fetch('/functions/v1/switch-organization')</script>"
    id = await world.customer_sends("image", data, "image/png")
    async with world.worker():
        shown = await world.reaches(id, "stored")
    assert (shown["kind"], shown["mime"]) == ("image", "text/html")
    back = await world.hub.get(f"/functions/v1/media/{shown['file_id']}", token=world.token)
    assert back.headers["Content-Type"] == "application/octet-stream"
    assert back.headers["Content-Disposition"].startswith("attachment")


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "localhost", "2130706433", "0x7f.1", "①②⑦.0.0.1"]
)
async def test_MSG_03_X11_an_address_in_a_webhook_reaches_no_listener_of_ours(
    world: World, host: str
) -> None:
    reached: list[bytes] = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reached.append(await reader.read(100))
        writer.close()

    servers = [await asyncio.start_server(listen, "127.0.0.1", 0)]
    port = servers[0].sockets[0].getsockname()[1]
    servers.append(await asyncio.start_server(listen, "::1", port))
    try:
        for scheme in ("http", "https"):
            id = await pushed(world, f"{scheme}://{host}:{port}/latest/meta-data")
            async with world.worker():
                shown = await world.reaches(id, "failed")
            assert shown["code"] in ("foreign_address", "bad_address"), shown
    finally:
        for server in servers:
            server.close()
            await server.wait_closed()
    assert reached == []


async def pushed(world: World, url: str) -> UUID:
    """A message whose webhook names an address instead of an id."""
    message = {**wa.text("201001383533"), "type": "image", "image": {"url": url, "mime_type": "image/png"}}
    del message["text"]
    body = wa.messages(Org(world.org.id, world.org.account_id, "100000000000001"), message)
    answer = await world.hub.post(
        wa.PATH, data=body, headers={"X-Hub-Signature-256": meta_signature(APP_SECRET, body)}
    )
    assert answer.status == 200
    id: UUID = await world.conn.fetchval(
        "select id from messages where provider_message_id = $1", message["id"]
    )
    return id


async def test_MSG_03_X11_addresses_elsewhere_are_not_asked(world: World) -> None:
    for url in (
        "http://169.254.169.254/latest/meta-data",
        "https://evil.example/picture.png",
        "https://lookaside.fbsbx.com.evil.example/x",
        "https://user:pass@lookaside.fbsbx.com/x",
        "http://lookaside.fbsbx.com/x",
        "file:///etc/passwd",
        "gopher://127.0.0.1:6379/_FLUSHALL",
    ):
        id = await pushed(world, url)
        async with world.worker():
            shown = await world.reaches(id, "failed")
        assert shown["code"] in ("foreign_address", "bad_address"), (url, shown)


async def test_MSG_03_one_flood_of_files_does_not_stop_the_other_organization(
    world: World, superuser: asyncpg.Connection
) -> None:
    """The claim goes round: of two organizations both get a place in the first batch."""
    other = await superuser.fetchval("insert into organizations (name) values ('Other') returning id")
    for org, n in ((world.org.id, 40), (other, 1)):
        await superuser.execute(
            "with f as (insert into media_files (organization_id)"
            " select $1 from generate_series(1, $2) returning id)"
            " insert into app.jobs (organization_id, kind, key, payload) select $1, 'media', id::text,"
            " jsonb_build_object('message_id', uuidv7()) from f",
            org,
            n,
        )
    rows = await superuser.fetch("select * from app.claim_media(uuidv7(), 'w', 4, '30 s', null)")
    assert len(rows) == 4
    assert {row["organization_id"] for row in rows} == {world.org.id, other}
    more = [
        await superuser.fetch("select * from app.claim_media(uuidv7(), 'w', 100, '30 s', null)")
        for _ in range(2)
    ]
    assert len(rows) + sum(map(len, more)) == 9  # 8 at once of one organization, and the other's only one


@pytest.mark.parametrize("failpoint", ["media.after_download", "media.before_commit"])
async def test_MSG_03_a_worker_killed_over_a_file_only_repeats_work(world: World, failpoint: str) -> None:
    data = png(64, 64)
    async with world.process(HUB_FAILPOINTS=f"{failpoint}=kill") as first:
        id = await world.customer_sends("image", data, "image/png")
        assert await first.wait() == -signal.SIGKILL
    assert (await world.shown(id))["state"] == "pending"
    async with world.process():
        shown = await world.reaches(id, "stored", timeout_s=30)
    assert await world.bytes_of(shown["file_id"]) == data
    assert [p.name for p in kept(world) if p.parent.name != "tmp"] == [digest(data)]
    assert await world.conn.fetchval("select count(*) from app.jobs") == 0


async def test_MSG_03_three_workers_lost_over_a_file_end_it(world: World) -> None:
    id = await world.customer_sends("image", png(), "image/png")
    await world.conn.execute("update app.jobs set lost_leases = 2")
    async with world.process(HUB_FAILPOINTS="media.after_download=kill") as first:
        assert await first.wait() == -signal.SIGKILL
    async with world.worker():
        shown = await world.reaches(id, "failed", timeout_s=30)
    assert shown["code"] == "lost_leases"


async def test_MSG_03_a_customer_who_is_erased_takes_his_files_along(world: World) -> None:
    """Also those that a worker is fetching at that moment: nothing of them stays claimed."""
    waiting = await world.customer_sends("image", png(), "image/png")
    taken = await world.customer_sends("image", png(9, 9), "image/png")
    rows = await world.conn.fetch("select * from app.claim_media($1, 'w', 1, '1 ms', null)", waiting)
    assert len(rows) == 1
    contact = await world.conn.fetchval("select contact_id from messages where id = $1", taken)
    await world.conn.execute("delete from contacts where id = $1", contact)
    assert await world.conn.fetchval("select count(*) from media_files") == 0
    assert await world.conn.fetchval("select count(*) from app.jobs") == 0
    late = await world.conn.fetchval(
        "select app.settle_media($1, $2, $3, $4)",
        waiting,
        world.org.id,
        rows[0]["file_id"],
        '{"outcome": "stored"}',
    )
    assert late is False


async def test_MSG_03_a_message_deleted_while_its_file_is_fetched_keeps_none(world: World) -> None:
    id = await world.customer_sends("image", png(), "image/png")
    [row] = await world.conn.fetch("select * from app.claim_media($1, 'w', 1, '1 min', null)", id)
    gone = await world.hub.delete(f"/rest/v1/messages?id=eq.{id}", token=world.token)
    assert gone.status in (200, 204), gone
    late = await world.conn.fetchval(
        "select app.settle_media($1, $2, $3, $4)", id, world.org.id, row["file_id"], '{"outcome": "stored"}'
    )
    assert late is False
    assert await world.conn.fetchval("select metadata from messages where id = $1", id) == "{}"
    assert await world.conn.fetchval("select count(*) from media_files") == 0


OUTBOUND = [
    ("picture.png", png(50, 20), "image", "image/png", "Look"),
    ("clip.mp4", MP4, "video", "video/mp4", "As promised"),
    ("note.ogg", OGG, "audio", "audio/ogg", ""),
    ("فاتورة.pdf", PDF, "document", "application/pdf", "الفاتورة"),
    ("smile.webp", WEBP, "sticker", "image/webp", ""),
]


@pytest.mark.parametrize(("name", "data", "kind", "mime", "caption"), OUTBOUND)
async def test_MSG_03_an_agents_file_reaches_the_customer_once(
    world: World, name: str, data: bytes, kind: str, mime: str, caption: str
) -> None:
    await world.customer_says({"type": "text", "text": "Hi"})
    media = await world.upload(data, name)
    assert media["kind"] == kind
    conversation = await world.conversation()
    answer = await send(
        world, {"conversationId": str(conversation), "message": caption, "mediaId": media["id"]}
    )
    async with world.worker():
        row = await world.message_reaches(answer, "SENT", "DELIVERED", "READ")
    assert row["message_type"] == kind
    assert (row["content"] or "") == caption
    shown = await world.shown(answer)
    assert shown == {
        "kind": kind, "file_id": media["id"], "state": "stored", "mime": mime, "bytes": len(data),
        "sha256": digest(data), "filename": name,
    }  # fmt: skip
    [sent] = await world.sends(answer)
    part = sent["body"][kind]
    assert part.get("caption", "") == caption
    assert ("filename" in part) == (kind == "document")
    if kind == "document":
        assert part["filename"] == name
    async with world.sandbox.client.get(f"{world.sandbox.url}/_ctl/media/{part['id']}") as there:
        assert (there.status, await there.read()) == (200, data)
        assert there.headers["Content-Type"] == mime
    [phone] = [m for m in await world.sandbox.thread() if m["id"] == sent["wamid"]]
    assert (phone["media_url"], phone["content"]) == (f"/_ctl/media/{part['id']}", caption)
    assert (
        await world.conn.fetchval("select message_id from media_files where id = $1", UUID(media["id"]))
        == answer
    )


async def send(world: World, body: dict[str, Any]) -> UUID:
    """whatsapp-cloud-send while no worker runs: the id of the queued message."""
    answer = await world.hub.post("/functions/v1/whatsapp-cloud-send", token=world.token, json=body)
    assert answer.status == 200, answer
    return UUID(answer.json["result"]["id"])


async def test_MSG_03_an_upload_that_fails_is_tried_again_and_sends_once(world: World) -> None:
    await world.customer_says({"type": "text", "text": "Hi"})
    media = await world.upload(png(), "a.png")
    await world.sandbox.fault("upload_error", params={"code": 131053})
    id = await send(world, {"conversationId": str(await world.conversation()), "mediaId": media["id"]})
    async with world.worker():

        async def waits() -> bool:
            row = await world.conn.fetchrow("select state, attempts, sending_at from app.outbox")
            return row is not None and (row["state"], row["attempts"]) == ("available", 1)

        await until(waits, what="the second try")
        assert await world.sends() == []
        await world.conn.execute("update app.outbox set due_at = now()")
        await world.message_reaches(id, "SENT", "DELIVERED", "READ")
    assert len(await world.sends(id)) == 1
    assert [r["status"] for r in await world.uploads()] == [400, 200]


@pytest.mark.parametrize("failpoint", ["send.before_sending_commit", "send.after_response"])
async def test_MSG_03_a_worker_killed_after_the_upload_sends_once(world: World, failpoint: str) -> None:
    await world.customer_says({"type": "text", "text": "Hi"})
    media = await world.upload(png(), "a.png")
    id = await send(world, {"conversationId": str(await world.conversation()), "mediaId": media["id"]})
    async with world.process(HUB_FAILPOINTS=f"{failpoint}=kill") as first:
        assert await first.wait() == -signal.SIGKILL
    async with world.process():
        await world.message_reaches(id, "SENT", "DELIVERED", "READ", timeout_s=30)
    assert len(await world.sends(id)) == 1
    assert len(await world.uploads()) == 1


async def test_MSG_03_an_upload_refused_for_good_fails_the_message(world: World) -> None:
    await world.customer_says({"type": "text", "text": "Hi"})
    media = await world.upload(png(), "a.png")
    await world.sandbox.fault("upload_error", next=9, params={"code": 100})
    id = await send(world, {"conversationId": str(await world.conversation()), "mediaId": media["id"]})
    async with world.worker():
        row = await world.message_reaches(id, "FAILED")
    assert row["failure_code"] == "100"
    assert await world.sends() == []


async def test_MSG_03_a_file_is_given_to_the_provider_once_and_again_when_it_was_forgotten(
    world: World,
) -> None:
    await world.customer_says({"type": "text", "text": "Hi"})
    media = await world.upload(png(), "a.png")
    conversation = str(await world.conversation())
    async with world.worker():
        id = await send(world, {"conversationId": conversation, "mediaId": media["id"]})
        await read(world, id)
        await again(world, id)
        await read(world, id)
        assert len(await world.uploads()) == 1
        there = await world.conn.fetchval("select provider_id from app.media_uploads")
        await world.sandbox.graph("DELETE", f"/{there}")
        await again(world, id)
        await read(world, id)
    assert len(await world.uploads()) == 2
    assert len(await world.sends(id)) == 3


async def read(world: World, id: UUID) -> None:
    """All receipts have come, so that none of them speaks of a later send."""
    await world.message_reaches(id, "SENT", "DELIVERED")
    await world.sandbox.advance(10)
    await world.message_reaches(id, "READ")
    await until(world.sandbox.quiet)


async def again(world: World, id: UUID) -> None:
    """As if it had failed, and somebody sent it again."""
    await world.conn.execute("update messages set status = 'FAILED', failure_code = 'x' where id = $1", id)
    await world.conn.execute(
        "update messages set status = 'PENDING', failure_code = null, failure_reason = null,"
        " provider_message_id = null, sent_at = null, delivered_at = null, read_at = null where id = $1",
        id,
    )


async def test_MSG_03_a_file_in_two_messages_outlives_the_first(world: World) -> None:
    await world.customer_says({"type": "text", "text": "Hi"})
    media = await world.upload(png(), "a.png")
    conversation = str(await world.conversation())
    first = await send(world, {"conversationId": conversation, "mediaId": media["id"]})
    second = await send(world, {"conversationId": conversation, "mediaId": media["id"]})
    shown = await world.shown(second)
    assert (shown["copy_of"], (await world.shown(first))["file_id"]) == (media["id"], media["id"])
    gone = await world.hub.delete(f"/rest/v1/messages?id=eq.{first}", token=world.token)
    assert gone.status in (200, 204), gone
    assert (await world.hub.get(f"/functions/v1/media/{media['id']}", token=world.token)).status == 404
    assert await world.bytes_of(shown["file_id"]) == png()


REFUSED = [
    ("big.png", lambda: png(2, 2) + bytes(5 * 1024 * 1024), {}, "media_id", "at most 5 MB"),
    ("move.gif", lambda: b"GIF89a" + bytes(100), {}, "media_id", "image/jpeg, image/png"),
    ("note.ogg", lambda: OGG, {"message": "words"}, "content", "no caption with audio"),
    ("smile.webp", lambda: WEBP, {"message": "words"}, "content", "no caption with sticker"),
    ("pic.png", png, {"message": "x" * 1025}, "content", "1024 characters"),
]


@pytest.mark.parametrize(("name", "data", "extra", "field", "says"), REFUSED)
async def test_MSG_03_what_the_channel_does_not_take_is_refused_by_its_limit(
    world: World, name: str, data: Any, extra: dict[str, Any], field: str, says: str
) -> None:
    media = await world.upload(data(), name)
    body = {"conversationId": str(await world.conversation()), "mediaId": media["id"], **extra}
    answer = await world.hub.post("/functions/v1/whatsapp-cloud-send", token=world.token, json=body)
    assert (answer.status, answer.json["details"]["field"]) == (422, field)
    assert says in answer.json["details"]["message"]
    assert await world.conn.fetchval("select count(*) from messages") == 0


async def test_MSG_03_no_file_of_a_neighbour_is_sent(world: World, superuser: asyncpg.Connection) -> None:
    other = await superuser.fetchval("insert into organizations (name) values ('Other') returning id")
    theirs = await superuser.fetchval(
        "insert into media_files (organization_id, state, storage_key, mime_type, byte_size, sha256)"
        " values ($1, 'stored', 'x', 'image/png', 1, 'x') returning id",
        other,
    )
    body = {"conversationId": str(await world.conversation()), "mediaId": str(theirs)}
    answer = await world.hub.post("/functions/v1/whatsapp-cloud-send", token=world.token, json=body)
    assert (answer.status, answer.json["details"]["field"]) == (422, "media_id")
    # … nor by writing the row over REST
    row = {
        "conversation_id": body["conversationId"], "direction": "OUTBOUND", "status": "PENDING",
        "message_type": "image", "metadata": {"media": [{"kind": "image", "file_id": str(theirs)}]},
    }  # fmt: skip
    written = await world.hub.post(
        "/rest/v1/messages", token=world.token, json=row, headers={"Prefer": "return=representation"}
    )
    assert written.status == 201, written
    id = UUID(written.json[0]["id"])
    async with world.worker():
        failed = await world.message_reaches(id, "FAILED")
    assert failed["failure_code"] == "media_missing"
    assert await superuser.fetchval("select message_id from media_files where id = $1", theirs) is None


async def test_MSG_03_outside_the_window_a_file_is_refused_and_a_template_passes(
    world: World, superuser: asyncpg.Connection
) -> None:
    conversation = await world.conversation()
    await world.sandbox.advance(25 * 3600)
    media = await world.upload(png(), "a.png")
    template = await superuser.fetchval(
        "insert into templates (organization_id, name, language, status, category, components)"
        " values ($1, 'order_update', 'en', 'APPROVED', 'UTILITY', $2) returning id",
        world.org.id,
        json.dumps([{"type": "BODY", "text": "Hello {{1}}, your order {{2}} is on its way."}]),
    )
    refused = await send(world, {"conversationId": str(conversation), "mediaId": media["id"]})
    passes = await send(
        world,
        {
            "conversationId": str(conversation),
            "templateId": str(template),
            "variables": {"1": "Layla", "2": "7"},
        },
    )
    async with world.worker():
        row = await world.message_reaches(refused, "FAILED")
        assert row["failure_code"] in ("window_closed", "131047")
        sent = await world.message_reaches(passes, "SENT", "DELIVERED", "READ")
    assert (sent["message_type"], sent["content"]) == ("template", "Hello Layla, your order 7 is on its way.")
    [there] = await world.sends(passes)
    assert there["body"]["template"]["components"] == [
        {"type": "body", "parameters": [{"type": "text", "text": "Layla"}, {"type": "text", "text": "7"}]}
    ]


async def test_MSG_03_unused_uploads_and_deleted_messages_leave_no_bytes(world: World) -> None:
    await world.customer_says({"type": "text", "text": "Hi"})
    unused = await world.upload(png(5, 5), "unused.png")
    fresh = await world.upload(png(6, 6), "fresh.png")
    used = await world.upload(png(7, 7), "used.png")
    deleted = await world.upload(png(8, 8), "deleted.png")
    conversation = str(await world.conversation())
    await send(world, {"conversationId": conversation, "mediaId": used["id"]})
    id = await send(world, {"conversationId": conversation, "mediaId": deleted["id"]})
    async with world.conn.transaction():
        await world.conn.execute("set local session_replication_role = replica")  # created_at is kept else
        await world.conn.execute(
            "update media_files set created_at = now() - interval '25 hours' where id = any ($1)",
            [UUID(unused["id"]), UUID(used["id"])],
        )
    await world.hub.delete(f"/rest/v1/messages?id=eq.{id}", token=world.token)
    assert len(kept(world)) == 4
    db = Database(world.settings.database_url, ("worker",))
    await db.open()
    try:
        await MediaKeeper(db, world.settings).clean()
    finally:
        await db.close()
    assert {p.name for p in kept(world)} == {fresh["sha256"], used["sha256"]}
    assert await world.bytes_of(fresh["id"]) == png(6, 6)


async def test_MSG_03_the_live_command_sends_files_and_templates(
    world: World, superuser: asyncpg.Connection
) -> None:
    await world.customer_says({"type": "text", "text": "Hi"})
    conversation = str(await world.conversation())
    media = await world.upload(png(), "a.png")
    async with world.hub.client.ws_connect(world.hub.url + "/ws") as socket:
        await socket.send_json({"type": "hello", "token": world.token})

        async def command(id: str, **args: Any) -> dict[str, Any]:
            await socket.send_json({"type": "command", "id": id, "name": "send", "args": args})
            async with asyncio.timeout(10):
                while True:
                    frame: dict[str, Any] = await socket.receive_json()
                    if frame["type"] == "reply" and frame["id"] == id:
                        return frame

        args = {
            "conversation_id": conversation,
            "content": "Look",
            "client_ref": ref(),
            "media_id": media["id"],
        }
        first = await command("1", **args)
        assert first["ok"], first
        again = await command("2", **args)
        assert (again["result"]["message_id"], again["result"]["duplicate"]) == (
            first["result"]["message_id"],
            True,
        )
        other = await world.upload(png(9, 9), "b.png")
        conflict = await command("3", **{**args, "media_id": other["id"]})
        assert conflict["error"]["code"] == "CONFLICT"
        refused = await command("4", **{**args, "client_ref": ref(), "media_id": ref()})
        assert (refused["error"]["code"], refused["error"]["details"]["field"]) == (
            "VALIDATION_ERROR",
            "media_id",
        )
        template = await superuser.fetchval(
            "insert into templates (organization_id, name, status, category, components)"
            " values ($1, 'hello', 'APPROVED', 'UTILITY', $2) returning id",
            world.org.id,
            json.dumps([{"type": "BODY", "text": "Hello {{name}}."}]),
        )
        body = {"conversation_id": conversation, "client_ref": ref(), "template_id": str(template)}
        missing = await command("5", **body)
        assert missing["error"]["details"] == {
            "field": "variables.name",
            "message": "is needed by this template",
        }
        filled = await command("6", **body, variables={"name": "Layla"})
        assert filled["ok"], filled
        repeated = await command("7", **body, variables={"name": "Layla"})
        assert repeated["result"]["duplicate"] is True
    row = await superuser.fetchrow(
        "select * from messages where id = $1", UUID(filled["result"]["message_id"])
    )
    assert row is not None
    assert (row["message_type"], row["content"], row["template_id"]) == ("template", "Hello Layla.", template)


async def test_MSG_03_a_template_must_be_the_providers_and_approved(
    world: World, superuser: asyncpg.Connection
) -> None:
    conversation = str(await make_conversation(superuser, world.org))
    for status, category, says in (
        ("PENDING", "UTILITY", "PENDING"), ("APPROVED", "QUICK_REPLY", "a text of the hub"),
    ):  # fmt: skip
        template = await superuser.fetchval(
            "insert into templates (organization_id, name, status, category, components)"
            ' values ($1, \'t\', $2, $3, \'[{"type":"BODY","text":"x"}]\') returning id',
            world.org.id,
            status,
            category,
        )
        body = {"conversationId": conversation, "templateId": str(template)}
        answer = await world.hub.post("/functions/v1/whatsapp-cloud-send", token=world.token, json=body)
        assert (answer.status, answer.json["details"]["field"]) == (422, "template_id")
        assert says in answer.json["details"]["message"]
