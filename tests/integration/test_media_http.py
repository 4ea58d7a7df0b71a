"""MSG-03: uploading files and getting them back, from outside."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import asyncpg
import pytest

from hub.channels.media_storage import Storage
from hub.db.embedded import EmbeddedValkey
from tests.factories import Member, Org, Servers, make_member, make_org
from tests.media import png
from tests.server import Answer, Hub, running_hub


def form(data: bytes, name: str | None = "picture.png", said: str = "image/png") -> aiohttp.FormData:
    body = aiohttp.FormData(quote_fields=False)
    body.add_field("file", data, filename=name, content_type=said)
    return body


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


async def upload(hub: Hub, token: str, data: bytes, name: str = "picture.png", **options: Any) -> Answer:
    return await hub.post("/functions/v1/upload-media", token=token, data=form(data, name), **options)


async def test_MSG_03_an_upload_comes_back_as_it_went(hub: Hub, agent: Member) -> None:
    token = await hub.token(agent.email)
    data = png(64, 64)
    answer = await upload(hub, token, data, "صورة المعرض.png")
    assert answer.status == 200, answer
    media = answer.json["media"]
    assert answer.json["success"] is True
    assert {k: v for k, v in media.items() if k != "id"} == {
        "kind": "image",
        "mime_type": "image/png",
        "file_name": "صورة المعرض.png",
        "byte_size": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    back = await hub.get(f"/functions/v1/media/{media['id']}", token=token)
    assert (back.status, back.body) == (200, data)
    assert back.headers["Content-Type"] == "image/png"
    assert back.headers["Content-Disposition"].startswith("attachment; ")
    assert "filename*=UTF-8''%D8%B5%D9%88%D8%B1%D8%A9%20" in back.headers["Content-Disposition"]
    assert back.headers["X-Content-Type-Options"] == "nosniff"
    assert back.headers["Content-Security-Policy"] == "sandbox; default-src 'none'"
    assert back.headers["Cache-Control"] == "private, max-age=86400, immutable"
    assert back.headers["ETag"] == f'"{media["sha256"]}"'
    assert back.headers["Server"] == "hub"


async def test_MSG_03_ranges_head_and_conditions(hub: Hub, agent: Member) -> None:
    token = await hub.token(agent.email)
    data = bytes(range(256)) * 4000
    media = (await upload(hub, token, data, "data.bin")).json["media"]
    path = f"/functions/v1/media/{media['id']}"
    part = await hub.get(path, token=token, headers={"Range": "bytes=1000-1999"})
    assert (part.status, part.body) == (206, data[1000:2000])
    assert part.headers["Content-Range"] == f"bytes 1000-1999/{len(data)}"
    assert part.headers["ETag"] == f'"{media["sha256"]}"'
    tail = await hub.get(path, token=token, headers={"Range": "bytes=-5"})
    assert (tail.status, tail.body) == (206, data[-5:])
    beyond = await hub.get(path, token=token, headers={"Range": f"bytes={len(data)}-"})
    assert (beyond.status, beyond.headers["Content-Range"]) == (416, f"bytes */{len(data)}")
    head = await hub.call("HEAD", path, token=token)
    assert (head.status, head.body) == (200, b"")
    assert head.headers["Content-Length"] == str(len(data))
    same = await hub.get(path, token=token, headers={"If-None-Match": f'"{media["sha256"]}"'})
    assert (same.status, same.body) == (304, b"")
    other = await hub.get(path, token=token, headers={"If-None-Match": '"something else"'})
    assert (other.status, len(other.body)) == (200, len(data))


async def test_MSG_03_a_page_disguised_as_a_picture_is_bytes(hub: Hub, agent: Member) -> None:
    token = await hub.token(agent.email)
    for data, mime in (
        (b"<html><script>alert(1)</script></html>", "text/html"),
        (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" onload="x()"/>', "image/svg+xml"),
    ):
        answer = await upload(hub, token, data, "kitten.png")
        assert (answer.json["media"]["mime_type"], answer.json["media"]["kind"]) == (mime, "document")
        back = await hub.get(f"/functions/v1/media/{answer.json['media']['id']}", token=token)
        assert back.headers["Content-Type"] == "application/octet-stream"
        assert back.headers["Content-Disposition"].startswith("attachment")
        assert back.headers["Content-Security-Policy"] == "sandbox; default-src 'none'"
        assert back.headers["X-Content-Type-Options"] == "nosniff"


async def test_MSG_03_the_neighbour_sees_nothing(
    hub: Hub, agent: Member, superuser: asyncpg.Connection, password_hash: str
) -> None:
    stranger = await make_member(superuser, await make_org(superuser), "OWNER", password_hash)
    media = (await upload(hub, await hub.token(agent.email), png())).json["media"]
    token = await hub.token(stranger.email)
    assert (await hub.get(f"/functions/v1/media/{media['id']}", token=token)).status == 404
    assert (await hub.get(f"/rest/v1/media_files?id=eq.{media['id']}", token=token)).json == []
    for id in (str(uuid4()), "1", "..%2f..%2fkeys.json", "..", f"{media['id']}/x"):
        assert (await hub.get(f"/functions/v1/media/{id}", token=token)).status == 404
    assert (await hub.get(f"/functions/v1/media/{media['id']}")).status == 401


async def test_MSG_03_only_who_may_send_uploads_and_who_may_read_downloads(
    hub: Hub, org: Org, agent: Member, superuser: asyncpg.Connection, password_hash: str, tmp_path: Path
) -> None:
    reader = await make_member(superuser, org, "AGENT", password_hash, can_send_messages=False)
    writer = await make_member(superuser, org, "AGENT", password_hash, can_read_messages=False)
    refused = await upload(hub, await hub.token(reader.email), png())
    assert (refused.status, refused.json["details"]) == (403, {"missing": ["can_send_messages"]})
    assert files(tmp_path / "media") == []
    media = (await upload(hub, await hub.token(writer.email), png())).json["media"]
    path = f"/functions/v1/media/{media['id']}"
    assert (await hub.get(path, token=await hub.token(reader.email))).status == 200
    assert (await hub.get(path, token=await hub.token(writer.email))).status == 403


async def test_MSG_03_what_is_too_large_or_empty_or_missing_is_refused(
    servers: Servers, valkey: EmbeddedValkey, tmp_path: Path, agent: Member
) -> None:
    async with running_hub(servers, valkey.url, tmp_path) as hub:
        token = await hub.token(agent.email)
        limit = 25 * 1024 * 1024

        async def stream(size: int) -> Any:
            for _ in range(size // 65536):
                yield b"x" * 65536
            yield b"x" * (size % 65536)

        for size, status in ((limit, 200), (limit + 1, 413)):
            body = aiohttp.FormData()
            body.add_field("file", stream(size), filename="big.bin")
            answer = await hub.post("/functions/v1/upload-media", token=token, data=body)
            assert answer.status == status, (size, answer)
        assert answer.json["details"] == {"limit": limit}
        declared = await hub.post(
            "/functions/v1/upload-media",
            token=token,
            data=b"x" * 10,
            headers={
                "Content-Type": "multipart/form-data; boundary=b",
                "Content-Length": str(limit * 2),
                "Connection": "close",
            },
        )
        assert declared.status == 413
        empty = await hub.post("/functions/v1/upload-media", token=token, data=form(b""))
        assert (empty.status, empty.json["details"]["field"]) == (422, "file")
        other = aiohttp.FormData({"picture": "x"})
        other.add_field("photo", b"x", filename="x.png")
        missing = await hub.post("/functions/v1/upload-media", token=token, data=other)
        assert (missing.status, missing.json["details"]["field"]) == (422, "file")
        assert (await hub.post("/functions/v1/upload-media", token=token, json={"file": "x"})).status == 415
        start = b'--b\r\nContent-Disposition: form-data; name="file"'
        for raw in (
            b"no boundary here",
            start + b'; filename="a\x7fb"\r\n\r\nx\r\n--b--\r\n',
            start + b"\r\nContent-Encoding: gzip\r\n\r\nx\r\n--b--\r\n",
            start + b"\r\nContent-Type: multipart/mixed; boundary=c\r\n\r\n--c\r\n\r\nx\r\n--c--\r\n",
            start.replace(b"file", b"other") + b"\r\n\r\n" + b"x" * 70_000 + b"\r\n--b--\r\n",
        ):
            broken = await hub.post(
                "/functions/v1/upload-media",
                token=token,
                data=raw,
                headers={"Content-Type": "multipart/form-data; boundary=b", "Connection": "close"},
            )
            assert broken.status in (400, 413, 415, 422), (raw, broken)
    assert files(tmp_path / "media" / "tmp") == []


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("../../../etc/passwd", "passwd"),
        ("..\\..\\boot.ini", "boot.ini"),
        ("/etc/shadow", "shadow"),
        ("photo\u202egnp.exe", "photognp.exe"),
        ("a\u0085b\r\nX-Evil: 1.png", "abX-Evil: 1.png"),
        ('quote".png', 'quote".png'),
        ("." * 40 + "hidden", "hidden"),
        ("ن" * 300 + ".pdf", "ن" * 196 + ".pdf"),
        ("///", "image.png"),
    ],
)
async def test_MSG_03_names_lead_nowhere(
    hub: Hub, agent: Member, tmp_path: Path, given: str, shown: str
) -> None:
    token = await hub.token(agent.email)
    raw = given.encode()
    boundary = b"----b"
    # as browsers write it
    quoted = raw.replace(b'"', b"%22").replace(b"\r\n", b"%0D%0A")
    body = (
        b"--" + boundary + b'\r\nContent-Disposition: form-data; name="file"; filename="' + quoted
        + b'"\r\nContent-Type: image/png\r\n\r\n' + png() + b"\r\n--" + boundary + b"--\r\n"
    )  # fmt: skip
    answer = await hub.post(
        "/functions/v1/upload-media",
        token=token,
        data=body,
        headers={"Content-Type": "multipart/form-data; boundary=----b"},
    )
    assert answer.status == 200, answer
    media = answer.json["media"]
    assert media["file_name"] == shown
    assert [path.name for path in files(tmp_path / "media")] == [media["sha256"]]
    assert [path.name for path in files(tmp_path) if "passwd" in path.name or "boot" in path.name] == []
    back = await hub.get(f"/functions/v1/media/{media['id']}", token=token)
    assert back.status == 200
    assert "\r" not in back.headers["Content-Disposition"]
    assert "X-Evil" not in back.headers


async def test_MSG_03_a_repeated_upload_is_one_file(
    hub: Hub, agent: Member, superuser: asyncpg.Connection
) -> None:
    token = await hub.token(agent.email)
    first = await upload(hub, token, png(), headers={"Idempotency-Key": "one"})
    again = await upload(hub, token, png(), headers={"Idempotency-Key": "one"})
    assert (again.status, again.json) == (200, first.json)
    assert again.headers["Idempotency-Replayed"] == "true"
    other = await upload(hub, token, png(3, 3), headers={"Idempotency-Key": "one"})
    assert other.status == 422
    assert await superuser.fetchval("select count(*) from media_files") == 1


async def test_MSG_03_files_that_are_not_here_say_why(
    hub: Hub, org: Org, agent: Member, superuser: asyncpg.Connection, tmp_path: Path
) -> None:
    token = await hub.token(agent.email)
    ids = {
        state: await superuser.fetchval(
            "insert into media_files (organization_id, state, error) values ($1, $2, 'why') returning id",
            org.id,
            state,
        )
        for state in ("pending", "expired", "failed")
    }
    waiting = await hub.get(f"/functions/v1/media/{ids['pending']}", token=token)
    assert (waiting.status, waiting.json["code"]) == (409, "CONFLICT")
    assert waiting.headers["Retry-After"] == "2"
    for state in ("expired", "failed"):
        gone = await hub.get(f"/functions/v1/media/{ids[state]}", token=token)
        assert (gone.status, gone.json["details"]) == (404, {"state": state, "reason": "why"})
    media = (await upload(hub, token, png())).json["media"]
    key = await superuser.fetchval("select storage_key from media_files where id = $1", media["id"])
    await Storage(tmp_path / "media").delete(key)
    lost = await hub.get(f"/functions/v1/media/{media['id']}", token=token)
    assert (lost.status, lost.json["details"]) == (404, {"state": "missing"})


async def test_MSG_03_nobody_rewrites_what_the_hub_keeps_of_a_file(hub: Hub, owner: Member) -> None:
    token = await hub.token(owner.email)
    media = (await upload(hub, token, b"<html><b>x</b></html>", "x.txt")).json["media"]
    path = f"/rest/v1/media_files?id=eq.{media['id']}"
    assert (await hub.patch(path, token=token, json={"mime_type": "image/png"})).status == 403
    assert (await hub.delete(path, token=token)).status == 403
    assert (await hub.post("/rest/v1/media_files", token=token, json={"file_name": "x"})).status == 403
