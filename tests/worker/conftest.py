"""A reconciler, and a residency alone, between an engine, a table and a store that can be scripted."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from loradrop.worker.places.timings import Timings
from loradrop.worker.serving.reconciler import Reconciler
from testkit.fakes import FakeEngine, FakeStore, FakeTable
from tests.worker.ground import GRACE_SECONDS, Clock, Ground

CAPACITY = 4

Run = Callable[[int | None], None]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def later(clock: Clock) -> Callable[[], None]:
    """Let the grace period of all there is be over."""
    return lambda: clock.advance(GRACE_SECONDS)


@pytest.fixture
def table(clock: Clock) -> FakeTable:
    return FakeTable(clock)


@pytest.fixture
async def engine(table: FakeTable) -> AsyncIterator[FakeEngine]:
    """An engine; nothing a test does may bring it to what would kill a vLLM."""
    engine = FakeEngine(table.served_ids)
    yield engine
    assert engine.violations == []


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[FakeStore]:
    store = FakeStore(tmp_path / "store")
    yield store
    store.close()


@pytest.fixture
def ground(engine: FakeEngine, table: FakeTable, store: FakeStore, clock: Clock) -> Ground:
    return Ground(engine, table, store, clock)


@pytest.fixture
def no_grace() -> None:
    """What no request uses may go at once."""


@pytest.fixture
def timings(request: pytest.FixtureRequest) -> Timings:
    """The reconciler's; parametrize `timings` where a test needs others."""
    is_hasty = {"no_grace", "running"} & set(request.fixturenames)
    return Timings(
        visit_seconds=0.005, grace_seconds=0.0 if is_hasty else GRACE_SECONDS, idle_poll_seconds=0.001
    )


@pytest.fixture
async def reconciler(
    engine: FakeEngine, table: FakeTable, store: FakeStore, tmp_path: Path, timings: Timings
) -> AsyncIterator[Reconciler]:
    """A reconciler with room for four, of the prefix `tmp_path / "loras"`."""
    (tmp_path / "loras").mkdir()
    engine.places = CAPACITY
    reconciler = Reconciler(
        engine, table, store.prepare, prefix=tmp_path / "loras", capacity=CAPACITY, timings=timings
    )
    yield reconciler
    await reconciler.aclose()


@asynccontextmanager
async def _background(reconciler: Reconciler, preload: int | None) -> AsyncIterator[None]:
    task = asyncio.create_task(reconciler.run(preload=preload))
    try:
        yield
        assert not task.done(), "the background task broke"
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@pytest.fixture
async def run(reconciler: Reconciler) -> AsyncIterator[Run]:
    """Start the background task, with this many adapters to load ahead."""
    tasks: list[asyncio.Task[None]] = []
    yield lambda preload: tasks.append(asyncio.create_task(reconciler.run(preload=preload)))
    for task in tasks:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@pytest.fixture
async def running(reconciler: Reconciler) -> AsyncIterator[Reconciler]:
    """The reconciler, looking after itself all the time."""
    async with _background(reconciler, 0):
        yield reconciler
