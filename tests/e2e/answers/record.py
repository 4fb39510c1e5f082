"""What the catalog held and how far the worker had come, from outside, for the judge."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

from loradrop.catalog.errors import CatalogUnavailable
from loradrop.catalog.events import AdapterEvent, EventType
from loradrop.catalog.revision import short
from loradrop.catalog.status import WorkerStatus
from loradrop.catalog.store import Connection, Reader, Reports
from tests.e2e.answers.judge import Applied, Offer

_LOOK_SECONDS = 0.02


class Record:
    """Follows one catalog and the reports of its one worker until cancelled.

    What changes once it is `following` is known with the time at which it was published; what the listing
    showed was published at some time before.
    """

    def __init__(self, connection: Connection) -> None:
        self._reader = Reader(connection, block_seconds=0.5)
        self._reports = Reports(connection)
        self.following = False
        self._offers: dict[str, list[Offer]] = {}
        self._applied: list[Applied] = []

    @property
    def offers(self) -> Mapping[str, Sequence[Offer]]:
        return self._offers

    @property
    def applied(self) -> Sequence[Applied]:
        return self._applied

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow())
            tasks.create_task(self._look())

    def published(self, name: str) -> str | None:
        """Return the revision the catalog holds now, as far as is known here."""
        return self._offers[name][-1].revision if name in self._offers else None

    async def _follow(self) -> None:
        listing = await self._reader.listing()
        now = time.time()
        for name, adapter in listing.adapters.items():
            self._offers[name] = [Offer(now, listing.seq, adapter.revision and short(adapter.revision))]
        cursor = listing.cursor
        self.following = True
        while True:
            events: list[tuple[str, AdapterEvent]] = []
            with suppress(CatalogUnavailable):  # this process was starved: the same entries are read again
                events = await self._reader.events_after(cursor)
            for entry_id, event in events:
                cursor = entry_id
                revision = None if event.type is EventType.DELETED else event.revision
                offer = Offer(_written_at(entry_id), event.seq, revision and short(revision))
                if self.published(event.name) != offer.revision:
                    self._offers.setdefault(event.name, []).append(offer)

    async def _look(self) -> None:
        while True:
            workers: Mapping[str, WorkerStatus] = {}
            with suppress(CatalogUnavailable):  # looked at again
                workers = await self._reports.workers()
            for worker in workers.values():
                if not self._applied or self._applied[-1].seq != worker.observed_seq:
                    self._applied.append(Applied(time.time(), worker.observed_seq))
            await asyncio.sleep(_LOOK_SECONDS)


def _written_at(entry_id: str) -> float:
    """Return when an entry of the stream was written, by Redis's clock, in whole milliseconds before."""
    return int(entry_id.partition("-")[0]) / 1000
