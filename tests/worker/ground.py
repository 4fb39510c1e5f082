"""A residency with room for two, loads that go as the reconciler's go, and a clock that stands still."""

import asyncio
import math
import time
from collections.abc import Callable
from pathlib import Path

from loradrop.catalog.adapter import Revision
from loradrop.worker.engine.handle import Handle
from loradrop.worker.places.load_scheduler import Demand
from loradrop.worker.places.residency import Loaded, Residency
from loradrop.worker.places.timings import Timings
from loradrop.worker.store.copying import Source
from testkit.fakes import FakeEngine, FakeStore, FakeTable

GRACE_SECONDS = 5.0
CAPACITY = 2


class Clock:
    """Monotonic time; stopped, it moves only by `advance`."""

    def __init__(self) -> None:
        self._stopped_at: float | None = None

    def __call__(self) -> float:
        return time.monotonic() if self._stopped_at is None else self._stopped_at

    def stop(self) -> None:
        self._stopped_at = float(math.ceil(self()))  # whole seconds add up without rounding

    def advance(self, seconds: float) -> None:
        self._stopped_at = self() + seconds


class Ground:
    def __init__(self, engine: FakeEngine, table: FakeTable, store: FakeStore, clock: Clock) -> None:
        clock.stop()
        engine.places = CAPACITY
        self.changed: list[str] = []
        timings = Timings(grace_seconds=GRACE_SECONDS, idle_poll_seconds=0.001, clock=clock)
        self.residency = Residency(
            engine, table, capacity=CAPACITY, changed=self.changed.append, timings=timings
        )
        self._store = store

    async def update(
        self, name: str, wanted: Revision, is_desired: Callable[[], bool] = lambda: True
    ) -> Handle:
        """Load a revision in the background, while `is_desired`, and let its name point at it."""
        pinned = await self._store.prepare(Source(Path("/loras"), name, wanted))
        loaded = await self.residency.load(name, pinned, Demand(asyncio.Event(), is_desired))
        self.residency.serve(loaded)
        return loaded.handle

    async def loaded(self, name: str, wanted: Revision) -> Loaded:
        """Load a revision that no name points at."""
        pinned = await self._store.prepare(Source(Path("/loras"), name, wanted))
        return await self.residency.load(name, pinned)

    async def load(self, name: str, wanted: Revision) -> Handle:
        """Load a revision, and let its name point at it."""
        loaded = await self.loaded(name, wanted)
        self.residency.serve(loaded)
        return loaded.handle
