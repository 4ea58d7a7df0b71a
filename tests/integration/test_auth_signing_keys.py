"""The key that signs access tokens is replaced under everybody's feet: nobody is signed out, or, when it was
stolen, its tokens end within five seconds everywhere."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import jwt
import pytest
from click.testing import CliRunner, Result

from hub import clock
from hub.auth.tokens import ACCESS_S, JWKS_S
from hub.cli import cli
from hub.db.embedded import EmbeddedValkey
from hub.resources import AUTH
from tests.factories import Member, Servers, until
from tests.server import SECRET_KEY, Hub, running_hub

TOKEN = "/auth/v1/token?grant_type="


@pytest.fixture(autouse=True)
def standing_clock() -> Iterator[None]:
    yield
    clock.set_offset(0)


async def rotate(servers: Servers, tmp_path: Path, *options: str, **more: str) -> Result:
    environ = {
        "DATABASE_URL": servers.database_url, "HUB_MIGRATE_URL": servers.migrate_url,
        "REDIS_URL": "redis://x", "HUB_SECRET_KEY": SECRET_KEY, "HUB_DATA_DIR": str(tmp_path), **more,
    }  # fmt: skip
    return await asyncio.to_thread(CliRunner(env=environ).invoke, cli, ["keys", "rotate", *options])


def kid_of(token: str) -> str:
    kid: str = jwt.get_unverified_header(token)["kid"]
    return kid


async def published(hub: Hub) -> list[str]:
    """Asked for twice: the ring is looked at again aside from the requests."""
    return [key["kid"] for key in (await hub.get("/auth/v1/.well-known/jwks.json")).json["keys"]]


async def test_15_6_a_new_key_is_published_then_signs_and_the_old_one_verifies_until_its_tokens_end(
    servers: Servers, valkey: EmbeddedValkey, tmp_path: Path, owner: Member, superuser: asyncpg.Connection
) -> None:
    async with running_hub(servers, valkey.url, tmp_path) as hub:
        first = await hub.sign_in(owner.email)
        old = kid_of(first["access_token"])
        done = await rotate(servers, tmp_path)
        assert done.exit_code == 0, done.output
        new = done.output.split()[0]

        async def is_known() -> bool:
            return await published(hub) == [old, new]

        await until(is_known, timeout_s=8, what="the new key to be published")
        assert kid_of(await hub.token(owner.email)) == old, "others may not know the new one yet"
        clock.set_offset(JWKS_S + 5)
        second = await hub.sign_in(owner.email)
        assert kid_of(second["access_token"]) == new
        for session in (first, second):
            assert (await hub.get("/rest/v1/contacts", token=session["access_token"])).status == 200
        row = await superuser.fetchrow("select * from app.signing_keys where kid = $1", old)
        lasts = (row["retired_at"] - row["created_at"]).total_seconds()
        assert JWKS_S + ACCESS_S < lasts < JWKS_S + ACCESS_S + 300
        clock.set_offset(0)
        await superuser.execute("update app.signing_keys set retired_at = now() where kid = $1", old)

        async def is_gone() -> bool:
            return await published(hub) == [new]

        await until(is_gone, timeout_s=8, what="the old key to go")


async def test_X24_a_stolen_key_ends_within_five_seconds_and_sessions_go_on(
    servers: Servers, valkey: EmbeddedValkey, tmp_path: Path, owner: Member
) -> None:
    async with running_hub(servers, valkey.url, tmp_path / "a") as one:
        base = one.settings.public_base_url
        async with running_hub(servers, valkey.url, tmp_path / "b", PUBLIC_BASE_URL=base) as two:
            session = await one.sign_in(owner.email)
            stolen = session["access_token"]
            for hub in (one, two):
                assert (await hub.get("/rest/v1/contacts", token=stolen)).status == 200
            ring = await one.app[AUTH].keyring()
            done = await rotate(servers, tmp_path, "--now")
            assert done.exit_code == 0, done.output

            async def is_refused() -> bool:
                answers = [await hub.get("/rest/v1/contacts", token=stolen) for hub in (one, two)]
                return all(answer.status == 401 for answer in answers)

            await until(is_refused, timeout_s=7, what="both hubs to refuse the old key")
            forged, _ = ring.access_token(
                {"id": str(owner.id), "email": owner.email},
                _session_of(stolen), organization_id=owner.organization_id, org_role="OWNER", is_web=False,
            )  # fmt: skip
            assert (await two.get("/rest/v1/contacts", token=forged)).status == 401
            renewed = await two.post(
                f"{TOKEN}refresh_token", json={"refresh_token": session["refresh_token"]}
            )
            assert kid_of(renewed.json["access_token"]) == done.output.split()[0]
            for hub in (one, two):
                answer = await hub.get("/rest/v1/contacts", token=renewed.json["access_token"])
                assert answer.status == 200, "the other hub reads the new key when it meets it"


def _session_of(token: str) -> Any:
    from uuid import UUID

    return UUID(jwt.decode(token, options={"verify_signature": False})["session_id"])


async def test_two_rotations_in_a_row_keep_every_token_good(
    servers: Servers, valkey: EmbeddedValkey, tmp_path: Path, owner: Member
) -> None:
    async with running_hub(servers, valkey.url, tmp_path) as hub:
        token = await hub.token(owner.email)
        kids = [kid_of(token)]
        for _ in range(2):
            kids.append((await rotate(servers, tmp_path)).output.split()[0])

        async def is_known() -> bool:
            return await published(hub) == kids

        await until(is_known, timeout_s=8, what="all three")
        clock.set_offset(JWKS_S + 5)
        assert kid_of(await hub.token(owner.email)) == kids[-1]
        assert (await hub.get("/rest/v1/contacts", token=token)).status == 200


async def test_project_keys_and_organization_keys_outlive_a_rotation(
    servers: Servers, valkey: EmbeddedValkey, tmp_path: Path, owner: Member
) -> None:
    async with running_hub(servers, valkey.url, tmp_path) as hub:
        before = (await hub.app[AUTH].keyring()).project_keys()
        made = await hub.post(
            "/functions/v1/generate-api-key", token=await hub.token(owner.email), json={"name": "x"}
        )
        await rotate(servers, tmp_path, "--now")

        async def has_one() -> bool:
            return len(await published(hub)) == 1

        await until(has_one, timeout_s=8, what="the new key")
        assert (await hub.app[AUTH].keyring()).project_keys() == before
        answer = await hub.get("/functions/v1/list-organizations", key=made.json["api_key"])
        assert answer.status == 200


async def test_signing_keys_are_sealed_and_need_the_right_secret(
    servers: Servers, valkey: EmbeddedValkey, tmp_path: Path, owner: Member, superuser: asyncpg.Connection
) -> None:
    await rotate(servers, tmp_path)
    dump = str(await superuser.fetch("select k::text from app.signing_keys k"))
    assert "PRIVATE KEY" not in dump and '"d"' not in dump
