"""Places where tests make a process die, fail or hang: ``failpoint("send.after_response")``.

HUB_FAILPOINTS is read once at import, and only in a checkout: an installed package or image has no such
places, whatever its environment says. Without it the call is an empty function. Syntax, comma separated:
``name=kill``, ``name=raise``, ``name=hang:5``, each with an optional ``@p`` (probability, ``@0.05``) or
``#n`` (only the n-th time); ``seed=7`` makes the probabilities repeat themselves.
"""

from __future__ import annotations

import os
import random
import re
import signal
import sys
import time
from pathlib import Path

#: What no wheel contains.
_IS_TEST_BUILD = Path(__file__).parent.parent.joinpath("tests", "conftest.py").exists()
_SPEC = re.compile(
    r"(?P<name>[\w.]+)=(?P<action>kill|raise|hang)(?::(?P<seconds>[\d.]+))?(?:@(?P<p>[\d.]+)|#(?P<nth>\d+))?"
)


class FailpointError(RuntimeError):
    """Raised on purpose by a failpoint."""


class _Armed:
    def __init__(self, action: str, seconds: float, probability: float, nth: int, rng: random.Random) -> None:
        self.action, self.seconds, self.probability, self.nth = action, seconds, probability, nth
        self.rng = rng
        self.hits = 0

    def hit(self, name: str) -> None:
        self.hits += 1
        if (self.nth and self.hits != self.nth) or self.rng.random() >= self.probability:
            return
        if self.action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.action == "hang":
            time.sleep(self.seconds)
            return
        raise FailpointError(name)


def parse(text: str) -> dict[str, _Armed]:
    """Raises ValueError for a spec that is not understood."""
    armed = {}
    rng = random.Random()
    for part in filter(None, (p.strip() for p in text.split(","))):
        if re.fullmatch(r"seed=\d+", part):
            rng.seed(int(part[5:]))
            continue
        match = _SPEC.fullmatch(part)
        if match is None:
            raise ValueError(
                f"HUB_FAILPOINTS: cannot read {part!r};"
                " write name=kill|raise|hang:seconds, with @probability or #nth"
            )
        armed[match["name"]] = _Armed(
            match["action"],
            float(match["seconds"] or 1),
            float(match["p"] or 1),
            int(match["nth"] or 0),
            rng,
        )
    return armed


_wanted = os.environ.get("HUB_FAILPOINTS", "")
if _wanted and not _IS_TEST_BUILD:
    print("HUB_FAILPOINTS is set and ignored: this is no checkout with tests", file=sys.stderr)
    _wanted = ""
_armed = parse(_wanted)

if _armed:

    def failpoint(name: str) -> None:
        """Act if a test armed this place."""
        if name in _armed:
            _armed[name].hit(name)

else:

    def failpoint(name: str) -> None:
        """Act if a test armed this place."""
