"""Getting a browser: the first that works of five, printed once.

1. `HUB_CHROMIUM`; 2. the one inside the npm package @sparticuz/chromium (Linux x86_64; needs neither root nor
apt); 3. a system's; 4. playwright's own; 5. none: browser tests are skipped with one bold line and fail under
`CI=true`.

    browser = require_browser()        # skips, or fails, when there is none
    playwright.chromium.launch(**browser.launch_options())

Playwright is started after that, for it sets PLAYWRIGHT_NODEJS_PATH: playwright's own node wants libraries
that a minimal Debian does not have.
"""

from __future__ import annotations

import fcntl
import io
import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from hub.web import build
from tests.needs import absent

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "hub" / "web" / "node_modules" / "@sparticuz" / "chromium"
# Ours, not the package's: its own switch off web security and run everything in one process.
ARGUMENTS = (
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
HOW = "run `make test` (it brings one on Linux x86_64), install chromium, or set HUB_CHROMIUM=/path/to/chrome"
NOT_RUN = f"\033[1mBROWSER TESTS NOT RUN: no Chromium found; {HOW}\033[0m"

_UNPACK = """
const fs = require("node:fs"), zlib = require("node:zlib"), { pipeline } = require("node:stream/promises");
const [from, to] = process.argv.slice(1);
pipeline(fs.createReadStream(from), zlib.createBrotliDecompress(), fs.createWriteStream(to, { mode: 0o755 }))
  .catch((error) => { console.error(error); process.exit(1); });
"""


@dataclass(frozen=True)
class Browser:
    """A Chromium, what it is called in the report, and the variables it needs."""

    name: str
    path: Path
    env: dict[str, str] = field(default_factory=dict)

    def launch_options(self) -> dict[str, Any]:
        """For `playwright.chromium.launch`."""
        arguments = list(ARGUMENTS)
        if os.geteuid() == 0 or os.environ.get("CI"):
            arguments.append("--no-sandbox")
        return {"executable_path": str(self.path), "args": arguments, "env": {**os.environ, **self.env}}


def require_browser() -> Browser:
    """The browser for this run. Without one the test is skipped, loudly, or fails under `CI=true`."""
    browser = find_browser()
    if browser is None:
        absent(f"the browser tests: no Chromium found; {HOW}")
    return browser


@cache
def find_browser() -> Browser | None:
    """The browser for this run; None when there is none."""
    if "PLAYWRIGHT_NODEJS_PATH" not in os.environ:
        os.environ["PLAYWRIGHT_NODEJS_PATH"] = str(build.node())
    if named := os.environ.get("HUB_CHROMIUM"):
        return Browser(f"HUB_CHROMIUM={named}", Path(named))
    return _packaged() or _system() or _playwrights()


def _packaged() -> Browser | None:
    if sys.platform != "linux" or platform.machine() != "x86_64" or not (PACKAGE / "bin").is_dir():
        return None
    version = json.loads((PACKAGE / "package.json").read_text())["version"]
    place = ROOT / ".cache" / f"chromium-{version}"
    place.parent.mkdir(exist_ok=True)
    if not place.exists():
        # Several pytest workers may get here at once.
        with (place.parent / "chromium.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not place.exists():
                _unpack(place)
    env = {}
    if _misses_libraries(place / "chromium"):
        found = [str(place / "lib"), os.environ.get("LD_LIBRARY_PATH", "")]
        env["LD_LIBRARY_PATH"] = os.pathsep.join(part for part in found if part)
    if not shutil.which("fc-list") and not Path("/etc/fonts/fonts.conf").exists():
        env["FONTCONFIG_PATH"] = str(place / "fonts")
    return Browser(f"@sparticuz/chromium {version}", place / "chromium", env)


def _unpack(place: Path) -> None:
    """The package's four archives, complete at `place` or not at all."""
    partial = place.with_name(place.name + ".new")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    for archive in sorted((PACKAGE / "bin").glob("*.br")):
        target = partial / archive.name.removesuffix(".br")
        subprocess.run([str(build.node()), "-e", _UNPACK, str(archive), str(target)], check=True)
        if target.suffix == ".tar":
            folder = partial / ("" if target.stem in ("al2023", "swiftshader") else "fonts")
            with tarfile.open(fileobj=io.BytesIO(target.read_bytes())) as tar:
                # Python 3.11.2 (Debian 12) has no filters yet; npm has checked the archive's hash.
                safe: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
                tar.extractall(folder, **safe)
            target.unlink()
    fonts = partial / "fonts"
    if (fonts / "fonts").is_dir():  # the archive holds a folder of that name
        for file in (fonts / "fonts").iterdir():
            file.rename(fonts / file.name)
        (fonts / "fonts").rmdir()
    (fonts / "fonts.conf").write_text(
        '<?xml version="1.0"?><!DOCTYPE fontconfig SYSTEM "fonts.dtd">\n'
        f"<fontconfig><dir>{place / 'fonts'}</dir><dir>{ROOT}/hub/web/node_modules/@fontsource</dir>"
        f"<cachedir>{place / 'font-cache'}</cachedir></fontconfig>\n"
    )
    partial.rename(place)


def _misses_libraries(binary: Path) -> bool:
    """Would the system's own libraries leave it without libnss3 or others?"""
    found = subprocess.run(["ldd", str(binary)], capture_output=True, text=True, check=False)
    return found.returncode != 0 or "not found" in found.stdout


def _system() -> Browser | None:
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return Browser(path, Path(path))
    return None


def _playwrights() -> Browser | None:
    """One that `playwright install` has put here, found by its folder: no event loop is in the way."""
    homes = [
        Path(os.environ.get("PLAYWRIGHT_BROWSERS_PATH") or "/nonexistent"),
        Path.home() / ".cache" / "ms-playwright",
        Path.home() / "Library" / "Caches" / "ms-playwright",
    ]
    patterns = ("chromium-*/chrome-linux*/chrome", "chromium-*/chrome-mac*/*.app/Contents/MacOS/*")
    for home in homes:
        found = [path for pattern in patterns for path in home.glob(pattern)]
        if found:
            return Browser("playwright's chromium", max(found))
    return None
