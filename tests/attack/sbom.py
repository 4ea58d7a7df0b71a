"""What the product is made of, as CycloneDX 1.6 JSON, from the lock files alone.

python -m tests.attack.sbom > sbom.json

Components of the product have scope `required`, those of its tests and build `excluded`. Licences of Python
packages are read from what is installed, those of npm packages stand in their lock.
"""

from __future__ import annotations

import json
import re
import sys
import uuid
from importlib import metadata
from pathlib import Path
from typing import Any

from hub import __version__, bootstrap

ROOT = Path(__file__).resolve().parents[2]
LOCKS = ("requirements.lock", "requirements-test.lock")
NPM = ROOT / "hub" / "web" / "package-lock.json"
#: Of packages that other systems or Pythons need and this one has not installed.
ELSEWHERE = {
    "async-timeout": "Apache-2.0", "colorama": "BSD-3-Clause", "hatchling": "MIT", "tomlkit": "MIT",
    "trove-classifiers": "Apache-2.0", "exceptiongroup": "MIT", "pywin32": "PSF-2.0", "tomli": "MIT",
    "greenlet": "MIT AND PSF-2.0", "winloop": "MIT",
}  # fmt: skip
#: npm packages whose lock does not say: read from their files.
UNSTATED = {"httpntlm": "MIT", "stack-trace": "MIT"}
#: What authors write, as SPDX says it.
SPELLINGS = {
    "Apache 2": "Apache-2.0", "Apache 2.0": "Apache-2.0", "MIT License": "MIT",
    "Apache Software License": "Apache-2.0",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0", "Python Software Foundation License": "PSF-2.0",
    "BSD License": "BSD-3-Clause",
}  # fmt: skip


def licence_of(name: str) -> str:
    """An SPDX expression; "" when nothing says."""
    try:
        found = metadata.metadata(name)
    except metadata.PackageNotFoundError:
        return ELSEWHERE.get(name, "")
    expression = found.get("License-Expression")
    if expression:
        return str(expression)
    if "Permission is hereby granted, free of charge" in (found.get("License") or ""):
        return "MIT"
    stated = (found.get("License") or "").strip().splitlines()
    if stated and len(stated[0]) < 40:
        return SPELLINGS.get(stated[0], stated[0])
    classified = [
        c.split("::")[-1].strip() for c in found.get_all("Classifier") or [] if c.startswith("License")
    ]
    if classified:
        return SPELLINGS.get(classified[0], classified[0])
    return ""


def python_components() -> list[dict[str, Any]]:
    """One a package and version, with the hashes of its files."""
    product = {bootstrap.name_of(e) for e in bootstrap.lock_entries(ROOT / LOCKS[0])}
    found: dict[str, dict[str, Any]] = {}
    for lock in LOCKS:
        for entry in bootstrap.lock_entries(ROOT / lock):
            name = bootstrap.name_of(entry)
            version = re.match(r"[^=]+==([^\s;\\]+)", entry)
            assert version is not None, entry
            purl = f"pkg:pypi/{name}@{version[1]}"
            found[purl] = {
                "type": "library", "bom-ref": purl, "name": name, "version": version[1], "purl": purl,
                "scope": "required" if name in product else "excluded",
                "hashes": [{"alg": "SHA-256", "content": h} for h in re.findall(r"--hash=sha256:(\w{64})",
                entry)],
                "licenses": _licenses(licence_of(name)),
            }  # fmt: skip
    return [found[p] for p in sorted(found)]


def npm_components() -> list[dict[str, Any]]:
    packages = json.loads(NPM.read_text(encoding="utf-8"))["packages"]
    found = []
    for path, package in sorted(packages.items()):
        if not path:
            continue
        name = path.rpartition("node_modules/")[2]
        purl = f"pkg:npm/{name.replace('@', '%40', 1)}@{package['version']}"
        alg, _, digest = package.get("integrity", "").partition("-")
        hashes = [{"alg": "SHA-512", "content": _hex(digest)}] if alg == "sha512" else []
        found.append({
            "type": "library", "bom-ref": f"{purl}#{path}", "name": name, "version": package["version"],
            "purl": purl,
            "scope": "excluded" if package.get("dev") or package.get("devOptional") else "required",
            "hashes": hashes, "licenses": _licenses(package.get("license") or UNSTATED.get(name, "")),
        })  # fmt: skip
    return found


def document() -> dict[str, Any]:
    components = [*python_components(), *npm_components()]
    serial = uuid.uuid5(uuid.NAMESPACE_URL, "".join(c["bom-ref"] for c in components))
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application", "bom-ref": "connectgain-hub", "name": "connectgain-hub",
                "version": __version__,
                "licenses": _licenses("Apache-2.0"),
            }
        },
        "components": components,
    }  # fmt: skip


def _licenses(expression: str) -> list[dict[str, Any]]:
    if not expression:
        return []
    if re.search(r" (?:AND|OR|WITH) ", expression):
        return [{"expression": expression}]
    return [{"license": {"id": expression}}]


def _hex(base64_text: str) -> str:
    import base64

    return base64.b64decode(base64_text).hex()


if __name__ == "__main__":
    json.dump(document(), sys.stdout, indent=1)
