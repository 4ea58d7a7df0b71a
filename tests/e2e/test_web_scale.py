"""The inbox over ten thousand conversations and a thread of ten thousand messages, on a product of its own.

Counts and structure are asserted; times and memory are printed (`pytest -s`), for they are the machine's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.e2e.browser import require_browser
from tests.e2e.web import Desk, Product, Watch, bubble, composer, start_product, until

MANY = 10_000
#: Rows in the document at most, however many are in the list: what fits on the screen and some beyond it.
DRAWN = 60
LIST = '[data-testid="conversation-list"]'
THREAD = '[data-testid="thread"]'

# Set by set, without triggers: they would note ten thousand events that nobody asked for.
CROWD = """
with people as (
  insert into public.contacts (organization_id, first_name, last_name, phones)
  select $1, (array['ليلى', 'Omar', 'Sara', 'نور', 'James', 'Mina'])[1 + n % 6],
         'Guest ' || lpad(n::text, 5, '0'), array['+2010' || lpad(n::text, 8, '0')]
    from generate_series(1, $3::int) n
  returning id, right(last_name, 5)::int as n
), talks as (
  insert into public.conversations (organization_id, contact_id, channel_account_id, last_message_at,
         last_message_preview, last_message_direction, msg_seq, inbound_count, first_inbound_at,
         last_inbound_at, created_at)
  -- Every tenth moment is that of three conversations: a page may end between them.
  select $1, id, $2, at, 'Message of guest ' || n, 'INBOUND', 1, 1, at, at, at
    from people, lateral (
      select now() - interval '1 day'
             - (case when n % 10 < 3 then n / 10 * 10 else n end) * interval '3 minutes'
    ) as moment(at)
  returning organization_id, id, contact_id, channel_account_id, last_message_at
)
insert into public.messages (organization_id, conversation_id, contact_id, channel_account_id, direction,
       content, status, conv_seq, occurred_at, source, created_at)
select organization_id, id, contact_id, channel_account_id, 'INBOUND', 'Message of a guest', 'RECEIVED', 1,
       last_message_at, 'customer', last_message_at
  from talks
"""
ALONE = """
delete from public.messages
 where conversation_id = (
   select c.id from public.conversations c join public.contacts p on p.id = c.contact_id
    where p.last_name = 'Guest 00001'
 )
"""
TALK = """
with talk as (
  update public.conversations c set msg_seq = $1::int, inbound_count = $1::int - $1::int / 3
    from public.contacts p
   where (p.organization_id, p.id) = (c.organization_id, c.contact_id) and p.last_name = 'Guest 00001'
  returning c.organization_id, c.id, c.contact_id, c.channel_account_id, c.last_message_at
)
insert into public.messages (organization_id, conversation_id, contact_id, channel_account_id, direction,
       content, status, conv_seq, occurred_at, source, created_at)
select organization_id, id, contact_id, channel_account_id,
       case when n % 3 = 0 then 'OUTBOUND' else 'INBOUND' end,
       'Line ' || n || ':' || repeat(' and some words', n % 9),
       case when n % 3 = 0 then 'READ' else 'RECEIVED' end, n, at,
       case when n % 3 = 0 then 'external' else 'customer' end, at
  from talk, generate_series(1, $1::int) n, lateral (
    select last_message_at - ($1::int - n) * interval '1 minute'
  ) as moment(at)
"""


async def fill(url: str) -> None:
    conn = await asyncpg.connect(url)
    try:
        organization, account = await conn.fetchrow(
            "select organization_id, id from public.channel_accounts where type = 'WHATSAPP_CLOUD' limit 1"
        )
        async with conn.transaction():
            await conn.execute("set local session_replication_role = replica")
            await conn.execute(CROWD, organization, account, MANY)
            await conn.execute(ALONE)
            await conn.execute(TALK, MANY)
        await conn.execute("analyze public.contacts, public.conversations, public.messages")
    finally:
        await conn.close()


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    require_browser()
    one = start_product(tmp_path_factory.mktemp("crowd"))
    try:
        one.in_database(fill)
        yield one
    finally:
        one.process.terminate()
        one.process.wait(60)


@pytest.fixture
def crowded(crowd: Product, chromium: Browser) -> Iterator[Desk]:
    one = Desk(crowd, chromium, Watch((crowd.url, crowd.sandbox)))
    yield one
    for context in one.contexts:
        context.close()
    assert not one.watch.troubles, one.watch.troubles


def heap_mb(page: Page) -> float:
    session = page.context.new_cdp_session(page)
    session.send("HeapProfiler.collectGarbage")
    used: float = session.send("Runtime.getHeapUsage")["usedSize"]
    session.detach()
    return used / 1e6


@contextmanager
def working(page: Page, what: str, times: int) -> Iterator[None]:
    """Prints how long the page's main thread works for each of so many things that happen meanwhile."""
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable")

    def so_far() -> float:
        found = {one["name"]: one["value"] for one in session.send("Performance.getMetrics")["metrics"]}
        return float(found["TaskDuration"]) * 1_000

    before = so_far()
    yield
    print(f"{what}: {(so_far() - before) / times:.1f} ms of work each")
    session.detach()


def frames(page: Page, box: str, step: int) -> str:
    """The times between frames while the box scrolls by `step` in each, for two seconds."""
    took: list[float] = page.evaluate(
        """async ([box, step]) => {
          const element = document.querySelector(box), took = [];
          let last = performance.now();
          const end = last + 2000;
          await new Promise((done) => {
            const next = (now) => {
              took.push(now - last);
              last = now;
              element.scrollTop += step;
              if (now < end) requestAnimationFrame(next); else done();
            };
            requestAnimationFrame(next);
          });
          return took.slice(1).sort((a, b) => a - b);
        }""",
        [box, step],
    )
    return (
        f"{len(took)} frames, median {took[len(took) // 2]:.0f} ms, p95 {took[int(len(took) * 0.95)]:.0f} ms"
    )


def scroll_until(page: Page, box: str, to: str, seen: str) -> None:
    """Scrolls to that end again and again, as more is read, until the text is in the box."""

    def there() -> bool:
        page.evaluate(
            "([box, to]) => { const one = document.querySelector(box);"
            " one.scrollTop = to === 'end' ? one.scrollHeight : 0; }",
            [box, to],
        )
        return page.locator(box).get_by_text(seen).count() > 0

    until(there, f"{seen!r} in sight", timeout_s=90)


def test_CONV_09_ten_thousand_rows(crowded: Desk) -> None:
    page = crowded.agent("dana")
    rows = page.get_by_test_id("conversation-row")
    counted = page.get_by_role("link", name=re.compile(r"^All"))
    expect(counted).to_contain_text(re.compile(r"100\d\d"))
    first_rows: float = page.evaluate(
        "performance.getEntriesByType('resource').findLast((one) => one.name.includes('/conversations?'))"
        ".responseEnd"
    )
    print(f"\nfirst list: read {first_rows:.0f} ms after the page was opened; heap {heap_mb(page):.0f} MB")

    seen: list[str] = []
    page.on("response", lambda answer: seen.append(answer.url) if "/conversations?" in answer.url else None)
    scroll_until(page, LIST, "end", f"Guest {MANY}")
    asked = len([url for url in seen if "limit=1&" not in url and not url.endswith("limit=1")])
    print(f"to the last of {MANY} conversations: {asked} pages; heap {heap_mb(page):.0f} MB")
    assert rows.count() <= DRAWN
    expect(page.get_by_text("More conversations are loading…")).to_have_count(0)

    # Each is there once, none was skipped where a page ended: the list is as long as the count says.
    total = int(re.sub(r"\D", "", counted.inner_text()))
    tall: float = page.locator(f"{LIST} ul").evaluate("(list) => list.getBoundingClientRect().height")
    tall_of_one: float = rows.first.evaluate("(row) => row.parentElement.getBoundingClientRect().height")
    assert round(tall / tall_of_one) == total
    print(f"list, scrolling: {frames(page, LIST, -400)}")

    # The keyboard walks on from wherever one stands, and the row comes into sight.
    rows.last.focus()
    page.keyboard.press("Enter")
    page.get_by_test_id("thread").wait_for()
    opened = page.url
    page.keyboard.press("Escape")
    page.locator("body").press("k")
    expect(page).not_to_have_url(opened)
    here = page.url.partition("/inbox/")[2].partition("?")[0]
    expect(page.locator(f'{LIST} [data-conversation="{here}"]')).to_be_in_viewport()
    assert rows.count() <= DRAWN

    # A message moves its conversation to the top, whatever is beneath it.
    page.evaluate("(box) => { document.querySelector(box).scrollTop = 0; }", LIST)
    with working(page, "live messages", 20):
        for number in range(20):
            crowded.product.says("omar", f"one of many {number}")
            expect(rows.first).to_contain_text(f"one of many {number}")
    assert rows.count() <= DRAWN

    search = page.get_by_label("Search loaded conversations")
    search.fill("Guest 07777")
    expect(rows).to_have_count(1)
    search.fill("")
    page.keyboard.press("Control+k")
    page.get_by_label("Search conversations and commands").fill("guest 08888")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Guest 08888", level=2)).to_be_visible()


def test_CONV_09_ten_thousand_messages(crowded: Desk) -> None:
    page = crowded.agent("dana")
    page.get_by_label("Search loaded conversations").fill("Guest 00001")
    page.get_by_test_id("conversation-row").filter(has_text="Guest 00001").click()
    messages = page.get_by_test_id("message")
    messages.first.wait_for()
    # It opens at its first unread message, which is the first one loaded; the end is one key away.
    page.get_by_role("button", name=re.compile("Jump to latest")).click()
    expect(page.get_by_text(f"Line {MANY}:")).to_be_visible()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "/messages?" in request.url else None)
    scroll_until(page, THREAD, "start", "Line 1:")
    assert messages.count() <= DRAWN
    assert len(asked) < 60
    print(f"\nto the first of {MANY} messages: {len(asked)} pages; heap {heap_mb(page):.0f} MB")
    print(f"thread, scrolling: {frames(page, THREAD, 300)}")

    # In the middle: what is written goes to the end, what comes does not move the reader.
    with working(page, "keys", 22):
        composer(page).press_sequentially("words in a long thread")
    composer(page).press("Enter")
    expect(bubble(page, "words in a long thread")).to_be_in_viewport()
    assert messages.count() <= DRAWN
    numbers: list[int] = messages.evaluate_all(
        "all => all.flatMap((one) => /Line (\\d+):/.exec(one.textContent)?.[1] ?? []).map(Number)"
    )
    assert numbers == list(range(numbers[0], MANY + 1))
