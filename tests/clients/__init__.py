"""Programs around other people's clients, and how a test runs them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from hub import bootstrap
from tests.needs import absent

HERE = Path(__file__).parent
SUPABASE_JS = HERE.parents[1] / "hub" / "web" / "node_modules" / "@supabase" / "supabase-js"
#: The product's tables have no ranges; an operator's own function may, and is called like the product's.
SHIFTS = """
create function public.shifts() returns table (name text, hours int4range) language sql stable
as $$ values ('early', int4range(6, 14)), ('late', int4range(14, 22)), ('night', int4range(22, 30)) $$;
grant execute on function public.shifts() to authenticated;
"""


async def drive(script: str, *arguments: str) -> dict[str, dict[str, Any]]:
    """Run a driver of this folder under Node to its end; its lines, by name. Skips without supabase-js."""
    if not SUPABASE_JS.is_dir():
        absent("@supabase/supabase-js is not installed: make install")
    process = await asyncio.create_subprocess_exec(
        str(bootstrap.web_module().node()), str(HERE / script), *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        out, err = await asyncio.wait_for(process.communicate(), 180)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, err.decode()
    return {line["name"]: line for line in map(json.loads, out.decode().splitlines())}
