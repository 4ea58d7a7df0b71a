"""Every parser under coverage-guided fuzzing (X-30): a second each in the suite, ten minutes each in
`make faults ARGS=--nightly`. The corpus is kept in .cache/fuzz; a run goes on where the last one stopped."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from tests.attack.atheris.seeds import seeds
from tests.attack.sizes import PROFILE
from tests.attack.tools import ROOT, installed
from tests.fault.conftest import Figures
from tests.needs import absent

SECONDS = {"ci": 1, "full": 30, "nightly": 600}[PROFILE]
#: Of one input, in seconds. The suite shares its cores with others; the nightly run does not.
HANG_S = 20 if PROFILE == "ci" else 1
#: Edges that a run covers at least, or it does not reach the parser. What msgspec reads in C has few.
FEWEST = {
    "webhook": 100, "grammar": 150, "frames": 8, "spool": 30, "phones": 10, "tokens": 100, "bodies": 25,
    "configuration": 40,
}  # fmt: skip


@pytest.fixture(scope="module")
def atheris() -> str:
    folder = installed("atheris")
    if folder is None:
        absent("atheris, the fuzzer: it needs a package index, and Linux with Python 3.11 to 3.13")
    return str(folder)


@pytest.mark.parametrize("target", FEWEST)
def test_X30_a_fuzzer_finds_no_crash_and_no_hang(atheris: str, target: str, figures: Figures) -> None:
    """Coverage-guided fuzzing of each parser. No crash, no hang above one second."""
    corpus, found = ROOT / ".cache" / "fuzz" / target, ROOT / ".cache" / "fuzz" / "found"
    corpus.mkdir(parents=True, exist_ok=True)
    found.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds(target)):
        (corpus / f"seed-{number:03d}").write_bytes(seed)
    options = [
        f"-timeout={HANG_S}", "-max_len=4096", f"-artifact_prefix={found}/{target}-", "-print_final_stats=1",
        "-rss_limit_mb=2048",
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "tests.attack.atheris", target, str(SECONDS), str(corpus), *options],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{atheris}"},
        capture_output=True,
        text=True,
        check=False,
        errors="replace",
    )
    assert done.returncode == 0, done.stderr[-4000:]
    runs = re.search(r"number_of_executed_units: (\d+)", done.stderr)
    covered = re.findall(r"cov: (\d+)", done.stderr)
    assert runs is not None and covered, done.stderr[-2000:]
    assert int(runs[1]) > len(seeds(target)) and int(covered[-1]) >= FEWEST[target], done.stderr[-2000:]
    figures.note("parser", target)
    figures.note("inputs", runs[1])
    figures.note("edges", covered[-1])
