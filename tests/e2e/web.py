"""One whole product for browser tests: `hub run` on a folder of its own, a browser, and watched pages.

    product    the running instance; started once for all tests of a worker
    agent      opens an inbox as a member of the demo team
    customer   opens the phone page as one of the sandbox's customers

A watched page fails its test when something wrote an error to the console, threw, or asked another origin.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from hub.db.demo import TEAM
from hub.db.embedded import free_port
from tests.e2e.browser import PACKAGE, require_browser

START_S = 120.0
AXE = PACKAGE.parents[1] / "axe-core" / "axe.min.js"
RULES = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa")

expect.set_options(timeout=15_000)


@dataclass
class Product:
    """A running `hub run`."""

    url: str
    phone_url: str
    password: str
    data: Path
    process: subprocess.Popen[bytes]

    @property
    def sandbox(self) -> str:
        return self.phone_url.removesuffix("/phone")

    def sandbox_get(self, path: str) -> dict[str, Any]:
        with urllib.request.urlopen(self.sandbox + path, timeout=10) as answer:
            found: dict[str, Any] = json.load(answer)
        return found

    def sandbox_post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        request = urllib.request.Request(
            self.sandbox + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            found: dict[str, Any] = json.load(answer)
        return found

    def says(self, persona: str, text: str) -> None:
        """A customer writes without anybody watching their phone."""
        message = {"type": "text", "text": {"body": text}}
        body = {"channel": "WHATSAPP_CLOUD", "persona": persona, "message": message}
        self.sandbox_post("/_ctl/inbound", body)

    def in_database(self, work: Callable[[str], Coroutine[Any, Any, None]]) -> None:
        """Run `work` with the address of the instance's database, as its owner. In a thread: Playwright's
        loop counts as running in this one."""
        found = json.loads((self.data / "runtime.json").read_text(encoding="utf-8"))
        url = found["environment"]["HUB_MIGRATE_URL"]
        with ThreadPoolExecutor(1) as pool:
            pool.submit(lambda: asyncio.run(work(url))).result()

    def change(self, statement: str, *arguments: Any) -> None:
        """One statement, for a state that tests before this one may have left otherwise; it finds rows."""

        async def work(url: str) -> None:
            conn = await asyncpg.connect(url)
            try:
                status = await conn.execute(statement, *arguments)
                assert not status.endswith(" 0"), f"no row: {statement} {arguments}"
            finally:
                await conn.close()

        self.in_database(work)

    def assign(self, customer: str, agent: str) -> None:
        """Give a customer's conversations to an agent, both by first name."""
        self.change(
            "update conversations c set assignee_id = m.user_id from contacts k, memberships m"
            " where k.id = c.contact_id and k.first_name = $1 and m.first_name = $2",
            customer,
            agent,
        )

    def child(self, name: str) -> int:
        """The process of that name below the supervisor, as it is now."""
        found = json.loads((self.data / "runtime.json").read_text(encoding="utf-8"))
        return int(found["processes"][name])

    def received(self, text: str) -> int:
        """How often the provider accepted a send of exactly this text."""
        sends = self.sandbox_get("/_ctl/ledger?limit=1000")["sends"]
        return sum(1 for one in sends if one["body"].get("text", {}).get("body") == text)


def until(fact: Callable[[], bool], what: str, timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not fact():
        assert time.monotonic() < deadline, f"{what} did not come true"
        time.sleep(0.05)


def start_product(home: Path) -> Product:
    port = free_port()
    env = {name: value for name, value in os.environ.items() if name.split("_")[0] not in ("HUB", "META")}
    for name in ("DATABASE_URL", "REDIS_URL", "PUBLIC_BASE_URL"):
        env.pop(name, None)
    env |= {"HOME": str(home), "HUB_DATA_DIR": str(home / "data"), "HUB_PORT": str(port)}
    log = home / "run.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "hub", "run"],
            env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, process_group=0,
        )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + START_S
    while b"Ctrl-C" not in log.read_bytes():
        assert process.poll() is None and time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)
    with urllib.request.urlopen(f"{url}/config.json", timeout=10) as answer:
        demo = json.load(answer)["demo"]
    return Product(url, demo["phone_url"], demo["password"], home / "data", process)


@pytest.fixture(scope="session")
def product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    require_browser()
    one = start_product(tmp_path_factory.mktemp("web"))
    try:
        yield one
    finally:
        one.process.terminate()
        try:
            one.process.wait(60)
        except subprocess.TimeoutExpired:
            one.process.kill()
            one.process.wait()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """For one file: while Playwright is open its event loop counts as running, so no async test can start."""
    found = require_browser()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(**found.launch_options())
        yield browser
        browser.close()


@dataclass
class Watch:
    """What went wrong on the pages of one test."""

    origins: tuple[str, ...]
    troubles: list[str] = field(default_factory=list)
    #: Console messages that belong to what the test does, by a part of their text.
    expected: tuple[str, ...] = ()

    def over(self, page: Page) -> Page:
        page.on("pageerror", lambda error: self.troubles.append(f"threw: {error}"))
        page.on(
            "console",
            lambda message: (
                self.troubles.append(f"console {message.type}: {message.text}")
                if message.type == "error" and not any(part in message.text for part in self.expected)
                else None
            ),
        )
        page.on("request", lambda request: self._requested(request.url))
        return page

    def _requested(self, url: str) -> None:
        if not url.startswith((*self.origins, "blob:")):
            self.troubles.append(f"foreign request: {url}")


@dataclass
class Desk:
    """Opens pages for people and closes them after the test."""

    product: Product
    chromium: Browser
    watch: Watch
    contexts: list[BrowserContext] = field(default_factory=list)
    #: Pages that are opened from now on belong to a screen without a mouse.
    touch: bool = False

    def page(
        self, *, width: int = 1280, height: int = 800, language: str = "en", scheme: str = "light"
    ) -> Page:
        context = self.chromium.new_context(
            viewport={"width": width, "height": height},
            locale="ar-EG" if language == "ar" else "en-US",
            color_scheme="dark" if scheme == "dark" else "light",
            reduced_motion="reduce",
            has_touch=self.touch,
            is_mobile=self.touch,
        )
        context.set_default_timeout(20_000)
        self.contexts.append(context)
        return self.watch.over(context.new_page())

    def agent(self, key: str = "dana", path: str = "/inbox", **options: Any) -> Page:
        """Signed in as a member of the demo team, with the list of conversations there."""
        person = next(one for one in TEAM if one.key == key)
        page = self.page(**options)
        page.goto(f"{self.product.url}/sign-in")
        page.locator('input[type="email"]').fill(person.email)
        page.locator('input[autocomplete="current-password"]').fill(self.product.password)
        page.locator('button[type="submit"]').click()
        page.get_by_test_id("conversation-row").first.wait_for()
        if path != "/inbox":
            page.goto(self.product.url + path)
        return page

    def customer(self, persona: str, **options: Any) -> Page:
        page = self.page(**options)
        page.goto(f"{self.product.phone_url}#{persona}")
        page.get_by_role("textbox").wait_for()
        return page


@pytest.fixture
def desk(product: Product, chromium: Browser) -> Iterator[Desk]:
    one = Desk(product, chromium, Watch((product.url, product.sandbox)))
    yield one
    for context in one.contexts:
        context.close()
    assert not one.watch.troubles, one.watch.troubles


# ---- what tests do on pages --------------------------------------------------------------------------


def open_conversation(page: Page, name: str) -> None:
    page.get_by_test_id("conversation-row").filter(has_text=name).first.click()
    page.get_by_test_id("thread").wait_for()
    page.get_by_test_id("message").first.wait_for()


def composer(page: Page) -> Any:
    return page.locator("[data-composer]")


def write(page: Page, text: str) -> None:
    composer(page).fill(text)
    composer(page).press("Enter")


def bubble(page: Page, text: str) -> Any:
    """The message of exactly this text, in the inbox."""
    exactly = page.get_by_text(text, exact=True)
    return page.get_by_test_id("message").filter(has=exactly)


def phone_bubble(page: Page, text: str) -> Any:
    return page.get_by_test_id("phone-message").filter(has=page.get_by_text(text, exact=True))


def link_says(page: Page, text: str) -> None:
    expect(page.get_by_test_id("link-text").filter(visible=True).first).to_contain_text(text, timeout=30_000)


def audit(page: Page) -> list[str]:
    """WCAG 2.0-2.2 A and AA by axe, put in by the debugger: the page's policy forbids other scripts."""
    session = page.context.new_cdp_session(page)
    session.send("Runtime.evaluate", {"expression": AXE.read_text(encoding="utf-8")})
    found = page.evaluate(f"axe.run(document, {{ runOnly: {json.dumps(RULES)} }})")
    session.detach()
    return [
        f"{one['id']}: {node['html'][:160]} - {node['failureSummary'][:300]}"
        for one in found["violations"]
        for node in one["nodes"]
    ]


def sideways(page: Page) -> list[str]:
    """What scrolls sideways although it should not: the page, and every scrolling box but code."""
    script = """() => {
      const found = [];
      const root = document.documentElement;
      if (root.scrollWidth !== root.clientWidth) found.push(`page ${root.scrollWidth} > ${root.clientWidth}`);
      for (const box of document.querySelectorAll('*')) {
        const style = getComputedStyle(box);
        if (!['auto', 'scroll'].includes(style.overflowX) || box.tagName === 'PRE') continue;
        if (box.scrollWidth > box.clientWidth + 1) {
          found.push(`${box.className} ${box.scrollWidth} > ${box.clientWidth}`);
        }
      }
      return found;
    }"""
    found: list[str] = page.evaluate(script)
    return found
