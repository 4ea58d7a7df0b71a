"""AUTH-07: @supabase/supabase-js, which we did not write, through the whole of its auth client."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from aiohttp import web

from hub.auth.mail import open_mail
from hub.db.embedded import EmbeddedValkey
from hub.resources import AUTH
from tests.clients import drive
from tests.factories import Member, Servers
from tests.integration.test_auth_links import Mail
from tests.server import PASSWORD, Hub, running_hub


@asynccontextmanager
async def mailbox(hub: Hub, superuser: asyncpg.Connection) -> AsyncIterator[str]:
    """What was last written to an address, for drivers that have no other way to read mail."""

    async def answer(request: web.Request) -> web.Response:
        row = await superuser.fetchrow(
            "select * from app.mail_outbox where recipient = $1 and template = $2 order by created_at desc",
            request.query["to"], request.query["template"],
        )  # fmt: skip
        assert row is not None, request.query
        values = open_mail(hub.settings, row["id"], row["organization_id"], row["payload"])
        token = Mail(row, hub).token if "link" in values else None
        link = values.get("link", "").replace(hub.settings.public_base_url, hub.url)
        return web.json_response({"code": values.get("code"), "token": token, "link": link})

    app = web.Application()
    app.router.add_get("/", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()


@pytest.fixture
async def open_hub(servers: Servers, valkey: EmbeddedValkey, tmp_path: Path) -> AsyncIterator[Hub]:
    async with running_hub(servers, valkey.url, tmp_path, HUB_SIGNUP="on") as found:
        yield found


#: What each call is refused with: code and status.
REFUSALS = {
    "signUp weak": ("weak_password", 422), "signIn unconfirmed": ("email_not_confirmed", 400),
    "signInAnonymously": ("anonymous_provider_disabled", 422), "signIn wrong": ("invalid_credentials", 400),
    "refresh unknown": ("refresh_token_not_found", 400), "updateUser same": ("same_password", 422),
    "updateUser weak": ("weak_password", 422), "verifyOtp used": ("otp_expired", 403),
    "resend too soon": ("over_email_send_rate_limit", 429), "signInWithIdToken": ("invalid_credentials", 400),
    "signIn phone": ("phone_provider_disabled", 400),
    "mfa refused": ("mfa_phone_enroll_not_enabled", 422), "mfa wrong": ("mfa_verification_failed", 422),
    "mfa.unenroll refused": ("insufficient_aal", 422), "admin.createUser again": ("email_exists", 422),
    "admin unknown": ("user_not_found", 404), "admin as anon": ("not_admin", 403),
}  # fmt: skip
#: Not offered: what the client makes of it is its own affair, so long as it is an error and not a 5xx.
REFUSED_SOMEHOW = {"exchange again", "signInWithSSO", "linkIdentity", "unlinkIdentity"}


async def test_AUTH_07_every_method_of_supabase_js_auth(
    open_hub: Hub, owner: Member, superuser: asyncpg.Connection
) -> None:
    keys = (await open_hub.app[AUTH].keyring()).project_keys()
    async with mailbox(open_hub, superuser) as post:
        said = await drive(
            "auth.mjs", open_hub.url, keys.anon, keys.service_role, post, owner.email, PASSWORD
        )
    wrong: list[tuple[str, Any]] = []
    for name, line in said.items():
        error = line.get("error") or {}
        if name in REFUSALS:
            if (error.get("code"), error.get("status")) != REFUSALS[name]:
                wrong.append((name, line))
        elif name in REFUSED_SOMEHOW:
            if not (error or line.get("thrown")) or (error.get("status") or 0) >= 500:
                wrong.append((name, line))
        elif name == "getUser out":  # the client's word for session_not_found
            if error.get("name") != "AuthSessionMissingError":
                wrong.append((name, line))
        elif name == "table before":
            if (line["status"], error.get("code")) != (403, "42501"):
                wrong.append((name, line))
        elif error or line.get("thrown"):
            wrong.append((name, line))
    assert wrong == []
    data = {name: line.get("data") for name, line in said.items()}
    assert data["signUp"]["session"] is None and data["signUp"]["user"]["email"] == "new@example.test"
    assert data["verifyOtp signup"]["user"]["user_metadata"] == {"locale": "ar"}
    assert data["signIn"]["user"]["id"] == data["getUser"]["user"]["id"] == str(owner.id)
    assert data["getUserIdentities"]["identities"][0]["provider"] == "email"
    assert data["getClaims"]["claims"]["sub"] == str(owner.id)
    assert data["getClaims"]["header"]["alg"] == "ES256", "verified with the published key"
    assert [s["path"] for s in said["getClaims"]["sent"]] == ["/auth/v1/.well-known/jwks.json"]
    assert data["refreshSession"]["session"]["refresh_token"] != data["signIn"]["session"]["refresh_token"]
    assert data["setSession"]["user"]["id"] == str(owner.id)
    assert data["updateUser data"]["user"]["user_metadata"]["theme"] == "dark"
    assert data["updateUser email"]["user"]["new_email"] == "moved@example.test"
    assert data["verifyOtp email_change"]["user"]["email"] == "moved@example.test"
    for name in ("verifyOtp recovery", "verifyOtp email", "exchangeCodeForSession"):
        assert data[name]["session"]["access_token"], name
    assert data["signInWithOAuth"] == {"status": 400}
    assert data["mfa.enroll"] == {
        "type": "totp", "name": "phone", "picture": "data:image/svg+xml;utf-8,<", "uri": "otpauth://totp/"
    }  # fmt: skip
    assert [f["status"] for f in data["mfa.listFactors"]["totp"]] == ["verified"]
    levels = data["mfa.level"], data["mfa.level before"]
    assert [(level["currentLevel"], level["nextLevel"]) for level in levels] == [
        ("aal2", "aal2"), ("aal1", "aal2")
    ]  # fmt: skip
    assert data["table after"] == []
    assert data["admin.listUsers"]["total"] >= 3 and data["admin.listUsers"]["nextPage"] == 2
    assert data["admin.generateLink"]["properties"]["verification_type"] == "recovery"
    assert data["admin.inviteUserByEmail"]["user"]["user_metadata"] == {"b": 2}
    assert data["admin.signOut"] == {"refused": "AuthSessionMissingError"}
    assert data["getUser still"]["user"]["id"] == str(owner.id)
    assert {"SIGNED_IN", "SIGNED_OUT", "TOKEN_REFRESHED", "USER_UPDATED", "MFA_CHALLENGE_VERIFIED"} <= set(
        data["events"]
    )
