"""pywa, which we did not write, sends through the sandbox and parses every webhook that the sandbox emits."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pywa
from pywa import types
from pywa.errors import WhatsAppError
from pywa.types.templates import BodyText, Template, TemplateCategory, TemplateLanguage

from hub.sandbox.journal import Sent, read_records
from tests.factories import until
from tests.fakes.whatsapp import Receiver, Sandbox, in_thread, pywa_client, pywa_reads, running_sandbox

LAYLA = "201001383533"


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    await receiver.start()
    yield receiver
    await receiver.stop()


@pytest.fixture
async def sandbox(tmp_path: Path, receiver: Receiver) -> AsyncIterator[Sandbox]:
    async with running_sandbox(tmp_path, receiver.url) as sandbox:
        yield sandbox


@pytest.fixture
def wa(sandbox: Sandbox) -> Iterator[pywa.WhatsApp]:
    client = pywa_client(sandbox.url)
    yield client
    client.api._session.close()


def sent_types(sandbox: Sandbox) -> list[str]:
    records = read_records(sandbox.config.folder / "ledger.jsonl")
    return [record.type for record in records if isinstance(record, Sent)]


async def read_all(wa: pywa.WhatsApp, receiver: Receiver) -> list[Any]:
    """What pywa makes of everything received, each signature checked by pywa too."""
    read = pywa_reads(wa)
    for body, signature in zip(receiver.bodies, receiver.signatures, strict=True):
        assert wa.webhook_update_validator(body, signature) is None
        before = len(read)
        assert wa.webhook_update_handler(body) == ("ok", 200)
        assert len(read) == before + 1, body
    return read


async def test_pywa_sends_every_type(sandbox: Sandbox, wa: pywa.WhatsApp) -> None:
    await sandbox.say()
    first = await in_thread(wa.send_message, LAYLA, "Hello", tracker="our-id")
    await in_thread(wa.send_message, LAYLA, "Quoted", reply_to_message_id=first.id)
    await in_thread(
        wa.send_message, LAYLA, "Sure?", buttons=[types.Button("Yes", "b1"), types.Button("No", "b2")]
    )
    rows = [types.SectionRow(title="Blue", callback_data="r1")]
    menu = types.SectionList(button_title="Menu", sections=[types.Section(title="S", rows=rows)])
    await in_thread(wa.send_message, LAYLA, "Which?", buttons=menu)
    link = types.URLButton(title="Open", url="https://shop.example")
    await in_thread(wa.send_message, LAYLA, "See", buttons=link)
    await in_thread(wa.send_image, LAYLA, "https://cdn.example/a.jpg", caption="shop")
    await in_thread(wa.send_location, LAYLA, 30.04, 31.23, "Shop", "Cairo")
    await in_thread(wa.send_contact, LAYLA, types.Contact(name=types.Contact.Name("User Two", "User")))
    await in_thread(wa.send_reaction, LAYLA, "👍", first.id)
    assert sent_types(sandbox) == [
        "text",
        "text",
        "interactive",
        "interactive",
        "interactive",
        "image",
        "location",
        "contacts",
        "reaction",
    ]
    thread = await sandbox.thread()
    assert thread[2]["reply_to"] == first.id
    assert [message["content"] for message in thread[1:6]] == ["Hello", "Quoted", "Sure?", "Which?", "See"]


async def test_pywa_uploads_and_downloads_media(sandbox: Sandbox, wa: pywa.WhatsApp, tmp_path: Path) -> None:
    picture = tmp_path / "a.png"
    picture.write_bytes(b"\x89PNG-not-really")
    await in_thread(wa.send_image, LAYLA, picture, mime_type="image/png")
    [message] = await sandbox.thread()
    found = await in_thread(wa.get_media_url, message["message"]["image"]["id"])
    assert found.mime_type == "image/png"
    target = tmp_path / "downloads"
    target.mkdir()
    saved = await in_thread(wa.download_media, url=found.url, path=target, filename="b.png")
    assert await in_thread(Path(saved).read_bytes) == b"\x89PNG-not-really"


async def test_pywa_manages_templates(sandbox: Sandbox, wa: pywa.WhatsApp, receiver: Receiver) -> None:
    template = Template(
        name="welcome_1",
        language=TemplateLanguage.ENGLISH_US,
        category=TemplateCategory.UTILITY,
        components=[BodyText("Hello {{1}}, welcome.", "User One")],
    )
    created = await in_thread(wa.create_template, template)
    await sandbox.advance(11)
    await until(receiver.inbound)
    listed = await in_thread(lambda: list(wa.get_templates()))
    assert created.id in {row.id for row in listed}
    [update] = await read_all(wa, receiver)
    assert isinstance(update, types.TemplateStatusUpdate)
    assert update.template_name == "welcome_1"


async def test_pywa_understands_our_errors(sandbox: Sandbox, wa: pywa.WhatsApp) -> None:
    await sandbox.fault("throttle", params={"code": 131056})
    with pytest.raises(WhatsAppError) as caught:
        await in_thread(wa.send_message, LAYLA, "Hello")
    assert type(caught.value).__name__ == "TooManyMessages"


async def test_pywa_marks_read_and_types(sandbox: Sandbox, wa: pywa.WhatsApp) -> None:
    said = await sandbox.say()
    assert await in_thread(wa.indicate_typing, said)
    assert [message["state"] for message in await sandbox.thread()] == ["read"]


SAYS: list[tuple[str, dict[str, Any], str]] = [
    ("layla", {"type": "text", "text": "مرحبًا"}, "Message"),
    ("nour", {"type": "text", "text": "no phone"}, "Message"),
    ("layla", {"type": "location", "location": {"latitude": 30.04, "longitude": 31.23}}, "Message"),
    (
        "layla",
        {"type": "contacts", "contacts": [{"name": {"formatted_name": "A"}, "phones": []}]},
        "Message",
    ),
    ("layla", {"type": "reaction", "reaction": {"message_id": "wamid.X", "emoji": "👍"}}, "Message"),
    ("layla", {"type": "reaction", "reaction": {"message_id": "wamid.X", "emoji": ""}}, "Message"),
    (
        "layla",
        {
            "type": "interactive",
            "interactive": {"type": "button_reply", "button_reply": {"id": "b", "title": "Y"}},
            "context": {"id": "wamid.X"},
        },
        "CallbackButton",
    ),
    (
        "layla",
        {
            "type": "interactive",
            "interactive": {"type": "list_reply", "list_reply": {"id": "r", "title": "B"}},
            "context": {"id": "wamid.X"},
        },
        "CallbackSelection",
    ),
    (
        "layla",
        {"type": "button", "button": {"text": "Yes", "payload": "p"}, "context": {"id": "wamid.X"}},
        "CallbackButton",
    ),
    (
        "layla",
        {
            "type": "edit",
            "edit": {
                "original_message_id": "wamid.X",
                "message": {"id": "wamid.X", "type": "text", "text": {"body": "new"}},
            },
        },
        "EditedMessage",
    ),
    ("layla", {"type": "revoke", "revoke": {"original_message_id": "wamid.X"}}, "DeletedMessage"),
    ("layla", {"type": "unsupported"}, "Message"),
    (
        "layla",
        {"type": "system", "system": {"type": "user_changed_number", "body": "New", "wa_id": "201009999999"}},
        "PhoneNumberChange",
    ),
]


async def test_pywa_parses_everything_customers_say(
    sandbox: Sandbox, wa: pywa.WhatsApp, receiver: Receiver
) -> None:
    for persona, message, _ in SAYS:
        before = len(receiver.bodies)
        await sandbox.ctl("POST", "/inbound", {"persona": persona, "message": message})
        await until(lambda before=before: len(receiver.bodies) > before)
    read = await read_all(wa, receiver)
    assert [type(update).__name__ for update in read] == [expected for _, _, expected in SAYS]
    assert read[0].text == "مرحبًا"
    assert read[1].from_user.username == "nour.designs"
    assert read[1].from_user.wa_id is None


async def test_pywa_parses_every_receipt(sandbox: Sandbox, wa: pywa.WhatsApp, receiver: Receiver) -> None:
    good = await in_thread(wa.send_message, LAYLA, "Hello", tracker="our-id")
    await in_thread(wa.send_message, "962790000456", "Hello")
    await sandbox.advance(10)
    await until(lambda: len(receiver.bodies) == 4)
    read = await read_all(wa, receiver)
    assert {type(update).__name__ for update in read} == {"MessageStatus"}
    own = [update for update in read if update.id == good.id]
    assert [update.status.name for update in own] == ["SENT", "DELIVERED", "READ"]
    assert {update.tracker for update in own} == {"our-id"}
    [failed] = [update for update in read if update.id != good.id]
    assert failed.error.code == 131026
