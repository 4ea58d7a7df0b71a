"""AUTH-07: supabase_auth for Python, which we did not write, through the whole of its client: its models are
strict about what they are answered."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest
from supabase import AsyncClient
from supabase_auth.errors import AuthApiError, AuthError

from hub.db.embedded import EmbeddedValkey
from hub.resources import AUTH
from tests.clients import supabase_py
from tests.factories import Member, Servers
from tests.integration.test_auth_factors import code_of
from tests.integration.test_auth_links import NEW, mail_to
from tests.server import PASSWORD, Hub, running_hub


@pytest.fixture
async def open_hub(servers: Servers, valkey: EmbeddedValkey, tmp_path: Path) -> AsyncIterator[Hub]:
    async with running_hub(servers, valkey.url, tmp_path, HUB_SIGNUP="on") as found:
        yield found


@pytest.fixture
async def client(open_hub: Hub) -> AsyncIterator[AsyncClient]:
    async with supabase_py(open_hub, None) as (found, _):
        yield found


async def refused(call: Callable[[], Awaitable[Any]]) -> str | None:
    with pytest.raises(AuthError) as caught:
        await call()
    return caught.value.code


async def test_AUTH_07_signing_up_in_and_out(
    open_hub: Hub, client: AsyncClient, owner: Member, superuser: asyncpg.Connection
) -> None:
    auth = client.auth
    made = await auth.sign_up({"email": "new@example.test", "password": NEW, "options": {"data": {"a": 1}}})
    assert made.session is None and made.user is not None and made.user.email == "new@example.test"
    mail = await mail_to(open_hub, superuser, "new@example.test", "signup")
    opened = await auth.verify_otp({"email": "new@example.test", "token": mail.code, "type": "signup"})
    assert opened.session is not None and opened.user is not None and opened.user.user_metadata == {"a": 1}
    credentials = {"email": owner.email, "password": PASSWORD}
    signed = await auth.sign_in_with_password(credentials)  # type: ignore[arg-type]
    assert signed.session is not None and signed.session.token_type == "bearer"
    session = await auth.get_session()
    assert session is not None and session.access_token == signed.session.access_token
    user = await auth.get_user()
    assert user is not None and user.user.id == str(owner.id)
    identities = await auth.get_user_identities()
    assert identities.identities[0].provider == "email"  # type: ignore[union-attr]
    claims = await auth.get_claims()
    assert claims is not None and claims["claims"]["sub"] == str(owner.id)
    renewed = await auth.refresh_session()
    assert renewed.session is not None and renewed.session.refresh_token != session.refresh_token
    again = await auth.set_session(renewed.session.access_token, renewed.session.refresh_token)
    assert again.user is not None and again.user.id == str(owner.id)
    wrong = {"email": owner.email, "password": "wrong horse"}
    assert await refused(lambda: auth.sign_in_with_password(wrong)) == "invalid_credentials"  # type: ignore[arg-type]
    assert await refused(lambda: auth.sign_in_anonymously()) == "anonymous_provider_disabled"
    assert await refused(lambda: auth.refresh_session("unknown-refresh-token")) == "refresh_token_not_found"
    weak = {"email": "other@example.test", "password": "short"}
    assert await refused(lambda: auth.sign_up(weak)) == "weak_password"  # type: ignore[arg-type]
    await auth.sign_in_with_password(credentials)  # type: ignore[arg-type]
    token = (await auth.get_session()).access_token  # type: ignore[union-attr]
    await auth.sign_out({"scope": "local"})
    assert await auth.get_session() is None
    assert await refused(lambda: auth.get_user(token)) == "session_not_found"


async def test_AUTH_07_changes_and_links(
    open_hub: Hub, client: AsyncClient, owner: Member, superuser: asyncpg.Connection
) -> None:
    auth = client.auth
    await auth.sign_in_with_password({"email": owner.email, "password": PASSWORD})
    assert (await auth.update_user({"data": {"theme": "dark"}})).user.user_metadata == {"theme": "dark"}
    assert await refused(lambda: auth.update_user({"password": PASSWORD})) == "same_password"
    await auth.reauthenticate()
    nonce = (await mail_to(open_hub, superuser, owner.email, "reauthentication")).code
    await auth.update_user({"password": NEW, "nonce": nonce})  # type: ignore[typeddict-unknown-key]
    changed = await auth.update_user({"email": "moved@example.test"})
    assert changed.user.new_email == "moved@example.test"
    code = (await mail_to(open_hub, superuser, "moved@example.test", "email_change")).code
    moved = await auth.verify_otp({"email": "moved@example.test", "token": code, "type": "email_change"})
    assert moved.user is not None and moved.user.email == "moved@example.test"
    await auth.reset_password_for_email("moved@example.test", {"redirect_to": f"{open_hub.url}/settings"})
    link = await mail_to(open_hub, superuser, "moved@example.test", "recovery")
    recovered = await auth.verify_otp({"token_hash": link.token, "type": "recovery"})
    assert recovered.session is not None
    assert await refused(lambda: auth.verify_otp({"token_hash": link.token, "type": "recovery"})) == (
        "otp_expired"
    )
    await auth.sign_in_with_otp({"email": "moved@example.test"})
    code = (await mail_to(open_hub, superuser, "moved@example.test", "magiclink")).code
    signed = await auth.verify_otp({"email": "moved@example.test", "token": code, "type": "email"})
    assert signed.session is not None
    await auth.resend({"type": "signup", "email": "nobody@example.test"})
    assert await refused(lambda: auth.resend({"type": "signup", "email": "nobody@example.test"})) == (
        "over_email_send_rate_limit"
    )


async def test_AUTH_07_the_pkce_flow(
    open_hub: Hub, client: AsyncClient, owner: Member, superuser: asyncpg.Connection
) -> None:
    auth = client.auth
    auth._flow_type = "pkce"
    await auth.sign_in_with_otp({"email": owner.email, "options": {"email_redirect_to": open_hub.url}})
    link = urlsplit((await mail_to(open_hub, superuser, owner.email, "magiclink")).values["link"])
    landed = await open_hub.get(f"{link.path}?{link.query}")
    code = parse_qs(urlsplit(landed.headers["Location"]).query)["code"][0]
    session = await auth.exchange_code_for_session({"auth_code": code})  # type: ignore[typeddict-item]
    assert session.user is not None and session.user.id == str(owner.id)


async def test_AUTH_07_two_factors(open_hub: Hub, client: AsyncClient, owner: Member) -> None:
    auth, mfa = client.auth, client.auth.mfa
    await auth.sign_in_with_password({"email": owner.email, "password": PASSWORD})
    made = await mfa.enroll({"factor_type": "totp", "friendly_name": "phone", "issuer": "Nile Home"})
    assert made.totp is not None and made.totp.qr_code.startswith("data:image/svg+xml;utf-8,<svg")
    challenge = await mfa.challenge({"factor_id": made.id})
    wrong = {"factor_id": made.id, "challenge_id": challenge.id, "code": "000000"}
    assert await refused(lambda: mfa.verify(wrong)) == "mfa_verification_failed"  # type: ignore[arg-type]
    code = code_of(made.totp.secret, -1)
    await mfa.verify({"factor_id": made.id, "challenge_id": challenge.id, "code": code})
    listed = await mfa.list_factors()
    assert [factor.status for factor in listed.totp] == ["verified"]
    level = await mfa.get_authenticator_assurance_level()
    assert (level.current_level, level.next_level) == ("aal2", "aal2")
    await auth.sign_in_with_password({"email": owner.email, "password": PASSWORD})
    level = await mfa.get_authenticator_assurance_level()
    assert (level.current_level, level.next_level) == ("aal1", "aal2")
    assert await refused(lambda: mfa.unenroll({"factor_id": made.id})) == "insufficient_aal"
    await mfa.challenge_and_verify({"factor_id": made.id, "code": code_of(made.totp.secret)})
    rows = await client.table("contacts").select("id").execute()
    assert rows.data == []
    assert (await mfa.unenroll({"factor_id": made.id})).id == made.id


async def test_AUTH_07_the_service_role(open_hub: Hub, client: AsyncClient, owner: Member) -> None:
    admin = client.auth.admin
    with pytest.raises(AuthApiError) as caught:
        await admin.list_users()
    assert caught.value.code in ("not_admin", "bad_jwt")
    key = (await open_hub.app[AUTH].keyring()).project_keys().service_role
    admin._headers |= {"Authorization": f"Bearer {key}", "apikey": key}
    made = await admin.create_user({"email": "made@example.test", "password": NEW, "email_confirm": True})
    assert (await admin.get_user_by_id(made.user.id)).user.email == "made@example.test"
    changed = await admin.update_user_by_id(made.user.id, {"app_metadata": {"plan": "x"}})
    assert changed.user.app_metadata["plan"] == "x"
    listed = {user.email for user in await admin.list_users(page=1, per_page=10)}
    assert listed >= {owner.email, "made@example.test"}
    link = await admin.generate_link({"type": "recovery", "email": "made@example.test", "options": {}})
    assert link.properties.verification_type == "recovery"
    invited = await admin.invite_user_by_email("invited@example.test", {"data": {"b": 2}})
    assert invited.user.user_metadata == {"b": 2}
    await admin.delete_user(made.user.id)
    assert await refused(lambda: admin.get_user_by_id(made.user.id)) == "user_not_found"
