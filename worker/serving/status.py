"""How every adapter stands on this worker, and which of that has not been told yet.

What is reported is put together when it is asked for, from what is wanted (`entry`) and what is held
(`residency`), so it cannot contradict them. Not here: telling it (`reporter`).
"""

import asyncio
from dataclasses import replace

from loradrop.catalog.status import WorkerAdapter, WorkerState
from loradrop.worker.outcomes import NameTaken
from loradrop.worker.serving.entries import Names
from loradrop.worker.serving.entry import Entry
from loradrop.worker.serving.residency import Residency


class Changes:
    """The names of which there is something new to say. `bell` is set whenever there are any."""

    def __init__(self) -> None:
        self._names: set[str] = set()
        self.bell = asyncio.Event()

    def note(self, name: str) -> None:
        """Say that `name` has changed."""
        self._names.add(name)
        self.bell.set()

    def take(self) -> set[str]:
        """Return the names noted since the last call."""
        self.bell.clear()
        names, self._names = self._names, set()
        return names


class Standing:
    """What this worker has made of each adapter."""

    def __init__(self, names: Names, residency: Residency, changes: Changes) -> None:
        """Tell of `names` as `residency` has them."""
        self._names = names
        self._residency = residency
        self._changes = changes
        self.bell = changes.bell
        """Set whenever there is something new to report."""

    def take_changes(self) -> dict[str, WorkerAdapter | None]:
        """Return what changed since the last call, by name; None where there is nothing left to say."""
        changed = {name: self._names.get(name) for name in self._changes.take()}
        return {name: self._report(entry) if entry else None for name, entry in changed.items()}

    def picture(self) -> dict[str, WorkerAdapter]:
        """Return all there is to report, by name."""
        reports = {entry.name: self._report(entry) for entry in self._names}
        return {name: report for name, report in reports.items() if report is not None}

    def counts(self) -> dict[str, int]:
        """Return how many adapters are in each state on this worker."""
        counts: dict[str, int] = dict.fromkeys(WorkerState, 0)
        for entry in self._names:
            serving = self._residency.revision_of(entry.name)
            state = entry.state(serving, is_barred=self._names.is_taken(entry.name))
            if state is not WorkerState.LISTED or entry.wanted is not None:  # else the catalog counts it
                counts[state] += 1
        return counts

    def totals(self) -> tuple[int, int]:
        """Return how many revisions are in the engine, and how many are pinned."""
        return self._residency.totals()

    def _report(self, entry: Entry) -> WorkerAdapter | None:
        barred = NameTaken().reason if self._names.is_taken(entry.name) else None
        report = entry.report(self._residency.revision_of(entry.name), barred=barred)
        return replace(report, revisions=self._residency.revisions_of(entry.name)) if report else None
