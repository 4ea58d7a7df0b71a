"""Files, templates and notes in browsers, against the whole product: what goes out, what comes in, what is
refused."""

from __future__ import annotations

import base64
import json
import re
import struct
import urllib.parse
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest
from playwright.sync_api import FilePayload, Locator, Page, expect

from tests.e2e.test_web_matrix import keep
from tests.e2e.web import (
    Desk,
    Product,
    audit,
    bubble,
    composer,
    link_says,
    open_conversation,
    phone_bubble,
    until,
    write,
)

ON_ITS_WAY = re.compile("SENT|DELIVERED|READ")
PDF = b"%PDF-1.4\n1 0 obj<</Type/Catalog>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF\n"


def picture(width: int = 320, height: int = 200, shade: int = 90) -> bytes:
    """A PNG that any browser shows; another shade is another file."""
    lines = b"".join(
        b"\0" + bytes(value for x in range(width) for value in ((x + shade) % 256, (y * 2) % 256, shade))
        for y in range(height)
    )

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(lines))
        + chunk(b"IEND", b"")
    )


def wave(seconds: float = 0.4) -> bytes:
    """Silence that any browser plays; as a customer's sound it is a voice message."""
    rate = 8_000
    data = b"\x80" * int(rate * seconds)
    head = struct.pack("<4sIHHIIHH4sI", b"fmt ", 16, 1, 1, rate, rate, 1, 8, b"data", len(data))
    return b"RIFF" + struct.pack("<I", 4 + len(head) + len(data)) + b"WAVE" + head + data


@pytest.fixture
def unique() -> Iterator[str]:
    """A word that no other message holds."""
    yield uuid4().hex[:8]


@pytest.fixture
def shade(unique: str) -> int:
    return int(unique[:2], 16)


def give(page: Page, *files: tuple[str, str, bytes]) -> None:
    """Picks files (name, type, bytes) in the page's chooser."""
    chosen = [FilePayload(name=name, mimeType=kind, buffer=data) for name, kind, data in files]
    page.get_by_test_id("file-chooser").set_input_files(chosen)


def hand_over(page: Page, event: str, target: str, *files: tuple[str, str, bytes]) -> None:
    """Pastes or drops files, as the browser tells a page of it."""
    given = [[name, kind, base64.b64encode(data).decode()] for name, kind, data in files]
    page.evaluate(
        """([event, target, given]) => {
          const data = new DataTransfer();
          for (const [name, type, text] of given) {
            const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
            data.items.add(new File([bytes], name, { type }));
          }
          const element = document.querySelector(target);
          const names = event === 'paste' ? ['paste'] : ['dragenter', 'dragover', 'drop'];
          for (const name of names) {
            const made = event === 'paste'
              ? new ClipboardEvent(name, { clipboardData: data, bubbles: true, cancelable: true })
              : new DragEvent(name, { dataTransfer: data, bubbles: true, cancelable: true });
            element.dispatchEvent(made);
          }
        }""",
        [event, target, given],
    )


def customer_sends(
    product: Product, persona: str, kind: str, data: bytes, mime: str, name: str, **part: Any
) -> None:
    """A customer's file, without anybody watching their phone."""
    address = f"{product.sandbox}/_ctl/media?{urllib.parse.urlencode({'filename': name})}"
    request = urllib.request.Request(address, data, {"Content-Type": mime})
    with urllib.request.urlopen(request, timeout=10) as answer:
        media = json.load(answer)["id"]
    if kind == "document":
        part["filename"] = name
    message = {"type": kind, kind: {"id": media, **part}}
    product.sandbox_post(
        "/_ctl/inbound", {"channel": "WHATSAPP_CLOUD", "persona": persona, "message": message}
    )


def shown(page: Page, text: str) -> Locator:
    """The file of the message with this caption."""
    return bubble(page, text).get_by_test_id("media")  # type: ignore[no-any-return]


def sends(product: Product, wanted: Callable[[dict[str, Any]], bool]) -> int:
    """How often the provider accepted a send like this."""
    found = product.sandbox_get("/_ctl/ledger?limit=1000")["sends"]
    return sum(1 for one in found if wanted(one["body"]))


def captioned(text: str) -> Callable[[dict[str, Any]], bool]:
    return lambda body: body.get(body.get("type", ""), {}).get("caption") == text


def saved(page: Page, click: Locator) -> tuple[str, bytes]:
    """What the browser saves on this click: name and bytes."""
    with page.expect_download() as waiting:
        click.click()
    with open(waiting.value.path(), "rb") as file:
        return waiting.value.suggested_filename, file.read()


def is_drawn(image: Locator) -> bool:
    found: bool = image.evaluate("(one) => one.complete && one.naturalWidth > 0")
    return found


# ---- out ---------------------------------------------------------------------------------------------


def test_MSG_03_an_agent_sends_a_picture(desk: Desk, unique: str, shade: int) -> None:
    """Chosen, seen before it goes, sent once, seen by the customer and by a colleague."""
    dana, karim, layla = desk.agent("dana"), desk.agent("karim"), desk.customer("layla")
    for page in (dana, karim):
        open_conversation(page, "ليلى")
    give(dana, ("sofa.png", "image/png", picture(shade=shade)))
    card = dana.get_by_test_id("tray-file")
    expect(card).to_contain_text("sofa.png")
    expect(card).to_contain_text("ready")
    assert is_drawn(card.locator("img"))
    assert audit(dana) == []
    write(dana, f"olive, as you asked {unique}")
    expect(dana.get_by_test_id("tray")).to_have_count(0)

    expect(shown(dana, f"olive, as you asked {unique}")).to_have_attribute("data-state", "shown")
    expect(bubble(dana, f"olive, as you asked {unique}")).to_have_attribute(
        "data-status", re.compile("DELIVERED|READ"), timeout=30_000
    )
    expect(shown(karim, f"olive, as you asked {unique}")).to_have_attribute("data-state", "shown")
    image = phone_bubble(layla, f"olive, as you asked {unique}").locator("img")
    until(lambda: is_drawn(image), "the picture on the phone")
    assert sends(desk.product, captioned(f"olive, as you asked {unique}")) == 1


def test_MSG_03_several_files_are_several_messages(desk: Desk, unique: str, shade: int) -> None:
    """Dropped and pasted together; in their order, the words beneath the last that can carry them."""
    dana = desk.agent("dana")
    open_conversation(dana, "Omar")
    hand_over(dana, "drop", "[data-testid=thread]", ("1.png", "image/png", picture(shade=shade)))
    expect(dana.get_by_test_id("tray-file")).to_have_count(1)
    hand_over(dana, "paste", "[data-composer]", ("2.png", "image/png", picture(shade=shade + 1)))
    give(dana, ("عرض سعر.pdf", "application/pdf", PDF + unique.encode()))
    expect(dana.get_by_test_id("tray-file")).to_have_count(3)
    give(dana, ("away.png", "image/png", picture(8, 8)))
    dana.get_by_role("button", name="Remove away.png").click()
    expect(dana.get_by_test_id("tray-file")).to_have_count(3)
    # Another conversation has a tray of its own; this one keeps its files.
    open_conversation(dana, "ليلى")
    expect(dana.get_by_test_id("tray-file")).to_have_count(0)
    open_conversation(dana, "Omar")
    expect(dana.get_by_test_id("tray-file")).to_have_count(3)
    write(dana, f"the quote {unique}")

    document = shown(dana, f"the quote {unique}")
    expect(document).to_contain_text("عرض سعر.pdf")
    until(lambda: sends(desk.product, captioned(f"the quote {unique}")) == 1, "the last of the three")
    sent = [one["body"] for one in desk.product.sandbox_get("/_ctl/ledger?limit=1000")["sends"][-3:]]
    assert sorted(one["type"] for one in sent) == ["document", "image", "image"]
    named = next(one["document"] for one in sent if one["type"] == "document")
    assert named["filename"] == "عرض سعر.pdf"
    expect(bubble(dana, f"the quote {unique}")).to_have_attribute("data-status", ON_ITS_WAY)
    name, data = saved(dana, document)
    assert (name, data) == ("عرض سعر.pdf", PDF + unique.encode())
    # The newest three, as they stand: both pictures, then the words with their document.
    kinds = dana.get_by_test_id("media").evaluate_all("all => all.slice(-3).map((one) => one.dataset.kind)")
    assert kinds == ["image", "image", "document"]


def test_MSG_03_what_cannot_go_says_why_and_what_to_do(desk: Desk) -> None:
    dana = desk.agent("dana")
    open_conversation(dana, "Omar")
    give(
        dana,
        ("wink.gif", "image/gif", b"GIF89a\x01\x00\x01\x00\x00\x00\x00;"),
        ("film.mp4", "video/mp4", b"\0" * (16 * 1024 * 1024 + 1)),
        ("empty.txt", "text/plain", b""),
        ("giant.zip", "application/zip", b"PK" + b"\0" * (25 * 1024 * 1024)),
    )
    cards = dana.get_by_test_id("tray-file")
    expect(cards.nth(0)).to_contain_text("WhatsApp takes JPEG, PNG here.")
    expect(cards.nth(1)).to_contain_text("at most 16 MB")
    expect(cards.nth(2)).to_contain_text("This file is empty.")
    expect(cards.nth(3)).to_contain_text("at most 25 MB can be sent here. Make it smaller, or send a link.")
    expect(dana.get_by_role("button", name="Send", exact=True)).to_be_disabled()
    expect(dana.get_by_text("4 files cannot be sent as they are.")).to_be_visible()
    assert audit(dana) == []
    for name in ("wink.gif", "film.mp4", "empty.txt", "giant.zip"):
        dana.get_by_role("button", name=f"Remove {name}").click()
    expect(dana.get_by_test_id("tray")).to_have_count(0)


def test_MSG_03_a_picture_is_made_to_fit(desk: Desk, unique: str, shade: int) -> None:
    """A kind of picture that WhatsApp does not take goes out as a JPEG."""
    dana, layla = desk.agent("dana"), desk.customer("layla")
    open_conversation(dana, "ليلى")
    # The browser looks at the bytes, the channel at the type.
    give(dana, (f"{unique}.webp", "image/webp", picture(shade=shade)))
    dana.get_by_role("button", name="Send as JPEG").click()
    expect(dana.get_by_test_id("tray-file")).to_contain_text(f"{unique}.jpg")
    expect(dana.get_by_test_id("tray-file")).to_contain_text("ready")
    write(dana, f"as a JPEG {unique}")
    image = phone_bubble(layla, f"as a JPEG {unique}").locator("img")
    until(lambda: is_drawn(image), "the picture on the phone")


def test_MSG_03_without_a_connection_files_wait_as_texts_do(desk: Desk, unique: str, shade: int) -> None:
    """Attached and sent in a tunnel, the page closed, opened again: sent once, in order."""
    desk.watch.expected = ("ERR_INTERNET_DISCONNECTED",)
    dana = desk.agent("dana")
    open_conversation(dana, "Sami")
    address = dana.url
    # The tray is fetched when it is first wanted.
    give(dana, ("warm-up.png", "image/png", picture(8, 8)))
    dana.get_by_role("button", name="Remove warm-up.png").click()
    dana.context.set_offline(True)
    link_says(dana, "Offline")
    give(dana, ("tunnel.png", "image/png", picture(shade=shade)))
    expect(dana.get_by_test_id("tray-file")).to_contain_text("waiting")
    write(dana, f"light at the end {unique}")
    write(dana, f"and words after it {unique}")
    waiting = dana.get_by_test_id("unsent")
    expect(waiting).to_have_count(2)
    assert is_drawn(waiting.first.locator("img"))
    context = dana.context
    dana.close()
    context.set_offline(False)

    again = desk.watch.over(context.new_page())
    again.goto(address)
    light = shown(again, f"light at the end {unique}")
    expect(light).to_have_attribute("data-state", "shown", timeout=30_000)
    expect(again.get_by_test_id("unsent")).to_have_count(0)
    until(lambda: desk.product.received(f"and words after it {unique}") == 1, "the words")
    assert sends(desk.product, captioned(f"light at the end {unique}")) == 1
    words = again.get_by_test_id("message").evaluate_all("all => all.slice(-2).map((one) => one.innerText)")
    assert "light at the end" in words[0] and "and words after it" in words[1]


def test_MSG_03_retry_tries_again_and_uploads_once(desk: Desk, unique: str, shade: int) -> None:
    """A refused upload says why; Retry takes it up; a busy hub is asked again without anybody's help."""
    desk.watch.expected = ("status of 413", "status of 503")
    dana = desk.agent("dana")
    open_conversation(dana, "Omar")
    answers = [
        (503, {"message": "busy", "error_code": "SERVICE_UNAVAILABLE"}),
        (413, {"message": "A file may have at most 9 bytes", "error_code": "PAYLOAD_TOO_LARGE"}),
    ]
    asked: list[int] = []

    def upload(route: Any) -> None:
        asked.append(1)
        if answers:
            status, body = answers.pop(0)
            route.fulfill(status=status, json=body)
        else:
            route.continue_()

    dana.route("**/functions/v1/upload-media", upload)
    give(dana, ("stubborn.png", "image/png", picture(shade=shade)))
    write(dana, f"third time lucky {unique}")
    unsent = dana.get_by_test_id("unsent").filter(has_text=unique)
    expect(unsent).to_have_attribute("data-state", "refused")
    expect(unsent).to_contain_text("Not sent: A file may have at most 9 bytes")
    assert len(asked) == 2
    unsent.get_by_role("button", name="Retry").click()
    expect(shown(dana, f"third time lucky {unique}")).to_have_attribute("data-state", "shown")
    until(lambda: sends(desk.product, captioned(f"third time lucky {unique}")) == 1, "the delivery")
    assert len(asked) == 3


def test_MSG_03_an_upload_can_be_cancelled(desk: Desk, unique: str, shade: int) -> None:
    dana = desk.agent("dana")
    open_conversation(dana, "Omar")
    held: list[Any] = []
    dana.route("**/functions/v1/upload-media", lambda route: held.append(route))
    give(dana, ("regretted.png", "image/png", picture(shade=shade)))
    write(dana, f"never mind {unique}")
    write(dana, f"what comes after {unique}")
    unsent = dana.get_by_test_id("unsent").filter(has_text="never mind")
    expect(unsent.get_by_test_id("unsent-media")).to_have_attribute("data-state", "sending")
    unsent.get_by_role("button", name="Cancel the upload").click()
    # What waited for it goes on.
    expect(bubble(dana, f"what comes after {unique}")).to_be_visible()
    until(lambda: desk.product.received(f"what comes after {unique}") == 1, "the text behind it")
    expect(dana.get_by_text(f"never mind {unique}")).to_have_count(0)
    assert sends(desk.product, captioned(f"never mind {unique}")) == 0
    for route in held:
        route.abort()


# ---- in ----------------------------------------------------------------------------------------------


def test_MSG_03_a_customer_sends_pictures(desk: Desk, unique: str, shade: int) -> None:
    """From the phone page to the bubble, to the lightbox and onto the agent's disk, byte by byte."""
    dana, layla = desk.agent("dana"), desk.customer("layla")
    open_conversation(dana, "ليلى")
    first, second = picture(shade=shade), picture(200, 300, shade + 1)
    layla.get_by_role("textbox").fill(f"first {unique}")
    give(layla, ("a.png", "image/png", first))
    expect(shown(dana, f"first {unique}")).to_have_attribute("data-state", "shown", timeout=30_000)
    layla.get_by_role("textbox").fill(f"second {unique}")
    give(layla, ("b.png", "image/png", second))
    expect(shown(dana, f"second {unique}")).to_have_attribute("data-state", "shown", timeout=30_000)

    opener = shown(dana, f"first {unique}").get_by_role("button")
    opener.focus()
    dana.keyboard.press("Enter")
    box = dana.get_by_test_id("lightbox")
    expect(box.get_by_text(f"first {unique}", exact=True)).to_be_visible()
    assert audit(dana) == []
    dana.keyboard.press("ArrowRight")
    expect(box.get_by_text(f"second {unique}", exact=True)).to_be_visible()
    expect(box.get_by_role("button", name="Next")).to_be_disabled()
    _, data = saved(dana, box.get_by_role("button", name=re.compile("^Save ")))
    assert data == second
    dana.keyboard.press("ArrowLeft")
    expect(box.get_by_text(f"first {unique}", exact=True)).to_be_visible()
    dana.keyboard.press("Escape")
    expect(box).to_have_count(0)
    expect(opener).to_be_focused()


def test_MSG_03_voices_documents_and_stickers_come_in(desk: Desk, unique: str, shade: int) -> None:
    dana = desk.agent("dana")
    open_conversation(dana, "Omar")
    product = desk.product
    customer_sends(product, "omar", "document", PDF + unique.encode(), "application/pdf", "فاتورة.pdf",
                   caption=f"the invoice {unique}")  # fmt: skip
    document = shown(dana, f"the invoice {unique}")
    expect(document).to_have_attribute("data-state", "stored", timeout=30_000)
    assert saved(dana, document) == ("فاتورة.pdf", PDF + unique.encode())

    before = dana.get_by_test_id("media").count()
    customer_sends(product, "omar", "audio", wave(), "audio/wav", "v.wav", voice=True)
    expect(dana.get_by_test_id("media")).to_have_count(before + 1)
    sound = dana.get_by_test_id("media").last
    expect(sound).to_have_attribute("data-kind", "audio")
    play = sound.get_by_role("button", name="Play")
    play.click()
    expect(sound).to_have_attribute("data-state", "shown")
    expect(sound.get_by_role("button", name=re.compile("Speed"))).to_be_visible()
    assert audit(dana) == []
    row = dana.get_by_test_id("conversation-row").filter(has_text="Omar")
    expect(row).to_contain_text("Audio")


def test_MSG_03_a_file_that_is_gone_says_so(desk: Desk, unique: str, shade: int) -> None:
    """The provider gave it up before the hub had it: the bubble stands and says what became of the file."""
    desk.product.sandbox_post("/_ctl/fault", {"fault": "media_expired", "next": 50})
    try:
        dana = desk.agent("dana")
        open_conversation(dana, "Omar")
        customer_sends(desk.product, "omar", "image", picture(shade=shade), "image/png", "x.png",
                       caption=f"too late {unique}")  # fmt: skip
        lost = shown(dana, f"too late {unique}")
        expect(lost).to_have_attribute("data-state", "expired", timeout=60_000)
        expect(lost).to_contain_text("The channel does not have this file any more.")
        assert audit(dana) == []
    finally:
        request = urllib.request.Request(f"{desk.product.sandbox}/_ctl/fault", method="DELETE")
        urllib.request.urlopen(request, timeout=10).close()


# ---- templates ---------------------------------------------------------------------------------------


def test_CHAN_2_a_template_reaches_a_customer_outside_the_window(desk: Desk, unique: str) -> None:
    """Text is refused there and offers a template; the template is filled in, seen beforehand, and
    arrives."""
    desk.product.change(
        "update conversations c set last_inbound_at = now() - interval '25 hours'"
        " from contacts k where k.id = c.contact_id and k.first_name = 'James'"
    )
    dana, james = desk.agent("dana"), desk.customer("james")
    open_conversation(dana, "James")
    notice = dana.get_by_role("note")
    expect(notice).to_contain_text("older than 24 hours")
    # The provider keeps the window by its own clock.
    closed = {"fault": "error", "persona": "james", "next": 1, "params": {"code": 131047}}
    desk.product.sandbox_post("/_ctl/fault", closed)
    write(dana, f"are you there {unique}")
    failed = bubble(dana, f"are you there {unique}")
    expect(failed).to_have_attribute("data-status", "FAILED", timeout=30_000)
    failed.get_by_role("button", name="Choose a template").click()
    dialog = dana.get_by_role("dialog")
    dialog.get_by_label("Search templates").fill("order")
    expect(dialog.get_by_test_id("template")).to_have_count(2)
    dialog.get_by_test_id("template").filter(has_text="Hello").click()
    send = dialog.get_by_role("button", name="Send template")
    expect(send).to_be_disabled()
    dialog.get_by_label("Blank 1").fill("James")
    dialog.get_by_label("Blank 2").fill(unique)
    preview = dialog.get_by_test_id("template-preview")
    expect(preview).to_contain_text(f"Hello James, your order {unique} is on its way.")
    assert audit(dana) == []
    dana.keyboard.press("Enter")
    expect(dialog).to_have_count(0)
    said = f"Hello James, your order {unique} is on its way."
    expect(bubble(dana, said)).to_have_attribute("data-status", ON_ITS_WAY, timeout=30_000)
    expect(phone_bubble(james, said)).to_be_visible()


def test_CHAN_2_without_templates_the_picker_teaches(desk: Desk) -> None:
    dana = desk.agent("dana")
    dana.route("**/rest/v1/templates?category=neq*", lambda route: route.fulfill(json=[]))
    open_conversation(dana, "Omar")
    dana.get_by_role("button", name="Choose a template").click()
    expect(dana.get_by_text("There is no approved template yet")).to_be_visible()
    expect(dana.get_by_text("WhatsApp Manager")).to_be_visible()
    assert audit(dana) == []


# ---- notes -------------------------------------------------------------------------------------------


def test_a_note_stands_in_the_thread_and_never_goes_out(desk: Desk, unique: str) -> None:
    dana, karim = desk.agent("dana"), desk.agent("karim")
    for page in (dana, karim):
        open_conversation(page, "Omar")
    dana.get_by_role("button", name="Note", exact=True).click()
    expect(dana.get_by_text("Omar Farouk does not see notes.")).to_be_visible()
    # It stays a note over a reload, with its text.
    composer(dana).fill(f"ask the boss first {unique}")
    dana.reload()
    expect(dana.get_by_role("button", name="Note", exact=True)).to_have_attribute("aria-pressed", "true")
    expect(composer(dana)).to_have_value(f"ask the boss first {unique}")
    assert audit(dana) == []
    composer(dana).press("Enter")
    said = f"ask the boss first {unique}"
    expect(dana.get_by_test_id("thread-note").filter(has_text=said)).to_be_visible()
    note = karim.get_by_test_id("thread-note").filter(has_text=said)
    jump = karim.get_by_role("button", name="Jump to latest")
    expect(note.or_(jump).first).to_be_visible()
    if not note.is_visible():  # he reads further up, and stays there
        jump.click()
    expect(note).to_be_visible()
    expect(composer(dana)).to_have_value("")
    dana.get_by_role("button", name="Reply", exact=True).click()
    write(dana, f"out it goes {unique}")
    until(lambda: desk.product.received(f"out it goes {unique}") == 1, "the reply")
    assert desk.product.received(f"ask the boss first {unique}") == 0


# ---- fingers and notices -----------------------------------------------------------------------------


def test_several_conversations_are_picked_by_touch(desk: Desk) -> None:
    """A finger that stays on a row picks it, taps pick the next, and a button begins without holding."""
    desk.touch = True
    dana = desk.agent("dana", width=360)
    rows = dana.get_by_test_id("conversation-row")
    session = dana.context.new_cdp_session(dana)

    def press(row: Locator, held: bool) -> None:
        box = row.bounding_box()
        assert box is not None
        point = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
        session.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [point]})
        if held:
            expect(dana.get_by_test_id("selection-bar")).to_be_visible()
        session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})

    press(rows.nth(0), held=True)
    expect(dana.get_by_text("1 selected")).to_be_visible()
    press(rows.nth(1), held=False)
    expect(dana.get_by_text("2 selected")).to_be_visible()
    press(rows.nth(1), held=False)
    expect(dana.get_by_text("1 selected")).to_be_visible()
    assert "/inbox/" not in dana.url
    assert audit(dana) == []
    dana.get_by_role("button", name="Clear selection").tap()
    expect(dana.get_by_test_id("selection-bar")).to_have_count(0)

    dana.get_by_role("button", name="Select several conversations").tap()
    expect(dana.get_by_text("0 selected")).to_be_visible()
    expect(dana.get_by_role("button", name="Close all")).to_be_disabled()
    press(rows.nth(2), held=False)
    expect(dana.get_by_text("1 selected")).to_be_visible()
    dana.get_by_role("button", name="Clear selection").tap()
    press(rows.nth(0), held=False)
    dana.get_by_test_id("thread").wait_for()


RECORD = """(() => {
  window.told = [];
  class Told extends EventTarget {
    static permission = 'granted';
    static async requestPermission() { return 'granted'; }
    constructor(title, options) {
      super();
      window.told.push({ title, ...options, closed: false, one: this });
    }
    close() { window.told.find((each) => each.one === this).closed = true; }
  }
  window.Notification = Told;
  window.away = false;
  document.hasFocus = () => !window.away;
})()"""


def test_desktop_notices_are_asked_for_and_go_when_read(desk: Desk, unique: str) -> None:
    desk.product.assign("Omar", "Dana")
    desk.product.assign("ليلى", "يارا")
    dana = desk.agent("dana", "/settings/appearance")
    dana.context.add_init_script(RECORD)
    dana.reload()
    switch = dana.get_by_role("switch", name="Desktop notices")
    expect(switch).not_to_be_checked()
    switch.check(force=True)
    assert audit(dana) == []
    dana.goto(f"{desk.product.url}/inbox")
    open_conversation(dana, "Omar")
    link_says(dana, "Live")

    def told() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = dana.evaluate(
            "window.told.map(({ title, body, closed }) => ({ title, body, closed }))"
        )
        return found

    desk.product.says("nour", f"seen at once {unique}")
    desk.product.says("omar", f"seen at once {unique}")
    expect(bubble(dana, f"seen at once {unique}")).to_be_visible()
    assert told() == []
    dana.evaluate("window.away = true; window.dispatchEvent(new Event('blur'))")
    desk.product.says("omar", f"while away {unique}")
    until(lambda: len(told()) == 1, "the notice")
    assert told() == [{"title": "Omar Farouk", "body": f"while away {unique}", "closed": False}]
    # Layla is a colleague's.
    desk.product.says("layla", f"not hers {unique}")
    expect(dana.get_by_test_id("conversation-row").filter(has_text=f"not hers {unique}")).to_be_visible()
    assert len(told()) == 1
    dana.evaluate("window.away = false; window.dispatchEvent(new Event('focus'))")
    until(lambda: told()[0]["closed"], "the notice gone")


# ---- looks -------------------------------------------------------------------------------------------

MORE = {"en": "More to send", "ar": "المزيد للإرسال"}
LOOKS = {
    "en": ("Note", "Choose a template", "Remove broken.gif"),
    "ar": ("ملاحظة", "اختيار قالب", "إزالة broken.gif"),
}


@pytest.mark.parametrize("width", [1280, 768, 360])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("language", ["en", "ar"])
def test_MSG_03_looks(desk: Desk, language: str, scheme: str, width: int) -> None:
    """Tray, bubbles, lightbox, picker and note in each language, scheme and width, kept to be looked at."""
    mark = f"{language}-{scheme}-{width}"
    note, choose, remove = LOOKS[language]
    troubles: list[str] = []
    page = desk.agent("dana", width=width, language=language, scheme=scheme)
    open_conversation(page, "Omar")
    give(page, ("sofa.png", "image/png", picture()), ("broken.gif", "image/gif", b"GIF89a;"))
    page.get_by_test_id("tray-file").nth(1).wait_for()
    troubles += keep(page, f"tray-{mark}")
    page.get_by_role("button", name=remove).click()
    unique = uuid4().hex[:8]
    write(page, f"sofa {unique}")
    expect(shown(page, f"sofa {unique}")).to_have_attribute("data-state", "shown")
    customer_sends(desk.product, "omar", "document", PDF, "application/pdf", "عرض سعر.pdf", caption=unique)
    expect(shown(page, unique)).to_have_attribute("data-state", "stored", timeout=30_000)
    troubles += keep(page, f"media-{mark}")
    shown(page, f"sofa {unique}").get_by_role("button").click()
    until(lambda: is_drawn(page.get_by_test_id("lightbox").locator("img")), "the picture")
    troubles += keep(page, f"lightbox-{mark}")
    page.keyboard.press("Escape")
    page.get_by_test_id("lightbox").wait_for(state="detached")

    more = page.locator(f'button[aria-label="{MORE[language]}"]')
    if more.is_visible():
        more.click()
        page.get_by_role("menuitem", name=choose).click()
    else:
        page.get_by_role("button", name=choose).first.click()
    page.get_by_test_id("template").filter(has_text="{{1}}").first.click()
    page.get_by_test_id("template-preview").wait_for()
    troubles += keep(page, f"template-{mark}")
    page.keyboard.press("Escape")
    page.get_by_role("dialog").wait_for(state="detached")
    page.get_by_role("button", name=note, exact=True).click()
    write(page, f"note {unique}")
    page.get_by_test_id("thread-note").filter(has_text=unique).wait_for()
    troubles += keep(page, f"note-{mark}")
    assert troubles == []
