"""Reconciles desired with loaded: how the revision that the catalog names comes to answer for its name.

A change of the catalog only changes what is desired, which costs the engine nothing. The first request for a
name loads its revision: prepare, load, point. A name that is served already is updated in the background: the
new revision is loaded beside the old one, then the name points at it. If the new one is rejected or fails,
the old one stays, and the reason is reported. For example, revision B replaces A while A is served:

    apply(sql: B)       desired B, serving A: a background task starts
    prepare(B)          the bytes of B are copied, validated and pinned; requests are answered from A
    engine load of B    in its turn; should C be desired by now, B is skipped
    serve(B)            requests are answered from B; A drains
    run()               A is unloaded once unused

Not here: one try (`loading`), what requests are answered (`resolver`), vLLM's load and unload routes
(`manual_loads`), what is reported (`status`).
"""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from loradrop.catalog.adapter import Adapter
from loradrop.worker.engine.handle import Handle
from loradrop.worker.outcomes import Failed, Rejected
from loradrop.worker.places.interfaces import EngineLike, TableLike
from loradrop.worker.places.load_scheduler import Demand, NotDesired
from loradrop.worker.places.residency import Residency
from loradrop.worker.places.timings import TIMINGS, Timings
from loradrop.worker.serving.entries import Entries
from loradrop.worker.serving.entry import Entry
from loradrop.worker.serving.loading import Loading, Prepare
from loradrop.worker.serving.manual_loads import ManualLoads
from loradrop.worker.serving.resolver import Resolver
from loradrop.worker.serving.status import AdapterStatus, ChangedNames
from loradrop.worker.store.copying import Source
from loradrop.worker.supervision import cancelled


@dataclass(frozen=True, slots=True)
class _LoadTask:
    """What loads the desired revision of one name. `requested` is set once a request waits for it."""

    task: asyncio.Task[None]
    requested: asyncio.Event


class Reconciler:
    """Invariant: a name only ever comes to point at a revision that was desired, validated and loaded."""

    def __init__(
        self,
        engine: EngineLike,
        table: TableLike,
        prepare: Prepare,
        *,
        prefix: Path | None,
        capacity: int,
        timings: Timings = TIMINGS,
    ) -> None:
        """Serve what `prepare` returns; adapters lie under `prefix`, or where the catalog says if None."""
        self._engine = engine
        self._table = table
        self._prefix = prefix
        self._timings = timings
        changes = ChangedNames()
        self._changed = changes.note
        self._residency = Residency(engine, table, capacity=capacity, changed=changes.note, timings=timings)
        self._entries = Entries(
            self._residency, is_taken=table.is_taken, changed=changes.note, timings=timings
        )
        self._loading = Loading(prepare, self._residency, changed=changes.note, timings=timings)
        self._resolver = Resolver(self._entries, self._residency, self._load_for_request, timings)
        self._load_tasks: dict[str, _LoadTask] = {}
        self.manual_loads = ManualLoads(
            self._entries, self._loading, self._residency, prefix=prefix, timings=timings
        )
        self.status = AdapterStatus(self._entries, self._residency, changes)

    def replace(self, adapters: Mapping[str, Adapter], unreadable: Iterable[str] = ()) -> None:
        """Desire exactly `adapters`; names whose records are `unreadable` stay as they are."""
        kept = {*adapters, *unreadable}
        gone: dict[str, None] = {entry.name: None for entry in self._entries if entry.name not in kept}
        self._apply(gone | dict(adapters), is_whole=True)

    def apply(self, changes: Mapping[str, Adapter | None]) -> None:
        """Desire these changes: a record, or None where the name is gone."""
        self._apply(changes, is_whole=False)

    def listed(self) -> list[Adapter]:
        """Return the adapters to offer, by name: those that have been ready, and are not rejected here."""
        return [
            entry.adapter
            for entry in sorted(self._entries, key=lambda entry: entry.name)
            if entry.adapter is not None and entry.desired is not None and self._is_offered(entry)
        ]

    def is_there(self, name: str) -> bool:
        """Return whether what answers for `name` is loaded, and its files where they were."""
        return self._residency.handle_of(name) is not None

    def is_loaded(self, lora_id: int) -> bool:
        """Return whether the engine has it."""
        return self._residency.is_loaded(lora_id)

    async def resolve(self, name: str) -> Handle:
        """Return what answers for `name`, loading it if need be; raises as `Resolver.resolve` does."""
        return await self._resolver.resolve(name)

    async def run(self, *, preload: int | None) -> None:
        """Unload what is unused, retry updates that failed, and load ahead up to `preload` (None: all)."""
        while True:
            await self._residency.unload_unused()
            now = datetime.now(UTC)
            for entry in self._entries.needs_visit():
                self._note_use(entry)
                self._entries.drop_if_empty(entry)
                if self._is_behind(entry) and entry.current_fault(now) is None:
                    self._start_loading(entry)
            self._load_ahead(preload, now)
            await asyncio.sleep(self._timings.visit_seconds)

    async def aclose(self) -> None:
        """Stop the loads in progress."""
        await self.manual_loads.aclose()
        await cancelled(load.task for load in self._load_tasks.values())

    def _apply(self, changes: Mapping[str, Adapter | None], *, is_whole: bool) -> None:
        self._resolver.note_catalog_change(is_whole=is_whole)
        for name, adapter in changes.items():
            if adapter is None:
                self._entries.remove(name)
                continue
            entry = self._entries.set_desired(name, adapter)
            if self._is_behind(entry):
                self._start_loading(entry)

    def _load_for_request(self, entry: Entry) -> asyncio.Task[None]:
        load = self._start_loading(entry)
        load.requested.set()
        return load.task

    def _start_loading(self, entry: Entry) -> _LoadTask:
        """Load what is desired in the background, unless a task does already."""
        load = self._load_tasks.get(entry.name)
        if load is None or load.task.done():
            requested = asyncio.Event()
            task = asyncio.create_task(
                self._load_desired(entry, requested), name=f"loradrop-load-{entry.name}"
            )
            load = self._load_tasks[entry.name] = _LoadTask(task, requested)
            task.add_done_callback(lambda task: self._drop_task(entry.name, task))
        return load

    def _drop_task(self, name: str, task: asyncio.Task[None]) -> None:
        if self._load_tasks[name].task is task:  # else the next one has begun
            del self._load_tasks[name]

    async def _load_desired(self, entry: Entry, requested: asyncio.Event) -> None:
        """Try until what is served is what is desired, or there is no point in trying now."""
        while (source := self._source_of(entry)) is not None:
            is_served = self._residency.is_served(entry.name, source.revision)
            if is_served or entry.current_fault(datetime.now(UTC)) is not None:
                return
            if not await self._try(entry, source, requested):
                return

    async def _try(self, entry: Entry, source: Source, requested: asyncio.Event) -> bool:
        """Try `source` once; the outcome is in the entry and the residency.

        Returns whether to go on: a load ahead that has no place by now is given up, until it is requested.
        """
        demand = Demand(requested, lambda: entry.desired == source.revision)
        try:
            loaded = await self._loading.load(entry, source, demand)
        except NotDesired:
            return requested.is_set() or entry.desired != source.revision
        except Rejected as rejected:
            entry.note_rejected(source.revision, rejected.reason)
        except Failed as failed:
            entry.note_failed(source.revision, failed.reason, datetime.now(UTC))
        else:
            if entry.desired == loaded.handle.revision:
                self._loading.serve(entry, loaded)
            else:
                self._residency.drain_revision(loaded)  # another revision is desired by now, or none
        self._changed(entry.name)
        return True

    def _source_of(self, entry: Entry) -> Source | None:
        if entry.manual is not None:
            return self.manual_loads.source_of(entry)
        if entry.adapter is None or entry.desired is None or self._table.is_taken(entry.name):
            return None
        prefix = self._prefix or Path(entry.adapter.prefix)
        return Source(prefix, entry.adapter.path, entry.desired, entry.adapter.size_bytes)

    def _is_offered(self, entry: Entry) -> bool:
        if self._table.is_taken(entry.name):
            return False
        return not entry.is_rejected or self._residency.revision_of(entry.name) is not None

    def _is_behind(self, entry: Entry) -> bool:
        serving = self._residency.revision_of(entry.name)
        if serving is None or entry.desired is None:
            return False
        return not self._residency.is_served(entry.name, entry.desired)

    def _load_ahead(self, preload: int | None, now: datetime) -> None:
        if self._load_tasks or not self._engine.is_idle() or not self._residency.has_room(preload):
            return
        for entry in self._entries:
            missing = self._residency.revision_of(entry.name) is None
            if missing and entry.current_fault(now) is None and self._source_of(entry) is not None:
                self._start_loading(entry)
                return

    def _note_use(self, entry: Entry) -> None:
        touched = self._table.last_touched(entry.name)
        if touched is None:
            return
        used = datetime.now(UTC).timestamp() - (self._timings.clock() - touched)
        if entry.last_used is None or used - entry.last_used.timestamp() > self._timings.visit_seconds:
            entry.last_used = datetime.fromtimestamp(used, UTC)
            self._changed(entry.name)
