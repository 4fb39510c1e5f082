"""What the catalog holds, as far as this watcher knows, and the writing of it.

The mirror is listed when the lease is taken and follows every write, so that what differs from the disk can
be told without asking Redis. A write that is refused leaves it untouched: the watcher leads and lists again.
"""

import logging
from collections import ChainMap, Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

from catalog.adapter import Adapter, AdapterState
from catalog.errors import LeaseHeld
from catalog.revision import short
from catalog.status import WatcherStatus
from catalog.store import Connection, Listing, Publisher, Reader, Withdrawal
from watcher.names import shown
from watcher.ownership import is_dead

_logger = logging.getLogger(__name__)


class Ledger:
    """One pool's catalog, written by this watcher. Keeps true: `records` is what Redis last held."""

    def __init__(self, connection: Connection, *, owner: str) -> None:
        """Publish as `owner`."""
        self.owner = owner
        self._publisher = Publisher(connection, owner=owner)
        self._reader = Reader(connection)
        self._records: dict[str, Adapter] = {}
        self._lost: dict[str, Adapter] = {}
        self._epoch: str | None = None
        self._counts: Counter[tuple[AdapterState, str]] = Counter()

    @property
    def records(self) -> Mapping[str, Adapter]:
        """Every record, by name."""
        return self._records

    @property
    def remembered(self) -> Mapping[str, Adapter]:
        """The records, and those that Redis has lost since: what is served until something else is proven."""
        return ChainMap(self._records, self._lost) if self._lost else self._records

    @property
    def counts(self) -> dict[AdapterState, int]:
        """How many adapters are in each state on disk."""
        counts: Counter[AdapterState] = Counter()
        for (state, _), count in self.reasons.items():
            counts[state] += count
        return dict(counts)

    @property
    def reasons(self) -> dict[tuple[AdapterState, str], int]:
        """How many adapters are in each state for each reason code, which is empty for the ready."""
        return {kind: count for kind, count in self._counts.items() if count}

    @property
    def seq(self) -> int:
        """The catalog's sequence number after the last write."""
        return self._publisher.seq

    async def lead(self) -> None:
        """Take the lease and list the catalog; raises LeaseHeld and the catalog's errors."""
        try:
            lease = await self._publisher.lead()
        except LeaseHeld as held:
            if not is_dead(held.owner):
                raise
            _logger.info("Lease of a dead watcher is taken over owner=%s", held.owner)
            lease = await self._publisher.lead(presumed_dead=held.owner)
        listing = await self._reader.listing()
        self._lost = _missing(listing, self.remembered) if lease.epoch != self._epoch else {}
        self._epoch = lease.epoch
        self._records = dict(listing.adapters) | {name: _illegible(name) for name in listing.unreadable}
        self._counts = Counter(_kind(record) for record in self._records.values())
        _logger.info(
            "Watcher leads epoch=%s fence=%s adapters=%s", lease.epoch, lease.fence, len(self._records)
        )

    async def write(self, changes: Sequence[Adapter | Withdrawal]) -> None:
        """Publish `changes` and remember them; raises LeaseLost and the catalog's errors."""
        await self._publisher.publish(changes, catalog_size=len(self._records) + len(changes))
        for change in changes:
            before = self._records.pop(change.name, None)
            self._lost.pop(change.name, None)
            if before is not None:
                self._counts[_kind(before)] -= 1
            if isinstance(change, Adapter):
                self._records[change.name] = change
                self._counts[_kind(change)] += 1
            _log(before, change)

    def forget(self, names: Iterable[str]) -> None:
        """Remember nothing of `names` that Redis has lost: they are proven gone."""
        for name in names:
            self._lost.pop(shown(name), None)

    async def complete(self) -> None:
        """Say that everything under the prefix is published; raises LeaseLost and the catalog's errors."""
        await self._publisher.complete()

    async def report(self, status: WatcherStatus) -> None:
        """Write the heartbeat; raises LeaseLost and the catalog's errors."""
        await self._publisher.report(status)

    async def resign(self) -> None:
        """Give the lease back."""
        await self._publisher.resign()


def _kind(record: Adapter) -> tuple[AdapterState, str]:
    return record.state, record.reason.code if record.reason is not None else ""


def _missing(listing: Listing, remembered: Mapping[str, Adapter]) -> dict[str, Adapter]:
    return {name: record for name, record in remembered.items() if name not in listing.adapters}


def _illegible(name: str) -> Adapter:
    """Return what stands for a record that is not of our shape: it is replaced or withdrawn as any."""
    now = datetime.now(UTC)
    return Adapter(
        name=name,
        prefix="",
        path=name,
        revision=None,
        state=AdapterState.UNKNOWN,
        discovered_at=now,
        updated_at=now,
    )


def _log(before: Adapter | None, change: Adapter | Withdrawal) -> None:
    if isinstance(change, Withdrawal):
        _logger.info("Adapter is gone name=%s reason=%s", change.name, change.reason)
    elif change.revision is not None and (before is None or before.revision != change.revision):
        word = "added" if before is None or before.revision is None else "modified"
        _logger.info(
            "Adapter is published name=%s type=%s revision=%s", change.name, word, short(change.revision)
        )
    elif change.state is AdapterState.REJECTED:
        _logger.warning("Adapter is rejected name=%s reason=%s", change.name, change.reason)
    elif change.state is AdapterState.INCOMPLETE and not _says_the_same(before, change):
        _logger.info("Adapter is held back name=%s reason=%s", change.name, change.reason)
    else:
        _logger.debug("Adapter is noted name=%s state=%s reason=%s", change.name, change.state, change.reason)


def _says_the_same(before: Adapter | None, change: Adapter) -> bool:
    """Whether only numbers differ: a copy under way is told once."""
    if before is None or before.reason is None or change.reason is None:
        return before is not None and before.reason == change.reason
    return before.state is change.state and before.reason.code == change.reason.code
