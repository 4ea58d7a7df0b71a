"""The pages about people and keys, in both languages, on wide screens and phones: members, invitations."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from playwright.sync_api import Locator, Page, expect

from tests.e2e.test_web_deeds import rows
from tests.e2e.test_web_matrix import keep
from tests.e2e.web import Desk, Product, until

I18N = Path(__file__).parents[2] / "hub" / "web" / "src" / "i18n"
#: Language, width, theme: one of each at least.
VIEWS = [("en", 1280, "light"), ("ar", 360, "dark")]


class Words:
    """The app's texts in one language, as its own files have them."""

    def __init__(self, bundle: str, language: str) -> None:
        self._words = json.loads((I18N / f"{bundle}{language}.json").read_text(encoding="utf-8"))

    def __call__(self, key: str, **blanks: str) -> str:
        found: Any = self._words
        for part in key.split("."):
            found = found[part]
        text: str = found
        for name, value in blanks.items():
            text = text.replace("{{" + name + "}}", value)
        return text


def words(language: str) -> tuple[Words, Words]:
    """Of the app, and of the pages about people."""
    return Words("", language), Words("people.", language)


def member(page: Page, text: str) -> Locator:
    return page.get_by_test_id("member").filter(has_text=text)


@pytest.fixture
def unique() -> str:
    """A word that stands nowhere else."""
    return uuid4().hex[:8]


@pytest.fixture
def team(product: Product) -> Iterator[None]:
    """Adam and the invitations are afterwards what they were before."""
    yield
    product.change(
        "update memberships set role = 'AGENT', is_active = true, visibility = 'all', can_access_crm = true,"
        " can_read_messages = true, can_send_messages = true, can_access_pm = false, can_manage_team = false,"
        " can_manage_settings = false where first_name = 'Adam'"
    )


@pytest.fixture
def newcomers(product: Product) -> Iterator[None]:
    """Those who joined in the test leave no trace among the members."""
    yield

    async def work(url: str) -> None:
        conn = await asyncpg.connect(url)
        try:
            await conn.execute("delete from memberships where email like '%@example.test'")
            await conn.execute("delete from auth.users where email like '%@example.test'")
            await conn.execute("update invitations set revoked_at = now() where accepted_at is null")
        finally:
            await conn.close()

    product.in_database(work)


def invite(desk: Desk, email: str) -> str:
    """The link of a new invitation, as the owner of a hub without a mail server hands it over."""
    page = desk.agent("dana", "/settings/team")
    page.get_by_label("E-mail address").fill(email)
    page.get_by_role("button", name="Send invitation").click()
    line = page.get_by_test_id("invitation").filter(has_text=email)
    link = line.locator("pre")
    expect(link).to_contain_text("#token=")
    found = link.inner_text().strip()
    page.close()
    return found


@pytest.mark.parametrize(("language", "width", "scheme"), VIEWS)
def test_members_get_roles_and_permissions(
    desk: Desk, team: None, language: str, width: int, scheme: str
) -> None:
    app, people = words(language)
    dana = desk.agent("dana", "/settings/team", language=language, width=width, scheme=scheme)
    expect(dana.get_by_test_id("member")).to_have_count(4)
    assert keep(dana, f"team-{language}-{width}") == []
    change = people("changeLabel", name="Adam Nabil")
    member(dana, "Adam").get_by_role("button", name=change).press("Enter")
    dialog = dana.get_by_role("dialog", name=change)
    boxes = dialog.get_by_role("checkbox")
    expect(boxes).to_have_count(6)
    assert [box.is_checked() for box in boxes.all()] == [True, True, True, False, False, False]
    dialog.get_by_label(people("role")).select_option("ADMIN")
    assert all(box.is_checked() for box in boxes.all()), "what the role usually has"
    dialog.get_by_label(app("permission.can_manage_settings")).uncheck()
    dialog.get_by_label(people("sees")).select_option("mine")
    assert keep(dana, f"team-member-{language}-{width}") == []
    dialog.get_by_role("button", name=people("save")).click()
    expect(dialog).to_have_count(0)
    expect(member(dana, "Adam")).to_contain_text(app("role.ADMIN"))
    found = rows(desk.product, "memberships", first_name="eq.Adam")[0]
    assert (found["role"], found["visibility"]) == ("ADMIN", "mine")
    assert (found["can_manage_team"], found["can_manage_settings"]) == (True, False)


@pytest.mark.parametrize(("language", "width", "scheme"), VIEWS)
def test_the_last_owner_is_told_why_he_stays(desk: Desk, language: str, width: int, scheme: str) -> None:
    _, people = words(language)
    dana = desk.agent("dana", "/settings/team", language=language, width=width, scheme=scheme)
    desk.watch.expected = ("403",)
    change = people("changeLabel", name="Dana Mansour")
    member(dana, "Dana").get_by_role("button", name=change).click()
    dialog = dana.get_by_role("dialog", name=change)
    dialog.get_by_label(people("role")).select_option("AGENT")
    dialog.get_by_role("button", name=people("save")).click()
    expect(dialog.get_by_role("alert")).to_have_text(people("refusal.lastOwner"))
    assert keep(dana, f"team-last-owner-{language}-{width}") == []
    assert rows(desk.product, "memberships", first_name="eq.Dana")[0]["role"] == "OWNER"


def test_whoever_is_deactivated_is_signed_out_and_comes_back(desk: Desk, team: None) -> None:
    _, people = words("en")
    desk.watch.expected = ("400", "401", "403", "WebSocket")
    adam, dana = desk.agent("adam"), desk.agent("dana", "/settings/team")
    member(dana, "Adam").get_by_role("button", name="Change Adam Nabil").click()
    dana.get_by_role("dialog").get_by_role("button", name=people("deactivate")).click()
    sure = dana.get_by_role("dialog", name=people("deactivateLabel", name="Adam Nabil"))
    expect(sure.get_by_role("button", name=people("stay"))).to_be_focused()
    assert keep(dana, "team-deactivate") == []
    sure.get_by_role("button", name=people("deactivate")).click()
    adam.wait_for_url("**/sign-in*")
    row = member(dana, "Adam")
    expect(row).to_contain_text("Disabled")
    row.get_by_role("button", name="Reactivate Adam Nabil").click()
    expect(row.get_by_role("button", name="Change Adam Nabil")).to_be_visible()
    desk.agent("adam").close()


def test_agents_see_the_team_and_change_nobody(desk: Desk) -> None:
    adam = desk.agent("adam", "/settings/team")
    expect(adam.get_by_test_id("member")).to_have_count(4)
    expect(adam.get_by_role("main").get_by_role("button")).to_have_count(0)
    assert keep(adam, "team-agent") == []


@pytest.mark.parametrize(("language", "width", "scheme"), VIEWS)
def test_invitations_are_sent_resent_and_revoked(
    desk: Desk, newcomers: None, unique: str, language: str, width: int, scheme: str
) -> None:
    app, people = words(language)
    email = f"mona.{unique}@example.test"
    dana = desk.agent("dana", "/settings/team", language=language, width=width, scheme=scheme)
    desk.watch.expected = ("429", "409")
    field = dana.get_by_label(people("email"))
    field.fill("nobody")
    field.press("Enter")
    expect(dana.get_by_text(people("emailWrong"))).to_be_visible()
    expect(field).to_be_focused()
    field.fill(email)
    dana.get_by_role("switch", name=people("permissions")).check()
    dana.get_by_label(app("permission.can_send_messages")).uncheck()
    assert keep(dana, f"invite-{language}-{width}") == []
    dana.get_by_role("button", name=people("send"), exact=True).click()
    line = dana.get_by_test_id("invitation").filter(has_text=email)
    expect(line).to_contain_text(people("pending"))
    expect(line).to_contain_text(re.compile(r"#token=[\w-]{43}"))  # no mail server: the owner hands it over
    found = rows(desk.product, "invitations", email=f"eq.{email}")[0]
    assert found["permissions"]["can_send_messages"] is False
    assert found["permissions"]["can_read_messages"] is True

    field.fill(email)
    field.press("Enter")
    expect(dana.get_by_role("main").get_by_role("alert")).to_have_text(people("refusal.invitedAlready"))
    line.get_by_role("button", name=people("resendLabel", email=email)).click()
    expect(line.get_by_role("alert")).to_have_text(people("refusal.tooSoon"))
    line.scroll_into_view_if_needed()
    assert keep(dana, f"invitations-{language}-{width}") == []

    async def a_minute_later(url: str) -> None:
        conn = await asyncpg.connect(url)
        try:
            # Each by itself: the events of a change are still to come within its transaction.
            await conn.execute("alter table invitations disable trigger touch")
            await conn.execute(
                "update invitations set updated_at = now() - interval '2 minutes' where email = $1", email
            )
            await conn.execute("alter table invitations enable trigger touch")
        finally:
            await conn.close()

    desk.product.in_database(a_minute_later)
    earlier = line.inner_text()
    line.get_by_role("button", name=people("resendLabel", email=email)).click()
    expect(dana.get_by_text(people("resent", email=email))).to_be_visible()
    until(lambda: line.inner_text() != earlier, "a new link")

    line.get_by_role("button", name=people("revokeLabel", email=email)).click()
    dialog = dana.get_by_role("dialog", name=people("revokeLabel", email=email))
    dialog.get_by_role("button", name=people("revoke")).click()
    expect(line).to_have_count(0)
    expect(dana.get_by_text(people("noInvitations"))).to_be_visible()


@pytest.mark.parametrize(("language", "width", "scheme"), VIEWS)
def test_a_new_person_joins_with_a_name_and_a_password(
    desk: Desk, newcomers: None, unique: str, language: str, width: int, scheme: str
) -> None:
    app, account = Words("", language), Words("account.", language)
    email = f"nour.{unique}@example.test"
    link = invite(desk, email)
    desk.watch.expected = ("422", "409")
    page = desk.page(language=language, width=width, scheme=scheme)
    page.goto(link)
    expect(page.get_by_text(email)).to_be_visible()
    assert keep(page, f"join-{language}-{width}") == []
    page.get_by_role("button", name=account("join.submit"), exact=True).click()
    expect(page.get_by_text(account("join.firstNeeded"))).to_be_visible()
    expect(page.get_by_label(account("join.first"))).to_be_focused()
    page.get_by_label(account("join.first")).fill("Nour")
    page.get_by_label(account("join.last")).fill("Adel")
    password = page.get_by_label(account("join.newPassword"))
    password.fill("password")
    password.press("Enter")
    expect(page.get_by_role("alert")).to_have_text(account("join.weak"))
    assert keep(page, f"join-weak-{language}-{width}") == []
    password.fill(f"secure {unique}")
    password.press("Enter")
    page.wait_for_url("**/inbox")
    expect(page.get_by_role("button", name=app("nav.account", name="Nour Adel"))).to_be_visible()
    found = rows(desk.product, "memberships", email=f"eq.{email}")[0]
    assert (found["role"], found["first_name"], found["last_name"]) == ("AGENT", "Nour", "Adel")

    again = desk.page(language=language, width=width, scheme=scheme)
    again.goto(link)
    expect(again.get_by_role("alert")).to_have_text(account("join.used"))
    assert keep(again, f"join-used-{language}-{width}") == []
    again.get_by_role("link", name=account("join.toSignIn")).click()
    again.wait_for_url("**/sign-in*")


def test_who_has_an_account_joins_with_its_password(desk: Desk, team: None, newcomers: None) -> None:
    account = Words("account.", "en")
    desk.product.change("update memberships set is_active = false where first_name = 'Adam'")
    link = invite(desk, "adam@nilehome.example")
    desk.watch.expected = ("401",)
    page = desk.page()
    page.goto(link)
    expect(page.get_by_text(account("join.known"))).to_be_visible()
    password = page.get_by_label(account("join.password"))
    password.fill("another one")
    password.press("Enter")
    expect(page.get_by_role("alert")).to_have_text(account("join.wrong"))
    assert keep(page, "join-known") == []
    password.fill(desk.product.password)
    password.press("Enter")
    page.get_by_test_id("conversation-row").first.wait_for()
    assert rows(desk.product, "memberships", first_name="eq.Adam")[0]["is_active"] is True


def test_an_invitation_is_for_nobody_else_and_ends(desk: Desk, newcomers: None, unique: str) -> None:
    account = Words("account.", "en")
    email = f"rana.{unique}@example.test"
    link = invite(desk, email)
    desk.watch.expected = ("404",)
    adam = desk.agent("adam")
    adam.goto(link)
    expect(
        adam.get_by_text(account("join.otherAccount", email="adam@nilehome.example", invited=email))
    ).to_be_visible()
    assert keep(adam, "join-other-account") == []
    adam.get_by_role("button", name=account("join.signOut")).click()
    expect(adam.get_by_label(account("join.newPassword"))).to_be_visible()

    desk.product.change("update invitations set expires_at = now() where email = $1", email)
    page = desk.page()
    page.goto(link)
    expect(page.get_by_role("alert")).to_have_text(account("join.over"))
    assert keep(page, "join-over") == []
    page.goto(f"{desk.product.url}/invitation")
    expect(page.get_by_role("alert")).to_have_text(account("join.incomplete"))


@pytest.mark.parametrize(("language", "width", "scheme"), VIEWS)
def test_keys_are_made_rotated_and_revoked(
    desk: Desk, unique: str, language: str, width: int, scheme: str
) -> None:
    app, people = words(language)
    name = f"shop {unique}"
    dana = desk.agent("dana", "/settings/api", language=language, width=width, scheme=scheme)
    section = dana.get_by_test_id("keys")
    section.get_by_label(app("api.newKey")).fill(name)
    section.get_by_label(app("permission.can_read_messages")).check()
    section.get_by_label(people("keys.ends")).select_option("90")
    section.get_by_role("button", name=app("api.make")).click()
    shown = section.get_by_role("status").locator("pre")
    expect(shown).to_contain_text("cg_")
    first = shown.inner_text().strip()
    line = section.get_by_test_id("key").filter(has_text=name)
    expect(line).to_contain_text(first[:8])
    expect(line).to_contain_text(app("permission.can_read_messages"))
    expect(line).to_contain_text(app("api.neverUsed"))
    assert keep(dana, f"keys-{language}-{width}") == []

    line.get_by_role("button", name=people("keys.rotateLabel", name=name)).click()
    dialog = dana.get_by_role("dialog", name=people("keys.rotateLabel", name=name))
    assert keep(dana, f"keys-rotate-{language}-{width}") == []
    dialog.get_by_role("button", name=people("keys.rotate"), exact=True).click()
    expect(line).to_have_count(2)
    expect(shown).not_to_contain_text(first)
    second = shown.inner_text().strip()
    kept = {row["key_prefix"]: row for row in rows(desk.product, "api_keys", name=f"eq.{name}")}
    assert len(kept) == 2 and all(row["expires_at"] or row["key_prefix"] in second for row in kept.values())

    for left in (1, 0):
        line.first.get_by_role("button", name=app("api.revokeLabel", name=name)).click()
        sure = dana.get_by_role("dialog", name=app("api.revokeLabel", name=name))
        sure.get_by_role("button", name=app("api.revoke"), exact=True).click()
        expect(line).to_have_count(left)
    section.get_by_text(people("keys.ended")).click()
    expect(section.get_by_test_id("ended-key").filter(has_text=name)).to_have_count(2)
    section.scroll_into_view_if_needed()
    assert keep(dana, f"keys-ended-{language}-{width}") == []


def test_agents_are_shown_no_keys(desk: Desk) -> None:
    desk.watch.expected = ("403",)
    adam = desk.agent("adam")
    with adam.expect_response("**/functions/v1/list-api-keys") as answer:
        adam.goto(f"{desk.product.url}/settings/api")
    assert answer.value.status == 403
    expect(adam.get_by_test_id("keys")).to_have_count(0)


@pytest.fixture
def second(product: Product, unique: str) -> Iterator[str]:
    """The name of another organization, which goes with the test."""
    name = f"دار النخيل {unique}"
    yield name
    product.change("delete from organizations where name = $1", name)


@pytest.mark.parametrize(("language", "width", "scheme"), VIEWS)
def test_organizations_are_made_entered_and_left(
    desk: Desk, second: str, language: str, width: int, scheme: str
) -> None:
    app, people = words(language)
    account = Words("account.", language)
    view: dict[str, Any] = {"language": language, "width": width, "scheme": scheme}
    dana = desk.agent("dana", "/settings/organizations", **view)
    expect(dana.get_by_test_id("organization")).to_have_count(1)
    dana.get_by_role("button", name=people("org.make")).click()
    expect(dana.get_by_text(people("org.nameNeeded"))).to_be_visible()
    dana.get_by_label(people("org.name"), exact=True).fill(second)
    assert keep(dana, f"organizations-{language}-{width}") == []
    dana.get_by_role("button", name=people("org.make")).click()
    dana.wait_for_url("**/inbox")
    dana.get_by_role("button", name=app("nav.account", name="Dana Mansour")).wait_for()
    expect(dana.get_by_test_id("conversation-row")).to_have_count(0)

    dana.goto(f"{desk.product.url}/settings/team")
    expect(dana.get_by_test_id("member")).to_have_count(1)
    dana.get_by_label(people("email")).fill("karim@nilehome.example")
    dana.get_by_role("button", name=people("send"), exact=True).click()
    link = dana.get_by_test_id("invitation").locator("pre")
    expect(link).to_contain_text("#token=")
    karim = desk.agent("karim", **view)
    karim.goto(link.inner_text().strip())
    karim.get_by_role("heading", name=account("join.title", organization=second)).wait_for()
    assert keep(karim, f"join-signed-in-{language}-{width}") == []
    karim.get_by_role("button", name=account("join.submit"), exact=True).click()
    karim.wait_for_url("**/inbox")
    # Karim is called here as he is there.
    karim.get_by_role("button", name=app("nav.account", name="Karim Saleh")).press("Enter")
    expect(karim.get_by_role("menuitem", name=second)).to_have_attribute("aria-current", "true")
    assert keep(karim, f"organization-menu-{language}-{width}") == []
    karim.get_by_role("menuitem", name="Nile Home").click()
    karim.get_by_test_id("conversation-row").first.wait_for()

    desk.watch.expected = ("403",)
    dana.goto(f"{desk.product.url}/settings/organizations")
    expect(dana.get_by_test_id("organization").filter(has_text=second)).to_contain_text(people("org.here"))
    dana.get_by_role("button", name=people("org.leave", name=second)).click()
    dialog = dana.get_by_role("dialog")
    dialog.get_by_role("button", name=people("org.leave", name=second)).click()
    expect(dialog.get_by_role("alert")).to_have_text(people("refusal.lastOwner"))
    assert keep(dana, f"organization-leave-{language}-{width}") == []
    dialog.get_by_role("button", name=people("org.stay")).click()
    dana.get_by_role("button", name=people("org.enterLabel", name="Nile Home")).click()
    dana.get_by_test_id("conversation-row").first.wait_for()


def test_who_is_in_one_organization_is_offered_no_switch(desk: Desk) -> None:
    yara = desk.agent("yara")
    with yara.expect_response("**/functions/v1/list-organizations") as answer:
        yara.get_by_role("button", name=re.compile("^Account of")).click()
    assert answer.value.json()["count"] == 1
    expect(yara.get_by_role("menuitem").filter(has_text="Sign out")).to_be_visible()
    expect(yara.get_by_text("Switch organization")).to_have_count(0)


@pytest.mark.parametrize(("language", "width", "scheme"), VIEWS)
def test_the_audit_log_tells_who_changed_what(
    desk: Desk, team: None, language: str, width: int, scheme: str
) -> None:
    app, people = words(language)
    dana = desk.agent("dana", "/settings/team", language=language, width=width, scheme=scheme)
    change = people("changeLabel", name="Adam Nabil")
    member(dana, "Adam").get_by_role("button", name=change).click()
    dialog = dana.get_by_role("dialog", name=change)
    dialog.get_by_label(app("permission.can_access_pm")).check()
    dialog.get_by_role("button", name=people("save")).click()
    expect(dialog).to_have_count(0)

    dana.goto(f"{desk.product.url}/settings/audit")
    newest = dana.get_by_test_id("audit-entry").first
    expect(newest).to_contain_text(people("action.member_permissions_changed"))
    expect(newest).to_contain_text("Adam Nabil")
    expect(newest).to_contain_text("Dana Mansour")
    expect(newest).to_contain_text("127.0.0.1")
    newest.get_by_text(people("audit.details"), exact=True).press("Enter")
    field = newest.locator("dl > div").filter(has_text="can_access_pm")
    expect(field).to_contain_text(re.compile(f"{people('audit.before')} false.*{people('audit.after')} true"))
    assert keep(dana, f"audit-{language}-{width}") == []

    dana.get_by_label(people("audit.what"), exact=True).select_option("webhook")
    expect(dana.get_by_text(people("audit.none"))).to_be_visible()
    dana.get_by_label(people("audit.what"), exact=True).select_option("member")
    dana.get_by_label(people("audit.who"), exact=True).select_option(label="Karim Saleh")
    expect(dana.get_by_text(people("audit.none"))).to_be_visible()
    dana.get_by_label(people("audit.who"), exact=True).select_option(label="Dana Mansour")
    dana.get_by_label(people("audit.to"), exact=True).fill("2020-01-31")
    expect(dana.get_by_text(people("audit.none"))).to_be_visible()
    assert keep(dana, f"audit-none-{language}-{width}") == []
    dana.get_by_label(people("audit.to"), exact=True).fill("")
    dana.reload()  # what is looked for stands in the address
    expect(dana.get_by_label(people("audit.what"), exact=True)).to_have_value("member")
    expect(newest).to_contain_text("Adam Nabil")
    with dana.expect_download() as download:
        dana.get_by_role("button", name=people("audit.csv")).click()
    assert download.value.suggested_filename == "audit-log.csv"
    lines = Path(download.value.path()).read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("id,at,actor_kind") and "member.permissions_changed" in lines[1]
    assert all(",member." in line for line in lines[1:] if line[:3].isalnum() and line.count(",") > 5)
    dana.get_by_role("button", name=people("audit.clear")).click()
    expect(newest).to_contain_text(people("audit.exported", noun=people("noun.audit_log")))


def test_agents_are_shown_no_audit_log(desk: Desk) -> None:
    desk.watch.expected = ("403",)
    adam = desk.agent("adam", "/settings/audit")
    main = adam.get_by_role("main")
    expect(main.get_by_text(re.compile("Your role may not see this|Nothing is in the log"))).to_be_visible()
    expect(adam.get_by_test_id("audit-entry")).to_have_count(0)
    expect(adam.get_by_role("link", name="Audit log")).to_have_count(0)


def newest_mail(product: Product, email: str, template: str) -> str:
    """The text of the newest mail to ``email``, as the operator of a hub without a mail server reads it."""

    def hub(*arguments: str) -> str:
        command = [sys.executable, "-P", "-m", "hub", "mail", *arguments, "--data-dir", str(product.data)]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout

    def waiting() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(hub("list", "--json"))
        return [one for one in found if (one["recipient"], one["template"]) == (email, template)]

    until(lambda: bool(waiting()), f"a mail to {email}")
    newest = max(waiting(), key=lambda one: str(one["created_at"]))
    return hub("show", newest["id"])


@pytest.fixture
def forgetful(product: Product) -> Iterator[str]:
    """The address of somebody who forgot a password, and has it back after the test."""
    email = "yara@nilehome.example"
    kept: list[str] = []

    async def look(url: str) -> None:
        conn = await asyncpg.connect(url)
        kept.append(await conn.fetchval("select encrypted_password from auth.users where email = $1", email))
        await conn.close()

    product.in_database(look)
    yield email
    product.change("update auth.users set encrypted_password = $2 where email = $1", email, kept[0])
    product.change("delete from app.mail_outbox where recipient = $1", email)


def test_a_forgotten_password_is_replaced_by_a_link(desk: Desk, forgetful: str, unique: str) -> None:
    account = Words("account.", "en")
    page = desk.page()
    page.goto(f"{desk.product.url}/sign-in")
    page.get_by_role("link", name=Words("", "en")("signIn.forgot")).click()
    page.get_by_role("button", name=account("forgot.send")).click()
    expect(page.get_by_label("E-mail")).to_be_focused()
    page.get_by_label("E-mail").fill(forgetful)
    assert keep(page, "forgot") == []
    page.get_by_role("button", name=account("forgot.send")).click()
    expect(page.get_by_role("status")).to_contain_text(account("forgot.sent", email=forgetful))
    found = re.search(r"https?://\S+/confirm#\S+", newest_mail(desk.product, forgetful, "recovery"))
    assert found is not None
    link = found.group()

    desk.watch.expected = ("403", "422")
    yara = desk.page(language="ar", width=360, scheme="dark")
    yara.goto(link)
    arabic = Words("account.", "ar")
    password = yara.get_by_label(arabic("confirm.password"))
    password.fill("short")
    password.press("Enter")
    expect(yara.get_by_text(arabic("join.short"))).to_be_visible()
    password.fill("password")
    password.press("Enter")
    expect(yara.get_by_role("alert")).to_have_text(arabic("join.weak"))
    assert keep(yara, "confirm-recovery") == []
    password.fill(desk.product.password)
    password.press("Enter")
    expect(yara.get_by_role("alert")).to_have_text(arabic("confirm.same"))
    password.fill(f"another {unique}")
    password.press("Enter")
    yara.get_by_test_id("conversation-row").first.wait_for()

    page.goto(link)
    page.get_by_label(account("confirm.password")).fill(f"yet another {unique}")
    page.get_by_role("button", name=account("confirm.save")).click()
    expect(page.get_by_role("alert")).to_have_text(account("confirm.over"))
    assert keep(page, "confirm-over") == []
    page.goto(f"{desk.product.url}/confirm#type=recovery")
    page.reload()
    expect(page.get_by_role("alert")).to_have_text(account("confirm.incomplete"))


@pytest.mark.parametrize(("language", "width", "scheme"), VIEWS)
def test_the_own_sessions_are_seen_and_ended(desk: Desk, language: str, width: int, scheme: str) -> None:
    _, people = words(language)
    desk.watch.expected = ("400", "401", "403", "WebSocket")
    view: dict[str, Any] = {"language": language, "width": width, "scheme": scheme}
    yara = desk.agent("yara", "/settings/security", **view)
    yara.get_by_test_id("session").first.wait_for()
    if yara.get_by_role("button", name=people("security.endOthers")).count():  # of tests before this one
        yara.get_by_role("button", name=people("security.endOthers")).click()
    expect(yara.get_by_test_id("session")).to_have_count(1)
    expect(yara.get_by_test_id("session")).to_contain_text(people("security.here"))
    elsewhere = desk.agent("yara")
    yara.reload()
    expect(yara.get_by_test_id("session")).to_have_count(2)
    expect(yara.get_by_test_id("session").first).to_contain_text("Chrome")
    assert keep(yara, f"security-{language}-{width}") == []
    yara.get_by_test_id("session").get_by_role("button", name=people("security.endLabel", device="")).click()
    expect(yara.get_by_test_id("session")).to_have_count(1)
    elsewhere.wait_for_url("**/sign-in*")

    yara.get_by_label(people("security.current"), exact=True).fill("something else")
    yara.get_by_label(people("security.new"), exact=True).fill("a new one for today")
    yara.get_by_role("button", name=people("security.change"), exact=True).click()
    expect(yara.get_by_role("main").get_by_role("alert")).to_have_text(people("security.wrong"))
    assert keep(yara, f"security-wrong-{language}-{width}") == []


def test_the_own_password_is_changed(desk: Desk, forgetful: str, unique: str) -> None:
    _, people = words("en")
    yara = desk.agent("yara", "/settings/security")
    yara.get_by_role("button", name=people("security.change"), exact=True).click()
    expect(yara.get_by_label(people("security.current"), exact=True)).to_be_focused()
    yara.get_by_label(people("security.current"), exact=True).fill(desk.product.password)
    yara.get_by_label(people("security.new"), exact=True).fill(f"changed {unique}")
    yara.get_by_role("button", name=people("security.change"), exact=True).click()
    expect(yara.get_by_text(people("security.changed"))).to_be_visible()
    again = desk.page()
    again.goto(f"{desk.product.url}/sign-in")
    again.locator('input[type="email"]').fill(forgetful)
    again.locator('input[autocomplete="current-password"]').fill(f"changed {unique}")
    again.locator('button[type="submit"]').click()
    again.get_by_test_id("conversation-row").first.wait_for()
