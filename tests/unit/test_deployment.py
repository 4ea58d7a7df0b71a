"""Makefile, Procfile, compose file and CI entry say what the documents promise."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from hub.settings import load_settings

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    found = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found


def test_each_make_target_is_one_line_over_the_script() -> None:
    recipes = re.findall(r"^(\w+): ; (.*)$", (ROOT / "Makefile").read_text(), re.M)
    assert {name for name, _ in recipes} >= {"run", "test", "install", "lint", "migrate"}
    for name, recipe in recipes:
        assert recipe == f"@exec $(BOOTSTRAP) {name} $(ARGS)"


def test_the_procfile_starts_what_exists() -> None:
    lines = (ROOT / "Procfile").read_text().splitlines()
    commands = dict(line.split(": ", 1) for line in lines)
    assert commands == {
        "web": "python -m hub serve",
        "worker": "python -m workers",
        "release": "python -m hub migrate",
    }


def test_compose_runs_two_hubs_and_two_workers_behind_a_proxy(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert set(services) >= {"postgres", "valkey", "migrate", "hub", "worker", "proxy"}
    assert services["hub"]["deploy"]["replicas"] == 2
    assert services["worker"]["deploy"]["replicas"] == 2
    assert services["hub"]["command"][1:] == ["-m", "hub", "serve"]
    assert services["worker"]["command"][1:] == ["-m", "workers"]
    assert services["postgres"]["image"].split(":")[1].startswith("18")
    published = {name for name, service in services.items() if service.get("ports")}
    assert published == {"proxy", "sandbox"}
    assert all(port.startswith("127.0.0.1:") for port in services["sandbox"]["ports"])


def test_compose_waits_for_the_migration(compose: dict[str, Any]) -> None:
    for name in ("hub", "worker"):
        waits = compose["services"][name]["depends_on"]
        assert waits["migrate"]["condition"] == "service_completed_successfully"
    # Killing sooner than hub and worker promise to be gone would cut their farewell short.
    assert compose["services"]["hub"]["stop_grace_period"] == "20s"
    assert compose["services"]["worker"]["stop_grace_period"] == "35s"


@pytest.mark.parametrize("name", ["hub", "worker", "migrate"])
def test_compose_gives_settings_that_the_hub_accepts(compose: dict[str, Any], name: str) -> None:
    given = {"HUB_SECRET_KEY": "k" * 44, "HUB_RUNTIME_PASSWORD": "r", "POSTGRES_PASSWORD": "p"}

    def fill(value: str) -> str:
        return re.sub(
            r"\$\{(\w+)(?::([-?])([^}]*))?\}",
            lambda found: given.get(found[1], found[3] if found[2] == "-" else ""),
            value,
        )

    environ = {key: fill(str(value)) for key, value in compose["services"][name]["environment"].items()}
    settings = load_settings(environ)
    assert settings.database_url == "postgresql://hub_runtime:r@postgres:5432/hub"
    assert (settings.migrate_url is not None) == (name == "migrate")


def test_compose_has_no_secret_with_a_default(compose: dict[str, Any]) -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    for name in ("HUB_SECRET_KEY", "HUB_RUNTIME_PASSWORD", "POSTGRES_PASSWORD"):
        uses = re.findall(rf"\$\{{{name}([^}}]*)\}}", text)
        assert uses and any(use.startswith(":?") for use in uses)
        assert not any(use.startswith(":-") for use in uses)


def test_ci_types_what_the_readme_says() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert "export CI=true" in script.read_text() and "\nmake test" in script.read_text()
