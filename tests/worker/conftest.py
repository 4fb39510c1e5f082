"""A reconciler, and a residency alone, between an engine, a table and a store that can be scripted."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from loradrop.worker.serving.reconciler import Reconciler
from testkit.fakes import FakeEngine, FakeStore, FakeTable
from tests.worker.ground import Ground

CAPACITY = 4

Run = Callable[[int | None], None]


@pytest.fixture
async def engine() -> AsyncIterator[FakeEngine]:
    """An engine; nothing a test does may bring it to what would kill a vLLM."""
    engine = FakeEngine()
    yield engine
    assert engine.violations == []


@pytest.fixture
def table() -> FakeTable:
    return FakeTable()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[FakeStore]:
    store = FakeStore(tmp_path / "store")
    yield store
    store.close()


@pytest.fixture
async def reconciler(
    engine: FakeEngine, table: FakeTable, store: FakeStore, tmp_path: Path
) -> AsyncIterator[Reconciler]:
    """A reconciler with room for four, of the prefix `tmp_path / "loras"`."""
    (tmp_path / "loras").mkdir()
    reconciler = Reconciler(engine, table, store.prepare, prefix=tmp_path / "loras", capacity=CAPACITY)
    yield reconciler
    await reconciler.aclose()


@pytest.fixture
def no_grace(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What nobody uses may go at once."""
    monkeypatch.setattr("loradrop.worker.serving.residency.GRACE_SECONDS", 0.0)
    yield


@pytest.fixture
async def run(reconciler: Reconciler, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Run]:
    """Start the background task, with this many adapters to load ahead."""
    monkeypatch.setattr("loradrop.worker.serving.reconciler._LOOK_SECONDS", 0.005)
    tasks: list[asyncio.Task[None]] = []
    yield lambda preload: tasks.append(asyncio.create_task(reconciler.run(preload=preload)))
    for task in tasks:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@pytest.fixture
async def running(reconciler: Reconciler, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Reconciler]:
    """The reconciler, looking after itself all the time, with no grace for what nobody uses."""
    monkeypatch.setattr("loradrop.worker.serving.reconciler._LOOK_SECONDS", 0.01)
    monkeypatch.setattr("loradrop.worker.serving.residency.GRACE_SECONDS", 0.0)
    task = asyncio.create_task(reconciler.run(preload=0))
    yield reconciler
    assert not task.done(), "the background task broke"
    task.cancel()


@pytest.fixture
def ground(engine: FakeEngine, table: FakeTable, store: FakeStore) -> Ground:
    return Ground(engine, table, store)


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Let the grace period be over from now on."""
    return lambda: monkeypatch.setattr("loradrop.worker.serving.residency.GRACE_SECONDS", -1.0)
