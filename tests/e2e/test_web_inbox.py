"""The inbox in browsers, against the whole product: what agent, colleague and customer see of each other."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from uuid import uuid4

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.web import (
    Desk,
    Product,
    audit,
    bubble,
    composer,
    link_says,
    open_conversation,
    phone_bubble,
    sideways,
    until,
    write,
)
from tests.needs import absent


@pytest.fixture
def unique() -> Iterator[str]:
    """A word that no other message holds."""
    yield uuid4().hex[:8]


def test_agent_and_customer_talk(desk: Desk, unique: str) -> None:
    """Message in, answer out, ticks; a second agent sees it all."""
    layla, dana, yara = desk.customer("layla"), desk.agent("dana"), desk.agent("yara")
    open_conversation(yara, "ليلى")

    layla.get_by_role("textbox").fill(f"هل وصلت الكنبة؟ {unique}")
    layla.get_by_role("textbox").press("Enter")
    row = dana.get_by_test_id("conversation-row").first
    expect(row).to_contain_text(unique)
    expect(row).to_contain_text("unread message")
    expect(dana).to_have_title(re.compile(r"^\(\d+\)"))
    expect(bubble(yara, f"هل وصلت الكنبة؟ {unique}")).to_have_attribute("data-direction", "INBOUND")
    arrived = re.compile("delivered|read")
    expect(phone_bubble(layla, f"هل وصلت الكنبة؟ {unique}")).to_have_attribute("data-state", arrived)

    open_conversation(dana, "ليلى")
    expect(bubble(dana, f"هل وصلت الكنبة؟ {unique}")).to_be_visible()
    write(dana, f"غدًا صباحًا {unique}")
    answer = bubble(dana, f"غدًا صباحًا {unique}")
    expect(answer).to_have_attribute("data-status", "READ", timeout=30_000)
    expect(answer.get_by_role("img", name="Read", exact=True)).to_be_visible()
    expect(phone_bubble(layla, f"غدًا صباحًا {unique}")).to_have_attribute("data-from", "business")
    expect(bubble(yara, f"غدًا صباحًا {unique}")).to_have_attribute("data-status", "READ", timeout=30_000)
    expect(bubble(yara, f"غدًا صباحًا {unique}")).to_contain_text("Dana Mansour")
    assert desk.product.received(f"غدًا صباحًا {unique}") == 1


def test_cut_and_catch_up(desk: Desk, unique: str) -> None:
    """What happened meanwhile is there once; what was written meanwhile is sent once."""
    desk.watch.expected = ("ERR_INTERNET_DISCONNECTED",)
    dana, karim = desk.agent("dana"), desk.agent("karim")
    for page in (dana, karim):
        open_conversation(page, "Omar")
    dana.context.set_offline(True)
    link_says(dana, "Offline")
    write(dana, f"from the tunnel {unique}")
    expect(dana.get_by_test_id("unsent").filter(has_text=unique)).to_be_visible()
    link_says(dana, "1 unsent")

    for number in range(3):
        desk.product.says("omar", f"meanwhile {number} {unique}")
    write(karim, f"a colleague answers {unique}")
    expect(bubble(karim, f"meanwhile 2 {unique}")).to_be_visible()
    expect(bubble(karim, f"a colleague answers {unique}")).to_be_visible()
    expect(bubble(dana, f"meanwhile 0 {unique}")).to_have_count(0)

    dana.context.set_offline(False)
    for number in range(3):
        expect(bubble(dana, f"meanwhile {number} {unique}")).to_have_count(1)
    expect(bubble(dana, f"a colleague answers {unique}")).to_have_count(1)
    # A colleague answered since this was begun: asked once, with his message to read.
    dialog = dana.get_by_role("dialog")
    expect(dialog).to_contain_text(f"a colleague answers {unique}")
    dialog.get_by_role("button", name="Send anyway").click()
    expect(bubble(dana, f"from the tunnel {unique}")).to_have_count(1)
    expect(dana.get_by_test_id("unsent")).to_have_count(0)
    link_says(dana, "Live")
    until(lambda: desk.product.received(f"from the tunnel {unique}") == 1, "the delivery")


def test_closing_the_page_loses_nothing_written(desk: Desk, unique: str) -> None:
    """A draft stays a draft; what was sent without a connection goes out when the app is opened again."""
    desk.watch.expected = ("ERR_INTERNET_DISCONNECTED",)
    dana = desk.agent("dana")
    open_conversation(dana, "Sami")
    address = dana.url
    dana.context.set_offline(True)
    link_says(dana, "Offline")
    write(dana, f"sent in a tunnel {unique}")
    expect(dana.get_by_test_id("unsent")).to_have_count(1)
    composer(dana).fill(f"half a sentence {unique}")
    context = dana.context
    dana.close()
    context.set_offline(False)
    assert desk.product.received(f"sent in a tunnel {unique}") == 0

    again = desk.watch.over(context.new_page())
    again.goto(address)
    expect(bubble(again, f"sent in a tunnel {unique}")).to_have_count(1)
    expect(again.get_by_test_id("unsent")).to_have_count(0)
    expect(composer(again)).to_have_value(f"half a sentence {unique}")
    composer(again).fill("")
    until(lambda: desk.product.received(f"sent in a tunnel {unique}") == 1, "the delivery")


def test_two_agents_do_not_answer_twice(desk: Desk, unique: str) -> None:
    dana, karim = desk.agent("dana"), desk.agent("karim")
    for page in (dana, karim):
        open_conversation(page, "James")
    expect(dana.get_by_text("Karim Saleh is here too")).to_be_visible()
    composer(karim).press_sequentially(f"mine {unique}")
    expect(dana.get_by_text("Karim Saleh is writing")).to_be_visible()
    write(dana, f"first {unique}")
    expect(bubble(karim, f"first {unique}")).to_be_visible()

    composer(karim).press("Enter")
    dialog = karim.get_by_role("dialog")
    expect(dialog).to_contain_text(f"first {unique}")
    assert audit(karim) == []
    dialog.get_by_role("button", name="Back to editing").click()
    expect(composer(karim)).to_have_value(f"mine {unique}")
    # The new message was shown: now it goes without asking again.
    composer(karim).press("Enter")
    expect(bubble(karim, f"mine {unique}")).to_be_visible()
    expect(dialog).to_have_count(0)


def test_quick_replies_are_filled_in(desk: Desk) -> None:
    dana = desk.agent("dana")
    open_conversation(dana, "Omar")
    composer(dana).press_sequentially("/")
    options = dana.get_by_role("listbox", name="Quick replies").get_by_role("option")
    expect(options.first).to_have_attribute("aria-selected", "true")
    assert audit(dana) == []
    dana.keyboard.press("ArrowDown")
    expect(options.nth(1)).to_have_attribute("aria-selected", "true")
    text = options.nth(1).inner_text()
    assert "{{name}}" not in text
    dana.keyboard.press("Enter")
    expect(composer(dana)).not_to_have_value(re.compile("^/"))
    composer(dana).fill("costs {{price}}")
    expect(dana.get_by_role("button", name="Send", exact=True)).to_be_disabled()
    expect(dana.get_by_text("Fill in {{price}} before sending.")).to_be_visible()
    composer(dana).fill("")


def test_assign_close_and_tags_are_live(desk: Desk, unique: str) -> None:
    dana, karim = desk.agent("dana"), desk.agent("karim")
    for page in (dana, karim):
        open_conversation(page, "Peter")
    dana.keyboard.press("a")
    dana.get_by_role("menuitem", name="Karim Saleh").click()
    expect(karim.get_by_role("button", name="Assigned to Karim Saleh. Change")).to_be_visible()
    karim.get_by_role("link", name=re.compile("^Mine")).click()
    expect(karim.get_by_test_id("conversation-row").filter(has_text="Peter")).to_be_visible()

    dana.get_by_role("button", name="Add a tag").click()
    dana.keyboard.type(unique)
    dana.keyboard.press("Enter")
    expect(karim.get_by_role("button", name=f"Remove tag {unique}")).to_be_visible()
    karim.get_by_role("button", name=f"Remove tag {unique}").click()
    expect(dana.get_by_role("button", name=f"Remove tag {unique}")).to_have_count(0)

    dana.get_by_role("button", name="Close", exact=True).click()
    expect(karim.get_by_role("button", name="Reopen", exact=True)).to_be_visible()
    expect(karim.get_by_test_id("conversation-row").filter(has_text="Peter")).to_have_count(0)
    karim.get_by_role("button", name="Reopen", exact=True).click()
    expect(dana.get_by_role("button", name="Close", exact=True)).to_be_visible()


def test_notes_are_kept(desk: Desk, unique: str) -> None:
    dana, karim = desk.agent("dana"), desk.agent("karim")
    for page in (dana, karim):
        open_conversation(page, "Omar")
    dana.get_by_label("New note").fill(f"prefers mornings {unique}")
    dana.get_by_role("button", name="Add note").click()
    for page in (dana, karim):
        panel = page.get_by_role("complementary", name="Contact")
        expect(panel.get_by_text(f"prefers mornings {unique}")).to_be_visible()
        expect(page.get_by_test_id("thread-note").filter(has_text=unique)).to_be_visible()


def test_a_reader_is_not_moved(desk: Desk, unique: str) -> None:
    """Messages below a reader in the middle move nothing; the row under the pointer stays under it."""
    for number in range(40):
        desk.product.says("omar", f"line {number} {unique}")
    dana = desk.agent("dana", height=500)
    expect(dana.get_by_test_id("conversation-list")).to_contain_text(f"line 39 {unique}", timeout=30_000)
    open_conversation(dana, "Omar")
    # So much is unread that it opens where that begins.
    expect(dana.get_by_test_id("new-divider")).to_be_in_viewport()
    jump = dana.get_by_role("button", name="Jump to latest")
    jump.click()
    expect(bubble(dana, f"line 39 {unique}")).to_be_in_viewport()
    expect(jump).to_have_count(0)
    dana.get_by_test_id("thread").hover()
    dana.mouse.wheel(0, -1_200)
    expect(jump).to_be_visible()
    middle = dana.get_by_test_id("message").nth(dana.get_by_test_id("message").count() // 2).element_handle()
    assert middle is not None
    settled: list[float] = []

    def still() -> bool:
        box = middle.bounding_box()
        settled.append(box["y"] if box else -1)
        return len(settled) > 3 and len(set(settled[-3:])) == 1

    until(still, "the wheel at rest")
    for number in range(5):
        desk.product.says("omar", f"below {number} {unique}")
    expect(dana.get_by_role("button", name="Jump to latest, 5 new")).to_be_visible()
    box = middle.bounding_box()
    assert box is not None
    assert abs(box["y"] - settled[-1]) < 1
    jump.click()
    expect(bubble(dana, f"below 4 {unique}")).to_be_in_viewport()

    dana.goto(f"{desk.product.url}/inbox")
    row = dana.get_by_test_id("conversation-row").nth(2)
    row.hover()
    name = row.get_attribute("data-conversation")
    for persona in ("sami", "james", "nour"):
        desk.product.says(persona, f"hello {persona} {unique}")
    expect(dana.get_by_test_id("conversation-list")).to_contain_text(unique)
    assert dana.get_by_test_id("conversation-row").nth(2).get_attribute("data-conversation") == name
    dana.mouse.move(900, 300)
    expect(dana.get_by_test_id("conversation-row").first).to_contain_text(unique)


def physical(page: Page, code: str, key: str, *, control: bool = False) -> None:
    """A key as an Arabic keyboard layout reports it."""
    page.evaluate(
        """([code, key, ctrlKey]) => document.body.dispatchEvent(
             new KeyboardEvent('keydown', { code, key, ctrlKey, bubbles: true, cancelable: true }))""",
        [code, key, control],
    )


def test_keys_work_on_an_arabic_layout(desk: Desk) -> None:
    dana = desk.agent("dana", language="ar")
    physical(dana, "KeyJ", "ت")
    expect(dana).to_have_url(re.compile(r"/inbox/[0-9a-f-]{36}"))
    first = dana.url
    physical(dana, "KeyJ", "ت")
    expect(dana).not_to_have_url(first)
    physical(dana, "KeyK", "ن")
    expect(dana).to_have_url(first)
    physical(dana, "KeyR", "ق")
    expect(composer(dana)).to_be_focused()
    dana.keyboard.press("Alt+Slash")
    expect(dana.get_by_role("listbox").get_by_role("option").first).to_be_visible()
    composer(dana).fill("")
    dana.keyboard.press("Escape")
    physical(dana, "KeyK", "ن", control=True)
    palette = dana.get_by_placeholder("ابحث في المحادثات والأوامر")
    palette.fill("الفريق")
    assert audit(dana) == []
    palette.press("Enter")
    expect(dana).to_have_url(re.compile("/settings/team"))


def test_the_table_of_keys_reads_alike_in_both_directions(desk: Desk) -> None:
    """The word between two ways stands between their keys, in Arabic too."""
    for language, word in (("en", "or"), ("ar", "أو")):
        page = desk.agent("dana", "/settings/shortcuts", language=language)
        line = page.locator("dd").filter(has=page.get_by_text("Alt", exact=True)).first
        places = [
            line.get_by_text("J", exact=True).first.bounding_box(),
            line.get_by_text(word, exact=True).bounding_box(),
            line.get_by_text("Alt", exact=True).bounding_box(),
            line.get_by_text("J", exact=True).last.bounding_box(),
        ]
        lefts = [box["x"] for box in places if box]
        assert len(lefts) == 4
        assert lefts == sorted(lefts)


def test_single_keys_can_be_switched_off(desk: Desk) -> None:
    dana = desk.agent("dana", "/settings/shortcuts")
    dana.get_by_role("switch").click()
    dana.goto(f"{desk.product.url}/inbox")
    dana.get_by_test_id("conversation-row").first.wait_for()
    dana.keyboard.press("j")
    dana.keyboard.press("Alt+j")
    expect(dana).to_have_url(re.compile(r"/inbox/[0-9a-f-]{36}"))
    first = dana.get_by_test_id("conversation-row").first.get_attribute("data-conversation") or "?"
    expect(dana).to_have_url(re.compile(first))


def test_a_whole_answer_by_keyboard_alone(desk: Desk, unique: str) -> None:
    desk.product.says("omar", f"anybody there? {unique}")
    dana = desk.agent("dana")
    expect(dana.get_by_test_id("conversation-row").first).to_contain_text(unique)
    dana.keyboard.press("j")
    expect(bubble(dana, f"anybody there? {unique}")).to_be_visible()
    dana.keyboard.press("r")
    expect(composer(dana)).to_be_focused()
    dana.keyboard.type(f"all of us {unique}")
    dana.keyboard.press("Enter")
    expect(bubble(dana, f"all of us {unique}")).to_be_visible()
    expect(composer(dana)).to_be_focused()
    dana.keyboard.press("Escape")
    dana.keyboard.press("a")
    dana.get_by_role("menuitem", name="Assign to me").wait_for()
    dana.keyboard.press("ArrowDown")
    dana.keyboard.press("Enter")
    dana.get_by_role("menuitem").first.wait_for(state="detached")
    # Opened from its own button, the menu gives the focus back to it.
    button = dana.get_by_role("button", name=re.compile("^Assigned to .+ Change$"))
    button.press("Enter")
    dana.get_by_role("menuitem", name="Assign to me").wait_for()
    dana.keyboard.press("Escape")
    expect(button).to_be_focused()
    dana.keyboard.press("e")
    expect(dana.get_by_role("button", name="Reopen", exact=True)).to_be_visible()
    dana.get_by_role("button", name="Undo").press("Enter")
    expect(dana.get_by_role("button", name="Close", exact=True)).to_be_visible()


def test_an_answer_is_seen_although_the_thread_opened_at_its_first_unread_message(
    desk: Desk, unique: str
) -> None:
    for n in range(12):
        desk.product.says("sami", f"unread {n} {unique}")
    dana = desk.agent("dana")
    expect(dana.get_by_test_id("conversation-row").filter(has_text=f"unread 11 {unique}")).to_be_visible()
    open_conversation(dana, "Sami")
    expect(bubble(dana, f"unread 0 {unique}")).to_be_visible()
    write(dana, f"here it is {unique}")
    expect(bubble(dana, f"here it is {unique}")).to_be_in_viewport()


def test_keys_and_their_curl_lines_work(desk: Desk, unique: str) -> None:
    """What the API page offers to copy runs as it stands; a revoked key opens nothing."""
    if shutil.which("curl") is None:
        absent("there is no curl: install it")
    dana = desk.agent("dana", "/settings/api")
    dana.get_by_label("New key").fill(f"program {unique}")
    dana.get_by_role("button", name="Make a key").click()
    expect(dana.get_by_text("Copy the key now. It is never shown again.")).to_be_visible()
    lines = dana.get_by_role("group", name="Copy as curl").all_inner_texts()
    lines = [line.replace("YOUR_PASSWORD", desk.product.password) for line in lines]
    sign_in, conversations, events, insert = lines
    insert = insert.replace("Hello from my program", f"by curl {unique}")

    def run(*commands: str) -> object:
        done = subprocess.run(
            ["sh", "-c", "\n".join(commands)], capture_output=True, text=True, check=True, timeout=60
        )
        return json.loads(done.stdout)

    assert isinstance(run(sign_in, conversations), list)
    assert "events" in str(run(sign_in, events))
    assert "conversation_id" in str(run(insert))
    dana.get_by_role("button", name=f"Revoke program {unique}").click()
    dana.get_by_role("dialog").get_by_role("button", name="Revoke", exact=True).click()
    expect(dana.get_by_role("button", name=f"Revoke program {unique}")).to_have_count(0)
    until(lambda: "INVALID_API_KEY" in str(run(insert)), "the refusal")
    dana.goto(f"{desk.product.url}/inbox")
    expect(dana.get_by_test_id("conversation-list")).to_contain_text(f"by curl {unique}")


def test_narrow_screen_shows_one_pane(desk: Desk, unique: str) -> None:
    dana = desk.agent("dana", width=360, height=740)
    expect(dana.get_by_test_id("thread")).to_have_count(0)
    open_conversation(dana, "Omar")
    expect(dana.get_by_test_id("conversation-list")).to_be_hidden()
    write(dana, f"from a phone {unique}")
    expect(bubble(dana, f"from a phone {unique}")).to_be_in_viewport()
    box, field = bubble(dana, f"from a phone {unique}").bounding_box(), composer(dana).bounding_box()
    assert box and field and box["y"] + box["height"] <= field["y"]
    dana.get_by_role("button", name="Contact details").click()
    expect(dana.get_by_role("dialog").get_by_text("Reachable at")).to_be_visible()
    assert audit(dana) == []
    dana.keyboard.press("Escape")
    dana.get_by_role("link", name="Back to the list").click()
    expect(dana.get_by_test_id("conversation-list")).to_be_visible()
    assert sideways(dana) == []


def test_a_failed_message_says_why_and_is_tried_again(desk: Desk, unique: str, product: Product) -> None:
    """Retry is a new attempt: the bubble follows the provider's word, not the button."""
    dana = desk.agent("dana")
    product.says("omar", f"are you there {unique}")
    open_conversation(dana, "Omar")
    fault = {"fault": "error", "persona": "omar", "next": 1, "params": {"code": 131026}}
    product.sandbox_post("/_ctl/fault", fault)
    write(dana, f"fails first {unique}")
    failed = bubble(dana, f"fails first {unique}")
    expect(failed).to_have_attribute("data-status", "FAILED", timeout=30_000)
    assert product.received(f"fails first {unique}") == 0
    failed.get_by_role("button", name="Retry").click()
    expect(failed).to_have_attribute("data-status", re.compile("SENT|DELIVERED|READ"), timeout=30_000)
    assert product.received(f"fails first {unique}") == 1


def test_sign_in_out_and_deep_links(desk: Desk) -> None:
    desk.watch.expected = ("400",)
    page = desk.page()
    page.goto(f"{desk.product.url}/inbox?queue=mine")
    expect(page).to_have_url(re.compile("/sign-in"))
    expect(page.locator('input[type="email"]')).to_have_value("dana@nilehome.example")
    page.locator('input[autocomplete="current-password"]').fill("wrong password")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_contain_text("do not match")
    page.locator('input[autocomplete="current-password"]').fill(desk.product.password)
    page.get_by_role("button", name="Sign in").click()
    expect(page).to_have_url(re.compile("queue=mine"))
    page.reload()
    expect(page.get_by_role("link", name=re.compile("^Mine"))).to_have_attribute("aria-current", "page")
    page.goto(f"{desk.product.url}/inbox/{uuid4()}")
    expect(page.get_by_text("This conversation does not exist")).to_be_visible()
    page.get_by_role("button", name=re.compile("^Account of")).click()
    page.get_by_role("menuitem", name="Sign out").click()
    expect(page.get_by_role("button", name="Sign in")).to_be_visible()
    page.goto(f"{desk.product.url}/settings/team")
    expect(page).to_have_url(re.compile("/sign-in"))


@pytest.mark.parametrize("child", ["hub", "worker", "valkey", "postgres"])
def test_kill_any_process_while_people_talk(desk: Desk, unique: str, child: str) -> None:
    """kill -9: question and answer arrive all the same, once each, and the badge says Live again."""
    desk.watch.expected = ("WebSocket", "ERR_CONNECTION_REFUSED", "503", "502")
    nour, dana, karim = desk.customer("nour"), desk.agent("dana"), desk.agent("karim")
    for page in (dana, karim):
        open_conversation(page, "نور")
    before = desk.product.child(child)
    os.kill(before, signal.SIGKILL)
    nour.get_by_role("textbox").fill(f"question {unique}")
    nour.get_by_role("textbox").press("Enter")
    write(dana, f"answer {unique}")

    patient = 60_000
    for page in (dana, karim):
        expect(bubble(page, f"question {unique}")).to_have_count(1, timeout=patient)
        expect(bubble(page, f"answer {unique}")).to_have_count(1, timeout=patient)
    expect(phone_bubble(nour, f"answer {unique}")).to_have_count(1, timeout=patient)
    expect(dana.get_by_test_id("unsent")).to_have_count(0, timeout=patient)
    link_says(dana, "Live")
    until(lambda: desk.product.child(child) != before, "the restart")
    assert desk.product.received(f"answer {unique}") == 1
