"""Links and codes by mail: a new password, signing in without one, signing up, inviting, another address.

Asking costs the same and answers the same whether the address has an account or not: one sealed mail, one
statement. The worker finds out whether there is somebody to write to. Tokens have 256 bits and are kept
hashed; codes of eight digits are kept as HMACs, end with the fifth wrong one, and their link stays good.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Final, Literal
from urllib.parse import quote, urlencode, urlsplit
from uuid import UUID, uuid4

import msgspec
import structlog

from hub.auth.addresses import address_of
from hub.auth.authenticator import Authenticator
from hub.auth.mail import enqueue_mail, seal_mail
from hub.auth.passwords import Passwords, weakness
from hub.auth.refusals import AuthRefusal
from hub.auth.sessions import Accounts, Caller, inet_of, weak_password
from hub.db.pool import Database
from hub.settings import Settings
from sql import q

log = structlog.get_logger()
Kind = Literal["signup", "recovery", "magiclink", "invite", "email_change", "reauthentication"]
_LIFE: Final[dict[str, timedelta]] = {
    "recovery": timedelta(hours=1), "magiclink": timedelta(hours=1), "reauthentication": timedelta(hours=1),
    "signup": timedelta(days=1), "email_change": timedelta(days=1), "invite": timedelta(days=7),
}  # fmt: skip
#: What a client calls it, and which of ours that may be.
KINDS: Final[dict[str, tuple[Kind, ...]]] = {
    "signup": ("signup",), "recovery": ("recovery",), "magiclink": ("magiclink",), "invite": ("invite",),
    "email_change": ("email_change",), "email": ("magiclink", "signup"),
}  # fmt: skip
_DIGITS: Final = 8
_METADATA_BYTES: Final = 16_384


class Asked(msgspec.Struct, frozen=True):
    """What comes with a request for a link."""

    redirect_to: str | None = None
    challenge: str | None = None
    challenge_method: str | None = None
    is_web: bool = False

    def data(self) -> dict[str, Any]:
        """Kept with the link. Raises AuthRefusal for a challenge that is none."""
        if self.challenge is None:
            return {}
        method = (self.challenge_method or "plain").lower()
        if method not in ("plain", "s256") or not 43 <= len(self.challenge) <= 128:
            raise AuthRefusal("validation_failed", "code_challenge has 43 to 128 characters, s256 or plain")
        return {"challenge": self.challenge, "method": method}


class _Made(msgspec.Struct, frozen=True):
    """A fresh link: what goes into the mail, and what is kept."""

    mail_id: UUID
    token: str
    code: str
    token_hash: bytes
    code_hash: bytes
    link: str


class Followed(msgspec.Struct, frozen=True):
    """Whose link was used, and what it was for."""

    user_id: UUID
    kind: str
    data: dict[str, Any]


class Links:
    """One per process."""

    def __init__(
        self, db: Database, settings: Settings, auth: Authenticator, passwords: Passwords, accounts: Accounts
    ) -> None:
        self._db, self._settings, self._auth = db, settings, auth
        self._passwords, self._accounts = passwords, accounts

    # Asking.

    async def ask(self, kind: Literal["recovery", "magiclink"], email: str, asked: Asked) -> None:
        """A link for whoever has this account, if anybody has. Raises AuthRefusal."""
        await self._ask(kind, plain(email), "user", asked, asked.data())

    async def ask_to_sign_in(
        self, email: str, asked: Asked, create: bool, metadata: dict[str, Any] | None
    ) -> None:
        """A link that signs in, and makes the account where sign-up is open and ``create`` is wanted."""
        creates = create and self._settings.signup
        data = {**asked.data(), "create": creates, "user_metadata": _small(metadata)}
        await self._ask("magiclink", plain(email), None if creates else "user", asked, data)

    async def ask_again(self, kind: str, email: str, asked: Asked) -> None:
        """A new link for a sign-up that was not confirmed; for a change of address, one has to ask there."""
        if kind not in ("signup", "email_change"):
            raise AuthRefusal("validation_failed", "type must be signup or email_change")
        await self._ask("signup", plain(email), "user", asked, asked.data())

    async def reauthenticate(self, user_id: UUID, email: str) -> None:
        """A code to the user's own address, to confirm a change with."""
        made = await self._make("reauthentication", email, Asked())
        await self._keep(
            made, "reauthentication", str(user_id), email, "user", {}, {"code": made.code, "address": email}
        )

    async def confirm_nonce(self, user_id: UUID, email: str, nonce: str) -> bool:
        """Whether this is that code; it works once."""
        async with self._db.connection("api") as conn:
            good: bool = await conn.fetchval(
                q.use_nonce, user_id, await self._code_hash("reauthentication", email, nonce)
            )
        return good

    async def _ask(
        self, kind: Kind, address: str, only_if: str | None, asked: Asked, data: Mapping[str, Any]
    ) -> None:
        made = await self._make(kind, address, asked)
        await self._keep(made, kind, address, address, only_if, data, self._values(made, address))

    async def _keep(
        self,
        made: _Made,
        kind: Kind,
        subject: str,
        address: str,
        only_if: str | None,
        data: Mapping[str, Any],
        values: Mapping[str, str],
    ) -> None:
        async with self._db.connection("api") as conn:
            wait: float = await conn.fetchval(
                q.ask_link, made.mail_id, kind, subject, address, kind,
                seal_mail(self._settings, made.mail_id, None, values), only_if,
                made.token_hash, made.code_hash, _json(data), _LIFE[kind],
            )  # fmt: skip
        if wait > 0:
            raise too_soon(wait)
        self._db.wake("mail")

    # Signing up and inviting.

    async def sign_up(
        self, email: str, password: str, metadata: dict[str, Any] | None, asked: Asked, caller: Caller
    ) -> dict[str, Any]:
        """A session where addresses need no proof; else the user as he will be, whether he is there already
        or not. Raises AuthRefusal."""
        if not self._settings.signup:
            raise AuthRefusal("signup_disabled", "Signups not allowed for this instance", 422)
        address = plain(email)
        why = weakness(password)
        if why is not None:
            raise weak_password(why)
        kept, data = _small(metadata), asked.data()
        confirmed = self._settings.signup_autoconfirm
        hashed = await self._passwords.hash(password)
        made = await self._make("signup", address, asked)
        known_id = uuid4()
        known = seal_mail(
            self._settings, known_id, None, {"link": self._settings.public_base_url, "address": address}
        )
        async with self._db.connection("api") as conn:
            row = await conn.fetchrow(
                q.sign_up, address, hashed, _json(kept), confirmed, made.mail_id,
                seal_mail(self._settings, made.mail_id, None, self._values(made, address)), known_id, known,
                made.token_hash, made.code_hash, _json(data),
            )  # fmt: skip
        if row["wait_s"] > 0:
            raise too_soon(row["wait_s"])
        if confirmed:
            if row["outcome"] == "exists":
                raise AuthRefusal("user_already_exists", "User already registered", 422)
            return await self._accounts.open(row["user_id"], caller)
        self._db.wake("mail")
        log.info("sign_up.asked")
        return self._accounts.user_to_be(address, kept)

    async def invite(self, email: str, metadata: dict[str, Any] | None, asked: Asked) -> UUID:
        """For the service_role: a user who chooses a password by the link. Raises AuthRefusal."""
        address = plain(email)
        made = await self._make("invite", address, asked)
        async with self._db.connection("api") as conn:
            row = await conn.fetchrow(
                q.invite_user, address, _json(_small(metadata)), made.mail_id,
                seal_mail(self._settings, made.mail_id, None, self._values(made, address)),
                made.token_hash, made.code_hash, _json(asked.data()),
            )  # fmt: skip
        if row["outcome"] == "exists":
            raise email_exists()
        self._db.wake("mail")
        user_id: UUID = row["user_id"]
        return user_id

    async def generate(
        self, kind: Kind, user_id: UUID, address: str, asked: Asked, new_address: str | None = None
    ) -> dict[str, Any]:
        """A link for the service_role to pass on: GoTrue's action_link and what belongs to it."""
        to = new_address or address
        made = await self._make(kind, to, asked)
        subject = str(user_id) if kind == "email_change" else address
        async with self._db.connection("api") as conn, conn.transaction():
            if new_address is not None:
                row = await conn.fetchrow(
                    q.ask_email_change, user_id, new_address, None, None, made.token_hash, made.code_hash,
                    _json(asked.data()),
                )  # fmt: skip
                if not row["is_free"]:
                    raise email_exists()
            else:
                await conn.fetchval(
                    q.ask_link, None, kind, subject, to, kind, None, None, made.token_hash, made.code_hash,
                    _json(asked.data()), _LIFE[kind],
                )  # fmt: skip
        return {
            "action_link": made.link,
            "email_otp": made.code,
            "hashed_token": made.token,
            "verification_type": kind,
            "redirect_to": self.landing(asked.redirect_to),
        }

    async def ask_email_change(self, user_id: UUID, email: str, asked: Asked) -> None:
        """Write to the new address; nothing changes before its link was followed. Raises AuthRefusal."""
        address = plain(email)
        made = await self._make("email_change", address, asked)
        async with self._db.connection("api") as conn:
            row = await conn.fetchrow(
                q.ask_email_change, user_id, address, made.mail_id,
                seal_mail(self._settings, made.mail_id, None, self._values(made, address)),
                made.token_hash, made.code_hash, _json(asked.data()),
            )  # fmt: skip
        if not row["is_free"]:
            raise email_exists()
        if row["wait_s"] > 0:
            raise too_soon(row["wait_s"])
        self._db.wake("mail")

    # Using.

    async def follow(self, kind: str, token: str, caller: Caller) -> Followed:
        """Use a link. Raises AuthRefusal otp_expired for one that is unknown, used, run out or of another
        kind."""
        if not 20 <= len(token) <= 200 or not token.isascii():
            raise self._bad()
        return await self._redeem(_kinds(kind), caller, token_hash=_hash(token))

    async def enter_code(self, kind: str, email: str, code: str, caller: Caller) -> Followed:
        """Use the code of a mail. Wrong ones count like wrong passwords."""
        kinds = _kinds(kind)
        address = address_of(email)
        if address is None or not code.isascii() or len(code) > 20:
            raise self._bad()
        await self._accounts.check_delay(address, caller)
        return await self._redeem(kinds, caller, address=address, code=code)

    async def _redeem(
        self,
        kinds: Sequence[Kind],
        caller: Caller,
        *,
        token_hash: bytes | None = None,
        address: str | None = None,
        code: str = "",
    ) -> Followed:
        hashes = [await self._code_hash(kind, address or "", code) for kind in kinds]
        async with self._db.connection("api") as conn, conn.transaction():
            row = await conn.fetchrow(
                q.redeem_token, token_hash, address, list(kinds), hashes, self._settings.signup
            )
            if row["outcome"] == "good" and row["old_email"]:
                await enqueue_mail(
                    conn, self._settings, "email_changed", row["old_email"], {"address": row["email"]}
                )
            if row["outcome"] == "bad" and address is not None:
                await conn.execute(
                    q.sign_in_failed, address, caller.network, "invalid_code", inet_of(caller.address),
                    caller.request_id,
                )  # fmt: skip
        if row["outcome"] == "banned":
            raise AuthRefusal("user_banned", "This user is banned", 403)
        if row["outcome"] == "taken":
            raise email_exists()
        if row["outcome"] != "good":
            log.warning("link.refused", kind=kinds[0], network=caller.network, by_code=address is not None)
            raise self._bad()
        if row["old_email"]:
            self._db.wake("mail")
        log.info("link.used", kind=row["kind"])
        return Followed(row["user_id"], row["kind"], msgspec.json.decode(row["data"]))

    async def session_of(self, followed: Followed, caller: Caller) -> dict[str, Any]:
        """The session that a link opens."""
        return await self._accounts.open(followed.user_id, caller, _METHODS[followed.kind])

    async def flow_code(self, followed: Followed) -> str:
        """For a link that was asked for with a challenge: what its asker exchanges for a session."""
        code = secrets.token_urlsafe(32)
        data = {**followed.data, "kind": followed.kind}
        async with self._db.connection("api") as conn:
            await conn.execute(q.keep_flow, followed.user_id, _hash(code), _json(data))
        return code

    async def exchange(self, code: str, verifier: str, caller: Caller) -> dict[str, Any]:
        """A session for a flow's code and the verifier of its challenge. Raises AuthRefusal; the code is
        spent either way."""
        async with self._db.connection("api") as conn:
            row = await conn.fetchrow(q.use_flow, _hash(code))
        if row is None:
            raise AuthRefusal("flow_state_not_found", "invalid flow state, no valid flow state found", 404)
        data = msgspec.json.decode(row["data"])
        proof = verifier
        if data["method"] == "s256":
            digest = hashlib.sha256(verifier.encode(errors="replace")).digest()
            proof = base64.urlsafe_b64encode(digest).decode().rstrip("=")
        if not hmac.compare_digest(proof.encode(errors="replace"), str(data["challenge"]).encode()):
            log.warning("flow.refused", network=caller.network)
            raise AuthRefusal(
                "bad_code_verifier", "code challenge does not match previously saved code verifier"
            )
        return await self._accounts.open(row["user_id"], caller, _METHODS[data["kind"]])

    @staticmethod
    def _bad() -> AuthRefusal:
        return AuthRefusal("otp_expired", "Token has expired or is invalid", 403)

    # Making.

    async def _make(self, kind: Kind, address: str, asked: Asked) -> _Made:
        token, code = secrets.token_urlsafe(32), f"{secrets.randbelow(10**_DIGITS):0{_DIGITS}d}"
        return _Made(
            mail_id=uuid4(),
            token=token,
            code=code,
            token_hash=_hash(token),
            code_hash=await self._code_hash(kind, address, code),
            link=self._link(kind, token, asked),
        )

    def _link(self, kind: Kind, token: str, asked: Asked) -> str:
        """Our app's page keeps the token behind the #, where no server and no log sees it, and asks before it
        is used; programs of mail scanners that open every link spend nothing."""
        base = self._settings.public_base_url
        if asked.is_web:
            return f"{base}/confirm#type={kind}&token_hash={token}"
        query = urlencode(
            {"token": token, "type": kind, "redirect_to": self.landing(asked.redirect_to)}, quote_via=quote
        )
        return f"{base}/auth/v1/verify?{query}"

    @staticmethod
    def _values(made: _Made, address: str) -> dict[str, str]:
        return {"link": made.link, "code": made.code, "address": address}

    def landing(self, wanted: str | None) -> str:
        """Where a followed link may lead: our own pages and those that the operator listed; else the
        app."""
        base = self._settings.public_base_url
        if wanted is None or not wanted.isascii() or not wanted.isprintable() or "\\" in wanted:
            return base
        try:
            parts = urlsplit(wanted)
            port = f":{parts.port}" if parts.port is not None else ""
        except ValueError:
            return base
        if parts.username is not None or parts.password is not None or "@" in parts.netloc:
            return base
        origin = f"{parts.scheme}://{(parts.hostname or '').lower()}{port}"
        ours = {_origin(base), *(_origin(allowed) for allowed in self._settings.allowed_origins)}
        return wanted if origin in ours and parts.hostname else base

    async def _code_hash(self, kind: str, address: str, code: str) -> bytes:
        """Eight digits are guessed in no time from a plain hash."""
        ring = await self._auth.keyring()
        text = f"{kind}|{address}|{code}".encode(errors="replace")
        return hmac.digest(ring.pepper, text, hashlib.sha256)


_METHODS: Final = {
    "signup": "email/signup", "recovery": "recovery", "magiclink": "magiclink", "invite": "invite",
    "email_change": "email_change",
}  # fmt: skip


def _kinds(kind: str) -> tuple[Kind, ...]:
    found = KINDS.get(kind)
    if found is None:
        raise AuthRefusal("validation_failed", f"type must be one of {', '.join(KINDS)}")
    return found


def plain(email: str) -> str:
    """Raises AuthRefusal for what is no address, look-alikes included."""
    address = address_of(email)
    if address is None:
        raise AuthRefusal("validation_failed", "Unable to validate email address: invalid format")
    return address


def too_soon(wait_s: float) -> AuthRefusal:
    return AuthRefusal(
        "over_email_send_rate_limit",
        f"For security purposes, you can only request this after {max(1, round(wait_s))} seconds.",
        429,
        retry_after_s=wait_s,
    )


def email_exists() -> AuthRefusal:
    return AuthRefusal("email_exists", "A user with this email address has already been registered", 422)


def _origin(url: str) -> str:
    parts = urlsplit(url)
    port = f":{parts.port}" if parts.port is not None else ""
    return f"{parts.scheme}://{(parts.hostname or '').lower()}{port}"


def _small(metadata: dict[str, Any] | None) -> dict[str, Any]:
    kept = metadata or {}
    if len(msgspec.json.encode(kept)) > _METADATA_BYTES:
        raise AuthRefusal("validation_failed", "data is larger than 16 KiB")
    return kept


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="replace")).digest()


def _json(value: Mapping[str, Any]) -> str:
    return msgspec.json.encode(dict(value)).decode()
