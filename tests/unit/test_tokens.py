"""Tokens: whose signature counts, and what a forger may try."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from hub import clock
from hub.auth.secrets import seal_secret
from hub.auth.tokens import ACCESS_S, Keyring
from hub.errors import AuthenticationFailed
from hub.settings import Settings, load_settings

SETTINGS = load_settings(
    {"DATABASE_URL": "postgresql://db/hub", "REDIS_URL": "redis://c", "HUB_SECRET_KEY": "k" * 32}
)
HS = base64.b64encode(b"h" * 32).decode()
PRIVATE = ec.generate_private_key(ec.SECP256R1())
PEM = PRIVATE.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
USER = {
    "id": str(uuid4()),
    "email": "mona@example.test",
    "app_metadata": {},
    "user_metadata": {"theme": "dark"},
}


def row(settings: Settings, kid: str, algorithm: str, value: str) -> dict[str, Any]:
    sealed = seal_secret(
        settings, value, table="signing_keys", column=algorithm, organization_id=None, row_id=kid
    )
    born = datetime(2026, 1, 1, tzinfo=UTC)
    return {
        "kid": kid, "algorithm": algorithm, "sealed": sealed, "is_current": True, "created_at": born,
        "signs_from": born,
    }  # fmt: skip


@pytest.fixture
def ring() -> Keyring:
    pepper = base64.b64encode(b"p" * 32).decode()
    rows = [
        row(SETTINGS, "hs", "HS256", HS),
        row(SETTINGS, "es", "ES256", PEM),
        row(SETTINGS, "pp", "PEPPER", pepper),
    ]
    return Keyring(rows, SETTINGS)


def access(ring: Keyring, **changes: Any) -> str:
    """An access token of ours with some claims changed, signed with our key."""
    token, _ = ring.access_token(USER, uuid4(), organization_id=uuid4(), org_role="OWNER", is_web=False)
    claims = jwt.decode(token, options={"verify_signature": False}) | changes
    return jwt.encode(
        {k: v for k, v in claims.items() if v is not None}, PRIVATE, "ES256", headers={"kid": "es"}
    )


def test_an_access_token_carries_what_clients_read(ring: Keyring) -> None:
    organization, session = uuid4(), uuid4()
    token, expires_at = ring.access_token(
        USER, session, organization_id=organization, org_role="ADMIN", is_web=True
    )
    claims = ring.verify(token)
    assert claims["app_metadata"]["organization_id"] == str(organization)
    assert claims["app_metadata"]["org_role"] == "ADMIN"
    assert (claims["sub"], claims["session_id"], claims["exp"]) == (USER["id"], str(session), expires_at)
    assert {
        "iss",
        "aud",
        "iat",
        "nbf",
        "email",
        "phone",
        "role",
        "aal",
        "amr",
        "is_anonymous",
    } <= claims.keys()
    assert claims["hub_client"] == "web"
    assert len(token) < 2048


def test_big_metadata_stays_out_of_the_token(ring: Keyring) -> None:
    user = {**USER, "user_metadata": {"bio": "x" * 5000}}
    token, _ = ring.access_token(user, uuid4(), organization_id=uuid4(), org_role="AGENT", is_web=False)
    assert len(token) < 2048


def test_project_keys_are_always_the_same(ring: Keyring) -> None:
    keys = ring.project_keys()
    assert keys == ring.project_keys()
    assert ring.verify(keys.anon)["role"] == "anon"
    assert ring.verify(keys.service_role)["role"] == "service_role"


def test_jwks_lists_public_keys_only(ring: Keyring) -> None:
    (key,) = ring.jwks["keys"]
    assert key["kid"] == "es"
    assert "d" not in key
    jwt.decode(
        access(ring), jwt.PyJWK(key).key, algorithms=["ES256"], audience="authenticated"
    )  # a client can check our tokens with it


@pytest.mark.parametrize("claim", ["iss", "aud", "exp", "nbf", "sub", "session_id", "role"])
def test_a_token_without_a_needed_claim_is_refused(ring: Keyring, claim: str) -> None:
    with pytest.raises(AuthenticationFailed):
        ring.verify(access(ring, **{claim: None}))


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "https://elsewhere/auth/v1"}, {"aud": "recovery"}, {"role": "postgres"},
        {"role": "service_role"},
        {"exp": "tomorrow"}, {"exp": 1}, {"nbf": 4_000_000_000},
    ],
)  # fmt: skip
def test_a_token_with_a_wrong_claim_is_refused(ring: Keyring, changes: dict[str, Any]) -> None:
    with pytest.raises(AuthenticationFailed):
        ring.verify(access(ring, **changes))


def test_expiry_follows_the_hubs_clock(ring: Keyring) -> None:
    token = access(ring)
    try:
        clock.set_offset(ACCESS_S + 20)
        ring.verify(token)  # within the leeway
        clock.set_offset(ACCESS_S + 40)
        with pytest.raises(AuthenticationFailed, match="expired"):
            ring.verify(token)
    finally:
        clock.set_offset(0)


def unsigned(claims: dict[str, Any], **header: Any) -> str:
    parts = [json.dumps({"typ": "JWT", **header}).encode(), json.dumps(claims).encode()]
    return ".".join(base64.urlsafe_b64encode(p).decode().rstrip("=") for p in parts) + "."


def test_forgeries_are_refused(ring: Keyring) -> None:
    claims = jwt.decode(access(ring), options={"verify_signature": False})
    stranger = ec.generate_private_key(ec.SECP256R1())
    public = PRIVATE.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    jwk = jwt.algorithms.ECAlgorithm.to_jwk(stranger.public_key(), as_dict=True)
    forged = [
        unsigned(claims, alg="none"),
        unsigned(claims, alg="none", kid="es"),
        jwt.encode(claims, stranger, "ES256"),
        jwt.encode(claims, stranger, "ES256", headers={"kid": "es"}),
        jwt.encode(claims, stranger, "ES256", headers={"kid": "es", "jwk": jwk}),
        jwt.encode(claims, stranger, "ES256", headers={"kid": "x", "jku": "https://evil.example/jwks.json"}),
        jwt.encode(claims, public, "HS256", headers={"kid": "es"}),  # the public key as an HMAC secret
        jwt.encode(claims, b"h" * 32, "HS256", headers={"kid": "hs"}),  # the project's secret signs no users
        jwt.encode({**claims, "role": "service_role"}, PRIVATE, "ES256", headers={"kid": "es"}),
        "a.b.c",
        "garbage",
        "",
        "x" * 10_000,
    ]
    for token in forged:
        with pytest.raises(AuthenticationFailed):
            ring.verify(token)


def test_a_foreign_maker_may_sign_project_keys_with_our_secret(ring: Keyring) -> None:
    token = jwt.encode({"role": "anon", "exp": 4_000_000_000}, b"h" * 32, "HS256")
    assert ring.verify(token)["role"] == "anon"


@pytest.mark.parametrize("kid", ["another", "hs", "es ", "../es", "' or 1=1 --", None, 1, ["es"]])
def test_X06_a_token_under_another_keys_name_is_refused(ring: Keyring, kid: Any) -> None:
    """Our own signature, but the header names no key that made it."""
    claims = jwt.decode(access(ring), options={"verify_signature": False})
    header = {"typ": "JWT", "alg": "ES256", **({} if kid is None else {"kid": kid})}
    parts = [base64.urlsafe_b64encode(json.dumps(p).encode()).rstrip(b"=") for p in (header, claims)]
    signature = jwt.algorithms.ECAlgorithm(jwt.algorithms.ECAlgorithm.SHA256).sign(b".".join(parts), PRIVATE)
    token = b".".join([*parts, base64.urlsafe_b64encode(signature).rstrip(b"=")]).decode()
    with pytest.raises(AuthenticationFailed):
        ring.verify(token)


def test_X06_a_token_has_one_text(ring: Keyring) -> None:
    """What Python's decoder passes over (padding, strange characters, spare bits) is no other spelling."""
    token = access(ring)
    ring.verify(token)
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    last = alphabet.index(token[-1])  # of 64 bytes in 86 characters: the last four bits mean nothing
    spellings = [token[:-1] + alphabet[last ^ bits] for bits in (1, 2, 15)]
    spellings += [f"{token}=", f"{token}==", f"{token}\n", f" {token}", token[:-4] + "!" + token[-4:]]
    for spelling in spellings:
        assert spelling != token
        with pytest.raises(AuthenticationFailed):
            ring.verify(spelling)
