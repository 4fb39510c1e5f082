"""A residency with room for two, loads that go as the reconciler's go, and a clock that stands still."""

import time
from pathlib import Path

from loradrop.catalog.adapter import Revision
from loradrop.worker.engine.handle import Handle
from loradrop.worker.serving.residency import Loaded, Residency
from loradrop.worker.serving.timings import Timings
from loradrop.worker.store.copying import Source
from testkit.fakes import FakeEngine, FakeStore, FakeTable

GRACE_SECONDS = 5.0


class Clock:
    """Monotonic time; stopped, it moves only by `advance`."""

    def __init__(self) -> None:
        self._stopped_at: float | None = None

    def __call__(self) -> float:
        return time.monotonic() if self._stopped_at is None else self._stopped_at

    def stop(self) -> None:
        self._stopped_at = self()

    def advance(self, seconds: float) -> None:
        self._stopped_at = self() + seconds


class Ground:
    def __init__(self, engine: FakeEngine, table: FakeTable, store: FakeStore, clock: Clock) -> None:
        clock.stop()
        self.changed: list[str] = []
        timings = Timings(grace_seconds=GRACE_SECONDS, clock=clock)
        self.residency = Residency(engine, table, capacity=2, changed=self.changed.append, timings=timings)
        self._store = store

    async def loaded(self, name: str, wanted: Revision, *, attempt: int = 0) -> Loaded:
        """Load a revision that no name points at."""
        pinned = await self._store.prepare(Source(Path("/loras"), name, wanted))
        handle = Handle.of(name, wanted, pinned.directory, attempt=attempt)
        return await self.residency.load(handle, pinned)

    async def load(self, name: str, wanted: Revision, *, attempt: int = 0) -> Handle:
        """Load a revision, and let its name point at it."""
        loaded = await self.loaded(name, wanted, attempt=attempt)
        self.residency.serve(loaded)
        return loaded.handle
