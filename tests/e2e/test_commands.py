"""`hub run` as a newcomer uses it: it starts, says where it is, survives kills and leaves nothing behind."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from hub.db.embedded import free_port

START_S = 90.0  # generous: several people and builds may share the machine
KEYS = {
    "url", "anon_key", "service_role_key", "publishable_key", "secret_key", "organization_id",
    "organization_key", "owner",
}  # fmt: skip


def until(fact: Callable[[], bool], timeout_s: float = 60) -> None:
    """Wait for a fact; a failure after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not fact():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.05)


class Instance:
    """One `hub run` on a data folder and a port of its own."""

    def __init__(self, home: Path, port: int | None = None, **env: str) -> None:
        self.data = home / "data"
        self.port = port or free_port()
        kept = {
            name: value for name, value in os.environ.items() if name.split("_")[0] not in ("HUB", "META")
        }
        for name in ("DATABASE_URL", "REDIS_URL", "PUBLIC_BASE_URL"):
            kept.pop(name, None)
        self.env = {
            **kept,
            "HOME": str(home),
            "HUB_DATA_DIR": str(self.data),
            "HUB_PORT": str(self.port),
            **env,
        }
        self.output = ""
        self.process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        return f"http://{self.env.get('HUB_HOST', '127.0.0.1')}:{self.port}"

    def hub(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Another `hub` command about this instance."""
        command = [sys.executable, "-P", "-m", "hub", *arguments]
        return subprocess.run(command, env=self.env, capture_output=True, text=True, check=False)

    def begin(self) -> None:
        self.output = ""
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "hub", "run"],
            env=self.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, process_group=0,
        )  # fmt: skip
        threading.Thread(target=self._read, args=(self.process,), daemon=True).start()

    def start(self) -> None:
        self.begin()
        until(lambda: "Ctrl-C" in self.output or self.ended, START_S)
        assert not self.ended, self.output

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                self.output += line

    @property
    def ended(self) -> bool:
        return self.process is None or self.process.poll() is not None

    def processes(self) -> list[psutil.Process]:
        """The supervisor and everything below it."""
        assert self.process is not None
        top = psutil.Process(self.process.pid)
        return [top, *top.children(recursive=True)]

    def interrupt(self) -> int:
        """Ctrl-C; the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(60)

    def ready(self) -> bool:
        return get(f"{self.url}/readyz") == 200

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.hub("status", "--json").stdout)
        return found

    def keys(self) -> dict[str, Any]:
        done = self.hub("keys", "--json")
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found


def get(url: str) -> int:
    """The status, 0 when nobody answers."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as refused:
        refused.close()
        return refused.code
    except OSError:
        return 0


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A private home, as root's is, with a space and Arabic letters in its name."""
    place = tmp_path_factory.mktemp("home") / "بيت home"
    place.mkdir(mode=0o700)
    return place


@pytest.fixture(scope="module")
def instance(home: Path) -> Iterator[Instance]:
    """A running instance for all tests of this module; those that stop it start it again."""
    one = Instance(home)
    one.start()
    yield one
    if not one.ended:
        one.interrupt()


def test_the_start_says_where_everything_is(instance: Instance) -> None:
    block = instance.output[instance.output.index("  ConnectGain Hub") :].rstrip("\n").splitlines()
    assert len(block) <= 12
    text = "\n".join(block)
    owner = instance.keys()["owner"]
    for part in (instance.url, owner["email"], owner["password"], "/phone", "hub keys", "logs", "Ctrl-C"):
        assert part in text
    assert str(instance.data) in text
    # Warnings and worse come to the console; a good start has none.
    assert instance.output.lstrip().startswith("ConnectGain Hub")


def test_it_is_ready_when_it_says_so(instance: Instance) -> None:
    assert get(f"{instance.url}/healthz") == 200
    assert instance.ready()
    phone = instance.status()["phone_url"]
    assert get(phone) == 200


def test_keys_have_the_promised_names(instance: Instance) -> None:
    keys = instance.keys()
    assert set(keys) == KEYS and all(keys.values())
    assert set(keys["owner"]) == {"email", "password"} and all(keys["owner"].values())
    assert keys["url"] == instance.url
    assert keys["organization_key"].startswith("cg_")


def test_secrets_are_for_their_owner_alone(instance: Instance, home: Path) -> None:
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert stat.S_IMODE(instance.data.stat().st_mode) == 0o700
    for name in ("keys.json", "runtime.json", "secret_key", "postgres_password", "runtime_password"):
        assert stat.S_IMODE((instance.data / name).stat().st_mode) == 0o600, name


def test_a_second_start_on_the_same_data_is_refused(instance: Instance) -> None:
    done = Instance(instance.data.parent).hub("run")
    assert done.returncode == 1
    assert "HUB_DATA_DIR" in done.stderr and instance.url in done.stderr and "Traceback" not in done.stderr


def test_a_taken_port_is_refused_by_the_name_of_its_setting(instance: Instance, tmp_path: Path) -> None:
    done = Instance(tmp_path, port=instance.port).hub("run")
    assert done.returncode == 1
    assert "HUB_PORT" in done.stderr and str(instance.port) in done.stderr and "Traceback" not in done.stderr


def test_two_instances_run_side_by_side(instance: Instance, tmp_path: Path) -> None:
    other = Instance(tmp_path, HUB_HOST="127.0.0.2")  # HUB_HOST is honoured, too
    other.start()
    try:
        assert other.ready() and instance.ready()
        assert get(f"http://127.0.0.1:{other.port}/readyz") == 0
        mine, theirs = instance.keys(), other.keys()
        assert all(mine[name] != theirs[name] for name in ("url", "service_role_key", "organization_key"))
        ports = [*instance.status()["ports"].values(), *other.status()["ports"].values()]
        assert len(set(ports)) == len(ports)
    finally:
        assert other.interrupt() == 0
    assert instance.ready()


def test_doctor_finds_nothing_wrong(instance: Instance) -> None:
    done = instance.hub("doctor", "--json")
    report = json.loads(done.stdout)
    failed = [check for check in report["checks"] if check["level"] == "fail"]
    assert (done.returncode, failed) == (0, [])
    assert {"postgres", "row security", "migrations", "redis pub/sub"} <= {
        c["name"] for c in report["checks"]
    }


@pytest.mark.parametrize("name", ["hub", "worker", "sandbox", "valkey", "postgres"])
def test_a_killed_process_comes_back(instance: Instance, name: str) -> None:
    pid = instance.status()["processes"][name]
    os.kill(pid, signal.SIGKILL)

    def back() -> bool:
        found = instance.status()["processes"][name]
        return found is not None and found != pid and instance.ready()

    until(back)
    assert re.search(rf"{name} ended \(SIGKILL\); starting it again", instance.output)
    assert instance.keys()["url"] == instance.url


def test_ctrl_c_leaves_nothing_and_the_next_start_keeps_the_data(instance: Instance, home: Path) -> None:
    keys, processes = instance.keys(), instance.processes()
    assert len(processes) >= 6
    assert instance.interrupt() == 0
    assert psutil.wait_procs(processes, timeout=20)[1] == []
    assert "Traceback" not in instance.output
    assert instance.status()["running"] is False
    instance.start()
    assert instance.keys() == keys
    assert stat.S_IMODE(home.stat().st_mode) == 0o700


def test_migrate_without_a_running_instance_uses_its_database(instance: Instance) -> None:
    assert instance.interrupt() == 0
    done = instance.hub("migrate", "--check")
    assert (done.returncode, done.stdout.strip()) == (0, "up to date"), done.stderr
    instance.start()


@pytest.mark.skipif(sys.platform != "linux", reason="a parent-death signal is Linux's")
def test_a_killed_supervisor_leaves_nothing_behind(instance: Instance) -> None:
    processes = instance.processes()
    assert instance.process is not None
    instance.process.kill()
    instance.process.wait()
    assert psutil.wait_procs(processes, timeout=60)[1] == []
    instance.start()
    assert instance.ready()
