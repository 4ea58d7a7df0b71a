"""Makefile, Procfile, compose file and CI entry say what the documents promise."""

from __future__ import annotations

import os
import re
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from hub.sandbox.config import SandboxConfig
from hub.settings import Settings, load_settings

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


#: What whoever starts it must choose.
CHOSEN = {
    "HUB_SECRET_KEY": "k" * 44,
    "HUB_RUNTIME_PASSWORD": "r",
    "POSTGRES_PASSWORD": "p",
    "META_APP_SECRET": "the-apps-secret",
    "META_VERIFY_TOKEN": "the-apps-token",
}
HUBS = ("hub-1", "hub-2")


def fill(text: str, **given: str) -> str:
    """``text`` as Compose interpolates it. Fails on a variable that must be given and is not."""
    known = CHOSEN | given

    def one(found: re.Match[str]) -> str:
        assert found[1] in known or found[2] == "-", f"{found[1]} is needed"
        return known.get(found[1], found[3])

    return re.sub(r"\$\{(\w+)(?::([-?])([^}]*))?\}", one, text)


def settings_of(compose: dict[str, Any], name: str, **given: str) -> Settings:
    environment = compose["services"][name]["environment"]
    return load_settings({key: fill(str(value), **given) for key, value in environment.items()})


def test_compose_runs_two_hubs_and_two_workers_behind_a_proxy(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert set(services) == {"postgres", "valkey", "migrate", *HUBS, "worker", "proxy", "sandbox"}
    assert services["worker"]["deploy"]["replicas"] == 2
    for name in HUBS:
        assert services[name]["command"][1:] == ["-m", "hub", "serve"]
    assert services["worker"]["command"][1:] == ["-m", "workers"]
    assert services["postgres"]["image"].split(":")[1].startswith("18")
    caddyfile = compose["configs"]["caddyfile"]["content"]
    assert "reverse_proxy hub-1:8080 hub-2:8080" in caddyfile
    assert set(services["proxy"]["depends_on"]) == set(HUBS)


def test_compose_publishes_to_this_machine_alone_unless_told(compose: dict[str, Any]) -> None:
    ports = {name: s["ports"] for name, s in compose["services"].items() if s.get("ports")}
    assert ports.keys() == {"proxy", "sandbox"}
    for given in ports.values():
        assert all(fill(port).startswith("127.0.0.1:") for port in given)
    assert fill(ports["proxy"][0], HUB_BIND="0.0.0.0", HUB_PORT="80") == "0.0.0.0:80:8080"


def test_compose_waits_for_the_migration(compose: dict[str, Any]) -> None:
    for name in (*HUBS, "worker"):
        waits = compose["services"][name]["depends_on"]
        assert waits["migrate"]["condition"] == "service_completed_successfully"
    # Killing sooner than hub and worker promise to be gone would cut their farewell short.
    assert {compose["services"][name]["stop_grace_period"] for name in HUBS} == {"20s"}
    assert compose["services"]["worker"]["stop_grace_period"] == "35s"


@pytest.mark.parametrize("name", [*HUBS, "worker", "migrate"])
def test_compose_gives_settings_that_the_hub_accepts(compose: dict[str, Any], name: str) -> None:
    settings = settings_of(compose, name)
    assert settings.database_url == "postgresql://hub_runtime:r@postgres:5432/hub"
    assert (settings.migrate_url is not None) == (name == "migrate")


@pytest.mark.parametrize("name", HUBS)
def test_compose_believes_its_own_proxy_about_addresses(compose: dict[str, Any], name: str) -> None:
    config = compose["networks"]["default"]["ipam"]["config"][0]
    proxy = compose["services"]["proxy"]["networks"]["default"]["ipv4_address"]
    assert ip_address(proxy) in ip_network(config["subnet"])
    assert ip_address(proxy) not in ip_network(config["ip_range"]), "else another container may take it"
    assert settings_of(compose, name).trusted_proxies == (proxy, "127.0.0.1")
    # Whoever ends TLS in front of the proxy is believed by both, or by neither.
    behind = settings_of(compose, name, HUB_FRONT_PROXY="172.30.77.1")
    assert behind.trusted_proxies == (proxy, "172.30.77.1")
    caddyfile = compose["configs"]["caddyfile"]["content"]
    assert "trusted_proxies static 127.0.0.1\n" in fill(caddyfile)
    assert "trusted_proxies static 172.30.77.1\n" in fill(caddyfile, HUB_FRONT_PROXY="172.30.77.1")


def test_compose_keeps_each_hubs_spool_on_a_volume_of_its_own(compose: dict[str, Any]) -> None:
    kept = {}
    for name in HUBS:
        settings = settings_of(compose, name)
        assert settings.webhook_spool
        volume, place = compose["services"][name]["volumes"][0].split(":")
        assert settings.data_dir.is_relative_to(place)
        assert volume in compose["volumes"], "a named one: it outlives the container"
        assert "replicas" not in compose["services"][name].get("deploy", {})
        kept[name] = volume
    assert len(set(kept.values())) == len(HUBS)


@pytest.mark.parametrize("name", CHOSEN)
def test_compose_has_no_secret_with_a_default(compose: dict[str, Any], name: str) -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    uses = re.findall(rf"\$\{{{name}([^}}]*)\}}", text)
    assert uses and any(use.startswith(":?") for use in uses)
    assert all(use == "" or use.startswith(":?") for use in uses)
    assert "sandbox-app-secret" not in text


def test_the_demo_of_compose_is_a_profile(compose: dict[str, Any]) -> None:
    assert [n for n, s in compose["services"].items() if s.get("profiles")] == ["sandbox"]
    assert compose["services"]["sandbox"]["profiles"] == ["demo"]
    for name in (*HUBS, "worker", "migrate"):
        settings = settings_of(compose, name)
        assert not settings.demo and not settings.sandbox
        assert settings.meta_graph_base == "https://graph.facebook.com"
        assert settings_of(compose, name, HUB_DEMO="on").demo


def test_the_sandbox_of_compose_signs_with_the_hubs_secret_and_knows_no_other(
    compose: dict[str, Any],
) -> None:
    config = msgspec.json.decode(fill(compose["configs"]["sandbox"]["content"]), type=SandboxConfig)
    hub = settings_of(compose, "hub-1")
    assert hub.meta_app_secret is not None and hub.meta_verify_token is not None
    assert config.app_secret == hub.meta_app_secret.reveal() == CHOSEN["META_APP_SECRET"]
    assert config.verify_token == hub.meta_verify_token.reveal() == CHOSEN["META_VERIFY_TOKEN"]
    assert config.allow_remote
    assert compose["services"]["sandbox"]["environment"] == {}


def test_ci_types_what_the_readme_says() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert "export CI=true" in script.read_text() and "\nmake test" in script.read_text()
