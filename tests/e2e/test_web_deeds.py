"""What agents do to messages and conversations in the browser, and what their colleagues see of it."""

from __future__ import annotations

import json
import re
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from playwright.sync_api import Page, Route, expect

from hub.db.demo import TEAM
from tests.e2e.test_web_matrix import keep
from tests.e2e.web import (
    Desk,
    Product,
    audit,
    bubble,
    composer,
    open_conversation,
    phone_bubble,
    until,
    write,
)


@pytest.fixture
def unique() -> Iterator[str]:
    """A word that no other message holds."""
    yield uuid4().hex[:8]


def api(product: Product, path: str, body: dict[str, Any] | None = None) -> Any:
    """The API's answer, as Dana: a GET, or a POST that returns what it made."""
    with urllib.request.urlopen(f"{product.url}/config.json", timeout=10) as answer:
        anon = json.load(answer)["anon_key"]
    headers = {"apikey": anon, "Content-Type": "application/json", "Prefer": "return=representation"}
    sign_in = json.dumps({"email": TEAM[0].email, "password": product.password}).encode()
    address = f"{product.url}/auth/v1/token?grant_type=password"
    with urllib.request.urlopen(urllib.request.Request(address, sign_in, headers), timeout=10) as answer:
        headers["Authorization"] = f"Bearer {json.load(answer)['access_token']}"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{product.url}/rest/v1/{path}", data, headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


def rows(product: Product, table: str, **filters: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = api(product, f"{table}?{urllib.parse.urlencode(filters)}")
    return found


def test_typing_and_viewing_are_shown_to_colleagues_and_end(desk: Desk, unique: str) -> None:
    """In the thread and in the list, and neither stays when it is over."""
    dana, karim = desk.agent("dana"), desk.agent("karim")
    open_conversation(dana, "Peter")
    there = dana.get_by_text("Karim Saleh is here too")
    expect(there).to_have_count(0)
    open_conversation(karim, "Peter")
    expect(there).to_be_visible()
    composer(karim).press_sequentially(unique)
    writing = dana.get_by_text("Karim Saleh is writing")
    expect(writing).to_be_visible()
    # Emptied without sending: not writing, but still here.
    composer(karim).fill("")
    expect(writing).to_have_count(0)
    expect(there).to_be_visible()

    open_conversation(dana, "Omar")
    row = dana.get_by_test_id("conversation-row").filter(has_text="Peter")
    expect(row).to_contain_text("Open at: Karim Saleh")
    composer(karim).press_sequentially(unique)
    expect(row).to_contain_text("A colleague is writing")
    composer(karim).fill("")
    open_conversation(karim, "James")
    expect(row).not_to_contain_text("Open at")
    expect(row).not_to_contain_text("A colleague is writing")


def test_a_deal_from_a_conversation_takes_two_clicks(desk: Desk, unique: str, product: Product) -> None:
    """CONV-08. It keeps the link, and a colleague sees it without doing anything."""
    dana, karim = desk.agent("dana"), desk.agent("karim")
    for page in (dana, karim):
        open_conversation(page, "نور")
    conversation = dana.url.rsplit("/", 1)[1].partition("?")[0]
    panel = karim.get_by_role("complementary", name="Contact", exact=True)
    before = panel.get_by_text("from this conversation").count()
    dana.get_by_role("button", name="New deal").click()
    dana.get_by_role("button", name="Create deal").click()
    expect(panel.get_by_text("from this conversation")).to_have_count(before + 1)
    (deal,) = rows(product, "deals", conversation_id=f"eq.{conversation}", order="created_at.desc", limit="1")
    (member,) = rows(product, "profiles", email=f"eq.{TEAM[0].email}")
    (pipeline,) = rows(product, "pipelines", is_default="is.true")
    assert deal["owner_id"] == member["id"]
    assert deal["pipeline_id"] == pipeline["id"]
    assert deal["stage"] == pipeline["stages"][0]["id"]
    assert "نور" in deal["title"]
    assert deal["value"] is None

    # By key, with an amount in Arabic digits and another stage.
    expect(dana.get_by_role("dialog")).to_have_count(0)
    dana.keyboard.press("d")
    form = dana.get_by_role("dialog")
    expect(form.get_by_label("Title")).to_be_focused()
    form.get_by_label("Title").fill(f"Sofa {unique}")
    form.get_by_label("Value").fill("12,5")
    form.get_by_label("Stage").select_option("Proposal")
    form.get_by_role("button", name="Create deal").click()
    expect(form.get_by_text("Write an amount such as")).to_be_visible()
    assert audit(dana) == []
    form.get_by_label("Value").fill("١٢٬٥٠٠")
    form.get_by_label("Value").press("Enter")
    expect(form).to_have_count(0)
    expect(panel).to_contain_text(f"Sofa {unique}")
    expect(panel).to_contain_text(re.compile("EGP\\s?12,500"))
    (deal,) = rows(product, "deals", title=f"eq.Sofa {unique}")
    assert (deal["stage"], deal["value"], deal["currency"]) == ("proposal", 12_500, "EGP")


def test_a_deal_can_be_made_while_the_panel_is_hidden(desk: Desk, unique: str) -> None:
    dana = desk.agent("dana", width=360, height=740)
    open_conversation(dana, "Omar")
    dana.keyboard.press("Control+k")
    dana.get_by_placeholder("Search conversations and commands").fill("New deal")
    dana.keyboard.press("Enter")
    form = dana.get_by_role("dialog", name="New deal")
    expect(form.get_by_label("Title")).to_have_value(re.compile("Omar"))
    assert keep(dana, "deal-en-light-360") == []
    dana.keyboard.press("Escape")
    expect(form).to_have_count(0)
    dana.get_by_role("button", name="Contact details").click()
    dana.get_by_role("button", name="New deal").click()
    # Escape closes the form alone, not the panel that it stands in.
    expect(dana.get_by_label("Title")).to_be_focused()
    dana.keyboard.press("Escape")
    expect(dana.get_by_label("Title")).to_have_count(0)
    expect(dana.get_by_role("dialog").get_by_text("Reachable at")).to_be_visible()
    dana.get_by_role("button", name="New deal").click()
    dana.get_by_label("Title").fill(f"From a phone {unique}")
    dana.get_by_role("button", name="Create deal").click()
    expect(dana.get_by_role("dialog").get_by_text(f"From a phone {unique}")).to_be_visible()


def delete(page: Page, text: str) -> None:
    one = bubble(page, text)
    one.hover()
    one.get_by_role("button", name="More about this message").click()
    page.get_by_role("menuitem", name="Delete…").click()


def test_MSG_01_a_deleted_message_leaves_a_tombstone_for_everyone(
    desk: Desk, unique: str, product: Product
) -> None:
    """Its text is gone here and in the database; it stays on the customer's phone, as the question says."""
    james, dana, karim = desk.customer("james"), desk.agent("dana"), desk.agent("karim")
    for page in (dana, karim):
        open_conversation(page, "James")
    text = f"wrong price {unique}"
    write(dana, text)
    expect(bubble(dana, text)).to_have_attribute("data-status", re.compile("DELIVERED|READ"), timeout=30_000)
    expect(bubble(karim, text)).to_be_visible()
    ours = dana.get_by_test_id("message").filter(has_text="This message was deleted.")
    theirs = karim.get_by_test_id("message").filter(has_text="This message was deleted.")
    before = theirs.count()

    delete(dana, text)
    dialog = dana.get_by_role("dialog")
    expect(dialog).to_contain_text("does not delete it on the customer's phone")
    assert audit(dana) == []
    dialog.get_by_role("button", name="Keep it").click()
    expect(dialog).to_have_count(0)
    expect(bubble(dana, text)).to_be_visible()

    delete(dana, text)
    dialog.get_by_role("button", name="Delete", exact=True).click()
    for page, tombstones in ((dana, ours), (karim, theirs)):
        expect(bubble(page, text)).to_have_count(0)
        expect(tombstones).to_have_count(before + 1)
        row = page.get_by_test_id("conversation-row").filter(has_text="James")
        expect(row).to_contain_text("This message was deleted.")
    expect(dana.get_by_test_id("thread")).to_be_focused()
    # Nothing can be done to a tombstone.
    expect(theirs.last.get_by_role("button")).to_have_count(0)
    assert rows(product, "messages", content=f"eq.{text}") == []
    expect(phone_bubble(james, text)).to_be_visible()
    karim.reload()
    expect(theirs).to_have_count(before + 1)


def test_MSG_01_a_message_deleted_while_it_waits_is_not_sent(
    desk: Desk, unique: str, product: Product
) -> None:
    dana = desk.agent("dana")
    product.says("sami", f"hello {unique}")
    open_conversation(dana, "Sami")
    # The customer's own limit, which holds up nobody else.
    fault = {"fault": "throttle", "persona": "sami", "next": 50, "params": {"code": 131056, "retry_after": 5}}
    made = product.sandbox_post("/_ctl/fault", fault)
    try:
        text = f"too early {unique}"
        write(dana, text)
        expect(bubble(dana, text)).to_have_attribute("data-status", "PENDING")

        def refused() -> bool:
            faults = product.sandbox_get("/_ctl/fault")["faults"]
            return any(one["hits"] for one in faults if one["id"] == made["id"])

        until(refused, "a refused try")
        delete(dana, text)
        expect(dana.get_by_role("dialog")).to_contain_text("still waits to be sent")
        dana.get_by_role("dialog").get_by_role("button", name="Delete", exact=True).click()
        tombstone = dana.get_by_test_id("message").filter(has_text="Deleted before it was sent.").last
        expect(tombstone).to_have_attribute("data-status", "FAILED")
        # Called off on purpose: nothing failed, and there is nothing to try again.
        expect(tombstone.get_by_role("button", name="Retry")).to_have_count(0)
        expect(tombstone.get_by_role("img", name="Not delivered")).to_have_count(0)
    finally:
        request = urllib.request.Request(f"{product.sandbox}/_ctl/fault/{made['id']}", method="DELETE")
        urllib.request.urlopen(request, timeout=10).close()
    # What is written after it arrives; what was called off does not.
    write(dana, f"later {unique}")
    until(lambda: product.received(f"later {unique}") == 1, "the next message")
    assert product.received(text) == 0


def test_a_long_message_arrives_although_its_first_reads_fail(desk: Desk, unique: str) -> None:
    """An event carries up to 8 KiB; the rest is read, and a refusal for now is not the end of it."""
    desk.watch.expected = ("503", "429")
    dana = desk.agent("dana")
    open_conversation(dana, "Omar")
    statuses = [503, 429]

    def stumble(route: Route) -> None:
        if statuses:
            body = json.dumps({"message": "for now", "error_code": "SERVICE_UNAVAILABLE"})
            route.fulfill(status=statuses.pop(0), content_type="application/json", body=body)
        else:
            route.continue_()

    dana.route(re.compile(r"/rest/v1/messages\?id=in"), stumble)
    desk.product.says("omar", f"{unique} " + "كلام طويل " * 900)
    expect(dana.get_by_test_id("message").filter(has_text=unique)).to_be_visible(timeout=30_000)
    assert statuses == []


def test_CONV_05_several_conversations_at_once(desk: Desk, unique: str) -> None:
    """Picked by mouse and by key; assigned, tagged and closed together, and taken back together."""
    for persona in ("omar", "james"):
        desk.product.says(persona, f"pick me {unique}")
    dana, karim = desk.agent("dana"), desk.agent("karim")
    names = ("Omar", "James")
    expect(dana.get_by_test_id("conversation-list")).to_contain_text(unique)
    rows_of = {name: dana.get_by_test_id("conversation-row").filter(has_text=name).first for name in names}
    bar = dana.get_by_role("toolbar", name="With the selected conversations")
    expect(bar).to_have_count(0)
    dana.get_by_role("checkbox", name=re.compile("^Select James")).check()
    expect(bar).to_contain_text("1 selected")
    rows_of["Omar"].click()
    dana.get_by_test_id("message").first.wait_for()
    dana.keyboard.press("x")
    expect(bar).to_contain_text("2 selected")
    dana.mouse.move(900, 300)
    assert audit(dana) == []
    dana.keyboard.press("x")
    expect(bar).to_contain_text("1 selected")
    dana.keyboard.press("x")

    bar.get_by_role("button", name="Tag all").click()
    dana.get_by_role("textbox", name="Tag all").fill(unique)
    dana.get_by_role("textbox", name="Tag all").press("Enter")
    expect(dana.get_by_text(f"2 conversations tagged “{unique}”")).to_be_visible()
    expect(bar).to_have_count(0)
    karim.get_by_role("textbox", name="Search loaded conversations").fill(unique)
    found = karim.get_by_test_id("conversation-row")
    expect(found).to_have_count(2)
    karim.get_by_role("textbox", name="Search loaded conversations").fill("")

    def pick_both() -> None:
        for name in names:
            dana.get_by_role("checkbox", name=re.compile(f"^Select {name}")).check()

    pick_both()
    bar.get_by_role("button", name="Assign all").click()
    dana.get_by_role("menuitem", name="Karim Saleh").click()
    karim.get_by_role("link", name=re.compile("^Mine")).click()
    for name in names:
        expect(found.filter(has_text=name)).to_have_count(1)

    pick_both()
    bar.get_by_role("button", name="Close all").press("Enter")
    expect(dana.get_by_test_id("conversation-row").first).to_be_focused()
    for name in names:
        expect(found.filter(has_text=name)).to_have_count(0)
    dana.get_by_role("button", name="Undo").click()
    for name in names:
        expect(found.filter(has_text=name)).to_have_count(1)
    dana.get_by_role("checkbox", name=re.compile("^Select James")).check()
    dana.keyboard.press("Escape")
    expect(bar).to_have_count(0)


def test_CONV_09_the_panel_lists_other_conversations(desk: Desk, product: Product) -> None:
    dana = desk.agent("dana")
    open_conversation(dana, "Peter")
    panel = dana.get_by_role("complementary", name="Contact", exact=True)
    expect(panel.get_by_text("This is the only one.")).to_be_visible()
    first = dana.url.rsplit("/", 1)[1].partition("?")[0]
    (here,) = rows(product, "conversations", id=f"eq.{first}")
    (made,) = api(product, "conversations", {"contact_id": here["contact_id"], "status": "CLOSED"})
    other = made["id"]
    link = panel.locator(f'a[href*="{other}"]')
    expect(link).to_contain_text("Closed")
    link.scroll_into_view_if_needed()
    assert keep(dana, "history-en-light-1280") == []
    link.click()
    expect(dana).to_have_url(re.compile(other))
    expect(panel.locator(f'a[href*="{first}"]')).to_contain_text("Open")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("language", ["en", "ar"])
def test_what_lies_over_the_inbox(desk: Desk, unique: str, language: str, scheme: str) -> None:
    """Deal, deletion, tombstone and selection in both languages and schemes, with pictures to look at."""
    mark = f"{language}-{scheme}-1280"
    arabic = language == "ar"
    desk.product.says("james", f"open again {unique}")  # whatever an earlier test left behind
    page = desk.agent("dana", language=language, scheme=scheme)
    open_conversation(page, "James")
    write(page, f"to be deleted {unique}")
    text = f"to be deleted {unique}"
    expect(bubble(page, text)).to_have_attribute("data-status", re.compile("DELIVERED|READ"), timeout=30_000)
    troubles: list[str] = []

    page.keyboard.press("Escape")
    page.keyboard.press("d")
    page.get_by_role("dialog").wait_for()
    troubles += keep(page, f"deal-{mark}")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)

    one = bubble(page, text)
    one.hover()
    one.get_by_role("button", name="المزيد عن هذه الرسالة" if arabic else "More about this message").click()
    page.get_by_role("menuitem").first.wait_for()
    troubles += keep(page, f"bubble-menu-{mark}")
    page.get_by_role("menuitem").last.click()
    page.get_by_role("dialog").wait_for()
    troubles += keep(page, f"delete-{mark}")
    page.get_by_role("dialog").get_by_role("button").last.click()
    expect(bubble(page, text)).to_have_count(0)
    expect(page.get_by_role("dialog")).to_have_count(0)

    for box in page.get_by_role("checkbox").all()[1:4]:
        box.check()
    page.mouse.move(700, 300)
    troubles += keep(page, f"selection-{mark}")
    assert troubles == []
