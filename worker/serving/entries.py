"""Which names this worker knows, and when it may forget one.

A name comes with the catalog or by hand. It goes only once nothing is wanted, under way or held for it:
until then requests may be finishing on what it had. Not here: what is known of one name (`entry`), what
the engine holds for it (`residency`).
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

from loradrop.catalog.adapter import Adapter, AdapterState
from loradrop.worker.serving.entry import Entry
from loradrop.worker.serving.residency import Residency

_DOUBTS = frozenset({AdapterState.SETTLING, AdapterState.INCOMPLETE, AdapterState.UNKNOWN})
"""States that say nothing against the revision there was before."""


class Names:
    """Keeps true: every name that anything is wanted, under way or held for has its entry here."""

    def __init__(
        self, residency: Residency, *, is_taken: Callable[[str], bool], changed: Callable[[str], None]
    ) -> None:
        """Know nothing yet; call `changed` with each name of which there is something new to say."""
        self._residency = residency
        self._changed = changed
        self._entries: dict[str, Entry] = {}
        self._lost: set[str] = set()
        self.is_taken = is_taken
        """Whether the base model or a static module has a name now, so that nothing else can."""

    def __iter__(self) -> Iterator[Entry]:
        """Iterate over everything known, in no order."""
        return iter(self._entries.values())

    def get(self, name: str) -> Entry | None:
        """Return what is known of `name`, or None."""
        return self._entries.get(name)

    def known(self, name: str) -> Entry:
        """Return what is known of `name`, which from now on is known."""
        return self._entries.setdefault(name, Entry(name))

    def want(self, name: str, adapter: Adapter) -> Entry:
        """Note what the catalog says of `name`, and return all that is known of it."""
        entry = self.known(name)
        entry.adapter = _in_doubt_as_before(adapter, entry.adapter)
        self._lost.discard(name)
        self._changed(name)
        return entry

    def lose(self, name: str) -> None:
        """Note that `name` is not in the catalog: unless it was loaded by hand, it serves nobody any more."""
        entry = self._entries.get(name)
        if entry is None:
            return
        entry.adapter, entry.fault = None, None
        self._lost.add(name)
        if entry.by_hand is None:
            self._residency.withdraw(name)
        self.drop_if_empty(entry)
        self._changed(name)

    def drop_if_empty(self, entry: Entry) -> None:
        """Forget the name if nothing is wanted, under way or held for it."""
        if entry.adapter is not None or entry.by_hand is not None or entry.loading:
            return
        if self._residency.revision_of(entry.name) or self._residency.is_leaving(entry.name):
            return
        self._entries.pop(entry.name, None)
        self._lost.discard(entry.name)

    def stirring(self) -> list[Entry]:
        """Return what has anything in the engine, or has to go: all that may change by itself."""
        return [self._entries[name] for name in self._residency.names() | self._lost]


def _in_doubt_as_before(adapter: Adapter, before: Adapter | None) -> Adapter:
    """Return `adapter` with the revision it had before, where that is only unknown to a new watcher.

    A watcher that took over an emptied Redis cannot know what was served before an update began.
    """
    if adapter.revision is not None or adapter.state not in _DOUBTS or before is None:
        return adapter
    return replace(adapter, revision=before.revision, size_bytes=before.size_bytes)
