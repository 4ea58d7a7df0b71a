"""Webhook signatures, one function per scheme. Raw bytes in, constant-time comparison, False for anything
malformed.

All take the header value as received (None = absent) and a sequence of secrets, so that rotation is a longer
list.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Iterable, Mapping, Sequence
from urllib.parse import parse_qs, urlsplit, urlunsplit

META_HEADER_LENGTH = len("sha256=") + 64
TIKTOK_TOLERANCE_S = 300
"""TikTok's sample code uses 5 s, which a delayed retry or a drifting clock breaks."""
STRIPE_TOLERANCE_S = 300


def _matches(given: str, expected: Iterable[str]) -> bool:
    """Compares with every candidate, never stopping early; headers may hold non-ASCII bytes, which
    compare_digest refuses as str."""
    raw = given.encode("utf-8", "surrogateescape")
    found = False
    for candidate in expected:
        found |= hmac.compare_digest(raw, candidate.encode())
    return found


def _hex(secret: str, message: bytes) -> str:
    return hmac.digest(secret.encode(), message, "sha256").hex()


def meta_signature(secret: str, body: bytes) -> str:
    """Value of X-Hub-Signature-256 for exactly these bytes."""
    return "sha256=" + _hex(secret, body)


def verify_meta(header: str | None, body: bytes, secrets: Sequence[str]) -> bool:
    """X-Hub-Signature-256 of WhatsApp, Messenger and Instagram; exactly 71 characters, lower-case hex."""
    if header is None or len(header) != META_HEADER_LENGTH:
        return False
    return _matches(header, [meta_signature(secret, body) for secret in secrets if secret])


def appsecret_proof(secret: str, access_token: str) -> str:
    """Parameter that proves to Graph that the caller knows the app secret as well as the token."""
    return _hex(secret, access_token.encode())


def tokens_match(given: str | None, known: Sequence[str]) -> bool:
    """A shared token (handshakes, secret headers); an empty one never matches."""
    return bool(given) and _matches(given or "", [token for token in known if token])


def _parts(header: str) -> dict[str, list[str]]:
    parts: dict[str, list[str]] = {}
    for item in header.split(","):
        name, _, value = item.strip().partition("=")
        parts.setdefault(name, []).append(value)
    return parts


def _verify_timestamped(
    header: str | None, body: bytes, secrets: Sequence[str], *, scheme: str, now_s: float, tolerance_s: float
) -> bool:
    """`t=<epoch s>,<scheme>=<hex>` over `<t>.<body>`; parts by name, in any order."""
    parts = _parts(header or "")
    stamps = parts.get("t", [])
    if len(stamps) != 1 or not (stamps[0].isascii() and stamps[0].isdigit() and len(stamps[0]) < 16):
        return False
    if abs(now_s - int(stamps[0])) > tolerance_s:
        return False
    expected = [_hex(secret, stamps[0].encode() + b"." + body) for secret in secrets if secret]
    return any(_matches(given, expected) for given in parts.get(scheme, []))


def verify_tiktok(
    header: str | None,
    body: bytes,
    secrets: Sequence[str],
    *,
    now_s: float,
    tolerance_s: float = TIKTOK_TOLERANCE_S,
) -> bool:
    """TikTok-Signature: `t=…,s=…`."""
    return _verify_timestamped(header, body, secrets, scheme="s", now_s=now_s, tolerance_s=tolerance_s)


def verify_stripe(
    header: str | None,
    body: bytes,
    secrets: Sequence[str],
    *,
    now_s: float,
    tolerance_s: float = STRIPE_TOLERANCE_S,
) -> bool:
    """Stripe-Signature: `t=…,v1=…[,v1=…]`; several v1 appear while the endpoint's secret is being rolled."""
    return _verify_timestamped(header, body, secrets, scheme="v1", now_s=now_s, tolerance_s=tolerance_s)


def twilio_signature(
    secret: str, url: str, params: Mapping[str, Sequence[str]], *, algorithm: str = "sha1"
) -> str:
    """base64 HMAC over the URL and every POST parameter, sorted by name, name and value glued; repeated
    names: sorted unique values."""
    message = url + "".join(name + value for name in sorted(params) for value in sorted(set(params[name])))
    return base64.b64encode(hmac.new(secret.encode(), message.encode(), algorithm).digest()).decode()


def _url_spellings(url: str) -> list[str]:
    """Twilio signs the URL it called; whether that had an explicit default port is not visible behind a
    proxy, so both count."""
    split = urlsplit(url)
    host = split.netloc.rpartition("@")[2]
    if split.port is not None:
        other = split.netloc[: -len(f":{split.port}")]
    elif ":" not in host and split.scheme in ("http", "https"):
        other = f"{split.netloc}:{443 if split.scheme == 'https' else 80}"
    else:
        return [url]
    return [url, urlunsplit(split._replace(netloc=other))]


def verify_twilio(
    header: str | None,
    url: str,
    params: Mapping[str, Sequence[str]],
    secrets: Sequence[str],
    *,
    body: bytes = b"",
    algorithm: str = "sha1",
) -> bool:
    """X-Twilio-Signature over the public `url`. A JSON body is covered by the URL's `bodySHA256` instead of
    parameters.

    `algorithm` is "sha256" when X-Twilio-Webhooks-Signature-Settings says HMAC_SHA256.
    """
    if not header:
        return False
    body_hash = parse_qs(urlsplit(url).query).get("bodySHA256")
    if body_hash and not (len(body_hash) == 1 and _matches(body_hash[0], [hashlib.sha256(body).hexdigest()])):
        return False
    signed = {} if body_hash else params
    expected = [
        twilio_signature(secret, spelling, signed, algorithm=algorithm)
        for secret in secrets
        if secret
        for spelling in _url_spellings(url)
    ]
    return _matches(header, expected)


def verify_mailgun(signature: str | None, timestamp: str, token: str, secrets: Sequence[str]) -> bool:
    """A Mailgun route's form fields: hex HMAC over timestamp + token. Freshness and reuse of the token are
    the caller's."""
    if not signature:
        return False
    message = (timestamp + token).encode()
    return _matches(signature, [_hex(secret, message) for secret in secrets if secret])
