"""What stays is left alone by the collector; what comes later is not."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from hub import heap


@pytest.fixture(autouse=True)
def collector() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


class Node:
    """Something that can be part of a cycle."""

    def __init__(self) -> None:
        self.itself = self


def test_what_is_there_is_frozen_and_later_cycles_still_go() -> None:
    heap.settle()
    assert gc.get_freeze_count() > 1_000
    later = weakref.ref(Node())
    assert later() is not None, "a cycle stays until the collector looks"
    held = [[n] for n in range(heap.YOUNG + 1_000)]  # by itself, as work goes on
    assert later() is None
    assert len(held) == heap.YOUNG + 1_000
