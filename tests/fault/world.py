"""What is in the database before a fault test begins: twenty organizations on the sandbox's provider, and a
trigger of the tests' own that counts changes independently of the event log (I2)."""

from __future__ import annotations

import json
from pathlib import Path
from uuid import UUID

import asyncpg
import msgspec

from hub.auth.apikeys import hash_key, new_key, prefix_of
from hub.auth.passwords import hash_password
from hub.auth.secrets import seal_secret
from hub.auth.tokens import load_keyring
from hub.db.migrate import migrate
from hub.domain.permissions import PERMISSIONS, ROLE_DEFAULTS
from hub.settings import Settings, load_settings
from sql import q

DATABASE = "hub"
RUNTIME_PASSWORD = "runtime-password-of-the-rig"
#: Planted: none of these may ever be seen in a log, an answer or a dump (I10).
SECRET_KEY = "secret-key-of-the-rig-0123456789-0123456789"
APP_SECRET = "app-secret-of-the-rig-4d5e6f"
VERIFY_TOKEN = "verify-token-of-the-rig-7a8b9c"
ACCESS_TOKEN = "EAArigAccessToken0123456789"
USER_PASSWORD = "correct horse battery of the rig"
SECRETS = (SECRET_KEY, APP_SECRET, VERIFY_TOKEN, ACCESS_TOKEN, USER_PASSWORD, RUNTIME_PASSWORD)
PUBLIC_URL = "http://127.0.0.1:8080"
"""The issuer of tokens: the same for every hub, whatever port it listens on."""

ORGANIZATIONS = 20
CUSTOMERS = 20
"""Conversations of each organization that are there from the start."""

_AUDIT = """
create schema audit;
create table audit.changes (organization_id uuid not null, table_name text not null, op text not null,
  entity_id uuid, xid xid8 not null default pg_current_xact_id(), n bigint generated always as identity);
create function audit.note() returns trigger language plpgsql security definer
  set search_path = pg_catalog, pg_temp as $$
declare r jsonb := case when tg_op = 'DELETE' then to_jsonb(old) else to_jsonb(new) end;
begin
  insert into audit.changes (organization_id, table_name, op, entity_id)
  values (coalesce(r ->> 'organization_id', r ->> 'id')::uuid, tg_table_name, tg_op,
          coalesce(r ->> 'id', r ->> 'user_id')::uuid);
  return null;
end $$;
do $$ declare t text; begin
  for t in select tgrelid::regclass::text from pg_trigger where tgname = 'emit' loop
    execute format('create trigger note_change after insert or update or delete on %s for each row'
                   ' execute function audit.note()', t);
  end loop;
end $$;
"""


class Customer(msgspec.Struct):
    wa_id: str
    contact_id: UUID
    conversation_id: UUID


class RigOrg(msgspec.Struct):
    """An organization with one WhatsApp number, one owner, one key that may do everything. `canary` is in
    every text that is said in it, and nowhere else (I9)."""

    n: int
    id: UUID
    account_id: UUID
    phone_number_id: str
    owner_id: UUID
    email: str
    api_key: str
    customers: list[Customer]

    @property
    def canary(self) -> str:
        return f"canary{self.n:02d}x"


class World(msgspec.Struct):
    orgs: list[RigOrg]

    def save(self, folder: Path) -> None:
        (folder / "world.json").write_bytes(msgspec.json.encode(self))

    @classmethod
    def load(cls, folder: Path) -> World:
        return msgspec.json.decode((folder / "world.json").read_bytes(), type=World)


def settings_for(database_url: str, redis_url: str = "redis://127.0.0.1:1/0") -> Settings:
    """The settings that every process of the rig shares."""
    return load_settings(
        {
            "DATABASE_URL": database_url,
            "REDIS_URL": redis_url,
            "HUB_SECRET_KEY": SECRET_KEY,
            "PUBLIC_BASE_URL": PUBLIC_URL,
            "META_APP_SECRET": APP_SECRET,
            "META_VERIFY_TOKEN": VERIFY_TOKEN,
        }
    )


async def build(superuser_url: str, runtime_url: str) -> World:
    """Migrate an empty database and fill it."""
    await migrate(superuser_url, runtime_url)
    settings = settings_for(runtime_url)
    conn = await asyncpg.connect(superuser_url)
    try:
        await conn.execute(_AUDIT)
        await conn.execute("set role hub_owner")
        ring = await load_keyring(conn, settings)
        await conn.execute("reset role")
        password_hash = hash_password(USER_PASSWORD)
        async with conn.transaction():
            orgs = [
                await _organization(conn, settings, n, ring.pepper, password_hash)
                for n in range(ORGANIZATIONS)
            ]
        await conn.execute("vacuum analyze")
        return World(orgs)
    finally:
        await conn.close()


async def _organization(
    conn: asyncpg.Connection, settings: Settings, n: int, pepper: bytes, password_hash: str
) -> RigOrg:
    org = await conn.fetchval(q.seed_organization, f"Organization {n}", "UTC", "USD")
    email = f"owner{n}@rig.test"
    owner = await conn.fetchval(q.seed_user, email, password_hash)
    allowed = [p in ROLE_DEFAULTS["OWNER"] for p in PERMISSIONS]
    await conn.execute(q.seed_membership, org, owner, "OWNER", "Owner", str(n), email, *allowed)
    key = new_key()
    everything = json.dumps(dict.fromkeys(PERMISSIONS, True))
    await conn.execute(q.seed_api_key, org, "rig", prefix_of(key), everything, hash_key(pepper, key))
    number = f"5550{n:011d}"
    shown = json.dumps({"phone_number_id": number, "waba_id": f"66{n:08d}", "access_token": "••••"})
    account = await conn.fetchval(q.seed_channel_account, org, "WhatsApp", shown)
    sealed = seal_secret(
        settings,
        ACCESS_TOKEN,
        table="channel_accounts",
        column="access_token",
        organization_id=org,
        row_id=account,
    )
    await conn.execute(q.seed_secret, org, account, "access_token", sealed)
    customers = [await _customer(conn, org, account, f"20{n:02d}{c:07d}") for c in range(CUSTOMERS)]
    return RigOrg(n, org, account, number, owner, email, key, customers)


async def _customer(conn: asyncpg.Connection, org: UUID, account: UUID, wa_id: str) -> Customer:
    contact = await conn.fetchval(
        "insert into contacts (organization_id, first_name, phones) values ($1, $2, array[$3]) returning id",
        org,
        f"Customer {wa_id}",
        f"+{wa_id}",
    )
    await conn.execute(
        "insert into contact_identities (organization_id, contact_id, scheme, value)"
        " values ($1, $2, 'wa_id', $3)",
        org,
        contact,
        wa_id,
    )
    conversation = await conn.fetchval(
        "insert into conversations (organization_id, contact_id, channel_account_id)"
        " values ($1, $2, $3) returning id",
        org,
        contact,
        account,
    )
    return Customer(wa_id, contact, conversation)
