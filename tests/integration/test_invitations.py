"""ORG-03, ORG-04 and TEAM-04: invitations, from the mail to the membership, and those who come with a link
that is not theirs."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from hub.db.embedded import EmbeddedValkey
from tests.factories import Member, Org, Servers, make_member, make_org
from tests.server import PASSWORD, Answer, Hub, running_hub
from tests.team import newest_link

NEW = "new.person@example.test"


async def invite(hub: Hub, token: str, email: str = NEW, **body: Any) -> Answer:
    return await hub.post("/functions/v1/send-invitation-email", token=token, json={"email": email, **body})


async def accept(hub: Hub, token: str, email: str = NEW, **body: Any) -> Answer:
    sent = {"token": token, "email": email, "password": "secure_password", "first_name": "John",
            "last_name": "Doe", **body}  # fmt: skip
    options = {"token": sent.pop("bearer")} if "bearer" in sent else {}
    return await hub.post("/functions/v1/accept-invitation", json=sent, **options)


async def deeds(conn: asyncpg.Connection, org: Org) -> list[str]:
    rows = await conn.fetch(
        "select action || coalesce(' ' || (details ->> 'reason'), '') as a from audit_log"
        " where organization_id = $1 and action like 'invitation.%' or action like 'member.%' order by id",
        org.id,
    )
    return [row["a"] for row in rows]


async def test_ORG_03_and_04_a_new_person_joins(
    hub: Hub, org: Org, owner: Member, superuser: asyncpg.Connection
) -> None:
    token = await hub.token(owner.email)
    sent = await invite(hub, token, permissions={"can_send_messages": False})
    assert sent.status == 200, sent
    assert sent.json["invitation"].keys() == {
        "id", "email", "role", "permissions", "invited_by", "status", "expires_at", "created_at",
    }  # fmt: skip
    link = await newest_link(hub, superuser, NEW)
    assert link not in sent.body.decode(), "the link is in the mail alone"
    days = "select extract(epoch from expires_at - created_at) / 86400 from invitations"
    assert await superuser.fetchval(days) == 7
    looked = await hub.post("/functions/v1/check-invitation", json={"token": link})
    assert (looked.json["email"], looked.json["role"], looked.json["has_account"]) == (NEW, "AGENT", False)
    joined = await accept(hub, link)
    assert joined.status == 200, joined
    assert joined.json.keys() == {"success", "user", "organization"}
    assert joined.json["organization"]["id"] == str(org.id)
    session = await hub.sign_in(NEW, "secure_password")
    assert session["user"]["app_metadata"]["organization_id"] == str(org.id)
    mine = (await hub.get(f"/rest/v1/memberships?email=eq.{NEW}", token=session["access_token"])).json[0]
    assert (mine["first_name"], mine["last_name"], mine["role"]) == ("John", "Doe", "AGENT")
    assert (mine["can_send_messages"], mine["can_access_crm"], mine["can_manage_team"]) == (
        False, True, False,
    )  # fmt: skip
    assert await deeds(superuser, org) == ["invitation.sent", "member.joined", "invitation.accepted"]
    actors = await superuser.fetch("select actor_id from audit_log where action in"
                                   " ('invitation.sent', 'member.joined') order by id")  # fmt: skip
    assert [str(r["actor_id"]) for r in actors] == [str(owner.id), session["user"]["id"]]


async def test_ORG_03_an_existing_person_joins_with_the_password_of_the_account(
    hub: Hub, org: Org, owner: Member, superuser: asyncpg.Connection, password_hash: str
) -> None:
    elsewhere = await make_org(superuser)
    person = await make_member(superuser, elsewhere, "OWNER", password_hash)
    await invite(hub, await hub.token(owner.email), person.email, role="ADMIN")
    link = await newest_link(hub, superuser, person.email)
    looked = await hub.post("/functions/v1/check-invitation", json={"token": link})
    assert looked.json["has_account"] is True
    wrong = await accept(hub, link, person.email, password="another password of mine")
    assert (wrong.status, wrong.json["code"]) == (401, "AUTHENTICATION_FAILED")
    assert await superuser.fetchval(
        "select count(*) from auth.users where encrypted_password = $1", password_hash
    ) == 2, "and the account's password stays"  # fmt: skip
    assert (await accept(hub, link, person.email.upper(), password=PASSWORD)).status == 200
    token = await hub.token(person.email)
    listed = (await hub.get("/functions/v1/list-organizations", token=token)).json
    assert [o["id"] for o in listed["organizations"]] == [str(elsewhere.id), str(org.id)]


async def test_ORG_03_an_existing_person_joins_by_being_signed_in(
    hub: Hub, org: Org, owner: Member, superuser: asyncpg.Connection, password_hash: str
) -> None:
    elsewhere = await make_org(superuser)
    person = await make_member(superuser, elsewhere, "AGENT", password_hash)
    other = await make_member(superuser, elsewhere, "AGENT", password_hash)
    await invite(hub, await hub.token(owner.email), person.email)
    link = await newest_link(hub, superuser, person.email)
    wrong = await accept(hub, link, person.email, bearer=await hub.token(other.email))
    assert (wrong.status, wrong.json["code"]) == (403, "INSUFFICIENT_PERMISSIONS")
    assert (await accept(hub, link, person.email, bearer=await hub.token(person.email))).status == 200
    assert "invitation.refused signed in with another address" in await deeds(superuser, org)


async def test_ORG_03_who_gives_no_name_is_called_as_elsewhere(
    hub: Hub, org: Org, owner: Member, superuser: asyncpg.Connection, password_hash: str
) -> None:
    person = await make_member(superuser, await make_org(superuser), "AGENT", password_hash)
    await superuser.execute(
        "update memberships set first_name = 'Mona', last_name = 'Adel' where user_id = $1", person.id
    )
    await invite(hub, await hub.token(owner.email), person.email)
    link = await newest_link(hub, superuser, person.email)
    token = await hub.token(person.email)
    joined = await accept(hub, link, person.email, bearer=token, first_name=None, last_name=None)
    assert joined.status == 200, joined
    name = await superuser.fetchrow(
        "select first_name, last_name from memberships where organization_id = $1 and user_id = $2",
        org.id,
        person.id,
    )
    assert tuple(name) == ("Mona", "Adel")


async def test_ORG_03_guessing_a_password_by_an_invitation_is_counted_as_sign_ins_are(
    hub: Hub, org: Org, owner: Member, superuser: asyncpg.Connection, password_hash: str
) -> None:
    person = await make_member(superuser, await make_org(superuser), "AGENT", password_hash)
    await invite(hub, await hub.token(owner.email), person.email)
    link = await newest_link(hub, superuser, person.email)
    answers = [await accept(hub, link, person.email, password=f"guess number {n}") for n in range(11)]
    assert [a.status for a in answers[:10]] == [401] * 10
    assert answers[10].status == 429 and int(answers[10].headers["Retry-After"]) >= 1
    assert (await accept(hub, link, person.email, password=PASSWORD)).status == 429


async def test_ORG_03_an_invitation_is_used_once_also_by_two_at_once(
    hub: Hub, org: Org, owner: Member, superuser: asyncpg.Connection
) -> None:
    await invite(hub, await hub.token(owner.email))
    link = await newest_link(hub, superuser, NEW)
    answers = await asyncio.gather(*(accept(hub, link, password=f"secure_password {n}") for n in range(6)))
    assert sorted(a.status for a in answers) == [200, 409, 409, 409, 409, 409]
    replay = await accept(hub, link)
    assert (replay.status, replay.json["code"]) == (409, "CONFLICT")
    assert (await hub.post("/functions/v1/check-invitation", json={"token": link})).status == 409
    assert await superuser.fetchval("select count(*) from memberships where email = $1", NEW) == 1
    assert "invitation.refused used" in await deeds(superuser, org)


async def test_ORG_03_whoever_is_in_does_not_get_in_again(
    hub: Hub, org: Org, owner: Member, superuser: asyncpg.Connection, password_hash: str
) -> None:
    """Where nothing else would stop it: somebody with an account, who was deactivated after joining."""
    person = await make_member(superuser, await make_org(superuser), "AGENT", password_hash)
    await invite(hub, await hub.token(owner.email), person.email)
    link = hashlib.sha256((await newest_link(hub, superuser, person.email)).encode()).digest()
    outcomes = []
    for _ in range(2):
        outcomes.append(
            await superuser.fetchval(
                "select outcome from app.accept_invitation($1, $2, null, null, null, null, null)",
                link,
                person.id,
            )
        )
        await superuser.execute("update memberships set is_active = false where user_id = $1", person.id)
    assert outcomes == ["joined", "used"]


async def test_ORG_03_the_address_must_be_the_invited_one(
    hub: Hub, org: Org, owner: Member, superuser: asyncpg.Connection
) -> None:
    """Also not one that looks like it, or that some system's lower case makes of it."""
    await invite(hub, await hub.token(owner.email), "kim@example.test")
    link = await newest_link(hub, superuser, "kim@example.test")
    another = await accept(hub, link, "mallory@example.test")
    assert (another.status, another.json["code"]) == (403, "INSUFFICIENT_PERMISSIONS")
    for lookalike in ("\u212aim@example.test", "k\u0456m@example.test", "kim@ex\u0430mple.test",
                      "k\u0131m@example.test", "kim@example.test\u200b",
                      "kim@example.test, x@y.zz"):  # fmt: skip
        answer = await accept(hub, link, lookalike)
        assert (answer.status, answer.json["details"]["field"]) == (422, "email"), lookalike
    assert (await accept(hub, link, " KIM@Example.test ")).status == 200
    assert "invitation.refused another address" in await deeds(superuser, org)


@pytest.mark.parametrize("how", ["revoked", "over", "resent", "inviter gone", "never was"])
async def test_ORG_03_links_that_do_not_stand(
    hub: Hub, org: Org, owner: Member, superuser: asyncpg.Connection, password_hash: str, how: str
) -> None:
    inviter = await make_member(superuser, org, "ADMIN", password_hash)
    token, owners = await hub.token(inviter.email), await hub.token(owner.email)
    made = (await invite(hub, token)).json["invitation"]["id"]
    link = await newest_link(hub, superuser, NEW)
    if how == "revoked":
        assert (
            await hub.post("/functions/v1/revoke-invitation", token=token, json={"id": made})
        ).status == 200
        assert await superuser.fetchval("select count(*) from app.mail_outbox") == 0, "nor is it sent"
        await superuser.execute("update invitations set revoked_at = null")
    elif how == "over":
        await superuser.execute("update invitations set expires_at = now()")
    elif how == "resent":
        await superuser.execute("alter table invitations disable trigger touch")
        await superuser.execute("update invitations set updated_at = now() - interval '2 minutes'")
        again = await hub.post("/functions/v1/resend-invitation", token=token, json={"id": made})
        assert again.status == 200, again
    elif how == "inviter gone":
        gone = await hub.post(
            "/functions/v1/update-member", token=owners, json={"user_id": str(inviter.id), "is_active": False}
        )
        assert gone.status == 200, gone
    else:
        link = link[:-1] + ("a" if link[-1] != "a" else "b")
    answer = await accept(hub, link)
    assert (answer.status, answer.json["code"]) == (404, "RESOURCE_NOT_FOUND")
    assert (await hub.post("/functions/v1/check-invitation", json={"token": link})).status == 404
    assert await superuser.fetchval("select count(*) from auth.users where email = $1", NEW) == 0
    if how == "resent":
        assert (await accept(hub, await newest_link(hub, superuser, NEW))).status == 200


async def test_ORG_04_sending_again_waits_a_minute(hub: Hub, owner: Member) -> None:
    token = await hub.token(owner.email)
    made = (await invite(hub, token)).json["invitation"]["id"]
    again = await hub.post("/functions/v1/resend-invitation", token=token, json={"id": made})
    assert (again.status, again.json["code"]) == (429, "RATE_LIMIT_EXCEEDED")
    assert again.headers["Retry-After"] == "60"


async def test_ORG_04_who_is_invited_or_in_is_not_invited(
    hub: Hub, owner: Member, agent: Member, superuser: asyncpg.Connection
) -> None:
    token = await hub.token(owner.email)
    assert (await invite(hub, token, agent.email)).status == 409
    assert (await invite(hub, token)).status == 200
    assert (await invite(hub, token)).status == 409
    await superuser.execute("update invitations set expires_at = now()")
    assert (await invite(hub, token)).status == 200, "the earlier one is over"
    listed = await hub.get("/functions/v1/list-invitations", token=token)
    assert [i["status"] for i in listed.json["invitations"]] == ["pending", "revoked"]
    await superuser.execute("update memberships set is_active = false where user_id = $1", agent.id)
    assert (await invite(hub, token, agent.email)).status == 200, "who has left may come back"
    link = await newest_link(hub, superuser, agent.email)
    assert (await accept(hub, link, agent.email, password=PASSWORD)).status == 200
    row = "select is_active, role from memberships where user_id = $1"
    assert tuple(await superuser.fetchrow(row, agent.id)) == (True, "AGENT")


async def test_ORG_04_the_mail_goes_with_the_invitation_or_neither_does(
    hub: Hub, owner: Member, superuser: asyncpg.Connection
) -> None:
    await superuser.execute("create function fail() returns trigger language plpgsql as"
                            " $$ begin raise exception 'no'; end $$;"
                            "create trigger fail before insert on app.mail_outbox"
                            " execute function fail()")  # fmt: skip
    assert (await invite(hub, await hub.token(owner.email))).status == 500
    assert await superuser.fetchval("select count(*) from invitations") == 0


@pytest.mark.parametrize(
    ("role", "flags", "body", "missing"),
    [
        ("AGENT", {}, {}, ["can_manage_team"]),
        ("ADMIN", {"can_manage_team": False}, {}, ["can_manage_team"]),
        ("ADMIN", {}, {"role": "OWNER"}, None),
        ("AGENT", {"can_manage_team": True}, {"role": "ADMIN"}, None),
        ("ADMIN", {"can_access_pm": False}, {"permissions": {"can_access_pm": True}}, ["can_access_pm"]),
    ],
)  # fmt: skip
async def test_ORG_04_nobody_invites_above_himself(
    hub: Hub, org: Org, superuser: asyncpg.Connection, password_hash: str, role: Any,
    flags: dict[str, bool], body: dict[str, Any], missing: list[str] | None,
) -> None:  # fmt: skip
    member = await make_member(superuser, org, role, password_hash, **flags)
    answer = await invite(hub, await hub.token(member.email), **body)
    assert (answer.status, answer.json["code"]) == (403, "INSUFFICIENT_PERMISSIONS"), answer
    if missing is not None:
        assert answer.json["details"] == {"missing": missing}
    assert await superuser.fetchval("select count(*) from invitations") == 0
    assert await superuser.fetchval("select count(*) from app.mail_outbox") == 0


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"email": ""}, "email"), ({"email": "nobody"}, "email"), ({"email": "a@b@c.de"}, "email"),
        ({"email": "\u212aim@example.test"}, "email"), ({"email": "a..b@example.test"}, "email"),
        ({"email": "a@example.test\r\nBcc: x@y.zz"}, "email"), ({"rolle": "x"}, "rolle"),
        ({"email": "x" * 65 + "@example.test"}, "email"),
        ({"role": "KING"}, "role"), ({"permissions": {"can_fly": True}}, "permissions.can_fly"),
        ({"role": "OWNER", "permissions": {"can_access_pm": False}}, "permissions"),
    ],
)  # fmt: skip
async def test_ORG_04_bad_bodies_name_the_field(
    hub: Hub, owner: Member, body: dict[str, Any], field: str
) -> None:
    answer = await invite(hub, await hub.token(owner.email), **body)
    assert (answer.status, answer.json["code"]) == (422, "VALIDATION_ERROR"), answer
    assert answer.json["details"]["field"] == field


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"token": ""}, "token"), ({"email": ""}, "email"), ({"password": ""}, "password"),
        ({"password": "short"}, "password"), ({"password": "password123"}, "password"),
        ({"password": "x" * 257}, "password"), ({"first_name": "a\x00b"}, "first_name"),
    ],
)  # fmt: skip
async def test_ORG_03_bad_bodies_name_the_field(
    hub: Hub, owner: Member, superuser: asyncpg.Connection, body: dict[str, Any], field: str
) -> None:
    await invite(hub, await hub.token(owner.email))
    answer = await accept(hub, **{"token": await newest_link(hub, superuser, NEW), **body})
    assert (answer.status, answer.json["code"]) == (422, "VALIDATION_ERROR"), answer
    assert answer.json["details"]["field"] == field


async def test_X09_strangers_who_try_links_are_counted_by_address(
    servers: Servers, valkey: EmbeddedValkey, tmp_path: Path
) -> None:
    limits = {"HUB_RATE_ADDRESS": "5", "HUB_TRUSTED_PROXIES": "127.0.0.1"}
    async with running_hub(servers, valkey.url, tmp_path, **limits) as hub:
        from_there = {"X-Forwarded-For": "198.51.100.77"}
        answers = [
            await hub.post("/functions/v1/check-invitation", json={"token": f"guess {n}"}, headers=from_there)
            for n in range(8)
        ]
    assert [a.status for a in answers] == [404] * 5 + [429] * 3


async def test_X01_the_neighbours_invitations_are_as_if_they_were_not_there(
    hub: Hub, owner: Member, superuser: asyncpg.Connection, password_hash: str
) -> None:
    neighbour = await make_member(superuser, await make_org(superuser), "OWNER", password_hash)
    made = (await invite(hub, await hub.token(owner.email))).json["invitation"]["id"]
    token = await hub.token(neighbour.email)
    for name in ("resend", "revoke"):
        answer = await hub.post(f"/functions/v1/{name}-invitation", token=token, json={"id": made})
        assert (answer.status, answer.json["code"]) == (404, "RESOURCE_NOT_FOUND")
    assert (await hub.get("/functions/v1/list-invitations", token=token)).json["count"] == 0
    assert await superuser.fetchval("select count(*) from invitations where revoked_at is null") == 1
