"""The web app's own checks: compiler, linter and Vitest, run with the Node that comes with the product."""

from __future__ import annotations

import os
import subprocess

import pytest

from hub.web import build
from tests.needs import absent

CHECKS = {
    "types": ("typescript/bin/tsc", "--noEmit"),
    "lint": ("oxlint/bin/oxlint", "--deny-warnings", "src", "tests"),
    "vitest": ("vitest/vitest.mjs", "run"),
}


@pytest.mark.parametrize("check", CHECKS)
def test_web_app(check: str) -> None:
    program, *arguments = CHECKS[check]
    script = build.MODULES / program
    if not script.exists():
        absent("the web app's test tools are not installed: python hub/web/build.py install --dev")
    done = subprocess.run(
        [build.node(), script, *arguments],
        cwd=build.WEB, env={**os.environ, "NO_COLOR": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
