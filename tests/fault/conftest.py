"""Fixtures of the fault tests: the template, a way to start rigs, seeds that can be replayed, figures."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fault.rig import Rig, Template

#: ci: scaled, in `make test`; full and nightly: `make faults` (tests/fault/README.md).
PROFILE = os.environ.get("HUB_FAULT_PROFILE", "ci")
REPORT = os.environ.get("HUB_FAULT_REPORT")
_SEED = pytest.StashKey[int]()
_FIGURES = pytest.StashKey["Figures"]()


class Figures:
    """What a test saw. `within` also names a goal: in the suite it is printed, under `make faults` a missed
    one fails the test, since there nothing else runs on the machine."""

    def __init__(self) -> None:
        self.seen: dict[str, str] = {}
        self.missed: list[str] = []

    def note(self, what: str, value: object) -> None:
        self.seen[what] = f"{value:.2f}" if isinstance(value, float) else str(value)

    def within(self, what: str, value: float, goal: float, unit: str = "s") -> None:
        self.seen[what] = f"{value:.2f} {unit} (≤ {goal:g})"
        if value > goal:
            self.missed.append(f"{what}: {value:.2f} {unit} is above {goal:g}")

    def __str__(self) -> str:
        return "; ".join(f"{what} {value}" for what, value in self.seen.items())


def pytest_configure(config: pytest.Config) -> None:
    if PROFILE not in ("ci", "full", "nightly"):
        raise pytest.UsageError(f"HUB_FAULT_PROFILE is {PROFILE!r}; write ci, full or nightly")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents and item.get_closest_marker("nightly") and PROFILE != "nightly":
            item.add_marker(pytest.mark.skip(reason="full size only: make faults ARGS=--nightly"))


@pytest.fixture(scope="session")
def session_seed() -> int:
    """HUB_FAULT_SEED, or a fresh one; each test's own is made from it."""
    given = os.environ.get("HUB_FAULT_SEED", "")
    return int(given) if given else random.SystemRandom().randrange(1, 1_000_000)


@pytest.fixture
def seed(session_seed: int, request: pytest.FixtureRequest) -> int:
    """This test's seed. The same HUB_FAULT_SEED gives the same one to the same test, in whatever order."""
    request.node.stash[_SEED] = session_seed
    print(f"HUB_FAULT_SEED={session_seed}")
    return random.Random(f"{session_seed} {request.node.originalname}").randrange(1, 1_000_000)


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> Iterator[Figures]:
    figures = Figures()
    request.node.stash[_FIGURES] = figures
    yield figures
    print(figures)
    if PROFILE != "ci" and figures.missed:
        pytest.fail("Goals missed: " + "; ".join(figures.missed), pytrace=False)


@pytest.fixture
def scaled() -> Callable[..., Any]:
    """`scaled(ci, full)` or `scaled(ci, full, nightly)`: the value of this profile."""

    def choose(ci: Any, full: Any, *nightly: Any) -> Any:
        return {"ci": ci, "full": full, "nightly": (*nightly, full)[0]}[PROFILE]

    return choose


@pytest.fixture(scope="session")
def fault_folder() -> Iterator[Path]:
    """In memory where there is room: a rig is a copy of some 50 MB."""
    memory = Path("/dev/shm")
    roomy = os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 4 << 30
    base = Path(tempfile.mkdtemp(prefix="hub-fault-", dir=memory if roomy else None))
    base.chmod(0o755)
    yield base
    if not os.environ.get("HUB_FAULT_KEEP"):
        shutil.rmtree(base, ignore_errors=True)


@pytest.fixture(scope="session")
async def fault_template(fault_folder: Path) -> Path:
    return await Template(fault_folder / "template").build()


@pytest.fixture
def rig_of(fault_template: Path, seed: int) -> Callable[..., Rig]:
    """`async with rig_of(hubs=2, workers=3, behind={"postgres"}) as rig:`"""

    def make(**options: Any) -> Rig:
        return Rig(fault_template, seed=seed, **options)

    return make


@pytest.fixture
async def rig(rig_of: Callable[..., Rig]) -> AsyncIterator[Rig]:
    """Two hubs, three workers, nothing in between."""
    async with rig_of() as rig:
        yield rig


def _why(report: Any) -> str:
    """Why it was skipped, or where and how it failed."""
    if report.outcome == "failed":
        return str(report.longreprtext)[-4000:]
    return str(report.longrepr[2]) if report.outcome == "skipped" and report.longrepr else ""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """With HUB_FAULT_REPORT: a line a test for tests/fault/report.py."""
    report = yield
    name = re.match(r"test_([A-Z]+)(\d+)_", item.name)
    if REPORT and name and (report.when == "call" or report.outcome != "passed"):
        figures = item.stash.get(_FIGURES, None)
        doc = getattr(getattr(item, "obj", None), "__doc__", "") or ""
        line = {
            "id": f"{name[1]}-{name[2]}",
            "test": item.nodeid.split("@")[0],
            "method": " ".join(doc.split()),
            "outcome": report.outcome,
            "when": report.when,
            "why": _why(report),
            "figures": str(figures) if figures is not None else "",
            "seed": item.stash.get(_SEED, None),
            "seconds": round(report.duration, 1),
        }
        with Path(REPORT).open("a") as out:
            out.write(json.dumps(line) + "\n")
    return report
