"""The ground under a residency: an engine with room for two, and loads that go as the reconciler's go."""

from pathlib import Path

from loradrop.catalog.adapter import Revision
from loradrop.worker.engine.handle import Handle
from loradrop.worker.serving.residency import Residency
from loradrop.worker.store.copying import Source
from testkit.fakes import FakeEngine, FakeStore, FakeTable


class Ground:
    def __init__(self, engine: FakeEngine, table: FakeTable, store: FakeStore) -> None:
        self.changed: list[str] = []
        self.residency = Residency(engine, table, capacity=2, changed=self.changed.append)
        self._store = store

    async def load(self, name: str, wanted: Revision, *, attempt: int = 0) -> Handle:
        pinned = await self._store.prepare(Source(Path("/loras"), name, wanted))
        handle = Handle.of(name, wanted, pinned.directory, attempt=attempt)
        self.residency.serve(await self.residency.load(handle, pinned))
        return handle
