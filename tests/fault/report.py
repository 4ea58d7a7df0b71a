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
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
TABLE = ROOT / "docs" / "reliability.md"
RECORDS = ROOT / ".cache" / "faults.json"
_HEAD = """# Reliability: what was broken on purpose, and what was seen

Each row is a test that starts the whole product (hubs, workers, PostgreSQL, Valkey, the provider's double),
breaks something, and then checks that nothing was lost, doubled, disordered or shown to the wrong eyes
(`tests/fault/README.md` lists what is checked). `make faults` runs them and rewrites this table;
there a missed goal fails its row. Machine of this run: {machine}.

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
    code = subprocess.call([sys.executable, "-P", "-m", "pytest", *folders, *rest], cwd=ROOT, env=env)
    if report.exists():
        write(
            gather(
                report,
                profile,
                " ".join(["make faults", *([f'ARGS="{" ".join(arguments)}"'] * bool(arguments))]),
            )
        )
        print(f"wrote {TABLE.relative_to(ROOT)}")
    return code


def gather(report: Path, profile: str, command: str) -> dict[str, Any]:
    """The kept rows with those of this run in place of their earlier ones."""
    kept: dict[str, Any] = json.loads(RECORDS.read_text()) if RECORDS.exists() else {}
    run = {
        "profile": profile,
        "command": command,
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "commit": subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
        ).stdout.strip(),
    }
    fresh: dict[str, Any] = {}
    for line in report.read_text().splitlines():
        record = json.loads(line)
        known = fresh.get(record["test"])
        if known is None or known["outcome"] == "passed":  # a failed call is not mended by its teardown
            fresh[record["test"]] = {**record, **run}
    kept.update(fresh)
    RECORDS.write_text(json.dumps(kept, indent=1))
    return kept


def write(records: dict[str, Any]) -> None:
    rows = []
    for record in sorted(records.values(), key=lambda r: (order(r["id"]), r["test"])):
        result = {"passed": "pass", "failed": "**fail**", "skipped": "not run"}[record["outcome"]]
        seen = record["figures"] or record["why"].removeprefix("Skipped: ")
        run = f"{record['date']}, {record['commit']}, `{record['command']}`, {record['seconds']:.0f} s"
        method = record["method"].split(". ")[0].rstrip(".")
        cells = (record["id"], method, seen, result, str(record["seed"] or ""), run)
        rows.append("| " + " | ".join(c.replace("|", "\\|").replace("\n", " ") for c in cells) + " |")
    TABLE.write_text(_HEAD.format(machine=machine()) + "\n".join(rows) + "\n")


def order(id: str) -> tuple[int, str, int]:
    family, number = id.split("-")
    families = "DNIOQWSX"
    return (families.index(family) if family in families else 99, family, int(number))


def machine() -> str:
    """Cores and memory: figures mean little without."""
    memory = re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())
    gib = int(memory[1]) / 1024**2 if memory else 0
    return f"{os.cpu_count()} cores, {gib:.0f} GiB"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
