"""The customers: who they are and how they behave. The demo's six, and how a stranger is made of a number."""

from __future__ import annotations

import hashlib
import re

import msgspec


class Behaviour(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What this customer's phone does with a message; all times in seconds after the send was accepted."""

    delivers_after_s: float = 0.4
    reads_after_s: float | None = None
    """None = reads only when told to."""
    never_reads: bool = False
    """Read receipts are switched off; wins over everything."""
    replies_with: str | None = None
    reply_after_s: float = 2.0
    blocks: bool = False
    """Has blocked the business: a message stays `sent` for ever."""
    unreachable: bool = False
    """The message fails with 131026 after it was accepted."""


class Persona(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One customer. At least one of phone (digits) and user_id (business-scoped id) is set."""

    id: str
    name: str
    username: str | None = None
    phone: str | None = None
    user_id: str | None = None
    language: str = "en"
    about: str = ""
    stranger: bool = False
    behaviour: Behaviour = Behaviour()


PERSONAS = (
    Persona(
        id="layla",
        name="ليلى حسن",
        phone="201001383533",
        user_id="EG.20010013835330",
        language="ar",
        about="Cairo. Reads what you send after three seconds.",
        behaviour=Behaviour(reads_after_s=3.0),
    ),
    Persona(
        id="omar",
        name="Omar Farouk",
        phone="201112223344",
        user_id="EG.20111222334455",
        about="Alexandria. Reads when you open his phone.",
    ),
    Persona(
        id="nour",
        name="نور",
        username="nour.designs",
        user_id="EG.31415926535",
        language="ar",
        about="Goes by a username and hides her phone number.",
        behaviour=Behaviour(reads_after_s=5.0),
    ),
    Persona(
        id="james",
        name="James Carter",
        phone="447700900123",
        user_id="GB.44770090012390",
        about="London. Read receipts are switched off.",
        behaviour=Behaviour(delivers_after_s=0.8, never_reads=True),
    ),
    Persona(
        id="mariam",
        name="مريم عادل",
        phone="971501234567",
        user_id="AE.97150123456712",
        language="ar",
        about="Dubai. Answers every text within seconds.",
        behaviour=Behaviour(reads_after_s=1.0, replies_with="تمام، شكرًا! 🌟", reply_after_s=2.0),
    ),
    Persona(
        id="sami",
        name="Sami Haddad",
        phone="962790000456",
        user_id="JO.96279000045671",
        about="Amman. His phone is off: messages cannot be delivered.",
        behaviour=Behaviour(unreachable=True),
    ),
)

_COUNTRIES = {
    "971": "AE",
    "966": "SA",
    "965": "KW",
    "962": "JO",
    "44": "GB",
    "49": "DE",
    "33": "FR",
    "20": "EG",
}
_PHONE = re.compile(r"[1-9]\d{6,14}")
_USER_ID = re.compile(r"[A-Z]{2}\.[A-Za-z0-9.]{1,130}")


def is_phone(value: str) -> bool:
    """Digits with country code, no plus."""
    return _PHONE.fullmatch(value) is not None


def is_user_id(value: str) -> bool:
    """The form of a business-scoped id."""
    return _USER_ID.fullmatch(value) is not None


def stranger(address: str) -> Persona | None:
    """The customer behind a number or user id nobody described; the same address always gives the same
    one."""
    if is_phone(address):
        country = next((c for prefix, c in _COUNTRIES.items() if address.startswith(prefix)), "US")
        number = int(hashlib.sha256(address.encode()).hexdigest()[:12], 16)
        return Persona(
            id=address,
            name=f"+{address}",
            phone=address,
            user_id=f"{country}.{number}",
            stranger=True,
            behaviour=Behaviour(reads_after_s=5.0),
        )
    if is_user_id(address):
        return Persona(
            id=address,
            name=address,
            user_id=address,
            stranger=True,
            behaviour=Behaviour(reads_after_s=5.0),
        )
    return None
