"""The closed list: every function that runs with its owner's rights, why it may, and who may call it
(guarantees 15).

A new one must be added here with its reason, and its neighbour test named.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import asyncpg
import orjson
import pytest

from hub.db.pool import Database
from hub.db.tenancy import acting_as
from tests.factories import ingest_item, make_contact, make_conversation, make_message
from tests.rows import Filled, encoded, fill

#: Called by the runtime's own login, before any role is entered: they take an organization, an id or a key
#: that the caller was given by another of them, and touch that organization's rows alone.
MACHINERY = {
    # the way in
    "ingest_many": "webhook batches name the organization their account belongs to",
    "add_identity": "a further identity of a contact that ingest resolved",
    "add_identities": "a customer's changed number",
    "amend_messages": "edits, deletions and reactions of stored messages",
    "apply_statuses": "receipts, by account and provider id",
    "apply_parked": "receipts that came before the echo they speak of",
    "judge_template": "a provider's verdict on a template",
    "note_opt_out": "a customer who stopped marketing",
    "contact_by_identities": "who a changed number belongs to",
    "contact_of_sender": "who an insert-message is about",
    "webhook_accounts": "which accounts a provider's key may mean, with what verifies a delivery",
    "verify_tokens": "the subscription handshake",
    "keep_failure": "a signed delivery that could not be applied",
    "claim_failures": "kept deliveries that are due",
    "settle_failure": "what became of one, fenced by its token",
    "list_all_failures": "for the service_role key, by what is behind it",
    "count_failures": "numbers only",
    "heard_from": "when an account was last heard of",
    # the way out
    "claim_sends": "due sends of all organizations",
    "mark_sending": "fenced by the claim's token",
    "extend_leases": "fenced by the claim's token",
    "settle_sends": "fenced by the claim's token",
    "reap_sends": "what dead workers left",
    "release_account": "an account that may be tried again",
    "report_account": "an account that could not sign in to its provider",
    "outbox_depth": "numbers only",
    "delete_expired": "what the keeping times let go",
    # files
    "claim_media": "due files of all organizations",
    "extend_media": "fenced by the claim's token",
    "settle_media": "fenced by the claim's token",
    "show_media": "a file's state in its own message",
    "reap_media": "what dead workers left",
    "media_depth": "numbers only",
    "media_for_send": "a file of the organization whose message is sent",
    "keep_provider_media": "a file of the organization whose message is sent",
    "forget_provider_media": "a file of the organization whose message is sent",
    "delete_unused_media": "what the keeping times let go",
    "unknown_media": "of an organization's keys on disk, those without a row",
    # live
    "heads": "numbers only",
    "read_events": "one organization's log",
    "resume_floor": "a number",
    "epoch": "a hash",
    "live_standing": "whether open sessions may go on",
    # who is calling
    "list_signing_keys": "sealed keys of the deployment",
    "add_signing_key": "sealed keys of the deployment",
    "claim_sentinel": "a sealed word",
    "user_by_email": "sign-in",
    "account_proof": "one's own account",
    "user_document": "sign-in",
    "update_user": "one's own account",
    "home_of": "a member's organizations",
    "organizations_of": "a member's organizations",
    "open_session": "sign-in",
    "session_state": "one session",
    "session_of_refresh": "one session, by its token's hash",
    "rotate_refresh": "one session, by its token's hash",
    "end_sessions": "one's own sessions",
    "switch_organization": "one's own session, to an organization one belongs to",
    "create_organization": "a new one, and its maker's membership and session",
    "invitation_by_token": "one invitation, by its token's hash",
    "refuse_invitation": "a row of the audit log of who sent the link, by its token's hash",
    "accept_invitation": "one invitation, by its token's hash, and the membership it gives",
    "api_keys_by_prefix": "key look-up",
    "api_key_state": "one key",
    "keys_used": "each key in its organization",
    "note_refusals": "rows of the audit log, each in the organization of its caller",
    "sign_in_delay": "counters",
    "sign_in_failed": "counters, and audit rows of the user it names",
    "sign_in_succeeded": "counters",
    "schema_version": "names of migrations",
    "sessions_of": "one's own sessions",
    # links: by the hash of a token, or an address and a code
    "ask_link": "an address's or one's own link",
    "sign_up": "a new account",
    "invite_user": "the service_role's",
    "ask_email_change": "one's own account",
    "find_token": "one link",
    "redeem_token": "the account of one link",
    "keep_flow": "one's own account",
    "use_flow": "one flow's code",
    "use_nonce": "one's own code",
    "list_users": "the service_role's",
    "put_user": "the service_role's",
    "drop_user": "the service_role's",
    # second factors: one's own, by the user's id
    "note_account": "audit rows of the user it names",
    "has_factor": "one's own account",
    "add_factor": "one's own account",
    "challenge_factor": "one's own account",
    "factor_secret": "one's own account",
    "raise_session": "one's own session",
    "prove_factor": "one's own account",
    "remove_factor": "one's own account",
    "keep_recovery_codes": "one's own account",
    "recovery_codes_left": "one's own account",
    "use_recovery_code": "one's own account",
    # billing
    "billing_request": "an owner's own organization",
    "keep_stripe_customer": "an owner's own organization",
    "billing_standing": "an owner's own organization",
    "billing_owner": "whose a customer is, from a signed event",
    "stripe_event_applied": "one event, by its id",
    "begin_billing_look": "one customer of Stripe's, a number",
    "apply_subscriptions": "one customer of Stripe's, in his organization",
    "end_billing_customer": "one customer of Stripe's, in his organization",
    # mails
    "claim_mail": "due mails of all organizations",
    "extend_mail": "fenced by the claim's token",
    "settle_mail": "fenced by the claim's token",
    "reap_mail": "what dead workers left, and what nobody wants",
    "waiting_mail": "one organization's mails, and those of its members",
}
#: Called inside a member's transaction: they take the organization from app.org() and check permissions
#: themselves.
WITHIN_A_ROLE = {
    "record_message": "insert-message",
    "conversation_for_send": "send functions",
    "keep_upload": "upload-media",
    "take_media": "a message with an upload",
    "keep_api_key_hash": "generate-api-key",
    "keep_secrets": "sealed settings of rows just written",
    "begin_idempotent": "a caller's own keys",
    "finish_idempotent": "a caller's own keys",
    "find_contacts": "rpc/search_contacts",
    "note_export": "a row of the caller's own audit log",
    "keep_invitation_token": "an invitation of the caller's organization",
    "retire_api_key": "a key of the caller's organization",
    "leave_organization": "the caller's own membership",
    "assign_conversation": "a conversation that the caller sees",
    "enqueue_mail": "an invitation of the caller's organization",
    "drop_mail": "an invitation of the caller's organization",
}


@pytest.fixture
async def two(superuser: asyncpg.Connection) -> tuple[Filled, Filled]:
    return await fill(superuser), await fill(superuser)


async def definers(conn: asyncpg.Connection, role: str) -> set[str]:
    rows = await conn.fetch(
        "select p.proname from pg_proc p where p.prosecdef and p.prorettype <> 'trigger'::regtype"
        " and p.pronamespace in ('app'::regnamespace, 'auth'::regnamespace, 'public'::regnamespace)"
        " and has_function_privilege($1, p.oid, 'execute')",
        role,
    )
    return {r["proname"] for r in rows}


async def test_the_list_of_definer_functions_is_closed(superuser: asyncpg.Connection) -> None:
    found = await definers(superuser, "hub_runtime")
    unlisted = found - set(MACHINERY) - set(WITHIN_A_ROLE)
    reached_by_sql_alone = {"has_appgain_credentials", "list_failures", "organization_summary"}
    assert unlisted <= reached_by_sql_alone, unlisted - reached_by_sql_alone
    assert set(MACHINERY) | set(WITHIN_A_ROLE) <= found


async def test_X10_inside_a_role_only_those_that_check_the_caller_can_be_called(
    superuser: asyncpg.Connection,
) -> None:
    assert await definers(superuser, "authenticated") == set(WITHIN_A_ROLE)
    assert await definers(superuser, "anon") == set()


async def refusal(conn: asyncpg.Connection, statement: str, *args: Any) -> str | None:
    """The SQLSTATE of the refusal; nothing is kept."""
    await conn.execute("savepoint attempt")
    try:
        await conn.fetch(statement, *args)
    except asyncpg.PostgresError as e:
        return str(e.sqlstate)
    finally:
        await conn.execute("rollback to savepoint attempt")
    return None


async def test_functions_within_a_role_refuse_the_neighbours_ids(
    db: Database, two: tuple[Filled, Filled]
) -> None:
    a, b = two
    message = {
        "content": "x",
        "direction": "INBOUND",
        "status": "RECEIVED",
        "message_type": "text",
        "phones": [],
    }
    async with acting_as(db, a.owner.principal()) as conn:
        for item in (
            {**message, "contact_id": str(b.id("contacts"))},
            {**message, "contact_id": str(a.id("contacts")), "channel_account_id": str(b.org.account_id)},
        ):
            got = await refusal(conn, "select * from app.record_message($1)", orjson.dumps(item).decode())
            assert got == "HUB04", item
        secret = [
            {"organization_id": str(b.org.id), "owner_id": str(b.org.account_id), "secrets": {"t": "x"}}
        ]
        got = await refusal(
            conn, "select app.keep_secrets('channel_accounts', $1)", orjson.dumps(secret).decode()
        )
        assert got == "42501"
        await conn.execute("select app.keep_api_key_hash($1, $2)", b.id("api_keys"), b"hash")
        assert await conn.fetch("select * from app.retire_api_key($1, '0 s')", b.id("api_keys")) == []
        assert not await conn.fetchval("select app.assign_conversation($1, null)", b.id("conversations"))
        link = "select * from app.keep_invitation_token($1, $2)"
        got = await conn.fetch(link, b.id("invitations"), b"hash")
        assert got == []
    async with acting_as(db, b.owner.principal()) as conn:
        assert await conn.fetchval("select count(*) from public.api_keys") == 1


async def test_receipts_and_amendments_for_one_account_never_touch_the_neighbours_message(
    db: Database, superuser: asyncpg.Connection, two: tuple[Filled, Filled]
) -> None:
    """The same provider id, even the right correlator, under another organization's account: ignored."""
    a, b = two
    target: UUID = await make_message(
        superuser, b.org, b.id("conversations"), direction="OUTBOUND", status="SENT", source="agent",
        provider_message_id="wamid.same",
    )  # fmt: skip
    status = {
        "organization_id": str(a.org.id), "channel_account_id": str(a.org.account_id),
        "provider_message_id": "wamid.same", "correlator": str(target), "status": "READ",
        "occurred_at": "2026-01-01T00:00:00Z", "failure_code": None, "failure_reason": None,
    }  # fmt: skip
    async with db.connection("ingest") as conn:
        await conn.fetch("select app.apply_statuses($1)", orjson.dumps([status]).decode())
    assert await superuser.fetchval("select status from messages where id = $1", target) == "SENT"


async def test_a_reply_cannot_quote_the_neighbours_message(
    db: Database, superuser: asyncpg.Connection, two: tuple[Filled, Filled]
) -> None:
    a, b = two
    await make_message(superuser, b.org, b.id("conversations"), provider_message_id="wamid.b")
    async with db.connection("ingest") as conn:
        item = ingest_item(a.org, "2099", reply_to="wamid.b")
        await conn.fetch("select * from app.ingest_many($1)", orjson.dumps([item]).decode())
    row = await superuser.fetchrow(
        "select organization_id, reply_to_id from messages where provider_message_id = $1", item["dedupe_key"]
    )
    assert tuple(row) == (a.org.id, None)


async def test_a_claim_hands_out_each_organizations_own_rows_together(
    db: Database, superuser: asyncpg.Connection, two: tuple[Filled, Filled]
) -> None:
    """Message, account, identities and secrets of a claimed send are all of its organization."""
    for f in two:
        contact = await make_contact(superuser, f.org, "201555")
        conv = await make_conversation(superuser, f.org, contact)
        await make_message(superuser, f.org, conv, direction="OUTBOUND", status="PENDING", source="agent")
        await superuser.execute(
            "insert into app.secrets (organization_id, owner_table, owner_id, name, ciphertext)"
            " values ($1, 'channel_accounts', $2, 'access_token', $3)",
            f.org.id, f.org.account_id, f"sealed for {f.org.id}",
        )  # fmt: skip
    async with db.connection("worker") as conn:
        rows = await conn.fetch("select * from app.claim_sends($1, 'w', 20, '30 s')", uuid4())
    assert {r["organization_id"] for r in rows} == {f.org.id for f in two}
    for r in rows:
        own = str(r["organization_id"])
        assert orjson.loads(r["message"])["organization_id"] == own
        assert orjson.loads(r["secrets"]) == {"access_token": f"sealed for {own}"}
        assert r["channel_account_id"] == next(f.org.account_id for f in two if str(f.org.id) == own)


async def test_X01_what_a_caller_names_in_a_send_is_his_own(db: Database, two: tuple[Filled, Filled]) -> None:
    """A conversation, an account and a file of the neighbour are as if they were not there."""
    a, b = two
    async with acting_as(db, a.owner.principal()) as conn:
        for item in (
            {"conversation_id": str(b.id("conversations"))},
            {"external_id": "x", "account_key": b.org.phone_number_id},
        ):
            got = await refusal(
                conn, "select * from app.conversation_for_send($1, 'WHATSAPP_CLOUD')", encoded(item)
            )
            assert got == "HUB04", item
        assert await conn.fetch("select * from app.take_media($1)", b.id("media_files")) == []
        assert len(await conn.fetch("select * from app.take_media($1)", a.id("media_files"))) == 1


async def test_X01_kept_deliveries_are_shown_to_their_organization_alone(
    db: Database, two: tuple[Filled, Filled]
) -> None:
    a, _ = two
    async with db.connection("ingest") as conn:
        for f in two:
            await conn.fetch(
                "select app.keep_failure($1, 'WHATSAPP_CLOUD', $2, 'refused', $3, '{}', $4)",
                f.org.id, f.org.account_id, f"of {f.org.id}", b"{}",
            )  # fmt: skip
    async with db.connection("api") as conn:
        rows = await conn.fetch("select error from app.list_failures($1, 100)", a.org.id)
    assert [r["error"] for r in rows] == [f"of {a.org.id}"]


async def test_X10_functions_within_a_role_check_the_permission_themselves(
    db: Database, superuser: asyncpg.Connection, two: tuple[Filled, Filled]
) -> None:
    """Each call would go well for the owner; for an agent without permissions it is refused."""
    a, _ = two
    recorded = {
        "external_id": "x", "direction": "INBOUND", "status": "RECEIVED", "message_type": "text",
        "content": "Hi", "phones": [],
    }  # fmt: skip
    secret = [
        {
            "organization_id": str(a.org.id),
            "owner_id": str(a.org.account_id),
            "secrets": {"t": "x"},
            "keep": [],
        }
    ]
    calls: list[tuple[str, tuple[Any, ...]]] = [
        ("select * from app.record_message($1)", (encoded(recorded),)),
        ("select * from app.conversation_for_send($1, 'WHATSAPP_CLOUD')", (encoded({"external_id": "x"}),)),
        ("select app.keep_api_key_hash($1, $2)", (a.id("api_keys"), b"hash")),
        ("select app.keep_secrets('channel_accounts', $1)", (encoded(secret),)),
        ("select app.keep_upload('key', 'sha256', 1, 'image/png', 'name')", ()),
        ("select * from app.take_media($1)", (a.id("media_files"),)),
        (
            "select app.enqueue_mail($1, $2, 'x@example.test', 'invitation', 'sealed', null, 'key')",
            (uuid4(), a.org.id),
        ),
        ("select app.drop_mail($1, 'key')", (a.org.id,)),
        ("select * from app.retire_api_key($1, '0 s')", (a.id("api_keys"),)),
        ("select app.assign_conversation($1, null)", (a.id("conversations"),)),
        ("select * from app.keep_invitation_token($1, $2)", (a.id("invitations"), b"hash")),
    ]
    bare = a.owner.principal(role="AGENT", permissions=frozenset())
    for who, expected in ((a.owner.principal(), None), (bare, "42501")):
        async with acting_as(db, who) as conn:
            for statement, args in calls:
                assert await refusal(conn, statement, *args) == expected, statement
