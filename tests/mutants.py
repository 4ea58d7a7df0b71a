"""Breaks the product on purpose, one guard after the other, and asks the test named beside it to notice.

    python -m tests.mutants                 all of tests/mutants.toml, about a quarter of an hour
    python -m tests.mutants fence-settle …  some
    python -m tests.mutants --json out.json

Works on a copy of the checkout. Every test is first seen to pass there; then each mutation is written into
the copy alone, its test is run, and the file is put back. Red is a test that ran and failed: what cannot be
collected or set up, is skipped or hangs shows nothing and counts as survived, for which the exit code is 1.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

import msgspec

ROOT: Final = Path(__file__).resolve().parent.parent
LIST: Final = Path(__file__).with_suffix(".toml")
#: Built, and the same for every mutation.
LINKED: Final = ("hub/web/dist", "hub/web/node_modules")
PYTHON: Final = Path(".venv/bin/python")
LONGEST_S: Final = 180.0


class Edit(msgspec.Struct, forbid_unknown_fields=True):
    """`old`, which stands in `file` exactly once, becomes `new`."""

    file: str
    old: str
    new: str


class Mutant(msgspec.Struct, forbid_unknown_fields=True):
    """One broken guard. `row`: what promises it (spec row or section); `test`: a node of pytest that must
    fail; `also`: further edits without which the first one would only break the build."""

    id: str
    guard: str
    row: str
    test: str
    file: str
    old: str
    new: str
    also: list[Edit] = []

    @property
    def edits(self) -> list[Edit]:
        return [Edit(self.file, self.old, self.new), *self.also]


class _List(msgspec.Struct, forbid_unknown_fields=True):
    mutant: list[Mutant]


class Case(msgspec.Struct):
    """One test of a report."""

    module: str
    name: str
    outcome: str
    message: str

    def belongs_to(self, node: str) -> bool:
        """Whether a node (a function, or one set of its parameters) names it."""
        path, _, name = node.partition("::")
        if self.module != path.removesuffix(".py").replace("/", "."):
            return False
        return self.name == name or self.name.startswith(f"{name}[")


class Verdict(msgspec.Struct):
    """What became of one mutation: red, survived or not green (its test fails without it)."""

    id: str
    guard: str
    row: str
    test: str
    outcome: str
    why: str
    took_s: float


def load() -> list[Mutant]:
    """All mutations, in the order of the file."""
    return msgspec.toml.decode(LIST.read_bytes(), type=_List).mutant


def mutated(text: str, edit: Edit) -> str:
    """Raises ValueError unless the old text stands there exactly once."""
    if (found := text.count(edit.old)) != 1:
        raise ValueError(f"{edit.file} holds the text of this mutation {found} times, not once: {edit.old!r}")
    return text.replace(edit.old, edit.new)


@contextmanager
def copied() -> Iterator[Path]:
    """A copy of the checkout as it is, new files included; gone afterwards."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, check=True
    )
    with tempfile.TemporaryDirectory(prefix="hub-mutants-") as folder:
        copy = Path(folder, "hub")
        for name in filter(None, listed.stdout.decode().split("\0")):
            place = copy / name
            place.parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / name).is_file():
                shutil.copy2(ROOT / name, place)
        for name in LINKED:
            if (ROOT / name).exists():
                (copy / name).symlink_to(ROOT / name)
        _furnish(copy / ".venv")
        _check(copy)
        yield copy


def _furnish(venv: Path) -> None:
    """An environment of the copy's own, with the packages of ours: whatever variables a test gives to the
    processes that it starts, they run the copy."""
    ours = Path(sys.prefix)
    packages = Path(sysconfig.get_path("purelib"))
    (venv / "bin").mkdir(parents=True)
    shutil.copy2(ours / "pyvenv.cfg", venv)
    for tool in (ours / "bin").iterdir():
        if not tool.name.startswith("python"):
            (venv / "bin" / tool.name).symlink_to(tool)
    (venv / "bin" / "python").symlink_to(Path(sys.executable).resolve())
    place = venv / packages.relative_to(ours)
    place.mkdir(parents=True)
    (place / "copy.pth").write_text(f"{venv.parent}\n{packages}\n", encoding="utf-8")


def _check(copy: Path) -> None:
    """Whether it is the copy that runs. Raises RuntimeError."""
    ask = "import hub, sql, workers; print(hub.__file__, sql.__file__, workers.__file__)"
    command = [str(copy / PYTHON), "-P", "-c", ask]
    told = subprocess.run(command, cwd="/", env={}, capture_output=True, text=True, check=True)
    for place in told.stdout.split():
        if not Path(place).is_relative_to(copy):
            raise RuntimeError(f"The tests would run {place} and not the copy in {copy}")


@contextmanager
def broken(copy: Path, mutant: Mutant) -> Iterator[None]:
    """The copy with the mutation; as before afterwards. Raises ValueError when it does not fit."""
    before: dict[Path, str] = {}
    after: dict[Path, str] = {}
    for edit in mutant.edits:
        path = copy / edit.file
        before.setdefault(path, path.read_text(encoding="utf-8"))
        after[path] = mutated(after.get(path, before[path]), edit)
    try:
        _write(after)
        yield
    finally:
        _write(before)


def _write(texts: dict[Path, str]) -> None:
    for path, text in texts.items():
        path.write_text(text, encoding="utf-8")
        # Compiled code is known by size and second, in which two of our texts may agree.
        Path(importlib.util.cache_from_source(str(path))).unlink(missing_ok=True)


def run(
    copy: Path, nodes: Sequence[str], longest_s: float, *options: str
) -> tuple[int | None, list[Case], str]:
    """pytest's exit code (None: it hung), its cases, and the end of what it said."""
    report, said = copy.parent / "report.xml", copy.parent / "said.log"
    report.unlink(missing_ok=True)
    command = [str(copy / PYTHON), "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=short"]
    command += [f"--junitxml={report}", *options, *nodes]
    with said.open("wb") as log:
        process = subprocess.Popen(
            command, cwd=copy, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
        try:
            code: int | None = process.wait(longest_s)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            _end(process)
    tail = "\n".join(said.read_text(errors="replace").splitlines()[-30:])
    return code, _cases(report), tail


def _end(process: subprocess.Popen[bytes]) -> None:
    """Stop pytest, if it still runs, so that it clears up; whatever is left of its group goes as well."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _cases(report: Path) -> list[Case]:
    if not report.exists():
        return []
    cases = []
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        outcome, message = "passed", ""
        for kind in ("skipped", "error", "failure"):
            if (found := case.find(kind)) is not None:
                outcome, message = kind, found.get("message", "")
        cases.append(Case(case.get("classname", ""), case.get("name", ""), outcome, message))
    return cases


def find_green(copy: Path, nodes: Sequence[str]) -> dict[str, str]:
    """Why a node is not green without any mutation; those that are green are left out."""
    functions = list(dict.fromkeys(node.partition("[")[0] for node in nodes))
    longest_s = LONGEST_S + 20 * len(functions)
    # One file that cannot be read must not hide the others.
    _, cases, tail = run(copy, functions, longest_s, "--continue-on-collection-errors")
    wrong = {}
    for node in nodes:
        mine = [c for c in cases if c.belongs_to(node)]
        if not mine or any(c.outcome != "passed" for c in mine):
            wrong[node] = _summary(mine) or f"it did not run: {tail[-300:]}"
    return wrong


def judge(copy: Path, mutant: Mutant) -> tuple[str, str]:
    """(red or survived, why)."""
    try:
        with broken(copy, mutant):
            code, cases, tail = run(copy, [mutant.test], LONGEST_S, "--exitfirst")
    except ValueError as error:
        return "survived", str(error)
    failed = [c for c in cases if c.outcome == "failure"]
    if code == 1 and failed:
        return "red", failed[0].message
    return "survived", "it hung" if code is None else _summary(cases) or f"exit code {code}: {tail[-300:]}"


def _summary(cases: Sequence[Case]) -> str:
    return "; ".join(f"{c.name}: {c.outcome} {c.message[:200]}".strip() for c in cases[:3])


def one_line(text: str, width: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= width else text[: width - 1] + "…"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.mutants", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("ids", nargs="*", metavar="id", help="these alone")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the verdicts there")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the copy goes, whatever ends us
    mutants = load()
    if unknown := set(options.ids) - {m.id for m in mutants}:
        parser.error(f"no mutation is called {', '.join(sorted(unknown))}")
    chosen = [m for m in mutants if not options.ids or m.id in options.ids]
    verdicts: list[Verdict] = []
    with copied() as copy:
        nodes = list(dict.fromkeys(m.test for m in chosen))
        print(f"{len(chosen)} mutations; first their {len(nodes)} tests without any", flush=True)
        not_green = find_green(copy, nodes)
        for mutant in chosen:
            began = time.monotonic()
            if mutant.test in not_green:
                outcome, why = "not green", not_green[mutant.test]
            else:
                outcome, why = judge(copy, mutant)
            verdict = Verdict(
                mutant.id, mutant.guard, mutant.row, mutant.test, outcome, why, time.monotonic() - began
            )
            verdicts.append(verdict)
            print(f"{outcome:<9} {mutant.id}: {mutant.guard} [{mutant.row}]", flush=True)
            print(f"          {mutant.test}\n          {one_line(why, 150)}", flush=True)
    if options.json is not None:
        options.json.write_bytes(msgspec.json.format(msgspec.json.encode(verdicts), indent=2))
    red = sum(v.outcome == "red" for v in verdicts)
    print(f"\n{red} of {len(verdicts)} broken guards were noticed")
    for verdict in verdicts:
        if verdict.outcome != "red":
            print(f"  {verdict.outcome}: {verdict.id} ({verdict.guard})")
    return 0 if red == len(verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
