"""Wanted against served: how the revision the catalog wants comes to answer for its name.

The catalog's changes only change what is wanted; that costs the engine nothing. The first request for a
name brings its revision: prepare, load, point. A name that is already served is brought up to date in
the background: the new revision is loaded beside the old one, then the name points at it. If the new one
is rejected or fails, the old one stays, and the reason shows.

Not here: one try (`loading`), what requests are answered (`resolver`), what is loaded by hand (`by_hand`),
what is reported (`standing`).
"""

import asyncio
import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from loradrop.catalog.adapter import Adapter
from loradrop.worker.engine.handle import Handle
from loradrop.worker.outcomes import Failed, Rejected
from loradrop.worker.serving.entries import Names
from loradrop.worker.serving.entry import Entry
from loradrop.worker.serving.load_scheduler import Demand, NotWanted
from loradrop.worker.serving.loading import Loading, Prepare
from loradrop.worker.serving.manual_loads import ByHand
from loradrop.worker.serving.residency import EngineLike, Residency, TableLike
from loradrop.worker.serving.resolver import Resolver
from loradrop.worker.serving.status import Changes, Standing
from loradrop.worker.store.copying import Source

_LOOK_SECONDS = 0.5


class ServingTable(TableLike, Protocol):
    """What this needs of the table of served names beside what its residency needs."""

    def is_taken(self, name: str) -> bool:
        """Return whether the base model or a static module has the name now."""


@dataclass(frozen=True, slots=True)
class _Bringing:
    """What brings one name up to date. `asked` is set once somebody waits for it."""

    task: asyncio.Task[None]
    asked: asyncio.Event


class Reconciler:
    """Keeps true: a name only ever comes to point at a revision that was wanted, proven and loaded."""

    def __init__(
        self,
        engine: EngineLike,
        table: ServingTable,
        prepare: Prepare,
        *,
        prefix: Path | None,
        capacity: int,
    ) -> None:
        """Serve what `prepare` returns; adapters lie under `prefix`, or where the catalog says if None."""
        self._engine = engine
        self._table = table
        self._prefix = prefix
        changes = Changes()
        self._changed = changes.note
        self._residency = Residency(engine, table, capacity=capacity, changed=changes.note)
        self._names = Names(self._residency, is_taken=table.is_taken, changed=changes.note)
        self._loading = Loading(prepare, self._residency, changed=changes.note)
        self._resolver = Resolver(self._names, self._residency, self._bring_now)
        self._bringing: dict[str, _Bringing] = {}
        self.by_hand = ByHand(self._names, self._loading, self._residency, prefix=prefix)
        self.standing = Standing(self._names, self._residency, changes)

    def replace(self, adapters: Mapping[str, Adapter], unreadable: Iterable[str] = ()) -> None:
        """Want exactly `adapters`; what cannot be read stays as it is."""
        kept = {*adapters, *unreadable}
        gone: dict[str, None] = {entry.name: None for entry in self._names if entry.name not in kept}
        self._apply(gone | dict(adapters), whole=True)

    def apply(self, changes: Mapping[str, Adapter | None]) -> None:
        """Want these changes: a record, or None where the name is gone."""
        self._apply(changes, whole=False)

    def listed(self) -> list[Adapter]:
        """Return the adapters to offer, by name: those that have ever been ready."""
        return [
            entry.adapter
            for entry in sorted(self._names, key=lambda entry: entry.name)
            if entry.adapter is not None and entry.wanted is not None and not self._table.is_taken(entry.name)
        ]

    async def resolve(self, name: str) -> Handle:
        """Return what answers for `name`, loading it if need be; raises as `Resolver.resolve` does."""
        return await self._resolver.resolve(name)

    async def run(self, *, preload: int | None) -> None:
        """Free what nobody uses, retry updates that failed, and load ahead up to `preload` (None: all)."""
        while True:
            await self._residency.free_unused()
            now = datetime.now(UTC)
            for entry in self._names.stirring():
                self._mark_use(entry)
                self._names.drop_if_empty(entry)
                if self._is_behind(entry) and entry.fault_now(now) is None:
                    self._bring(entry)
            self._load_ahead(preload, now)
            await asyncio.sleep(_LOOK_SECONDS)

    async def aclose(self) -> None:
        """Stop the loads under way."""
        await self.by_hand.aclose()
        tasks = [bringing.task for bringing in self._bringing.values()]
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def _apply(self, changes: Mapping[str, Adapter | None], *, whole: bool) -> None:
        self._resolver.note_news(whole=whole)
        for name, adapter in changes.items():
            if adapter is None:
                self._names.lose(name)
                continue
            entry = self._names.want(name, adapter)
            if self._is_behind(entry):
                self._bring(entry)

    def _bring_now(self, entry: Entry) -> asyncio.Task[None]:
        """Bring what is wanted, since a request waits for it."""
        bringing = self._bring(entry)
        bringing.asked.set()
        return bringing.task

    def _bring(self, entry: Entry) -> _Bringing:
        """Bring what is wanted in the background, unless that is under way."""
        bringing = self._bringing.get(entry.name)
        if bringing is None or bringing.task.done():
            asked = asyncio.Event()
            task = asyncio.create_task(self._bring_wanted(entry, asked), name=f"loradrop-load-{entry.name}")
            bringing = self._bringing[entry.name] = _Bringing(task, asked)
            task.add_done_callback(lambda task: self._forget(entry.name, task))
        return bringing

    def _forget(self, name: str, task: asyncio.Task[None]) -> None:
        bringing = self._bringing.get(name)
        if bringing is not None and bringing.task is task:  # else the next one has begun
            del self._bringing[name]

    async def _bring_wanted(self, entry: Entry, asked: asyncio.Event) -> None:
        """Try until what is served is what is wanted, or there is no point in trying now."""
        while (source := self._source_of(entry)) is not None:
            served = self._residency.revision_of(entry.name) == source.revision
            if served or entry.fault_now(datetime.now(UTC)) is not None:
                return
            await self._try(entry, source, asked)

    async def _try(self, entry: Entry, source: Source, asked: asyncio.Event) -> None:
        """Try `source` once; what comes of it is in the entry and the residency."""
        demand = Demand(asked, lambda: entry.wanted == source.revision)
        try:
            held = await self._loading.hold(entry, source, demand)
        except NotWanted:
            return
        except Rejected as rejected:
            entry.rejected(source.revision, rejected.reason)
        except Failed as failed:
            entry.failed(source.revision, failed.reason, datetime.now(UTC))
        else:
            if entry.wanted == held.handle.revision:
                self._loading.serve(entry, held)
            else:
                self._residency.leave(held)  # another revision is wanted by now, or none
        self._changed(entry.name)

    def _source_of(self, entry: Entry) -> Source | None:
        if entry.by_hand is not None:
            return self.by_hand.source_of(entry)
        if entry.adapter is None or entry.wanted is None or self._table.is_taken(entry.name):
            return None
        prefix = self._prefix or Path(entry.adapter.prefix)
        return Source(prefix, entry.adapter.path, entry.wanted, entry.adapter.size_bytes)

    def _is_behind(self, entry: Entry) -> bool:
        serving = self._residency.revision_of(entry.name)
        return serving is not None and entry.wanted not in {None, serving}

    def _load_ahead(self, preload: int | None, now: datetime) -> None:
        if (
            preload == 0
            or self._bringing
            or not self._engine.is_idle()
            or not self._residency.has_room(preload)
        ):
            return
        for entry in self._names:
            missing = self._residency.revision_of(entry.name) is None
            if missing and entry.fault_now(now) is None and self._source_of(entry) is not None:
                self._bring(entry)
                return

    def _mark_use(self, entry: Entry) -> None:
        touched = self._table.last_touched(entry.name)
        if touched is None:
            return
        used = datetime.now(UTC).timestamp() - (asyncio.get_running_loop().time() - touched)
        if entry.last_used is None or used - entry.last_used.timestamp() > _LOOK_SECONDS:
            entry.last_used = datetime.fromtimestamp(used, UTC)
            self._changed(entry.name)
