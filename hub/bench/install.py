"""Peers that the product does not depend on, installed at run time into a cache folder of their own.

Python peers with uv or pip into virtual environments, JavaScript ones with npm; what is there already stays.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

PEERS = Path(__file__).parent / "peers" / "foreign"
#: Packages of each environment. arq and Celery want different versions of redis-py.
ENVIRONMENTS: dict[str, tuple[str, ...]] = {
    "web": (
        "fastapi", "uvicorn", "uvloop", "httptools", "asyncpg", "msgspec", "orjson", "redis", "hiredis",
        "websockets", "python-socketio", "channels", "channels-redis", "aiohttp",
    ),
    "queues": ("pgqueuer[asyncpg]", "procrastinate", "uvloop", "celery[redis]"),
    "arq": ("arq", "uvloop"),
    "profile": ("py-spy",),
}  # fmt: skip
NODE_PACKAGES = ("ws", "ioredis", "socket.io", "@socket.io/redis-adapter", "bun", "postgraphile")

_cache = Path("data/bench-peers")


class NotInstalled(RuntimeError):
    """A peer cannot be had here; the message says why."""


def set_cache(folder: Path) -> None:
    global _cache
    _cache = folder.absolute()


def python(environment: str) -> Path:
    """The interpreter of an environment, made at the first call. Raises NotInstalled."""
    folder = _cache / environment
    interpreter = folder / "bin" / "python"
    done = folder / "installed.json"
    wanted = list(ENVIRONMENTS[environment])
    if done.exists() and json.loads(done.read_text()) == wanted:
        return interpreter
    print(f"Installing {', '.join(wanted)} into {folder} …", flush=True)
    _cache.mkdir(parents=True, exist_ok=True)
    if find_spec("uv"):
        uv = [sys.executable, "-m", "uv"]
        _run([*uv, "venv", "--clear", "--python", sys.executable, str(folder)])
        _run([*uv, "pip", "install", "--python", str(interpreter), *wanted])
    else:
        _run([sys.executable, "-m", "venv", str(folder)])
        _run([str(interpreter), "-m", "pip", "install", "--quiet", *wanted])
    done.write_text(json.dumps(wanted))
    return interpreter


def program(peer: str, environment: str = "web") -> list[str]:
    """How to start a Python peer. Raises NotInstalled."""
    return [str(python(environment)), "-P", str(PEERS / f"{peer}.py")]


def versions(*packages: str, environment: str = "web") -> dict[str, str]:
    """Of installed Python packages, by name."""
    script = "import sys; from importlib.metadata import version as v; print(*map(v, sys.argv[1:]))"
    done = subprocess.run(
        [str(python(environment)), "-c", script, *packages], capture_output=True, text=True, check=True
    )
    return dict(zip(packages, done.stdout.split(), strict=True))


def _run(argv: Sequence[str], cwd: Path | None = None) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=cwd)
    if done.returncode:
        raise NotInstalled(f"{' '.join(map(str, argv[:4]))} … failed: {done.stderr.strip()[-600:]}")
