"""Nothing that CI should show is skipped there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.needs import absent

TESTS = Path(__file__).parents[1]
#: Systems that a test cannot be run on at all, whatever is installed; what CI leaves to the nightly run.
SYSTEMS = re.compile(r"skipif\(sys\.platform|--nightly")


@pytest.mark.parametrize(("ci", "raised"), [("true", pytest.fail.Exception), ("", pytest.skip.Exception)])
def test_what_is_absent_is_skipped_and_fails_under_CI(
    monkeypatch: pytest.MonkeyPatch, ci: str, raised: type[BaseException]
) -> None:
    monkeypatch.setenv("CI", ci)
    with pytest.raises(raised, match="no curl here"):
        absent("no curl here: install it")


def test_every_skip_goes_that_way() -> None:
    """Fault tests excepted: what those need (mounts, an earlier release) CI cannot give either."""
    skips = re.compile(r"pytest\.skip\(|importorskip|mark\.skip|skipif\(")
    found = [
        f"{path.relative_to(TESTS)}: {line.strip()}"
        for path in TESTS.rglob("*.py")
        if path.name not in ("needs.py", "test_needs.py") and path.parent.name != "fault"
        for line in path.read_text(encoding="utf-8").splitlines()
        if skips.search(line) and not SYSTEMS.search(line)
    ]
    assert found == []
