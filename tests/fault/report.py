"""`make faults`: runs the fault tests at full size, one after another, and writes docs/reliability.md.

make faults                      the full profile
make faults ARGS=--nightly       with those that take long, and the attacks of tests/attack at full size
make faults ARGS="-k D_0"        some; the other rows of the table stay as they are
"""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
TABLE = ROOT / "docs" / "reliability.md"
KEPT_RUNS = 10
_ROW, _RUN = r"[A-Z]+-\d+ \|", r"\d{4}-\d\d-\d\d,"  # how the lines of its two tables begin
_HEAD = """# Reliability: what was broken on purpose, and what was seen

Each row is a test that starts the whole product (hubs, workers, PostgreSQL, Valkey, the provider's double),
breaks something, and then checks that nothing was lost, doubled, disordered or shown to the wrong eyes
(`tests/fault/README.md` lists what is checked). `make faults` runs them and rewrites this table;
there a missed goal fails its row. Machine of this run: {machine}.

Whole runs, each with random choices of its own (`HUB_FAULT_SEED=<seed> make faults` makes the same ones):

| run | seed | passed | failed | not run | minutes |
|---|--:|--:|--:|--:|--:|
{runs}

The last result of each test:

| test | method | seen | result | seed | run |
|---|---|---|---|--:|---|
"""


def main(arguments: list[str]) -> int:
    """pytest's exit code."""
    profile = "nightly" if "--nightly" in arguments else "full"
    rest = [a for a in arguments if a != "--nightly"]
    seed = os.environ.get("HUB_FAULT_SEED") or str(random.SystemRandom().randrange(1, 1_000_000))
    (ROOT / ".cache").mkdir(exist_ok=True)
    report = ROOT / ".cache" / "faults.jsonl"
    report.unlink(missing_ok=True)
    env = {
        **os.environ,
        "HUB_FAULT_PROFILE": profile,
        "HUB_FAULT_REPORT": str(report),
        "HUB_FAULT_SEED": seed,
    }
    print(f"profile {profile}, HUB_FAULT_SEED={seed}", flush=True)
    # Attacks at full size (50,000 generated requests, ten minutes of fuzzing a parser) are for the night.
    folders = ["tests/fault", "tests/attack"] if profile == "nightly" else ["tests/fault"]
    began = time.monotonic()
    code = subprocess.call([sys.executable, "-P", "-m", "pytest", *folders, *rest], cwd=ROOT, env=env)
    if report.exists():
        command = " ".join(["make faults", *([f'ARGS="{" ".join(arguments)}"'] if arguments else [])])
        run = f"{datetime.now(UTC):%Y-%m-%d}, {commit()}, `{command}`"
        rows = rows_of(report, run)
        minutes = (time.monotonic() - began) / 60
        write(rows, None if rest else f"| {run} | {seed} | {counts(rows)} | {minutes:.0f} |")
        print(f"wrote {TABLE.relative_to(ROOT)}")
    return code


def commit() -> str:
    return subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()


def rows_of(report: Path, run: str) -> list[str]:
    """A row of the table for each test that ran. `run`: date, commit and command."""
    records: dict[str, Any] = {}
    for line in report.read_text().splitlines():
        record = json.loads(line)
        known = records.get(record["test"])
        if known is None or known["outcome"] == "passed":  # a failed call is not mended by its teardown
            records[record["test"]] = record
    rows = []
    for record in records.values():
        result = {"passed": "pass", "failed": "**fail**", "skipped": "not run"}[record["outcome"]]
        why = record["why"].removeprefix("Skipped: ") if record["outcome"] == "skipped" else ""
        seen = record["figures"] or why
        variant = re.search(r"\[(.+)\]$", record["test"])
        method = record["method"].split(". ")[0].rstrip(".") + (f" ({variant[1]})" if variant else "")
        cells = (
            record["id"],
            method,
            seen,
            result,
            str(record["seed"] or ""),
            f"{run}, {record['seconds']:.0f} s",
        )
        rows.append("| " + " | ".join(c.replace("|", "/").replace("\n", " ") for c in cells) + " |")
    return rows


def counts(rows: list[str]) -> str:
    """How many passed, failed and did not run, as three cells."""
    results = [row.split("|")[4].strip() for row in rows]
    return " | ".join(str(results.count(result)) for result in ("pass", "**fail**", "not run"))


def write(fresh: list[str], whole_run: str | None) -> None:
    """The table with these rows in place of their earlier ones; a run of all tests joins those before it."""
    rows = {key_of(row): row for row in [*kept(_ROW), *fresh]}
    runs = kept(_RUN) + ([whole_run] if whole_run else [])
    head = _HEAD.format(machine=machine(), runs="\n".join(runs[-KEPT_RUNS:]))
    TABLE.write_text(head + "\n".join(sorted(rows.values(), key=order)) + "\n")


def kept(start: str = _ROW) -> list[str]:
    """The lines of the present page whose first cell begins like this, a pattern."""
    if not TABLE.exists():
        return []
    return [line for line in TABLE.read_text().splitlines() if re.match(rf"\| {start}", line)]


def key_of(row: str) -> tuple[str, str]:
    _, id, method, *_ = row.split("|")
    return id.strip(), method.strip()


def order(row: str) -> tuple[int, str, int, str]:
    id, method = key_of(row)
    family, number = id.split("-")
    families = "DNIOQWSX"
    return (families.index(family) if family in families else 99, family, int(number), method)


def machine() -> str:
    """Cores and memory: figures mean little without."""
    memory = re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())
    gib = int(memory[1]) / 1024**2 if memory else 0
    return f"{os.cpu_count()} cores, {gib:.0f} GiB"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
