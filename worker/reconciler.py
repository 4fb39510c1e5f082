"""Wanted against served: how the revision the catalog wants comes to answer for its name.

The catalog's changes only change what is wanted; that costs the engine nothing. The first request for a
name brings its revision: prepare, load, point. A name that is already served is brought up to date in
the background: the new revision is loaded beside the old one, then the name points at it. If the new one
is rejected or fails, the old one stays, and the reason shows.
"""

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from catalog.adapter import Adapter, AdapterState, Reason, Revision
from catalog.revision import short
from catalog.status import WorkerAdapter, WorkerState
from worker.entry import Entry
from worker.files import Source
from worker.handle import Handle
from worker.metrics import LOAD_SECONDS, LOADS
from worker.outcomes import Failed, NotServedYet, Rejected, UnknownModel
from worker.residency import EngineLike, Held, Residency, TableLike
from worker.revisions import Pinned

_log = logging.getLogger("loradrop.worker.reconciler")

_LOOK_SECONDS = 0.5

_CATALOG_PATIENCE_SECONDS = 5.0
"""How long a request waits for the catalog to catch up with the disk: a copy of a second, and settling."""

_AHEAD_ON_DISK = frozenset({"source_gone", "changed_on_disk", "changed_while_copied"})

Prepare = Callable[[Source], Awaitable[Pinned]]


class ServingEngine(EngineLike, Protocol):
    """What this needs of an engine beside what its residency needs."""

    def is_idle(self) -> bool:
        """Return whether no request is under way."""


class ServingTable(TableLike, Protocol):
    """What this needs of the table of served names beside what its residency needs."""

    def is_taken(self, name: str) -> bool:
        """Return whether the base model or a static module has the name."""


class Reconciler:
    """Keeps true: a name only ever comes to point at a revision that was wanted, proven and loaded."""

    def __init__(
        self,
        engine: ServingEngine,
        table: ServingTable,
        prepare: Prepare,
        *,
        prefix: Path | None,
        capacity: int,
    ) -> None:
        """Serve what `prepare` returns; adapters lie under `prefix`, or where the catalog says if None."""
        self._engine = engine
        self._table = table
        self._prepare = prepare
        self._prefix = prefix
        self._residency = Residency(engine, table, capacity=capacity, changed=self._note)
        self._entries: dict[str, Entry] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._by_hand: dict[str, Source] = {}
        self._refused_loads: Counter[tuple[str, Revision]] = Counter()  # outlives the entries
        self._changed: set[str] = set()
        self._gone: set[str] = set()
        self._knows_catalog = False
        self._news = asyncio.Event()
        self.bell = asyncio.Event()
        """Set whenever there is something new to report."""

    # What the catalog says.

    def replace(self, adapters: Mapping[str, Adapter], unreadable: Iterable[str] = ()) -> None:
        """Want exactly `adapters`; what cannot be read stays as it is."""
        self._knows_catalog = True
        kept = {*adapters, *unreadable}
        self.apply({name: None for name in self._entries if name not in kept} | dict(adapters))

    def apply(self, changes: Mapping[str, Adapter | None]) -> None:
        """Want these changes: a record, or None where the name is gone."""
        self._news.set()
        self._news = asyncio.Event()
        for name, adapter in changes.items():
            if adapter is None:
                self._forget(name)
                continue
            entry = self._entries.setdefault(name, Entry(name))
            entry.adapter = adapter
            self._gone.discard(name)
            self._note(name)
            if self._is_behind(entry):
                self._bring(entry)

    def listed(self) -> list[Adapter]:
        """Return the adapters to offer, by name: those that have ever been ready."""
        return [
            entry.adapter
            for name, entry in sorted(self._entries.items())
            if entry.adapter is not None and entry.wanted is not None and not self._table.is_taken(name)
        ]

    # What requests ask.

    async def resolve(self, name: str) -> Handle:
        """Return what answers for `name`, loading it if need be.

        Raises UnknownModel, Rejected with the reason, or NotServedYet where it is worth asking again.
        """
        entry = self._entries.get(name)
        if entry is None or (entry.adapter is None and entry.by_hand is None):
            if self._knows_catalog:
                raise UnknownModel(name)
            raise NotServedYet(
                Reason("catalog_unavailable", "The catalog of adapters has not been read yet.")
            )
        return self._residency.handle_of(name) or await self._brought(entry)

    async def load_by_hand(self, name: str, path: str, *, in_place: bool) -> str:
        """Serve the directory `path` under `name` until it is unloaded, and return vLLM's sentence.

        Raises PermissionError outside the prefix, Rejected and Failed.
        """
        source = await asyncio.to_thread(self._source_by_hand, path)
        entry = self._entries.setdefault(name, Entry(name))
        if entry.adapter is not None and entry.adapter.revision is not None and not in_place:
            raise Rejected("already_served", "It is discovered under the prefix; just ask for it.")
        before, entry.fault = entry.fault, None
        await self._attempt(entry, source)
        if entry.fault is not None:
            fault, entry.fault = entry.fault, before
            self._drop_if_empty(entry)
            outcome = Rejected if fault.retry_at is None else Failed
            raise outcome(fault.reason.code, fault.reason.message)
        return f"Success: LoRA adapter '{name}' added successfully."

    async def unload_by_hand(self, name: str) -> str:
        """Undo `load_by_hand` and return vLLM's sentence; raises UnknownModel and Rejected."""
        entry = self._entries.get(name)
        if entry is None:
            raise UnknownModel(f"The lora adapter '{name}' cannot be found.")
        if entry.by_hand is None:
            raise Rejected("discovered", "It is discovered; remove its directory to stop serving it.")
        entry.by_hand = None
        del self._by_hand[name]
        self._residency.withdraw(name)
        if entry.adapter is None:
            self._forget(name)
        return f"Success: LoRA adapter '{name}' removed successfully."

    # What goes on in the background.

    async def run(self, *, preload: int | None) -> None:
        """Free what nobody uses, retry updates that failed, and load ahead up to `preload` (None: all)."""
        while True:
            await self._residency.free_unused()
            now = datetime.now(UTC)
            for name in self._residency.names() | self._gone:
                entry = self._entries[name]
                self._mark_use(entry)
                self._drop_if_empty(entry)
                if self._is_behind(entry) and entry.fault_now(now) is None:
                    self._bring(entry)
            self._load_ahead(preload, now)
            await asyncio.sleep(_LOOK_SECONDS)

    async def aclose(self) -> None:
        """Stop the loads under way."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task

    # What is reported.

    def take_changes(self) -> dict[str, WorkerAdapter | None]:
        """Return what changed since the last call, by name; None where there is nothing left to say."""
        self.bell.clear()
        names, self._changed = self._changed, set()
        return {name: self._report(name) for name in names}

    def picture(self) -> dict[str, WorkerAdapter]:
        """Return all there is to report, by name."""
        reports = {name: self._report(name) for name in self._entries}
        return {name: report for name, report in reports.items() if report is not None}

    def counts(self) -> dict[str, int]:
        """Return how many adapters are in each state on this worker."""
        counts: dict[str, int] = dict.fromkeys(WorkerState, 0)
        for entry in self._entries.values():
            report = self._report(entry.name)
            if report is None and entry.wanted is None:
                continue  # never ready: the catalog counts it
            state = report.state if report else WorkerState.LISTED
            counts[state] += 1
        return counts

    # Bringing a revision.

    async def _brought(self, entry: Entry) -> Handle:
        """Bring what is wanted and return it; where the disk is ahead of the catalog, wait for the catalog.

        Raises UnknownModel, Rejected and NotServedYet.
        """
        deadline = asyncio.get_running_loop().time() + _CATALOG_PATIENCE_SECONDS
        with contextlib.suppress(TimeoutError):
            while True:
                news = self._news
                if not self._is_ahead_on_disk(entry):
                    self._raise_if_hopeless(entry)
                    await asyncio.shield(self._bring(entry))
                    if handle := self._residency.handle_of(entry.name):
                        return handle
                if not self._is_ahead_on_disk(entry):
                    break
                async with asyncio.timeout_at(deadline):
                    await news.wait()
        self._raise_if_hopeless(entry)
        raise NotServedYet(Reason("superseded", f"{entry.name} changed while it was loaded."))

    def _is_ahead_on_disk(self, entry: Entry) -> bool:
        """Whether the wanted revision is no longer there to be copied: the watcher is about to say so."""
        fault = entry.fault_now(datetime.now(UTC))
        return fault is not None and fault.reason.code in _AHEAD_ON_DISK

    def _bring(self, entry: Entry) -> asyncio.Task[None]:
        task = self._tasks.get(entry.name)
        if task is None:
            task = asyncio.create_task(self._bring_wanted(entry), name=f"loradrop-load-{entry.name}")
            self._tasks[entry.name] = task
            task.add_done_callback(lambda _: self._tasks.pop(entry.name, None))
        return task

    async def _bring_wanted(self, entry: Entry) -> None:
        """Try until what is served is what is wanted, or there is no point in trying now."""
        while (source := self._source_of(entry)) is not None:
            served = self._residency.revision_of(entry.name) == source.revision
            if served or entry.fault_now(datetime.now(UTC)) is not None:
                return
            await self._attempt(entry, source)

    def _source_of(self, entry: Entry) -> Source | None:
        if entry.by_hand is not None:
            return replace(self._by_hand[entry.name], revision=entry.by_hand)
        if entry.adapter is None or entry.wanted is None:
            return None
        prefix = self._prefix or Path(entry.adapter.prefix)
        return Source(prefix, entry.adapter.path, entry.wanted, entry.adapter.size_bytes)

    async def _attempt(self, entry: Entry, source: Source) -> None:
        """Try `source` once; what comes of it is in the entry and the residency."""
        started = asyncio.get_running_loop().time()
        entry.loading = True
        self._note(entry.name)
        try:
            held = await self._hold(entry, source)
        except Rejected as rejected:
            entry.rejected(source.revision, rejected.reason)
            LOADS.labels("rejected").inc()
            _log.warning("adapter rejected name=%s reason=%s", entry.name, rejected.reason)
        except Failed as failed:
            self._fail(entry, source, failed.reason)
        except Exception as error:  # noqa: BLE001 - the next request tries again
            _log.exception("loading broke name=%s", entry.name)
            self._fail(entry, source, Reason("internal_error", f"loradrop broke on it: {error!r}."))
        else:
            if source.revision is None:  # by hand, whatever its bytes are
                entry.by_hand, self._by_hand[entry.name] = held.handle.revision, source
            if entry.wanted == held.handle.revision:
                self._serve(entry, held, asyncio.get_running_loop().time() - started)
            else:
                self._residency.leave(held)  # another revision is wanted by now, or none
        finally:
            entry.loading = False
            self._note(entry.name)

    async def _hold(self, entry: Entry, source: Source) -> Held:
        if self._table.is_taken(entry.name):
            raise Rejected(
                "name_taken", "The base model or a --lora-modules adapter has this name; rename it."
            )
        pinned = await self._prepare(source)
        key = entry.name, pinned.revision
        handle = Handle.of(*key, pinned.directory, attempt=self._refused_loads[key])
        try:
            return await self._residency.load(handle, pinned)
        except (Rejected, Failed):
            self._refused_loads[key] += 1
            raise

    def _serve(self, entry: Entry, held: Held, seconds: float) -> None:
        self._residency.serve(held)
        entry.loaded(seconds)
        LOADS.labels("loaded").inc()
        LOAD_SECONDS.observe(seconds)
        _log.info(
            "adapter loaded name=%s revision=%s seconds=%.3f",
            entry.name,
            short(held.handle.revision),
            seconds,
        )

    def _fail(self, entry: Entry, source: Source, reason: Reason) -> None:
        again = entry.fault is not None and entry.fault.reason == reason
        _log.log(
            logging.DEBUG if again else logging.WARNING,
            "adapter failed name=%s reason=%s",
            entry.name,
            reason,
        )
        entry.failed(source.revision, reason, datetime.now(UTC))
        LOADS.labels("failed").inc()

    # Small print.

    def _forget(self, name: str) -> None:
        entry = self._entries.get(name)
        if entry is None:
            return
        entry.adapter, entry.fault = None, None
        self._gone.add(name)
        if entry.by_hand is None:
            self._residency.withdraw(name)
        self._drop_if_empty(entry)
        self._note(name)

    def _is_behind(self, entry: Entry) -> bool:
        serving = self._residency.revision_of(entry.name)
        return serving is not None and entry.wanted not in {None, serving}

    def _load_ahead(self, preload: int | None, now: datetime) -> None:
        if preload == 0 or self._tasks or not self._engine.is_idle() or not self._residency.has_room(preload):
            return
        for entry in self._entries.values():
            missing = entry.wanted is not None and self._residency.revision_of(entry.name) is None
            if missing and entry.fault_now(now) is None:
                self._bring(entry)
                return

    def _mark_use(self, entry: Entry) -> None:
        touched = self._table.last_touched(entry.name)
        if touched is None:
            return
        used = datetime.now(UTC).timestamp() - (asyncio.get_running_loop().time() - touched)
        if entry.last_used is None or used - entry.last_used.timestamp() > _LOOK_SECONDS:
            entry.last_used = datetime.fromtimestamp(used, UTC)
            self._note(entry.name)

    def _source_by_hand(self, path: str) -> Source:
        if self._prefix is None:
            raise PermissionError("Adapters are loaded by hand from under --lora-dir-prefix only: set it.")
        root = self._prefix.resolve()
        try:
            resolved = (root / path).resolve()
        except (ValueError, RuntimeError):  # no path at all, links in a circle
            resolved = root
        if resolved == root or not resolved.is_relative_to(root):
            raise PermissionError("The path is outside --lora-dir-prefix: put the adapter under the prefix.")
        return Source(root, str(resolved.relative_to(root)))

    def _raise_if_hopeless(self, entry: Entry) -> None:
        """Raise what a request is told when trying to load the adapter now would not help."""
        adapter = entry.adapter
        if adapter is None and entry.by_hand is None:
            raise UnknownModel(entry.name)
        if adapter is not None and entry.wanted is None:
            reason = adapter.reason or Reason(adapter.state, "Its files are not complete and still yet.")
            if adapter.state is AdapterState.REJECTED:
                raise Rejected(reason.code, reason.message)
            raise NotServedYet(reason)
        now = datetime.now(UTC)
        fault = entry.fault_now(now)
        if fault is not None and fault.retry_at is None:
            raise Rejected(fault.reason.code, fault.reason.message)
        if fault is not None and fault.retry_at is not None:
            wait = max(1, round((fault.retry_at - now).total_seconds()))
            raise NotServedYet(fault.reason, retry_after_seconds=wait)

    def _drop_if_empty(self, entry: Entry) -> None:
        if (
            entry.adapter is None
            and entry.by_hand is None
            and not (
                entry.loading
                or self._residency.revision_of(entry.name)
                or self._residency.is_leaving(entry.name)
            )
        ):
            self._entries.pop(entry.name, None)
            self._gone.discard(entry.name)

    def _report(self, name: str) -> WorkerAdapter | None:
        entry = self._entries.get(name)
        return entry.report(self._residency.revision_of(name)) if entry is not None else None

    def _note(self, name: str) -> None:
        self._changed.add(name)
        self.bell.set()
