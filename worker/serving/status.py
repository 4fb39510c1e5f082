"""The state of every adapter on this worker, and which names have changed since the last report.

What is reported is computed when it is asked for, from what is desired (`entry`) and what is loaded
(`residency`), so it cannot contradict them. Not here: reporting it (`reporter`).
"""

import asyncio
from collections.abc import Iterable
from dataclasses import replace

from loradrop.catalog.status import WorkerAdapter, WorkerState
from loradrop.worker.outcomes import NameTaken
from loradrop.worker.places.residency import Residency
from loradrop.worker.residency_metrics import Residents
from loradrop.worker.serving.entries import Entries
from loradrop.worker.serving.entry import Entry


class ChangedNames:
    """The names whose report may have changed. `wakeup` is set while there are any."""

    def __init__(self) -> None:
        self._names: set[str] = set()
        self.wakeup = asyncio.Event()

    def note(self, name: str) -> None:
        """Record that `name` has changed."""
        self._names.add(name)
        self.wakeup.set()

    def take(self) -> set[str]:
        """Return the names noted since the last call."""
        self.wakeup.clear()
        names, self._names = self._names, set()
        return names


class AdapterStatus:
    """What this worker reports of each adapter."""

    def __init__(self, entries: Entries, residency: Residency, changed: ChangedNames) -> None:
        """Report `entries` as `residency` has them."""
        self._entries = entries
        self._residency = residency
        self._changed = changed
        self.wakeup = changed.wakeup
        """Set whenever there is something new to report."""

    def take_changes(self) -> dict[str, WorkerAdapter | None]:
        """Return what changed since the last call, by name; None where nothing is left to report."""
        changed = {name: self._entries.get(name) for name in self._changed.take()}
        return {name: self._report(entry) if entry else None for name, entry in changed.items()}

    def snapshot(self) -> dict[str, WorkerAdapter]:
        """Return all there is to report, by name."""
        reports = {entry.name: self._report(entry) for entry in self._entries}
        return {name: report for name, report in reports.items() if report is not None}

    def counts(self) -> dict[str, int]:
        """Return how many adapters are in each state on this worker."""
        counts: dict[str, int] = dict.fromkeys(WorkerState, 0)
        for entry in self._entries:
            serving = self._residency.revision_of(entry.name)
            state = entry.state(serving, is_name_taken=self._entries.is_taken(entry.name))
            if state is not WorkerState.LISTED or entry.desired is not None:  # else the catalog counts it
                counts[state] += 1
        return counts

    def residents(self, static_names: Iterable[str], max_loras: int) -> Residents:
        """Return what is in the engine, used last first, with the `static_names` that vLLM loaded itself.

        From any thread: vLLM collects metrics in one of their own.
        """
        static, entries = tuple(static_names), list(self._entries)
        names = (*self._residency.names_by_last_use(), *static)
        waiting = sorted(entry.name for entry in entries if entry.tries and entry.name not in names)
        return Residents(names, tuple(waiting), self._residency.capacity + len(static), max_loras)

    def totals(self) -> tuple[int, int]:
        """Return how many revisions are in the engine, and how many are pinned."""
        return self._residency.totals()

    def _report(self, entry: Entry) -> WorkerAdapter | None:
        name_taken = NameTaken().reason if self._entries.is_taken(entry.name) else None
        report = entry.report(self._residency.revision_of(entry.name), name_taken=name_taken)
        return replace(report, revisions=self._residency.revisions_of(entry.name)) if report else None
