"""Imports point one way: what lies below never knows what lies above."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BASE = (
    "hub.domain",
    "hub.clock",
    "hub.errors",
    "hub.failpoints",
    "hub.settings",
    "hub.logs",
    "hub.metrics",
    "hub.processes",
)
MAY: dict[str, tuple[str, ...]] = {
    "sql": (),
    "hub/domain": ("hub.domain",),
    "hub/db": (*BASE, "sql", "hub.db", "hub.auth", "hub.channels.media_storage"),
    "hub/auth": (
        *BASE, "sql", "hub.db", "hub.auth", "hub.resources", "hub.limits", "hub.http_errors", "hub.edge",
        "hub.bodies", "hub.__version__",
    ),
    "hub/events": (*BASE, "sql", "hub.db", "hub.events"),
    "hub/actions": (
        *BASE, "sql", "hub.db", "hub.auth", "hub.events", "hub.actions", "hub.channels.limits",
        "hub.channels.media",
    ),
    "hub/sandbox": (
        *BASE, "hub.sandbox", "hub.channels.protocol", "hub.channels.limits", "hub.channels.signing",
        "hub.channels.whatsapp_cloud",
    ),
}  # fmt: skip
#: Provider modules know the vocabulary and HTTP's shapes, never the database.
ADAPTERS = ("protocol", "registry", "signing", "limits", "media", "whatsapp_cloud")


def imports(path: Path) -> set[str]:
    """Every module of ours that ``path`` imports, also inside functions; type-checking imports excepted."""
    found: set[str] = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {
                f"{node.module}.{alias.name}" if node.module in ("hub", "hub.channels") else node.module
                for alias in node.names
            }
    return {name for name in found if name.split(".")[0] in ("hub", "workers", "sql")}


def sources(folder: str) -> list[Path]:
    return [p for p in sorted((ROOT / folder).rglob("*.py")) if "node_modules" not in p.parts]


@pytest.mark.parametrize("folder", MAY)
def test_a_folder_knows_only_what_lies_below(folder: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in sources(folder)
        for name in sorted(imports(path))
        if not any(name == allowed or name.startswith(allowed + ".") for allowed in MAY[folder])
    ]
    assert wrong == []


def test_adapters_do_no_io() -> None:
    for stem in ADAPTERS:
        path = ROOT / "hub" / "channels" / f"{stem}.py"
        names = imports(path)
        assert all(n.startswith(("hub.domain", "hub.channels", "hub.clock")) for n in names), (stem, names)
        text = path.read_text(encoding="utf-8")
        assert "import aiohttp" not in text
        assert "import asyncpg" not in text


def test_hub_never_imports_workers_and_workers_never_the_web_server() -> None:
    assert [p for p in sources("hub") if any(n.split(".")[0] == "workers" for n in imports(p))] == []
    assert [p for p in sources("workers") if "aiohttp.web" in p.read_text(encoding="utf-8")] == []


def test_only_settings_reads_the_environment() -> None:
    allowed = {
        "hub/settings.py", "hub/failpoints.py", "hub/bootstrap.py", "hub/run.py", "hub/cli.py",
        "hub/doctor.py", "hub/processes.py", "hub/db/embedded.py",
        "hub/bench/stage.py",  # hands it on to the processes it measures
        "hub/bench/floor.py", "hub/web/build.py",
        "hub/web/hatch_build.py", "hub/sandbox/__main__.py", "workers/__main__.py",
    }  # fmt: skip
    readers = {
        str(p.relative_to(ROOT))
        for p in [*sources("hub"), *sources("workers"), *sources("sql")]
        if "os.environ" in p.read_text(encoding="utf-8") or "getenv" in p.read_text(encoding="utf-8")
    }
    assert readers - allowed == set()
