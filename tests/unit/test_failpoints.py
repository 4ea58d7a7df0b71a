"""Failpoints: how they are written, and that nothing but a test build has them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hub import failpoints

_USE = "from hub.failpoints import failpoint\nfailpoint('here')\nprint('went on')"


def run(root: Path, spec: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", _USE],
        cwd=root,
        env={"PATH": os.defpath, "PYTHONPATH": str(root), "HUB_FAILPOINTS": spec},
        capture_output=True,
        text=True,
        check=False,
    )


def test_it_acts_at_its_place_alone() -> None:
    root = Path(failpoints.__file__).parents[1]
    assert run(root, "here=raise").stderr.endswith("FailpointError: here\n")
    assert run(root, "there=raise").stdout == "went on\n"
    assert run(root, "here=kill").returncode == -9
    assert run(root, "here=kill#2").stdout == "went on\n"


def test_an_installed_package_has_none(tmp_path: Path) -> None:
    shutil.copytree(
        Path(failpoints.__file__).parent,
        tmp_path / "hub",
        ignore=shutil.ignore_patterns("web", "__pycache__"),
    )
    done = run(tmp_path, "here=kill")
    assert (done.returncode, done.stdout) == (0, "went on\n")
    assert "ignored" in done.stderr


def test_a_seed_repeats_the_tosses() -> None:
    def struck() -> list[int]:
        armed = failpoints.parse("here=raise@0.3,seed=7")["here"]
        found = []
        for n in range(50):
            try:
                armed.hit("here")
            except failpoints.FailpointError:
                found.append(n)
        return found

    assert 0 < len(struck()) < 50
    assert struck() == struck()


@pytest.mark.parametrize("text", ["here", "here=explode", "here=kill@x", "seed=x"])
def test_what_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="HUB_FAILPOINTS"):
        failpoints.parse(text)
