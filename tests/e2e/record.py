"""What the catalog and the worker said, and when: the judge of which answers were right.

An answer is right if its revision was current at some moment between the request's sending and its first
token. Current at a moment is what the catalog held then (from the time written in the event until the next
one was read from the stream), and what the worker had loaded then (its reports, which follow the truth:
from the report before the moment until the report after it), since an update is loaded beside the old one.
"""

import asyncio
import time
from dataclasses import dataclass

from loradrop.catalog.events import EventType
from loradrop.catalog.status import WorkerState
from loradrop.catalog.store import Connection, Reader, Reports

_LOOK_SECONDS = 0.02


@dataclass
class Span:
    """A revision (None: nothing) of a name, and when it held."""

    revision: str | None
    start: float
    end: float = float("inf")


class Record:
    """Follows one catalog and one worker's reports until cancelled."""

    def __init__(self, connection: Connection) -> None:
        self._reader = Reader(connection, block_seconds=0.5)
        self._reports = Reports(connection)
        self._catalog: dict[str, list[Span]] = {}
        self._worker: dict[str, list[Span]] = {}

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow())
            tasks.create_task(self._look())

    def published(self, name: str) -> str | None:
        """Return the revision the catalog holds now."""
        return self._catalog[name][-1].revision if name in self._catalog else None

    def current(self, name: str, start: float, end: float) -> set[str | None]:
        """Return what was current at some moment from `start` to `end`; None: there was nothing."""
        spans = [*self._catalog.get(name, []), *self._worker.get(name, [])]
        return {span.revision for span in spans if span.start <= end and span.end >= start}

    def was_offered(self, name: str, start: float, end: float) -> bool:
        """Return whether the catalog held the name from `start` to `end` without a break."""
        spans = [span for span in self._catalog.get(name, []) if span.start <= end and span.end >= start]
        return bool(spans) and spans[0].start <= start and all(span.revision for span in spans)

    async def _follow(self) -> None:
        listing = await self._reader.listing()
        for name, adapter in listing.adapters.items():
            self._catalog[name] = [Span(adapter.revision, time.time())]
        cursor = listing.cursor
        while True:
            for entry_id, event in await self._reader.events_after(cursor):
                cursor = entry_id
                revision = None if event.type is EventType.DELETED else event.revision
                spans = self._catalog.setdefault(event.name, [])
                if spans and spans[-1].revision == revision:
                    continue
                if spans:
                    spans[-1].end = time.time()
                spans.append(Span(revision, event.at.timestamp()))

    async def _look(self) -> None:
        while True:
            before = time.time()
            tables = await self._reports.tables(list(await self._reports.workers()))
            said = {name: report for table in tables.values() for name, report in table.items()}
            for name in self._worker.keys() | said.keys():
                report = said.get(name)
                loaded = report.revision if report and report.state is WorkerState.LOADED else None
                spans = self._worker.setdefault(name, [])
                if spans and spans[-1].revision == loaded:
                    continue
                if spans:
                    spans[-1].end = time.time()
                if loaded is not None or spans:
                    spans.append(Span(loaded, before))
            await asyncio.sleep(_LOOK_SECONDS)
