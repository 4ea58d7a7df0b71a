"""What the product is made of: a bill of materials, licences, and advisories (X-27)."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hub import bootstrap
from hub.web import build
from tests.attack import sbom
from tests.attack.tools import ROOT, installed
from tests.needs import unreachable

#: Licences that may be part of what others install and change (Apache-2.0 product).
FINE = {
    "MIT", "MIT-0", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "0BSD", "ISC", "PSF-2.0", "MPL-2.0",
    "OFL-1.1",
    "Unlicense", "BlueOak-1.0.0", "CC0-1.0", "Python-2.0", "PostgreSQL", "WTFPL",
    "Zlib",
}  # fmt: skip
#: Advisories that do not concern us, each with its reason.
EXPLAINED: dict[str, str] = {}


@pytest.fixture(scope="module")
def bill() -> dict[str, Any]:
    return sbom.document()


def test_X27_the_bill_of_materials_holds_everything_that_is_locked(bill: dict[str, Any]) -> None:
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    assert re.fullmatch(r"urn:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", bill["serialNumber"])
    assert bill == sbom.document(), "the same locks give the same bill"
    names = {(c["name"], c["version"]) for c in bill["components"]}
    locked = {
        (bootstrap.name_of(e), re.split(r"[\s;\\]", e.split("==")[1])[0])
        for lock in sbom.LOCKS
        for e in bootstrap.lock_entries(ROOT / lock)
    }
    packages = json.loads(sbom.NPM.read_text(encoding="utf-8"))["packages"]
    locked |= {(p.rpartition("node_modules/")[2], v["version"]) for p, v in packages.items() if p}
    assert names == locked and len(names) > 200
    refs = [c["bom-ref"] for c in bill["components"]]
    assert len(set(refs)) == len(refs)
    for c in bill["components"]:
        assert c["purl"].startswith(("pkg:pypi/", "pkg:npm/")) and c["scope"] in ("required", "excluded")
        assert c["hashes"], c["name"]
        for h in c["hashes"]:
            assert re.fullmatch(r"[0-9a-f]{64}|[0-9a-f]{128}", h["content"])
    required = {c["name"] for c in bill["components"] if c["scope"] == "required"}
    assert {"aiohttp", "asyncpg", "cryptography", "react"} <= required and not {"pytest", "vitest"} & required


def test_X27_every_licence_is_known_and_may_be_shipped(bill: dict[str, Any]) -> None:
    wrong = []
    for c in bill["components"]:
        said = [entry.get("expression") or entry["license"]["id"] for entry in c["licenses"]]
        words = set(re.findall(r"[\w.-]+", " ".join(said))) - {"AND", "OR", "WITH"}
        any_of = [part for part in re.split(r" OR ", " ".join(said).strip("()")) if part]
        fine = words and (
            words <= FINE or any(set(re.findall(r"[\w.-]+", p)) - {"AND"} <= FINE for p in any_of)
        )
        if not fine:
            wrong.append((c["name"], c["version"], said))
    assert wrong == []


def test_X27_aiohttp_is_not_older_than_the_last_repair_that_we_rely_on() -> None:
    import aiohttp

    version = tuple(int(part) for part in aiohttp.__version__.split(".")[:3])
    assert version >= (3, 14, 1), "older ones inflate bodies that nobody reads"


def audit(*arguments: str | Path) -> dict[str, Any] | None:
    """pip-audit's findings; None when it cannot be had or cannot ask."""
    folder = installed("pip-audit")
    if folder is None:
        return None
    done = subprocess.run(
        [sys.executable, "-m", "pip_audit", *arguments, "--disable-pip", "-f", "json", "--progress-spinner",
        "off"],
        env={**os.environ, "PYTHONPATH": str(folder)}, capture_output=True, text=True, check=False,
        timeout=240,
    )  # fmt: skip
    try:
        found: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        return None
    return found


def test_X27_no_python_package_has_a_known_hole(tmp_path: Path) -> None:
    probe = tmp_path / "probe.txt"
    probe.write_text("aiohttp==3.14.5\n")
    asked = audit("-r", probe, "--no-deps")
    if asked is None or any("skip_reason" in d for d in asked["dependencies"]):
        unreachable(
            "the advisories for Python packages; where they can be read: pip-audit -r requirements.lock"
        )
    found = audit("-r", ROOT / "requirements.lock", "--require-hashes")
    assert found is not None
    holes = [
        (d["name"], v["id"])
        for d in found["dependencies"]
        for v in d.get("vulns", [])
        if v["id"] not in EXPLAINED
    ]
    assert holes == []


def test_X27_no_npm_package_has_a_known_hole() -> None:
    npm = build.MODULES.parent
    done = subprocess.run(
        [sys.executable, "-P", bootstrap.BUILD, "npm", "audit", "--json", "--omit=dev"],
        cwd=npm, env={**os.environ, **bootstrap.npm_environment()}, capture_output=True, text=True,
        check=False,
        timeout=120,
    )  # fmt: skip
    start = done.stdout.find("{")
    try:
        found = json.loads(done.stdout[start:])
    except ValueError:
        found = {}
    if "vulnerabilities" not in found:
        unreachable("the advisories for npm packages; where they can be read: npm audit in hub/web")
    holes = [
        (name, v["severity"])
        for name, v in found["vulnerabilities"].items()
        if v["severity"] in ("high", "critical") and name not in EXPLAINED
    ]
    assert holes == []
