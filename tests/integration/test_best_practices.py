"""What the API document advises its callers to do works against us: BP-02, BP-03, BP-05."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import aiohttp
import asyncpg
import pytest

from hub.db.embedded import EmbeddedValkey
from tests.factories import Member, Servers
from tests.fakes.proxy import Cut, proxy_to
from tests.server import Answer, Hub, running_hub

REPRESENT = {"Prefer": "return=representation"}
#: One call of each surface, all of which need the database.
SURFACES: list[tuple[str, str, Any]] = [
    ("GET", "/rest/v1/contacts?select=id", None),
    ("POST", "/rest/v1/contacts", {"first_name": "Ali"}),
    ("POST", "/rest/v1/rpc/inbox_counts", {}),
    ("GET", "/functions/v1/list-organizations", None),
    ("POST", "/functions/v1/batch", {"operations": [{"method": "GET", "path": "contacts?select=id"}]}),
    ("POST", "/auth/v1/token?grant_type=password", {"email": "a@example.test", "password": "x"}),
    ("GET", "/auth/v1/user", None),
]


@pytest.fixture
async def token(hub: Hub, owner: Member) -> str:
    return await hub.token(owner.email)


async def test_BP_02_an_answer_that_means_later_says_when(
    servers: Servers, valkey: EmbeddedValkey, tmp_path: Path, owner: Member
) -> None:
    """429 over a rate and 503 without the database, on every surface."""
    parts = urlsplit(servers.database_url)
    assert parts.hostname is not None and parts.port is not None
    async with proxy_to(parts.hostname, parts.port) as proxy:
        address = parts.netloc.replace(f":{parts.port}", f":{proxy.port}")
        behind = Servers(urlunsplit(parts._replace(netloc=address)), servers.migrate_url)
        once = {"HUB_RATE_REST": "1", "HUB_RATE_FUNCTIONS": "1"}
        async with running_hub(behind, valkey.url, tmp_path, **once) as hub:
            token = await hub.token(owner.email)
            for method, path, body in SURFACES[:5]:
                answers = [await hub.call(method, path, token=token, json=body) for _ in range(2)]
                assert answers[-1].status == 429, (path, answers)
                says_when(answers[-1], "RATE_LIMIT_EXCEEDED")
        async with running_hub(behind, valkey.url, tmp_path) as hub:
            token = await hub.token(owner.email)
            proxy.down.silent = True
            answers = await asyncio.gather(
                *(hub.call(method, path, token=token, json=body) for method, path, body in SURFACES)
            )
            proxy.down.silent = False
            for (_, path, _), answer in zip(SURFACES, answers, strict=True):
                assert answer.status == 503, (path, answer)
                says_when(answer, "SERVICE_UNAVAILABLE" if not path.startswith("/auth") else None)


def says_when(answer: Answer, error_code: str | None) -> None:
    assert 1 <= int(answer.headers["Retry-After"]) <= 60
    assert error_code is None or answer.json["error_code"] == error_code


async def test_BP_02_a_writer_that_lost_its_answers_may_try_again(
    hub: Hub, token: str, superuser: asyncpg.Connection
) -> None:
    """A client with exponential backoff on a line that loses every first answer: each write once."""
    address = urlsplit(hub.url)
    assert address.hostname is not None and address.port is not None
    async with proxy_to(address.hostname, address.port) as proxy, aiohttp.ClientSession() as http:
        headers = {"Authorization": f"Bearer {token}", **REPRESENT}
        for n in range(3):
            proxy.cut = Cut(rb"HTTP/1\.1 201", delivered=False, direction="down", left=2)
            pause, tries, status = 0.05, 0, 0
            while status != 201:
                tries += 1
                try:
                    async with http.post(
                        f"http://127.0.0.1:{proxy.port}/rest/v1/contacts", json={"first_name": f"Ali {n}"},
                        headers={**headers, "Idempotency-Key": f"contact-{n}"},
                    ) as answer:  # fmt: skip
                        status, rows = answer.status, await answer.json()
                except aiohttp.ClientError:
                    await asyncio.sleep(pause)
                    pause *= 2
            assert tries == 3 and [row["first_name"] for row in rows] == [f"Ali {n}"]
    names = await superuser.fetch("select first_name from contacts order by first_name")
    assert [row["first_name"] for row in names] == ["Ali 0", "Ali 1", "Ali 2"]


async def test_BP_03_many_rows_in_few_calls_and_only_what_is_needed(hub: Hub, token: str) -> None:
    """Array insert, pages with a count, chosen columns, caching, bulk change and removal by filter."""
    rows = [{"first_name": f"N{n:03}", "tags": ["odd"] if n % 2 else []} for n in range(500)]
    made = await hub.post("/rest/v1/contacts", token=token, json=rows, headers=REPRESENT)
    assert (made.status, len(made.json)) == (201, 500)
    assert [row["first_name"] for row in made.json] == [row["first_name"] for row in rows]

    seen: list[str] = []
    tags: dict[str, str] = {}
    exact = {"Prefer": "count=exact"}
    while True:
        path = f"/rest/v1/contacts?select=first_name&order=first_name&limit=120&offset={len(seen)}"
        page = await hub.get(path, token=token, headers=exact)
        tags[path] = page.headers["ETag"]
        assert all(row.keys() == {"first_name"} for row in page.json)
        seen += [row["first_name"] for row in page.json]
        of = int(page.headers["Content-Range"].partition("/")[2])
        if len(seen) >= of:
            break
        assert page.status == 206
    assert seen == [row["first_name"] for row in rows]
    for path, tag in tags.items():
        again = await hub.get(path, token=token, headers={**exact, "If-None-Match": tag})
        assert (again.status, again.body) == (304, b"")

    changed = await hub.patch(
        "/rest/v1/contacts?tags=cs.{odd}", token=token, json={"job_title": "CEO"}, headers=exact
    )
    assert (changed.status, changed.headers["Content-Range"]) == (204, "0-249/250")
    count = await hub.call("HEAD", "/rest/v1/contacts?job_title=eq.CEO", token=token, headers=exact)
    assert count.headers["Content-Range"] == "0-249/250"
    gone = await hub.delete("/rest/v1/contacts?job_title=is.null", token=token, headers=exact)
    assert (gone.status, gone.headers["Content-Range"]) == (204, "*/250")
    path = next(iter(tags))
    fresh = await hub.get(path, token=token, headers={"If-None-Match": tags[path]})
    assert (fresh.status, fresh.json[0]) == (200, {"first_name": "N001"})


async def test_BP_05_steps_that_belong_together_happen_together(
    hub: Hub, token: str, superuser: asyncpg.Connection
) -> None:
    """A contact, its deal and a task by one call; the same call with a mistake in its last step: nothing."""
    steps: list[dict[str, Any]] = [
        {"id": "c", "method": "POST", "path": "contacts?select=id", "body": {"first_name": "Mia"},
         "prefer": "return=representation"},
        {"method": "POST", "path": "deals", "body": {"title": "New", "contact_id": {"$ref": "c.0.id"}}},
        {"method": "POST", "path": "tasks", "body": {"title": "Call", "contact_id": {"$ref": "c.0.id"}}},
    ]  # fmt: skip
    done = await hub.post("/functions/v1/batch", token=token, json={"operations": steps})
    assert done.status == 200
    linked = (
        "select count(*) from contacts c join deals d on d.contact_id = c.id join tasks t on"
        " t.contact_id = c.id where c.first_name = 'Mia'"
    )
    assert await superuser.fetchval(linked) == 1
    wrong = [*steps, {"method": "PATCH", "path": "deals?title=eq.New", "body": {"value": "much"}}]
    refused = await hub.post("/functions/v1/batch", token=token, json={"operations": wrong})
    assert refused.status == 400 and refused.json["details"]["operation"] == 3
    assert await superuser.fetchval("select count(*) from contacts") == 1
    assert await superuser.fetchval("select count(*) from deals") == 1
