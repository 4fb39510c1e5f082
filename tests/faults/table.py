"""What the fault scenarios measured, for the table at the end of a run."""

from dataclasses import dataclass, field


@dataclass
class Row:
    """One scenario. Times in seconds; counts that are not 0 are failures."""

    scenario: str
    detect_seconds: float | None = None
    converge_seconds: float | None = None
    lost: int = 0
    partial: int = 0
    false_removals: int = 0
    duplicates: int = 0
    false_unloads: int = 0

    def faults(self) -> dict[str, int]:
        """Return the counts that must be 0."""
        return {
            "lost": self.lost,
            "partial": self.partial,
            "false removals": self.false_removals,
            "duplicates": self.duplicates,
            "false unloads": self.false_unloads,
        }


@dataclass
class Table:
    """The rows of one run."""

    rows: list[Row] = field(default_factory=list)

    def lines(self) -> list[str]:
        """Return the table as text."""
        counts = f"{'lost':>6}{'partial':>8}{'false rm':>9}{'twice':>6}{'unloads':>8}"
        head = f"{'scenario':<58}{'detect ms':>10}{'converge ms':>12}{counts}"
        return [head, *(_line(row) for row in self.rows)]


def _line(row: Row) -> str:
    detect, converge = _milliseconds(row.detect_seconds), _milliseconds(row.converge_seconds)
    counts = f"{row.lost:>6}{row.partial:>8}{row.false_removals:>9}{row.duplicates:>6}{row.false_unloads:>8}"
    return f"{row.scenario:<58}{detect:>10}{converge:>12}{counts}"


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.0f}"
