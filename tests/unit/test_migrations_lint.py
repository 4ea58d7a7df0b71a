"""Migrations are linted: a released database is changed without long locks (guarantees 20)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from hub.db.migrate import migration_files

#: What squawk says of tables that are made in the same release is noise: nobody holds a lock on them yet.
FIRST_RELEASE = "0008"
#: Not ours: integers count small things, the pool sets the time-outs, names are enough without IF NOT EXISTS.
EXCLUDED = "prefer-bigint-over-int,prefer-robust-stmts,require-lock-timeout,require-statement-timeout"


def lint(files: list[Path]) -> list[str]:
    """`file:line: rule` for each finding."""
    squawk = Path(sys.executable).parent / "squawk"
    done = subprocess.run(
        [str(squawk), "--reporter", "json", "--pg-version", "18.0", "--exclude", EXCLUDED, *map(str, files)],
        capture_output=True,
        text=True,
        check=False,
    )
    found = json.loads(done.stdout or "[]")
    return [f"{Path(f['file']).name}:{f['line']}: {f['rule_name']}" for f in found]


def test_later_migrations_take_no_long_locks() -> None:
    files = [f for f in migration_files() if f.name > FIRST_RELEASE + "~"]
    assert not files or lint(files) == []


def test_the_first_schema_has_no_other_findings() -> None:
    """Foreign keys and indexes on tables that are a moment old lock nobody; everything else would be a
    finding."""
    harmless = (
        "adding-foreign-key-constraint",
        "require-concurrent-index-creation",
        "constraint-missing-not-valid",
    )
    assert [f for f in lint(migration_files()) if not f.endswith(harmless)] == []


def test_the_lint_finds_a_dangerous_migration(tmp_path: Path) -> None:
    bad = tmp_path / "0099_bad.sql"
    bad.write_text(
        "alter table messages alter column content set not null;\ncreate index i on messages (content);\n"
    )
    assert {f.rsplit(" ", 1)[1] for f in lint([bad])} >= {
        "adding-not-nullable-field",
        "require-concurrent-index-creation",
    }
