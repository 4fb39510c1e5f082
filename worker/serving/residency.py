"""What the engine has loaded: the revision that serves each name, and the revisions that are draining.

The engine stops for each load, so loads take turns (`load_scheduler`). It keeps `capacity` adapters; beyond
that it would read evicted ones from disk again in the middle of a step, where any error ends it. So room is
made before a load: the revision unused for longest goes, never one in use or requested just now.

A revision is unloaded in two steps: first no name points at it any more; then, once no request uses it and a
grace period has passed (a request between its check and its start is in no list), it leaves the engine and
its bytes may leave the store.
"""

import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from loradrop.catalog.adapter import Revision
from loradrop.catalog.revision import short
from loradrop.catalog.status import WorkerRevision, WorkerState
from loradrop.worker.engine.handle import Handle
from loradrop.worker.serving.interfaces import EngineLike, TableLike
from loradrop.worker.serving.load_scheduler import Demand, LoadScheduler
from loradrop.worker.serving.timings import TIMINGS, Timings
from loradrop.worker.store.pins import Pinned

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A revision in the engine, and the pin that keeps its bytes.

    `loaded_at` is monotonic time, `seconds` how long making it ready took: copy, admission and load.
    """

    handle: Handle
    pinned: Pinned
    loaded_at: float
    seconds: float = 0.0


class Residency:
    """Invariant: a name points at a loaded revision or at nothing; no revision in use is ever unloaded."""

    def __init__(
        self,
        engine: EngineLike,
        table: TableLike,
        *,
        capacity: int,
        changed: Callable[[str], None],
        timings: Timings = TIMINGS,
    ) -> None:
        """Start with nothing loaded; call `changed` with each name that loads, serves or drains something."""
        self._engine = engine
        self._table = table
        self._capacity = capacity
        self._changed = changed
        self._timings = timings
        self._serving: dict[str, Loaded] = {}
        self._draining: dict[int, tuple[Loaded, float]] = {}
        self._loading: list[Handle] = []
        self._scheduler = LoadScheduler(engine.is_idle, timings)

    def revision_of(self, name: str) -> Revision | None:
        """Return the revision that answers for `name`, or None."""
        loaded = self._serving.get(name)
        return loaded.handle.revision if loaded is not None else None

    def handle_of(self, name: str) -> Handle | None:
        """Return the handle that answers for `name`, or None."""
        loaded = self._serving.get(name)
        return loaded.handle if loaded is not None else None

    def revisions_of(self, name: str) -> tuple[WorkerRevision, ...]:
        """Return what is loaded for `name`, or has its bytes pinned and waits to be."""
        loading = [
            WorkerRevision(revision=handle.revision, state=WorkerState.LOADING, pinned=True)
            for handle in self._loading
            if handle.name == name
        ]
        serving = [self._serving[name]] if name in self._serving else []
        draining = [loaded for loaded, _ in self._draining.values() if loaded.handle.name == name]
        return (
            *loading,
            *(_report(loaded, WorkerState.LOADED) for loaded in serving),
            *(_report(loaded, WorkerState.DRAINING) for loaded in draining),
        )

    def totals(self) -> tuple[int, int]:
        """Return how many revisions are in the engine, and how many are pinned."""
        loaded = len(self._serving) + len(self._draining)
        return loaded, loaded + len(self._loading)

    def names(self) -> set[str]:
        """Return the names that have anything loaded."""
        return {*self._serving, *(loaded.handle.name for loaded, _ in self._draining.values())}

    def has_loaded(self, name: str) -> bool:
        """Return whether anything is loaded for `name`."""
        return name in self._serving or any(
            loaded.handle.name == name for loaded, _ in self._draining.values()
        )

    def has_room(self, limit: int | None) -> bool:
        """Return whether fewer than `limit` (None: as many as fit) revisions are loaded."""
        most = self._capacity if limit is None else min(limit, self._capacity)
        return self.totals()[0] < most

    async def load(self, handle: Handle, pinned: Pinned, demand: Demand | None = None) -> Loaded:
        """Load `handle`, whose bytes `pinned` keeps: immediately, or in the background given a `demand`.

        Raises what the engine raises, and NotDesired; the pin is released then.
        """
        self._loading.append(handle)
        self._changed(handle.name)
        try:
            async with self._turn(handle.name, demand):
                if not self._is_loaded(handle):  # a second load that failed would take it from its requests
                    await self._make_room(most=self._capacity - 1)
                    await self._engine.load(handle)
                self._cancel_drain(handle.lora_id)  # in this turn: the next may unload what has drained
        except BaseException:
            pinned.release()
            raise
        finally:
            self._loading.remove(handle)
        return Loaded(handle, pinned, self._timings.clock())

    def serve(self, loaded: Loaded) -> None:
        """Point the handle's name at it, and drain what the name pointed at before.

        An update from A to B while a request uses A, and a rollback before A has drained:

            call                serving   draining   pins
            serve(A1)           A         -          A1
            serve(B)            B         A          A1, B      the request finishes on A
            unload_unused()     B         A          A1, B      A is in use: it stays
            serve(A2)           A         B          A2, B      the same id was loaded again; A1 is released
            unload_unused()     A         -          A2         B is unused, its grace period over
        """
        name, lora_id = loaded.handle.name, loaded.handle.lora_id
        self._cancel_drain(lora_id)
        previous = self._serving.get(name)
        self._serving[name] = loaded
        self._table.point(loaded.handle)
        if previous is not None and previous.handle.lora_id == lora_id:
            previous.pinned.release()
        elif previous is not None:
            self.drain_revision(previous)
        self._changed(name)

    def drain(self, name: str) -> None:
        """Point `name` at nothing: new requests are refused at once, running ones finish.

        drain("sql") while a request uses A:

            call                serving   draining
            drain("sql")        -         A          vLLM's table has no "sql" from here on
            unload_unused()     -         A          until the request ends and the grace period is over
            unload_unused()     -         -          A is unloaded and its pin released
        """
        loaded = self._serving.pop(name, None)
        if loaded is not None:  # else the name may be a static module's
            self._table.remove(name)
            self.drain_revision(loaded)
            _log.info("adapter draining name=%s revision=%s", name, short(loaded.handle.revision))

    def drain_revision(self, loaded: Loaded) -> None:
        """Unload a revision that serves no name after the grace period, once unused.

        If it was loaded twice and serves or drains already, only the second pin is released.
        """
        lora_id = loaded.handle.lora_id
        serving = self._serving.get(loaded.handle.name)
        if serving is not None and serving.handle.lora_id == lora_id:
            loaded.pinned.release()
            return
        self._cancel_drain(lora_id)
        self._draining[lora_id] = (loaded, self._timings.clock())
        self._changed(loaded.handle.name)

    async def unload_unused(self) -> None:
        """Unload what has drained, and what a burst of loads has left beyond the capacity."""
        for lora_id in list(self._draining):
            async with self._scheduler.exclusive():
                if self._has_drained(lora_id):
                    loaded, _ = self._draining.pop(lora_id)
                    await self._unload(loaded)
                    self._changed(loaded.handle.name)
        if self.totals()[0] > self._capacity and self._least_recently_used() is not None:
            async with self._scheduler.exclusive():
                await self._make_room(most=self._capacity)

    def _is_loaded(self, handle: Handle) -> bool:
        """Return whether the engine has it: its name points at it, or it drains."""
        serving = self._serving.get(handle.name)
        is_serving = serving is not None and serving.handle.lora_id == handle.lora_id
        return is_serving or handle.lora_id in self._draining

    def _cancel_drain(self, lora_id: int) -> None:
        """Take a draining revision back: another load of it has a pin of its own."""
        draining = self._draining.pop(lora_id, None)
        if draining is not None:
            draining[0].pinned.release()

    def _turn(self, name: str, demand: Demand | None) -> AbstractAsyncContextManager[None]:
        if demand is None:
            return self._scheduler.immediate()
        return self._scheduler.background(demand, ahead=lambda: name not in self._serving)

    def _has_drained(self, lora_id: int) -> bool:
        draining = self._draining.get(lora_id)
        if draining is None:  # it serves again since we began to wait for our turn
            return False
        is_over = self._timings.clock() - draining[1] >= self._timings.grace_seconds
        return is_over and lora_id not in self._engine.ids_in_use()

    async def _make_room(self, *, most: int) -> None:
        while self.totals()[0] > most and (name := self._least_recently_used()) is not None:
            self._table.remove(name)  # before the await: a request that comes now must not find it
            await self._unload(self._serving.pop(name))
            _log.debug("adapter made room name=%s", name)
            self._changed(name)

    def _least_recently_used(self) -> str | None:
        """Return the name unused for longest; None where all are in use or were requested just now."""
        in_use = self._engine.ids_in_use()
        # The request a revision was loaded for touches the name only after the load.
        last_used = {
            name: max(self._table.last_touched(name) or 0.0, loaded.loaded_at)
            for name, loaded in self._serving.items()
            if loaded.handle.lora_id not in in_use
        }
        name = min(last_used, key=last_used.__getitem__, default=None)
        oldest = self._timings.clock() - self._timings.grace_seconds
        return name if name is not None and last_used[name] <= oldest else None

    async def _unload(self, loaded: Loaded) -> None:
        try:
            await self._engine.unload(loaded.handle)
        except Exception as error:  # noqa: BLE001 - an engine that cannot unload must not stop the loop
            _log.warning("unloading failed name=%s error=%s", loaded.handle.name, error)
        loaded.pinned.release()


def _report(loaded: Loaded, state: WorkerState) -> WorkerRevision:
    return WorkerRevision(
        revision=loaded.handle.revision, state=state, resident=True, pinned=True, load_seconds=loaded.seconds
    )
