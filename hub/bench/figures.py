"""Figures of rounds: their medians, ratios within a round, the goals they are held against, and how they are
written down."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence

import msgspec

#: A load client this busy may have been the limit itself; its rows are lower bounds.
BUSY_CLIENT = 0.8


class Goal(msgspec.Struct, frozen=True):
    """What a figure is held against. ``measured`` is None when the rows it needs were not there."""

    text: str
    measured: float | None
    bound: float
    at_most: bool = False
    unit: str = "×"

    @property
    def met(self) -> bool | None:
        if self.measured is None:
            return None
        return self.measured <= self.bound if self.at_most else self.measured >= self.bound


class Table(msgspec.Struct):
    """A heading, columns by heading, and rows of ready texts; the first column stands left, the others
    right."""

    title: str
    columns: list[str]
    rows: list[list[str]]
    notes: list[str] = []


class Report(msgspec.Struct):
    """What one benchmark found."""

    name: str
    command: str
    tables: list[Table]
    goals: list[Goal]
    notes: list[str]
    #: Medians: case → row → figure.
    figures: dict[str, dict[str, dict[str, float]]] = {}
    took_s: float = 0.0
    versions: dict[str, str] = {}


def say(text: str) -> None:
    """Progress: to standard error, so that what was found stands alone on standard output."""
    print(text, file=sys.stderr, flush=True)


class Rounds:
    """Figures by (case, row), one set a round, in the order in which they came."""

    def __init__(self) -> None:
        self.found: dict[tuple[str, str], list[dict[str, float]]] = {}

    def add(self, case: str, row: str, figures: Mapping[str, float]) -> None:
        """Keep one round of a row and print it, so that a long run shows where it is."""
        self.found.setdefault((case, row), []).append(dict(figures))
        shown = "  ".join(f"{name} {brief(value)}" for name, value in figures.items())
        say(f"  {case:<24} {row:<40} {shown}")

    def median(self, case: str, row: str, name: str) -> float | None:
        values = [f[name] for f in self.found.get((case, row), ()) if name in f]
        return statistics.median(values) if values else None

    def total(self, name: str, rows: Iterable[str] | None = None) -> float:
        """Sum of ``name`` over all rounds, of the given rows or all."""
        wanted = None if rows is None else set(rows)
        return sum(
            f.get(name, 0)
            for (_, row), rounds in self.found.items()
            if wanted is None or row in wanted
            for f in rounds
        )

    def medians(self) -> dict[str, dict[str, dict[str, float]]]:
        """All of them: case → row → figure."""
        found: dict[str, dict[str, dict[str, float]]] = {}
        for (case, row), rounds in self.found.items():
            names = {name: None for figures in rounds for name in figures}
            found.setdefault(case, {})[row] = {
                name: statistics.median([f[name] for f in rounds if name in f]) for name in names
            }
        return found

    def ratio(self, name: str, of: tuple[str, str], to: tuple[str, str]) -> float | None:
        """Median over rounds of one row's figure divided by another's of the same round: the machine's swing
        falls out of it. None when a row is missing."""
        pairs = zip(self.found.get(of, ()), self.found.get(to, ()), strict=False)
        ratios = [a[name] / b[name] for a, b in pairs if name in a and b.get(name)]
        return statistics.median(ratios) if ratios else None

    def goal(
        self,
        text: str,
        name: str,
        of: tuple[str, str],
        to: tuple[str, str],
        bound: float,
        *,
        at_most: bool = False,
    ) -> Goal:
        return Goal(text, self.ratio(name, of, to), bound, at_most)

    def table(self, title: str, columns: Sequence[tuple[str, str]], notes: Sequence[str] = ()) -> Table:
        """Medians of all rows; ``columns`` are (figure, heading). A busy load client gets a note."""
        rows, busy = [], []
        for case, row in self.found:
            cells = [case, row]
            for name, _ in columns:
                value = self.median(case, row, name)
                cells.append("" if value is None else percent(value) if name == "client" else brief(value))
            rows.append(cells)
            if (self.median(case, row, "client") or 0) >= BUSY_CLIENT:
                busy.append(f"{case}, {row}")
        said = list(notes)
        if busy:
            said.append(
                f"The load client was at least {BUSY_CLIENT:.0%} busy, so these rows are lower bounds: "
                + "; ".join(busy)
                + "."
            )
        return Table(title, ["case", "row", *(heading for _, heading in columns)], rows, said)


def brief(value: float) -> str:
    """Three digits that say something, thousands apart."""
    size = abs(value)
    if size >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if size >= 10 else f"{value:.2f}" if size >= 0.1 else f"{value:.3f}"


def percent(value: float) -> str:
    return f"{value:.0%}"


def quantile(ordered: Sequence[float], share: float) -> float:
    """Of an ascending sequence; 0 for an empty one."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


def lines(table: Table) -> list[str]:
    """A Markdown table that also reads well in a terminal."""
    grid = [table.columns, *table.rows]
    widths = [max(len(row[n]) for row in grid) for n in range(len(table.columns))]

    def line(cells: Sequence[str]) -> str:
        placed = [
            cell.ljust(width) if n < 2 else cell.rjust(width)
            for n, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return "| " + " | ".join(placed) + " |"

    rule = "|" + "|".join("-" * (w + 2) if n < 2 else "-" * (w + 1) + ":" for n, w in enumerate(widths)) + "|"
    return [line(table.columns), rule, *(line(row) for row in table.rows)]


def goal_table(goals: Sequence[Goal]) -> Table:
    rows = []
    for goal in goals:
        sign = "≤" if goal.at_most else "≥"
        measured = "not measured" if goal.measured is None else brief(goal.measured) + goal.unit
        verdict = {True: "met", False: "**missed**", None: "–"}[goal.met]
        rows.append([goal.text, f"{sign} {brief(goal.bound)}{goal.unit}", measured, verdict])
    return Table("Goals", ["goal", "wanted", "measured", ""], rows)


def markdown(report: Report) -> str:
    """One benchmark as a section's body."""
    parts: list[str] = []
    for table in report.tables:
        parts += [f"**{table.title}**", "", *lines(table), ""]
        for note in table.notes:
            parts += [note, ""]
    if report.goals:
        parts += [*lines(goal_table(report.goals)), ""]
    parts += [f"- {note}" for note in report.notes]
    versions = ", ".join(f"{name} {version}" for name, version in sorted(report.versions.items()))
    if versions:
        parts += ["", f"Versions: {versions}."]
    parts += ["", f"`{report.command}`, {report.took_s:,.0f} s."]
    return "\n".join(parts).strip() + "\n"
