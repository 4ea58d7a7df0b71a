"""The README's commands do what it says: its shell examples run as they stand against a running product."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from tests.e2e.web import Product

README = Path(__file__).resolve().parents[2] / "README.md"


def blocks(about: str) -> list[str]:
    """The shell blocks of one section."""
    section = README.read_text(encoding="utf-8").split(f"## {about}\n")[1].split("\n## ")[0]
    return re.findall(r"```sh\n(.*?)```", section, re.S)


def run(product: Product, script: str) -> subprocess.CompletedProcess[str]:
    """Run README text with this instance in place of the default one."""
    hub = f"{sys.executable} -P -m hub"
    script = script.replace("http://127.0.0.1:8080", product.url).replace(".venv/bin/hub", hub)
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script.replace("curl ", "curl -fsS ")],
        env={**os.environ, "HUB_DATA_DIR": str(product.data)},
        cwd=README.parent,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_keys_command_prints_what_programs_need(product: Product) -> None:
    done = run(product, blocks("Use the API")[0])
    keys = json.loads(done.stdout)
    assert set(keys) == {
        "url", "anon_key", "service_role_key", "publishable_key", "secret_key", "organization_id",
        "organization_key", "owner",
    }  # fmt: skip
    assert keys["url"] == product.url
    assert keys["organization_key"].startswith("cg_")
    assert keys["owner"]["password"] == product.password


def test_EXT_01_the_curl_examples_run_as_they_stand(product: Product) -> None:
    done = run(product, blocks("Use the API")[1])
    assert done.returncode == 0, done.stdout + done.stderr
    decoder, at, answers = json.JSONDecoder(), 0, []
    while at < len(done.stdout.rstrip()):
        answer, at = decoder.raw_decode(done.stdout, at)
        answers.append(answer)
        at += len(done.stdout[at:]) - len(done.stdout[at:].lstrip())
    recorded, contacts, created, events = answers
    assert recorded["success"] is True
    assert set(recorded["message"]) == {"id", "conversation_id", "contact_id"}
    assert contacts
    assert set(contacts[0]) == {"id", "first_name", "phones"}
    assert created[0]["first_name"] == "John"
    assert events["events"][0]["seq"] == 1


def test_the_commands_of_the_table_exist() -> None:
    text = "\n".join(blocks("Run it for real"))
    for command in re.findall(r"^hub (\w+)", text, re.M):
        done = subprocess.run(
            [sys.executable, "-P", "-m", "hub", command, "--help"], capture_output=True, check=False
        )
        assert done.returncode == 0, command


def test_every_document_linked_is_there() -> None:
    for document in [README, README.with_name("CONTRIBUTING.md"), README.with_name("ARCHITECTURE.md")]:
        for link in re.findall(r"\]\((?!http)([^)#]+)\)", document.read_text(encoding="utf-8")):
            assert (document.parent / link).exists(), (document.name, link)
