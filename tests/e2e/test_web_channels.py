"""Deliveries that could not be applied, on the page of channels: who sees them, and what it says."""

from __future__ import annotations

import json
import urllib.request
from uuid import uuid4

import pytest
from playwright.sync_api import Page, expect

from hub.channels.signing import meta_signature
from tests.e2e.test_web_deeds import rows
from tests.e2e.test_web_matrix import keep
from tests.e2e.web import Desk, Product

TEXTS = {
    "en": ("Deliveries that could not be applied", "Its body is not readable JSON.", "Tries: ", "Details"),
    "ar": ("إشعارات تعذّر تطبيقها", "محتواه ليس JSON مقروءًا.", "المحاولات: ", "التفاصيل"),
}


def deliver_undecodable(product: Product, account: str) -> None:
    """What the provider signed, for this account, and nobody can read; no two are the same."""
    found = json.loads((product.data / "runtime.json").read_text(encoding="utf-8"))
    body = f'{{"entry": <b>{uuid4().hex}</b>'.encode()
    request = urllib.request.Request(
        f"{product.url}/functions/v1/whatsapp-cloud-webhook?channel_account_id={account}",
        body,
        {
            "Content-Type": "application/json",
            "X-Hub-Signature-256": meta_signature(found["environment"]["META_APP_SECRET"], body),
        },
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.status == 200


def channels_entry(page: Page) -> str:
    """The settings navigation's line for the page of channels, as it is read out."""
    found: str = page.locator('nav a[href="/settings/channels"]').inner_text()
    return found


@pytest.mark.parametrize(("language", "width"), [("en", 1280), ("ar", 360)])
def test_a_delivery_that_could_not_be_applied_is_shown(desk: Desk, language: str, width: int) -> None:
    account = rows(desk.product, "channel_accounts", type="eq.WHATSAPP_CLOUD", order="name")[0]
    deliver_undecodable(desk.product, account["id"])
    heading, reason, tries, details = TEXTS[language]

    dana = desk.agent("dana", "/settings/channels", language=language, width=width)
    section = dana.get_by_role("region", name=heading)
    newest = section.get_by_test_id("failure").first
    expect(newest).to_contain_text(account["name"])
    expect(newest).to_contain_text(reason)
    expect(newest).to_contain_text(tries)
    expect(newest.get_by_text("undecodable")).to_be_hidden()
    newest.get_by_text(details, exact=True).click()
    expect(newest.get_by_text("undecodable")).to_be_visible()
    expect(newest.get_by_text("JSON is malformed")).to_be_visible()
    times = section.locator("time").evaluate_all("all => all.map((one) => one.dateTime)")
    assert times == sorted(times, reverse=True)
    section.scroll_into_view_if_needed()
    assert keep(dana, f"failures-{language}-{width}") == []

    dana.goto(f"{desk.product.url}/settings")
    badge = dana.locator('nav a[href="/settings/channels"]').get_by_text(str(len(times)), exact=True)
    expect(badge).to_be_visible()
    assert keep(dana, f"failures-badge-{language}-{width}") == []


def test_agents_are_neither_shown_nor_refused_them(desk: Desk) -> None:
    account = rows(desk.product, "channel_accounts", type="eq.WHATSAPP_CLOUD", order="name")[0]
    deliver_undecodable(desk.product, account["id"])
    adam = desk.agent("adam")
    asked: list[str] = []
    adam.on("request", lambda request: asked.append(request.url))
    adam.locator('a[href="/settings"]').first.click()
    adam.locator('nav a[href="/settings/channels"]').click()
    expect(adam.get_by_text(account["name"]).first).to_be_visible()
    expect(adam.get_by_test_id("failures")).to_have_count(0)
    assert channels_entry(adam) == "Channels"
    assert not [url for url in asked if "webhook-failures" in url]


def test_with_none_the_page_says_so_in_a_sentence(desk: Desk) -> None:
    dana = desk.agent("dana")
    dana.route(
        "**/functions/v1/webhook-failures?*", lambda route: route.fulfill(json={"failures": [], "count": 0})
    )
    dana.goto(f"{desk.product.url}/settings/channels")
    section = dana.get_by_test_id("failures")
    expect(section.get_by_text("There are none at the moment.", exact=True)).to_be_visible()
    assert channels_entry(dana) == "Channels"
    assert keep(dana, "failures-none") == []
