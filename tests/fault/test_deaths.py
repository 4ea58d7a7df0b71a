"""Family D: death, pauses, disks (guarantees 0, 4, 8, 11, 13)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from tests.fault.conftest import Figures
from tests.fault.invariants import under_load
from tests.fault.rig import Rig

pytestmark = pytest.mark.fault
RigOf = Callable[..., Rig]
Scaled = Callable[[Any, Any], Any]


async def test_D01_hubs_are_killed_one_after_the_other(
    rig_of: RigOf, seed: int, figures: Figures, scaled: Scaled
) -> None:
    """kill -9 of alternate hubs under load. A second later the provider posts again what was not answered."""
    back, caught_up = 0.0, 0.0
    async with (
        rig_of(workers=2) as rig,
        under_load(
            rig, inbound=scaled(30, 100), sends=scaled(6, 20), sessions=scaled(8, 50), seed=seed
        ) as scene,
    ):
        assert scene.crowd is not None
        for n in range(scaled(3, 8)):
            await asyncio.sleep(scaled(1.5, 7.0))
            hub = rig.hubs[n % 2]
            hub.kill()
            back = max(back, await hub.restart())
            caught_up = max(caught_up, await scene.crowd.caught_up())
    figures.within("hub back", back, 3.0)
    figures.within("sessions caught up", caught_up, 5.0)
    figures.note("deliveries", len(scene.load.deliveries))
    figures.note("answers", dict(scene.load.webhook_answers))
