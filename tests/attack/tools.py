"""Tools that are installed when they are first used, into .cache and never beside the product."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import sys
from pathlib import Path

from hub import bootstrap

ROOT = Path(__file__).resolve().parents[2]
PINNED = {"pip-audit": "2.10.1", "atheris": "3.0.0"}


def installed(name: str) -> Path | None:
    """The folder to put on PYTHONPATH; None when it cannot be had (no index, no wheel for this Python)."""
    folder = ROOT / ".cache" / "tools" / f"{name}-{PINNED[name]}-{sys.version_info[0]}.{sys.version_info[1]}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            fresh = folder.with_suffix(".new")
            shutil.rmtree(fresh, ignore_errors=True)
            uv = Path(sys.executable).with_name("uv")
            done = subprocess.run(
                [uv, "pip", "install", "-q", "--only-binary=:all:", "--python", sys.executable, "--target",
                fresh,
                 f"{name}=={PINNED[name]}"],
                env=bootstrap.uv_environment(), capture_output=True, text=True, check=False,
            )  # fmt: skip
            if done.returncode != 0:
                print(done.stderr, file=sys.stderr)
                return None
            fresh.rename(folder)
    return folder
