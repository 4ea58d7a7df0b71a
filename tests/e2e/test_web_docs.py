"""The page /docs in a browser: the hub's own description, shown by Swagger UI without any other host."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.e2e.web import Desk, sideways

SHOTS = Path(__file__).resolve().parents[1] / "artifacts" / "web"


@pytest.mark.parametrize("width", [1280, 360])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_description_is_shown_and_tried_out(desk: Desk, scheme: str, width: int) -> None:
    """Console errors and requests to others fail it (Watch), so its content security policy is enough."""
    with urllib.request.urlopen(f"{desk.product.url}/openapi.json", timeout=20) as answer:
        document = json.load(answer)
    SHOTS.mkdir(parents=True, exist_ok=True)
    tags = {
        tag for path in document["paths"].values() for operation in path.values() for tag in operation["tags"]
    }
    page = desk.page(width=width, scheme=scheme)
    page.goto(f"{desk.product.url}/docs")
    expect(page.get_by_role("heading", name="ConnectGain Hub")).to_be_visible(timeout=60_000)
    expect(page.locator(".opblock-tag")).to_have_count(len(tags))
    background = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    bright = sum(int(part) for part in background.strip("rgba()").split(",")[:3]) > 3 * 128
    assert (bright or background == "rgba(0, 0, 0, 0)") == (scheme == "light"), background
    page.screenshot(path=SHOTS / f"docs-{scheme}-{width}.png")
    assert sideways(page) == []

    page.locator("#operations-tag-contacts").click()
    read = page.locator(".opblock-get").filter(has_text="/rest/v1/contacts")
    read.locator(".opblock-summary-control").click()
    expect(read).to_contain_text("can_access_crm")
    page.screenshot(path=SHOTS / f"docs-read-{scheme}-{width}.png")
    assert sideways(page) == []
    read.locator(".opblock-summary-control").click()

    page.locator(".operation-filter-input").fill("process")
    expect(page.locator(".opblock-tag")).to_have_count(1)
    page.locator("#operations-tag-process").click()
    alive = page.locator(".opblock-get").filter(has_text="/healthz")
    alive.locator(".opblock-summary-control").click()
    alive.get_by_role("button", name="Try it out").click()
    alive.get_by_role("button", name="Execute").click()
    expect(alive.locator(".live-responses-table .response-col_status").last).to_contain_text("200")
    expect(alive.locator(".live-responses-table")).to_contain_text('"status": "ok"')
    page.screenshot(path=SHOTS / f"docs-tried-{scheme}-{width}.png")
    assert sideways(page) == []


def test_the_page_follows_the_apps_own_setting(desk: Desk) -> None:
    page = desk.page(scheme="light")
    page.goto(f"{desk.product.url}/docs")
    page.evaluate("localStorage.setItem('mantine-color-scheme-value', 'dark')")
    page.reload()
    expect(page.locator("html")).to_have_class("dark-mode")
