"""The web app's own checks: compiler, linter and Vitest, run with the Node that comes with the product."""

from __future__ import annotations

import json
import os
import subprocess

import msgspec
import pytest

from hub.channels.limits import WHATSAPP_CLOUD
from hub.settings import Settings
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


def test_MSG_03_the_composer_knows_the_channels_limits() -> None:
    """fileLimits.json repeats what the hub refuses, so that nobody uploads in vain."""
    told = json.loads((build.WEB / "src/features/inbox/fileLimits.json").read_text(encoding="utf-8"))
    preset = {one.name: one.default for one in msgspec.structs.fields(Settings)}
    assert told.pop("hub") == preset["media_max_bytes"]
    assert told.pop("caption") == WHATSAPP_CLOUD.caption
    media = {
        kind: {"bytes": limit.max_bytes, "types": sorted(limit.mime_types)}
        for kind, limit in WHATSAPP_CLOUD.media.items()
        if kind != "sticker"
    }
    for kinds in told["WHATSAPP_CLOUD"].values():
        kinds["types"].sort()
    assert told == {"WHATSAPP_CLOUD": media}
