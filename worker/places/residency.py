"""What the engine has loaded: the revision that serves each name, and the revisions that are draining.

The engine keeps `capacity` adapters. Beyond that it would evict one and read it from disk again in the middle
of a step, where any error ends it. So a load waits for a place (`room`), and none is ever loaded without one.
Not here: how what serves no name any more leaves the engine (`draining`).
"""

import logging
from collections.abc import Callable
from functools import partial

from loradrop.catalog.adapter import Revision
from loradrop.catalog.revision import short
from loradrop.catalog.status import WorkerRevision, WorkerState
from loradrop.worker.engine.handle import Handle
from loradrop.worker.outcomes import Failed, Rejected
from loradrop.worker.places.draining import Draining
from loradrop.worker.places.interfaces import EngineLike, TableLike
from loradrop.worker.places.load_scheduler import Demand, LoadScheduler
from loradrop.worker.places.places import Claim, Loaded, Places
from loradrop.worker.places.room import Room
from loradrop.worker.places.timings import TIMINGS, Timings
from loradrop.worker.store.pins import Pinned

__all__ = ["Loaded", "Residency"]

_log = logging.getLogger(__name__)


class Residency:
    """Invariant: a name points at a loaded revision or at nothing; no revision in use is ever unloaded; no
    more revisions are loaded than the engine has places.
    """

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
        self._changed = changed
        self._timings = timings
        self._places = Places(capacity)
        self._draining = Draining(self._places, engine, table, changed=changed, timings=timings)
        self._room = Room(self._places, self._draining, table, changed=changed, timings=timings)
        self._scheduler = LoadScheduler(engine.is_idle, timings)

    def revision_of(self, name: str) -> Revision | None:
        """Return the revision that answers for `name`, or None."""
        loaded = self._places.serving.get(name)
        return loaded.handle.revision if loaded is not None else None

    def handle_of(self, name: str) -> Handle | None:
        """Return the handle that answers for `name`; None where there is none, or its files are gone."""
        loaded = self._places.serving.get(name)
        return loaded.handle if loaded is not None and loaded.pinned.is_there() else None

    def is_served(self, name: str, revision: Revision | None) -> bool:
        """Return whether `revision` answers for `name`, and its files are where they were."""
        handle = self.handle_of(name)
        return handle is not None and handle.revision == revision

    def is_loaded(self, lora_id: int) -> bool:
        """Return whether the engine has it."""
        return self._places.has(lora_id)

    def revisions_of(self, name: str) -> tuple[WorkerRevision, ...]:
        """Return what is loaded for `name`, or has its bytes pinned and waits to be."""
        places = self._places
        loading = [
            WorkerRevision(revision=claim.pinned.revision, state=WorkerState.LOADING, pinned=True)
            for claim in places.claims
            if claim.name == name
        ]
        serving = [places.serving[name]] if name in places.serving else []
        draining = [loaded for loaded, _ in places.draining.values() if loaded.handle.name == name]
        return (
            *loading,
            *(_report(loaded, WorkerState.LOADED) for loaded in serving),
            *(_report(loaded, WorkerState.DRAINING) for loaded in draining),
        )

    def totals(self) -> tuple[int, int]:
        """Return how many revisions are in the engine, and how many are pinned."""
        places = self._places
        pinned = len(places.serving) + len(places.draining) + len(places.claims)
        return places.taken(), pinned

    @property
    def capacity(self) -> int:
        """How many places there are."""
        return self._places.capacity

    def names_by_last_use(self) -> list[str]:
        """Return the names that answer at once, used last first. From any thread."""
        serving = dict(self._places.serving)
        return sorted(serving, key=lambda name: self._room.last_used(name, serving[name]), reverse=True)

    def names(self) -> set[str]:
        """Return the names that have anything loaded."""
        places = self._places
        return {*places.serving, *(loaded.handle.name for loaded, _ in places.draining.values())}

    def has_loaded(self, name: str) -> bool:
        """Return whether anything is loaded for `name`."""
        return name in self.names()

    def has_room(self, limit: int | None) -> bool:
        """Return whether fewer than `limit` (None: as many as fit) revisions are loaded."""
        capacity = self._places.capacity
        return self._places.taken() < (capacity if limit is None else min(limit, capacity))

    async def load(self, name: str, pinned: Pinned, demand: Demand | None = None) -> Loaded:
        """Load what `pinned` keeps, for `name`: as a request waits for it, or in the background by `demand`.

        What is returned must be served or drained. Raises what the engine raises, NotDesired, and Failed
        where no place became free in time; the pin is released then.
        """
        claim = Claim(name, pinned, demand or Demand.of_request(), self._timings.clock())
        self._places.claims.append(claim)
        self._changed(name)
        try:
            async with self._scheduler.load(
                claim.demand,
                ahead=lambda: name not in self._places.serving,
                place=partial(self._room.has_place, claim),
            ):
                handle = self._places.handle_for(claim)
                if not self._places.has(handle.lora_id):  # a load that failed would take it from its requests
                    await self._load(handle, pinned)
                self._places.arrived[handle.lora_id] += 1
                self._draining.cancel(handle.lora_id)  # in this turn: the next may unload what has drained
        except BaseException:
            pinned.release()
            raise
        finally:
            self._places.claims.remove(claim)
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
        handle = loaded.handle
        previous = self._places.serving.get(handle.name)
        self._places.serving[handle.name] = loaded
        self._places.settle(handle.lora_id)
        self._draining.cancel(handle.lora_id)
        self._table.point(handle)
        if previous is not None:
            self._draining.begin(previous)
        self._changed(handle.name)

    def drain(self, name: str) -> None:
        """Point `name` at nothing: new requests are refused at once, running ones finish.

        drain("sql") while a request uses A:

            call                serving   draining
            drain("sql")        -         A          vLLM's table has no "sql" from here on
            unload_unused()     -         A          until the request ends and the grace period is over
            unload_unused()     -         -          A is unloaded and its pin released
        """
        loaded = self._places.serving.pop(name, None)
        if loaded is not None:  # else the name may be a static module's
            self._table.remove(name)
            self._draining.begin(loaded)
            _log.info("adapter draining name=%s revision=%s", name, short(loaded.handle.revision))

    def drain_revision(self, loaded: Loaded) -> None:
        """Unload what was loaded and is not to be served after the grace period, once unused."""
        self._places.settle(loaded.handle.lora_id)
        self._draining.begin(loaded)

    async def unload_unused(self) -> None:
        """Unload what has drained."""
        for lora_id in list(self._places.draining):
            async with self._scheduler.exclusive():
                await self._draining.unload_if_over(lora_id)

    async def _load(self, handle: Handle, pinned: Pinned) -> None:
        try:
            await self._engine.load(handle)
        except (Rejected, Failed) as error:
            self._places.failed_loads[handle.revision] += 1
            if pinned.is_there():
                raise
            raise Failed("copy_gone", "Its private copy was deleted while it was loaded.") from error


def _report(loaded: Loaded, state: WorkerState) -> WorkerRevision:
    return WorkerRevision(
        revision=loaded.handle.revision, state=state, resident=True, pinned=True, load_seconds=loaded.seconds
    )
