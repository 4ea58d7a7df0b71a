"""The WhatsApp Cloud adapter: every row of the provider's message table, odd bodies, and what we send."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hub.channels.protocol import (
    Inbound,
    Outbound,
    ProviderEnv,
    RequestDescription,
    ResponseFacts,
    StatusUpdate,
    UnknownEvent,
    Unrenderable,
)
from hub.channels.registry import ADAPTERS, adapter_for, adapter_for_webhook
from hub.channels.signing import appsecret_proof, meta_signature
from hub.channels.whatsapp_cloud import (
    MediaLocation,
    WhatsAppCloud,
    parse,
    read_media_lookup,
    render,
    render_media_download,
    render_media_lookup,
    render_read_mark,
)
from tests.fakes.whatsapp import pywa_client, pywa_reads

PAYLOADS = {
    path.stem: json.loads(path.read_text())
    for path in sorted((Path(__file__).parent.parent / "payloads" / "whatsapp_cloud").glob("*.json"))
}
ACCOUNT = {"access_token": "EAAtoken", "phone_number_id": "1099", "other": {"ignored": True}}
ENV = ProviderEnv(graph_base="http://127.0.0.1:1/graph/")
TO = (("wa_id", "201001383533"), ("wa_bsuid", "EG.3141"))


def body_of(name: str) -> bytes:
    return json.dumps(PAYLOADS[name]["webhook"]).encode()


def text_webhook(**changes: Any) -> dict[str, Any]:
    """A fresh copy of the text sample, with changes to its message."""
    webhook: dict[str, Any] = json.loads(body_of("text"))
    webhook["entry"][0]["changes"][0]["value"]["messages"][0].update(changes)
    return webhook


def strings(value: Any) -> list[str]:
    """Every string anywhere in JSON-like data."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [s for k, v in value.items() for s in (*strings(k), *strings(v))]
    if isinstance(value, list | tuple):
        return [s for v in value for s in strings(v)]
    return []


@pytest.mark.parametrize("name", PAYLOADS)
def test_parse_gives_the_expected_events(name: str) -> None:
    events = parse(body_of(name))
    expected = PAYLOADS[name]["events"]
    assert len(events) == len(expected)
    for event, wanted in zip(events, expected, strict=True):
        got = msgspec.json.decode(msgspec.json.encode(event))
        assert {key: got[key] for key in wanted} == wanted


@pytest.mark.parametrize("name", PAYLOADS)
def test_parse_is_the_same_for_the_providers_spelling_of_json(name: str) -> None:
    """Meta escapes non-ASCII and slashes; we must not care."""
    plain = json.dumps(PAYLOADS[name]["webhook"], ensure_ascii=False).encode()
    escaped = body_of(name).replace(b"/", b"\\/")
    differing = [
        (one, two)
        for one, two in zip(parse(plain), parse(escaped), strict=True)
        if not isinstance(one, UnknownEvent) and one != two
    ]
    assert differing == []


@pytest.mark.parametrize(
    "body", [b"", b"{", b'{"object":"whatsapp', b"\xff\xfe", b'{"object":"\xff"}', b"nope"]
)
def test_parse_raises_decode_error_for_what_is_not_json(body: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        parse(body)


@pytest.mark.parametrize("body", [b"[]", b"1", b"null", b'"x"', b"{}", b'{"entry":5}', b'{"object":{}}'])
def test_parse_calls_other_json_unknown(body: bytes) -> None:
    assert [type(event) for event in parse(body)] == [UnknownEvent]


def test_I10_nesting_bombs_are_refused_without_a_crash() -> None:
    bomb = b"[" * 200_000 + b"]" * 200_000
    for body in (bomb, b'{"object":"whatsapp_business_account","entry":' + bomb + b"}"):
        assert [type(event) for event in parse(body)] == [UnknownEvent]
    whole = body_of("text").replace(b'"text": {"body": "Hi"}', b'"text":{"body":"Hi"},"extra":' + bomb)
    with pytest.raises(msgspec.DecodeError):
        parse(whole)


def test_I06_NUL_becomes_a_replacement_character() -> None:
    [event] = parse(json.dumps(text_webhook(text={"body": "a\0b \\u0000 c"}, id="wamid.\0")).encode())
    assert isinstance(event, Inbound)
    assert event.content == "a�b \\u0000 c"
    assert event.provider_message_id == "wamid.�"


def test_lone_surrogates_become_replacement_characters() -> None:
    body = body_of("text").replace(b'"Hi"', rb'"x \ud83d y \udc00 z \ud83d\udc4d"')
    [event] = parse(body)
    assert isinstance(event, Inbound)
    assert event.content == "x � y � z 👍"


@pytest.mark.parametrize("stamp", ["", "soon", "-5", "1e400", "nan", 0, "99999999999999999999", None])
def test_nonsense_timestamps_are_none(stamp: Any) -> None:
    [event] = parse(json.dumps(text_webhook(timestamp=stamp)).encode())
    assert isinstance(event, Inbound)
    assert event.occurred_at is None


def test_same_wamid_twice_in_a_batch_has_one_dedupe_key() -> None:
    webhook = text_webhook()
    messages = webhook["entry"][0]["changes"][0]["value"]["messages"]
    messages.append(messages[0])
    first, second = parse(json.dumps(webhook).encode())
    assert isinstance(first, Inbound)
    assert isinstance(second, Inbound)
    assert first.dedupe_key == second.dedupe_key


def test_a_contact_is_never_taken_from_a_neighbour() -> None:
    webhook = text_webhook()
    webhook["entry"][0]["changes"][0]["value"]["contacts"][0].update(wa_id="447700900999", user_id="GB.9")
    [event] = parse(json.dumps(webhook).encode())
    assert isinstance(event, Inbound)
    assert event.name is None
    assert ("wa_bsuid", "GB.9") not in event.identities


SAMPLES = [payload["webhook"] for payload in PAYLOADS.values()]
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of everything inside."""
    found = [at] if at else []
    if isinstance(value, dict):
        for key, inner in value.items():
            found += places(inner, (*at, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            found += places(inner, (*at, index))
    return found


@st.composite
def mutated(draw: st.DrawFn) -> dict[str, Any]:
    """A real body with some parts dropped or replaced by anything."""
    body: dict[str, Any] = json.loads(json.dumps(draw(st.sampled_from(SAMPLES))))
    for _ in range(draw(st.integers(1, 4))):
        options = places(body)
        if not options:
            break
        *path, last = draw(st.sampled_from(options))
        parent: Any = body
        for step in path:
            parent = parent[step]
        if draw(st.booleans()):
            parent[last] = draw(JSON_VALUES)
        else:
            del parent[last]
    return body


@settings(max_examples=400, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(mutated())
def test_I10_parse_never_raises_on_mutated_bodies(body: dict[str, Any]) -> None:
    events = parse(json.dumps(body).encode())
    for event in events:
        msgspec.json.encode(event)
        if isinstance(event, Inbound | StatusUpdate):
            found = strings(msgspec.to_builtins(event))
            assert not any("\0" in text for text in found)
            "".join(found).encode()
        if isinstance(event, Inbound) and event.kind in ("message", "echo", "reaction", "edit", "delete"):
            assert event.identities
            assert event.conversation_key == event.identities[0][1]


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.binary(max_size=200), st.integers(0, 400), st.integers(0, 400))
def test_I10_parse_survives_damaged_bytes(noise: bytes, start: int, end: int) -> None:
    body = body_of("batch")
    damaged = body[:start] + noise + body[max(start, end) :]
    with contextlib.suppress(msgspec.DecodeError):
        parse(damaged)


def sent(outbound: Outbound, **account: Any) -> dict[str, Any]:
    request = render(outbound, {**ACCOUNT, **account}, ENV)
    body: dict[str, Any] = json.loads(request.body)
    return body


def message(message_type: str = "text", content: str = "Hello", **metadata: Any) -> Outbound:
    return Outbound.from_message(
        message_id="0198-uuid", to=TO, message_type=message_type, content=content, metadata=metadata
    )


def test_render_text() -> None:
    request = render(message(), ACCOUNT, ENV)
    assert request.method == "POST"
    assert request.url == "http://127.0.0.1:1/graph/v25.0/1099/messages"
    assert request.headers["Authorization"] == "Bearer EAAtoken"
    assert json.loads(request.body) == {
        "messaging_product": "whatsapp",
        "recipient_type": "individual",
        "to": "201001383533",
        "type": "text",
        "text": {"body": "Hello", "preview_url": True},
        "biz_opaque_callback_data": "0198-uuid",
    }
    assert "EAAtoken" not in repr(request)


def test_render_uses_the_accounts_version_and_the_operators_app_secret() -> None:
    env = ProviderEnv(app_secret="app_secret_1")
    request = render(message(), {**ACCOUNT, "graph_version": "v26.0"}, env)
    proof = appsecret_proof("app_secret_1", "EAAtoken")
    assert request.url == f"https://graph.facebook.com/v26.0/1099/messages?appsecret_proof={proof}"


def test_render_to_a_customer_without_a_phone() -> None:
    body = sent(msgspec.structs.replace(message(), to=(("wa_bsuid", "EG.3141"),)))
    assert body["recipient"] == "EG.3141"
    assert "to" not in body


def test_render_to_a_plain_phone_number() -> None:
    assert sent(msgspec.structs.replace(message(), to=(("phone_e164", "+201001"),)))["to"] == "201001"


def test_render_reply_quotes() -> None:
    assert sent(msgspec.structs.replace(message(), reply_to="wamid.X"))["context"] == {
        "message_id": "wamid.X"
    }


BUTTONS = [{"id": "b1", "title": "Yes"}, {"id": "b2", "title": "No"}]
MENU = {
    "button": "Menu",
    "sections": [{"title": "S", "rows": [{"id": "r1", "title": "Blue", "description": "d"}]}],
}


@pytest.mark.parametrize(
    ("outbound", "kind", "part"),
    [
        (
            message("image", "shop", media={"kind": "image", "link": "https://cdn.example/a.jpg"}),
            "image",
            {"link": "https://cdn.example/a.jpg", "caption": "shop"},
        ),
        (
            message("document", "", media=[{"kind": "document", "id": "901", "filename": "a.pdf"}]),
            "document",
            {"id": "901", "filename": "a.pdf"},
        ),
        (
            message("audio", "ignored", media={"kind": "audio", "id": "902", "voice": True}),
            "audio",
            {"id": "902", "voice": True},
        ),
        (
            message("location", "", location={"latitude": 30.04, "longitude": 31.23, "name": "Shop"}),
            "location",
            {"latitude": 30.04, "longitude": 31.23, "name": "Shop"},
        ),
        (
            message("contact", "", contacts=[{"name": {"formatted_name": "A"}}]),
            "contacts",
            [{"name": {"formatted_name": "A"}}],
        ),
        (
            message("reaction", "", reaction={"message_id": "wamid.X", "emoji": "👍"}),
            "reaction",
            {"message_id": "wamid.X", "emoji": "👍"},
        ),
        (
            message("text", "Sure?", buttons=BUTTONS, header="H", footer="F"),
            "interactive",
            {
                "type": "button",
                "header": {"type": "text", "text": "H"},
                "body": {"text": "Sure?"},
                "footer": {"text": "F"},
                "action": {"buttons": [{"type": "reply", "reply": button} for button in BUTTONS]},
            },
        ),
        (
            message("text", "Which?", list=MENU),
            "interactive",
            {"type": "list", "body": {"text": "Which?"}, "action": MENU},
        ),
        (
            message("text", "See", link={"text": "Open", "url": "https://shop.example"}),
            "interactive",
            {
                "type": "cta_url",
                "body": {"text": "See"},
                "action": {
                    "name": "cta_url",
                    "parameters": {"display_text": "Open", "url": "https://shop.example"},
                },
            },
        ),
        (
            message("text", "", template={"name": "welcome", "language": "ar", "variables": ["User One"]}),
            "template",
            {
                "name": "welcome",
                "language": {"code": "ar"},
                "components": [{"type": "body", "parameters": [{"type": "text", "text": "User One"}]}],
            },
        ),
        (
            message("text", "", template={"name": "welcome", "variables": {"name": "User One"}}),
            "template",
            {
                "name": "welcome",
                "language": {"code": "en_US"},
                "components": [
                    {
                        "type": "body",
                        "parameters": [{"type": "text", "parameter_name": "name", "text": "User One"}],
                    }
                ],
            },
        ),
    ],
)
def test_render_each_type(outbound: Outbound, kind: str, part: Any) -> None:
    body = sent(outbound)
    assert body["type"] == kind
    assert body[kind] == part


@pytest.mark.parametrize(
    "outbound",
    [
        message(content=""),
        message(content="x" * 4097),
        message("image", "x" * 1025, media={"kind": "image", "id": "1"}),
        message("image", "", media={"kind": "image"}),
        message("image", "", media={"kind": "image", "id": "1", "link": "https://x.example"}),
        message("image", "caption only"),
        message("text", "Sure?", buttons=[{"id": f"{n}", "title": "T"} for n in range(4)]),
        message("text", "Sure?", buttons=[{"id": "1", "title": "x" * 21}]),
        message("text", "Sure?", buttons=[{"id": "1", "title": "A"}, {"id": "1", "title": "B"}]),
        message("text", "Which?", list={"button": "Menu", "sections": []}),
        msgspec.structs.replace(message(), to=(("psid", "7"),)),
        msgspec.structs.replace(message(), to=()),
    ],
)
def test_render_refuses_what_the_provider_would(outbound: Outbound) -> None:
    with pytest.raises(Unrenderable):
        sent(outbound)


def test_render_refuses_settings_without_a_token() -> None:
    with pytest.raises(Unrenderable, match="access_token"):
        render(message(), {"phone_number_id": "1"}, ENV)


def test_metadata_of_the_wrong_shape_is_unrenderable() -> None:
    with pytest.raises(Unrenderable, match="buttons"):
        message(buttons="two")


def test_metadata_of_ours_is_ignored() -> None:
    assert sent(message("text", "Hello", campaign="x", rule={"id": 1}))["text"]["body"] == "Hello"


def test_render_read_mark_and_typing() -> None:
    request = render_read_mark("wamid.I", ACCOUNT, ENV, typing=True)
    assert json.loads(request.body) == {
        "messaging_product": "whatsapp",
        "status": "read",
        "message_id": "wamid.I",
        "typing_indicator": {"type": "text"},
    }


def test_media_lookup_and_download() -> None:
    lookup = render_media_lookup("90/1", ACCOUNT, ENV)
    assert lookup.url == "http://127.0.0.1:1/graph/v25.0/90%2F1?phone_number_id=1099"
    answer = b'{"messaging_product":"whatsapp","url":"https://l.example/a","mime_type":"image/png","file_size":"3"}'
    found = read_media_lookup(ResponseFacts(status=200, headers={}, body=answer))
    assert isinstance(found, MediaLocation)
    download: RequestDescription = render_media_download(found.url, ACCOUNT)
    assert download.headers == {"Authorization": "Bearer EAAtoken"}


ADAPTER = WhatsAppCloud()


def test_verify_wants_one_signature_over_the_raw_bytes() -> None:
    body, secrets = body_of("text"), ["old", "app_secret_1"]
    good = meta_signature("app_secret_1", body)
    assert ADAPTER.verify({"X-Hub-Signature-256": good}, body, secrets)
    assert ADAPTER.verify({"x-hub-signature-256": good}, body, secrets)
    assert not ADAPTER.verify({"X-Hub-Signature-256": good}, body + b" ", secrets)
    assert not ADAPTER.verify({"X-Hub-Signature-256": good}, body, [])
    assert not ADAPTER.verify({"X-Hub-Signature": good}, body, secrets)
    assert not ADAPTER.verify({"X-Hub-Signature-256": good, "x-hub-signature-256": good}, body, secrets)


def test_handshake_echoes_the_challenge_only_for_a_known_token() -> None:
    query = {"hub.mode": "subscribe", "hub.challenge": "1158201444", "hub.verify_token": "vt"}
    assert ADAPTER.handshake(query, ["other", "vt"]) == "1158201444"
    assert ADAPTER.handshake(query, ["other"]) is None
    assert ADAPTER.handshake(query, []) is None
    assert ADAPTER.handshake({**query, "hub.verify_token": ""}, [""]) is None
    assert ADAPTER.handshake({**query, "hub.mode": "unsubscribe"}, ["vt"]) is None


def test_registry_finds_adapters() -> None:
    assert adapter_for("WHATSAPP_CLOUD") is adapter_for("WHATSAPP_BUSINESS") is ADAPTERS["WHATSAPP_CLOUD"]
    assert adapter_for("CARRIER_PIGEON") is None
    assert adapter_for_webhook("whatsapp-cloud-webhook") is ADAPTERS["WHATSAPP_CLOUD"]


@pytest.mark.parametrize("name", [name for name, payload in PAYLOADS.items() if "pywa" in payload])
def test_the_samples_are_what_a_third_party_parser_expects(name: str) -> None:
    """So that a mistake in our samples is found by code we did not write."""
    wa = pywa_client()
    read = pywa_reads(wa)
    assert wa.webhook_update_handler(body_of(name)) == ("ok", 200)
    assert [type(update).__name__ for update in read] == [PAYLOADS[name]["pywa"]]


def test_I10_bytes_that_stay_unreadable_after_their_repair_are_a_decode_error() -> None:
    """Found by fuzzing: half a surrogate, which is repaired, beside bytes that are no UTF-8."""
    with pytest.raises(msgspec.DecodeError):
        parse(b'{"object":"\x8a\\udcdd"')
