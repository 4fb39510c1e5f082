"""What the catalog holds, as far as this watcher knows, and the writing of it.

The mirror is listed when the lease is taken and follows every write, so that what differs from the disk can
be told without asking Redis. A write that is refused leaves it untouched: the watcher leads and lists again.
A watcher that stands by follows what the leader writes: should Redis lose it, the next leader remembers it.
"""

import asyncio
import logging
import time
from collections import ChainMap, Counter
from collections.abc import AsyncGenerator, Iterable, Mapping
from datetime import UTC, datetime

from loradrop.catalog.adapter import Adapter, AdapterState, Reason, Revision
from loradrop.catalog.errors import LeaseHeld, LoradropError, ResyncNeeded
from loradrop.catalog.printable import printable
from loradrop.catalog.revision import short
from loradrop.catalog.status import WatcherStatus
from loradrop.catalog.store import Batch, Connection, Listing, Publisher, Reader, Withdrawal
from loradrop.watcher.publish.owner import is_dead

_logger = logging.getLogger(__name__)

_BLOCK_SECONDS = 0.5
_VERIFIED_AT_ONCE = 1_000
"""Records compared at each heartbeat: half a megabyte, some milliseconds."""
_GONE = Reason("gone", "Its directory is no longer in the prefix.")


class CatalogMirror:
    """One pool's catalog, written by this watcher. Invariant: `records` is what Redis last held."""

    def __init__(self, connection: Connection, *, owner: str) -> None:
        """Publish as `owner`."""
        self.owner = owner
        self._publisher = Publisher(connection, owner=owner)
        self._reader = Reader(connection, block_seconds=_BLOCK_SECONDS)
        self._followed: AsyncGenerator[Batch, None] | None = None
        self._writing = asyncio.Lock()
        """Held while Redis and `_records` may differ: a comparison in between would call that damage."""
        self._records: dict[str, Adapter] = {}
        self._lost: dict[str, Adapter] = {}
        self._counts: Counter[tuple[AdapterState, str]] = Counter()
        self._unverified: list[str] = []
        self._served_count = 0
        self._served: Mapping[str, Revision] | None = None

    @property
    def records(self) -> Mapping[str, Adapter]:
        """Every record, by name."""
        return self._records

    @property
    def remembered(self) -> Mapping[str, Adapter]:
        """The records, and those that Redis has lost since: what is served until something else is proven."""
        return ChainMap(self._records, self._lost) if self._lost else self._records

    @property
    def served_count(self) -> int:
        """How many records have a revision."""
        return self._served_count

    def served(self) -> Mapping[str, Revision]:
        """Return name -> revision of the records that have one, as it is now.

        The same object as long as nothing changes: many refreshes may keep it.
        """
        if self._served is None:
            self._served = {
                name: record.revision for name, record in self._records.items() if record.revision
            }
        return self._served

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

    @property
    def root(self) -> str:
        """The directory that the catalog expects at the prefix, as it was noted; empty where none was."""
        return self._publisher.root

    async def expect_root(self, root: str) -> None:
        """Note in the catalog that `root` is the directory to expect, where it does not say so already.

        Raises LeaseLost and the catalog's errors.
        """
        if root != self._publisher.root:
            await self._publisher.expect_root(root)

    async def lead(self) -> None:
        """Take the lease and list the catalog; raises LeaseHeld and the catalog's errors."""
        try:
            lease = await self._publisher.lead()
        except LeaseHeld as held:
            if not is_dead(held.owner):
                raise
            _logger.info("Lease of a dead watcher is taken over owner=%s", printable(held.owner))
            lease = await self._publisher.lead(presumed_dead=held.owner)
        await self._stop_following()
        await self._list()
        _logger.info(
            "Watcher leads epoch=%s fence=%s adapters=%s", lease.epoch, lease.fence, len(self._records)
        )

    async def stand_by(self, seconds: float) -> None:
        """Follow for about `seconds` what another watcher writes; raises the catalog's errors."""
        until = time.monotonic() + seconds
        try:
            while time.monotonic() < until:
                await self._follow()
        except LoradropError:
            await self._stop_following()
            raise

    async def write(self, records: Iterable[Adapter], gone: Iterable[str]) -> None:
        """Publish `records`, withdraw those of `gone` that are recorded, and remember both.

        Raises LeaseLost and the catalog's errors; then nothing is remembered.
        """
        gone = tuple(gone)
        async with self._writing:
            changes: list[Adapter | Withdrawal] = [
                *records,
                *(Withdrawal(name, _GONE) for name in gone if name in self._records),
            ]
            if changes:
                await self._publisher.publish(changes, catalog_size=len(self._records) + len(changes))
            for change in changes:
                _log(self._put(change.name, change if isinstance(change, Adapter) else None), change)
            for name in gone:
                self._lost.pop(name, None)

    async def complete(self) -> None:
        """Say that everything under the prefix is published; raises LeaseLost and the catalog's errors."""
        await self._publisher.complete()

    async def report(self, status: WatcherStatus) -> None:
        """Write the heartbeat, and compare the next records with Redis; raises LeaseLost and others."""
        await self._publisher.report(status)
        async with self._writing:
            self._unverified = self._unverified or list(self._records)
            names = self._unverified[:_VERIFIED_AT_ONCE]
            known = {name: self._records[name] for name in names if name in self._records}
            await self._publisher.verify(known, size=len(self._records))
            del self._unverified[:_VERIFIED_AT_ONCE]

    async def resign(self) -> None:
        """Give the lease back."""
        await self._publisher.resign()

    async def _list(self) -> Listing:
        listing = await self._reader.listing()
        known = self.remembered
        self._lost = {} if listing.complete else {n: known[n] for n in known if n not in listing.adapters}
        self._records = dict(listing.adapters) | {name: _illegible(name) for name in listing.unreadable}
        self._served = None
        self._counts = Counter(_kind(record) for record in self._records.values())
        self._served_count = sum(record.revision is not None for record in self._records.values())
        return listing

    async def _follow(self) -> None:
        try:
            if self._followed is None:
                self._followed = self._reader.follow(await self._list())
            for name, record in (await anext(self._followed)).changes.items():
                self._put(name, record)
        except ResyncNeeded:
            await self._stop_following()

    def _put(self, name: str, record: Adapter | None) -> Adapter | None:
        """Take in what the catalog holds now, and return what it held before."""
        self._served = None
        before = self._records.pop(name, None)
        self._lost.pop(name, None)
        if before is not None:
            self._counts[_kind(before)] -= 1
            self._served_count -= before.revision is not None
        if record is not None:
            self._records[name] = record
            self._served_count += record.revision is not None
            self._counts[_kind(record)] += 1
        return before

    async def _stop_following(self) -> None:
        if self._followed is not None:
            await self._followed.aclose()
            self._followed = None


def _kind(record: Adapter) -> tuple[AdapterState, str]:
    return record.state, record.reason.code if record.reason is not None else ""


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
    name, reason = printable(change.name), printable(str(change.reason))
    if isinstance(change, Withdrawal):
        _logger.info("Adapter is gone name=%s reason=%s", name, reason)
    elif change.revision is not None and (before is None or before.revision != change.revision):
        word = "added" if before is None or before.revision is None else "modified"
        _logger.info("Adapter is published name=%s type=%s revision=%s", name, word, short(change.revision))
    elif change.state is AdapterState.REJECTED:
        _logger.warning("Adapter is rejected name=%s reason=%s", name, reason)
    elif change.state is AdapterState.INCOMPLETE and not _is_same_reason(before, change):
        _logger.info("Adapter is held back name=%s reason=%s", name, reason)
    else:
        _logger.debug("Adapter is noted name=%s state=%s reason=%s", name, change.state, reason)


def _is_same_reason(before: Adapter | None, change: Adapter) -> bool:
    """Return whether only numbers differ: a copy under way is logged once."""
    if before is None or before.reason is None or change.reason is None:
        return False
    return before.state is change.state and before.reason.code == change.reason.code
