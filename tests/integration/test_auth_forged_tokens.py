"""X-06: a bent token is refused with the documented code and leaves a line in the log; one that ran out says
nothing. (Every way of bending one: tests/attack/test_sessions_and_keys.py.)"""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from structlog.testing import capture_logs

from hub import clock
from hub.auth.tokens import LEEWAY_S
from hub.resources import AUTH
from tests.attack.test_sessions_and_keys import part
from tests.factories import Member
from tests.server import Hub


def forged(kind: str, good: str, ring: Any) -> str:
    kid, key = ring.signer
    claims = jwt.decode(good, options={"verify_signature": False})
    body = good.split(".")[1]

    def signed(changes: dict[str, Any], private: Any = key, **head: Any) -> str:
        return jwt.encode({**claims, **changes}, private, "ES256", headers={"kid": kid, **head})

    if kind == "none":
        return f"{part({'typ': 'JWT', 'alg': 'none', 'kid': kid})}.{body}."
    if kind == "HS256 with the public key":
        text = f"{part({'typ': 'JWT', 'alg': 'HS256', 'kid': kid})}.{body}"
        secret = str(ring.jwks["keys"][0]["x"]).encode()
        return f"{text}.{part(hmac.digest(secret, text.encode(), hashlib.sha256))}"
    return {
        "wrong kid": lambda: signed({}, kid="unknown"),
        "another's key": lambda: signed({}, ec.generate_private_key(ec.SECP256R1())),
        "foreign issuer": lambda: signed({"iss": "https://elsewhere.example/auth/v1"}),
        "wrong audience": lambda: signed({"aud": "anon"}),
        "expired": lambda: signed({"exp": int(clock.now_s()) - LEEWAY_S - 5}),
    }[kind]()


@pytest.mark.parametrize(
    ("kind", "code", "level"),
    [
        ("none", "PGRST301", "warning"), ("HS256 with the public key", "PGRST301", "warning"),
        ("wrong kid", "PGRST301", "warning"), ("another's key", "PGRST301", "warning"),
        ("foreign issuer", "PGRST303", "warning"), ("wrong audience", "PGRST303", "warning"),
        ("expired", "PGRST303", "info"),
    ],
)  # fmt: skip
async def test_X06_a_bent_token_is_refused_and_logged(
    hub: Hub, owner: Member, kind: str, code: str, level: str
) -> None:
    good = await hub.token(owner.email)
    token = forged(kind, good, await hub.app[AUTH].keyring())
    with capture_logs() as lines:
        answer = await hub.get("/rest/v1/contacts", token=token)
    assert (answer.status, answer.json["code"]) == (401, code)
    assert (await hub.get("/auth/v1/user", token=token)).json["code"] == "bad_jwt"
    told = [line for line in lines if line["event"] == "token.refused"]
    assert [line["log_level"] for line in told] == [level]
    assert token not in str(lines) and token.split(".")[1] not in str(lines)
