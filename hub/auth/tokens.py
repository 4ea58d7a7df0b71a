"""Tokens that we sign: users' access tokens (ES256, one hour), the project keys (HS256, ten years).

A token's header chooses nothing: `kid` must be one of ours and brings its own algorithm; jku, jwk and x5u are
ignored. Times are read from hub.clock.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, Protocol
from uuid import UUID

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from jwt.algorithms import ECAlgorithm
from jwt.types import Options

from hub import clock
from hub.auth.secrets import open_secret, seal_secret
from hub.errors import AuthenticationFailed
from hub.settings import Settings
from sql import q

ACCESS_S: Final = 3600
LEEWAY_S: Final = 30
#: For so long others may keep our public keys; a new one signs nothing before.
JWKS_S: Final = 600
_TEN_YEARS_S: Final = 10 * 365 * 86400
_HS, _ES, _PEPPER = "HS256", "ES256", "PEPPER"
_LONGEST: Final = 8192
#: The web app's sessions have a rate limit of their own; this signed claim says which they are.
WEB_CLAIM: Final = "hub_client"


ProjectRole = Literal["anon", "service_role"]
_OPAQUE: Final[dict[ProjectRole, str]] = {"anon": "sb_publishable_", "service_role": "sb_secret_"}


def is_opaque(key: str) -> bool:
    return key.startswith("sb_")


def _opaque_key(secret: bytes, role: ProjectRole) -> str:
    """Always the same text for the same secret, which it does not tell."""
    digest = hmac.digest(secret, b"project key:" + role.encode(), "sha256")
    return _OPAQUE[role] + base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


class ProjectKeys(msgspec.Struct, frozen=True):
    """The deployment's two well-known keys, each as a token and in the newer opaque form, which clients that
    are new to it send instead (rest.md 1.3)."""

    anon: str
    service_role: str
    publishable: str
    secret: str


class _Connection(Protocol):
    async def fetch(self, query: str, *args: Any) -> list[Any]: ...
    async def execute(self, query: str, *args: Any) -> str: ...


class Keyring:
    """The opened keys of one deployment. Replaced as a whole when they change; never logged."""

    def __init__(self, rows: list[Mapping[str, Any]], settings: Settings) -> None:
        self._issuer = settings.public_base_url
        #: When each begins to sign (Unix seconds), its name, the key; the earliest first.
        self._signers: list[tuple[float, str, ec.EllipticCurvePrivateKey]] = []
        self.kids = tuple((row["kid"], row["signs_from"]) for row in rows)
        self._public: dict[str, tuple[str, Any]] = {}
        self.jwks: dict[str, list[dict[str, Any]]] = {"keys": []}
        self.pepper = b""
        self._project: tuple[str, bytes, int] | None = None
        #: Digests of the opaque project keys, and whose they are.
        self._opaque: dict[bytes, ProjectRole] = {}
        for row in rows:
            kid, algorithm = row["kid"], row["algorithm"]
            opened = open_secret(
                settings,
                row["sealed"],
                table="signing_keys",
                column=algorithm,
                organization_id=None,
                row_id=kid,
            ).reveal()
            if algorithm == _ES:
                key = load_pem_private_key(opened.encode(), None)
                if not isinstance(key, ec.EllipticCurvePrivateKey):
                    continue
                self._public[kid] = (_ES, key.public_key())
                jwk = ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
                self.jwks["keys"].append({**jwk, "kid": kid, "alg": _ES, "use": "sig", "key_ops": ["verify"]})
                self._signers.append((row["signs_from"].timestamp(), kid, key))
            elif algorithm == _HS:
                raw = base64.b64decode(opened)
                self._public[kid] = (_HS, raw)
                for role in _OPAQUE:
                    self._opaque[hashlib.sha256(_opaque_key(raw, role).encode()).digest()] = role
                if row["is_current"]:
                    self._project = (kid, raw, int(row["created_at"].timestamp()))
            elif algorithm == _PEPPER and row["is_current"]:
                self.pepper = base64.b64decode(opened)

        self._signers.sort(key=lambda signer: signer[0])

    @property
    def is_complete(self) -> bool:
        return bool(self._signers) and self._project is not None and bool(self.pepper)

    @property
    def signer(self) -> tuple[str, ec.EllipticCurvePrivateKey]:
        """The newest key that has begun to sign; the first, while none has."""
        if not self._signers:
            raise AuthenticationFailed("This hub has no signing key yet")
        now = clock.now_s()
        begun = [signer for signer in self._signers if signer[0] <= now]
        _, kid, key = begun[-1] if begun else self._signers[0]
        return kid, key

    @property
    def issuer(self) -> str:
        return f"{self._issuer}/auth/v1"

    def project_keys(self) -> ProjectKeys:
        """Always the same text for the same deployment: they are printed, copied and compared."""
        if self._project is None:
            raise AuthenticationFailed("This hub has no project keys yet")
        kid, raw, born = self._project

        def sign(role: str) -> str:
            claims = {"iss": "connectgain-hub", "role": role, "iat": born, "exp": born + _TEN_YEARS_S}
            return jwt.encode(claims, raw, algorithm=_HS, headers={"kid": kid})

        return ProjectKeys(
            anon=sign("anon"),
            service_role=sign("service_role"),
            publishable=_opaque_key(raw, "anon"),
            secret=_opaque_key(raw, "service_role"),
        )

    def opaque_role(self, key: str) -> ProjectRole | None:
        """Whose project key `sb_…` is; found by its digest, so time tells nothing of ours."""
        return self._opaque.get(hashlib.sha256(key.encode(errors="replace")).digest())

    def access_token(
        self,
        user: Mapping[str, Any],
        session_id: UUID,
        *,
        organization_id: UUID | None,
        org_role: str | None,
        is_web: bool,
        aal: str = "aal1",
        amr: Sequence[Mapping[str, Any]] = (),
    ) -> tuple[str, int]:
        """The token and its `exp`. ``user`` is app.user_document's."""
        kid, key = self.signer
        now = int(clock.now_s())
        claims: dict[str, Any] = {
            "iss": self.issuer,
            "sub": user["id"],
            "aud": "authenticated",
            "exp": now + ACCESS_S,
            "iat": now,
            "nbf": now,
            "email": user["email"],
            "phone": "",
            "app_metadata": app_metadata(user, organization_id, org_role),
            "user_metadata": _small(user.get("user_metadata") or {}),
            "role": "authenticated",
            "aal": aal,
            "amr": list(amr),
            "session_id": str(session_id),
            "is_anonymous": False,
        }
        if is_web:
            claims[WEB_CLAIM] = "web"
        return jwt.encode(claims, key, algorithm=_ES, headers={"kid": kid}), now + ACCESS_S

    def verify(self, token: str) -> dict[str, Any]:
        """The claims of a user's access token or of a project key (told apart by `role`). Raises
        AuthenticationFailed."""
        claims = self._claims(token)
        role = claims.get("role")
        if role in ("anon", "service_role") and "session_id" not in claims:
            _check_times(claims, need_exp=True)
            return claims
        if role != "authenticated":
            raise _unknown_role()
        for name in ("iss", "aud", "exp", "nbf", "sub", "session_id"):
            if name not in claims:
                raise AuthenticationFailed(f"The token has no {name}", rest_code="PGRST303")
        if claims["iss"] != self.issuer or claims["aud"] != "authenticated":
            raise AuthenticationFailed("The token was made for another place", rest_code="PGRST303")
        _check_times(claims, need_exp=True)
        return claims

    def _claims(self, token: str) -> dict[str, Any]:
        if len(token) > _LONGEST:
            raise AuthenticationFailed("The token is too long")
        if not _is_canonical(token):
            raise AuthenticationFailed("The token cannot be read", rest_code="PGRST301")
        try:
            header = jwt.get_unverified_header(token)
            kid = header.get("kid")
            candidates = [self._public[kid]] if kid in self._public else []
            if kid is None and header.get("alg") == _HS:  # keys made by others with our secret carry no kid
                candidates = [k for k in self._public.values() if k[0] == _HS]
            for algorithm, key in candidates:
                try:
                    claims: dict[str, Any] = jwt.decode(
                        token, key, algorithms=[algorithm], options=_OURSELVES
                    )
                except jwt.InvalidSignatureError:
                    continue
                if algorithm == _HS:
                    claims.setdefault("role", "anon")  # as PostgREST takes a token without one
                role = claims.get("role")
                if algorithm == _HS and role not in ("anon", "service_role", "authenticated"):
                    raise _unknown_role()
                if (algorithm == _HS) != (role in ("anon", "service_role")):
                    break  # the project's secret signs project keys and nothing else
                return claims
        except (jwt.PyJWTError, ValueError, TypeError) as error:
            raise AuthenticationFailed("The token cannot be read", rest_code="PGRST301") from error
        raise AuthenticationFailed("The token's signature is not ours", rest_code="PGRST301")


def _unknown_role() -> AuthenticationFailed:
    return AuthenticationFailed("The token's role does not exist", rest_code="22023")


def _is_canonical(token: str) -> bool:
    """Three parts of base64url, written as an encoder writes them. Python's decoder passes over strange
    characters and spare bits, so one signature would stand for many texts, each remembered for itself."""
    parts = token.split(".")
    if len(parts) != 3 or not token.isascii():
        return False
    for part in parts:
        try:
            raw = base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True)
        except ValueError:
            return False
        if base64.urlsafe_b64encode(raw).rstrip(b"=").decode() != part:
            return False
    return True


#: PyJWT reads the real clock; these checks are done by _check_times on ours.
_OURSELVES: Final[Options] = {
    "verify_signature": True,
    "verify_exp": False,
    "verify_nbf": False,
    "verify_iat": False,
    "verify_aud": False,
    "verify_iss": False,
    "verify_sub": False,
    "verify_jti": False,
}


def _check_times(claims: Mapping[str, Any], *, need_exp: bool) -> None:
    now = clock.now_s()
    expires, starts = claims.get("exp"), claims.get("nbf")
    if need_exp and not isinstance(expires, (int, float)):
        raise AuthenticationFailed("The token has no exp", rest_code="PGRST303")
    if isinstance(expires, (int, float)) and not expires > now - LEEWAY_S:  # NaN is no time to come
        raise AuthenticationFailed("The token has expired", rest_code="PGRST303")
    if starts is not None and not (isinstance(starts, (int, float)) and starts <= now + LEEWAY_S):
        raise AuthenticationFailed("The token is not valid yet", rest_code="PGRST303")


def app_metadata(
    user: Mapping[str, Any], organization_id: UUID | None, org_role: str | None
) -> dict[str, Any]:
    metadata = {"provider": "email", "providers": ["email"], **(user.get("app_metadata") or {})}
    if organization_id is not None:
        metadata |= {"organization_id": str(organization_id), "org_role": org_role}
    return metadata


def _small(metadata: Mapping[str, Any]) -> Mapping[str, Any]:
    """Tokens ride in every header: what does not fit is read from /user."""
    return metadata if len(msgspec.json.encode(metadata)) <= 600 else {}


def new_signing_key(settings: Settings) -> tuple[str, str, str]:
    """Name, public JWK and sealed private key of a fresh ES256 key."""
    private = ec.generate_private_key(ec.SECP256R1())
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    kid = secrets.token_hex(8)
    jwk = msgspec.json.encode(ECAlgorithm.to_jwk(private.public_key(), as_dict=True)).decode()
    return kid, jwk, _sealed(settings, kid, _ES, pem)


def _sealed(settings: Settings, kid: str, algorithm: str, value: str) -> str:
    return seal_secret(
        settings, value, table="signing_keys", column=algorithm, organization_id=None, row_id=kid
    )


async def renewed_keyring(conn: _Connection, settings: Settings, ring: Keyring) -> Keyring:
    """The ring as it is now; the same one when no key came or went."""
    rows = await conn.fetch(q.list_signing_keys)
    same = tuple((row["kid"], row["signs_from"]) for row in rows) == ring.kids
    return ring if same else Keyring(rows, settings)


async def load_keyring(conn: _Connection, settings: Settings) -> Keyring:
    """The keys of this database, made first if some are missing. Any connection that may call app's functions
    will do. Raises CannotOpen when HUB_SECRET_KEY is not the one that sealed them."""
    ring = Keyring(await conn.fetch(q.list_signing_keys), settings)
    if ring.is_complete:
        return ring
    kid, jwk, sealed = new_signing_key(settings)
    await conn.execute(q.add_signing_key, kid, _ES, jwk, sealed)
    for algorithm in (_HS, _PEPPER):
        kid = secrets.token_hex(8)
        value = base64.b64encode(secrets.token_bytes(32)).decode()
        await conn.execute(q.add_signing_key, kid, algorithm, None, _sealed(settings, kid, algorithm, value))
    return Keyring(await conn.fetch(q.list_signing_keys), settings)


async def project_keys(conn: _Connection, settings: Settings) -> ProjectKeys:
    """The anon and the service_role key of this database."""
    return (await load_keyring(conn, settings)).project_keys()
