"""The fixtures of the integration tests, a hub as a process of its own whose memory can be looked at, and the
figures of `make faults`: tests that use `figures` have a row in docs/reliability.md."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from hub.db.embedded import EmbeddedPostgres, EmbeddedValkey
from tests.attack.far import FarHub, far_hub
from tests.conftest import runtime_url
from tests.factories import Servers
from tests.fakes.stripe import KEY as STRIPE_KEY
from tests.fakes.stripe import paid_by
from tests.fakes.whatsapp import running_sandbox
from tests.fault import conftest as fault
from tests.fault.conftest import figures
from tests.integration.conftest import agent, hub, org, owner, password_hash

__all__ = ["agent", "figures", "hub", "org", "owner", "password_hash"]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    if "figures" in getattr(item, "fixturenames", ()):
        return (yield from fault.pytest_runtest_makereport(item, call))
    return (yield)


@pytest.fixture(scope="module")
async def far(
    postgres: EmbeddedPostgres,
    template: str,
    valkey: EmbeddedValkey,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[FarHub]:
    """One hub process for all tests of a module, on a database of its own."""
    name = f"t_{uuid4().hex}"
    admin = await asyncpg.connect(postgres.dsn)
    await admin.execute(f"create database {name} template {template} strategy file_copy")
    servers = Servers(database_url=runtime_url(postgres, name), migrate_url=postgres.dsn_for(name))
    folder: Path = tmp_path_factory.mktemp("far")
    try:
        # Stripe is played in this process: a hub that bills nobody answers its functions 503, and these ask
        # that no request is answered so
        async with (
            running_sandbox(folder, "http://127.0.0.1:1/hook", stripe_key=STRIPE_KEY) as sandbox,
            far_hub(servers, valkey.url, folder, **paid_by(f"{sandbox.url}/stripe")) as found,
        ):
            yield found
    finally:
        await admin.execute(f"drop database {name} with (force)")
        await admin.close()
