"""What large answers cost the process that passes them on: pages of 1,000 rows, over and over, plain and
packed."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from tests.attack.far import MIB, FarHub
from tests.attack.sizes import scaled

ROWS = 10_000


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
async def test_memory_is_flat_while_pages_of_a_thousand_rows_pass(far: FarHub, encoding: str) -> None:
    """The first rounds fill what stays (buffers, the allocator's arenas); after them nothing is added."""
    conn = await asyncpg.connect(far.servers.migrate_url)
    try:
        await conn.execute("set session_replication_role = replica")
        await conn.execute(
            "insert into contacts (organization_id, first_name, tags, custom_fields)"
            " select $1, 'First' || n, array['a', 'b'], jsonb_build_object('note', repeat('x', 200))"
            " from generate_series(1, $2::integer) n",
            far.org.id, ROWS,
        )  # fmt: skip
    finally:
        await conn.close()
    headers = {"Authorization": f"Bearer {far.token}", "Accept-Encoding": encoding}
    sizes: set[int] = set()

    async def reader(pages: int, start: int) -> None:
        for n in range(pages):
            offset = (start + n) % 10 * 1000
            path = f"/rest/v1/contacts?order=id&limit=1000&offset={offset}"
            answer = await far.call("GET", path, headers=headers)
            assert answer.status == 200 and answer.headers["Content-Range"] == f"{offset}-{offset + 999}/*"
            sizes.add(len(answer.body) // 1000)

    async def round_(pages: int) -> None:
        await asyncio.gather(*(reader(pages, 3 * n) for n in range(4)))

    await round_(scaled(10, 30))
    before = far.memory()
    far.forget_peak()
    first = far.peak()
    for _ in range(3):
        await round_(scaled(15, 100))
    grown, peak = far.memory() - before, far.peak() - first
    assert min(sizes) > 400, "pages of half a megabyte and more"
    assert grown < 8 * MIB, f"{grown / MIB:.1f} MiB more after {12 * scaled(15, 100)} pages"
    assert peak < 24 * MIB, f"{peak / MIB:.1f} MiB above, for four readers at once"
