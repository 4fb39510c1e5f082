"""A plan: what to write to the catalog, and what follows once it is written. A value; `planning` makes it."""

from collections.abc import Mapping
from dataclasses import dataclass

from loradrop.catalog.adapter import Adapter, AdapterState
from loradrop.watcher.prefix.findings import RootIdentity
from loradrop.watcher.state.removal import Absence


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to write, by name on disk.

    `considered` are the dirty names it covers, with their marks; `records` those that must be written;
    `removals` the names proven gone, with the proof. `look_again` says when (monotonic seconds) to examine
    the names whose absence is not proven yet. `held` are the names of a mass removal that is held back.
    `accepted_root` is the directory to expect at the prefix from now on, where that changes.
    """

    considered: Mapping[str, int]
    records: Mapping[str, Adapter]
    removals: Mapping[str, Absence]
    look_again: Mapping[str, float]
    held: frozenset[str] = frozenset()
    accepted_root: RootIdentity | None = None

    @property
    def published(self) -> list[str]:
        """The names whose revision is published or withdrawn."""
        ready = [name for name, record in self.records.items() if record.state is AdapterState.READY]
        return [*ready, *self.removals]
