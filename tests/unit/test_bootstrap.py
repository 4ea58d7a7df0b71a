"""The set-up script: what it refuses, what it passes on, and that a second start does nothing."""

from __future__ import annotations

import ast
import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "hub" / "bootstrap.py"


def load(script: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"bootstrap_{abs(hash(script))}", script)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


bootstrap = load(SCRIPT)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout without .venv, in a folder with a space and Arabic letters."""
    place = tmp_path / "نسخة the hub"
    (place / "hub" / "web").mkdir(parents=True)
    for name in ("hub/bootstrap.py", "hub/web/build.py", "hub/web/package.json", "hub/web/package-lock.json",
                 "pyproject.toml", "requirements.lock", "requirements-test.lock"):  # fmt: skip
        shutil.copy(ROOT / name, place / name)
    return place


def run(checkout: Path, prelude: str, verb: str = "run") -> subprocess.CompletedProcess[str]:
    """The script as `python3 -I hub/bootstrap.py <verb>` runs it, after `prelude` has changed the machine."""
    script = checkout / "hub" / "bootstrap.py"
    code = f"import runpy, sys, os\n{prelude}\nsys.argv = [{str(script)!r}, {verb!r}]\n"
    code += f"runpy.run_path({str(script)!r}, run_name='__main__')"
    return subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=False)


def test_an_old_python_is_refused_with_its_version(checkout: Path) -> None:
    done = run(checkout, "sys.version_info, sys.version = (3, 9, 2, 'final', 0), '3.9.2 (main)'")
    assert done.returncode == 1
    assert "needs Python 3.11 or newer" in done.stdout and "is 3.9.2" in done.stdout


def test_an_old_python_can_read_the_script_that_refuses_it() -> None:
    ast.parse(SCRIPT.read_text(encoding="utf-8"), feature_version=(3, 7))


def test_only_the_standard_library_is_imported() -> None:
    nodes = list(ast.walk(ast.parse(SCRIPT.read_text(encoding="utf-8"))))
    names = {
        alias.name.split(".")[0] for node in nodes if isinstance(node, ast.Import) for alias in node.names
    }
    names |= {(node.module or "").split(".")[0] for node in nodes if isinstance(node, ast.ImportFrom)}
    assert names <= set(sys.stdlib_module_names)


def test_without_ensurepip_an_ordinary_user_is_told_what_to_type(checkout: Path) -> None:
    prelude = """
import importlib.util, shutil
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "ensurepip" else real(name, *rest)
shutil.which = lambda name: "/usr/bin/" + name
os.geteuid = lambda: 1000
"""
    done = run(checkout, prelude)
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert done.returncode == 1
    assert f"As root: apt-get install python{version}-venv. Then start again." in done.stderr
    assert "Traceback" not in done.stderr and not (checkout / ".venv").exists()


def test_a_failing_step_shows_its_last_lines_and_its_log(checkout: Path) -> None:
    prelude = """
import subprocess
real = subprocess.Popen
text = "import sys; [print('line', n) for n in range(50)]; sys.exit(3)"
subprocess.Popen = lambda command, **rest: real([sys.executable, "-c", text], **rest)
"""
    done = run(checkout, prelude)
    assert done.returncode == 1
    shown = re.findall(r"line (\d+)", done.stderr)
    assert shown == [str(number) for number in range(30, 50)]
    assert str(checkout / ".cache" / "setup-venv.log") in done.stderr


def test_an_unknown_word_is_a_usage_error(checkout: Path) -> None:
    assert run(checkout, "", verb="fly").returncode == 2


def test_a_second_start_writes_nothing_and_waits_for_nobody(checkout: Path) -> None:
    ours = load(checkout / "hub" / "bootstrap.py")
    python = checkout / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    (checkout / ".venv" / ".hub-run").write_text(ours.stamp_of("run"))
    web = ours.web_module()
    web.WEB, web.DIST = checkout / "hub" / "web", checkout / "hub" / "web" / "dist"
    web.DIST.mkdir()
    (web.DIST / ".hub-stamp").write_text(web._digest((*web.LOCKED, *web.SOURCES)))
    before = sorted((path, path.stat().st_mtime_ns) for path in checkout.rglob("*"))
    ours.set_up("run")
    assert sorted((path, path.stat().st_mtime_ns) for path in checkout.rglob("*")) == before


def test_a_changed_lock_or_a_moved_checkout_is_set_up_again(checkout: Path) -> None:
    ours = load(checkout / "hub" / "bootstrap.py")
    stamp = ours.stamp_of("run")
    assert stamp.endswith(str(checkout))
    (checkout / "requirements.lock").write_text("aiohttp==3.0\n")
    assert ours.stamp_of("run") != stamp


def test_a_run_is_content_with_what_the_tests_installed(checkout: Path) -> None:
    ours = load(checkout / "hub" / "bootstrap.py")
    python = checkout / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    (checkout / ".venv" / ".hub-test").write_text(ours.stamp_of("test"))
    assert ours.is_fresh("run") and ours.is_fresh("test")


def test_two_starts_at_once_take_turns(checkout: Path) -> None:
    (checkout / ".cache").mkdir()
    holder = "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.flock(f, 2); print(1, flush=True); input()"
    lock = checkout / ".cache" / "setup.lock"
    first = subprocess.Popen(
        [sys.executable, "-c", holder, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert first.stdout is not None and first.stdout.readline()
    with first:
        second = subprocess.Popen(
            [sys.executable, "-I", str(checkout / "hub" / "bootstrap.py"), "run"],
            stdout=subprocess.PIPE,
            text=True,
        )
        with second:
            assert second.stdout is not None
            lines = [second.stdout.readline(), second.stdout.readline()]
            second.terminate()
        first.terminate()
    assert "another set-up is at work" in lines[1]
    assert not (checkout / ".venv").exists()


PIP = """\
:env:.find-links='/srv/wheels'
global.cert='/etc/ssl/ours.pem'
global.extra-index-url='https://one.example/simple\\nhttps://two.example/simple'
global.find-links='/elsewhere'
global.index-url='https://mirror.example/simple'
global.proxy='http://proxy.example:3128'
install.trusted-host='mirror.example'
list.format='columns'
"""


def test_pips_configuration_reaches_uv() -> None:
    assert bootstrap.uv_settings(bootstrap.read_pip_configuration(PIP)) == {
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_NO_PROGRESS": "1",
        "UV_SYSTEM_CERTS": "1",
        "UV_DEFAULT_INDEX": "https://mirror.example/simple",
        "UV_INDEX": "https://one.example/simple https://two.example/simple",
        "UV_FIND_LINKS": "/srv/wheels",  # the variable wins over the file
        "UV_INSECURE_HOST": "mirror.example",
        "SSL_CERT_FILE": "/etc/ssl/ours.pem",
        "ALL_PROXY": "http://proxy.example:3128",
    }


def test_without_pip_configuration_uv_keeps_its_defaults() -> None:
    assert set(bootstrap.uv_settings(bootstrap.read_pip_configuration(""))) == {
        "UV_INDEX_STRATEGY",
        "UV_NO_PROGRESS",
        "UV_SYSTEM_CERTS",
    }


LOCKS = ("requirements.lock", "requirements-test.lock")


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_pins_and_hashes_everything_and_names_no_place(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert "://" not in text and "--index" not in text and "--find-links" not in text and " @ " not in text
    for entry in bootstrap.lock_entries(ROOT / name):
        assert re.match(r"[a-z0-9-]+==\S+", entry), entry
        assert "--hash=sha256:" in entry, entry


def test_the_test_lock_holds_the_run_lock() -> None:
    run_lock, test_lock = (set(bootstrap.lock_entries(ROOT / name)) for name in LOCKS)
    assert run_lock <= test_lock


def test_the_run_lock_holds_the_tools_of_set_up() -> None:
    names = {bootstrap.name_of(entry) for entry in bootstrap.lock_entries(ROOT / "requirements.lock")}
    assert set(bootstrap.TOOLS) <= names
