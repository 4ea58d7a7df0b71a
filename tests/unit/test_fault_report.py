"""docs/reliability.md: a run's rows take the place of their earlier ones, the others stay."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.fault import report


def test_rows_are_replaced_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "TABLE", tmp_path / "reliability.md")

    def run(*records: dict[str, object], whole: str | None = None) -> list[str]:
        lines = tmp_path / "lines"
        given = [{"why": "", "seed": 7, "seconds": 1.0, "figures": "", "when": "call", **r} for r in records]
        lines.write_text("".join(json.dumps(r) + "\n" for r in given))
        report.write(report.rows_of(lines, "2026-01-01, abc, `make faults`"), whole)
        return report.kept()

    passed = {"id": "D-10", "test": "t.py::test_D10_x", "method": "Stop a hub. Then on.", "outcome": "passed"}
    failed = {
        "id": "D-02",
        "test": "t.py::test_D02_x[hold]",
        "method": "Kill.",
        "outcome": "failed",
        "figures": "a 1",
    }
    torn_down = {**failed, "outcome": "passed", "when": "teardown"}
    rows = run(passed, failed, torn_down)
    assert [row.split(" | ")[0] for row in rows] == ["| D-02", "| D-10"], "in the order of the specification"
    assert "| Kill (hold) | a 1 | **fail** | 7 |" in rows[0]
    assert "| Stop a hub |" in rows[1]
    rows = run({**failed, "outcome": "passed"})
    assert len(rows) == 2
    assert "| pass |" in rows[0]
    skipped = {**passed, "outcome": "skipped", "why": "Skipped: needs root"}
    assert "| needs root | not run |" in run(skipped)[1]
    for n in range(12):
        run(passed, whole=f"| 2026-01-{n + 1:02}, abc, `make faults` | {n} | 2 | 0 | 0 | 40 |")
    runs = report.kept(r"\d{4}-")
    assert [line.split(" | ")[1] for line in runs] == [str(n) for n in range(2, 12)], (
        "the ten last whole runs"
    )
    assert len(report.kept()) == 2
    assert report.counts(run(failed, passed)) == "1 | 1 | 0"
