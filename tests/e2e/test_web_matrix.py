"""Every page in both languages, both schemes and three widths, with screenshots to look at.

Each must pass axe, ask no foreign host, not scroll sideways and keep its bubbles on their side.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Page

from tests.e2e.web import Desk, audit, open_conversation, sideways

SHOTS = Path(__file__).resolve().parents[1] / "artifacts" / "web"
SETTINGS = ("profile", "appearance", "shortcuts", "channels", "team", "api")


def keep(page: Page, name: str) -> list[str]:
    """Takes the picture; what is wrong with the page as it stands."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / f"{name}.png")
    return [f"{name}: {trouble}" for trouble in (*audit(page), *sideways(page), *wrong_side(page))]


def wrong_side(page: Page) -> list[str]:
    """Bubbles stand on their side for the reading direction, and none reaches under the composer."""
    found: list[str] = page.evaluate(
        """() => {
          const thread = document.querySelector('[data-testid="thread"]');
          if (!thread) return [];
          const frame = thread.getBoundingClientRect();
          const rtl = document.documentElement.dir === 'rtl';
          const found = [];
          for (const row of thread.querySelectorAll('[data-testid="message"]')) {
            const box = row.firstElementChild.getBoundingClientRect();
            const left = box.left - frame.left, right = frame.right - box.right;
            const out = row.dataset.direction === 'OUTBOUND';
            if ((out !== rtl) ? right > left : left > right) {
              found.push(`wrong side: ${row.textContent.slice(0, 40)}`);
            }
          }
          const field = document.querySelector('[data-composer]');
          if (field?.getBoundingClientRect().top < frame.bottom) found.push('composer over the thread');
          return found;
        }"""
    )
    return found


@pytest.mark.parametrize("width", [1280, 768, 360])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("language", ["en", "ar"])
def test_pages(desk: Desk, language: str, scheme: str, width: int) -> None:
    mark = f"{language}-{scheme}-{width}"
    troubles: list[str] = []

    entrance = desk.page(width=width, language=language, scheme=scheme)
    entrance.goto(f"{desk.product.url}/sign-in")
    entrance.locator('button[type="submit"]').wait_for()
    troubles += keep(entrance, f"sign-in-{mark}")

    page = desk.agent("dana", width=width, language=language, scheme=scheme)
    assert page.evaluate("document.documentElement.dir") == ("rtl" if language == "ar" else "ltr")
    troubles += keep(page, f"inbox-{mark}")
    open_conversation(page, "ليلى")
    troubles += keep(page, f"thread-{mark}")

    if width == 1280:
        # What lies over the page has its own colours to get wrong.
        page.keyboard.press("a")
        page.get_by_role("menuitem").first.wait_for()
        troubles += keep(page, f"menu-{mark}")
        page.keyboard.press("Escape")
        page.get_by_role("menuitem").first.wait_for(state="detached")
        page.keyboard.press("Control+k")
        page.locator("input.mantine-Spotlight-search").wait_for()
        troubles += keep(page, f"palette-{mark}")
        page.keyboard.press("Escape")
        page.locator("input.mantine-Spotlight-search").wait_for(state="detached")
        page.keyboard.press("Shift+Slash")
        page.get_by_role("dialog").wait_for()
        troubles += keep(page, f"keys-{mark}")

    page.goto(f"{desk.product.url}/settings")
    page.get_by_role("link", name="API" if language == "en" else "الواجهة البرمجية").wait_for()
    troubles += keep(page, f"settings-{mark}")
    for one in SETTINGS:
        page.goto(f"{desk.product.url}/settings/{one}")
        page.locator("#main h2").first.wait_for()
        page.locator("#main .mantine-Skeleton-root").first.wait_for(state="detached")
        troubles += keep(page, f"settings-{one}-{mark}")

    phone = desk.page(width=width, language=language, scheme=scheme)
    phone.goto(desk.product.phone_url)
    phone.get_by_test_id("persona-layla").wait_for()
    troubles += keep(phone, f"phone-{mark}")
    phone.get_by_test_id("persona-layla").click()
    phone.get_by_role("textbox").wait_for()
    troubles += keep(phone, f"phone-layla-{mark}")

    assert troubles == []
