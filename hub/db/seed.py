"""`hub seed`: the keys a new instance needs, and in demo mode a lively organization. Safe to repeat.

What people need to get in (keys, the demo's sign-in) is written to ``keys.json`` in the data folder, readable
by its owner only; the database holds hashes. Rows are written as hub_owner; conversations and messages as
hub_writer, whose rows may carry times of the past.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import secrets
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import msgspec
import orjson

from hub.auth.apikeys import hash_key, new_key, prefix_of
from hub.auth.passwords import hash_password
from hub.auth.secrets import seal_secret
from hub.auth.tokens import Keyring, load_keyring
from hub.channels.media_storage import Storage
from hub.db import demo, pictures
from hub.domain.permissions import PERMISSIONS, ROLE_DEFAULTS, Role
from hub.settings import Settings
from sql import q

#: The number and token under which the sandbox plays WhatsApp for the demo (hub/sandbox/config.py).
DEMO_NUMBER = {
    "phone_number_id": "100000000000001",
    "waba_id": "200000000000001",
    "display_phone_number": "15550001111",
}
DEMO_ACCESS_TOKEN = "sandbox-token"


class Keys(msgspec.Struct, kw_only=True):
    """keys.json. ``organization_key`` and ``owner`` are the demo's; the password is kept in demo mode
    alone."""

    anon_key: str
    service_role_key: str
    publishable_key: str | None = None
    secret_key: str | None = None
    url: str | None = None
    organization_id: str | None = None
    organization_key: str | None = None
    owner: dict[str, str | None] = {}


def main(settings: Settings, *, reset: bool = False) -> int:
    """The command. 0 when everything is there afterwards."""
    asyncio.run(seed(settings, reset=reset))
    return 0


async def seed(settings: Settings, *, reset: bool = False) -> Keys:
    """Make what is missing. With ``reset`` the demo organization is thrown away first."""
    if settings.migrate_url is None:
        raise ValueError("HUB_MIGRATE_URL is not set; seeding needs the login that migrations use.")
    conn = await asyncpg.connect(settings.migrate_url, server_settings={"timezone": "UTC"})
    try:
        await conn.execute("set role hub_owner")
        ring = await load_keyring(conn, settings)
        project = ring.project_keys()
        path = settings.data_dir / "keys.json"
        keys = _kept(path)
        if keys is None or keys.anon_key != project.anon:
            keys = Keys(anon_key=project.anon, service_role_key=project.service_role)
        keys.publishable_key, keys.secret_key = project.publishable, project.secret
        keys.url = settings.public_base_url
        if settings.demo:
            known = keys.organization_id and await conn.fetchval(
                "select id from public.organizations where id = $1", UUID(keys.organization_id)
            )
            if known and reset:
                await conn.execute("delete from public.organizations where id = $1", known)
                known = None
            if not known:
                async with conn.transaction():
                    await _Demo(conn, settings, ring).make(keys)
        _keep(path, keys)
        return keys
    finally:
        await conn.close()


def _kept(path: Path) -> Keys | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Keys)
    except (OSError, msgspec.DecodeError):
        return None


def _keep(path: Path, keys: Keys) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out:
        json.dump(msgspec.to_builtins(keys), out, indent=2)
    fresh.replace(path)


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()


class _Demo:
    """Writes hub/db/demo.py into one new organization, in one transaction."""

    def __init__(self, conn: asyncpg.Connection[asyncpg.Record], settings: Settings, ring: Keyring) -> None:
        self.conn, self.settings, self.ring = conn, settings, ring
        self.now = datetime.now(UTC)
        self.org = UUID(int=0)
        self.account = UUID(int=0)
        self.members: dict[str, UUID] = {}
        self.contacts: dict[str, UUID] = {}
        self.companies: dict[str, UUID] = {}
        self.files: list[tuple[UUID, str, dict[str, Any]]] = []
        """(message, name in hub/db/pictures.py, what the message shows of it)"""

    async def make(self, keys: Keys) -> None:
        password = "-".join(secrets.token_hex(2) for _ in range(3))
        self.org = await self.conn.fetchval(
            q.seed_organization, demo.ORGANIZATION, demo.TIMEZONE, demo.CURRENCY
        )
        await self._team(hash_password(password))
        keys.organization_id = str(self.org)
        keys.organization_key = await self._key()
        keys.owner = {"email": demo.TEAM[0].email, "password": password}
        await self._channel()
        await self._crm()
        for customer in demo.CUSTOMERS:
            await self._customer(customer)
        await self._keep_files()
        await self._work()

    async def _team(self, password_hash: str) -> None:
        """Everybody signs in with the demo's password, so that two agents can be tried side by side."""
        for person in demo.TEAM:
            user = await self.conn.fetchval(q.seed_user, person.email, password_hash)
            role: Role = person.role
            allowed = [p in ROLE_DEFAULTS[role] for p in PERMISSIONS]
            await self.conn.execute(
                q.seed_membership,
                self.org,
                user,
                role,
                person.first_name,
                person.last_name,
                person.email,
                *allowed,
            )
            self.members[person.key] = user

    async def _key(self) -> str:
        key = new_key()
        everything = dict.fromkeys(PERMISSIONS, True)
        await self.conn.execute(
            q.seed_api_key,
            self.org,
            "Demo: all permissions",
            prefix_of(key),
            _json(everything),
            hash_key(self.ring.pepper, key),
        )
        return key

    async def _channel(self) -> None:
        masked = {**DEMO_NUMBER, "access_token": "••••••••"}
        self.account = await self.conn.fetchval(
            q.seed_channel_account, self.org, "WhatsApp (sandbox)", _json(masked)
        )
        sealed = seal_secret(
            self.settings,
            DEMO_ACCESS_TOKEN,
            table="channel_accounts",
            column="access_token",
            organization_id=self.org,
            row_id=self.account,
        )
        await self.conn.execute(q.seed_secret, self.org, self.account, "access_token", sealed)

    async def _crm(self) -> None:
        for name, domain, industry, city, country, employees in demo.COMPANIES:
            self.companies[name] = await self.conn.fetchval(
                q.seed_company, self.org, name, domain, industry, city, country, employees
            )
        for name, language, serial, components in demo.TEMPLATES:
            await self.conn.execute(
                q.seed_template, self.org, name, self.account, DEMO_NUMBER["waba_id"] + serial, language,
                _json(components),
            )  # fmt: skip
        for shortcut, text in demo.QUICK_REPLIES:
            language = "en" if shortcut.isascii() else "ar"
            await self.conn.execute(
                q.seed_quick_reply, self.org, shortcut, _json([{"type": "BODY", "text": text}]), language
            )

    async def _customer(self, c: demo.Customer) -> None:
        began = self._at(max(line.minutes_ago for line in c.lines))
        phones = [f"+{c.wa_id}"] if c.wa_id else []
        contact = await self.conn.fetchval(
            q.seed_contact, self.org, c.first_name, c.last_name or None, phones, list(c.emails), list(c.tags),
            _json(c.custom_fields), c.opt_in, self.companies.get(c.company or ""),
            self.members.get(c.assignee or ""), c.job_title, c.city, c.country, c.language, began,
        )  # fmt: skip
        self.contacts[c.key] = contact
        shown = f"{c.first_name} {c.last_name}".strip()
        for scheme, value in (("wa_id", c.wa_id), ("wa_bsuid", c.bsuid)):
            if value:
                await self.conn.execute(q.seed_identity, self.org, contact, scheme, value, shown)
        await self.conn.execute(
            "set local role hub_writer"
        )  # its rows may be older than now, and are not news
        try:
            conversation = await self._conversation(c, contact, began)
        finally:
            await self.conn.execute("set local role hub_owner")
        for key, member in self.members.items():
            unread = len(_unanswered(c.lines)) if key in ("dana", c.assignee) or c.assignee is None else 0
            await self.conn.execute(q.seed_read, self.org, member, conversation, unread)

    async def _conversation(self, c: demo.Customer, contact: UUID, began: datetime) -> UUID:
        closed_at = self._at(min(line.minutes_ago for line in c.lines)) if c.closed else None
        conversation: UUID = await self.conn.fetchval(
            q.seed_conversation, self.org, contact, self.account, self.members.get(c.assignee or ""),
            "CLOSED" if c.closed else "OPEN", list(c.conversation_tags), c.priority, began, closed_at,
        )  # fmt: skip
        unread = _unanswered(c.lines)
        for n, line in enumerate(c.lines, 1):
            inbound = line.by is None
            status = ("RECEIVED" if line in unread else "READ") if inbound else line.status
            shown = _shown(line.file) if line.file else None
            message = await self.conn.fetchval(
                q.seed_message, self.org, conversation, contact, n, self.account,
                "INBOUND" if inbound else "OUTBOUND", line.text, status, self.members.get(line.by or ""),
                "customer" if inbound else "agent", self._at(line.minutes_ago),
                shown["kind"] if shown else "text", _json({"media": [shown]} if shown else {}),
            )  # fmt: skip
            if shown and line.file:
                self.files.append((message, line.file, shown))
        await self.conn.execute(q.seed_conversation_summary, self.org, conversation)
        return conversation

    async def _keep_files(self) -> None:
        """The bytes of what the messages show."""
        storage = Storage(self.settings.media_dir)
        for message, name, shown in self.files:
            data = pictures.FILES[name][3]()
            async with storage.incoming(len(data)) as file:
                await file.write(data)
                await file.finish()
                key = storage.key_of(self.org, file.sha256)
                await self.conn.execute(q.lock_media, self.org, key)
                await storage.keep(file, self.org)
            await self.conn.execute(
                q.seed_media, self.org, UUID(shown["file_id"]), message, shown["filename"], shown["mime"],
                shown["bytes"], shown["sha256"], key,
            )  # fmt: skip

    async def _work(self) -> None:
        pipeline = await self.conn.fetchval(q.seed_pipeline, self.org, "Sales", _json(list(demo.STAGES)))
        owners = {c.key: self.members.get(c.assignee or "") for c in demo.CUSTOMERS}
        for title, key, stage, value, probability, days in demo.DEALS:
            await self.conn.execute(
                q.seed_deal,
                self.org,
                title,
                self.contacts[key],
                pipeline,
                stage,
                value,
                probability,
                owners[key],
                days,
                demo.CURRENCY,
            )
        for title, key, member, priority, hours in demo.TASKS:
            await self.conn.execute(
                q.seed_task, self.org, title, self.contacts[key], self.members[member], priority, hours
            )
        for key, member, text in demo.NOTES:
            await self.conn.execute(q.seed_note, self.org, self.contacts[key], self.members[member], text)

    def _at(self, minutes_ago: int) -> datetime:
        return self.now - timedelta(minutes=minutes_ago)


def _shown(name: str) -> dict[str, Any]:
    """What a message shows of a file of hub/db/pictures.py."""
    filename, kind, mime, make = pictures.FILES[name]
    data = make()
    return {
        "kind": kind,
        "file_id": str(uuid4()),
        "state": "stored",
        "mime": mime,
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "filename": filename,
    }


def _unanswered(lines: tuple[demo.Line, ...]) -> tuple[demo.Line, ...]:
    """The customer's messages after the last answer."""
    last = max((n for n, line in enumerate(lines) if line.by is not None), default=-1)
    return lines[last + 1 :]
