"""Which names this worker knows, and when it may drop one.

A name is added by the catalog or by a manual load. It is dropped only once nothing is desired, being tried or
loaded for it: until then requests may be finishing on what was loaded. Not here: what is known of one name
(`entry`), what the engine has loaded for it (`residency`).
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

from loradrop.catalog.adapter import Adapter, AdapterState
from loradrop.worker.places.residency import Residency
from loradrop.worker.places.timings import TIMINGS, Timings
from loradrop.worker.serving.entry import Entry

_UNDECIDED = frozenset({AdapterState.SETTLING, AdapterState.INCOMPLETE, AdapterState.UNKNOWN})
"""States that say nothing against the revision there was before."""


class Entries:
    """Invariant: every name that has anything desired, being tried or loaded has its entry here."""

    def __init__(
        self,
        residency: Residency,
        *,
        is_taken: Callable[[str], bool],
        changed: Callable[[str], None],
        timings: Timings = TIMINGS,
    ) -> None:
        """Start empty; call `changed` with each name whose report may have changed."""
        self._residency = residency
        self._changed = changed
        self._timings = timings
        self._entries: dict[str, Entry] = {}
        self._removed: set[str] = set()
        self.is_taken = is_taken
        """Whether the base model or a static module has a name now, so that no adapter can."""

    def __iter__(self) -> Iterator[Entry]:
        """Iterate over all entries, in no order."""
        return iter(self._entries.values())

    def get(self, name: str) -> Entry | None:
        """Return the entry of `name`, or None."""
        return self._entries.get(name)

    def get_or_add(self, name: str) -> Entry:
        """Return the entry of `name`, added if there was none."""
        return self._entries.setdefault(name, Entry(name, retries=self._timings.retries()))

    def set_desired(self, name: str, adapter: Adapter) -> Entry:
        """Record what the catalog says of `name`, and return its entry."""
        entry = self.get_or_add(name)
        entry.adapter = _with_known_revision(adapter, entry.adapter)
        self._removed.discard(name)
        self._changed(name)
        return entry

    def remove(self, name: str) -> None:
        """Record that `name` is not in the catalog: unless it was loaded manually, drain it."""
        entry = self._entries.get(name)
        if entry is None:
            return
        entry.adapter, entry.fault = None, None
        self._removed.add(name)
        if entry.manual is None:
            self._residency.drain(name)
        self.drop_if_empty(entry)
        self._changed(name)

    def drop_if_empty(self, entry: Entry) -> None:
        """Drop the name if nothing is desired, being tried or loaded for it."""
        if entry.adapter is not None or entry.manual is not None or entry.tries:
            return
        if self._residency.has_loaded(entry.name):
            return
        self._entries.pop(entry.name, None)
        self._removed.discard(entry.name)

    def needs_visit(self) -> list[Entry]:
        """Return what can change without an event: all that is loaded, and what is to be dropped."""
        return [self._entries[name] for name in self._residency.names() | self._removed]


def _with_known_revision(adapter: Adapter, before: Adapter | None) -> Adapter:
    """Return `adapter` with the revision it had before, where a new watcher just does not know it.

    A watcher that took over an emptied Redis cannot know which revision was ready before an update began.
    """
    if adapter.revision is not None or adapter.state not in _UNDECIDED or before is None:
        return adapter
    return replace(adapter, revision=before.revision, size_bytes=before.size_bytes)
