"""What is made from the sources matches them: the locks pyproject.toml, the wheel the tree."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from hub import bootstrap
from hub.web import build
from tests.needs import absent

ROOT = Path(__file__).resolve().parents[2]
COMPILE = ("--universal", "--generate-hashes", "--no-emit-index-url", "--no-emit-find-links", "--no-header",
           "--python-version", "3.11", "--quiet")  # fmt: skip


def online() -> bool:
    try:
        with socket.create_connection(("pypi.org", 443), timeout=3):
            return True
    except OSError:
        return False


@pytest.mark.parametrize(
    ("lock", "options"),
    [
        ("requirements.lock", ["--group", "tools"]),
        ("requirements-test.lock", ["--group", "tools", "--group", "test", "-c", "requirements.lock"]),
    ],
)
def test_the_locks_are_what_pyproject_asks_for(tmp_path: Path, lock: str, options: list[str]) -> None:
    if not online():
        absent("the package index cannot be reached, so the locks were not compared")
    for name in ("pyproject.toml", "requirements.lock", "requirements-test.lock"):
        shutil.copy(ROOT / name, tmp_path / name)
    uv = Path(sys.executable).with_name("uv")
    command = [str(uv), "pip", "compile", "pyproject.toml", *options, *COMPILE, "-o", lock]
    env = bootstrap.uv_environment()
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / lock).read_text() == (ROOT / lock).read_text(), (
        f"run in the checkout: {' '.join(command)}"
    )


def test_the_wheel_holds_the_built_app_and_no_web_sources(tmp_path: Path) -> None:
    if not build.built():
        absent("the web app is not built: make install")
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    web = {name for name in names if name.startswith("hub/web/")}
    assert "hub/web/dist/index.html" in web
    assert {name for name in web if not name.startswith("hub/web/dist/")} <= {
        "hub/web/build.py",
        "hub/web/hatch_build.py",
        "hub/web/__init__.py",
    }
    assert "sql/migrations/0001_foundation.sql" in names
    assert {"hub/run.py", "hub/db/embedded.py"} <= set(names)
