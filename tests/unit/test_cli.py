"""The command line: help, exit codes, and what it reads from the data folder."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from hub.cli import cli
from hub.run import console_line

KEYS = {
    "anon_key": "anon",
    "service_role_key": "service",
    "publishable_key": "sb_publishable_x",
    "secret_key": "sb_secret_x",
    "organization_id": "00000000-0000-7000-8000-000000000001",
    "organization_key": "cg_x",
    "owner": {"email": "owner@example.com", "password": "secret"},
}


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    for name in ("HUB_DATA_DIR", "DATABASE_URL", "HUB_MIGRATE_URL", "REDIS_URL", "HUB_SECRET_KEY"):
        monkeypatch.delenv(name, raising=False)
    return CliRunner()


def test_every_command_has_an_example(runner: CliRunner) -> None:
    assert set(cli.commands) >= {
        "run",
        "serve",
        "work",
        "sandbox",
        "migrate",
        "seed",
        "keys",
        "status",
        "doctor",
    }
    for name in cli.commands:
        shown = runner.invoke(cli, [name, "--help"])
        assert shown.exit_code == 0, shown.output
        assert "Example:" in shown.output or hasattr(cli.commands[name], "commands"), name


def test_exit_codes(runner: CliRunner, tmp_path: Path) -> None:
    assert runner.invoke(cli, ["--help"]).exit_code == 0
    assert runner.invoke(cli, ["run", "--port", "0"]).exit_code == 2
    assert runner.invoke(cli, ["fly"]).exit_code == 2
    assert runner.invoke(cli, ["keys", "--data-dir", str(tmp_path)]).exit_code == 1


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, hub.cli; "
        "print(*{'asyncpg', 'aiohttp', 'stripe', 'redis', 'phonenumbers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("\n", "")


def test_keys_as_json_has_exactly_the_promised_names(runner: CliRunner, tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_text(json.dumps(KEYS))
    (tmp_path / "runtime.json").write_text(json.dumps({"url": "http://127.0.0.1:8123"}))
    shown = runner.invoke(cli, ["keys", "--json"], env={"HUB_DATA_DIR": str(tmp_path)})
    assert json.loads(shown.output) == {"url": "http://127.0.0.1:8123", **KEYS}


def test_keys_without_an_instance_says_what_to_do(runner: CliRunner, tmp_path: Path) -> None:
    shown = runner.invoke(cli, ["keys", "--json"], env={"HUB_DATA_DIR": str(tmp_path)})
    assert shown.exit_code == 1
    assert "HUB_DATA_DIR" in shown.output and "Traceback" not in shown.output


def test_status_of_nothing(runner: CliRunner, tmp_path: Path) -> None:
    shown = runner.invoke(cli, ["status", "--json", "--data-dir", str(tmp_path)])
    assert shown.exit_code == 1
    assert json.loads(shown.output)["running"] is False


def test_a_bad_setting_ends_a_process_with_its_name(runner: CliRunner) -> None:
    environ = {
        "DATABASE_URL": "postgresql://h/d",
        "REDIS_URL": "redis://h",
        "HUB_SECRET_KEY": "k" * 44,
        "HUB_RATE_REST": "many",
    }
    shown = runner.invoke(cli, ["doctor", "--json"], env=environ)
    assert shown.exit_code == 1
    bad = [check for check in json.loads(shown.output)["checks"] if check["level"] == "fail"]
    assert len(bad) == 1 and "HUB_RATE_REST" in bad[0]["said"]


def test_doctor_before_the_first_start_only_warns(runner: CliRunner, tmp_path: Path) -> None:
    shown = runner.invoke(cli, ["doctor", "--json", "--data-dir", str(tmp_path / "none yet")])
    report = json.loads(shown.output)
    assert shown.exit_code == 0 and report["ok"] is True
    assert all(check["todo"] for check in report["checks"] if check["level"] != "ok")


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (b'{"level":"info","event":"http.request"}\n', None),
        (b"\n", None),
        (b'{"level":"warning","event":"pool.slow","waited_ms":900}\n', "pool.slow waited_ms=900"),
        (b'{"level":"error","event":"work.failed","timestamp":"now","exception":"long"}\n', "work.failed"),
        (b"Traceback (most recent call last):\n", "Traceback (most recent call last):"),
    ],
)
def test_the_console_shows_warnings_and_what_is_no_log_line(line: bytes, shown: str | None) -> None:
    assert console_line(line) == shown
