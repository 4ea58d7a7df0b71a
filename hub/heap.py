"""When Python's cycle collector looks at what.

A process that has started holds some 70,000 containers that stay: modules, routes, decoders. With the
interpreter's defaults every few hundred requests walk all of them again, which was a quarter of the hub's
CPU a webhook and most of its slowest answers.
"""

from __future__ import annotations

import gc
from typing import Final

YOUNG: Final = 10_000
"""Containers made before the young ones are looked at: a few MiB at most, while a burst of waiting requests
(some 50 each) is no longer mistaken for garbage."""
OLDER: Final = (20, 10)


def settle() -> None:
    """Call once when everything that stays is there: it is never looked at again, and the rest less often.
    Cycles among what comes later are found as before."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, *OLDER)
