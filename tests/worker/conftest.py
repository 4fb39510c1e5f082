"""A reconciler between an engine, a table and a store that can be scripted."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.fakes import FakeEngine, FakeStore, FakeTable
from worker.reconciler import Reconciler

CAPACITY = 4


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
    monkeypatch.setattr("worker.residency.GRACE_SECONDS", 0.0)
    yield
